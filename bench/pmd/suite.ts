// Suite `pmd`: the poll-mode API. testpmd's forward modes and burst sizes on ports that cost next to nothing, beside DPDK's
// testpmd and the published figure of ixy.js; then net_netvsc by queue count, burst size and copybreak, beside DPDK's.
import { noDpdkBuild } from '../../test/peers/dpdk.js';
import { TURNS } from '../peers/suite.js';
import { Skip, type SuiteResult } from '../report.js';
import { bursts, copybreak, queues } from './driver.js';
import { forwarding } from './forwarding.js';

/** How much is measured. */
export interface Extent {
  readonly rounds: number;
  /** Of a forward mode, each round. */
  readonly sliceMs: number;
  /** Turns of host and guest in each round. */
  readonly turns: number;
  /** With DPDK's drivers. */
  readonly peer: boolean;
}

const SLICE_MS = 200;

export async function pmd(
  rounds: number,
  { sliceMs = SLICE_MS, turns = TURNS, peer = true }: Partial<Omit<Extent, 'rounds'>> = {},
): Promise<SuiteResult> {
  const missing = peer && noDpdkBuild();
  const extent: Extent = { rounds, sliceMs, turns, peer: peer && !missing };
  const skipped = missing ? [`DPDK's drivers as peers: ${missing}`] : [];
  const notes: string[] = [];
  const rows = [];
  try {
    const forwarded = await forwarding(extent);
    rows.push(...forwarded.rows);
    skipped.push(...(forwarded.skipped ?? []));
    notes.push(...(forwarded.notes ?? []));
  } catch (error) {
    if (!(error instanceof Skip)) throw error;
    skipped.push(error.message);
  }
  rows.push(...(await queues(extent)), ...(await bursts(extent)), ...(await copybreak(extent)));
  return { rows, skipped, notes };
}
