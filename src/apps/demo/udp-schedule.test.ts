import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CHUNK, Payload } from './payload.js';
import { makeDatagram, UdpChecker } from './udp-schedule.js';

const payload = new Payload(1);
const sizes = [1, 18, 16, 500, 1500];
const flow = (count: number) => Array.from({ length: count }, (_, n) => makeDatagram(payload, sizes, n));

function judge(arriving: readonly Buffer[], sent: number) {
  const checker = new UdpChecker(sizes);
  for (const datagram of arriving) checker.take(datagram);
  return checker.verdict(sent);
}

test('all in order', () => {
  const sent = flow(600);
  const bytes = sent.reduce((sum, datagram) => sum + datagram.length, 0);
  assert.deepEqual(judge(sent, 600), { datagrams: 600, bytes, lost: 0, wrong: 0, reordered: 0, duplicates: 0 });
});

test('any changed byte of any datagram is noticed', () => {
  const sent = flow(50);
  fc.assert(
    fc.property(fc.nat(49), fc.nat(), fc.integer({ min: 1, max: 255 }), (which, where, change) => {
      const spoilt = Buffer.from(sent[which]!);
      spoilt[where % spoilt.length]! ^= change;
      const verdict = judge([...sent.slice(0, which), spoilt, ...sent.slice(which + 1)], 50);
      // A one-byte datagram may turn into another one's content: then one comes twice or too early.
      return verdict.wrong + verdict.lost + verdict.duplicates + verdict.reordered > 0;
    }),
  );
});

test('lost ones are counted, whichever they are', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(99), { maxLength: 30 }), (missing) => {
      const arriving = flow(100).filter((_, n) => !missing.includes(n));
      const verdict = judge(arriving, 100);
      assert.deepEqual([verdict.lost, verdict.wrong, verdict.duplicates], [missing.length, 0, 0]);
    }),
    { numRuns: 50 },
  );
});

test('exchanged, repeated and cut ones', () => {
  const sent = flow(10);
  const swapped = [...sent];
  [swapped[3], swapped[4]] = [swapped[4]!, swapped[3]!];
  assert.equal(judge(swapped, 10).reordered, 1);
  assert.equal(judge([...sent, sent[3]!], 10).duplicates, 1);
  const cut = judge(
    sent.map((datagram, n) => (n === 4 ? datagram.subarray(0, 1499) : datagram)),
    10,
  );
  assert.deepEqual([cut.wrong, cut.lost], [1, 1]);
});

test('payload: the same for the same seed, another for another, chunks differ', () => {
  assert.equal(new Payload(5).chunk(3).equals(new Payload(5).chunk(3)), true);
  assert.equal(new Payload(5).chunk(3).equals(new Payload(6).chunk(3)), false);
  assert.equal(payload.chunk(0).equals(payload.chunk(1)), false);
  assert.equal(payload.chunk(CHUNK - 1).length, CHUNK);
});
