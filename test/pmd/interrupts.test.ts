// Rx interrupts of several queues: there is one descriptor for all of them, and whoever reads it wakes the others.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PollSet } from '../../src/memory/os/poll.js';
import { parseMac } from '../../src/wire/address-text.js';
import { flowHash, packetBytes } from '../queues/rig.js';
import { portOf, startEal, startHost, startPort, until } from './rig.js';

const QUEUES = 4;

test('an interrupt that another queue takes wakes the queue that it is for', async (t) => {
  const host = await startHost(t);
  const eal = await startEal(host, '-m', '16');
  const [a, b] = [portOf(eal, host, 0), portOf(eal, host, 1)];
  const pool = eal.createMempool('mbufs', { count: 3000 });
  await startPort(a, pool);
  await startPort(b, pool, { rxQueues: QUEUES, txQueues: QUEUES, rxInterrupts: true });
  const handles = eal.main.reserve('burst', 32 * 4);
  const { mbufs } = eal;
  const queues = Array.from({ length: QUEUES }, (_, queue) => b.rxQueue(queue));
  const polls = new PollSet();
  t.after(() => polls.close());
  const readable = (queue: number, ms: number) => {
    polls.clear();
    for (const fd of queues[queue]!.fds()) polls.add(fd);
    return polls.wait(ms) > 0;
  };
  const flowOf = (queue: number, from: number) => {
    for (let flow = from; ; flow++) if ((flowHash(flow) % 128) % QUEUES === queue) return flow;
  };
  for (let round = 0; round < 12; round++) {
    const target = round % QUEUES;
    await until('all queues are armed', () => {
      for (const rx of queues) {
        const n = rx.burst(handles, 32);
        for (let i = 0; i < n; i++) mbufs.free(eal.arena.u32[(handles >>> 2) + i]!);
      }
      const armed = queues.map((rx) => rx.arm());
      if (armed.every(Boolean)) return true;
      for (const rx of queues) rx.disarm();
      return false;
    });
    for (const rx of queues) assert.equal(new Set(rx.fds()).size, 2, 'the device and its own');
    const mbuf = mbufs.allocate(pool);
    mbufs.write(mbuf, packetBytes(parseMac(a.mac)!, parseMac(b.mac)!, flowOf(target, round * 50), round));
    eal.arena.u32[handles >>> 2] = mbuf;
    assert.equal(a.txQueue(0).burst(handles, 1), 1);
    const thief = (target + 1) % QUEUES;
    const deadline = performance.now() + 5000;
    while (!readable(thief, 5)) assert.ok(performance.now() < deadline, 'nobody is woken');
    queues[thief]!.disarm(); // takes the words
    assert.ok(readable(target, 1000), `queue ${target} sleeps on`);
    const bystander = (target + 2) % QUEUES;
    assert.equal(readable(bystander, 0), false, 'queues without news sleep on');
    for (const rx of queues) rx.disarm();
    assert.equal(queues[target]!.burst(handles, 32), 1);
    mbufs.free(eal.arena.u32[handles >>> 2]!);
    assert.equal(readable(target, 0), false, 'all that was told is taken');
  }
  // A stop wakes who sleeps.
  for (const rx of queues) assert.ok(rx.arm());
  await b.stop();
  for (let queue = 0; queue < QUEUES; queue++) assert.ok(readable(queue, 1000), `queue ${queue} sleeps over a stop`);
});
