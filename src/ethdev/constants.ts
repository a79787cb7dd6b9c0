// Numbers of the device API that users see: bits of offloads, hash types and packet types. They are DPDK's own, so that
// masks like --tx-offloads=0x8000 mean the same.

import { PACKET_FLAG } from '../memory/layout.js';

export const RX_OFFLOAD = {
  VLAN_STRIP: 1 << 0,
  IPV4_CKSUM: 1 << 1,
  UDP_CKSUM: 1 << 2,
  TCP_CKSUM: 1 << 3,
  TCP_LRO: 1 << 4,
  VLAN_FILTER: 1 << 9,
  SCATTER: 1 << 13,
  TIMESTAMP: 1 << 14,
  RSS_HASH: 1 << 19,
} as const;

export const TX_OFFLOAD = {
  VLAN_INSERT: 1 << 0,
  IPV4_CKSUM: 1 << 1,
  UDP_CKSUM: 1 << 2,
  TCP_CKSUM: 1 << 3,
  TCP_TSO: 1 << 5,
  UDP_TSO: 1 << 6,
  MULTI_SEGS: 1 << 15,
  MBUF_FAST_FREE: 1 << 16,
} as const;

export const RSS_TYPE = {
  IPV4: 1 << 2,
  IPV4_TCP: 1 << 4,
  IPV4_UDP: 1 << 5,
  IPV6: 1 << 8,
  IPV6_TCP: 1 << 10,
  IPV6_UDP: 1 << 11,
  IPV6_EX: 1 << 15,
  IPV6_TCP_EX: 1 << 16,
  IPV6_UDP_EX: 1 << 17,
} as const;

/** Packet types: one value each of layers 2, 3 and 4, or-ed. */
export const PACKET_TYPE = {
  L2_ETHER: 0x1,
  L2_ARP: 0x3,
  L2_VLAN: 0x6,
  L2_QINQ: 0x7,
  L2_MASK: 0xf,
  L3_IPV4: 0x10,
  L3_IPV4_EXT: 0x30,
  L3_IPV6: 0x40,
  L3_IPV6_EXT: 0xc0,
  L3_MASK: 0xf0,
  L4_TCP: 0x100,
  L4_UDP: 0x200,
  L4_FRAG: 0x300,
  L4_SCTP: 0x400,
  L4_ICMP: 0x500,
  L4_NONFRAG: 0x600,
  L4_MASK: 0xf00,
} as const;

/** What a device says about a checksum of a received packet. NONE: the packet is right, but the checksum is not in it (it came from the
 *  same machine); who sends the packet on has it filled in by the flags that are set. */
export type ChecksumVerdict = 'GOOD' | 'BAD' | 'NONE' | 'UNKNOWN';

const { RX_IP_GOOD, RX_IP_BAD, RX_L4_GOOD, RX_L4_BAD } = PACKET_FLAG;
const { TX_IP_CHECKSUM, TX_TCP_CHECKSUM, TX_UDP_CHECKSUM } = PACKET_FLAG;

/** Of the IPv4 header, from an mbuf's flags. */
export const ipVerdict = (flags: number): ChecksumVerdict => verdict(flags, RX_IP_GOOD, RX_IP_BAD, TX_IP_CHECKSUM);

/** Of TCP or UDP. */
export const l4Verdict = (flags: number): ChecksumVerdict =>
  verdict(flags, RX_L4_GOOD, RX_L4_BAD, TX_TCP_CHECKSUM | TX_UDP_CHECKSUM);

function verdict(flags: number, good: number, bad: number, missing: number): ChecksumVerdict {
  if ((flags & bad) !== 0) return 'BAD';
  if ((flags & good) === 0) return 'UNKNOWN';
  return (flags & missing) !== 0 ? 'NONE' : 'GOOD';
}

/** Names of the bits of a mask, in the order of the table; what has no name is left out. */
export function namesOf(bits: Readonly<Record<string, number>>, mask: number): string[] {
  return Object.entries(bits).flatMap(([name, bit]) => ((mask & bit) === bit ? [name] : []));
}
