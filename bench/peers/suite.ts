// Suite `peers`: our driver and DPDK's net_netvsc, one after the other on the same host, with the same frames (bench.ts).
import { noDpdkBuild } from '../../test/peers/dpdk.js';
import { SIZES } from '../datapath.js';
import { cores } from '../interfaces.js';
import { type Row, Skip, type SuiteResult } from '../report.js';
import { median } from '../traffic.js';
import { compare, type Figures, type Guest, type Results, type Work } from './bench.js';
import type { GuestFigures } from './task.js';

/** Ratio of the C driver's time per packet to ours (facts/performance.md 9). */
export const GOALS = { 64: { tx: 4, rx: 2 }, 1500: { tx: 1.5, rx: 1.5 } } as const;
export const GROUP = 256;
export const TURNS = 400;
const FREE_MS = 100;

/** Default of the C driver: frames up to 512 bytes are copied to send, all to receive. The other one copies whatever fits a
 *  section, and hands up the receive buffer's own bytes. */
const GUESTS: readonly Guest[] = [
  { name: 'ours', kind: 'device' },
  { name: 'net_netvsc', kind: 'dpdk' },
  { name: 'net_netvsc tuned', kind: 'dpdk', devargs: 'tx_copybreak=6000,rx_extmbuf_enable=1,rx_copybreak=0' },
];
const NAMES = GUESTS.map(({ name }) => name);
const PEERS = NAMES.filter((name) => name !== 'ours');

const twoCores = () => cores().path !== cores().load;

/** What is measured, in the order of the report. */
function works(): Work[] {
  const hows = twoCores() ? (['step', 'free'] as const) : (['step'] as const);
  return hows.flatMap((how) =>
    SIZES.flatMap((bytes) =>
      (['tx', 'rx'] as const).map((mode) => ({
        how,
        mode,
        bytes,
        group: GROUP,
        count: how === 'step' ? TURNS : FREE_MS,
      })),
    ),
  );
}

/** 0 when the guest did not get to run in its time. */
const mpps = ({ packets, ms = 0 }: GuestFigures): number => (ms === 0 ? 0 : packets / (ms * 1000));

/** Rows of one work: every guest, then our ratio to the better peer, of the same rounds. */
function rowsOf(work: Work, results: Results, hz: number): Row[] {
  const { how, mode, bytes } = work;
  const stepping = how === 'step';
  const value = stepping ? ({ ns }: Figures) => ns : mpps;
  const middle = (name: string, of: (figures: Figures) => number) => median(results.get(name)!.map(of));
  // With the peer that does this best, of the same rounds. Above 1: ours is better.
  const ratio = (of: (figures: Figures) => number, less: boolean) => {
    const peer = PEERS.reduce((a, b) => (middle(b, of) < middle(a, of) === less ? b : a));
    const ratios = results.get(peer)!.map((theirs, round) => of(theirs) / of(results.get('ours')![round]!));
    const value = median(ratios.filter(Number.isFinite));
    return { peer, value: less ? value : 1 / value };
  };
  const label = `${stepping ? 'in turns' : 'two cores'}, ${mode}`;
  const rows: Row[] = NAMES.map((name) => {
    const cycles = `${((middle(name, ({ ns }) => ns) * hz) / 1e9).toFixed(0)} TSC cycles a packet`;
    const whole = () => middle(name, ({ workNs }) => workNs!).toFixed(1);
    const more = stepping
      ? `${whole()} ns with buffers and headers; host ${middle(name, ({ hostNs }) => hostNs!).toFixed(0)} ns`
      : `${(100 * middle(name, ({ busy }) => busy!)).toFixed(0)} % of the time`;
    const unit = stepping ? 'ns' : 'Mpps';
    return { work: `${label}: ${name}`, bytes, value: middle(name, value), unit, note: `${cycles}; ${more}` };
  });
  const { peer, value: times } = ratio(value, stepping);
  if (!Number.isFinite(times)) return rows; // on a busy machine they may not have run at the same time at all
  const whole = stepping ? ratio(({ workNs }) => workNs!, true) : undefined;
  rows.push({
    work: `${label}: ratio`,
    bytes,
    value: times,
    unit: 'x',
    goal: stepping ? GOALS[bytes as 64 | 1500][mode] : undefined,
    note: whole ? `${peer}; with buffers and headers ${whole.value.toFixed(2)}, ${whole.peer}` : peer,
  });
  return rows;
}

export async function peers(rounds: number): Promise<SuiteResult> {
  const missing = noDpdkBuild();
  if (missing) throw new Skip(`DPDK's driver is the peer, ${missing}`);
  const all = works();
  const { results, hz } = await compare(GUESTS, all, rounds);
  return {
    rows: all.flatMap((work, index) => rowsOf(work, results[index]!, hz)),
    skipped: twoCores() ? [] : ['both at once: host and guest need a core each'],
  };
}
