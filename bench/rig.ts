// A guest queue and a host channel face to face in one arena, without control plane: what the benchmarks drive and the
// model test checks. Sizes are those of a Windows Server 2019 host and a real guest.
import type { Datapath } from '../src/datapath/datapath.js';
import type { Arena } from '../src/memory/arena.js';
import {
  FRAGMENT,
  FRAME,
  GPA_REGION,
  GUEST_QUEUE,
  HEAD_BYTES,
  HOST_CHANNEL,
  NO_SECTION,
  OFFLOAD,
  TRANSACTION,
  TX_SLOT,
} from '../src/memory/layout.js';
import { createPool, HEADROOM, LARGE_ROOM, poolBytes, smallRoom } from '../src/memory/pool.js';

export interface RigOptions {
  readonly mtu?: number;
  readonly ringBytes?: number;
  readonly receiveBytes?: number;
  readonly sendBytes?: number;
  readonly sendSectionBytes?: number;
  readonly maxPacketsPerMessage?: number;
  readonly packetAlignment?: number;
  readonly poolCount?: number;
  readonly largeCount?: number;
  readonly events?: number;
}

const PAGE = 4096;

/** Addresses of everything that the two halves use. */
export interface Rig {
  readonly arena: Arena;
  readonly datapath: Datapath;
  readonly queue: number;
  readonly channel: number;
  readonly guestRing: number;
  readonly hostRing: number;
  readonly smallPool: number;
  readonly largePool: number;
  readonly receiveBuffer: number;
  readonly sendBuffer: number;
  /** u32 arrays of 1024 entries for handles and frames. */
  readonly handles: number;
  readonly frames: number;
  /** Bytes for frames that the host makes itself. */
  readonly ownFrames: number;
  close(): void;
}

export function createRig(arena: Arena, datapath: Datapath, options: RigOptions = {}): Rig {
  const taken: number[] = [];
  const reserve = (name: string, bytes: number, align = 64) => {
    const address = arena.reserve(name, bytes, align);
    taken.push(address);
    return address;
  };
  const { u32 } = arena;
  const mtu = options.mtu ?? 1500;
  const ringBytes = options.ringBytes ?? 2 << 20;
  const dataBytes = ringBytes - PAGE;
  const receiveBytes = options.receiveBytes ?? 16 << 20;
  const sendBytes = options.sendBytes ?? 1 << 20;
  const sectionBytes = options.sendSectionBytes ?? 6144;
  const suballocation = 256 + mtu + 14 + 36;
  const suballocations = Math.floor(receiveBytes / suballocation);
  const sections = Math.floor(sendBytes / sectionBytes);
  const transactions = 1024;
  const frames = 1024;
  const fragments = 4096;
  const slots = 4096;

  const guestRing = reserve('guest ring', ringBytes, PAGE);
  const hostRing = reserve('host ring', ringBytes, PAGE);
  const receiveBuffer = reserve('receive buffer', receiveBytes, PAGE);
  const sendBuffer = reserve('send buffer', sendBytes, PAGE);
  const small = { name: 'small', count: options.poolCount ?? 2048, room: smallRoom(mtu + 14), headroom: HEADROOM };
  const large = { name: 'large', count: options.largeCount ?? 64, room: LARGE_ROOM, headroom: HEADROOM };
  const packets = reserve('packet memory', poolBytes(small) + poolBytes(large), PAGE);
  const smallPool = createPool(arena, packets, small);
  const largePool = createPool(arena, packets + poolBytes(small), large);
  taken.push(smallPool, largePool);
  const pages = Math.ceil((poolBytes(small) + poolBytes(large)) / PAGE);

  const queue = reserve('guest queue', GUEST_QUEUE.bytes);
  const channel = reserve('host channel', HOST_CHANNEL.bytes);
  const eventBytes = options.events ?? 65536;
  const setGuest = (field: keyof typeof GUEST_QUEUE.at, value: number) => {
    u32[(queue + GUEST_QUEUE.at[field]) >>> 2] = value;
  };
  const setHost = (field: keyof typeof HOST_CHANNEL.at, value: number) => {
    u32[(channel + HOST_CHANNEL.at[field]) >>> 2] = value;
  };
  const ascending = (name: string, count: number) => {
    const list = reserve(name, count * 4);
    for (let i = 0; i < count; i++) u32[(list >>> 2) + i] = count - 1 - i;
    return list;
  };
  setGuest('writeRing', guestRing);
  setGuest('writeSize', dataBytes);
  setGuest('readRing', hostRing);
  setGuest('readSize', dataBytes);
  setGuest('spare', 1024);
  setGuest('events', reserve('guest events', eventBytes));
  setGuest('eventBytes', eventBytes);
  setGuest('receiveBuffer', receiveBuffer);
  setGuest('receiveBytes', receiveBytes);
  setGuest('receiveSectionBytes', suballocation);
  setGuest('receiveBufferId', 0xcafe);
  setGuest('sendBuffer', sendBuffer);
  setGuest('sendSectionBytes', sectionBytes);
  setGuest('sendSections', sections);
  setGuest('freeSections', ascending('free sections', sections));
  setGuest('freeSectionCount', sections);
  setGuest('slots', reserve('slots', slots * TX_SLOT.bytes));
  setGuest('slotCount', slots);
  setGuest('freeSlots', ascending('free slots', slots));
  setGuest('freeSlotCount', slots);
  setGuest('nvspBytes', 40);
  setGuest('maxPacketsPerMessage', options.maxPacketsPerMessage ?? 8);
  setGuest('packetAlignment', options.packetAlignment ?? 8);
  setGuest('copyLimit', sectionBytes - 8);
  setGuest('maxFrameBytes', mtu + 14);
  setGuest(
    'offloads',
    Object.values(OFFLOAD).reduce((all, bit) => all | bit, 0),
  );
  setGuest('lsoMax4', 65536);
  setGuest('lsoMax6', 65536);
  setGuest('pfnTable', reserve('pfn table', pages * 8));
  setGuest('pfnBase', packets);
  setGuest('pfnPages', pages);
  setGuest('rxPool', smallPool);
  setGuest('rxLargePool', largePool);
  setGuest('completions', reserve('completions', 1024 * 16));
  setGuest('completionCapacity', 1024);
  setGuest('ranges', reserve('ranges', 562 * 8));
  setGuest('rangeCapacity', 562);
  setGuest('section', NO_SECTION);
  const table = u32[(queue + GUEST_QUEUE.at.pfnTable) >>> 2]! >>> 2;
  for (let i = 0; i < pages; i++) u32[table + i * 2] = (packets >>> 12) + i;

  setHost('writeRing', hostRing);
  setHost('writeSize', dataBytes);
  setHost('readRing', guestRing);
  setHost('readSize', dataBytes);
  setHost('events', reserve('host events', eventBytes));
  setHost('eventBytes', eventBytes);
  setHost('receiveBuffer', receiveBuffer);
  setHost('receiveBytes', receiveBytes);
  setHost('suballocationBytes', suballocation);
  setHost('suballocationCount', suballocations);
  setHost('firstDataSuballocation', 16);
  setHost('receiveBufferId', 0xcafe);
  setHost('suballocations', reserve('suballocations', suballocations * 4));
  setHost('freeSuballocations', reserve('free suballocations', suballocations * 4));
  setHost('freeControl', reserve('free control', 64));
  setHost('sendBuffer', sendBuffer);
  setHost('sendBytes', sections * sectionBytes);
  setHost('sendSectionBytes', sectionBytes);
  setHost('nvspBytes', 40);
  setHost('maxFrameBytes', mtu + 14);
  setHost('maxRanges', 64);
  const regions = reserve('regions', GPA_REGION.bytes);
  setHost('regions', regions);
  setHost('regionCount', 1);
  u32[(regions + GPA_REGION.at.pfnLow) >>> 2] = packets >>> 12;
  u32[(regions + GPA_REGION.at.pages) >>> 2] = pages;
  u32[(regions + GPA_REGION.at.address) >>> 2] = packets;
  setHost('transactions', reserve('transactions', transactions * TRANSACTION.bytes));
  setHost('transactionCapacity', transactions);
  setHost('frames', reserve('frames', frames * FRAME.bytes));
  setHost('frameCapacity', frames);
  setHost('fragments', reserve('fragments', fragments * FRAGMENT.bytes));
  setHost('fragmentCapacity', fragments);
  setHost('heads', reserve('heads', frames * HEAD_BYTES));
  setHost('port', 1);
  datapath.endInit(queue);
  datapath.endInit(channel);
  datapath.hostReset(channel);
  setHost('ready', 1);
  return {
    arena,
    datapath,
    queue,
    channel,
    guestRing,
    hostRing,
    smallPool,
    largePool,
    receiveBuffer,
    sendBuffer,
    handles: reserve('handles', 4096),
    frames: reserve('frame list', 4096),
    ownFrames: reserve('own frames', 128 << 10),
    close() {
      for (const address of taken.reverse()) arena.release(address);
    },
  };
}
