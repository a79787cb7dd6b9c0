// ELF64, little-endian: what is read of the relocatable objects that clang makes for BPF (System V gABI; RFC 9669 and the
// kernel's Documentation/bpf/llvm_reloc.rst for machine and relocations).
import { struct, u8, u16, u32, u64 } from './struct.js';

export const ELF_MAGIC = 0x464c457f;
export const ELF_CLASS = { ELF32: 1, ELF64: 2 } as const;
export const ELF_DATA = { LITTLE_ENDIAN: 1, BIG_ENDIAN: 2 } as const;
export const ELF_TYPE = { REL: 1, EXEC: 2, DYN: 3, CORE: 4 } as const;
/** Older compilers wrote NONE. */
export const ELF_MACHINE = { NONE: 0, BPF: 247 } as const;

export const ELF_SECTION_TYPE = {
  NULL: 0,
  PROGBITS: 1,
  SYMTAB: 2,
  STRTAB: 3,
  RELA: 4,
  NOBITS: 8,
  REL: 9,
} as const;
export const ELF_SECTION_FLAG = { WRITE: 1, ALLOC: 2, EXECINSTR: 4, MERGE: 0x10, STRINGS: 0x20 } as const;
/** Section indices of symbols that are no sections. */
export const ELF_SECTION_INDEX = { UNDEF: 0, LORESERVE: 0xff00, ABS: 0xfff1, COMMON: 0xfff2 } as const;

/** Low 4 bits of a symbol's info. */
export const ELF_SYMBOL_TYPE = { NOTYPE: 0, OBJECT: 1, FUNC: 2, SECTION: 3, FILE: 4 } as const;
/** High 4 bits of a symbol's info. */
export const ELF_SYMBOL_BIND = { LOCAL: 0, GLOBAL: 1, WEAK: 2 } as const;

/** Low 32 bits of a relocation's info. */
export const BPF_RELOCATION = {
  NONE: 0,
  /** A 64-bit immediate, over two instruction slots. */
  R_BPF_64_64: 1,
  /** A 64-bit word of data. */
  R_BPF_64_ABS64: 2,
  R_BPF_64_ABS32: 3,
  /** 32 bits of debug information. */
  R_BPF_64_NODYLD32: 4,
  /** The immediate of a call. */
  R_BPF_64_32: 10,
} as const;

export const ElfHeader = struct('ELF64_HEADER', {
  magic: u32(0, '0x7f "ELF"', { equals: ELF_MAGIC, hex: true }),
  elfClass: u8(4, '64 or 32 bits', { names: ELF_CLASS }),
  data: u8(5, 'byte order', { names: ELF_DATA }),
  identVersion: u8(6, 'version of the format', { equals: 1 }),
  osAbi: u8(7, 'not used'),
  abiVersion: u8(8, 'not used'),
  type: u16(16, 'kind of file', { names: ELF_TYPE }),
  machine: u16(18, 'instruction set', { names: ELF_MACHINE }),
  version: u32(20, 'version of the format'),
  entry: u64(24, 'not used'),
  programOffset: u64(32, 'segments: not used'),
  sectionOffset: u64(40, 'section headers in the file', { unit: 'bytes' }),
  flags: u32(48, 'not used', { hex: true }),
  headerSize: u16(52, 'this header', { unit: 'bytes' }),
  programEntrySize: u16(54, 'segments: not used'),
  programCount: u16(56, 'segments: not used'),
  sectionEntrySize: u16(58, 'one section header', { unit: 'bytes' }),
  sectionCount: u16(60, 'section headers'),
  sectionNames: u16(62, 'index of the section with the names of sections'),
});

export const ElfSectionHeader = struct('ELF64_SECTION_HEADER', {
  name: u32(0, 'offset of the name'),
  type: u32(4, 'kind of content', { names: ELF_SECTION_TYPE }),
  flags: u64(8, 'bits'),
  address: u64(16, 'not used'),
  offset: u64(24, 'content in the file', { unit: 'bytes' }),
  size: u64(32, 'content', { unit: 'bytes' }),
  link: u32(40, 'index of a section that belongs to it'),
  info: u32(44, 'relocations: index of the section that they are for'),
  alignment: u64(48, 'of the content', { unit: 'bytes' }),
  entrySize: u64(56, 'of tables: one entry', { unit: 'bytes' }),
});

export const ElfSymbol = struct('ELF64_SYMBOL', {
  name: u32(0, 'offset of the name'),
  info: u8(4, 'kind, and who sees it', { hex: true }),
  other: u8(5, 'visibility'),
  section: u16(6, 'index of its section', { names: ELF_SECTION_INDEX }),
  value: u64(8, 'offset in its section', { unit: 'bytes' }),
  size: u64(16, 'what it names', { unit: 'bytes' }),
});

export const ElfRelocation = struct('ELF64_RELOCATION', {
  offset: u64(0, 'where in the section', { unit: 'bytes' }),
  type: u32(8, 'what is to be done', { names: BPF_RELOCATION }),
  symbol: u32(12, 'index of the symbol'),
});

export const ELF_TABLES = [ElfHeader, ElfSectionHeader, ElfSymbol, ElfRelocation] as const;
