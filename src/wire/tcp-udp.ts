// TCP and UDP headers (RFC 9293, RFC 768). Network byte order.
import { struct, u8, u16be, u32be } from './struct.js';

export const TCP_FLAG = {
  FIN: 0x1,
  SYN: 0x2,
  RST: 0x4,
  PSH: 0x8,
  ACK: 0x10,
  URG: 0x20,
  ECE: 0x40,
  CWR: 0x80,
} as const;

/** Without options; these follow when the data offset is above 5. */
export const TcpHeader = struct('TCP_HEADER', {
  sourcePort: u16be(0, 'sender'),
  destinationPort: u16be(2, 'receiver'),
  sequence: u32be(4, 'number of the first byte'),
  acknowledgment: u32be(8, 'next byte that the sender expects', { default: 0 }),
  dataOffset: u8(12, 'bits 4..7: header length in units of 4 bytes', { hex: true }),
  flags: u8(13, 'control bits', { flags: TCP_FLAG }),
  window: u16be(14, 'bytes that may be sent, before scaling'),
  checksum: u16be(16, 'of pseudo header, header and payload', { hex: true, default: 0 }),
  urgentPointer: u16be(18, 'end of urgent data', { default: 0 }),
});

export const UdpHeader = struct('UDP_HEADER', {
  sourcePort: u16be(0, 'sender'),
  destinationPort: u16be(2, 'receiver'),
  length: u16be(4, 'header and payload', { unit: 'bytes' }),
  checksum: u16be(6, 'of pseudo header, header and payload; 0 = none', { hex: true, default: 0 }),
});

export const TCP_UDP_TABLES = [TcpHeader, UdpHeader] as const;
