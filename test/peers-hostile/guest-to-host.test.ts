// What a guest can do wrong, one row each: the host names it and counts it, the other NIC's traffic loses nothing, and
// the channel can be opened anew. All rows share one host, so that a fault that leaves something behind is seen later.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { NVSP_ROWS } from './guest-nvsp-rows.js';
import { RING_ROWS } from './guest-ring-rows.js';
import { RNDIS_ROWS } from './guest-rndis-rows.js';
import { type GuestRow, prepare } from './guest-rows.js';
import { createTwoNics, type TwoNics } from './two-nics.js';

let rig: TwoNics;
before(async () => {
  rig = await createTwoNics();
});
after(() => rig.close());

function status(id: unknown): number | undefined {
  const found = rig.attacker.all().find((packet) => packet.type === 11 && packet.id === id);
  return found && new DataView(found.payload.buffer, found.payload.byteOffset).getUint32(4, true);
}

/** The channel is over: nothing is answered and the ring is not read. */
function checkOver(phase: 'dead' | 'stopped', reason: RegExp, deaths: number): void {
  const { attacker, nic } = rig;
  const state = nic.state();
  assert.equal(state.phase, phase, `phase; reason: ${state.reason}`);
  assert.match(state.reason!, reason);
  assert.doesNotMatch(state.reason!, /internal error/);
  assert.equal(state.deaths, deaths + (phase === 'dead' ? 1 : 0));
  const out = () => attacker.arena.u32[(attacker.opened.transmit.control + 4) >>> 2];
  const before = out();
  attacker.writeIndex((now, size) => (now + 64) % size);
  rig.step();
  assert.equal(out(), before, 'the ring is not read any more');
}

function checkOutcome(row: GuestRow, id: unknown, earlier: ReturnType<TwoNics['nic']['state']>): void {
  const { nic, attacker } = rig;
  const { outcome } = row;
  if ('dead' in outcome) {
    checkOver('dead', outcome.dead, earlier.deaths);
    return;
  }
  if ('stopped' in outcome) {
    checkOver('stopped', outcome.stopped, earlier.deaths);
    return;
  }
  const state = nic.state();
  assert.equal(state.phase, 'ready', `phase; reason: ${state.reason}`);
  assert.equal(state.deaths, earlier.deaths);
  if ('refused' in outcome) {
    assert.equal(status(id), 2, 'completed with status 2');
    assert.equal(state.lastFrameError, outcome.refused);
    const control = outcome.refused === 'CONTROL_BUSY' ? 1 : 0;
    assert.equal(state.control.refused - earlier.control.refused, control);
    assert.equal(state.counters.txFailed! - earlier.counters.txFailed!, 1 - control);
    assert.equal(state.counters.txPackets, earlier.counters.txPackets, 'nothing of it is forwarded');
  } else if ('taken' in outcome) {
    assert.equal(status(id), 1, 'completed with status 1');
    assert.equal(state.counters.txFailed, earlier.counters.txFailed);
  }
  for (let packet = attacker.take(); packet; packet = attacker.take()) assert.equal(packet.type, 7);
}

function run(row: GuestRow): void {
  const { attacker, bystander, nic, host, step } = rig;
  const opens = nic.state().opens;
  prepare(attacker, row);
  bystander.send(12);
  const earlier = nic.state();
  const id = row.act(attacker, rig);
  bystander.send(12);
  step();
  checkOutcome(row, id, earlier);
  bystander.send(8);
  bystander.check();
  assert.equal(host.nics[1]!.state().deaths, 0);
  attacker.close();
  attacker.forgetPages();
  attacker.attach(0x60001);
  assert.equal(nic.phase, 'ready', 'opened anew');
  assert.equal(nic.state().reason, undefined);
  attacker.echo(step);
  assert.equal(nic.state().opens, opens + 2);
  attacker.close();
  assert.equal(nic.phase, 'closed');
  assert.equal(nic.state().guestPages.regions, 0);
  bystander.send(4);
  bystander.check();
}

for (const [name, rows] of [
  ['ring packets', RING_ROWS],
  ['NVSP messages', NVSP_ROWS],
  ['RNDIS messages', RNDIS_ROWS],
] as const) {
  describe(name, () => {
    for (const row of rows) test(row.name, () => run(row));
  });
}
