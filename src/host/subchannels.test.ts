import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Subchannel } from '../vmbus/device.js';
import { nicMac } from './identity.js';
import { concat, createRig, hexBytes, RawGuest, type Rig, word, words } from './raw-guest-testing.js';

const V61 = 0x60001;
const MAC = [nicMac('test', 0), nicMac('test', 1)] as const;
const FLOWS = 64;

const nvsp = (guest: RawGuest, ...cells: readonly number[]) =>
  guest.nvsp(words(...cells, ...new Array(10 - cells.length).fill(0)));
const first = (bytes: Uint8Array | undefined, cells: number) =>
  Array.from({ length: cells }, (_, i) => word(bytes!, i));

/** An RNDIS packet message around a frame: UDP over IPv4 when there are ports, else of an unknown type. */
function packet(from: number, to: number, ports?: readonly [number, number]): Uint8Array {
  const ip = concat(
    hexBytes('4500002e000000004011000 0 0a000001 0a000002'),
    Uint8Array.of(ports?.[0] ?? 0, 7, ports?.[1] ?? 0, 9),
    new Uint8Array(22),
  );
  const frame = concat(MAC[to]!, MAC[from]!, hexBytes(ports ? '0800' : '88b5'), ip);
  return concat(words(1, 44 + frame.length, 36, frame.length, 0, 0, 0, 0, 0, 0, 0), frame);
}

/** Makes subchannels; what the guest reads on each of them, by subchannel id. */
function allocate(rig: Rig, guest: RawGuest, count: number): RawGuest[] {
  assert.deepEqual(first(nvsp(guest, 133, 1, count), 3), [133, 1, count]);
  const table = guest.take()!;
  assert.deepEqual([table.type, table.flags, table.id], [6, 0, 0n]);
  assert.equal(table.payload.length, 80, 'not padded to the size of other messages');
  assert.deepEqual(first(table.payload, 3), [134, 16, 12]);
  assert.deepEqual(
    first(table.payload.subarray(12), 16),
    Array.from({ length: 16 }, (_, i) => i % (count + 1)),
  );
  return channels(rig, guest);
}

function channels(rig: Rig, guest: RawGuest): RawGuest[] {
  const found: Subchannel[] = [];
  for (let next = guest.pair.device.openSubchannel(); next; next = guest.pair.device.openSubchannel()) found.push(next);
  return found.map(({ transmit, receive }) => {
    const channel = new RawGuest(rig.arena, guest.pair, rig.step);
    channel.opened = { ...guest.opened, transmit, receive };
    return channel;
  });
}

/** RSS parameters with a table and the usual key of zeros but for some bits. */
function rss(table: readonly number[], flags = 0, types = 0x4301): Uint8Array {
  const head = new Uint8Array(44);
  const view = new DataView(head.buffer);
  view.setUint16(4, flags, true);
  view.setUint32(8, types, true);
  view.setUint16(12, table.length * 4, true);
  view.setUint32(16, 44, true);
  view.setUint16(20, 40, true);
  view.setUint32(24, 44 + table.length * 4, true);
  return concat(
    head,
    words(...table),
    hexBytes('6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa'),
  );
}

/** Takes transfer-page packets, gives them back where they came, and returns how many frames they were. */
function receive(guest: RawGuest): number {
  let frames = 0;
  for (const { type, id, ranges } of guest.all()) {
    assert.equal(type, 7);
    frames += ranges.length;
    guest.put(11, 0, id, words(108, 1));
  }
  return frames;
}

function send(rig: Rig, guest: RawGuest, message: Uint8Array): number {
  const id = guest.putRndis(message, 0);
  rig.step();
  return guest.completion(id);
}

/** Two guests on one switch, the second one with subchannels. */
function createPair(t: TestContext, count: number) {
  const rig = createRig(t, { nics: [{}, {}], ringBytes: 64 << 10 });
  const [sender, receiver] = rig.guests as [RawGuest, RawGuest];
  sender.attach(V61);
  receiver.attach(V61);
  const subchannels = allocate(rig, receiver, count);
  return { rig, sender, receiver, subchannels, all: [receiver, ...subchannels], nic: rig.host.nics[1]! };
}

function sendFlows(rig: Rig, sender: RawGuest): void {
  for (let port = 0; port < FLOWS; port++) assert.equal(send(rig, sender, packet(0, 1, [port, 200 - port])), 1);
}

test('a request is granted whole or not at all; each grant is followed by the send table', (t) => {
  const rig = createRig(t, { ringBytes: 64 << 10, receiveBytes: 64 << 10 }); // 36 suballocations, 20 of them for data
  const { guest, host } = rig;
  guest.attach(V61);
  for (const count of [20, 63, 64, 0xffff_ffff, 0x8000_0000]) {
    assert.deepEqual(first(nvsp(guest, 133, 1, count), 3), [133, 2, 0], `count ${count}`);
  }
  for (const operation of [0, 2, 0xffff_ffff]) assert.deepEqual(first(nvsp(guest, 133, operation, 1), 3), [133, 2, 0]);
  assert.deepEqual(first(nvsp(guest, 133, 1, 0), 3), [133, 1, 0]);
  assert.equal(guest.take(), undefined, 'a request for none changes nothing');
  assert.equal(guest.pair.device.openSubchannel(), undefined);
  assert.equal(allocate(rig, guest, 3).length, 3);
  // Again: as many, more, and fewer than there are.
  assert.deepEqual(first(nvsp(guest, 133, 1, 3), 3), [133, 1, 3]);
  assert.equal(word(guest.take()!.payload, 0), 134);
  assert.deepEqual(first(nvsp(guest, 133, 1, 19), 3), [133, 1, 19]);
  assert.deepEqual(
    first(guest.take()!.payload.subarray(12), 16),
    Array.from({ length: 16 }, (_, i) => i),
  );
  assert.equal(channels(rig, guest).length, 16);
  assert.deepEqual(first(nvsp(guest, 133, 1, 1), 3), [133, 1, 1]);
  assert.equal(word(guest.take()!.payload, 0), 134);
  assert.equal(host.nics[0]!.state().subchannels.length, 19);
  guest.close();
  assert.equal(host.nics[0]!.state().subchannels.length, 0);
});

test('before RNDIS is there, and below NVSP 5, a request ends the channel', (t) => {
  for (const [version, step] of [
    [V61, 0],
    [0x40000, 1],
  ] as const) {
    const { guest, host, step: turn } = createRig(t);
    if (step === 0) {
      guest.open();
      guest.init(version);
      guest.config(1514);
    } else guest.attach(version);
    guest.put(6, 1, 9n, words(133, 1, 1, 0, 0, 0, 0));
    turn();
    assert.equal(host.nics[0]!.phase, 'dead');
    assert.match(host.nics[0]!.state().reason!, /SUBCHANNEL/);
    assert.equal(guest.pair.device.openSubchannel(), undefined);
    guest.close();
  }
});

test('no memory for rings: refused, and what fits is given later on', (t) => {
  const rig = createRig(t, { ringBytes: 64 << 10 });
  const { guest, arena } = rig;
  guest.attach(V61);
  const rest = arena.reserve('rest', arena.free().largest - (512 << 10));
  assert.deepEqual(first(nvsp(guest, 133, 1, 40), 3), [133, 2, 0]);
  assert.equal(guest.pair.device.openSubchannel(), undefined, 'nothing is offered');
  arena.release(rest);
  assert.equal(allocate(rig, guest, 2).length, 2);
});

test('frames go to the channel that hash and table name; what has no hash goes where hash 0 goes', (t) => {
  const { rig, sender, receiver, all, nic } = createPair(t, 3);
  sendFlows(rig, sender);
  assert.deepEqual(all.map(receive), [FLOWS, 0, 0, 0], 'scaling is off');
  assert.equal(receiver.set(0x10204, rss([0, 1, 2, 3])), 0);
  sendFlows(rig, sender);
  const spread = all.map(receive);
  assert.equal(
    spread.reduce((sum, n) => sum + n),
    FLOWS,
  );
  assert.ok(
    spread.every((n) => n > 0),
    `${spread}`,
  );
  sendFlows(rig, sender);
  assert.deepEqual(all.map(receive), spread, 'the same flows, the same channels');
  assert.equal(receiver.set(0x10204, rss([3, 3, 3, 1])), 0);
  sendFlows(rig, sender);
  const [none, some, zero, most] = all.map(receive);
  assert.deepEqual([none, zero], [0, 0]);
  assert.ok(some! > 0 && most! > some! && some! + most! === FLOWS);
  assert.equal(send(rig, sender, packet(0, 1)), 1);
  assert.deepEqual(all.map(receive), [0, 0, 0, 1]);
  // Channels that nobody has are left out, and when there are only such, all take part (facts/hyper-v-host.md 5).
  assert.equal(receiver.set(0x10204, rss([9, 2, 9, 2])), 0);
  sendFlows(rig, sender);
  assert.deepEqual(all.map(receive), [0, 0, FLOWS, 0]);
  assert.equal(receiver.set(0x10204, rss([40, 41, 42, 43])), 0);
  sendFlows(rig, sender);
  assert.ok(all.map(receive).every((n) => n > 0));
  assert.equal(receiver.set(0x10204, rss([1], 0x10)), 0);
  sendFlows(rig, sender);
  assert.deepEqual(all.map(receive), [FLOWS, 0, 0, 0]);
  rig.step();
  assert.equal(nic.state().receiveBuffer.inUse, 0);
  assert.equal(nic.state().lostToDeadChannels, 0);
});

test('the data suballocations are divided among the channels that receive, also while the guest has some', (t) => {
  const { rig, sender, receiver, subchannels, all, nic } = createPair(t, 2);
  const total = nic.state().receiveBuffer.suballocations - 16;
  const fill = () => {
    for (let i = 0; i < total + 20; i++) send(rig, sender, packet(0, 1, [0, 0]));
    return all.map((guest) => guest.all());
  };
  const [own] = fill();
  assert.equal(own!.length, total, 'one channel, all of them');
  assert.equal(receiver.set(0x10204, rss([2])), 0);
  // The first half comes back after the change, on the channel that had them, and belongs to another one now.
  for (const { id } of own!.slice(0, 30)) receiver.put(11, 0, id, words(108, 1));
  rig.step();
  assert.deepEqual(
    fill().map((packets) => packets.length),
    [0, 0, 30],
  );
  for (const { id } of own!.slice(30)) {
    receiver.put(11, 0, id, words(108, 1));
    rig.step();
  }
  assert.equal(nic.state().receiveBuffer.inUse, 30);
  assert.equal(nic.phase, 'ready');
  // Another channel may not give back what it never got.
  const [third] = fill()[2]!;
  subchannels[0]!.put(11, 0, third!.id, words(108, 1));
  rig.step();
  assert.match(nic.state().subchannels[0]!.reason!, /UNKNOWN_TRANSACTION/);
  assert.equal(nic.phase, 'ready');
  subchannels[1]!.put(11, 0, third!.id, words(108, 1));
  rig.step();
  assert.equal(nic.state().subchannels[1]!.reason, undefined);
  assert.equal(nic.state().deaths, 1);
});

test('sends of a subchannel reach the switch; control messages are refused there', (t) => {
  const { rig, sender, receiver, subchannels, nic } = createPair(t, 2);
  for (const channel of subchannels) assert.equal(send(rig, channel, packet(1, 0, [1, 1])), 1);
  assert.equal(receive(sender), 2);
  const direct = subchannels[0]!.putRndisDirect(packet(1, 0));
  rig.step();
  assert.equal(subchannels[0]!.completion(direct), 1);
  assert.equal(receive(sender), 1);
  subchannels[0]!.releasePages();
  const query = subchannels[0]!.putRndis(words(4, 28, 1, 0x10101, 0, 20, 0));
  rig.step();
  assert.equal(subchannels[0]!.completion(query), 2);
  assert.equal(subchannels[0]!.take(), undefined);
  assert.deepEqual([receiver.take(), nic.phase, nic.state().deaths], [undefined, 'ready', 0]);
  const { counters } = nic.state();
  assert.deepEqual([counters.txPackets, nic.state().subchannels[1]!.counters.txPackets], [3, 1]);
  receiver.close();
  assert.equal(nic.state().counters.txPackets, 3, 'counters outlive the subchannels');
});

test('a fault ends the channel where it happened; the others carry on', (t) => {
  const faults: readonly [string, (channel: RawGuest) => void, RegExp][] = [
    ['init', (channel) => channel.put(6, 1, 5n, words(1, V61, V61, 0, 0, 0, 0)), /INIT on a subchannel/],
    ['revoke', (channel) => channel.put(6, 0, 0n, words(103, 0xcafe)), /REVOKE_RECEIVE_BUFFER on a subchannel/],
    ['more subchannels', (channel) => channel.put(6, 1, 5n, words(133, 1, 1)), /SUBCHANNEL on a subchannel/],
    ['no message at all', (channel) => channel.put(6, 1, 5n, words()), /NVSP_HEADER/],
    ['unknown message', (channel) => channel.put(6, 1, 5n, words(999)), /0x3e7 on a subchannel/],
    ['completion of a control message', (channel) => channel.put(11, 0, 0n, words(108, 1)), /UNKNOWN_TRANSACTION/],
    ['completion far outside', (channel) => channel.put(11, 0, 1n << 40n, words(108, 1)), /not in flight/],
    [
      'write index',
      (channel) => {
        channel.arena.u32[channel.opened.transmit.control >>> 2] = 0xffff_fff8;
      },
      /INVALID_POINTER/,
    ],
  ];
  for (const [name, act, reason] of faults) {
    const { rig, sender, receiver, subchannels, all, nic } = createPair(t, 3);
    assert.equal(receiver.set(0x10204, rss([0, 1, 2, 3])), 0);
    act(subchannels[1]!);
    rig.step();
    assert.match(nic.state().subchannels[1]!.reason ?? '', reason, name);
    assert.deepEqual([nic.phase, nic.state().deaths], ['ready', 1], name);
    sendFlows(rig, sender);
    const got = [0, 1, 3].map((i) => receive(all[i]!));
    const { lostToDeadChannels } = nic.state();
    assert.ok(got.every((n) => n > 0) && lostToDeadChannels > 0, name);
    assert.equal(got.reduce((sum, n) => sum + n) + lostToDeadChannels, FLOWS, name);
    assert.equal(send(rig, subchannels[0]!, packet(1, 0)), 1, name);
    assert.deepEqual(first(receiver.query(0x10107).data, 1), [100_000_000], name);
    rig.close();
  }
});

test('a dead primary channel takes no subchannel with it; a revoked buffer stops all', (t) => {
  const { rig, sender, receiver, subchannels, all, nic } = createPair(t, 1);
  assert.equal(receiver.set(0x10204, rss([0, 1])), 0);
  receiver.put(6, 1, 5n, words(999));
  rig.step();
  assert.equal(nic.phase, 'dead');
  sendFlows(rig, sender);
  const got = all.map(receive);
  assert.equal(got[0], 0);
  assert.ok(got[1]! > 0);
  assert.equal(got[1]! + nic.state().lostToDeadChannels, FLOWS);
  assert.equal(send(rig, subchannels[0]!, packet(1, 0)), 1);
  receiver.close();
  assert.equal(nic.phase, 'closed');

  receiver.attach(V61);
  const [again] = allocate(rig, receiver, 1);
  receiver.put(6, 0, 0n, words(103, 0xcafe));
  rig.step();
  assert.equal(nic.phase, 'stopped');
  again!.putRndis(packet(1, 0), 0);
  rig.step();
  assert.equal(again!.take(), undefined);
});

test('interrupts: a sleeping guest gets one for the channel that has news; a sleeping host hears of each channel', (t) => {
  const { rig, sender, receiver, subchannels, nic } = createPair(t, 2);
  assert.equal(receiver.set(0x10204, rss([2])), 0);
  receiver.pair.device.takeInterrupts();
  send(rig, sender, packet(0, 1, [3, 4]));
  assert.equal(receiver.pair.device.takeInterrupts(), 1);
  receive(subchannels[1]!);
  receive(sender);
  rig.step();
  const mask = (guest: RawGuest) => rig.arena.u32[(guest.opened.transmit.control + 8) >>> 2];
  assert.equal(rig.host.arm(), true);
  assert.deepEqual([receiver, ...subchannels].map(mask), [0, 0, 0]);
  rig.host.disarm();
  assert.deepEqual([receiver, ...subchannels].map(mask), [1, 1, 1]);
  subchannels[1]!.putRndis(packet(1, 0), 0);
  assert.equal(rig.host.arm(), false, 'something waits');
  assert.deepEqual([receiver, ...subchannels].map(mask), [1, 1, 1]);
  assert.equal(nic.phase, 'ready');
});
