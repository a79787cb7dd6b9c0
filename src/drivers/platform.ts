// The environment with all our drivers: what programs start from.
import { existsSync } from 'node:fs';
import { Eal, type EalPlatform, type EalSettings, type UnusableDevice } from '../ethdev/eal.js';
import { PortError } from '../ethdev/errors.js';
import { machinePath } from '../memory/rundir.js';
import type { GuestMemory } from '../vmbus/device.js';
import { UioGuestMemory } from '../vmbus/uio/guest-memory.js';
import { kernelRoot } from '../vmbus/uio/kernel-root.js';
import { machineRoot } from '../vmbus/uio/root.js';
import { type BusDevice, scanBus } from '../vmbus/uio/scan.js';
import { drivers } from './index.js';
import type { NetvscServices } from './netvsc/netvsc.js';

const platform: EalPlatform = {
  drivers,
  driversUrl: new URL('./index.js', import.meta.url).href,
  openBus(name) {
    const root = rootOf(name);
    const access = root === '/' ? kernelRoot() : machineRoot(root);
    let memory: GuestMemory | undefined;
    const { devices, problems } = scanBus(root);
    return {
      devices: devices.filter(({ uio }) => uio).map(({ uuid }) => ({ device: uuid, driver: 'net_netvsc' })),
      unusable: [
        ...devices.filter(({ uio }) => !uio).map(unbound),
        ...problems.map(({ reason }) => ({ device: undefined, reason: `skipped: ${reason}`, broken: true })),
      ],
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

/** Where a machine's devices are, or this system's. Throws PortError when there is no such bus. */
function rootOf(name: string): string {
  let root: string;
  try {
    root = name.includes('/') ? name : machinePath(name);
  } catch (error) {
    throw new PortError('EINVAL', 'EAL', (error as Error).message, { cause: error });
  }
  if (existsSync(`${root === '/' ? '' : root}/sys/bus/vmbus/devices`)) return root;
  const why =
    root === '/'
      ? 'no vmbus on this system (/sys/bus/vmbus/devices): is it a guest of Hyper-V?'
      : `no machine at ${root}: is its host running (netvsc host --machine ...)?`;
  throw new PortError('ENODEV', 'EAL', why);
}

/** A kernel driver has it, or none. */
function unbound({ uuid, driver }: BusDevice): UnusableDevice {
  const has = driver === undefined ? 'no driver has it' : `${driver} has it`;
  const reason = `${has}: bind it first (netvsc devbind set-override ${uuid} uio_hv_generic)`;
  return { device: uuid, reason, broken: false };
}

/** Starts the environment from EAL options, as in initEal(['-l', '0-1', '--vdev', 'net_ring0']). Throws PortError. */
export function initEal(words: readonly string[], settings?: EalSettings): Promise<Eal> {
  return Eal.init(words, platform, settings);
}
