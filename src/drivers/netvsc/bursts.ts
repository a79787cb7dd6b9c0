// The burst halves of net_netvsc, in whatever thread polls a queue. All they know is in the cells of their GUEST_PORT, which
// control code keeps up to date while they do not run.
import type { Lcore, RxBurst, TxBurst } from '../../ethdev/driver.js';
import type { Arena } from '../../memory/arena.js';
import { GUEST_PORT, GUEST_QUEUE } from '../../memory/layout.js';
import { drainEvent, signalEvent } from '../../memory/os/eventfd.js';
import { NO_WORD, ringDoorbell, takeWords } from '../../vmbus/uio/bell.js';

/** Plain data: addresses. */
export interface QueueDescription {
  /** GUEST_PORT of the queue. */
  readonly port: number;
  /** Those of all queues, one behind the other, and how many receive. */
  readonly ports: number;
  readonly rxQueues: number;
}

const { owner, queue, doorbell, interruptFd, eventFd, armed, stagedCount } = GUEST_PORT.at;
const { needSignal, completionCount, rangeIndex, rangeCount } = GUEST_QUEUE.at;

/** Tells the host, when the burst on the channel of `port` asked for it. */
function tellHost(arena: Arena, u32: Uint32Array, port: number): void {
  const channel = u32[(port + queue) >>> 2]!;
  if (channel === 0 || u32[(channel + needSignal) >>> 2] === 0) return;
  u32[(channel + needSignal) >>> 2] = 0;
  const bell = u32[(port + doorbell) >>> 2]!;
  if (bell !== 0) ringDoorbell(arena, bell);
}

/** Something came for that queue. Any thread may look. */
export function hasNews(lcore: Lcore, port: number): boolean {
  const { u32 } = lcore.arena;
  if (u32[(port + stagedCount) >>> 2] !== 0) return true;
  const channel = u32[(port + queue) >>> 2]!;
  return channel !== 0 && lcore.datapath.ringReadable(channel) !== 0;
}

/** Wakes the threads that sleep although something came for them: interrupts go to the one descriptor that all of them wait for,
 *  and whoever reads it takes them from the others. `all`: also those without news. */
export function wakeSleepers(lcore: Lcore, ports: number, rxQueues: number, all = false): void {
  const { u32 } = lcore.arena;
  for (let i = 0, port = ports; i < rxQueues; i++, port += GUEST_PORT.bytes) {
    if (Atomics.load(u32, (port + armed) >>> 2) === 0) continue;
    const event = u32[(port + eventFd) >>> 2]!;
    if (event !== 0 && (all || hasNews(lcore, port))) signalEvent(event - 1);
  }
}

export class NetvscRx implements RxBurst {
  readonly #lcore: Lcore;
  readonly #arena: Arena;
  readonly #u32: Uint32Array;
  readonly #datapath: Lcore['datapath'];
  readonly #port: number;
  readonly #ports: number;
  readonly #rxQueues: number;
  /** What it sleeps on follows from these cells. */
  #device = 0;
  #event = 0;
  #fds: readonly number[] = [];

  constructor(lcore: Lcore, description: QueueDescription) {
    this.#lcore = lcore;
    this.#arena = lcore.arena;
    this.#u32 = lcore.arena.u32;
    this.#datapath = lcore.datapath;
    this.#port = description.port;
    this.#ports = description.ports;
    this.#rxQueues = description.rxQueues;
  }

  burst(handles: number, max: number): number {
    const received = this.#datapath.portReceive(this.#port, handles, max);
    tellHost(this.#arena, this.#u32, this.#port);
    return received;
  }

  arm(): boolean {
    const u32 = this.#u32;
    const port = this.#port;
    if (u32[(port + stagedCount) >>> 2] !== 0) return false;
    Atomics.store(u32, (port + armed) >>> 2, 1);
    const channel = u32[(port + queue) >>> 2]!;
    if (channel === 0) return true; // nothing will come before start()
    const backlog =
      u32[(channel + completionCount) >>> 2] !== 0 ||
      u32[(channel + rangeIndex) >>> 2]! < u32[(channel + rangeCount) >>> 2]!;
    if (!backlog && this.#datapath.ringUnmask(channel) === 0) return true;
    this.disarm();
    return false;
  }

  disarm(ready?: (fd: number) => boolean): void {
    const u32 = this.#u32;
    const port = this.#port;
    Atomics.store(u32, (port + armed) >>> 2, 0);
    const channel = u32[(port + queue) >>> 2]!;
    if (channel !== 0) this.#datapath.ringMask(channel);
    const event = u32[(port + eventFd) >>> 2]!;
    if (event !== 0 && (ready === undefined || ready(event - 1))) drainEvent(event - 1);
    const device = u32[(port + interruptFd) >>> 2]!;
    // A word that came since then keeps the descriptor readable for the next sleep.
    if (device === 0 || (ready !== undefined && !ready(device - 1))) return;
    if (takeWords(device - 1) !== NO_WORD) wakeSleepers(this.#lcore, this.#ports, this.#rxQueues);
  }

  fds(): readonly number[] {
    const device = this.#u32[(this.#port + interruptFd) >>> 2]!;
    const event = this.#u32[(this.#port + eventFd) >>> 2]!;
    if (device !== this.#device || event !== this.#event) {
      this.#device = device;
      this.#event = event;
      this.#fds = [device, event].filter((fd) => fd !== 0).map((fd) => fd - 1);
    }
    return this.#fds;
  }

  close(): void {}
}

export class NetvscTx implements TxBurst {
  readonly #arena: Arena;
  readonly #u32: Uint32Array;
  readonly #datapath: Lcore['datapath'];
  readonly #port: number;

  constructor(lcore: Lcore, { port }: QueueDescription) {
    this.#arena = lcore.arena;
    this.#u32 = lcore.arena.u32;
    this.#datapath = lcore.datapath;
    this.#port = port;
  }

  burst(handles: number, count: number): number {
    const taken = this.#datapath.portSend(this.#port, handles, count);
    tellHost(this.#arena, this.#u32, this.#u32[(this.#port + owner) >>> 2]!);
    return taken;
  }

  close(): void {}
}
