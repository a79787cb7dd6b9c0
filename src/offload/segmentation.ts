// Large sends for receivers that take none: an area of scratch memory that holds the finished segments of one packet.
import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';

export interface SegmenterOptions {
  /** Most segments of one packet; a larger one is refused. Default 64. */
  readonly segments?: number;
  /** Largest segment in bytes, Ethernet header included. Default 2048. */
  readonly segmentBytes?: number;
  /** Bytes kept free in front of each segment (a virtio_net_hdr and a VLAN tag go there). Default 32. */
  readonly headroom?: number;
}

/** Cuts one packet at a time. The segments stay valid until the next `cut`. */
export class Segmenter {
  /** Bytes from one segment to the next. */
  readonly stride: number;
  readonly #datapath: Datapath;
  readonly #arena: Arena;
  readonly #memory: number;
  readonly #first: number;
  readonly #max: number;
  readonly #room: number;

  constructor(arena: Arena, datapath: Datapath, options: SegmenterOptions = {}) {
    const headroom = ((options.headroom ?? 32) + 15) & ~15;
    this.#max = options.segments ?? 64;
    this.#room = options.segmentBytes ?? 2048;
    this.stride = headroom + ((this.#room + 63) & ~63);
    this.#arena = arena;
    this.#datapath = datapath;
    const lengths = (this.#max * 4 + 63) & ~63;
    this.#memory = arena.reserve('segments', lengths + headroom + this.#max * this.stride);
    this.#first = this.#memory + lengths + headroom;
  }

  /** Segments of `mss` payload bytes of the packet at `address`, checksums filled in. `l4Offset` 0 = find it.
   *  Returns how many; 0 when the packet is malformed, or too many or too large segments would be needed. */
  cut(address: number, bytes: number, l4Offset: number, mss: number): number {
    const count = this.#datapath.segment(
      address,
      bytes,
      l4Offset,
      mss,
      this.#first,
      this.stride,
      this.#memory,
      this.#max,
    );
    // The kernel knows the stride only; the first segment is the longest, and must leave the next one's headroom alone.
    return count !== 0 && this.length(0) > this.#room ? 0 : count;
  }

  /** Arena address of segment `i` of the last packet. */
  address(i: number): number {
    return this.#first + i * this.stride;
  }

  /** Its length in bytes. */
  length(i: number): number {
    return this.#arena.u32[(this.#memory + i * 4) >>> 2]!;
  }

  close(): void {
    this.#arena.release(this.#memory);
  }
}
