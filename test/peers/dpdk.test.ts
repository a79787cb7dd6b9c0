// DPDK's own driver, as Debian packages it, on our host: what nobody here wrote keeps the host honest.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { createDatapath } from '../../src/datapath/datapath.js';
import { PollLoop } from '../../src/ethdev/loop.js';
import { Host } from '../../src/host/host.js';
import { openUplink, parseUplink } from '../../src/host/uplinks/index.js';
import { Arena } from '../../src/memory/arena.js';
import { linuxSystem } from '../../src/memory/os/mman.js';
import { machineName, startGuest } from '../lifecycle/processes.js';
import { buildPmd, noDpdk, noDpdkBuild, Program, pmdResult, TESTPMD } from './dpdk.js';

const KILLS = 10;
const ECHO_MAC = '02:00:00:ec:00:09';
/** Lines of a log that tell of something that failed. */
const BAD = /error|fail|cannot|invalid|unsupported|unknown|EAL: .*not found/i;
/** What every testpmd says, "errors" being the name of a counter. */
const HARMLESS = /(rx|tx)\w*_errors|[RT]X-errors|_errors:|Device error handling mode/;

function startHost(t: TestContext, machine: string, nics: number) {
  const arena = Arena.create({ bytes: (256 + nics * 256) << 20, system: linuxSystem });
  const datapath = createDatapath(arena.memory);
  const host = Host.create({
    ...{ arena, datapath, machine, profile: 'ws2019', nics: Array.from({ length: nics }, () => ({})) },
    uplinks: [(context) => openUplink(parseUplink(`echo:10.0.0.9,${ECHO_MAC}`), context)],
  });
  const loop = new PollLoop();
  loop.add(host);
  loop.start();
  t.after(async () => {
    await loop.stop();
    loop.close();
    host.close();
  });
  return { arena, host };
}

test('dpdk-testpmd starts, shows its ports and counters, stops and starts them; no error in its log', {
  skip: noDpdk(),
}, async (t) => {
  const machine = machineName();
  const { host } = startHost(t, machine, 2);
  const commands = path.join(tmpdir(), `${machine}-commands`);
  t.after(() => rmSync(commands, { force: true }));
  const restart = ['port stop all', 'port start all'];
  const show = ['show port info all', 'show port xstats all', 'quit'];
  writeFileSync(commands, `${[...restart, ...restart, ...show].join('\n')}\n`);
  const words = ['-i', '--total-num-mbufs=2048', `--cmdline-file=${commands}`];
  const testpmd = new Program(t, machine, [TESTPMD, '--', ...words], '0,1');
  assert.equal(await testpmd.end(), 0, testpmd.output);
  const { output } = testpmd;
  for (const nic of host.state().nics) assert.match(output, new RegExp(`MAC address: ${nic.mac}`, 'i'));
  assert.match(output, /Driver name: net_netvsc/);
  assert.match(output, /Link status: up/);
  assert.match(output, /Link speed: 10 Gbps/);
  assert.match(output, /MTU: 1500/);
  assert.match(output, /NIC extended statistics for port 1/);
  const bad = output.split('\n').filter((line) => BAD.test(line) && !HARMLESS.test(line));
  assert.deepEqual(bad, []);
  for (const { deaths, opens } of host.state().nics) assert.deepEqual([deaths, opens], [0, 1]);
});

const PATHS: readonly [string, readonly string[]][] = [
  ['64 bytes', ['100000', '64', '64', '0']],
  ['64 to 1514 bytes, stopped and started 50 times', ['20000', '64', '1514', '50']],
];

for (const [name, words] of PATHS) {
  test(`DPDK's guest and ours on one switch: ${name}, nothing lost or altered, both count the same`, {
    skip: noDpdkBuild(),
  }, async (t) => {
    const machine = machineName();
    const { host } = startHost(t, machine, 2);
    const [theirs, ours] = host.nics;
    // DPDK takes the devices in the order of their UUIDs, and passes by the one that is in use.
    const echo = startGuest(t, machine, { nic: 1, traffic: { mode: 'echo', address: '10.0.0.2' } });
    await echo.line('attached');
    const pmd = new Program(
      t,
      machine,
      [buildPmd(), '--', host.state().nics[1]!.mac, '10.0.0.1', '10.0.0.2', ...words],
      '0',
    );
    assert.equal(await pmd.end(), 0, pmd.output);
    const result = pmdResult(pmd);
    const count = Number(words[0]);
    assert.deepEqual([result.done, result.lost, result.altered], [count, 0, 0]);
    assert.deepEqual([result.oerrors, result.ierrors, result.imissed], [0, 0, 0]);
    const { counters, guestPages, deaths } = theirs!.state();
    assert.ok(counters.txDirect! > 0 === (words[2] !== '64'), 'longer ones are read from its memory');
    assert.deepEqual([deaths, guestPages.refused], [0, 0], guestPages.lastRefusal);
    // Counters of the PMD start anew with the port.
    if (words[3] === '0') {
      assert.deepEqual(
        [result.opackets, result.obytes, result.ipackets, result.ibytes],
        [counters.txPackets, counters.txBytes, counters.rxPackets, counters.rxBytes],
      );
    }
    assert.ok(count <= counters.txPackets! && counters.txFailed === 0);
    assert.equal(ours!.state().deaths, 0);
  });
}

test(`DPDK's process killed under load ${KILLS} times: everything comes back, the next one attaches`, {
  skip: noDpdkBuild(),
}, async (t) => {
  const machine = machineName();
  const { arena, host } = startHost(t, machine, 1);
  const nic = host.nics[0]!;
  const held = () => ({
    descriptors: readdirSync('/proc/self/fd').length,
    regions: arena.regions().map(({ name }) => name),
    free: arena.free(),
    guests: readFileSync('/proc/self/maps', 'latin1')
      .split('\n')
      .filter((line) => line.includes('nohuge')).length,
  });
  const load = (count: string) => [buildPmd(), '--', ...[ECHO_MAC, '10.0.0.1', '10.0.0.9', count, '64', '1514', '0']];
  let before: ReturnType<typeof held> | undefined;
  for (let i = 0; i < KILLS; i++) {
    const pmd = new Program(t, machine, load('0'), '0');
    await pmd.said(/"started"/);
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
  const last = new Program(t, machine, load('1000'), '0');
  assert.equal(await last.end(), 0, last.output);
  assert.equal(pmdResult(last).lost, 0);
});

async function until(done: () => boolean): Promise<void> {
  const began = performance.now();
  while (!done()) {
    assert.ok(performance.now() - began < 30_000, 'it never came to that');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
