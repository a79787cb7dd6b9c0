// Guest-physical pages as a host process sees them: a page frame number is a virtual page of the guest's process. Only
// memory that cannot vanish is mapped: shared, file-backed, the file sealed against shrinking.
import { closeSync, constants, fstatSync, openSync, readdirSync, readSync, statfsSync, statSync } from 'node:fs';
import type { Arena } from '../../memory/arena.js';
import { fileSeals, SEAL } from '../../memory/os/memfd.js';
import { type GuestRegion, PAGE_BYTES, type PageSpan } from '../device.js';
import { findMapping, mappingRefusal, type ProcessMapping, parseMappings } from './proc-maps.js';

/** How much of a guest a host shows itself, per NIC. */
export interface GuestPagesLimits {
  /** Bytes mapped at a time. */
  readonly bytes: number;
  readonly regions: number;
  /** Least pause between two readings of the guest's memory map, for pages that the last one did not have. */
  readonly rereadMs: number;
  /** Milliseconds, monotonic. Called for misses only. */
  readonly clock: () => number;
}

/** A memory map of 1 MiB has about 10,000 lines; a guest that has more is not searched further. */
const MAPS_BYTES = 1 << 20;
const DESCRIPTORS_MAX = 4096;
/** A guest with a large memory map that names pages which are not there costs us no more than a 20th of our time. */
const REREAD_SHARE = 20;
const HUGETLBFS_MAGIC = 0x958458f6;
/** Virtual addresses have 64 bits, their page numbers 52. */
const PAGE_MAX = (1n << 52n) - 1n;

export class GuestPages {
  readonly #arena: Arena;
  readonly #pid: number;
  readonly #limits: GuestPagesLimits;
  /** Descriptor of /proc/<pid>: stays the guest's even when its number is used again. -1 = not to be had. */
  #process: number;
  readonly #regions: GuestRegion[] = [];
  #bytes = 0;
  #mappings: readonly ProcessMapping[] = [];
  /** Mappings of the last reading that were looked at in vain, and why. */
  readonly #refused = new Map<ProcessMapping, string>();
  #nextReading = Number.NEGATIVE_INFINITY;
  #refusedPages: PageSpan | undefined;

  constructor(arena: Arena, pid: number, limits: GuestPagesLimits) {
    this.#arena = arena;
    this.#pid = pid;
    this.#limits = limits;
    this.#process = openOr(`/proc/${pid}`, constants.O_RDONLY | constants.O_DIRECTORY);
  }

  /** The region that holds a page, mapped now if need be, or why it cannot be seen. */
  map(pfn: bigint): GuestRegion | string {
    for (const region of this.#regions) {
      if (pfn >= region.pfn && pfn < region.pfn + BigInt(region.pages)) return region;
    }
    const page = pfn >= 0n && pfn <= PAGE_MAX ? Number(pfn) : -1;
    const found = this.#search(page);
    if (typeof found !== 'string') return found;
    const { clock, rereadMs } = this.#limits;
    const now = clock();
    if (now < this.#nextReading) return this.#refuse(pfn, found);
    this.#mappings = parseMappings(this.#readMaps());
    const end = clock();
    this.#nextReading = end + Math.max(rereadMs, (end - now) * REREAD_SHARE);
    this.#refused.clear();
    const again = this.#search(page);
    return typeof again === 'string' ? this.#refuse(pfn, again) : again;
  }

  /** Pages of the mapping for which the last refusal holds; undefined when there was none at the page. */
  get refusedPages(): PageSpan | undefined {
    return this.#refusedPages;
  }

  /** Unmaps everything. */
  close(): void {
    for (const region of this.#regions.splice(0)) this.#arena.release(region.address);
    if (this.#process >= 0) closeSync(this.#process);
    this.#process = -1;
  }

  #refuse(pfn: bigint, reason: string): string {
    return `page ${pfn.toString(16)} of process ${this.#pid}: ${reason}`;
  }

  /** Looks the page up in the memory map as last read, and maps what holds it. */
  #search(page: number): GuestRegion | string {
    const mapping = findMapping(this.#mappings, page);
    this.#refusedPages = mapping && { pfn: BigInt(mapping.firstPage), pages: mapping.pages };
    if (!mapping) return this.#mappings.length === 0 ? 'its memory map cannot be read' : 'not mapped';
    const known = this.#refused.get(mapping) ?? mappingRefusal(mapping);
    if (known) return known;
    const region = this.#mapFile(mapping, page);
    if (typeof region === 'string') this.#refused.set(mapping, region);
    return region;
  }

  #mapFile(mapping: ProcessMapping, page: number): GuestRegion | string {
    const file = this.#openFile(mapping);
    if (file < 0) return 'its file cannot be opened';
    try {
      return this.#mapSealed(mapping, file, page);
    } finally {
      closeSync(file);
    }
  }

  #mapSealed(mapping: ProcessMapping, file: number, page: number): GuestRegion | string {
    const seals = fileSeals(file);
    if ((seals & SEAL.SHRINK) === 0) return 'its file is not sealed against shrinking';
    // Holes in them are filled from a pool that may be empty: SIGBUS. No seal keeps a guest from making holes.
    if (statfsSync(`/proc/self/fd/${file}`).type === HUGETLBFS_MAGIC) return 'huge pages, which may go missing';
    const status = fstatSync(file);
    // Pages of the mapping beyond the file's end would kill us with SIGBUS.
    const pages = Math.min(mapping.pages, Math.floor((status.size - mapping.offset) / PAGE_BYTES));
    if (page >= mapping.firstPage + pages) {
      this.#refusedPages = { pfn: BigInt(page), pages: 1 };
      return 'beyond the end of its file';
    }
    const bytes = pages * PAGE_BYTES;
    if (this.#regions.length >= this.#limits.regions)
      return `the guest's limit of ${this.#limits.regions} regions is reached`;
    if (this.#bytes + bytes > this.#limits.bytes) return `the guest's limit of ${this.#limits.bytes} bytes is reached`;
    let address: number;
    try {
      const name = `guest ${this.#pid} ${mapping.range}`;
      address = this.#arena.mapFile(name, file, mapping.offset, bytes, { readOnly: true });
    } catch (error) {
      return `cannot be mapped (${(error as Error).message})`;
    }
    const region = { pfn: BigInt(mapping.firstPage), pages, address };
    this.#bytes += bytes;
    this.#regions.push(region);
    return region;
  }

  #readMaps(): string {
    const file = this.#process < 0 ? -1 : openOr(`/proc/self/fd/${this.#process}/maps`, constants.O_RDONLY);
    if (file < 0) return '';
    try {
      const text = Buffer.alloc(MAPS_BYTES);
      let used = 0;
      // The kernel gives a page or less at a time.
      for (let length = 1; length > 0 && used < text.length; used += length) {
        length = readSync(file, text, used, text.length - used, null);
      }
      return text.toString('latin1', 0, used);
    } catch {
      return ''; // the process has just died
    } finally {
      closeSync(file);
    }
  }

  /** The mapping's file: by its range where the kernel lets us, else by a descriptor that the guest holds. */
  #openFile(mapping: ProcessMapping): number {
    const base = `/proc/self/fd/${this.#process}`;
    const direct = openOr(`${base}/map_files/${mapping.range}`, constants.O_RDONLY | constants.O_NONBLOCK);
    if (direct >= 0) {
      const status = fstatSync(direct);
      if (status.ino === mapping.inode && status.dev === mapping.device) return direct;
      closeSync(direct);
    }
    for (const name of listOr(`${base}/fd`).slice(0, DESCRIPTORS_MAX)) {
      const path = `${base}/fd/${name}`;
      if (!isFile(path, mapping)) continue;
      const file = openOr(path, constants.O_RDONLY | constants.O_NONBLOCK);
      if (file < 0) continue;
      const status = fstatSync(file);
      if (status.ino === mapping.inode && status.dev === mapping.device) return file;
      closeSync(file);
    }
    return -1;
  }
}

function isFile(path: string, mapping: ProcessMapping): boolean {
  try {
    const status = statSync(path);
    return status.isFile() && status.ino === mapping.inode && status.dev === mapping.device;
  } catch {
    return false; // closed meanwhile
  }
}

function openOr(path: string, flags: number): number {
  try {
    return openSync(path, flags);
  } catch {
    return -1;
  }
}

function listOr(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
