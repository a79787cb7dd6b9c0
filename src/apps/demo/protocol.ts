// What the demo's three kinds of parties say to each other: the main thread, the agents (one process per network
// namespace) and the data worker (host and guests).
import type { ProfileName } from '../../host/profiles.js';
import type { UdpSent, UdpVerdict } from './udp-schedule.js';

export type { UdpSent, UdpVerdict } from './udp-schedule.js';

export type Family = 4 | 6;

/** How an agent's interface is to be set up. */
export interface Interface {
  readonly ifname: string;
  /** Left as it is when not given. */
  readonly mac?: string;
  readonly mtu: number;
  /** Largest TSO packet, when there is a limit. */
  readonly gsoMaxBytes?: number;
  /** With prefix length. */
  readonly ipv4: string;
  readonly ipv6?: string;
}

/** Round trips of one size. Times in milliseconds; NaN never occurs: without replies they are 0. */
export interface PingResult {
  readonly sent: number;
  readonly received: number;
  readonly wrong: number;
  readonly minMs: number;
  readonly avgMs: number;
  readonly maxMs: number;
  /** Why the first of the missing ones is missing. */
  readonly reason?: string;
}

/** One end of a TCP transfer. */
export interface StreamResult {
  readonly bytes: number;
  /** From the first byte to the last. */
  readonly seconds: number;
  /** SHA-256 in hexadecimal. */
  readonly hash: string;
}

/** Counters of the kernel's stack in an agent's namespace, as /proc/net/snmp and snmp6 have them. */
export type KernelCounters = Readonly<Record<string, number>>;

/** Commands of an agent: what goes in and what comes back. */
export interface AgentCommands {
  configure: { in: Interface; out: { mac: string } };
  /** Forgets the neighbour, asks for it anew (ARP or neighbour discovery) by a ping. */
  resolve: { in: { ifname: string; target: string }; out: { mac: string; ms: number } };
  ping: { in: { target: string; count: number; bytes: number; timeoutMs: number }; out: PingResult };
  /** Listens, says at which port (progress message), and sends to the first who connects. */
  tcpSend: { in: { address: string; seed: number; bytes: number; seconds?: number }; out: StreamResult };
  tcpReceive: { in: { address: string; port: number }; out: StreamResult };
  /** Listens, says at which port, and checks what comes until it has heard everything. */
  udpReceive: { in: { address: string; seed: number; sizes: readonly number[] }; out: UdpVerdict };
  udpSend: {
    in: {
      address: string;
      port: number;
      seed: number;
      sizes: readonly number[];
      datagrams: number;
      seconds?: number;
    };
    out: UdpSent;
  };
  kernel: { in: Record<string, never>; out: KernelCounters };
}
export type AgentCommand = keyof AgentCommands;

/** While a command runs: the port it listens at, and how far it is. */
export interface Progress {
  readonly port?: number;
  readonly bytes?: number;
}

export interface AgentRequest {
  readonly id: number;
  readonly command: AgentCommand;
  readonly arguments: unknown;
}
export type AgentMessage =
  | { readonly type: 'hello'; readonly pid: number }
  | { readonly type: 'failed'; readonly reason: string }
  | { readonly type: 'progress'; readonly id: number; readonly progress: Progress }
  | { readonly type: 'result'; readonly id: number; readonly result: unknown }
  | { readonly type: 'error'; readonly id: number; readonly reason: string };

/** What the data worker is started with. */
export interface WorkerData {
  readonly machine: string;
  readonly profile: ProfileName;
  readonly mtu: number;
  /** `netnsPid` is a process of the namespace that the TAP `ifname` is made in; 0 in replay mode: there is no TAP. */
  readonly nics: readonly { readonly ifname: string; readonly netnsPid: number }[];
  readonly uplink:
    | { readonly kind: 'tap'; readonly ifname: string; readonly netnsPid: number }
    | { readonly kind: 'echo' };
  /** No TAP interfaces: traffic comes from a capture file. */
  readonly replay?: boolean;
}

export interface NicReady {
  readonly name: string;
  readonly mac: string;
  readonly mtu: number;
  /** As negotiated: NVSP_VERSION, and major << 16 | minor. */
  readonly nvspVersion: number;
  readonly ndisVersion: number;
  readonly offloads: readonly string[];
  readonly linkSpeedBps: number;
  /** Largest TSO packet that the interface's stack may make; 0: none. */
  readonly gsoMaxBytes?: number;
}

export type Counters = Readonly<Record<string, number>>;

export interface WorkerStats {
  readonly nics: readonly {
    readonly name: string;
    /** u64 cells of GUEST_QUEUE. */
    readonly guest: Counters;
    /** u64 cells of HOST_CHANNEL. */
    readonly host: Counters;
    /** Phase of the host's side ("ready" when all is well), or why it is dead. */
    readonly hostState: string;
  }[];
  /** Why drivers failed. */
  readonly failures?: readonly string[];
  readonly switch: Counters;
  readonly uplink: Counters;
}

export interface Replayed {
  readonly sent: number;
  readonly received: number;
  /** Altered or out of order. */
  readonly wrong: number;
  readonly bytes: number;
  readonly seconds: number;
}

export type WorkerRequest =
  | { readonly type: 'stats'; readonly id: number }
  | {
      readonly type: 'replay';
      readonly id: number;
      readonly from: number;
      readonly to: number;
      readonly file: string;
      readonly loops: number;
    }
  | { readonly type: 'stop' };

export type WorkerMessage =
  | { readonly type: 'ready'; readonly nics: readonly NicReady[]; readonly attachMs: number }
  | { readonly type: 'failed'; readonly reason: string }
  | ({ readonly type: 'stats'; readonly id: number } & WorkerStats)
  | ({ readonly type: 'replayed'; readonly id: number } & Replayed)
  | { readonly type: 'stopped' };
