// A machine directory: the tree of DESIGN.md "The one surface", made and served by a host. Other processes find and open
// its devices by file names; the maps are sealed memory files that they reach through /proc/<pid>/fd links.
import { closeSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import type { Arena } from '../../memory/arena.js';
import { createSealedMemory, linkSealedMemory } from '../../memory/os/memfd.js';
import { listenUnix } from '../../memory/os/socket.js';
import { createMachineDirectory } from '../../memory/rundir.js';
import { NETVSC_CLASS, PAGE_BYTES, VmbusError } from '../device.js';
import { splitRings } from '../rings.js';
import { formatAddress } from './attributes.js';
import type { GuestPagesLimits } from './guest-pages.js';
import { MAP_NAMES } from './maps.js';
import { MONITOR_IDS, MONITOR_NONE, MonitorTrigger } from './monitor.js';
import { UioOffer } from './offer.js';

/** A NIC of the machine. Sizes in bytes, whole pages. */
export interface MachineNic {
  readonly uuid: string;
  /** Channel id, 1..2047. */
  readonly relid: number;
  /** Both rings with their control pages (default 4 MiB). */
  readonly ringBytes?: number;
  /** Default 31 MiB and 16 MiB; pages take memory when they are touched. */
  readonly receiveBytes?: number;
  readonly sendBytes?: number;
}

export interface MachineOptions {
  readonly name: string;
  readonly nics: readonly MachineNic[];
  /** How much of each guest the host maps. */
  readonly limits?: Partial<GuestPagesLimits>;
}

/** A served machine directory. */
export interface Machine {
  /** What guests get as their root. */
  readonly path: string;
  /** In the order of the options' NICs. */
  readonly offers: readonly UioOffer[];
  /** Withdraws all devices and removes the directory. */
  close(): void;
}

/** The first GPADL handle that a Linux guest hands out. */
const FIRST_GPADL = 0xe1e10;
const DEFAULT_LIMITS: GuestPagesLimits = {
  bytes: 2 ** 29,
  regions: 256,
  rereadMs: 10,
  clock: () => performance.now(),
};

/** Makes the directory of a machine and listens for guests. Throws VmbusError, with everything undone. */
export function createMachine(arena: Arena, options: MachineOptions): Machine {
  const undo: (() => void)[] = [];
  const close = () => {
    for (const action of undo.splice(0).reverse()) action();
  };
  try {
    const directory = createMachineDirectory(options.name);
    undo.push(() => directory.remove());
    mkdirSync(`${directory.path}/sys/bus/vmbus/devices`, { recursive: true, mode: 0o700 });
    mkdirSync(`${directory.path}/dev`, { mode: 0o700 });
    const limits = { ...DEFAULT_LIMITS, ...options.limits };
    const offers = options.nics.map((nic, index) => {
      const offer = addNic(arena, directory.path, nic, index, limits, undo);
      undo.push(() => offer.rescind());
      return offer;
    });
    return { path: directory.path, offers, close };
  } catch (cause) {
    close();
    if (cause instanceof VmbusError) throw cause;
    throw new VmbusError(`machine ${options.name}: ${(cause as Error).message}`, { cause });
  }
}

function addNic(
  arena: Arena,
  root: string,
  nic: MachineNic,
  index: number,
  limits: GuestPagesLimits,
  undo: (() => void)[],
): UioOffer {
  const uio = `uio${index}`;
  const { uuid, relid } = nic;
  const gpadls = [FIRST_GPADL + 2 * index, FIRST_GPADL + 2 * index + 1] as const;
  const sizes = [
    nic.ringBytes ?? 4 << 20,
    PAGE_BYTES,
    PAGE_BYTES,
    nic.receiveBytes ?? 31 << 20,
    nic.sendBytes ?? 16 << 20,
  ];
  const names = MAP_NAMES.map((name, map) => (map < 3 ? name : `${name}${gpadls[map - 3]}`));
  const maps = sizes.map((bytes, map) => {
    const file = createSealedMemory(`netvsc ${uio} ${names[map]}`, bytes).fd;
    undo.push(() => closeSync(file));
    const address = arena.mapFile(`${uio} ${names[map]}`, file, 0, bytes);
    undo.push(() => arena.release(address));
    return { name: names[map]!, file, address, bytes };
  });
  const [rings, , monitorPage, receive, send] = maps as [MachineMap, MachineMap, MachineMap, MachineMap, MachineMap];
  const { first, second } = splitRings(rings.address, rings.bytes);

  const device = `${root}/sys/bus/vmbus/devices/${uuid}`;
  const monitor = index < MONITOR_IDS ? index : undefined;
  writeAttributes(device, uuid, relid);
  // DPDK's bus takes no device without one; 255 is none.
  writeAttribute(device, 'monitor_id', String(monitor ?? MONITOR_NONE));
  writeUio(`${device}/uio/${uio}`, maps);
  const channel = `${device}/channels/${relid}`;
  writeAttribute(channel, 'subchannel_id', '0');
  linkSealedMemory(`${channel}/ring`, rings.file);
  const node = `${root}/dev/${uio}`;
  const links = maps.map((_, map) => `${node}.map${map}`);
  for (const [map, path] of links.entries()) linkSealedMemory(path, maps[map]!.file);
  const listener = listenUnix(node);
  return new UioOffer({
    arena,
    uuid,
    relid,
    fromGuest: first,
    toGuest: second,
    receiveBuffer: { gpadl: gpadls[0], address: receive.address, bytes: receive.bytes },
    sendBuffer: { gpadl: gpadls[1], address: send.address, bytes: send.bytes },
    listener,
    ringFile: rings.file,
    monitor: monitor === undefined ? undefined : new MonitorTrigger(arena, monitorPage.address, monitor),
    limits,
    withdraw: () => {
      for (const path of [node, ...links]) rmSync(path, { force: true });
      rmSync(device, { recursive: true, force: true });
    },
  });
}

interface MachineMap {
  readonly name: string;
  readonly file: number;
  readonly address: number;
  readonly bytes: number;
}

function writeAttributes(device: string, uuid: string, relid: number): void {
  writeAttribute(device, 'class_id', `{${NETVSC_CLASS}}`);
  writeAttribute(device, 'device_id', `{${uuid}}`);
  writeAttribute(device, 'id', String(relid));
  writeAttribute(device, 'vendor', '0x1414');
  writeAttribute(device, 'device', '0x3');
  writeAttribute(device, 'driver_override', '(null)');
}

function writeUio(path: string, maps: readonly MachineMap[]): void {
  writeAttribute(path, 'name', 'uio_hv_generic');
  writeAttribute(path, 'version', '0.02.1');
  for (const [index, map] of maps.entries()) {
    const directory = `${path}/maps/map${index}`;
    writeAttribute(directory, 'name', map.name);
    writeAttribute(directory, 'size', formatAddress(map.bytes));
    writeAttribute(directory, 'addr', formatAddress(0));
    writeAttribute(directory, 'offset', '0x0');
  }
}

function writeAttribute(directory: string, name: string, text: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  writeFileSync(`${directory}/${name}`, `${text}\n`, { mode: 0o600 });
}
