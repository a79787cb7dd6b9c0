// The environment with all our drivers: what programs start from.
import { Eal, type EalPlatform, type EalSettings } from '../ethdev/eal.js';
import { machinePath } from '../memory/rundir.js';
import type { GuestMemory } from '../vmbus/device.js';
import { UioGuestMemory } from '../vmbus/uio/guest-memory.js';
import { kernelRoot } from '../vmbus/uio/kernel-root.js';
import { machineRoot } from '../vmbus/uio/root.js';
import { scanBus } from '../vmbus/uio/scan.js';
import { drivers } from './index.js';
import type { NetvscServices } from './netvsc/netvsc.js';

const platform: EalPlatform = {
  drivers,
  driversUrl: new URL('./index.js', import.meta.url).href,
  openBus(name) {
    const root = name.includes('/') ? name : machinePath(name);
    const access = root === '/' ? kernelRoot() : machineRoot(root);
    let memory: GuestMemory | undefined;
    return {
      devices: scanBus(root)
        .devices.filter(({ uio }) => uio)
        .map(({ uuid }) => ({ device: uuid, driver: 'net_netvsc' })),
      services: {
        root,
        access,
        get memory() {
          return memory!;
        },
      } satisfies NetvscServices,
      memory: (arena) => (memory ??= access.guestMemory(arena)),
    };
  },
  plainMemory: (arena) => new UioGuestMemory(arena),
};

/** Starts the environment from EAL options, as in initEal(['-l', '0-1', '--vdev', 'net_ring0']). Throws PortError. */
export function initEal(words: readonly string[], settings?: EalSettings): Promise<Eal> {
  return Eal.init(words, platform, settings);
}
