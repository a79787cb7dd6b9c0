// IPv4, IPv6, ICMP and IPv6 neighbour discovery (RFC 791, 792, 8200, 4443, 4861). Network byte order.
import { ipv4, ipv6, mac, struct, u8, u16be, u32be } from './struct.js';

export const IP_PROTOCOL = { ICMP: 1, TCP: 6, UDP: 17, ICMPV6: 58 } as const;
/** Ipv4Header.flagsFragmentOffset. */
export const IPV4_FLAG = { MORE_FRAGMENTS: 0x2000, DONT_FRAGMENT: 0x4000 } as const;
export const IPV4_FRAGMENT_OFFSET_MASK = 0x1fff;

/** Without options; these follow when the header length is above 5. */
export const Ipv4Header = struct('IPV4_HEADER', {
  versionHeaderLength: u8(0, 'bits 4..7: 4; bits 0..3: header length in units of 4 bytes', { hex: true }),
  dscpEcn: u8(1, 'differentiated services and congestion', { hex: true, default: 0 }),
  totalLength: u16be(2, 'header and payload', { unit: 'bytes' }),
  identification: u16be(4, 'of the datagram that fragments belong to', { default: 0 }),
  flagsFragmentOffset: u16be(6, 'bits 13..15 flags; bits 0..12 offset in units of 8 bytes', { hex: true, default: 0 }),
  timeToLive: u8(8, 'hops'),
  protocol: u8(9, 'what follows', { names: IP_PROTOCOL }),
  headerChecksum: u16be(10, 'of the header, options included', { hex: true, default: 0 }),
  source: ipv4(12, 'sender'),
  destination: ipv4(16, 'receiver'),
});

export const Ipv6Header = struct('IPV6_HEADER', {
  versionClassFlow: u32be(0, 'bits 28..31: 6; 20..27 traffic class; 0..19 flow label', { hex: true }),
  payloadLength: u16be(4, 'everything after this header', { unit: 'bytes' }),
  nextHeader: u8(6, 'what follows', { names: IP_PROTOCOL }),
  hopLimit: u8(7, 'hops'),
  source: ipv6(8, 'sender'),
  destination: ipv6(24, 'receiver'),
});

/** What TCP and UDP checksums over IPv4 start with. */
export const Ipv4PseudoHeader = struct('IPV4_PSEUDO_HEADER', {
  source: ipv4(0, 'sender'),
  destination: ipv4(4, 'receiver'),
  zero: u8(8, 'zero', { equals: 0 }),
  protocol: u8(9, 'protocol', { names: IP_PROTOCOL }),
  length: u16be(10, 'header and payload', { unit: 'bytes' }),
});

/** What TCP, UDP and ICMPv6 checksums over IPv6 start with. */
export const Ipv6PseudoHeader = struct('IPV6_PSEUDO_HEADER', {
  source: ipv6(0, 'sender'),
  destination: ipv6(16, 'receiver'),
  length: u32be(32, 'header and payload', { unit: 'bytes' }),
  zero: u16be(36, 'zero', { equals: 0 }),
  zero2: u8(38, 'zero', { equals: 0 }),
  nextHeader: u8(39, 'protocol', { names: IP_PROTOCOL }),
});

export const ICMP_TYPE = { ECHO_REPLY: 0, DESTINATION_UNREACHABLE: 3, ECHO_REQUEST: 8, TIME_EXCEEDED: 11 } as const;

/** Echo request and reply; data follows. */
export const IcmpEcho = struct('ICMP_ECHO', {
  type: u8(0, 'message', { names: ICMP_TYPE }),
  code: u8(1, 'zero', { default: 0 }),
  checksum: u16be(2, 'of the whole message', { hex: true, default: 0 }),
  identifier: u16be(4, 'of the asker'),
  sequence: u16be(6, 'of the request'),
});

export const ICMPV6_TYPE = {
  DESTINATION_UNREACHABLE: 1,
  PACKET_TOO_BIG: 2,
  TIME_EXCEEDED: 3,
  ECHO_REQUEST: 128,
  ECHO_REPLY: 129,
  ROUTER_SOLICITATION: 133,
  ROUTER_ADVERTISEMENT: 134,
  NEIGHBOR_SOLICITATION: 135,
  NEIGHBOR_ADVERTISEMENT: 136,
} as const;

const icmpv6Type = (type: number) => u8(0, 'message', { equals: type, names: ICMPV6_TYPE });
const code = () => u8(1, 'zero', { default: 0 });
const checksum = () => u16be(2, 'of pseudo header and message', { hex: true, default: 0 });

export const Icmpv6Echo = struct('ICMPV6_ECHO', {
  type: u8(0, 'message', { names: ICMPV6_TYPE }),
  code: code(),
  checksum: checksum(),
  identifier: u16be(4, 'of the asker'),
  sequence: u16be(6, 'of the request'),
});

/** Options follow all four neighbour discovery messages. */
export const RouterSolicitation = struct('ROUTER_SOLICITATION', {
  type: icmpv6Type(ICMPV6_TYPE.ROUTER_SOLICITATION),
  code: code(),
  checksum: checksum(),
  reserved: u32be(4, 'reserved', { default: 0 }),
});

export const RouterAdvertisement = struct('ROUTER_ADVERTISEMENT', {
  type: icmpv6Type(ICMPV6_TYPE.ROUTER_ADVERTISEMENT),
  code: code(),
  checksum: checksum(),
  hopLimit: u8(4, 'for outgoing packets; 0 = unspecified'),
  flags: u8(5, 'configuration', { flags: { MANAGED: 0x80, OTHER: 0x40 } }),
  routerLifetime: u16be(6, 'as default router', { unit: 's' }),
  reachableTime: u32be(8, '0 = unspecified', { unit: 'ms' }),
  retransmitTimer: u32be(12, '0 = unspecified', { unit: 'ms' }),
});

export const NeighborSolicitation = struct('NEIGHBOR_SOLICITATION', {
  type: icmpv6Type(ICMPV6_TYPE.NEIGHBOR_SOLICITATION),
  code: code(),
  checksum: checksum(),
  reserved: u32be(4, 'reserved', { default: 0 }),
  target: ipv6(8, 'address asked for'),
});

export const NeighborAdvertisement = struct('NEIGHBOR_ADVERTISEMENT', {
  type: icmpv6Type(ICMPV6_TYPE.NEIGHBOR_ADVERTISEMENT),
  code: code(),
  checksum: checksum(),
  flags: u32be(4, 'kind of answer', { flags: { ROUTER: 0x80000000, SOLICITED: 0x40000000, OVERRIDE: 0x20000000 } }),
  target: ipv6(8, 'address that has the link-layer address'),
});

export const LinkLayerAddressOption = struct('LINK_LAYER_ADDRESS_OPTION', {
  type: u8(0, 'whose address', { names: { SOURCE: 1, TARGET: 2 } }),
  length: u8(1, 'units of 8 bytes', { equals: 1 }),
  address: mac(2, 'link-layer address'),
});

export const IP_TABLES = [
  Ipv4Header,
  Ipv6Header,
  Ipv4PseudoHeader,
  Ipv6PseudoHeader,
  IcmpEcho,
  Icmpv6Echo,
  RouterSolicitation,
  RouterAdvertisement,
  NeighborSolicitation,
  NeighborAdvertisement,
  LinkLayerAddressOption,
] as const;
