// A seeded scheduler: steps actors (guests, hosts, uplinks, faults) in random order under virtual time. The same seed
// gives the same run, so that a failure can be replayed.

/** A step of an actor; `nowMs` is virtual time. */
export type Step = (nowMs: number) => void;

export interface SimulatorOptions {
  readonly seed: number;
  /** Virtual milliseconds that pass between two turns, at most (default 0.2). */
  readonly turnMs?: number;
}

/** Numbers of a seed: a 32-bit generator (mulberry32), good enough to vary tests, nothing more. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}

interface Actor {
  readonly name: string;
  readonly step: Step;
  readonly weight: number;
}

export class Simulator {
  readonly seed: number;
  /** 0 <= random() < 1, from the seed. */
  readonly random: () => number;
  readonly #turnMs: number;
  #actors: readonly Actor[] = [];
  #timers: { atMs: number; action: Step }[] = [];
  #nowMs = 0;
  #turns = 0;

  constructor(options: SimulatorOptions) {
    this.seed = options.seed;
    this.random = seededRandom(options.seed);
    this.#turnMs = options.turnMs ?? 0.2;
  }

  /** Virtual time in milliseconds. */
  get nowMs(): number {
    return this.#nowMs;
  }

  /** Turns taken so far. */
  get turns(): number {
    return this.#turns;
  }

  /** Adds an actor; one of weight 2 is stepped twice as often as one of weight 1. Returns what removes it. */
  add(name: string, step: Step, weight = 1): () => void {
    if (!(weight > 0)) throw new RangeError(`simulator: weight of ${name} must be positive, got ${weight}`);
    const actor = { name, step, weight };
    this.#actors = [...this.#actors, actor];
    return () => {
      this.#actors = this.#actors.filter((other) => other !== actor);
    };
  }

  /** Runs `action` once, at the first turn at or after `atMs`. */
  at(atMs: number, action: Step): void {
    this.#timers.push({ atMs, action });
    this.#timers.sort((a, b) => a.atMs - b.atMs);
  }

  /** One turn: time passes, due actions run, then one actor. Errors carry seed, turn and actor. */
  turn(): void {
    this.#turns++;
    this.#nowMs += this.random() * this.#turnMs;
    while (this.#timers.length > 0 && this.#timers[0]!.atMs <= this.#nowMs) {
      const timer = this.#timers.shift()!;
      this.#step('timer', timer.action);
    }
    const actor = this.#pick();
    if (actor) this.#step(actor.name, actor.step);
  }

  /**
   * Turns until `done()` holds. Throws once `limitMs` of virtual time has passed without it (default 10,000).
   * Resolved promises get to run now and then, since control paths are async.
   */
  async run(done: () => boolean, limitMs = 10_000): Promise<void> {
    const endMs = this.#nowMs + limitMs;
    while (!done()) {
      if (this.#nowMs >= endMs) throw new Error(`simulator: not done after ${limitMs} ms (${this.#where('run')})`);
      this.turn();
      await Promise.resolve();
    }
  }

  #pick(): Actor | undefined {
    let total = 0;
    for (const actor of this.#actors) total += actor.weight;
    let ticket = this.random() * total;
    for (const actor of this.#actors) {
      ticket -= actor.weight;
      if (ticket < 0) return actor;
    }
    return undefined;
  }

  #step(name: string, step: Step): void {
    try {
      step(this.#nowMs);
    } catch (cause) {
      throw new Error(`simulator: ${cause instanceof Error ? cause.message : cause} (${this.#where(name)})`, { cause });
    }
  }

  #where(name: string): string {
    return `${name}, seed ${this.seed}, turn ${this.#turns}, ${this.#nowMs.toFixed(3)} ms`;
  }
}
