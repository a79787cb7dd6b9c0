// What the cases of the conformance suite work with: a port with its pools, frames that can be told from others, patience.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { RX_OFFLOAD, TX_OFFLOAD } from '../../ethdev/constants.js';
import type { Mempool } from '../../ethdev/mempool.js';
import type { Port } from '../../ethdev/port.js';
import type { RxQueue, TxQueue } from '../../ethdev/queues.js';
import type { PortConfig } from '../../ethdev/types.js';
import { affinity } from '../../memory/os/process.js';
import type { Bench, ConformanceTarget, Wire } from '../conformance.js';
import { ETHERNET_BYTES, parseFrame, testFrame } from './frames.js';

const PATIENCE_MS = 5000;
const POOL_COUNT = 4096;
const MEMORY_MB = 64;
export const BURST_MAX = 256;

/** A case cannot be run on this device. */
export class NotHere extends Error {}

export interface Setup extends Partial<PortConfig> {
  readonly descriptors?: number;
  /** Bytes behind the headroom of the mbufs that are received into. */
  readonly rxRoom?: number;
}

export class Rig {
  readonly #target: ConformanceTarget;
  #bench: Bench | undefined;
  readonly #pools: Mempool[] = [];
  #handles = 0;
  #pool: Mempool | undefined;

  constructor(target: ConformanceTarget, skip: (reason: string) => void) {
    this.#target = target;
    this.skip = skip;
  }

  /** Notes why the case ends here: return after it. */
  readonly skip: (reason: string) => void;

  get target(): ConformanceTarget {
    return this.#target;
  }
  get bench(): Bench {
    return this.#bench!;
  }
  get port(): Port {
    return this.#bench!.port;
  }
  get wire(): Wire | undefined {
    return this.#bench!.wire;
  }
  get eal() {
    return this.#bench!.eal;
  }
  get mbufs() {
    return this.eal.mbufs;
  }
  /** u32 array of BURST_MAX handles. */
  get handles(): number {
    return this.#handles;
  }
  handle(i: number): number {
    return this.eal.arena.u32[(this.#handles >>> 2) + i]!;
  }
  setHandle(i: number, mbuf: number): void {
    this.eal.arena.u32[(this.#handles >>> 2) + i] = mbuf;
  }
  /** Mbufs of the cases themselves. */
  get pool(): Mempool {
    this.#pool ??= this.createPool('conformance');
    return this.#pool;
  }

  static words(lcores = 1): string[] {
    return ['-l', affinity().slice(0, lcores).join(','), '-m', String(MEMORY_MB)];
  }

  async open(lcores = 1): Promise<void> {
    this.#bench = await this.#target.open(Rig.words(lcores));
    this.#handles = this.eal.main.reserve('conformance', BURST_MAX * 4);
  }

  createPool(name: string, rxRoom = 2048, count = POOL_COUNT): Mempool {
    const pool = this.eal.createMempool(name, { count, room: 128 + rxRoom, headroom: 128, cache: 64 });
    this.#pools.push(pool);
    return pool;
  }

  /** Configures and sets up all queues, one of each by default. */
  async configure({ descriptors = 0, rxRoom = 2048, ...config }: Setup = {}): Promise<Mempool> {
    const { rxQueues = 1, txQueues = 1, ...more } = config;
    await this.port.configure({ rxQueues, txQueues, ...more });
    const pool = rxRoom === 2048 ? this.pool : this.createPool('small', rxRoom, 1024);
    for (let queue = 0; queue < rxQueues; queue++) this.port.setupRxQueue(queue, { descriptors, pool });
    for (let queue = 0; queue < txQueues; queue++) this.port.setupTxQueue(queue, { descriptors });
    await this.wire?.prepare?.(Math.max(rxQueues, txQueues));
    return pool;
  }

  async start(setup: Setup = {}): Promise<void> {
    await this.configure(setup);
    await this.port.start();
  }

  /** Offloads for chains, as far as the device has them. */
  chains(): Pick<PortConfig, 'rxOffloads' | 'txOffloads'> {
    const { rxOffloads, txOffloads } = this.port.info();
    return { rxOffloads: rxOffloads & RX_OFFLOAD.SCATTER, txOffloads: txOffloads & TX_OFFLOAD.MULTI_SEGS };
  }

  /** A frame of the suite for the port to receive or send. */
  frame(bytes: number, sequence: number, towardsPort = false): Uint8Array {
    return testFrame(bytes, sequence, towardsPort ? this.port.mac : undefined);
  }

  /** An mbuf with these bytes, `segments` of about the same size. */
  mbuf(bytes: Uint8Array, segments = 1, pool: Mempool = this.pool): number {
    const step = Math.ceil(bytes.length / segments);
    let head = 0;
    for (let at = 0; at < bytes.length; at += step) {
      const mbuf = this.mbufs.allocate(pool);
      assert.ok(mbuf !== 0, 'the suite has too few mbufs');
      assert.ok(this.mbufs.write(mbuf, bytes.subarray(at, at + step)), 'an mbuf of the suite is too small');
      if (head === 0) head = mbuf;
      else this.mbufs.chain(head, mbuf);
    }
    return head;
  }

  /** Sends mbufs, all of them, in their order. */
  async sendMbufs(list: readonly number[], queue = 0): Promise<void> {
    const tx = this.port.txQueue(queue);
    let at = 0;
    const sentAll = () => {
      for (let i = 0; at + i < list.length && i < 32; i++) this.setHandle(i, list[at + i]!);
      at += tx.burst(this.#handles, Math.min(32, list.length - at));
      return at === list.length;
    };
    await this.until(sentAll, () => `the port took only ${at} of ${list.length} packets`);
  }

  async send(frames: readonly Uint8Array[], queue = 0): Promise<void> {
    for (let at = 0; at < frames.length; at += 512) {
      await this.sendMbufs(
        frames.slice(at, at + 512).map((frame) => this.mbuf(frame)),
        queue,
      );
    }
  }

  /** Receives until `count` frames of the suite came; `each` sees their mbufs before they are freed. */
  async receive(count: number, queues = [0], each: (mbuf: number) => void = () => {}): Promise<Uint8Array[]> {
    const frames: Uint8Array[] = [];
    const rx = queues.map((queue) => this.port.rxQueue(queue));
    await this.until(
      () => {
        for (const queue of rx) frames.push(...this.take(queue, 32, each));
        return frames.length >= count;
      },
      () => `${frames.length} of ${count} frames came`,
    );
    return frames;
  }

  /** One rx burst: frames of the suite in it. */
  take(queue: RxQueue, max: number, each: (mbuf: number) => void = () => {}): Uint8Array[] {
    const frames: Uint8Array[] = [];
    const n = queue.burst(this.#handles, max);
    for (let i = 0; i < n; i++) {
      const bytes = this.mbufs.read(this.handle(i));
      if (parseFrame(bytes) === undefined) continue;
      each(this.handle(i));
      frames.push(bytes);
    }
    for (let i = 0; i < n; i++) this.mbufs.free(this.handle(i));
    return frames;
  }

  /** What the other side saw, after `count` frames; stops the port where that is needed. */
  async sent(count: number): Promise<Uint8Array[]> {
    const { wire } = this;
    if (wire?.when === 'stopped') await this.port.stop();
    const frames: Uint8Array[] = [];
    await this.until(
      async () => {
        frames.push(...(await wire!.sent!(count - frames.length)).filter((frame) => parseFrame(frame) !== undefined));
        return frames.length >= count;
      },
      () => `the other side saw ${frames.length} of ${count} frames`,
    );
    return frames;
  }

  /** Starts the configured port and has it receive frames. */
  async startFed(frames: readonly Uint8Array[], queue = 0): Promise<void> {
    if (this.wire!.when === 'stopped') await this.wire!.feed!(frames, queue);
    await this.port.start();
    if (this.wire!.when === 'started') await this.feed(frames, queue);
  }

  async feed(frames: readonly Uint8Array[], queue = 0): Promise<void> {
    await this.linkUp();
    await this.wire!.feed!(frames, queue);
  }

  async linkUp(): Promise<void> {
    await this.until(
      () => this.port.link().up,
      () => 'the link does not come up',
    );
  }

  /** Waits, giving everybody their turn. */
  async until(done: () => boolean | Promise<boolean>, problem: () => string): Promise<void> {
    const end = performance.now() + PATIENCE_MS;
    for (let round = 0; !(await done()); round++) {
      if (performance.now() > end) assert.fail(problem());
      this.wire?.step?.();
      await (round < 100 ? new Promise(setImmediate) : sleep(1));
    }
  }

  /** Waits until every mbuf of the suite's pools is back but `out`, polling so that a device can give back what it sent. */
  async settle(out = 0, tx: readonly TxQueue[] = []): Promise<void> {
    const missing = () => this.#pools.reduce((sum, pool) => sum + pool.count - pool.available, 0);
    await this.until(
      () => {
        for (const queue of tx) queue.burst(this.#handles, 0);
        return missing() === out;
      },
      () => `expected ${out} mbufs to be out, ${missing()} are`,
    );
  }

  /** The port is closed: nothing may be missing then. */
  async finish(): Promise<void> {
    if (!this.#bench) return;
    await this.port.close();
    this.mbufs.reap();
    const missing = () => this.#pools.some((pool) => pool.available !== pool.count);
    // What was sent and has not been looked at is in the hands of the other side.
    for (let i = 0; i < 100 && missing() && this.wire?.when === 'started'; i++) await this.wire.sent?.(0);
    for (const pool of this.#pools) assert.equal(pool.available, pool.count, `mbufs of pool ${pool.name} are missing`);
  }

  async close(): Promise<void> {
    const bench = this.#bench;
    this.#bench = undefined;
    this.#pool = undefined;
    this.#pools.length = 0;
    await bench?.close();
  }
}

export const LARGEST_STANDARD = 1500 + ETHERNET_BYTES;
