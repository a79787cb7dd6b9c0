// An uplink whose network is a capture file: one that is replayed into the switch, one that records it, or both.
import type { Datapath } from '../../datapath/datapath.js';
import type { Arena } from '../../memory/arena.js';
import { FRAGMENT, FRAME, NO_SECTION } from '../../memory/layout.js';
import { FrameWorkshop } from '../frames.js';
import { DEFAULT_VLAN, type FrameSink, PORT_FILTER, UPLINK_FILTER, type Uplink, type VlanMode } from '../ports.js';
import { PcapRecorder } from './pcap-recorder.js';
import { captureProblem, PcapReplay } from './pcap-replay.js';

const AT = FRAME.at;
const BURST = 32;
const LONGEST_BYTES = 65_600;
const STRIDE = (LONGEST_BYTES + 63) & ~63;

export interface PcapOptions {
  readonly arena: Arena;
  readonly datapath: Datapath;
  readonly sink: FrameSink;
  readonly number: number;
  readonly name?: string;
  /** Capture whose frames are sent into the switch: pcap or pcapng. */
  readonly read?: string;
  /** pcapng file to write, emptied if it is there, mode 0600. */
  readonly write?: string;
  /** Send frames as their timestamps say, by the time that tick() gives; otherwise 32 with every poll. */
  readonly paced?: boolean;
  /** Nanoseconds since 1970 at the loop's time 0, for the timestamps that are written. */
  readonly epochNs?: bigint;
}

/** A capture file that cannot be opened, read or written; the message names it. */
export class PcapError extends Error {
  override name = 'PcapError';
}

/**
 * A recorder is promiscuous: the file gets every frame that the switch forwards, in the order in which ports would get
 * them, cut into segments and with finished checksums as on a real wire. Set `filter` to UPLINK_FILTER to record only
 * what leaves the switch. What is replayed passes the switch like anything else; `paused` holds it back until the NICs
 * are there.
 */
export class PcapUplink implements Uplink {
  readonly number: number;
  readonly name: string;
  readonly kind = 'pcap' as const;
  macs: readonly Uint8Array[] = [];
  vlan: VlanMode = DEFAULT_VLAN;
  mtu = 65_535;
  linkUp = true;
  filter: number;
  paused = false;
  readonly #arena: Arena;
  readonly #sink: FrameSink;
  readonly #replay: PcapReplay | undefined;
  readonly #recorder: PcapRecorder | undefined;
  readonly #workshop: FrameWorkshop | undefined;
  readonly #frames: number;
  readonly #fragments: number;
  readonly #buffers: number;
  #sent = 0;
  #closed = false;

  /** Throws PcapError. */
  constructor(options: PcapOptions) {
    const { arena, datapath, read, write } = options;
    if (read === undefined && write === undefined) throw new PcapError('capture: expected a file to read or to write');
    this.number = options.number;
    this.name = options.name ?? `pcap:${read ?? write}`;
    this.filter = write === undefined ? UPLINK_FILTER : UPLINK_FILTER | PORT_FILTER.PROMISCUOUS;
    this.#arena = arena;
    this.#sink = options.sink;
    this.#replay = open(read, (path) => new PcapReplay(path, LONGEST_BYTES, options.paced ?? false));
    try {
      const epoch = options.epochNs ?? 0n;
      this.#recorder = open(write, (path) => new PcapRecorder(arena, datapath, path, 'vswitch', epoch));
      if (this.#recorder) this.#workshop = new FrameWorkshop(arena, datapath, `${this.name} workshop`);
      const tables = BURST * (FRAME.bytes + FRAGMENT.bytes);
      this.#frames = arena.reserve(this.name, tables + (this.#replay ? BURST * STRIDE : 0));
    } catch (error) {
      this.#replay?.close();
      this.#recorder?.close();
      this.#workshop?.release();
      throw error;
    }
    this.#fragments = this.#frames + BURST * FRAME.bytes;
    this.#buffers = this.#fragments + BURST * FRAGMENT.bytes;
  }

  /** The whole capture has been sent. */
  get done(): boolean {
    return this.#replay?.done ?? true;
  }

  /** Why a file is not read or written any more. */
  get failure(): string | undefined {
    return this.#replay?.failure ?? this.#recorder?.failure;
  }

  deliver(frames: number, count: number): void {
    const recorder = this.#recorder;
    const workshop = this.#workshop;
    if (!recorder || !workshop) return;
    const u32 = this.#arena.u32;
    workshop.begin(frames, count, 0);
    for (let n = workshop.next(); n > 0; n = workshop.next()) {
      for (let i = 0; i < n; i++) recorder.record(u32[(workshop.output >>> 2) + i]!);
    }
  }

  poll(): number {
    const replay = this.#replay;
    if (!replay || this.paused) return 0;
    const { u8, u32 } = this.#arena;
    let count = 0;
    while (count < BURST) {
      const bytes = replay.take();
      if (!bytes) break;
      const frame = this.#frames + count * FRAME.bytes;
      const fragment = this.#fragments + count * FRAGMENT.bytes;
      const data = this.#buffers + count * STRIDE;
      u8.set(bytes, data);
      u32.fill(0, frame >>> 2, (frame + FRAME.bytes) >>> 2);
      u32[fragment >>> 2] = data;
      u32[(fragment + 4) >>> 2] = bytes.length;
      u32[(frame + AT.fragments) >>> 2] = fragment;
      u32[(frame + AT.fragmentCount) >>> 2] = 1;
      u32[(frame + AT.length) >>> 2] = bytes.length;
      u32[(frame + AT.head) >>> 2] = data;
      u32[(frame + AT.source) >>> 2] = this.number;
      u32[(frame + AT.transaction) >>> 2] = NO_SECTION;
      count++;
    }
    this.#sent += count;
    if (count > 0) this.#sink.forward(this.#frames, count);
    return count;
  }

  tick(nowMs: number): void {
    this.#replay?.tick(nowMs);
    this.#recorder?.tick(nowMs);
  }

  fds(): readonly number[] {
    return [];
  }

  arm(): boolean {
    return this.paused || (this.#replay?.waiting ?? true);
  }

  /** Writes what waits and closes the files. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.linkUp = false;
    this.#replay?.close();
    this.#recorder?.close();
    this.#workshop?.release();
    this.#arena.release(this.#frames);
  }

  stats(): Record<string, number> {
    return {
      sent: this.#sent,
      skipped: this.#replay?.skipped ?? 0,
      recorded: this.#recorder?.packets ?? 0,
      recordedBytes: this.#recorder?.bytes ?? 0,
      notRecorded: this.#recorder?.dropped ?? 0,
      ...this.#workshop?.counters(),
    };
  }
}

function open<T>(path: string | undefined, make: (path: string) => T): T | undefined {
  if (path === undefined) return undefined;
  try {
    return make(path);
  } catch (error) {
    throw new PcapError(captureProblem(path, error));
  }
}
