import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { FRAME, OFFLOAD, PACKET_FLAG } from '../memory/layout.js';
import { buildPacket, checksumField, type PacketSpec, packetSpec } from '../offload/offload-testing.js';
import { FrameWorkshop } from './frames.js';
import { type FrameSpec, layFrames, readFrame, type SeenFrame, testMemory } from './frames-testing.js';

const F = PACKET_FLAG;
const ALL_RX =
  OFFLOAD.IPV4_HEADER_RX | OFFLOAD.TCP4_RX | OFFLOAD.TCP6_RX | OFFLOAD.UDP4_RX | OFFLOAD.UDP6_RX | OFFLOAD.RSC;

function fixture() {
  const { arena, datapath } = testMemory();
  const workshop = new FrameWorkshop(arena, datapath);
  /** All rounds of a burst, with the length of each round. */
  const prepare = (specs: FrameSpec[], abilities: number) => {
    const table = layFrames(arena, specs);
    const list = arena.reserve('list', specs.length * 4);
    for (let i = 0; i < specs.length; i++) arena.u32[(list >>> 2) + i] = table + i * FRAME.bytes;
    const seen: SeenFrame[] = [];
    const rounds: number[] = [];
    workshop.begin(list, specs.length, abilities);
    for (let n = workshop.next(); n > 0; n = workshop.next()) {
      rounds.push(n);
      for (let i = 0; i < n; i++) seen.push(readFrame(arena, arena.u32[(workshop.output >>> 2) + i]!));
    }
    arena.release(list);
    arena.release(table);
    return { seen, rounds };
  };
  const verify = (bytes: Uint8Array) => {
    const at = arena.reserve('packet', bytes.length + 64);
    arena.u8.set(bytes, at);
    const verdict = datapath.checksumVerify(at, bytes.length);
    arena.release(at);
    return verdict;
  };
  return { workshop, prepare, verify };
}

/** The packet as a sender hands it over who leaves checksums (and segmentation) to the NIC. */
function offloaded(spec: PacketSpec, mss = 0, cuts: number[] = []): FrameSpec & { whole: Uint8Array } {
  const packet = buildPacket(spec);
  const whole = packet.bytes.slice();
  packet.bytes[checksumField(packet)]! ^= 0x5a;
  if (spec.family === 4) packet.bytes[packet.l3 + 10]! ^= 0xa5;
  const protocol = spec.protocol === 6 ? F.TCP | F.TX_TCP_CHECKSUM : F.UDP | F.TX_UDP_CHECKSUM;
  const family = spec.family === 4 ? F.IPV4 | F.TX_IP_CHECKSUM : F.IPV6;
  const flags = family | protocol | (mss ? F.TX_TSO : 0);
  return { source: 1, bytes: packet.bytes, flags, mss, l4Offset: packet.l4, cuts, whole };
}

const base: PacketSpec = {
  family: 4,
  protocol: 6,
  ipOptions: 0,
  tcpOptions: 0,
  payload: 1000,
  tcpFlags: 0x18,
  seed: 7,
};

describe('what passes untouched', () => {
  const cases: [string, Partial<PacketSpec>, number, number][] = [
    ['IPv4 TCP checksum', {}, 0, OFFLOAD.TCP4_RX | OFFLOAD.IPV4_HEADER_RX],
    ['IPv6 TCP checksum', { family: 6 }, 0, OFFLOAD.TCP6_RX],
    ['IPv4 UDP checksum', { protocol: 17 }, 0, OFFLOAD.UDP4_RX | OFFLOAD.IPV4_HEADER_RX],
    ['IPv6 UDP checksum', { family: 6, protocol: 17 }, 0, OFFLOAD.UDP6_RX],
    ['TSO', { payload: 9000 }, 1460, OFFLOAD.TCP4_RX | OFFLOAD.RSC],
  ];
  for (const [name, change, mss, abilities] of cases) {
    test(name, () => {
      const f = fixture();
      const spec = offloaded({ ...base, ...change }, mss);
      const { seen } = f.prepare([spec], abilities);
      assert.deepEqual([seen.length, seen[0]!.flags], [1, spec.flags]);
      assert.deepEqual(seen[0]!.bytes, spec.bytes);
      const without = f.prepare([spec], ALL_RX & ~abilities);
      for (const frame of without.seen) assert.equal(f.verify(frame.bytes), 1);
    });
  }
  test('a frame without requests', () => {
    const f = fixture();
    const { seen } = f.prepare([{ source: 3, bytes: new Uint8Array(60), tci: 5 }], 0);
    assert.deepEqual([seen.length, seen[0]!.source, seen[0]!.tci], [1, 3, 5]);
  });
});

test('UDP segmentation is done here even for receivers of large TCP', () => {
  const f = fixture();
  const { seen } = f.prepare([offloaded({ ...base, protocol: 17, payload: 5000 }, 1000)], ALL_RX);
  assert.deepEqual(
    seen.map((s) => s.bytes.length),
    new Array(5).fill(1042),
  );
});

test('checksums are filled in as the packet had them, in a copy, whatever its fragments', () => {
  const f = fixture();
  fc.assert(
    fc.property(packetSpec(2000), fc.array(fc.integer({ min: 1, max: 2100 }), { maxLength: 4 }), (packet, cuts) => {
      const spec = offloaded(
        packet,
        0,
        [...cuts].sort((a, b) => a - b),
      );
      const { seen } = f.prepare([{ ...spec, tci: 7 }], 0);
      assert.equal(seen.length, 1);
      assert.deepEqual(seen[0]!.bytes, spec.whole);
      const good = F.RX_L4_GOOD | (packet.family === 4 ? F.RX_IP_GOOD : 0);
      const family = packet.family === 4 ? F.IPV4 : F.IPV6;
      assert.equal(seen[0]!.flags, family | (packet.protocol === 6 ? F.TCP : F.UDP) | F.VLAN | good);
    }),
    { numRuns: 100 },
  );
});

test('segments carry the payload in order, right checksums and the tag of the packet', () => {
  const f = fixture();
  fc.assert(
    fc.property(packetSpec(40_000), fc.integer({ min: 64, max: 9000 }), fc.boolean(), (packet, mss, split) => {
      const p = buildPacket(packet);
      const spec = offloaded(packet, mss, split ? [40, 1000, 5000] : []);
      const { seen } = f.prepare([{ ...spec, tci: 9 }], 0);
      assert.equal(seen.length, Math.max(1, Math.ceil(packet.payload / mss)));
      for (const frame of seen) {
        assert.equal(f.verify(frame.bytes), 1);
        assert.deepEqual([frame.tci, frame.source, frame.mss], [9, 1, 0]);
        assert.equal(frame.flags & (F.TX_TSO | F.TX_TCP_CHECKSUM | F.TX_UDP_CHECKSUM | F.TX_IP_CHECKSUM), 0);
      }
      const payload = Buffer.concat(seen.map((s) => s.bytes.subarray(p.payloadAt)));
      assert.equal(Buffer.compare(payload, p.bytes.subarray(p.payloadAt)), 0);
    }),
    { numRuns: 60 },
  );
});

test('more than the scratch memory holds comes in several rounds, complete and in order', () => {
  const f = fixture();
  const specs: FrameSpec[] = [];
  for (let i = 0; i < 60; i++) {
    specs.push(offloaded({ ...base, payload: 60_000, seed: i + 1 }, 1400));
    specs.push({ source: 2, bytes: new Uint8Array(60).fill(i) });
    specs.push(offloaded({ ...base, payload: i, seed: i + 1 }));
  }
  const { seen, rounds } = f.prepare(specs, 0);
  const each = Math.ceil(60_000 / 1400) + 2;
  assert.equal(seen.length, 60 * each);
  assert.equal(rounds.length > 1, true);
  for (let i = 0; i < 60; i++) {
    assert.equal(seen[(i + 1) * each - 2]!.bytes[5], i);
    assert.equal(seen[(i + 1) * each - 1]!.bytes.length, 54 + i);
  }
  assert.deepEqual(f.workshop.counters(), { segmented: 60, segments: 60 * (each - 2), checksummed: 60, refused: 0 });
});

test('packets that are not what they claim are refused and counted; the rest of the burst goes on', () => {
  const junk = new Uint8Array(100).fill(0x42);
  const good = offloaded({ ...base, payload: 10 });
  const cases: FrameSpec[] = [
    { source: 1, bytes: junk, flags: F.TX_TCP_CHECKSUM },
    { source: 1, bytes: junk, flags: F.TX_TSO | F.TX_TCP_CHECKSUM, mss: 20 },
    { ...offloaded({ ...base, payload: 5000 }, 1000), mss: 0 },
    { ...offloaded({ ...base, payload: 5000 }, 1000), mss: 0xffff_ffff },
    { ...offloaded({ ...base, payload: 60_000 }, 1000), mss: 1 },
    { ...offloaded({ ...base, payload: 5000 }, 1000), l4Offset: 0xffff_ffff },
  ];
  for (const bad of cases) {
    const f = fixture();
    const { seen } = f.prepare([good, bad, good], 0);
    assert.deepEqual(
      seen.map((s) => Buffer.from(s.bytes).equals(good.whole)),
      [true, true],
    );
    assert.equal(f.workshop.counters().refused, 1);
  }
});
