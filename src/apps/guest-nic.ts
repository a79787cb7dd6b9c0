// Everything that a NetVSC device needs around it: packet memory that the host can read, pools in it, the driver.
import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import { createPool, HEADROOM, LARGE_ROOM, poolBytes, smallRoom } from '../memory/pool.js';
import { NetvscDevice } from '../netvsc/device.js';
import type { NetvscEvent, NetvscOptions } from '../netvsc/types.js';
import type { VmbusDevice } from '../vmbus/device.js';

/** Buffers for received frames, and buffers for TSO packets and coalesced ones. */
const SMALL_COUNT = 2048;
const LARGE_COUNT = 256;

export interface GuestNicOptions extends NetvscOptions {
  readonly smallCount?: number;
  readonly largeCount?: number;
  readonly onEvent?: (event: NetvscEvent) => void;
}

export interface GuestNic {
  readonly device: NetvscDevice;
  readonly smallPool: number;
  readonly largePool: number;
  /** Releases pools and packet memory; detach the device first. */
  close(): void;
}

export function createGuestNic(
  arena: Arena,
  datapath: Datapath,
  device: VmbusDevice,
  options: GuestNicOptions = {},
): GuestNic {
  const { smallCount = SMALL_COUNT, largeCount = LARGE_COUNT, onEvent, ...driver } = options;
  const frameBytes = (driver.mtu ?? 1500) + 14;
  const small = { name: 'small buffers', count: smallCount, room: smallRoom(frameBytes), headroom: HEADROOM };
  const large = { name: 'large buffers', count: largeCount, room: LARGE_ROOM, headroom: HEADROOM };
  const bytes = poolBytes(small) + poolBytes(large);
  const address = device.memory.allocate('packets', bytes);
  const smallPool = createPool(arena, address, small);
  const largePool = createPool(arena, address + poolBytes(small), large);
  return {
    device: new NetvscDevice({
      device,
      datapath,
      pools: { small: smallPool, large: largePool },
      packetMemory: { address, bytes },
      options: driver,
      ...(onEvent === undefined ? {} : { onEvent }),
    }),
    smallPool,
    largePool,
    close() {
      arena.release(smallPool);
      arena.release(largePool);
      device.memory.release(address);
    },
  };
}
