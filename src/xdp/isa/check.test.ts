import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  alu,
  alu32,
  atomic,
  call,
  callLocal,
  exit,
  gotol,
  ja,
  jump,
  lddw,
  ldx,
  mov,
  programs,
  r,
  raw,
  st,
  stx,
} from './build-testing.js';
import { checkProgram, InsnError } from './check.js';
import { decodeProgram, encodeProgram } from './code.js';
import { ALU, ATOMIC, CLASS, CODE, JMP, SIZE } from './opcodes.js';
import type { Insn } from './program.js';

/** The fault that a program has, as instruction, field and words of the message. */
function refused(insns: readonly Insn[], slot: number, field: string, words: RegExp, options = {}): void {
  assert.throws(
    () => checkProgram(insns, options),
    (error: unknown) => {
      assert.ok(error instanceof InsnError, String(error));
      assert.deepEqual([error.slot, error.field], [slot, field], error.message);
      assert.match(error.message, words);
      assert.match(error.message, new RegExp(`^instruction ${slot} \\(`));
      return true;
    },
  );
}

test('random well-formed programs pass, and come back from their bytes', () => {
  fc.assert(
    fc.property(programs(), ({ insns }) => {
      assert.deepEqual(decodeProgram(encodeProgram(insns)), insns);
    }),
  );
  assert.throws(() => decodeProgram(new Uint8Array(12)), /multiple of 8 bytes, got 12/);
});

test('fields are little-endian and signed', () => {
  const bytes = Uint8Array.of(0x7b, 0x1a, 0xf8, 0xff, 0, 0, 0, 0x80);
  assert.deepEqual(decodeProgram(bytes), [{ code: 0x7b, dst: 10, src: 1, off: -8, imm: -0x80000000 }]);
});

test('every reserved field must be 0, and the message names it', () => {
  /** Instructions, and which of their fields are reserved. */
  const reserved: [insn: Insn, fields: (keyof Insn)[]][] = [
    [alu(ALU.ADD, 0, 1), ['src', 'off']],
    [alu(ALU.ADD, 0, r(1)), ['off', 'imm']],
    [alu32(ALU.ADD, 0, 1), ['src', 'off']],
    [alu32(ALU.ADD, 0, r(1)), ['off', 'imm']],
    [mov(0, 1), ['src', 'off']],
    [mov(0, r(1)), ['imm']],
    [alu32(ALU.MOV, 0, 1), ['src', 'off']],
    [alu32(ALU.MOV, 0, r(1)), ['imm']],
    [raw(CLASS.ALU64 | ALU.NEG), ['src', 'off', 'imm']],
    [raw(CLASS.ALU | ALU.NEG), ['src', 'off', 'imm']],
    [raw(CODE.LE, 0, 0, 0, 16), ['src', 'off']],
    [raw(CODE.BE, 0, 0, 0, 16), ['src', 'off']],
    [raw(CODE.BSWAP, 0, 0, 0, 16), ['src', 'off']],
    [ja(0), ['dst', 'src', 'imm']],
    [gotol(0), ['dst', 'src', 'off']],
    [jump(JMP.JEQ, 0, 0, 0), ['src']],
    [jump(JMP.JEQ, 0, r(1), 0), ['imm']],
    [jump(JMP.JGT, 0, 0, 0), ['src']],
    [jump(JMP.JGT, 0, r(1), 0), ['imm']],
    [call(1), ['dst', 'off']],
    [exit(), ['dst', 'src', 'off', 'imm']],
    [ldx(SIZE.DW, 0, 1, 0), ['imm']],
    [ldx(SIZE.W, 0, 1, 0), ['imm']],
    [stx(SIZE.DW, 10, -8, 1), ['imm']],
    [stx(SIZE.W, 10, -8, 1), ['imm']],
    [st(SIZE.DW, 10, -8, 1), ['src']],
    [st(SIZE.W, 10, -8, 1), ['src']],
    [lddw(0, 1n)[0]!, ['off']],
  ];
  let cases = 0;
  for (const [insn, fields] of reserved) {
    const rest = insn.code === CODE.LDDW ? [raw(0), exit()] : [exit()];
    assert.doesNotThrow(() => checkProgram([insn, ...rest]));
    for (const field of fields) {
      refused([{ ...insn, [field]: 1 }, ...rest], 0, field, new RegExp(`${field} (is not used|must be 0)`));
      cases++;
    }
  }
  assert.equal(cases, 49);
  // Where a field is used, but only some of its values are.
  refused([mov(0, r(1)), { ...mov(0, r(1)), off: 9 }, exit()], 1, 'off', /0, or 8, 16 or 32/);
  refused([alu32(ALU.MOV, 0, r(1), 32), exit()], 0, 'off', /0, or 8, 16 for/);
  refused([alu(ALU.DIV, 0, r(1), 2), exit()], 0, 'off', /0 \(unsigned\) or 1 \(signed\)/);
  refused([raw(CODE.BE, 0, 0, 0, 8), exit()], 0, 'imm', /16, 32 or 64, it is 8/);
});

test('the second half of a 64-bit immediate holds nothing but imm', () => {
  for (const field of ['code', 'dst', 'src', 'off'] as const) {
    refused([raw(CODE.LDDW), { ...raw(0), [field]: 1 }, exit()], 0, field, /of the second half must be 0/);
  }
  refused([exit(), raw(CODE.LDDW)], 1, 'imm', /second half of the 64-bit immediate is missing/);
  refused([raw(CODE.LDDW, 0, 1), raw(0, 0, 0, 0, 7), exit()], 0, 'imm', /not used here and must be 0/);
  refused([raw(CODE.LDDW, 0, 7), raw(0), exit()], 0, 'src', /0 to 6/);
});

test('what no user space has is refused by name', () => {
  refused([raw(0x30), exit()], 0, 'code', /legacy packet access/);
  refused([raw(0x48, 0, 1), exit()], 0, 'code', /legacy packet access/);
  refused([raw(0xe5), exit()], 0, 'code', /may_goto is a kernel extension/);
  refused([mov(0, r(1)), alu(ALU.MOV, 0, r(1), 1), exit()], 1, 'off', /addr_space_cast/);
  refused([atomic(SIZE.W, ATOMIC.LOAD_ACQUIRE, 1, 0, 2), exit()], 0, 'imm', /load-acquire/);
  refused([atomic(SIZE.B, ATOMIC.STORE_RELEASE, 1, 0, 2), exit()], 0, 'imm', /store-release/);
  refused([raw(CODE.CALL, 0, 2, 0, 7), exit()], 0, 'src', /kernel function \(kfunc\)/);
  refused([raw(CODE.CALL, 0, 3, 0, 7), exit()], 0, 'src', /0 \(helper\) or 1/);
  refused([raw(CODE.LDDW, 0, 3), raw(0), exit()], 0, 'src', /kernel variable/);
  refused([raw(CODE.LDDW, 0, 5), raw(0), exit()], 0, 'src', /resolve it to src 1/);
  refused([raw(CODE.CALLX, 2), exit()], 0, 'code', /callx/);
});

test('codes of no group are refused, and no others', () => {
  const known = new Set<number>();
  for (let code = 0; code < 256; code++) {
    const swaps = code === CODE.LE || code === CODE.BE || code === CODE.BSWAP;
    const insns = [raw(code, 1, 0, 0, swaps ? 16 : 0), ...(code === CODE.LDDW ? [raw(0)] : []), exit()];
    try {
      checkProgram(insns);
      known.add(code);
    } catch (error) {
      if (!/no group of RFC 9669/.test((error as Error).message)) known.add(code);
    }
  }
  const refusedCodes = [
    0x00, 0x10, 0x01, 0x99, 0xe3, 0x0d, 0x0e, 0x86, 0x8c, 0x8f, 0x8e, 0x96, 0x9d, 0xdf, 0xe4, 0xe6, 0xf5, 0xf7,
  ];
  for (const code of refusedCodes) assert.ok(!known.has(code), `0x${code.toString(16)}`);
  for (const code of [0x05, 0x06, 0x07, 0x18, 0x81, 0x85, 0x89, 0x91, 0x95, 0xc3, 0xd7, 0xdb, 0xdd, 0xde])
    assert.ok(known.has(code), `0x${code.toString(16)}`);
});

test('registers: 11 and above are none, r10 is read-only', () => {
  refused([mov(11, 0), exit()], 0, 'dst', /r0 to r10, it is r11/);
  refused([mov(0, r(15)), exit()], 0, 'src', /r0 to r10, it is r15/);
  refused([mov(10, 0), exit()], 0, 'dst', /frame pointer, which is read-only/);
  refused([ldx(SIZE.W, 10, 1, 0), exit()], 0, 'dst', /read-only/);
  refused([...lddw(10, 0n), exit()], 0, 'dst', /read-only/);
  refused([atomic(SIZE.DW, ATOMIC.ADD | ATOMIC.FETCH, 1, 0, 10), exit()], 0, 'src', /read-only/);
  refused([jump(JMP.JEQ, 12, 0, 0), exit()], 0, 'dst', /r12/);
  assert.doesNotThrow(() => checkProgram([atomic(SIZE.DW, ATOMIC.ADD, 1, 0, 10), stx(SIZE.DW, 10, -8, 10), exit()]));
});

test('atomic operations: 4 and 8 bytes, those of the RFC', () => {
  refused([atomic(SIZE.H, ATOMIC.ADD, 1, 0, 2), exit()], 0, 'code', /4 or 8 bytes/);
  for (const imm of [0x10, 0xe0, 0xf0, 0x02, -1])
    refused([atomic(SIZE.W, imm, 1, 0, 2), exit()], 0, 'imm', /no atomic operation/);
});

test('control flow stays inside its function', () => {
  refused([ja(1), exit()], 0, 'off', /leads to 2, outside of the program's 0 to 1/);
  refused([ja(-2), exit()], 0, 'off', /leads to -1, outside/);
  refused([gotol(5), exit()], 0, 'imm', /leads to 6, outside/);
  refused([ja(1), ...lddw(0, 1n), exit()], 0, 'off', /leads to 2, the second half/);
  refused([callLocal(1), exit(), ja(-2), exit()], 2, 'off', /out of its function, 2 to 3/);
  refused([callLocal(9), exit()], 0, 'imm', /the call leads to 10, outside/);
  refused([raw(CODE.LDDW, 1, 4, 0, 9), raw(0), exit()], 0, 'imm', /the code address leads to 10, outside/);
  refused([mov(0, 0)], 0, 'code', /control runs out of it/);
  refused([callLocal(1), jump(JMP.JEQ, 0, 0, -1), exit()], 1, 'code', /control runs out of it/);
  assert.throws(() => checkProgram([]), /no instruction/);
  assert.throws(() => checkProgram([mov(0, 0), exit()], { maximum: 1 }), /at most 1 instructions, got 2/);
  assert.deepEqual(checkProgram([callLocal(1), exit(), mov(0, 1), exit()]).functions, [
    { start: 0, end: 2 },
    { start: 2, end: 4 },
  ]);
});

test('shift counts and zero divisors in immediates: refused as the kernel does, taken by the rules of the RFC', () => {
  for (const [insn, words] of [
    [alu(ALU.LSH, 0, 64), /0 to 63, it is 64/],
    [alu(ALU.ARSH, 0, -1), /0 to 63, it is -1/],
    [alu32(ALU.RSH, 0, 32), /0 to 31, it is 32/],
    [alu(ALU.DIV, 0, 0), /division by zero/],
    [alu32(ALU.MOD, 0, 0, 1), /division by zero/],
  ] as const) {
    refused([insn, exit()], 0, 'imm', words);
    assert.doesNotThrow(() => checkProgram([insn, exit()], { rules: 'rfc' }));
  }
});

test('callx: its register in dst, src or imm, one of them', () => {
  const options = { callx: true };
  for (const insn of [raw(CODE.CALLX, 2), raw(CODE.CALLX, 0, 2), raw(CODE.CALLX, 0, 0, 0, 2), raw(CODE.CALLX)])
    assert.doesNotThrow(() => checkProgram([insn, exit()], options));
  refused([raw(CODE.CALLX, 1, 2), exit()], 0, 'src', /must be 0/, options);
  refused([raw(CODE.CALLX, 0, 2, 0, 2), exit()], 0, 'imm', /must be 0/, options);
  refused([raw(CODE.CALLX, 0, 2, 1), exit()], 0, 'off', /must be 0/, options);
  refused([raw(CODE.CALLX, 0, 0, 0, 11), exit()], 0, 'dst', /r0 to r10, it is r11/, options);
});
