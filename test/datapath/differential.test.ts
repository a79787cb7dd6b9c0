// Random traffic on the compiled burst loops and on the plain model: after every step they agree byte for byte.
// NETVSC_LONG=1 runs a hundred times as many; a failure prints the seed for NETVSC_SEED.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { OFFLOAD } from '../../src/memory/layout.js';
import { incoming, outgoing, shape } from './traffic.js';
import { type Poke, World, type WorldOptions } from './world.js';

const long = process.env.NETVSC_LONG === '1';
// The same runs every time, unless they are to be many: then new ones.
const wanted = process.env.NETVSC_SEED ?? (process.env.NETVSC_LONG === undefined ? '1' : undefined);
const seed = wanted === undefined ? {} : { seed: Number(wanted) };
const payload = fc.uint8Array({ maxLength: 300 });
const side = fc.boolean();

type Step = (world: World) => void;
const step = <T>(arbitrary: fc.Arbitrary<T>, run: (world: World, value: T) => void) =>
  arbitrary.map((value): { run: Step; [fc.toStringMethod]: () => string } => ({
    run: (world) => run(world, value),
    [fc.toStringMethod]: () => `${run.toString().slice(0, 60)} ${fc.stringify(value)}`,
  }));

const burst = fc.oneof(
  { weight: 3, arbitrary: fc.array(shape, { minLength: 1, maxLength: 8 }) },
  { weight: 1, arbitrary: fc.array(shape, { minLength: 9, maxLength: 40 }) },
);
let forwarding = true;
const hostRound = fc.record({ max: fc.integer({ min: 0, max: 40 }), forward: side, complete: side });
const message = fc.tuple(side, fc.constantFrom(0, 1), payload);

const steps = fc.oneof(
  { weight: 6, arbitrary: step(burst, (world, list) => world.send(list.map(outgoing))) },
  {
    weight: 6,
    arbitrary: step(hostRound, (world, { max, forward, complete }) =>
      world.hostPoll(max, forward && forwarding, complete),
    ),
  },
  { weight: 6, arbitrary: step(fc.integer({ min: 0, max: 40 }), (world, max) => world.guestPoll(max)) },
  {
    weight: 3,
    arbitrary: step(fc.tuple(burst, fc.integer({ min: 100, max: 3000 })), (world, [list, piece]) =>
      world.inject(list.map(incoming), piece),
    ),
  },
  { weight: 3, arbitrary: step(fc.integer({ min: 1, max: 60 }), (world, count) => world.freeHeld(count)) },
  { weight: 1, arbitrary: step(fc.constant(0), (world) => world.hostComplete()) },
  { weight: 1, arbitrary: step(fc.constant(0), (world) => world.flush()) },
  {
    weight: 1,
    arbitrary: step(fc.uint8Array({ minLength: 8, maxLength: 1500 }), (world, bytes) => {
      new DataView(bytes.buffer, bytes.byteOffset).setUint32(4, bytes.length, true);
      bytes[0] = 7;
      world.control(bytes);
    }),
  },
  {
    weight: 1,
    arbitrary: step(message, (world, [host, flags, bytes]) => world.ringSend(host, 6, flags, 77, 0x4e540002, bytes)),
  },
  {
    weight: 1,
    arbitrary: step(message, (world, [host, , bytes]) => world.ringSend(host, 11, 0, 5, 0x4e540002, bytes)),
  },
  { weight: 2, arbitrary: step(side, (world, host) => world.drain(host)) },
  { weight: 1, arbitrary: step(fc.tuple(side, side), (world, [host, on]) => world.mask(host, on)) },
  { weight: 1, arbitrary: step(side, (world, host) => world.takeSignal(host)) },
);

/** Numbers that a careless check lets through, sizes and types that occur. */
const odd = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 64 }) },
  fc.constantFrom(
    107,
    108,
    0x80000001,
    0xffffffff,
    0xfffffff8,
    0x7fffffff,
    0x80000000,
    256,
    248,
    300,
    1514,
    4096,
    6144,
  ),
  fc.constantFrom(0x20006, 0x40007, 0x30007, 0x50009, 0x2000b, 0x10006, 0x10005, 0x20004, 0x1000a, 0x4e540001, 0xcafe),
  fc.integer({ min: 0, max: 0xffffffff }),
);
const poke = fc.record({
  where: fc.constantFrom('guestRing', 'hostRing', 'receive', 'receive', 'control', 'send', 'send', 'headroom'),
  index: fc.integer({ min: 0, max: 5 }),
  word: fc.integer({ min: 0, max: 30 }),
  value: odd,
}) satisfies fc.Arbitrary<Poke>;
const lie = fc.record({
  where: fc.constant('in' as const),
  index: fc.integer({ min: 0, max: 1 }),
  word: fc.constant(0),
  value: odd,
});
const pokes = fc.array(poke, { minLength: 1, maxLength: 4 });
/** The same without forwarding: the model knows only well-formed packets' checksums. */
const hostileSteps = fc.oneof(
  { weight: 8, arbitrary: steps },
  { weight: 6, arbitrary: step(pokes, (world, list) => world.poke(...list)) },
  {
    weight: 1,
    arbitrary: step(fc.tuple(fc.integer({ min: 0, max: 9 }), lie), (world, [n, one]) => n === 0 && world.poke(one)),
  },
);

/** Repeats fill rings and run buffers out. */
const again = fc.constantFrom(1, 1, 1, 1, 3, 12);

const pages = (least: number, most: number) => fc.integer({ min: least, max: most }).map((n) => n * 4096);
const allOffloads = Object.values(OFFLOAD).reduce((all: number, bit) => all | bit, 0);

const few: fc.Arbitrary<WorldOptions> = fc
  .record({
    ringBytes: fc.oneof(pages(2, 4), pages(2, 16)),
    data: fc.integer({ min: 1, max: 60 }),
    control: fc.integer({ min: 1, max: 16 }),
    sections: fc.integer({ min: 1, max: 12 }),
    sendSectionBytes: fc.constantFrom(1536, 2048, 6144),
    maxPacketsPerMessage: fc.integer({ min: 1, max: 8 }),
    packetAlignment: fc.constantFrom(1, 2, 4, 8, 16, 32, 64),
    poolCount: fc.integer({ min: 4, max: 64 }),
    largeCount: fc.integer({ min: 1, max: 6 }),
    events: fc.constantFrom(512, 4096),
    mtu: fc.constantFrom(576, 1500, 9000),
    slotCount: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.constant(64)),
    nvspBytes: fc.constantFrom(28, 40),
    spare: fc.constantFrom(0, 64, 1024),
    maxRanges: fc.constantFrom(1, 2, 5, 64, 375),
    hostFrameBytes: fc.constantFrom(300, 9014, 9014),
    offloads: fc.oneof(fc.constant(allOffloads), fc.integer({ min: 0, max: allOffloads })),
    lsoMax: fc.constantFrom(16_384, 62_780, 65_536),
    copyLimit: fc.integer({ min: 0, max: 6144 }),
    wholeSection: fc.boolean(),
    tables: fc.constantFrom(
      { frames: 1024, fragments: 4096, transactions: 1024, completions: 1024 },
      { frames: 8, fragments: 12, transactions: 3, completions: 2 },
    ),
  })
  .map(
    ({
      data,
      control,
      sections,
      nvspBytes,
      spare,
      maxRanges,
      offloads,
      lsoMax,
      copyLimit,
      wholeSection,
      tables,
      hostFrameBytes,
      ...rest
    }) => ({
      ...rest,
      receiveBytes: (control + data) * (256 + rest.mtu + 14 + 36),
      sendBytes: sections * rest.sendSectionBytes,
      guest: {
        nvspBytes,
        spare,
        offloads,
        lsoMax4: lsoMax,
        lsoMax6: lsoMax,
        copyLimit: Math.min(copyLimit, rest.sendSectionBytes),
        sectionLimit: wholeSection ? rest.sendSectionBytes : 0,
        completionCapacity: tables.completions,
      },
      host: {
        nvspBytes,
        maxRanges,
        firstDataSuballocation: control,
        maxFrameBytes: Math.min(hostFrameBytes, rest.mtu + 14),
        frameCapacity: tables.frames,
        fragmentCapacity: tables.fragments,
        transactionCapacity: tables.transactions,
      },
    }),
  );

/** Rings that fill up, with buffers enough. */
const full: fc.Arbitrary<WorldOptions> = fc
  .record({ spare: fc.constantFrom(0, 1024), maxRanges: fc.constantFrom(1, 4, 64), capacity: fc.constantFrom(4, 1024) })
  .map(({ spare, maxRanges, capacity }) => ({
    ringBytes: 8192,
    mtu: 576,
    receiveBytes: 160 * (256 + 576 + 50),
    sendSectionBytes: 768,
    sendBytes: 100 * 768,
    maxPacketsPerMessage: 1,
    poolCount: 150,
    largeCount: 4,
    slotCount: 100,
    guest: { spare, completionCapacity: capacity },
    host: { maxRanges, firstDataSuballocation: 4 },
  }));
const worlds = fc.oneof({ weight: 3, arbitrary: few }, { weight: 1, arbitrary: full });

/** Across all runs: what has to have happened, or the test proves nothing. */
const MUST = [
  ...['txCopied', 'txDirect', 'txLso', 'txChecksum', 'txSoftwareChecksum', 'txVlan', 'txCompleted', 'txFailed'],
  ...['txNoSection', 'txNoSlot', 'txTooBig', 'txBusy', 'txStops', 'txWakes', 'ringFull', 'signals'],
  ...['rxPackets', 'rxVlan', 'rxHash', 'rxChecksumGood', 'rxChecksumBad', 'rxCoalesced', 'rxNoMbuf', 'rxTooBig'],
  ...['rxNoSuballocation', 'rxRingFull', 'rxCompletions', 'rxCompletionsDelayed'],
];
const MUST_HOSTILE = [
  ...['rxBadRange', 'rxBadRndis', 'rxBadPpi', 'rxBadCoalescing'],
  ...[
    'guest error 1',
    'guest error 3',
    'host error 1',
    'host error 3',
    'host error 9',
    'frame error 1',
    'frame error 8',
  ],
];

function check(runs: number, length: number, kinds: typeof steps, must: readonly string[]): void {
  const reached: Record<string, number> = {};
  forwarding = kinds === steps;
  const property = fc.property(
    worlds,
    fc.array(fc.tuple(kinds, again), { minLength: 5, maxLength: length, size: 'max' }),
    (options, list) => {
      const world = new World(options);
      try {
        for (const [{ run }, times] of list) {
          for (let i = 0; i < times; i++) {
            run(world);
            world.compare();
          }
        }
        world.abandon();
        world.compare();
      } finally {
        const { guest, host } = world;
        for (const model of [guest.end, host.end]) {
          for (const [name, value] of Object.entries(model.counters.values))
            reached[name] = (reached[name] ?? 0) + value;
        }
        reached[`frame error ${host.frameError}`] = 1;
        reached[`guest error ${guest.end.error}`] = 1;
        reached[`host error ${host.end.error}`] = 1;
        world.close();
      }
    },
  );
  fc.assert(property, { numRuns: runs, includeErrorInReport: true, ...seed });
  const missed = must.filter((name) => !reached[name]);
  if (process.env.NETVSC_SEED === undefined) assert.deepEqual(missed, [], 'never happened');
}

const SMALL = { ringBytes: 8192, receiveBytes: 141_120, sendBytes: 76_800, poolCount: 150, largeCount: 4 };

test('a coalesced packet whose first fragment is just one piece of it', () => {
  const world = new World({ ...SMALL, mtu: 576 });
  const rest = { kind: 'tcp4', vlan: null, hash: null, mss: 500, shift: 0, seed: 1, wrong: null } as const;
  for (const piece of [590, 295, 1180]) {
    world.inject([incoming({ ...rest, size: 1500, offload: 4, cuts: [] })], piece);
    world.compare();
  }
  assert.equal(world.host.end.counters.values.rxCoalesced, 3);
  world.close();
});

test('compiled burst loops agree with the model on random traffic', () => check(250, 60, steps, MUST));
test('the same for long', { skip: !long && 'NETVSC_LONG=1 runs it' }, () => check(2000, 300, steps, MUST));

test('they agree on what a hostile peer changes', () => check(400, 60, hostileSteps, MUST_HOSTILE));
test('and that for long', { skip: !long && 'NETVSC_LONG=1 runs it' }, () =>
  check(5000, 100, hostileSteps, MUST_HOSTILE),
);
