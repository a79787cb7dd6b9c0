// Our guest as a port of the poll-mode API, net_netvsc. Arguments: folder of the batons, name of the machine, its path,
// device and its arguments as EAL option -a has them, number of queues each way, packets a call.
import { constants } from 'node:os';
import { initEal } from '../../src/drivers/platform.js';
import { affinity, setParentDeathSignal } from '../../src/memory/os/process.js';
import { Baton } from './baton.js';
import { work } from './work.js';

/** As the C guest's. */
const DESCRIPTORS = 1024;
const MBUFS = 8191;
const MBUF_CACHE = 256;

const [folder, name, path, device, ...numbers] = process.argv.slice(2) as [string, string, string, string, ...string[]];
const [queues, burst] = numbers.map(Number) as [number, number];
setParentDeathSignal(constants.signals.SIGKILL);
const baton = new Baton(folder, name, 'guest');
const eal = await initEal(['-l', String(affinity()[0]), '-m', '64', '--root', path, '-a', device]);
const pool = eal.createMempool('packets', { count: MBUFS, cache: MBUF_CACHE });
const port = eal.port(0);
await port.configure({ rxQueues: queues, txQueues: queues });
for (let queue = 0; queue < queues; queue++) {
  port.setupRxQueue(queue, { descriptors: DESCRIPTORS, pool });
  port.setupTxQueue(queue, { descriptors: DESCRIPTORS });
}
await port.start();
const rx = Array.from({ length: queues }, (_, queue) => port.rxQueue(queue));
const tx = Array.from({ length: queues }, (_, queue) => port.txQueue(queue));
let nextRx = 0;
let nextTx = 0;
const driver = {
  /** One thread polls all queues in turn. */
  receive(handles: number, max: number): number {
    const count = rx[nextRx]!.burst(handles, max);
    nextRx = nextRx + 1 < queues ? nextRx + 1 : 0;
    return count;
  },
  send(handles: number, count: number): number {
    const taken = tx[nextTx]!.burst(handles, count);
    nextTx = nextTx + 1 < queues ? nextTx + 1 : 0;
    return taken;
  },
  completesInReceive: false,
};
const { arena, main } = eal;
work({ arena, datapath: main.datapath, driver, baton, pool: pool.address, mac: port.mac, burst }, async () => {
  await eal.close();
  baton.close();
});
