// `netvsc ethtool` as a program, with an interface that this process answers for.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createNetwork } from '../memory/os/netns.js';
import { networkNumber, networkOf } from '../netdev/control-path.js';
import { ControlServer } from '../netdev/control-server.js';
import { MemoryNetdev } from '../netdev/control-testing.js';

const main = fileURLToPath(new URL('./main.js', import.meta.url));

interface Said {
  readonly out: string;
  readonly err: string;
  readonly code: number | null;
}

/** The program beside this process, which has to answer it. */
function run(runtime: string, ...words: string[]): Promise<Said> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, XDG_RUNTIME_DIR: runtime };
    const child = spawn(process.execPath, [main, 'ethtool', ...words], { env, timeout: 30_000 });
    let [out, err] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text) => {
      out += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      err += text;
    });
    child.once('error', reject);
    child.once('close', (code) => resolve({ out, err, code }));
  });
}

function runtimeOf(t: TestContext): string {
  const runtime = mkdtempSync(path.join(tmpdir(), 'netvsc-ethtool-'));
  t.after(() => rmSync(runtime, { recursive: true, force: true }));
  mkdirSync(`${runtime}/netvsc`, { mode: 0o700 });
  return runtime;
}

async function answer(t: TestContext, runtime: string, network = networkOf('this thread')): Promise<MemoryNetdev> {
  const control = new MemoryNetdev();
  const server = await ControlServer.start(
    {
      control,
      info: () => ({ interface: 'hv0', network, pid: process.pid, device: 'memory' }),
      metrics: () => '',
      down: () => {},
    },
    { runDirectory: `${runtime}/netvsc` },
  );
  t.after(() => server.close());
  return control;
}

test('words go through as they were typed, and the exit code is ethtool’s', async (t) => {
  const runtime = runtimeOf(t);
  const control = await answer(t, runtime);
  assert.match((await run(runtime, '-l', 'hv0')).out, /Combined:\t4\n$/);
  assert.deepEqual(await run(runtime, '-L', 'hv0', 'combined', '3'), { out: '', err: '', code: 0 });
  assert.deepEqual(control.calls, [['setChannels', 3]]);
  assert.equal((await run(runtime, '-G', 'hv0', 'rx', '999999')).code, 81);
  assert.equal(JSON.parse((await run(runtime, '--json', '-k', 'hv0')).out)[0].ifname, 'hv0');
  assert.match((await run(runtime, 'hv0')).out, /^Settings for hv0:\n/);
  // Of commander's own options none is left.
  assert.match((await run(runtime, '--version')).out, /^ethtool version 6\.1 /);
  assert.match((await run(runtime, '-h')).out, /^ethtool version 6\.1 .*\nUsage:\n/);
  assert.equal((await run(runtime, '-V')).code, 1);
  assert.equal((await run(runtime)).code, 1);
  // "--" ends the features, and is no end of options.
  assert.equal((await run(runtime, '-K', 'hv0', 'gro', 'off', '--')).code, 0);
});

test('no such interface, and one of the kernel’s', async (t) => {
  const runtime = runtimeOf(t);
  assert.deepEqual(await run(runtime, '-k', 'nosuch0'), {
    out: '',
    err: 'netlink error: no device matches name (offset 24)\nnetlink error: No such device\n',
    code: 1,
  });
  assert.deepEqual(await run(runtime, '-i', 'lo'), {
    out: '',
    err: 'Cannot get driver information: No such device\nnetvsc: lo is no interface that netvsc runs for this user\n',
    code: 71,
  });
});

test('--netns', async (t) => {
  const runtime = runtimeOf(t);
  const fd = networkFd(t);
  const there = await answer(t, runtime, typeof fd === 'number' ? networkNumber(fd) : '1');
  assert.match((await run(runtime, '-l', 'hv0')).err, /No such device/);
  const { err, code } = await run(runtime, '--netns', 'no-such-namespace', '-l', 'hv0');
  assert.match(err, /^netvsc: --netns: expected a network namespace, got no-such-namespace: ENOENT/);
  assert.equal(code, 1);
  assert.equal((await run(runtime, '--netns')).code, 1);
  if (typeof fd !== 'number') return t.diagnostic(`no other namespace here: ${fd}`);
  const space = `/proc/${process.pid}/fd/${fd}`;
  assert.equal((await run(runtime, '--netns', space, '-L', 'hv0', 'combined', '2')).code, 0);
  assert.deepEqual(there.calls, [['setChannels', 2]]);
});

/** A namespace, or why there can be none. */
function networkFd(t: TestContext): number | string {
  try {
    const fd = createNetwork();
    t.after(() => closeSync(fd));
    return fd;
  } catch (error) {
    return (error as Error).message;
  }
}

test('a reader that stops early is no error', async (t) => {
  const runtime = runtimeOf(t);
  const command = `"${process.execPath}" "${main}" ethtool -h | head -1; exit \${PIPESTATUS[0]}`;
  const { stdout, stderr, status } = spawnSync('bash', ['-c', command], {
    encoding: 'utf8',
    env: { ...process.env, XDG_RUNTIME_DIR: runtime },
  });
  assert.match(stdout, /^ethtool version/);
  assert.deepEqual([stderr, status], ['', 0]);
});
