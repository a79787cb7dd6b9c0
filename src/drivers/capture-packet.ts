// Puts packets of mbufs into arena memory as capture files want them, without allocation.
import { fchmodSync, fstatSync, openSync } from 'node:fs';
import type { Lcore } from '../ethdev/driver.js';
import { MBUF, PACKET_FLAG } from '../memory/layout.js';
import { multiplyAdd } from '../wire/capture-cursor.js';
import { ETHER_TYPE, EthernetHeader, VlanTag } from '../wire/ethernet.js';
import {
  MAX_CAPTURED_BYTES,
  PACKET_OPTION,
  PCAPNG_BLOCK,
  PcapngEnhancedPacket,
  PcapngOption,
  PcapRecordHeader,
  pcapHeader,
  pcapngInterface,
  pcapngSection,
} from '../wire/pcap.js';

const { data, dataLength, packetLength, next, flags, vlanTci } = MBUF.at;
const { VLAN } = PACKET_FLAG;
const RECORD = PcapRecordHeader.offset;
const RECORD_BYTES = PcapRecordHeader.size;
const BLOCK = PcapngEnhancedPacket.offset;
const BLOCK_BYTES = PcapngEnhancedPacket.size;
const { ENHANCED_PACKET } = PCAPNG_BLOCK;
/** Direction, queue, end of options. */
const OPTION_BYTES = PcapngOption.size + 4;
const OPTIONS_BYTES = 2 * OPTION_BYTES + PcapngOption.size;
const FLAGS_OPTION = PACKET_OPTION.FLAGS | (4 << 16);
const QUEUE_OPTION = PACKET_OPTION.QUEUE | (4 << 16);
const TRAILER_BYTES = 4;
const TAG_AT = EthernetHeader.offset.etherType;
const TAG_BYTES = VlanTag.size;
const { VLAN: TAG_TYPE } = ETHER_TYPE;
const BILLION = 1_000_000_000;

/** Least bytes of each packet that can be kept. */
export const SNAP_MIN = 64;

/** Makes or empties a file that only its owner may read; returns its descriptor. Throws what the file system says. */
export function createCaptureFile(path: string): number {
  const fd = openSync(path, 'w', 0o600);
  if (fstatSync(fd).isFile()) fchmodSync(fd, 0o600); // it may have been there
  return fd;
}

/** How a file begins. */
export const captureStart = (format: CaptureFormat, name: string): Uint8Array =>
  format === 'pcap' ? pcapHeader() : Buffer.concat([pcapngSection(), pcapngInterface(name)]);

export type CaptureFormat = 'pcap' | 'pcapng';

/** Longest record or block that put() makes. */
export const CAPTURE_PACKET_MAX: number = BLOCK_BYTES + MAX_CAPTURED_BYTES + OPTIONS_BYTES + TRAILER_BYTES;

export class CapturePacket {
  /** Set before put(), pcapng only: PACKET_DIRECTION, 0 = packets have no options; and the number of the queue. */
  direction = 0;
  queue = 0;
  readonly #lcore: Lcore;
  readonly #u8: Uint8Array;
  readonly #u32: Uint32Array;
  readonly #pcapng: boolean;
  readonly #snapLength: number;
  /** Time of the next packet. */
  #seconds = 0;
  #nanoseconds = 0;
  readonly #time = new Uint32Array(2);

  /** `snapLength`: bytes that are kept of each packet. */
  constructor(lcore: Lcore, format: CaptureFormat, snapLength: number) {
    this.#lcore = lcore;
    this.#u8 = lcore.arena.u8;
    this.#u32 = lcore.arena.u32;
    this.#pcapng = format === 'pcapng';
    this.#snapLength = Math.min(snapLength, MAX_CAPTURED_BYTES);
  }

  /** Time of the packets that follow: seconds and nanoseconds since 1970. */
  setTime(seconds: number, nanoseconds: number): void {
    this.#seconds = seconds;
    this.#nanoseconds = nanoseconds;
    multiplyAdd(0, seconds, BILLION, nanoseconds, this.#time, 0);
  }

  /** The same from the two halves of nanoseconds since 1970. */
  setTimestamp(low: number, high: number): void {
    this.#time[0] = low;
    this.#time[1] = high;
    // Long division, 16 bits at a time.
    let rest = high;
    let quotient = Math.floor(rest / BILLION);
    rest -= quotient * BILLION;
    for (const digit of [low >>> 16, low & 0xffff]) {
      const part = rest * 65_536 + digit;
      const step = Math.floor(part / BILLION);
      quotient = quotient * 65_536 + step;
      rest = part - step * BILLION;
    }
    this.#seconds = quotient >>> 0;
    this.#nanoseconds = rest;
  }

  /** Writes the packet at `at` (pcapng: a multiple of 4); a tag that stands beside its bytes goes back into them. Returns bytes written, 0 when
   *  there is no room for them. */
  put(at: number, room: number, mbuf: number): number {
    const u32 = this.#u32;
    const tag = (u32[(mbuf + flags) >>> 2]! & VLAN) === 0 ? 0 : TAG_BYTES;
    const original = u32[(mbuf + packetLength) >>> 2]! + tag;
    const captured = Math.min(original, this.#snapLength);
    const padded = (captured + 3) & ~3;
    if (BLOCK_BYTES + padded + OPTIONS_BYTES + TRAILER_BYTES > room) return 0;
    if (!this.#pcapng) {
      this.#store(at + RECORD.seconds, this.#seconds);
      this.#store(at + RECORD.fraction, this.#nanoseconds);
      this.#store(at + RECORD.capturedLength, captured);
      this.#store(at + RECORD.originalLength, original);
      this.#data(at + RECORD_BYTES, captured, mbuf, tag);
      return RECORD_BYTES + captured;
    }
    this.#data(at + BLOCK_BYTES, captured, mbuf, tag);
    let end = at + BLOCK_BYTES + captured;
    while ((end & 3) !== 0) this.#u8[end++] = 0;
    if (this.direction !== 0) {
      u32[end >>> 2] = FLAGS_OPTION;
      u32[(end + 4) >>> 2] = this.direction;
      u32[(end + 8) >>> 2] = QUEUE_OPTION;
      u32[(end + 12) >>> 2] = this.queue;
      u32[(end + 16) >>> 2] = 0; // end of options
      end += OPTIONS_BYTES;
    }
    const total = end + TRAILER_BYTES - at;
    u32[(at + BLOCK.blockType) >>> 2] = ENHANCED_PACKET;
    u32[(at + BLOCK.blockLength) >>> 2] = total;
    u32[(at + BLOCK.interfaceId) >>> 2] = 0;
    u32[(at + BLOCK.timestampHigh) >>> 2] = this.#time[1]!;
    u32[(at + BLOCK.timestampLow) >>> 2] = this.#time[0]!;
    u32[(at + BLOCK.capturedLength) >>> 2] = captured;
    u32[(at + BLOCK.originalLength) >>> 2] = original;
    u32[end >>> 2] = total;
    return total;
  }

  /** Records of the older format have any alignment. */
  #store(at: number, value: number): void {
    const u8 = this.#u8;
    u8[at] = value;
    u8[at + 1] = value >>> 8;
    u8[at + 2] = value >>> 16;
    u8[at + 3] = value >>> 24;
  }

  /** Copies `bytes` bytes of the packet, the tag among them. */
  #data(to: number, bytes: number, mbuf: number, tag: number): void {
    const { datapath } = this.#lcore;
    const u32 = this.#u32;
    const end = to + bytes;
    let at = to + tag;
    for (let segment = mbuf; segment !== 0 && at < end; segment = u32[(segment + next) >>> 2]!) {
      const there = u32[(segment + dataLength) >>> 2]!;
      const part = Math.min(there, end - at);
      datapath.copy(at, u32[(segment + data) >>> 2]!, part);
      at += part;
    }
    if (tag === 0) return;
    const u8 = this.#u8;
    const tci = u32[(mbuf + vlanTci) >>> 2]!;
    u8.copyWithin(to, to + tag, to + tag + TAG_AT);
    u8[to + TAG_AT] = TAG_TYPE >>> 8;
    u8[to + TAG_AT + 1] = TAG_TYPE & 0xff;
    u8[to + TAG_AT + 2] = tci >>> 8;
    u8[to + TAG_AT + 3] = tci & 0xff;
  }
}
