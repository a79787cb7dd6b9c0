// A few seconds of the soak: traffic flows, settings change, and the books balance.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { skipReason } from '../linux/rig.js';

const main = fileURLToPath(new URL('../../bench/main.js', import.meta.url));
const LATE_MS = 120_000;

test('soak of eight seconds', { skip: skipReason('setpriv') }, async () => {
  const words = ['--enable-source-maps', main, 'soak', '--minutes', '0.14', '--seed', '3', '--json'];
  const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] });
  const timer = setTimeout(() => child.kill('SIGTERM'), LATE_MS);
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const [code] = await once(child, 'close');
  clearTimeout(timer);
  const { soak } = (JSON.parse(said) as { results: Record<string, { rows: { value: number }[]; faults: string[] }> })
    .results as { soak: { rows: { value: number }[]; faults: string[] } };
  assert.deepEqual(soak.faults, []);
  assert.equal(code, 0);
  assert.equal(soak.rows.length, 4);
  for (const { value } of soak.rows) assert.ok(value > 0);
});
