import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeRssParameters } from '../wire/ndis.js';
import { words } from './fake-host.js';
import { grantQueues, type Rig, type RigOptions, TIMEOUT_MS, withRig } from './test-rig.js';

const DEFAULT_KEY = '6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa';

const grant = (rig: Rig, status: number, count: number, offers = count) => grantQueues(rig, count, offers, status);

/** What the guest set with OID 10204. */
function recordRss(rig: Rig, refuse: (flags: number) => boolean = () => false) {
  const set: ReturnType<typeof decodeRssParameters>[] = [];
  rig.host.answers.set('set 10204', (host, request, usual) => {
    const bytes = new Uint8Array(request.bytes.buffer).slice(28);
    const parameters = decodeRssParameters(bytes);
    set.push(parameters);
    if (!refuse(parameters.flags)) return usual();
    host.complete(request, words(108, 1));
    host.rndis(words(0x80000005, 16, request.requestId, 0xc00000bb));
  });
  return set;
}

const withQueues = (queues: number, body: (rig: Rig) => Promise<void>, options: RigOptions = {}) =>
  withRig({ queues, ...options }, body);

test('one queue: nothing is asked for and nothing set', () =>
  withQueues(1, async (rig) => {
    const info = await rig.run(rig.netvsc.attach());
    assert.deepEqual([info.queues, info.receiveScaling, rig.netvsc.rss], [1, false, undefined]);
    assert.deepEqual(
      rig.host.log.filter((name) => name === 'nvsp 133' || name === 'set 10204'),
      [],
    );
    assert.equal(rig.netvsc.poll(rig.handles, 4, 1), 0);
    assert.equal(rig.netvsc.send(rig.handles, 0, 1), 0);
  }));

test('as many as the host has queues; scaling is set off, then on, before the filter', () =>
  withQueues(64, async (rig) => {
    const asked = grant(rig, 1, 7);
    const set = recordRss(rig);
    const info = await rig.run(rig.netvsc.attach());
    assert.deepEqual(asked, [7]);
    assert.deepEqual([info.queues, info.receiveScaling], [8, true]);
    assert.deepEqual(rig.host.log.slice(-4), ['nvsp 133', 'set 10204', 'set 10204', 'set 1010e']);
    assert.deepEqual(
      set.map(({ flags }) => flags),
      [0x10, 0],
    );
    const table = Array.from({ length: 128 }, (_, i) => i % 8);
    for (const { table: sent, key, hashInformation } of set) {
      assert.deepEqual(sent, table);
      assert.equal(Buffer.from(key).toString('hex'), DEFAULT_KEY);
      assert.equal(hashInformation, 0x1701);
    }
    assert.deepEqual(rig.netvsc.rss?.table, table);
  }));

for (const [granted, queues] of [
  [1, 2],
  [2, 3],
  [0, 1],
] as const) {
  test(`asked for 3, given ${granted}: ${queues} queues`, () =>
    withQueues(4, async (rig) => {
      assert.deepEqual(grant(rig, 1, granted).length, 0);
      const set = recordRss(rig);
      const info = await rig.run(rig.netvsc.attach());
      assert.equal(info.queues, queues);
      assert.equal(rig.netvsc.state, 'running');
      assert.ok(set.every(({ table }) => Math.max(...table) === queues - 1));
      assert.equal(set.length, queues > 1 ? 2 : 0);
    }));
}

test('a refusal, and a host below NVSP 5, mean one queue', async () => {
  await withQueues(4, async (rig) => {
    grant(rig, 2, 3, 0);
    const info = await rig.run(rig.netvsc.attach());
    assert.deepEqual([info.queues, info.receiveScaling], [1, false]);
  });
  await withQueues(4, async (rig) => {
    rig.host.newestVersion = 0x40000;
    assert.equal((await rig.run(rig.netvsc.attach())).queues, 1);
    assert.ok(!rig.host.log.includes('nvsp 133'));
  });
});

const failures: readonly [string, number, number, RegExp][] = [
  ['more than were asked for', 4, 4, /NVSP subchannels: expected at most 3, the host gave 4/],
  ['a count beyond all bounds', 0xffff_ffff, 0, /NVSP subchannels: expected at most 3, the host gave 4294967295/],
  ['more offers than granted', 2, 3, /NVSP subchannels: expected 1 to 2 within \d+ ms, found 1, 2, 3$/],
];
for (const [name, count, offers, message] of failures) {
  test(`${name}: attach fails with the step, everything is released, and the next attach may work`, () =>
    withQueues(4, async (rig) => {
      const before = rig.arena.free().bytes;
      grant(rig, 1, count, offers);
      await assert.rejects(rig.run(rig.netvsc.attach()), { name: 'NetvscError', message });
      assert.equal(rig.netvsc.state, 'failed');
      for (let i = 0; i < 3; i++) await rig.turn();
      assert.equal(rig.arena.free().bytes, before);
      grant(rig, 1, 3);
      assert.equal((await rig.run(rig.netvsc.attach())).queues, 4);
    }));
}

test('offers that come late are found; a rescind meanwhile ends the wait', async () => {
  await withQueues(3, async (rig) => {
    grant(rig, 1, 2, 0);
    const attached = rig.netvsc.attach();
    for (let i = 0; i < 20; i++) await rig.turn();
    for (let i = 0; i < 2; i++) {
      rig.bus.pairs[0]!.offer.createSubchannel().publish();
      await rig.turn();
    }
    assert.equal((await rig.run(attached)).queues, 3);
  });
  await withQueues(3, async (rig) => {
    grant(rig, 1, 2, 1);
    const attached = rig.netvsc.attach();
    for (let i = 0; i < 15; i++) await rig.turn();
    rig.host.rescind();
    await assert.rejects(rig.run(attached), /the channel is closed|the host is gone/);
  });
});

test('a host without answer to the request: the deadline names the step', () =>
  withQueues(2, async (rig) => {
    rig.host.answers.set('nvsp 133', () => {});
    const message = new RegExp(`NVSP subchannels: no subchannel complete from the host within ${TIMEOUT_MS} ms`);
    await assert.rejects(rig.run(rig.netvsc.attach()), { name: 'NetvscError', message });
  }));

test('scaling that is refused: the queues are there, and a change that is refused leaves the old one', async () => {
  await withQueues(2, async (rig) => {
    grant(rig, 1, 1);
    recordRss(rig, () => true);
    const info = await rig.run(rig.netvsc.attach());
    assert.deepEqual([info.queues, info.receiveScaling, rig.netvsc.rss], [2, false, undefined]);
    await assert.rejects(rig.run(rig.netvsc.setRss({ table: [1] })), /RSS: the host refused the parameters/);
  });
  await withQueues(2, async (rig) => {
    grant(rig, 1, 1);
    let good = true;
    const set = recordRss(rig, (flags) => !good && flags === 0);
    await rig.run(rig.netvsc.attach());
    await rig.run(rig.netvsc.setRss({ table: [1, 0] }));
    good = false;
    set.length = 0;
    const changed = rig.netvsc.setRss({ table: [1] });
    for (let i = 0; i < 40 && set.length < 3; i++) await rig.turn();
    good = true;
    await assert.rejects(rig.run(changed), /RSS: the host refused the parameters/);
    assert.deepEqual(
      set.map(({ flags, table }) => [flags, table]),
      [
        [0x10, [1]],
        [0, [1]],
        [0x10, [1, 0]],
        [0, [1, 0]],
      ],
    );
    assert.deepEqual(rig.netvsc.rss?.table, [1, 0]);
  });
});

test('a table set before it was known how many queues there are is fitted to them, again after a reattach', () =>
  withQueues(2, async (rig) => {
    grant(rig, 1, 1);
    recordRss(rig, () => true);
    await rig.netvsc.setRss({ table: [0, 3, 1, 2] });
    await rig.run(rig.netvsc.attach());
    grant(rig, 1, 1);
    assert.equal((await rig.run(rig.netvsc.reattach({ mtu: 1400 }))).mtu, 1400);
    const wrong = rig.netvsc.reattach({ rss: { table: [0, 3] } });
    await assert.rejects(rig.run(wrong), /RSS: table: expected queues 0 to 1, got 3/);
  }));

test('the send table is checked and kept; without one the queues take turns', () =>
  withQueues(4, async (rig) => {
    grant(rig, 1, 3);
    await rig.run(rig.netvsc.attach());
    const choices = () => Array.from({ length: 18 }, (_, hash) => rig.netvsc.transmitQueue(hash));
    const turns = Array.from({ length: 18 }, (_, hash) => hash % 4);
    assert.deepEqual(choices(), turns);
    const bad = rig.netvsc.stats().badHostMessages!;
    rig.host.inBand(words(134, 16, 12, ...Array.from({ length: 16 }, (_, i) => (i === 9 ? 64 : 0))));
    rig.host.inBand(words(134, 15, 12, ...new Array<number>(16).fill(1)));
    rig.host.inBand(words(134, 16, 20, ...new Array<number>(16).fill(1)));
    await rig.turn();
    assert.equal(rig.netvsc.stats().badHostMessages! - bad, 3);
    assert.deepEqual(choices(), turns);
    rig.host.inBand(words(134, 16, 12, ...Array.from({ length: 16 }, (_, i) => 15 - i)));
    await rig.turn();
    assert.deepEqual(
      choices(),
      Array.from({ length: 18 }, (_, hash) => (15 - (hash % 16)) % 4),
      'a queue that is not there is wrapped round',
    );
    assert.equal(rig.netvsc.transmitQueue(-1), 0);
  }));

test('a corrupt ring of any queue fails the device', () =>
  withQueues(3, async (rig) => {
    const offers: { readonly toGuest: { readonly control: number } }[] = [];
    rig.host.answers.set('nvsp 133', (host, request) => {
      host.complete(request, words(133, 1, 2));
      for (let i = 0; i < 2; i++) {
        const offer = rig.bus.pairs[0]!.offer.createSubchannel();
        offer.publish();
        offers.push(offer);
      }
    });
    await rig.run(rig.netvsc.attach());
    rig.arena.u32[offers[1]!.toGuest.control >>> 2] = 0xffff_fff8;
    assert.equal(rig.netvsc.poll(rig.handles, 8, 1), 0);
    assert.equal(rig.netvsc.state, 'running');
    assert.equal(rig.netvsc.poll(rig.handles, 8, 2), 0);
    assert.equal(rig.netvsc.state, 'failed');
    assert.match(rig.netvsc.failure!, /ring of queue 2 corrupt: INVALID_POINTER/);
  }));

test('control messages on a subchannel are counted and change nothing', () =>
  withQueues(2, async (rig) => {
    const { offer } = rig.bus.pairs[0]!;
    grant(rig, 1, 0, 0);
    let ring = { control: 0, dataBytes: 0 };
    rig.host.answers.set('nvsp 133', (host, request) => {
      host.complete(request, words(133, 1, 1));
      const made = offer.createSubchannel();
      made.publish();
      ring = made.toGuest;
    });
    await rig.run(rig.netvsc.attach());
    const table = words(134, 16, 12, ...new Array<number>(16).fill(1));
    const packet = Buffer.alloc(16 + 80 + 8);
    packet.writeUInt16LE(6, 0);
    packet.writeUInt16LE(2, 2);
    packet.writeUInt16LE(96 / 8, 4);
    packet.set(table, 16);
    rig.arena.u8.set(packet, ring.control + 4096);
    rig.arena.u32[ring.control >>> 2] = packet.length;
    const bad = rig.netvsc.stats().badHostMessages!;
    rig.netvsc.poll(rig.handles, 8, 1);
    assert.equal(rig.netvsc.stats().badHostMessages! - bad, 1);
    assert.deepEqual([rig.netvsc.transmitQueue(2), rig.netvsc.state], [0, 'running']);
  }));

test('send sections are divided among the queues, none is lost and control keeps its own', () =>
  withQueues(4, async (rig) => {
    grant(rig, 1, 3);
    const info = await rig.run(rig.netvsc.attach());
    assert.equal(rig.netvsc.stats().txFreeSections, info.sendSections);
  }));

test('queues that are no number of queues are refused', async () => {
  for (const queues of [0, 65, 1.5, Number.NaN]) {
    await withQueues(queues, async (rig) => {
      await assert.rejects(rig.run(rig.netvsc.attach()), /options: queues: expected 1\.\.64/);
    });
  }
});
