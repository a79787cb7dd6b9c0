// Functions of an object: where each lies in its section, and which relocations are in it.
import { CORE_KIND } from '../../wire/btf.js';
import { ELF_SYMBOL_BIND, ELF_SYMBOL_TYPE } from '../../wire/elf.js';
import { decodeProgram, INSN_BYTES } from '../isa/code.js';
import { CODE } from '../isa/opcodes.js';
import { CALL, type Insn, type SourceLine } from '../isa/program.js';
import type { Btf } from './btf.js';
import type { SectionInfo } from './btf-ext.js';
import { coreValue, patchCore } from './core.js';
import type { ElfObject, Relocation, Section } from './elf.js';
import { ObjectError, type ObjectPlace, quoted } from './errors.js';

export interface CodeFunction {
  readonly name: string;
  readonly section: CodeSection;
  /** First slot and the slot after the last, in the section. */
  readonly start: number;
  readonly end: number;
  /** Not static: a program, where its section is one of programs. */
  readonly global: boolean;
}

/** A section of instructions, CO-RE records already in them. */
export interface CodeSection {
  readonly index: number;
  readonly name: string;
  readonly insns: readonly Insn[];
  /** In order of `start`. */
  readonly functions: readonly CodeFunction[];
  /** By slot. */
  readonly relocations: ReadonlyMap<number, Relocation>;
  /** By slot: the source line that it belongs to. */
  readonly lines: readonly (SourceLine | undefined)[];
  /** CO-RE records that ask about types of a kernel. */
  readonly kernelRecords: number;
}

/** Reads a section of instructions. Throws ObjectError. */
export function readCode(
  elf: ElfObject,
  section: Section,
  info: SectionInfo | undefined,
  btf: Btf | undefined,
): CodeSection {
  const place = { section: section.name };
  if (section.bytes.length % INSN_BYTES !== 0) {
    throw new ObjectError(`expected instructions of 8 bytes, got ${section.bytes.length} bytes`, place);
  }
  const insns = decodeProgram(section.bytes);
  const lines = linesOf(insns.length, info);
  const kernelRecords = btf && info ? applyCore(section.name, insns, lines, info, btf) : 0;
  const code = {
    ...{ index: section.index, name: section.name, insns, lines, kernelRecords },
    relocations: relocationsOf(elf, section, lines),
    functions: [] as CodeFunction[],
  };
  code.functions.push(...functionsOf(elf, section, code, namedFunctions(info, btf)));
  return code;
}

function linesOf(slots: number, info: SectionInfo | undefined): (SourceLine | undefined)[] {
  const lines = new Array<SourceLine | undefined>(slots).fill(undefined);
  const list = info?.lines ?? [];
  for (const [i, { slot, line }] of list.entries()) {
    // Line 0: of the compiler's own making.
    if (line.line > 0) lines.fill(line, slot, list[i + 1]?.slot ?? slots);
  }
  return lines;
}

/** Returns how many records ask about types of a kernel. */
function applyCore(
  section: string,
  insns: Insn[],
  lines: readonly (SourceLine | undefined)[],
  info: SectionInfo,
  btf: Btf,
): number {
  let kernel = 0;
  for (const record of info.core) {
    at({ section, instruction: record.slot, line: lines[record.slot] }, () =>
      patchCore(insns, record.slot, record, coreValue(btf, record)),
    );
    if (record.kind !== CORE_KIND.TYPE_ID_LOCAL) kernel++;
  }
  return kernel;
}

/** Adds a place to errors that have none. */
function at<T>(place: ObjectPlace, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (!(error instanceof ObjectError)) throw error;
    throw new ObjectError(error.message, place);
  }
}

function relocationsOf(
  elf: ElfObject,
  section: Section,
  lines: readonly (SourceLine | undefined)[],
): Map<number, Relocation> {
  const found = new Map<number, Relocation>();
  for (const relocation of elf.relocations.get(section.index) ?? []) {
    const slot = Math.floor(relocation.offset / INSN_BYTES);
    const place = { section: section.name, instruction: slot, line: lines[slot] };
    if (relocation.offset % INSN_BYTES !== 0) {
      throw new ObjectError(`relocation at byte ${relocation.offset}: expected a multiple of 8`, place);
    }
    if (found.has(slot)) throw new ObjectError('two relocations of one instruction', place);
    found.set(slot, relocation);
  }
  return found;
}

/** Where function info says that functions begin, in order of slots. */
function namedFunctions(info: SectionInfo | undefined, btf: Btf | undefined): { slot: number; name: string }[] {
  if (!info || !btf) return [];
  return [...info.functions].map(([slot, id]) => ({ slot, name: btf.type(id).name })).sort((a, b) => a.slot - b.slot);
}

function functionsOf(
  elf: ElfObject,
  section: Section,
  code: CodeSection,
  named: readonly { slot: number; name: string }[],
): CodeFunction[] {
  const slots = code.insns.length;
  if (slots === 0) return [];
  const here = elf.symbolsOf(section.index).filter(({ name }) => name !== '');
  let symbols = here.filter(({ type }) => type === ELF_SYMBOL_TYPE.FUNC);
  // Older compilers do not say what is a function; labels are local.
  if (symbols.length === 0) {
    symbols = here.filter(({ type, bind }) => type === ELF_SYMBOL_TYPE.NOTYPE && bind !== ELF_SYMBOL_BIND.LOCAL);
  }
  // Without any symbol (stripped) function info knows, and without that the section is one function.
  if (symbols.length === 0 && named[0]?.slot === 0 && named.at(-1)!.slot < slots) {
    return named.map(({ slot: start, name }, i) => {
      return { name, section: code, start, end: named[i + 1]?.slot ?? slots, global: true };
    });
  }
  if (symbols.length === 0) return [{ name: section.name, section: code, start: 0, end: slots, global: true }];
  const sorted = [...symbols].sort((a, b) => a.value - b.value || b.size - a.size);
  const functions: CodeFunction[] = [];
  const starts = [...new Set(sorted.map(({ value }) => value))];
  const next = new Map(starts.map((start, i) => [start, starts[i + 1] ?? section.size]));
  for (const symbol of sorted) {
    const place = { section: section.name, offset: symbol.value };
    const end = symbol.size === 0 ? next.get(symbol.value)! : symbol.value + symbol.size;
    if (symbol.value % INSN_BYTES !== 0 || end % INSN_BYTES !== 0 || end === symbol.value) {
      throw new ObjectError(`function ${quoted(symbol.name)}: ${end - symbol.value} bytes are no instructions`, place);
    }
    const start = symbol.value / INSN_BYTES;
    const before = functions.at(-1);
    // Another name of the same function is fine.
    if (before && start < before.end && (start !== before.start || end / INSN_BYTES !== before.end)) {
      throw new ObjectError(`function ${quoted(symbol.name)} overlaps ${quoted(before.name)}`, place);
    }
    const global = symbol.bind !== ELF_SYMBOL_BIND.LOCAL;
    functions.push({ name: symbol.name, section: code, start, end: end / INSN_BYTES, global });
  }
  return functions;
}

/** Whether it refers to a function of the object: a local call. */
export const isLocalCall = (insn: Insn): boolean => insn.code === CODE.CALL && insn.src === CALL.LOCAL;
