// Structures of the rings between ports of the device API (memory/layout.ts has all others).
import { cells } from './cells.js';

/** Mbufs on their way from the one thread that puts them in to the one that takes them out. Two HANDLE_RING_ENDs follow it, the first
 *  one written by who puts in, the second one by who takes out. */
export const HANDLE_RING = cells('HANDLE_RING', {
  entries: 'u32', // arena address of mask + 1 u32
  mask: 'u32',
  limit: 'u32', // mbufs that may wait, at most mask + 1
  open: 'u32', // 0: nothing can be put in
  armed: 'u32', // 1: who takes out sleeps, or is about to
  wakeFd: 'u32', // event descriptor that wakes it + 1, or 0
});

export const HANDLE_RING_END = cells('HANDLE_RING_END', {
  index: 'u32', // mbufs put in or taken out, modulo 2^32
  seen: 'u32', // the other end's index, as last looked at
});

/** Control cells of a queue between two processes, at the start of its area of the shared file: a line of who sends and one of who
 *  receives. Slots of SHARED_SLOT_BYTES follow at SHARED_RING_DATA; a frame takes as many as it needs, behind a SHARED_FRAME. */
export const SHARED_RING = cells('SHARED_RING', {
  written: 'u32', // slots, modulo 2^32
});
export const SHARED_RING_READER = cells('SHARED_RING_READER', {
  read: 'u32', // slots, modulo 2^32
  armed: 'u32', // 1: the reader sleeps, or is about to
});
export const SHARED_RING_DATA = 4096;
export const SHARED_SLOT_BYTES = 64;

/** In front of each frame. */
export const SHARED_FRAME = cells(
  'SHARED_FRAME',
  {
    length: 'u32', // bytes
    flags: 'u32', // PACKET_FLAG VLAN, HASH
    vlanTci: 'u32',
    hash: 'u32',
  },
  16,
);

/** This process's end of such a queue. The peer sees none of it. */
export const SHARED_RING_END = cells('SHARED_RING_END', {
  ring: 'u32', // arena address of the SHARED_RING, 0 = there is no peer
  slots: 'u32', // a power of two
  index: 'u32', // slots that this end wrote or read
  seen: 'u32', // the other end's index, as last looked at and found possible
  open: 'u32', // who sends: 0 = nothing goes out
  fault: 'u32', // SHARED_FAULT, sticky
  faultValue: 'u32',
  wakeFd: 'u32', // socket of the queue + 1, or 0
  maxBytes: 'u32', // longest frame
  pool: 'u32', // who receives: POOL
  scatter: 'u32', // 1: frames longer than an mbuf come as chains
});

/** Why a peer's ring is not used any more. */
export const SHARED_FAULT = {
  NONE: 0,
  INDEX: 1, // it stepped back, or beyond what there is
  LENGTH: 2, // of a frame: none, or more than it wrote
} as const;

export const RING_LAYOUTS = [
  HANDLE_RING,
  HANDLE_RING_END,
  SHARED_RING,
  SHARED_RING_READER,
  SHARED_FRAME,
  SHARED_RING_END,
] as const;
