// Well-formedness: what can be said of instructions one by one and of where jumps lead, before anything is known about
// values. Whoever runs or compiles a program relies on it.
import { slotsOf } from './code.js';
import { disassemble } from './disassemble.js';
import {
  ALU,
  ATOMIC,
  CLASS,
  CODE,
  callxRegister,
  classOf,
  endsFlow,
  FRAME_POINTER,
  isJump,
  isRegisterForm,
  JMP,
  jumpTarget,
  MAX_INSNS,
  MODE,
  modeOf,
  operationOf,
  SIZE,
} from './opcodes.js';
import { CALL, IMM64, type Insn } from './program.js';

/** A function of a program: its slots from `start` up to, not including, `end`. */
export interface FunctionRange {
  readonly start: number;
  readonly end: number;
}

/** What checkProgram() found out on its way. */
export interface CheckedProgram {
  readonly insns: readonly Insn[];
  /** In order of slots; the first is the entry. */
  readonly functions: readonly FunctionRange[];
}

export interface CheckOptions {
  /**
   * `kernel` (default): shift counts beyond the width and division by an immediate 0 are refused, as Linux does.
   * `rfc`: they are masked, or give what a register with that value would (RFC 9669 section 4.1).
   */
  readonly rules?: 'kernel' | 'rfc';
  /** Allow calls of helpers by a number in a register (0x8d), which no group of RFC 9669 has. */
  readonly callx?: boolean;
  /** Slots at most. */
  readonly maximum?: number;
}

/** A program that is not well-formed: which instruction, which of its fields, what was expected. */
export class InsnError extends Error {
  override readonly name = 'InsnError';
  /** Slot of the instruction. */
  readonly slot: number;
  /** Field at fault: code, dst, src, off, imm. */
  readonly field: string;
  constructor(slot: number, field: string, text: string, what: string) {
    super(`instruction ${slot} (${text}): ${what}`);
    this.slot = slot;
    this.field = field;
  }
}

type Field = 'code' | 'dst' | 'src' | 'off' | 'imm';

/** One instruction being checked. */
class Checker {
  readonly insn: Insn;
  readonly slot: number;
  readonly next: Insn | undefined;
  constructor(insns: readonly Insn[], slot: number) {
    this.insn = insns[slot]!;
    this.next = insns[slot + 1];
    this.slot = slot;
  }
  fail(field: Field, what: string): never {
    throw new InsnError(this.slot, field, disassemble(this.insn, this.next), what);
  }
  zero(...fields: Exclude<Field, 'code'>[]): void {
    for (const field of fields) {
      if (this.insn[field] !== 0)
        this.fail(field, `${field} is not used here and must be 0, it is ${this.insn[field]}`);
    }
  }
  reads(field: 'dst' | 'src'): void {
    if (this.insn[field] > FRAME_POINTER) this.fail(field, `${field} must be r0 to r10, it is r${this.insn[field]}`);
  }
  writes(field: 'dst' | 'src'): void {
    this.reads(field);
    if (this.insn[field] === FRAME_POINTER) this.fail(field, `${field} is r10, the frame pointer, which is read-only`);
  }
  unknown(): never {
    const code = `0x${this.insn.code.toString(16).padStart(2, '0')}`;
    this.fail('code', `code ${code} is in no group of RFC 9669`);
  }
}

function checkArithmetic(at: Checker, options: CheckOptions): void {
  const { insn } = at;
  const wide = classOf(insn.code) === CLASS.ALU64;
  const operation = operationOf(insn.code);
  const fromRegister = isRegisterForm(insn.code);
  if (operation > ALU.END) at.unknown();
  at.writes('dst');
  if (operation === ALU.NEG) {
    if (fromRegister) at.unknown();
    at.zero('src', 'off', 'imm');
    return;
  }
  if (operation === ALU.END) {
    if (wide && fromRegister) at.unknown();
    at.zero('src', 'off');
    if (insn.imm !== 16 && insn.imm !== 32 && insn.imm !== 64)
      at.fail('imm', `imm must be 16, 32 or 64, it is ${insn.imm}`);
    return;
  }
  if (fromRegister) {
    if (operation === ALU.MOV && wide && insn.off === 1)
      at.fail('off', 'addr_space_cast (off 1) is a kernel extension for arenas, not in RFC 9669');
    at.reads('src');
    at.zero('imm');
  } else {
    at.zero('src');
  }
  if (operation === ALU.DIV || operation === ALU.MOD) {
    if (insn.off !== 0 && insn.off !== 1) at.fail('off', `off must be 0 (unsigned) or 1 (signed), it is ${insn.off}`);
  } else if (operation === ALU.MOV && fromRegister) {
    if (insn.off !== 0 && insn.off !== 8 && insn.off !== 16 && !(wide && insn.off === 32))
      at.fail('off', `off must be 0, or 8, 16${wide ? ' or 32' : ''} for sign extension, it is ${insn.off}`);
  } else {
    at.zero('off');
  }
  if (options.rules === 'rfc' || fromRegister) return;
  const shifts = operation === ALU.LSH || operation === ALU.RSH || operation === ALU.ARSH;
  const width = wide ? 64 : 32;
  if (shifts && insn.imm >>> 0 >= width) at.fail('imm', `shift count must be 0 to ${width - 1}, it is ${insn.imm}`);
  if ((operation === ALU.DIV || operation === ALU.MOD) && insn.imm === 0) at.fail('imm', 'division by zero');
}

function checkCall(at: Checker, options: CheckOptions): void {
  const { insn } = at;
  if (insn.code === CODE.CALLX) {
    if (options.callx !== true) at.fail('code', 'callx (a call through a register) is in no group of RFC 9669');
    at.zero('off');
    if (insn.dst !== 0) at.zero('src');
    if (insn.dst !== 0 || insn.src !== 0) at.zero('imm');
    const register = callxRegister(insn);
    if (register < 0 || register > FRAME_POINTER) at.fail('dst', `the register must be r0 to r10, it is r${register}`);
    return;
  }
  if (insn.code !== CODE.CALL) at.unknown();
  at.zero('dst', 'off');
  if (insn.src === CALL.KFUNC) at.fail('src', 'src 2 calls a kernel function (kfunc), which exists in a kernel only');
  if (insn.src > CALL.KFUNC) at.fail('src', `src must be 0 (helper) or 1 (function of the program), it is ${insn.src}`);
}

function checkJump(at: Checker, options: CheckOptions): void {
  const { insn } = at;
  const operation = operationOf(insn.code);
  if (operation === JMP.CALL) {
    checkCall(at, options);
    return;
  }
  if (insn.code === CODE.MAY_GOTO) at.fail('code', 'may_goto is a kernel extension, not in RFC 9669');
  if (insn.code === CODE.EXIT) {
    at.zero('dst', 'src', 'off', 'imm');
    return;
  }
  if (insn.code === CODE.JA) {
    at.zero('dst', 'src', 'imm');
    return;
  }
  if (insn.code === CODE.JA32) {
    at.zero('dst', 'src', 'off');
    return;
  }
  if (operation === JMP.JA || operation === JMP.EXIT || operation > JMP.JSLE) at.unknown();
  at.reads('dst');
  if (!isRegisterForm(insn.code)) {
    at.zero('src');
    return;
  }
  at.reads('src');
  at.zero('imm');
}

function checkLoadImmediate(at: Checker): void {
  const { insn, next } = at;
  const mode = modeOf(insn.code);
  if (insn.code !== CODE.LDDW) {
    if (mode === MODE.ABS || mode === MODE.IND)
      at.fail('code', 'legacy packet access (LD_ABS, LD_IND) is for socket filters, XDP programs have packet pointers');
    at.unknown();
  }
  at.writes('dst');
  at.zero('off');
  if (insn.src === IMM64.VARIABLE)
    at.fail('src', 'src 3 is the address of a kernel variable, which exists in a kernel only');
  if (insn.src === IMM64.MAP_INDEX || insn.src === IMM64.MAP_INDEX_VALUE)
    at.fail(
      'src',
      `src ${insn.src} refers to a loader's table of descriptors: the loader must resolve it to src ${insn.src - 4}`,
    );
  if (insn.src > IMM64.MAP_INDEX_VALUE) at.fail('src', `src must be 0 to 6, it is ${insn.src}`);
  if (next === undefined) at.fail('imm', 'the second half of the 64-bit immediate is missing');
  for (const field of ['code', 'dst', 'src', 'off'] as const) {
    if (next[field] !== 0) at.fail(field, `${field} of the second half must be 0, it is ${next[field]}`);
  }
  if ((insn.src === IMM64.MAP || insn.src === IMM64.CODE) && next.imm !== 0)
    at.fail('imm', `imm of the second half is not used here and must be 0, it is ${next.imm}`);
}

function checkAtomic(at: Checker): void {
  const { insn } = at;
  const size = insn.code & 0x18;
  const operation = insn.imm;
  if (operation === ATOMIC.LOAD_ACQUIRE || operation === ATOMIC.STORE_RELEASE)
    at.fail(
      'imm',
      `${operation === ATOMIC.LOAD_ACQUIRE ? 'load-acquire' : 'store-release'} is a kernel extension, not in RFC 9669`,
    );
  if (size !== SIZE.W && size !== SIZE.DW) at.fail('code', 'atomic operations are on 4 or 8 bytes');
  at.reads('dst');
  const plain = operation & ~ATOMIC.FETCH;
  const simple = plain === ATOMIC.ADD || plain === ATOMIC.OR || plain === ATOMIC.AND || plain === ATOMIC.XOR;
  if (!simple && operation !== ATOMIC.XCHG && operation !== ATOMIC.CMPXCHG)
    at.fail('imm', `0x${(operation >>> 0).toString(16)} is no atomic operation of RFC 9669`);
  if ((operation & ATOMIC.FETCH) !== 0 && operation !== ATOMIC.CMPXCHG) at.writes('src');
  else at.reads('src');
}

function checkMemory(at: Checker): void {
  const { insn } = at;
  const mode = modeOf(insn.code);
  const kind = classOf(insn.code);
  if (kind === CLASS.STX && mode === MODE.ATOMIC) {
    checkAtomic(at);
    return;
  }
  const signExtends = kind === CLASS.LDX && mode === MODE.MEMSX && (insn.code & 0x18) !== SIZE.DW;
  if (mode !== MODE.MEM && !signExtends) at.unknown();
  if (kind === CLASS.LDX) {
    at.writes('dst');
    at.reads('src');
    at.zero('imm');
    return;
  }
  at.reads('dst');
  if (kind === CLASS.ST) {
    at.zero('src');
    return;
  }
  at.reads('src');
  at.zero('imm');
}

function checkInsn(at: Checker, options: CheckOptions): void {
  switch (classOf(at.insn.code)) {
    case CLASS.ALU:
    case CLASS.ALU64:
      checkArithmetic(at, options);
      return;
    case CLASS.JMP:
    case CLASS.JMP32:
      checkJump(at, options);
      return;
    case CLASS.LD:
      checkLoadImmediate(at);
      return;
    default:
      checkMemory(at);
  }
}

/** Slot that a reference to code leads to: a local call, or a 64-bit immediate of a function's address. */
function functionTarget(slot: number, insn: Insn): number | undefined {
  const refers = insn.code === CODE.LDDW ? insn.src === IMM64.CODE : insn.code === CODE.CALL && insn.src === CALL.LOCAL;
  return refers ? slot + 1 + insn.imm : undefined;
}

/**
 * Checks every instruction, reserved fields included, and that control flow stays inside each function. Throws InsnError
 * at the first fault.
 */
export function checkProgram(insns: readonly Insn[], options: CheckOptions = {}): CheckedProgram {
  const maximum = options.maximum ?? MAX_INSNS;
  if (insns.length === 0) throw new Error('program: it has no instruction');
  if (insns.length > maximum) throw new Error(`program: expected at most ${maximum} instructions, got ${insns.length}`);
  /** By slot: 1 an instruction begins here. */
  const begins = new Uint8Array(insns.length);
  for (let slot = 0; slot < insns.length; slot += slotsOf(insns[slot]!)) {
    begins[slot] = 1;
    checkInsn(new Checker(insns, slot), options);
  }
  const starts = new Set([0]);
  const check = (slot: number, target: number, what: string): void => {
    const at = new Checker(insns, slot);
    const field = isJump(at.insn.code) && at.insn.code !== CODE.JA32 ? 'off' : 'imm';
    if (target < 0 || target >= insns.length)
      at.fail(field, `${what} leads to ${target}, outside of the program's 0 to ${insns.length - 1}`);
    if (begins[target] === 0) at.fail(field, `${what} leads to ${target}, the second half of a 64-bit immediate`);
  };
  for (let slot = 0; slot < insns.length; slot++) {
    const target = begins[slot] === 1 ? functionTarget(slot, insns[slot]!) : undefined;
    if (target === undefined) continue;
    check(slot, target, insns[slot]!.code === CODE.CALL ? 'the call' : 'the code address');
    starts.add(target);
  }
  const sorted = [...starts].sort((a, b) => a - b);
  const functions = sorted.map((start, index) => ({ start, end: sorted[index + 1] ?? insns.length }));
  for (const range of functions) {
    let last = range.start;
    for (let slot = range.start; slot < range.end; slot += slotsOf(insns[slot]!)) {
      last = slot;
      if (!isJump(insns[slot]!.code)) continue;
      const target = jumpTarget(slot, insns[slot]!);
      check(slot, target, 'the jump');
      if (target < range.start || target >= range.end)
        new Checker(insns, slot).fail(
          'off',
          `the jump leads to ${target}, out of its function, ${range.start} to ${range.end - 1}`,
        );
    }
    if (!endsFlow(insns[last]!.code))
      new Checker(insns, last).fail('code', 'a function must end with exit or goto, control runs out of it here');
  }
  return { insns, functions };
}
