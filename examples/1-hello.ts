// 1. Hello, port: bring a port up, send one packet, receive the answer.
//
//   ./netvsc example hello
//
// That starts a machine with one network card and a station at 10.0.0.1, and then this program with the words
// "--machine NAME". On a Hyper-V guest the words are "--root /" (docs/pmd.md).
import { ARP_OPERATION, Arp, ETHER_TYPE, EthernetHeader, initEal, MAC_BROADCAST } from 'netvsc';

const ASKED = '10.0.0.1';
const OWN = '10.0.0.100';
const BURST = 32;

// The environment: packet memory, threads, ports. Its words are those of DPDK programs.
const eal = await initEal(process.argv.slice(2));
const [port] = eal.ports;
if (!port) throw new Error('expected a port: --machine NAME, --root / or --vdev net_ring0');
const { driver, maxRxQueues } = port.info();
console.log(`port ${port.id} is ${port.device}`);
console.log(`driver ${driver}, address ${port.mac}, MTU ${port.mtu}, up to ${maxRxQueues} queues`);

// Packets live in mbufs, mbufs in pools.
const pool = eal.createMempool('packets', { count: 1024 });

// Every port goes through these steps, in this order.
await port.configure({ rxQueues: 1, txQueues: 1 });
port.setupRxQueue(0, { descriptors: 0, pool });
port.setupTxQueue(0);
await port.start();
console.log(`link ${port.link().up ? 'up' : 'down'}`);

// A burst is a list of mbufs in shared memory: room for 32 of them, 4 bytes each. An mbuf is a number, its handle.
const burst = eal.main.reserve('burst', BURST * 4);
const { mbufs, arena } = eal;
const handle = (i: number) => burst / 4 + i;

// Who has 10.0.0.1?
const question = mbufs.allocate(pool);
mbufs.write(
  question,
  EthernetHeader.encode({ destination: MAC_BROADCAST, source: port.mac, etherType: ETHER_TYPE.ARP }),
);
mbufs.write(
  question,
  Arp.encode({
    ...{ operation: ARP_OPERATION.REQUEST, senderMac: port.mac, senderIp: OWN },
    ...{ targetMac: '00:00:00:00:00:00', targetIp: ASKED },
  }),
);
arena.u32[handle(0)] = question;
// Whoever takes an mbuf owns it: the queue, if it says 1.
if (port.txQueue(0).burst(burst, 1) === 0) mbufs.free(question);

// Poll until the answer is there. Every mbuf that comes is ours, to send on or to free.
const rx = port.rxQueue(0);
let answer: string | undefined;
for (const end = Date.now() + 5000; answer === undefined && Date.now() < end; ) {
  const count = rx.burst(burst, BURST);
  for (let i = 0; i < count; i++) {
    const mbuf = arena.u32[handle(i)]!;
    const packet = mbufs.read(mbuf);
    mbufs.free(mbuf);
    if (EthernetHeader.decode(packet).etherType !== ETHER_TYPE.ARP) continue;
    const arp = Arp.decode(packet, EthernetHeader.size);
    if (arp.operation === ARP_OPERATION.REPLY && arp.senderIp === ASKED) answer = arp.senderMac;
  }
  await new Promise(setImmediate); // control code's turn
}
console.log(answer ? `${ASKED} is at ${answer}` : `${ASKED} did not answer`);

const { ipackets, opackets } = port.stats();
console.log(`${opackets} packet sent, ${ipackets} received`);
await eal.close();
process.exitCode = answer ? 0 : 1;
