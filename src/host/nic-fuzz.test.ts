// Arbitrary guests: whatever one does, the host neither throws nor says "internal error", its other NIC serves on, and
// the channel opens anew.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { concat, createRig, type Rig, words } from './raw-guest-testing.js';

const V61 = 0x60001;
const RUNS = 250;

const u32 = fc.oneof(
  fc.constantFrom(0, 1, 2, 8, 16, 44, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff8, 6144, 0xe1e10, 0xe1e11),
  fc.integer({ min: 0, max: 0xffffffff }),
  fc.integer({ min: 0, max: 200 }),
);
const cells = fc.array(u32, { maxLength: 12 });
const nvspType = fc.oneof(
  fc.constantFrom(1, 100, 101, 104, 103, 106, 107, 108, 125, 128, 129, 131, 133, 134),
  fc.nat(200),
);
const rndisType = fc.oneof(fc.constantFrom(1, 2, 3, 4, 5, 6, 7, 8, 9, 0x80000004), u32);
const oid = fc.oneof(
  fc.constantFrom(0x1010e, 0x1021b, 0x10204, 0xfc01020c, 0x101010a, 0x10118, 0x10101, 0xfc01020d, 0x10203, 0x10207),
  u32,
);

type Action = (rig: Rig) => void;
const guest =
  (act: (g: Rig['guest'], rig: Rig) => void): Action =>
  (rig) =>
    act(rig.guest, rig);

const nvsp = fc
  .tuple(nvspType, cells, fc.boolean())
  .map(([type, rest, wanted]) => guest((g) => g.put(6, wanted ? 1 : 0, 7n, words(type, ...rest))));
const rndis = fc.tuple(rndisType, u32, cells, fc.boolean()).map(([type, length, rest, honest]) =>
  guest((g) => {
    const message = words(type, honest ? 8 + rest.length * 4 : length, ...rest);
    g.putRndis(message, 1);
  }),
);
const request = fc
  .tuple(fc.constantFrom(4, 5), oid, fc.uint8Array({ maxLength: 120 }))
  .map(([type, object, data]) =>
    guest((g) => g.putRndis(concat(words(type, 28 + data.length, 1, object, data.length, 20, 0), data))),
  );
const data = fc
  .uint8Array({ maxLength: 200 })
  .map((bytes) => guest((g) => g.putRndis(concat(words(1, 44 + bytes.length, 36), bytes), 0)));
const direct = fc
  .tuple(cells, fc.bigInt({ min: 0n, max: 0xffffffffffffffffn }))
  .map(([rest, pfn]) =>
    guest((g) => g.putRndisDirect(words(1, 8 + rest.length * 4, ...rest), rest.length % 2 ? pfn : undefined)),
  );
const completion = fc
  .tuple(fc.oneof(u32.map(BigInt), fc.constant(1n << 63n)), u32)
  .map(([id, type]) => guest((g) => g.put(11, 0, id, words(type % 3 === 0 ? type : 108, 1))));
const raw = fc
  .tuple(fc.constantFrom(6, 7, 8, 9, 11), fc.nat(3), fc.uint8Array({ maxLength: 64 }), fc.uint8Array({ maxLength: 64 }))
  .map(([type, flags, header, body]) =>
    guest((g) => g.put(type, flags, 3n, body, header.slice(0, header.length & ~7))),
  );
const honest = fc.constantFrom<Action>(
  guest((g) => g.control()),
  guest((g) => g.all()),
  (rig) => rig.host.nics[0]!.setLink(!rig.host.nics[0]!.linkUp),
  (rig) => rig.step(),
  (rig) => void (rig.host.arm() && rig.host.disarm()),
  (rig) => {
    rig.guest.close();
    rig.guest.open();
  },
);
const action = fc.oneof(nvsp, rndis, request, data, direct, completion, raw, honest);

/** Actions of a test guest that cannot go on (its own ring is full, an answer is not what it expects) end that run. */
function perform(rig: Rig, actions: readonly Action[]): void {
  for (const act of actions) {
    try {
      act(rig);
    } catch (error) {
      if (!(error instanceof assert.AssertionError)) throw error;
      return;
    }
    rig.host.step();
  }
}

function checkAlive(rig: Rig): void {
  const [nic, other] = rig.host.nics;
  rig.step();
  const { reason, phase, receiveBuffer, control } = nic!.state();
  assert.ok(!reason?.includes('internal error'), reason);
  assert.equal(phase === 'dead' || phase === 'stopped', reason !== undefined);
  assert.ok(receiveBuffer.inUse >= 0 && receiveBuffer.controlInUse >= 0 && control.waiting < 5000);
  assert.equal(other!.phase, 'ready');
  assert.equal(rig.guests[1]!.query(0x00010106).status, 0);
  rig.guest.close();
  rig.guest.attach(V61, { capabilities: 0x88 });
  assert.equal(nic!.phase, 'ready');
}

const attachAll = (rig: Rig) => rig.guest.attach(V61, { capabilities: 0x88 });

for (const [name, prepare, unmappable] of [
  ['from open on', (rig: Rig) => rig.guest.open(), false],
  ['from the init phase on', (rig: Rig) => [rig.guest.open(), rig.guest.init(V61)], false],
  ['when attached', attachAll, false],
  ['when attached, memory copied', attachAll, true],
] as const) {
  test(`arbitrary actions ${name}`, (t) => {
    const rig = createRig(t, { nics: [{}, {}], unmappable });
    rig.guests[1]!.attach(V61);
    fc.assert(
      fc.property(fc.array(action, { maxLength: 25 }), (actions) => {
        rig.guest.close();
        prepare(rig);
        perform(rig, actions);
        checkAlive(rig);
        rig.guest.releasePages();
      }),
      { numRuns: RUNS },
    );
  });
}
