// 802.1Q tags on their way through the switch. A FRAME is shared by all ports that get it, so a port that needs another
// tag gets a FRAME of its own over the same bytes, made here in scratch memory that lives until the burst is delivered.
import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import { FRAGMENT, FRAME, HEAD_BYTES, PACKET_FLAG } from '../memory/layout.js';

const AT = FRAME.at;
const WORDS = FRAME.bytes >>> 2;
const FRAMES = 768;
const LIFTED = 64;
const FRAGMENTS = 2048;
/** Addresses before the tag, and the tag. */
const TAG_AT = 12;
const TAG_BYTES = 4;
/** Scratch FRAMEs that one frame may need: its tag lifted, with a tag, without one. */
const PER_FRAME = 3;

export class TagScratch {
  /** FRAMEs made so far. */
  made = 0;
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #u8: Uint8Array;
  readonly #u32: Uint32Array;
  readonly #frames: number;
  readonly #heads: number;
  readonly #fragments: number;
  #frameCount = 0;
  #headCount = 0;
  #fragmentCount = 0;

  constructor(arena: Arena, datapath: Datapath) {
    this.#arena = arena;
    this.#datapath = datapath;
    this.#u8 = arena.u8;
    this.#u32 = arena.u32;
    this.#frames = arena.reserve(
      'vswitch tags',
      FRAMES * FRAME.bytes + LIFTED * HEAD_BYTES + FRAGMENTS * FRAGMENT.bytes,
    );
    this.#heads = this.#frames + FRAMES * FRAME.bytes;
    this.#fragments = this.#heads + LIFTED * HEAD_BYTES;
  }

  release(): void {
    this.#arena.release(this.#frames);
  }

  /** Forgets everything: the burst is delivered. */
  reset(): void {
    this.#frameCount = 0;
    this.#headCount = 0;
    this.#fragmentCount = 0;
  }

  /** Whether there is room for all that this frame may need; false = deliver and reset first. */
  hasRoom(frame: number): boolean {
    return (
      this.#frameCount + PER_FRAME <= FRAMES &&
      this.#headCount < LIFTED &&
      this.#fragmentCount + this.#u32[(frame + AT.fragmentCount) >>> 2]! < FRAGMENTS
    );
  }

  /** The frame with this tag in its vlanTci cell, or without any (tci < 0). */
  retag(frame: number, tci: number): number {
    const made = this.#copyFrame(frame);
    const flags = (made + AT.flags) >>> 2;
    if (tci < 0) this.#u32[flags]! &= ~PACKET_FLAG.VLAN;
    else this.#u32[flags]! |= PACKET_FLAG.VLAN;
    this.#u32[(made + AT.vlanTci) >>> 2] = Math.max(tci, 0);
    return made;
  }

  /**
   * The frame with the tag that lies in its bytes (type 0x8100 at byte 12) moved to vlanTci: one form inside the switch.
   * Returns 0 when the frame ends within the tag or has too many fragments. The headers are copied; the rest is not.
   */
  lift(frame: number): number {
    const u32 = this.#u32;
    const length = u32[(frame + AT.length) >>> 2]!;
    const count = u32[(frame + AT.fragmentCount) >>> 2]!;
    if (length < TAG_AT + TAG_BYTES + 2 || this.#fragmentCount + count + 1 > FRAGMENTS) return 0;
    const source = u32[(frame + AT.head) >>> 2]!;
    const head = this.#heads + this.#headCount++ * HEAD_BYTES;
    const taken = Math.min(length, HEAD_BYTES + TAG_BYTES);
    this.#datapath.copy(head, source, TAG_AT);
    const tci = (this.#u8[source + TAG_AT + 2]! << 8) | this.#u8[source + TAG_AT + 3]!;

    // Fragments: the copied headers, then whatever lies beyond them.
    const table = this.#fragments + this.#fragmentCount * FRAGMENT.bytes;
    const from = u32[(frame + AT.fragments) >>> 2]!;
    u32[table >>> 2] = head;
    u32[(table + 4) >>> 2] = taken - TAG_BYTES;
    let used = 1;
    let offset = 0;
    for (let i = 0; i < count; i++) {
      const address = u32[(from + i * FRAGMENT.bytes) >>> 2]!;
      const bytes = u32[(from + i * FRAGMENT.bytes + 4) >>> 2]!;
      const start = Math.max(offset, TAG_AT + TAG_BYTES);
      const end = Math.min(offset + bytes, taken);
      if (start < end) this.#datapath.copy(head + start - TAG_BYTES, address + start - offset, end - start);
      if (offset + bytes > taken) {
        const skip = Math.max(0, taken - offset);
        u32[(table + used * FRAGMENT.bytes) >>> 2] = address + skip;
        u32[(table + used * FRAGMENT.bytes + 4) >>> 2] = bytes - skip;
        used++;
      }
      offset += bytes;
    }
    this.#fragmentCount += used;

    const made = this.retag(frame, tci);
    u32[(made + AT.fragments) >>> 2] = table;
    u32[(made + AT.fragmentCount) >>> 2] = used;
    u32[(made + AT.length) >>> 2] = length - TAG_BYTES;
    u32[(made + AT.head) >>> 2] = head;
    const l4 = u32[(made + AT.l4Offset) >>> 2]!;
    if (l4 >= TAG_AT + TAG_BYTES) u32[(made + AT.l4Offset) >>> 2] = l4 - TAG_BYTES;
    return made;
  }

  #copyFrame(frame: number): number {
    const made = this.#frames + this.#frameCount++ * FRAME.bytes;
    for (let i = 0; i < WORDS; i++) this.#u32[(made >>> 2) + i] = this.#u32[(frame >>> 2) + i]!;
    this.made++;
    return made;
  }
}
