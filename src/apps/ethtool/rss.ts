// Receive-side scaling: -x and -X.
import type { RssState } from '../../netdev/control.js';
import type { RemoteNetdev } from '../../netdev/control-client.js';
import { type Asked, badArguments, byIoctl, type Command, ioctlFailure, UsageError } from './types.js';
import { parseU32 } from './words.js';

/** Names of the kernel's hash functions; ours have the first only. */
const FUNCTIONS = ['toeplitz', 'xor', 'crc32'];
const PER_LINE = 8;
const KEY_WRONG = 2;
const CANNOT_SET = 'Cannot set RX flow hash configuration';
const CANNOT_GET_SIZE = 'Cannot get RX flow hash indirection table size';
const INT_MAX = 0x7fff_ffff;

export const showRss: Command = async (asked) => {
  const [option, number] = asked.words;
  const context = option === 'context' && asked.words.length === 2 ? parseU32(number!) : undefined;
  if (asked.words.length > 0 && context === undefined) throw badArguments();
  return withTable(asked, async (remote) => {
    const state = await remote.rss();
    // The default context is number 0, others there are none.
    if (context !== undefined && context !== 0) return notSupported(asked, CANNOT_GET_SIZE);
    asked.out(rssText(asked.name, state));
    return 0;
  });
};

/** ethtool asks for the number of rings first, which every device knows, and then for the table. */
function withTable(asked: Asked, work: (remote: RemoteNetdev) => Promise<number>): Promise<number> {
  return byIoctl(asked, 1, 'Cannot get RX ring count', async (remote) => {
    try {
      return await work(remote);
    } catch (error) {
      ioctlFailure(asked, CANNOT_GET_SIZE, error);
      return 1;
    }
  });
}

export function rssText(name: string, { rings, table, key }: RssState): string {
  const rows: string[] = [];
  for (let at = 0; at < table.length; at += PER_LINE) {
    const entries = table.slice(at, at + PER_LINE).map((entry) => ` ${`${entry}`.padStart(5)}`);
    rows.push(`${`${at}`.padStart(5)}: ${entries.join('')}\n`);
  }
  const missing = 'Operation not supported\n';
  const hex = key.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
  const functions = FUNCTIONS.map((entry) => `    ${entry}: ${entry === 'toeplitz' ? 'on' : 'off'}\n`);
  return [
    `RX flow hash indirection table for ${name} with ${rings} RX ring(s):\n`,
    rows.length > 0 ? rows.join('') : missing,
    `RSS hash key:\n${key.length > 0 ? `${hex}\n` : missing}`,
    `RSS hash function:\n${functions.join('')}`,
  ].join('');
}

/** The words of -X. */
interface RssWish {
  equal?: number;
  weights?: readonly number[];
  start?: number;
  byDefault?: boolean;
  key?: string;
  hashFunction?: string;
  /** A number or "new". */
  context?: number | 'new';
  remove?: boolean;
}

function parseWish(words: readonly string[]): RssWish {
  const wish: RssWish = {};
  const whole = (word: string | undefined, min: number): number => {
    const value = word === undefined ? undefined : parseU32(word);
    if (value === undefined || value < min || value > INT_MAX) throw badArguments();
    return value;
  };
  for (let at = 0; at < words.length; ) {
    const next = words[at + 1];
    switch (words[at]) {
      case 'equal':
        wish.equal = whole(next, 1);
        at += 2;
        break;
      case 'start':
        wish.start = whole(next, 0);
        at += 2;
        break;
      case 'weight': {
        const weights: number[] = [];
        for (at++; at < words.length && /^\d/.test(words[at]!); at++) weights.push(whole(words[at], 0));
        if (weights.length === 0) throw badArguments();
        wish.weights = weights;
        break;
      }
      case 'hkey':
      case 'hfunc':
        if (next === undefined) throw badArguments();
        if (words[at] === 'hkey') wish.key = next;
        else wish.hashFunction = next;
        at += 2;
        break;
      case 'context':
        wish.context = next === 'new' ? 'new' : whole(next, 0);
        at += 2;
        break;
      case 'default':
        wish.byDefault = true;
        at++;
        break;
      case 'delete':
        wish.remove = true;
        at++;
        break;
      default:
        throw badArguments();
    }
  }
  if (words.length === 0) throw badArguments();
  refuseContradictions(wish);
  return wish;
}

function refuseContradictions({ equal, weights, start, byDefault, remove, context }: RssWish): void {
  const say = (text: string): never => {
    throw new UsageError(`${text}\n`);
  };
  if (equal !== undefined && weights) say('Equal and weight options are mutually exclusive');
  if (equal !== undefined && byDefault) say('Equal and default options are mutually exclusive');
  if (weights && byDefault) say('Weight and default options are mutually exclusive');
  if (start !== undefined && byDefault) say('Start and default options are mutually exclusive');
  if (start !== undefined && equal === undefined && !weights) say('Start must be used with equal or weight options');
  if (remove && context === undefined) say('Delete option requires context option');
}

export const setRss: Command = async (asked) => {
  const wish = parseWish(asked.words);
  return withTable(asked, async (remote) => {
    const state = await remote.rss();
    const { hashFunction } = wish;
    if (hashFunction !== undefined && !FUNCTIONS.includes(hashFunction)) {
      asked.err(`Unknown hash function: ${hashFunction}\n`);
      return 1;
    }
    const key = wish.key === undefined ? undefined : parseKey(asked, wish.key, state.key.length);
    if (typeof key === 'number') return key;
    const table = makeTable(asked, wish, state);
    if (typeof table === 'number') return table;
    if (wish.context !== undefined && wish.context !== 0) return notSupported(asked, CANNOT_SET);
    if (hashFunction !== undefined && hashFunction !== 'toeplitz') return notSupported(asked, CANNOT_SET);
    const wrong = table?.find((entry) => entry >= state.rings);
    if (wrong !== undefined) {
      asked.err(`${CANNOT_SET}: Invalid argument\n`);
      asked.err(`netvsc: ${asked.name}: expected channels 0 to ${state.rings - 1} in the table, got ${wrong}\n`);
      return 1;
    }
    try {
      if (table || key) await remote.setRss({ ...(table ? { table } : {}), ...(key ? { key } : {}) });
    } catch (error) {
      ioctlFailure(asked, CANNOT_SET, error);
      return 1;
    }
    return 0;
  });
};

/** Bytes of "6d:5a:..."; an exit code when they are none or too few or too many, which is said. */
function parseKey(asked: Asked, given: string, size: number): readonly number[] | number {
  const parts = given.split(':');
  const refuse = (text: string, exitCode: number) => {
    asked.err(`${text}\n`);
    return exitCode;
  };
  if (size === 0) return refuse(`${CANNOT_SET}:\n Hash key setting not supported`, 1);
  const bytes: number[] = [];
  for (const part of parts) {
    if (!/^[0-9a-fA-F]{2}$/.test(part)) return refuse('Invalid RSS hash key format', KEY_WRONG);
    bytes.push(Number.parseInt(part, 16));
  }
  if (bytes.length < size) return refuse(`Key is too short for device (${bytes.length} < ${size})`, KEY_WRONG);
  if (bytes.length > size) return refuse(`Key is too long for device (${bytes.length} > ${size})`, KEY_WRONG);
  return bytes;
}

/** Undefined: it stays. An exit code when there is none such, which is said. */
function makeTable(
  asked: Asked,
  { equal, weights, start = 0, byDefault }: RssWish,
  { table }: RssState,
): readonly number[] | undefined | number {
  const size = table.length;
  if (byDefault) return [];
  if (equal !== undefined) return table.map((_, index) => start + (index % equal));
  if (!weights) return undefined;
  const sum = weights.reduce((total, weight) => total + weight, 0);
  const problem =
    sum === 0
      ? 'At least one weight must be non-zero'
      : sum > size
        ? 'Total weight exceeds the size of the indirection table'
        : undefined;
  if (problem !== undefined) {
    asked.err(`${problem}\n`);
    return 1;
  }
  return spread(weights, sum, size).map((entry) => start + entry);
}

/** Channel i gets entries until its part of the sum is reached, rounded down as ethtool rounds. */
function spread(weights: readonly number[], sum: number, size: number): number[] {
  const entries: number[] = [];
  let channel = -1;
  let reached = 0;
  for (let index = 0; index < size; index++) {
    while (index >= Math.floor((size * reached) / sum)) reached += weights[++channel]!;
    entries.push(channel);
  }
  return entries;
}

function notSupported(asked: Asked, what: string): number {
  asked.err(`${what}: Operation not supported\n`);
  return 1;
}
