// Numbered packets of the simulation: what is sent follows from the number alone, so that a receiver can tell every byte.
import { internetChecksum, transportChecksum } from '../../src/wire/checksum.js';
import { IP_PROTOCOL } from '../../src/wire/ip.js';

export type PacketKind = 'raw' | 'udp' | 'tcp' | 'tso';

/** A packet as its sender meant it. */
export interface Packet {
  readonly id: number;
  readonly kind: PacketKind;
  readonly v6: boolean;
  /** Bytes of the frame without an 802.1Q tag. */
  readonly bytes: number;
  /** Tag control information, or undefined. */
  readonly tci: number | undefined;
  /** The tag is in the data, not beside it. */
  readonly tagInData: boolean;
  /** The sender leaves checksums to the NIC. */
  readonly unfinished: boolean;
  /** TCP payload bytes of a segment (kind tso). */
  readonly mss: number;
  readonly from: Uint8Array;
  readonly to: Uint8Array;
}

export const ETHERNET = 14;
/** Raw frames this long carry their number; shorter ones only 12 bits of it, in their type. */
export const NUMBERED_RAW = ETHERNET + 4;
const RAW_TYPE = 0x9000;
const ECHO_PORT = 7;
const PATTERN_STEP = 7919;
const PATTERN_SPREAD = 65_536;

const pattern = new Uint8Array(PATTERN_SPREAD * 2);
for (let i = 0, state = 1; i < pattern.length; i++) {
  state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
  pattern[i] = state >>> 16;
}

/** `bytes` payload bytes of packet `id` from `offset` on. */
export function payload(id: number, offset: number, bytes: number): Uint8Array {
  const start = ((id * PATTERN_STEP) % PATTERN_SPREAD) + offset;
  return pattern.subarray(start, start + bytes);
}

/** Offset of the TCP or UDP header. */
export const l4Offset = (packet: Packet): number => ETHERNET + (packet.v6 ? 40 : 20);
/** Bytes in front of the payload that the pattern makes up. */
export const headerBytes = (packet: Packet): number =>
  packet.kind === 'raw' ? ETHERNET : l4Offset(packet) + (packet.kind === 'udp' ? 8 : 20);
export const payloadBytes = (packet: Packet): number => packet.bytes - headerBytes(packet);
/** Smallest frame of a kind. */
export const leastBytes = (kind: PacketKind, v6: boolean): number =>
  kind === 'raw' ? ETHERNET : ETHERNET + (v6 ? 40 : 20) + (kind === 'udp' ? 12 : 20);

/** The frame with every checksum right and no tag; a TSO packet's is that of `bytes` payload bytes at `offset`. */
export function finishedFrame(packet: Packet, offset = 0, bytes = payloadBytes(packet)): Uint8Array {
  const header = headerBytes(packet);
  const frame = new Uint8Array(header + bytes);
  const view = new DataView(frame.buffer);
  frame.set(packet.to, 0);
  frame.set(packet.from, 6);
  frame.set(payload(packet.id, offset, bytes), header);
  if (packet.kind === 'raw') {
    view.setUint16(12, RAW_TYPE | (packet.id & 0xfff));
    if (frame.length >= NUMBERED_RAW) view.setUint32(ETHERNET, packet.id);
    return frame;
  }
  const l4 = l4Offset(packet);
  const protocol = packet.kind === 'udp' ? IP_PROTOCOL.UDP : IP_PROTOCOL.TCP;
  if (packet.v6) {
    view.setUint16(12, 0x86dd);
    view.setUint32(14, 0x6000_0000);
    view.setUint16(18, frame.length - l4);
    frame[20] = protocol;
    frame[21] = 64;
    frame.set([0xfd, 0, ...packet.from], 22);
    frame.set([0xfd, 0, ...packet.to], 38);
  } else {
    view.setUint16(12, 0x0800);
    frame.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, ...packet.from.subarray(3), 10], 14);
    frame.set(packet.to.subarray(3), 31);
    view.setUint16(16, frame.length - ETHERNET);
    view.setUint16(24, internetChecksum(frame, ETHERNET, 20));
  }
  if (packet.kind === 'udp') {
    view.setUint16(l4, 0x8000 + (packet.id & 0xff));
    view.setUint16(l4 + 2, ECHO_PORT);
    view.setUint16(l4 + 4, frame.length - l4);
    view.setUint32(l4 + 8, packet.id);
  } else {
    view.setUint16(l4, 0x8001);
    view.setUint16(l4 + 2, 443);
    view.setUint32(l4 + 4, offset);
    view.setUint32(l4 + 8, packet.id);
    view.setUint16(l4 + 12, 0x5010);
    view.setUint16(l4 + 14, 0xffff);
  }
  const sum = transportChecksum(frame, ETHERNET, protocol, l4);
  view.setUint16(checksumAt(packet), packet.kind === 'udp' && sum === 0 ? 0xffff : sum);
  return frame;
}

/** Offset of the TCP or UDP checksum. */
export const checksumAt = (packet: Packet): number => l4Offset(packet) + (packet.kind === 'udp' ? 6 : 16);

/** The frame as the sender hands it over: unfinished checksums hold rubbish, the tag may be in the data. */
export function sentFrame(packet: Packet): Uint8Array {
  const frame = finishedFrame(packet);
  if (packet.unfinished && packet.kind !== 'raw') {
    const view = new DataView(frame.buffer);
    view.setUint16(checksumAt(packet), packet.id & 0xffff);
    if (!packet.v6) view.setUint16(24, (packet.id * 3) & 0xffff);
  }
  if (packet.tci === undefined || !packet.tagInData) return frame;
  const tagged = new Uint8Array(frame.length + 4);
  tagged.set(frame.subarray(0, 12));
  tagged.set([0x81, 0, packet.tci >>> 8, packet.tci & 0xff], 12);
  tagged.set(frame.subarray(12), 16);
  return tagged;
}

/** What a received frame says about itself; undefined when it is none of ours. */
export interface Label {
  readonly id: number;
  /** `id` is only its lower 12 bits. */
  readonly short: boolean;
  /** Of a TCP packet: where its payload begins in the packet that was sent. */
  readonly offset: number;
}

export function label(frame: Uint8Array): Label | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const type = view.getUint16(12);
  if ((type & 0xf000) === RAW_TYPE) {
    if (frame.length < NUMBERED_RAW) return { id: type & 0xfff, short: true, offset: 0 };
    return { id: view.getUint32(ETHERNET), short: false, offset: 0 };
  }
  const v6 = type === 0x86dd;
  if (!v6 && type !== 0x0800) return undefined;
  const l4 = ETHERNET + (v6 ? 40 : 20);
  if (frame.length < l4 + 12) return undefined;
  const tcp = frame[v6 ? 20 : 23] === IP_PROTOCOL.TCP;
  return { id: view.getUint32(l4 + 8), short: false, offset: tcp ? view.getUint32(l4 + 4) : 0 };
}
