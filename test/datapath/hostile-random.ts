// Random numbers of a seed, with those among them that careless checks let through.
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed | 1;
  }
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }
  below(n: number): number {
    return this.next() % n;
  }
  chance(n: number): boolean {
    return this.below(n) === 0;
  }
  pick<T>(...values: T[]): T {
    return values[this.below(values.length)]!;
  }
  /** A number that a careless check lets through. */
  word(): number {
    const edge = this.pick(0, 1, 7, 8, 11, 12, 14, 36, 43, 44, 256, 1806, 6144, 0x7fffffff, 0x80000000, 0xffffff00);
    return this.chance(4) ? this.next() : (edge + this.pick(0, 0, 1, 4, 8, -1, -4, -8)) >>> 0;
  }
}
