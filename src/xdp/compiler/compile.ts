// A checked program to a WebAssembly module: `run(r1, r2)` gives r0, globals say how it ended.
import type { CheckedProgram } from '../isa/check.js';
import { slotsOf } from '../isa/code.js';
import { budgetCosts } from '../isa/flow.js';
import { checkLinks } from '../isa/machine.js';
import { CODE, MAX_FRAMES } from '../isa/opcodes.js';
import { CALL } from '../isa/program.js';
import type { AccessPolicy } from './access.js';
import {
  ENTRY_PARAMS,
  FunctionCompiler,
  type HelperImport,
  type HelperShape,
  LOCAL_PARAMS,
  type ModuleScope,
} from './function.js';
import { ModuleBuilder, TYPE } from './wasm.js';

/** A helper written in TypeScript: five bigints in, one out, faults allowed. */
export const WIDE_HELPER: HelperShape = { params: ['i64', 'i64', 'i64', 'i64', 'i64'], result: 'i64', faults: true };

export interface CompileOptions {
  /** What is known of each memory access. */
  readonly policy: AccessPolicy;
  /** Lowest address of the stack: STACK_BYTES, a multiple of 8. */
  readonly stack: number;
  /** Instructions (see budgetCosts) that a run may execute, below 2^31. */
  readonly budget: number;
  /** Helpers that there are, imported as env.helper<id>. */
  readonly helpers: ReadonlyMap<number, HelperShape>;
  /** Value of a 64-bit immediate with a src other than 0, by slot. */
  readonly immediate?: (slot: number) => bigint;
  /** i64 globals that the policy's windows name; exported. */
  readonly globals?: readonly string[];
  /** The memory it will be given, env.memory, is shared. */
  readonly shared: boolean;
}

/** Functions with callees first, how deep calls go (Infinity for recursion), and whether one leads to the entry. */
function callOrder({ insns, functions }: CheckedProgram): {
  order: number[];
  depth: number;
  entryCalled: boolean;
} {
  const callees = functions.map(({ start, end }) => {
    const found = new Set<number>();
    for (let slot = start; slot < end; slot += slotsOf(insns[slot]!)) {
      const { code, src, imm } = insns[slot]!;
      if (code === CODE.CALL && src === CALL.LOCAL) found.add(slot + 1 + imm);
    }
    return [...found];
  });
  const indexOf = new Map(functions.map(({ start }, index) => [start, index]));
  const order: number[] = [];
  const depths = new Array<number>(functions.length).fill(0);
  const state = new Uint8Array(functions.length);
  for (let root = 0; root < functions.length; root++) {
    const walk = state[root] === 0 ? [{ index: root, step: 0 }] : [];
    state[root] = Math.max(state[root]!, 1);
    while (walk.length > 0) {
      const top = walk.at(-1)!;
      const callee = callees[top.index]![top.step++];
      if (callee !== undefined) {
        const to = indexOf.get(callee)!;
        if (state[to] === 0) {
          state[to] = 1;
          walk.push({ index: to, step: 0 });
        } else if (state[to] === 1) depths[to] = Number.POSITIVE_INFINITY;
        continue;
      }
      walk.pop();
      state[top.index] = 2;
      order.push(top.index);
      for (const start of callees[top.index]!)
        depths[top.index] = Math.max(depths[top.index]!, depths[indexOf.get(start)!]!);
      depths[top.index]!++;
    }
  }
  return { order, depth: Math.max(...depths), entryCalled: callees.some((found) => found.includes(0)) };
}

/**
 * The module of a program. It exports `run`, the i32 globals `fault` (faultOf) and `fuel`, and those of the options. Throws
 * LinkError where the program refers to what the options have not, CompileError where it is too large.
 */
export function compileProgram(program: CheckedProgram, options: CompileOptions): Uint8Array<ArrayBuffer> {
  checkLinks(program, options);
  const { insns, functions } = program;
  const maximum = options.shared ? 65536 : undefined;
  const module = new ModuleBuilder({ initial: 0, maximum, shared: options.shared });
  const used = new Set(
    insns.filter(({ code, src }) => code === CODE.CALL && src === CALL.HELPER).map(({ imm }) => imm),
  );
  const any = insns.some(({ code }) => code === CODE.CALLX);
  const typeOf = (name: 'i32' | 'i64'): number => (name === 'i32' ? TYPE.I32 : TYPE.I64);
  const helpers = new Map<number, HelperImport>();
  for (const [id, shape] of options.helpers) {
    if (!any && !used.has(id)) continue;
    const type = { params: shape.params.map(typeOf), results: [typeOf(shape.result)] };
    helpers.set(id, { index: module.importFunction(`helper${id}`, type), shape });
  }
  const faultGlobal = module.addGlobal('fault', TYPE.I32);
  const fuelGlobal = module.addGlobal('fuel', TYPE.I32);
  const globals = new Map((options.globals ?? []).map((name) => [name, module.addGlobal(name, TYPE.I64)]));
  const { order, depth, entryCalled } = callOrder(program);
  const local = order.filter((index) => index !== 0 || entryCalled);
  const compiled: ModuleScope['compiled'] = new Map();
  // Known before they are compiled, for recursion; what they do is assumed until then.
  const base = helpers.size;
  local.forEach((index, at) => {
    compiled.set(functions[index]!.start, { index: base + at, faults: true });
  });
  const scope: ModuleScope = {
    ...{ program, costs: budgetCosts(program), policy: options.policy, helpers, immediate: options.immediate },
    ...{ stack: options.stack, budget: options.budget, countsFrames: depth > MAX_FRAMES },
    ...{ faultGlobal, fuelGlobal, globals, compiled },
  };
  const add = (index: number, entry: boolean): number => {
    const compiler = new FunctionCompiler(scope, functions[index]!, entry);
    const body = compiler.compile();
    const params = (entry ? ENTRY_PARAMS : LOCAL_PARAMS).map(() => TYPE.I64);
    const added = module.addFunction({ params, results: [TYPE.I64] }, body);
    if (!entry) compiled.set(functions[index]!.start, { index: added, faults: compiler.faults });
    return added;
  };
  // An entry that is also called is there twice: called, it has arguments and a frame of its own.
  for (const index of local) add(index, false);
  module.exportFunction('run', add(0, true));
  return module.build();
}
