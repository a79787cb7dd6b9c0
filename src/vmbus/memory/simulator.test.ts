import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Simulator } from './simulator.js';

async function trace(seed: number): Promise<string> {
  const simulator = new Simulator({ seed });
  const log: string[] = [];
  for (const name of ['a', 'b', 'c']) simulator.add(name, (now) => log.push(`${name}@${now}`));
  await simulator.run(() => log.length >= 60);
  return log.join(' ');
}

test('a seed gives one order, another seed another', async () => {
  assert.equal(await trace(7), await trace(7));
  assert.notEqual(await trace(7), await trace(8));
});

test('every actor gets its share of turns, removed ones none', async () => {
  const simulator = new Simulator({ seed: 1 });
  const count = { light: 0, heavy: 0, removed: 0 };
  simulator.add('light', () => count.light++);
  simulator.add('heavy', () => count.heavy++, 3);
  simulator.add('removed', () => count.removed++)();
  await simulator.run(() => simulator.turns === 4000);
  assert.equal(count.removed, 0);
  assert.equal(count.light + count.heavy, 4000);
  assert.ok(count.light > 800 && count.light < 1200, `light ran ${count.light} of 4000 turns`);
});

test('timers run once, in order of their time, never early', async () => {
  const simulator = new Simulator({ seed: 3 });
  const ran: number[] = [];
  for (const atMs of [5, 1, 3]) {
    simulator.at(atMs, (now) => {
      assert.ok(now >= atMs);
      ran.push(atMs);
    });
  }
  await simulator.run(() => simulator.nowMs > 10);
  assert.deepEqual(ran, [1, 3, 5]);
});

test('a failing actor and a run that never ends name seed and turn', async () => {
  const failing = new Simulator({ seed: 9 });
  failing.add('host', () => {
    throw new Error('broken');
  });
  await assert.rejects(
    failing.run(() => false),
    /broken \(host, seed 9, turn 1, /,
  );
  await assert.rejects(
    new Simulator({ seed: 9 }).run(() => false, 2),
    /not done after 2 ms \(run, seed 9/,
  );
});
