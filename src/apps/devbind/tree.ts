// The vmbus part of a sysfs tree, as devbind reads it: who acts on its files, its devices, and what users call them.
import { lstatSync, readdirSync, readlinkSync, realpathSync, statfsSync, statSync } from 'node:fs';
import path from 'node:path';
import { VmbusError } from '../../vmbus/device.js';
import { readAttribute } from '../../vmbus/uio/attributes.js';
import { readOverride } from '../../vmbus/uio/drivers.js';
import { type BusDevice, readDriver, scanBus } from '../../vmbus/uio/scan.js';

/** Who acts when a file is written: the kernel, the host of a machine directory, or nobody (a recorded tree). */
export type TreeKind = 'kernel' | 'machine' | 'recorded';

const SYSFS_MAGIC = 0x62656572;
const UUID = /^\{?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?$/i;
const PCI_ADDRESS = /^(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/i;

export class DeviceTree {
  /** "" for the system itself. */
  readonly root: string;
  readonly bus: string;
  readonly kind: TreeKind;

  /** Throws VmbusError when there is no vmbus below the root. */
  constructor(root: string) {
    this.root = root.replace(/\/+$/, '');
    this.bus = `${this.root}/sys/bus/vmbus`;
    if (!isDirectory(`${this.bus}/devices`)) {
      throw new VmbusError(
        `${this.bus}: not there; ` +
          (this.root === '' ? 'this is no Hyper-V guest (or hv_vmbus is not loaded)' : 'expected a machine directory'),
      );
    }
    if (statfsSync(this.bus).type === SYSFS_MAGIC) this.kind = 'kernel';
    else
      this.kind = lstatSync(`${this.bus}/drivers_probe`, { throwIfNoEntry: false })?.isFIFO() ? 'machine' : 'recorded';
  }

  /** Network devices, by UUID. */
  devices(): readonly BusDevice[] {
    return scanBus(this.root === '' ? '/' : this.root).devices;
  }

  /**
   * The network device that a user calls by UUID, by its directory's name, or by an interface that it has. Throws
   * VmbusError: there is none, or it is on PCI or another bus.
   */
  device(name: string): BusDevice {
    if (PCI_ADDRESS.test(name)) throw pciError(name);
    const wanted = UUID.exec(name)?.[1]?.toLowerCase();
    const { devices, problems } = scanBus(this.root === '' ? '/' : this.root);
    const found = devices.find((device) => device.uuid === wanted || path.basename(device.path) === name);
    if (found) return found;
    if (wanted === undefined) return this.#deviceOf(name, devices);
    const problem = problems.find(({ path: at }) => path.basename(at).toLowerCase() === wanted);
    if (problem) throw new VmbusError(problem.reason);
    if (isDirectory(`${this.bus}/devices/${wanted}`)) {
      throw new VmbusError(`${name}: is no network device, its class is ${this.#classOf(wanted)}`);
    }
    throw noDevice(name, devices);
  }

  /** Interfaces that the kernel has made for a device. */
  interfaces(device: BusDevice): string[] {
    return isDirectory(`${device.path}/net`) ? readdirSync(`${device.path}/net`).sort() : [];
  }

  /** Driver that the device is reserved for. */
  override(device: BusDevice): string | undefined {
    return readOverride(device.path);
  }

  /** False before kernel 4.18. */
  hasOverride(device: BusDevice): boolean {
    return lstatSync(`${device.path}/driver_override`, { throwIfNoEntry: false })?.isFile() ?? false;
  }

  hasDriver(driver: string): boolean {
    return isDirectory(`${this.bus}/drivers/${driver}`);
  }

  driverOf(device: BusDevice): string | undefined {
    return readDriver(device.path);
  }

  #classOf(uuid: string): string {
    return readAttribute(`${this.bus}/devices/${uuid}/class_id`);
  }

  #deviceOf(name: string, devices: readonly BusDevice[]): BusDevice {
    const link = `${this.root}/sys/class/net/${name}`;
    if (name.includes('/') || name.startsWith('.') || !isDirectory(link)) throw noDevice(name, devices);
    if (!isDirectory(`${link}/device`)) {
      throw new VmbusError(`interface ${name}: there is no device behind it (a virtual interface)`);
    }
    const target = realpathSync(`${link}/device`);
    const found = devices.find((device) => realpathSync(device.path) === target);
    if (found) return found;
    const bus = linkName(`${target}/subsystem`) ?? 'unknown';
    if (bus === 'pci' || PCI_ADDRESS.test(path.basename(target))) throw pciError(name, path.basename(target));
    throw new VmbusError(`interface ${name}: its device ${path.basename(target)} is on bus ${bus}, not on vmbus`);
  }
}

function noDevice(name: string, devices: readonly BusDevice[]): VmbusError {
  const known = devices.map(({ uuid }) => uuid).join(', ') || 'none';
  return new VmbusError(`${name}: no network device of that UUID, and no such interface (on vmbus: ${known})`);
}

function pciError(name: string, address = name): VmbusError {
  const what = name === address ? name : `interface ${name} (${address})`;
  return new VmbusError(
    `${what}: is a PCI device: dpdk-devbind and driverctl do those; as a VF it follows its NetVSC device by itself`,
  );
}

function isDirectory(at: string): boolean {
  return statSync(at, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function linkName(at: string): string | undefined {
  try {
    return path.basename(readlinkSync(at));
  } catch {
    return undefined;
  }
}
