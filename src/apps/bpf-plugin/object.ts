// A program from an ELF object for the plugin: its global variables lie behind the memory argument. Loaded for --elf only.
import type { Region } from '../../xdp/isa/machine.js';
import { IMM64, type Insn } from '../../xdp/isa/program.js';
import { loadObject } from '../../xdp/object/object.js';

export interface LoadedProgram {
  readonly insns: readonly Insn[];
  /** One for each section of global variables. */
  readonly regions: readonly Region[];
  /** What to put there, in the same order. */
  readonly contents: readonly Uint8Array[];
  /** First address that is free. */
  readonly end: number;
  readonly immediate: (slot: number) => bigint;
}

/** The first XDP program of an object. Throws ObjectError; Error where it has none, or needs maps. */
export function loadPluginObject(bytes: Uint8Array, address: number): LoadedProgram {
  const object = loadObject(bytes, { type: 'xdp' });
  const program = object.programs[0];
  if (program === undefined) throw new Error('the object has no program');
  const regions: Region[] = [];
  const contents: Uint8Array[] = [];
  const places = new Map<number, Region>();
  let end = address;
  for (const { index, name, data, constant } of object.maps) {
    if (data === undefined) continue;
    const region = { name, start: end, end: end + data.length, writable: !constant };
    places.set(index, region);
    regions.push(region);
    contents.push(data);
    // Variables are aligned to 8 bytes at most, as atomic operations want them, and no two sections touch.
    end = (region.end + 64) & ~63;
  }
  const { insns } = program;
  const immediate = (slot: number): bigint => {
    const place = insns[slot]!.src === IMM64.MAP_VALUE ? places.get(insns[slot]!.imm) : undefined;
    if (place === undefined) throw new Error(`instruction ${slot}: this program has no maps but global variables`);
    return BigInt(place.start + insns[slot + 1]!.imm);
  };
  return { insns, regions, contents, end, immediate };
}
