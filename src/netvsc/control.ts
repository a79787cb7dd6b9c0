// Control messages of one device. NVSP requests carry a transaction id under CONTROL_TRANSACTION, so a completion of
// theirs is never mistaken for a data packet's. RNDIS messages lie in the first section(s) of the send buffer, one at a
// time: the section is the host's until it completes the message that names it.
import { CONTROL_TRANSACTION } from '../memory/layout.js';
import type { Channel } from '../vmbus/channel.js';
import {
  NVSP_CHANNEL_TYPE,
  NVSP_MESSAGE,
  NVSP_STATUS,
  NvspSendRndisPacket,
  NvspSendRndisPacketComplete,
} from '../wire/nvsp.js';
import { PACKET_FLAG, PACKET_TYPE } from '../wire/vmbus.js';
import { type Expected, type NetvscError, nvspStatus, RequestTable } from './requests.js';

const { IN_BAND, COMPLETION } = PACKET_TYPE;
const { COMPLETION_REQUESTED } = PACKET_FLAG;
const COMPLETED: Expected = {
  type: NVSP_MESSAGE.SEND_RNDIS_PACKET_COMPLETE,
  name: 'RNDIS packet complete',
  bytes: NvspSendRndisPacketComplete.size,
};
/** Messages that wait for room in the ring, or for the control section, because the host asked for them. */
const MAX_HOST_CAUSED = 16;
/** Longest message: set of RSS parameters with key and table is 592 bytes (facts/dpdk.md 2.3). */
const CONTROL_BYTES = 1024;

/** Sections at the start of the send buffer that belong to control messages. */
export const controlSections = (sectionBytes: number): number => Math.ceil(CONTROL_BYTES / sectionBytes);

interface Outgoing {
  readonly type: number;
  readonly flags: number;
  readonly idLow: number;
  readonly idHigh: number;
  readonly payload: Uint8Array;
}

interface RndisMessage {
  /** NVSP transaction of the message that carries it. */
  readonly transaction: number;
  readonly message: Uint8Array;
}

export class ControlPath {
  readonly nvsp: RequestTable;
  readonly rndis: RequestTable;
  /** Answers to the host (keepalive, VF association) given up because too many waited. */
  answersDropped = 0;
  readonly #channel: Channel;
  readonly #write: (message: Uint8Array) => void;
  readonly #signal: () => void;
  readonly #exclusive: (what: () => void) => boolean;
  readonly #outbox: Outgoing[] = [];
  readonly #rndisQueue: RndisMessage[] = [];
  #nvspBytes = 28;
  #sectionBytes = 0;
  #aborted: string | undefined;
  #sectionOwner = 0; // transaction of the message in the control section, 0 = free

  /** `write` puts an RNDIS message at the start of the control section; `signal` runs after each send; `exclusive` runs what uses
   *  the ring, or says that it cannot now. */
  constructor(
    where: string,
    timeoutMs: number,
    channel: Channel,
    write: (message: Uint8Array) => void,
    signal: () => void,
    exclusive: (what: () => void) => boolean,
  ) {
    this.nvsp = new RequestTable(where, timeoutMs);
    this.rndis = new RequestTable(where, timeoutMs);
    this.#channel = channel;
    this.#write = write;
    this.#signal = signal;
    this.#exclusive = exclusive;
  }

  /** Payload bytes of every NVSP message from now on. */
  setNvspBytes(bytes: number): void {
    this.#nvspBytes = bytes;
  }

  /** Bytes at the start of the send buffer that belong to control messages. */
  setSection(bytes: number): void {
    this.#sectionBytes = bytes;
  }

  /** Messages wait for room in the ring, or for a moment to use it. */
  get busy(): boolean {
    return this.#outbox.length > 0 || (this.#rndisQueue.length > 0 && this.#sectionOwner === 0);
  }

  /** Sends an NVSP message that has no answer. */
  nvspSend(message: Uint8Array): void {
    this.#out(IN_BAND, 0, 0, 0, this.#padded(message));
  }

  nvspRequest(step: string, message: Uint8Array, expected: Expected): Promise<Uint8Array> {
    const { id, reply } = this.nvsp.open(step, expected);
    this.#out(IN_BAND, COMPLETION_REQUESTED, id, CONTROL_TRANSACTION, this.#padded(message));
    if (this.#aborted !== undefined) this.nvsp.fail(id, this.#aborted);
    return reply;
  }

  /** Completes a message of the host. */
  complete(idLow: number, idHigh: number): void {
    if (this.#outbox.length >= MAX_HOST_CAUSED) this.answersDropped++;
    else this.#out(COMPLETION, 0, idLow, idHigh, new Uint8Array(0));
  }

  /** Sends an RNDIS request; resolves with its whole answer, whose status the caller checks. */
  rndisRequest(step: string, build: (requestId: number) => Uint8Array, expected: Expected): Promise<Uint8Array> {
    const { id, reply } = this.rndis.open(step, expected);
    this.#carry(step, build(id), (what) => this.rndis.fail(id, what));
    return reply;
  }

  /** Sends an RNDIS message that has no RNDIS answer; resolves when the host has taken it. */
  rndisSend(step: string, message: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#carry(step, message, undefined, (error) => (error ? reject(error) : resolve()));
    });
  }

  /** Answers a message of the host; given up when too many wait already. */
  rndisAnswer(step: string, message: Uint8Array): void {
    if (this.#rndisQueue.length >= MAX_HOST_CAUSED) this.answersDropped++;
    else this.#carry(step, message);
  }

  /** A completion packet that is no data packet's. */
  onCompletion(idLow: number, idHigh: number, payload: Uint8Array): void {
    if (idHigh !== CONTROL_TRANSACTION || idLow === 0) {
      this.nvsp.unexpected++;
      return;
    }
    const type = payload.length < 4 ? 0 : word(payload, 0);
    this.nvsp.answer(idLow, type, payload);
    if (idLow === this.#sectionOwner) {
      this.#sectionOwner = 0;
      this.pump();
    }
  }

  /** Sends what waited for room. */
  pump(): void {
    if (this.busy) this.#exclusive(this.#pump);
  }

  readonly #pump = (): void => {
    while (this.#outbox.length > 0) {
      const { type, flags, idLow, idHigh, payload } = this.#outbox[0]!;
      if (!this.#channel.send(type, flags, idLow, idHigh, payload)) return;
      this.#outbox.shift();
      this.#signal();
    }
    while (this.#sectionOwner === 0 && this.#rndisQueue.length > 0) {
      const { transaction, message } = this.#rndisQueue.shift()!;
      if (!this.nvsp.has(transaction)) continue; // its deadline passed while it waited
      this.#sectionOwner = transaction;
      this.#write(message);
      const carrier = this.#padded(
        NvspSendRndisPacket.encode({
          channelType: NVSP_CHANNEL_TYPE.CONTROL,
          sendBufferSectionIndex: 0,
          sendBufferSectionSize: message.length,
        }),
      );
      this.#out(IN_BAND, COMPLETION_REQUESTED, transaction, CONTROL_TRANSACTION, carrier);
    }
  };

  tick(nowMs: number): void {
    this.nvsp.tick(nowMs);
    this.rndis.tick(nowMs);
    this.pump();
  }

  /** Fails all that waits; nothing more is sent. */
  abort(what: string): void {
    this.#aborted ??= what;
    this.#outbox.length = 0;
    this.#rndisQueue.length = 0;
    this.nvsp.abort(what);
    this.rndis.abort(what);
  }

  #carry(
    step: string,
    message: Uint8Array,
    failed?: (what: string) => void,
    done?: (error: NetvscError | undefined) => void,
  ): void {
    const { id, reply } = this.nvsp.open(step, COMPLETED, (error) => failed?.(error.what));
    reply.then(
      (payload) => {
        const { status } = NvspSendRndisPacketComplete.decode(payload);
        if (status !== NVSP_STATUS.SUCCESS) {
          failed?.(`the host refused the RNDIS message: NVSP status ${nvspStatus(status)}`);
        }
        done?.(undefined);
      },
      (error: NetvscError) => done?.(error),
    );
    if (this.#aborted !== undefined) {
      this.nvsp.fail(id, this.#aborted);
      return;
    }
    if (message.length > this.#sectionBytes) {
      this.nvsp.fail(id, `RNDIS message of ${message.length} bytes, the control section has ${this.#sectionBytes}`);
      return;
    }
    this.#rndisQueue.push({ transaction: id, message });
    this.pump();
  }

  #out(type: number, flags: number, idLow: number, idHigh: number, payload: Uint8Array): void {
    if (this.#aborted !== undefined) return;
    this.#outbox.push({ type, flags, idLow, idHigh, payload });
    if (this.#outbox.length === 1) this.pump();
  }

  #padded(message: Uint8Array): Uint8Array {
    if (message.length >= this.#nvspBytes) return message;
    const padded = new Uint8Array(this.#nvspBytes);
    padded.set(message);
    return padded;
  }
}

function word(payload: Uint8Array, offset: number): number {
  return new DataView(payload.buffer, payload.byteOffset).getUint32(offset, true);
}
