// The memory of one NIC's primary channel (HOST_CHANNEL of memory/layout.ts) and the tables behind it. Sized once from
// the buffers of the offer, so that a guest that comes and goes, or asks for odd sizes, allocates nothing.
import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import { FRAGMENT, FRAME, GPA_REGION, HEAD_BYTES, HOST_CHANNEL, TRANSACTION } from '../memory/layout.js';
import { COALESCE_MOST } from '../memory/layout-coalesce.js';
import { Channel } from '../vmbus/channel.js';
import type { GuestRegion, VmbusOffer } from '../vmbus/device.js';

/** Around a frame in its suballocation: headers and infos before it, what Windows guests cannot use behind it. */
const SUBALLOCATION_OVERHEAD = 256 + 36;
/** Smallest frame size (header included) that a suballocation is made for. */
export const MIN_FRAME_BYTES = 1514;
/** Suballocations that only carry control messages (facts/hyper-v-host.md 8). */
export const CONTROL_SUBALLOCATIONS = 16;
/** The fewest that a guest may come with; Linux goes down to these (`ethtool -G`). */
export const MIN_SUBALLOCATIONS = 10;
/** Messages, frames and fragments of one poll. A message that names more is refused. */
const TRANSACTIONS = 512;
const FRAMES = 512;
const FRAGMENTS = 4096;
/** Mapped stretches of guest memory: a guest has one, or a few after it was enlarged. */
const REGIONS = 64;
/** Largest control message to the guest. */
const CONTROL_BYTES = 2048;
/** Transfer-page ranges in one packet to a guest of NDIS 6, and to older ones (facts/linux-guest.md 1.1). */
const MAX_RANGES = 375;
const MAX_RANGES_NDIS5 = 64;
/** Transfer-page packet without its ranges, and what receive traffic leaves free for completions. */
const TRANSFER_BYTES = 24 + 40 + 8 + 2048;

/** A cell of HOST_CHANNEL. */
export type ChannelCell = keyof typeof HOST_CHANNEL.at;

export class ChannelMemory {
  /** Address of the HOST_CHANNEL. */
  readonly address: number;
  readonly channel: Channel;
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #offer: VmbusOffer;
  /** Room for the free stacks of all channels that share the data suballocations. */
  readonly dataStacks: number;
  readonly #stage: number;
  readonly #held: number[] = [];

  /** `port` goes into FRAME.source of this channel's frames. */
  constructor(arena: Arena, datapath: Datapath, offer: VmbusOffer, port: number) {
    this.#arena = arena;
    this.#datapath = datapath;
    this.#offer = offer;
    try {
      this.address = this.#take('HOST_CHANNEL', HOST_CHANNEL.bytes);
      const suballocations = Math.floor(offer.receiveBuffer.bytes / (MIN_FRAME_BYTES + SUBALLOCATION_OVERHEAD));
      this.set('suballocations', this.#take('suballocations', suballocations * 4 + 4));
      this.dataStacks = this.#take('free suballocations', suballocations * 4 + 4);
      this.set('freeControl', this.#take('free control suballocations', CONTROL_SUBALLOCATIONS * 4));
      this.set('regions', this.#take('guest regions', REGIONS * GPA_REGION.bytes));
      this.set('transactions', this.#take('transactions', TRANSACTIONS * TRANSACTION.bytes));
      this.set('transactionCapacity', TRANSACTIONS);
      this.set('frames', this.#take('frames', FRAMES * FRAME.bytes));
      this.set('frameCapacity', FRAMES);
      this.set('fragments', this.#take('fragments', FRAGMENTS * FRAGMENT.bytes));
      this.set('fragmentCapacity', FRAGMENTS);
      this.set('heads', this.#take('heads', FRAMES * HEAD_BYTES));
      this.#stage = this.#take('control message', CONTROL_BYTES);
      this.set('port', port);
      this.set('selfCheck', 1);
      this.channel = new Channel(arena, datapath, this.address, HOST_CHANNEL.at);
    } catch (error) {
      this.#giveBack();
      throw error;
    }
  }

  get(cell: ChannelCell): number {
    return this.#arena.u32[(this.address + HOST_CHANNEL.at[cell]) >>> 2]!;
  }

  set(cell: ChannelCell, value: number): void {
    this.#arena.u32[(this.address + HOST_CHANNEL.at[cell]) >>> 2] = value;
  }

  /** A guest opened the channel: nothing negotiated, no buffers, rings as the guest left them. */
  open(): void {
    this.reset();
    this.channel.bind(this.#offer.toGuest, this.#offer.fromGuest);
  }

  /** Back to a channel that nobody uses. Counters stay: they are the NIC's. */
  reset(): void {
    this.set('ready', 0);
    this.set('receiveBuffer', 0);
    this.set('receiveBytes', 0);
    this.set('suballocationBytes', 0);
    this.set('suballocationCount', 0);
    this.set('firstDataSuballocation', 0);
    this.set('sendBuffer', 0);
    this.set('sendBytes', 0);
    this.set('sendSectionBytes', 0);
    this.set('offloads', 0);
    this.#setMaxRanges(MAX_RANGES);
    this.set('nvspBytes', 28);
    this.set('regionCount', 0);
    this.set('regionMissFails', 0);
    this.set('staging', 0);
    this.set('frameError', 0);
    this.set('owners', 0);
    this.set('senders', 0);
    this.set('freeSuballocations', this.dataStacks);
    this.#datapath.hostReset(this.address);
  }

  /**
   * Carves the receive buffer into suballocations for frames of `frameBytes` (header included), at most `limitBytes` of it.
   * Returns how many and how large; nothing is set when not even one fits.
   */
  carveReceiveBuffer(id: number, frameBytes: number, limitBytes: number): { bytes: number; count: number } {
    const { address } = this.#offer.receiveBuffer;
    const bytes = this.#offer.receiveBytes();
    const size = frameBytes + SUBALLOCATION_OVERHEAD;
    const count = Math.floor(Math.min(bytes, limitBytes) / size);
    if (count > 0) {
      this.set('receiveBuffer', address);
      this.set('receiveBytes', count * size);
      this.set('suballocationBytes', size);
      this.set('suballocationCount', count);
      // Half of few.
      this.set('firstDataSuballocation', Math.min(count >> 1, CONTROL_SUBALLOCATIONS));
      this.set('receiveBufferId', id);
      this.set('maxFrameBytes', frameBytes);
      this.#datapath.hostReset(this.address);
    }
    return { bytes: size, count };
  }

  /** What the guest's NDIS can take in one packet. `coalesced`: it takes coalesced ones. */
  setNdisMajor(major: number, coalesced = false): void {
    this.#setMaxRanges(major < 6 ? MAX_RANGES_NDIS5 : coalesced ? COALESCE_MOST : MAX_RANGES);
  }

  useSendBuffer(sectionBytes: number): void {
    this.set('sendBuffer', this.#offer.sendBuffer.address);
    this.set('sendBytes', this.#offer.sendBuffer.bytes);
    this.set('sendSectionBytes', sectionBytes);
  }

  /** Makes guest pages known to the data path. False when the table is full. */
  addRegion(region: GuestRegion): boolean {
    const count = this.get('regionCount');
    if (count >= REGIONS) return false;
    const at = (this.get('regions') + count * GPA_REGION.bytes) >>> 2;
    this.#arena.u32[at] = Number(region.pfn & 0xffff_ffffn);
    this.#arena.u32[at + 1] = Number(region.pfn >> 32n);
    this.#arena.u32[at + 2] = region.pages;
    this.#arena.u32[at + 3] = region.address;
    this.set('regionCount', count + 1);
    return true;
  }

  /** Sends an RNDIS control message; false = no control suballocation or no room in the ring. */
  sendControl(message: Uint8Array): boolean {
    if (message.length > CONTROL_BYTES || message.length > this.get('suballocationBytes')) {
      throw new RangeError(`control message of ${message.length} bytes does not fit a suballocation`);
    }
    this.#arena.u8.set(message, this.#stage);
    return this.#datapath.hostSendControl(this.address, this.#stage, message.length) !== 0;
  }

  /** Gives everything back. */
  release(): void {
    this.channel.release();
    this.#giveBack();
  }

  /** One packet takes at most half of a small ring. */
  #setMaxRanges(most: number): void {
    const fit = Math.floor((this.#offer.toGuest.dataBytes / 2 - TRANSFER_BYTES) / 8);
    this.set('maxRanges', Math.max(1, Math.min(most, fit)));
  }

  #take(name: string, bytes: number): number {
    const address = this.#arena.reserve(`netvsp ${name}`, bytes);
    this.#held.push(address);
    return address;
  }

  #giveBack(): void {
    for (const address of this.#held.splice(0).reverse()) this.#arena.release(address);
  }
}
