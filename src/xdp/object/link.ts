// Makes a program of a function and all functions that it needs, one behind the other, with calls, maps and variables
// resolved to what BpfProgram promises.
import { BPF_RELOCATION, ELF_SECTION_INDEX, ELF_SYMBOL_BIND } from '../../wire/elf.js';
import { nameOf } from '../../wire/struct.js';
import { INSN_BYTES, slotsOf } from '../isa/code.js';
import { CODE, MAX_INSNS } from '../isa/opcodes.js';
import { type BpfProgram, CALL, IMM64, type Insn, type ProgramType, type Subprogram } from '../isa/program.js';
import type { ObjectSymbol, Relocation, Section } from './elf.js';
import { ObjectError, type ObjectPlace, quoted } from './errors.js';
import { type CodeFunction, type CodeSection, isLocalCall } from './functions.js';
import type { BpfMap, FindMap } from './maps.js';

/** A call of a kernel function that may be missing, and is: the helper number that libbpf puts there. */
export const MISSING_FUNCTION = 2_002_000_000;

export interface LinkInput {
  /** By index of section. */
  readonly code: ReadonlyMap<number, CodeSection>;
  readonly sections: readonly Section[];
  readonly find: FindMap;
  /** Maps of global variables, by index of section. */
  readonly data: ReadonlyMap<number, BpfMap>;
  readonly note: (text: string) => void;
}

/** What a 64-bit immediate or a call becomes. */
type Target =
  | { readonly kind: 'function'; readonly section: number; readonly slot: number }
  | { readonly kind: 'map'; readonly map: number }
  | { readonly kind: 'value'; readonly map: number; readonly offset: number }
  | { readonly kind: 'number'; readonly value: number };

/** Links the program that begins with `entry`. Throws ObjectError. */
export function linkProgram(entry: CodeFunction, type: ProgramType, input: LinkInput): BpfProgram {
  return new Linker(entry, input).link(type);
}

class Linker {
  readonly #entry: CodeFunction;
  readonly #input: LinkInput;
  readonly #insns: Insn[] = [];
  readonly #lines: BpfProgram['lines'][number][] = [];
  readonly #subprograms: Subprogram[] = [];
  readonly #starts = new Map<CodeFunction, number>();
  readonly #waiting: CodeFunction[] = [];
  /** Slots whose imm is to lead to a function. */
  readonly #references: { readonly slot: number; readonly to: CodeFunction }[] = [];

  constructor(entry: CodeFunction, input: LinkInput) {
    this.#entry = entry;
    this.#input = input;
  }

  link(type: ProgramType): BpfProgram {
    this.#want(this.#entry);
    // Grows while it is walked.
    for (const next of this.#waiting) this.#append(next);
    for (const { slot, to } of this.#references) {
      this.#insns[slot] = { ...this.#insns[slot]!, imm: this.#starts.get(to)! - slot - 1 };
    }
    return {
      ...{ name: this.#entry.name, section: this.#entry.section.name, type, insns: this.#insns },
      ...{ subprograms: this.#subprograms, lines: this.#lines },
    };
  }

  /** Places are those of the section: that is where a compiler's listing has them. */
  #place({ section }: CodeFunction, slot: number): ObjectPlace {
    return { section: section.name, program: this.#entry.name, instruction: slot, line: section.lines[slot] };
  }

  #want(wanted: CodeFunction): void {
    if (this.#starts.has(wanted)) return;
    this.#starts.set(wanted, -1);
    this.#waiting.push(wanted);
  }

  #append(one: CodeFunction): void {
    const base = this.#insns.length;
    if (base + one.end - one.start > MAX_INSNS) {
      throw new ObjectError(`with all that it calls: more than ${MAX_INSNS} instructions`, this.#place(one, one.start));
    }
    this.#starts.set(one, base);
    this.#subprograms.push({ name: one.name, start: base });
    const { insns, relocations, lines } = one.section;
    for (let slot = one.start; slot < one.end; slot++) {
      const insn = insns[slot]!;
      const relocation = relocations.get(slot);
      this.#lines.push(lines[slot]);
      const wide = slotsOf(insn) === 2;
      if (wide && slot + 1 >= one.end) {
        throw new ObjectError('a 64-bit immediate without its second half', this.#place(one, slot));
      }
      if (relocation) this.#relocate(one, slot, insn, relocation);
      else if (isLocalCall(insn)) {
        this.#refer(one, slot, insn, { kind: 'function', section: one.section.index, slot: slot + 1 + insn.imm });
      } else this.#insns.push(insn);
      if (!wide) continue;
      slot++;
      this.#lines.push(lines[slot]);
      if (relocations.has(slot)) {
        throw new ObjectError('a relocation inside of a 64-bit immediate', this.#place(one, slot));
      }
      if (!relocation) this.#insns.push(insns[slot]!);
    }
  }

  #relocate(one: CodeFunction, slot: number, insn: Insn, { type, symbol }: Relocation): void {
    const place = this.#place(one, slot);
    const wide = insn.code === CODE.LDDW;
    if (type === BPF_RELOCATION.R_BPF_64_64 && wide) {
      const second = one.section.insns[slot + 1]!;
      const target = this.#address(symbol, insn.imm, place);
      if (target.kind === 'function') {
        this.#refer(one, slot, { ...insn, src: IMM64.CODE }, target);
        this.#insns.push({ ...second, imm: 0 });
        return;
      }
      const src = target.kind === 'map' ? IMM64.MAP : target.kind === 'value' ? IMM64.MAP_VALUE : IMM64.VALUE;
      this.#insns.push({ ...insn, src, imm: target.kind === 'number' ? target.value : target.map });
      this.#insns.push({ ...second, imm: target.kind === 'value' ? target.offset : 0 });
      return;
    }
    if (type === BPF_RELOCATION.R_BPF_64_32 && insn.code === CODE.CALL) {
      if (symbol.section === ELF_SECTION_INDEX.UNDEF) {
        this.#missing(symbol, 'a kernel function', place);
        this.#insns.push({ ...insn, src: CALL.HELPER, imm: MISSING_FUNCTION });
        return;
      }
      const slots = symbol.value / INSN_BYTES + insn.imm + 1;
      this.#refer(one, slot, { ...insn, src: CALL.LOCAL }, { kind: 'function', section: symbol.section, slot: slots });
      return;
    }
    const known = nameOf(BPF_RELOCATION, type);
    const what = `relocation ${known} (symbol ${quoted(symbol.name)}): expected R_BPF_64_64 of a 64-bit immediate or`;
    throw new ObjectError(
      `${what} R_BPF_64_32 of a call; the instruction's code is 0x${insn.code.toString(16)}`,
      place,
    );
  }

  /** What a 64-bit immediate stands for. */
  #address(symbol: ObjectSymbol, addend: number, place: ObjectPlace): Target {
    if (symbol.section === ELF_SECTION_INDEX.UNDEF) {
      this.#missing(symbol, 'a variable of the kernel', place);
      return { kind: 'number', value: 0 };
    }
    const section = this.#input.sections[symbol.section];
    const offset = symbol.value + addend;
    if (section?.executable) return { kind: 'function', section: section.index, slot: offset / INSN_BYTES };
    const data = this.#input.data.get(symbol.section);
    if (data) {
      if (offset >= 0 && offset < data.valueSize) return { kind: 'value', map: data.index, offset };
      const what = `address of byte ${offset} of section ${quoted(data.section)}`;
      throw new ObjectError(`${what} (symbol ${quoted(symbol.name)}): it has ${data.valueSize}`, place);
    }
    const map = this.#input.find(symbol.section, offset);
    if (map) return { kind: 'map', map: map.index };
    const where = section ? `section ${quoted(section.name)}` : `section number ${symbol.section}`;
    const what = `address of ${quoted(symbol.name)}, byte ${offset} of ${where}`;
    throw new ObjectError(`${what}: expected a map, a variable or a function`, place);
  }

  #missing({ name, bind }: ObjectSymbol, what: string, place: ObjectPlace): void {
    const text = `${quoted(name)} is not defined in the object (extern): ${what}, which there is none of here`;
    if (bind !== ELF_SYMBOL_BIND.WEAK) throw new ObjectError(text, place);
    this.#input.note(`${text}; it is weak: its address is 0`);
  }

  #refer(one: CodeFunction, slot: number, insn: Insn, target: Target & { kind: 'function' }): void {
    const functions = this.#input.code.get(target.section)?.functions ?? [];
    const to = startingAt(functions, target.slot);
    if (!to) {
      const name = this.#input.sections[target.section]?.name ?? `number ${target.section}`;
      const what = `reference to instruction ${target.slot} of section ${quoted(name)}`;
      throw new ObjectError(`${what}: no function begins there`, this.#place(one, slot));
    }
    this.#references.push({ slot: this.#insns.length, to });
    this.#want(to);
    this.#insns.push(insn);
  }
}

/** Functions are in order of start. */
export function startingAt(functions: readonly CodeFunction[], slot: number): CodeFunction | undefined {
  let low = 0;
  let high = functions.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (functions[middle]!.start < slot) low = middle + 1;
    else high = middle;
  }
  return functions[low]?.start === slot ? functions[low] : undefined;
}
