// Starts and ends the processes of lifecycle tests. Names are unique, so that two runs at the same time do not meet.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { GuestAppOptions } from '../../src/apps/guest/guest.js';

export interface Line {
  readonly type: string;
  readonly [key: string]: unknown;
}

let machines = 0;
export const machineName = (): string => `life-${process.pid}-${++machines}`;

/** Only to end a test that would hang. */
const PATIENCE_MS = 20_000;

export interface PeerStart {
  readonly script?: URL;
  readonly env?: NodeJS.ProcessEnv;
  readonly before?: readonly string[];
}

export class Peer {
  readonly pid: number;
  /** Everything it said. */
  readonly lines: Line[] = [];
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  #news: () => void = () => {};

  /** `how`: another script and environment than usual, and what to start the process with. */
  constructor(t: TestContext, role: string, options: object, how: PeerStart = {}) {
    const script = fileURLToPath(how.script ?? new URL('./peer.js', import.meta.url));
    const words = [...(how.before ?? []), process.execPath, '--enable-source-maps', script, role];
    const child = spawn(words[0]!, [...words.slice(1), JSON.stringify(options)], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: how.env ?? process.env,
    });
    this.#child = child;
    this.pid = child.pid!;
    this.#ended = once(child, 'exit').then(() => this.#news());
    createInterface({ input: child.stdout! }).on('line', (line) => {
      this.lines.push(JSON.parse(line) as Line);
      this.#news();
    });
    t.after(() => this.kill());
  }

  get alive(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** The first line from `since` on that is of this type and passes `test`. */
  async line(type: string, test: (line: Line) => boolean = () => true, since = 0): Promise<Line> {
    const began = performance.now();
    for (;;) {
      const found = this.lines.slice(since).find((line) => line.type === type && test(line));
      if (found) return found;
      const last = () => JSON.stringify(this.lines.slice(-3));
      assert.ok(this.alive, `it ended before it said ${type}; last words: ${last()}`);
      assert.ok(performance.now() - began < PATIENCE_MS, `it never said ${type}; last words: ${last()}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1000);
        this.#news = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Counters that it reports from now on, once `test` holds for them. */
  stats(test: (stats: Readonly<Record<string, number>>) => boolean): Promise<Line> {
    return this.line('stats', (line) => test(line as unknown as Record<string, number>), this.lines.length);
  }

  /** SIGTERM; resolves to its last line. */
  async end(): Promise<Line | undefined> {
    if (this.alive) this.#child.kill('SIGTERM');
    await this.#ended;
    return this.lines.at(-1);
  }

  async kill(): Promise<void> {
    if (this.alive) this.#child.kill('SIGKILL');
    await this.#ended;
  }
}

/** A host with an echo station at 10.0.0.1. */
export function startHost(t: TestContext, machine: string): Peer {
  return new Peer(t, 'host', { machine, nics: 2, profile: 'ws2019', uplinks: ['echo:10.0.0.1'] });
}

/** A guest that sends UDP to the echo station and counts what comes back. */
export function startGuest(t: TestContext, machine: string, options: Partial<GuestAppOptions> = {}): Peer {
  const traffic = { mode: 'generate', address: '10.0.0.2', target: '10.0.0.1', frameBytes: 600, rate: 5000 };
  return new Peer(t, 'guest', { machine, nic: 0, traffic, ...options });
}
