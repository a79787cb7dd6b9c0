// Byte layouts as data. A layout is written once as a table of fields; offsets, decoder, encoder and text come from it.

import type { FieldSpec, FieldType, FieldValue } from './field.js';
import * as field from './field.js';

export {
  type FieldOptions,
  type FieldSpec,
  type FieldType,
  type FieldValue,
  flagsText,
  nameOf,
  WireError,
} from './field.js';

type Table = Readonly<Record<string, FieldSpec<FieldValue, boolean>>>;

/** What `decode` returns: one property per field. */
export type Value<T extends Table> = { -readonly [K in keyof T]: T[K] extends FieldSpec<infer V, boolean> ? V : never };

type GivenKeys<T extends Table> = { [K in keyof T]: T[K] extends FieldSpec<FieldValue, true> ? never : K }[keyof T];

/** What `encode` takes: fields with a constant or a default may be left out. */
export type Input<T extends Table> = Pick<Value<T>, GivenKeys<T>> & Partial<Omit<Value<T>, GivenKeys<T>>>;

/** A field as generators see it. */
export interface FieldInfo {
  readonly name: string;
  readonly type: FieldType;
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
  readonly doc: string;
  readonly unit?: string;
  /** First protocol version (of the layout's protocol) that has the field. */
  readonly since?: string;
  readonly names?: Readonly<Record<string, number>>;
  readonly flags?: Readonly<Record<string, number>>;
  readonly equals?: number;
  readonly default?: FieldValue;
  readonly hex?: boolean;
}

export interface Struct<T extends Table> {
  readonly name: string;
  /** Bytes of the fixed part. */
  readonly size: number;
  readonly offset: { readonly [K in keyof T]: number };
  readonly fields: readonly FieldInfo[];
  /** Reads `size` bytes at `at`. Throws WireError when they are not there or a constant field has another value. */
  decode(bytes: Uint8Array, at?: number): Value<T>;
  encode(value: Input<T>): Uint8Array<ArrayBuffer>;
  /** Writes `size` bytes at `at`, gaps as zeros. Throws WireError, and then nothing is written. */
  encodeInto(value: Input<T>, target: Uint8Array, at?: number): void;
  /** One line; fields that are constant, or reserved and zero, are left out. */
  text(value: Input<T>): string;
}

/** A struct whose fields are not known statically (generators, fuzzers). */
export interface AnyStruct {
  readonly name: string;
  readonly size: number;
  readonly offset: Readonly<Record<string, number>>;
  readonly fields: readonly FieldInfo[];
  decode(bytes: Uint8Array, at?: number): Record<string, FieldValue>;
  encode(value: Record<string, FieldValue>): Uint8Array<ArrayBuffer>;
  encodeInto(value: Record<string, FieldValue>, target: Uint8Array, at?: number): void;
  text(value: Record<string, FieldValue>): string;
}

export type ValueOf<S> = S extends Struct<infer T> ? Value<T> : never;
export type InputOf<S> = S extends Struct<infer T> ? Input<T> : never;

/** Declares a layout. `name` is the protocol's own name of it. */
export function struct<const T extends Table>(name: string, table: T): Struct<T> {
  const entries = Object.entries(table);
  const fields: FieldInfo[] = entries.map(([key, { type, offset, size, doc, options }]) => {
    return { name: key, type, offset, size, doc, ...options };
  });
  const size = fields.reduce((end, f) => Math.max(end, f.offset + f.size), 0);
  const offset = Object.fromEntries(fields.map((f) => [f.name, f.offset])) as { readonly [K in keyof T]: number };

  const checked = (value: Input<T>): FieldValue[] =>
    fields.map((f) => {
      const given = (value as Record<string, FieldValue | undefined>)[f.name] ?? f.equals ?? f.default;
      if (given === undefined) throw new field.WireError(name, f.name, 'a value is missing');
      return field.check(name, f, given);
    });

  const encodeInto = (value: Input<T>, target: Uint8Array, at = 0): void => {
    field.bounds(name, target, at, size);
    const values = checked(value);
    target.fill(0, at, at + size);
    const view = new DataView(target.buffer, target.byteOffset + at, size);
    for (let i = 0; i < fields.length; i++) field.write(view, fields[i]!, values[i]!);
  };

  return {
    name,
    size,
    offset,
    fields,
    decode(bytes, at = 0) {
      field.bounds(name, bytes, at, size);
      const view = new DataView(bytes.buffer, bytes.byteOffset + at, size);
      const value: Record<string, FieldValue> = {};
      for (const f of fields) {
        const got = field.read(view, f);
        if (f.equals !== undefined && got !== f.equals) {
          throw new field.WireError(
            name,
            f.name,
            `expected ${field.valueText(f, f.equals)}, got ${field.valueText(f, got)}`,
          );
        }
        value[f.name] = got;
      }
      return value as Value<T>;
    },
    encode(value) {
      const bytes = new Uint8Array(size);
      encodeInto(value, bytes);
      return bytes;
    },
    encodeInto,
    text(value) {
      const parts = [name];
      for (const f of fields) {
        const v = (value as Record<string, FieldValue | undefined>)[f.name];
        if (v === undefined || f.equals !== undefined || (f.default !== undefined && field.isZero(v))) continue;
        parts.push(`${f.name}=${field.valueText(f, v)}`);
      }
      return parts.join(' ');
    },
  };
}

/** Integers are little-endian unless the name ends in `be`. */
export const u8 = field.integer('u8', 1);
export const u16 = field.integer('u16', 2);
export const u32 = field.integer('u32', 4);
export const i32 = field.integer('i32', 4);
export const u16be = field.integer('u16be', 2);
export const u32be = field.integer('u32be', 4);
export const u64 = field.other<bigint>('u64', 8);
/** `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, lower case; the first three groups are little-endian on the wire. */
export const guid = field.other<string>('guid', 16);
/** `xx:xx:xx:xx:xx:xx`, lower case. */
export const mac = field.other<string>('mac', 6);
/** Dotted decimal. */
export const ipv4 = field.other<string>('ipv4', 4);
/** Text of RFC 5952. */
export const ipv6 = field.other<string>('ipv6', 16);

/** `size` raw bytes; decode copies them. */
export function bytes<const O extends field.FieldOptions<Uint8Array>>(
  offset: number,
  size: number,
  doc: string,
  options?: O,
): FieldSpec<Uint8Array, field.Omissible<O>> {
  return { type: 'bytes', offset, size, doc, options: options ?? {} };
}

/** `size` reserved bytes: zero when left out, kept by decode. */
export function reserved(offset: number, size: number): FieldSpec<Uint8Array, true> {
  return { type: 'bytes', offset, size, doc: 'reserved', options: { default: new Uint8Array(size) } };
}
