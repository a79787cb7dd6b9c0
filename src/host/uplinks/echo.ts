// An uplink without a network behind it: one station that answers, for tests and demos that have no privileges.
import type { Datapath } from '../../datapath/datapath.js';
import type { Arena } from '../../memory/arena.js';
import { FRAGMENT, FRAME, NO_SECTION, PACKET_FLAG } from '../../memory/layout.js';
import { FrameWorkshop } from '../frames.js';
import { DEFAULT_VLAN, type FrameSink, UPLINK_FILTER, type Uplink, type VlanMode } from '../ports.js';
import { ANSWER, Answers } from './answers.js';

const AT = FRAME.at;
/** Answers that may wait for the next poll, and their bytes. */
const FRAMES = 512;
const BUFFER_BYTES = 1 << 20;
/** Room that an answer may need beyond its question. */
const SLACK = 32;

export interface EchoOptions {
  readonly arena: Arena;
  readonly datapath: Datapath;
  readonly sink: FrameSink;
  readonly number: number;
  readonly name?: string;
  /** Its station's address; default 02:00:00:ec:00:<port number>. */
  readonly mac?: Uint8Array;
  /**
   * IPv4 (4 bytes) and IPv6 (16 bytes) addresses. None: it answers for whichever address it is asked for, except when
   * somebody checks whether an address is free. With several NICs that talk to each other, give addresses.
   */
  readonly addresses?: readonly Uint8Array[];
  /** Answer on UDP port 7; default true. */
  readonly udp?: boolean;
  readonly mtu?: number;
}

export class EchoUplink implements Uplink {
  readonly number: number;
  readonly name: string;
  readonly kind = 'echo' as const;
  macs: readonly Uint8Array[];
  vlan: VlanMode = DEFAULT_VLAN;
  mtu: number;
  linkUp = true;
  filter: number = UPLINK_FILTER;
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #sink: FrameSink;
  readonly #workshop: FrameWorkshop;
  readonly #answers: Answers;
  readonly #frames: number;
  readonly #fragments: number;
  readonly #buffer: number;
  /** Questions seen, by ANSWER. */
  readonly #counts = new Float64Array(Object.keys(ANSWER).length);
  #pending = 0;
  #used = 0;
  #dropped = 0;
  #closed = false;

  constructor(options: EchoOptions) {
    const { arena, datapath, number } = options;
    this.number = number;
    this.name = options.name ?? 'echo';
    this.mtu = options.mtu ?? 9000;
    const mac = options.mac ?? Uint8Array.of(0x02, 0, 0, 0xec, 0, number);
    this.macs = [mac];
    this.#arena = arena;
    this.#datapath = datapath;
    this.#sink = options.sink;
    this.#workshop = new FrameWorkshop(arena, datapath, `${this.name} workshop`);
    this.#answers = new Answers(arena, datapath, { mac, addresses: options.addresses ?? [], udp: options.udp ?? true });
    this.#frames = arena.reserve(`${this.name} answers`, FRAMES * (FRAME.bytes + FRAGMENT.bytes) + BUFFER_BYTES);
    this.#fragments = this.#frames + FRAMES * FRAME.bytes;
    this.#buffer = this.#fragments + FRAMES * FRAGMENT.bytes;
  }

  deliver(frames: number, count: number): void {
    this.#workshop.begin(frames, count, 0);
    for (let n = this.#workshop.next(); n > 0; n = this.#workshop.next()) {
      for (let i = 0; i < n; i++) this.#take(this.#arena.u32[(this.#workshop.output >>> 2) + i]!);
    }
  }

  /** Sends the answers that wait; returns how many. */
  poll(): number {
    const count = this.#pending;
    if (count === 0) return 0;
    this.#sink.forward(this.#frames, count);
    this.#pending = 0;
    this.#used = 0;
    return count;
  }

  tick(_nowMs: number): void {}

  fds(): readonly number[] {
    return [];
  }

  arm(): boolean {
    return this.#pending === 0;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.linkUp = false;
    this.#workshop.release();
    this.#arena.release(this.#frames);
  }

  stats(): Record<string, number> {
    const count = (kind: number) => this.#counts[kind]!;
    return {
      arp: count(ANSWER.ARP),
      icmp: count(ANSWER.ICMP),
      icmp6: count(ANSWER.ICMP6),
      neighbour: count(ANSWER.NEIGHBOUR),
      udp: count(ANSWER.UDP),
      ignored: count(ANSWER.NONE),
      badChecksum: count(ANSWER.BAD_CHECKSUM),
      dropped: this.#dropped,
      ...this.#workshop.counters(),
    };
  }

  #take(frame: number): void {
    const u32 = this.#arena.u32;
    const length = u32[(frame + AT.length) >>> 2]!;
    if (this.#pending === FRAMES || this.#used + length + SLACK > BUFFER_BYTES) {
      this.#dropped++;
      return;
    }
    const at = this.#buffer + this.#used;
    this.#datapath.frameGather(frame, at);
    const kind = this.#answers.answer(at, length);
    this.#counts[kind]! += 1;
    if (kind === ANSWER.NONE || kind === ANSWER.BAD_CHECKSUM) return;
    const made = this.#frames + this.#pending * FRAME.bytes;
    const fragment = this.#fragments + this.#pending * FRAGMENT.bytes;
    const bytes = this.#answers.bytes;
    u32.fill(0, made >>> 2, (made + FRAME.bytes) >>> 2);
    u32[fragment >>> 2] = at;
    u32[(fragment + 4) >>> 2] = bytes;
    u32[(made + AT.fragments) >>> 2] = fragment;
    u32[(made + AT.fragmentCount) >>> 2] = 1;
    u32[(made + AT.length) >>> 2] = bytes;
    u32[(made + AT.flags) >>> 2] = u32[(frame + AT.flags) >>> 2]! & PACKET_FLAG.VLAN;
    u32[(made + AT.vlanTci) >>> 2] = u32[(frame + AT.vlanTci) >>> 2]!;
    u32[(made + AT.head) >>> 2] = at;
    u32[(made + AT.source) >>> 2] = this.number;
    u32[(made + AT.transaction) >>> 2] = NO_SECTION;
    this.#used += (bytes + 63) & ~63;
    this.#pending++;
  }
}
