// One function of a program as the body of one WebAssembly function.
import type { CheckedProgram, FunctionRange } from '../isa/check.js';
import { slotsOf } from '../isa/code.js';
import { type Block, blocksOf, Components } from '../isa/flow.js';
import { FAULT, faultWord } from '../isa/machine.js';
import {
  CLASS,
  CODE,
  callxRegister,
  classOf,
  FRAME_BYTES,
  FRAME_POINTER,
  isJump,
  MODE,
  modeOf,
  REGISTERS,
  STACK_BYTES,
} from '../isa/opcodes.js';
import { CALL, type Insn } from '../isa/program.js';
import { type AccessPolicy, accessOf, type Bound, emitOutside } from './access.js';
import { Emitter } from './emit.js';
import { structureOf } from './structure.js';
import { Bytes, OP, TYPE } from './wasm.js';

/** An imported helper: its index, and how r1 to r5 and the result pass. */
export interface HelperImport {
  readonly index: number;
  readonly shape: HelperShape;
}

export interface HelperShape {
  /** Of r1, r2 and so on: whole, or the low half. */
  readonly params: readonly ('i32' | 'i64')[];
  /** i32: an int of C, sign-extended into r0. */
  readonly result: 'i32' | 'i64';
  /** Whether it may set the module's fault global, which then ends the run. */
  readonly faults: boolean;
}

/** What the functions of a module share. */
export interface ModuleScope {
  readonly program: CheckedProgram;
  readonly costs: Int32Array;
  readonly policy: AccessPolicy;
  readonly helpers: ReadonlyMap<number, HelperImport>;
  readonly immediate: ((slot: number) => bigint) | undefined;
  /** Lowest address of the stack. */
  readonly stack: number;
  readonly budget: number;
  /** Whether calls could be nested too deep, and must count. */
  readonly countsFrames: boolean;
  readonly faultGlobal: number;
  readonly fuelGlobal: number;
  readonly globals: ReadonlyMap<string, number>;
  /** WebAssembly functions of the program's functions that are compiled, by first slot. */
  readonly compiled: Map<number, { readonly index: number; readonly faults: boolean }>;
}

/** Parameters of a function that others call: r1 to r5, and its frame pointer. */
export const LOCAL_PARAMS = [1, 2, 3, 4, 5, FRAME_POINTER] as const;
/** Parameters of the entry: r1, r2. */
export const ENTRY_PARAMS = [1, 2] as const;

/** V8's limit for the body of one function. */
const MAX_BODY_BYTES = 7_654_321;
/** V8's limit for the entries of one br_table. */
const MAX_DISPATCHED = 65_000;

/** A program is too large for WebAssembly engines. */
export class CompileError extends Error {
  override readonly name = 'CompileError';
}

/** Compiles one function. */
export class FunctionCompiler {
  readonly #scope: ModuleScope;
  readonly #range: FunctionRange;
  readonly #entry: boolean;
  readonly #blocks: Block[];
  readonly #code = new Bytes();
  readonly #emitter: Emitter;
  readonly #state: number;
  readonly #params: readonly number[];
  /** Open blocks, loops and ifs. */
  #depth = 0;
  /** Its fault global may be set when it returns. */
  faults = false;

  constructor(scope: ModuleScope, range: FunctionRange, entry: boolean) {
    this.#scope = scope;
    this.#range = range;
    this.#entry = entry;
    this.#blocks = blocksOf(scope.program.insns, range);
    this.#params = entry ? ENTRY_PARAMS : LOCAL_PARAMS;
    const registers = this.#params.length;
    const wide = registers + REGISTERS;
    this.#state = wide + 2;
    this.#emitter = new Emitter(this.#code, { registers, wide, narrow: wide + 1 });
  }

  /** The function's locals and code. Throws CompileError. */
  compile(): Bytes {
    const { stack, budget, fuelGlobal, faultGlobal } = this.#scope;
    const emit = this.#emitter;
    if (this.#entry) {
      emit.const32(0).op(OP.GLOBAL_SET).out.unsigned(faultGlobal);
      emit.const32(budget).op(OP.GLOBAL_SET).out.unsigned(fuelGlobal);
      emit.const64(stack + STACK_BYTES).setRegister(FRAME_POINTER);
    }
    this.#params.forEach((register, param) => {
      emit.get(param).setRegister(register);
    });
    this.#open(OP.BLOCK);
    if (!this.#structured()) this.#dispatched();
    this.#close();
    emit.register(0);
    // A fault is XDP_ABORTED.
    if (this.#entry && this.faults)
      emit.const64(0).op(OP.GLOBAL_GET).out.unsigned(faultGlobal).byte(OP.I32_EQZ).byte(OP.SELECT);
    emit.op(OP.END);
    const body = new Bytes().unsigned(2);
    body
      .unsigned(REGISTERS + 1)
      .byte(TYPE.I64)
      .unsigned(2)
      .byte(TYPE.I32);
    body.bytes(this.#code.view());
    if (body.length > MAX_BODY_BYTES)
      throw new CompileError(
        `function at ${this.#range.start}: ${body.length} bytes of WebAssembly, at most ${MAX_BODY_BYTES}`,
      );
    return body;
  }

  #open(kind: number): number {
    this.#emitter.op(kind, TYPE.NONE);
    return ++this.#depth;
  }
  #close(): void {
    this.#emitter.op(OP.END);
    this.#depth--;
  }
  /** Branches to an open scope, by what #open() gave. */
  #branch(label: number, operation: number = OP.BR): void {
    this.#emitter.op(operation).out.unsigned(this.#depth - label);
  }
  #exit(): void {
    this.#branch(1);
  }

  /** Nested blocks and loops; false where control flow is irreducible, and nothing was written. */
  #structured(): boolean {
    const structure = structureOf(this.#blocks);
    if (structure === undefined) return false;
    const { order, place, opens } = structure;
    const forward = new Int32Array(order.length + 1);
    const back = new Int32Array(order.length + 1);
    const ends: number[] = [];
    order.forEach((index, at) => {
      for (; ends.at(-1) === at; ends.pop()) this.#close();
      for (const { loop, end } of opens[at]!) {
        const label = this.#open(loop ? OP.LOOP : OP.BLOCK);
        if (loop) back[at] = label;
        else forward[end] = label;
        ends.push(end);
      }
      const next = at + 1;
      this.#block(index, (to, falls) => {
        const target = place[to]!;
        if (target > at) {
          if (!falls || target !== next) this.#branch(forward[target]!);
        } else this.#branch(back[target]!);
      });
    });
    for (; ends.length > 0; ends.pop()) this.#close();
    return true;
  }

  /** A loop around a br_table: any control flow. */
  #dispatched(): void {
    const emit = this.#emitter;
    const order = new Components(this.#blocks)
      .find(() => true, 0)
      .flat()
      .sort((a, b) => a - b);
    if (order.length > MAX_DISPATCHED)
      throw new CompileError(
        `function at ${this.#range.start}: ${order.length} blocks of irreducible control flow, at most ${MAX_DISPATCHED}`,
      );
    const place = new Map(order.map((block, at) => [block, at]));
    const top = this.#open(OP.LOOP);
    for (let at = 0; at < order.length; at++) this.#open(OP.BLOCK);
    emit
      .get(this.#state)
      .op(OP.BR_TABLE)
      .out.unsigned(order.length - 1);
    for (let at = 0; at < order.length; at++) emit.out.unsigned(at);
    order.forEach((index, at) => {
      this.#close();
      this.#block(index, (to, falls) => {
        if (falls && place.get(to) === at + 1) return;
        emit.const32(place.get(to)!).set(this.#state);
        this.#branch(top);
      });
    });
    this.#close();
  }

  /** A block's instructions; `go` leads on, by falling into what comes right behind if it may. */
  #block(index: number, go: (to: number, falls: boolean) => void): void {
    const { insns } = this.#scope.program;
    const { start, end, last, next, target } = this.#blocks[index]!;
    for (let slot = start; slot < end; slot += slotsOf(insns[slot]!)) {
      if (slot !== last || !isJump(insns[slot]!.code)) this.#insn(slot, insns[slot]!);
    }
    const insn = insns[last]!;
    if (insn.code === CODE.EXIT) return;
    if (target >= 0 && next < 0) {
      this.#spend(last);
      go(target, true);
      return;
    }
    // A jump to what follows anyway decides nothing.
    if (target >= 0 && target !== next) {
      this.#emitter.condition(insn);
      this.#open(OP.IF);
      this.#spend(last);
      go(target, false);
      this.#close();
    }
    go(next, true);
  }

  #insn(slot: number, insn: Insn): void {
    const { program, immediate } = this.#scope;
    switch (classOf(insn.code)) {
      case CLASS.ALU:
      case CLASS.ALU64:
        this.#emitter.arithmetic(insn);
        return;
      case CLASS.LD:
        this.#emitter.immediate(
          insn,
          program.insns[slot + 1]!,
          insn.src === 0 ? undefined : BigInt.asUintN(64, immediate!(slot)),
        );
        return;
      case CLASS.LDX:
      case CLASS.ST:
      case CLASS.STX:
        this.#access(slot, insn);
        return;
      default:
        if (insn.code === CODE.EXIT) {
          this.#exit();
          return;
        }
        if (insn.code === CODE.CALLX) {
          this.#callRegister(slot, insn);
          return;
        }
        if (insn.src === CALL.LOCAL) {
          this.#callLocal(slot, slot + 1 + insn.imm);
          return;
        }
        this.#callHelper(slot, this.#scope.helpers.get(insn.imm)!);
    }
  }

  /** Ends the run. */
  #fault(code: number, slot: number): void {
    this.faults = true;
    this.#emitter.const32(faultWord(code, slot)).op(OP.GLOBAL_SET).out.unsigned(this.#scope.faultGlobal);
    this.#exit();
  }

  /** Ends the run where the i32 on the stack is not 0. */
  #faultIf(code: number, slot: number): void {
    this.#open(OP.IF);
    this.#fault(code, slot);
    this.#close();
  }

  /** Takes what a jump or call costs from the budget. */
  #spend(slot: number): void {
    const { costs, fuelGlobal } = this.#scope;
    if (costs[slot] === 0) return;
    const emit = this.#emitter;
    emit.op(OP.GLOBAL_GET).out.unsigned(fuelGlobal);
    emit.const32(costs[slot]!).op(OP.I32_SUB).tee(emit.locals.narrow);
    emit.op(OP.GLOBAL_SET).out.unsigned(fuelGlobal);
    emit.get(emit.locals.narrow).const32(0).op(OP.I32_LT_S);
    this.#faultIf(FAULT.BUDGET, slot);
  }

  #access(slot: number, insn: Insn): void {
    const { policy, globals } = this.#scope;
    const emit = this.#emitter;
    const atomic = classOf(insn.code) === CLASS.STX && modeOf(insn.code) === MODE.ATOMIC;
    const write = classOf(insn.code) !== CLASS.LDX;
    const access = accessOf(slot, insn, write, atomic);
    const decision = policy(access);
    const base = write ? insn.dst : insn.src;
    if (decision === 'proved') {
      emit.low(base);
      // A memory operand's own offset has no sign, and is added without wrapping.
      if (insn.off < 0) emit.const32(insn.off).op(OP.I32_ADD);
      emit.access(insn, Math.max(insn.off, 0));
      return;
    }
    const { wide } = emit.locals;
    emit.register(base);
    if (insn.off !== 0) emit.const64(insn.off).op(OP.I64_ADD);
    emit.set(wide);
    emitOutside(emit, wide, access.bytes, decision, (bound: Bound) => {
      if (typeof bound === 'number') emit.const64(BigInt(bound));
      else emit.op(OP.GLOBAL_GET).out.unsigned(globals.get(bound)!);
    });
    this.#faultIf(FAULT.ACCESS, slot);
    if (atomic) {
      emit
        .get(wide)
        .op(OP.I32_WRAP)
        .const32(access.bytes - 1)
        .op(OP.I32_AND);
      this.#faultIf(FAULT.ALIGNMENT, slot);
    }
    emit.get(wide).op(OP.I32_WRAP);
    emit.access(insn, 0);
  }

  #callLocal(slot: number, start: number): void {
    const { stack, countsFrames, compiled, faultGlobal } = this.#scope;
    const emit = this.#emitter;
    const callee = compiled.get(start)!;
    if (countsFrames) {
      emit
        .register(FRAME_POINTER)
        .const64(stack + FRAME_BYTES)
        .op(OP.I64_LE_S);
      this.#faultIf(FAULT.FRAMES, slot);
    }
    this.#spend(slot);
    for (const register of LOCAL_PARAMS) emit.register(register);
    emit.const64(FRAME_BYTES).op(OP.I64_SUB, OP.CALL).out.unsigned(callee.index);
    emit.setRegister(0);
    if (!callee.faults) return;
    this.faults = true;
    emit.op(OP.GLOBAL_GET).out.unsigned(faultGlobal);
    this.#branch(1, OP.BR_IF);
  }

  #callHelper(slot: number, { index, shape }: HelperImport): void {
    const { faultGlobal } = this.#scope;
    const emit = this.#emitter;
    shape.params.forEach((type, at) => {
      if (type === 'i64') emit.register(at + 1);
      else emit.low(at + 1);
    });
    emit.op(OP.CALL).out.unsigned(index);
    if (shape.result === 'i32') emit.op(OP.I64_EXTEND_I32_S);
    emit.setRegister(0);
    if (!shape.faults) return;
    this.faults = true;
    emit.op(OP.GLOBAL_GET).out.unsigned(faultGlobal);
    this.#open(OP.IF);
    // It gave the code; the slot is ours.
    emit.op(OP.GLOBAL_GET).out.unsigned(faultGlobal);
    emit.const32(faultWord(0, slot)).op(OP.I32_OR, OP.GLOBAL_SET).out.unsigned(faultGlobal);
    this.#exit();
    this.#close();
  }

  /** A helper by the number in a register. */
  #callRegister(slot: number, insn: Insn): void {
    const emit = this.#emitter;
    const done = this.#open(OP.BLOCK);
    for (const [id, helper] of this.#scope.helpers) {
      emit.low(callxRegister(insn)).const32(id).op(OP.I32_EQ);
      this.#open(OP.IF);
      this.#callHelper(slot, helper);
      this.#branch(done);
      this.#close();
    }
    this.#fault(FAULT.HELPER, slot);
    this.#close();
  }
}
