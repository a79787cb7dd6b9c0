// The host delivers frames to a guest: receive-buffer suballocations, RNDIS header and per-packet info, one
// transfer-page packet for a burst (facts/hyper-v-host.md 8).
import { checksumFinish } from './checksum';
import { copyBytes } from './copy';
import * as L from './generated';
import { scratch } from './scratch';
import { PACKET_HEADER, pair, PPI_SIZE, putNvspData, putPacketHeader, putPpi, vlanInfo } from './rndis';
import { closePacket, count, openPacket, ringFail, ringFree, ringPublish, ringRoom, storeDescriptor } from './ring';

const DATA_AT: u32 = 256; // where a frame begins in its suballocation
const TAIL: u32 = 36; // unusable: a bug of Windows' netvsc
const TRANSFER_HEADER: u32 = 24; // descriptor and transfer-page header
const NONE: u32 = 0xffffffff;
const UNFINISHED: u32 = L.PACKET_FLAG_TX_TCP_CHECKSUM | L.PACKET_FLAG_TX_UDP_CHECKSUM;

/** Ring bytes that receive traffic leaves free, for completions (facts/hyper-v-host.md 1.3). */
const SPARE: u32 = 2048;

@inline
function cell(ch: u32, index: u32): u32 {
  return load<u32>(ch, L.HOST_CHANNEL_SUBALLOCATIONS) + (index << 2);
}

export function hostReset(ch: u32): void {
  const total = load<u32>(ch, L.HOST_CHANNEL_SUBALLOCATION_COUNT);
  const control = load<u32>(ch, L.HOST_CHANNEL_FIRST_DATA_SUBALLOCATION);
  for (let i: u32 = 0; i < total; i++) store<u32>(cell(ch, i), L.SUBALLOCATION_FREE);
  // Lowest numbers on top of the stacks.
  for (let i: u32 = 0; i < control; i++) store<u32>(load<u32>(ch, L.HOST_CHANNEL_FREE_CONTROL) + (i << 2), control - 1 - i);
  for (let i: u32 = control; i < total; i++) store<u32>(load<u32>(ch, L.HOST_CHANNEL_FREE_SUBALLOCATIONS) + ((i - control) << 2), total - 1 - (i - control));
  store<u32>(ch, control, L.HOST_CHANNEL_FREE_CONTROL_COUNT);
  store<u32>(ch, total - control, L.HOST_CHANNEL_FREE_SUBALLOCATION_COUNT);
  store<u32>(ch, 0, L.HOST_CHANNEL_TRANSACTION_COUNT);
  store<u32>(ch, 0, L.HOST_CHANNEL_TRANSACTIONS_DONE);
  store<u32>(ch, 0, L.HOST_CHANNEL_FRAME_COUNT);
  store<u32>(ch, 0, L.HOST_CHANNEL_EVENT_USED);
}

/** Divides the data suballocations of `primary`'s buffer among `n` channels (u32 array of addresses), the last of which
 *  takes the remainder. Those that the guest has return to their new owner. `stacks`: where the free stacks go, one
 *  behind the other. */
export function hostDivide(primary: u32, channels: u32, n: u32, stacks: u32): void {
  const total = load<u32>(primary, L.HOST_CHANNEL_SUBALLOCATION_COUNT);
  const owners = load<u32>(primary, L.HOST_CHANNEL_OWNERS);
  const control = load<u32>(primary, L.HOST_CHANNEL_FIRST_DATA_SUBALLOCATION);
  const share = (total - control) / n;
  let first = control;
  for (let i: u32 = 0; i < n; i++) {
    const ch = load<u32>(channels + (i << 2));
    const end = i == n - 1 ? total : first + share;
    const stack = stacks + ((first - control) << 2);
    let free: u32 = 0;
    for (let index = end; index > first; ) {
      index--;
      store<u32>(owners + (index << 2), ch);
      if (load<u32>(cell(primary, index)) == L.SUBALLOCATION_FREE) store<u32>(stack + (free++ << 2), index);
    }
    store<u32>(ch, stack, L.HOST_CHANNEL_FREE_SUBALLOCATIONS);
    store<u32>(ch, free, L.HOST_CHANNEL_FREE_SUBALLOCATION_COUNT);
    first = end;
  }
}

/** With subchannels: notes that this channel sends the chain. */
@inline
function noteSender(ch: u32, head: u32): void {
  const senders = load<u32>(ch, L.HOST_CHANNEL_SENDERS);
  if (senders != 0) store<u32>(senders + (head << 2), ch);
}

/** Frees the chain that begins with `head`. False = the guest does not own such a chain, or not on this channel. */
export function freeSuballocations(ch: u32, head: u32): bool {
  const total = load<u32>(ch, L.HOST_CHANNEL_SUBALLOCATION_COUNT);
  if (head >= total) return false;
  let state = load<u32>(cell(ch, head));
  if (state == L.SUBALLOCATION_FREE || state & L.SUBALLOCATION_MEMBER) return false;
  const owners = load<u32>(ch, L.HOST_CHANNEL_OWNERS);
  if (owners != 0 && load<u32>(load<u32>(ch, L.HOST_CHANNEL_SENDERS) + (head << 2)) != ch) return false;
  const control = load<u32>(ch, L.HOST_CHANNEL_FIRST_DATA_SUBALLOCATION);
  let index = head;
  while (true) {
    store<u32>(cell(ch, index), L.SUBALLOCATION_FREE);
    if (index < control) {
      const n = load<u32>(ch, L.HOST_CHANNEL_FREE_CONTROL_COUNT);
      store<u32>(load<u32>(ch, L.HOST_CHANNEL_FREE_CONTROL) + (n << 2), index);
      store<u32>(ch, n + 1, L.HOST_CHANNEL_FREE_CONTROL_COUNT);
    } else {
      const owner = owners == 0 ? ch : load<u32>(owners + (index << 2));
      const n = load<u32>(owner, L.HOST_CHANNEL_FREE_SUBALLOCATION_COUNT);
      store<u32>(load<u32>(owner, L.HOST_CHANNEL_FREE_SUBALLOCATIONS) + (n << 2), index);
      store<u32>(owner, n + 1, L.HOST_CHANNEL_FREE_SUBALLOCATION_COUNT);
    }
    index = state & L.SUBALLOCATION_LAST;
    if (index == L.SUBALLOCATION_LAST) return true;
    state = load<u32>(cell(ch, index));
  }
}

// The transfer-page packet being put together: its ranges, and the chain of their suballocations.
let ranges: u32 = 0;
let chainHead: u32 = NONE;
let chainTail: u32 = NONE;
let tailMark: u32 = 0; // SUBALLOCATION.MEMBER once the tail is not the head

function flushTransfer(ch: u32): void {
  if (ranges == 0) return;
  const payload = (load<u32>(ch, L.HOST_CHANNEL_NVSP_BYTES) + 7) & ~7;
  const total = TRANSFER_HEADER + (ranges << 3) + payload + 8;
  const at = openPacket(ch, total);
  storeDescriptor(at, 7, TRANSFER_HEADER + (ranges << 3), total - 8, 1, chainHead, 0);
  store<u32>(at, load<u32>(ch, L.HOST_CHANNEL_RECEIVE_BUFFER_ID), 16);
  store<u32>(at, ranges, 20);
  copyBytes(at + TRANSFER_HEADER, scratch + L.SCRATCH_RANGES, ranges << 3);
  putNvspData(at + TRANSFER_HEADER + (ranges << 3), payload, L.NO_SECTION, 0);
  closePacket(ch, at, total);
  count(ch + L.HOST_CHANNEL_RX_MESSAGES, 1);
  count(ch + L.HOST_CHANNEL_RING_PACKETS_OUT, 1);
  ranges = 0;
  chainHead = chainTail = NONE;
}

/** Takes a data suballocation and adds it to the packet; its arena address. The caller made sure there is one. */
@inline
function takeSuballocation(ch: u32): u32 {
  const free = load<u32>(ch, L.HOST_CHANNEL_FREE_SUBALLOCATION_COUNT) - 1;
  const index = load<u32>(load<u32>(ch, L.HOST_CHANNEL_FREE_SUBALLOCATIONS) + (free << 2));
  const states = load<u32>(ch, L.HOST_CHANNEL_SUBALLOCATIONS);
  const bytes = load<u32>(ch, L.HOST_CHANNEL_SUBALLOCATION_BYTES);
  store<u32>(ch, free, L.HOST_CHANNEL_FREE_SUBALLOCATION_COUNT);
  if (chainTail == NONE) {
    chainHead = index;
    tailMark = 0;
    noteSender(ch, index);
  } else {
    store<u32>(states + (chainTail << 2), tailMark | index);
    tailMark = L.SUBALLOCATION_MEMBER;
  }
  store<u32>(states + (index << 2), tailMark | L.SUBALLOCATION_LAST);
  chainTail = index;
  const offset = index * bytes;
  store<u64>(scratch + L.SCRATCH_RANGES + (ranges << 3), pair(bytes, offset));
  ranges++;
  return load<u32>(ch, L.HOST_CHANNEL_RECEIVE_BUFFER) + offset;
}

// Reading position in the frame at hand.
let fragment: u32 = 0;
let fragmentOffset: u32 = 0;

/** The next `bytes` bytes of the frame. Most are one fragment, and all of it. */
@inline
function copyFrame(to: u32, bytes: u32): void {
  if (fragmentOffset == 0 && load<u32>(fragment, L.FRAGMENT_BYTES) == bytes) {
    copyBytes(to, load<u32>(fragment, L.FRAGMENT_ADDRESS), bytes);
    fragment += L.SIZEOF_FRAGMENT;
  } else copyPieces(to, bytes);
}

function copyPieces(to: u32, bytes: u32): void {
  while (bytes != 0) {
    let n = load<u32>(fragment, L.FRAGMENT_BYTES) - fragmentOffset;
    if (n > bytes) n = bytes;
    copyBytes(to, load<u32>(fragment, L.FRAGMENT_ADDRESS) + fragmentOffset, n);
    to += n;
    bytes -= n;
    fragmentOffset += n;
    if (fragmentOffset == load<u32>(fragment, L.FRAGMENT_BYTES)) {
      fragment += L.SIZEOF_FRAGMENT;
      fragmentOffset = 0;
    }
  }
}

/** What the checksum info of a delivered frame says: finished checksums were right when they came, unfinished ones are
 *  marked so that a guest that passes the packet on completes them. */
function checksumInfo(flags: u32): u32 {
  let word: u32 = 0;
  if (flags & L.PACKET_FLAG_TX_TCP_CHECKSUM) word |= L.PPI_RX_CHECKSUM_TCP_SUCCEEDED | L.PPI_RX_CHECKSUM_TCP_VALUE_INVALID;
  else if (flags & L.PACKET_FLAG_RX_L4_GOOD) word |= flags & L.PACKET_FLAG_UDP ? L.PPI_RX_CHECKSUM_UDP_SUCCEEDED : L.PPI_RX_CHECKSUM_TCP_SUCCEEDED;
  else if (flags & L.PACKET_FLAG_RX_L4_BAD) word |= flags & L.PACKET_FLAG_UDP ? L.PPI_RX_CHECKSUM_UDP_FAILED : L.PPI_RX_CHECKSUM_TCP_FAILED;
  if (flags & L.PACKET_FLAG_TX_IP_CHECKSUM) word |= L.PPI_RX_CHECKSUM_IP_SUCCEEDED | L.PPI_RX_CHECKSUM_IP_VALUE_INVALID;
  else if (flags & L.PACKET_FLAG_RX_IP_GOOD) word |= L.PPI_RX_CHECKSUM_IP_SUCCEEDED;
  else if (flags & L.PACKET_FLAG_RX_IP_BAD) word |= L.PPI_RX_CHECKSUM_IP_FAILED;
  return word;
}

/** There is no "value invalid" bit for UDP: it is finished in our own copy, at `at`, and thus known to be right; what is no
 *  UDP packet stays unverified. */
function finishUdp(frame: u32, at: u32, flags: u32, bytes: u32): void {
  if (checksumFinish(at, bytes, flags & ~L.PACKET_FLAG_TX_IP_CHECKSUM, load<u32>(frame, L.FRAME_L4_OFFSET)) == 0) return;
  const others = checksumInfo(flags & ~(L.PACKET_FLAG_RX_L4_GOOD | L.PACKET_FLAG_RX_L4_BAD));
  putPpi(at - DATA_AT + PACKET_HEADER, L.PPI_TYPE_CHECKSUM, others | L.PPI_RX_CHECKSUM_UDP_SUCCEEDED);
}

/** An LSO sender leaves the IP length zero (facts/linux-guest.md 3.1); a receiver of the whole packet needs it. */
function restoreLength(at: u32, flags: u32, bytes: u32): void {
  if (flags & L.PACKET_FLAG_IPV6) store<u16>(at + 18, bswap<u16>(<u16>(bytes - 54)));
  else store<u16>(at + 16, bswap<u16>(<u16>(bytes - 14)));
}

// How a large packet is divided: bytes of the first piece and of the others, how many there are, and how many segments it stands for.
let firstBytes: u32 = 0;
let stepBytes: u32 = 0;
let parts: u32 = 0;
let segments: u32 = 0;

/** A piece has one segment, the first one with the headers: guests find the segments' size there. When that makes too many pieces, or the
 *  segments do not fit, all have as much as there is room. */
function divide(frame: u32, bytes: u32, room: u32, maxRanges: u32): void {
  firstBytes = stepBytes = room;
  parts = (bytes + room - 1) / room;
  segments = 0;
  const mss = load<u32>(frame, L.FRAME_MSS);
  const l4 = load<u32>(frame, L.FRAME_L4_OFFSET);
  if (mss == 0 || l4 < 34 || l4 + 20 > L.HEAD_BYTES || l4 + 20 > bytes) return;
  // The sender may change it meanwhile: read once.
  const headers = l4 + (((<u32>load<u8>(load<u32>(frame, L.FRAME_HEAD) + l4, 12)) >>> 4) << 2);
  if (headers < l4 + 20 || headers >= bytes) return;
  segments = (bytes - headers + mss - 1) / mss;
  if (segments > maxRanges || headers + mss > room) return;
  firstBytes = headers + mss;
  stepBytes = mss;
  parts = segments;
}

/** Writes one suballocation: header, infos and `bytes` bytes of the frame. `piece` = packet-id flags, 0 for a whole frame. */
@inline
function fill(ch: u32, frame: u32, flags: u32, bytes: u32, piece: u32): u32 {
  const at = takeSuballocation(ch);
  let info = putPpi(at + PACKET_HEADER, L.PPI_TYPE_CHECKSUM, flags == 0 ? 0 : checksumInfo(flags));
  if (flags & L.PACKET_FLAG_VLAN) info = putPpi(info, L.PPI_TYPE_VLAN, vlanInfo(load<u32>(frame, L.FRAME_VLAN_TCI)));
  if (flags & L.PACKET_FLAG_HASH) {
    // DPDK takes the value only together with the other one.
    info = putPpi(info, L.PPI_TYPE_HASH_VALUE, load<u32>(frame, L.FRAME_HASH));
    info = putPpi(info, L.PPI_TYPE_HASH_INFO, load<u32>(frame, L.FRAME_HASH_INFO));
  }
  if (piece != 0) {
    if (piece & L.PPI_PACKET_ID_FIRST && segments != 0) info = putPpi(info, L.PPI_TYPE_RSC, segments < 0xffff ? segments : 0xffff);
    info = putPpi(info, L.PPI_TYPE_PACKET_ID, 1 | (piece << 8));
  }
  putPacketHeader(at, load<u32>(ch, L.HOST_CHANNEL_SUBALLOCATION_BYTES), DATA_AT, bytes, info - at - PACKET_HEADER);
  copyFrame(at + DATA_AT, bytes);
  return at + DATA_AT;
}

export function hostSend(ch: u32, list: u32, n: u32): u32 {
  if (load<u32>(ch, L.CHANNEL_END_RING_ERROR) != 0 || load<u32>(ch, L.HOST_CHANNEL_READY) == 0) return 0;
  const room = load<u32>(ch, L.HOST_CHANNEL_SUBALLOCATION_BYTES) - DATA_AT - TAIL;
  const maxRanges = load<u32>(ch, L.HOST_CHANNEL_MAX_RANGES);
  const fixed = TRANSFER_HEADER + ((load<u32>(ch, L.HOST_CHANNEL_NVSP_BYTES) + 7) & ~7) + 8 + SPARE;
  let sent: u32 = 0;
  let bytes: u64 = 0;
  let fits: u32 = 0; // ranges for which there is room in the ring, as last seen
  ranges = 0;
  chainHead = chainTail = NONE;
  for (let i: u32 = 0; i < n; i++) {
    const frame = load<u32>(list + (i << 2));
    const length = load<u32>(frame, L.FRAME_LENGTH);
    const flags = load<u32>(frame, L.FRAME_FLAGS);
    if (flags & L.PACKET_FLAG_TX_TSO) divide(frame, length, room, maxRanges);
    else parts = length <= room ? 1 : NONE;
    if (parts > maxRanges) {
      count(ch + L.HOST_CHANNEL_RX_TOO_BIG, 1);
      continue;
    }
    if (load<u32>(ch, L.HOST_CHANNEL_FREE_SUBALLOCATION_COUNT) < parts) {
      count(ch + L.HOST_CHANNEL_RX_NO_SUBALLOCATION, 1);
      continue;
    }
    // Pieces of a packet must not be spread over two messages.
    if (ranges + parts > maxRanges) {
      flushTransfer(ch);
      fits = 0;
    }
    if (ranges + parts > fits) {
      if (!ringRoom(ch, fixed + ((ranges + parts) << 3))) {
        count(ch + L.HOST_CHANNEL_RX_RING_FULL, 1);
        continue;
      }
      fits = (ringFree(ch, false) - fixed) >>> 3;
    }
    fragment = load<u32>(frame, L.FRAME_FRAGMENTS);
    fragmentOffset = 0;
    if (parts == 1) {
      const at = fill(ch, frame, flags, length, 0);
      if ((flags & UNFINISHED) == L.PACKET_FLAG_TX_UDP_CHECKSUM) finishUdp(frame, at, flags, length);
      if (flags & L.PACKET_FLAG_TX_TSO) restoreLength(at, flags, length);
    } else {
      let left = length;
      for (let part: u32 = 0; part < parts; part++) {
        const most = part == 0 ? firstBytes : stepBytes;
        const step = left < most ? left : most;
        let piece = L.PPI_PACKET_ID_SUBALLOCATED;
        if (part == 0) piece |= L.PPI_PACKET_ID_FIRST;
        if (part == parts - 1) piece |= L.PPI_PACKET_ID_LAST;
        const at = fill(ch, frame, flags, step, piece);
        if (part == 0) restoreLength(at, flags, length);
        left -= step;
      }
      count(ch + L.HOST_CHANNEL_RX_COALESCED, 1);
    }
    if (flags & L.PACKET_FLAG_VLAN) count(ch + L.HOST_CHANNEL_RX_VLAN, 1);
    bytes += length;
    sent++;
  }
  flushTransfer(ch);
  ringPublish(ch);
  count(ch + L.HOST_CHANNEL_RX_PACKETS, sent);
  store<u64>(ch, load<u64>(ch, L.HOST_CHANNEL_RX_BYTES) + bytes, L.HOST_CHANNEL_RX_BYTES);
  return sent;
}

export function hostSendControl(ch: u32, message: u32, bytes: u32): u32 {
  const free = load<u32>(ch, L.HOST_CHANNEL_FREE_CONTROL_COUNT);
  const section = load<u32>(ch, L.HOST_CHANNEL_SUBALLOCATION_BYTES);
  const payload = (load<u32>(ch, L.HOST_CHANNEL_NVSP_BYTES) + 7) & ~7;
  const total = TRANSFER_HEADER + 8 + payload + 8;
  if (load<u32>(ch, L.CHANNEL_END_RING_ERROR) != 0 || free == 0 || bytes > section || !ringRoom(ch, total)) return 0;
  const index = load<u32>(load<u32>(ch, L.HOST_CHANNEL_FREE_CONTROL) + ((free - 1) << 2));
  store<u32>(ch, free - 1, L.HOST_CHANNEL_FREE_CONTROL_COUNT);
  noteSender(ch, index);
  store<u32>(cell(ch, index), L.SUBALLOCATION_LAST);
  copyBytes(load<u32>(ch, L.HOST_CHANNEL_RECEIVE_BUFFER) + index * section, message, bytes);
  const at = openPacket(ch, total);
  storeDescriptor(at, 7, TRANSFER_HEADER + 8, total - 8, 1, index, 0);
  store<u32>(at, load<u32>(ch, L.HOST_CHANNEL_RECEIVE_BUFFER_ID), 16);
  store<u32>(at, 1, 20);
  store<u32>(at, bytes, 24);
  store<u32>(at, index * section, 28);
  putNvspData(at + TRANSFER_HEADER + 8, payload, L.NO_SECTION, 0);
  store<u32>(at + TRANSFER_HEADER + 8, 1, L.WIRE_NVSP_SEND_RNDIS_PACKET_CHANNEL_TYPE);
  closePacket(ch, at, total);
  count(ch + L.HOST_CHANNEL_RING_PACKETS_OUT, 1);
  ringPublish(ch);
  return 1;
}
