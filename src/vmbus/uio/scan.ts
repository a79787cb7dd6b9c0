// Finds network devices in a sysfs-like tree, after the rules of DPDK's bus (facts/dpdk.md 1.1), except that a bad
// device costs only itself, not the scan.
import { readdirSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { NETVSC_CLASS, VmbusError } from '../device.js';
import { MONITOR_IDS } from '../doorbell.js';
import { parseNumber, parseUuid, quote, readAttribute, readOptionalAttribute } from './attributes.js';

/** A network device as the tree describes it. */
export interface BusDevice {
  /** Device id, lower case. */
  readonly uuid: string;
  readonly classId: string;
  readonly relid: number;
  /** 0..127, or undefined when the host polls no monitor page for it. */
  readonly monitorId: number | undefined;
  /** Its directory in the tree. */
  readonly path: string;
  /** Name of its uio node ("uio0"), or undefined when no uio driver is bound to it. */
  readonly uio: string | undefined;
  /** Name of the driver that has it ("hv_netvsc"), or undefined when none has. */
  readonly driver: string | undefined;
}

/** A directory that looked like a device but is not usable. */
export interface ScanProblem {
  readonly path: string;
  readonly reason: string;
}

export interface BusScan {
  /** Sorted by uuid. */
  readonly devices: readonly BusDevice[];
  readonly problems: readonly ScanProblem[];
}

/** Subchannel discovery of other drivers takes relids up to here, too. */
export const RELID_MAX = 65_535;
/** What `monitor_id` says when there is none. */
export const MONITOR_NONE = 255;

/** All network devices below `<root>/sys/bus/vmbus/devices`; none when that does not exist. Throws VmbusError when it cannot be listed. */
export function scanBus(root: string): BusScan {
  const bus = `${root === '/' ? '' : root}/sys/bus/vmbus/devices`;
  const devices = new Map<string, BusDevice>();
  const problems: ScanProblem[] = [];
  for (const name of listBus(bus)) {
    const path = `${bus}/${name}`;
    try {
      const device = readDevice(path);
      if (!device) continue;
      const other = devices.get(device.uuid);
      if (other) throw new VmbusError(`${path}: device ${device.uuid} is already known as ${other.path}`);
      devices.set(device.uuid, device);
    } catch (error) {
      if (!(error instanceof VmbusError)) throw error;
      problems.push({ path, reason: error.message });
    }
  }
  return { devices: [...devices.values()].sort((a, b) => (a.uuid < b.uuid ? -1 : 1)), problems };
}

function listBus(path: string): string[] {
  try {
    return readdirSync(path).sort();
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') return [];
    throw new VmbusError(`${path}: cannot be listed (${code ?? cause})`, { cause });
  }
}

/** Undefined for devices of other classes, of which nothing else is read. */
function readDevice(path: string): BusDevice | undefined {
  const classId = parseUuid(readAttribute(`${path}/class_id`), `${path}/class_id`);
  if (classId !== NETVSC_CLASS) return undefined;
  const uuid = parseUuid(readAttribute(`${path}/device_id`), `${path}/device_id`);
  const relid = parseNumber(readAttribute(`${path}/id`), 1, RELID_MAX, `${path}/id`);
  const monitorId = readMonitorId(`${path}/monitor_id`);
  return { uuid, classId, relid, monitorId, path, uio: findUio(`${path}/uio`), driver: readDriver(path) };
}

/** Driver of the device in that directory, by the end of its `driver` link. */
export function readDriver(path: string): string | undefined {
  try {
    return basename(readlinkSync(`${path}/driver`));
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') return undefined;
    throw new VmbusError(`${path}/driver: cannot be read (${code ?? cause})`, { cause });
  }
}

/** Undefined: no such file, or 255, which is none. Throws VmbusError for what is no monitor id. */
export function readMonitorId(path: string): number | undefined {
  const text = readOptionalAttribute(path);
  if (text === undefined) return undefined;
  const id = parseNumber(text, 0, MONITOR_NONE, path);
  if (id === MONITOR_NONE) return undefined;
  if (id >= MONITOR_IDS)
    throw new VmbusError(`${path}: expected a monitor id below ${MONITOR_IDS}, got ${quote(text)}`);
  return id;
}

function findUio(path: string): string | undefined {
  try {
    return readdirSync(path).find((name) => /^uio[0-9]{1,9}$/.test(name));
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') return undefined;
    throw new VmbusError(`${path}: cannot be listed (${code ?? cause})`, { cause });
  }
}
