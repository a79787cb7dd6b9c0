// Two programs that forward between two ports in one thread, ours and DPDK's testpmd, for as long as they are asked to.
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { Forwarder } from '../../src/apps/testpmd/forwarder.js';
import type { Mode } from '../../src/apps/testpmd/modes.js';
import { parseTestpmdOptions } from '../../src/apps/testpmd/options.js';
import { endPorts, startPorts } from '../../src/apps/testpmd/ports.js';
import { Session } from '../../src/apps/testpmd/session.js';
import type { Eal } from '../../src/ethdev/eal.js';
import { cores, cpuMs, sleep, threadsOf } from '../interfaces.js';
import { end } from '../interfaces-paths.js';
import { Skip } from '../report.js';
import { initSourceEal } from './source.js';

/** Packets that go round in each direction. */
const CIRCLING = 512;
/** Of a thread that has just begun: it compiles. */
const WARM_MS = 150;
/** For dpdk-testpmd to say something. */
const PATIENCE_MS = 20_000;
const MBUFS = 16_384;

export interface Rate {
  /** Millions of packets forwarded, both ways together, in a second of the forwarding thread's CPU time. */
  readonly mpps: number;
  /** The same in a second of the clock; NaN = not measured. */
  readonly wallMpps: number;
}

/** How much longer than that a thread may take that shares its core with others, and how often to look. */
const BUSY_TIMES = 20;
const BUSY_MS = 10_000;
const LOOK_MS = 5;

/** Resolves when the threads have had so many ms of CPU time, or time enough to have had them. */
async function worked(threads: readonly string[], ms: number): Promise<void> {
  const from = cpuMs({ threads });
  const begin = performance.now();
  for (let took = 0; took < ms * BUSY_TIMES + BUSY_MS; took = performance.now() - begin) {
    await sleep(Math.max(LOOK_MS, ms - took));
    const had = cpuMs({ threads }) - from;
    if (Number.isNaN(had) || had >= ms) return;
  }
}

/** Bursts that make so many packets go round. */
const bursts = (burst: number) => Math.ceil(CIRCLING / burst);

/** Our testpmd, led from this thread as its prompt would do it. */
export class OurTestpmd {
  readonly #eal: Eal;
  readonly #session: Session;
  readonly #said: string[];

  private constructor(eal: Eal, session: Session, said: string[]) {
    this.#eal = eal;
    this.#session = session;
    this.#said = said;
  }

  /** `vdevs`: two of them. */
  static async open(vdevs: readonly string[]): Promise<OurTestpmd> {
    const said: string[] = [];
    const hear = (text: string) => void said.push(text);
    const { path, load } = cores();
    const words = ['-l', `${load},${path}`, '-m', '64', ...vdevs.flatMap((vdev) => ['--vdev', vdev])];
    const eal = await initSourceEal(words, hear);
    try {
      const pool = eal.createMempool('mb_pool_0', { count: MBUFS, cache: 250 });
      const session = new Session(eal, pool, parseTestpmdOptions([]), { print: hear, complain: hear });
      session.forwarder = new Forwarder(session);
      if (!(await startPorts(session, 'all'))) throw new Error(`ports did not start: ${said.join(' | ')}`);
      return new OurTestpmd(eal, session, said);
    } catch (error) {
      await eal.close();
      throw error;
    }
  }

  async measure(mode: Mode, burst: number, ms: number): Promise<Rate> {
    const session = this.#session;
    const { forwarder } = session;
    session.mode = mode;
    session.burst = burst;
    const before = new Set(threadsOf(process.pid));
    this.#said.length = 0;
    if (!(await forwarder.start(circles(mode) ? bursts(burst) : 0)))
      throw new Error(`testpmd ${mode} did not start: ${this.#said.join(' | ')}`);
    try {
      const threads = threadsOf(process.pid).filter((thread) => !before.has(thread));
      await worked(threads, WARM_MS);
      const [count, cpu, start] = [this.#packets(mode), cpuMs({ threads }), performance.now()];
      await worked(threads, ms);
      const [packets, busy, took] = [this.#packets(mode) - count, cpuMs({ threads }) - cpu, performance.now() - start];
      if (packets === 0) throw new Error(`testpmd ${mode} forwarded nothing within ${took.toFixed(0)} ms`);
      const wallMpps = packets / took / 1000;
      return { mpps: Number.isFinite(busy) && busy > 0 ? packets / busy / 1000 : wallMpps, wallMpps };
    } finally {
      await forwarder.stop();
    }
  }

  async close(): Promise<void> {
    if (this.#session.forwarder.running) await this.#session.forwarder.stop();
    await endPorts(this.#session);
    this.#session.forwarder.close();
    await this.#eal.close();
  }

  #packets(mode: Mode): number {
    const all = this.#session.open.map(({ port }) => port.stats());
    return all.reduce((sum, { ipackets, opackets }) => sum + (mode === 'rxonly' ? ipackets : opackets), 0);
  }
}

/** Whether packets that are put in once are forwarded again and again. */
const circles = (mode: Mode) => !['flowgen', 'rxonly', 'txonly', 'icmpecho'].includes(mode);

/** dpdk-testpmd at its prompt. Its own count of packets, by CPU time of its forwarding thread. */
export class TheirTestpmd {
  readonly #child: ChildProcess;
  readonly #prefix: string;
  #said = '';
  #ended: string | undefined;
  /** Folder of the forwarding thread in /proc. */
  #thread: string | undefined;

  private constructor(child: ChildProcess, prefix: string) {
    this.#child = child;
    this.#prefix = prefix;
    const hear = (text: string) => {
      this.#said += text;
    };
    child.stdout!.setEncoding('utf8').on('data', hear);
    child.stderr!.setEncoding('utf8').on('data', hear);
    child.stdin!.on('error', () => {}); // it has ended: heard of below
    child.once('error', ({ message }) => {
      this.#ended = message;
    });
    child.once('exit', (code, signal) => {
      this.#ended ??= `ended (${signal ?? code})`;
    });
  }

  /** Throws Skip when there is none, or it cannot run here. */
  static async open(vdevs: readonly string[]): Promise<TheirTestpmd> {
    const { path, load } = cores();
    const prefix = `bench-pmd-${process.pid}-${vdevs[0]!}`;
    const words = [
      ...['-l', `${load},${path}`, `--main-lcore=${load}`, '--no-huge', '-m', '512', '--no-pci', '--no-shconf'],
      ...['--no-telemetry', `--file-prefix=${prefix}`, ...vdevs.flatMap((vdev) => ['--vdev', vdev])],
      ...['--', '-i', `--total-num-mbufs=${MBUFS}`],
    ];
    // Its output is heard line by line, not when its buffer is full.
    const child = spawn('stdbuf', ['-oL', 'dpdk-testpmd', ...words], { stdio: ['pipe', 'pipe', 'pipe'] });
    const peer = new TheirTestpmd(child, prefix);
    try {
      await peer.#answer('show port summary all', /Number of available ports: 2\b/);
    } catch (error) {
      await peer.close();
      throw new Skip(`dpdk-testpmd: ${(error as Error).message}`);
    }
    // Threads have the names that DPDK gave them, which differ by version.
    peer.#thread = threadsOf(child.pid!).find((folder) => /worker-/.test(readFileSync(`${folder}/comm`, 'latin1')));
    return peer;
  }

  async measure(mode: Mode, burst: number, ms: number): Promise<Rate> {
    await this.#answer(`set fwd ${mode}`, /Set \w+ packet forwarding mode/);
    await this.#answer(`set burst ${burst}`, /Number of packets per burst set/);
    const threads = this.#thread === undefined ? [] : [this.#thread];
    const before = cpuMs({ threads });
    const begin = performance.now();
    await this.#answer(circles(mode) ? `start tx_first ${bursts(burst)}` : 'start', /packet forwarding - ports=2/);
    await worked(threads, ms);
    const said = await this.#answer('stop', /Accumulated forward statistics[\s\S]*?TX-packets: \d+[\s\S]*?Done\./);
    const took = performance.now() - begin;
    const busy = cpuMs({ threads }) - before;
    const total = said.slice(said.indexOf('Accumulated'));
    const packets = Number(new RegExp(`${mode === 'rxonly' ? 'RX' : 'TX'}-packets: (\\d+)`).exec(total)![1]);
    // The clock also ran while it was told to begin and to end.
    if (!(busy > 0)) return { mpps: packets / took / 1000, wallMpps: Number.NaN };
    return { mpps: packets / busy / 1000, wallMpps: Number.NaN };
  }

  async close(): Promise<void> {
    await end(this.#child);
    for (const pipe of [this.#child.stdin, this.#child.stdout, this.#child.stderr]) pipe?.destroy();
    rmSync(`/var/run/dpdk/${this.#prefix}`, { recursive: true, force: true });
  }

  /** Types a line; what it says from then on, once `what` is in it. */
  async #answer(line: string, what: RegExp): Promise<string> {
    this.#said = '';
    this.#child.stdin!.write(`${line}\n`);
    const until = performance.now() + PATIENCE_MS;
    while (!what.test(this.#said)) {
      const last = this.#said.trim().split('\n').slice(-3).join(' | ');
      if (this.#ended !== undefined) throw new Error(`${this.#ended}: ${last}`);
      if (performance.now() > until) throw new Error(`no answer to '${line}' within ${PATIENCE_MS} ms: ${last}`);
      await sleep(1);
    }
    return this.#said;
  }
}
