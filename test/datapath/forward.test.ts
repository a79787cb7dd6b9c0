// The forwarding passes against their model: packets of every shape, whole, cut off and in segments.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createDatapath } from '../../src/datapath/datapath.js';
import { Arena } from '../../src/memory/arena.js';
import { MBUF, PACKET_FLAG } from '../../src/memory/layout.js';
import { FORWARD_STREAM } from '../../src/memory/layout-forward.js';
import { createPool, poolBytes, poolFree } from '../../src/memory/pool.js';
import { buildPacket, fill, packetSpec, put16 } from '../../src/offload/offload-testing.js';
import { transportChecksum } from '../../src/wire/checksum.js';
import { checksums, echo, type ModelPacket, type ModelStream, mac, macSwap, swap5 } from './model-forward.js';

const POOL = { name: 'test', count: 64, room: 2176, headroom: 128 };
const arena = Arena.create({ bytes: 4 << 20 });
const datapath = createDatapath(arena.memory);
const { u8, u32 } = arena;
const pool = createPool(arena, arena.reserve('buffers', poolBytes(POOL)), POOL);
const stream = arena.reserve('stream', FORWARD_STREAM.bytes);
const handles = arena.reserve('handles', 256);
const segmentBytes = arena.reserve('segments', 64);
const template = arena.reserve('template', 4096);
const cell = (name: keyof typeof FORWARD_STREAM.at) => (stream + FORWARD_STREAM.at[name]) >>> 2;
const at = (mbuf: number, name: keyof typeof MBUF.at) => (mbuf + MBUF.at[name]) >>> 2;

interface Case {
  /** As it is before; a byte array of its own for each run. */
  readonly packet: ModelPacket;
  /** Bytes of the segments; their sum is the packet's length. */
  readonly segments: readonly number[];
}

/** Copies a packet into mbufs. Odd offsets in the data room, guard bytes behind the data. */
function put({ packet, segments }: Case): number {
  let first = 0;
  let before = 0;
  let from = 0;
  for (const [i, bytes] of segments.entries()) {
    assert.equal(datapath.poolGet(pool, handles + 192, 1), 1);
    const mbuf = u32[(handles + 192) >>> 2]!;
    u32[at(mbuf, 'data')]! += i * 3 + 1;
    const data = u32[at(mbuf, 'data')]!;
    u8.set(packet.bytes.subarray(from, from + bytes), data);
    u8.fill(0xa5, data + bytes, data + bytes + 64);
    u32[at(mbuf, 'dataLength')] = bytes;
    from += bytes;
    if (before === 0) first = mbuf;
    else u32[at(before, 'next')] = mbuf;
    before = mbuf;
  }
  u32[at(first, 'packetLength')] = packet.bytes.length;
  u32[at(first, 'segments')] = segments.length;
  u32[at(first, 'flags')] = packet.flags;
  return first;
}

/** Reads it back; what lies behind each segment's data must be untouched. */
function take(first: number): ModelPacket {
  const parts: number[] = [];
  for (let mbuf = first; mbuf !== 0; mbuf = u32[at(mbuf, 'next')]!) {
    const data = u32[at(mbuf, 'data')]!;
    const end = data + u32[at(mbuf, 'dataLength')]!;
    parts.push(...u8.subarray(data, end));
    assert.deepEqual([...u8.subarray(end, end + 64)], new Array(64).fill(0xa5), 'bytes behind the packet');
  }
  const bytes = Uint8Array.from(parts);
  assert.equal(u32[at(first, 'packetLength')], bytes.length);
  const [flags, mss, l4Offset] = (['flags', 'mss', 'l4Offset'] as const).map((name) => u32[at(first, name)]!);
  return { bytes, flags: flags!, mss: mss!, l4Offset: l4Offset! };
}

function setStream({ destination, source, checksums: device, tsoSegment, keepAddresses }: ModelStream): void {
  u8.fill(0, stream, stream + FORWARD_STREAM.bytes);
  u8.set([...destination, ...source], stream + FORWARD_STREAM.at.addresses);
  u32[cell('checksums')] = device;
  u32[cell('tsoSegment')] = tsoSegment;
  u32[cell('keepAddresses')] = keepAddresses ? 1 : 0;
}

const PLAIN: ModelStream = {
  ...{ destination: new Uint8Array(6), source: new Uint8Array(6), checksums: 0, tsoSegment: 0 },
  keepAddresses: true,
};
const address = fc.uint8Array({ minLength: 6, maxLength: 6 });
const streams: fc.Arbitrary<ModelStream> = fc.record({
  ...{ destination: address, source: address, checksums: fc.nat(7), keepAddresses: fc.boolean() },
  tsoSegment: fc.constantFrom(0, 0, 100, 1460),
});

const special: fc.Arbitrary<Uint8Array> = fc
  .record({ kind: fc.nat(3), tagged: fc.boolean(), group: fc.boolean(), seed: fc.nat(), extra: fc.nat(80) })
  .map(({ kind, tagged, group, seed, extra }) => {
    const l3 = tagged ? 18 : 14;
    const bytes = new Uint8Array(l3 + 28 + extra);
    fill(bytes, seed);
    bytes[0] = group ? bytes[0]! | 1 : bytes[0]! & 0xfe;
    bytes[6]! &= 0xfe;
    if (tagged) put16(bytes, 12, 0x8100);
    put16(bytes, l3 - 2, kind < 2 ? 0x0806 : 0x0800);
    if (kind < 2) bytes.set([0, 1, 8, 0, 6, 4, 0, kind + 1], l3);
    else {
      bytes[l3] = 0x45;
      put16(bytes, l3 + 2, 28 + extra);
      put16(bytes, l3 + 6, kind === 2 ? 0x4000 : 0x2000);
      bytes[l3 + 9] = 1;
      if (group) bytes[l3 + 16] = 0xe0 | (seed & 15);
      put16(bytes, l3 + 20, 0x0800);
    }
    return bytes;
  });

/** Whole packets, made worse: fragments, lengths that lie, cut off, zero checksums. */
const ordinary: fc.Arbitrary<Uint8Array> = fc
  .record({
    ...{ spec: packetSpec(1400), tag: fc.option(fc.nat(0xffff), { nil: undefined }) },
    ...{ worse: fc.nat(9), value: fc.nat(0xffff) },
  })
  .map(({ spec, tag, worse, value }) => {
    const plain = { ...spec, ipOptions: spec.family === 6 ? 0 : spec.ipOptions, tag };
    const { bytes, l3, l4 } = buildPacket(plain);
    if (worse === 1 && spec.family === 4) put16(bytes, l3 + 6, value & 0x3fff);
    if (worse === 2) put16(bytes, spec.family === 4 ? l3 + 2 : l3 + 4, value % (bytes.length * 2));
    if (worse === 3) return bytes.slice(0, 1 + (value % bytes.length));
    if (worse === 4 && spec.protocol === 17) put16(bytes, l4 + 6, 0);
    if (worse === 5 && spec.protocol === 17) put16(bytes, l4 + 4, value);
    if (worse === 6) bytes[l3]! ^= value & 255;
    if (worse === 7 && spec.family === 6) {
      bytes[l3 + 6] = 44;
      bytes[l4] = spec.protocol;
      bytes[l4 + 1] = 0;
      put16(bytes, l4 + 2, value);
    }
    return bytes;
  });

const cases: fc.Arbitrary<Case> = fc
  .record({
    bytes: fc.oneof({ arbitrary: ordinary, weight: 3 }, special),
    cuts: fc.array(fc.nat(1500), { maxLength: 3 }),
    flags: fc.constantFrom(
      0,
      PACKET_FLAG.VLAN | PACKET_FLAG.HASH,
      PACKET_FLAG.TX_UDP_CHECKSUM,
      PACKET_FLAG.TX_TSO | PACKET_FLAG.TCP,
      PACKET_FLAG.TX_TCP_CHECKSUM | PACKET_FLAG.IPV4,
    ),
  })
  .map(({ bytes, cuts, flags }) => {
    const ends = [...new Set([...cuts, bytes.length])].filter((cut) => cut > 0 && cut <= bytes.length);
    ends.sort((a, b) => a - b);
    const segments = ends.map((end, i) => end - (ends[i - 1] ?? 0));
    return { packet: { bytes, flags, mss: 0, l4Offset: 0 }, segments };
  });

const bursts = fc.array(cases, { minLength: 1, maxLength: 6 });
const copyOf = (packet: ModelPacket): ModelPacket => ({ ...packet, bytes: packet.bytes.slice() });

/** Runs a pass and its model over one burst; compares what comes out. */
function compare(
  list: readonly Case[],
  pass: (count: number) => number,
  model: (packet: ModelPacket, head: number) => boolean,
): void {
  const free = poolFree(arena, pool);
  for (const [i, one] of list.entries()) u32[(handles >>> 2) + i] = put(one);
  const expected: ModelPacket[] = [];
  for (const { packet, segments } of list) {
    const copy = copyOf(packet);
    if (model(copy, segments[0]!)) expected.push(copy);
  }
  const left = pass(list.length);
  assert.equal(left, expected.length);
  for (const [i, packet] of expected.entries()) assert.deepEqual(take(u32[(handles >>> 2) + i]!), packet);
  datapath.mbufFree(handles, left);
  assert.equal(poolFree(arena, pool), free, 'mbufs');
}

const all = (model: (packet: ModelPacket, head: number) => void) => (packet: ModelPacket, head: number) => {
  model(packet, head);
  return true;
};

/** A pass that keeps every packet. */
const keeping = (pass: (count: number) => void) => (count: number) => {
  pass(count);
  return count;
};

const passes: readonly [string, (count: number) => number, (model: ModelStream) => Parameters<typeof compare>[2]][] = [
  ['mac', keeping((n) => datapath.forwardMac(stream, handles, n)), (s) => all((packet, head) => mac(s, packet, head))],
  ['macswap', keeping((n) => datapath.forwardMacSwap(handles, n)), () => all(macSwap)],
  ['5tswap', keeping((n) => datapath.forwardSwap5(handles, n)), () => all(swap5)],
  [
    'csum',
    keeping((n) => datapath.forwardChecksum(stream, handles, n)),
    (s) => all((packet, head) => checksums(s, packet, head)),
  ],
  ['icmpecho', (n) => datapath.forwardEcho(stream, handles, n), (s) => (packet, head) => echo(s, packet, head)],
];

for (const [name, pass, model] of passes) {
  test(`forwarding pass ${name} equals its model`, () => {
    fc.assert(
      fc.property(streams, bursts, (settings, list) => {
        setStream(settings);
        compare(list, pass, model(settings));
      }),
      { numRuns: 400 },
    );
  });
}

test('checksum forwarding counts packets that a device called bad', () => {
  setStream(PLAIN);
  const { RX_IP_BAD, RX_L4_BAD, RX_L4_GOOD } = PACKET_FLAG;
  for (const [i, flags] of [RX_IP_BAD, RX_L4_BAD, RX_IP_BAD | RX_L4_BAD, RX_L4_GOOD].entries()) {
    const packet = { bytes: new Uint8Array(60), flags, mss: 0, l4Offset: 0 };
    u32[(handles >>> 2) + i] = put({ packet, segments: [60] });
  }
  datapath.forwardChecksum(stream, handles, 4);
  datapath.mbufFree(handles, 4);
  assert.deepEqual([u32[cell('rxBadIp')], u32[cell('rxBadL4')]], [2, 2]);
});

test('a transport checksum runs over segments of odd lengths', () => {
  setStream(PLAIN);
  const spec = { family: 4, protocol: 17, ipOptions: 0, tcpOptions: 0, payload: 1000, tcpFlags: 0, seed: 7 } as const;
  const { bytes, l4 } = buildPacket(spec);
  const right = bytes.slice();
  put16(bytes, l4 + 6, 0x1234);
  u32[handles >>> 2] = put({
    packet: { bytes, flags: 0, mss: 0, l4Offset: 0 },
    segments: [43, 1, 333, 7, bytes.length - 384],
  });
  datapath.forwardChecksum(stream, handles, 1);
  assert.deepEqual(take(u32[handles >>> 2]!).bytes, right);
  datapath.mbufFree(handles, 1);
});

test('a UDP checksum that comes out as 0 is written as 0xffff', () => {
  setStream(PLAIN);
  const spec = { family: 4, protocol: 17, ipOptions: 0, tcpOptions: 0, payload: 20, tcpFlags: 0, seed: 7 } as const;
  const { bytes, l3, l4 } = buildPacket(spec);
  for (const field of [l4 + 6, bytes.length - 2]) put16(bytes, field, 0);
  put16(bytes, bytes.length - 2, transportChecksum(bytes, l3, 17, l4));
  const right = bytes.slice();
  put16(right, l4 + 6, 0xffff);
  put16(bytes, l4 + 6, 0x1234);
  u32[handles >>> 2] = put({ packet: { bytes, flags: 0, mss: 0, l4Offset: 0 }, segments: [bytes.length] });
  datapath.forwardChecksum(stream, handles, 1);
  assert.deepEqual(take(u32[handles >>> 2]!).bytes, right);
  datapath.mbufFree(handles, 1);
});

test('made packets: the template in segments, flows in turn with right checksums, no more than the pool has', () => {
  setStream(PLAIN);
  const spec = { family: 4, protocol: 17, ipOptions: 0, tcpOptions: 0, payload: 200, tcpFlags: 0, seed: 9 } as const;
  const { bytes } = buildPacket(spec);
  u8.set(bytes, template);
  const segments = [64, 60, bytes.length - 124];
  segments.forEach((length, i) => {
    u32[(segmentBytes >>> 2) + i] = length;
  });
  const values = { template, pool, segmentBytes, segmentCount: 3, templateFlags: PACKET_FLAG.IPV4 | PACKET_FLAG.UDP };
  const flows = { flows: 3, flowOffset: 30, flowBase: 0x0afd00fe };
  for (const [name, value] of Object.entries({ ...values, ...flows })) u32[cell(name as keyof typeof flows)] = value;
  const free = poolFree(arena, pool);
  assert.equal(datapath.forwardMake(stream, handles, 4), 4);
  const seen = [0, 1, 2, 3].map((i) => {
    const mbuf = u32[(handles >>> 2) + i]!;
    const lengths: number[] = [];
    const made: number[] = [];
    for (let part = mbuf; part !== 0; part = u32[at(part, 'next')]!) {
      const data = u32[at(part, 'data')]!;
      lengths.push(u32[at(part, 'dataLength')]!);
      made.push(...u8.subarray(data, data + u32[at(part, 'dataLength')]!));
    }
    assert.deepEqual(lengths, segments);
    assert.equal(u32[at(mbuf, 'packetLength')], bytes.length);
    assert.equal(u32[at(mbuf, 'segments')], 3);
    assert.equal(u32[at(mbuf, 'flags')], PACKET_FLAG.IPV4 | PACKET_FLAG.UDP);
    const packet = Uint8Array.from(made);
    assert.equal(datapath.checksum(u32[at(mbuf, 'data')]! + 14, 20, 0), 0xffff, 'IPv4 header checksum');
    const like = bytes.slice();
    like.set(packet.subarray(24, 26), 24);
    like.set(packet.subarray(30, 34), 30);
    assert.deepEqual(packet, like);
    return [...packet.subarray(30, 34)];
  });
  assert.deepEqual(seen, [
    [10, 253, 0, 254],
    [10, 253, 0, 255],
    [10, 253, 1, 0],
    [10, 253, 0, 254],
  ]);
  datapath.mbufFree(handles, 4);
  const made = datapath.forwardMake(stream, handles, 48);
  assert.equal(made, Math.floor(free / 3));
  assert.equal(u32[cell('noMbufs')], 48 - made);
  datapath.mbufFree(handles, made);
  assert.equal(poolFree(arena, pool), free);
});
