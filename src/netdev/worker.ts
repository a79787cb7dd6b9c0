// The thread of some of an interface's queue pairs: polls them, sleeps in poll(2) when nothing comes.
import type { LcoreThread } from '../ethdev/lcore.js';
import { type PairSetup, QueuePair } from './pair.js';

/** Plain data: what the control thread launches a worker with. */
export interface WorkerSetup {
  /** Numbers of the ports. */
  readonly device: number;
  readonly tap: number;
  readonly pairs: readonly PairSetup[];
}

/** Runs until the lcore is to end. */
export async function runPairs(lcore: LcoreThread, setup: WorkerSetup): Promise<void> {
  const pairs = setup.pairs.map((pair) => new QueuePair(lcore, setup.device, setup.tap, pair));
  await lcore.run(...pairs);
}
