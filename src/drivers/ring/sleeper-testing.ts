// An lcore that sleeps until a packet comes, for tests.
import type { LcoreThread } from '../../ethdev/lcore.js';
import { PollSet } from '../../memory/os/poll.js';

const BURST = 32;
const SLEEP_MS = 100_000;

/** Sends back what comes on queue 0; before each sleep it adds 1 to the cell at `cells`. Ends when it is woken by nothing but the order. */
export async function sleepAndEcho(lcore: LcoreThread, { port, cells }: { port: number; cells: number }) {
  const rx = lcore.port(port).rxQueue(0);
  const tx = lcore.port(port).txQueue(0);
  const handles = lcore.reserve('burst', BURST * 4);
  const polls = new PollSet();
  for (const fd of rx.fds()) polls.add(fd);
  let sleeps = 0;
  while (lcore.running) {
    tx.burst(handles, rx.burst(handles, BURST));
    if (rx.arm()) {
      sleeps++;
      Atomics.add(lcore.arena.u32, cells >>> 2, 1);
      // In slices, so that the order to end is seen.
      for (let ms = 0; ms < SLEEP_MS && lcore.running && polls.wait(20) === 0; ms += 20);
    }
    rx.disarm();
  }
  polls.close();
  return { sleeps };
}
