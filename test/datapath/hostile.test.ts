// Random and mutated bytes in everything that is shared, in both directions: no trap, no write outside, every loop ends, no
// buffer lost or freed twice, every message completed once. NETVSC_SEED repeats one run.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import type { HostileJob } from './hostile-run.js';

const LIMIT_MS = 60_000;

function run(job: HostileJob): Promise<Record<string, number>> {
  const worker = new Worker(new URL('./hostile-run.js', import.meta.url), { workerData: job });
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new Error(`a loop does not end: NETVSC_SEED=${job.progress[0]}`));
      void worker.terminate();
    }, LIMIT_MS);
    worker.on('error', reject);
    worker.on('message', resolve);
    worker.on('exit', () => clearTimeout(timer));
  });
}

test('hostile peers, in both directions', async () => {
  const fixed = process.env.NETVSC_SEED;
  const seed =
    fixed === undefined ? (process.env.NETVSC_LONG === '1' ? Math.floor(Math.random() * 2 ** 31) : 1) : Number(fixed);
  const runs = fixed !== undefined ? 2 : process.env.NETVSC_LONG === '1' ? 40_000 : 700;
  const counts = await run({ seed, runs, progress: new Int32Array(new SharedArrayBuffer(4)) });
  if (process.env.NETVSC_COUNTS) console.error(counts);
  if (fixed !== undefined) return;
  const MUST = [
    ...['rxBadNvsp', 'rxBadSet', 'rxBadRange', 'rxBadRndis', 'rxBadPpi', 'rxBadCoalescing', 'rxPackets', 'rxCoalesced'],
    ...[1, 2, 3, 5, 7, 8, 9].map((error) => `host error ${error}`),
    ...[0, 1, 2, 3, 4, 5].map((error) => `guest error ${error}`),
    ...[1, 4, 6, 7, 8, 9].map((error) => `frame error ${error}`),
  ];
  assert.deepEqual(
    MUST.filter((name) => !counts[name]),
    [],
    'never happened',
  );
});
