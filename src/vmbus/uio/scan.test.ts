import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { NETVSC_CLASS, VmbusError } from '../device.js';
import { parseNumber, parseUuid } from './attributes.js';
import { scanBus } from './scan.js';

const FIRST = '0022487b-5c2f-0022-487b-5c2f0022487b';
const SECOND = '000d3a6e-1b0c-000d-3a6e-1b0c000d3a6e';
const NIC = { class_id: `{${NETVSC_CLASS}}\n`, device_id: `{${FIRST}}\n`, id: '15\n' };
/** The files of a storage device on an Azure guest. */
const DISK = {
  class_id: '{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}\n',
  device_id: '{f8b3781a-1e82-4818-a1c3-63d806ec15bb}\n',
  id: 'not even read\n',
};

function tree(t: TestContext): { root: string; add(name: string, files: Record<string, string>): string } {
  const root = mkdtempSync(path.join(tmpdir(), 'netvsc-scan-'));
  t.after(() => rmSync(root, { recursive: true }));
  const bus = path.join(root, 'sys/bus/vmbus/devices');
  mkdirSync(bus, { recursive: true });
  const add = (name: string, files: Record<string, string>) => {
    const device = path.join(bus, name);
    for (const [file, text] of Object.entries(files)) {
      mkdirSync(path.dirname(path.join(device, file)), { recursive: true });
      writeFileSync(path.join(device, file), text);
    }
    return device;
  };
  return { root, add };
}

test('a tree as an Azure guest shows it: network devices only, sorted, with and without uio', (t) => {
  const { root, add } = tree(t);
  add('f8b3781a-1e82-4818-a1c3-63d806ec15bb', DISK);
  // Devices of the bus are symlinks into /sys/devices; an old kernel names them vmbus_N.
  const real = add('../../../devices/vmbus_15', { ...NIC, monitor_id: '3\n', 'uio/uio2/name': 'uio_hv_generic\n' });
  symlinkSync(real, path.join(root, 'sys/bus/vmbus/devices', FIRST));
  symlinkSync('../../../bus/vmbus/drivers/uio_hv_generic', path.join(real, 'driver'));
  const second = add('vmbus_16', { ...NIC, device_id: `${SECOND.toUpperCase()}\n`, id: '0x10\n', monitor_id: '255\n' });
  const scan = scanBus(root);
  assert.deepEqual(scan.problems, []);
  assert.deepEqual(scan.devices, [
    {
      uuid: SECOND,
      classId: NETVSC_CLASS,
      relid: 16,
      monitorId: undefined,
      path: second,
      uio: undefined,
      driver: undefined,
    },
    {
      uuid: FIRST,
      classId: NETVSC_CLASS,
      relid: 15,
      monitorId: 3,
      path: path.join(root, 'sys/bus/vmbus/devices', FIRST),
      uio: 'uio2',
      driver: 'uio_hv_generic',
    },
  ]);
});

test('no bus is no device, a bus that cannot be listed is an error', (t) => {
  const { root } = tree(t);
  assert.deepEqual(scanBus(path.join(root, 'nowhere')), { devices: [], problems: [] });
  rmSync(path.join(root, 'sys/bus/vmbus/devices'), { recursive: true });
  writeFileSync(path.join(root, 'sys/bus/vmbus/devices'), '');
  assert.throws(() => scanBus(root), /sys\/bus\/vmbus\/devices: cannot be listed \(ENOTDIR\)/);
});

const MALFORMED: [string, Record<string, string>, RegExp][] = [
  ['class missing', { device_id: NIC.device_id, id: '1\n' }, /class_id: cannot be read \(ENOENT\)/],
  ['class is junk', { ...NIC, class_id: 'ethernet\n' }, /class_id: expected a UUID, got "ethernet"/],
  ['device id missing', { class_id: NIC.class_id, id: '1\n' }, /device_id: cannot be read \(ENOENT\)/],
  ['device id is junk', { ...NIC, device_id: '{zz}\n' }, /device_id: expected a UUID/],
  ['device id has a second line', { ...NIC, device_id: `${FIRST}\n${SECOND}\n` }, /device_id: expected a UUID/],
  ['relid missing', { class_id: NIC.class_id, device_id: NIC.device_id }, /\/id: cannot be read \(ENOENT\)/],
  ['relid empty', { ...NIC, id: '\n' }, /\/id: expected a number from 1 to 65535, got ""/],
  ['relid negative', { ...NIC, id: '-1\n' }, /\/id: expected a number/],
  ['relid zero', { ...NIC, id: '0\n' }, /\/id: expected a number/],
  ['relid too large', { ...NIC, id: '65536\n' }, /\/id: expected a number/],
  ['relid with trailing junk', { ...NIC, id: '12 3\n' }, /\/id: expected a number/],
  ['monitor id without a trigger word', { ...NIC, monitor_id: '200\n' }, /monitor_id: expected a monitor id below 128/],
  ['monitor id beyond 8 bits', { ...NIC, monitor_id: '259\n' }, /monitor_id: expected a number from 0 to 255/],
  ['attribute too long', { ...NIC, id: '1'.repeat(5000) }, /\/id: longer than an attribute/],
  ['attribute is a directory', { class_id: NIC.class_id, 'device_id/x': '' }, /device_id: /],
  ['uio is a file', { ...NIC, uio: '' }, /uio: cannot be listed \(ENOTDIR\)/],
  ['driver is a file', { ...NIC, driver: '' }, /driver: cannot be read \(EINVAL\)/],
];

for (const [name, files, reason] of MALFORMED) {
  test(`malformed device is reported and skipped: ${name}`, (t) => {
    const { root, add } = tree(t);
    const bad = add('bad', files);
    add('good', { ...NIC, device_id: `{${SECOND}}\n` });
    const scan = scanBus(root);
    assert.deepEqual(
      scan.devices.map((device) => device.uuid),
      [SECOND],
    );
    assert.equal(scan.problems.length, 1);
    assert.equal(scan.problems[0]!.path, bad);
    assert.match(scan.problems[0]!.reason, reason);
  });
}

test('a FIFO in place of an attribute does not stop the scan', (t) => {
  const { root, add } = tree(t);
  const bad = add('bad', { class_id: NIC.class_id });
  assert.equal(spawnSync('mkfifo', [path.join(bad, 'device_id')]).status, 0);
  assert.match(scanBus(root).problems[0]!.reason, /device_id: expected a regular file/);
});

test('a device id that is there twice counts once', (t) => {
  const { root, add } = tree(t);
  add('a', NIC);
  add('b', { ...NIC, id: '16\n' });
  const scan = scanBus(root);
  assert.deepEqual(
    scan.devices.map((device) => device.relid),
    [15],
  );
  assert.match(scan.problems[0]!.reason, /is already known as .*\/a$/);
});

test('attribute parsers take what they print and refuse the rest with VmbusError', () => {
  fc.assert(
    fc.property(fc.uuid(), fc.boolean(), (uuid, braces) => {
      assert.equal(parseUuid(braces ? `{${uuid.toUpperCase()}}` : uuid, 'x'), uuid.toLowerCase());
    }),
  );
  fc.assert(
    fc.property(fc.string(), (text) => {
      for (const parse of [parseUuid, (value: string) => parseNumber(value, 0, 10, 'x')]) {
        try {
          parse(text, 'x');
        } catch (error) {
          assert.ok(error instanceof VmbusError);
        }
      }
    }),
  );
});
