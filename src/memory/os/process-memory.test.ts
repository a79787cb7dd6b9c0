// Reading other processes: whole, in part, not at all, and who they are.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { allocateOffHeap, ERRNO, freeOffHeap, type OffHeap } from './libc.js';
import { MAPPING, mmap, munmap, PROTECTION, pageBytes } from './mman.js';
import {
  openPeerProcess,
  openProcess,
  processExists,
  readProcess,
  VECTOR_BYTES,
  VECTORS_MAX,
} from './process-memory.js';
import { acceptUnix, connectUnix, listenUnix } from './socket.js';

const { EFAULT, ESRCH, EPERM } = ERRNO;
const { READ, WRITE, NONE } = PROTECTION;

function offHeap(t: TestContext, bytes: number): OffHeap {
  const memory = allocateOffHeap(bytes);
  t.after(() => freeOffHeap(memory));
  return memory;
}

/** A struct iovec array. */
function vectors(t: TestContext, ...list: readonly (readonly [address: bigint, bytes: number])[]): number {
  const memory = offHeap(t, list.length * VECTOR_BYTES);
  const words = new BigUint64Array(memory.buffer);
  for (const [i, [address, bytes]] of list.entries()) words.set([address, BigInt(bytes)], i * 2);
  return memory.address;
}

/** Private anonymous pages with bytes that count up. */
function pages(t: TestContext, count: number): { address: number; buffer: Buffer } {
  const bytes = count * pageBytes;
  const address = mmap(0, bytes, READ | WRITE, MAPPING.PRIVATE | MAPPING.ANONYMOUS, -1, 0);
  t.after(() => munmap(address, bytes));
  const all = offHeap(t, bytes);
  const buffer = Buffer.from(all.buffer);
  for (let i = 0; i < bytes; i++) buffer[i] = (i * 7 + (i >> 8)) & 0xff;
  // Written as it is read: by the call under test, from our own memory.
  assert.equal(readProcess(process.pid, vectors(t, [BigInt(all.address), bytes]), 1, address, bytes), bytes);
  return { address, buffer };
}

/** A process that only waits. */
function sleeper(t: TestContext): { pid: number; kill(): Promise<void> } {
  const child = spawn('sleep', ['100'], { stdio: 'ignore' });
  const ended = once(child, 'exit');
  const kill = async () => {
    child.kill('SIGKILL');
    await ended;
  };
  t.after(kill);
  return { pid: child.pid!, kill };
}

test('vectors are read back to back, across pages, up to the most that one call takes', (t) => {
  const { address, buffer } = pages(t, 4);
  const at = (offset: number) => BigInt(address + offset);
  const to = offHeap(t, 4 * pageBytes);
  const list: [number, number][] = [[10, 64], [pageBytes - 5, 10], [pageBytes, 2 * pageBytes], [0, 1], [8000, 1500]]; // biome-ignore format: one line
  const bytes = list.reduce((sum, [, length]) => sum + length, 0);
  const from = vectors(t, ...list.map(([offset, length]) => [at(offset), length] as const));
  assert.equal(readProcess(process.pid, from, list.length, to.address, bytes), bytes);
  const expected = Buffer.concat(list.map(([offset, length]) => buffer.subarray(offset, offset + length)));
  assert.deepEqual(Buffer.from(to.buffer, 0, bytes), expected);
  const many = vectors(t, ...Array.from({ length: VECTORS_MAX }, (_, i) => [at(i), 3] as const));
  assert.equal(readProcess(process.pid, many, VECTORS_MAX, to.address, 3 * VECTORS_MAX), 3 * VECTORS_MAX);
});

test('what is not there ends the copy: a hole, no right to read, the kernel, beyond all addresses', (t) => {
  const { address, buffer } = pages(t, 3);
  const hidden = mmap(0, pageBytes, NONE, MAPPING.PRIVATE | MAPPING.ANONYMOUS, -1, 0);
  t.after(() => munmap(hidden, pageBytes));
  munmap(address + pageBytes, pageBytes);
  const to = offHeap(t, 8 * pageBytes);
  const good = [BigInt(address), 100] as const;
  const wrong: (readonly [bigint, number])[] = [
    [BigInt(address + pageBytes), 8],
    [BigInt(hidden), 8],
    [0n, 8],
    [0xffff_8000_0000_0000n, 8],
    [0xffff_ffff_8100_0000n, 4096],
    [1n << 63n, 8],
    [(1n << 64n) - 8n, 16],
  ];
  for (const bad of wrong) {
    new Uint8Array(to.buffer).fill(0xee);
    assert.equal(readProcess(process.pid, vectors(t, bad), 1, to.address, bad[1]), -EFAULT!, String(bad));
    assert.equal(readProcess(process.pid, vectors(t, good, bad, good), 3, to.address, 200 + bad[1]), 100, String(bad));
    assert.deepEqual(Buffer.from(to.buffer, 0, 100), buffer.subarray(0, 100));
    assert.ok(Buffer.from(to.buffer, 100).every((byte) => byte === 0xee));
  }
  // A vector that begins well and leads into the hole: what is returned was written, no more.
  const across = vectors(t, good, [BigInt(address + pageBytes - 50), 100]);
  const got = readProcess(process.pid, across, 2, to.address, 200);
  assert.ok(got === 100 || got === 150, String(got));
  assert.deepEqual(Buffer.from(to.buffer, 100, got - 100), buffer.subarray(pageBytes - 50, pageBytes - 50 + got - 100));
});

test('a process that dies: its memory is gone at once, its number is its own until it is reaped', async (t) => {
  const { pid, kill } = sleeper(t);
  const handle = openProcess(pid);
  t.after(() => closeSync(handle));
  assert.equal(processExists(handle), true);
  await kill();
  assert.equal(processExists(handle), false);
  const to = offHeap(t, 8);
  assert.equal(readProcess(pid, vectors(t, [4096n, 8]), 1, to.address, 8), -ESRCH!);
  assert.throws(() => openProcess(pid), { code: 'ESRCH' });
  assert.throws(() => openProcess(0), { name: 'OsError', code: 'EINVAL' });
});

test('the peer of a socket is found by the socket', (t) => {
  const folder = mkdtempSync(`${tmpdir()}/netvsc-peer-`);
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const listener = listenUnix(`${folder}/socket`);
  const client = connectUnix(`${folder}/socket`);
  const server = acceptUnix(listener);
  const handle = openPeerProcess(server, process.pid);
  assert.equal(processExists(handle), true);
  for (const fd of [handle, server, client, listener]) closeSync(fd);
});

test('a user that may not read a process is told so', async (t) => {
  const script = fileURLToPath(new URL('./process-memory-testing.js', import.meta.url));
  const nobody = ['--reuid=65534', '--clear-groups'];
  if (spawnSync('setpriv', [...nobody, 'test', '-r', script]).status !== 0) {
    t.skip('needs root, setpriv, and a folder that other users can read');
    return;
  }
  const { pid } = sleeper(t);
  const reader = spawn('setpriv', [...nobody, process.execPath, script, String(pid)]);
  let said = '';
  reader.stdout.on('data', (chunk) => {
    said += chunk;
  });
  await once(reader, 'close');
  assert.equal(said, `${-EPERM!}\n`);
});
