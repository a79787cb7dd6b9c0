// VMBus rings: control page, packet descriptors and their extensions, monitor page (facts/hyper-v-host.md 1 and 2.4).
import { bytes, reserved, struct, u16, u32, u64 } from './struct.js';

export const PAGE_BYTES = 4096;

export const PACKET_TYPE = { IN_BAND: 6, TRANSFER_PAGES: 7, GPA_DIRECT: 9, COMPLETION: 0xb } as const;
export const PACKET_FLAG = { COMPLETION_REQUESTED: 1 } as const;
/** RING_CONTROL.featureBits: the sender of this ring honours pending_send_size. */
export const RING_FEATURE = { PENDING_SEND_SIZE: 1 } as const;

/** First 128 bytes of a ring's control page. */
export const RingControl = struct('RING_CONTROL', {
  in: u32(0, 'write index: offset in the data area; the sender writes it', { unit: 'bytes' }),
  out: u32(4, 'read index; the receiver writes it', { unit: 'bytes' }),
  interruptMask: u32(8, '1 = the receiver wants no signal', { default: 0 }),
  pendingSendSize: u32(12, 'room the sender waits for, 0 = none', { unit: 'bytes', default: 0 }),
  reserved: reserved(16, 48),
  featureBits: u32(64, 'what the sender honours', { flags: RING_FEATURE, default: 0 }),
  reserved2: reserved(68, 60),
});
export const RING_CONTROL = RingControl;

export const PacketDescriptor = struct('PACKET_DESCRIPTOR', {
  type: u16(0, 'kind of packet', { names: PACKET_TYPE }),
  dataOffset8: u16(2, 'start of the payload; >= 2, >= 3 for types 7 and 9', { unit: 'units of 8 bytes' }),
  length8: u16(4, 'whole packet without footer', { unit: 'units of 8 bytes' }),
  flags: u16(6, 'bit 0 = the receiver must complete it', { flags: PACKET_FLAG }),
  transactionId: u64(8, "the sender's; a completion carries the request's"),
});

/** Descriptor of type 7, followed by `rangeCount` TRANSFER_PAGE_RANGEs. */
export const TransferPagesHeader = struct('TRANSFER_PAGES_HEADER', {
  transferPageSetId: u16(16, 'id of the receive buffer, chosen by the guest', { hex: true }),
  reserved: u16(18, 'may be junk', { default: 0 }),
  rangeCount: u32(20, 'ranges that follow'),
});

export const TransferPageRange = struct('TRANSFER_PAGE_RANGE', {
  byteCount: u32(0, 'bytes in the receive buffer', { unit: 'bytes' }),
  byteOffset: u32(4, 'start in the receive buffer', { unit: 'bytes' }),
});

/** Descriptor of type 9, followed by `rangeCount` ranges. */
export const GpaDirectHeader = struct('GPA_DIRECT_HEADER', {
  reserved: u32(16, 'may be junk', { default: 0 }),
  rangeCount: u32(20, 'ranges that follow; 0 is corrupt'),
});

/** Head of a GPA range; ceil((byteOffset + byteCount) / 4096) page frame numbers (u64) follow. */
export const GpaRange = struct('GPA_RANGE', {
  byteCount: u32(0, '> 0', { unit: 'bytes' }),
  byteOffset: u32(4, 'offset in the first page, <= 0xfff', { unit: 'bytes' }),
});

export const PacketFooter = struct('PACKET_FOOTER', {
  reserved: u32(0, 'zero', { default: 0 }),
  startOffset: u32(4, "where this packet starts in the ring's data area; nobody reads it", { unit: 'bytes' }),
});

/** Monitor page: guests set a trigger bit instead of a hypercall. */
export const MonitorPage = struct('MONITOR_PAGE', {
  triggerState: u32(0, 'bit n: group n is enabled'),
  reserved: u32(4, 'reserved', { default: 0 }),
  pending0: u32(8, 'monitors 0..31 that have a signal pending', { hex: true }),
  armed0: u32(12, 'monitors 0..31 armed', { hex: true }),
  pending1: u32(16, 'monitors 32..63 pending', { hex: true }),
  armed1: u32(20, 'monitors 32..63 armed', { hex: true }),
  pending2: u32(24, 'monitors 64..95 pending', { hex: true }),
  armed2: u32(28, 'monitors 64..95 armed', { hex: true }),
  pending3: u32(32, 'monitors 96..127 pending', { hex: true }),
  armed3: u32(36, 'monitors 96..127 armed', { hex: true }),
  reserved2: reserved(40, 24),
  nextCheckTime: bytes(64, 512, 'i32[4][32]', { default: new Uint8Array(512) }),
  latency: bytes(576, 256, 'u16[4][32], units of 100 ns', { default: new Uint8Array(256) }),
  reserved3: reserved(832, 256),
  parameter: bytes(1088, 1024, 'MONITOR_PARAMETER[128]', { default: new Uint8Array(1024) }),
});

export const MonitorParameter = struct('MONITOR_PARAMETER', {
  connectionId: u32(0, 'connection that the monitor signals'),
  flagNumber: u16(4, 'event flag'),
  reserved: u16(6, 'reserved', { default: 0 }),
});

export const VMBUS_TABLES = [
  RingControl,
  PacketDescriptor,
  TransferPagesHeader,
  TransferPageRange,
  GpaDirectHeader,
  GpaRange,
  PacketFooter,
  MonitorPage,
  MonitorParameter,
] as const;
