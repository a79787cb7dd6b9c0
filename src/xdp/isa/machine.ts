// What a program runs on, for interpreter and compiler alike: memory, windows into it, helpers, faults.
import type { CheckedProgram } from './check.js';
import { CODE, STACK_BYTES } from './opcodes.js';
import { CALL, IMM64 } from './program.js';

/** Why a run ended before the program did. A fault's cell holds code and slot, as faultWord() has it; 0 is none. */
export const FAULT = {
  /** A load, store or atomic outside of every window, or a store into one that is read-only. */
  ACCESS: 1,
  /** An atomic operation at an address that is no multiple of its size. */
  ALIGNMENT: 2,
  /** The instruction budget is used up. */
  BUDGET: 3,
  /** More than MAX_FRAMES calls inside each other. */
  FRAMES: 4,
  /** A call through a register of a helper that does not exist. */
  HELPER: 5,
  /** A helper refused its arguments. */
  ARGUMENT: 6,
} as const;

const TEXTS: Readonly<Record<number, string>> = {
  [FAULT.ACCESS]: 'memory access outside of packet, stack and context',
  [FAULT.ALIGNMENT]: 'atomic operation at an unaligned address',
  [FAULT.BUDGET]: 'instruction budget used up',
  [FAULT.FRAMES]: 'more than 8 calls inside each other',
  [FAULT.HELPER]: 'call of a helper that does not exist',
  [FAULT.ARGUMENT]: 'helper refused its arguments',
};

/** Code and slot in one 32-bit word. */
export const faultWord = (code: number, slot: number): number => (slot << 8) | code;

export interface Fault {
  readonly code: number;
  readonly slot: number;
  readonly text: string;
}

/** The fault that a word stands for, undefined for 0. */
export function faultOf(word: number): Fault | undefined {
  if (word === 0) return undefined;
  const code = word & 0xff;
  const slot = word >>> 8;
  return { code, slot, text: `instruction ${slot}: ${TEXTS[code] ?? `fault ${code}`}` };
}

/** Outcome of a run: r0 without sign, 0 (XDP_ABORTED) where there is a fault. */
export interface Outcome {
  readonly r0: bigint;
  readonly fault: Fault | undefined;
}

/** Addresses from `start` up to, not including, `end` that a program may touch. */
export interface Region {
  readonly name: string;
  readonly start: number;
  readonly end: number;
  readonly writable: boolean;
}

/** A helper in TypeScript: arguments r1 to r5 and the result are 64 bits without sign. */
export type Helper = (r1: bigint, r2: bigint, r3: bigint, r4: bigint, r5: bigint) => bigint;

/** Thrown by a helper: ends the run with a fault of the call. */
export class HelperFault extends Error {
  override readonly name = 'HelperFault';
  readonly code: number;
  constructor(code: number) {
    super(TEXTS[code] ?? `fault ${code}`);
    this.code = code;
  }
}

/** Thrown by a helper: ends the run, without a fault, with this r0. */
export class Unwind extends Error {
  override readonly name = 'Unwind';
  readonly r0: bigint;
  constructor(r0: bigint) {
    super('unwound by a helper');
    this.r0 = r0;
  }
}

export interface Machine {
  /** Address 0 is the first byte. Compiled programs need a WebAssembly memory, the interpreter takes any. */
  readonly buffer: ArrayBufferLike;
  /** All that may be accessed; the stack is one of them. */
  readonly regions: readonly Region[];
  /** Lowest address of the stack: STACK_BYTES, a multiple of 8. The entry's r10 is its end. */
  readonly stack: number;
  readonly helpers: ReadonlyMap<number, Helper>;
  /** Instructions (see budgetCosts) that a run may execute, below 2^31. */
  readonly budget: number;
  /** Value of a 64-bit immediate with a src other than 0, by slot. */
  readonly immediate?: (slot: number) => bigint;
}

/** The region that a machine's stack is. */
export const stackRegion = (address: number): Region => ({
  name: 'stack',
  start: address,
  end: address + STACK_BYTES,
  writable: true,
});

/** Where `bytes` at an address lie entirely in a region; undefined where they do not. */
export function regionAt(
  regions: readonly Region[],
  address: bigint,
  bytes: number,
  write: boolean,
): Region | undefined {
  // Any 64-bit address: what is left of it is below 2^32, and nothing wraps.
  if (address < 0n || address > 0xffff_ffffn) return undefined;
  const at = Number(address);
  for (const region of regions) {
    if (at >= region.start && at + bytes <= region.end && (region.writable || !write)) return region;
  }
  return undefined;
}

/** A program refers to something that only exists with a map table, or to a helper that is not there. */
export class LinkError extends Error {
  override readonly name = 'LinkError';
}

/** Checks once what interpreter and compiler rely on. Throws LinkError. */
export function checkMachine(machine: Pick<Machine, 'buffer' | 'regions' | 'stack' | 'budget'>): void {
  const { buffer, regions, stack, budget } = machine;
  const size = buffer.byteLength;
  for (const { name, start, end } of regions) {
    if (!Number.isInteger(start) || !Number.isInteger(end) || start < 0 || start > end || end > size)
      throw new LinkError(`region ${name}: expected a part of 0 to ${size}, got ${start} to ${end}`);
  }
  if (stack % 8 !== 0 || stack < 0 || stack + STACK_BYTES > size)
    throw new LinkError(`stack: expected a multiple of 8 with ${STACK_BYTES} bytes behind it in ${size}, got ${stack}`);
  if (!Number.isInteger(budget) || budget < 1 || budget >= 2 ** 31)
    throw new LinkError(`budget: expected 1 to ${2 ** 31 - 1} instructions, got ${budget}`);
}

/** Checks that all that a program refers to by number is there. Throws LinkError. */
export function checkLinks(
  { insns }: CheckedProgram,
  machine: { readonly helpers: { has(id: number): boolean }; readonly immediate?: (slot: number) => bigint },
): void {
  insns.forEach((insn, slot) => {
    if (insn.code === CODE.CALL && insn.src === CALL.HELPER && !machine.helpers.has(insn.imm))
      throw new LinkError(`instruction ${slot} (call ${insn.imm}): there is no helper ${insn.imm}`);
    if (insn.code === CODE.LDDW && insn.src !== IMM64.VALUE && machine.immediate === undefined)
      throw new LinkError(`instruction ${slot}: maps and code addresses need an object with a map table`);
  });
}
