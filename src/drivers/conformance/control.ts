// Cases about control calls: limits, states, settings, and what a closed port gives back.
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { RSS_TYPE, RX_OFFLOAD, TX_OFFLOAD } from '../../ethdev/constants.js';
import type { Eal } from '../../ethdev/eal.js';
import { PortError, type PortErrorCode } from '../../ethdev/errors.js';
import type { LinkStatus } from '../../ethdev/types.js';
import { initEal } from '../platform.js';
import { SMALLEST } from './frames.js';
import { Rig } from './rig.js';

const CYCLES = 50;

const all = (bits: Readonly<Record<string, number>>) => Object.values(bits).reduce((sum, bit) => sum | bit, 0);

/** Expects a PortError of that code with one line that names the port. */
async function fails(rig: Rig, code: PortErrorCode | PortErrorCode[], what: () => unknown): Promise<void> {
  await assert.rejects(
    async () => what(),
    (error: Error) => {
      assert.ok(error instanceof PortError, String(error.stack));
      assert.ok([code].flat().includes(error.code), `expected ${code}, got ${error.code}: ${error.message}`);
      assert.ok(error.message.includes(rig.port.device), error.message);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    },
  );
}

export const controlCases = {
  async 'device information is plausible'(rig: Rig) {
    await rig.open();
    const info = rig.port.info();
    assert.equal(info.device, rig.port.device);
    assert.equal(info.driver, rig.port.driver.name);
    assert.ok(info.maxRxQueues >= 1 || info.maxTxQueues >= 1);
    assert.ok(info.minMtu <= rig.port.mtu && rig.port.mtu <= info.maxMtu, `MTU ${rig.port.mtu}`);
    assert.ok(info.maxRxPacketBytes >= rig.port.mtu + 14);
    assert.match(rig.port.mac, /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/);
    assert.equal(Number.parseInt(rig.port.mac.slice(0, 2), 16) & 1, 0, 'a multicast address');
    for (const { min, max, align, usual } of [info.rxDescriptors, info.txDescriptors])
      assert.ok(min <= usual && usual <= max && usual % align === 0);
    assert.equal(info.rxOffloads & ~all(RX_OFFLOAD), 0);
    assert.equal(info.txOffloads & ~all(TX_OFFLOAD), 0);
    assert.equal(info.rssTypes & ~all(RSS_TYPE), 0);
    assert.ok(info.maxTxSegments >= 1);
    const several = (info.txOffloads & TX_OFFLOAD.MULTI_SEGS) !== 0;
    assert.equal(info.maxTxSegments > 1, several, 'MULTI_SEGS and the number of segments disagree');
  },

  async 'configure: limits and errors'(rig: Rig) {
    await rig.open();
    const { port } = rig;
    const info = port.info();
    await fails(rig, 'EINVAL', () => port.configure({ rxQueues: 0, txQueues: 0 }));
    await fails(rig, 'EINVAL', () => port.configure({ rxQueues: info.maxRxQueues + 1, txQueues: 0 }));
    await fails(rig, 'EINVAL', () => port.configure({ rxQueues: 0, txQueues: info.maxTxQueues + 1 }));
    await fails(rig, 'EINVAL', () => port.configure({ rxQueues: 1.5, txQueues: 1 }));
    await fails(rig, 'EINVAL', () => port.configure({ rxQueues: -1, txQueues: 1 }));
    const foreign = (have: number) => (1 << 30) & ~have;
    await fails(rig, 'EINVAL', () =>
      port.configure({ rxQueues: 1, txQueues: 1, rxOffloads: foreign(info.rxOffloads) }),
    );
    await fails(rig, 'EINVAL', () =>
      port.configure({ rxQueues: 1, txQueues: 1, txOffloads: foreign(info.txOffloads) }),
    );
    await fails(rig, 'EINVAL', () => port.configure({ rxQueues: 1, txQueues: 1, rss: { types: 1 << 30 } }));
    await fails(rig, ['EINVAL', 'ENOTSUP'], () => port.configure({ rxQueues: 1, txQueues: 1, mtu: info.maxMtu + 1 }));
    if (!info.rxInterrupts)
      await fails(rig, 'ENOTSUP', () => port.configure({ rxQueues: 1, txQueues: 1, rxInterrupts: true }));
    assert.equal(port.state, 'probed');
    assert.equal(port.config, undefined);
    await port.configure({ rxQueues: 1, txQueues: 1, rxOffloads: info.rxOffloads, txOffloads: info.txOffloads });
    assert.equal(port.config!.rxOffloads, info.rxOffloads);
  },

  async 'queues: limits and errors'(rig: Rig) {
    await rig.open();
    const { port, pool } = rig;
    const { rxDescriptors, txDescriptors, minRxBufferBytes } = port.info();
    await fails(rig, 'EBUSY', () => port.setupRxQueue(0, { descriptors: 0, pool }));
    await fails(rig, 'EBUSY', () => port.start());
    await port.configure({ rxQueues: 1, txQueues: 1 });
    await fails(rig, 'EINVAL', () => port.start());
    await fails(rig, 'EINVAL', () => port.setupRxQueue(1, { descriptors: 0, pool }));
    await fails(rig, 'EINVAL', () => port.setupTxQueue(-1));
    await fails(rig, 'EINVAL', () => port.setupRxQueue(0, { descriptors: rxDescriptors.max + 1, pool }));
    await fails(rig, 'EINVAL', () => port.setupTxQueue(0, { descriptors: txDescriptors.max + 1 }));
    await fails(rig, 'EINVAL', () => port.setupTxQueue(0, { descriptors: 1.5 }));
    if (minRxBufferBytes > 64) {
      const small = rig.createPool('too small', Math.max(64, minRxBufferBytes - 1), 8);
      await fails(rig, 'EINVAL', () => port.setupRxQueue(0, { descriptors: 0, pool: small }));
    }
    port.setupRxQueue(0, { descriptors: 0, pool });
    port.setupTxQueue(0);
    assert.equal(port.rxQueueInfo(0).descriptors, rxDescriptors.usual);
    assert.equal(port.txQueueInfo(0).descriptors, txDescriptors.usual);
    assert.equal(port.rxQueueInfo(0).pool, pool.name);
    await rig.wire?.prepare?.(1);
    await port.start();
    await port.start(); // as DPDK's: it is started already
    await fails(rig, 'EBUSY', () => port.configure({ rxQueues: 1, txQueues: 1 }));
    await fails(rig, 'EBUSY', () => port.setupTxQueue(0));
    await fails(rig, 'EINVAL', () => port.rxQueue(1));
    await fails(rig, 'EINVAL', () => port.rxDescriptorStatus(0, rxDescriptors.usual));
  },

  async 'a closed port stays closed'(rig: Rig) {
    await rig.open();
    await rig.start();
    const { port } = rig;
    const rx = port.rxQueue(0);
    const tx = port.txQueue(0);
    await port.close(); // while it runs
    await port.close();
    assert.equal(port.state, 'closed');
    await fails(rig, 'ENODEV', () => port.configure({ rxQueues: 1, txQueues: 1 }));
    await fails(rig, 'ENODEV', () => port.start());
    await port.stop();
    assert.equal(rx.burst(rig.handles, 32), 0);
    assert.equal(tx.burst(rig.handles, 0), 0);
    const settings = [
      ...[() => port.setMtu(port.info().minMtu), () => port.setPromiscuous(true), () => port.setAllMulticast(true)],
      ...[() => port.setMac('02:00:00:00:00:09'), () => port.addMac('02:00:00:00:00:0a'), () => port.setLink(true)],
      ...[() => port.setMulticast(['01:00:5e:00:00:01']), () => port.vlanFilter(5, true), () => port.setRss({})],
    ];
    const questions = [() => port.rss(), () => port.stats(), () => port.queueStats(0), () => port.xstats()];
    for (const call of [...settings, ...questions, () => port.resetStats(), () => port.handle()])
      await fails(rig, 'ENODEV', call);
  },

  async 'what is asked of a port that is not configured is an error or an answer'(rig: Rig) {
    await rig.open();
    const { port } = rig;
    const { rssTypes, rssKeyBytes, rssTableEntries } = port.info();
    const ask = async () => {
      await fails(rig, ['EBUSY', 'ENOTSUP'], () => port.setRss({ types: rssTypes }));
      await fails(rig, ['EBUSY', 'ENOTSUP'], () => port.setRss({ key: new Uint8Array(rssKeyBytes) }));
      await fails(rig, ['EBUSY', 'ENOTSUP'], () => port.setRss({ table: new Array(rssTableEntries).fill(0) }));
      for (const queue of [0, -1, 1.5, 1000]) {
        assert.equal(port.queueStats(queue), undefined);
        await fails(rig, 'EINVAL', () => port.rxQueueCount(queue));
        await fails(rig, 'EINVAL', () => port.txDescriptorStatus(queue, 0));
      }
      assert.equal(port.stats().ipackets, 0);
      await fails(rig, 'EBUSY', () => port.handle());
    };
    await ask();
    await port.configure({ rxQueues: 1, txQueues: 1 });
    assert.equal(port.queueStats(1), undefined);
    await port.reset();
    await ask();
  },

  async 'start and stop fifty times'(rig: Rig) {
    await rig.open();
    await rig.configure();
    const { port, handles } = rig;
    const rx = port.rxQueue(0);
    const tx = port.txQueue(0);
    for (let cycle = 0; cycle < CYCLES; cycle++) {
      await port.start();
      assert.equal(port.state, 'started');
      rig.take(rx, 32);
      rig.setHandle(0, rig.mbuf(rig.frame(SMALLEST, cycle)));
      if (tx.burst(handles, 1) === 0) rig.mbufs.free(rig.handle(0));
      rig.take(rx, 32);
      await port.stop();
      assert.equal(port.state, 'configured');
      assert.equal(rx.burst(handles, 32), 0);
    }
    await port.start();
  },

  async 'configured anew with other numbers of queues, and reset'(rig: Rig) {
    await rig.open();
    const { maxRxQueues, maxTxQueues } = rig.port.info();
    for (const queues of [1, Math.min(4, maxRxQueues, maxTxQueues), 2, 1]) {
      if (queues > Math.min(maxRxQueues, maxTxQueues)) continue;
      await rig.start({ rxQueues: queues, txQueues: queues });
      assert.equal(rig.port.handle().rx.length, queues);
      for (let queue = 0; queue < queues; queue++) rig.take(rig.port.rxQueue(queue), 32);
      await rig.port.stop();
    }
    await rig.port.reset();
    assert.equal(rig.port.state, 'probed');
    assert.equal(rig.port.config, undefined);
    await rig.start();
  },

  async MTU(rig: Rig) {
    await rig.open();
    const { port } = rig;
    const { minMtu, maxMtu } = port.info();
    await fails(rig, 'EINVAL', () => port.setMtu(minMtu - 1));
    await fails(rig, 'EINVAL', () => port.setMtu(maxMtu + 1));
    await fails(rig, 'EINVAL', () => port.setMtu(1400.5));
    const other = port.mtu === 1400 ? 1300 : 1400;
    await port.setMtu(other);
    assert.equal(port.mtu, other);
    await rig.configure({ mtu: 1500 });
    assert.equal(port.mtu, 1500);
    await port.start();
    await fails(rig, 'EBUSY', () => port.setMtu(other));
    assert.equal(port.mtu, 1500);
  },

  async 'promiscuous and all-multicast'(rig: Rig) {
    await rig.open();
    const { port } = rig;
    await rig.configure();
    await port.setPromiscuous(true);
    await port.start();
    await port.setAllMulticast(true);
    assert.deepEqual(port.filter, { promiscuous: true, allMulticast: true });
    await port.setPromiscuous(false);
    assert.deepEqual(port.filter, { promiscuous: false, allMulticast: true });
    await port.stop();
    await port.start();
    assert.deepEqual(port.filter, { promiscuous: false, allMulticast: true });
    await port.stop();
    await port.reset();
    assert.deepEqual(port.filter, { promiscuous: false, allMulticast: false });
  },

  async 'MAC address'(rig: Rig) {
    await rig.open();
    const { port } = rig;
    await fails(rig, 'EINVAL', () => port.setMac('01:00:5e:00:00:01'));
    await fails(rig, 'EINVAL', () => port.setMac('02:00'));
    await fails(rig, 'EINVAL', () => port.setMac('nonsense'));
    const before = port.mac;
    await port.setMac('02:11:22:33:44:55');
    assert.equal(port.mac, '02:11:22:33:44:55');
    await port.setMac(before);
    assert.equal(port.mac, before);
  },

  async 'the link can be set'(rig: Rig) {
    await rig.open();
    const { port } = rig;
    const events: LinkStatus[] = [];
    port.on('link', (link) => events.push(link));
    await rig.start();
    await rig.linkUp();
    await port.setLink(false);
    await rig.until(
      () => !port.link().up,
      () => 'the link does not go down',
    );
    await port.setLink(true);
    await rig.linkUp();
    if (!port.info().linkEvents) return;
    const seen = () => events.map(({ up }) => up).join();
    await rig.until(
      () => seen().endsWith('false,true'),
      () => `link events: ${seen()}`,
    );
  },

  async 'names of extended statistics'(rig: Rig) {
    await rig.open();
    await rig.start();
    const names = rig.port.xstats().map(([name]) => name);
    assert.equal(new Set(names).size, names.length, 'a name twice');
    assert.deepEqual(names.slice(0, 8), [
      ...['rx_good_packets', 'tx_good_packets', 'rx_good_bytes', 'tx_good_bytes'],
      ...['rx_missed_errors', 'rx_errors', 'tx_errors', 'rx_mbuf_allocation_errors'],
    ]);
    for (const [name, value] of rig.port.xstats()) {
      assert.match(name, /^[a-z][a-zA-Z0-9_ ]*$/);
      assert.ok(Number.isSafeInteger(value) && value >= 0, `${name} is ${value}`);
    }
  },

  async 'a closed port gives back memory'(rig: Rig) {
    const words = Rig.words();
    const empty = await (rig.target.empty ?? initEal)(words);
    const list = (eal: Eal) => eal.arena.regions().map(({ name, bytes }) => `${name}: ${bytes}`);
    const before = list(empty);
    await empty.close();
    await rig.open();
    await rig.start({ rxQueues: 1, txQueues: 1 });
    await rig.send([rig.frame(SMALLEST, 1)]);
    rig.take(rig.port.rxQueue(0), 32);
    for (const { state } of rig.eal.ports) assert.notEqual(state, 'closed');
    // A port around another one gives that one free.
    const next = () => rig.eal.ports.findLast(({ state }) => state !== 'closed');
    for (let port = next(); port !== undefined; port = next()) await port.close();
    // Pools lie in packet memory; their stacks go with the environment.
    const left = list(rig.eal).filter((line) => !/ pool: \d+$/.test(line));
    assert.deepEqual(left, before);
  },

  async 'descriptors are closed'(rig: Rig) {
    const open = () => readdirSync('/proc/self/fd').length;
    const once = async () => {
      await rig.open();
      await rig.start();
      await rig.send([rig.frame(SMALLEST, 1)]);
      await rig.close();
    };
    await once(); // what is opened once for the process
    const before = open();
    await once();
    await once();
    assert.equal(open(), before);
  },
};
