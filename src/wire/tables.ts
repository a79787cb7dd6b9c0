// Every layout there is, for generators (constants of the data path, dissector, docs) and fuzzers.
import { BPF_MAP_TABLES } from './bpf-map.js';
import { BTF_TABLES } from './btf.js';
import { ELF_TABLES } from './elf.js';
import { ETHERNET_TABLES } from './ethernet.js';
import { IP_TABLES } from './ip.js';
import { NDIS_TABLES } from './ndis.js';
import { NDIS_OFFLOAD_TABLES } from './ndis-offload.js';
import { NDIS_RSS_TABLES } from './ndis-rss.js';
import { NVSP_TABLES } from './nvsp-messages.js';
import { PCAP_TABLES } from './pcap-classic.js';
import { PCAPNG_TABLES } from './pcapng.js';
import { PPI_TABLES } from './ppi.js';
import { RING_LINK_TABLES } from './ring-link.js';
import { RNDIS_TABLES } from './rndis-messages.js';
import type { AnyStruct } from './struct.js';
import { TCP_UDP_TABLES } from './tcp-udp.js';
import { VMBUS_TABLES } from './vmbus.js';
import { VMBUS_CONTROL_TABLES } from './vmbus-control.js';

/** Names are unique. */
export const TABLES: readonly AnyStruct[] = [
  ...VMBUS_TABLES,
  ...VMBUS_CONTROL_TABLES,
  ...NVSP_TABLES,
  ...RNDIS_TABLES,
  ...PPI_TABLES,
  ...NDIS_TABLES,
  ...NDIS_OFFLOAD_TABLES,
  ...NDIS_RSS_TABLES,
  ...ETHERNET_TABLES,
  ...IP_TABLES,
  ...TCP_UDP_TABLES,
  ...PCAP_TABLES,
  ...PCAPNG_TABLES,
  ...RING_LINK_TABLES,
  ...ELF_TABLES,
  ...BTF_TABLES,
  ...BPF_MAP_TABLES,
];
