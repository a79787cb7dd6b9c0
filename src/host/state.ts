// What a host says about itself: plain objects, for people, --json and the lab. Counters are totals since the NIC or port
// was made, so that a guest that comes back does not reset them.
import type { CoalescerCounters } from './coalescer.js';
import type { ChannelPhase } from './netvsp.js';
import type { SwitchCounters } from './vswitch.js';

export interface NicState {
  readonly name: string;
  /** Switch port number. */
  readonly port: number;
  readonly uuid: string;
  readonly mac: string;
  readonly phase: ChannelPhase;
  /** Process of the guest that has the channel open, on a machine directory. */
  readonly guestPid: number | undefined;
  /** Why the phase is `dead` or `stopped`: which message, what was expected, what came. */
  readonly reason: string | undefined;
  /** "V6.1" */
  readonly nvspVersion: string | undefined;
  /** "6.30", as the guest said it. */
  readonly ndisVersion: string | undefined;
  readonly rndisOperational: boolean;
  /** Bytes of payload. */
  readonly mtu: number;
  readonly linkUp: boolean;
  readonly linkSpeedBps: number;
  /** NDIS packet filter bits. */
  readonly packetFilter: number;
  /** Names of the offloads in force. */
  readonly offloads: readonly string[];
  /** Times a guest opened the channel, and times it was killed. */
  readonly opens: number;
  readonly deaths: number;
  readonly receiveBuffer: {
    readonly suballocationBytes: number;
    readonly suballocations: number;
    /** Data suballocations in the guest's hands. */
    readonly inUse: number;
    readonly controlInUse: number;
  };
  readonly sendBuffer: { readonly bytes: number; readonly sectionBytes: number };
  readonly control: {
    /** Control-path packets since the NIC was made. */
    readonly events: number;
    /** Requests, answers and indications that wait for room. */
    readonly waiting: number;
    /** RNDIS control messages completed with an error, malformed or beyond the queue's limit. */
    readonly refused: number;
  };
  /** The guest's memory, as its page numbers name it. */
  readonly guestPages: {
    /** Stretches that are mapped. */
    readonly regions: number;
    /** System calls that copied what cannot be mapped, and what they copied. */
    readonly copies: number;
    readonly copiedBytes: number;
    /** Why something had to be copied since the guest opened the channel. */
    readonly copiedBecause: string | undefined;
    /** Messages that failed because their memory could neither be mapped nor copied, and why the last one did. */
    readonly refused: number;
    readonly lastRefusal: string | undefined;
  };
  /** FRAME_ERROR name of the last message refused with status 2 since the guest opened the channel. */
  readonly lastFrameError: string;
  /** Offered subchannels, by subchannel id. `reason`: why one is dead. */
  readonly subchannels: readonly {
    readonly relid: number;
    readonly reason: string | undefined;
    readonly counters: Record<string, number>;
  }[];
  /** The guest has receive-side scaling on. */
  readonly receiveScaling: boolean;
  /** NDIS_HASH_TYPE bits by which received packets are spread; 0 = they are not. */
  readonly hashTypes: number;
  /** Frames that would have gone to a dead channel. */
  readonly lostToDeadChannels: number;
  readonly counters: Readonly<Record<string, number>>;
  readonly workshop: Readonly<Record<string, number>>;
  /** What receive-side coalescing did; undefined: the host has none. */
  readonly coalescing: CoalescerCounters | undefined;
}

export interface PortState {
  readonly number: number;
  readonly name: string;
  readonly kind: string;
  readonly linkUp: boolean;
  readonly mtu: number;
  /** The switch's counters of this port, then the uplink's own. */
  readonly counters: Readonly<Record<string, number>>;
}

export interface HostState {
  readonly machine: string;
  readonly profile: string;
  readonly nics: readonly NicState[];
  readonly ports: readonly PortState[];
  readonly switch: SwitchCounters;
  /** Commands written to the machine directory's /sys/bus/vmbus, and the last one refused; undefined without one. */
  readonly drivers: { readonly commands: number; readonly refused: number; readonly lastRefusal: string } | undefined;
  /** Stations that the switch knows. */
  readonly stations: readonly {
    readonly mac: string;
    readonly vlan: number | undefined;
    readonly port: number;
    readonly portName: string;
    readonly ageSeconds: number;
  }[];
}
