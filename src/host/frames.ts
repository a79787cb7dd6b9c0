// The work that a NIC's hardware would do, done only for receivers who need it: cutting TSO packets into segments and
// filling in checksums. Frames that the receiver can take as they are pass by untouched.
import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import { FRAGMENT, FRAME, HEAD_BYTES, NO_SECTION, OFFLOAD, PACKET_FLAG } from '../memory/layout.js';

const AT = FRAME.at;
const WORDS = FRAME.bytes >>> 2;
const { TX_IP_CHECKSUM, TX_TCP_CHECKSUM, TX_UDP_CHECKSUM, TX_TSO, IPV6, RX_IP_GOOD, RX_L4_GOOD } = PACKET_FLAG;
const TX_CHECKSUMS = TX_IP_CHECKSUM | TX_TCP_CHECKSUM | TX_UDP_CHECKSUM;

/** Frames of a round, passed and made. */
const FRAMES = 2048;
/** Made bytes of a round: at least one of the largest packets in the smallest usual segments. */
const SCRATCH_BYTES = 1 << 20;
/** Longest packet that is worked on. */
const LARGEST_BYTES = 0x2_0000;
const LONGEST_TCP_HEADER = 60;

export interface FrameWorkshopCounters {
  /** TSO packets cut, and what they became. */
  readonly segmented: number;
  readonly segments: number;
  /** Packets whose checksums were filled in. */
  readonly checksummed: number;
  /** Packets that are not what their flags say, or would need more segments than there is room for: dropped. */
  readonly refused: number;
}

/**
 * Prepares bursts for one receiver after another. Use, inside SwitchPort.deliver:
 *
 *     workshop.begin(frames, count, abilities);
 *     for (let n = workshop.next(); n > 0; n = workshop.next()) take(workshop.output, n);
 *
 * Each round's FRAMEs are valid until the next call of next() or begin().
 */
export class FrameWorkshop {
  /** Arena address of the round's u32 FRAME addresses. */
  readonly output: number;
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #u32: Uint32Array;
  readonly #memory: number;
  readonly #frames: number;
  readonly #fragments: number;
  readonly #lengths: number;
  readonly #whole: number;
  readonly #scratch: number;
  #input = 0;
  #remaining = 0;
  #abilities = 0;
  #made = 0;
  #used = 0;
  #segmented = 0;
  #segments = 0;
  #checksummed = 0;
  #refused = 0;

  /** Reserves about 1.4 MiB of the arena until release(). */
  constructor(arena: Arena, datapath: Datapath, name = 'frame workshop') {
    this.#arena = arena;
    this.#datapath = datapath;
    this.#u32 = arena.u32;
    const bytes = FRAMES * (FRAME.bytes + FRAGMENT.bytes + 4 + 4) + LARGEST_BYTES + SCRATCH_BYTES;
    this.#memory = arena.reserve(name, bytes);
    this.#frames = this.#memory;
    this.#fragments = this.#frames + FRAMES * FRAME.bytes;
    this.output = this.#fragments + FRAMES * FRAGMENT.bytes;
    this.#lengths = this.output + FRAMES * 4;
    this.#whole = this.#lengths + FRAMES * 4;
    this.#scratch = this.#whole + LARGEST_BYTES;
  }

  release(): void {
    this.#arena.release(this.#memory);
  }

  /**
   * Starts on a burst. `abilities` are OFFLOAD bits: the *_RX ones say which checksums may be left unfinished (the
   * receiver is told that they are good), RSC that TCP packets of any size may pass whole.
   */
  begin(frames: number, count: number, abilities: number): void {
    this.#input = frames;
    this.#remaining = count;
    this.#abilities = abilities;
  }

  /** Prepares the next round at `output`; returns its frames, 0 when the burst is through. */
  next(): number {
    const u32 = this.#u32;
    this.#made = 0;
    this.#used = 0;
    let out = 0;
    while (this.#remaining > 0 && out < FRAMES) {
      const frame = u32[this.#input >>> 2]!;
      const flags = u32[(frame + AT.flags) >>> 2]!;
      const todo = this.#todo(flags);
      let added: number;
      if (todo === 0) {
        u32[(this.output >>> 2) + out] = frame;
        added = 1;
      } else if ((todo & TX_TSO) !== 0) added = this.#segment(frame, flags, out);
      else added = this.#finish(frame, flags, todo, out);
      if (added < 0) {
        if (out > 0) break; // no room: in the next round, which starts with all of it
        added = 0;
        this.#refused++;
      }
      out += added;
      this.#input += 4;
      this.#remaining--;
    }
    return out;
  }

  counters(): FrameWorkshopCounters {
    return {
      segmented: this.#segmented,
      segments: this.#segments,
      checksummed: this.#checksummed,
      refused: this.#refused,
    };
  }

  /** The TX flags whose work the receiver cannot spare us. */
  #todo(flags: number): number {
    const wanted = flags & (TX_CHECKSUMS | TX_TSO);
    if (wanted === 0) return 0;
    const can = this.#abilities;
    const six = (flags & IPV6) !== 0;
    const tcp = can & (six ? OFFLOAD.TCP6_RX : OFFLOAD.TCP4_RX);
    if ((wanted & TX_TSO) !== 0) {
      const whole = tcp !== 0 && (can & OFFLOAD.RSC) !== 0 && (flags & PACKET_FLAG.UDP) === 0;
      return whole ? 0 : wanted;
    }
    let todo = wanted;
    if (tcp !== 0) todo &= ~TX_TCP_CHECKSUM;
    if ((can & (six ? OFFLOAD.UDP6_RX : OFFLOAD.UDP4_RX)) !== 0) todo &= ~TX_UDP_CHECKSUM;
    if ((can & OFFLOAD.IPV4_HEADER_RX) !== 0) todo &= ~TX_IP_CHECKSUM;
    return todo;
  }

  /** Copies the frame and fills in its checksums. 1 = made, 0 = refused, -1 = no room left. */
  #finish(frame: number, flags: number, todo: number, out: number): number {
    const u32 = this.#u32;
    const length = u32[(frame + AT.length) >>> 2]!;
    if (this.#used + length > SCRATCH_BYTES || this.#made === FRAMES) return -1;
    const to = this.#scratch + this.#used;
    this.#datapath.frameGather(frame, to);
    if (this.#datapath.checksumFinish(to, length, todo, u32[(frame + AT.l4Offset) >>> 2]!) === 0) {
      this.#refused++;
      return 0;
    }
    this.#used += (length + 63) & ~63;
    this.#checksummed++;
    this.#emit(frame, to, length, (flags & ~todo) | good(todo), out);
    return 1;
  }

  /** Cuts the packet up. Returns how many frames that made, 0 = refused, -1 = no room left. */
  #segment(frame: number, flags: number, out: number): number {
    const u32 = this.#u32;
    const length = u32[(frame + AT.length) >>> 2]!;
    const mss = u32[(frame + AT.mss) >>> 2]!;
    const l4Offset = u32[(frame + AT.l4Offset) >>> 2]!;
    if (length > LARGEST_BYTES || mss === 0 || mss > 0xffff || l4Offset > length) {
      this.#refused++;
      return 0;
    }
    const headers = (l4Offset || HEAD_BYTES) + LONGEST_TCP_HEADER;
    const stride = (Math.min(length, headers + mss) + 63) & ~63;
    const most = Math.ceil(length / mss);
    if (this.#used + most * stride > SCRATCH_BYTES || this.#made + most > FRAMES || out + most > FRAMES) return -1;

    const fragments = u32[(frame + AT.fragments) >>> 2]!;
    let whole = u32[fragments >>> 2]!;
    if (u32[(frame + AT.fragmentCount) >>> 2] !== 1) {
      whole = this.#whole;
      this.#datapath.frameGather(frame, whole);
    }
    const to = this.#scratch + this.#used;
    const count = this.#datapath.segment(whole, length, l4Offset, mss, to, stride, this.#lengths, most);
    if (count === 0) {
      this.#refused++;
      return 0;
    }
    this.#used += count * stride;
    this.#segmented++;
    this.#segments += count;
    const done = (flags & ~(TX_CHECKSUMS | TX_TSO)) | RX_L4_GOOD | ((flags & IPV6) !== 0 ? 0 : RX_IP_GOOD);
    for (let i = 0; i < count; i++) {
      this.#emit(frame, to + i * stride, u32[(this.#lengths >>> 2) + i]!, done, out + i);
    }
    return count;
  }

  /** A FRAME like `frame` over other bytes, as number `out` of the round. */
  #emit(frame: number, data: number, length: number, flags: number, out: number): void {
    const u32 = this.#u32;
    const index = this.#made++;
    const made = this.#frames + index * FRAME.bytes;
    const fragment = this.#fragments + index * FRAGMENT.bytes;
    for (let i = 0; i < WORDS; i++) u32[(made >>> 2) + i] = u32[(frame >>> 2) + i]!;
    u32[fragment >>> 2] = data;
    u32[(fragment + 4) >>> 2] = length;
    u32[(made + AT.fragments) >>> 2] = fragment;
    u32[(made + AT.fragmentCount) >>> 2] = 1;
    u32[(made + AT.length) >>> 2] = length;
    u32[(made + AT.flags) >>> 2] = flags;
    if ((flags & TX_TSO) === 0) u32[(made + AT.mss) >>> 2] = 0;
    u32[(made + AT.head) >>> 2] = data;
    u32[(made + AT.transaction) >>> 2] = NO_SECTION;
    u32[(made + AT.sourceBuffer) >>> 2] = 0;
    u32[(this.output >>> 2) + out] = made;
  }
}

/** What a receiver may be told once this work is done. */
function good(todo: number): number {
  const ip = (todo & TX_IP_CHECKSUM) !== 0 ? RX_IP_GOOD : 0;
  return ip | ((todo & (TX_TCP_CHECKSUM | TX_UDP_CHECKSUM)) !== 0 ? RX_L4_GOOD : 0);
}
