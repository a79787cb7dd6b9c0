// net_pcap: capture files as a port's cables.
//   rx_pcap=FILE     packets are received from it, pcap or pcapng, any byte order and time unit; several times: one rx queue each
//   tx_pcap=FILE     packets sent are written to it, with times in nanoseconds, as pcapng where its name ends so, else as pcap; several
//                    times: one tx queue each. Made when the device is, mode 0600, written at stop and close, and about once a second
//   infinite_rx=1    rx files begin anew at their end
//   pace=N           packets are received N times as fast as they were recorded (1 = as recorded); default: as fast as can be
//   snaplen=BYTES    of each packet sent so many are written (262144)
//   keep_time=1      packets are written with the time that the mbuf has, if any (default: the time they are sent)
// Every start of the port begins at the beginning of the rx files; with RX_OFFLOAD.TIMESTAMP mbufs get the recorded time. Packets that are
// no Ethernet frames are left out, those that were cut off are received as they are. Without rx_pcap nothing is received, without
// tx_pcap packets sent are dropped.

import type { Driver } from '../../ethdev/driver.js';
import { PcapPort } from './port.js';
import { PcapRx, type PcapRxDescription } from './rx.js';
import { PcapTx, type PcapTxDescription } from './tx.js';

export const pcapDriver: Driver = {
  name: 'net_pcap',
  pairedQueues: false,
  probe: async (context, device, args) => new PcapPort(context, device, args),
  openRx: (lcore, description) => new PcapRx(lcore, description as PcapRxDescription),
  openTx: (lcore, description) => new PcapTx(lcore, description as PcapTxDescription),
};
