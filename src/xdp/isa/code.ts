// Bytes of a program to slots and back (RFC 9669 section 3.1, little-endian).
import { CODE } from './opcodes.js';
import type { Insn } from './program.js';

/** Bytes of a slot. */
export const INSN_BYTES = 8;

/** Slots of a program in little-endian bytes. Fields are taken as they are: checkProgram() judges them. */
export function decodeProgram(bytes: Uint8Array): Insn[] {
  if (bytes.length % INSN_BYTES !== 0)
    throw new Error(`program: expected a multiple of ${INSN_BYTES} bytes, got ${bytes.length}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const insns: Insn[] = [];
  for (let at = 0; at < bytes.length; at += INSN_BYTES) {
    const registers = view.getUint8(at + 1);
    insns.push({
      code: view.getUint8(at),
      dst: registers & 0x0f,
      src: registers >> 4,
      off: view.getInt16(at + 2, true),
      imm: view.getInt32(at + 4, true),
    });
  }
  return insns;
}

/** The bytes that decodeProgram() reads. */
export function encodeProgram(insns: readonly Insn[]): Uint8Array {
  const bytes = new Uint8Array(insns.length * INSN_BYTES);
  const view = new DataView(bytes.buffer);
  insns.forEach((insn, slot) => {
    const at = slot * INSN_BYTES;
    view.setUint8(at, insn.code);
    view.setUint8(at + 1, (insn.src << 4) | insn.dst);
    view.setInt16(at + 2, insn.off, true);
    view.setInt32(at + 4, insn.imm, true);
  });
  return bytes;
}

/** A 64-bit immediate as a number without sign, from its two slots. */
export const immediate64 = (low: Insn, high: Insn): bigint => (BigInt(high.imm >>> 0) << 32n) | BigInt(low.imm >>> 0);

/** Slots that the instruction at a slot takes. */
export const slotsOf = (insn: Insn): 1 | 2 => (insn.code === CODE.LDDW ? 2 : 1);
