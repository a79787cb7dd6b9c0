// How many heap bytes a path takes, in a process whose young generation is large enough that nothing is collected while
// counting (allocation.test.ts starts it so).
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

export interface AllocationResult {
  readonly path: string;
  readonly packets: number;
  /** Least heap growth of all trials, bytes: for `rounds` rounds and for ten times as many. */
  readonly few: number;
  readonly many: number;
}

setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc') as () => void;
const ROUNDS = 50;
const TRIALS = 7;

/** Growth of the heap while `rounds` rounds run, or infinity when it was collected in between. */
function growth(round: () => void, rounds: number): number {
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < rounds; i++) round();
  const after = process.memoryUsage().heapUsed;
  return after < before ? Number.POSITIVE_INFINITY : after - before;
}

/** Compilers and inline caches allocate now and then, a path that allocates does so in every trial: hence the least. */
export function measure(path: string, packets: () => number, round: () => void): AllocationResult {
  for (let i = 0; i < ROUNDS * 40; i++) round();
  let few = Number.POSITIVE_INFINITY;
  let many = Number.POSITIVE_INFINITY;
  let carried = 0;
  for (let i = 0; i < TRIALS; i++) {
    gc();
    few = Math.min(few, growth(round, ROUNDS));
    const before = packets();
    many = Math.min(many, growth(round, ROUNDS * 10));
    carried = packets() - before;
  }
  return { path, packets: carried, few, many };
}
