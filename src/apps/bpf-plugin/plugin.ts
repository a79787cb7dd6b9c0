// A program that runs one eBPF program and prints r0: the protocol of the conformance suites (facts/ebpf-xdp.md 1). One
// process a test, so little is imported.
import { CompiledProgram } from '../../xdp/compiler/compiled.js';
import { Interpreter } from '../../xdp/interpreter/interpreter.js';
import { checkProgram } from '../../xdp/isa/check.js';
import { decodeProgram } from '../../xdp/isa/code.js';
import type { Machine, Region } from '../../xdp/isa/machine.js';
import { stackRegion } from '../../xdp/isa/machine.js';
import { conformanceHelpers } from './helpers.js';
import type { LoadedProgram } from './object.js';

/** The stack, with unused memory around it, and where the memory argument goes. */
const STACK = 0x1000;
const PACKET = 0x10000;
/** Instructions that a program may execute: minutes in the interpreter. */
const BUDGET = 2 ** 30;
const PAGE = 0x10000;

const USAGE =
  'usage: netvsc-bpf-plugin [<memory in hex>] [--jit | --interpret] [--elf]   (program, or ELF object, in hex on stdin)';

interface PluginArguments {
  readonly memory: string;
  readonly interpret: boolean;
  readonly elf: boolean;
}

function parse(args: readonly string[]): PluginArguments {
  let memory: string | undefined;
  let interpret = false;
  let elf = false;
  for (const arg of args) {
    if (arg === '--interpret') interpret = true;
    else if (arg === '--jit') interpret = false;
    else if (arg === '--elf') elf = true;
    else if (arg.startsWith('-')) throw new Error(`option '${arg}' is not known; ${USAGE}`);
    else if (memory === undefined) memory = arg;
    else throw new Error(`expected one memory argument, got '${arg}' too; ${USAGE}`);
  }
  return { memory: memory ?? '', interpret, elf };
}

/** Bytes of two hex digits each, in words between any white space. */
export function parseHex(text: string, what: string): Uint8Array {
  const words = text.split(/\s+/).filter((word) => word !== '');
  for (const word of words) {
    if (!/^([0-9a-f]{2})+$/i.test(word)) throw new Error(`${what}: expected bytes in hex, got '${word.slice(0, 20)}'`);
  }
  return new Uint8Array(Buffer.from(words.join(''), 'hex'));
}

/** What to run: instructions, and memory that comes with them. */
type Loaded = Pick<LoadedProgram, 'insns' | 'regions' | 'contents' | 'end'> & Partial<LoadedProgram>;

async function load(bytes: Uint8Array, elf: boolean, end: number): Promise<Loaded> {
  if (!elf) return { insns: decodeProgram(bytes), regions: [], contents: [], end };
  const { loadPluginObject } = await import('./object.js');
  return loadPluginObject(bytes, (end + 64) & ~63);
}

/** What a run printed: r0 in hex, or an error. */
export type PluginResult = { readonly output: string } | { readonly error: string };

/** Runs the plugin: `input` is called for what is on stdin. Never throws for what the caller gave. */
export async function runPlugin(args: readonly string[], input: () => string): Promise<PluginResult> {
  try {
    const { memory: hex, interpret, elf } = parse(args);
    const packet = parseHex(hex, 'memory');
    const end = PACKET + packet.length;
    const { insns, contents, immediate, ...loaded } = await load(
      parseHex(input(), elf ? 'object' : 'program'),
      elf,
      end,
    );
    const program = checkProgram(insns, { rules: 'rfc', callx: true });
    const memory = new WebAssembly.Memory({ initial: 1 + Math.ceil(loaded.end / PAGE) });
    const bytes = new Uint8Array(memory.buffer);
    bytes.set(packet, PACKET);
    contents.forEach((content, index) => {
      bytes.set(content, loaded.regions[index]!.start);
    });
    const regions: Region[] = [stackRegion(STACK), ...loaded.regions];
    if (packet.length > 0) regions.push({ name: 'memory', start: PACKET, end, writable: true });
    const machine: Machine = {
      ...{ buffer: memory.buffer, regions, stack: STACK, budget: BUDGET },
      helpers: conformanceHelpers(bytes, regions),
      ...(immediate === undefined ? {} : { immediate }),
    };
    const runner = interpret ? new Interpreter(program, machine) : new CompiledProgram(program, machine, memory);
    const { r0, fault } = runner.run(BigInt(packet.length > 0 ? PACKET : 0), BigInt(packet.length));
    return fault === undefined ? { output: r0.toString(16) } : { error: fault.text };
  } catch (error) {
    return { error: (error as Error).message };
  }
}
