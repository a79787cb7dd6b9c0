// The compiled half and the model side by side: every step runs on both and must leave the same bytes and numbers.
import assert from 'node:assert/strict';
import { createRig, type Rig, type RigOptions } from '../../bench/rig.js';
import { createDatapath } from '../../src/datapath/datapath.js';
import { Arena } from '../../src/memory/arena.js';
import {
  EVENT,
  FRAGMENT,
  FRAME,
  GUEST_QUEUE,
  HOST_CHANNEL,
  MBUF,
  NO_SECTION,
  POOL,
  TX_SLOT,
} from '../../src/memory/layout.js';
import { type Mbuf, type ModelEvent, ModelMemory, ModelPool, segmentsOf } from './model.js';
import { ModelGuest } from './model-guest.js';
import { type ModelFrame, ModelHost, type PolledFrame } from './model-host.js';
import type { ModelEnd } from './model-ring.js';

type GuestCell = keyof typeof GUEST_QUEUE.at;
type HostCell = keyof typeof HOST_CHANNEL.at;

export interface WorldOptions extends RigOptions {
  /** Cells to overwrite once the rig stands. */
  readonly guest?: Partial<Record<GuestCell, number>>;
  readonly host?: Partial<Record<HostCell, number>>;
  readonly slotCount?: number;
}

/** A packet to send: its bytes, where to cut it into segments, and the mbuf cells that matter. */
export interface Outgoing {
  readonly bytes: Uint8Array;
  readonly cuts: readonly number[];
  /** Moves the data by so many bytes from the pool's headroom on. */
  readonly shift: number;
  readonly flags: number;
  readonly hash: number;
  readonly vlanTci: number;
  readonly mss: number;
  readonly l4Offset: number;
}

/** A word that the other side changes. */
export interface Poke {
  readonly where: 'guestRing' | 'hostRing' | 'receive' | 'control' | 'send' | 'headroom' | 'in';
  readonly index: number;
  readonly word: number;
  readonly value: number;
}

const ARENA_BYTES = 4 << 20;
const INJECT_BYTES = 80_000;
const GATHERED_BYTES = 70_000;
export const arena = Arena.create({ bytes: ARENA_BYTES });
const datapath = createDatapath(arena.memory);

export class World {
  readonly rig: Rig;
  readonly guest: ModelGuest;
  readonly host: ModelHost;
  readonly #memory: ModelMemory;
  readonly #pools: { address: number; model: ModelPool }[];
  readonly #regions: { name: string; from: number; to: number }[];
  readonly #mbufs: number[] = [];
  readonly #inject: number;
  readonly #gathered: number;
  /** Received mbufs that the test holds. */
  held: Mbuf[] = [];
  #polled: PolledFrame[] = [];

  constructor(options: WorldOptions) {
    const rig = createRig(arena, datapath, options);
    this.rig = rig;
    this.#inject = arena.reserve('injected frames', INJECT_BYTES);
    this.#gathered = arena.reserve('gathered frame', GATHERED_BYTES);
    const set = (base: number, at: Record<string, number>, cells: Record<string, number> = {}) => {
      for (const [name, value] of Object.entries(cells)) arena.u32[(base + at[name]!) >>> 2] = value;
    };
    set(rig.queue, GUEST_QUEUE.at, options.guest);
    set(rig.channel, HOST_CHANNEL.at, options.host);
    if (options.slotCount) {
      const list = this.#guestCell('freeSlots') >>> 2;
      for (let i = 0; i < options.slotCount; i++) arena.u32[list + i] = options.slotCount - 1 - i;
      set(rig.queue, GUEST_QUEUE.at, { slotCount: options.slotCount, freeSlotCount: options.slotCount });
    }
    datapath.hostReset(rig.channel);
    this.#memory = new ModelMemory(arena.u8.slice());
    this.#pools = [rig.smallPool, rig.largePool].map((address) => ({ address, model: this.#modelPool(address) }));
    const g = (name: GuestCell) => this.#guestCell(name);
    const h = (name: HostCell) => this.#hostCell(name);
    const rings = { guestRing: rig.guestRing, hostRing: rig.hostRing, ringSize: g('writeSize') };
    const packets = { packets: g('pfnBase'), packetBytes: g('pfnPages') * 4096 };
    const from = <T extends string>(read: (name: T) => number, names: readonly T[]) =>
      Object.fromEntries(names.map((name) => [name, read(name)])) as Record<T, number>;
    const shared = [
      'eventBytes',
      'receiveBuffer',
      'receiveBytes',
      'receiveBufferId',
      'sendBuffer',
      'sendSectionBytes',
      'nvspBytes',
      'maxFrameBytes',
    ] as const;
    const guestCells = [
      'spare',
      'receiveSectionBytes',
      'sendSections',
      'slotCount',
      'maxPacketsPerMessage',
      'packetAlignment',
      'copyLimit',
      'sectionLimit',
      'offloads',
      'lsoMax4',
      'lsoMax6',
      'completionCapacity',
      'rangeCapacity',
    ] as const;
    const hostCells = [
      'suballocationBytes',
      'suballocationCount',
      'firstDataSuballocation',
      'sendBytes',
      'maxRanges',
      'transactionCapacity',
      'frameCapacity',
      'fragmentCapacity',
    ] as const;
    const [small, large] = this.#pools.map((pool) => pool.model) as [ModelPool, ModelPool];
    const guestConfig = { ...rings, ...packets, ...from(g, shared), ...from(g, guestCells) };
    this.guest = new ModelGuest(this.#memory, guestConfig, small, large);
    this.host = new ModelHost(this.#memory, { ...rings, ...packets, ...from(h, shared), ...from(h, hostCells) });
    const span = (name: string, at: number, bytes: number) => ({ name, from: at, to: at + bytes });
    this.#regions = [
      span('guest ring', rig.guestRing, rings.ringSize + 4096),
      span('host ring', rig.hostRing, rings.ringSize + 4096),
      span('receive buffer', rig.receiveBuffer, g('receiveBytes')),
      span('send buffer', rig.sendBuffer, h('sendBytes')),
      span('injected frames', this.#inject, INJECT_BYTES),
    ];
    for (const { address } of this.#pools) {
      const pool = (at: number) => arena.u32[(address + at) >>> 2]!;
      for (let i = 0; i < pool(POOL.at.count); i++) {
        const buffer = pool(POOL.at.base) + i * pool(POOL.at.stride) + MBUF.bytes;
        this.#mbufs.push(buffer - MBUF.bytes);
        this.#regions.push(span(`packet buffer ${buffer}`, buffer, pool(POOL.at.room)));
      }
    }
    this.compare();
  }

  close(): void {
    arena.release(this.#gathered);
    arena.release(this.#inject);
    this.rig.close();
  }

  #guestCell(name: GuestCell): number {
    return arena.u32[(this.rig.queue + GUEST_QUEUE.at[name]) >>> 2]!;
  }

  #hostCell(name: HostCell): number {
    return arena.u32[(this.rig.channel + HOST_CHANNEL.at[name]) >>> 2]!;
  }

  #modelPool(address: number): ModelPool {
    const cell = (at: number) => arena.u32[(address + at) >>> 2]!;
    const stack = cell(POOL.at.stack) >>> 2;
    const handles = [...arena.u32.subarray(stack, stack + cell(POOL.at.free))];
    return new ModelPool(handles, MBUF.bytes, cell(POOL.at.room), cell(POOL.at.headroom));
  }

  #both(at: number, bytes: Uint8Array): void {
    arena.u8.set(bytes, at);
    this.#memory.bytes.set(bytes, at);
  }

  /** A buffer from both pools. */
  #take(large: boolean): Mbuf | undefined {
    const { address, model } = this.#pools[large ? 1 : 0]!;
    const mbuf = model.get();
    assert.equal(datapath.poolGet(address, this.rig.handles, 1), mbuf ? 1 : 0, 'poolGet');
    if (mbuf) assert.equal(arena.u32[this.rig.handles >>> 2], mbuf.handle, 'handle from the pool');
    return mbuf;
  }

  #free(head: Mbuf): void {
    arena.u32[this.rig.handles >>> 2] = head.handle;
    datapath.mbufFree(this.rig.handles, 1);
    for (const segment of segmentsOf(head)) segment.pool.free.push(segment);
  }

  /** The mbuf chain of a packet; undefined when the pools run dry. */
  #build(packet: Outgoing): Mbuf | undefined {
    const bounds = [0, ...packet.cuts.filter((cut) => cut < packet.bytes.length), packet.bytes.length];
    let head: Mbuf | undefined;
    let tail: Mbuf | undefined;
    for (let i = 0; i + 1 < bounds.length; i++) {
      const part = packet.bytes.subarray(bounds[i], bounds[i + 1]);
      const small = this.#pools[0]!.model;
      const segment = this.#take(part.length + 192 > small.room);
      if (!segment) {
        // Not linked yet.
        for (const part of head ? segmentsOf(head) : []) this.#free({ ...part, next: undefined });
        return undefined;
      }
      segment.data += packet.shift;
      segment.length = part.length;
      this.#both(segment.data, part);
      if (tail) tail.next = segment;
      head ??= segment;
      tail = segment;
    }
    const { flags, hash, vlanTci, mss, l4Offset } = packet;
    Object.assign(head!, { packetLength: packet.bytes.length, flags, hash, vlanTci, mss, l4Offset });
    for (const m of segmentsOf(head!)) {
      const cells = { data: m.data, dataLength: m.length, packetLength: m.packetLength, next: m.next?.handle ?? 0 };
      const rest = { flags: m.flags, hash: m.hash, vlanTci: m.vlanTci, mss: m.mss, l4Offset: m.l4Offset };
      for (const [name, value] of Object.entries({ ...cells, ...rest })) {
        arena.u32[(m.handle + MBUF.at[name as keyof typeof MBUF.at]) >>> 2] = value;
      }
    }
    return head;
  }

  send(packets: readonly Outgoing[]): void {
    const built = packets.map((packet) => this.#build(packet)).filter((mbuf) => mbuf !== undefined);
    built.forEach((mbuf, i) => {
      arena.u32[(this.rig.handles >>> 2) + i] = mbuf.handle;
    });
    const taken = datapath.guestSend(this.rig.queue, this.rig.handles, built.length);
    assert.equal(taken, this.guest.send(built), 'guestSend: packets taken');
    for (const mbuf of built.slice(taken)) this.#free(mbuf);
  }

  guestPoll(max: number): void {
    const expected = this.guest.poll(max);
    const n = datapath.guestPoll(this.rig.queue, this.rig.handles, max);
    assert.equal(n, expected.length, 'guestPoll: packets');
    expected.forEach((mbuf, i) => {
      const handle = arena.u32[(this.rig.handles >>> 2) + i]!;
      const cell = (name: keyof typeof MBUF.at) => arena.u32[(handle + MBUF.at[name]) >>> 2]!;
      const { data, length, packetLength, flags, hash, vlanTci, mss, l4Offset } = mbuf;
      const want = { handle: mbuf.handle, next: 0, data, length, packetLength, flags, hash, vlanTci, mss, l4Offset };
      const got = { handle, next: cell('next'), data: cell('data'), length: cell('dataLength') };
      const rest = { packetLength: cell('packetLength'), flags: cell('flags'), hash: cell('hash') };
      const last = { vlanTci: cell('vlanTci'), mss: cell('mss'), l4Offset: cell('l4Offset') };
      assert.deepEqual({ ...got, ...rest, ...last }, want, `received packet ${i}`);
    });
    this.held.push(...expected);
  }

  freeHeld(count: number): void {
    for (const mbuf of this.held.splice(0, count)) this.#free(mbuf);
  }

  /** Polls; `forward` sends what came back to the same guest; `complete` writes the completions. */
  hostPoll(max: number, forward: boolean, complete: boolean): void {
    const { rig } = this;
    // A guest may name any page of its packet memory: also its mbufs' cells, which the model keeps elsewhere.
    for (const at of this.#mbufs) this.#memory.bytes.set(arena.u8.subarray(at, at + MBUF.bytes), at);
    const expected = this.host.poll(max);
    const n = datapath.hostPoll(rig.channel, max);
    assert.equal(n, expected?.length ?? 0, 'hostPoll: frames');
    const table = this.#hostCell('frames');
    const gathered = this.#gathered;
    this.#polled = expected ?? [];
    this.#polled.forEach((frame, i) => {
      const at = table + i * FRAME.bytes;
      const cell = (name: keyof typeof FRAME.at) => arena.u32[(at + FRAME.at[name]) >>> 2]!;
      const got = { flags: cell('flags'), vlanTci: cell('vlanTci'), mss: cell('mss'), l4Offset: cell('l4Offset') };
      const more = {
        length: cell('length'),
        hash: cell('hash'),
        transaction: cell('transaction'),
        source: cell('source'),
      };
      const { bytes, flags, vlanTci, mss, l4Offset, hash, transaction, fragments } = frame;
      const want = { flags, vlanTci, mss, l4Offset, length: bytes.length, hash, transaction, source: 1, fragments };
      assert.deepEqual({ ...got, ...more, fragments: cell('fragmentCount') }, want, `frame ${i}`);
      datapath.frameGather(at, gathered);
      same(arena.u8.subarray(gathered, gathered + bytes.length), bytes, `bytes of frame ${i}`);
      const head = Math.min(256, bytes.length);
      same(arena.u8.subarray(cell('head'), cell('head') + head), bytes.subarray(0, head), `head of frame ${i}`);
      arena.u32[(rig.frames >>> 2) + i] = at;
    });
    if (forward) assert.equal(datapath.hostSend(rig.channel, rig.frames, n), this.host.send(this.#polled), 'hostSend');
    if (complete) this.hostComplete();
  }

  hostComplete(): void {
    assert.equal(datapath.hostComplete(this.rig.channel), this.host.complete(), 'hostComplete: still waiting');
  }

  /** Frames from elsewhere, each cut into fragments of `piece` bytes, a burst that fits the area. */
  inject(frames: readonly ModelFrame[], piece: number): void {
    let at = this.#inject;
    const list: ModelFrame[] = [];
    for (const frame of frames) {
      const count = Math.ceil(frame.bytes.length / piece);
      const data = at + FRAME.bytes + count * FRAGMENT.bytes;
      const end = Math.ceil((data + frame.bytes.length + 1) / 64) * 64;
      if (end > this.#inject + INJECT_BYTES) break;
      const put = (address: number, value: number) => this.#both(address, new Uint8Array(Uint32Array.of(value).buffer));
      this.#both(at, new Uint8Array(FRAME.bytes));
      for (const name of ['flags', 'vlanTci', 'mss', 'l4Offset', 'hash', 'hashInfo'] as const)
        put(at + FRAME.at[name], frame[name]);
      put(at + FRAME.at.length, frame.bytes.length);
      put(at + FRAME.at.fragments, at + FRAME.bytes);
      put(at + FRAME.at.fragmentCount, count);
      put(at + FRAME.at.head, data + 1);
      for (let i = 0; i < count; i++) {
        const entry = at + FRAME.bytes + i * FRAGMENT.bytes;
        put(entry + FRAGMENT.at.address, data + 1 + i * piece);
        put(entry + FRAGMENT.at.bytes, Math.min(piece, frame.bytes.length - i * piece));
      }
      this.#both(data + 1, frame.bytes);
      arena.u32[(this.rig.frames >>> 2) + list.length] = at;
      list.push(frame);
      at = end;
    }
    const sent = datapath.hostSend(this.rig.channel, this.rig.frames, list.length);
    assert.equal(sent, this.host.send(list), 'hostSend: frames');
  }

  /** A peer that changes shared bytes: a word near what is read next, or in the messages that buffers hold. */
  poke(...words: readonly Poke[]): void {
    for (const word of words) this.#poke(word);
  }

  #poke({ where, index, word, value }: Poke): void {
    const { rig, guest, host } = this;
    const ring = (base: number, end: ModelEnd) => base + 4096 + ((end.readIndex + word * 4) % end.size);
    const unit = host.c.suballocationBytes;
    const first = host.c.firstDataSuballocation;
    const handle = this.#pools[0]!.model.free[0]?.handle;
    const places = {
      guestRing: ring(rig.guestRing, host.end),
      hostRing: ring(rig.hostRing, guest.end),
      receive: rig.receiveBuffer + ((first + index) % host.c.suballocationCount) * unit + word * 4,
      control: rig.receiveBuffer + (index % first) * unit + word * 4,
      send: rig.sendBuffer + (index % guest.c.sendSections) * guest.c.sendSectionBytes + word * 4,
      headroom: guest.slots.find(({ send }) => send?.mbuf)?.send?.mbuf?.data ?? handle ?? 0,
      in: index % 2 ? rig.guestRing : rig.hostRing,
    };
    let at = places[where];
    if (where === 'headroom') {
      if (at === 0 || at === handle) return;
      at -= 108 - 4 * (word % 27);
    }
    this.#both(at, new Uint8Array(Uint32Array.of(value).buffer));
  }

  control(message: Uint8Array): void {
    this.#both(this.#inject, message);
    const sent = datapath.hostSendControl(this.rig.channel, this.#inject, message.length);
    assert.equal(sent === 1, this.host.sendControl(message), 'hostSendControl');
  }

  ringSend(host: boolean, type: number, flags: number, low: number, high: number, payload: Uint8Array): void {
    const [end, model] = this.#end(host);
    this.#both(this.#inject, payload);
    const sent = datapath.ringSend(end, type, flags, low, high, this.#inject, payload.length);
    assert.equal(sent === 1, model.send(type, flags, low, high, payload), 'ringSend');
  }

  #end(host: boolean): [number, ModelEnd] {
    return host ? [this.rig.channel, this.host.end] : [this.rig.queue, this.guest.end];
  }

  mask(host: boolean, on: boolean): void {
    const [end, model] = this.#end(host);
    if (!on) assert.equal(datapath.ringUnmask(end) === 1, model.unmask(), 'ringUnmask');
    else {
      datapath.ringMask(end);
      model.mask();
    }
  }

  takeSignal(host: boolean): void {
    const [end, model] = this.#end(host);
    arena.u32[(end + GUEST_QUEUE.at.needSignal) >>> 2] = 0;
    model.needSignal = false;
  }

  abandon(): void {
    datapath.guestAbandon(this.rig.queue);
    this.guest.abandon();
  }

  flush(): void {
    assert.equal(datapath.guestFlush(this.rig.queue), this.guest.flush(), 'guestFlush: still waiting');
  }

  drain(host: boolean): void {
    const base = host ? this.rig.channel : this.rig.queue;
    const cell = (name: 'events' | 'eventUsed') => (base + GUEST_QUEUE.at[name]) >>> 2;
    const expected = (host ? this.host : this.guest).events.drain();
    const got: ModelEvent[] = [];
    const start = arena.u32[cell('events')]!;
    const end = start + arena.u32[cell('eventUsed')]!;
    for (let at = start; at < end; ) {
      const [kind, bytes, idLow, idHigh, a, b] = arena.u32.subarray(at >>> 2, (at >>> 2) + 6) as unknown as number[];
      const payload = arena.u8.slice(at + EVENT.bytes, at + EVENT.bytes + bytes!);
      got.push({ kind: kind!, idLow: idLow!, idHigh: idHigh!, a: a!, b: b!, payload });
      at += EVENT.bytes + Math.ceil(bytes! / 8) * 8;
    }
    arena.u32[cell('eventUsed')] = 0;
    assert.deepEqual(got, expected, `${host ? 'host' : 'guest'} events`);
  }

  /** Everything that both must agree on between steps. */
  compare(): void {
    for (const { name, from, to } of this.#regions) {
      if (Buffer.compare(arena.u8.subarray(from, to), this.#memory.bytes.subarray(from, to)) !== 0) {
        same(arena.u8.subarray(from, to), this.#memory.bytes.subarray(from, to), name);
      }
    }
    this.#compareEnd('guest', this.rig.queue, GUEST_QUEUE, this.guest.end);
    this.#compareEnd('host', this.rig.channel, HOST_CHANNEL, this.host.end);
    const { guest, host, rig } = this;
    const list = (at: number, count: number) => [...arena.u32.subarray(at >>> 2, (at >>> 2) + count)];
    const g = (name: GuestCell) => this.#guestCell(name);
    const h = (name: HostCell) => this.#hostCell(name);
    assert.deepEqual(list(g('freeSections'), g('freeSectionCount')), guest.freeSections, 'free sections');
    assert.deepEqual(list(g('freeSlots'), g('freeSlotCount')), guest.freeSlots, 'free slots');
    assert.deepEqual(list(h('freeSuballocations'), h('freeSuballocationCount')), host.freeData, 'free suballocations');
    assert.deepEqual(list(h('freeControl'), h('freeControlCount')), host.freeControl, 'free control suballocations');
    const { open } = guest;
    const section = { section: g('section'), ...(open && { used: g('sectionUsed'), packets: g('sectionPackets') }) };
    const { used, packets } = open ?? {};
    assert.deepEqual(section, { section: open?.section ?? NO_SECTION, ...(open && { used, packets }) }, 'open section');
    guest.slots.forEach((slot, i) => {
      const at = (g('slots') + i * TX_SLOT.bytes) >>> 2;
      assert.equal(arena.u32[at], slot.generation, `generation of slot ${i}`);
      assert.equal(arena.u32[at + 1], slot.send ? 1 : 0, `slot ${i} busy`);
    });
    const got = { stopped: g('stopped'), events: g('eventUsed'), completions: g('completionCount') };
    const want = { stopped: Number(guest.stopped), events: guest.events.used, completions: guest.completions.length };
    assert.deepEqual(got, want, 'guest state');
    assert.equal(g('coalescing'), guest.coalescing?.mbuf.handle ?? 0, 'packet under assembly');
    const gotHost = { events: h('eventUsed'), transactions: h('transactionCount'), error: h('frameError') };
    const wantHost = { events: host.events.used, transactions: host.transactions.length, error: host.frameError };
    assert.deepEqual(gotHost, wantHost, 'host state');
    for (const { address, model } of this.#pools) {
      const stack = arena.u32[(address + POOL.at.stack) >>> 2]!;
      const handles = model.free.map((mbuf) => mbuf.handle);
      assert.deepEqual(list(stack, arena.u32[(address + POOL.at.free) >>> 2]!), handles, 'pool');
      assert.equal(Number(arena.u64[(address + POOL.at.exhausted) >>> 3]), model.exhausted, 'pool exhausted');
    }
    assert.equal(
      datapath.ringReadable(rig.queue) === 0,
      guest.end.readIndex === this.#memory.u32(rig.hostRing),
      'readable',
    );
  }

  #compareEnd(name: string, base: number, table: { at: object; types: object }, model: ModelEnd): void {
    const at = table.at as Record<string, number>;
    for (const [cell, type] of Object.entries(table.types)) {
      if (type !== 'u64') continue;
      const got = Number(arena.u64[(base + at[cell]!) >>> 3]);
      assert.equal(got, model.counters.values[cell] ?? 0, `${name} counter ${cell}`);
    }
    const { writeIndex, readIndex, peerRead, published, error, errorDetail, needSignal, blocked } = model;
    const want = {
      writeIndex,
      readIndex,
      peerRead,
      published,
      ringError: error,
      ringErrorDetail: errorDetail,
      blocked,
    };
    for (const [cell, value] of Object.entries({ ...want, needSignal: Number(needSignal) })) {
      assert.equal(arena.u32[(base + at[cell]!) >>> 2], value, `${name} ${cell}`);
    }
  }
}

function same(got: Uint8Array, want: Uint8Array, what: string): void {
  if (Buffer.compare(got, want) === 0) return;
  const at = got.findIndex((byte, i) => byte !== want[i]);
  const hex = (bytes: Uint8Array) => Buffer.from(bytes.slice(at & ~7, (at & ~7) + 32)).toString('hex');
  assert.fail(`${what}: byte ${at} differs: compiled ${hex(got)}, model ${hex(want)} (from ${at & ~7})`);
}
