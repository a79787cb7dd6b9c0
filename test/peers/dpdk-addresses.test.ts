// DPDK that is not told what addresses to use, as root, where it would take physical ones if it could: under the shim it
// works all the same.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { machineName, startGuest, startHost } from '../lifecycle/processes.js';
import { buildPmd, EAL_DEFAULT, noDpdk, noDpdkBuild, Program, pmdResult, TESTPMD } from './dpdk.js';

test('dpdk-testpmd without --iova-mode finds both ports', { skip: noDpdk() }, async (t) => {
  const machine = machineName();
  const ready = await startHost(t, machine).line('ready');
  const nics = ready.nics as { mac: string }[];
  const command = [TESTPMD, '--', '--total-num-mbufs=2048', '--stats-period=1'];
  const testpmd = new Program(t, machine, command, '0,1', EAL_DEFAULT);
  await testpmd.said(/Port statistics/);
  for (const { mac } of nics) assert.match(testpmd.output, new RegExp(`Port \\d: ${mac}`, 'i'));
  assert.doesNotMatch(testpmd.output, /cannot be used|failed|timed out/i);
});

test('packets by page ranges arrive unchanged without --iova-mode', { skip: noDpdkBuild() }, async (t) => {
  const machine = machineName();
  const host = startHost(t, machine);
  const nics = (await host.line('ready')).nics as { mac: string }[];
  const echo = startGuest(t, machine, { nic: 1, traffic: { mode: 'echo', address: '10.0.0.3' } });
  await echo.line('attached');
  const words = [nics[1]!.mac, '10.0.0.2', '10.0.0.3', '5000', '600', '1514', '0'];
  const pmd = new Program(t, machine, [buildPmd(), '--', ...words], '0', EAL_DEFAULT);
  assert.equal(await pmd.end(), 0, pmd.output);
  const { done, lost, altered } = pmdResult(pmd);
  assert.deepEqual([done, lost, altered], [5000, 0, 0]);
  const { state } = (await host.end()) as unknown as { state: HostState };
  const [theirs] = state.nics;
  assert.equal(theirs!.counters.txDirect, 5000, 'all of them were read from its memory');
  assert.deepEqual([theirs!.deaths, theirs!.guestPages.refused], [0, 0]);
});

interface HostState {
  readonly nics: readonly {
    readonly deaths: number;
    readonly counters: Readonly<Record<string, number>>;
    readonly guestPages: { readonly refused: number };
  }[];
}
