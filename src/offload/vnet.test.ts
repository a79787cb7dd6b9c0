import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { VNET_HEADER_BYTES } from '../datapath/datapath.js';
import { FRAGMENT, FRAME, MBUF, PACKET_FLAG } from '../memory/layout.js';
import {
  BASE,
  buildPacket,
  checksumField,
  checksumFlag,
  DATA_VALID,
  familyFlags,
  fill,
  GSO,
  GUARD,
  get16,
  gsoType,
  NEEDS_CSUM,
  OUTPUT,
  type Packet,
  type PacketSpec,
  packetSpec,
  partial,
  put16,
  referenceSum,
  tagged,
  testMemory,
  vnetHeader,
} from './offload-testing.js';

const { u8, u32, datapath } = testMemory();
const { IPV4, TCP, UDP, VLAN, TX_IP_CHECKSUM, TX_TCP_CHECKSUM, TX_UDP_CHECKSUM, TX_TSO } = PACKET_FLAG;
const { RX_L4_GOOD, RX_COALESCED } = PACKET_FLAG;

const MBUF_AT = OUTPUT + 0x40000;
const ROOM = BASE + 4096;
const DATA = ROOM + 128;
const TCP4: PacketSpec = {
  family: 4,
  protocol: 6,
  ipOptions: 1,
  tcpOptions: 3,
  payload: 4000,
  tcpFlags: 0x18,
  seed: 7,
};

const cell = (name: keyof typeof MBUF.at) => u32[(MBUF_AT + MBUF.at[name]) >>> 2]!;
const setCell = (name: keyof typeof MBUF.at, value: number) => {
  u32[(MBUF_AT + MBUF.at[name]) >>> 2] = value;
};

interface Description {
  flags: number;
  mss?: number;
  vlanTci?: number;
  l4Offset?: number;
}

/** An mbuf with 128 bytes of headroom and guards around everything. */
function layMbuf(bytes: Uint8Array, { flags, mss = 0, vlanTci = 0, l4Offset = 0 }: Description): void {
  u8.fill(GUARD, ROOM - 64, DATA + bytes.length + 64);
  u8.set(bytes, DATA);
  u32.fill(0, MBUF_AT >>> 2, (MBUF_AT + MBUF.bytes) >>> 2);
  const cells = { buffer: ROOM, data: DATA, dataLength: bytes.length, packetLength: bytes.length, segments: 1 };
  for (const [name, value] of Object.entries({ ...cells, flags, mss, vlanTci, l4Offset })) {
    setCell(name as keyof typeof MBUF.at, value);
  }
}

/** What a TAP delivers: header, packet. */
function fromTap(header: number[], bytes: Uint8Array): number {
  layMbuf(bytes, { flags: 0 });
  u8.set(header, DATA - VNET_HEADER_BYTES);
  return datapath.vnetToMbuf(MBUF_AT, VNET_HEADER_BYTES + bytes.length);
}

const shapes = fc.record({
  spec: packetSpec(4000),
  work: fc.constantFrom('nothing' as const, 'good' as const, 'checksum' as const, 'large' as const),
  mss: fc.integer({ min: 200, max: 1460 }),
  tci: fc.option(fc.nat(0xffff), { nil: undefined }),
});

/** Flags and mss of an mbuf with that work pending. */
function describe(p: Packet, work: 'nothing' | 'good' | 'checksum' | 'large', mss: number, tci?: number): Description {
  let flags = familyFlags(p) | (tci === undefined ? 0 : VLAN);
  const large = work === 'large' && p.spec.payload > mss;
  if (work === 'good') flags |= RX_L4_GOOD;
  if (work === 'checksum' || work === 'large') flags |= checksumFlag(p);
  if (large) flags |= TX_TSO | (p.spec.family === 4 ? TX_IP_CHECKSUM : 0);
  return { flags, mss: large ? mss : 0, vlanTci: tci ?? 0, l4Offset: p.l4 };
}

test('mbufToVnet writes what Linux expects of a partial checksum, a large send, a tag', () => {
  fc.assert(
    fc.property(shapes, ({ spec, work, mss, tci }) => {
      const p = buildPacket(spec);
      const description = describe(p, work, mss, tci);
      layMbuf(p.bytes, description);
      const shift = tci === undefined ? 0 : 4;
      const at = datapath.mbufToVnet(MBUF_AT) >>> 0;
      assert.equal(at, DATA - shift - VNET_HEADER_BYTES);
      const delegated = work === 'checksum' || work === 'large';
      const isLarge = description.mss !== 0;
      const cwr = spec.protocol === 6 && (spec.tcpFlags & 0x80) !== 0 ? GSO.ECN : 0;
      const expected = vnetHeader(
        delegated ? NEEDS_CSUM : work === 'good' ? DATA_VALID : 0,
        isLarge ? gsoType(spec) | cwr : 0,
        isLarge ? mss : 0,
        delegated ? p.l4 + shift : 0,
        delegated ? checksumField(p) - p.l4 : 0,
        isLarge ? p.payloadAt + shift : 0,
      );
      assert.deepEqual([...u8.subarray(at, at + VNET_HEADER_BYTES)], expected);
      const plain = delegated ? partial(p) : p.bytes;
      const written = tci === undefined ? plain : tagged(plain, tci);
      assert.equal(cell('data'), at + VNET_HEADER_BYTES);
      assert.equal(cell('dataLength'), written.length);
      assert.equal(cell('packetLength'), written.length);
      const start = at + VNET_HEADER_BYTES;
      assert.deepEqual(u8.slice(start, start + written.length), written);
      assert.equal(u8[at - 1], GUARD);
      assert.equal(u8[start + written.length], GUARD);

      // And back: the same description, and the same packet once its checksums are done.
      assert.equal(datapath.vnetToMbuf(MBUF_AT, VNET_HEADER_BYTES + written.length), 1);
      const back = { flags: cell('flags'), mss: cell('mss'), vlanTci: cell('vlanTci'), l4Offset: cell('l4Offset') };
      assert.deepEqual(back, description);
      assert.equal(cell('data'), DATA);
      assert.equal(cell('dataLength'), p.bytes.length);
      if (delegated) assert.equal(datapath.checksumFinish(DATA, p.bytes.length, back.flags, back.l4Offset), 1);
      assert.deepEqual(u8.slice(DATA, DATA + p.bytes.length), p.bytes);
    }),
    { numRuns: 300 },
  );
});

test('frameToVnet gathers to the same bytes as mbufToVnet writes, and vnetToFrame reads them back', () => {
  fc.assert(
    fc.property(shapes, fc.array(fc.nat(4000), { maxLength: 4 }), ({ spec, work, mss, tci }, cuts) => {
      const p = buildPacket(spec);
      const description = describe(p, work, mss, tci);
      const frame = OUTPUT + 0x50000;
      const entries = frame + FRAME.bytes;
      const ends = [...cuts.filter((c) => c < p.bytes.length).sort((a, b) => a - b), p.bytes.length];
      u8.set(p.bytes, BASE + 0x10001);
      u32.fill(0, frame >>> 2, entries >>> 2);
      ends.forEach((end, i) => {
        const start = i === 0 ? 0 : ends[i - 1]!;
        u32[(entries + i * FRAGMENT.bytes + FRAGMENT.at.address) >>> 2] = BASE + 0x10001 + start;
        u32[(entries + i * FRAGMENT.bytes + FRAGMENT.at.bytes) >>> 2] = end - start;
      });
      const cells = { fragments: entries, fragmentCount: ends.length, length: p.bytes.length, ...description };
      for (const [name, value] of Object.entries(cells)) {
        u32[(frame + FRAME.at[name as keyof typeof FRAME.at]) >>> 2] = value;
      }
      u8.fill(GUARD, OUTPUT, OUTPUT + 8192);
      const bytes = datapath.frameToVnet(frame, OUTPUT + 16);
      layMbuf(p.bytes, description);
      const at = datapath.mbufToVnet(MBUF_AT) >>> 0;
      assert.equal(bytes, cell('dataLength') + VNET_HEADER_BYTES);
      assert.deepEqual(u8.slice(OUTPUT + 16, OUTPUT + 16 + bytes), u8.slice(at, at + bytes));
      assert.equal(u8[OUTPUT + 15], GUARD);
      assert.equal(u8[OUTPUT + 16 + bytes], GUARD);
      assert.deepEqual(u8.slice(BASE + 0x10001, BASE + 0x10001 + p.bytes.length), p.bytes, 'the source is unchanged');

      assert.equal(datapath.vnetToFrame(frame, entries, OUTPUT + 16, bytes), 1);
      const get = (name: keyof typeof FRAME.at) => u32[(frame + FRAME.at[name]) >>> 2]!;
      const back = { flags: get('flags'), mss: get('mss'), vlanTci: get('vlanTci'), l4Offset: get('l4Offset') };
      assert.deepEqual(back, description);
      assert.deepEqual([get('fragmentCount'), get('length'), get('fragments')], [1, p.bytes.length, entries]);
      assert.deepEqual([get('head'), u32[entries >>> 2]], [OUTPUT + 16 + bytes - p.bytes.length, get('head')]);
    }),
  );
});

test('a coalesced packet goes on as a large send, a single segment as valid data', () => {
  const p = buildPacket(TCP4);
  layMbuf(p.bytes, { flags: IPV4 | TCP | RX_L4_GOOD | RX_COALESCED, mss: 1448 });
  let at = datapath.mbufToVnet(MBUF_AT) >>> 0;
  assert.deepEqual(
    [...u8.subarray(at, at + 6)],
    vnetHeader(NEEDS_CSUM, GSO.TCPV4, 1448, 0, 0, p.payloadAt).slice(0, 6),
  );
  layMbuf(p.bytes, { flags: IPV4 | TCP | RX_L4_GOOD | RX_COALESCED, mss: 4000 });
  at = datapath.mbufToVnet(MBUF_AT) >>> 0;
  assert.deepEqual([...u8.subarray(at, at + 12)], vnetHeader(DATA_VALID));
});

test('lengths that an NDIS sender left at 0 are filled in', () => {
  for (const family of [4, 6] as const) {
    const p = buildPacket({ ...TCP4, family });
    const sent = p.bytes.slice();
    put16(sent, p.l3 + (family === 4 ? 2 : 4), 0);
    if (family === 4) put16(sent, p.l3 + 10, 0);
    layMbuf(sent, { flags: familyFlags(p) | TX_TSO, mss: 1000 });
    const at = datapath.mbufToVnet(MBUF_AT) >>> 0;
    assert.notEqual(at, 0);
    assert.deepEqual(u8.slice(at + 12, at + 12 + sent.length), partial(p));
  }
});

test('a packet with Ethernet padding is completed here: the kernel would sum the padding', () => {
  const p = buildPacket({ ...TCP4, payload: 1, tcpOptions: 0, ipOptions: 0 });
  const padded = new Uint8Array(60).fill(0x77);
  padded.set(p.bytes);
  put16(padded, checksumField(p), 0);
  layMbuf(padded, { flags: IPV4 | TCP | TX_TCP_CHECKSUM });
  const at = datapath.mbufToVnet(MBUF_AT) >>> 0;
  assert.deepEqual([...u8.subarray(at, at + 12)], vnetHeader(DATA_VALID));
  assert.deepEqual(u8.slice(at + 12, at + 12 + p.bytes.length), p.bytes);
});

test('mbufToVnet refuses what it cannot describe', () => {
  const p = buildPacket(TCP4);
  const refused = (why: string, description: Description, change: () => void = () => {}, bytes = p.bytes) => {
    layMbuf(bytes, description);
    change();
    assert.equal(datapath.mbufToVnet(MBUF_AT), 0, why);
    assert.equal(u8[ROOM - 1], GUARD, why);
  };
  refused('two segments', { flags: 0 }, () => setCell('segments', 2));
  refused('no headroom', { flags: 0 }, () => setCell('buffer', DATA - 11));
  refused('no headroom for the tag', { flags: VLAN }, () => setCell('buffer', DATA - 15));
  refused('UDP asked of TCP', { flags: TX_UDP_CHECKSUM });
  refused('large ICMP', { flags: TX_TSO, mss: 100 }, () => u8.fill(1, DATA + 23, DATA + 24));
  const jumbo = buildPacket({ ...TCP4, payload: 66_000 }).bytes;
  put16(jumbo, 16, 0);
  refused('mss beyond 16 bits', { flags: TX_TSO, mss: 65_536 }, undefined, jumbo);
  refused('total length beyond the packet', { flags: TX_TCP_CHECKSUM }, () => put16(u8, DATA + 16, 9999));
  refused('runt', { flags: 0 }, undefined, p.bytes.subarray(0, 13));
});

test('a partial checksum that no flag can express is completed in place', () => {
  const p = buildPacket({ ...TCP4, payload: 101 });
  // As a tunnel's inner packet would: another start, another field.
  const [start, field] = [p.l4 + 20, 30];
  const bytes = p.bytes.slice();
  const expected = ~referenceSum(bytes, start, bytes.length) & 0xffff;
  for (const tci of [undefined, 0x0064]) {
    const shift = tci === undefined ? 0 : 4;
    const header = vnetHeader(NEEDS_CSUM, 0, 0, start + shift, field);
    assert.equal(fromTap(header, tci === undefined ? bytes : tagged(bytes, tci)), 1);
    assert.equal(cell('flags'), IPV4 | TCP | (tci === undefined ? 0 : VLAN));
    assert.equal(cell('vlanTci'), tci ?? 0);
    assert.equal(get16(u8, cell('data') + start + field), expected);
  }
});

test('headers that disagree with the packet are refused', () => {
  const p = buildPacket(TCP4);
  const end = p.bytes.length;
  const large = (gso: number, mss = 1000, start = p.l4, field = 16) => vnetHeader(NEEDS_CSUM, gso, mss, start, field);
  const refused = (why: string, header: number[], bytes = p.bytes) => assert.equal(fromTap(header, bytes), 0, why);
  assert.equal(fromTap(large(GSO.TCPV4), p.bytes), 1);
  assert.equal(fromTap(large(GSO.TCPV4 | GSO.ECN), p.bytes), 1);
  refused('mss 0', large(GSO.TCPV4, 0));
  refused('other family', large(GSO.TCPV6));
  refused('other protocol', large(GSO.UDP_L4));
  refused('UDP fragmentation', large(GSO.UDP));
  refused('unknown type', large(7));
  refused('other start', large(GSO.TCPV4, 1000, p.l4 + 4));
  refused('other field', large(GSO.TCPV4, 1000, p.l4, 6));
  refused('checksum field beyond the end', vnetHeader(NEEDS_CSUM, 0, 0, p.l4, end - p.l4 - 1));
  refused('checksum start beyond the end', vnetHeader(NEEDS_CSUM, 0, 0, 0xffff, 0xffff));
  refused('checksum start in the Ethernet header', vnetHeader(NEEDS_CSUM, 0, 0, 13, 16));
  refused('checksum start in the tag', vnetHeader(NEEDS_CSUM, 0, 0, 17, 16), tagged(p.bytes, 5));
  refused('cut off', large(GSO.TCPV4), p.bytes.subarray(0, end - 1));
  refused('runt', vnetHeader(0), p.bytes.subarray(0, 13));
});

test('hostile headers and packets: nothing outside the packet changes, and what is accepted holds', () => {
  const pokes = fc.array(fc.tuple(fc.nat(100), fc.nat(255)), { maxLength: 6 });
  const header = fc.tuple(fc.nat(3), fc.constantFrom(0, 1, 3, 4, 5, 0x81, 9), fc.nat(1500), fc.nat(120), fc.nat(40));
  fc.assert(
    fc.property(packetSpec(300), header, pokes, fc.nat(400), fc.boolean(), (spec, h, changes, length, aligned) => {
      const whole = buildPacket(spec);
      const [flags, gso, mss, start, field] = h;
      for (const [at, value] of changes) if (at < whole.bytes.length) whole.bytes[at] = value;
      const bytes = whole.bytes.subarray(0, length);
      const vnet = vnetHeader(flags, gso, mss, aligned ? whole.l4 : start, aligned ? 16 : field);
      const taken = fromTap(vnet, bytes);
      const end = DATA + bytes.length;
      assert.ok(u8.subarray(ROOM - 64, DATA - VNET_HEADER_BYTES).every((b) => b === GUARD));
      assert.ok(u8.subarray(end, end + 64).every((b) => b === GUARD));
      if (taken === 0) return;
      assert.ok(cell('data') >= DATA && cell('data') + cell('dataLength') === end);
      if (cell('flags') & (TCP | UDP)) assert.ok(cell('l4Offset') >= 34 && cell('l4Offset') + 8 <= cell('dataLength'));
      if (cell('flags') & TX_TSO) assert.ok(cell('mss') > 0 && cell('mss') < cell('dataLength'));
      // Nor on the way out again.
      datapath.mbufToVnet(MBUF_AT);
      assert.ok(u8.subarray(ROOM - 64, DATA - VNET_HEADER_BYTES - 4).every((b) => b === GUARD));
      assert.ok(u8.subarray(end, end + 64).every((b) => b === GUARD));
    }),
    { numRuns: 1000 },
  );
});

test('a packet with nothing asked for keeps its bytes', () => {
  const junk = new Uint8Array(200);
  fill(junk, 4);
  put16(junk, 12, 0x88cc);
  assert.equal(fromTap(vnetHeader(0), junk), 1);
  assert.deepEqual([cell('flags'), cell('l4Offset'), cell('dataLength')], [0, 0, 200]);
  assert.deepEqual(u8.slice(DATA, DATA + 200), junk);
});
