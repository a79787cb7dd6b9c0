// Receive-side scaling in testpmd's words: types by name, redirection table, key.
import { RSS_TYPE } from '../../ethdev/constants.js';
import { RSS_IP, RSS_UDP } from './session.js';
import { RSS_NAMES, ValueError } from './values.js';

const { IPV4_TCP, IPV6_TCP, IPV6_TCP_EX } = RSS_TYPE;
const RSS_TCP = IPV4_TCP | IPV6_TCP | IPV6_TCP_EX;
/** Whatever a device of ours hashes. */
const RSS_ALL = RSS_IP | RSS_UDP | RSS_TCP;

/** Words of "port config all rss" and the types they stand for. */
export const RSS_WORDS: Readonly<Record<string, number>> = {
  ...{ all: RSS_ALL, default: RSS_ALL, ip: RSS_IP, udp: RSS_UDP, tcp: RSS_TCP, none: 0 },
  ...Object.fromEntries(RSS_NAMES),
};

/** Width of a list of types. */
const WRAP = 64;

/** Names of types, two spaces in front of each, several in a line. */
export function rssTypeLines(types: number): string[] {
  const lines = [''];
  for (const [name, bit] of RSS_NAMES) {
    if ((types & bit) === 0) continue;
    const word = `  ${name}`;
    if (lines.at(-1)!.length + word.length > WRAP) lines.push('');
    lines[lines.length - 1] += word;
  }
  return lines;
}

/** Entries of the table that masks choose: one mask of 64 bits for each 64 entries, "(0x3,0x0)". Throws ValueError. */
export function chosenEntries(text: string, entries: number): number[] {
  const groups = Math.ceil(entries / 64);
  const inside = /^\((.*)\)$/.exec(text)?.[1]?.split(',');
  if (inside?.length !== groups)
    throw new ValueError(
      `The bits of masks do not match the number of reta entries: ${groups}\nInvalid string: ${text} for reta masks`,
    );
  return inside.flatMap((mask, group) => {
    if (!/^(0x[0-9a-f]{1,16}|[0-9]{1,20})$/i.test(mask)) throw new ValueError(`Invalid string: ${text} for reta masks`);
    const bits = BigInt(mask);
    const list: number[] = [];
    for (let i = 0; i < 64 && group * 64 + i < entries; i++) if ((bits >> BigInt(i)) & 1n) list.push(group * 64 + i);
    return list;
  });
}

/** "(0,1),(5,2)": pairs of entry and queue. Throws ValueError. */
export function parseEntries(text: string, entries: number): [entry: number, queue: number][] {
  const wrong = 'Invalid RSS Redirection Table config entered';
  if (!/^\(\d{1,5},\d{1,5}\)(,\(\d{1,5},\d{1,5}\))*$/.test(text)) throw new ValueError(wrong);
  return [...text.matchAll(/\((\d+),(\d+)\)/g)].map(([, entry, queue]) => {
    if (Number(entry) >= entries) throw new ValueError(`Invalid RETA hash index=${Number(entry)}\n${wrong}`);
    return [Number(entry), Number(queue)];
  });
}

/** Hexadecimal key of `bytes` bytes. Throws ValueError. */
export function parseKey(text: string, bytes: number): Uint8Array {
  if (text.length !== bytes * 2)
    throw new ValueError(
      `key length: ${text.length} invalid - key must be a string of ${bytes * 2} hexa-decimal numbers`,
    );
  const bad = [...text].findIndex((letter) => !/[0-9a-f]/i.test(letter));
  if (bad >= 0)
    throw new ValueError(`invalid key: character ${text[bad]} at position ${bad} is not a valid hexa digit`);
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

export const keyText = (key: Uint8Array): string =>
  [...key].map((byte) => byte.toString(16).padStart(2, '0').toUpperCase()).join('');
