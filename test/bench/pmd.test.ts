// The suite `pmd` of the benchmarks, with next to nothing measured: what it reports, not how much.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cores } from '../../bench/interfaces.js';
import { pmd } from '../../bench/pmd/suite.js';
import { rowText } from '../../bench/report.js';
import { MODES } from '../../src/apps/testpmd/modes.js';
import { noDpdkBuild } from '../peers/dpdk.js';

const TINY = { sliceMs: 10, turns: 8 };
const QUEUES = [1, 2, 4, 8, 64];
const BURSTS = [1, 8, 32, 256];

function expectRows({ rows, notes }: Awaited<ReturnType<typeof pmd>>, peer: boolean): void {
  const works = rows.map(({ work, bytes }) => `${work} ${bytes}`);
  assert.equal(new Set(works).size, rows.length, 'every work has one row');
  const expected: string[] = [];
  if (cores().path !== cores().load) {
    for (const mode of MODES) expected.push(`testpmd ${mode} 64`);
    for (const burst of BURSTS) expected.push(`testpmd io, bursts of ${burst} 64`);
    const io = rows.find(({ work }) => work === 'testpmd io')!;
    assert.equal(io.goal, 2 * 4.95);
    assert.equal(io.figures!['ixy.js, published'], 4.95);
    assert.match(rowText(io), /Mpps {3}goal >= 9\.9 (met|missed) .*ixy\.js 4\.95 Mpps/);
    assert.match(notes!.join(), /arXiv 1909\.06344/);
  }
  const compared = peer ? ': C/ours' : '';
  for (const mode of ['tx', 'rx']) {
    for (const count of QUEUES) expected.push(`net_netvsc, ${count} queues, ${mode} 64`);
    for (const burst of BURSTS) expected.push(`net_netvsc, bursts of ${burst}, ${mode}${compared} 64`);
  }
  for (const bytes of [64, 1500]) {
    for (const copybreak of [0, 512, 2000]) expected.push(`tx_copybreak=${copybreak}, tx${compared} ${bytes}`);
    for (const external of [0, 1])
      for (const copybreak of [0, 256, 2000])
        expected.push(`rx_extmbuf_enable=${external}, rx_copybreak=${copybreak}, rx${compared} ${bytes}`);
  }
  assert.deepEqual([...works].sort(), expected.sort());
  for (const row of rows) {
    assert.ok(Number.isFinite(row.value) && row.value > 0, rowText(row));
    for (const figure of Object.values(row.figures ?? {})) assert.ok(figure > 0, rowText(row));
    if (row.work.includes('C/ours')) assert.ok(row.figures!.ours! > 0 && row.figures!.theirs! > 0, rowText(row));
  }
}

test("bench pmd: a row for every mode, queue count, burst size and copybreak setting, beside DPDK's where it is", async (t) => {
  const missing = noDpdkBuild();
  if (missing) t.diagnostic(`without DPDK's drivers: ${missing}`);
  const result = await pmd(1, TINY);
  expectRows(result, !missing);
  if (missing || cores().path === cores().load) return;
  const io = result.rows.find(({ work }) => work === 'testpmd io')!;
  assert.ok((io.figures!['dpdk-testpmd'] ?? 0) > 0 || result.skipped!.length > 0, 'a figure, or why there is none');
});
