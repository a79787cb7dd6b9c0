// What tests run in another lcore's thread.
import type { LcoreThread } from '../../ethdev/lcore.js';

/** Receives `count` packets on queue 0: the number that each begins with. */
export function readNumbers(lcore: LcoreThread, { port, count }: { port: number; count: number }): number[] {
  const rx = lcore.port(port).rxQueue(0);
  const handles = lcore.reserve('burst', 32 * 4);
  const numbers: number[] = [];
  while (numbers.length < count) {
    const n = rx.burst(handles, Math.min(32, count - numbers.length));
    if (n === 0) break;
    for (let i = 0; i < n; i++) {
      const bytes = lcore.mbufs.read(lcore.arena.u32[(handles >>> 2) + i]!);
      numbers.push(new DataView(bytes.buffer).getUint32(0));
    }
    lcore.datapath.mbufFree(handles, n);
  }
  return numbers;
}
