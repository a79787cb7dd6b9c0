// What forwarding does to packets: one pass over a burst for each mode of testpmd. Headers are looked for in the first
// segment only, and nothing beyond its bytes is touched.
import { chainSum, finishIpv4, fold, packetPseudoSum, udpBytes } from './checksum';
import { copyBytes } from './copy';
import * as L from './generated';
import { family, fragment, ipEnd, l3, l4, load16, missing, parseHead, PROTOCOL_TCP, PROTOCOL_UDP, protocol, store16 } from './headers';
import { freeChain, take } from './pool';
import { count } from './ring';

const PROTOCOL_ICMP: u32 = 1;
const TX_CHECKSUMS: u32 = L.PACKET_FLAG_TX_IP_CHECKSUM | L.PACKET_FLAG_TX_TCP_CHECKSUM | L.PACKET_FLAG_TX_UDP_CHECKSUM;
const TRANSPORTS: u32 = L.PACKET_FLAG_IPV4 | L.PACKET_FLAG_IPV6 | L.PACKET_FLAG_TCP | L.PACKET_FLAG_UDP;
/** IPv4 behind Ethernet in made packets. */
const MADE_IP: u32 = 14;

@inline
function putAddresses(at: u32, stream: u32): void {
  store<u64>(at, load<u64>(stream, L.FORWARD_STREAM_ADDRESSES));
  store<u32>(at, load<u32>(stream, L.FORWARD_STREAM_ADDRESSES_LAST), 8);
}

@inline
function swapAddresses(at: u32): void {
  const first = load<u32>(at);
  const second = load<u16>(at, 4);
  store<u32>(at, load<u32>(at, 6));
  store<u16>(at, load<u16>(at, 10), 4);
  store<u32>(at, first, 6);
  store<u16>(at, second, 10);
}

@inline
function swap32(a: u32, b: u32): void {
  const kept = load<u32>(a);
  store<u32>(a, load<u32>(b));
  store<u32>(b, kept);
}

/** Every packet goes to the stream's peer, from the port that sends it. */
export function forwardMac(stream: u32, handles: u32, n: u32): void {
  for (let i: u32 = 0; i < n; i++) {
    const mbuf = load<u32>(handles + (i << 2));
    if (load<u32>(mbuf, L.MBUF_DATA_LENGTH) >= 12) putAddresses(load<u32>(mbuf, L.MBUF_DATA), stream);
  }
}

/** Every packet goes back where it came from. */
export function forwardMacSwap(handles: u32, n: u32): void {
  for (let i: u32 = 0; i < n; i++) {
    const mbuf = load<u32>(handles + (i << 2));
    if (load<u32>(mbuf, L.MBUF_DATA_LENGTH) >= 12) swapAddresses(load<u32>(mbuf, L.MBUF_DATA));
  }
}

/** Looks at the headers in a chain's first segment. */
@inline
function look(mbuf: u32, at: u32): bool {
  return parseHead(at, load<u32>(mbuf, L.MBUF_DATA_LENGTH), load<u32>(mbuf, L.MBUF_PACKET_LENGTH));
}

/** Is the parsed packet a fragment that does not begin with a transport header? */
function laterFragment(at: u32): bool {
  if (!fragment) return false;
  return (family == 4 ? load16(at + l3 + 6) & 0x1fff : load16(at + l4 - 6) & 0xfff8) != 0;
}

/** Ethernet addresses, IP addresses and TCP or UDP ports change places; the checksums stay right. */
export function forwardSwap5(handles: u32, n: u32): void {
  for (let i: u32 = 0; i < n; i++) {
    const mbuf = load<u32>(handles + (i << 2));
    const at = load<u32>(mbuf, L.MBUF_DATA);
    const bytes = load<u32>(mbuf, L.MBUF_DATA_LENGTH);
    if (bytes >= 12) swapAddresses(at);
    if (!look(mbuf, at)) continue;
    if (family == 4) swap32(at + l3 + 12, at + l3 + 16);
    else {
      const source = v128.load(at + l3, 8);
      v128.store(at + l3, v128.load(at + l3, 24), 8);
      v128.store(at + l3, source, 24);
    }
    if ((protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP) || laterFragment(at)) continue;
    const end = ipEnd < bytes ? ipEnd : bytes;
    if (l4 + 4 <= end) store<u32>(at + l4, rotl<u32>(load<u32>(at + l4), 16));
  }
}

/** Transport checksum of the parsed packet, over all segments. */
function finishChain(mbuf: u32, at: u32): void {
  const udp = protocol == PROTOCOL_UDP;
  const length = udp ? udpBytes(at + l4, ipEnd - l4) : ipEnd - l4;
  const field = at + l4 + (udp ? 6 : 16);
  store<u16>(field, 0);
  const result = ~fold(chainSum(mbuf, l4, length) + packetPseudoSum(at, protocol, length)) & 0xffff;
  store<u16>(field, <u16>(udp && result == 0 ? 0xffff : result));
}

/** Computes the checksums of one packet, or asks the device for them. */
function renewChecksums(stream: u32, mbuf: u32, at: u32, bytes: u32): void {
  let flags = load<u32>(mbuf, L.MBUF_FLAGS);
  if (flags & L.PACKET_FLAG_TX_TSO) return; // asks the device for everything already
  const hardware = load<u32>(stream, L.FORWARD_STREAM_CHECKSUMS);
  const tso = load<u32>(stream, L.FORWARD_STREAM_TSO_SEGMENT);
  let software: u32 = 0;
  let asked: u32 = family == 4 ? L.PACKET_FLAG_IPV4 : L.PACKET_FLAG_IPV6;
  if (family == 4) {
    if (hardware & L.FORWARD_CHECKSUM_IP) asked |= L.PACKET_FLAG_TX_IP_CHECKSUM;
    else software |= L.PACKET_FLAG_TX_IP_CHECKSUM;
  }
  const whole = !fragment && missing == 0;
  if (whole && protocol == PROTOCOL_TCP && l4 + 20 <= bytes && l4 + 20 <= ipEnd) {
    asked |= L.PACKET_FLAG_TCP;
    const header = (<u32>load<u8>(at + l4, 12) >>> 4) << 2;
    if (tso != 0 && header >= 20 && l4 + header + tso < ipEnd) {
      asked |= L.PACKET_FLAG_TX_TSO;
      store<u32>(mbuf, tso, L.MBUF_MSS);
    } else if (hardware & L.FORWARD_CHECKSUM_TCP) asked |= L.PACKET_FLAG_TX_TCP_CHECKSUM;
    else software |= L.PACKET_FLAG_TX_TCP_CHECKSUM;
  } else if (whole && protocol == PROTOCOL_UDP && l4 + 8 <= bytes && l4 + 8 <= ipEnd) {
    asked |= L.PACKET_FLAG_UDP;
    // 0 says that the sender wants none, unless it left the field to whoever sends the packet on.
    const wanted = load<u16>(at + l4, 6) != 0 || (flags & L.PACKET_FLAG_TX_UDP_CHECKSUM) != 0;
    if (wanted) {
      if (hardware & L.FORWARD_CHECKSUM_UDP) asked |= L.PACKET_FLAG_TX_UDP_CHECKSUM;
      else software |= L.PACKET_FLAG_TX_UDP_CHECKSUM;
    }
  }
  if (software & L.PACKET_FLAG_TX_IP_CHECKSUM) finishIpv4(at + l3, l4 - l3);
  if (software & ~L.PACKET_FLAG_TX_IP_CHECKSUM) finishChain(mbuf, at);
  flags = (flags & ~(TX_CHECKSUMS | TRANSPORTS)) | asked;
  store<u32>(mbuf, flags, L.MBUF_FLAGS);
  if (asked & (TX_CHECKSUMS | L.PACKET_FLAG_TX_TSO)) store<u32>(mbuf, l4, L.MBUF_L4_OFFSET);
}

/** As forwardMac, with fresh checksums of IPv4, TCP and UDP. Counts what came in with wrong ones, as far as the device said. */
export function forwardChecksum(stream: u32, handles: u32, n: u32): void {
  const keep = load<u32>(stream, L.FORWARD_STREAM_KEEP_ADDRESSES) != 0;
  let badIp: u32 = 0;
  let badL4: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const mbuf = load<u32>(handles + (i << 2));
    const at = load<u32>(mbuf, L.MBUF_DATA);
    const bytes = load<u32>(mbuf, L.MBUF_DATA_LENGTH);
    const flags = load<u32>(mbuf, L.MBUF_FLAGS);
    if (flags & L.PACKET_FLAG_RX_IP_BAD) badIp++;
    if (flags & L.PACKET_FLAG_RX_L4_BAD) badL4++;
    if (bytes >= 12 && !keep) putAddresses(at, stream);
    if (look(mbuf, at)) renewChecksums(stream, mbuf, at, bytes);
  }
  if (badIp != 0) count(stream + L.FORWARD_STREAM_RX_BAD_IP, badIp);
  if (badL4 != 0) count(stream + L.FORWARD_STREAM_RX_BAD_L4, badL4);
}

/** Makes an ARP request for IPv4 over Ethernet the answer to it. */
function answerArp(stream: u32, at: u32, arp: u32): bool {
  // Hardware and protocol types and lengths, and the operation: as fixed as a request's.
  if (load<u64>(at + arp) != 0x0100040600080100) return false;
  const own = stream + L.FORWARD_STREAM_ADDRESSES + 6;
  memory.copy(at, at + 6, 6);
  memory.copy(at + 6, own, 6);
  store16(at + arp + 6, 2);
  const sender = at + arp + 8;
  memory.copy(sender + 10, sender, 6);
  memory.copy(sender, own, 6);
  swap32(sender + 6, sender + 16);
  return true;
}

/** Makes an ICMP echo request the reply to it. */
function answerEcho(stream: u32, at: u32, bytes: u32): bool {
  if (family != 4 || fragment || protocol != PROTOCOL_ICMP || l4 + 8 > bytes || l4 + 8 > ipEnd) return false;
  if (load<u16>(at + l4) != 8) return false;
  const ip = at + l3;
  const group = (<u32>load<u8>(ip, 16) & 0xf0) == 0xe0;
  const multicast = (<u32>load<u8>(at) & 1) != 0;
  swapAddresses(at);
  // A group cannot be a sender.
  if (multicast) memory.copy(at + 6, stream + L.FORWARD_STREAM_ADDRESSES + 6, 6);
  swap32(ip + 12, ip + 16);
  if (group) {
    // No address of its own: testpmd takes the asker's neighbour.
    store<u32>(ip, load<u32>(ip, 16), 12);
    const last = <u32>load<u8>(ip, 15);
    store<u8>(ip, <u8>((last & 3) == 1 ? (last & 0xfc) | 2 : (last & 0xfc) | 1), 15);
    finishIpv4(ip, l4 - l3);
  }
  store<u8>(at + l4, 0);
  const before = ~<u32>load<u16>(at + l4, 2) & 0xffff;
  store<u16>(at + l4, <u16>~fold(<u64>before + (~<u32>8 & 0xffff)), 2);
  return true;
}

/** Answers ARP requests and ICMP echo requests. The answers go to the front of the list, everything else is freed. */
export function forwardEcho(stream: u32, handles: u32, n: u32): u32 {
  let answers: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const mbuf = load<u32>(handles + (i << 2));
    const at = load<u32>(mbuf, L.MBUF_DATA);
    const bytes = load<u32>(mbuf, L.MBUF_DATA_LENGTH);
    const ip = look(mbuf, at);
    let answered = false;
    if (ip) answered = answerEcho(stream, at, bytes);
    else if (bytes >= 14 && l3 + 28 <= bytes && load16(at + l3 - 2) == 0x0806) answered = answerArp(stream, at, l3);
    if (answered) store<u32>(handles + (answers++ << 2), mbuf);
    else freeChain(mbuf);
  }
  return answers;
}

/** A chain with the template's bytes, or 0 when the pool has too few mbufs. */
function make(stream: u32): u32 {
  const pool = load<u32>(stream, L.FORWARD_STREAM_POOL);
  const segments = load<u32>(stream, L.FORWARD_STREAM_SEGMENT_COUNT);
  const lengths = load<u32>(stream, L.FORWARD_STREAM_SEGMENT_BYTES);
  let from = load<u32>(stream, L.FORWARD_STREAM_TEMPLATE);
  let first: u32 = 0;
  let before: u32 = 0;
  let total: u32 = 0;
  for (let i: u32 = 0; i < segments; i++) {
    const mbuf = take(pool);
    if (mbuf == 0) {
      if (first != 0) freeChain(first);
      return 0;
    }
    const bytes = load<u32>(lengths + (i << 2));
    copyBytes(load<u32>(mbuf, L.MBUF_DATA), from, bytes);
    store<u32>(mbuf, bytes, L.MBUF_DATA_LENGTH);
    from += bytes;
    total += bytes;
    if (first == 0) first = mbuf;
    else store<u32>(before, mbuf, L.MBUF_NEXT);
    before = mbuf;
  }
  store<u32>(first, total, L.MBUF_PACKET_LENGTH);
  store<u32>(first, segments, L.MBUF_SEGMENTS);
  store<u32>(first, load<u32>(stream, L.FORWARD_STREAM_TEMPLATE_FLAGS), L.MBUF_FLAGS);
  return first;
}

/** Makes up to `n` packets from the stream's template; returns how many. */
export function forwardMake(stream: u32, handles: u32, n: u32): u32 {
  const flows = load<u32>(stream, L.FORWARD_STREAM_FLOWS);
  const address = load<u32>(stream, L.FORWARD_STREAM_FLOW_OFFSET);
  let flow = load<u32>(stream, L.FORWARD_STREAM_FLOW);
  let made: u32 = 0;
  for (; made < n; made++) {
    const mbuf = make(stream);
    if (mbuf == 0) {
      count(stream + L.FORWARD_STREAM_NO_MBUFS, n - made);
      break;
    }
    if (flows != 0) {
      const at = load<u32>(mbuf, L.MBUF_DATA);
      store<u32>(at + address, bswap<u32>(load<u32>(stream, L.FORWARD_STREAM_FLOW_BASE) + flow));
      finishIpv4(at + MADE_IP, 20);
      flow = flow + 1 < flows ? flow + 1 : 0;
    }
    store<u32>(handles + (made << 2), mbuf);
  }
  store<u32>(stream, flow, L.FORWARD_STREAM_FLOW);
  return made;
}
