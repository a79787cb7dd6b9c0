// Where an interface's counters are: of its ports, and of what lies between them in the arena.
import type { Eal } from '../ethdev/eal.js';
import type { Port } from '../ethdev/port.js';
import { read64 } from '../memory/cells64.js';
import { Gro, type GroCounters } from '../offload/gro.js';
import { NETDEV_PAIR, PAIR_BYTES } from './pair.js';
import { InterfaceStatistics } from './statistics.js';

const NO_GRO: GroCounters = { packets: 0, merged: 0, coalesced: 0, evicted: 0, checksums: 0, badChecksums: 0 };

export class Counting {
  readonly #eal: Eal;
  readonly #tap: Port;
  readonly #pairs: number;
  readonly #pairCount: number;
  readonly #stages: readonly number[];
  readonly #statistics = new InterfaceStatistics();
  #device: Port | undefined;
  #txGoneDropped = 0;

  /** `pairs`: address of that many PAIR_BYTES; `stages`: GRO_STAGEs, as they are made. */
  constructor(eal: Eal, tap: Port, pairs: number, pairCount: number, stages: readonly number[]) {
    this.#eal = eal;
    this.#tap = tap;
    this.#pairs = pairs;
    this.#pairCount = pairCount;
    this.#stages = stages;
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
      rxDownDropped: this.#rxDownDropped,
      txGoneDropped: this.#txGoneDropped,
      gro: this.#gro,
      lastGapUs: Math.round(lastGapMs * 1000),
    };
    return this.#statistics.list(this.#device, this.#tap, queues, coupling);
  }

  get #rxDownDropped(): number {
    const { u32 } = this.#eal.arena;
    let packets = 0;
    for (let pair = 0; pair < this.#pairCount; pair++)
      packets += read64(u32, (this.#pairs + pair * PAIR_BYTES + NETDEV_PAIR.at.downDropped) >>> 2);
    return packets;
  }

  get #gro(): GroCounters {
    const { arena, main } = this.#eal;
    const all: Record<string, number> = { ...NO_GRO };
    for (const stage of this.#stages) {
      for (const [name, value] of Object.entries(new Gro(arena, main.datapath, stage).counters())) all[name]! += value;
    }
    return all as GroCounters;
  }
}
