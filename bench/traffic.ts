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

/** `bytes`: length of each packet. */
export function createTraffic(rig: Rig, bytes: number): Traffic {
  const { datapath, queue, channel, handles, frames, smallPool } = rig;
  const { u32, u8 } = rig.arena;
  const { dataLength, packetLength } = MBUF.at;
  const list = handles >>> 2;
  // Frames as they come from elsewhere on the switch: one piece each.
  const stride = 2176;
  for (let i = 0; i < BURST; i++) {
    const frame = rig.ownFrames + i * FRAME.bytes;
    const fragment = rig.ownFrames + BURST * FRAME.bytes + i * FRAGMENT.bytes;
    const data = rig.ownFrames + BURST * (FRAME.bytes + 64) + i * stride;
    u32[(frames >>> 2) + i] = frame;
    u32[(frame + FRAME.at.fragments) >>> 2] = fragment;
    u32[(frame + FRAME.at.fragmentCount) >>> 2] = 1;
    u32[(frame + FRAME.at.length) >>> 2] = bytes;
    u32[(frame + FRAME.at.head) >>> 2] = data;
    u32[(fragment + FRAGMENT.at.address) >>> 2] = data;
    u32[(fragment + FRAGMENT.at.bytes) >>> 2] = bytes;
  }
  return {
    prepare(count) {
      const got = datapath.poolGet(smallPool, handles, count);
      for (let i = 0; i < got; i++) {
        const mbuf = u32[list + i]!;
        u32[(mbuf + dataLength) >>> 2] = bytes;
        u32[(mbuf + packetLength) >>> 2] = bytes;
        u8[u32[mbuf >>> 2]!] = 2;
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
