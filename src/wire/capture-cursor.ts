// Finds the packets of a capture file of either format in a buffer that its reader fills, without allocation for packets.
import {
  decodePcapHeader,
  decodeSwapped,
  MAX_CAPTURED_BYTES,
  PcapFileHeader,
  PcapRecordHeader,
  pcapMagic,
  pcapTimestamp,
} from './pcap-classic.js';
import {
  blockLength,
  type CaptureInterface,
  decodeInterface,
  MAX_INTERFACES,
  PCAPNG_BLOCK,
  PcapngBlockHeader,
  PcapngEnhancedPacket,
  PcapngInterface,
  PcapngSectionHeader,
  PcapngSimplePacket,
  sectionSwapped,
} from './pcapng.js';
import { WireError } from './struct.js';

/** Bytes that tell what comes next in a pcapng file: block header and, for a section, its byte order. */
const PCAPNG_PEEK = 12;
const RECORD = PcapRecordHeader.offset;
const RECORD_BYTES = PcapRecordHeader.size;
const ENHANCED = PcapngEnhancedPacket.offset;
const ENHANCED_BYTES = PcapngEnhancedPacket.size;
const SIMPLE_BYTES = PcapngSimplePacket.size;
const TRAILER_BYTES = 4;
const BILLION = 1_000_000_000;
const HIGH = 2 ** 32;

export class CaptureCursor {
  /** Bytes of the file before what next() looks at next. */
  position = 0;
  /** Whether the last thing that next() found was a packet; what follows is about that. */
  isPacket = false;
  /** Index of its first byte. */
  dataAt = 0;
  capturedLength = 0;
  originalLength = 0;
  linkType = 0;
  /** Position of its interface in the section; 0 in pcap files. */
  interfaceId = 0;
  /** False where the file has no time (simple packet blocks). */
  hasTime = false;
  /** After next() gave 0: bytes that it wants to see from `at` on, and whether skip() can do without them. */
  needed = 4;
  skippable = false;
  #format: 'none' | 'pcap' | 'pcapng' = 'none';
  #swapped = false;
  #nanoseconds = false;
  #interfaces: CaptureInterface[] = [];
  /** Of the packet: seconds and fraction, or upper and lower half of its interface's units. */
  #first = 0;
  #second = 0;

  /** Whether anything of a capture was found. */
  get started(): boolean {
    return this.#format !== 'none';
  }

  /** Whether packets can be read from any position at which one begins: what is said of them stands at the file's beginning alone. */
  get seekable(): boolean {
    return this.#format === 'pcap';
  }

  /** Looks at bytes[at] to bytes[end - 1]: bytes used by what is there, 0 when it is not there in full. Throws WireError. */
  next(bytes: Uint8Array, at: number, end: number): number {
    const used =
      this.#format === 'pcap'
        ? this.#record(bytes, at, end - at)
        : this.#format === 'pcapng'
          ? this.#block(bytes, at, end - at)
          : this.#start(bytes, at, end - at);
    this.position += used;
    return used;
  }

  /** Goes on behind what next() did not see in full; returns its bytes. Only when it is skippable. */
  skip(): number {
    this.position += this.needed;
    return this.needed;
  }

  /** Time of the packet, nanoseconds since 1970. */
  timestampNs(): bigint | undefined {
    if (!this.hasTime) return undefined;
    if (this.#format === 'pcap') return pcapTimestamp(this.#first, this.#second, this.#nanoseconds);
    const { numerator, denominator, offsetNs } = this.#interfaces[this.interfaceId]!;
    const units = (BigInt(this.#first) << 32n) | BigInt(this.#second);
    return (units * numerator) / denominator + offsetNs;
  }

  /** The same to two cells, lower half first; 0 where the file has no time. */
  writeTimestamp(u32: Uint32Array, at: number): void {
    let factor = 0;
    if (this.#format === 'pcapng' && this.hasTime) factor = this.#interfaces[this.interfaceId]!.factor;
    if (!this.hasTime) {
      u32[at] = 0;
      u32[at + 1] = 0;
    } else if (this.#format === 'pcap') {
      multiplyAdd(0, this.#first, BILLION, this.#nanoseconds ? this.#second : this.#second * 1000, u32, at);
    } else if (factor > 0) {
      multiplyAdd(this.#first, this.#second, factor, 0, u32, at);
    } else {
      const time = BigInt.asUintN(64, this.timestampNs()!); // units that are no multiple of a nanosecond
      u32[at] = Number(time & 0xffff_ffffn);
      u32[at + 1] = Number(time >> 32n);
    }
  }

  /** Not in full. */
  #wants(bytes: number, skippable = false): 0 {
    this.needed = bytes;
    this.skippable = skippable;
    return 0;
  }

  #start(bytes: Uint8Array, at: number, left: number): number {
    this.isPacket = false;
    if (left < 4) return this.#wants(4);
    this.#swapped = false;
    const magic = this.#u32(bytes, at);
    if (magic === PCAPNG_BLOCK.SECTION_HEADER) return this.#block(bytes, at, left);
    const order = pcapMagic(magic);
    if (!order) {
      throw new WireError(PcapFileHeader.name, 'magic', `expected a pcap or pcapng file, got 0x${magic.toString(16)}`);
    }
    if (left < PcapFileHeader.size) return this.#wants(PcapFileHeader.size);
    this.linkType = decodePcapHeader(bytes.subarray(at), order).linkType;
    this.#swapped = order.swapped;
    this.#nanoseconds = order.nanoseconds;
    this.#format = 'pcap';
    return PcapFileHeader.size;
  }

  #record(bytes: Uint8Array, at: number, left: number): number {
    if (left < RECORD_BYTES) return this.#wants(RECORD_BYTES);
    const captured = this.#u32(bytes, at + RECORD.capturedLength);
    if (captured > MAX_CAPTURED_BYTES) throw tooLong(PcapRecordHeader.name, MAX_CAPTURED_BYTES, captured);
    if (left < RECORD_BYTES + captured) return this.#wants(RECORD_BYTES + captured);
    this.#first = this.#u32(bytes, at + RECORD.seconds);
    this.#second = this.#u32(bytes, at + RECORD.fraction);
    this.hasTime = true;
    this.#packet(at + RECORD_BYTES, captured, this.#u32(bytes, at + RECORD.originalLength));
    return RECORD_BYTES + captured;
  }

  #block(bytes: Uint8Array, at: number, left: number): number {
    this.isPacket = false;
    if (left < PCAPNG_PEEK) return this.#wants(PCAPNG_PEEK);
    let type = this.#u32(bytes, at);
    // The type of a section header reads the same in both byte orders.
    const starts = type === PCAPNG_BLOCK.SECTION_HEADER;
    const swapped = starts ? sectionSwapped(bytes, at) : this.#swapped;
    const total = blockLength(bytes, at, swapped);
    if (left < total) return this.#wants(total, !starts && !KNOWN.has(type));
    if (starts) {
      this.#swapped = swapped;
      this.#interfaces = [];
      type = PCAPNG_BLOCK.SECTION_HEADER;
    }
    const again = this.#u32(bytes, at + total - TRAILER_BYTES);
    if (again !== total)
      throw new WireError(PcapngBlockHeader.name, 'blockLength', `expected ${total} at the end too, got ${again}`);
    if (type === PCAPNG_BLOCK.ENHANCED_PACKET) this.#enhanced(bytes, at, total - TRAILER_BYTES);
    else if (type === PCAPNG_BLOCK.SIMPLE_PACKET) this.#simple(bytes, at, total - TRAILER_BYTES);
    else if (KNOWN.has(type)) this.#described(bytes.subarray(at, at + total - TRAILER_BYTES), type);
    this.#format = 'pcapng';
    return total; // unknown blocks are skipped, as the format asks
  }

  #enhanced(bytes: Uint8Array, at: number, length: number): void {
    if (length < ENHANCED_BYTES) throw tooShort(PcapngEnhancedPacket.name, ENHANCED_BYTES, length);
    this.interfaceId = this.#u32(bytes, at + ENHANCED.interfaceId);
    const from = this.#interface(PcapngEnhancedPacket.name);
    const captured = this.#u32(bytes, at + ENHANCED.capturedLength);
    const most = Math.min(length - ENHANCED_BYTES, MAX_CAPTURED_BYTES);
    if (captured > most) throw tooLong(PcapngEnhancedPacket.name, most, captured);
    this.#first = this.#u32(bytes, at + ENHANCED.timestampHigh);
    this.#second = this.#u32(bytes, at + ENHANCED.timestampLow);
    this.hasTime = true;
    this.linkType = from.linkType;
    this.#packet(at + ENHANCED_BYTES, captured, this.#u32(bytes, at + ENHANCED.originalLength));
  }

  #simple(bytes: Uint8Array, at: number, length: number): void {
    if (length < SIMPLE_BYTES) throw tooShort(PcapngSimplePacket.name, SIMPLE_BYTES, length);
    this.interfaceId = 0;
    const from = this.#interface(PcapngSimplePacket.name);
    const original = this.#u32(bytes, at + PcapngSimplePacket.offset.originalLength);
    const captured = from.snapLength === 0 ? original : Math.min(original, from.snapLength);
    const most = Math.min(length - SIMPLE_BYTES, MAX_CAPTURED_BYTES);
    if (captured > most) throw tooLong(PcapngSimplePacket.name, most, captured);
    this.hasTime = false;
    this.linkType = from.linkType;
    this.#packet(at + SIMPLE_BYTES, captured, original);
  }

  #packet(at: number, captured: number, original: number): void {
    this.isPacket = true;
    this.dataAt = at;
    this.capturedLength = captured;
    this.originalLength = original;
  }

  /** A section's or an interface's block, without the length at its end. */
  #described(body: Uint8Array, type: number): void {
    if (type === PCAPNG_BLOCK.SECTION_HEADER) {
      decodeSwapped(PcapngSectionHeader, body, 0, this.#swapped);
      return;
    }
    if (this.#interfaces.length >= MAX_INTERFACES)
      throw new WireError(PcapngInterface.name, '', `expected at most ${MAX_INTERFACES} interfaces in a section`);
    this.#interfaces.push(decodeInterface(body, this.#swapped));
  }

  #interface(layout: string): CaptureInterface {
    const found = this.#interfaces[this.interfaceId];
    if (found) return found;
    const problem = `expected one of ${this.#interfaces.length} interfaces, got ${this.interfaceId}`;
    throw new WireError(layout, 'interfaceId', problem);
  }

  #u32(bytes: Uint8Array, at: number): number {
    const [a, b, c, d] = this.#swapped ? SWAPPED : STRAIGHT;
    return (bytes[at + a]! | (bytes[at + b]! << 8) | (bytes[at + c]! << 16) | (bytes[at + d]! << 24)) >>> 0;
  }
}

const STRAIGHT = [0, 1, 2, 3] as const;
const SWAPPED = [3, 2, 1, 0] as const;
const { SECTION_HEADER, INTERFACE_DESCRIPTION, SIMPLE_PACKET, ENHANCED_PACKET } = PCAPNG_BLOCK;
const KNOWN: ReadonlySet<number> = new Set([SECTION_HEADER, INTERFACE_DESCRIPTION, SIMPLE_PACKET, ENHANCED_PACKET]);

const tooShort = (layout: string, expected: number, got: number) =>
  new WireError(layout, '', `expected at least ${expected} bytes, got ${got}`);
const tooLong = (layout: string, most: number, got: number) =>
  new WireError(layout, 'capturedLength', `expected at most ${most} bytes, got ${got}`);

/** (high, low) * factor + add, modulo 2^64, to two cells. `factor` up to 2^30, `add` up to 2^52. */
export function multiplyAdd(
  high: number,
  low: number,
  factor: number,
  add: number,
  u32: Uint32Array,
  at: number,
): void {
  const upper = (low >>> 16) * factor;
  const sum = (low & 0xffff) * factor + (upper % 65_536) * 65_536 + add;
  u32[at] = sum % HIGH;
  u32[at + 1] = Math.imul(high, factor) + Math.floor(upper / 65_536) + Math.floor(sum / HIGH);
}
