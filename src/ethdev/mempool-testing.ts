// A thread of the mempool tests: takes mbufs, marks them as its own, passes some on to the next thread, gives back the others.
import { parentPort, workerData } from 'node:worker_threads';
import { createDatapath } from '../datapath/datapath.js';
import { Arena } from '../memory/arena.js';
import { MBUF, SCRATCH } from '../memory/layout.js';
import { linuxSystem } from '../memory/os/mman.js';

const HELD_MAX = 64;
const { user, references } = MBUF.at;
const LISTS = Math.ceil(SCRATCH.END / 64) * 64;
/** Working memory of a thread: its data path's, a list of mbufs, PORT_COUNTERS. */
export const SCRATCH_BYTES: number = LISTS + HELD_MAX * 4 + 64;

/** Plain data. */
export interface PoolTask {
  readonly memory: WebAssembly.Memory;
  readonly lcore: number;
  readonly pool: number;
  readonly scratch: number;
  /** HANDLE_RINGs. */
  readonly from: number;
  readonly to: number;
  /** Cell that counts threads, and how many there are: they begin together. */
  readonly ready: number;
  readonly threads: number;
  readonly rounds: number;
  readonly seed: number;
}

export interface PoolReport {
  /** What was wrong, or nothing. */
  readonly problem: string;
  readonly taken: number;
}

function work(task: PoolTask): PoolReport {
  const { memory, lcore, pool, scratch, from, to, ready, threads, rounds, seed } = task;
  const { u32 } = Arena.attach(memory, linuxSystem);
  const datapath = createDatapath(memory, scratch);
  datapath.useLcore(lcore);
  const list = scratch + LISTS;
  const counters = list + HELD_MAX * 4;
  const held: number[] = [];
  let taken = 0;
  let random = seed;
  const draw = (below: number) => {
    random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((random / 2 ** 32) * below);
  };
  const put = (mbufs: readonly number[]) => {
    for (const [i, mbuf] of mbufs.entries()) u32[(list >>> 2) + i] = mbuf;
  };
  const own = (n: number, what: string) => {
    for (let i = 0; i < n; i++) {
      const mbuf = u32[(list >>> 2) + i]!;
      if (u32[(mbuf + references) >>> 2] !== 1) return `${what}: it has ${u32[(mbuf + references) >>> 2]} references`;
      u32[(mbuf + user) >>> 2] = lcore;
      held.push(mbuf);
    }
    return '';
  };
  const disown = (n: number) => {
    const mbufs = Array.from({ length: Math.min(n, held.length) }, () => held.splice(draw(held.length), 1)[0]!);
    const stolen = mbufs.find((mbuf) => u32[(mbuf + user) >>> 2] !== lcore);
    put(mbufs);
    return { n: mbufs.length, problem: stolen === undefined ? '' : `thread ${u32[(stolen + user) >>> 2]} has it too` };
  };
  Atomics.add(u32, ready >>> 2, 1);
  while (Atomics.load(u32, ready >>> 2) < threads);
  for (let round = 0; round < rounds; round++) {
    const room = HELD_MAX / 2 - held.length;
    let problem = '';
    const what = draw(4);
    if (what === 0 && room > 0) {
      const n = datapath.poolGet(pool, list, 1 + draw(room));
      taken += n;
      problem = own(n, 'taken from the pool');
    } else if (what === 1 && room > 0) {
      problem = own(datapath.handleTake(from, list, 1 + draw(room), counters), 'passed on');
    } else {
      const gone = disown(draw(12));
      problem = gone.problem;
      const passed = what === 2 ? datapath.handlePut(to, list, gone.n, counters) : 0;
      datapath.mbufFree(list + passed * 4, gone.n - passed);
    }
    if (problem !== '') return { problem, taken };
  }
  put(held);
  datapath.mbufFree(list, held.length);
  return { problem: '', taken };
}

if (parentPort) parentPort.postMessage(work(workerData as PoolTask));
