// Memory mappings, and the system that an arena maps files with.
import { fstatSync } from 'node:fs';
import { ArenaError, type ArenaSystem } from '../arena.js';
import { addressOf, check, declare, viewOf } from './libc.js';

export const PROTECTION = { NONE: 0, READ: 1, WRITE: 2 } as const;
export const MAPPING = {
  SHARED: 0x01,
  PRIVATE: 0x02,
  FIXED: 0x10,
  ANONYMOUS: 0x20,
  NO_RESERVE: 0x4000,
  POPULATE: 0x8000,
} as const;
const MADV_DONTNEED = 4;
const SC_PAGESIZE = 30;

const mmapCall = declare('int64 mmap(uint64 address, uint64 bytes, int protection, int flags, int fd, int64 offset)');
const munmapCall = declare('int munmap(uint64 address, uint64 bytes)');
const madviseCall = declare('int madvise(uint64 address, uint64 bytes, int advice)');
const sysconf = declare('int64 sysconf(int name)');

/** Bytes of a page. */
export const pageBytes = sysconf(SC_PAGESIZE);

/** mmap(2); returns the virtual address. Throws OsError. */
export function mmap(
  address: number,
  bytes: number,
  protection: number,
  flags: number,
  fd: number,
  fileOffset: number,
): number {
  const about = `of ${bytes} bytes at offset ${fileOffset} of descriptor ${fd}`;
  return check(mmapCall(address, bytes, protection, flags, fd, fileOffset), 'mmap', about);
}

/** munmap(2). Throws OsError. */
export function munmap(address: number, bytes: number): void {
  check(munmapCall(address, bytes), 'munmap', `of ${bytes} bytes at 0x${address.toString(16)}`);
}

/** What Arena.create() takes on Linux: file mappings, and views with fast copies. */
export const linuxSystem: ArenaSystem = {
  pageBytes,
  alias(memory) {
    const address = addressOf(new Uint8Array(memory));
    return { buffer: viewOf(address, memory.byteLength), address };
  },
  mapFile(address, bytes, fd, fileOffset, readOnly) {
    const status = fstatSync(fd);
    // A device's size says nothing; a page beyond a file's end is SIGBUS.
    if (status.isFile() && status.size < fileOffset + bytes) {
      throw new ArenaError(
        `file mapping: expected ${bytes} bytes from offset ${fileOffset}, the file has ${status.size}`,
      );
    }
    const protection = readOnly ? PROTECTION.READ : PROTECTION.READ | PROTECTION.WRITE;
    mmap(address, bytes, protection, MAPPING.SHARED | MAPPING.FIXED, fd, fileOffset);
  },
  mapZero(address, bytes) {
    const flags = MAPPING.PRIVATE | MAPPING.ANONYMOUS | MAPPING.FIXED | MAPPING.NO_RESERVE;
    mmap(address, bytes, PROTECTION.READ | PROTECTION.WRITE, flags, -1, 0);
  },
  discard(address, bytes) {
    if (bytes > 0) check(madviseCall(address, bytes, MADV_DONTNEED), 'madvise', `of ${bytes} bytes`);
  },
};
