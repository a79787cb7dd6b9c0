// The host's side of one NIC in a machine directory: a socket in place of /dev/uioN. A connection is OpenChannel, its
// end (close, exit, SIGKILL) is CloseChannel.
import { closeSync } from 'node:fs';
import type { Arena } from '../../memory/arena.js';
import { ERRNO } from '../../memory/os/libc.js';
import { isReadable } from '../../memory/os/poll.js';
import { lockFile, unlockFile } from '../../memory/os/process.js';
import { acceptUnix, peerCredentials, receiveBytes, sendBytes } from '../../memory/os/socket.js';
import {
  type GpadlRegion,
  type GuestRegion,
  PAGE_BYTES,
  type PageSpan,
  type RingRegion,
  type SubchannelOffer,
  VmbusError,
  type VmbusOffer,
} from '../device.js';
import { initLatency, latencyMs, setInterruptBit, takeInterruptBit, takeTrigger } from '../doorbell.js';
import { openHostRings, setInterruptMask, zeroControlPage } from '../rings.js';
import { GuestPages, type GuestPagesLimits } from './guest-pages.js';
import { GuestReader } from './guest-reader.js';
import { IRQ_COMMAND, receivePages, WordReader } from './interrupts.js';

/** What a UioOffer is made of; machine.ts puts it together. */
export interface UioOfferParts {
  readonly arena: Arena;
  readonly uuid: string;
  readonly relid: number;
  readonly monitorId: number | undefined;
  /** Guests that know of interrupts trigger the monitors, too. */
  readonly monitored: boolean;
  readonly fromGuest: RingRegion;
  readonly toGuest: RingRegion;
  readonly receiveBuffer: GpadlRegion;
  readonly sendBuffer: GpadlRegion;
  /** Arena addresses. */
  readonly interruptPage: number;
  readonly monitorPage: number;
  /** Makes the rings of a subchannel, and its files when it is published. Throws. */
  readonly makeSubchannel: (subchannelId: number) => SubchannelParts;
  /** Makes what uio_hv_generic shows of the device; returns the listening socket, which the offer closes. */
  readonly publish: () => number;
  /** Removes that again. */
  readonly hide: () => void;
  /** Descriptor of the rings' file, whose lock says who zeroes the rings; stays the machine's. */
  readonly ringFile: number;
  readonly limits: GuestPagesLimits;
  /** Removes the device's files from the machine directory. */
  readonly withdraw: () => void;
}

/** A subchannel in a machine directory. */
export interface SubchannelParts {
  readonly relid: number;
  readonly monitorId: number | undefined;
  readonly fromGuest: RingRegion;
  readonly toGuest: RingRegion;
  readonly publish: () => void;
  /** Removes its files, unmaps its rings and closes them. */
  readonly withdraw: () => void;
}

/** Counters of one NIC's socket. */
export interface UioOfferStats {
  opened: number;
  closed: number;
  /** Connections closed at once because the channel was open (EBUSY). */
  refusedBusy: number;
  /** Connections of another user. */
  refusedUser: number;
  interruptsIn: number;
  /** Triggers of monitored channels that were seen. */
  triggersIn: number;
  interruptsOut: number;
  /** Interrupts that came late, or as one, because the guest had not read earlier ones. */
  interruptsDropped: number;
  /** Words that are no command. */
  commandsIgnored: number;
}

/** Reads of one poll, so that a guest that floods the socket cannot hold the host. */
const READS_MAX = 64;
const ACCEPTS_MAX = 8;

export class UioOffer implements VmbusOffer {
  readonly uuid: string;
  readonly relid: number;
  readonly monitorId: number | undefined;
  readonly arena: Arena;
  readonly fromGuest: RingRegion;
  readonly toGuest: RingRegion;
  readonly receiveBuffer: GpadlRegion;
  readonly sendBuffer: GpadlRegion;
  readonly stats: UioOfferStats = {
    opened: 0,
    closed: 0,
    refusedBusy: 0,
    refusedUser: 0,
    interruptsIn: 0,
    triggersIn: 0,
    interruptsOut: 0,
    interruptsDropped: 0,
    commandsIgnored: 0,
  };
  readonly #parts: UioOfferParts;
  readonly #words = new WordReader();
  readonly #input = Buffer.alloc(4096);
  readonly #count = Buffer.alloc(4);
  readonly #polled = { opened: false, closed: false, interrupts: 0 };
  /** -1 while no uio driver has the device. */
  #listener = -1;
  /** What fds() gives, and what it follows from. */
  #fds: { listener: number; guest: number; list: readonly number[] } = { listener: -1, guest: -1, list: [] };
  #rescinded = false;
  #pid = 0;
  #guest = -1;
  /** Running count of interrupts to this guest. */
  #events = 0;
  /** The guest did not take the last count. */
  #owing = false;
  /** We hold the ring file's lock, for a stranger: a guest that does not know of it, nor of interrupts to the host. */
  #locked = false;
  /** The end of a channel that poll() has not reported yet. */
  #ended = false;
  #pages: GuestPages | undefined;
  #reader: GuestReader | undefined;
  #refusal = '';
  /** Of the present opening. */
  #receiveBytes = 0;
  #subchannels: SubchannelParts[] = [];

  constructor(parts: UioOfferParts) {
    this.#parts = parts;
    this.uuid = parts.uuid;
    this.relid = parts.relid;
    this.monitorId = parts.monitorId;
    this.arena = parts.arena;
    this.fromGuest = parts.fromGuest;
    this.toGuest = parts.toGuest;
    this.receiveBuffer = parts.receiveBuffer;
    this.sendBuffer = parts.sendBuffer;
    this.#receiveBytes = parts.receiveBuffer.bytes;
  }

  receiveBytes(): number {
    // What the guest said about it before it named the buffer on the ring is in the socket.
    if (this.#guest >= 0) this.#readCommands();
    return this.#receiveBytes;
  }

  get fds(): readonly number[] {
    const fds = this.#fds;
    if (fds.listener !== this.#listener || fds.guest !== this.#guest) {
      this.#fds = {
        ...{ listener: this.#listener, guest: this.#guest },
        list: [this.#listener, this.#guest].filter((fd) => fd >= 0),
      };
    }
    return this.#fds.list;
  }

  get guestPid(): number | undefined {
    return this.#guest >= 0 ? this.#pid : undefined;
  }

  get lastRefusal(): string {
    return this.#refusal;
  }

  /** Costs one to two system calls: meant for wake-ups and a tick, not for every turn of a busy loop. */
  poll(ready?: (fd: number) => boolean): { opened: boolean; closed: boolean; interrupts: number } {
    const polled = this.#polled;
    polled.opened = false;
    polled.interrupts = 0;
    if (this.#guest >= 0 && (ready === undefined || ready(this.#guest))) this.#readCommands(ready !== undefined);
    if (this.#guest >= 0) this.#readDoorbells();
    if (this.#owing) this.#send();
    polled.closed = this.#ended;
    this.#ended = false;
    if (!polled.closed && this.#listener >= 0 && (ready === undefined || ready(this.#listener))) this.#accept();
    return polled;
  }

  createSubchannel(): SubchannelOffer {
    const where = `vmbus ${this.uuid}: no subchannel`;
    if (this.#guest < 0) throw new VmbusError(`${where}, no guest has the channel open`);
    const subchannelId = this.#subchannels.length + 1;
    let parts: SubchannelParts;
    try {
      parts = this.#parts.makeSubchannel(subchannelId);
    } catch (cause) {
      throw new VmbusError(`${where}: ${(cause as Error).message}`, { cause });
    }
    this.#subchannels.push(parts);
    const { relid, monitorId, fromGuest, toGuest, publish } = parts;
    openHostRings(this.arena, fromGuest, toGuest);
    return { relid, subchannelId, monitorId, fromGuest, toGuest, publish, signal: () => this.#interrupt(relid) };
  }

  get monitorMs(): number | undefined {
    const { monitorPage, monitored } = this.#parts;
    if (this.#guest < 0 || !(this.#locked || monitored)) return undefined;
    let least = latencyMs(this.arena, monitorPage, this.monitorId);
    for (const { monitorId } of this.#subchannels) {
      least = Math.min(least, latencyMs(this.arena, monitorPage, monitorId));
    }
    return least;
  }

  signal(): void {
    this.#interrupt(this.relid);
  }

  #interrupt(relid: number): void {
    if (this.#guest < 0) return;
    setInterruptBit(this.arena, this.#parts.interruptPage, 'guest', relid);
    this.stats.interruptsOut++;
    this.#events = (this.#events + 1) >>> 0;
    // A guest that polls and leaves its ring unmasked reads none of them: not a system call for each.
    if (this.#owing) this.stats.interruptsDropped++;
    else this.#send();
  }

  /** Writes the count. A full socket is readable already, and gets the newest count later; a closed one is found by poll(). */
  #send(): void {
    this.#count.writeUInt32LE(this.#events);
    this.#owing = sendBytes(this.#guest, this.#count, 4) < 4;
    if (this.#owing) this.stats.interruptsDropped++;
  }

  mapGuestPage(pfn: bigint): GuestRegion | undefined {
    if (!this.#pages) {
      this.#refusal = 'no guest has the channel open';
      return undefined;
    }
    const found = this.#pages.map(pfn);
    if (typeof found !== 'string') return found;
    this.#refusal = found;
    return undefined;
  }

  get refusedPages(): PageSpan | undefined {
    return this.#pages?.refusedPages;
  }

  copyGuest(vectors: number, count: number, to: number, bytes: number): number {
    const copied = this.#reader?.read(vectors, count, to, bytes) ?? 'no guest has the channel open';
    if (typeof copied === 'number') return copied;
    this.#refusal = copied;
    return -1;
  }

  /** uio_hv_generic takes the device: guests may come. Throws OsError. */
  publish(): void {
    try {
      this.#listener = this.#parts.publish();
    } catch (error) {
      this.#parts.hide();
      throw error;
    }
  }

  /** uio_hv_generic leaves the device; a guest that has it open is told as by a rescind. */
  hide(): void {
    this.#end();
    if (this.#listener < 0) return;
    closeSync(this.#listener);
    this.#listener = -1;
    this.#parts.hide();
  }

  rescind(): void {
    if (this.#rescinded) return;
    this.#rescinded = true;
    this.hide();
    this.#parts.withdraw();
  }

  #accept(): void {
    for (let i = 0; i < ACCEPTS_MAX; i++) {
      // Who connects now may be the guest that has closed since we looked: its end is reported first, and it waits.
      if (this.#guest >= 0) {
        if (!isReadable(this.#listener)) return;
        this.#readCommands();
        if (this.#guest < 0) return;
      }
      const guest = acceptUnix(this.#listener);
      if (guest < 0) return;
      const peer = peerCredentials(guest);
      const refused =
        this.#guest >= 0
          ? 'refusedBusy'
          : peer.uid !== 0 && peer.uid !== process.getuid?.()
            ? 'refusedUser'
            : undefined;
      if (refused) {
        this.stats[refused]++;
        closeSync(guest);
        continue;
      }
      this.#open(guest, peer.pid);
    }
  }

  #open(guest: number, pid: number): void {
    const { arena, fromGuest, toGuest } = this;
    // A guest that holds the lock zeroed the rings before it connected, and may have written to them since. For any
    // other guest we are the kernel that zeroes them.
    this.#locked = lockFile(this.#parts.ringFile);
    if (this.#locked) {
      zeroControlPage(arena, fromGuest);
      zeroControlPage(arena, toGuest);
    }
    openHostRings(arena, fromGuest, toGuest);
    this.#guest = guest;
    this.#pid = pid;
    this.#words.reset();
    this.#receiveBytes = this.receiveBuffer.bytes;
    this.#events = 0;
    this.#owing = false;
    if (this.monitorId !== undefined) initLatency(arena, this.#parts.monitorPage, this.monitorId);
    this.#pages = new GuestPages(arena, pid, this.#parts.limits);
    this.#reader = new GuestReader(arena, guest, pid);
    // Somebody else has its number already: /proc showed us that one.
    if (this.#reader.gone) this.#pages.close();
    // A stranger may write to its rings from this word on.
    if (this.#locked) this.#send();
    this.stats.opened++;
    this.#polled.opened = true;
  }

  /** `once`: whether there is more is for the next look to find out. */
  #readCommands(once = false): void {
    for (let i = 0; i < (once ? 1 : READS_MAX); i++) {
      const length = receiveBytes(this.#guest, this.#input);
      if (length === -ERRNO.EAGAIN!) return;
      // 0 = closed; ECONNRESET = closed with interrupts from us unread.
      if (length <= 0) {
        this.#end();
        return;
      }
      this.#words.push(this.#input, length, this.#command);
    }
  }

  /** Channels with a monitor: their triggers. The others: bits of the interrupt page, all that a stranger gives; the
   *  interrupts of our own guest, which they belong to, were counted already. */
  #readDoorbells(): void {
    this.#readDoorbell(this.relid, this.monitorId);
    for (const { relid, monitorId } of this.#subchannels) this.#readDoorbell(relid, monitorId);
  }

  #readDoorbell(relid: number, monitorId: number | undefined): void {
    const { interruptPage, monitorPage } = this.#parts;
    const bit = takeInterruptBit(this.arena, interruptPage, 'host', relid);
    if (monitorId === undefined ? bit && this.#locked : takeTrigger(this.arena, monitorPage, monitorId)) {
      this.#polled.interrupts++;
      this.stats.triggersIn++;
    }
  }

  /** The interrupt descriptor is the device's: its mask holds for all channels (facts/linux-guest.md 9.3). */
  #maskAll(masked: boolean): void {
    setInterruptMask(this.arena, this.toGuest, masked);
    for (const { toGuest } of this.#subchannels) setInterruptMask(this.arena, toGuest, masked);
  }

  readonly #command = (word: number): void => {
    if (word === IRQ_COMMAND.DISABLE) this.#maskAll(true);
    else if (word === IRQ_COMMAND.ENABLE || word === IRQ_COMMAND.SIGNAL) {
      if (word === IRQ_COMMAND.ENABLE) this.#maskAll(false);
      this.#polled.interrupts++;
      this.stats.interruptsIn++;
    } else if (receivePages(word) > 0) {
      this.#receiveBytes = Math.min(receivePages(word) * PAGE_BYTES, this.receiveBuffer.bytes);
    } else this.stats.commandsIgnored++;
  };

  #end(): void {
    if (this.#guest < 0) return;
    closeSync(this.#guest);
    this.#guest = -1;
    if (this.#locked) unlockFile(this.#parts.ringFile);
    this.#locked = false;
    this.#owing = false;
    for (const { withdraw } of this.#subchannels.splice(0).reverse()) withdraw();
    this.#pages?.close();
    this.#pages = undefined;
    this.#reader?.close();
    this.#reader = undefined;
    this.stats.closed++;
    this.#ended = true;
  }
}
