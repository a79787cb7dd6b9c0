// One channel's trigger in the monitor page. A guest that has no hypercall sets its bit instead, and the host looks for it
// as often as the channel's latency says (facts/hyper-v-host.md 2.4).
import type { Arena } from '../../memory/arena.js';
import { MonitorPage } from '../../wire/vmbus.js';

/** Ids of the page's 4 trigger words. */
export const MONITOR_IDS = 128;
/** What `monitor_id` says when there is none. */
export const MONITOR_NONE = 255;
const IDS_PER_WORD = 32;
/** Bytes from one trigger word to the next; every other word says what is armed. */
const WORD_STRIDE = 8;
/** Latencies are in units of 100 ns. */
const UNITS_PER_MS = 10_000;
/** For guests that set none. */
const DEFAULT_MS = 0.1;

export class MonitorTrigger {
  readonly #arena: Arena;
  /** Indices into the arena's 32-bit and 16-bit words. */
  readonly #pending: number;
  readonly #latency: number;
  readonly #bit: number;

  /** `page`: arena address of the monitor page; `id` below MONITOR_IDS. */
  constructor(arena: Arena, page: number, id: number) {
    const { pending0, latency } = MonitorPage.offset;
    this.#arena = arena;
    this.#pending = (page + pending0 + Math.floor(id / IDS_PER_WORD) * WORD_STRIDE) >>> 2;
    this.#latency = (page + latency + id * 2) >>> 1;
    this.#bit = 1 << (id % IDS_PER_WORD);
  }

  /** How often the guest wants its trigger looked at. 0 says nothing, and so is ignored. */
  get latencyMs(): number {
    const units = this.#arena.u16[this.#latency]!;
    return units === 0 ? DEFAULT_MS : units / UNITS_PER_MS;
  }

  /** Takes the trigger back; true when it was set. */
  take(): boolean {
    const { u32 } = this.#arena;
    if ((u32[this.#pending]! & this.#bit) === 0) return false;
    Atomics.and(u32, this.#pending, ~this.#bit);
    return true;
  }

  /** As a channel finds it that has just been opened. */
  reset(): void {
    this.take();
    this.#arena.u16[this.#latency] = 0;
  }
}
