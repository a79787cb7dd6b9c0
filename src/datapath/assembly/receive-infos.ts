// The per-packet info of received frames, checked and turned into flags.
import * as L from './generated';
import { PPI_SIZE, vlanTci } from './rndis';

// What the per-packet info of the frame at hand said.
export let infoFlags: u32 = 0;
export let infoVlan: u32 = 0;
export let infoHash: u32 = 0;
export let infoFragment: u32 = 0; // packet-id flags

/** Among the flags of a frame at hand: the IPv4 header checksum is still to be filled in. */
export const IP_UNFINISHED: u32 = 0x80000000;
export const UNKNOWN: u32 = 0xffffffff;
/** The first 8 bytes of the infos that most frames have: checksum, and the hash with receive-side scaling. */
const CHECKSUM_INFO: u64 = ((<u64>L.PPI_TYPE_CHECKSUM) << 32) | PPI_SIZE;
const HASH_INFO: u64 = ((<u64>L.PPI_TYPE_HASH_VALUE) << 32) | PPI_SIZE;

/** A checksum info's word as flags. */
function checksumFlags(word: u32): u32 {
  let flags: u32 = 0;
  if (word & L.PPI_RX_CHECKSUM_IP_SUCCEEDED) flags |= L.PACKET_FLAG_RX_IP_GOOD;
  if (word & L.PPI_RX_CHECKSUM_IP_FAILED) flags |= L.PACKET_FLAG_RX_IP_BAD;
  if (word & (L.PPI_RX_CHECKSUM_TCP_FAILED | L.PPI_RX_CHECKSUM_UDP_FAILED)) flags |= L.PACKET_FLAG_RX_L4_BAD;
  else if (word & (L.PPI_RX_CHECKSUM_TCP_SUCCEEDED | L.PPI_RX_CHECKSUM_UDP_SUCCEEDED)) flags |= L.PACKET_FLAG_RX_L4_GOOD;
  // Verified, but the field does not hold the checksum: whoever passes the packet on must fill it in.
  if (word & L.PPI_RX_CHECKSUM_TCP_VALUE_INVALID && word & L.PPI_RX_CHECKSUM_TCP_SUCCEEDED) flags |= L.PACKET_FLAG_TX_TCP_CHECKSUM;
  if (word & L.PPI_RX_CHECKSUM_IP_VALUE_INVALID && word & L.PPI_RX_CHECKSUM_IP_SUCCEEDED) flags |= IP_UNFINISHED;
  return flags;
}

/** Flags of one such info, or UNKNOWN. */
@inline
function quickInfo(at: u32): u32 {
  const head = load<u64>(at);
  if (load<u32>(at, L.WIRE_PER_PACKET_INFO_DATA_OFFSET) != 12) return UNKNOWN;
  const word = load<u32>(at, 12);
  if (head == CHECKSUM_INFO) return word == 0 ? 0 : checksumFlags(word);
  if (head != HASH_INFO) return UNKNOWN;
  infoHash = word;
  return L.PACKET_FLAG_HASH;
}

/** Flags of a frame with one or two such infos, or UNKNOWN: readInfos tells. */
@inline
export function quickFlags(at: u32, bytes: u32): u32 {
  if (bytes == PPI_SIZE) return quickInfo(at);
  if (bytes != 2 * PPI_SIZE) return UNKNOWN;
  const first = quickInfo(at);
  if (first == UNKNOWN) return UNKNOWN;
  const second = quickInfo(at + PPI_SIZE);
  return second == UNKNOWN ? UNKNOWN : first | second;
}

/** Reads the infos in [at, at + left). False = malformed, nothing of it is to be used. */
export function readInfos(at: u32, left: u32): bool {
  infoFlags = 0;
  infoFragment = 0;
  while (left >= 12) {
    const size = load<u32>(at, L.WIRE_PER_PACKET_INFO_SIZE);
    const type = load<u32>(at, L.WIRE_PER_PACKET_INFO_TYPE);
    const offset = load<u32>(at, L.WIRE_PER_PACKET_INFO_DATA_OFFSET);
    if (size < 12 || size > left || offset < 12 || offset > size) return false;
    const room = size - offset;
    const data = at + offset;
    if (type == L.PPI_TYPE_CHECKSUM) {
      if (room < 4) return false;
      infoFlags |= checksumFlags(load<u32>(data));
    } else if (type == L.PPI_TYPE_VLAN) {
      if (room < 4) return false;
      infoVlan = vlanTci(load<u32>(data));
      infoFlags |= L.PACKET_FLAG_VLAN;
    } else if (type == L.PPI_TYPE_HASH_VALUE) {
      if (room < 4) return false;
      infoHash = load<u32>(data);
      infoFlags |= L.PACKET_FLAG_HASH;
    } else if (type == L.PPI_TYPE_PACKET_ID) {
      if (room < 4) return false;
      infoFragment = load<u8>(data, L.WIRE_PACKET_ID_INFO_FLAGS);
    }
    at += size;
    left -= size;
  }
  return left == 0;
}
