// What a NetVSC device is made with, what it reports, and what it says about itself.
import type { Datapath } from '../datapath/datapath.js';
import type { Region, VmbusDevice } from '../vmbus/device.js';
import { NVSP_VERSION } from '../wire/nvsp.js';
import { PACKET_FILTER } from '../wire/oid.js';

/** Payload bytes of an Ethernet frame. */
export const MIN_MTU = 68;
export const MAX_MTU = 65_521;
/** Largest buffers that a guest gives to a host (facts/linux-guest.md 1.1). */
export const MAX_SEND_BUFFER_BYTES: number = 15 << 20;
export const maxReceiveBufferBytes = (nvspVersion: number): number =>
  nvspVersion <= NVSP_VERSION.V2 ? 15 << 20 : 31 << 20;
/** Most with this NVSP version. */
export const maxMtu = (nvspVersion: number): number => (nvspVersion >= NVSP_VERSION.V2 ? MAX_MTU : 1500);

export interface NetvscOptions {
  /** Bytes of payload of an Ethernet frame, 68..65521 (NVSP 1: at most 1500). Default 1500; the host may lower it. */
  readonly mtu?: number;
  /** Bytes of the receive buffer that the host gets, in whole pages (default and most: all of it), where the device leaves that to us. */
  readonly receiveBufferBytes?: number;
  /** Bytes of the send buffer that are used (default all, at most 15 MiB; raised to 10 sections). */
  readonly sendBufferBytes?: number;
  /** Longest RNDIS message in bytes that is copied into a send-buffer section (default and most: section size - alignment). */
  readonly copyLimit?: number;
  /** NVSP versions to try, in this order. */
  readonly nvspVersions?: readonly number[];
  /** How long the host may take for an answer. Default 5000. */
  readonly requestTimeoutMs?: number;
  /** How long it may complete no send of a queue while some are in flight, before that is told ('send-timeout'). Default 5000. */
  readonly sendTimeoutMs?: number;
  /** Channels wanted, 1 to 64 (default 1). The host may give fewer: NetvscInfo.queues says how many there are. */
  readonly queues?: number;
  /** Take coalesced segments from hosts that offer it (needs a large pool, or chains). Default true. */
  readonly rsc?: boolean;
  /** OFFLOAD bits that are switched on where the host offers them (default: all). */
  readonly offloads?: number;
  /** How soon the host looks at channels that have a monitor, in units of 100 ns, 0 to 65535. Default: as the host has it. */
  readonly latency?: number;
}

export interface NetvscSetup {
  readonly device: VmbusDevice;
  readonly datapath: Datapath;
  /** Addresses of POOLs; `large` 0 = frames beyond the small pool's room are refused, or with `chains` made of several buffers. A
   *  queue's own pool may be set later (QueueMemory). */
  readonly pools: { readonly small: number; readonly large: number; readonly chains?: boolean };
  /** Where the pools' buffers lie: memory that the host can read by page frame number. */
  readonly packetMemory: Region;
  readonly options?: NetvscOptions;
  readonly onEvent?: (event: NetvscEvent) => void;
  /** For devices whose queues other threads poll and send on. */
  readonly sharing?: NetvscSharing;
}

/** How control code and the bursts of other threads keep out of each other's way. */
export interface NetvscSharing {
  /** Runs code that uses a queue's rings while no burst does. False = not now: it is tried again at the next tick. */
  exclusive(queue: number, what: () => void): boolean;
  /** Called before memory is given back, with the addresses of the GUEST_QUEUEs: no burst may use it from then on. False = one
   *  does not end, or received packets show the receive buffer; detach() asks again. */
  quiesce(queues: readonly number[]): boolean;
}

/** What the host said about receive-side scaling. */
export interface RssCapabilities {
  readonly receiveQueues: number;
  readonly tableEntries: number;
  readonly flags: number;
}

/** The result of attach. */
export interface NetvscInfo {
  /** Permanent address, "00:15:5d:...". */
  readonly mac: string;
  mtu: number;
  /** Largest MTU that needs no reattach: what the host was told. */
  readonly attachedMtu: number;
  linkUp: boolean;
  linkSpeedBps: number;
  readonly friendlyName: string;
  readonly nvspVersion: number;
  readonly ndisVersion: number;
  /** OFFLOAD bits that the host offers, and those that both sides agreed on. */
  readonly offered: number;
  offloads: number;
  /** Largest LSO send in bytes, per family; 0 = no LSO. */
  readonly lsoMax4: number;
  readonly lsoMax6: number;
  readonly maxPacketsPerMessage: number;
  readonly packetAlignment: number;
  readonly maxTransferBytes: number;
  readonly receiveSections: number;
  readonly receiveSectionBytes: number;
  /** Sections for data; the control section(s) in front of them are not counted. */
  readonly sendSections: number;
  readonly sendSectionBytes: number;
  /** The most that a reattach could have of either. */
  readonly maxReceiveSections: number;
  readonly maxSendSections: number;
  /** Channels: numbers 0 (the primary) to queues - 1 for send and poll. */
  readonly queues: number;
  /** The host spreads received packets over the queues; with several queues and without this it refused to. */
  readonly receiveScaling: boolean;
  /** Undefined: not asked (NVSP below 5) or not answered. */
  readonly rss: RssCapabilities | undefined;
}

export type NetvscEvent =
  | { readonly type: 'link'; readonly up: boolean }
  | { readonly type: 'speed'; readonly bps: number }
  | { readonly type: 'network-change' }
  | { readonly type: 'offloads'; readonly offloads: number }
  | { readonly type: 'reset' }
  | { readonly type: 'vf-association'; readonly allocated: boolean; readonly serial: number }
  | { readonly type: 'data-path'; readonly vf: boolean }
  | { readonly type: 'send-table'; readonly table: readonly number[] }
  | { readonly type: 'indication'; readonly status: number }
  /** Of the subchannels that the host granted some did not come, or could not be opened: the device works with fewer queues. */
  | { readonly type: 'missing-queues'; readonly granted: number; readonly opened: number; readonly reason: string }
  /** The host completes nothing on a queue. */
  | { readonly type: 'send-timeout'; readonly queue: number; readonly outstanding: number; readonly ms: number }
  | { readonly type: 'failed'; readonly reason: string };

export type NetvscState = 'detached' | 'attaching' | 'running' | 'detaching' | 'failed';

/** What a Linux interface that is up asks for. */
export const DEFAULT_FILTER: number = PACKET_FILTER.DIRECTED | PACKET_FILTER.ALL_MULTICAST | PACKET_FILTER.BROADCAST;

/** Counters that the driver itself keeps; they go on over detach and attach. */
export interface DriverCounters {
  attaches: number;
  detaches: number;
  failures: number;
  interrupts: number;
  linkChanges: number;
  keepalives: number;
  resets: number;
  indications: number;
  badIndications: number;
  badHostMessages: number;
  sendsAbandoned: number;
  sendTimeouts: number;
  missingQueues: number;
}

export function driverCounters(): DriverCounters {
  return {
    attaches: 0,
    detaches: 0,
    failures: 0,
    interrupts: 0,
    linkChanges: 0,
    keepalives: 0,
    resets: 0,
    indications: 0,
    badIndications: 0,
    badHostMessages: 0,
    sendsAbandoned: 0,
    sendTimeouts: 0,
    missingQueues: 0,
  };
}
