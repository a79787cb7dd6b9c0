// A small mutation fuzzer over the corpus: only typed errors, no endless loop, no write outside. A fixed seed for CI;
//   NETVSC_FUZZ_SECONDS=600    goes on from random seeds for that long
// An input that breaks a rule is written to the temporary directory; once the cause is mended it belongs in corpus/.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { seededRandom } from '../../src/vmbus/memory/simulator.js';
import { mutate } from './mutate.js';
import { createTargets, type Target } from './targets.js';

/** Test files run compiled; the corpus stays beside the source. */
const CORPUS = corpusFolder();
const RUNS: Readonly<Record<string, number>> = { attributes: 300, guestring: 1500, hostring: 1500, xdpobject: 2500 };
const USUAL_RUNS = 4000;
const KEPT = 400;
const seconds = Number(process.env.NETVSC_FUZZ_SECONDS ?? 0);

function corpusFolder(): string {
  for (let at = path.dirname(fileURLToPath(import.meta.url)); at !== path.dirname(at); at = path.dirname(at)) {
    const folder = path.join(at, 'test/fuzz/corpus');
    try {
      if (readdirSync(folder).length > 0) return folder;
    } catch {}
  }
  throw new Error('test/fuzz/corpus was not found');
}

const targets = createTargets();
after(() => {
  for (const target of targets) target.close?.();
});

function corpus(target: Target): { file: string; bytes: Uint8Array }[] {
  const files = readdirSync(CORPUS).filter((file) => file.startsWith(`${target.name}-`));
  return files.sort().map((file) => ({ file, bytes: readFileSync(path.join(CORPUS, file)) }));
}

/** Mutates and runs until `more` says no; throws with the input that broke a rule. */
function fuzz(target: Target, seed: number, more: (runs: number) => boolean): { runs: number; outcomes: number } {
  const random = seededRandom(seed);
  const inputs = corpus(target).map(({ bytes }) => bytes);
  const seen = new Set(inputs.map((input) => target.run(input)));
  let runs = 0;
  for (; more(runs); runs++) {
    const input = mutate(inputs[Math.floor(random() * inputs.length)]!, inputs, random);
    try {
      const outcome = target.run(input);
      if (seen.has(outcome)) continue;
      seen.add(outcome);
      if (inputs.length < KEPT) inputs.push(input);
    } catch (cause) {
      const file = path.join(tmpdir(), `${target.name}-seed${seed}-run${runs}`);
      writeFileSync(file, input);
      throw new Error(`${target.name}, seed ${seed}, run ${runs}, input in ${file}: ${cause}`, { cause });
    }
  }
  return { runs, outcomes: seen.size };
}

for (const target of targets) {
  test(`${target.name}: every file of the corpus`, () => {
    const files = corpus(target);
    assert.ok(files.length > 0, 'the corpus has nothing for it');
    for (const { file, bytes } of files) assert.doesNotThrow(() => target.run(bytes), file);
  });

  test(`${target.name}: mutations of it`, (t) => {
    const most = RUNS[target.name] ?? USUAL_RUNS;
    const { runs, outcomes } = fuzz(target, 1, (done) => done < most);
    t.diagnostic(`${runs} runs, ${outcomes} outcomes`);
    assert.ok(outcomes > 1, 'whatever it is given, the same comes out');
  });
}

test('for longer, from random seeds', { skip: seconds > 0 ? false : 'NETVSC_FUZZ_SECONDS is not set' }, (t) => {
  const share = (seconds * 1000) / targets.length;
  for (const target of targets) {
    const end = performance.now() + share;
    let runs = 0;
    while (performance.now() < end) {
      const seed = Math.floor(Math.random() * 0x1_0000_0000);
      runs += fuzz(target, seed, (done) => done < 20_000 && performance.now() < end).runs;
    }
    t.diagnostic(`${target.name}: ${runs} runs`);
  }
});
