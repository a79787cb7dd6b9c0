// The two procedures of DPDK's guide (seeds dpdk-netvsc-pmd): driver_override from kernel 4.18 on, and new_id, unbind, bind
// before. Whatever fails, the device goes back to the driver that it had.
import { NETVSC_CLASS, VmbusError } from '../../vmbus/device.js';
import type { BusDevice } from '../../vmbus/uio/scan.js';
import type { Actions } from './actions.js';
import type { DeviceTree } from './tree.js';

/** The kernel's own driver of network devices: what a device has that nothing was done to. */
export const KERNEL_DRIVER = 'hv_netvsc';

export interface Binding {
  readonly tree: DeviceTree;
  readonly device: BusDevice;
  readonly actions: Actions;
  /** Without driver_override: asked for, or the kernel has none. */
  readonly legacy: boolean;
}

/** Binds the device to a driver, for good where the kernel knows how. Returns false when that was so before. */
export async function bindTo(binding: Binding, driver: string): Promise<boolean> {
  const { tree, device, actions, legacy } = binding;
  const bound = tree.driverOf(device);
  const reserved = legacy ? driver : tree.override(device);
  if (bound === driver && reserved === driver) return false;
  if (!tree.hasDriver(driver)) actions.load(driver);
  await undoing(binding, async () => {
    if (bound === driver) {
      reserve(binding, driver);
      return;
    }
    if (legacy) await bindLegacy(binding, driver);
    else {
      await unbind(binding);
      reserve(binding, driver);
      probe(binding);
    }
    await actions.settle(device, (now) => now === driver, driver);
  });
  return true;
}

/** Gives the device to the driver that it has by default. Returns false when that was so before. */
export async function unbindToDefault(binding: Binding): Promise<boolean> {
  const { tree, device, actions, legacy } = binding;
  if (legacy) return bindTo(binding, KERNEL_DRIVER);
  const bound = tree.driverOf(device);
  if (tree.override(device) === undefined && bound === KERNEL_DRIVER) return false;
  if (!tree.hasDriver(KERNEL_DRIVER)) actions.load(KERNEL_DRIVER);
  await undoing(binding, async () => {
    await unbind(binding);
    reserve(binding, undefined);
    probe(binding);
    await actions.settle(device, (now) => now !== undefined, `a driver, by default ${KERNEL_DRIVER}`);
  });
  return true;
}

async function bindLegacy(binding: Binding, driver: string): Promise<void> {
  const { tree, device, actions } = binding;
  const directory = `${tree.bus}/drivers/${driver}`;
  // hv_netvsc knows the class by itself; to any other driver it must be told.
  if (driver !== KERNEL_DRIVER) tolerate('EEXIST', () => actions.write(`${directory}/new_id`, NETVSC_CLASS));
  await unbind(binding);
  // A device that had no driver was bound by new_id already, on a machine directory perhaps only now.
  if (tree.driverOf(device) !== driver) tolerate('EBUSY', () => actions.write(`${directory}/bind`, device.uuid));
}

async function unbind({ tree, device, actions }: Binding): Promise<void> {
  if (device.driver === undefined) return;
  actions.write(`${tree.bus}/drivers/${device.driver}/unbind`, device.uuid);
  await actions.settle(device, (now) => now !== device.driver, 'no driver');
}

function reserve({ device, actions }: Binding, driver: string | undefined): void {
  actions.write(`${device.path}/driver_override`, driver ?? '');
}

function probe({ tree, device, actions }: Binding): void {
  actions.write(`${tree.bus}/drivers_probe`, device.uuid);
}

function tolerate(code: string, action: () => void): void {
  try {
    action();
  } catch (error) {
    const { code: came } = (error as Error).cause as NodeJS.ErrnoException;
    if (came !== code) throw error;
  }
}

/** Does it, or puts everything back and says so. */
async function undoing(binding: Binding, action: () => Promise<void>): Promise<void> {
  const { tree, device, legacy } = binding;
  const override = legacy ? undefined : tree.override(device);
  try {
    await action();
  } catch (error) {
    const after = await restore(binding, override).catch((failure: Error) => {
      return `could not be undone: ${failure.message}`;
    });
    throw new VmbusError(`${device.uuid}: ${(error as Error).message}; ${after}`, { cause: error });
  }
}

async function restore(binding: Binding, override: string | undefined): Promise<string> {
  const { tree, device, actions, legacy } = binding;
  const before = device.driver;
  if (!legacy && tree.override(device) !== override) reserve(binding, override);
  const now = tree.driverOf(device);
  if (now !== before) {
    if (now !== undefined) {
      actions.write(`${tree.bus}/drivers/${now}/unbind`, device.uuid);
      await actions.settle(device, (driver) => driver !== now, 'no driver');
    }
    if (before !== undefined) actions.write(`${tree.bus}/drivers/${before}/bind`, device.uuid);
    await actions.settle(device, (driver) => driver === before, before ?? 'no driver');
  }
  return `undone, it is bound to ${before ?? 'no driver'} as before`;
}
