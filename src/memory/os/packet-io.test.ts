import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { Arena } from '../arena.js';
import { readTo, writeFrom } from './libc.js';
import { linuxSystem } from './mman.js';
import { inNetwork } from './netns.js';
import { type PacketRing, TapIo, type TapMode } from './packet-io.js';
import { POLL, PollSet } from './poll.js';
import { openTap, setTapOffload, TAP_HEADER_BYTES, TAP_OFFLOAD, TAP_PACKET_MAX } from './tap.js';
import {
  closeTestTap,
  noTapReason,
  openTestTap,
  receiveFrames,
  sendFrame,
  setInterfaceUp,
  setMtu,
  type TestTap,
} from './tap-testing.js';
import { URING_OP, Uring } from './uring.js';

const TYPE = 0x88b5; // local experimental: the kernel's own packets (IPv6) have others
const ROOM = 4096;
const COUNT = 50;
const LIVE_COUNT = 3000;
const skip = noTapReason();

function noUringReason(): string | false {
  try {
    new Uring(1).close();
    return false;
  } catch (error) {
    return `needs io_uring: ${(error as Error).message}`;
  }
}
const noIpReason = () => spawnSync('ip', ['-V']).error !== undefined && 'needs the ip command';
const modes: [TapMode, string | false][] = [
  ['uring', skip || noUringReason()],
  ['readwrite', skip],
];

const reasonOf = (mode: TapMode) => modes.find(([name]) => name === mode)![1];

/** Frame number `n`: the number and a pattern, of a length that depends on it. */
function frame(n: number): Uint8Array {
  const bytes = new Uint8Array(60 + ((n * 37) % 1400)).map((_, i) => (i * 7 + n) & 0xff);
  bytes.set([0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, TYPE >> 8, TYPE & 0xff, n >> 8, n & 0xff]);
  return bytes;
}

interface Rig {
  tap: TestTap;
  arena: Arena;
  io: TapIo;
  addresses: Int32Array;
  capacities: Int32Array;
}

function withRig(mode: TapMode, batch: number, work: (rig: Rig) => void, ring?: PacketRing): void {
  const tap = openTestTap();
  try {
    const arena = Arena.create({ bytes: 4 << 20, system: linuxSystem });
    const io = new TapIo(arena, tap.fd, ring ? { batch, ring } : { mode, batch });
    try {
      const base = arena.reserve('packets', 64 * ROOM);
      // Not in ascending order, so that a read into a wrong buffer shows.
      const addresses = Int32Array.from({ length: 64 }, (_, i) => base + ((i * 29) % 64) * ROOM);
      work({ tap, arena, io, addresses, capacities: new Int32Array(64).fill(ROOM) });
    } finally {
      io.close();
    }
  } finally {
    closeTestTap(tap);
  }
}

/** Reads until nothing is left; the packets of our type, without their headers. */
function readAll({ io, arena, addresses, capacities }: Rig, max: number): Uint8Array[] {
  const packets: Uint8Array[] = [];
  for (;;) {
    const count = io.read(addresses, capacities, max);
    if (count === 0) return packets;
    for (let i = 0; i < count; i++) {
      const bytes = arena.u8.slice(addresses[i]! + TAP_HEADER_BYTES, addresses[i]! + io.lengths[i]!);
      if (((bytes[12]! << 8) | bytes[13]!) === TYPE) packets.push(bytes);
    }
  }
}

for (const [mode, reason] of modes) {
  test(`${mode}: reads every packet of the kernel, in order`, { skip: reason }, () => {
    for (const [batch, max] of [
      [32, 32],
      [1, 5],
      [7, 64],
    ] as const) {
      withRig(mode, batch, (rig) => {
        assert.equal(rig.io.mode, mode);
        for (let n = 0; n < COUNT; n++) sendFrame(rig.tap, frame(n));
        assert.deepEqual(
          readAll(rig, max),
          Array.from({ length: COUNT }, (_, n) => frame(n)),
        );
        sendFrame(rig.tap, frame(COUNT));
        assert.deepEqual(readAll(rig, max), [frame(COUNT)]);
        assert.equal(rig.io.lastError, 0);
      });
    }
  });

  test(`${mode}: writes every packet in order; a refused one costs only itself`, { skip: reason }, () => {
    withRig(mode, 8, (rig) => {
      const { arena, addresses, io, tap } = rig;
      const lengths = new Int32Array(64);
      for (let n = 0; n < COUNT; n++) {
        const bytes = frame(n);
        arena.u8.fill(0, addresses[n], addresses[n]! + TAP_HEADER_BYTES);
        arena.u8.set(bytes, addresses[n]! + TAP_HEADER_BYTES);
        lengths[n] = TAP_HEADER_BYTES + bytes.length;
      }
      const bad = [0, 7, 8, 20, COUNT - 1];
      for (const n of bad) lengths[n] = TAP_HEADER_BYTES - 1; // no room for the header: EINVAL
      assert.equal(io.write(addresses, lengths, COUNT), COUNT);
      assert.equal(io.writeErrors, bad.length);
      assert.equal(io.lastError, 22);
      const expected = Array.from({ length: COUNT }, (_, n) => frame(n)).filter((_, n) => !bad.includes(n));
      assert.deepEqual(receiveFrames(tap, TYPE), expected);
    });
  });

  test(`${mode}: the longest packets go through whole`, { skip: reason }, () => {
    withRig(mode, 4, ({ arena, io, tap }) => {
      setMtu(tap, 65_521);
      const long = Uint8Array.from({ length: 65_535 }, (_, i) => (i * 13) >> 3);
      long.set(frame(1).subarray(0, 14));
      const at = arena.reserve('long packets', 2 * (TAP_PACKET_MAX + 2));
      const addresses = Int32Array.of(at + 1, at + TAP_PACKET_MAX + 2); // at odd addresses, too
      for (let i = 0; i < 2; i++) sendFrame(tap, long);
      assert.equal(io.read(addresses, new Int32Array(2).fill(TAP_PACKET_MAX), 2), 2);
      for (let i = 0; i < 2; i++) {
        assert.equal(io.lengths[i], TAP_HEADER_BYTES + long.length);
        const start = addresses[i]! + TAP_HEADER_BYTES;
        assert.ok(Buffer.from(long).equals(arena.u8.subarray(start, start + long.length)));
      }
      receiveFrames(tap, TYPE); // its own, outgoing
      assert.equal(io.write(addresses, io.lengths, 2), 2);
      assert.equal(io.writeErrors, 0);
      const received = receiveFrames(tap, TYPE);
      assert.equal(received.length, 2);
      for (const packet of received) assert.ok(Buffer.from(packet).equals(long));
    });
  });

  test(`${mode}: packets that come in while reading stay in order, none is lost`, { skip: reason }, async () => {
    const tap = openTestTap();
    const cells = new Int32Array(new SharedArrayBuffer(8)); // sent, received
    const workerData = { tap, cells, count: LIVE_COUNT, type: TYPE, window: 200 };
    const sender = new Worker(new URL('./tap-sender-testing.js', import.meta.url), { workerData });
    const ended = once(sender, 'exit');
    try {
      const arena = Arena.create({ bytes: 4 << 20, system: linuxSystem });
      const base = arena.reserve('packets', 32 * 256);
      const addresses = Int32Array.from({ length: 32 }, (_, i) => base + i * 256);
      const io = new TapIo(arena, tap.fd, { mode });
      const polls = new PollSet();
      polls.add(tap.fd);
      let next = 0;
      while (next < LIVE_COUNT && polls.wait(5000) > 0) {
        const count = io.read(addresses, new Int32Array(32).fill(256), 32);
        for (let i = 0; i < count; i++) {
          const at = addresses[i]! + TAP_HEADER_BYTES;
          if (((arena.u8[at + 12]! << 8) | arena.u8[at + 13]!) !== TYPE) continue;
          assert.equal((arena.u8[at + 14]! << 8) | arena.u8[at + 15]!, next++);
        }
        Atomics.store(cells, 1, next);
        Atomics.notify(cells, 1);
      }
      polls.close();
      io.close();
      assert.equal(next, LIVE_COUNT);
      assert.equal(io.readErrors, 0);
    } finally {
      await sender.terminate();
      await ended;
      closeTestTap(tap);
    }
  });

  test(`${mode}: an interface that is gone gives no packets`, { skip: reason || noIpReason() }, () => {
    withRig(mode, 8, (rig) => {
      inNetwork(`/proc/self/fd/${rig.tap.network}`, () => spawnSync('ip', ['link', 'delete', rig.tap.name]));
      assert.equal(rig.io.read(rig.addresses, rig.capacities, 8), 0);
      assert.equal(rig.io.lastError, 77); // EBADFD
      assert.equal(rig.io.write(rig.addresses, new Int32Array(64).fill(100), 2), 2);
      assert.equal(rig.io.writeErrors, 2);
    });
  });

  test(`${mode}: an interface that is down gives no packets and no crash`, { skip: reason }, () => {
    withRig(mode, 8, (rig) => {
      const { addresses, capacities, io, tap } = rig;
      setInterfaceUp(tap, false);
      readAll(rig, 8); // what the kernel sent itself before
      receiveFrames(tap, TYPE); // the socket reports once that its interface went down
      assert.equal(io.read(addresses, capacities, 8), 0);
      const lengths = new Int32Array(64).fill(100);
      assert.equal(io.write(addresses, lengths, 3), 3);
      assert.equal(io.writeErrors, 3);
      assert.equal(io.lastError, 5); // EIO
      setInterfaceUp(tap, true);
      sendFrame(tap, frame(3));
      assert.deepEqual(readAll(rig, 8), [frame(3)]);
    });
  });
}

test('io_uring and read/write cut off a packet at the same place', { skip: skip || noUringReason() }, () => {
  const lengths = modes.map(([mode]) => {
    let length = 0;
    withRig(mode, 4, (rig) => {
      readAll(rig, 4);
      rig.capacities.fill(200);
      sendFrame(rig.tap, frame(20));
      assert.equal(rig.io.read(rig.addresses, rig.capacities, 4), 1);
      length = rig.io.lengths[0]!;
    });
    return length;
  });
  assert.deepEqual(lengths, [200, 200]);
});

/** A ring that finds nothing (or no room) where `again` says so, and otherwise reads and writes one after the other. */
class GappyRing implements PacketRing {
  readonly entries = 8;
  readonly results = new Int32Array(8);
  readonly #prepared: (() => number)[] = [];
  again: boolean[] = [];
  prepare(index: number, operation: number, fd: number, address: number, bytes: number): void {
    const run = operation === URING_OP.READ ? readTo : writeFrom;
    this.#prepared[index] = () => run(fd, address, bytes);
  }
  submit(count: number): void {
    for (let i = 0; i < count; i++) this.results[i] = this.again.shift() ? -11 : this.#prepared[i]!();
  }
}

test('packets behind a read that found nothing move up; what does not fit there is counted', { skip }, () => {
  const ring = new GappyRing();
  withRig(
    'uring',
    8,
    (rig) => {
      for (let n = 0; n < 9; n++) sendFrame(rig.tap, frame(n));
      // One, two, then four reads: the gaps are the first of the two and the second of the four.
      ring.again = [false, false, false, true];
      rig.capacities[3] = TAP_HEADER_BYTES + frame(4).length;
      assert.deepEqual(readAll(rig, 8), [0, 1, 2, 3, 4, 5, 6, 7, 8].map(frame));
      for (let n = 0; n < 6; n++) sendFrame(rig.tap, frame(n));
      ring.again = [false, true];
      rig.capacities[1] = 100; // too small for any but the first
      const expected = readAll(rig, 8);
      assert.ok(expected.length < 6);
      assert.equal(rig.io.readErrors + expected.length, 6);
    },
    ring,
  );
});

test('a full queue stops writing; a packet that others overtook is lost and counted', { skip }, () => {
  const ring = new GappyRing();
  withRig(
    'uring',
    8,
    ({ arena, addresses, io, tap }) => {
      const lengths = new Int32Array(64);
      for (let n = 0; n < 20; n++) {
        arena.u8.set(frame(n), addresses[n]! + TAP_HEADER_BYTES);
        lengths[n] = TAP_HEADER_BYTES + frame(n).length;
      }
      // The second of the first batch was overtaken; of the second batch only three fit.
      ring.again = [false, true, ...Array(6).fill(false), ...Array(3).fill(false), ...Array(5).fill(true)];
      assert.equal(io.write(addresses, lengths, 20), 11);
      assert.equal(io.writeErrors, 1);
      assert.equal(io.lastError, 0);
      assert.deepEqual(receiveFrames(tap, TYPE), [0, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(frame));
    },
    ring,
  );
});

test('a reader sleeps in poll(2) until a packet comes', { skip }, () => {
  withRig('readwrite', 8, (rig) => {
    const polls = new PollSet(1);
    try {
      polls.add(rig.tap.fd);
      readAll(rig, 8);
      sendFrame(rig.tap, frame(1));
      assert.equal(polls.wait(5000), 1);
      assert.equal(polls.revents(rig.tap.fd), POLL.IN);
      assert.deepEqual(readAll(rig, 8), [frame(1)]);
    } finally {
      polls.close();
    }
  });
});

for (const [mode, reason] of modes) {
  test(`${mode}: packets cost no heap`, { skip: reason }, () => {
    const heap = () => process.memoryUsage().heapUsed;
    withRig(mode, 32, ({ addresses, arena, capacities, io, tap }) => {
      const lengths = new Int32Array(64).fill(TAP_HEADER_BYTES + 64);
      const bytes = frame(0).slice(0, 64);
      for (let i = 0; i < 32; i++) arena.u8.set(bytes, addresses[i]! + TAP_HEADER_BYTES);
      let least = Number.POSITIVE_INFINITY;
      for (let round = 0; round < 2000; round++) {
        for (let i = 0; i < 32; i++) sendFrame(tap, bytes);
        const before = heap();
        assert.equal(io.read(addresses, capacities, 32), 32);
        assert.equal(io.write(addresses, lengths, 32), 32);
        const used = heap() - before;
        // The first rounds are interpreted; a negative one had a garbage collection.
        if (round > 1000 && used >= 0) least = Math.min(least, used);
      }
      assert.ok(least < 64 * 4, `${least} bytes for 64 packets`);
    });
  });
}

for (const [mode, reason] of modes) {
  test(`${mode}: packets in pieces go out whole, in order with the others`, { skip: reason }, () => {
    withRig(mode, 8, ({ arena, addresses, io, tap }) => {
      const count = 20;
      const lengths = new Int32Array(count);
      const pieces = new Int32Array(count);
      const at = new Int32Array(count);
      const vectors = arena.reserve('vectors', count * ROOM);
      const views = new DataView(arena.u8.buffer);
      for (let n = 0; n < count; n++) {
        const bytes = new Uint8Array(TAP_HEADER_BYTES + frame(n).length);
        bytes.set(frame(n), TAP_HEADER_BYTES);
        arena.u8.set(bytes, addresses[n]!);
        lengths[n] = bytes.length;
        pieces[n] = (n * 7) % 5 === 0 ? 1 : 2 + ((n * 7) % 5);
        at[n] = addresses[n]!;
        if (pieces[n] === 1) continue;
        // All but the last one have a few bytes.
        at[n] = vectors + n * ROOM;
        for (let piece = 0, from = 0; piece < pieces[n]!; piece++) {
          const part = piece === pieces[n]! - 1 ? bytes.length - from : 5 + piece;
          views.setBigUint64(at[n]! + piece * 16, arena.baseAddress() + BigInt(addresses[n]! + from), true);
          views.setBigUint64(at[n]! + piece * 16 + 8, BigInt(part), true);
          from += part;
        }
      }
      assert.equal(io.write(at, lengths, count, pieces), count);
      assert.equal(io.writeErrors, 0);
      assert.deepEqual(
        receiveFrames(tap, TYPE),
        Array.from({ length: count }, (_, n) => frame(n)),
      );
    });
  });
}

test('a ring without RWF_NOWAIT: the rest, in pieces or not, goes out by writev(2)', {
  skip: reasonOf('uring'),
}, () => {
  const real = new Uring(8);
  const ring: PacketRing = {
    entries: real.entries,
    results: real.results,
    prepare: (index, operation, fd, address, bytes, flags) => real.prepare(index, operation, fd, address, bytes, flags),
    submit: (count) => void real.results.fill(-95, 0, count), // EOPNOTSUPP
  };
  try {
    withRig(
      'uring',
      8,
      ({ arena, addresses, io, tap }) => {
        const bytes = new Uint8Array(TAP_HEADER_BYTES + frame(3).length);
        bytes.set(frame(3), TAP_HEADER_BYTES);
        for (const address of [addresses[0]!, addresses[1]!]) arena.u8.set(bytes, address);
        const vectors = arena.reserve('vectors', 64);
        const views = new DataView(arena.u8.buffer);
        for (const [i, [from, part]] of [
          [0, 20],
          [20, bytes.length - 20],
        ].entries()) {
          views.setBigUint64(vectors + i * 16, arena.baseAddress() + BigInt(addresses[1]! + from!), true);
          views.setBigUint64(vectors + i * 16 + 8, BigInt(part!), true);
        }
        const lengths = new Int32Array(2).fill(bytes.length);
        assert.equal(io.write(Int32Array.of(addresses[0]!, vectors), lengths, 2, Int32Array.of(1, 2)), 2);
        assert.equal(io.mode, 'readwrite');
        assert.deepEqual(receiveFrames(tap, TYPE), [frame(3), frame(3)]);
      },
      ring,
    );
  } finally {
    real.close();
  }
});

test('offloads are set at any time', { skip }, () => {
  const tap = openTestTap();
  try {
    const all = TAP_OFFLOAD.CSUM | TAP_OFFLOAD.TSO4 | TAP_OFFLOAD.TSO6 | TAP_OFFLOAD.USO4 | TAP_OFFLOAD.USO6;
    assert.equal(setTapOffload(tap.fd, all) & 7, 7);
    assert.equal(setTapOffload(tap.fd, 0), 0);
    assert.throws(() => setTapOffload(tap.fd, 0x8000), { name: 'OsError', code: 'EINVAL' });
  } finally {
    closeTestTap(tap);
  }
});

test('several queues are one interface when they say so; names are checked', { skip }, () => {
  for (const name of ['a name', 'abcdefghijklmnop', 'a/b', '..']) assert.throws(() => openTap(name), /TAP name/);
  for (const multiQueue of [true, false]) {
    const tap = openTestTap({ multiQueue });
    const again = () => inNetwork(`/proc/self/fd/${tap.network}`, () => openTap(tap.name, { multiQueue }));
    try {
      if (multiQueue) {
        const second = again();
        closeSync(second.fd);
        assert.equal(second.name, tap.name);
      } else assert.throws(again, { code: 'EBUSY', message: /test0/ });
    } finally {
      closeTestTap(tap);
    }
  }
});

test('a ring takes more operations than it has entries, batch after batch', { skip: noUringReason() }, () => {
  const ring = new Uring(4);
  try {
    for (let round = 0; round < 100; round++) {
      for (let i = 0; i < 3; i++) ring.prepare(i, 99, -1, 0, 0, 0);
      ring.results.fill(1);
      ring.submit(3);
      assert.deepEqual([...ring.results.subarray(0, 3)], [-22, -22, -22]);
    }
  } finally {
    ring.close();
  }
  ring.close();
});
