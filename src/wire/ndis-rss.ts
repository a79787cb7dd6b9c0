// NDIS receive-side scaling: capabilities and parameters (facts/hyper-v-host.md 5, facts/dpdk.md 2.3 and 2.6).
import { struct, u8, u16, u32, WireError } from './struct.js';

export const NDIS_RSS_KEY_BYTES = 40;
export const NDIS_HASH_FUNCTION_TOEPLITZ = 0x1;
export const NDIS_HASH_FUNCTION_MASK = 0xff;
/** NDIS_RSS_CAPABILITIES.capabilitiesFlags, whose bits are not those of the hash types: the first three stand for TCP and plain IP. Those of
 *  UDP came with NDIS 6.80. */
export const NDIS_RSS_CAPABILITY = {
  ...{ TOEPLITZ: 0x1, IPV4: 0x100, IPV6: 0x200, IPV6_EX: 0x400 },
  ...{ UDP_IPV4: 0x800, UDP_IPV6: 0x1000, UDP_IPV6_EX: 0x2000 },
} as const;
export const NDIS_HASH_TYPE = {
  IPV4: 0x100,
  TCP_IPV4: 0x200,
  IPV6: 0x400,
  IPV6_EX: 0x800,
  TCP_IPV6: 0x1000,
  TCP_IPV6_EX: 0x2000,
  UDP_IPV4: 0x4000,
  UDP_IPV6: 0x8000,
  UDP_IPV6_EX: 0x10000,
} as const;

const HASH_INFORMATION = { TOEPLITZ: 0x1, ...NDIS_HASH_TYPE } as const;

/** NDIS_RSS_PARAMETERS.flags. */
export const NDIS_RSS_FLAG = {
  BASE_CPU_UNCHANGED: 0x1,
  HASH_INFO_UNCHANGED: 0x2,
  INDIRECTION_TABLE_UNCHANGED: 0x4,
  HASH_KEY_UNCHANGED: 0x8,
  DISABLE_RSS: 0x10,
} as const;

/** Bytes of NDIS_RSS_CAPABILITIES by revision. */
export const NDIS_RSS_CAPABILITIES_SIZE = { 1: 16, 2: 18 } as const;

/** Answer to GEN_RECEIVE_SCALE_CAPABILITIES. */
export const NdisRssCapabilities = struct('NDIS_RSS_CAPABILITIES', {
  type: u8(0, 'object type', { equals: 0x88 }),
  revision: u8(1, 'revision 1 or 2'),
  objectSize: u16(2, '16 or 18', { unit: 'bytes' }),
  capabilitiesFlags: u32(4, 'hash function and families', { flags: NDIS_RSS_CAPABILITY, default: 0 }),
  numberOfInterruptMessages: u32(8, 'interrupt messages', { default: 0 }),
  numberOfReceiveQueues: u32(12, 'most channels, the primary counted', { default: 0 }),
  numberOfIndirectionTableEntries: u16(16, 'largest table', { since: 'revision 2', default: 0 }),
});

/** Set with GEN_RECEIVE_SCALE_PARAMETERS; the table (u32 entries) and the key follow. Offsets count from this structure. */
export const NdisRssParameters = struct('NDIS_RSS_PARAMETERS', {
  type: u8(0, 'object type', { equals: 0x89 }),
  revision: u8(1, 'revision: 2'),
  objectSize: u16(2, '40: the fixed part', { unit: 'bytes' }),
  flags: u16(4, 'what to leave as it is; or disable', { flags: NDIS_RSS_FLAG }),
  baseCpuNumber: u16(6, 'unused', { default: 0 }),
  hashInformation: u32(8, 'hash function and types', { flags: HASH_INFORMATION }),
  indirectionTableSize: u16(12, 'bytes of the table', { unit: 'bytes' }),
  reserved: u16(14, 'padding', { default: 0 }),
  indirectionTableOffset: u32(16, 'table', { unit: 'bytes' }),
  hashSecretKeySize: u16(20, 'bytes of the key: 40', { unit: 'bytes' }),
  reserved2: u16(22, 'padding', { default: 0 }),
  hashSecretKeyOffset: u32(24, 'key', { unit: 'bytes' }),
  processorMasksOffset: u32(28, 'unused', { unit: 'bytes', default: 0 }),
  numberOfProcessorMasks: u32(32, 'unused', { default: 0 }),
  processorMasksEntrySize: u32(36, 'unused', { unit: 'bytes', default: 0 }),
});

export const NDIS_RSS_TABLES = [NdisRssCapabilities, NdisRssParameters] as const;

export interface RssParameters {
  /** NDIS_RSS_FLAG bits. */
  readonly flags: number;
  /** Hash function and NDIS_HASH_TYPE bits. */
  readonly hashInformation: number;
  /** Channel (0 = primary) of each hash value modulo its length. */
  readonly table: readonly number[];
  readonly key: Uint8Array;
}

/** Fixed part, table, key: 592 bytes with 128 entries and a 40-byte key. Throws WireError. */
export function encodeRssParameters({ flags, hashInformation, table, key }: RssParameters): Uint8Array<ArrayBuffer> {
  const { name, size, encodeInto } = NdisRssParameters;
  const keyAt = size + table.length * 4;
  const bytes = new Uint8Array(keyAt + key.length);
  const view = new DataView(bytes.buffer);
  encodeInto(
    {
      revision: 2,
      objectSize: size,
      flags,
      hashInformation,
      indirectionTableSize: table.length * 4,
      indirectionTableOffset: size,
      hashSecretKeySize: key.length,
      hashSecretKeyOffset: keyAt,
    },
    bytes,
  );
  for (const [i, entry] of table.entries()) {
    if (!Number.isInteger(entry) || entry < 0 || entry > 0xffffffff) {
      throw new WireError(name, `table[${i}]`, `expected a channel number, got ${entry}`);
    }
    view.setUint32(size + i * 4, entry, true);
  }
  bytes.set(key, keyAt);
  return bytes;
}

/** The header's type is not checked, as hosts do not. Entries are the guest's: the caller checks them. Throws WireError. */
export function decodeRssParameters(bytes: Uint8Array): RssParameters {
  const { name, size, decode, offset } = NdisRssParameters;
  const head = bytes.slice();
  if (head.length > offset.type) head[offset.type] = 0x89;
  const { flags, hashInformation, ...fixed } = decode(head);
  const part = (field: string, at: number, length: number): Uint8Array => {
    if (length === 0) return new Uint8Array(0);
    if (at < size || at + length > bytes.length) {
      throw new WireError(name, field, `expected ${size}..${bytes.length}, got ${length} bytes at ${at}`);
    }
    return head.slice(at, at + length);
  };
  const entries = part('indirectionTableOffset', fixed.indirectionTableOffset, fixed.indirectionTableSize);
  if (entries.length % 4 !== 0) {
    throw new WireError(name, 'indirectionTableSize', `expected a multiple of 4, got ${entries.length}`);
  }
  const view = new DataView(entries.buffer);
  const table = Array.from({ length: entries.length / 4 }, (_, i) => view.getUint32(i * 4, true));
  return {
    flags,
    hashInformation,
    table,
    key: part('hashSecretKeyOffset', fixed.hashSecretKeyOffset, fixed.hashSecretKeySize),
  };
}

type Capabilities = ReturnType<typeof NdisRssCapabilities.decode>;

/** Revision 1 (16 bytes) or later; the table size is 0 when the revision lacks it. Throws WireError. */
export function decodeRssCapabilities(bytes: Uint8Array): Capabilities {
  if (bytes.length < NDIS_RSS_CAPABILITIES_SIZE[1]) {
    throw new WireError(NdisRssCapabilities.name, '', `expected at least 16 bytes, got ${bytes.length}`);
  }
  const whole = new Uint8Array(NdisRssCapabilities.size);
  whole.set(bytes.subarray(0, whole.length));
  return NdisRssCapabilities.decode(whole);
}
