// Both backends behind one face, for tests of what they promise.
import type { TestContext } from 'node:test';
import { Arena } from '../memory/arena.js';
import { linuxSystem } from '../memory/os/mman.js';
import type { VmbusDevice, VmbusOffer } from './device.js';
import { createMemoryBus } from './memory/bus.js';
import { openUioDevice } from './uio/device.js';
import { createMachine } from './uio/machine.js';
import { machineRoot } from './uio/root.js';
import { testMachineName } from './uio/testing.js';

export interface Setup {
  readonly device: VmbusDevice;
  readonly offer: VmbusOffer;
  /** Root of the machine directory, if there is one. */
  readonly root?: string;
}

const UUID = '0022487b-5c2f-0022-487b-5c2f0022487b';
const SIZES = { ringBytes: 65_536, receiveBytes: 1 << 20, sendBytes: 1 << 20 };

export const hostArena = Arena.create({ bytes: 24 << 20, system: linuxSystem });
export const guestArena = Arena.create({ bytes: 24 << 20, system: linuxSystem });

export interface SetupOptions {
  /** Channels trigger the host through the monitor page. */
  readonly monitor?: boolean;
}

export const BACKENDS: Record<string, (t: TestContext, options?: SetupOptions) => Setup> = {
  memory(t, options) {
    const bus = createMemoryBus(hostArena, { ...SIZES, ...options });
    t.after(() => bus.close());
    return bus.pairs[0]!;
  },
  uio(t, options) {
    const nics = [{ uuid: UUID, relid: 15, subchannelRingBytes: SIZES.ringBytes, ...SIZES, ...options }];
    const machine = createMachine(hostArena, { name: testMachineName(), nics });
    t.after(() => machine.close());
    const access = machineRoot(machine.path, options?.monitor);
    const device = openUioDevice(guestArena, machine.path, UUID, { access });
    t.after(() => device.close());
    return { device, offer: machine.offers[0]!, root: machine.path };
  },
};
