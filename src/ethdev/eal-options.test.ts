// Options of the environment, as on a DPDK program's command line.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EAL_USAGE, parseCpus, parseEalArguments } from './eal-options.js';
import { PortError } from './errors.js';

const UUID = '0022487b-5c2f-0022-487b-5c2f0022487b';
const parse = (...words: string[]) => parseEalArguments(words, [3, 4]);

test('nothing given: the usual CPUs, no bus, no device', () => {
  assert.deepEqual(parse(), { cpus: [3, 4], allow: undefined, block: [], vdevs: [], root: undefined, memoryMb: 64 });
});

test('every option, in each spelling', () => {
  const words = ['-l', '0-2,5', '--vdev', 'net_ring0', '--vdev=net_null1,size=100,copy=1', '--machine', 'm', '-m128'];
  assert.deepEqual(parse(...words, '-a', `vmbus:${UUID},latency=10`, '-a', `{${UUID.toUpperCase()}}`), {
    cpus: [0, 1, 2, 5],
    allow: [
      { device: UUID, args: 'latency=10' },
      { device: UUID, args: '' },
    ],
    block: [],
    vdevs: [
      { device: 'net_ring0', args: '' },
      { device: 'net_null1', args: 'size=100,copy=1' },
    ],
    root: 'm',
    memoryMb: 128,
  });
  assert.deepEqual(parse('-b', UUID, '--root', '/').block, [UUID]);
  assert.equal(parse('--root=/').root, '/');
  assert.deepEqual(parse('--lcores', '7').cpus, [7]);
});

test('what DPDK programs are often started with makes no difference', () => {
  const words = ['--no-huge', '--no-pci', '--in-memory', '--no-telemetry', '--no-shconf', '-n', '4'];
  const more = ['--file-prefix=x', '--iova-mode=va', '--proc-type', 'auto'];
  assert.deepEqual(parse(...words, ...more), parse());
});

for (const [words, message] of [
  [['--bogus'], /Unknown option '--bogus'/],
  [['extra'], /extra/],
  [['-l'], /argument/],
  [['-l', ''], /-l : expected CPU numbers/],
  [['-l', '1,1'], /CPU 1 twice/],
  [['-l', '0-3,2'], /CPU 2 twice/],
  [['-l', '3-1'], /-l 3-1: expected CPU numbers and ranges/],
  [['-l', '0,1024'], /expected CPU numbers/],
  [['-m', '0'], /-m 0: expected 1 to 2048 MiB/],
  [['-m', '4096'], /-m 4096: expected 1 to 2048/],
  [['-m', 'x'], /-m x: expected/],
  [['-m', '-1'], /'-m'/],
  [['-l', '-a', UUID], /'-l'/],
  [['-a', 'eth0'], /-a eth0: expected vmbus:UUID/],
  [['-a', `vmbus:${UUID},=1`], /expected key=value/],
  [['-a', UUID, '-b', UUID], /-a and -b: expected one of both/],
  [['--machine', 'a', '--root', '/'], /--machine and --root: expected one of both/],
  [['--vdev', ''], /--vdev : expected a name/],
  [['--vdev', '0ring'], /expected a name as net_ring0/],
  [['--vdev', 'net_ring0,(('], /parentheses do not match/],
] as const) {
  test(`options ${words.join(' ')}: one clear line`, () => {
    assert.throws(
      () => parse(...words),
      (error: Error) => {
        assert.ok(error instanceof PortError);
        assert.match(error.message, message);
        assert.doesNotMatch(error.message, /\n/);
        return true;
      },
    );
  });
}

test('CPU lists are read back as they were meant', () => {
  const cpus = fc.uniqueArray(fc.nat(1023), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(cpus, (list) => {
      assert.deepEqual(parseCpus(list.join()), list);
    }),
  );
  assert.deepEqual(parseCpus('0-1,4-4,2'), [0, 1, 4, 2]);
});

test('any words are read, or are a PortError of one line', () => {
  const word = fc.oneof(
    fc.string(),
    fc.constantFrom('-l', '-a', '-b', '--vdev', '--root', '--machine', '-m', '-n', '--no-huge', '--', '-lm', '--vdev='),
    fc.stringMatching(/^[-a-z0-9=,:()]{0,20}$/),
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 6 }), (words) => {
      try {
        parse(...words);
      } catch (error) {
        assert.ok(error instanceof PortError, String((error as Error).stack));
        // What a user typed is quoted as it is.
        if (!words.some((text) => text.includes('\n'))) assert.doesNotMatch(error.message, /\n/);
      }
    }),
    { numRuns: 1000 },
  );
});

test('the usage names every option that has a meaning', () => {
  for (const option of ['-l', '-a', '-b', '--vdev', '--machine', '--root', '-m']) assert.ok(EAL_USAGE.includes(option));
});
