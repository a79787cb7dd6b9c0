// Control flow of one function: basic blocks, loops, and what a jump back costs of the instruction budget.

import type { CheckedProgram, FunctionRange } from './check.js';
import { slotsOf } from './code.js';
import { CODE, endsFlow, isJump, jumpTarget } from './opcodes.js';
import type { Insn } from './program.js';

/** Instructions that run one after the other: slots from `start` up to, not including, `end`; `last` is the last one. */
export interface Block {
  readonly start: number;
  readonly end: number;
  readonly last: number;
  /** Block behind it, -1 when control never falls through. */
  readonly next: number;
  /** Block that its last instruction jumps to, -1 when it does not jump. */
  readonly target: number;
}

/** The basic blocks of a function in order of slots, those that nothing reaches included. The first is the entry. */
export function blocksOf(insns: readonly Insn[], range: FunctionRange): Block[] {
  const leads = new Uint8Array(range.end - range.start + 1);
  leads[0] = 1;
  for (let slot = range.start; slot < range.end; slot += slotsOf(insns[slot]!)) {
    const { code } = insns[slot]!;
    if (isJump(code)) leads[jumpTarget(slot, insns[slot]!) - range.start] = 1;
    if (isJump(code) || endsFlow(code)) leads[slot + 1 - range.start] = 1;
  }
  const indexOf = new Int32Array(leads.length);
  let count = 0;
  for (let at = 0; at < leads.length - 1; at++) if (leads[at] === 1) indexOf[at] = count++;
  const blocks: Block[] = [];
  for (let start = range.start; start < range.end; ) {
    let last = start;
    let end = start + slotsOf(insns[start]!);
    while (end < range.end && leads[end - range.start] === 0) {
      last = end;
      end += slotsOf(insns[end]!);
    }
    const insn = insns[last]!;
    blocks.push({
      start,
      end,
      last,
      next: endsFlow(insn.code) ? -1 : blocks.length + 1,
      target: isJump(insn.code) ? indexOf[jumpTarget(last, insn) - range.start]! : -1,
    });
    start = end;
  }
  return blocks;
}

/** Finds strongly connected components of a function's blocks, time and again with the same memory. */
export class Components {
  readonly #blocks: readonly Block[];
  /** When a block was entered, from 1; 0 before. */
  readonly #order: Int32Array;
  /** Earliest open block that is reached from it; -1 once its component is found. */
  readonly #low: Int32Array;
  /** Edges of a block that were followed. */
  readonly #steps: Uint8Array;

  constructor(blocks: readonly Block[]) {
    this.#blocks = blocks;
    this.#order = new Int32Array(blocks.length);
    this.#low = new Int32Array(blocks.length);
    this.#steps = new Uint8Array(blocks.length);
  }

  /**
   * Components of the blocks that are `inside`, found from `entry`, in topological order: no edge leads from a later to an
   * earlier one. Edges to `without` are left out. Where the order is free, fall-through comes first.
   */
  find(inside: (block: number) => boolean, entry: number, without = -1): number[][] {
    // Tarjan's algorithm with a stack of its own: functions may be a million instructions long.
    const order = this.#order;
    const low = this.#low;
    const open: number[] = [];
    const found: number[][] = [];
    const walk: number[] = [];
    let count = 0;
    const enter = (block: number): void => {
      order[block] = ++count;
      low[block] = count;
      this.#steps[block] = 0;
      open.push(block);
      walk.push(block);
    };
    enter(entry);
    while (walk.length > 0) {
      const block = walk.at(-1)!;
      if (this.#steps[block]! < 2) {
        const to = this.#steps[block]!++ === 0 ? this.#blocks[block]!.target : this.#blocks[block]!.next;
        if (to < 0 || to === without || !inside(to)) continue;
        if (order[to] === 0) enter(to);
        else if (low[to]! > 0) low[block] = Math.min(low[block]!, order[to]!);
        continue;
      }
      walk.pop();
      const above = walk.at(-1);
      if (above !== undefined) low[above] = Math.min(low[above]!, low[block]!);
      if (low[block] !== order[block]) continue;
      const members: number[] = [];
      for (;;) {
        const member = open.pop()!;
        low[member] = -1;
        members.push(member);
        if (member === block) break;
      }
      found.push(members.reverse());
    }
    for (const members of found) for (const member of members) order[member] = 0;
    return found.reverse();
  }
}

/**
 * What instructions cost of the budget, by slot: a jump back inside a loop costs the slots that it jumps over, a local
 * call the slots of what it calls, everything else nothing. The sum over a run, plus the program's length, bounds the
 * instructions that it executes, and programs without loops and calls pay nothing.
 */
export function budgetCosts({ insns, functions }: CheckedProgram): Int32Array {
  const costs = new Int32Array(insns.length);
  const lengths = new Map(functions.map((range) => [range.start, range.end - range.start]));
  for (const range of functions) {
    const blocks = blocksOf(insns, range);
    const component = new Int32Array(blocks.length).fill(-1);
    new Components(blocks)
      .find(() => true, 0)
      .forEach((members, index) => {
        for (const member of members) component[member] = index;
      });
    blocks.forEach((block, index) => {
      for (let slot = block.start; slot < block.end; slot += slotsOf(insns[slot]!)) {
        const insn = insns[slot]!;
        if (insn.code === CODE.CALL && insn.src === 1) costs[slot] = lengths.get(slot + 1 + insn.imm)!;
      }
      const { target, last } = block;
      if (target < 0 || target > index || component[index] < 0 || component[target] !== component[index]) return;
      costs[last] = last - blocks[target]!.start + 1;
    });
  }
  return costs;
}
