// The Internet checksum (RFC 1071), plain: for the control path and as what the data path's version is tested against.
import { bounds } from './field.js';
import { IP_PROTOCOL, Ipv4Header, Ipv6Header } from './ip.js';
import { WireError } from './struct.js';

/** Sum of big-endian 16-bit words, not folded; an odd last byte counts as the high one. `initial` continues a sum. */
export function onesSum(bytes: Uint8Array, at = 0, length = bytes.length - at, initial = 0): number {
  bounds('INTERNET_CHECKSUM', bytes, at, length);
  let sum = initial;
  const end = at + length;
  for (let i = at; i + 1 < end; i += 2) sum += (bytes[i]! << 8) | bytes[i + 1]!;
  if (length % 2 === 1) sum += bytes[end - 1]! << 8;
  return sum;
}

/** A sum of words to 16 bits, carries added back in. */
export function foldSum(sum: number): number {
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return sum;
}

/** Checksum of bytes whose checksum field is 0; over bytes with a right checksum it is 0. */
export function internetChecksum(bytes: Uint8Array, at = 0, length = bytes.length - at, initial = 0): number {
  return ~foldSum(onesSum(bytes, at, length, initial)) & 0xffff;
}

/** Sum of the pseudo header for `length` bytes of `protocol` inside the IPv4 or IPv6 packet at `at`. */
export function pseudoHeaderSum(packet: Uint8Array, at: number, protocol: number, length: number): number {
  bounds('IP_PACKET', packet, at, 1);
  const v6 = packet[at]! >>> 4 === 6;
  const header = v6 ? Ipv6Header : Ipv4Header;
  bounds(header.name, packet, at, header.size);
  const sum = onesSum(packet, at + header.offset.source, v6 ? 32 : 8);
  return sum + protocol + (length & 0xffff) + Math.floor(length / 0x10000);
}

/** The checksum of the IPv4 header at `at`, its checksum field taken as 0. Throws WireError. */
export function ipv4HeaderChecksum(packet: Uint8Array, at = 0): number {
  const { versionHeaderLength, headerChecksum } = Ipv4Header.decode(packet, at);
  const length = (versionHeaderLength & 15) * 4;
  if (length < Ipv4Header.size) {
    throw new WireError(Ipv4Header.name, 'versionHeaderLength', `expected at least 5, got ${versionHeaderLength & 15}`);
  }
  return internetChecksum(packet, at, length, 0xffff - headerChecksum);
}

/**
 * Checksum of the TCP, UDP or ICMPv6 bytes [l4At, l4At + length) inside the IP packet at `ipAt`, the checksum field
 * counted as it is: 0 there gives the checksum to write, a right one there gives 0. UDP writes 0 as 0xffff.
 */
export function transportChecksum(
  packet: Uint8Array,
  ipAt: number,
  protocol: number,
  l4At: number,
  length = packet.length - l4At,
): number {
  return internetChecksum(packet, l4At, length, pseudoHeaderSum(packet, ipAt, protocol, length));
}

/** Where a protocol's checksum field is, from the start of its header; undefined when it has none. */
export function checksumFieldOffset(protocol: number): number | undefined {
  if (protocol === IP_PROTOCOL.TCP) return 16;
  if (protocol === IP_PROTOCOL.UDP) return 6;
  if (protocol === IP_PROTOCOL.ICMP || protocol === IP_PROTOCOL.ICMPV6) return 2;
  return undefined;
}
