// The next-generation capture format, pcapng (draft-ietf-opsawg-pcapng): tables, block writers, block decoding.
import { decodeSwapped, LINK_TYPE } from './pcap-classic.js';
import { struct, u16, u32, u64, WireError } from './struct.js';

export const PCAPNG_BLOCK = {
  SECTION_HEADER: 0x0a0d0d0a,
  INTERFACE_DESCRIPTION: 1,
  SIMPLE_PACKET: 3,
  INTERFACE_STATISTICS: 5,
  ENHANCED_PACKET: 6,
} as const;

const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
const OPTION = {
  ...{ END: 0, COMMENT: 1, INTERFACE_NAME: 2, INTERFACE_DESCRIPTION: 3, TIMESTAMP_RESOLUTION: 9, TIMESTAMP_OFFSET: 14 },
} as const;
/** Options of an interface's statistics, 8 bytes each. */
const STATISTICS_OPTION = { RECEIVED: 4, DROPPED: 5 } as const;
/** Options of packet blocks, 4 bytes each. */
export const PACKET_OPTION = { FLAGS: 2, QUEUE: 6 } as const;
/** Values of PACKET_OPTION.FLAGS. */
export const PACKET_DIRECTION = { INBOUND: 1, OUTBOUND: 2 } as const;
const NANOSECOND_RESOLUTION = 9;
const UNKNOWN_LENGTH = 0xffffffffffffffffn;
/** Longest block that a reader takes. */
export const MAX_BLOCK_BYTES = 16 * 1024 * 1024;
export const MAX_INTERFACES = 4096;

/** Every block: this, a body, and the length again. */
export const PcapngBlockHeader = struct('PCAPNG_BLOCK_HEADER', {
  blockType: u32(0, 'block', { names: PCAPNG_BLOCK }),
  blockLength: u32(4, 'whole block, a multiple of 4', { unit: 'bytes' }),
});

export const PcapngSectionHeader = struct('PCAPNG_SECTION_HEADER', {
  blockType: u32(0, 'block', { equals: PCAPNG_BLOCK.SECTION_HEADER }),
  blockLength: u32(4, 'whole block', { unit: 'bytes' }),
  byteOrderMagic: u32(8, 'tells the byte order', { equals: BYTE_ORDER_MAGIC }),
  versionMajor: u16(12, 'version', { equals: 1 }),
  versionMinor: u16(14, 'version: 0'),
  sectionLength: u64(16, 'bytes after this block; all ones = unknown'),
});

export const PcapngInterface = struct('PCAPNG_INTERFACE', {
  blockType: u32(0, 'block', { equals: PCAPNG_BLOCK.INTERFACE_DESCRIPTION }),
  blockLength: u32(4, 'whole block', { unit: 'bytes' }),
  linkType: u16(8, 'link type', { names: LINK_TYPE }),
  reserved: u16(10, 'reserved', { default: 0 }),
  snapLength: u32(12, 'longest packet, 0 = no limit', { unit: 'bytes' }),
});

export const PcapngEnhancedPacket = struct('PCAPNG_ENHANCED_PACKET', {
  blockType: u32(0, 'block', { equals: PCAPNG_BLOCK.ENHANCED_PACKET }),
  blockLength: u32(4, 'whole block', { unit: 'bytes' }),
  interfaceId: u32(8, 'position of its interface block in the section'),
  timestampHigh: u32(12, 'time, upper half'),
  timestampLow: u32(16, "time, lower half, in the interface's unit"),
  capturedLength: u32(20, 'bytes in the file', { unit: 'bytes' }),
  originalLength: u32(24, 'bytes on the wire', { unit: 'bytes' }),
});

export const PcapngSimplePacket = struct('PCAPNG_SIMPLE_PACKET', {
  blockType: u32(0, 'block', { equals: PCAPNG_BLOCK.SIMPLE_PACKET }),
  blockLength: u32(4, 'whole block', { unit: 'bytes' }),
  originalLength: u32(8, 'bytes on the wire', { unit: 'bytes' }),
});

export const PcapngOption = struct('PCAPNG_OPTION', {
  code: u16(0, 'option', { names: OPTION }),
  length: u16(2, 'bytes of value, without padding to 4', { unit: 'bytes' }),
});

export const PcapngStatistics = struct('PCAPNG_STATISTICS', {
  blockType: u32(0, 'block', { equals: PCAPNG_BLOCK.INTERFACE_STATISTICS }),
  blockLength: u32(4, 'whole block', { unit: 'bytes' }),
  interfaceId: u32(8, 'position of its interface block in the section'),
  timestampHigh: u32(12, 'time, upper half'),
  timestampLow: u32(16, "time, lower half, in the interface's unit"),
});

export const PCAPNG_TABLES = [
  PcapngBlockHeader,
  PcapngSectionHeader,
  PcapngInterface,
  PcapngEnhancedPacket,
  PcapngSimplePacket,
  PcapngOption,
  PcapngStatistics,
] as const;

const pad4 = (n: number): number => Math.ceil(n / 4) * 4;

function options(list: readonly (readonly [number, Uint8Array])[]): Uint8Array {
  if (list.length === 0) return new Uint8Array(0);
  const bytes = new Uint8Array(list.reduce((sum, [, value]) => sum + 4 + pad4(value.length), 4));
  let at = 0;
  for (const [code, value] of list) {
    PcapngOption.encodeInto({ code, length: value.length }, bytes, at);
    bytes.set(value, at + 4);
    at += 4 + pad4(value.length);
  }
  return bytes;
}

/** Room for a block: fixed part, `body` and options, the length at its end. */
function block(fixedBytes: number, body: Uint8Array, tail: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(fixedBytes + pad4(body.length) + tail.length + 4);
  bytes.set(body, fixedBytes);
  bytes.set(tail, fixedBytes + pad4(body.length));
  new DataView(bytes.buffer).setUint32(bytes.length - 4, bytes.length, true);
  return bytes;
}

const NONE = new Uint8Array(0);

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

/** Starts a section; interfaces count from 0 again. */
export function pcapngSection(comment = ''): Uint8Array<ArrayBuffer> {
  const list = comment === '' ? [] : [[OPTION.COMMENT, text(comment)] as const];
  const bytes = block(PcapngSectionHeader.size, NONE, options(list));
  PcapngSectionHeader.encodeInto({ blockLength: bytes.length, versionMinor: 0, sectionLength: UNKNOWN_LENGTH }, bytes);
  return bytes;
}

/** Declares the section's next interface, with nanosecond time stamps. */
export function pcapngInterface(
  name: string,
  linkType: number = LINK_TYPE.ETHERNET,
  description = '',
): Uint8Array<ArrayBuffer> {
  const resolution = [OPTION.TIMESTAMP_RESOLUTION, Uint8Array.of(NANOSECOND_RESOLUTION)] as const;
  const described = description === '' ? [] : [[OPTION.INTERFACE_DESCRIPTION, text(description)] as const];
  const list = [[OPTION.INTERFACE_NAME, text(name)] as const, ...described, resolution];
  const bytes = block(PcapngInterface.size, NONE, options(list));
  PcapngInterface.encodeInto({ blockLength: bytes.length, linkType, snapLength: 0 }, bytes);
  return bytes;
}

/** What was seen on an interface up to a time, and how much of it is not in the file. */
export function pcapngStatistics(
  interfaceId: number,
  timestampNs: bigint,
  received: number,
  dropped: number,
): Uint8Array<ArrayBuffer> {
  const number = (value: number) => new Uint8Array(BigUint64Array.of(BigInt(value)).buffer);
  const list = options([
    [STATISTICS_OPTION.RECEIVED, number(received)],
    [STATISTICS_OPTION.DROPPED, number(dropped)],
  ]);
  const bytes = block(PcapngStatistics.size, NONE, list);
  const timestampHigh = Number(timestampNs >> 32n);
  const timestampLow = Number(timestampNs & 0xffffffffn);
  PcapngStatistics.encodeInto({ blockLength: bytes.length, interfaceId, timestampHigh, timestampLow }, bytes);
  return bytes;
}

/** A packet, with a comment if there is something to say about it. */
export function pcapngPacket(
  interfaceId: number,
  timestampNs: bigint,
  data: Uint8Array,
  originalLength = data.length,
  comment = '',
): Uint8Array<ArrayBuffer> {
  const list = comment === '' ? [] : [[OPTION.COMMENT, text(comment)] as const];
  const bytes = block(PcapngEnhancedPacket.size, data, options(list));
  PcapngEnhancedPacket.encodeInto(
    {
      blockLength: bytes.length,
      interfaceId,
      timestampHigh: Number(timestampNs >> 32n),
      timestampLow: Number(timestampNs & 0xffffffffn),
      capturedLength: data.length,
      originalLength,
    },
    bytes,
  );
  return bytes;
}

/** An interface of a section. */
export interface CaptureInterface {
  readonly name: string;
  readonly linkType: number;
  readonly snapLength: number;
  /** Nanoseconds = units * `numerator` / `denominator` + `offsetNs`. */
  readonly numerator: bigint;
  readonly denominator: bigint;
  readonly offsetNs: bigint;
  /** Nanoseconds in a unit, up to 10^9, where that says it all; else 0. */
  readonly factor: number;
}

/** Length of the block at `at`; throws WireError when it cannot be one. `order` = the byte order it is written in. */
export function blockLength(bytes: Uint8Array, at: number, swapped: boolean): number {
  const { blockLength: length } = decodeSwapped(PcapngBlockHeader, bytes, at, swapped);
  if (length < 12 || length % 4 !== 0 || length > MAX_BLOCK_BYTES) {
    const what = `expected a multiple of 4 in 12..${MAX_BLOCK_BYTES}, got ${length}`;
    throw new WireError(PcapngBlockHeader.name, 'blockLength', what);
  }
  return length;
}

/** Byte order of the section header at `at` (12 bytes are needed). */
export function sectionSwapped(bytes: Uint8Array, at: number): boolean {
  const magic = new DataView(bytes.buffer, bytes.byteOffset + at).getUint32(8, true);
  if (magic === BYTE_ORDER_MAGIC) return false;
  if (magic === 0x4d3c2b1a) return true;
  throw new WireError(PcapngSectionHeader.name, 'byteOrderMagic', `expected 0x1a2b3c4d, got 0x${magic.toString(16)}`);
}

/** The interface that a block describes, given without the length at its end. Throws WireError. */
export function decodeInterface(body: Uint8Array, swapped: boolean): CaptureInterface {
  const { linkType, snapLength } = decodeSwapped(PcapngInterface, body, 0, swapped);
  let name = '';
  let numerator = 1000n; // microseconds unless an option says otherwise
  let denominator = 1n;
  let offsetNs = 0n;
  let at = PcapngInterface.size;
  while (body.length - at >= PcapngOption.size) {
    const { code, length } = decodeSwapped(PcapngOption, body, at, swapped);
    if (code === OPTION.END) break;
    const value = body.subarray(at + 4, at + 4 + length);
    if (value.length !== length) {
      throw new WireError(PcapngOption.name, 'length', `expected at most ${value.length} bytes, got ${length}`);
    }
    if (code === OPTION.INTERFACE_NAME) name = new TextDecoder().decode(value);
    if (code === OPTION.TIMESTAMP_RESOLUTION && length === 1) {
      const exponent = value[0]! & 0x7f;
      if (exponent > 63)
        throw new WireError(PcapngOption.name, 'value', `expected a time unit of at most 63, got ${exponent}`);
      numerator = 1_000_000_000n;
      denominator = value[0]! & 0x80 ? 1n << BigInt(exponent) : 10n ** BigInt(exponent);
    }
    if (code === OPTION.TIMESTAMP_OFFSET && length === 8) {
      const view = new DataView(value.buffer, value.byteOffset, 8);
      offsetNs = view.getBigInt64(0, !swapped) * 1_000_000_000n;
    }
    at += 4 + pad4(length);
  }
  const whole = offsetNs === 0n && numerator % denominator === 0n;
  return {
    ...{ name, linkType, snapLength, numerator, denominator, offsetNs },
    factor: whole ? Number(numerator / denominator) : 0,
  };
}
