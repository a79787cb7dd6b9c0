// Statistics of ports and of forwarding, in testpmd's words and widths (facts/dpdk.md 6.3).
import type { BasicStats } from '../../ethdev/types.js';
import type { Session, TestPort } from './session.js';
import type { Stream } from './streams.js';

const BORDER = '#'.repeat(24);
const left = (value: number, width: number) => String(value).padEnd(width);
const right = (value: number, width: number) => String(value).padStart(width);

/** Amounts a second since statistics of the port were last shown; 0 the first time. */
class Rates {
  readonly #seconds: number;
  readonly #before: ReadonlyMap<string, number>;

  constructor(test: TestPort, values: ReadonlyMap<string, number>, nowMs: number) {
    this.#seconds = test.shown === undefined ? 0 : (nowMs - test.shown.atMs) / 1000;
    this.#before = test.shown?.values ?? values;
    this.#values = values;
    test.shown = { atMs: nowMs, values };
  }

  readonly #values: ReadonlyMap<string, number>;

  of(name: string): number {
    const grown = (this.#values.get(name) ?? 0) - (this.#before.get(name) ?? 0);
    return this.#seconds > 0 && grown > 0 ? Math.floor(grown / this.#seconds) : 0;
  }
}

/** "show port stats": text of one port. */
export function portStats(session: Session, test: TestPort, nowMs: number): string {
  const { port } = test;
  const stats = port.stats();
  const { displayXstats } = session.options;
  const xstats = displayXstats.length > 0 ? new Map(port.xstats()) : new Map<string, number>();
  const values = new Map([...Object.entries(stats), ...xstats]);
  const rates = new Rates(test, values, nowMs);
  const lines = [
    `\n  ${BORDER} NIC statistics for port ${left(port.id, 2)} ${BORDER}`,
    `  RX-packets: ${left(stats.ipackets, 10)} RX-missed: ${left(stats.imissed, 10)} RX-bytes:  ${stats.ibytes}`,
    `  RX-errors: ${stats.ierrors}`,
    `  RX-nombuf:  ${left(stats.rxNombuf, 10)}`,
    `  TX-packets: ${left(stats.opackets, 10)} TX-errors: ${left(stats.oerrors, 10)} TX-bytes:  ${stats.obytes}`,
    '\n  Throughput (since last show)',
    `  Rx-pps: ${right(rates.of('ipackets'), 12)}          Rx-bps: ${right(rates.of('ibytes') * 8, 12)}`,
    `  Tx-pps: ${right(rates.of('opackets'), 12)}          Tx-bps: ${right(rates.of('obytes') * 8, 12)}`,
  ];
  if (displayXstats.length > 0) {
    lines.push(`\n${''.padEnd(31)}Value            Rate (since last show)`);
    for (const name of displayXstats.filter((wanted) => xstats.has(wanted)))
      lines.push(`  ${name.padEnd(25)} ${right(values.get(name)!, 12)} ${right(rates.of(name), 15)}`);
  }
  return [...lines, `  ${'#'.repeat(76)}`].join('\n');
}

/** "show port xstats". */
export function portXstats({ port }: TestPort): string {
  const lines = port.xstats().map(([name, value]) => `${name}: ${value}`);
  return [`###### NIC extended statistics for port ${left(port.id, 2)}`, ...lines].join('\n');
}

/** What was forwarded on one stream. */
export interface StreamCounts {
  readonly rxPackets: number;
  readonly txPackets: number;
  readonly txDropped: number;
  readonly rxBadIp: number;
  readonly rxBadL4: number;
}

export interface ForwardStats {
  readonly ports: readonly number[];
  readonly streams: readonly (Stream & StreamCounts)[];
  /** Of each port, since forwarding began. */
  readonly of: (port: number) => BasicStats;
  /** Checksum forwarding tells of bad checksums. */
  readonly checksums: boolean;
}

function streamText(stream: Stream & StreamCounts): string {
  const { rxPort, rxQueue, txPort, txQueue, rxPackets, txPackets, txDropped } = stream;
  const [rp, rq, tp, tq] = [rxPort, rxQueue, txPort, txQueue].map((n) => right(n, 2));
  return [
    `\n  ------- Forward Stats for RX Port=${rp}/Queue=${rq} -> TX Port=${tp}/Queue=${tq} -------`,
    `  RX-packets: ${left(rxPackets, 14)} TX-packets: ${left(txPackets, 14)} TX-dropped: ${left(txDropped, 14)}`,
  ].join('\n');
}

/** Three columns: what came through, what did not, both. */
const totals = (direction: 'RX' | 'TX', packets: number, dropped: number): string =>
  `  ${direction}-packets: ${left(packets, 14)} ${direction}-dropped: ${left(dropped, 14)}${direction}-total: ${packets + dropped}`;

/** Text of "stop" and "show fwd stats all". */
export function forwardStats({ ports, streams, of, checksums }: ForwardStats): string {
  const lines: string[] = [];
  // Streams where nothing happened are left out.
  const busy = streams.filter(({ rxPackets, txPackets, txDropped }) => rxPackets + txPackets + txDropped > 0);
  if (streams.length > ports.length) lines.push(...busy.map(streamText));
  const all = { rx: 0, tx: 0, rxDropped: 0, txDropped: 0, nombufs: 0 };
  for (const id of ports) {
    const stats = of(id);
    const sum = (list: readonly StreamCounts[], what: keyof StreamCounts) => list.reduce((n, one) => n + one[what], 0);
    const txDropped =
      sum(
        streams.filter(({ txPort }) => txPort === id),
        'txDropped',
      ) + stats.oerrors;
    lines.push(
      `\n  ${'-'.repeat(22)} Forward statistics for port ${left(id, 2)} ${'-'.repeat(22)}`,
      totals('RX', stats.ipackets, stats.imissed),
    );
    if (checksums) {
      const from = streams.filter(({ rxPort }) => rxPort === id);
      const [ip, l4] = [sum(from, 'rxBadIp'), sum(from, 'rxBadL4')];
      lines.push(
        `  Bad-ipcsum: ${left(ip, 14)} Bad-l4csum: ${left(l4, 14)}Bad-outer-l4csum: ${left(0, 14)}`,
        `  Bad-outer-ipcsum: ${left(0, 14)}`,
      );
    }
    if (stats.ierrors + stats.rxNombuf > 0)
      lines.push(`  RX-error: ${stats.ierrors}`, `  RX-nombufs: ${left(stats.rxNombuf, 14)}`);
    lines.push(totals('TX', stats.opackets, txDropped), `  ${'-'.repeat(76)}`);
    all.rx += stats.ipackets;
    all.tx += stats.opackets;
    all.rxDropped += stats.imissed;
    all.txDropped += txDropped;
    all.nombufs += stats.rxNombuf;
  }
  lines.push(
    `\n  ${'+'.repeat(15)} Accumulated forward statistics for all ports${'+'.repeat(15)}`,
    totals('RX', all.rx, all.rxDropped),
  );
  if (all.nombufs > 0) lines.push(`  RX-nombufs: ${left(all.nombufs, 14)}`);
  lines.push(totals('TX', all.tx, all.txDropped), `  ${'+'.repeat(76)}`);
  return lines.join('\n');
}
