// A channel as control code sees it: the cells of one GUEST_QUEUE or HOST_CHANNEL, its event buffer, and the calls of
// the compiled data path that work on them. Packets never pass here, only control messages, errors and counters.
import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import { read64 } from '../memory/cells64.js';
import { CHANNEL_END, EVENT, GUEST_QUEUE, HOST_CHANNEL, RING_ERROR } from '../memory/layout.js';
import { type RingRegion, VmbusError } from './device.js';

/** Called per event. `payload` is a private copy that the peer cannot change. */
export type EventHandler = (
  kind: number,
  idLow: number,
  idHigh: number,
  a: number,
  b: number,
  payload: Uint8Array,
) => void;

/** Why the data path declared a ring corrupt; sticky until the next bind. */
export interface RingFault {
  readonly code: number;
  readonly name: string;
  /** The offending value. */
  readonly detail: number;
}

const STRUCTURES = [GUEST_QUEUE, HOST_CHANNEL] as const;
const ERROR_NAMES = new Map<number, string>(Object.entries(RING_ERROR).map(([name, code]) => [code, name]));

/** Longest payload that send() takes: NVSP messages are at most 40 bytes, completions of control requests far below this. */
const STAGE_BYTES = 4096;
/** Room for control events of one poll. */
const EVENT_BYTES = 65_536;

export class Channel {
  readonly address: number;
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  /** Byte offset of every u64 cell. */
  readonly #counters: ReadonlyMap<string, number>;
  readonly #eventAt: { readonly events: number; readonly eventBytes: number; readonly eventUsed: number };
  readonly #u32: Uint32Array;
  // Of cells that every poll looks at, as places in u32.
  readonly #eventUsed: number;
  readonly #needSignal: number;
  readonly #ringError: number;
  readonly #memory: number;

  /**
   * `address`: a zeroed structure of the arena; `at`: GUEST_QUEUE.at or HOST_CHANNEL.at, which says what it is.
   * Allocates the event buffer and a place to stage payloads (release() gives them back).
   */
  constructor(
    arena: Arena,
    datapath: Datapath,
    address: number,
    at: (typeof STRUCTURES)[number]['at'],
    eventBytes: number = EVENT_BYTES,
  ) {
    const structure = STRUCTURES.find((table) => table.at === at);
    if (!structure) throw new VmbusError('channel: expected the cells of GUEST_QUEUE or HOST_CHANNEL');
    this.address = address;
    this.#arena = arena;
    this.#datapath = datapath;
    this.#eventAt = structure.at;
    this.#u32 = arena.u32;
    this.#eventUsed = (address + structure.at.eventUsed) >>> 2;
    this.#needSignal = (address + CHANNEL_END.at.needSignal) >>> 2;
    this.#ringError = (address + CHANNEL_END.at.ringError) >>> 2;
    const counters = new Map<string, number>();
    for (const [name, type] of Object.entries(structure.types)) {
      if (type === 'u64') counters.set(name, (structure.at as Record<string, number>)[name]!);
    }
    this.#counters = counters;
    this.#memory = arena.reserve(`channel ${address.toString(16)} events`, STAGE_BYTES + eventBytes);
    this.#set(this.#eventAt.events, this.#memory + STAGE_BYTES);
    this.#set(this.#eventAt.eventBytes, eventBytes);
    this.#set(this.#eventAt.eventUsed, 0);
  }

  /** Sets both rings and takes the indices that their control pages hold. Clears a sticky error; counters stay. */
  bind(writeRing: RingRegion, readRing: RingRegion): void {
    const at = CHANNEL_END.at;
    this.#set(at.writeRing, writeRing.control);
    this.#set(at.writeSize, writeRing.dataBytes);
    this.#set(at.readRing, readRing.control);
    this.#set(at.readSize, readRing.dataBytes);
    this.#set(at.ringError, 0);
    this.#set(at.ringErrorDetail, 0);
    this.#set(at.needSignal, 0);
    this.#set(this.#eventAt.eventUsed, 0);
    this.#datapath.endInit(this.address);
  }

  /**
   * Writes one in-band (type 6) or completion (type 11) packet. `flags`: 1 = completion requested.
   * False = no room in the ring, or the ring is corrupt (see `error`).
   */
  send(type: number, flags: number, idLow: number, idHigh: number, payload: Uint8Array): boolean {
    if (payload.length > STAGE_BYTES) {
      throw new VmbusError(`channel: payload of ${payload.length} bytes, at most ${STAGE_BYTES} can be sent`);
    }
    if (this.#get(CHANNEL_END.at.ringError) !== 0) return false;
    this.#arena.u8.set(payload, this.#memory);
    return this.#datapath.ringSend(this.address, type, flags, idLow, idHigh, this.#memory, payload.length) !== 0;
  }

  /** Hands the waiting events to `handler`, oldest first, and empties the buffer. The handler may send. */
  drainEvents(handler: EventHandler): void {
    const { u8 } = this.#arena;
    const base = this.#get(this.#eventAt.events);
    // Read anew each time: a handler that binds the channel anew (fault, re-open) empties the buffer.
    for (let offset = 0; offset < this.#get(this.#eventAt.eventUsed); ) {
      const record = base + offset;
      const bytes = this.#cell(record + EVENT.at.bytes);
      const start = record + EVENT.bytes;
      handler(
        this.#cell(record + EVENT.at.kind),
        this.#cell(record + EVENT.at.idLow),
        this.#cell(record + EVENT.at.idHigh),
        this.#cell(record + EVENT.at.a),
        this.#cell(record + EVENT.at.b),
        u8.slice(start, start + bytes),
      );
      offset += EVENT.bytes + ((bytes + 7) & ~7);
    }
    this.#set(this.#eventAt.eventUsed, 0);
  }

  /** Events wait for drainEvents(). */
  get hasEvents(): boolean {
    return this.#u32[this.#eventUsed] !== 0;
  }

  /** A commit asked for an interrupt to the peer. */
  get needsSignal(): boolean {
    return this.#u32[this.#needSignal] !== 0;
  }

  /** The same, once. */
  takeSignal(): boolean {
    if (!this.needsSignal) return false;
    this.#u32[this.#needSignal] = 0;
    return true;
  }

  /** The data path found the ring corrupt. */
  get broken(): boolean {
    return this.#u32[this.#ringError] !== 0;
  }

  /** Set once it is broken. */
  get error(): RingFault | undefined {
    const code = this.#u32[this.#ringError]!;
    if (code === 0) return undefined;
    return { code, name: ERROR_NAMES.get(code) ?? `code ${code}`, detail: this.#get(CHANNEL_END.at.ringErrorDetail) };
  }

  /** One u64 cell as a Number. Throws VmbusError for a name that the structure does not have. */
  counter(name: string): number {
    const offset = this.#counters.get(name);
    if (offset === undefined) throw new VmbusError(`channel: no counter named ${name}`);
    return read64(this.#u32, (this.address + offset) >>> 2);
  }

  /** All counters by name. */
  counters(): Record<string, number> {
    const all: Record<string, number> = {};
    for (const name of this.#counters.keys()) all[name] = this.counter(name);
    return all;
  }

  /** Masks the peer's interrupts: we poll. */
  mask(): void {
    this.#datapath.ringMask(this.address);
  }

  /** Unmasks them; true when something arrived meanwhile, so that the caller must not sleep. */
  unmask(): boolean {
    return this.#datapath.ringUnmask(this.address) !== 0;
  }

  /** Gives the event buffer back; the channel is of no use afterwards. */
  release(): void {
    this.#set(this.#eventAt.eventBytes, 0);
    this.#set(this.#eventAt.eventUsed, 0);
    this.#arena.release(this.#memory);
  }

  #get(offset: number): number {
    return this.#cell(this.address + offset);
  }

  #set(offset: number, value: number): void {
    this.#arena.u32[(this.address + offset) >>> 2] = value;
  }

  #cell(address: number): number {
    return this.#arena.u32[address >>> 2]!;
  }
}
