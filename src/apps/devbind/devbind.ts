// netvsc devbind: driverctl's commands for vmbus network devices, on this system, a machine directory or a recorded tree.
// Saved overrides are driverctl's own files, so that either tool reapplies them.
import { existsSync, readFileSync } from 'node:fs';
import { machinePath } from '../../memory/rundir.js';
import { VmbusError } from '../../vmbus/device.js';
import type { BusDevice } from '../../vmbus/uio/scan.js';
import { dryActions, realActions } from './actions.js';
import { type Binding, bindTo, unbindToDefault } from './bind.js';
import { DeviceTree } from './tree.js';

export interface DevbindOptions {
  /** "/" for this system, the path of a machine directory or recorded tree, or the name of a machine. */
  readonly root: string;
  readonly dryRun?: boolean;
  /** The way of kernels before 4.18, even if there is driver_override. */
  readonly legacy?: boolean;
  /** Do not keep the change over a restart. */
  readonly noSave?: boolean;
  /** Where overrides are saved (default: /etc/driverctl.d below the root). */
  readonly saveDir?: string;
  /** How long a device may take to get or lose its driver, ms. */
  readonly patienceMs?: number;
  /** Hears of each step; with `dryRun`, of what would be done. */
  readonly log?: (text: string) => void;
}

/** A device as the lists have it. */
export interface DeviceLine {
  readonly uuid: string;
  readonly driver: string | undefined;
  readonly override: string | undefined;
  readonly relid: number;
  readonly uio: string | undefined;
  readonly interfaces: readonly string[];
}

export interface DevbindResult {
  readonly uuid: string;
  readonly driver: string | undefined;
  /** False when there was nothing to do. */
  readonly changed: boolean;
}

const PATIENCE_MS = 2000;
const DRIVER = /^[A-Za-z0-9_-]{1,64}$/;

export function listDevices(options: DevbindOptions): DeviceLine[] {
  const tree = openTree(options);
  return tree.devices().map((device) => ({
    uuid: device.uuid,
    driver: device.driver,
    override: tree.override(device),
    relid: device.relid,
    uio: device.uio,
    interfaces: tree.interfaces(device),
  }));
}

export function listOverrides(options: DevbindOptions): DeviceLine[] {
  return listDevices(options).filter(({ override }) => override !== undefined);
}

/** Makes `driver` the device's driver from now on. Throws VmbusError; the device is as before then. */
export async function setOverride(options: DevbindOptions, name: string, driver: string): Promise<DevbindResult> {
  checkDriver(driver, 'driver');
  return change(options, name, async (binding, file) => {
    const changed = await bindTo(binding, driver);
    if (options.noSave !== true) binding.actions.save(file, driver);
    return changed;
  });
}

/** Gives the device to its default driver from now on. Throws VmbusError; the device is as before then. */
export async function unsetOverride(options: DevbindOptions, name: string): Promise<DevbindResult> {
  return change(options, name, async (binding, file) => {
    const changed = await unbindToDefault(binding);
    if (options.noSave !== true && existsSync(file)) binding.actions.remove(file);
    return changed;
  });
}

/** Does again what was saved: after a restart. Throws VmbusError when nothing was. */
export async function loadOverride(options: DevbindOptions, name: string): Promise<DevbindResult> {
  return change(options, name, (binding, file) => {
    if (!existsSync(file)) throw new VmbusError(`${binding.device.uuid}: no override is saved (${file} is not there)`);
    const driver = readFileSync(file, 'utf8').trim();
    checkDriver(driver, file);
    return bindTo(binding, driver);
  });
}

async function change(
  options: DevbindOptions,
  name: string,
  action: (binding: Binding, file: string) => Promise<boolean>,
): Promise<DevbindResult> {
  const { dryRun = false, patienceMs = PATIENCE_MS, log = () => {} } = options;
  const tree = openTree(options);
  const device = tree.device(name);
  if (tree.kind === 'recorded' && !dryRun) {
    throw new VmbusError(
      `${tree.bus}: a recorded tree, nobody acts on its files; only list-devices, list-overrides and --dry-run work here`,
    );
  }
  const actions = dryRun ? dryActions(log) : realActions(tree, patienceMs, log);
  const legacy = options.legacy === true || !tree.hasOverride(device);
  if (legacy && options.legacy !== true) log(`${device.path} has no driver_override: the way of kernels before 4.18`);
  const changed = await action({ tree, device, actions, legacy }, savedFile(options, tree, device));
  return { uuid: device.uuid, driver: dryRun ? device.driver : tree.driverOf(device), changed };
}

function openTree({ root }: DevbindOptions): DeviceTree {
  const path = root.includes('/') ? root : machinePath(root);
  if (!existsSync(path)) throw new VmbusError(`${path}: not there; is the host of that machine running?`);
  return new DeviceTree(path);
}

/** driverctl's name: bus and device, as sysfs has it. */
function savedFile({ saveDir }: DevbindOptions, tree: DeviceTree, device: BusDevice): string {
  return `${saveDir ?? `${tree.root}/etc/driverctl.d`}/vmbus-${device.path.split('/').at(-1)}`;
}

function checkDriver(driver: string, from: string): void {
  if (!DRIVER.test(driver)) {
    throw new VmbusError(`${from}: expected the name of a driver, got ${JSON.stringify(driver.slice(0, 60))}`);
  }
}
