// The receive offload stage against its model: everything that drivers may hand over, in any order.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PACKET_FLAG } from '../memory/layout.js';
import { type GroExpected, GroModel } from './gro-model-testing.js';
import { type GroInput, type GroOutput, GroRig } from './gro-rig-testing.js';
import { type GroEvent, groEvents, groFrames, groSweep, plainEvent, TCP_FLAG } from './gro-traffic-testing.js';
import { get16, put16, referenceSum } from './offload-testing.js';

const { IPV4, IPV6, TCP, UDP, VLAN, HASH, RX_L4_GOOD, RX_L4_BAD, RX_IP_GOOD, RX_IP_BAD } = PACKET_FLAG;
const { EXTERNAL, INDIRECT } = PACKET_FLAG;
const { TX_TSO, RX_COALESCED, TX_TCP_CHECKSUM, TX_UDP_CHECKSUM, TX_IP_CHECKSUM } = PACKET_FLAG;

/** What a driver knows of a packet. */
const knowledge = fc.record({
  verdict: fc.oneof(
    { weight: 6, arbitrary: fc.constant(0) },
    {
      weight: 1,
      arbitrary: fc.constantFrom(RX_L4_GOOD, RX_L4_BAD, RX_IP_BAD, TX_TCP_CHECKSUM | RX_L4_GOOD, RX_IP_GOOD),
    },
  ),
  strip: fc.boolean(),
  cuts: fc.oneof(
    fc.constant([]),
    fc.uniqueArray(fc.nat(300), { maxLength: 3 }),
    fc.uniqueArray(fc.nat(4000), { maxLength: 9 }),
  ),
  shared: fc.oneof(
    { weight: 20, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.nat(4) as fc.Arbitrary<number | undefined> },
  ),
  large: fc.oneof(
    { weight: 6, arbitrary: fc.constant(0) },
    { weight: 1, arbitrary: fc.constantFrom(RX_COALESCED, RX_COALESCED | TX_TSO) },
  ),
  oddSize: fc.boolean(),
});
type Knowledge = typeof knowledge extends fc.Arbitrary<infer T> ? T : never;

/** `hashed`: every flow has one of these hashes; without, none has. */
function inputOf(
  frame: { bytes: Uint8Array; mss: number },
  flow: number,
  known: Knowledge,
  hashes: readonly number[],
): GroInput {
  let { bytes } = frame;
  let flags = known.verdict | known.large;
  let vlanTci = 0;
  if (known.strip && bytes.length >= 18 && get16(bytes, 12) === 0x8100) {
    vlanTci = get16(bytes, 14);
    flags |= VLAN;
    bytes = Uint8Array.from([...bytes.subarray(0, 12), ...bytes.subarray(16)]);
  }
  const hash = hashes.length === 0 ? 0 : hashes[flow % hashes.length]!;
  if (hashes.length !== 0) flags |= HASH;
  const mss = known.large === 0 ? 0 : known.oddSize ? 77 : frame.mss;
  const cuts = [...known.cuts].sort((a, b) => a - b);
  return { bytes, flags, vlanTci, hash, mss, cuts, shared: known.shared };
}

/** What a packet that several became says of itself. */
function kindFlags({ bytes, l4Offset, protocol }: GroExpected): number {
  const four = bytes[l4Offset - 20] === 0x45 && bytes[l4Offset - 11] === protocol;
  const network = four ? IPV4 | TX_IP_CHECKSUM | RX_IP_GOOD : IPV6;
  const transport = protocol === 6 ? TCP | TX_TCP_CHECKSUM : UDP | TX_UDP_CHECKSUM;
  return network | transport | TX_TSO | RX_COALESCED | RX_L4_GOOD;
}

function same(outputs: readonly GroOutput[], model: readonly GroExpected[], inputs: readonly GroInput[]): void {
  assert.deepEqual(
    outputs.map((one) => one.first),
    model.map((one) => one.parts[0]),
    'the packets that go on, by their first part',
  );
  outputs.forEach((output, i) => {
    const expected = model[i]!;
    const input = inputs[expected.parts[0]!]!;
    assert.equal(Buffer.compare(output.bytes, expected.bytes), 0, `bytes of packet ${i}`);
    assert.equal(output.vlanTci, input.vlanTci ?? 0);
    if (expected.mss === 0) {
      assert.equal(output.flags, (input.flags ?? 0) | expected.verdict);
      assert.equal(output.mss, input.mss ?? 0);
      return;
    }
    assert.equal(output.flags, (input.flags ?? 0) | kindFlags(expected));
    assert.equal(output.mss, expected.mss);
    assert.equal(output.l4Offset, expected.l4Offset);
    assert.ok(output.written, 'a packet that a TAP would not be given');
  });
}

for (const udp of [false, true]) {
  test(`the stage does what the model does: UDP ${udp ? 'on' : 'off'}`, () => {
    const seen = { merged: 0, evicted: 0 };
    fc.assert(
      fc.property(
        fc.array(groEvents(true, 60), { minLength: 1, maxLength: 4 }),
        fc.infiniteStream(knowledge),
        fc.constantFrom([], [0], [5, 13, 6], [0xffffffff, 7, 8, 9, 1, 2, 3]),
        fc.constantFrom('never' as const, 'all' as const, 'old' as const),
        (bursts, known, hashes, flush) => {
          const rig = new GroRig(udp);
          const model = new GroModel(udp);
          const all: GroInput[] = [];
          const frames = groFrames(bursts.flat());
          for (const burst of bursts) {
            const inputs = burst.map(({ flow }, i) => {
              const { value } = known.next();
              return inputOf(frames[all.length + i]!, flow, value!, hashes);
            });
            all.push(...inputs);
            same(rig.receive(inputs), model.receive(inputs), all);
            if (flush !== 'never') same(rig.flush(flush === 'old'), model.flush(flush === 'old'), all);
          }
          same(rig.flush(), model.flush(), all);
          assert.equal(rig.gro.held, 0);
          assert.equal(rig.used, 0, 'every buffer is back');
          const { merged, evicted } = rig.gro.counters();
          seen.merged += merged;
          seen.evicted += evicted;
        },
      ),
      { numRuns: 60 },
    );
    assert.ok(seen.merged > 0 && seen.evicted > 0);
  });
}

test('every change by itself', () => {
  for (const udp of [false, true]) {
    const rig = new GroRig(udp);
    const model = new GroModel(udp);
    const all: GroInput[] = [];
    for (const burst of groSweep()) {
      const inputs = groFrames(burst).map(({ bytes }) => ({ bytes }));
      all.push(...inputs);
      same(rig.receive(inputs), model.receive(inputs), all);
      same(rig.flush(), model.flush(), all);
    }
    assert.equal(rig.used, 0);
  }
});

/** Everything that one poll makes of these packets. */
function poll(inputs: readonly GroInput[], udp = false): GroOutput[] {
  const rig = new GroRig(udp);
  const outputs = [...rig.receive(inputs), ...rig.flush()];
  assert.equal(rig.used, 0);
  return outputs;
}

/** Full segments of a flow of groFrames(). */
const segments = (flow: number, count: number): GroInput[] =>
  groFrames(Array.from({ length: count }, () => plainEvent(flow))).map(({ bytes }) => ({ bytes }));

test('who cuts the large packet again gets the packets that came in', () => {
  const rig = new GroRig(true);
  let cut = 0;
  fc.assert(
    fc.property(groEvents(true, 60), (events) => {
      const inputs = groFrames(events);
      const outputs = [...rig.receive(inputs), ...rig.flush()];
      const base = Math.min(...outputs.map(({ first }) => first));
      // Packets of a flow keep their order, so that what follows the first part of a merged packet is the rest of it.
      for (const { bytes, flags, l4Offset, mss, first } of outputs) {
        if ((flags & TX_TSO) === 0) continue;
        const parts = rig.cut(bytes, l4Offset, mss);
        const originals = inputs.map((input) => Buffer.from(input.bytes).toString('hex'));
        let at = first - base;
        for (const part of parts) {
          const expected = Buffer.from(part);
          // Identifications that stay the same come out counting up.
          const ip = l4Offset - 20;
          if ((flags & IPV4) !== 0) at = inputs.findIndex(({ bytes: one }, i) => i >= at && sameButId(one, part, ip));
          else at = originals.indexOf(expected.toString('hex'), at);
          assert.ok(at >= 0, 'a segment that nobody sent');
          at++;
          cut++;
        }
      }
    }),
    { numRuns: 60 },
  );
  assert.ok(cut > 0);
});

/** Equal, except for identification and header checksum of the IPv4 header at `ip`. */
function sameButId(a: Uint8Array, b: Uint8Array, ip: number): boolean {
  if (a.length !== b.length) return false;
  const [one, other] = [a.slice(), b.slice()];
  for (const bytes of [one, other]) {
    put16(bytes, ip + 4, 0);
    put16(bytes, ip + 10, 0);
  }
  return Buffer.compare(one, other) === 0;
}

test('a PSH ends the packet, and the next one begins a new one', () => {
  const events: GroEvent[] = Array.from({ length: 6 }, (_, i) => ({ ...plainEvent(0), flags: i === 2 ? 0 : 99 }));
  const rig = new GroRig(false);
  const inputs = groFrames(events);
  const [first, ...more] = rig.receive(inputs);
  assert.deepEqual([first?.segments, first?.mss, more.length, rig.gro.held], [3, 1448, 0, 1]);
  assert.equal(first!.bytes[first!.l4Offset + 13], TCP_FLAG.PSH | TCP_FLAG.ACK);
  const [second] = rig.flush();
  assert.deepEqual([second?.first, second?.segments], [3, 3]);
  const { packets, merged, coalesced, evicted, checksums, badChecksums } = rig.gro.counters();
  assert.deepEqual([packets, merged, coalesced, evicted, checksums, badChecksums], [6, 4, 2, 0, 6, 0]);
});

test('what a device coalesced goes on growing, what somebody sent large does not', () => {
  const plain = segments(0, 1)[0]!.bytes;
  const header = 66;
  const mss = 500;
  const large = (number: number, flags: number, length = 2 * mss): GroInput => {
    const bytes = plain.slice(0, header + length);
    put16(bytes, 16, bytes.length - 14);
    put16(bytes, 18, get16(plain, 18) + number * 2);
    // Sequence number, checksums: the device vouches for TCP's.
    const sequence = 5000 + number * 2 * mss;
    put16(bytes, 38, 0);
    put16(bytes, 40, sequence);
    put16(bytes, 24, 0);
    put16(bytes, 24, ~referenceSum(bytes, 14, 34));
    return { bytes, flags: RX_L4_GOOD | flags, mss };
  };
  const [one, ...none] = poll([0, 1, 2].map((n) => large(n, RX_COALESCED)));
  assert.deepEqual([one?.bytes.length, one?.mss, none.length], [header + 6 * mss, mss, 0]);
  assert.equal(poll([0, 1, 2].map((n) => large(n, RX_COALESCED | TX_TSO))).length, 3);
  // Segments of unequal size: whoever cut it again would make others.
  assert.equal(poll([large(0, RX_COALESCED, 700), large(1, RX_COALESCED)]).length, 2);
  const short = poll([large(0, RX_COALESCED), large(1, RX_COALESCED, 700), large(2, RX_COALESCED)]);
  assert.deepEqual(
    short.map(({ bytes }) => bytes.length - header),
    [2 * mss + 700, 2 * mss],
  );
});

test("data that is somebody else's goes on as it is, behind what was held of its flow", () => {
  for (const flag of [EXTERNAL, INDIRECT]) {
    const inputs = segments(0, 3).map((input, i) => ({ ...input, flags: i === 1 ? flag : 0 }));
    const rig = new GroRig(false);
    const outputs = [...rig.receive(inputs), ...rig.flush()];
    assert.deepEqual(
      outputs.map(({ first, segments: count }) => [first, count]),
      [0, 1, 2].map((first) => [first, 1]),
    );
  }
});

test('any bytes whatever: every packet comes out, once', () => {
  const rig = new GroRig(true);
  fc.assert(
    fc.property(
      fc.array(
        fc.record({
          bytes: fc.uint8Array({ minLength: 14, maxLength: 150 }),
          type: fc.constantFrom(0x0800, 0x86dd, 0x8100, 0x0806),
          flags: fc.nat(0x7fff),
          mss: fc.nat(2000),
          cuts: fc.uniqueArray(fc.nat(150), { maxLength: 2 }),
        }),
        { minLength: 1, maxLength: 40 },
      ),
      (packets) => {
        const inputs = packets.map(({ bytes, type, flags, mss, cuts }) => {
          const own = bytes.slice();
          put16(own, 12, type);
          if (own.length > 34) own[14] = type === 0x0800 ? 0x45 : 0x60;
          return { bytes: own, flags, mss, cuts: cuts.sort((a, b) => a - b) };
        });
        const before = rig.gro.counters();
        const outputs = [...rig.receive(inputs), ...rig.flush()];
        const { packets: came, merged } = rig.gro.counters();
        assert.equal(outputs.length + merged - before.merged, came - before.packets);
        assert.equal(rig.used, 0);
      },
    ),
  );
});
