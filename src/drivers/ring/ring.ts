// net_ring: ports in shared memory.
//   (no arguments)   a loop: what tx queue N sends is received on rx queue N, as with DPDK's net_ring
//   peer=net_ringM   two ports of this process, each the other's link partner; mbufs are passed on, not copied
// Of several tx queues to fewer rx queues, rx queue N gets those of tx queues N, N + rx queues, ... The link is up while the
// partner is started; packets that wait when a port stops are freed.

import type { Driver } from '../../ethdev/driver.js';
import { HandleRx, type HandleRxDescription, HandleTx, type HandleTxDescription } from './handle-queue.js';
import { LocalRingPort } from './local.js';

export const ringDriver: Driver = {
  name: 'net_ring',
  pairedQueues: false,
  probe: async (context, device, args) => new LocalRingPort(context, device, args, args.string('peer')),
  openRx: (lcore, description) => new HandleRx(lcore, description as HandleRxDescription),
  openTx: (lcore, description) => new HandleTx(lcore, description as HandleTxDescription),
};
