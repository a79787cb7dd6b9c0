// RNDIS control messages of one channel: requests wait in a bounded queue for a control suballocation to answer through,
// answers and indications go out in order (facts/hyper-v-host.md 4.1).
import { OID } from '../wire/oid.js';
import {
  encodeIndicateStatus,
  encodeInitializeComplete,
  encodeKeepaliveComplete,
  encodeQueryComplete,
  encodeSetComplete,
  RNDIS_MESSAGE,
  RNDIS_STATUS,
  RndisHeader,
  RndisInitialize,
  RndisKeepalive,
  RndisQuery,
  RndisSet,
} from '../wire/rndis.js';
import { nameOf } from '../wire/struct.js';
import type { Adapter } from './adapter.js';
import type { ChannelMemory } from './channel-memory.js';
import { ChannelFault } from './netvsp.js';
import { queryOid, setOid } from './oids.js';

/** Most bytes of one transfer, as the real host says it. */
const MAX_TRANSFER = 0xefff_ffff;
/** Bytes of requests that may wait; what comes beyond is refused (facts/hyper-v-host.md 4.1). */
const QUEUE_BYTES = 100 * 1024;
/** Indications that wait for room. Older ones of the same status are replaced, so that this is never reached. */
const MAX_INDICATIONS = 8;

interface Indication {
  readonly status: number;
  readonly message: Uint8Array;
}

export class RndisControl {
  /** The guest's RNDIS initialize was answered: indications may be sent. */
  operational = false;
  /** Requests refused because the queue was full. */
  refused = 0;
  readonly #memory: ChannelMemory;
  readonly #adapter: Adapter;
  readonly #requests: Uint8Array[] = [];
  #requestBytes = 0;
  /** Answers to the request served last, in order. */
  readonly #answers: Uint8Array[] = [];
  readonly #indications: Indication[] = [];

  constructor(memory: ChannelMemory, adapter: Adapter) {
    this.#memory = memory;
    this.#adapter = adapter;
  }

  reset(): void {
    this.operational = false;
    this.#requests.length = 0;
    this.#requestBytes = 0;
    this.#answers.length = 0;
    this.#indications.length = 0;
  }

  /** Requests and answers that wait for a control suballocation or for room in the ring. */
  get waiting(): number {
    return this.#requests.length + this.#answers.length + this.#indications.length;
  }

  /** Bytes of requests that wait. */
  get queuedBytes(): number {
    return this.#requestBytes;
  }

  /** Takes a control message. False = refused, to be completed with status 2; nothing else changes. */
  accept(payload: Uint8Array): boolean {
    const length = payload.length < RndisHeader.size ? 0 : RndisHeader.decode(payload).messageLength;
    if (length < RndisHeader.size || length > payload.length || this.#requestBytes + length > QUEUE_BYTES) {
      this.refused++;
      return false;
    }
    this.#requests.push(payload.length === length ? payload : payload.slice(0, length));
    this.#requestBytes += length;
    return true;
  }

  /** Tells the guest something at the next pump() that finds room; nothing before the guest initialized. */
  indicate(status: number, payload: Uint8Array): void {
    if (!this.operational) return;
    const same = this.#indications.findIndex((waiting) => waiting.status === status);
    if (same >= 0) this.#indications.splice(same, 1);
    if (this.#indications.length < MAX_INDICATIONS) {
      this.#indications.push({ status, message: encodeIndicateStatus(status, payload) });
    }
  }

  /** Serves requests while answers find room. Throws ChannelFault for what kills the channel. */
  pump(): void {
    while (this.#sendWaiting() && this.#requests.length > 0) {
      if (this.#memory.get('freeControlCount') === 0) return;
      const request = this.#requests.shift()!;
      this.#requestBytes -= request.length;
      this.#serve(request);
    }
  }

  /** True when nothing waits any more. */
  #sendWaiting(): boolean {
    while (this.#answers.length > 0) {
      if (!this.#memory.sendControl(this.#answers[0]!)) return false;
      this.#answers.shift();
    }
    while (this.#indications.length > 0) {
      if (!this.#memory.sendControl(this.#indications[0]!.message)) return false;
      this.#indications.shift();
    }
    return true;
  }

  /** A body that is too short is a WireError, as deadly as an unknown message. */
  #serve(request: Uint8Array): void {
    const { messageType } = RndisHeader.decode(request);
    switch (messageType) {
      case RNDIS_MESSAGE.INITIALIZE: {
        const { requestId } = RndisInitialize.decode(request);
        if (this.operational) throw new ChannelFault('RNDIS INITIALIZE came twice');
        this.operational = true;
        const { maxPacketsPerMessage, alignmentShift: packetAlignmentFactor } = this.#adapter.profile;
        const limits = { maxPacketsPerMessage, packetAlignmentFactor, maxTransferSize: MAX_TRANSFER };
        if (this.#adapter.refusals > 0) {
          this.#adapter.refusals--;
          this.#answers.push(encodeInitializeComplete(requestId, RNDIS_STATUS.FAILURE, limits));
          break;
        }
        this.#answers.push(encodeInitializeComplete(requestId, RNDIS_STATUS.SUCCESS, limits));
        break;
      }
      case RNDIS_MESSAGE.HALT:
        break; // no answer but the NVSP completion, and no change (facts/hyper-v-host.md 4.1)
      case RNDIS_MESSAGE.QUERY: {
        const { requestId, oid } = RndisQuery.decode(request);
        const { status, data } = queryOid(this.#adapter, oid, request.subarray(RndisQuery.size));
        this.#answers.push(encodeQueryComplete(requestId, status, data));
        break;
      }
      case RNDIS_MESSAGE.SET: {
        // The data is what follows, whatever offset and length say (facts/hyper-v-host.md 4.1).
        const { requestId, oid } = RndisSet.decode(request);
        const status = setOid(this.#adapter, oid, request.subarray(RndisSet.size));
        this.#answers.push(encodeSetComplete(requestId, status));
        this.#memory.set('offloads', this.#adapter.offloads);
        // The configuration follows whether it changed or not, as on the real host.
        if (oid === OID.TCP_OFFLOAD_PARAMETERS && status === RNDIS_STATUS.SUCCESS) {
          this.#indicateOffloads();
        }
        break;
      }
      case RNDIS_MESSAGE.KEEPALIVE: {
        const { requestId } = RndisKeepalive.decode(request);
        this.#answers.push(encodeKeepaliveComplete(requestId, RNDIS_STATUS.SUCCESS));
        break;
      }
      default:
        throw new ChannelFault(`RNDIS ${nameOf(RNDIS_MESSAGE, messageType)}: not a control message from guests`);
    }
  }

  /** Switches offloads off, and tells the guest. */
  withdrawOffloads(bits: number): void {
    this.#adapter.offloads &= ~bits;
    this.#memory.set('offloads', this.#adapter.offloads);
    this.#indicateOffloads();
  }

  #indicateOffloads(): void {
    const config = this.#adapter.offloadStructure(this.#adapter.offloads);
    this.indicate(RNDIS_STATUS.TASK_OFFLOAD_CURRENT_CONFIG, config);
  }
}
