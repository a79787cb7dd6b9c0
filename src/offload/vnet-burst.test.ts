// What ports on interfaces of the kernel do with bursts: options of receivers, chains both ways, packets that may not be touched.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { VNET_HEADER_BYTES, VNET_RESULT } from '../datapath/datapath.js';
import { MBUF, PACKET_FLAG } from '../memory/layout.js';
import { IOV_MAX, VNET_GATHER_MIN, VNET_RX, VNET_TX } from '../memory/layout-sockets.js';
import { createPool, poolBytes, poolFree } from '../memory/pool.js';
import {
  buildPacket,
  checksumField,
  checksumFlag,
  DATA_VALID,
  familyFlags,
  get16,
  gsoType,
  NEEDS_CSUM,
  type PacketSpec,
  packetSpec,
  partial,
  put16,
  tagged,
  testMemory,
  vnetHeader,
} from './offload-testing.js';

const { u8, u32, datapath, arena } = testMemory();
const { VLAN, TX_TSO, TX_IP_CHECKSUM, RX_COALESCED, IPV4 } = PACKET_FLAG;
const { RX_IP_GOOD, RX_IP_BAD, RX_L4_GOOD, RX_L4_BAD } = PACKET_FLAG;
const { IP_CHECKSUM, TCP_CHECKSUM, UDP_CHECKSUM, KEEP_TAG, SCATTER } = VNET_RX;
const VERDICTS = IP_CHECKSUM | TCP_CHECKSUM | UDP_CHECKSUM;
const COUNT = 64;
const ROOM = 640;
const sizes = { name: 'test', count: COUNT, room: ROOM, headroom: 128 };
const pool = createPool(arena, arena.reserve('buffers', poolBytes(sizes)), sizes);
const large = { name: 'large', count: 4, room: 5000, headroom: 128 };
const largePool = createPool(arena, arena.reserve('large buffers', poolBytes(large)), large);
const handles = arena.reserve('handles', 256);
const source = arena.reserve('source', 8192);

const cell = (mbuf: number, name: keyof typeof MBUF.at) => u32[(mbuf + MBUF.at[name]) >>> 2]!;
const setCell = (mbuf: number, name: keyof typeof MBUF.at, value: number) => {
  u32[(mbuf + MBUF.at[name]) >>> 2] = value;
};

function take(from = pool): number {
  assert.equal(datapath.poolGet(from, handles, 1), 1);
  return u32[handles >>> 2]!;
}
function free(mbuf: number): void {
  u32[handles >>> 2] = mbuf;
  datapath.mbufFree(handles, 1);
}
function bytesOf(mbuf: number): Uint8Array {
  const parts: number[] = [];
  for (let at = mbuf; at !== 0; at = cell(at, 'next'))
    parts.push(...u8.subarray(cell(at, 'data'), cell(at, 'data') + cell(at, 'dataLength')));
  return Uint8Array.from(parts);
}

/** A chain with these bytes, cut after each of `cuts`. */
function chainOf(bytes: Uint8Array, cuts: readonly number[]): number {
  const ends = [...new Set([...cuts.filter((at) => at > 0 && at < bytes.length), bytes.length])].sort((a, b) => a - b);
  let head = 0;
  let before = 0;
  ends.forEach((end, i) => {
    const part = bytes.subarray(i === 0 ? 0 : ends[i - 1]!, end);
    const mbuf = take(largePool);
    u8.set(part, cell(mbuf, 'data'));
    setCell(mbuf, 'dataLength', part.length);
    if (before === 0) head = mbuf;
    else setCell(before, 'next', mbuf);
    before = mbuf;
  });
  setCell(head, 'segments', ends.length);
  setCell(head, 'packetLength', bytes.length);
  return head;
}

const work = fc.constantFrom(
  'nothing' as const,
  'valid' as const,
  'partial' as const,
  'large' as const,
  'bad' as const,
);
const arrivals = fc.record({
  spec: packetSpec(1200),
  work,
  mss: fc.integer({ min: 200, max: 600 }),
  tci: fc.option(fc.nat(0xffff), { nil: undefined }),
  options: fc.integer({ min: 0, max: 0x3f }),
});

/** A packet as the kernel hands it over, and what a receiver with those options is to see. */
function arrival({ spec, work, mss, tci, options }: typeof arrivals extends fc.Arbitrary<infer T> ? T : never) {
  const p = buildPacket(spec);
  const tcp = spec.protocol === 6;
  const isLarge = work === 'large' && spec.payload > mss;
  const isPartial = work === 'partial' || work === 'large';
  const field = checksumField(p);
  if (work === 'bad') put16(p.bytes, field, get16(p.bytes, field) ^ 0x5555 || 1);
  const shift = tci === undefined ? 0 : 4;
  const plain = isPartial ? partial(p) : p.bytes;
  const header = vnetHeader(
    isPartial ? NEEDS_CSUM : work === 'valid' ? DATA_VALID : 0,
    isLarge ? gsoType(spec) : 0,
    isLarge ? mss : 0,
    isPartial ? p.l4 + shift : 0,
    isPartial ? field - p.l4 : 0,
  );
  const wanted = (options & (tcp ? TCP_CHECKSUM : UDP_CHECKSUM)) !== 0;
  const keepsTag = (options & KEEP_TAG) !== 0 && tci !== undefined;
  let flags = familyFlags(p);
  if (tci !== undefined && !keepsTag) flags |= VLAN;
  let bytes = plain;
  if (isLarge) {
    flags |= checksumFlag(p) | TX_TSO | RX_COALESCED | RX_L4_GOOD;
    if (spec.family === 4) flags |= TX_IP_CHECKSUM | RX_IP_GOOD;
  } else {
    // Linux never leaves a sum to us without one in the field, so 0 = "none" only comes complete.
    if (isPartial && wanted) flags |= checksumFlag(p) | RX_L4_GOOD;
    else if (isPartial) bytes = p.bytes;
    else if (work === 'valid') flags |= RX_L4_GOOD;
    else if (wanted) flags |= work === 'bad' ? RX_L4_BAD : RX_L4_GOOD;
    if ((options & IP_CHECKSUM) !== 0 && spec.family === 4) flags |= RX_IP_GOOD;
  }
  return {
    header,
    packet: tci === undefined ? plain : tagged(plain, tci),
    flags,
    bytes: keepsTag ? tagged(bytes, tci) : bytes,
    vlanTci: keepsTag ? 0 : (tci ?? 0),
    l4Offset: p.l4 + (keepsTag ? 4 : 0),
    mss: isLarge ? mss : 0,
  };
}

function same(mbuf: number, expected: ReturnType<typeof arrival>): void {
  assert.equal(cell(mbuf, 'flags').toString(16), expected.flags.toString(16));
  assert.deepEqual(bytesOf(mbuf), expected.bytes);
  assert.equal(cell(mbuf, 'packetLength'), expected.bytes.length);
  for (const name of ['vlanTci', 'l4Offset', 'mss'] as const) assert.equal(cell(mbuf, name), expected[name], name);
}

test('vnetReceive: tag and checksums as the receiver wants them', () => {
  fc.assert(
    fc.property(arrivals, (given) => {
      const expected = arrival(given);
      const mbuf = take(largePool);
      u8.set(expected.header, cell(mbuf, 'data') - VNET_HEADER_BYTES);
      u8.set(expected.packet, cell(mbuf, 'data'));
      assert.equal(datapath.vnetReceive(mbuf, VNET_HEADER_BYTES + expected.packet.length, given.options), 1);
      same(mbuf, expected);
      free(mbuf);
    }),
    { numRuns: 400 },
  );
});

test('vnetScatter: the same, in chains of any length or not at all; no mbuf is lost', () => {
  fc.assert(
    fc.property(arrivals, fc.integer({ min: 0, max: 5 }), (given, buffers) => {
      const expected = arrival(given);
      const hoard = Array.from({ length: COUNT - 1 - buffers }, () => take());
      const mbuf = take();
      const data = cell(mbuf, 'data');
      u8.set([...expected.header, ...expected.packet], source + 3);
      const bytes = VNET_HEADER_BYTES + expected.packet.length;
      const result = datapath.vnetScatter(mbuf, source + 3, bytes, given.options);
      const needed = Math.ceil(expected.bytes.length / (ROOM - 128));
      if (needed > 1 && (given.options & SCATTER) === 0) assert.equal(result, VNET_RESULT.BAD);
      else if (needed > buffers + 1) assert.equal(result, VNET_RESULT.NO_BUFFER);
      else {
        assert.equal(result, VNET_RESULT.FILLED);
        assert.equal(cell(mbuf, 'segments'), needed);
        same(mbuf, expected);
      }
      if (result !== VNET_RESULT.FILLED) {
        assert.deepEqual([cell(mbuf, 'next'), cell(mbuf, 'dataLength'), cell(mbuf, 'data')], [0, 0, data]);
        assert.equal(poolFree(arena, pool), buffers);
      }
      free(mbuf);
      for (const other of hoard) free(other);
      assert.equal(poolFree(arena, pool), COUNT);
    }),
    { numRuns: 400 },
  );
});

test('a wrong IPv4 header is told', () => {
  const p = buildPacket({ family: 4, protocol: 17, ipOptions: 2, tcpOptions: 0, payload: 100, tcpFlags: 0, seed: 5 });
  p.bytes[p.l3 + 8]! ^= 0x10; // time to live
  const mbuf = take(largePool);
  u8.set([...vnetHeader(0), ...p.bytes], cell(mbuf, 'data') - VNET_HEADER_BYTES);
  assert.equal(datapath.vnetReceive(mbuf, VNET_HEADER_BYTES + p.bytes.length, VERDICTS), 1);
  assert.equal(cell(mbuf, 'flags'), familyFlags(p) | RX_IP_BAD | RX_L4_GOOD);
  free(mbuf);
});

test('a header that does not fit its packet is refused, whatever it says', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 0, maxLength: 200 }), fc.integer({ min: 0, max: 0x3f }), (raw, options) => {
      const mbuf = take();
      u8.set(raw, source);
      const result = datapath.vnetScatter(mbuf, source, raw.length, options | SCATTER);
      assert.ok(result === VNET_RESULT.FILLED || result === VNET_RESULT.BAD);
      if (raw.length < VNET_HEADER_BYTES + 14) assert.equal(result, VNET_RESULT.BAD);
      if (result === VNET_RESULT.FILLED) assert.ok(cell(mbuf, 'packetLength') <= raw.length - VNET_HEADER_BYTES);
      free(mbuf);
      assert.equal(poolFree(arena, pool), COUNT);
    }),
  );
});

const CAPACITY = 8;
const lists = VNET_TX.bytes + CAPACITY * 12;
const VECTORS = 16;
const tx = arena.reserve('tx', lists + VECTORS * 16 + VNET_GATHER_MIN);
const gather = tx + lists + VECTORS * 16;
/** Where the test has the arena lie: above 4 GiB, at no round place. */
const BASE = 0x7f12_3456_0000;

/** `vectorCount`: pieces that packets may have in all; 0 = they are always copied whole. */
function setTx(headerBytes: number, maxFrameBytes = 1522, vectorCount = 0): void {
  const values = {
    ...{ addresses: tx + VNET_TX.bytes, lengths: tx + VNET_TX.bytes + CAPACITY * 4, capacity: CAPACITY },
    ...{ pieces: tx + VNET_TX.bytes + CAPACITY * 8, vectors: vectorCount === 0 ? 0 : tx + lists, vectorCount },
    ...{ gather, gatherBytes: VNET_GATHER_MIN, maxFrameBytes, headerBytes },
  };
  u32[(tx + VNET_TX.at.base) >>> 2] = BASE % 2 ** 32;
  u32[(tx + VNET_TX.at.base + 4) >>> 2] = Math.floor(BASE / 2 ** 32);
  for (const [name, value] of Object.entries(values)) u32[(tx + VNET_TX.at[name as keyof typeof values]) >>> 2] = value;
}
/** Packet i as writev(2) would see it, and its pieces' arena addresses. */
const written = (i: number) => {
  const at = u32[(tx + VNET_TX.bytes + i * 4) >>> 2]!;
  const length = u32[(tx + VNET_TX.bytes + (CAPACITY + i) * 4) >>> 2]!;
  const count = u32[(tx + VNET_TX.bytes + (2 * CAPACITY + i) * 4) >>> 2]!;
  if (count === 1) return { at, bytes: u8.slice(at, at + length), pieces: [{ at, bytes: length }] };
  const pieces = Array.from({ length: count }, (_, piece) => {
    const [low, high, bytes, none] = u32.subarray((at >>> 2) + piece * 4, (at >>> 2) + piece * 4 + 4);
    assert.equal(none, 0);
    return { at: high! * 2 ** 32 + low! - BASE, bytes: bytes! };
  });
  const bytes = Buffer.concat(pieces.map((piece) => u8.slice(piece.at, piece.at + piece.bytes)));
  assert.equal(bytes.length, length);
  return { at, bytes: Uint8Array.from(bytes), pieces };
};
const transmit = (list: readonly number[]) => {
  for (const [i, mbuf] of list.entries()) u32[(handles >>> 2) + i] = mbuf;
  return datapath.vnetTransmit(tx, handles, list.length);
};

/** What the kernel is to get for a packet with that work pending. */
function departure(spec: PacketSpec, work: 'nothing' | 'partial' | 'large', mss: number, tci: number | undefined) {
  const p = buildPacket(spec);
  const isLarge = work === 'large' && spec.payload > mss;
  const asked = work !== 'nothing';
  let flags = familyFlags(p) | (tci === undefined ? 0 : VLAN);
  if (asked) flags |= checksumFlag(p);
  if (isLarge) flags |= TX_TSO | (spec.family === 4 ? TX_IP_CHECKSUM : 0);
  const shift = tci === undefined ? 0 : 4;
  const cwr = spec.protocol === 6 && (spec.tcpFlags & 0x80) !== 0 ? 0x80 : 0;
  const header = vnetHeader(
    asked ? NEEDS_CSUM : 0,
    isLarge ? gsoType(spec) | cwr : 0,
    isLarge ? mss : 0,
    asked ? p.l4 + shift : 0,
    asked ? checksumField(p) - p.l4 : 0,
    isLarge ? p.payloadAt + shift : 0,
  );
  const plain = asked ? partial(p) : p.bytes;
  return { p, flags, mss: isLarge ? mss : 0, header, bytes: tci === undefined ? plain : tagged(plain, tci) };
}

test('vnetTransmit: chains, clones and packets of our own all become the same bytes', () => {
  fc.assert(
    fc.property(
      packetSpec(1200),
      fc.constantFrom('nothing' as const, 'partial' as const, 'large' as const),
      fc.integer({ min: 200, max: 600 }),
      fc.option(fc.nat(0xffff), { nil: undefined }),
      fc.array(fc.nat(1200), { maxLength: 2 }),
      fc.constantFrom(10, 12),
      (spec, work, mss, tci, cuts, headerBytes) => {
        const { p, flags, mss: segment, header, bytes } = departure(spec, work, mss, tci);
        setTx(headerBytes, p.bytes.length + 8);
        for (const shape of ['own', 'held', 'chain'] as const) {
          const mbuf = chainOf(p.bytes, shape === 'chain' ? cuts : []);
          setCell(mbuf, 'flags', flags);
          setCell(mbuf, 'mss', segment);
          setCell(mbuf, 'vlanTci', tci ?? 0);
          setCell(mbuf, 'l4Offset', p.l4);
          if (shape === 'held') setCell(mbuf, 'references', 2);
          assert.equal(transmit([mbuf]), 1);
          const got = written(0);
          assert.deepEqual([...got.bytes.subarray(0, headerBytes)], header.slice(0, headerBytes), shape);
          assert.deepEqual(got.bytes.subarray(headerBytes), bytes, shape);
          // Whoever else sees the packet sees it unchanged.
          if (shape === 'held' || (shape === 'chain' && cell(mbuf, 'segments') > 1)) {
            assert.ok(got.at >= gather);
            assert.deepEqual(bytesOf(mbuf), p.bytes);
            assert.equal(cell(mbuf, 'flags'), flags);
          } else assert.ok(got.at < gather, 'copied without need');
          setCell(mbuf, 'references', 1);
          free(mbuf);
          assert.equal(poolFree(arena, largePool), large.count);
        }
      },
    ),
    { numRuns: 300 },
  );
});

test('vnetTransmit: long packets in pieces are the same bytes; only their heads are copied', () => {
  const shapes = fc.constantFrom('chain' as const, 'held' as const);
  let inPieces = 0;
  fc.assert(
    fc.property(
      packetSpec(4000),
      fc.constantFrom('nothing' as const, 'partial' as const, 'large' as const),
      fc.integer({ min: 200, max: 1400 }),
      fc.option(fc.nat(0xffff), { nil: undefined }),
      fc.array(fc.nat(4000), { maxLength: 3 }),
      shapes,
      (spec, work, mss, tci, cuts, shape) => {
        const { p, flags, mss: segment, header, bytes } = departure(spec, work, mss, tci);
        setTx(VNET_HEADER_BYTES, p.bytes.length + 8, VECTORS);
        const mbuf = chainOf(p.bytes, shape === 'chain' ? cuts : []);
        const one = cell(mbuf, 'segments') === 1;
        setCell(mbuf, 'flags', flags);
        setCell(mbuf, 'mss', segment);
        setCell(mbuf, 'vlanTci', tci ?? 0);
        setCell(mbuf, 'l4Offset', p.l4);
        if (shape === 'held') setCell(mbuf, 'references', 2);
        assert.equal(transmit([mbuf]), 1);
        const got = written(0);
        assert.deepEqual([...got.bytes.subarray(0, VNET_HEADER_BYTES)], header);
        assert.deepEqual(got.bytes.subarray(VNET_HEADER_BYTES), bytes);
        const copied = got.pieces.filter(({ at }) => at >= gather).reduce((sum, piece) => sum + piece.bytes, 0);
        if (shape === 'held' || !one) {
          // Whoever else sees the packet sees it unchanged.
          assert.deepEqual(bytesOf(mbuf), p.bytes);
          assert.equal(cell(mbuf, 'flags'), flags);
          // All headers are in the first 256 bytes of the first segment.
          const whole = p.bytes.length <= 1024 || p.payloadAt > Math.min(256, cell(mbuf, 'dataLength'));
          if (!whole) {
            inPieces++;
            assert.ok(got.pieces.length > 1);
            assert.ok(copied <= VNET_HEADER_BYTES + 4 + 256, `${copied} bytes copied`);
          } else if (p.bytes.length <= 1024) assert.equal(got.pieces.length, 1);
        }
        setCell(mbuf, 'references', 1);
        free(mbuf);
        assert.equal(poolFree(arena, largePool), large.count);
      },
    ),
    {
      numRuns: 400,
      // A first segment that ends right behind a UDP header.
      examples: [
        [
          { family: 4, protocol: 17, ipOptions: 3, tcpOptions: 0, payload: 2076, tcpFlags: 0, seed: 1 },
          'partial',
          289,
          1,
          [2090, 62],
          'chain',
        ],
      ],
    },
  );
  assert.ok(inPieces > 50, `only ${inPieces} packets in pieces`);
});

test('vnetTransmit: what needs every byte, or more pieces than there is room for, is copied whole', () => {
  const spec: PacketSpec = { family: 4, protocol: 6, ipOptions: 0, tcpOptions: 0, payload: 2000, tcpFlags: 0, seed: 1 };
  const { p, flags } = departure(spec, 'partial', 0, undefined);
  // The kernel would sum up the padding, too.
  const padded = new Uint8Array(p.bytes.length + 6);
  padded.set(p.bytes);
  const send = (bytes: Uint8Array, cuts: readonly number[], count: number) => {
    setTx(VNET_HEADER_BYTES, 5000, count);
    const mbuf = chainOf(bytes, cuts);
    setCell(mbuf, 'flags', flags);
    setCell(mbuf, 'l4Offset', p.l4);
    assert.equal(transmit([mbuf]), 1);
    free(mbuf);
    return written(0);
  };
  const summed = send(padded, [900], VECTORS);
  assert.equal(summed.pieces.length, 1);
  assert.deepEqual(summed.bytes.subarray(VNET_HEADER_BYTES), padded);
  assert.equal(send(p.bytes, [900, 1500], 4).pieces.length, 4);
  assert.equal(send(p.bytes, [900, 1500], 3).pieces.length, 1);
  // Headers that go on in the second segment.
  assert.equal(send(p.bytes, [40], VECTORS).pieces.length, 1);
  assert.equal(send(p.bytes, [54], VECTORS).pieces.length, 2);
});

test('vnetTransmit: a list of pieces is shared by the packets of a burst, in order', () => {
  setTx(VNET_HEADER_BYTES, 5000, 4);
  const fill = (value: number, cuts: readonly number[]) => chainOf(new Uint8Array(3000).fill(value), cuts);
  const list = [fill(1, [300]), fill(2, []), fill(3, [])];
  setCell(list[2]!, 'references', 2);
  assert.equal(transmit(list), 3);
  assert.deepEqual(
    list.map((_, i) => written(i).pieces.length),
    [3, 1, 1], // head, rest, second segment; one of its own; no room for two more
  );
  for (const [i, mbuf] of list.entries()) {
    assert.deepEqual(written(i).bytes.subarray(VNET_HEADER_BYTES), new Uint8Array(3000).fill(i + 1));
    setCell(mbuf, 'references', 1);
    free(mbuf);
  }
  assert.equal(poolFree(arena, largePool), large.count);
});

test('vnetTransmit: no packet has more pieces than the kernel takes', () => {
  const tiny = { name: 'tiny', count: IOV_MAX + 8, room: 256, headroom: 128 };
  const tinyPool = createPool(arena, arena.reserve('tiny buffers', poolBytes(tiny)), tiny);
  const room = arena.reserve('vectors', 2 * IOV_MAX * 16);
  for (const segments of [IOV_MAX - 1, IOV_MAX, IOV_MAX + 1]) {
    setTx(VNET_HEADER_BYTES, 65_000, 2 * IOV_MAX);
    u32[(tx + VNET_TX.at.vectors) >>> 2] = room;
    let before = 0;
    let head = 0;
    for (let i = 0; i < segments; i++) {
      const mbuf = take(tinyPool);
      u8.fill(i, cell(mbuf, 'data'), cell(mbuf, 'data') + 20);
      setCell(mbuf, 'dataLength', 20);
      if (before === 0) head = mbuf;
      else setCell(before, 'next', mbuf);
      before = mbuf;
    }
    setCell(head, 'segments', segments);
    setCell(head, 'packetLength', segments * 20);
    const expected = bytesOf(head);
    assert.equal(transmit([head]), 1);
    assert.deepEqual(written(0).bytes.subarray(VNET_HEADER_BYTES), expected);
    assert.equal(written(0).pieces.length, segments > IOV_MAX ? 1 : segments);
    free(head);
    assert.equal(poolFree(arena, tinyPool), tiny.count);
  }
  arena.release(room);
  arena.release(tinyPool);
});

test('vnetTransmit stops in front of what cannot be sent', () => {
  setTx(12, 300);
  const good = () => chainOf(new Uint8Array(300).fill(7), []);
  const long = chainOf(new Uint8Array(301), []);
  const list = [good(), good(), long];
  assert.equal(transmit(list), 2);
  assert.equal(transmit([long]), 0);
  for (const mbuf of list) free(mbuf);
  assert.equal(poolFree(arena, largePool), large.count);
  // Asks for a checksum that is not there.
  const odd = chainOf(new Uint8Array(60), []);
  setCell(odd, 'flags', IPV4 | PACKET_FLAG.TX_TCP_CHECKSUM);
  assert.equal(transmit([odd]), 0);
  // Lengths that disagree.
  const torn = chainOf(new Uint8Array(200), [100]);
  setCell(torn, 'flags', 0);
  setCell(torn, 'packetLength', 201);
  assert.equal(transmit([torn]), 0);
  setCell(torn, 'packetLength', 150);
  assert.equal(transmit([torn]), 0);
  free(odd);
  free(torn);
});

test('vnetTransmit: as many as the memory for copies holds, at least one', () => {
  setTx(12, 5000);
  u32[(tx + VNET_TX.at.gatherBytes) >>> 2] = 10_000;
  const list = Array.from({ length: 4 }, () => chainOf(new Uint8Array(4000).fill(9), []));
  for (const mbuf of list) setCell(mbuf, 'references', 2);
  assert.equal(transmit(list), 2);
  assert.equal(transmit(list.slice(2)), 2);
  for (const mbuf of list) {
    setCell(mbuf, 'references', 1);
    free(mbuf);
  }
});
