import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import {
  createMachineDirectory,
  listMachines,
  machinePath,
  openRunDirectory,
  removeStaleMachines,
  runDirectoryPath,
  runDirectoryPaths,
} from './rundir.js';

async function inFolder(work: (folder: string) => void | Promise<void>): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/netvsc-rundir-`);
  try {
    await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A process that holds a machine and then runs `then`. Resolves when it has it. */
async function holder(
  run: string,
  name: string,
  then: string,
): Promise<{ child: ChildProcess; exited: Promise<unknown[]> }> {
  const code = `
    const { createMachineDirectory } = await import(process.argv[1]);
    const { existsSync, writeFileSync } = await import('node:fs');
    const machine = createMachineDirectory(process.argv[3], process.argv[2]);
    writeFileSync(machine.path + '/file', 'x');
    process.stdout.write('held');
    ${then}`;
  const url = new URL('./rundir.js', import.meta.url).href;
  const child = spawn(process.execPath, ['--input-type=module', '-e', code, '--', url, run, name], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  await Promise.race([once(child.stdout!, 'data'), exited]);
  return { child, exited };
}
const WAIT = 'process.stdin.resume();'; // ends with the test, however that ends

test('the run directory is the user’s own', () =>
  inFolder((folder) => {
    assert.equal(runDirectoryPath({ XDG_RUNTIME_DIR: '/run/user/5' }), '/run/user/5/netvsc');
    const fallback = process.getuid!() === 0 ? '/run/netvsc' : `/tmp/netvsc-${process.getuid!()}`;
    assert.equal(runDirectoryPath({}), fallback);
    assert.equal(runDirectoryPath({ XDG_RUNTIME_DIR: 'relative' }), fallback);
    const session = ['/run/user/5/netvsc', ...(process.getuid!() === 0 ? [fallback] : [])];
    assert.deepEqual(runDirectoryPaths({ XDG_RUNTIME_DIR: '/run/user/5' }), session);
    assert.deepEqual(runDirectoryPaths({}), [fallback]);
    const run = `${folder}/run`;
    assert.equal(openRunDirectory(run), run);
    assert.equal(statSync(run).mode & 0o777, 0o700);
    assert.equal(openRunDirectory(run), run);
    chmodSync(run, 0o770);
    assert.throws(
      () => openRunDirectory(run),
      /run: expected a directory of user \d+ with mode 0700, but its mode is 0770/,
    );
    symlinkSync(folder, `${folder}/link`);
    assert.throws(() => openRunDirectory(`${folder}/link`), /but it is a symbolic link/);
    writeFileSync(`${folder}/file`, '');
    assert.throws(() => openRunDirectory(`${folder}/file`), /but it is no directory/);
    assert.throws(() => openRunDirectory(`${folder}/no/where`), /ENOENT/);
  }));

test('a directory of someone else is refused', { skip: process.getuid!() !== 0 && 'needs root to make one' }, () =>
  inFolder((folder) => {
    mkdirSync(`${folder}/run`, { mode: 0o700 });
    chownSync(`${folder}/run`, 12_345, 12_345);
    assert.throws(() => openRunDirectory(`${folder}/run`), /but it belongs to user 12345/);
  }),
);

test('machine names are file names and nothing more', () =>
  inFolder((folder) => {
    for (const name of ['', '.', '..', 'a/b', '../x', 'a b', 'a\n', 'é', 'x'.repeat(65)]) {
      assert.throws(() => machinePath(name, folder), /machine name .*: expected 1 to 64 letters/);
      assert.throws(() => createMachineDirectory(name, folder), /machine name/);
    }
    assert.deepEqual(readdirSync(folder), []);
    for (const name of ['a', 'A-1_b.c', '...', 'x'.repeat(64)]) createMachineDirectory(name, folder).remove();
    assert.deepEqual(readdirSync(folder), []);
  }));

test('a machine is held once, listed with its holder, and its name is free after removal', () =>
  inFolder((folder) => {
    const machine = createMachineDirectory('m', folder);
    assert.equal(statSync(machine.path).mode & 0o777, 0o700);
    assert.throws(() => createMachineDirectory('m', folder), new RegExp(`machine m: in use by process ${process.pid}`));
    assert.deepEqual(listMachines(folder), [{ name: 'm', path: machine.path, pid: process.pid }]);
    assert.deepEqual(removeStaleMachines(folder), []);
    writeFileSync(`${machine.path}/file`, '');
    machine.remove();
    machine.remove();
    assert.deepEqual(readdirSync(folder), []);
    createMachineDirectory('m', folder).remove();
  }));

test('what a killed process leaves is found and removed, what a live one has is not', () =>
  inFolder(async (folder) => {
    const [dead, live] = await Promise.all([holder(folder, 'dead', WAIT), holder(folder, 'live', WAIT)]);
    try {
      assert.throws(() => createMachineDirectory('dead', folder), new RegExp(`in use by process ${dead.child.pid}`));
      dead.child.kill('SIGKILL');
      await dead.exited;
      assert.ok(existsSync(`${folder}/dead/file`));
      const pids = Object.fromEntries(listMachines(folder).map(({ name, pid }) => [name, pid]));
      assert.deepEqual(pids, { dead: undefined, live: live.child.pid });
      const machine = createMachineDirectory('dead', folder);
      assert.deepEqual(readdirSync(machine.path), ['lock']);
      machine.remove();
      mkdirSync(`${folder}/half`, { mode: 0o700 }); // died between making and locking it
      live.child.kill('SIGKILL');
      await live.exited;
      assert.deepEqual(removeStaleMachines(folder).sort(), ['half', 'live']);
      assert.deepEqual(readdirSync(folder), []);
    } finally {
      dead.child.kill('SIGKILL');
      live.child.kill('SIGKILL');
    }
  }));

test('folders go at the end of the process: normal, by signal, by an exception', () =>
  inFolder(async (folder) => {
    const ends = await Promise.all([
      holder(folder, 'normal', 'setTimeout(() => {}, 1);'),
      holder(folder, 'exit', 'process.exit(3);'),
      holder(folder, 'term', WAIT),
      holder(folder, 'own', `${WAIT} process.on('SIGINT', () => process.exit(existsSync(machine.path) ? 5 : 6));`),
    ]);
    try {
      ends[2].child.kill('SIGTERM');
      ends[3].child.kill('SIGINT');
      const results = await Promise.all(ends.map(({ exited }) => exited));
      assert.deepEqual(results, [
        [0, null],
        [3, null],
        [null, 'SIGTERM'],
        [5, null],
      ]);
      assert.deepEqual(readdirSync(folder), []);
    } finally {
      for (const { child } of ends) child.kill('SIGKILL');
    }
  }));

test('two processes that want the same machine never have it together', () =>
  inFolder(async (folder) => {
    const code = `
      const { createMachineDirectory } = await import(process.argv[1]);
      const { closeSync, openSync } = await import('node:fs');
      for (let cycle = 0; cycle < 200; ) {
        let machine;
        try {
          machine = createMachineDirectory('m', process.argv[2]);
        } catch (error) {
          if (!/in use by process/.test(error.message)) throw error;
          continue;
        }
        closeSync(openSync(machine.path + '/mine', 'wx'));
        machine.remove();
        cycle++;
      }`;
    const url = new URL('./rundir.js', import.meta.url).href;
    const children = [0, 1].map(() =>
      spawn(process.execPath, ['--input-type=module', '-e', code, '--', url, folder], {
        stdio: ['ignore', 'ignore', 'pipe'],
      }),
    );
    try {
      const ends = children.map(async (child) => {
        const exited = once(child, 'exit');
        let errors = '';
        for await (const chunk of child.stderr!) errors += chunk;
        return [...(await exited), errors];
      });
      assert.deepEqual(await Promise.all(ends), [
        [0, null, ''],
        [0, null, ''],
      ]);
      assert.deepEqual(readdirSync(folder), []);
    } finally {
      for (const child of children) child.kill('SIGKILL');
    }
  }));
