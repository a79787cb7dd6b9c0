// BTF: types of an object. Parsing checks lengths, names and references; sizes are computed on demand, with a limit of
// depth, since nothing keeps a type from being made from itself.
import * as wire from '../../wire/btf.js';
import { BTF_KIND } from '../../wire/btf.js';
import { nameOf, type Struct } from '../../wire/struct.js';
import { type BtfArrayType, type BtfSectionType, type BtfType, isModifier } from './btf-types.js';
import { reading } from './elf.js';
import { ObjectError, quoted } from './errors.js';
import { Texts } from './texts.js';

export * from './btf-types.js';

const SECTION = '.BTF';
/** Steps from a type to what it is made from, as in the kernel. */
const DEEPEST = 32;
const LARGEST = 0xffffffff;
const POINTER_BYTES = 8;

export class Btf {
  /** By id; 0 is void. */
  readonly types: readonly BtfType[];
  readonly #strings: Texts;
  readonly #sections = new Map<string, BtfSectionType>();

  /** Reads a .BTF section. Throws ObjectError. */
  constructor(bytes: Uint8Array) {
    const header = reading(SECTION, 0, () => wire.BtfHeader.decode(bytes));
    const base = header.headerBytes;
    if (base < wire.BtfHeader.size || base > bytes.length) {
      throw new ObjectError(`expected a header of ${wire.BtfHeader.size} bytes or more, got ${base}`, {
        section: SECTION,
      });
    }
    const part = (what: string, offset: number, size: number): Uint8Array => {
      if (offset + size > bytes.length - base) {
        const have = `there are ${bytes.length - base}`;
        throw new ObjectError(`${what}: ${size} bytes from ${offset} on: ${have}`, { section: SECTION });
      }
      return bytes.subarray(base + offset, base + offset + size);
    };
    this.#strings = new Texts(part('strings', header.stringOffset, header.stringBytes));
    const types = part('types', header.typeOffset, header.typeBytes);
    this.types = new Reader(types, base + header.typeOffset, this.#strings).read();
    for (const type of this.types) if (type.kind === BTF_KIND.DATASEC) this.#sections.set(type.name, type);
  }

  /** Text of the string section; undefined when there is none at `offset`. */
  text(offset: number): string | undefined {
    return this.#strings.at(offset);
  }

  /** Throws ObjectError when there is no such type. */
  type(id: number): BtfType {
    const found = this.types[id];
    if (!found) throw new ObjectError(`type ${id}: there are ${this.types.length}`, { section: SECTION });
    return found;
  }

  /** The type less typedefs, const, volatile, restrict, tags. Throws ObjectError when that never ends. */
  plain(id: number): BtfType {
    let type = this.type(id);
    for (let depth = 0; isModifier(type); depth++) {
      if (depth === DEEPEST) throw new ObjectError(`type ${id}: more than ${DEEPEST} typedefs`, { section: SECTION });
      type = this.type(type.type);
    }
    return type;
  }

  /** Bytes of a value. Throws ObjectError when the type has none (void, functions, forward declarations). */
  size(id: number): number {
    let count = 1;
    for (let depth = 0; depth <= DEEPEST; depth++) {
      const type = this.plain(id);
      if (type.kind === BTF_KIND.ARRAY) {
        count *= type.count;
        id = type.element;
        continue;
      }
      if (type.kind === BTF_KIND.VAR) {
        id = type.type;
        continue;
      }
      const one = type.kind === BTF_KIND.PTR ? POINTER_BYTES : 'size' in type ? type.size : undefined;
      if (one === undefined) throw new ObjectError(`${this.describe(id)} has no size`, { section: SECTION });
      if (one * count > LARGEST) {
        throw new ObjectError(`${this.describe(id)} x ${count}: more than ${LARGEST} bytes`, { section: SECTION });
      }
      return one * count;
    }
    throw new ObjectError(`type ${id}: arrays deeper than ${DEEPEST}`, { section: SECTION });
  }

  /** As C writes it, roughly: `struct flow`, `__u32[4]`, `const char *`. */
  describe(id: number): string {
    let tail = '';
    for (let depth = 0; depth < DEEPEST; depth++) {
      const type = this.type(id);
      switch (type.kind) {
        case BTF_KIND.PTR:
          tail = ` *${tail}`;
          break;
        case BTF_KIND.ARRAY:
          tail = `${tail}[${type.count}]`;
          id = (type as BtfArrayType).element;
          continue;
        case BTF_KIND.CONST:
        case BTF_KIND.VOLATILE:
        case BTF_KIND.RESTRICT:
        case BTF_KIND.TYPE_TAG:
          break;
        case BTF_KIND.VOID:
          return `void${tail}`;
        case BTF_KIND.STRUCT:
        case BTF_KIND.UNION:
        case BTF_KIND.ENUM:
        case BTF_KIND.ENUM64:
        case BTF_KIND.FWD: {
          const word =
            type.kind === BTF_KIND.UNION ? 'union' : type.kind === BTF_KIND.STRUCT ? 'struct' : kindWord(type);
          return `${word} ${type.name || '(anonymous)'}${tail}`;
        }
        case BTF_KIND.FUNC_PROTO:
          return `function${tail}`;
        default:
          return `${type.name || `type ${id}`}${tail}`;
      }
      id = type.type;
    }
    return `type ${id}`;
  }

  /** The variables of a section, by the section's name. */
  section(name: string): BtfSectionType | undefined {
    return this.#sections.get(name);
  }
}

const kindWord = (type: BtfType): string => (type.kind === BTF_KIND.FWD ? 'incomplete' : 'enum');

class Reader {
  readonly #bytes: Uint8Array;
  readonly #start: number;
  readonly #strings: Texts;
  #at = 0;
  #typeAt = 0;

  constructor(bytes: Uint8Array, start: number, strings: Texts) {
    this.#bytes = bytes;
    this.#start = start;
    this.#strings = strings;
  }

  read(): BtfType[] {
    const types: BtfType[] = [{ id: 0, kind: BTF_KIND.VOID, name: '' }];
    while (this.#at < this.#bytes.length) types.push(this.#type(types.length));
    for (const type of types) this.#checkReferences(type, types.length);
    return types;
  }

  #bad(what: string): never {
    throw new ObjectError(what, { section: SECTION, offset: this.#start + this.#typeAt });
  }

  // biome-ignore lint/suspicious/noExplicitAny: the layout gives the type of what comes back
  #take<S extends Struct<any>>(layout: S): ReturnType<S['decode']> {
    const at = this.#at;
    this.#at += layout.size;
    return reading(SECTION, this.#start + at, () => layout.decode(this.#bytes, at)) as ReturnType<S['decode']>;
  }

  #name(offset: number): string {
    const text = this.#strings.at(offset);
    if (text === undefined) this.#bad(`name: no text at ${offset} of ${this.#strings.bytes} bytes`);
    return text;
  }

  #list<T>(count: number, one: () => T): T[] {
    return Array.from({ length: count }, one);
  }

  #type(id: number): BtfType {
    this.#typeAt = this.#at;
    const { name: nameAt, info, sizeOrType } = this.#take(wire.BtfType);
    const kind = (info >>> wire.BTF_INFO.KIND_SHIFT) & wire.BTF_INFO.KIND;
    const count = info & wire.BTF_INFO.VLEN;
    const flag = (info & wire.BTF_INFO.KIND_FLAG) !== 0;
    const base = { id, name: this.#name(nameAt) };
    switch (kind) {
      case BTF_KIND.INT:
        return this.#integer(base, sizeOrType);
      case BTF_KIND.FLOAT:
        if (![2, 4, 8, 12, 16].includes(sizeOrType)) this.#bad(`a floating-point type of ${sizeOrType} bytes`);
        return { ...base, kind, size: sizeOrType };
      case BTF_KIND.DECL_TAG:
        this.#take(wire.BtfDeclarationTag);
        return { ...base, kind, type: sizeOrType };
      case BTF_KIND.PTR:
      case BTF_KIND.TYPEDEF:
      case BTF_KIND.VOLATILE:
      case BTF_KIND.CONST:
      case BTF_KIND.RESTRICT:
      case BTF_KIND.TYPE_TAG:
      case BTF_KIND.FUNC:
        return { ...base, kind, type: sizeOrType };
      case BTF_KIND.ARRAY: {
        const { type, indexType, count: elements } = this.#take(wire.BtfArray);
        return { ...base, kind, element: type, index: indexType, count: elements };
      }
      case BTF_KIND.STRUCT:
      case BTF_KIND.UNION: {
        const members = this.#list(count, () => this.#member(flag, sizeOrType));
        return { ...base, kind, size: sizeOrType, members };
      }
      case BTF_KIND.ENUM:
      case BTF_KIND.ENUM64: {
        if (![1, 2, 4, 8].includes(sizeOrType)) this.#bad(`an enum of ${sizeOrType} bytes`);
        const values = this.#list(count, () => (kind === BTF_KIND.ENUM ? this.#enumValue(flag) : this.#enum64(flag)));
        // Before the flag there was, a negative value showed the sign.
        const signed = flag || (kind === BTF_KIND.ENUM && values.some(({ value }) => value < 0n));
        return { ...base, kind, size: sizeOrType, signed, values };
      }
      case BTF_KIND.FWD:
        return { ...base, kind };
      case BTF_KIND.FUNC_PROTO: {
        const parameters = this.#list(count, () => {
          const { name, type } = this.#take(wire.BtfParameter);
          return { name: this.#name(name), type };
        });
        return { ...base, kind, result: sizeOrType, parameters };
      }
      case BTF_KIND.VAR:
        return { ...base, kind, type: sizeOrType, linkage: this.#take(wire.BtfVariable).linkage };
      case BTF_KIND.DATASEC: {
        const variables = this.#list(count, () => this.#take(wire.BtfSectionVariable));
        return { ...base, kind, size: sizeOrType, variables };
      }
      default:
        return this.#bad(`type ${id}: expected a kind of 1 to ${BTF_KIND.ENUM64}, got ${kind}`);
    }
  }

  #integer(base: { id: number; name: string }, size: number): BtfType {
    const { info } = this.#take(wire.BtfIntInfo);
    const bits = info & wire.BTF_INT.BITS;
    const bitOffset = (info >>> wire.BTF_INT.OFFSET_SHIFT) & wire.BTF_INT.OFFSET;
    const encoding = (info >>> wire.BTF_INT.ENCODING_SHIFT) & wire.BTF_INT.ENCODING;
    if (![1, 2, 4, 8, 16].includes(size)) this.#bad(`an integer of ${size} bytes`);
    if (bits < 1 || bits + bitOffset > size * 8) this.#bad(`an integer of ${bits} bits in ${size} bytes`);
    return { ...base, kind: BTF_KIND.INT, size, bits, bitOffset, encoding };
  }

  #member(bitFields: boolean, size: number) {
    const { name, type, offset } = this.#take(wire.BtfMember);
    const bitOffset = bitFields ? offset & 0xffffff : offset;
    if (bitOffset > size * 8) this.#bad(`a member at bit ${bitOffset} of ${size} bytes`);
    return { name: this.#name(name), type, bitOffset, bitSize: bitFields ? offset >>> 24 : 0 };
  }

  #enumValue(signed: boolean) {
    const { name, value } = this.#take(wire.BtfEnum);
    // clang 14 has no flag and writes -1 as all ones: read as signed.
    return { name: this.#name(name), value: BigInt(signed || value >= 0x80000000 ? value | 0 : value) };
  }

  #enum64(signed: boolean) {
    const { name, low, high } = this.#take(wire.BtfEnum64);
    const value = (BigInt(high) << 32n) | BigInt(low);
    return { name: this.#name(name), value: signed ? BigInt.asIntN(64, value) : value };
  }

  #checkReferences(type: BtfType, count: number): void {
    const check = (id: number) => {
      if (id >= count) {
        const kind = nameOf(BTF_KIND, type.kind);
        throw new ObjectError(
          `type ${type.id} (${kind} ${quoted(type.name)}) refers to type ${id}: there are ${count}`,
          {
            section: SECTION,
          },
        );
      }
    };
    if ('type' in type) check(type.type);
    else if (type.kind === BTF_KIND.ARRAY) check(type.element);
    else if ('members' in type) for (const member of type.members) check(member.type);
    else if ('parameters' in type) for (const parameter of type.parameters) check(parameter.type);
    else if ('variables' in type) for (const variable of type.variables) check(variable.type);
  }
}
