// RNDIS packet messages of a guest to FRAMEs. A frame stays where the guest put it; its bytes may change under us, so
// every length and offset is taken once and checked.
import * as L from './generated';
import { clearInfos, flags, l4Offset, mss, readInfos, tci } from './host-infos';
import { advance, cutFragments, pieceAt, pieceCount, totalBytes, window } from './pieces';
import { BODY, PACKET_HEADER } from './rndis';
import { scratch } from './scratch';

const MAX_INFO: u32 = 1024; // per-packet info that one packet may carry
const MAX_HEADER: u32 = 16384; // headers up to the end of the per-packet info

/** Fills a FRAME of `bytes` bytes whose fragments are at `first`. */
@inline
function fillFrame(frame: u32, first: u32, n: u32, bytes: u32, source: u32, transaction: u32): void {
  store<u32>(frame, first, L.FRAME_FRAGMENTS);
  store<u32>(frame, n, L.FRAME_FRAGMENT_COUNT);
  store<u32>(frame, bytes, L.FRAME_LENGTH);
  if (flags == 0) v128.store(frame, i64x2.splat(0), L.FRAME_FLAGS); // most packets: nothing to do, no tag
  else {
    store<u32>(frame, flags, L.FRAME_FLAGS);
    store<u32>(frame, tci, L.FRAME_VLAN_TCI);
    store<u32>(frame, mss, L.FRAME_MSS);
    store<u32>(frame, l4Offset, L.FRAME_L4_OFFSET);
  }
  store<u32>(frame, 0, L.FRAME_HASH);
  store<u32>(frame, load<u32>(first, L.FRAGMENT_ADDRESS), L.FRAME_HEAD);
  store<u32>(frame, source, L.FRAME_SOURCE);
  store<u32>(frame, transaction, L.FRAME_TRANSACTION);
  store<u32>(frame, 0, L.FRAME_SOURCE_BUFFER);
}

export let lsoFrames: u32 = 0;
export let checksumFrames: u32 = 0;
export let vlanFrames: u32 = 0;
export let frameBytes: u32 = 0;

/** Parses the packet messages back to back in the pieces. Returns a FRAME_ERROR, and then none is
 *  added. */
export function parsePackets(ch: u32): u32 {
  const longest = load<u32>(ch, L.HOST_CHANNEL_MAX_FRAME_BYTES);
  lsoFrames = checksumFrames = vlanFrames = frameBytes = 0;
  const source = load<u32>(ch, L.HOST_CHANNEL_PORT);
  const transaction = load<u32>(ch, L.HOST_CHANNEL_TRANSACTION_COUNT);
  const fragments = load<u32>(ch, L.HOST_CHANNEL_FRAGMENTS);
  const fragmentCapacity = load<u32>(ch, L.HOST_CHANNEL_FRAGMENT_CAPACITY);
  const frames = load<u32>(ch, L.HOST_CHANNEL_FRAMES);
  const frameCapacity = load<u32>(ch, L.HOST_CHANNEL_FRAME_CAPACITY);
  let index = load<u32>(ch, L.HOST_CHANNEL_FRAME_COUNT);
  let used = load<u32>(ch, L.HOST_CHANNEL_FRAGMENT_COUNT);
  const flat = pieceCount == 1; // one piece, as every send section is
  clearInfos();
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
    if (flags != 0) clearInfos();
    if (infoBytes != 0) {
      if (infoOffset > body || infoBytes > body - infoOffset || infoBytes > MAX_INFO) return L.FRAME_ERROR_PPI_RANGE;
      const infoEnd = BODY + infoOffset + infoBytes;
      const whole = flat ? at : infoEnd > MAX_HEADER ? 0 : window(infoEnd, scratch + L.SCRATCH_HEADER);
      if (whole == 0) return L.FRAME_ERROR_HEADER_SPLIT;
      const error = readInfos(whole + BODY + infoOffset, infoBytes, dataBytes);
      if (error != 0) return error;
    }
    if (dataBytes < 14 || (dataBytes > longest && (flags & L.PACKET_FLAG_TX_TSO) == 0)) return L.FRAME_ERROR_FRAME_LENGTH;
    if (index >= frameCapacity || used >= fragmentCapacity) return L.FRAME_ERROR_TOO_MANY;
    const first = fragments + (used << 3);
    let n: u32 = 1;
    if (flat) {
      store<u32>(first, at + BODY + dataOffset, L.FRAGMENT_ADDRESS);
      store<u32>(first, dataBytes, L.FRAGMENT_BYTES);
    } else {
      const copy = load<u32>(ch, L.HOST_CHANNEL_HEADS) + index * L.HEAD_BYTES;
      const head = dataBytes < L.HEAD_BYTES ? dataBytes : L.HEAD_BYTES;
      n = cutFragments(first, fragmentCapacity - used, copy, BODY + dataOffset, dataBytes, head);
      if (n == 0) return L.FRAME_ERROR_TOO_MANY;
    }
    fillFrame(frames + index * L.SIZEOF_FRAME, first, n, dataBytes, source, transaction);
    index++;
    used += n;
    frameBytes += dataBytes;
    if (flags != 0) {
      if (flags & L.PACKET_FLAG_TX_TSO) lsoFrames++;
      else if (flags & (L.PACKET_FLAG_TX_TCP_CHECKSUM | L.PACKET_FLAG_TX_UDP_CHECKSUM)) checksumFrames++;
      if (flags & L.PACKET_FLAG_VLAN) vlanFrames++;
    }
    if (flat) at += length;
    else advance(length);
  }
  store<u32>(ch, index, L.HOST_CHANNEL_FRAME_COUNT);
  store<u32>(ch, used, L.HOST_CHANNEL_FRAGMENT_COUNT);
  return L.FRAME_ERROR_NONE;
}
