import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
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
  ['guest --echo 10.0.0.1', /expected one of --machine or --root/],
  ['guest --machine m --root / --echo 10.0.0.1', /cannot be used with/],
  ['guest --machine no-such-machine --echo 10.0.0.1', /no machine at .*no-such-machine/],
  ['guest --machine m', /one of --tap, --echo, or --generate with --target/],
  ['guest --machine m --echo 10.0.0', /expected an IPv4 address/],
  ['guest --machine m --nic x --echo 10.0.0.1', /a number from 0 on, or a UUID/],
  ['guest --machine m --queues 65 --echo 10.0.0.1', /a whole number from 1 to 64/],
  ['guest --machine m --tap t0 --echo 10.0.0.1', /cannot be used with/],
  ['testpmd --bogus', /EAL: Unknown option '--bogus'/],
  ['testpmd --vdev net_bogus0', /net_bogus0: no driver for it/],
  ['testpmd -- --bogus', /unknown option --bogus/],
  ['testpmd -- --burst=0', /option --burst: expected a whole number 1 to 512, got "0"/],
  ['testpmd -- --nb-cores', /option --nb-cores: expected a value/],
  ['example bogus', /expected one of hello, .*balancer, got "bogus"/],
  ['xdp show', /missing required argument 'object'/],
  ['xdp show no-such-object', /no such file.*'no-such-object'/],
  ['xdp show /dev/null', /\/dev\/null: ELF64_HEADER: expected 64 bytes|offset 0x0: ELF64_HEADER: expected 64 bytes/],
  ['xdp show /dev/null --type tc', /type "tc": expected one of xdp, xdp\.frags, .*cpumap/],
  ['xdp prog dump /proc/self/exe', /exe: ELF type: expected a relocatable object|expected at most 16777216 bytes/],
  ['devbind frobnicate', /unknown command 'frobnicate'/],
  ['devbind set-override eth0', /missing required argument 'driver'/],
  ['devbind unset-override', /missing required argument 'device'/],
  ['devbind list-devices --root no-such-machine', /no-such-machine: not there; is the host of that machine running/],
  ['devbind list-devices --root /proc/self/fdinfo', /fdinfo\/sys\/bus\/vmbus: not there; expected a machine directory/],
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

test("testpmd's help is its own, before and behind --", () => {
  for (const words of [['--help'], ['--', '--help'], ['-l', '0', '--', '-h']]) {
    const { status, stdout } = run('testpmd', ...words);
    assert.equal(status, 0);
    for (const part of ['EAL options:', 'testpmd options:', '--vdev NAME', '--nb-cores=N'])
      assert.ok(stdout.includes(part), part);
  }
});

test('version and help', () => {
  const { version } = JSON.parse(readFileSync(path.join(packageRoot(), 'package.json'), 'utf8'));
  assert.deepEqual([run('--version').stdout.trim(), run('--version').status], [version, 0]);
  const { status, stdout } = run('host', '--help');
  assert.equal(status, 0);
  for (const form of UPLINK_FORMS) assert.equal(stdout.includes(form), true, form);
  for (const command of ['demo', 'host', 'guest', 'up']) {
    const text = run(command, '--help').stdout;
    assert.doesNotMatch(text, /\(default: false\)/, command);
    if (command !== 'up') assert.match(text, /\(default: [^)f]/, command);
  }
});

test('netvsc host, and two netvsc guests that talk over it: what one sends the other answers', async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-cli-'));
  const environment = { ...process.env, XDG_RUNTIME_DIR: folder };
  const start = (...words: string[]) =>
    spawn(process.execPath, [main, ...words], { stdio: ['ignore', 'pipe', 'inherit'], env: environment });
  const host = start('host', '--machine', 'pair', '--json');
  const echo = start('guest', '--machine', 'pair', '--nic', '1', '--echo', '10.0.0.2', '--wait', '--json');
  t.after(() => {
    for (const child of [host, echo]) child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });
  await Promise.all([once(host.stdout, 'data'), once(echo.stdout, 'data')]);
  const words = ['--generate', '10.0.0.1', '--target', '10.0.0.2', '--seconds', '1', '--json'];
  const sender = start('guest', '--machine', 'pair', ...words);
  let output = '';
  sender.stdout.on('data', (text) => {
    output += text;
  });
  const [code] = await once(sender, 'close');
  const { stats } = JSON.parse(output.trim().split('\n').at(-1)!);
  assert.equal(code, 0);
  assert.ok(stats.received > 100, output);
  // What the last time slice sent may still be under way.
  assert.ok(stats.sent - stats.received < Math.max(2000, stats.sent * 0.75), output);
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

test('netvsc devbind takes a NIC from the guests of a running host, and gives it back', async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-cli-'));
  const env = { ...process.env, XDG_RUNTIME_DIR: folder };
  const words = ['host', '--machine', 'bound', '--nics', '1', '--uplink', 'echo:10.0.0.1', '--json'];
  const host = spawn(process.execPath, [main, ...words], { stdio: ['ignore', 'pipe', 'inherit'], env });
  t.after(() => {
    host.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });
  const [text] = await once(host.stdout, 'data');
  const { uuid } = JSON.parse(String(text).split('\n')[0]!).nics[0];
  const netvsc = (...given: string[]) => {
    return spawnSync(process.execPath, [main, ...given], { encoding: 'utf8', timeout: 20_000, env });
  };
  const devbind = (...given: string[]) => {
    const { status, stdout, stderr } = netvsc('devbind', ...given, '--root', 'bound');
    assert.equal(status, 0, stderr);
    return stdout;
  };
  const guest = () => netvsc('guest', '--machine', 'bound', '--echo', '10.0.0.2', '--seconds', '1');

  assert.equal(devbind('list-devices'), `${uuid} uio_hv_generic\n`);
  assert.match(
    devbind('set-override', uuid, 'hv_netvsc', '--dry-run'),
    /^would write ".*" to .*uio_hv_generic\/unbind$/m,
  );
  assert.equal(devbind('list-devices'), `${uuid} uio_hv_generic\n`);
  assert.equal(devbind('set-override', uuid, 'hv_netvsc'), '');
  assert.equal(devbind('list-devices'), `${uuid} hv_netvsc [*]\n`);
  assert.equal(devbind('list-overrides', '-v'), `${uuid} hv_netvsc (Hyper-V network device, channel 1)\n`);
  const { status, stderr } = guest();
  assert.equal(status, 1);
  assert.match(stderr, /uio_hv_generic is not bound to it, but hv_netvsc/);
  writeFileSync(path.join(folder, 'netvsc/bound/sys/bus/vmbus/drivers_probe'), 'nobody\n');
  assert.deepEqual(JSON.parse(devbind('set-override', uuid, 'uio_hv_generic', '--json')), {
    ...{ uuid, driver: 'uio_hv_generic', changed: true },
  });
  const attached = guest();
  assert.equal(attached.status, 0, attached.stderr);
  assert.match(attached.stderr, /^attached to /);
  let output = '';
  host.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  host.kill('SIGTERM');
  await once(host, 'close');
  const { drivers } = JSON.parse(output);
  assert.deepEqual([drivers.commands, drivers.refused], [4, 1]);
  assert.match(drivers.lastRefusal, /drivers_probe: EINVAL: expected a UUID, got "nobody"$/);
});
