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
async function run(insns: readonly Insn[], memory?: string): Promise<PluginResult> {
  const args = memory === undefined ? [] : [memory];
  const input = (): string => hex(encodeProgram(insns));
  const compiled = await runPlugin([...args, '--jit'], input);
  assert.deepEqual(await runPlugin(['--interpret', ...args], input), compiled);
  assert.deepEqual(await runPlugin(args, input), compiled);
  return compiled;
}

test('r0 in hex; memory in r1 with its length in r2, 0 without', async () => {
  assert.deepEqual(await run([mov(0, -1), exit()]), { output: 'ffffffffffffffff' });
  assert.deepEqual(await run([ldx(SIZE.W, 0, 1, 1), exit()], 'aa bb cc dd ee'), { output: 'eeddccbb' });
  assert.deepEqual(await run([mov(0, r(2)), exit()], '00 11 22'), { output: '3' });
  assert.deepEqual(await run([mov(0, r(1)), alu(ALU.OR, 0, r(2)), exit()]), { output: '0' });
  assert.deepEqual(await run([mov(0, r(1)), alu(ALU.OR, 0, r(2)), exit()], ''), { output: '0' });
  assert.deepEqual(
    await run(
      [stx(SIZE.DW, 1, 0, 2), atomic(SIZE.DW, ATOMIC.ADD, 1, 0, 2), ldx(SIZE.B, 0, 1, 0), exit()],
      '0011223344556677',
    ),
    { output: '10' },
  );
});

test('double spaces and lines in hex; what is no hex is named', async () => {
  assert.deepEqual(await runPlugin([], () => ' b7 00 00  00 05 00 00 00\n95 00 00 00 00 00 00 00 \n'), { output: '5' });
  assert.deepEqual(await runPlugin([], () => 'b7 0x'), { error: "program: expected bytes in hex, got '0x'" });
  assert.deepEqual(await runPlugin(['zz'], () => ''), { error: "memory: expected bytes in hex, got 'zz'" });
  assert.deepEqual(await runPlugin([], () => 'b7 00'), { error: 'program: expected a multiple of 8 bytes, got 2' });
  assert.deepEqual(await runPlugin([], () => ''), { error: 'program: it has no instruction' });
  assert.match(
    ((await runPlugin(['--fast'], () => '')) as { error: string }).error,
    /option '--fast' is not known; usage:/,
  );
  assert.match(
    ((await runPlugin(['00', '11'], () => '')) as { error: string }).error,
    /one memory argument, got '11' too/,
  );
});

test('shift counts are masked, reserved fields refused, faults named', async () => {
  assert.deepEqual(await run([mov(0, 1), alu(ALU.LSH, 0, 65), exit()]), { output: '2' });
  assert.match(
    ((await run([raw(CODE.EXIT, 0, 0, 1)])) as { error: string }).error,
    /instruction 0 \(exit\): off is not used here/,
  );
  assert.match(
    ((await run([ldx(SIZE.B, 0, 1, 3), exit()], '00 11 22')) as { error: string }).error,
    /instruction 0: memory access outside/,
  );
});

test('helpers 0 to 5, by number and through a register', async () => {
  const numbers = [1, 2, 3, 4, 5].map((number) => mov(number, 0x100 + number));
  assert.deepEqual(await run([...numbers, call(0), exit()]), { output: '102030405' });
  assert.deepEqual(await run([mov(2, 3), call(1), ldx(SIZE.W, 0, 1, 0), exit()], '00 01 02 03'), {
    output: '328' + '2b2a',
  });
  assert.deepEqual(await run([mov(0, 9), call(2), exit()]), { output: '0' });
  assert.deepEqual(await run([...lddw(1, 1_000_001n), call(3), exit()]), { output: '3e8' });
  const compare = [mov(2, r(1)), alu(ALU.ADD, 2, 4), call(4), exit()];
  assert.deepEqual(await run(compare, '61 62 00 00 61 62 00'), { output: '0' });
  assert.deepEqual(await run(compare, '61 62 00 00 61 63 00'), { output: 'ffffffffffffffff' });
  assert.match(
    ((await run(compare, '61 62 63 64 61 62 63 64')) as { error: string }).error,
    /helper refused its arguments/,
  );
  assert.match(
    ((await run([mov(2, -1), call(1), exit()], '00')) as { error: string }).error,
    /helper refused its arguments/,
  );
  assert.deepEqual(await run([mov(1, -1), call(5), mov(0, 2), exit()]), { output: '2' });
  assert.deepEqual(await run([mov(1, 0), call(5), mov(0, 2), exit()]), { output: '0' });
  assert.deepEqual(await run([mov(1, -1), mov(2, 5), raw(CODE.CALLX, 0, 2), mov(0, 2), exit()]), { output: '2' });
  assert.match(((await run([call(6), exit()])) as { error: string }).error, /there is no helper 6/);
});

const clang = spawnSync('clang', ['--version']).status === 0;

test('--elf: the first XDP program of an object, with its global variables', {
  skip: clang ? false : 'needs clang',
}, async () => {
  const variables = `
    static const volatile unsigned long factor = 6;
    static volatile unsigned long sum = 1;
    __attribute__((noinline)) static unsigned long scale(unsigned long value) { return value * factor; }`;
  const run = '__attribute__((section("xdp"))) int run(unsigned char *memory) { sum += scale(memory[0]); return sum; }';
  // The compiler must not see that it writes to a constant.
  const spoil = `__attribute__((section("xdp"))) int spoil(void *memory) {
    unsigned long *where = (unsigned long *)&factor;
    asm volatile("" : "+r"(where));
    return *where = 1;
  }`;
  const object = (text: string): string => {
    const args = ['-O2', '-g', '-target', 'bpf', '-x', 'c', '-', '-c', '-o', '-'];
    const { status, stdout, stderr } = spawnSync('clang', args, { input: text });
    assert.equal(status, 0, String(stderr));
    return hex(stdout);
  };
  const input = object(`${variables}\n${run}\n${spoil}`);
  for (const how of ['--jit', '--interpret']) {
    assert.deepEqual(await runPlugin(['07', how, '--elf'], () => input), { output: '2b' });
  }
  const writes = object(`${variables}
${spoil}
${run}`);
  assert.match(((await runPlugin(['07', '--elf'], () => writes)) as { error: string }).error, /memory access outside/);
  assert.match(((await runPlugin(['--elf'], () => '00 01')) as { error: string }).error, /ELF/);
});

test('loops of millions of instructions end', async () => {
  const insns = [mov(0, 0), alu(ALU.ADD, 0, 1), jump(JMP.JLT, 0, 3_000_000, -2), exit()];
  assert.deepEqual(await runPlugin([], () => hex(encodeProgram(insns))), { output: '2dc6c0' });
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
