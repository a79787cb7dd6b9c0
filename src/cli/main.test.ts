import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { packageRoot } from '../apps/package-info.js';
import { UPLINK_FORMS } from '../host/uplinks/index.js';

const main = fileURLToPath(new URL('./main.js', import.meta.url));
const run = (...words: string[]) =>
  spawnSync(process.execPath, [main, ...words], { encoding: 'utf8', timeout: 20_000 });

for (const [words, expected] of [
  ['demo --nics 9', /--nics.*'9'.*from 2 to 8/],
  ['demo --nics 1', /from 2 to 8/],
  ['demo --mtu 67', /from 68 to 65521/],
  ['demo --seconds 0', /seconds from 0\.1 to 3600/],
  ['demo --profile ws2003', /one of ws2008r2, .*azure/],
  ['demo --frobnicate', /unknown option '--frobnicate'/],
  ['demo extra', /too many arguments/],
  ['dmo', /unknown command 'dmo'/],
  ['host', /'--machine <name>' not specified/],
  ['host --machine a/b', /letters, digits/],
  ['host --machine m --uplink foo:1', /expected one of tap:NAME, .*echo/],
] as const) {
  test(`netvsc ${words}: exit code 1 and one line that says what was expected`, () => {
    const { status, stdout, stderr } = run(...words.split(' '));
    assert.equal(status, 1);
    assert.equal(stdout, '');
    assert.match(stderr, expected);
    assert.match(stderr, /^netvsc: /);
    const lines = stderr
      .trim()
      .split('\n')
      .filter((line) => !line.startsWith('(Did you mean'));
    assert.equal(lines.length, 1, stderr);
  });
}

test('version and help', () => {
  const { version } = JSON.parse(readFileSync(path.join(packageRoot(), 'package.json'), 'utf8'));
  assert.deepEqual([run('--version').stdout.trim(), run('--version').status], [version, 0]);
  const { status, stdout } = run('host', '--help');
  assert.equal(status, 0);
  for (const form of UPLINK_FORMS) assert.equal(stdout.includes(form), true, form);
});

test('netvsc host says where the machine is, serves, and removes it at SIGTERM', async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-cli-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const words = ['host', '--machine', 'clitest', '--nics', '1', '--uplink', 'echo', '--profile', 'ws2012', '--json'];
  const child = spawn(process.execPath, [main, ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, XDG_RUNTIME_DIR: folder },
  });
  t.after(() => child.kill('SIGKILL'));
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  await once(child.stdout, 'data');
  const ready = JSON.parse(output.split('\n')[0]!);
  assert.deepEqual([ready.machine, ready.profile, ready.nics.length], ['clitest', 'ws2012', 1]);
  assert.equal(existsSync(path.join(ready.path, `sys/bus/vmbus/devices/${ready.nics[0].uuid}`)), true);
  child.kill('SIGTERM');
  const [code] = await once(child, 'close');
  assert.equal(code, 143);
  assert.equal(JSON.parse(output.trim().split('\n').at(-1)!).nics[0].phase, 'closed');
  assert.equal(existsSync(ready.path), false);
});
