// One direction of one queue: decides what happens to each packet, and holds those that go on later. All state is in cells, so that any
// thread can go on where another one stopped.
import type { Lcore } from '../../ethdev/driver.js';
import { add64 } from '../../memory/cells64.js';
import { IMPAIR_ASIDE, IMPAIR_HELD, IMPAIR_LINE } from '../../memory/layout-impair.js';
import { readMonotonicMs } from '../../memory/os/clock.js';
import { Spoiler } from './spoiler.js';

const CELL = IMPAIR_LINE.at;
const HELD_CELLS = IMPAIR_HELD.bytes >>> 2;
const HELD_DOUBLES = IMPAIR_HELD.bytes >>> 3;
const HELD_MBUF = IMPAIR_HELD.at.mbuf >>> 2;
const ASIDE_CELLS = IMPAIR_ASIDE.bytes >>> 2;
const ASIDE_DOUBLES = IMPAIR_ASIDE.bytes >>> 3;
const ASIDE_MBUF = IMPAIR_ASIDE.at.mbuf >>> 2;
const ASIDE_BEHIND = IMPAIR_ASIDE.at.behind >>> 2;
/** Packets that may let others pass at one time, how many at most pass, and for how long. */
export const ASIDE_MAX = 16;
const PASS_MAX = 4;
const PASS_MS = 10;
const WARM_UP = 12;
const HIGH = 2 ** 31;
/** Places of #times: fractions that go from call to call would each be an object. */
const NOW = 0;
const DUE = 1;
const DUE_AGAIN = 2;

/** What is done to the packets of a direction. Probabilities 0 to 1, times in milliseconds. Plain data. */
export interface Impairment {
  readonly loss: number;
  readonly duplicate: number;
  readonly corrupt: number;
  readonly reorder: number;
  readonly delayMs: number;
  readonly jitterMs: number;
}

/** Sets a line's random numbers to their beginning. */
export function seedLine(u32: Uint32Array, cells: number, seed: number, direction: number, queue: number): void {
  u32[(cells + CELL.a) >>> 2] = seed;
  u32[(cells + CELL.b) >>> 2] = direction + 1;
  u32[(cells + CELL.c) >>> 2] = queue + 1;
  u32[(cells + CELL.counter) >>> 2] = 1;
  for (let i = 0; i < WARM_UP; i++) draw(u32, cells);
}

/** The next random number, 31 bits (more would be an object): sfc32 of Chris Doty-Humphrey's PractRand. */
function draw(u32: Uint32Array, cells: number): number {
  const at = cells >>> 2; // a, b, c and counter are the first cells
  const a = u32[at]!;
  const b = u32[at + 1]!;
  const c = u32[at + 2]!;
  const counter = u32[at + 3]!;
  const sum = (a + b + counter) >>> 0;
  u32[at + 3] = counter + 1;
  u32[at] = b ^ (b >>> 9);
  u32[at + 1] = c + (c << 3);
  u32[at + 2] = ((c << 21) | (c >>> 11)) + sum;
  return sum >>> 1;
}

export class ImpairLine {
  readonly #u32: Uint32Array;
  readonly #doubles: Float64Array;
  readonly #datapath: Lcore['datapath'];
  readonly #cells: number;
  readonly #mask: number;
  readonly #held: number;
  readonly #aside: number;
  readonly #one: number;
  readonly #spoiler: Spoiler;
  readonly #loss: number;
  readonly #duplicate: number;
  readonly #corrupt: number;
  readonly #reorder: number;
  readonly #delayMs: number;
  readonly #jitterMs: number;
  /** Milliseconds: NOW, when the packet at hand goes on (DUE), and one that stepped aside (DUE_AGAIN). */
  readonly #times = new Float64Array(3);
  /** Address of a list of IMPAIR_BATCH mbufs, for who works with the line. */
  readonly batch: number;
  /** Nothing is done to packets. */
  readonly idle: boolean;
  readonly #timed: boolean;

  /** `cells`: IMPAIR_LINE; `tx`: packets are on their way to the device. */
  constructor(lcore: Lcore, cells: number, what: Impairment, tx: boolean) {
    const { arena, datapath } = lcore;
    this.#u32 = arena.u32;
    this.#doubles = new Float64Array(arena.buffer);
    this.#datapath = datapath;
    this.#cells = cells;
    this.#mask = arena.u32[(cells + CELL.capacity) >>> 2]! - 1;
    this.#held = arena.u32[(cells + CELL.held) >>> 2]!;
    this.#aside = arena.u32[(cells + CELL.aside) >>> 2]!;
    this.#one = cells + CELL.one;
    this.#spoiler = new Spoiler(lcore, this.#one, tx);
    this.batch = arena.u32[(cells + CELL.batch) >>> 2]!;
    this.#loss = what.loss * HIGH;
    this.#duplicate = what.duplicate * HIGH;
    this.#corrupt = what.corrupt * HIGH;
    this.#reorder = what.reorder * HIGH;
    this.#delayMs = what.delayMs;
    this.#jitterMs = what.jitterMs;
    this.#timed = what.delayMs > 0 || what.jitterMs > 0 || what.reorder > 0;
    this.idle = !this.#timed && what.loss === 0 && what.duplicate === 0 && what.corrupt === 0;
  }

  /** A burst begins: what follows happens now. */
  begin(): void {
    if (this.#timed) readMonotonicMs(this.#times);
  }

  /** Packets that are held. */
  get waiting(): number {
    const u32 = this.#u32;
    const ring = (u32[(this.#cells + CELL.last) >>> 2]! - u32[(this.#cells + CELL.first) >>> 2]!) >>> 0;
    return ring + u32[(this.#cells + CELL.asideCount) >>> 2]!;
  }

  /** Whether another packet would be held back by those whose time has come, not dropped for want of room. */
  isBlocked(): boolean {
    const u32 = this.#u32;
    const first = u32[(this.#cells + CELL.first) >>> 2]!;
    if ((u32[(this.#cells + CELL.last) >>> 2]! - first) >>> 0 <= this.#mask) return false;
    return this.#isDue(first);
  }

  /** Takes a packet: from now on it is the line's. */
  accept(mbuf: number): void {
    const u32 = this.#u32;
    const cells = this.#cells;
    let packet = mbuf;
    if (this.#loss > 0 && draw(u32, cells) < this.#loss) {
      this.#count(CELL.lost);
      this.#free(packet);
      return;
    }
    if (this.#corrupt > 0 && draw(u32, cells) < this.#corrupt) {
      const spoilt = this.#spoiler.corrupt(packet, draw(u32, cells));
      this.#count(spoilt === 0 ? CELL.failed : CELL.corrupted);
      if (spoilt !== 0) packet = spoilt;
    }
    let copy = 0;
    if (this.#duplicate > 0 && draw(u32, cells) < this.#duplicate) {
      copy = this.#spoiler.copy(packet);
      this.#count(copy === 0 ? CELL.failed : CELL.duplicated);
    }
    const stepsAside = this.#reorder > 0 && draw(u32, cells) < this.#reorder;
    const behind = stepsAside ? 1 + (draw(u32, cells) % PASS_MAX) : 0;
    this.#setDue();
    if (stepsAside && this.#stepAside(packet, behind)) this.#count(CELL.reordered);
    else {
      this.#push(packet, DUE);
      this.#passAside();
    }
    if (copy === 0) return;
    this.#push(copy, DUE);
    this.#passAside();
  }

  /** Lets packets whose time has come go on: up to `max` mbufs go to the u32 array at `handles`. They stay the line's until drop(). */
  peek(handles: number, max: number): number {
    const u32 = this.#u32;
    this.#expireAside();
    const first = u32[(this.#cells + CELL.first) >>> 2]!;
    const there = (u32[(this.#cells + CELL.last) >>> 2]! - first) >>> 0;
    const most = Math.min(there, max);
    let n = 0;
    for (; n < most && this.#isDue(first + n); n++) {
      u32[(handles >>> 2) + n] = u32[(this.#held >>> 2) + ((first + n) & this.#mask) * HELD_CELLS + HELD_MBUF]!;
    }
    return n;
  }

  /** The first `count` have gone on. */
  drop(count: number): void {
    if (count > 0) this.#u32[(this.#cells + CELL.first) >>> 2]! += this.pass(count);
  }

  /** Counts packets that went on; returns their number. */
  pass(count: number): number {
    add64(this.#u32, (this.#cells + CELL.passed) >>> 2, count);
    return count;
  }

  /** Frees everything that is held. */
  flush(): void {
    const u32 = this.#u32;
    const cells = this.#cells;
    const asideCount = u32[(cells + CELL.asideCount) >>> 2]!;
    for (let i = 0; i < asideCount; i++) this.#free(u32[(this.#aside >>> 2) + i * ASIDE_CELLS + ASIDE_MBUF]!);
    const last = u32[(cells + CELL.last) >>> 2]!;
    let count = asideCount;
    for (let at = u32[(cells + CELL.first) >>> 2]!; at !== last; at = (at + 1) >>> 0, count++)
      this.#free(u32[(this.#held >>> 2) + (at & this.#mask) * HELD_CELLS + HELD_MBUF]!);
    u32[(cells + CELL.first) >>> 2] = last;
    u32[(cells + CELL.asideCount) >>> 2] = 0;
    add64(u32, (cells + CELL.flushed) >>> 2, count);
  }

  /** When a packet that comes now goes on. */
  #setDue(): void {
    const times = this.#times;
    times[DUE] = 0;
    if (this.#delayMs === 0 && this.#jitterMs === 0) return;
    this.#count(CELL.delayed);
    const share = this.#jitterMs === 0 ? 0 : draw(this.#u32, this.#cells) / (HIGH / 2) - 1;
    times[DUE] = times[NOW]! + Math.max(0, this.#delayMs + share * this.#jitterMs);
  }

  /** Behind those that are held, and not before them. `due`: place of its time in #times. */
  #push(mbuf: number, due: number): void {
    const u32 = this.#u32;
    const cells = this.#cells;
    const last = u32[(cells + CELL.last) >>> 2]!;
    const there = (last - u32[(cells + CELL.first) >>> 2]!) >>> 0;
    if (there > this.#mask) {
      this.#count(CELL.overflowed);
      this.#free(mbuf);
      return;
    }
    const doubles = this.#doubles;
    const held = this.#held >>> 3;
    const before = there === 0 ? this.#times[NOW]! : doubles[held + ((last - 1) & this.#mask) * HELD_DOUBLES]!;
    const slot = last & this.#mask;
    doubles[held + slot * HELD_DOUBLES] = Math.max(this.#times[due]!, before);
    u32[(this.#held >>> 2) + slot * HELD_CELLS + HELD_MBUF] = mbuf;
    u32[(cells + CELL.last) >>> 2] = last + 1;
  }

  #isDue(index: number): boolean {
    return this.#doubles[(this.#held >>> 3) + (index & this.#mask) * HELD_DOUBLES]! <= this.#times[NOW]!;
  }

  /** False: too many did so already. */
  #stepAside(mbuf: number, behind: number): boolean {
    const u32 = this.#u32;
    const count = u32[(this.#cells + CELL.asideCount) >>> 2]!;
    if (count === ASIDE_MAX) return false;
    this.#doubles[(this.#aside >>> 3) + count * ASIDE_DOUBLES] = this.#times[NOW]! + PASS_MS;
    const at = (this.#aside >>> 2) + count * ASIDE_CELLS;
    u32[at + ASIDE_MBUF] = mbuf;
    u32[at + ASIDE_BEHIND] = behind;
    u32[(this.#cells + CELL.asideCount) >>> 2] = count + 1;
    return true;
  }

  /** A packet has passed those that stepped aside. */
  #passAside(): void {
    const u32 = this.#u32;
    const count = u32[(this.#cells + CELL.asideCount) >>> 2]!;
    if (count === 0) return;
    for (let i = 0; i < count; i++) u32[(this.#aside >>> 2) + i * ASIDE_CELLS + ASIDE_BEHIND]! -= 1;
    this.#rejoin(false);
  }

  /** Nothing passed for too long. */
  #expireAside(): void {
    if (this.#u32[(this.#cells + CELL.asideCount) >>> 2] !== 0) this.#rejoin(true);
  }

  /** Puts those back that need not wait any longer, in the order in which they came. */
  #rejoin(expired: boolean): void {
    const u32 = this.#u32;
    const times = this.#times;
    times[DUE_AGAIN] = times[NOW]! + this.#delayMs;
    const count = u32[(this.#cells + CELL.asideCount) >>> 2]!;
    let kept = 0;
    for (let i = 0; i < count; i++) {
      const at = (this.#aside >>> 2) + i * ASIDE_CELLS;
      const due = this.#doubles[(this.#aside >>> 3) + i * ASIDE_DOUBLES]!;
      const mbuf = u32[at + ASIDE_MBUF]!;
      const behind = u32[at + ASIDE_BEHIND]!;
      if (behind === 0 || (expired && due <= times[NOW]!)) {
        this.#push(mbuf, DUE_AGAIN);
        continue;
      }
      this.#doubles[(this.#aside >>> 3) + kept * ASIDE_DOUBLES] = due;
      const to = (this.#aside >>> 2) + kept * ASIDE_CELLS;
      u32[to + ASIDE_MBUF] = mbuf;
      u32[to + ASIDE_BEHIND] = behind;
      kept++;
    }
    u32[(this.#cells + CELL.asideCount) >>> 2] = kept;
  }

  #count(cell: number): void {
    add64(this.#u32, (this.#cells + cell) >>> 2, 1);
  }

  #free(mbuf: number): void {
    this.#u32[this.#one >>> 2] = mbuf;
    this.#datapath.mbufFree(this.#one, 1);
  }
}
