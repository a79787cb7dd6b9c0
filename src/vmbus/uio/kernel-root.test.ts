// Our driver's way to a kernel's devices, as far as it goes without Hyper-V: a recorded sysfs tree, a plain file in place
// of /dev/uioN (its maps overlap, but each begins where the kernel has it), a pipe for its words, and real pagemaps.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { Arena } from '../../memory/arena.js';
import { HUGE_PAGE_BYTES, physicalPages } from '../../memory/os/locked.js';
import { linuxSystem, pageBytes } from '../../memory/os/mman.js';
import { receiveWord, sendWord } from '../../memory/os/socket.js';
import { MonitorPage } from '../../wire/vmbus.js';
import { NETVSC_CLASS } from '../device.js';
import { openUioDevice } from './device.js';
import { kernelRoot, movesLockedPages, PhysicalGuestMemory } from './kernel-root.js';

const UUID = '0022487b-5c2f-0022-487b-5c2f0022487b';
const MAPS = [
  ['txrx_rings', 0x40000],
  ['int_page', 0x1000],
  ['monitor_page', 0x1000],
  ['recv:925200', 0x100000],
  ['send:925201', 0x80000],
] as const;
const RING_HALF = MAPS[0][1] / 2;
const arena = Arena.create({ bytes: 64 << 20, system: linuxSystem });
const here = () => ({ regions: arena.regions().length, descriptors: readdirSync('/proc/self/fd').length });

/** As an Azure guest shows it, with `uio0` filled with ones. */
function recorded(t: TestContext, files: Record<string, string> = {}): { root: string; dev: string; node: string } {
  const root = mkdtempSync(path.join(tmpdir(), 'netvsc-kernel-'));
  t.after(() => rmSync(root, { recursive: true }));
  const device = `${root}/sys/bus/vmbus/devices/${UUID}`;
  const attributes: Record<string, string> = {
    class_id: `{${NETVSC_CLASS}}`,
    device_id: `{${UUID}}`,
    id: '15',
    'uio/uio0/event': '4294967295',
    ...files,
  };
  for (const [index, [name, bytes]] of MAPS.entries()) {
    attributes[`uio/uio0/maps/map${index}/name`] = name;
    attributes[`uio/uio0/maps/map${index}/size`] = `0x${bytes.toString(16).padStart(16, '0')}`;
  }
  for (const [name, text] of Object.entries(attributes)) {
    mkdirSync(path.dirname(`${device}/${name}`), { recursive: true });
    writeFileSync(`${device}/${name}`, `${text}\n`);
  }
  const dev = `${root}/dev`;
  mkdirSync(dev);
  writeFileSync(`${dev}/uio0`, Buffer.alloc(5 * pageBytes + MAPS[3][1], 0x11));
  return { root, dev, node: `${dev}/uio0` };
}

const openRecorded = ({ root, dev }: { root: string; dev: string }) =>
  openUioDevice(arena, root, UUID, { access: kernelRoot(dev) });

test('maps are at index x page size of the node, and the rings are left as the kernel made them', (t) => {
  const before = here();
  const tree = recorded(t);
  const device = openRecorded(tree);
  const { transmit, receive, receiveBuffer, sendBuffer } = device.open();
  assert.deepEqual([transmit.dataBytes, receive.control - transmit.control], [RING_HALF - 4096, RING_HALF]);
  assert.deepEqual([receiveBuffer.gpadl, receiveBuffer.bytes, sendBuffer.gpadl], [925200, 0x100000, 925201]);
  assert.equal(arena.u32[transmit.control >>> 2], 0x11111111);
  arena.u8[receive.control + 7] = 0xa0;
  arena.u8[receiveBuffer.address + receiveBuffer.bytes - 1] = 0xa3;
  arena.u8[sendBuffer.address + sendBuffer.bytes - 1] = 0xa4;
  const bytes = readFileSync(tree.node);
  assert.equal(bytes[RING_HALF + 7], 0xa0);
  assert.equal(bytes[3 * pageBytes + receiveBuffer.bytes - 1], 0xa3);
  assert.equal(bytes[4 * pageBytes + sendBuffer.bytes - 1], 0xa4);
  const second = openRecorded(tree);
  assert.throws(() => second.open(), /in use: another guest has the channel open/);
  device.close();
  second.open();
  second.close();
  assert.deepEqual(here(), before);
});

test('without a monitor id the host is signalled by writing 1 to the node', (t) => {
  const tree = recorded(t);
  const device = openRecorded(tree);
  t.after(() => device.close());
  device.open();
  device.signal();
  assert.equal(readFileSync(tree.node).readUInt32LE(0), 1);
});

for (const id of [0, 31, 32, 77, 127]) {
  test(`with monitor id ${id} the host is signalled by its bit of the monitor page`, (t) => {
    const tree = recorded(t, { monitor_id: String(id) });
    writeFileSync(tree.node, Buffer.alloc(5 * pageBytes + MAPS[3][1]));
    const device = openRecorded(tree);
    t.after(() => device.close());
    device.open();
    device.signal();
    const bytes = readFileSync(tree.node);
    const page = MonitorPage.decode(bytes.subarray(2 * pageBytes, 3 * pageBytes));
    const { pending0, pending1, pending2, pending3 } = page;
    const expected = [0, 0, 0, 0];
    expected[id >> 5] = (1 << (id & 31)) >>> 0;
    assert.deepEqual([pending0, pending1, pending2, pending3], expected);
    assert.equal(bytes.filter((byte) => byte !== 0).length, 1, 'nothing else is written');
  });
}

test('a subchannel whose rings cannot be mapped yet is found by a later call; another fault is not waited for', (t) => {
  const tree = recorded(t, { 'channels/17/subchannel_id': '1' });
  const rings = `${tree.root}/rings`;
  writeFileSync(rings, Buffer.alloc(0x20000));
  let file = '/dev/null'; // ENODEV
  const access = { ...kernelRoot(tree.dev), openRings: () => ({ fd: openSync(file, 'r+'), bytes: 0x20000 }) };
  const device = openUioDevice(arena, tree.root, UUID, { access });
  t.after(() => device.close());
  device.open();
  const before = here();
  assert.equal(device.openSubchannel(), undefined);
  assert.equal(device.openSubchannel(), undefined);
  assert.deepEqual(here(), before);
  writeFileSync(rings, Buffer.alloc(0x10000));
  file = rings;
  assert.throws(() => device.openSubchannel(), /cannot map channel 17: .*expected 131072 bytes.*the file has 65536/);
  assert.deepEqual(here(), before);
  writeFileSync(rings, Buffer.alloc(0x20000));
  assert.equal(device.openSubchannel()!.relid, 17);
  assert.equal(device.openSubchannel(), undefined);
});

test('interrupts are counted from the opening on, over the end of 32 bits', (t) => {
  const tree = recorded(t);
  const fd = openSync(tree.node, 'r+');
  t.after(() => closeSync(fd));
  // The node's words; a plain file ends, which is read as the end of the device.
  writeFileSync(tree.node, Buffer.alloc(5 * pageBytes + MAPS[3][1]));
  writeFileSync(fd, Uint32Array.from(Array(64).fill(2)));
  const device = openRecorded(tree);
  t.after(() => device.close());
  device.open();
  assert.equal(device.takeInterrupts(), 3, 'from 4294967295 to 2');
});

test('the node is opened non-blocking, for words both ways', (t) => {
  const { dev } = recorded(t);
  assert.equal(spawnSync('mkfifo', [`${dev}/uio1`]).status, 0);
  const fd = kernelRoot(dev).connect('uio1');
  t.after(() => closeSync(fd));
  assert.equal(receiveWord(fd), -11);
  sendWord(fd, 7);
  assert.equal(receiveWord(fd), 7);
});

test('a node or event count that is not there is named, and nothing stays open', (t) => {
  const before = here();
  const tree = recorded(t);
  rmSync(`${tree.root}/sys/bus/vmbus/devices/${UUID}/uio/uio0/event`);
  assert.throws(() => openRecorded(tree).open(), {
    name: 'VmbusError',
    message: /uio0\/event: cannot be read \(ENOENT\)/,
  });
  rmSync(tree.node);
  assert.throws(() => openRecorded(tree).open(), { name: 'VmbusError', message: /cannot open: ENOENT.*dev\/uio0/ });
  assert.deepEqual(here(), before);
});

const noAddresses = () => {
  arena.u8[0] = arena.u8[0]!;
  const [page] = physicalPages(Number(arena.baseAddress()), 1);
  return page! <= 0n && 'the kernel shows physical addresses only with CAP_SYS_ADMIN';
};

const hugeFree = Number(/HugePages_Free: +(\d+)/.exec(readFileSync('/proc/meminfo', 'latin1'))?.[1] ?? 0);

test('locked pages: physical numbers that stay, and that another map of the same memory has too', {
  skip: noAddresses() || (hugeFree > 0 && 'huge pages are free, which are taken first'),
}, () => {
  const before = here();
  const memory = new PhysicalGuestMemory(arena, () => undefined);
  const first = memory.allocate('first', 1);
  const bytes = 8 * pageBytes;
  const address = memory.allocate('packets', bytes);
  const pages = Array.from({ length: bytes / 4096 }, (_, i) => memory.pfn(address + i * 4096));
  assert.equal(new Set(pages).size, pages.length);
  assert.ok(pages.every((page) => page > 0n));
  assert.equal(memory.pfn(address + 4097), pages[1]);
  arena.u8.fill(0x55, address, address + bytes);
  const seen = physicalPages(Number(arena.baseAddress()) + address, 8);
  assert.deepEqual(
    seen.map((page) => (page * BigInt(pageBytes)) / 4096n),
    pages.filter((_, i) => (i * 4096) % pageBytes === 0),
  );
  const links = readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes('netvsc packets');
    } catch {
      return false; // the folder's own, closed meanwhile
    }
  });
  const alias = arena.mapFile('alias', Number(links[0]), 0, bytes);
  assert.equal(arena.u8[alias], 0x55);
  assert.deepEqual(physicalPages(Number(arena.baseAddress()) + alias, 1), seen.slice(0, 1));
  arena.release(alias);
  assert.throws(() => memory.pfn(address - 4096 * 1024), /nothing was allocated/);
  memory.release(address);
  memory.release(first);
  assert.throws(() => memory.release(address), /nothing was allocated/);
  assert.deepEqual(here(), before);
});

test('pages that are not in memory have no number', () => {
  const address = arena.reserve('untouched', 1 << 20, pageBytes);
  try {
    assert.deepEqual(physicalPages(Number(arena.baseAddress()) + address + pageBytes, 2), [-1n, -1n]);
  } finally {
    arena.release(address);
  }
});

test('huge pages: aligned, each one a run of physical pages', {
  skip: noAddresses() || (hugeFree < 2 && 'fewer than two huge pages are free'),
}, () => {
  const before = here();
  const memory = new PhysicalGuestMemory(arena, () => 'this test wants huge pages');
  const address = memory.allocate('packets', HUGE_PAGE_BYTES + 1);
  for (const at of [address, address + HUGE_PAGE_BYTES]) {
    const base = memory.pfn(at);
    assert.equal(base % 512n, 0n);
    assert.equal(memory.pfn(at + HUGE_PAGE_BYTES - 1), base + 511n);
  }
  memory.release(address);
  assert.deepEqual(here(), before);
});

test('what is missing is said: huge pages, a kernel that keeps locked pages, the right to see addresses', (t) => {
  const before = here();
  const bytes = (hugeFree + 8) * HUGE_PAGE_BYTES;
  const memory = new PhysicalGuestMemory(arena, () => 'vm/compact_unevictable_allowed is 1, not 0');
  if (bytes < 32 << 20) {
    assert.throws(() => memory.allocate('packets', bytes), {
      name: 'VmbusError',
      message: /packets: expected \d+ free huge pages of 2 MiB .* locked pages .* since vm\/compact_.* is 1, not 0$/,
    });
  }
  assert.deepEqual(here(), before);
  const proc = mkdtempSync(path.join(tmpdir(), 'netvsc-proc-'));
  t.after(() => rmSync(proc, { recursive: true }));
  for (const folder of ['vm', 'kernel']) mkdirSync(`${proc}/sys/${folder}`, { recursive: true });
  assert.equal(movesLockedPages(proc), undefined);
  writeFileSync(`${proc}/sys/vm/compact_unevictable_allowed`, '0\n');
  writeFileSync(`${proc}/sys/kernel/numa_balancing`, '1\n');
  assert.equal(movesLockedPages(proc), 'kernel/numa_balancing is 1, not 0');
});

test('an ordinary user is told what reading physical addresses takes', {
  skip: process.getuid?.() !== 0 && 'only root can become an ordinary user',
}, () => {
  const module = (name: string) => JSON.stringify(new URL(name, import.meta.url).href);
  const script = `
    const { Arena } = await import(${module('../../memory/arena.js')});
    const { linuxSystem } = await import(${module('../../memory/os/mman.js')});
    const { PhysicalGuestMemory } = await import(${module('./kernel-root.js')});
    const arena = Arena.create({ bytes: 4 << 20, system: linuxSystem });
    process.argv[1] === 'drop' && process.setuid(65534);
    try {
      new PhysicalGuestMemory(arena, () => undefined).allocate('packets', 4096);
    } catch (error) {
      console.log(error.message, arena.regions().length);
    }`;
  // Dropped late, the file cannot even be opened; dropped early, it shows zeros.
  for (const [word, user] of [
    ['drop', {}],
    ['keep', { uid: 65534, gid: 65534 }],
  ] as const) {
    const words = ['--input-type=module', '-e', script, word];
    const { stdout, stderr } = spawnSync(process.execPath, words, { encoding: 'utf8', ...user });
    if (/EACCES.*node_modules|Cannot find module/.test(stderr)) continue; // a checkout that only root may read
    assert.match(stdout, /does not show physical addresses \(\/proc\/self\/pagemap wants CAP_SYS_ADMIN\) 1$/m, stderr);
  }
});
