// .BTF.ext: what is known about instructions: functions, source lines, CO-RE records. Sections are named by text.
import * as wire from '../../wire/btf.js';
import { BTF_KIND } from '../../wire/btf.js';
import type { Struct } from '../../wire/struct.js';
import type { SourceLine } from '../isa/program.js';
import type { Btf } from './btf.js';
import { reading } from './elf.js';
import { ObjectError } from './errors.js';

const SECTION = '.BTF.ext';

export interface CoreRecord {
  /** In the section, in slots. */
  readonly slot: number;
  readonly type: number;
  /** Indices, of which the first counts whole values of `type`. */
  readonly access: readonly number[];
  /** CORE_KIND. */
  readonly kind: number;
}

/** What is known about one section of instructions. Slots count from the start of the section. */
export interface SectionInfo {
  /** In order of slot. */
  readonly lines: { readonly slot: number; readonly line: SourceLine }[];
  /** BTF ids of functions by slot. */
  readonly functions: Map<number, number>;
  readonly core: CoreRecord[];
}

type Records = ReadonlyMap<string, readonly Uint8Array[]>;

/** Reads a .BTF.ext section. Throws ObjectError. */
export function parseBtfExt(bytes: Uint8Array, btf: Btf): Map<string, SectionInfo> {
  const header = reading(SECTION, 0, () => wire.BtfExtHeader.decode(bytes));
  const base = header.headerBytes;
  if (base < wire.BtfExtHeader.size || base > bytes.length) {
    throw new ObjectError(`expected a header of ${wire.BtfExtHeader.size} bytes or more, got ${base}`, {
      section: SECTION,
    });
  }
  const hasCore = base >= wire.BtfExtHeader.size + wire.BtfExtCore.size;
  const { coreOffset, coreBytes } = hasCore
    ? wire.BtfExtCore.decode(bytes, wire.BtfExtHeader.size)
    : { coreOffset: 0, coreBytes: 0 };
  const infos = new Map<string, SectionInfo>();
  const info = (section: string): SectionInfo => {
    let found = infos.get(section);
    if (!found) {
      found = { lines: [], functions: new Map(), core: [] };
      infos.set(section, found);
    }
    return found;
  };
  const part = <T extends Struct<never>>(what: string, offset: number, size: number, layout: T): Records =>
    readPart({ bytes, base, what, offset, size, least: layout.size, btf });

  const functions = part('function info', header.functionOffset, header.functionBytes, wire.BtfFunctionInfo as never);
  for (const [section, records] of functions) {
    for (const record of records) {
      const { instruction, type } = wire.BtfFunctionInfo.decode(record);
      const { kind, id } = btf.type(type);
      if (kind !== BTF_KIND.FUNC) {
        throw new ObjectError(`function info: type ${type}: expected a function`, { section: SECTION });
      }
      info(section).functions.set(slotOf(instruction, section), id);
    }
  }
  const lines = part('line info', header.lineOffset, header.lineBytes, wire.BtfLineInfo as never);
  for (const [section, records] of lines) {
    const list = info(section).lines;
    for (const record of records) list.push(lineOf(record, section, btf));
    list.sort((a, b) => a.slot - b.slot);
  }
  for (const [section, records] of part('CO-RE records', coreOffset, coreBytes, wire.BtfCoreRecord as never)) {
    for (const record of records) info(section).core.push(coreOf(record, section, btf));
  }
  return infos;
}

interface Part {
  readonly bytes: Uint8Array;
  readonly base: number;
  readonly what: string;
  readonly offset: number;
  readonly size: number;
  readonly least: number;
  readonly btf: Btf;
}

/** Records by the section that they are about. */
function readPart({ bytes, base, what, offset, size, least, btf }: Part): Records {
  const found = new Map<string, Uint8Array[]>();
  if (size === 0) return found;
  const bad = (text: string, at: number): never => {
    throw new ObjectError(`${what}: ${text}`, { section: SECTION, offset: at });
  };
  let at = base + offset;
  const end = at + size;
  if (end > bytes.length) bad(`expected ${size} bytes, got ${Math.max(0, bytes.length - at)}`, at);
  const content = bytes.subarray(0, end);
  const { recordBytes } = reading(SECTION, at, () => wire.BtfExtRecordSize.decode(content, at));
  if (recordBytes < least || recordBytes % 4 !== 0) bad(`expected records of ${least} bytes, got ${recordBytes}`, at);
  at += wire.BtfExtRecordSize.size;
  while (at < end) {
    const start = at;
    const { name, count } = reading(SECTION, start, () => wire.BtfExtSection.decode(content, start));
    at += wire.BtfExtSection.size;
    const section = btf.text(name);
    if (section === undefined) return bad(`name of a section: no text at ${name} of the strings`, start);
    if (count === 0 || count > (end - at) / recordBytes) {
      bad(`expected 1 to ${Math.floor((end - at) / recordBytes)} records, got ${count}`, start);
    }
    const list = found.get(section) ?? [];
    found.set(section, list);
    for (let i = 0; i < count; i++, at += recordBytes) list.push(content.subarray(at, at + recordBytes));
  }
  return found;
}

const INSN_BYTES = 8;

function slotOf(bytes: number, section: string): number {
  if (bytes % INSN_BYTES === 0) return bytes / INSN_BYTES;
  throw new ObjectError(`about an instruction of section ${section} at ${bytes}, which is no multiple of 8`, {
    section: SECTION,
  });
}

function textOf(btf: Btf, offset: number, what: string): string {
  const text = btf.text(offset);
  if (text === undefined) throw new ObjectError(`${what}: no text at ${offset} of the strings`, { section: SECTION });
  return text;
}

function lineOf(record: Uint8Array, section: string, btf: Btf): { slot: number; line: SourceLine } {
  const { instruction, file, line, lineColumn } = wire.BtfLineInfo.decode(record);
  return {
    slot: slotOf(instruction, section),
    line: {
      file: textOf(btf, file, 'name of a source file'),
      line: lineColumn >>> wire.BTF_LINE.NUMBER_SHIFT,
      column: lineColumn & wire.BTF_LINE.COLUMN,
      // A line may be longer than any name; without its text it is still a place.
      text: btf.text(line) ?? '',
    },
  };
}

function coreOf(record: Uint8Array, section: string, btf: Btf): CoreRecord {
  const { instruction, type, access, kind } = wire.BtfCoreRecord.decode(record);
  const text = textOf(btf, access, 'access of a CO-RE record');
  if (!/^\d{1,9}(:\d{1,9})*$/.test(text)) {
    throw new ObjectError(`access of a CO-RE record: expected numbers between colons, got ${JSON.stringify(text)}`, {
      section: SECTION,
    });
  }
  return {
    slot: slotOf(instruction, section),
    type: btf.type(type).id,
    access: text.split(':').map(Number),
    kind,
  };
}
