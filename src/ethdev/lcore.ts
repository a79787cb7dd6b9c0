// What a thread that polls has: its view of the arena, its instance of the compiled data path, working memory of its own.

import type { Datapath } from '../datapath/datapath.js';
import { createDatapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import { SCRATCH } from '../memory/layout.js';
import type { Driver, Lcore } from './driver.js';
import { type Pollable, PollLoop, type Ready } from './loop.js';
import { MBUFS_BYTES, Mbufs } from './mbuf.js';
import type { PortHandle } from './queues.js';
import { type QueueHandle, RxQueue, TxQueue } from './queues.js';

/** Working memory that an lcore can hand out, and all that it needs. */
const RESERVE_BYTES = 8 << 20;
const up = (bytes: number) => Math.ceil(bytes / 64) * 64;
export const LCORE_BYTES: number = up(SCRATCH.END) + up(MBUFS_BYTES) + RESERVE_BYTES;

/** An lcore of no particular CPU. */
export const ANY_CPU = -1;

/** A port in a thread that does not control it. */
export class LcorePort {
  readonly id: number;
  readonly device: string;
  readonly mac: string;
  readonly rxQueues: number;
  readonly txQueues: number;
  readonly #lcore: LcoreThread;
  readonly #handle: PortHandle;
  readonly #rx: (RxQueue | undefined)[] = [];
  readonly #tx: (TxQueue | undefined)[] = [];

  constructor(lcore: LcoreThread, handle: PortHandle) {
    this.#lcore = lcore;
    this.#handle = handle;
    this.id = handle.id;
    this.device = handle.device;
    this.mac = handle.mac;
    this.rxQueues = handle.rx.length;
    this.txQueues = handle.tx.length;
  }

  rxQueue(queue: number): RxQueue {
    const handle = this.#found(this.#handle.rx, queue, 'rx');
    this.#rx[queue] ??= new RxQueue(this.#lcore, this.#lcore.driver(handle.driver), handle);
    return this.#rx[queue];
  }

  txQueue(queue: number): TxQueue {
    const handle = this.#found(this.#handle.tx, queue, 'tx');
    this.#tx[queue] ??= new TxQueue(this.#lcore, this.#lcore.driver(handle.driver), handle);
    return this.#tx[queue];
  }

  close(): void {
    for (const queue of [...this.#rx, ...this.#tx]) queue?.close();
  }

  #found(list: readonly QueueHandle[], queue: number, what: string): QueueHandle {
    const found = list[queue];
    if (found) return found;
    throw new RangeError(`port ${this.id}: expected ${what} queue 0 to ${list.length - 1}, got ${queue}`);
  }
}

export interface LcoreSetup {
  readonly arena: Arena;
  readonly lcore: number;
  /** LCORE_BYTES zeroed bytes. */
  readonly memory: number;
  readonly drivers: readonly Driver[];
  readonly ports: readonly PortHandle[];
  /** Cell that becomes 1 when the lcore is to end. */
  readonly stop: number;
  /** eventfd that wakes its loop, of the control thread (default: one of its own). */
  readonly wakeFd?: number;
}

export class LcoreThread implements Lcore {
  readonly arena: Arena;
  readonly datapath: Datapath;
  readonly lcore: number;
  readonly mbufs: Mbufs;
  readonly ports: readonly LcorePort[];
  /** Polls what is added to it, once run() is called. */
  readonly loop: PollLoop;
  readonly #drivers: readonly Driver[];
  readonly #stop: number;
  #next: number;
  readonly #end: number;

  constructor(setup: LcoreSetup) {
    const { arena, lcore, memory } = setup;
    this.arena = arena;
    this.lcore = lcore;
    this.loop = new PollLoop(setup.wakeFd);
    this.datapath = createDatapath(arena.memory, memory);
    this.datapath.useLcore(lcore);
    this.mbufs = new Mbufs(arena, this.datapath, memory + up(SCRATCH.END));
    this.#next = memory + up(SCRATCH.END) + up(MBUFS_BYTES);
    this.#end = memory + LCORE_BYTES;
    this.#drivers = setup.drivers;
    this.#stop = setup.stop >>> 2;
    this.ports = setup.ports.map((handle) => new LcorePort(this, handle));
  }

  /** Zeroed bytes of the arena for this thread, until it ends. Throws a RangeError when there are none left. */
  reserve(name: string, bytes: number): number {
    const at = this.#next;
    if (at + up(bytes) > this.#end) throw new RangeError(`lcore ${this.lcore}: no room for ${bytes} bytes of ${name}`);
    this.#next += up(bytes);
    return at;
  }

  port(id: number): LcorePort {
    const found = this.ports.find((port) => port.id === id);
    if (found) return found;
    throw new RangeError(`lcore ${this.lcore}: no port ${id} (there: ${this.ports.map((port) => port.id).join(', ')})`);
  }

  driver(name: string): Driver {
    const found = this.#drivers.find((driver) => driver.name === name);
    if (found) return found;
    throw new RangeError(`lcore ${this.lcore}: no driver ${name}`);
  }

  /** False once the control thread wants the lcore to end. */
  get running(): boolean {
    return Atomics.load(this.arena.u32, this.#stop) === 0;
  }

  /** Steps the members until the lcore is to end: polls while there is work, sleeps when there is none and they can be woken. */
  async run(...members: Pollable[]): Promise<void> {
    for (const member of members) this.loop.add(member);
    const watch: Pollable = {
      step: () => 0,
      tick: () => {
        if (!this.running) void this.loop.stop().then(ended);
      },
      arm: () => true,
      disarm: () => {},
      fds: () => [],
    };
    let ended!: () => void;
    const end = new Promise<void>((resolve) => {
      ended = resolve;
    });
    this.loop.add(watch);
    this.loop.start();
    await end;
    for (const member of [watch, ...members]) this.loop.remove(member);
  }

  close(): void {
    for (const port of this.ports) port.close();
    this.loop.close();
  }
}

/** A loop member from a burst function and the queues that it receives from. `step` returns how much there was to do. */
export function polling(step: () => number, queues: readonly RxQueue[] = []): Pollable {
  const disarm = (_signalled?: boolean, ready?: Ready) => {
    for (const queue of queues) queue.disarm(ready);
  };
  return {
    step,
    tick: () => {},
    arm() {
      for (const queue of queues) {
        if (queue.arm()) continue;
        disarm();
        return false;
      }
      return queues.length > 0;
    },
    disarm,
    fds: () => queues.flatMap((queue) => [...queue.fds()]),
  };
}
