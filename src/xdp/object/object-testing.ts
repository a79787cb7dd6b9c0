// Objects made by hand: for what no compiler makes.
import { BTF_INFO, BTF_KIND, BtfHeader, BtfMember, BtfSectionVariable, BtfType } from '../../wire/btf.js';
import {
  ELF_CLASS,
  ELF_DATA,
  ELF_MACHINE,
  ELF_MAGIC,
  ELF_SECTION_FLAG,
  ELF_SECTION_TYPE,
  ELF_SYMBOL_BIND,
  ELF_SYMBOL_TYPE,
  ELF_TYPE,
  ElfHeader,
  ElfRelocation,
  ElfSectionHeader,
  ElfSymbol,
} from '../../wire/elf.js';
import { encodeProgram } from '../isa/code.js';
import type { Insn } from '../isa/program.js';

export interface TestSection {
  readonly name: string;
  readonly bytes?: Uint8Array;
  readonly type?: number;
  readonly flags?: number;
  readonly entrySize?: number;
  readonly link?: number;
  readonly info?: number;
  /** For NOBITS. */
  readonly size?: number;
}

export interface TestSymbol {
  readonly name: string;
  /** Name of a section; none = not defined here. */
  readonly section?: string;
  readonly value?: number;
  readonly size?: number;
  readonly type?: number;
  readonly bind?: number;
}

export interface TestRelocation {
  readonly section: string;
  readonly offset: number;
  readonly type: number;
  readonly symbol: string;
}

export interface TestObject {
  readonly sections: readonly TestSection[];
  readonly symbols?: readonly TestSymbol[];
  readonly relocations?: readonly TestRelocation[];
  readonly header?: Readonly<Record<string, number>>;
}

/** Text table: texts and where they are. */
class Strings {
  readonly #parts: number[] = [0];

  add(text: string): number {
    if (text === '') return 0;
    const at = this.#parts.length;
    this.#parts.push(...new TextEncoder().encode(text), 0);
    return at;
  }

  bytes(): Uint8Array {
    return Uint8Array.from(this.#parts);
  }
}

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Section 0, the given ones, symbols, relocations, texts. */
export function makeObject({ sections, symbols = [], relocations = [], header = {} }: TestObject): Uint8Array {
  const indexOf = (name: string) => 1 + sections.findIndex((section) => section.name === name);
  const strings = new Strings();
  const table = [
    ElfSymbol.encode({ name: 0, info: 0, other: 0, section: 0, value: 0n, size: 0n }),
    ...symbols.map((symbol) =>
      ElfSymbol.encode({
        name: strings.add(symbol.name),
        info: ((symbol.bind ?? ELF_SYMBOL_BIND.GLOBAL) << 4) | (symbol.type ?? ELF_SYMBOL_TYPE.FUNC),
        other: 0,
        section: symbol.section === undefined ? 0 : indexOf(symbol.section),
        value: BigInt(symbol.value ?? 0),
        size: BigInt(symbol.size ?? 0),
      }),
    ),
  ];
  const symbolTable = sections.length + 1;
  const lists = [...new Set(relocations.map(({ section }) => section))].map((section): TestSection => {
    const entries = relocations
      .filter((one) => one.section === section)
      .map((one) =>
        ElfRelocation.encode({
          offset: BigInt(one.offset),
          type: one.type,
          symbol: 1 + symbols.findIndex(({ name }) => name === one.symbol),
        }),
      );
    return {
      ...{ name: `.rel${section}`, bytes: concat(entries), type: ELF_SECTION_TYPE.REL, flags: 0 },
      ...{ entrySize: ElfRelocation.size, link: symbolTable, info: indexOf(section) },
    };
  });
  const all: TestSection[] = [
    ...sections,
    {
      ...{ name: '.symtab', bytes: concat(table), type: ELF_SECTION_TYPE.SYMTAB, flags: 0 },
      ...{ entrySize: ElfSymbol.size, link: symbolTable + 1 + lists.length },
    },
    ...lists,
  ];
  const names = all.map(({ name }) => strings.add(name));
  names.push(strings.add('.strtab'));
  all.push({ name: '.strtab', bytes: strings.bytes(), type: ELF_SECTION_TYPE.STRTAB, flags: 0 });
  const contents: Uint8Array[] = [];
  let at = ElfHeader.size;
  const heads = all.map((section, i) => {
    const bytes = section.bytes ?? new Uint8Array(0);
    const head = ElfSectionHeader.encode({
      name: names[i]!,
      type: section.type ?? ELF_SECTION_TYPE.PROGBITS,
      flags: BigInt(section.flags ?? ELF_SECTION_FLAG.ALLOC | ELF_SECTION_FLAG.WRITE),
      address: 0n,
      offset: BigInt(at),
      size: BigInt(section.size ?? bytes.length),
      link: section.link ?? 0,
      info: section.info ?? 0,
      alignment: 8n,
      entrySize: BigInt(section.entrySize ?? 0),
    });
    contents.push(bytes);
    at += bytes.length;
    return head;
  });
  const head = ElfHeader.encode({
    ...{ magic: ELF_MAGIC, elfClass: ELF_CLASS.ELF64, data: ELF_DATA.LITTLE_ENDIAN, identVersion: 1, osAbi: 0 },
    ...{ abiVersion: 0, type: ELF_TYPE.REL, machine: ELF_MACHINE.BPF, version: 1, entry: 0n, programOffset: 0n },
    ...{ sectionOffset: BigInt(at), flags: 0, headerSize: ElfHeader.size, programEntrySize: 0, programCount: 0 },
    ...{ sectionEntrySize: ElfSectionHeader.size, sectionCount: all.length + 1, sectionNames: all.length },
    ...header,
  });
  return concat([head, ...contents, new Uint8Array(ElfSectionHeader.size), ...heads]);
}

export const CODE_FLAGS = ELF_SECTION_FLAG.ALLOC | ELF_SECTION_FLAG.EXECINSTR;

/** A section of instructions. */
export function codeSection(name: string, insns: readonly Partial<Insn>[]): TestSection {
  const whole = insns.map((insn) => ({ code: 0, dst: 0, src: 0, off: 0, imm: 0, ...insn }));
  return { name, flags: CODE_FLAGS, bytes: encodeProgram(whole) };
}

/** Writes .BTF; types are numbered from 1 in the order of calls. */
export class BtfWriter {
  readonly #strings = new Strings();
  readonly #types: Uint8Array[] = [];
  #count = 0;

  /** A type of any kind. `more` follows its head. */
  type(
    kind: number,
    name: string,
    sizeOrType: number,
    { count = 0, flag = false, more = [] }: { count?: number; flag?: boolean; more?: readonly Uint8Array[] } = {},
  ): number {
    const info = (((flag ? BTF_INFO.KIND_FLAG : 0) | (kind << BTF_INFO.KIND_SHIFT) | count) >>> 0) as number;
    this.#types.push(BtfType.encode({ name: this.#strings.add(name), info, sizeOrType }), ...more);
    this.#count++;
    return this.#count;
  }

  int(name: string, size: number, encoding = 0, bits = size * 8): number {
    return this.type(BTF_KIND.INT, name, size, { more: [words((encoding << 24) | bits)] });
  }

  array(element: number, count: number): number {
    return this.type(BTF_KIND.ARRAY, '', 0, { more: [words(element, element, count)] });
  }

  /** Members: name, type, offset in bits, width of a bit field. */
  struct(
    kind: typeof BTF_KIND.STRUCT | typeof BTF_KIND.UNION,
    name: string,
    size: number,
    members: readonly (readonly [name: string, type: number, bitOffset: number, bitSize?: number])[],
  ): number {
    const flag = members.some(([, , , bits]) => bits !== undefined);
    const more = members.map(([text, type, at, bits = 0]) =>
      BtfMember.encode({ name: this.#strings.add(text), type, offset: ((bits << 24) | at) >>> 0 }),
    );
    return this.type(kind, name, size, { count: members.length, flag, more });
  }

  enumeration(name: string, size: number, values: Readonly<Record<string, number>>): number {
    const more = Object.entries(values).map(([text, value]) => words(this.#strings.add(text), value));
    return this.type(BTF_KIND.ENUM, name, size, { count: more.length, more });
  }

  variable(name: string, type: number, linkage = 1): number {
    return this.type(BTF_KIND.VAR, name, type, { more: [words(linkage)] });
  }

  section(name: string, variables: readonly { type: number; offset: number; size: number }[]): number {
    const more = variables.map((one) => BtfSectionVariable.encode(one));
    return this.type(BTF_KIND.DATASEC, name, 0, { count: more.length, more });
  }

  /** __uint(name, number): pointer to an array; returns the pointer. */
  number(int: number, value: number): number {
    return this.type(BTF_KIND.PTR, '', this.array(int, value));
  }

  bytes(): Uint8Array {
    const types = concat(this.#types);
    const strings = this.#strings.bytes();
    const header = BtfHeader.encode({
      ...{ flags: 0, headerBytes: BtfHeader.size, typeOffset: 0, typeBytes: types.length },
      ...{ stringOffset: types.length, stringBytes: strings.length },
    });
    return concat([header, types, strings]);
  }
}

/** 32-bit words as bytes. */
export const words = (...values: readonly number[]): Uint8Array =>
  new Uint8Array(Uint32Array.from(values, (value) => value >>> 0).buffer);
