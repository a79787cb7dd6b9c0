// BTF, BPF Type Format (the kernel's Documentation/bpf/btf.rst): types, and what .BTF.ext says about instructions.
import { struct, u8, u16, u32 } from './struct.js';

export const BTF_MAGIC = 0xeb9f;

export const BTF_KIND = {
  VOID: 0,
  INT: 1,
  PTR: 2,
  ARRAY: 3,
  STRUCT: 4,
  UNION: 5,
  ENUM: 6,
  FWD: 7,
  TYPEDEF: 8,
  VOLATILE: 9,
  CONST: 10,
  RESTRICT: 11,
  FUNC: 12,
  FUNC_PROTO: 13,
  VAR: 14,
  DATASEC: 15,
  FLOAT: 16,
  DECL_TAG: 17,
  TYPE_TAG: 18,
  ENUM64: 19,
} as const;

/** Parts of BTF_TYPE.info: number of members, kind, and a flag whose meaning depends on the kind. */
export const BTF_INFO = { VLEN: 0xffff, KIND_SHIFT: 24, KIND: 0x1f, KIND_FLAG: 0x80000000 } as const;
/** The word after an INT: bits, offset in bits, encoding. */
export const BTF_INT = { BITS: 0xff, OFFSET_SHIFT: 16, OFFSET: 0xff, ENCODING_SHIFT: 24, ENCODING: 0xf } as const;
export const BTF_INT_ENCODING = { SIGNED: 1, CHAR: 2, BOOL: 4 } as const;
export const BTF_LINKAGE = { STATIC: 0, GLOBAL: 1, EXTERN: 2 } as const;

export const BtfHeader = struct('BTF_HEADER', {
  magic: u16(0, 'tells the byte order', { equals: BTF_MAGIC, hex: true }),
  version: u8(2, 'version', { equals: 1 }),
  flags: u8(3, 'none yet'),
  headerBytes: u32(4, 'this header', { unit: 'bytes' }),
  typeOffset: u32(8, 'types, from the end of the header', { unit: 'bytes' }),
  typeBytes: u32(12, 'types', { unit: 'bytes' }),
  stringOffset: u32(16, 'strings, from the end of the header', { unit: 'bytes' }),
  stringBytes: u32(20, 'strings', { unit: 'bytes' }),
});

/** Begins every type; what follows depends on the kind. */
export const BtfType = struct('BTF_TYPE', {
  name: u32(0, 'offset of the name'),
  info: u32(4, 'number of members, kind, flag', { hex: true }),
  sizeOrType: u32(8, 'bytes, or the type that it is made from'),
});

export const BtfIntInfo = struct('BTF_INT', {
  info: u32(0, 'bits, offset in bits, encoding', { hex: true }),
});

export const BtfArray = struct('BTF_ARRAY', {
  type: u32(0, 'type of an element'),
  indexType: u32(4, 'type of an index'),
  count: u32(8, 'elements'),
});

export const BtfMember = struct('BTF_MEMBER', {
  name: u32(0, 'offset of the name'),
  type: u32(4, 'type'),
  offset: u32(8, 'in bits; with the flag of the struct: 24 bits of offset, 8 of width'),
});

export const BtfEnum = struct('BTF_ENUM', {
  name: u32(0, 'offset of the name'),
  value: u32(4, 'value'),
});

export const BtfEnum64 = struct('BTF_ENUM64', {
  name: u32(0, 'offset of the name'),
  low: u32(4, 'value, lower half'),
  high: u32(8, 'value, upper half'),
});

export const BtfParameter = struct('BTF_PARAM', {
  name: u32(0, 'offset of the name'),
  type: u32(4, 'type'),
});

export const BtfVariable = struct('BTF_VAR', {
  linkage: u32(0, 'who sees it', { names: BTF_LINKAGE }),
});

export const BtfSectionVariable = struct('BTF_VAR_SECINFO', {
  type: u32(0, 'a variable'),
  offset: u32(4, 'in its section', { unit: 'bytes' }),
  size: u32(8, 'size', { unit: 'bytes' }),
});

export const BtfDeclarationTag = struct('BTF_DECL_TAG', {
  component: u32(0, 'member or parameter that it is for; all ones = the whole'),
});

export const BtfExtHeader = struct('BTF_EXT_HEADER', {
  magic: u16(0, 'tells the byte order', { equals: BTF_MAGIC, hex: true }),
  version: u8(2, 'version', { equals: 1 }),
  flags: u8(3, 'none yet'),
  headerBytes: u32(4, 'this header', { unit: 'bytes' }),
  functionOffset: u32(8, 'function info, from the end of the header', { unit: 'bytes' }),
  functionBytes: u32(12, 'function info', { unit: 'bytes' }),
  lineOffset: u32(16, 'line info, from the end of the header', { unit: 'bytes' }),
  lineBytes: u32(20, 'line info', { unit: 'bytes' }),
});

/** Follows BTF_EXT_HEADER where its length says so. */
export const BtfExtCore = struct('BTF_EXT_CORE', {
  coreOffset: u32(0, 'CO-RE records, from the end of the header', { unit: 'bytes' }),
  coreBytes: u32(4, 'CO-RE records', { unit: 'bytes' }),
});

/** Begins each of the three parts of .BTF.ext. */
export const BtfExtRecordSize = struct('BTF_EXT_RECORD_SIZE', {
  recordBytes: u32(0, 'one record', { unit: 'bytes' }),
});

/** Begins the records for one section. */
export const BtfExtSection = struct('BTF_EXT_SECTION', {
  name: u32(0, 'offset of the name of the section'),
  count: u32(4, 'records that follow'),
});

export const BtfFunctionInfo = struct('BTF_FUNC_INFO', {
  instruction: u32(0, 'in the section', { unit: 'bytes' }),
  type: u32(4, 'the function'),
});

export const BtfLineInfo = struct('BTF_LINE_INFO', {
  instruction: u32(0, 'in the section', { unit: 'bytes' }),
  file: u32(4, 'offset of the name of the file'),
  line: u32(8, 'offset of the text of the line'),
  lineColumn: u32(12, 'number of the line, and 10 bits of column'),
});

export const BTF_LINE = { NUMBER_SHIFT: 10, COLUMN: 0x3ff } as const;

export const CORE_KIND = {
  FIELD_BYTE_OFFSET: 0,
  FIELD_BYTE_SIZE: 1,
  FIELD_EXISTS: 2,
  FIELD_SIGNED: 3,
  FIELD_LSHIFT_U64: 4,
  FIELD_RSHIFT_U64: 5,
  TYPE_ID_LOCAL: 6,
  TYPE_ID_TARGET: 7,
  TYPE_EXISTS: 8,
  TYPE_SIZE: 9,
  ENUMVAL_EXISTS: 10,
  ENUMVAL_VALUE: 11,
  TYPE_MATCHES: 12,
} as const;

export const BtfCoreRecord = struct('BTF_CORE_RELO', {
  instruction: u32(0, 'in the section', { unit: 'bytes' }),
  type: u32(4, 'type that the access starts from'),
  access: u32(8, 'offset of the text of the access: indices between colons'),
  kind: u32(12, 'what is asked', { names: CORE_KIND }),
});

export const BTF_TABLES = [
  BtfHeader,
  BtfType,
  BtfIntInfo,
  BtfArray,
  BtfMember,
  BtfEnum,
  BtfEnum64,
  BtfParameter,
  BtfVariable,
  BtfSectionVariable,
  BtfDeclarationTag,
  BtfExtHeader,
  BtfExtCore,
  BtfExtRecordSize,
  BtfExtSection,
  BtfFunctionInfo,
  BtfLineInfo,
  BtfCoreRecord,
] as const;
