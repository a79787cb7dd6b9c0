// bpf(2): programs of the kernel, to load and to run once on test data.
import {
  allocateOffHeap,
  check,
  declare,
  ERRNO,
  freeOffHeap,
  OsError,
  orError,
  scratch,
  scratchBytes,
  scratchView,
} from './libc.js';

const BPF_CALL: Readonly<Record<string, number>> = { x64: 321, arm64: 280 };
const BPF_PROG_LOAD = 5;
const BPF_PROG_TEST_RUN = 10;
/** union bpf_attr as far as these calls fill it in. */
const ATTRIBUTES_BYTES = 72;
const LOG_BYTES = 65_536;

/** BPF_PROG_TYPE_*. */
export const BPF_TYPE = { SOCKET_FILTER: 1, XDP: 6 } as const;

const syscall = declare('int64 syscall(int64 number, int64 a, uint64 b, uint64 c)');

function callNumber(): number {
  const number = BPF_CALL[process.arch];
  if (number === undefined) throw new OsError('bpf', ERRNO.ENOSYS!, process.arch);
  return number;
}

/** The kernel's verifier refused a program; `log` is what it said, at most 64 KiB. */
export class BpfRefused extends OsError {
  readonly log: string;
  constructor(errno: number, about: string, log: string) {
    super('bpf(BPF_PROG_LOAD)', errno, about);
    this.log = log;
  }
}

/**
 * Descriptor of a program from its instructions, 8 bytes each; the caller closes it. Throws OsError (EPERM without
 * CAP_BPF), BpfRefused.
 */
export function loadBpfProgram(type: number, code: Uint8Array, about: string): number {
  const number = callNumber();
  const memory = allocateOffHeap(code.length + LOG_BYTES);
  try {
    new Uint8Array(memory.buffer).set(code);
    const log = memory.address + code.length;
    scratchBytes.fill(0, 0, ATTRIBUTES_BYTES + 8);
    scratchView.setUint32(0, type, true);
    scratchView.setUint32(4, code.length / 8, true);
    scratchView.setBigUint64(8, BigInt(memory.address), true);
    scratchView.setBigUint64(16, BigInt(scratch.address + ATTRIBUTES_BYTES), true);
    scratchView.setUint32(24, 1, true); // log_level
    scratchView.setUint32(28, LOG_BYTES, true);
    scratchView.setBigUint64(32, BigInt(log), true);
    scratchBytes.set(Buffer.from('MIT\0'), ATTRIBUTES_BYTES);
    const fd = orError(syscall(number, BPF_PROG_LOAD, scratch.address, ATTRIBUTES_BYTES));
    if (fd >= 0) return fd;
    const text = Buffer.from(memory.buffer, code.length).toString('latin1').split('\0')[0]!;
    throw new BpfRefused(-fd, about, text);
  } finally {
    freeOffHeap(memory);
  }
}

/** What a test run gave: the program's return value, the packet as it left it, and nanoseconds a repetition. */
export interface BpfTestRun {
  readonly result: number;
  readonly data: Uint8Array;
  readonly nanoseconds: number;
}

/** Bytes that an XDP program can make of a packet in a test run. */
const DATA_MAX = 65_536;

/** Runs a program of a descriptor on a packet, `repeat` times. Throws OsError (EINVAL: a packet of less than 14 bytes). */
export function testBpfProgram(fd: number, packet: Uint8Array, repeat = 1): BpfTestRun {
  const number = callNumber();
  const memory = allocateOffHeap(packet.length + DATA_MAX);
  try {
    const bytes = new Uint8Array(memory.buffer);
    bytes.set(packet);
    scratchBytes.fill(0, 0, ATTRIBUTES_BYTES);
    scratchView.setUint32(0, fd, true);
    scratchView.setUint32(8, packet.length, true); // data_size_in
    scratchView.setUint32(12, DATA_MAX, true); // data_size_out
    scratchView.setBigUint64(16, BigInt(memory.address), true);
    scratchView.setBigUint64(24, BigInt(memory.address + packet.length), true);
    scratchView.setUint32(32, repeat, true);
    check(syscall(number, BPF_PROG_TEST_RUN, scratch.address, ATTRIBUTES_BYTES), 'bpf(BPF_PROG_TEST_RUN)', `fd ${fd}`);
    const length = scratchView.getUint32(12, true);
    return {
      result: scratchView.getUint32(4, true),
      data: bytes.slice(packet.length, packet.length + length),
      nanoseconds: scratchView.getUint32(36, true),
    };
  } finally {
    freeOffHeap(memory);
  }
}
