// Any NVSP message by its number, and the tail of SEND_INDIRECTION_TABLE.
import * as nvsp from './nvsp-messages.js';
import { NVSP_MESSAGE, nvspSince } from './nvsp-types.js';
import { type AnyStruct, nameOf, type Struct, type Value, WireError } from './struct.js';

const BY_NUMBER = {
  INIT: nvsp.NvspInit,
  INIT_COMPLETE: nvsp.NvspInitComplete,
  SEND_NDIS_VERSION: nvsp.NvspSendNdisVersion,
  SEND_RECEIVE_BUFFER: nvsp.NvspSendReceiveBuffer,
  SEND_RECEIVE_BUFFER_COMPLETE: nvsp.NvspSendReceiveBufferComplete,
  REVOKE_RECEIVE_BUFFER: nvsp.NvspRevokeReceiveBuffer,
  SEND_SEND_BUFFER: nvsp.NvspSendSendBuffer,
  SEND_SEND_BUFFER_COMPLETE: nvsp.NvspSendSendBufferComplete,
  REVOKE_SEND_BUFFER: nvsp.NvspRevokeSendBuffer,
  SEND_RNDIS_PACKET: nvsp.NvspSendRndisPacket,
  SEND_RNDIS_PACKET_COMPLETE: nvsp.NvspSendRndisPacketComplete,
  SEND_NDIS_CONFIG: nvsp.NvspSendNdisConfig,
  SEND_VF_ASSOCIATION: nvsp.NvspSendVfAssociation,
  SWITCH_DATA_PATH: nvsp.NvspSwitchDataPath,
  UPLINK_CONNECT_STATE: nvsp.NvspUplinkConnectState,
  OID_QUERY_EX: nvsp.NvspOidQueryEx,
  OID_QUERY_EX_COMPLETE: nvsp.NvspOidQueryExComplete,
  SUBCHANNEL: nvsp.NvspSubchannelRequest,
  SEND_INDIRECTION_TABLE: nvsp.NvspSendIndirectionTable,
} as const;

type Kinds = typeof BY_NUMBER & { SUBCHANNEL_COMPLETE: typeof nvsp.NvspSubchannelComplete };
type Extra<K> = K extends 'SEND_INDIRECTION_TABLE' ? { readonly table: readonly number[] } : unknown;

/** A decoded message; `kind` is its name in NVSP_MESSAGE (or SUBCHANNEL_COMPLETE). */
export type NvspMessage = {
  [K in keyof Kinds]: {
    readonly kind: K;
    readonly value: Kinds[K] extends Struct<infer T> ? Value<T> : never;
  } & Extra<K>;
}[keyof Kinds];

function lookup(bytes: Uint8Array, version: number, isCompletion: boolean): { kind: keyof Kinds; struct: AnyStruct } {
  const { messageType } = nvsp.NvspHeader.decode(bytes);
  const fail = (what: string): never => {
    throw new WireError(nvsp.NvspHeader.name, 'messageType', what);
  };
  const since = nvspSince(messageType);
  if (since === undefined) return fail(`expected an NVSP message number, got ${messageType}`);
  const name = nameOf(NVSP_MESSAGE, messageType);
  if (since > version) {
    return fail(
      `expected a message of version 0x${version.toString(16)}, got ${name} of version 0x${since.toString(16)}`,
    );
  }
  if (isCompletion && name === 'SUBCHANNEL')
    return { kind: 'SUBCHANNEL_COMPLETE', struct: nvsp.NvspSubchannelComplete };
  const struct = (BY_NUMBER as Record<string, AnyStruct>)[name];
  if (!struct) return fail(`${name} (${messageType}) is known by name only`);
  return { kind: name as keyof Kinds, struct };
}

/**
 * Decodes a message. `version` is the negotiated NVSP version (0 before there is one): newer messages are unknown.
 * `isCompletion`: the payload of a completion packet, where SUBCHANNEL has another layout. Throws WireError.
 */
export function decodeNvsp(bytes: Uint8Array, version: number, isCompletion = false): NvspMessage {
  const { kind, struct } = lookup(bytes, version, isCompletion);
  const value = struct.decode(bytes);
  const table = kind === 'SEND_INDIRECTION_TABLE' ? { table: decodeIndirectionTable(bytes) } : {};
  return { kind, value, ...table } as unknown as NvspMessage;
}

/** One line for the trace. Throws WireError like decodeNvsp. */
export function nvspText(bytes: Uint8Array, version: number, isCompletion = false): string {
  const { kind, struct } = lookup(bytes, version, isCompletion);
  const text = struct.text(struct.decode(bytes));
  return kind === 'SEND_INDIRECTION_TABLE' ? `${text} table=[${decodeIndirectionTable(bytes).join(' ')}]` : text;
}

/** SEND_INDIRECTION_TABLE with its table right behind the fixed part. */
export function encodeIndirectionTable(table: readonly number[]): Uint8Array<ArrayBuffer> {
  const fixed = nvsp.NvspSendIndirectionTable;
  const bytes = new Uint8Array(fixed.size + table.length * 4);
  fixed.encodeInto({ count: table.length, offset: fixed.size }, bytes);
  const view = new DataView(bytes.buffer);
  for (const [i, entry] of table.entries()) {
    if (!Number.isInteger(entry) || entry < 0 || entry > 0xffffffff) {
      throw new WireError(fixed.name, `table[${i}]`, `expected a channel number, got ${entry}`);
    }
    view.setUint32(fixed.size + i * 4, entry, true);
  }
  return bytes;
}

/**
 * The table of a SEND_INDIRECTION_TABLE. `offset` replaces the message's own (hosts up to NVSP 6 send a wrong one,
 * facts/linux-guest.md 4.1). Entries are the host's: the caller checks them against its channels. Throws WireError.
 */
export function decodeIndirectionTable(bytes: Uint8Array, offset?: number): number[] {
  const { name, decode, size } = nvsp.NvspSendIndirectionTable;
  const fixed = decode(bytes);
  const at = offset ?? fixed.offset;
  if (at < size || at > bytes.length)
    throw new WireError(name, 'offset', `expected ${size}..${bytes.length}, got ${at}`);
  const most = Math.floor((bytes.length - at) / 4);
  if (fixed.count > most) throw new WireError(name, 'count', `expected at most ${most}, got ${fixed.count}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return Array.from({ length: fixed.count }, (_, i) => view.getUint32(at + i * 4, true));
}
