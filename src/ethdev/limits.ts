// Whether a device can do what a program asks for. `where` names port or device in the PortErrors that are thrown.
import { namesOf, RSS_TYPE, RX_OFFLOAD, TX_OFFLOAD } from './constants.js';
import { PortError } from './errors.js';
import type { DescriptorLimits, PortConfig, PortInfo, RssConfig } from './types.js';

/** A configuration with every choice made. */
export type FullConfig = Required<Omit<PortConfig, 'mtu'>>;

/** The configuration with its defaults. */
export function checkedConfig(where: string, info: PortInfo, config: PortConfig): FullConfig {
  const { rxQueues, txQueues, rxOffloads = 0, txOffloads = 0 } = config;
  const queues = (what: string, count: number, max: number) => {
    if (!(Number.isInteger(count) && count >= 0 && count <= max))
      throw new PortError('EINVAL', where, `${what} queues: expected 0 to ${max}, got ${count}`);
  };
  queues('rx', rxQueues, info.maxRxQueues);
  queues('tx', txQueues, info.maxTxQueues);
  if (rxQueues + txQueues === 0) throw new PortError('EINVAL', where, 'expected at least one queue');
  checkOffloads(where, info, rxOffloads, txOffloads);
  const rss = config.rss ?? { types: rxQueues > 1 ? info.rssTypes : 0 };
  checkRss(where, info, rss);
  const rxInterrupts = config.rxInterrupts ?? info.rxInterrupts;
  if (rxInterrupts && !info.rxInterrupts) throw new PortError('ENOTSUP', where, 'rx interrupts: the device has none');
  const { packetTypes = true } = config;
  return { rxQueues, txQueues, rxOffloads, txOffloads, rss, rxInterrupts, packetTypes };
}

export function checkOffloads(where: string, info: PortInfo, rxOffloads: number, txOffloads: number): void {
  checkBits(where, 'rx offloads', RX_OFFLOAD, rxOffloads & ~info.rxOffloads);
  checkBits(where, 'tx offloads', TX_OFFLOAD, txOffloads & ~info.txOffloads);
}

export function checkRss(where: string, info: PortInfo, { types, key }: RssConfig): void {
  checkBits(where, 'hash types', RSS_TYPE, types & ~info.rssTypes);
  if (key && key.length !== info.rssKeyBytes)
    throw new PortError('EINVAL', where, `RSS key: expected ${info.rssKeyBytes} bytes, got ${key.length}`);
}

/** A number of descriptors, 0 being the usual one. */
export function checkedDescriptors(where: string, wanted: number, limits: DescriptorLimits): number {
  const { min, max, align, usual } = limits;
  const count = wanted === 0 ? usual : wanted;
  if (!(Number.isInteger(count) && count >= min && count <= max && count % align === 0))
    throw new PortError('EINVAL', where, `descriptors: expected ${min} to ${max} in steps of ${align}, got ${wanted}`);
  return count;
}

/** `bits`: what is asked for and not there. */
function checkBits(where: string, what: string, table: Readonly<Record<string, number>>, bits: number): void {
  if (bits === 0) return;
  const names = namesOf(table, bits).join(', ');
  throw new PortError('EINVAL', where, `${what}: unsupported 0x${(bits >>> 0).toString(16)}${names && ` (${names})`}`);
}
