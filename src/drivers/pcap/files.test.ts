// net_pcap: files of every kind and size, recorded times, files that are none, and what is written.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { RX_OFFLOAD, TX_OFFLOAD } from '../../ethdev/constants.js';
import type { Eal } from '../../ethdev/eal.js';
import type { Mempool } from '../../ethdev/mempool.js';
import type { Port } from '../../ethdev/port.js';
import { PACKET_FLAG } from '../../memory/layout.js';
import { affinity } from '../../memory/os/process.js';
import {
  LINK_TYPE,
  pcapHeader,
  pcapngInterface,
  pcapngPacket,
  pcapngSection,
  pcapRecord,
  readCapture,
} from '../../wire/pcap.js';
import { initEal } from '../platform.js';

const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-pcap-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const fileName = (suffix = 'pcap') => path.join(folder, `${files++}.${suffix}`);
const write = (bytes: readonly Uint8Array[] | string, suffix?: string) => {
  const file = fileName(suffix);
  writeFileSync(file, typeof bytes === 'string' ? Buffer.from(bytes.replaceAll(' ', ''), 'hex') : Buffer.concat(bytes));
  return file;
};
const frame = (number: number, bytes = 60) => {
  const data = new Uint8Array(bytes).fill(number);
  new DataView(data.buffer).setUint32(0, number);
  return data;
};
const START = 1_700_000_000_000_000_000n;
const record = (number: number, bytes?: number, ns = 0n) => pcapRecord(START + ns, frame(number, bytes));

class Bench {
  readonly eal: Eal;
  readonly port: Port;
  readonly logged: string[];
  pool!: Mempool;
  handles = 0;

  private constructor(eal: Eal, logged: string[]) {
    this.eal = eal;
    this.port = eal.port(0);
    this.logged = logged;
  }

  static async open(context: TestContext, args: string, words: string[] = []): Promise<Bench> {
    const logged: string[] = [];
    const eal = await initEal(['-m', '16', ...words, '--vdev', `net_pcap0,${args}`], {
      log: (line) => logged.push(line),
    });
    context.after(() => eal.close());
    const bench = new Bench(eal, logged);
    bench.handles = eal.main.reserve('burst', 256 * 4);
    return bench;
  }

  async start(rxOffloads = 0, room = 2048, txOffloads = 0): Promise<void> {
    this.pool ??= this.eal.createMempool('mbufs', { count: 1024, room: 128 + room });
    await this.port.configure({ rxQueues: 1, txQueues: 1, rxOffloads, txOffloads });
    this.port.setupRxQueue(0, { descriptors: 0, pool: this.pool });
    this.port.setupTxQueue(0);
    await this.port.start();
  }

  /** One burst: what `look` makes of each mbuf. */
  receive<T>(max: number, look: (mbuf: number) => T): T[] {
    const n = this.port.rxQueue(0).burst(this.handles, max);
    const list = Array.from({ length: n }, (_, i) => look(this.eal.arena.u32[(this.handles >>> 2) + i]!));
    this.eal.main.datapath.mbufFree(this.handles, n);
    return list;
  }

  numbers(max = 64): number[] {
    return this.receive(max, (mbuf) => new DataView(this.eal.mbufs.read(mbuf).buffer).getUint32(0));
  }

  send(mbuf: number): void {
    this.eal.arena.u32[this.handles >>> 2] = mbuf;
    assert.equal(this.port.txQueue(0).burst(this.handles, 1), 1);
  }

  mbuf(bytes: Uint8Array): number {
    const mbuf = this.eal.mbufs.allocate(this.pool);
    assert.ok(this.eal.mbufs.write(mbuf, bytes));
    return mbuf;
  }

  xstat(name: string): number | undefined {
    return new Map(this.port.xstats()).get(name);
  }
}

const PACKET = '05000000 05000000'; // lengths of a record: too short for Ethernet
const MICRO = 1_700_000_000_123_456_000n;
const NANO = 1_700_000_000_123_456_789n;
const bytes14 = 'aa'.repeat(14);
/** Number as 4 bytes in a file of this byte order. */
const word = (value: number, big: boolean) => {
  const bytes = Buffer.alloc(4);
  if (big) bytes.writeUInt32BE(value);
  else bytes.writeUInt32LE(value);
  return bytes.toString('hex');
};

function classic(big: boolean, nano: boolean): string {
  const w = (value: number) => word(value, big);
  const version = big ? '00020004' : '02000400';
  const header = [w(nano ? 0xa1b23c4d : 0xa1b2c3d4), version, w(0), w(0), w(65_535), w(1)];
  return [...header, w(1_700_000_000), w(nano ? 123_456_789 : 123_456), w(14), w(14), bytes14].join('');
}

function next(big: boolean, resolution: number | undefined, units: bigint): string {
  const w = (value: number) => word(value, big);
  const half = (value: number) => (big ? w(value).slice(4) : w(value).slice(0, 4));
  const section = [big ? '0a0d0d0a' : '0a0d0d0a', w(28), w(0x1a2b3c4d), half(1), half(0), 'ff'.repeat(8), w(28)];
  const options =
    resolution === undefined ? [] : [half(9), half(1), resolution.toString(16).padStart(2, '0'), '000000'];
  const length = 20 + (options.length > 0 ? 8 : 0);
  const described = [w(1), w(length), half(1), half(0), w(0), ...options, w(length)];
  const packet = [
    w(6),
    w(48),
    w(0),
    w(Number(units >> 32n)),
    w(Number(units & 0xffff_ffffn)),
    w(14),
    w(14),
    bytes14,
    '0000',
    w(48),
  ];
  return [...section, ...described, ...packet].join('');
}

for (const big of [false, true]) {
  const order = big ? 'big-endian' : 'little-endian';
  for (const [name, content, time] of [
    ['pcap, microseconds', classic(big, false), MICRO],
    ['pcap, nanoseconds', classic(big, true), NANO],
    ['pcapng, microseconds', next(big, undefined, MICRO / 1000n), MICRO],
    ['pcapng, nanoseconds', next(big, 9, NANO), NANO],
    ['pcapng, 2^-20 s', next(big, 0x94, (NANO << 20n) / 1_000_000_000n), undefined],
  ] as const) {
    test(`${name}, ${order}`, async (context) => {
      const bench = await Bench.open(context, `rx_pcap=${write(content)}`);
      await bench.start(RX_OFFLOAD.TIMESTAMP);
      const { mbufs } = bench.eal;
      const [packet, ...others] = bench.receive(8, (mbuf) => ({
        bytes: Buffer.from(mbufs.read(mbuf)).toString('hex'),
        time: (BigInt(mbufs.timestampHigh(mbuf)) << 32n) | BigInt(mbufs.timestampLow(mbuf)),
      }));
      assert.deepEqual(others, []);
      assert.equal(packet!.bytes, bytes14);
      if (time !== undefined) assert.equal(packet!.time, time);
      else assert.ok(NANO - packet!.time < 1000n && packet!.time <= NANO);
      assert.deepEqual(
        bench.receive(8, () => 0),
        [],
      );
      assert.equal(bench.xstat('rx_q0_file_ended'), 1);
    });
  }
}

test('a file of many pieces: every packet, in order, memory as before', async (context) => {
  const sizes = (i: number) => 14 + ((i * 7919) % 1500);
  const count = 30_000;
  const filler = new Uint8Array(3 << 20);
  const view = new DataView(filler.buffer);
  view.setUint32(0, 0xbad, true); // a block that nobody knows, longer than what is read ahead
  view.setUint32(4, filler.length, true);
  view.setUint32(filler.length - 4, filler.length, true);
  const blocks = [pcapngSection(), pcapngInterface('a')];
  for (let i = 0; i < count; i++) {
    blocks.push(pcapngPacket(0, START, frame(i, sizes(i))));
    if (i === 1000) blocks.push(filler);
    if (i === 2000) blocks.push(pcapngSection(), pcapngInterface('b'));
  }
  const bench = await Bench.open(context, `rx_pcap=${write(blocks, 'pcapng')}`);
  await bench.start();
  const regions = bench.eal.arena.regions().length;
  let i = 0;
  for (let list = [0]; list.length > 0; ) {
    list = bench.receive(64, (mbuf) => {
      const bytes = bench.eal.mbufs.read(mbuf);
      assert.equal(bytes.length, sizes(i));
      assert.deepEqual(bytes, frame(i, sizes(i)));
      return i++;
    });
  }
  assert.equal(i, count);
  assert.deepEqual(bench.logged, []);
  assert.equal(bench.eal.arena.regions().length, regions);
  assert.equal(bench.pool.available, bench.pool.count);
});

test('frames longer than an mbuf: chains, or counted as errors', async (context) => {
  const sizes = [100, 300, 511, 512, 513, 5000, 65_535, 100];
  const file = write([pcapHeader(), ...sizes.map((bytes, i) => record(i, bytes))]);
  const bench = await Bench.open(context, `rx_pcap=${file}`);
  await bench.start(RX_OFFLOAD.SCATTER, 512);
  const { mbufs } = bench.eal;
  const got = bench.receive(64, (mbuf) => {
    const bytes = mbufs.read(mbuf);
    assert.deepEqual(bytes, frame(bytes[3]!, bytes.length));
    return [mbufs.packetLength(mbuf), mbufs.segments(mbuf)];
  });
  assert.deepEqual(
    got,
    sizes.map((bytes) => [bytes, Math.ceil(bytes / 512)]),
  );
  await bench.port.stop();
  await bench.start(0);
  assert.deepEqual(
    bench.receive(64, (mbuf) => mbufs.packetLength(mbuf)),
    [100, 300, 511, 512, 100],
  );
  assert.equal(bench.port.stats().ierrors, 3);
  assert.equal(bench.pool.available, bench.pool.count);
});

test('each start begins at the beginning; infinite_rx too, at the end', async (context) => {
  const file = write([pcapHeader(), record(1), record(2), record(3)]);
  const bench = await Bench.open(context, `rx_pcap=${file}`);
  await bench.start();
  assert.deepEqual(bench.numbers(2), [1, 2]);
  await bench.port.stop();
  await bench.port.start();
  assert.deepEqual(bench.numbers(), [1, 2, 3]);
  assert.deepEqual(bench.numbers(), []);
  await bench.port.stop();
  await bench.port.start();
  assert.deepEqual(bench.numbers(1), [1]);

  const endless = await Bench.open(context, `rx_pcap=${file},infinite_rx=1`);
  await endless.start();
  assert.deepEqual(endless.numbers(8), [1, 2, 3, 1, 2, 3, 1, 2]);
  assert.deepEqual(endless.numbers(2), [3, 1]);
  assert.equal(endless.xstat('rx_q0_file_laps'), 3);

  const useless = [pcapHeader(LINK_TYPE.LINUX_SLL), record(1)];
  const nothing = await Bench.open(context, `rx_pcap=${write(useless)},infinite_rx=1`);
  await nothing.start();
  assert.deepEqual(nothing.numbers(), []);
  assert.equal(nothing.xstat('rx_q0_file_ended'), 1);
  assert.equal(nothing.xstat('rx_q0_skipped_packets'), 1);
});

test('what was cut off is received as it is, what is too short is not', async (context) => {
  const cut = pcapRecord(START, frame(1), 1500);
  const short = pcapRecord(START, new Uint8Array(13));
  const bench = await Bench.open(context, `rx_pcap=${write([pcapHeader(), cut, short, record(2)])}`);
  await bench.start();
  assert.deepEqual(bench.numbers(), [1, 2]);
  assert.equal(bench.xstat('rx_q0_truncated_packets'), 1);
  assert.equal(bench.xstat('rx_q0_skipped_packets'), 1);
});

test('pace: no packet before its time, and N times as fast', async (context) => {
  const at = [0, 40, 40, 80, 120];
  const file = write([pcapHeader(), ...at.map((ms, i) => record(i, 60, BigInt(ms) * 1_000_000n))]);
  for (const [pace, factor] of [
    [1, 1],
    [4, 4],
  ]) {
    const bench = await Bench.open(context, `rx_pcap=${file},pace=${pace}`);
    await bench.start();
    const began = performance.now();
    const numbers: number[] = [];
    while (numbers.length < at.length && performance.now() - began < 5000) {
      const before = performance.now() - began;
      for (const number of bench.numbers()) {
        // Its own clock was read between these.
        assert.ok((performance.now() - began) * factor! >= at[number]!, `packet ${number} after ${before} ms`);
        numbers.push(number);
      }
      await new Promise(setImmediate);
    }
    assert.deepEqual(numbers, [0, 1, 2, 3, 4]);
  }
});

test('another thread goes on where the first one was', {
  skip: affinity().length < 2 && 'one CPU',
}, async (context) => {
  for (const suffix of ['pcap', 'pcapng']) {
    const list = Array.from({ length: 5000 }, (_, i) => i);
    const blocks =
      suffix === 'pcap'
        ? [pcapHeader(), ...list.map((i) => record(i, 300))]
        : [pcapngSection(), pcapngInterface('a'), ...list.map((i) => pcapngPacket(0, START, frame(i, 300)))];
    const words = ['-l', affinity().slice(0, 2).join(',')];
    const bench = await Bench.open(context, `rx_pcap=${write(blocks, suffix)}`, words);
    await bench.start();
    const got = bench.numbers(100);
    const url = new URL('./reader-testing.js', import.meta.url);
    for (let i = 0; i < 3; i++) {
      got.push(...((await bench.eal.launch(1, url, 'readNumbers', { port: 0, count: 700 })) as number[]));
      got.push(...bench.numbers(50));
    }
    assert.deepEqual(got, list.slice(0, got.length));
    assert.ok(got.length > 2000);
  }
});

for (const [name, content, message] of [
  ['nothing', '', /offset 0: expected a pcap or pcapng file, it is empty/],
  [
    'text',
    Buffer.from('no capture').toString('hex'),
    /offset 0: PCAP_FILE_HEADER\.magic: expected a pcap or pcapng file, got 0x63206f6e/,
  ],
  ['half a header', '4d3cb2a1 0200', /offset 0: the file ends there, expected 24 bytes, got 6/],
  [
    'pcap version 3',
    `4d3cb2a1 0300 0400 ${'00'.repeat(16)}`,
    /offset 0: PCAP_FILE_HEADER\.versionMajor: expected 2, got 3/,
  ],
  [
    'half a record',
    `4d3cb2a1 0200 0400 ${'00'.repeat(12)} 01000000 00000000`,
    /offset 24: the file ends there, expected 16 bytes, got 4/,
  ],
  [
    'a packet cut off',
    `4d3cb2a1 0200 0400 ${'00'.repeat(12)} 01000000 ${'00'.repeat(8)} ${PACKET} aa`,
    /offset 24: the file ends there, expected 21 bytes, got 17/,
  ],
  [
    'a huge packet',
    `4d3cb2a1 0200 0400 ${'00'.repeat(12)} 01000000 ${'00'.repeat(8)} 00000010 00000010`,
    /offset 24: PCAP_RECORD_HEADER\.capturedLength: expected at most 262144 bytes, got 268435456/,
  ],
  [
    'a block of 8 bytes',
    '0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000 06000000 08000000 08000000',
    /offset 28: PCAPNG_BLOCK_HEADER\.blockLength: expected a multiple of 4 in 12\.\.16777216, got 8/,
  ],
  [
    'a packet of no interface',
    '0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000 06000000 20000000 07000000 00000000 00000000 00000000 00000000 20000000',
    /offset 28: PCAPNG_ENHANCED_PACKET\.interfaceId: expected one of 0 interfaces, got 7/,
  ],
  [
    'a packet block of 2 MiB',
    '0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000 06000000 00002000 00000000',
    /offset 28: expected a block of at most 1048576 bytes, got 2097152/,
  ],
] as const) {
  test(`a file of ${name}: refused, with the place`, async (context) => {
    const file = write(content);
    await assert.rejects(Bench.open(context, `rx_pcap=${file}`), (error: Error) => {
      assert.ok(error.message.startsWith(`net_pcap0: capture ${file}`), error.message);
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  });
}

for (const [args, message] of [
  ['rx_pcap=/nonexistent/x', /capture ENOENT: no such file or directory, open '\/nonexistent\/x'/],
  [`rx_pcap=${folder}`, /expected a regular file/],
  ['rx_pcap=/dev/zero', /expected a regular file/],
  ['rx_pcap', /rx_pcap: expected a file/],
  ['tx_pcap=/nonexistent/x', /ENOENT/],
  ['snaplen=3', /snaplen=3: expected a number 64 to 262144/],
  ['pace=-1', /pace=-1: expected a number 0/],
  ['speed=2', /speed: unknown argument, expected rx_pcap, tx_pcap, infinite_rx/],
] as const) {
  test(`arguments ${args}: one clear line`, async (context) => {
    await assert.rejects(Bench.open(context, args), (error: Error) => {
      assert.match(error.message, message);
      return true;
    });
  });
}

test('a file that is damaged in the middle: what is before it comes, then it is said where', async (context) => {
  const good = [pcapHeader(), record(1), record(2)];
  const bad = pcapRecord(START, frame(3));
  bad.fill(0xff, 8, 12); // length
  const file = write([...good, bad, record(4)]);
  const bench = await Bench.open(context, `rx_pcap=${file},tx_pcap=${fileName()}`);
  await bench.start();
  assert.deepEqual(bench.numbers(), [1, 2]);
  assert.deepEqual(bench.numbers(), []);
  assert.equal(bench.port.stats().ierrors, 1);
  await bench.port.stop();
  const offset = good.reduce((sum, { length }) => sum + length, 0);
  assert.equal(bench.logged.length, 1);
  assert.match(bench.logged[0]!, new RegExp(`^net_pcap0: capture ${file}, offset ${offset}: PCAP_RECORD_HEADER`));
  await bench.port.start();
  assert.deepEqual(bench.numbers(), [1, 2]);
  bench.send(bench.mbuf(frame(9))); // the port works
});

test('what is sent: bytes, tags, chains, times, mode of the file', async (context) => {
  for (const suffix of ['pcap', 'pcapng']) {
    const file = fileName(suffix);
    writeFileSync(file, 'what was there before');
    chmodSync(file, 0o666);
    const bench = await Bench.open(context, `tx_pcap=${file},snaplen=100`);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    await bench.start(0, 2048, TX_OFFLOAD.MULTI_SEGS);
    const { mbufs } = bench.eal;
    const before = BigInt(Date.now()) * 1_000_000n;
    bench.send(bench.mbuf(frame(1, 61)));
    const chain = bench.mbuf(frame(2, 64).subarray(0, 13));
    mbufs.chain(chain, bench.mbuf(frame(2, 64).subarray(13)));
    bench.send(chain);
    const tagged = bench.mbuf(frame(3, 60));
    mbufs.setFlags(tagged, PACKET_FLAG.VLAN);
    mbufs.setVlanTci(tagged, 0x2123);
    bench.send(tagged);
    bench.send(bench.mbuf(frame(4, 1500)));
    await bench.port.stop();
    const packets = readCapture(readFileSync(file));
    const withTag = Uint8Array.of(...frame(3).subarray(0, 12), 0x81, 0, 0x21, 0x23, ...frame(3).subarray(12));
    assert.deepEqual(
      packets.map(({ data }) => data),
      [frame(1, 61), frame(2, 64), withTag, frame(4, 1500).subarray(0, 100)],
    );
    assert.deepEqual(
      packets.map(({ originalLength }) => originalLength),
      [61, 64, 64, 1500],
    );
    // The clock of time stamps and that of Date.now() may differ by a step of the system's.
    for (const { timestampNs } of packets)
      assert.ok(timestampNs! - before > -1_000_000_000n && timestampNs! - before < 60_000_000_000n);
    // Over a stop it goes on.
    await bench.port.start();
    bench.send(bench.mbuf(frame(5)));
    await bench.port.close();
    assert.equal(readCapture(readFileSync(file)).length, 5);
    assert.equal(bench.pool.available, bench.pool.count);
    const tshark = spawnSync('tshark', ['-r', file, '-T', 'fields', '-e', 'frame.len', '-e', 'frame.cap_len'], {
      encoding: 'utf8',
    });
    if (tshark.error === undefined)
      assert.equal(tshark.stdout, '61\t61\n64\t64\n64\t64\n1500\t100\n60\t60\n', tshark.stderr);
  }
});

test('what is sent is in the file after a second, also when more does not come', async (context) => {
  const file = fileName();
  const bench = await Bench.open(context, `tx_pcap=${file}`);
  await bench.start();
  bench.send(bench.mbuf(frame(1)));
  const end = Date.now() + 10_000;
  while (readCapture(readFileSync(file)).length === 0 && Date.now() < end)
    await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(readCapture(readFileSync(file)).length, 1);
});

test('more than the buffer holds; keep_time', async (context) => {
  const [from, to] = [fileName(), fileName('pcapng')];
  const times = Array.from({ length: 3000 }, (_, i) => START + BigInt(i) * 1_234_567_891n);
  writeFileSync(from, Buffer.concat([pcapHeader(), ...times.map((time, i) => pcapRecord(time, frame(i, 1000)))]));
  for (const file of [to, fileName()]) {
    const bench = await Bench.open(context, `rx_pcap=${from},tx_pcap=${file},keep_time=1`);
    await bench.start(RX_OFFLOAD.TIMESTAMP);
    const [rx, tx] = [bench.port.rxQueue(0), bench.port.txQueue(0)];
    for (let n = 1; n > 0; ) {
      n = rx.burst(bench.handles, 32);
      assert.equal(tx.burst(bench.handles, n), n);
    }
    await bench.port.stop();
    const packets = readCapture(readFileSync(file));
    assert.deepEqual(
      packets.map(({ timestampNs }) => timestampNs),
      times,
    );
    assert.deepEqual(
      packets.map(({ data }) => new DataView(data.buffer).getUint32(0)),
      times.map((_, i) => i),
    );
  }
});

test('a disk that is full ends the writing, not the port', async (context) => {
  const bench = await Bench.open(context, 'tx_pcap=/dev/full');
  await bench.start();
  for (let i = 0; i < 2000; i++) bench.send(bench.mbuf(frame(i, 1500)));
  assert.ok(bench.port.stats().oerrors > 0);
  await bench.port.stop();
  assert.deepEqual(bench.logged, ['net_pcap0: capture /dev/full: nothing more is written, ENOSPC']);
  assert.equal(bench.pool.available, bench.pool.count);
});
