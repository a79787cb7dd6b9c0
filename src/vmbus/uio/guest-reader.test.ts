// What a host can copy out of a guest's process, and what it says when it cannot.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, closeSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Arena } from '../../memory/arena.js';
import { linuxSystem } from '../../memory/os/mman.js';
import { acceptUnix, connectUnix, listenUnix } from '../../memory/os/socket.js';
import { GuestReader } from './guest-reader.js';

const SCRIPT = fileURLToPath(new URL('./guest-reader-testing.js', import.meta.url));
const NOBODY = ['--reuid=65534', '--clear-groups'];
const arena = Arena.create({ bytes: 2 << 20, system: linuxSystem });
const base = arena.baseAddress();

function folder(t: TestContext): string {
  const path = mkdtempSync(`${tmpdir()}/netvsc-reader-`);
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Both ends of a connection of this process to itself. */
function connection(t: TestContext): number {
  const path = `${folder(t)}/socket`;
  const fds = [listenUnix(path)];
  fds.push(connectUnix(path), acceptUnix(fds[0]!));
  t.after(() => {
    for (const fd of fds) closeSync(fd);
  });
  return fds[2]!;
}

function reserve(t: TestContext, bytes: number): number {
  const address = arena.reserve('test', bytes);
  t.after(() => arena.release(address));
  return address;
}

test('bytes of the peer arrive, up to the first that is not there; afterwards nothing does', (t) => {
  const descriptors = readdirSync('/proc/self/fd').length;
  const socket = connection(t);
  const reader = new GuestReader(arena, socket, process.pid);
  const [from, vectors, to] = [reserve(t, 4096), reserve(t, 48), reserve(t, 4096)];
  for (let i = 0; i < 300; i++) arena.u8[from + i] = i & 0xff;
  arena.u64.set([base + BigInt(from), 100n, 0n, 8n, base + BigInt(from + 100), 50n], vectors >>> 3);
  assert.equal(reader.read(vectors, 1, to, 100), 100);
  assert.deepEqual(arena.u8.slice(to, to + 100), arena.u8.slice(from, from + 100));
  assert.equal(reader.read(vectors, 3, to, 158), 100);
  assert.equal(reader.read(vectors + 16, 2, to, 58), 0);
  assert.equal(reader.gone, false);
  reader.close();
  reader.close();
  assert.equal(reader.read(vectors, 1, to, 100), `memory of process ${process.pid}: it has closed the channel`);
  assert.equal(readdirSync('/proc/self/fd').length, descriptors + 3, 'the connection');
});

test('a process of another PID namespace', (t) => {
  const reader = new GuestReader(arena, connection(t), 0);
  assert.equal(reader.gone, false);
  assert.equal(reader.read(4096, 1, 4096, 1), 'memory of process 0: it is in another PID namespace');
});

test('a host that lacks the right to read is told what would help', async (t) => {
  const readable = spawnSync('setpriv', [...NOBODY, 'test', '-r', SCRIPT]);
  if (readable.status !== 0) {
    t.skip('needs root, setpriv, and a folder that other users can read');
    return;
  }
  const path = folder(t);
  chmodSync(path, 0o777);
  const host = spawn('setpriv', [...NOBODY, process.execPath, SCRIPT, String(process.pid), path]);
  let said = '';
  host.stdout.on('data', (chunk) => {
    said += chunk;
  });
  await once(host, 'close');
  assert.match(said, new RegExp(`^memory of process ${process.pid}: this host may not read it \\(EPERM\\): `));
  for (const way of [/PR_SET_PTRACER/, /netvsc run/, /ptrace_scope/, /CAP_SYS_PTRACE/]) assert.match(said, way);
});
