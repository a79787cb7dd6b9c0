import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../memory/arena.js';
import { PORT_QUEUE, QUEUE_STATE } from '../memory/layout.js';
import type { Driver, Lcore } from './driver.js';
import { RxQueue, startQueue, stopQueue, TxQueue } from './queues.js';

const arena = Arena.create({ bytes: 2 << 20 });
const cells = arena.reserve('queue', PORT_QUEUE.bytes);
const wanted = (cells + PORT_QUEUE.at.wanted) >>> 2;
const state = (cells + PORT_QUEUE.at.state) >>> 2;

/** Queues whose bursts are counted. */
function queues() {
  let bursts = 0;
  const half = {
    burst: () => {
      bursts++;
      return 1;
    },
    close: () => {},
  };
  const driver = { openRx: () => half, openTx: () => half } as unknown as Driver;
  const handle = { driver: 'test', cells, description: undefined };
  const lcore = { arena } as unknown as Lcore;
  return { list: [new RxQueue(lcore, driver, handle), new TxQueue(lcore, driver, handle)], bursts: () => bursts };
}

test('while control code waits for a queue no burst begins', () => {
  const { list, bursts } = queues();
  startQueue(arena.u32, cells);
  for (const queue of list) assert.equal(queue.burst(0, 1), 1);
  arena.u32[wanted] = 1;
  for (const queue of list) assert.equal(queue.burst(0, 1), 0);
  assert.equal(bursts(), 2);
  arena.u32[wanted] = 0;
  for (const queue of list) assert.equal(queue.burst(0, 1), 1);
  stopQueue(arena.u32, cells, 'test');
  for (const queue of list) assert.equal(queue.burst(0, 1), 0);
  assert.equal(arena.u32[wanted], 0);
});

test('a burst that does not end is given up, and the queue goes on', () => {
  const { list } = queues();
  startQueue(arena.u32, cells);
  arena.u32[state] = QUEUE_STATE.BUSY;
  assert.throws(() => stopQueue(arena.u32, cells, 'test'), { code: 'ETIMEDOUT' });
  arena.u32[state] = QUEUE_STATE.READY;
  for (const queue of list) assert.equal(queue.burst(0, 1), 1);
});
