// What a running interface answers to, in ethtool's words: `netvsc ethtool` asks by it, the interface implements it
// (facts/linux-guest.md 5).

/** Errno names that ethtool's messages are made of. */
export type NetdevErrorCode =
  | 'EINVAL'
  | 'EOPNOTSUPP'
  | 'EBUSY'
  | 'ENODEV'
  | 'EIO'
  | 'ENOMEM'
  | 'ERANGE'
  | 'EPERM'
  | 'ETIMEDOUT';

export class NetdevError extends Error {
  override readonly name = 'NetdevError';
  readonly code: NetdevErrorCode;

  /** `where`: interface and setting; `problem`: what was expected and what came. */
  constructor(code: NetdevErrorCode, where: string, problem: string, options?: ErrorOptions) {
    super(`${where}: ${problem}`, options);
    this.code = code;
  }
}

/** ethtool -i. */
export interface DriverInfo {
  readonly driver: string;
  readonly version: string;
  readonly firmwareVersion: string;
  /** The device's UUID. */
  readonly busInfo: string;
}

/** ethtool without option. */
export interface LinkInfo {
  readonly up: boolean;
  /** 0 = unknown. */
  readonly speedMbps: number;
  readonly fullDuplex: boolean;
  readonly autonegotiated: boolean;
}

/** ethtool -k. `name` is the kernel's, "tx-checksum-ipv4" or "rx-lro". */
export interface FeatureState {
  readonly name: string;
  readonly on: boolean;
  /** What the user asked for; differs from `on` where host or another feature does not allow it. */
  readonly wanted: boolean;
  /** Cannot be changed. */
  readonly fixed: boolean;
  /** Why a wanted feature is off or cannot be had, for people. */
  readonly reason?: string;
}

/** ethtool -l. */
export interface ChannelCounts {
  readonly maxCombined: number;
  readonly combined: number;
  /** Why there cannot be more, for people. */
  readonly reason?: string;
}

/** ethtool -g: sections of the receive buffer and the send buffer. */
export interface RingSizes {
  readonly maxRx: number;
  readonly maxTx: number;
  readonly rx: number;
  readonly tx: number;
}

/** ethtool -x. */
export interface RssState {
  readonly rings: number;
  readonly table: readonly number[];
  readonly key: readonly number[];
  /** Other hash functions there are none. */
  readonly hashFunction: 'toeplitz';
}

/** ethtool -X; what is left out stays. */
export interface RssChange {
  /** Empty: the default, which follows the number of channels again. */
  readonly table?: readonly number[];
  readonly key?: readonly number[];
}

export const FLOWS = ['tcp4', 'udp4', 'tcp6', 'udp6', 'ip4', 'ip6'] as const;
export type Flow = (typeof FLOWS)[number];

/** ethtool -n DEV rx-flow-hash FLOW: fields of which hashes are made. */
export interface FlowHash {
  readonly flow: Flow;
  /** L3: addresses ("sd"); L4: addresses and ports ("sdfn"). */
  readonly level: 'L3' | 'L4';
  /** The host hashes received packets of the flow at this level, too; false: transmit only. */
  readonly receive: boolean;
}

/** ethtool -c: how long the interrupt may wait. Microseconds and frames, 0 = not at all. */
export interface Coalescing {
  readonly rxUsecs: number;
  readonly rxFrames: number;
  readonly txUsecs: number;
  readonly txFrames: number;
}

/** ethtool -a. */
export interface PauseState {
  readonly autonegotiate: boolean;
  readonly rx: boolean;
  readonly tx: boolean;
}

/** ethtool -d: what hv_netvsc dumps. */
export interface RegisterDump {
  /** The host's send table: channel of each of the 16 hash values. Empty: the device has none. */
  readonly sendTable: readonly number[];
}

/** What can be asked of an interface. Setters reject with a NetdevError; everything is as before then. */
export interface NetdevControl {
  driverInfo(): DriverInfo;
  link(): LinkInfo;
  features(): readonly FeatureState[];
  /** By kernel name. Features that the host cannot do stay wanted, and off. */
  setFeatures(wanted: Readonly<Record<string, boolean>>): Promise<void>;
  channels(): ChannelCounts;
  setChannels(combined: number): Promise<void>;
  rings(): RingSizes;
  /** Values outside the limits are brought into them, as hv_netvsc does. */
  setRings(sizes: { readonly rx?: number; readonly tx?: number }): Promise<void>;
  rss(): RssState;
  setRss(change: RssChange): Promise<void>;
  flowHash(flow: Flow): FlowHash;
  setFlowHash(flow: Flow, level: 'L3' | 'L4'): Promise<void>;
  coalescing(): Coalescing;
  setCoalescing(change: Partial<Coalescing>): Promise<void>;
  /** Undefined: the device has none. */
  pause(): PauseState | undefined;
  registers(): RegisterDump;
  /** ethtool -P: the device's own address, "00:15:5d:00:00:01". */
  permanentAddress(): string;
  /** ethtool -S, in order. */
  statistics(): readonly (readonly [name: string, value: number])[];
}
