// WebAssembly of single instructions: registers are i64 locals, numbered from Registers.first.
import { immediate64 } from '../isa/code.js';
import {
  ALU,
  ATOMIC,
  bytesOf,
  CLASS,
  CODE,
  classOf,
  isRegisterForm,
  JMP,
  MODE,
  modeOf,
  operationOf,
} from '../isa/opcodes.js';
import type { Insn } from '../isa/program.js';
import { ATOMIC_RMW, type Bytes, OP, TYPE } from './wasm.js';

/** Which locals hold what. */
export interface Locals {
  /** r0; the others follow. */
  readonly registers: number;
  /** i64 to compute with. */
  readonly wide: number;
  /** i32 to compute with. */
  readonly narrow: number;
}

/** 32-bit and 64-bit forms of the operations that are one instruction. */
const SIMPLE: Readonly<Record<number, readonly [i32: number, i64: number]>> = {
  [ALU.ADD]: [OP.I32_ADD, OP.I64_ADD],
  [ALU.SUB]: [OP.I32_SUB, OP.I64_SUB],
  [ALU.MUL]: [OP.I32_MUL, OP.I64_MUL],
  [ALU.OR]: [OP.I32_OR, OP.I64_OR],
  [ALU.AND]: [OP.I32_AND, OP.I64_AND],
  [ALU.XOR]: [OP.I32_XOR, OP.I64_XOR],
  // Counts are masked to the width, as in RFC 9669.
  [ALU.LSH]: [OP.I32_SHL, OP.I64_SHL],
  [ALU.RSH]: [OP.I32_SHR_U, OP.I64_SHR_U],
  [ALU.ARSH]: [OP.I32_SHR_S, OP.I64_SHR_S],
};
const COMPARE: Readonly<Record<number, readonly [i32: number, i64: number]>> = {
  [JMP.JEQ]: [OP.I32_EQ, OP.I64_EQ],
  [JMP.JNE]: [OP.I32_NE, OP.I64_NE],
  [JMP.JGT]: [OP.I32_GT_U, OP.I64_GT_U],
  [JMP.JGE]: [OP.I32_GE_U, OP.I64_GE_U],
  [JMP.JLT]: [OP.I32_LT_U, OP.I64_LT_U],
  [JMP.JLE]: [OP.I32_LE_U, OP.I64_LE_U],
  [JMP.JSGT]: [OP.I32_GT_S, OP.I64_GT_S],
  [JMP.JSGE]: [OP.I32_GE_S, OP.I64_GE_S],
  [JMP.JSLT]: [OP.I32_LT_S, OP.I64_LT_S],
  [JMP.JSLE]: [OP.I32_LE_S, OP.I64_LE_S],
};
const RMW: Readonly<Record<number, number>> = {
  [ATOMIC.ADD]: ATOMIC_RMW.ADD,
  [ATOMIC.OR]: ATOMIC_RMW.OR,
  [ATOMIC.AND]: ATOMIC_RMW.AND,
  [ATOMIC.XOR]: ATOMIC_RMW.XOR,
};

/** Writes instructions of one function. */
export class Emitter {
  readonly out: Bytes;
  readonly locals: Locals;
  constructor(out: Bytes, locals: Locals) {
    this.out = out;
    this.locals = locals;
  }

  op(...codes: number[]): this {
    for (const code of codes) this.out.byte(code);
    return this;
  }
  get(local: number): this {
    this.out.byte(OP.LOCAL_GET).unsigned(local);
    return this;
  }
  set(local: number): this {
    this.out.byte(OP.LOCAL_SET).unsigned(local);
    return this;
  }
  tee(local: number): this {
    this.out.byte(OP.LOCAL_TEE).unsigned(local);
    return this;
  }
  const32(value: number): this {
    this.out.byte(OP.I32_CONST).signed(value | 0);
    return this;
  }
  const64(value: bigint | number): this {
    this.out.byte(OP.I64_CONST);
    if (typeof value === 'number') this.out.signed(value);
    else this.out.signed64(BigInt.asIntN(64, value));
    return this;
  }
  register(number: number): this {
    return this.get(this.locals.registers + number);
  }
  setRegister(number: number): this {
    return this.set(this.locals.registers + number);
  }
  /** Low half of a register. */
  low(number: number): this {
    return this.register(number).op(OP.I32_WRAP);
  }

  /** The second operand in the width of the operation. */
  operand(insn: Insn, wide: boolean): this {
    if (!isRegisterForm(insn.code)) return wide ? this.const64(insn.imm) : this.const32(insn.imm);
    return wide ? this.register(insn.src) : this.low(insn.src);
  }

  /** ALU and ALU64. */
  arithmetic(insn: Insn): void {
    const wide = classOf(insn.code) === CLASS.ALU64;
    const operation = operationOf(insn.code);
    if (operation === ALU.END) {
      this.#byteOrder(insn);
      return;
    }
    const simple = SIMPLE[operation];
    if (operation === ALU.MOV) this.#move(insn, wide);
    else if (operation === ALU.NEG) this.#negate(insn.dst, wide);
    else if (simple === undefined) this.#divide(insn, wide);
    else {
      this.#value(insn.dst, wide)
        .operand(insn, wide)
        .op(simple[wide ? 1 : 0]);
    }
    if (!wide) this.op(OP.I64_EXTEND_I32_U);
    this.setRegister(insn.dst);
  }

  #value(register: number, wide: boolean): this {
    return wide ? this.register(register) : this.low(register);
  }

  #move(insn: Insn, wide: boolean): void {
    this.operand(insn, wide);
    if (insn.off === 8) this.op(wide ? OP.I64_EXTEND8_S : OP.I32_EXTEND8_S);
    else if (insn.off === 16) this.op(wide ? OP.I64_EXTEND16_S : OP.I32_EXTEND16_S);
    else if (insn.off === 32) this.op(OP.I64_EXTEND32_S);
  }

  #negate(register: number, wide: boolean): void {
    if (wide) this.const64(0).register(register).op(OP.I64_SUB);
    else this.const32(0).low(register).op(OP.I32_SUB);
  }

  /** Division and remainder never trap: x / 0 is 0, x % 0 is x, MIN / -1 is MIN, MIN % -1 is 0. */
  #divide(insn: Insn, wide: boolean): void {
    const signed = insn.off === 1;
    const remainder = operationOf(insn.code) === ALU.MOD;
    const pick = (i32: number, i64: number): number => (wide ? i64 : i32);
    const instruction = remainder
      ? signed
        ? pick(OP.I32_REM_S, OP.I64_REM_S)
        : pick(OP.I32_REM_U, OP.I64_REM_U)
      : signed
        ? pick(OP.I32_DIV_S, OP.I64_DIV_S)
        : pick(OP.I32_DIV_U, OP.I64_DIV_U);
    const negates = signed && !remainder;
    const zero = (): this => (wide ? this.const64(0) : this.const32(0));
    if (!isRegisterForm(insn.code)) {
      if (insn.imm === 0) remainder ? this.#value(insn.dst, wide) : zero();
      else if (insn.imm === -1 && negates) this.#negate(insn.dst, wide);
      else this.#value(insn.dst, wide).operand(insn, wide).op(instruction);
      return;
    }
    if (negates) {
      // Divisors 0 and -1 at once: the dividend's negative, masked by the divisor.
      this.operand(insn, wide);
      if (wide) this.const64(1).op(OP.I64_ADD).const64(1).op(OP.I64_LE_U);
      else this.const32(1).op(OP.I32_ADD).const32(1).op(OP.I32_LE_U);
      this.op(OP.IF, pick(TYPE.I32, TYPE.I64));
      this.#negate(insn.dst, wide);
      this.operand(insn, wide).op(pick(OP.I32_AND, OP.I64_AND));
    } else {
      this.operand(insn, wide).op(pick(OP.I32_EQZ, OP.I64_EQZ), OP.IF, pick(TYPE.I32, TYPE.I64));
      if (remainder) this.#value(insn.dst, wide);
      else zero();
    }
    this.op(OP.ELSE);
    this.#value(insn.dst, wide).operand(insn, wide).op(instruction, OP.END);
  }

  #byteOrder(insn: Insn): void {
    const { dst, imm, code } = insn;
    if (code === CODE.LE) {
      if (imm === 64) return;
      if (imm === 32) this.low(dst).op(OP.I64_EXTEND_I32_U);
      else this.register(dst).const64(0xffff).op(OP.I64_AND);
      this.setRegister(dst);
      return;
    }
    if (imm === 16) {
      this.low(dst).const32(0xff).op(OP.I32_AND).const32(8).op(OP.I32_SHL);
      this.low(dst).const32(8).op(OP.I32_SHR_U).const32(0xff).op(OP.I32_AND, OP.I32_OR, OP.I64_EXTEND_I32_U);
    } else if (imm === 32) {
      const { narrow } = this.locals;
      this.low(dst).tee(narrow).const32(8).op(OP.I32_ROTL).const32(0x00ff00ff).op(OP.I32_AND);
      this.get(narrow).const32(24).op(OP.I32_ROTL).const32(0xff00ff00).op(OP.I32_AND, OP.I32_OR, OP.I64_EXTEND_I32_U);
    } else {
      const { wide } = this.locals;
      const halves = (shift: number, mask: bigint): void => {
        this.get(wide).const64(shift).op(OP.I64_SHR_U).const64(mask).op(OP.I64_AND);
        this.get(wide).const64(mask).op(OP.I64_AND).const64(shift).op(OP.I64_SHL, OP.I64_OR);
      };
      this.register(dst).set(wide);
      halves(8, 0x00ff_00ff_00ff_00ffn);
      this.set(wide);
      halves(16, 0x0000_ffff_0000_ffffn);
      this.const64(32).op(OP.I64_ROTL);
    }
    this.setRegister(dst);
  }

  /** A 64-bit immediate. */
  immediate(insn: Insn, next: Insn, resolved: bigint | undefined): void {
    this.const64(resolved ?? immediate64(insn, next)).setRegister(insn.dst);
  }

  /** Leaves an i32 that is not 0 where a conditional jump is taken. */
  condition(insn: Insn): void {
    const wide = classOf(insn.code) === CLASS.JMP;
    this.#value(insn.dst, wide).operand(insn, wide);
    const compare = COMPARE[operationOf(insn.code)];
    if (compare !== undefined) this.op(compare[wide ? 1 : 0]);
    else if (wide) this.op(OP.I64_AND).const64(0).op(OP.I64_NE);
    else this.op(OP.I32_AND);
  }

  /** A load or store, plain or atomic, after `address` has left an i32 on the stack; `offset` is added to it. */
  access(insn: Insn, offset: number): void {
    const kind = classOf(insn.code);
    const bytes = bytesOf(insn.code);
    if (kind === CLASS.LDX) {
      const signs = modeOf(insn.code) === MODE.MEMSX;
      const load =
        bytes === 8
          ? OP.I64_LOAD
          : bytes === 4
            ? signs
              ? OP.I64_LOAD32_S
              : OP.I64_LOAD32_U
            : bytes === 2
              ? signs
                ? OP.I64_LOAD16_S
                : OP.I64_LOAD16_U
              : signs
                ? OP.I64_LOAD8_S
                : OP.I64_LOAD8_U;
      this.op(load, 0).out.unsigned(offset);
      this.setRegister(insn.dst);
      return;
    }
    if (modeOf(insn.code) === MODE.ATOMIC) {
      this.#atomic(insn, offset);
      return;
    }
    if (kind === CLASS.ST) this.const64(insn.imm);
    else this.register(insn.src);
    this.op(
      bytes === 8 ? OP.I64_STORE : bytes === 4 ? OP.I64_STORE32 : bytes === 2 ? OP.I64_STORE16 : OP.I64_STORE8,
      0,
    );
    this.out.unsigned(offset);
  }

  #atomic(insn: Insn, offset: number): void {
    const wide = bytesOf(insn.code) === 8;
    const compares = insn.imm === ATOMIC.CMPXCHG;
    if (compares) this.#value(0, wide);
    this.#value(insn.src, wide);
    const operation = compares
      ? ATOMIC_RMW.CMPXCHG
      : insn.imm === ATOMIC.XCHG
        ? ATOMIC_RMW.XCHG
        : RMW[insn.imm & ~ATOMIC.FETCH]!;
    this.op(OP.ATOMIC, operation + (wide ? 1 : 0), wide ? 3 : 2).out.unsigned(offset);
    if ((insn.imm & ATOMIC.FETCH) === 0) {
      this.op(OP.DROP);
      return;
    }
    if (!wide) this.op(OP.I64_EXTEND_I32_U);
    this.setRegister(compares ? 0 : insn.src);
  }
}
