// The answers of the echo uplink, packet to packet: ARP (RFC 826), ICMP echo (RFC 792), ICMPv6 neighbour discovery
// (RFC 4861) and echo (RFC 4443), UDP echo (RFC 862). Pure functions over arena memory; nothing is allocated.
import type { Datapath } from '../../datapath/datapath.js';
import type { Arena } from '../../memory/arena.js';
import { PACKET_FLAG } from '../../memory/layout.js';
import { ARP_OPERATION, Arp, ETHER_TYPE, EthernetHeader } from '../../wire/ethernet.js';
import {
  ICMP_TYPE,
  ICMPV6_TYPE,
  IcmpEcho,
  IP_PROTOCOL,
  IPV4_FLAG,
  IPV4_FRAGMENT_OFFSET_MASK,
  Ipv4Header,
  Ipv6Header,
  NeighborSolicitation,
} from '../../wire/ip.js';
import { UdpHeader } from '../../wire/tcp-udp.js';

// Offsets from the start of an untagged frame (ARP, IP), and from the start of the message (the others).
const from = <K extends string>(start: number, table: { offset: { readonly [P in K]: number }; size: number }) => {
  const moved = Object.entries<number>(table.offset).map(([name, offset]) => [name, start + offset]);
  return { ...(Object.fromEntries(moved) as { readonly [P in K]: number }), start, end: start + table.size };
};
const ETHERNET = from(0, EthernetHeader);
const ARP = from(ETHERNET.end, Arp);
const IP4 = from(ETHERNET.end, Ipv4Header);
const IP6 = from(ETHERNET.end, Ipv6Header);
const ICMP = from(0, IcmpEcho);
const SOLICITATION = from(0, NeighborSolicitation);
const UDP = from(0, UdpHeader);
const ECHO_PORT = 7;
const HOPS = 64;
/** Neighbour discovery never crosses a router, and says so (RFC 4861 7.1). */
const NEIGHBOUR_HOPS = 255;
const FRAGMENT_BITS = IPV4_FLAG.MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET_MASK;
/** Solicited and override bits of an advertisement. */
const SOLICITED = 0x40;
const OVERRIDE = 0x20;

/** What came in; ANSWER.NONE and BAD_CHECKSUM are the ones without a reply. */
export const ANSWER = {
  NONE: 0,
  ARP: 1,
  ICMP: 2,
  NEIGHBOUR: 3,
  ICMP6: 4,
  UDP: 5,
  BAD_CHECKSUM: 6,
} as const;

export interface AnswerOptions {
  readonly mac: Uint8Array;
  /** IPv4 (4 bytes) and IPv6 (16 bytes) addresses that it has; empty = whichever is asked for. */
  readonly addresses: readonly Uint8Array[];
  /** Whether UDP port 7 answers. */
  readonly udp: boolean;
}

export class Answers {
  /** Length of the last answer. */
  bytes = 0;
  readonly #u8: Uint8Array;
  readonly #datapath: Datapath;
  readonly #options: AnswerOptions;

  constructor(arena: Arena, datapath: Datapath, options: AnswerOptions) {
    this.#u8 = arena.u8;
    this.#datapath = datapath;
    this.#options = options;
  }

  /**
   * Turns the frame of `bytes` bytes at `at` (private memory, untagged, checksums finished) into its answer in place;
   * there are 32 bytes of room behind it. Returns an ANSWER; `bytes` then says how long it became.
   */
  answer(at: number, bytes: number): number {
    this.bytes = bytes;
    if (bytes < ETHERNET.end) return ANSWER.NONE;
    const type = this.#get16(at + ETHERNET.etherType);
    if (type === ETHER_TYPE.ARP && bytes >= ARP.end) return this.#arp(at);
    if (type === ETHER_TYPE.IPV4 && bytes >= IP4.end) return this.#ip4(at, bytes);
    if (type === ETHER_TYPE.IPV6 && bytes >= IP6.end) return this.#ip6(at, bytes);
    return ANSWER.NONE;
  }

  #arp(at: number): number {
    const ethernet = this.#get16(at + ARP.hardwareType) === 1 && this.#get16(at + ARP.protocolType) === ETHER_TYPE.IPV4;
    if (
      !ethernet ||
      this.#get16(at + ARP.hardwareLength) !== 0x0604 ||
      this.#get16(at + ARP.operation) !== ARP_OPERATION.REQUEST
    )
      return ANSWER.NONE;
    // Announcements ask nothing; probes for duplicates (RFC 5227) must find none where every address is ours.
    const probe = this.#isZero(at + ARP.senderIp, 4);
    if (probe ? this.#options.addresses.length === 0 : this.#equal(at + ARP.senderIp, at + ARP.targetIp, 4))
      return ANSWER.NONE;
    if (!this.#isOurs(at + ARP.targetIp, 4)) return ANSWER.NONE;
    this.#turnEthernet(at);
    this.#put16(at + ARP.operation, ARP_OPERATION.REPLY);
    this.#move(at + ARP.targetMac, at + ARP.senderMac, 6);
    this.#swap(at + ARP.senderIp, at + ARP.targetIp, 4);
    this.#u8.set(this.#options.mac, at + ARP.senderMac);
    return ANSWER.ARP;
  }

  #ip4(at: number, bytes: number): number {
    const first = this.#u8[at + IP4.start]!;
    const header = IP4.start + (first & 15) * 4;
    const end = IP4.start + this.#get16(at + IP4.totalLength);
    if (first >>> 4 !== 4 || header < IP4.end || end < header || end > bytes) return ANSWER.NONE;
    if (!this.#isForUs(at) || !this.#isOurs(at + IP4.destination, 4) || this.#isGroup4(at)) return ANSWER.NONE;
    if (this.#datapath.checksum(at + IP4.start, header - IP4.start, 0) !== 0xffff) return ANSWER.BAD_CHECKSUM;
    const fragment = this.#get16(at + IP4.flagsFragmentOffset) & FRAGMENT_BITS;
    const message = at + header;
    const protocol = this.#u8[at + IP4.protocol];
    let answered: number;
    if (protocol === IP_PROTOCOL.ICMP && fragment !== 0) answered = this.#icmpFragment(message, end - header, fragment);
    else if (protocol === IP_PROTOCOL.ICMP)
      answered = this.#echo(message, end - header, 0, ICMP_TYPE.ECHO_REQUEST, ICMP_TYPE.ECHO_REPLY, ANSWER.ICMP);
    else if (protocol === IP_PROTOCOL.UDP && fragment === 0) answered = this.#udp(at, bytes, message, end - header);
    else return ANSWER.NONE;
    if (answered === ANSWER.NONE || answered === ANSWER.BAD_CHECKSUM) return answered;
    this.#turnEthernet(at);
    this.#swap(at + IP4.source, at + IP4.destination, 4);
    this.#u8[at + IP4.timeToLive] = HOPS;
    this.#datapath.checksumFinish(at, bytes, PACKET_FLAG.TX_IP_CHECKSUM, 0);
    return answered;
  }

  #ip6(at: number, bytes: number): number {
    const length = this.#get16(at + IP6.payloadLength);
    if (this.#u8[at + IP6.start]! >>> 4 !== 6 || IP6.end + length > bytes || length < ICMP.end) return ANSWER.NONE;
    const next = this.#u8[at + IP6.nextHeader]!;
    const message = at + IP6.end;
    if (next === IP_PROTOCOL.ICMPV6 && this.#u8[message] === ICMPV6_TYPE.NEIGHBOR_SOLICITATION)
      return this.#solicitation(at, length);
    if (!this.#isForUs(at) || !this.#isOurs(at + IP6.destination, 16)) return ANSWER.NONE;
    if (this.#u8[at + IP6.destination] === 0xff || this.#isZero(at + IP6.source, 16)) return ANSWER.NONE;
    let answered: number = ANSWER.NONE;
    if (next === IP_PROTOCOL.ICMPV6) {
      answered = this.#echo(
        message,
        length,
        this.#pseudo6(at, next, length),
        ICMPV6_TYPE.ECHO_REQUEST,
        ICMPV6_TYPE.ECHO_REPLY,
        ANSWER.ICMP6,
      );
    } else if (next === IP_PROTOCOL.UDP) answered = this.#udp(at, bytes, message, length);
    if (answered === ANSWER.NONE || answered === ANSWER.BAD_CHECKSUM) return answered;
    this.#turnEthernet(at);
    this.#swap(at + IP6.source, at + IP6.destination, 16);
    this.#u8[at + IP6.hopLimit] = HOPS;
    return answered;
  }

  /** Swapping addresses leaves sums as they are, so that only the type's change counts. */
  #echo(message: number, bytes: number, seed: number, from: number, to: number, kind: number): number {
    if (bytes < ICMP.end || this.#u8[message] !== from || this.#u8[message + ICMP.code] !== 0) return ANSWER.NONE;
    if (this.#datapath.checksum(message, bytes, seed) !== 0xffff) return ANSWER.BAD_CHECKSUM;
    this.#retype(message, from, to);
    return kind;
  }

  /** Each fragment of a long echo request becomes the same fragment of its reply; only the whole could be verified. */
  #icmpFragment(message: number, bytes: number, fragment: number): number {
    if ((fragment & IPV4_FRAGMENT_OFFSET_MASK) !== 0) return ANSWER.ICMP;
    if (bytes < ICMP.end || this.#u8[message] !== ICMP_TYPE.ECHO_REQUEST || this.#u8[message + ICMP.code] !== 0)
      return ANSWER.NONE;
    this.#retype(message, ICMP_TYPE.ECHO_REQUEST, ICMP_TYPE.ECHO_REPLY);
    return ANSWER.ICMP;
  }

  #udp(at: number, bytes: number, message: number, l4Bytes: number): number {
    if (!this.#options.udp || l4Bytes < UDP.end || this.#get16(message + UDP.destinationPort) !== ECHO_PORT)
      return ANSWER.NONE;
    if (this.#get16(message + UDP.sourcePort) === ECHO_PORT) return ANSWER.NONE; // two echo ports would never end
    if (this.#datapath.checksumVerify(at, bytes) === 0) return ANSWER.BAD_CHECKSUM;
    this.#swap(message + UDP.sourcePort, message + UDP.destinationPort, 2);
    return ANSWER.UDP;
  }

  #solicitation(at: number, length: number): number {
    const message = at + IP6.end;
    const target = message + SOLICITATION.target;
    const asker = at + IP6.source;
    const probe = this.#isZero(asker, 16); // duplicate address detection
    if (length < SOLICITATION.end || this.#u8[message + ICMP.code] !== 0) return ANSWER.NONE;
    if (this.#u8[at + IP6.hopLimit] !== NEIGHBOUR_HOPS || this.#u8[target] === 0xff) return ANSWER.NONE;
    if (probe ? this.#options.addresses.length === 0 : this.#equal(asker, target, 16)) return ANSWER.NONE;
    if (!this.#isOurs(target, 16)) return ANSWER.NONE;
    if (this.#datapath.checksum(message, length, this.#pseudo6(at, IP_PROTOCOL.ICMPV6, length)) !== 0xffff) {
      return ANSWER.BAD_CHECKSUM;
    }
    const u8 = this.#u8;
    this.#turnEthernet(at);
    if (probe) {
      u8.fill(0, asker, asker + 16); // to all nodes, ff02::1
      u8[asker] = 0xff;
      u8[asker + 1] = 0x02;
      u8[asker + 15] = 0x01;
      u8.fill(0, at, at + 6);
      u8[at] = 0x33;
      u8[at + 1] = 0x33;
      u8[at + 5] = 0x01;
    }
    this.#move(at + IP6.destination, asker, 16);
    this.#move(asker, target, 16);
    const bytes = SOLICITATION.end + 8;
    this.#put16(at + IP6.payloadLength, bytes);
    u8[message + ICMP.type] = ICMPV6_TYPE.NEIGHBOR_ADVERTISEMENT;
    u8.fill(0, message + ICMP.checksum, target);
    u8[message + 4] = probe ? OVERRIDE : SOLICITED | OVERRIDE;
    const option = message + SOLICITATION.end;
    u8[option] = 2; // target link-layer address, in units of 8 bytes
    u8[option + 1] = 1;
    u8.set(this.#options.mac, option + 2);
    const sum = this.#datapath.checksum(message, bytes, this.#pseudo6(at, IP_PROTOCOL.ICMPV6, bytes));
    this.#put16(message + ICMP.checksum, ~sum & 0xffff);
    this.bytes = IP6.end + bytes;
    return ANSWER.NEIGHBOUR;
  }

  /** Changes an echo's type and its checksum accordingly (RFC 1624: HC' = ~(~HC + ~m + m')). */
  #retype(message: number, from: number, to: number): void {
    const sum = (~this.#get16(message + ICMP.checksum) & 0xffff) + (~(from << 8) & 0xffff) + (to << 8);
    const folded = (sum & 0xffff) + (sum >>> 16);
    this.#put16(message + ICMP.checksum, ~((folded & 0xffff) + (folded >>> 16)) & 0xffff);
    this.#u8[message + ICMP.type] = to;
  }

  #pseudo6(at: number, next: number, length: number): number {
    return this.#datapath.checksum(at + IP6.source, 32, next + length);
  }

  #turnEthernet(at: number): void {
    this.#move(at + ETHERNET.destination, at + ETHERNET.source, 6);
    this.#u8.set(this.#options.mac, at + ETHERNET.source);
  }

  #isForUs(at: number): boolean {
    const mac = this.#options.mac;
    for (let i = 0; i < 6; i++) if (this.#u8[at + i] !== mac[i]) return false;
    return true;
  }

  /** Multicast or broadcast as source or destination address. */
  #isGroup4(at: number): boolean {
    return (
      this.#u8[at + IP4.source]! >= 224 || this.#u8[at + IP4.destination]! >= 224 || this.#isZero(at + IP4.source, 4)
    );
  }

  #isOurs(at: number, size: number): boolean {
    const addresses = this.#options.addresses;
    if (addresses.length === 0) return true;
    for (let i = 0; i < addresses.length; i++) {
      const address = addresses[i]!;
      if (address.length !== size) continue;
      let same = true;
      for (let k = 0; k < size && same; k++) same = this.#u8[at + k] === address[k];
      if (same) return true;
    }
    return false;
  }

  #isZero(at: number, size: number): boolean {
    for (let i = 0; i < size; i++) if (this.#u8[at + i] !== 0) return false;
    return true;
  }

  #equal(a: number, b: number, size: number): boolean {
    for (let i = 0; i < size; i++) if (this.#u8[a + i] !== this.#u8[b + i]) return false;
    return true;
  }

  #get16(at: number): number {
    return (this.#u8[at]! << 8) | this.#u8[at + 1]!;
  }

  #put16(at: number, value: number): void {
    this.#u8[at] = value >>> 8;
    this.#u8[at + 1] = value & 0xff;
  }

  #move(to: number, from: number, size: number): void {
    this.#u8.copyWithin(to, from, from + size);
  }

  #swap(a: number, b: number, size: number): void {
    for (let i = 0; i < size; i++) {
      const byte = this.#u8[a + i]!;
      this.#u8[a + i] = this.#u8[b + i]!;
      this.#u8[b + i] = byte;
    }
  }
}
