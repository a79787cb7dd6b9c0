// NVSP messages (facts/hyper-v-host.md 3.2). Every message starts with its number; receivers accept longer messages.
import {
  type NDIS_VERSION,
  NVSP_CAPABILITY,
  NVSP_CHANNEL_TYPE,
  NVSP_DATA_PATH,
  NVSP_MESSAGE,
  NVSP_STATUS,
  NVSP_SUBCHANNEL_OPERATION,
  NVSP_VERSION,
} from './nvsp-types.js';
import { struct, u8, u16, u32, u64 } from './struct.js';

const type = <const N extends number>(number: N) => u32(0, 'message number', { equals: number, names: NVSP_MESSAGE });
const status = (offset: number) => u32(offset, 'result', { names: NVSP_STATUS });

/** The number alone; the only part that all messages share. */
export const NvspHeader = struct('NVSP_HEADER', { messageType: u32(0, 'message number', { names: NVSP_MESSAGE }) });

export const NvspInit = struct('NVSP_INIT', {
  messageType: type(NVSP_MESSAGE.INIT),
  protocolVersion: u32(4, 'version that the guest wants', { names: NVSP_VERSION }),
  protocolVersion2: u32(8, 'highest version, equal to protocolVersion in practice; hosts ignore it', {
    names: NVSP_VERSION,
  }),
});

export const NvspInitComplete = struct('NVSP_INIT_COMPLETE', {
  messageType: type(NVSP_MESSAGE.INIT_COMPLETE),
  negotiatedProtocolVersion: u32(4, '2 for version 1, else 0xffffffff; only status decides', { hex: true }),
  maximumMdlChainLength: u32(8, 'most memory pieces of a packet', { unit: 'pieces' }),
  status: status(12),
});

export const NvspSendNdisVersion = struct('NVSP_SEND_NDIS_VERSION', {
  messageType: type(NVSP_MESSAGE.SEND_NDIS_VERSION),
  ndisMajorVersion: u32(4, '6'),
  ndisMinorVersion: u32(8, '1 or 30'),
});

export const NvspSendReceiveBuffer = struct('NVSP_SEND_RECEIVE_BUFFER', {
  messageType: type(NVSP_MESSAGE.SEND_RECEIVE_BUFFER),
  gpadlHandle: u32(4, 'GPADL of the buffer: one page-aligned range', { hex: true }),
  id: u16(8, 'transfer page set id that the host uses', { hex: true }),
  reserved: u16(10, 'reserved', { default: 0 }),
});

/** The reply for one section group, the only number of groups that hosts use. */
export const NvspSendReceiveBufferComplete = struct('NVSP_SEND_RECEIVE_BUFFER_COMPLETE', {
  messageType: type(NVSP_MESSAGE.SEND_RECEIVE_BUFFER_COMPLETE),
  status: status(4),
  sectionCount: u32(8, 'section groups: 1'),
  offset: u32(12, 'start of the group in the buffer: 0', { unit: 'bytes' }),
  suballocationSize: u32(16, 'room for one RNDIS message', { unit: 'bytes' }),
  suballocationCount: u32(20, 'suballocations in the group'),
  endOffset: u32(24, 'end of the group', { unit: 'bytes' }),
});

export const NvspRevokeReceiveBuffer = struct('NVSP_REVOKE_RECEIVE_BUFFER', {
  messageType: type(NVSP_MESSAGE.REVOKE_RECEIVE_BUFFER),
  id: u16(4, 'id given with SEND_RECEIVE_BUFFER', { hex: true }),
});

export const NvspSendSendBuffer = struct('NVSP_SEND_SEND_BUFFER', {
  messageType: type(NVSP_MESSAGE.SEND_SEND_BUFFER),
  gpadlHandle: u32(4, 'GPADL of the buffer: one page-aligned range', { hex: true }),
  id: u16(8, 'id of the buffer', { hex: true }),
  reserved: u16(10, 'reserved', { default: 0 }),
});

export const NvspSendSendBufferComplete = struct('NVSP_SEND_SEND_BUFFER_COMPLETE', {
  messageType: type(NVSP_MESSAGE.SEND_SEND_BUFFER_COMPLETE),
  status: status(4),
  sectionSize: u32(8, 'section n starts at n * sectionSize', { unit: 'bytes' }),
});

export const NvspRevokeSendBuffer = struct('NVSP_REVOKE_SEND_BUFFER', {
  messageType: type(NVSP_MESSAGE.REVOKE_SEND_BUFFER),
  id: u16(4, 'id given with SEND_SEND_BUFFER', { hex: true }),
});

/** Both directions: the RNDIS message is in the packet's ranges, in a send buffer section, or in both in this order. */
export const NvspSendRndisPacket = struct('NVSP_SEND_RNDIS_PACKET', {
  messageType: type(NVSP_MESSAGE.SEND_RNDIS_PACKET),
  channelType: u32(4, 'data or control', { names: NVSP_CHANNEL_TYPE }),
  sendBufferSectionIndex: u32(8, '0xffffffff = no section', { names: { NONE: 0xffffffff } }),
  sendBufferSectionSize: u32(12, 'bytes used from the start of the section', { unit: 'bytes' }),
});

export const NvspSendRndisPacketComplete = struct('NVSP_SEND_RNDIS_PACKET_COMPLETE', {
  messageType: type(NVSP_MESSAGE.SEND_RNDIS_PACKET_COMPLETE),
  status: status(4),
});

export const NvspSendNdisConfig = struct('NVSP_SEND_NDIS_CONFIG', {
  messageType: type(NVSP_MESSAGE.SEND_NDIS_CONFIG),
  mtu: u32(4, 'with the 14 bytes of Ethernet header', { unit: 'bytes' }),
  reserved: u32(8, 'reserved', { default: 0 }),
  capabilities: u64(12, 'what the guest can do', { flags: NVSP_CAPABILITY }),
});

export const NvspSendVfAssociation = struct('NVSP_SEND_VF_ASSOCIATION', {
  messageType: type(NVSP_MESSAGE.SEND_VF_ASSOCIATION),
  vfAllocated: u32(4, '1 = there is a VF'),
  serialNumber: u32(8, 'serial number of the VF, as its PCI slot shows it'),
});

export const NvspSwitchDataPath = struct('NVSP_SWITCH_DATA_PATH', {
  messageType: type(NVSP_MESSAGE.SWITCH_DATA_PATH),
  activeDataPath: u32(4, 'where the guest sends and the host delivers', { names: NVSP_DATA_PATH }),
});

/** Deprecated; only its number is known for sure. */
export const NvspUplinkConnectState = struct('NVSP_UPLINK_CONNECT_STATE', {
  messageType: type(NVSP_MESSAGE.UPLINK_CONNECT_STATE),
});

/** Followed by the OID's input. Hosts always answer unsupported. */
export const NvspOidQueryEx = struct('NVSP_OID_QUERY_EX', {
  messageType: type(NVSP_MESSAGE.OID_QUERY_EX),
  objectType: u8(4, 'NDIS object header: type', { hex: true }),
  objectRevision: u8(5, 'NDIS object header: revision'),
  objectSize: u16(6, 'NDIS object header: size', { unit: 'bytes' }),
  oid: u32(8, 'object asked for', { hex: true }),
});

export const NvspOidQueryExComplete = struct('NVSP_OID_QUERY_EX_COMPLETE', {
  messageType: type(NVSP_MESSAGE.OID_QUERY_EX_COMPLETE),
  status: u32(4, 'NDIS status', { hex: true }),
  bytes: u32(8, 'bytes of answer that follow', { unit: 'bytes' }),
});

export const NvspSubchannelRequest = struct('NVSP_SUBCHANNEL_REQUEST', {
  messageType: type(NVSP_MESSAGE.SUBCHANNEL),
  operation: u32(4, '1 = allocate', { names: NVSP_SUBCHANNEL_OPERATION }),
  subchannelCount: u32(8, 'subchannels wanted, the primary not counted'),
});

export const NvspSubchannelComplete = struct('NVSP_SUBCHANNEL_COMPLETE', {
  messageType: type(NVSP_MESSAGE.SUBCHANNEL),
  status: status(4),
  subchannelCount: u32(8, 'subchannels that the host will offer'),
});

/** Followed, at `offset`, by `count` u32: the channel (0 = primary) for each value of hash modulo count. */
export const NvspSendIndirectionTable = struct('NVSP_SEND_INDIRECTION_TABLE', {
  messageType: type(NVSP_MESSAGE.SEND_INDIRECTION_TABLE),
  count: u32(4, 'entries: 16'),
  offset: u32(8, 'start of the table, from the start of the message: 12', { unit: 'bytes' }),
});

export const NVSP_TABLES = [
  NvspHeader,
  NvspInit,
  NvspInitComplete,
  NvspSendNdisVersion,
  NvspSendReceiveBuffer,
  NvspSendReceiveBufferComplete,
  NvspRevokeReceiveBuffer,
  NvspSendSendBuffer,
  NvspSendSendBufferComplete,
  NvspRevokeSendBuffer,
  NvspSendRndisPacket,
  NvspSendRndisPacketComplete,
  NvspSendNdisConfig,
  NvspSendVfAssociation,
  NvspSwitchDataPath,
  NvspUplinkConnectState,
  NvspOidQueryEx,
  NvspOidQueryExComplete,
  NvspSubchannelRequest,
  NvspSubchannelComplete,
  NvspSendIndirectionTable,
] as const;

/** SEND_NDIS_VERSION's fields for a version of NDIS_VERSION. */
export function ndisVersionFields(version: (typeof NDIS_VERSION)[keyof typeof NDIS_VERSION]): {
  ndisMajorVersion: number;
  ndisMinorVersion: number;
} {
  return { ndisMajorVersion: version >>> 16, ndisMinorVersion: version & 0xffff };
}
