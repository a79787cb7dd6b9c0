// Starts DPDK programs on a machine, as processes that write to files: their helpers may outlive them, pipes must not wait
// for those.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { packageRoot } from '../../src/apps/package-info.js';
import { runEnvironment } from '../../src/apps/run/run.js';

export const TESTPMD = '/usr/bin/dpdk-testpmd';
/** No huge pages, no root, no shared files; page numbers are virtual. */
const EAL = ['--no-huge', '--no-pci', '--no-telemetry', '--no-shconf', '--iova-mode=va', '-m', '160'];
const PATIENCE_MS = 60_000;

/** Why DPDK programs cannot run here, or false. */
export function noDpdk(): string | false {
  if (!existsSync(TESTPMD)) return 'not installed: dpdk-dev';
  return false;
}

/** The same for programs that have to be built. */
export function noDpdkBuild(): string | false {
  const missing = noDpdk();
  if (missing) return missing;
  if (spawnSync('cc', ['--version']).error) return 'not installed: a C compiler';
  return spawnSync('pkg-config', ['--exists', 'libdpdk']).status !== 0 && 'not installed: libdpdk-dev, pkg-config';
}

export class Program {
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #output: string;
  readonly #ended: Promise<unknown>;

  /** `input`: what it finds on its standard input. */
  constructor(t: TestContext, machine: string, command: readonly string[], lcores: string) {
    const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-dpdk-'));
    this.#output = path.join(folder, 'output');
    const file = openSync(this.#output, 'w');
    const at = command.indexOf('--');
    const words = [...command.slice(1, at), ...EAL, '-l', lcores, ...command.slice(at)];
    this.#child = spawn(command[0]!, words, { stdio: ['ignore', file, file], env: runEnvironment(machine) });
    closeSync(file);
    this.pid = this.#child.pid!;
    this.#ended = once(this.#child, 'exit');
    t.after(async () => {
      await this.kill();
      rmSync(folder, { recursive: true, force: true });
    });
  }

  get output(): string {
    return readFileSync(this.#output, 'utf8');
  }

  get alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Resolves once it has printed this. */
  async said(what: RegExp): Promise<void> {
    const began = performance.now();
    while (!what.test(this.output)) {
      assert.ok(this.alive, `it ended before it said ${what}:\n${this.output}`);
      assert.ok(performance.now() - began < PATIENCE_MS, `it never said ${what}:\n${this.output}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Its exit code, or null when a signal ended it. */
  async end(): Promise<number | null> {
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), PATIENCE_MS);
    await this.#ended;
    clearTimeout(timer);
    return this.#child.exitCode;
  }

  async kill(): Promise<void> {
    if (this.alive) this.#child.kill('SIGKILL');
    await this.#ended;
  }
}

let built: string | undefined;

/** Path of test/peers/pmd.c, built. */
export function buildPmd(): string {
  if (built) return built;
  const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-pmd-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  const { stdout } = spawnSync('pkg-config', ['--cflags', '--libs', 'libdpdk'], { encoding: 'utf8' });
  const source = path.join(packageRoot(), 'test/peers/pmd.c');
  const output = path.join(folder, 'pmd');
  const words = ['-O2', '-Wall', '-Wextra', '-o', output, source, ...stdout.trim().split(/\s+/)];
  const { status, stderr } = spawnSync('cc', words, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  built = output;
  return output;
}

/** The last line of JSON that pmd.c printed. */
export function pmdResult(program: Program): Record<string, number> {
  const lines = program.output.split('\n').filter((line) => line.startsWith('{"type":"ended"'));
  assert.equal(lines.length, 1, program.output);
  return JSON.parse(lines[0]!);
}
