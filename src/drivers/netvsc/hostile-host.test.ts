// A port's life on a host that changes some of the bytes that it writes: errors with names, counters, or the end of the port;
// never a throw out of a burst, a hang, or a leak.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RX_OFFLOAD } from '../../ethdev/constants.js';
import { PortError } from '../../ethdev/errors.js';
import { indication, words } from '../../netvsc/fake-host.js';
import { FakeRig, frameTo, grantSubchannels } from './testing.js';

const PEER = '02:00:00:00:00:01';
const INTERESTING = [0, 1, 2, 7, 8, 0x7f, 0x80, 0xff];

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

const expected = (error: unknown): void => {
  assert.ok(error instanceof PortError, String((error as Error).stack));
  assert.doesNotMatch(error.message, /\n/);
};

async function live(rig: FakeRig, next: () => number, everyNth: number): Promise<void> {
  const { host } = rig;
  let on = false;
  host.tamper = (bytes) => {
    if (!on || next() % everyNth !== 0 || bytes.length === 0) return;
    for (let n = next() % 4; n >= 0; n--)
      bytes[next() % bytes.length] = next() % 2 ? INTERESTING[next() % INTERESTING.length]! : next() & 0xff;
  };
  grantSubchannels(rig, 1);
  // Answers that are spoiled cost their deadline: mostly the data path is.
  on = next() % 4 === 0;
  await rig.probe('rx_extmbuf_enable=1,rx_copybreak=200,tx_copybreak=300').catch(expected);
  if (rig.port === undefined) return;
  on = false;
  await rig
    .start({ rxQueues: 2, txQueues: 2, rxOffloads: rig.port.info().rxOffloads & ~RX_OFFLOAD.VLAN_FILTER })
    .catch(expected);
  on = true;
  for (let round = 0; round < 6 && rig.port.state === 'started'; round++) {
    for (const bytes of [60, 250, 1514]) {
      const mbuf = rig.mbuf(frameTo(PEER, bytes, round));
      if (rig.send([mbuf]) === 0) rig.mbufs.free(mbuf);
    }
    for (let i = 0; i < 6; i++) {
      const infos = [new Uint8Array(0), words(16, 6, 12, 0x640), words(16, 0, 12, 40), words(16, 8, 12, 77)];
      host.frame(frameTo(rig.port.mac, 60 + (next() % 1400), i), infos[next() % 4]);
    }
    host.rndis(indication(0x4001000b));
    host.rndis(words(8, 12, round));
    host.inBand(words(128, 1, 2), 0, 0x80000000, true);
    await rig.turns(2);
    for (const queue of [0, 1]) for (const mbuf of rig.receive(queue)) rig.mbufs.free(mbuf);
  }
  on = false;
  if (rig.port.state === 'started') await rig.run(rig.port.stop()).catch(expected);
}

test('a host that corrupts some of its messages', { timeout: 300_000 }, async () => {
  const outcomes: Record<string, number> = {};
  await fc.assert(
    fc.asyncProperty(fc.integer(), fc.constantFrom(3, 10, 40), async (seed, everyNth) => {
      const rig = new FakeRig({ ringBytes: 64 << 10, receiveBytes: 256 << 10, sendBytes: 128 << 10 });
      rig.pool = rig.createPool({ count: 256 });
      try {
        await live(rig, random(seed), everyNth);
        const state = rig.port?.state ?? 'not probed';
        outcomes[state] = (outcomes[state] ?? 0) + 1;
      } finally {
        const closed = rig.port?.close();
        if (closed) await rig.run(closed);
        assert.equal(rig.pool.available, rig.pool.count, 'mbufs');
        await rig.close();
      }
      assert.deepEqual(
        rig.arena.regions().map(({ name }) => name),
        ['static data of the compiled module'],
      );
    }),
    { numRuns: 60, seed: 5 },
  );
  assert.ok((outcomes.removed ?? 0) > 3 && (outcomes.configured ?? 0) > 3, JSON.stringify(outcomes));
});
