// net_ring: ports in shared memory.
//   (no arguments)   a loop: what tx queue N sends is received on rx queue N, as with DPDK's net_ring
//   peer=net_ringM   two ports of this process, each the other's link partner; mbufs are passed on, not copied
//   path=NAME        two processes of one user: a port in each of them, given the same name (of a socket in the run directory) or the same
//                    path of a socket. Whoever comes first waits for the other; frames are copied, with VLAN tag and hash.
// Of several tx queues to fewer rx queues, rx queue N gets those of tx queues N, N + rx queues, ... The link is up while the
// partner is started; packets that wait when a port stops are dropped. When a peer process ends the link goes down until another one comes.

import type { Driver } from '../../ethdev/driver.js';
import { PortError } from '../../ethdev/errors.js';
import { HandleRx, type HandleRxDescription, HandleTx, type HandleTxDescription } from './handle-queue.js';
import { LocalRingPort } from './local.js';
import { SharedRingPort } from './shared.js';
import { SharedRx, type SharedRxDescription, SharedTx, type SharedTxDescription } from './shared-queue.js';

type RxDescription = HandleRxDescription | SharedRxDescription;
type TxDescription = HandleTxDescription | SharedTxDescription;

export const ringDriver: Driver = {
  name: 'net_ring',
  pairedQueues: false,
  async probe(context, device, args) {
    const peer = args.string('peer');
    const path = args.string('path');
    if (peer !== undefined && path !== undefined)
      throw new PortError('EINVAL', device, 'peer and path: expected one of both');
    return path === undefined
      ? new LocalRingPort(context, device, args, peer)
      : new SharedRingPort(context, device, args, path);
  },
  openRx(lcore, description) {
    const setup = description as RxDescription;
    return setup.kind === 'shared' ? new SharedRx(lcore, setup) : new HandleRx(lcore, setup);
  },
  openTx(lcore, description) {
    const setup = description as TxDescription;
    return setup.kind === 'shared' ? new SharedTx(lcore, setup) : new HandleTx(lcore, setup);
  },
};
