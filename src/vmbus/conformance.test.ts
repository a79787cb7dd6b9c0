// What a VmbusDevice and its VmbusOffer promise each other, whatever the backend.
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import type { Arena } from '../memory/arena.js';
import { RING_CONTROL } from '../wire/vmbus.js';
import { BACKENDS, guestArena, hostArena } from './backends-testing.js';
import type { RingRegion } from './device.js';

const { in: IN, out: OUT, interruptMask: MASK, pendingSendSize: PENDING, featureBits: FEATURES } = RING_CONTROL.offset;
const cell = (arena: Arena, ring: RingRegion, offset: number) => arena.u32[(ring.control + offset) >>> 2];
const openDescriptors = () => readdirSync('/proc/self/fd').length;
const EVENT = { opened: false, closed: false, interrupts: 0 };

for (const [name, make] of Object.entries(BACKENDS)) {
  test(`${name}: what the device says of itself is what the host offers`, (t) => {
    const { device, offer } = make(t);
    assert.equal(device.uuid, offer.uuid);
    assert.equal(device.relid, offer.relid);
    assert.equal(device.classId, 'f8615163-df3e-46c5-913f-f2d2f965ed0e');
    assert.equal(device.monitorId, undefined);
    const channel = device.open();
    for (const [guest, host] of [
      [channel.receiveBuffer, offer.receiveBuffer],
      [channel.sendBuffer, offer.sendBuffer],
    ] as const) {
      assert.equal(guest.gpadl, host.gpadl);
      assert.equal(guest.bytes, 1 << 20);
      assert.equal(host.bytes, 1 << 20);
    }
    assert.notEqual(channel.receiveBuffer.gpadl, channel.sendBuffer.gpadl);
    assert.equal(channel.transmit.dataBytes, 32_768 - 4096);
    assert.deepEqual(
      [channel.receive.dataBytes, offer.fromGuest.dataBytes, offer.toGuest.dataBytes],
      Array(3).fill(32_768 - 4096),
    );
  });

  test(`${name}: open zeroes the rings and sets what a host sets; the host hears of it once`, (t) => {
    const { device, offer } = make(t);
    assert.deepEqual({ ...offer.poll() }, EVENT);
    device.open();
    offer.poll();
    for (const ring of [offer.fromGuest, offer.toGuest]) {
      offer.arena.u8.fill(0xee, ring.control, ring.control + 128);
    }
    device.close();
    assert.deepEqual({ ...offer.poll() }, { ...EVENT, closed: true });
    const { transmit, receive } = device.open();
    assert.deepEqual({ ...offer.poll() }, { ...EVENT, opened: true });
    assert.deepEqual({ ...offer.poll() }, EVENT);
    const fields = [IN, OUT, MASK, PENDING, FEATURES];
    assert.deepEqual(
      fields.map((field) => cell(device.arena, transmit, field)),
      [0, 0, 1, 0, 0],
    );
    assert.deepEqual(
      fields.map((field) => cell(device.arena, receive, field)),
      [0, 0, 0, 0, 1],
    );
  });

  test(`${name}: what a guest writes before the host has looked is not lost`, (t) => {
    const { device, offer } = make(t);
    const { transmit } = device.open();
    device.arena.u32[(transmit.control + IN) >>> 2] = 40;
    device.signal();
    assert.deepEqual({ ...offer.poll(), interrupts: 0 }, { ...EVENT, opened: true });
    assert.equal(cell(offer.arena, offer.fromGuest, IN), 40);
  });

  test(`${name}: bytes cross both ways in rings and buffers`, (t) => {
    const { device, offer } = make(t);
    const channel = device.open();
    offer.poll();
    const pairs = [
      [channel.transmit.control, offer.fromGuest.control],
      [channel.receive.control, offer.toGuest.control],
      [channel.receiveBuffer.address, offer.receiveBuffer.address],
      [channel.sendBuffer.address, offer.sendBuffer.address],
    ] as const;
    for (const [i, [guest, host]] of pairs.entries()) {
      device.arena.u8[guest + 5000 + i] = 0x10 + i;
      assert.equal(offer.arena.u8[host + 5000 + i], 0x10 + i);
      offer.arena.u8[host + 6000 + i] = 0x20 + i;
      assert.equal(device.arena.u8[guest + 6000 + i], 0x20 + i);
    }
  });

  test(`${name}: interrupts both ways are counted once`, (t) => {
    const { device, offer } = make(t);
    device.open();
    offer.poll();
    for (let i = 0; i < 3; i++) device.signal();
    assert.equal(offer.poll().interrupts, 3);
    assert.equal(offer.poll().interrupts, 0);
    assert.equal(device.takeInterrupts(), 0);
    for (let i = 0; i < 5; i++) offer.signal();
    assert.equal(device.takeInterrupts(), 5);
    assert.equal(device.takeInterrupts(), 0);
    offer.signal();
    assert.equal(device.takeInterrupts(), 1);
  });

  test(`${name}: neither side blocks or fails when the other one never reads`, (t) => {
    const { device, offer } = make(t);
    device.open();
    offer.poll();
    for (let i = 0; i < 3000; i++) {
      offer.signal();
      device.signal();
    }
    assert.ok(offer.poll().interrupts > 0);
    assert.ok(device.takeInterrupts() > 0);
  });

  test(`${name}: interrupts of one opening do not reach the next`, (t) => {
    const { device, offer } = make(t);
    device.open();
    offer.poll();
    offer.signal();
    device.signal();
    device.close();
    while (!offer.poll().closed);
    device.open();
    assert.equal(offer.poll().interrupts, 0);
    assert.equal(device.takeInterrupts(), 0);
  });

  test(`${name}: close is heard once, is safe twice, and signals after it go nowhere`, (t) => {
    const { device, offer } = make(t);
    device.close();
    device.open();
    offer.poll();
    device.close();
    device.close();
    device.signal();
    offer.signal();
    assert.deepEqual({ ...offer.poll() }, { ...EVENT, closed: true });
    assert.deepEqual({ ...offer.poll() }, EVENT);
    assert.equal(device.takeInterrupts(), 0);
  });

  test(`${name}: opening twice is refused and does not disturb the channel`, (t) => {
    const { device, offer } = make(t);
    device.open();
    assert.throws(() => device.open(), { name: 'VmbusError', message: /the channel is open already/ });
    offer.poll();
    device.signal();
    assert.equal(offer.poll().interrupts, 1);
  });

  test(`${name}: rescind reaches the guest, which cannot open again`, (t) => {
    const { device, offer } = make(t);
    device.open();
    offer.poll();
    offer.rescind();
    assert.equal(device.takeInterrupts(), -1);
    assert.equal(device.takeInterrupts(), -1);
    assert.equal(offer.poll().closed, true);
    assert.deepEqual({ ...offer.poll() }, EVENT);
    device.signal();
    device.close();
    device.close();
    assert.throws(() => device.open(), { name: 'VmbusError' });
    offer.rescind();
  });

  test(`${name}: guest memory is seen by its page frame numbers, other memory is not`, (t) => {
    const { device, offer } = make(t);
    device.open();
    offer.poll();
    const address = device.memory.allocate('packets', 5 * 4096);
    const pfn = device.memory.pfn(address + 2 * 4096 + 7);
    assert.equal(pfn, device.memory.pfn(address) + 2n);
    device.arena.u8[address + 2 * 4096 + 7] = 0x5a;
    const region = offer.mapGuestPage(pfn);
    assert.ok(region, offer.lastRefusal);
    assert.equal(region.pages, 5);
    assert.equal(region.pfn, device.memory.pfn(address));
    assert.equal(offer.arena.u8[region.address + 2 * 4096 + 7], 0x5a);
    assert.deepEqual(offer.mapGuestPage(region.pfn), region);
    for (const wrong of [0n, 1n << 51n, (1n << 64n) - 1n]) {
      assert.equal(offer.mapGuestPage(wrong), undefined);
      assert.match(offer.lastRefusal, new RegExp(`^page ${wrong.toString(16)}\\b`));
    }
    device.memory.release(address);
    assert.throws(() => device.memory.release(address), { name: 'VmbusError' });
  });

  test(`${name}: guest memory is copied by its page frame numbers, up to what is not there`, (t) => {
    const { device, offer } = make(t);
    device.open();
    offer.poll();
    const address = device.memory.allocate('packets', 3 * 4096);
    const vectors = offer.arena.reserve('vectors', 48);
    const to = offer.arena.reserve('copies', 3 * 4096);
    for (let i = 0; i < 3 * 4096; i++) device.arena.u8[address + i] = (i * 3 + (i >> 8)) & 0xff;
    const at = device.memory.pfn(address) * 4096n;
    const nowhere = 1n << 63n;
    offer.arena.u64.set([at + 4000n, 5000n, at, 7n, nowhere, 9n], vectors >>> 3);
    assert.equal(offer.copyGuest(vectors, 2, to, 5007), 5007);
    const copied = offer.arena.u8.slice(to, to + 5007);
    assert.deepEqual(copied.subarray(0, 5000), device.arena.u8.slice(address + 4000, address + 9000));
    assert.deepEqual(copied.subarray(5000), device.arena.u8.slice(address, address + 7));
    assert.equal(offer.copyGuest(vectors, 3, to, 5016), 5007);
    assert.equal(offer.copyGuest(vectors + 32, 1, to, 9), 0);
    for (const taken of [vectors, to]) offer.arena.release(taken);
    device.memory.release(address);
  });

  test(`${name}: 50 openings leave no descriptor and no arena memory behind`, (t) => {
    const { device, offer } = make(t);
    const cycle = () => {
      device.open();
      const address = device.memory.allocate('packets', 65_536);
      assert.equal(offer.poll().opened, true);
      assert.ok(offer.mapGuestPage(device.memory.pfn(address)), offer.lastRefusal);
      offer.signal();
      assert.equal(device.takeInterrupts(), 1);
      device.close();
      device.memory.release(address);
      assert.equal(offer.poll().closed, true);
    };
    cycle();
    const descriptors = openDescriptors();
    const free = [device.arena.free(), offer.arena.free()];
    for (let i = 0; i < 50; i++) cycle();
    assert.equal(openDescriptors(), descriptors);
    assert.deepEqual([device.arena.free(), offer.arena.free()], free);
  });
}

test('all arena memory came back', () => {
  for (const arena of [hostArena, guestArena]) assert.equal(arena.regions().length, 1);
});
