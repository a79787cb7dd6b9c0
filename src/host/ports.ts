// What the virtual switch and everything plugged into it agree on. A port is a NIC or an uplink; the switch reads a
// port's state afresh at each burst, so that state is changed by assigning (a new object for `vlan` and `macs`).

/** NDIS packet filter bits of a port (OID_GEN_CURRENT_PACKET_FILTER); 0 = it receives nothing. */
export const PORT_FILTER = {
  DIRECTED: 0x1, // unicast to a station that lies behind the port: its own addresses and those learned there
  MULTICAST: 0x2,
  ALL_MULTICAST: 0x4,
  BROADCAST: 0x8,
  PROMISCUOUS: 0x20, // everything in its VLANs, other ports' unicast too
  UNKNOWN: 0x1_0000, // not NDIS, ignored on NICs: flooded unicast to stations not yet seen, as a way out needs
} as const;

/** What an uplink asks for: all that may concern stations behind it. */
export const UPLINK_FILTER =
  PORT_FILTER.DIRECTED | PORT_FILTER.ALL_MULTICAST | PORT_FILTER.BROADCAST | PORT_FILTER.UNKNOWN;

/**
 * How a port takes part in VLANs. Ids are 1..4094; 0 stands for "untagged".
 * - access: frames without a tag belong to `vlan`; tagged ones are dropped on the way in (a tag with VLAN id 0, which
 *   only carries a priority, is taken as untagged). Everything leaves without a tag.
 * - trunk: frames without a tag belong to `native`, tagged ones to the VLAN of their tag when `allowed` has it (absent =
 *   all). Frames of the native VLAN leave untagged, others tagged.
 * A priority tag stays on where it leaves untagged from VLAN 0.
 */
export type VlanMode =
  | { readonly mode: 'access'; readonly vlan: number }
  | { readonly mode: 'trunk'; readonly native: number; readonly allowed?: ReadonlySet<number> };

/** The default of every port: VLANs that guests make inside themselves reach each other, tags pass unchanged. Hyper-V's
 *  own default is access with vlan 0, which would drop them; ask for it by name. */
export const DEFAULT_VLAN: VlanMode = { mode: 'trunk', native: 0 };

export type PortKind = 'nic' | 'tap' | 'pcap' | 'echo';

/** Something plugged into the switch. */
export interface SwitchPort {
  /** FRAME.source of its frames: 1..MAX_PORTS, unique in the switch (VirtualSwitch.freeNumber finds one). */
  readonly number: number;
  readonly name: string;
  readonly kind: PortKind;
  /** Its own addresses, 6 bytes each: found before anything is learned, and nobody else may send from them. */
  macs: readonly Uint8Array[];
  vlan: VlanMode;
  /** Largest payload of a frame in bytes, without Ethernet header and tag. TSO packets may be larger. */
  mtu: number;
  /** While false nothing is delivered, and what it sends is dropped. */
  linkUp: boolean;
  /** PORT_FILTER bits. */
  filter: number;
  /**
   * Takes a burst: a u32 array of FRAME addresses at `frames`. The array, the FRAMEs and their bytes are valid until the
   * call returns; several ports may be given the same FRAME, so it is not to be changed. TSO packets and unfinished
   * checksums arrive as the sender left them: FrameWorkshop (frames.ts) does that work for receivers who need it.
   * Must not call back into the switch.
   */
  deliver(frames: number, count: number): void;
}

/** A port that the host polls: it injects what arrives from outside. */
export interface Uplink extends SwitchPort {
  /** Reads what waits and forwards it through the switch; returns frames injected. */
  poll(): number;
  /** For deadlines and paced replay. */
  tick(nowMs: number): void;
  /** Descriptors to watch for input in poll(2); empty when it has none. */
  fds(): readonly number[];
  /** True when nothing waits, so that the loop may sleep. */
  arm(): boolean;
  close(): void;
  /** Counters, by name. */
  stats(): Record<string, number>;
}

/** Where an uplink puts its frames: VirtualSwitch.forward. */
export interface FrameSink {
  /** `frames` is the arena address of the first of `count` consecutive FRAMEs whose source cell is a port's number. */
  forward(frames: number, count: number): void;
}

/** Largest port number. */
export const MAX_PORTS = 64;
