// Programs of test/xdp/programs, compiled by clang in the test run.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { packageRoot } from '../../src/apps/package-info.js';

export const PROGRAMS = path.join(packageRoot(), 'test/xdp/programs');
/** Instruction sets that clang 14 knows. */
export const CPUS = ['v1', 'v2', 'v3'] as const;
export type Cpu = (typeof CPUS)[number];

export interface Tool {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a tool to its end. */
export function tool(command: string, ...args: readonly string[]): Tool {
  // bpftool is where only root looks.
  const env = { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` };
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    ...{ encoding: 'utf8', timeout: 60_000, maxBuffer: 64 * 1024 * 1024, env },
  });
  return { status: error ? null : status, stdout: stdout ?? '', stderr: stderr ?? String(error) };
}

/** Why a test that needs these tools is skipped; false when all are there. */
export function without(...tools: readonly string[]): string | false {
  const missing = tools.filter((name) => tool(name, '--version').status !== 0);
  return missing.length === 0 ? false : `not installed: ${missing.join(', ')}`;
}

/** Compiled objects in a folder of their own. */
export class Objects {
  readonly #folder = mkdtempSync(path.join(tmpdir(), 'netvsc-xdp-'));
  readonly #made = new Map<string, string>();

  /** Path of the object of `programs/<name>.c`. Throws with what clang says. */
  file(name: string, cpu: Cpu = 'v3', ...flags: readonly string[]): string {
    const key = [name, cpu, ...flags].join(' ');
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    const file = path.join(this.#folder, `${name}-${cpu}-${this.#made.size}.o`);
    const source = path.join(PROGRAMS, `${name}.c`);
    const args = [
      '-O2',
      '-g',
      '-Wall',
      '-Werror',
      '-target',
      'bpf',
      `-mcpu=${cpu}`,
      ...flags,
      '-c',
      source,
      '-o',
      file,
    ];
    const { status, stderr } = tool('clang', ...args);
    if (status !== 0) throw new Error(`clang ${args.join(' ')}: ${stderr}`);
    this.#made.set(key, file);
    return file;
  }

  bytes(name: string, cpu: Cpu = 'v3', ...flags: readonly string[]): Uint8Array {
    return readFileSync(this.file(name, cpu, ...flags));
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
