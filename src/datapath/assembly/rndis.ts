// RNDIS packet messages and per-packet info as both halves write and read them.
import * as L from './generated';

/** RNDIS header and packet body; offsets inside the body count from byte 8 (facts/hyper-v-host.md 4.1). */
export const PACKET_HEADER: u32 = 44;
export const BODY: u32 = 8;
/** A per-packet info with one u32 of data. */
export const PPI_SIZE: u32 = 16;

/** Two words to a store, wherever a structure allows it. */
@inline
export function pair(low: u32, high: u32): u64 {
  return <u64>low | (<u64>high << 32);
}

@inline
export function putPacketHeader(at: u32, messageBytes: u32, dataAt: u32, dataBytes: u32, infoBytes: u32): void {
  store<u64>(at, pair(1, messageBytes), L.WIRE_RNDIS_PACKET_MESSAGE_TYPE);
  store<u64>(at, pair(dataAt - BODY, dataBytes), L.WIRE_RNDIS_PACKET_DATA_OFFSET);
  // No out-of-band data (three words), where the infos are, how long, no virtual circuit, a reserved word.
  if (infoBytes == 0) {
    v128.store(at, i64x2.splat(0), L.WIRE_RNDIS_PACKET_OOB_DATA_OFFSET);
    v128.store(at, i64x2.splat(0), L.WIRE_RNDIS_PACKET_PER_PACKET_INFO_OFFSET); // one word again
  } else {
    v128.store(at, i32x4(0, 0, 0, PACKET_HEADER - BODY), L.WIRE_RNDIS_PACKET_OOB_DATA_OFFSET);
    store<u64>(at, infoBytes, L.WIRE_RNDIS_PACKET_PER_PACKET_INFO_LENGTH);
    store<u32>(at, 0, L.WIRE_RNDIS_PACKET_RESERVED);
  }
}

/** Writes a 16-byte per-packet info; returns where the next one goes. */
@inline
export function putPpi(at: u32, type: u32, value: u32): u32 {
  store<u64>(at, pair(PPI_SIZE, type));
  store<u64>(at, pair(12, value), L.WIRE_PER_PACKET_INFO_DATA_OFFSET);
  return at + PPI_SIZE;
}

/** 802.1Q tag control information to the VLAN info's bit order (priority 0..2, DEI 3, VLAN id 4..15), and back. */
@inline
export function vlanInfo(tci: u32): u32 {
  return ((tci >>> 13) & 7) | ((tci >>> 9) & 8) | ((tci & 0xfff) << 4);
}

@inline
export function vlanTci(info: u32): u32 {
  return ((info & 7) << 13) | ((info & 8) << 9) | ((info >>> 4) & 0xfff);
}

/** NVSP SEND_RNDIS_PACKET for data, zero padded to `bytes` (28 or 40) and on to 8. */
@inline
export function putNvspData(at: u32, bytes: u32, section: u32, sectionBytes: u32): void {
  store<u64>(at, 107); // and channel type 0
  store<u64>(at, pair(section, sectionBytes), L.WIRE_NVSP_SEND_RNDIS_PACKET_SEND_BUFFER_SECTION_INDEX);
  v128.store(at, i64x2.splat(0), 16);
  if (bytes > 32) store<u64>(at, 0, 32);
}

/** NVSP SEND_RNDIS_PACKET_COMPLETE, zero padded to `bytes` (28 or 40, rounded up to 8). */
@inline
export function putNvspCompletion(at: u32, bytes: u32, status: u32): void {
  store<u64>(at, pair(108, status));
  v128.store(at, i64x2.splat(0), 8);
  store<u64>(at, 0, 24);
  if (bytes > 32) store<u64>(at, 0, 32);
}
