// netvsc run: programs of all kinds see the machine's devices at the kernel's paths.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { machineName, startHost } from '../lifecycle/processes.js';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

function runOn(machine: string, ...command: string[]) {
  const words = [main, 'run', '--machine', machine, '--', ...command];
  return spawnSync(process.execPath, words, { encoding: 'utf8', timeout: 20_000 });
}

const compiler = spawnSync('cc', ['--version']).error ? 'not installed: a C compiler' : false;

test('paths, exit codes, signals; a node is opened once by one process', { skip: compiler }, async (t) => {
  const machine = machineName();
  const host = startHost(t, machine);
  const { nics } = (await host.line('ready')) as unknown as { nics: { uuid: string }[] };
  const device = `/sys/bus/vmbus/devices/${nics[0]!.uuid}`;
  const listed = runOn(machine, 'ls', '/sys/bus/vmbus/devices');
  assert.deepEqual(listed.stdout.trim().split('\n').sort(), nics.map(({ uuid }) => uuid).sort());
  assert.equal(runOn(machine, 'cat', `${device}/id`).stdout, '1\n');
  assert.equal(runOn(machine, 'realpath', device).stdout, `${device}\n`);
  assert.equal(runOn(machine, 'test', '-r', `${device}/channels/1/ring`).status, 0);
  assert.equal(runOn(machine, 'sh', '-c', 'exit 7').status, 7);
  assert.equal(runOn(machine, 'sh', '-c', 'kill -TERM $$').status, 143);
  const none = runOn(machine, '/no/such/program');
  assert.deepEqual([none.status, none.stderr], [127, 'netvsc run: /no/such/program: not found\n']);
  // Twice in one process: the channel is shared. Again from another one, which finds it free.
  for (let i = 0; i < 2; i++) {
    const twice = runOn(machine, 'sh', '-c', 'exec 3<>/dev/uio0 4<>/dev/uio0; echo open');
    assert.deepEqual([twice.stdout, twice.stderr], ['open\n', '']);
  }
  // The inner shell does not have the descriptor: to the host it is somebody else.
  const busy = runOn(machine, 'sh', '-c', "exec 3<>/dev/uio0; sh -c 'exec 5<>/dev/uio0' 3<&-");
  assert.notEqual(busy.status, 0);
  assert.match(busy.stderr, /^netvsc run: cannot open \/dev\/uio0: another process has the channel open/m);
  await host.end();
});

test('no machine of that name', () => {
  const { status, stderr } = runOn('no-such-machine', 'true');
  assert.equal(status, 1);
  assert.match(stderr, /^netvsc: no machine at .*no-such-machine: is its host running/);
});
