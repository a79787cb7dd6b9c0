// What the host sends unasked: RNDIS indications, keepalive and reset, NVSP messages about VF, data path and send table;
// and the dispatch of answers to whoever waits. Runs from within poll(), on private copies of the messages.
import { EVENT_KIND } from '../memory/layout.js';
import type { EventHandler } from '../vmbus/channel.js';
import {
  NVSP_DATA_PATH,
  NVSP_INDIRECTION_TABLE_ENTRIES,
  NVSP_MESSAGE,
  NvspSendIndirectionTable,
  NvspSendVfAssociation,
  NvspSwitchDataPath,
} from '../wire/nvsp.js';
import {
  RNDIS_COMPLETION,
  RNDIS_MESSAGE,
  RNDIS_OFFSET_BASE,
  RNDIS_STATUS,
  RndisIndicateStatus,
} from '../wire/rndis.js';
import type { ControlPath } from './control.js';
import { offloadsInForce } from './offloads.js';
import type { QueueMemory } from './queue.js';
import type { Rndis } from './rndis.js';
import { MAX_QUEUES } from './scaling.js';
import type { DriverCounters, NetvscEvent, NetvscInfo } from './types.js';

export class HostMessages {
  /** OFFLOAD bits that were asked for; what the host says later can only take some away. */
  wantedOffloads = 0;
  /** Packet filter to set again after a reset. */
  filter = 0;
  /** For Channel.drainEvents. */
  readonly onEvent: EventHandler;
  /** The host's choice of transmit queue for a hash modulo its length; undefined while it made none. */
  sendTable: readonly number[] | undefined;
  readonly #queues: readonly QueueMemory[];
  readonly #control: ControlPath;
  readonly #rndis: Rndis;
  readonly #counters: DriverCounters;
  readonly #emit: (event: NetvscEvent) => void;
  #info: NetvscInfo | undefined;
  // What was indicated before attach had asked for it, or while it was asking: newer than the answer.
  #linkUp: boolean | undefined;
  #linkSpeedBps: number | undefined;
  #offloads: number | undefined;
  /** Not told yet. */
  readonly #news = { link: false, speed: false, network: false };

  constructor(
    queues: readonly QueueMemory[],
    control: ControlPath,
    rndis: Rndis,
    counters: DriverCounters,
    emit: (event: NetvscEvent) => void,
  ) {
    this.#queues = queues;
    this.#control = control;
    this.#rndis = rndis;
    this.#counters = counters;
    this.#emit = emit;
    this.onEvent = (kind, idLow, idHigh, a, _b, payload) => {
      if (kind === EVENT_KIND.COMPLETION) control.onCompletion(idLow, idHigh, payload);
      else if (kind === EVENT_KIND.RNDIS_CONTROL) this.#rndisMessage(payload);
      else if (kind === EVENT_KIND.NVSP) this.#nvspMessage(payload, a !== 0, idLow, idHigh);
    };
  }

  /** Tells of link, speed and network once each, however often they changed since the last call (facts/linux-guest.md 10.1 D11). */
  settle(): void {
    const news = { ...this.#news };
    Object.assign(this.#news, { link: false, speed: false, network: false });
    if (news.link) this.#emit({ type: 'link', up: this.#linkUp! });
    if (news.speed) this.#emit({ type: 'speed', bps: this.#linkSpeedBps! });
    if (news.network) this.#emit({ type: 'network-change' });
  }

  /** Attach is done: from now on `info` is kept up to date. */
  apply(info: NetvscInfo): void {
    this.#info = info;
    info.linkUp = this.#linkUp ?? info.linkUp;
    info.linkSpeedBps = this.#linkSpeedBps ?? info.linkSpeedBps;
    this.#setOffloads(this.#offloads ?? this.wantedOffloads);
  }

  /** The host has switched `wantedOffloads` on; what it says about them from now on is news. */
  useOffloads(): void {
    this.#offloads = undefined;
    if (this.#info) this.#setOffloads(this.wantedOffloads);
  }

  #nvspMessage(payload: Uint8Array, completionRequested: boolean, idLow: number, idHigh: number): void {
    const event = decodeNvsp(payload);
    if (event === undefined) this.#counters.badHostMessages++;
    else {
      if (event.type === 'send-table') this.sendTable = event.table;
      this.#emit(event);
    }
    if (completionRequested) this.#control.complete(idLow, idHigh);
  }

  #rndisMessage(payload: Uint8Array): void {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
    // The data path saw these cells in shared memory; what counts is the copy.
    const length = payload.length < 12 ? 0 : view.getUint32(4, true);
    if (length < 12 || length > payload.length) {
      this.#counters.badHostMessages++;
      return;
    }
    const type = view.getUint32(0, true);
    if (type === RNDIS_MESSAGE.INDICATE_STATUS) this.#indication(payload);
    else if (type === RNDIS_MESSAGE.KEEPALIVE) {
      this.#counters.keepalives++;
      this.#rndis.answerKeepalive(view.getUint32(8, true));
    } else if (type === RNDIS_MESSAGE.RESET) this.#reset();
    else if (type >= RNDIS_COMPLETION) {
      this.#control.rndis.answer(view.getUint32(8, true), type, payload.subarray(0, length));
    } else this.#counters.badHostMessages++;
  }

  /** The host starts over: it is told that we follow, and gets the packet filter again. */
  #reset(): void {
    this.#counters.resets++;
    this.#rndis.answerReset();
    if (this.filter !== 0) this.#rndis.setPacketFilter(this.filter).catch(() => {}); // counted where requests are
    this.#emit({ type: 'reset' });
  }

  #indication(payload: Uint8Array): void {
    this.#counters.indications++;
    if (payload.length < RndisIndicateStatus.size) {
      this.#counters.badIndications++;
      return;
    }
    const { status, statusBufferLength, statusBufferOffset } = RndisIndicateStatus.decode(payload);
    const start = RNDIS_OFFSET_BASE + statusBufferOffset;
    // Some hosts leave the buffer out of the message length, so the bound is what was received (linux-guest.md 8).
    const inside = start >= RndisIndicateStatus.size && start + statusBufferLength <= payload.length;
    if (statusBufferLength > 0 && !inside) {
      this.#counters.badIndications++;
      return;
    }
    const buffer =
      statusBufferLength > 0 ? payload.subarray(start, start + statusBufferLength) : payload.subarray(0, 0);
    if (status === RNDIS_STATUS.MEDIA_CONNECT) this.#link(true);
    else if (status === RNDIS_STATUS.MEDIA_DISCONNECT) this.#link(false);
    else if (status === RNDIS_STATUS.NETWORK_CHANGE) this.#news.network = true;
    else if (status === RNDIS_STATUS.LINK_SPEED_CHANGE) this.#speed(buffer);
    else if (status === RNDIS_STATUS.TASK_OFFLOAD_CURRENT_CONFIG) this.#offloadConfig(buffer);
    else this.#emit({ type: 'indication', status });
  }

  #link(up: boolean): void {
    this.#counters.linkChanges++;
    this.#linkUp = up;
    if (this.#info) this.#info.linkUp = up;
    this.#news.link = true;
  }

  #speed(buffer: Uint8Array): void {
    if (buffer.length < 4) {
      this.#counters.badIndications++;
      return;
    }
    const bps = new DataView(buffer.buffer, buffer.byteOffset).getUint32(0, true) * 100;
    this.#linkSpeedBps = bps;
    if (this.#info) this.#info.linkSpeedBps = bps;
    this.#news.speed = true;
  }

  #offloadConfig(buffer: Uint8Array): void {
    const inForce = offloadsInForce(buffer);
    if (inForce === undefined) {
      this.#counters.badIndications++;
      return;
    }
    this.#offloads = this.wantedOffloads & inForce;
    if (this.#info === undefined) return; // apply() follows
    const before = this.#info.offloads;
    this.#setOffloads(this.#offloads);
    if (before !== this.#offloads) this.#emit({ type: 'offloads', offloads: this.#offloads });
  }

  #setOffloads(bits: number): void {
    for (const queue of this.#queues) queue.set('offloads', bits);
    if (this.#info) this.#info.offloads = bits;
  }
}

/** A host's own NVSP message as an event; undefined = unknown or malformed. */
function decodeNvsp(payload: Uint8Array): NetvscEvent | undefined {
  if (payload.length < 4) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const type = view.getUint32(0, true);
  if (type === NVSP_MESSAGE.SEND_VF_ASSOCIATION && payload.length >= NvspSendVfAssociation.size) {
    const { vfAllocated, serialNumber } = NvspSendVfAssociation.decode(payload);
    return { type: 'vf-association', allocated: vfAllocated !== 0, serial: serialNumber };
  }
  if (type === NVSP_MESSAGE.SWITCH_DATA_PATH && payload.length >= NvspSwitchDataPath.size) {
    return { type: 'data-path', vf: NvspSwitchDataPath.decode(payload).activeDataPath === NVSP_DATA_PATH.VF };
  }
  if (type === NVSP_MESSAGE.SEND_INDIRECTION_TABLE && payload.length >= NvspSendIndirectionTable.size) {
    const { count, offset } = NvspSendIndirectionTable.decode(payload);
    const start = NvspSendIndirectionTable.size;
    if (count !== NVSP_INDIRECTION_TABLE_ENTRIES || offset < start || offset + count * 4 > payload.length) {
      return undefined;
    }
    const table = Array.from({ length: count }, (_, i) => view.getUint32(offset + 4 * i, true));
    return table.every((queue) => queue < MAX_QUEUES) ? { type: 'send-table', table } : undefined;
  }
  return undefined;
}
