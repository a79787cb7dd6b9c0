// dpdk-testpmd itself, as Debian packages it, on our host.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DPDKS, MISSING_DPDK, Program } from './dpdk.js';
import { startRig } from './rig.js';

/** Lines of a log that tell of something that failed. */
const BAD = /error|fail|cannot|invalid|unsupported|unknown|EAL: .*not found/i;
/** What every testpmd says, "errors" being the name of a counter. */
const HARMLESS = /(rx|tx)\w*_errors|[RT]X-errors|_errors:|Device error handling mode/;

const badLines = (output: string) => output.split('\n').filter((line) => BAD.test(line) && !HARMLESS.test(line));

for (const why of MISSING_DPDK) test('dpdk-testpmd on our host', { skip: why }, () => {});

for (const dpdk of DPDKS) {
  test(`dpdk-testpmd ${dpdk.name} starts, shows its ports and counters, stops and starts them; no error in its log`, async (t) => {
    const { machine, host } = startRig(t, { nics: 2 });
    const testpmd = new Program(t, machine, dpdk, dpdk.testpmd, '0,1', ['-i', '--total-num-mbufs=2048']);
    await testpmd.said(/testpmd>/);
    for (let i = 0; i < 2; i++) for (const line of ['port stop all', 'port start all']) testpmd.type(line);
    for (const line of ['show port info all', 'show port xstats all', 'quit']) testpmd.type(line);
    assert.equal(await testpmd.end(), 0, testpmd.output);
    const { output } = testpmd;
    for (const nic of host.state().nics) assert.match(output, new RegExp(`MAC address: ${nic.mac}`, 'i'));
    assert.match(output, /Driver name: net_netvsc/);
    assert.match(output, /Link status: up/);
    assert.match(output, /Link speed: 10 Gbps/);
    assert.match(output, /MTU: 1500/);
    assert.match(output, /NIC extended statistics for port 1/);
    assert.deepEqual(badLines(output), []);
    for (const { deaths, opens } of host.state().nics) assert.deepEqual([deaths, opens], [0, 1]);
  });
}
