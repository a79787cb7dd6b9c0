// An object as clang makes it, ready to be checked and run: programs, linked, and the maps that they refer to.

import { ELF_SYMBOL_TYPE } from '../../wire/elf.js';
import { checkProgram, InsnError } from '../isa/check.js';
import { INSN_BYTES } from '../isa/code.js';
import type { BpfProgram, ProgramType } from '../isa/program.js';
import { Btf } from './btf.js';
import { parseBtfExt, type SectionInfo } from './btf-ext.js';
import type { JsonValue } from './btf-json.js';
import { type ElfObject, parseElf } from './elf.js';
import { ObjectError, quoted } from './errors.js';
import { type CodeFunction, type CodeSection, readCode } from './functions.js';
import { type GlobalVariable, globalsOf, globalToJson, setGlobal } from './globals.js';
import { linkProgram, startingAt } from './link.js';
import { type BpfMap, declareMaps, initialEntries, mapFinder } from './maps.js';
import { type RunConfig, runConfigs } from './run-config.js';
import { sectionMeaning } from './section-names.js';
import { Texts } from './texts.js';

export interface LoadOptions {
  /** Types of programs whose section's name does not tell, by name of the section or the program. */
  readonly types?: Readonly<Record<string, ProgramType>>;
  /** Type of all programs in sections whose name tells nothing. */
  readonly type?: ProgramType;
}

/** Slots of all programs of an object at most: functions that several programs need are there once for each. */
const MAX_SLOTS = 2_000_000;
const MAX_NOTES = 1000;
const LICENSE = 'license';

export class BpfObject {
  /** As the programs state it; empty when they do not. */
  readonly license: string;
  readonly programs: readonly BpfProgram[];
  /** Instructions refer to them by index. */
  readonly maps: readonly BpfMap[];
  readonly globals: readonly GlobalVariable[];
  /** What libxdp's metadata say, by name of the program. */
  readonly runConfigs: ReadonlyMap<string, RunConfig>;
  /** What was left out, and why. */
  readonly notes: readonly string[];
  /** Types of keys, values and variables; undefined without -g. */
  readonly btf: Btf | undefined;

  constructor(parts: Omit<BpfObject, 'program' | 'globalValue' | 'setGlobal'>) {
    this.license = parts.license;
    this.programs = parts.programs;
    this.maps = parts.maps;
    this.globals = parts.globals;
    this.runConfigs = parts.runConfigs;
    this.notes = parts.notes;
    this.btf = parts.btf;
  }

  /** The program of that name, or the only one. Throws ObjectError with the names that there are. */
  program(name?: string): BpfProgram {
    const names = this.programs.map((program) => quoted(program.name)).join(', ') || 'no XDP program';
    if (name === undefined && this.programs.length === 1) return this.programs[0]!;
    if (name === undefined) throw new ObjectError(`expected the name of a program: the object has ${names}`);
    const found = this.programs.find((program) => program.name === name);
    if (!found) throw new ObjectError(`no program ${quoted(name)}: the object has ${names}`);
    return found;
  }

  /** What a global variable starts with. Throws ObjectError. */
  globalValue(variable: GlobalVariable): JsonValue {
    return globalToJson(this.btf!, this.maps[variable.map]!, variable);
  }

  /** Changes what a global variable starts with; `const` ones too, as long as nothing was made of the object yet. */
  setGlobal(name: string, value: JsonValue): void {
    const found = this.globals.filter((variable) => variable.name === name);
    if (found.length !== 1) {
      const names = this.globals.map((variable) => quoted(variable.name)).join(', ') || 'none that BTF tells of';
      const what = found.length === 0 ? 'there is none' : 'there are several';
      throw new ObjectError(`global variable ${quoted(name)}: ${what}; the object has ${names}`);
    }
    setGlobal(this.btf!, this.maps[found[0]!.map]!, found[0]!, value);
  }
}

/** Reads an object; `bytes` is not kept. Throws ObjectError with what is wrong and where. */
export function loadObject(bytes: Uint8Array, options: LoadOptions = {}): BpfObject {
  const elf = parseElf(bytes);
  const contentOf = (name: string) => elf.sections.find((section) => section.name === name)?.bytes;
  const types = contentOf('.BTF');
  const about = contentOf('.BTF.ext');
  const btf = types ? new Btf(types) : undefined;
  const infos = btf && about ? parseBtfExt(about, btf) : new Map<string, SectionInfo>();
  return new Loader(elf, btf, infos, options).load();
}

class Loader {
  readonly #elf: ElfObject;
  readonly #btf: Btf | undefined;
  readonly #options: LoadOptions;
  readonly #code = new Map<number, CodeSection>();
  readonly #notes = new Set<string>();
  /** Programs by their entry. */
  readonly #entries: { readonly entry: CodeFunction; readonly type: ProgramType }[] = [];
  readonly #programs = new Set<CodeFunction>();
  /** Functions of sections that were skipped. */
  readonly #skipped = new Set<string>();
  readonly #infos: ReadonlyMap<string, SectionInfo>;

  constructor(elf: ElfObject, btf: Btf | undefined, infos: ReadonlyMap<string, SectionInfo>, options: LoadOptions) {
    this.#elf = elf;
    this.#btf = btf;
    this.#infos = infos;
    this.#options = options;
  }

  #note(text: string): void {
    if (this.#notes.size < MAX_NOTES) this.#notes.add(text);
  }

  load(): BpfObject {
    const elf = this.#elf;
    for (const section of elf.sections) if (section.executable) this.#readSection(section.index);
    const declared = declareMaps(elf, this.#btf);
    const input = {
      ...{ code: this.#code, sections: elf.sections, find: mapFinder(declared) },
      data: new Map(declared.filter(({ map }) => map.data).map((one) => [one.sectionIndex, one.map])),
      note: (text: string) => this.#note(text),
    };
    let slots = 0;
    const names = new Set<string>();
    const programs = this.#entries.map(({ entry, type }) => {
      const program = linkProgram(entry, type, input);
      slots += program.insns.length;
      if (slots > MAX_SLOTS) throw new ObjectError(`expected at most ${MAX_SLOTS} instructions in all programs`);
      if (names.has(program.name)) throw new ObjectError(`program ${quoted(program.name)}: there are two of that name`);
      names.add(program.name);
      check(program);
      return program;
    });
    const maps = initialEntries(elf, declared, (section, offset) => this.#programAt(section, offset));
    const kept = maps.map((map) => this.#withoutSkipped(map));
    this.#noteData();
    const license = elf.sections.find(({ name }) => name === LICENSE)?.bytes;
    const configs = runConfigs(this.#btf);
    for (const name of configs.keys()) {
      if (!names.has(name)) {
        this.#note(`.xdp_run_config is about ${quoted(name)}, which is no XDP program of the object`);
      }
    }
    return new BpfObject({
      ...{ programs, maps: kept, runConfigs: configs, btf: this.#btf, notes: [...this.#notes] },
      globals: globalsOf(elf, kept, this.#btf),
      license: license ? (new Texts(license).at(0) ?? '') : '',
    });
  }

  #readSection(index: number): void {
    const section = this.#elf.sections[index]!;
    const { name } = section;
    const meaning = sectionMeaning(name);
    const told = this.#options.types ?? {};
    const toldHere = Object.hasOwn(told, name) ? told[name] : undefined;
    if (meaning.known && !meaning.type && !toldHere) {
      const functions = this.#elf.symbolsOf(index).filter(({ type }) => type === ELF_SYMBOL_TYPE.FUNC);
      const names = functions.map((symbol) => quoted(symbol.name)).slice(0, 8);
      for (const symbol of functions) this.#skipped.add(`${index} ${symbol.value}`);
      this.#note(`section ${quoted(name)} skipped, not XDP: ${names.join(', ') || 'no programs'}`);
      return;
    }
    const code = readCode(this.#elf, section, this.#infos.get(name), this.#btf);
    this.#code.set(index, code);
    if (code.kernelRecords > 0) {
      const what = `${code.kernelRecords} CO-RE records about kernel types resolved to the object's own`;
      this.#note(`section ${quoted(name)}: ${what}; there is no kernel here`);
    }
    const usual = toldHere ?? meaning.type ?? (name === '.text' ? undefined : this.#options.type);
    for (const entry of code.functions) {
      if (!entry.global) continue;
      const type = Object.hasOwn(told, entry.name) ? told[entry.name] : usual;
      if (type) {
        this.#entries.push({ entry, type });
        this.#programs.add(entry);
      } else if (name !== '.text') {
        this.#note(`program ${quoted(entry.name)} skipped: section ${quoted(name)} does not tell its type`);
      }
    }
    if (meaning.optional) this.#note(`section ${quoted(name)}: its programs are not attached unless asked for`);
  }

  #programAt(section: number, offset: number): string | undefined {
    const key = `${section} ${offset}`;
    if (this.#skipped.has(key)) return key;
    const functions = this.#code.get(section)?.functions ?? [];
    const entry = startingAt(functions, offset / INSN_BYTES);
    return entry && this.#programs.has(entry) ? entry.name : undefined;
  }

  #withoutSkipped(map: BpfMap): BpfMap {
    const initial = map.initial.filter((entry) => !('program' in entry && this.#skipped.has(entry.program)));
    if (initial.length < map.initial.length) {
      const missing = map.initial.length - initial.length;
      this.#note(`map ${quoted(map.name)}: ${missing} entries left out, their programs are not XDP`);
    }
    return { ...map, initial };
  }

  #noteData(): void {
    for (const [index, list] of this.#elf.relocations) {
      const { name, executable } = this.#elf.sections[index]!;
      if (executable || !/^\.(rodata|data)/.test(name)) continue;
      this.#note(`section ${quoted(name)}: ${list.length} addresses in variables stay 0`);
    }
  }
}

/** Well-formedness of instructions, with the place in the source. */
function check(program: BpfProgram): void {
  try {
    checkProgram(program.insns);
  } catch (error) {
    if (!(error instanceof InsnError)) throw error;
    const { slot } = error;
    const place = { section: program.section, program: program.name, line: program.lines[slot] };
    throw new ObjectError(error.message, place);
  }
}
