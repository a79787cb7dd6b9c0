// A kernel's own tree and /dev/uioN (facts/linux-guest.md 9.2 and 9.3, dpdk.md 1.3 and 1.4): everything in which it differs
// from a machine directory. Here the host is a real one: it reads packets by their physical addresses.
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import type { Arena } from '../../memory/arena.js';
import { createHugeMemory, HUGE_PAGE_BYTES, lockMemory, physicalPages } from '../../memory/os/locked.js';
import { createSealedMemory } from '../../memory/os/memfd.js';
import { pageBytes } from '../../memory/os/mman.js';
import { type GuestMemory, PAGE_BYTES, VmbusError } from '../device.js';
import { parseNumber, readAttribute } from './attributes.js';
import { IRQ_COMMAND } from './interrupts.js';
import type { UioRoot } from './root.js';

/** `dev`: where the uio nodes are; another place for tests. */
export function kernelRoot(dev = '/dev'): UioRoot {
  const open = (uio: string) => openSync(`${dev}/${uio}`, constants.O_RDWR | constants.O_NONBLOCK);
  return {
    // All maps are of the one node; the offset is not a position but says which.
    openMap: (uio, index) => ({ fd: open(uio), offset: index * pageBytes }),
    openRings(channel) {
      const fd = openSync(`${channel}/ring`, constants.O_RDWR);
      return { fd, bytes: fstatSync(fd).size };
    },
    // The first open of a node opens the channel, later ones share it: that of map 0 was the first.
    connect: open,
    // uio_hv_generic has no other way to the host for such a channel.
    monitors: true,
    // Also unmasks the receive ring; its reader masks it again while it polls.
    signalCommand: IRQ_COMMAND.ENABLE,
    sizesReceiveBuffer: false,
    // The kernel did so before the channel was opened; now they are the host's, too.
    zeroesRings: false,
    // The node's count goes on from one opening to the next.
    eventsBefore(path, uio) {
      const file = `${path}/uio/${uio}/event`;
      return parseNumber(readAttribute(file), 0, 0xffff_ffff, file);
    },
    guestMemory: (arena) => new PhysicalGuestMemory(arena),
  };
}

interface Allocated {
  readonly file: number;
  readonly end: number;
  /** Physical page numbers, in pages of this system. */
  readonly pages: readonly bigint[];
}

/** Guest memory in huge pages; without any free, in locked pages, provided that the kernel leaves those where they are. */
export class PhysicalGuestMemory implements GuestMemory {
  readonly #arena: Arena;
  readonly #mayMove: () => string | undefined;
  readonly #allocated = new Map<number, Allocated>();

  /** `mayMove`: why locked pages could get other addresses; another answer for tests. */
  constructor(arena: Arena, mayMove: () => string | undefined = movesLockedPages) {
    this.#arena = arena;
    this.#mayMove = mayMove;
  }

  allocate(name: string, bytes: number): number {
    const { file, address, length } = this.#huge(name, bytes) ?? this.#locked(name, bytes);
    try {
      const virtual = Number(this.#arena.baseAddress()) + address;
      const pages = physicalPages(virtual, length / pageBytes);
      if (pages.includes(-1n)) throw new VmbusError(`guest memory ${name}: a locked page is not in memory`);
      if (pages.includes(0n)) {
        throw new VmbusError(
          `guest memory ${name}: the kernel does not show physical addresses (/proc/self/pagemap wants CAP_SYS_ADMIN)`,
        );
      }
      this.#allocated.set(address, { file, end: address + length, pages });
      return address;
    } catch (error) {
      this.#arena.release(address);
      closeSync(file);
      throw error;
    }
  }

  release(address: number): void {
    const found = this.#allocated.get(address);
    if (!found) throw new VmbusError(`guest memory: nothing was allocated at ${address.toString(16)}`);
    this.#allocated.delete(address);
    this.#arena.release(address);
    closeSync(found.file);
  }

  pfn(address: number): bigint {
    for (const [start, { end, pages }] of this.#allocated) {
      if (address < start || address >= end) continue;
      const offset = address - start;
      const page = pages[Math.floor(offset / pageBytes)]!;
      return (page * BigInt(pageBytes) + BigInt(offset % pageBytes)) / BigInt(PAGE_BYTES);
    }
    throw new VmbusError(`guest memory: nothing was allocated at ${address.toString(16)}`);
  }

  /** Undefined when there are not enough huge pages. */
  #huge(name: string, bytes: number): { file: number; address: number; length: number } | undefined {
    const length = Math.ceil(bytes / HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES;
    let file = -1;
    try {
      file = createHugeMemory(`netvsc ${name}`, length);
      const address = this.#arena.mapFile(name, file, 0, length, { align: HUGE_PAGE_BYTES });
      for (let at = address; at < address + length; at += HUGE_PAGE_BYTES) this.#arena.u8[at] = 0;
      return { file, address, length };
    } catch (error) {
      if (file >= 0) closeSync(file);
      if ((error as { code?: string }).code !== undefined) return undefined;
      throw error;
    }
  }

  #locked(name: string, bytes: number): { file: number; address: number; length: number } {
    const reason = this.#mayMove();
    if (reason) {
      throw new VmbusError(
        `guest memory ${name}: expected ${Math.ceil(bytes / HUGE_PAGE_BYTES)} free huge pages of 2 MiB ` +
          `(/proc/sys/vm/nr_hugepages); locked pages instead would not stay where they are, since ${reason}`,
      );
    }
    const length = Math.ceil(bytes / pageBytes) * pageBytes;
    const file = createSealedMemory(`netvsc ${name}`, length).fd;
    try {
      const address = this.#arena.mapFile(name, file, 0, length);
      try {
        lockMemory(Number(this.#arena.baseAddress()) + address, length);
      } catch (error) {
        this.#arena.release(address);
        throw error;
      }
      return { file, address, length };
    } catch (error) {
      closeSync(file);
      throw error;
    }
  }
}

/** What a kernel may do to locked pages although they are locked; undefined when it is told not to. */
export function movesLockedPages(proc = '/proc'): string | undefined {
  for (const name of ['vm/compact_unevictable_allowed', 'kernel/numa_balancing']) {
    let value: string;
    try {
      value = readFileSync(`${proc}/sys/${name}`, 'latin1').trim();
    } catch {
      continue; // a kernel without compaction, or without NUMA
    }
    if (value !== '0') return `${name} is ${value}, not 0`;
  }
  return undefined;
}
