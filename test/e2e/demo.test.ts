// The demo as a user starts it: as root and as an ordinary user, with every profile, small and jumbo MTU, full length
// once. The programs, the kernel's stacks and the interfaces are real.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { accessSync, chmodSync, constants, cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { PROFILE_NAMES } from '../../src/host/profiles.js';

const built = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const root = path.resolve(built, built.endsWith('dist') ? '..' : '../..');
const isRoot = process.getuid?.() === 0;
const NOBODY = 65534;
const LIMIT_MS = 120_000;

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(command: string, args: readonly string[], environment: NodeJS.ProcessEnv = process.env): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
    const timer = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS);
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (text) => {
      stdout += text;
    });
    child.stderr.on('data', (text) => {
      stderr += text;
    });
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code, stdout, stderr });
    });
  });
}

const cli = (folder: string) => path.join(folder, path.relative(root, built), 'src/cli/main.js');

/** Checks what --json says of a run that passed. */
function check(outcome: Outcome, profile: string, mtu: number): Record<string, unknown> {
  assert.equal(outcome.code, 0, `${profile}, MTU ${mtu}: ${outcome.stderr}\n${outcome.stdout}`);
  const result = JSON.parse(outcome.stdout);
  assert.equal(result.ok, true);
  assert.equal(result.mtu, mtu);
  return result;
}

const noTun = (() => {
  try {
    accessSync('/dev/net/tun', constants.F_OK);
    return false;
  } catch {
    return 'no /dev/net/tun on this machine';
  }
})();

describe('demo as root', { skip: isRoot ? noTun : 'not root' }, () => {
  test('full length: at least 1 GB by TCP, hashed at both ends', async () => {
    const result = check(await run(process.execPath, [cli(root), 'demo', '--json']), 'ws2019', 1500);
    const tcp = result.tcp as { bytesReceived: number; hashSent: string; hashReceived: string }[];
    assert.ok(tcp.reduce((sum, { bytesReceived }) => sum + bytesReceived, 0) >= 1e9);
    for (const { hashSent, hashReceived } of tcp) assert.equal(hashReceived, hashSent);
    const udp = result.udp as { lost: number; wrong: number; sizes: number[] }[];
    for (const { lost, wrong } of udp) assert.deepEqual([lost, wrong], [0, 0]);
    assert.deepEqual(
      udp.map(({ sizes }) => [Math.min(...sizes), Math.max(...sizes)]),
      [
        [1, 65507],
        [1, 65527],
      ],
    );
  });
  for (const profile of PROFILE_NAMES) {
    for (const mtu of [1500, 9000]) {
      test(`${profile}, MTU ${mtu}`, async () => {
        const args = [cli(root), 'demo', '--json', '--seconds', '0.2', '--profile', profile, '--mtu', String(mtu)];
        check(await run(process.execPath, args), profile, mtu);
      });
    }
  }
  test('four NICs', async () => {
    const args = [cli(root), 'demo', '--json', '--seconds', '0.2', '--nics', '4'];
    const result = check(await run(process.execPath, args), 'ws2019', 1500);
    assert.equal((result.nics as unknown[]).length, 4);
  });
});

describe('demo as an ordinary user', { skip: noTun }, () => {
  let folder: string;
  let device: string;
  let denied: string;

  before(async () => {
    // Somewhere that anybody may read: the checkout may lie in root's home.
    folder = mkdtempSync(path.join(tmpdir(), 'netvsc-e2e-'));
    chmodSync(folder, 0o755);
    const lock = JSON.parse(readFileSync(path.join(root, 'package-lock.json'), 'utf8'));
    for (const [name, entry] of Object.entries(lock.packages as Record<string, { dev?: boolean }>)) {
      if (name === '' || entry.dev || !existsSync(path.join(root, name))) continue;
      cpSync(path.join(root, name), path.join(folder, name), { recursive: true });
    }
    for (const part of [path.relative(root, built), 'package.json', 'docs/captures']) {
      cpSync(path.join(root, part), path.join(folder, part), { recursive: true });
    }
    device = path.join(folder, 'tun');
    // As on most distributions: whether this machine's udev opened the device to all or not.
    denied = path.join(folder, 'denied');
    for (const [node, mode] of [
      [device, '666'],
      [denied, '600'],
    ] as const) {
      if (isRoot) assert.equal((await run('mknod', ['-m', mode, node, 'c', '10', '200'])).code, 0);
    }
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  /** Runs the demo as `nobody`, who sees `tun` as /dev/net/tun. */
  function asUser(tun: string, args: readonly string[]): Promise<Outcome> {
    const demo = [process.execPath, cli(folder), 'demo', ...args];
    if (!isRoot) return run(demo[0]!, demo.slice(1));
    const ids = ['--reuid', String(NOBODY), '--regid', String(NOBODY), '--clear-groups'];
    const script = 'mount --bind "$1" /dev/net/tun && shift && exec setpriv "$@"';
    const environment = { PATH: process.env.PATH, HOME: folder, LANG: 'C' };
    return run('unshare', ['--mount', 'sh', '-c', script, 'sh', tun, ...ids, ...demo], environment);
  }

  for (const profile of PROFILE_NAMES) {
    test(profile, async () => {
      const args = ['--json', '--seconds', '0.2', '--profile', profile];
      const result = check(await asUser(device, args), profile, 1500);
      if (isRoot) assert.equal(result.mode, 'user namespace');
    });
  }

  test('no access to TAP devices: says so in one line and replays a capture', {
    skip: isRoot ? false : 'needs root',
  }, async () => {
    const outcome = await asUser(denied, ['--json', '--seconds', '0.2']);
    const result = check(outcome, 'ws2019', 1500);
    assert.equal(result.mode, 'replay');
    assert.match(`${outcome.stderr}${(result.notes as string[]).join('\n')}`, /\/dev\/net\/tun/);
  });
});
