// NDIS task offload: what the host can do, and what the guest asks for (facts/hyper-v-host.md 4.5, dpdk.md 2.3 and 2.5).
import { reserved, struct, u8, u16, u32, WireError } from './struct.js';

/** Two-bit fields; 1 = supported. */
export const NDIS_CHECKSUM_IPV4 = { IP_OPTIONS: 0x1, TCP_OPTIONS: 0x4, TCP: 0x10, UDP: 0x40, IP: 0x100 } as const;
export const NDIS_CHECKSUM_IPV6 = { EXTENSION_HEADERS: 0x1, TCP_OPTIONS: 0x4, TCP: 0x10, UDP: 0x40 } as const;
export const NDIS_LSO_IPV6 = { EXTENSION_HEADERS: 0x1, TCP_OPTIONS: 0x4 } as const;
export const NDIS_ENCAPSULATION = { NOT_SUPPORTED: 0, NULL: 1, IEEE_802_3: 2 } as const;

/** Bytes of NDIS_OFFLOAD by revision: NDIS 6.0, 6.1, 6.30. */
export const NDIS_OFFLOAD_SIZE = { 1: 112, 2: 144, 3: 156 } as const;
/** Bytes of NDIS_OFFLOAD_PARAMETERS by revision. */
export const NDIS_OFFLOAD_PARAMETERS_SIZE = { 1: 20, 2: 22, 3: 28 } as const;

export type NdisRevision = 1 | 2 | 3;

const encapsulation = (offset: number, doc: string) =>
  u32(offset, doc, { flags: { NULL: 1, IEEE_802_3: 2 }, default: 0 });
const checksum4 = (offset: number, doc: string) => u32(offset, doc, { flags: NDIS_CHECKSUM_IPV4, default: 0 });
const checksum6 = (offset: number, doc: string) => u32(offset, doc, { flags: NDIS_CHECKSUM_IPV6, default: 0 });

/** Revision 3; older ones end at NDIS_OFFLOAD_SIZE. */
export const NdisOffload = struct('NDIS_OFFLOAD', {
  type: u8(0, 'object type', { equals: 0xa7 }),
  revision: u8(1, 'revision 1..3'),
  objectSize: u16(2, 'bytes by revision', { unit: 'bytes' }),
  checksumIpv4TxEncapsulation: encapsulation(4, 'where IPv4 transmit checksums work'),
  checksumIpv4Tx: checksum4(8, 'IPv4 transmit checksums'),
  checksumIpv4RxEncapsulation: encapsulation(12, 'where IPv4 receive checksums work'),
  checksumIpv4Rx: checksum4(16, 'IPv4 receive checksums'),
  checksumIpv6TxEncapsulation: encapsulation(20, 'where IPv6 transmit checksums work'),
  checksumIpv6Tx: checksum6(24, 'IPv6 transmit checksums'),
  checksumIpv6RxEncapsulation: encapsulation(28, 'where IPv6 receive checksums work'),
  checksumIpv6Rx: checksum6(32, 'IPv6 receive checksums'),
  lsoV1: reserved(36, 16),
  ipsecV1: reserved(52, 28),
  lsoV2Ipv4Encapsulation: encapsulation(80, 'where IPv4 segmentation works'),
  lsoV2Ipv4MaxOffloadSize: u32(84, 'most payload in one send', { unit: 'bytes', default: 0 }),
  lsoV2Ipv4MinSegmentCount: u32(88, 'fewest segments', { default: 0 }),
  lsoV2Ipv6Encapsulation: encapsulation(92, 'where IPv6 segmentation works'),
  lsoV2Ipv6MaxOffloadSize: u32(96, 'most payload in one send', { unit: 'bytes', default: 0 }),
  lsoV2Ipv6MinSegmentCount: u32(100, 'fewest segments', { default: 0 }),
  lsoV2Ipv6Flags: u32(104, 'extension headers and TCP options with IPv6 segmentation', {
    flags: NDIS_LSO_IPV6,
    default: 0,
  }),
  flags: u32(108, 'zero', { hex: true, default: 0 }),
  ipsecV2: { ...reserved(112, 32), options: { default: new Uint8Array(32), since: 'revision 2' } },
  rscIpv4: u8(144, '1 = receive-side coalescing of IPv4', { since: 'revision 3', default: 0 }),
  rscIpv6: u8(145, '1 = receive-side coalescing of IPv6', { since: 'revision 3', default: 0 }),
  reserved: u16(146, 'padding', { since: 'revision 3', default: 0 }),
  encapsulatedPackets: { ...reserved(148, 8), options: { default: new Uint8Array(8), since: 'revision 3' } },
});

/** Checksum settings of NDIS_OFFLOAD_PARAMETERS. */
export const NDIS_PARAMETER_CHECKSUM = { NO_CHANGE: 0, OFF: 1, TX: 2, RX: 3, TX_RX: 4 } as const;
/** LSO and RSC settings of NDIS_OFFLOAD_PARAMETERS. */
export const NDIS_PARAMETER_SWITCH = { NO_CHANGE: 0, OFF: 1, ON: 2 } as const;

const checksumSetting = (offset: number, doc: string) =>
  u8(offset, doc, { names: NDIS_PARAMETER_CHECKSUM, default: 0 });
const onOff = (offset: number, doc: string, since = 'revision 1') =>
  u8(offset, doc, { names: NDIS_PARAMETER_SWITCH, default: 0, since });

/** Set with TCP_OFFLOAD_PARAMETERS. Revision 3; older ones end at NDIS_OFFLOAD_PARAMETERS_SIZE. */
export const NdisOffloadParameters = struct('NDIS_OFFLOAD_PARAMETERS', {
  type: u8(0, 'object type', { equals: 0x80 }),
  revision: u8(1, 'revision 1..3'),
  objectSize: u16(2, 'bytes by revision', { unit: 'bytes' }),
  ipv4Checksum: checksumSetting(4, 'IPv4 header checksum'),
  tcpIpv4Checksum: checksumSetting(5, 'TCP over IPv4'),
  udpIpv4Checksum: checksumSetting(6, 'UDP over IPv4'),
  tcpIpv6Checksum: checksumSetting(7, 'TCP over IPv6'),
  udpIpv6Checksum: checksumSetting(8, 'UDP over IPv6'),
  lsoV1: onOff(9, 'LSO version 1: hosts refuse to turn it on'),
  ipsecV1: u8(10, 'zero', { default: 0 }),
  lsoV2Ipv4: onOff(11, 'LSO version 2, IPv4'),
  lsoV2Ipv6: onOff(12, 'LSO version 2, IPv6'),
  tcpConnectionIpv4: u8(13, 'zero', { default: 0 }),
  tcpConnectionIpv6: u8(14, 'zero', { default: 0 }),
  reserved: u8(15, 'padding', { default: 0 }),
  flags: u32(16, 'zero', { hex: true, default: 0 }),
  ipsecV2: u8(20, 'zero', { since: 'revision 2', default: 0 }),
  ipsecV2Ipv4: u8(21, 'zero', { since: 'revision 2', default: 0 }),
  rscIpv4: onOff(22, 'receive-side coalescing, IPv4', 'revision 3'),
  rscIpv6: onOff(23, 'receive-side coalescing, IPv6', 'revision 3'),
  encapsulatedPacketTaskOffload: u8(24, 'zero', { since: 'revision 3', default: 0 }),
  encapsulationTypes: u8(25, 'zero', { since: 'revision 3', default: 0 }),
  reserved2: u16(26, 'padding', { since: 'revision 3', default: 0 }),
});

/** Answer to, and set of, OFFLOAD_ENCAPSULATION: type 2 (802.3) with a header of 14 bytes. */
export const NdisOffloadEncapsulation = struct('NDIS_OFFLOAD_ENCAPSULATION', {
  type: u8(0, 'object type', { equals: 0xa8 }),
  revision: u8(1, 'revision: 1'),
  objectSize: u16(2, '28', { unit: 'bytes' }),
  ipv4Enabled: u32(4, '1 = on'),
  ipv4EncapsulationType: u32(8, 'type', { names: NDIS_ENCAPSULATION }),
  ipv4HeaderSize: u32(12, 'bytes before the IP header', { unit: 'bytes' }),
  ipv6Enabled: u32(16, '1 = on'),
  ipv6EncapsulationType: u32(20, 'type', { names: NDIS_ENCAPSULATION }),
  ipv6HeaderSize: u32(24, 'bytes before the IP header', { unit: 'bytes' }),
});

export const NDIS_OFFLOAD_TABLES = [NdisOffload, NdisOffloadParameters, NdisOffloadEncapsulation] as const;

type Offload = Parameters<typeof NdisOffload.encode>[0];
type Parameters3 = Parameters<typeof NdisOffloadParameters.encode>[0];

/** NDIS_OFFLOAD of a revision; what the revision lacks is dropped. */
export function encodeNdisOffload(
  value: Omit<Offload, 'revision' | 'objectSize'>,
  revision: NdisRevision,
): Uint8Array<ArrayBuffer> {
  const objectSize = NDIS_OFFLOAD_SIZE[revision];
  return NdisOffload.encode({ ...value, revision, objectSize }).slice(0, objectSize);
}

/** What is sent with the query of TCP_OFFLOAD_HARDWARE_CAPABILITIES: the header, and zeros up to the revision's size. */
export function encodeNdisOffloadQuery(revision: NdisRevision): Uint8Array<ArrayBuffer> {
  return encodeNdisOffload({}, revision);
}

export function encodeNdisOffloadParameters(
  value: Omit<Parameters3, 'revision' | 'objectSize'>,
  revision: NdisRevision,
): Uint8Array<ArrayBuffer> {
  const objectSize = NDIS_OFFLOAD_PARAMETERS_SIZE[revision];
  return NdisOffloadParameters.encode({ ...value, revision, objectSize }).slice(0, objectSize);
}

/**
 * The first `size` bytes as the header announces them, zeros up to the newest revision; fields of the header beyond
 * what came are WireErrors. A higher revision than 3 reads as 3: it only appends.
 */
function widen(
  layout: { name: string; size: number },
  sizes: Readonly<Record<NdisRevision, number>>,
  bytes: Uint8Array,
): Uint8Array {
  if (bytes.length < 4) throw new WireError(layout.name, '', `expected at least 4 bytes, got ${bytes.length}`);
  const revision = bytes[1]!;
  const objectSize = bytes[2]! | (bytes[3]! << 8);
  if (revision === 0) throw new WireError(layout.name, 'revision', 'expected 1 or more, got 0');
  const least = sizes[Math.min(revision, 3) as NdisRevision];
  if (objectSize < least || objectSize > bytes.length) {
    throw new WireError(layout.name, 'objectSize', `expected ${least}..${bytes.length} bytes, got ${objectSize}`);
  }
  const whole = new Uint8Array(layout.size);
  whole.set(bytes.subarray(0, Math.min(objectSize, layout.size)));
  return whole;
}

/** Any revision; fields that its revision lacks are zero. Throws WireError. */
export function decodeNdisOffload(bytes: Uint8Array): ReturnType<typeof NdisOffload.decode> {
  return NdisOffload.decode(widen(NdisOffload, NDIS_OFFLOAD_SIZE, bytes));
}

/** Any revision; fields that its revision lacks are zero, which means "no change". Throws WireError. */
export function decodeNdisOffloadParameters(bytes: Uint8Array): ReturnType<typeof NdisOffloadParameters.decode> {
  // Linux at NVSP 4 and below sends revision 3 cut to 22 bytes (facts/linux-guest.md 2.1), so the size alone counts.
  const least = NDIS_OFFLOAD_PARAMETERS_SIZE[1];
  return NdisOffloadParameters.decode(widen(NdisOffloadParameters, { 1: least, 2: least, 3: least }, bytes));
}
