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

export const RING_LAYOUTS = [HANDLE_RING, HANDLE_RING_END] as const;
