// net_impair: what is done to packets, the same for the same seed, with every packet accounted for.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { PortError } from '../../ethdev/errors.js';
import type { Port } from '../../ethdev/port.js';
import { PACKET_FLAG } from '../../memory/layout.js';
import { affinity } from '../../memory/os/process.js';
import { numbered, numberOf, TestBench } from '../bench-testing.js';

/** A loop that is impaired: what is sent comes back, worse. */
async function impaired(context: TestContext, args: string, queues = 1): Promise<{ bench: TestBench; port: Port }> {
  const bench = await TestBench.open(context, ['net_ring0', `net_impair0,port=net_ring0,${args}`]);
  return { bench, port: await bench.start('net_impair0', queues) };
}

const range = (count: number, from = 0) => Array.from({ length: count }, (_, i) => from + i);
const did = (bench: TestBench, port: Port, what: string) => bench.xstat(port, `net_impair0_${what}`);

/** Sends numbered packets in bursts and receives what comes back at once. */
function trip(bench: TestBench, port: Port, count: number, burst = 32, queue = 0): number[] {
  const got: number[] = [];
  for (let at = 0; at < count; at += burst) {
    bench.send(
      port,
      range(Math.min(burst, count - at), at).map((number) => numbered(number)),
      queue,
    );
    got.push(...bench.receive(port, queue).map(numberOf));
  }
  return got;
}

/** Waits for what is held, then receives it. */
async function rest(bench: TestBench, port: Port, count: number): Promise<number[]> {
  const got: number[] = [];
  await bench.until(
    () => {
      got.push(...bench.receive(port).map(numberOf));
      return got.length >= count;
    },
    () => `${got.length} of ${count} packets came`,
  );
  return got;
}

test('loss: about as many as asked for, the same ones for a seed, others for another, whatever the bursts', async (context) => {
  const outcome = async (args: string, burst: number, queue = 0) => {
    const { bench, port } = await impaired(context, args, 2);
    const got = trip(bench, port, 4000, burst, queue);
    assert.equal(did(bench, port, 'tx_lost'), 4000 - got.length);
    assert.equal(did(bench, port, 'tx_passed'), got.length);
    await port.close();
    bench.expectAllBack();
    return got;
  };
  const first = await outcome('tx_loss=0.1,seed=7', 32);
  assert.ok(first.length > 3500 && first.length < 3700, `${first.length} of 4000 came`);
  assert.deepEqual(await outcome('tx_loss=0.1,seed=7', 5), first);
  assert.notDeepEqual(await outcome('tx_loss=0.1,seed=8', 32), first);
  assert.notDeepEqual(await outcome('tx_loss=0.1,seed=7', 32, 1), first); // each queue has numbers of its own
  assert.deepEqual(await outcome('tx_loss=1', 32), []);
  assert.equal((await outcome('tx_loss=0', 32)).length, 4000);
});

test('each direction for itself', async (context) => {
  const { bench, port } = await impaired(context, 'loss=1,tx_loss=0');
  assert.deepEqual(trip(bench, port, 10), []);
  assert.equal(did(bench, port, 'tx_lost'), 0);
  assert.equal(did(bench, port, 'rx_lost'), 10);
  assert.equal(port.stats().opackets, 10);
  port.resetStats();
  assert.equal(did(bench, port, 'rx_lost'), 0);
});

test('duplicates are copies with the same bytes and cells', async (context) => {
  const { bench, port } = await impaired(context, 'tx_duplicate=1');
  const { mbufs } = bench.eal;
  const chain = bench.mbuf(numbered(1, 1000));
  mbufs.chain(chain, bench.mbuf(numbered(2, 2000)));
  mbufs.setFlags(chain, PACKET_FLAG.HASH);
  mbufs.setHash(chain, 77);
  assert.equal(bench.sendMbufs(port, [chain]), 1);
  const handles = bench.eal.arena.reserve('test', 64);
  assert.equal(port.rxQueue(0).burst(handles, 16), 2);
  const [first, second] = [...bench.eal.arena.u32.subarray(handles >>> 2, (handles >>> 2) + 2)] as [number, number];
  assert.notEqual(first, second);
  assert.deepEqual(mbufs.read(second), mbufs.read(first));
  assert.equal(mbufs.hash(second), 77);
  assert.equal(mbufs.flags(second), PACKET_FLAG.HASH);
  bench.eal.main.datapath.mbufFree(handles, 2);
  bench.eal.arena.release(handles);
  assert.equal(did(bench, port, 'tx_duplicated'), 1);
  bench.expectAllBack();
});

test('corrupt: one bit of each, not of bytes that others see; verdicts go', async (context) => {
  const { bench, port } = await impaired(context, 'rx_corrupt=1,tx_corrupt=0');
  const { mbufs } = bench.eal;
  const bits = (got: Uint8Array, original: Uint8Array) =>
    got.reduce((sum, byte, i) => sum + (byte ^ original[i]!).toString(2).replaceAll('0', '').length, 0);
  const where = new Set<number>();
  for (let i = 0; i < 200; i++) {
    const original = numbered(i, 64);
    const mbuf = bench.mbuf(original);
    if (i % 2 === 1) mbufs.reference(mbuf);
    mbufs.setFlags(mbuf, PACKET_FLAG.RX_L4_GOOD | PACKET_FLAG.RX_IP_GOOD | PACKET_FLAG.IPV4);
    bench.sendMbufs(port, [mbuf]);
    const handles = bench.eal.arena.reserve('test', 64);
    assert.equal(port.rxQueue(0).burst(handles, 8), 1);
    const came = bench.eal.arena.u32[handles >>> 2]!;
    const got = mbufs.read(came);
    assert.equal(bits(got, original), 1);
    where.add(got.findIndex((byte, at) => byte !== original[at]));
    assert.equal(mbufs.flags(came), PACKET_FLAG.IPV4);
    mbufs.free(came);
    if (i % 2 === 1) {
      assert.deepEqual(mbufs.read(mbuf), original);
      mbufs.free(mbuf);
    }
    bench.eal.arena.release(handles);
  }
  assert.ok(where.size > 40, 'the bits are all over the packet');
  assert.equal(did(bench, port, 'rx_corrupted'), 200);
  bench.expectAllBack();
});

test('corrupt: checksums that were to be filled in are, before the bit is turned', async (context) => {
  const { bench, port } = await impaired(context, 'tx_corrupt=1');
  const { mbufs, main } = bench.eal;
  // An IPv4 header without options, checksum 0 for now.
  const packet = new Uint8Array(60);
  packet.set([8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 12);
  const mbuf = bench.mbuf(packet);
  mbufs.setFlags(mbuf, PACKET_FLAG.IPV4 | PACKET_FLAG.TX_IP_CHECKSUM);
  mbufs.setL4Offset(mbuf, 34);
  const filled = bench.mbuf(packet);
  assert.equal(main.datapath.checksumFinish(mbufs.data(filled), 60, mbufs.flags(mbuf), 34), 1);
  const expected = mbufs.read(filled);
  assert.notDeepEqual(expected, packet);
  mbufs.free(filled);
  bench.sendMbufs(port, [mbuf]);
  const [got] = bench.receive(port);
  const different = got!.filter((byte, i) => byte !== expected[i]).length;
  assert.equal(different, 1);
  // A large send cannot be summed here: it goes on as it is.
  const large = bench.mbuf(packet);
  mbufs.setFlags(large, PACKET_FLAG.IPV4 | PACKET_FLAG.TX_TSO);
  bench.sendMbufs(port, [large]);
  assert.deepEqual(bench.receive(port), [packet]);
  assert.equal(did(bench, port, 'tx_failed'), 1);
  bench.expectAllBack();
});

test('reorder: some let up to four others pass, nothing is lost, the same for a seed', async (context) => {
  const outcome = async () => {
    const { bench, port } = await impaired(context, 'tx_reorder=0.2,seed=3');
    const got = trip(bench, port, 2000);
    got.push(...(await rest(bench, port, 2000 - got.length)));
    assert.deepEqual(
      [...got].sort((a, b) => a - b),
      range(2000),
    );
    const moved = got.filter((number, at) => number !== at).length;
    assert.ok(moved > 500, `${moved} are not at their place`);
    // 1 to 4 packets pass; of those some may have stepped aside themselves, 16 at most.
    for (const [at, number] of got.entries()) assert.ok(Math.abs(number - at) <= 4 + 16, `${number} at ${at}`);
    assert.ok(did(bench, port, 'tx_reordered') > 300);
    await port.close();
    bench.expectAllBack();
    return got;
  };
  assert.deepEqual((await outcome()).slice(0, 1900), (await outcome()).slice(0, 1900));
});

test('a packet that lets others pass goes on when none come', async (context) => {
  const { bench, port } = await impaired(context, 'tx_reorder=1');
  bench.send(port, [numbered(5)]);
  assert.deepEqual(bench.receive(port), []);
  assert.deepEqual(await rest(bench, port, 1), [5]);
});

test('delay: not before its time, in order with jitter, and nobody has to poll tx', async (context) => {
  const { bench, port } = await impaired(context, 'tx_delay_us=20000,tx_jitter_us=10000');
  const began = performance.now();
  bench.send(
    port,
    range(100).map((number) => numbered(number)),
  );
  assert.deepEqual(bench.receive(port), []);
  const got = await rest(bench, port, 100);
  assert.ok(performance.now() - began >= 10, 'too early');
  assert.deepEqual(got, range(100));
  assert.equal(did(bench, port, 'tx_delayed'), 100);
  // Without any burst the control thread lets it go.
  bench.send(port, [numbered(7)]);
  await bench.until(
    () => port.rxQueueCount(0) === 1,
    () => 'the packet is still held',
  );
  assert.deepEqual(bench.receive(port).map(numberOf), [7]);
});

test('received packets are delayed too; a queue does not sleep over them', async (context) => {
  const { bench, port } = await impaired(context, 'rx_delay_us=5000');
  const rx = port.rxQueue(0);
  assert.equal(rx.arm(), true);
  rx.disarm();
  bench.send(port, [numbered(1)]);
  const began = performance.now();
  assert.deepEqual(bench.receive(port), []); // the delay begins here
  assert.equal(rx.arm(), false);
  assert.deepEqual(await rest(bench, port, 1), [1]);
  assert.ok(performance.now() - began >= 4.9);
});

for (const args of ['rx_delay_us=1000000', 'rx_loss=1']) {
  test(`${args}: a burst takes no more from a device without end than it was asked for`, async (context) => {
    const bench = await TestBench.open(context, ['net_null0', `net_impair0,port=net_null0,${args}`]);
    const port = await bench.start('net_impair0');
    assert.equal(port.rxQueue(0).burst(bench.eal.main.reserve('burst', 32 * 4), 32), 0);
    const what = args.includes('loss') ? 'lost' : 'delayed';
    assert.equal(did(bench, port, `rx_${what}`), 32);
  });
}

test('no more is held than the limit; the rest is dropped and counted', async (context) => {
  const { bench, port } = await impaired(context, 'tx_delay_us=30000,limit=64');
  assert.equal(
    bench.send(
      port,
      range(200).map((number) => numbered(number)),
    ),
    200,
  );
  assert.equal(did(bench, port, 'tx_overflowed'), 136);
  assert.deepEqual(await rest(bench, port, 64), range(64));
  bench.expectAllBack();
});

test('a device that takes no more is felt: nothing is dropped for it', async (context) => {
  const bench = await TestBench.open(context, ['net_ring0', 'net_impair0,port=net_ring0,tx_duplicate=0.5,limit=16']);
  const port = await bench.start('net_impair0', 1, {}, 32);
  let taken = 0;
  for (let i = 0; i < 20; i++)
    taken += bench.send(
      port,
      range(16).map((number) => numbered(taken + number)),
    );
  assert.ok(taken >= 20 && taken <= 49, `${taken} taken`);
  const got: number[] = [];
  await bench.until(
    () => {
      got.push(...bench.receive(port).map(numberOf));
      return got.length >= taken + did(bench, port, 'tx_duplicated') - did(bench, port, 'tx_overflowed');
    },
    () => `${got.length} came`,
  );
  assert.deepEqual([...new Set(got)], range(taken));
});

test('what is held when the port stops is dropped and counted', async (context) => {
  const { bench, port } = await impaired(context, 'tx_delay_us=1000000,reorder=0.5');
  bench.send(
    port,
    range(50).map((number) => numbered(number)),
  );
  await port.stop();
  assert.equal(did(bench, port, 'tx_flushed'), 50);
  bench.expectAllBack();
  await port.start();
  assert.deepEqual(bench.receive(port), []);
});

test('every packet is accounted for', async (context) => {
  const share = fc.constantFrom(0, 0.01, 0.1, 0.5, 1);
  const step = fc.record({ send: fc.nat(64), receive: fc.nat(80) });
  const settings = fc.record({
    ...{ loss: share, duplicate: share, corrupt: share, reorder: share, seed: fc.nat(1000) },
    ...{
      delay: fc.constantFrom(0, 0, 50),
      limit: fc.constantFrom(4, 64, 1024),
      steps: fc.array(step, { maxLength: 12 }),
    },
  });
  await fc.assert(
    fc.asyncProperty(settings, async ({ loss, duplicate, corrupt, reorder, seed, delay, limit, steps }) => {
      const what = `loss=${loss},duplicate=${duplicate},corrupt=${corrupt},reorder=${reorder}`;
      const args = `net_impair0,port=net_ring0,${what},delay_us=${delay},limit=${limit},seed=${seed}`;
      const bench = await TestBench.open(context, ['net_ring0', args]);
      const port = await bench.start('net_impair0');
      let [sent, got] = [0, 0];
      for (const { send, receive } of steps) {
        sent += bench.send(
          port,
          range(send, sent).map((number) => numbered(number)),
        );
        got += bench.receive(port, 0, receive).length;
      }
      const sum = (direction: string, sign: number, ...names: string[]) =>
        names.reduce((total, name) => total + sign * did(bench, port, `${direction}_${name}`), 0);
      await port.stop();
      for (const [direction, came] of [['tx', sent] as const, ['rx', port.stats().ipackets] as const]) {
        const gone = sum(direction, 1, 'passed', 'lost', 'overflowed', 'flushed');
        assert.equal(gone, came + sum(direction, 1, 'duplicated'), direction);
      }
      assert.equal(did(bench, port, 'rx_passed'), got);
      assert.equal(did(bench, port, 'tx_passed'), port.stats().opackets);
      bench.expectAllBack();
      await bench.eal.close();
    }),
    { numRuns: 40 },
  );
});

test('two lcores, each on its queue', { skip: affinity().length < 2 && 'one CPU' }, async (context) => {
  const vdevs = ['net_ring0', 'net_impair0,port=net_ring0,loss=0.1,duplicate=0.1,reorder=0.1,corrupt=0.1,delay_us=20'];
  const bench = await TestBench.open(context, vdevs, ['-l', affinity().slice(0, 2).join(',')]);
  const port = await bench.start('net_impair0', 2);
  const url = new URL('../conformance/lcore-work.js', import.meta.url);
  const order = { port: port.id, queue: 1, pool: bench.pool.address, packets: 20_000, bytes: 100 };
  const other = bench.eal.launch(1, url, 'trade', order) as Promise<{ sent: number }>;
  let ended = false;
  void other.then(() => {
    ended = true;
  });
  let sent = 0;
  await bench.until(
    () => {
      for (let i = 0; i < 20; i++) {
        sent += bench.send(
          port,
          range(32).map((number) => numbered(number)),
        );
        bench.receive(port);
      }
      return ended;
    },
    () => 'the other lcore does not end',
  );
  assert.equal((await other).sent, 20_000);
  await port.close();
  bench.expectAllBack();
  assert.ok(sent > 0);
});

for (const [args, message] of [
  ['loss=2', /net_impair0: loss=2: expected a number 0 to 1, as in 0\.01/],
  ['rx_loss=-0.1', /rx_loss=-0\.1: expected a number 0 to 1/],
  ['loss=0.1%', /loss=0\.1%: expected a number 0 to 1/],
  ['delay_us=99999999', /delay_us=99999999: expected a number 0 to 10000000/],
  ['limit=0', /limit=0: expected a number 1 to 65536/],
  ['drop=0.1', /drop: unknown argument, expected port, seed, limit, loss/],
] as const) {
  test(`arguments ${args}: one clear line`, async (context) => {
    await assert.rejects(impaired(context, args), (error: Error) => {
      assert.match(error.message, message);
      return error instanceof PortError;
    });
  });
}
