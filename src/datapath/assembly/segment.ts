// Segmentation of large sends: TCP (LSO, TSO) and UDP (USO). The packet may lie in memory that its sender still writes
// to, so the headers are copied once and everything is decided from the copy.
import { finishIpv4, finishTransport, packetPseudoSum } from './checksum';
import { copyBytes } from './copy';
import { family, fragment, ipEnd, l3, l4, missing, parseHead, PROTOCOL_TCP, PROTOCOL_UDP, protocol, store16 } from './headers';
import * as L from './generated';
import { scratch } from './scratch';

/** Ethernet, IPv6 with extensions, TCP with options. */
const MAX_HEADERS: u32 = 512;
const TCP_FIN: u32 = 0x01;
const TCP_PSH: u32 = 0x08;
const TCP_CWR: u32 = 0x80;

/** See datapath.ts. Also 0 when a segment does not fit in `stride`. `l4Offset` 0 = find it. */
export function segment(
  address: u32,
  bytes: u32,
  l4Offset: u32,
  mss: u32,
  output: u32,
  stride: u32,
  lengths: u32,
  max: u32,
): u32 {
  const head = bytes < MAX_HEADERS ? bytes : MAX_HEADERS;
  const headers = scratch + L.SCRATCH_SEGMENT_HEADERS;
  copyBytes(headers, address, head);
  if (mss == 0 || !parseHead(headers, head, bytes) || fragment || missing != 0) return 0;
  if (l4Offset != 0 && l4Offset != l4) return 0;
  const udp = protocol == PROTOCOL_UDP;
  if (!udp && protocol != PROTOCOL_TCP) return 0;
  let headerBytes = l4 + 8;
  if (!udp) {
    if (l4 + 20 > head) return 0;
    const tcpBytes = <u32>(load<u8>(headers + l4, 12) >>> 4) << 2;
    if (tcpBytes < 20) return 0;
    headerBytes = l4 + tcpBytes;
  }
  if (headerBytes > head || headerBytes > ipEnd) return 0;
  const payload = ipEnd - headerBytes;
  const count: u32 = payload == 0 ? 1 : (payload - 1) / mss + 1;
  const largest = headerBytes + (payload < mss ? payload : mss);
  if (count > max || largest > stride || largest - l3 > 0xffff) return 0;

  const transport = l4;
  const ip = l3;
  const pseudo = packetPseudoSum(headers, protocol, 0);
  const firstId = <u32>bswap<u16>(load<u16>(headers + ip, 4));
  const firstSequence = bswap<u32>(load<u32>(headers + transport, 4));
  const tcpFlags = <u32>load<u8>(headers + transport, 13);
  for (let i: u32 = 0; i < count; i++) {
    const done = i * mss;
    const part = payload - done < mss ? payload - done : mss;
    const at = output + i * stride;
    const l4Bytes = headerBytes - transport + part;
    copyBytes(at, headers, headerBytes);
    copyBytes(at + headerBytes, address + headerBytes + done, part);
    if (family == 4) {
      store16(at + ip + 2, transport - ip + l4Bytes);
      store16(at + ip + 4, firstId + i);
      finishIpv4(at + ip, transport - ip);
    } else {
      store16(at + ip + 4, transport - ip - 40 + l4Bytes);
    }
    const tcp = at + transport;
    if (udp) {
      store16(tcp + 4, l4Bytes);
    } else {
      let flags = tcpFlags;
      if (i != 0) flags &= ~TCP_CWR;
      if (i + 1 != count) flags &= ~(TCP_FIN | TCP_PSH);
      store<u32>(tcp, bswap<u32>(firstSequence + done), 4);
      store<u8>(tcp, <u8>flags, 13);
    }
    finishTransport(tcp, l4Bytes, tcp + (udp ? 6 : 16), pseudo + <u64>bswap<u16>(<u16>l4Bytes), udp);
    store<u32>(lengths + (i << 2), headerBytes + part);
  }
  return count;
}
