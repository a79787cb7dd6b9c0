// net_null, and with it the device API's own rules, in one thread and in two.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PortError } from '../../ethdev/errors.js';
import { affinity } from '../../memory/os/process.js';
import { conformance } from '../conformance.js';
import { initEal } from '../platform.js';

conformance({
  name: 'net_null',
  async open(words) {
    const eal = await initEal([...words, '--vdev', 'net_null0']);
    return { eal, port: eal.port('net_null0'), close: () => eal.close() };
  },
});

async function started(words: string[]) {
  const eal = await initEal([...words, '--vdev', 'net_null0,size=100', '-m', '16']);
  const pool = eal.createMempool('mbufs', { count: 2048, cache: 128 });
  const port = eal.port('net_null0');
  await port.configure({ rxQueues: 2, txQueues: 2 });
  for (const queue of [0, 1]) {
    port.setupRxQueue(queue, { descriptors: 0, pool });
    port.setupTxQueue(queue);
  }
  return { eal, pool, port };
}

test('a port in its own thread: nothing before start, counters, mbufs come back', async () => {
  const { eal, pool, port } = await started([]);
  const handles = eal.main.reserve('burst', 32 * 4);
  const rx = port.rxQueue(0);
  assert.equal(rx.burst(handles, 32), 0);
  await port.start();
  assert.equal(rx.burst(handles, 32), 32);
  assert.equal(pool.available, 2048 - 32);
  assert.equal(eal.mbufs.packetLength(eal.arena.u32[handles >>> 2]!), 100);
  assert.equal(port.txQueue(1).burst(handles, 32), 32);
  assert.equal(pool.available, 2048);
  assert.deepEqual(port.stats(), {
    ...{ ipackets: 32, ibytes: 3200, opackets: 32, obytes: 3200 },
    ...{ imissed: 0, ierrors: 0, oerrors: 0, rxNombuf: 0 },
  });
  port.resetStats();
  assert.equal(port.stats().ipackets, 0);
  await assert.rejects(port.setMtu(9000), (error: PortError) => error.code === 'EBUSY');
  await port.stop();
  assert.equal(rx.burst(handles, 32), 0);
  await port.setMtu(9000);
  assert.equal(port.mtu, 9000);
  await eal.close();
});

test('two lcores at once, each on its queue, from one pool', { skip: affinity().length < 2 && 'one CPU' }, async () => {
  const { eal, pool, port } = await started(['-l', affinity().slice(0, 2).join(',')]);
  await port.start();
  const other = eal.launch(1, new URL('../forward-testing.js', import.meta.url), 'forward', {
    queue: 1,
    bursts: 20_000,
  });
  const handles = eal.main.reserve('burst', 32 * 4);
  const rx = port.rxQueue(0);
  const tx = port.txQueue(0);
  for (let i = 0; i < 20_000; i++) tx.burst(handles, rx.burst(handles, 32));
  assert.equal(await other, 20_000 * 32);
  assert.equal(port.stats().opackets, 2 * 20_000 * 32);
  assert.equal(pool.available, 2048);
  await eal.close();
});

for (const [words, message] of [
  [['--vdev', 'net_nil0'], /net_nil0: no driver for it/],
  [['--vdev', 'net_null0,size=9'], /size=9: expected a number 14 to 65536/],
  [['--vdev', 'net_null0,colour=red'], /colour: unknown argument, expected size, copy, no_rx/],
  [['--bogus'], /Unknown option '--bogus'/],
  [['-l', '2-1'], /-l 2-1: expected CPU numbers/],
  [['-a', 'eth0'], /-a eth0: expected vmbus:UUID/],
] as const) {
  test(`EAL options ${words.join(' ')}: one clear line`, async () => {
    await assert.rejects(initEal(words), (error: Error) => {
      assert.ok(error instanceof PortError);
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  });
}
