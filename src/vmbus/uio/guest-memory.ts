// Guest memory for hosts in another process: sealed memory files mapped into the guest's arena. Page frame numbers are
// pages of this process's virtual addresses, which the host finds in /proc/<pid>/maps.
import { closeSync } from 'node:fs';
import type { Arena } from '../../memory/arena.js';
import { createSealedMemory, lockWriters } from '../../memory/os/memfd.js';
import { type GuestMemory, PAGE_BYTES, VmbusError } from '../device.js';

export class UioGuestMemory implements GuestMemory {
  readonly #arena: Arena;
  /** Open files by address: a host that may not use map_files opens them through our descriptors. */
  readonly #files = new Map<number, number>();

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  allocate(name: string, bytes: number): number {
    const rounded = Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
    const file = createSealedMemory(`netvsc ${name}`, rounded, 'open').fd;
    try {
      const address = this.#arena.mapFile(name, file, 0, rounded);
      // The host may read packets. It must not write to the cells that steer them.
      lockWriters(file);
      this.#files.set(address, file);
      return address;
    } catch (error) {
      closeSync(file);
      throw error;
    }
  }

  release(address: number): void {
    const file = this.#files.get(address);
    if (file === undefined) throw new VmbusError(`guest memory: nothing was allocated at ${address.toString(16)}`);
    this.#files.delete(address);
    this.#arena.release(address);
    closeSync(file);
  }

  pfn(address: number): bigint {
    return (this.#arena.baseAddress() + BigInt(address)) / BigInt(PAGE_BYTES);
  }
}
