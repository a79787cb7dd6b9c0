// What is in an object, for people and for programs.
import { readFileSync } from 'node:fs';
import { BPF_MAP_FLAG, BPF_MAP_TYPE } from '../../wire/bpf-map.js';
import { flagsText, nameOf } from '../../wire/struct.js';
import { slotsOf } from '../../xdp/isa/code.js';
import { disassembleProgram } from '../../xdp/isa/disassemble.js';
import { CODE } from '../../xdp/isa/opcodes.js';
import { type BpfProgram, IMM64, type ProgramType, type SourceLine } from '../../xdp/isa/program.js';
import type { JsonValue } from '../../xdp/object/btf-json.js';
import { OBJECT_LIMITS } from '../../xdp/object/elf.js';
import { ObjectError } from '../../xdp/object/errors.js';
import type { BpfMap, MapShape } from '../../xdp/object/maps.js';
import { type BpfObject, type LoadOptions, loadObject } from '../../xdp/object/object.js';
import type { RunConfig } from '../../xdp/object/run-config.js';
import { PROGRAM_TYPES } from '../../xdp/object/section-names.js';
import { OptionError } from '../demo/options.js';

export interface ProgramReport {
  readonly name: string;
  readonly section: string;
  readonly type: ProgramType;
  /** Slots, those of its subprograms too. */
  readonly instructions: number;
  readonly subprograms: readonly string[];
  /** What libxdp's metadata say. */
  readonly runConfig?: RunConfig;
}

export interface MapReport {
  readonly name: string;
  readonly section: string;
  readonly type: string;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: string;
  readonly pinned: boolean;
  readonly numaNode: number;
  readonly extra: string;
  readonly key?: string;
  readonly value?: string;
  /** Maps of maps: what is inside. */
  readonly inner?: string;
  /** Key -> name of a map or a program. */
  readonly initial: Readonly<Record<string, string>>;
}

export interface GlobalReport {
  readonly name: string;
  readonly section: string;
  readonly type: string;
  readonly constant: boolean;
  readonly value: JsonValue;
}

export interface ObjectReport {
  readonly file: string;
  readonly license: string;
  readonly programs: readonly ProgramReport[];
  readonly maps: readonly MapReport[];
  readonly globals: readonly GlobalReport[];
  readonly notes: readonly string[];
}

/** What the command line says about an object. */
export interface ObjectOptions {
  /** `TYPE`, or `NAME=TYPE` with the name of a section or a program. */
  readonly types?: readonly string[];
  /** `NAME=JSON`: values of global variables. */
  readonly settings?: readonly string[];
}

/** Reads an object file. Throws ObjectError with the file's name, OptionError. */
export function readObject(file: string, { types = [], settings = [] }: ObjectOptions = {}): BpfObject {
  const options = loadOptions(types);
  try {
    const object = loadObject(readBytes(file), options);
    for (const setting of settings) applySetting(object, setting);
    return object;
  } catch (error) {
    if (error instanceof ObjectError) throw new ObjectError(`${file}: ${error.message}`);
    throw error;
  }
}

function readBytes(file: string): Uint8Array {
  const bytes = readFileSync(file);
  if (bytes.length > OBJECT_LIMITS.bytes) {
    throw new ObjectError(`expected at most ${OBJECT_LIMITS.bytes} bytes, got ${bytes.length}`);
  }
  return bytes;
}

function loadOptions(types: readonly string[]): LoadOptions {
  const named = new Map<string, ProgramType>();
  let type: ProgramType | undefined;
  for (const text of types) {
    const at = text.indexOf('=');
    const given = text.slice(at + 1);
    const known = PROGRAM_TYPES.find((one) => one === given);
    if (!known) throw new OptionError(`type "${given}": expected one of ${PROGRAM_TYPES.join(', ')}`);
    if (at < 0) type = known;
    else named.set(text.slice(0, at), known);
  }
  return { types: Object.fromEntries(named), ...(type ? { type } : {}) };
}

function applySetting(object: BpfObject, text: string): void {
  const at = text.indexOf('=');
  if (at < 1) throw new OptionError(`"${text}": expected NAME=VALUE`);
  const value = text.slice(at + 1);
  let json: JsonValue;
  try {
    json = JSON.parse(value) as JsonValue;
  } catch {
    // Names of enums and 0x.. need no quotes.
    json = value;
  }
  object.setGlobal(text.slice(0, at), json);
}

export function reportObject(file: string, object: BpfObject): ObjectReport {
  return {
    file,
    license: object.license,
    programs: object.programs.map((program) => {
      const runConfig = object.runConfigs.get(program.name);
      return {
        ...{ name: program.name, section: program.section, type: program.type, instructions: program.insns.length },
        subprograms: program.subprograms.slice(1).map(({ name }) => name),
        ...(runConfig ? { runConfig } : {}),
      };
    }),
    maps: object.maps.map((map) => reportMap(object, map)),
    globals: object.globals.map((variable) => ({
      ...{ name: variable.name, section: variable.section, constant: variable.constant },
      type: object.btf!.describe(variable.type),
      value: object.globalValue(variable),
    })),
    notes: object.notes,
  };
}

const typeName = ({ type }: MapShape): string => nameOf(BPF_MAP_TYPE, type);

function reportMap(object: BpfObject, map: BpfMap): MapReport {
  const { keyType, valueType, inner } = map;
  const initial = map.initial.map((entry) => {
    const name = 'map' in entry ? object.maps[entry.map]!.name : entry.program;
    return [String(entry.key), name] as const;
  });
  return {
    ...{ name: map.name, section: map.section, type: typeName(map), keySize: map.keySize, valueSize: map.valueSize },
    ...{ maxEntries: map.maxEntries, flags: flagsText(BPF_MAP_FLAG, map.flags), pinned: map.pinned },
    ...{ numaNode: map.numaNode, extra: map.extra.toString() },
    ...(keyType === undefined ? {} : { key: object.btf!.describe(keyType) }),
    ...(valueType === undefined || map.data ? {} : { value: object.btf!.describe(valueType) }),
    ...(inner ? { inner: `${typeName(inner)} ${inner.keySize}/${inner.valueSize}, ${inner.maxEntries}` } : {}),
    initial: Object.fromEntries(initial),
  };
}

/** Lines for people. */
export function reportText({ file, license, programs, maps, globals, notes }: ObjectReport): string[] {
  const lines = [`${file}: license ${license === '' ? 'not stated' : license}`];
  const part = (head: readonly string[], rows: readonly (readonly string[])[]) => {
    if (rows.length > 0) lines.push('', ...aligned([head, ...rows]));
  };
  part(
    ['program', 'type', 'section', 'instructions', 'subprograms'],
    programs.map((one) => [one.name, one.type, one.section, String(one.instructions), one.subprograms.join(' ')]),
  );
  for (const { name, runConfig } of programs) {
    if (!runConfig) continue;
    const { priority, chainOn } = runConfig;
    lines.push(`${name}: priority ${priority}, the next program runs after ${chainOn.join(', ') || 'no verdict'}`);
  }
  part(
    ['map', 'type', 'key', 'value', 'entries', 'more'],
    maps.map((map) => [
      ...[map.name, map.type, bytesAndType(map.keySize, map.key), bytesAndType(map.valueSize, map.value)],
      ...[map.maxEntries === 0 ? 'not set' : String(map.maxEntries), moreOf(map)],
    ]),
  );
  part(
    ['variable', 'type', 'section', 'value'],
    globals.map(({ name, type, section, value }) => [name, type, section, JSON.stringify(value)]),
  );
  if (notes.length > 0) lines.push('');
  for (const note of notes) lines.push(`note: ${note}`);
  return lines;
}

const WIDEST = 40;

/** Columns to the left; a cell that is wider than most moves only its own line. */
function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.min(WIDEST, Math.max(widths[i] ?? 0, cell.length));
  }
  return rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd(),
  );
}

const bytesAndType = (size: number, type: string | undefined): string => (type ? `${size} ${type}` : String(size));

function moreOf({ flags, pinned, numaNode, extra, inner, initial }: MapReport): string {
  const words: string[] = [];
  if (flags !== '0') words.push(flags);
  if (pinned) words.push('pinned');
  if (numaNode !== 0) words.push(`NUMA node ${numaNode}`);
  if (extra !== '0') words.push(`extra ${extra}`);
  if (inner) words.push(`of ${inner}`);
  for (const [key, name] of Object.entries(initial)) words.push(`[${key}] ${name}`);
  return words.join(', ');
}

/** Instructions as text, with source lines, and names of what the instructions refer to. */
export function programText(object: BpfObject, program: BpfProgram): string[] {
  const lines: string[] = [];
  const names = new Map(program.subprograms.map(({ name, start }) => [start, name]));
  let last: SourceLine | undefined;
  for (const { slot, text } of disassembleProgram(program.insns)) {
    const name = names.get(slot);
    if (name !== undefined) lines.push(...(slot === 0 ? [] : ['']), `${name}:`);
    const line = program.lines[slot];
    if (line && (line.line !== last?.line || line.file !== last.file))
      lines.push(`; ${line.text.trim()} [${line.file}:${line.line}]`);
    last = line;
    const about = referenceText(object, program, slot, names);
    lines.push(`${String(slot).padStart(8)}: ${text}${about === '' ? '' : `  # ${about}`}`);
  }
  return lines;
}

function referenceText(
  object: BpfObject,
  { insns }: BpfProgram,
  slot: number,
  names: ReadonlyMap<number, string>,
): string {
  const insn = insns[slot]!;
  const target = slot + 1 + insn.imm;
  if (slotsOf(insn) === 1) return insn.code === CODE.CALL && insn.src === 1 ? (names.get(target) ?? '') : '';
  if (insn.src === IMM64.CODE) return names.get(target) ?? '';
  if (insn.src === IMM64.MAP) return object.maps[insn.imm]!.name;
  if (insn.src !== IMM64.MAP_VALUE) return '';
  const at = insns[slot + 1]!.imm;
  const found = object.globals.find(
    ({ map, offset, size }) => map === insn.imm && at >= offset && at < offset + Math.max(size, 1),
  );
  const section = object.maps[insn.imm]!.name;
  if (!found) return `${section} + ${at}`;
  return at === found.offset ? found.name : `${found.name} + ${at - found.offset}`;
}
