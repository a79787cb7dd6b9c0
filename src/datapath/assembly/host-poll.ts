// The host reads a guest's ring: data messages become frames, the rest events (facts/hyper-v-host.md 3 and 4).
import { putEvent } from './event';
import * as L from './generated';
import { checksumFrames, frameBytes, lsoFrames, parsePackets, parsePiece, vlanFrames } from './host-frames';
import { freeSuballocations } from './host-send';
import { leaveStaged, takeStaged } from './gpa';
import {
  addPiece,
  CORRUPT,
  GONE,
  gather,
  MISSING,
  missHigh,
  missLow,
  pieceAt,
  pieceCount,
  readRanges,
  resetPieces,
  TOO_MANY,
  totalBytes,
  window,
} from './pieces';
import {
  closePacket,
  count,
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
import { BODY, putNvspCompletion } from './rndis';
import { scratch } from './scratch';

const SUCCESS: u32 = 1;
const FAIL: u32 = 2;
const MAX_CONTROL: u32 = 16384; // longest RNDIS control message; the rest of a longer one is cut

const TAKEN: u32 = 0;
const LATER: u32 = 1; // not consumed: an event is waiting, or a table is full
const DEAD: u32 = 2;

function addTransaction(ch: u32, idLow: u32, idHigh: u32, status: u32): void {
  const n = load<u32>(ch, L.HOST_CHANNEL_TRANSACTION_COUNT);
  const at = load<u32>(ch, L.HOST_CHANNEL_TRANSACTIONS) + n * L.SIZEOF_TRANSACTION;
  store<u64>(at, <u64>idLow | (<u64>idHigh << 32), L.TRANSACTION_ID_LOW);
  store<u64>(at, <u64>status | (<u64>(packetFlags & 1) << 32), L.TRANSACTION_STATUS); // and WANTED
  store<u32>(ch, n + 1, L.HOST_CHANNEL_TRANSACTION_COUNT);
}

// What this poll adds to the counters.
let takenMessages: u32 = 0;
let takenBytes: u32 = 0;

/** The message's frames are in the table. */
@inline
function takeFrames(ch: u32, idLow: u32, idHigh: u32): u32 {
  addTransaction(ch, idLow, idHigh, SUCCESS);
  takenMessages++;
  takenBytes += frameBytes;
  if (lsoFrames) count(ch + L.HOST_CHANNEL_TX_LSO, lsoFrames);
  if (checksumFrames) count(ch + L.HOST_CHANNEL_TX_CHECKSUM, checksumFrames);
  if (vlanFrames) count(ch + L.HOST_CHANNEL_TX_VLAN, vlanFrames);
  return TAKEN;
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
  const section = load<u32>(payload, L.WIRE_NVSP_SEND_RNDIS_PACKET_SEND_BUFFER_SECTION_INDEX);
  let sectionAt: u32 = 0;
  let sectionBytes: u32 = 0;
  if (section != L.NO_SECTION) {
    sectionBytes = load<u32>(payload, L.WIRE_NVSP_SEND_RNDIS_PACKET_SEND_BUFFER_SECTION_SIZE);
    const offset = <u64>section * load<u32>(ch, L.HOST_CHANNEL_SEND_SECTION_BYTES);
    if (offset + sectionBytes > <u64>load<u32>(ch, L.HOST_CHANNEL_SEND_BYTES)) {
      ringFail(ch, L.RING_ERROR_BAD_SECTION, section);
      return DEAD;
    }
    sectionAt = load<u32>(ch, L.HOST_CHANNEL_SEND_BUFFER) + <u32>offset;
    if (packetType == 6 && sectionBytes != 0 && parsePiece(ch, sectionAt, sectionBytes)) return takeFrames(ch, idLow, idHigh);
  }
  resetPieces();
  if (sectionBytes != 0) addPiece(sectionAt, sectionBytes, 0);
  let error: u32 = L.FRAME_ERROR_NONE;
  if (packetType == 9) {
    const result = readRanges(ch);
    if (result == CORRUPT) return DEAD;
    if (result == TOO_MANY) error = L.FRAME_ERROR_TOO_MANY;
    if (result == GONE) error = L.FRAME_ERROR_PAGE_MISSING;
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
  if (error == L.FRAME_ERROR_NONE && (pieceCount != 1 || !parsePiece(ch, load<u32>(pieceAt(0)), totalBytes))) error = parsePackets(ch);
  if (error != L.FRAME_ERROR_NONE) {
    // With an empty table it may fit.
    if (error == L.FRAME_ERROR_TOO_MANY && load<u32>(ch, L.HOST_CHANNEL_FRAME_COUNT) != 0) return LATER;
    store<u32>(ch, error, L.HOST_CHANNEL_FRAME_ERROR);
    count(ch + L.HOST_CHANNEL_TX_FAILED, 1);
    addTransaction(ch, idLow, idHigh, FAIL);
    return TAKEN;
  }
  if (packetType == 9) count(ch + L.HOST_CHANNEL_TX_DIRECT, 1);
  return takeFrames(ch, idLow, idHigh);
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

/** Reads on to the index `end`, NO_SECTION = to what the guest has published. */
function poll(ch: u32, max: u32, end: u32): u32 {
  if (load<u32>(ch, L.CHANNEL_END_RING_ERROR) != 0 || hostComplete(ch) != 0) return 0;
  store<u32>(ch, 0, L.HOST_CHANNEL_TRANSACTION_COUNT);
  store<u32>(ch, 0, L.HOST_CHANNEL_TRANSACTIONS_DONE);
  store<u32>(ch, 0, L.HOST_CHANNEL_FRAME_COUNT);
  store<u32>(ch, 0, L.HOST_CHANNEL_FRAGMENT_COUNT);
  takenMessages = takenBytes = 0;
  const capacity = load<u32>(ch, L.HOST_CHANNEL_TRANSACTION_CAPACITY);
  const write = end == L.NO_SECTION ? readLimit(ch) : end;
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
  const frames = load<u32>(ch, L.HOST_CHANNEL_FRAME_COUNT);
  // It was about the first of them, which the guest may have changed.
  store<u32>(ch, 0, L.HOST_CHANNEL_REGION_MISS_FAILS);
  count(ch + L.HOST_CHANNEL_RING_PACKETS_IN, packets);
  count(ch + L.HOST_CHANNEL_TX_MESSAGES, takenMessages);
  count(ch + L.HOST_CHANNEL_TX_PACKETS, frames);
  count(ch + L.HOST_CHANNEL_TX_BYTES, takenBytes);
  ringRelease(ch, read);
  return frames;
}

export function hostPoll(ch: u32, max: u32): u32 {
  const staging = load<u32>(ch, L.HOST_CHANNEL_STAGING);
  if (staging == 0) return poll(ch, max, L.NO_SECTION);
  const frames = poll(ch, max, takeStaged(staging, ch));
  leaveStaged();
  return frames;
}

export function hostComplete(ch: u32): u32 {
  const n = load<u32>(ch, L.HOST_CHANNEL_TRANSACTION_COUNT);
  let i = load<u32>(ch, L.HOST_CHANNEL_TRANSACTIONS_DONE);
  if (i == n) return 0;
  const padded = (load<u32>(ch, L.HOST_CHANNEL_NVSP_BYTES) + 7) & ~7;
  const total = L.SIZEOF_WIRE_PACKET_DESCRIPTOR + padded + 8;
  const list = load<u32>(ch, L.HOST_CHANNEL_TRANSACTIONS);
  let packets: u32 = 0;
  for (; i < n; i++) {
    const from = list + i * L.SIZEOF_TRANSACTION;
    if (load<u32>(from, L.TRANSACTION_WANTED) == 0) continue;
    if (!ringRoom(ch, total)) {
      store<u32>(ch, total, L.CHANNEL_END_BLOCKED);
      count(ch + L.HOST_CHANNEL_RING_FULL, 1);
      break;
    }
    const at = openPacket(ch, total);
    storeDescriptor(at, 11, L.SIZEOF_WIRE_PACKET_DESCRIPTOR, total - 8, 0, load<u32>(from, L.TRANSACTION_ID_LOW), load<u32>(from, L.TRANSACTION_ID_HIGH));
    putNvspCompletion(at + L.SIZEOF_WIRE_PACKET_DESCRIPTOR, padded, load<u32>(from, L.TRANSACTION_STATUS));
    closePacket(ch, at, total);
    packets++;
  }
  store<u32>(ch, i, L.HOST_CHANNEL_TRANSACTIONS_DONE);
  count(ch + L.HOST_CHANNEL_RING_PACKETS_OUT, packets);
  ringPublish(ch);
  return n - i;
}
