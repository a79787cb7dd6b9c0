import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { EventFd } from './eventfd.js';
import { ERRNO, errorName, OsError } from './libc.js';
import { createNetwork, inNetwork, openNetwork } from './netns.js';
import { POLL, PollSet } from './poll.js';
import { affinity, isAlive, lockFile, setAffinity, setParentDeathSignal, threadId, unlockFile } from './process.js';
import {
  acceptUnix,
  CLOSED,
  connectUnix,
  listenUnix,
  peerCredentials,
  receiveBytes,
  receiveWord,
  sendBytes,
  sendWord,
} from './socket.js';

const AGAIN = -ERRNO.EAGAIN!;

async function inFolder(work: (folder: string) => void | Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/netvsc-os-`);
  try {
    await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function noNamespaceReason(): string | false {
  try {
    closeSync(createNetwork());
    return false;
  } catch (error) {
    return `needs a network namespace (CAP_SYS_ADMIN): ${(error as Error).message}`;
  }
}

test('errors say which call, what about and why', () => {
  const error = new OsError('bind', ERRNO.EADDRINUSE!, '/run/x');
  assert.equal(error.message, 'bind /run/x: EADDRINUSE');
  assert.deepEqual([error.syscall, error.code, error.errno], ['bind', 'EADDRINUSE', 98]);
  assert.deepEqual(
    [errorName(11), errorName(77), errorName(95), errorName(4000)],
    ['EAGAIN', 'EBADFD', 'EOPNOTSUPP', 'errno 4000'],
  );
});

test('words and bytes cross a Unix socket; both sides know each other and see the end', () =>
  inFolder((folder) => {
    const path = `${folder}/socket`;
    const listener = listenUnix(path);
    try {
      assert.equal(statSync(path).mode & 0o777, 0o600);
      assert.equal(acceptUnix(listener), AGAIN);
      const client = connectUnix(path);
      const server = acceptUnix(listener);
      assert.ok(server >= 0);
      assert.deepEqual(peerCredentials(server), { pid: process.pid, uid: process.getuid!(), gid: process.getgid!() });
      assert.equal(receiveWord(server), AGAIN);
      for (const value of [0, 1, 0x80000000, 0xffffffff]) assert.equal(sendWord(client, value), 0);
      for (const value of [0, 1, 0x80000000, 0xffffffff]) assert.equal(receiveWord(server), value);
      assert.equal(sendBytes(server, Uint8Array.of(1, 2, 3, 4, 5), 3), 3);
      const bytes = new Uint8Array(8);
      assert.equal(receiveBytes(client, bytes), 3);
      assert.deepEqual([...bytes], [1, 2, 3, 0, 0, 0, 0, 0]);
      let sent = 0;
      while (sendWord(client, 7) === 0) sent++;
      assert.equal(sendWord(client, 7), AGAIN);
      assert.ok(sent > 10);
      for (; sent > 0; sent--) assert.equal(receiveWord(server), 7);
      sendBytes(client, Uint8Array.of(1), 1);
      assert.equal(receiveWord(server), -ERRNO.EPROTO!);
      closeSync(client);
      assert.equal(receiveWord(server), CLOSED);
      assert.equal(sendWord(server, 1), -ERRNO.EPIPE!);
      closeSync(server);
    } finally {
      closeSync(listener);
    }
  }));

test('a dead listener’s socket is replaced, a live one’s and other files are not', () =>
  inFolder((folder) => {
    const path = `${folder}/socket`;
    assert.throws(() => connectUnix(path), { code: 'ENOENT', message: `connect ${path}: ENOENT` });
    const first = listenUnix(path);
    assert.throws(() => listenUnix(path), { code: 'EADDRINUSE' });
    closeSync(first);
    assert.throws(() => connectUnix(path), { code: 'ECONNREFUSED' });
    closeSync(listenUnix(path));
    writeFileSync(`${folder}/file`, 'x');
    assert.throws(() => listenUnix(`${folder}/file`), { code: 'EADDRINUSE' });
    assert.ok(existsSync(`${folder}/file`));
    assert.throws(() => listenUnix(`${folder}/${'x'.repeat(107)}`), /expected 1 to 107 bytes/);
  }));

test('a poll set reports each descriptor by itself, whatever else comes and goes', () => {
  const events = Array.from({ length: 5 }, () => new EventFd());
  const polls = new PollSet(1);
  try {
    for (const { fd } of events) polls.add(fd);
    const [a, b, c, d, e] = events as [EventFd, EventFd, EventFd, EventFd, EventFd];
    assert.equal(polls.wait(0), 0);
    b.signal();
    e.signal();
    assert.equal(polls.wait(-1), 2);
    assert.deepEqual(
      events.map(({ fd }) => polls.revents(fd)),
      [0, POLL.IN, 0, 0, POLL.IN],
    );
    assert.ok(polls.remove(a.fd));
    assert.ok(!polls.remove(a.fd));
    assert.equal(polls.size, 4);
    assert.equal(polls.revents(e.fd), POLL.IN);
    assert.equal(polls.wait(0), 2);
    polls.add(c.fd, POLL.OUT);
    assert.equal(polls.size, 4);
    assert.equal(polls.wait(0), 3);
    assert.equal(polls.revents(c.fd), POLL.OUT);
    assert.equal(polls.revents(d.fd), 0);
    assert.equal(polls.revents(a.fd), 0);
    polls.clear();
    assert.equal(polls.wait(0), 0);
    assert.throws(() => polls.add(-1), /expected a descriptor, got -1/);
  } finally {
    polls.close();
    polls.close();
    for (const event of events) event.close();
  }
});

test('an event wakes a worker that sleeps in poll(2)', async () => {
  const event = new EventFd();
  const code = `
    const { parentPort, workerData } = require('node:worker_threads');
    Promise.all([import(workerData.poll), import(workerData.eventfd)]).then(([{ PollSet }, { EventFd }]) => {
      const event = new EventFd(workerData.fd);
      const polls = new PollSet();
      polls.add(event.fd);
      parentPort.postMessage('ready');
      parentPort.postMessage([polls.wait(10000), event.drain(), event.drain()]);
      polls.close();
    });`;
  const url = (path: string) => new URL(path, import.meta.url).href;
  const worker = new Worker(code, {
    eval: true,
    workerData: { fd: event.fd, poll: url('./poll.js'), eventfd: url('./eventfd.js') },
  });
  try {
    const ended = once(worker, 'exit');
    await once(worker, 'message');
    assert.equal(event.signal(), 0);
    assert.deepEqual(await once(worker, 'message'), [[1, 1, 0]]);
    await ended;
  } finally {
    await worker.terminate();
    event.close();
  }
});

test('a time slice is the calling thread’s', async () => {
  /** As the scheduler has it, ns; NaN where the kernel does not show it. */
  const slice = (thread: number) => {
    const file = `/proc/self/task/${thread}/sched`;
    const text = existsSync(file) ? readFileSync(file, 'latin1') : '';
    return Number(/^se\.slice +: +(\d+)/m.exec(text)?.[1] ?? Number.NaN);
  };
  const before = slice(threadId());
  const url = new URL('./process.js', import.meta.url).href;
  const code = `import(${JSON.stringify(url)}).then(({ setTimeSlice, threadId }) => {
    const { parentPort } = require('node:worker_threads');
    parentPort.on('message', () => parentPort.close());
    parentPort.postMessage([setTimeSlice(200), threadId()]);
  });`;
  const worker = new Worker(code, { eval: true, trackUnmanagedFds: false });
  const ended = once(worker, 'exit');
  const [[done, thread]] = (await once(worker, 'message')) as [[boolean, number]];
  const after = slice(thread);
  worker.postMessage('end');
  await ended;
  assert.equal(done, process.arch === 'x64' || process.arch === 'arm64');
  // Kernels before 6.12 leave it as it was.
  if (done && !Number.isNaN(before))
    assert.ok(after === 200_000 || after === before, `${before} before, ${after} after`);
  assert.deepEqual(slice(threadId()), before);
});

test('affinity is the calling thread’s', () => {
  const before = affinity();
  assert.ok(before.length > 0);
  setAffinity([before[0]!]);
  try {
    assert.deepEqual(affinity(), [before[0]]);
    assert.equal(readlinkSync('/proc/thread-self'), `${process.pid}/task/${threadId()}`);
  } finally {
    setAffinity(before);
  }
  assert.throws(() => setAffinity([-1]), /expected CPU numbers below 1024, got -1/);
  assert.throws(() => setAffinity([1023]), { code: 'EINVAL' });
});

test('a file’s lock is one descriptor’s, and goes with its process', () =>
  inFolder(async (folder) => {
    const first = openSync(`${folder}/lock`, 'w');
    const second = openSync(`${folder}/lock`, 'r');
    assert.ok(lockFile(first));
    assert.ok(!lockFile(second));
    unlockFile(first);
    assert.ok(lockFile(second));
    closeSync(second);
    const code = `
      const { lockFile, setParentDeathSignal } = await import(process.argv[1]);
      const { openSync } = await import('node:fs');
      setParentDeathSignal(9);
      process.stdout.write(String(lockFile(openSync(process.argv[2], 'w'))));
      process.stdin.resume();`;
    const url = new URL('./process.js', import.meta.url).href;
    const child = spawn(process.execPath, ['--input-type=module', '-e', code, '--', url, `${folder}/lock`], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const exited = once(child, 'exit');
    try {
      assert.equal(String((await once(child.stdout, 'data'))[0]), 'true');
      assert.ok(!lockFile(first));
      assert.ok(isAlive(child.pid!));
      child.kill('SIGKILL');
      await exited;
      assert.ok(!isAlive(child.pid!));
      assert.ok(lockFile(first));
    } finally {
      child.kill('SIGKILL');
      closeSync(first);
    }
    setParentDeathSignal(0);
    assert.throws(() => lockFile(first), { code: 'EBADF' });
  }));

test('work in another network namespace comes back, also when it throws', { skip: noNamespaceReason() }, () => {
  const home = readlinkSync('/proc/thread-self/ns/net');
  const network = createNetwork();
  try {
    assert.equal(readlinkSync('/proc/thread-self/ns/net'), home);
    const path = `/proc/self/fd/${network}`;
    const there = inNetwork(path, () => readlinkSync('/proc/thread-self/ns/net'));
    assert.notEqual(there, home);
    assert.throws(() => inNetwork(path, () => assert.fail('work')), /work/);
    assert.equal(readlinkSync('/proc/thread-self/ns/net'), home);
    assert.equal(
      inNetwork(process.pid, () => readlinkSync('/proc/thread-self/ns/net')),
      home,
    );
    assert.throws(() => openNetwork('/none'), { code: 'ENOENT' });
    assert.throws(() => inNetwork('/dev/null', () => 0), { name: 'OsError', code: 'EINVAL' });
  } finally {
    closeSync(network);
  }
});
