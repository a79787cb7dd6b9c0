// Words of the command line as ethtool takes them: numbers, "name value" pairs, and where a netlink message of them has
// which attribute, as the kernel's complaints name the place.
import { UsageError } from './types.js';

const U32_MAX = 0xffff_ffff;

/** strtoul with base 10, or 16 after "0x": leading blanks and "+" are fine, a sign or a rest is not. */
export function parseU32(word: string): number | undefined {
  const match = /^\s*\+?(?:0[xX]([0-9a-fA-F]+)|(\d+))$/.exec(word);
  if (!match) return undefined;
  const value = match[1] === undefined ? Number.parseInt(match[2]!, 10) : Number.parseInt(match[1], 16);
  return value <= U32_MAX ? value : undefined;
}

export const parseOnOff = (word: string): boolean | undefined =>
  word === 'on' ? true : word === 'off' ? false : undefined;

export type Kind = 'u32' | 'on|off' | 'word';

/** Kinds by name, from the names of each kind with blanks between. */
export const kindsOf = (names: Partial<Readonly<Record<Kind, string>>>): Readonly<Record<string, Kind>> =>
  Object.fromEntries(
    Object.entries(names).flatMap(([kind, list]) => list.split(' ').map((name) => [name, kind as Kind])),
  );

/** A parameter that was given. */
export interface Given {
  readonly name: string;
  readonly value: number | boolean | string;
  /** Where the kernel finds it in the message. */
  readonly offset: number;
}

/** "name value" pairs behind `option`. Throws UsageError with ethtool's text. */
export function parsePairs(
  option: string,
  device: string,
  kinds: Readonly<Record<string, Kind>>,
  words: readonly string[],
): Map<string, Given> {
  const given = new Map<string, Given>();
  let offset = firstAttribute(device);
  for (let at = 0; at < words.length; at += 2) {
    const name = words[at]!;
    const kind = Object.hasOwn(kinds, name) ? kinds[name]! : undefined;
    const refuse = (problem: string): never => {
      throw new UsageError(`ethtool (${option}): ${problem}\n`);
    };
    if (kind === undefined) return refuse(`unknown parameter '${name}'`);
    if (given.has(name)) return refuse(`duplicate parameter '${name}'`);
    const word = words[at + 1];
    if (word === undefined) return refuse(`no value for parameter '${name}'`);
    const value = kind === 'u32' ? parseU32(word) : kind === 'on|off' ? parseOnOff(word) : word;
    if (value === undefined) return refuse(`invalid value '${word}' for parameter '${name}'`);
    given.set(name, { name, value, offset });
    offset += ATTRIBUTE_BYTES;
  }
  return given;
}

/** Commands that take nothing but the name. */
export function expectNoMore(words: readonly string[]): void {
  if (words.length > 0) throw new UsageError(`ethtool: unexpected parameter '${words[0]}'\n`);
}

/** Of an attribute with a number in it, u8 as well as u32. */
const ATTRIBUTE_BYTES = 8;
/** Of nlmsghdr and genlmsghdr. */
const MESSAGE_HEADERS = 20;
const NEST = 4;

export const attributeBytes = (payload: number): number => NEST + ((payload + 3) & ~3);

/** Where the first attribute behind the one with the device's name begins. */
export const firstAttribute = (device: string): number =>
  MESSAGE_HEADERS + NEST + attributeBytes(Buffer.byteLength(device) + 1);
