// Coalescing of TCP segments against a model of NDIS's rules, on random traffic of a few connections: what comes out is what the model says,
// whoever cuts it up again finds the segments that went in, and nothing is lost, doubled or out of order.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FRAME, OFFLOAD, PACKET_FLAG } from '../memory/layout.js';
import { get16, put16, referenceSum } from '../offload/offload-testing.js';
import { Coalescer } from './coalescer.js';
import { type FrameSpec, layFrames, readFrame, type SeenFrame, testMemory } from './frames-testing.js';

const F = PACKET_FLAG;
const BOTH = OFFLOAD.RSC | OFFLOAD.TCP4_RX | OFFLOAD.TCP6_RX;
const ACK = 0x10;
const PSH = 0x08;

const { arena, datapath } = testMemory(16 << 20);
const coalescer = new Coalescer(arena, datapath);

interface Segment {
  /** Connection 0 to 3; odd ones are IPv6. */
  readonly flow: number;
  readonly sequence: number;
  readonly payload: number;
  readonly ack?: number;
  readonly window?: number;
  readonly tcpFlags?: number;
  readonly options?: 'none' | 'timestamp' | 'other';
  readonly stamp?: number;
  readonly echo?: number;
  readonly service?: number;
  readonly hops?: number;
  readonly ipId?: number;
  readonly tci?: number;
  /** What is known of its checksums, and whether they are right. */
  readonly sums?: 'good' | 'unfinished' | 'unknown' | 'wrong' | 'bad';
  readonly fragment?: boolean;
  readonly padding?: number;
  readonly cuts?: readonly number[];
}

const l4Of = (flow: number) => (flow % 2 === 0 ? 34 : 54);

function optionsOf({ options = 'none', stamp = 0, echo = 0 }: Segment): number[] {
  if (options === 'none') return [];
  const word = (value: number) => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
  if (options === 'other') return [1, 1, 1, 1];
  return [1, 1, 8, 10, ...word(stamp), ...word(echo)];
}

/** The segment as a frame. Payload bytes follow from the sequence number, as a retransmission's do. */
function frameOf(segment: Segment): FrameSpec {
  const { flow, sequence, payload, ack = 1, window = 1000, tcpFlags = ACK, service = 0, hops = 64, ipId = 7 } = segment;
  const { sums = 'good', fragment = false, padding = 0, tci, cuts = [] } = segment;
  const options = optionsOf(segment);
  const l4 = l4Of(flow);
  const headers = l4 + 20 + options.length;
  const bytes = new Uint8Array(headers + payload + padding);
  bytes.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
  const ipBytes = headers - 14 + payload;
  if (l4 === 34) {
    bytes.set(
      [8, 0, 0x45, service, ipBytes >> 8, ipBytes & 255, ipId >> 8, ipId & 255, fragment ? 0x20 : 0x40, 0, hops, 6],
      12,
    );
    bytes.set([10, 0, 0, 1, 10, 0, 0, 2 + flow], 26);
    put16(bytes, 24, ~referenceSum(bytes, 14, 34) & 0xffff);
  } else {
    bytes.set(
      [0x86, 0xdd, 0x60 | (service >> 4), (service & 15) << 4, 0, 0, (ipBytes - 40) >> 8, (ipBytes - 40) & 255],
      12,
    );
    bytes.set([fragment ? 44 : 6, hops], 20);
    bytes.fill(1, 22, 38);
    bytes.fill(2 + flow, 38, 54);
  }
  const view = new DataView(bytes.buffer);
  view.setUint16(l4, 1000);
  view.setUint16(l4 + 2, 80);
  view.setUint32(l4 + 4, sequence >>> 0);
  view.setUint32(l4 + 8, ack >>> 0);
  bytes.set([(5 + options.length / 4) << 4, tcpFlags, window >> 8, window & 255], l4 + 12);
  bytes.set(options, l4 + 20);
  for (let i = 0; i < payload; i++) bytes[headers + i] = ((sequence + i) * 7) & 255;
  const family = l4 === 34 ? F.IPV4 : F.IPV6;
  let flags = tci === undefined ? 0 : F.VLAN;
  if (sums === 'good') flags |= F.RX_L4_GOOD | F.RX_IP_GOOD;
  if (sums === 'bad') flags |= F.RX_L4_BAD;
  if (sums === 'unfinished') flags |= family | F.TCP | F.TX_TCP_CHECKSUM;
  const addresses = l4 === 34 ? [26, 34] : [22, 54];
  const pseudo = 6 + (headers - l4 + payload) + referenceSum(bytes, addresses[0]!, addresses[1]!);
  const sum = ~referenceSum(bytes, l4, headers + payload, pseudo) & 0xffff;
  put16(bytes, l4 + 16, sums === 'unfinished' ? 0x1234 : sums === 'wrong' ? sum ^ 0x101 : sum);
  return { source: 1, bytes, flags, cuts, ...(tci !== undefined && { tci }) };
}

/** What a packet becomes in the model: the segments that it has. */
type Unit = Segment[];

const after = (a: number, b: number) => (a - b) | 0;

/** The segment may begin or continue a packet. */
function plain({ payload, tcpFlags = ACK, options = 'none', sums = 'good', fragment, padding = 0 }: Segment): boolean {
  const known = sums !== 'wrong' && sums !== 'bad';
  return payload > 0 && (tcpFlags & ~PSH) === ACK && options !== 'other' && known && !fragment && padding === 0;
}

function follows(unit: Unit, next: Segment, most: number): boolean {
  const first = unit[0]!;
  const last = unit.at(-1)!;
  const total = unit.reduce((sum, { payload }) => sum + payload, next.payload);
  const same = (['options', 'service', 'hops', 'tci'] as const).every((field) => next[field] === first[field]);
  const headers = l4Of(first.flow) - 14 + 20 + optionsOf(first).length;
  return (
    same &&
    plain(first) &&
    plain(next) &&
    after(next.sequence, last.sequence + last.payload) === 0 &&
    last.payload === first.payload &&
    next.payload <= first.payload &&
    unit.length < most &&
    headers + total <= 65_535 &&
    after(next.ack ?? 1, last.ack ?? 1) >= 0 &&
    (next.options !== 'timestamp' || after(next.stamp ?? 0, last.stamp ?? 0) >= 0)
  );
}

function model(segments: readonly Segment[], most: number, families: number): Unit[] {
  const units: Unit[] = [];
  const growing = new Map<number, Unit>();
  for (const segment of segments) {
    const { flow, payload, fragment } = segment;
    const unit = growing.get(flow);
    const wanted = (families & (flow % 2 === 0 ? OFFLOAD.TCP4_RX : OFFLOAD.TCP6_RX)) !== 0;
    if (unit && wanted && follows(unit, segment, most)) {
      unit.push(segment);
      continue;
    }
    const made: Unit = [segment];
    units.push(made);
    if (fragment) growing.clear();
    else if (payload > 0 && wanted) growing.set(flow, made);
    else growing.delete(flow);
  }
  return units;
}

/** The bytes of a packet of several: the first one's, with what the last one says. */
function bytesOf(unit: Unit): Uint8Array {
  const frames = unit.map((segment) => frameOf(segment).bytes);
  if (unit.length === 1) return frames[0]!;
  const l4 = l4Of(unit[0]!.flow);
  const headers = l4 + 20 + optionsOf(unit[0]!).length;
  const bytes = Uint8Array.from(
    Buffer.concat([frames[0]!, ...frames.slice(1).map((frame) => frame.subarray(headers))]),
  );
  const last = frames.at(-1)!;
  bytes.set(last.subarray(l4 + 8, l4 + 12), l4 + 8);
  bytes[l4 + 13] = ACK | unit.reduce((push, { tcpFlags = ACK }) => push | (tcpFlags & PSH), 0);
  bytes.set(last.subarray(l4 + 14, l4 + 16), l4 + 14);
  bytes.set(last.subarray(l4 + 20, headers), l4 + 20);
  if (l4 === 34) {
    put16(bytes, 16, bytes.length - 14);
    put16(bytes, 24, 0);
    put16(bytes, 24, ~referenceSum(bytes, 14, 34) & 0xffff);
  } else put16(bytes, 18, bytes.length - 54);
  return bytes;
}

function flagsOf(unit: Unit): number {
  const own = frameOf(unit[0]!).flags! | (unit[0]!.tci === undefined ? 0 : F.VLAN);
  if (unit.length === 1) return own;
  const family = l4Of(unit[0]!.flow) === 34 ? F.IPV4 | F.RX_IP_GOOD : F.IPV6;
  return family | F.TCP | F.TX_TCP_CHECKSUM | F.TX_TSO | F.RX_COALESCED | (own & F.VLAN);
}

function run(specs: readonly FrameSpec[], abilities = BOTH, most = 562): SeenFrame[] {
  const table = layFrames(arena, specs);
  const list = arena.reserve('list', Math.max(4, specs.length * 4));
  for (let i = 0; i < specs.length; i++) arena.u32[(list >>> 2) + i] = table + i * FRAME.bytes;
  try {
    const n = coalescer.run(list, specs.length, abilities, most);
    return Array.from({ length: n }, (_, i) => readFrame(arena, arena.u32[(coalescer.output >>> 2) + i]!));
  } finally {
    arena.release(list);
    arena.release(table);
  }
}

function check(segments: readonly Segment[], abilities = BOTH, most = 562): SeenFrame[] {
  const seen = run(segments.map(frameOf), abilities, most);
  const units = model(segments, most, abilities);
  assert.deepEqual(
    seen.map(({ bytes }) => bytes.length),
    units.map((unit) => bytesOf(unit).length),
    'lengths',
  );
  for (const [i, unit] of units.entries()) {
    const { bytes, flags, mss, tci } = seen[i]!;
    assert.deepEqual(bytes, bytesOf(unit), `packet ${i}`);
    assert.equal(flags, flagsOf(unit), `flags of packet ${i}`);
    assert.equal(tci, unit[0]!.tci);
    assert.equal(mss, unit.length > 1 ? unit[0]!.payload : 0);
  }
  return seen;
}

/** Segments of a transfer on a connection. */
const transfer = (count: number, payload: number, change: Partial<Segment> = {}): Segment[] =>
  Array.from({ length: count }, (_, i) => ({ flow: 0, sequence: 5000 + i * payload, payload, ...change }));

for (const [name, flow] of [
  ['IPv4', 0],
  ['IPv6', 1],
] as const) {
  test(`${name}: a transfer becomes one packet, and the rest of it when it is too long for one`, () => {
    const before = coalescer.counters();
    const seen = check(transfer(100, 1448, { flow, options: 'timestamp', stamp: 9, echo: 4 }));
    assert.equal(seen.length, 3);
    assert.ok(seen[0]!.bytes.length - 14 > 65_535 - 1448);
    const { coalescedPackets, coalescedSegments } = coalescer.counters();
    assert.deepEqual(
      [coalescedPackets - before.coalescedPackets, coalescedSegments - before.coalescedSegments],
      [3, 100],
    );
  });

  test(`${name}: what comes out, cut up again, is what went in`, () => {
    const segments = transfer(20, 1000, { flow, sums: 'unfinished', ipId: 1 });
    const [whole] = check(segments);
    const at = arena.reserve('whole', 32_768);
    const out = arena.reserve('segments', 20 * 2048);
    const lengths = arena.reserve('lengths', 80);
    arena.u8.set(whole!.bytes, at);
    const count = datapath.segment(at, whole!.bytes.length, l4Of(flow), whole!.mss, out, 2048, lengths, 20);
    assert.equal(count, 20);
    for (const [i, segment] of segments.entries()) {
      const bytes = arena.u8.slice(out + i * 2048, out + i * 2048 + arena.u32[(lengths >>> 2) + i]!);
      assert.deepEqual(bytes, frameOf({ ...segment, sums: 'good', ipId: 1 + i }).bytes, `segment ${i}`);
    }
    for (const address of [at, out, lengths]) arena.release(address);
  });
}

test('562 segments at most; short ones are coalesced as well', () => {
  assert.deepEqual(
    check(transfer(600, 100)).map(({ bytes }) => (bytes.length - 54) / 100),
    [562, 38],
  );
  assert.deepEqual(
    check(transfer(20, 1), BOTH, 8).map(({ bytes }) => bytes.length - 54),
    [8, 8, 4],
  );
});

const three = transfer(3, 1000);
const cases: readonly [string, readonly Segment[], readonly number[]][] = [
  ['a hole', [three[0]!, three[2]!], [1, 1]],
  ['a retransmission', [three[0]!, three[0]!, three[1]!], [1, 2]],
  ['a shorter one ends it', [three[0]!, { ...three[1]!, payload: 400 }, { ...three[2]!, sequence: 6400 }], [2, 1]],
  [
    'a longer one',
    [
      { ...three[0]!, payload: 400 },
      { ...three[1]!, sequence: 5400 },
    ],
    [1, 1],
  ],
  ['PSH is kept and ends nothing', [three[0]!, { ...three[1]!, tcpFlags: ACK | PSH }, three[2]!], [3]],
  ['FIN', [three[0]!, { ...three[1]!, tcpFlags: ACK | 1 }, three[2]!], [1, 1, 1]],
  ['no ACK', [three[0]!, { ...three[1]!, tcpFlags: 0 }], [1, 1]],
  ['CWR', [three[0]!, { ...three[1]!, tcpFlags: ACK | 0x80 }], [1, 1]],
  ['an acknowledgement that goes forward', [three[0]!, { ...three[1]!, ack: 500 }, { ...three[2]!, ack: 900 }], [3]],
  [
    'one that goes back',
    [
      { ...three[0]!, ack: 500 },
      { ...three[1]!, ack: 499 },
    ],
    [1, 1],
  ],
  [
    'acknowledgements around zero',
    [
      { ...three[0]!, ack: 0xffff_fff0 },
      { ...three[1]!, ack: 5 },
    ],
    [2],
  ],
  ['sequence numbers around zero', transfer(3, 1000).map((s, i) => ({ ...s, sequence: 0xffff_fa24 + i * 1000 })), [3]],
  ['another window', [three[0]!, { ...three[1]!, window: 77 }], [2]],
  ['a pure acknowledgement', [three[0]!, { ...three[1]!, payload: 0 }, three[1]!], [1, 1, 1]],
  [
    'duplicate acknowledgements',
    [
      { ...three[0]!, payload: 0 },
      { ...three[0]!, payload: 0 },
      { ...three[0]!, payload: 0 },
    ],
    [1, 1, 1],
  ],
  ['another class of service', [three[0]!, { ...three[1]!, service: 0x10 }], [1, 1]],
  [
    'congestion experienced',
    [
      { ...three[0]!, service: 2 },
      { ...three[1]!, service: 3 },
    ],
    [1, 1],
  ],
  ['another time to live', [three[0]!, { ...three[1]!, hops: 63 }], [1, 1]],
  [
    'another VLAN',
    [
      { ...three[0]!, tci: 5 },
      { ...three[1]!, tci: 6 },
    ],
    [1, 1],
  ],
  ['a VLAN and none', [three[0]!, { ...three[1]!, tci: 0 }], [1, 1]],
  ['a fragment', [three[0]!, { ...three[1]!, fragment: true }, three[1]!], [1, 1, 1]],
  ['a fragment of another connection', [three[0]!, { ...three[1]!, flow: 1, fragment: true }, three[1]!], [1, 1, 1]],
  ['padding', [{ ...three[0]!, padding: 4 }, three[1]!], [1, 1]],
  ['other options', three.map((s) => ({ ...s, options: 'other' as const })), [1, 1, 1]],
  ['options and none', [three[0]!, { ...three[1]!, options: 'timestamp' }], [1, 1]],
  ['timestamps that go back', three.map((s, i) => ({ ...s, options: 'timestamp' as const, stamp: 9 - i })), [1, 1, 1]],
  [
    'timestamps that go forward',
    three.map((s, i) => ({ ...s, options: 'timestamp' as const, stamp: i, echo: 3 * i })),
    [3],
  ],
  ['a wrong checksum that nobody looked at', [three[0]!, { ...three[1]!, sums: 'wrong' }, three[2]!], [1, 1, 1]],
  ['the first one has it', [{ ...three[0]!, sums: 'wrong' }, three[1]!, three[2]!], [1, 2]],
  ['one that was found wrong', [three[0]!, { ...three[1]!, sums: 'bad' }], [1, 1]],
  ['right ones that nobody looked at', three.map((s) => ({ ...s, sums: 'unknown' as const })), [3]],
  ['two connections in turn', three.flatMap((s) => [s, { ...s, flow: 2 }]), [3, 3]],
];
for (const [name, segments, sizes] of cases) {
  for (const shift of [0, 1]) {
    test(`${name}, IPv${shift === 0 ? 4 : 6}`, () => {
      const list = segments.map((segment) => ({ ...segment, flow: (segment.flow + shift) % 4 }));
      check(list);
      assert.deepEqual(
        model(list, 562, BOTH).map(({ length }) => length),
        sizes,
      );
    });
  }
}

test('only for families whose checksums the guest leaves to the host', () => {
  const segments = [...transfer(3, 1000), ...transfer(3, 1000, { flow: 1 })];
  assert.equal(check(segments, OFFLOAD.RSC | OFFLOAD.TCP4_RX).length, 4);
  assert.equal(check(segments, OFFLOAD.RSC | OFFLOAD.TCP6_RX).length, 4);
  assert.equal(check(segments, OFFLOAD.RSC).length, 6);
});

test('large sends and packets of other protocols pass by; a connection does not grow over its large send', () => {
  const [a, b] = transfer(2, 1000).map(frameOf);
  const large = frameOf({ flow: 0, sequence: 6000, payload: 5000, sums: 'unfinished' });
  large.bytes.fill(0, 16, 18);
  const other: FrameSpec = { source: 1, bytes: new Uint8Array(100) };
  const tso = { ...large, flags: large.flags! | F.TX_TSO, mss: 1000, l4Offset: 34 };
  assert.deepEqual(
    run([a!, tso, b!]).map(({ bytes }) => bytes.length),
    [1054, 5054, 1054],
  );
  assert.deepEqual(
    run([a!, other, b!]).map(({ bytes }) => bytes.length),
    [2054, 100],
  );
});

const anySegment: fc.Arbitrary<
  Partial<Segment> & { readonly step: number; readonly bytes: number; readonly flow: number }
> = fc.record({
  step: fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 1, -1, 1000),
  bytes: fc.constantFrom(1000, 1000, 1000, 1000, 1000, 300, 1448, 20, 0),
  flow: fc.integer({ min: 0, max: 3 }),
  ack: fc.constantFrom(1, 1, 1, 2, 0),
  window: fc.constantFrom(1000, 2000),
  tcpFlags: fc.constantFrom(ACK, ACK, ACK, ACK, ACK | PSH, ACK | 1, 2, ACK | 0x40),
  options: fc.constantFrom('none', 'timestamp', 'timestamp', 'timestamp', 'other'),
  stamp: fc.constantFrom(5, 5, 5, 6, 4),
  service: fc.constantFrom(0, 0, 0, 0, 1),
  hops: fc.constantFrom(64, 64, 64, 64, 63),
  sums: fc.constantFrom('good', 'good', 'unfinished', 'unknown', 'wrong', 'bad'),
  fragment: fc.constantFrom(false, false, false, false, false, false, true),
  cuts: fc.array(fc.integer({ min: 1, max: 1500 }), { maxLength: 3 }).map((list) => [...list].sort((a, b) => a - b)),
});

test('random traffic: as the model says', () => {
  fc.assert(
    fc.property(fc.array(anySegment, { minLength: 1, maxLength: 60 }), fc.constantFrom(562, 4), (list, most) => {
      const next = [5000, 9000, 0xffff_f000, 77];
      const segments = list.map(({ step, bytes, ...rest }) => {
        const { flow } = rest;
        const sequence = (next[flow]! + step) >>> 0;
        next[flow] = sequence + bytes;
        return { ...rest, flow, sequence, payload: bytes };
      });
      check(segments, BOTH, most);
    }),
    { numRuns: 400 },
  );
});

test('many connections at once: each is coalesced, but for a few that share a place', () => {
  const connections = Array.from({ length: 32 }, (_, i) => i);
  const before = coalescer.counters().coalescedPackets;
  const segments = [0, 1, 2].flatMap((round) =>
    connections.map((host): FrameSpec => {
      const frame = frameOf({ flow: 0, sequence: 5000 + round * 1000, payload: 1000 });
      frame.bytes[33] = host;
      return frame;
    }),
  );
  for (const frame of segments) put16(frame.bytes, 24, 0);
  run(segments);
  assert.ok(coalescer.counters().coalescedPackets - before >= 24);
});

test('any bytes at all: nothing is lost, nothing beyond the frames is read into a packet', () => {
  const headers = fc.constantFrom(...[0, 1].map((flow) => frameOf({ flow, sequence: 1, payload: 200 }).bytes));
  const spoiled = fc
    .tuple(
      headers,
      fc.integer({ min: 14, max: 274 }),
      fc.array(fc.tuple(fc.nat(80), fc.nat(255)), { maxLength: 6 }),
      fc.nat(0x1_ffff),
    )
    .map(([bytes, length, changes, flags]): FrameSpec => {
      const spoilt = bytes.slice(0, length);
      for (const [at, value] of changes) if (at < spoilt.length) spoilt[at] = value;
      return { source: 1, bytes: spoilt, flags: flags & ~(F.HASH | F.VLAN | F.RX_COALESCED) };
    });
  fc.assert(
    fc.property(fc.array(spoiled, { minLength: 1, maxLength: 40 }), (specs) => {
      const seen = run(specs);
      const bytes = (list: readonly { readonly bytes: Uint8Array }[]) =>
        list.reduce((sum, { bytes: b }) => sum + b.length, 0);
      const joined = specs.length - seen.length;
      assert.ok(joined >= 0 && bytes(specs) - bytes(seen) <= joined * 86, 'only headers are left out');
      for (const { bytes: b } of seen.filter(({ flags }) => (flags & F.RX_COALESCED) !== 0)) {
        if (get16(b, 12) === 0x800) assert.equal(get16(b, 16), b.length - 14);
        else assert.equal(get16(b, 18), b.length - 54);
      }
    }),
    { numRuns: 400 },
  );
});
