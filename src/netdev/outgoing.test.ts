// What a pair does with packets that the device cannot take as they are, beside a device that takes as much as the test lets it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDatapath } from '../datapath/datapath.js';
import type { LcorePort, LcoreThread } from '../ethdev/lcore.js';
import { Arena } from '../memory/arena.js';
import { read64 } from '../memory/cells64.js';
import { MBUF, PACKET_FLAG } from '../memory/layout.js';
import { createPool, poolBytes, poolFree } from '../memory/pool.js';
import { buildPacket, type PacketSpec } from '../offload/offload-testing.js';
import { TransmitSteering } from '../offload/steering.js';
import { Outgoing } from './outgoing.js';
import { CUT_BYTES, NETDEV_PAIR, PAIR_BYTES, type PairSetup } from './pair-memory.js';

const HEADROOM = 128;
const FRAME = 1514;
const COUNT = 256;
const { TX_TSO, IPV4, IPV6, TCP, VLAN } = PACKET_FLAG;

interface Sent {
  readonly queue: number;
  readonly bytes: Uint8Array;
  readonly tag: number | undefined;
}

class Rig {
  readonly arena = Arena.create({ bytes: 64 << 20 });
  readonly datapath = createDatapath(this.arena.memory);
  readonly small = this.#pool('small', FRAME + HEADROOM);
  readonly large = this.#pool('large', 70_000);
  readonly memory = this.arena.reserve('pair', PAIR_BYTES);
  readonly #handle = this.arena.reserve('handle', 4);
  readonly sent: Sent[] = [];
  /** Packets of the kernel that nobody has read. */
  readonly kernel: number[] = [];
  /** What the device takes now. */
  room = Number.POSITIVE_INFINITY;
  asked = 0;
  readonly outgoing: Outgoing;

  constructor(queues = 1) {
    const { arena, datapath, memory } = this;
    const steering = new TransmitSteering(arena);
    steering.configure(
      Array.from({ length: 16 }, (_, i) => i % queues),
      {},
    );
    const setup: PairSetup = {
      ...{ queue: 0, memory, gro: 0, cutting: arena.reserve('segments', CUT_BYTES), steering: steering.address },
      ...{ small: this.small, large: this.large, smallBytes: FRAME, wakes: true },
    };
    const device = { txQueues: queues, txQueue: (queue: number) => ({ burst: this.#take(queue) }) };
    const tap = { rxQueue: () => ({ burst: (list: number, most: number) => this.#give(list, most) }) };
    this.outgoing = new Outgoing(
      { arena, datapath } as unknown as LcoreThread,
      device as unknown as LcorePort,
      tap as unknown as LcorePort,
      setup,
      () => this.asked++,
    );
    this.set('frameBytes', FRAME);
  }

  set(cell: keyof typeof NETDEV_PAIR.at, value: number): void {
    this.arena.u32[(this.memory + NETDEV_PAIR.at[cell]) >>> 2] = value;
  }
  get(cell: keyof typeof NETDEV_PAIR.at): number {
    return this.arena.u32[(this.memory + NETDEV_PAIR.at[cell]) >>> 2]!;
  }
  get cut(): number[] {
    const cells = ['cutPackets', 'cutSegments', 'cutFailed'] as const;
    return cells.map((name) => read64(this.arena.u32, (this.memory + NETDEV_PAIR.at[name]) >>> 2));
  }
  get inUse(): number {
    return 2 * COUNT - poolFree(this.arena, this.small) - poolFree(this.arena, this.large);
  }

  /** A packet of the kernel. */
  add(bytes: Uint8Array, cells: Partial<Record<keyof typeof MBUF.at, number>> = {}): void {
    const { u32, u8 } = this.arena;
    assert.equal(this.datapath.poolGet(this.large, this.#handle, 1), 1);
    const mbuf = u32[this.#handle >>> 2]!;
    u8.set(bytes, u32[(mbuf + MBUF.at.data) >>> 2]!);
    const all = { dataLength: bytes.length, packetLength: bytes.length, flags: 0, ...cells };
    for (const [name, value] of Object.entries(all)) u32[(mbuf + MBUF.at[name as keyof typeof all]) >>> 2] = value!;
    this.kernel.push(mbuf);
  }

  /** As a TSO packet. */
  addLarge(spec: Partial<PacketSpec>, mss: number, cells: Partial<Record<keyof typeof MBUF.at, number>> = {}) {
    const packet = buildPacket({
      ...{ family: 4, protocol: 6, ipOptions: 0, tcpOptions: 3, payload: 10_000, tcpFlags: 0x18, seed: 7 },
      ...spec,
    });
    const family = packet.spec.family === 4 ? IPV4 : IPV6;
    this.add(packet.bytes, { flags: TX_TSO | TCP | family, mss, l4Offset: packet.l4, ...cells });
    return packet;
  }

  plain(bytes: number, first: number): Uint8Array {
    const packet = new Uint8Array(bytes).fill(first);
    this.add(packet);
    return packet;
  }

  steps(count: number): void {
    for (let i = 0; i < count; i++) this.outgoing.step();
  }

  get firsts(): number[] {
    return this.sent.map(({ bytes }) => bytes[0]!);
  }

  #pool(name: string, room: number): number {
    const sizes = { name, count: COUNT, room, headroom: HEADROOM };
    return createPool(this.arena, this.arena.reserve(`${name} buffers`, poolBytes(sizes)), sizes);
  }

  #give(list: number, most: number): number {
    const given = this.kernel.splice(0, most);
    this.arena.u32.set(given, list >>> 2);
    return given.length;
  }

  readonly #take = (queue: number) => (list: number, count: number) => {
    const { u32, u8 } = this.arena;
    const taken = Math.min(count, this.room);
    this.room -= taken;
    for (let i = 0; i < taken; i++) {
      const mbuf = u32[(list >>> 2) + i]!;
      const at = (name: keyof typeof MBUF.at) => u32[(mbuf + MBUF.at[name]) >>> 2]!;
      const tag = (at('flags') & VLAN) !== 0 ? at('vlanTci') : undefined;
      this.sent.push({ queue, bytes: u8.slice(at('data'), at('data') + at('dataLength')), tag });
    }
    this.datapath.mbufFree(list, taken);
    return taken;
  };
}

test('a packet that is longer than the frame waits with all behind it, asks once, and goes when the frame has grown', () => {
  const rig = new Rig();
  rig.plain(60, 1);
  rig.plain(9000, 2);
  rig.plain(60, 3);
  rig.steps(5);
  rig.plain(60, 4);
  rig.steps(5);
  assert.deepEqual([rig.firsts, rig.asked, rig.outgoing.waits, rig.kernel.length], [[1], 1, true, 1]);
  rig.set('frameBytes', 9014);
  rig.steps(2);
  assert.deepEqual([rig.firsts, rig.asked, rig.outgoing.waits, rig.inUse], [[1, 2, 3, 4], 1, false, 0]);
});

test('the answer lets go of what is too long, so that the device counts it; the next such packet asks anew', () => {
  const rig = new Rig();
  for (const round of [1, 2]) {
    rig.plain(9000, 10 * round);
    rig.plain(8000, 10 * round + 1);
    rig.steps(3);
    assert.equal(rig.asked, round);
    rig.set('answered', rig.get('asked') - 1); // to another question
    rig.steps(1);
    assert.equal(rig.sent.length, 2 * (round - 1));
    rig.set('answered', rig.get('asked'));
    rig.steps(1);
    assert.equal(rig.outgoing.waits, false);
  }
  assert.deepEqual(rig.firsts, [10, 11, 20, 21]);
});

test('large sends that the device does not take are cut, in order, with their tag', () => {
  for (const queues of [1, 4])
    for (const family of [4, 6] as const) {
      const rig = new Rig(queues);
      rig.set(family === 4 ? 'tso6' : 'tso4', 0xffff_ffff); // of the other family
      rig.plain(60, 1);
      const packet = rig.addLarge({ family }, 1000, {
        flags: TX_TSO | TCP | VLAN | (family === 4 ? IPV4 : IPV6),
        vlanTci: 5,
      });
      rig.plain(60, 3);
      // The device takes few at a time.
      for (let i = 0; i < 20; i++) {
        rig.room = i % 3;
        rig.steps(1);
      }
      assert.deepEqual([rig.cut, rig.outgoing.waits, rig.inUse], [[1, 10, 0], false, 0]);
      assert.equal(rig.sent.length, 12);
      const segments = rig.sent.slice(1, 11);
      const payload = segments.flatMap(({ bytes }) => [...bytes.subarray(packet.payloadAt)]);
      assert.deepEqual(Uint8Array.from(payload), packet.bytes.slice(packet.payloadAt));
      for (const { bytes, tag, queue } of segments) {
        assert.equal(rig.datapath.checksumVerify(lay(rig, bytes), bytes.length), 1);
        assert.deepEqual([tag, queue], [5, segments[0]!.queue]);
      }
    }
});

/** Where its checksums can be looked at. */
function lay(rig: Rig, bytes: Uint8Array): number {
  const at = rig.arena.reserve('packet', 2048);
  rig.arena.u8.set(bytes, at);
  return at;
}

test('a large send within the limit goes as it is, one beyond it or not longer than a frame is cut', () => {
  const rig = new Rig();
  rig.set('tso4', 6000);
  rig.addLarge({ payload: 5000 }, 1400);
  rig.steps(1);
  assert.deepEqual([rig.sent.length, rig.cut], [1, [0, 0, 0]]);
  rig.addLarge({ payload: 7000 }, 1400);
  rig.steps(3);
  assert.deepEqual([rig.sent.length, rig.cut], [6, [1, 5, 0]]);
  rig.set('tso4', 0);
  rig.addLarge({ payload: 1000 }, 400);
  rig.steps(3);
  assert.deepEqual([rig.sent.length, rig.cut, rig.inUse], [9, [2, 8, 0], 0]);
});

test('the smallest segments, segments that fill large buffers, and what is malformed', () => {
  const rig = new Rig();
  rig.addLarge({ payload: 48 * 250 }, 48);
  rig.steps(10);
  assert.deepEqual([rig.sent.length, rig.cut], [250, [1, 250, 0]]);
  rig.addLarge({ payload: 60_000 }, 8948);
  rig.steps(3);
  assert.deepEqual([rig.sent.length, rig.cut], [257, [2, 257, 0]]);
  rig.add(new Uint8Array(3000), { flags: TX_TSO | TCP | IPV4, mss: 1000, l4Offset: 34 });
  rig.addLarge({}, 0);
  rig.plain(60, 9);
  rig.steps(5);
  assert.deepEqual([rig.cut, rig.sent.length, rig.firsts.at(-1), rig.inUse], [[2, 257, 2], 258, 9, 0]);
});

test('without buffers a large send waits for them', () => {
  const rig = new Rig();
  const list = rig.arena.reserve('held', COUNT * 4);
  const held = rig.datapath.poolGet(rig.small, list, COUNT - 3);
  rig.addLarge({}, 1400);
  rig.plain(60, 9);
  rig.steps(5);
  assert.deepEqual([rig.sent.length, rig.outgoing.waits, rig.inUse], [0, true, held + 2]);
  rig.datapath.mbufFree(list, held);
  rig.steps(3);
  assert.deepEqual([rig.sent.length, rig.cut, rig.firsts.at(-1), rig.inUse], [9, [1, 8, 0], 9, 0]);
});
