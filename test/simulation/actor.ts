// The sleep protocol as a data worker plays it: who armed successfully is not stepped again before somebody signalled.
// A wake-up that gets lost thus leaves work undone while everybody sleeps.

export interface Sleeper {
  arm(): boolean;
  disarm(): void;
}

export class SleepState {
  asleep = false;
  sleeps = 0;
  /** Interrupts from the peer. One from before arming carries nothing that arming itself must not see. */
  #interrupted = false;
  /** Openings, ends and orders of the owner: readable descriptors until somebody looked. */
  #ordered = false;

  /** Asleep, and nobody has called. */
  get atRest(): boolean {
    return this.asleep && !this.#interrupted && !this.#ordered;
  }

  interrupt(): void {
    this.#interrupted = true;
  }

  order(): void {
    this.#ordered = true;
  }

  /** True when the owner may do something now. */
  awake(sleeper: Sleeper): boolean {
    if (!this.asleep) return true;
    if (!this.#interrupted && !this.#ordered) return false;
    this.wake(sleeper);
    return true;
  }

  wake(sleeper: Sleeper): void {
    if (!this.asleep) return;
    this.asleep = false;
    sleeper.disarm();
  }

  /** Everything that was ordered has been looked at. */
  looked(): void {
    this.#ordered = false;
  }

  trySleep(sleeper: Sleeper): void {
    if (this.asleep || this.#ordered) return;
    this.#interrupted = false;
    if (!sleeper.arm()) return;
    this.asleep = true;
    this.sleeps++;
  }
}
