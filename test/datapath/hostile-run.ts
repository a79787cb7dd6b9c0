// Hostile peers by the seed: valid traffic whose shared bytes change, packets made to be wrong, indices that lie. Runs in a
// worker thread, so that a loop without end is found (hostile.test.ts).
import assert from 'node:assert/strict';
import { parentPort, workerData } from 'node:worker_threads';
import { createDatapath } from '../../src/datapath/datapath.js';
import { Arena } from '../../src/memory/arena.js';
import {
  EVENT,
  PACKET_FLAG as F,
  FRAGMENT,
  FRAME,
  GUEST_QUEUE,
  HOST_CHANNEL,
  MBUF,
  NO_SECTION,
  POOL,
  TRANSACTION,
} from '../../src/memory/layout.js';
import { Random } from './hostile-random.js';
import { HostileRig } from './hostile-rig.js';

export interface HostileJob {
  readonly seed: number;
  readonly runs: number;
  /** Word 0: the seed of the run at hand. */
  readonly progress: Int32Array;
}

const arena = Arena.create({ bytes: 3 << 20 });
const datapath = createDatapath(arena.memory);
const { u32, u8 } = arena;

const counterOf = (base: number, at: number) => Number(arena.u64[(base + at) >>> 3]);

class Run {
  readonly r: Random;
  readonly h: HostileRig;
  readonly frameErrors = new Set<number>();
  held: number[] = [];

  constructor(seed: number) {
    this.r = new Random(seed);
    for (let i = 0; i < 8; i++) this.r.next();
    const { r } = this;
    this.h = new HostileRig(arena, datapath, {
      ringBytes: 4096 * r.pick(2, 3, 5),
      receiveBytes: (16 + r.pick(2, 8, 20)) * 1806,
      sendBytes: 6144 * r.pick(1, 3, 6),
      poolCount: 24,
      largeCount: 2,
      events: r.pick(512, 4096),
      maxPacketsPerMessage: r.pick(1, 4, 8),
    });
    if (r.chance(3)) {
      this.h.setGuest('completionCapacity', 3);
      this.h.setHost('transactionCapacity', 3);
    }
    if (r.chance(3)) this.h.setHost('frameCapacity', 4);
    if (r.chance(3)) this.h.setHost('fragmentCapacity', 5);
  }

  #span(name: string): { from: number; to: number } {
    return this.h.spans.get(name)!;
  }

  #scribble(from: number, to: number): void {
    const { r } = this;
    for (let n = r.pick(1, 1, 2, 8); n > 0; n--) {
      const at = from + r.below(to - from);
      if (r.chance(2)) u8[at] = r.next();
      else u32[(at & ~3) >>> 2] = r.word();
    }
  }

  /** Bytes that the other side may have changed at any time. */
  mutate(attacker: 'guest' | 'host'): void {
    const { r, h } = this;
    const own = attacker === 'host' ? this.#span('host ring') : this.#span('guest ring');
    const read = attacker === 'host' ? h.guest('readIndex') : h.host('readIndex');
    const size = own.to - own.from - 4096;
    const head = own.from + 4096 + ((read + 8 * r.below(12)) % size);
    switch (r.below(attacker === 'host' ? 6 : 8)) {
      case 0:
        u32[(head + 4 * r.below(2)) >>> 2] = r.word();
        break;
      case 1:
        this.#scribble(own.from + 4096, own.to);
        break;
      case 2: {
        // Indices, mask and pending size: seldom, because a lie ends the channel.
        const other = attacker === 'host' ? this.#span('guest ring') : this.#span('host ring');
        if (r.chance(4)) u32[own.from >>> 2] = r.pick(r.word(), (r.word() & ~7) % size);
        if (r.chance(4)) u32[(other.from + 4) >>> 2] = r.pick(r.word(), (r.word() & ~7) % size);
        u32[(own.from + 12) >>> 2] = r.word();
        u32[(other.from + 8) >>> 2] = r.below(2);
        break;
      }
      case 3:
      case 4:
        if (attacker === 'host') this.#scribble(this.#span('receive buffer').from, this.#span('receive buffer').to);
        else this.#scribble(this.#span('send buffer').from, this.#span('send buffer').to);
        break;
      case 5: {
        // RNDIS header of the first messages.
        const host = attacker === 'host';
        const { from, to } = this.#span(host ? 'receive buffer' : 'send buffer');
        const step = host ? h.host('suballocationBytes') : h.host('sendSectionBytes');
        const at = from + step * r.below(Math.floor((to - from) / step)) + 4 * r.below(host ? 28 : 16);
        u32[at >>> 2] = r.word();
        break;
      }
      default: {
        // Data rooms of packet buffers: the mbuf cells themselves are the guest's own.
        const room = this.#dataRoom();
        this.#scribble(room + 20, room + 300);
      }
    }
  }

  /** Data room of some small buffer; the mbuf cells in front of it are the guest's own. */
  #dataRoom(): number {
    const { smallPool } = this.h.rig;
    const cell = (at: number) => u32[(smallPool + at) >>> 2]!;
    return cell(POOL.at.base) + cell(POOL.at.stride) * this.r.below(cell(POOL.at.count)) + MBUF.bytes;
  }

  /** Writes a packet as no driver would; false = no room. */
  forge(attacker: 'guest' | 'host'): boolean {
    const { r } = this;
    const host = attacker === 'host';
    const ring = this.#span(host ? 'host ring' : 'guest ring');
    const size = ring.to - ring.from - 4096;
    const [own, peer] = host ? [this.h.rig.channel, this.h.rig.queue] : [this.h.rig.queue, this.h.rig.channel];
    const at = (base: number, cell: 'writeIndex' | 'published' | 'readIndex') => (base + GUEST_QUEUE.at[cell]) >>> 2;
    const body: number[] = [];
    // Wrong completions and transfers end a host's channel at once: seldom, so that there is time for more.
    const usual = host ? r.pick(6, 7, 7, 9, 11, 11) : r.chance(12) ? r.pick(7, 11, 11) : r.pick(6, 9, 9);
    const type = r.chance(60) ? r.below(16) : usual;
    if (type === 7) {
      const count = r.pick(0, 1, 1, 2, 5, 40);
      body.push(r.pick(0xcafe, 0xcafe, 0xcafe, 1), r.chance(4) ? r.word() : count);
      const unit = this.h.host('suballocationBytes');
      for (let i = 0; i < count; i++) {
        const index = r.below(this.h.host('suballocationCount'));
        const mode = r.below(5);
        if (mode === 4) body.push(unit, this.#beyondTheEnd(unit));
        else if (mode === 0) body.push(r.word(), r.word());
        else body.push(mode === 1 ? r.below(unit) : unit, index * unit);
        if (mode === 2 || mode === 3) this.#forgeMessage(this.#span('receive buffer').from + index * unit, unit, true);
      }
    } else if (type === 9) {
      const count = r.pick(1, 1, 2, 3);
      body.push(0, r.chance(25) ? r.word() : count);
      for (let i = 0; i < count; i++) {
        const at = this.#dataRoom() + 4 * r.below(200);
        const bytes = r.chance(20) ? r.word() : 1 + r.below(r.chance(3) ? 9000 : 1200);
        const offset = r.chance(25) ? r.word() : at & 4095;
        body.push(bytes, offset);
        const pages = Math.min(Math.ceil((offset + bytes) / 4096), 6);
        for (let p = 0; p < pages; p++) {
          const page = (at >>> 12) + (p > 0 && r.chance(3) ? r.below(5) : p);
          body.push(r.chance(12) ? r.word() : page, r.chance(20) ? r.word() : 0);
        }
        this.#forgeMessage(at, Math.min(bytes, 1200), false);
      }
    }
    const head = 16 + body.length * 4;
    const section = r.chance(3) ? NO_SECTION : r.chance(20) ? r.word() : r.below(4);
    const sectionBytes = r.chance(6) ? r.word() : r.below(3000);
    if (!host && section < 4) {
      const { from, to } = this.#span('send buffer');
      const start = from + section * 6144;
      if (start + 6144 <= to) this.#forgeMessage(start, Math.min(sectionBytes, 6144), false);
    }
    const payload =
      type === 11
        ? [r.chance(8) ? r.word() : 108, r.pick(1, 1, 2, r.word())]
        : [r.chance(8) ? r.word() : 107, 0, section, sectionBytes, 0, 0];
    const length = head + payload.length * 4;
    const write = u32[at(own, 'writeIndex')]!;
    const used = (write - u32[at(peer, 'readIndex')]! + size) % size;
    if (length + 8 > size - 8 - used) return false;
    const dataOffset = r.chance(60) ? r.word() & 0xffff : head / 8;
    const lengthField = r.chance(60) ? r.word() & 0xffff : length / 8;
    const low = type === 11 ? r.pick(r.below(20), r.below(20) | (r.below(3) << 16), r.word()) : r.next();
    const high = type === 11 ? (host ? r.pick(0x4e540001, 0x4e540001, 0) : r.pick(0, 0, 0, 0x4e540002)) : r.word();
    const first = [type | (dataOffset << 16), lengthField | ((r.chance(80) ? r.next() & 0xffff : 1) << 16), low, high];
    [...first, ...body, ...payload, 0, write].forEach((value, i) => {
      u32[(ring.from + 4096 + ((write + i * 4) % size)) >>> 2] = value;
    });
    const next = (write + length + 8) % size;
    for (const cell of ['writeIndex', 'published'] as const) u32[at(own, cell)] = next;
    u32[ring.from >>> 2] = next;
    return true;
  }

  /** Offset of a message in the receive buffer's last bytes that claims `bytes`, more than are left. */
  #beyondTheEnd(bytes: number): number {
    const { from, to } = this.#span('receive buffer');
    const at = (to - 44 - this.r.below(bytes - 44)) & ~3;
    u32.set([1, bytes, 36, bytes - 44, 0, 0, 0, 0, 0, 0, 0], at >>> 2);
    return at - from;
  }

  /** RNDIS messages whose fields are nearly right. */
  #forgeMessage(at: number, room: number, toGuest: boolean): void {
    const { r } = this;
    let left = room;
    for (let n = r.pick(1, 1, 1, 3); n > 0 && left > 200; n--) {
      const infos = r.below(4);
      const bytes = 14 + r.below(Math.min(left, 1700) - 170);
      const dataAt = r.chance(3) ? 256 : 44 + infos * 16;
      if (dataAt + bytes > left) return;
      const total = r.pick(dataAt + bytes, dataAt + bytes, left);
      const odd = (value: number) => (r.chance(16) ? r.word() : value);
      const head = [odd(1), odd(total), odd(dataAt - 8), odd(bytes), r.chance(40) ? 1 : 0, 0, 0];
      const words = [...head, odd(infos ? 36 : 0), odd(infos * 16), r.chance(40) ? r.word() : 0, 0];
      for (let i = 0; i < infos; i++) {
        const type = r.pick(0, 2, 6, 8, toGuest ? 0x80000001 : 2, r.word());
        const value = type > 0x80000000 ? 1 | (r.below(8) << 8) : type === 2 ? r.word() & 0xfff00fff : r.word();
        words.push(odd(16), type, odd(12), value);
      }
      words.forEach((value, i) => {
        if (at + i * 4 + 4 <= at + left) u32[(at + i * 4) >>> 2] = value;
      });
      if (dataAt + 40 <= left) {
        u8.set([0x08, 0, 0x45 + r.pick(0, 0, 1, 10)], at + dataAt + 12);
        u8[at + dataAt + 23] = r.pick(6, 17, 1);
      }
      at = (at + total + 3) & ~3;
      left -= (total + 3) & ~3;
    }
  }

  guestSend(): void {
    const { r, h } = this;
    const want = r.below(6);
    const n = datapath.poolGet(r.chance(6) ? h.rig.largePool : h.rig.smallPool, h.rig.handles, want);
    const handles = [...u32.subarray(h.rig.handles >>> 2, (h.rig.handles >>> 2) + n)];
    for (const handle of handles) {
      const cell = (name: keyof typeof MBUF.at) => (handle + MBUF.at[name]) >>> 2;
      const tso = r.chance(4);
      const bytes = tso ? 60 + r.below(1800) : 14 + r.below(1600);
      const data = u32[cell('data')]!;
      u8[data + 12] = 8;
      u8[data + 13] = 0;
      u8[data + 14] = 0x45;
      u8[data + 23] = 6;
      u32[cell('dataLength')] = u32[cell('packetLength')] = bytes;
      u32[cell('flags')] = tso ? F.TX_TSO | F.IPV4 : r.pick(0, F.VLAN, F.HASH, F.TX_TCP_CHECKSUM | F.IPV4);
      u32[cell('mss')] = 1448;
      u32[cell('l4Offset')] = 34;
    }
    const taken = h.call('guest', 'guestSend', () => datapath.guestSend(h.rig.queue, h.rig.handles, n));
    assert.ok(taken <= n, 'guestSend took more than it got');
    this.#free(handles.slice(taken));
  }

  #free(handles: number[]): void {
    const { rig } = this.h;
    handles.forEach((handle, i) => {
      u32[(rig.handles >>> 2) + i] = handle;
    });
    this.h.call('guest', 'mbufFree', () => datapath.mbufFree(rig.handles, handles.length));
  }

  guestPoll(): void {
    const { r, h } = this;
    const { rig } = h;
    const max = r.pick(1, 3, 32);
    const n = h.call('guest', 'guestPoll', () => datapath.guestPoll(rig.queue, rig.handles, max));
    assert.ok(n <= max, `guestPoll gave ${n} packets, asked for ${max}`);
    for (let i = 0; i < n; i++) {
      const handle = u32[(rig.handles >>> 2) + i]!;
      const cell = (name: keyof typeof MBUF.at) => u32[(handle + MBUF.at[name]) >>> 2]!;
      const end = cell('buffer') + cell('room');
      assert.equal(cell('buffer'), handle + MBUF.bytes, 'received handle is no mbuf');
      assert.ok(
        cell('dataLength') >= 14 && cell('data') + cell('dataLength') <= end,
        `received ${cell('dataLength')} bytes`,
      );
      assert.equal(cell('packetLength'), cell('dataLength'), 'packet length');
      assert.ok(cell('l4Offset') + 20 <= cell('dataLength') || cell('l4Offset') === 0, 'header offset in the packet');
      h.noLeak('received packet', cell('data'), cell('dataLength'));
      this.held.push(handle);
    }
    const messages = counterOf(rig.queue, GUEST_QUEUE.at.rxMessages);
    const sent = counterOf(rig.queue, GUEST_QUEUE.at.ringPacketsOut) - counterOf(rig.queue, GUEST_QUEUE.at.txMessages);
    const open = h.guest('completionCount') + (h.guest('rangeCount') > 0 ? 1 : 0);
    assert.equal(sent + open, messages, 'receive completions written, waiting and in work, against messages');
    if (r.chance(2)) this.#free(this.held.splice(0, r.below(this.held.length + 1)));
    if (r.chance(2)) this.#events('guest');
  }

  #events(side: 'guest' | 'host'): number {
    const { h } = this;
    const read = side === 'guest' ? h.guest('events') : h.host('events');
    const used = side === 'guest' ? h.guest('eventUsed') : h.host('eventUsed');
    assert.ok(used <= h.guest('eventBytes'), 'events beyond their buffer');
    let messages = 0;
    let at = read;
    h.noLeak(`${side} events`, read, used);
    while (at < read + used) {
      const kind = u32[at >>> 2]!;
      assert.ok(kind >= 1 && kind <= 4, `event kind ${kind}`);
      if (kind === 4) h.setHost('regionMissFails', this.r.below(2));
      else messages++;
      at += EVENT.bytes + ((u32[(at >>> 2) + 1]! + 7) & ~7);
    }
    assert.equal(at, read + used, 'last event ends where the events end');
    if (side === 'guest') h.setGuest('eventUsed', 0);
    else h.setHost('eventUsed', 0);
    return messages;
  }

  hostPoll(): void {
    const { r, h } = this;
    const { rig } = h;
    this.#events('host');
    const count = (name: 'ringPacketsIn' | 'ringPacketsOut') => counterOf(rig.channel, GUEST_QUEUE.at[name]);
    const completed = () => counterOf(rig.channel, HOST_CHANNEL.at.rxCompletions);
    const waiting = h.call('host', 'hostComplete', () => datapath.hostComplete(rig.channel));
    const before = [count('ringPacketsIn'), completed()] as const;
    const alive = h.host('ringError') === 0;
    const n = h.call('host', 'hostPoll', () => datapath.hostPoll(rig.channel, r.pick(1, 4, 64)));
    this.frameErrors.add(h.host('frameError'));
    const dead = alive && h.host('ringError') !== 0;
    if (waiting > 0 || !alive) assert.equal(count('ringPacketsIn'), before[0], 'read while completions wait');
    else {
      const events = this.#eventMessages();
      const taken = count('ringPacketsIn') - before[0];
      const answered = h.host('transactionCount') + events + completed() - before[1];
      assert.ok(
        taken === answered || (dead && taken === answered + 1),
        `${taken} packets taken, ${answered} accounted for`,
      );
    }
    assert.ok(n <= h.host('frameCapacity'), 'frames beyond the table');
    for (let i = 0; i < n; i++) this.#frame(h.host('frames') + i * FRAME.bytes, i);
    if (r.chance(3)) this.mutate('guest');
    if (n > 0 && r.chance(2)) h.call('host', 'hostSend', () => datapath.hostSend(rig.channel, rig.frames, n));
    this.#suballocations();
    if (r.chance(2)) this.#complete();
  }

  #eventMessages(): number {
    const read = this.h.host('events');
    let messages = 0;
    for (let at = read; at < read + this.h.host('eventUsed'); ) {
      if (u32[at >>> 2] !== 4) messages++;
      at += EVENT.bytes + ((u32[(at >>> 2) + 1]! + 7) & ~7);
    }
    return messages;
  }

  /** What hostComplete writes: one completion for each message that wants one, in order. */
  #complete(): void {
    const { h } = this;
    const table = h.host('transactions');
    const wanted: string[] = [];
    const first = h.host('transactionsDone');
    const start = h.host('writeIndex');
    const left = h.call('host', 'hostComplete', () => datapath.hostComplete(h.rig.channel));
    for (let i = first; i < h.host('transactionCount') - left; i++) {
      const cell = (name: keyof typeof TRANSACTION.at) =>
        u32[(table + i * TRANSACTION.bytes + TRANSACTION.at[name]) >>> 2];
      if (cell('wanted')) wanted.push(`${cell('idLow')} ${cell('idHigh')} ${cell('status')}`);
    }
    const { from, to } = this.#span('host ring');
    const size = to - from - 4096;
    const word = (at: number) => u32[(from + 4096 + (at % size)) >>> 2];
    const got: string[] = [];
    for (let at = start; at !== h.host('writeIndex'); at = (at + 64) % size)
      got.push(`${word(at + 8)} ${word(at + 12)} ${word(at + 20)}`);
    assert.deepEqual(got, wanted, 'completions in the ring');
  }

  #frame(at: number, index: number): void {
    const { h } = this;
    const cell = (name: keyof typeof FRAME.at) => u32[(at + FRAME.at[name]) >>> 2]!;
    let bytes = 0;
    for (let i = 0; i < cell('fragmentCount'); i++) {
      const entry = (cell('fragments') + i * FRAGMENT.bytes) >>> 2;
      const [address, length] = [u32[entry]!, u32[entry + 1]!];
      const inside = ['send buffer', 'packet memory', 'heads'].some((name) => {
        const { from, to } = this.#span(name);
        return address >= from && address + length <= Math.ceil(to / 4096) * 4096;
      });
      assert.ok(inside, `frame ${index}: fragment outside of what the host may read`);
      bytes += length;
    }
    assert.equal(bytes, cell('length'), 'fragments against the length of the frame');
    assert.ok(bytes >= 14 && (bytes <= h.host('maxFrameBytes') || cell('flags') & F.TX_TSO), `frame of ${bytes} bytes`);
    assert.ok(cell('l4Offset') < bytes, 'header offset in the frame');
    assert.ok(cell('transaction') < h.host('transactionCount'), 'frame of no message');
    u32[(h.rig.frames >>> 2) + index] = at;
  }

  /** Every suballocation is on its stack once, or out. */
  #suballocations(): void {
    const { h } = this;
    const total = h.host('suballocationCount');
    const cells = u32.subarray(h.host('suballocations') >>> 2, (h.host('suballocations') >>> 2) + total);
    const stack = (at: number, n: number) => u32.subarray(at >>> 2, (at >>> 2) + n);
    const data = stack(h.host('freeSuballocations'), h.host('freeSuballocationCount'));
    const free = new Set([...data, ...stack(h.host('freeControl'), h.host('freeControlCount'))]);
    assert.equal(
      free.size,
      h.host('freeSuballocationCount') + h.host('freeControlCount'),
      'a suballocation is free twice',
    );
    cells.forEach((state, index) => {
      assert.equal(state === 0xffffffff, free.has(index), `suballocation ${index}: state ${state.toString(16)}`);
    });
  }

  hostTraffic(): void {
    const { r, h } = this;
    if (r.chance(2)) {
      const bytes = 8 + r.below(100);
      h.call('host', 'hostSendControl', () =>
        datapath.hostSendControl(h.rig.channel, this.#span('send buffer').from, bytes),
      );
    }
    if (h.host('frameCount') > 0 && r.chance(2)) {
      const n = Math.min(h.host('frameCount'), 8);
      for (let i = 0; i < n; i++) u32[(h.rig.frames >>> 2) + i] = h.host('frames') + i * FRAME.bytes;
      h.call('host', 'hostSend', () => datapath.hostSend(h.rig.channel, h.rig.frames, n));
    }
  }

  step(attacker: 'guest' | 'host'): void {
    const { r, h } = this;
    switch (r.below(9)) {
      case 0:
      case 1:
        this.guestSend();
        break;
      case 2:
      case 3:
        this.guestPoll();
        break;
      case 4:
      case 5:
        this.hostPoll();
        break;
      case 6:
        if (r.chance(3)) this.mutate(attacker);
        this.hostTraffic();
        break;
      case 7:
        for (let n = r.below(4); n > 0 && this.forge(attacker); n--);
        break;
      default: {
        if (r.chance(3)) this.mutate(attacker);
        const [side, end] = r.chance(2) ? (['guest', h.rig.queue] as const) : (['host', h.rig.channel] as const);
        h.call(side, 'ringUnmask', () => datapath.ringUnmask(end));
        h.call(side, 'ringMask', () => datapath.ringMask(end));
        if (r.chance(20)) h.call(side, 'endInit', () => datapath.endInit(end));
      }
    }
  }

  close(): void {
    const { h } = this;
    h.call('guest', 'guestAbandon', () => datapath.guestAbandon(h.rig.queue));
    this.#free(this.held);
    h.poolWhole(h.rig.smallPool, 'small');
    h.poolWhole(h.rig.largePool, 'large');
    assert.equal(h.guest('freeSectionCount'), h.guest('sendSections'), 'send sections that are back');
    assert.equal(h.guest('freeSlotCount'), h.guest('slotCount'), 'slots that are back');
    h.close();
  }
}

const { seed, runs, progress } = workerData as HostileJob;
const counts: Record<string, number> = {};
for (let i = 0; i < runs; i++) {
  const at = (seed + Math.imul(i, 0x9e3779b1)) | 0;
  progress[0] = at;
  try {
    const run = new Run(at);
    const attacker = i % 2 ? 'guest' : 'host';
    for (let n = 0; n < 120; n++) run.step(attacker);
    const errors = [`guest error ${run.h.guest('ringError')}`, `host error ${run.h.host('ringError')}`];
    for (const name of [...errors, ...[...run.frameErrors].map((error) => `frame error ${error}`)])
      counts[name] = (counts[name] ?? 0) + 1;
    for (const [name, offset] of Object.entries(GUEST_QUEUE.at)) {
      if (name.startsWith('rxBad') || name === 'rxPackets' || name === 'rxCoalesced') {
        counts[name] = (counts[name] ?? 0) + counterOf(run.h.rig.queue, offset);
      }
    }
    run.close();
  } catch (error) {
    throw new Error(`seed ${at}, attacker ${i % 2 ? 'guest' : 'host'}: ${(error as Error).stack}`);
  }
}
parentPort?.postMessage(counts);
