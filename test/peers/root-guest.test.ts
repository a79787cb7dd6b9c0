// Our driver on `--root /`: sysfs and /dev/uioN as a kernel has them, by the preload shim, and the very code that would run
// on Hyper-V. The other guest and the host know nothing of it.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { runEnvironment } from '../../src/apps/run/run.js';
import { type Line, machineName, Peer, startHost } from '../lifecycle/processes.js';
import type { Phase, RootPeerOptions } from './root-peer.js';

const SCRIPT = new URL('./root-peer.js', import.meta.url);
const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

function skip(): string | false {
  if (spawnSync('cc', ['--version']).error) return 'not installed: a C compiler';
  const free = Number(/HugePages_Free: +(\d+)/.exec(readFileSync('/proc/meminfo', 'latin1'))?.[1] ?? 0);
  return free > 0 && 'huge pages are free: the guest would take those, which the host cannot map';
}

interface Nic {
  readonly uuid: string;
  readonly mac: string;
}

async function start(
  t: TestContext,
  machine: string,
): Promise<{ host: Peer; path: string; nics: readonly [Nic, Nic] }> {
  const host = startHost(t, machine);
  const ready = (await host.line('ready')) as unknown as { path: string; nics: [Nic, Nic] };
  return { host, path: ready.path, nics: ready.nics };
}

/** A guest on the kernel's paths, which the shim turns to this machine. */
function startRooted(
  t: TestContext,
  machine: string,
  role: 'ping' | 'pong',
  options: Omit<RootPeerOptions, 'root'>,
): Peer {
  const how = { script: SCRIPT, env: runEnvironment(machine) };
  return new Peer(t, role, { root: '/', ...options }, how);
}

function startPlain(t: TestContext, path: string, role: 'ping' | 'pong', options: Omit<RootPeerOptions, 'root'>): Peer {
  return new Peer(t, role, { root: path, ...options }, { script: SCRIPT });
}

/** Nothing lost, nothing altered, at either end; large frames by page ranges. */
function checkPhases(phases: readonly Phase[], pinger: readonly Line[], ponger: readonly Line[]): void {
  const lines = pinger.filter(({ type }) => type === 'phase');
  const marks = ponger.filter(({ type }) => type === 'mark');
  assert.equal(lines.length, phases.length);
  for (const [i, { mtu, queues, frames }] of phases.entries()) {
    const line = lines[i]!;
    assert.deepEqual([line.mtu, line.queues, line.back], [mtu, queues, frames]);
    assert.equal(line.used, queues, 'every queue received');
    assert.deepEqual([line.returned, marks[i]!.received], [line.sent, line.sent], `MTU ${mtu}, ${queues} queues`);
    if (mtu > 600) assert.ok(Number(line.direct) > frames / 4, `${line.direct} of ${frames} by page ranges`);
  }
}

const PHASES: readonly Phase[] = [
  { mtu: 9000, queues: 1, frames: 2000 },
  { mtu: 1500, queues: 1, frames: 2000 },
  { mtu: 576, queues: 4, frames: 2000 },
  { mtu: 9000, queues: 4, frames: 2000 },
  { mtu: 1500, queues: 1, frames: 2000 },
];

for (const rooted of ['ping', 'pong'] as const) {
  test(`${rooted} on --root /: every byte comes back, at each MTU and number of queues, over reattaches`, {
    skip: skip(),
  }, async (t) => {
    const machine = machineName();
    const { host, path, nics } = await start(t, machine);
    const begin = (role: 'ping' | 'pong', nic: number, queues: number) => {
      const phases = role === 'ping' ? PHASES : [{ mtu: 9000, queues, frames: 0 }];
      const options = { uuid: nics[nic]!.uuid, to: nics[1 - nic]!.mac, phases };
      return role === rooted ? startRooted(t, machine, role, options) : startPlain(t, path, role, options);
    };
    const pong = begin('pong', 1, 4);
    const attached = await pong.line('attached');
    const ping = begin('ping', 0, 1);
    const { monitorId } = rooted === 'ping' ? await ping.line('attached') : attached;
    assert.equal(typeof monitorId, 'number', 'it triggers the host through the monitor page');
    const { stats } = (await ping.line('idle')) as unknown as { stats: Record<string, number> };
    checkPhases(PHASES, ping.lines, pong.lines);
    assert.deepEqual([stats.txFailed, stats.rxBadRndis, stats.failures], [0, 0, 0]);
    assert.equal(stats.attaches, PHASES.length);
    await ping.kill();
    await pong.kill();
    const { state } = (await host.end()) as unknown as { state: { nics: { deaths: number; guestPages: object }[] } };
    for (const nic of state.nics) {
      assert.equal(nic.deaths, 0);
      assert.equal((nic.guestPages as { refused: number }).refused, 0);
    }
  });
}

test('host killed, device taken away: both are said, nothing stays open, and the next one is attached to', {
  skip: skip(),
}, async (t) => {
  const machine = machineName();
  let { host, path, nics } = await start(t, machine);
  const phases = [{ mtu: 1500, queues: 2, frames: 500 }];
  const options = (nic: number) => ({ uuid: nics[nic]!.uuid, to: nics[1 - nic]!.mac, phases, again: true });
  const pong = startPlain(t, path, 'pong', options(1));
  await pong.line('attached');
  const ping = startRooted(t, machine, 'ping', options(0));
  await ping.line('idle');
  const rounds: (() => Promise<void>)[] = [
    async () => {
      await host.kill();
      await pong.line('failed', () => true, pongSeen);
      ({ host, path, nics } = await start(t, machine));
    },
    async () => {
      const driver = `${path}/sys/bus/vmbus/drivers/uio_hv_generic`;
      writeFileSync(`${driver}/unbind`, nics[0]!.uuid);
      await ping.line(
        'error',
        ({ message }) => /no uio node; uio_hv_generic is not bound/.test(String(message)),
        pingSeen,
      );
      writeFileSync(`${driver}/bind`, nics[0]!.uuid);
    },
  ];
  let pingSeen = 0;
  let pongSeen = 0;
  const left: Line[] = [];
  for (const round of rounds) {
    pingSeen = ping.lines.length;
    pongSeen = pong.lines.length;
    await round();
    const failed = await ping.line('failed', () => true, pingSeen);
    assert.match(String(failed.reason), new RegExp(`^netvsc ${nics[0]!.uuid} .*running: the host is gone`));
    assert.match(String(failed.reason), /\(\/sys\/bus\/vmbus\/devices\//, 'by the path that it knows');
    left.push(failed);
    await ping.line('idle', () => true, pingSeen);
  }
  const [first, second] = left;
  assert.deepEqual([second!.regions, second!.files], [first!.regions, first!.files]);
  const sent = ping.lines.filter(({ type }) => type === 'phase');
  assert.equal(sent.length, 3);
  for (const line of sent) assert.equal(line.returned, line.sent);
});

test('netvsc run -- netvsc guest --root /, as the command line has it, with several queues', {
  skip: skip(),
}, async (t) => {
  const machine = machineName();
  await start(t, machine);
  const words = ['guest', '--root', '/', '--queues', '3', '--generate', '10.0.0.2', '--target', '10.0.0.1'];
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [main, 'run', '--machine', machine, '--', process.execPath, main, ...words, '--seconds', '4', '--json'],
    { encoding: 'utf8', timeout: 30_000 },
  );
  assert.equal(status, 0, stderr);
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Line & { stats?: Record<string, number> });
  const attached = lines.find(({ type }) => type === 'attached') as unknown as {
    path: string;
    info: { queues: number };
  };
  assert.deepEqual([attached.path, attached.info.queues], ['/', 3]);
  const { sent, received, txFailed } = lines.at(-1)!.stats!;
  assert.ok(received! > 100, `${sent} sent, ${received} received`);
  assert.equal(txFailed, 0);
});
