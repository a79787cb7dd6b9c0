// RNDIS packet messages of a guest to FRAMEs. A frame stays where the guest put it; its bytes may change under us, so
// every length and offset is taken once and checked.
import * as L from './generated';
import { clearInfos, flags, l4Offset, mss, readInfos, tci } from './host-infos';
import { advance, cutFragments, pieceCount, totalBytes, window } from './pieces';
import { BODY, PACKET_HEADER } from './rndis';
import { scratch } from './scratch';

const SHORTEST: u32 = 14; // an Ethernet header
const MAX_INFO: u32 = 1024; // per-packet info that one packet may carry
const MAX_HEADER: u32 = 16384; // headers up to the end of the per-packet info

/** Fills a FRAME of `bytes` bytes whose `n` fragments are at `first`, the first of them at `head`. Two cells to a store. */
@inline
function fillFrame(frame: u32, first: u32, n: u32, head: u32, bytes: u32, source: u32, transaction: u32): void {
  store<u64>(frame, <u64>first | (<u64>n << 32), L.FRAME_FRAGMENTS);
  store<u64>(frame, <u64>bytes, L.FRAME_LENGTH); // and no flags
  v128.store(frame, i64x2.splat(0), L.FRAME_VLAN_TCI); // mss, l4Offset, hash
  store<u64>(frame, <u64>head | (<u64>source << 32), L.FRAME_HEAD);
  store<u64>(frame, <u64>transaction, L.FRAME_TRANSACTION); // and no sourceBuffer
}

/** What the infos said about it. */
function describeFrame(frame: u32): void {
  store<u32>(frame, flags, L.FRAME_FLAGS);
  store<u32>(frame, tci, L.FRAME_VLAN_TCI);
  store<u32>(frame, mss, L.FRAME_MSS);
  store<u32>(frame, l4Offset, L.FRAME_L4_OFFSET);
  if (flags & L.PACKET_FLAG_TX_TSO) lsoFrames++;
  else if (flags & (L.PACKET_FLAG_TX_TCP_CHECKSUM | L.PACKET_FLAG_TX_UDP_CHECKSUM)) checksumFrames++;
  if (flags & L.PACKET_FLAG_VLAN) vlanFrames++;
}

/** Zero when the message has neither out-of-band data nor a virtual circuit. */
@inline
function outOfBand(at: u32): u64 {
  const words = load<u64>(at, L.WIRE_RNDIS_PACKET_OOB_DATA_OFFSET); // and its length
  return words | load<u32>(at, L.WIRE_RNDIS_PACKET_OOB_DATA_COUNT) | load<u32>(at, L.WIRE_RNDIS_PACKET_VC_HANDLE);
}

export let lsoFrames: u32 = 0;
export let checksumFrames: u32 = 0;
export let vlanFrames: u32 = 0;
export let frameBytes: u32 = 0;

@inline
function clearCounts(): void {
  lsoFrames = checksumFrames = vlanFrames = frameBytes = 0;
}

/** The short way, for the packet messages back to back in one piece, as nearly all are. False = something is not as it
 *  should be, and no frame is added: parsePackets says what it is. */
export function parsePiece(ch: u32, at: u32, left: u32): bool {
  const longest = load<u32>(ch, L.HOST_CHANNEL_MAX_FRAME_BYTES);
  const source = load<u32>(ch, L.HOST_CHANNEL_PORT);
  const transaction = load<u32>(ch, L.HOST_CHANNEL_TRANSACTION_COUNT);
  const index = load<u32>(ch, L.HOST_CHANNEL_FRAME_COUNT);
  const used = load<u32>(ch, L.HOST_CHANNEL_FRAGMENT_COUNT);
  const firstFrame = load<u32>(ch, L.HOST_CHANNEL_FRAMES) + index * L.SIZEOF_FRAME;
  let fragment = load<u32>(ch, L.HOST_CHANNEL_FRAGMENTS) + used * L.SIZEOF_FRAGMENT;
  let room = load<u32>(ch, L.HOST_CHANNEL_FRAME_CAPACITY) - index;
  if (room > load<u32>(ch, L.HOST_CHANNEL_FRAGMENT_CAPACITY) - used) room = load<u32>(ch, L.HOST_CHANNEL_FRAGMENT_CAPACITY) - used;
  const last = firstFrame + room * L.SIZEOF_FRAME;
  let frame = firstFrame;
  let bytes: u32 = 0;
  clearCounts();
  for (; left != 0; frame += L.SIZEOF_FRAME) {
    if (frame == last) return false;
    if (left < PACKET_HEADER) return false;
    if (load<u32>(at) != 1) return false;
    const length = load<u32>(at, L.WIRE_RNDIS_PACKET_MESSAGE_LENGTH);
    if (length < PACKET_HEADER) return false;
    if (length > left) return false;
    const dataOffset = load<u32>(at, L.WIRE_RNDIS_PACKET_DATA_OFFSET);
    const dataBytes = load<u32>(at, L.WIRE_RNDIS_PACKET_DATA_LENGTH);
    const infoBytes = load<u32>(at, L.WIRE_RNDIS_PACKET_PER_PACKET_INFO_LENGTH);
    if (outOfBand(at) != 0) return false;
    const body = left - BODY;
    if (dataOffset > body) return false;
    if (dataBytes > body - dataOffset) return false;
    if (dataBytes < SHORTEST) return false;
    const data = at + BODY + dataOffset;
    store<u64>(fragment, <u64>data | (<u64>dataBytes << 32));
    fillFrame(frame, fragment, 1, data, dataBytes, source, transaction);
    if (infoBytes != 0) {
      const infoOffset = load<u32>(at, L.WIRE_RNDIS_PACKET_PER_PACKET_INFO_OFFSET);
      if (infoOffset > body) return false;
      if (infoBytes > body - infoOffset) return false;
      if (infoBytes > MAX_INFO || readInfos(at + BODY + infoOffset, infoBytes, dataBytes) != 0) return false;
      if (dataBytes > longest && (flags & L.PACKET_FLAG_TX_TSO) == 0) return false;
      if (flags != 0) describeFrame(frame);
    } else if (dataBytes > longest) return false;
    fragment += L.SIZEOF_FRAGMENT;
    bytes += dataBytes;
    at += length;
    left -= length;
  }
  const n = (frame - firstFrame) / L.SIZEOF_FRAME;
  store<u32>(ch, index + n, L.HOST_CHANNEL_FRAME_COUNT);
  store<u32>(ch, used + n, L.HOST_CHANNEL_FRAGMENT_COUNT);
  frameBytes = bytes;
  return true;
}

/** Parses the packet messages back to back in the pieces. Returns a FRAME_ERROR, and then none is added. */
export function parsePackets(ch: u32): u32 {
  const longest = load<u32>(ch, L.HOST_CHANNEL_MAX_FRAME_BYTES);
  clearCounts();
  const source = load<u32>(ch, L.HOST_CHANNEL_PORT);
  const transaction = load<u32>(ch, L.HOST_CHANNEL_TRANSACTION_COUNT);
  const fragments = load<u32>(ch, L.HOST_CHANNEL_FRAGMENTS);
  const fragmentCapacity = load<u32>(ch, L.HOST_CHANNEL_FRAGMENT_CAPACITY);
  const frames = load<u32>(ch, L.HOST_CHANNEL_FRAMES);
  const frameCapacity = load<u32>(ch, L.HOST_CHANNEL_FRAME_CAPACITY);
  let index = load<u32>(ch, L.HOST_CHANNEL_FRAME_COUNT);
  let used = load<u32>(ch, L.HOST_CHANNEL_FRAGMENT_COUNT);
  clearInfos();
  let left = totalBytes;
  let length: u32 = 0;
  for (; left != 0; left -= length) {
    if (left < BODY) return L.FRAME_ERROR_MESSAGE_LENGTH;
    // A header may not be split over ranges: the real host refuses that, and some Linux kernels produce it.
    const at = window(left < PACKET_HEADER ? BODY : PACKET_HEADER, scratch + L.SCRATCH_HEADER);
    if (at == 0) return L.FRAME_ERROR_HEADER_SPLIT;
    const type = load<u32>(at);
    length = load<u32>(at + 4);
    if (length < BODY || length > left) return L.FRAME_ERROR_MESSAGE_LENGTH;
    if (type != 1) return L.FRAME_ERROR_MESSAGE_TYPE;
    if (length < PACKET_HEADER) return L.FRAME_ERROR_MESSAGE_LENGTH;
    const dataOffset = load<u32>(at, L.WIRE_RNDIS_PACKET_DATA_OFFSET);
    const dataBytes = load<u32>(at, L.WIRE_RNDIS_PACKET_DATA_LENGTH);
    const infoOffset = load<u32>(at, L.WIRE_RNDIS_PACKET_PER_PACKET_INFO_OFFSET);
    const infoBytes = load<u32>(at, L.WIRE_RNDIS_PACKET_PER_PACKET_INFO_LENGTH);
    if (outOfBand(at) != 0) return L.FRAME_ERROR_OUT_OF_BAND;
    // Bounded by the remaining bytes, not by the message length, as the real host does.
    const body = left - BODY;
    if (dataBytes == 0 || dataOffset > body || dataBytes > body - dataOffset) return L.FRAME_ERROR_DATA_RANGE;
    if (flags != 0) clearInfos();
    if (infoBytes != 0) {
      if (infoOffset > body || infoBytes > body - infoOffset || infoBytes > MAX_INFO) return L.FRAME_ERROR_PPI_RANGE;
      const infoEnd = BODY + infoOffset + infoBytes;
      const whole = pieceCount != 1 && infoEnd > MAX_HEADER ? 0 : window(infoEnd, scratch + L.SCRATCH_HEADER);
      if (whole == 0) return L.FRAME_ERROR_HEADER_SPLIT;
      const error = readInfos(whole + BODY + infoOffset, infoBytes, dataBytes);
      if (error != 0) return error;
    }
    if (dataBytes < SHORTEST || (dataBytes > longest && (flags & L.PACKET_FLAG_TX_TSO) == 0)) return L.FRAME_ERROR_FRAME_LENGTH;
    if (index >= frameCapacity || used >= fragmentCapacity) return L.FRAME_ERROR_TOO_MANY;
    const first = fragments + (used << 3);
    const copy = load<u32>(ch, L.HOST_CHANNEL_HEADS) + index * L.HEAD_BYTES;
    const head = dataBytes < L.HEAD_BYTES ? dataBytes : L.HEAD_BYTES;
    const n = cutFragments(first, fragmentCapacity - used, copy, BODY + dataOffset, dataBytes, head);
    if (n == 0) return L.FRAME_ERROR_TOO_MANY;
    const frame = frames + index * L.SIZEOF_FRAME;
    fillFrame(frame, first, n, load<u32>(first, L.FRAGMENT_ADDRESS), dataBytes, source, transaction);
    index++;
    used += n;
    frameBytes += dataBytes;
    if (flags != 0) describeFrame(frame);
    advance(length);
  }
  store<u32>(ch, index, L.HOST_CHANNEL_FRAME_COUNT);
  store<u32>(ch, used, L.HOST_CHANNEL_FRAGMENT_COUNT);
  return L.FRAME_ERROR_NONE;
}
