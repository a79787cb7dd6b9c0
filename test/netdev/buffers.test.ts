// An interface in this process: every buffer comes back, whatever happens to it.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { initEal } from '../../src/drivers/platform.js';
import { packetMegabytes } from '../../src/netdev/buffers.js';
import { Coupling } from '../../src/netdev/coupling.js';
import { bringUp, HostProcess, Place, skipReason, talk } from './rig.js';

const QUEUES = 2;
const LATE_MS = 20_000;

test('after traffic, changes and a dead host no buffer is missing', { skip: skipReason() }, async (t) => {
  const host = await HostProcess.start(t);
  const [here, there] = [new Place(t, 1), new Place(t, 2)];
  const lines: string[] = [];
  const log = (line: string) => void lines.push(line);
  const words = ['--machine', host.machine, '-a', host.nics[0]!.uuid, '-m', `${packetMegabytes(QUEUES)}`];
  const eal = await initEal(words, { log, threads: 2, tickMs: 10 });
  t.after(() => eal.close());
  const options = { name: 'hv0', network: here.path, queues: QUEUES, cpus: 2, wait: true, log };
  const coupling = await Coupling.open(eal, eal.ports[0]!, options);
  t.after(() => coupling.close());
  await here.address2();
  await bringUp(there, host, 1);
  const { small, large } = coupling.buffers;
  const missing = () => [small.count - small.available, large.count - large.available];
  const back = async (when: string) => {
    const end = performance.now() + LATE_MS;
    while (missing().some((count) => count !== 0) && performance.now() < end) await sleep(20);
    assert.deepEqual(missing(), [0, 0], `small and large buffers that are missing ${when}`);
  };

  for (const gro of [true, false]) {
    await coupling.setFeatures({ 'rx-gro': gro, 'rx-lro': gro });
    const traffic = Promise.all([talk(here, there, there.address, 20, 100), talk(there, here, here.address6, 20, 100)]);
    for (const queues of [3, 1, 2]) await coupling.setQueues(queues);
    for (const { equal, damaged } of await traffic) assert.deepEqual([equal, damaged], [true, 0]);
    await back(`after traffic with GRO ${gro ? 'on' : 'off'}`);
  }
  // Packets on their way when the interface goes down, and when the host dies.
  const flood = () => here.attempt('ping', '-f', '-w', '1', '-s', '9000', there.address);
  const first = flood();
  await sleep(300);
  await there.ip('link set hv0 down');
  await first;
  await back('after the other side went down');
  await there.ip('link set hv0 up');
  const second = flood();
  await sleep(300);
  await host.kill();
  await second;
  await here.untilLink('no carrier', ({ operstate }) => operstate === 'DOWN');
  await host.restart();
  await here.untilLink('a carrier', ({ operstate }) => operstate === 'UP');
  await back('after the host died');
  assert.ok(
    lines.some((line) => /the device is back/.test(line)),
    lines.join('\n'),
  );
});
