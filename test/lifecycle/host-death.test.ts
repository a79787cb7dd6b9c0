// A host that is killed while traffic flows, and machines that dead hosts leave.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { after, test } from 'node:test';
import { machinePath, openRunDirectory } from '../../src/memory/rundir.js';
import { machineName, startGuest, startHost } from './processes.js';

// A run directory of its own: any other host that starts would remove what ours leave.
const runtime = mkdtempSync(`${tmpdir()}/netvsc-life-`);
process.env.XDG_RUNTIME_DIR = runtime;
after(() => rmSync(runtime, { recursive: true, force: true }));

test('host killed under traffic: the guest says so within a second, and goes on with the next host', async (t) => {
  const machine = machineName();
  const first = startHost(t, machine);
  const guest = startGuest(t, machine, { reattach: true }); // it may well come before the host
  await first.line('ready');
  await guest.line('attached');
  await guest.stats(({ received }) => received! > 200);
  const killed = performance.now();
  await first.kill();
  const gone = await guest.line('gone');
  assert.ok(performance.now() - killed < 1000, 'the guest says so within a second');
  assert.match(String(gone.reason), /^netvsc [0-9a-f-]{36} .*: the host is gone/);
  assert.ok(existsSync(machinePath(machine)), 'a killed host cannot remove its machine');

  const since = guest.lines.length;
  const second = startHost(t, machine);
  await second.line('ready');
  const { uuid } = await guest.line('attached', () => true, since);
  assert.equal(uuid, guest.lines.find(({ type }) => type === 'attached')!.uuid, 'the same device');
  await guest.stats(({ received, attaches }) => received! > 200 && attaches === 1);

  const last = await guest.end();
  assert.equal(last?.type, 'ended', JSON.stringify(last));
  const { state } = (await second.end()) as unknown as { state: { nics: { phase: string; deaths: number }[] } };
  assert.deepEqual([state.nics[0]!.phase, state.nics[0]!.deaths], ['closed', 0]);
  assert.equal(existsSync(machinePath(machine)), false, 'a host that ends removes its machine');
});

test('a guest that is not to wait ends with the reason', async (t) => {
  const machine = machineName();
  const host = startHost(t, machine);
  await host.line('ready');
  const guest = startGuest(t, machine, { nic: 1 });
  await guest.stats(({ received }) => received! > 20);
  await host.kill();
  const { message } = await guest.line('error');
  assert.match(String(message), /the host is gone/);
  await guest.kill();

  const late = startGuest(t, machine);
  assert.match(String((await late.line('error')).message), /^(vmbus|machine) /);
  const nowhere = startGuest(t, `${machine}-never`);
  assert.match(String((await nowhere.line('error')).message), /no machine at .*-never: is its host running/);
});

test('two hosts of one name: the second is refused and names the first; machines of dead hosts go at the next start', async (t) => {
  const machine = machineName();
  const other = machineName();
  const [first, bystander] = [startHost(t, machine), startHost(t, other)];
  await Promise.all([first.line('ready'), bystander.line('ready')]);
  const second = startHost(t, machine);
  const { message } = await second.line('error');
  assert.match(String(message), new RegExp(`machine ${machine}: in use by process ${first.pid} `));
  await first.kill();
  assert.ok(existsSync(machinePath(machine)));
  const empty = `${openRunDirectory()}/${machineName()}`;
  mkdirSync(empty, { mode: 0o700 });
  writeFileSync(`${empty}/lock`, '1\n', { mode: 0o600 });

  const third = startHost(t, machineName());
  await third.line('ready');
  assert.equal(existsSync(machinePath(machine)), false, 'the dead one is gone');
  assert.equal(existsSync(empty), false, 'whoever wrote a number there does not hold it');
  assert.ok(existsSync(machinePath(other)), 'the living one is not');
  await Promise.all([third.end(), bystander.end()]);
});
