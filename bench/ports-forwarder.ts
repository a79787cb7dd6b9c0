// A worker with two ports of the device API on interfaces of the kernel, and a loop that joins them, as testpmd's io mode.
import { parentPort, workerData } from 'node:worker_threads';
import { initEal } from '../src/drivers/platform.js';
import { RX_OFFLOAD } from '../src/ethdev/constants.js';
import { polling } from '../src/ethdev/lcore.js';
import { inNetwork } from '../src/memory/os/netns.js';

export interface PortsOrder {
  /** Devices with their arguments, and the process in whose namespace each one is made. */
  readonly vdevs: readonly { readonly device: string; readonly args: string; readonly netnsPid: number }[];
}

const BURST = 32;
const { vdevs } = workerData as PortsOrder;
const eal = await initEal(['-m', '128']);
const large =
  RX_OFFLOAD.TCP_CKSUM | RX_OFFLOAD.UDP_CKSUM | RX_OFFLOAD.TCP_LRO | RX_OFFLOAD.SCATTER | RX_OFFLOAD.VLAN_STRIP;
const pool = eal.createMempool('ports', { count: 16_384 });
for (const { device, args, netnsPid } of vdevs) {
  const port = await inNetwork(netnsPid, () => eal.addVdev(device, args));
  await port.configure({ rxQueues: 1, txQueues: 1, rxOffloads: large, txOffloads: port.info().txOffloads });
  port.setupRxQueue(0, { descriptors: 0, pool });
  port.setupTxQueue(0);
  await port.setPromiscuous(true);
  await port.start();
}
const { datapath, loop } = eal.main;
const handles = eal.main.reserve('burst', BURST * 4);
const rx = eal.ports.map((port) => port.rxQueue(0));
const tx = eal.ports.map((port) => port.txQueue(0));
const pass = (from: number) => {
  const n = rx[from]!.burst(handles, BURST);
  if (n === 0) return 0;
  const taken = tx[1 - from]!.burst(handles, n);
  if (taken < n) datapath.mbufFree(handles + taken * 4, n - taken);
  return n;
};
loop.add(polling(() => pass(0) + pass(1), rx));
loop.start();
parentPort!.on('message', async () => {
  await loop.stop();
  await eal.close();
  parentPort!.postMessage('closed');
  parentPort!.close();
});
parentPort!.postMessage('ready');
