// Whether a device can do what a program asks for. `where` names port or device in the PortErrors that are thrown.
import { namesOf, RSS_TYPE, RX_OFFLOAD, TX_OFFLOAD } from './constants.js';
import { PortError } from './errors.js';
import { type HashLevels, usualTypes } from './flow-hash.js';
import type { DescriptorLimits, PortConfig, PortInfo, RssConfig } from './types.js';

/** A configuration with every choice made. */
export type FullConfig = Required<Omit<PortConfig, 'mtu'>>;

/** The configuration with its defaults. `levels`: how deep flows are hashed, where that was chosen. */
export function checkedConfig(
  where: string,
  info: PortInfo,
  config: PortConfig,
  levels: Partial<HashLevels> = {},
): FullConfig {
  const { rxQueues, txQueues, rxOffloads = 0, txOffloads = 0 } = config;
  const queues = (what: string, count: number, max: number) => {
    if (Number.isInteger(count) && count >= 0 && count <= max) return;
    const why = count > max && info.reasons?.queues ? ` (${info.reasons.queues})` : '';
    throw new PortError('EINVAL', where, `${what} queues: expected 0 to ${max}, got ${count}${why}`);
  };
  queues('rx', rxQueues, info.maxRxQueues);
  queues('tx', txQueues, info.maxTxQueues);
  if (rxQueues + txQueues === 0) throw new PortError('EINVAL', where, 'expected at least one queue');
  checkOffloads(where, info, rxOffloads, txOffloads);
  const rss = config.rss ?? { types: rxQueues > 1 ? usualTypes(info.rssTypes, levels) : 0 };
  checkRss(where, info, rss);
  const rxInterrupts = config.rxInterrupts ?? info.rxInterrupts;
  if (rxInterrupts && !info.rxInterrupts) throw new PortError('ENOTSUP', where, 'rx interrupts: the device has none');
  const { packetTypes = true } = config;
  return { rxQueues, txQueues, rxOffloads, txOffloads, rss, rxInterrupts, packetTypes };
}

export function checkOffloads(where: string, info: PortInfo, rxOffloads: number, txOffloads: number): void {
  checkBits(where, 'rx offloads', RX_OFFLOAD, rxOffloads & ~info.rxOffloads, info.reasons);
  checkBits(where, 'tx offloads', TX_OFFLOAD, txOffloads & ~info.txOffloads, info.reasons);
}

export function checkRss(where: string, info: PortInfo, { types, key }: RssConfig): void {
  const lacks = types & ~info.rssTypes;
  checkBits(where, 'hash types', RSS_TYPE, lacks, info.reasons);
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
function checkBits(
  where: string,
  what: string,
  table: Readonly<Record<string, number>>,
  bits: number,
  reasons: PortInfo['reasons'] = {},
): void {
  if (bits === 0) return;
  const names = namesOf(table, bits);
  const list = names.length > 0 ? ` (${names.join(', ')})` : '';
  const why = [...new Set(names.flatMap((name) => reasons[name] ?? []))].map((reason) => `: ${reason}`).join('');
  throw new PortError('EINVAL', where, `${what}: unsupported 0x${(bits >>> 0).toString(16)}${list}${why}`);
}
