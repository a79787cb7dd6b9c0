// RNDIS messages. All lengths are bytes; all offsets count from byte 8 (facts/hyper-v-host.md 4.1 and 4.2).
import { OID } from './oid.js';
import { RNDIS_MESSAGE, RNDIS_STATUS } from './rndis-types.js';
import { type FieldSpec, struct, u32 } from './struct.js';

const type = <const N extends number>(number: N) => u32(0, 'message type', { equals: number, names: RNDIS_MESSAGE });
const length = () => u32(4, 'bytes of the whole message', { unit: 'bytes' });
const requestId = () => u32(8, 'chosen by the sender of the request, echoed in the answer');
const status = (offset: number) => u32(offset, 'result', { names: RNDIS_STATUS });
const oid = (): FieldSpec<number, false> => u32(12, 'object', { names: OID });

export const RndisHeader = struct('RNDIS_HEADER', {
  messageType: u32(0, 'message type', { names: RNDIS_MESSAGE }),
  messageLength: length(),
});

/** Per-packet infos and the frame follow. */
export const RndisPacket = struct('RNDIS_PACKET', {
  messageType: type(RNDIS_MESSAGE.PACKET),
  messageLength: length(),
  dataOffset: u32(8, 'frame, from byte 8', { unit: 'bytes' }),
  dataLength: u32(12, 'bytes of the frame', { unit: 'bytes' }),
  oobDataOffset: u32(16, 'zero', { unit: 'bytes', default: 0 }),
  oobDataLength: u32(20, 'zero', { unit: 'bytes', default: 0 }),
  oobDataCount: u32(24, 'zero', { default: 0 }),
  perPacketInfoOffset: u32(28, 'per-packet infos, from byte 8', { unit: 'bytes' }),
  perPacketInfoLength: u32(32, 'bytes of all per-packet infos', { unit: 'bytes' }),
  vcHandle: u32(36, 'zero', { default: 0 }),
  reserved: u32(40, 'reserved', { default: 0 }),
});

export const RndisInitialize = struct('RNDIS_INITIALIZE', {
  messageType: type(RNDIS_MESSAGE.INITIALIZE),
  messageLength: length(),
  requestId: requestId(),
  majorVersion: u32(12, '1'),
  minorVersion: u32(16, '0'),
  maxTransferSize: u32(20, 'most that the guest takes in one transfer', { unit: 'bytes' }),
});

export const RndisInitializeComplete = struct('RNDIS_INITIALIZE_COMPLETE', {
  messageType: type(RNDIS_MESSAGE.INITIALIZE_COMPLETE),
  messageLength: length(),
  requestId: requestId(),
  status: status(12),
  majorVersion: u32(16, '1'),
  minorVersion: u32(20, '0'),
  deviceFlags: u32(24, '1 = connectionless', { hex: true }),
  medium: u32(28, '0 = 802.3'),
  maxPacketsPerMessage: u32(32, 'most packet messages in one transfer'),
  maxTransferSize: u32(36, 'most bytes in one transfer', { unit: 'bytes' }),
  packetAlignmentFactor: u32(40, 'packet messages of one transfer start at multiples of 1 << factor'),
  afListOffset: u32(44, 'reserved', { default: 0 }),
  afListSize: u32(48, 'reserved', { default: 0 }),
});

/** Has no answer. */
export const RndisHalt = struct('RNDIS_HALT', {
  messageType: type(RNDIS_MESSAGE.HALT),
  messageLength: length(),
  requestId: requestId(),
});

const request = {
  messageLength: length(),
  requestId: requestId(),
  oid: oid(),
  informationBufferLength: u32(16, 'bytes of data', { unit: 'bytes' }),
  informationBufferOffset: u32(20, 'data, from byte 8; hosts expect it right behind the request', { unit: 'bytes' }),
  deviceVcHandle: u32(24, 'zero', { default: 0 }),
};

export const RndisQuery = struct('RNDIS_QUERY', { messageType: type(RNDIS_MESSAGE.QUERY), ...request });

export const RndisQueryComplete = struct('RNDIS_QUERY_COMPLETE', {
  messageType: type(RNDIS_MESSAGE.QUERY_COMPLETE),
  messageLength: length(),
  requestId: requestId(),
  status: status(12),
  informationBufferLength: u32(16, 'bytes of answer', { unit: 'bytes' }),
  informationBufferOffset: u32(20, 'answer, from byte 8', { unit: 'bytes' }),
});

export const RndisSet = struct('RNDIS_SET', { messageType: type(RNDIS_MESSAGE.SET), ...request });

export const RndisSetComplete = struct('RNDIS_SET_COMPLETE', {
  messageType: type(RNDIS_MESSAGE.SET_COMPLETE),
  messageLength: length(),
  requestId: requestId(),
  status: status(12),
});

export const RndisReset = struct('RNDIS_RESET', {
  messageType: type(RNDIS_MESSAGE.RESET),
  messageLength: length(),
  reserved: u32(8, 'reserved', { default: 0 }),
});

export const RndisResetComplete = struct('RNDIS_RESET_COMPLETE', {
  messageType: type(RNDIS_MESSAGE.RESET_COMPLETE),
  messageLength: length(),
  status: status(8),
  addressingReset: u32(12, '1 = the guest sets its packet filter and addresses again'),
});

/** From the host; the status buffer follows. */
export const RndisIndicateStatus = struct('RNDIS_INDICATE_STATUS', {
  messageType: type(RNDIS_MESSAGE.INDICATE_STATUS),
  messageLength: length(),
  status: status(8),
  statusBufferLength: u32(12, 'bytes of status buffer', { unit: 'bytes' }),
  statusBufferOffset: u32(16, 'status buffer, from byte 8; 0 when empty', { unit: 'bytes' }),
});

export const RndisKeepalive = struct('RNDIS_KEEPALIVE', {
  messageType: type(RNDIS_MESSAGE.KEEPALIVE),
  messageLength: length(),
  requestId: requestId(),
});

export const RndisKeepaliveComplete = struct('RNDIS_KEEPALIVE_COMPLETE', {
  messageType: type(RNDIS_MESSAGE.KEEPALIVE_COMPLETE),
  messageLength: length(),
  requestId: requestId(),
  status: status(12),
});

export const RNDIS_TABLES = [
  RndisHeader,
  RndisPacket,
  RndisInitialize,
  RndisInitializeComplete,
  RndisHalt,
  RndisQuery,
  RndisQueryComplete,
  RndisSet,
  RndisSetComplete,
  RndisReset,
  RndisResetComplete,
  RndisIndicateStatus,
  RndisKeepalive,
  RndisKeepaliveComplete,
] as const;
