// Several queues between our driver and our host: every queue is used, no packet goes astray, nothing is left behind.
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { seededRandom } from '../../src/vmbus/memory/simulator.js';
import { UioOffer } from '../../src/vmbus/uio/offer.js';
import { BACKENDS, createQueueRig, flowHash, flowsForAll, type QueueRig, type Received } from './rig.js';

const openDescriptors = () => readdirSync('/proc/self/fd').length;

/** Each packet once, flows in order, on the queue and with the hash that key and table give it. */
function check(received: readonly Received[], table: readonly number[], key?: Uint8Array): void {
  const next = new Map<number, number>();
  for (const { queue, flow, number, hash } of received) {
    const expected = flowHash(flow, key);
    assert.equal(hash, expected, `hash of flow ${flow}`);
    assert.equal(queue, table[expected % table.length], `queue of flow ${flow}`);
    assert.equal(number, next.get(flow) ?? 0, `order of flow ${flow}`);
    next.set(flow, number + 1);
  }
}

async function exchange(rig: QueueRig, flows: readonly number[], rounds: number): Promise<void> {
  const before = rig.received.length;
  for (let number = 0; number < rounds; number++) await rig.send(flows, number);
  await rig.until(() => rig.received.length - before >= flows.length * rounds);
}

for (const backend of BACKENDS) {
  for (const queues of [1, 2, 4, 8, 64]) {
    test(`${backend}: ${queues} queues, both ways`, async (t) => {
      const rig = createQueueRig(t, backend, { queues });
      const info = await rig.attach();
      assert.deepEqual([info.queues, info.receiveScaling], [queues, queues > 1]);
      assert.equal(info.rss!.receiveQueues, 64);
      const { device } = rig.receiver;
      const flows = flowsForAll(queues);
      await exchange(rig, flows, 10);
      assert.equal(rig.received.length, flows.length * 10);
      if (queues === 1) assert.ok(rig.received.every(({ hash, queue }) => hash === undefined && queue === 0));
      else {
        const table = Array.from({ length: 128 }, (_, i) => i % queues);
        assert.deepEqual(device.rss!.table, table);
        check(rig.received, table);
      }
      assert.equal(new Set(rig.received.map(({ queue }) => queue)).size, queues, 'every queue gets some');
      for (let queue = 0; queue < queues; queue++) {
        const got = rig.received.filter((packet) => packet.queue === queue).length;
        assert.equal(device.queueStats(queue).rxPackets, got);
        rig.reply(queue, queue);
      }
      await rig.until(() => rig.returned.length === queues);
      assert.deepEqual(
        [...rig.returned].sort((a, b) => a - b),
        Array.from({ length: queues }, (_, i) => i),
      );
      await rig.until(() => device.stats().txOutstanding === 0);
      for (let queue = 0; queue < queues; queue++) assert.equal(device.queueStats(queue).txPackets, 1);
      for (let hash = 0; hash < 40; hash++)
        assert.equal(device.transmitQueue(hash), queues === 1 ? 0 : (hash % 16) % queues);
      const { counters, subchannels, receiveBuffer, lostToDeadChannels } = rig.host.nics[1]!.state();
      assert.equal(subchannels.length, queues - 1);
      assert.deepEqual([counters.rxPackets, counters.txPackets], [flows.length * 10, queues]);
      assert.equal(lostToDeadChannels, 0);
      const stats = device.stats();
      assert.deepEqual([stats.rxPackets, stats.txPackets], [counters.rxPackets, counters.txPackets]);
      await rig.turn();
      assert.equal(receiveBuffer.inUse, 0);
      await rig.run(device.detach());
      await rig.until(() => rig.host.nics[1]!.phase === 'closed');
      assert.deepEqual(rig.host.nics[1]!.state().subchannels, []);
    });
  }

  test(`${backend}: what has no hash goes where hash 0 goes`, async (t) => {
    const rig = createQueueRig(t, backend, { queues: 4 });
    await rig.attach();
    await rig.run(rig.receiver.device.setRss({ table: [3, 2, 1, 0] }));
    await exchange(rig, [-1, -2], 3);
    assert.ok(rig.received.every(({ queue, hash }) => queue === 3 && hash === undefined));
  });

  test(`${backend}: key and table are the owner's, also after a reattach with fewer queues`, async (t) => {
    const rig = createQueueRig(t, backend, { queues: 4 });
    await rig.attach();
    const { device } = rig.receiver;
    const key = Uint8Array.from({ length: 40 }, (_, i) => (i * 37 + 11) & 255);
    const table = [3, 3, 1, 0, 2, 3, 1];
    await rig.run(device.setRss({ key, table }));
    const flows = flowsForAll(4);
    await exchange(rig, flows, 4);
    check(
      rig.received,
      Array.from({ length: 128 }, (_, i) => table[i % 7]!),
      key,
    );
    await assert.rejects(rig.run(device.setRss({ table: [0, 4] })), /RSS: table: expected queues 0 to 3, got 4/);
    await assert.rejects(rig.run(device.setRss({ table: [] })), /RSS: table: expected 1 to 128 entries, got 0/);
    await assert.rejects(rig.run(device.setRss({ key: key.slice(1) })), /RSS: key: expected 40 bytes, got 39/);
    await assert.rejects(rig.run(device.setRss({ hashTypes: 1 })), /RSS: hashTypes: expected bits of 0x1ff00, got 0x1/);
    assert.deepEqual(device.rss!.table, table);
    const info = await rig.run(device.reattach({ queues: 2 }));
    assert.equal(info.queues, 2);
    assert.deepEqual(
      device.rss!.table,
      table.map((queue) => queue % 2),
    );
    rig.received.length = 0;
    await exchange(rig, flows, 4);
    check(
      rig.received,
      Array.from({ length: 128 }, (_, i) => table[i % 7]! % 2),
      key,
    );
    await rig.run(device.reattach({ queues: 4 }));
    assert.deepEqual(device.rss!.table, table);
  });

  test(`${backend}: hosts before NVSP 5 have one queue`, async (t) => {
    const rig = createQueueRig(t, backend, { queues: 8, profile: 'ws2012' });
    const info = await rig.attach();
    assert.deepEqual([info.queues, info.receiveScaling], [1, false]);
    await exchange(rig, flowsForAll(1), 2);
  });

  test(`${backend}: scaling changes under traffic: what is not received was counted as dropped`, async (t) => {
    const seed = Number(process.env.SEED ?? Date.now() % 1e6);
    t.diagnostic(`SEED=${seed}`);
    const random = seededRandom(seed);
    const rig = createQueueRig(t, backend, { queues: 8 });
    await rig.attach();
    const { device } = rig.receiver;
    const flows = Array.from({ length: 64 }, (_, i) => i);
    let changes = 0;
    let changing: Promise<void> | undefined;
    const rounds = 60;
    for (let number = 0; number < rounds; number++) {
      await rig.send(flows, number);
      if (changing === undefined && random() < 0.5) {
        const most = 1 + Math.floor(random() * 8);
        const table = Array.from({ length: 1 + Math.floor(random() * 128) }, () => Math.floor(random() * most));
        changing = device.setRss({ table }).then(() => {
          changes++;
          changing = undefined;
        });
      }
    }
    await rig.until(() => changing === undefined);
    await rig.until(() => rig.sender.device.stats().txOutstanding === 0);
    for (let i = 0; i < 20; i++) await rig.turn();
    assert.ok(changes > 5, `${changes} changes`);
    const { counters, receiveBuffer, lostToDeadChannels, phase } = rig.host.nics[1]!.state();
    const dropped = counters.rxNoSuballocation! + counters.rxRingFull! + lostToDeadChannels + device.stats().rxNoMbuf!;
    assert.equal(rig.received.length + dropped, flows.length * rounds);
    assert.equal(new Set(rig.received.map(({ flow, number }) => flow * 1000 + number)).size, rig.received.length);
    assert.deepEqual([phase, receiveBuffer.inUse], ['ready', 0]);
    for (const { hash, flow } of rig.received) if (hash !== undefined) assert.equal(hash, flowHash(flow));
  });

  test(`${backend}: a rescinded device takes its subchannels along`, async (t) => {
    const rig = createQueueRig(t, backend, { queues: 4 });
    await rig.attach();
    const { device } = rig.receiver;
    await exchange(rig, flowsForAll(4), 2);
    rig.host.nics[1]!.offer.rescind();
    await rig.until(() => device.state === 'failed');
    assert.match(device.failure!, /the host is gone/);
    for (let queue = 0; queue < 5; queue++) assert.equal(device.send(0, 0, queue), 0);
    await rig.turn();
    assert.deepEqual(rig.host.nics[1]!.state().subchannels, []);
    await rig.run(device.detach());
  });

  test(`${backend}: 50 attaches with 8 queues leave no descriptor and no memory behind`, async (t) => {
    const rig = createQueueRig(t, backend, { queues: 8 });
    await rig.attach();
    const { device } = rig.receiver;
    const flows = flowsForAll(8);
    const cycle = async () => {
      rig.received.length = 0;
      await exchange(rig, flows, 1);
      await rig.run(device.detach());
      await rig.until(() => rig.host.nics[1]!.phase === 'closed');
      const state = [openDescriptors(), rig.guestArena.free(), rig.hostArena.free()];
      assert.equal((await rig.run(device.attach())).queues, 8);
      return state;
    };
    const before = await cycle();
    for (let i = 0; i < 50; i++) assert.deepEqual(await cycle(), before, `cycle ${i}`);
    assert.equal(device.stats().rxPackets, flows.length * 51);
  });

  test(`${backend}: monitored channels: guests write no interrupt, the host's sleep is bounded`, async (t) => {
    const rig = createQueueRig(t, backend, { queues: 4, monitor: true });
    assert.equal(rig.host.sleepMs(), undefined, 'no guest, no limit');
    await rig.attach();
    const { device } = rig.receiver;
    assert.equal(rig.host.sleepMs(), 0.1);
    for (let i = 0; i < 5; i++) await rig.turn();
    rig.host.tick(1e6);
    rig.host.step();
    rig.host.nics[1]!.offer.poll();
    assert.equal(rig.host.arm(), true);
    for (let queue = 0; queue < 4; queue++) rig.reply(queue, queue);
    const signals = Array.from({ length: 4 }, (_, queue) => device.queueStats(queue).signals!);
    assert.ok(
      signals.every((count) => count > 0),
      `${signals}`,
    );
    assert.equal(rig.host.nics[1]!.offer.poll().interrupts, 4, 'one trigger each');
    rig.host.disarm();
    await rig.until(() => rig.returned.length === 4);
    await exchange(rig, flowsForAll(4), 3);
    const { offer } = rig.host.nics[1]!;
    if (offer instanceof UioOffer) {
      assert.equal(offer.stats.interruptsIn, 0);
      assert.ok(offer.stats.triggersIn >= 4);
    }
    await rig.run(device.detach());
    await rig.run(rig.sender.device.detach());
    await rig.until(() => rig.host.nics.every(({ phase }) => phase === 'closed'));
    assert.equal(rig.host.sleepMs(), undefined);
  });
}
