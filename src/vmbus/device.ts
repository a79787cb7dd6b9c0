// The one surface, seen from both sides. A guest driver gets a VmbusDevice, a host a VmbusOffer; backends are uio/
// (machine directory: sysfs tree, mapped files, interrupt socket) and memory/ (both sides in one arena).
import type { Arena } from '../memory/arena.js';

/** Class of Hyper-V network devices. */
export const NETVSC_CLASS = 'f8615163-df3e-46c5-913f-f2d2f965ed0e';

// Pages of rings, GPADLs and page frame numbers, whatever the system's page size is.
export { PAGE_BYTES } from '../wire/vmbus.js';

/** Bytes at an arena address. */
export interface Region {
  readonly address: number;
  readonly bytes: number;
}

/** A ring: one 4096-byte control page and its data behind it, at consecutive arena addresses. */
export interface RingRegion {
  /** Arena address of the control page. */
  readonly control: number;
  /** Bytes of data behind the control page. */
  readonly dataBytes: number;
}

/** A buffer that a GPADL names. */
export interface GpadlRegion extends Region {
  readonly gpadl: number;
}

/** How guest memory looks to the host: page frame numbers of arena pages. */
export interface GuestMemory {
  /** Reserves arena memory that the host can read by page frame number; released by `release`. */
  allocate(name: string, bytes: number): number;
  release(address: number): void;
  /** Page frame number of the 4 KiB page that holds this arena address. */
  pfn(address: number): bigint;
}

/** What open() gives: the mapped channel, valid until close() or rescind. */
export interface OpenChannel {
  readonly transmit: RingRegion;
  readonly receive: RingRegion;
  readonly receiveBuffer: GpadlRegion;
  readonly sendBuffer: GpadlRegion;
  /** Address of the DOORBELL that tells the host of news, from any thread (uio/bell.ts); 0 = the host looks by itself. */
  readonly doorbell: number;
}

/** A further channel of the device, for the guest. The bus opens it when the host offers it, as uio_hv_generic does. */
export interface Subchannel {
  readonly relid: number;
  /** 1 and up, in the order of the host's offers. */
  readonly subchannelId: number;
  readonly monitorId: number | undefined;
  readonly transmit: RingRegion;
  readonly receive: RingRegion;
  /** As the primary's. */
  readonly doorbell: number;
  /** Tells the host that this channel has news. */
  signal(): void;
}

/** A device on the bus, for the guest. */
export interface VmbusDevice {
  readonly uuid: string;
  readonly classId: string;
  readonly relid: number;
  /** MNF monitor id, or undefined when the host polls no monitor page for it. */
  readonly monitorId: number | undefined;
  /** Where it was found, for messages: a path or "memory". */
  readonly location: string;
  readonly arena: Arena;
  readonly memory: GuestMemory;
  /**
   * Opens the primary channel: rings zeroed and mapped, host told. `receiveBytes`: how much of the receive buffer its GPADL covers, where
   * `sizesReceiveBuffer` (whole pages, default and most: all of it). Throws VmbusError.
   */
  open(receiveBytes?: number): OpenChannel;
  /** False: a kernel has made the GPADL of the whole receive buffer, and open() cannot change that. */
  readonly sizesReceiveBuffer: boolean;
  /** Closes it; the host frees what it held for it. Safe to call twice and after rescind. */
  close(): void;
  /** A subchannel of this opening that earlier calls have not returned, mapped; undefined while there is none (an offer may be
   *  on its way). It goes with close(). Throws VmbusError for one that cannot be used. */
  openSubchannel(): Subchannel | undefined;
  /** Sets how soon the host looks at the monitors of the channels that are open now, in units of 100 ns, 0 to 65535. Returns how many
   *  of the channels have one. */
  setLatency(units: number): number;
  /** Tells the host that the primary channel has news: a trigger bit when it has a monitor, else an interrupt. */
  signal(): void;
  /** File descriptor that becomes readable on an interrupt of any channel, or -1 (memory backend). */
  readonly interruptFd: number;
  /** Takes pending interrupts: how many came since the last call, or -1 once the host is gone (rescind, dead process). */
  takeInterrupts(): number;
}

/** A further channel of a NIC, for the host: open from its creation on. */
export interface SubchannelOffer {
  readonly relid: number;
  readonly subchannelId: number;
  readonly monitorId: number | undefined;
  readonly fromGuest: RingRegion;
  readonly toGuest: RingRegion;
  /** Offers it: from here on the guest can find it. */
  publish(): void;
  /** Interrupt to the guest for this channel; never blocks. */
  signal(): void;
}

/** What the host puts on the bus: one NIC's primary channel. */
export interface VmbusOffer {
  readonly uuid: string;
  readonly relid: number;
  readonly monitorId: number | undefined;
  readonly arena: Arena;
  /** `fromGuest` is the ring the guest transmits on, `toGuest` the other one. */
  readonly fromGuest: RingRegion;
  readonly toGuest: RingRegion;
  readonly receiveBuffer: GpadlRegion;
  /** How much of it the GPADL of this opening covers, in bytes. */
  receiveBytes(): number;
  readonly sendBuffer: GpadlRegion;
  /** Descriptors to watch in poll(2) (listening and connected socket), none in the memory backend. */
  readonly fds: readonly number[];
  /**
   * What happened since the last call. `opened` comes before any interrupt of that opening; `closed` also when the guest
   * died, and never in the same call as `opened`. `interrupts`: of all channels together, triggers of monitored ones included.
   * The object is the same each time. `ready`: which of fds a sleep found something at, the others are not looked at; what one look
   * leaves there ends the next sleep at once.
   */
  poll(ready?: (fd: number) => boolean): { opened: boolean; closed: boolean; interrupts: number };
  /**
   * Makes the next subchannel of the opening, with rings of its own. It goes when the opening ends: its rings are gone once
   * poll() has said `closed`, or after rescind(). Throws VmbusError: no guest, no memory, or no channel id is left.
   */
  createSubchannel(): SubchannelOffer;
  /** Longest sleep that the monitors of the open channels allow, in ms; undefined when all of them interrupt. */
  readonly monitorMs: number | undefined;
  /** Interrupt to the guest; never blocks. */
  signal(): void;
  /** Maps the guest page that holds this page frame number (and its neighbours of the same file). Undefined = cannot be seen, with
   *  the reason in `lastRefusal`. Regions stay mapped until `closed`. */
  mapGuestPage(pfn: bigint): GuestRegion | undefined;
  /** Why the last page could not be mapped, or the last bytes not be copied. */
  readonly lastRefusal: string;
  /** The pages around the last refused one for which the same answer holds; undefined = not even for that one, for long. */
  readonly refusedPages: PageSpan | undefined;
  /**
   * Copies guest memory that cannot be mapped: `count` pairs of u64, address (page frame number x 4096 + offset) and bytes, at
   * arena address `vectors`, back to back to arena address `to`, `bytes` in all. Returns how many bytes came, up to the first that are
   * not there, or -1 when none can be had at all (`lastRefusal`).
   */
  copyGuest(vectors: number, count: number, to: number, bytes: number): number;
  /** Process that has the channel open; undefined when nobody has, or when it is known to be this very memory's user. */
  readonly guestPid: number | undefined;
  /** Withdraws the device: the guest's descriptor reports the end. */
  rescind(): void;
}

/** Guest-physical pages [pfn, pfn + pages). */
export interface PageSpan {
  readonly pfn: bigint;
  readonly pages: number;
}

/** Pages that are mapped in the host's arena, at consecutive addresses. */
export interface GuestRegion extends PageSpan {
  readonly address: number;
}

/** A device that cannot be found, opened or mapped; the message names it. */
export class VmbusError extends Error {
  override name = 'VmbusError';
}
