// The reference: runs instructions one by one, every access looked up in the machine's regions. About 100 times slower than
// compiled programs (facts/ebpf-xdp.md 7), and meant to be read beside the RFC.
import type { CheckedProgram } from '../isa/check.js';
import { immediate64 } from '../isa/code.js';
import { budgetCosts } from '../isa/flow.js';
import {
  checkLinks,
  checkMachine,
  FAULT,
  faultOf,
  faultWord,
  HelperFault,
  type Machine,
  type Outcome,
  regionAt,
  Unwind,
} from '../isa/machine.js';
import {
  ATOMIC,
  bytesOf,
  CLASS,
  CODE,
  callxRegister,
  classOf,
  FRAME_BYTES,
  FRAME_POINTER,
  jumpTarget,
  MAX_FRAMES,
  MODE,
  modeOf,
  REGISTERS,
  STACK_BYTES,
} from '../isa/opcodes.js';
import { CALL, IMM64, type Insn } from '../isa/program.js';
import { compute, isTaken } from './arithmetic.js';

/** Ends a run: code of FAULT. */
class Stop extends Error {
  readonly code: number;
  constructor(code: number) {
    super();
    this.code = code;
  }
}

interface Frame {
  /** Where to go on. */
  readonly slot: number;
  /** r0 to r10 of the caller. */
  readonly registers: readonly bigint[];
}

/** A checked program with a machine. run() may be called again and again. */
export class Interpreter {
  readonly #insns: readonly Insn[];
  readonly #costs: Int32Array;
  readonly #machine: Machine;
  readonly #view: DataView;
  #registers: bigint[] = [];
  #frames: Frame[] = [];
  #budget = 0;

  /** Throws LinkError where the program refers to helpers or immediates that the machine has not. */
  constructor(program: CheckedProgram, machine: Machine) {
    checkMachine(machine);
    checkLinks(program, machine);
    this.#insns = program.insns;
    this.#costs = budgetCosts(program);
    this.#machine = machine;
    this.#view = new DataView(machine.buffer);
  }

  /** Runs from the entry with r1 and r2. */
  run(r1: bigint, r2 = 0n): Outcome {
    const { stack, budget } = this.#machine;
    this.#registers = new Array<bigint>(REGISTERS).fill(0n);
    this.#registers[1] = BigInt.asUintN(64, r1);
    this.#registers[2] = BigInt.asUintN(64, r2);
    this.#registers[FRAME_POINTER] = BigInt(stack + STACK_BYTES);
    this.#frames = [];
    this.#budget = budget;
    for (let slot = 0; slot >= 0; ) {
      try {
        slot = this.#step(slot);
      } catch (error) {
        if (error instanceof Unwind) return { r0: BigInt.asUintN(64, error.r0), fault: undefined };
        if (!(error instanceof Stop) && !(error instanceof HelperFault)) throw error;
        return { r0: 0n, fault: faultOf(faultWord(error.code, slot)) };
      }
    }
    return { r0: this.#registers[0]!, fault: undefined };
  }

  /** Executes one instruction: the next slot, -1 after the entry's exit. */
  #step(slot: number): number {
    const insn = this.#insns[slot]!;
    const registers = this.#registers;
    switch (classOf(insn.code)) {
      case CLASS.ALU:
      case CLASS.ALU64:
        registers[insn.dst] = compute(insn, registers[insn.dst]!, registers[insn.src]!);
        return slot + 1;
      case CLASS.LD: {
        const value = insn.src === IMM64.VALUE ? undefined : this.#machine.immediate!(slot);
        registers[insn.dst] = BigInt.asUintN(64, value ?? immediate64(insn, this.#insns[slot + 1]!));
        return slot + 2;
      }
      case CLASS.LDX: {
        const bytes = bytesOf(insn.code);
        const value = this.#load(this.#address(registers[insn.src]!, insn, bytes, false), bytes);
        const signs = modeOf(insn.code) === MODE.MEMSX;
        registers[insn.dst] = signs ? BigInt.asUintN(64, BigInt.asIntN(bytes * 8, value)) : value;
        return slot + 1;
      }
      case CLASS.ST:
      case CLASS.STX: {
        if (modeOf(insn.code) === MODE.ATOMIC) this.#atomic(insn);
        else {
          const bytes = bytesOf(insn.code);
          const value = classOf(insn.code) === CLASS.ST ? BigInt(insn.imm) : registers[insn.src]!;
          this.#store(this.#address(registers[insn.dst]!, insn, bytes, true), bytes, value);
        }
        return slot + 1;
      }
      default:
        return this.#jump(slot, insn);
    }
  }

  #jump(slot: number, insn: Insn): number {
    const registers = this.#registers;
    if (insn.code === CODE.EXIT) return this.#return();
    if (insn.code === CODE.CALL && insn.src === CALL.LOCAL) return this.#call(slot, slot + 1 + insn.imm);
    if (insn.code === CODE.CALL || insn.code === CODE.CALLX) {
      // The id is 32 bits: of a register its low half, as an immediate would be.
      const id = insn.code === CODE.CALL ? insn.imm : Number(BigInt.asIntN(32, registers[callxRegister(insn)]!));
      const helper = this.#machine.helpers.get(id);
      if (helper === undefined) throw new Stop(FAULT.HELPER);
      const [, r1, r2, r3, r4, r5] = registers as [bigint, bigint, bigint, bigint, bigint, bigint];
      registers[0] = BigInt.asUintN(64, helper(r1, r2, r3, r4, r5));
      return slot + 1;
    }
    if (!isTaken(insn, registers[insn.dst]!, registers[insn.src]!)) return slot + 1;
    this.#spend(slot);
    return jumpTarget(slot, insn);
  }

  #spend(slot: number): void {
    this.#budget -= this.#costs[slot]!;
    if (this.#budget < 0) throw new Stop(FAULT.BUDGET);
  }

  /** The callee has r1 to r5, a frame of its own below, and zeros. */
  #call(slot: number, target: number): number {
    if (this.#frames.length + 1 >= MAX_FRAMES) throw new Stop(FAULT.FRAMES);
    this.#spend(slot);
    const registers = this.#registers;
    this.#frames.push({ slot: slot + 1, registers: [...registers] });
    registers[0] = 0n;
    registers.fill(0n, 6, FRAME_POINTER);
    registers[FRAME_POINTER]! -= BigInt(FRAME_BYTES);
    return target;
  }

  /** The caller has all its registers again, r1 to r5 too (which no verifier lets it read), but r0. */
  #return(): number {
    const frame = this.#frames.pop();
    if (frame === undefined) return -1;
    const r0 = this.#registers[0]!;
    this.#registers = [...frame.registers];
    this.#registers[0] = r0;
    return frame.slot;
  }

  #atomic(insn: Insn): void {
    const registers = this.#registers;
    const bytes = bytesOf(insn.code);
    const address = this.#address(registers[insn.dst]!, insn, bytes, true);
    if (address % bytes !== 0) throw new Stop(FAULT.ALIGNMENT);
    const old = this.#load(address, bytes);
    const src = BigInt.asUintN(bytes * 8, registers[insn.src]!);
    if (insn.imm === ATOMIC.CMPXCHG) {
      if (old === BigInt.asUintN(bytes * 8, registers[0]!)) this.#store(address, bytes, src);
      registers[0] = old;
      return;
    }
    this.#store(address, bytes, this.#combined(insn.imm, old, src));
    if ((insn.imm & ATOMIC.FETCH) !== 0) registers[insn.src] = old;
  }

  #combined(operation: number, old: bigint, src: bigint): bigint {
    if (operation === ATOMIC.XCHG) return src;
    switch (operation & ~ATOMIC.FETCH) {
      case ATOMIC.ADD:
        return old + src;
      case ATOMIC.OR:
        return old | src;
      case ATOMIC.AND:
        return old & src;
      default:
        return old ^ src;
    }
  }

  /** The address of an access, checked. */
  #address(base: bigint, insn: Insn, bytes: number, write: boolean): number {
    const address = BigInt.asUintN(64, base + BigInt(insn.off));
    if (regionAt(this.#machine.regions, address, bytes, write) === undefined) throw new Stop(FAULT.ACCESS);
    return Number(address);
  }

  #load(address: number, bytes: number): bigint {
    if (bytes === 8) return this.#view.getBigUint64(address, true);
    if (bytes === 4) return BigInt(this.#view.getUint32(address, true));
    return BigInt(bytes === 2 ? this.#view.getUint16(address, true) : this.#view.getUint8(address));
  }

  #store(address: number, bytes: number, value: bigint): void {
    const view = this.#view;
    if (bytes === 8) view.setBigUint64(address, BigInt.asUintN(64, value), true);
    else if (bytes === 4) view.setUint32(address, Number(BigInt.asUintN(32, value)), true);
    else if (bytes === 2) view.setUint16(address, Number(BigInt.asUintN(16, value)), true);
    else view.setUint8(address, Number(BigInt.asUintN(8, value)));
  }
}
