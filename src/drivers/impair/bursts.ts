// Bursts of an impaired port. What is held on its way out goes on with the bursts of either direction.
import type { Lcore, RxBurst, TxBurst } from '../../ethdev/driver.js';
import { IMPAIR_BATCH } from '../../memory/layout-impair.js';
import type { InnerQueue } from '../wrapped-port.js';
import { ImpairLine, type Impairment } from './line.js';

const BATCH = IMPAIR_BATCH;

export interface ImpairDescription {
  /** Of this queue number, where there is one. */
  readonly rx: DescribedLine | undefined;
  readonly tx: DescribedLine | undefined;
}

export interface DescribedLine {
  readonly inner: InnerQueue;
  /** IMPAIR_LINE. */
  readonly line: number;
  readonly what: Impairment;
}

/** The ways out of each thread, by the address of their lines: a device's queue is opened once for both directions. */
const waysOf = new WeakMap<Lcore, Map<number, ImpairTx>>();

/** The way out of a queue number in this thread. Each has to be closed. */
export function wayOut(lcore: Lcore, setup: ImpairDescription): ImpairTx {
  const ways = waysOf.get(lcore) ?? new Map<number, ImpairTx>();
  waysOf.set(lcore, ways);
  const { line } = setup.tx!;
  const way = ways.get(line) ?? new ImpairTx(lcore, setup, () => ways.delete(line));
  ways.set(line, way);
  way.users++;
  return way;
}

class ImpairTx implements TxBurst {
  users = 0;
  readonly #closed: () => void;
  readonly #inner: TxBurst;
  readonly #u32: Uint32Array;
  readonly #line: ImpairLine;
  readonly #handles: number;

  constructor(lcore: Lcore, { tx }: ImpairDescription, closed: () => void) {
    this.#closed = closed;
    const { inner, line, what } = tx!;
    this.#inner = lcore.driver(inner.driver).openTx(lcore, inner.description);
    this.#u32 = lcore.arena.u32;
    this.#line = new ImpairLine(lcore, line, what, true);
    this.#handles = this.#line.batch;
  }

  burst(handles: number, count: number): number {
    const line = this.#line;
    if (line.idle) return line.pass(this.#inner.burst(handles, count));
    line.begin();
    let taken = 0;
    for (; taken < count; taken++) {
      if (line.isBlocked()) {
        this.#pass();
        if (line.isBlocked()) break; // by the device, which takes no more
      }
      line.accept(this.#u32[(handles >>> 2) + taken]!);
    }
    this.#pass();
    return taken;
  }

  /** Packets that are held. */
  get waiting(): number {
    return this.#line.waiting;
  }

  /** Hands on what is due, without anything new. */
  push(): void {
    if (this.#line.waiting === 0) return;
    this.#line.begin();
    this.#pass();
  }

  close(): void {
    if (--this.users > 0) return;
    this.#closed();
    this.#inner.close();
  }

  #pass(): void {
    const line = this.#line;
    for (;;) {
      const n = line.peek(this.#handles, BATCH);
      const taken = this.#inner.burst(this.#handles, n);
      line.drop(taken);
      if (taken < BATCH) return;
    }
  }
}

export class ImpairRx implements RxBurst {
  readonly arm?: () => boolean;
  readonly disarm?: (ready?: (fd: number) => boolean) => void;
  readonly fds?: () => readonly number[];
  readonly #inner: RxBurst;
  readonly #u32: Uint32Array;
  readonly #line: ImpairLine;
  readonly #tx: ReturnType<typeof wayOut> | undefined;
  readonly #handles: number;

  constructor(lcore: Lcore, setup: ImpairDescription) {
    const { inner: device, line, what } = setup.rx!;
    const inner = lcore.driver(device.driver).openRx(lcore, device.description);
    this.#inner = inner;
    this.#u32 = lcore.arena.u32;
    this.#line = new ImpairLine(lcore, line, what, false);
    this.#tx = setup.tx && wayOut(lcore, setup);
    this.#handles = this.#line.batch;
    if (inner.arm) this.arm = () => this.#line.waiting === 0 && (this.#tx?.waiting ?? 0) === 0 && inner.arm!();
    if (inner.disarm) this.disarm = (ready) => inner.disarm!(ready);
    if (inner.fds) this.fds = () => inner.fds!();
  }

  burst(handles: number, max: number): number {
    this.#tx?.push();
    const line = this.#line;
    if (line.idle) return line.pass(this.#inner.burst(handles, max));
    if (max === 0) return 0;
    line.begin();
    let count = this.#pass(handles, max);
    // A device that never runs out of packets would hold the burst for as long as they are delayed.
    for (let taken = 0; count < max && taken < max; ) {
      const wanted = Math.min(BATCH, max - count);
      const n = this.#inner.burst(this.#handles, wanted);
      for (let i = 0; i < n; i++) line.accept(this.#u32[(this.#handles >>> 2) + i]!);
      taken += n;
      count += this.#pass(handles + count * 4, max - count);
      if (n < wanted) break;
    }
    return count;
  }

  close(): void {
    this.#inner.close();
    this.#tx?.close();
  }

  #pass(handles: number, max: number): number {
    const n = this.#line.peek(handles, max);
    this.#line.drop(n);
    return n;
  }
}
