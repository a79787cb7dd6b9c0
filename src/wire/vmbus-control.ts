// Control-plane messages of VMBus (facts/hyper-v-host.md 2.2): offers, channels, GPADLs, connection. Offsets include the
// 8-byte header. Receivers accept longer messages.
import { bytes, guid, reserved, struct, u8, u16, u32, u64 } from './struct.js';

export const VMBUS_MESSAGE = {
  OFFER_CHANNEL: 1,
  RESCIND_CHANNEL_OFFER: 2,
  REQUEST_OFFERS: 3,
  ALL_OFFERS_DELIVERED: 4,
  OPEN_CHANNEL: 5,
  OPEN_CHANNEL_RESULT: 6,
  CLOSE_CHANNEL: 7,
  GPADL_HEADER: 8,
  GPADL_BODY: 9,
  GPADL_CREATED: 10,
  GPADL_TEARDOWN: 11,
  GPADL_TORNDOWN: 12,
  REL_ID_RELEASED: 13,
  INITIATE_CONTACT: 14,
  VERSION_RESPONSE: 15,
  UNLOAD: 16,
  UNLOAD_COMPLETE: 17,
  MODIFY_CHANNEL: 22,
  MODIFY_CHANNEL_RESPONSE: 24,
} as const;

/** major << 16 | minor */
export const VMBUS_VERSION = {
  V1: 0x0000000d,
  WIN7: 0x00010001,
  WIN8: 0x00020004,
  WIN8_1: 0x00030000,
  WIN10: 0x00040000,
  WIN10_V4_1: 0x00040001,
  WIN10_V5_0: 0x00050000,
  WIN10_V5_1: 0x00050001,
  WIN10_V5_2: 0x00050002,
  IRON: 0x00050003,
  COPPER: 0x00060000,
} as const;

export const VMBUS_FEATURE = {
  GUEST_SPECIFIED_SIGNAL_PARAMETERS: 0x1,
  CHANNEL_INTERRUPT_REDIRECTION: 0x2,
  MODIFY_CONNECTION: 0x4,
  CLIENT_ID: 0x8,
  CONFIDENTIAL_CHANNELS: 0x10,
  PAUSE_RESUME: 0x20,
  SERVER_SPECIFIED_MONITOR_PAGES: 0x40,
  GPA_PINNING: 0x80,
} as const;

export const OFFER_FLAG = {
  ENUMERATE_DEVICE_INTERFACE: 0x1,
  CONFIDENTIAL_RING: 0x2,
  CONFIDENTIAL_EXTERNAL_MEMORY: 0x4,
  GPA_PINNED: 0x8,
  NAMED_PIPE: 0x10,
  TLNPI_PROVIDER: 0x2000,
} as const;

/** Interface of the synthetic network device: `class_id` in sysfs. */
export const NETWORK_INTERFACE_GUID = 'f8615163-df3e-46c5-913f-f2d2f965ed0e';

const type = <const N extends number>(number: N) => u32(0, 'message', { equals: number, names: VMBUS_MESSAGE });
const padding = () => u32(4, 'zero', { default: 0 });
const channel = () => u32(8, 'channel id');
const empty = <const N extends number>(number: N) => ({ messageType: type(number), padding: padding() });

export const VmbusHeader = struct('VMBUS_HEADER', {
  messageType: u32(0, 'message', { names: VMBUS_MESSAGE }),
  padding: padding(),
});

export const OfferChannel = struct('VMBUS_OFFER_CHANNEL', {
  ...empty(VMBUS_MESSAGE.OFFER_CHANNEL),
  interfaceId: guid(8, 'kind of device'),
  instanceId: guid(24, 'the device; the same for its subchannels'),
  reserved: reserved(40, 16),
  flags: u16(56, 'flags', { flags: OFFER_FLAG }),
  mmioMegabytes: u16(58, 'memory-mapped I/O', { unit: 'MiB' }),
  userDefined: bytes(60, 120, "the device's own", { default: new Uint8Array(120) }),
  subchannelIndex: u16(180, '0 = primary'),
  mmioMegabytesOptional: u16(182, 'memory-mapped I/O', { unit: 'MiB' }),
  channelId: u32(184, 'channel id'),
  monitorId: u8(188, '0xff = none'),
  monitorAllocated: u8(189, '1 = monitorId is valid'),
  isDedicated: u16(190, '1: the connection id below is used', { since: 'WIN7' }),
  connectionId: u32(192, 'connection to signal', { hex: true, since: 'WIN7' }),
});

export const RescindChannelOffer = struct('VMBUS_RESCIND_CHANNEL_OFFER', {
  ...empty(VMBUS_MESSAGE.RESCIND_CHANNEL_OFFER),
  channelId: channel(),
});
export const RequestOffers = struct('VMBUS_REQUEST_OFFERS', empty(VMBUS_MESSAGE.REQUEST_OFFERS));
export const AllOffersDelivered = struct('VMBUS_ALL_OFFERS_DELIVERED', empty(VMBUS_MESSAGE.ALL_OFFERS_DELIVERED));

export const OpenChannel = struct('VMBUS_OPEN_CHANNEL', {
  ...empty(VMBUS_MESSAGE.OPEN_CHANNEL),
  channelId: channel(),
  openId: u32(12, "the guest's, echoed"),
  ringBufferGpadl: u32(16, 'GPADL of both rings', { hex: true }),
  targetVp: u32(20, 'virtual processor to interrupt; 0xffffffff = none', { names: { NONE: 0xffffffff } }),
  downstreamPageOffset: u32(24, 'first page of the ring from host to guest', { unit: 'pages' }),
  userData: bytes(28, 120, "the device's own", { default: new Uint8Array(120) }),
});

export const OpenChannelResult = struct('VMBUS_OPEN_CHANNEL_RESULT', {
  ...empty(VMBUS_MESSAGE.OPEN_CHANNEL_RESULT),
  channelId: channel(),
  openId: u32(12, 'of the request'),
  status: u32(16, '0 = open', { hex: true }),
});

export const CloseChannel = struct('VMBUS_CLOSE_CHANNEL', {
  ...empty(VMBUS_MESSAGE.CLOSE_CHANNEL),
  channelId: channel(),
});

/** One range head and page frame numbers (u64) follow, at most 27 words; more comes in GPADL_BODY. */
export const GpadlHeader = struct('VMBUS_GPADL_HEADER', {
  ...empty(VMBUS_MESSAGE.GPADL_HEADER),
  channelId: channel(),
  gpadlId: u32(12, "the guest's choice", { hex: true }),
  rangeBufferLength: u16(16, 'all range data, bodies included', { unit: 'bytes' }),
  rangeCount: u16(18, 'ranges'),
});

/** At most 28 words (u64) follow. */
export const GpadlBody = struct('VMBUS_GPADL_BODY', {
  ...empty(VMBUS_MESSAGE.GPADL_BODY),
  messageNumber: u32(8, 'zero', { default: 0 }),
  gpadlId: u32(12, 'of the header', { hex: true }),
});

export const GpadlCreated = struct('VMBUS_GPADL_CREATED', {
  ...empty(VMBUS_MESSAGE.GPADL_CREATED),
  channelId: channel(),
  gpadlId: u32(12, 'of the request', { hex: true }),
  status: u32(16, '0 = created', { hex: true }),
});

export const GpadlTeardown = struct('VMBUS_GPADL_TEARDOWN', {
  ...empty(VMBUS_MESSAGE.GPADL_TEARDOWN),
  channelId: channel(),
  gpadlId: u32(12, 'GPADL', { hex: true }),
});

export const GpadlTorndown = struct('VMBUS_GPADL_TORNDOWN', {
  ...empty(VMBUS_MESSAGE.GPADL_TORNDOWN),
  gpadlId: u32(8, 'GPADL', { hex: true }),
});

export const RelIdReleased = struct('VMBUS_REL_ID_RELEASED', {
  ...empty(VMBUS_MESSAGE.REL_ID_RELEASED),
  channelId: channel(),
});

export const InitiateContact = struct('VMBUS_INITIATE_CONTACT', {
  ...empty(VMBUS_MESSAGE.INITIATE_CONTACT),
  version: u32(8, 'wanted', { names: VMBUS_VERSION }),
  targetMessageVp: u32(12, 'virtual processor for messages'),
  targetInfo: u64(16, 'interrupt page address below WIN8; else sint u8, vtl u8, features u32 in the high half'),
  parentToChildMonitorPage: u64(24, 'guest physical address'),
  childToParentMonitorPage: u64(32, 'guest physical address'),
});

/** Longer from COPPER on: feature bits follow. */
export const VersionResponse = struct('VMBUS_VERSION_RESPONSE', {
  ...empty(VMBUS_MESSAGE.VERSION_RESPONSE),
  versionSupported: u8(8, '1 = accepted'),
  connectionState: u8(9, '0 = good'),
  padding2: u16(10, 'padding', { default: 0 }),
  versionOrConnectionId: u32(12, 'version below 5.0, then the connection id of later messages', { hex: true }),
});

export const VersionResponse2 = struct('VMBUS_VERSION_RESPONSE_2', {
  ...empty(VMBUS_MESSAGE.VERSION_RESPONSE),
  versionSupported: u8(8, '1 = accepted'),
  connectionState: u8(9, '0 = good'),
  padding2: u16(10, 'padding', { default: 0 }),
  versionOrConnectionId: u32(12, 'connection id of later messages', { hex: true }),
  supportedFeatures: u32(16, 'features', { flags: VMBUS_FEATURE, since: 'COPPER' }),
});

export const Unload = struct('VMBUS_UNLOAD', empty(VMBUS_MESSAGE.UNLOAD));
export const UnloadComplete = struct('VMBUS_UNLOAD_COMPLETE', empty(VMBUS_MESSAGE.UNLOAD_COMPLETE));

export const ModifyChannel = struct('VMBUS_MODIFY_CHANNEL', {
  ...empty(VMBUS_MESSAGE.MODIFY_CHANNEL),
  channelId: channel(),
  targetVp: u32(12, 'virtual processor to interrupt from now on'),
});

export const ModifyChannelResponse = struct('VMBUS_MODIFY_CHANNEL_RESPONSE', {
  ...empty(VMBUS_MESSAGE.MODIFY_CHANNEL_RESPONSE),
  channelId: channel(),
  status: u32(12, '0 = done', { hex: true }),
});

export const VMBUS_CONTROL_TABLES = [
  VmbusHeader,
  OfferChannel,
  RescindChannelOffer,
  RequestOffers,
  AllOffersDelivered,
  OpenChannel,
  OpenChannelResult,
  CloseChannel,
  GpadlHeader,
  GpadlBody,
  GpadlCreated,
  GpadlTeardown,
  GpadlTorndown,
  RelIdReleased,
  InitiateContact,
  VersionResponse,
  VersionResponse2,
  Unload,
  UnloadComplete,
  ModifyChannel,
  ModifyChannelResponse,
] as const;
