// Where an interface's counters are: of its ports, and of what lies between them in the arena.
import type { Port } from '../ethdev/port.js';
import type { Pairs } from './pairs.js';
import { InterfaceStatistics } from './statistics.js';

export class Counting {
  readonly #tap: Port;
  readonly #pairs: Pairs;
  readonly #statistics = new InterfaceStatistics();
  #device: Port | undefined;
  #txGoneDropped = 0;

  constructor(tap: Port, pairs: Pairs) {
    this.#tap = tap;
    this.#pairs = pairs;
  }

  /** This port counts from now on; what others counted stays. Undefined: the one that there is goes, and is closed after this. */
  use(device: Port | undefined): void {
    if (this.#device !== undefined) this.#statistics.absorb(this.#device);
    this.#device = device;
  }

  /** Packets that the device did not take before it went. */
  dropped(packets: number): void {
    this.#txGoneDropped += packets;
  }

  /** `ethtool -S`. */
  list(queues: number, lastGapMs: number): (readonly [name: string, value: number])[] {
    const coupling = {
      rxDownDropped: this.#pairs.dropped,
      txGoneDropped: this.#txGoneDropped,
      cut: this.#pairs.cut,
      gro: this.#pairs.merged(),
      lastGapUs: Math.round(lastGapMs * 1000),
    };
    return this.#statistics.list(this.#device, this.#tap, queues, coupling);
  }
}
