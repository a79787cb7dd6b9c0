// Which devices of a machine become ports: all, those of an allow list, all but those of a block list.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { packageRoot } from '../../src/apps/package-info.js';
import { initEal } from '../../src/drivers/platform.js';
import { type HostThread, startEal, startHost } from './rig.js';

const main = path.join(packageRoot(), 'dist/src/cli/main.js');

async function machine(t: TestContext): Promise<HostThread & { sorted: string[] }> {
  const host = await startHost(t, { nics: [{}, {}, {}] });
  return Object.assign(host, { sorted: [...host.uuids].sort() });
}

async function probed(host: HostThread, ...words: string[]): Promise<{ devices: string[]; lines: string[] }> {
  const eal = await startEal(host, ...words);
  const devices = eal.ports.map(({ device }) => device);
  await eal.close();
  return { devices, lines: eal.lines };
}

async function refused(host: HostThread, words: readonly string[], message: RegExp): Promise<void> {
  await assert.rejects(initEal(['--machine', host.machine, ...words], { log: () => {} }), (error: Error) => {
    assert.equal(error.name, 'PortError', error.stack);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });
  for (let tries = 0; ; tries++) {
    const { nics } = await host.state();
    if (nics.every(({ phase }) => phase === 'closed')) return;
    assert.ok(tries < 1000, 'a device stayed open');
  }
}

test('all devices, in the order of their UUIDs; allowed ones, however they are written; all but blocked ones', async (t) => {
  const host = await machine(t);
  const [first, second, third] = host.sorted as [string, string, string];
  assert.deepEqual((await probed(host)).devices, host.sorted);
  assert.deepEqual((await probed(host, '-a', `vmbus:{${third.toUpperCase()}}`, '-a', first)).devices, [first, third]);
  assert.deepEqual((await probed(host, '-b', second.toUpperCase(), '-b', `vmbus:${first}`)).devices, [third]);
  assert.deepEqual((await probed(host, '-b', first, '-b', second, '-b', third)).devices, []);
});

test('device arguments go to the device that they are written behind', async (t) => {
  const host = await machine(t);
  const [first, second] = host.sorted as [string, string];
  const { devices, lines } = await probed(host, '-a', `${second},latency=7000`, '-a', first);
  assert.deepEqual(devices, [first, second]);
  assert.deepEqual(lines, [`${second}: latency=7000 is ignored: expected at most 6553 us, the host's own stays`]);
});

test('what cannot be probed is one clear line, and the devices before it are given back', async (t) => {
  const host = await machine(t);
  const [first, second] = host.sorted as [string, string];
  const absent = '00000000-0000-0000-0000-000000000001';
  await refused(host, ['-a', first, '-a', absent], new RegExp(`-a ${absent}: no such device, there is ${first}, `));
  await refused(host, ['-a', first, '-a', `${second},bogus=1`], /bogus: unknown argument, expected latency/);
  await refused(host, ['--vdev', 'net_bogus0'], /net_bogus0: no driver for it/);
});

test('a device that the kernel has is left alone; to ask for it is an error that says what to do', async (t) => {
  const host = await machine(t);
  const [first, ...others] = host.sorted as [string, ...string[]];
  const { status, stderr } = spawnSync(
    process.execPath,
    [main, 'devbind', 'set-override', '--root', host.path, first, 'hv_netvsc'],
    { encoding: 'utf8' },
  );
  assert.equal(status, 0, stderr);
  assert.deepEqual(await probed(host), { devices: others, lines: [] });
  await assert.rejects(
    initEal(['--root', host.path, '-a', first]),
    new RegExp(
      `-a ${first}: hv_netvsc has it: bind it first \\(netvsc devbind set-override ${first} uio_hv_generic\\)`,
    ),
  );
});

test('a device that cannot be read is said, and costs only itself', async (t) => {
  const host = await machine(t);
  const broken = path.join(host.path, 'sys/bus/vmbus/devices/broken');
  mkdirSync(broken);
  t.after(() => rmSync(broken, { recursive: true, force: true }));
  writeFileSync(path.join(broken, 'class_id'), 'nonsense\n');
  const { devices, lines } = await probed(host);
  assert.deepEqual(devices, host.sorted);
  assert.equal(lines.length, 1);
  assert.match(lines[0]!, /skipped: .*broken\/class_id/);
});
