// RNDIS: numbers, messages, and codecs of whole messages with their data.
import { decodePpis, type Ppi, ppiText } from './ppi.js';
import * as m from './rndis-messages.js';
import { RNDIS_MESSAGE, RNDIS_OFFSET_BASE } from './rndis-types.js';
import { type AnyStruct, nameOf, type Struct, type Value, WireError } from './struct.js';

export * from './rndis-messages.js';
export * from './rndis-types.js';

const NONE = new Uint8Array(0);

const BY_NAME = {
  PACKET: m.RndisPacket,
  INITIALIZE: m.RndisInitialize,
  HALT: m.RndisHalt,
  QUERY: m.RndisQuery,
  SET: m.RndisSet,
  RESET: m.RndisReset,
  INDICATE_STATUS: m.RndisIndicateStatus,
  KEEPALIVE: m.RndisKeepalive,
  INITIALIZE_COMPLETE: m.RndisInitializeComplete,
  QUERY_COMPLETE: m.RndisQueryComplete,
  SET_COMPLETE: m.RndisSetComplete,
  RESET_COMPLETE: m.RndisResetComplete,
  KEEPALIVE_COMPLETE: m.RndisKeepaliveComplete,
} as const;

type Kinds = typeof BY_NAME;
type Extra<K> = K extends 'PACKET'
  ? { readonly infos: readonly Ppi[]; readonly data: Uint8Array }
  : K extends 'QUERY' | 'SET' | 'QUERY_COMPLETE' | 'INDICATE_STATUS'
    ? { readonly data: Uint8Array }
    : unknown;

/** A decoded message; `kind` is its name in RNDIS_MESSAGE, `data` a copy of what its offset and length name. */
export type RndisMessage = {
  [K in keyof Kinds]: {
    readonly kind: K;
    readonly value: Kinds[K] extends Struct<infer T> ? Value<T> : never;
  } & Extra<K>;
}[keyof Kinds];

function withData<S extends typeof m.RndisQuery | typeof m.RndisSet>(
  struct: S,
  requestId: number,
  oid: number,
  data: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(struct.size + data.length);
  const common = { messageLength: bytes.length, requestId, oid, informationBufferLength: data.length };
  struct.encodeInto({ ...common, informationBufferOffset: struct.size - RNDIS_OFFSET_BASE }, bytes);
  bytes.set(data, struct.size);
  return bytes;
}

export function encodeInitialize(requestId: number, maxTransferSize: number): Uint8Array<ArrayBuffer> {
  const { size, encode } = m.RndisInitialize;
  return encode({ messageLength: size, requestId, majorVersion: 1, minorVersion: 0, maxTransferSize });
}

/** Connectionless 802.3, version 1.0. */
export function encodeInitializeComplete(
  requestId: number,
  status: number,
  limits: { maxPacketsPerMessage: number; maxTransferSize: number; packetAlignmentFactor: number },
): Uint8Array<ArrayBuffer> {
  const { size, encode } = m.RndisInitializeComplete;
  const fixed = { majorVersion: 1, minorVersion: 0, deviceFlags: 1, medium: 0 };
  return encode({ messageLength: size, requestId, status, ...fixed, ...limits });
}

export function encodeHalt(requestId: number): Uint8Array<ArrayBuffer> {
  return m.RndisHalt.encode({ messageLength: m.RndisHalt.size, requestId });
}

export function encodeQuery(requestId: number, oid: number, input: Uint8Array = NONE): Uint8Array<ArrayBuffer> {
  return withData(m.RndisQuery, requestId, oid, input);
}

/** With the data at byte 24, as Hyper-V answers; offset 16 even when there is none. */
export function encodeQueryComplete(
  requestId: number,
  status: number,
  data: Uint8Array = NONE,
): Uint8Array<ArrayBuffer> {
  const { size, encodeInto } = m.RndisQueryComplete;
  const bytes = new Uint8Array(size + data.length);
  const informationBufferOffset = size - RNDIS_OFFSET_BASE;
  const informationBufferLength = data.length;
  encodeInto(
    { messageLength: bytes.length, requestId, status, informationBufferLength, informationBufferOffset },
    bytes,
  );
  bytes.set(data, size);
  return bytes;
}

export function encodeSet(requestId: number, oid: number, data: Uint8Array): Uint8Array<ArrayBuffer> {
  return withData(m.RndisSet, requestId, oid, data);
}

export function encodeSetComplete(requestId: number, status: number): Uint8Array<ArrayBuffer> {
  return m.RndisSetComplete.encode({ messageLength: m.RndisSetComplete.size, requestId, status });
}

export function encodeReset(): Uint8Array<ArrayBuffer> {
  return m.RndisReset.encode({ messageLength: m.RndisReset.size });
}

export function encodeResetComplete(status: number, addressingReset: number): Uint8Array<ArrayBuffer> {
  return m.RndisResetComplete.encode({ messageLength: m.RndisResetComplete.size, status, addressingReset });
}

/** 20 bytes and offset 0 without data; else the data follows at byte 20. */
export function encodeIndicateStatus(status: number, data: Uint8Array = NONE): Uint8Array<ArrayBuffer> {
  const { size, encodeInto } = m.RndisIndicateStatus;
  const bytes = new Uint8Array(size + data.length);
  const statusBufferOffset = data.length === 0 ? 0 : size - RNDIS_OFFSET_BASE;
  encodeInto({ messageLength: bytes.length, status, statusBufferLength: data.length, statusBufferOffset }, bytes);
  bytes.set(data, size);
  return bytes;
}

export function encodeKeepalive(requestId: number): Uint8Array<ArrayBuffer> {
  return m.RndisKeepalive.encode({ messageLength: m.RndisKeepalive.size, requestId });
}

export function encodeKeepaliveComplete(requestId: number, status: number): Uint8Array<ArrayBuffer> {
  return m.RndisKeepaliveComplete.encode({ messageLength: m.RndisKeepaliveComplete.size, requestId, status });
}

/** A packet message: infos (of encodePpis) at byte 44, then the frame. Control-path and test use. */
export function encodePacketMessage(frame: Uint8Array, infos: Uint8Array = NONE): Uint8Array<ArrayBuffer> {
  const { size, encodeInto } = m.RndisPacket;
  const bytes = new Uint8Array(size + infos.length + frame.length);
  encodeInto(
    {
      messageLength: bytes.length,
      dataOffset: size + infos.length - RNDIS_OFFSET_BASE,
      dataLength: frame.length,
      perPacketInfoOffset: infos.length === 0 ? 0 : size - RNDIS_OFFSET_BASE,
      perPacketInfoLength: infos.length,
    },
    bytes,
  );
  bytes.set(infos, size);
  bytes.set(frame, size + infos.length);
  return bytes;
}

/** A copy of the message's bytes that an offset and a length name; none when the length is 0. */
function part(bytes: Uint8Array, struct: AnyStruct, field: string, offset: number, length: number): Uint8Array {
  if (length === 0) return NONE;
  const start = RNDIS_OFFSET_BASE + offset; // doubles: no wrap
  if (start < struct.size || start + length > bytes.length) {
    const what = `expected a part of bytes ${struct.size}..${bytes.length}, got ${length} bytes at byte ${start}`;
    throw new WireError(struct.name, field, what);
  }
  return bytes.slice(start, start + length);
}

/** The message's own bytes and its layout. */
function frame(bytes: Uint8Array): { kind: keyof Kinds; struct: AnyStruct; message: Uint8Array } {
  const { messageType, messageLength } = m.RndisHeader.decode(bytes);
  const kind = nameOf(RNDIS_MESSAGE, messageType);
  const struct = (BY_NAME as Record<string, AnyStruct>)[kind];
  if (!struct) throw new WireError(m.RndisHeader.name, 'messageType', `expected a known RNDIS message, got ${kind}`);
  if (messageLength < struct.size || messageLength > bytes.length) {
    const what = `expected ${struct.size}..${bytes.length} bytes, got ${messageLength}`;
    throw new WireError(struct.name, 'messageLength', what);
  }
  return { kind: kind as keyof Kinds, struct, message: bytes.subarray(0, messageLength) };
}

/** Decodes the message at the start of `bytes`; bytes after its length are ignored. Throws WireError. */
export function decodeRndis(bytes: Uint8Array): RndisMessage {
  const { kind, struct, message } = frame(bytes);
  switch (kind) {
    case 'PACKET': {
      const value = m.RndisPacket.decode(message);
      const { dataOffset, dataLength, perPacketInfoOffset: at, perPacketInfoLength: length } = value;
      const infos = decodePpis(part(message, struct, 'perPacketInfoOffset', at, length));
      return { kind, value, infos, data: part(message, struct, 'dataOffset', dataOffset, dataLength) };
    }
    case 'QUERY':
    case 'SET':
    case 'QUERY_COMPLETE': {
      const value = BY_NAME[kind].decode(message);
      const { informationBufferOffset: at, informationBufferLength: length } = value;
      return { kind, value, data: part(message, struct, 'informationBufferOffset', at, length) } as RndisMessage;
    }
    case 'INDICATE_STATUS': {
      const value = m.RndisIndicateStatus.decode(message);
      const { statusBufferOffset: at, statusBufferLength: length } = value;
      return { kind, value, data: part(message, struct, 'statusBufferOffset', at, length) };
    }
    default:
      return { kind, value: struct.decode(message) } as unknown as RndisMessage;
  }
}

/** One line for the trace. `toGuest`: from the host (checksum infos differ). Throws WireError like decodeRndis. */
export function rndisText(bytes: Uint8Array, toGuest = false): string {
  const decoded = decodeRndis(bytes);
  const text = (BY_NAME[decoded.kind] as AnyStruct).text(decoded.value);
  if (decoded.kind === 'PACKET') return [text, ...decoded.infos.map((info) => ppiText(info, toGuest))].join(' ');
  if (!('data' in decoded) || decoded.data.length === 0) return text;
  const shown = Array.from(decoded.data.subarray(0, 32), (b) => b.toString(16).padStart(2, '0')).join('');
  return `${text} data=${shown}${decoded.data.length > 32 ? '...' : ''}`;
}
