// Programs for tests: instructions by function calls, random well-formed programs, and machines to run them on.
import fc from 'fast-check';
import { type CheckedProgram, checkProgram } from './check.js';
import { FAULT, type Helper, HelperFault, type Machine, stackRegion } from './machine.js';
import { ALU, ATOMIC, CLASS, CODE, JMP, MODE, SIZE, SOURCE_REGISTER } from './opcodes.js';
import type { Insn } from './program.js';

type Operand = number | { readonly r: number };

const insn = (code: number, dst = 0, src = 0, off = 0, imm = 0): Insn => ({ code, dst, src, off, imm });
const withOperand = (code: number, dst: number, operand: Operand, off: number): Insn =>
  typeof operand === 'number' ? insn(code, dst, 0, off, operand) : insn(code | SOURCE_REGISTER, dst, operand.r, off);

/** Register as an operand. */
export const r = (number: number): Operand => ({ r: number });
export const raw = insn;
export const alu = (operation: number, dst: number, operand: Operand, off = 0): Insn =>
  withOperand(CLASS.ALU64 | operation, dst, operand, off);
export const alu32 = (operation: number, dst: number, operand: Operand, off = 0): Insn =>
  withOperand(CLASS.ALU | operation, dst, operand, off);
export const mov = (dst: number, operand: Operand): Insn => alu(ALU.MOV, dst, operand);
export const lddw = (dst: number, value: bigint, src = 0): Insn[] => [
  insn(CODE.LDDW, dst, src, 0, Number(BigInt.asIntN(32, value))),
  insn(0, 0, 0, 0, Number(BigInt.asIntN(32, value >> 32n))),
];
export const jump = (operation: number, dst: number, operand: Operand, off: number): Insn =>
  withOperand(CLASS.JMP | operation, dst, operand, off);
export const jump32 = (operation: number, dst: number, operand: Operand, off: number): Insn =>
  withOperand(CLASS.JMP32 | operation, dst, operand, off);
export const ja = (off: number): Insn => insn(CODE.JA, 0, 0, off);
export const gotol = (imm: number): Insn => insn(CODE.JA32, 0, 0, 0, imm);
export const ldx = (size: number, dst: number, src: number, off: number, mode: number = MODE.MEM): Insn =>
  insn(CLASS.LDX | mode | size, dst, src, off);
export const stx = (size: number, dst: number, off: number, src: number): Insn =>
  insn(CLASS.STX | MODE.MEM | size, dst, src, off);
export const st = (size: number, dst: number, off: number, imm: number): Insn =>
  insn(CLASS.ST | MODE.MEM | size, dst, 0, off, imm);
export const atomic = (size: number, operation: number, dst: number, off: number, src: number): Insn =>
  insn(CLASS.STX | MODE.ATOMIC | size, dst, src, off, operation);
export const call = (helper: number): Insn => insn(CODE.CALL, 0, 0, 0, helper);
export const callLocal = (imm: number): Insn => insn(CODE.CALL, 0, 1, 0, imm);
export const exit = (): Insn => insn(CODE.EXIT);

/** Bytes of a test machine: packet, read-only context, stack, in places that leave gaps. */
export const PLACES = { packet: 0x1000, packetBytes: 64, context: 0x2000, contextBytes: 24, stack: 0x4000 } as const;

/** A machine of one page. Helper 1 mixes its arguments, helper 2 refuses odd ones. */
export function testMachine(memory: WebAssembly.Memory, budget = 5000): Machine {
  const mix: Helper = (r1, r2, r3, r4, r5) => (r1 * 3n) ^ (r2 * 5n) ^ (r3 << 7n) ^ (r4 >> 3n) ^ ~r5;
  const picky: Helper = (r1) => {
    if ((r1 & 1n) === 1n) throw new HelperFault(FAULT.ARGUMENT);
    return r1 >> 1n;
  };
  const { packet, packetBytes, context, contextBytes, stack } = PLACES;
  return {
    buffer: memory.buffer,
    regions: [
      { name: 'packet', start: packet, end: packet + packetBytes, writable: true },
      { name: 'context', start: context, end: context + contextBytes, writable: false },
      stackRegion(stack),
    ],
    stack,
    helpers: new Map([
      [1, mix],
      [2, picky],
    ]),
    budget,
    immediate: (slot) => BigInt(slot) * 0x1_0000_0001n,
  };
}

const OPERATIONS = Object.values(ALU).filter((operation) => operation !== ALU.NEG && operation !== ALU.END);
const CONDITIONS = Object.values(JMP).filter(
  (operation) => operation !== JMP.JA && operation !== JMP.CALL && operation !== JMP.EXIT,
);
const SIZES = Object.values(SIZE);
const ATOMICS = [ATOMIC.ADD, ATOMIC.OR, ATOMIC.AND, ATOMIC.XOR].flatMap((plain) => [plain, plain | ATOMIC.FETCH]);
/** Numbers at which arithmetic changes its mind. */
const EDGES = [0, 1, -1, 2, 31, 32, 33, 63, 64, 0x7f, 0x80, 0x7fff, 0x8000, 0xffff, 0x7fffffff, -0x80000000];

/** Random choices for one instruction: what it does, and numbers that it takes its fields from. */
type Draw = readonly [kind: number, a: number, b: number, c: number, imm: number, flag: boolean];
const draw: fc.Arbitrary<Draw> = fc.tuple(
  fc.nat(99),
  fc.nat(0xffff),
  fc.nat(0xffff),
  fc.nat(0xffff),
  fc.oneof(fc.constantFrom(...EDGES), fc.integer()),
  fc.boolean(),
);

const pick = <T>(from: readonly T[], number: number): T => from[number % from.length]!;

/** r9 points to the packet and r8 to the context at first, and are written less often than the others. */
const written = (number: number): number => (number % 40 === 39 ? 8 + (number % 2) : number % 8);

function arithmetic([, a, b, c, imm, flag]: Draw): Insn {
  const make = flag ? alu : alu32;
  const dst = written(a);
  const kind = b % 20;
  if (kind === 0) return insn((flag ? CLASS.ALU64 : CLASS.ALU) | ALU.NEG, dst);
  if (kind === 1) return insn(pick([CODE.LE, CODE.BE, CODE.BSWAP], c), dst, 0, 0, pick([16, 32, 64], a >> 4));
  const operation = pick(OPERATIONS, c);
  const divides = operation === ALU.DIV || operation === ALU.MOD;
  const fromRegister = (b & 0x100) !== 0;
  const operand: Operand = fromRegister ? r((b >> 9) % 11) : imm;
  const moves = operation === ALU.MOV && fromRegister;
  const off = divides ? a >> 15 : moves ? pick(flag ? [0, 8, 16, 32] : [0, 8, 16], a >> 8) : 0;
  return make(operation, dst, operand, off);
}

/** Base and offset: mostly inside of packet, context or stack, at times a little or far beside. */
function place(a: number, b: number): [base: number, off: number] {
  const kind = a % 16;
  if (kind < 8) return [10, 0 - (b % 65) * 8 - ((b >> 8) % 8 === 0 ? (b >> 11) % 8 : 0)];
  if (kind < 14) return [9, (b % 60) - ((b >> 8) % 16 === 0 ? 4 : 0)];
  if (kind < 15) return [8, b % 26];
  return [b % 11, (b >> 4) - 0x800];
}

function memory([, a, b, c, imm, flag]: Draw): Insn {
  const [base, off] = place(a, b);
  const size = pick(SIZES, c);
  const value = (c >> 2) % 11;
  switch ((c >> 6) % 6) {
    case 0:
    case 1: {
      const narrow = size === SIZE.DW ? SIZE.W : size;
      return flag ? ldx(size, written(a >> 4), base, off) : ldx(narrow, written(a >> 4), base, off, MODE.MEMSX);
    }
    case 2:
      return st(size, base, off, imm);
    case 3:
      return stx(size, base, off, value);
    default: {
      const width = flag ? SIZE.DW : SIZE.W;
      const aligned = (c >> 9) % 8 === 0 ? off : off & ~7;
      const operation = pick([...ATOMICS, ATOMIC.XCHG, ATOMIC.CMPXCHG], c >> 10);
      return atomic(width, operation, base, aligned, value % 8);
    }
  }
}

/** Instructions whose jumps and calls still say which item or function they lead to. */
type Item = { insns: Insn[]; item?: number; function?: number };

function itemOf(drawn: Draw, items: number, functions: number): Item {
  const [kind, a, b, c, imm, flag] = drawn;
  if (kind < 45) return { insns: [arithmetic(drawn)] };
  if (kind < 52) return { insns: lddw(written(a), (BigInt(imm) << 32n) | BigInt(b)) };
  if (kind < 78) return { insns: [memory(drawn)] };
  if (kind < 92) {
    const operand: Operand = flag ? imm : r(b % 11);
    const make = (c & 0x80) === 0 ? jump : jump32;
    return { insns: [make(pick(CONDITIONS, c), (b >> 4) % 11, operand, 0)], item: a % items };
  }
  if (kind < 94) return { insns: [flag ? ja(0) : gotol(0)], item: a % items };
  if (kind < 96) return { insns: [call(1 + (a % 2))] };
  if (kind < 98) return { insns: [callLocal(0)], function: a % functions };
  return { insns: [exit()] };
}

/** Lays items out and fills in where jumps and calls lead. */
function link(functions: readonly Item[][]): Insn[] {
  const starts: number[] = [];
  const slots: number[][] = [];
  let slot = 0;
  for (const items of functions) {
    starts.push(slot);
    slots.push(
      items.map(({ insns }) => {
        slot += insns.length;
        return slot - insns.length;
      }),
    );
  }
  return functions.flatMap((items, index) =>
    items.flatMap((item, at) => {
      const here = slots[index]![at]! + 1;
      const first = item.insns[0]!;
      if (item.function !== undefined) return [{ ...first, imm: starts[item.function]! - here }];
      if (item.item === undefined) return item.insns;
      const distance = slots[index]![item.item]! - here;
      return [first.code === CODE.JA32 ? { ...first, imm: distance } : { ...first, off: distance }];
    }),
  );
}

/** Well-formed programs with any control flow, reducible or not, that may fault. At entry they move r1 to r9 and r2 to r8. */
export function programs(): fc.Arbitrary<CheckedProgram> {
  const body = fc.array(draw, { minLength: 1, maxLength: 40 });
  return fc.array(body, { minLength: 1, maxLength: 4 }).map((bodies) => {
    const functions = bodies.map((draws, index) => {
      const head: Item[] = index === 0 ? [{ insns: [mov(9, r(1)), mov(8, r(2))] }] : [{ insns: [mov(9, r(1))] }];
      const items = draws.length + 2;
      return [...head, ...draws.map((drawn) => itemOf(drawn, items, bodies.length)), { insns: [exit()] }];
    });
    return checkProgram(link(functions), { rules: 'rfc' });
  });
}

/** One instruction that a kernel's verifier can follow: numbers in r0 to r7, r9 the packet, jumps forward only. */
function acceptableItem([kind, a, b, c, imm, flag]: Draw, at: number, items: number): Item {
  if (kind < 60) {
    const insn = arithmetic([kind, a, b, c, imm, flag]);
    const dst = a % 8;
    if ((insn.code & SOURCE_REGISTER) !== 0 && (insn.code & 0xf0) !== ALU.END)
      return { insns: [{ ...insn, dst, src: insn.src % 8 }] };
    const operation = insn.code & 0xf0;
    const width = flag ? 63 : 31;
    const shifts = operation === ALU.LSH || operation === ALU.RSH || operation === ALU.ARSH;
    const divides = operation === ALU.DIV || operation === ALU.MOD;
    return { insns: [{ ...insn, dst, imm: shifts ? insn.imm & width : divides && insn.imm === 0 ? 1 : insn.imm }] };
  }
  if (kind < 85) {
    const size = pick(SIZES, c);
    // The stack by whole words, which are all written at the start; the packet by any of its bytes.
    const [base, off] = flag ? [10, -8 * (1 + (b % 8))] : [9, b % 56];
    const load = ldx(size, a % 8, base, off, size !== SIZE.DW && (c & 0x10) !== 0 ? MODE.MEMSX : MODE.MEM);
    if ((c & 0x60) === 0) return { insns: [load] };
    if ((c & 0x60) === 0x20) return { insns: [st(size, base, off, imm)] };
    if ((c & 0x60) === 0x40 || !flag) return { insns: [stx(size, base, off, a % 8)] };
    const operation = pick([...ATOMICS, ATOMIC.XCHG, ATOMIC.CMPXCHG], c >> 7);
    return { insns: [atomic((c & 8) === 0 ? SIZE.DW : SIZE.W, operation, base, off, a % 8)] };
  }
  if (kind < 90) return { insns: lddw(a % 8, (BigInt(imm) << 32n) | BigInt(b)) };
  const operand: Operand = flag ? imm : r(b % 8);
  const make = (c & 0x80) === 0 ? jump : jump32;
  return { insns: [make(pick(CONDITIONS, c), (b >> 4) % 8, operand, 0)], item: at + 1 + (a % (items - at - 1)) };
}

/**
 * Programs without loops that a kernel mostly accepts: `kernel` takes an XDP context and checks for 64 bytes of packet, `ours`
 * is the same with the packet's bounds in r1 and r2. Slots differ.
 */
export function acceptable(): fc.Arbitrary<{ kernel: readonly Insn[]; ours: CheckedProgram }> {
  const seeds = fc.array(fc.integer(), { minLength: 8, maxLength: 8 });
  return fc.tuple(seeds, fc.array(draw, { minLength: 1, maxLength: 60 })).map(([numbers, draws]) => {
    const start = [
      ...[1, 2, 3, 4, 5, 6, 7, 8].map((word) => st(SIZE.DW, 10, -8 * word, numbers[word - 1]!)),
      ...numbers.map((number, register) => mov(register, number)),
    ];
    const bounds = [mov(8, r(9)), alu(ALU.ADD, 8, 64), jump(JMP.JLE, 8, r(2), 2), mov(0, 0), exit()];
    const body: Item[] = draws.map((drawn, at) => acceptableItem(drawn, at, draws.length + 1));
    const linked = link([[...body, { insns: [exit()] }]]);
    const kernel = [ldx(SIZE.W, 9, 1, 0), ldx(SIZE.W, 2, 1, 4), ...bounds, ...start, ...linked];
    return { kernel, ours: checkProgram([mov(9, r(1)), ...bounds, ...start, ...linked], { rules: 'kernel' }) };
  });
}
