// net_netvsc: the guest driver behind the device API. Control half in the thread that probed the device (port.ts), bursts in any
// (bursts.ts).
import type { Driver } from '../../ethdev/driver.js';
import { PortError } from '../../ethdev/errors.js';
import type { GuestMemory, VmbusDevice } from '../../vmbus/device.js';
import { VmbusError } from '../../vmbus/device.js';
import { openUioDevice } from '../../vmbus/uio/device.js';
import type { UioRoot } from '../../vmbus/uio/root.js';
import { NetvscRx, NetvscTx, type QueueDescription } from './bursts.js';
import { NetvscPort } from './port.js';

/** What net_netvsc finds its devices by. */
export interface NetvscServices {
  readonly root: string;
  readonly access: UioRoot;
  /** Memory that the host can read; the packet memory is of it. */
  readonly memory: GuestMemory;
}

export const netvscDriver: Driver = {
  name: 'net_netvsc',
  pairedQueues: true,
  async probe(context, name, args) {
    const services = context.services as NetvscServices | undefined;
    if (services === undefined) throw new PortError('ENODEV', name, 'there is no bus (--machine or --root)');
    const { root, access, memory } = services;
    let device: VmbusDevice;
    try {
      device = openUioDevice(context.arena, root, name, { access, memory });
    } catch (cause) {
      if (!(cause instanceof VmbusError)) throw cause;
      throw new PortError('ENODEV', name, cause.message, { cause });
    }
    return NetvscPort.open(context, name, device, args);
  },
  openRx: (lcore, description) => new NetvscRx(lcore, description as QueueDescription),
  openTx: (lcore, description) => new NetvscTx(lcore, description as QueueDescription),
};
