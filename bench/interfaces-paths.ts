// The three paths: the whole NetVSC path as the demo has it, a plain forwarder in Node and DPDK's testpmd.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import type { Agent } from '../src/apps/demo/agents.js';
import { DataWorker } from '../src/apps/demo/data-worker.js';
import { inNetwork } from '../src/memory/os/netns.js';
import { cores, type End, type Interfaces, type Path, pinned, threadsOf } from './interfaces.js';
import { Skip } from './report.js';

const MTU = 1500;
const START_MS = 20_000;

/** Addresses of both ends of a path: network `index` of the benchmark's own. */
export const addresses = (index: number) => ({
  4: [`10.90.${index}.1`, `10.90.${index}.2`] as const,
  6: [`fd00:90:${index}::1`, `fd00:90:${index}::2`] as const,
});
export const NETWORK: Readonly<Record<Path['name'], number>> = {
  ...{ netvsc: 0, node: 1, testpmd: 2 },
  ...{ 'ours net_tap': 3, 'testpmd net_tap': 4, 'ours net_af_packet': 5, 'testpmd net_af_packet': 6 },
  ...{ 'netvsc up': 7, veth: 8 },
};

export interface NetvscPath extends Path {
  readonly name: 'netvsc';
  /** From the start of the worker thread until all NICs were attached, and the attaching alone, per NIC. */
  readonly startMs: number;
  readonly attachMs: number;
}

/** TAP -> guest -> host -> switch -> host -> guest -> TAP in one worker thread. */
export async function openNetvsc(interfaces: Interfaces): Promise<NetvscPath> {
  const { left, right, uplink } = interfaces;
  const before = new Set(threadsOf(process.pid));
  const began = performance.now();
  const worker = pinned(
    cores().path,
    () =>
      new DataWorker({
        machine: interfaces.machine,
        profile: 'ws2019',
        mtu: MTU,
        nics: [
          { ifname: 'vsc0', netnsPid: left.pid },
          { ifname: 'vsc1', netnsPid: right.pid },
        ],
        uplink: { kind: 'tap', ifname: 'uplink', netnsPid: uplink.pid },
      }),
  );
  interfaces.atEnd(() => worker.stop());
  const { nics, attachMs } = await worker.ready();
  const startMs = performance.now() - began;
  const ends = [left, right].map((agent, i) => {
    const { mac, gsoMaxBytes = 0 } = nics[i]!;
    return configure(agent, `vsc${i}`, 'netvsc', i, { mac, gsoMaxBytes });
  });
  return {
    name: 'netvsc',
    left: await ends[0]!,
    right: await ends[1]!,
    threads: threadsOf(process.pid).filter((thread) => !before.has(thread)),
    startMs,
    attachMs: attachMs / nics.length,
    resume() {},
    pause() {},
  };
}

/** TAP -> TAP: the same loop and the same reads and writes, with nothing between them. */
export async function openNodeForwarder(interfaces: Interfaces): Promise<Path> {
  const { left, right } = interfaces;
  const before = new Set(threadsOf(process.pid));
  const taps = [
    { ifname: 'fwd0', netnsPid: left.pid },
    { ifname: 'fwd1', netnsPid: right.pid },
  ];
  const url = new URL('./interfaces-forwarder.js', import.meta.url);
  const worker = pinned(cores().path, () => new Worker(url, { workerData: taps, trackUnmanagedFds: false }));
  interfaces.atEnd(async () => void (await worker.terminate()));
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  return {
    name: 'node',
    left: await configure(left, 'fwd0', 'node', 0),
    right: await configure(right, 'fwd1', 'node', 1),
    threads: threadsOf(process.pid).filter((thread) => !before.has(thread)),
    resume() {},
    pause() {},
  };
}

/** dpdk-testpmd in an agent's namespace, forwarding between two virtual devices; it polls all the time. Rejects with Skip. */
export async function spawnTestpmd(
  interfaces: Interfaces,
  { pid }: Agent,
  vdevs: readonly string[],
): Promise<ChildProcess> {
  if (spawnSync('dpdk-testpmd', ['--version']).error) throw new Skip('no dpdk-testpmd on the PATH');
  const core = cores();
  const prefix = `${interfaces.machine}-${vdevs[0]!.replace(/\W.*/, '')}`;
  const words = [
    ...['-l', [...new Set([core.path, core.load])].join(','), `--main-lcore=${core.load}`],
    ...['--no-huge', '-m', '512', '--no-pci', '--no-shconf', '--no-telemetry', `--file-prefix=${prefix}`],
    ...vdevs.flatMap((vdev) => ['--vdev', vdev]),
    // 512 MiB do not hold the mbufs that it takes by default (facts/performance.md 4).
    ...['--', '--forward-mode=io', '--total-num-mbufs=16384', '--auto-start'],
  ];
  // Its output is heard line by line, not when its buffer is full.
  const child = inNetwork(pid, () =>
    spawn('stdbuf', ['-oL', 'dpdk-testpmd', ...words], { stdio: ['pipe', 'pipe', 'pipe'] }),
  );
  interfaces.atEnd(async () => {
    await end(child);
    rmSync(`/var/run/dpdk/${prefix}`, { recursive: true, force: true });
  });
  await forwarding(child);
  return child;
}

/** A path of that process, stopped while others are measured. */
export async function testpmdPath(name: Path['name'], child: ChildProcess, left: End, right: End): Promise<Path> {
  const path: Path = {
    ...{ name, left, right, threads: threadsOf(child.pid!) },
    resume: () => void child.kill('SIGCONT'),
    pause: () => void child.kill('SIGSTOP'),
  };
  path.pause();
  return path;
}

/** dpdk-testpmd between two net_tap ports. */
export async function openTestpmd(interfaces: Interfaces, name: Path['name'] = 'testpmd'): Promise<Path> {
  const { left, right } = interfaces;
  const child = await spawnTestpmd(interfaces, left, ['net_tap0,iface=pmd0', 'net_tap1,iface=pmd1']);
  inside(left, 'ip', 'link', 'set', 'pmd1', 'netns', String(right.pid));
  return testpmdPath(name, child, await configure(left, 'pmd0', name, 0), await configure(right, 'pmd1', name, 1));
}

/** Runs a program in an agent's namespace; returns its output. Throws what it says when it fails. */
export function inside(agent: Agent, program: string, ...words: string[]): string {
  return inNetwork(agent.pid, () =>
    execFileSync(program, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }),
  );
}

/** Kills a child and waits until it is gone. */
export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await gone;
}

export async function configure(
  agent: Agent,
  ifname: string,
  name: Path['name'],
  side: number,
  more: { mac?: string; gsoMaxBytes?: number } = {},
): Promise<End> {
  const network = addresses(NETWORK[name]);
  const { mac } = await agent.call('configure', {
    ifname,
    mtu: MTU,
    ipv4: `${network[4][side]}/24`,
    ipv6: `${network[6][side]}/64`,
    ...more,
  });
  return { agent, ifname, mac };
}

/** Resolves once testpmd forwards. */
function forwarding(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let said = '';
    const fail = (how: string) =>
      reject(new Skip(`dpdk-testpmd ${how}: ${said.trim().split('\n').slice(-3).join(' | ')}`));
    const timer = setTimeout(() => fail(`did not start in ${START_MS} ms`), START_MS);
    const hear = (text: string) => {
      said = (said + text).slice(-4000);
      if (!said.includes('packet forwarding - ports=2')) return;
      clearTimeout(timer);
      resolve();
    };
    child.stdout!.setEncoding('utf8').on('data', hear);
    child.stderr!.setEncoding('utf8').on('data', hear);
    child.once('exit', (code, signal) => fail(`ended (${signal ?? code})`));
    child.once('error', (error) => fail(error.message));
  });
}
