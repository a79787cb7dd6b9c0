// Random machines under random trouble, each from a seed that gives the same run again.
//   NETVSC_SEEDS=1000-5000     runs these seeds instead
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createDatapath } from '../../src/datapath/datapath.js';
import { Arena } from '../../src/memory/arena.js';
import { type RunResult, runSeed } from './run.js';

const SEEDS = 200;
const [FROM, TO] = seedRange(process.env.NETVSC_SEEDS);
const ARENA_BYTES = 128 << 20;

function seedRange(text: string | undefined): [number, number] {
  if (text === undefined || text === '') return [1, SEEDS];
  const match = /^(\d+)(?:-(\d+))?$/.exec(text);
  assert.ok(match, `NETVSC_SEEDS: expected FROM-TO or one seed, got ${text}`);
  return [Number(match[1]), Number(match[2] ?? match[1])];
}

test(`machines of seeds ${FROM} to ${TO}: every packet once, whole and in order, or counted; nothing is left`, async (t) => {
  const arena = Arena.create({ bytes: ARENA_BYTES });
  const datapath = createDatapath(arena.memory);
  const sums = { delivered: 0, dropped: 0, turns: 0, sleeps: 0 };
  const happened = new Map<string, number>();
  for (let seed = FROM; seed <= TO; seed++) {
    const result = await runSeed(seed, arena, datapath);
    for (const name of Object.keys(sums) as (keyof typeof sums)[]) sums[name] += result[name];
    for (const [name, count] of result.happened) happened.set(name, (happened.get(name) ?? 0) + count);
  }
  t.diagnostic(`${JSON.stringify(sums)} ${JSON.stringify(Object.fromEntries(happened))}`);
  if (TO - FROM < 99) return;
  // A test that delivers nothing, or never gets into trouble, shows nothing.
  assert.ok(sums.delivered > 100 * (TO - FROM) && sums.dropped > 0 && sums.sleeps > TO - FROM);
  for (const what of [
    'kill host',
    'kill guest',
    'link of nic',
    'filter',
    'reattach',
    'detach',
    'attach',
    'several queues',
    'memory copied',
  ]) {
    assert.ok((happened.get(what) ?? 0) > 10, `${what} hardly ever happened`);
  }
});

test('a seed gives the identical run again, also in a fresh arena', async () => {
  const hashes: RunResult[] = [];
  for (let i = 0; i < 2; i++) {
    const arena = Arena.create({ bytes: ARENA_BYTES });
    const datapath = createDatapath(arena.memory);
    for (const seed of [3, 4]) hashes.push(await runSeed(seed, arena, datapath));
  }
  assert.equal(hashes[0]!.hash, hashes[2]!.hash);
  assert.equal(hashes[1]!.hash, hashes[3]!.hash);
  assert.notEqual(hashes[0]!.hash, hashes[1]!.hash);
});
