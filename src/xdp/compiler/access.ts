// What the compiler emits before a memory access: nothing where it is proved, else a comparison with the windows that the
// program may touch.

import type { Region } from '../isa/machine.js';
import { bytesOf } from '../isa/opcodes.js';
import type { Insn } from '../isa/program.js';
import type { Emitter } from './emit.js';
import { OP } from './wasm.js';

/** A bound of a window: an address, or the name of an exported i64 global that holds one (CompileOptions.globals). */
export type Bound = number | string;

/** Addresses from `start` up to, not including, `end`. */
export interface Window {
  readonly start: Bound;
  readonly end: Bound;
}

/** One memory access of a program. */
export interface Access {
  readonly slot: number;
  readonly insn: Insn;
  readonly bytes: number;
  readonly write: boolean;
  readonly atomic: boolean;
}

/**
 * What is known of an access. `proved`: inside of what may be touched, and aligned where it is atomic: no check. Windows:
 * it must lie in one of them, or the run ends with FAULT.ACCESS; none: it always does.
 */
export type Decision = 'proved' | readonly Window[];

/** Decides access by access; asked once for each, at compile time. */
export type AccessPolicy = (access: Access) => Decision;

/** Everything guarded by a machine's regions, which must not change while the program is in use. */
export function guardRegions(regions: readonly Region[]): AccessPolicy {
  const writable = regions.filter((region) => region.writable);
  return ({ write }) => (write ? writable : regions);
}

/**
 * Leaves an i32: not 0 where `bytes` at the i64 in `local` lie in none of the windows. Comparisons are signed and nothing
 * is added to the address: addresses are below 2^32, so no address, negative or huge, and no window shorter than the access
 * can pass by wrapping around (facts/ebpf-xdp.md 5 shows one that did).
 */
export function emitOutside(
  emitter: Emitter,
  local: number,
  bytes: number,
  windows: readonly Window[],
  bound: (bound: Bound) => void,
): void {
  if (windows.length === 0) {
    emitter.const32(1);
    return;
  }
  windows.forEach(({ start, end }, index) => {
    emitter.get(local);
    bound(start);
    emitter.op(OP.I64_LT_S).get(local);
    if (typeof end === 'number') emitter.const64(BigInt(end - bytes));
    else {
      bound(end);
      emitter.const64(bytes).op(OP.I64_SUB);
    }
    emitter.op(OP.I64_GT_S, OP.I32_OR);
    if (index > 0) emitter.op(OP.I32_AND);
  });
}

/** `insn` as an access. */
export const accessOf = (slot: number, insn: Insn, write: boolean, atomic: boolean): Access => ({
  slot,
  insn,
  bytes: bytesOf(insn.code),
  write,
  atomic,
});
