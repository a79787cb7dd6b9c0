// Random programs that this machine's kernel accepts: kernel, interpreter and compiler give the same r0 and packet.
import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { BPF_TYPE, BpfRefused, loadBpfProgram, testBpfProgram } from '../../memory/os/bpf.js';
import { OsError } from '../../memory/os/libc.js';
import { Interpreter } from '../interpreter/interpreter.js';
import { acceptable, exit, mov, PLACES, testMachine } from '../isa/build-testing.js';
import { checkProgram } from '../isa/check.js';
import { encodeProgram } from '../isa/code.js';
import { disassemble, disassembleProgram } from '../isa/disassemble.js';
import { CompiledProgram } from './compiled.js';

/** Why the kernel takes no programs from us, undefined where it does. */
function whyNot(): string | undefined {
  try {
    closeSync(loadBpfProgram(BPF_TYPE.XDP, encodeProgram([mov(0, 2), exit()]), 'to see whether it may'));
    return undefined;
  } catch (error) {
    if (!(error instanceof OsError)) throw error;
    return `needs bpf(2): ${error.message}`;
  }
}

const skip = whyNot() ?? false;

test('the kernel refuses what is not well-formed, with a log', { skip }, () => {
  const code = encodeProgram([{ code: 0x84, dst: 0, src: 1, off: 0, imm: 0 }, exit()]);
  assert.throws(
    () => loadBpfProgram(BPF_TYPE.XDP, code, 'test'),
    (error: unknown) => error instanceof BpfRefused && error.code === 'EINVAL' && /reserved/.test(error.log),
  );
});

/** What a kernel has beyond RFC 9669, by our messages. */
const KERNEL_ONLY = /kernel extension|kernel function|kernel variable/;
/** The kernel's messages about the form of one instruction. */
const FORM =
  /reserved|unknown opcode|is invalid|invalid atomic|BPF_[A-Z]+ uses|frame pointer is read only|unrecognized/;

test('single instructions of any form: what the kernel accepts passes, what it calls malformed does not', {
  skip,
}, () => {
  const small = fc.oneof(
    { weight: 6, arbitrary: fc.constant(0) },
    { weight: 2, arbitrary: fc.constantFrom(1, 8, 16, 32) },
    fc.nat(12),
  );
  const form = fc.record({
    ...{
      code: fc.nat(255),
      dst: fc.oneof(fc.nat(10), fc.nat(15)),
      src: fc.oneof(fc.constant(0), fc.nat(11)),
      off: small,
    },
    imm: fc.oneof(small, fc.constantFrom(0x40, 0x41, 0x50, 0xa0, 0xa1, 0xe1, 0xf1, 64)),
  });
  const counts = { accepted: 0, malformed: 0 };
  fc.assert(
    fc.property(form, (insn) => {
      const start = [6, 7, 8, 9, 0, 2, 3, 4, 5].map((register) => mov(register, register));
      const insns = [...start, insn, mov(0, 1), exit()];
      let ours = '';
      try {
        checkProgram(insns);
      } catch (error) {
        ours = (error as Error).message;
      }
      try {
        closeSync(loadBpfProgram(BPF_TYPE.XDP, encodeProgram(insns), 'one instruction'));
        counts.accepted++;
        if (!KERNEL_ONLY.test(ours)) assert.equal(ours, '');
      } catch (error) {
        if (!(error instanceof BpfRefused)) throw error;
        if (!FORM.test(error.log)) return;
        counts.malformed++;
        assert.notEqual(ours, '', `${disassemble(insn)} ${JSON.stringify(insn)}: the kernel says ${error.log}`);
      }
    }),
    { numRuns: 3000, includeErrorInReport: true },
  );
  assert.ok(counts.accepted > 100 && counts.malformed > 500, JSON.stringify(counts));
});

test('random programs: kernel, interpreter and compiler agree on r0 and packet', { skip }, () => {
  const packet = Uint8Array.from({ length: 64 }, (_, at) => (at * 37 + 5) & 0xff);
  const counts = { accepted: 0, refused: 0 };
  fc.assert(
    fc.property(acceptable(), ({ kernel, ours }) => {
      const text = [...disassembleProgram(kernel)].map(({ slot, text }) => `${slot}: ${text}`).join('\n');
      let fd: number;
      try {
        fd = loadBpfProgram(BPF_TYPE.XDP, encodeProgram(kernel), 'random program');
      } catch (error) {
        if (!(error instanceof BpfRefused)) throw error;
        counts.refused++;
        return;
      }
      counts.accepted++;
      try {
        const expected = testBpfProgram(fd, packet);
        for (const interpret of [true, false]) {
          const memory = new WebAssembly.Memory({ initial: 1 });
          const bytes = new Uint8Array(memory.buffer);
          bytes.set(packet, PLACES.packet);
          const machine = testMachine(memory);
          const runner = interpret ? new Interpreter(ours, machine) : new CompiledProgram(ours, machine, memory);
          const { r0, fault } = runner.run(BigInt(PLACES.packet), BigInt(PLACES.packet + packet.length));
          assert.equal(fault, undefined, text);
          assert.equal(Number(r0 & 0xffffffffn), expected.result, text);
          const left = bytes.subarray(PLACES.packet, PLACES.packet + packet.length);
          assert.ok(Buffer.compare(left, expected.data) === 0, `packet differs\n${text}`);
        }
      } finally {
        closeSync(fd);
      }
    }),
    { numRuns: Number(process.env.XDP_RUNS ?? 400), includeErrorInReport: true },
  );
  assert.ok(counts.accepted > counts.refused, JSON.stringify(counts));
});
