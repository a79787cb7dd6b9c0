// What the bursts of an impaired port (drivers/impair) share, in whatever thread they run: one line for each queue and direction. Used by
// whoever has the queue (PORT_QUEUE).
import { cells } from './cells.js';

export const IMPAIR_LINE = cells('IMPAIR_LINE', {
  // State of the random numbers.
  a: 'u32',
  b: 'u32',
  c: 'u32',
  counter: 'u32',
  // Packets that are held, in the order in which they go on: a ring of IMPAIR_HELD.
  held: 'u32', // arena address
  capacity: 'u32', // a power of two
  first: 'u32', // modulo 2^32
  last: 'u32', // behind the last one
  // Packets that let others pass: a list of IMPAIR_ASIDE.
  aside: 'u32', // arena address
  asideCount: 'u32',
  one: 'u32', // a list of one mbuf
  batch: 'u32', // arena address of a list of IMPAIR_BATCH mbufs
  // What was done, in packets.
  passed: 'u64',
  lost: 'u64',
  duplicated: 'u64',
  reordered: 'u64',
  corrupted: 'u64',
  delayed: 'u64',
  overflowed: 'u64', // dropped because too many were held
  failed: 'u64', // not duplicated or not corrupted, for want of an mbuf or as the packet cannot be copied
  flushed: 'u64', // held when the port stopped
});

/** Packets that go on at once. */
export const IMPAIR_BATCH = 256;

/** `due` is a double, milliseconds since 1970. */
export const IMPAIR_HELD = cells('IMPAIR_HELD', { due: 'u64', mbuf: 'u32', spare: 'u32' }, 16);

/** `due`: when it goes on at the latest; `behind`: packets that still may pass it. */
export const IMPAIR_ASIDE = cells('IMPAIR_ASIDE', { due: 'u64', mbuf: 'u32', behind: 'u32' }, 16);
