// Builds programs of this folder against the system's DPDK.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { packageRoot } from '../../src/apps/package-info.js';

/** Why that is not possible here, or false. */
export function noDpdkBuild(): string | false {
  if (spawnSync('cc', ['--version']).error) return 'not installed: a C compiler';
  return spawnSync('pkg-config', ['--exists', 'libdpdk']).status !== 0 && 'not installed: libdpdk-dev, pkg-config';
}

/** Path of the program of test/peers/NAME.c, while the test runs. */
export function buildDpdkProgram(t: TestContext, name: string): string {
  const folder = mkdtempSync(path.join(tmpdir(), `netvsc-${name}-`));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const output = path.join(folder, name);
  const { stdout } = spawnSync('pkg-config', ['--cflags', '--libs', 'libdpdk'], { encoding: 'utf8' });
  const source = path.join(packageRoot(), 'test/peers', `${name}.c`);
  const words = ['-O2', '-Wall', '-Wextra', '-o', output, source, ...stdout.trim().split(/\s+/)];
  const { status, stderr } = spawnSync('cc', words, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return output;
}
