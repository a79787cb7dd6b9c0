import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { indication, words } from './fake-host.js';
import { frame, type Rig, withRig } from './test-rig.js';

/** Small repeatable numbers 0..2^32 - 1. */
function random(seed: number): () => number {
  let state = seed | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

const INTERESTING = [0, 1, 2, 7, 8, 0x7f, 0x80, 0xff];

/** A life of a device on a host that changes some of its bytes. Whatever it does, nothing may throw, hang or leak. */
async function live(rig: Rig, next: () => number, everyNth: number): Promise<void> {
  const { host, netvsc } = rig;
  host.tamper = (bytes) => {
    if (next() % everyNth !== 0 || bytes.length === 0) return;
    for (let n = next() % 4; n >= 0; n--) {
      bytes[next() % bytes.length] = next() % 2 ? INTERESTING[next() % INTERESTING.length]! : next() & 0xff;
    }
  };
  await rig.run(netvsc.attach()).catch((error: Error) => assert.match(error.message, /^netvsc 0000/));
  for (let round = 0; round < 4; round++) {
    rig.send(frame(60, round), frame(1514, round));
    if (host.open) {
      for (let i = 0; i < 4; i++) host.frame(frame(60 + (next() % 1400), i));
      host.rndis(indication(0x4001000b));
      host.rndis(words(8, 12, round));
      host.inBand(words(128, 1, 2), 0, 0x80000000, true);
    }
    await rig.turn();
    assert.equal(netvsc.state === 'failed', netvsc.failure !== undefined);
  }
  await rig.run(netvsc.detach());
  assert.equal(netvsc.state, 'detached');
}

test('a host that corrupts some of its messages: named errors and counters, no leak, and a good host works after it', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer(), fc.constantFrom(2, 5, 20), (seed, everyNth) =>
      withRig({ requestTimeoutMs: 50 }, async (rig) => {
        const before = rig.arena.free().bytes;
        await live(rig, random(seed), everyNth);
        assert.equal(rig.arena.free().bytes, before, 'arena');
        assert.deepEqual([rig.freeSmall(), rig.freeLarge()], [512, 4], 'packet buffers');
        rig.host.tamper = () => {};
        rig.received.length = 0;
        await rig.run(rig.netvsc.attach());
        rig.host.frame(frame(100, 1));
        await rig.turn();
        await rig.turn();
        assert.deepEqual(rig.received.at(-1), frame(100, 1));
        await rig.run(rig.netvsc.detach());
      }),
    ),
    { numRuns: 60 },
  );
});
