// One shared WebAssembly.Memory and the map of who uses which part of it: rings, buffers, pools and structures of a
// worker, so that compiled loops and TypeScript work on the same bytes. Runs anywhere; with `system` (os/system.ts) it
// can also map files over its pages, and its views are not shared ArrayBuffers, on which copies are up to seven times
// faster (facts/performance.md 6, pitfall 1).

/** What an arena needs of the operating system. Addresses are virtual, in bytes. */
export interface ArenaSystem {
  readonly pageBytes: number;
  /** A non-shared ArrayBuffer over the same bytes, and their virtual address. */
  alias(memory: ArrayBufferLike): { buffer: ArrayBuffer; address: bigint };
  /** Maps a file's pages, shared, over [address, address + bytes). Throws when the file is shorter than that. */
  mapFile(address: number, bytes: number, fd: number, fileOffset: number, readOnly: boolean): void;
  /** Puts zeroed private pages there instead, and gives the old ones back. */
  mapZero(address: number, bytes: number): void;
  /** Zeroes private pages by giving them back. */
  discard(address: number, bytes: number): void;
}

/** A part of an arena that is in use. `address` and `bytes` in bytes, from the arena's start. */
export interface ArenaRegion {
  readonly name: string;
  readonly address: number;
  readonly bytes: number;
  /** Where the bytes are: the arena's own, or a file's. */
  readonly kind: 'private' | 'file' | 'read-only file';
}

export interface ArenaOptions {
  /** Size, rounded up to 64 KiB; at most 4 GiB. Fixed for good. */
  readonly bytes: number;
  readonly system?: ArenaSystem;
}

/** No room, or a wrong address or size. */
export class ArenaError extends Error {
  override readonly name = 'ArenaError';
}

/** Bytes at the start that belong to the compiled module's static data. Address 0 is thus never handed out. */
export const STATIC_BYTES = 1 << 20;
const WASM_PAGE = 65_536;
const BYTES_MAX = 2 ** 32;
/** A cache line: two regions never share one. */
const GRAIN = 64;
/** From here on, giving pages back is cheaper than filling them with zeros. */
const DISCARD_BYTES = 65_536;

interface Used {
  name: string;
  bytes: number;
  /** Bytes taken from the free list, from the address on. */
  room: number;
  kind: ArenaRegion['kind'];
}

const up = (value: number, to: number) => Math.ceil(value / to) * to;

export class Arena {
  readonly memory: WebAssembly.Memory;
  readonly bytes: number;
  /** What all views are over: every byte of the arena. Keep them no longer than the arena. */
  readonly buffer: ArrayBufferLike;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;
  readonly u32: Uint32Array;
  readonly u64: BigUint64Array;
  readonly #system: ArenaSystem | undefined;
  readonly #base: bigint;
  readonly #used = new Map<number, Used>();
  /** Free parts by ascending address, never two that touch. */
  readonly #free: { address: number; bytes: number }[] = [];
  readonly #owner: boolean;
  /** From here on nothing was ever handed out, so all is zero. */
  #touched = STATIC_BYTES;

  private constructor(memory: WebAssembly.Memory, system: ArenaSystem | undefined, owner: boolean) {
    this.memory = memory;
    this.#system = system;
    this.#owner = owner;
    const alias = system?.alias(memory.buffer);
    this.buffer = alias?.buffer ?? memory.buffer;
    // The alias does not keep the memory alive, but who holds a view holds the alias.
    if (alias) Object.defineProperty(alias.buffer, 'memory', { value: memory });
    this.#base = alias?.address ?? 0n;
    this.bytes = memory.buffer.byteLength;
    this.u8 = new Uint8Array(this.buffer);
    this.u16 = new Uint16Array(this.buffer);
    this.i32 = new Int32Array(this.buffer);
    this.u32 = new Uint32Array(this.buffer);
    this.u64 = new BigUint64Array(this.buffer);
    if (owner) this.#free.push({ address: STATIC_BYTES, bytes: this.bytes - STATIC_BYTES });
  }

  /** A new arena. Throws ArenaError when the size is out of bounds. */
  static create(options: ArenaOptions): Arena {
    const bytes = up(options.bytes, WASM_PAGE);
    if (!(bytes > STATIC_BYTES && bytes <= BYTES_MAX)) {
      throw new ArenaError(`arena of ${options.bytes} bytes: expected more than ${STATIC_BYTES}, at most ${BYTES_MAX}`);
    }
    const pages = bytes / WASM_PAGE;
    return new Arena(new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }), options.system, true);
  }

  /** Views of an arena that another thread of this process made. That thread alone reserves and maps. */
  static attach(memory: WebAssembly.Memory, system?: ArenaSystem): Arena {
    return new Arena(memory, system, false);
  }

  /** Virtual address of the arena's first byte. Throws without a system. */
  baseAddress(): bigint {
    if (!this.#system) throw new ArenaError('arena without a system: it has no virtual address');
    return this.#base;
  }

  /** Zeroed bytes for `name`; returns their address. `align`: power of two. Throws ArenaError when there is no room. */
  reserve(name: string, bytes: number, align = GRAIN): number {
    return this.#take(name, bytes, align, bytes, 'private');
  }

  /** Pages of a file (memfd, uio map) as arena memory, shared with all who map it; returns the address. The descriptor
   *  may be closed afterwards. `align`: of the virtual address, a power of two, for huge pages. Storing to a read-only region ends the process. Throws OsError or ArenaError. */
  mapFile(
    name: string,
    fd: number,
    fileOffset: number,
    bytes: number,
    options: { readonly readOnly?: boolean; readonly align?: number } = {},
  ): number {
    const system = this.#system;
    if (!system) throw new ArenaError(`region ${name}: an arena without a system cannot map files`);
    const page = system.pageBytes;
    if (!(Number.isSafeInteger(fileOffset) && fileOffset >= 0 && fileOffset % page === 0)) {
      throw new ArenaError(`region ${name}: expected a file offset in whole pages of ${page} bytes, got ${fileOffset}`);
    }
    const readOnly = options.readOnly === true;
    const kind = readOnly ? 'read-only file' : 'file';
    const align = Math.max(options.align ?? page, page);
    const address = this.#take(name, bytes, align, up(bytes, page), kind, Number(this.#base % BigInt(align)));
    try {
      system.mapFile(Number(this.#base) + address, bytes, fd, fileOffset, readOnly);
    } catch (error) {
      this.release(address);
      throw error;
    }
    return address;
  }

  /** Gives a region back. A mapped file's pages go, and private ones take their place. */
  release(address: number): void {
    const used = this.#used.get(address);
    if (!used) throw new ArenaError(`release of address ${address}: no region starts there`);
    if (used.kind !== 'private') this.#system?.mapZero(Number(this.#base) + address, used.room);
    this.#used.delete(address);
    const free = this.#free;
    let at = 0;
    while (at < free.length && free[at]!.address < address) at++;
    free.splice(at, 0, { address, bytes: used.room });
    this.#mergeAt(at);
    this.#mergeAt(at - 1);
  }

  /** Everything in use, by ascending address: the whole map. */
  regions(): ArenaRegion[] {
    const list: ArenaRegion[] = [
      { name: 'static data of the compiled module', address: 0, bytes: STATIC_BYTES, kind: 'private' },
    ];
    for (const [address, { name, bytes, kind }] of this.#used) list.push({ name, address, bytes, kind });
    return list.sort((a, b) => a.address - b.address);
  }

  /** Bytes that are free, and the largest piece of them. */
  free(): { bytes: number; largest: number } {
    let bytes = 0;
    let largest = 0;
    for (const part of this.#free) {
      bytes += part.bytes;
      largest = Math.max(largest, part.bytes);
    }
    return { bytes, largest };
  }

  /** `base`: the address that is to be aligned is that much more than the arena's own. */
  #take(name: string, bytes: number, align: number, wanted: number, kind: ArenaRegion['kind'], base = 0): number {
    if (!this.#owner) throw new ArenaError(`region ${name}: only the thread that made the arena reserves in it`);
    if (!(Number.isSafeInteger(bytes) && bytes > 0)) {
      throw new ArenaError(`region ${name}: expected a size of at least 1 byte, got ${bytes}`);
    }
    if (!(Number.isSafeInteger(align) && align > 0 && Number.isInteger(Math.log2(align)))) {
      throw new ArenaError(`region ${name}: expected an alignment that is a power of two, got ${align}`);
    }
    const room = up(wanted, GRAIN);
    const free = this.#free;
    for (let at = 0; at < free.length; at++) {
      const part = free[at]!;
      const address = up(part.address + base, Math.max(align, GRAIN)) - base;
      const before = address - part.address;
      const after = part.bytes - before - room;
      if (after < 0) continue;
      const rest = after > 0 ? [{ address: address + room, bytes: after }] : [];
      if (before > 0) rest.unshift({ address: part.address, bytes: before });
      free.splice(at, 1, ...rest);
      if (kind === 'private') this.#zero(address, room);
      this.#touched = Math.max(this.#touched, address + room);
      this.#used.set(address, { name, bytes, room, kind });
      return address;
    }
    const { bytes: total, largest } = this.free();
    throw new ArenaError(
      `region ${name}: no room for ${bytes} bytes aligned to ${align} in an arena of ${this.bytes} bytes ` +
        `(${total} free in ${free.length} parts, the largest ${largest})`,
    );
  }

  #mergeAt(at: number): void {
    const part = this.#free[at];
    const next = this.#free[at + 1];
    if (!part || !next || part.address + part.bytes !== next.address) return;
    part.bytes += next.bytes;
    this.#free.splice(at + 1, 1);
  }

  #zero(address: number, bytes: number): void {
    const end = Math.min(address + bytes, this.#touched);
    if (end <= address) return;
    const system = this.#system;
    if (!system || end - address < DISCARD_BYTES) {
      this.u8.fill(0, address, end);
      return;
    }
    const first = up(address, system.pageBytes);
    const last = end - (end % system.pageBytes);
    this.u8.fill(0, address, first);
    system.discard(Number(this.#base) + first, last - first);
    this.u8.fill(0, last, end);
  }
}
