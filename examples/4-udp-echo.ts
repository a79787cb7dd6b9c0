// 4. A UDP echo: answers ARP for 10.0.0.1, and sends datagrams to port 7 back, in place.
//
//   ./netvsc example udp-echo
//
// A second card asks, as often as it can.
import { ETHER_TYPE, IP_PROTOCOL, initEal, PACKET_TYPE, parseIpv4, parseMac, polling, TX_OFFLOAD } from 'netvsc';

const SECONDS = 4;
const BURST = 32;
const ECHO_PORT = 7;
// Where things are in an Ethernet frame with an IPv4 header without options.
const ETHER_AT = 12;
const IP_AT = 14;
const UDP_AT = 34;
const ARP_BYTES = 42;

const eal = await initEal(process.argv.slice(2));
const [port] = eal.ports;
if (!port) throw new Error('expected a port: --machine NAME, --root / or --vdev net_tap0');
const pool = eal.createMempool('packets', { count: 8192 });
// The device fills in checksums, if it can. Swapping addresses and ports leaves them right, so nothing is asked for here.
const txOffloads = port.info().txOffloads & TX_OFFLOAD.UDP_CKSUM;
await port.configure({ rxQueues: 1, txQueues: 1, txOffloads });
port.setupRxQueue(0, { descriptors: 0, pool });
port.setupTxQueue(0);
await port.start();

const OWN_IP = parseIpv4('10.0.0.1')!;
const OWN_MAC = parseMac(port.mac)!;
const { mbufs, arena } = eal;
const { u8, u32 } = arena;
const burst = eal.main.reserve('burst', BURST * 4);
const rx = port.rxQueue(0);
const tx = port.txQueue(0);
let answered = 0;
let others = 0;

const get16 = (at: number) => (u8[at]! << 8) | u8[at + 1]!;
const isOwnIp = (at: number) => OWN_IP.every((byte, i) => u8[at + i] === byte);

/** Exchanges `bytes` bytes at two places. */
function swap(one: number, other: number, bytes: number): void {
  for (let i = 0; i < bytes; i++) {
    const kept = u8[one + i]!;
    u8[one + i] = u8[other + i]!;
    u8[other + i] = kept;
  }
}

/** Makes a packet the answer to it; false: it is no question for us. */
function answer(mbuf: number): boolean {
  const at = mbufs.data(mbuf);
  const bytes = mbufs.dataLength(mbuf);
  if (bytes < ARP_BYTES) return false;
  if (get16(at + ETHER_AT) === ETHER_TYPE.ARP) {
    const arp = at + IP_AT;
    if (get16(arp + 6) !== 1 || !isOwnIp(arp + 24)) return false;
    u8[arp + 7] = 2; // a reply
    swap(arp + 8, arp + 18, 10); // sender and target
    u8.set(OWN_MAC, arp + 8);
    swap(at, at + 6, 6);
    u8.set(OWN_MAC, at + 6);
    return true;
  }
  // The driver has looked: IPv4 without options, UDP, no fragment.
  const wanted = PACKET_TYPE.L3_IPV4 | PACKET_TYPE.L4_UDP;
  if ((mbufs.packetType(mbuf) & (PACKET_TYPE.L3_MASK | PACKET_TYPE.L4_MASK)) !== wanted) return false;
  if (u8[at + IP_AT + 9] !== IP_PROTOCOL.UDP || get16(at + UDP_AT + 2) !== ECHO_PORT || !isOwnIp(at + IP_AT + 16))
    return false;
  swap(at, at + 6, 6);
  swap(at + IP_AT + 12, at + IP_AT + 16, 4);
  swap(at + UDP_AT, at + UDP_AT + 2, 2);
  return true;
}

function step(): number {
  const count = rx.burst(burst, BURST);
  let answers = 0;
  for (let i = 0; i < count; i++) {
    const mbuf = u32[burst / 4 + i]!;
    // Answers move to the front of the list.
    if (answer(mbuf)) u32[burst / 4 + answers++] = mbuf;
    else {
      others++;
      mbufs.free(mbuf);
    }
  }
  const sent = answers === 0 ? 0 : tx.burst(burst, answers);
  if (sent < answers) eal.main.datapath.mbufFree(burst + sent * 4, answers - sent);
  answered += sent;
  return count;
}

console.log(`10.0.0.1 is at ${port.mac}`);
setTimeout(() => eal.stopLcores(), SECONDS * 1000);
await eal.main.run(polling(step, [rx]));
console.log(`${answered} answered, ${others} others`);
await eal.close();
process.exitCode = answered > 0 ? 0 : 1;
