// Suite `ports`: net_tap and net_af_packet between two interfaces of the kernel, ours and DPDK's: frames per second, TCP.
import { Worker } from 'node:worker_threads';
import { cores, type Interfaces, type Path, pinned, threadsOf, withInterfaces } from './interfaces.js';
import { Generator } from './interfaces-generator.js';
import { configure, inside, openTestpmd, spawnTestpmd, testpmdPath } from './interfaces-paths.js';
import { measure, medians, type Rate } from './interfaces-tap.js';
import { setOffloads, transfer } from './interfaces-tcp.js';
import type { PortsOrder } from './ports-forwarder.js';
import { type Row, Skip, type SuiteResult } from './report.js';
import { median } from './traffic.js';

const SIZES = [64, 1500] as const;
const ROUND_MS = 1000;
const DRIVERS = ['net_tap', 'net_af_packet'] as const;
type DriverName = (typeof DRIVERS)[number];
/** Over DPDK's driver of that name. */
const GOALS: Readonly<Record<DriverName, number>> = { net_tap: 3, net_af_packet: 1 };

/** Interfaces for packet sockets: one end of each pair in the third namespace, where the ports are. */
async function joined(interfaces: Interfaces, prefix: string): Promise<[string, string]> {
  const { left, right, uplink } = interfaces;
  for (const [i, agent] of [left, right].entries()) {
    inside(uplink, 'ip', 'link', 'add', `${prefix}p${i}`, 'type', 'veth', 'peer', 'name', `${prefix}s${i}`);
    inside(uplink, 'ip', 'link', 'set', `${prefix}s${i}`, 'netns', String(agent.pid));
    inside(uplink, 'ip', 'link', 'set', `${prefix}p${i}`, 'up');
  }
  return [`${prefix}p0`, `${prefix}p1`];
}

async function openOurs(interfaces: Interfaces, driver: DriverName): Promise<Path> {
  const { left, right, uplink } = interfaces;
  const name = `ours ${driver}` as const;
  const prefix = driver === 'net_tap' ? 'ot' : 'oa';
  const order: PortsOrder = {
    vdevs:
      driver === 'net_tap'
        ? [left, right].map(({ pid }, i) => ({ device: `net_tap${i}`, args: `iface=${prefix}s${i}`, netnsPid: pid }))
        : (await joined(interfaces, prefix)).map((iface, i) => ({
            ...{ device: `net_af_packet${i}`, args: `iface=${iface}`, netnsPid: uplink.pid },
          })),
  };
  const before = new Set(threadsOf(process.pid));
  const url = new URL('./ports-forwarder.js', import.meta.url);
  const worker = pinned(cores().path, () => new Worker(url, { workerData: order, trackUnmanagedFds: false }));
  const said = (what: string) =>
    new Promise<void>((resolve, reject) => {
      worker.on('message', (message) => message === what && resolve());
      worker.once('error', reject);
      worker.once('exit', () => resolve());
    });
  interfaces.atEnd(async () => {
    const closed = said('closed');
    worker.postMessage('close');
    await closed;
  });
  await said('ready');
  return {
    name,
    left: await configure(left, `${prefix}s0`, name, 0),
    right: await configure(right, `${prefix}s1`, name, 1),
    threads: threadsOf(process.pid).filter((thread) => !before.has(thread)),
    resume() {},
    pause() {},
  };
}

async function openTheirs(interfaces: Interfaces, driver: DriverName): Promise<Path> {
  const name = `testpmd ${driver}` as const;
  if (driver === 'net_tap') return openTestpmd(interfaces, name);
  const { left, right, uplink } = interfaces;
  const vdevs = (await joined(interfaces, 'da')).map((iface, i) => `net_af_packet${i},iface=${iface}`);
  const child = await spawnTestpmd(interfaces, uplink, vdevs);
  const ends = [await configure(left, 'das0', name, 0), await configure(right, 'das1', name, 1)] as const;
  return testpmdPath(name, child, ...ends);
}

export function ports(rounds: number): Promise<SuiteResult> {
  return withInterfaces(async (interfaces) => {
    const rows: Row[] = [];
    const skipped: string[] = [];
    const generator = new Generator(interfaces);
    for (const driver of DRIVERS) {
      const paths = [await openOurs(interfaces, driver)];
      try {
        paths.push(await openTheirs(interfaces, driver));
      } catch (error) {
        if (!(error instanceof Skip)) throw error;
        skipped.push(`testpmd ${driver}: ${error.message}`);
      }
      for (const path of paths) await measure(generator, path, ROUND_MS / 2); // compiled and warm
      for (const bytes of SIZES) {
        const rates = new Map<Path['name'], Rate[]>(paths.map(({ name }) => [name, []]));
        for (let round = 0; round < rounds; round++)
          for (const path of paths) rates.get(path.name)!.push(await measure(generator, path, ROUND_MS, bytes));
        for (const { name } of paths) {
          const { kpps, kppsOfCpu } = medians(rates.get(name)!);
          const note = `${kppsOfCpu.toFixed(0)} kpps per second of CPU time`;
          rows.push({ work: `forward: ${name}`, bytes, value: kpps, unit: 'kpps', note });
        }
        if (paths.length < 2) continue;
        const [ours, theirs] = paths.map(({ name }) => rates.get(name)!);
        const value = median(ours!.map(({ kpps }, round) => kpps / theirs![round]!.kpps));
        rows.push({ work: `ours / testpmd ${driver}`, bytes, value, unit: 'x', goal: GOALS[driver] });
      }
      for (const path of paths) {
        // DPDK's packet sockets cut large packets off, and leave checksums unfinished.
        setOffloads(path, path.name === 'testpmd net_af_packet' ? 'off' : 'on');
        const rates: number[] = [];
        for (let round = 0; round < rounds; round++) rates.push(await transfer(interfaces, path, 4));
        rows.push({ work: `TCP: ${path.name}`, value: median(rates), unit: 'Gbit/s' });
      }
    }
    return { rows, skipped };
  });
}
