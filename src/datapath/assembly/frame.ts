// Packets that are not in one piece: frames of the host, whose bytes stay in the sender's memory until the burst is done, and
// chains of mbufs.
import { copyBytes } from './copy';
import {
  FRAGMENT_ADDRESS,
  FRAGMENT_BYTES,
  FRAME_FRAGMENT_COUNT,
  FRAME_FRAGMENTS,
  FRAME_LENGTH,
  MBUF_DATA,
  MBUF_DATA_LENGTH,
  MBUF_NEXT,
  SIZEOF_FRAGMENT,
} from './generated';

/** Copies a FRAME's fragments to one place, never more than its length. */
export function frameGather(frame: u32, destination: u32): void {
  let entry = load<u32>(frame, FRAME_FRAGMENTS);
  const end = entry + load<u32>(frame, FRAME_FRAGMENT_COUNT) * SIZEOF_FRAGMENT;
  let room = load<u32>(frame, FRAME_LENGTH);
  let at = destination;
  for (; entry != end && room != 0; entry += SIZEOF_FRAGMENT) {
    const stated = load<u32>(entry, FRAGMENT_BYTES);
    const bytes = stated < room ? stated : room;
    copyBytes(at, load<u32>(entry, FRAGMENT_ADDRESS), bytes);
    at += bytes;
    room -= bytes;
  }
}

/** Copies a chain's segments to one place, never more than `room` bytes. Returns how many there are. */
export function chainGather(mbuf: u32, destination: u32, room: u32): u32 {
  let done: u32 = 0;
  for (let segment = mbuf; segment != 0; segment = load<u32>(segment, MBUF_NEXT)) {
    const bytes = load<u32>(segment, MBUF_DATA_LENGTH);
    if (bytes > room - done) return done;
    copyBytes(destination + done, load<u32>(segment, MBUF_DATA), bytes);
    done += bytes;
  }
  return done;
}
