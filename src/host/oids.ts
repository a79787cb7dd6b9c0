// OIDs: what a NIC answers and lets itself be told (facts/hyper-v-host.md 4.4). Formats and errors are the real host's.
// Where that one answers the same whatever the truth is (packet filter, connect status), this one tells the truth.
import {
  decodeConfigParameter,
  NDIS_ENCAPSULATION,
  NDIS_OBJECT,
  NDIS_PARAMETER_TYPE,
  NDIS_RSS_CAPABILITY,
  NdisConfigParameter,
  NdisLinkState,
  NdisMaxLinkSpeed,
  NdisObjectHeader,
  NdisOffloadEncapsulation,
  type NdisRevision,
  NdisRssCapabilities,
} from '../wire/ndis.js';
import { NDIS_VERSION } from '../wire/nvsp.js';
import { MAC_OPTION, MEDIA_CONNECT_STATUS, OID } from '../wire/oid.js';
import { RNDIS_STATUS as STATUS } from '../wire/rndis.js';
import { WireError } from '../wire/struct.js';
import type { Adapter } from './adapter.js';
import { RSS_TABLE_ENTRIES, setOffloadKeyword, setOffloadParameters, setRss } from './offload-config.js';

const ETHERNET_HEADER = 14;
const BUFFER_SPACE = 262_144;
const VENDOR_ID = 0x0000_155d;
const VENDOR = 'Microsoft Corporation';
const DRIVER_VERSION = 0x0100;
const MAX_SEND_PACKETS = 0xffff_ffff;
const FRIENDLY_NAME_BYTES = 512;
/** Longest name or value of a configuration parameter. */
const MAX_PARAMETER_BYTES = 255;
const NETWORK_ADDRESS = 'NetworkAddress';

const MAC_OPTIONS =
  MAC_OPTION.COPY_LOOKAHEAD_DATA |
  MAC_OPTION.TRANSFERS_NOT_PEND |
  MAC_OPTION.NO_LOOPBACK |
  MAC_OPTION.IEEE8021P_PRIORITY |
  MAC_OPTION.IEEE8021Q_VLAN;

/** Toeplitz over IPv4 and IPv6, as the real host's 0x301 says it. */
const RSS_FLAGS = NDIS_RSS_CAPABILITY.TOEPLITZ | NDIS_RSS_CAPABILITY.IPV4 | NDIS_RSS_CAPABILITY.IPV6;
const UDP_FLAGS = NDIS_RSS_CAPABILITY.UDP_IPV4 | NDIS_RSS_CAPABILITY.UDP_IPV6;

const SUPPORTED: readonly number[] = [
  OID.GEN_SUPPORTED_LIST,
  OID.GEN_HARDWARE_STATUS,
  OID.GEN_MEDIA_SUPPORTED,
  OID.GEN_MEDIA_IN_USE,
  OID.GEN_MAXIMUM_LOOKAHEAD,
  OID.GEN_MAXIMUM_FRAME_SIZE,
  OID.GEN_LINK_SPEED,
  OID.GEN_TRANSMIT_BUFFER_SPACE,
  OID.GEN_RECEIVE_BUFFER_SPACE,
  OID.GEN_TRANSMIT_BLOCK_SIZE,
  OID.GEN_RECEIVE_BLOCK_SIZE,
  OID.GEN_VENDOR_ID,
  OID.GEN_VENDOR_DESCRIPTION,
  OID.GEN_CURRENT_PACKET_FILTER,
  OID.GEN_CURRENT_LOOKAHEAD,
  OID.GEN_DRIVER_VERSION,
  OID.GEN_MAXIMUM_TOTAL_SIZE,
  OID.GEN_PROTOCOL_OPTIONS,
  OID.GEN_MAC_OPTIONS,
  OID.GEN_MEDIA_CONNECT_STATUS,
  OID.GEN_MAXIMUM_SEND_PACKETS,
  OID.GEN_VENDOR_DRIVER_VERSION,
  OID.GEN_NETWORK_LAYER_ADDRESSES,
  OID.GEN_FRIENDLY_NAME,
  OID.GEN_RNDIS_CONFIG_PARAMETER,
  OID.IEEE8023_PERMANENT_ADDRESS,
  OID.IEEE8023_CURRENT_ADDRESS,
  OID.IEEE8023_MULTICAST_LIST,
  OID.IEEE8023_MAXIMUM_LIST_SIZE,
  OID.IEEE8023_RCV_ERROR_ALIGNMENT,
  OID.IEEE8023_XMIT_ONE_COLLISION,
  OID.IEEE8023_XMIT_MORE_COLLISIONS,
];
const SUPPORTED_NDIS6: readonly number[] = [
  OID.GEN_LINK_STATE,
  OID.GEN_MAX_LINK_SPEED,
  OID.GEN_LINK_PARAMETERS,
  OID.GEN_BYTES_RCV,
  OID.GEN_BYTES_XMIT,
  OID.TCP_OFFLOAD_CURRENT_CONFIG,
  OID.TCP_OFFLOAD_PARAMETERS,
  OID.TCP_OFFLOAD_HARDWARE_CAPABILITIES,
  OID.OFFLOAD_ENCAPSULATION,
];
const SUPPORTED_NDIS630: readonly number[] = [OID.GEN_RECEIVE_SCALE_CAPABILITIES, OID.GEN_RECEIVE_SCALE_PARAMETERS];

export interface QueryAnswer {
  readonly status: number;
  readonly data: Uint8Array;
}

const EMPTY = new Uint8Array(0);
const none = (): QueryAnswer => ({ status: STATUS.NOT_SUPPORTED, data: EMPTY });
const ok = (data: Uint8Array): QueryAnswer => ({ status: STATUS.SUCCESS, data });
const cells = (values: readonly number[]): QueryAnswer => {
  const data = new Uint8Array(values.length * 4);
  const view = new DataView(data.buffer);
  for (const [i, value] of values.entries()) view.setUint32(i * 4, value, true);
  return ok(data);
};
const cell = (value: number) => cells([value >>> 0]);

/** OIDs that need an NDIS major version which this host knows. */
const badMajor = (adapter: Adapter) => adapter.ndisMajor !== 5 && adapter.ndisMajor !== 6;

/** Answers a query. `input`: what came behind the request, only looked at for the revision that the guest can hold. */
export function queryOid(adapter: Adapter, oid: number, input: Uint8Array): QueryAnswer {
  const payloadBytes = adapter.frameBytes - ETHERNET_HEADER;
  switch (oid) {
    case OID.GEN_SUPPORTED_LIST:
      return badMajor(adapter) ? { status: STATUS.BAD_VERSION, data: EMPTY } : cells(supportedOids(adapter));
    case OID.GEN_HARDWARE_STATUS: // ready
    case OID.GEN_MEDIA_SUPPORTED: // 802.3
    case OID.GEN_MEDIA_IN_USE:
    case OID.IEEE8023_MAXIMUM_LIST_SIZE:
    case OID.IEEE8023_RCV_ERROR_ALIGNMENT:
    case OID.IEEE8023_XMIT_ONE_COLLISION:
    case OID.IEEE8023_XMIT_MORE_COLLISIONS:
      return cell(0);
    case OID.GEN_MAXIMUM_LOOKAHEAD:
    case OID.GEN_CURRENT_LOOKAHEAD:
    case OID.GEN_MAXIMUM_FRAME_SIZE:
      return cell(payloadBytes);
    case OID.GEN_MAXIMUM_TOTAL_SIZE:
    case OID.GEN_TRANSMIT_BLOCK_SIZE:
    case OID.GEN_RECEIVE_BLOCK_SIZE:
      return cell(adapter.frameBytes);
    case OID.GEN_LINK_SPEED:
      return cell(Math.min(Math.floor(adapter.linkSpeedBps / 100), 0xffff_ffff));
    case OID.GEN_TRANSMIT_BUFFER_SPACE:
    case OID.GEN_RECEIVE_BUFFER_SPACE:
      return cell(BUFFER_SPACE);
    case OID.GEN_VENDOR_ID:
      return cell(VENDOR_ID);
    case OID.GEN_VENDOR_DESCRIPTION:
      return ok(new TextEncoder().encode(VENDOR));
    case OID.GEN_DRIVER_VERSION:
    case OID.GEN_VENDOR_DRIVER_VERSION:
      return ok(Uint8Array.of(DRIVER_VERSION & 0xff, DRIVER_VERSION >>> 8));
    case OID.GEN_CURRENT_PACKET_FILTER:
      return cell(adapter.filter);
    case OID.GEN_MAC_OPTIONS:
      return cell(MAC_OPTIONS);
    case OID.GEN_MEDIA_CONNECT_STATUS:
      return cell(adapter.linkUp ? MEDIA_CONNECT_STATUS.CONNECTED : MEDIA_CONNECT_STATUS.DISCONNECTED);
    case OID.GEN_MAXIMUM_SEND_PACKETS:
      return cell(MAX_SEND_PACKETS);
    case OID.GEN_FRIENDLY_NAME:
      return ok(utf16(adapter.friendlyName, FRIENDLY_NAME_BYTES));
    case OID.IEEE8023_PERMANENT_ADDRESS:
      return ok(adapter.permanentMac.slice());
    case OID.IEEE8023_CURRENT_ADDRESS:
      return ok(adapter.currentMac.slice());
    default:
      return queryNdis6(adapter, oid, input);
  }
}

function queryNdis6(adapter: Adapter, oid: number, input: Uint8Array): QueryAnswer {
  const speed = BigInt(adapter.linkSpeedBps);
  switch (oid) {
    case OID.GEN_LINK_STATE:
      return ok(
        NdisLinkState.encode({
          revision: 1,
          objectSize: NdisLinkState.size,
          mediaConnectState: adapter.linkUp ? 1 : 2,
          mediaDuplexState: 0,
          transmitLinkSpeed: speed,
          receiveLinkSpeed: speed,
          pauseFunctions: 0,
          autoNegotiationFlags: 0,
        }),
      );
    case OID.GEN_MAX_LINK_SPEED:
      return ok(NdisMaxLinkSpeed.encode({ transmitLinkSpeed: speed, receiveLinkSpeed: speed }));
    case OID.TCP_OFFLOAD_HARDWARE_CAPABILITIES:
      return ok(adapter.offloadStructure(adapter.supported, askedRevision(input)));
    case OID.TCP_OFFLOAD_CURRENT_CONFIG:
      return ok(adapter.offloadStructure(adapter.offloads, askedRevision(input)));
    case OID.OFFLOAD_ENCAPSULATION:
      return ok(
        NdisOffloadEncapsulation.encode({
          revision: 1,
          objectSize: NdisOffloadEncapsulation.size,
          ipv4Enabled: 1,
          ipv4EncapsulationType: NDIS_ENCAPSULATION.IEEE_802_3,
          ipv4HeaderSize: ETHERNET_HEADER,
          ipv6Enabled: 1,
          ipv6EncapsulationType: NDIS_ENCAPSULATION.IEEE_802_3,
          ipv6HeaderSize: ETHERNET_HEADER,
        }),
      );
    case OID.GEN_RECEIVE_SCALE_CAPABILITIES:
      if (adapter.ndis < NDIS_VERSION.NDIS_6_30) return none();
      return ok(
        NdisRssCapabilities.encode({
          revision: 2,
          objectSize: NdisRssCapabilities.size,
          capabilitiesFlags: adapter.profile.udpHash ? RSS_FLAGS | UDP_FLAGS : RSS_FLAGS,
          numberOfInterruptMessages: 1,
          numberOfReceiveQueues: adapter.profile.maxQueues,
          numberOfIndirectionTableEntries: RSS_TABLE_ENTRIES,
        }),
      );
    default:
      return none();
  }
}

/** Sets an OID; returns an RNDIS status, and changes nothing unless that is success. */
export function setOid(adapter: Adapter, oid: number, data: Uint8Array): number {
  try {
    return setChecked(adapter, oid, data);
  } catch (error) {
    if (error instanceof WireError) return STATUS.FAILURE; // shorter than it says
    throw error;
  }
}

function setChecked(adapter: Adapter, oid: number, data: Uint8Array): number {
  switch (oid) {
    case OID.GEN_CURRENT_PACKET_FILTER: {
      if (data.length < 4) return STATUS.FAILURE;
      adapter.filter = new DataView(data.buffer, data.byteOffset).getUint32(0, true);
      return STATUS.SUCCESS;
    }
    case OID.TCP_OFFLOAD_PARAMETERS: {
      const { status, offloads } = setOffloadParameters(data, adapter.offloads, adapter.supported);
      adapter.offloads = offloads;
      return status;
    }
    case OID.OFFLOAD_ENCAPSULATION:
      return setEncapsulation(data);
    case OID.GEN_RNDIS_CONFIG_PARAMETER:
      return setParameter(adapter, data);
    case OID.GEN_NETWORK_LAYER_ADDRESSES:
      return STATUS.SUCCESS; // a hint that the real host ignores, too
    case OID.GEN_RECEIVE_SCALE_PARAMETERS: {
      if (adapter.ndis < NDIS_VERSION.NDIS_6_30) return STATUS.NOT_SUPPORTED;
      const { status, state } = setRss(data, adapter.rss, adapter.profile.maxQueues, adapter.profile.udpHash);
      adapter.rss = state;
      return status;
    }
    default:
      return STATUS.NOT_SUPPORTED;
  }
}

function setEncapsulation(data: Uint8Array): number {
  const { type, revision, size } = NdisObjectHeader.decode(data);
  const least = NdisOffloadEncapsulation.size;
  if (type !== NDIS_OBJECT.OFFLOAD_ENCAPSULATION || revision < 1 || size < least) return STATUS.INVALID_DATA;
  const { ipv4Enabled, ipv4EncapsulationType, ipv4HeaderSize, ...six } = NdisOffloadEncapsulation.decode(data);
  const can = (enabled: number, kind: number, header: number) =>
    enabled !== 1 || (kind === NDIS_ENCAPSULATION.IEEE_802_3 && header === ETHERNET_HEADER);
  const both =
    can(ipv4Enabled, ipv4EncapsulationType, ipv4HeaderSize) &&
    can(six.ipv6Enabled, six.ipv6EncapsulationType, six.ipv6HeaderSize);
  return both ? STATUS.SUCCESS : STATUS.NOT_SUPPORTED;
}

function setParameter(adapter: Adapter, data: Uint8Array): number {
  const { parameterNameLength, parameterValueLength } = NdisConfigParameter.decode(data);
  if (parameterNameLength > MAX_PARAMETER_BYTES || parameterValueLength > MAX_PARAMETER_BYTES) {
    return STATUS.INVALID_DATA;
  }
  const { name, type, value } = decodeConfigParameter(data);
  if (type !== NDIS_PARAMETER_TYPE.STRING || typeof value !== 'string') return STATUS.SUCCESS;
  if (name === NETWORK_ADDRESS) {
    const mac = /^[0-9a-f]{12}\0*$/i.test(value) ? Uint8Array.from(Buffer.from(value.slice(0, 12), 'hex')) : EMPTY;
    return adapter.changeMac(mac) ? STATUS.SUCCESS : STATUS.INVALID_DATA;
  }
  const digit = value.charCodeAt(0) - 0x30;
  if (!(digit >= 0 && digit <= 9)) return STATUS.INVALID_DATA;
  adapter.offloads = setOffloadKeyword(name, digit, adapter.offloads, adapter.supported);
  return STATUS.SUCCESS;
}

function supportedOids(adapter: Adapter): number[] {
  const list = [...SUPPORTED];
  if (adapter.ndisMajor >= 6) list.push(...SUPPORTED_NDIS6);
  if (adapter.ndis >= NDIS_VERSION.NDIS_6_30) list.push(...SUPPORTED_NDIS630);
  return list;
}

/** Revision of the NDIS_OFFLOAD that a guest sent with its query; the newest when it sent none. */
function askedRevision(input: Uint8Array): NdisRevision {
  if (input.length < NdisObjectHeader.size) return 3;
  const { type, revision } = NdisObjectHeader.decode(input);
  return type === NDIS_OBJECT.OFFLOAD && (revision === 1 || revision === 2) ? revision : 3;
}

function utf16(text: string, bytes: number): Uint8Array {
  const data = new Uint8Array(bytes);
  const view = new DataView(data.buffer);
  for (let i = 0; i < Math.min(text.length, bytes / 2 - 1); i++) view.setUint16(i * 2, text.charCodeAt(i), true);
  return data;
}
