import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { Interrupted } from '../interrupt.js';
import { captureFile, runDemo } from './demo.js';
import { detectEnvironment, searchPath } from './environment.js';
import type { DemoOptions } from './options.js';
import { type Job, makePlan, type Plan } from './plan.js';
import { plainProgress } from './progress.js';
import type { HubFaults } from './testing-hub.js';

// Agents, phases and results without host and drivers: a hub joins the interfaces (testing-hub.ts).
const environment = detectEnvironment();
const why = environment.mode === 'replay' ? environment.missing : environment.mode;
const skip = environment.mode === 'namespaces' ? {} : { skip: why };
const workerUrl = new URL('./testing-hub.js', import.meta.url);
const options: DemoOptions = { nics: 2, profile: 'ws2019', mtu: 1500, json: true };

/** The plan with small transfers. */
function small(given: DemoOptions, mtu: number): Plan {
  const plan = makePlan(given, mtu);
  const lessen = (job: Job): Job => {
    if (job.kind === 'tcp') return { ...job, bytes: 2_000_000 };
    if (job.kind === 'udp') return { ...job, datagrams: 60 };
    return job.kind === 'ping' ? { ...job, sizes: job.sizes.map(({ bytes }) => ({ bytes, count: 2 })) } : job;
  };
  return { ...plan, phases: plan.phases.map((phase) => ({ ...phase, jobs: phase.jobs.map(lessen) })) };
}

const run = (faults: HubFaults, more: Partial<Parameters<typeof runDemo>[1]> = {}, given = options) =>
  runDemo(given, {
    environment: environment as Extract<typeof environment, { mode: 'namespaces' }>,
    ...{ workerUrl, workerMore: { faults }, plan: small },
    ...more,
  });

/** Processes of this test that are agents. */
function agents(): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const parent = /PPid:\t(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1];
      return Number(parent) === process.pid && readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('agent.js');
    } catch {
      return false;
    }
  });
}

test('three NICs: every phase runs, nothing is lost, nothing stays', skip, async () => {
  const home = readlinkSync('/proc/self/ns/net');
  const lines: string[] = [];
  const progress = plainProgress((line) => lines.push(line));
  const result = await run({}, { progress }, { ...options, nics: 3 });
  assert.deepEqual([result.problems, result.errors, result.ok], [[], [], true]);
  const phases = small({ ...options, nics: 3 }, 1500).phases.map(({ title }) => title);
  assert.deepEqual(
    result.phases.map(({ title }) => title),
    phases,
  );
  for (const title of phases)
    assert.equal(
      lines.some((line) => line.startsWith(`${title}: `)),
      true,
      title,
    );
  for (const row of result.tcp) assert.deepEqual([row.bytesSent, row.bytesReceived, row.intact], [2e6, 2e6, true]);
  assert.equal(result.nics[0]!.bitsPerSecondOut > 0 && result.nics[0]!.guest.txPackets! > 0, true);
  assert.equal(result.neighbours.length, 2 * 2 * (2 + 3));
  assert.deepEqual(agents(), []);
  assert.equal(readlinkSync('/proc/self/ns/net'), home);
});

test('an error counter that moved fails the demo although all bytes arrived', skip, async () => {
  const result = await run({ badRange: true });
  assert.deepEqual(result.problems, []);
  assert.deepEqual(
    result.errors.map(({ where, counter, count }) => [where, counter, count > 0]),
    [['nic0 guest', 'rxBadRange', true]],
  );
  assert.equal(result.ok, false);
});

test('lost packets show', skip, async () => {
  const plan = (given: DemoOptions, mtu: number) => {
    const whole = small(given, mtu);
    return { ...whole, phases: whole.phases.filter(({ title }) => title === 'UDP, IPv4') };
  };
  const result = await run({ dropEvery: 20 }, { plan });
  assert.equal(result.ok, false);
  assert.match(result.problems.join('\n'), /of 60 datagrams [1-9]\d* lost, 0 wrong/);
  assert.deepEqual(agents(), []);
});

test('a data worker that cannot start is an error, and no agent stays', skip, async () => {
  await assert.rejects(run({ failStart: true }), /data worker: the hub was told to fail/);
  assert.deepEqual(agents(), []);
});

test('a signal ends it in order', skip, async () => {
  const progress = plainProgress((line) => {
    if (line.startsWith('ping, IPv4')) process.kill(process.pid, 'SIGINT');
  });
  await assert.rejects(run({}, { progress }), (error) => error instanceof Interrupted && error.signal === 'SIGINT');
  assert.deepEqual(agents(), []);
  assert.equal(process.listenerCount('SIGINT'), 0);
});

test('replay: both ways, losses are problems', async () => {
  assert.equal(existsSync(captureFile()), true);
  const replay = { mode: 'replay', missing: 'no tun' } as const;
  const result = await run({}, { environment: replay });
  assert.deepEqual(
    result.replay.map(({ from, to }) => `${from}>${to}`),
    ['nic0>nic1', 'nic1>nic0'],
  );
  assert.equal(result.ok && result.mode === 'replay', true);
  assert.match(result.notes[0]!, /no tun/);
  assert.equal((await run({ dropEvery: 5 }, { environment: replay })).ok, false);
});

test('the search path gets system folders once', () => {
  assert.equal(searchPath('/bin:/usr/sbin'), '/bin:/usr/sbin:/sbin:/usr/local/sbin');
  assert.equal(searchPath(searchPath('')), searchPath(''));
});
