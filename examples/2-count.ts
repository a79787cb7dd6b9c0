// 2. Count by protocol: receive everything, and read what the driver found out about each packet.
//
//   ./netvsc example count
//
// The traffic is that of docs/captures/demo.pcap, sent again and again by a second card.
import { initEal, namesOf, PACKET_TYPE, polling } from 'netvsc';

const SECONDS = 3;
const BURST = 32;

const eal = await initEal(process.argv.slice(2));
const [port] = eal.ports;
if (!port) throw new Error('expected a port: --machine NAME, --root / or --vdev net_ring0');
const pool = eal.createMempool('packets', { count: 4096 });
await port.configure({ rxQueues: 1, txQueues: 1 });
port.setupRxQueue(0, { descriptors: 0, pool });
port.setupTxQueue(0);
// Packets for other stations, too.
await port.setPromiscuous(true);
await port.start();

// Two counters for each packet type: a driver's look at layers 2 to 4 is one number of 12 bits.
const packets = new Float64Array(1 << 12);
const bytes = new Float64Array(1 << 12);

const burst = eal.main.reserve('burst', BURST * 4);
const rx = port.rxQueue(0);
const { mbufs, arena } = eal;

/** One burst. Nothing is allocated here: that is what makes it fast. */
function step(): number {
  const count = rx.burst(burst, BURST);
  for (let i = 0; i < count; i++) {
    const mbuf = arena.u32[burst / 4 + i]!;
    const type = mbufs.packetType(mbuf) & 0xfff;
    packets[type]! += 1;
    bytes[type]! += mbufs.packetLength(mbuf);
  }
  // All mbufs of the burst at once.
  eal.main.datapath.mbufFree(burst, count);
  return count;
}

// The loop polls while packets come, and sleeps when none do: the queue is given so that a packet wakes it.
setTimeout(() => eal.stopLcores(), SECONDS * 1000);
await eal.main.run(polling(step, [rx]));

/** "L2_ETHER L3_IPV4 L4_UDP". A value of a layer may contain the bits of another one: the exact one is wanted. */
function typeText(type: number): string {
  const layers = [PACKET_TYPE.L2_MASK, PACKET_TYPE.L3_MASK, PACKET_TYPE.L4_MASK];
  const names = layers.flatMap((mask) => {
    const exact = Object.entries(PACKET_TYPE).filter(
      ([name, value]) => value === (type & mask) && !name.endsWith('MASK'),
    );
    return namesOf(Object.fromEntries(exact), type & mask);
  });
  return names.join(' ') || 'unknown';
}

let total = 0;
for (let type = 0; type < packets.length; type++) {
  if (packets[type] === 0) continue;
  total += packets[type]!;
  console.log(
    `${typeText(type).padEnd(34)} ${String(packets[type]).padStart(9)} packets ${String(bytes[type]).padStart(12)} bytes`,
  );
}
console.log(`${total} packets in ${SECONDS} seconds, ${port.stats().imissed} missed`);
await eal.close();
process.exitCode = total > 0 ? 0 : 1;
