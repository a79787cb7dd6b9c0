// Arithmetic and comparisons as RFC 9669 words them, in whole numbers: what everything else is compared with.
import { ALU, CLASS, CODE, classOf, isRegisterForm, JMP, operationOf } from '../isa/opcodes.js';
import type { Insn } from '../isa/program.js';

const asUint = BigInt.asUintN;
const asInt = BigInt.asIntN;

/** The bytes of the lowest `bits` of a value in the other order. */
function swapped(value: bigint, bits: number): bigint {
  let result = 0n;
  for (let at = 0; at < bits; at += 8) result = (result << 8n) | ((value >> BigInt(at)) & 0xffn);
  return result;
}

/** Truncating, as JavaScript's own division of bigints; division by zero as RFC 9669 section 4.1 has it. */
function divide(operation: number, dst: bigint, src: bigint): bigint {
  if (operation === ALU.DIV) return src === 0n ? 0n : dst / src;
  return src === 0n ? dst : dst % src;
}

function operate(operation: number, off: number, dst: bigint, src: bigint, bits: 32 | 64): bigint {
  const count = src & BigInt(bits - 1);
  switch (operation) {
    case ALU.ADD:
      return dst + src;
    case ALU.SUB:
      return dst - src;
    case ALU.MUL:
      return dst * src;
    case ALU.DIV:
    case ALU.MOD:
      return off === 1 ? divide(operation, asInt(bits, dst), asInt(bits, src)) : divide(operation, dst, src);
    case ALU.OR:
      return dst | src;
    case ALU.AND:
      return dst & src;
    case ALU.XOR:
      return dst ^ src;
    case ALU.LSH:
      return dst << count;
    case ALU.RSH:
      return dst >> count;
    case ALU.ARSH:
      return asInt(bits, dst) >> count;
    case ALU.NEG:
      return -dst;
    case ALU.MOV:
      return off === 0 ? src : asInt(off, src);
    default:
      throw new Error(`operation 0x${operation.toString(16)} is not arithmetic`);
  }
}

/** New value of dst, 64 bits without sign. `source` is the register src as it is. */
export function compute(insn: Insn, dst: bigint, source: bigint): bigint {
  const { code, imm, off } = insn;
  if (operationOf(code) === ALU.END) {
    // Little-endian already: "to little-endian" truncates only.
    return code === CODE.LE ? asUint(imm, dst) : swapped(dst, imm);
  }
  const bits = classOf(code) === CLASS.ALU64 ? 64 : 32;
  const src = asUint(bits, isRegisterForm(code) ? source : BigInt(imm));
  // 32 bits: the upper half becomes zero.
  return asUint(bits, operate(operationOf(code), off, asUint(bits, dst), src, bits));
}

/** Whether a jump is taken. `source` is the register src as it is. */
export function isTaken(insn: Insn, left: bigint, source: bigint): boolean {
  const { code, imm } = insn;
  const bits = classOf(code) === CLASS.JMP ? 64 : 32;
  const dst = asUint(bits, left);
  const src = asUint(bits, isRegisterForm(code) ? source : BigInt(imm));
  switch (operationOf(code)) {
    case JMP.JA:
      return true;
    case JMP.JEQ:
      return dst === src;
    case JMP.JNE:
      return dst !== src;
    case JMP.JSET:
      return (dst & src) !== 0n;
    case JMP.JGT:
      return dst > src;
    case JMP.JGE:
      return dst >= src;
    case JMP.JLT:
      return dst < src;
    case JMP.JLE:
      return dst <= src;
    case JMP.JSGT:
      return asInt(bits, dst) > asInt(bits, src);
    case JMP.JSGE:
      return asInt(bits, dst) >= asInt(bits, src);
    case JMP.JSLT:
      return asInt(bits, dst) < asInt(bits, src);
    case JMP.JSLE:
      return asInt(bits, dst) <= asInt(bits, src);
    default:
      throw new Error(`code 0x${code.toString(16)} is no conditional jump`);
  }
}
