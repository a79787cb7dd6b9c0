// Bursts between mbufs and interfaces of the kernel that take or give a virtio_net_hdr with each packet: a packet that lies
// elsewhere is put into mbufs, mbufs are made ready to be written.
import { copyBytes } from './copy';
import * as L from './generated';
import { store16 } from './headers';
import { freeChain, take as takeBuffer } from './pool';
import { chainHead, chainToVnet, data, HEADER, length, mbufToVnet, putCells, settle, TAG, take, typeOfPacket } from './vnet';

const BORROWED: u32 = L.PACKET_FLAG_EXTERNAL | L.PACKET_FLAG_INDIRECT;
/** The longest packet: 64 KiB of IP behind Ethernet and two tags. */
const LARGEST: u32 = 65_535 + 22;

/** What became of a packet. */
export const FILLED: u32 = 0;
export const TOO_LONG: u32 = 1;
export const NO_BUFFER: u32 = 2;

/** Copies `bytes` bytes behind a tag (TPID and TCI in one word, 0 = none) into `mbuf` and, if SCATTER is among the options,
 *  further buffers of its pool. Unless FILLED, the mbuf is alone and empty again. */
export function fillChain(mbuf: u32, from: u32, bytes: u32, tag: u32, options: u32): u32 {
  let to = load<u32>(mbuf, L.MBUF_DATA);
  let room = load<u32>(mbuf, L.MBUF_BUFFER) + load<u32>(mbuf, L.MBUF_ROOM) - to;
  let source = from;
  let left = bytes;
  const total = tag == 0 ? bytes : bytes + TAG;
  if (total > room && (options & L.VNET_RX_SCATTER) == 0) return TOO_LONG;
  let used: u32 = 0;
  if (tag != 0) {
    if (room < 12 + TAG || bytes < 12) return TOO_LONG;
    copyBytes(to, source, 12);
    store16(to + 12, tag >>> 16);
    store16(to + 14, tag & 0xffff);
    used = 12 + TAG;
    source += 12;
    left -= 12;
  }
  let last = mbuf;
  let segments: u32 = 1;
  for (;;) {
    const part = left < room - used ? left : room - used;
    copyBytes(to + used, source, part);
    store<u32>(last, used + part, L.MBUF_DATA_LENGTH);
    source += part;
    left -= part;
    if (left == 0) break;
    const next = takeBuffer(load<u32>(mbuf, L.MBUF_POOL));
    if (next == 0) {
      const more = load<u32>(mbuf, L.MBUF_NEXT);
      if (more != 0) freeChain(more);
      store<u32>(mbuf, 0, L.MBUF_NEXT);
      store<u32>(mbuf, 0, L.MBUF_DATA_LENGTH);
      return NO_BUFFER;
    }
    store<u32>(last, next, L.MBUF_NEXT);
    last = next;
    segments++;
    to = load<u32>(next, L.MBUF_DATA);
    room = load<u32>(next, L.MBUF_BUFFER) + load<u32>(next, L.MBUF_ROOM) - to;
    used = 0;
  }
  store<u32>(mbuf, total, L.MBUF_PACKET_LENGTH);
  store<u32>(mbuf, segments, L.MBUF_SEGMENTS);
  return FILLED;
}

/** See datapath.ts. */
export function vnetScatter(mbuf: u32, header: u32, bytes: u32, options: u32): u32 {
  if (!take(header, bytes, options)) return TOO_LONG;
  settle(options);
  const result = fillChain(mbuf, data, length, 0, options);
  if (result == FILLED) {
    putCells(mbuf);
    store<u32>(mbuf, typeOfPacket(), L.MBUF_PACKET_TYPE);
  }
  return result;
}

/** True when the packet and the bytes in front of it may be written to: nobody else sees them. */
@inline
function own(mbuf: u32, flags: u32): bool {
  if (load<u32>(mbuf, L.MBUF_SEGMENTS) != 1 || load<u32>(mbuf, L.MBUF_REFERENCES) != 1 || (flags & BORROWED) != 0) return false;
  return load<u32>(mbuf, L.MBUF_DATA) - load<u32>(mbuf, L.MBUF_BUFFER) >= HEADER + TAG;
}

/** Packets up to that length are copied whole: further pieces cost the kernel more. */
const WHOLE: u32 = 1024;
/** Of longer ones so much is copied at most: all headers of what the kernel and NICs make. */
const HEAD: u32 = 256;
/** struct iovec. */
const VECTOR: u32 = 16;

@inline
function putVector(at: u32, base: u64, from: u32, bytes: u32): void {
  store<u64>(at, base + <u64>from);
  store<u64>(at, <u64>bytes, 8);
}

/** Lists the pieces of a chain at `vectors`, the first one a copy of its head, at `header`. Returns how many; 0 = it has to be
 *  copied whole, or its lengths disagree. */
function inPieces(mbuf: u32, bytes: u32, header: u32, vectors: u32, room: u32, base: u64): u32 {
  const first = load<u32>(mbuf, L.MBUF_DATA_LENGTH);
  const held = first < HEAD ? first : HEAD;
  const limit = room < L.IOV_MAX ? room : L.IOV_MAX;
  if (held > bytes) return 0;
  let pieces: u32 = 1;
  let left = bytes - held;
  let skip = held;
  for (let segment = mbuf; segment != 0; segment = load<u32>(segment, L.MBUF_NEXT)) {
    const part = load<u32>(segment, L.MBUF_DATA_LENGTH) - skip;
    if (part > left) return 0;
    if (part != 0) {
      if (pieces >= limit) return 0;
      putVector(vectors + pieces * VECTOR, base, load<u32>(segment, L.MBUF_DATA) + skip, part);
      pieces++;
    }
    left -= part;
    skip = 0;
  }
  if (left != 0) return 0;
  const copied = chainHead(mbuf, held, header);
  if (copied == 0) return 0;
  putVector(vectors, base, header, copied);
  return pieces;
}

/** See datapath.ts. */
export function vnetTransmit(tx: u32, handles: u32, n: u32): u32 {
  const addresses = load<u32>(tx, L.VNET_TX_ADDRESSES);
  const lengths = load<u32>(tx, L.VNET_TX_LENGTHS);
  const capacity = load<u32>(tx, L.VNET_TX_CAPACITY);
  const gather = load<u32>(tx, L.VNET_TX_GATHER);
  const gatherBytes = load<u32>(tx, L.VNET_TX_GATHER_BYTES);
  const maxFrame = load<u32>(tx, L.VNET_TX_MAX_FRAME_BYTES);
  const short = load<u32>(tx, L.VNET_TX_HEADER_BYTES) != HEADER;
  const limit = n < capacity ? n : capacity;
  const counts = load<u32>(tx, L.VNET_TX_PIECES);
  const base = load<u64>(tx, L.VNET_TX_BASE);
  let vectors = load<u32>(tx, L.VNET_TX_VECTORS);
  let room: u32 = short || vectors == 0 ? 0 : load<u32>(tx, L.VNET_TX_VECTOR_COUNT);
  let used: u32 = 0;
  for (let i: u32 = 0; i < limit; i++) {
    const mbuf = load<u32>(handles + (i << 2));
    const flags = load<u32>(mbuf, L.MBUF_FLAGS);
    const bytes = load<u32>(mbuf, L.MBUF_PACKET_LENGTH);
    const large = (flags & (L.PACKET_FLAG_TX_TSO | L.PACKET_FLAG_RX_COALESCED)) != 0 && load<u32>(mbuf, L.MBUF_MSS) != 0;
    if (bytes > (large ? LARGEST : maxFrame)) return i;
    let header: u32 = 0;
    let total: u32 = 0;
    let pieces: u32 = 1;
    if (own(mbuf, flags)) {
      header = mbufToVnet(mbuf);
      if (header == 0) return i;
      total = load<u32>(mbuf, L.MBUF_DATA) + load<u32>(mbuf, L.MBUF_DATA_LENGTH) - header;
    } else {
      if (used + HEADER + TAG + bytes > gatherBytes) return i;
      header = gather + used;
      if (room != 0 && bytes > WHOLE) {
        const list = inPieces(mbuf, bytes, header, vectors, room, base);
        if (list > 1) {
          pieces = list;
          used += (<u32>load<u64>(vectors, 8) + 63) & ~63;
          header = vectors;
          total = bytes + HEADER + ((flags & L.PACKET_FLAG_VLAN) != 0 ? TAG : 0);
          vectors += list * VECTOR;
          room -= list;
        }
      }
      if (pieces == 1) {
        total = chainToVnet(mbuf, header);
        if (total == 0) return i;
        used += (total + 63) & ~63;
      }
    }
    if (short) {
      const first = load<u64>(header);
      const last = load<u16>(header, 8);
      header += 2;
      total -= 2;
      store<u64>(header, first);
      store<u16>(header, last, 8);
    }
    store<u32>(addresses + (i << 2), header);
    store<u32>(lengths + (i << 2), total);
    if (counts != 0) store<u32>(counts + (i << 2), pieces);
  }
  return limit;
}
