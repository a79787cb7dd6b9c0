// Which offloads are used: from what the host can do to OFFLOAD bits, and from these to the parameters that switch them on
// (facts/linux-guest.md 1.2, hyper-v-host.md 4.5). A family's checksum counts only when the host covers its options, too;
// LSO only with that family's TCP checksum.
import { OFFLOAD } from '../memory/layout.js';
import {
  NDIS_PARAMETER_CHECKSUM as CHECKSUM,
  decodeNdisOffload,
  NDIS_ENCAPSULATION,
  NDIS_LSO_IPV6,
  NDIS_OFFLOAD_PARAMETERS_SIZE,
  NdisOffloadParameters,
  NDIS_PARAMETER_SWITCH as SWITCH,
  NDIS_CHECKSUM_IPV4 as V4,
  NDIS_CHECKSUM_IPV6 as V6,
} from '../wire/ndis.js';
import { NVSP_VERSION } from '../wire/nvsp.js';
import { WireError } from '../wire/struct.js';
import { NetvscError } from './requests.js';

/** Largest packet that LSO may be asked for (facts/linux-guest.md 1.1). */
const MAX_LSO_BYTES = 65_536;
/** RNDIS header, per-packet infos and slack that ride along with the data. */
const MESSAGE_OVERHEAD_BYTES = 256;

type Offload = ReturnType<typeof decodeNdisOffload>;

export interface Grant {
  /** OFFLOAD bits. */
  readonly bits: number;
  /** Largest LSO send in bytes, 0 = none. */
  readonly lsoMax4: number;
  readonly lsoMax6: number;
}

interface Limits {
  readonly nvspVersion: number;
  readonly rsc: boolean;
  readonly maxTransferBytes: number;
}

/** What of an NDIS_OFFLOAD is used. Throws NetvscError when it is none; `where` names the device. */
export function grantOffloads(where: string, capabilities: Uint8Array, limits: Limits): Grant {
  let offload: Offload;
  try {
    offload = decodeNdisOffload(capabilities);
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    throw new NetvscError(where, 'RNDIS query offload capabilities', error.message);
  }
  let bits = bitsOf(offload);
  if (limits.nvspVersion < NVSP_VERSION.V5) {
    bits &= ~(OFFLOAD.UDP4_TX | OFFLOAD.UDP6_TX | OFFLOAD.UDP4_RX | OFFLOAD.UDP6_RX);
  }
  if (limits.nvspVersion >= NVSP_VERSION.V2) bits |= OFFLOAD.VLAN;
  if (!limits.rsc || limits.nvspVersion < NVSP_VERSION.V61) bits &= ~OFFLOAD.RSC;
  const most = Math.min(MAX_LSO_BYTES, limits.maxTransferBytes - MESSAGE_OVERHEAD_BYTES);
  const lsoMax4 = bits & OFFLOAD.LSO4 ? Math.min(most, offload.lsoV2Ipv4MaxOffloadSize) : 0;
  const lsoMax6 = bits & OFFLOAD.LSO6 ? Math.min(most, offload.lsoV2Ipv6MaxOffloadSize) : 0;
  return { bits, lsoMax4, lsoMax6 };
}

/** OFFLOAD bits that the host says are on now, VLAN included (it is no part of this). Undefined: malformed. */
export function offloadsInForce(current: Uint8Array): number | undefined {
  try {
    return bitsOf(decodeNdisOffload(current)) | OFFLOAD.VLAN;
  } catch (error) {
    if (error instanceof WireError) return undefined;
    throw error;
  }
}

/** NDIS_OFFLOAD_PARAMETERS, revision 3, that switch on what `bits` say and everything else off. */
export function offloadParameters(bits: number, nvspVersion: number): Uint8Array {
  const checksum = (tx: number, rx: number): number => {
    if (bits & tx) return bits & rx ? CHECKSUM.TX_RX : CHECKSUM.TX;
    return bits & rx ? CHECKSUM.RX : CHECKSUM.OFF;
  };
  const on = (bit: number): number => (bits & bit ? SWITCH.ON : SWITCH.OFF);
  const old = nvspVersion < NVSP_VERSION.V5;
  const objectSize = NDIS_OFFLOAD_PARAMETERS_SIZE[old ? 2 : 3];
  const parameters = NdisOffloadParameters.encode({
    revision: 3,
    objectSize,
    ipv4Checksum: checksum(OFFLOAD.IPV4_HEADER_TX, OFFLOAD.IPV4_HEADER_RX),
    tcpIpv4Checksum: checksum(OFFLOAD.TCP4_TX, OFFLOAD.TCP4_RX),
    udpIpv4Checksum: old ? CHECKSUM.NO_CHANGE : checksum(OFFLOAD.UDP4_TX, OFFLOAD.UDP4_RX),
    tcpIpv6Checksum: checksum(OFFLOAD.TCP6_TX, OFFLOAD.TCP6_RX),
    udpIpv6Checksum: old ? CHECKSUM.NO_CHANGE : checksum(OFFLOAD.UDP6_TX, OFFLOAD.UDP6_RX),
    lsoV2Ipv4: on(OFFLOAD.LSO4),
    lsoV2Ipv6: on(OFFLOAD.LSO6),
    rscIpv4: on(OFFLOAD.RSC),
    rscIpv6: on(OFFLOAD.RSC),
  });
  return parameters.subarray(0, objectSize);
}

function bitsOf(offload: Offload): number {
  const has = (where: number, flags: number, wanted: number): boolean =>
    (where & NDIS_ENCAPSULATION.IEEE_802_3) !== 0 && (flags & wanted) === wanted;
  let bits = 0;
  const ipv4 = (transmit: number, receive: number, tx: number, rx: number): void => {
    if (has(offload.checksumIpv4TxEncapsulation, offload.checksumIpv4Tx, transmit)) bits |= tx;
    if (has(offload.checksumIpv4RxEncapsulation, offload.checksumIpv4Rx, receive)) bits |= rx;
  };
  const ipv6 = (transmit: number, receive: number, tx: number, rx: number): void => {
    if (has(offload.checksumIpv6TxEncapsulation, offload.checksumIpv6Tx, transmit)) bits |= tx;
    if (has(offload.checksumIpv6RxEncapsulation, offload.checksumIpv6Rx, receive)) bits |= rx;
  };
  ipv4(V4.IP | V4.IP_OPTIONS, V4.IP, OFFLOAD.IPV4_HEADER_TX, OFFLOAD.IPV4_HEADER_RX);
  ipv4(V4.TCP | V4.TCP_OPTIONS, V4.TCP, OFFLOAD.TCP4_TX, OFFLOAD.TCP4_RX);
  ipv4(V4.UDP, V4.UDP, OFFLOAD.UDP4_TX, OFFLOAD.UDP4_RX);
  ipv6(V6.TCP | V6.TCP_OPTIONS | V6.EXTENSION_HEADERS, V6.TCP, OFFLOAD.TCP6_TX, OFFLOAD.TCP6_RX);
  ipv6(V6.UDP, V6.UDP, OFFLOAD.UDP6_TX, OFFLOAD.UDP6_RX);
  if (bits & OFFLOAD.TCP4_TX && has(offload.lsoV2Ipv4Encapsulation, 0, 0)) bits |= OFFLOAD.LSO4;
  const options = NDIS_LSO_IPV6.EXTENSION_HEADERS | NDIS_LSO_IPV6.TCP_OPTIONS;
  if (bits & OFFLOAD.TCP6_TX && has(offload.lsoV2Ipv6Encapsulation, offload.lsoV2Ipv6Flags, options)) {
    bits |= OFFLOAD.LSO6;
  }
  if (offload.rscIpv4 === 1 && offload.rscIpv6 === 1) bits |= OFFLOAD.RSC;
  return bits;
}
