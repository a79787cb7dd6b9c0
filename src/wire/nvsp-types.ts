// Numbers of NVSP, the protocol between NetVSC and NetVSP (facts/hyper-v-host.md 3.1 and 3.2, facts/linux-guest.md 1.3).
import { nameOf } from './struct.js';

export const NVSP_VERSION = { V1: 0x2, V2: 0x30002, V4: 0x40000, V5: 0x50000, V6: 0x60000, V61: 0x60001 } as const;

/** "V6.1" for 0x60001; hexadecimal when it is no version. */
export function nvspVersionName(version: number): string {
  return nameOf(NVSP_VERSION, version).replace('V61', 'V6.1');
}

/** The order in which a guest tries them. */
export const NVSP_VERSIONS_NEWEST_FIRST = [
  NVSP_VERSION.V61,
  NVSP_VERSION.V6,
  NVSP_VERSION.V5,
  NVSP_VERSION.V4,
  NVSP_VERSION.V2,
  NVSP_VERSION.V1,
] as const;

export const NVSP_MESSAGE = {
  INIT: 1,
  INIT_COMPLETE: 2,
  SEND_NDIS_VERSION: 100,
  SEND_RECEIVE_BUFFER: 101,
  SEND_RECEIVE_BUFFER_COMPLETE: 102,
  REVOKE_RECEIVE_BUFFER: 103,
  SEND_SEND_BUFFER: 104,
  SEND_SEND_BUFFER_COMPLETE: 105,
  REVOKE_SEND_BUFFER: 106,
  SEND_RNDIS_PACKET: 107,
  SEND_RNDIS_PACKET_COMPLETE: 108,
  SEND_CHIMNEY_DELEGATED_BUFFER: 109,
  SEND_CHIMNEY_DELEGATED_BUFFER_COMPLETE: 110,
  REVOKE_CHIMNEY_DELEGATED_BUFFER: 111,
  RESUME_CHIMNEY_RX_INDICATION: 112,
  TERMINATE_CHIMNEY: 113,
  TERMINATE_CHIMNEY_COMPLETE: 114,
  INDICATE_CHIMNEY_EVENT: 115,
  SEND_CHIMNEY_PACKET: 116,
  SEND_CHIMNEY_PACKET_COMPLETE: 117,
  POST_CHIMNEY_RECV_REQUEST: 118,
  POST_CHIMNEY_RECV_REQUEST_COMPLETE: 119,
  ALLOCATE_RECEIVE_BUFFER: 120,
  ALLOCATE_RECEIVE_BUFFER_COMPLETE: 121,
  FREE_RECEIVE_BUFFER: 122,
  SEND_VMQ_RNDIS_PACKET: 123,
  SEND_VMQ_RNDIS_PACKET_COMPLETE: 124,
  SEND_NDIS_CONFIG: 125,
  ALLOCATE_CHIMNEY_HANDLE: 126,
  ALLOCATE_CHIMNEY_HANDLE_COMPLETE: 127,
  SEND_VF_ASSOCIATION: 128,
  SWITCH_DATA_PATH: 129,
  UPLINK_CONNECT_STATE: 130,
  OID_QUERY_EX: 131,
  OID_QUERY_EX_COMPLETE: 132,
  SUBCHANNEL: 133,
  SEND_INDIRECTION_TABLE: 134,
  PD_API: 135,
  PD_POST_BATCH: 136,
} as const;

export const NVSP_STATUS = {
  NONE: 0,
  SUCCESS: 1,
  FAIL: 2,
  TOO_NEW: 3,
  TOO_OLD: 4,
  INVALID_RNDIS_PACKET: 5,
  BUSY: 6,
  UNSUPPORTED_VERSION: 7,
} as const;

/** SEND_NDIS_CONFIG.capabilities. */
export const NVSP_CAPABILITY = {
  VMQ: 0x1,
  CHIMNEY: 0x2,
  SRIOV: 0x4,
  IEEE8021Q: 0x8,
  CORRELATION_ID: 0x10,
  TEAMING: 0x20,
  VIRTUAL_SUBNET_ID: 0x40,
  RSC_OVER_VMBUS: 0x80,
} as const;

export const NVSP_CHANNEL_TYPE = { DATA: 0, CONTROL: 1 } as const;
export const NVSP_DATA_PATH = { SYNTHETIC: 0, VF: 1 } as const;
export const NVSP_SUBCHANNEL_OPERATION = { ALLOCATE: 1 } as const;

/** SEND_RNDIS_PACKET.sendBufferSectionIndex: the packet is not in the send buffer. */
export const NVSP_NO_SECTION = 0xffffffff;

/** Entries that SEND_INDIRECTION_TABLE always has. */
export const NVSP_INDIRECTION_TABLE_ENTRIES = 16;

export const NDIS_VERSION = { NDIS_6_0: 0x60000, NDIS_6_1: 0x60001, NDIS_6_20: 0x60014, NDIS_6_30: 0x6001e } as const;

/** Transaction ids of messages that the host starts itself (facts/hyper-v-host.md 3.2). */
export const NVSP_HOST_TRANSACTION = {
  SEND_VF_ASSOCIATION: 0x8000000000000000n,
  SWITCH_DATA_PATH: 0x8000000000000001n,
} as const;

/** Payload bytes of packets from host to guest: every message is padded with zeros to this. */
export function nvspMessageBytes(version: number): number {
  return version >= NVSP_VERSION.V61 ? 40 : 28;
}

/** First version that knows a message, undefined for an unknown id. */
export function nvspSince(messageType: number): number | undefined {
  if (messageType >= 1 && messageType <= 2) return 0;
  if (messageType >= 100 && messageType <= 108) return NVSP_VERSION.V1;
  if (messageType >= 109 && messageType <= 127) return NVSP_VERSION.V2;
  if (messageType >= 128 && messageType <= 130) return NVSP_VERSION.V4;
  if (messageType >= 131 && messageType <= 134) return NVSP_VERSION.V5;
  if (messageType >= 135 && messageType <= 136) return NVSP_VERSION.V61;
  return undefined;
}
