import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  alu,
  alu32,
  call,
  callLocal,
  exit,
  ja,
  jump,
  ldx,
  mov,
  PLACES,
  programs,
  r,
  testMachine,
} from '../isa/build-testing.js';
import { checkProgram } from '../isa/check.js';
import { blocksOf } from '../isa/flow.js';
import { FAULT } from '../isa/machine.js';
import { ALU, JMP, SIZE } from '../isa/opcodes.js';
import type { Insn } from '../isa/program.js';
import { guardRegions, type Window } from './access.js';
import { compileProgram, WIDE_HELPER } from './compile.js';
import { CompiledProgram } from './compiled.js';
import { structureOf } from './structure.js';

const structure = (insns: readonly Insn[]) => {
  const program = checkProgram(insns, { rules: 'rfc' });
  return structureOf(blocksOf(program.insns, program.functions[0]!));
};

function run(insns: readonly Insn[], budget = 1_000_000): bigint {
  const memory = new WebAssembly.Memory({ initial: 1 });
  const outcome = new CompiledProgram(checkProgram(insns), testMachine(memory, budget), memory).run(
    BigInt(PLACES.packet),
  );
  assert.equal(outcome.fault, undefined);
  return outcome.r0;
}

test('scopes of any control flow nest, and every edge has one to branch to', () => {
  fc.assert(
    fc.property(programs(), (program) => {
      for (const range of program.functions) {
        const blocks = blocksOf(program.insns, range);
        const found = structureOf(blocks);
        if (found === undefined) continue;
        const { order, place, opens } = found;
        /** Ends of open scopes, and for each place the forward or loop scopes that are open there. */
        const open: { loop: boolean; from: number; end: number }[] = [];
        order.forEach((index, at) => {
          while (open.at(-1)?.end === at) open.pop();
          for (const { loop, end } of opens[at]!) {
            assert.ok(
              open.every((outer) => outer.end >= end),
              'scopes cross',
            );
            open.push({ loop, from: at, end });
          }
          const { next, target } = blocks[index]!;
          for (const to of [next, target]) {
            if (to < 0) continue;
            const where = place[to]!;
            if (where <= at)
              assert.ok(
                open.some(({ loop, from }) => loop && from === where),
                'no loop to go back to',
              );
            else if (where !== at + 1)
              assert.ok(
                open.some(({ loop, end }) => !loop && end === where),
                'no block to leave',
              );
          }
        });
      }
    }),
    { numRuns: 500 },
  );
});

test('backward jumps that are mere layout make no loop', () => {
  const found = structure([ja(2), mov(0, 1), exit(), jump(JMP.JEQ, 1, 0, -3), ja(-4)]);
  assert.equal(found?.opens.flat().filter(({ loop }) => loop).length, 0);
});

test('nested loops become nested loops', () => {
  // Two counters, the inner one from 0 to 10 for each of 10.
  const insns = [
    ...[mov(0, 0), mov(1, 0), mov(2, 0)],
    ...[alu(ALU.ADD, 0, 1), alu(ALU.ADD, 2, 1), jump(JMP.JLT, 2, 10, -3)],
    ...[alu(ALU.ADD, 1, 1), jump(JMP.JLT, 1, 10, -6), exit()],
  ];
  const found = structure(insns);
  assert.equal(found?.opens.flat().filter(({ loop }) => loop).length, 2);
  assert.equal(run(insns), 100n);
});

test('a loop with two entries is irreducible, and runs by dispatcher', () => {
  // Into the middle of the loop of slots 3 to 5, or to its head.
  const insns = [
    ...[mov(0, 0), mov(1, 5), jump(JMP.JEQ, 3, 0, 1)],
    ...[alu(ALU.ADD, 0, 100), alu(ALU.ADD, 0, 1), alu(ALU.SUB, 1, 1), jump(JMP.JNE, 1, 0, -4), exit()],
  ];
  assert.equal(structure(insns), undefined);
  // Entered in the middle: 100 is added four times only.
  assert.equal(run(insns), 405n);
});

test('many blocks and deep nests compile', () => {
  const chain: Insn[] = [mov(0, 0)];
  for (let step = 0; step < 3000; step++) chain.push(jump(JMP.JEQ, 1, step, 1), alu(ALU.ADD, 0, 1));
  chain.push(exit());
  assert.equal(run(chain), 3000n);
  // All to one end: scopes that overlap everywhere.
  const fan: Insn[] = [mov(0, 0)];
  for (let step = 0; step < 3000; step++) fan.push(alu(ALU.ADD, 0, 1), jump(JMP.JEQ, 1, step, 2 * (3000 - step) - 2));
  fan.push(exit());
  assert.equal(run(fan), 3000n);
  // Loops inside each other, deeper than are structured.
  const depth = 200;
  const nest: Insn[] = [mov(0, 0)];
  for (let level = 0; level < depth; level++) nest.push(alu32(ALU.ADD, 0, 1));
  for (let level = 0; level < depth; level++) nest.push(jump(JMP.JEQ, 3, 1, -2 * level - 2));
  nest.push(exit());
  assert.equal(structure(nest), undefined);
  assert.equal(run(nest), BigInt(depth));
});

test('a proved access costs nothing, a guarded one names its windows, none is always a fault', () => {
  const program = checkProgram([ldx(SIZE.W, 0, 1, 4), exit()]);
  const memory = new WebAssembly.Memory({ initial: 1 });
  new Uint8Array(memory.buffer).set([1, 2, 3, 4, 5, 6, 7, 8], PLACES.packet);
  const size = (policy?: 'proved' | readonly Window[]): number => {
    const decide = policy === undefined ? undefined : () => policy;
    const compiled = new CompiledProgram(program, testMachine(memory), memory, decide);
    const { r0, fault } = compiled.run(BigInt(PLACES.packet));
    if (policy !== undefined && policy.length === 0) assert.deepEqual([r0, fault?.code], [0n, FAULT.ACCESS]);
    else assert.deepEqual([r0, fault], [0x08070605n, undefined]);
    return compiled.module.length;
  };
  const { packet, packetBytes } = PLACES;
  assert.ok(size('proved') < size([{ start: packet, end: packet + packetBytes }]));
  assert.ok(size([{ start: packet, end: packet + packetBytes }]) < size());
  size([]);
});

test('windows by globals follow what the caller sets, and hold for short packets', async () => {
  const memory = new WebAssembly.Memory({ initial: 1 });
  const bytes = compileProgram(checkProgram([ldx(SIZE.DW, 0, 1, 2000), mov(0, 7), exit()]), {
    policy: () => [{ start: 'data', end: 'dataEnd' }],
    ...{ stack: PLACES.stack, budget: 100, helpers: new Map(), globals: ['data', 'dataEnd'], shared: false },
  });
  const { instance } = await WebAssembly.instantiate(bytes, { env: { memory } });
  const { run, fault, data, dataEnd } = instance.exports as unknown as {
    run: (r1: bigint, r2: bigint) => bigint;
    fault: WebAssembly.Global;
    data: WebAssembly.Global;
    dataEnd: WebAssembly.Global;
  };
  const outcome = (start: number, end: number, base: bigint): [bigint, boolean] => {
    data.value = BigInt(start);
    dataEnd.value = BigInt(end);
    return [run(base, 0n), fault.value !== 0];
  };
  assert.deepEqual(outcome(0x1000, 0x1000 + 2008, 0x1000n), [7n, false]);
  assert.deepEqual(outcome(0x1000, 0x1000 + 2007, 0x1000n), [0n, true]);
  // A frame of 4 bytes, at which "offset > length - 8" without sign would pass anything.
  assert.deepEqual(outcome(0x1000, 0x1004, 0x1000n), [0n, true]);
  assert.deepEqual(outcome(0, 4, 0n), [0n, true]);
  // An address near the end of 64 bits, at which "address + 8 > end" would wrap.
  assert.deepEqual(outcome(0x1000, 0x1100, BigInt.asUintN(64, -2001n)), [0n, true]);
});

test('helpers with 32-bit arguments get low halves, and an int result is sign-extended', async () => {
  const memory = new WebAssembly.Memory({ initial: 1 });
  const seen: number[] = [];
  const bytes = compileProgram(checkProgram([mov(1, -5), mov(2, 6), call(3), exit()]), {
    policy: guardRegions([]),
    ...{ stack: PLACES.stack, budget: 100, shared: false },
    helpers: new Map([
      [3, { params: ['i32', 'i32'], result: 'i32', faults: false }],
      [4, WIDE_HELPER],
    ]),
  });
  const helper3 = (...args: number[]): number => {
    seen.push(...args);
    return -1;
  };
  // Helper 4 is not called, and not imported.
  const { instance } = await WebAssembly.instantiate(bytes, { env: { memory, helper3 } });
  const run = instance.exports.run as (r1: bigint, r2: bigint) => bigint;
  assert.equal(run(0n, 0n), -1n);
  assert.deepEqual(seen, [-5, 6]);
});

test('calls fan out, and every one is paid for', () => {
  // Each of six functions calls the next one ten times.
  const insns: Insn[] = [];
  for (let level = 0; level < 6; level++) {
    if (level === 0) insns.push(mov(6, 0));
    for (let time = 0; time < 10; time++) {
      const rest = 10 - time - 1;
      insns.push(callLocal(2 * rest + 3), alu(ALU.ADD, 6, r(0)));
    }
    insns.push(mov(0, r(6)), exit());
  }
  insns.push(mov(0, 1), exit());
  const memory = new WebAssembly.Memory({ initial: 1 });
  const program = checkProgram(insns);
  assert.equal(program.functions.length, 7);
  const outcome = (budget: number) => new CompiledProgram(program, testMachine(memory, budget), memory).run(0n);
  assert.equal(outcome(100_000_000).r0, 1_000_000n);
  assert.equal(outcome(100_000).fault?.code, FAULT.BUDGET);
});
