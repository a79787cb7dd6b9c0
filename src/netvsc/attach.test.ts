import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OFFLOAD } from '../memory/layout.js';
import { type Answer, packet, queryReply, type Request, words } from './fake-host.js';
import { type Rig, TIMEOUT_MS, withRig } from './test-rig.js';

const STEPS = [
  ['nvsp 1', 'NVSP init 0x60001'],
  ['nvsp 101', 'NVSP receive buffer'],
  ['nvsp 104', 'NVSP send buffer'],
  ['rndis 2', 'RNDIS initialize'],
  ['query 10106', 'RNDIS query maximum frame size'],
  ['query 1010101', 'RNDIS query permanent address'],
  ['query 20216', 'RNDIS query friendly name'],
  ['query fc01020d', 'RNDIS query offload capabilities'],
  ['set fc01020c', 'RNDIS set offload parameters'],
  ['query 10114', 'RNDIS query media connect status'],
  ['query 10107', 'RNDIS query link speed'],
  ['query 10203', 'RNDIS query RSS capabilities'],
  ['set 1010e', 'RNDIS set packet filter'],
] as const;

test('attach goes through the steps of a real driver, in their order', () =>
  withRig({}, async (rig) => {
    const info = await rig.run(rig.netvsc.attach());
    assert.equal(rig.netvsc.state, 'running');
    assert.deepEqual(
      rig.host.log.filter((name) => name !== 'nvsp 125' && name !== 'nvsp 100'),
      STEPS.map(([name]) => name),
    );
    assert.deepEqual(rig.host.log.slice(0, 4), ['nvsp 1', 'nvsp 125', 'nvsp 100', 'nvsp 101']);
    assert.equal(info.mac, '00:15:5d:01:02:03');
    assert.equal(info.nvspVersion, 0x60001);
    assert.equal(info.ndisVersion, 0x6001e);
    assert.equal(info.friendlyName, 'Network Device');
    assert.equal(info.mtu, 1500);
    assert.deepEqual([info.linkUp, info.linkSpeedBps], [true, 10_000_000_000]);
    assert.deepEqual([info.maxPacketsPerMessage, info.packetAlignment], [8, 8]);
    assert.deepEqual(info.rss, { flags: 0x301, receiveQueues: 8, tableEntries: 128 });
    const { RSC, ...wanted } = OFFLOAD;
    assert.equal(
      info.offloads,
      Object.values(wanted).reduce((all: number, bit) => all | bit, 0),
      'everything but RSC',
    );
    assert.deepEqual([info.lsoMax4, info.lsoMax6], [62780, 62780]);
    await rig.run(rig.netvsc.detach());
    assert.equal(rig.netvsc.state, 'detached');
    assert.deepEqual(rig.host.log.slice(-4), ['set 1010e', 'rndis 3', 'nvsp 103', 'nvsp 106']);
  }));

for (const [newest, versions, ndis] of [
  [0x60000, 2, 0x6001e],
  [0x50000, 3, 0x6001e],
  [0x40000, 4, 0x60001],
  [0x30002, 5, 0x60001],
  [0x00002, 6, 0x60001],
] as const) {
  test(`version ${newest.toString(16)} is found after ${versions} tries, one each`, () =>
    withRig({}, async (rig) => {
      rig.host.newestVersion = newest;
      let parameters: DataView | undefined;
      let config: DataView | undefined;
      rig.host.onRequest = ({ name, bytes }) => {
        if (name === 'set fc01020c') parameters = bytes;
        if (name === 'nvsp 125') config = bytes;
      };
      const info = await rig.run(rig.netvsc.attach());
      assert.deepEqual([info.nvspVersion, info.ndisVersion], [newest, ndis]);
      assert.equal(rig.host.log.filter((name) => name === 'nvsp 1').length, versions);
      assert.equal(rig.host.log.includes('query 10203'), newest >= 0x50000);
      if (newest >= 0x30002) {
        assert.equal(config!.getUint32(4, true), 1514);
        assert.equal(config!.getUint32(12, true), newest >= 0x50000 ? 0x2c : 0x8);
      } else assert.equal(config, undefined);
      assert.equal(parameters!.getUint32(16, true), newest >= 0x50000 ? 28 : 22);
      const values = Array.from({ length: 5 }, (_, i) => parameters!.getUint8(28 + 4 + i)); // ip4 tcp4 udp4 tcp6 udp6
      assert.deepEqual(values, newest >= 0x50000 ? [4, 4, 4, 4, 4] : [4, 4, 0, 4, 0]);
    }));
}

test('a host that refuses every version is named with all its answers', () =>
  withRig({}, async (rig) => {
    rig.host.newestVersion = 0;
    await assert.rejects(
      rig.run(rig.netvsc.attach()),
      /NVSP init: the host refused every version: 0x60001: status 0 .*0x2:/,
    );
    assert.equal(rig.netvsc.state, 'failed');
    assert.match(rig.netvsc.failure!, /^netvsc 00000000-.* \(memory\): NVSP init/);
  }));

/** Attach must fail as `expected` says, hold nothing, and work with a good host afterwards. */
async function failsThenWorks(rig: Rig, expected: RegExp): Promise<void> {
  const before = rig.arena.free().bytes;
  const buffers = rig.freeSmall();
  await assert.rejects(rig.run(rig.netvsc.attach()), expected);
  assert.equal(rig.netvsc.state, 'failed');
  assert.match(rig.netvsc.failure!, expected);
  assert.equal(rig.arena.free().bytes, before, 'arena');
  assert.equal(rig.freeSmall(), buffers, 'packet buffers');
  rig.host.answers.clear();
  await rig.run(rig.netvsc.attach());
  assert.equal(rig.netvsc.state, 'running');
  await rig.run(rig.netvsc.detach());
  assert.equal(rig.arena.free().bytes, before, 'arena after detach');
}

test('a host that never answers one message: the deadline names the step', async (t) => {
  for (const [message, step] of STEPS) {
    await t.test(message, () =>
      withRig({}, async (rig) => {
        rig.host.answers.set(message, () => {});
        await failsThenWorks(rig, new RegExp(`${step}: no .* within ${TIMEOUT_MS} ms`));
        assert.ok(rig.netvsc.stats().requestTimeouts! >= 1);
      }),
    );
  }
});

test('a host that takes an RNDIS message and never replies', () =>
  withRig({}, async (rig) => {
    rig.host.answers.set('query 1010101', (host, request) => host.complete(request, words(108, 1)));
    await failsThenWorks(rig, /RNDIS query permanent address: no query complete from the host within/);
  }));

test('rescind during every step ends attach at once', async (t) => {
  for (const [message, step] of STEPS) {
    await t.test(message, () =>
      withRig({ requestTimeoutMs: 1e9 }, async (rig) => {
        const before = rig.arena.free().bytes;
        rig.host.answers.set(message, (host) => host.rescind());
        await assert.rejects(rig.run(rig.netvsc.attach()), new RegExp(`${step}: the host is gone`));
        assert.equal(rig.netvsc.state, 'failed');
        assert.equal(rig.arena.free().bytes, before);
        await assert.rejects(rig.run(rig.netvsc.attach()), /host is gone/);
        await rig.run(rig.netvsc.detach());
        assert.equal(rig.netvsc.state, 'detached');
      }),
    );
  }
});

const nvsp =
  (...reply: number[]): Answer =>
  (host, request) =>
    host.complete(request, words(...reply));
const rndis =
  (reply: (request: Request) => Uint8Array): Answer =>
  (host, request) => {
    host.complete(request, words(108, 1));
    host.rndis(reply(request));
  };
const initialize = (cells: { packets?: number; transfer?: number; alignment?: number; status?: number }): Answer =>
  rndis(({ requestId }) => {
    const { packets = 8, transfer = 0xefffffff, alignment = 3, status = 0 } = cells;
    return words(0x80000002, 52, requestId, status, 1, 0, 1, 0, packets, transfer, alignment, 0, 0);
  });

const REFUSED: [string, string, Answer, RegExp][] = [
  [
    'init: another message type',
    'nvsp 1',
    nvsp(105, 1, 34, 1),
    /init 0x60001: expected init complete \(0x2\), got message 0x69/,
  ],
  ['init: a data completion', 'nvsp 1', nvsp(108, 1), /init 0x60001: expected init complete \(0x2\), got message 0x6c/],
  [
    'init: short',
    'nvsp 1',
    (host, { idLow, idHigh }) => host.write(packet(11, 0, idLow, idHigh, new Uint8Array(0), words(2, 0))),
    /init complete has 8 bytes, expected at least 16/,
  ],
  [
    'init: empty',
    'nvsp 1',
    (host, request) => host.complete(request, new Uint8Array(0)),
    /expected init complete \(0x2\), got message 0x0 of 0 bytes/,
  ],
  ['receive buffer: status', 'nvsp 101', nvsp(102, 2), /NVSP receive buffer: the host answered status 2/],
  ['receive buffer: two groups', 'nvsp 101', nvsp(102, 1, 2, 0, 1806, 100), /expected 1 section group, got 2/],
  ['receive buffer: no group', 'nvsp 101', nvsp(102, 1, 0, 0, 1806, 100), /expected 1 section group, got 0/],
  [
    'receive buffer: offset',
    'nvsp 101',
    nvsp(102, 1, 1, 8, 1806, 100),
    /expected the section group at offset 0, got 8/,
  ],
  ['receive buffer: section size 0', 'nvsp 101', nvsp(102, 1, 1, 0, 0, 100), /at least 68 bytes, got 0/],
  ['receive buffer: section size 67', 'nvsp 101', nvsp(102, 1, 1, 0, 67, 100), /at least 68 bytes, got 67/],
  ['receive buffer: no section', 'nvsp 101', nvsp(102, 1, 1, 0, 1806, 0), /sections within 262144 bytes, got 0/],
  ['receive buffer: beyond it', 'nvsp 101', nvsp(102, 1, 1, 0, 1806, 146), /within 262144 bytes, got 146 of 1806/],
  ['receive buffer: product wraps', 'nvsp 101', nvsp(102, 1, 1, 0, 0x10000, 0x10000), /within 262144 bytes, got 65536/],
  ['send buffer: status', 'nvsp 104', nvsp(105, 2, 6144), /NVSP send buffer: the host answered status 2/],
  [
    'send buffer: section size 0',
    'nvsp 104',
    nvsp(105, 1, 0),
    /NVSP send buffer: expected sections of 68\.\.262144 bytes, got 0/,
  ],
  ['send buffer: section beyond it', 'nvsp 104', nvsp(105, 1, 262145), /got 262145/],
  ['send buffer: one section', 'nvsp 104', nvsp(105, 1, 200000), /expected more than 1 sections/],
  [
    'initialize: status',
    'rndis 2',
    initialize({ status: 0xc0000001 }),
    /RNDIS initialize: the host answered RNDIS status 0xc0000001/,
  ],
  ['initialize: alignment 40', 'rndis 2', initialize({ alignment: 40 }), /alignment factor of 0\.\.7, got 40/],
  ['initialize: transfer 64', 'rndis 2', initialize({ transfer: 64 }), /transfers of at least \d+ bytes, got 64/],
  [
    'initialize: message refused',
    'rndis 2',
    nvsp(108, 2),
    /RNDIS initialize: the host refused the RNDIS message: NVSP status 2/,
  ],
  [
    'initialize: a set complete',
    'rndis 2',
    rndis(({ requestId }) => words(0x80000005, 16, requestId, 0)),
    /expected initialize complete \(0x80000002\), got message 0x80000005/,
  ],
  [
    'initialize: short',
    'rndis 2',
    rndis(({ requestId }) => words(0x80000002, 24, requestId, 0, 1, 0)),
    /initialize complete has 24 bytes/,
  ],
  [
    'another request id',
    'query 1010101',
    rndis(({ requestId }) => queryReply(requestId + 1, new Uint8Array(6))),
    /permanent address: no query complete/,
  ],
  [
    'MAC: 5 bytes',
    'query 1010101',
    rndis(({ requestId }) => queryReply(requestId, new Uint8Array(5))),
    /expected 6 bytes or more of OID 0x1010101, got 5/,
  ],
  [
    'MAC: status',
    'query 1010101',
    rndis(({ requestId }) => queryReply(requestId, new Uint8Array(6), 0xc00000bb)),
    /permanent address: the host answered RNDIS status 0xc00000bb/,
  ],
  [
    'MAC: data outside the answer',
    'query 1010101',
    rndis(({ requestId }) => words(0x80000004, 32, requestId, 0, 6, 19, 0, 0)),
    /6 bytes at offset 19\) is not inside the answer of 32 bytes/,
  ],
  [
    'MAC: offset wraps',
    'query 1010101',
    rndis(({ requestId }) => words(0x80000004, 32, requestId, 0, 6, 0xfffffff0, 0, 0)),
    /is not inside the answer/,
  ],
  [
    'frame size: data over the header',
    'query 10106',
    rndis(({ requestId }) => words(0x80000004, 32, requestId, 0, 4, 4, 0, 0)),
    /is not inside the answer/,
  ],
  [
    'capabilities: too short',
    'query fc01020d',
    rndis(({ requestId }) => queryReply(requestId, new Uint8Array(8))),
    /got 8/,
  ],
  [
    'capabilities: another object',
    'query fc01020d',
    rndis(({ requestId }) => queryReply(requestId, new Uint8Array(156))),
    /RNDIS query offload capabilities: /,
  ],
  [
    'parameters: status',
    'set fc01020c',
    rndis(({ requestId }) => words(0x80000005, 16, requestId, 0xc0010015)),
    /set offload parameters: the host answered RNDIS status 0xc0010015/,
  ],
];

test('answers that no good host gives end attach with their name', async (t) => {
  for (const [name, message, answer, expected] of REFUSED) {
    await t.test(name, () =>
      withRig({}, async (rig) => {
        rig.host.answers.set(message, answer);
        await failsThenWorks(rig, expected);
      }),
    );
  }
});

test('a refused friendly name, frame size, link speed or RSS query is tolerated', () =>
  withRig({}, async (rig) => {
    for (const oid of ['20216', '10106', '10107', '10203']) {
      rig.host.answers.set(
        `query ${oid}`,
        rndis(({ requestId }) => words(0x80000004, 24, requestId, 0xc00000bb, 0, 0)),
      );
    }
    const info = await rig.run(rig.netvsc.attach());
    assert.deepEqual([info.friendlyName, info.mtu, info.linkSpeedBps, info.rss], ['', 1500, 0, undefined]);
  }));

test('the host may lower the MTU', () =>
  withRig({ mtu: 9000 }, async (rig) => {
    assert.equal((await rig.run(rig.netvsc.attach())).mtu, 1500);
    rig.host.answers.set(
      'query 10106',
      rndis(({ requestId }) => queryReply(requestId, words(9000))),
    );
    assert.equal((await rig.run(rig.netvsc.reattach({ mtu: 4000 }))).mtu, 4000);
    assert.equal(rig.netvsc.state, 'running');
    assert.equal(rig.host.log.at(-1), 'set 1010e');
  }));

test('answers that nobody waits for are counted and change nothing', () =>
  withRig({}, async (rig) => {
    const twice: Answer = (_host, _request, usual) => {
      usual();
      usual();
    };
    for (const [message] of STEPS) rig.host.answers.set(message, twice);
    rig.host.answers.set('query 1010101', (host, request, usual) => {
      host.rndis(queryReply(request.requestId + 7, new Uint8Array(6).fill(9))); // of another request
      host.write(packet(11, 0, request.idLow, 0, new Uint8Array(0), words(108, 1))); // id without its upper word
      usual();
    });
    rig.host.answers.set('nvsp 101', (host, { idLow }, usual) => {
      for (const idHigh of [0, 0x4e540001, 0x4e540003]) {
        host.write(packet(11, 0, idLow, idHigh, new Uint8Array(0), words(102, 2))); // the id of another kind of message
      }
      usual();
    });
    const info = await rig.run(rig.netvsc.attach());
    assert.equal(info.mac, '00:15:5d:01:02:03');
    assert.equal(rig.netvsc.stats().txUnknownTransaction, 1);
    assert.ok(rig.netvsc.stats().unexpectedReplies! >= STEPS.length);
  }));
