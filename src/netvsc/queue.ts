// The memory of one guest queue (GUEST_QUEUE of memory/layout.ts) and what hangs on it: slots, section stack, receive
// completions, page table. Taken from the device's arena at open, given back at close; nothing is kept in between.
import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import { GUEST_QUEUE, LOAN, NO_SECTION, TX_SLOT } from '../memory/layout.js';
import { Channel } from '../vmbus/channel.js';
import type { GuestMemory, Region, RingRegion } from '../vmbus/device.js';
import { RING_CONTROL } from '../wire/vmbus.js';

/** Smallest data packet on the ring: descriptor 16, NVSP message 28 padded to 32, footer 8. */
const SMALLEST_SEND_BYTES = 56;
/** Sends in flight; a transaction id has 16 bits for the slot. */
const MAX_SLOTS = 4096;
/** Receive completions that may wait for room in the ring; when all are used the driver stops reading. */
const COMPLETIONS = 1024;
const COMPLETION_BYTES = 16;
/** Ranges of one transfer-page packet: hosts send at most 375, 562 with RSC (facts/hyper-v-host.md 6). */
const RANGES = 1024;
const RANGE_BYTES = 8;
/** Ring room that data leaves to control messages and receive completions. */
const SPARE_BYTES = 4096;
const PAGE_SHIFT = 12;
/** Events of a subchannel: no control messages pass there. */
const SUBCHANNEL_EVENT_BYTES = 8192;

/** Looked at by every poll, as a u32 offset: by its name it would cost as much as the poll itself. */
const COMPLETION_COUNT = GUEST_QUEUE.at.completionCount >>> 2;

/** What attach settles on the primary channel and subchannels take over. */
const NEGOTIATED = [
  ...['nvspBytes', 'receiveBuffer', 'receiveBytes', 'receiveSectionBytes', 'receiveBufferId'],
  ...[
    'sendBuffer',
    'sendSectionBytes',
    'sendSections',
    'maxPacketsPerMessage',
    'packetAlignment',
    'copyLimit',
    'sectionLimit',
  ],
  ...['maxFrameBytes', 'softwareMtu', 'lsoMax4', 'lsoMax6', 'offloads', 'rxPool', 'rxLargePool', 'rxChains'],
  ...['pfnTable', 'pfnBase', 'pfnPages'],
] as readonly QueueCell[];

/** Both rings of an open channel. */
export interface QueueRings {
  readonly transmit: RingRegion;
  readonly receive: RingRegion;
  readonly doorbell: number;
}

/** What only the primary channel's queue is made from. */
export interface QueueSetup {
  readonly memory: GuestMemory;
  /** What mbufs live in; sends by page ranges name its pages. */
  readonly packetMemory: Region;
  readonly pools: { readonly small: number; readonly large: number; readonly chains?: boolean };
}

/** A cell of GUEST_QUEUE. */
export type QueueCell = keyof typeof GUEST_QUEUE.at;

export class QueueMemory {
  /** Address of the GUEST_QUEUE. */
  readonly address: number;
  readonly channel: Channel;
  /** The channel's DOORBELL, or 0. */
  readonly doorbell: number;
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #held: number[] = [];
  #open = true;
  /** Free sections that there is memory for. */
  #sectionRoom = 0;
  /** Send slots that there is memory for. */
  #slots = 0;

  /**
   * Sets up an empty queue on an opened channel: it can exchange messages, and owns no send section yet. `from`: for a
   * subchannel the primary's queue, which must live longer.
   */
  constructor(arena: Arena, datapath: Datapath, rings: QueueRings, from: QueueSetup | QueueMemory) {
    this.#arena = arena;
    this.#datapath = datapath;
    this.doorbell = rings.doorbell;
    this.address = this.#take('GUEST_QUEUE', GUEST_QUEUE.bytes);
    try {
      const sub = from instanceof QueueMemory;
      this.channel = sub
        ? new Channel(arena, datapath, this.address, GUEST_QUEUE.at, SUBCHANNEL_EVENT_BYTES)
        : new Channel(arena, datapath, this.address, GUEST_QUEUE.at);
      try {
        this.#tables(rings.transmit.dataBytes);
        if (sub) for (const cell of NEGOTIATED) this.set(cell, from.get(cell));
        else this.#own(from);
        this.channel.bind(rings.transmit, rings.receive);
      } catch (error) {
        this.channel.release();
        throw error;
      }
    } catch (error) {
      this.#giveBack();
      throw error;
    }
  }

  get(cell: QueueCell): number {
    return this.#arena.u32[(this.address + GUEST_QUEUE.at[cell]) >>> 2]!;
  }

  /** Without effect once released: an attach that was overtaken by its end may still call it. */
  set(cell: QueueCell, value: number): void {
    if (!this.#open) return;
    this.#arena.u32[(this.address + GUEST_QUEUE.at[cell]) >>> 2] = value;
  }

  /** Receive completions wait for room in the ring. */
  get owesCompletions(): boolean {
    return this.#arena.u32[(this.address >>> 2) + COMPLETION_COUNT] !== 0;
  }

  /** Gives sections [first, first + count) to this queue's senders, and no others. None is in use. */
  ownSections(first: number, count: number): void {
    if (!this.#open) return;
    if (count > this.#sectionRoom || this.get('freeSections') === 0) {
      this.set('freeSections', this.#take('free sections', Math.max(4, count * 4)));
      this.#sectionRoom = count;
    }
    const at = this.get('freeSections') >>> 2;
    // The lowest section ends up on top, so that a light load stays in a few warm pages.
    for (let i = 0; i < count; i++) this.#arena.u32[at + i] = first + count - 1 - i;
    this.set('freeSectionCount', count);
  }

  /** Lets at most `count` sends be in flight, from a time on when none is. */
  limitSends(count: number): void {
    if (!this.#open || this.outstanding !== 0) return;
    const slots = Math.min(this.#slots, count);
    const list = this.get('freeSlots') >>> 2;
    for (let i = 0; i < slots; i++) this.#arena.u32[list + i] = slots - 1 - i;
    this.set('slotCount', slots);
    this.set('freeSlotCount', slots);
  }

  /** Leaves frames of at least `from` bytes in the receive buffer, in up to `most` ranges at once, unless their flags have one of `not`
   *  (PACKET_FLAG). 0 = copies all. */
  lend(from: number, most: number, not: number): void {
    if (!this.#open) return;
    if (from !== 0 && this.get('loans') === 0) {
      const loans = this.#take('loans', Math.max(1, most) * LOAN.bytes);
      const free = this.#take('free loans', Math.max(1, most) * 4);
      for (let i = 0; i < most; i++) this.#arena.u32[(free >>> 2) + i] = loans + i * LOAN.bytes;
      this.set('loans', loans);
      this.set('freeLoans', free);
      this.set('freeLoanCount', most);
      this.set('lendMost', most);
    }
    this.set('lendNot', not);
    this.set('lendFrom', from);
  }

  /** Sends whose completion has not come. */
  get outstanding(): number {
    return this.get('slotCount') - this.get('freeSlotCount');
  }

  /** The channel is about to close: packets whose completion will not come are counted. */
  countAbandoned(): void {
    const { u32 } = this.#arena;
    let packets = this.get('section') === NO_SECTION ? 0 : this.get('sectionPackets');
    for (let slot = 0; slot < this.get('slotCount'); slot++) {
      const cells = this.get('slots') + slot * TX_SLOT.bytes;
      if (u32[(cells + TX_SLOT.at.busy) >>> 2]) packets += u32[(cells + TX_SLOT.at.packets) >>> 2]!;
    }
    this.set('txAbandoned', packets);
  }

  /** Ring bytes that the host has not taken yet. */
  get unread(): number {
    const write = this.get('writeIndex');
    const read = Atomics.load(this.#arena.u32, (this.get('writeRing') + RING_CONTROL.offset.out) >>> 2);
    return write >= read ? write - read : write - read + this.get('writeSize');
  }

  /** Received packets or completions that the next poll still has to deal with. */
  get backlog(): boolean {
    return this.get('completionCount') !== 0 || this.get('rangeIndex') < this.get('rangeCount');
  }

  /** Frees every mbuf that the queue holds and all its memory. The host must be unable to write by now. */
  release(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#datapath.guestAbandon(this.address);
    this.channel.release();
    this.#giveBack();
  }

  #tables(transmitBytes: number): void {
    const { u32 } = this.#arena;
    const slotCount = Math.max(16, Math.min(MAX_SLOTS, Math.floor(transmitBytes / SMALLEST_SEND_BYTES)));
    this.#slots = slotCount;
    this.set('slots', this.#take('send slots', slotCount * TX_SLOT.bytes));
    this.set('slotCount', slotCount);
    const freeSlots = this.#take('free send slots', slotCount * 4);
    for (let i = 0; i < slotCount; i++) u32[(freeSlots >>> 2) + i] = slotCount - 1 - i;
    this.set('freeSlots', freeSlots);
    this.set('freeSlotCount', slotCount);

    this.set('completions', this.#take('receive completions', COMPLETIONS * COMPLETION_BYTES));
    this.set('completionCapacity', COMPLETIONS);
    this.set('ranges', this.#take('receive ranges', RANGES * RANGE_BYTES));
    this.set('rangeCapacity', RANGES);
    this.set('section', NO_SECTION);
    this.set('spare', Math.min(SPARE_BYTES, transmitBytes >>> 2));
    this.set('nvspBytes', 28);
    this.set('maxPacketsPerMessage', 1);
    this.set('packetAlignment', 8);
  }

  /** Pools, and the page table of the packet memory. */
  #own({ memory, packetMemory, pools }: QueueSetup): void {
    const { u32 } = this.#arena;
    this.set('rxPool', pools.small);
    this.set('rxLargePool', pools.large);
    this.set('rxChains', pools.chains ? 1 : 0);
    const base = packetMemory.address >>> PAGE_SHIFT; // page number; pfnBase is that page's address
    const pages = ((packetMemory.address + packetMemory.bytes - 1) >>> PAGE_SHIFT) - base + 1;
    const table = this.#take('page frame numbers', pages * 8);
    for (let i = 0; i < pages; i++) {
      const pfn = memory.pfn(((base + i) << PAGE_SHIFT) >>> 0);
      u32[(table >>> 2) + 2 * i] = Number(pfn & 0xffff_ffffn);
      u32[(table >>> 2) + 2 * i + 1] = Number(pfn >> 32n);
    }
    this.set('pfnTable', table);
    this.set('pfnBase', (base << PAGE_SHIFT) >>> 0);
    this.set('pfnPages', pages);
  }

  #take(name: string, bytes: number): number {
    const address = this.#arena.reserve(`netvsc ${name}`, bytes);
    this.#held.push(address);
    return address;
  }

  #giveBack(): void {
    for (const address of this.#held.splice(0).reverse()) this.#arena.release(address);
  }
}
