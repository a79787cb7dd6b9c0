import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Arena } from '../../memory/arena.js';
import { createMemoryBus } from './bus.js';

const SIZES = { ringBytes: 32_768, receiveBytes: 65_536, sendBytes: 65_536 };

test('the backend needs no module of Node and no native code, as a browser has none', () => {
  const seen = new Set<string>();
  const visit = (url: URL) => {
    if (seen.has(url.href)) return;
    seen.add(url.href);
    for (const [, name] of readFileSync(url, 'utf8').matchAll(/^(?:import|.*\bfrom) '([^']+)'/gm)) {
      assert.match(name!, /^\.{1,2}\//, `${fileURLToPath(url)} imports ${name}`);
      visit(new URL(name!, url));
    }
  };
  visit(new URL('./bus.js', import.meta.url));
  visit(new URL('./simulator.js', import.meta.url));
  assert.ok([...seen].some((href) => href.endsWith('/wire/vmbus.js')));
});

test('guest and host of a plain arena, several NICs, one guest memory', () => {
  const arena = Arena.create({ bytes: 4 << 20 });
  const bus = createMemoryBus(arena, { ...SIZES, devices: 3, firstDevice: 2 });
  assert.deepEqual(
    bus.pairs.map(({ device }) => [device.relid, device.uuid.slice(-2), device.memory === bus.memory]),
    [
      [3, '03', true],
      [4, '04', true],
      [5, '05', true],
    ],
  );
  const gpadls = bus.pairs.flatMap(({ offer }) => [offer.receiveBuffer.gpadl, offer.sendBuffer.gpadl]);
  assert.equal(new Set(gpadls).size, 6);
  const address = bus.memory.allocate('packets', 100);
  for (const { offer } of bus.pairs) assert.equal(offer.mapGuestPage(bus.memory.pfn(address))?.address, address);
  bus.close();
  assert.equal(arena.regions().length, 1);
});

test('a killed guest closes what it had open and loses its memory; the next one opens again', () => {
  const arena = Arena.create({ bytes: 4 << 20 });
  const bus = createMemoryBus(arena, { ...SIZES, devices: 2 });
  const [first, second] = bus.pairs as [(typeof bus.pairs)[0], (typeof bus.pairs)[0]];
  first.device.open();
  first.offer.poll();
  const pfn = bus.memory.pfn(bus.memory.allocate('packets', 8192));
  bus.killGuest();
  assert.deepEqual({ ...first.offer.poll() }, { opened: false, closed: true, interrupts: 0 });
  assert.equal(second.offer.poll().closed, false);
  assert.equal(first.offer.mapGuestPage(pfn), undefined);
  first.device.open();
  assert.equal(first.offer.poll().opened, true);
  // An opening that ended before the host looked is neither opened nor closed.
  second.device.open();
  second.device.close();
  assert.deepEqual({ ...second.offer.poll() }, { opened: false, closed: false, interrupts: 0 });
  bus.killHost();
  assert.equal(first.device.takeInterrupts(), -1);
  bus.close();
});
