// A guest for tests of this room: it writes ring, NVSP and RNDIS bytes by hand, as facts/hyper-v-host.md has them, and
// shares no code with the host or with src/netvsc. Whatever is wrong in a layout shows up as a difference between the two.
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { createDatapath, type Datapath } from '../datapath/datapath.js';
import { Arena } from '../memory/arena.js';
import type { OpenChannel } from '../vmbus/device.js';
import { createMemoryBus, type MemoryBus, type MemoryPair } from '../vmbus/memory/bus.js';
import { Host, type HostNicOptions, type UplinkFactory } from './host.js';
import type { ProfileName } from './profiles.js';

/** Little-endian u32 cells. */
export function words(...values: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of values.entries()) view.setUint32(i * 4, value, true);
  return bytes;
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts));
}

export function word(bytes: Uint8Array, index: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(index * 4, true);
}

/** "00 01 ff" > bytes */
export function hexBytes(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text.replaceAll(/\s/g, ''), 'hex'));
}

export interface Packet {
  /** 6 in-band, 7 transfer pages, 11 completion. */
  readonly type: number;
  readonly flags: number;
  readonly id: bigint;
  readonly payload: Uint8Array;
  readonly setId: number;
  readonly ranges: readonly { readonly bytes: number; readonly offset: number }[];
}

/** A GPA range: bytes from an offset in the first page on. */
export interface RawRange {
  readonly offset: number;
  readonly bytes: number;
  readonly pfns: readonly bigint[];
}

const PAGE = 4096;

export class RawGuest {
  readonly arena: Arena;
  readonly pair: MemoryPair;
  opened!: OpenChannel;
  #write = 0;
  #read = 0;
  #id = 0x1000n;
  readonly #pages: number[] = [];
  readonly #step: () => void;

  constructor(arena: Arena, pair: MemoryPair, step: () => void) {
    this.arena = arena;
    this.pair = pair;
    this.#step = step;
  }

  open(): void {
    this.opened = this.pair.device.open();
    this.#write = 0;
    this.#read = 0;
    this.#step();
  }

  close(): void {
    this.pair.device.close();
    this.#step();
  }

  /** Writes a packet and publishes it; `header` is what lies between descriptor and payload. The host is not stepped. */
  put(type: number, flags: number, id: bigint, payload: Uint8Array, header: Uint8Array = new Uint8Array(0)): void {
    const { control, dataBytes } = this.opened.transmit;
    const body = (payload.length + 7) & ~7;
    const total = 16 + header.length + body;
    const packet = new Uint8Array(total + 8);
    const view = new DataView(packet.buffer);
    view.setUint16(0, type, true);
    view.setUint16(2, (16 + header.length) / 8, true);
    view.setUint16(4, total / 8, true);
    view.setUint16(6, flags, true);
    view.setBigUint64(8, id, true);
    packet.set(header, 16);
    packet.set(payload, 16 + header.length);
    view.setUint32(total + 4, this.#write, true);
    const out = this.arena.u32[(control + 4) >>> 2]!;
    const free = out > this.#write ? out - this.#write - 8 : dataBytes - (this.#write - out) - 8;
    assert.ok(packet.length <= free, 'the guest ring is full');
    for (const [i, byte] of packet.entries()) this.arena.u8[control + PAGE + ((this.#write + i) % dataBytes)] = byte;
    this.#write = (this.#write + packet.length) % dataBytes;
    this.arena.u32[control >>> 2] = this.#write;
  }

  /** The next packet from the host, if there is one. */
  take(): Packet | undefined {
    const { control, dataBytes } = this.opened.receive;
    const end = this.arena.u32[control >>> 2]!;
    if (end === this.#read) return undefined;
    const at = (offset: number, bytes: number) =>
      Uint8Array.from(
        { length: bytes },
        (_, i) => this.arena.u8[control + PAGE + ((this.#read + offset + i) % dataBytes)]!,
      );
    const head = at(0, 16);
    const view = new DataView(head.buffer);
    const type = view.getUint16(0, true);
    const data = view.getUint16(2, true) * 8;
    const total = view.getUint16(4, true) * 8;
    const packet = at(0, total);
    const body = new DataView(packet.buffer);
    const count = type === 7 ? body.getUint32(20, true) : 0;
    const ranges = Array.from({ length: count }, (_, i) => ({
      bytes: body.getUint32(24 + i * 8, true),
      offset: body.getUint32(28 + i * 8, true),
    }));
    this.#read = (this.#read + total + 8) % dataBytes;
    this.arena.u32[(control + 4) >>> 2] = this.#read;
    return {
      type,
      flags: view.getUint16(6, true),
      id: view.getBigUint64(8, true),
      payload: packet.slice(data),
      setId: type === 7 ? body.getUint16(16, true) : 0,
      ranges,
    };
  }

  all(): Packet[] {
    const packets: Packet[] = [];
    for (let packet = this.take(); packet; packet = this.take()) packets.push(packet);
    return packets;
  }

  /** Sends an NVSP message; returns its completion's payload, or undefined when none came. */
  nvsp(message: Uint8Array, flags = 1): Uint8Array | undefined {
    const id = ++this.#id;
    this.put(6, flags, id, message);
    this.#step();
    const packet = this.take();
    if (!packet) return undefined;
    assert.equal(packet.type, 11);
    assert.equal(packet.id, id);
    return packet.payload;
  }

  /** Puts an RNDIS message into section 0 of the send buffer and names it; returns the transaction id. */
  putRndis(message: Uint8Array, channelType = 1, flags = 1): bigint {
    const id = ++this.#id;
    this.arena.u8.set(message, this.opened.sendBuffer.address);
    this.put(6, flags, id, words(107, channelType, 0, message.length));
    return id;
  }

  /** Names an RNDIS message by GPA ranges; returns the transaction id. */
  putRanges(...ranges: readonly RawRange[]): bigint {
    const id = ++this.#id;
    const parts = ranges.map(({ offset, bytes, pfns }) =>
      concat(words(bytes, offset), ...pfns.map((pfn) => words(Number(pfn & 0xffff_ffffn), Number(pfn >> 32n)))),
    );
    this.put(9, 1, id, words(107, 0, 0xffffffff, 0), concat(words(0, ranges.length), ...parts));
    return id;
  }

  /** The same in a page of its own. */
  putRndisDirect(message: Uint8Array, pfn?: bigint): bigint {
    const page = this.pair.device.memory.allocate('raw guest page', PAGE);
    this.#pages.push(page);
    this.arena.u8.set(message, page);
    return this.putRanges({ offset: 0, bytes: message.length, pfns: [pfn ?? this.pair.device.memory.pfn(page)] });
  }

  /** Gives back the pages that putRndisDirect took. */
  releasePages(): void {
    for (const page of this.#pages.splice(0)) this.pair.device.memory.release(page);
  }

  /** Reads the next packet as the completion of `id`; its NVSP status. */
  completion(id: bigint): number {
    const packet = this.take();
    assert.ok(packet, 'no completion came');
    assert.equal(packet.type, 11);
    assert.equal(packet.id, id);
    assert.equal(word(packet.payload, 0), 108);
    return word(packet.payload, 1);
  }

  /** Reads the next packet as an RNDIS control message and gives its suballocation back. */
  control(): Uint8Array | undefined {
    const packet = this.take();
    if (!packet) return undefined;
    assert.equal(packet.type, 7);
    assert.equal(packet.flags, 1);
    assert.equal(word(packet.payload, 0), 107);
    assert.equal(word(packet.payload, 1), 1, 'channel type of a control message');
    assert.equal(packet.ranges.length, 1);
    const { bytes, offset } = packet.ranges[0]!;
    const message = this.arena.u8.slice(
      this.opened.receiveBuffer.address + offset,
      this.opened.receiveBuffer.address + offset + bytes,
    );
    this.put(11, 0, packet.id, words(108, 1));
    return message;
  }

  /** Sends an RNDIS control message and returns the answer; asserts that the order is completion, then answer. */
  rndis(message: Uint8Array): Uint8Array {
    const id = this.putRndis(message);
    this.#step();
    assert.equal(this.completion(id), 1);
    const answer = this.control();
    assert.ok(answer, 'no RNDIS answer came');
    return answer;
  }

  /** A query's status and data. */
  query(oid: number, input: Uint8Array = new Uint8Array(0)): { status: number; data: Uint8Array } {
    const answer = this.rndis(concat(words(4, 28 + input.length, 77, oid, input.length, 20, 0), input));
    assert.deepEqual([word(answer, 0), word(answer, 1), word(answer, 2)], [0x80000004, answer.length, 77]);
    assert.equal(word(answer, 5), 16);
    assert.equal(word(answer, 4), answer.length - 24);
    return { status: word(answer, 3), data: answer.slice(24) };
  }

  /** A set's status. */
  set(oid: number, data: Uint8Array): number {
    const answer = this.rndis(concat(words(5, 28 + data.length, 78, oid, data.length, 20, 0), data));
    assert.deepEqual([word(answer, 0), word(answer, 1), word(answer, 2)], [0x80000005, 16, 78]);
    return word(answer, 3);
  }

  // The messages of 3.2, by hand.
  init = (version: number) => this.nvsp(words(1, version, version, 0, 0, 0, 0));
  config = (mtu: number, capabilities = 0, flags = 1) => this.nvsp(words(125, mtu, 0, capabilities, 0, 0, 0), flags);
  ndisVersion = (major: number, minor: number) => this.nvsp(words(100, major, minor, 0, 0, 0, 0));
  receiveBuffer = (gpadl = this.opened.receiveBuffer.gpadl, id = 0xcafe) =>
    this.nvsp(words(101, gpadl, id, 0, 0, 0, 0));
  sendBuffer = (gpadl = this.opened.sendBuffer.gpadl) => this.nvsp(words(104, gpadl, 0, 0, 0, 0, 0));
  initialize = (requestId = 1) => this.rndis(words(2, 24, requestId, 1, 0, 0x4000));

  /** From open to Ready with RNDIS initialized and everything received. */
  attach(
    version: number,
    options: { readonly mtu?: number; readonly capabilities?: number; readonly filter?: number } = {},
  ): void {
    this.open();
    assert.equal(word(this.init(version)!, 3), 1);
    if (version > 2) assert.equal(this.config(options.mtu ?? 1514, options.capabilities ?? 8)!.length, 0);
    assert.ok(this.ndisVersion(6, version > 0x40000 ? 30 : 1));
    assert.equal(word(this.receiveBuffer()!, 1), 1);
    assert.equal(word(this.sendBuffer()!, 1), 1);
    assert.equal(word(this.initialize(), 3), 0);
    assert.equal(this.set(0x0001010e, words(options.filter ?? 0x0d)), 0);
  }
}

export interface Rig {
  readonly arena: Arena;
  readonly datapath: Datapath;
  readonly bus: MemoryBus;
  readonly host: Host;
  readonly guests: readonly RawGuest[];
  readonly guest: RawGuest;
  step(): void;
  /** Happens at the end of the test anyway. */
  close(): void;
}

export interface RigOptions {
  readonly profile?: ProfileName;
  readonly nics?: readonly HostNicOptions[];
  readonly ringBytes?: number;
  readonly receiveBytes?: number;
  readonly uplinks?: readonly UplinkFactory[];
  /** Guest memory cannot be mapped by the host. */
  readonly unmappable?: boolean;
}

/** Rigs of a file take turns in one arena. */
let shared: { arena: Arena; datapath: Datapath; bytes: number } | undefined;
let rigs = 0;

/** A host with raw guests; everything is given back when the test ends, and checked to be. */
export function createRig(t: TestContext, options: RigOptions = {}): Rig {
  if (!shared) {
    const arena = Arena.create({ bytes: 48 << 20 });
    shared = { arena, datapath: createDatapath(arena.memory), bytes: arena.free().bytes };
  }
  const { arena, datapath, bytes } = shared;
  rigs++;
  const nics = options.nics ?? [{}];
  const bus = createMemoryBus(arena, {
    devices: nics.length,
    ringBytes: options.ringBytes ?? 256 << 10,
    receiveBytes: options.receiveBytes ?? 512 << 10,
    sendBytes: 256 << 10,
    unmappable: options.unmappable ?? false,
  });
  const makeHost = () => {
    try {
      return Host.create({
        arena,
        datapath,
        machine: 'test',
        profile: options.profile ?? 'ws2019',
        nics,
        offers: bus.pairs.map((pair) => pair.offer),
        ...(options.uplinks ? { uplinks: options.uplinks } : {}),
      });
    } catch (error) {
      rigs--;
      bus.close();
      throw error;
    }
  };
  const host = makeHost();
  const step = () => {
    for (let i = 0; i < 8; i++) host.step();
  };
  const guests = bus.pairs.map((pair) => new RawGuest(arena, pair, step));
  let open = true;
  const close = () => {
    if (!open) return;
    open = false;
    host.close();
    bus.close();
    if (--rigs === 0) assert.equal(arena.free().bytes, bytes, 'host and bus gave all their memory back');
  };
  t.after(close);
  return { arena, datapath, bus, host, guests, guest: guests[0]!, step, close };
}
