// What both backends promise of subchannels, and of the ways in which channels tell the host that they have news.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { MonitorPage, RING_CONTROL } from '../wire/vmbus.js';
import { BACKENDS, guestArena, hostArena } from './backends-testing.js';
import type { Subchannel, SubchannelOffer, VmbusDevice, VmbusOffer } from './device.js';

const { in: IN, interruptMask: MASK, featureBits: FEATURES } = RING_CONTROL.offset;
const openDescriptors = () => readdirSync('/proc/self/fd').length;

function offerSome(device: VmbusDevice, offer: VmbusOffer, count: number): [Subchannel, SubchannelOffer][] {
  const made = Array.from({ length: count }, () => offer.createSubchannel());
  for (const subchannel of made) subchannel.publish();
  const found = Array.from({ length: count }, () => device.openSubchannel()!);
  return made.map((host) => [found.find(({ subchannelId }) => subchannelId === host.subchannelId)!, host]);
}

for (const [name, make] of Object.entries(BACKENDS)) {
  test(`${name}: subchannels are there once they are published, each is found once, and bytes cross both ways`, (t) => {
    const { device, offer } = make(t);
    assert.throws(() => offer.createSubchannel(), { name: 'VmbusError', message: /no guest has the channel open/ });
    assert.equal(device.openSubchannel(), undefined);
    device.open();
    offer.poll();
    const hidden = offer.createSubchannel();
    assert.equal(device.openSubchannel(), undefined);
    hidden.publish();
    const first = device.openSubchannel()!;
    assert.equal(device.openSubchannel(), undefined);
    const pairs: [Subchannel, SubchannelOffer][] = [[first, hidden], ...offerSome(device, offer, 3)];
    assert.equal(device.openSubchannel(), undefined);
    assert.deepEqual(
      pairs.map(([guest]) => guest.subchannelId),
      [1, 2, 3, 4],
    );
    assert.equal(new Set([device.relid, ...pairs.map(([guest]) => guest.relid)]).size, 5);
    for (const [i, [guest, host]] of pairs.entries()) {
      assert.deepEqual([guest.relid, guest.monitorId], [host.relid, undefined]);
      assert.deepEqual([guest.transmit.dataBytes, guest.receive.dataBytes], [32_768 - 4096, 32_768 - 4096]);
      assert.deepEqual([host.fromGuest.dataBytes, host.toGuest.dataBytes], [32_768 - 4096, 32_768 - 4096]);
      assert.equal(device.arena.u32[(guest.transmit.control + MASK) >>> 2], 1, 'the host polls');
      assert.equal(device.arena.u32[(guest.receive.control + FEATURES) >>> 2], 1);
      for (const [ours, theirs] of [
        [guest.transmit, host.fromGuest],
        [guest.receive, host.toGuest],
      ] as const) {
        assert.equal(device.arena.u32[(ours.control + IN) >>> 2], 0);
        device.arena.u8[ours.control + 5000] = 0x10 + i;
        assert.equal(offer.arena.u8[theirs.control + 5000], 0x10 + i);
      }
    }
  });

  test(`${name}: one source of interrupts for all channels, both ways`, (t) => {
    const { device, offer } = make(t);
    device.open();
    offer.poll();
    const pairs = offerSome(device, offer, 2);
    assert.equal(offer.monitorMs, undefined);
    device.signal();
    for (const [guest] of pairs) guest.signal();
    assert.equal(offer.poll().interrupts, 3);
    assert.equal(offer.poll().interrupts, 0);
    offer.signal();
    for (const [, host] of pairs) host.signal();
    assert.equal(device.takeInterrupts(), 3);
    assert.equal(device.takeInterrupts(), 0);
  });

  test(`${name}: channels with a monitor trigger the host without an interrupt; a latency of 0 is ignored`, (t) => {
    const { device, offer } = make(t, { monitor: true });
    assert.equal(device.monitorId, 0);
    assert.equal(offer.monitorId, 0);
    assert.equal(offer.monitorMs, undefined);
    device.open();
    offer.poll();
    assert.equal(offer.monitorMs, 0.1, 'what network channels ask for');
    const pairs = offerSome(device, offer, 33);
    assert.deepEqual(
      pairs.map(([guest]) => guest.monitorId),
      Array.from({ length: 33 }, (_, i) => i + 1),
    );
    const fds = offer.fds.length;
    device.signal();
    pairs[0]![0].signal();
    pairs[32]![0].signal();
    pairs[32]![0].signal();
    assert.equal(offer.poll().interrupts, 3);
    assert.equal(offer.poll().interrupts, 0);
    assert.equal(offer.fds.length, fds);
    const page = offer.arena.regions().find((region) => /monitor.page/.test(region.name))!;
    const latency = (id: number) => (page.address + MonitorPage.offset.latency + 2 * id) >>> 1;
    for (let id = 0; id <= 33; id++) offer.arena.u16[latency(id)] = 65_535;
    assert.equal(offer.monitorMs, 6.5535);
    offer.arena.u16[latency(7)] = 500;
    assert.equal(offer.monitorMs, 0.05);
    offer.arena.u16[latency(7)] = 0;
    assert.equal(offer.monitorMs, 0.1);
    device.close();
    offer.poll();
    assert.equal(offer.monitorMs, undefined);
  });

  test(`${name}: subchannels end with the opening, and with the device`, (t) => {
    const { device, offer } = make(t);
    device.open();
    offer.poll();
    const [[guest, host]] = offerSome(device, offer, 2) as [[Subchannel, SubchannelOffer]];
    device.close();
    assert.equal(device.openSubchannel(), undefined);
    assert.equal(offer.poll().closed, true);
    guest.signal();
    host.signal();
    device.open();
    offer.poll();
    assert.equal(device.openSubchannel(), undefined);
    assert.equal(offer.createSubchannel().subchannelId, 1);
    offerSome(device, offer, 1);
    offer.rescind();
    assert.equal(device.takeInterrupts(), -1);
    assert.throws(() => offer.createSubchannel(), { name: 'VmbusError' });
    device.close();
    assert.equal(device.openSubchannel(), undefined);
  });

  test(`${name}: 50 openings with 7 subchannels leave no descriptor, no arena memory and no file behind`, (t) => {
    const { device, offer, root } = make(t);
    const cycle = () => {
      device.open();
      offer.poll();
      const relids = offerSome(device, offer, 7).map(([guest]) => guest.relid);
      device.close();
      assert.equal(offer.poll().closed, true);
      return relids;
    };
    const relids = cycle();
    const before = [openDescriptors(), device.arena.free(), offer.arena.free()];
    for (let i = 0; i < 50; i++) assert.deepEqual(cycle(), relids, 'channel ids are used again');
    assert.deepEqual([openDescriptors(), device.arena.free(), offer.arena.free()], before);
    if (root) assert.deepEqual(readdirSync(`${device.location}/channels`), ['15']);
  });

  test(`${name}: no subchannel when there is no memory for its rings, and the others live on`, (t) => {
    const { device, offer } = make(t);
    device.open();
    offer.poll();
    offerSome(device, offer, 1);
    const name = 'everything';
    const taken = offer.arena.reserve(name, offer.arena.free().largest - 8192);
    try {
      assert.throws(() => offer.createSubchannel(), { name: 'VmbusError', message: /no subchannel/ });
    } finally {
      offer.arena.release(taken);
    }
    assert.equal(offerSome(device, offer, 1)[0]![0].subchannelId, 2);
  });
}

test('uio: the tree of a subchannel, and what is no subchannel', (t) => {
  const { device, offer } = BACKENDS.uio!(t, { monitor: true });
  device.open();
  offer.poll();
  const made = offer.createSubchannel();
  made.publish();
  const channels = `${device.location}/channels`;
  const path = `${channels}/${made.relid}`;
  assert.deepEqual(readdirSync(path).sort(), ['monitor_id', 'ring', 'subchannel_id']);
  assert.equal(readFileSync(`${path}/subchannel_id`, 'utf8'), '1\n');
  assert.equal(readFileSync(`${path}/monitor_id`, 'utf8'), '1\n');
  const ring = statSync(`${path}/ring`);
  assert.deepEqual([ring.mode & 0o777, ring.size], [0o600, 65_536]);
  // Not yet there, or never to be: names that are none, files that are missing.
  for (const other of ['x', '99999', '0', '.7']) mkdirSync(`${channels}/${other}`);
  mkdirSync(`${channels}/77`);
  mkdirSync(`${channels}/78`);
  writeFileSync(`${channels}/78/subchannel_id`, '2\n');
  assert.equal(device.openSubchannel()?.relid, made.relid);
  assert.equal(device.openSubchannel(), undefined);
  // It appears later on, file by file.
  symlinkSync(`${path}/ring`, `${channels}/78/ring`);
  assert.equal(device.openSubchannel()?.subchannelId, 2);
  // Rings that are none.
  writeFileSync(`${channels}/77/subchannel_id`, '3\n');
  writeFileSync(`${channels}/77/ring`, new Uint8Array(65_536));
  assert.throws(() => device.openSubchannel(), { name: 'VmbusError', message: /77\/ring: .*sealed against shrinking/ });
  writeFileSync(`${channels}/77/subchannel_id`, 'three\n');
  assert.throws(() => device.openSubchannel(), { name: 'VmbusError', message: /subchannel_id: expected a number/ });
  offer.rescind();
  assert.equal(existsSync(path), false);
});

test('all arena memory came back', () => {
  for (const arena of [hostArena, guestArena]) assert.equal(arena.regions().length, 1);
});
