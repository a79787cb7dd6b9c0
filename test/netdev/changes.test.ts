// What changes under an interface while packets are on their way: none of those that were accepted is lost, and what the host refuses
// leaves everything as it was.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RemoteNetdev } from '../../src/netdev/control-client.js';
import { HostProcess, skipReason, talk, twoPlaces } from './rig.js';

const skip = skipReason();
const counters = async (control: RemoteNetdev) => new Map(await control.statistics());

test('a larger MTU is there for the first packet that needs it; a refused one lets go of what waited', {
  skip,
}, async (t) => {
  const host = await HostProcess.start(t);
  const [here, there] = await twoPlaces(t, host, '--queues', '2');
  const control = await here.control(t);
  await there.ip('link set hv0 mtu 9000');
  await there.until(
    'the peer has it',
    async () => (await counters(await there.control(t))).get('last_change_gap_us')! > 0,
  );
  assert.ok((await here.ping(there.address)) >= 3);
  const ping = (bytes: number, seconds: number) =>
    `ping -n -M do -c 5 -i 0.02 -W ${seconds} -s ${bytes} ${there.address}`;
  // Each a new attach, as none before was that large.
  for (const mtu of [3000, 5000, 7000, 9000]) {
    const said = await here.run('sh', '-c', `ip link set hv0 mtu ${mtu} && ${ping(mtu - 28, 20)}`);
    assert.match(said, /5 packets transmitted, 5 received/, `MTU ${mtu}`);
    await here.ip('link set hv0 mtu 1500');
    await here.until('1500 again', async () => (await here.attempt('sh', '-c', ping(1472, 5))).code === 0);
  }
  assert.equal((await counters(control)).get('tx_too_big'), 0);

  const refused = await here.attempt('sh', '-c', `ip link set hv0 mtu 20000 && ${ping(15_000, 1)}`);
  assert.match(refused.said, / 0 received/);
  await here.untilLink('the old MTU', ({ mtu }) => mtu === 1500);
  assert.ok((await here.ping(there.address, 1472)) >= 3);
  assert.ok((await counters(control)).get('tx_too_big')! > 0);
  assert.match(here.up!.said, /MTU: the host refused 20000, it gave 1500; it stays 1500/);
});

/** Packets that a queue pair hands over at once. */
const BURST = 64;

test('the host takes large sends back: those that wait already are cut here, and arrive', { skip }, async (t) => {
  const host = await HostProcess.start(t);
  const [here, there] = await twoPlaces(t, host);
  const control = await here.control(t);
  let over = false;
  const traffic = talk(here, there, there.address, 150, 0).finally(() => {
    over = true;
  });
  await here.until('large sends', async () => over || (await counters(control)).get('tx_tso')! > 50);
  await host.ask({ do: 'no-lso', nic: 0 });
  assert.equal(over, false, 'the traffic was over before');
  assert.equal((await traffic).equal, true);
  const after = await counters(control);
  const cut = ['tx_cut', 'tx_cut_segments', 'tx_cut_failed', 'tx_too_big'].map((name) => after.get(name)!);
  t.diagnostic(`cut ${cut[0]} into ${cut[1]}`);
  assert.equal(cut[2], 0);
  // A burst that was handed to the driver at that very moment is not cut any more: dropped, counted, sent again by TCP.
  assert.ok(cut[3]! <= BURST, `${cut[3]} too large for the device`);
  const states = new Map((await control.features()).map((state) => [state.name, state]));
  assert.equal(states.get('tx-tcp-segmentation')!.on, false);
  assert.deepEqual(await talk(here, there, there.address6, 4, 50), { equal: true, answered: 50, damaged: 0 });
});

test('the host refuses other channels and sections: everything is as before, and packets go on', {
  skip,
}, async (t) => {
  const host = await HostProcess.start(t);
  const [here, there] = await twoPlaces(t, host, '--queues', '2');
  const control = await here.control(t);
  const key = Array.from({ length: 40 }, (_, i) => (i * 37 + 11) & 255);
  const { table } = await control.rss();
  await control.setRss({ key, table: table.map((_, i) => (i % 3 === 0 ? 1 : 0)) });
  await control.setFeatures({ 'rx-gro': false });
  await control.setFlowHash('udp4', 'L3');
  await control.setRings({ rx: 2000 });
  await here.ip('link set hv0 mtu 4000');
  await here.until('MTU 4000', async () => (await here.ping(there.address)) >= 3);
  const settings = async () => ({
    ...{ channels: await control.channels(), rings: await control.rings(), rss: await control.rss() },
    ...{ features: await control.features(), hash: await control.flowHash('udp4'), link: await control.link() },
    mtu: (await here.link()).mtu,
  });
  const before = await settings();
  const counted = await counters(control);
  const traffic = talk(here, there, there.address, 60, 0);
  const changes: (() => Promise<unknown>)[] = [
    () => control.setChannels(4),
    () => control.setRings({ rx: 1000, tx: 100 }),
  ];
  for (const change of changes) {
    await host.ask({ do: 'refuse', nic: 0, attaches: 1 });
    await assert.rejects(change(), /hv0: .*initialize/i);
    assert.deepEqual(await settings(), before);
  }
  assert.equal((await traffic).equal, true);
  const after = await counters(control);
  for (const name of ['rx_packets', 'tx_packets', 'tx_queue_0_packets'])
    assert.ok(after.get(name)! >= counted.get(name)!, name);
  assert.ok(after.get('tx_bytes')! - counted.get('tx_bytes')! >= 60 << 20);
  // What is not refused goes.
  await control.setChannels(4);
  await control.setRings({ rx: 1000, tx: 100 });
  assert.equal((await control.channels()).combined, 4);
  assert.equal((await control.rings()).rx, 1000);
  assert.ok((await here.ping(there.address)) >= 3);
});
