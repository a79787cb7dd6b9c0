// Where the bytes of a guest's message lie: a send-buffer section, pages of guest memory, or both, as one byte string
// (facts/hyper-v-host.md 4.2).
import { copyBytes } from './copy';
import * as L from './generated';
import { findPage, stagedPart, UNREADABLE } from './gpa';
import { packetAt, packetData, ringFail } from './ring';
import { scratch } from './scratch';

const MAX_PIECES: u32 = 1024;

// The bytes of the message at hand: pieces in order, {address, bytes, range}. Pieces of one GPA range that lie side by
// side in our mapping are one piece.
@inline
export function pieceAt(index: u32): u32 {
  return scratch + L.SCRATCH_PIECES + (index << 4);
}
export let pieceCount: u32 = 0;
export let totalBytes: u32 = 0;
let pieceIndex: u32 = 0; // cursor
let pieceOffset: u32 = 0;
export let missLow: u32 = 0;
export let missHigh: u32 = 0;

export function resetPieces(): void {
  pieceCount = 0;
  pieceIndex = 0;
  pieceOffset = 0;
  totalBytes = 0;
}

/** False = more pieces than a message may have. */
export function addPiece(address: u32, bytes: u32, range: u32): bool {
  if (pieceCount != 0) {
    const last = pieceAt(pieceCount - 1);
    if (load<u32>(last, 8) == range && load<u32>(last) + load<u32>(last, 4) == address) {
      store<u32>(last, load<u32>(last, 4) + bytes, 4);
      totalBytes += bytes;
      return true;
    }
  }
  if (pieceCount >= MAX_PIECES) return false;
  const at = pieceAt(pieceCount++);
  store<u32>(at, address);
  store<u32>(at, bytes, 4);
  store<u32>(at, range, 8);
  totalBytes += bytes;
  return true;
}

export const OK: u32 = 0;
export const CORRUPT: u32 = 1; // ring error set
export const MISSING: u32 = 2; // page in missLow/missHigh
export const TOO_MANY: u32 = 3;
export const GONE: u32 = 4; // a page that was to be copied and could not be

/** The same for bytes on a page that is not mapped. */
function addStaged(low: u32, high: u32, offset: u32, bytes: u32, range: u32): u32 {
  const address = stagedPart(low, high, offset, bytes);
  if (address == UNREADABLE) return GONE;
  if (address != 0) return addPiece(address, bytes, range) ? OK : TOO_MANY;
  missLow = low;
  missHigh = high;
  return MISSING;
}

/** Reads the GPA ranges of the packet at hand into pieces; every word of the descriptor is loaded once. */
export function readRanges(ch: u32): u32 {
  if (packetData < 24) {
    ringFail(ch, L.RING_ERROR_EXTENDED_HEADER, packetData);
    return CORRUPT;
  }
  const ranges = load<u32>(packetAt, 20);
  let at: u32 = 24;
  if (ranges == 0 || ranges > packetData >>> 3) {
    ringFail(ch, L.RING_ERROR_EXTENDED_HEADER, ranges);
    return CORRUPT;
  }
  const regions = load<u32>(ch, L.HOST_CHANNEL_REGIONS);
  const regionCount = load<u32>(ch, L.HOST_CHANNEL_REGION_COUNT);
  let result = OK;
  for (let r: u32 = 0; r < ranges; r++) {
    if (at + 8 > packetData) {
      ringFail(ch, L.RING_ERROR_EXTENDED_HEADER, at);
      return CORRUPT;
    }
    let left = load<u32>(packetAt + at);
    let offset = load<u32>(packetAt + at + 4);
    at += 8;
    const pages = (<u64>offset + left + 4095) >>> 12;
    if (left == 0 || offset > 4095 || pages > (packetData - at) >>> 3) {
      ringFail(ch, L.RING_ERROR_GPA_RANGE, left);
      return CORRUPT;
    }
    for (; left != 0; at += 8) {
      const low = load<u32>(packetAt + at);
      const high = load<u32>(packetAt + at + 4);
      const step = left < 4096 - offset ? left : 4096 - offset;
      if (result == OK) {
        const page = findPage(regions, regionCount, low, high);
        if (page == 0) result = addStaged(low, high, offset, step, r + 1);
        else if (!addPiece(page + offset, step, r + 1)) result = TOO_MANY;
      }
      left -= step;
      offset = 0;
    }
  }
  if (at != packetData) {
    ringFail(ch, L.RING_ERROR_EXTENDED_HEADER, at);
    return CORRUPT;
  }
  return result;
}

/** Where the next `bytes` bytes lie in one piece, or a private copy when they cross pages of one range. 0 = they end
 *  before that or lie in two ranges. The cursor stays. */
export function window(bytes: u32, copyTo: u32): u32 {
  const piece = pieceAt(pieceIndex);
  if (pieceIndex >= pieceCount) return 0;
  if (load<u32>(piece, 4) - pieceOffset >= bytes) return load<u32>(piece) + pieceOffset;
  let got: u32 = 0;
  let skip = pieceOffset;
  for (let i = pieceIndex; i < pieceCount && got < bytes; i++) {
    const at = pieceAt(i);
    if (load<u32>(at, 8) != load<u32>(piece, 8)) return 0;
    let n = load<u32>(at, 4) - skip;
    if (n > bytes - got) n = bytes - got;
    copyBytes(copyTo + got, load<u32>(at) + skip, n);
    got += n;
    skip = 0;
  }
  return got == bytes ? copyTo : 0;
}

/** Copies message bytes from the cursor on, whatever ranges they lie in. */
export function gather(to: u32, bytes: u32): void {
  let skip = pieceOffset;
  for (let i = pieceIndex; bytes != 0; i++) {
    const at = pieceAt(i);
    let n = load<u32>(at, 4) - skip;
    if (n > bytes) n = bytes;
    copyBytes(to, load<u32>(at) + skip, n);
    to += n;
    bytes -= n;
    skip = 0;
  }
}

export function advance(bytes: u32): void {
  while (bytes != 0) {
    const left = load<u32>(pieceAt(pieceIndex), 4) - pieceOffset;
    if (bytes < left) {
      pieceOffset += bytes;
      return;
    }
    bytes -= left;
    pieceIndex++;
    pieceOffset = 0;
  }
}

/** Cuts `bytes` bytes, `skip` bytes behind the cursor, into FRAGMENTs from `first` on; returns how many, 0 = table full.
 *  Headers that lie in several pieces are copied to `head`, which stands for them. */
export function cutFragments(first: u32, limit: u32, head: u32, skip: u32, bytes: u32, wanted: u32): u32 {
  const savedIndex = pieceIndex;
  const savedOffset = pieceOffset;
  let n: u32 = 0;
  let left = bytes;
  advance(skip);
  if (load<u32>(pieceAt(pieceIndex), 4) - pieceOffset < wanted) {
    if (limit == 0) return 0;
    gather(head, wanted);
    advance(wanted);
    store<u32>(first, head, L.FRAGMENT_ADDRESS);
    store<u32>(first, wanted, L.FRAGMENT_BYTES);
    n = 1;
    left -= wanted;
  }
  while (left != 0) {
    if (n >= limit) return 0;
    const piece = pieceAt(pieceIndex);
    let step = load<u32>(piece, 4) - pieceOffset;
    if (step > left) step = left;
    store<u32>(first + (n << 3), load<u32>(piece) + pieceOffset, L.FRAGMENT_ADDRESS);
    store<u32>(first + (n << 3), step, L.FRAGMENT_BYTES);
    n++;
    left -= step;
    advance(step);
  }
  pieceIndex = savedIndex;
  pieceOffset = savedOffset;
  return n;
}
