// net_ring within a process: loops, pairs, queues of different numbers, who wakes whom.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Eal } from '../../ethdev/eal.js';
import type { Mempool } from '../../ethdev/mempool.js';
import type { Port } from '../../ethdev/port.js';
import { affinity } from '../../memory/os/process.js';
import { initEal } from '../platform.js';

const words = (...vdevs: string[]) => ['-m', '16', ...vdevs.flatMap((vdev) => ['--vdev', vdev])];

async function start(port: Port, pool: Mempool, rxQueues = 1, txQueues = 1, descriptors = 0): Promise<void> {
  await port.configure({ rxQueues, txQueues });
  for (let queue = 0; queue < rxQueues; queue++) port.setupRxQueue(queue, { descriptors: 0, pool });
  for (let queue = 0; queue < txQueues; queue++) port.setupTxQueue(queue, { descriptors });
  await port.start();
}

/** Sends packets that consist of one number each; returns how many were taken, the others are freed. */
function send(eal: Eal, pool: Mempool, port: Port, queue: number, numbers: readonly number[]): number {
  const handles = eal.arena.reserve('test', numbers.length * 4 + 4);
  numbers.forEach((number, i) => {
    const mbuf = eal.mbufs.allocate(pool);
    eal.mbufs.write(mbuf, Uint8Array.of(number));
    eal.arena.u32[(handles >>> 2) + i] = mbuf;
  });
  const taken = port.txQueue(queue).burst(handles, numbers.length);
  eal.main.datapath.mbufFree(handles + taken * 4, numbers.length - taken);
  eal.arena.release(handles);
  return taken;
}

function receive(eal: Eal, port: Port, queue: number, max = 64): number[] {
  const handles = eal.arena.reserve('test', max * 4);
  const n = port.rxQueue(queue).burst(handles, max);
  const list = Array.from({ length: n }, (_, i) => eal.mbufs.read(eal.arena.u32[(handles >>> 2) + i]!)[0]!);
  eal.main.datapath.mbufFree(handles, n);
  eal.arena.release(handles);
  return list;
}

test('a loop gives back what it got, queue by queue, the same mbuf', async () => {
  const eal = await initEal(words('net_ring0'));
  const pool = eal.createMempool('mbufs', { count: 128 });
  const port = eal.port(0);
  await start(port, pool, 2, 2);
  assert.equal(port.link().up, true);
  assert.equal(send(eal, pool, port, 1, [1, 2, 3]), 3);
  assert.deepEqual(receive(eal, port, 0), []);
  assert.equal(port.rxQueueCount(1), 3);
  assert.equal(port.rxDescriptorStatus(1, 2), 'DONE');
  assert.equal(port.rxDescriptorStatus(1, 3), 'AVAILABLE');
  assert.equal(port.txDescriptorStatus(1, 2), 'FULL');
  assert.deepEqual(receive(eal, port, 1), [1, 2, 3]);
  assert.equal(port.txDescriptorStatus(1, 2), 'DONE');
  await eal.close();
});

test('descriptors bound what waits; what waits at stop is dropped and counted', async () => {
  const eal = await initEal(words('net_ring0'));
  const pool = eal.createMempool('mbufs', { count: 128 });
  const port = eal.port(0);
  await start(port, pool, 1, 1, 5);
  const numbers = [1, 2, 3, 4, 5, 6, 7];
  assert.equal(send(eal, pool, port, 0, numbers), 5);
  assert.equal(send(eal, pool, port, 0, numbers), 0);
  assert.deepEqual(receive(eal, port, 0, 2), [1, 2]);
  assert.equal(send(eal, pool, port, 0, [8, 9, 10]), 2);
  await port.stop();
  assert.equal(pool.available, pool.count);
  assert.equal(new Map(port.xstats()).get('rx_flushed_packets'), 5);
  await port.start();
  assert.deepEqual(receive(eal, port, 0), []);
  await eal.close();
});

test('a pair: the link of each follows the other, nothing goes out while it is down', async () => {
  const eal = await initEal(words('net_ring0,peer=net_ring1', 'net_ring1'));
  const pool = eal.createMempool('mbufs', { count: 128 });
  const [a, b] = eal.ports as [Port, Port];
  const seen: string[] = [];
  a.on('link', ({ up }) => seen.push(up ? 'up' : 'down'));
  await start(a, pool);
  assert.equal(a.link().up, false);
  assert.equal(send(eal, pool, a, 0, [1]), 0);
  await start(b, pool);
  assert.equal(a.link().up && b.link().up, true);
  assert.equal(send(eal, pool, a, 0, [2, 3]), 2);
  assert.deepEqual(receive(eal, b, 0), [2, 3]);
  assert.deepEqual(receive(eal, a, 0), []);
  assert.equal(send(eal, pool, b, 0, [4]), 1);
  assert.deepEqual(receive(eal, a, 0), [4]);
  await b.setLink(false);
  assert.equal(send(eal, pool, a, 0, [5]), 0);
  await b.setLink(true);
  assert.equal(send(eal, pool, a, 0, [6]), 1);
  await b.close(); // with a packet on its way
  assert.equal(a.link().up, false);
  assert.equal(send(eal, pool, a, 0, [7]), 0);
  assert.deepEqual(seen, ['up', 'down', 'up', 'down']);
  await a.stop();
  assert.equal(pool.available, pool.count);
  await eal.close();
});

test('more tx queues than rx queues, and fewer', async () => {
  const eal = await initEal(words('net_ring0', 'net_ring1,peer=net_ring2', 'net_ring2,peer=net_ring1'));
  const pool = eal.createMempool('mbufs', { count: 256 });
  const [, a, b] = eal.ports as [Port, Port, Port];
  await start(a, pool, 1, 7);
  await start(b, pool, 3, 2);
  for (let queue = 0; queue < 7; queue++) assert.equal(send(eal, pool, a, queue, [queue * 10, queue * 10 + 1]), 2);
  const sorted = (list: number[]) => list.sort((x, y) => x - y);
  assert.deepEqual(sorted([...receive(eal, b, 0, 4), ...receive(eal, b, 0)]), [0, 1, 30, 31, 60, 61]);
  assert.deepEqual(sorted(receive(eal, b, 1)), [10, 11, 40, 41]);
  assert.deepEqual(sorted(receive(eal, b, 2)), [20, 21, 50, 51]);
  for (const queue of [0, 1]) assert.equal(send(eal, pool, b, queue, [queue]), 1);
  assert.deepEqual(sorted(receive(eal, a, 0)), [0, 1]);
  await eal.close();
});

test('an lcore that sleeps is woken by another one that sends', {
  skip: affinity().length < 2 && 'one CPU',
}, async () => {
  const eal = await initEal([
    ...words('net_ring0,peer=net_ring1', 'net_ring1'),
    '-l',
    affinity().slice(0, 2).join(','),
  ]);
  const pool = eal.createMempool('mbufs', { count: 512 });
  const [a, b] = eal.ports as [Port, Port];
  await start(a, pool);
  await start(b, pool);
  const cells = eal.main.reserve('cells', 8);
  const url = new URL('./sleeper-testing.js', import.meta.url);
  const other = eal.launch(1, url, 'sleepAndEcho', { port: b.id, cells }) as Promise<{ sleeps: number }>;
  for (let round = 0; round < 20; round++) {
    const until = Date.now() + 5000;
    while (Atomics.load(eal.arena.u32, cells >>> 2) <= round && Date.now() < until)
      await new Promise((resolve) => setTimeout(resolve, 1));
    assert.equal(send(eal, pool, a, 0, [round]), 1);
    let back: number[] = [];
    while (back.length === 0 && Date.now() < until) {
      back = receive(eal, a, 0);
      await new Promise(setImmediate);
    }
    assert.deepEqual(back, [round]);
  }
  await eal.stopLcores();
  // By the packet, not by a sleep that was over: those are 100 s long.
  assert.ok((await other).sleeps >= 20);
  await eal.close();
});

for (const [vdevs, message] of [
  [['net_ring0,peer=net_null0'], /peer=net_null0: expected the name of another net_ring device/],
  [['net_ring0', 'net_ring1,peer=net_ring0'], /net_ring1: peer=net_ring0: it is a loop, or has another peer/],
  [['net_ring0,peer=net_ring1', 'net_ring1,peer=net_ring2'], /net_ring1: peer=net_ring2: expected net_ring0/],
  [['net_ring0,peer=net_ring1,path=x'], /peer and path: expected one of both/],
  [['net_ring0,pear=net_ring1'], /pear: unknown argument, expected peer, path/],
  [['net_ring0,peer='], /peer: expected a value/],
  [['net_ring0,path=a b'], /path=a b: .*expected 1 to 64 letters/],
  [['net_ring0,path=/nonexistent/dir/socket'], /path=\/nonexistent\/dir\/socket: bind .*ENOENT/],
  [[`net_ring0,path=/tmp/${'x'.repeat(120)}`], /expected 1 to 107 bytes/],
] as const) {
  test(`arguments ${vdevs.join(' ')}: one clear line`, async () => {
    await assert.rejects(initEal(words(...vdevs)), (error: Error) => {
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  });
}
