// The control half of net_impair: what is to be done, and the lines of the queues.
import type { Devargs } from '../../ethdev/devargs.js';
import type { DriverContext } from '../../ethdev/driver.js';
import type { FullConfig } from '../../ethdev/limits.js';
import { betweenBursts } from '../../ethdev/queues.js';
import { read64 } from '../../memory/cells64.js';
import { IMPAIR_ASIDE, IMPAIR_BATCH, IMPAIR_HELD, IMPAIR_LINE } from '../../memory/layout-impair.js';
import { WrappedPort } from '../wrapped-port.js';
import { type DescribedLine, type ImpairDescription, wayOut } from './bursts.js';
import { ASIDE_MAX, ImpairLine, type Impairment, seedLine } from './line.js';

const LIMIT = 1024;
const LIMIT_MAX = 65_536;
const DELAY_MAX_US = 10_000_000;
const { at: CELL } = IMPAIR_LINE;
const DIRECTIONS = ['rx', 'tx'] as const;
const PROBABILITIES = ['loss', 'duplicate', 'corrupt', 'reorder'] as const;
const TIMES = ['delay_us', 'jitter_us'] as const;
const COUNTED = [
  ...(['passed', 'lost', 'duplicated', 'reordered', 'corrupted', 'delayed'] as const),
  ...(['overflowed', 'failed', 'flushed'] as const),
];
type Direction = (typeof DIRECTIONS)[number];
type Counted = (typeof COUNTED)[number];

export class ImpairPort extends WrappedPort {
  protected readonly driverName = 'net_impair';
  readonly #what: Readonly<Record<Direction, Impairment>>;
  readonly #seed: number;
  readonly #limit: number;
  #lines: Readonly<Record<Direction, number[]>> = { rx: [], tx: [] };
  /** Ways out, for when nobody polls. */
  #ways: (ReturnType<typeof wayOut> | undefined)[] = [];
  #started = false;
  /** Of lines that are gone; and what the counters were when they were reset. */
  readonly #past = new Map<string, number>();
  readonly #reset = new Map<string, number>();

  /** Throws PortError. */
  constructor(context: DriverContext, device: string, args: Devargs) {
    super(context, device, args, true);
    try {
      this.#what = { rx: impairment(args, 'rx'), tx: impairment(args, 'tx') };
      this.#seed = args.number('seed', 1);
      this.#limit = args.number('limit', LIMIT, 1, LIMIT_MAX);
      const each = [...PROBABILITIES, ...TIMES];
      args.done(['port', 'seed', 'limit', ...each, 'and these with rx_ or tx_ in front']);
    } catch (error) {
      this.inner.release();
      throw error;
    }
  }

  override async configure(config: FullConfig): Promise<void> {
    await super.configure(config);
    this.#releaseLines();
    const lines = (count: number, direction: Direction) =>
      Array.from({ length: count }, (_, queue) => this.#createLine(direction, queue));
    this.#lines = { rx: lines(config.rxQueues, 'rx'), tx: lines(config.txQueues, 'tx') };
  }

  override async start(): Promise<void> {
    await super.start();
    this.#started = true;
  }

  override async stop(): Promise<void> {
    this.#started = false;
    for (const direction of DIRECTIONS) {
      for (const line of this.#lines[direction])
        new ImpairLine(this.context, line, this.#what[direction], direction === 'tx').flush();
    }
    await super.stop();
  }

  override async close(): Promise<void> {
    this.#releaseLines();
    await super.close();
  }

  rxQueue(queue: number): ImpairDescription {
    return this.#description(queue);
  }

  txQueue(queue: number): ImpairDescription {
    return this.#description(queue);
  }

  override resetStats(): void {
    super.resetStats();
    for (const direction of DIRECTIONS) {
      for (const what of COUNTED) this.#reset.set(`${direction} ${what}`, this.#total(direction, what));
    }
  }

  tick(): void {
    if (!this.#started) return;
    const { u32 } = this.context.arena;
    for (const [queue, line] of this.#lines.tx.entries()) {
      const held = u32[(line + CELL.last) >>> 2] !== u32[(line + CELL.first) >>> 2];
      const lock = this.txLocks[queue];
      if (lock === undefined || (!held && u32[(line + CELL.asideCount) >>> 2] === 0)) continue;
      this.#ways[queue] ??= wayOut(this.context, this.#description(queue));
      betweenBursts(u32, lock, () => this.#ways[queue]!.push());
    }
  }

  protected ownXstats(): [name: string, value: number][] {
    return DIRECTIONS.flatMap((direction) =>
      COUNTED.map((what): [string, number] => [
        `${this.device}_${direction}_${what}`,
        this.#total(direction, what) - (this.#reset.get(`${direction} ${what}`) ?? 0),
      ]),
    );
  }

  #description(queue: number): ImpairDescription {
    const described = (direction: Direction): DescribedLine | undefined => {
      const line = this.#lines[direction][queue];
      if (line === undefined) return undefined;
      const inner = direction === 'rx' ? this.innerRx(queue) : this.innerTx(queue);
      return { inner, line, what: this.#what[direction] };
    };
    return { rx: described('rx'), tx: described('tx') };
  }

  #createLine(direction: Direction, queue: number): number {
    const { arena } = this.context;
    const { u32 } = arena;
    const capacity = 2 ** Math.ceil(Math.log2(this.#limit));
    const lists = capacity * IMPAIR_HELD.bytes + ASIDE_MAX * IMPAIR_ASIDE.bytes + IMPAIR_BATCH * 4;
    const line = arena.reserve(`${this.device} line`, IMPAIR_LINE.bytes + lists);
    const held = line + IMPAIR_LINE.bytes;
    const aside = held + capacity * IMPAIR_HELD.bytes;
    u32[(line + CELL.held) >>> 2] = held;
    u32[(line + CELL.capacity) >>> 2] = capacity;
    u32[(line + CELL.aside) >>> 2] = aside;
    u32[(line + CELL.batch) >>> 2] = aside + ASIDE_MAX * IMPAIR_ASIDE.bytes;
    seedLine(u32, line, this.#seed, DIRECTIONS.indexOf(direction), queue);
    return line;
  }

  /** Stopped. */
  #releaseLines(): void {
    for (const way of this.#ways) way?.close();
    this.#ways = [];
    for (const direction of DIRECTIONS) {
      for (const what of COUNTED) this.#past.set(`${direction} ${what}`, this.#total(direction, what));
    }
    for (const line of [...this.#lines.rx, ...this.#lines.tx]) this.context.arena.release(line);
    this.#lines = { rx: [], tx: [] };
  }

  #total(direction: Direction, what: Counted): number {
    const { u32 } = this.context.arena;
    const past = this.#past.get(`${direction} ${what}`) ?? 0;
    return this.#lines[direction].reduce((sum, line) => sum + read64(u32, (line + CELL[what]) >>> 2), past);
  }
}

function impairment(args: Devargs, direction: Direction): Impairment {
  const probability = (key: string) => args.fraction(`${direction}_${key}`, args.fraction(key, 0));
  const time = (key: string) =>
    args.number(`${direction}_${key}`, args.number(key, 0, 0, DELAY_MAX_US), 0, DELAY_MAX_US) / 1000;
  return {
    ...{ loss: probability('loss'), duplicate: probability('duplicate'), corrupt: probability('corrupt') },
    ...{ reorder: probability('reorder'), delayMs: time('delay_us'), jitterMs: time('jitter_us') },
  };
}
