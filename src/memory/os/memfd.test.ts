import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, ftruncateSync, mkdtempSync, openSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { Arena } from '../arena.js';
import { addSeals, createSealedMemory, fileSeals, linkSealedMemory, openShared, SEAL } from './memfd.js';
import { linuxSystem, pageBytes } from './mman.js';

function inFolder(work: (folder: string) => void | Promise<void>): () => Promise<void> {
  return async () => {
    const folder = mkdtempSync(`${tmpdir()}/netvsc-memfd-`);
    try {
      await work(folder);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  };
}

test('sealed memory has its size for good, and is its owner’s alone', () => {
  const { fd, bytes } = createSealedMemory('netvsc test', 10_000);
  try {
    assert.equal(bytes, 10_000);
    assert.equal(fileSeals(fd), SEAL.SHRINK | SEAL.GROW | SEAL.SEAL);
    assert.throws(() => ftruncateSync(fd, 0), { code: 'EPERM' });
    assert.throws(() => ftruncateSync(fd, 20_000), { code: 'EPERM' });
    assert.throws(() => addSeals(fd, SEAL.WRITE), { name: 'OsError', code: 'EPERM' });
    assert.equal(fstatSync(fd).mode & 0o777, 0o600);
    assert.throws(() => createSealedMemory('empty', 0), /shared memory empty: expected a size of at least 1 byte/);
  } finally {
    closeSync(fd);
  }
});

test(
  'what cannot be shared safely is refused by path',
  inFolder((folder) => {
    const plain = `${folder}/plain`;
    writeFileSync(plain, Buffer.alloc(8192));
    assert.throws(() => openShared(plain, 4096), /plain: expected a file sealed against shrinking/);
    assert.throws(() => openShared(folder, 4096), /EISDIR/);
    assert.throws(() => openShared(`${folder}/none`, 4096), { code: 'ENOENT' });
    const { fd } = createSealedMemory('netvsc test', 8192);
    linkSealedMemory(`${folder}/map`, fd);
    assert.throws(() => openShared(`${folder}/map`, 8193), /map: expected at least 8193 bytes, it has 8192/);
    closeSync(openShared(`${folder}/map`, 8192));
    closeSync(fd);
    assert.throws(() => openShared(`${folder}/map`, 8192), { code: 'ENOENT' });
  }),
);

test(
  'two processes share a map through its symlink; it ends with its owner',
  inFolder(async (folder) => {
    const bytes = 2 * pageBytes;
    const { fd } = createSealedMemory('netvsc test', bytes);
    const path = `${folder}/map0`;
    linkSealedMemory(path, fd);
    const arena = Arena.create({ bytes: 4 << 20, system: linuxSystem });
    const at = arena.mapFile('map0', fd, 0, bytes);
    // The child adds 1 to the first cell and copies it to the second page, until it finds 100 there.
    const code = `
      const [arenaUrl, mmanUrl, memfdUrl, path] = process.argv.slice(1);
      const { Arena } = await import(arenaUrl);
      const { linuxSystem } = await import(mmanUrl);
      const { openShared } = await import(memfdUrl);
      const arena = Arena.create({ bytes: 2 << 20, system: linuxSystem });
      const at = arena.mapFile('map0', openShared(path, ${bytes}), 0, ${bytes});
      for (let last = 0; last < 100; ) {
        const value = Atomics.load(arena.u32, at >> 2);
        if (value % 2 === 0) { await new Promise(setImmediate); continue; }
        Atomics.store(arena.u32, at >> 2, value + 1);
        Atomics.store(arena.u32, (at + ${pageBytes}) >> 2, last = value + 1);
      }`;
    const urls = ['../arena.js', './mman.js', './memfd.js'].map((url) => new URL(url, import.meta.url).href);
    const child = spawn(process.execPath, ['--input-type=module', '-e', code, '--', ...urls, path], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const exited = once(child, 'exit');
    try {
      for (let value = 1; value < 100; value += 2) {
        Atomics.store(arena.u32, at >> 2, value);
        while (Atomics.load(arena.u32, at >> 2) === value && child.exitCode === null) await new Promise(setImmediate);
      }
      assert.deepEqual(await exited, [0, null]);
      assert.equal(arena.u32[at >> 2], 100);
      assert.equal(arena.u32[(at + pageBytes) >> 2], 100);
    } finally {
      child.kill('SIGKILL');
      closeSync(fd);
    }
    assert.throws(() => statSync(path), { code: 'ENOENT' });
    assert.throws(() => openSync(path, 'r'), { code: 'ENOENT' });
  }),
);
