// The C library through koffi. Only files of this folder import koffi; every thread loads it for itself. Pointers are
// plain numbers: user addresses stay below 2^53. What an address points to must be kept alive by its owner
// (facts/performance.md 6, pitfall 2).
import { constants as osConstants } from 'node:os';
import koffi from 'koffi';
import { IOV_MAX } from '../layout-sockets.js';

// By no name: the functions that the process itself calls, thus those of a preloaded library before the C library's
// (apps/run/). Looked up once each, at the declaration.
const library = koffi.load(null);

/** Errors that os.constants does not list. */
const MORE_ERRORS = { EBADFD: 77, ENOTUNIQ: 76, EUCLEAN: 117 } as const;

/** Error numbers by name. */
export const ERRNO: Readonly<Record<string, number>> = { ...osConstants.errno, ...MORE_ERRORS };
const names = new Map(Object.entries(ERRNO).map(([name, number]) => [number, name]));
names.set(ERRNO.EAGAIN!, 'EAGAIN'); // also EWOULDBLOCK

/** Name of an error number: 2 is ENOENT. */
export const errorName = (errno: number): string => names.get(errno) ?? `errno ${errno}`;

/** A system call that failed; `code` is the error's name, the message says what it was about. */
export class OsError extends Error {
  override readonly name = 'OsError';
  readonly syscall: string;
  readonly errno: number;
  readonly code: string;
  constructor(syscall: string, errno: number, about: string) {
    super(`${syscall} ${about}: ${errorName(errno)}`);
    this.syscall = syscall;
    this.errno = errno;
    this.code = errorName(errno);
  }
}

/** A C function that returns -1 on error. */
type Call = (...args: (number | string | null)[]) => number;
export const declare = (definition: string): Call => library.func(definition) as unknown as Call;

/** The same for calls that also take a buffer, by its address for the time of the call. */
export const declareBytes = (definition: string) =>
  library.func(definition) as unknown as (fd: number, bytes: Uint8Array, length: number, more?: number) => number;

/** `result`, or OsError of the error that the call just made left. */
export function check(result: number, syscall: string, about: string): number {
  if (result >= 0) return result;
  throw new OsError(syscall, koffi.errno(), about);
}

/** `result`, or the negative error number. For calls that are made per packet or fail as a matter of course. */
export const orError = (result: number): number => (result < 0 ? -koffi.errno() : result);

const readCall = declare('int64 read(int fd, uint64 address, uint64 bytes)');
const writeCall = declare('int64 write(int fd, uint64 address, uint64 bytes)');

/** read(2) to a virtual address: bytes, or a negative error number. */
export const readTo = (fd: number, address: number, bytes: number): number => orError(readCall(fd, address, bytes));

/** write(2) from a virtual address: bytes, or a negative error number. */
export const writeFrom = (fd: number, address: number, bytes: number): number => orError(writeCall(fd, address, bytes));

const readvCall = library.func('int64 readv(int fd, uint64 vector, int count)') as unknown as VectorCall;
const writevCall = library.func('int64 writev(int fd, uint64 vector, int count)') as unknown as VectorCall;
type VectorCall = (fd: number, vector: bigint, count: number) => number;

/** read(2) and write(2) that allocate nothing: an address above 2^31 as an argument is a new heap number at every call, so
 *  address and length go through memory. One per thread is enough; it is never freed. */
export class PacketCalls {
  readonly #memory = allocateOffHeap(IOV_MAX * 16); // struct iovec
  readonly #vector = BigInt(this.#memory.address);
  readonly #words = new Uint32Array(this.#memory.buffer);

  /** Bytes read to a virtual address, or a negative error number. */
  read(fd: number, address: number, bytes: number): number {
    this.#words[0] = address >>> 0;
    this.#words[1] = address / 4294967296;
    this.#words[2] = bytes;
    return orError(readvCall(fd, this.#vector, 1));
  }

  /** Bytes written from a virtual address, or a negative error number. */
  write(fd: number, address: number, bytes: number): number {
    this.#words[0] = address >>> 0;
    this.#words[1] = address / 4294967296;
    this.#words[2] = bytes;
    return orError(writevCall(fd, this.#vector, 1));
  }

  /** The same of `count` pieces, at most IOV_MAX: their struct iovec as words, from place `at` of `list` on. */
  writePieces(fd: number, list: Uint32Array, at: number, count: number): number {
    for (let i = 0; i < count * 4; i++) this.#words[i] = list[at + i]!;
    return orError(writevCall(fd, this.#vector, count));
  }
}

const ioctlCall = declare('int ioctl(int fd, uint64 request, uint64 argument)');

/** ioctl(2) with a number or virtual address. Throws OsError. */
export const ioctl = (fd: number, request: number, argument: number, name: string, about: string): number =>
  check(ioctlCall(fd, request, argument), name, about);

/** Virtual address of an array's first byte, good only while `array` is reachable and its bytes are off the heap. */
export const addressOf = (array: ArrayBufferView | ArrayBufferLike): bigint => koffi.address(array) as bigint;

/** An ArrayBuffer over memory that somebody else owns and keeps. */
export const viewOf = (address: number | bigint, bytes: number): ArrayBuffer => koffi.view(address, bytes);

/** Memory outside of the JavaScript heap, which never moves. */
export interface OffHeap {
  readonly address: number;
  readonly buffer: ArrayBuffer;
  readonly bytes: number;
}

const calloc = declare('uint64 calloc(uint64 count, uint64 bytes)');
const freeCall = declare('void free(uint64 address)');

/** Zeroed bytes off the heap, until freeOffHeap(). */
export function allocateOffHeap(bytes: number): OffHeap {
  const address = calloc(1, bytes);
  if (address === 0) throw new OsError('calloc', ERRNO.ENOMEM!, `${bytes} bytes`);
  return { address, buffer: viewOf(address, bytes), bytes };
}

/** Nothing may use the memory or a view of it afterwards. */
export const freeOffHeap = (memory: OffHeap): void => {
  freeCall(memory.address);
};

/** 256 bytes of this thread for arguments of calls that return at once. */
export const scratch = allocateOffHeap(256);
export const scratchBytes = new Uint8Array(scratch.buffer);
export const scratchView = new DataView(scratch.buffer);
