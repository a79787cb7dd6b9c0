// "set verbose": what is received and sent, packet by packet, as DPDK's testpmd prints it. Printed by the thread that forwards.
import { writeSync } from 'node:fs';
import { PACKET_TYPE } from '../../ethdev/constants.js';
import type { LcoreThread } from '../../ethdev/lcore.js';
import type { Mbufs } from '../../ethdev/mbuf.js';
import { PACKET_FLAG } from '../../memory/layout.js';
import { formatIpv4, formatMac } from '../../wire/address-text.js';
import { ETHER_TYPE } from '../../wire/ethernet.js';
import { IP_PROTOCOL } from '../../wire/ip.js';
import type { Mode } from './modes.js';

/** What a look at a packet's bytes finds. */
export interface Headers {
  readonly etherType: number;
  /** Names of the layers, as testpmd's software finds them. */
  readonly types: readonly string[];
  readonly l2: number;
  /** Bytes of the network and transport headers; undefined = none was found. */
  readonly l3: number | undefined;
  readonly l4: number | undefined;
  readonly protocol: number;
}

const get16 = (b: Uint8Array, at: number): number => ((b[at] ?? 0) << 8) | (b[at + 1] ?? 0);
const V6_EXTENSIONS: readonly number[] = [0, 43, 60];
const FRAGMENT = 44;

interface Network {
  readonly name: string;
  readonly bytes: number;
  readonly protocol: number;
  readonly fragment: boolean;
}

function ipv4(b: Uint8Array, at: number): Network | undefined {
  const bytes = ((b[at] ?? 0) & 15) * 4;
  if (b[at]! >>> 4 !== 4 || bytes < 20 || at + bytes > b.length) return undefined;
  const name = bytes > 20 ? 'L3_IPV4_EXT' : 'L3_IPV4';
  return { name, bytes, protocol: b[at + 9]!, fragment: (get16(b, at + 6) & 0x3fff) !== 0 };
}

function ipv6(b: Uint8Array, at: number): Network | undefined {
  if (at + 40 > b.length || b[at]! >>> 4 !== 6) return undefined;
  let next = b[at + 6]!;
  let bytes = 40;
  while (V6_EXTENSIONS.includes(next) && at + bytes + 8 <= b.length) {
    next = b[at + bytes]!;
    bytes += (b[at + bytes + 1]! + 1) * 8;
  }
  const fragment = next === FRAGMENT;
  if (fragment && at + bytes + 8 <= b.length) {
    next = b[at + bytes]!;
    bytes += 8;
  }
  return { name: bytes > 40 ? 'L3_IPV6_EXT' : 'L3_IPV6', bytes, protocol: next, fragment };
}

const TRANSPORT: Readonly<Record<number, readonly [string, number]>> = {
  [IP_PROTOCOL.TCP]: ['L4_TCP', 20],
  [IP_PROTOCOL.UDP]: ['L4_UDP', 8],
};

/** Looks at a frame's headers, as far as they are there. */
export function look(b: Uint8Array): Headers {
  const etherType = get16(b, 12);
  let l2 = 14;
  const tags: string[] = [];
  for (let type = etherType; type === ETHER_TYPE.VLAN || type === ETHER_TYPE.QINQ; l2 += 4) {
    tags.push(type === ETHER_TYPE.QINQ ? 'L2_ETHER_QINQ' : 'L2_ETHER_VLAN');
    type = get16(b, l2 + 2);
    if (l2 > 22) break;
  }
  const types = [tags[0] ?? 'L2_ETHER'];
  const inner = get16(b, l2 - 2);
  const found = inner === ETHER_TYPE.IPV4 ? ipv4(b, l2) : inner === ETHER_TYPE.IPV6 ? ipv6(b, l2) : undefined;
  if (!found) return { etherType, types, l2, l3: undefined, l4: undefined, protocol: 0 };
  types.push(found.name);
  const facts = { etherType, types, l2, l3: found.bytes, protocol: found.protocol };
  if (found.fragment) {
    types.push('L4_FRAG');
    return { ...facts, l4: 0 };
  }
  const [name, least] = TRANSPORT[found.protocol] ?? [];
  const at = l2 + found.bytes;
  if (name === undefined || at + least! > b.length) return { ...facts, l4: undefined };
  types.push(name);
  return { ...facts, l4: found.protocol === IP_PROTOCOL.TCP ? (b[at + 12]! >>> 4) * 4 : least };
}

const { RX_IP_GOOD, RX_IP_BAD, RX_L4_GOOD, RX_L4_BAD, RX_COALESCED, VLAN, HASH } = PACKET_FLAG;
const { IPV4, IPV6, TX_IP_CHECKSUM, TX_TCP_CHECKSUM, TX_UDP_CHECKSUM, TX_TSO } = PACKET_FLAG;

const verdict = (flags: number, good: number, bad: number): string =>
  (flags & bad) !== 0 ? 'BAD' : (flags & good) !== 0 ? 'GOOD' : 'UNKNOWN';

/** DPDK's names of what a received mbuf's flags say. */
export function rxFlags(flags: number): string {
  const names: string[] = [];
  if ((flags & VLAN) !== 0) names.push('RX_VLAN');
  if ((flags & HASH) !== 0) names.push('RX_RSS_HASH');
  names.push(`RX_L4_CKSUM_${verdict(flags, RX_L4_GOOD, RX_L4_BAD)}`);
  names.push(`RX_IP_CKSUM_${verdict(flags, RX_IP_GOOD, RX_IP_BAD)}`);
  if ((flags & VLAN) !== 0) names.push('RX_VLAN_STRIPPED');
  if ((flags & RX_COALESCED) !== 0) names.push('RX_LRO');
  names.push('RX_OUTER_L4_CKSUM_UNKNOWN');
  return names.map((name) => `RTE_MBUF_F_${name} `).join('');
}

/** And of one that is sent. */
export function txFlags(flags: number): string {
  const names: string[] = [];
  if ((flags & VLAN) !== 0) names.push('TX_VLAN');
  if ((flags & TX_IP_CHECKSUM) !== 0) names.push('TX_IP_CKSUM');
  if ((flags & TX_TCP_CHECKSUM) !== 0) names.push('TX_TCP_CKSUM');
  else if ((flags & TX_UDP_CHECKSUM) !== 0) names.push('TX_UDP_CKSUM');
  else names.push('TX_L4_NO_CKSUM');
  if ((flags & TX_TSO) !== 0) names.push('TX_TCP_SEG');
  if ((flags & IPV4) !== 0) names.push('TX_IPV4');
  if ((flags & IPV6) !== 0) names.push('TX_IPV6');
  return names.map((name) => `RTE_MBUF_F_${name} `).join('');
}

const NAMES: readonly (readonly [number, number, string])[] = [
  ...(Object.entries(PACKET_TYPE)
    .filter(([name]) => !name.endsWith('MASK'))
    .map(([name, value]) => [maskOf(name), value, name === 'L2_ARP' ? 'L2_ETHER_ARP' : name]) as [
    number,
    number,
    string,
  ][]),
];

function maskOf(name: string): number {
  if (name.startsWith('L2')) return PACKET_TYPE.L2_MASK;
  return name.startsWith('L3') ? PACKET_TYPE.L3_MASK : PACKET_TYPE.L4_MASK;
}

/** Names of a driver's packet type. */
const typeNames = (type: number): string[] =>
  NAMES.filter(([mask, value]) => (type & mask) === value).map(([, , name]) => name);

const hex = (value: number, digits = 0): string => (value >>> 0).toString(16).padStart(digits, '0');
const macText = (b: Uint8Array, at: number): string => formatMac(b, at).toUpperCase();

/** Bytes of a packet that are looked at. */
const HEAD_BYTES = 256;

export class PacketPrinter {
  readonly #mbufs: Mbufs;
  readonly #u32: Uint32Array;
  readonly #u8: Uint8Array;
  readonly #pools: ReadonlyMap<number, string>;
  readonly #mode: Mode;
  /** What checksum forwarding sees in the packets of the burst. */
  #parsed: string[] = [];

  constructor(lcore: LcoreThread, pools: readonly (readonly [number, string])[], mode: Mode) {
    this.#mbufs = lcore.mbufs;
    this.#u32 = lcore.arena.u32;
    this.#u8 = lcore.arena.u8;
    this.#pools = new Map(pools);
    this.#mode = mode;
  }

  /** Prints `count` mbufs at `handles`. */
  received(port: number, queue: number, handles: number, count: number): void {
    const list = this.#list(handles, count);
    const lines = [`port ${port}/queue ${queue}: received ${count} packets`];
    for (const mbuf of list) {
      lines.push(this.#packet(mbuf, `Receive queue=0x${hex(queue)}`));
      lines.push(`  ol_flags: ${rxFlags(this.#mbufs.flags(mbuf))}`);
    }
    if (this.#mode === 'icmpecho') for (const mbuf of list) lines.push(this.#asked(port, mbuf));
    if (this.#mode === 'csum') this.#parsed = list.map((mbuf) => this.#parse(port, mbuf));
    print(lines);
  }

  /** Checksum forwarding is through with the burst that received() has seen. */
  worked(handles: number, count: number): void {
    const list = this.#list(handles, count);
    print(list.map((mbuf, i) => `${this.#parsed[i] ?? ''}\ntx: flags=${txFlags(this.#mbufs.flags(mbuf))}`));
  }

  sent(port: number, queue: number, handles: number, count: number): void {
    const lines = [`port ${port}/queue ${queue}: sent ${count} packets`];
    for (const mbuf of this.#list(handles, count)) {
      lines.push(this.#packet(mbuf, `Send queue=0x${hex(queue)}`));
      lines.push(`  ol_flags: ${txFlags(this.#mbufs.flags(mbuf))}`);
    }
    print(lines);
  }

  #list(handles: number, count: number): number[] {
    return [...this.#u32.subarray(handles >>> 2, (handles >>> 2) + count)];
  }

  #head(mbuf: number): Uint8Array {
    const data = this.#mbufs.data(mbuf);
    return this.#u8.subarray(data, data + Math.min(this.#mbufs.dataLength(mbuf), HEAD_BYTES));
  }

  #packet(mbuf: number, queue: string): string {
    const mbufs = this.#mbufs;
    const b = this.#head(mbuf);
    const { etherType, types, l2, l3, l4 } = look(b);
    const flags = mbufs.flags(mbuf);
    let text = `  src=${macText(b, 6)} - dst=${macText(b, 0)} - pool=${this.#pools.get(mbufs.pool(mbuf)) ?? '?'}`;
    text += ` - type=0x${hex(etherType, 4)} - length=${mbufs.packetLength(mbuf)} - nb_segs=${mbufs.segments(mbuf)}`;
    if ((flags & HASH) !== 0) text += ` - RSS hash=0x${hex(mbufs.hash(mbuf))}`;
    const [low, high] = [mbufs.timestampLow(mbuf), mbufs.timestampHigh(mbuf)];
    if (low !== 0 || high !== 0) text += ` - timestamp ${(BigInt(high) << 32n) | BigInt(low)} `;
    if ((flags & VLAN) !== 0) text += ` - VLAN tci=0x${hex(mbufs.vlanTci(mbuf))}`;
    const hardware = typeNames(mbufs.packetType(mbuf));
    if (hardware.length > 0) text += ` - hw ptype: ${hardware.map((name) => `${name} `).join('')}`;
    text += ` - sw ptype: ${types.map((name) => `${name} `).join('')} - l2_len=${l2}`;
    if (l3 !== undefined) text += ` - l3_len=${l3}`;
    if (l4 !== undefined) text += ` - l4_len=${l4}`;
    return `${text} - ${queue}`;
  }

  /** What checksum forwarding sees. */
  #parse(port: number, mbuf: number): string {
    const b = this.#head(mbuf);
    const { l2, l3 = 0, l4 = 0, protocol } = look(b);
    const flags = rxFlags(this.#mbufs.flags(mbuf));
    const where = `port=${port}, mbuf=0x${hex(mbuf)}`;
    return [
      '-----------------',
      `${where}, pkt_len=${this.#mbufs.packetLength(mbuf)}, nb_segs=${this.#mbufs.segments(mbuf)}:`,
      `rx: l2_len=${l2} ethertype=${hex(get16(b, l2 - 2))} l3_len=${l3} l4_proto=${protocol} l4_len=${l4} flags=${flags}`,
    ].join('\n');
  }

  /** What the echo mode sees. */
  #asked(port: number, mbuf: number): string {
    const b = this.#head(mbuf);
    const { l2, l3 } = look(b);
    const type = get16(b, l2 - 2);
    const tag = l2 > 14 ? `[vlan id=${get16(b, 14) & 0xfff}] ` : '';
    const lines = [
      `\nPort ${port} pkt-len=${this.#mbufs.packetLength(mbuf)} nb-segs=${this.#mbufs.segments(mbuf)}`,
      `  ETH:  src=${macText(b, 6)} dst=${macText(b, 0)} ${tag}type=0x${hex(type, 4)}`,
    ];
    if (type === ETHER_TYPE.ARP && b.length >= l2 + 28) lines.push(...arpLines(b, l2));
    if (type === ETHER_TYPE.IPV4 && l3 !== undefined) {
      const protocol = b[l2 + 9]!;
      const name = Object.entries(IP_PROTOCOL).find(([, number]) => number === protocol)?.[0] ?? 'unknown';
      lines.push(`  IPV4: src=${formatIpv4(b, l2 + 12)} dst=${formatIpv4(b, l2 + 16)} proto=${protocol} (${name})`);
      const icmp = l2 + l3;
      if (protocol === IP_PROTOCOL.ICMP && b.length >= icmp + 8 && b[icmp] === 8)
        lines.push(`  ICMP: echo request seq id=${get16(b, icmp + 6)}`);
    }
    return lines.join('\n');
  }
}

const ARP_NAMES: readonly string[] = ['Unknown', 'ARP Request', 'ARP Reply'];

function arpLines(b: Uint8Array, at: number): string[] {
  const operation = get16(b, at + 6);
  const name = ARP_NAMES[operation] ?? 'Unknown';
  return [
    `  ARP:  hrd=${get16(b, at)} proto=0x${hex(get16(b, at + 2), 4)} hln=${b[at + 4]} pln=${b[at + 5]} op=${operation} (${name})`,
    `        sha=${macText(b, at + 8)} sip=${formatIpv4(b, at + 14)}`,
    `        tha=${macText(b, at + 18)} tip=${formatIpv4(b, at + 24)}`,
  ];
}

/** At once, in one piece: lines of several threads are not to mix. */
function print(lines: readonly string[]): void {
  const bytes = Buffer.from(`${lines.join('\n')}\n`);
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(1, bytes, at);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return; // nobody reads any more
    }
  }
}
