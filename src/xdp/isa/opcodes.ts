// The parts of an instruction's code (RFC 9669 sections 3 to 5).

/** Lowest three bits of a code. */
export const CLASS = { LD: 0, LDX: 1, ST: 2, STX: 3, ALU: 4, JMP: 5, JMP32: 6, ALU64: 7 } as const;

/** Bit of arithmetic and jumps: the operand is register src, not imm. */
export const SOURCE_REGISTER = 0x08;

/** Upper four bits of arithmetic. */
export const ALU = {
  ADD: 0x00,
  SUB: 0x10,
  MUL: 0x20,
  DIV: 0x30,
  OR: 0x40,
  AND: 0x50,
  LSH: 0x60,
  RSH: 0x70,
  NEG: 0x80,
  MOD: 0x90,
  XOR: 0xa0,
  MOV: 0xb0,
  ARSH: 0xc0,
  END: 0xd0,
} as const;

/** Upper four bits of jumps. */
export const JMP = {
  JA: 0x00,
  JEQ: 0x10,
  JGT: 0x20,
  JGE: 0x30,
  JSET: 0x40,
  JNE: 0x50,
  JSGT: 0x60,
  JSGE: 0x70,
  CALL: 0x80,
  EXIT: 0x90,
  JLT: 0xa0,
  JLE: 0xb0,
  JSLT: 0xc0,
  JSLE: 0xd0,
} as const;

/** Upper three bits of loads and stores. */
export const MODE = { IMM: 0x00, ABS: 0x20, IND: 0x40, MEM: 0x60, MEMSX: 0x80, ATOMIC: 0xc0 } as const;

/** Size bits of loads and stores. */
export const SIZE = { W: 0x00, H: 0x08, B: 0x10, DW: 0x18 } as const;

/** imm of an atomic operation. */
export const ATOMIC = {
  ADD: 0x00,
  OR: 0x40,
  AND: 0x50,
  XOR: 0xa0,
  /** Bit: src gets the old value. */
  FETCH: 0x01,
  XCHG: 0xe1,
  CMPXCHG: 0xf1,
  /** Of kernels since 6.15, not in the RFC. */
  LOAD_ACQUIRE: 0x100,
  STORE_RELEASE: 0x110,
} as const;

/** Whole codes of instructions that have one. */
export const CODE = {
  LDDW: CLASS.LD | MODE.IMM | SIZE.DW,
  JA: CLASS.JMP | JMP.JA,
  JA32: CLASS.JMP32 | JMP.JA,
  CALL: CLASS.JMP | JMP.CALL,
  CALLX: CLASS.JMP | JMP.CALL | SOURCE_REGISTER,
  EXIT: CLASS.JMP | JMP.EXIT,
  /** Of kernels since 6.9, not in the RFC. */
  MAY_GOTO: 0xe5,
  /** Arithmetic END: to little-endian, to big-endian, always swapped. */
  LE: CLASS.ALU | ALU.END,
  BE: CLASS.ALU | ALU.END | SOURCE_REGISTER,
  BSWAP: CLASS.ALU64 | ALU.END,
} as const;

export const classOf = (code: number): number => code & 0x07;
export const operationOf = (code: number): number => code & 0xf0;
export const modeOf = (code: number): number => code & 0xe0;
export const isRegisterForm = (code: number): boolean => (code & SOURCE_REGISTER) !== 0;

/** Bytes that a load, store or atomic touches. */
export function bytesOf(code: number): 1 | 2 | 4 | 8 {
  const size = code & 0x18;
  return size === SIZE.B ? 1 : size === SIZE.H ? 2 : size === SIZE.W ? 4 : 8;
}

/** Whether it jumps by off or imm, always or on a condition: neither a call nor an exit. */
export function isJump(code: number): boolean {
  const kind = classOf(code);
  if (kind !== CLASS.JMP && kind !== CLASS.JMP32) return false;
  const operation = operationOf(code);
  return operation !== JMP.CALL && operation !== JMP.EXIT;
}

/** Whether the next slot is never reached from it. */
export const endsFlow = (code: number): boolean => code === CODE.JA || code === CODE.JA32 || code === CODE.EXIT;

/** Slot that a jump at `slot` leads to. */
export const jumpTarget = (slot: number, insn: { code: number; off: number; imm: number }): number =>
  slot + 1 + (insn.code === CODE.JA32 ? insn.imm : insn.off);

/** Register of a callx: assemblers put it into dst (LLVM), src (bpf_conformance) or imm (LLVM before 19). */
export const callxRegister = (insn: { dst: number; src: number; imm: number }): number =>
  insn.dst || insn.src || insn.imm;

/** Registers: 0 to 9, and the read-only frame pointer. */
export const FRAME_POINTER = 10;
export const REGISTERS = 11;

/** Stack of one function call, and calls inside each other, the program's own entry included: the kernel's numbers. */
export const FRAME_BYTES = 512;
export const MAX_FRAMES = 8;
export const STACK_BYTES = FRAME_BYTES * MAX_FRAMES;

/** Slots of a program at most: the kernel's number for privileged users. */
export const MAX_INSNS = 1_000_000;
