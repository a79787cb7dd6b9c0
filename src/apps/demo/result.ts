// What the demo found, as --json prints it and table.ts shows it; and which counters are errors.
import type { Counters, Family, KernelCounters, NicReady, PingResult, UdpVerdict, WorkerStats } from './protocol.js';

interface Between {
  readonly phase: string;
  readonly from: string;
  readonly to: string;
}

export interface NeighbourRow extends Between {
  readonly family: Family;
  readonly mac: string;
  /** First round trip, with finding the neighbour. */
  readonly ms: number;
}

export interface PingRow extends Between, PingResult {
  readonly family: Family;
  readonly payloadBytes: number;
}

export interface TcpRow extends Between {
  readonly family: Family;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly seconds: number;
  readonly bitsPerSecond: number;
  readonly hashSent: string;
  readonly hashReceived: string;
  readonly intact: boolean;
}

export interface UdpRow extends Between, UdpVerdict {
  readonly family: Family;
  readonly datagramsSent: number;
  readonly bytesSent: number;
  readonly seconds: number;
  readonly retries: number;
  readonly sizes: readonly number[];
}

export interface ReplayRow extends Between {
  readonly framesSent: number;
  readonly framesReceived: number;
  readonly framesWrong: number;
  readonly bytes: number;
  readonly seconds: number;
  readonly bitsPerSecond: number;
}

export interface NicRow extends Omit<NicReady, 'nvspVersion' | 'ndisVersion'> {
  /** "V6.1" */
  readonly nvspVersion: string;
  /** "6.30" */
  readonly ndisVersion: string;
  /** "ready", or why the host's side is not. */
  readonly hostState: string;
  /** Highest TCP rate of a phase, all transfers of the NIC together. */
  readonly bitsPerSecondOut: number;
  readonly bitsPerSecondIn: number;
  readonly guest: Counters;
  readonly host: Counters;
}

export interface PhaseRow {
  readonly title: string;
  readonly seconds: number;
  /** What the phase added to each NIC's counters. */
  readonly nics: readonly { readonly name: string; readonly guest: Counters; readonly host: Counters }[];
}

export interface ErrorRow {
  readonly where: string;
  readonly counter: string;
  readonly count: number;
}

export interface DemoResult {
  /** Every byte arrived, unchanged, and no error counter moved. */
  readonly ok: boolean;
  readonly verdict: string;
  readonly mode: 'root' | 'user namespace' | 'replay';
  /** What is missing for more, or left out. */
  readonly notes: readonly string[];
  readonly profile: string;
  readonly mtu: number;
  readonly attachMs: number;
  readonly seconds: number;
  readonly nics: readonly NicRow[];
  readonly neighbours: readonly NeighbourRow[];
  readonly pings: readonly PingRow[];
  readonly tcp: readonly TcpRow[];
  readonly udp: readonly UdpRow[];
  readonly replay: readonly ReplayRow[];
  readonly phases: readonly PhaseRow[];
  readonly switch: Counters;
  readonly uplink: Counters;
  /** Counters of the kernels' stacks that moved, per station. */
  readonly kernel: Readonly<Record<string, KernelCounters>>;
  readonly errors: readonly ErrorRow[];
  /** Failures in words. */
  readonly problems: readonly string[];
}

/** Counters that stay 0 when all is well. Those of back-pressure (ringFull, txBusy, txNoSection) are none. */
export const ERROR_COUNTERS = {
  guest: [
    'txFailed',
    'txTooBig',
    'txUnknownTransaction',
    'rxChecksumBad',
    'rxNoMbuf',
    'rxTooBig',
    'rxBadNvsp',
    'rxBadSet',
    'rxBadRange',
    'rxBadRndis',
    'rxBadPpi',
    'rxBadCoalescing',
    'rxBadType',
    'requestTimeouts',
    'unexpectedReplies',
    'mismatchedReplies',
    'failures',
    'badIndications',
    'badHostMessages',
    'sendsAbandoned',
    'tapWriteErrors',
    'badVnetHeaders',
    'badPackets',
  ],
  host: ['txFailed', 'rxNoSuballocation', 'rxRingFull', 'rxTooBig'],
  switch: ['unknownPort', 'tableFull'],
  uplink: [
    'badHeaders',
    'refused',
    'notWritten',
    'inDropShortTag',
    'inDropSpoofed',
    'outDropLinkDown',
    'outDropTooLong',
  ],
  kernel: [
    'IpInHdrErrors',
    'IpReasmFails',
    'IcmpInCsumErrors',
    'TcpInCsumErrors',
    'UdpInCsumErrors',
    'UdpRcvbufErrors',
    'Ip6InHdrErrors',
    'Ip6ReasmFails',
    'Icmp6InCsumErrors',
    'Udp6InCsumErrors',
    'Udp6RcvbufErrors',
  ],
} as const;

/** Phase of a host's side that carries data. */
export const HOST_READY = 'ready';

/** after - before, cell by cell. */
export function difference(after: Counters, before: Counters = {}): Record<string, number> {
  return Object.fromEntries(Object.entries(after).map(([name, value]) => [name, value - (before[name] ?? 0)]));
}

export function statsDifference(after: WorkerStats, before: WorkerStats): WorkerStats {
  return {
    nics: after.nics.map((nic, i) => ({
      ...nic,
      guest: difference(nic.guest, before.nics[i]?.guest),
      host: difference(nic.host, before.nics[i]?.host),
    })),
    switch: difference(after.switch, before.switch),
    uplink: difference(after.uplink, before.uplink),
  };
}

/** Every error counter that is not 0. */
export function findErrors(stats: WorkerStats, kernel: Readonly<Record<string, KernelCounters>>): ErrorRow[] {
  const rows: ErrorRow[] = [];
  const look = (where: string, counters: Counters, names: readonly string[]) => {
    for (const counter of names) {
      const count = counters[counter] ?? 0;
      if (count !== 0) rows.push({ where, counter, count });
    }
  };
  for (const nic of stats.nics) {
    look(`${nic.name} guest`, nic.guest, ERROR_COUNTERS.guest);
    look(`${nic.name} host`, nic.host, ERROR_COUNTERS.host);
  }
  look('switch', stats.switch, ERROR_COUNTERS.switch);
  look('uplink', stats.uplink, ERROR_COUNTERS.uplink);
  for (const [station, counters] of Object.entries(kernel)) look(`${station} kernel`, counters, ERROR_COUNTERS.kernel);
  return rows;
}

/** What is wrong with the results, in words. */
export function findProblems(result: Pick<DemoResult, 'pings' | 'tcp' | 'udp' | 'replay' | 'nics'>): string[] {
  const problems: string[] = [];
  for (const row of result.pings) {
    if (row.received === row.sent) continue;
    const what = `${row.sent - row.received} of ${row.sent} pings of ${row.payloadBytes} bytes`;
    problems.push(
      `${row.phase}, ${row.from} > ${row.to}: ${what} without a right reply (${row.reason ?? 'no reason'})`,
    );
  }
  for (const row of result.tcp) {
    if (row.intact) continue;
    const what =
      row.bytesSent === row.bytesReceived
        ? 'the hashes differ'
        : `${row.bytesSent} bytes sent, ${row.bytesReceived} received`;
    problems.push(`${row.phase}, ${row.from} > ${row.to}: ${what}`);
  }
  for (const row of result.udp) {
    if (row.lost + row.wrong + row.reordered + row.duplicates === 0) continue;
    const what = `${row.lost} lost, ${row.wrong} wrong, ${row.reordered} reordered, ${row.duplicates} twice`;
    problems.push(`${row.phase}, ${row.from} > ${row.to}: of ${row.datagramsSent} datagrams ${what}`);
  }
  for (const row of result.replay) {
    if (row.framesWrong === 0 && row.framesReceived === row.framesSent) continue;
    const what = `${row.framesReceived} of ${row.framesSent} frames arrived, ${row.framesWrong} of them wrong`;
    problems.push(`${row.phase}, ${row.from} > ${row.to}: ${what}`);
  }
  for (const nic of result.nics) {
    if (nic.hostState !== HOST_READY) problems.push(`${nic.name}: the host's side is ${nic.hostState}`);
  }
  return problems;
}
