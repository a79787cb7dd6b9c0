// The classic capture file format, pcap (draft-ietf-opsawg-pcap): tables, writer, and decoding of its two headers.
import { type AnyStruct, i32, struct, u16, u32 } from './struct.js';

export const PCAP_MAGIC = { MICROSECONDS: 0xa1b2c3d4, NANOSECONDS: 0xa1b23c4d } as const;
export const LINK_TYPE = { ETHERNET: 1, LINUX_SLL: 113 } as const;

/** Longest packet that a reader takes: the limit that capture tools use. */
export const MAX_CAPTURED_BYTES = 262_144;

export const PcapFileHeader = struct('PCAP_FILE_HEADER', {
  magic: u32(0, 'byte order, and the unit of time stamps', { names: PCAP_MAGIC }),
  versionMajor: u16(4, 'version', { equals: 2 }),
  versionMinor: u16(6, 'version: 4'),
  thisZone: i32(8, 'zero', { default: 0 }),
  significantFigures: u32(12, 'zero', { default: 0 }),
  snapLength: u32(16, 'longest packet in the file', { unit: 'bytes' }),
  linkType: u32(20, 'bits 0..15 link type', { names: LINK_TYPE }),
});

/** The packet's bytes follow. */
export const PcapRecordHeader = struct('PCAP_RECORD_HEADER', {
  seconds: u32(0, 'since 1970', { unit: 's' }),
  fraction: u32(4, 'us or ns, by the magic'),
  capturedLength: u32(8, 'bytes in the file', { unit: 'bytes' }),
  originalLength: u32(12, 'bytes on the wire', { unit: 'bytes' }),
});

export const PCAP_TABLES = [PcapFileHeader, PcapRecordHeader] as const;

/** One packet of a capture. */
export interface CapturedPacket {
  /** Position of its interface in the section; 0 in pcap files. */
  readonly interfaceId: number;
  readonly linkType: number;
  /** Since 1970; undefined where the file has none (simple packet blocks). */
  readonly timestampNs: bigint | undefined;
  readonly originalLength: number;
  readonly data: Uint8Array;
}

const BILLION = 1_000_000_000n;

/** Decodes a struct that was written with the other byte order: its integers, by the table, read backwards. */
export function decodeSwapped<S extends AnyStruct>(
  layout: S,
  bytes: Uint8Array,
  at: number,
  swapped: boolean,
): ReturnType<S['decode']> {
  if (!swapped) return layout.decode(bytes, at) as ReturnType<S['decode']>;
  if (bytes.length - at < layout.size) return layout.decode(bytes, at) as ReturnType<S['decode']>; // throws
  const copy = bytes.slice(at, at + layout.size);
  for (const f of layout.fields) {
    if (f.type === 'u16' || f.type === 'u32' || f.type === 'i32' || f.type === 'u64') {
      copy.subarray(f.offset, f.offset + f.size).reverse();
    }
  }
  return layout.decode(copy) as ReturnType<S['decode']>;
}

/** Start of a pcap file with nanosecond time stamps, little-endian. */
export function pcapHeader(
  linkType: number = LINK_TYPE.ETHERNET,
  snapLength = MAX_CAPTURED_BYTES,
): Uint8Array<ArrayBuffer> {
  return PcapFileHeader.encode({ magic: PCAP_MAGIC.NANOSECONDS, versionMinor: 4, snapLength, linkType });
}

/** One packet of a pcap file that starts with pcapHeader(). Throws WireError for a time that does not fit. */
export function pcapRecord(
  timestampNs: bigint,
  data: Uint8Array,
  originalLength = data.length,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(PcapRecordHeader.size + data.length);
  const seconds = Number(timestampNs / BILLION);
  const fraction = Number(timestampNs % BILLION);
  PcapRecordHeader.encodeInto({ seconds, fraction, capturedLength: data.length, originalLength }, bytes);
  bytes.set(data, PcapRecordHeader.size);
  return bytes;
}

/** How to read the rest of a pcap file. */
export interface PcapFormat {
  readonly swapped: boolean;
  readonly nanoseconds: boolean;
  readonly linkType: number;
}

/** Byte order and time unit by the magic; undefined when the bytes do not start with a pcap magic. */
export function pcapMagic(magic: number): { readonly swapped: boolean; readonly nanoseconds: boolean } | undefined {
  const { MICROSECONDS, NANOSECONDS } = PCAP_MAGIC;
  if (magic === MICROSECONDS || magic === NANOSECONDS) return { swapped: false, nanoseconds: magic === NANOSECONDS };
  if (magic === 0xd4c3b2a1) return { swapped: true, nanoseconds: false };
  if (magic === 0x4d3cb2a1) return { swapped: true, nanoseconds: true };
  return undefined;
}

/** Decodes the 24 bytes at the start of a pcap file. */
export function decodePcapHeader(bytes: Uint8Array, order: { swapped: boolean; nanoseconds: boolean }): PcapFormat {
  const { linkType } = decodeSwapped(PcapFileHeader, bytes, 0, order.swapped);
  return { ...order, linkType: linkType & 0xffff };
}

export function pcapTimestamp(seconds: number, fraction: number, nanoseconds: boolean): bigint {
  return BigInt(seconds) * BILLION + BigInt(fraction) * (nanoseconds ? 1n : 1000n);
}
