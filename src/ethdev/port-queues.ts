// The queues of a port in the thread that probed it: how they are set up, their PORT_QUEUE cells, and those that are open here.
import { PORT_QUEUE } from '../memory/layout.js';
import type { Driver, DriverContext, PortDriver, RxQueueSetup, TxQueueSetup } from './driver.js';
import { type QueueHandle, RxQueue, startQueue, stopQueue, TxQueue } from './queues.js';

export class PortQueues {
  /** By queue number; undefined = not set up yet. */
  rx: (RxQueueSetup | undefined)[] = [];
  tx: (TxQueueSetup | undefined)[] = [];
  readonly #port: number;
  readonly #driver: Driver;
  readonly #impl: PortDriver;
  readonly #context: DriverContext;
  /** Addresses of PORT_QUEUE cells, by queue. */
  #rxCells: number[] = [];
  #txCells: number[] = [];
  #rxOpen: (RxQueue | undefined)[] = [];
  #txOpen: (TxQueue | undefined)[] = [];

  /** `port`: its number. */
  constructor(port: number, driver: Driver, impl: PortDriver, context: DriverContext) {
    this.#port = port;
    this.#driver = driver;
    this.#impl = impl;
    this.#context = context;
  }

  /** So many, stopped and not set up, in place of those that there were. */
  make(rx: number, tx: number): void {
    this.release();
    this.rx = new Array(rx).fill(undefined);
    this.tx = new Array(tx).fill(undefined);
    const reserve = () => this.#context.arena.reserve(`port ${this.#port} queue`, PORT_QUEUE.bytes);
    const cells = (shared: Map<number, number>) => (_: unknown, queue: number) => {
      const channel = this.#impl.channel?.(queue) ?? queue;
      const made = shared.get(channel) ?? reserve();
      shared.set(channel, made);
      return made;
    };
    const receiving = new Map<number, number>();
    const paired = this.#impl.paired ?? this.#driver.pairedQueues;
    this.#rxCells = this.rx.map(cells(receiving));
    this.#txCells = this.tx.map(cells(paired ? receiving : new Map()));
    this.#impl.useLocks?.(this.#rxCells, this.#txCells);
  }

  /** There are none any more. Stopped. */
  release(): void {
    this.#impl.useLocks?.([], []);
    for (const queue of [...this.#rxOpen, ...this.#txOpen]) queue?.close();
    this.#rxOpen = [];
    this.#txOpen = [];
    for (const cells of this.#cells()) this.#context.arena.release(cells);
    this.#rxCells = [];
    this.#txCells = [];
    this.rx = [];
    this.tx = [];
  }

  start(): void {
    for (const cells of this.#cells()) startQueue(this.#context.arena.u32, cells);
  }

  /** Waits for the bursts that run. Throws PortError when one does not end; `where` names the port. */
  stop(where: string): void {
    for (const cells of this.#cells()) stopQueue(this.#context.arena.u32, cells, where);
  }

  /** One in this thread. */
  rxQueue(queue: number): RxQueue {
    this.#rxOpen[queue] ??= new RxQueue(this.#context, this.#driver, this.rxHandle(queue));
    return this.#rxOpen[queue];
  }

  txQueue(queue: number): TxQueue {
    this.#txOpen[queue] ??= new TxQueue(this.#context, this.#driver, this.txHandle(queue));
    return this.#txOpen[queue];
  }

  /** For another thread. */
  rxHandle(queue: number): QueueHandle {
    return { driver: this.#driver.name, cells: this.#rxCells[queue]!, description: this.#impl.rxQueue(queue) };
  }

  txHandle(queue: number): QueueHandle {
    return { driver: this.#driver.name, cells: this.#txCells[queue]!, description: this.#impl.txQueue(queue) };
  }

  #cells(): Set<number> {
    return new Set([...this.#rxCells, ...this.#txCells]);
  }
}
