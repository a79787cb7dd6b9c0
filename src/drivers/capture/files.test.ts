// net_capture: what is in the file, what is not, and how a port is taken over.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { PortError } from '../../ethdev/errors.js';
import { PACKET_FLAG } from '../../memory/layout.js';
import { readCapture } from '../../wire/pcap.js';
import { numbered, numberOf, TestBench } from '../bench-testing.js';
import { initEal } from '../platform.js';

const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-capture-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const fileName = () => path.join(folder, `${files++}.pcapng`);
const busy = (error: Error) => error instanceof PortError && error.code === 'EBUSY';

test('both directions, queues, tags; statistics and comment as tshark sees them', async (context) => {
  const file = fileName();
  const capture = `net_capture0,port=net_ring0,file=${file},comment(drops, or none)`;
  const bench = await TestBench.open(context, ['net_ring0', capture]);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const port = await bench.start('net_capture0', 2);
  const tagged = bench.mbuf(numbered(3));
  bench.eal.mbufs.setFlags(tagged, PACKET_FLAG.VLAN);
  bench.eal.mbufs.setVlanTci(tagged, 0x0123);
  assert.equal(bench.send(port, [numbered(1, 61), numbered(2, 1514)], 0), 2);
  assert.equal(bench.sendMbufs(port, [tagged], 1), 1);
  assert.deepEqual(bench.receive(port, 0).map(numberOf), [1, 2]);
  assert.deepEqual(bench.receive(port, 1).map(numberOf), [3]);
  const names = ['rx_packets', 'rx_dropped', 'tx_packets', 'tx_dropped'];
  assert.deepEqual(
    names.map((name) => bench.xstat(port, `net_capture0_${name}`)),
    [3, 0, 3, 0],
  );
  port.resetStats();
  assert.equal(bench.xstat(port, 'net_capture0_tx_packets'), 0);
  await port.close();
  const packets = readCapture(readFileSync(file));
  assert.equal(packets.length, 6);
  assert.deepEqual(packets.map(({ data }) => numberOf(data)).sort(), [1, 1, 2, 2, 3, 3]);
  const withTag = packets.filter(({ data }) => numberOf(data) === 3).map(({ data }) => [...data.subarray(12, 16)]);
  assert.deepEqual(withTag, [
    [0x81, 0, 1, 0x23],
    [0x81, 0, 1, 0x23],
  ]);
  const fields = ['frame.len', 'frame.packet_flags_direction', 'frame.interface_name'];
  const words = ['-r', file, '-T', 'fields', ...fields.flatMap((field) => ['-e', field])];
  const tshark = spawnSync('tshark', words, { encoding: 'utf8' });
  if (tshark.error) return;
  const lines = tshark.stdout.trim().split('\n').sort();
  const one = (bytes: number, direction: number) => `${bytes}\t0x0000000${direction}\tnet_ring0`;
  assert.deepEqual(
    lines,
    [one(1514, 1), one(1514, 2), one(61, 1), one(61, 2), one(64, 1), one(64, 2)].sort(),
    tshark.stderr,
  );
  const info = spawnSync('capinfos', ['-M', file], { encoding: 'utf8' });
  if (info.error) return;
  assert.match(info.stdout, /Capture comment: +drops, or none/);
  assert.match(info.stdout, /Number of stat entries = 1/);
});

test('what the device does not take is not in the file', async (context) => {
  const file = fileName();
  const bench = await TestBench.open(context, ['net_ring0', `net_capture0,port=0,file=${file}`]);
  const port = await bench.start('net_capture0', 1, {}, 10);
  assert.equal(
    bench.send(
      port,
      Array.from({ length: 25 }, (_, i) => numbered(i)),
    ),
    10,
  );
  assert.equal(bench.receive(port, 0, 4).length, 4);
  assert.equal(bench.send(port, [numbered(100), numbered(101)]), 2);
  await port.close();
  const numbers = readCapture(readFileSync(file)).map(({ data }) => numberOf(data));
  const sent = [...Array.from({ length: 10 }, (_, i) => i), 100, 101];
  assert.deepEqual(
    numbers.sort((a, b) => a - b),
    [0, 1, 2, 3, ...sent].sort((a, b) => a - b),
  );
  bench.expectAllBack();
});

test('a file that is written too slowly: packets pass, drops are counted and said in the file', async (context) => {
  const file = fileName();
  const bench = await TestBench.open(context, [
    'net_null0,size=1000',
    `net_capture0,port=net_null0,file=${file},buffer=300`,
  ]);
  const port = await bench.start('net_capture0');
  let received = 0;
  // The control thread does nothing else meanwhile, so that nothing is written.
  for (let i = 0; i < 100; i++) received += bench.receive(port, 0, 32).length;
  assert.equal(received, 3200);
  const recorded = bench.xstat(port, 'net_capture0_rx_packets');
  const dropped = bench.xstat(port, 'net_capture0_rx_dropped');
  assert.ok(recorded > 100 && dropped > 1000, `${recorded} recorded`);
  assert.equal(recorded + dropped, received);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(bench.receive(port, 0, 32).length, 32);
  assert.equal(bench.xstat(port, 'net_capture0_rx_packets'), recorded + 32);
  await port.close();
  assert.equal(readCapture(readFileSync(file)).length, recorded + 32);
  const info = spawnSync('tshark', ['-r', file, '-q', '-z', 'io,stat,0'], { encoding: 'utf8' });
  if (!info.error) assert.match(info.stdout, new RegExp(`${recorded + 32} `));
});

test('a port that is taken over cannot be used by itself, and can again afterwards', async (context) => {
  const bench = await TestBench.open(context, ['net_ring0', `net_capture0,port=net_ring0,file=${fileName()}`]);
  const ring = bench.port('net_ring0');
  assert.equal(ring.state, 'taken');
  assert.deepEqual(
    bench.eal.ports.map(({ id, device }) => [id, device]),
    [[1, 'net_capture0']],
  );
  for (const call of [
    () => ring.configure({ rxQueues: 1, txQueues: 1 }),
    () => ring.start(),
    () => ring.close(),
    () => ring.reset(),
    () => ring.setMtu(1400),
    () => ring.setPromiscuous(true),
    () => ring.setMac('02:00:00:00:00:01'),
    () => ring.setLink(false),
    async () => ring.resetStats(),
    async () => ring.handle(),
    async () => ring.take('somebody'),
  ])
    await assert.rejects(call, (error: Error) => busy(error) && /net_capture0 uses the device/.test(error.message));
  const capture = await bench.start('net_capture0');
  assert.equal(capture.mac, ring.mac);
  const events: boolean[] = [];
  capture.on('link', ({ up }) => events.push(up));
  await capture.setLink(false);
  assert.equal(ring.link().up, false);
  await capture.setLink(true);
  assert.deepEqual(events, [false, true]);
  bench.send(capture, [numbered(1)]);
  await capture.close();
  assert.equal(ring.state, 'probed');
  assert.equal(bench.eal.ports[0], ring);
  await bench.start('net_ring0');
  bench.send(ring, [numbered(2)]);
  assert.deepEqual(bench.receive(ring).map(numberOf), [2]);
});

test('a started port is not taken; a capture around a capture is', async (context) => {
  const [inside, outside] = [fileName(), fileName()];
  const bench = await TestBench.open(context, ['net_ring0']);
  const ring = await bench.start('net_ring0');
  await assert.rejects(bench.eal.addVdev('net_capture0', `port=net_ring0,file=${inside}`), busy);
  await ring.stop();
  await bench.eal.addVdev('net_capture0', `port=net_ring0,file=${inside}`);
  await bench.eal.addVdev('net_capture1', `port=net_capture0,file=${outside}`);
  await assert.rejects(bench.eal.addVdev('net_capture2', `port=net_ring0,file=${inside}`), busy);
  const port = await bench.start('net_capture1');
  bench.send(port, [numbered(7)]);
  assert.deepEqual(bench.receive(port).map(numberOf), [7]);
  await port.stop();
  await bench.port('net_capture1').close();
  await bench.port('net_capture0').close();
  for (const file of [inside, outside]) assert.equal(readCapture(readFileSync(file)).length, 2);
});

test('arguments: one clear line, and the port stays free', async (context) => {
  const bench = await TestBench.open(context, ['net_ring0']);
  for (const [args, message] of [
    ['', /net_capture0: port: expected the port around which it is/],
    ['port=net_ring0', /net_capture0: file: expected the file to write/],
    ['port=net_ring7,file=/tmp/x', /port net_ring7: there is none, but 0 \(net_ring0\)/],
    ['port=7,file=/tmp/x', /port 7: there is none/],
    ['port=net_ring0,file=/nonexistent/x', /net_capture0: ENOENT/],
    ['port=net_ring0,file=/tmp/x,snaplen=1', /snaplen=1: expected a number 64/],
    ['port=net_ring0,file=/tmp/x,buffer=1', /buffer=1: expected a number 257/],
    ['port=net_ring0,file=/tmp/x,colour=1', /colour: unknown argument/],
  ] as const) {
    await assert.rejects(bench.eal.addVdev('net_capture0', args), (error: Error) => {
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n/);
      return error instanceof PortError;
    });
    assert.equal(bench.port('net_ring0').state, 'probed');
  }
  await assert.rejects(
    initEal(['--vdev', `net_capture0,port=net_capture0,file=${fileName()}`]),
    /there is none, but none/,
  );
});

test('a disk that is full ends the capture, not the port', async (context) => {
  const bench = await TestBench.open(context, ['net_ring0', 'net_capture0,port=net_ring0,file=/dev/full']);
  const port = await bench.start('net_capture0');
  assert.equal(bench.send(port, [numbered(1)]), 1);
  assert.deepEqual(bench.receive(port).map(numberOf), [1]);
  await port.stop();
  assert.equal(bench.logged.length, 1);
  assert.match(bench.logged[0]!, /^net_capture0: capture \/dev\/full: nothing more is written, ENOSPC/);
});
