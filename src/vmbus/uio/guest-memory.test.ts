import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { test } from 'node:test';
import { Arena } from '../../memory/arena.js';
import { createSealedMemory, lockWriters } from '../../memory/os/memfd.js';
import { linuxSystem } from '../../memory/os/mman.js';
import { UioGuestMemory } from './guest-memory.js';

test('packet memory: its owner writes, everybody else only reads', (t) => {
  const arena = Arena.create({ bytes: 4 << 20, system: linuxSystem });
  const { fd } = createSealedMemory('test', 4096, 'open');
  t.after(() => closeSync(fd));
  const owner = arena.mapFile('owner', fd, 0, 4096);
  lockWriters(fd);
  assert.throws(() => arena.mapFile('peer', fd, 0, 4096), /EPERM/);
  const reader = arena.mapFile('reader', fd, 0, 4096, { readOnly: true });
  arena.u32[owner >>> 2] = 0x1234;
  assert.equal(arena.u32[reader >>> 2], 0x1234);
});

test('allocate and release give everything back', () => {
  const arena = Arena.create({ bytes: 4 << 20, system: linuxSystem });
  const before = arena.regions().length;
  const memory = new UioGuestMemory(arena);
  const address = memory.allocate('packets', 10_000);
  assert.equal(memory.pfn(address + 4096), memory.pfn(address) + 1n);
  memory.release(address);
  assert.equal(arena.regions().length, before);
  assert.throws(() => memory.release(address), /nothing was allocated/);
});
