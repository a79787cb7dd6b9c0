import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { createDatapath } from '../datapath/datapath.js';
import { Arena } from '../memory/arena.js';
import { linuxSystem } from '../memory/os/mman.js';
import { openUioDevice } from '../vmbus/uio/device.js';
import { testMachineName } from '../vmbus/uio/testing.js';
import { nvspVersionName } from '../wire/nvsp.js';
import { Host } from './host.js';
import { macText, nicMac, nicUuid, parseStationMac } from './identity.js';
import { PROFILES, profileNamed } from './profiles.js';
import { createRig, RawGuest, words } from './raw-guest-testing.js';
import { EchoUplink } from './uplinks/echo.js';

const V5 = 0x50000;

test('state is a plain object that says where everything stands', (t) => {
  const { guest, host } = createRig(t, { nics: [{}, {}], uplinks: [(context) => new EchoUplink(context)] });
  guest.attach(V5);
  const state = host.state();
  assert.deepEqual(JSON.parse(JSON.stringify(state)).nics[0].phase, 'ready');
  assert.deepEqual([state.machine, state.profile, state.nics.length, state.ports.length], ['test', 'ws2019', 2, 3]);
  const [first, second] = state.nics;
  assert.equal(first!.mac, macText(nicMac('test', 0)));
  assert.deepEqual(
    [first!.nvspVersion, first!.ndisVersion, first!.rndisOperational, first!.mtu],
    ['V5', '6.30', true, 1500],
  );
  assert.deepEqual([second!.phase, second!.nvspVersion, second!.opens], ['closed', undefined, 0]);
  assert.equal(state.ports[2]!.kind, 'echo');
  assert.equal(host.nic('nic1'), host.nics[1]);
  assert.equal(host.nic(first!.uuid), host.nics[0]);
  assert.throws(() => host.nic('nic7'), /no NIC nic7, there are nic0, nic1/);
});

test('sleeping: armed only when nothing waits, and a guest that sends then asks for the interrupt', (t) => {
  const { arena, guest, host, step, bus } = createRig(t);
  assert.equal(host.arm(), true, 'no guest');
  guest.attach(V5);
  const mask = (guest.opened.transmit.control + 8) >>> 2;
  assert.equal(arena.u32[mask], 1);
  step();
  assert.equal(host.arm(), true);
  assert.equal(arena.u32[mask], 0);
  host.disarm();
  assert.equal(arena.u32[mask], 1);
  guest.put(6, 0, 0n, words(129, 0));
  assert.equal(host.arm(), false, 'a message waits');
  assert.equal(arena.u32[mask], 1);
  step();
  assert.equal(host.arm(), true);
  host.disarm();
  assert.equal(host.step(), 0);

  bus.pairs[0]!.device.takeInterrupts();
  arena.u32[(guest.opened.receive.control + 8) >>> 2] = 0;
  const id = guest.putRndis(words(8, 12, 1));
  step();
  assert.equal(bus.pairs[0]!.device.takeInterrupts(), 1, 'one signal, empty to non-empty');
  guest.completion(id);
  guest.control();
  assert.deepEqual(host.fds(), []);
});

test('a NIC that the guest left is found at a tick or after sleep, too', (t) => {
  const { guest, host, step } = createRig(t);
  guest.attach(V5);
  guest.pair.device.close();
  host.tick(1);
  step();
  assert.equal(host.nics[0]!.phase, 'closed');
});

test('options that make no sense are refused, and nothing is left behind', (t) => {
  assert.throws(() => createRig(t, { nics: [{ mac: new Uint8Array(5) }] }), /6 address bytes/);
  const mac = parseStationMac('02:00:00:00:00:01');
  assert.throws(() => createRig(t, { nics: [{ mac }, { mac }] }), /belongs to nic0/);
  const broken = () => {
    throw new Error('no such uplink');
  };
  assert.throws(() => createRig(t, { uplinks: [broken] }), /no such uplink/);
  const { host } = createRig(t, { nics: [{ mac }] });
  assert.equal(host.state().nics[0]!.mac, '02:00:00:00:00:01');
  host.close();
  host.close();
});

test('NIC identities last, and differ', () => {
  assert.deepEqual(nicMac('a', 0), nicMac('a', 0));
  const all = ['a', 'b'].flatMap((machine) => [0, 1, 2, 255].map((index) => macText(nicMac(machine, index))));
  assert.equal(new Set(all).size, all.length);
  assert.ok(all.every((mac) => mac.startsWith('00:15:5d:')));
  assert.match(nicUuid('a', 0), /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(nicUuid('a', 0), nicUuid('a', 0));
  assert.notEqual(nicUuid('a', 0), nicUuid('a', 1));
  for (const index of [-1, 256, 1.5]) assert.throws(() => nicMac('a', index), /0 to 255/);
  for (const bad of ['', '01:00:00:00:00:00', '00:00:00:00:00:00', '00:11:22:33:44', 'zz:11:22:33:44:55']) {
    assert.throws(() => parseStationMac(bad), /12 hexadecimal digits/);
  }
});

test('profiles by name; a newer release never announces less than an older one of its line', () => {
  assert.equal(profileNamed('azure'), PROFILES.azure);
  for (const name of ['', 'ws2003', 'toString', '__proto__'])
    assert.throws(() => profileNamed(name), /ws2008r2, ws2012/);
  const line = [
    PROFILES.ws2008r2,
    PROFILES.ws2012,
    PROFILES.ws2012r2,
    PROFILES.ws2016,
    PROFILES.ws2019,
    PROFILES.ws2022,
  ];
  for (const [i, newer] of line.entries()) {
    const older = line[i - 1];
    if (!older) continue;
    assert.ok(newer.maxNvsp >= older.maxNvsp && newer.maxNdis >= older.maxNdis, newer.name);
    for (const [offload, can] of Object.entries(older.offloads)) {
      assert.ok(!can || newer.offloads[offload as keyof typeof newer.offloads], `${newer.name} ${offload}`);
    }
  }
  assert.deepEqual([0x60001, 2, 0x99].map(nvspVersionName), ['V6.1', 'V1', '0x99']);
});

test('a machine directory: a guest opens, sends by page ranges, goes, and the next one finds a fresh NIC', (t) => {
  const arena = Arena.create({ bytes: 80 << 20, system: linuxSystem });
  const machine = testMachineName();
  const datapath = createDatapath(arena.memory);
  const before = arena.free().bytes;
  const host = Host.create({ arena, datapath, machine, profile: 'ws2022', nics: [{ ringBytes: 65_536 }] });
  t.after(() => {
    host.close();
    assert.equal(arena.free().bytes, before);
  });
  const guestArena = Arena.create({ bytes: 80 << 20, system: linuxSystem });
  const device = openUioDevice(guestArena, host.path!, nicUuid(machine, 0));
  t.after(() => device.close());
  let nowMs = 0;
  const step = () => {
    host.tick(++nowMs);
    for (let i = 0; i < 8; i++) host.step();
  };
  const guest = new RawGuest(guestArena, { device, offer: host.nics[0]!.offer }, step);
  for (let round = 1; round <= 3; round++) {
    guest.attach(V5);
    assert.equal(host.nics[0]!.phase, 'ready');
    const id = guest.putRndisDirect(words(8, 12, 0x99));
    step();
    assert.equal(guest.completion(id), 1);
    assert.deepEqual(guest.control(), words(0x80000008, 16, 0x99, 0));
    assert.equal(host.nics[0]!.state().guestPages.regions, 1);
    assert.ok(host.fds().length >= 2);
    guest.close();
    step();
    assert.equal(host.nics[0]!.phase, 'closed');
    assert.equal(host.nics[0]!.state().guestPages.regions, 0);
    guest.releasePages();
  }
  assert.equal(host.nics[0]!.state().opens, 3);
});

test('NICs come and go while the machine runs: nothing is left of one, and the others do not notice', (t) => {
  const arena = Arena.create({ bytes: 256 << 20, system: linuxSystem });
  const machine = testMachineName();
  const datapath = createDatapath(arena.memory);
  const options = { ringBytes: 65_536 };
  const host = Host.create({ arena, datapath, machine, profile: 'ws2019', nics: [options, options] });
  t.after(() => host.close());
  const held = () => [arena.free().bytes, readdirSync('/proc/self/fd').length, readdirSync(`${host.path}/dev`).sort()];
  const uuids = () => readdirSync(`${host.path}/sys/bus/vmbus/devices`).sort();
  let nowMs = 0;
  const step = () => {
    host.tick(++nowMs);
    for (let i = 0; i < 8; i++) host.step();
  };
  const attach = (index: number) => {
    const guestArena = Arena.create({ bytes: 80 << 20, system: linuxSystem });
    const { offer } = host.nics[index]!;
    const device = openUioDevice(guestArena, host.path!, offer.uuid);
    t.after(() => device.close());
    const guest = new RawGuest(guestArena, { device, offer }, step);
    guest.attach(V5);
    return { guest, device };
  };
  const { guest: other } = attach(1);
  const without = held();
  const relids: number[] = [];
  for (let round = 0; round < 3; round++) {
    host.addNic(options);
    assert.deepEqual(
      host.state().nics.map(({ name }) => name),
      ['nic0', 'nic1', 'nic2'],
    );
    const third = host.nics[2]!;
    relids.push(third.offer.relid);
    assert.deepEqual(uuids(), host.nics.map(({ offer }) => offer.uuid).sort());
    const { device } = attach(2);
    assert.equal(third.phase, 'ready');
    assert.deepEqual(device.takeInterrupts() >= 0, true);
    host.removeNic('nic2');
    assert.equal(device.takeInterrupts(), -1, 'the guest is told');
    assert.throws(() => host.nic('nic2'), /no NIC nic2, there are nic0, nic1/);
    device.close();
    step();
    assert.deepEqual(held(), without);
  }
  assert.deepEqual(relids, [3, 3, 3]);
  // The first one goes: the next one takes its name and place.
  host.removeNic(host.nics[0]!.offer.uuid);
  assert.deepEqual(
    host.state().nics.map(({ name }) => name),
    ['nic1'],
  );
  host.addNic(options);
  assert.deepEqual(
    host
      .state()
      .nics.map(({ name, mac }) => [name, mac])
      .sort(),
    [
      ['nic0', macText(nicMac(machine, 0))],
      ['nic1', macText(nicMac(machine, 1))],
    ],
  );
  assert.throws(() => host.addNic({ uuid: host.nics[0]!.offer.uuid }), /there is a device of that id/);
  assert.throws(() => host.addNic({ mac: nicMac(machine, 1) }), /belongs to nic1/);
  assert.equal(host.nics.length, 2);
  const id = other.putRndis(words(8, 12, 1));
  step();
  assert.equal(other.completion(id), 1);
  other.control();
});

test('devices that were given to a host stay', (t) => {
  const { host } = createRig(t);
  assert.throws(() => host.addNic(), /were given to it/);
  assert.throws(() => host.removeNic('nic0'), /were given to it/);
});
