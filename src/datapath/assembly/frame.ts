// Frames of the host: bytes that stay in the sender's memory until the burst is done.
import { copyBytes } from './copy';
import { FRAGMENT_ADDRESS, FRAGMENT_BYTES, SIZEOF_FRAGMENT, FRAME_FRAGMENT_COUNT, FRAME_FRAGMENTS, FRAME_LENGTH } from './generated';

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
