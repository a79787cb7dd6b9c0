// The subchannels of one NIC: each a HOST_CHANNEL with rings of its own, over the buffers and tables of the primary, which
// no two channels use at the same time. They are made when the guest asks for them and go with its opening.
import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import { HOST_CHANNEL, TRANSACTION } from '../memory/layout.js';
import { Channel } from '../vmbus/channel.js';
import { type SubchannelOffer, VmbusError, type VmbusOffer } from '../vmbus/device.js';
import type { ChannelCell, ChannelMemory } from './channel-memory.js';
import type { SubchannelSource } from './netvsp.js';
import { Outbox } from './outbox.js';

/** Sends that one poll may read. */
const TRANSACTIONS = 512;
/** Only refusals pass here: the longest message that a guest has for them, cut (facts/hyper-v-host.md 4.2). */
const EVENT_BYTES = 8192;
const MAX_CHANNELS = 64;
const AT = HOST_CHANNEL.at;

export class HostSubchannel {
  readonly offer: SubchannelOffer;
  /** Address of its HOST_CHANNEL. */
  readonly address: number;
  readonly channel: Channel;
  readonly outbox: Outbox;
  /** Why it is dead; undefined while it lives. */
  reason: string | undefined;
  readonly #arena: Arena;

  constructor(arena: Arena, datapath: Datapath, offer: SubchannelOffer, primary: number) {
    this.#arena = arena;
    this.offer = offer;
    this.address = arena.reserve('netvsp subchannel', HOST_CHANNEL.bytes + TRANSACTIONS * TRANSACTION.bytes);
    try {
      this.channel = new Channel(arena, datapath, this.address, AT, EVENT_BYTES);
    } catch (error) {
      arena.release(this.address);
      throw error;
    }
    this.outbox = new Outbox(this.channel);
    arena.u8.copyWithin(this.address + AT.ready, primary + AT.ready, primary + AT.txMessages);
    this.set('freeSuballocationCount', 0);
    this.set('freeControlCount', 0);
    this.set('transactions', this.address + HOST_CHANNEL.bytes);
    this.set('transactionCapacity', TRANSACTIONS);
    this.set('transactionCount', 0);
    this.set('transactionsDone', 0);
    this.set('frameCount', 0);
    this.set('regionMissFails', 0);
    this.channel.bind(offer.toGuest, offer.fromGuest);
  }

  get(cell: ChannelCell): number {
    return this.#arena.u32[(this.address + AT[cell]) >>> 2]!;
  }

  set(cell: ChannelCell, value: number): void {
    this.#arena.u32[(this.address + AT[cell]) >>> 2] = value;
  }

  /** It is not read or written any more; frames for it are dropped. */
  kill(reason: string): void {
    this.reason = reason;
    this.set('ready', 0);
    this.outbox.clear();
  }

  release(): void {
    this.channel.release();
    this.#arena.release(this.address);
  }
}

export class Subchannels implements SubchannelSource {
  /** Offered ones, by subchannel id - 1. */
  readonly list: HostSubchannel[] = [];
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #offer: VmbusOffer;
  readonly #primary: ChannelMemory;
  /** Made, and not offered yet. */
  readonly #made: HostSubchannel[] = [];
  /** Counters of those that are gone. */
  readonly #former: Record<string, number> = {};
  /** Tables of owners and senders; 0 = there are none. */
  #tables = 0;
  readonly #channels: number;

  constructor(arena: Arena, datapath: Datapath, offer: VmbusOffer, primary: ChannelMemory) {
    this.#arena = arena;
    this.#datapath = datapath;
    this.#offer = offer;
    this.#primary = primary;
    this.#channels = arena.reserve('netvsp channel list', MAX_CHANNELS * 4);
  }

  get count(): number {
    return this.list.length;
  }

  prepare(count: number): boolean {
    try {
      if (count > 0) this.#share();
      while (this.list.length + this.#made.length < count) {
        const offer = this.#offer.createSubchannel();
        this.#made.push(new HostSubchannel(this.#arena, this.#datapath, offer, this.#primary.address));
      }
      return true;
    } catch (error) {
      // What was made waits for the next request, or for the opening's end.
      if (error instanceof VmbusError || (error as Error).name === 'ArenaError') return false;
      throw error;
    }
  }

  publish(count: number): void {
    while (this.list.length < count) {
      const made = this.#made.shift()!;
      made.offer.publish();
      this.list.push(made);
    }
  }

  /** Gives the data suballocations to these channels (0 = the primary); at least one. */
  divide(active: readonly number[]): void {
    if (this.#tables === 0) return;
    this.#primary.set('freeSuballocationCount', 0);
    for (const subchannel of this.list) subchannel.set('freeSuballocationCount', 0);
    for (const [i, number] of active.entries()) this.#arena.u32[(this.#channels >>> 2) + i] = this.address(number);
    this.#datapath.hostDivide(this.#primary.address, this.#channels, active.length, this.#primary.dataStacks);
  }

  /** HOST_CHANNEL of a channel by its number, 0 = the primary. */
  address(number: number): number {
    return number === 0 ? this.#primary.address : this.list[number - 1]!.address;
  }

  /** Free data suballocations of all of them. */
  get free(): number {
    return this.list.reduce((sum, subchannel) => sum + subchannel.get('freeSuballocationCount'), 0);
  }

  /** Another stretch of guest memory is known, or there is room for copies. */
  shareGuestMemory(): void {
    for (const cell of ['regionCount', 'staging'] as const) {
      const value = this.#primary.get(cell);
      for (const subchannel of this.list) subchannel.set(cell, value);
      for (const subchannel of this.#made) subchannel.set(cell, value);
    }
  }

  /** Counters of all, those that are gone included, added to `to`. */
  addCounters(to: Record<string, number>): void {
    for (const [name, value] of Object.entries(this.#former)) to[name]! += value;
    for (const { channel } of this.list) add(to, channel.counters());
  }

  /** The opening has ended. */
  close(): void {
    for (const subchannel of [...this.list.splice(0), ...this.#made.splice(0)]) {
      add(this.#former, subchannel.channel.counters());
      subchannel.release();
    }
    if (this.#tables !== 0) this.#arena.release(this.#tables);
    this.#tables = 0;
  }

  release(): void {
    this.close();
    this.#arena.release(this.#channels);
  }

  /** From the first subchannel on it matters whose a suballocation is: so far all are the primary's. */
  #share(): void {
    if (this.#tables !== 0) return;
    const primary = this.#primary;
    const count = primary.get('suballocationCount');
    this.#tables = this.#arena.reserve('netvsp suballocation owners', count * 8);
    this.#arena.u32.fill(primary.address, this.#tables >>> 2, (this.#tables >>> 2) + 2 * count);
    primary.set('owners', this.#tables);
    primary.set('senders', this.#tables + count * 4);
  }
}

function add(to: Record<string, number>, counters: Record<string, number>): void {
  for (const [name, value] of Object.entries(counters)) to[name] = (to[name] ?? 0) + value;
}
