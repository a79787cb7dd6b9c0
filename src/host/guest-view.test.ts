// Frames out of guest memory that cannot be mapped: whole, from wherever they lie, and nothing else.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { viewOf } from '../memory/os/libc.js';
import { MAPPING, mmap, munmap, PROTECTION } from '../memory/os/mman.js';
import type { VmbusOffer } from '../vmbus/device.js';
import {
  anonymous,
  arrived,
  attach,
  MTU,
  PAGE,
  place,
  processWorld,
  WORLDS,
  type World,
} from './guest-view-testing.js';
import { RawGuest, type RawRange, words } from './raw-guest-testing.js';

const SIZES = [60, 64, 131, 590, 1514, 4000, 4097, 8192, 9000, MTU];

/** A message's bytes as ranges, each layout in a memory of its own. */
const LAYOUTS: Record<string, (allocate: World['allocate'], bytes: Uint8Array) => RawRange[]> = {
  'one range from a page on': (allocate, bytes) => [place(allocate(4 * PAGE), 0, bytes)],
  'one range, its header across pages': (allocate, bytes) => [place(allocate(5 * PAGE), PAGE - 20, bytes)],
  'header and data apart, data before header': (allocate, bytes) => {
    const memory = allocate(5 * PAGE);
    return [place(memory, 4 * PAGE + 77, bytes.slice(0, 44)), place(memory, 4093, bytes.slice(44))];
  },
  'many ranges on many pages, some across two': (allocate, bytes) => {
    const memory = allocate(128 * PAGE);
    const ranges = [place(memory, 3, bytes.slice(0, 44))];
    for (let at = 44, n = 1; at < bytes.length; at += 101, n++) {
      ranges.push(place(memory, n * PAGE + ((n * 977) % PAGE), bytes.slice(at, at + 101)));
    }
    return ranges;
  },
};

for (const [name, create] of Object.entries(WORLDS)) {
  test(`${name}: frames of ${SIZES[0]} to ${MTU} bytes arrive whole from wherever they lie, one call a burst`, (t) => {
    const world = create(t);
    const { sender, receiver, step, allocate, host } = world;
    attach(world);
    let bytes = 0;
    for (const [turn, size] of SIZES.entries()) {
      const layouts = Object.values(LAYOUTS);
      const messages = layouts.map((_, i) => world.message(size, turn * 10 + i));
      const ids = layouts.map((layout, i) => sender.putRanges(...layout(allocate, messages[i]!)));
      step();
      for (const id of ids) assert.equal(sender.completion(id), 1, `${size} bytes`);
      arrived(receiver, messages, `${size} bytes`);
      bytes += messages.reduce((sum, { length }) => sum + length, 0);
    }
    const { copies, copiedBytes, regions, refused, copiedBecause } = host.nics[0]!.state().guestPages;
    assert.deepEqual([regions, refused, copies, copiedBytes], [0, 0, SIZES.length, bytes]);
    assert.match(copiedBecause!, name === 'memory' ? /to be copied/ : /anonymous memory/);
  });

  test(`${name}: bursts of hundreds keep their order and need few calls; the next guest starts anew`, (t) => {
    const world = create(t);
    const { sender, receiver, step, allocate, host } = world;
    const COUNT = 256;
    for (let round = 0; round < 2; round++) {
      attach(world, 1514);
      const before = host.nics[0]!.state().guestPages.copies;
      const memory = allocate(COUNT * PAGE);
      const messages = Array.from({ length: COUNT }, (_, i) => world.message(60 + i * 3, round * 1000 + i));
      // One goes through the send buffer, and keeps its place among the others.
      const ids = messages.map((bytes, i) =>
        i === 100 ? sender.putRndis(bytes, 0) : sender.putRanges(place(memory, i * PAGE + ((i * 331) % 3000), bytes)),
      );
      for (let turn = 0; turn < 4; turn++) step();
      arrived(receiver, messages, `round ${round}`, 1514);
      for (const id of ids) assert.equal(sender.completion(id), 1);
      const { copies, copiedBecause } = host.nics[0]!.state().guestPages;
      assert.ok(copies - before <= Math.ceil(COUNT / 64) + 1, `${copies - before} calls`);
      assert.ok(copiedBecause);
      for (const guest of [sender, receiver]) guest.close();
      assert.equal(host.nics[0]!.state().guestPages.copiedBecause, undefined);
      assert.ok(!world.arena.regions().some(({ name }) => name === 'copies of guest memory'));
    }
  });

  test(`${name}: a message beyond what is copied at a time fails alone`, (t) => {
    const world = create(t);
    const { sender, receiver, step, allocate, host } = world;
    attach(world);
    const memory = allocate(160 * PAGE);
    const good = world.message(1000, 1);
    const large = new Uint8Array(600 << 10);
    large.set(world.message(1000, 2));
    const ids = [
      sender.putRanges(place(memory, 155 * PAGE, good)),
      sender.putRanges(place(memory, 0, large)),
      sender.putRanges(place(memory, 155 * PAGE, good)),
    ];
    step();
    assert.deepEqual(
      ids.map((id) => sender.completion(id)),
      [1, 2, 1],
    );
    arrived(receiver, [good, good]);
    const { refused, lastRefusal } = host.nics[0]!.state().guestPages;
    assert.equal(refused, 1);
    assert.match(lastRefusal!, /the message cannot be copied: it changes, or has over 524288 bytes or 1024 pages$/);
    assert.equal(host.nics[0]!.state().lastFrameError, 'PAGE_MISSING');
  });
}

test('process: mapped and copied pages in one message', (t) => {
  const world = processWorld(t);
  const { sender, receiver, step, host } = world;
  attach(world);
  const bytes = world.message(5000, 3);
  const { memory } = sender.pair.device;
  const address = memory.allocate('sealed', 2 * PAGE);
  const mapped = { buffer: Buffer.from(sender.arena.buffer, address, 2 * PAGE), pfn: memory.pfn(address) };
  const copied = anonymous(t, 4 * PAGE);
  for (let turn = 0; turn < 3; turn++) {
    const id = sender.putRanges(
      place(mapped, 100, bytes.slice(0, 44)),
      place(copied, 50, bytes.slice(44, 300)),
      place(mapped, 4000, bytes.slice(300, 400)),
      place(copied, 4090, bytes.slice(400)),
    );
    step();
    assert.equal(sender.completion(id), 1);
    arrived(receiver, [bytes]);
  }
  const { regions, copiedBytes } = host.nics[0]!.state().guestPages;
  assert.deepEqual([regions, copiedBytes], [1, 3 * (bytes.length - 144)]);
  memory.release(address);
});

const WRONG: [string, (t: TestContext) => bigint, RegExp][] = [
  ['page 0', () => 0n, /^page 0 of process \d+: not mapped; nothing readable is there/],
  ['the kernel', () => 0xffff_ffff_8100_0n, /: not mapped; nothing readable/],
  ['the end of all addresses', () => (1n << 52n) - 1n, /: not mapped; nothing readable/],
  ['an address that wraps', () => 1n << 52n, /^page 10000000000000 of/],
  ['a number that no address has', () => (1n << 64n) - 1n, /^page ffffffffffffffff of/],
  ['no right to read', (t) => anonymous(t, PAGE, PROTECTION.NONE).pfn, /: anonymous memory; nothing readable/],
  [
    'unmapped when the host reads',
    () => {
      const address = mmap(0, PAGE, PROTECTION.READ, MAPPING.PRIVATE | MAPPING.ANONYMOUS, -1, 0);
      munmap(address, PAGE);
      return BigInt(address / PAGE);
    },
    /nothing readable is there/,
  ],
];

for (const [name, make, reason] of WRONG) {
  test(`process: ${name}: the message fails, those around it and the other NIC do not`, (t) => {
    const world = processWorld(t);
    const { sender, receiver, step, host } = world;
    attach(world);
    const memory = anonymous(t, 4 * PAGE);
    const [one, two] = [world.message(700, 1), world.message(1500, 2)];
    const pfn = make(t);
    for (let turn = 1; turn <= 3; turn++) {
      const ids = [
        sender.putRanges(place(memory, 0, one)),
        sender.putRanges(place(memory, 0, one.slice(0, 44)), { offset: 0, bytes: one.length - 44, pfns: [pfn] }),
        sender.putRanges({ offset: 4000, bytes: 2000, pfns: [pfn, memory.pfn] }),
        sender.putRanges(place(memory, PAGE, two)),
      ];
      step();
      assert.deepEqual(
        ids.map((id) => sender.completion(id)),
        [1, 2, 2, 1],
      );
      arrived(receiver, [one, two]);
      const { refused, lastRefusal } = host.nics[0]!.state().guestPages;
      assert.equal(refused, 2 * turn);
      assert.match(lastRefusal!, reason);
      assert.match(lastRefusal!, /numbered by virtual address/);
    }
    assert.deepEqual([host.nics[0]!.phase, host.nics[0]!.state().deaths], ['ready', 0]);
    assert.equal(receiver.query(0x00010106).status, 0);
  });
}

test('memory that goes between two messages: what was there before is not read again', (t) => {
  const world = processWorld(t);
  const { sender, receiver, step, host } = world;
  attach(world);
  const bytes = world.message(3000, 4);
  const address = mmap(0, PAGE, PROTECTION.READ | PROTECTION.WRITE, MAPPING.PRIVATE | MAPPING.ANONYMOUS, -1, 0);
  const memory = { buffer: Buffer.from(viewOf(address, PAGE)), pfn: BigInt(address / PAGE) };
  const range = place(memory, 10, bytes);
  const first = sender.putRanges(range);
  step();
  assert.equal(sender.completion(first), 1);
  arrived(receiver, [bytes]);
  const second = sender.putRanges(range);
  munmap(address, PAGE);
  step();
  assert.equal(sender.completion(second), 2);
  arrived(receiver, []);
  assert.equal(host.nics[0]!.state().guestPages.refused, 1);
});

test('a host that may not read, or has no room, says so; frames in the send buffer go on', (t) => {
  const reason = 'memory of process 7: this host may not read it (EPERM)';
  const offer = (real: VmbusOffer): VmbusOffer =>
    Object.create(real, { copyGuest: { value: () => -1 }, lastRefusal: { get: () => reason } });
  const world = WORLDS.memory(t, { offer });
  const { sender, receiver, step, host, arena, allocate } = world;
  attach(world);
  const bytes = world.message(600, 5);
  const range = place(allocate(PAGE), 0, bytes);
  const ids = [sender.putRanges(range), sender.putRanges(range), sender.putRndis(bytes, 0)];
  step();
  assert.deepEqual(
    ids.map((id) => sender.completion(id)),
    [2, 2, 1],
  );
  arrived(receiver, [bytes]);
  const { refused, lastRefusal, copiedBytes } = host.nics[0]!.state().guestPages;
  assert.deepEqual([refused, lastRefusal, copiedBytes], [2, reason, 0]);
  for (const guest of [sender, receiver]) guest.close();

  attach(world);
  const filled: number[] = [];
  while (arena.free().largest >= 4096) filled.push(arena.reserve('filled', arena.free().largest));
  const id = sender.putRanges(range);
  step();
  assert.equal(sender.completion(id), 2);
  assert.match(host.nics[0]!.state().guestPages.lastRefusal!, /: the arena is full$/);
  for (const address of filled) arena.release(address);
});

test('on a subchannel, too', (t) => {
  const world = WORLDS.memory(t);
  const { sender, receiver, step, host, allocate } = world;
  attach(world);
  assert.ok(sender.nvsp(words(133, 1, 1, 0, 0, 0, 0, 0, 0, 0)));
  sender.take();
  const { transmit, receive: ring } = sender.pair.device.openSubchannel()!;
  const channel = new RawGuest(world.arena, sender.pair, step);
  channel.opened = { ...sender.opened, transmit, receive: ring };
  const messages = [1, 2, 3].map((seed) => world.message(1400, seed));
  const ids = messages.map((bytes) => channel.putRanges(place(allocate(PAGE), 99, bytes)));
  const other = sender.putRanges(place(allocate(PAGE), 1, messages[0]!));
  const wrong = channel.putRanges({ offset: 0, bytes: 60, pfns: [5n] });
  step();
  for (const id of ids) assert.equal(channel.completion(id), 1);
  assert.deepEqual([sender.completion(other), channel.completion(wrong)], [1, 2]);
  arrived(receiver, [messages[0]!, ...messages]);
  assert.equal(host.nics[0]!.state().guestPages.refused, 1);
});
