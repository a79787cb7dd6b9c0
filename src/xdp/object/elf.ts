// ELF64 relocatable objects: sections, symbols, relocations. Everything is checked here, once.
import * as elf from '../../wire/elf.js';
import { WireError } from '../../wire/struct.js';
import { ObjectError, quoted } from './errors.js';
import { Texts } from './texts.js';

export interface Section {
  readonly index: number;
  readonly name: string;
  readonly type: number;
  readonly flags: number;
  /** Content; empty for .bss. */
  readonly bytes: Uint8Array;
  /** Bytes in memory. */
  readonly size: number;
  readonly executable: boolean;
  readonly writable: boolean;
}

export interface ObjectSymbol {
  readonly name: string;
  readonly type: number;
  readonly bind: number;
  /** Index of a section, 0 when it is not defined here. */
  readonly section: number;
  readonly value: number;
  readonly size: number;
}

export interface Relocation {
  readonly offset: number;
  readonly type: number;
  readonly symbol: ObjectSymbol;
}

export interface ElfObject {
  /** By index; the first is empty. */
  readonly sections: readonly Section[];
  readonly symbols: readonly ObjectSymbol[];
  /** Those that lie in a section, by its index. */
  symbolsOf(section: number): readonly ObjectSymbol[];
  /** Index of a section -> what is to be relocated in it, in order of offset. */
  readonly relocations: ReadonlyMap<number, readonly Relocation[]>;
}

export const OBJECT_LIMITS = {
  /** Bytes of an object. */
  bytes: 16 * 1024 * 1024,
  /** Bytes of one section in memory. */
  section: 64 * 1024 * 1024,
  /** Bytes of all sections without content in the file. */
  zeros: 256 * 1024 * 1024,
} as const;

/** Runs `read`; a layout that does not hold becomes an ObjectError of this place. */
export function reading<T>(section: string | undefined, offset: number, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof WireError)) throw error;
    throw new ObjectError(error.message, section === undefined ? { offset } : { section, offset });
  }
}

/** Reads an object. Throws ObjectError. `bytes` is not kept. */
export function parseElf(bytes: Uint8Array): ElfObject {
  if (bytes.length > OBJECT_LIMITS.bytes) {
    throw new ObjectError(`expected at most ${OBJECT_LIMITS.bytes} bytes, got ${bytes.length}`);
  }
  // Not slice(): a Buffer's does not copy.
  const file = new Uint8Array(bytes);
  const header = readHeader(file);
  const heads = readSectionHeaders(file, header);
  const names = heads[header.sectionNames];
  if (!names || names.type !== elf.ELF_SECTION_TYPE.STRTAB) {
    throw new ObjectError(
      `expected a string table in section ${header.sectionNames}, where the names of ${heads.length} sections should be`,
    );
  }
  const texts = new Texts(contentOf(file, names, '(section names)'));
  let zeros = 0;
  let content = 0;
  const sections = heads.map((head, index): Section => {
    const name = head.type === elf.ELF_SECTION_TYPE.NULL ? '' : texts.at(head.name);
    if (name === undefined) {
      throw new ObjectError(`name of section ${index}: no text at ${head.name} of ${texts.bytes} bytes`);
    }
    const size = whole(head.size, OBJECT_LIMITS.section, name, 'size');
    if (head.type === elf.ELF_SECTION_TYPE.NOBITS) zeros += size;
    else content += size;
    if (content > file.length) {
      throw new ObjectError('expected sections that do not overlap: there are more bytes in them than in the file');
    }
    if (zeros > OBJECT_LIMITS.zeros) {
      throw new ObjectError(`expected at most ${OBJECT_LIMITS.zeros} bytes of zeros in all`, { section: name });
    }
    const flags = Number(head.flags & 0xffffffffn);
    return {
      ...{ index, name, type: head.type, flags, size },
      bytes: contentOf(file, head, name),
      executable: (flags & elf.ELF_SECTION_FLAG.EXECINSTR) !== 0 && head.type === elf.ELF_SECTION_TYPE.PROGBITS,
      writable: (flags & elf.ELF_SECTION_FLAG.WRITE) !== 0,
    };
  });
  const seen = new Set<string>();
  for (const { name, flags } of sections) {
    if ((flags & elf.ELF_SECTION_FLAG.ALLOC) === 0) continue;
    // BTF knows sections by their names.
    if (seen.has(name)) throw new ObjectError('expected one section of this name, got two', { section: name });
    seen.add(name);
  }
  const symbols = readSymbols(sections, heads);
  const bySection = new Map<number, ObjectSymbol[]>();
  for (const symbol of symbols) {
    const list = bySection.get(symbol.section);
    if (list) list.push(symbol);
    else bySection.set(symbol.section, [symbol]);
  }
  return {
    ...{ sections, symbols, symbolsOf: (section) => bySection.get(section) ?? [] },
    relocations: readRelocations(sections, heads, symbols),
  };
}

type Header = ReturnType<typeof elf.ElfHeader.decode>;
type SectionHeader = ReturnType<typeof elf.ElfSectionHeader.decode>;

function readHeader(file: Uint8Array): Header {
  const header = reading(undefined, 0, () => elf.ElfHeader.decode(file));
  const want = (what: string, wanted: string, got: number, ...allowed: number[]) => {
    if (!allowed.includes(got)) throw new ObjectError(`${what}: expected ${wanted}, got ${got}`);
  };
  want('ELF class', '64-bit (2)', header.elfClass, elf.ELF_CLASS.ELF64);
  want('ELF byte order', 'little-endian (1; clang -target bpfel)', header.data, elf.ELF_DATA.LITTLE_ENDIAN);
  want('ELF type', 'a relocatable object (1)', header.type, elf.ELF_TYPE.REL);
  want('ELF machine', 'BPF (247)', header.machine, elf.ELF_MACHINE.BPF, elf.ELF_MACHINE.NONE);
  want('ELF section headers', '64 bytes each', header.sectionEntrySize, elf.ElfSectionHeader.size);
  return header;
}

function readSectionHeaders(file: Uint8Array, { sectionOffset, sectionCount }: Header): SectionHeader[] {
  const size = elf.ElfSectionHeader.size;
  const at = whole(sectionOffset, file.length, undefined, 'offset of section headers');
  if (sectionCount === 0) throw new ObjectError('expected section headers, got none');
  if (file.length - at < sectionCount * size) {
    throw new ObjectError(`expected ${sectionCount} section headers, got ${file.length - at} bytes`, { offset: at });
  }
  return Array.from({ length: sectionCount }, (_, i) =>
    reading(undefined, at + i * size, () => elf.ElfSectionHeader.decode(file, at + i * size)),
  );
}

/** A 64-bit number that must not be above `most`. */
function whole(value: bigint, most: number, section: string | undefined, what: string): number {
  if (value <= BigInt(most)) return Number(value);
  const place = section === undefined ? {} : { section };
  throw new ObjectError(`${what}: expected at most ${most}, got 0x${value.toString(16)}`, place);
}

const NOTHING = new Uint8Array(0);

function contentOf(file: Uint8Array, head: SectionHeader, name: string): Uint8Array {
  if (head.type === elf.ELF_SECTION_TYPE.NOBITS || head.type === elf.ELF_SECTION_TYPE.NULL) return NOTHING;
  const at = whole(head.offset, file.length, name, 'offset in the file');
  const size = whole(head.size, file.length - at, name, `bytes from offset ${at} on`);
  return file.subarray(at, at + size);
}

/** Cuts a table into its entries. */
function entries(section: Section, head: SectionHeader, size: number): number[] {
  if (head.entrySize !== BigInt(size)) {
    throw new ObjectError(`expected entries of ${size} bytes, got ${head.entrySize}`, { section: section.name });
  }
  if (section.bytes.length % size !== 0) {
    const what = `expected whole entries of ${size} bytes, got ${section.bytes.length} bytes`;
    throw new ObjectError(what, { section: section.name });
  }
  return Array.from({ length: section.bytes.length / size }, (_, i) => i * size);
}

function readSymbols(sections: readonly Section[], heads: readonly SectionHeader[]): ObjectSymbol[] {
  const tables = sections.filter(({ type }) => type === elf.ELF_SECTION_TYPE.SYMTAB);
  if (tables.length > 1) throw new ObjectError(`expected one symbol table, got ${tables.length}`);
  const table = tables[0];
  if (!table) return [];
  const head = heads[table.index]!;
  const strings = sections[head.link];
  if (strings?.type !== elf.ELF_SECTION_TYPE.STRTAB) {
    throw new ObjectError(`expected a string table in section ${head.link}`, { section: table.name });
  }
  const texts = new Texts(strings.bytes);
  return entries(table, head, elf.ElfSymbol.size).map((at): ObjectSymbol => {
    const raw = elf.ElfSymbol.decode(table.bytes, at);
    const bad = (what: string): never => {
      throw new ObjectError(what, { section: table.name, offset: at });
    };
    const type = raw.info & 0xf;
    const real = raw.section < elf.ELF_SECTION_INDEX.LORESERVE;
    if (real && raw.section >= sections.length) bad(`section ${raw.section}: there are ${sections.length}`);
    const target = real ? sections[raw.section]! : undefined;
    const own = raw.name === 0 ? '' : texts.at(raw.name);
    if (own === undefined) bad(`name: no text at ${raw.name} of ${strings.bytes.length} bytes`);
    const name = type === elf.ELF_SYMBOL_TYPE.SECTION && own === '' ? (target?.name ?? '') : own!;
    // Symbols of files and absolute values are nobody's business here.
    const inside = target !== undefined && target.index !== elf.ELF_SECTION_INDEX.UNDEF;
    if (inside && raw.value + raw.size > BigInt(target.size)) {
      bad(
        `${quoted(name)}: ${raw.size} bytes at ${raw.value} of section ${quoted(target.name)}, of ${target.size} bytes`,
      );
    }
    return {
      ...{ name, type, bind: raw.info >> 4, section: raw.section },
      value: inside ? Number(raw.value) : 0,
      size: inside ? Number(raw.size) : 0,
    };
  });
}

function readRelocations(
  sections: readonly Section[],
  heads: readonly SectionHeader[],
  symbols: readonly ObjectSymbol[],
): Map<number, Relocation[]> {
  const bySection = new Map<number, Relocation[]>();
  for (const table of sections) {
    const head = heads[table.index]!;
    const target = sections[head.info];
    if (table.type === elf.ELF_SECTION_TYPE.RELA && target?.executable) {
      throw new ObjectError('expected relocations without addends (SHT_REL), got SHT_RELA', { section: table.name });
    }
    if (table.type !== elf.ELF_SECTION_TYPE.REL) continue;
    if (!target || target.index === 0) {
      throw new ObjectError(`relocations for section ${head.info}: there is none`, { section: table.name });
    }
    // Debug information and BTF are read without.
    if ((target.flags & elf.ELF_SECTION_FLAG.ALLOC) === 0) continue;
    if (bySection.has(target.index)) {
      throw new ObjectError(`expected one relocation table for ${quoted(target.name)}, got another`, {
        section: table.name,
      });
    }
    const list = entries(table, head, elf.ElfRelocation.size).map((at): Relocation => {
      const raw = elf.ElfRelocation.decode(table.bytes, at);
      const place = { section: table.name, offset: at };
      const symbol = symbols[raw.symbol];
      if (!symbol) throw new ObjectError(`symbol ${raw.symbol}: there are ${symbols.length}`, place);
      if (raw.offset >= BigInt(target.size)) {
        const what = `offset ${raw.offset} is outside of section ${quoted(target.name)}, of ${target.size} bytes`;
        throw new ObjectError(what, place);
      }
      return { offset: Number(raw.offset), type: raw.type, symbol };
    });
    bySection.set(
      target.index,
      list.sort((a, b) => a.offset - b.offset),
    );
  }
  return bySection;
}
