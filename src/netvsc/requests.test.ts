import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RequestTable } from './requests.js';

const COMPLETE = { type: 102, name: 'receive buffer complete', bytes: 12 };

test('an answer is taken once, and only of the right type and length', async () => {
  const table = new RequestTable('netvsc x', 100);
  const good = table.open('step a', COMPLETE);
  const wrongType = table.open('step b', COMPLETE);
  const short = table.open('step c', COMPLETE);
  const payload = new Uint8Array(12);
  assert.equal(table.answer(good.id, 102, payload), true);
  assert.equal(await good.reply, payload);
  assert.equal(table.answer(good.id, 102, payload), false, 'a second answer');
  table.answer(wrongType.id, 108, payload);
  table.answer(short.id, 102, new Uint8Array(11));
  table.answer(999, 102, payload);
  await assert.rejects(
    wrongType.reply,
    /netvsc x: step b: expected receive buffer complete \(0x66\), got message 0x6c/,
  );
  await assert.rejects(short.reply, /step c: receive buffer complete has 11 bytes, expected at least 12/);
  assert.deepEqual([table.unexpected, table.mismatched, table.waiting], [2, 2, 0]);
});

test('a deadline runs from the first tick after the request and names the step', async () => {
  const table = new RequestTable('netvsc x', 100);
  const failures: string[] = [];
  const { reply, id } = table.open('step a', COMPLETE, (error) => failures.push(error.what));
  table.tick(5000);
  table.tick(5099);
  assert.equal(table.has(id), true);
  table.tick(5100);
  assert.deepEqual(failures, ['no receive buffer complete from the host within 100 ms']);
  await assert.rejects(reply, { step: 'step a' });
  assert.equal(table.timeouts, 1);
});

test('abort fails all that wait', async () => {
  const table = new RequestTable('netvsc x', 100);
  const replies = ['a', 'b'].map((step) => table.open(step, COMPLETE).reply);
  table.abort('the host is gone');
  for (const reply of replies) await assert.rejects(reply, /the host is gone/);
  assert.equal(table.waiting, 0);
});

test('whatever is answered: each request settles at most once, with an answer of its own id, type and length', async () => {
  const answers = fc.array(fc.record({ id: fc.nat(12), type: fc.constantFrom(102, 105, 108), bytes: fc.nat(16) }));
  await fc.assert(
    fc.asyncProperty(fc.array(fc.constantFrom(102, 105), { maxLength: 10 }), answers, async (types, given) => {
      const table = new RequestTable('x', 10);
      const requests = types.map((type) => table.open('s', { type, name: 'n', bytes: 8 }));
      const taken = given.filter(({ id, type, bytes }) =>
        table.answer(id, type, Object.assign(new Uint8Array(bytes), { id, type })),
      );
      table.abort('end');
      const settled = await Promise.allSettled(requests.map(({ reply }) => reply));
      const resolved = settled.flatMap((one, i) => (one.status === 'fulfilled' ? [{ one: one.value, i }] : []));
      assert.equal(resolved.length, taken.length);
      for (const { one, i } of resolved) {
        const { id, type } = one as Uint8Array & { id: number; type: number };
        assert.equal(id, requests[i]!.id);
        assert.equal(type, types[i]);
        assert.ok(one.length >= 8);
      }
      assert.equal(table.waiting, 0);
    }),
    { numRuns: 200 },
  );
});
