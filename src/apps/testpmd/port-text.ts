// What testpmd shows of a port: "show port info", "show port summary", queues, offloads (facts/dpdk.md 6.2).
import { namesOf, RX_OFFLOAD, TX_OFFLOAD } from '../../ethdev/constants.js';
import type { LinkStatus } from '../../ethdev/types.js';
import { portConfig } from './ports.js';
import { rssTypeLines } from './rss.js';
import type { Session, TestPort } from './session.js';
import { upperMac } from './values.js';

export const INFO_BORDER = '*'.repeat(21);
const two = (value: number): string => String(value).padEnd(2);

const SPEEDS: Readonly<Record<number, string>> = { 10: '10 Mbps', 100: '100 Mbps', 2500: '2.5 Gbps' };

/** DPDK's text of a speed. */
export function speedText({ up, speedMbps }: LinkStatus): string {
  if (speedMbps === 0) return up ? 'Unknown' : 'None';
  const known = SPEEDS[speedMbps];
  if (known !== undefined) return known;
  return speedMbps % 1000 === 0 ? `${speedMbps / 1000} Gbps` : 'Unknown';
}

const onOff = (on: boolean): string => (on ? 'on' : 'off');
const enabled = (on: boolean): string => (on ? 'enabled' : 'disabled');

/** Arguments that the device was named with; undefined when it was not named. */
function devargs(session: Session, device: string): string | undefined {
  const { vdevs, allow = [] } = session.eal.options;
  return [...vdevs, ...allow].find((spec) => spec.device === device)?.args;
}

/** "show port info" of one port. */
export function portInfoText(session: Session, test: TestPort): string {
  const { port } = test;
  const info = port.info();
  const link = port.link();
  const rxOffloads = port.config?.rxOffloads ?? 0;
  const strip = onOff((rxOffloads & RX_OFFLOAD.VLAN_STRIP) !== 0);
  const filter = onOff((rxOffloads & RX_OFFLOAD.VLAN_FILTER) !== 0);
  const args = devargs(session, port.device);
  const socket = Math.max(0, info.socket);
  return [
    `\n${INFO_BORDER} Infos for port ${two(port.id)} ${INFO_BORDER}`,
    `MAC address: ${upperMac(port.mac)}`,
    `Device name: ${port.device}`,
    `Driver name: ${info.driver}`,
    'Firmware-version: not available',
    ...(args === undefined ? [] : [`Devargs: ${args}`]),
    `Connect to socket: ${socket}`,
    `memory allocation on the socket: ${socket}`,
    `Link status: ${link.up ? 'up' : 'down'}`,
    `Link speed: ${speedText(link)}`,
    `Link duplex: ${link.fullDuplex ? 'full-duplex' : 'half-duplex'}`,
    `Autoneg status: ${link.autonegotiated ? 'On' : 'Off'}`,
    `MTU: ${port.mtu}`,
    `Minimum MTU: ${info.minMtu}`,
    `Maximum MTU: ${info.maxMtu}`,
    `Promiscuous mode: ${enabled(port.filter.promiscuous)}`,
    `Allmulticast mode: ${enabled(port.filter.allMulticast)}`,
    `Maximum number of MAC addresses: ${info.maxMacAddresses}`,
    'Maximum number of MAC addresses of hash filtering: 0',
    'VLAN offload: ',
    `  strip ${strip}, filter ${filter}, extend off, qinq strip off`,
    ...(info.rssKeyBytes > 0 ? [`Hash key size in bytes: ${info.rssKeyBytes}`] : []),
    ...(info.rssTableEntries > 0 ? [`Redirection table size: ${info.rssTableEntries}`] : []),
    ...(info.rssTypes === 0
      ? ['No RSS offload flow type is supported.']
      : ['Supported RSS offload flow types:', ...rssTypeLines(info.rssTypes)]),
    `Minimum size of RX buffer: ${info.minRxBufferBytes}`,
    `Maximum configurable length of RX packet: ${info.maxRxPacketBytes}`,
    'Maximum configurable size of LRO aggregated packet: 0',
    `Current number of RX queues: ${session.rxQueues}`,
    `Max possible RX queues: ${info.maxRxQueues}`,
    `Max possible number of RXDs per queue: ${info.rxDescriptors.max}`,
    `Min possible number of RXDs per queue: ${info.rxDescriptors.min}`,
    `RXDs number alignment: ${info.rxDescriptors.align}`,
    `Current number of TX queues: ${session.txQueues}`,
    `Max possible TX queues: ${info.maxTxQueues}`,
    `Max possible number of TXDs per queue: ${info.txDescriptors.max}`,
    `Min possible number of TXDs per queue: ${info.txDescriptors.min}`,
    `TXDs number alignment: ${info.txDescriptors.align}`,
    `Max segment number per packet: ${info.maxTxSegments}`,
    `Max segment number per MTU/TSO: ${info.maxTxSegments}`,
    'Device capabilities: 0x0( )',
    'Device error handling mode: none',
    'Device private info:',
    ...(info.softwareFilters.length > 0 ? [`  software filters: ${info.softwareFilters.join(', ')}`] : ['  none']),
  ].join('\n');
}

const columns = (...[id, mac, name, driver, status, link]: readonly string[]): string =>
  `${id!.padEnd(4)} ${mac!.padEnd(17)} ${name!.padEnd(12)} ${driver!.padEnd(14)} ${status!.padEnd(8)} ${link}`;

/** "show port summary". */
export function summaryText(session: Session, ports: readonly TestPort[]): string {
  const rows = ports.map(({ port }) => {
    const link = port.link();
    const status = link.up ? 'up' : 'down';
    return columns(String(port.id), upperMac(port.mac), port.device, port.info().driver, status, speedText(link));
  });
  const head = columns('Port', 'MAC Address', 'Name', 'Driver', 'Status', 'Link');
  return [`Number of available ports: ${session.open.length}`, head, ...rows].join('\n');
}

/** "show device info". */
export function deviceText(session: Session, { port }: TestPort): string {
  const info = port.info();
  const bus = session.eal.options.vdevs.some(({ device }) => device === port.device) ? 'vdev' : 'vmbus';
  const speeds = info.speedsMbps.map((speedMbps) => ` ${speedText({ ...port.link(), speedMbps })}  `).join('');
  return [
    `\n${INFO_BORDER} Infos for device ${port.device} ${INFO_BORDER}`,
    `Bus name: ${bus}`,
    'Bus information: ',
    `Driver name: ${info.driver}`,
    `Devargs: ${devargs(session, port.device) ?? ''}`,
    `Connect to socket: ${Math.max(0, info.socket)}`,
    `\n\tPort id: ${two(port.id)}`,
    `\tMAC address: ${upperMac(port.mac)}`,
    `\tDevice name: ${port.device}`,
    `\tDevice speed capability:${speeds || ' Autonegotiate (all speeds)'}`,
  ].join('\n');
}

/** "show rxq info"; the queue is set up. */
export function rxQueueText({ port }: TestPort, queue: number): string {
  const { descriptors, pool = '', offloads } = port.rxQueueInfo(queue);
  return [
    `\n${INFO_BORDER} Infos for port ${two(port.id)}, RX queue ${two(queue)} ${INFO_BORDER}`,
    `Mempool: ${pool}`,
    'RX prefetch threshold: 0',
    'RX host threshold: 0',
    'RX writeback threshold: 0',
    'RX free threshold: 0',
    'RX drop packets: off',
    'RX deferred start: off',
    `RX scattered packets: ${onOff((offloads & RX_OFFLOAD.SCATTER) !== 0)}`,
    `Rx queue state: ${port.state === 'started' ? 'started' : 'stopped'}`,
    `Number of RXDs: ${descriptors}`,
    `Burst mode: ${port.burstMode()}`,
  ].join('\n');
}

/** "show txq info". */
export function txQueueText({ port }: TestPort, queue: number): string {
  const { descriptors } = port.txQueueInfo(queue);
  return [
    `\n${INFO_BORDER} Infos for port ${two(port.id)}, TX queue ${two(queue)} ${INFO_BORDER}`,
    'TX prefetch threshold: 0',
    'TX host threshold: 0',
    'TX writeback threshold: 0',
    'TX RS threshold: 0',
    'TX free threshold: 0',
    'TX deferred start: off',
    `Number of TXDs: ${descriptors}`,
    `Tx queue state: ${port.state === 'started' ? 'started' : 'stopped'}`,
    `Burst mode: ${port.burstMode()}`,
  ].join('\n');
}

const DIRECTIONS = { rx: { word: 'Rx', bits: RX_OFFLOAD }, tx: { word: 'Tx', bits: TX_OFFLOAD } } as const;
const names = (direction: 'rx' | 'tx', mask: number): string =>
  namesOf(DIRECTIONS[direction].bits, mask)
    .map((name) => ` ${name}`)
    .join('');

/** "show port N rx_offload capabilities". */
export function capabilitiesText({ port }: TestPort, direction: 'rx' | 'tx'): string {
  const { rxOffloads, txOffloads } = port.info();
  return [
    `${DIRECTIONS[direction].word} Offloading Capabilities of port ${port.id} :`,
    '  Per Queue :',
    `  Per Port  :${names(direction, direction === 'rx' ? rxOffloads : txOffloads)}\n`,
  ].join('\n');
}

/** "show port N rx_offload configuration": what the device was configured with, and what queues will be. */
export function configurationText(session: Session, test: TestPort, direction: 'rx' | 'tx'): string {
  const { rxOffloads = 0, txOffloads = 0, rxQueues, txQueues } = portConfig(session, test);
  const [mask, count] = direction === 'rx' ? [rxOffloads, rxQueues] : [txOffloads, txQueues];
  const lines = [`${DIRECTIONS[direction].word} Offloading Configuration of port ${test.port.id} :`];
  const { config } = test.port;
  const now = (direction === 'rx' ? config?.rxOffloads : config?.txOffloads) ?? 0;
  lines.push(`  Port :${names(direction, now)}`);
  for (let queue = 0; queue < count; queue++)
    lines.push(`  Queue[${String(queue).padStart(2)}] :${names(direction, mask)}`);
  return `${lines.join('\n')}\n`;
}
