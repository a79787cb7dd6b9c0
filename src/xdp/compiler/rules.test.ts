// The points of the instruction set at which implementations trip (facts/ebpf-xdp.md 2), each with results worked out by
// hand, in interpreter and compiler.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Interpreter } from '../interpreter/interpreter.js';
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
  jump32,
  lddw,
  ldx,
  mov,
  PLACES,
  r,
  raw,
  st,
  stx,
  testMachine,
} from '../isa/build-testing.js';
import { checkProgram } from '../isa/check.js';
import { FAULT, type Machine, type Outcome, Unwind } from '../isa/machine.js';
import { ALU, ATOMIC, CLASS, CODE, JMP, MODE, SIZE } from '../isa/opcodes.js';
import type { Insn } from '../isa/program.js';
import { CompiledProgram } from './compiled.js';

interface RunOptions {
  /** Bytes of the packet. */
  readonly packet?: readonly number[];
  readonly callx?: boolean;
  readonly machine?: Partial<Machine>;
}

/** Runs in both; r1 is the packet, r2 the context. Gives the outcome, and the packet afterwards. */
function run(insns: readonly Insn[], options: RunOptions = {}): Outcome & { packet: number[] } {
  const program = checkProgram(insns, { rules: 'rfc', callx: options.callx === true });
  const results = [true, false].map((interpret) => {
    const memory = new WebAssembly.Memory({ initial: 1 });
    const bytes = new Uint8Array(memory.buffer);
    bytes.set(options.packet ?? [], PLACES.packet);
    const machine = { ...testMachine(memory), ...options.machine };
    const runner = interpret ? new Interpreter(program, machine) : new CompiledProgram(program, machine, memory);
    const outcome = runner.run(BigInt(PLACES.packet), BigInt(PLACES.context));
    return { ...outcome, packet: [...bytes.subarray(PLACES.packet, PLACES.packet + (options.packet?.length ?? 0))] };
  });
  assert.deepEqual(results[1], results[0], 'interpreter and compiler differ');
  return results[0]!;
}

/** r0 of a program that ends by itself. */
function r0(insns: readonly Insn[], options: RunOptions = {}): bigint {
  const { r0, fault } = run([...insns, exit()], options);
  assert.equal(fault, undefined);
  return r0;
}

const MIN64 = 1n << 63n;
const ONES = (1n << 64n) - 1n;

test('32-bit arithmetic clears the upper half, always', () => {
  assert.equal(r0([...lddw(0, ONES), alu32(ALU.ADD, 0, 1)]), 0n);
  assert.equal(r0([...lddw(0, ONES), alu32(ALU.MOV, 0, r(0))]), 0xffffffffn);
  assert.equal(r0([...lddw(0, ONES), alu32(ALU.OR, 0, 0)]), 0xffffffffn);
  assert.equal(r0([mov(0, -1), alu32(ALU.LSH, 0, 0)]), 0xffffffffn);
  assert.equal(r0([alu32(ALU.MOV, 0, -1)]), 0xffffffffn);
  assert.equal(r0([mov(0, -1)]), ONES);
  assert.equal(r0([...lddw(0, 1n << 40n), raw(CLASS.ALU | ALU.NEG)]), 0n);
  assert.equal(r0([mov(0, 1), raw(CLASS.ALU | ALU.NEG)]), 0xffffffffn);
});

test('division by zero gives 0, remainder by zero the dividend, in 32 bits zero-extended', () => {
  for (const off of [0, 1]) {
    assert.equal(r0([...lddw(0, ONES), mov(1, 0), alu(ALU.DIV, 0, r(1), off)]), 0n);
    assert.equal(r0([...lddw(0, ONES), mov(1, 0), alu(ALU.MOD, 0, r(1), off)]), ONES);
    assert.equal(r0([...lddw(0, ONES), mov(1, 0), alu32(ALU.DIV, 0, r(1), off)]), 0n);
    assert.equal(r0([...lddw(0, ONES), mov(1, 0), alu32(ALU.MOD, 0, r(1), off)]), 0xffffffffn);
    assert.equal(r0([...lddw(0, ONES), alu(ALU.DIV, 0, 0, off)]), 0n);
    assert.equal(r0([...lddw(0, ONES), alu32(ALU.MOD, 0, 0, off)]), 0xffffffffn);
  }
  // A divisor whose low half is 0 is no zero in 64 bits, and one in 32.
  assert.equal(r0([...lddw(0, 1n << 36n), ...lddw(1, 1n << 32n), alu(ALU.DIV, 0, r(1))]), 16n);
  assert.equal(r0([...lddw(0, 1n << 36n), ...lddw(1, 1n << 32n), alu32(ALU.DIV, 0, r(1))]), 0n);
});

test('signed division: the lowest number by -1, truncation, sign of the dividend', () => {
  assert.equal(r0([...lddw(0, MIN64), mov(1, -1), alu(ALU.DIV, 0, r(1), 1)]), MIN64);
  assert.equal(r0([...lddw(0, MIN64), alu(ALU.DIV, 0, -1, 1)]), MIN64);
  assert.equal(r0([...lddw(0, MIN64), mov(1, -1), alu(ALU.MOD, 0, r(1), 1)]), 0n);
  assert.equal(r0([...lddw(0, MIN64), alu(ALU.MOD, 0, -1, 1)]), 0n);
  assert.equal(r0([...lddw(0, 0x80000000n), alu32(ALU.DIV, 0, -1, 1)]), 0x80000000n);
  assert.equal(r0([...lddw(0, 0x80000000n), mov(1, -1), alu32(ALU.DIV, 0, r(1), 1)]), 0x80000000n);
  assert.equal(r0([...lddw(0, 0x80000000n), mov(1, -1), alu32(ALU.MOD, 0, r(1), 1)]), 0n);
  assert.equal(r0([mov(0, -7), alu(ALU.DIV, 0, 2, 1)]), BigInt.asUintN(64, -3n));
  assert.equal(r0([mov(0, -7), alu(ALU.MOD, 0, 2, 1)]), ONES);
  assert.equal(r0([mov(0, 7), alu(ALU.MOD, 0, -2, 1)]), 1n);
  assert.equal(r0([mov(0, -7), alu32(ALU.DIV, 0, 2, 1)]), 0xfffffffdn);
  assert.equal(r0([mov(0, 42), mov(1, -1), alu(ALU.DIV, 0, r(1), 1)]), BigInt.asUintN(64, -42n));
});

test('unsigned division by an immediate: sign-extended to 64 bits, then without sign; 32 bits as u32', () => {
  assert.equal(r0([...lddw(0, ONES), alu(ALU.DIV, 0, -1)]), 1n);
  assert.equal(r0([...lddw(0, 0xffffffff_00000000n), alu(ALU.DIV, 0, -2)]), 0n);
  assert.equal(r0([...lddw(0, 0xffffffffn), alu32(ALU.DIV, 0, -1)]), 1n);
  assert.equal(r0([...lddw(0, 10n), alu32(ALU.MOD, 0, -3)]), 10n);
  assert.equal(r0([...lddw(0, 0xfffffffen), alu32(ALU.DIV, 0, 2)]), 0x7fffffffn);
});

test('shift counts are masked to 63 and 31', () => {
  assert.equal(r0([mov(0, 1), mov(1, 65), alu(ALU.LSH, 0, r(1))]), 2n);
  assert.equal(r0([mov(0, 1), mov(1, 33), alu32(ALU.LSH, 0, r(1))]), 2n);
  assert.equal(r0([mov(0, 1), mov(1, 33), alu(ALU.LSH, 0, r(1))]), 1n << 33n);
  assert.equal(r0([mov(0, -1), mov(1, -1), alu(ALU.RSH, 0, r(1))]), 1n);
  assert.equal(r0([mov(0, 1), alu(ALU.LSH, 0, 64)]), 1n);
  assert.equal(r0([mov(0, 4), alu32(ALU.RSH, 0, 33)]), 2n);
});

test('32-bit arithmetic shift right works on the low half, then zero-extends', () => {
  assert.equal(r0([...lddw(0, 0x80000000n), alu32(ALU.ARSH, 0, 4)]), 0xf8000000n);
  assert.equal(r0([...lddw(0, 0xf_40000000n), alu32(ALU.ARSH, 0, 4)]), 0x04000000n);
  assert.equal(r0([...lddw(0, MIN64), alu(ALU.ARSH, 0, 60)]), BigInt.asUintN(64, -8n));
});

test('sign-extending moves', () => {
  assert.equal(r0([mov(1, 0x180), alu(ALU.MOV, 0, r(1), 8)]), BigInt.asUintN(64, -128n));
  assert.equal(r0([mov(1, 0x180), alu32(ALU.MOV, 0, r(1), 8)]), 0xffffff80n);
  assert.equal(r0([mov(1, 0x18000), alu(ALU.MOV, 0, r(1), 16)]), BigInt.asUintN(64, -32768n));
  assert.equal(r0([mov(1, 0x18000), alu32(ALU.MOV, 0, r(1), 16)]), 0xffff8000n);
  assert.equal(r0([...lddw(1, 0x1_80000000n), alu(ALU.MOV, 0, r(1), 32)]), 0xffffffff_80000000n);
  assert.equal(r0([mov(1, 0x7f), alu(ALU.MOV, 0, r(1), 8)]), 0x7fn);
});

test('sign-extending loads go to 64 bits, plain ones are zero-extended', () => {
  const packet = [0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87];
  const load = (size: number, mode: number): bigint => r0([ldx(size, 0, 1, 0, mode)], { packet });
  assert.equal(load(SIZE.B, MODE.MEMSX), 0xffffffff_ffffff80n);
  assert.equal(load(SIZE.H, MODE.MEMSX), 0xffffffff_ffff8180n);
  assert.equal(load(SIZE.W, MODE.MEMSX), 0xffffffff_83828180n);
  assert.equal(load(SIZE.B, MODE.MEM), 0x80n);
  assert.equal(load(SIZE.H, MODE.MEM), 0x8180n);
  assert.equal(load(SIZE.W, MODE.MEM), 0x83828180n);
  assert.equal(load(SIZE.DW, MODE.MEM), 0x87868584_83828180n);
  assert.equal(r0([ldx(SIZE.W, 0, 1, 3)], { packet }), 0x86858483n); // unaligned
});

test('byte order: to little-endian truncates, to big-endian and bswap swap and truncate', () => {
  const value = lddw(0, 0x11223344_55667788n);
  const results = (code: number): bigint[] => [16, 32, 64].map((bits) => r0([...value, raw(code, 0, 0, 0, bits)]));
  assert.deepEqual(results(CODE.LE), [0x7788n, 0x55667788n, 0x11223344_55667788n]);
  assert.deepEqual(results(CODE.BE), [0x8877n, 0x88776655n, 0x88776655_44332211n]);
  assert.deepEqual(results(CODE.BSWAP), [0x8877n, 0x88776655n, 0x88776655_44332211n]);
});

test('32-bit jumps compare low halves, and imm as 32 bits', () => {
  const jumps = (insns: Insn[], taken: Insn): bigint => r0([...insns, mov(0, 1), { ...taken, off: 1 }, mov(0, 0)]);
  const high = lddw(1, 0x7_00000001n);
  assert.equal(jumps(high, jump32(JMP.JEQ, 1, 1, 0)), 1n);
  assert.equal(jumps(high, jump(JMP.JEQ, 1, 1, 0)), 0n);
  assert.equal(jumps(lddw(1, 0xffffffffn), jump32(JMP.JEQ, 1, -1, 0)), 1n);
  assert.equal(jumps(lddw(1, 0xffffffffn), jump(JMP.JEQ, 1, -1, 0)), 0n);
  assert.equal(jumps(lddw(1, 0xffffffffn), jump32(JMP.JSLT, 1, 0, 0)), 1n);
  assert.equal(jumps(lddw(1, 0xffffffffn), jump(JMP.JSLT, 1, 0, 0)), 0n);
  assert.equal(jumps(lddw(1, 1n << 32n), jump32(JMP.JSET, 1, -1, 0)), 0n);
  assert.equal(jumps(lddw(1, 1n << 32n), jump(JMP.JSET, 1, -1, 0)), 1n);
  assert.equal(jumps(lddw(1, MIN64), jump(JMP.JGT, 1, -1, 0)), 0n);
  assert.equal(jumps(lddw(1, MIN64), jump(JMP.JSGT, 1, -1, 0)), 0n);
  assert.equal(jumps(lddw(1, ONES), jump(JMP.JGE, 1, -1, 0)), 1n);
});

test('the 32-bit goto takes its distance from imm; distances count from the next slot, two for a 64-bit immediate', () => {
  assert.equal(r0([gotol(1), exit(), mov(0, 7)]), 7n);
  assert.equal(r0([mov(0, 1), ja(2), ...lddw(0, 9n), alu(ALU.ADD, 0, 1)]), 2n);
  assert.equal(r0([ja(2), mov(0, 5), ja(1), ja(-3)]), 5n);
});

test('a stored immediate is sign-extended to 8 bytes', () => {
  const { packet } = run([st(SIZE.DW, 1, 0, -2), st(SIZE.H, 1, 8, 0x1234567), exit()], {
    packet: new Array(12).fill(0x55),
  });
  assert.deepEqual(packet, [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x67, 0x45, 0x55, 0x55]);
});

test('atomics: the operation, the old value where asked for, 32 bits leave the rest of memory', () => {
  const start = [...lddw(2, 0x00000002_0000000fn), ...lddw(3, 0x11111111_22222222n), stx(SIZE.DW, 10, -8, 3)];
  const memory = (insn: Insn): bigint => r0([...start, insn, ldx(SIZE.DW, 0, 10, -8)]);
  const old = (insn: Insn): bigint => r0([...start, insn, mov(0, r(2))]);
  const on = (size: number, operation: number): Insn => atomic(size, operation, 10, -8, 2);
  assert.equal(memory(on(SIZE.DW, ATOMIC.ADD)), 0x11111113_22222231n);
  assert.equal(memory(on(SIZE.W, ATOMIC.ADD)), 0x11111111_22222231n);
  assert.equal(memory(on(SIZE.DW, ATOMIC.OR)), 0x11111113_2222222fn);
  assert.equal(memory(on(SIZE.DW, ATOMIC.AND)), 0x00000000_00000002n);
  assert.equal(memory(on(SIZE.W, ATOMIC.AND)), 0x11111111_00000002n);
  assert.equal(memory(on(SIZE.DW, ATOMIC.XOR)), 0x11111113_2222222dn);
  assert.equal(memory(on(SIZE.DW, ATOMIC.XCHG)), 0x00000002_0000000fn);
  assert.equal(memory(on(SIZE.W, ATOMIC.XCHG)), 0x11111111_0000000fn);
  // Without FETCH the register stays.
  assert.equal(old(on(SIZE.DW, ATOMIC.ADD)), 0x00000002_0000000fn);
  assert.equal(old(on(SIZE.DW, ATOMIC.ADD | ATOMIC.FETCH)), 0x11111111_22222222n);
  // 32 bits: the old value is zero-extended.
  assert.equal(old(on(SIZE.W, ATOMIC.XOR | ATOMIC.FETCH)), 0x22222222n);
  assert.equal(old(on(SIZE.W, ATOMIC.XCHG)), 0x22222222n);
});

test('compare and exchange: r0 is compared, and always gets the old value', () => {
  const run = (size: number, expected: bigint): [bigint, bigint] => {
    const head = [...lddw(3, 0x11111111_22222222n), stx(SIZE.DW, 10, -8, 3), ...lddw(0, expected), mov(2, 5)];
    const swap = [...head, atomic(size, ATOMIC.CMPXCHG, 10, -8, 2)];
    return [r0(swap), r0([...swap, ldx(SIZE.DW, 0, 10, -8)])];
  };
  assert.deepEqual(run(SIZE.DW, 0x11111111_22222222n), [0x11111111_22222222n, 5n]);
  assert.deepEqual(run(SIZE.DW, 1n), [0x11111111_22222222n, 0x11111111_22222222n]);
  // The upper half of r0 does not count, and is cleared on success too.
  assert.deepEqual(run(SIZE.W, 0x77777777_22222222n), [0x22222222n, 0x11111111_00000005n]);
  assert.deepEqual(run(SIZE.W, 0x77777777_00000000n), [0x22222222n, 0x11111111_22222222n]);
});

test('an unaligned atomic operation is a fault, not a trap', () => {
  const { fault } = run([mov(2, 1), atomic(SIZE.DW, ATOMIC.ADD, 10, -12, 2), exit()]);
  assert.deepEqual([fault?.code, fault?.slot], [FAULT.ALIGNMENT, 1]);
  assert.match(fault!.text, /^instruction 1: atomic operation at an unaligned address/);
});

test('local calls: arguments in r1 to r5, r6 to r9 kept, a fresh frame, r0 back', () => {
  const caller = [1, 2, 3, 4, 5].map((number) => mov(number, number));
  const kept = [6, 7, 8, 9].map((number) => mov(number, number * 10));
  const program = [
    ...[...caller, ...kept, st(SIZE.DW, 10, -8, 77)], // 10 slots
    callLocal(7), // slot 10 to 18
    ...[6, 7, 8, 9].map((number) => alu(ALU.ADD, 0, r(number))), // + 300
    ...[ldx(SIZE.DW, 1, 10, -8), alu(ALU.ADD, 0, r(1)), exit()], // + 77
    ...[mov(0, 0), ...[1, 2, 3, 4, 5].map((number) => alu(ALU.ADD, 0, r(number)))], // 15
    ...[6, 7, 8, 9].map((number) => mov(number, -1)),
    ...[st(SIZE.DW, 10, -8, 1), ldx(SIZE.DW, 3, 10, -8), alu(ALU.ADD, 0, r(3)), exit()], // + 1
  ];
  assert.equal(run(program).r0, 15n + 1n + 300n + 77n);
});

test("a callee may use its caller's stack by pointer, and frames are 512 bytes", () => {
  const program = [
    mov(1, r(10)),
    st(SIZE.DW, 10, -16, 3),
    callLocal(2),
    ldx(SIZE.DW, 0, 10, -16),
    exit(),
    st(SIZE.DW, 1, -16, 9),
    mov(0, 0),
    exit(),
  ];
  assert.equal(run(program).r0, 9n);
  assert.equal(
    run([mov(6, r(10)), mov(1, r(10)), callLocal(1), exit(), mov(0, r(1)), alu(ALU.SUB, 0, r(10)), exit()]).r0,
    512n,
  );
});

test('eight frames, not nine; recursion ends there', () => {
  const program = [
    mov(1, 0),
    callLocal(1),
    exit(),
    alu(ALU.ADD, 1, 1),
    mov(0, r(1)),
    jump(JMP.JEQ, 1, 7, 1),
    callLocal(-4),
    exit(),
  ];
  assert.equal(run(program).r0, 7n);
  const { fault } = run(program.map((insn) => (insn.imm === 7 ? { ...insn, imm: 8 } : insn)));
  assert.deepEqual([fault?.code, fault?.slot], [FAULT.FRAMES, 6]);
  assert.equal(run([callLocal(-1), exit()]).fault?.code, FAULT.FRAMES);
});

test('64-bit immediates: the number, or what the machine says for another src', () => {
  assert.equal(r0(lddw(0, 0x8765_4321_8765_4321n)), 0x8765_4321_8765_4321n);
  const machine = { immediate: (slot: number) => BigInt(slot) + 100n };
  assert.equal(r0([mov(1, 0), ...lddw(0, 3n, 1)], { machine }), 101n);
  assert.throws(
    () => r0(lddw(0, 3n, 1), { machine: { immediate: undefined } as unknown as Partial<Machine> }),
    /need an object with a map table/,
  );
});

test('helpers: five arguments, r0, errors with a name, and the end of the program by unwind', () => {
  const seen: bigint[][] = [];
  const helpers = new Map([
    [7, (...args: bigint[]) => (seen.push(args) > 0 ? ONES : 0n)],
    [
      5,
      (r1: bigint) => {
        if (r1 === 0n) throw new Unwind(9n);
        return r1;
      },
    ],
  ]);
  const args = [mov(1, -1), mov(2, 2), mov(3, 3), mov(4, 4), ...lddw(5, MIN64)];
  assert.equal(r0([...args, call(7)], { machine: { helpers } }), ONES);
  assert.deepEqual(seen, [
    [ONES, 2n, 3n, 4n, MIN64],
    [ONES, 2n, 3n, 4n, MIN64],
  ]);
  assert.equal(r0([mov(1, 0), call(5), mov(0, 1)], { machine: { helpers } }), 9n);
  assert.equal(r0([mov(1, 4), mov(2, 5), raw(CODE.CALLX, 2)], { machine: { helpers }, callx: true }), 4n);
  const { fault } = run([mov(2, 6), raw(CODE.CALLX, 2), exit()], { machine: { helpers }, callx: true });
  assert.deepEqual([fault?.code, fault?.slot], [FAULT.HELPER, 1]);
  assert.equal(run([mov(1, 1), call(2), exit()]).fault?.text, 'instruction 1: helper refused its arguments');
  assert.throws(() => r0([call(99)]), /instruction 0 \(call 99\): there is no helper 99/);
});

test('memory: up to the last byte of a region, not across, not beside, not into read-only ones', () => {
  const { packet, packetBytes, context, contextBytes, stack } = PLACES;
  const at = (address: bigint, size: number, write = false): number | undefined =>
    run([...lddw(3, address), write ? stx(size, 3, 0, 0) : ldx(size, 0, 3, 0), exit()]).fault?.code;
  for (const [size, bytes] of [
    [SIZE.B, 1],
    [SIZE.H, 2],
    [SIZE.W, 4],
    [SIZE.DW, 8],
  ] as const) {
    for (const [start, end] of [
      [packet, packet + packetBytes],
      [context, context + contextBytes],
      [stack, stack + 4096],
    ] as const) {
      assert.equal(at(BigInt(end - bytes), size), undefined);
      assert.equal(at(BigInt(end - bytes + 1), size), FAULT.ACCESS);
      assert.equal(at(BigInt(start), size), undefined);
      assert.equal(at(BigInt(start - 1), size), FAULT.ACCESS);
    }
  }
  assert.equal(at(BigInt(context), SIZE.W, true), FAULT.ACCESS);
  assert.equal(at(BigInt(packet), SIZE.W, true), undefined);
  // Whatever a 64-bit address is, nothing wraps: short regions, the ends of the number space, aliases in 32 bits.
  for (const address of [
    ONES,
    ONES - 7n,
    MIN64,
    MIN64 - 1n,
    0n,
    1n,
    (1n << 32n) | BigInt(packet),
    ONES - 0xffffffffn + BigInt(packet),
  ])
    for (const size of [SIZE.B, SIZE.DW]) assert.equal(at(address, size), FAULT.ACCESS, `0x${address.toString(16)}`);
});

test('the offset of an access is added in 64 bits', () => {
  const { packet } = PLACES;
  assert.equal(run([...lddw(3, BigInt(packet + 0x7000)), ldx(SIZE.B, 0, 3, -0x7000), exit()]).fault, undefined);
  assert.equal(run([...lddw(3, ONES), ldx(SIZE.B, 0, 3, packet + 1), exit()]).fault, undefined);
  assert.equal(run([...lddw(3, 0xffffffffn), ldx(SIZE.B, 0, 3, packet + 1), exit()]).fault?.code, FAULT.ACCESS);
});

test('regions shorter than an access', () => {
  const regions = [{ name: 'packet', start: 0x1000, end: 0x1004, writable: true }];
  for (const offset of [0, 1, 2, 3, 4, -4, 2000])
    assert.equal(run([ldx(SIZE.DW, 0, 1, offset), exit()], { machine: { regions } }).fault?.code, FAULT.ACCESS);
  assert.equal(run([ldx(SIZE.W, 0, 1, 0), exit()], { machine: { regions } }).fault, undefined);
});

test('the budget ends loops, and programs without loops and calls need none', () => {
  const endless = run([mov(0, 0), alu(ALU.ADD, 0, 1), ja(-2)]);
  assert.deepEqual([endless.fault?.code, endless.fault?.slot, endless.r0], [FAULT.BUDGET, 2, 0n]);
  const bounded = [mov(0, 0), alu(ALU.ADD, 0, 1), jump(JMP.JLT, 0, 10, -2), exit()];
  // Nine jumps back over two slots each.
  assert.equal(run(bounded, { machine: { budget: 18 } }).r0, 10n);
  assert.equal(run(bounded, { machine: { budget: 17 } }).fault?.code, FAULT.BUDGET);
  assert.equal(run([ja(2), mov(0, 5), exit(), ja(-3)], { machine: { budget: 1 } }).r0, 5n);
});

test('a machine is checked before anything runs', () => {
  const region = (start: number, end: number) => ({
    machine: { regions: [{ name: 'x', start, end, writable: true }] },
  });
  assert.throws(() => r0([mov(0, 0)], region(0, 65537)), /region x: expected a part of 0 to 65536/);
  assert.throws(() => r0([mov(0, 0)], region(8, 4)), /region x/);
  assert.throws(() => r0([mov(0, 0)], { machine: { stack: 4 } }), /stack: expected a multiple of 8/);
  assert.throws(() => r0([mov(0, 0)], { machine: { budget: 2 ** 31 } }), /budget: expected 1 to/);
});
