// The host reads a guest's ring: data messages become frames, the rest events (facts/hyper-v-host.md 3 and 4). A frame
// stays where the guest put it; its bytes may change under us, so every length and offset is taken once and checked.
import { copyBytes } from './copy';
import { putEvent } from './event';
import * as L from './generated';
import { scratch } from './scratch';
import { BODY, PACKET_HEADER, vlanTci } from './rndis';
import {
  closePacket,
  count,
  MAX_PACKET,
  nextPacket,
  openPacket,
  packetAt,
  packetBytes,
  packetData,
  packetFlags,
  packetNext,
  packetType,
  readLimit,
  ringFail,
  ringPublish,
  ringRelease,
  ringRoom,
  storeDescriptor,
} from './ring';
import { freeSuballocations } from './host-send';

const SUCCESS: u32 = 1;
const FAIL: u32 = 2;
const MAX_INFO: u32 = 1024; // per-packet info that one packet may carry
const MAX_PIECES: u32 = 1024; // pieces of one message's bytes: section and pages
const MAX_CONTROL: u32 = 16384;

// The bytes of the message at hand: pieces in order, {address, bytes, range}. Pieces of one GPA range that lie side by
// side in our mapping are one piece.
@inline
function pieceAt(index: u32): u32 {
  return scratch + L.SCRATCH_PIECES + (index << 4);
}
let pieceCount: u32 = 0;
let totalBytes: u32 = 0;
let pieceIndex: u32 = 0; // cursor
let pieceOffset: u32 = 0;
let missLow: u32 = 0;
let missHigh: u32 = 0;

function addPiece(address: u32, bytes: u32, range: u32): bool {
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

/** Our address of a guest page, or 0. */
function findPage(ch: u32, low: u32, high: u32): u32 {
  const regions = load<u32>(ch, L.HOST_CHANNEL_REGIONS);
  const n = load<u32>(ch, L.HOST_CHANNEL_REGION_COUNT);
  const pfn = (<u64>high << 32) | low;
  for (let i: u32 = 0; i < n; i++) {
    const region = regions + i * L.SIZEOF_GPA_REGION;
    const first = (<u64>load<u32>(region, L.GPA_REGION_PFN_HIGH) << 32) | load<u32>(region, L.GPA_REGION_PFN_LOW);
    const page = pfn - first;
    if (pfn >= first && page < load<u32>(region, L.GPA_REGION_PAGES)) return load<u32>(region, L.GPA_REGION_ADDRESS) + (<u32>page << 12);
  }
  return 0;
}

const OK: u32 = 0;
const CORRUPT: u32 = 1; // ring error set
const MISSING: u32 = 2; // page in missLow/missHigh
const TOO_MANY: u32 = 3;

/** Reads the GPA ranges of the packet at hand into pieces; every word of the descriptor is loaded once. */
function readRanges(ch: u32): u32 {
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
      const page = result == OK ? findPage(ch, low, high) : 0;
      if (page == 0) {
        if (result == OK) {
          missLow = low;
          missHigh = high;
          result = MISSING;
        }
      } else if (!addPiece(page + offset, step, r + 1)) result = TOO_MANY;
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
function window(bytes: u32, copyTo: u32): u32 {
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
function gather(to: u32, bytes: u32): void {
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

function advance(bytes: u32): void {
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

// What the per-packet info of the message at hand asked for.
let flags: u32 = 0;
let l4Offset: u32 = 0;
let mss: u32 = 0;
let tci: u32 = 0;

/** Reads per-packet info at `at` (one piece or private). Returns a FRAME_ERROR. */
function readInfos(at: u32, left: u32, dataBytes: u32): u32 {
  flags = 0;
  l4Offset = 0;
  mss = 0;
  while (left != 0) {
    if (left < 12) return L.FRAME_ERROR_PPI_SIZE;
    const size = load<u32>(at, L.WIRE_PER_PACKET_INFO_SIZE);
    const type = load<u32>(at, L.WIRE_PER_PACKET_INFO_TYPE);
    const offset = load<u32>(at, L.WIRE_PER_PACKET_INFO_DATA_OFFSET);
    if (size < 12 || size > left) return L.FRAME_ERROR_PPI_SIZE;
    if (type == L.PPI_TYPE_CHECKSUM || type == L.PPI_TYPE_LSO || type == L.PPI_TYPE_VLAN) {
      if (offset < 12 || offset > size || size - offset < 4) return L.FRAME_ERROR_PPI_SIZE;
      const word = load<u32>(at + offset);
      if (type == L.PPI_TYPE_VLAN) {
        tci = vlanTci(word);
        flags |= L.PACKET_FLAG_VLAN;
      } else {
        const error = type == L.PPI_TYPE_LSO ? readLso(word, dataBytes) : readChecksum(word, dataBytes);
        if (error != 0) return error;
      }
    }
    at += size;
    left -= size;
  }
  return L.FRAME_ERROR_NONE;
}

function readChecksum(word: u32, dataBytes: u32): u32 {
  const v4 = (word & L.PPI_TX_CHECKSUM_IPV4) != 0;
  const v6 = !v4 && (word & L.PPI_TX_CHECKSUM_IPV6) != 0;
  if (!v4 && !v6) return L.FRAME_ERROR_NONE;
  flags |= v4 ? L.PACKET_FLAG_IPV4 : L.PACKET_FLAG_IPV6;
  if (v4 && word & L.PPI_TX_CHECKSUM_IP_HEADER) flags |= L.PACKET_FLAG_TX_IP_CHECKSUM;
  if (word & L.PPI_TX_CHECKSUM_TCP) flags |= L.PACKET_FLAG_TX_TCP_CHECKSUM | L.PACKET_FLAG_TCP;
  else if (word & L.PPI_TX_CHECKSUM_UDP) flags |= L.PACKET_FLAG_TX_UDP_CHECKSUM | L.PACKET_FLAG_UDP;
  else return L.FRAME_ERROR_NONE;
  return headerOffset((word >>> L.PPI_TX_CHECKSUM_HEADER_OFFSET_SHIFT) & 0x3ff, v4, dataBytes);
}

function readLso(word: u32, dataBytes: u32): u32 {
  const v4 = (word & L.PPI_LSO_IPV6) == 0;
  flags |= L.PACKET_FLAG_TX_TSO | L.PACKET_FLAG_TX_TCP_CHECKSUM | L.PACKET_FLAG_TCP;
  flags |= v4 ? L.PACKET_FLAG_IPV4 | L.PACKET_FLAG_TX_IP_CHECKSUM : L.PACKET_FLAG_IPV6;
  mss = word & 0xfffff;
  const error = headerOffset((word >>> L.PPI_LSO_HEADER_OFFSET_SHIFT) & 0x3ff, v4, dataBytes);
  if (error != 0) return error;
  return mss == 0 || mss > 0xffff || l4Offset + 20 > dataBytes ? L.FRAME_ERROR_HEADER_OFFSET : L.FRAME_ERROR_NONE;
}

/** 0 stands for the shortest header; anything else must lie behind one and inside the frame. */
function headerOffset(offset: u32, v4: bool, dataBytes: u32): u32 {
  const least: u32 = v4 ? 34 : 54;
  if (offset == 0) offset = least;
  else if (offset < least) return L.FRAME_ERROR_HEADER_OFFSET;
  if (offset >= dataBytes) return L.FRAME_ERROR_HEADER_OFFSET;
  l4Offset = offset;
  return L.FRAME_ERROR_NONE;
}

/** Cuts `bytes` bytes, `skip` bytes behind the cursor, into FRAGMENTs from `first` on; returns how many, 0 = table full.
 *  Headers that lie in several pieces are copied to `head`, which stands for them. */
function cutFragments(first: u32, limit: u32, head: u32, skip: u32, bytes: u32, wanted: u32): u32 {
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

/** Makes a FRAME of `bytes` bytes that begin `skip` bytes behind the cursor; `flat` is their address when the whole
 *  message is one piece, else 0. Returns a FRAME_ERROR. */
@inline
function addFrame(ch: u32, flat: u32, skip: u32, bytes: u32): u32 {
  const index = load<u32>(ch, L.HOST_CHANNEL_FRAME_COUNT);
  const used = load<u32>(ch, L.HOST_CHANNEL_FRAGMENT_COUNT);
  const capacity = load<u32>(ch, L.HOST_CHANNEL_FRAGMENT_CAPACITY);
  if (index >= load<u32>(ch, L.HOST_CHANNEL_FRAME_CAPACITY) || used >= capacity) return L.FRAME_ERROR_TOO_MANY;
  const first = load<u32>(ch, L.HOST_CHANNEL_FRAGMENTS) + (used << 3);
  const frame = load<u32>(ch, L.HOST_CHANNEL_FRAMES) + index * L.SIZEOF_FRAME;
  let n: u32 = 1;
  if (flat != 0) {
    store<u32>(first, flat, L.FRAGMENT_ADDRESS);
    store<u32>(first, bytes, L.FRAGMENT_BYTES);
  } else {
    const copy = load<u32>(ch, L.HOST_CHANNEL_HEADS) + index * L.HEAD_BYTES;
    n = cutFragments(first, capacity - used, copy, skip, bytes, bytes < L.HEAD_BYTES ? bytes : L.HEAD_BYTES);
    if (n == 0) return L.FRAME_ERROR_TOO_MANY;
  }
  store<u32>(frame, first, L.FRAME_FRAGMENTS);
  store<u32>(frame, n, L.FRAME_FRAGMENT_COUNT);
  store<u32>(frame, bytes, L.FRAME_LENGTH);
  store<u32>(frame, flags, L.FRAME_FLAGS);
  store<u32>(frame, tci, L.FRAME_VLAN_TCI);
  store<u32>(frame, mss, L.FRAME_MSS);
  store<u32>(frame, l4Offset, L.FRAME_L4_OFFSET);
  store<u32>(frame, 0, L.FRAME_HASH);
  store<u32>(frame, load<u32>(first, L.FRAGMENT_ADDRESS), L.FRAME_HEAD);
  store<u32>(frame, load<u32>(ch, L.HOST_CHANNEL_PORT), L.FRAME_SOURCE);
  store<u32>(frame, load<u32>(ch, L.HOST_CHANNEL_TRANSACTION_COUNT), L.FRAME_TRANSACTION);
  store<u32>(frame, 0, L.FRAME_SOURCE_BUFFER);
  store<u32>(ch, used + n, L.HOST_CHANNEL_FRAGMENT_COUNT);
  store<u32>(ch, index + 1, L.HOST_CHANNEL_FRAME_COUNT);
  return L.FRAME_ERROR_NONE;
}

let lsoFrames: u32 = 0;
let checksumFrames: u32 = 0;
let vlanFrames: u32 = 0;
let frameBytes: u32 = 0;

/** Parses the packet messages back to back in the pieces. Returns a FRAME_ERROR; frames already added are taken back
 *  by the caller. */
function parsePackets(ch: u32): u32 {
  const longest = load<u32>(ch, L.HOST_CHANNEL_MAX_FRAME_BYTES);
  lsoFrames = checksumFrames = vlanFrames = frameBytes = 0;
  const flat = pieceCount == 1;
  let left = totalBytes;
  let at = load<u32>(pieceAt(0));
  let length: u32 = 0;
  for (; left != 0; left -= length) {
    if (left < BODY) return L.FRAME_ERROR_MESSAGE_LENGTH;
    if (!flat) {
      // A header may not be split over ranges: the real host refuses that, and some Linux kernels produce it.
      at = window(left < PACKET_HEADER ? BODY : PACKET_HEADER, scratch + L.SCRATCH_HEADER);
      if (at == 0) return L.FRAME_ERROR_HEADER_SPLIT;
    }
    const type = load<u32>(at);
    length = load<u32>(at + 4);
    if (length < BODY || length > left) return L.FRAME_ERROR_MESSAGE_LENGTH;
    if (type != 1) return L.FRAME_ERROR_MESSAGE_TYPE;
    if (length < PACKET_HEADER) return L.FRAME_ERROR_MESSAGE_LENGTH;
    const dataOffset = load<u32>(at, L.WIRE_RNDIS_PACKET_DATA_OFFSET);
    const dataBytes = load<u32>(at, L.WIRE_RNDIS_PACKET_DATA_LENGTH);
    const infoOffset = load<u32>(at, L.WIRE_RNDIS_PACKET_PER_PACKET_INFO_OFFSET);
    const infoBytes = load<u32>(at, L.WIRE_RNDIS_PACKET_PER_PACKET_INFO_LENGTH);
    const oob =
      load<u32>(at, L.WIRE_RNDIS_PACKET_OOB_DATA_OFFSET) |
      load<u32>(at, L.WIRE_RNDIS_PACKET_OOB_DATA_LENGTH) |
      load<u32>(at, L.WIRE_RNDIS_PACKET_OOB_DATA_COUNT) |
      load<u32>(at, L.WIRE_RNDIS_PACKET_VC_HANDLE);
    if (oob != 0) return L.FRAME_ERROR_OUT_OF_BAND;
    // Bounded by the remaining bytes, not by the message length, as the real host does.
    const body = left - BODY;
    if (dataBytes == 0 || dataOffset > body || dataBytes > body - dataOffset) return L.FRAME_ERROR_DATA_RANGE;
    flags = 0;
    l4Offset = 0;
    mss = 0;
    tci = 0;
    if (infoBytes != 0) {
      if (infoOffset > body || infoBytes > body - infoOffset || infoBytes > MAX_INFO) return L.FRAME_ERROR_PPI_RANGE;
      const infoEnd = BODY + infoOffset + infoBytes;
      const whole = flat ? at : infoEnd > MAX_CONTROL ? 0 : window(infoEnd, scratch + L.SCRATCH_HEADER);
      if (whole == 0) return L.FRAME_ERROR_HEADER_SPLIT;
      const error = readInfos(whole + BODY + infoOffset, infoBytes, dataBytes);
      if (error != 0) return error;
    }
    if (dataBytes < 14 || (dataBytes > longest && (flags & L.PACKET_FLAG_TX_TSO) == 0)) return L.FRAME_ERROR_FRAME_LENGTH;
    const error = addFrame(ch, flat ? at + BODY + dataOffset : 0, BODY + dataOffset, dataBytes);
    if (error != 0) return error;
    frameBytes += dataBytes;
    if (flags & L.PACKET_FLAG_TX_TSO) lsoFrames++;
    else if (flags & (L.PACKET_FLAG_TX_TCP_CHECKSUM | L.PACKET_FLAG_TX_UDP_CHECKSUM)) checksumFrames++;
    if (flags & L.PACKET_FLAG_VLAN) vlanFrames++;
    if (flat) at += length;
    else advance(length);
  }
  return L.FRAME_ERROR_NONE;
}

const TAKEN: u32 = 0;
const LATER: u32 = 1; // not consumed: an event is waiting, or a table is full
const DEAD: u32 = 2;

function addTransaction(ch: u32, idLow: u32, idHigh: u32, status: u32): void {
  const n = load<u32>(ch, L.HOST_CHANNEL_TRANSACTION_COUNT);
  const at = load<u32>(ch, L.HOST_CHANNEL_TRANSACTIONS) + n * L.SIZEOF_TRANSACTION;
  store<u32>(at, idLow, L.TRANSACTION_ID_LOW);
  store<u32>(at, idHigh, L.TRANSACTION_ID_HIGH);
  store<u32>(at, status, L.TRANSACTION_STATUS);
  store<u32>(at, packetFlags & 1, L.TRANSACTION_WANTED);
  store<u32>(ch, n + 1, L.HOST_CHANNEL_TRANSACTION_COUNT);
}

/** An NVSP message: in-band or with GPA ranges. */
function takeMessage(ch: u32): u32 {
  const idLow = load<u32>(packetAt, L.WIRE_PACKET_DESCRIPTOR_TRANSACTION_ID);
  const idHigh = load<u32>(packetAt + 4, L.WIRE_PACKET_DESCRIPTOR_TRANSACTION_ID);
  const payload = packetAt + packetData;
  const bytes = packetBytes - packetData;
  if (load<u32>(ch, L.HOST_CHANNEL_READY) == 0 || bytes < 4 || load<u32>(payload) != 107) {
    return putEvent(ch, L.EVENT_KIND_NVSP, idLow, idHigh, packetFlags & 1, packetType, payload, bytes) ? TAKEN : LATER;
  }
  if (bytes < 16) {
    ringFail(ch, L.RING_ERROR_NVSP_SHORT, bytes);
    return DEAD;
  }
  pieceCount = pieceIndex = pieceOffset = totalBytes = 0;
  const section = load<u32>(payload, L.WIRE_NVSP_SEND_RNDIS_PACKET_SEND_BUFFER_SECTION_INDEX);
  if (section != L.NO_SECTION) {
    const sectionBytes = load<u32>(payload, L.WIRE_NVSP_SEND_RNDIS_PACKET_SEND_BUFFER_SECTION_SIZE);
    const offset = <u64>section * load<u32>(ch, L.HOST_CHANNEL_SEND_SECTION_BYTES);
    if (offset + sectionBytes > <u64>load<u32>(ch, L.HOST_CHANNEL_SEND_BYTES)) {
      ringFail(ch, L.RING_ERROR_BAD_SECTION, section);
      return DEAD;
    }
    if (sectionBytes != 0) addPiece(load<u32>(ch, L.HOST_CHANNEL_SEND_BUFFER) + <u32>offset, sectionBytes, 0);
  }
  let error: u32 = L.FRAME_ERROR_NONE;
  if (packetType == 9) {
    const result = readRanges(ch);
    if (result == CORRUPT) return DEAD;
    if (result == TOO_MANY) error = L.FRAME_ERROR_TOO_MANY;
    if (result == MISSING) {
      if (load<u32>(ch, L.HOST_CHANNEL_REGION_MISS_FAILS) == 0) {
        putEvent(ch, L.EVENT_KIND_GPA_MISS, missLow, missHigh, 0, 0, 0, 0);
        return LATER;
      }
      store<u32>(ch, 0, L.HOST_CHANNEL_REGION_MISS_FAILS);
      error = L.FRAME_ERROR_PAGE_MISSING;
    }
  }
  if (error == L.FRAME_ERROR_NONE) {
    const first = window(BODY, scratch + L.SCRATCH_HEADER);
    if (first == 0) error = totalBytes < BODY ? L.FRAME_ERROR_MESSAGE_LENGTH : L.FRAME_ERROR_HEADER_SPLIT;
    else if (load<u32>(first) != 1) {
      const n = totalBytes < MAX_CONTROL ? totalBytes : MAX_CONTROL;
      gather(scratch + L.SCRATCH_HEADER, n);
      return putEvent(ch, L.EVENT_KIND_RNDIS_CONTROL, idLow, idHigh, packetFlags & 1, 0, scratch + L.SCRATCH_HEADER, n) ? TAKEN : LATER;
    }
  }
  const frames = load<u32>(ch, L.HOST_CHANNEL_FRAME_COUNT);
  const fragments = load<u32>(ch, L.HOST_CHANNEL_FRAGMENT_COUNT);
  if (error == L.FRAME_ERROR_NONE) error = parsePackets(ch);
  if (error != L.FRAME_ERROR_NONE) {
    store<u32>(ch, frames, L.HOST_CHANNEL_FRAME_COUNT);
    store<u32>(ch, fragments, L.HOST_CHANNEL_FRAGMENT_COUNT);
    // With an empty table it may fit.
    if (error == L.FRAME_ERROR_TOO_MANY && frames != 0) return LATER;
    store<u32>(ch, error, L.HOST_CHANNEL_FRAME_ERROR);
    count(ch + L.HOST_CHANNEL_TX_FAILED, 1);
    addTransaction(ch, idLow, idHigh, FAIL);
    return TAKEN;
  }
  addTransaction(ch, idLow, idHigh, SUCCESS);
  count(ch + L.HOST_CHANNEL_TX_MESSAGES, 1);
  count(ch + L.HOST_CHANNEL_TX_PACKETS, load<u32>(ch, L.HOST_CHANNEL_FRAME_COUNT) - frames);
  count(ch + L.HOST_CHANNEL_TX_BYTES, frameBytes);
  if (packetType == 9) count(ch + L.HOST_CHANNEL_TX_DIRECT, 1);
  if (lsoFrames) count(ch + L.HOST_CHANNEL_TX_LSO, lsoFrames);
  if (checksumFrames) count(ch + L.HOST_CHANNEL_TX_CHECKSUM, checksumFrames);
  if (vlanFrames) count(ch + L.HOST_CHANNEL_TX_VLAN, vlanFrames);
  return TAKEN;
}

/** The guest gives a receive-buffer chain back. */
function takeCompletion(ch: u32): u32 {
  const idLow = load<u32>(packetAt, L.WIRE_PACKET_DESCRIPTOR_TRANSACTION_ID);
  const idHigh = load<u32>(packetAt + 4, L.WIRE_PACKET_DESCRIPTOR_TRANSACTION_ID);
  const payload = packetAt + packetData;
  const bytes = packetBytes - packetData;
  if (idHigh != 0 || load<u32>(ch, L.HOST_CHANNEL_READY) == 0) {
    return putEvent(ch, L.EVENT_KIND_COMPLETION, idLow, idHigh, 0, 0, payload, bytes) ? TAKEN : LATER;
  }
  if (bytes < 4) {
    ringFail(ch, L.RING_ERROR_NVSP_SHORT, bytes);
    return DEAD;
  }
  const message = load<u32>(payload);
  if (message != 108) {
    ringFail(ch, L.RING_ERROR_NVSP_UNKNOWN, message);
    return DEAD;
  }
  if (!freeSuballocations(ch, idLow)) {
    ringFail(ch, L.RING_ERROR_UNKNOWN_TRANSACTION, idLow);
    return DEAD;
  }
  count(ch + L.HOST_CHANNEL_RX_COMPLETIONS, 1);
  return TAKEN;
}

export function hostPoll(ch: u32, max: u32): u32 {
  if (load<u32>(ch, L.CHANNEL_END_RING_ERROR) != 0 || hostComplete(ch) != 0) return 0;
  store<u32>(ch, 0, L.HOST_CHANNEL_TRANSACTION_COUNT);
  store<u32>(ch, 0, L.HOST_CHANNEL_TRANSACTIONS_DONE);
  store<u32>(ch, 0, L.HOST_CHANNEL_FRAME_COUNT);
  store<u32>(ch, 0, L.HOST_CHANNEL_FRAGMENT_COUNT);
  const capacity = load<u32>(ch, L.HOST_CHANNEL_TRANSACTION_CAPACITY);
  const write = readLimit(ch);
  let read = load<u32>(ch, L.CHANNEL_END_READ_INDEX);
  let packets: u32 = 0;
  while (read != write && load<u32>(ch, L.HOST_CHANNEL_FRAME_COUNT) < max && load<u32>(ch, L.HOST_CHANNEL_TRANSACTION_COUNT) < capacity) {
    if (!nextPacket(ch, read, write)) break;
    let result = TAKEN;
    const next = packetNext;
    if (packetType == 11) result = takeCompletion(ch);
    else if (packetType == 7) {
      ringFail(ch, L.RING_ERROR_TYPE, 7);
      result = DEAD;
    } else result = takeMessage(ch);
    if (result == LATER) break;
    read = next; // what killed the channel counts as consumed, as on a real host
    packets++;
    if (result == DEAD) break;
    // Control messages change how the next packets are to be read.
    if (load<u32>(ch, L.HOST_CHANNEL_EVENT_USED) != 0) break;
  }
  count(ch + L.HOST_CHANNEL_RING_PACKETS_IN, packets);
  ringRelease(ch, read);
  return load<u32>(ch, L.HOST_CHANNEL_FRAME_COUNT);
}

export function hostComplete(ch: u32): u32 {
  const n = load<u32>(ch, L.HOST_CHANNEL_TRANSACTION_COUNT);
  let i = load<u32>(ch, L.HOST_CHANNEL_TRANSACTIONS_DONE);
  if (i == n) return 0;
  const payload = load<u32>(ch, L.HOST_CHANNEL_NVSP_BYTES);
  const padded = (payload + 7) & ~7;
  const total = L.SIZEOF_WIRE_PACKET_DESCRIPTOR + padded + 8;
  let packets: u32 = 0;
  for (; i < n; i++) {
    const from = load<u32>(ch, L.HOST_CHANNEL_TRANSACTIONS) + i * L.SIZEOF_TRANSACTION;
    if (load<u32>(from, L.TRANSACTION_WANTED) == 0) continue;
    if (!ringRoom(ch, total)) {
      store<u32>(ch, total, L.CHANNEL_END_BLOCKED);
      count(ch + L.HOST_CHANNEL_RING_FULL, 1);
      break;
    }
    const at = openPacket(ch, total);
    const body = at + L.SIZEOF_WIRE_PACKET_DESCRIPTOR;
    storeDescriptor(at, 11, L.SIZEOF_WIRE_PACKET_DESCRIPTOR, total - 8, 0, load<u32>(from, L.TRANSACTION_ID_LOW), load<u32>(from, L.TRANSACTION_ID_HIGH));
    store<u32>(body, 108);
    store<u32>(body + 4, load<u32>(from, L.TRANSACTION_STATUS));
    for (let k: u32 = 8; k < padded; k += 8) store<u64>(body + k, 0);
    closePacket(ch, at, total);
    packets++;
  }
  store<u32>(ch, i, L.HOST_CHANNEL_TRANSACTIONS_DONE);
  count(ch + L.HOST_CHANNEL_RING_PACKETS_OUT, packets);
  ringPublish(ch);
  return n - i;
}
