// Which offloads are used: from what the host can do to OFFLOAD bits, and from these to the parameters that switch them on
// (facts/linux-guest.md 1.2, hyper-v-host.md 4.5). A family's checksum counts only when the host covers its options, too;
// LSO only with that family's TCP checksum.
import { OFFLOAD } from '../memory/layout.js';
import { type NDIS_OFFLOAD, NDIS_OFFLOAD_PARAMETERS } from '../wire/ndis.js';

const OBJECT_OFFLOAD = 0xa7;
const OBJECT_DEFAULT = 0x80;
/** Size of NDIS_OFFLOAD of revision 1; later ones are longer. */
const MIN_BYTES = 112;
/** RSC answers are in the structure up to here (revision 3). */
const RSC_BYTES = 148;
const ENCAPSULATION_8023 = 2;
/** Largest packet that LSO may be asked for, Ethernet header included (a 16-bit IP length and a little). */
const MAX_LSO_BYTES = 65_536;
/** RNDIS header, per-packet infos and slack that ride along with the data. */
const MESSAGE_OVERHEAD_BYTES = 256;

// Two bits each; 1 = supported.
const V4 = { IP_OPTIONS: 0x1, TCP_OPTIONS: 0x4, TCP: 0x10, UDP: 0x40, IP: 0x100 } as const;
const V6 = { EXTENSION_HEADERS: 0x1, TCP_OPTIONS: 0x4, TCP: 0x10, UDP: 0x40 } as const;
const LSO_V6 = { EXTENSION_HEADERS: 0x1, TCP_OPTIONS: 0x4 } as const;

/** Values of a checksum parameter. */
const CHECKSUM = { NO_CHANGE: 0, OFF: 1, TX: 2, RX: 3, BOTH: 4 } as const;
const SWITCH = { NO_CHANGE: 0, OFF: 1, ON: 2 } as const;

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

/** What of an NDIS_OFFLOAD we use. Undefined: not that structure. */
export function grantOffloads(capabilities: Uint8Array, limits: Limits): Grant | undefined {
  const decoded = decodeOffload(capabilities);
  if (decoded === undefined) return undefined;
  let bits = bitsOf(decoded);
  if (limits.nvspVersion <= 0x40000) bits &= ~(OFFLOAD.UDP4_TX | OFFLOAD.UDP6_TX | OFFLOAD.UDP4_RX | OFFLOAD.UDP6_RX);
  if (limits.nvspVersion >= 0x30002) bits |= OFFLOAD.VLAN;
  if (!limits.rsc || limits.nvspVersion < 0x60001) bits &= ~OFFLOAD.RSC;
  const most = Math.min(MAX_LSO_BYTES, limits.maxTransferBytes - MESSAGE_OVERHEAD_BYTES);
  const lsoMax4 = bits & OFFLOAD.LSO4 ? Math.min(most, decoded.lsoV2Ipv4MaxSize) : 0;
  const lsoMax6 = bits & OFFLOAD.LSO6 ? Math.min(most, decoded.lsoV2Ipv6MaxSize) : 0;
  return { bits, lsoMax4, lsoMax6 };
}

/** OFFLOAD bits that the host says are on now, VLAN included (it is no part of this). Undefined: malformed. */
export function offloadsInForce(current: Uint8Array): number | undefined {
  const decoded = decodeOffload(current);
  return decoded && bitsOf(decoded) | OFFLOAD.VLAN;
}

/** NDIS_OFFLOAD_PARAMETERS, revision 3, that switch on what `bits` say and everything else off. */
export function offloadParameters(bits: number, nvspVersion: number): Uint8Array {
  const checksum = (tx: number, rx: number): number => {
    if (bits & tx) return bits & rx ? CHECKSUM.BOTH : CHECKSUM.TX;
    return bits & rx ? CHECKSUM.RX : CHECKSUM.OFF;
  };
  const on = (bit: number): number => (bits & bit ? SWITCH.ON : SWITCH.OFF);
  const old = nvspVersion <= 0x40000;
  const parameters = NDIS_OFFLOAD_PARAMETERS.encode({
    type: OBJECT_DEFAULT,
    revision: 3,
    size: old ? 22 : NDIS_OFFLOAD_PARAMETERS.size,
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
  return old ? parameters.subarray(0, 22) : parameters;
}

function bitsOf(offload: ReturnType<typeof NDIS_OFFLOAD.decode> & { rsc: boolean }): number {
  const all = (flags: number, wanted: number): boolean => (flags & wanted) === wanted;
  let bits = 0;
  if (offload.ipv4TxEncapsulation & ENCAPSULATION_8023) {
    const flags = offload.ipv4TxChecksum;
    if (all(flags, V4.IP | V4.IP_OPTIONS)) bits |= OFFLOAD.IPV4_HEADER_TX;
    if (all(flags, V4.TCP | V4.TCP_OPTIONS)) bits |= OFFLOAD.TCP4_TX;
    if (all(flags, V4.UDP)) bits |= OFFLOAD.UDP4_TX;
  }
  if (offload.ipv4RxEncapsulation & ENCAPSULATION_8023) {
    const flags = offload.ipv4RxChecksum;
    if (all(flags, V4.IP)) bits |= OFFLOAD.IPV4_HEADER_RX;
    if (all(flags, V4.TCP)) bits |= OFFLOAD.TCP4_RX;
    if (all(flags, V4.UDP)) bits |= OFFLOAD.UDP4_RX;
  }
  if (offload.ipv6TxEncapsulation & ENCAPSULATION_8023) {
    const flags = offload.ipv6TxChecksum;
    if (all(flags, V6.TCP | V6.TCP_OPTIONS | V6.EXTENSION_HEADERS)) bits |= OFFLOAD.TCP6_TX;
    if (all(flags, V6.UDP)) bits |= OFFLOAD.UDP6_TX;
  }
  if (offload.ipv6RxEncapsulation & ENCAPSULATION_8023) {
    const flags = offload.ipv6RxChecksum;
    if (all(flags, V6.TCP)) bits |= OFFLOAD.TCP6_RX;
    if (all(flags, V6.UDP)) bits |= OFFLOAD.UDP6_RX;
  }
  if (bits & OFFLOAD.TCP4_TX && offload.lsoV2Ipv4Encapsulation & ENCAPSULATION_8023) bits |= OFFLOAD.LSO4;
  const lso6 = all(offload.lsoV2Ipv6Flags, LSO_V6.EXTENSION_HEADERS | LSO_V6.TCP_OPTIONS);
  if (bits & OFFLOAD.TCP6_TX && offload.lsoV2Ipv6Encapsulation & ENCAPSULATION_8023 && lso6) bits |= OFFLOAD.LSO6;
  if (offload.rsc) bits |= OFFLOAD.RSC;
  return bits;
}
