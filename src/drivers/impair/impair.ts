// net_impair: a port around another one that loses, delays, reorders, duplicates and corrupts packets. The same packets with the same seed
// are treated the same, queue by queue.
//   port=NAME          the port, by device name or number; it cannot be used by itself meanwhile
//   loss=P             probability 0 to 1 that a packet is lost
//   duplicate=P        that it comes twice (the second one is a copy)
//   corrupt=P          that one bit of it is turned (checksums that the device was to fill in are filled in before)
//   reorder=P          that 1 to 4 packets that come after it go on before it (10 ms at most)
//   delay_us=N         each packet goes on so much later, at most jitter_us=N more or less; the order stays
//   limit=N            packets that may be held in each queue and direction (1024; a power of two or the next one); more are dropped
//   seed=N             (1)
// Each of them with rx_ or tx_ in front for one direction alone (rx_loss=0.1), seed and limit excepted. Basic statistics are the
// device's: what is lost after it was received counts there. What was done is in the extended ones (net_impair0_rx_lost, ...). Held packets that
// are to be sent go out with the next rx or tx burst on their queue number, else within about a millisecond; what is held when the port stops
// is dropped. While anything is held an rx queue does not sleep.

import type { Driver } from '../../ethdev/driver.js';
import { wrapping } from '../wrapped-port.js';
import { type ImpairDescription, ImpairRx, wayOut } from './bursts.js';
import { ImpairPort } from './port.js';

export const impairDriver: Driver = wrapping({
  name: 'net_impair',
  probe: async (context, device, args) => new ImpairPort(context, device, args),
  openRx: (lcore, description) => new ImpairRx(lcore, description as ImpairDescription),
  openTx: (lcore, description) => wayOut(lcore, description as ImpairDescription),
});
