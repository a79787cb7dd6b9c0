// NDIS structures: offload in ndis-offload.ts, receive-side scaling in ndis-rss.ts, the others here.
import { struct, u8, u16, u32, u64, WireError } from './struct.js';

export * from './ndis-offload.js';
export * from './ndis-rss.js';

/** NDIS_OBJECT_HEADER.type. */
export const NDIS_OBJECT = {
  DEFAULT: 0x80,
  RSS_CAPABILITIES: 0x88,
  RSS_PARAMETERS: 0x89,
  OFFLOAD: 0xa7,
  OFFLOAD_ENCAPSULATION: 0xa8,
} as const;

/** First 4 bytes of most structures. `size` is the sender's; a newer revision only appends fields. */
export const NdisObjectHeader = struct('NDIS_OBJECT_HEADER', {
  type: u8(0, 'kind of structure', { names: NDIS_OBJECT }),
  revision: u8(1, 'revision of the structure'),
  size: u16(2, 'bytes of the structure, header included', { unit: 'bytes' }),
});

/** Answer to GEN_LINK_STATE. */
export const NdisLinkState = struct('NDIS_LINK_STATE', {
  type: u8(0, 'object type', { equals: 0x80 }),
  revision: u8(1, 'revision: 1'),
  objectSize: u16(2, '40', { unit: 'bytes' }),
  mediaConnectState: u32(4, 'state', { names: { UNKNOWN: 0, CONNECTED: 1, DISCONNECTED: 2 } }),
  mediaDuplexState: u32(8, 'duplex', { names: { UNKNOWN: 0, HALF: 1, FULL: 2 } }),
  reserved: u32(12, 'padding', { default: 0 }),
  transmitLinkSpeed: u64(16, 'speed', { unit: 'bit/s' }),
  receiveLinkSpeed: u64(24, 'speed', { unit: 'bit/s' }),
  pauseFunctions: u32(32, '0 = unsupported'),
  autoNegotiationFlags: u32(36, '0 = none', { hex: true }),
});

/** Answer to GEN_MAX_LINK_SPEED. */
export const NdisMaxLinkSpeed = struct('NDIS_MAX_LINK_SPEED', {
  transmitLinkSpeed: u64(0, 'speed', { unit: 'bit/s' }),
  receiveLinkSpeed: u64(8, 'speed', { unit: 'bit/s' }),
});

/** GEN_RNDIS_CONFIG_PARAMETER: a name and a value in UTF-16 follow; offsets count from this structure. */
export const NdisConfigParameter = struct('NDIS_CONFIG_PARAMETER', {
  parameterNameOffset: u32(0, 'name', { unit: 'bytes' }),
  parameterNameLength: u32(4, 'bytes of the name', { unit: 'bytes' }),
  parameterType: u32(8, 'type', { names: { INTEGER: 0, STRING: 2 } }),
  parameterValueOffset: u32(12, 'value', { unit: 'bytes' }),
  parameterValueLength: u32(16, 'bytes of the value', { unit: 'bytes' }),
});

export const NDIS_PARAMETER_TYPE = { INTEGER: 0, STRING: 2 } as const;

/** Hosts refuse longer names and values (facts/hyper-v-host.md 4.4). */
const MAX_PARAMETER_BYTES = 255;

export interface ConfigParameter {
  readonly name: string;
  readonly type: number;
  /** A number for INTEGER, text for STRING. */
  readonly value: string | number;
}

function utf16(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length * 2);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < text.length; i++) view.setUint16(i * 2, text.charCodeAt(i), true);
  return bytes;
}

/** A string parameter, e.g. ("NetworkAddress", "00155D010203"). Throws WireError beyond 255 bytes. */
export function encodeConfigParameter(name: string, value: string | number): Uint8Array<ArrayBuffer> {
  const nameBytes = utf16(name);
  const isText = typeof value === 'string';
  const valueBytes = isText ? utf16(value) : new Uint8Array(Uint32Array.of(value).buffer);
  for (const [field, { length }] of [
    ['parameterNameLength', nameBytes] as const,
    ['parameterValueLength', valueBytes] as const,
  ]) {
    if (length > MAX_PARAMETER_BYTES) {
      throw new WireError(
        NdisConfigParameter.name,
        field,
        `expected at most ${MAX_PARAMETER_BYTES} bytes, got ${length}`,
      );
    }
  }
  const { size } = NdisConfigParameter;
  const bytes = new Uint8Array(size + nameBytes.length + valueBytes.length);
  NdisConfigParameter.encodeInto(
    {
      parameterNameOffset: size,
      parameterNameLength: nameBytes.length,
      parameterType: isText ? NDIS_PARAMETER_TYPE.STRING : NDIS_PARAMETER_TYPE.INTEGER,
      parameterValueOffset: size + nameBytes.length,
      parameterValueLength: valueBytes.length,
    },
    bytes,
  );
  bytes.set(nameBytes, size);
  bytes.set(valueBytes, size + nameBytes.length);
  return bytes;
}

export function decodeConfigParameter(bytes: Uint8Array): ConfigParameter {
  const head = NdisConfigParameter.decode(bytes);
  const { parameterType: type } = head;
  const part = (field: string, offset: number, length: number): Uint8Array => {
    if (length > MAX_PARAMETER_BYTES || offset < NdisConfigParameter.size || offset + length > bytes.length) {
      const what = `expected at most ${MAX_PARAMETER_BYTES} bytes inside ${bytes.length}, got ${length} at ${offset}`;
      throw new WireError(NdisConfigParameter.name, field, what);
    }
    return bytes.slice(offset, offset + length);
  };
  const text = (raw: Uint8Array): string => {
    let out = '';
    for (let i = 0; i + 1 < raw.length; i += 2) out += String.fromCharCode(raw[i]! | (raw[i + 1]! << 8));
    return out;
  };
  const name = text(part('parameterNameOffset', head.parameterNameOffset, head.parameterNameLength));
  const raw = part('parameterValueOffset', head.parameterValueOffset, head.parameterValueLength);
  if (type !== NDIS_PARAMETER_TYPE.INTEGER) return { name, type, value: text(raw) };
  if (raw.length < 4) {
    throw new WireError(NdisConfigParameter.name, 'parameterValueLength', `expected 4 bytes, got ${raw.length}`);
  }
  return { name, type, value: new DataView(raw.buffer).getUint32(0, true) };
}

export const NDIS_TABLES = [NdisObjectHeader, NdisLinkState, NdisMaxLinkSpeed, NdisConfigParameter] as const;
