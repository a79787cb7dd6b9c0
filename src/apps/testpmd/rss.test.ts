import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RSS_TYPE } from '../../ethdev/constants.js';
import { chosenEntries, keyText, parseEntries, parseKey, RSS_WORDS, rssTypeLines } from './rss.js';

test('types wrap at 64 letters', () => {
  const all = Object.values(RSS_TYPE).reduce((mask, bit) => mask | bit, 0);
  assert.deepEqual(rssTypeLines(all), [
    '  ipv4  ipv4-tcp  ipv4-udp  ipv6  ipv6-tcp  ipv6-udp  ipv6-ex',
    '  ipv6-tcp-ex  ipv6-udp-ex',
  ]);
  assert.deepEqual(rssTypeLines(RSS_TYPE.IPV4), ['  ipv4']);
});

test("words have DPDK's masks", () => {
  assert.deepEqual([RSS_WORDS.ip, RSS_WORDS.udp, RSS_WORDS.tcp, RSS_WORDS.none], [0xa38c, 0x20820, 0x10410, 0]);
});

test('masks choose entries of the redirection table', () => {
  assert.deepEqual(chosenEntries('(0x3,0x1)', 128), [0, 1, 64]);
  assert.deepEqual(chosenEntries('(0,9223372036854775808)', 128), [127]);
  assert.deepEqual(chosenEntries('(0xff)', 4), [0, 1, 2, 3]);
  assert.throws(() => chosenEntries('(0x3)', 128), /number of reta entries: 2\nInvalid string: \(0x3\) for reta masks/);
  assert.throws(() => chosenEntries('(x,1)', 128), /Invalid string/);
  assert.throws(() => chosenEntries('3,1', 128), /Invalid string/);
});

test('entries and keys', () => {
  assert.deepEqual(parseEntries('(0,1),(127,3)', 128), [
    [0, 1],
    [127, 3],
  ]);
  assert.throws(() => parseEntries('(128,0)', 128), /Invalid RETA hash index=128/);
  assert.throws(() => parseEntries('0,1', 128), /Invalid RSS Redirection Table config entered/);
  assert.deepEqual(parseKey('00ff', 2), Uint8Array.of(0, 255));
  assert.equal(keyText(Uint8Array.of(0, 255)), '00FF');
  assert.throws(() => parseKey('00fg', 2), /character g at position 3 is not a valid hexa digit/);
  assert.throws(() => parseKey('00', 2), /key length: 2 invalid - key must be a string of 4/);
});
