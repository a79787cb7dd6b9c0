// Suite `linux`: two interfaces of `netvsc up`, each a process in a namespace of its own, at one `netvsc host`; beside them in
// the same run dpdk-testpmd between two net_tap ports, and as the upper limit a veth pair, whose kernel copies nothing.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Agent } from '../src/apps/demo/agents.js';
import { inNetwork } from '../src/memory/os/netns.js';
import { cpuMs, type Interfaces, type Path, sleep, threadsOf, withInterfaces } from './interfaces.js';
import { Generator } from './interfaces-generator.js';
import { addresses, configure, end, inside, NETWORK, openTestpmd } from './interfaces-paths.js';
import { measure, type Rate } from './interfaces-tap.js';
import { setOffloads, type Transferred, transferred } from './interfaces-tcp.js';
import { type Row, Skip, type SuiteResult } from './report.js';
import type { Exchanged } from './request-response.js';
import { median } from './traffic.js';

const START_MS = 20_000;
const RATE_MS = 1000;
const EXCHANGE_MS = 1000;
const EXCHANGE_BYTES = 64;
const EXCHANGE_PORT = 5202;
const BYTES = 64;
const IDLE_MS = 5000;
const GOALS = { on: 10, off: 2, overTestpmd: 8, kpps: 450, kppsOverTestpmd: 3.5 } as const;

/** Starts a program that ends with this process, however that ends. Resolves to its first line of output. */
export async function started(
  interfaces: Interfaces,
  agent: Agent | undefined,
  words: readonly string[],
  input: 'ignore' | 'pipe' = 'ignore',
): Promise<{ child: ChildProcess; line: string }> {
  // Not the benchmark's own signal handling: what is killed cannot tidy up.
  const start = () => spawn('setpriv', ['--pdeathsig', 'KILL', ...words], { stdio: [input, 'pipe', 'pipe'] });
  const child = agent === undefined ? start() : inNetwork(agent.pid, start);
  interfaces.atEnd(() => end(child));
  let said = '';
  let errors = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    errors = (errors + text).slice(-1000);
  });
  const line = await new Promise<string>((resolve, reject) => {
    const fail = (why: string) => reject(new Error(`${words.slice(1).join(' ')}: ${why}: ${errors.trim()}`));
    const timer = setTimeout(() => fail(`said nothing in ${START_MS} ms`), START_MS);
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      if (said.includes('\n')) return;
      said += text;
      if (!said.includes('\n')) return;
      clearTimeout(timer);
      resolve(said.slice(0, said.indexOf('\n')));
    });
    child.once('error', (error) => fail(error.message));
    child.once('exit', (code, signal) => fail(`ended (${signal ?? code})`));
  });
  return { child, line };
}

const program = (...words: readonly string[]): string[] => [
  process.execPath,
  fileURLToPath(new URL('../src/cli/main.js', import.meta.url)),
  ...words,
];

export interface UpPath extends Path {
  readonly host: ChildProcess;
  /** Of the host, then of the interfaces. */
  readonly pids: readonly number[];
}

/** Kernel > netvsc up > netvsc host > netvsc up > kernel: three processes. */
export async function openUp(interfaces: Interfaces): Promise<UpPath> {
  const { left, right, machine } = interfaces;
  const host = await started(interfaces, undefined, program('host', '--machine', machine, '--nics', '2', '--json'));
  const pids = [host.child.pid!];
  for (const [i, agent] of [left, right].entries()) {
    const words = program('up', `lin${i}`, '--machine', machine, '--device', String(i), '--json');
    const { child } = await started(interfaces, agent, words);
    pids.push(child.pid!);
  }
  return {
    name: 'netvsc up',
    host: host.child,
    pids,
    left: await configure(left, 'lin0', 'netvsc up', 0),
    right: await configure(right, 'lin1', 'netvsc up', 1),
    get threads() {
      return pids.flatMap(threadsOf);
    },
    resume() {},
    pause() {},
  };
}

export async function openVeth({ left, right }: Interfaces): Promise<Path> {
  inside(left, 'ip', 'link', 'add', 'veth0', 'type', 'veth', 'peer', 'name', 'veth1');
  inside(left, 'ip', 'link', 'set', 'veth1', 'netns', String(right.pid));
  return {
    name: 'veth',
    left: await configure(left, 'veth0', 'veth', 0),
    right: await configure(right, 'veth1', 'veth', 1),
    threads: [],
    resume() {},
    pause() {},
  };
}

/** Round trips of small messages over one TCP connection. */
async function exchange(interfaces: Interfaces, path: Path): Promise<Exchanged> {
  const file = fileURLToPath(new URL('./request-response.js', import.meta.url));
  const to = [addresses(NETWORK[path.name])[4][1], String(EXCHANGE_PORT)];
  path.resume();
  const server = await started(interfaces, interfaces.right, [process.execPath, file, 'server', ...to]);
  try {
    const words = [process.execPath, file, 'client', ...to, String(EXCHANGE_BYTES), String(EXCHANGE_MS)];
    const { line } = await started(interfaces, path.left.agent, words);
    return JSON.parse(line) as Exchanged;
  } finally {
    path.pause();
    await end(server.child);
  }
}

/** What one round found of a path. */
interface Round {
  readonly on: Transferred;
  readonly off: Transferred;
  readonly exchanged: Exchanged;
  readonly rate: Rate;
}

export function linux(rounds: number): Promise<SuiteResult> {
  for (const needed of ['iperf3', 'ethtool', 'setpriv']) {
    if (spawnSync(needed, ['--version']).error) return Promise.reject(new Skip(`no ${needed} on the PATH`));
  }
  return withInterfaces(async (interfaces) => {
    const up = await openUp(interfaces);
    const before = cpuMs(up);
    const began = performance.now();
    await sleep(IDLE_MS);
    const idle = ((cpuMs(up) - before) / (performance.now() - began)) * 100;
    const paths: Path[] = [up];
    const skipped: string[] = [];
    try {
      paths.push(await openTestpmd(interfaces));
    } catch (error) {
      if (!(error instanceof Skip)) throw error;
      skipped.push(`testpmd: ${error.message}`);
    }
    paths.push(await openVeth(interfaces));
    const generator = new Generator(interfaces);
    const found = new Map<Path['name'], Round[]>(paths.map(({ name }) => [name, []]));
    for (const path of paths) await measure(generator, path, RATE_MS / 2); // compiled and warm
    for (let round = 0; round < rounds; round++) {
      for (const path of paths) {
        setOffloads(path, 'on');
        const on = await transferred(interfaces, path, 4);
        const exchanged = await exchange(interfaces, path);
        const rate = await measure(generator, path, RATE_MS, BYTES);
        setOffloads(path, 'off');
        const off = await transferred(interfaces, path, 4);
        found.get(path.name)!.push({ on, off, exchanged, rate });
      }
    }
    return { rows: [...rowsOf(found), { work: 'CPU of a core, idle: 3 processes', value: idle, unit: '%' }], skipped };
  });
}

function rowsOf(found: ReadonlyMap<Path['name'], readonly Round[]>): Row[] {
  const rows: Row[] = [];
  const ours = found.get('netvsc up')!;
  const table = (
    work: string,
    unit: Row['unit'],
    figure: (round: Round) => number,
    goal?: number,
    overTestpmd?: number,
    bytes?: number,
  ) => {
    const size = bytes === undefined ? {} : { bytes };
    for (const [name, all] of found) {
      const value = median(all.map(figure));
      rows.push({ work: `${work}: ${name}`, ...size, value, unit, goal: name === 'netvsc up' ? goal : undefined });
    }
    for (const [name, theirs] of found) {
      if (name === 'netvsc up') continue;
      // Of the same round, so that a disturbance that lasts meets both.
      const value = median(theirs.map((round, i) => figure(ours[i]!) / figure(round)));
      rows.push({
        work: `${work}: / ${name}`,
        ...size,
        value,
        unit: 'x',
        goal: name === 'testpmd' ? overTestpmd : undefined,
      });
    }
  };
  table('TCP, offloads on', 'Gbit/s', ({ on }) => on.gbits, GOALS.on, GOALS.overTestpmd);
  table('CPU, offloads on', 's/GB', ({ on }) => on.cpuPerGb);
  table('TCP, offloads off', 'Gbit/s', ({ off }) => off.gbits, GOALS.off);
  table('CPU, offloads off', 's/GB', ({ off }) => off.cpuPerGb);
  table('TCP round trips', '1/s', ({ exchanged }) => exchanged.perSecond, undefined, undefined, EXCHANGE_BYTES);
  table('round trip p50', 'us', ({ exchanged }) => exchanged.p50, undefined, undefined, EXCHANGE_BYTES);
  table('one way', 'kpps', ({ rate }) => rate.kpps, GOALS.kpps, GOALS.kppsOverTestpmd, BYTES);
  return rows;
}
