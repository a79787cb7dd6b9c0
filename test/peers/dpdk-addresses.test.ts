// DPDK that is not told what addresses to use, also as root, where it would take physical ones: under the shim it works all
// the same, and its packets are read from its memory.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { runEnvironment } from '../../src/apps/run/run.js';
import { machineName, Peer, startHost } from '../lifecycle/processes.js';
import { buildPmd, noDpdkBuild } from './dpdk.js';
import type { RootPeerOptions } from './root-peer.js';

const TESTPMD = '/usr/bin/dpdk-testpmd';
const EAL = ['--no-huge', '--no-pci', '--no-shconf', '--no-telemetry', '-m', '160', '-l', '0,1'];
const PATIENCE_MS = 30_000;
const noTestpmd = !existsSync(TESTPMD) && 'not installed: dpdk-dev';

async function until(what: string, done: () => boolean): Promise<void> {
  const began = performance.now();
  while (!done()) {
    assert.ok(performance.now() - began < PATIENCE_MS, what);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Starts a DPDK program and resolves once it has said `what`, to a function that gives its output. */
async function startDpdk(
  t: TestContext,
  machine: string,
  command: readonly string[],
  what: string,
): Promise<() => string> {
  const [program, ...words] = command as [string, ...string[]];
  const child = spawn(program, [...EAL, ...words], { env: runEnvironment(machine), stdio: ['ignore', 'pipe', 'pipe'] });
  t.after(async () => {
    const ended = child.exitCode === null && child.signalCode === null && once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  await until(`${program} says ${what}`, () => {
    assert.equal(child.exitCode, null, output);
    return output.includes(what);
  });
  return () => output;
}

test('dpdk-testpmd without --iova-mode finds both ports', { skip: noTestpmd }, async (t) => {
  const machine = machineName();
  const ready = await startHost(t, machine).line('ready');
  const command = [TESTPMD, '--', '--total-num-mbufs=2048', '--stats-period=1'];
  const output = await startDpdk(t, machine, command, 'Port statistics');
  for (const { mac } of ready.nics as { mac: string }[]) assert.match(output(), new RegExp(`Port \\d: ${mac}`, 'i'));
  assert.doesNotMatch(output(), /cannot be used|timed out/);
});

test('a DPDK program without --iova-mode sends back every byte, large frames by page ranges', {
  skip: noDpdkBuild(),
}, async (t) => {
  const machine = machineName();
  const host = startHost(t, machine);
  const { path: root, nics } = (await host.line('ready')) as unknown as {
    path: string;
    nics: readonly { uuid: string; mac: string }[];
  };
  const [ours, theirs] = nics;
  const bus = `${root}/sys/bus/vmbus`;
  // DPDK takes every device that it finds: ours comes after it.
  writeFileSync(`${bus}/drivers/uio_hv_generic/unbind`, ours!.uuid);
  await until('the device is unbound', () => !existsSync(`${bus}/devices/${ours!.uuid}/uio`));
  await startDpdk(t, machine, [buildPmd('test/peers/reflect.c')], 'started');
  writeFileSync(`${bus}/drivers/uio_hv_generic/bind`, ours!.uuid);
  await until('the device is bound', () => existsSync(`${bus}/devices/${ours!.uuid}/uio`));
  const phases = [{ mtu: 1500, queues: 1, frames: 5000 }];
  const options: RootPeerOptions = { root, uuid: ours!.uuid, to: theirs!.mac, phases };
  const ping = new Peer(t, 'ping', options, { script: new URL('./root-peer.js', import.meta.url) });
  const { back, sent, returned } = await ping.line('phase');
  assert.deepEqual([back, returned], [5000, sent]);
  await ping.kill();
  const { state } = (await host.end()) as unknown as { state: HostState };
  const { counters, deaths, guestPages } = state.nics[1]!;
  assert.ok(counters.txDirect! > 2000, `${counters.txDirect} of ${counters.txPackets} were read from its memory`);
  assert.deepEqual([deaths, guestPages.refused], [0, 0]);
});

interface HostState {
  readonly nics: readonly {
    readonly deaths: number;
    readonly counters: Readonly<Record<string, number>>;
    readonly guestPages: { readonly refused: number };
  }[];
}
