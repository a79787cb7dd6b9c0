// How both ports of an interface are configured.
import { RX_OFFLOAD, TX_OFFLOAD } from '../ethdev/constants.js';
import type { Port } from '../ethdev/port.js';
import type { Buffers } from './buffers.js';
import type { FeatureSettings } from './features.js';

/** hv_netvsc's table of channels (facts/linux-guest.md 1.1). */
export const QUEUES_MAX = 64;

/** Queue pairs that a device can have. */
export function mostQueues(device: Port): number {
  const { maxRxQueues, maxTxQueues } = device.info();
  return Math.min(maxRxQueues, maxTxQueues, QUEUES_MAX);
}

/** Queues are to be set up afterwards. Throws PortError; the old configuration stays. */
export async function configureDevice(device: Port, queues: number, features: FeatureSettings): Promise<void> {
  const { rxOffloads, txOffloads } = features;
  await device.configure({ rxQueues: queues, txQueues: queues, packetTypes: false, rxOffloads, txOffloads });
}

export function setupDevice(device: Port, buffers: Buffers): void {
  const pool = buffers.receive(device.mtu);
  for (let queue = 0; queue < device.config!.rxQueues; queue++) {
    // In one piece coalesced packets go on to the kernel as they are; a chain costs an mbuf and a piece to write for each segment.
    device.setupRxQueue(queue, { descriptors: 0, pool, largePool: buffers.large });
    device.setupTxQueue(queue);
  }
}

/** For as many queues as there may ever be, of which the kernel uses `queues`: another number of them must not stop it. */
export async function configureTap(tap: Port, device: Port, queues: number, buffers: Buffers): Promise<void> {
  const most = Math.min(mostQueues(device), tap.info().maxRxQueues);
  const tags = (device.config!.txOffloads & TX_OFFLOAD.VLAN_INSERT) !== 0;
  const { VLAN_STRIP, UDP_CKSUM, TCP_CKSUM, TCP_LRO } = RX_OFFLOAD;
  const { VLAN_INSERT, TCP_TSO, MULTI_SEGS } = TX_OFFLOAD;
  tap.kernel!.setQueues(queues);
  await tap.configure({
    ...{ rxQueues: most, txQueues: most },
    rxOffloads: TCP_CKSUM | UDP_CKSUM | TCP_LRO | (tags ? VLAN_STRIP : 0),
    txOffloads: VLAN_INSERT | TX_OFFLOAD.TCP_CKSUM | TX_OFFLOAD.UDP_CKSUM | TCP_TSO | MULTI_SEGS,
  });
  for (let queue = 0; queue < most; queue++) {
    tap.setupRxQueue(queue, { descriptors: 0, pool: buffers.large });
    tap.setupTxQueue(queue);
  }
}
