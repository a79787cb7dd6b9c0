// Heap bytes per packet of the ports of every driver, in a process of its own (allocation.test.ts): what each port receives, the
// next one sends. Prints one JSON line.
import { initEal } from '../../src/drivers/platform.js';
import { noNetworkReason, TestNetwork } from '../../src/memory/os/packet-peer-testing.js';
import { type AllocationResult, measure } from './allocation-measure.js';

const BURST = 32;
const FRAME = Uint8Array.from({ length: 60 }, (_, i) =>
  i < 6 ? 255 : i === 6 ? 2 : i === 12 ? 0x88 : i === 13 ? 0xb5 : 0,
);

/** `network`: where the devices' interfaces are, which `up` names. */
async function drivers(
  vdevs: readonly string[],
  network?: TestNetwork,
  up: readonly string[] = [],
): Promise<AllocationResult> {
  const eal = await initEal([]);
  for (const vdev of vdevs) {
    const [device, ...args] = vdev.split(',') as [string, ...string[]];
    const add = () => eal.addVdev(device, args.join(','));
    await (network ? network.in(add) : add());
  }
  const pool = eal.createMempool('packets', { count: 4096 });
  for (const port of eal.ports) {
    await port.configure({ rxQueues: 1, txQueues: 1 });
    port.setupRxQueue(0, { descriptors: 0, pool });
    port.setupTxQueue(0);
    await port.start();
  }
  for (const name of up) {
    network!.run(`ip link set ${name} up`);
    network!.waitFor(name);
  }
  const { datapath } = eal.main;
  const handles = eal.main.reserve('handles', BURST * 4);
  const rx = eal.ports.map((port) => port.rxQueue(0));
  const tx = eal.ports.map((port) => port.txQueue(0));
  const send = (to: number, count: number) => {
    const taken = tx[to]!.burst(handles, count);
    datapath.mbufFree(handles + taken * 4, count - taken);
    return taken;
  };
  // For those who give back what they got.
  for (let i = 0; i < BURST; i++) {
    const mbuf = eal.mbufs.allocate(pool);
    eal.mbufs.write(mbuf, FRAME);
    eal.arena.u32[(handles >>> 2) + i] = mbuf;
  }
  send(0, BURST);
  let sent = 0;
  const result = measure(
    vdevs.join(' '),
    () => sent,
    () => {
      for (let i = 0; i < rx.length; i++) sent += send((i + 1) % tx.length, rx[i]!.burst(handles, BURST));
    },
  );
  await eal.close();
  return result;
}

const results = [
  await drivers(['net_null0']),
  await drivers(['net_ring0']),
  await drivers(['net_ring0,peer=net_ring1', 'net_ring1']),
  await drivers(['net_null0', 'net_pcap0,tx_pcap=/dev/null']),
  await drivers(['net_null0', 'net_capture0,port=net_null0,file=/dev/null']),
  await drivers(['net_null0', 'net_impair0,port=net_null0,loss=0.1,duplicate=0.1,corrupt=0.1']),
  await drivers(['net_null0', 'net_impair0,port=net_null0,tx_reorder=0.1,rx_reorder=0.1,tx_delay_us=1,tx_jitter_us=1']),
];
if (noNetworkReason() === false) {
  const network = new TestNetwork();
  try {
    results.push(await drivers(['net_null0,size=60', 'net_tap0,iface=t0'], network, ['t0']));
    network.veth('v0', 'v1');
    results.push(await drivers(['net_null0,size=60', 'net_af_packet0,iface=v0'], network));
  } finally {
    network.close();
  }
}
process.stdout.write(`${JSON.stringify(results)}\n`);
