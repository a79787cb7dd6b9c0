// Per-packet information of RNDIS packets (facts/hyper-v-host.md 4.3, facts/linux-guest.md 1.4).
import { flagsText, nameOf, struct, u8, u16, u32, WireError } from './struct.js';

/** PerPacketInfo.type. */
export const PPI_TYPE = {
  CHECKSUM: 0,
  LSO: 2,
  VLAN: 6,
  HASH_VALUE: 8,
  HASH_INFO: 9,
  /** Of a coalesced packet: how many segments it was made of. From the hash value on the numbers are NDIS's own. */
  RSC: 22,
  /** Internal: describes a receive-side coalesced packet. */
  PACKET_ID: 0x80000001,
} as const;
export const PPI_INTERNAL = 0x80000000;

export const PPI_TX_CHECKSUM_IPV4 = 1;
export const PPI_TX_CHECKSUM_IPV6 = 2;
export const PPI_TX_CHECKSUM_TCP = 4;
export const PPI_TX_CHECKSUM_UDP = 8;
export const PPI_TX_CHECKSUM_IP_HEADER = 0x10;
/** Ten bits: where the TCP or UDP header starts in the frame; 0 = the host assumes no options. */
export const PPI_TX_CHECKSUM_HEADER_OFFSET_SHIFT = 16;
export const PPI_TX_CHECKSUM_HEADER_OFFSET_MASK = 0x3ff;

export const PPI_RX_CHECKSUM_TCP_FAILED = 1;
export const PPI_RX_CHECKSUM_UDP_FAILED = 2;
export const PPI_RX_CHECKSUM_IP_FAILED = 4;
export const PPI_RX_CHECKSUM_TCP_SUCCEEDED = 8;
export const PPI_RX_CHECKSUM_UDP_SUCCEEDED = 0x10;
export const PPI_RX_CHECKSUM_IP_SUCCEEDED = 0x20;
export const PPI_RX_CHECKSUM_LOOPBACK = 0x40;
export const PPI_RX_CHECKSUM_TCP_VALUE_INVALID = 0x80;
export const PPI_RX_CHECKSUM_IP_VALUE_INVALID = 0x100;

export const PPI_LSO_MSS_MASK = 0xfffff;
/** Ten bits: where the TCP header starts in the frame. */
export const PPI_LSO_HEADER_OFFSET_SHIFT = 20;
export const PPI_LSO_HEADER_OFFSET_MASK = 0x3ff;
/** Set for LSO version 2, the only one in use. */
export const PPI_LSO_V2 = 0x40000000;
export const PPI_LSO_IPV6 = 0x80000000;

export const PPI_VLAN_PRIORITY_MASK = 7;
export const PPI_VLAN_DEI = 8;
export const PPI_VLAN_ID_SHIFT = 4;
export const PPI_VLAN_ID_MASK = 0xfff;

export const PPI_PACKET_ID_SUBALLOCATED = 1;
export const PPI_PACKET_ID_FIRST = 2;
export const PPI_PACKET_ID_LAST = 4;

const TX_CHECKSUM_BITS = { IPV4: 1, IPV6: 2, TCP: 4, UDP: 8, IP_HEADER: 0x10 } as const;
const RX_CHECKSUM_BITS = {
  TCP_FAILED: 1,
  UDP_FAILED: 2,
  IP_FAILED: 4,
  TCP_SUCCEEDED: 8,
  UDP_SUCCEEDED: 0x10,
  IP_SUCCEEDED: 0x20,
  LOOPBACK: 0x40,
  TCP_VALUE_INVALID: 0x80,
  IP_VALUE_INVALID: 0x100,
} as const;

export const PerPacketInfo = struct('PER_PACKET_INFO', {
  size: u32(0, 'this header and its data; the next info follows', { unit: 'bytes' }),
  type: u32(4, 'bit 31 = internal', { names: PPI_TYPE }),
  dataOffset: u32(8, 'data, from the start of this header', { unit: 'bytes' }),
});

export const ChecksumInfo = struct('CHECKSUM_INFO', {
  value: u32(0, 'guest to host PPI_TX_CHECKSUM_*, host to guest PPI_RX_CHECKSUM_*', { hex: true }),
});
export const LsoInfo = struct('LSO_INFO', {
  value: u32(0, 'bits 0..19 MSS, 20..29 TCP header offset, 30 version 2, 31 IPv6', { hex: true }),
});
export const VlanInfo = struct('VLAN_INFO', {
  value: u32(0, 'bits 0..2 priority, 3 DEI, 4..15 VLAN id', { hex: true }),
});
export const HashValueInfo = struct('HASH_VALUE_INFO', { value: u32(0, 'Toeplitz hash', { hex: true }) });
export const HashInfo = struct('HASH_INFO', {
  value: u32(0, 'bits 0..7 hash function, 8.. hash types (NDIS_HASH_*)', { hex: true }),
});

export const RscInfo = struct('RSC_INFO', {
  coalescedSegments: u16(0, 'data segments in this packet'),
  duplicateAcks: u16(2, 'duplicate acknowledgements left out'),
});

/** Receive-side coalescing: each fragment of a coalesced packet is an RNDIS packet with this info. */
export const PacketIdInfo = struct('PACKET_ID_INFO', {
  version: u8(0, '1'),
  flags: u8(1, 'place of the fragment', { flags: { SUBALLOCATED: 1, FIRST: 2, LAST: 4 } }),
  packetId: u16(2, 'same for all fragments of a packet'),
});

export const PPI_TABLES = [
  PerPacketInfo,
  ChecksumInfo,
  LsoInfo,
  VlanInfo,
  HashValueInfo,
  HashInfo,
  RscInfo,
  PacketIdInfo,
] as const;

/** One info. `data` holds its bytes; `dataOffset` is the header's, 12 unless padding precedes the data. */
export interface Ppi {
  readonly type: number;
  readonly data: Uint8Array;
}

/** An info of one u32. */
export function ppi(type: number, value: number): Ppi {
  return { type, data: ChecksumInfo.encode({ value }) };
}

/** The u32 of an info. Throws WireError when it is shorter. */
export function ppiValue(info: Ppi): number {
  return ChecksumInfo.decode(info.data).value;
}

/** Infos one after another, each a multiple of 4 bytes long. */
export function encodePpis(infos: readonly Ppi[]): Uint8Array<ArrayBuffer> {
  const head = PerPacketInfo.size;
  const sizes = infos.map(({ data }) => (head + data.length + 3) & ~3);
  const bytes = new Uint8Array(sizes.reduce((sum, size) => sum + size, 0));
  let at = 0;
  infos.forEach(({ type, data }, i) => {
    PerPacketInfo.encodeInto({ size: sizes[i]!, type, dataOffset: head }, bytes, at);
    bytes.set(data, at + head);
    at += sizes[i]!;
  });
  return bytes;
}

/** Every info in `bytes`, with copies of the data. Throws WireError when one is empty or runs past the end. */
export function decodePpis(bytes: Uint8Array): Ppi[] {
  const infos: Ppi[] = [];
  let at = 0;
  while (at < bytes.length) {
    const { size, type, dataOffset } = PerPacketInfo.decode(bytes, at);
    const rest = bytes.length - at;
    if (size < PerPacketInfo.size || size > rest) {
      throw new WireError(PerPacketInfo.name, 'size', `expected ${PerPacketInfo.size}..${rest} bytes, got ${size}`);
    }
    if (dataOffset < PerPacketInfo.size || dataOffset > size) {
      const what = `expected ${PerPacketInfo.size}..${size}, got ${dataOffset}`;
      throw new WireError(PerPacketInfo.name, 'dataOffset', what);
    }
    infos.push({ type, data: bytes.slice(at + dataOffset, at + size) });
    at += size;
  }
  return infos;
}

/** 802.1Q tag control information to VLAN_INFO's bit order. */
export function vlanInfoOfTci(tci: number): number {
  return ((tci >>> 13) & 7) | ((tci >>> 9) & 8) | ((tci & 0xfff) << 4);
}

/** VLAN_INFO to 802.1Q tag control information. */
export function tciOfVlanInfo(info: number): number {
  return ((info & 7) << 13) | ((info & 8) << 9) | ((info >>> 4) & 0xfff);
}

/** One info for the trace. `toGuest`: a checksum info from the host, whose bits mean something else. */
export function ppiText(info: Ppi, toGuest = false): string {
  const name = nameOf(PPI_TYPE, info.type);
  if (info.data.length < 4) return `${name}(${info.data.length} bytes)`;
  const value = ppiValue(info);
  switch (info.type) {
    case PPI_TYPE.CHECKSUM: {
      if (toGuest) return `${name}(${flagsText(RX_CHECKSUM_BITS, value)})`;
      const offset = (value >>> PPI_TX_CHECKSUM_HEADER_OFFSET_SHIFT) & PPI_TX_CHECKSUM_HEADER_OFFSET_MASK;
      const bits = value & ~(PPI_TX_CHECKSUM_HEADER_OFFSET_MASK << PPI_TX_CHECKSUM_HEADER_OFFSET_SHIFT);
      return `${name}(${flagsText(TX_CHECKSUM_BITS, bits >>> 0)} headerOffset=${offset})`;
    }
    case PPI_TYPE.LSO: {
      const offset = (value >>> PPI_LSO_HEADER_OFFSET_SHIFT) & PPI_LSO_HEADER_OFFSET_MASK;
      const family = value & PPI_LSO_IPV6 ? 'IPv6' : 'IPv4';
      return `${name}(${family} mss=${value & PPI_LSO_MSS_MASK} headerOffset=${offset})`;
    }
    case PPI_TYPE.VLAN: {
      const id = (value >>> PPI_VLAN_ID_SHIFT) & PPI_VLAN_ID_MASK;
      return `${name}(id=${id} priority=${value & PPI_VLAN_PRIORITY_MASK} dei=${value & PPI_VLAN_DEI ? 1 : 0})`;
    }
    case PPI_TYPE.RSC:
      return RscInfo.text(RscInfo.decode(info.data));
    case PPI_TYPE.PACKET_ID:
      return PacketIdInfo.text(PacketIdInfo.decode(info.data));
  }
  return `${name}(0x${value.toString(16)})`;
}
