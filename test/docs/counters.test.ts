// docs/counters.md names every counter that an interface has, in their order, and no others.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { packageRoot } from '../../src/apps/package-info.js';
import { COUNTERS, QUEUE_COUNTERS } from '../../src/netdev/statistics.js';

const text = readFileSync(path.join(packageRoot(), 'docs/counters.md'), 'utf8');
const rows = [...text.matchAll(/^\| `([a-zA-Z0-9_]+)` \| ([^|]+) \|/gm)].map(([, name, what]) => ({ name, what }));

test('docs/counters.md has the counters of the code, in its order, with what they count', () => {
  const queue = (['tx', 'rx'] as const).flatMap((way) => QUEUE_COUNTERS[way].map(([name]) => `${way}_queue_N_${name}`));
  const documented = rows.map(({ name }) => name!);
  assert.deepEqual(
    documented.filter((name) => !name.includes('_queue_N_')),
    COUNTERS.map(({ name }) => name),
  );
  assert.deepEqual(
    documented.filter((name) => name.includes('_queue_N_')),
    queue,
  );
  for (const { name, help } of COUNTERS) {
    const { what } = rows.find((row) => row.name === name)!;
    // The page may say more or say it shorter; it begins with the same words.
    const words = (line: string) =>
      line
        .toLowerCase()
        .split(/[\s,;]+/)
        .slice(0, 2)
        .join(' ');
    if (!what!.startsWith('Bytes')) assert.equal(words(what!), words(help), name);
  }
});
