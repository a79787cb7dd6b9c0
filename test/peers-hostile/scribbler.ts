// A thread that changes words of shared memory while the other side reads them, and puts the right ones back: what was
// checked may be something else when it is used. Works on the regions of the last message until it is told to stop.
import { parentPort, workerData } from 'node:worker_threads';

/** Cells that both threads see: 0 rest, 1 scribble, 2 quit; and how many words were changed. */
const [state, changed] = [0, 1];
const VALUES = [
  0, 1, 2, 6, 7, 8, 11, 12, 13, 34, 36, 44, 56, 200, 1514, 4096, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff,
];

interface Setup {
  readonly memory: WebAssembly.Memory;
  readonly cells: Int32Array;
  /** Where, and which words are right there. */
  readonly regions: readonly { readonly address: number; readonly words: Uint32Array }[];
}

function work({ memory, cells, regions }: Setup): void {
  const u32 = new Uint32Array(memory.buffer);
  let seed = 0x1234_5678;
  const next = () => {
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    seed ^= seed << 5;
    return seed >>> 0;
  };
  parentPort!.postMessage('ready');
  for (;;) {
    if (Atomics.load(cells, state) === 2) return;
    if (Atomics.load(cells, state) === 0) {
      Atomics.wait(cells, state, 0, 100);
      continue;
    }
    for (let i = 0; i < 64; i++) {
      const { address, words } = regions[next() % regions.length]!;
      const at = next() % words.length;
      const value = next() % 4 === 0 ? next() : VALUES[next() % VALUES.length]!;
      Atomics.store(u32, (address >>> 2) + at, value);
      for (let pause = next() % 200; pause > 0; pause--); // sometimes long enough to be read, sometimes not
      Atomics.store(u32, (address >>> 2) + at, words[at]!);
    }
    Atomics.add(cells, changed, 64);
  }
}

work(workerData as Setup);
