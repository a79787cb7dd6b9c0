// Numbers of RNDIS (facts/hyper-v-host.md 4, facts/dpdk.md 2.7).

export const RNDIS_MESSAGE = {
  PACKET: 1,
  INITIALIZE: 2,
  HALT: 3,
  QUERY: 4,
  SET: 5,
  RESET: 6,
  INDICATE_STATUS: 7,
  KEEPALIVE: 8,
  SET_EX: 9,
  INITIALIZE_COMPLETE: 0x80000002,
  QUERY_COMPLETE: 0x80000004,
  SET_COMPLETE: 0x80000005,
  RESET_COMPLETE: 0x80000006,
  KEEPALIVE_COMPLETE: 0x80000008,
  SET_EX_COMPLETE: 0x80000009,
} as const;

/** Bit of the message type of an answer. */
export const RNDIS_COMPLETION = 0x80000000;

/** Results of requests, and what INDICATE_STATUS tells. */
export const RNDIS_STATUS = {
  SUCCESS: 0,
  MEDIA_CONNECT: 0x4001000b,
  MEDIA_DISCONNECT: 0x4001000c,
  LINK_SPEED_CHANGE: 0x40010013,
  NETWORK_CHANGE: 0x40010018,
  TASK_OFFLOAD_CURRENT_CONFIG: 0x40020006,
  BUFFER_OVERFLOW: 0x80000005,
  FAILURE: 0xc0000001,
  NOT_SUPPORTED: 0xc00000bb,
  BAD_VERSION: 0xc0010004,
  INVALID_DATA: 0xc0010015,
} as const;

/** Every offset inside a message counts from here: from the byte after the type and the length. */
export const RNDIS_OFFSET_BASE = 8;
