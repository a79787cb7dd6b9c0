// Cases about several queues, and several threads at once.
import assert from 'node:assert/strict';
import { affinity } from '../../memory/os/process.js';
import { SMALLEST, sequences } from './frames.js';
import type { LcoreOrder, LcoreReport } from './lcore-work.js';
import { LARGEST_STANDARD, type Rig } from './rig.js';

const QUEUES = 4;
const PACKETS = 4000;
const LCORES = 2;
const work = new URL('./lcore-work.js', import.meta.url);
const range = (count: number) => Array.from({ length: count }, (_, i) => i);

export const threadCases = {
  async 'several queues send, each counted for itself'(rig: Rig) {
    await rig.open();
    const { maxRxQueues, maxTxQueues } = rig.port.info();
    const queues = Math.min(QUEUES, maxRxQueues, maxTxQueues);
    if (queues < 2) return rig.skip('the device has one queue');
    await rig.start({ rxQueues: queues, txQueues: queues });
    await rig.linkUp();
    let sequence = 0;
    const numbers: number[] = [];
    for (let queue = 0; queue < queues; queue++) {
      const frames = range(10 * (queue + 1)).map(() => rig.frame(SMALLEST + queue, sequence++));
      numbers.push(...sequences(frames));
      await rig.send(frames, queue);
    }
    if (rig.wire?.sent) {
      const got = sequences(await rig.sent(numbers.length));
      assert.deepEqual(
        [...got].sort((a, b) => a - b),
        numbers,
        'a frame is missing, or came twice',
      );
      // Order within a queue.
      for (let queue = 0, from = 0; queue < queues; from += 10 * ++queue) {
        const mine = got.filter((number) => number >= from && number < from + 10 * (queue + 1));
        assert.deepEqual(
          mine,
          [...mine].sort((a, b) => a - b),
          `order on queue ${queue}`,
        );
      }
    }
    for (let queue = 0; queue < queues; queue++) {
      const stats = rig.port.queueStats(queue);
      if (stats === undefined) continue;
      await rig.until(
        () => rig.port.queueStats(queue)!.tx.packets === 10 * (queue + 1),
        () => `tx packets of queue ${queue}: ${rig.port.queueStats(queue)!.tx.packets}`,
      );
    }
  },

  async 'several queues receive'(rig: Rig) {
    await rig.open();
    if (rig.wire?.feed === undefined) return rig.skip('nobody sends to this port');
    const { maxRxQueues, maxTxQueues } = rig.port.info();
    const queues = Math.min(QUEUES, maxRxQueues, maxTxQueues);
    if (queues < 2) return rig.skip('the device has one queue');
    await rig.configure({ rxQueues: queues, txQueues: queues });
    const lists = range(queues).map((queue) => range(20).map((i) => rig.frame(64, queue * 100 + i, true)));
    if (rig.wire.when === 'stopped') for (const [queue, list] of lists.entries()) await rig.wire.feed(list, queue);
    await rig.port.start();
    if (rig.wire.when === 'started') for (const [queue, list] of lists.entries()) await rig.feed(list, queue);
    if (rig.wire.choosesQueue) {
      for (const [queue, list] of lists.entries())
        assert.deepEqual(sequences(await rig.receive(20, [queue])), sequences(list), `queue ${queue}`);
      return;
    }
    const got = sequences(await rig.receive(20 * queues, range(queues)));
    assert.deepEqual(
      [...got].sort((a, b) => a - b),
      lists.flatMap(sequences),
    );
  },

  async 'two lcores at once, each on its queue'(rig: Rig) {
    if (affinity().length < LCORES) return rig.skip('there is one CPU');
    await rig.open(LCORES);
    const { maxRxQueues, maxTxQueues } = rig.port.info();
    if (Math.min(maxRxQueues, maxTxQueues) < 2) return rig.skip('the device has one queue');
    const { eal, pool, wire } = rig;
    await rig.configure({ rxQueues: 2, txQueues: 2 });
    const fed = wire?.feed ? 200 : 0;
    const lists = [0, 1].map((queue) => range(fed).map((i) => rig.frame(90, queue * 1000 + i, true)));
    if (fed > 0 && wire!.when === 'stopped') for (const queue of [0, 1]) await wire!.feed!(lists[queue]!, queue);
    await rig.port.start();
    await rig.linkUp();
    const order = (queue: number): LcoreOrder => ({
      ...{ port: rig.port.id, queue, pool: pool.address, packets: PACKETS, bytes: queue === 0 ? 64 : LARGEST_STANDARD },
    });
    const other = eal.launch(1, work, 'trade', order(1)) as Promise<LcoreReport>;
    // This thread is lcore 0, in turns, so that the other side gets its own.
    const { Trader } = await import('./lcore-work.js');
    const trader = new Trader(eal.main, rig.port, order(0));
    let theirs: LcoreReport | undefined;
    void other.then((report) => {
      theirs = report;
    });
    let seen = 0;
    let given = 0;
    await rig.until(
      async () => {
        for (let i = 0; i < 50; i++) trader.step();
        if (wire?.when === 'started') {
          if (wire.sent) seen += (await wire.sent(0)).length;
          if (given < fed) {
            await rig.feed(lists[0]!.slice(given, given + 20), 0);
            await rig.feed(lists[1]!.slice(given, given + 20), 1);
            given += 20;
          }
        }
        return trader.done && theirs !== undefined;
      },
      () => `lcore 0: ${trader.sent} of ${PACKETS} sent; lcore 1: ${theirs === undefined ? 'works' : 'is ready'}`,
    );
    assert.equal(theirs!.sent, PACKETS);
    if (wire?.sent && wire.when === 'started') {
      await rig.until(
        async () => {
          seen += (await wire.sent!(0)).length;
          return seen >= 2 * PACKETS;
        },
        () => `the other side saw ${seen} of ${2 * PACKETS} packets`,
      );
    }
    await rig.until(
      () => rig.port.stats().opackets === 2 * PACKETS,
      () => `opackets: ${rig.port.stats().opackets}`,
    );
    assert.ok(theirs!.received >= 0);
  },

  async 'stopped while another thread polls'(rig: Rig) {
    if (affinity().length < LCORES) return rig.skip('there is one CPU');
    await rig.open(LCORES);
    await rig.configure();
    const { eal, pool } = rig;
    await rig.port.start();
    const polls = eal.main.reserve('polls', 4);
    const order: LcoreOrder = { port: rig.port.id, queue: 0, pool: pool.address, packets: 0, bytes: 64, polls };
    const running = eal.launch(1, work, 'pollForever', order) as Promise<LcoreReport>;
    for (let cycle = 0; cycle < 10; cycle++) {
      const seen = Atomics.load(eal.arena.u32, polls >>> 2);
      await rig.until(
        () => Atomics.load(eal.arena.u32, polls >>> 2) > seen + 100,
        () => 'the other thread does not poll',
      );
      await rig.port.stop();
      const before = rig.port.stats();
      await new Promise((resolve) => setTimeout(resolve, 2));
      assert.equal(rig.port.stats().ipackets, before.ipackets, 'received while it was stopped');
      await rig.port.start();
    }
    await eal.stopLcores();
    await running;
  },
};
