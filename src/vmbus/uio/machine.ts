// A machine directory: the tree of DESIGN.md "The one surface", made and served by a host. Other processes find and open
// its devices by file names; the maps are sealed memory files that they reach through /proc/<pid>/fd links.
import { closeSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import type { Arena } from '../../memory/arena.js';
import { createSealedMemory, linkSealedMemory } from '../../memory/os/memfd.js';
import { listenUnix } from '../../memory/os/socket.js';
import { createMachineDirectory } from '../../memory/rundir.js';
import { NETVSC_CLASS, PAGE_BYTES, VmbusError } from '../device.js';
import { initLatency, MONITOR_IDS } from '../doorbell.js';
import { splitRings } from '../rings.js';
import { formatAddress } from './attributes.js';
import { DriverCore, type DriverDevice } from './drivers.js';
import type { GuestPagesLimits } from './guest-pages.js';
import { MAP_NAMES } from './maps.js';
import { type SubchannelParts, UioOffer } from './offer.js';
import { MONITOR_NONE } from './scan.js';

/** A NIC of the machine. Sizes in bytes, whole pages. */
export interface MachineNic {
  readonly uuid: string;
  /** Channel id, 1..2047; default the lowest that is free. */
  readonly relid?: number;
  /** Both rings with their control pages (default 4 MiB). */
  readonly ringBytes?: number;
  /** The same of each subchannel (default 4 MiB, as a kernel makes them). */
  readonly subchannelRingBytes?: number;
  /** Its guests trigger the host through the monitor page even if they know of interrupts, as ours does. Default false: the
   *  channels have monitor ids for strangers, while there are any, but the host sleeps until our guest interrupts it. */
  readonly monitor?: boolean;
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
  /** In the order in which they came, those of the options first. */
  readonly offers: readonly UioOffer[];
  /** Which driver has which device. */
  readonly drivers: DriverCore;
  /** About once a millisecond: does what was written to the files of /sys/bus/vmbus. */
  tick(): void;
  /** A device that comes while the machine runs. Throws VmbusError. */
  add(nic: MachineNic): UioOffer;
  /** Withdraws a device and gives back what it had; a guest that has it open is told by a rescind and keeps its own mappings. */
  remove(uuid: string): void;
  /** Withdraws all devices and removes the directory. */
  close(): void;
}

/** Channel ids end here (facts/hyper-v-host.md 2.4). */
const RELID_MAX = 2047;
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
  const close = () => unwind(undo);
  const failed = (cause: unknown) => {
    if (cause instanceof VmbusError) return cause;
    return new VmbusError(`machine ${options.name}: ${(cause as Error).message}`, { cause });
  };
  try {
    const directory = createMachineDirectory(options.name);
    undo.push(() => directory.remove());
    mkdirSync(`${directory.path}/sys/bus/vmbus/devices`, { recursive: true, mode: 0o700 });
    mkdirSync(`${directory.path}/dev`, { mode: 0o700 });
    const drivers = new DriverCore(directory.path);
    undo.push(() => drivers.close());
    const context: MachineContext = {
      arena,
      root: directory.path,
      limits: { ...DEFAULT_LIMITS, ...options.limits },
      drivers,
      relids: new Set(),
      monitors: new Set(),
      nodes: new Set(),
    };
    const offers: UioOffer[] = [];
    const holdings = new Map<string, (() => void)[]>();
    const add = (nic: MachineNic) => {
      const its: (() => void)[] = [];
      try {
        const offer = addNic(context, nic, its);
        offers.push(offer);
        holdings.set(nic.uuid, its);
        return offer;
      } catch (cause) {
        unwind(its);
        throw failed(cause);
      }
    };
    const remove = (uuid: string) => {
      unwind(holdings.get(uuid) ?? []);
      holdings.delete(uuid);
      offers.splice(0, offers.length, ...offers.filter((offer) => offer.uuid !== uuid));
    };
    undo.push(() => {
      for (const { uuid } of offers.toReversed()) remove(uuid);
    });
    for (const nic of options.nics) add(nic);
    return { path: directory.path, offers, drivers, tick: () => drivers.tick(), add, remove, close };
  } catch (cause) {
    close();
    throw failed(cause);
  }
}

/** Does what undoes the steps done, the last step first. */
function unwind(undo: (() => void)[]): void {
  for (const action of undo.splice(0).reverse()) action();
}

/** What the NICs of a machine share. */
interface MachineContext {
  readonly arena: Arena;
  readonly root: string;
  readonly limits: GuestPagesLimits;
  readonly drivers: DriverCore;
  /** Channel ids, monitor ids and numbers of /dev/uioN in use. */
  readonly relids: Set<number>;
  readonly monitors: Set<number>;
  readonly nodes: Set<number>;
}

function addNic(context: MachineContext, nic: MachineNic, undo: (() => void)[]): UioOffer {
  const { arena, root, limits, drivers, relids, monitors, nodes } = context;
  const { uuid, relid = freeRelid(context) } = nic;
  const device = `${root}/sys/bus/vmbus/devices/${uuid}`;
  if (existsSync(device)) throw new VmbusError(`vmbus ${uuid}: there is a device of that id`);
  if (relids.has(relid)) throw new VmbusError(`vmbus ${uuid}: channel id ${relid} is in use`);
  relids.add(relid);
  undo.push(() => relids.delete(relid));
  let index = 0;
  while (nodes.has(index)) index++;
  nodes.add(index);
  undo.push(() => nodes.delete(index));
  const uio = `uio${index}`;
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
  const [rings, interrupt, monitor, receive, send] = maps as [
    MachineMap,
    MachineMap,
    MachineMap,
    MachineMap,
    MachineMap,
  ];
  const { first, second } = splitRings(rings.address, rings.bytes);
  const takeMonitor = () => freeMonitor(context, monitor.address);
  const monitorId = takeMonitor();
  if (monitorId !== undefined) undo.push(() => monitors.delete(monitorId));

  writeAttributes(device, uuid, relid);
  writeMonitorId(device, monitorId);
  writeChannel(`${device}/channels/${relid}`, 0, monitorId, rings.file);
  const node = `${root}/dev/${uio}`;
  const links = maps.map((_, map) => `${node}.map${map}`);
  const offer: UioOffer = new UioOffer({
    arena,
    uuid,
    relid,
    monitorId,
    monitored: nic.monitor ?? false,
    fromGuest: first,
    toGuest: second,
    interruptPage: interrupt.address,
    monitorPage: monitor.address,
    makeSubchannel: (subchannelId) =>
      addSubchannel(context, {
        name: `${uio} subchannel ${subchannelId} rings`,
        channels: `${device}/channels`,
        subchannelId,
        bytes: nic.subchannelRingBytes ?? 4 << 20,
        takeMonitor,
      }),
    receiveBuffer: { gpadl: gpadls[0], address: receive.address, bytes: receive.bytes },
    sendBuffer: { gpadl: gpadls[1], address: send.address, bytes: send.bytes },
    publish: () => {
      for (const [map, path] of links.entries()) linkSealedMemory(path, maps[map]!.file);
      const listener = listenUnix(node);
      // Whole at once, for guests that look in the middle of it.
      writeUio(`${device}/.uio/${uio}`, maps);
      renameSync(`${device}/.uio`, `${device}/uio`);
      return listener;
    },
    hide: () => {
      for (const path of [`${device}/uio`, node, ...links]) rmSync(path, { recursive: true, force: true });
    },
    ringFile: rings.file,
    limits,
    withdraw: () => {
      drivers.forget(entry);
      rmSync(device, { recursive: true, force: true });
    },
  });
  const entry: DriverDevice = {
    uuid,
    path: device,
    probe: (driver) => driver === 'uio_hv_generic' && offer.publish(),
    remove: () => offer.hide(),
  };
  undo.push(() => offer.rescind());
  const refusal = drivers.add(entry);
  if (refusal) throw new VmbusError(refusal);
  return offer;
}

interface SubchannelPlan {
  readonly name: string;
  /** The device's directory of channels. */
  readonly channels: string;
  readonly subchannelId: number;
  readonly bytes: number;
  readonly takeMonitor: () => number | undefined;
}

function addSubchannel(context: MachineContext, plan: SubchannelPlan): SubchannelParts {
  const { arena, relids, monitors } = context;
  const { name, channels, subchannelId, bytes } = plan;
  const relid = freeRelid(context);
  const file = createSealedMemory(`netvsc ${name}`, bytes).fd;
  let address: number;
  try {
    address = arena.mapFile(name, file, 0, bytes);
  } catch (error) {
    closeSync(file);
    throw error;
  }
  relids.add(relid);
  const monitorId = plan.takeMonitor();
  const { first, second } = splitRings(address, bytes);
  const path = `${channels}/${relid}`;
  return {
    relid,
    monitorId,
    fromGuest: first,
    toGuest: second,
    publish: () => {
      // Guests that are looking already see the directory with everything in it. Its first name is no number, thus none of theirs.
      const draft = `${channels}/.${relid}`;
      writeChannel(draft, subchannelId, monitorId, file);
      renameSync(draft, path);
    },
    withdraw: () => {
      rmSync(path, { recursive: true, force: true });
      arena.release(address);
      closeSync(file);
      relids.delete(relid);
      if (monitorId !== undefined) monitors.delete(monitorId);
    },
  };
}

function freeRelid({ relids }: MachineContext): number {
  let relid = 1;
  while (relids.has(relid)) relid++;
  if (relid > RELID_MAX) throw new VmbusError(`all ${RELID_MAX} channel ids are in use`);
  return relid;
}

/** The lowest monitor id that is free, with the usual latency in this NIC's page. */
function freeMonitor({ arena, monitors }: MachineContext, page: number): number | undefined {
  for (let id = 0; id < MONITOR_IDS; id++) {
    if (monitors.has(id)) continue;
    monitors.add(id);
    initLatency(arena, page, id);
    return id;
  }
  return undefined;
}

/** A channel's directory: its attributes, then the rings, which is what guests look for. */
function writeChannel(path: string, subchannelId: number, monitorId: number | undefined, rings: number): void {
  writeAttribute(path, 'subchannel_id', String(subchannelId));
  writeMonitorId(path, monitorId);
  linkSealedMemory(`${path}/ring`, rings);
}

/** DPDK 22.11 finds no device at all when one has no such file. */
function writeMonitorId(path: string, monitorId: number | undefined): void {
  writeAttribute(path, 'monitor_id', String(monitorId ?? MONITOR_NONE));
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
  // Each opening counts from 0: what a guest reads is the count that it began with.
  writeAttribute(path, 'event', '0');
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
