// A plain model of the forwarding passes (src/datapath/assembly/forward.ts): whole packets as byte arrays, headers decoded field by
// field. What DPDK's testpmd does differently is said where it is.
import { PACKET_FLAG } from '../../src/memory/layout.js';
import { FORWARD_CHECKSUM } from '../../src/memory/layout-forward.js';
import { internetChecksum, ipv4HeaderChecksum, transportChecksum } from '../../src/wire/checksum.js';

const { TX_IP_CHECKSUM, TX_TCP_CHECKSUM, TX_UDP_CHECKSUM, TX_TSO, IPV4, IPV6, TCP, UDP } = PACKET_FLAG;

export interface ModelPacket {
  readonly bytes: Uint8Array;
  flags: number;
  mss: number;
  l4Offset: number;
}

export interface ModelStream {
  readonly destination: Uint8Array;
  readonly source: Uint8Array;
  readonly checksums: number;
  readonly tsoSegment: number;
  readonly keepAddresses: boolean;
}

const get16 = (b: Uint8Array, at: number) => (b[at]! << 8) | b[at + 1]!;
function put16(b: Uint8Array, at: number, value: number): void {
  b[at] = value >>> 8;
  b[at + 1] = value & 255;
}

interface Headers {
  readonly family: 4 | 6;
  readonly l3: number;
  readonly l4: number;
  readonly protocol: number;
  /** First offset behind the IP packet. */
  readonly end: number;
  readonly whole: boolean;
  readonly fragment: boolean;
  /** Offset of the fragment in its datagram. */
  readonly fragmentOffset: number;
}

/** Where the network header begins, behind up to two tags; undefined when it is cut off. */
function network(b: Uint8Array, head: number): number | undefined {
  let l3 = 14;
  if (head < l3) return undefined;
  for (let tags = 0; tags < 2 && [0x8100, 0x88a8].includes(get16(b, l3 - 2)); tags++) {
    l3 += 4;
    if (head < l3) return undefined;
  }
  return l3;
}

/** Headers within the first `head` bytes. No IPv6 extension headers but fragments. */
function headers(b: Uint8Array, head: number): Headers | undefined {
  const l3 = network(b, head);
  if (l3 === undefined) return undefined;
  const type = get16(b, l3 - 2);
  if (type === 0x0800) {
    if (head < l3 + 20 || b[l3]! >> 4 !== 4) return undefined;
    const bytes = (b[l3]! & 15) * 4;
    const total = get16(b, l3 + 2) || b.length - l3;
    if (bytes < 20 || head < l3 + bytes || total < bytes) return undefined;
    const word = get16(b, l3 + 6);
    return {
      ...{ family: 4, l3, l4: l3 + bytes, protocol: b[l3 + 9]!, end: Math.min(l3 + total, b.length) },
      ...{ whole: l3 + total <= b.length, fragment: (word & 0x3fff) !== 0, fragmentOffset: word & 0x1fff },
    };
  }
  if (type !== 0x86dd || head < l3 + 40 || b[l3]! >> 4 !== 6) return undefined;
  const payload = get16(b, l3 + 4) || b.length - l3 - 40;
  const end = Math.min(l3 + 40 + payload, b.length);
  const facts = { family: 6 as const, l3, end, whole: l3 + 40 + payload <= b.length };
  if (b[l3 + 6] !== 44) return { ...facts, l4: l3 + 40, protocol: b[l3 + 6]!, fragment: false, fragmentOffset: 0 };
  if (Math.min(head, end) < l3 + 48) return undefined;
  const word = get16(b, l3 + 42);
  return {
    ...{ ...facts, l4: l3 + 48, protocol: b[l3 + 40]! },
    ...{ fragment: (word & 0xfff9) !== 0, fragmentOffset: word >>> 3 },
  };
}

function swap(b: Uint8Array, one: number, other: number, bytes: number): void {
  const kept = b.slice(one, one + bytes);
  b.copyWithin(one, other, other + bytes);
  b.set(kept, other);
}

export function mac(stream: ModelStream, packet: ModelPacket, head: number): void {
  if (head < 12) return;
  packet.bytes.set(stream.destination, 0);
  packet.bytes.set(stream.source, 6);
}

export function macSwap(packet: ModelPacket, head: number): void {
  if (head >= 12) swap(packet.bytes, 0, 6, 6);
}

/** Ports of later fragments are data, and headers that are cut off are not there: testpmd swaps those bytes, too. */
export function swap5(packet: ModelPacket, head: number): void {
  const { bytes } = packet;
  macSwap(packet, head);
  const ip = headers(bytes, head);
  if (!ip) return;
  if (ip.family === 4) swap(bytes, ip.l3 + 12, ip.l3 + 16, 4);
  else swap(bytes, ip.l3 + 8, ip.l3 + 24, 16);
  const ports = (ip.protocol === 6 || ip.protocol === 17) && ip.fragmentOffset === 0;
  if (ports && ip.l4 + 4 <= Math.min(ip.end, head)) swap(bytes, ip.l4, ip.l4 + 2, 2);
}

/** Fragments keep their bytes: testpmd writes a checksum into them. */
export function checksums(stream: ModelStream, packet: ModelPacket, head: number): void {
  const { bytes } = packet;
  if (!stream.keepAddresses) mac(stream, packet, head);
  const ip = headers(bytes, head);
  if (!ip || (packet.flags & TX_TSO) !== 0) return;
  const device = (bit: number) => (stream.checksums & bit) !== 0;
  let flags = packet.flags & ~(TX_IP_CHECKSUM | TX_TCP_CHECKSUM | TX_UDP_CHECKSUM | IPV4 | IPV6 | TCP | UDP);
  flags |= ip.family === 4 ? IPV4 : IPV6;
  let asked = false;
  if (ip.family === 4) {
    if (device(FORWARD_CHECKSUM.IP)) {
      flags |= TX_IP_CHECKSUM;
      asked = true;
    } else put16(bytes, ip.l3 + 10, ipv4HeaderChecksum(bytes, ip.l3));
  }
  const room = Math.min(head, ip.end);
  const software = (field: number, length: number, udp: boolean) => {
    put16(bytes, field, 0);
    const sum = transportChecksum(bytes.subarray(0, ip.end), ip.l3, ip.protocol, ip.l4, length);
    put16(bytes, field, udp && sum === 0 ? 0xffff : sum);
  };
  if (ip.whole && !ip.fragment && ip.protocol === 6 && ip.l4 + 20 <= room) {
    flags |= TCP;
    const header = (bytes[ip.l4 + 12]! >> 4) * 4;
    if (stream.tsoSegment !== 0 && header >= 20 && ip.end - ip.l4 - header > stream.tsoSegment) {
      flags |= TX_TSO;
      packet.mss = stream.tsoSegment;
      asked = true;
    } else if (device(FORWARD_CHECKSUM.TCP)) {
      flags |= TX_TCP_CHECKSUM;
      asked = true;
    } else software(ip.l4 + 16, ip.end - ip.l4, false);
  } else if (ip.whole && !ip.fragment && ip.protocol === 17 && ip.l4 + 8 <= room) {
    flags |= UDP;
    if (get16(bytes, ip.l4 + 6) !== 0 || (packet.flags & TX_UDP_CHECKSUM) !== 0) {
      const stated = get16(bytes, ip.l4 + 4);
      const length = stated >= 8 && stated <= ip.end - ip.l4 ? stated : ip.end - ip.l4;
      if (device(FORWARD_CHECKSUM.UDP)) {
        flags |= TX_UDP_CHECKSUM;
        asked = true;
      } else software(ip.l4 + 6, length, true);
    }
  }
  packet.flags = flags;
  if (asked) packet.l4Offset = ip.l4;
}

/** True when the packet has become an answer. The sender of an answer to a group is the port: testpmd puts the group there. */
export function echo(stream: ModelStream, packet: ModelPacket, head: number): boolean {
  const { bytes } = packet;
  const ip = headers(bytes, head);
  if (ip) {
    const echoes = ip.family === 4 && !ip.fragment && ip.protocol === 1 && ip.l4 + 8 <= Math.min(head, ip.end);
    if (!echoes || get16(bytes, ip.l4) !== 0x0800) return false;
    const group = (bytes[0]! & 1) !== 0;
    swap(bytes, 0, 6, 6);
    if (group) bytes.set(stream.source, 6);
    swap(bytes, ip.l3 + 12, ip.l3 + 16, 4);
    if (bytes[ip.l3 + 12]! >> 4 === 14) {
      bytes.copyWithin(ip.l3 + 12, ip.l3 + 16, ip.l3 + 20);
      const last = bytes[ip.l3 + 15]!;
      bytes[ip.l3 + 15] = (last & 0xfc) | ((last & 3) === 1 ? 2 : 1);
      put16(bytes, ip.l3 + 10, ipv4HeaderChecksum(bytes, ip.l3));
    }
    const before = get16(bytes, ip.l4 + 2);
    bytes[ip.l4] = 0;
    // RFC 1624: the sum loses the word 0x0800.
    put16(bytes, ip.l4 + 2, internetChecksum(Uint8Array.of(~before >>> 8, ~before, 0xf7, 0xff)));
    return true;
  }
  const l3 = network(bytes, head);
  if (l3 === undefined || head < l3 + 28 || get16(bytes, l3 - 2) !== 0x0806) return false;
  const request = [0, 1, 8, 0, 6, 4, 0, 1];
  if (request.some((byte, i) => bytes[l3 + i] !== byte)) return false;
  bytes.copyWithin(0, 6, 12);
  bytes.set(stream.source, 6);
  bytes[l3 + 7] = 2;
  swap(bytes, l3 + 8, l3 + 18, 10);
  bytes.set(stream.source, l3 + 8);
  return true;
}
