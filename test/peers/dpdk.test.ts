// DPDK's own driver on our host: traffic with our guest, and its sudden end. What nobody here wrote keeps the host honest.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { startGuest } from '../lifecycle/processes.js';
import { DPDKS, MISSING_DPDK, Pmd } from './dpdk.js';
import { ECHO_IP, ECHO_MAC, startRig, until } from './rig.js';

const KILLS = 10;

for (const why of MISSING_DPDK) test("DPDK's driver on our host", { skip: why }, () => {});

const PATHS = [
  { name: '64 bytes, a million', count: 1_000_000, shortest: 64, longest: 64, cycles: 0 },
  { name: '64 to 1514 bytes, stopped and started 50 times', count: 20_000, shortest: 64, longest: 1514, cycles: 50 },
];

for (const dpdk of DPDKS) {
  for (const { name, count, shortest, longest, cycles } of PATHS) {
    test(`DPDK ${dpdk.name} and our guest on one switch: ${name}, nothing lost or altered, both count the same`, async (t) => {
      const { machine, host } = startRig(t, { nics: 2 });
      const [theirs, ours] = host.nics;
      // DPDK takes the devices in the order of their UUIDs, and passes by the one that is in use.
      const echo = startGuest(t, machine, { nic: 1, traffic: { mode: 'echo', address: '10.0.0.2' } });
      await echo.line('attached');
      const pmd = new Pmd(t, machine, dpdk);
      await pmd.ready();
      await pmd.do('configure');
      await pmd.do('start');
      const to = { mac: ours!.state().mac, source: '10.0.0.1', target: '10.0.0.2' };
      const { done, lost, altered } = await pmd.numbers('ping', { ...to, count, shortest, longest, cycles });
      assert.deepEqual([done, lost, altered], [count, 0, 0]);
      const stats = await pmd.numbers('stats');
      assert.deepEqual([stats.oerrors, stats.ierrors, stats.imissed], [0, 0, 0]);
      const { counters, guestPages, deaths } = theirs!.state();
      assert.ok(counters.txDirect! > 0 === longest > 64, 'longer ones are read from its memory');
      assert.deepEqual([deaths, guestPages.refused], [0, 0], guestPages.lastRefusal);
      // Counters of the PMD start anew with the port.
      if (cycles === 0) {
        assert.deepEqual(
          [stats.opackets, stats.obytes, stats.ipackets, stats.ibytes],
          [counters.txPackets, counters.txBytes, counters.rxPackets, counters.rxBytes],
        );
      }
      assert.ok(count <= counters.txPackets! && counters.txFailed === 0);
      assert.equal(ours!.state().deaths, 0);
      await pmd.end();
    });
  }

  test(`DPDK ${dpdk.name} killed under load ${KILLS} times: everything comes back, the next one attaches`, async (t) => {
    const { machine, arena, nic } = startRig(t);
    const held = () => ({
      descriptors: readdirSync('/proc/self/fd').length,
      regions: arena.regions().map(({ name }) => name),
      free: arena.free(),
      guests: readFileSync('/proc/self/maps', 'latin1')
        .split('\n')
        .filter((line) => line.includes('nohuge')).length,
    });
    const load = { mac: ECHO_MAC, source: '10.0.0.1', target: ECHO_IP, shortest: 64, longest: 1514 };
    const attach = async () => {
      const pmd = new Pmd(t, machine, dpdk);
      await pmd.ready();
      await pmd.do('configure');
      await pmd.do('start');
      return pmd;
    };
    let before: ReturnType<typeof held> | undefined;
    for (let i = 0; i < KILLS; i++) {
      const pmd = await attach();
      pmd.start('ping', load);
      await until(() => nic.state().counters.txPackets! > (i + 1) * 500);
      await pmd.kill();
      await until(() => nic.phase === 'closed');
      const { deaths, guestPages, receiveBuffer } = nic.state();
      assert.deepEqual([deaths, guestPages.refused], [0, 0], guestPages.lastRefusal);
      assert.deepEqual([receiveBuffer.inUse, guestPages.regions], [0, 0]);
      const now = held();
      before ??= now;
      assert.deepEqual({ ...now, descriptors: 0 }, { ...before, descriptors: 0 });
      assert.ok(now.descriptors <= before.descriptors + 2, `${before.descriptors} to ${now.descriptors} descriptors`);
    }
    const last = await attach();
    assert.equal((await last.numbers('ping', { ...load, count: 1000 })).lost, 0);
    await last.end();
  });
}
