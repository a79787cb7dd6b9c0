// Receive-side scaling of one NIC: hashes the frames for the guest, spreads them over its channels and delivers each
// channel's in one go. Frames of a flow have one hash, thus one channel, and keep their order.
import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import { FRAME, HEAD_BYTES, PACKET_FLAG } from '../memory/layout.js';
import { ReceiveSideScaling } from '../offload/rss.js';
import { NDIS_HASH_FUNCTION_TOEPLITZ } from '../wire/ndis.js';
import type { RssState } from './offload-config.js';

/** Frames of one round: as many as a FrameWorkshop hands over. */
const FRAMES = 2048;
const MAX_CHANNELS = 64;
const AT = FRAME.at;
const TOEPLITZ = NDIS_HASH_FUNCTION_TOEPLITZ;

export class ReceiveSpread {
  /** Frames for channels that are dead. */
  lost = 0;
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #scaling: ReceiveSideScaling;
  readonly #list: number;
  readonly #which = new Uint8Array(FRAMES);
  readonly #starts = new Uint32Array(MAX_CHANNELS + 1);
  readonly #ends = new Uint32Array(MAX_CHANNELS);
  #on = false;

  constructor(arena: Arena, datapath: Datapath) {
    this.#arena = arena;
    this.#datapath = datapath;
    this.#list = arena.reserve('receive spread', FRAMES * 4);
    try {
      this.#scaling = new ReceiveSideScaling(arena, datapath);
    } catch (error) {
      arena.release(this.#list);
      throw error;
    }
  }

  /** Scaling is on. */
  get on(): boolean {
    return this.#on;
  }

  /**
   * Takes what the guest set. `channels`: how many there are. Returns the numbers of those that receive: the distinct ones
   * of the table that exist, else all (facts/hyper-v-host.md 5), and the primary alone when scaling is off.
   */
  configure(rss: RssState | undefined, channels: number): readonly number[] {
    this.#on = rss !== undefined;
    if (!rss) return [0];
    let active = [...new Set(rss.table)].filter((number) => number < channels).sort((a, b) => a - b);
    if (active.length === 0) active = Array.from({ length: channels }, (_, number) => number);
    const table = rss.table.map((number) => (active.includes(number) ? number : active[number % active.length]!));
    this.#scaling.configure(rss.key, rss.hashInformation, table);
    return active;
  }

  /** Delivers `count` frames (u32 array of FRAME addresses); `channels` are HOST_CHANNEL addresses by channel number, 0 where
   *  the channel is dead. */
  send(frames: number, count: number, channels: readonly number[]): void {
    if (!this.#on) {
      this.#deliver(channels[0]!, frames, count);
      return;
    }
    const { u32 } = this.#arena;
    const list = frames >>> 2;
    this.#starts.fill(0);
    for (let i = 0; i < count; i++) {
      const frame = u32[list + i]!;
      const bytes = u32[(frame + AT.length) >>> 2]!;
      const hash = this.#scaling.signedHash(u32[(frame + AT.head) >>> 2]!, Math.min(bytes, HEAD_BYTES));
      // Other ports may have the same FRAME: the mark goes again below.
      if (this.#scaling.type !== 0) {
        u32[(frame + AT.hash) >>> 2] = hash;
        u32[(frame + AT.hashInfo) >>> 2] = this.#scaling.type | TOEPLITZ;
        u32[(frame + AT.flags) >>> 2]! |= PACKET_FLAG.HASH;
      }
      const number = this.#scaling.channel(hash);
      this.#which[i] = number;
      this.#starts[number + 1]!++;
    }
    for (let number = 0; number < channels.length; number++) {
      this.#starts[number + 1]! += this.#starts[number]!;
      this.#ends[number] = this.#starts[number]!;
    }
    const sorted = this.#list >>> 2;
    for (let i = 0; i < count; i++) u32[sorted + this.#ends[this.#which[i]!]!++] = u32[list + i]!;
    for (let number = 0; number < channels.length; number++) {
      const first = this.#starts[number]!;
      const taken = this.#ends[number]! - first;
      if (taken > 0) this.#deliver(channels[number]!, this.#list + 4 * first, taken);
    }
    for (let i = 0; i < count; i++) u32[(u32[list + i]! + AT.flags) >>> 2]! &= ~PACKET_FLAG.HASH;
  }

  release(): void {
    this.#scaling.close();
    this.#arena.release(this.#list);
  }

  #deliver(channel: number, frames: number, count: number): void {
    if (channel === 0) this.lost += count;
    else this.#datapath.hostSend(channel, frames, count);
  }
}
