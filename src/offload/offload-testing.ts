// For tests: an arena with the compiled data path on it, packets of every shape that the kernels claim to know,
// and the plain TypeScript arithmetic that they are compared with.
import fc from 'fast-check';
import { createDatapath } from '../datapath/datapath.js';
import { Arena } from '../memory/arena.js';
import { PACKET_FLAG } from '../memory/layout.js';

/** An arena whose bytes from BASE on (2 MiB) are the test's. */
export function testMemory() {
  const arena = Arena.create({ bytes: 4 << 20 });
  const base = arena.reserve('test', 2 << 20);
  if (base !== BASE) throw new Error(`test memory: expected at ${BASE}, got ${base}`);
  return { u8: arena.u8, u32: arena.u32, datapath: createDatapath(arena.memory), arena };
}

export const GUARD = 0xa5;
export const BASE = 1 << 20;
export const OUTPUT = 2 << 20;

export interface PacketSpec {
  readonly family: 4 | 6;
  readonly protocol: 6 | 17;
  /** 32-bit words of IPv4 options, or extension headers. */
  readonly ipOptions: number;
  readonly tcpOptions: number;
  readonly payload: number;
  readonly tcpFlags: number;
  readonly seed: number;
  /** In-band 802.1Q tag control information. */
  readonly tag?: number | undefined;
}

export interface Packet {
  readonly bytes: Uint8Array;
  readonly l3: number;
  readonly l4: number;
  readonly payloadAt: number;
  readonly spec: PacketSpec;
}

export function packetSpec(maxPayload: number): fc.Arbitrary<PacketSpec> {
  return fc.record({
    family: fc.constantFrom(4 as const, 6 as const),
    protocol: fc.constantFrom(6 as const, 17 as const),
    ipOptions: fc.integer({ min: 0, max: 10 }),
    tcpOptions: fc.integer({ min: 0, max: 10 }),
    payload: fc.integer({ min: 0, max: maxPayload }),
    tcpFlags: fc.integer({ min: 0, max: 255 }),
    seed: fc.integer({ min: 1, max: 0x7fffffff }),
  });
}

/** Reproducible bytes. */
export function fill(bytes: Uint8Array, seed: number): void {
  let state = seed | 1;
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    bytes[i] = state >>> 24;
  }
}

export const get16 = (b: Uint8Array, at: number) => (b[at]! << 8) | b[at + 1]!;
export const get32 = (b: Uint8Array, at: number) => ((get16(b, at) << 16) | get16(b, at + 2)) >>> 0;
export function put16(b: Uint8Array, at: number, value: number): void {
  b[at] = value >>> 8;
  b[at + 1] = value;
}

/** RFC 1071, word by word. */
export function referenceSum(b: Uint8Array, start: number, end: number, seed = 0): number {
  let sum = seed;
  for (let i = start; i < end; i += 2) sum += (b[i]! << 8) | (i + 1 < end ? b[i + 1]! : 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return sum;
}

/** Sum of the pseudo header of a packet whose IP header starts at `l3`; the addresses are where they always are. */
export function referencePseudo(b: Uint8Array, l3: number, family: number, protocol: number, l4Bytes: number): number {
  const addresses = family === 4 ? referenceSum(b, l3 + 12, l3 + 20) : referenceSum(b, l3 + 8, l3 + 40);
  return referenceSum(new Uint8Array(0), 0, 0, addresses + protocol + (l4Bytes >>> 16) + (l4Bytes & 0xffff));
}

export const EXTENSIONS = [0, 60, 43, 135, 51] as const;

/** A whole packet with right lengths and checksums. */
export function buildPacket(spec: PacketSpec): Packet {
  const l3 = spec.tag === undefined ? 14 : 18;
  const words = spec.ipOptions;
  const extensions = spec.family === 6 ? Math.min(words, EXTENSIONS.length) : 0;
  const ipHeader = spec.family === 4 ? 20 + words * 4 : 40 + extensions * 16;
  const l4 = l3 + ipHeader;
  const payloadAt = l4 + (spec.protocol === 6 ? 20 + spec.tcpOptions * 4 : 8);
  const bytes = new Uint8Array(payloadAt + spec.payload);
  fill(bytes, spec.seed);
  if (spec.tag !== undefined) {
    put16(bytes, 12, 0x8100);
    put16(bytes, 14, spec.tag);
  }
  put16(bytes, l3 - 2, spec.family === 4 ? 0x0800 : 0x86dd);
  const l4Bytes = bytes.length - l4;
  if (spec.family === 4) {
    bytes[l3] = 0x40 | (ipHeader / 4);
    put16(bytes, l3 + 2, bytes.length - l3);
    put16(bytes, l3 + 6, 0x4000);
    bytes[l3 + 9] = spec.protocol;
    for (let i = l3 + 20; i < l4; i++) bytes[i] = 1; // no-operation options
    put16(bytes, l3 + 10, 0);
    put16(bytes, l3 + 10, ~referenceSum(bytes, l3, l4));
  } else {
    bytes[l3] = 0x60;
    put16(bytes, l3 + 4, bytes.length - l3 - 40);
    bytes[l3 + 6] = extensions > 0 ? EXTENSIONS[0] : spec.protocol;
    for (let i = 0; i < extensions; i++) {
      const at = l3 + 40 + i * 16;
      bytes[at] = i + 1 < extensions ? EXTENSIONS[i + 1]! : spec.protocol;
      bytes[at + 1] = EXTENSIONS[i] === 51 ? 2 : 1;
      bytes[at + 3] = 0; // routing header: no segments left
      if (EXTENSIONS[i] === 0 || EXTENSIONS[i] === 60) bytes.fill(0, at + 4, at + 16).set([1, 12], at + 2); // PadN option
    }
  }
  if (spec.protocol === 6) {
    bytes[l4 + 12] = (5 + spec.tcpOptions) << 4;
    bytes[l4 + 13] = spec.tcpFlags;
  } else {
    put16(bytes, l4 + 4, l4Bytes);
  }
  const field = l4 + (spec.protocol === 6 ? 16 : 6);
  put16(bytes, field, 0);
  const pseudo = referencePseudo(bytes, l3, spec.family, spec.protocol, l4Bytes);
  const sum = ~referenceSum(bytes, l4, bytes.length, pseudo) & 0xffff;
  put16(bytes, field, spec.protocol === 17 && sum === 0 ? 0xffff : sum);
  return { bytes, l3, l4, payloadAt, spec };
}

/** Offset of the checksum field in the packet. */
export const checksumField = (p: Packet) => p.l4 + (p.spec.protocol === 6 ? 16 : 6);

/** Flags and kinds of segmentation in a virtio_net_hdr. */
export const NEEDS_CSUM = 1;
export const DATA_VALID = 2;
export const GSO = { TCPV4: 1, UDP: 3, TCPV6: 4, UDP_L4: 5, ECN: 0x80 } as const;

/** The 12 bytes of a virtio_net_hdr with num_buffers. */
export const vnetHeader = (flags: number, gso = 0, mss = 0, start = 0, field = 0, headerLength = 0) => [
  ...[flags, gso, headerLength & 255, headerLength >> 8, mss & 255, mss >> 8],
  ...[start & 255, start >> 8, field & 255, field >> 8, 0, 0],
];

const { IPV4, IPV6, TCP, UDP, TX_TCP_CHECKSUM, TX_UDP_CHECKSUM } = PACKET_FLAG;

/** PACKET_FLAG bits that say what it is, and the one that asks for its checksum. */
export const familyFlags = (p: Packet) => (p.spec.family === 4 ? IPV4 : IPV6) | (p.spec.protocol === 6 ? TCP : UDP);
export const checksumFlag = (p: Packet) => (p.spec.protocol === 6 ? TX_TCP_CHECKSUM : TX_UDP_CHECKSUM);
export const gsoType = (s: PacketSpec) => (s.protocol === 17 ? GSO.UDP_L4 : s.family === 4 ? GSO.TCPV4 : GSO.TCPV6);

/** The packet as Linux hands over a partial checksum: the pseudo header's sum in the field. */
export function partial(p: Packet): Uint8Array {
  const bytes = p.bytes.slice();
  const l4Bytes = bytes.length - p.l4;
  put16(bytes, checksumField(p), referencePseudo(bytes, p.l3, p.spec.family, p.spec.protocol, l4Bytes));
  return bytes;
}

/** With an 802.1Q tag, or another one. */
export const tagged = (bytes: Uint8Array, tci: number, tpid = 0x8100) =>
  Uint8Array.from([...bytes.subarray(0, 12), tpid >> 8, tpid & 255, tci >> 8, tci & 255, ...bytes.subarray(12)]);
