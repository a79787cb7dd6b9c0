// What tests run in another lcore's thread.
import type { LcoreThread } from '../ethdev/lcore.js';

/** Moves `bursts` bursts from rx to tx of queue `queue`. Runs in any thread. */
export function forward(lcore: LcoreThread, { queue, bursts }: { queue: number; bursts: number }): number {
  const port = lcore.port(0);
  const rx = port.rxQueue(queue);
  const tx = port.txQueue(queue);
  const handles = lcore.reserve('burst', 32 * 4);
  let moved = 0;
  for (let i = 0; i < bursts && lcore.running; i++) moved += tx.burst(handles, rx.burst(handles, 32));
  return moved;
}
