import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRig, type RawGuest, type Rig, word, words } from './raw-guest-testing.js';

const V5 = 0x50000;

test('query, set and keepalive are served before initialize; halt has no answer and changes nothing', (t) => {
  const { guest, host, step } = createRig(t);
  guest.open();
  guest.init(V5);
  guest.config(1514);
  guest.ndisVersion(6, 30);
  guest.receiveBuffer();
  guest.sendBuffer();
  assert.equal(guest.query(0x00010106).status, 0);
  assert.equal(guest.set(0x0001010e, words(1)), 0);
  assert.deepEqual(guest.rndis(words(8, 12, 0x4711)), words(0x80000008, 16, 0x4711, 0));
  host.nics[0]!.setLink(false);
  step();
  assert.equal(guest.take(), undefined, 'indications wait for initialize');
  guest.initialize();
  const id = guest.putRndis(words(3, 12, 5));
  step();
  assert.equal(guest.completion(id), 1);
  assert.equal(guest.take(), undefined);
  assert.equal(host.nics[0]!.filter, 1);
  assert.deepEqual(guest.query(0x00010114).data, words(1));
});

test('control messages on either channel type; a wrong length is status 2 and nothing more', (t) => {
  const { guest, host, step } = createRig(t);
  guest.attach(V5);
  for (const channelType of [0, 1, 7]) {
    const id = guest.putRndis(words(8, 12, 1), channelType);
    step();
    assert.equal(guest.completion(id), 1);
    assert.equal(word(guest.control()!, 0), 0x80000008);
  }
  for (const length of [0, 7, 13, 0xffffffff]) {
    const id = guest.putRndis(words(8, length, 1));
    step();
    assert.equal(guest.completion(id), 2, `length ${length}`);
    assert.equal(guest.take(), undefined);
  }
  assert.equal(host.nics[0]!.phase, 'ready');
  const quiet = guest.putRndis(words(8, 12, 1), 1, 0);
  step();
  assert.ok(quiet);
  assert.equal(word(guest.control()!, 0), 0x80000008, 'no completion asked for, none sent');
});

/** Takes all that came without giving suballocations back; returns their transaction ids. */
function hold(guest: RawGuest): bigint[] {
  return guest
    .all()
    .filter((packet) => packet.type === 7)
    .map((packet) => packet.id);
}

/** Keepalives until 16 answers are out and the queue holds `queued` more. */
function flood({ guest, step }: Rig, count: number, bytes: number): { held: bigint[]; statuses: number[] } {
  const held: bigint[] = [];
  const statuses: number[] = [];
  for (let i = 0; i < count; i++) {
    const message = new Uint8Array(bytes);
    message.set(words(8, bytes, i));
    guest.putRndis(message);
    step();
    for (const packet of guest.all()) {
      if (packet.type === 7) held.push(packet.id);
      else statuses.push(word(packet.payload, 1));
    }
  }
  return { held, statuses };
}

test('a control flood: 16 answers out, 100 KiB of requests wait, the rest is refused; all are answered in order later', (t) => {
  const rig = createRig(t);
  const { guest, host, step } = rig;
  guest.attach(V5);
  const bytes = 4096;
  const { held, statuses } = flood(rig, 60, bytes);
  assert.equal(held.length, 16);
  assert.deepEqual(statuses, [...new Array(16 + 25).fill(1), ...new Array(60 - 41).fill(2)]);
  const { control, receiveBuffer } = host.nics[0]!.state();
  assert.deepEqual([control.waiting, control.refused, receiveBuffer.controlInUse], [25, 19, 16]);
  assert.equal(host.nics[0]!.phase, 'ready');
  const base = guest.opened.receiveBuffer.address;
  const requestIds: number[] = [];
  let owned = held;
  while (owned.length > 0) {
    for (const id of owned) guest.put(11, 0, id, words(108, 1));
    step();
    const packets = guest.all();
    for (const packet of packets) {
      const at = base + packet.ranges[0]!.offset;
      requestIds.push(word(guest.arena.u8.slice(at, at + 16), 2));
    }
    owned = packets.map((packet) => packet.id);
  }
  assert.deepEqual(
    requestIds,
    Array.from({ length: 25 }, (_, i) => 16 + i),
  );
  assert.equal(host.nics[0]!.state().receiveBuffer.controlInUse, 0);
});

test('link: told to the guest once per change, kept while no suballocation is free', (t) => {
  const rig = createRig(t);
  const { guest, host, step } = rig;
  guest.attach(V5);
  const nic = host.nics[0]!;
  nic.setLink(true);
  step();
  assert.equal(guest.take(), undefined, 'no change, no message');
  nic.setLink(false);
  step();
  assert.deepEqual(guest.control(), words(7, 20, 0x4001000c, 0, 0));
  assert.deepEqual(guest.query(0x00010114).data, words(1));
  assert.equal(word(guest.query(0x00010207).data, 1), 2);
  nic.setLink(true);
  step();
  assert.deepEqual(guest.control(), words(7, 20, 0x4001000b, 0, 0));

  const { held } = flood(rig, 16, 12);
  for (const up of [false, true, false, true, false]) nic.setLink(up);
  step();
  assert.equal(guest.take(), undefined);
  for (const id of held) guest.put(11, 0, id, words(108, 1));
  step();
  const seen = [guest.control()!, guest.control()!].map((message) => word(message, 2));
  assert.deepEqual(seen, [0x4001000b, 0x4001000c], 'the last state is told last');
  assert.equal(guest.take(), undefined);
});

test('a full ring delays completions and answers, and loses none', (t) => {
  const { guest, host, step } = createRig(t, { ringBytes: 4 * 4096 });
  guest.attach(V5);
  // Completions of 56 bytes fill the ring of 4096; the host stops reading, then goes on.
  let sent = 0;
  let completed = 0;
  const answers: bigint[] = [];
  for (let round = 0; round < 30; round++) {
    for (let i = 0; i < 8; i++, sent++) guest.putRndis(words(3, 12, 0));
    guest.putRndis(words(8, 12, 0));
    sent++;
    step();
    if (round % 10 === 9) {
      for (let idle = 0; idle < 20; idle++) {
        for (const packet of guest.all()) {
          if (packet.type === 11) completed++;
          else answers.push(packet.id);
        }
        for (const id of answers.splice(0)) guest.put(11, 0, id, words(108, 1));
        step();
      }
    }
  }
  assert.equal(completed, sent);
  assert.equal(hold(guest).length, 0);
  const { control, receiveBuffer, phase } = host.nics[0]!.state();
  assert.deepEqual([control.waiting, receiveBuffer.controlInUse, phase], [0, 0, 'ready']);
});
