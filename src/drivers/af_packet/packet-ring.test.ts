// Receive rings as the kernel fills them, without a kernel: every packet arrives once and whole, and a ring full of nonsense does
// no harm.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PACKET_TYPE } from '../../ethdev/constants.js';
import { MBUF, PACKET_FLAG } from '../../memory/layout.js';
import { PACKET_RING, VNET_RX } from '../../memory/layout-sockets.js';
import { createPool, poolBytes, poolFree } from '../../memory/pool.js';
import {
  buildPacket,
  checksumField,
  checksumFlag,
  familyFlags,
  gsoType,
  NEEDS_CSUM,
  type PacketSpec,
  packetSpec,
  partial,
  tagged,
  testMemory,
  vnetHeader,
} from '../../offload/offload-testing.js';

const { VLAN, TX_TSO, RX_COALESCED, RX_L4_GOOD, RX_IP_GOOD, TCP } = PACKET_FLAG;
const { IP_CHECKSUM, TCP_CHECKSUM, UDP_CHECKSUM, KEEP_TAG, SCATTER, TIMESTAMP, OWN_ONLY } = VNET_RX;
const VERDICTS = IP_CHECKSUM | TCP_CHECKSUM | UDP_CHECKSUM;
const BLOCK = 8192;
const BLOCKS = 4;
const SEGMENTS = 64 << 10;
const COUNT = 128;
const STATUS_USER = 1;

const { u8, u32, datapath, arena } = testMemory();
const view = new DataView(arena.buffer as ArrayBuffer);
const guard = arena.reserve('guard before', 4096);
const ring = arena.reserve('ring', BLOCK * BLOCKS);
const cells = arena.reserve('cells', PACKET_RING.bytes + SEGMENTS);
const handles = arena.reserve('handles', 1024);
const pools = [700, 4096].map((room) => {
  const sizes = { name: `room ${room}`, count: COUNT, room: 128 + room, headroom: 128 };
  return createPool(arena, arena.reserve('buffers', poolBytes(sizes)), sizes);
});
const [small, large] = pools as [number, number];

const cell = (mbuf: number, name: keyof typeof MBUF.at) => u32[(mbuf + MBUF.at[name]) >>> 2]!;
const state = (name: keyof typeof PACKET_RING.at) => u32[(cells + PACKET_RING.at[name]) >>> 2]!;

function reset(pool: number, options: number): void {
  u8.fill(0, ring, ring + BLOCK * BLOCKS);
  u8.fill(0, cells, cells + PACKET_RING.bytes);
  const values = { ring, blockBytes: BLOCK, blockCount: BLOCKS, pool, options };
  for (const [name, value] of Object.entries({
    ...values,
    segments: cells + PACKET_RING.bytes,
    segmentsBytes: SEGMENTS,
  }))
    u32[(cells + PACKET_RING.at[name as keyof typeof PACKET_RING.at]) >>> 2] = value;
}

interface Arrival {
  readonly frame: Uint8Array;
  /** virtio_net_hdr, 10 bytes of it count. */
  readonly header?: readonly number[];
  /** Outer tag, which the kernel takes out of the data. */
  readonly tag?: { readonly tci: number; readonly tpid: number } | undefined;
  /** sll_pkttype. */
  readonly kind?: number;
  /** Bytes of the packet that the ring had no room for. */
  readonly missing?: number;
}

/** The kernel's side: af_packet.c lays packets out like this. */
class Kernel {
  #block = 0;
  #time = 1;

  /** Fills the next block with as many as fit; how many. 0 = the ring is full. */
  fill(arrivals: readonly Arrival[]): number {
    const block = ring + this.#block * BLOCK;
    if ((view.getUint32(block + 8, true) & STATUS_USER) !== 0) return 0;
    let at = block + 48;
    let last = 0;
    let n = 0;
    for (const { frame, header = [], tag, kind = 0, missing = 0 } of arrivals) {
      const mac = 92;
      const bytes = (mac + frame.length + 7) & ~7;
      if (at + bytes > block + BLOCK) break;
      u8.fill(0xee, at, at + bytes);
      const status = STATUS_USER | (tag ? 0x50 : 0);
      [bytes, this.#time, this.#time * 1000, frame.length, frame.length + missing, status].forEach((value, i) => {
        view.setUint32(at + i * 4, value, true);
      });
      view.setUint16(at + 24, mac, true);
      view.setUint16(at + 26, mac + 14, true);
      view.setUint32(at + 32, tag?.tci ?? 0, true);
      view.setUint16(at + 36, tag?.tpid ?? 0, true);
      u8[at + 58] = kind;
      u8.set([...header, ...new Array(10).fill(0)].slice(0, 10), at + mac - 10);
      u8.set(frame, at + mac);
      last = at;
      at += bytes;
      n++;
      this.#time++;
    }
    if (last !== 0) view.setUint32(last, 0, true); // prb_close_block
    view.setUint32(block + 12, n, true);
    view.setUint32(block + 16, 48, true);
    view.setUint32(block + 8, STATUS_USER, true);
    this.#block = (this.#block + 1) % BLOCKS;
    return n;
  }
}

interface Got {
  readonly bytes: Uint8Array;
  readonly flags: number;
  readonly vlanTci: number;
  readonly l4Offset: number;
  readonly mss: number;
  readonly type: number;
  readonly timestamp: bigint;
}

function receive(max: number): Got[] {
  const n = datapath.packetReceive(cells, handles, max);
  assert.ok(n <= max);
  const list = Array.from({ length: n }, (_, i) => {
    const mbuf = u32[(handles >>> 2) + i]!;
    const parts: number[] = [];
    let segments = 0;
    for (let at = mbuf; at !== 0; at = cell(at, 'next'), segments++)
      parts.push(...u8.subarray(cell(at, 'data'), cell(at, 'data') + cell(at, 'dataLength')));
    assert.equal(parts.length, cell(mbuf, 'packetLength'));
    assert.equal(segments, cell(mbuf, 'segments'));
    return {
      ...{ bytes: Uint8Array.from(parts), flags: cell(mbuf, 'flags'), vlanTci: cell(mbuf, 'vlanTci') },
      ...{ l4Offset: cell(mbuf, 'l4Offset'), mss: cell(mbuf, 'mss'), type: cell(mbuf, 'packetType') },
      timestamp: view.getBigUint64(mbuf + MBUF.at.timestamp, true),
    };
  });
  assert.equal(
    state('bytes'),
    list.reduce((sum, { bytes }) => sum + bytes.length, 0),
  );
  datapath.mbufFree(handles, n);
  return list;
}

const frame = (n: number, bytes: number): Uint8Array => {
  const made = new Uint8Array(bytes).map((_, i) => (i * 7 + n) & 255);
  made.set([0x88, 0xb5, n >> 8, n & 255], 12);
  return made;
};

function typeOf({ family, protocol, ipOptions }: PacketSpec, outer?: number): number {
  const { L2_ETHER, L2_VLAN, L2_QINQ, L3_IPV4, L3_IPV4_EXT, L3_IPV6, L3_IPV6_EXT, L4_TCP, L4_UDP } = PACKET_TYPE;
  const layer2 = outer === undefined ? L2_ETHER : outer === 0x8100 ? L2_VLAN : L2_QINQ;
  const layer3 = family === 4 ? (ipOptions > 0 ? L3_IPV4_EXT : L3_IPV4) : ipOptions > 0 ? L3_IPV6_EXT : L3_IPV6;
  return layer2 | layer3 | (protocol === 6 ? L4_TCP : L4_UDP);
}

test('packets of any sizes, blocks of any fill, bursts of any length: each once, in order, blocks given back', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 60, max: 3000 }), { maxLength: 60 }),
      fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 20 }),
      fc.boolean(),
      (sizes, bursts, scatter) => {
        reset(scatter ? small : large, scatter ? SCATTER : 0);
        const kernel = new Kernel();
        const frames = sizes.map((bytes, n) => frame(n, bytes));
        const got: Uint8Array[] = [];
        let fed = 0;
        for (let i = 0; got.length < frames.length; i++) {
          assert.ok(i < 1000);
          const some = bursts[i % bursts.length]!;
          fed += kernel.fill(frames.slice(fed, fed + some).map((bytes) => ({ frame: bytes })));
          got.push(...receive(some).map(({ bytes }) => bytes));
          if (got.length === fed) assert.equal(state('left'), 0);
        }
        assert.deepEqual(got, frames);
        receive(32); // blocks without packets
        for (let block = 0; block < BLOCKS; block++) assert.equal(view.getUint32(ring + block * BLOCK + 8, true), 0);
        assert.equal(poolFree(arena, small) + poolFree(arena, large), 2 * COUNT);
      },
    ),
    { numRuns: 150 },
  );
});

const tags = fc.option(fc.record({ tci: fc.nat(0xffff), tpid: fc.constantFrom(0x8100, 0x88a8) }), { nil: undefined });

test('tags: into vlanTci, or back into the data; only 802.1Q has a cell', () => {
  fc.assert(
    fc.property(packetSpec(600), tags, fc.boolean(), fc.boolean(), (spec, tag, keep, stamps) => {
      reset(large, (keep ? KEEP_TAG : 0) | (stamps ? TIMESTAMP : 0));
      const p = buildPacket(spec);
      new Kernel().fill([{ frame: p.bytes, tag }]);
      const [got] = receive(4);
      const inData = tag !== undefined && (keep || tag.tpid !== 0x8100);
      assert.deepEqual(got!.bytes, inData ? tagged(p.bytes, tag.tci, tag.tpid) : p.bytes);
      assert.equal((got!.flags & VLAN) !== 0, tag !== undefined && !inData);
      assert.equal(got!.vlanTci, tag !== undefined && !inData ? tag.tci : 0);
      assert.equal(got!.l4Offset, p.l4 + (inData ? 4 : 0));
      assert.equal(got!.type, typeOf(spec, inData ? tag.tpid : undefined));
      if (stamps) assert.equal(got!.timestamp, 1_000_001_000n);
    }),
  );
});

const largeSpec = packetSpec(4000).map((spec) => ({ ...spec, payload: Math.max(spec.payload, 700) }));

/** What a sender with TSO hands to its interface. */
function offloaded(spec: PacketSpec, mss: number): Arrival & { readonly p: ReturnType<typeof buildPacket> } {
  const p = buildPacket(spec);
  return { p, frame: partial(p), header: vnetHeader(NEEDS_CSUM, gsoType(spec), mss, p.l4, checksumField(p) - p.l4) };
}

test('large packets are cut where the program does not take them: the segments add up, with right checksums', () => {
  fc.assert(
    fc.property(
      largeSpec,
      fc.integer({ min: 88, max: 600 }),
      tags,
      fc.integer({ min: 1, max: 9 }),
      (spec, mss, tag, burst) => {
        reset(large, VERDICTS | TIMESTAMP);
        const { p, ...arrival } = offloaded(spec, mss);
        new Kernel().fill([{ ...arrival, tag }, { frame: frame(9, 60) }]);
        const got: Got[] = [];
        const count = Math.ceil(spec.payload / mss);
        for (let i = 0; got.length < count + 1; i++) {
          assert.ok(i <= count + 1);
          got.push(...receive(burst));
        }
        assert.deepEqual(got.pop()!.bytes, frame(9, 60));
        const inData = tag !== undefined && tag.tpid !== 0x8100;
        const shift = inData ? 4 : 0;
        const payload: number[] = [];
        for (const { bytes, flags, vlanTci, l4Offset, type, timestamp } of got) {
          u8.set(bytes, guard);
          assert.equal(datapath.checksumVerify(guard, bytes.length), 1);
          assert.ok(bytes.length <= p.payloadAt + shift + mss);
          payload.push(...bytes.subarray(p.payloadAt + shift));
          const verdict = RX_L4_GOOD | (spec.family === 4 ? RX_IP_GOOD : 0);
          assert.equal(flags, familyFlags(p) | verdict | (tag !== undefined && !inData ? VLAN : 0));
          assert.equal(vlanTci, tag !== undefined && !inData ? tag.tci : 0);
          assert.equal(l4Offset, p.l4 + shift);
          assert.equal(type, typeOf(spec, inData ? tag.tpid : undefined));
          assert.equal(timestamp, 1_000_001_000n);
        }
        assert.deepEqual(Uint8Array.from(payload), p.bytes.subarray(p.payloadAt));
        assert.equal(poolFree(arena, large), COUNT);
      },
    ),
    { numRuns: 150 },
  );
});

test('large TCP packets come whole where the program takes them, UDP never', () => {
  for (const protocol of [6, 17] as const) {
    reset(small, VNET_RX.COALESCED | SCATTER | VERDICTS);
    const spec = { family: 4, protocol, ipOptions: 0, tcpOptions: 3, payload: 3000, tcpFlags: 0, seed: 8 } as const;
    const { p, ...arrival } = offloaded(spec, 1000);
    new Kernel().fill([arrival]);
    const got = receive(8);
    assert.equal(got.length, protocol === 6 ? 1 : 3);
    if (protocol === 17) continue;
    const { bytes, flags, mss } = got[0]!;
    assert.deepEqual(bytes, partial(p));
    assert.equal(mss, 1000);
    assert.equal(flags & (TX_TSO | RX_COALESCED | TCP | RX_L4_GOOD), TX_TSO | RX_COALESCED | TCP | RX_L4_GOOD);
    assert.equal(flags & checksumFlag(p), checksumFlag(p));
  }
});

test('what is for others, or from this machine, is left out', () => {
  const kinds = [0, 1, 2, 3, 4];
  for (const own of [false, true]) {
    reset(large, own ? OWN_ONLY : 0);
    new Kernel().fill(kinds.map((kind) => ({ frame: frame(kind, 64), kind })));
    const seen = receive(8).map(({ bytes }) => bytes[15]);
    assert.deepEqual(seen, own ? [0, 1, 2] : [0, 1, 2, 3]);
    assert.equal(state('errors'), 0);
  }
});

test('cut-off packets and those longer than an mbuf are counted', () => {
  reset(small, 0);
  new Kernel().fill([{ frame: frame(1, 100), missing: 4 }, { frame: frame(2, 701) }, { frame: frame(3, 700) }]);
  assert.deepEqual(
    receive(8).map(({ bytes }) => bytes[15]),
    [3],
  );
  assert.equal(state('errors'), 2);
});

test('without mbufs packets wait in the ring', () => {
  reset(small, 0);
  assert.equal(datapath.poolGet(small, handles + 512, COUNT - 2), COUNT - 2);
  const kernel = new Kernel();
  kernel.fill([1, 2, 3, 4].map((n) => ({ frame: frame(n, 64) })));
  assert.equal(datapath.packetReceive(cells, handles, 8), 2);
  assert.equal(state('noMbufs'), 1);
  assert.equal(datapath.packetReceive(cells, handles + 8, 8), 0);
  datapath.mbufFree(handles, 2);
  assert.deepEqual(
    receive(8).map(({ bytes }) => bytes[15]),
    [3, 4],
  );
  datapath.mbufFree(handles + 512, COUNT - 2);
  assert.equal(poolFree(arena, small), COUNT);
});

test('one burst does not look at others’ packets for ever', () => {
  reset(large, OWN_ONLY);
  const kernel = new Kernel();
  for (let block = 0; block < BLOCKS; block++)
    kernel.fill(Array.from({ length: 100 }, (_, n) => ({ frame: frame(n, 20), kind: block < 3 || n < 50 ? 3 : 0 })));
  let bursts = 0;
  let got = 0;
  for (; datapath.packetWaiting(cells) === 1; bursts++) got += receive(1).length;
  assert.ok(bursts > 1 && got > 0);
});

test('a ring of nonsense: nothing outside is touched, bursts end, no mbuf is lost', () => {
  const values = fc.oneof(
    fc.nat(0xffff_ffff),
    fc.nat(BLOCK),
    fc.constantFrom(0, 1, 0xffff_ffff, BLOCK - 1, 0x8000_0000),
  );
  const damage = fc.array(fc.tuple(fc.nat(BLOCK * BLOCKS - 4), fc.constantFrom(1, 2, 4), values), { maxLength: 40 });
  const heads = fc.array(fc.tuple(fc.nat(BLOCKS - 1), fc.constantFrom(8, 12, 16, 48, 60, 64, 68, 72), values), {
    maxLength: 10,
  });
  const before = u8.slice(guard, guard + 4096);
  fc.assert(
    fc.property(damage, heads, fc.nat(0xff), largeSpec, (scattered, aimed, options, spec) => {
      reset(small, options);
      const kernel = new Kernel();
      for (let block = 0; block < BLOCKS; block++)
        kernel.fill([{ frame: frame(block, 500) }, offloaded(spec, 300), { frame: frame(8, 90) }]);
      for (const [at, width, value] of scattered) {
        if (width === 1) u8[ring + at] = value;
        else if (width === 2) view.setUint16(ring + at, value & 0xffff, true);
        else view.setUint32(ring + at, value, true);
      }
      for (const [block, at, value] of aimed) view.setUint32(ring + block * BLOCK + at, value, true);
      const behind = u8.slice(handles, handles + 1024);
      let bursts = 0;
      while (datapath.packetWaiting(cells) === 1 && bursts++ < 10_000) {
        const n = datapath.packetReceive(cells, handles, 16);
        for (let i = 0; i < n; i++) assert.ok(cell(u32[(handles >>> 2) + i]!, 'packetLength') <= 65_600);
        datapath.mbufFree(handles, n);
      }
      assert.ok(bursts < 10_000, 'it never ends');
      assert.deepEqual(u8.slice(guard, guard + 4096), before);
      assert.deepEqual(u8.slice(handles + 64, handles + 1024), behind.slice(64));
      assert.equal(poolFree(arena, small), COUNT);
    }),
    { numRuns: 300 },
  );
});
