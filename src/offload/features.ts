// Which of a packet's wishes the other side fulfils, and which are left to software.
import { OFFLOAD, PACKET_FLAG } from '../memory/layout.js';

export type OffloadName = keyof typeof OFFLOAD;

const TX_FLAGS =
  PACKET_FLAG.TX_IP_CHECKSUM | PACKET_FLAG.TX_TCP_CHECKSUM | PACKET_FLAG.TX_UDP_CHECKSUM | PACKET_FLAG.TX_TSO;

/** Every OFFLOAD bit. */
export const ALL_OFFLOADS: number = Object.values(OFFLOAD).reduce((all, bit) => all | bit, 0);

/** Names of the OFFLOAD bits that are set, in the order of the table. */
export function offloadNames(offloads: number): OffloadName[] {
  return (Object.keys(OFFLOAD) as OffloadName[]).filter((name) => (offloads & OFFLOAD[name]) !== 0);
}

/** OFFLOAD bits of the names. Throws a RangeError that lists the known names when one is not among them. */
export function offloadBits(names: readonly string[]): number {
  let bits = 0;
  for (const name of names) {
    if (!Object.hasOwn(OFFLOAD, name)) {
      throw new RangeError(`offload ${JSON.stringify(name)} is not one of ${Object.keys(OFFLOAD).join(', ')}`);
    }
    bits |= OFFLOAD[name as OffloadName];
  }
  return bits;
}

/**
 * The TX_* and VLAN flags of a packet that software must deal with, because `offloads` (OFFLOAD bits that the receiver
 * takes) lack them. Segments of UDP are always cut in software: NDIS LSO is for TCP. When TX_TSO is in the result, so
 * are the packet's checksum flags, since `segment` completes them.
 */
export function softwareFlags(flags: number, offloads: number): number {
  const v4 = (flags & PACKET_FLAG.IPV4) !== 0;
  let software = 0;
  if ((flags & PACKET_FLAG.VLAN) !== 0 && (offloads & OFFLOAD.VLAN) === 0) software |= PACKET_FLAG.VLAN;
  if ((flags & PACKET_FLAG.TX_TSO) !== 0) {
    const udp = (flags & PACKET_FLAG.UDP) !== 0;
    // A host that takes a large send also completes its checksums.
    if (!udp && (offloads & (v4 ? OFFLOAD.LSO4 : OFFLOAD.LSO6)) !== 0) return software;
    return software | (flags & TX_FLAGS);
  }
  if ((flags & PACKET_FLAG.TX_IP_CHECKSUM) !== 0 && (offloads & OFFLOAD.IPV4_HEADER_TX) === 0) {
    software |= PACKET_FLAG.TX_IP_CHECKSUM;
  }
  if ((flags & PACKET_FLAG.TX_TCP_CHECKSUM) !== 0 && (offloads & (v4 ? OFFLOAD.TCP4_TX : OFFLOAD.TCP6_TX)) === 0) {
    software |= PACKET_FLAG.TX_TCP_CHECKSUM;
  }
  if ((flags & PACKET_FLAG.TX_UDP_CHECKSUM) !== 0 && (offloads & (v4 ? OFFLOAD.UDP4_TX : OFFLOAD.UDP6_TX)) === 0) {
    software |= PACKET_FLAG.TX_UDP_CHECKSUM;
  }
  return software;
}
