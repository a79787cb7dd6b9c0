// The other side of an example, a process of its own: asks a station, sends a capture again and again, or packets of many
// TCP connections. Ends at SIGTERM with its counters as JSON on stdout.
//   node traffic.js KIND MACHINE UUID [MAC of the receiver]
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { initEal } from '../../drivers/platform.js';
import type { Port } from '../../ethdev/port.js';
import { internetChecksum, transportChecksum } from '../../wire/checksum.js';
import { ETHER_TYPE, EthernetHeader } from '../../wire/ethernet.js';
import { IP_PROTOCOL, Ipv4Header } from '../../wire/ip.js';
import { readCapture } from '../../wire/pcap.js';
import { TCP_FLAG, TcpHeader } from '../../wire/tcp-udp.js';
import { runGuest } from '../guest/guest.js';
import { packageRoot } from '../package-info.js';
import { ASKER_IP, STATION_IP } from './scenes.js';

/** Packets a second: enough to see something, little enough for a machine with one CPU. */
const RATE = 20_000;
const TICK_MS = 1;
const BURST = 32;
const FLOWS = 64;
const CAPTURE = 'docs/captures/demo.pcap';
/** Packets in flight, and those that wait. */
const MBUFS = 4096;

type Counters = Readonly<Record<string, number>>;

async function ask(machine: string, uuid: string): Promise<Counters> {
  const traffic = { mode: 'generate', address: ASKER_IP, target: STATION_IP, rate: RATE } as const;
  const { stats } = await runGuest({ machine, nic: uuid, traffic, reattach: false }, () => {});
  return { sent: stats.sent ?? 0, received: stats.received ?? 0 };
}

const IP = EthernetHeader.size;
const TCP = IP + Ipv4Header.size;
const PAYLOAD = 100;

/** A segment of connection `flow` to a web server. */
function segment(flow: number, destination: string, source: string): Uint8Array {
  const bytes = new Uint8Array(TCP + TcpHeader.size + PAYLOAD);
  EthernetHeader.encodeInto({ destination, source, etherType: ETHER_TYPE.IPV4 }, bytes);
  const ip = {
    ...{ versionHeaderLength: 0x45, totalLength: bytes.length - IP, timeToLive: 64, protocol: IP_PROTOCOL.TCP },
    ...{ source: `198.18.0.${flow + 1}`, destination: '198.19.0.1' },
  };
  Ipv4Header.encodeInto(ip, bytes, IP);
  Ipv4Header.encodeInto({ ...ip, headerChecksum: internetChecksum(bytes, IP, Ipv4Header.size) }, bytes, IP);
  const tcp = {
    ...{ sourcePort: 49_152 + flow, destinationPort: 80, sequence: 1, acknowledgment: 1, dataOffset: 0x50 },
    ...{ flags: TCP_FLAG.ACK | TCP_FLAG.PSH, window: 65_535 },
  };
  TcpHeader.encodeInto(tcp, bytes, TCP);
  const checksum = transportChecksum(bytes, IP, IP_PROTOCOL.TCP, TCP);
  TcpHeader.encodeInto({ ...tcp, checksum }, bytes, TCP);
  return bytes;
}

function frames(kind: string, port: Port, receiver: string): Uint8Array[] {
  if (kind === 'flows') return Array.from({ length: FLOWS }, (_, flow) => segment(flow, receiver, port.mac));
  const capture = readCapture(readFileSync(path.join(packageRoot(), CAPTURE)));
  return capture.map(({ data }) => data).filter(({ length }) => length <= port.mtu + EthernetHeader.size);
}

/** Sends the frames in turn at RATE until `ended`. */
async function send(
  kind: string,
  machine: string,
  uuid: string,
  receiver: string,
  ended: Promise<void>,
): Promise<Counters> {
  const eal = await initEal(['--machine', machine, '-a', `vmbus:${uuid}`, '-m', '16']);
  const [port] = eal.ports as [Port];
  const pool = eal.createMempool('packets', { count: MBUFS });
  await port.configure({ rxQueues: 1, txQueues: 1 });
  port.setupRxQueue(0, { descriptors: 0, pool });
  port.setupTxQueue(0);
  await port.start();
  const { mbufs, arena } = eal;
  const list = frames(kind, port, receiver);
  const burst = eal.main.reserve('burst', BURST * 4);
  const tx = port.txQueue(0);
  const began = performance.now();
  let next = 0;
  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - began) / 1000) * RATE);
    while (next < due) {
      let count = 0;
      for (; count < Math.min(BURST, due - next); count++) {
        const mbuf = mbufs.allocate(pool);
        if (mbuf === 0) break;
        mbufs.write(mbuf, list[(next + count) % list.length]!);
        arena.u32[(burst >>> 2) + count] = mbuf;
      }
      const sent = count === 0 ? 0 : tx.burst(burst, count);
      if (sent < count) eal.main.datapath.mbufFree(burst + sent * 4, count - sent);
      next += Math.max(1, count);
    }
  }, TICK_MS);
  await ended;
  clearInterval(timer);
  const { opackets } = port.stats();
  await eal.close();
  return { sent: opackets };
}

const [kind = '', machine = '', uuid = '', receiver = ''] = process.argv.slice(2);
const ended = new Promise<void>((resolve) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve());
});
const counters = kind === 'ask' ? await ask(machine, uuid) : await send(kind, machine, uuid, receiver, ended);
process.stdout.write(`${JSON.stringify(counters)}\n`);
