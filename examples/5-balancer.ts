// 5. A load balancer: several threads, a queue each; the receive-side scaling hash chooses the server, so that the packets of
// a flow stay together and in order.
//
//   ./netvsc example balancer
//
// One card brings the packets of 64 TCP connections, the other one leads to four servers.
import { availableParallelism } from 'node:os';
import { isMainThread } from 'node:worker_threads';
import { initEal, type LcorePort, type LcoreThread, PACKET_FLAG, parseMac, polling, RSS_TYPE } from 'netvsc';

const SECONDS = 3;
const BURST = 32;
const SERVERS = [1, 2, 3, 4].map((n) => parseMac(`02:00:00:00:05:0${n}`)!);

/** A port as the control thread and the others have it. */
type Side = Pick<LcorePort, 'mac' | 'rxQueue' | 'txQueue'>;

/** Runs in every thread, on queues of its own. Returns how many packets each server got. */
async function balance(lcore: LcoreThread, front: Side, back: Side, queue: number): Promise<number[]> {
  const { arena, mbufs, datapath } = lcore;
  const { u8, u32 } = arena;
  const rx = front.rxQueue(queue);
  const tx = back.txQueue(queue);
  const source = parseMac(back.mac)!;
  const burst = lcore.reserve('burst', BURST * 4);
  const sentTo = SERVERS.map(() => 0);

  const step = (): number => {
    const count = rx.burst(burst, BURST);
    for (let i = 0; i < count; i++) {
      const mbuf = u32[burst / 4 + i]!;
      // The card has hashed addresses and ports. What is no IP packet has no hash: all of that goes to one server.
      const hash = (mbufs.flags(mbuf) & PACKET_FLAG.HASH) !== 0 ? mbufs.hash(mbuf) : 0;
      // Its low bits have chosen the queue already.
      const server = (hash >>> 16) % SERVERS.length;
      const at = mbufs.data(mbuf);
      u8.set(SERVERS[server]!, at);
      u8.set(source, at + 6);
      sentTo[server]! += 1;
    }
    const sent = count === 0 ? 0 : tx.burst(burst, count);
    if (sent < count) datapath.mbufFree(burst + sent * 4, count - sent);
    return count;
  };

  await lcore.run(polling(step, [rx]));
  return sentTo;
}

/** What the other threads run: each has its own view of memory and ports. */
export function worker(lcore: LcoreThread, { front, back }: { front: number; back: number }): Promise<number[]> {
  return balance(lcore, lcore.port(front), lcore.port(back), lcore.lcore);
}

async function main(): Promise<void> {
  const eal = await initEal(process.argv.slice(2));
  const [front, back] = eal.ports;
  if (!front || !back) throw new Error('expected two ports: --machine NAME, --root / or --vdev twice');
  // One queue for each thread: the control thread's and those of -l.
  const threads = 1 + eal.workers.length;
  const pool = eal.createMempool('packets', { count: 8192, cache: 256 });
  for (const port of [front, back]) {
    await port.configure({ rxQueues: threads, txQueues: threads, rss: { types: port.info().rssTypes } });
    for (let queue = 0; queue < threads; queue++) {
      port.setupRxQueue(queue, { descriptors: 0, pool });
      port.setupTxQueue(queue);
    }
    await port.start();
  }
  console.log(
    `${threads} of ${availableParallelism()} CPUs, hashed: ${(front.rss().types & RSS_TYPE.IPV4_TCP) !== 0 ? 'TCP connections' : 'addresses'}`,
  );

  // The same work in the other threads and in this one.
  const ids = { front: front.id, back: back.id };
  const others = eal.workers.map((lcore) => eal.launch(lcore, import.meta.url, 'worker', ids));
  setTimeout(() => eal.stopLcores(), SECONDS * 1000);
  const own = await balance(eal.main, front, back, 0);
  const counts = [own, ...((await Promise.all(others)) as number[][])];

  for (const [queue, sentTo] of counts.entries())
    console.log(`queue ${queue}: ${sentTo.join(' + ')} packets to the four servers`);
  const total = counts.flat().reduce((sum, count) => sum + count, 0);
  console.log(`${total} packets balanced, ${front.stats().imissed} missed`);
  await eal.close();
  process.exitCode = total > 0 ? 0 : 1;
}

if (isMainThread) await main();
