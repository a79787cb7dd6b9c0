// The model's end of a channel: ring rules of facts/hyper-v-host.md 1, byte by byte, indices modulo the size.
import { RING_ERROR } from '../../src/memory/layout.js';
import { Counters, join, type ModelMemory, pad8, words } from './model.js';

const PAGE = 4096;
const MAX_PACKET = 32768;
const AT = { in: 0, out: 4, mask: 8, pending: 12 };

export interface RingPacket {
  readonly type: number;
  readonly flags: number;
  readonly idLow: number;
  readonly idHigh: number;
  /** Descriptor and extended header. */
  readonly head: Uint8Array;
  readonly payload: Uint8Array;
  readonly next: number;
}

export class ModelEnd {
  readonly memory: ModelMemory;
  readonly writeRing: number;
  readonly readRing: number;
  readonly size: number;
  readonly counters = new Counters();
  writeIndex = 0;
  published = 0;
  readIndex = 0;
  peerRead = 0;
  error = 0;
  errorDetail = 0;
  needSignal = false;
  blocked = 0;

  constructor(memory: ModelMemory, writeRing: number, readRing: number, size: number) {
    this.memory = memory;
    this.writeRing = writeRing;
    this.readRing = readRing;
    this.size = size;
    this.mask();
  }

  fail(error: number, detail: number): undefined {
    if (this.error === 0) {
      this.error = error;
      this.errorDetail = detail;
    }
    return undefined;
  }

  #room(write: number, read: number): number {
    return this.size - 8 - ((write - read + this.size) % this.size);
  }

  /** By the peer's index as it was when last looked at. */
  get knownFree(): number {
    return this.#room(this.writeIndex, this.peerRead);
  }

  /** The peer's index is looked at again only when the last one says no. */
  hasRoom(bytes: number): boolean {
    return this.knownFree >= bytes || this.free >= bytes;
  }

  get free(): number {
    const read = this.memory.u32(this.writeRing + AT.out);
    if (read % 8 !== 0 || read >= this.size) {
      this.fail(RING_ERROR.INVALID_POINTER, read);
      return 0;
    }
    this.peerRead = read;
    return this.#room(this.writeIndex, read);
  }

  /** Bytes in the ring of a packet with such contents. */
  static bytes(extended: number, payload: number): number {
    return 16 + extended + pad8(payload) + 8;
  }

  /** For whoever saw that there is room. */
  write(type: number, flags: number, idLow: number, idHigh: number, extended: Uint8Array, payload: Uint8Array): void {
    const padded = join(payload, new Uint8Array(pad8(payload.length) - payload.length));
    const head = 16 + extended.length;
    const first = words(type | ((head / 8) << 16), ((head + padded.length) / 8) | (flags << 16), idLow, idHigh);
    const packet = join(first, extended, padded, words(0, this.writeIndex));
    for (const [i, byte] of packet.entries()) {
      this.memory.bytes[this.writeRing + PAGE + ((this.writeIndex + i) % this.size)] = byte;
    }
    this.writeIndex = (this.writeIndex + packet.length) % this.size;
    this.counters.add('ringPacketsOut');
  }

  #signal(): void {
    this.needSignal = true;
    this.counters.add('signals');
  }

  publish(): void {
    if (this.writeIndex === this.published) return;
    const { memory, writeRing } = this;
    const wasEmpty = memory.u32(writeRing + AT.out) === this.published;
    memory.set32(writeRing + AT.in, this.writeIndex);
    this.published = this.writeIndex;
    if (wasEmpty && memory.u32(writeRing + AT.mask) === 0) this.#signal();
  }

  /** A control-path packet. */
  send(type: number, flags: number, idLow: number, idHigh: number, payload: Uint8Array): boolean {
    if (this.error !== 0) return false;
    if (!this.hasRoom(ModelEnd.bytes(0, payload.length))) {
      this.counters.add('ringFull');
      return false;
    }
    this.write(type, flags, idLow, idHigh, new Uint8Array(0), payload);
    this.publish();
    return true;
  }

  /** Where the writer is, if that can be. */
  limit(): number {
    const write = this.memory.u32(this.readRing + AT.in);
    if (write % 8 === 0 && write < this.size) return write;
    this.fail(RING_ERROR.INVALID_POINTER, write);
    return this.readIndex;
  }

  #bytes(from: number, count: number): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(count);
    for (let i = 0; i < count; i++) out[i] = this.memory.bytes[this.readRing + PAGE + ((from + i) % this.size)]!;
    return out;
  }

  /** The packet at `read`, copied; undefined = corrupt, the error says why. */
  packet(read: number, write: number): RingPacket | undefined {
    const there = (write - read + this.size) % this.size;
    if (there < 16) return this.fail(RING_ERROR.LENGTH, there);
    const view = new DataView(this.#bytes(read, 16).buffer);
    const [type, offset] = [view.getUint16(0, true), view.getUint16(2, true) * 8];
    const [length, flags] = [view.getUint16(4, true) * 8, view.getUint16(6, true)];
    if (offset < 16) return this.fail(RING_ERROR.SHORT_DESCRIPTOR, offset);
    if (length < offset || length + 8 > there || length > MAX_PACKET) return this.fail(RING_ERROR.LENGTH, length);
    if (flags > 1) return this.fail(RING_ERROR.FLAGS, flags);
    if (![6, 7, 9, 11].includes(type)) return this.fail(RING_ERROR.TYPE, type);
    const all = this.#bytes(read, length);
    const [idLow, idHigh] = [view.getUint32(8, true), view.getUint32(12, true)];
    const next = (read + length + 8) % this.size;
    return { type, flags, idLow, idHigh, head: all.subarray(0, offset), payload: all.slice(offset), next };
  }

  release(read: number): void {
    const before = this.readIndex;
    if (read === before) return;
    this.readIndex = read;
    this.memory.set32(this.readRing + AT.out, read);
    const wanted = Math.floor(this.memory.u32(this.readRing + AT.pending) / 8) * 8;
    const write = this.memory.u32(this.readRing + AT.in);
    if (wanted === 0 || write >= this.size) return;
    if (this.#room(write, before) < wanted && this.#room(write, read) >= wanted) this.#signal();
  }

  mask(): void {
    this.memory.set32(this.readRing + AT.mask, 1);
    this.memory.set32(this.writeRing + AT.pending, 0);
  }

  /** True when the owner must not sleep. */
  unmask(): boolean {
    if (this.blocked > 0) {
      const wanted = Math.max(this.blocked, Math.floor((this.size - 8) / 4));
      this.memory.set32(this.writeRing + AT.pending, wanted);
      if (this.hasRoom(wanted)) {
        this.blocked = 0;
        return true;
      }
    }
    this.memory.set32(this.readRing + AT.mask, 0);
    return this.memory.u32(this.readRing + AT.in) !== this.readIndex;
  }
}
