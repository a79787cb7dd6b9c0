// The preload shim under programs of all kinds, under compilers' warnings, and under a memory checker.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { packageRoot } from '../../src/apps/package-info.js';
import { runEnvironment } from '../../src/apps/run/run.js';
import { shimPath } from '../../src/apps/run/shim.js';
import { machineName, startHost } from '../lifecycle/processes.js';

const LIMIT_MS = 60_000;
const NOBODY = '65534';
const has = (program: string) => !spawnSync(program, ['--version']).error;
const noCompiler = !has('cc') && 'not installed: a C compiler';

function folder(t: TestContext): string {
  const made = mkdtempSync(path.join(tmpdir(), 'netvsc-shim-'));
  t.after(() => rmSync(made, { recursive: true, force: true }));
  chmodSync(made, 0o755);
  return made;
}

function buildProbe(to: string): string {
  const output = path.join(to, 'probe');
  const source = path.join(packageRoot(), 'test/peers/shim-probe.c');
  const built = spawnSync('cc', ['-O1', '-g', '-Wall', '-Wextra', '-Werror', '-o', output, source, '-lpthread'], {
    encoding: 'utf8',
  });
  assert.equal(built.status, 0, built.stderr);
  return output;
}

async function start(t: TestContext): Promise<{ machine: string; uuids: string[]; mac: string }> {
  const machine = machineName();
  const ready = await startHost(t, machine).line('ready');
  const nics = ready.nics as { uuid: string; mac: string }[];
  return { machine, uuids: nics.map(({ uuid }) => uuid), mac: nics[0]!.mac };
}

for (const compiler of ['gcc', 'clang']) {
  test(`${compiler} has nothing to warn of`, { skip: !has(compiler) && `not installed: ${compiler}` }, (t) => {
    const native = path.join(packageRoot(), 'native');
    const sources = readdirSync(native).filter((name) => name.endsWith('.c'));
    assert.ok(sources.length > 0);
    const words = ['-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror', '-fPIC', '-shared', '-fvisibility=hidden'];
    const files = sources.map((name) => path.join(native, name));
    const output = path.join(folder(t), 'shim.so');
    const { status, stderr } = spawnSync(compiler, [...words, '-o', output, ...files, '-ldl', '-lpthread'], {
      encoding: 'utf8',
    });
    assert.deepEqual([status, stderr], [0, '']);
  });
}

test('paths of all shapes, calls of all kinds, addresses, threads and children', { skip: noCompiler }, async (t) => {
  const { machine, uuids } = await start(t);
  const probe = buildProbe(folder(t));
  const { status, stdout } = spawnSync(probe, [uuids[0]!], {
    ...{ env: runEnvironment(machine), encoding: 'utf8', timeout: LIMIT_MS },
  });
  assert.deepEqual([status, stdout], [0, '0 wrong\n']);
});

test('valgrind finds no fault', { skip: noCompiler || (!has('valgrind') && 'not installed: valgrind') }, async (t) => {
  const { machine, uuids } = await start(t);
  const probe = buildProbe(folder(t));
  // Children of a process with threads do not have those: their stacks are possibly lost.
  const leaks = ['--leak-check=full', '--show-leak-kinds=definite', '--errors-for-leak-kinds=definite'];
  const words = ['-q', '--error-exitcode=9', ...leaks, probe, uuids[0]!, 'valgrind'];
  const { status, stdout, stderr } = spawnSync('valgrind', words, {
    ...{ env: runEnvironment(machine), encoding: 'utf8', timeout: LIMIT_MS },
  });
  assert.deepEqual([status, stdout.trim().split('\n').at(-1)], [0, '0 wrong'], stdout + stderr);
});

test('an ordinary user sees virtual addresses, too, and needs no right to lock memory', {
  skip: noCompiler || (process.getuid?.() !== 0 && 'only root can become an ordinary user'),
}, (t) => {
  const place = folder(t);
  const probe = buildProbe(place);
  const shim = path.join(place, 'shim.so');
  copyFileSync(shimPath(), shim);
  chmodSync(shim, 0o644);
  const ids = ['--reuid', NOBODY, '--regid', NOBODY, '--clear-groups'];
  const { status, stdout, stderr } = spawnSync('prlimit', ['--memlock=0', 'setpriv', ...ids, probe, '-'], {
    ...{ encoding: 'utf8', timeout: LIMIT_MS, cwd: '/' },
    env: { PATH: process.env.PATH, LD_PRELOAD: shim, NETVSC_ROOT: place },
  });
  assert.deepEqual([status, stdout], [0, '0 wrong\n'], stderr);
});

test('shells, find, ls, stat, Python and Node see a kernel’s paths and never the machine’s', {
  skip: noCompiler,
}, async (t) => {
  const { machine, uuids } = await start(t);
  const env = runEnvironment(machine);
  const bus = '/sys/bus/vmbus';
  const device = `${bus}/devices/${uuids[0]}`;
  const run = (program: string, ...words: string[]) => {
    const { status, stdout, stderr } = spawnSync(program, words, {
      env,
      encoding: 'utf8',
      timeout: LIMIT_MS,
      cwd: '/',
    });
    assert.deepEqual([status, stderr], [0, ''], `${program} ${words.join(' ')}: ${stdout}`);
    assert.ok(!stdout.includes(env.NETVSC_ROOT!), `${program} ${words.join(' ')}: ${stdout}`);
    return stdout;
  };
  assert.match(run('ls', '-lR', bus), /class_id/);
  assert.match(run('find', bus, '-name', 'id', '-exec', 'cat', '{}', '+'), /^\d+\n\d+\n$/);
  assert.equal(run('find', `${bus}/devices/`, '-mindepth', '1', '-maxdepth', '1').split('\n').length, 3);
  assert.equal(run('stat', '-c', '%F', `${device}/driver`, device), 'symbolic link\ndirectory\n');
  assert.equal(run('readlink', '-f', `${device}/driver`), `${bus}/drivers/uio_hv_generic\n`);
  assert.equal(run('sh', '-c', `cd ${device}/channels && cd .. && cat id && pwd -P`), `1\n${device}\n`);
  assert.equal(run('sh', '-c', `cd ${device} && echo ../*/id`).split(' ').length, 2);
  assert.equal(run('sh', '-c', `cd /sys/bus && cat vmbus/devices/${uuids[0]}/id`), '1\n');
  const names = JSON.stringify(uuids.toSorted());
  const node = `const fs = require('node:fs'); process.chdir('${bus}');
    console.log(JSON.stringify([fs.statSync('${bus}').isDirectory(), fs.existsSync('/dev/uio0'), process.cwd(),
      fs.realpathSync.native('${device}/..'), fs.readdirSync('devices').sort()]))`;
  assert.equal(run(process.execPath, '-e', node), `[true,true,"${bus}","${bus}/devices",${names}]\n`);
  if (!has('python3')) return t.diagnostic('python3 is not installed');
  const python = `import glob, json, os, pathlib
os.chdir("${device}")
fd = os.open("/sys/bus", os.O_RDONLY)
walked = [where for where, _, _ in os.walk("${bus}")]
print(json.dumps([sorted(os.listdir("${bus}/devices")), os.getcwd(), os.path.exists("/dev/uio1"),
  str(pathlib.Path("${device}/driver").resolve()), len(glob.glob("${bus}/devices/*/id")),
  sorted(os.listdir(os.open("vmbus", os.O_RDONLY, dir_fd=fd))), "${device}" in walked, open("id").read()],
  separators=(",", ":")))`;
  const seen = [names, `"${device}"`, 'true', `"${bus}/drivers/uio_hv_generic"`, '2'];
  const rest = ['["devices","drivers","drivers_probe"]', 'true', '"1\\n"'];
  assert.equal(run('python3', '-c', python), `[${[...seen, ...rest].join(',')}]\n`);
});

test('a program that is statically linked is not changed, and says what it finds', { skip: noCompiler }, async (t) => {
  const { machine } = await start(t);
  const place = folder(t);
  const output = path.join(place, 'static');
  const source =
    '#include <unistd.h>\nint main(void) { return access("/sys/bus/vmbus/devices", F_OK) == 0 ? 0 : 3; }\n';
  const built = spawnSync('cc', ['-static', '-x', 'c', '-o', output, '-'], { input: source, encoding: 'utf8' });
  if (built.status !== 0) return t.skip('no static C library');
  const there = spawnSync(output).status;
  assert.equal(spawnSync(output, { env: runEnvironment(machine) }).status, there);
});
