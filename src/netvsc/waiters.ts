// Conditions that control code waits for, each with a deadline. They are looked at from within poll() and tick().

interface Waiter {
  readonly done: () => boolean;
  readonly resolve: (done: boolean) => void;
  readonly timeoutMs: number;
  /** Looking costs system calls: done at ticks only. */
  readonly tickOnly: boolean;
  deadline: number; // NaN until the first tick
}

export class Waiters {
  readonly #waiting: Waiter[] = [];
  #aborted = false;

  /** Resolves true once `done` holds, false at the deadline or when everything is aborted. */
  until(done: () => boolean, timeoutMs: number): Promise<boolean> {
    return this.#add(done, timeoutMs, false);
  }

  /** The same for a `done` that is not to be called at every poll. */
  untilTick(done: () => boolean, timeoutMs: number): Promise<boolean> {
    return this.#add(done, timeoutMs, true);
  }

  wake(): void {
    if (this.#waiting.length > 0) this.#look(undefined);
  }

  tick(nowMs: number): void {
    if (this.#waiting.length > 0) this.#look(nowMs);
  }

  /** Ends all waiting, now and in future. */
  abort(): void {
    this.#aborted = true;
    for (const waiter of this.#waiting.splice(0)) waiter.resolve(false);
  }

  #add(done: () => boolean, timeoutMs: number, tickOnly: boolean): Promise<boolean> {
    if (this.#aborted) return Promise.resolve(false);
    if (done()) return Promise.resolve(true);
    return new Promise((resolve) => {
      this.#waiting.push({ done, resolve, timeoutMs, tickOnly, deadline: Number.NaN });
    });
  }

  #look(nowMs: number | undefined): void {
    for (let i = this.#waiting.length - 1; i >= 0; i--) {
      const waiter = this.#waiting[i]!;
      if (nowMs === undefined && waiter.tickOnly) continue;
      if (nowMs !== undefined && Number.isNaN(waiter.deadline)) waiter.deadline = nowMs + waiter.timeoutMs;
      const done = waiter.done();
      if (!done && !(nowMs !== undefined && nowMs >= waiter.deadline)) continue;
      this.#waiting.splice(i, 1);
      waiter.resolve(done);
    }
  }
}
