import assert from 'node:assert/strict';
import { test } from 'node:test';
import { grammar } from './commands/index.js';

const match = (line: string) => grammar.match(line);
const found = (line: string): string => {
  const result = match(line);
  return result.kind === 'found' ? result.command.pattern : result.kind;
};

test('lines find their command', () => {
  for (const [line, pattern] of [
    ['show port info 0', 'show port info <port|all>'],
    ['  show   port info all ', 'show port info <port|all>'],
    ['show port 0 rss-hash key', 'show port <port> rss-hash key'],
    ['show port 0 rxq 0 desc 3 status', 'show port <port> rxq|txq <queue> desc <desc> status'],
    ['start tx_first 3', 'start tx_first <n>'],
    ['set fwd io retry', 'set fwd <mode> retry'],
    ['port config 0 rss reta (0,1),(5,2)', 'port config <port> rss reta <(entry,queue),...>'],
    ['port config all rxq 0x2', 'port config all rxq|txq <n>'],
    ['csum set outer-ip sw 1', 'csum set ip|udp|tcp|sctp|outer-ip|outer-udp hw|sw <port>'],
  ] as const)
    assert.equal(found(line), pattern);
});

test("a first word that no command has is not found, anything else is bad arguments, as in DPDK's cmdline", () => {
  for (const line of ['bogus', 'shows port info 0', '7']) assert.equal(found(line), 'not found');
  for (const line of [
    'show',
    'show port',
    'show port info',
    'show port info x',
    'set burst -1',
    'start junk',
    'stop 1',
  ])
    assert.equal(found(line), 'bad arguments');
});

test('words of placeholders and alternatives', () => {
  const result = match('set promisc all off');
  assert.ok(result.kind === 'found');
  assert.deepEqual([result.words.text(0), result.words.which(1), result.words.on(2)], ['promisc', 'all', false]);
  const port = match('show port xstats 0x1');
  assert.ok(port.kind === 'found');
  assert.equal(port.words.which(0), 1);
});

test('completion', () => {
  const complete = (line: string) => grammar.complete(line)[0];
  assert.deepEqual(complete('sh'), ['show ']);
  assert.deepEqual(complete('show port i'), ['info ']);
  assert.deepEqual(complete('show port '), ['info ', 'stats ', 'summary ', 'xstats ']);
  assert.deepEqual(complete('show port 0 r'), ['rss ', 'rss-hash ', 'rx_offload ', 'rxq ']);
  assert.deepEqual(complete('port st'), ['start ', 'stop ']);
  assert.deepEqual(complete('nothing '), []);
  assert.deepEqual(grammar.complete('set all')[1], 'all');
});

test('no two commands share a pattern', () => {
  const patterns = grammar.commands.map(({ pattern }) => pattern);
  assert.equal(new Set(patterns).size, patterns.length);
});
