// Suite `soak`: two interfaces of `netvsc up` at one host for many minutes, with mixed traffic, while features are flipped at
// random every second, and now and then channels, sections, tables. Nothing that was accepted may be lost without being
// counted, and memory stays flat.
import { type ChildProcess, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { HostState } from '../src/host/state.js';
import { inNetwork } from '../src/memory/os/netns.js';
import { findControl, type RemoteNetdev } from '../src/netdev/control-client.js';
import { networkOf } from '../src/netdev/control-path.js';
import { seededRandom } from '../src/vmbus/memory/simulator.js';
import { type Interfaces, sleep, withInterfaces } from './interfaces.js';
import { openUp, started, type UpPath } from './interfaces-linux.js';
import { addresses, NETWORK } from './interfaces-paths.js';
import { Skip, type SuiteResult } from './report.js';
import type { StationReport } from './soak-station.js';
import { median } from './traffic.js';

interface Draw {
  /** 0 to limit - 1. */
  below(limit: number): number;
  of<T>(list: readonly T[]): T;
}

function draws(seed: number): Draw {
  const random = seededRandom(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  return { below, of: (list) => list[below(list.length)]! };
}

const FLIP_MS = 1000;
/** Every so many flips something else is changed than a feature. */
const OTHER_EVERY = 15;
const QUIET_MS = 2500;
const FEATURES = [
  ...['tx-scatter-gather', 'tx-checksum-ipv4', 'tx-checksum-ipv6', 'tx-tcp-segmentation', 'tx-tcp6-segmentation'],
  ...['tx-generic-segmentation', 'rx-gro', 'rx-lro', 'rx-hashing', 'rx-checksum', 'rx-udp-gro-forwarding'],
] as const;
/** Resident memory may grow by that, of the second quarter's median. */
const GROWTH = 0.1;
const GROWTH_BYTES = 24 << 20;
/** In less time not even the code is compiled. */
const GROWTH_SAMPLES = 100;

export interface SoakOptions {
  readonly minutes: number;
  readonly seed: number;
}

type Counters = ReadonlyMap<string, number>;

/** A process that takes lines and answers each by one. */
class Station {
  readonly #child: ChildProcess;
  readonly #waiting: ((line: string) => void)[] = [];

  static async start(interfaces: Interfaces, side: 0 | 1, seed: number): Promise<Station> {
    const file = fileURLToPath(new URL('./soak-station.js', import.meta.url));
    const { 4: v4, 6: v6 } = addresses(NETWORK['netvsc up']);
    const words = [v4[side], v6[side], v4[1 - side]!, v6[1 - side]!, String(seed + side)];
    const agent = side === 0 ? interfaces.left : interfaces.right;
    const { child } = await started(interfaces, agent, [process.execPath, file, ...words], 'pipe');
    return new Station(child);
  }

  private constructor(child: ChildProcess) {
    this.#child = child;
    createInterface({ input: child.stdout! }).on('line', (line) => this.#waiting.shift()?.(line));
    child.once('exit', () => {
      for (const answer of this.#waiting.splice(0)) answer('');
    });
  }

  tell(word: string): void {
    this.#child.stdin!.write(`${word}\n`);
  }

  ask(word: string): Promise<string> {
    const answer = new Promise<string>((resolve) => this.#waiting.push(resolve));
    this.tell(word);
    return answer;
  }
}

/** What ping says at its end. */
interface Pinged {
  readonly sent: number;
  readonly answered: number;
}

async function pinging(interfaces: Interfaces, to: string): Promise<() => Promise<Pinged>> {
  const { child } = await started(interfaces, interfaces.left, ['ping', '-n', '-i', '0.1', '-s', '1200', to]);
  let said = '';
  child.stdout!.on('data', (text: string) => {
    said = (said + text).slice(-2000);
  });
  const closed = new Promise((resolve) => child.once('close', resolve));
  return async () => {
    child.kill('SIGINT');
    await closed;
    const [, sent = Number.NaN, answered = Number.NaN] =
      /(\d+) packets transmitted, (\d+) received/.exec(said)?.map(Number) ?? [];
    return { sent, answered };
  };
}

/** Changes one interface. Returns what was changed. */
async function flip(remote: RemoteNetdev, { below, of }: Draw, count: number): Promise<string> {
  if (count % OTHER_EVERY !== 0) {
    const wanted: Record<string, boolean> = {};
    for (let i = 1 + below(4); i > 0; i--) wanted[of(FEATURES)] = below(2) === 0;
    await remote.setFeatures(wanted);
    return 'features';
  }
  const what = of(['channels', 'rings', 'table', 'flows'] as const);
  const { combined } = await remote.channels();
  if (what === 'channels') {
    // A table may use any queue that there was.
    await remote.setRss({ table: [0] });
    await remote.setChannels(1 + below(4));
  } else if (what === 'rings') await remote.setRings({ rx: 1000 + below(8000), tx: 100 + below(2000) });
  else if (what === 'table') {
    const used = 1 + below(combined);
    await remote.setRss({ table: Array.from({ length: 16 }, (_, i) => i % used) });
  } else await remote.setFlowHash(of(['tcp4', 'udp4', 'tcp6', 'udp6'] as const), of(['L3', 'L4'] as const));
  return what;
}

const rssBytes = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))![1]) * 1024;

/** Counters of a namespace's stack: "Udp InErrors" and so on, of /proc/net/snmp and snmp6. */
function stackCounters(pid: number): Counters {
  const found = new Map<string, number>();
  const lines = readFileSync(`/proc/${pid}/net/snmp`, 'latin1').split('\n');
  for (let i = 0; i + 1 < lines.length; i += 2) {
    const [head = '', ...names] = lines[i]!.split(' ');
    const values = lines[i + 1]!.split(' ').slice(1);
    for (const [at, name] of names.entries()) found.set(head.replace(':', ' ') + name, Number(values[at]));
  }
  for (const line of readFileSync(`/proc/${pid}/net/snmp6`, 'latin1').split('\n')) {
    const [name = '', value = '0'] = line.split(/\s+/);
    found.set(name, Number(value));
  }
  return found;
}

/** Everything by which a packet may be lost at an interface. */
const LOSSES = [
  ...['tx_no_space', 'tx_too_big', 'tx_failed', 'tx_abandoned', 'tx_kernel_dropped', 'tx_kernel_errors'],
  ...['rx_no_memory', 'rx_missed', 'rx_down_dropped', 'rx_kernel_refused', 'rx_filtered', 'rx_too_long'],
] as const;
/** What never happens with a host that is whole. */
const FAULTS = /^(rx_bad_|device_(failures|bad|request_timeouts|unexpected|mismatched|answers_dropped|send_timeouts))/;

interface Ended {
  readonly counters: readonly [Counters, Counters];
  readonly stack: readonly [Counters, Counters];
  readonly host: HostState;
  readonly stations: readonly [StationReport, StationReport];
  readonly pings: readonly Pinged[];
}

/** What is not as it should be. */
function soakFaults({ counters, stack, host, stations, pings }: Ended): string[] {
  const faults: string[] = [];
  const expect = (holds: boolean, text: string) => {
    if (!holds) faults.push(text);
  };
  for (const [i, all] of counters.entries()) {
    const c = (name: string) => all.get(name) ?? 0;
    const name = `lin${i}`;
    const up = c('kernel_rx_packets') + c('rx_gro_merged') + c('rx_down_dropped') + c('rx_kernel_refused');
    expect(c('rx_packets') === up, `${name}: ${c('rx_packets')} packets received, ${up} of them accounted for`);
    const down = ['tx_packets', 'tx_too_big', 'tx_failed', 'tx_abandoned', 'tx_no_space'].reduce(
      (sum, of) => sum + c(of),
      0,
    );
    const taken = c('kernel_tx_packets');
    expect(taken === down, `${name}: ${taken} packets taken from the kernel, ${down} of them accounted for`);
    const { txPackets = 0, rxPackets = 0 } = host.nics[i]!.counters;
    const given = c('tx_packets') + c('tx_failed') + c('tx_abandoned');
    expect(txPackets === given, `${name}: ${given} packets given to the host, which got ${txPackets}`);
    const got = c('rx_packets') + c('rx_no_memory') + c('rx_missed') + c('rx_filtered') + c('rx_too_long');
    expect(rxPackets === got, `${name}: ${rxPackets} packets from the host, ${got} of them seen`);
    for (const [counter, value] of all) if (FAULTS.test(counter)) expect(value === 0, `${name}: ${counter} ${value}`);
  }
  const lost = losses(counters, host);
  for (const [from, to] of [
    [0, 1],
    [1, 0],
  ] as const) {
    const { udpReceived, udpDamaged, udpTwice, tcp } = stations[to];
    const missing = stations[from].udpSent - udpReceived;
    const socket = stack[to].get('Udp InErrors')! + stack[to].get('Udp6InErrors')!;
    const counted = lost + socket;
    expect(missing >= 0 && missing <= counted, `UDP from ${from}: ${missing} lost, ${counted} counted`);
    expect(udpDamaged === 0 && udpTwice === 0, `UDP to ${to}: ${udpDamaged} damaged, ${udpTwice} twice`);
    for (const wrong of tcp.wrong) faults.push(`TCP of ${to}: ${wrong}`);
    for (const sum of ['Udp InCsumErrors', 'Udp6InCsumErrors', 'Tcp InCsumErrors'])
      expect(stack[to].get(sum) === 0, `${sum} of ${to}: ${stack[to].get(sum)}`);
  }
  // The last one may be on its way.
  for (const { sent, answered } of pings)
    expect(
      sent - answered <= lost + 1,
      `ping: ${sent - answered} of ${sent} not answered, ${lost} packets counted as lost`,
    );
  return faults;
}

/** Packets that interfaces and host say that they dropped. */
function losses(counters: readonly Counters[], host: HostState): number {
  const mine = counters.reduce((sum, all) => sum + LOSSES.reduce((part, name) => part + (all.get(name) ?? 0), 0), 0);
  return mine + hostLosses(host).reduce((sum, [, value]) => sum + value, 0);
}

/** By name. */
function hostLosses({ nics, ports }: HostState): [name: string, value: number][] {
  const found: [string, number][] = [];
  for (const { name, counters, lostToDeadChannels } of nics) {
    found.push([`${name} lostToDeadChannels`, lostToDeadChannels]);
    for (const counter of ['rxNoSuballocation', 'rxRingFull', 'rxTooBig'])
      found.push([`${name} ${counter}`, counters[counter] ?? 0]);
  }
  for (const { name, counters } of ports)
    for (const [counter, value] of Object.entries(counters))
      if (/Drop/.test(counter)) found.push([`${name} ${counter}`, value]);
  return found.filter(([, value]) => value > 0);
}

async function hostState(child: ChildProcess): Promise<HostState> {
  let said = '';
  child.stdout!.on('data', (text: string) => {
    said += text;
  });
  const closed = new Promise((resolve) => child.once('close', resolve));
  child.kill('SIGTERM');
  await closed;
  return JSON.parse(said) as HostState;
}

export function soak({ minutes, seed }: SoakOptions): Promise<SuiteResult> {
  for (const needed of ['setpriv', 'ping'])
    if (spawnSync(needed, ['-V']).error) return Promise.reject(new Skip(`no ${needed} on the PATH`));
  return withInterfaces(async (interfaces) => {
    const path = await openUp(interfaces);
    const { left, right } = interfaces;
    const clients = await Promise.all(
      [left, right].map(async (agent, i) => {
        const client = await findControl(`lin${i}`, { network: networkOf(`/proc/${agent.pid}/ns/net`) });
        interfaces.atEnd(() => client.close());
        return client.remote();
      }),
    );
    const stations = await Promise.all([Station.start(interfaces, 0, seed), Station.start(interfaces, 1, seed)]);
    const { 4: v4, 6: v6 } = addresses(NETWORK['netvsc up']);
    const pings = await Promise.all([pinging(interfaces, v4[1]), pinging(interfaces, v6[1])]);
    for (const station of stations) station.tell('start');

    const began = performance.now();
    const { memory, changes } = await flipping(clients, path, began + minutes * 60_000, draws(seed));
    const pinged = await Promise.all(pings.map((over) => over()));
    await Promise.all(stations.map((station) => station.ask('stop')));
    const seconds = (performance.now() - began) / 1000;
    await sleep(QUIET_MS);
    const reports = (await Promise.all(stations.map((station) => station.ask('report')))).map(
      (line) => JSON.parse(line) as StationReport,
    );
    // The kernels' own packets (neighbours, routers) come at any time: none while the books are read.
    for (const [i, { pid }] of [left, right].entries())
      inNetwork(pid, () => spawnSync('ip', ['link', 'set', `lin${i}`, 'down']));
    await sleep(QUIET_MS);
    const counters = await Promise.all(clients.map(async (remote) => new Map(await remote.statistics())));
    const stack = [stackCounters(left.pid), stackCounters(right.pid)] as const;
    const host = await hostState(path.host);
    const both = <T>(list: readonly T[]) => list as unknown as readonly [T, T];
    const faults = soakFaults({ counters: both(counters), stack, host, stations: both(reports), pings: pinged });
    const grown = memoryText(memory, faults);
    return {
      rows: rows(reports, seconds),
      notes: [...notes(reports, pinged, changes, counters, host, seed), ...grown],
      faults,
    };
  });
}

/** Changes settings every second until that time. */
async function flipping(clients: readonly RemoteNetdev[], path: UpPath, until: number, draw: Draw) {
  const memory = path.pids.map((): number[] => []);
  const changes = new Map<string, number>();
  for (let count = 1; performance.now() < until; count++) {
    await sleep(FLIP_MS);
    const what = await flip(draw.of(clients), draw, count);
    changes.set(what, (changes.get(what) ?? 0) + 1);
    for (const [i, pid] of path.pids.entries()) memory[i]!.push(rssBytes(pid));
  }
  // As it was at first, so that what waits for its like is not kept for ever.
  for (const remote of clients)
    await remote.setFeatures(Object.fromEntries(FEATURES.map((name) => [name, name !== 'rx-udp-gro-forwarding'])));
  return { memory, changes };
}

/** Medians of the second and the last quarter: code is compiled and buffers are filled in the first. */
function memoryText(memory: readonly (readonly number[])[], faults: string[]): string[] {
  const mb = (bytes: number) => (bytes / 1e6).toFixed(0);
  return memory.map((samples, i) => {
    const quarter = Math.max(1, samples.length >> 2);
    const before = median(samples.slice(quarter, 2 * quarter));
    const after = median(samples.slice(-quarter));
    const name = i === 0 ? 'host' : `lin${i - 1}`;
    const text = `memory of ${name}: ${mb(before)} MB in the second quarter, ${mb(after)} MB in the last`;
    const judged = samples.length >= GROWTH_SAMPLES;
    if (judged && after - before > GROWTH_BYTES + before * GROWTH) faults.push(`it grows: ${text}`);
    return text;
  });
}

function rows(reports: readonly StationReport[], seconds: number) {
  return reports.flatMap(({ tcp, udpSent }, i) => [
    { work: `TCP from lin${i}`, value: (tcp.bytes * 8) / 1e9 / seconds, unit: 'Gbit/s' as const },
    { work: `UDP from lin${i}`, value: udpSent / seconds, unit: '1/s' as const },
  ]);
}

function notes(
  reports: readonly StationReport[],
  pings: readonly Pinged[],
  changes: ReadonlyMap<string, number>,
  counters: readonly Counters[],
  host: HostState,
  seed: number,
): string[] {
  const list = (pairs: Iterable<readonly [string, number]>) =>
    [...pairs].map(([name, value]) => `${name} ${value}`).join(', ') || 'none';
  const total = (what: (report: StationReport) => number) => reports.reduce((sum, report) => sum + what(report), 0);
  const udp = ['udpSent', 'udpReceived', 'udpDamaged', 'udpTwice', 'udpReordered'] as const;
  const dropped = counters.map((all) => LOSSES.map((name) => [name, all.get(name) ?? 0] as const));
  return [
    `seed ${seed}; changes: ${list(changes)}`,
    `TCP: ${total(({ tcp }) => tcp.connections)} connections, ${(total(({ tcp }) => tcp.bytes) / 1e9).toFixed(2)} GB, hashes compared`,
    `UDP: ${list(udp.map((name) => [name.slice(3).toLowerCase(), total((report) => report[name])] as const))}`,
    `ping: ${pings.map(({ sent, answered }) => `${answered} of ${sent}`).join(' and ')} answered`,
    ...dropped.map((all, i) => `lost at lin${i}: ${list(all.filter(([, value]) => value > 0))}`),
    `lost at the host: ${list(hostLosses(host))}`,
  ];
}
