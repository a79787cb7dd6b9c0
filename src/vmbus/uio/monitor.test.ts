// The trigger that a guest without interrupts sets in the monitor page.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../../memory/arena.js';
import { MonitorPage } from '../../wire/vmbus.js';
import { MonitorTrigger } from './monitor.js';

const arena = Arena.create({ bytes: 2 << 20 });
const page = arena.reserve('monitor page', 4096, 4096);

for (const [id, at, bit] of [
  [0, 8, 0],
  [31, 8, 31],
  [32, 16, 0],
  [127, 32, 31],
] as const) {
  test(`monitor ${id}: bit ${bit} of the word at ${at}, taken once and alone`, () => {
    arena.u8.fill(0, page, page + 4096);
    const trigger = new MonitorTrigger(arena, page, id);
    assert.equal(trigger.take(), false);
    arena.u32.fill(0xffff_ffff, page / 4, page / 4 + 16);
    assert.equal(trigger.take(), true);
    assert.equal(trigger.take(), false);
    const words = [...arena.u32.subarray(page / 4, page / 4 + 16)];
    const expected = Array.from({ length: 16 }, (_, i) => (i === at / 4 ? ~(1 << bit) >>> 0 : 0xffff_ffff));
    assert.deepEqual(words, expected);
  });

  test(`monitor ${id}: latency in units of 100 ns; 0 says nothing`, () => {
    const trigger = new MonitorTrigger(arena, page, id);
    const latency = (page + MonitorPage.offset.latency + 2 * id) / 2;
    arena.u16[latency] = 500;
    assert.equal(trigger.latencyMs, 0.05);
    arena.u16[latency] = 0xffff;
    assert.equal(trigger.latencyMs, 6.5535);
    trigger.reset();
    assert.equal(arena.u16[latency], 0);
    assert.equal(trigger.latencyMs, 0.1);
  });
}
