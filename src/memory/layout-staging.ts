// Where guest memory is copied that the host cannot map (memory/layout.ts has all others).
import { cells } from './cells.js';

/**
 * What hostStage finds to be copied before a poll: pages that GPA-direct packets name and that are not mapped. One for all
 * channels of a NIC, for one poll of one of them at a time.
 */
export const STAGING = cells('STAGING', {
  channel: 'u32', // HOST_CHANNEL whose next poll takes what is here; 0 = none
  end: 'u32', // read index behind the last packet looked at: the poll goes no further
  data: 'u32', // arena address of the copies, back to back
  dataBytes: 'u32',
  dataUsed: 'u32',
  pages: 'u32', // STAGED_PAGE table
  pageCapacity: 'u32',
  pageCount: 'u32',
  vectors: 'u32', // as many struct iovec as pages may be: u64 address in the guest, u64 bytes
  vectorCount: 'u32',
  known: 'u32', // GPA_REGION table of pages that cannot be mapped
  knownCount: 'u32',
  unknown: 'u32', // 1: the page below is staged and not in that table: it may be one that can be mapped
  unknownLow: 'u32',
  unknownHigh: 'u32',
});

/** A part of a page in STAGING, in the order of the packets and of their ranges. */
export const STAGED_PAGE = cells(
  'STAGED_PAGE',
  {
    packet: 'u32', // read index behind the packet that names it
    pfnLow: 'u32',
    pfnHigh: 'u32',
    offset: 'u32',
    bytes: 'u32',
    address: 'u32', // of the copy; 0 = it could not be had
    vector: 'u32', // index of the vector that it is part of
  },
  32,
);
