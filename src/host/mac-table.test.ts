import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { ANY_VLAN, LEARNED, MacTable, macText } from './mac-table.js';

test('learns, finds, moves and keeps VLANs apart', () => {
  const table = new MacTable(8);
  assert.equal(table.find(0, 0x0200, 1), 0);
  assert.equal(table.learn(0, 0x0200, 1, 3), LEARNED.NEW);
  assert.equal(table.learn(0, 0x0200, 1, 3), LEARNED.KNOWN);
  assert.equal(table.find(7, 0x0200, 1), 0);
  assert.equal(table.learn(7, 0x0200, 1, 4), LEARNED.NEW);
  assert.equal(table.learn(0, 0x0200, 1, 5), LEARNED.MOVED);
  assert.deepEqual([table.find(0, 0x0200, 1), table.find(7, 0x0200, 1), table.size], [5, 4, 2]);
});

test('is bounded: a full table refuses new stations and still serves the old ones', () => {
  const table = new MacTable(100, 12345);
  for (let i = 0; i < 100; i++) assert.equal(table.learn(0, 0xfeff, -i, 1 + (i % 60)), LEARNED.NEW);
  assert.equal(table.learn(0, 0x0200, 1, 1), LEARNED.FULL);
  assert.equal(table.size, 100);
  for (let i = 0; i < 100; i++) assert.equal(table.find(0, 0xfeff, -i), 1 + (i % 60));
  table.age(1000, 300);
  assert.equal(table.size, 0);
  assert.equal(table.learn(0, 0x0200, 1, 1), LEARNED.NEW);
});

test('what is left of a crowded table is still found after others are forgotten', () => {
  for (let seed = 0; seed < 20; seed++) {
    const table = new MacTable(1024, seed);
    for (let i = 0; i < 1024; i++) table.learn(i % 3, 0x0200, Math.imul(i, 77), 1 + (i % 4));
    table.forget(2, 'all');
    table.forget(4, 'all');
    for (let i = 0; i < 1024; i++) {
      assert.equal(table.find(i % 3, 0x0200, Math.imul(i, 77)), i % 2 === 0 ? 1 + (i % 4) : 0);
    }
    assert.equal(table.size, 512);
  }
});

test('own addresses do not age, have one owner and are given back', () => {
  const table = new MacTable(16);
  assert.equal(table.addStatic(0x0015, 0x5d000001, 2), true);
  assert.equal(table.addStatic(0x0015, 0x5d000001, 2), true);
  assert.equal(table.addStatic(0x0015, 0x5d000001, 3), false);
  assert.equal(table.age(1e6, 1), 0);
  assert.equal(table.find(ANY_VLAN, 0x0015, 0x5d000001), 2);
  table.learn(5, 0x0200, 9, 2);
  table.forget(2, 'static');
  assert.deepEqual([table.find(ANY_VLAN, 0x0015, 0x5d000001), table.find(5, 0x0200, 9)], [0, 2]);
  table.forget(2, 'all');
  assert.equal(table.size, 0);
});

test('shows stations in words', () => {
  assert.equal(macText(0x0015, 0x5d00ff01 | 0), '00:15:5d:00:ff:01');
  assert.equal(macText(0xffff, -1), 'ff:ff:ff:ff:ff:ff');
  const table = new MacTable(4);
  table.age(100, 300);
  table.learn(12, 0x0200, 0x0a, 1);
  table.age(130, 300);
  assert.deepEqual(table.stations(), [{ mac: '02:00:00:00:00:0a', vlan: 12, port: 1, ageSeconds: 30 }]);
});

test('refuses a capacity that makes no sense', () => {
  for (const capacity of [0, -1, 1.5, 1 << 21]) assert.throws(() => new MacTable(capacity), /capacity/);
});

test('agrees with a map under random learning, forgetting and ageing', () => {
  const address = fc.record({ vlan: fc.integer({ min: 0, max: 3 }), low: fc.integer({ min: -20, max: 20 }) });
  const step = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({ op: fc.constant('learn' as const), at: address, port: fc.integer({ min: 1, max: 5 }) }),
    },
    { weight: 2, arbitrary: fc.record({ op: fc.constant('forget' as const), port: fc.integer({ min: 1, max: 5 }) }) },
    { weight: 2, arbitrary: fc.record({ op: fc.constant('age' as const), seconds: fc.integer({ min: 1, max: 9 }) }) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), fc.integer(), (steps, seed) => {
      const capacity = 30;
      const table = new MacTable(capacity, seed);
      const model = new Map<string, { port: number; seen: number }>();
      let now = 0;
      for (const s of steps) {
        if (s.op === 'learn') {
          const key = `${s.at.vlan} ${s.at.low}`;
          const before = model.get(key);
          const expected = before ? (before.port === s.port ? LEARNED.KNOWN : LEARNED.MOVED) : LEARNED.NEW;
          const full = !before && model.size === capacity;
          assert.equal(table.learn(s.at.vlan, 0x0200, s.at.low, s.port), full ? LEARNED.FULL : expected);
          if (!full) model.set(key, { port: s.port, seen: now });
        } else if (s.op === 'forget') {
          table.forget(s.port, 'all');
          for (const [key, value] of model) if (value.port === s.port) model.delete(key);
        } else {
          now += s.seconds;
          table.age(now, 10);
          for (const [key, value] of model) if (now - value.seen > 10) model.delete(key);
        }
        assert.equal(table.size, model.size);
        for (let vlan = 0; vlan < 4; vlan++) {
          for (let low = -20; low <= 20; low++) {
            assert.equal(table.find(vlan, 0x0200, low), model.get(`${vlan} ${low}`)?.port ?? 0);
          }
        }
      }
    }),
    { numRuns: 60 },
  );
});
