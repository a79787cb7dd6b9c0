// What both sides do to ring memory outside the data path: find the rings, zero them, mask interrupts.
import type { Arena } from '../memory/arena.js';
import { RING_CONTROL, RING_FEATURE } from '../wire/vmbus.js';
import { PAGE_BYTES, type RingRegion, VmbusError } from './device.js';

/** The two rings of a ring file or of map 0: two equal halves, each a control page and its data. */
export function splitRings(address: number, bytes: number): { first: RingRegion; second: RingRegion } {
  if (bytes % (2 * PAGE_BYTES) !== 0 || bytes < 4 * PAGE_BYTES) {
    throw new VmbusError(`rings: expected two halves of at least 2 pages each, got ${bytes} bytes`);
  }
  const half = bytes / 2;
  const dataBytes = half - PAGE_BYTES;
  return { first: { control: address, dataBytes }, second: { control: address + half, dataBytes } };
}

/** Empties a ring: the side that opens the channel does this before the other one hears of it. */
export function zeroControlPage(arena: Arena, ring: RingRegion): void {
  arena.u8.fill(0, ring.control, ring.control + PAGE_BYTES);
}

/** What a host sets when a channel opens (facts/hyper-v-host.md 1.1): it polls, and it honours pending_send_size. */
export function openHostRings(arena: Arena, fromGuest: RingRegion, toGuest: RingRegion): void {
  setInterruptMask(arena, fromGuest, true);
  const { pendingSendSize, featureBits } = RING_CONTROL.offset;
  Atomics.store(arena.u32, (toGuest.control + pendingSendSize) >>> 2, 0);
  Atomics.store(arena.u32, (toGuest.control + featureBits) >>> 2, RING_FEATURE.PENDING_SEND_SIZE);
}

/** Writes the receiver's interrupt mask of a ring. */
export function setInterruptMask(arena: Arena, ring: RingRegion, masked: boolean): void {
  Atomics.store(arena.u32, (ring.control + RING_CONTROL.offset.interruptMask) >>> 2, masked ? 1 : 0);
}
