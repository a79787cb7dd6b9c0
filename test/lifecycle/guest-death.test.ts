// Guests that are killed while traffic flows: the host forgets each of them, and the other NIC notices nothing.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { createDatapath } from '../../src/datapath/datapath.js';
import { PollLoop } from '../../src/ethdev/loop.js';
import { Host } from '../../src/host/host.js';
import { openUplink, parseUplink } from '../../src/host/uplinks/index.js';
import { Arena } from '../../src/memory/arena.js';
import { linuxSystem } from '../../src/memory/os/mman.js';
import { openUioDevice } from '../../src/vmbus/uio/device.js';
import { Bystander } from '../peers-hostile/bystander.js';
import { machineName, startGuest } from './processes.js';

const KILLS = 10;
const PEER = Uint8Array.of(2, 0, 0, 0xec, 0, 9);

test(`${KILLS} guests killed under traffic: buffers, pages and descriptors come back, the next one attaches`, async (t) => {
  const arena = Arena.create({ bytes: 768 << 20, system: linuxSystem });
  const datapath = createDatapath(arena.memory);
  const machine = machineName();
  const host = Host.create({
    ...{ arena, datapath, machine, profile: 'ws2019', nics: [{}, {}] },
    uplinks: [(context) => openUplink(parseUplink('echo:10.0.0.1,02:00:00:ec:00:09'), context)],
  });
  t.after(() => host.close());
  const loop = new PollLoop();
  loop.add(host);
  loop.start();
  t.after(async () => {
    await loop.stop();
    loop.close();
  });
  const [nic, other] = [host.nics[0]!, host.nics[1]!];
  // The host is stepped by the loop, and also here so that nobody has to wait for it.
  const step = () => {
    host.tick(performance.now());
    host.step();
  };
  const bystander = new Bystander(arena, datapath, openUioDevice(arena, host.path!, other.offer.uuid), PEER, step);
  await bystander.attach();
  const held = () => ({
    descriptors: readdirSync('/proc/self/fd').length,
    regions: arena.regions().map(({ name }) => name),
    free: arena.free(),
    guests: readFileSync('/proc/self/maps', 'latin1')
      .split('\n')
      .filter((line) => line.includes('netvsc packets')).length,
  });
  let before: ReturnType<typeof held> | undefined;
  for (let i = 0; i < KILLS; i++) {
    const guest = startGuest(t, machine, {
      traffic: { mode: 'generate', address: '10.0.0.2', target: '10.0.0.1', frameBytes: 1200, rate: 0 },
    });
    await guest.stats(({ received }) => received! > 1000);
    const { guestPages, phase } = nic.state();
    assert.equal(phase, 'ready');
    bystander.send(16);
    await guest.kill();
    await until(() => nic.phase === 'closed');
    bystander.send(16);
    bystander.check();
    assert.equal(guestPages.refused, 0, guestPages.lastRefusal);
    const { receiveBuffer, guestPages: after, opens, deaths } = nic.state();
    assert.deepEqual([receiveBuffer.inUse, receiveBuffer.controlInUse, after.regions], [0, 0, 0]);
    assert.deepEqual([opens, deaths], [i + 1, 0]);
    const now = held();
    before ??= now; // the first one: what is made once is made
    assert.deepEqual(now, before);
  }
  const guest = startGuest(t, machine);
  await guest.stats(({ received }) => received! > 100);
  assert.equal((await guest.end())?.type, 'ended');
  await until(() => nic.phase === 'closed');
  await bystander.close();
});

async function until(done: () => boolean): Promise<void> {
  const began = performance.now();
  while (!done()) {
    assert.ok(performance.now() - began < 20_000, 'it never came to that');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
