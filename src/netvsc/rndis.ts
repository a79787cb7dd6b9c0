// RNDIS control requests (facts/hyper-v-host.md 4, linux-guest.md 2.2). An answer counts only when its id, type and length
// are right and its status says success; the data of a query must lie inside the answer and have the length of its kind.
import { formatMac } from '../wire/address-text.js';
import {
  decodeRssCapabilities,
  encodeConfigParameter,
  encodeNdisOffloadQuery,
  NDIS_OFFLOAD_SIZE,
  NDIS_RSS_CAPABILITIES_SIZE,
  NdisRssCapabilities,
} from '../wire/ndis.js';
import { OID } from '../wire/oid.js';
import {
  encodeHalt,
  encodeInitialize,
  encodeKeepaliveComplete,
  encodeQuery,
  encodeResetComplete,
  encodeSet,
  RNDIS_MESSAGE,
  RNDIS_OFFSET_BASE,
  RNDIS_STATUS,
  RndisInitializeComplete,
  RndisQueryComplete,
  RndisSetComplete,
} from '../wire/rndis.js';
import { WireError } from '../wire/struct.js';
import type { ControlPath } from './control.js';
import { hex, NetvscError } from './requests.js';
import type { RssCapabilities } from './types.js';

/** What we could take in one message; the host sends control messages only. */
const MAX_TRANSFER_BYTES = 0x4000;
/** RNDIS allows alignments of 1 to 128 bytes. */
const MAX_ALIGNMENT_FACTOR = 7;
const MAX_PACKETS_PER_MESSAGE = 1024;
const MAC_BYTES = 6;
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
      (requestId) => encodeInitialize(requestId, MAX_TRANSFER_BYTES),
      { type: RNDIS_MESSAGE.INITIALIZE_COMPLETE, name: 'initialize complete', bytes: RndisInitializeComplete.size },
    );
    const reply = RndisInitializeComplete.decode(payload);
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
    const step = 'RNDIS query permanent address';
    const data = await this.query(step, OID.IEEE8023_PERMANENT_ADDRESS, MAC_BYTES);
    if (data.length !== MAC_BYTES) throw this.#error(step, `expected ${MAC_BYTES} bytes, got ${data.length}`);
    const mac = formatMac(data);
    const group = (data[0]! & 1) !== 0;
    if (group || data.every((byte) => byte === 0)) throw this.#error(step, `expected a unicast address, got ${mac}`);
    return mac;
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
    // A host may answer an older revision than it was asked for.
    const step = 'RNDIS query offload capabilities';
    return this.query(
      step,
      OID.TCP_OFFLOAD_HARDWARE_CAPABILITIES,
      NDIS_OFFLOAD_SIZE[1],
      encodeNdisOffloadQuery(revision),
    );
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

  /** Undefined when the host does not say, or says nothing that makes sense. */
  async rssCapabilities(): Promise<RssCapabilities | undefined> {
    const input = NdisRssCapabilities.encode({ revision: 2, objectSize: NdisRssCapabilities.size });
    const step = 'RNDIS query RSS capabilities';
    const oid = OID.GEN_RECEIVE_SCALE_CAPABILITIES;
    const data = await this.#optional(this.query(step, oid, NDIS_RSS_CAPABILITIES_SIZE[1], input));
    if (!data) return undefined;
    try {
      const { capabilitiesFlags: flags, ...rss } = decodeRssCapabilities(data);
      return { flags, receiveQueues: rss.numberOfReceiveQueues, tableEntries: rss.numberOfIndirectionTableEntries };
    } catch (error) {
      if (error instanceof WireError) return undefined; // as good as no answer: one queue
      throw error;
    }
  }

  /** False when the host refuses. */
  async setReceiveScaling(steps: readonly Uint8Array[]): Promise<boolean> {
    try {
      for (const step of steps) {
        await this.set('RNDIS set RSS parameters', OID.GEN_RECEIVE_SCALE_PARAMETERS, step);
      }
      return true;
    } catch (error) {
      if (error instanceof RefusedError) return false;
      throw error;
    }
  }

  /** `mac`: "00:15:5d:01:02:03". False when the host refuses it. */
  async setMacAddress(mac: string): Promise<boolean> {
    const parameter = encodeConfigParameter('NetworkAddress', mac.replaceAll(':', '').toUpperCase());
    const set = this.set('RNDIS set address', OID.GEN_RNDIS_CONFIG_PARAMETER, parameter);
    return (await this.#optional(set.then(() => true))) ?? false;
  }

  setPacketFilter(bits: number): Promise<void> {
    const data = new Uint8Array(4);
    new DataView(data.buffer).setUint32(0, bits, true);
    return this.set('RNDIS set packet filter', OID.GEN_CURRENT_PACKET_FILTER, data);
  }

  /** Resolves when the host has taken the message; it has no RNDIS answer. */
  halt(): Promise<void> {
    return this.#control.rndisSend('RNDIS halt', encodeHalt(0));
  }

  answerKeepalive(requestId: number): void {
    this.#control.rndisAnswer('RNDIS keepalive answer', encodeKeepaliveComplete(requestId, RNDIS_STATUS.SUCCESS));
  }

  answerReset(): void {
    this.#control.rndisAnswer('RNDIS reset answer', encodeResetComplete(RNDIS_STATUS.SUCCESS, 0));
  }

  /** Data of an OID, at least `bytes` long. */
  async query(step: string, oid: number, bytes: number, input: Uint8Array = new Uint8Array(0)): Promise<Uint8Array> {
    const payload = await this.#control.rndisRequest(step, (requestId) => encodeQuery(requestId, oid, input), {
      type: RNDIS_MESSAGE.QUERY_COMPLETE,
      name: 'query complete',
      bytes: RndisQueryComplete.size,
    });
    const reply = RndisQueryComplete.decode(payload);
    this.#checkStatus(step, reply.status);
    const { informationBufferLength: length, informationBufferOffset: offset } = reply;
    if (length < bytes) throw this.#error(step, `expected ${bytes} bytes or more of OID ${hex(oid)}, got ${length}`);
    const start = RNDIS_OFFSET_BASE + offset;
    if (length > 0 && (start < RndisQueryComplete.size || start + length > payload.length)) {
      const range = `${length} bytes at offset ${offset}`;
      throw this.#error(
        step,
        `the data of OID ${hex(oid)} (${range}) is not inside the answer of ${payload.length} bytes`,
      );
    }
    return payload.subarray(start, start + length);
  }

  async set(step: string, oid: number, data: Uint8Array): Promise<void> {
    const payload = await this.#control.rndisRequest(step, (requestId) => encodeSet(requestId, oid, data), {
      type: RNDIS_MESSAGE.SET_COMPLETE,
      name: 'set complete',
      bytes: RndisSetComplete.size,
    });
    this.#checkStatus(step, RndisSetComplete.decode(payload).status);
  }

  /** A refusal that does not stop attach; silence and wrong answers do. */
  async #optional<T>(query: Promise<T>): Promise<T | undefined> {
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
