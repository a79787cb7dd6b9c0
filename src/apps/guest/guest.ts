// netvsc guest: our driver on a machine of another process, with a TAP interface, or a station of its own, behind it. It
// says when the host is gone, and on request attaches to the one that comes after it.
import { closeSync, existsSync } from 'node:fs';
import { createDatapath, type Datapath } from '../../datapath/datapath.js';
import { type Pollable, PollLoop } from '../../ethdev/loop.js';
import { Arena } from '../../memory/arena.js';
import { linuxSystem } from '../../memory/os/mman.js';
import { openTap, setTapCarrier, setTapOffload } from '../../memory/os/tap.js';
import { machinePath } from '../../memory/rundir.js';
import type { NetvscEvent, NetvscInfo } from '../../netvsc/types.js';
import type { VmbusDevice } from '../../vmbus/device.js';
import { VmbusError } from '../../vmbus/device.js';
import { openUioDevice } from '../../vmbus/uio/device.js';
import { scanBus } from '../../vmbus/uio/scan.js';
import { createGuestNic, type GuestNic } from '../guest-nic.js';
import { type Interrupted, onInterrupt } from '../interrupt.js';
import { TapNic } from '../tap-nic.js';
import { tapOffload } from '../tap-offload.js';
import { Station, type StationOptions } from './station.js';

/** Rings, buffers and packet memory of one NIC, twice: the old ones go after the new ones are there. */
const ARENA_BYTES = 256 << 20;
/** Rings and tables of each further queue, twice. */
const QUEUE_BYTES = 12 << 20;
/** How often to look for a machine that is not there. */
const RETRY_MS = 20;

export interface GuestAppOptions {
  /** Name of a machine, or the path of its directory; "/": this system. */
  readonly machine: string;
  /** Which device: its place in the order of channel ids, or its UUID. */
  readonly nic: number | string;
  readonly traffic: { readonly mode: 'tap'; readonly tap: string } | StationOptions;
  readonly mtu?: number;
  /** Channels wanted (default 1). */
  readonly queues?: number;
  /** When the host is gone, or not there yet: wait for it. */
  readonly reattach?: boolean;
  /** Ends by itself after that time. */
  readonly seconds?: number;
}

export type GuestAppEvent =
  | { readonly type: 'attached'; readonly uuid: string; readonly path: string; readonly info: NetvscInfo }
  /** The host is gone, or the device failed; `reason` names device and cause. */
  | { readonly type: 'gone'; readonly reason: string }
  | NetvscEvent;

export interface GuestAppResult {
  /** Undefined: the time was over. */
  readonly ended: Interrupted | undefined;
  /** Counters of the last device and of its traffic. */
  readonly stats: Readonly<Record<string, number>>;
}

interface Attached {
  /** Resolves to the reason when the device has failed. */
  readonly failed: Promise<string>;
  stats(): Record<string, number>;
  close(): Promise<void>;
}

/**
 * Runs until a signal comes, the time is over or, without `reattach`, the host is gone (rejects with a VmbusError then).
 * `onStats`, when given, is handed a function that reads the counters at any time.
 */
export async function runGuest(
  options: GuestAppOptions,
  onEvent: (event: GuestAppEvent) => void,
  onStats?: (read: () => Readonly<Record<string, number>>) => void,
): Promise<GuestAppResult> {
  const interrupt = onInterrupt(() => {});
  const { over, stop } = deadline(options.seconds);
  const ends = Promise.race([interrupt.happened.catch((reason: Interrupted) => reason), over]);
  const arena = Arena.create({
    bytes: ARENA_BYTES + ((options.queues ?? 1) - 1) * QUEUE_BYTES,
    system: linuxSystem,
  });
  const datapath = createDatapath(arena.memory);
  const tap = options.traffic.mode === 'tap' ? openTap(options.traffic.tap) : undefined;
  const loop = new PollLoop();
  let attached: Attached | undefined;
  onStats?.(() => attached?.stats() ?? {});
  try {
    loop.start();
    for (;;) {
      attached = await attach(options, arena, datapath, loop, tap?.fd, onEvent, ends);
      if (attached === undefined) return { ended: (await ends) ?? undefined, stats: {} };
      const first = await Promise.race([attached.failed, ends]);
      const stats = attached.stats();
      await attached.close();
      attached = undefined;
      if (typeof first !== 'string') return { ended: first ?? undefined, stats };
      if (tap) setTapCarrier(tap.fd, false);
      onEvent({ type: 'gone', reason: first });
      if (options.reattach !== true) throw new VmbusError(first);
    }
  } finally {
    stop();
    await attached?.close();
    await loop.stop();
    loop.close();
    if (tap) closeSync(tap.fd);
    interrupt.over();
  }
}

/** Attaches, or with `reattach` tries until it can; undefined when the guest is to end before that. */
async function attach(
  options: GuestAppOptions,
  arena: Arena,
  datapath: Datapath,
  loop: PollLoop,
  tapFd: number | undefined,
  onEvent: (event: GuestAppEvent) => void,
  ends: Promise<unknown>,
): Promise<Attached | undefined> {
  let over = false;
  let abort: () => void = () => {};
  void ends.then(() => {
    over = true;
    abort();
  });
  while (!over) {
    try {
      return await attachOnce(options, arena, datapath, loop, tapFd, onEvent, (how) => {
        abort = how;
      });
    } catch (error) {
      if (options.reattach !== true && !over) throw error;
    }
    const again = deadline(RETRY_MS / 1000);
    await Promise.race([again.over, ends]);
    again.stop();
  }
  return undefined;
}

/** `abortBy` is given what ends an attach that the host does not answer. */
async function attachOnce(
  options: GuestAppOptions,
  arena: Arena,
  datapath: Datapath,
  loop: PollLoop,
  tapFd: number | undefined,
  onEvent: (event: GuestAppEvent) => void,
  abortBy: (abort: () => void) => void,
): Promise<Attached> {
  const { mtu = 1500, queues = 1 } = options;
  const path = options.machine.includes('/') ? options.machine : machinePath(options.machine);
  const device = openUioDevice(arena, path, uuidOf(path, options.nic));
  let fail: (reason: string) => void = () => {};
  const failed = new Promise<string>((resolve) => {
    fail = resolve;
  });
  const nic = createGuestNic(arena, datapath, device, {
    ...{ mtu, queues },
    onEvent: (event) => {
      if (event.type === 'failed') fail(event.reason);
      else onEvent(event);
    },
  });
  const behind = makeTraffic(arena, datapath, nic, options, tapFd, mtu);
  loop.add(behind.member);
  const close = async () => {
    await nic.device.detach();
    loop.remove(behind.member);
    behind.member.close();
    nic.close();
    device.close();
  };
  try {
    const attaching = nic.device.attach();
    abortBy(() => void nic.device.detach());
    const info = await attaching;
    abortBy(() => {});
    behind.start(info);
    onEvent({ type: 'attached', uuid: device.uuid, path, info });
  } catch (error) {
    await close();
    throw error;
  }
  return { failed, close, stats: () => ({ ...nic.device.stats(), ...behind.stats() }) };
}

interface Traffic {
  readonly member: Pollable & { close(): void };
  start(info: NetvscInfo): void;
  stats(): Record<string, number>;
}

function makeTraffic(
  arena: Arena,
  datapath: Datapath,
  nic: GuestNic,
  { traffic, queues = 1 }: GuestAppOptions,
  tapFd: number | undefined,
  mtu: number,
): Traffic {
  if (traffic.mode !== 'tap') {
    const station = new Station(arena, datapath, nic, traffic, queues);
    return { member: station, start: (info) => station.start(info), stats: () => ({ ...station.stats }) };
  }
  const bridge = new TapNic(arena, datapath, nic, tapFd!, mtu);
  const start = ({ offloads }: NetvscInfo) => {
    setTapOffload(tapFd!, tapOffload(offloads));
    setTapCarrier(tapFd!, true);
  };
  return { member: bridge, start, stats: () => ({ ...bridge.stats }) };
}

/** The device's UUID. Throws VmbusError that lists what there is. */
function uuidOf(path: string, nic: number | string): VmbusDevice['uuid'] {
  if (!existsSync(path))
    throw new VmbusError(`no machine at ${path}: is its host running (netvsc host --machine ...)?`);
  if (typeof nic === 'string') return nic;
  const devices = [...scanBus(path).devices].sort((a, b) => a.relid - b.relid);
  const found = devices[nic];
  if (found) return found.uuid;
  const where = path === '/' ? 'the vmbus of this system' : `machine ${path}`;
  throw new VmbusError(`${where}: no NIC ${nic}, there are ${devices.length}`);
}

/** Resolves to undefined after that time, or never. */
function deadline(seconds: number | undefined): { over: Promise<undefined>; stop(): void } {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<undefined>((resolve) => {
    if (seconds !== undefined) timer = setTimeout(() => resolve(undefined), seconds * 1000);
  });
  return { over, stop: () => clearTimeout(timer) };
}
