// Generic receive offload: packets that a port received become fewer and larger ones on their way to the kernel, which
// takes a TCP packet of 64 KiB for little more than one of 1500 bytes. The rules are those of Linux (6.18), see assembly/gro.ts:
// a flow's packets keep their order, and who cuts the large packet again gets those that came in.
import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import { read64 } from '../memory/cells64.js';
import {
  GRO_BUCKET,
  GRO_BUCKET_FLOWS,
  GRO_BUCKETS,
  GRO_BYTES,
  GRO_FLOW,
  GRO_OPTION,
  GRO_STAGE,
} from '../memory/layout-gro.js';

export { GRO_HELD_MAX } from '../memory/layout-gro.js';

const { options, held } = GRO_STAGE.at;
const COUNTERS = ['packets', 'merged', 'coalesced', 'evicted', 'checksums', 'badChecksums'] as const;

/** What a stage has counted, see GRO_STAGE. */
export type GroCounters = Readonly<Record<(typeof COUNTERS)[number], number>>;

/** Reserves an empty stage in the arena; returns its address, for Gro in whatever thread polls. */
export function reserveGro(arena: Arena, name = 'receive offload'): number {
  const stage = arena.reserve(name, GRO_BYTES);
  const { u32 } = arena;
  const flows = stage + GRO_STAGE.bytes + GRO_BUCKETS * GRO_BUCKET.bytes;
  for (let i = 0; i < GRO_BUCKETS * GRO_BUCKET_FLOWS; i++) {
    const bucket = stage + GRO_STAGE.bytes + Math.floor(i / GRO_BUCKET_FLOWS) * GRO_BUCKET.bytes;
    u32[(bucket + GRO_BUCKET.at.flow0) / 4 + (i % GRO_BUCKET_FLOWS)] = flows + i * GRO_FLOW.bytes;
  }
  return stage;
}

/** A stage as one thread uses it: receive() for each burst of a queue, flush() at the end of the poll. Nothing here allocates
 *  but counters(). */
export class Gro {
  readonly #u32: Uint32Array;
  readonly #datapath: Datapath;
  readonly #stage: number;

  /** `stage`: from reserveGro(). */
  constructor(arena: Arena, datapath: Datapath, stage: number) {
    this.#u32 = arena.u32;
    this.#datapath = datapath;
    this.#stage = stage;
  }

  /** Takes `count` received mbuf chains (u32 array at `handles`) and writes what is to go on now to `output`, room for `count` +
   *  GRO_HELD_MAX handles; they may not overlap. Returns how many. A packet made of several is a chain with TX_TSO, RX_COALESCED and
   *  the flag that asks for its checksum, `mss` bytes of payload a segment. */
  receive(handles: number, count: number, output: number): number {
    return this.#datapath.groReceive(this.#stage, handles, count, output);
  }

  /** Ends a poll and hands out everything that is held: at most GRO_HELD_MAX handles. Returns how many. */
  flush(output: number): number {
    return this.#datapath.groFlush(this.#stage, output, 0);
  }

  /** Ends a poll that another one follows at once: what this poll began may wait for the next one, so that nothing waits longer,
   *  however busy the queue is (the kernel's rule with HZ >= 1000, its clock tick in place of the poll). */
  flushOld(output: number): number {
    return this.#datapath.groFlush(this.#stage, output, 1);
  }

  /** Packets that wait for others. */
  get held(): number {
    return this.#u32[(this.#stage + held) >>> 2]!;
  }

  /** Datagrams as well as TCP (ethtool's rx-udp-gro-forwarding); off, as in the kernel, until somebody wants it. */
  get udp(): boolean {
    return (this.#u32[(this.#stage + options) >>> 2]! & GRO_OPTION.UDP) !== 0;
  }
  set udp(on: boolean) {
    this.#u32[(this.#stage + options) >>> 2] = on ? GRO_OPTION.UDP : 0;
  }

  counters(): GroCounters {
    const value = (cell: number) => read64(this.#u32, (this.#stage + cell) >>> 2);
    return Object.fromEntries(COUNTERS.map((name) => [name, value(GRO_STAGE.at[name])])) as GroCounters;
  }
}
