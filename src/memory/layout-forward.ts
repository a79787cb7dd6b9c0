// What TypeScript and the compiled passes of packet forwarding share: one stream of testpmd, from a receive queue to a
// transmit queue. Written by the thread that forwards; the control thread sets it up before and reads the counters.
import { cells } from './cells.js';

export const FORWARD_STREAM = cells('FORWARD_STREAM', {
  // Twelve bytes as on the wire: destination and source of what is sent.
  addresses: 'u32',
  addressesMiddle: 'u32',
  addressesLast: 'u32',
  checksums: 'u32', // FORWARD_CHECKSUM
  tsoSegment: 'u32', // bytes of payload in a segment that the device is to cut; 0 = none
  keepAddresses: 'u32', // 1: checksum forwarding leaves the Ethernet addresses alone
  // Made packets: their bytes, the pool for them, and how they are cut into segments.
  template: 'u32',
  templateFlags: 'u32', // PACKET_FLAG
  pool: 'u32',
  segmentBytes: 'u32', // arena address of segmentCount u32
  segmentCount: 'u32',
  flows: 'u32', // 0 = all packets are the template; else packet n adds n modulo flows to an IPv4 address
  flowOffset: 'u32', // of that address
  flowBase: 'u32', // the address, as a number
  flow: 'u32', // next one
  spare: 'u32',
  // From here on what it counts.
  rxPackets: 'u64',
  txPackets: 'u64',
  txDropped: 'u64', // taken from rx, refused by tx
  rxBadIp: 'u64',
  rxBadL4: 'u64',
  noMbufs: 'u64', // packets that could not be made
});

/** What the control thread tells the threads that forward; it may change while they do. */
export const FORWARD_CONTROL = cells('FORWARD_CONTROL', {
  burst: 'u32', // packets a burst
  verbose: 'u32', // 1 = print what is received, 2 = what is sent
  ready: 'u32', // threads that have opened and emptied their queues
  go: 'u32', // 1 = begin
});

/** Checksums that the device fills in; the others are computed while forwarding. */
export const FORWARD_CHECKSUM = { IP: 0x1, UDP: 0x2, TCP: 0x4 } as const;

export const FORWARD_LAYOUTS = [FORWARD_STREAM, FORWARD_CONTROL] as const;
