// What a port is told and what it says about itself (facts/dpdk.md 2.4 to 2.9). Sizes in bytes unless a name says otherwise.

/** Limits and abilities of a device. */
export interface PortInfo {
  /** Name of the driver, "net_netvsc". */
  readonly driver: string;
  /** Name of the device: a UUID, or that of a virtual device. */
  readonly device: string;
  readonly maxRxQueues: number;
  readonly maxTxQueues: number;
  readonly minMtu: number;
  readonly maxMtu: number;
  /** Longest frame that can be received and sent, without FCS. */
  readonly maxRxPacketBytes: number;
  readonly minRxBufferBytes: number;
  readonly maxMacAddresses: number;
  readonly rxDescriptors: DescriptorLimits;
  readonly txDescriptors: DescriptorLimits;
  /** RX_OFFLOAD and TX_OFFLOAD bits. */
  readonly rxOffloads: number;
  readonly txOffloads: number;
  /** RSS_TYPE bits, entries of the redirection table and bytes of the key; 0 = no scaling. */
  readonly rssTypes: number;
  readonly rssTableEntries: number;
  readonly rssKeyBytes: number;
  readonly maxTxSegments: number;
  /** Largest packets for TCP_TSO, headers included; 0 = none of that family. Absent: 65,535. */
  readonly maxTsoBytes?: { readonly ipv4: number; readonly ipv6: number };
  /** Speeds that it may have, Mbit/s. */
  readonly speedsMbps: readonly number[];
  readonly rxInterrupts: boolean;
  readonly linkEvents: boolean;
  /** Filters that are done in software because device or host have none. */
  readonly softwareFilters: readonly ('mac' | 'multicast' | 'vlan')[];
  /** NUMA node of the device, -1 = any. */
  readonly socket: number;
  /** Channels that the device's host granted; queues beyond share them. Absent: each queue has its own. */
  readonly channels?: number;
  /** Why the device has not all that such a device can have, for messages: by the offload's name, "queues", "RSS" or "MTU". */
  readonly reasons?: Readonly<Record<string, string>>;
}

/** RX_OFFLOAD and TX_OFFLOAD bits. */
export interface PortOffloads {
  readonly rxOffloads: number;
  readonly txOffloads: number;
}

/** Sections of the buffers that host and guest share: one received packet each at least, and one message to send. */
export interface RingSizes {
  readonly rx: number;
  readonly tx: number;
  readonly minRx: number;
  readonly maxRx: number;
  readonly minTx: number;
  readonly maxTx: number;
}

export interface DescriptorLimits {
  readonly min: number;
  readonly max: number;
  readonly align: number;
  /** What 0 descriptors mean. */
  readonly usual: number;
}

export interface RssConfig {
  /** RSS_TYPE bits; 0 = off. */
  readonly types: number;
  /** Default: the driver's. */
  readonly key?: Uint8Array;
}

export interface PortConfig {
  readonly rxQueues: number;
  readonly txQueues: number;
  /** RX_OFFLOAD and TX_OFFLOAD bits (default 0). */
  readonly rxOffloads?: number;
  readonly txOffloads?: number;
  /** Default: types that the device has, when there are several rx queues. */
  readonly rss?: RssConfig;
  /** Default: as it is. */
  readonly mtu?: number;
  /** Rx interrupts: queues can wait. Default true where the device has them. */
  readonly rxInterrupts?: boolean;
  /** Received mbufs say their PACKET_TYPE, where that costs something (default true). */
  readonly packetTypes?: boolean;
}

export interface LinkStatus {
  readonly up: boolean;
  /** 0 = unknown. */
  readonly speedMbps: number;
  readonly fullDuplex: boolean;
  readonly autonegotiated: boolean;
}

/** Counters since start or resetStats(). Names and meaning are those of DPDK's rte_eth_stats. */
export interface BasicStats {
  ipackets: number;
  opackets: number;
  ibytes: number;
  obytes: number;
  /** Dropped by the device because nobody took them. */
  imissed: number;
  ierrors: number;
  oerrors: number;
  rxNombuf: number;
}

export interface QueueStats {
  readonly rx: { readonly packets: number; readonly bytes: number; readonly errors: number };
  readonly tx: { readonly packets: number; readonly bytes: number; readonly errors: number };
}

export interface QueueInfo {
  readonly descriptors: number;
  /** Name of the pool (rx). */
  readonly pool?: string;
  readonly offloads: number;
}

export type DescriptorStatus = 'AVAILABLE' | 'DONE' | 'FULL' | 'UNAVAILABLE';

export interface ReceiveFilter {
  readonly promiscuous: boolean;
  readonly allMulticast: boolean;
}

/** 'taken': another port uses the device (a capture around it, ...). */
export type PortState = 'probed' | 'configured' | 'started' | 'taken' | 'removed' | 'closed';

/** What programs listen to: port.on('link', ...). */
export interface PortEvents {
  link: [LinkStatus];
  removed: [reason: string];
  recovering: [];
  recovered: [];
  /** Another table for the choice of transmit queues is in force. */
  transmitTable: [table: readonly number[]];
  /** The device has switched offloads off, or on again, that were asked for. */
  offloads: [PortOffloads];
}

export type PortEvent =
  | { readonly type: 'link'; readonly link: LinkStatus }
  /** The device is gone; the port can only be closed. */
  | { readonly type: 'removed'; readonly reason: string }
  | { readonly type: 'recovering' }
  | { readonly type: 'recovered' }
  /** transmitTable() or offloads() of the PortDriver have something else to say. */
  | { readonly type: 'transmit-table' }
  | { readonly type: 'offloads' };
