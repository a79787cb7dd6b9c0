// Every command on machine directories whose host runs in this process, on trees that nobody serves, and on broken ones.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { Arena } from '../../memory/arena.js';
import { linuxSystem } from '../../memory/os/mman.js';
import { createMachine, type Machine } from '../../vmbus/uio/machine.js';
import { testMachineName } from '../../vmbus/uio/testing.js';
import {
  type DevbindOptions,
  listDevices,
  listOverrides,
  loadOverride,
  setOverride,
  unsetOverride,
} from './devbind.js';

const UUID = '0022487b-5c2f-0022-487b-5c2f0022487b';
const SECOND = '0022487b-5c30-0022-487b-5c300022487b';
const DISK = 'f8b3781a-1e82-4818-a1c3-63d806ec15bb';
const VF = '0000:00:02.0';
const SIZES = { ringBytes: 65_536, receiveBytes: 1 << 20, sendBytes: 1 << 20 };
const arena = Arena.create({ bytes: 16 << 20, system: linuxSystem });

interface Served {
  readonly machine: Machine;
  readonly root: string;
  readonly bus: string;
  readonly saved: string;
  readonly options: DevbindOptions;
  driver(uuid?: string): string | undefined;
  override(): string;
  /** The host does nothing any more. */
  stop(): void;
}

function serve(t: TestContext, { override = true } = {}): Served {
  const nics = [UUID, SECOND].map((uuid, index) => ({ uuid, relid: 15 + index, ...SIZES }));
  const machine = createMachine(arena, { name: testMachineName(), nics });
  const timer = setInterval(() => machine.tick(), 1);
  t.after(() => {
    clearInterval(timer);
    machine.close();
  });
  const root = machine.path;
  const bus = `${root}/sys/bus/vmbus`;
  addInterfaces(root);
  if (!override) for (const uuid of [UUID, SECOND]) rmSync(`${bus}/devices/${uuid}/driver_override`);
  return {
    machine,
    root,
    bus,
    saved: `${root}/etc/driverctl.d/vmbus-${UUID}`,
    options: { root, patienceMs: 5000 },
    driver: (uuid = UUID) => machine.drivers.driverOf(uuid),
    override: () => readFileSync(`${bus}/devices/${UUID}/driver_override`, 'utf8').trim(),
    stop: () => clearInterval(timer),
  };
}

/** What a guest's kernel adds: a synthetic interface, its VF, one on USB, a virtual one; and a disk. */
function addInterfaces(root: string): void {
  const devices = `${root}/sys/bus/vmbus/devices`;
  const net = `${root}/sys/class/net`;
  for (const name of ['eth1', 'vf0', 'usb0', 'lo']) mkdirSync(`${net}/${name}`, { recursive: true });
  symlinkSync(`${devices}/${UUID}`, `${net}/eth1/device`);
  for (const [interfaceName, bus, device] of [
    ['vf0', 'pci', VF],
    ['usb0', 'usb', '1-1:1.0'],
  ] as const) {
    const at = `${root}/sys/devices/${device}`;
    mkdirSync(at, { recursive: true });
    mkdirSync(`${root}/sys/bus/${bus}`, { recursive: true });
    symlinkSync(`${root}/sys/bus/${bus}`, `${at}/subsystem`);
    symlinkSync(at, `${net}/${interfaceName}/device`);
  }
  mkdirSync(`${devices}/${DISK}`);
  writeFileSync(`${devices}/${DISK}/class_id`, '{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}\n');
}

/** Everything below a directory that a change would show in. */
function fingerprint(directory: string): string {
  const hash = createHash('sha256');
  const walk = (at: string) => {
    const status = lstatSync(at);
    hash.update(`${at} ${status.mode}\n`);
    if (status.isDirectory()) for (const name of readdirSync(at).sort()) walk(`${at}/${name}`);
    else if (status.isSymbolicLink()) hash.update(readlinkSync(at));
    else if (status.isFile()) hash.update(readFileSync(at));
  };
  walk(directory);
  return hash.digest('hex');
}

test('list-devices and list-overrides: drivers, overrides, interfaces; other classes and subchannels are not there', async (t) => {
  const { options, bus } = serve(t);
  mkdirSync(`${bus}/devices/${SECOND}/net/eth7`, { recursive: true });
  await setOverride(options, UUID, 'hv_netvsc');
  const override = undefined;
  const first = { uuid: UUID, driver: 'hv_netvsc', override: 'hv_netvsc', relid: 15, uio: undefined, interfaces: [] };
  assert.deepEqual(listDevices(options), [
    first,
    { uuid: SECOND, driver: 'uio_hv_generic', override, relid: 16, uio: 'uio1', interfaces: ['eth7'] },
  ]);
  assert.deepEqual(listOverrides(options), [first]);
});

for (const name of [UUID, UUID.toUpperCase(), `{${UUID}}`, 'eth1']) {
  test(`set-override and unset-override of ${name}: bound, saved, and back again`, async (t) => {
    const { options, driver, override, saved } = serve(t);
    const result = { uuid: UUID, driver: 'hv_netvsc', changed: true };
    assert.deepEqual(await setOverride(options, name, 'hv_netvsc'), result);
    assert.deepEqual([driver(), override(), readFileSync(saved, 'utf8')], ['hv_netvsc', 'hv_netvsc', 'hv_netvsc\n']);
    await setOverride(options, name, 'uio_hv_generic');
    assert.deepEqual([driver(), override()], ['uio_hv_generic', 'uio_hv_generic']);
    assert.equal(readFileSync(saved, 'utf8'), 'uio_hv_generic\n');
    assert.deepEqual(await setOverride(options, name, 'uio_hv_generic'), {
      ...{ uuid: UUID, driver: 'uio_hv_generic', changed: false },
    });
    assert.deepEqual(await unsetOverride(options, name), result);
    assert.deepEqual([driver(), override(), existsSync(saved)], ['hv_netvsc', '(null)', false]);
    assert.equal((await unsetOverride(options, name)).changed, false);
    assert.equal(driver(SECOND), 'uio_hv_generic');
  });
}

test('a driver that has the device already only becomes its override, without a gap', async (t) => {
  const { machine, options, driver, override } = serve(t);
  const steps: string[] = [];
  await setOverride({ ...options, noSave: true, log: (text) => steps.push(text) }, UUID, 'uio_hv_generic');
  assert.deepEqual([driver(), override()], ['uio_hv_generic', 'uio_hv_generic']);
  assert.equal(steps.length, 1);
  assert.equal(machine.drivers.stats.commands, 0);
});

test('--no-save keeps the configuration as it is; --save-dir says where it is', async (t) => {
  const { options, root, saved } = serve(t);
  await setOverride({ ...options, noSave: true }, UUID, 'hv_netvsc');
  assert.equal(existsSync(saved), false);
  const saveDir = `${root}/elsewhere/deep`;
  await setOverride({ ...options, saveDir }, UUID, 'hv_netvsc');
  await unsetOverride({ ...options, saveDir, noSave: true }, UUID);
  assert.deepEqual(readdirSync(saveDir), [`vmbus-${UUID}`]);
});

test('load-override does after a restart what was saved, also by driverctl', async (t) => {
  const { options, driver, override, saved } = serve(t);
  await assert.rejects(loadOverride(options, UUID), {
    name: 'VmbusError',
    message: /no override is saved \(.* is not t/,
  });
  mkdirSync(path.dirname(saved), { recursive: true });
  writeFileSync(saved, 'hv_netvsc\n');
  assert.equal((await loadOverride(options, 'eth1')).changed, true);
  assert.deepEqual([driver(), override()], ['hv_netvsc', 'hv_netvsc']);
  writeFileSync(saved, '../../etc\n');
  await assert.rejects(loadOverride(options, UUID), /vmbus-.*: expected the name of a driver, got "\.\.\/\.\.\/etc"/);
});

for (const absent of [true, false]) {
  test(`kernels before 4.18 ${absent ? 'have no driver_override: that is seen' : 'are asked for with --legacy'}`, async (t) => {
    const served = serve(t, { override: !absent });
    const { driver, saved, bus } = served;
    const steps: string[] = [];
    const log = (text: string) => steps.push(text.replace(`${bus}/`, ''));
    const options = { ...served.options, legacy: !absent, log };
    await setOverride(options, UUID, 'hv_netvsc');
    assert.equal(driver(), 'hv_netvsc');
    steps.length = 0;
    await setOverride(options, UUID, 'uio_hv_generic');
    assert.equal(driver(), 'uio_hv_generic');
    assert.deepEqual(steps.slice(absent ? 1 : 0, -1), [
      '"f8615163-df3e-46c5-913f-f2d2f965ed0e" to drivers/uio_hv_generic/new_id',
      `"${UUID}" to drivers/hv_netvsc/unbind`,
      `"${UUID}" to drivers/uio_hv_generic/bind`,
    ]);
    assert.equal(readFileSync(saved, 'utf8'), 'uio_hv_generic\n');
    assert.equal((await setOverride(options, UUID, 'uio_hv_generic')).changed, false);
    await unsetOverride(options, UUID);
    assert.deepEqual([driver(), existsSync(saved)], ['hv_netvsc', false]);
    // A device without a driver is taken by new_id before bind comes.
    writeFileSync(`${bus}/drivers/uio_hv_generic/remove_id`, 'f8615163-df3e-46c5-913f-f2d2f965ed0e');
    writeFileSync(`${bus}/drivers/hv_netvsc/unbind`, UUID);
    while (driver() !== undefined) await new Promise((resolve) => setTimeout(resolve, 1));
    await setOverride(options, UUID, 'uio_hv_generic');
    assert.equal(driver(), 'uio_hv_generic');
  });
}

const REFUSED: [string, string, string, RegExp][] = [
  [
    'no such device',
    '11111111-5c2f-0022-487b-5c2f0022487b',
    'hv_netvsc',
    new RegExp(`\\(on vmbus: ${UUID}, ${SECOND}\\)`),
  ],
  ['no such interface', 'eth9', 'hv_netvsc', /^eth9: no network device of that UUID, and no such interface/],
  ['no name', '../../..', 'hv_netvsc', /no such interface/],
  ['a disk', DISK, 'hv_netvsc', /is no network device, its class is \{ba6163d9-/],
  [
    'a PCI address',
    VF,
    'vfio-pci',
    /^0000:00:02\.0: is a PCI device: dpdk-devbind and driverctl do those; .* by itself$/,
  ],
  ['a short PCI address', '00:1f.2', 'vfio-pci', /^00:1f\.2: is a PCI device/],
  ['an interface on PCI', 'vf0', 'uio_hv_generic', /^interface vf0 \(0000:00:02\.0\): is a PCI device/],
  ['an interface on USB', 'usb0', 'uio_hv_generic', /^interface usb0: its device 1-1:1\.0 is on bus usb, not on vmbus/],
  ['a virtual interface', 'lo', 'uio_hv_generic', /^interface lo: there is no device behind it/],
  ['a driver that is not there', UUID, 'vfio-pci', /^no driver vfio-pci below .*\/drivers$/],
  ['a driver that is a path', UUID, '../hv_netvsc', /^driver: expected the name of a driver, got/],
];

for (const [what, name, driver, reason] of REFUSED) {
  test(`refused, and nothing changes: ${what}`, async (t) => {
    const { options, root } = serve(t);
    const before = fingerprint(root);
    await assert.rejects(setOverride(options, name, driver), { name: 'VmbusError', message: reason });
    assert.equal(fingerprint(root), before);
  });
}

test('--dry-run says each step and changes nothing, with and without driver_override', async (t) => {
  const { options, root, bus, machine } = serve(t);
  const steps: string[] = [];
  const dry = { ...options, dryRun: true, log: (text: string) => steps.push(text.replaceAll(`${root}/`, '')) };
  const before = fingerprint(root);
  assert.deepEqual(await setOverride(dry, UUID, 'hv_netvsc'), { uuid: UUID, driver: 'uio_hv_generic', changed: true });
  const device = `sys/bus/vmbus/devices/${UUID}`;
  assert.deepEqual(steps.splice(0), [
    `would write "${UUID}" to sys/bus/vmbus/drivers/uio_hv_generic/unbind`,
    `would check that ${device}/driver is no driver`,
    `would write "hv_netvsc" to ${device}/driver_override`,
    `would write "${UUID}" to sys/bus/vmbus/drivers_probe`,
    `would check that ${device}/driver is hv_netvsc`,
    `would save "hv_netvsc" in etc/driverctl.d/vmbus-${UUID}`,
  ]);
  await setOverride(dry, UUID, 'another_driver');
  assert.equal(steps.splice(0)[0], 'would run modprobe another_driver');
  await setOverride({ ...dry, legacy: true }, UUID, 'hv_netvsc');
  assert.equal(steps.splice(0).filter((step) => step.startsWith('would write')).length, 2);
  await unsetOverride(dry, UUID);
  assert.equal(steps.length, 5);
  assert.equal(fingerprint(root), before);
  assert.equal(machine.drivers.stats.commands, 0);
  assert.ok(bus);
});

test('a recorded tree can be listed and asked what would be done, nothing else', async (t) => {
  const { root, options } = serve(t);
  const copy = mkdtempSync(path.join(tmpdir(), 'netvsc-devbind-'));
  t.after(() => rmSync(copy, { recursive: true }));
  await setOverride(options, UUID, 'hv_netvsc');
  const plain = (from: string) => !lstatSync(from).isFIFO();
  cpSync(`${root}/sys`, `${copy}/sys`, { recursive: true, verbatimSymlinks: true, filter: plain });
  const before = fingerprint(copy);
  assert.deepEqual(listDevices({ root: copy }), listDevices({ root }));
  for (const command of [setOverride, unsetOverride, loadOverride]) {
    await assert.rejects(command({ root: copy }, UUID, 'uio_hv_generic'), /a recorded tree, nobody acts on its files/);
  }
  assert.equal((await setOverride({ root: copy, dryRun: true }, UUID, 'uio_hv_generic')).changed, true);
  assert.equal(fingerprint(copy), before);
});

const FAILURES: [string, (served: Served) => void, RegExp][] = [
  [
    'the driver does not take the device',
    ({ root }) => mkdirSync(`${root}/dev/uio0`),
    /expected it to be bound to uio_hv_generic, it is bound to no driver; undone, it is bound to hv_netvsc as before$/,
  ],
  [
    'a file cannot be written',
    ({ bus }) => {
      rmSync(`${bus}/drivers/hv_netvsc/unbind`);
      mkdirSync(`${bus}/drivers/hv_netvsc/unbind`);
    },
    /writing "0022487b-.*" to .*hv_netvsc\/unbind: EISDIR; undone, it is bound to hv_netvsc as before$/,
  ],
  [
    'the override cannot be written',
    ({ bus }) => {
      rmSync(`${bus}/devices/${UUID}/driver_override`);
      spawnSync('mkfifo', [`${bus}/devices/${UUID}/driver_override`]);
      // Seen as a kernel without overrides, whose way fails, too.
      rmSync(`${bus}/drivers/uio_hv_generic/new_id`);
    },
    /uio_hv_generic\/new_id: ENOENT \(there is no such file\); undone/,
  ],
  [
    'the host does nothing',
    ({ stop }) => stop(),
    /expected it to be bound to no driver, it is bound to hv_netvsc; undone, it is bound to hv_netvsc as before$/,
  ],
];

for (const [what, spoil, reason] of FAILURES) {
  test(`a failure puts everything back: ${what}`, async (t) => {
    const served = serve(t);
    const { options, driver, saved, machine, root } = served;
    await setOverride(options, UUID, 'hv_netvsc');
    await unsetOverride(options, UUID);
    spoil(served);
    const before = fingerprint(`${root}/sys`);
    await assert.rejects(setOverride({ ...options, patienceMs: 100 }, UUID, 'uio_hv_generic'), {
      name: 'VmbusError',
      message: reason,
    });
    assert.equal(driver(), 'hv_netvsc');
    assert.equal(existsSync(saved), false);
    assert.equal(fingerprint(`${root}/sys`), before);
    assert.equal(machine.drivers.driverOf(SECOND), 'uio_hv_generic');
  });
}

test('what cannot be saved is said, the binding stays', async (t) => {
  const { options, root, driver } = serve(t);
  writeFileSync(`${root}/file`, '');
  await assert.rejects(
    setOverride({ ...options, saveDir: `${root}/file/deep` }, UUID, 'hv_netvsc'),
    /the binding is changed, but cannot be kept over a restart: .*ENOTDIR \(--no-save does not try\)/,
  );
  assert.equal(driver(), 'hv_netvsc');
});

test('a machine whose host is gone is said to be so, at once', async (t) => {
  const { root } = serve(t);
  const copy = mkdtempSync(path.join(tmpdir(), 'netvsc-devbind-'));
  t.after(() => rmSync(copy, { recursive: true }));
  assert.equal(spawnSync('cp', ['-a', `${root}/sys`, copy]).status, 0);
  await assert.rejects(
    setOverride({ root: copy }, UUID, 'hv_netvsc'),
    /uio_hv_generic\/unbind: ENXIO \(nobody reads it: the host of this machine is gone\); undone/,
  );
});
