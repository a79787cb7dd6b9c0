// What of a queue pair lies in the arena: it outlives the thread that polls the pair.
import { cells } from '../memory/cells.js';
import { STEER_QUEUES } from '../memory/layout.js';
import { GRO_HELD_MAX } from '../offload/gro.js';

/** Packets of one burst and direction: NAPI's weight. */
export const BUDGET = 64;
/** Most segments of one packet: 64 KiB at the smallest MSS that Linux has (48). */
export const SEGMENTS_MAX = 1400;
/** Room for them while they are made: payload, headers, and what aligns them. */
export const CUT_BYTES = 512 << 10;

/** What control code sees of a pair, and what outlives the thread that polls it. */
export const NETDEV_PAIR = cells('NETDEV_PAIR', {
  options: 'u32', // PAIR_OPTION
  waiting: 'u32', // packets of the kernel that the device has not taken yet, in front of the list
  downDropped: 'u64', // received, but the interface is down or gone
  frameBytes: 'u32', // longest packet that the device sends as it is
  tso4: 'u32', // longest one that it cuts, 0 = it cuts none; IPv4
  tso6: 'u32', // IPv6
  asked: 'u32', // how often a list had a packet that is too long: control code is to look at the MTU
  question: 'u32', // the number of that for the list which waits now, 0 = none
  answered: 'u32', // the last one that control code has dealt with
  cutFrom: 'u32', // segments made here that the device has not taken yet: where they begin in their list
  cutCount: 'u32', // and how many they are
  cutPackets: 'u64', // cut here, as the device does not
  cutSegments: 'u64', // what became of them
  cutFailed: 'u64', // malformed, dropped
});
/** What is done to received packets. */
export const PAIR_OPTION = {
  GRO: 0x1, // small ones become large ones
  UNCHECKED: 0x2, // the kernel verifies checksums itself
} as const;

const LIST_BYTES = BUDGET * 4;
const MERGED_BYTES = (BUDGET + 2 * GRO_HELD_MAX) * 4;

/** Where a pair's lists of handles begin, behind its cells. */
const down = NETDEV_PAIR.bytes;
const sorted = down + LIST_BYTES;
const counts = sorted + LIST_BYTES;
const up = counts + STEER_QUEUES * 4;
const merged = up + LIST_BYTES;
const cuts = merged + MERGED_BYTES;
export const PAIR_LISTS = {
  down, // packets on their way down as they came
  sorted, // by queue
  counts, // how many each queue has
  up, // packets on their way up before receive offload
  merged, // and after it
  cuts, // segments on their way down
} as const;
/** Bytes of a pair. */
export const PAIR_BYTES: number = cuts + SEGMENTS_MAX * 4;

/** Plain data. */
export interface PairSetup {
  readonly queue: number;
  /** Address of PAIR_BYTES. */
  readonly memory: number;
  /** Address of its GRO_STAGE. */
  readonly gro: number;
  /** Address of CUT_BYTES. */
  readonly cutting: number;
  /** Address of the interface's STEERING. */
  readonly steering: number;
  /** Pools for segments, and the longest that fits a buffer of the first. */
  readonly small: number;
  readonly large: number;
  readonly smallBytes: number;
  /** The device wakes who waits for packets; it is looked at from time to time otherwise. */
  readonly wakes: boolean;
}
