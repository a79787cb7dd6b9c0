// A plain model of the burst loops, written from facts/hyper-v-host.md 1, 3, 4, 8, facts/linux-guest.md 3, 4 and the comments of
// memory/layout.ts: objects, arrays and whole-message copies, no cleverness. This file has what both halves share.
import { PACKET_FLAG } from '../../src/memory/layout.js';

/** The model's own bytes, at the same addresses as the arena that it is compared with. */
export class ModelMemory {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView;

  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u32(at: number): number {
    return this.view.getUint32(at, true);
  }

  set32(at: number, value: number): void {
    this.view.setUint32(at, value, true);
  }

  take(at: number, bytes: number): Uint8Array<ArrayBuffer> {
    return this.bytes.slice(at, at + bytes);
  }
}

/** Little-endian words as bytes. */
export function words(...values: number[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(values.length * 4);
  const view = new DataView(out.buffer);
  values.forEach((value, i) => {
    view.setUint32(i * 4, value >>> 0, true);
  });
  return out;
}

export function join(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export const pad8 = (bytes: number) => Math.ceil(bytes / 8) * 8;
export const readWord = (bytes: Uint8Array, at: number) =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(at, true);

export class Counters {
  readonly values: Record<string, number> = {};

  add(name: string, by = 1): void {
    this.values[name] = (this.values[name] ?? 0) + by;
  }
}

export interface ModelEvent {
  readonly kind: number;
  readonly idLow: number;
  readonly idHigh: number;
  readonly a: number;
  readonly b: number;
  readonly payload: Uint8Array;
}

/** The event buffer: records of 24 bytes and a payload padded to 8; payloads are cut to half of it. */
export class Events {
  readonly capacity: number;
  list: ModelEvent[] = [];
  used = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  put(event: ModelEvent): boolean {
    const payload = event.payload.slice(0, Math.floor(this.capacity / 2));
    const total = 24 + pad8(payload.length);
    if (this.used + total > this.capacity) return false;
    this.used += total;
    this.list.push({ ...event, payload });
    return true;
  }

  drain(): ModelEvent[] {
    const { list } = this;
    this.list = [];
    this.used = 0;
    return list;
  }
}

/** A packet buffer. `handle` is what the compiled half calls it. */
export interface Mbuf {
  readonly handle: number;
  readonly pool: ModelPool;
  readonly buffer: number;
  data: number;
  length: number;
  packetLength: number;
  next: Mbuf | undefined;
  flags: number;
  hash: number;
  vlanTci: number;
  mss: number;
  l4Offset: number;
}

export class ModelPool {
  readonly free: Mbuf[] = [];
  readonly room: number;
  readonly #headroom: number;
  exhausted = 0;

  /** `handles`: the stack, top last; the data room lies `head` bytes behind each. */
  constructor(handles: number[], head: number, room: number, headroom: number) {
    this.room = room;
    this.#headroom = headroom;
    for (const handle of handles) this.free.push(this.#fresh(handle, handle + head));
  }

  #fresh(handle: number, buffer: number): Mbuf {
    const cleared = { length: 0, packetLength: 0, next: undefined, flags: 0, hash: 0, vlanTci: 0, mss: 0, l4Offset: 0 };
    return { handle, pool: this, buffer, data: buffer + this.#headroom, ...cleared };
  }

  get(): Mbuf | undefined {
    const old = this.free.pop();
    if (!old) this.exhausted++;
    return old && this.#fresh(old.handle, old.buffer);
  }
}

export function segmentsOf(head: Mbuf): Mbuf[] {
  const list: Mbuf[] = [];
  for (let m: Mbuf | undefined = head; m; m = m.next) list.push(m);
  return list;
}

export function release(head: Mbuf): void {
  for (const segment of segmentsOf(head)) segment.pool.free.push(segment);
}

export const tailroomOf = (m: Mbuf) => m.buffer + m.pool.room - m.data;

// RNDIS and NVSP as bytes.
export const PACKET_BYTES = 44;
export interface Info {
  readonly type: number;
  readonly value: number;
}

export const infoBytes = (infos: readonly Info[]) =>
  join(...infos.map(({ type, value }) => words(16, type, 12, value)));

/** RNDIS packet header and infos; frame `dataBytes` long at `dataAt`, message of `length` bytes. */
export function rndisHead(length: number, dataAt: number, dataBytes: number, infos: readonly Info[]): Uint8Array {
  const size = infos.length * 16;
  const head = words(1, length, dataAt - 8, dataBytes, 0, 0, 0, size > 0 ? PACKET_BYTES - 8 : 0, size, 0, 0);
  return join(head, infoBytes(infos));
}

export function nvspRndis(bytes: number, channelType: number, section: number, sectionBytes: number): Uint8Array {
  return join(words(107, channelType, section, sectionBytes), new Uint8Array(pad8(bytes) - 16));
}

/** VLAN info: priority in bits 0..2, DEI in 3, id in 4..15; 802.1Q has them at 13..15, 12, 0..11. */
export const vlanToInfo = (tci: number) => (tci >> 13) | (((tci >> 12) & 1) << 3) | ((tci & 0xfff) << 4);
export const infoToVlan = (info: number) => ((info & 7) << 13) | (((info >> 3) & 1) << 12) | ((info >> 4) & 0xfff);

// Checksums, over big-endian 16-bit words as RFC 1071 tells it.
export function sum16(bytes: Uint8Array, seed = 0): number {
  let sum = seed;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return sum;
}

const put16 = (bytes: Uint8Array, at: number, value: number) => {
  bytes[at] = value >> 8;
  bytes[at + 1] = value & 0xff;
};
const get16 = (bytes: Uint8Array, at: number) => (bytes[at]! << 8) | bytes[at + 1]!;

const addressesOf = (frame: Uint8Array) => (get16(frame, 12) === 0x0800 ? frame.slice(26, 34) : frame.slice(22, 54));

export function finishIpv4Header(frame: Uint8Array): void {
  const header = (frame[14]! & 15) * 4;
  if (frame.length < 34 || get16(frame, 12) !== 0x0800 || header < 20 || 14 + header > frame.length) return;
  put16(frame, 24, 0);
  put16(frame, 24, ~sum16(frame.subarray(14, 14 + header)) & 0xffff);
}

/** What flags ask for, filled in; for well-formed packets without IPv6 extension headers. */
export function finishChecksums(frame: Uint8Array, flags: number, l4Offset: number): boolean {
  const v4 = get16(frame, 12) === 0x0800;
  const l4 = v4 ? 14 + (frame[14]! & 15) * 4 : 54;
  const transport = flags & (PACKET_FLAG.TX_TCP_CHECKSUM | PACKET_FLAG.TX_UDP_CHECKSUM);
  if (transport && l4Offset !== 0 && l4Offset !== l4) return false;
  if (v4 && flags & PACKET_FLAG.TX_IP_CHECKSUM) finishIpv4Header(frame);
  const udp = (flags & PACKET_FLAG.TX_UDP_CHECKSUM) !== 0 && !(flags & PACKET_FLAG.TX_TCP_CHECKSUM);
  if (!udp && !(flags & PACKET_FLAG.TX_TCP_CHECKSUM)) return true;
  const end = v4 ? 14 + get16(frame, 16) : 54 + get16(frame, 18);
  const body = frame.subarray(l4, end);
  const field = udp ? 6 : 16;
  put16(body, field, 0);
  const sum = ~sum16(body, sum16(addressesOf(frame)) + (udp ? 17 : 6) + body.length) & 0xffff;
  put16(body, field, udp && sum === 0 ? 0xffff : sum);
  return true;
}

/** What an LSO sender leaves to the host: lengths and IP checksum 0, TCP checksum = pseudo header without length. */
export function seedLargeSend(frame: Uint8Array, l4: number): void {
  if (get16(frame, 12) === 0x0800) {
    put16(frame, 16, 0);
    put16(frame, 24, 0);
  } else put16(frame, 18, 0);
  put16(frame, l4 + 16, sum16(addressesOf(frame), 6));
}

/** The IP length of a large send, put back. */
export function restoreLength(frame: Uint8Array, total: number, v6: boolean): void {
  put16(frame, v6 ? 18 : 16, (total - (v6 ? 54 : 14)) & 0xffff);
}
