// Every driver of the device API. Other threads import this module by its URL.
import type { Driver } from '../ethdev/driver.js';
import { afPacketDriver } from './af_packet/af-packet.js';
import { captureDriver } from './capture/capture.js';
import { impairDriver } from './impair/impair.js';
import { netvscDriver } from './netvsc/netvsc.js';
import { nullDriver } from './null/null.js';
import { pcapDriver } from './pcap/pcap.js';
import { ringDriver } from './ring/ring.js';
import { tapDriver } from './tap/tap.js';

/** A name that begins another one's stands behind it. */
export const drivers: readonly Driver[] = [
  afPacketDriver,
  captureDriver,
  impairDriver,
  netvscDriver,
  nullDriver,
  pcapDriver,
  ringDriver,
  tapDriver,
];
