// The counters that every port has, under the names and in the order of DPDK (facts/dpdk.md 6.3).
import type { BasicStats, QueueStats } from './types.js';

/** Names and values; `of` gives a queue's counters where the driver has them. */
export function genericXstats(
  stats: BasicStats,
  queues: { readonly rx: number; readonly tx: number },
  of: (queue: number) => QueueStats | undefined,
): [name: string, value: number][] {
  const list: [string, number][] = [
    ['rx_good_packets', stats.ipackets],
    ['tx_good_packets', stats.opackets],
    ['rx_good_bytes', stats.ibytes],
    ['tx_good_bytes', stats.obytes],
    ['rx_missed_errors', stats.imissed],
    ['rx_errors', stats.ierrors],
    ['tx_errors', stats.oerrors],
    ['rx_mbuf_allocation_errors', stats.rxNombuf],
  ];
  for (let queue = 0; queue < queues.rx; queue++) {
    const { packets = 0, bytes = 0, errors = 0 } = of(queue)?.rx ?? {};
    list.push([`rx_q${queue}_packets`, packets], [`rx_q${queue}_bytes`, bytes], [`rx_q${queue}_errors`, errors]);
  }
  for (let queue = 0; queue < queues.tx; queue++) {
    const { packets = 0, bytes = 0 } = of(queue)?.tx ?? {};
    list.push([`tx_q${queue}_packets`, packets], [`tx_q${queue}_bytes`, bytes]);
  }
  return list;
}
