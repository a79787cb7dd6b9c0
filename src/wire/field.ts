// The field types of wire/struct.ts: reading, writing, checking and printing one value.
import { formatIpv4, formatIpv6, formatMac, parseIpv4, parseIpv6, parseMac } from './address-text.js';

/** Every malformed layout, from either side: which layout, which field, what was expected and what came. */
export class WireError extends Error {
  override name = 'WireError';
  readonly layout: string;
  readonly field: string;

  constructor(layout: string, field: string, what: string) {
    super(`${layout}${field === '' ? '' : `.${field}`}: ${what}`);
    this.layout = layout;
    this.field = field;
  }
}

export type FieldType =
  | 'u8'
  | 'u16'
  | 'u32'
  | 'i32'
  | 'u16be'
  | 'u32be'
  | 'u64'
  | 'bytes'
  | 'guid'
  | 'mac'
  | 'ipv4'
  | 'ipv6';

export type FieldValue = number | bigint | string | Uint8Array;

export interface FieldOptions<V> {
  /** The only legal value: filled in by encode, checked by decode. */
  readonly equals?: V & number;
  /** Used when encode is given none (reserved fields). */
  readonly default?: V;
  readonly unit?: string;
  readonly since?: string;
  /** Names of single values. The field stays open: other values are legal. */
  readonly names?: Readonly<Record<string, number>>;
  /** Names of bits. */
  readonly flags?: Readonly<Record<string, number>>;
  /** Printed in hexadecimal. */
  readonly hex?: boolean;
}

export interface FieldSpec<V, Omit extends boolean> {
  readonly type: FieldType;
  readonly offset: number;
  readonly size: number;
  readonly doc: string;
  readonly options: FieldOptions<V & FieldValue>;
  /** Never there at run time; carries the type. */
  readonly omissible?: Omit;
  readonly value?: V;
}

/** True when encode may be called without the field. */
export type Omissible<O> = O extends { readonly equals: unknown } | { readonly default: unknown } ? true : false;

type Maker<V> = <const O extends FieldOptions<V>>(
  offset: number,
  doc: string,
  options?: O,
) => FieldSpec<V, Omissible<O>>;

export function integer(type: FieldType, size: number): Maker<number> {
  return (offset, doc, options) => ({ type, offset, size, doc, options: options ?? {} });
}

export function other<V extends FieldValue>(type: FieldType, size: number): Maker<V> {
  return (offset, doc, options) => ({
    type,
    offset,
    size,
    doc,
    options: (options ?? {}) as FieldOptions<V & FieldValue>,
  });
}

interface Info {
  readonly name: string;
  readonly type: FieldType;
  readonly offset: number;
  readonly size: number;
  readonly equals?: number;
  readonly unit?: string;
  readonly names?: Readonly<Record<string, number>>;
  readonly flags?: Readonly<Record<string, number>>;
  readonly hex?: boolean;
}

/** Throws unless `size` bytes lie at `at`. */
export function bounds(layout: string, bytes: Uint8Array, at: number, size: number): void {
  if (!Number.isSafeInteger(at) || at < 0 || at > bytes.length || bytes.length - at < size) {
    throw new WireError(layout, '', `expected ${size} bytes at offset ${at}, got a buffer of ${bytes.length} bytes`);
  }
}

const LIMITS: Readonly<Partial<Record<FieldType, readonly [number, number]>>> = {
  u8: [0, 0xff],
  u16: [0, 0xffff],
  u16be: [0, 0xffff],
  u32: [0, 0xffffffff],
  u32be: [0, 0xffffffff],
  i32: [-0x80000000, 0x7fffffff],
};

const GUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** The value if it fits the field, else WireError. */
export function check(layout: string, f: Info, value: FieldValue): FieldValue {
  const limits = LIMITS[f.type];
  const bad = (expected: string): never => {
    throw new WireError(layout, f.name, `expected ${expected}, got ${show(value)}`);
  };
  if (limits) {
    if (!Number.isInteger(value) || (value as number) < limits[0] || (value as number) > limits[1]) {
      bad(`an integer ${limits[0]}..${limits[1]}`);
    }
    if (f.equals !== undefined && value !== f.equals) bad(valueText(f, f.equals));
  } else if (f.type === 'u64') {
    if (typeof value !== 'bigint' || value < 0n || value > 0xffffffffffffffffn) bad('a bigint of 64 bits');
  } else if (f.type === 'bytes') {
    if (!(value instanceof Uint8Array) || value.length !== f.size) bad(`${f.size} bytes`);
  } else if (f.type === 'guid') {
    if (typeof value !== 'string' || !GUID.test(value)) bad('a GUID');
  } else if (f.type === 'mac') {
    if (typeof value !== 'string' || !parseMac(value)) bad('a MAC address');
  } else if (f.type === 'ipv4') {
    if (typeof value !== 'string' || !parseIpv4(value)) bad('an IPv4 address');
  } else if (typeof value !== 'string' || !parseIpv6(value)) bad('an IPv6 address');
  return value;
}

export function read(view: DataView, f: Info): FieldValue {
  const at = f.offset;
  switch (f.type) {
    case 'u8':
      return view.getUint8(at);
    case 'u16':
      return view.getUint16(at, true);
    case 'u32':
      return view.getUint32(at, true);
    case 'i32':
      return view.getInt32(at, true);
    case 'u16be':
      return view.getUint16(at, false);
    case 'u32be':
      return view.getUint32(at, false);
    case 'u64':
      return view.getBigUint64(at, true);
  }
  const raw = new Uint8Array(view.buffer, view.byteOffset + at, f.size).slice();
  if (f.type === 'bytes') return raw;
  if (f.type === 'mac') return formatMac(raw);
  if (f.type === 'ipv4') return formatIpv4(raw);
  if (f.type === 'ipv6') return formatIpv6(raw);
  return formatGuid(raw);
}

/** Writes a value that `check` accepted. */
export function write(view: DataView, f: Info, value: FieldValue): void {
  const at = f.offset;
  if (f.type === 'u8') view.setUint8(at, value as number);
  else if (f.type === 'u16') view.setUint16(at, value as number, true);
  else if (f.type === 'u32') view.setUint32(at, value as number, true);
  else if (f.type === 'i32') view.setInt32(at, value as number, true);
  else if (f.type === 'u16be') view.setUint16(at, value as number, false);
  else if (f.type === 'u32be') view.setUint32(at, value as number, false);
  else if (f.type === 'u64') view.setBigUint64(at, value as bigint, true);
  else new Uint8Array(view.buffer, view.byteOffset + at, f.size).set(toBytes(f.type, value));
}

function toBytes(type: FieldType, value: FieldValue): Uint8Array {
  if (type === 'mac') return parseMac(value as string)!;
  if (type === 'ipv4') return parseIpv4(value as string)!;
  if (type === 'ipv6') return parseIpv6(value as string)!;
  if (type === 'guid') return parseGuid(value as string);
  return value as Uint8Array;
}

/** Position on the wire of each byte of the text: the first three groups are stored little-endian. */
const GUID_ORDER = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

function parseGuid(text: string): Uint8Array {
  const digits = text.replaceAll('-', '');
  return Uint8Array.from(GUID_ORDER, (i) => Number.parseInt(digits.slice(i * 2, i * 2 + 2), 16));
}

function formatGuid(raw: Uint8Array): string {
  const digits = GUID_ORDER.map((i) => raw[i]!.toString(16).padStart(2, '0')).join('');
  return [digits.slice(0, 8), digits.slice(8, 12), digits.slice(12, 16), digits.slice(16, 20), digits.slice(20)].join(
    '-',
  );
}

export function isZero(value: FieldValue): boolean {
  return value instanceof Uint8Array ? value.every((b) => b === 0) : value === 0 || value === 0n;
}

function show(value: unknown): string {
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  return typeof value === 'bigint' ? `${value}n` : String(value);
}

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

/** A value as the trace prints it. */
export function valueText(f: Info, value: FieldValue): string {
  if (value instanceof Uint8Array) {
    const shown = Array.from(value.subarray(0, 32), (b) => b.toString(16).padStart(2, '0')).join('');
    return `${shown === '' ? '-' : shown}${value.length > 32 ? `...(${value.length} bytes)` : ''}`;
  }
  if (typeof value === 'string') return value;
  if (f.names && typeof value === 'number') return nameOf(f.names, value);
  if (f.flags) return flagsText(f.flags, Number(value));
  if (f.hex || typeof value === 'bigint') return hex(value);
  return f.unit ? `${value} ${f.unit}` : String(value);
}

/** The table's name of a number, else the number in hexadecimal. */
export function nameOf(names: Readonly<Record<string, number>>, value: number): string {
  for (const [name, number] of Object.entries(names)) if (number === value) return name;
  return hex(value);
}

/** Names of the bits that are set; bits without a name in hexadecimal; `0` when none is set. */
export function flagsText(flags: Readonly<Record<string, number>>, value: number): string {
  const parts: string[] = [];
  let rest = BigInt(value);
  for (const [name, bit] of Object.entries(flags)) {
    if (bit !== 0 && (BigInt(value) & BigInt(bit)) === BigInt(bit)) {
      parts.push(name);
      rest &= ~BigInt(bit);
    }
  }
  if (rest !== 0n) parts.push(hex(rest));
  return parts.length === 0 ? '0' : parts.join('|');
}
