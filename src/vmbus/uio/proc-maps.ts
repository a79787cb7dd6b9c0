// Where a guest's virtual addresses come from: lines of /proc/<pid>/maps, picked and checked.
import { PAGE_BYTES } from '../device.js';

/** A line of /proc/<pid>/maps. Page numbers are virtual addresses >> 12, which a Number holds. */
export interface ProcessMapping {
  readonly firstPage: number;
  readonly pages: number;
  /** Bytes into the file. */
  readonly offset: number;
  readonly device: number;
  readonly inode: number;
  readonly readable: boolean;
  readonly shared: boolean;
  /** Address range as /proc/<pid>/map_files names it. */
  readonly range: string;
}

const LINE = /^([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-])[w-][x-]([sp]) ([0-9a-f]{1,16}) ([0-9a-f]+):([0-9a-f]+) (\d+)/;

/** All mappings, in the order of their addresses, as /proc/<pid>/maps has them. Lines that make no sense are left out. */
export function parseMappings(text: string): ProcessMapping[] {
  const mappings: ProcessMapping[] = [];
  for (let start = 0; start < text.length; ) {
    const newline = text.indexOf('\n', start);
    const end = newline < 0 ? text.length : newline;
    const mapping = parseLine(text.slice(start, end));
    const last = mappings.at(-1);
    if (mapping && (!last || mapping.firstPage >= last.firstPage + last.pages)) mappings.push(mapping);
    start = end + 1;
  }
  return mappings;
}

/** The mapping that holds a page (binary search). */
export function findMapping(mappings: readonly ProcessMapping[], page: number): ProcessMapping | undefined {
  let low = 0;
  let high = mappings.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const mapping = mappings[middle]!;
    if (page < mapping.firstPage) high = middle;
    else if (page >= mapping.firstPage + mapping.pages) low = middle + 1;
    else return mapping;
  }
  return undefined;
}

function parseLine(line: string): ProcessMapping | undefined {
  const match = LINE.exec(line);
  if (!match) return undefined;
  const [, low, high, readable, shared, offset, major, minor, inode] = match as unknown as string[];
  const first = BigInt(`0x${low}`);
  const bytes = BigInt(`0x${high}`) - first;
  if (bytes <= 0n) return undefined;
  return {
    firstPage: Number(first / BigInt(PAGE_BYTES)),
    pages: Number(bytes / BigInt(PAGE_BYTES)),
    offset: Number.parseInt(offset!, 16),
    device: deviceNumber(Number.parseInt(major!, 16), Number.parseInt(minor!, 16)),
    inode: Number(inode),
    readable: readable === 'r',
    shared: shared === 's',
    range: `${low}-${high}`,
  };
}

/** As stat(2) packs it (gnu_dev_makedev), for devices whose numbers fit 32 bits. */
function deviceNumber(major: number, minor: number): number {
  return (minor & 0xff) + (major & 0xfff) * 0x100 + (minor >>> 8) * 0x10_0000;
}

/** Why a mapping cannot be shown to the host, or undefined when it may. */
export function mappingRefusal(mapping: ProcessMapping): string | undefined {
  if (mapping.inode === 0) return 'anonymous memory';
  if (!mapping.shared) return 'a private mapping';
  if (!mapping.readable) return 'not readable';
  return undefined;
}
