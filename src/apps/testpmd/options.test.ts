import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultOptions, optionsUsage, parseTestpmdOptions } from './options.js';
import { ValueError } from './values.js';

test('defaults are those of testpmd', () => {
  assert.deepEqual(parseTestpmdOptions([]), defaultOptions());
  const { mode, burst, rxQueues, txQueues, mbufBytes, topology } = defaultOptions();
  assert.deepEqual([mode, burst, rxQueues, txQueues, mbufBytes, topology], ['io', 32, 1, 1, 2176, 'paired']);
});

test('every way to write an option', () => {
  for (const words of [['--rxq=4'], ['--rxq', '4'], ['-rxq=4'], ['--rxq', '0x4']])
    assert.equal(parseTestpmdOptions(words).rxQueues, 4, words.join(' '));
  assert.equal(parseTestpmdOptions(['--stats=2']).statsPeriod, 2, 'the beginning of one name');
  const { interactive, autoStart } = parseTestpmdOptions(['-i', '-a']);
  assert.deepEqual([interactive, autoStart], [true, true]);
});

test('values', () => {
  const options = parseTestpmdOptions([
    ...['--forward-mode=5tswap', '--portmask=0x5', '--txpkts=64,100', '--eth-peer=1,00:11:22:33:44:55'],
    ...['--tx-offloads=0x8000', '--rx-offloads=0x2000', '--enable-rx-cksum', '--display-xstats', 'a,b'],
    ...['--disable-rss', '--no-lsc-interrupt', '--disable-link-check', '--max-pkt-len', '9018', '--no-flush-rx'],
    ...['--numa', '--socket-num=0', '--port-topology=loop', '--rx-interrupts', '--total-num-mbufs=2048'],
  ]);
  assert.equal(options.mode, '5tswap');
  assert.deepEqual(options.portList, [0, 2]);
  assert.deepEqual(options.segments, [64, 100]);
  assert.deepEqual([...options.peers], [[1, Uint8Array.of(0, 0x11, 0x22, 0x33, 0x44, 0x55)]]);
  assert.equal(options.txOffloads, 0x8000);
  assert.equal(options.rxOffloads, 0x2000 | 0xe);
  assert.deepEqual(options.displayXstats, ['a', 'b']);
  assert.equal(options.rss, 'off');
  assert.deepEqual([options.linkEvents, options.linkCheck, options.flushRx], [false, false, false]);
  assert.deepEqual([options.maxPacketBytes, options.topology, options.mbufs], [9018, 'loop', 2048]);
  assert.equal(options.rxInterrupts, true);
});

for (const [words, expected] of [
  ['--bogus', /^unknown option --bogus$/],
  ['--nb', /^option --nb: it could be --nb-cores, --nb-ports$/],
  ['junk', /^expected an option, got "junk"$/],
  ['--rxq', /^option --rxq: expected a value$/],
  ['--rxq=x', /^option --rxq: expected a whole number 0 to 1024, got "x"$/],
  ['--rxq=-1', /^option --rxq: expected a whole number 0 to 1024, got "-1"$/],
  ['--rxq=0 --txq=0', /^options --rxq and --txq: expected at least one queue$/],
  ['--burst=0', /expected a whole number 1 to 512, got "0"/],
  ['--burst=513', /expected a whole number 1 to 512/],
  ['--total-num-mbufs=10', /expected a whole number 1024 to/],
  ['--mbuf-size=10', /expected a whole number 192 to 65536/],
  ['--max-pkt-len=10', /expected a whole number 64 to/],
  ['--forward-mode=zzz', /expected io, mac, .*5tswap, got "zzz"/],
  ['--port-topology=star', /expected paired, chained, loop, got "star"/],
  ['--portmask=0', /expected at least one bit, got "0"/],
  ['--portmask=xyz', /expected a hexadecimal mask/],
  ['--eth-peer=99,00:11:22:33:44:55', /expected a whole number 0 to 31, got "99"/],
  ['--eth-peer=0,xx', /expected a MAC address as .*, got "xx"/],
  ['--eth-peer=0', /expected a MAC address/],
  ['--txpkts=10,20', /expected 42 to 65535 bytes in all, got "10,20"/],
  ['--txpkts=64,x', /expected a whole number 1 to 65535, got "x"/],
  ['--tx-offloads=12z', /expected a mask as 0x8000, got "12z"/],
  ['--tx-first=1', /^option --tx-first: expected no value, got "1"$/],
  ['--tx-first -i', /not with -i/],
  ['--stats-period=1 -i', /not with -i/],
  ['--portlist=1,1', /expected each number once/],
] as const) {
  test(`${words}: one line that says what was expected`, () => {
    assert.throws(
      () => parseTestpmdOptions(words.split(' ')),
      (error: Error) => {
        assert.ok(error instanceof ValueError);
        assert.match(error.message, expected);
        assert.doesNotMatch(error.message, /\n/);
        return true;
      },
    );
  });
}

test('the help has a line for every option', () => {
  for (const name of ['nb-cores', 'rxq', 'tx-first', 'rx-interrupts', 'eth-peer'])
    assert.match(optionsUsage(), new RegExp(`--${name}`));
});
