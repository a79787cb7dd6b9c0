// A machine directory from outside: its files, guests that misbehave, peers that die.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { Arena } from '../../memory/arena.js';
import { linuxSystem } from '../../memory/os/mman.js';
import { connectUnix, receiveWord, sendBytes, sendWord } from '../../memory/os/socket.js';
import { RING_CONTROL } from '../../wire/vmbus.js';
import { openUioDevice } from './device.js';
import { createMachine, type Machine } from './machine.js';
import { scanBus } from './scan.js';
import { startPeer, testMachineName } from './testing.js';

const UUID = '0022487b-5c2f-0022-487b-5c2f0022487b';
const SECOND = '0022487b-5c30-0022-487b-5c300022487b';
const SIZES = { ringBytes: 65_536, receiveBytes: 1 << 20, sendBytes: 1 << 20 };
const hostArena = Arena.create({ bytes: 16 << 20, system: linuxSystem });
const guestArena = Arena.create({ bytes: 16 << 20, system: linuxSystem });

function serve(t: TestContext, uuids = [UUID]): Machine {
  const nics = uuids.map((uuid, index) => ({ uuid, relid: 15 + index, ...SIZES }));
  const machine = createMachine(hostArena, { name: testMachineName(), nics });
  t.after(() => machine.close());
  return machine;
}

/** A guest that knows the socket and nothing else. */
function connect(t: TestContext, machine: Machine): { fd: number; close(): void } {
  const fd = connectUnix(`${machine.path}/dev/uio0`);
  let open = true;
  const close = () => {
    if (open) closeSync(fd);
    open = false;
  };
  t.after(close);
  return { fd, close };
}

const maskOf = (machine: Machine) =>
  hostArena.u32[(machine.offers[0]!.toGuest.control + RING_CONTROL.offset.interruptMask) >>> 2];

test('the tree is what a kernel shows, for nobody but its user, and goes with the machine', (t) => {
  const machine = serve(t, [UUID, SECOND]);
  const device = `${machine.path}/sys/bus/vmbus/devices/${SECOND}`;
  const text = (file: string) => readFileSync(`${device}/${file}`, 'utf8');
  assert.equal(text('class_id'), '{f8615163-df3e-46c5-913f-f2d2f965ed0e}\n');
  assert.equal(text('device_id'), `{${SECOND}}\n`);
  assert.equal(text('id'), '16\n');
  assert.equal(text('vendor'), '0x1414\n');
  assert.equal(text('driver_override'), '(null)\n');
  assert.equal(text('uio/uio1/name'), 'uio_hv_generic\n');
  assert.equal(text('uio/uio1/maps/map0/size'), '0x0000000000010000\n');
  assert.deepEqual(
    [0, 1, 2, 3, 4].map((map) => text(`uio/uio1/maps/map${map}/name`).trimEnd()),
    ['txrx_rings', 'int_page', 'monitor_page', 'recv:925202', 'send:925203'],
  );
  assert.equal(text('channels/16/subchannel_id'), '0\n');
  assert.equal(statSync(`${device}/channels/16/ring`).ino, statSync(`${machine.path}/dev/uio1.map0`).ino);
  assert.equal(text('monitor_id'), '1\n');
  const socket = lstatSync(`${machine.path}/dev/uio1`);
  assert.ok(socket.isSocket());
  for (const file of [`${machine.path}/dev/uio1`, `${machine.path}/dev/uio1.map3`, `${device}/id`]) {
    assert.equal(statSync(file).mode & 0o777, 0o600, file);
  }
  assert.equal(statSync(machine.path).mode & 0o077, 0);
  assert.match(readlinkSync(`${machine.path}/dev/uio1.map4`), new RegExp(`^/proc/${process.pid}/fd/\\d+$`));
  assert.deepEqual(
    scanBus(machine.path).devices.map((found) => [found.uuid, found.relid, found.uio]),
    [
      [UUID, 15, 'uio0'],
      [SECOND, 16, 'uio1'],
    ],
  );
  machine.offers[1]!.rescind();
  assert.deepEqual(
    scanBus(machine.path).devices.map((found) => found.uuid),
    [UUID],
  );
  assert.deepEqual(readdirSync(`${machine.path}/dev`).sort(), ['uio0', ...[0, 1, 2, 3, 4].map((n) => `uio0.map${n}`)]);
  machine.close();
  machine.close();
  assert.equal(existsSync(machine.path), false);
});

test('a second guest is told that the device is in use, and a stranger is closed at once', (t) => {
  const machine = serve(t);
  const offer = machine.offers[0]!;
  const device = openUioDevice(guestArena, machine.path, UUID);
  t.after(() => device.close());
  device.open();
  offer.poll();
  const second = openUioDevice(guestArena, machine.path, UUID);
  assert.throws(() => second.open(), { name: 'VmbusError', message: /in use: another guest has the channel open/ });
  const stranger = connect(t, machine);
  assert.deepEqual({ ...offer.poll() }, { opened: false, closed: false, interrupts: 0 });
  assert.ok(receiveWord(stranger.fd) < 0 && !(receiveWord(stranger.fd) === -11), 'connection must be closed');
  assert.equal(offer.stats.refusedBusy, 1);
  device.signal();
  assert.equal(offer.poll().interrupts, 1);
  device.close();
  offer.poll();
  second.open();
  assert.equal(offer.poll().opened, true);
  second.close();
});

test('a guest that only connects gets zeroed rings, and keeps others out', (t) => {
  const machine = serve(t);
  const offer = machine.offers[0]!;
  hostArena.u8.fill(0xee, offer.fromGuest.control, offer.fromGuest.control + 128);
  const guest = connect(t, machine);
  assert.equal(offer.poll().opened, true);
  assert.equal(hostArena.u32[offer.fromGuest.control >>> 2], 0);
  const device = openUioDevice(guestArena, machine.path, UUID);
  assert.throws(() => device.open(), /in use/);
  guest.close();
  assert.equal(offer.poll().closed, true);
  device.open();
  assert.equal(offer.poll().opened, true);
  device.close();
});

test('words of the guest: mask, unmask and signal, signal alone, junk', (t) => {
  const machine = serve(t);
  const offer = machine.offers[0]!;
  const { fd } = connect(t, machine);
  offer.poll();
  sendWord(fd, 0);
  assert.equal(offer.poll().interrupts, 0);
  assert.equal(maskOf(machine), 1);
  sendWord(fd, 2);
  assert.equal(offer.poll().interrupts, 1);
  assert.equal(maskOf(machine), 1);
  sendWord(fd, 1);
  assert.equal(offer.poll().interrupts, 1);
  assert.equal(maskOf(machine), 0);
  for (const word of [3, 0x100, 0x8000_0000, 0xffff_ffff]) sendWord(fd, word);
  assert.equal(offer.poll().interrupts, 0);
  assert.equal(offer.stats.commandsIgnored, 4);
  assert.equal(maskOf(machine), 0);
});

test('a guest says how much of the receive buffer its GPADL covers, for one opening', (t) => {
  const machine = serve(t);
  const offer = machine.offers[0]!;
  const all = offer.receiveBuffer.bytes;
  const device = openUioDevice(guestArena, machine.path, UUID);
  assert.equal(device.sizesReceiveBuffer, true);
  const sizes = [undefined, 5 * 4096, 5 * 4096 - 1, all + 4096, all].map((bytes) => {
    device.open(bytes);
    assert.equal(offer.poll().opened, true);
    const covered = offer.receiveBytes();
    device.close();
    assert.equal(offer.poll().closed, true);
    return covered;
  });
  assert.deepEqual(sizes, [all, 5 * 4096, 5 * 4096, all, all]);
  const { fd } = connect(t, machine);
  offer.poll();
  for (const [word, covered] of [
    [0x4e56_0002, 8192],
    [0x4e56_0000, 8192], // no pages: no such command
    [0x4e57_0001, 8192],
    [0x4e56_ffff, all],
  ] as const) {
    sendWord(fd, word);
    assert.equal(offer.receiveBytes(), covered);
  }
  assert.equal(offer.stats.commandsIgnored, 2);
});

test('a guest that sends pieces, floods, or hangs up in the middle of a word harms nobody', (t) => {
  const machine = serve(t);
  const offer = machine.offers[0]!;
  const guest = connect(t, machine);
  offer.poll();
  for (const byte of [1, 0, 0]) sendBytes(guest.fd, Uint8Array.of(byte), 1);
  assert.equal(offer.poll().interrupts, 0);
  sendBytes(guest.fd, Uint8Array.of(0, 1, 0, 0, 0, 1), 6);
  assert.equal(offer.poll().interrupts, 2);
  let sent = 0;
  const flood = new Uint8Array(65_536).fill(0xff);
  while (sent < 1 << 20) {
    const took = sendBytes(guest.fd, flood, flood.length);
    if (took < 0) break;
    sent += took;
  }
  assert.ok(sent > 0);
  for (let i = 0; i < 10; i++) assert.equal(offer.poll().closed, false);
  assert.equal(offer.stats.commandsIgnored, Math.floor((2 + sent) / 4));
  sendBytes(guest.fd, Uint8Array.of(1), 1);
  guest.close();
  assert.equal(offer.poll().closed, true);
  // The half word is not carried over into the next connection.
  const next = connect(t, machine);
  assert.equal(offer.poll().opened, true);
  sendWord(next.fd, 1);
  assert.equal(offer.poll().interrupts, 1);
});

test('a queue of strangers is refused in bounded steps', (t) => {
  const machine = serve(t);
  const offer = machine.offers[0]!;
  connect(t, machine);
  offer.poll();
  for (let i = 0; i < 12; i++) connect(t, machine);
  offer.poll();
  offer.poll();
  assert.equal(offer.stats.refusedBusy, 12);
  assert.equal(offer.stats.opened, 1);
});

test('a killed guest is closed within one poll, its memory is let go, and the next guest gets in', async (t) => {
  const machine = serve(t);
  const offer = machine.offers[0]!;
  const before = hostArena.regions().length;
  for (let round = 0; round < 2; round++) {
    const guest = await startPeer(t, 'guest', machine.path, UUID);
    const first = offer.poll();
    assert.deepEqual({ ...first, interrupts: 0 }, { opened: true, closed: false, interrupts: 0 });
    assert.equal(first.interrupts + offer.poll().interrupts, 1);
    assert.equal(hostArena.u8[offer.fromGuest.control + 4096], 0x43);
    const region = offer.mapGuestPage(BigInt(guest.facts.pfn!) + 3n);
    assert.ok(region, offer.lastRefusal);
    assert.equal(hostArena.u8[region.address + 3 * 4096], 0x42);
    await guest.kill();
    // The dead guest's memory can still be read until the close has been heard.
    assert.equal(hostArena.u8[region.address], 0x42);
    assert.deepEqual({ ...offer.poll() }, { opened: false, closed: true, interrupts: 0 });
    assert.equal(hostArena.regions().length, before);
    assert.equal(offer.mapGuestPage(region.pfn), undefined);
    assert.match(offer.lastRefusal, /no guest/);
  }
});

test('a killed host is noticed by the next look, and a restarted one can be opened', async (t) => {
  const name = testMachineName();
  for (let round = 0; round < 2; round++) {
    const host = await startPeer(t, 'host', name);
    const device = openUioDevice(guestArena, host.facts.path!, host.facts.uuid!);
    t.after(() => device.close());
    const { transmit } = device.open();
    assert.equal(device.takeInterrupts(), 0);
    if (round === 0) await host.kill();
    if (round > 0) continue;
    assert.equal(device.takeInterrupts(), -1);
    device.signal();
    // Its files stay readable for those who have them mapped.
    assert.equal(guestArena.u32[transmit.control >>> 2], 0);
    device.close();
    assert.throws(() => device.open(), { name: 'VmbusError', message: /cannot open/ });
  }
});

const DISTRUSTED: [string, (machine: Machine, maps: string) => void, RegExp][] = [
  ['another name', (_, maps) => write(`${maps}/map1/name`, 'txrx_rings'), /map1\/name: expected int_page, got "txrx_r/],
  ['no GPADL', (_, maps) => write(`${maps}/map3/name`, 'recv:'), /map3\/name: expected a number from 1/],
  ['GPADL too large', (_, maps) => write(`${maps}/map4/name`, 'send:4294967296'), /map4\/name: expected a number/],
  ['odd size', (_, maps) => write(`${maps}/map4/size`, '0x1001'), /map4\/size: expected whole pages, got 4097/],
  ['huge size', (_, maps) => write(`${maps}/map4/size`, '0xffffffffffffffff'), /map4\/size: expected a number/],
  ['rings of one page', (_, maps) => write(`${maps}/map0/size`, '4096'), /rings: expected two halves/],
  ['size beyond the file', (_, maps) => write(`${maps}/map3/size`, '0x200000'), /expected at least 2097152 bytes/],
  ['file on a disk', (machine) => replaceMap(machine), /expected a file sealed against shrinking/],
  ['a map is missing', (_, maps) => rmSync(`${maps}/map2`, { recursive: true }), /map2\/name: cannot be read \(ENOENT/],
  ['no uio node', (_, maps) => rmSync(path.resolve(maps, '..'), { recursive: true }), /uio_hv_generic is not bound/],
];

const write = (file: string, text: string) => writeFileSync(file, `${text}\n`);

function replaceMap(machine: Machine): void {
  const link = `${machine.path}/dev/uio0.map4`;
  rmSync(link);
  writeFileSync(link, Buffer.alloc(1 << 20));
}

for (const [name, spoil, reason] of DISTRUSTED) {
  test(`a guest refuses a device whose maps are not right: ${name}`, (t) => {
    const machine = serve(t);
    spoil(machine, `${machine.path}/sys/bus/vmbus/devices/${UUID}/uio/uio0/maps`);
    const before = [guestArena.regions().length, readdirSync('/proc/self/fd').length];
    assert.throws(() => openUioDevice(guestArena, machine.path, UUID).open(), { name: 'VmbusError', message: reason });
    assert.deepEqual([guestArena.regions().length, readdirSync('/proc/self/fd').length], before);
    assert.equal(machine.offers[0]!.poll().opened, false);
  });
}

test('a device that is not there is named, with those that are', (t) => {
  const machine = serve(t);
  assert.throws(() => openUioDevice(guestArena, machine.path, SECOND), {
    name: 'VmbusError',
    message: new RegExp(`${SECOND}: no such network device below .* \\(there: ${UUID}\\)`),
  });
});

test('a machine that cannot be made leaves nothing behind', () => {
  const descriptors = readdirSync('/proc/self/fd').length;
  const name = testMachineName();
  const nics = [
    { uuid: UUID, relid: 15, ...SIZES },
    { uuid: SECOND, relid: 16, receiveBytes: 1 << 30 },
  ];
  assert.throws(() => createMachine(hostArena, { name, nics }), { name: 'VmbusError', message: /no room/ });
  assert.equal(readdirSync('/proc/self/fd').length, descriptors);
  assert.equal(hostArena.regions().length, 1);
});

test('a guest that closes the channel and opens it at once is not told that it is in use', async (t) => {
  const machine = serve(t);
  const [offer] = machine.offers as [Machine['offers'][0]];
  const visits = 100;
  await startPeer(t, 'visitor', machine.path, String(visits / 2));
  const { stats } = offer;
  const end = performance.now() + 60_000;
  while (stats.closed + stats.refusedBusy < visits && performance.now() < end) {
    for (let i = 0; i < 100; i++) offer.poll();
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual([stats.opened, stats.closed, stats.refusedBusy], [visits, visits, 0]);
});

test('a channel that is closed while another thread sleeps on it is closed, and can be opened again', async (t) => {
  const machine = serve(t);
  const [offer] = machine.offers as [Machine['offers'][0]];
  const device = openUioDevice(guestArena, machine.path, UUID);
  device.open();
  assert.equal(offer.poll().opened, true);
  const sleeper = new Worker(new URL('./poller-testing.js', import.meta.url), {
    workerData: { fd: device.interruptFd, ms: 20_000 },
  });
  t.after(() => sleeper.terminate());
  const ended = once(sleeper, 'exit');
  await once(sleeper, 'message');
  await sleep(200); // it says so before it does
  device.close();
  device.open();
  t.after(() => device.close());
  assert.equal(offer.poll().closed, true);
  assert.equal(offer.poll().opened, true);
  assert.equal(offer.stats.refusedBusy, 0);
  await ended; // the hang-up woke it
});
