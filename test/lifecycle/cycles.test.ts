// 200 lives of a guest on one host, on either backend, with traffic in each: nothing is left behind.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { createDatapath } from '../../src/datapath/datapath.js';
import { Host } from '../../src/host/host.js';
import { openUplink, parseUplink } from '../../src/host/uplinks/index.js';
import { Arena } from '../../src/memory/arena.js';
import { linuxSystem } from '../../src/memory/os/mman.js';
import type { VmbusDevice } from '../../src/vmbus/device.js';
import { createMemoryBus } from '../../src/vmbus/memory/bus.js';
import { openUioDevice } from '../../src/vmbus/uio/device.js';
import { Bystander } from '../peers-hostile/bystander.js';
import { machineName } from './processes.js';

const CYCLES = 200;
const PEER = Uint8Array.of(2, 0, 0, 0xec, 0, 9);

interface Backend {
  readonly host: Host;
  device(): VmbusDevice;
  close(): void;
}

const arena = Arena.create({ bytes: 512 << 20, system: linuxSystem });
const datapath = createDatapath(arena.memory);

const HOST = {
  arena,
  datapath,
  profile: 'ws2019',
  nics: [{}],
  uplinks: [(context: Parameters<typeof openUplink>[1]) => openUplink(parseUplink('echo:02:00:00:ec:00:09'), context)],
} as const;

const BACKENDS: Readonly<Record<string, () => Backend>> = {
  memory() {
    const bus = createMemoryBus(arena, { ringBytes: 64 << 10, receiveBytes: 512 << 10, sendBytes: 256 << 10 });
    const host = Host.create({ ...HOST, machine: 'cycles', offers: [bus.pairs[0]!.offer] });
    return { host, device: () => bus.pairs[0]!.device, close: () => bus.close() };
  },
  uio() {
    const host = Host.create({ ...HOST, machine: machineName() });
    return { host, device: () => openUioDevice(arena, host.path!, host.nics[0]!.offer.uuid), close: () => {} };
  },
};

/** Everything that could grow. */
function held(): Record<string, unknown> {
  const maps = readFileSync('/proc/self/maps', 'latin1').split('\n');
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    regions: arena.regions().map(({ name }) => name),
    free: arena.free(),
    mappings: maps.filter((line) => line.includes('memfd:netvsc')).length,
  };
}

for (const [name, make] of Object.entries(BACKENDS)) {
  test(`${name}: ${CYCLES} guests, one after the other`, async (t) => {
    const empty = held();
    const { host, device, close } = make();
    t.after(() => {
      host.close();
      close();
      assert.deepEqual(held(), empty, 'the host gave everything back');
    });
    let nowMs = 0;
    const step = () => {
      host.tick(++nowMs);
      for (let i = 0; i < 8; i++) host.step();
    };
    const nic = host.nics[0]!;
    const live = async () => {
      const guest = new Bystander(arena, datapath, device(), PEER, step);
      await guest.attach();
      guest.send(16);
      guest.check();
      await guest.close();
      step();
      assert.equal(nic.phase, 'closed');
    };
    await live(); // what is made once is made now
    const before = held();
    for (let i = 0; i < CYCLES; i++) await live();
    assert.deepEqual(held(), before);
    const { opens, deaths, receiveBuffer, guestPages } = nic.state();
    assert.deepEqual([opens, deaths, receiveBuffer.inUse, guestPages.regions], [CYCLES + 1, 0, 0, 0]);
  });
}
