// The packets that txonly and flowgen make: UDP over IPv4, as DPDK's testpmd makes them (measured with net_pcap).

import { internetChecksum } from '../../wire/checksum.js';
import { ETHER_TYPE, EthernetHeader } from '../../wire/ethernet.js';
import { IP_PROTOCOL, Ipv4Header } from '../../wire/ip.js';
import { UdpHeader } from '../../wire/tcp-udp.js';

export interface Template {
  readonly bytes: Uint8Array;
  /** Flows, offset and number of the address that tells them apart; 0 flows = all packets are the same. */
  readonly flows: number;
  readonly flowOffset: number;
  readonly flowBase: number;
}

interface Packet {
  readonly length: number;
  readonly destination: string;
  readonly source: string;
  readonly from: string;
  readonly to: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

const IP = EthernetHeader.size;
const UDP = IP + Ipv4Header.size;
/** Headers of a made packet: it cannot be shorter. */
export const MADE_HEADERS = UDP + UdpHeader.size;

/** Zeros behind the headers; no UDP checksum. */
function build({ length, destination, source, from, to, sourcePort, destinationPort }: Packet): Uint8Array {
  const bytes = new Uint8Array(Math.max(length, MADE_HEADERS));
  EthernetHeader.encodeInto({ destination, source, etherType: ETHER_TYPE.IPV4 }, bytes);
  const ip = {
    ...{ versionHeaderLength: 0x45, totalLength: bytes.length - IP, timeToLive: 64, protocol: IP_PROTOCOL.UDP },
    ...{ source: from, destination: to },
  };
  Ipv4Header.encodeInto(ip, bytes, IP);
  const headerChecksum = internetChecksum(bytes, IP, Ipv4Header.size);
  Ipv4Header.encodeInto({ ...ip, headerChecksum }, bytes, IP);
  UdpHeader.encodeInto({ sourcePort, destinationPort, length: bytes.length - UDP }, bytes, UDP);
  return bytes;
}

/** Addresses for benchmarks (RFC 2544), the discard port. */
const TXONLY = { from: '198.18.0.1', to: '198.18.0.2', sourcePort: 9, destinationPort: 9 };
const TXONLY_BASE = 0xc612_0001;
const TXONLY_FLOWS = 128;

/** `length`: of the frame; `stream`: with many flows, each stream has its own. */
export function txonlyTemplate(
  length: number,
  destination: string,
  source: string,
  multiFlow: boolean,
  stream: number,
): Template {
  const bytes = build({ length, destination, source, ...TXONLY });
  const flows = multiFlow ? TXONLY_FLOWS : 0;
  return { bytes, flows, flowOffset: IP + Ipv4Header.offset.source, flowBase: TXONLY_BASE + stream * TXONLY_FLOWS };
}

const FLOWGEN = {
  ...{ destination: '00:01:02:03:04:01', source: '00:01:02:03:04:00' },
  ...{ from: '10.254.0.0', to: '10.253.0.0', sourcePort: 1000, destinationPort: 1001 },
};
const FLOWGEN_BASE = 0x0afd_0000;
/** FCS, which flowgen counts to a packet's length. */
const FCS = 4;

export function flowgenTemplate(length: number, flows: number): Template {
  const bytes = build({ length: length - FCS, ...FLOWGEN });
  return { bytes, flows, flowOffset: IP + Ipv4Header.offset.destination, flowBase: FLOWGEN_BASE };
}
