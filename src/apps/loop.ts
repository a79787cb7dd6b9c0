// The loop of a data worker: steps everything it owns by polling, sleeps in poll(2) when all of it is idle
// (facts/performance.md 5: spin about 50 us, unmask, look again, sleep). Control-path code runs in the event-loop turns
// between bursts.
import { EventFd } from '../memory/os/eventfd.js';
import { PollSet } from '../memory/os/poll.js';

/** Something that a data worker polls. */
export interface Pollable {
  /** One bounded burst of work; returns how many packets or messages it handled. */
  step(): number;
  /** About once a millisecond, for deadlines. */
  tick(nowMs: number): void;
  /** Asks for interrupts before sleeping; false = something came meanwhile, do not sleep. */
  arm(): boolean;
  /** Back to polling. */
  disarm(): void;
  /** Descriptors that wake it. May change between calls. */
  fds(): readonly number[];
}

/** Longest run of bursts before control-path code gets a turn. */
const TURN_MS = 2;
/** How long to go on polling when there is nothing to do: about twice what a wake-up costs. */
const SPIN_MS = 0.05;
/** Longest sleep, so that deadlines are met although nothing arrives. */
const SLEEP_MS = 10;

/** Wall clock at time 0 of a loop of this thread, nanoseconds since 1970. */
export const loopEpochNs = (): bigint => BigInt(Math.round(performance.timeOrigin * 1000)) * 1000n;

export class PollLoop {
  readonly #members: Pollable[] = [];
  readonly #wake = new EventFd();
  readonly #polls = new PollSet();
  #watched: readonly number[] = [];
  #running = false;
  #lastTick = 0;
  /** How long to poll without finding anything before sleeping, ms. */
  #patience = SPIN_MS;
  #stopped: (() => void) | undefined;
  /** Turns in which it slept, for statistics. */
  sleeps = 0;

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
    this.#wake.close();
  }

  readonly #turn = (): void => {
    let begin = performance.now();
    let idleSince = begin;
    let worked = false;
    for (;;) {
      let work = 0;
      for (const member of this.#members) work += member.step();
      let now = performance.now();
      if (now - this.#lastTick >= 1) {
        this.#lastTick = now;
        for (const member of this.#members) member.tick(now);
      }
      if (work > 0) {
        idleSince = now;
        worked = true;
        this.#patience = SPIN_MS;
      } else if (now - idleSince >= this.#patience) {
        // What just came may have answered somebody who waits: that code runs between turns, so no sleep before.
        if (worked) break;
        // A sleep that nothing ended is followed by one look at everything and the next sleep.
        this.#patience = this.#sleep() ? SPIN_MS : 0;
        if (this.#patience === 0) break;
        now = performance.now();
        begin = now;
        idleSince = now;
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
      woken = this.#polls.wait(SLEEP_MS) > 0;
      if (woken && this.#polls.revents(this.#wake.fd) !== 0) this.#wake.drain();
    }
    for (const member of this.#members) member.disarm();
    return woken;
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
