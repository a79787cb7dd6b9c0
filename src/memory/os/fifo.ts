// Named pipes as command files: what is written to one waits there until we read it, in order, however many write.
import { closeSync, constants, openSync } from 'node:fs';
import { allocateOffHeap, check, declare, ERRNO, freeOffHeap, OsError, readTo } from './libc.js';

/** What a pipe holds at most by default: one read empties it. */
const PIPE_BYTES = 65_536;

const mkfifoCall = declare('int mkfifo(const char *path, uint mode)');
const chmodCall = declare('int chmod(const char *path, uint mode)');

export class Fifo {
  /** Readable while something waits. */
  readonly fd: number;
  readonly #memory = allocateOffHeap(PIPE_BYTES);

  /** Makes the pipe and holds it open, so that writers neither wait nor fail. Throws OsError (EEXIST). */
  constructor(path: string, mode: number) {
    check(mkfifoCall(path, 0o600), 'mkfifo', path);
    this.fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    check(chmodCall(path, mode), 'chmod', path);
  }

  /** Everything that waits, as Latin-1 text; empty when nothing does. Throws OsError. */
  read(): string {
    const length = readTo(this.fd, this.#memory.address, PIPE_BYTES);
    if (length === -ERRNO.EAGAIN!) return '';
    if (length < 0) throw new OsError('read', -length, `of descriptor ${this.fd}`);
    return Buffer.from(this.#memory.buffer, 0, length).toString('latin1');
  }

  close(): void {
    closeSync(this.fd);
    freeOffHeap(this.#memory);
  }
}
