/** An instruction slot as it stands in memory (RFC 9669 section 3): fields decoded, nothing interpreted. */
export interface Insn {
  /** Operation, class and mode: one byte. 0 in the second slot of a 64-bit immediate. */
  readonly code: number;
  /** Destination register, 0 to 15 as encoded. */
  readonly dst: number;
  /** Source register or kind of immediate, 0 to 15 as encoded. */
  readonly src: number;
  /** Signed 16 bits. */
  readonly off: number;
  /** Signed 32 bits. */
  readonly imm: number;
}

/** Where a slot comes from in the source text (BTF.ext line info). */
export interface SourceLine {
  readonly file: string;
  /** From 1. */
  readonly line: number;
  /** From 1; 0 where the compiler gave none. */
  readonly column: number;
  /** The source line itself. */
  readonly text: string;
}

/** A function of a program: its name and the slot of its first instruction. */
export interface Subprogram {
  readonly name: string;
  readonly start: number;
}

/** Where the kernel attaches a program: follows from its section's name. */
export type ProgramType = 'xdp' | 'xdp.frags' | 'xdp/devmap' | 'xdp.frags/devmap' | 'xdp/cpumap' | 'xdp.frags/cpumap';

/**
 * A program, linked: calls lead to slots of `insns`, 64-bit immediates say by their src what they are (`IMM64`), where
 * map indices refer to the map table of the object that the program is from.
 */
export interface BpfProgram {
  readonly name: string;
  readonly section: string;
  readonly type: ProgramType;
  readonly insns: readonly Insn[];
  /** In order of `start`; the first is the program's own entry, at 0. */
  readonly subprograms: readonly Subprogram[];
  /** By slot. */
  readonly lines: readonly (SourceLine | undefined)[];
}

/** What the src of a 64-bit immediate says about its value (RFC 9669 section 5.4). */
export const IMM64 = {
  /** The number itself. */
  VALUE: 0,
  /** imm: index of a map in the object's table. */
  MAP: 1,
  /** imm: index of a map, next slot's imm: offset in its first value. */
  MAP_VALUE: 2,
  /** imm: id of a platform variable. Not supported. */
  VARIABLE: 3,
  /** imm: distance in slots to a function, from the slot after the first. */
  CODE: 4,
  /** As 1 and 2 with indices into an array of descriptors given at load time. Not supported. */
  MAP_INDEX: 5,
  MAP_INDEX_VALUE: 6,
} as const;

/** What the src of a call says about its target (RFC 9669 section 4.3). */
export const CALL = {
  /** imm: id of a helper function. */
  HELPER: 0,
  /** imm: distance in slots from the next instruction to a function of the same program. */
  LOCAL: 1,
  /** imm: BTF id of a kernel function. Not supported. */
  KFUNC: 2,
} as const;
