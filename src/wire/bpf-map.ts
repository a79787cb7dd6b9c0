// Maps of BPF programs as objects declare them: numbers of the kernel's uapi (linux/bpf.h), and the layouts of `maps`
// sections from before BTF.
import { struct, u32 } from './struct.js';

export const BPF_MAP_TYPE = {
  UNSPEC: 0,
  HASH: 1,
  ARRAY: 2,
  PROG_ARRAY: 3,
  PERF_EVENT_ARRAY: 4,
  PERCPU_HASH: 5,
  PERCPU_ARRAY: 6,
  STACK_TRACE: 7,
  CGROUP_ARRAY: 8,
  LRU_HASH: 9,
  LRU_PERCPU_HASH: 10,
  LPM_TRIE: 11,
  ARRAY_OF_MAPS: 12,
  HASH_OF_MAPS: 13,
  DEVMAP: 14,
  SOCKMAP: 15,
  CPUMAP: 16,
  XSKMAP: 17,
  SOCKHASH: 18,
  CGROUP_STORAGE: 19,
  REUSEPORT_SOCKARRAY: 20,
  PERCPU_CGROUP_STORAGE: 21,
  QUEUE: 22,
  STACK: 23,
  SK_STORAGE: 24,
  DEVMAP_HASH: 25,
  STRUCT_OPS: 26,
  RINGBUF: 27,
  INODE_STORAGE: 28,
  TASK_STORAGE: 29,
  BLOOM_FILTER: 30,
  USER_RINGBUF: 31,
  CGRP_STORAGE: 32,
  ARENA: 33,
} as const;

export const BPF_MAP_FLAG = {
  NO_PREALLOC: 1,
  NO_COMMON_LRU: 2,
  NUMA_NODE: 4,
  RDONLY: 8,
  WRONLY: 0x10,
  STACK_BUILD_ID: 0x20,
  ZERO_SEED: 0x40,
  RDONLY_PROG: 0x80,
  WRONLY_PROG: 0x100,
  CLONE: 0x200,
  MMAPABLE: 0x400,
  PRESERVE_ELEMS: 0x800,
  INNER_MAP: 0x1000,
} as const;

/** An entry of a `maps` section. */
export const LegacyMap = struct('BPF_MAP_DEF', {
  type: u32(0, 'kind of map', { names: BPF_MAP_TYPE }),
  keySize: u32(4, 'key', { unit: 'bytes' }),
  valueSize: u32(8, 'value', { unit: 'bytes' }),
  maxEntries: u32(12, 'entries at most'),
  flags: u32(16, 'bits', { flags: BPF_MAP_FLAG }),
});

/** What follows LegacyMap in the entries of iproute2's loader (its bpf_elf.h). */
export const LegacyMapIproute = struct('BPF_ELF_MAP', {
  id: u32(20, 'number by which other entries mean this one'),
  pinning: u32(24, 'scope of its name; 0 = none'),
  innerId: u32(28, 'id of the map that shows what this one holds'),
  innerIndex: u32(32, 'where this one is put into the map that holds it'),
});

export const BPF_MAP_TABLES = [LegacyMap, LegacyMapIproute] as const;
