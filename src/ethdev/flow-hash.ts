// How deep flows are hashed, by protocol (facts/linux-guest.md 5.1, -N rx-flow-hash). Transmit queues are chosen by it (offload/steering.ts);
// the same choice is made for received packets as far as the device has the hash types.
import { RSS_TYPE } from './constants.js';

/** L3: addresses; L4: addresses and ports. Fragments never have more than L3. */
export type HashLevel = 'L3' | 'L4';

/** Protocols whose level can be chosen. */
export const HASH_FLOWS = ['tcp4', 'udp4', 'tcp6', 'udp6'] as const;
export type HashFlow = (typeof HASH_FLOWS)[number];
export type HashLevels = Readonly<Record<HashFlow, HashLevel>>;

export const DEFAULT_HASH_LEVELS: HashLevels = { tcp4: 'L4', udp4: 'L4', tcp6: 'L4', udp6: 'L4' };

const UDP = RSS_TYPE.IPV4_UDP | RSS_TYPE.IPV6_UDP | RSS_TYPE.IPV6_UDP_EX;

/** RSS_TYPE bits: with the ports, and without. */
const TYPES: Readonly<Record<HashFlow, { readonly ports: number; readonly addresses: number }>> = {
  tcp4: { ports: RSS_TYPE.IPV4_TCP, addresses: RSS_TYPE.IPV4 },
  udp4: { ports: RSS_TYPE.IPV4_UDP, addresses: RSS_TYPE.IPV4 },
  tcp6: { ports: RSS_TYPE.IPV6_TCP | RSS_TYPE.IPV6_TCP_EX, addresses: RSS_TYPE.IPV6 | RSS_TYPE.IPV6_EX },
  udp6: { ports: RSS_TYPE.IPV6_UDP | RSS_TYPE.IPV6_UDP_EX, addresses: RSS_TYPE.IPV6 | RSS_TYPE.IPV6_EX },
};

/** Types that a device is asked for when nobody names any: not UDP, whose fragments would come on another queue than what was not
 *  fragmented (as Linux asks, facts/linux-guest.md 1.3), unless its level was chosen. */
export function usualTypes(has: number, chosen: Partial<HashLevels> = {}): number {
  return Object.entries(chosen).reduce(
    (types, [flow, level]) => typesFor(types, has, flow as HashFlow, level),
    has & ~UDP,
  );
}

/** The types `types` once that flow is hashed at that level, with a device that has `has`. */
export function typesFor(types: number, has: number, flow: HashFlow, level: HashLevel): number {
  const { ports, addresses } = TYPES[flow];
  const others = types & ~ports;
  return level === 'L4' ? others | (has & ports) : others | (has & addresses);
}

/** The types hash that flow at that level. */
export function hashesAt(types: number, flow: HashFlow, level: HashLevel): boolean {
  const { ports, addresses } = TYPES[flow];
  return level === 'L4' ? (types & ports) !== 0 : (types & ports) === 0 && (types & addresses) !== 0;
}
