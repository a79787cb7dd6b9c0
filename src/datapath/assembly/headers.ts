// Finds a packet's IP and transport headers. Everything is checked against the bytes that are there; the results are
// module variables, valid until the next call.

export const IP_NONE: u32 = 0;
export const PROTOCOL_TCP: u32 = 6;
export const PROTOCOL_UDP: u32 = 17;
/** More extension headers than any sane packet has; ends the walk over a packet made of them. */
const MAX_EXTENSIONS: u32 = 16;

/** 4, 6 or IP_NONE. */
export let family: u32 = 0;
/** Offset of the IP header: 14, or more behind in-band VLAN tags. */
export let l3: u32 = 0;
/** Offset of what follows the IP header and its extensions. */
export let l4: u32 = 0;
/** Protocol number of that. */
export let protocol: u32 = 0;
/** First offset behind the IP packet: Ethernet padding is not part of it. An IP length of 0 (large sends) means all bytes. */
export let ipEnd: u32 = 0;
/** Bytes that the IP header counts but that are not there. */
export let missing: u32 = 0;
/** A piece of a larger packet: its transport checksum cannot be computed. */
export let fragment: bool = false;
/** Offset of the address that the pseudo header names as destination (a routing header may hold the final one). */
export let destination: u32 = 0;

@inline
export function load16(at: u32): u32 {
  return bswap<u16>(load<u16>(at));
}

@inline
export function store16(at: u32, value: u32): void {
  store<u16>(at, bswap<u16>(<u16>value));
}

/** True when an IPv4 or IPv6 header with its extensions is whole. */
@inline
export function parse(address: u32, bytes: u32): bool {
  return parseHead(address, bytes, bytes);
}

/** The same when only the first `head` of the packet's `bytes` bytes lie at `address`, within which headers must end. Results are
 *  written, not read: each would be a detour through memory. */
export function parseHead(address: u32, head: u32, bytes: u32): bool {
  family = IP_NONE;
  fragment = false;
  protocol = 0;
  missing = 0;
  if (head < 14) return false;
  let offset: u32 = 14;
  let type = load16(address + 12);
  for (let tags: u32 = 0; tags < 2 && (type == 0x8100 || type == 0x88a8); tags++) {
    if (offset + 4 > head) return false;
    type = load16(address + offset + 2);
    offset += 4;
  }
  l3 = offset;
  if (type == 0x0800) return parse4(address, offset, head, bytes);
  if (type == 0x86dd) return parse6(address, offset, head, bytes);
  return false;
}

@inline
function setEnd(end: u32, bytes: u32): void {
  ipEnd = end < bytes ? end : bytes;
  missing = end > bytes ? end - bytes : 0;
}

@inline
function parse4(address: u32, ip: u32, head: u32, bytes: u32): bool {
  if (ip + 20 > head) return false;
  const first = <u32>load<u8>(address + ip);
  const header = (first & 15) << 2;
  if (first >>> 4 != 4 || header < 20 || ip + header > head) return false;
  const total = load16(address + ip + 2);
  if (total != 0 && total < header) return false;
  setEnd(total == 0 ? bytes : ip + total, bytes);
  fragment = (load16(address + ip + 6) & 0x3fff) != 0;
  protocol = load<u8>(address + ip + 9);
  destination = ip + 16;
  l4 = ip + header;
  family = 4;
  return true;
}

function parse6(address: u32, ip: u32, head: u32, bytes: u32): bool {
  if (ip + 40 > head || load<u8>(address + ip) >>> 4 != 6) return false;
  const payload = load16(address + ip + 4);
  setEnd(payload == 0 ? bytes : ip + 40 + payload, bytes);
  const limit = ipEnd < head ? ipEnd : head;
  destination = ip + 24;
  let next = <u32>load<u8>(address + ip + 6);
  let offset: u32 = ip + 40;
  for (let i: u32 = 0; i < MAX_EXTENSIONS; i++) {
    let header: u32 = 0;
    if (next != 0 && next != 43 && next != 44 && next != 51 && next != 60 && next != 135) break;
    if (offset + 8 > limit) return false;
    const length = <u32>load<u8>(address + offset + 1);
    if (next == 44) {
      header = 8;
      if ((load16(address + offset + 2) & 0xfff9) != 0) fragment = true;
    } else {
      header = next == 51 ? (length + 2) << 2 : (length + 1) << 3;
    }
    if (offset + header > limit) return false;
    if (next == 43 && load<u8>(address + offset + 3) != 0 && header >= 24) {
      // Segments left: type 4 lists the final destination first (RFC 8754), types 0 and 2 last.
      destination = load<u8>(address + offset + 2) == 4 ? offset + 8 : offset + header - 16;
    }
    next = load<u8>(address + offset);
    offset += header;
    if (fragment) break; // what follows need not be a header
  }
  protocol = next;
  l4 = offset;
  family = 6;
  return true;
}
