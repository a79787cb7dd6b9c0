// RNDIS packet messages and per-packet info as both halves write and read them.
import * as L from './generated';

/** RNDIS header and packet body; offsets inside the body count from byte 8 (facts/hyper-v-host.md 4.1). */
export const PACKET_HEADER: u32 = 44;
export const BODY: u32 = 8;
/** A per-packet info with one u32 of data. */
export const PPI_SIZE: u32 = 16;

@inline
export function putPacketHeader(at: u32, messageBytes: u32, dataAt: u32, dataBytes: u32, infoBytes: u32): void {
  store<u32>(at, 1, L.WIRE_RNDIS_PACKET_MESSAGE_TYPE);
  store<u32>(at, messageBytes, L.WIRE_RNDIS_PACKET_MESSAGE_LENGTH);
  store<u32>(at, dataAt - BODY, L.WIRE_RNDIS_PACKET_DATA_OFFSET);
  store<u32>(at, dataBytes, L.WIRE_RNDIS_PACKET_DATA_LENGTH);
  store<u64>(at, 0, L.WIRE_RNDIS_PACKET_OOB_DATA_OFFSET); // and its length
  store<u32>(at, 0, L.WIRE_RNDIS_PACKET_OOB_DATA_COUNT);
  store<u32>(at, infoBytes != 0 ? PACKET_HEADER - BODY : 0, L.WIRE_RNDIS_PACKET_PER_PACKET_INFO_OFFSET);
  store<u32>(at, infoBytes, L.WIRE_RNDIS_PACKET_PER_PACKET_INFO_LENGTH);
  store<u64>(at, 0, L.WIRE_RNDIS_PACKET_VC_HANDLE); // and the reserved word
}

/** Writes a 16-byte per-packet info; returns where the next one goes. */
@inline
export function putPpi(at: u32, type: u32, value: u32): u32 {
  store<u32>(at, PPI_SIZE, L.WIRE_PER_PACKET_INFO_SIZE);
  store<u32>(at, type, L.WIRE_PER_PACKET_INFO_TYPE);
  store<u32>(at, 12, L.WIRE_PER_PACKET_INFO_DATA_OFFSET);
  store<u32>(at + 12, value);
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
  store<u32>(at, 107, L.WIRE_NVSP_SEND_RNDIS_PACKET_MESSAGE_TYPE);
  store<u32>(at, 0, L.WIRE_NVSP_SEND_RNDIS_PACKET_CHANNEL_TYPE);
  store<u32>(at, section, L.WIRE_NVSP_SEND_RNDIS_PACKET_SEND_BUFFER_SECTION_INDEX);
  store<u32>(at, sectionBytes, L.WIRE_NVSP_SEND_RNDIS_PACKET_SEND_BUFFER_SECTION_SIZE);
  for (let i: u32 = 16; i < bytes; i += 8) store<u64>(at + i, 0);
}
