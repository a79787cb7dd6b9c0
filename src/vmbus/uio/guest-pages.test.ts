// Which memory of a guest a host maps, and why it refuses the rest. The guest is this process.
import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { Arena } from '../../memory/arena.js';
import { createHugeMemory, HUGE_PAGE_BYTES } from '../../memory/os/locked.js';
import { addSeals, createSealedMemory, SEAL } from '../../memory/os/memfd.js';
import { linuxSystem, MAPPING, mmap, munmap, PROTECTION } from '../../memory/os/mman.js';
import { GuestPages, type GuestPagesLimits } from './guest-pages.js';

const PAGE = 4096;
const hostArena = Arena.create({ bytes: 8 << 20, system: linuxSystem });

function pages(t: TestContext, limits: Partial<GuestPagesLimits> = {}, pid = process.pid): GuestPages {
  const seen = new GuestPages(hostArena, pid, { bytes: 1 << 20, regions: 8, rereadMs: 0, clock: () => 0, ...limits });
  t.after(() => seen.close());
  return seen;
}

/** Maps `count` pages of `fd` (or anonymous memory) somewhere; returns the first page's number. */
function mapped(
  t: TestContext,
  count: number,
  fd: number,
  flags: number,
  protection: number = PROTECTION.READ,
  offset = 0,
): bigint {
  const address = mmap(0, count * PAGE, protection, flags, fd, offset);
  t.after(() => munmap(address, count * PAGE));
  return BigInt(address) / BigInt(PAGE);
}

function sealed(t: TestContext, count: number): number {
  const { fd } = createSealedMemory('test guest', count * PAGE);
  t.after(() => closeSync(fd));
  return fd;
}

/** Huge pages, sealed against shrinking; nothing is taken from the pool. */
function huge(t: TestContext): bigint {
  const fd = createHugeMemory('test guest', HUGE_PAGE_BYTES, 'sealable');
  t.after(() => closeSync(fd));
  addSeals(fd, SEAL.SHRINK);
  const address = mmap(0, HUGE_PAGE_BYTES, PROTECTION.READ, SHARED | MAPPING.NO_RESERVE, fd, 0);
  t.after(() => munmap(address, HUGE_PAGE_BYTES));
  return BigInt(address) / BigInt(PAGE);
}

function onDisk(t: TestContext, count: number): number {
  const directory = mkdtempSync(path.join(tmpdir(), 'netvsc-pages-'));
  writeFileSync(path.join(directory, 'memory'), Buffer.alloc(count * PAGE, 7));
  const fd = openSync(path.join(directory, 'memory'), 'r+');
  t.after(() => {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });
  return fd;
}

const { SHARED, PRIVATE, ANONYMOUS } = MAPPING;

const REFUSED: [string, (t: TestContext) => bigint, RegExp][] = [
  ['anonymous', (t) => mapped(t, 2, -1, PRIVATE | ANONYMOUS), /: anonymous memory$/],
  ['shared anonymous', (t) => mapped(t, 2, -1, SHARED | ANONYMOUS), /: its file (is not sealed|cannot be opened)/],
  ['private mapping of a sealed file', (t) => mapped(t, 2, sealed(t, 2), PRIVATE), /: a private mapping$/],
  ['not readable', (t) => mapped(t, 2, sealed(t, 2), SHARED, PROTECTION.NONE), /: not readable$/],
  ['file that may shrink', (t) => mapped(t, 2, onDisk(t, 2), SHARED), /: its file is not sealed against shrinking$/],
  ['huge pages, even sealed ones', huge, /: huge pages, which may go missing$/],
  ['page behind the end of the file', (t) => mapped(t, 4, sealed(t, 2), SHARED) + 2n, /: beyond the end of its file$/],
  ['nothing there', () => 1n, /: not mapped$/],
  ['no address at all', () => (1n << 64n) - 1n, /: not mapped$/],
];

for (const [name, make, reason] of REFUSED) {
  test(`refused: ${name}`, (t) => {
    const pfn = make(t);
    const seen = pages(t);
    const before = [hostArena.regions().length, readdirSync('/proc/self/fd').length];
    for (let i = 0; i < 2; i++) {
      const answer = seen.map(pfn);
      assert.equal(typeof answer, 'string');
      assert.match(answer as string, reason);
      assert.match(answer as string, new RegExp(`^page ${pfn.toString(16)} of process ${process.pid}: `));
    }
    assert.deepEqual([hostArena.regions().length, readdirSync('/proc/self/fd').length], before);
  });
}

test('a sealed file is mapped whole, from its offset, as far as it goes, once', (t) => {
  const fd = sealed(t, 6);
  const first = mapped(t, 8, fd, SHARED, PROTECTION.READ, 2 * PAGE);
  const seen = pages(t);
  const region = seen.map(first + 1n);
  assert.ok(typeof region === 'object', String(region));
  assert.deepEqual([region.pfn, region.pages], [first, 4]);
  assert.equal(seen.map(first + 3n), region);
  assert.match(String(seen.map(first + 4n)), /beyond the end of its file/);
  // What the guest writes at page 3 of the file is page 1 of the region.
  writeSync(fd, Uint8Array.of(0x77), 0, 1, 3 * PAGE + 5);
  assert.equal(hostArena.u8[region.address + PAGE + 5], 0x77);
});

test('a guest cannot make the host map more than its limits, in bytes or in regions', (t) => {
  const file = sealed(t, 4);
  const many = Array.from({ length: 3 }, (_, i) => mapped(t, 1, file, SHARED, PROTECTION.READ, i * PAGE));
  const byRegions = pages(t, { regions: 2 });
  assert.equal(many.filter((pfn) => typeof byRegions.map(pfn) === 'object').length, 2);
  assert.match(String(many.map((pfn) => byRegions.map(pfn)).find((answer) => typeof answer === 'string')), /2 regions/);
  const byBytes = pages(t, { bytes: 3 * PAGE });
  assert.match(String(byBytes.map(mapped(t, 4, file, SHARED))), /limit of 12288 bytes is reached$/);
});

test('the memory map is read again for misses only, and not before the pause is over', (t) => {
  let now = 100;
  let looks = 0;
  const clock = () => {
    looks++;
    return now;
  };
  const first = mapped(t, 1, sealed(t, 1), SHARED);
  const seen = pages(t, { rereadMs: 10, clock });
  assert.equal(typeof seen.map(first), 'object');
  const once = looks;
  assert.equal(typeof seen.map(first), 'object');
  assert.equal(looks, once);
  const later = mapped(t, 1, sealed(t, 1), SHARED);
  assert.match(String(seen.map(later)), /not mapped$/);
  now = 109.9;
  assert.match(String(seen.map(later)), /not mapped$/);
  now = 110;
  assert.equal(typeof seen.map(later), 'object');
});

test('a memory map that takes long to read is read the less often', (t) => {
  let now = 0;
  let reading = 0;
  // Every other look is the one behind a reading.
  const clock = () => {
    now += reading;
    return now;
  };
  const seen = pages(t, { rereadMs: 10, clock });
  reading = 3;
  assert.match(String(seen.map(1n)), /not mapped$/);
  reading = 0;
  const later = mapped(t, 1, sealed(t, 1), SHARED);
  now = 6 + 59;
  assert.match(String(seen.map(later)), /not mapped$/);
  now = 6 + 60;
  assert.equal(typeof seen.map(later), 'object');
});

test('what a refusal holds for: the whole mapping, one page behind a file, nothing for what is not mapped', (t) => {
  const seen = pages(t);
  const anonymous = mapped(t, 3, -1, PRIVATE | ANONYMOUS, PROTECTION.READ | PROTECTION.WRITE);
  assert.match(String(seen.map(anonymous + 1n)), /anonymous/);
  const { pfn, pages: count } = seen.refusedPages!;
  assert.ok(pfn <= anonymous && pfn + BigInt(count) >= anonymous + 3n, `${pfn} ${count}`);
  const short = mapped(t, 4, sealed(t, 2), SHARED);
  assert.match(String(seen.map(short + 3n)), /beyond the end/);
  assert.deepEqual(seen.refusedPages, { pfn: short + 3n, pages: 1 });
  assert.match(String(seen.map(1n)), /not mapped/);
  assert.equal(seen.refusedPages, undefined);
});

test('a process that is gone, or that cannot be seen, is no guest to look into', (t) => {
  assert.match(String(pages(t, {}, 0).map(5n)), /its memory map cannot be read/);
});

test('close unmaps everything and may come twice', (t) => {
  const before = [hostArena.regions().length, readdirSync('/proc/self/fd').length];
  const seen = new GuestPages(hostArena, process.pid, { bytes: 1 << 20, regions: 8, rereadMs: 0, clock: () => 0 });
  const fd = sealed(t, 1);
  assert.equal(typeof seen.map(mapped(t, 1, fd, SHARED)), 'object');
  seen.close();
  seen.close();
  assert.deepEqual([hostArena.regions().length, readdirSync('/proc/self/fd').length - 1], before);
});
