// Guest memory that cannot be mapped, copied out of the guest's process.
import { closeSync } from 'node:fs';
import type { Arena } from '../../memory/arena.js';
import { ERRNO, errorName, OsError } from '../../memory/os/libc.js';
import { openPeerProcess, processExists, readProcess } from '../../memory/os/process-memory.js';

const NOT_ALLOWED =
  'this host may not read it (EPERM): the guest allows it by prctl(PR_SET_PTRACER), as netvsc run does for it, or ' +
  'kernel.yama.ptrace_scope is to be 0, or the host needs CAP_SYS_PTRACE';

export class GuestReader {
  readonly #arena: Arena;
  readonly #pid: number;
  /** pidfd of the peer while it has the channel open; -1 = not to be had, see #failure. */
  #handle = -1;
  #failure = '';

  /** For the process that connected `socket`. */
  constructor(arena: Arena, socket: number, pid: number) {
    this.#arena = arena;
    this.#pid = pid;
    if (pid === 0) {
      this.#failure = 'it is in another PID namespace';
      return;
    }
    try {
      this.#handle = openPeerProcess(socket, pid);
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      this.#failure = `it cannot be found (${error.message})`;
    }
  }

  /** True when the peer is known to be gone: its number may be another's. */
  get gone(): boolean {
    return this.#handle >= 0 && !processExists(this.#handle);
  }

  /** As VmbusOffer.copyGuest(), but a text in place of -1. */
  read(vectors: number, count: number, to: number, bytes: number): number | string {
    if (this.#handle < 0) return this.#refuse(this.#failure);
    const base = Number(this.#arena.baseAddress());
    const result = readProcess(this.#pid, base + vectors, count, base + to, bytes);
    // What came is the peer's only if its number still was its own by then.
    if (result === -ERRNO.ESRCH! || !processExists(this.#handle)) return this.#refuse('it is gone');
    if (result >= 0) return result;
    if (result === -ERRNO.EFAULT!) return 0;
    return this.#refuse(result === -ERRNO.EPERM! ? NOT_ALLOWED : `it cannot be read (${errorName(-result)})`);
  }

  close(): void {
    if (this.#handle >= 0) closeSync(this.#handle);
    this.#handle = -1;
    this.#failure = 'it has closed the channel';
  }

  #refuse(reason: string): string {
    return `memory of process ${this.#pid}: ${reason}`;
  }
}
