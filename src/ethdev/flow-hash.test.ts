// Hash levels in hash types, and back: for every set of types that a device may have.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { namesOf, RSS_TYPE } from './constants.js';
import { HASH_FLOWS, hashesAt, typesFor, usualTypes } from './flow-hash.js';

const ALL = Object.values(RSS_TYPE).reduce((all, bit) => all | bit, 0);
const names = (types: number) => namesOf(RSS_TYPE, types);
const anyTypes = fc.subarray(Object.values(RSS_TYPE)).map((bits) => bits.reduce((all, bit) => all | bit, 0));

test('what a device is asked for: all but UDP, unless a level was chosen', () => {
  assert.deepEqual(names(usualTypes(ALL)), ['IPV4', 'IPV4_TCP', 'IPV6', 'IPV6_TCP', 'IPV6_EX', 'IPV6_TCP_EX']);
  assert.deepEqual(names(usualTypes(ALL, { udp4: 'L4', tcp4: 'L3' })), [
    ...['IPV4', 'IPV4_UDP', 'IPV6', 'IPV6_TCP', 'IPV6_EX', 'IPV6_TCP_EX'],
  ]);
  assert.deepEqual(names(usualTypes(RSS_TYPE.IPV4, { udp4: 'L4' })), ['IPV4']);
});

test('a level is in force if the device has a type for it; the other flows and what the device lacks stay out of it', () => {
  fc.assert(
    fc.property(
      anyTypes,
      anyTypes,
      fc.constantFrom(...HASH_FLOWS),
      fc.constantFrom('L3', 'L4'),
      (has, some, flow, level) => {
        const before = has & some;
        const types = typesFor(before, has, flow, level);
        assert.equal(types & ~has, 0);
        const family = flow.endsWith('4') ? 'IPV4' : 'IPV6';
        const needed =
          level === 'L3' ? new RegExp(`^${family}(_EX)?$`) : new RegExp(`^${family}_${flow.slice(0, 3).toUpperCase()}`);
        assert.equal(
          hashesAt(types, flow, level),
          names(has).some((name) => needed.test(name)),
        );
        for (const other of HASH_FLOWS.filter((name) => name !== flow)) {
          assert.equal(hashesAt(types, other, 'L4'), hashesAt(before, other, 'L4'));
        }
      },
    ),
  );
});
