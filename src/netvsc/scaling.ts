// Receive-side scaling as the owner of a device wants it, and what of it a host is told. The wish outlives an opening, so
// that a table or key set once is in force again after a reattach (facts/linux-guest.md 10.1 D3).
import { MICROSOFT_KEY } from '../offload/rss.js';
import {
  encodeRssParameters,
  NDIS_HASH_FUNCTION_TOEPLITZ,
  NDIS_HASH_TYPE,
  NDIS_RSS_FLAG,
  NDIS_RSS_KEY_BYTES,
} from '../wire/ndis.js';
import { NVSP_INDIRECTION_TABLE_ENTRIES } from '../wire/nvsp.js';

/** Channels that a device may have. */
export const MAX_QUEUES = 64;
/** Longest table that is set; a host repeats it to fill its own. */
const TABLE_ENTRIES = 128;
/** As Linux asks for it: never UDP, whose fragments would leave their flow (facts/linux-guest.md 1.3). */
const DEFAULT_HASH_TYPES =
  NDIS_HASH_TYPE.IPV4 | NDIS_HASH_TYPE.TCP_IPV4 | NDIS_HASH_TYPE.IPV6 | NDIS_HASH_TYPE.TCP_IPV6;
const ALL_HASH_TYPES = Object.values(NDIS_HASH_TYPE).reduce((all, bit) => all | bit, 0);

export interface RssSettings {
  /** 40 bytes. Default: the key of Microsoft's examples. */
  readonly key?: Uint8Array;
  /** Queue of each hash value modulo its length, 1 to 128 entries. Default: every queue in turn. */
  readonly table?: readonly number[];
  /** NDIS_HASH_TYPE bits; what none of them covers goes where hash 0 goes. Default: TCP and IP, v4 and v6. */
  readonly hashTypes?: number;
  /** Everything comes on queue 0. */
  readonly off?: boolean;
}

/** The same with every choice made. */
export type RssInForce = Required<Omit<RssSettings, 'off'>>;

/** What is wrong with settings for `queues` queues; undefined = nothing. */
export function rssFault({ key, table, hashTypes }: RssSettings, queues: number): string | undefined {
  if (key !== undefined && key.length !== NDIS_RSS_KEY_BYTES) {
    return `key: expected ${NDIS_RSS_KEY_BYTES} bytes, got ${key.length}`;
  }
  if (table !== undefined && !(table.length >= 1 && table.length <= TABLE_ENTRIES)) {
    return `table: expected 1 to ${TABLE_ENTRIES} entries, got ${table.length}`;
  }
  const wrong = table?.find((queue) => !(Number.isInteger(queue) && queue >= 0 && queue < queues));
  if (wrong !== undefined) return `table: expected queues 0 to ${queues - 1}, got ${wrong}`;
  if (hashTypes !== undefined && (hashTypes === 0 || (hashTypes & ~ALL_HASH_TYPES) !== 0)) {
    return `hashTypes: expected bits of 0x${ALL_HASH_TYPES.toString(16)}, got 0x${hashTypes.toString(16)}`;
  }
  return undefined;
}

/** Settings for `queues` queues; a table that names more is wrapped round. */
export function rssInForce(settings: RssSettings, queues: number, hostEntries: number): RssInForce {
  const entries = hostEntries >= 1 && hostEntries < TABLE_ENTRIES ? hostEntries : TABLE_ENTRIES;
  const table = settings.table ?? Array.from({ length: entries }, (_, i) => i);
  return {
    key: settings.key ?? MICROSOFT_KEY,
    table: table.map((queue) => queue % queues),
    hashTypes: settings.hashTypes ?? DEFAULT_HASH_TYPES,
  };
}

/** The two sets that a change takes: scaling off, then on anew (facts/dpdk.md 2.6). */
export function rssSteps({ key, table, hashTypes }: RssInForce): Uint8Array[] {
  const hashInformation = NDIS_HASH_FUNCTION_TOEPLITZ | hashTypes;
  return [NDIS_RSS_FLAG.DISABLE_RSS, 0].map((flags) => encodeRssParameters({ flags, hashInformation, table, key }));
}

/** An entry of the transmit table for each of so many hash values, as hosts send it. */
const TRANSMIT_ENTRIES = NVSP_INDIRECTION_TABLE_ENTRIES;

/**
 * Queue of each transmit hash modulo the table's length, from what the host sent (undefined: nothing). A table that gives one queue at least
 * twice its even share, 4 entries at least, is not followed: hosts have sent such ones by mistake (facts/linux-guest.md 10.3).
 */
export function transmitTable(host: readonly number[] | undefined, queues: number): readonly number[] {
  const even = Array.from({ length: TRANSMIT_ENTRIES }, (_, entry) => entry % queues);
  if (host === undefined) return even;
  const table = host.map((queue) => queue % queues);
  const entries = new Array<number>(queues).fill(0);
  for (const queue of table) entries[queue]!++;
  const share = Math.ceil(table.length / queues);
  return queues > 1 && Math.max(...entries) >= Math.max(2 * share, 4) ? even : table;
}
