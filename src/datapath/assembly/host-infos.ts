// Per-packet info that guests send: checksum, LSO and VLAN (facts/hyper-v-host.md 4.3 and 6).
import * as L from './generated';
import { vlanTci } from './rndis';

// What the per-packet info of the message at hand asked for.
export let flags: u32 = 0;
export let l4Offset: u32 = 0;
export let mss: u32 = 0;
export let tci: u32 = 0;

/** A packet without per-packet info asks for nothing. */
export function clearInfos(): void {
  flags = 0;
  l4Offset = 0;
  mss = 0;
  tci = 0;
}

/** Reads per-packet info at `at` (one piece or private). Returns a FRAME_ERROR. */
export function readInfos(at: u32, left: u32, dataBytes: u32): u32 {
  clearInfos();
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
  return headerOffset((word >>> L.PPI_TX_CHECKSUM_HEADER_OFFSET_SHIFT) & L.PPI_TX_CHECKSUM_HEADER_OFFSET_MASK, v4, dataBytes);
}

function readLso(word: u32, dataBytes: u32): u32 {
  const v4 = (word & L.PPI_LSO_IPV6) == 0;
  flags |= L.PACKET_FLAG_TX_TSO | L.PACKET_FLAG_TX_TCP_CHECKSUM | L.PACKET_FLAG_TCP;
  flags |= v4 ? L.PACKET_FLAG_IPV4 | L.PACKET_FLAG_TX_IP_CHECKSUM : L.PACKET_FLAG_IPV6;
  mss = word & L.PPI_LSO_MSS_MASK;
  const error = headerOffset((word >>> L.PPI_LSO_HEADER_OFFSET_SHIFT) & L.PPI_LSO_HEADER_OFFSET_MASK, v4, dataBytes);
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
