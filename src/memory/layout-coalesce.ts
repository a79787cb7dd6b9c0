// What the host's coalescing of received TCP segments works with (assembly/coalesce.ts). One for each NIC; used within one burst.
import { cells } from './cells.js';

/** Frames of one burst, and what becomes of them. */
export const COALESCER = cells('COALESCER', {
  capacity: 'u32', // frames of a burst
  units: 'u32', // COALESCE_UNIT of each frame that begins one
  links: 'u32', // u32 by frame: the one behind it in its unit, index + 1
  flows: 'u32', // COALESCE_FLOWS u32: unit that may grow, index + 1, by hash of the flow
  output: 'u32', // u32 FRAME addresses
  frames: 'u32', // FRAMEs that are made, capacity / 2
  heads: 'u32', // HEAD_BYTES of each
  fragments: 'u32', // FRAGMENTs of them
  fragmentCapacity: 'u32',
  packets: 'u64', // made of several segments
  segments: 'u64', // which these were
  checksums: 'u64', // segments that were verified, nobody having done it yet
  badChecksums: 'u64',
});

/** Segments that follow each other: NDIS's single coalesced unit. */
export const COALESCE_UNIT = cells('COALESCE_UNIT', {
  first: 'u32', // index of its first frame
  last: 'u32',
  count: 'u32',
  fragments: 'u32', // that it needs
  bytes: 'u32', // as one frame
  l4: 'u32',
  headerBytes: 'u32', // up to the payload
  mss: 'u32', // payload of each segment; the last one may have less
  next: 'u32', // sequence number of the segment that may follow
  acknowledged: 'u32',
  window: 'u32', // as it lies in the header
  push: 'u32', // PSH of any of them
  timestamp: 'u32',
  echo: 'u32', // as it lies in the header
});

/** Families whose segments are coalesced: bits of hostCoalesce(). */
export const COALESCE_FAMILY = { IPV4: 1, IPV6: 2 } as const;

export const COALESCE_FLOWS = 256;
/** Ranges of a transfer-page packet to guests that take coalesced packets: segments of one (facts/linux-guest.md 1.1). */
export const COALESCE_MOST = 562;

export const COALESCE_LAYOUTS = [COALESCER, COALESCE_UNIT] as const;
