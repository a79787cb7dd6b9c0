/**
 * The poll-mode device API: what `import { initEal } from 'netvsc'` gives. docs/pmd.md is the guide.
 *
 * A program starts with {@link initEal}, makes an mbuf pool with {@link Eal.createMempool}, brings up each {@link Port} of
 * `eal.ports` (configure, set up queues, start), and moves packets with {@link RxQueue.burst} and {@link TxQueue.burst},
 * in its own thread or in those that {@link Eal.launch} starts.
 *
 * @module netvsc
 */

export type { Datapath } from '../datapath/datapath.js';
export { initEal } from '../drivers/platform.js';
export { namesOf, PACKET_TYPE, RSS_TYPE, RX_OFFLOAD, TX_OFFLOAD } from '../ethdev/constants.js';
export type { Devargs } from '../ethdev/devargs.js';
export type {
  Driver,
  DriverContext,
  KernelInterface,
  Lcore,
  PortDriver,
  RxBurst,
  RxQueueSetup,
  TakenPort,
  TxBurst,
  TxQueueSetup,
} from '../ethdev/driver.js';
export type { Eal, EalSettings } from '../ethdev/eal.js';
export { type DeviceSpec, EAL_USAGE, type EalOptions } from '../ethdev/eal-options.js';
export { PortError, type PortErrorCode } from '../ethdev/errors.js';
export { HASH_FLOWS, type HashFlow, type HashLevel, type HashLevels } from '../ethdev/flow-hash.js';
export { type LcorePort, type LcoreThread, polling } from '../ethdev/lcore.js';
export type { FullConfig } from '../ethdev/limits.js';
export type { Pollable, PollLoop, Ready } from '../ethdev/loop.js';
export type { Mbufs } from '../ethdev/mbuf.js';
export type { Mempool, MempoolOptions } from '../ethdev/mempool.js';
export type { Port } from '../ethdev/port.js';
export type { PortHandle, QueueHandle, RxQueue, TxQueue } from '../ethdev/queues.js';
export type {
  BasicStats,
  DescriptorLimits,
  DescriptorStatus,
  LinkStatus,
  PortConfig,
  PortEvent,
  PortEvents,
  PortInfo,
  PortOffloads,
  PortState,
  QueueInfo,
  QueueStats,
  ReceiveFilter,
  RingSizes,
  RssConfig,
} from '../ethdev/types.js';
export type { Arena, ArenaRegion } from '../memory/arena.js';
export type { Cells } from '../memory/cells.js';
export { MBUF, PACKET_FLAG } from '../memory/layout.js';
export type { InterfaceState } from '../memory/os/netlink.js';
export { formatIpv4, formatIpv6, formatMac, parseIpv4, parseIpv6, parseMac } from '../wire/address-text.js';
export { internetChecksum, ipv4HeaderChecksum, transportChecksum } from '../wire/checksum.js';
export { ARP_OPERATION, Arp, ETHER_TYPE, EthernetHeader, MAC_BROADCAST, VlanTag } from '../wire/ethernet.js';
export { ICMP_TYPE, ICMPV6_TYPE, IcmpEcho, IP_PROTOCOL, Ipv4Header, Ipv6Header } from '../wire/ip.js';
export type { FieldInfo, FieldSpec, FieldType, FieldValue, Input, Struct, Value } from '../wire/struct.js';
export { TCP_FLAG, TcpHeader, UdpHeader } from '../wire/tcp-udp.js';
