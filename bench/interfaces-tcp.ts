// Suite `tcp`: iperf3 between two interfaces, with the offloads of checksum and segmentation and without.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { inNetwork } from '../src/memory/os/netns.js';
import { cpuMs, type Interfaces, type Path, withInterfaces } from './interfaces.js';
import { addresses, end, inside, NETWORK } from './interfaces-paths.js';
import { openPaths } from './interfaces-tap.js';
import { type Row, Skip, type SuiteResult } from './report.js';
import { median } from './traffic.js';

const SECONDS = 2;
/** Left out at the beginning: slow start. */
const OMIT_SECONDS = 1;
const PORT = 5201;
const LATE_MS = 15_000;
const GOALS = { on: 10, off: 2, overTestpmd: 8 } as const;
const FEATURES = ['tx', 'sg', 'tso', 'gso', 'gro'] as const;
const FAMILIES = [4, 6] as const;

/** The part of iperf3's report that is used. */
interface Report {
  readonly error?: string;
  readonly end?: {
    readonly sum_received?: { readonly bits_per_second: number; readonly bytes: number; readonly seconds: number };
    /** Of a core, by client and server. */
    readonly cpu_utilization_percent?: { readonly host_total: number; readonly remote_total: number };
  };
}

export interface Transferred {
  /** Gbit/s that one connection's receiver got. */
  readonly gbits: number;
  /** CPU seconds of the path's threads, the sender and the receiver for 10^9 bytes. */
  readonly cpuPerGb: number;
}

export type Offloads = 'on' | 'off';
export type Family = (typeof FAMILIES)[number];

/** Runs a program in a path's left namespace; resolves to its output. */
function finished(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = '';
    const timer = setTimeout(() => child.kill('SIGKILL'), (SECONDS + OMIT_SECONDS) * 1000 + LATE_MS);
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    child.once('error', reject);
    child.once('close', (code) => {
      clearTimeout(timer);
      if (code === 0) resolve(said);
      else reject(new Error(`iperf3 ended with ${code}: ${said.slice(-500)}`));
    });
  });
}

/** Gbit/s that one connection's receiver got. */
export const transfer = async (interfaces: Interfaces, path: Path, family: Family): Promise<number> =>
  (await transferred(interfaces, path, family)).gbits;

export async function transferred(interfaces: Interfaces, path: Path, family: Family): Promise<Transferred> {
  const to = addresses(NETWORK[path.name])[family][1];
  const words = ['-c', to, '-p', String(PORT), '-t', String(SECONDS), '-O', String(OMIT_SECONDS), '-J'];
  const server = await openServer(interfaces);
  path.resume();
  const client = inNetwork(path.left.agent.pid, () => spawn('iperf3', words, { stdio: ['ignore', 'pipe', 'ignore'] }));
  interfaces.atEnd(() => end(client));
  const before = cpuMs(path);
  const began = performance.now();
  try {
    const report = JSON.parse(await finished(client)) as Report;
    const share = (cpuMs(path) - before) / (performance.now() - began);
    const received = report.end?.sum_received;
    if (received === undefined) throw new Error(`iperf3 through ${path.name} to ${to}: ${report.error ?? 'no figure'}`);
    const { host_total = Number.NaN, remote_total = Number.NaN } = report.end?.cpu_utilization_percent ?? {};
    const cores = share + (host_total + remote_total) / 100;
    return { gbits: received.bits_per_second / 1e9, cpuPerGb: (cores * received.seconds) / (received.bytes / 1e9) };
  } finally {
    path.pause();
    await end(server);
  }
}

/** Sets the offloads of both interfaces; what one does not have stays off. */
export function setOffloads(path: Path, offloads: Offloads): void {
  for (const { agent, ifname } of [path.left, path.right]) {
    for (const feature of FEATURES) {
      try {
        inside(agent, 'ethtool', '-K', ifname, feature, offloads);
      } catch {
        // fixed: testpmd's TAPs have none
      }
    }
  }
}

/** A server for one transfer: the same one may still be busy with the last. */
async function openServer(interfaces: Interfaces): Promise<ChildProcess> {
  const words = ['-s', '-1', '-p', String(PORT), '--forceflush'];
  const server = inNetwork(interfaces.right.pid, () => spawn('iperf3', words, { stdio: ['ignore', 'pipe', 'ignore'] }));
  interfaces.atEnd(() => end(server));
  await new Promise((resolve) => server.stdout!.once('data', resolve).once('end', resolve));
  server.stdout!.resume();
  return server;
}

export function tcp(rounds: number): Promise<SuiteResult> {
  for (const program of ['iperf3', 'ethtool']) {
    if (spawnSync(program, ['--version']).error) return Promise.reject(new Skip(`no ${program} on the PATH`));
  }
  return withInterfaces(async (interfaces) => {
    const { paths, skipped } = await openPaths(interfaces);
    const rows: Row[] = [];
    for (const offloads of ['on', 'off'] as const) {
      for (const path of paths) setOffloads(path, offloads);
      for (const family of FAMILIES) {
        const rates = new Map<Path['name'], number[]>(paths.map(({ name }) => [name, []]));
        for (let round = 0; round < rounds; round++) {
          for (const path of paths) rates.get(path.name)!.push(await transfer(interfaces, path, family));
        }
        const what = `TCP IPv${family}, offloads ${offloads}:`;
        for (const { name } of paths) {
          const goal = name === 'netvsc' ? GOALS[offloads] : undefined;
          rows.push({ work: `${what} ${name}`, value: median(rates.get(name)!), unit: 'Gbit/s', goal });
        }
        for (const { name } of paths.slice(1)) {
          const ratios = rates.get(name)!.map((rate, round) => rates.get('netvsc')![round]! / rate);
          const goal = name === 'testpmd' && offloads === 'on' ? GOALS.overTestpmd : undefined;
          rows.push({ work: `${what} / ${name}`, value: median(ratios), unit: 'x', goal });
        }
      }
    }
    return { rows, skipped };
  });
}
