// Bursts of equal packets between the two halves of a rig, as the benchmarks count them.
import { FRAGMENT, FRAME, MBUF } from '../src/memory/layout.js';
import type { Rig } from './rig.js';

export const BURST = 32;

/** Guest half and host half of one queue, a burst at a time. Every call may be timed on its own. */
export interface Traffic {
  /** Takes buffers from the pool and fills their cells (not timed by the halves). */
  prepare(count: number): void;
  /** Guest: sends the prepared buffers in bursts. Returns packets taken. */
  guestSend(count: number): number;
  /** Guest: handles what waits; returns packets received (their buffers stay out until `guestFree`). */
  guestPoll(max: number): number;
  guestFree(count: number): void;
  /** Host: reads one burst; returns frames. */
  hostPoll(): number;
  /** Host: completes the messages of the last burst. */
  hostComplete(): void;
  /** Host: delivers `count` frames of its own (at most BURST). */
  hostSend(count: number): number;
}

/** From one frame's bytes to the next one's. */
const STRIDE = 2176;
/** What ownFrames() needs. */
export const OWN_FRAMES_BYTES = BURST * (FRAME.bytes + FRAGMENT.bytes + STRIDE) + 64;

/** Makes a burst of FRAMEs at `at`, one behind the other, as they come from elsewhere on the switch: one piece of `bytes`
 *  bytes each, at `data`. */
export function ownFrames(u32: Uint32Array, at: number, bytes: number): { frame: number; data: number }[] {
  return Array.from({ length: BURST }, (_, i) => {
    const frame = at + i * FRAME.bytes;
    const fragment = at + BURST * FRAME.bytes + i * FRAGMENT.bytes;
    const data = at + ((BURST * (FRAME.bytes + FRAGMENT.bytes) + 63) & ~63) + i * STRIDE;
    u32[(frame + FRAME.at.fragments) >>> 2] = fragment;
    u32[(frame + FRAME.at.fragmentCount) >>> 2] = 1;
    u32[(frame + FRAME.at.length) >>> 2] = bytes;
    u32[(frame + FRAME.at.head) >>> 2] = data;
    u32[(fragment + FRAGMENT.at.address) >>> 2] = data;
    u32[(fragment + FRAGMENT.at.bytes) >>> 2] = bytes;
    return { frame, data };
  });
}

/** `bytes`: length of each packet. */
export function createTraffic(rig: Rig, bytes: number): Traffic {
  const { datapath, queue, channel, handles, frames, smallPool } = rig;
  const { u32, u8 } = rig.arena;
  // Cells of an mbuf, in words.
  const data = MBUF.at.data >>> 2;
  const dataLength = MBUF.at.dataLength >>> 2;
  const packetLength = MBUF.at.packetLength >>> 2;
  const list = handles >>> 2;
  ownFrames(u32, rig.ownFrames, bytes).forEach(({ frame }, i) => {
    u32[(frames >>> 2) + i] = frame;
  });
  return {
    prepare(count) {
      const got = datapath.poolGet(smallPool, handles, count);
      for (let i = 0; i < got; i++) {
        const mbuf = u32[list + i]! >>> 2;
        u32[mbuf + dataLength] = bytes;
        u32[mbuf + packetLength] = bytes;
        u8[u32[mbuf + data]!] = 2;
      }
    },
    guestSend(count) {
      let taken = 0;
      for (let at = 0; at < count; at += BURST) taken += datapath.guestSend(queue, handles + at * 4, BURST);
      return taken;
    },
    guestPoll: (max) => datapath.guestPoll(queue, handles, max),
    guestFree: (count) => datapath.mbufFree(handles, count),
    hostPoll: () => datapath.hostPoll(channel, BURST),
    hostComplete: () => {
      datapath.hostComplete(channel);
    },
    hostSend: (count) => datapath.hostSend(channel, frames, count),
  };
}

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >>> 1] ?? Number.NaN;
};
