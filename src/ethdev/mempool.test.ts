// Mempools: sizes, and several threads that take, pass on and give back at random. None gets what another one has.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { createDatapath } from '../datapath/datapath.js';
import { Arena } from '../memory/arena.js';
import { HANDLE_RING, HANDLE_RING_END } from '../memory/layout.js';
import { linuxSystem } from '../memory/os/mman.js';
import { Mempool, type MempoolOptions } from './mempool.js';
import { type PoolReport, type PoolTask, SCRATCH_BYTES } from './mempool-testing.js';

const RING_ENTRIES = 16;
const arena = Arena.create({ bytes: 32 << 20, system: linuxSystem });
const datapath = createDatapath(arena.memory);

function create(options: MempoolOptions, lcores: number): { pool: Mempool; release(): void } {
  const buffers = arena.reserve('buffers', Mempool.bytes(options));
  const pool = new Mempool(arena, 'mbufs', buffers, options, lcores);
  return {
    pool,
    release() {
      pool.release();
      arena.release(buffers);
    },
  };
}

/** Takes every mbuf there is; each must come once. Only this thread uses the pool. */
function expectWhole(pool: Mempool): void {
  assert.equal(pool.available, pool.count, 'mbufs are missing');
  const handles = arena.reserve('handles', pool.count * 4 + 4);
  let got = 0;
  for (let n = 1; n > 0; got += n) n = datapath.poolGet(pool.address, handles + got * 4, pool.count - got);
  const list = [...arena.u32.subarray(handles >>> 2, (handles >>> 2) + got)];
  assert.equal(new Set(list).size, got, 'an mbuf is there twice');
  datapath.mbufFree(handles, got);
  arena.release(handles);
}

test('sizes that make no sense are refused', () => {
  const options = (change: Partial<MempoolOptions>) => ({ count: 8, room: 512, headroom: 128, ...change });
  for (const change of [{ count: 0 }, { count: 1.5 }, { room: 100 }, { headroom: -1 }, { headroom: 500 }])
    assert.throws(() => Mempool.bytes(options(change)), RangeError, JSON.stringify(change));
});

test('an empty pool gives nothing, says how often, and goes on', () => {
  const { pool, release } = create({ count: 10, room: 256 }, 1);
  const handles = arena.reserve('handles', 64);
  assert.equal(datapath.poolGet(pool.address, handles, 16), 10);
  assert.equal(pool.available, 0);
  assert.equal(datapath.poolGet(pool.address, handles + 40, 1), 0);
  assert.equal(pool.exhausted, 2);
  datapath.mbufFree(handles, 10);
  expectWhole(pool);
  arena.release(handles);
  release();
});

test('one lcore of several: what others keep is not lost, caches of any size', () => {
  const size = fc.integer({ min: 1, max: 40 });
  const step = fc.tuple(fc.nat(3), fc.boolean(), fc.nat(20));
  fc.assert(
    fc.property(size, size, fc.array(step, { maxLength: 40 }), (count, cache, steps) => {
      const { pool, release } = create({ count, room: 256, cache }, 4);
      const handles = arena.reserve('handles', 128);
      const held: number[] = [];
      for (const [lcore, takes, n] of steps) {
        datapath.useLcore(lcore);
        if (takes) {
          const got = datapath.poolGet(pool.address, handles, n);
          for (let i = 0; i < got; i++) held.push(arena.u32[(handles >>> 2) + i]!);
          assert.equal(new Set(held).size, held.length, 'an mbuf was given out twice');
        } else {
          const back = held.splice(0, n);
          for (const [i, mbuf] of back.entries()) arena.u32[(handles >>> 2) + i] = mbuf;
          datapath.mbufFree(handles, back.length);
        }
        assert.equal(pool.available, count - held.length);
      }
      datapath.useLcore(0);
      for (const mbuf of held) {
        arena.u32[handles >>> 2] = mbuf;
        datapath.mbufFree(handles, 1);
      }
      assert.equal(pool.available, count);
      arena.release(handles);
      release();
    }),
  );
});

/** A HANDLE_RING through which one thread passes mbufs to the next. */
function createRing(): number {
  const cells = HANDLE_RING.bytes + 2 * HANDLE_RING_END.bytes;
  const ring = arena.reserve('ring', cells + RING_ENTRIES * 4);
  const set = (cell: keyof typeof HANDLE_RING.at, value: number) => {
    arena.u32[(ring + HANDLE_RING.at[cell]) >>> 2] = value;
  };
  set('entries', ring + cells);
  set('mask', RING_ENTRIES - 1);
  set('limit', RING_ENTRIES);
  set('open', 1);
  return ring;
}

for (const { threads, count, cache } of [
  { threads: 2, count: 300, cache: 64 },
  { threads: 3, count: 64, cache: 8 },
  { threads: 4, count: 40, cache: 2 },
]) {
  test(`${threads} threads, ${count} mbufs, caches of ${cache}: each mbuf is one thread's at a time`, async () => {
    const { pool, release } = create({ count, room: 256, cache }, threads + 1);
    const rings = Array.from({ length: threads }, createRing);
    const ready = arena.reserve('ready', 4);
    const scratch = arena.reserve('scratch', threads * SCRATCH_BYTES);
    const reports = await Promise.all(
      rings.map((ring, i) => {
        const task: PoolTask = {
          ...{ memory: arena.memory, lcore: i + 1, pool: pool.address, scratch: scratch + i * SCRATCH_BYTES },
          ...{ from: ring, to: rings[(i + 1) % threads]!, rounds: 50_000, seed: i + 1 },
          ...{ ready, threads },
        };
        const worker = new Worker(new URL('./mempool-testing.js', import.meta.url), { workerData: task });
        return new Promise<PoolReport>((resolve, reject) => {
          worker.once('message', resolve);
          worker.once('error', reject);
        });
      }),
    );
    for (const { problem } of reports) assert.equal(problem, '');
    const taken = reports.reduce((sum, report) => sum + report.taken, 0);
    assert.ok(taken > 1000, `the threads got only ${taken} mbufs`);
    // What the last ones passed on.
    const handles = arena.reserve('handles', RING_ENTRIES * 4 + 64);
    for (const ring of rings) {
      const n = datapath.handleTake(ring, handles, RING_ENTRIES, handles + RING_ENTRIES * 4);
      datapath.mbufFree(handles, n);
    }
    assert.equal(pool.available, count);
    for (const address of [...rings, ready, scratch, handles]) arena.release(address);
    release();
  });
}
