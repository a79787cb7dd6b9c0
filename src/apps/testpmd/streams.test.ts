// Streams in the order in which DPDK 22.11's testpmd lists them for the same settings ("show config fwd", run here).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type PlanInput, pairsWithItself, planStreams } from './streams.js';

const three = { mode: 'io', ports: [0, 1, 2], rxQueues: 1, txQueues: 1, topology: 'paired', cores: [1, 2, 3] } as const;

function text(input: PlanInput): string[] {
  return planStreams(input).shares.map(
    ({ core, streams }) =>
      `${core}: ${streams.map((s) => `${s.rxPort}/${s.rxQueue}>${s.txPort}/${s.txQueue}`).join(' ')}`,
  );
}

for (const [name, change, expected] of [
  ['one queue, paired, odd', {}, ['1: 0/0>1/0', '2: 1/0>0/0', '3: 2/0>2/0']],
  [
    'two queues, three cores',
    { rxQueues: 2, txQueues: 2 },
    ['1: 0/0>1/0 1/0>0/0', '2: 2/0>2/0 0/1>1/1', '3: 1/1>0/1 2/1>2/1'],
  ],
  [
    'chained, more rx than tx queues',
    { rxQueues: 3, txQueues: 2, topology: 'chained', cores: [1, 2] },
    ['1: 0/0>1/0 1/0>2/0 2/0>0/0', '2: 0/1>1/1 1/1>2/1 2/1>0/1'],
  ],
  [
    'loop; the last core gets what is left over',
    { topology: 'loop', cores: [1, 2] },
    ['1: 0/0>0/0', '2: 1/0>1/0 2/0>2/0'],
  ],
  ['one rx queue, several tx queues', { txQueues: 3 }, ['1: 0/0>1/0', '2: 1/0>0/0', '3: 2/0>2/0']],
  ['ports 0 and 2', { ports: [0, 2], rxQueues: 2, txQueues: 4 }, ['1: 0/0>2/0', '2: 2/0>0/0', '3: 0/1>2/1 2/1>0/1']],
  [
    'echoes go back, port by port',
    { mode: 'icmpecho', rxQueues: 3, txQueues: 3 },
    ['1: 0/0>0/0 0/1>0/1 0/2>0/2', '2: 1/0>1/0 1/1>1/1 1/2>1/2', '3: 2/0>2/0 2/1>2/1 2/2>2/2'],
  ],
  ['more cores than streams', { ports: [1] }, ['1: 1/0>1/0']],
  ['no port', { ports: [] }, []],
] as const) {
  test(`streams: ${name}`, () => assert.deepEqual(text({ ...three, ...change }), expected));
}

test('an odd number of paired ports is worth a warning', () => {
  assert.equal(pairsWithItself(3, 'paired'), true);
  assert.equal(pairsWithItself(3, 'chained'), false);
  assert.equal(pairsWithItself(2, 'paired'), false);
});
