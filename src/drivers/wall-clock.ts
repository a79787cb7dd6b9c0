// The time of day for time stamps, without allocation: read once a burst.

const BILLION = 1_000_000_000;

export class WallClock {
  /** Since 1970, as of the last read(). */
  seconds = 0;
  nanoseconds = 0;
  readonly #baseSeconds: number;
  readonly #baseNanoseconds: number;

  constructor() {
    const ms = performance.timeOrigin;
    this.#baseSeconds = Math.floor(ms / 1000);
    this.#baseNanoseconds = Math.round((ms - this.#baseSeconds * 1000) * 1e6);
  }

  read(): void {
    const since = this.#baseNanoseconds + Math.round(performance.now() * 1e6);
    const whole = Math.floor(since / BILLION);
    this.seconds = this.#baseSeconds + whole;
    this.nanoseconds = since - whole * BILLION;
  }
}
