// The driver core of a machine directory: its files written to as a shell does, and what guests see of it.
import assert from 'node:assert/strict';
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { Arena } from '../../memory/arena.js';
import { linuxSystem } from '../../memory/os/mman.js';
import { NETVSC_CLASS } from '../device.js';
import { openUioDevice } from './device.js';
import { createMachine, type Machine } from './machine.js';
import { testMachineName } from './testing.js';

const UUID = '0022487b-5c2f-0022-487b-5c2f0022487b';
const SECOND = '0022487b-5c30-0022-487b-5c300022487b';
const SIZES = { ringBytes: 65_536, receiveBytes: 1 << 20, sendBytes: 1 << 20 };
const hostArena = Arena.create({ bytes: 16 << 20, system: linuxSystem });
const guestArena = Arena.create({ bytes: 16 << 20, system: linuxSystem });

interface Served {
  readonly machine: Machine;
  /** Writes to a file below /sys/bus/vmbus. */
  write(file: string, text: string): void;
  driver(uuid?: string): string | undefined;
  refusal(): string;
}

function serve(t: TestContext, uuids = [UUID]): Served {
  const nics = uuids.map((uuid, index) => ({ uuid, relid: 15 + index, ...SIZES }));
  const machine = createMachine(hostArena, { name: testMachineName(), nics });
  t.after(() => machine.close());
  const bus = `${machine.path}/sys/bus/vmbus`;
  return {
    machine,
    write: (file, text) => writeFileSync(`${bus}/${file}`, text),
    driver: (uuid = UUID) => {
      const link = `${bus}/devices/${uuid}/driver`;
      if (!existsSync(link)) return undefined;
      const driver = readlinkSync(link).split('/').at(-1)!;
      assert.equal(machine.drivers.driverOf(uuid), driver);
      assert.ok(lstatSync(`${bus}/drivers/${driver}/${uuid}`).isSymbolicLink());
      return driver;
    },
    refusal: () => machine.drivers.stats.lastRefusal.replace(`${bus}/`, ''),
  };
}

test('a new machine has its devices with uio_hv_generic; the command files are write-only', (t) => {
  const { machine, driver } = serve(t);
  assert.equal(driver(), 'uio_hv_generic');
  const bus = `${machine.path}/sys/bus/vmbus`;
  const commands = ['bind', 'new_id', 'remove_id', 'unbind'];
  const pipes = [
    'drivers_probe',
    ...commands.flatMap((name) => [`drivers/hv_netvsc/${name}`, `drivers/uio_hv_generic/${name}`]),
  ];
  for (const driver of ['hv_netvsc', 'uio_hv_generic']) {
    assert.deepEqual(
      readdirSync(`${bus}/drivers/${driver}`)
        .filter((name) => name !== UUID)
        .sort(),
      commands,
    );
  }
  for (const pipe of pipes) assert.ok(lstatSync(`${bus}/${pipe}`).isFIFO(), pipe);
  for (const pipe of pipes) assert.equal(lstatSync(`${bus}/${pipe}`).mode & 0o777, 0o200, pipe);
});

test('bound to hv_netvsc the device has no uio node and guests are told why; bound back it can be opened', (t) => {
  const { machine, write, driver } = serve(t);
  const offer = machine.offers[0]!;
  const device = openUioDevice(guestArena, machine.path, UUID);
  t.after(() => device.close());
  device.open();
  assert.equal(offer.poll().opened, true);
  const descriptors = readdirSync('/proc/self/fd').length;

  write('drivers/uio_hv_generic/unbind', `${UUID}\n`);
  write('drivers/hv_netvsc/bind', `${UUID}\n`);
  assert.equal(driver(), 'uio_hv_generic', 'nothing happens before the tick');
  machine.tick();
  assert.equal(driver(), 'hv_netvsc');
  assert.equal(device.takeInterrupts(), -1);
  assert.equal(offer.poll().closed, true);
  assert.equal(offer.poll().opened, false);
  assert.deepEqual(offer.fds, []);
  assert.deepEqual(readdirSync(`${machine.path}/dev`), []);
  assert.throws(() => openUioDevice(guestArena, machine.path, UUID), {
    name: 'VmbusError',
    message: /no uio node; uio_hv_generic is not bound to it, but hv_netvsc \('netvsc devbind set-override/,
  });

  write('drivers/hv_netvsc/unbind', UUID);
  machine.tick();
  assert.equal(driver(), undefined);
  assert.throws(() => openUioDevice(guestArena, machine.path, UUID), /is not bound to it, but no driver/);
  write('drivers/uio_hv_generic/bind', UUID);
  machine.tick();
  device.close();
  const again = openUioDevice(guestArena, machine.path, UUID);
  again.open();
  assert.equal(offer.poll().opened, true);
  again.close();
  assert.equal(offer.poll().closed, true);
  assert.equal(readdirSync('/proc/self/fd').length, descriptors - 5, 'sockets, the rings, the guest twice');
  assert.equal(machine.drivers.stats.refused, 0);
});

test('driver_override decides who gets a device, and reads "(null)" again once it is cleared', (t) => {
  const { machine, write, driver } = serve(t);
  const file = `devices/${UUID}/driver_override`;
  const reprobe = () => {
    write(`drivers/${driver()}/unbind`, UUID);
    write('drivers_probe', UUID);
    machine.tick();
  };
  reprobe();
  assert.equal(driver(), 'hv_netvsc', 'the first driver that matches');
  write(file, 'uio_hv_generic\n');
  reprobe();
  assert.equal(driver(), 'uio_hv_generic');
  write('drivers/uio_hv_generic/remove_id', NETVSC_CLASS);
  machine.tick();
  reprobe();
  assert.equal(driver(), 'uio_hv_generic', 'an override needs no id');
  write(file, '\n');
  reprobe();
  assert.equal(driver(), 'hv_netvsc');
  assert.equal(readFileSync(`${machine.path}/sys/bus/vmbus/${file}`, 'utf8'), '(null)\n');
  write(file, 'vfio-vmbus\n');
  reprobe();
  assert.equal(driver(), undefined);
  assert.equal(machine.drivers.stats.refused, 0);
});

test('new_id takes the devices that no driver has', (t) => {
  const { machine, write, driver } = serve(t, [UUID, SECOND]);
  write('drivers/uio_hv_generic/remove_id', `{${NETVSC_CLASS}}`);
  write('drivers/uio_hv_generic/unbind', UUID);
  write('drivers/uio_hv_generic/unbind', SECOND);
  write('drivers/hv_netvsc/bind', SECOND);
  machine.tick();
  assert.deepEqual([driver(), driver(SECOND)], [undefined, 'hv_netvsc'], 'two writes to one file are two commands');
  write('drivers/uio_hv_generic/new_id', NETVSC_CLASS);
  machine.tick();
  assert.deepEqual([driver(), driver(SECOND)], ['uio_hv_generic', 'hv_netvsc']);
});

const REFUSED: [string, string, string, RegExp][] = [
  ['bind of a bound device', 'drivers/hv_netvsc/bind', UUID, /^drivers\/hv_netvsc\/bind: EBUSY: .* uio_hv_generic/],
  ['unbind from another driver', 'drivers/hv_netvsc/unbind', UUID, /: ENODEV: .* is bound to uio_hv_generic/],
  ['no such device', 'drivers/uio_hv_generic/unbind', SECOND, /: ENODEV: no device/],
  ['no UUID', 'drivers_probe', 'eth0\n', /^drivers_probe: EINVAL: expected a UUID, got "eth0"/],
  ['an id twice', 'drivers/uio_hv_generic/new_id', NETVSC_CLASS, /: EEXIST: /],
  ['an id that was not added', 'drivers/hv_netvsc/remove_id', NETVSC_CLASS, /: ENODEV: class/],
];

for (const [name, file, text, reason] of REFUSED) {
  test(`refused as a kernel does, and nothing changes: ${name}`, (t) => {
    const { machine, write, driver, refusal } = serve(t);
    write(file, text);
    machine.tick();
    assert.equal(machine.drivers.stats.refused, 1);
    assert.match(refusal(), reason);
    assert.equal(driver(), 'uio_hv_generic');
    machine.tick();
    assert.equal(machine.drivers.stats.refused, 1);
  });
}

test('bind without id or override is refused; a probe that fails leaves the device without a driver', (t) => {
  const { machine, write, driver, refusal } = serve(t);
  write('drivers/uio_hv_generic/remove_id', NETVSC_CLASS);
  write('drivers/uio_hv_generic/unbind', UUID);
  write('drivers/uio_hv_generic/bind', UUID);
  machine.tick();
  assert.match(refusal(), /ENODEV: .* has no id or override for uio_hv_generic/);
  writeFileSync(`${machine.path}/dev/uio0`, 'in the way');
  write(`devices/${UUID}/driver_override`, 'uio_hv_generic');
  write('drivers_probe', UUID);
  machine.tick();
  assert.match(refusal(), /uio_hv_generic failed with .*EADDRINUSE/);
  assert.equal(driver(), undefined);
  // What was in the way went with the failed attempt.
  write('drivers_probe', UUID);
  machine.tick();
  assert.equal(driver(), 'uio_hv_generic');
});

test('files in the way, overrides that cannot be read and floods do not harm the host', (t) => {
  const { machine, write, driver, refusal } = serve(t);
  const uuidText = `${UUID}\n`;
  write('drivers/hv_netvsc/unbind', uuidText.repeat(1000));
  write(`devices/${UUID}/driver_override`, 'x'.repeat(10_000));
  write('drivers/uio_hv_generic/unbind', UUID);
  write('drivers_probe', UUID);
  machine.tick();
  assert.equal(machine.drivers.stats.refused, 1001);
  assert.match(refusal(), /driver_override: longer than an attribute/);
  write(`devices/${UUID}/driver_override`, '');
  write(`devices/${UUID}/driver`, 'in the way');
  write('drivers_probe', UUID);
  machine.tick();
  assert.match(refusal(), /hv_netvsc failed with .*EEXIST/);
  write('drivers_probe', UUID);
  machine.tick();
  assert.equal(driver(), 'hv_netvsc');
});
