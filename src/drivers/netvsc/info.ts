// What a netvsc port can do, from what its host said at attach (facts/dpdk.md 2.4 and 2.5), and the words of the device API in
// those of NDIS.
import { RSS_TYPE, RX_OFFLOAD, TX_OFFLOAD } from '../../ethdev/constants.js';
import type { PortInfo, PortOffloads } from '../../ethdev/types.js';
import { OFFLOAD } from '../../memory/layout.js';
import { MAX_QUEUES } from '../../netvsc/scaling.js';
import { MAX_MTU, MIN_MTU, maxMtu, type NetvscInfo } from '../../netvsc/types.js';
import { readOptionalAttribute } from '../../vmbus/uio/attributes.js';
import { NDIS_HASH_TYPE, NDIS_RSS_CAPABILITY, NDIS_RSS_KEY_BYTES } from '../../wire/ndis.js';
import { NVSP_VERSION, nvspVersionName } from '../../wire/nvsp.js';

const TABLE_ENTRIES = 128;
const MAX_SEGMENTS = 64;
/** Unicast addresses besides the first, and multicast addresses, of the software filters. */
export const EXTRA_MACS = 63;
export const GROUPS = 256;

/** Offloads of the device API and all the host's bits that each needs. */
const RX: readonly (readonly [port: number, host: number])[] = [
  [RX_OFFLOAD.IPV4_CKSUM, OFFLOAD.IPV4_HEADER_RX],
  [RX_OFFLOAD.TCP_CKSUM, OFFLOAD.TCP4_RX | OFFLOAD.TCP6_RX],
  [RX_OFFLOAD.UDP_CKSUM, OFFLOAD.UDP4_RX | OFFLOAD.UDP6_RX],
  [RX_OFFLOAD.TCP_LRO, OFFLOAD.RSC],
];
const TX: readonly (readonly [port: number, host: number])[] = [
  [TX_OFFLOAD.VLAN_INSERT, OFFLOAD.VLAN],
  [TX_OFFLOAD.IPV4_CKSUM, OFFLOAD.IPV4_HEADER_TX],
  [TX_OFFLOAD.TCP_CKSUM, OFFLOAD.TCP4_TX | OFFLOAD.TCP6_TX],
  [TX_OFFLOAD.UDP_CKSUM, OFFLOAD.UDP4_TX | OFFLOAD.UDP6_TX],
  [TX_OFFLOAD.TCP_TSO, OFFLOAD.LSO4 | OFFLOAD.LSO6 | OFFLOAD.TCP4_TX | OFFLOAD.TCP6_TX],
];
/** What this driver does itself. */
const RX_OWN = RX_OFFLOAD.VLAN_STRIP | RX_OFFLOAD.VLAN_FILTER | RX_OFFLOAD.RSS_HASH | RX_OFFLOAD.SCATTER;
const TX_OWN = TX_OFFLOAD.MULTI_SEGS;

const offered = (table: typeof RX, bits: number) =>
  table.reduce((all, [port, host]) => ((bits & host) === host ? all | port : all), 0);
const wanted = (table: typeof RX, bits: number) =>
  table.reduce((all, [port, host]) => ((bits & port) !== 0 ? all | host : all), 0);

/** OFFLOAD bits of a configuration. Tags are always beside the packet: the host has no other way. */
export function hostOffloads(rxOffloads: number, txOffloads: number): number {
  return wanted(RX, rxOffloads) | wanted(TX, txOffloads) | OFFLOAD.VLAN;
}

/** The same the other way round: offloads of the device API that are in force with these OFFLOAD bits of the host. */
export const offloadsOf = (bits: number): PortOffloads => ({
  rxOffloads: RX_OWN | offered(RX, bits),
  txOffloads: TX_OWN | offered(TX, bits),
});

const HASH_TYPES = [
  [RSS_TYPE.IPV4, NDIS_HASH_TYPE.IPV4, NDIS_RSS_CAPABILITY.IPV4],
  [RSS_TYPE.IPV4_TCP, NDIS_HASH_TYPE.TCP_IPV4, NDIS_RSS_CAPABILITY.IPV4],
  [RSS_TYPE.IPV6, NDIS_HASH_TYPE.IPV6, NDIS_RSS_CAPABILITY.IPV6],
  [RSS_TYPE.IPV6_TCP, NDIS_HASH_TYPE.TCP_IPV6, NDIS_RSS_CAPABILITY.IPV6],
  [RSS_TYPE.IPV6_EX, NDIS_HASH_TYPE.IPV6_EX, NDIS_RSS_CAPABILITY.IPV6_EX],
  [RSS_TYPE.IPV6_TCP_EX, NDIS_HASH_TYPE.TCP_IPV6_EX, NDIS_RSS_CAPABILITY.IPV6_EX],
  [RSS_TYPE.IPV4_UDP, NDIS_HASH_TYPE.UDP_IPV4, NDIS_RSS_CAPABILITY.UDP_IPV4],
  [RSS_TYPE.IPV6_UDP, NDIS_HASH_TYPE.UDP_IPV6, NDIS_RSS_CAPABILITY.UDP_IPV6],
  [RSS_TYPE.IPV6_UDP_EX, NDIS_HASH_TYPE.UDP_IPV6_EX, NDIS_RSS_CAPABILITY.UDP_IPV6_EX],
] as const;

/** NDIS_HASH_TYPE bits of RSS_TYPE bits. */
export const hashTypes = (types: number): number =>
  HASH_TYPES.reduce((all, [type, ndis]) => ((types & type) !== 0 ? all | ndis : all), 0);

/** What a software hash covers when a program names no types. */
export const USUAL_TYPES: number = RSS_TYPE.IPV4 | RSS_TYPE.IPV4_TCP | RSS_TYPE.IPV6 | RSS_TYPE.IPV6_TCP;

/** Why a host has not everything: which NVSP version it takes, and with it how old it is, says most. */
function reasonsOf({ nvspVersion, rss }: NetvscInfo): Record<string, string> {
  const reasons: Record<string, string> = {};
  const version = `the host has NVSP ${nvspVersionName(nvspVersion).replace('V', '')}`;
  const needs = (what: string, least: number, release: string, names: readonly string[], otherwise: string) => {
    const why = nvspVersion < least ? `${what} came with ${release}, ${version}` : otherwise;
    for (const name of names) reasons[name] = why;
  };
  const offer = (what: string) => `the host does not offer ${what}`;
  const { V5, V61 } = NVSP_VERSION;
  needs('receive coalescing', V61, 'Windows Server 2019 (NVSP 6.1)', ['TCP_LRO'], offer('receive coalescing'));
  needs('UDP checksums', V5, 'Windows Server 2012 R2 (NVSP 5)', ['UDP_CKSUM'], offer('UDP checksums of both families'));
  const tcp = offer('TCP checksums of both families');
  Object.assign(reasons, { TCP_CKSUM: tcp, IPV4_CKSUM: offer('IPv4 header checksums') });
  reasons.TCP_TSO = offer('segmentation of both families');
  const most =
    rss === undefined ? 'the host says nothing of scaling' : `the host has ${rss.receiveQueues} channels at most`;
  needs('channels', V5, 'Windows Server 2012 R2 (NVSP 5)', ['queues', 'RSS'], most);
  if (rss !== undefined) reasons.RSS = 'the host has no redirection table';
  const udp = 'the host does not hash UDP by ports (Windows Server 2019 does)';
  Object.assign(reasons, { IPV4_UDP: udp, IPV6_UDP: udp, IPV6_UDP_EX: udp });
  if (maxMtu(nvspVersion) < MAX_MTU) reasons.MTU = `larger frames came with NVSP 2, ${version}`;
  return reasons;
}

/** `socket`: NUMA node of the device, -1 = any. */
export function portInfo(device: string, info: NetvscInfo, socket: number): PortInfo {
  const queues = info.rss === undefined ? 1 : Math.max(1, Math.min(MAX_QUEUES, info.rss.receiveQueues));
  const entries = info.rss?.tableEntries ?? 0;
  const flags = info.rss?.flags ?? 0;
  return {
    ...{ driver: 'net_netvsc', device, maxRxQueues: queues, maxTxQueues: queues, minMtu: MIN_MTU },
    maxMtu: maxMtu(info.nvspVersion),
    ...{ maxRxPacketBytes: 65_536, minRxBufferBytes: 1024, maxMacAddresses: 1 + EXTRA_MACS },
    rxDescriptors: { min: 1, max: 65_535, align: 1, usual: 512 },
    txDescriptors: { min: 1, max: 4096, align: 1, usual: 512 },
    ...offloadsOf(info.offered),
    rssTypes: HASH_TYPES.reduce((all, [type, , capability]) => ((flags & capability) !== 0 ? all | type : all), 0),
    rssTableEntries: info.rss === undefined ? 0 : entries >= 1 && entries < TABLE_ENTRIES ? entries : TABLE_ENTRIES,
    ...{ rssKeyBytes: NDIS_RSS_KEY_BYTES, maxTxSegments: MAX_SEGMENTS },
    maxTsoBytes: { ipv4: info.lsoMax4, ipv6: info.lsoMax6 },
    speedsMbps: [Math.round(info.linkSpeedBps / 1e6)],
    ...{ rxInterrupts: true, linkEvents: true, softwareFilters: ['mac', 'multicast', 'vlan'], socket },
    channels: info.queues,
    reasons: reasonsOf(info),
  };
}

/** NUMA node of a device directory; -1: any, or unknown. */
export function numaNode(path: string): number {
  const text = readOptionalAttribute(`${path}/numa_node`) ?? '';
  return /^[0-9]{1,4}$/.test(text) ? Number(text) : -1;
}
