import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { Arena, STATIC_BYTES } from './arena.js';
import { createSealedMemory } from './os/memfd.js';
import { linuxSystem, pageBytes } from './os/mman.js';

const MIB = 1 << 20;
const kinds = [
  ['without a system', undefined],
  ['on Linux', linuxSystem],
] as const;
const make = (bytes: number, system: typeof linuxSystem | undefined) =>
  Arena.create(system ? { bytes, system } : { bytes });

/** (module (import "env" "memory" (memory 1 65536 shared)) (func (export "load") (param i32) (result i32) local.get 0 i32.load8_u)
 *  (func (export "store") (param i32 i32) local.get 0 local.get 1 i32.store8)) */
const MODULE = Uint8Array.from([
  ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
  ...[1, 11, 2, 0x60, 1, 0x7f, 1, 0x7f, 0x60, 2, 0x7f, 0x7f, 0],
  ...[2, 18, 1, 3, 0x65, 0x6e, 0x76, 6, 0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 2, 3, 1, 0x80, 0x80, 4],
  ...[3, 3, 2, 0, 1],
  ...[7, 16, 2, 4, 0x6c, 0x6f, 0x61, 0x64, 0, 0, 5, 0x73, 0x74, 0x6f, 0x72, 0x65, 0, 1],
  ...[10, 19, 2, 7, 0, 0x20, 0, 0x2d, 0, 0, 0x0b, 9, 0, 0x20, 0, 0x20, 1, 0x3a, 0, 0, 0x0b],
]);

function instantiate(memory: WebAssembly.Memory) {
  const instance = new WebAssembly.Instance(new WebAssembly.Module(MODULE), { env: { memory } });
  return instance.exports as unknown as { load(at: number): number; store(at: number, value: number): void };
}

for (const [where, system] of kinds) {
  test(`${where}: regions do not overlap, are aligned and zeroed; released space is merged`, () => {
    const step = fc.oneof(
      {
        weight: 3,
        arbitrary: fc.record({ bytes: fc.integer({ min: 1, max: 300_000 }), align: fc.integer({ min: 0, max: 13 }) }),
      },
      { weight: 2, arbitrary: fc.record({ release: fc.nat() }) },
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const arena = make(3 * MIB, system);
        const empty = arena.free();
        const held: { address: number; bytes: number }[] = [];
        for (const action of steps) {
          if ('release' in action) {
            const [region] = held.splice(action.release % Math.max(held.length, 1), 1);
            if (region) arena.release(region.address);
            continue;
          }
          const align = 2 ** action.align;
          const before = arena.free();
          let address: number;
          try {
            address = arena.reserve('test', action.bytes, align);
          } catch (error) {
            assert.match(
              (error as Error).message,
              new RegExp(`no room for ${action.bytes} bytes.*${before.bytes} free`),
            );
            assert.ok(before.largest < action.bytes + align + 64);
            continue;
          }
          assert.ok(address >= STATIC_BYTES && address % align === 0 && address % 64 === 0);
          assert.ok(address + action.bytes <= arena.bytes);
          for (const other of held) {
            assert.ok(address + action.bytes <= other.address || other.address + other.bytes <= address);
          }
          assert.ok(arena.u8.subarray(address, address + action.bytes).every((byte) => byte === 0));
          arena.u8.fill(0xa5, address, address + action.bytes);
          held.push({ address, bytes: action.bytes });
        }
        assert.equal(arena.regions().length, held.length + 1);
        for (const { address } of held) arena.release(address);
        assert.deepEqual(arena.free(), empty);
      }),
      { numRuns: 40 },
    );
  });

  test(`${where}: a large region is zeroed when reserved again`, () => {
    const arena = make(8 * MIB, system);
    const first = arena.reserve('large', 3 * MIB + 100, 64);
    arena.u8.fill(1, first, first + 3 * MIB + 100);
    arena.release(first);
    const small = arena.reserve('small', 100); // so that the next one starts within a page
    const again = arena.reserve('large', 4 * MIB, 64);
    assert.equal(again, small + 128);
    assert.ok(Buffer.from(arena.buffer, again, 4 * MIB).equals(Buffer.alloc(4 * MIB)));
  });

  test(`${where}: all views and WebAssembly see the same bytes`, () => {
    const arena = make(2 * MIB, system);
    const { load, store } = instantiate(arena.memory);
    const at = arena.reserve('cells', 64);
    store(at, 0x12);
    assert.equal(arena.u8[at], 0x12);
    arena.u16[at >> 1] = 0x3456;
    assert.equal(load(at), 0x56);
    arena.i32[at >> 2] = -2;
    assert.equal(arena.u32[at >> 2], 0xfffffffe);
    assert.equal(Atomics.add(arena.u64, at >> 3, 3n), 0xfffffffen);
    assert.equal(new Uint8Array(arena.memory.buffer)[at], 1);
  });
}

test('wrong requests are refused with what was expected and what came', () => {
  assert.throws(() => make(MIB, undefined), /arena of 1048576 bytes: expected more than 1048576/);
  assert.throws(() => make(2 ** 32 + 1, undefined), /at most 4294967296/);
  const arena = make(2 * MIB, undefined);
  assert.throws(() => arena.reserve('r', 0), /region r: expected a size of at least 1 byte, got 0/);
  assert.throws(() => arena.reserve('r', 8, 48), /power of two, got 48/);
  assert.throws(() => arena.reserve('rings', 2 * MIB), /region rings: no room for 2097152 bytes.*1048576 free/);
  assert.throws(() => arena.release(0), /no region starts there/);
  const address = arena.reserve('r', 8);
  arena.release(address);
  assert.throws(() => arena.release(address), /no region starts there/);
  assert.throws(() => arena.mapFile('m', 0, 0, 4096), /region m: an arena without a system/);
  assert.throws(() => arena.baseAddress(), /no virtual address/);
});

test('another thread sees the bytes and cannot reserve', async () => {
  const arena = make(2 * MIB, linuxSystem);
  const at = arena.reserve('cell', 64);
  const other = Arena.attach(arena.memory);
  assert.throws(() => other.reserve('r', 8), /only the thread that made the arena/);
  const code = `
    const { workerData } = require('node:worker_threads');
    Promise.all([import(workerData.arena), import(workerData.mman)]).then(([{ Arena }, { linuxSystem }]) => {
      const arena = Arena.attach(workerData.memory, linuxSystem);
      arena.u32[workerData.at >> 2] = Number(arena.baseAddress() & 0xffffffffn);
    });`;
  const url = (path: string) => new URL(path, import.meta.url).href;
  const workerData = { memory: arena.memory, at, arena: url('./arena.js'), mman: url('./os/mman.js') };
  const worker = new Worker(code, { eval: true, workerData });
  await new Promise((resolve, reject) => worker.on('exit', resolve).on('error', reject));
  assert.equal(arena.u32[at >> 2], Number(arena.baseAddress() & 0xffffffffn));
});

test('a file is mapped for JavaScript and WebAssembly, twice the same; releasing leaves zeros', () => {
  const arena = make(4 * MIB, linuxSystem);
  const empty = arena.free();
  const { load, store } = instantiate(arena.memory);
  const bytes = 4 * pageBytes;
  const { fd } = createSealedMemory('netvsc arena test', bytes);
  const other = arena.reserve('neighbour', 100);
  arena.u8.fill(0x77, other, other + 100);
  const first = arena.mapFile('first', fd, 0, bytes);
  const second = arena.mapFile('second', fd, pageBytes, pageBytes, { readOnly: true });
  arena.u8[first + pageBytes + 3] = 0x42;
  assert.equal(load(second + 3), 0x42);
  store(first + pageBytes + 4, 0x43);
  assert.equal(arena.u8[second + 4], 0x43);
  assert.deepEqual(
    arena.regions().map(({ name, kind }) => `${name}: ${kind}`),
    ['static data of the compiled module: private', 'neighbour: private', 'first: file', 'second: read-only file'],
  );
  arena.release(first);
  assert.equal(arena.u8[first + pageBytes + 3], 0);
  assert.equal(load(second + 3), 0x42);
  arena.u8[first] = 1; // private again: does not reach the file
  arena.release(second);
  store(second, 9); // writable again
  assert.equal(arena.u8[arena.mapFile('third', fd, 0, bytes)], 0);
  assert.throws(() => arena.mapFile('m', fd, 100, bytes), /file offset in whole pages of 4096 bytes, got 100/);
  assert.throws(
    () => arena.mapFile('m', fd, pageBytes, bytes),
    /expected 16384 bytes from offset 4096, the file has 16384/,
  );
  closeSync(fd);
  assert.throws(() => arena.mapFile('m', fd, 0, bytes), { code: 'EBADF' });
  assert.ok(arena.u8.subarray(other, other + 100).every((byte) => byte === 0x77));
  for (const { name, address } of arena.regions()) if (!name.startsWith('static')) arena.release(address);
  assert.deepEqual(arena.free(), empty);
});

test('200 times attaching and detaching does not use up space', () => {
  const arena = make(16 * MIB, linuxSystem);
  const { fd } = createSealedMemory('netvsc arena test', MIB);
  try {
    const addresses = new Set<string>();
    for (let cycle = 0; cycle < 200; cycle++) {
      const held = [
        arena.reserve('queue', 4096 + 1),
        arena.mapFile('rings', fd, 0, MIB),
        arena.reserve('pool', 3 * MIB),
      ];
      addresses.add(held.join());
      arena.u8[held[2]! + cycle * 4096] = 1;
      for (const address of cycle % 2 ? held : held.reverse()) arena.release(address);
    }
    assert.equal(addresses.size, 1);
  } finally {
    closeSync(fd);
  }
});
