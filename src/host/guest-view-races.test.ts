// Guests that change what they sent while the host copies it. The change happens in the very moment: when the host has looked
// through the ring, and before it reads the packets.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { arrived, attach, type Memory, MTU, PAGE, place, WORLDS, type World } from './guest-view-testing.js';
import { receive } from './raw-frames-testing.js';

/** A world in which `act` is called once the host has noted what to copy. */
function racing(t: TestContext): World & { act: () => void } {
  const hook = { act: () => {} };
  const world = WORLDS.memory(t, {
    datapath: (real) => ({
      ...real,
      hostStage(channel, staging, max) {
        const pages = real.hostStage(channel, staging, max);
        hook.act();
        return pages;
      },
    }),
  });
  return Object.assign(hook, world);
}

/** Index in the arena's u64 view of the first page number of the message that the guest writes next, of one range. */
function nextPageNumber({ sender, arena }: World): number {
  const { control, dataBytes } = sender.opened.transmit;
  // Behind the descriptor, the number of ranges, and the range's own head.
  return (control + PAGE + ((arena.u32[control >>> 2]! + 32) % dataBytes)) >>> 3;
}

const statuses = (world: World, ids: readonly bigint[]) => ids.map((id) => world.sender.completion(id));

test('another page in place of the one that was copied: the message is read anew, or fails', (t) => {
  const world = racing(t);
  const { sender, receiver, step, allocate, host } = world;
  attach(world);
  const messages = [1, 2, 3].map((seed) => world.message(900, seed));
  const places = messages.map((bytes) => {
    const memory = allocate(PAGE);
    return { memory, range: place(memory, 64, bytes) };
  });
  const instead = allocate(PAGE);
  const other = world.message(900, 77);
  place(instead, 64, other);
  for (const [victim, expected, delivered] of [
    // The first one was looked at in vain; a later one gets its turn again.
    [0, [2, 1, 1], [messages[1]!, messages[2]!]],
    [1, [1, 1, 1], [messages[0]!, other, messages[2]!]],
    [2, [1, 1, 1], [messages[0]!, messages[1]!, other]],
  ] as const) {
    // So that the host looks ahead by now.
    const before = sender.putRanges(places[0]!.range);
    step();
    assert.equal(sender.completion(before), 1);
    receive(receiver, MTU);
    const ids: bigint[] = [];
    let at = 0;
    for (const [i, { range }] of places.entries()) {
      if (i === victim) at = nextPageNumber(world);
      ids.push(sender.putRanges(range));
    }
    assert.equal(world.arena.u64[at], places[victim]!.memory.pfn);
    let changed = false;
    world.act = () => {
      if (!changed) world.arena.u64[at] = instead.pfn;
      changed = true;
    };
    step();
    assert.ok(changed);
    assert.deepEqual(statuses(world, ids), expected, `message ${victim}`);
    arrived(receiver, delivered, `message ${victim}`);
    world.act = () => {};
  }
  assert.equal(host.nics[0]!.state().guestPages.refused, 1);
  assert.equal(host.nics[0]!.phase, 'ready');
});

test('a range that grows when it was copied already: it is copied again', (t) => {
  const world = racing(t);
  const { sender, receiver, step, allocate, arena } = world;
  attach(world);
  const memory = allocate(3 * PAGE);
  const messages = [1, 2, 3].map((seed) => world.message(1500, seed));
  const ranges = messages.map((bytes, i) => place(memory, i * PAGE, bytes));
  const ids: bigint[] = [];
  let at = 0;
  for (const [i, range] of ranges.entries()) {
    if (i === 1) at = 2 * nextPageNumber(world) - 2;
    ids.push(sender.putRanges(i === 1 ? { ...range, bytes: 200 } : range));
  }
  assert.equal(arena.u32[at], 200);
  world.act = () => {
    arena.u32[at] = messages[1]!.length;
  };
  step();
  assert.deepEqual(statuses(world, ids), [1, 1, 1]);
  arrived(receiver, messages);
});

/** Bytes of a burst before, which must not turn up in the frames of a later one. */
const SECRET = 0xa7;

test('any word of the ring changed between looking and reading: the host lives, and no old copy comes out', (t) => {
  const world = racing(t);
  const { sender, receiver, step, allocate, host, arena } = world;
  let random = 12345;
  const next = (bound: number) => {
    random = (Math.imul(random, 1103515245) + 12345) >>> 0;
    return (random >>> 8) % bound;
  };
  attach(world, 1514);
  const secret = allocate(2 * PAGE);
  const memory: Memory[] = Array.from({ length: 4 }, () => allocate(2 * PAGE));
  let deaths = 0;
  let delivered = 0;
  for (let round = 0; round < 600; round++) {
    const { control, dataBytes } = sender.opened.transmit;
    const hidden = world.message(1514, 0);
    hidden.fill(SECRET, 44 + 14);
    const warm = Array.from({ length: 8 }, (_, i) => sender.putRanges(place(secret, i * 100, hidden)));
    step();
    assert.deepEqual(statuses(world, warm), Array(8).fill(1));
    receive(receiver, 1514);

    const from = arena.u32[control >>> 2]!;
    for (let i = 0; i < 6; i++) {
      const bytes = world.message(60 + next(1400), 1 + next(6));
      const where = memory[next(4)]!;
      if (next(2)) sender.putRanges(place(where, next(5000), bytes));
      else
        sender.putRanges(place(where, next(900), bytes.slice(0, 44)), place(where, PAGE + next(1000), bytes.slice(44)));
    }
    const words = ((arena.u32[control >>> 2]! - from + dataBytes) % dataBytes) >>> 2;
    let changes = 1 + next(3);
    world.act = () => {
      if (changes-- <= 0) return;
      const at = (control + PAGE + ((from + 4 * next(words)) % dataBytes)) >>> 2;
      const old = arena.u32[at]!;
      const values = [
        0,
        8,
        old ^ 1,
        old ^ (1 << next(32)),
        old + 8,
        0xffffffff,
        Number(secret.pfn),
        Number(memory[0]!.pfn),
      ];
      // The secret's own page may be named: then its bytes are read anew, out of the guest.
      arena.u32[at] = values[next(6)]!;
    };
    step();
    world.act = () => {};
    for (const { data } of receive(receiver, 1514)) {
      delivered++;
      const at = data.findIndex(
        (byte, i) => i > 14 && byte === SECRET && data[i + 1] === SECRET && data[i + 2] === SECRET,
      );
      assert.equal(at, -1, `round ${round}: bytes of an earlier burst`);
    }
    const { phase, reason } = host.nics[0]!.state();
    assert.ok(!reason?.includes('internal error'), reason);
    if (phase !== 'ready') {
      deaths++;
      sender.close();
      sender.attach(0x60001, { mtu: 1514 });
    } else sender.all();
    assert.equal(host.nics[1]!.phase, 'ready');
  }
  assert.ok(deaths > 20 && deaths < 580 && delivered > 500, `${deaths} deaths, ${delivered} frames`);
  const { copies, refused } = host.nics[0]!.state().guestPages;
  assert.ok(copies > 600 && refused > 0, `${copies} copies, ${refused} refused`);
});
