import assert from 'node:assert/strict';
import { test } from 'node:test';
import { add64, read64 } from './cells64.js';

test('a counter goes on beyond 32 bits', () => {
  const u32 = Uint32Array.of(7, 0xffff_fff0, 0, 7);
  add64(u32, 1, 0x0f);
  assert.deepEqual([...u32], [7, 0xffff_ffff, 0, 7]);
  add64(u32, 1, 1);
  assert.deepEqual([...u32], [7, 0, 1, 7]);
  assert.equal(read64(u32, 1), 2 ** 32);
  add64(u32, 1, 0xffff_ffff);
  add64(u32, 1, 2);
  assert.equal(read64(u32, 1), 2 ** 33 + 1);
});
