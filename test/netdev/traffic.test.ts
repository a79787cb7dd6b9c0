// Two interfaces of ours in two namespaces, through one host: the kernel's own stacks talk over them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HostProcess, skipReason, talk, twoPlaces } from './rig.js';

const skip = skipReason();

test('ping of every size, TCP and UDP, both families, MTU 1500 and 9000', { skip }, async (t) => {
  const host = await HostProcess.start(t);
  const [here, there] = await twoPlaces(t, host);
  assert.equal((await here.link()).address, host.nics[0]!.mac);
  assert.equal((await there.link()).address, host.nics[1]!.mac);
  for (const mtu of [1500, 9000]) {
    for (const place of [here, there]) {
      await place.ip(`link set hv0 mtu ${mtu}`);
      const control = await place.control(t);
      await place.until(`MTU ${mtu}`, async () => {
        const counters = new Map(await control.statistics());
        return mtu === 1500 || counters.get('last_change_gap_us')! > 0;
      });
    }
    for (const target of [there.address, there.address6]) {
      for (const bytes of [0, 56, 1472, 1473, 8972, 20_000])
        assert.ok((await here.ping(target, bytes)) >= 3, `${bytes} bytes to ${target}, MTU ${mtu}`);
      assert.deepEqual(await talk(here, there, target, 20, 200), { equal: true, answered: 200, damaged: 0 });
    }
  }
});

test('every feature off and on, on both sides: nothing is damaged', { skip }, async (t) => {
  const host = await HostProcess.start(t);
  const [here, there] = await twoPlaces(t, host);
  const controls = [await here.control(t), await there.control(t)];
  const all = (await controls[0]!.features()).filter(({ fixed }) => !fixed).map(({ name }) => name);
  assert.ok(all.includes('rx-lro') && all.includes('tx-tcp-segmentation') && all.includes('rx-gro'), all.join(' '));
  const off = Object.fromEntries(all.map((name) => [name, false]));
  for (const wanted of [off, { 'rx-checksum': true }, { 'tx-checksum-ipv4': true, 'tx-checksum-ipv6': true }]) {
    for (const control of controls) await control.setFeatures(wanted);
    assert.deepEqual(await talk(here, there, there.address, 4, 50), { equal: true, answered: 50, damaged: 0 });
    assert.deepEqual(await talk(there, here, here.address6, 4, 50), { equal: true, answered: 50, damaged: 0 });
  }
  const states = new Map((await controls[0]!.features()).map((state) => [state.name, state]));
  assert.equal(states.get('tx-tcp-segmentation')!.on, false);
  assert.equal(states.get('tx-checksum-ipv4')!.on, true);
  await assert.rejects(controls[0]!.setFeatures({ loopback: true }), /hv0: feature loopback: it is fixed off/);
  await assert.rejects(controls[0]!.setFeatures({ nonsense: true }), /nonsense: there is no such feature/);
});

test('channels, sections, MTU and coalescing change under traffic: all of it arrives', { skip }, async (t) => {
  const host = await HostProcess.start(t);
  const [here, there] = await twoPlaces(t, host);
  const controls = [await here.control(t), await there.control(t)];
  const key = Array.from({ length: 40 }, (_, i) => (i * 37 + 11) & 255);
  const { table } = await controls[0]!.rss();
  const mine = table.map((_, i) => (i % 3 === 0 ? 1 : 0));
  await controls[0]!.setRss({ key, table: mine });
  const before = new Map(await controls[0]!.statistics());
  let over = false;
  const traffic = talk(here, there, there.address, 150, 0).finally(() => {
    over = true;
  });
  let rounds = 0;
  for (const channels of [4, 3, 2, 5, 2]) {
    for (const control of controls) await control.setChannels(channels);
    await controls[1]!.setRings({ rx: 2000 + channels });
    await controls[0]!.setFeatures({ 'rx-lro': channels % 2 === 0 });
    await there.ip(`link set hv0 mtu ${1400 + channels}`);
    if (!over) rounds++;
  }
  assert.equal((await traffic).equal, true);
  assert.ok(rounds > 0, 'the traffic was over before anything changed');
  const { key: keyNow, table: tableNow } = await controls[0]!.rss();
  assert.deepEqual(keyNow, key);
  assert.deepEqual(tableNow, mine);
  assert.equal((await controls[0]!.channels()).combined, 2);
  assert.equal((await controls[1]!.rings()).rx, 2002);
  assert.equal((await there.link()).mtu, 1402);
  // Counters go on.
  const after = new Map(await controls[0]!.statistics());
  const sent = (counters: Map<string, number>) =>
    [...counters].reduce((sum, [name, value]) => (/^tx_queue_\d+_bytes$/.test(name) ? sum + value : sum), 0);
  assert.ok(sent(after) - sent(before) >= 150 << 20, `${sent(before)} bytes before, ${sent(after)} after`);
  await assert.rejects(controls[0]!.setChannels(1), /the indirection table uses queue 1/);
  await assert.rejects(controls[0]!.setChannels(65), /channels: expected 1 to 64, got 65/);
  assert.equal((await controls[0]!.channels()).combined, 2);
});
