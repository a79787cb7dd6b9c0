// net_netvsc behind the poll-mode API on the embedded host: queue counts, burst sizes, copybreak settings; DPDK's C driver on
// the same host, in turns. All figures are the driver's own time per packet (peers/bench.ts).
import { compare, type Figures, type Guest, type Results, type Work } from '../peers/bench.js';
import { GOALS, GROUP } from '../peers/suite.js';
import type { Row } from '../report.js';
import { median } from '../traffic.js';
import type { Extent } from './suite.js';

const QUEUES = [1, 2, 4, 8, 64] as const;
const BURSTS = [1, 8, 32, 256] as const;
const USUAL_BURST = 32;
/** Longer than any packet here. */
const ABOVE_MTU = 2000;
/** Settings of rx_copybreak and tx_copybreak that are measured together: one is about receiving, one about sending. */
const COPYBREAKS = [
  { rx: 0, tx: 0 },
  { rx: 256, tx: 512 },
  { rx: ABOVE_MTU, tx: ABOVE_MTU },
] as const;
const MODES = ['tx', 'rx'] as const;
const SIZES = [64, 1500] as const;

const works = (sizes: readonly number[], { turns }: Extent): Work[] =>
  sizes.flatMap((bytes) => MODES.map((mode) => ({ how: 'step', mode, bytes, group: GROUP, count: turns })));

const middle = (figures: readonly Figures[], of: (figures: Figures) => number): number => median(figures.map(of));
const nsOf = ({ ns }: Figures) => ns;

/** A guest's time, or how many times as long the C driver takes, if it is there; medians of the same rounds. */
function row(work: string, { bytes, mode }: Work, results: Results, ours: string, theirs: string, goal = true): Row {
  const own = results.get(ours)!;
  const peer = results.get(theirs);
  const ns = middle(own, nsOf);
  const whole = middle(own, ({ workNs }) => workNs!);
  const figures = { ours: ns, oursWithBuffers: whole };
  const text = `${ns.toFixed(1)} ns, with buffers and headers ${whole.toFixed(1)}`;
  if (peer === undefined) return { work: `${work}, ${mode}`, bytes, value: ns, unit: 'ns', note: text, figures };
  const times = (of: (figures: Figures) => number) => median(peer.map((one, round) => of(one) / of(own[round]!)));
  const peerNs = middle(peer, nsOf);
  const peerWhole = middle(peer, ({ workNs }) => workNs!);
  return {
    ...{ work: `${work}, ${mode}: C/ours`, bytes, value: times(nsOf), unit: 'x' },
    goal: goal ? GOALS[bytes as 64 | 1500][mode] : undefined,
    note: `${text}; C ${peerNs.toFixed(1)} ns, ${peerWhole.toFixed(1)}`,
    figures: { ...figures, theirs: peerNs, theirsWithBuffers: peerWhole },
  };
}

/** One thread polls all queues in turn: what more queues cost it. */
export async function queues(extent: Extent): Promise<Row[]> {
  const guests = QUEUES.map((count): Guest => ({ name: `${count}`, kind: 'port', queues: count }));
  const all = works([64], extent);
  const { results } = await compare(guests, all, extent.rounds);
  return all.flatMap(({ mode, bytes }, i) =>
    guests.map(({ name }): Row => {
      const own = results[i]!.get(name)!;
      const one = results[i]!.get('1')!;
      const times = median(own.map(({ ns }, round) => ns / one[round]!.ns));
      const note = `${times.toFixed(2)} times as long as with 1 queue; packets a call ${Math.min(USUAL_BURST, GROUP / Number(name))}`;
      const value = middle(own, nsOf);
      return { work: `net_netvsc, ${name} queues, ${mode}`, bytes, value, unit: 'ns', note, figures: { times } };
    }),
  );
}

/** The same guest as ours and as DPDK's, or as ours alone. */
function pair(name: string, more: Partial<Guest>, extent: Extent): Guest[] {
  const ours: Guest = { ...more, name: `ours ${name}`, kind: 'port' };
  return extent.peer ? [ours, { ...more, name: `C ${name}`, kind: 'dpdk' }] : [ours];
}

export async function bursts(extent: Extent): Promise<Row[]> {
  const guests = BURSTS.flatMap((burst) => pair(`${burst}`, { burst }, extent));
  const all = works([64], extent);
  const { results } = await compare(guests, all, extent.rounds);
  return all.flatMap((work, i) =>
    BURSTS.map((burst) => {
      const name = `net_netvsc, bursts of ${burst}`;
      return row(name, work, results[i]!, `ours ${burst}`, `C ${burst}`, burst === USUAL_BURST);
    }),
  );
}

/** Copybreak settings, both ways and sizes. The default settings are among them. */
export async function copybreak(extent: Extent): Promise<Row[]> {
  const rows: { mode: string; external: number; row: Row }[] = [];
  for (const { rx, tx } of COPYBREAKS) {
    const settings = [0, 1].map((external) => ({
      external,
      devargs: `tx_copybreak=${tx},rx_copybreak=${rx},rx_extmbuf_enable=${external}`,
    }));
    const guests = settings.flatMap(({ devargs }) => pair(devargs, { devargs }, extent));
    const all = works(SIZES, extent);
    const { results } = await compare(guests, all, extent.rounds);
    for (const [i, work] of all.entries()) {
      for (const { external, devargs } of settings) {
        const { mode } = work;
        if (mode === 'tx' && external === 1) continue; // the same again
        const name = mode === 'tx' ? `tx_copybreak=${tx}` : `rx_extmbuf_enable=${external}, rx_copybreak=${rx}`;
        rows.push({ mode, external, row: row(name, work, results[i]!, `ours ${devargs}`, `C ${devargs}`) });
      }
    }
  }
  // Sending first, then receiving with copies, then without.
  const rank = ({ mode, external }: (typeof rows)[number]) => (mode === 'tx' ? 0 : 1 + external);
  return rows.sort((a, b) => rank(a) - rank(b)).map((each) => each.row);
}
