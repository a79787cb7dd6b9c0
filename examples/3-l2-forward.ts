// 3. Layer 2 forwarding: what one card receives the other one sends. Two LANs become one.
//
//   ./netvsc example l2-forward
//
// The cards are on VLANs that know nothing of each other. Behind one a station sends datagrams, behind the other one a
// station answers them.
import { initEal, type Port, polling } from 'netvsc';

const SECONDS = 4;
const BURST = 32;

const eal = await initEal(process.argv.slice(2));
const [left, right] = eal.ports;
if (!left || !right) throw new Error('expected two ports: --machine NAME, --root / or --vdev twice');
const pool = eal.createMempool('packets', { count: 8192 });
for (const port of [left, right]) {
  await port.configure({ rxQueues: 1, txQueues: 1 });
  port.setupRxQueue(0, { descriptors: 0, pool });
  port.setupTxQueue(0);
  // A bridge takes frames that are for others.
  await port.setPromiscuous(true);
  await port.start();
}

/** A burst function from one port to another. The mbufs are passed on: no byte is copied here. */
function forwarding(from: Port, to: Port): () => number {
  const burst = eal.main.reserve('burst', BURST * 4);
  const rx = from.rxQueue(0);
  const tx = to.txQueue(0);
  return () => {
    const count = rx.burst(burst, BURST);
    const sent = count === 0 ? 0 : tx.burst(burst, count);
    // What the queue had no room for is still ours: dropped, as a switch would.
    if (sent < count) eal.main.datapath.mbufFree(burst + sent * 4, count - sent);
    return count;
  };
}

setTimeout(() => eal.stopLcores(), SECONDS * 1000);
await eal.main.run(
  polling(forwarding(left, right), [left.rxQueue(0)]),
  polling(forwarding(right, left), [right.rxQueue(0)]),
);

for (const port of [left, right]) {
  const { ipackets, opackets, imissed } = port.stats();
  console.log(`port ${port.id}: ${ipackets} received, ${opackets} sent, ${imissed} missed`);
}
const answered = right.stats().ipackets > 0;
await eal.close();
process.exitCode = answered ? 0 : 1;
