// What testpmd's forward modes and burst sizes make of one core, between ports that cost next to nothing.
import type { Mode } from '../../src/apps/testpmd/modes.js';
import { cores } from '../interfaces.js';
import { type Row, Skip, type SuiteResult } from '../report.js';
import { median } from '../traffic.js';
import { OurTestpmd, type Rate, TheirTestpmd } from './forwarder.js';
import type { Extent } from './suite.js';

/** ixy.js, the driver in JavaScript that has published figures: Mpps by packets a burst, 64 bytes, both ways together, one core
 *  of a Xeon E3-1230 v2 at 3.3 GHz (Emmerich et al., The Case for Writing Network Drivers in High-Level Programming Languages,
 *  ANCS 2019, arXiv 1909.06344; numbers from the plots in ixy-languages on GitHub). */
const PUBLISHED: Readonly<Record<number, number>> = { 1: 2.11, 8: 4.22, 32: 4.95, 256: 4.86 };
const SOURCE = 'Emmerich et al., ANCS 2019, arXiv 1909.06344';
/** Over the best published figure (facts/performance.md 9). */
const TIMES = 2;

const BURST = 32;
const BURSTS = [1, 8, 32, 256] as const;
const BYTES = 64;

/** Two ports, and what runs on them. */
interface Setting {
  readonly name: string;
  readonly ours: readonly string[];
  /** The same for DPDK's testpmd; absent where it has no such port. */
  readonly theirs?: readonly string[];
  readonly modes: readonly Mode[];
}

const RING: Setting = {
  name: 'net_ring',
  ours: ['net_ring0,peer=net_ring1', 'net_ring1'],
  theirs: ['net_ring0', 'net_ring1'],
  modes: ['io', 'mac', 'macswap', 'csum', '5tswap', 'flowgen'],
};
/** Modes that only send or receive have no partner; one that answers needs somebody who asks. */
const SETTINGS: readonly Setting[] = [
  RING,
  {
    name: 'net_null',
    ours: ['net_null0', 'net_null1'],
    theirs: ['net_null0', 'net_null1'],
    modes: ['txonly', 'rxonly'],
  },
  { name: 'echo requests', ours: ['net_source0', 'net_source1'], modes: ['icmpecho'] },
];

/** One figure that is wanted. */
interface Wanted {
  readonly mode: Mode;
  readonly burst: number;
}

async function openTheirs({ theirs }: Setting, skipped: Set<string>): Promise<TheirTestpmd | undefined> {
  if (theirs === undefined) return undefined;
  try {
    return await TheirTestpmd.open(theirs);
  } catch (error) {
    if (!(error instanceof Skip)) throw error;
    skipped.add(error.message);
    return undefined;
  }
}

/** Rates of ours and of DPDK's, if it is there, in turns. */
async function measure(
  setting: Setting,
  wanted: readonly Wanted[],
  { rounds, sliceMs, peer }: Extent,
  skipped: Set<string>,
): Promise<{ ours: Rate[]; theirs: Rate[] | undefined }[]> {
  const ours = await OurTestpmd.open(setting.ours);
  let theirs: TheirTestpmd | undefined;
  try {
    if (peer) theirs = await openTheirs(setting, skipped);
    const all = wanted.map(() => ({ ours: [] as Rate[], theirs: theirs && ([] as Rate[]) }));
    for (let round = 0; round < rounds; round++) {
      for (const [i, { mode, burst }] of wanted.entries()) {
        all[i]!.ours.push(await ours.measure(mode, burst, sliceMs));
        if (theirs) all[i]!.theirs!.push(await theirs.measure(mode, burst, sliceMs));
      }
    }
    return all;
  } finally {
    await theirs?.close();
    await ours.close();
  }
}

function rowOf(work: string, wanted: Wanted, on: string, ours: readonly Rate[], theirs?: readonly Rate[]): Row {
  const value = median(ours.map(({ mpps }) => mpps));
  const wallMpps = median(ours.map((rate) => rate.wallMpps));
  const peer = theirs && median(theirs.map(({ mpps }) => mpps));
  const ixy = wanted.mode === 'io' ? PUBLISHED[wanted.burst] : undefined;
  const notes = [
    `${(1000 / value).toFixed(1)} ns`,
    ...(ixy === undefined ? [] : [`ixy.js ${ixy} Mpps (${(value / ixy).toFixed(1)} times)`]),
    ...(peer === undefined ? [] : [`dpdk-testpmd ${peer.toFixed(1)} Mpps (${(value / peer).toFixed(2)} times)`]),
    on,
  ];
  const goal = ixy !== undefined && wanted.burst === BURST ? TIMES * ixy : undefined;
  const figures = {
    wallMpps,
    ...(peer === undefined ? {} : { 'dpdk-testpmd': peer }),
    ...(ixy === undefined ? {} : { 'ixy.js, published': ixy }),
  };
  return { work, bytes: BYTES, value, unit: 'Mpps', goal, note: notes.join('; '), figures };
}

/** Forward modes, then burst sizes. */
export async function forwarding(extent: Extent): Promise<SuiteResult> {
  const { path, load } = cores();
  if (path === load) throw new Skip('testpmd: control thread and forwarding thread need a core each');
  const skipped = new Set<string>();
  const rows: Row[] = [];
  for (const setting of SETTINGS) {
    const wanted = setting.modes.map((mode) => ({ mode, burst: BURST }));
    const rates = await measure(setting, wanted, extent, skipped);
    for (const [i, { ours, theirs }] of rates.entries())
      rows.push(rowOf(`testpmd ${wanted[i]!.mode}`, wanted[i]!, setting.name, ours, theirs));
  }
  const wanted = BURSTS.map((burst) => ({ mode: 'io' as const, burst }));
  const rates = await measure(RING, wanted, extent, skipped);
  for (const [i, { ours, theirs }] of rates.entries())
    rows.push(rowOf(`testpmd io, bursts of ${wanted[i]!.burst}`, wanted[i]!, RING.name, ours, theirs));
  const notes = [
    `ixy.js is no peer of this run but published: ${SOURCE}; one core of a Xeon E3-1230 v2, 10 Gbit/s cards`,
  ];
  return { rows, skipped: [...skipped], notes };
}
