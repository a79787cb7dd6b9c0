// Every structure that TypeScript and the compiled data path share, declared once. All cells are little-endian u32
// unless the table says u64. `scripts/build.mjs` turns these tables into constants for AssemblyScript
// (assembly-constants.ts); TypeScript reads the same cells through an arena's views: `arena.u32[(base + X.at.y) >>> 2]`.
// Cells that two threads write never share a structure: each structure below belongs to one worker; only ring control
// pages (wire/vmbus.ts RING_CONTROL), ring data, receive and send buffers are shared with the peer.
import { NVSP_NO_SECTION } from '../wire/nvsp-types.js';
import { cells } from './cells.js';
import { PORT_LAYOUTS } from './layout-ports.js';
import { RING_LAYOUTS } from './layout-rings.js';
import { STAGED_PAGE, STAGING } from './layout-staging.js';

export * from './layout-ports.js';
export * from './layout-rings.js';
export * from './layout-staging.js';

/** One side's end of a channel: the ring it writes and the ring it reads. Prefix of GUEST_QUEUE and HOST_CHANNEL. */
const endCells = {
  writeRing: 'u32', // arena address of the control page of the ring that this side writes
  writeSize: 'u32', // bytes in that ring's data area
  readRing: 'u32',
  readSize: 'u32',
  writeIndex: 'u32', // private copies: what the peer could scribble over is never read back
  peerRead: 'u32', // the peer's read index of our ring, as last checked
  readIndex: 'u32',
  ringError: 'u32', // RING_ERROR, sticky: the channel is dead until it is set up anew
  ringErrorDetail: 'u32', // the offending value
  needSignal: 'u32', // set when a commit asks for an interrupt to the peer; TypeScript signals and clears it
  published: 'u32', // write index as last published
  spare: 'u32', // bytes that data must leave free in the ring for control and completions
  blocked: 'u32', // bytes of room that the writer waits for, 0 = none; announced to the peer before sleeping
  selfCheck: 'u32', // 1: who masks the ring that we read is a corrupt peer; the data path adds 2 while it is unmasked
  signals: 'u64', // times needSignal was raised
  ringPacketsIn: 'u64',
  ringPacketsOut: 'u64',
  ringFull: 'u64', // writes refused for want of room
} as const;

/** Where control-path packets are handed to TypeScript: a linear buffer that it empties after every poll. */
const eventCells = {
  events: 'u32', // arena address
  eventBytes: 'u32',
  eventUsed: 'u32', // TypeScript resets it to 0 once it has read the EVENT records
} as const;

export const CHANNEL_END = cells('CHANNEL_END', endCells);

/** An EVENT record: this header, then `bytes` bytes, padded to 8. */
export const EVENT = cells('EVENT', { kind: 'u32', bytes: 'u32', idLow: 'u32', idHigh: 'u32', a: 'u32', b: 'u32' }, 8);

/** Values of EVENT.kind. */
export const EVENT_KIND = {
  NVSP: 1, // in-band or GPA-direct NVSP message; a = 1 when a completion is requested, b = ring packet type
  COMPLETION: 2, // completion packet that belongs to a control request (or to nothing known)
  RNDIS_CONTROL: 3, // RNDIS control message; host: a = 1 when a completion is requested
  GPA_MISS: 4, // host: a page of a GPA-direct packet is not mapped; idLow/idHigh = page frame number
} as const;

/** Why a ring was declared corrupt (facts/hyper-v-host.md 1.2 and 1.3). */
export const RING_ERROR = {
  NONE: 0,
  INVALID_POINTER: 1, // index outside the data area or not a multiple of 8
  SHORT_DESCRIPTOR: 2, // data offset below the packet type's header
  LENGTH: 3, // length below data offset, or beyond what is in the ring
  FLAGS: 4, // an unknown flag bit
  TYPE: 5, // a packet type that this side does not accept
  EXTENDED_HEADER: 6, // range count and data offset disagree
  GPA_RANGE: 7, // empty range, offset beyond a page, or more pages than the descriptor holds
  UNKNOWN_TRANSACTION: 8, // completion for something not in flight (host: dead; guest: counted only)
  BAD_SECTION: 9, // send-buffer section outside the buffer
  NVSP_SHORT: 10, // NVSP message shorter than its fields
  NVSP_UNKNOWN: 11, // NVSP message number not known to this side
  MASKED_EXTERNALLY: 12, // peer wrote our interrupt mask
} as const;

/** A packet buffer: these cells at the head of each element of a pool, the data room behind it. Handle = address. */
export const MBUF = cells('MBUF', {
  data: 'u32', // arena address of the first byte
  dataLength: 'u32',
  packetLength: 'u32', // whole chain
  next: 'u32', // handle of the next segment or 0
  segments: 'u32',
  references: 'u32',
  flags: 'u32', // PACKET_FLAG
  hash: 'u32',
  vlanTci: 'u32', // 802.1Q order: priority 15..13, DEI 12, VLAN id 11..0
  packetType: 'u32',
  mss: 'u32', // TSO segment size (tx) or what RSC coalesced (rx), bytes
  l4Offset: 'u32', // offset of the TCP or UDP header from the first byte
  pool: 'u32', // address of the POOL it returns to
  room: 'u32', // bytes of data room
  buffer: 'u32', // arena address of the data room
  user: 'u32',
  // From here on a second cache line, which nobody touches for a packet that does not need it.
  borrowed: 'u32', // EXTERNAL: its EXTERNAL_BUFFER; INDIRECT: the mbuf whose data room it uses
  port: 'u32', // port that it came from
  timestamp: 'u64', // nanoseconds since 1970, or 0
});

/** What an mbuf's or a frame's flags cell says. */
export const PACKET_FLAG = {
  IPV4: 0x1,
  IPV6: 0x2,
  TX_IP_CHECKSUM: 0x4, // IPv4 header checksum is to be filled in
  TX_TCP_CHECKSUM: 0x8, // TCP checksum is to be filled in (field holds anything)
  TX_UDP_CHECKSUM: 0x10,
  TX_TSO: 0x20, // larger than the MTU: to be cut into segments of mss bytes of payload
  VLAN: 0x40, // vlanTci is valid; the tag is not in the data
  HASH: 0x80,
  RX_IP_GOOD: 0x100,
  RX_IP_BAD: 0x200,
  RX_L4_GOOD: 0x400, // TCP or UDP verified by the host, or never left it
  RX_L4_BAD: 0x800,
  RX_COALESCED: 0x1000, // several segments in one (RSC); mss says how large each was
  TCP: 0x2000,
  UDP: 0x4000,
  EXTERNAL: 0x8000, // the data room is somebody else's, who is told when the last mbuf that uses it is freed
  INDIRECT: 0x10000, // the data room is another mbuf's
} as const;

/** Data that mbufs borrow: when the last of them is freed it goes on the list of its owner. */
export const EXTERNAL_BUFFER = cells(
  'EXTERNAL_BUFFER',
  {
    references: 'u32',
    next: 'u32', // on the owner's list
    owner: 'u32', // address of the list's head: the last one freed, or 0
    id: 'u32', // the owner's own
  },
  16,
);

/** A pool of packet buffers: LIFO stack of handles. A pool of several threads is a row of these, one for each lcore (the
 *  pool's address is the first one's): stacks of their own in front of a shared one. */
export const POOL = cells('POOL', {
  base: 'u32',
  stride: 'u32',
  count: 'u32',
  stack: 'u32', // arena address of count u32 handles
  free: 'u32', // handles on the stack
  room: 'u32',
  headroom: 'u32', // bytes kept free in front of a fresh buffer's data
  capacity: 'u32', // handles that the stack may hold; a pool of one thread never reaches it
  shared: 'u32', // POOL_SHARED, or 0
  exhausted: 'u64', // requests refused for want of a buffer
});

/** What the lcores of a pool share: a stack of handles behind a lock. */
export const POOL_SHARED = cells('POOL_SHARED', {
  lock: 'u32', // 1 while a thread moves handles
  free: 'u32',
  stack: 'u32',
  bulk: 'u32', // handles that move at once
});

/** One send in flight: its transaction id is slot | generation << 16 with TX_TRANSACTION above it. */
export const TX_SLOT = cells(
  'TX_SLOT',
  {
    generation: 'u32', // 16 bits
    busy: 'u32',
    section: 'u32', // send-buffer section or NO_SECTION
    mbuf: 'u32', // chain to free at completion, or 0 when everything was copied
    packets: 'u32',
    bytes: 'u32',
  },
  32,
);

/** "No section" in NVSP SEND_RNDIS_PACKET; also "none" in the cells that say so. */
export const NO_SECTION: number = NVSP_NO_SECTION;
/** Upper word of a data send's transaction id, and of a control request's: a host cannot confuse the two. */
export const TX_TRANSACTION = 0x4e540001;
export const CONTROL_TRANSACTION = 0x4e540002;

export const GUEST_QUEUE = cells('GUEST_QUEUE', {
  ...endCells,
  ...eventCells,
  receiveBuffer: 'u32',
  receiveBytes: 'u32',
  receiveSectionBytes: 'u32', // suballocation size as the host announced it
  receiveBufferId: 'u32', // transfer-page set id
  sendBuffer: 'u32',
  sendSectionBytes: 'u32',
  sendSections: 'u32',
  freeSections: 'u32', // stack of section numbers that this queue owns
  freeSectionCount: 'u32',
  slots: 'u32', // TX_SLOT table
  slotCount: 'u32',
  freeSlots: 'u32',
  freeSlotCount: 'u32',
  nvspBytes: 'u32', // payload bytes of an NVSP message that we send (28, or 40 from 6.1)
  maxPacketsPerMessage: 'u32', // from the host's RNDIS initialize completion, at least 1
  packetAlignment: 'u32', // bytes, power of two
  copyLimit: 'u32', // packets whose message without per-packet info is larger go by GPA ranges where they can
  sectionLimit: 'u32', // longest message that a section takes, 0 = copyLimit
  maxFrameBytes: 'u32', // MTU + 14 (+ nothing): longer frames without TSO are refused
  offloads: 'u32', // OFFLOAD bits that the host granted
  lsoMax4: 'u32', // largest LSO send in bytes that the host takes
  lsoMax6: 'u32',
  stopped: 'u32',
  pfnTable: 'u32', // u64 page frame number of each 4 KiB page from pfnBase on
  pfnBase: 'u32',
  pfnPages: 'u32',
  rxPool: 'u32', // POOL for frames up to its room
  rxLargePool: 'u32', // POOL for coalesced frames, without rxChains for long ones, too; or 0
  rxChains: 'u32', // 1: long frames, and coalesced ones without a large buffer, are chains of buffers of rxPool; 0: they are refused
  completions: 'u32', // receive completions not yet in the ring: u32 idLow, idHigh, status, 0
  completionCapacity: 'u32',
  completionCount: 'u32',
  ranges: 'u32', // private copy of the transfer-page ranges being delivered: u32 bytes, offset
  rangeCapacity: 'u32',
  rangeCount: 'u32',
  rangeIndex: 'u32',
  rangeOffset: 'u32', // bytes of the current range already delivered
  rangeIdLow: 'u32',
  rangeIdHigh: 'u32',
  rangeStatus: 'u32',
  lendFrom: 'u32', // frames of at least so many bytes stay in the receive buffer while mbufs show them; 0 = none does
  lendNot: 'u32', // PACKET_FLAG bits of frames that never do
  lendMost: 'u32', // ranges that may be lent at once
  lent: 'u32', // ranges that are
  loans: 'u32', // LOAN table
  freeLoans: 'u32', // stack of addresses
  freeLoanCount: 'u32',
  loan: 'u32', // of the transfer-page packet at hand, or 0
  returnedLoans: 'u32', // list of those that no mbuf shows any more, filled by whoever frees the last one
  waitingLoans: 'u32', // the same, taken from there, until there is room for their completions
  coalescing: 'u32', // mbuf being put together from RSC fragments, or 0
  coalescingLast: 'u32', // its last segment
  coalescedFragments: 'u32',
  section: 'u32', // open send-buffer section or NO_SECTION
  sectionUsed: 'u32',
  sectionPackets: 'u32',
  sectionBytes: 'u32',
  sectionLast: 'u32', // arena address of the last RNDIS message in the section
  softwareMtu: 'u32',
  txPackets: 'u64',
  txBytes: 'u64',
  txCompleted: 'u64',
  txCompletedBytes: 'u64',
  txFailed: 'u64', // packets whose completion said anything but success
  txAbandoned: 'u64', // packets whose completion did not come before the channel closed
  txCopied: 'u64', // packets copied into sections
  txDirect: 'u64', // packets sent by GPA ranges
  txMessages: 'u64', // NVSP messages that carried data
  txLso: 'u64',
  txChecksum: 'u64',
  txSoftwareChecksum: 'u64',
  txVlan: 'u64',
  txNoSection: 'u64', // wanted to copy, no section was free
  txNoSlot: 'u64',
  txTooBig: 'u64',
  txBusy: 'u64', // packets refused because the ring was full
  txStops: 'u64',
  txWakes: 'u64',
  txUnknownTransaction: 'u64',
  rxPackets: 'u64',
  rxBytes: 'u64',
  rxMessages: 'u64', // transfer-page packets
  rxChecksumGood: 'u64',
  rxChecksumBad: 'u64',
  rxVlan: 'u64',
  rxHash: 'u64',
  rxCoalesced: 'u64',
  rxCoalescedFragments: 'u64',
  rxLent: 'u64', // frames that were not copied
  rxNoMbuf: 'u64',
  rxTooBig: 'u64', // frame longer than a buffer of the pool
  rxCompletionsDelayed: 'u64', // flushes that found the ring full
  rxBadNvsp: 'u64',
  rxBadSet: 'u64', // transfer-page set id that is not ours
  rxBadRange: 'u64',
  rxBadRndis: 'u64',
  rxBadPpi: 'u64',
  rxBadCoalescing: 'u64', // middle or last fragment without a first, or a first that never ended
  rxBadType: 'u64', // packet type a host never sends
});

/** Offloads that a host granted to a guest, as NDIS offload parameters settle them. */
export const OFFLOAD = {
  IPV4_HEADER_TX: 0x1,
  TCP4_TX: 0x2,
  TCP6_TX: 0x4,
  UDP4_TX: 0x8,
  UDP6_TX: 0x10,
  LSO4: 0x20,
  LSO6: 0x40,
  VLAN: 0x80,
  IPV4_HEADER_RX: 0x100,
  TCP4_RX: 0x200,
  TCP6_RX: 0x400,
  UDP4_RX: 0x800,
  UDP6_RX: 0x1000,
  RSC: 0x2000,
} as const;

/** A stretch of guest-physical memory that the host has mapped. */
export const GPA_REGION = cells('GPA_REGION', { pfnLow: 'u32', pfnHigh: 'u32', pages: 'u32', address: 'u32' }, 16);

/** A guest's send that waits for its completion: at most as many as one poll reads. */
export const TRANSACTION = cells('TRANSACTION', { idLow: 'u32', idHigh: 'u32', status: 'u32', wanted: 'u32' }, 16);

/** A frame on its way through the host: a view of bytes that stay where they are until the burst is done. */
export const FRAME = cells('FRAME', {
  fragments: 'u32', // arena address of FRAGMENT entries
  fragmentCount: 'u32',
  length: 'u32',
  flags: 'u32', // PACKET_FLAG
  vlanTci: 'u32',
  mss: 'u32',
  l4Offset: 'u32',
  hash: 'u32',
  head: 'u32', // arena address where the first min(length, HEAD_BYTES) bytes lie in one piece
  source: 'u32', // vSwitch port number
  transaction: 'u32', // index into the channel's transactions, or NO_SECTION
  sourceBuffer: 'u32', // handle of the buffer that an uplink must take back, or 0
  hashInfo: 'u32', // with HASH: NDIS hash type and function
});

export const FRAGMENT = cells('FRAGMENT', { address: 'u32', bytes: 'u32' }, 8);

/** A frame's headers up to here are always in one piece (Ethernet, VLAN, IPv6 with extensions, TCP with options). */
export const HEAD_BYTES = 256;

/** HOST_CHANNEL.suballocations: a cell each. In the guest's hands: the next one of its chain (or LAST), and MEMBER
 *  when it is not the chain's head, by whose number alone the guest gives the chain back. */
export const SUBALLOCATION = {
  FREE: 0xffffffff,
  LAST: 0x00ffffff,
  MEMBER: 0x01000000,
} as const;

export const HOST_CHANNEL = cells('HOST_CHANNEL', {
  ...endCells,
  ...eventCells,
  ready: 'u32', // 0: every NVSP message becomes an event; 1: data messages are parsed into frames
  receiveBuffer: 'u32', // host's mapping
  receiveBytes: 'u32',
  suballocationBytes: 'u32',
  suballocationCount: 'u32',
  firstDataSuballocation: 'u32', // those below carry control messages
  receiveBufferId: 'u32',
  suballocations: 'u32', // arena address of suballocationCount u32: SUBALLOCATION
  freeSuballocations: 'u32', // stack of data suballocations
  freeSuballocationCount: 'u32',
  owners: 'u32', // with subchannels: u32 per suballocation, the channel to whose stack it returns; 0 = to this one's
  senders: 'u32', // and the channel that sent the chain which it heads: only there the guest may give it back
  freeControl: 'u32', // stack of control suballocations
  freeControlCount: 'u32',
  sendBuffer: 'u32',
  sendBytes: 'u32', // 0: no send buffer, any section is an error
  sendSectionBytes: 'u32',
  nvspBytes: 'u32', // payload bytes of an NVSP message that the host sends
  maxFrameBytes: 'u32', // MTU + 14
  maxRanges: 'u32', // ranges in one transfer-page packet
  regions: 'u32', // GPA_REGION table
  regionCount: 'u32',
  regionMissFails: 'u32', // 1: the missing page cannot be had: the next poll completes its message with status 2
  staging: 'u32', // STAGING of the NIC, 0 while nothing has to be copied
  transactions: 'u32', // TRANSACTION table of the current poll
  transactionCapacity: 'u32',
  transactionCount: 'u32',
  transactionsDone: 'u32', // completions of this poll already in the ring
  frames: 'u32', // FRAME table of the current poll
  frameCapacity: 'u32',
  frameCount: 'u32',
  fragments: 'u32', // FRAGMENT table of the current poll
  fragmentCapacity: 'u32',
  fragmentCount: 'u32',
  heads: 'u32', // HEAD_BYTES per frame, for headers that are not in one piece
  port: 'u32', // FRAME.source of this channel's frames
  offloads: 'u32', // OFFLOAD bits as the guest set them
  frameError: 'u32', // FRAME_ERROR of the last refused message
  txMessages: 'u64', // data messages from the guest
  txPackets: 'u64',
  txBytes: 'u64',
  txDirect: 'u64', // messages that named GPA ranges
  txFailed: 'u64', // messages completed with status 2
  txLso: 'u64',
  txChecksum: 'u64',
  txVlan: 'u64',
  rxMessages: 'u64', // transfer-page packets to the guest
  rxPackets: 'u64',
  rxBytes: 'u64',
  rxCompletions: 'u64',
  rxNoSuballocation: 'u64', // frames dropped, no free suballocation
  rxRingFull: 'u64', // frames dropped, no room in the ring
  rxTooBig: 'u64',
  rxCoalesced: 'u64', // frames sent as several suballocations (RSC)
  rxVlan: 'u64',
});

/** Why the host completed a guest's message with status 2 (facts/hyper-v-host.md 4.1 to 4.3). */
export const FRAME_ERROR = {
  NONE: 0,
  MESSAGE_LENGTH: 1, // RNDIS length below 8 or beyond the data, or trailing junk
  MESSAGE_TYPE: 2, // not a packet message behind the first one
  HEADER_SPLIT: 3, // body or per-packet info not in one GPA range
  OUT_OF_BAND: 4, // oob or vc fields not zero
  DATA_RANGE: 5, // data empty or outside the message's bytes
  PPI_RANGE: 6, // per-packet info outside the message
  PPI_SIZE: 7, // entry of size 0, or past the end, or too short for its data
  HEADER_OFFSET: 8, // checksum or LSO header offset outside the frame
  PAGE_MISSING: 9, // a GPA page that the host cannot see
  TOO_MANY: 10, // more frames or fragments than one message may carry
  FRAME_LENGTH: 11, // below an Ethernet header, or beyond the MTU without LSO
  CONTROL_BUSY: 12, // control queue full
} as const;

/** Private working memory of one data path instance: byte offsets from its scratch address. Two instances over one
 *  memory (two threads) need two of them. */
export const SCRATCH = {
  WRITE_PACKET: 0, // a packet that wraps, while it is put together
  READ_PACKET: 33_024, // and one that is read
  RANGES: 66_048, // transfer-page ranges of the packet being written
  PIECES: 74_240, // where the bytes of a guest's message lie
  HEADER: 90_624, // private copy of RNDIS headers or of a control message
  SEGMENT_HEADERS: 107_008, // headers of the packet being segmented
  TOEPLITZ_KEY: 107_520, // what the table below was made from
  TOEPLITZ_TABLE: 107_584,
  TOEPLITZ_INPUT: 144_448, // addresses and ports of the packet being hashed
  END: 144_512,
} as const;
/** Where the first instance over a memory has its scratch: above the module's static data, below what arenas hand out. */
export const DEFAULT_SCRATCH = 0x10000;

/** All tables, for the generator and for tools that print an arena. */
export const LAYOUTS = [
  CHANNEL_END,
  EVENT,
  MBUF,
  EXTERNAL_BUFFER,
  POOL,
  POOL_SHARED,
  ...PORT_LAYOUTS,
  ...RING_LAYOUTS,
  TX_SLOT,
  GUEST_QUEUE,
  GPA_REGION,
  STAGING,
  STAGED_PAGE,
  TRANSACTION,
  FRAME,
  FRAGMENT,
  HOST_CHANNEL,
] as const;
