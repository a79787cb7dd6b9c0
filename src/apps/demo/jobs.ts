// Runs one job of the plan on the agents that it concerns.
import type { Agent } from './agents.js';
import { addressOf, type Job, type Station } from './plan.js';
import type { AgentCommands, Progress } from './protocol.js';
import type { NeighbourRow, PingRow, TcpRow, UdpRow } from './result.js';

/** Slowest rate at which a transfer is still waited for. */
const SLOWEST_BYTES_PER_MS = 2000;
const GRACE_MS = 30_000;
const PING_TIMEOUT_MS = 2000;

export interface Party {
  readonly station: Station;
  readonly agent: Agent;
  /** Of its interface. */
  readonly mac: string;
}

/** Results of a job, to be added to those of the demo. */
export interface JobResults {
  readonly neighbours?: readonly NeighbourRow[];
  readonly pings?: readonly PingRow[];
  readonly tcp?: readonly TcpRow[];
  readonly udp?: readonly UdpRow[];
}

/** Rejects when an agent fails or takes too long; lost or wrong bytes are results. */
export function runJob(
  job: Job,
  phase: string,
  parties: readonly Party[],
  progress: (bytes: number) => void,
): Promise<JobResults> {
  const from = parties[job.from]!;
  const to = parties[job.to]!;
  const between = { phase, from: from.station.name, to: to.station.name };
  if (job.kind === 'resolve') return resolve(job, between, from, to);
  if (job.kind === 'ping') return ping(job, between, from, to);
  if (job.kind === 'tcp') return tcp(job, between, from, to, progress);
  return udp(job, between, from, to, progress);
}

type Between = { readonly phase: string; readonly from: string; readonly to: string };
type JobOf<K extends Job['kind']> = Extract<Job, { kind: K }>;

async function resolve(job: JobOf<'resolve'>, between: Between, from: Party, to: Party): Promise<JobResults> {
  const target = addressOf(to.station, job.family);
  const { mac, ms } = await from.agent.call('resolve', { ifname: from.station.ifname, target });
  if (mac !== to.mac) {
    throw new Error(`${between.from}: ${target} was found at ${mac}, but ${between.to} has ${to.mac}`);
  }
  return { neighbours: [{ ...between, family: job.family, mac, ms }] };
}

async function ping(job: JobOf<'ping'>, between: Between, from: Party, to: Party): Promise<JobResults> {
  const target = addressOf(to.station, job.family);
  const pings: PingRow[] = [];
  for (const { bytes, count } of job.sizes) {
    const given = { target, count, bytes, timeoutMs: PING_TIMEOUT_MS };
    const result = await from.agent.call('ping', given, { deadlineMs: count * PING_TIMEOUT_MS + GRACE_MS });
    pings.push({ ...between, family: job.family, payloadBytes: bytes, ...result });
  }
  return { pings };
}

/** Starts a command that listens; its port, and its result. */
function listen<C extends 'tcpSend' | 'udpReceive'>(
  agent: Agent,
  command: C,
  given: AgentCommands[C]['in'],
  deadlineMs: number,
  progress: (progress: Progress) => void,
): { port: Promise<number>; result: Promise<AgentCommands[C]['out']> } {
  let result: Promise<AgentCommands[C]['out']> | undefined;
  const port = new Promise<number>((found, reject) => {
    const hear = (message: Progress) => {
      if (message.port !== undefined) found(message.port);
      else progress(message);
    };
    result = agent.call(command, given, { deadlineMs, progress: hear });
    result.catch(reject);
  });
  return { port, result: result! };
}

async function tcp(
  job: JobOf<'tcp'>,
  between: Between,
  from: Party,
  to: Party,
  progress: (bytes: number) => void,
): Promise<JobResults> {
  const { family, bytes, seconds } = job;
  const address = addressOf(from.station, family);
  const deadlineMs = GRACE_MS + (seconds === undefined ? bytes / SLOWEST_BYTES_PER_MS : seconds * 1000);
  const given = { address, seed: job.from * 31 + job.to * 7 + family, bytes, ...(seconds ? { seconds } : {}) };
  const sender = listen(from.agent, 'tcpSend', given, deadlineMs, () => {});
  const receiver = sender.port.then((port) =>
    to.agent.call('tcpReceive', { address, port }, { deadlineMs, progress: (message) => progress(message.bytes ?? 0) }),
  );
  const [sent, received] = await Promise.all([sender.result, receiver]);
  const row: TcpRow = {
    ...between,
    family,
    bytesSent: sent.bytes,
    bytesReceived: received.bytes,
    seconds: received.seconds,
    bitsPerSecond: received.seconds > 0 ? (received.bytes * 8) / received.seconds : 0,
    hashSent: sent.hash,
    hashReceived: received.hash,
    intact: sent.bytes === received.bytes && sent.hash === received.hash,
  };
  return { tcp: [row] };
}

async function udp(
  job: JobOf<'udp'>,
  between: Between,
  from: Party,
  to: Party,
  progress: (bytes: number) => void,
): Promise<JobResults> {
  const { family, sizes, datagrams, seconds } = job;
  const address = addressOf(to.station, family);
  const deadlineMs = GRACE_MS + (seconds === undefined ? datagrams * 20 : seconds * 1000);
  const common = { address, seed: job.from * 31 + job.to * 7 + family, sizes };
  const receiver = listen(to.agent, 'udpReceive', common, deadlineMs, () => {});
  const sender = receiver.port.then((port) =>
    from.agent.call(
      'udpSend',
      { ...common, port, datagrams, ...(seconds ? { seconds } : {}) },
      { deadlineMs, progress: (message) => progress(message.bytes ?? 0) },
    ),
  );
  const [verdict, sent] = await Promise.all([receiver.result, sender]);
  const row: UdpRow = {
    ...between,
    family,
    ...verdict,
    datagramsSent: sent.datagrams,
    bytesSent: sent.bytes,
    seconds: sent.seconds,
    retries: sent.retries,
    sizes,
  };
  return { udp: [row] };
}
