// `netvsc xdp show` and `netvsc xdp prog dump`, as they are typed.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { ObjectReport } from '../../src/apps/xdp/report.js';
import { Objects, tool, without } from './clang.js';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const objects = new Objects();
after(() => objects.remove());
const skip = without('clang');

function netvsc(...words: string[]): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'xdp', ...words], { encoding: 'utf8' });
  assert.equal(stderr, '');
  assert.equal(status, 0);
  return stdout;
}

test('show --json: programs, maps, variables with what --set makes of them', { skip }, () => {
  const file = objects.file('count');
  const words = ['--set', 'sample_every=0x10', '--set', 'hidden=[9,8]', '--json'];
  const report = JSON.parse(netvsc('show', file, ...words)) as ObjectReport;
  assert.equal(report.file, file);
  assert.equal(report.license, 'GPL');
  assert.deepEqual(
    report.programs.map(({ name, section, type, subprograms }) => [name, section, type, ...subprograms]),
    [
      ['count_all', 'xdp', 'xdp', 'is_fragment', 'count'],
      ['count_frags', 'xdp.frags', 'xdp.frags', 'count'],
    ],
  );
  assert.deepEqual(
    report.maps.find(({ name }) => name === 'protocols'),
    {
      ...{ name: 'protocols', section: '.maps', type: 'PERCPU_ARRAY', keySize: 4, valueSize: 16, maxEntries: 256 },
      ...{ flags: '0', pinned: false, numaNode: 0, extra: '0', key: '__u32', value: 'struct counter', initial: {} },
    },
  );
  const values = Object.fromEntries(report.globals.map(({ name, value }) => [name, value]));
  assert.deepEqual(values, {
    ...{ sample_every: 16, drop_fragments: 0, limit: 1500, last_queue: 77, hidden: [9, 8, 3], seen: 0 },
  });
  assert.deepEqual(report.notes, []);
});

test('show: tables for people, with what was left out', { skip }, () => {
  const text = netvsc('show', objects.file('maps'));
  assert.match(text, /^second +xdp +xdp +\d+$/m);
  assert.match(text, /^flows +LRU_HASH +16 struct flow +40 struct entry +1024 +pinned$/m);
  assert.match(text, /^tables +ARRAY_OF_MAPS .* of ARRAY 4\/8, 8, \[0\] table_a, \[2\] table_b$/m);
  assert.match(text, /^ports +DEVMAP +4 +8 +not set$/m);
  assert.match(text, /^note: section "tc" skipped, not XDP: "elsewhere"$/m);
  const named = netvsc('show', objects.file('named'), '--type', 'mine=xdp.frags');
  assert.match(named, /^my_program +xdp\.frags +mine/m);
  assert.match(named, /^my_program: priority 10, the next program runs after XDP_DROP$/m);
});

test('prog dump: source lines, names of what is referred to, instructions as clang prints them', { skip }, () => {
  const file = objects.file('count', 'v1');
  const text = netvsc('prog', 'dump', file, 'count_frags', '--disasm');
  assert.match(text, /^count_frags:$/m);
  assert.match(text, /^; return count\(0, 1\) \? XDP_ABORTED : XDP_PASS; \[.*count\.c:\d+\]$/m);
  assert.match(text, /call pc\+\d+ {2}# count$/m);
  assert.match(text, / ll {2}# protocols$/m);
  assert.match(netvsc('prog', 'dump', file, 'count_all'), / ll {2}# sample_every$/m);
  const listed = tool('llvm-objdump', '-d', '--no-show-raw-insn', '-j', 'xdp', objects.file('drop', 'v1')).stdout;
  const wanted = listed.match(/^ +\d+:\t.*$/gm)?.map((line) => line.replace(/^ +(\d+):\t/, '$1: ').trim());
  const printed = netvsc('prog', 'dump', objects.file('drop', 'v1')).match(/^ +\d+: .*$/gm);
  if (wanted)
    assert.deepEqual(
      printed?.map((line) => line.trim()),
      wanted,
    );
});

test('a program that has to be named, and one that there is not', { skip }, () => {
  for (const [name, expected] of [
    [undefined, /expected the name of a program: the object has "first"|has "second", "first"/],
    ['third', /no program "third": the object has/],
  ] as const) {
    const words = ['prog', 'dump', objects.file('maps'), ...(name ? [name] : [])];
    const { status, stderr } = spawnSync(process.execPath, [main, 'xdp', ...words], { encoding: 'utf8' });
    assert.equal(status, 1);
    assert.match(stderr, expected);
    assert.equal(stderr.trim().split('\n').length, 1);
  }
});

test('an object that is refused: the file, the place, the reason, in one line', { skip }, () => {
  const { status, stderr } = spawnSync(process.execPath, [main, 'xdp', 'show', objects.file('count', 'v3', '-g0')], {
    encoding: 'utf8',
  });
  assert.equal(status, 1);
  assert.match(stderr, /^netvsc: .*count-v3-.*\.o: section "\.maps": expected BTF/);
  assert.equal(path.dirname(stderr.split(': ')[1]!), path.dirname(objects.file('count')));
});
