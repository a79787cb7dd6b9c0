// A compiled program with a machine, as the interpreter has it: for whoever runs one program at a time.
import type { CheckedProgram } from '../isa/check.js';
import { checkMachine, faultOf, HelperFault, type Machine, type Outcome, Unwind } from '../isa/machine.js';
import { type AccessPolicy, guardRegions } from './access.js';
import { compileProgram, WIDE_HELPER } from './compile.js';

interface Exports {
  readonly run: (r1: bigint, r2: bigint) => bigint;
  readonly fault: WebAssembly.Global;
}

/** run() may be called again and again. */
export class CompiledProgram {
  readonly #exports: Exports;
  /** The module's bytes. */
  readonly module: Uint8Array;

  /** `memory` is the machine's buffer. Without a policy every access is guarded. Throws LinkError, CompileError. */
  constructor(program: CheckedProgram, machine: Machine, memory: WebAssembly.Memory, policy?: AccessPolicy) {
    checkMachine(machine);
    const { stack, budget, helpers, regions, immediate } = machine;
    this.module = compileProgram(program, {
      policy: policy ?? guardRegions(regions),
      ...{ stack, budget, helpers: new Map([...helpers.keys()].map((id) => [id, WIDE_HELPER])) },
      ...(immediate === undefined ? {} : { immediate }),
      shared: !(memory.buffer instanceof ArrayBuffer),
    });
    const env: WebAssembly.ModuleImports = { memory };
    for (const [id, helper] of helpers) {
      env[`helper${id}`] = (...args: [bigint, bigint, bigint, bigint, bigint]): bigint => {
        try {
          const [r1, r2, r3, r4, r5] = args.map((value) => BigInt.asUintN(64, value)) as typeof args;
          return helper(r1, r2, r3, r4, r5);
        } catch (error) {
          if (!(error instanceof HelperFault)) throw error;
          this.#exports.fault.value = error.code;
          return 0n;
        }
      };
    }
    const module = new WebAssembly.Module(this.module as Uint8Array<ArrayBuffer>);
    this.#exports = new WebAssembly.Instance(module, { env }).exports as unknown as Exports;
  }

  /** Runs from the entry with r1 and r2. */
  run(r1: bigint, r2 = 0n): Outcome {
    let r0: bigint;
    try {
      r0 = this.#exports.run(r1, r2);
    } catch (error) {
      if (error instanceof Unwind) return { r0: BigInt.asUintN(64, error.r0), fault: undefined };
      throw error;
    }
    const fault = faultOf(this.#exports.fault.value >>> 0);
    return { r0: fault === undefined ? BigInt.asUintN(64, r0) : 0n, fault };
  }
}
