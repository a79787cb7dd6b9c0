// Sends that a host does not complete: what a kernel's transmit watchdog looks for (facts/linux-guest.md 10.1 D14). It only tells;
// the sends stay the host's, which may still read them.
import type { QueueMemory } from './queue.js';

/** How long a host may complete nothing while sends are in flight. */
export const SEND_TIMEOUT_MS = 5000;
/** Looks within one timeout. */
const LOOKS = 8;

interface Watched {
  /** Low halves of the counters of sends that ended. */
  ended: number;
  sinceMs: number;
  told: boolean;
}

export class SendWatchdog {
  readonly #limitMs: number;
  readonly #watched: Watched[] = [];
  #nextMs = Number.NEGATIVE_INFINITY;

  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** Calls `stuck` once for each time that a queue stands still for so long. */
  tick(
    nowMs: number,
    queues: readonly QueueMemory[],
    stuck: (queue: number, outstanding: number, ms: number) => void,
  ): void {
    if (nowMs < this.#nextMs) return;
    this.#nextMs = nowMs + this.#limitMs / LOOKS;
    for (const [number, queue] of queues.entries()) {
      const { outstanding } = queue;
      const ended = (queue.get('txCompleted') + queue.get('txFailed')) >>> 0;
      const before = this.#watched[number];
      if (before === undefined || outstanding === 0 || ended !== before.ended) {
        this.#watched[number] = { ended, sinceMs: nowMs, told: false };
      } else if (!before.told && nowMs - before.sinceMs >= this.#limitMs) {
        before.told = true;
        stuck(number, outstanding, Math.round(nowMs - before.sinceMs));
      }
    }
  }
}
