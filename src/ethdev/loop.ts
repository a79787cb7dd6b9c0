// The loop of a thread that polls: steps everything it owns by polling, sleeps in poll(2) when all of it is idle
// (facts/performance.md 5: spin about 50 us, unmask, look again, sleep). Control-path code runs in the event-loop turns
// between bursts.
import { EventFd } from '../memory/os/eventfd.js';
import { PollSet } from '../memory/os/poll.js';
import { setTimeSlice } from '../memory/os/process.js';

/** Whether the last sleep found something at a descriptor. */
export type Ready = (fd: number) => boolean;

/** Something that a loop polls. */
export interface Pollable {
  /** One bounded burst of work; returns how many packets or messages it handled. */
  step(): number;
  /** About once a millisecond, for deadlines. */
  tick(nowMs: number): void;
  /** Asks for interrupts before sleeping; false = something came meanwhile, do not sleep. */
  arm(): boolean;
  /** Back to polling. `signalled` false: none of its descriptors has anything, it need not look at them. `ready` says which
   *  ones have; absent: not known. */
  disarm(signalled?: boolean, ready?: Ready): void;
  /** Longest sleep in ms that it can take at first without being woken, fractions count; absent or undefined = any. */
  sleepMs?(): number | undefined;
  /** Descriptors that wake it. May change between calls. */
  fds(): readonly number[];
}

/** Longest run of bursts before control-path code gets a turn. */
const TURN_MS = 2;
/** Time between ticks while idle; while packets flow there is one in each turn. */
const TICK_MS = 1;
/** How long to go on polling at most when there is nothing to do: about twice what a wake-up costs. */
const SPIN_MS = 0.05;
/** What it begins with when polling turns out to pay. */
const SPIN_MIN_MS = 0.005;
/** What a wake-up takes. */
const WAKE_MS = 0.05;
/** The shortest sleep worth its system calls. */
const NAP_MIN_MS = 0.1;
/** Longest sleep, so that deadlines and control code get their turn although nothing arrives; it doubles from the first
 *  to the second while nothing does. */
const SLEEP_MS = 10;
const SLEEP_MAX_MS = 100;
/** The scheduler's time slice of a thread that polls: short, so that it runs at once when it is woken on a busy machine. */
const SLICE_US = 100;
/** How long the sleeps that a member limits may grow while nothing comes. */
const NAP_MS = 1;

/** Wall clock at time 0 of a loop of this thread, nanoseconds since 1970. */
export const loopEpochNs = (): bigint => BigInt(Math.round(performance.timeOrigin * 1000)) * 1000n;

export class PollLoop {
  readonly #members: Pollable[] = [];
  readonly #wake: EventFd;
  readonly #ownsWake: boolean;
  readonly #polls = new PollSet();
  #watched: readonly number[] = [];
  /** Per member, how many of #watched are its own; they follow each other. */
  readonly #shares: number[] = [];
  /** The member that is stepped first: what woke the loop does not wait for the others. */
  #first = 0;
  #running = false;
  #lastTick = 0;
  /** How long to poll without finding anything before sleeping, ms. */
  #spinMs = SPIN_MS;
  /** When there was something to do last. */
  #workedMs = 0;
  /** It has slept since. */
  #slept = false;
  /** The last sleep was ended by nothing. */
  #quiet = false;
  /** Another thread woke it: control code is to have its turn. */
  #called = false;
  #sleepMs = SLEEP_MS;
  /** Last sleep that a member limited, ms. */
  #napMs = 0;
  #stopped: (() => void) | undefined;
  /** Turns in which it slept, for statistics. */
  sleeps = 0;
  /** Longest sleep in ms; more where nobody needs a turn who cannot wake the loop. */
  sleepMaxMs = SLEEP_MAX_MS;

  /** `wakeFd`: an eventfd that another thread made and closes. */
  constructor(wakeFd?: number) {
    this.#wake = new EventFd(wakeFd);
    this.#ownsWake = wakeFd === undefined;
  }

  /** Descriptor (eventfd) whose writing wakes the loop from another thread. */
  get wakeFd(): number {
    return this.#wake.fd;
  }

  add(member: Pollable): void {
    this.#members.push(member);
  }

  remove(member: Pollable): void {
    const at = this.#members.indexOf(member);
    if (at >= 0) this.#members.splice(at, 1);
  }

  start(): void {
    this.#running = true;
    setTimeSlice(SLICE_US);
    setImmediate(this.#turn);
  }

  /** Ends the loop after the current turn. */
  stop(): Promise<void> {
    return new Promise((resolve) => {
      this.#stopped = resolve;
      this.#running = false;
    });
  }

  close(): void {
    this.#polls.close();
    if (this.#ownsWake) this.#wake.close();
  }

  readonly #turn = (): void => {
    let now = performance.now();
    let begin = now;
    let work = 0;
    let due = false; // control code runs between turns: before a long sleep, and after any that it may have been called in
    for (;;) {
      // Not between packets: they do not wait for it. Every turn begins without.
      if (work === 0 && now - this.#lastTick >= TICK_MS) {
        this.#lastTick = now;
        for (const member of this.#members) member.tick(now);
      }
      work = this.#step();
      now = performance.now();
      if (work > 0) {
        this.#learn(now);
        this.#quiet = false;
        due = true;
      } else if (now - this.#workedMs >= (this.#quiet ? 0 : this.#spinMs)) {
        // Between packets there is time for a nap, but not for a turn of the event loop.
        const left = TURN_MS - (now - begin);
        if (due && left < NAP_MIN_MS) break;
        const woken = this.#sleep(due ? left : undefined);
        // A sleep that nothing ended is followed by one look at everything and the next sleep.
        this.#quiet = !woken;
        if (this.#quiet) break;
        now = performance.now();
        if (!due) begin = now;
        due = true;
        work = 1; // whatever it is that came
      }
      if (now - begin >= TURN_MS || this.#called) break;
    }
    this.#called = false;
    if (this.#running) setImmediate(this.#turn);
    else this.#stopped?.();
  };

  /** How long polling pays follows from how soon packets came after the last ones. Where those whom it waits for need the CPU that
   *  it polls on, they come later, and it stops. */
  #learn(now: number): void {
    const gap = now - this.#workedMs;
    this.#workedMs = now;
    if (!this.#slept) return;
    this.#slept = false;
    if (gap > SPIN_MS + WAKE_MS) this.#spinMs /= 2;
    else this.#spinMs = Math.min(this.#spinMs * 2 + SPIN_MIN_MS, SPIN_MS);
  }

  /** Every member once, beginning with the first to have been signalled. One may add or remove members. */
  #step(): number {
    const members = this.#members;
    const count = members.length;
    let work = 0;
    let at = this.#first < count ? this.#first : 0;
    for (let i = 0; i < count; i++, at++) {
      if (at >= members.length) at = 0;
      if (members.length > 0) work += members[at]!.step();
    }
    return work;
  }

  /** False when the time was over before anything came. `limitMs`: a short sleep, no sign of a pause. */
  #sleep(limitMs?: number): boolean {
    let quiet = true;
    for (const member of this.#members) quiet = member.arm() && quiet;
    let woken = true;
    if (quiet) {
      this.#watch();
      this.sleeps++;
      this.#slept = true;
      woken = this.#polls.wait(Math.min(limitMs ?? this.#sleepMs, this.#sleepLimit())) > 0;
      if (woken) this.#sleepMs = SLEEP_MS;
      else if (limitMs === undefined) this.#sleepMs = Math.min(this.#sleepMs * 2, this.sleepMaxMs);
      if (woken && this.#polls.revents(this.#wake.fd) !== 0) {
        this.#wake.drain();
        this.#called = true;
      }
    }
    if (quiet) this.#disarm();
    else for (const member of this.#members) member.disarm(true);
    return woken;
  }

  /** After a wait. Asks nobody for descriptors again: what comes between a wake-up and the packet counts. */
  #disarm(): void {
    const members = this.#members;
    let first = -1;
    let at = 1;
    for (let i = 0; i < members.length; i++) {
      const end = at + this.#shares[i]!;
      let signalled = false;
      for (; at < end; at++) signalled = this.#polls.revents(this.#watched[at]!) !== 0 || signalled;
      if (signalled && first < 0) first = i;
      members[i]!.disarm(signalled, this.#ready);
    }
    if (first >= 0) this.#first = first;
  }

  readonly #ready: Ready = (fd) => this.#polls.revents(fd) !== 0;

  /** What the members ask for at first; more the longer nothing comes, or it would be spinning. */
  #sleepLimit(): number {
    let least = this.sleepMaxMs;
    for (const member of this.#members) least = Math.min(least, member.sleepMs?.() ?? least);
    if (!this.#quiet) this.#napMs = 0;
    this.#napMs = Math.max(least, Math.min(this.#napMs * 1.25, NAP_MS));
    return this.#napMs;
  }

  /** Brings the poll set in line with what the members watch now. */
  #watch(): void {
    const members = this.#members;
    const shares = this.#shares;
    const watched = this.#watched;
    let at = 1;
    let same = shares.length === members.length && watched.length > 0;
    for (let i = 0; i < members.length && same; i++) {
      const fds = members[i]!.fds();
      same = fds.length === shares[i] && at + fds.length <= watched.length;
      for (let j = 0; j < fds.length && same; j++, at++) same = fds[j] === watched[at];
    }
    if (!same || at !== watched.length) this.#watchAnew();
  }

  #watchAnew(): void {
    const wanted = [this.#wake.fd];
    this.#shares.length = 0;
    for (const member of this.#members) {
      const fds = member.fds();
      this.#shares.push(fds.length);
      wanted.push(...fds);
    }
    for (const fd of this.#watched) this.#polls.remove(fd);
    for (const fd of wanted) this.#polls.add(fd);
    this.#watched = wanted;
  }
}
