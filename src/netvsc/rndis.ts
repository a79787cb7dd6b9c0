// RNDIS control requests (facts/hyper-v-host.md 4, linux-guest.md 2.2). An answer counts only when its id, type and length
// are right and its status says success; the data of a query must lie inside the answer and have the length of its kind.
import { NDIS_OFFLOAD_SIZES, NDIS_RSS_CAPABILITIES } from '../wire/ndis.js';
import { OID } from '../wire/oid.js';
import {
  RNDIS_HALT,
  RNDIS_INITIALIZE,
  RNDIS_INITIALIZE_COMPLETE,
  RNDIS_KEEPALIVE_COMPLETE,
  RNDIS_MESSAGE,
  RNDIS_QUERY,
  RNDIS_QUERY_COMPLETE,
  RNDIS_RESET_COMPLETE,
  RNDIS_SET,
  RNDIS_SET_COMPLETE,
  RNDIS_STATUS,
} from '../wire/rndis.js';
import type { ControlPath } from './control.js';
import { hex, NetvscError } from './requests.js';
import type { RssCapabilities } from './types.js';

/** Offsets inside an RNDIS message count from here. */
const BODY = 8;
/** What we could take in one message; the host sends control messages only. */
const MAX_TRANSFER_BYTES = 0x4000;
/** RNDIS allows alignments of 1 to 128 bytes. */
const MAX_ALIGNMENT_FACTOR = 7;
const MAX_PACKETS_PER_MESSAGE = 1024;
/** One full frame with its headers must fit in a transfer. */
const MIN_TRANSFER_BYTES = 1514 + 128;

export interface InitializeResult {
  /** At least 1. */
  readonly maxPackets: number;
  readonly maxTransferBytes: number;
  /** Bytes. */
  readonly alignment: number;
}

export class Rndis {
  readonly #where: string;
  readonly #control: ControlPath;

  constructor(where: string, control: ControlPath) {
    this.#where = where;
    this.#control = control;
  }

  async initialize(): Promise<InitializeResult> {
    const step = 'RNDIS initialize';
    const payload = await this.#control.rndisRequest(
      step,
      (requestId) =>
        RNDIS_INITIALIZE.encode({
          messageType: RNDIS_MESSAGE.INITIALIZE,
          messageLength: RNDIS_INITIALIZE.size,
          requestId,
          majorVersion: 1,
          minorVersion: 0,
          maxTransferSize: MAX_TRANSFER_BYTES,
        }),
      { type: RNDIS_MESSAGE.INITIALIZE_COMPLETE, name: 'initialize complete', bytes: RNDIS_INITIALIZE_COMPLETE.size },
    );
    const reply = RNDIS_INITIALIZE_COMPLETE.decode(payload);
    this.#checkStatus(step, reply.status);
    const { packetAlignmentFactor: factor, maxTransferSize } = reply;
    if (factor > MAX_ALIGNMENT_FACTOR) {
      throw this.#error(step, `expected a packet alignment factor of 0..${MAX_ALIGNMENT_FACTOR}, got ${factor}`);
    }
    if (maxTransferSize < MIN_TRANSFER_BYTES) {
      throw this.#error(step, `expected transfers of at least ${MIN_TRANSFER_BYTES} bytes, got ${maxTransferSize}`);
    }
    return {
      maxPackets: Math.min(MAX_PACKETS_PER_MESSAGE, Math.max(1, reply.maxPacketsPerMessage)),
      maxTransferBytes: maxTransferSize,
      alignment: 1 << factor,
    };
  }

  /** Payload bytes of the largest frame; undefined when the host does not say. */
  async maxFrameBytes(): Promise<number | undefined> {
    const data = await this.#optional(this.query('RNDIS query maximum frame size', OID.GEN_MAXIMUM_FRAME_SIZE, 4));
    return data && cell(data);
  }

  async macAddress(): Promise<string> {
    const data = await this.query('RNDIS query permanent address', OID.IEEE8023_PERMANENT_ADDRESS, 6);
    return Array.from(data.subarray(0, 6), (byte) => byte.toString(16).padStart(2, '0')).join(':');
  }

  /** '' when the host has none. */
  async friendlyName(): Promise<string> {
    const data = await this.#optional(this.query('RNDIS query friendly name', OID.GEN_FRIENDLY_NAME, 0));
    if (!data) return '';
    const text = new TextDecoder('utf-16le').decode(data.subarray(0, data.length & ~1));
    const end = text.indexOf('\0');
    return end < 0 ? text : text.slice(0, end);
  }

  /** NDIS_OFFLOAD bytes of the revision that goes with the NVSP version. */
  offloadCapabilities(nvspVersion: number): Promise<Uint8Array> {
    const revision = nvspVersion >= 0x50000 ? 3 : nvspVersion >= 0x40000 ? 2 : 1;
    const size = NDIS_OFFLOAD_SIZES[revision - 1]!;
    const input = new Uint8Array(size);
    const view = new DataView(input.buffer);
    input[0] = NDIS_OBJECT.OFFLOAD;
    input[1] = revision;
    view.setUint16(2, size, true);
    // A host may answer an older revision than it was asked for.
    const step = 'RNDIS query offload capabilities';
    return this.query(step, OID.TCP_OFFLOAD_HARDWARE_CAPABILITIES, NDIS_OFFLOAD_SIZES[0]!, input);
  }

  async setOffloadParameters(parameters: Uint8Array): Promise<void> {
    await this.set('RNDIS set offload parameters', OID.TCP_OFFLOAD_PARAMETERS, parameters);
  }

  async linkUp(): Promise<boolean> {
    return cell(await this.query('RNDIS query media connect status', OID.GEN_MEDIA_CONNECT_STATUS, 4)) === 0;
  }

  /** 0 when the host does not say. */
  async linkSpeedBps(): Promise<number> {
    const data = await this.#optional(this.query('RNDIS query link speed', OID.GEN_LINK_SPEED, 4));
    return data ? cell(data) * 100 : 0;
  }

  async rssCapabilities(): Promise<RssCapabilities | undefined> {
    const input = NDIS_RSS_CAPABILITIES.encode({ type: 0x88, revision: 2, size: NDIS_RSS_CAPABILITIES.size });
    const step = 'RNDIS query RSS capabilities';
    const data = await this.#optional(this.query(step, OID.GEN_RECEIVE_SCALE_CAPABILITIES, 16, input));
    if (!data) return undefined;
    const whole = new Uint8Array(Math.max(data.length, NDIS_RSS_CAPABILITIES.size));
    whole.set(data); // revision 1 ends before the table size
    const { capabilities, receiveQueues, tableEntries } = NDIS_RSS_CAPABILITIES.decode(whole);
    return { flags: capabilities, receiveQueues, tableEntries };
  }

  setPacketFilter(bits: number): Promise<void> {
    const data = new Uint8Array(4);
    new DataView(data.buffer).setUint32(0, bits, true);
    return this.set('RNDIS set packet filter', OID.GEN_CURRENT_PACKET_FILTER, data);
  }

  /** Resolves when the host has taken the message; it has no RNDIS answer. */
  halt(): Promise<void> {
    const message = RNDIS_HALT.encode({
      messageType: RNDIS_MESSAGE.HALT,
      messageLength: RNDIS_HALT.size,
      requestId: 0,
    });
    return this.#control.rndisSend('RNDIS halt', message);
  }

  answerKeepalive(requestId: number): void {
    const message = RNDIS_KEEPALIVE_COMPLETE.encode({
      messageType: RNDIS_MESSAGE.KEEPALIVE_COMPLETE,
      messageLength: RNDIS_KEEPALIVE_COMPLETE.size,
      requestId,
      status: RNDIS_STATUS.SUCCESS,
    });
    this.#control.rndisAnswer('RNDIS keepalive answer', message);
  }

  answerReset(): void {
    const message = RNDIS_RESET_COMPLETE.encode({
      messageType: RNDIS_MESSAGE.RESET_COMPLETE,
      messageLength: RNDIS_RESET_COMPLETE.size,
      status: RNDIS_STATUS.SUCCESS,
      addressingReset: 0,
    });
    this.#control.rndisAnswer('RNDIS reset answer', message);
  }

  /** Data of an OID, at least `bytes` long. */
  async query(step: string, oid: number, bytes: number, input: Uint8Array = new Uint8Array(0)): Promise<Uint8Array> {
    const payload = await this.#control.rndisRequest(
      step,
      (requestId) => this.#withData(RNDIS_MESSAGE.QUERY, RNDIS_QUERY, requestId, oid, input),
      { type: RNDIS_MESSAGE.QUERY_COMPLETE, name: 'query complete', bytes: RNDIS_QUERY_COMPLETE.size },
    );
    const reply = RNDIS_QUERY_COMPLETE.decode(payload);
    this.#checkStatus(step, reply.status);
    const { informationBufferLength: length, informationBufferOffset: offset } = reply;
    if (length < bytes) throw this.#error(step, `expected ${bytes} bytes or more of OID ${hex(oid)}, got ${length}`);
    const start = BODY + offset;
    if (length > 0 && (start < RNDIS_QUERY_COMPLETE.size || start + length > payload.length)) {
      const range = `${length} bytes at offset ${offset}`;
      throw this.#error(
        step,
        `the data of OID ${hex(oid)} (${range}) is not inside the answer of ${payload.length} bytes`,
      );
    }
    return payload.subarray(start, start + length);
  }

  async set(step: string, oid: number, data: Uint8Array): Promise<void> {
    const payload = await this.#control.rndisRequest(
      step,
      (requestId) => this.#withData(RNDIS_MESSAGE.SET, RNDIS_SET, requestId, oid, data),
      { type: RNDIS_MESSAGE.SET_COMPLETE, name: 'set complete', bytes: RNDIS_SET_COMPLETE.size },
    );
    this.#checkStatus(step, RNDIS_SET_COMPLETE.decode(payload).status);
  }

  /** A query or a set: hosts look for the data right behind the request (facts/hyper-v-host.md 4.1). */
  #withData(
    messageType: number,
    table: typeof RNDIS_QUERY | typeof RNDIS_SET,
    requestId: number,
    oid: number,
    data: Uint8Array,
  ): Uint8Array {
    const message = new Uint8Array(table.size + data.length);
    message.set(
      table.encode({
        messageType,
        messageLength: message.length,
        requestId,
        oid,
        informationBufferLength: data.length,
        informationBufferOffset: data.length > 0 ? table.size - BODY : 0,
      }),
    );
    message.set(data, table.size);
    return message;
  }

  /** A refusal that does not stop attach; silence and wrong answers do. */
  async #optional(query: Promise<Uint8Array>): Promise<Uint8Array | undefined> {
    try {
      return await query;
    } catch (error) {
      if (error instanceof RefusedError) return undefined;
      throw error;
    }
  }

  #checkStatus(step: string, status: number): void {
    if (status === RNDIS_STATUS.SUCCESS) return;
    throw new RefusedError(this.#where, step, `the host answered RNDIS status ${hex(status)}`);
  }

  #error(step: string, what: string): NetvscError {
    return new NetvscError(this.#where, step, what);
  }
}

/** The host answered properly, and said no. */
class RefusedError extends NetvscError {}

function cell(data: Uint8Array): number {
  return new DataView(data.buffer, data.byteOffset).getUint32(0, true);
}
