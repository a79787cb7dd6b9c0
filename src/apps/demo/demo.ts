// The demo: agents in their namespaces, one data worker with host and guests between them, the plan's phases, and what
// came of it. Everything made here is gone when it returns, however it ends.
import { rmSync } from 'node:fs';
import path from 'node:path';
import { machinePath, removeStaleMachines } from '../../memory/rundir.js';
import { nvspVersionName } from '../../wire/nvsp.js';
import { onInterrupt } from '../interrupt.js';
import { packageRoot } from '../package-info.js';
import { Agent } from './agents.js';
import { DataWorker } from './data-worker.js';
import type { Environment } from './environment.js';
import { type JobResults, type Party, runJob } from './jobs.js';
import type { DemoOptions } from './options.js';
import { cidr, makePlan, type Phase, type Plan, type Station } from './plan.js';
import { type ProgressSink, silent } from './progress.js';
import type { KernelCounters, NicReady, WorkerData, WorkerStats } from './protocol.js';
import {
  type DemoResult,
  difference,
  findErrors,
  findProblems,
  type PhaseRow,
  type ReplayRow,
  statsDifference,
} from './result.js';
import { phaseSummary, replaySummary } from './summary.js';

export interface DemoSurroundings {
  readonly environment: Exclude<Environment, { mode: 'user namespace' }>;
  readonly progress?: ProgressSink;
  /** For tests: another worker, and what it is told beside its data. */
  readonly workerUrl?: URL;
  readonly workerMore?: object;
  /** For tests: another plan. */
  readonly plan?: (options: DemoOptions, mtu: number) => Plan;
}

/** Frames of the capture are sent so often, without --seconds. */
const REPLAY_LOOPS = 500;
const REPLAY_DEADLINE_MS = 120_000;

type Collected = { [K in keyof JobResults]-?: NonNullable<JobResults[K]>[number][] };

interface Run {
  readonly options: DemoOptions;
  readonly progress: ProgressSink;
  readonly worker: DataWorker;
  readonly collected: Collected;
  readonly replay: ReplayRow[];
  readonly phases: PhaseRow[];
  readonly problems: string[];
}

/** Runs it. Rejects with Interrupted at a signal, with an Error when it cannot start or the data worker fails; what is
 *  lost or wrong on the way is in the result. */
export async function runDemo(options: DemoOptions, surroundings: DemoSurroundings): Promise<DemoResult> {
  const agents: Agent[] = [];
  let worker: DataWorker | undefined;
  const machine = `demo-${process.pid}`;
  removeStaleMachines();
  const interrupt = onInterrupt(() => {
    for (const agent of agents) agent.kill();
  });
  const replaying = surroundings.environment.mode === 'replay';
  const began = performance.now();
  const progress = surroundings.progress ?? silent;
  const guard = <T>(work: Promise<T>): Promise<T> => Promise.race([work, interrupt.happened]);
  try {
    const { stations } = makePlan(options, options.mtu);
    if (!replaying) {
      progress.begin(`namespaces for ${stations.length} stations`);
      for (const station of stations) agents.push(Agent.spawn(station.name));
      await guard(Promise.all(agents.map((agent) => agent.started)));
      progress.done(`processes ${agents.map((agent) => agent.pid).join(', ')}`);
    }
    progress.begin(`machine with ${options.nics} NICs, ${options.profile}`);
    worker = new DataWorker(
      workerData(machine, options, stations, agents),
      surroundings.workerUrl,
      surroundings.workerMore,
    );
    const ready = await guard(worker.ready());
    progress.done(`attached in ${ready.attachMs.toFixed(1)} ms, NVSP ${nvspVersionName(ready.nics[0]!.nvspVersion)}`);

    const mtu = Math.min(...ready.nics.map((nic) => nic.mtu));
    const plan = (surroundings.plan ?? makePlan)(options, mtu);
    const run: Run = {
      options,
      progress,
      worker,
      collected: { neighbours: [], pings: [], tcp: [], udp: [] },
      ...{ replay: [], phases: [], problems: [] },
    };
    const parties = replaying ? [] : await guard(configure(plan.stations, agents, ready.nics, mtu));
    const before = await guard(worker.stats());
    const kernelBefore = await guard(readKernels(parties));
    if (replaying) await guard(replayPhases(run));
    else await guard(Promise.race([runPhases(run, plan.phases, parties), worker.failed]));
    const after = await guard(worker.stats());
    const kernelAfter = await guard(readKernels(parties));

    const notes = surroundings.environment.mode === 'replay' ? [replayNote(surroundings.environment.missing)] : [];
    const mode = replaying ? 'replay' : surroundings.environment.rootless ? 'user namespace' : 'root';
    return assemble(run, {
      ...{ mode, mtu, nics: ready.nics, attachMs: ready.attachMs },
      notes: [...notes, ...mtuNote(options.mtu, mtu), ...(replaying ? [] : plan.notes)],
      stats: statsDifference(after, before),
      kernel: kernelDifference(kernelAfter, kernelBefore),
      seconds: (performance.now() - began) / 1000,
    });
  } finally {
    progress.end();
    await worker?.stop();
    await Promise.all(agents.map((agent) => agent.stop()));
    // The worker removes its machine itself, unless it was ended in the middle of something.
    rmSync(machinePath(machine), { recursive: true, force: true });
    interrupt.over();
  }
}

const mtuNote = (wanted: number, granted: number): string[] =>
  wanted === granted ? [] : [`the host does not allow an MTU of ${wanted}, this is ${granted}`];

const replayNote = (missing: string): string =>
  `no interfaces: ${missing}; instead, the frames of a capture file go from NIC to NIC`;

/** Frames for the replay: ARP, ICMP, TCP and UDP over both families, VLAN tags, 60 to 1514 bytes. */
export const captureFile = (): string => path.join(packageRoot(), 'docs/captures/demo.pcap');

function workerData(
  machine: string,
  options: DemoOptions,
  stations: readonly Station[],
  agents: readonly Agent[],
): WorkerData {
  const replay = agents.length === 0;
  const nics = stations.slice(0, options.nics).map(({ ifname }, i) => ({ ifname, netnsPid: agents[i]?.pid ?? 0 }));
  const uplink = stations.at(-1)!;
  return {
    machine,
    profile: options.profile,
    mtu: options.mtu,
    nics,
    uplink: replay ? { kind: 'echo' } : { kind: 'tap', ifname: uplink.ifname, netnsPid: agents[options.nics]!.pid },
    ...(replay ? { replay } : {}),
  };
}

function configure(
  stations: readonly Station[],
  agents: readonly Agent[],
  nics: readonly NicReady[],
  mtu: number,
): Promise<Party[]> {
  return Promise.all(
    stations.map(async (station, i) => {
      const nic = nics[i];
      const { mac } = await agents[i]!.call('configure', {
        ifname: station.ifname,
        mtu,
        ipv4: `${station.ipv4}/${cidr[4]}`,
        ...(mtu >= 1280 ? { ipv6: `${station.ipv6}/${cidr[6]}` } : {}),
        ...(nic ? { mac: nic.mac } : {}),
        ...(nic?.gsoMaxBytes ? { gsoMaxBytes: nic.gsoMaxBytes } : {}),
      });
      return { station, agent: agents[i]!, mac };
    }),
  );
}

async function readKernels(parties: readonly Party[]): Promise<Record<string, KernelCounters>> {
  const entries = parties.map(async ({ station, agent }) => [station.name, await agent.call('kernel', {})] as const);
  return Object.fromEntries(await Promise.all(entries));
}

/** Counters that moved. */
function kernelDifference(
  after: Readonly<Record<string, KernelCounters>>,
  before: Readonly<Record<string, KernelCounters>>,
): Record<string, KernelCounters> {
  const moved = Object.entries(after).map(([name, counters]) => {
    const cells = Object.entries(difference(counters, before[name])).filter(([, count]) => count !== 0);
    return [name, Object.fromEntries(cells)] as const;
  });
  return Object.fromEntries(moved);
}

/** Phases in order. A job that fails is a problem, and the phases behind it are left out. */
async function runPhases(run: Run, phases: readonly Phase[], parties: readonly Party[]): Promise<void> {
  let before = await run.worker.stats();
  for (const phase of phases) {
    const began = performance.now();
    run.progress.begin(phase.title, totalBytes(phase));
    const moved = phase.jobs.map(() => 0);
    const start = (at: number) =>
      runJob(phase.jobs[at]!, phase.title, parties, (bytes) => {
        moved[at] = bytes;
        run.progress.moved(moved.reduce((sum, part) => sum + part, 0));
      });
    const results: JobResults[] = [];
    try {
      if (phase.sequential) for (const at of phase.jobs.keys()) results.push(await start(at));
      else results.push(...(await Promise.all(phase.jobs.map((_, at) => start(at)))));
    } catch (error) {
      run.problems.push(`${phase.title}: ${(error as Error).message}`);
    }
    for (const result of results) collect(run.collected, result);
    const after = await run.worker.stats();
    const { nics } = statsDifference(after, before);
    before = after;
    run.phases.push({ title: phase.title, seconds: (performance.now() - began) / 1000, nics: nics.map(countersOnly) });
    if (run.problems.length > 0) {
      run.progress.done(`failed: ${run.problems.at(-1)}`);
      return;
    }
    run.progress.done(phaseSummary(results));
  }
}

const countersOnly = ({ name, guest, host }: WorkerStats['nics'][number]) => ({ name, guest, host });

function collect(into: Collected, results: JobResults): void {
  into.neighbours.push(...(results.neighbours ?? []));
  into.pings.push(...(results.pings ?? []));
  into.tcp.push(...(results.tcp ?? []));
  into.udp.push(...(results.udp ?? []));
}

/** What the phase's transfers will move, when that is known. */
function totalBytes(phase: Phase): number | undefined {
  let total = 0;
  for (const job of phase.jobs) {
    if (job.kind !== 'tcp' || job.seconds !== undefined) return undefined;
    total += job.bytes;
  }
  return total;
}

/** The capture's frames from NIC 0 to NIC 1 and back, a number of times or until the time is over. */
async function replayPhases(run: Run): Promise<void> {
  const file = captureFile();
  for (const [from, to] of [
    [0, 1],
    [1, 0],
  ] as const) {
    const title = `replay, nic${from} to nic${to}`;
    run.progress.begin(title);
    const before = await run.worker.stats();
    const began = performance.now();
    const until = began + (run.options.seconds ?? 0) * 1000;
    let row: ReplayRow = {
      ...{ phase: title, from: `nic${from}`, to: `nic${to}`, framesSent: 0, framesReceived: 0, framesWrong: 0 },
      ...{ bytes: 0, seconds: 0, bitsPerSecond: 0 },
    };
    do {
      const more = await run.worker.replay(file, from, to, REPLAY_LOOPS, REPLAY_DEADLINE_MS);
      const bytes = row.bytes + more.bytes;
      const seconds = row.seconds + more.seconds;
      row = {
        ...row,
        framesSent: row.framesSent + more.sent,
        framesReceived: row.framesReceived + more.received,
        framesWrong: row.framesWrong + more.wrong,
        ...{ bytes, seconds, bitsPerSecond: seconds > 0 ? (bytes * 8) / seconds : 0 },
      };
      run.progress.moved(bytes);
    } while (performance.now() < until && row.framesReceived === row.framesSent);
    run.replay.push(row);
    const { nics } = statsDifference(await run.worker.stats(), before);
    run.phases.push({ title, seconds: (performance.now() - began) / 1000, nics: nics.map(countersOnly) });
    run.progress.done(replaySummary(row));
  }
}

/** Highest sum of rates of a phase's transfers that begin, or end, at a station. */
function peakRate(run: Run, end: 'from' | 'to', station: string): number {
  const sums = new Map<string, number>();
  for (const row of [...run.collected.tcp, ...run.replay]) {
    if (row[end] === station) sums.set(row.phase, (sums.get(row.phase) ?? 0) + row.bitsPerSecond);
  }
  return Math.max(0, ...sums.values());
}

interface Findings {
  readonly mode: DemoResult['mode'];
  readonly mtu: number;
  readonly nics: readonly NicReady[];
  readonly attachMs: number;
  readonly notes: readonly string[];
  readonly stats: WorkerStats;
  readonly kernel: Readonly<Record<string, KernelCounters>>;
  readonly seconds: number;
}

function assemble(run: Run, { stats, nics: ready, ...findings }: Findings): DemoResult {
  const nics = stats.nics.map((nic, i) => ({
    ...ready[i]!,
    nvspVersion: nvspVersionName(ready[i]!.nvspVersion),
    ndisVersion: `${ready[i]!.ndisVersion >>> 16}.${ready[i]!.ndisVersion & 0xffff}`,
    hostState: nic.hostState,
    bitsPerSecondOut: peakRate(run, 'from', nic.name),
    bitsPerSecondIn: peakRate(run, 'to', nic.name),
    guest: nic.guest,
    host: nic.host,
  }));
  const results = { ...run.collected, replay: run.replay, nics };
  const errors = findErrors(stats, findings.kernel);
  const problems = [...run.problems, ...findProblems(results), ...(stats.failures ?? [])];
  const bytes = [...results.tcp.map((row) => row.bytesReceived), ...results.udp.map((row) => row.bytes)];
  bytes.push(...results.replay.map((row) => row.bytes));
  const ok = errors.length === 0 && problems.length === 0;
  return {
    ok,
    verdict: verdict(
      ok,
      problems.length,
      errors.length,
      bytes.reduce((sum, part) => sum + part, 0),
    ),
    ...findings,
    profile: run.options.profile,
    ...results,
    phases: run.phases,
    switch: stats.switch,
    uplink: stats.uplink,
    errors,
    problems,
  };
}

function verdict(ok: boolean, problems: number, errors: number, bytes: number): string {
  const gigabytes = `${(bytes / 1e9).toFixed(2)} GB`;
  if (ok) return `passed: ${gigabytes} carried, every byte arrived unchanged, no errors`;
  return `FAILED: ${gigabytes} carried, ${problems} problems, ${errors} error counters not zero`;
}
