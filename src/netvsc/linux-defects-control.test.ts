// What is wrong in hv_netvsc by reading (facts/linux-guest.md 10.1) and how ours does better, by number: the control path. The
// data path: linux-defects.test.ts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeRssParameters, NDIS_HASH_TYPE } from '../wire/ndis.js';
import { type Answer, type FakeHost, indication, packet, queryReply, type Request, words } from './fake-host.js';
import { frame, grantQueues, type Rig, TIMEOUT_MS, withRig } from './test-rig.js';

const silent: Answer = () => {};
const refused: Answer = (host, request) => {
  host.complete(request, words(108, 1));
  host.rndis(words(0x80000005, 16, request.requestId, 0xc00000bb));
};

/** RSS parameters that the host was told, in order. */
function recordRss(rig: Rig): ReturnType<typeof decodeRssParameters>[] {
  const told: ReturnType<typeof decodeRssParameters>[] = [];
  rig.host.onRequest = ({ name, bytes }) => {
    if (name === 'set 10204') told.push(decodeRssParameters(new Uint8Array(bytes.buffer).slice(28)));
  };
  return told;
}

test('D2: nothing is waited for without a deadline, nothing else waits meanwhile, and a rescind ends it at once', async (t) => {
  const requests: [name: string, message: string, ask: (rig: Rig) => Promise<unknown>][] = [
    ['packet filter', 'set 1010e', ({ netvsc }) => netvsc.setPacketFilter(1)],
    ['offloads', 'set fc01020c', ({ netvsc }) => netvsc.setOffloads(0)],
    ['address', 'set 1021b', ({ netvsc }) => netvsc.setMacAddress('02:00:00:00:00:01')],
    ['scaling', 'set 10204', ({ netvsc }) => netvsc.setRss({ table: [1] })],
    ['subchannels', 'nvsp 133', ({ netvsc }) => netvsc.reattach({ queues: 2 })],
  ];
  for (const [name, message, ask] of requests) {
    await t.test(`${name}: no answer`, () =>
      withRig({ queues: 2 }, async (rig) => {
        grantQueues(rig, 1);
        await rig.run(rig.netvsc.attach());
        rig.host.answers.set(message, silent);
        const asked = ask(rig);
        asked.catch(() => {});
        if (message !== 'nvsp 133') {
          await rig.turn();
          rig.host.frame(frame(100, 5)); // others go on
          rig.host.rndis(indication(0x4001000c));
          assert.equal(rig.send(frame(100, 6)), 1);
          for (let i = 0; i < 3; i++) await rig.turn();
          assert.deepEqual([rig.received.at(-1), rig.host.frames.at(-1)], [frame(100, 5), frame(100, 6)]);
          assert.equal(rig.netvsc.info!.linkUp, false);
        }
        await assert.rejects(rig.run(asked), new RegExp(`no .* from the host within ${TIMEOUT_MS} ms`));
        assert.ok(rig.netvsc.stats().requestTimeouts! > 0);
        rig.host.answers.clear();
        await rig.run(rig.netvsc.detach());
      }),
    );
    await t.test(`${name}: rescind`, () =>
      withRig({ queues: 2, requestTimeoutMs: 1e9 }, async (rig) => {
        grantQueues(rig, 1);
        await rig.run(rig.netvsc.attach());
        rig.host.answers.set(message, (host) => host.rescind());
        await assert.rejects(rig.run(ask(rig)), /the host is gone|the channel is closed|rescinded/);
        assert.equal(rig.netvsc.stats().requestsWaiting, 0);
      }),
    );
  }
  await t.test('sends in flight at the end', () =>
    withRig({}, async (rig) => {
      await rig.run(rig.netvsc.attach());
      rig.host.holdSends = true;
      rig.send(frame(100, 1));
      await rig.run(rig.netvsc.detach());
      assert.deepEqual([rig.netvsc.state, rig.netvsc.stats().sendsAbandoned], ['detached', 1]);
    }),
  );
});

test("D3: the user's table is told to the host again at every attach, fitted to fewer queues and whole with more", () =>
  withRig({ queues: 4 }, async (rig) => {
    const told = recordRss(rig);
    rig.host.largestMtu = 9000;
    grantQueues(rig, 3);
    await rig.run(rig.netvsc.attach());
    const table = Array.from({ length: 128 }, (_, i) => (i % 3) + 1);
    const key = Uint8Array.from({ length: 40 }, (_, i) => i);
    await rig.run(rig.netvsc.setRss({ table, key }));
    await rig.run(rig.netvsc.reattach({ mtu: 4000 }));
    assert.deepEqual([told.at(-1)!.table, told.at(-1)!.key], [table, key]);
    grantQueues(rig, 1);
    await rig.run(rig.netvsc.reattach({ queues: 2 }));
    assert.deepEqual(
      told.at(-1)!.table,
      table.map((queue) => queue % 2),
    );
    grantQueues(rig, 3);
    await rig.run(rig.netvsc.reattach({ queues: 4 }));
    assert.deepEqual([told.at(-1)!.table, told.at(-1)!.key], [table, key]);
    assert.deepEqual(rig.netvsc.rss!.table, table);
  }));

test('D4: a table counts once the host has taken it; refused or not answered, the old one is in force and told again', async (t) => {
  for (const [name, answer] of [
    ['refused', refused],
    ['taken, not answered', (host: FakeHost, request: Request) => host.complete(request, words(108, 1))],
  ] as const) {
    await t.test(name, () =>
      withRig({ queues: 2 }, async (rig) => {
        const told = recordRss(rig);
        grantQueues(rig, 1);
        await rig.run(rig.netvsc.attach());
        const old = new Array<number>(128).fill(1);
        await rig.run(rig.netvsc.setRss({ table: old }));
        told.length = 0;
        let left = 2;
        rig.host.answers.set('set 10204', (host, request, usual) => {
          if (--left === 0) answer(host, request, usual);
          else usual();
        });
        await assert.rejects(rig.run(rig.netvsc.setRss({ table: new Array<number>(128).fill(0) })));
        assert.deepEqual(rig.netvsc.rss!.table, old);
        assert.deepEqual(
          told.map(({ flags, table }) => [flags, table[0]]),
          [
            [0x10, 0],
            [0, 0],
            [0x10, 1],
            [0, 1],
          ],
        );
        await rig.run(rig.netvsc.reattach({}));
        assert.deepEqual(told.at(-1)!.table, old, 'also later');
      }),
    );
  }
});

test('D9: hash types reach the host, UDP among them, and stay over an attach', () =>
  withRig({ queues: 2 }, async (rig) => {
    const told = recordRss(rig);
    grantQueues(rig, 1);
    await rig.run(rig.netvsc.attach());
    const udp = NDIS_HASH_TYPE.IPV4 | NDIS_HASH_TYPE.UDP_IPV4 | NDIS_HASH_TYPE.IPV6 | NDIS_HASH_TYPE.UDP_IPV6;
    await rig.run(rig.netvsc.setRss({ hashTypes: udp }));
    assert.equal(told.at(-1)!.hashInformation & ~0xff, udp);
    await rig.run(rig.netvsc.reattach({}));
    assert.equal(told.at(-1)!.hashInformation & ~0xff, udp);
  }));

test('D11: of 100 link changes at once the last state is told, at once; a change alone is told at once, too', () =>
  withRig({}, async (rig) => {
    await rig.run(rig.netvsc.attach());
    const links = () => rig.events.flatMap((event) => (event.type === 'link' ? [event.up] : []));
    let ring = 0;
    for (let i = 0; i < 100; i++) {
      rig.host.rndis(indication(i % 2 ? 0x4001000b : 0x4001000c));
      if (++ring % 10 === 0) rig.netvsc.poll(rig.handles, 8); // control suballocations are 16
    }
    rig.host.rndis(indication(0x4001000c));
    rig.netvsc.poll(rig.handles, 8);
    assert.ok(links().length <= 11, `${links().length} events`);
    assert.equal(links().at(-1), false);
    assert.equal(rig.netvsc.info!.linkUp, false);
    assert.equal(rig.netvsc.stats().linkChanges, 101);
    rig.host.rndis(indication(0x4001000b));
    rig.netvsc.poll(rig.handles, 8);
    assert.equal(links().at(-1), true, 'by the very next poll');
  }));

test('D14: a host that completes no sends of a queue is told of, once for each time, with queue and number; every queue has statistics', () =>
  withRig({ sendTimeoutMs: 100, copyLimit: 0 }, async (rig) => {
    await rig.run(rig.netvsc.attach());
    const told = () => rig.events.flatMap((event) => (event.type === 'send-timeout' ? [event.outstanding] : []));
    for (let i = 0; i < 100; i++) await rig.turn();
    assert.deepEqual(told(), [], 'nothing is in flight');
    rig.host.holdSends = true;
    rig.send(frame(1000, 1), frame(1000, 2));
    for (let i = 0; i < 100; i++) await rig.turn();
    assert.deepEqual(told(), [2]);
    const { low, high } = rig.host.held.shift()!;
    rig.host.complete({ idLow: low, idHigh: high }, words(108, 1)); // something moves
    for (let i = 0; i < 100; i++) await rig.turn();
    assert.deepEqual(told(), [2, 1]);
    assert.equal(rig.netvsc.stats().sendTimeouts, 2);
    assert.equal(rig.netvsc.state, 'running');
    assert.deepEqual([rig.netvsc.queueTotals(0).txPackets, rig.netvsc.queueTotals(0).txCompleted], [2, 1]);
  }));

test('D15: keepalive and reset of the host are answered, the filter is set anew, and halt is one that the host has taken', () =>
  withRig({}, async (rig) => {
    await rig.run(rig.netvsc.attach());
    const heard: [name: string, requestId: number, status: number][] = [];
    rig.host.onRequest = ({ name, bytes }) => {
      if (name.startsWith('rndis'))
        heard.push([name, bytes.getUint32(8, true), bytes.byteLength > 12 ? bytes.getUint32(12, true) : 0]);
    };
    rig.host.rndis(words(8, 12, 0x1234));
    for (let i = 0; i < 3; i++) await rig.turn();
    assert.deepEqual(heard, [['rndis 2147483656', 0x1234, 0]]);
    rig.host.log.length = 0;
    rig.host.rndis(words(6, 12, 0));
    for (let i = 0; i < 4; i++) await rig.turn();
    assert.deepEqual(rig.host.log, ['rndis 2147483654', 'set 1010e']);
    let halted = false;
    rig.host.answers.set('rndis 3', (_host, _request, usual) => {
      halted = true;
      assert.equal(rig.netvsc.state, 'detaching');
      usual();
    });
    await rig.run(rig.netvsc.detach());
    assert.ok(halted);
    assert.deepEqual(rig.host.log.slice(-2), ['nvsp 103', 'nvsp 106'], 'only then the buffers go');
  }));

test('D16: subchannels that were granted and do not come, or cannot be opened, are done without', async (t) => {
  const works = async (rig: Rig, queues: number, reason: RegExp) => {
    const told = recordRss(rig);
    const before = rig.arena.free().bytes;
    const info = await rig.run(rig.netvsc.attach());
    assert.equal(info.queues, queues);
    const missing = rig.events.find((event) => event.type === 'missing-queues');
    assert.ok(missing?.type === 'missing-queues');
    assert.deepEqual([missing.granted, missing.opened], [3, queues - 1]);
    assert.match(missing.reason, reason);
    assert.equal(rig.netvsc.stats().missingQueues, 4 - queues);
    for (const { table } of told)
      assert.ok(
        table.every((queue) => queue < queues),
        'no table names what is not there',
      );
    assert.equal(told.length, queues > 1 ? 2 : 0);
    rig.host.frame(frame(100, 1));
    assert.equal(rig.send(frame(100, 2)), 1);
    for (let i = 0; i < 3; i++) await rig.turn();
    assert.deepEqual([rig.received, rig.host.frames], [[frame(100, 1)], [frame(100, 2)]]);
    await rig.run(rig.netvsc.detach());
    for (let i = 0; i < 3; i++) await rig.turn();
    assert.equal(rig.arena.free().bytes, before);
    grantQueues(rig, 3);
    assert.equal((await rig.run(rig.netvsc.attach())).queues, 4, 'the next time they come');
  };
  for (const [offers, queues, reason] of [
    [2, 3, /expected 1 to 3 within 200 ms, found 1, 2$/],
    [0, 1, /found none$/],
  ] as const) {
    await t.test(`${offers} of 3 offers come`, () =>
      withRig({ queues: 4 }, async (rig) => {
        grantQueues(rig, 3, offers);
        await works(rig, queues, reason);
      }),
    );
  }
  await t.test('one cannot be opened', () =>
    withRig({ queues: 4 }, async (rig) => {
      grantQueues(rig, 3);
      const open = rig.device.openSubchannel.bind(rig.device);
      let calls = 0;
      rig.device.openSubchannel = () => {
        if (++calls === 2) throw new Error('ring: no memory');
        return open();
      };
      await works(rig, 2, /^ring: no memory$/);
    }),
  );
});

test('D18: an answer counts by its status, and an address by its length and kind', async (t) => {
  const mac =
    (data: Uint8Array, status = 0): Answer =>
    (host, request) => {
      host.complete(request, words(108, 1));
      host.rndis(queryReply(request.requestId, data, status));
    };
  for (const [name, answer, error] of [
    ['a refusal with data', mac(Uint8Array.of(0, 21, 93, 1, 2, 3), 0xc00000bb), /RNDIS status 0xc00000bb/],
    ['5 bytes', mac(new Uint8Array(5).fill(2)), /expected 6 bytes or more of OID 0x1010101, got 5/],
    ['8 bytes', mac(new Uint8Array(8).fill(2)), /expected 6 bytes, got 8/],
    ['all zero', mac(new Uint8Array(6)), /expected a unicast address, got 00:00:00:00:00:00/],
    ['a group', mac(Uint8Array.of(1, 0, 94, 0, 0, 1)), /expected a unicast address, got 01:00:5e:00:00:01/],
  ] as const) {
    await t.test(name, () =>
      withRig({}, async (rig) => {
        rig.host.answers.set('query 1010101', answer);
        await assert.rejects(rig.run(rig.netvsc.attach()), error);
      }),
    );
  }
});

test('D20: an answer is taken by id, type and length; ids are given back', async (t) => {
  for (const [name, answer, error] of [
    [
      'the answer to another request',
      (host, request) => host.complete(request, words(105, 1, 6144)),
      /NVSP receive buffer: expected receive buffer complete \(0x66\), got message 0x69/,
    ],
    [
      'too short',
      (host, { idLow, idHigh }) => host.write(packet(11, 0, idLow, idHigh, new Uint8Array(0), words(102, 1))),
      /receive buffer complete has 8 bytes, expected at least/,
    ],
    [
      'of another id',
      (host, { idLow, idHigh }) => host.complete({ idLow: idLow + 1, idHigh }, words(102, 1, 1, 0, 1806, 100, 0)),
      /NVSP receive buffer: no receive buffer complete from the host/,
    ],
  ] as readonly [string, Answer, RegExp][]) {
    await t.test(name, () =>
      withRig({}, async (rig) => {
        rig.host.answers.set('nvsp 101', answer);
        await assert.rejects(rig.run(rig.netvsc.attach()), error);
        assert.equal(rig.netvsc.stats().requestsWaiting, 0);
      }),
    );
  }
  await t.test('a thousand requests', () =>
    withRig({}, async (rig) => {
      await rig.run(rig.netvsc.attach());
      for (let i = 0; i < 100; i++)
        await rig.run(Promise.all(Array.from({ length: 10 }, () => rig.netvsc.setPacketFilter(i))));
      assert.equal(rig.netvsc.stats().requestsWaiting, 0);
      assert.equal(rig.netvsc.stats().unexpectedReplies, 0);
    }),
  );
});
