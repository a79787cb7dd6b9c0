// Whose turn it is: a byte in a named pipe, one pipe for each direction. Whoever waits sleeps, so that host and guest can
// share a core, where neither meets cache lines that another core has written.
import { execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import path from 'node:path';
import { ERRNO, OsError, readTo, scratch, writeFrom } from '../../src/memory/os/libc.js';

/** The pipe in which a guest waits, and the one in which the host waits for it. */
export const batonPaths = (folder: string, guest: string) => ({
  toGuest: path.join(folder, `${guest}-to-guest`),
  toHost: path.join(folder, `${guest}-to-host`),
});

/** Makes both pipes. */
export function makeBaton(folder: string, guest: string): void {
  execFileSync('mkfifo', Object.values(batonPaths(folder, guest)));
}

export class Baton {
  readonly #from: number;
  readonly #to: number;

  constructor(folder: string, guest: string, side: 'host' | 'guest') {
    const { toGuest, toHost } = batonPaths(folder, guest);
    const [from, to] = side === 'host' ? [toHost, toGuest] : [toGuest, toHost];
    this.#from = openSync(from, 'r+'); // both ways, so that opening does not wait
    this.#to = openSync(to, 'r+');
  }

  pass(): void {
    const result = writeFrom(this.#to, scratch.address, 1);
    if (result !== 1) throw new OsError('write', -result, 'of the turn');
  }

  /** Blocks the thread. Who started the process ends it when this takes too long. */
  wait(): void {
    let result: number;
    do result = readTo(this.#from, scratch.address, 1);
    while (result === -ERRNO.EINTR!);
    if (result !== 1) throw new OsError('read', -result, 'of the turn');
  }

  close(): void {
    closeSync(this.#from);
    closeSync(this.#to);
  }
}
