// Another process: a handle that the reuse of its number cannot fool, and bytes of its memory.
import { check, declare, ERRNO, OsError, orError, scratch, scratchView } from './libc.js';

const SOL_SOCKET = 1;
const SO_PEERPIDFD = 77;
/** System calls that have one number on all machines. */
const PIDFD_SEND_SIGNAL = 424;
const PIDFD_OPEN = 434;

/** struct iovec of this machine: u64 address, u64 bytes. As many as one call takes. */
export const VECTOR_BYTES = 16;
export const VECTORS_MAX = 1024;

const getsockopt = declare('int getsockopt(int fd, int level, int name, uint64 value, uint64 bytes)');
const syscall = declare('int64 syscall(int64 number, int64 a, int64 b, int64 c, int64 d)');
const readvCall = declare(
  'int64 process_vm_readv(int pid, uint64 to, uint64 toCount, uint64 from, uint64 fromCount, uint64 flags)',
);

/** A descriptor of the process (pidfd), which the caller closes. Throws OsError (ESRCH, EINVAL for 0, ENOSYS before Linux 5.3). */
export function openProcess(pid: number): number {
  return check(syscall(PIDFD_OPEN, pid, 0, 0, 0), 'pidfd_open', `of process ${pid}`);
}

/**
 * The same for the process that connected the other end of a Unix socket. Before Linux 6.5 it is found by its number, which
 * may be another's by now: of a user who could have had that process connect as well.
 */
export function openPeerProcess(socket: number, pid: number): number {
  scratchView.setUint32(16, 4, true);
  const result = orError(getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, scratch.address, scratch.address + 16));
  if (result >= 0) return scratchView.getInt32(0, true);
  if (result === -ERRNO.ENOPROTOOPT!) return openProcess(pid);
  throw new OsError('getsockopt(SO_PEERPIDFD)', -result, `of descriptor ${socket}`);
}

/** False once the process of a pidfd is gone and its number may be another's. */
export function processExists(handle: number): boolean {
  return orError(syscall(PIDFD_SEND_SIGNAL, handle, 0, 0, 0)) !== -ERRNO.ESRCH!;
}

/**
 * Copies bytes of a process: `count` vectors at the virtual address `vectors`, back to back to the virtual address `to`, which
 * has room for `bytes`. Returns how many came, up to the first page that is not there, or a negative error number: EFAULT when
 * not one did, ESRCH, EPERM. Waits while the other process waits for a page itself (swap, network file systems, userfaultfd).
 */
export function readProcess(pid: number, vectors: number, count: number, to: number, bytes: number): number {
  scratchView.setUint32(0, to >>> 0, true);
  scratchView.setUint32(4, to / 2 ** 32, true);
  scratchView.setUint32(8, bytes, true);
  scratchView.setUint32(12, 0, true);
  return orError(readvCall(pid, scratch.address, 1, vectors, count, 0));
}
