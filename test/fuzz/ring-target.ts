// The data path against ring images: whatever a ring and the buffer beside it hold, a poll ends, hands out only what is
// its own, and writes nowhere but where it may.
import assert from 'node:assert/strict';
import { createRig, type Rig } from '../../bench/rig.js';
import { createDatapath } from '../../src/datapath/datapath.js';
import { Arena } from '../../src/memory/arena.js';
import { CHANNEL_END, FRAGMENT, FRAME, GUEST_QUEUE, HOST_CHANNEL, MBUF, POOL } from '../../src/memory/layout.js';

const PAGE = 4096;
const MAX = 64;
const RING = 16_384;
const SHARED = 65_536;
const EVENTS = 8192;
/** In front of an image: u16 bytes of the ring, u16 nothing, so that words stay aligned. */
const HEADER = 4;
/** Every poll takes at least one packet of 16 bytes and more, or it is the last. */
const POLLS = 2000;
const SMALL = 64;
const LARGE = 4;
/** What each side may write; of the other side's ring only the control page. */
const GUEST_WRITES = [
  ...['guest ring', 'guest queue', 'packet memory', 'small pool', 'large pool', 'guest events', 'free sections'],
  ...['slots', 'free slots', 'completions', 'ranges', 'handles'],
];
const HOST_WRITES = [
  ...['host ring', 'host channel', 'host events', 'transactions', 'frames', 'fragments', 'heads', 'suballocations'],
  ...['free suballocations', 'free control'],
];

interface Piece {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

export class RingTarget {
  readonly rig: Rig;
  readonly #arena: Arena;
  readonly #before: Uint8Array;
  #loaded: { ring: number; data: Uint8Array; buffer: number; rest: Uint8Array } | undefined;
  readonly #forbidden: { readonly guest: readonly Piece[]; readonly host: readonly Piece[] };

  constructor() {
    this.#arena = Arena.create({ bytes: 4 << 20 });
    this.rig = createRig(this.#arena, createDatapath(this.#arena.memory), {
      ringBytes: RING,
      receiveBytes: 2 * SHARED,
      sendBytes: SHARED,
      poolCount: SMALL,
      largeCount: LARGE,
      events: EVENTS,
    });
    // Some sends are in flight, so that completions can mean something.
    const { datapath, handles, smallPool, queue } = this.rig;
    datapath.poolGet(smallPool, handles, 8);
    for (let i = 0; i < 8; i++) {
      const mbuf = this.#arena.u32[(handles >>> 2) + i]!;
      this.#arena.u32[(mbuf + MBUF.at.dataLength) >>> 2] = 60;
      this.#arena.u32[(mbuf + MBUF.at.packetLength) >>> 2] = 60;
    }
    assert.equal(datapath.guestSend(queue, handles, 8), 8);
    this.#before = this.#arena.u8.slice();
    this.#forbidden = { guest: this.#others(GUEST_WRITES, 'host ring'), host: this.#others(HOST_WRITES, 'guest ring') };
  }

  /** `image`: header, the ring's bytes from its start on, then the receive buffer's. */
  guest(image: Uint8Array): string {
    const { rig } = this;
    const { datapath, queue, handles, hostRing, smallPool, largePool } = rig;
    this.#load(image, hostRing, rig.receiveBuffer);
    for (let polls = 0; ; polls++) {
      assert.ok(polls < POLLS, 'guestPoll goes on for ever');
      const count = datapath.guestPoll(queue, handles, MAX);
      assert.ok(count <= MAX, `guestPoll gave ${count} packets`);
      for (let i = 0; i < count; i++) this.#checkMbuf(this.#cell(handles + i * 4));
      datapath.mbufFree(handles, count);
      const events = this.#cell(queue + GUEST_QUEUE.at.eventUsed);
      assert.ok(events <= EVENTS, `${events} bytes of events`);
      this.#set(queue + GUEST_QUEUE.at.eventUsed, 0);
      if (count === 0 && events === 0) break;
    }
    datapath.guestAbandon(queue);
    assert.equal(this.#cell(smallPool + POOL.at.free), SMALL, 'small buffers are missing');
    assert.equal(this.#cell(largePool + POOL.at.free), LARGE, 'large buffers are missing');
    this.#untouched(this.#forbidden.guest);
    return this.#outcome(queue, GUEST_QUEUE);
  }

  /** `image`: header, the ring's bytes, then the send buffer's. */
  host(image: Uint8Array): string {
    const { rig } = this;
    const { datapath, channel, guestRing, hostRing } = rig;
    this.#load(image, guestRing, rig.sendBuffer);
    for (let polls = 0; ; polls++) {
      assert.ok(polls < POLLS, 'hostPoll goes on for ever');
      const count = datapath.hostPoll(channel, MAX);
      for (let i = 0; i < count; i++) this.#checkFrame(this.#cell(channel + HOST_CHANNEL.at.frames) + i * FRAME.bytes);
      const messages = this.#cell(channel + HOST_CHANNEL.at.transactionCount);
      datapath.hostComplete(channel);
      // The guest reads its completions, or the host rightly waits for room.
      this.#set(hostRing + 4, this.#cell(hostRing));
      const events = this.#cell(channel + HOST_CHANNEL.at.eventUsed);
      assert.ok(events <= EVENTS, `${events} bytes of events`);
      this.#set(channel + HOST_CHANNEL.at.eventUsed, 0);
      // As TypeScript answers when it cannot map a page.
      this.#set(channel + HOST_CHANNEL.at.regionMissFails, 1);
      if (this.#cell(channel + CHANNEL_END.at.ringError) !== 0) break; // the host ends the channel
      if (count === 0 && events === 0 && messages === 0) break;
    }
    this.#untouched(this.#forbidden.host);
    return this.#outcome(channel, HOST_CHANNEL);
  }

  #load(image: Uint8Array, ring: number, buffer: number): void {
    const { u8 } = this.#arena;
    u8.set(this.#before);
    const ringBytes = image.length < HEADER ? 0 : image[0]! | (image[1]! << 8);
    const data = image.subarray(HEADER, HEADER + Math.min(ringBytes, RING - PAGE));
    const rest = image.subarray(HEADER + data.length).subarray(0, SHARED);
    u8.set(data, ring + PAGE);
    u8.set(rest, buffer);
    this.#set(ring, Math.min(data.length & ~7, RING - PAGE - 8));
    this.#loaded = { ring, data, buffer, rest };
  }

  #untouched(pieces: readonly Piece[]): void {
    const { u8 } = this.#arena;
    const { ring, data, buffer, rest } = this.#loaded!;
    // What load() put there is taken out again before the comparison.
    const shared = [
      { name: 'the ring that is read', from: ring + PAGE, bytes: data },
      { name: 'the shared buffer', from: buffer, bytes: rest },
    ];
    for (const { name, from, bytes } of shared) {
      const to = from + bytes.length;
      assert.equal(Buffer.compare(u8.subarray(from, to), bytes), 0, `${name} was written`);
      u8.set(this.#before.subarray(from, to), from);
    }
    for (const { name, from, to } of pieces) {
      const same = Buffer.compare(u8.subarray(from, to), this.#before.subarray(from, to)) === 0;
      assert.ok(same, `${name} was written`);
    }
  }

  #others(allowed: readonly string[], controlOnly: string): Piece[] {
    const pieces: Piece[] = [];
    let end = 0;
    for (const { name, address, bytes } of this.#arena.regions()) {
      if (address > end) pieces.push({ name: `free memory before ${name}`, from: end, to: address });
      end = address + bytes;
      if (address === 0 || allowed.includes(name)) continue;
      pieces.push({ name, from: address + (name === controlOnly ? PAGE : 0), to: end });
    }
    pieces.push({ name: 'free memory at the end', from: end, to: this.#arena.bytes });
    return pieces;
  }

  #checkMbuf(mbuf: number): void {
    const pool = this.#cell(mbuf + MBUF.at.pool);
    assert.ok(pool === this.rig.smallPool || pool === this.rig.largePool, `mbuf ${mbuf} of no pool`);
    const data = this.#cell(mbuf + MBUF.at.data);
    const buffer = this.#cell(mbuf + MBUF.at.buffer);
    const length = this.#cell(mbuf + MBUF.at.dataLength);
    assert.ok(data >= buffer && data + length <= buffer + this.#cell(mbuf + MBUF.at.room), 'data outside its buffer');
    assert.ok(length >= 14, `a packet of ${length} bytes`);
  }

  #checkFrame(frame: number): void {
    const length = this.#cell(frame + FRAME.at.length);
    let sum = 0;
    for (let i = 0; i < this.#cell(frame + FRAME.at.fragmentCount); i++) {
      const fragment = this.#cell(frame + FRAME.at.fragments) + i * FRAGMENT.bytes;
      const at = this.#cell(fragment);
      const bytes = this.#cell(fragment + FRAGMENT.at.bytes);
      const inside = this.#arena
        .regions()
        .some(
          (region) =>
            ['send buffer', 'packet memory', 'heads'].includes(region.name) &&
            at >= region.address &&
            at + bytes <= region.address + region.bytes,
        );
      assert.ok(inside, `a fragment of ${bytes} bytes at ${at}`);
      sum += bytes;
    }
    assert.equal(sum, length, 'fragments are not the frame');
  }

  /** What came of it, coarsely: inputs that lead to something new are kept. */
  #outcome(at: number, layout: typeof GUEST_QUEUE | typeof HOST_CHANNEL): string {
    const counts = Object.entries(layout.types)
      .filter(([, type]) => type === 'u64')
      .map(([name]) => Math.min(2, this.#cell(at + (layout.at as Record<string, number>)[name]!)))
      .join('');
    const frameError = layout === HOST_CHANNEL ? this.#cell(at + HOST_CHANNEL.at.frameError) : 0;
    return `${counts} ${this.#cell(at + CHANNEL_END.at.ringError)} ${frameError}`;
  }

  #cell(address: number): number {
    return this.#arena.u32[address >>> 2]!;
  }

  #set(address: number, value: number): void {
    this.#arena.u32[address >>> 2] = value;
  }
}
