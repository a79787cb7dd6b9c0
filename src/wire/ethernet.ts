// Ethernet, 802.1Q and ARP headers (IEEE 802.3, IEEE 802.1Q, RFC 826). Network byte order.
import { ipv4, mac, struct, u8, u16be } from './struct.js';

export const ETHER_TYPE = {
  IPV4: 0x0800,
  ARP: 0x0806,
  VLAN: 0x8100,
  IPV6: 0x86dd,
  QINQ: 0x88a8,
  LLDP: 0x88cc,
} as const;
export const MAC_BROADCAST = 'ff:ff:ff:ff:ff:ff';

export const EthernetHeader = struct('ETHERNET_HEADER', {
  destination: mac(0, 'receiver'),
  source: mac(6, 'sender'),
  etherType: u16be(12, 'what follows', { names: ETHER_TYPE }),
});

/** Follows the two addresses and the ether type 0x8100. */
export const VlanTag = struct('VLAN_TAG', {
  tci: u16be(0, 'bits 13..15 priority, 12 DEI, 0..11 VLAN id', { hex: true }),
  etherType: u16be(2, 'what follows', { names: ETHER_TYPE }),
});

export const ARP_OPERATION = { REQUEST: 1, REPLY: 2 } as const;

/** For IPv4 over Ethernet. */
export const Arp = struct('ARP', {
  hardwareType: u16be(0, 'Ethernet', { equals: 1 }),
  protocolType: u16be(2, 'IPv4', { equals: 0x0800 }),
  hardwareLength: u8(4, 'bytes of a hardware address', { equals: 6 }),
  protocolLength: u8(5, 'bytes of a protocol address', { equals: 4 }),
  operation: u16be(6, 'request or reply', { names: ARP_OPERATION }),
  senderMac: mac(8, 'sender'),
  senderIp: ipv4(14, 'sender'),
  targetMac: mac(18, 'target; zero in a request'),
  targetIp: ipv4(24, 'target'),
});

export const ETHERNET_TABLES = [EthernetHeader, VlanTag, Arp] as const;
