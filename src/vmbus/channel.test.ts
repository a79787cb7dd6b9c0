// Two channels over the rings of a memory bus: a guest's and a host's end, with the compiled data path between them.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createDatapath } from '../datapath/datapath.js';
import { Arena } from '../memory/arena.js';
import { EVENT_KIND, FRAME, GUEST_QUEUE, HOST_CHANNEL, NO_SECTION, RING_ERROR } from '../memory/layout.js';
import { linuxSystem } from '../memory/os/mman.js';
import { PACKET_TYPE, RING_CONTROL } from '../wire/vmbus.js';
import { Channel } from './channel.js';
import type { RingRegion } from './device.js';
import { createMemoryBus } from './memory/bus.js';

const arena = Arena.create({ bytes: 16 << 20, system: linuxSystem });
const datapath = createDatapath(arena.memory);
const IN_BAND = PACKET_TYPE.IN_BAND;
const COMPLETION = PACKET_TYPE.COMPLETION;
const TABLE_BYTES = 64 * FRAME.bytes;

interface Ends {
  readonly guest: Channel;
  readonly host: Channel;
  readonly fromGuest: RingRegion;
  readonly toGuest: RingRegion;
  bind(): void;
  guestPoll(): void;
  hostPoll(): void;
}

function ends(t: TestContext): Ends {
  const bus = createMemoryBus(arena, { ringBytes: 32_768, receiveBytes: 65_536, sendBytes: 65_536 });
  const { device, offer } = bus.pairs[0]!;
  const { fromGuest, toGuest } = offer;
  const queue = arena.reserve('queue', GUEST_QUEUE.bytes);
  const end = arena.reserve('host end', HOST_CHANNEL.bytes);
  const handles = arena.reserve('handles', 64 * 4);
  const tables = arena.reserve('tables', 4 * TABLE_BYTES);
  const set = (address: number, value: number) => {
    arena.u32[address >>> 2] = value;
  };
  // The least that the poll loops want: somewhere to put completions, transactions, frames and fragments.
  set(queue + GUEST_QUEUE.at.completions, tables);
  set(queue + GUEST_QUEUE.at.completionCapacity, 64);
  set(queue + GUEST_QUEUE.at.section, NO_SECTION);
  for (const [i, table] of (['transaction', 'frame', 'fragment'] as const).entries()) {
    set(end + HOST_CHANNEL.at[`${table}s`], tables + (i + 1) * TABLE_BYTES);
    set(end + HOST_CHANNEL.at[`${table}Capacity`], 64);
  }
  const guest = new Channel(arena, datapath, queue, GUEST_QUEUE.at, 4096);
  const host = new Channel(arena, datapath, end, HOST_CHANNEL.at, 4096);
  t.after(() => {
    guest.release();
    host.release();
    for (const address of [queue, end, handles, tables]) arena.release(address);
    bus.close();
    assert.equal(arena.regions().length, 1);
  });
  const bind = () => {
    device.close();
    const { transmit, receive } = device.open();
    guest.bind(transmit, receive);
    host.bind(toGuest, fromGuest);
  };
  bind();
  return {
    guest,
    host,
    fromGuest,
    toGuest,
    bind,
    guestPoll: () => datapath.guestPoll(queue, handles, 64),
    hostPoll: () => datapath.hostPoll(end, 64),
  };
}

type Event = [kind: number, idLow: number, idHigh: number, a: number, b: number, payload: number[]];

function drain(channel: Channel): Event[] {
  const events: Event[] = [];
  channel.drainEvents((kind, idLow, idHigh, a, b, payload) => events.push([kind, idLow, idHigh, a, b, [...payload]]));
  return events;
}

/** NVSP messages of a type that neither side treats as data. */
const message = (length: number, fill: number) =>
  Uint8Array.from({ length }, (_, i) => (i === 0 ? 1 : i < 4 ? 0 : fill));

test('messages cross both ways, each once, with id and completion flag', (t) => {
  const { guest, host, guestPoll, hostPoll } = ends(t);
  assert.equal(guest.send(IN_BAND, 1, 0xfffffffe, 7, message(40, 9)), true);
  assert.equal(guest.send(IN_BAND, 0, 0, 0, message(16, 8)), true);
  // A host reads no further than a control message, which may change how the next one is to be read.
  hostPoll();
  assert.deepEqual(drain(host), [[EVENT_KIND.NVSP, 0xfffffffe, 7, 1, IN_BAND, [...message(40, 9)]]]);
  hostPoll();
  assert.deepEqual(drain(host), [[EVENT_KIND.NVSP, 0, 0, 0, IN_BAND, [...message(16, 8)]]]);
  assert.deepEqual(drain(host), []);
  assert.equal(host.send(COMPLETION, 0, 0xfffffffe, 7, message(40, 3)), true);
  assert.equal(host.send(IN_BAND, 0, 1, 2, message(24, 4)), true);
  guestPoll();
  const events = drain(guest);
  assert.deepEqual(
    events.map(([kind, idLow, idHigh, , , payload]) => [kind, idLow, idHigh, payload]),
    [
      [EVENT_KIND.COMPLETION, 0xfffffffe, 7, [...message(40, 3)]],
      [EVENT_KIND.NVSP, 1, 2, [...message(24, 4)]],
    ],
  );
  assert.equal(guest.counter('ringPacketsIn'), 2);
  assert.equal(host.counters().ringPacketsIn, 2);
  assert.throws(() => host.counter('rxNoMbuf'), /channel: no counter named rxNoMbuf/);
  assert.throws(() => host.counter('ringError'), /channel: no counter named ringError/);
});

test('a payload is a copy: the peer and later polls do not change it', (t) => {
  const { guest, host, fromGuest, hostPoll } = ends(t);
  const kept: Uint8Array[] = [];
  for (const fill of [1, 2]) {
    guest.send(IN_BAND, 0, 0, 0, message(16, fill));
    hostPoll();
    host.drainEvents((_kind, _low, _high, _a, _b, payload) => kept.push(payload));
  }
  arena.u8.fill(0xff, fromGuest.control + 4096, fromGuest.control + 4096 + fromGuest.dataBytes);
  assert.deepEqual(kept, [message(16, 1), message(16, 2)]);
});

test('a full ring refuses and takes messages again once it was read', (t) => {
  const { guest, host, hostPoll } = ends(t);
  let sent = 0;
  while (sent < 1000 && guest.send(IN_BAND, 0, sent, 0, message(40, sent))) sent++;
  assert.ok(sent > 50 && sent < 1000, `${sent} sent`);
  const seen: number[] = [];
  for (let i = 0; i <= sent && seen.length < sent; i++) {
    hostPoll();
    host.drainEvents((_kind, idLow) => seen.push(idLow));
  }
  assert.deepEqual(
    seen,
    Array.from({ length: sent }, (_, i) => i),
  );
  assert.equal(guest.send(IN_BAND, 0, 0, 0, message(40, 1)), true);
});

test('a signal is asked for once, only when the peer unmasked', (t) => {
  const { guest, host, hostPoll } = ends(t);
  host.mask();
  guest.send(IN_BAND, 0, 0, 0, message(16, 1));
  assert.equal(guest.takeSignal(), false);
  assert.equal(host.unmask(), true, 'something waits, so the host must not sleep');
  hostPoll();
  drain(host);
  assert.equal(host.unmask(), false);
  guest.send(IN_BAND, 0, 0, 0, message(16, 1));
  assert.equal(guest.takeSignal(), true);
  assert.equal(guest.takeSignal(), false);
});

test('a corrupt ring has a name and stays dead until it is bound anew', (t) => {
  const { guest, host, fromGuest, hostPoll, bind } = ends(t);
  assert.equal(host.error, undefined);
  arena.u32[(fromGuest.control + RING_CONTROL.offset.in) >>> 2] = fromGuest.dataBytes + 8;
  hostPoll();
  assert.deepEqual(host.error, {
    code: RING_ERROR.INVALID_POINTER,
    name: 'INVALID_POINTER',
    detail: fromGuest.dataBytes + 8,
  });
  assert.equal(host.send(IN_BAND, 0, 0, 0, message(16, 1)), false);
  bind();
  assert.equal(host.error, undefined);
  guest.send(IN_BAND, 0, 5, 0, message(16, 1));
  hostPoll();
  assert.equal(drain(host)[0]![1], 5);
});

test('a handler that binds the channel anew ends the old events', (t) => {
  const { guest, host, guestPoll, bind } = ends(t);
  for (let i = 0; i < 3; i++) host.send(IN_BAND, 0, i, 0, message(16, 1));
  guestPoll();
  const seen: number[] = [];
  guest.drainEvents((_kind, idLow) => {
    seen.push(idLow);
    bind();
  });
  assert.deepEqual(seen, [0]);
});

test('what cannot be a channel or a control message is refused', (t) => {
  const { guest } = ends(t);
  assert.throws(() => guest.send(IN_BAND, 0, 0, 0, new Uint8Array(4097)), {
    name: 'VmbusError',
    message: 'channel: payload of 4097 bytes, at most 4096 can be sent',
  });
  const other = { ...GUEST_QUEUE.at };
  assert.throws(() => new Channel(arena, datapath, 0, other), /expected the cells of GUEST_QUEUE or HOST_CHANNEL/);
});
