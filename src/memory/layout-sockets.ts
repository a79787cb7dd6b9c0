// What TypeScript and the compiled data path share for interfaces of the kernel: TAP queues and packet sockets, whose
// packets come and go with a virtio_net_hdr. Each structure belongs to the thread that polls the queue.
import { cells } from './cells.js';

/** What a program that receives wants to see: bits of the options. */
export const VNET_RX = {
  IP_CHECKSUM: 0x1, // say whether the IPv4 header's checksum is right
  TCP_CHECKSUM: 0x2, // the same of TCP's; what the sender left to its NIC is left to the next one
  UDP_CHECKSUM: 0x4,
  KEEP_TAG: 0x8, // 802.1Q tags stay in the data
  COALESCED: 0x10, // large TCP packets come whole
  SCATTER: 0x20, // packets may take several buffers
  TIMESTAMP: 0x40,
  OWN_ONLY: 0x80, // nothing that is addressed to other stations
} as const;

/** How packets get from mbufs to what the kernel takes. */
export const VNET_TX = cells('VNET_TX', {
  addresses: 'u32', // arena addresses of `capacity` u32: where each packet's header begins, and bytes from there on
  lengths: 'u32',
  pieces: 'u32', // the same: 1, or how many struct iovec, the first of which is at the address then
  capacity: 'u32',
  gather: 'u32', // memory for packets that are not in one piece, or may not be written to
  gatherBytes: 'u32', // at least VNET_GATHER_MIN
  maxFrameBytes: 'u32', // longer packets have to be TSO packets
  headerBytes: 'u32', // 12, or 10: packet sockets have no num_buffers
  vectors: 'u32', // memory for struct iovec; 0 = packets are always made one piece. Needs headers of 12 bytes
  vectorCount: 'u32',
  base: 'u64', // virtual address of the arena
});

/** Pieces of one packet that writev(2) takes (UIO_MAXIOV of the kernel). */
export const IOV_MAX = 1024;

/** Room for one packet of any length. */
export const VNET_GATHER_MIN = 0x10100;

/** A TPACKET_V3 receive ring (packet(7), Documentation/networking/packet_mmap.rst), and where we are in it. */
export const PACKET_RING = cells('PACKET_RING', {
  ring: 'u32', // arena address
  blockBytes: 'u32',
  blockCount: 'u32',
  pool: 'u32',
  options: 'u32', // VNET_RX; the control thread changes OWN_ONLY at any time
  segments: 'u32', // memory for the segments of a packet that has to be cut
  segmentsBytes: 'u32',
  block: 'u32', // number of the block that is being read, or comes next
  left: 'u32', // packets in it that are not read yet
  at: 'u32', // address of the next one
  segmentsLeft: 'u32', // of the packet that was cut last
  segment: 'u32', // address of its next segment
  segmentStride: 'u32',
  segmentLength: 'u32', // address of that one's length
  segmentFlags: 'u32', // PACKET_FLAG, packetType, l4Offset, vlanTci, tag that goes into the data (0 = none) of all of them
  segmentType: 'u32',
  segmentL4: 'u32',
  segmentTci: 'u32',
  segmentTag: 'u32',
  segmentTime: 'u64',
  bytes: 'u32', // of the last call: bytes received, packets dropped, times that no buffer was free
  errors: 'u32',
  noMbufs: 'u32',
});

export const SOCKET_LAYOUTS = [VNET_TX, PACKET_RING] as const;
