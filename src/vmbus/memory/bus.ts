// Guest and host in one arena: what tests, the simulator and a browser use. No system call, no descriptor; interrupts
// are counters that the other side's poll finds.
import type { Arena } from '../../memory/arena.js';
import {
  type GpadlRegion,
  type GuestMemory,
  type GuestRegion,
  NETVSC_CLASS,
  type OpenChannel,
  PAGE_BYTES,
  type PageSpan,
  type RingRegion,
  type VmbusDevice,
  VmbusError,
  type VmbusOffer,
} from '../device.js';
import { initLatency, latencyMs, MONITOR_IDS, setLatency, setTrigger, takeTrigger } from '../doorbell.js';
import { openHostRings, splitRings, zeroControlPage } from '../rings.js';
import { type BusParts, MemorySubchannels } from './subchannels.js';

export interface MemoryBusOptions {
  /** NICs on the bus (default 1). */
  readonly devices?: number;
  /** Bytes of both rings of a channel together, control pages included (default 4 MiB). */
  readonly ringBytes?: number;
  readonly receiveBytes?: number;
  readonly sendBytes?: number;
  /** Number of the first device, from which relid and UUID follow (default 0): two buses of one test differ in it. */
  readonly firstDevice?: number;
  /** GPADL of the first device's receive buffer; the others count up (default 0xe1e10, the first a Linux guest uses). */
  readonly firstGpadl?: number;
  /** Guest memory cannot be mapped, only copied, as memory of a process that is not in files (default false). */
  readonly unmappable?: boolean;
  /** Channels have monitor ids: guests trigger the host through a monitor page (default false: interrupts). */
  readonly monitor?: boolean;
}

/** One NIC from both sides. */
export interface MemoryPair {
  readonly device: VmbusDevice;
  readonly offer: VmbusOffer;
}

export interface MemoryBus {
  readonly pairs: readonly MemoryPair[];
  /** Guest memory of all devices of the bus. */
  readonly memory: GuestMemory;
  /** The guest dies without a word: offers report `closed`, its memory is gone. Devices can be opened again (a new guest). */
  killGuest(): void;
  /** The host dies: devices report -1 for good. */
  killHost(): void;
  /** Gives all arena memory back. */
  close(): void;
}

interface Device {
  readonly uuid: string;
  readonly relid: number;
  readonly monitorId: number | undefined;
  readonly transmit: RingRegion;
  readonly receive: RingRegion;
  readonly receiveBuffer: GpadlRegion;
  readonly sendBuffer: GpadlRegion;
  /** What the GPADL of the present opening covers. */
  receiveBytes: number;
  open: boolean;
  hostGone: boolean;
  /** Events that offer.poll() has not reported yet. */
  opened: boolean;
  closed: boolean;
  toHost: number;
  toGuest: number;
  /** Subchannels of the present opening. */
  subchannels: MemorySubchannels | undefined;
  /** Those of openings whose end the host has not heard of yet, or after which the guest has not closed the device. */
  ended: MemorySubchannels[];
}

/** A bus of `devices` NICs whose rings and buffers are allocated in `arena`. */
export function createMemoryBus(arena: Arena, options: MemoryBusOptions = {}): MemoryBus {
  const memory = new ArenaGuestMemory(arena);
  const ringBytes = options.ringBytes ?? 4 << 20;
  const receiveBytes = options.receiveBytes ?? 31 << 20;
  const sendBytes = options.sendBytes ?? 16 << 20;
  const firstGpadl = options.firstGpadl ?? 0xe1e10;
  const firstDevice = options.firstDevice ?? 0;
  const maps: number[] = [];
  const states: Device[] = [];
  const devices = options.devices ?? 1;
  const parts: BusParts = { arena, ringBytes, relids: new Set(), monitors: new Set(), monitorPage: 0 };
  const unmappable = options.unmappable ?? false;
  if (options.monitor) {
    parts.monitorPage = arena.reserve('vmbus monitor page', PAGE_BYTES, PAGE_BYTES);
    maps.push(parts.monitorPage);
  }
  const pairs = Array.from({ length: devices }, (_, offset) => {
    const index = firstDevice + offset;
    const map = (name: string, bytes: number): number => {
      const address = arena.reserve(`vmbus ${index} ${name}`, bytes, PAGE_BYTES);
      maps.push(address);
      return address;
    };
    const { first, second } = splitRings(map('rings', ringBytes), ringBytes);
    const gpadl = firstGpadl + 2 * offset;
    const receiveBuffer = { gpadl, address: map('receive buffer', receiveBytes), bytes: receiveBytes };
    const sendBuffer = { gpadl: gpadl + 1, address: map('send buffer', sendBytes), bytes: sendBytes };
    parts.relids.add(index + 1);
    const state: Device = {
      uuid: memoryUuid(index),
      relid: index + 1,
      monitorId: takeMonitor(parts),
      transmit: first,
      receive: second,
      receiveBuffer,
      sendBuffer,
      receiveBytes,
      open: false,
      hostGone: false,
      opened: false,
      closed: false,
      toHost: 0,
      toGuest: 0,
      subchannels: undefined,
      ended: [],
    };
    states.push(state);
    return createPair(arena, memory, state, parts, unmappable);
  });
  const killGuest = () => {
    for (const state of states) guestClose(state);
    memory.releaseAll();
  };
  return {
    pairs,
    memory,
    killGuest,
    killHost() {
      for (const state of states) state.hostGone = true;
    },
    close() {
      killGuest();
      for (const state of states) hostHeard(state);
      for (const address of maps.splice(0)) arena.release(address);
    },
  };
}

function memoryUuid(index: number): string {
  return `00000000-0000-4000-8000-${(index + 1).toString(16).padStart(12, '0')}`;
}

function closeChannel(state: Device): void {
  if (!state.open) return;
  state.open = false;
  state.toGuest = 0;
  if (state.subchannels) state.ended.push(state.subchannels);
  state.subchannels = undefined;
  // An opening that the host never heard of ends unheard, too.
  if (state.opened) state.opened = false;
  else state.closed = true;
}

/** The guest uses the rings no more. */
function guestClose(state: Device): void {
  closeChannel(state);
  for (const subchannels of state.ended) subchannels.guestDone();
  state.ended = state.ended.filter((subchannels) => subchannels.held);
}

/** Nor does the host. */
function hostHeard(state: Device): void {
  for (const subchannels of state.ended) subchannels.hostDone();
  state.ended = state.ended.filter((subchannels) => subchannels.held);
}

/** The lowest free monitor id; undefined on a bus without a monitor page, or when all are taken. */
function takeMonitor({ arena, monitors, monitorPage }: BusParts): number | undefined {
  if (monitorPage === 0) return undefined;
  for (let id = 0; id < MONITOR_IDS; id++) {
    if (monitors.has(id)) continue;
    monitors.add(id);
    initLatency(arena, monitorPage, id);
    return id;
  }
  return undefined;
}

function createPair(
  arena: Arena,
  memory: ArenaGuestMemory,
  state: Device,
  parts: BusParts,
  unmappable: boolean,
): MemoryPair {
  const { uuid, relid, monitorId, receiveBuffer, sendBuffer } = state;
  const { monitorPage } = parts;
  const toHost = (monitor: number | undefined) => {
    if (!state.open) return;
    if (monitor === undefined) state.toHost++;
    else setTrigger(arena, monitorPage, monitor);
  };
  const toGuest = () => {
    if (state.open && !state.hostGone) state.toGuest++;
  };
  const monitored = (): number[] => {
    const subchannels = state.subchannels?.all ?? [];
    const ids = [monitorId, ...subchannels.map(({ offer }) => offer.monitorId)];
    return ids.filter((id) => id !== undefined);
  };
  const channel: OpenChannel = {
    ...{ transmit: state.transmit, receive: state.receive, receiveBuffer, sendBuffer },
    doorbell: 0,
  };
  const device: VmbusDevice = {
    uuid,
    classId: NETVSC_CLASS,
    relid,
    monitorId,
    location: 'memory',
    arena,
    memory,
    sizesReceiveBuffer: true,
    open(receiveBytes = receiveBuffer.bytes) {
      if (state.hostGone) throw new VmbusError(`vmbus ${uuid} (memory): cannot open, the host is gone`);
      if (state.open) throw new VmbusError(`vmbus ${uuid} (memory): cannot open, the channel is open already`);
      zeroControlPage(arena, state.transmit);
      zeroControlPage(arena, state.receive);
      openHostRings(arena, state.transmit, state.receive);
      const pages = Math.ceil(receiveBytes / PAGE_BYTES);
      state.receiveBytes = Math.min(pages * PAGE_BYTES, receiveBuffer.bytes);
      state.open = true;
      state.opened = true;
      state.toHost = 0;
      state.toGuest = 0;
      return channel;
    },
    close: () => guestClose(state),
    openSubchannel: () => state.subchannels?.next(),
    setLatency(units) {
      if (!state.open) return 0;
      for (const id of monitored()) setLatency(arena, monitorPage, id, units);
      return monitored().length;
    },
    signal: () => toHost(monitorId),
    interruptFd: -1,
    takeInterrupts() {
      if (state.hostGone) return -1;
      const count = state.toGuest;
      state.toGuest = 0;
      return count;
    },
  };
  let refusal = '';
  let refused: PageSpan | undefined;
  const polled = { opened: false, closed: false, interrupts: 0 };
  const offer: VmbusOffer = {
    uuid,
    relid,
    monitorId,
    arena,
    fromGuest: state.transmit,
    toGuest: state.receive,
    receiveBuffer,
    receiveBytes: () => state.receiveBytes,
    sendBuffer,
    fds: [],
    poll() {
      // A close is reported alone, so that an opening that followed it is never taken for the one that ended.
      polled.closed = state.closed;
      polled.opened = !state.closed && state.opened;
      polled.interrupts = state.closed ? 0 : state.toHost;
      if (state.closed) {
        state.closed = false;
        hostHeard(state);
      } else {
        if (monitorPage !== 0) {
          for (const id of monitored()) if (takeTrigger(arena, monitorPage, id)) polled.interrupts++;
        }
        state.opened = false;
        state.toHost = 0;
      }
      return polled;
    },
    createSubchannel() {
      if (!state.open) throw new VmbusError(`vmbus ${uuid} (memory): no subchannel, no guest has the channel open`);
      state.subchannels ??= new MemorySubchannels(parts, toHost, toGuest);
      return state.subchannels.create(uuid, () => takeMonitor(parts));
    },
    get monitorMs() {
      let least: number | undefined;
      if (!state.open) return undefined;
      for (const id of monitored())
        least = Math.min(least ?? Number.POSITIVE_INFINITY, latencyMs(arena, monitorPage, id));
      return least;
    },
    signal: toGuest,
    mapGuestPage(pfn) {
      const region = memory.region(pfn);
      refused = unmappable ? region : undefined;
      if (region && !unmappable) return region;
      refusal = `page ${pfn.toString(16)}: ${region ? 'to be copied' : 'not guest memory'}`;
      return undefined;
    },
    get lastRefusal() {
      return refusal;
    },
    get refusedPages() {
      return refused;
    },
    copyGuest: (vectors, count, to) => memory.copy(vectors, count, to),
    guestPid: undefined,
    rescind() {
      state.hostGone = true;
      closeChannel(state);
      hostHeard(state);
    },
  };
  return { device, offer };
}

/** Arena memory whose page frame numbers are arena page numbers. */
class ArenaGuestMemory implements GuestMemory {
  readonly #arena: Arena;
  readonly #regions = new Map<number, GuestRegion>();

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  allocate(name: string, bytes: number): number {
    const pages = Math.ceil(bytes / PAGE_BYTES);
    const address = this.#arena.reserve(name, pages * PAGE_BYTES, PAGE_BYTES);
    this.#regions.set(address, { pfn: this.pfn(address), pages, address });
    return address;
  }

  release(address: number): void {
    if (!this.#regions.delete(address)) {
      throw new VmbusError(`guest memory: nothing was allocated at ${address.toString(16)}`);
    }
    this.#arena.release(address);
  }

  releaseAll(): void {
    for (const address of [...this.#regions.keys()]) this.release(address);
  }

  pfn(address: number): bigint {
    return BigInt(Math.floor(address / PAGE_BYTES));
  }

  /** VmbusOffer.copyGuest(), page by page. */
  copy(vectors: number, count: number, to: number): number {
    const { u8, u64 } = this.#arena;
    let copied = 0;
    for (let i = 0; i < count; i++) {
      let at = u64[(vectors >>> 3) + 2 * i]!;
      for (let left = Number(u64[(vectors >>> 3) + 2 * i + 1]); left > 0; ) {
        const region = this.region(at / BigInt(PAGE_BYTES));
        const from = Number(at);
        const bytes = Math.min(left, PAGE_BYTES - (from % PAGE_BYTES));
        if (!region) return copied;
        u8.copyWithin(to + copied, from, from + bytes);
        at += BigInt(bytes);
        left -= bytes;
        copied += bytes;
      }
    }
    return copied;
  }

  /** The allocated region that holds a page. */
  region(pfn: bigint): GuestRegion | undefined {
    for (const region of this.#regions.values()) {
      if (pfn >= region.pfn && pfn < region.pfn + BigInt(region.pages)) return region;
    }
    return undefined;
  }
}
