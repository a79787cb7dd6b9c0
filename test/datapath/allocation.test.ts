// Zero heap bytes per packet: ten times the packets take no more heap than the packets themselves would with a single byte
// each. One object (12 bytes and up) per packet, or per burst, fails.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { AllocationResult } from './allocation-measure.js';

const run = fileURLToPath(new URL('./allocation-run.js', import.meta.url));
const driversRun = fileURLToPath(new URL('./allocation-drivers-run.js', import.meta.url));

async function results(script: string, ...args: string[]): Promise<AllocationResult[]> {
  const flags = ['--max-semi-space-size=128', '--min-semi-space-size=128'];
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, script, ...args], {
    timeout: 60_000,
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  return JSON.parse(stdout) as AllocationResult[];
}

for (const [what, script] of [
  ['the netvsc data path', run],
  ['the ports of every driver', driversRun],
] as const) {
  test(`no heap bytes per packet: ${what}`, async (t) => {
    for (const { path, packets, few, many } of await results(script)) {
      t.diagnostic(`${path}: ${packets} packets, heap ${many} bytes; a tenth of them ${few} bytes`);
      assert.ok(packets >= 10_000, `${path}: only ${packets} packets went through`);
      assert.ok(many - few < packets / 64, `${path}: ${many} heap bytes for ${packets} packets, ${few} for a tenth`);
    }
  });
}

test('an object per packet would be seen', async () => {
  const [loops] = await results(run, 'sabotage');
  assert.ok(loops && loops.many - loops.few > loops.packets * 8, `${loops?.many} bytes for ${loops?.packets} packets`);
});
