// Memory that stays where it is: huge pages, or pages locked into memory, and their physical addresses.
import { closeSync, ftruncateSync, openSync, readSync } from 'node:fs';
import { check, declare } from './libc.js';
import { pageBytes } from './mman.js';

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const MFD_HUGETLB = 4;
const MFD_HUGE_2MB = 21 << 26;
/** Bits of an entry of /proc/<pid>/pagemap. */
const PRESENT = 1n << 63n;
const PFN = (1n << 55n) - 1n;

export const HUGE_PAGE_BYTES = 2 << 20;

const memfdCreate = declare('int memfd_create(const char *name, uint flags)');
const mlockCall = declare('int mlock(uint64 address, uint64 bytes)');

/** A memfd of huge pages of 2 MiB; whether there are enough of them shows when it is mapped (ENOMEM). Throws OsError. */
export function createHugeMemory(name: string, bytes: number, seals: 'none' | 'sealable' = 'none'): number {
  const flags = MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB | (seals === 'sealable' ? MFD_ALLOW_SEALING : 0);
  const fd = check(memfdCreate(name, flags), 'memfd_create(MFD_HUGETLB)', name);
  try {
    ftruncateSync(fd, bytes);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return fd;
}

/** Brings pages into memory and keeps them there until they are unmapped. Throws OsError (ENOMEM, EPERM: RLIMIT_MEMLOCK). */
export function lockMemory(address: number, bytes: number): void {
  check(mlockCall(address, bytes), 'mlock', `of ${bytes} bytes (ulimit -l)`);
}

/**
 * Physical page numbers, in pages of this system, of this process's pages from a virtual address on; -1n for a page that
 * is not in memory, 0n for one whose number the kernel hides (it wants CAP_SYS_ADMIN).
 */
export function physicalPages(address: number, count: number): bigint[] {
  let fd: number;
  try {
    fd = openSync('/proc/self/pagemap', 'r');
  } catch {
    return Array(count).fill(0n); // processes that gave rights up may not even open it
  }
  try {
    const bytes = Buffer.alloc(count * 8);
    const length = readSync(fd, bytes, 0, bytes.length, (address / pageBytes) * 8);
    return Array.from({ length: count }, (_, i) => {
      const entry = i * 8 + 8 <= length ? bytes.readBigUInt64LE(i * 8) : 0n;
      return (entry & PRESENT) === 0n ? -1n : entry & PFN;
    });
  } finally {
    closeSync(fd);
  }
}
