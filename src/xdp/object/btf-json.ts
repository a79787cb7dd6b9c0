// Values by BTF type, as JSON and back: keys and values of maps, global variables.
//   integers        numbers; decimal text beyond 2^53; 0x.. and true/false are taken too, `_Bool` gives true/false
//   char            text of one character if printable; arrays of char: text up to the zero bytes at the end
//   enums           names; numbers where there is none
//   structs, unions objects; members of anonymous ones belong to what they are in; a union shows all its members
//   pointers        text, 0x..
// Padding is not shown. bytes > JSON > bytes gives the same bytes, but for padding.
import { BTF_INT_ENCODING, BTF_KIND } from '../../wire/btf.js';
import { readBits, writeBits } from './bits.js';
import type { Btf, BtfArrayType, BtfEnumeration, BtfFloat, BtfInteger, BtfStruct } from './btf.js';
import { ObjectError } from './errors.js';

export type JsonValue =
  | null
  | boolean
  | number
  | string
  | readonly JsonValue[]
  | { readonly [name: string]: JsonValue };

export interface JsonOptions {
  /** What members that the JSON leaves out keep; zeros when there is none. As long as the type. */
  readonly base?: Uint8Array;
  /** What the value is called in messages. */
  readonly name?: string;
}

/** Values in a value, arrays and structs counted too. */
const MOST_VALUES = 1_000_000;
const DEEPEST = 32;
const MOST_MEMBERS = 65_536;

/** Shows a value. `bytes` = the value and nothing else. Throws ObjectError when it has another size, or cannot be shown. */
export function valueToJson(btf: Btf, type: number, bytes: Uint8Array): JsonValue {
  checkSize(btf, type, bytes, 'value');
  return new Viewer(btf, bytes).view(type, 0, 0, 0);
}

/** Makes a value. Throws ObjectError with the name of the member that is wrong, what was expected, what came. */
export function jsonToValue(btf: Btf, type: number, json: JsonValue, options: JsonOptions = {}): Uint8Array {
  const name = options.name ?? 'value';
  if (options.base) checkSize(btf, type, options.base, name);
  // Not slice(): a Buffer's does not copy.
  const bytes = options.base ? new Uint8Array(options.base) : new Uint8Array(checkSize(btf, type, undefined, name));
  new Maker(btf, bytes).make(type, json, { bitAt: 0, bitSize: 0, depth: 0, path: name });
  return bytes;
}

/** Bytes of the largest value that is made or shown. */
const LARGEST = 256 * 1024 * 1024;

function checkSize(btf: Btf, type: number, bytes: Uint8Array | undefined, name: string): number {
  const size = btf.size(type);
  if (size > LARGEST) throw new ObjectError(`${name}: ${size} bytes; expected at most ${LARGEST}`);
  if (bytes && bytes.length !== size) {
    throw new ObjectError(`${name}: ${btf.describe(type)} has ${size} bytes, got ${bytes.length}`);
  }
  return size;
}

/** What viewing and making have in common: limits, and what a struct's members are. */
class Walker {
  protected readonly btf: Btf;
  protected readonly bytes: Uint8Array;
  #left = MOST_VALUES;
  readonly #members = new Map<BtfStruct, readonly Member[]>();

  constructor(btf: Btf, bytes: Uint8Array) {
    this.btf = btf;
    this.bytes = bytes;
  }

  protected spend(type: number, depth: number): void {
    this.#left--;
    if (this.#left < 0) throw new ObjectError(`${this.btf.describe(type)}: more than ${MOST_VALUES} values in it`);
    if (depth > DEEPEST) throw new ObjectError(`${this.btf.describe(type)}: nested deeper than ${DEEPEST}`);
  }

  protected members(type: BtfStruct): readonly Member[] {
    let found = this.#members.get(type);
    if (!found) {
      const list: Member[] = [];
      this.#flatten(type, 0, 0, list);
      this.#members.set(type, list);
      found = list;
    }
    return found;
  }

  #flatten(type: BtfStruct, bitAt: number, depth: number, into: Member[]): void {
    if (depth > DEEPEST) throw new ObjectError(`${this.btf.describe(type.id)}: nested deeper than ${DEEPEST}`);
    for (const { name, type: id, bitOffset, bitSize } of type.members) {
      const plain = this.btf.plain(id);
      const at = bitAt + bitOffset;
      const bits = bitSize || this.btf.size(id) * 8;
      if (bitOffset + bits > type.size * 8) {
        throw new ObjectError(`${this.btf.describe(type.id)}: member ${JSON.stringify(name)} lies outside of it`);
      }
      if (name !== '') into.push({ name, type: id, bitAt: at, bitSize });
      else if ('members' in plain) this.#flatten(plain, at, depth + 1, into);
      if (into.length > MOST_MEMBERS) throw new ObjectError(`${this.btf.describe(type.id)}: too many members`);
      this.spend(id, 0);
    }
  }

  /** Where an integer's bits are. */
  protected integerBits(type: BtfInteger, bitAt: number, bitSize: number): { at: number; bits: number } {
    return bitSize === 0 ? { at: bitAt + type.bitOffset, bits: type.bits } : { at: bitAt, bits: bitSize };
  }

  /** Bytes of an array of char. */
  protected text(type: BtfArrayType, bitAt: number): Uint8Array | undefined {
    const element = this.btf.plain(type.element);
    if (element.kind !== BTF_KIND.INT || !isChar(element) || bitAt % 8 !== 0) return undefined;
    return this.bytes.subarray(bitAt / 8, bitAt / 8 + type.count);
  }
}

interface Member {
  readonly name: string;
  readonly type: number;
  /** In the struct that it is shown in. */
  readonly bitAt: number;
  readonly bitSize: number;
}

const isChar = ({ name, size, bits, encoding }: BtfInteger): boolean =>
  size === 1 && bits === 8 && (name === 'char' || (encoding & BTF_INT_ENCODING.CHAR) !== 0);
const isSigned = ({ encoding }: BtfInteger): boolean => (encoding & BTF_INT_ENCODING.SIGNED) !== 0;
const isBool = ({ encoding }: BtfInteger): boolean => (encoding & BTF_INT_ENCODING.BOOL) !== 0;

const numberOrText = (value: bigint): number | string =>
  value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER)
    ? Number(value)
    : value.toString();

class Viewer extends Walker {
  view(id: number, bitAt: number, bitSize: number, depth: number): JsonValue {
    this.spend(id, depth);
    const type = this.btf.plain(id);
    switch (type.kind) {
      case BTF_KIND.VAR:
        return this.view(type.type, bitAt, bitSize, depth + 1);
      case BTF_KIND.INT: {
        const { at, bits } = this.integerBits(type, bitAt, bitSize);
        return integerToJson(type, readBits(this.bytes, at, bits), bits);
      }
      case BTF_KIND.ENUM:
      case BTF_KIND.ENUM64: {
        const bits = bitSize || type.size * 8;
        const raw = readBits(this.bytes, bitAt, bits);
        const value = type.signed ? BigInt.asIntN(bits, raw) : raw;
        return namesOf(type).byValue.get(BigInt.asUintN(64, value)) ?? numberOrText(value);
      }
      case BTF_KIND.FLOAT:
        return floatToJson(type, readBits(this.bytes, bitAt, type.size * 8));
      case BTF_KIND.PTR:
        return `0x${readBits(this.bytes, bitAt, 64).toString(16)}`;
      case BTF_KIND.ARRAY:
        return this.#array(type, bitAt, depth);
      case BTF_KIND.STRUCT:
      case BTF_KIND.UNION:
        return Object.fromEntries(
          this.members(type).map((member) => [
            member.name,
            this.view(member.type, bitAt + member.bitAt, member.bitSize, depth + 1),
          ]),
        );
      default:
        throw new ObjectError(`${this.btf.describe(id)} cannot be shown`);
    }
  }

  #array(type: BtfArrayType, bitAt: number, depth: number): JsonValue {
    const chars = this.text(type, bitAt);
    if (chars) return textOf(chars) ?? Array.from(chars, (byte) => byte);
    const bits = this.btf.size(type.element) * 8;
    if (bits === 0) return [];
    return Array.from({ length: type.count }, (_, i) => this.view(type.element, bitAt + i * bits, 0, depth + 1));
  }
}

function integerToJson(type: BtfInteger, raw: bigint, bits: number): JsonValue {
  if (isBool(type) && raw <= 1n) return raw === 1n;
  if (isChar(type) && bits === 8 && raw >= 0x20n && raw < 0x7fn) return String.fromCharCode(Number(raw));
  return numberOrText(isSigned(type) ? BigInt.asIntN(bits, raw) : raw);
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The text, when there is nothing but zeros behind it and it can be read. */
function textOf(bytes: Uint8Array): string | undefined {
  const zero = bytes.indexOf(0);
  const length = zero < 0 ? bytes.length : zero;
  if (bytes.subarray(length).some((byte) => byte !== 0)) return undefined;
  try {
    const text = utf8.decode(bytes.subarray(0, length));
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    return /[\0-\x08\x0b\x0c\x0e-\x1f\x7f]/.test(text) ? undefined : text;
  } catch {
    return undefined;
  }
}

interface EnumNames {
  /** By value, as 64 bits without sign. */
  readonly byValue: ReadonlyMap<bigint, string>;
  readonly byName: ReadonlyMap<string, bigint>;
}

const enumNames = new WeakMap<BtfEnumeration, EnumNames>();

function namesOf(type: BtfEnumeration): EnumNames {
  let found = enumNames.get(type);
  if (!found) {
    const byName = new Map<string, bigint>();
    for (const { name, value } of type.values) if (!byName.has(name)) byName.set(name, value);
    const byValue = new Map<bigint, string>();
    for (const [name, value] of byName) {
      const key = BigInt.asUintN(64, type.signed ? value : BigInt.asUintN(type.size * 8, value));
      if (!byValue.has(key)) byValue.set(key, name);
    }
    found = { byName, byValue };
    enumNames.set(type, found);
  }
  return found;
}

interface Target {
  readonly bitAt: number;
  readonly bitSize: number;
  readonly depth: number;
  readonly path: string;
}

const show = (json: JsonValue): string => {
  const text = JSON.stringify(json) ?? String(json);
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
};

class Maker extends Walker {
  make(id: number, json: JsonValue, target: Target): void {
    this.spend(id, target.depth);
    const type = this.btf.plain(id);
    const { bitAt, bitSize, path, depth } = target;
    switch (type.kind) {
      case BTF_KIND.VAR:
        this.make(type.type, json, { ...target, depth: depth + 1 });
        return;
      case BTF_KIND.INT: {
        const { at, bits } = this.integerBits(type, bitAt, bitSize);
        const one = isChar(type) && bits === 8 && typeof json === 'string' && json.length === 1 ? json : undefined;
        if (one !== undefined && one.charCodeAt(0) < 0x80) {
          writeBits(this.bytes, at, bits, BigInt(one.charCodeAt(0)));
          return;
        }
        this.#number(json, { at, bits, signed: isSigned(type), path });
        return;
      }
      case BTF_KIND.ENUM:
      case BTF_KIND.ENUM64: {
        const value = typeof json === 'string' ? namesOf(type).byName.get(json) : undefined;
        const bits = bitSize || type.size * 8;
        if (value !== undefined) {
          writeBits(this.bytes, bitAt, bits, value);
          return;
        }
        const names = type.values.slice(0, 12).map(({ name }) => name);
        this.#number(json, { at: bitAt, bits, signed: type.signed, path, names });
        return;
      }
      case BTF_KIND.FLOAT:
        writeBits(this.bytes, bitAt, type.size * 8, jsonToFloat(type, json, path));
        return;
      case BTF_KIND.PTR:
        this.#number(json, { at: bitAt, bits: 64, signed: false, path });
        return;
      case BTF_KIND.ARRAY:
        this.#array(type, json, target);
        return;
      case BTF_KIND.STRUCT:
      case BTF_KIND.UNION:
        this.#struct(type, json, target);
        return;
      default:
        throw new ObjectError(`${path}: ${this.btf.describe(id)} cannot be made`);
    }
  }

  #number(
    json: JsonValue,
    { at, bits, signed, path, names }: { at: number; bits: number; signed: boolean; path: string; names?: string[] },
  ): void {
    const value = integerOf(json);
    const low = signed ? -(1n << BigInt(bits - 1)) : 0n;
    const high = (1n << BigInt(signed ? bits - 1 : bits)) - 1n;
    if (value === undefined || value < low || value > high) {
      const or = names ? `one of ${names.join(', ')}, or ` : '';
      throw new ObjectError(`${path}: expected ${or}an integer ${low}..${high}, got ${show(json)}`);
    }
    writeBits(this.bytes, at, bits, value);
  }

  #array(type: BtfArrayType, json: JsonValue, { bitAt, path, depth }: Target): void {
    const chars = this.text(type, bitAt);
    if (chars && typeof json === 'string') {
      const text = new TextEncoder().encode(json);
      if (text.length > chars.length) {
        throw new ObjectError(`${path}: expected at most ${chars.length} bytes of text, got ${text.length}`);
      }
      chars.fill(0);
      chars.set(text);
      return;
    }
    if (!Array.isArray(json)) throw new ObjectError(`${path}: expected an array of ${type.count}, got ${show(json)}`);
    if (json.length > type.count) {
      throw new ObjectError(`${path}: expected at most ${type.count} elements, got ${json.length}`);
    }
    const bits = this.btf.size(type.element) * 8;
    (json as readonly JsonValue[]).forEach((one, i) => {
      const place = { bitAt: bitAt + i * bits, bitSize: 0, depth: depth + 1, path: `${path}[${i}]` };
      // Characters of an array that is no text are numbers without sign.
      if (chars) this.#number(one, { at: place.bitAt, bits: 8, signed: integerOf(one)! < 0n, path: place.path });
      else this.make(type.element, one, place);
    });
  }

  #struct(type: BtfStruct, json: JsonValue, { bitAt, path, depth }: Target): void {
    if (json === null || typeof json !== 'object' || Array.isArray(json)) {
      throw new ObjectError(
        `${path}: expected an object with the members of ${this.btf.describe(type.id)}, got ${show(json)}`,
      );
    }
    const given = new Map(Object.entries(json as { readonly [name: string]: JsonValue }));
    const members = this.members(type);
    const known = new Set(members.map(({ name }) => name));
    for (const name of given.keys()) {
      if (known.has(name)) continue;
      const names = [...known].slice(0, 12).join(', ');
      throw new ObjectError(`${path}: ${this.btf.describe(type.id)} has no member ${show(name)}; it has ${names}`);
    }
    for (const member of members) {
      const value = given.get(member.name);
      if (value === undefined) continue;
      const place = { bitAt: bitAt + member.bitAt, bitSize: member.bitSize, depth: depth + 1 };
      this.make(member.type, value, { ...place, path: `${path}.${member.name}` });
    }
  }
}

function integerOf(json: JsonValue): bigint | undefined {
  if (typeof json === 'boolean') return json ? 1n : 0n;
  if (typeof json === 'number') return Number.isSafeInteger(json) ? BigInt(json) : undefined;
  if (typeof json !== 'string' || json.length > 60) return undefined;
  const [, sign, digits] = /^(-?)(0x[0-9a-f]+|\d+)$/i.exec(json) ?? [];
  if (digits === undefined) return undefined;
  return sign === '-' ? -BigInt(digits) : BigInt(digits);
}

/** Numbers; as text what JSON has no number for: `-0`, infinities, NaN; and bits, 0x.., where even that would lose some. */
function floatToJson({ size }: BtfFloat, raw: bigint): JsonValue {
  if (size !== 4 && size !== 8) return `0x${raw.toString(16)}`;
  const value = floatOf(size, raw);
  if (Object.is(value, -0)) return '-0';
  if (Number.isFinite(value)) return value;
  // Not `value`: an engine may keep which NaN it is.
  return bitsOf(size, Number(String(value))) === raw ? String(value) : `0x${raw.toString(16)}`;
}

function jsonToFloat({ size }: BtfFloat, json: JsonValue, path: string): bigint {
  if (typeof json === 'string' && /^0x[0-9a-f]+$/i.test(json) && json.length <= 2 + size * 2) return BigInt(json);
  const known = ['NaN', 'Infinity', '-Infinity', '-0'];
  if ((size === 4 || size === 8) && (typeof json === 'number' || known.includes(json as string))) {
    return bitsOf(size, Number(json));
  }
  const numbers = size === 4 || size === 8 ? `a number, ${known.join(', ')}, or ` : '';
  throw new ObjectError(`${path}: expected ${numbers}bits as 0x.., got ${show(json)}`);
}

const floats = new DataView(new ArrayBuffer(8));

function floatOf(size: 4 | 8, raw: bigint): number {
  floats.setBigUint64(0, raw, true);
  return size === 4 ? floats.getFloat32(0, true) : floats.getFloat64(0, true);
}

function bitsOf(size: 4 | 8, value: number): bigint {
  floats.setBigUint64(0, 0n, true);
  if (size === 4) floats.setFloat32(0, value, true);
  else floats.setFloat64(0, value, true);
  return floats.getBigUint64(0, true);
}
