// Values on testpmd's command lines and in its commands.
import { RSS_TYPE } from '../../ethdev/constants.js';
import { parseMac } from '../../wire/address-text.js';

/** A value that does not say what it should. The message is for the user. */
export class ValueError extends Error {
  override readonly name = 'ValueError';
}

const expected = (what: string, text: string) => new ValueError(`expected ${what}, got "${text}"`);

/** Decimal or 0x hexadecimal; undefined when it is no such number. */
export function wholeNumber(text: string): number | undefined {
  return /^(0x[0-9a-f]{1,13}|[0-9]{1,15})$/i.test(text) ? Number(text) : undefined;
}

/** Throws ValueError. */
export function parseWhole(text: string, min: number, max: number): number {
  const value = wholeNumber(text);
  if (value !== undefined && value >= min && value <= max) return value;
  throw expected(`a whole number ${min} to ${max}`, text);
}

/** A hexadecimal mask, with or without 0x. Throws ValueError. */
export function parseMask(text: string, bits: number): bigint {
  const digits = /^(?:0x)?([0-9a-f]{1,64})$/i.exec(text)?.[1];
  const value = digits === undefined ? undefined : BigInt(`0x${digits}`);
  if (value === undefined || value >> BigInt(bits) !== 0n) throw expected(`a hexadecimal mask of ${bits} bits`, text);
  return value;
}

/** Numbers of the bits that are set. */
export function bitsOf(mask: bigint): number[] {
  const list: number[] = [];
  for (let bit = 0; mask >> BigInt(bit) !== 0n; bit++) if ((mask >> BigInt(bit)) & 1n) list.push(bit);
  return list;
}

/** "1,0,3-5" to numbers, each once. Throws ValueError. */
export function parseList(text: string, max: number): number[] {
  const list: number[] = [];
  for (const part of text.split(',')) {
    const [, first, last = first] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part) ?? [];
    if (first === undefined || Number(last) > max || Number(last) < Number(first))
      throw expected(`numbers up to ${max} as in 0,2-3`, text);
    for (let value = Number(first); value <= Number(last); value++) {
      if (list.includes(value)) throw expected('each number once', text);
      list.push(value);
    }
  }
  return list;
}

/** Throws ValueError. */
export function parseMacValue(text: string): Uint8Array {
  const bytes = parseMac(text);
  if (bytes) return bytes;
  throw expected('a MAC address as 02:00:00:00:00:01', text);
}

/** "64" or "64,128": bytes of the segments of a packet that is made. Throws ValueError. */
export function parseSegments(text: string): number[] {
  const list = text.split(',').map((part) => parseWhole(part, 1, 65_535));
  if (list.length > SEGMENTS_MAX) throw expected(`at most ${SEGMENTS_MAX} segments`, text);
  const total = list.reduce((sum, bytes) => sum + bytes, 0);
  if (total < MADE_MIN || total > MADE_MAX) throw expected(`${MADE_MIN} to ${MADE_MAX} bytes in all`, text);
  return list;
}

/** Segments of a packet that is made, and its length: at least its headers. */
export const SEGMENTS_MAX = 8;
export const MADE_MIN = 42;
export const MADE_MAX = 65_535;
/** Packets of one burst. */
export const BURST_MAX = 512;

/** "AA:BB:...", as testpmd prints addresses. */
export const upperMac = (mac: string): string => mac.toUpperCase();

/** Hash types by testpmd's names, in the order in which it lists them. */
export const RSS_NAMES: readonly (readonly [string, number])[] = [
  ['ipv4', RSS_TYPE.IPV4],
  ['ipv4-tcp', RSS_TYPE.IPV4_TCP],
  ['ipv4-udp', RSS_TYPE.IPV4_UDP],
  ['ipv6', RSS_TYPE.IPV6],
  ['ipv6-tcp', RSS_TYPE.IPV6_TCP],
  ['ipv6-udp', RSS_TYPE.IPV6_UDP],
  ['ipv6-ex', RSS_TYPE.IPV6_EX],
  ['ipv6-tcp-ex', RSS_TYPE.IPV6_TCP_EX],
  ['ipv6-udp-ex', RSS_TYPE.IPV6_UDP_EX],
];
