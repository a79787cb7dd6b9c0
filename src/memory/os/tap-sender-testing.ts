// For tests: a worker that sends numbered frames to a TAP while another thread reads them, at most `window` ahead of it.
import { workerData } from 'node:worker_threads';
import { sendFrame, type TestTap } from './tap-testing.js';

const { tap, cells, count, type, window } = workerData as {
  tap: TestTap;
  /** [1] = frames that the reader has got. */
  cells: Int32Array;
  count: number;
  type: number;
  window: number;
};
const frame = new Uint8Array(64);
for (let n = 0; n < count; n++) {
  for (let got = Atomics.load(cells, 1); n - got >= window; got = Atomics.load(cells, 1))
    Atomics.wait(cells, 1, got, 100);
  frame.set([0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, type >> 8, type & 0xff, n >> 8, n & 0xff]);
  sendFrame(tap, frame);
}
