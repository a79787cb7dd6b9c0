// Counters of a device: those of the queues' memory, which is new at each attach, are summed up over all of them
// (facts/linux-guest.md 10.1 D5).
import { GUEST_QUEUE } from '../memory/layout.js';
import type { ControlPath } from './control.js';
import type { QueueMemory } from './queue.js';
import type { DriverCounters } from './types.js';

const QUEUE_COUNTERS = Object.entries(GUEST_QUEUE.types)
  .filter(([, type]) => type === 'u64')
  .map(([name]) => name);

export class Totals {
  readonly #sums = new Map<string, number>();
  /** By queue number. */
  readonly #queues: Record<string, number>[] = [];

  /** Adds the counters of an opening that ends. */
  absorb(queues: readonly QueueMemory[], control: ControlPath): void {
    for (const [number, { channel }] of queues.entries()) {
      this.#queues[number] = this.queue(number, channel.counters());
    }
    for (const [name, value] of Object.entries(openingCounters(queues, control))) {
      this.#sums.set(name, (this.#sums.get(name) ?? 0) + value);
    }
  }

  /** Counters of one queue over all openings; `now` are those of the present one. */
  queue(number: number, now: Readonly<Record<string, number>>): Record<string, number> {
    const before = this.#queues[number];
    return Object.fromEntries(QUEUE_COUNTERS.map((name) => [name, (before?.[name] ?? 0) + (now[name] ?? 0)]));
  }

  /** Everything by name: queue counters, request counters, the driver's own, and what is in use right now. */
  report(
    driver: DriverCounters,
    open: { readonly queues: readonly QueueMemory[]; readonly control: ControlPath } | undefined,
  ): Record<string, number> {
    const now = open ? openingCounters(open.queues, open.control) : {};
    const all: Record<string, number> = {};
    for (const name of [...QUEUE_COUNTERS, ...CONTROL_COUNTERS]) {
      all[name] = (this.#sums.get(name) ?? 0) + (now[name] ?? 0);
    }
    Object.assign(all, driver);
    const queues = open?.queues ?? [];
    all.txOutstanding = queues.reduce((sum, queue) => sum + queue.outstanding, 0);
    all.txFreeSections = queues.reduce((sum, queue) => sum + queue.get('freeSectionCount'), 0);
    all.requestsWaiting = open ? open.control.nvsp.waiting + open.control.rndis.waiting : 0;
    return all;
  }
}

const CONTROL_COUNTERS = ['requestTimeouts', 'unexpectedReplies', 'mismatchedReplies', 'answersDropped'] as const;

function openingCounters(queues: readonly QueueMemory[], control: ControlPath): Record<string, number> {
  const { nvsp, rndis } = control;
  const sums: Record<string, number> = {};
  for (const { channel } of queues) {
    for (const [name, value] of Object.entries(channel.counters())) sums[name] = (sums[name] ?? 0) + value;
  }
  return {
    ...sums,
    requestTimeouts: nvsp.timeouts + rndis.timeouts,
    unexpectedReplies: nvsp.unexpected + rndis.unexpected,
    mismatchedReplies: nvsp.mismatched + rndis.mismatched,
    answersDropped: control.answersDropped,
  };
}
