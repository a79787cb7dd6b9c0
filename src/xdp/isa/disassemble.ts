// Instructions as text: the pseudo-C of clang and llvm-objdump.
import { immediate64, slotsOf } from './code.js';
import {
  ALU,
  ATOMIC,
  CLASS,
  CODE,
  callxRegister,
  classOf,
  isJump,
  isRegisterForm,
  JMP,
  MODE,
  modeOf,
  operationOf,
} from './opcodes.js';
import { CALL, IMM64, type Insn } from './program.js';

const SIGNS: Readonly<Record<number, string>> = {
  [ALU.ADD]: '+=',
  [ALU.SUB]: '-=',
  [ALU.MUL]: '*=',
  [ALU.DIV]: '/=',
  [ALU.OR]: '|=',
  [ALU.AND]: '&=',
  [ALU.LSH]: '<<=',
  [ALU.RSH]: '>>=',
  [ALU.MOD]: '%=',
  [ALU.XOR]: '^=',
  [ALU.MOV]: '=',
  [ALU.ARSH]: 's>>=',
};
const COMPARES: Readonly<Record<number, string>> = {
  [JMP.JEQ]: '==',
  [JMP.JGT]: '>',
  [JMP.JGE]: '>=',
  [JMP.JSET]: '&',
  [JMP.JNE]: '!=',
  [JMP.JSGT]: 's>',
  [JMP.JSGE]: 's>=',
  [JMP.JLT]: '<',
  [JMP.JLE]: '<=',
  [JMP.JSLT]: 's<',
  [JMP.JSLE]: 's<=',
};
const ATOMICS: Readonly<Record<number, [sign: string, name: string]>> = {
  [ATOMIC.ADD]: ['+=', 'add'],
  [ATOMIC.OR]: ['|=', 'or'],
  [ATOMIC.AND]: ['&=', 'and'],
  [ATOMIC.XOR]: ['^=', 'xor'],
};
/** Type letter and bits by the size bits. */
const BITS: Readonly<Record<number, number>> = { 0: 32, 8: 16, 16: 8, 24: 64 };

const signed = (value: number): string => (value < 0 ? `- ${-value}` : `+ ${value}`);
const step = (value: number): string => (value < 0 ? `${value}` : `+${value}`);
const unknown = (insn: Insn): string => `<unknown code 0x${insn.code.toString(16).padStart(2, '0')}>`;

function arithmetic(insn: Insn): string {
  const letter = classOf(insn.code) === CLASS.ALU ? 'w' : 'r';
  const operation = operationOf(insn.code);
  const dst = `${letter}${insn.dst}`;
  if (operation === ALU.NEG) return `${dst} = -${dst}`;
  if (operation === ALU.END) {
    // llvm-objdump writes the 64-bit register here whatever the class.
    const how = insn.code === CODE.LE ? 'le' : insn.code === CODE.BE ? 'be' : 'bswap';
    return `r${insn.dst} = ${how}${insn.imm} r${insn.dst}`;
  }
  const sign = SIGNS[operation];
  if (sign === undefined) return unknown(insn);
  const source = isRegisterForm(insn.code) ? `${letter}${insn.src}` : `${insn.imm}`;
  if (operation === ALU.MOV && insn.off !== 0) return `${dst} = (s${insn.off})${source}`;
  const divides = operation === ALU.DIV || operation === ALU.MOD;
  return `${dst} ${divides && insn.off === 1 ? 's' : ''}${sign} ${source}`;
}

function jump(insn: Insn): string {
  const operation = operationOf(insn.code);
  if (insn.code === CODE.EXIT) return 'exit';
  if (insn.code === CODE.CALL) {
    return insn.src === CALL.HELPER
      ? `call ${insn.imm}`
      : insn.src === CALL.LOCAL
        ? `call pc${step(insn.imm)}`
        : 'call kfunc';
  }
  if (insn.code === CODE.CALLX) return `callx r${callxRegister(insn)}`;
  if (insn.code === CODE.JA) return `goto ${step(insn.off)}`;
  if (insn.code === CODE.JA32) return `gotol ${step(insn.imm)}`;
  const sign = COMPARES[operation];
  if (sign === undefined || !isJump(insn.code)) return unknown(insn);
  const letter = classOf(insn.code) === CLASS.JMP ? 'r' : 'w';
  const right = isRegisterForm(insn.code) ? `${letter}${insn.src}` : `${insn.imm}`;
  return `if ${letter}${insn.dst} ${sign} ${right} goto ${step(insn.off)}`;
}

function atomic(insn: Insn, bits: number): string {
  const place = `r${insn.dst} ${signed(insn.off)}`;
  const letter = bits === 32 ? 'w' : 'r';
  const suffix = bits === 32 ? '32_32' : '_64';
  if (insn.imm === ATOMIC.XCHG) return `${letter}${insn.src} = xchg${suffix}(${place}, ${letter}${insn.src})`;
  if (insn.imm === ATOMIC.CMPXCHG) return `${letter}0 = cmpxchg${suffix}(${place}, ${letter}0, ${letter}${insn.src})`;
  const known = ATOMICS[insn.imm & ~ATOMIC.FETCH];
  if (known === undefined) return unknown(insn);
  if ((insn.imm & ATOMIC.FETCH) !== 0)
    return `${letter}${insn.src} = atomic_fetch_${known[1]}((u${bits} *)(${place}), ${letter}${insn.src})`;
  return `lock *(u${bits} *)(${place}) ${known[0]} ${letter}${insn.src}`;
}

function memory(insn: Insn): string {
  const bits = BITS[insn.code & 0x18]!;
  const mode = modeOf(insn.code);
  const kind = classOf(insn.code);
  if (kind === CLASS.STX && mode === MODE.ATOMIC) return atomic(insn, bits);
  if (kind === CLASS.LDX && mode === MODE.MEMSX)
    return `r${insn.dst} = *(s${bits} *)(r${insn.src} ${signed(insn.off)})`;
  if (mode !== MODE.MEM) return unknown(insn);
  if (kind === CLASS.LDX) return `r${insn.dst} = *(u${bits} *)(r${insn.src} ${signed(insn.off)})`;
  const place = `*(u${bits} *)(r${insn.dst} ${signed(insn.off)})`;
  return `${place} = ${kind === CLASS.STX ? `r${insn.src}` : insn.imm}`;
}

function load(insn: Insn, next: Insn | undefined): string {
  const mode = modeOf(insn.code);
  if (insn.code === CODE.LDDW) {
    const target = `r${insn.dst} = `;
    if (next === undefined) return `${target}<second half missing> ll`;
    if (insn.src === IMM64.VALUE) return `${target}${BigInt.asIntN(64, immediate64(insn, next))} ll`;
    if (insn.src === IMM64.MAP) return `${target}map[${insn.imm}] ll`;
    if (insn.src === IMM64.MAP_VALUE) return `${target}map[${insn.imm}].value ${signed(next.imm)} ll`;
    if (insn.src === IMM64.CODE) return `${target}code pc${step(insn.imm)} ll`;
    return `${target}<unknown kind ${insn.src}> ll`;
  }
  const bits = BITS[insn.code & 0x18]!;
  if (mode === MODE.ABS) return `r0 = *(u${bits} *)skb[${insn.imm}]`;
  if (mode === MODE.IND) return `r0 = *(u${bits} *)skb[r${insn.src}]`;
  return unknown(insn);
}

/** The text of one instruction; `next` is the slot behind it, for 64-bit immediates. Never throws. */
export function disassemble(insn: Insn, next?: Insn): string {
  switch (classOf(insn.code)) {
    case CLASS.ALU:
    case CLASS.ALU64:
      return arithmetic(insn);
    case CLASS.JMP:
    case CLASS.JMP32:
      return jump(insn);
    case CLASS.LD:
      return load(insn, next);
    default:
      return memory(insn);
  }
}

/** A program's text, one line an instruction: slot, text. */
export function* disassembleProgram(insns: readonly Insn[]): Generator<{ slot: number; text: string }> {
  for (let slot = 0; slot < insns.length; slot += slotsOf(insns[slot]!)) {
    yield { slot, text: disassemble(insns[slot]!, insns[slot + 1]) };
  }
}
