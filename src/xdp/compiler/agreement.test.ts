// Interpreter and compiler on random programs: the same r0, memory and fault.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Interpreter } from '../interpreter/interpreter.js';
import { PLACES, programs, testMachine } from '../isa/build-testing.js';
import type { CheckedProgram } from '../isa/check.js';
import { disassembleProgram } from '../isa/disassemble.js';
import { CompiledProgram } from './compiled.js';

const text = ({ insns }: CheckedProgram): string =>
  [...disassembleProgram(insns)].map(({ slot, text }) => `${slot}: ${text}`).join('\n');

/** Memory with recognisable bytes everywhere, so that a stray store shows. */
function filledMemory(): { memory: WebAssembly.Memory; bytes: Uint8Array } {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const bytes = new Uint8Array(memory.buffer);
  for (let at = 0; at < bytes.length; at++) bytes[at] = (at * 167 + (at >> 8)) & 0xff;
  return { memory, bytes };
}

test('random programs: interpreter and compiler agree on r0, fault and every byte of memory', () => {
  const counts = { faulted: 0, finished: 0 };
  fc.assert(
    fc.property(programs(), (program) => {
      const left = filledMemory();
      const right = filledMemory();
      const expected = new Interpreter(program, testMachine(left.memory)).run(
        BigInt(PLACES.packet),
        BigInt(PLACES.context),
      );
      const compiled = new CompiledProgram(program, testMachine(right.memory), right.memory);
      const actual = compiled.run(BigInt(PLACES.packet), BigInt(PLACES.context));
      if (expected.fault === undefined) counts.finished++;
      else counts.faulted++;
      assert.deepEqual(actual, expected, text(program));
      assert.ok(Buffer.compare(left.bytes, right.bytes) === 0, `memory differs\n${text(program)}`);
    }),
    { numRuns: Number(process.env.XDP_RUNS ?? 1500), includeErrorInReport: true },
  );
  // The generator must reach both ends, or the comparison says little.
  assert.ok(counts.faulted > 50 && counts.finished > 50, JSON.stringify(counts));
});
