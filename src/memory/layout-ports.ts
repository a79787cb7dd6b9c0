// Structures of the device API's ports, and what lies between them and guest queues.
import { cells } from './cells.js';

/** A port's queue, as the thread that polls it and the control thread see it. */
export const PORT_QUEUE = cells('PORT_QUEUE', {
  state: 'u32', // QUEUE_STATE
  wanted: 'u32', // 1: control code waits for it, no burst begins
});

/** Only who changes READY to BUSY may use the queue, and puts READY back; control code changes READY to STOPPED. */
export const QUEUE_STATE = { STOPPED: 0, READY: 1, BUSY: 2 } as const;

/** How the queue of each packet to send is chosen (offload/steering.ts): written by control code while others read it. */
export const STEERING = cells('STEERING', {
  levels: 'u32', // STEER_PORTS bits
  seedLow: 'u32',
  seedHigh: 'u32',
  table: 'u32', // STEER_ENTRIES u32: queue of each hash value
});

/** Protocols that are hashed with their ports; the others, and fragments, by addresses alone. */
export const STEER_PORTS = { tcp4: 1, udp4: 2, tcp6: 4, udp6: 8 } as const;
/** As many as a host's send table has. */
export const STEER_ENTRIES = 16;
/** Queues that there may be, and packets of one call of steer(). */
export const STEER_QUEUES = 64;
export const STEER_BURST = 1024;

/** What a virtual device counts of one queue in one direction. */
export const PORT_COUNTERS = cells('PORT_COUNTERS', {
  packets: 'u64',
  bytes: 'u64',
  errors: 'u64',
  missed: 'u64',
  noMbufs: 'u64',
});

/** Packets of one direction by kind and size, as in a PMD's extended statistics and in its order (facts/dpdk.md 2.8). */
export const PACKET_KINDS = [
  ...(['multicast_packets', 'broadcast_packets', 'undersize_packets', 'size_64_packets'] as const),
  ...(['size_65_127_packets', 'size_128_255_packets', 'size_256_511_packets'] as const),
  ...(['size_512_1023_packets', 'size_1024_1518_packets', 'size_1519_max_packets'] as const),
] as const;
const packetKinds = <P extends 'rx' | 'tx'>(prefix: P) =>
  Object.fromEntries(PACKET_KINDS.map((kind) => [`${prefix}_${kind}`, 'u64'])) as Record<
    `${P}_${(typeof PACKET_KINDS)[number]}`,
    'u64'
  >;

/** What a port's bursts on one queue number share with control code, through all openings of the device. Used by whoever
 *  has the queue (PORT_QUEUE). */
export const GUEST_PORT = cells('GUEST_PORT', {
  owner: 'u32', // GUEST_PORT with the channel that is sent on: itself, or another one's if there are fewer channels
  queue: 'u32', // GUEST_QUEUE of the channel, 0 = there is none now
  doorbell: 'u32', // the channel's DOORBELL, or 0
  interruptFd: 'u32', // descriptor of the device + 1, or 0
  eventFd: 'u32', // descriptor that wakes the thread that receives + 1, or 0
  armed: 'u32', // 1: that thread sleeps, or is about to
  options: 'u32', // PORT_OPTION
  filter: 'u32', // RX_FILTER
  hashKey: 'u32', // 40 bytes
  hashTypes: 'u32', // NDIS hash types
  staged: 'u32', // packets that were received while nobody asked for any: u32 mbufs
  stagedCapacity: 'u32',
  stagedFirst: 'u32',
  stagedCount: 'u32',
  unread: 'u32', // 1: nobody has received for long, so what the list has no room for is dropped
  reapAt: 'u32', // messages in flight at which a burst that sends looks for completions
  rxPackets: 'u64', // handed out
  rxBytes: 'u64',
  rxMissed: 'u64', // received when no more could wait
  rxFiltered: 'u64', // not for this port (software filters)
  ...packetKinds('rx'),
  ...packetKinds('tx'),
});

/** Bits of GUEST_PORT.options: what is done to received packets. */
export const PORT_OPTION = {
  PACKET_TYPE: 0x1, // recognized
  HASH: 0x2, // computed where the host gave none
  KEEP_TAG: 0x4, // VLAN tags are put back into the data
  MAC_FILTER: 0x8, // unicast addresses
  GROUP_FILTER: 0x10, // multicast addresses, broadcast excepted
  VLAN_FILTER: 0x20,
} as const;

/** Software filters of a port: lists of addresses, each the low 48 bits of a u64, and a bit for each VLAN. */
export const RX_FILTER = cells('RX_FILTER', {
  macs: 'u32', // arena address
  macCount: 'u32',
  groups: 'u32',
  groupCount: 'u32',
  vlans: 'u32', // arena address of 4096 bits
});

/** How a thread of the guest tells the host that a channel has news. Written when the channel opens. */
export const DOORBELL = cells('DOORBELL', {
  fd: 'u32', // interrupt descriptor
  command: 'u32', // what is written to it
  interruptPage: 'u32', // arena addresses
  monitorPage: 'u32', // 0: the channel has no monitor, the host is interrupted
  relid: 'u32',
  monitorId: 'u32',
});

/** A transfer-page packet whose frames mbufs show: completed when the last of them is freed. Begins as an EXTERNAL_BUFFER. */
export const LOAN = cells(
  'LOAN',
  {
    references: 'u32',
    next: 'u32',
    owner: 'u32',
    id: 'u32',
    idLow: 'u32',
    idHigh: 'u32',
    status: 'u32',
    ranges: 'u32',
    frames: 'u32', // that mbufs show, while the packet is being delivered
  },
  32,
);

export const PORT_LAYOUTS = [PORT_QUEUE, STEERING, PORT_COUNTERS, GUEST_PORT, RX_FILTER, DOORBELL, LOAN] as const;
