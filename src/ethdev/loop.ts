// The loop of a thread that polls: steps everything it owns by polling, sleeps in poll(2) when all of it is idle
// (facts/performance.md 5: spin about 50 us, unmask, look again, sleep). Control-path code runs in the event-loop turns
// between bursts.
import { EventFd } from '../memory/os/eventfd.js';
import { PollSet } from '../memory/os/poll.js';

/** Something that a loop polls. */
export interface Pollable {
  /** One bounded burst of work; returns how many packets or messages it handled. */
  step(): number;
  /** About once a millisecond, for deadlines. */
  tick(nowMs: number): void;
  /** Asks for interrupts before sleeping; false = something came meanwhile, do not sleep. */
  arm(): boolean;
  /** Back to polling. `signalled` false: none of its descriptors has anything, it need not look at them. */
  disarm(signalled?: boolean): void;
  /** Longest sleep in ms that it can take at first without being woken, fractions count; absent or undefined = any. */
  sleepMs?(): number | undefined;
  /** Descriptors that wake it. May change between calls. */
  fds(): readonly number[];
}

/** Longest run of bursts before control-path code gets a turn. */
const TURN_MS = 2;
/** Time between ticks while idle; while packets flow there is one in each turn. */
const TICK_MS = 1;
/** How long to go on polling when there is nothing to do: about twice what a wake-up costs. */
const SPIN_MS = 0.05;
/** Longest sleep, so that deadlines and control code get their turn although nothing arrives; it doubles from the first
 *  to the second while nothing does. */
const SLEEP_MS = 10;
const SLEEP_MAX_MS = 40;
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
  #running = false;
  #lastTick = 0;
  /** How long to poll without finding anything before sleeping, ms. */
  #patience = SPIN_MS;
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
    let idleSince = now;
    let work = 0;
    let due = false; // control code runs between turns: before a sleep, and after it
    for (;;) {
      // Not between packets: they do not wait for it. Every turn begins without.
      if (work === 0 && now - this.#lastTick >= TICK_MS) {
        this.#lastTick = now;
        for (const member of this.#members) member.tick(now);
      }
      work = 0;
      for (const member of this.#members) work += member.step();
      now = performance.now();
      if (work > 0) {
        idleSince = now;
        due = true;
        this.#patience = SPIN_MS;
      } else if (now - idleSince >= this.#patience) {
        if (due) break;
        // A sleep that nothing ended is followed by one look at everything and the next sleep.
        this.#patience = this.#sleep() ? SPIN_MS : 0;
        if (this.#patience === 0) break;
        now = performance.now();
        begin = now;
        idleSince = now;
        due = true;
        work = 1; // whatever it is that came
      }
      if (now - begin >= TURN_MS) break;
    }
    if (this.#running) setImmediate(this.#turn);
    else this.#stopped?.();
  };

  /** False when the time was over before anything came. */
  #sleep(): boolean {
    let quiet = true;
    for (const member of this.#members) quiet = member.arm() && quiet;
    let woken = true;
    if (quiet) {
      this.#watch();
      this.sleeps++;
      woken = this.#polls.wait(Math.min(this.#sleepMs, this.#sleepLimit())) > 0;
      this.#sleepMs = woken ? SLEEP_MS : Math.min(this.#sleepMs * 2, this.sleepMaxMs);
      if (woken && this.#polls.revents(this.#wake.fd) !== 0) this.#wake.drain();
    }
    for (const member of this.#members) member.disarm(!quiet || (woken && this.#signalled(member)));
    return woken;
  }

  /** Whether the last wait found something at one of its descriptors. */
  #signalled(member: Pollable): boolean {
    for (const fd of member.fds()) if (this.#polls.revents(fd) !== 0) return true;
    return false;
  }

  /** What the members ask for at first; more the longer nothing comes, or it would be spinning. */
  #sleepLimit(): number {
    let least = this.sleepMaxMs;
    for (const member of this.#members) least = Math.min(least, member.sleepMs?.() ?? least);
    if (this.#patience > 0) this.#napMs = 0;
    this.#napMs = Math.max(least, Math.min(this.#napMs * 1.25, NAP_MS));
    return this.#napMs;
  }

  /** Brings the poll set in line with what the members watch now. */
  #watch(): void {
    const wanted = [this.#wake.fd];
    for (const member of this.#members) wanted.push(...member.fds());
    if (wanted.length === this.#watched.length && wanted.every((fd, i) => fd === this.#watched[i])) return;
    for (const fd of this.#watched) this.#polls.remove(fd);
    for (const fd of wanted) this.#polls.add(fd);
    this.#watched = wanted;
  }
}
