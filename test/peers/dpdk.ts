// DPDK as a peer: this system's own packages, and those of a later Debian that scripts/dpdk.mjs keeps beside it. Programs
// are processes that write to files: what they start may outlive them, and pipes must not wait for that.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { pathToFileURL } from 'node:url';
import { packageRoot } from '../../src/apps/package-info.js';
import { runEnvironment } from '../../src/apps/run/run.js';

/** No huge pages, no root, no shared files; page numbers are virtual. */
export const EAL = ['--no-huge', '--no-pci', '--no-telemetry', '--no-shconf', '--iova-mode=va', '-m', '160'];
const PATIENCE_MS = 120_000;
const SYSTEM_TESTPMD = '/usr/bin/dpdk-testpmd';
/** What pmd/ calls, where there is no pkg-config for it. */
const LIBRARIES = ['eal', 'ethdev', 'hash', 'log', 'mbuf', 'mempool', 'net', 'ring'];

/** One DPDK. */
export interface Dpdk {
  /** For test names: "22.11.11". */
  readonly name: string;
  /** Major and minor as a number: 22.11. */
  readonly version: number;
  readonly testpmd: string;
  /** Goes before a program that is to run with its libraries. */
  readonly launcher: readonly string[];
  /** EAL words that say where its drivers are. */
  readonly drivers: readonly string[];
  readonly compile: readonly string[];
  readonly link: readonly string[];
}

function systemDpdk(): Dpdk | undefined {
  const config = (...words: string[]) => spawnSync('pkg-config', [...words, 'libdpdk'], { encoding: 'utf8' });
  if (config('--exists').status !== 0 || !existsSync(SYSTEM_TESTPMD)) return undefined;
  const words = (what: string) => config(what).stdout.trim().split(/\s+/);
  const [name] = words('--modversion') as [string];
  return {
    ...{ name, version: Number.parseFloat(name), testpmd: SYSTEM_TESTPMD, launcher: [], drivers: [] },
    ...{ compile: words('--cflags'), link: words('--libs') },
  };
}

const script = pathToFileURL(path.join(packageRoot(), 'scripts/dpdk.mjs')).href;
const { dpdkFolder } = (await import(script)) as { dpdkFolder(suite: string): string };

/** The one that scripts/dpdk.mjs fetched, of another suite when NETVSC_DPDK names one. */
function fetchedDpdk(): Dpdk | undefined {
  const folder = dpdkFolder(process.env.NETVSC_DPDK ?? 'trixie');
  const said = path.join(folder, 'peer.json');
  if (!existsSync(said)) return undefined;
  const peer = JSON.parse(readFileSync(said, 'utf8'));
  const at = (name: string) => path.join(folder, name);
  const libraries = at(peer.libraries);
  const plugins = at(peer.plugins);
  return {
    name: peer.version,
    version: Number.parseFloat(peer.version),
    testpmd: at(peer.testpmd),
    launcher: [at(peer.loader), '--inhibit-cache', '--library-path', `${libraries}:${plugins}`],
    drivers: ['-d', plugins],
    compile: [...peer.include.map((name: string) => `-I${at(name)}`), ...peer.flags],
    // Its libraries want a newer C library than the linker knows.
    link: [`-L${libraries}`, '-Wl,--as-needed,--allow-shlib-undefined', ...LIBRARIES.map((name) => `-lrte_${name}`)],
  };
}

const compiler = !spawnSync('cc', ['--version']).error;
const [system, fetched] = compiler ? [systemDpdk(), fetchedDpdk()] : [undefined, undefined];
/** All that there are, the system's first. */
export const DPDKS: readonly Dpdk[] = [system, fetched].filter((dpdk) => dpdk !== undefined);

/** Why a kind of DPDK is missing, for tests that are skipped; empty when both are there. */
export const MISSING_DPDK: readonly string[] = [
  ...(compiler ? [] : ['not installed: a C compiler']),
  ...(compiler && !system ? ['not installed: dpdk-dev, libdpdk-dev, pkg-config'] : []),
  ...(compiler && !fetched ? ['a newer DPDK was not fetched (scripts/dpdk.mjs, which npm test starts)'] : []),
];

let logs = 0;

/** A program on a machine, started with what DPDK's EAL wants; ends with the test. */
export class Program {
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #folder = mkdtempSync(path.join(tmpdir(), 'netvsc-dpdk-'));
  readonly #output: string;
  readonly #ended: Promise<unknown>;

  /** `words` are the program's, `eal` further ones of the EAL, `before` those that start the whole. */
  constructor(
    t: TestContext,
    machine: string,
    dpdk: Dpdk,
    program: string,
    lcores: string,
    {
      words = [],
      eal = [],
      before = [],
    }: { words?: readonly string[]; eal?: readonly string[]; before?: readonly string[] },
  ) {
    this.#output = path.join(this.#folder, `output${++logs}`);
    const file = openSync(this.#output, 'w');
    const command = [
      ...before,
      ...dpdk.launcher,
      program,
      ...EAL,
      ...dpdk.drivers,
      ...eal,
      '-l',
      lcores,
      '--',
      ...words,
    ];
    this.#child = spawn(command[0]!, command.slice(1), {
      stdio: ['pipe', file, file],
      env: runEnvironment(machine),
    });
    closeSync(file);
    this.pid = this.#child.pid!;
    this.#ended = once(this.#child, 'exit');
    this.#child.stdin!.on('error', () => {}); // it ended; whoever waits for it says so
    t.after(async () => {
      await this.kill();
      rmSync(this.#folder, { recursive: true, force: true });
    });
  }

  get output(): string {
    return readFileSync(this.#output, 'utf8');
  }

  get alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Types a line. */
  type(line: string): void {
    this.#child.stdin!.write(`${line}\n`);
  }

  /** Its output from offset `since` on, once this is in it. */
  async said(what: RegExp, since = 0, patienceMs = PATIENCE_MS): Promise<string> {
    const began = performance.now();
    for (let wait = 1; ; wait = Math.min(wait * 2, 20)) {
      const ended = !this.alive;
      const output = this.output.slice(since);
      if (what.test(output)) return output;
      assert.ok(!ended, `it ended before it said ${what}:\n${this.output}`);
      assert.ok(performance.now() - began < patienceMs, `it never said ${what}:\n${this.output}`);
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  /** Ends its input; its exit code, or null when a signal ended it. */
  async end(): Promise<number | null> {
    this.#child.stdin!.end();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), PATIENCE_MS);
    await this.#ended;
    clearTimeout(timer);
    return this.#child.exitCode;
  }

  async kill(): Promise<void> {
    if (this.alive) this.#child.kill('SIGKILL');
    await this.#ended;
    this.#child.stdin!.destroy();
  }
}

/** Why programs cannot be built for the system's DPDK, or false. */
export const noDpdkBuild = (): string | false => (DPDKS[0] === system && system ? false : MISSING_DPDK[0]!);

/** Path of a C program, built against that DPDK (the system's, unless told) when it has changed. `name`: its source, a file or
 *  a folder, from the package's root on. */
export function buildPmd(name = 'test/peers/pmd', dpdk: Dpdk = DPDKS[0]!): string {
  const source = path.join(packageRoot(), name);
  const sources = name.endsWith('.c')
    ? [source]
    : readdirSync(source)
        .sort()
        .map((file) => path.join(source, file));
  const words = ['-O3', '-Wall', '-Wextra', ...dpdk.compile];
  const hash = createHash('sha256').update([dpdk.name, ...words, ...dpdk.link].join('\n'));
  for (const file of sources) hash.update(readFileSync(file));
  const output = path.join(packageRoot(), `dist/native/pmd-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(output)) return output;
  mkdirSync(path.dirname(output), { recursive: true });
  const files = sources.filter((file) => file.endsWith('.c'));
  // Test files run side by side: the last one that has built it leaves the same.
  const draft = `${output}.${process.pid}`;
  const { status, stderr } = spawnSync('cc', [...words, '-o', draft, ...files, ...dpdk.link], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  renameSync(draft, output);
  return output;
}

/** An answer of test/peers/pmd. */
export interface PmdAnswer {
  readonly ok: boolean;
  readonly error?: string;
  readonly [name: string]: unknown;
}

/** A frame as an mbuf has it. */
export interface PmdFrame {
  readonly queue: number;
  readonly segments: number;
  readonly tci: number;
  readonly hash: number;
  /** Names of RX flags: vlan, stripped, hash, ip-good, ip-bad, l4-good, l4-bad. */
  readonly flags: readonly string[];
  readonly bytes: Uint8Array;
}

/** Words of a command; numbers in decimal. */
export type PmdWords = Readonly<Record<string, string | number | bigint | boolean>>;

/** test/peers/pmd: DPDK's driver in our hands. */
export class Pmd {
  readonly program: Program;
  #read = 0;

  /** `eal`: further words for DPDK's EAL. */
  constructor(t: TestContext, machine: string, dpdk: Dpdk, eal: readonly string[] = []) {
    this.program = new Program(t, machine, dpdk, buildPmd('test/peers/pmd', dpdk), '0', { eal });
  }

  /** The driver has attached; how many ports it has. */
  async ready(): Promise<number> {
    return Number((await this.#answer()).ports);
  }

  /** A command that may fail. */
  try(command: string, words: PmdWords = {}): Promise<PmdAnswer> {
    this.start(command, words);
    return this.#answer();
  }

  /** A command that does not fail. */
  async do(command: string, words: PmdWords = {}): Promise<PmdAnswer> {
    const answer = await this.try(command, words);
    assert.ok(answer.ok, `${command}: ${JSON.stringify(answer)}\n${this.program.output.slice(-4000)}`);
    return answer;
  }

  /** The same, for answers of numbers. */
  async numbers(command: string, words: PmdWords = {}): Promise<Record<string, number>> {
    return (await this.do(command, words)) as unknown as Record<string, number>;
  }

  /** Gives a command whose answer nobody waits for. */
  start(command: string, words: PmdWords = {}): void {
    const text = Object.entries(words).map(
      ([name, value]) => `${name}=${value === true ? 1 : value === false ? 0 : value}`,
    );
    this.program.type([command, ...text].join(' '));
  }

  /** Frames that come in, at most `count`, and within `ms`. */
  async receive(count: number, ms = 10_000): Promise<PmdFrame[]> {
    const { frames } = await this.do('receive', { count, ms });
    return (frames as (PmdFrame & { hex: string })[]).map((frame) => ({
      ...frame,
      bytes: new Uint8Array(Buffer.from(frame.hex, 'hex')),
    }));
  }

  async #answer(): Promise<PmdAnswer> {
    const output = await this.program.said(/^\{.*\}$/m, this.#read);
    const found = /^\{.*\}$/m.exec(output)!;
    this.#read += found.index + found[0].length;
    return JSON.parse(found[0]);
  }

  /** Its log: what it and DPDK said beside answers. */
  get log(): string[] {
    return this.program.output.split('\n').filter((line) => line !== '' && !line.startsWith('{'));
  }

  async end(): Promise<void> {
    assert.equal(await this.program.end(), 0, this.program.output);
  }

  kill(): Promise<void> {
    return this.program.kill();
  }
}
