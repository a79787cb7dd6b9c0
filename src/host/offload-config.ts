// Task offloads between NDIS's structures and OFFLOAD bits, and receive-side scaling parameters
// (facts/hyper-v-host.md 4.5 and 5).
import { OFFLOAD } from '../memory/layout.js';
import {
  encodeNdisOffload,
  NDIS_CHECKSUM_IPV4,
  NDIS_CHECKSUM_IPV6,
  NDIS_ENCAPSULATION,
  NDIS_HASH_FUNCTION_MASK,
  NDIS_HASH_TYPE,
  NDIS_LSO_IPV6,
  NDIS_OBJECT,
  NDIS_OFFLOAD_PARAMETERS_SIZE,
  NDIS_PARAMETER_CHECKSUM,
  NDIS_PARAMETER_SWITCH,
  NDIS_RSS_FLAG,
  NDIS_RSS_KEY_BYTES,
  NdisObjectHeader,
  NdisOffloadParameters,
  type NdisRevision,
  NdisRssParameters,
} from '../wire/ndis.js';
import { RNDIS_STATUS as STATUS } from '../wire/rndis.js';
import type { OffloadSupport } from './profiles.js';

const { TX, RX, TX_RX, OFF } = NDIS_PARAMETER_CHECKSUM;
const { ON } = NDIS_PARAMETER_SWITCH;
/** Largest LSO send, and fewest segments that make one (facts/hyper-v-host.md 4.5). */
const LSO_MAX_BYTES = 62_780;
const LSO_MIN_SEGMENTS = 2;

/** Each checksum kind of an offload parameters object: its bits. */
const CHECKSUMS = [
  { parameter: 'ipv4Checksum', tx: OFFLOAD.IPV4_HEADER_TX, rx: OFFLOAD.IPV4_HEADER_RX, name: '*IPChecksumOffloadIPv4' },
  { parameter: 'tcpIpv4Checksum', tx: OFFLOAD.TCP4_TX, rx: OFFLOAD.TCP4_RX, name: '*TCPChecksumOffloadIPv4' },
  { parameter: 'udpIpv4Checksum', tx: OFFLOAD.UDP4_TX, rx: OFFLOAD.UDP4_RX, name: '*UDPChecksumOffloadIPv4' },
  { parameter: 'tcpIpv6Checksum', tx: OFFLOAD.TCP6_TX, rx: OFFLOAD.TCP6_RX, name: '*TCPChecksumOffloadIPv6' },
  { parameter: 'udpIpv6Checksum', tx: OFFLOAD.UDP6_TX, rx: OFFLOAD.UDP6_RX, name: '*UDPChecksumOffloadIPv6' },
] as const;

const LSO = [
  { parameter: 'lsoV2Ipv4', bit: OFFLOAD.LSO4, name: '*LsoV2IPv4' },
  { parameter: 'lsoV2Ipv6', bit: OFFLOAD.LSO6, name: '*LsoV2IPv6' },
] as const;

/** All that this host can do for a guest. */
export function supportedOffloads(support: OffloadSupport, rsc: boolean): number {
  const kinds: readonly [boolean, number][] = [
    [support.ipv4Header, OFFLOAD.IPV4_HEADER_TX | OFFLOAD.IPV4_HEADER_RX],
    [support.tcp4, OFFLOAD.TCP4_TX | OFFLOAD.TCP4_RX],
    [support.tcp6, OFFLOAD.TCP6_TX | OFFLOAD.TCP6_RX],
    [support.udp4, OFFLOAD.UDP4_TX | OFFLOAD.UDP4_RX],
    [support.udp6, OFFLOAD.UDP6_TX | OFFLOAD.UDP6_RX],
    [support.lso4, OFFLOAD.LSO4],
    [support.lso6, OFFLOAD.LSO6],
    [rsc, OFFLOAD.RSC],
  ];
  return kinds.reduce((bits, [can, bit]) => (can ? bits | bit : bits), OFFLOAD.VLAN as number);
}

/** NDIS_OFFLOAD that announces these OFFLOAD bits; revision 1 has 112 bytes, 2 has 144, 3 has 156. */
export function offloadStructure(bits: number, revision: NdisRevision): Uint8Array {
  const has = (bit: number) => (bits & bit) !== 0;
  const checksum4 = (ip: number, tcp: number, udp: number) =>
    (has(ip) ? NDIS_CHECKSUM_IPV4.IP | NDIS_CHECKSUM_IPV4.IP_OPTIONS : 0) |
    (has(tcp) ? NDIS_CHECKSUM_IPV4.TCP | NDIS_CHECKSUM_IPV4.TCP_OPTIONS | NDIS_CHECKSUM_IPV4.IP_OPTIONS : 0) |
    (has(udp) ? NDIS_CHECKSUM_IPV4.UDP | NDIS_CHECKSUM_IPV4.IP_OPTIONS : 0);
  const checksum6 = (tcp: number, udp: number) =>
    (has(tcp) ? NDIS_CHECKSUM_IPV6.TCP | NDIS_CHECKSUM_IPV6.TCP_OPTIONS | NDIS_CHECKSUM_IPV6.EXTENSION_HEADERS : 0) |
    (has(udp) ? NDIS_CHECKSUM_IPV6.UDP | NDIS_CHECKSUM_IPV6.EXTENSION_HEADERS : 0);
  const { IEEE_802_3 } = NDIS_ENCAPSULATION;
  const lso4 = {
    lsoV2Ipv4Encapsulation: IEEE_802_3,
    lsoV2Ipv4MaxOffloadSize: LSO_MAX_BYTES,
    lsoV2Ipv4MinSegmentCount: LSO_MIN_SEGMENTS,
  };
  const lso6 = {
    lsoV2Ipv6Encapsulation: IEEE_802_3,
    lsoV2Ipv6MaxOffloadSize: LSO_MAX_BYTES,
    lsoV2Ipv6MinSegmentCount: LSO_MIN_SEGMENTS,
    lsoV2Ipv6Flags: NDIS_LSO_IPV6.EXTENSION_HEADERS | NDIS_LSO_IPV6.TCP_OPTIONS,
  };
  return encodeNdisOffload(
    {
      checksumIpv4TxEncapsulation: IEEE_802_3,
      checksumIpv4Tx: checksum4(OFFLOAD.IPV4_HEADER_TX, OFFLOAD.TCP4_TX, OFFLOAD.UDP4_TX),
      checksumIpv4RxEncapsulation: IEEE_802_3,
      checksumIpv4Rx: checksum4(OFFLOAD.IPV4_HEADER_RX, OFFLOAD.TCP4_RX, OFFLOAD.UDP4_RX),
      checksumIpv6TxEncapsulation: IEEE_802_3,
      checksumIpv6Tx: checksum6(OFFLOAD.TCP6_TX, OFFLOAD.UDP6_TX),
      checksumIpv6RxEncapsulation: IEEE_802_3,
      checksumIpv6Rx: checksum6(OFFLOAD.TCP6_RX, OFFLOAD.UDP6_RX),
      ...(has(OFFLOAD.LSO4) ? lso4 : {}),
      ...(has(OFFLOAD.LSO6) ? lso6 : {}),
      rscIpv4: has(OFFLOAD.RSC) ? 1 : 0,
      rscIpv6: has(OFFLOAD.RSC) ? 1 : 0,
    },
    revision,
  );
}

/** An OID answer: a status, and the OFFLOAD bits that follow from it (the old ones after an error). */
export interface OffloadAnswer {
  readonly status: number;
  readonly offloads: number;
}

/**
 * OID_TCP_OFFLOAD_PARAMETERS. Nothing is changed unless every value is legal; what the host cannot do stays off without
 * an error, as on the real host, and the indication that follows tells the guest.
 */
export function setOffloadParameters(data: Uint8Array, offloads: number, supported: number): OffloadAnswer {
  const { type, revision, size } = NdisObjectHeader.decode(data);
  if (type !== NDIS_OBJECT.DEFAULT || revision < 1 || size < NDIS_OFFLOAD_PARAMETERS_SIZE[1] || data.length < size) {
    return { status: STATUS.INVALID_DATA, offloads };
  }
  // The size decides, not the revision: Linux sends revision 3 cut to 22 bytes to older hosts (facts/linux-guest.md 2.1).
  const whole = new Uint8Array(NdisOffloadParameters.size);
  whole.set(data.subarray(0, Math.min(size, whole.length)));
  const parameters = NdisOffloadParameters.decode(whole);
  if (parameters.lsoV1 === ON) return { status: STATUS.NOT_SUPPORTED, offloads };
  const switches: [number, number][] = LSO.map(({ parameter, bit }) => [parameters[parameter], bit]);
  const { rscIpv4, rscIpv6 } = parameters;
  const illegal =
    CHECKSUMS.some(({ parameter }) => parameters[parameter] > TX_RX) ||
    [...switches.map(([value]) => value), rscIpv4, rscIpv6].some((value) => value > ON);
  if (illegal) return { status: STATUS.INVALID_DATA, offloads };
  let bits = offloads;
  for (const { parameter, tx, rx } of CHECKSUMS) {
    const value = parameters[parameter];
    if (value === NDIS_PARAMETER_CHECKSUM.NO_CHANGE) continue;
    bits &= ~(tx | rx);
    if (value === TX || value === TX_RX) bits |= tx;
    if (value === RX || value === TX_RX) bits |= rx;
  }
  // Coalescing is one switch for both families, as guests have it.
  const rsc = rscIpv4 === OFF || rscIpv6 === OFF ? OFF : rscIpv4 === ON && rscIpv6 === ON ? ON : 0;
  switches.push([rsc, OFFLOAD.RSC]);
  for (const [value, bit] of switches) {
    if (value === ON) bits |= bit;
    else if (value === OFF) bits &= ~bit;
  }
  return { status: STATUS.SUCCESS, offloads: bits & supported };
}

/** A configuration parameter by its registry keyword: bit 0 of a checksum's value is TX, bit 1 RX; LSO is on unless 0. */
export function setOffloadKeyword(name: string, value: number, offloads: number, supported: number): number {
  let bits = offloads;
  for (const { name: keyword, tx, rx } of CHECKSUMS) {
    if (name !== keyword) continue;
    bits &= ~(tx | rx);
    if (value & 1) bits |= tx;
    if (value & 2) bits |= rx;
  }
  for (const { name: keyword, bit } of LSO) {
    if (name === keyword) bits = value !== 0 ? bits | bit : bits & ~bit;
  }
  return bits & supported;
}

/** What OID_GEN_RECEIVE_SCALE_PARAMETERS set. */
export interface RssState {
  readonly hashInformation: number;
  readonly key: Uint8Array;
  readonly table: readonly number[];
}

/** Entries of the adapter's table: a shorter one is repeated, a longer one cut. */
export const RSS_TABLE_ENTRIES = 128;

const UDP_TYPES = NDIS_HASH_TYPE.UDP_IPV4 | NDIS_HASH_TYPE.UDP_IPV6 | NDIS_HASH_TYPE.UDP_IPV6_EX;

/** OID_GEN_RECEIVE_SCALE_PARAMETERS. `state` is the old one after an error, undefined when scaling is off. `udp`: this host hashes UDP by
 *  ports; others leave these types out without an error, as they look at none of them. */
export function setRss(
  data: Uint8Array,
  state: RssState | undefined,
  maxQueues: number,
  udp = true,
): { readonly status: number; readonly state: RssState | undefined } {
  // Hosts do not look at the object header (facts/hyper-v-host.md 5).
  const head = data.slice(0, NdisRssParameters.size);
  head[NdisRssParameters.offset.type] = NDIS_OBJECT.RSS_PARAMETERS;
  const fixed = NdisRssParameters.decode(head);
  const hashInformation = udp ? fixed.hashInformation : fixed.hashInformation & ~UDP_TYPES;
  const { indirectionTableSize: tableBytes, hashSecretKeySize: keyBytes } = fixed;
  if ((fixed.flags & NDIS_RSS_FLAG.DISABLE_RSS) !== 0 || (hashInformation & NDIS_HASH_FUNCTION_MASK) === 0) {
    return { status: STATUS.SUCCESS, state: undefined };
  }
  if (keyBytes !== NDIS_RSS_KEY_BYTES || tableBytes === 0 || tableBytes % 4 !== 0) {
    return { status: STATUS.INVALID_DATA, state };
  }
  const { indirectionTableOffset: tableAt, hashSecretKeyOffset: keyAt } = fixed;
  if (keyAt + keyBytes > data.length || tableAt + tableBytes > data.length) return { status: STATUS.FAILURE, state };
  const entries = Math.min(tableBytes / 4, RSS_TABLE_ENTRIES);
  const view = new DataView(data.buffer, data.byteOffset + tableAt, entries * 4);
  const given = Array.from({ length: entries }, (_, i) => view.getUint32(i * 4, true));
  if (given.some((queue) => queue >= maxQueues)) return { status: STATUS.INVALID_DATA, state };
  const table = Array.from({ length: RSS_TABLE_ENTRIES }, (_, i) => given[i % entries]!);
  return { status: STATUS.SUCCESS, state: { hashInformation, key: data.slice(keyAt, keyAt + keyBytes), table } };
}
