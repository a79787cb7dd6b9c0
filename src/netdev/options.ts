// What a user can wish of an interface when it is made, and of its receive-side scaling.

/** Channels that hv_netvsc wishes for at least (facts/linux-guest.md 1.1). */
const USUAL_QUEUES = 16;

export interface CouplingOptions {
  /** What the interface is called. */
  readonly name: string;
  /** Path of the network namespace in which it is made; undefined = this thread's. */
  readonly network?: string;
  /** Default: 16, or fewer if there are fewer CPUs or the device has fewer. */
  readonly queues?: number;
  /** Default: the device's. */
  readonly mtu?: number;
  /** CPUs that there are. */
  readonly cpus: number;
  /** When the device goes away the interface stays, without a carrier, until it is there again (default: it ends). */
  readonly wait?: boolean;
  readonly log: (line: string) => void;
}

/** What a user may set of receive-side scaling. */
export interface Scaling {
  readonly table?: readonly number[];
  readonly key?: Uint8Array;
}

/** How many queue pairs an interface would have if its device has enough. */
export const usualQueues = (cpus: number): number => Math.min(USUAL_QUEUES, cpus);
