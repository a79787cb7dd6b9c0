import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { alu, atomic, call, exit, jump, lddw, ldx, mov, r, raw, stx } from '../../xdp/isa/build-testing.js';
import { encodeProgram } from '../../xdp/isa/code.js';
import { ALU, ATOMIC, CODE, JMP, SIZE } from '../../xdp/isa/opcodes.js';
import type { Insn } from '../../xdp/isa/program.js';
import { type PluginResult, runPlugin } from './plugin.js';

const hex = (bytes: Uint8Array): string => [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');

/** Both ways to run a program must print the same. */
function run(insns: readonly Insn[], memory?: string): PluginResult {
  const args = memory === undefined ? [] : [memory];
  const input = (): string => hex(encodeProgram(insns));
  const compiled = runPlugin([...args, '--jit'], input);
  assert.deepEqual(runPlugin(['--interpret', ...args], input), compiled);
  assert.deepEqual(runPlugin(args, input), compiled);
  return compiled;
}

test('r0 in hex; memory in r1 with its length in r2, 0 without', () => {
  assert.deepEqual(run([mov(0, -1), exit()]), { output: 'ffffffffffffffff' });
  assert.deepEqual(run([ldx(SIZE.W, 0, 1, 1), exit()], 'aa bb cc dd ee'), { output: 'eeddccbb' });
  assert.deepEqual(run([mov(0, r(2)), exit()], '00 11 22'), { output: '3' });
  assert.deepEqual(run([mov(0, r(1)), alu(ALU.OR, 0, r(2)), exit()]), { output: '0' });
  assert.deepEqual(run([mov(0, r(1)), alu(ALU.OR, 0, r(2)), exit()], ''), { output: '0' });
  assert.deepEqual(
    run(
      [stx(SIZE.DW, 1, 0, 2), atomic(SIZE.DW, ATOMIC.ADD, 1, 0, 2), ldx(SIZE.B, 0, 1, 0), exit()],
      '0011223344556677',
    ),
    { output: '10' },
  );
});

test('double spaces and lines in hex; what is no hex is named', () => {
  assert.deepEqual(
    runPlugin([], () => ' b7 00 00  00 05 00 00 00\n95 00 00 00 00 00 00 00 \n'),
    { output: '5' },
  );
  assert.deepEqual(
    runPlugin([], () => 'b7 0x'),
    { error: "program: expected bytes in hex, got '0x'" },
  );
  assert.deepEqual(
    runPlugin(['zz'], () => ''),
    { error: "memory: expected bytes in hex, got 'zz'" },
  );
  assert.deepEqual(
    runPlugin([], () => 'b7 00'),
    { error: 'program: expected a multiple of 8 bytes, got 2' },
  );
  assert.deepEqual(
    runPlugin([], () => ''),
    { error: 'program: it has no instruction' },
  );
  assert.match((runPlugin(['--fast'], () => '') as { error: string }).error, /option '--fast' is not known; usage:/);
  assert.match((runPlugin(['00', '11'], () => '') as { error: string }).error, /one memory argument, got '11' too/);
});

test('shift counts are masked, reserved fields refused, faults named', () => {
  assert.deepEqual(run([mov(0, 1), alu(ALU.LSH, 0, 65), exit()]), { output: '2' });
  assert.match(
    (run([raw(CODE.EXIT, 0, 0, 1)]) as { error: string }).error,
    /instruction 0 \(exit\): off is not used here/,
  );
  assert.match(
    (run([ldx(SIZE.B, 0, 1, 3), exit()], '00 11 22') as { error: string }).error,
    /instruction 0: memory access outside/,
  );
});

test('helpers 0 to 5, by number and through a register', () => {
  const numbers = [1, 2, 3, 4, 5].map((number) => mov(number, 0x100 + number));
  assert.deepEqual(run([...numbers, call(0), exit()]), { output: '102030405' });
  assert.deepEqual(run([mov(2, 3), call(1), ldx(SIZE.W, 0, 1, 0), exit()], '00 01 02 03'), { output: '328' + '2b2a' });
  assert.deepEqual(run([mov(0, 9), call(2), exit()]), { output: '0' });
  assert.deepEqual(run([...lddw(1, 1_000_001n), call(3), exit()]), { output: '3e8' });
  const compare = [mov(2, r(1)), alu(ALU.ADD, 2, 4), call(4), exit()];
  assert.deepEqual(run(compare, '61 62 00 00 61 62 00'), { output: '0' });
  assert.deepEqual(run(compare, '61 62 00 00 61 63 00'), { output: 'ffffffffffffffff' });
  assert.match((run(compare, '61 62 63 64 61 62 63 64') as { error: string }).error, /helper refused its arguments/);
  assert.match((run([mov(2, -1), call(1), exit()], '00') as { error: string }).error, /helper refused its arguments/);
  assert.deepEqual(run([mov(1, -1), call(5), mov(0, 2), exit()]), { output: '2' });
  assert.deepEqual(run([mov(1, 0), call(5), mov(0, 2), exit()]), { output: '0' });
  assert.deepEqual(run([mov(1, -1), mov(2, 5), raw(CODE.CALLX, 0, 2), mov(0, 2), exit()]), { output: '2' });
  assert.match((run([call(6), exit()]) as { error: string }).error, /there is no helper 6/);
});

test('loops of millions of instructions end', () => {
  const insns = [mov(0, 0), alu(ALU.ADD, 0, 1), jump(JMP.JLT, 0, 3_000_000, -2), exit()];
  assert.deepEqual(
    runPlugin([], () => hex(encodeProgram(insns))),
    { output: '2dc6c0' },
  );
});

test('as a program: exit codes, stdout, stderr', () => {
  const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../../..');
  const start = (input: string, ...args: string[]) => {
    const main = path.join(root, 'dist/src/cli/bpf-plugin.js');
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { input, encoding: 'utf8' });
    return { status, stdout, stderr };
  };
  const program = hex(encodeProgram([ldx(SIZE.H, 0, 1, 0), exit()]));
  assert.deepEqual(start(program, '34 12', '--interpret'), { status: 0, stdout: '1234\n', stderr: '' });
  assert.deepEqual(start(program, '34 12'), { status: 0, stdout: '1234\n', stderr: '' });
  const { status, stdout, stderr } = start(program);
  assert.deepEqual([status, stdout], [1, '']);
  assert.match(stderr, /^instruction 0: memory access outside of packet, stack and context\n$/);
});
