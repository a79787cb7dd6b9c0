// The other end of a net_ring in a process of its own, for tests that kill it: `node testing-peer.js PATH`. Sends back what it
// receives. Prints a line once its port is started; ends with its standard input.
import { initEal } from '../platform.js';

const BURST = 32;
const [path = ''] = process.argv.slice(2);

const eal = await initEal(['-m', '16', '--vdev', `net_ring0,path=${path}`]);
const pool = eal.createMempool('mbufs', { count: 2048 });
const port = eal.port(0);
await port.configure({ rxQueues: 2, txQueues: 2 });
for (const queue of [0, 1]) {
  port.setupRxQueue(queue, { descriptors: 0, pool });
  port.setupTxQueue(queue);
}
await port.start();

const handles = eal.main.reserve('burst', BURST * 4);
const queues = [0, 1].map((queue) => ({ rx: port.rxQueue(queue), tx: port.txQueue(queue) }));
let ended = false;

eal.main.loop.add({
  step() {
    let count = 0;
    for (const { rx, tx } of queues) {
      const n = rx.burst(handles, BURST);
      const taken = tx.burst(handles, n);
      eal.main.datapath.mbufFree(handles + taken * 4, n - taken);
      count += n;
    }
    return count;
  },
  tick() {},
  arm: () => false,
  disarm() {},
  fds: () => [],
});
eal.main.loop.start();

process.stdin.on('end', () => {
  if (ended) return;
  ended = true;
  void eal.main.loop
    .stop()
    .then(() => eal.close())
    .then(() => process.exit());
});
process.stdin.resume();
process.stdout.write('ready\n');
