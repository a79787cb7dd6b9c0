// Maps that an object declares: `.maps` by BTF, `maps` by records, and one-entry arrays for its global variables.
import { BPF_MAP_FLAG, BPF_MAP_TYPE, LegacyMap, LegacyMapIproute } from '../../wire/bpf-map.js';
import { BTF_KIND, BTF_LINKAGE } from '../../wire/btf.js';
import { BPF_RELOCATION, ELF_SYMBOL_TYPE } from '../../wire/elf.js';
import type { Btf, BtfStruct } from './btf.js';
import type { ElfObject, Section } from './elf.js';
import { ObjectError, quoted } from './errors.js';

/** What a map is, without its name. */
export interface MapShape {
  /** BPF_MAP_TYPE; 0 where the object says nothing. */
  readonly type: number;
  /** Bytes; 0 where the type of map has none. */
  readonly keySize: number;
  readonly valueSize: number;
  /** 0 = to be set before the object is used. */
  readonly maxEntries: number;
  /** BPF_MAP_FLAG. */
  readonly flags: number;
  readonly numaNode: number;
  readonly extra: bigint;
  /** BTF ids of key and value. */
  readonly keyType?: number;
  readonly valueType?: number;
  /** Maps of maps: what the maps in it are. */
  readonly inner?: MapShape;
}

export interface BpfMap extends MapShape {
  /** In the object's table: what instructions refer to. */
  readonly index: number;
  readonly name: string;
  readonly section: string;
  /** By its name, in a place for all programs. */
  readonly pinned: boolean;
  /** Entries that are there from the start: maps (by index) or programs (by name). */
  readonly initial: readonly InitialEntry[];
  /** Global variables: the value of the one entry, to be changed until the object is used. */
  readonly data?: Uint8Array;
  /** The data never change once the object is used, so that programs may be simplified by them. */
  readonly constant: boolean;
}

export type InitialEntry =
  | { readonly key: number; readonly map: number }
  | { readonly key: number; readonly program: string };

/** A map and where its declaration lies. */
export interface Declared {
  readonly map: BpfMap;
  readonly sectionIndex: number;
  readonly offset: number;
  readonly size: number;
  /** Maps of maps, program arrays: where in the declaration their first entry is. */
  readonly entriesAt?: number;
}

const DATA = /^\.(rodata|data|bss)(\.|$)/;

/** Sections whose symbols are variables. */
export const isDataSection = (section: Section): boolean => !section.executable && DATA.test(section.name);

const POINTER_BYTES = 8;
const MAX_MAPS = 1024;
const MAX_ENTRIES = 65_536;

/** Maps of all sections; entries in them are filled in by `initialEntries`. Throws ObjectError. */
export function declareMaps(elf: ElfObject, btf: Btf | undefined): Declared[] {
  const found: Declared[] = [];
  const names = new Set<string>();
  const add = (declared: Omit<Declared, 'map'>, map: Omit<BpfMap, 'index'>) => {
    const place = { section: map.section, offset: declared.offset };
    if (found.length === MAX_MAPS) throw new ObjectError(`expected at most ${MAX_MAPS} maps`, place);
    if (names.has(map.name)) throw new ObjectError(`map ${quoted(map.name)}: there are two of that name`, place);
    names.add(map.name);
    found.push({ ...declared, map: { index: found.length, ...map } });
  };
  for (const section of elf.sections) {
    if (section.name === '.maps') btfMaps(section, elf, btf, add);
    else if (section.name === 'maps' || section.name.startsWith('maps/')) legacyMaps(section, elf, add);
    else if (isDataSection(section) && section.size > 0) {
      const data = section.bytes.length > 0 ? section.bytes.slice() : new Uint8Array(section.size);
      const constant = section.name.startsWith('.rodata');
      add(
        { sectionIndex: section.index, offset: 0, size: section.size },
        {
          ...{ name: section.name, section: section.name, type: BPF_MAP_TYPE.ARRAY, keySize: 4 },
          ...{ valueSize: section.size, maxEntries: 1, numaNode: 0, extra: 0n, pinned: false, initial: [] },
          flags: BPF_MAP_FLAG.MMAPABLE | (constant ? BPF_MAP_FLAG.RDONLY_PROG : 0),
          ...{ data, constant, ...dataType(btf, section.name) },
        },
      );
    }
  }
  return found;
}

type Add = (declared: Omit<Declared, 'map'>, map: Omit<BpfMap, 'index'>) => void;

function dataType(btf: Btf | undefined, name: string): { valueType?: number } {
  const type = btf?.section(name);
  return type ? { valueType: type.id } : {};
}

/** Where a variable of a section is: global ones by their symbol, since compilers leave their offset 0. */
export function variableOffset(
  elf: ElfObject,
  section: Section,
  variable: { readonly name: string; readonly linkage: number },
  offset: number,
): number {
  if (variable.linkage === BTF_LINKAGE.STATIC) return offset;
  return symbolValues(elf, section).get(variable.name) ?? offset;
}

const values = new WeakMap<Section, Map<string, number>>();

function symbolValues(elf: ElfObject, section: Section): Map<string, number> {
  let found = values.get(section);
  if (!found) {
    found = new Map(elf.symbolsOf(section.index).map(({ name, value }) => [name, value]));
    values.set(section, found);
  }
  return found;
}

function btfMaps(section: Section, elf: ElfObject, btf: Btf | undefined, add: Add): void {
  const place = { section: section.name };
  const type = btf?.section(section.name);
  if (!btf || !type) throw new ObjectError('expected BTF about the maps in it; compile with clang -g', place);
  for (const { type: id, offset: given, size } of type.variables) {
    const variable = btf.type(id);
    if (variable.kind !== BTF_KIND.VAR) throw new ObjectError(`type ${id}: expected a variable`, place);
    const offset = variableOffset(elf, section, variable, given);
    const where = { ...place, offset };
    if (offset + size > section.size) {
      throw new ObjectError(`map ${quoted(variable.name)}: ${size} bytes there: there are ${section.size}`, where);
    }
    const shape = btf.plain(variable.type);
    if (shape.kind !== BTF_KIND.STRUCT) {
      const what = `map ${quoted(variable.name)}: expected a struct, got ${btf.describe(variable.type)}`;
      throw new ObjectError(what, where);
    }
    const { entriesAt, pinned, ...map } = new MapReader(btf, section.name, offset, variable.name).read(shape, true);
    add(
      { sectionIndex: section.index, offset, size, ...(entriesAt === undefined ? {} : { entriesAt }) },
      { ...map, name: variable.name, section: section.name, pinned, initial: [], constant: false },
    );
  }
}

/** A number that a type says: __uint(name, n) is `int (*name)[n]`, __ulong(name, n) an enum with one value. */
export function declaredNumber(btf: Btf, type: number): bigint | undefined {
  const plain = btf.plain(type);
  if ('values' in plain && plain.values.length === 1) return BigInt.asUintN(64, plain.values[0]!.value);
  const array = plain.kind === BTF_KIND.PTR ? btf.plain(plain.type) : undefined;
  return array?.kind === BTF_KIND.ARRAY ? BigInt(array.count) : undefined;
}

type Read = MapShape & { readonly entriesAt?: number; readonly pinned: boolean };

/** Reads the struct that declares a map: numbers are lengths of arrays, types are what pointers lead to. */
class MapReader {
  readonly #btf: Btf;
  readonly #section: string;
  readonly #offset: number;
  readonly #name: string;

  constructor(btf: Btf, section: string, offset: number, name: string) {
    this.#btf = btf;
    this.#section = section;
    this.#offset = offset;
    this.#name = name;
  }

  #bad(what: string): never {
    throw new ObjectError(`map ${quoted(this.#name)}: ${what}`, { section: this.#section, offset: this.#offset });
  }

  read(shape: BtfStruct, outer: boolean): Read {
    const numbers = new Map<string, bigint>();
    const sizes: Record<'key' | 'value', { size?: number; type?: number }> = { key: {}, value: {} };
    let inner: MapShape | undefined;
    let entriesAt: number | undefined;
    shape.members.forEach((member, i) => {
      const { name, type } = member;
      switch (name) {
        case 'type':
        case 'max_entries':
        case 'map_flags':
        case 'numa_node':
        case 'map_extra':
        case 'pinning':
          if (name === 'pinning' && !outer) this.#bad('inner maps have no pinning');
          numbers.set(name, this.#number(name, type));
          break;
        case 'key_size':
        case 'value_size':
          this.#size(sizes[name === 'key_size' ? 'key' : 'value'], name, Number(this.#number(name, type)));
          break;
        case 'key':
        case 'value': {
          const id = this.#pointed(name, type);
          sizes[name].type = id;
          this.#size(sizes[name], name, this.#btf.size(id));
          break;
        }
        case 'values':
          if (!outer) this.#bad('inner maps have no values');
          if (i !== shape.members.length - 1) this.#bad('values: expected as the last member');
          inner = this.#values(type, numbers);
          entriesAt = member.bitOffset / 8;
          break;
        default:
          this.#bad(`expected type, key, value, max_entries and the like, got a member ${quoted(name)}`);
      }
    });
    const number = (name: string): number => Number(numbers.get(name) ?? 0n);
    const pinning = number('pinning');
    if (pinning > 1) this.#bad(`pinning: expected 0 (none) or 1 (by name), got ${pinning}`);
    // Handles of maps and programs, where the object gives no size.
    const holds = entriesAt === undefined ? 0 : 4;
    return {
      type: number('type'),
      keySize: sizes.key.size ?? holds,
      valueSize: sizes.value.size ?? holds,
      maxEntries: number('max_entries'),
      flags: number('map_flags'),
      numaNode: number('numa_node'),
      extra: numbers.get('map_extra') ?? 0n,
      ...(sizes.key.type === undefined ? {} : { keyType: sizes.key.type }),
      ...(sizes.value.type === undefined || entriesAt !== undefined ? {} : { valueType: sizes.value.type }),
      ...(inner ? { inner } : {}),
      ...(entriesAt === undefined ? {} : { entriesAt }),
      pinned: pinning === 1,
    };
  }

  #size(known: { size?: number }, name: string, size: number): void {
    if (known.size !== undefined && known.size !== size) {
      this.#bad(`${name}: ${size} bytes, where another member says ${known.size}`);
    }
    known.size = size;
  }

  #number(name: string, type: number): bigint {
    const number = declaredNumber(this.#btf, type);
    if (number === undefined) this.#bad(`${name}: expected __uint, got ${this.#btf.describe(type)}`);
    return number;
  }

  #pointed(name: string, type: number): number {
    const plain = this.#btf.plain(type);
    if (plain.kind !== BTF_KIND.PTR) this.#bad(`${name}: expected __type, got ${this.#btf.describe(type)}`);
    return plain.type;
  }

  #values(type: number, numbers: ReadonlyMap<string, bigint>): MapShape | undefined {
    const kind = Number(numbers.get('type') ?? 0n);
    const holdsMaps = kind === BPF_MAP_TYPE.ARRAY_OF_MAPS || kind === BPF_MAP_TYPE.HASH_OF_MAPS;
    if (!holdsMaps && kind !== BPF_MAP_TYPE.PROG_ARRAY) {
      this.#bad(`values: expected in a map of maps or an array of programs, got map type ${kind}`);
    }
    const array = this.#btf.plain(type);
    const pointer = array.kind === BTF_KIND.ARRAY ? this.#btf.plain(array.element) : undefined;
    if (pointer?.kind !== BTF_KIND.PTR) {
      return this.#bad(`values: expected __array of pointers, got ${this.#btf.describe(type)}`);
    }
    const held = this.#btf.plain(pointer.type);
    const wanted = holdsMaps ? BTF_KIND.STRUCT : BTF_KIND.FUNC_PROTO;
    if (held.kind !== wanted) {
      const what = holdsMaps ? 'structs that declare a map' : 'functions';
      this.#bad(`values: expected pointers to ${what}, got ${this.#btf.describe(pointer.type)}`);
    }
    if (held.kind !== BTF_KIND.STRUCT) return undefined;
    const { pinned: _, entriesAt: __, ...shape } = this.read(held, false);
    return shape;
  }
}

/** Records without names: their symbols have them. */
function legacyMaps(section: Section, elf: ElfObject, add: Add): void {
  const place = { section: section.name };
  const symbols = elf
    .symbolsOf(section.index)
    .filter(({ name }) => name !== '')
    .filter(({ type }) => type === ELF_SYMBOL_TYPE.OBJECT || type === ELF_SYMBOL_TYPE.NOTYPE)
    .sort((a, b) => a.value - b.value);
  if (symbols.length === 0 || symbols.length > MAX_MAPS) {
    throw new ObjectError(`expected 1 to ${MAX_MAPS} symbols of maps, got ${symbols.length}`, place);
  }
  const size = section.bytes.length / symbols.length;
  if (!Number.isInteger(size) || size < LegacyMap.size) {
    const what = `expected records of ${LegacyMap.size} bytes or more, got ${section.bytes.length} bytes for`;
    throw new ObjectError(`${what} ${symbols.length} maps`, place);
  }
  const records = symbols.map((symbol) => {
    const where = { ...place, offset: symbol.value };
    if (symbol.value % size !== 0) {
      throw new ObjectError(`map ${quoted(symbol.name)}: expected at a multiple of ${size}`, where);
    }
    const { flags, ...base } = LegacyMap.decode(section.bytes, symbol.value);
    const extra = size === LegacyMapIproute.size ? LegacyMapIproute.decode(section.bytes, symbol.value) : undefined;
    const rest = section.bytes.subarray(symbol.value + LegacyMap.size, symbol.value + size);
    if (!extra && rest.some((byte) => byte !== 0)) {
      const what = `map ${quoted(symbol.name)}: expected zeros after ${LegacyMap.size} bytes of a record of ${size}`;
      throw new ObjectError(what, where);
    }
    const shape: MapShape = { ...base, flags, numaNode: 0, extra: 0n };
    return { symbol, extra, shape };
  });
  for (const { symbol, extra, shape } of records) {
    // iproute2's loader: the map that has this id shows what the maps inside are.
    const inner =
      extra && extra.innerId !== 0 ? records.find((other) => other.extra?.id === extra.innerId)?.shape : undefined;
    add(
      { sectionIndex: section.index, offset: symbol.value, size },
      {
        ...shape,
        ...(inner ? { inner } : {}),
        ...{ name: symbol.name, section: section.name, initial: [], constant: false },
        pinned: (extra?.pinning ?? 0) !== 0,
      },
    );
  }
}

/** Finds the map whose declaration begins there. */
export type FindMap = (sectionIndex: number, offset: number) => BpfMap | undefined;

export function mapFinder(declared: readonly Declared[]): FindMap {
  const found = new Map(declared.map((one) => [`${one.sectionIndex} ${one.offset}`, one.map]));
  return (sectionIndex, offset) => found.get(`${sectionIndex} ${offset}`);
}

/** Fills in what `.maps` puts into maps of maps and arrays of programs. `program` knows the name of a function. */
export function initialEntries(
  elf: ElfObject,
  declared: readonly Declared[],
  program: (section: number, offset: number) => string | undefined,
): BpfMap[] {
  const find = mapFinder(declared);
  const entries = new Map<Declared, InitialEntry[]>();
  for (const [index, list] of elf.relocations) {
    const section = elf.sections[index]!;
    if (section.name !== '.maps') continue;
    const maps = declared.filter((one) => one.sectionIndex === index && one.entriesAt !== undefined);
    for (const { offset, type, symbol } of list) {
      const place = { section: section.name, offset };
      const bad = (what: string): never => {
        throw new ObjectError(what, place);
      };
      if (type !== BPF_RELOCATION.R_BPF_64_64 && type !== BPF_RELOCATION.R_BPF_64_ABS64) {
        bad(`expected a relocation of a pointer (1 or 2), got ${type}`);
      }
      const holder = maps.find((one) => offset >= one.offset + one.entriesAt! && offset < one.offset + one.size);
      if (!holder) return bad('a pointer that is in no map of maps and no array of programs');
      const at = offset - holder.offset - holder.entriesAt!;
      if (at % POINTER_BYTES !== 0) bad(`expected at a multiple of ${POINTER_BYTES} bytes from its map's values on`);
      const key = at / POINTER_BYTES;
      const addend = addendAt(section, offset);
      let entry: InitialEntry;
      if (holder.map.type === BPF_MAP_TYPE.PROG_ARRAY) {
        const name = program(symbol.section, symbol.value + addend);
        if (name === undefined) return bad(`expected a program, got ${quoted(symbol.name)}`);
        entry = { key, program: name };
      } else {
        const map = find(symbol.section, symbol.value + addend);
        if (!map) return bad(`expected a map, got ${quoted(symbol.name)}`);
        entry = { key, map: map.index };
      }
      if (holder.map.maxEntries > 0 && holder.map.maxEntries <= key) {
        bad(`map ${quoted(holder.map.name)}: entry ${key} of ${holder.map.maxEntries}`);
      }
      const list = entries.get(holder) ?? [];
      if (list.length === MAX_ENTRIES) bad(`expected at most ${MAX_ENTRIES} entries in a map`);
      list.push(entry);
      entries.set(holder, list);
    }
  }
  return declared.map((one) => ({ ...one.map, initial: entries.get(one) ?? [] }));
}

/** What lies where a pointer will be: clang keeps the distance from a section's symbol there. */
function addendAt({ bytes }: Section, offset: number): number {
  if (offset + POINTER_BYTES > bytes.length) return 0;
  return new DataView(bytes.buffer, bytes.byteOffset + offset, POINTER_BYTES).getUint32(0, true);
}
