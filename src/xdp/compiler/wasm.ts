// As much of WebAssembly's binary format as compiled programs need (WebAssembly core specification, section 5; the
// threads proposal for atomics).

export const TYPE = { I32: 0x7f, I64: 0x7e, NONE: 0x40 } as const;

export const OP = {
  UNREACHABLE: 0x00,
  BLOCK: 0x02,
  LOOP: 0x03,
  IF: 0x04,
  ELSE: 0x05,
  END: 0x0b,
  BR: 0x0c,
  BR_IF: 0x0d,
  BR_TABLE: 0x0e,
  CALL: 0x10,
  DROP: 0x1a,
  SELECT: 0x1b,
  LOCAL_GET: 0x20,
  LOCAL_SET: 0x21,
  LOCAL_TEE: 0x22,
  GLOBAL_GET: 0x23,
  GLOBAL_SET: 0x24,
  I32_LOAD: 0x28,
  I64_LOAD: 0x29,
  I64_LOAD8_S: 0x30,
  I64_LOAD8_U: 0x31,
  I64_LOAD16_S: 0x32,
  I64_LOAD16_U: 0x33,
  I64_LOAD32_S: 0x34,
  I64_LOAD32_U: 0x35,
  I64_STORE: 0x37,
  I64_STORE8: 0x3c,
  I64_STORE16: 0x3d,
  I64_STORE32: 0x3e,
  I32_CONST: 0x41,
  I64_CONST: 0x42,
  I32_EQZ: 0x45,
  I32_EQ: 0x46,
  I32_NE: 0x47,
  I32_LT_S: 0x48,
  I32_LT_U: 0x49,
  I32_GT_S: 0x4a,
  I32_GT_U: 0x4b,
  I32_LE_S: 0x4c,
  I32_LE_U: 0x4d,
  I32_GE_S: 0x4e,
  I32_GE_U: 0x4f,
  I64_EQZ: 0x50,
  I64_EQ: 0x51,
  I64_NE: 0x52,
  I64_LT_S: 0x53,
  I64_LT_U: 0x54,
  I64_GT_S: 0x55,
  I64_GT_U: 0x56,
  I64_LE_S: 0x57,
  I64_LE_U: 0x58,
  I64_GE_S: 0x59,
  I64_GE_U: 0x5a,
  I32_ADD: 0x6a,
  I32_SUB: 0x6b,
  I32_MUL: 0x6c,
  I32_DIV_S: 0x6d,
  I32_DIV_U: 0x6e,
  I32_REM_S: 0x6f,
  I32_REM_U: 0x70,
  I32_AND: 0x71,
  I32_OR: 0x72,
  I32_XOR: 0x73,
  I32_SHL: 0x74,
  I32_SHR_S: 0x75,
  I32_SHR_U: 0x76,
  I32_ROTL: 0x77,
  I64_ADD: 0x7c,
  I64_SUB: 0x7d,
  I64_MUL: 0x7e,
  I64_DIV_S: 0x7f,
  I64_DIV_U: 0x80,
  I64_REM_S: 0x81,
  I64_REM_U: 0x82,
  I64_AND: 0x83,
  I64_OR: 0x84,
  I64_XOR: 0x85,
  I64_SHL: 0x86,
  I64_SHR_S: 0x87,
  I64_SHR_U: 0x88,
  I64_ROTL: 0x89,
  I32_WRAP: 0xa7,
  I64_EXTEND_I32_S: 0xac,
  I64_EXTEND_I32_U: 0xad,
  I32_EXTEND8_S: 0xc0,
  I32_EXTEND16_S: 0xc1,
  I64_EXTEND8_S: 0xc2,
  I64_EXTEND16_S: 0xc3,
  I64_EXTEND32_S: 0xc4,
  ATOMIC: 0xfe,
} as const;

/** Second byte behind OP.ATOMIC, for i32; the form for i64 is the next number. */
export const ATOMIC_RMW = { ADD: 0x1e, SUB: 0x25, AND: 0x2c, OR: 0x33, XOR: 0x3a, XCHG: 0x41, CMPXCHG: 0x48 } as const;

/** Bytes that grow. */
export class Bytes {
  #bytes = new Uint8Array(1024);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** What was written, good until the next write. */
  view(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  byte(value: number): this {
    if (this.#length === this.#bytes.length) this.#grow(1);
    this.#bytes[this.#length++] = value;
    return this;
  }

  bytes(values: ArrayLike<number>): this {
    if (this.#length + values.length > this.#bytes.length) this.#grow(values.length);
    this.#bytes.set(values, this.#length);
    this.#length += values.length;
    return this;
  }

  #grow(more: number): void {
    const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + more));
    larger.set(this.view());
    this.#bytes = larger;
  }

  /** Without sign, up to 2^32 - 1. */
  unsigned(value: number): this {
    while (value > 0x7f) {
      this.byte((value & 0x7f) | 0x80);
      value >>>= 7;
    }
    return this.byte(value);
  }

  /** With sign, 32 bits. */
  signed(value: number): this {
    for (;;) {
      const low = value & 0x7f;
      value >>= 7;
      if ((value === 0 && (low & 0x40) === 0) || (value === -1 && (low & 0x40) !== 0)) return this.byte(low);
      this.byte(low | 0x80);
    }
  }

  /** With sign, 64 bits. */
  signed64(value: bigint): this {
    if (value >= -0x8000_0000n && value < 0x8000_0000n) return this.signed(Number(value));
    for (value = BigInt.asIntN(64, value); ; ) {
      const low = Number(value & 0x7fn);
      value >>= 7n;
      if ((value === 0n && (low & 0x40) === 0) || (value === -1n && (low & 0x40) !== 0)) return this.byte(low);
      this.byte(low | 0x80);
    }
  }

  name(text: string): this {
    const encoded = new TextEncoder().encode(text);
    return this.unsigned(encoded.length).bytes(encoded);
  }
}

export interface FunctionType {
  readonly params: readonly number[];
  readonly results: readonly number[];
}

interface Limits {
  /** Pages of 64 KiB. */
  readonly initial: number;
  /** Undefined: as many as there may be, for a memory that is not shared. */
  readonly maximum: number | undefined;
  readonly shared: boolean;
}

/** A module under construction. Functions are numbered imports first. */
export class ModuleBuilder {
  readonly #types: FunctionType[] = [];
  readonly #typeIndex = new Map<string, number>();
  readonly #imports: { name: string; type: number }[] = [];
  readonly #functions: { type: number; body: Bytes }[] = [];
  readonly #globals: { type: number; name: string }[] = [];
  readonly #exports: { name: string; index: number }[] = [];
  readonly #memory: Limits;

  /** It imports its memory as env.memory. */
  constructor(memory: Limits) {
    this.#memory = memory;
  }

  #type(type: FunctionType): number {
    const key = `${type.params}>${type.results}`;
    let index = this.#typeIndex.get(key);
    if (index === undefined) {
      index = this.#types.push(type) - 1;
      this.#typeIndex.set(key, index);
    }
    return index;
  }

  /** Imports env.`name`; all imports come before functions. */
  importFunction(name: string, type: FunctionType): number {
    return this.#imports.push({ name, type: this.#type(type) }) - 1;
  }

  /** Adds a function; its body holds locals and code up to the last END. */
  addFunction(type: FunctionType, body: Bytes): number {
    return this.#imports.length + this.#functions.push({ type: this.#type(type), body }) - 1;
  }

  /** A mutable global that starts as 0, exported by its name. */
  addGlobal(name: string, type: number): number {
    return this.#globals.push({ type, name }) - 1;
  }

  exportFunction(name: string, index: number): void {
    this.#exports.push({ name, index });
  }

  build(): Uint8Array<ArrayBuffer> {
    const out = new Bytes().bytes([0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);
    const section = (id: number, count: number, write: (bytes: Bytes) => void): void => {
      if (count === 0) return;
      const bytes = new Bytes().unsigned(count);
      write(bytes);
      out.byte(id).unsigned(bytes.length).bytes(bytes.view());
    };
    section(1, this.#types.length, (bytes) => {
      for (const { params, results } of this.#types) {
        bytes.byte(0x60).unsigned(params.length).bytes(params).unsigned(results.length).bytes(results);
      }
    });
    section(2, this.#imports.length + 1, (bytes) => {
      for (const { name, type } of this.#imports) bytes.name('env').name(name).byte(0).unsigned(type);
      const { initial, maximum, shared } = this.#memory;
      bytes.name('env').name('memory').byte(2);
      bytes.byte((maximum === undefined ? 0 : 1) | (shared ? 2 : 0)).unsigned(initial);
      if (maximum !== undefined) bytes.unsigned(maximum);
    });
    section(3, this.#functions.length, (bytes) => {
      for (const { type } of this.#functions) bytes.unsigned(type);
    });
    section(6, this.#globals.length, (bytes) => {
      for (const { type } of this.#globals) {
        bytes
          .byte(type)
          .byte(1)
          .byte(type === TYPE.I32 ? OP.I32_CONST : OP.I64_CONST)
          .byte(0)
          .byte(OP.END);
      }
    });
    section(7, this.#exports.length + this.#globals.length, (bytes) => {
      for (const { name, index } of this.#exports) bytes.name(name).byte(0).unsigned(index);
      this.#globals.forEach(({ name }, index) => {
        bytes.name(name).byte(3).unsigned(index);
      });
    });
    section(10, this.#functions.length, (bytes) => {
      for (const { body } of this.#functions) bytes.unsigned(body.length).bytes(body.view());
    });
    return new Uint8Array(out.view());
  }
}
