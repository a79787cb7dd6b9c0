// virtio_net_hdr, the 12 bytes that a TAP device puts in front of each packet (VIRTIO 1.2, 5.1.6; num_buffers unused).
// The kernel relays what the sender's machine wrote there, so nothing of it is believed without a look at the packet.
import {
  checksumFinish,
  finishIpv4,
  fold,
  headerVerdict,
  packetPseudoSum,
  sum32,
  transportVerdict,
  udpBytes,
} from './checksum';
import { packetType } from './classify';
import { copyBytes } from './copy';
import { chainGather, frameGather } from './frame';
import {
  FRAGMENT_ADDRESS,
  FRAGMENT_BYTES,
  FRAME_FLAGS,
  FRAME_FRAGMENT_COUNT,
  FRAME_FRAGMENTS,
  FRAME_HASH,
  FRAME_HEAD,
  FRAME_L4_OFFSET,
  FRAME_LENGTH,
  FRAME_MSS,
  FRAME_TRANSACTION,
  FRAME_VLAN_TCI,
  MBUF_BUFFER,
  MBUF_DATA,
  MBUF_DATA_LENGTH,
  MBUF_FLAGS,
  MBUF_L4_OFFSET,
  MBUF_MSS,
  MBUF_PACKET_LENGTH,
  MBUF_PACKET_TYPE,
  MBUF_SEGMENTS,
  MBUF_VLAN_TCI,
  NO_SECTION,
  PACKET_FLAG_IPV4,
  PACKET_FLAG_IPV6,
  PACKET_FLAG_RX_COALESCED,
  PACKET_FLAG_RX_IP_BAD,
  PACKET_FLAG_RX_IP_GOOD,
  PACKET_FLAG_RX_L4_BAD,
  PACKET_FLAG_RX_L4_GOOD,
  PACKET_FLAG_TCP,
  PACKET_FLAG_TX_IP_CHECKSUM,
  PACKET_FLAG_TX_TCP_CHECKSUM,
  PACKET_FLAG_TX_TSO,
  PACKET_FLAG_TX_UDP_CHECKSUM,
  PACKET_FLAG_UDP,
  PACKET_FLAG_VLAN,
  VNET_RX_IP_CHECKSUM,
  VNET_RX_KEEP_TAG,
  VNET_RX_TCP_CHECKSUM,
  VNET_RX_UDP_CHECKSUM,
} from './generated';
import {
  family,
  fragment,
  IP_NONE,
  ipEnd,
  l3,
  l4,
  load16,
  missing,
  parse,
  parseHead,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  protocol,
  store16,
} from './headers';

export const HEADER: u32 = 12;
export const TAG: u32 = 4;
const TX_CHECKSUMS: u32 = PACKET_FLAG_TX_TCP_CHECKSUM | PACKET_FLAG_TX_UDP_CHECKSUM;
// Offsets and values of virtio_net_hdr (little-endian).
const GSO_TYPE: u32 = 1;
const HEADER_LENGTH: u32 = 2;
const GSO_SIZE: u32 = 4;
const CHECKSUM_START: u32 = 6;
const CHECKSUM_OFFSET: u32 = 8;
const NEEDS_CHECKSUM: u32 = 1;
const DATA_VALID: u32 = 2;
const GSO_NONE: u32 = 0;
const GSO_TCPV4: u32 = 1;
const GSO_TCPV6: u32 = 4;
const GSO_UDP_L4: u32 = 5;
const GSO_ECN: u32 = 0x80;

// The packet that take() read.
export let data: u32 = 0;
export let length: u32 = 0;
export let flags: u32 = 0;
export let vlanTci: u32 = 0;
export let mss: u32 = 0;
export let l4Offset: u32 = 0;

/** Offset of the payload behind a whole TCP or UDP header of the packet that parse() saw last, or 0. */
function payloadOffset(packet: u32): u32 {
  if (fragment) return 0;
  if (protocol == PROTOCOL_UDP) return l4 + 8 <= ipEnd ? l4 + 8 : 0;
  if (protocol != PROTOCOL_TCP || l4 + 20 > ipEnd) return 0;
  const bytes = <u32>(load<u8>(packet + l4, 12) >>> 4) << 2;
  return bytes >= 20 && l4 + bytes <= ipEnd ? l4 + bytes : 0;
}

/** Reads header and packet. `options`: VNET_RX, of which only KEEP_TAG counts here. False when they disagree. */
export function take(header: u32, bytes: u32, options: u32): bool {
  if (bytes < HEADER + 14) return false;
  const vnetFlags = <u32>load<u8>(header);
  const gso = <u32>load<u8>(header, GSO_TYPE) & ~GSO_ECN;
  const gsoSize = <u32>load<u16>(header, GSO_SIZE);
  let start = <u32>load<u16>(header, CHECKSUM_START);
  const field = <u32>load<u16>(header, CHECKSUM_OFFSET);
  data = header + HEADER;
  length = bytes - HEADER;
  flags = 0;
  vlanTci = 0;
  mss = 0;
  l4Offset = 0;
  const partial = (vnetFlags & NEEDS_CHECKSUM) != 0;
  if (partial && (start < 14 || start + field + 2 > length)) return false;

  if ((options & VNET_RX_KEEP_TAG) == 0 && load16(data + 12) == 0x8100 && length >= 14 + TAG) {
    if (partial && start < 14 + TAG) return false;
    vlanTci = load16(data + 14);
    flags |= PACKET_FLAG_VLAN;
    const first = load<u64>(data);
    const last = load<u32>(data, 8);
    data += TAG;
    store<u64>(data, first);
    store<u32>(data, last, 8);
    length -= TAG;
    if (partial) start -= TAG;
  }

  let payload: u32 = 0;
  if (parse(data, length)) {
    flags |= family == 4 ? PACKET_FLAG_IPV4 : PACKET_FLAG_IPV6;
    payload = payloadOffset(data);
    if (payload != 0) {
      flags |= protocol == PROTOCOL_TCP ? PACKET_FLAG_TCP : PACKET_FLAG_UDP;
      l4Offset = l4;
    }
  }
  const tcp = payload != 0 && protocol == PROTOCOL_TCP;
  if (gso != GSO_NONE) {
    if (gso != GSO_TCPV4 && gso != GSO_TCPV6 && gso != GSO_UDP_L4) return false;
    if (payload == 0 || missing != 0 || gsoSize == 0 || tcp != (gso != GSO_UDP_L4)) return false;
    if (tcp && (family == 4) != (gso == GSO_TCPV4)) return false;
    if (partial && (start != l4 || field != (tcp ? 16 : 6))) return false;
    flags |= tcp ? PACKET_FLAG_TX_TCP_CHECKSUM : PACKET_FLAG_TX_UDP_CHECKSUM;
    if (ipEnd - payload > gsoSize) {
      mss = gsoSize;
      flags |= PACKET_FLAG_TX_TSO;
      if (family == 4) flags |= PACKET_FLAG_TX_IP_CHECKSUM;
    }
  } else if (partial) {
    if (payload != 0 && missing == 0 && start == l4 && field == (tcp ? 16 : 6)) {
      flags |= tcp ? PACKET_FLAG_TX_TCP_CHECKSUM : PACKET_FLAG_TX_UDP_CHECKSUM;
    } else {
      // Tunnels, ICMPv6 and the like: no NIC flag says that, so the sum is completed here. The field holds
      // the pseudo header's sum already.
      const sum = ~fold(sum32(data + start, length - start)) & 0xffff;
      store<u16>(data + start + field, <u16>(sum == 0 ? 0xffff : sum));
    }
  } else if ((vnetFlags & DATA_VALID) != 0 && payload != 0) {
    flags |= PACKET_FLAG_RX_L4_GOOD;
  }
  return true;
}

/** Makes of what take() found what a program that asked for `options` expects: verdicts on the checksums that it named,
 *  complete checksums otherwise. */
export function settle(options: u32): void {
  if (flags & PACKET_FLAG_TX_TSO) {
    // It never left this machine: nothing can have damaged it.
    flags |= PACKET_FLAG_RX_COALESCED | PACKET_FLAG_RX_L4_GOOD;
    if (family == 4) flags |= PACKET_FLAG_RX_IP_GOOD;
    return;
  }
  const transport = flags & (PACKET_FLAG_TCP | PACKET_FLAG_UDP);
  const wanted = (options & (transport == PACKET_FLAG_TCP ? VNET_RX_TCP_CHECKSUM : VNET_RX_UDP_CHECKSUM)) != 0;
  if ((flags & TX_CHECKSUMS) != 0) {
    if (wanted) flags |= PACKET_FLAG_RX_L4_GOOD;
    else {
      checksumFinish(data, length, flags & TX_CHECKSUMS, l4Offset);
      flags &= ~TX_CHECKSUMS;
    }
  } else if (transport != 0 && wanted && (flags & PACKET_FLAG_RX_L4_GOOD) == 0) {
    const verdict = transportVerdict(data);
    if (verdict != 2) flags |= verdict == 1 ? PACKET_FLAG_RX_L4_GOOD : PACKET_FLAG_RX_L4_BAD;
  }
  if ((options & VNET_RX_IP_CHECKSUM) != 0 && (flags & PACKET_FLAG_IPV4) != 0)
    flags |= headerVerdict(data) == 1 ? PACKET_FLAG_RX_IP_GOOD : PACKET_FLAG_RX_IP_BAD;
}

/** What take() found, except for where the packet is. */
@inline
export function putCells(mbuf: u32): void {
  store<u32>(mbuf, flags, MBUF_FLAGS);
  store<u32>(mbuf, vlanTci, MBUF_VLAN_TCI);
  store<u32>(mbuf, mss, MBUF_MSS);
  store<u32>(mbuf, l4Offset, MBUF_L4_OFFSET);
}

/** PACKET_TYPE of the packet that take() read. */
export function typeOfPacket(): u32 {
  return packetType(data, length, family != IP_NONE);
}

/** The packet lies in the mbuf's own data room. */
@inline
function putMbuf(mbuf: u32): void {
  store<u32>(mbuf, data, MBUF_DATA);
  store<u32>(mbuf, length, MBUF_DATA_LENGTH);
  store<u32>(mbuf, length, MBUF_PACKET_LENGTH);
  putCells(mbuf);
}

export function vnetToMbuf(mbuf: u32, bytes: u32): u32 {
  if (!take(load<u32>(mbuf, MBUF_DATA) - HEADER, bytes, 0)) return 0;
  putMbuf(mbuf);
  return 1;
}

/** See datapath.ts. */
export function vnetReceive(mbuf: u32, bytes: u32, options: u32): u32 {
  if (!take(load<u32>(mbuf, MBUF_DATA) - HEADER, bytes, options)) return 0;
  settle(options);
  putMbuf(mbuf);
  store<u32>(mbuf, typeOfPacket(), MBUF_PACKET_TYPE);
  return 1;
}

export function vnetToFrame(frame: u32, entry: u32, address: u32, bytes: u32): u32 {
  if (!take(address, bytes, 0)) return 0;
  store<u32>(entry, data, FRAGMENT_ADDRESS);
  store<u32>(entry, length, FRAGMENT_BYTES);
  store<u32>(frame, entry, FRAME_FRAGMENTS);
  store<u32>(frame, 1, FRAME_FRAGMENT_COUNT);
  store<u32>(frame, length, FRAME_LENGTH);
  store<u32>(frame, flags, FRAME_FLAGS);
  store<u32>(frame, vlanTci, FRAME_VLAN_TCI);
  store<u32>(frame, mss, FRAME_MSS);
  store<u32>(frame, l4Offset, FRAME_L4_OFFSET);
  store<u32>(frame, 0, FRAME_HASH);
  store<u32>(frame, data, FRAME_HEAD);
  store<u32>(frame, NO_SECTION, FRAME_TRANSACTION);
  return 1;
}

/** Leaves the checksum to the kernel: pseudo header's sum in the field, whose place the header names. */
function delegate(header: u32, packet: u32, l4Bytes: u32, shift: u32): void {
  const udp = protocol == PROTOCOL_UDP;
  const field: u32 = udp ? 6 : 16;
  store<u16>(packet + l4 + field, <u16>fold(packetPseudoSum(packet, protocol, l4Bytes)));
  store<u8>(header, <u8>NEEDS_CHECKSUM);
  store<u16>(header, <u16>(l4 + shift), CHECKSUM_START);
  store<u16>(header, <u16>field, CHECKSUM_OFFSET);
}

/** Large sends come with IP lengths of 0 from NDIS guests, and with any checksum from an RSC host. */
function repairLengths(packet: u32, bytes: u32): void {
  const ip = packet + l3;
  if (family == 4) {
    if (load<u16>(ip, 2) == 0 && bytes - l3 <= 0xffff) store16(ip + 2, bytes - l3);
    finishIpv4(ip, l4 - l3);
  } else if (load<u16>(ip, 4) == 0 && bytes - l3 - 40 <= 0xffff) {
    store16(ip + 4, bytes - l3 - 40);
  }
  if (protocol == PROTOCOL_UDP && ipEnd - l4 <= 0xffff) store16(packet + l4 + 4, ipEnd - l4);
}

/** Writes the header at `header` for the untagged packet at `packet`; in the end the packet starts `shift` bytes
 *  earlier, with its tag. False: the packet is not what its flags say. */
function describe(header: u32, packet: u32, bytes: u32, flags: u32, mss: u32, shift: u32): bool {
  store<u64>(header, 0);
  store<u32>(header, 0, 8);
  const large = (flags & (PACKET_FLAG_TX_TSO | PACKET_FLAG_RX_COALESCED)) != 0 && mss != 0;
  const transport = (flags & (PACKET_FLAG_TX_TCP_CHECKSUM | PACKET_FLAG_TX_UDP_CHECKSUM | PACKET_FLAG_TX_TSO)) != 0;
  if (large || transport) {
    if (!parse(packet, bytes) || missing != 0) return false;
    const payload = payloadOffset(packet);
    if (payload == 0) return false;
    const tcp = protocol == PROTOCOL_TCP;
    if (large && ipEnd - payload > mss) {
      if (mss > 0xffff || ipEnd != bytes) return false;
      repairLengths(packet, bytes);
      delegate(header, packet, ipEnd - l4, shift);
      store<u8>(header, <u8>(tcp ? (family == 4 ? GSO_TCPV4 : GSO_TCPV6) : GSO_UDP_L4), GSO_TYPE);
      store<u16>(header, <u16>(payload + shift), HEADER_LENGTH);
      store<u16>(header, <u16>mss, GSO_SIZE);
      // The kernel must not copy CWR to every segment.
      if (tcp && (load<u8>(packet + l4, 13) & 0x80) != 0) store<u8>(header, load<u8>(header, GSO_TYPE) | <u8>GSO_ECN, GSO_TYPE);
      return true;
    }
    if (transport) {
      const udpFlag = (flags & PACKET_FLAG_TX_UDP_CHECKSUM) != 0 && (flags & PACKET_FLAG_TX_TCP_CHECKSUM) == 0;
      if ((flags & PACKET_FLAG_TX_TSO) != 0) repairLengths(packet, bytes);
      else if (tcp == udpFlag) return false;
      else if ((flags & PACKET_FLAG_TX_IP_CHECKSUM) != 0 && family == 4) finishIpv4(packet + l3, l4 - l3);
      const available = ipEnd - l4;
      const l4Bytes = tcp ? available : udpBytes(packet + l4, available);
      if (l4 + l4Bytes == bytes) {
        delegate(header, packet, l4Bytes, shift);
        return true;
      }
      // The kernel would sum up to the end of the packet, padding included.
      store<u8>(header, <u8>DATA_VALID);
      return checksumFinish(packet, bytes, tcp ? PACKET_FLAG_TX_TCP_CHECKSUM : PACKET_FLAG_TX_UDP_CHECKSUM, 0) != 0;
    }
  }
  if ((flags & PACKET_FLAG_TX_IP_CHECKSUM) != 0 && checksumFinish(packet, bytes, PACKET_FLAG_TX_IP_CHECKSUM, 0) == 0) return false;
  if ((flags & PACKET_FLAG_RX_L4_GOOD) != 0) store<u8>(header, <u8>DATA_VALID);
  return true;
}

/** True when describe() needs no more of a packet of `bytes` bytes than the first `held`, which lie at `packet`. */
function describedByHead(packet: u32, held: u32, bytes: u32, flags: u32, mss: u32): bool {
  const large = (flags & (PACKET_FLAG_TX_TSO | PACKET_FLAG_RX_COALESCED)) != 0 && mss != 0;
  const transport = (flags & (TX_CHECKSUMS | PACKET_FLAG_TX_TSO)) != 0;
  if (!large && !transport && (flags & PACKET_FLAG_TX_IP_CHECKSUM) == 0) return true;
  if (!parseHead(packet, held, bytes) || missing != 0) return false;
  if (!large && !transport) return true;
  const least: u32 = protocol == PROTOCOL_TCP ? 20 : 8;
  if (ipEnd != bytes || l4 + least > held) return false;
  const payload = payloadOffset(packet);
  if (payload == 0 || payload > held) return false;
  return protocol == PROTOCOL_TCP || udpBytes(packet + l4, ipEnd - l4) == ipEnd - l4;
}

/** Moves the MAC addresses 4 bytes down and puts the tag behind them. */
function insertTag(packet: u32, tci: u32): void {
  const first = load<u64>(packet);
  const last = load<u32>(packet, 8);
  const at = packet - TAG;
  store<u64>(at, first);
  store<u32>(at, last, 8);
  store16(at + 12, 0x8100);
  store16(at + 14, tci);
}

/** See datapath.ts. The mbuf's cells then describe what is written behind the header (tag in the data). 0 = refused. */
export function mbufToVnet(mbuf: u32): u32 {
  const flags = load<u32>(mbuf, MBUF_FLAGS);
  const packet = load<u32>(mbuf, MBUF_DATA);
  const bytes = load<u32>(mbuf, MBUF_DATA_LENGTH);
  const shift: u32 = (flags & PACKET_FLAG_VLAN) != 0 ? TAG : 0;
  const header = packet - shift - HEADER;
  if (load<u32>(mbuf, MBUF_SEGMENTS) != 1 || bytes < 14) return 0;
  if (packet < load<u32>(mbuf, MBUF_BUFFER) + shift + HEADER) return 0;
  if (!describe(header, packet, bytes, flags, load<u32>(mbuf, MBUF_MSS), shift)) return 0;
  if (shift != 0) {
    insertTag(packet, load<u32>(mbuf, MBUF_VLAN_TCI));
    store<u32>(mbuf, packet - shift, MBUF_DATA);
    store<u32>(mbuf, bytes + shift, MBUF_DATA_LENGTH);
    store<u32>(mbuf, bytes + shift, MBUF_PACKET_LENGTH);
    store<u32>(mbuf, flags & ~PACKET_FLAG_VLAN, MBUF_FLAGS);
  }
  return header;
}

/** Writes the header, and the tag if there is one, in front of the packet that lies behind both of them. Returns all
 *  bytes; 0 = refused. */
function head(destination: u32, bytes: u32, flags: u32, mss: u32, tci: u32): u32 {
  const shift: u32 = (flags & PACKET_FLAG_VLAN) != 0 ? TAG : 0;
  const packet = destination + HEADER + shift;
  if (!describe(destination, packet, bytes, flags, mss, shift)) return 0;
  if (shift != 0) insertTag(packet, tci);
  return HEADER + shift + bytes;
}

/** Where a packet has to lie behind its header and tag. */
@inline
function behindHead(destination: u32, flags: u32): u32 {
  return destination + HEADER + ((flags & PACKET_FLAG_VLAN) != 0 ? TAG : 0);
}

/** See datapath.ts. Needs 16 bytes more than the frame at `destination`. 0 = refused. */
export function frameToVnet(frame: u32, destination: u32): u32 {
  const flags = load<u32>(frame, FRAME_FLAGS);
  const bytes = load<u32>(frame, FRAME_LENGTH);
  if (bytes < 14) return 0;
  frameGather(frame, behindHead(destination, flags));
  return head(destination, bytes, flags, load<u32>(frame, FRAME_MSS), load<u32>(frame, FRAME_VLAN_TCI));
}

/** The same for a chain of mbufs of which only the first `held` bytes are copied, behind header and tag: returns the bytes that
 *  then lie at `destination`. 0 also when header or checksum depend on more of the packet. */
export function chainHead(mbuf: u32, held: u32, destination: u32): u32 {
  const flags = load<u32>(mbuf, MBUF_FLAGS);
  const bytes = load<u32>(mbuf, MBUF_PACKET_LENGTH);
  const mss = load<u32>(mbuf, MBUF_MSS);
  const packet = behindHead(destination, flags);
  if (held < 14) return 0;
  copyBytes(packet, load<u32>(mbuf, MBUF_DATA), held);
  if (!describedByHead(packet, held, bytes, flags, mss)) return 0;
  const total = head(destination, bytes, flags, mss, load<u32>(mbuf, MBUF_VLAN_TCI));
  return total == 0 ? 0 : total - bytes + held;
}

/** The same for a chain of mbufs, which stays as it is. */
export function chainToVnet(mbuf: u32, destination: u32): u32 {
  const flags = load<u32>(mbuf, MBUF_FLAGS);
  const bytes = load<u32>(mbuf, MBUF_PACKET_LENGTH);
  if (bytes < 14 || chainGather(mbuf, behindHead(destination, flags), bytes) != bytes) return 0;
  return head(destination, bytes, flags, load<u32>(mbuf, MBUF_MSS), load<u32>(mbuf, MBUF_VLAN_TCI));
}
