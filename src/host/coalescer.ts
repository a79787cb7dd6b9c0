// Receive-side coalescing of one NIC, for a guest that has switched it on: what arrives in one burst of a TCP connection becomes one packet.
import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import { FRAGMENT, FRAME, HEAD_BYTES, OFFLOAD } from '../memory/layout.js';
import { COALESCE_FAMILY, COALESCE_FLOWS, COALESCE_UNIT, COALESCER } from '../memory/layout-coalesce.js';

/** Frames of a burst: as many as a FrameWorkshop hands over. */
const FRAMES = 2048;
const FRAGMENTS = 8192;

export interface CoalescerCounters {
  /** Packets that several segments became, and how many these were. */
  readonly coalescedPackets: number;
  readonly coalescedSegments: number;
}

export class Coalescer {
  /** Arena address of the u32 FRAME addresses that run() has made. */
  readonly output: number;
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #address: number;

  /** Reserves about 700 KiB of the arena until release(). */
  constructor(arena: Arena, datapath: Datapath, name = 'coalescer') {
    this.#arena = arena;
    this.#datapath = datapath;
    const made = FRAMES / 2;
    const sizes = {
      units: FRAMES * COALESCE_UNIT.bytes,
      links: FRAMES * 4,
      flows: COALESCE_FLOWS * 4,
      output: FRAMES * 4,
      frames: made * FRAME.bytes,
      heads: made * HEAD_BYTES,
      fragments: FRAGMENTS * FRAGMENT.bytes,
    };
    const bytes = Object.values(sizes).reduce((sum, size) => sum + size, COALESCER.bytes);
    this.#address = arena.reserve(name, bytes);
    const set = (cell: keyof typeof COALESCER.at, value: number) => {
      arena.u32[(this.#address + COALESCER.at[cell]) >>> 2] = value;
    };
    set('capacity', FRAMES);
    set('fragmentCapacity', FRAGMENTS);
    let at = this.#address + COALESCER.bytes;
    for (const [cell, size] of Object.entries(sizes)) {
      set(cell as keyof typeof sizes, at);
      at += size;
    }
    this.output = arena.u32[(this.#address + COALESCER.at.output) >>> 2]!;
  }

  /**
   * Coalesces `count` frames (u32 array of FRAME addresses) for a guest of these abilities (OFFLOAD bits), which also says of which families it
   * wants verdicts on checksums: those that are made have none. `most` segments a packet. Returns how many frames there are at `output`.
   */
  run(frames: number, count: number, abilities: number, most: number): number {
    let families = 0;
    if ((abilities & OFFLOAD.TCP4_RX) !== 0) families |= COALESCE_FAMILY.IPV4;
    if ((abilities & OFFLOAD.TCP6_RX) !== 0) families |= COALESCE_FAMILY.IPV6;
    return this.#datapath.hostCoalesce(this.#address, frames, count, families, most);
  }

  counters(): CoalescerCounters {
    return { coalescedPackets: this.#count('packets'), coalescedSegments: this.#count('segments') };
  }

  release(): void {
    this.#arena.release(this.#address);
  }

  #count(cell: 'packets' | 'segments'): number {
    const at = (this.#address + COALESCER.at[cell]) >>> 2;
    return this.#arena.u32[at]! + this.#arena.u32[at + 1]! * 2 ** 32;
  }
}
