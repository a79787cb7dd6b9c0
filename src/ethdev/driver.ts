// What a driver is to the device API. A driver has two halves: control code in the thread that probed the device, and
// bursts in whatever thread polls a queue, made there from a description of plain data.

import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import type { InterfaceState } from '../memory/os/netlink.js';
import type { Devargs } from './devargs.js';
import type { FullConfig } from './limits.js';
import type { Mempool } from './mempool.js';
import type {
  BasicStats,
  DescriptorStatus,
  LinkStatus,
  PortEvent,
  PortInfo,
  PortOffloads,
  QueueStats,
  ReceiveFilter,
  RingSizes,
} from './types.js';

/** A thread that runs bursts. All lcores of a process work on one arena. */
export interface Lcore {
  readonly arena: Arena;
  /** This thread's instance. */
  readonly datapath: Datapath;
  /** Number of its stack in every pool, 0 = the control thread. */
  readonly lcore: number;
  /** Zeroed bytes of the arena for this thread, until it ends. */
  reserve(name: string, bytes: number): number;
  /** For a port around another one. Throws a RangeError. */
  driver(name: string): Driver;
}

/** Receives on one queue, in one thread at a time. */
export interface RxBurst {
  /** Puts up to `max` mbufs (the caller's from then on) into the u32 array at `handles`; returns how many. */
  burst(handles: number, max: number): number;
  /** Asks for a wake-up by fds(). False = something is there already. Absent: the queue has no interrupts. */
  arm?(): boolean;
  /** Back to polling. `ready`: which descriptors of fds() the sleep found something at, when that is known. */
  disarm?(ready?: (fd: number) => boolean): void;
  fds?(): readonly number[];
  close(): void;
}

/** Sends on one queue, in one thread at a time. */
export interface TxBurst {
  /** Sends up to `count` mbuf chains; returns how many were taken, from the front. The others stay the caller's. */
  burst(handles: number, count: number): number;
  close(): void;
}

export interface RxQueueSetup {
  /** Packets that may wait; a power of two is not needed. 0 = usual number. */
  readonly descriptors: number;
  readonly pool: Mempool;
  /** Where coalesced packets go (TCP_LRO), one buffer each, as long as it has any; otherwise they are chains of `pool`. Drivers
   *  whose devices coalesce nothing leave it alone. */
  readonly largePool?: Mempool;
}

export interface TxQueueSetup {
  readonly descriptors: number;
}

/** What a driver gets to work with. */
export interface DriverContext extends Lcore {
  /** Lcores that may poll. */
  readonly lcores: number;
  /** All mempools lie in it: memory that a host can read. */
  readonly packetMemory: { readonly address: number; readonly bytes: number };
  /** What the composition gives its drivers, by driver (machine directories and such). */
  readonly services: unknown;
  /** Tells the user, once each. */
  log(line: string): void;
  /** The port of that device name or number, for the port `by` alone from now on. Throws PortError. */
  takePort(which: string, by: string): TakenPort;
}

/** A port whose device another port uses: as its driver made it, nothing configured. */
export interface TakenPort {
  readonly device: string;
  readonly driver: Driver;
  readonly impl: PortDriver;
  /** Called for events of the device. */
  onEvent: ((event: PortEvent) => void) | undefined;
  /** Stopped: the port can be used by itself again. */
  release(): void;
}

/** What a port on an interface of the kernel lets its owner do there. Calls throw PortError. */
export interface KernelInterface {
  /** As it was last seen. */
  readonly state: InterfaceState;
  /** Descriptor of the network namespace in which it is; the port's. */
  readonly network: number;
  /** Descriptor that is readable when there are news of it, -1 = none now; another one after it went to another namespace. */
  readonly newsFd: number;
  /** Sees it as it is at this moment; onChange is called. */
  look(): void;
  /** How many of the configured queues the kernel uses, the first ones; all of them at first. Nobody may be receiving from the others. */
  setQueues(count: number): void;
  /** Gives all that is sent from now on to queue 0, or back to all queues. False: this kernel cannot. */
  gather(on: boolean): boolean;
  /** Packets wait in a queue from that one on. */
  holds(first: number): boolean;
  /** Called when somebody changed it, soon after. */
  onChange: ((state: InterfaceState) => void) | undefined;
  /** Whether the interface's user sees a link: of a started port, or from its next start on if that is not to have one. */
  setCarrier(up: boolean): void;
  /** What the stack may leave undone in packets that it sends: TAP_OFFLOAD bits. Returns those that the kernel knows. */
  setOffloads(bits: number): number;
  /** The largest packets to be cut, in bytes with headers, and most segments of one. */
  setGsoLimit(bytes: number, segments: number): void;
  setSpeed(mbps: number): void;
  /** Unlike the port's calls these are for any time. */
  setMtu(mtu: number): void;
  setMac(mac: string): void;
}

/** A probed device: the control half. Calls come one after the other; `running` queues are stopped around those that say so. */
export interface PortDriver {
  /** Has the permanent address at first. */
  readonly mac: string;
  /** MTU in force. */
  readonly mtu: number;
  /** Called for events, from then on until close(). */
  onEvent: ((event: PortEvent) => void) | undefined;
  info(): PortInfo;
  /** Stopped. The config is within info()'s limits. Throws PortError; the old configuration stays then. */
  configure(config: FullConfig): Promise<void>;
  setupRx(queue: number, setup: RxQueueSetup): void;
  setupTx(queue: number, setup: TxQueueSetup): void;
  /** Everything is set up; from its end on bursts may run. */
  start(): Promise<void>;
  /** Receives nothing new from now on, and waits until the bursts of other threads have taken what came and what they sent is on
   *  its way. Ends after a while in any case. */
  drain?(): Promise<void>;
  /** No burst runs any more. */
  stop(): Promise<void>;
  /** Stopped. Gives everything back; never throws. */
  close(): Promise<void>;
  /** As Driver.pairedQueues, where it depends on the device. */
  readonly paired?: boolean;
  /** Queues of one number use what those of number channel(number) use: their bursts exclude each other. Default: each its own. */
  channel?(queue: number): number;
  /** Addresses of the queues' PORT_QUEUE: by them control code runs between bursts (queues.ts betweenBursts). Called after configure(); with empty
   *  lists when they end. */
  useLocks?(rx: readonly number[], tx: readonly number[]): void;
  /** Plain data from which rx.open() and tx.open() of the Driver make a queue in any thread, valid until close(). Configured. */
  rxQueue(queue: number): unknown;
  txQueue(queue: number): unknown;
  link(): LinkStatus;
  stats(): BasicStats;
  queueStats(queue: number): QueueStats | undefined;
  /** Names and values, after the generic ones. */
  xstats(): [name: string, value: number][];
  resetStats(): void;
  /** Stopped. */
  setMtu?(mtu: number): Promise<void>;
  setFilter?(filter: ReceiveFilter): Promise<void>;
  /** Stopped or not. Absent: the device has one address for good. */
  setMac?(mac: string): Promise<void>;
  /** Further unicast addresses; multicast addresses; VLANs whose tagged packets are let in (with RX_OFFLOAD.VLAN_FILTER). Each
   *  call has the whole list. Stopped or not. */
  setMacs?(macs: readonly string[]): Promise<void>;
  setGroups?(macs: readonly string[]): Promise<void>;
  setVlans?(ids: readonly number[]): Promise<void>;
  setLink?(up: boolean): Promise<void>;
  rss?(): { readonly types: number; readonly key: Uint8Array; readonly table: readonly number[] };
  setRss?(change: {
    readonly types?: number;
    readonly key?: Uint8Array;
    readonly table?: readonly number[];
  }): Promise<void>;
  /** Queue of each transmit hash modulo the table's length; numbers may go beyond the tx queues that there are. Absent: all queues in turn. */
  transmitTable?(): readonly number[];
  /** Bits that are in force, those that need nothing of the device included. Absent: what was configured. */
  offloads?(): PortOffloads;
  /** Stopped or not, within info()'s limits. Throws PortError; nothing is changed then. */
  setOffloads?(rxOffloads: number, txOffloads: number): Promise<void>;
  rings?(): RingSizes;
  /** Stopped, within the limits. Throws PortError; the old sizes are in force then. */
  setRings?(sizes: { readonly rx?: number; readonly tx?: number }): Promise<void>;
  rxDescriptorStatus?(queue: number, offset: number): DescriptorStatus;
  txDescriptorStatus?(queue: number, offset: number): DescriptorStatus;
  /** Packets that wait in a queue. */
  rxQueueCount?(queue: number): number;
  burstMode?(): string;
  /** Its interface, for devices that have one. */
  readonly kernel?: KernelInterface;
  /** About once a millisecond, from the control thread. */
  tick?(nowMs: number): void;
}

/** A driver module: the same in every thread. */
export interface Driver {
  /** "net_ring": also the prefix of its virtual devices. */
  readonly name: string;
  /** Rx and tx of one queue number share state, so that only one of both bursts may run at a time. */
  readonly pairedQueues: boolean;
  /** Takes a device into use. Throws PortError. */
  probe(context: DriverContext, device: string, args: Devargs): Promise<PortDriver>;
  openRx(lcore: Lcore, description: unknown): RxBurst;
  openTx(lcore: Lcore, description: unknown): TxBurst;
}
