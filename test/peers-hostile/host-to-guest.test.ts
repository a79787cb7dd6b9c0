// What a host can do wrong, one row each: the driver names it or counts it and gives back what it can, the other device
// of the process loses nothing, and the device goes on or can be attached again. All rows share one process.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { words } from '../../src/netvsc/fake-host.js';
import { ATTACH_ROWS, HOST_CONTROL_ROWS } from './host-control-rows.js';
import { HOST_DATA_ROWS } from './host-data-rows.js';
import type { AttachRow, HostRow } from './host-rows.js';
import { createTwoDevices, frame, message, type TwoDevices } from './two-devices.js';

let rig: TwoDevices;
before(async () => {
  rig = await createTwoDevices();
});
after(() => rig.close());

const ERRORS = /[bB]ad|Unknown|unexpected|mismatched|Timeouts|failures|TooBig|NoMbuf|Failed|Abandoned/;

function errors(): Record<string, number> {
  const stats = Object.entries(rig.victim.nic.device.stats());
  return Object.fromEntries(stats.filter(([name]) => ERRORS.test(name)));
}

/** What moved since then. */
function moved(before: Record<string, number>): Record<string, number> {
  const now = Object.entries(errors());
  return Object.fromEntries(
    now.flatMap(([name, value]) => (value === before[name] ? [] : [[name, value - before[name]!]])),
  );
}

/** Frames cross both ways. */
async function checkTraffic(): Promise<void> {
  const { host, victim } = rig;
  const before = errors();
  victim.received.length = 0;
  host.frames.length = 0;
  host.completed.length = 0;
  host.transfer(200, message({ data: frame(321, 9) }), 0);
  assert.equal(victim.send(3), 3);
  for (let i = 0; i < 20 && (host.frames.length < 3 || victim.received.length < 1); i++) await rig.turn();
  assert.equal(host.frames.length, 3);
  assert.deepEqual(victim.received, [frame(321, 9)]);
  await rig.turn();
  assert.deepEqual(
    host.completed.filter(({ id }) => id === 200),
    [{ id: 200, status: 1 }],
  );
  assert.equal(victim.nic.device.stats().txOutstanding, 0);
  assert.deepEqual(moved(before), {});
}

async function detach(): Promise<void> {
  const { device } = rig.victim.nic;
  await rig.run(device.detach());
  assert.equal(device.state, 'detached');
  rig.victim.checkBuffers();
}

async function attachAgain(): Promise<void> {
  const { host, bystander, victim } = rig;
  host.behave();
  await rig.run(victim.nic.device.attach());
  await checkTraffic();
  await detach();
  bystander.send(4);
  bystander.check();
}

async function run(row: HostRow): Promise<void> {
  const { host, victim, bystander } = rig;
  const { device } = victim.nic;
  await rig.run(device.detach()); // left attached when the row before failed
  host.behave();
  await rig.run(device.attach());
  const before = errors();
  victim.received.length = 0;
  victim.events.length = 0;
  host.completed.length = 0;
  bystander.send(12);
  await row.act(rig);
  bystander.send(12);
  for (let i = 0; i < 30; i++) await rig.turn();
  assert.deepEqual(moved(before), { ...row.counts, ...(row.fails ? { failures: 1, ...abandoned(before) } : {}) });
  assert.equal(host.completed.find(({ id }) => id === 99)?.status, row.completion, 'completion of the packet');
  if (row.fails) {
    assert.equal(device.state, 'failed');
    assert.match(device.failure!, row.fails);
    assert.deepEqual(victim.events.at(-1), { type: 'failed', reason: device.failure });
    await detach();
  } else {
    assert.equal(device.state, 'running', device.failure);
    assert.equal(victim.received.length, row.frames ?? 0, 'frames received');
    await checkTraffic();
    await detach();
  }
  bystander.check();
  await attachAgain();
}

/** Sends in flight when the device failed: as many as there are, but counted. */
function abandoned(before: Record<string, number>): Record<string, number> {
  const { sendsAbandoned = 0, txAbandoned = 0 } = moved(before);
  assert.ok(txAbandoned >= sendsAbandoned, 'a send is at least one packet');
  return { ...(sendsAbandoned > 0 ? { sendsAbandoned } : {}), ...(txAbandoned > 0 ? { txAbandoned } : {}) };
}

async function runAttach(row: AttachRow): Promise<void> {
  const { host, victim, bystander } = rig;
  const { device } = victim.nic;
  await rig.run(device.detach());
  host.behave();
  row.act(host);
  bystander.send(12);
  const attached = rig.run(device.attach());
  if (row.error) {
    await assert.rejects(attached, row.error);
    assert.equal(device.state, 'failed');
    assert.match(device.failure!, row.error);
    assert.match(device.failure!, /^netvsc 00000000-0000-4000-8000-000000000001 \(memory\): /);
    victim.checkBuffers();
  } else {
    await attached;
    await checkTraffic();
    await detach();
  }
  bystander.send(12);
  bystander.check();
  await attachAgain();
}

describe('data of a host', () => {
  for (const row of HOST_DATA_ROWS) test(row.name, () => run(row));
});
describe('control messages of a host', () => {
  for (const row of HOST_CONTROL_ROWS) test(row.name, () => run(row));
});
describe('answers at attach', () => {
  for (const row of ATTACH_ROWS) test(row.name, () => runAttach(row));
});

test('a host that is rescinded in the middle of traffic: told at once, the other device goes on', async () => {
  const { host, victim, bystander } = rig;
  host.behave();
  await rig.run(victim.nic.device.attach());
  host.holdSends = true;
  bystander.send(8);
  victim.send(8);
  await rig.turn();
  host.inBand(words(128, 1, 2));
  host.rescind();
  for (let i = 0; i < 5; i++) await rig.turn();
  assert.match(victim.nic.device.failure!, /the host is gone/);
  await detach();
  bystander.send(8);
  bystander.check();
});
