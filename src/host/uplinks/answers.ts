// The answers of the echo uplink, packet to packet: ARP (RFC 826), ICMP echo (RFC 792), ICMPv6 neighbour discovery
// (RFC 4861) and echo (RFC 4443), UDP echo (RFC 862). Pure functions over arena memory; nothing is allocated.
import type { Datapath } from '../../datapath/datapath.js';
import type { Arena } from '../../memory/arena.js';
import { PACKET_FLAG } from '../../memory/layout.js';

// Offsets from the start of an untagged frame, and from the start of the message.
const ETHERNET = { destination: 0, source: 6, type: 12, end: 14 } as const;
const ARP = {
  hardware: 14,
  protocol: 16,
  sizes: 18,
  operation: 20,
  mac: 22,
  ip: 28,
  targetMac: 32,
  targetIp: 38,
  end: 42,
} as const;
const IP4 = {
  start: 14,
  total: 16,
  fragment: 20,
  ttl: 22,
  protocol: 23,
  source: 26,
  destination: 30,
  end: 34,
} as const;
const IP6 = { start: 14, payload: 18, next: 20, hops: 21, source: 22, destination: 38, end: 54 } as const;
const ICMP = { type: 0, code: 1, checksum: 2, end: 8 } as const;
const SOLICITATION = { target: 8, options: 24 } as const;
const UDP = { source: 0, destination: 2, end: 8 } as const;
const TYPE = { ip4: 0x0800, arp: 0x0806, ip6: 0x86dd } as const;
const PROTOCOL = { icmp: 1, udp: 17, icmp6: 58 } as const;
const ECHO_PORT = 7;
const HOPS = 64;
/** Neighbour discovery never crosses a router, and says so (RFC 4861 7.1). */
const NEIGHBOUR_HOPS = 255;
const FRAGMENT_BITS = 0x3fff;
const FRAGMENT_OFFSET_BITS = 0x1fff;
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
    const type = this.#get16(at + ETHERNET.type);
    if (type === TYPE.arp && bytes >= ARP.end) return this.#arp(at);
    if (type === TYPE.ip4 && bytes >= IP4.end) return this.#ip4(at, bytes);
    if (type === TYPE.ip6 && bytes >= IP6.end) return this.#ip6(at, bytes);
    return ANSWER.NONE;
  }

  #arp(at: number): number {
    const ethernet = this.#get16(at + ARP.hardware) === 1 && this.#get16(at + ARP.protocol) === TYPE.ip4;
    if (!ethernet || this.#get16(at + ARP.sizes) !== 0x0604 || this.#get16(at + ARP.operation) !== 1)
      return ANSWER.NONE;
    // Announcements ask nothing; probes for duplicates (RFC 5227) must find none where every address is ours.
    const probe = this.#isZero(at + ARP.ip, 4);
    if (probe ? this.#options.addresses.length === 0 : this.#equal(at + ARP.ip, at + ARP.targetIp, 4))
      return ANSWER.NONE;
    if (!this.#isOurs(at + ARP.targetIp, 4)) return ANSWER.NONE;
    this.#turnEthernet(at);
    this.#put16(at + ARP.operation, 2);
    this.#move(at + ARP.targetMac, at + ARP.mac, 6);
    this.#swap(at + ARP.ip, at + ARP.targetIp, 4);
    this.#u8.set(this.#options.mac, at + ARP.mac);
    return ANSWER.ARP;
  }

  #ip4(at: number, bytes: number): number {
    const first = this.#u8[at + IP4.start]!;
    const header = IP4.start + (first & 15) * 4;
    const end = IP4.start + this.#get16(at + IP4.total);
    if (first >>> 4 !== 4 || header < IP4.end || end < header || end > bytes) return ANSWER.NONE;
    if (!this.#isForUs(at) || !this.#isOurs(at + IP4.destination, 4) || this.#isGroup4(at)) return ANSWER.NONE;
    if (this.#datapath.checksum(at + IP4.start, header - IP4.start, 0) !== 0xffff) return ANSWER.BAD_CHECKSUM;
    const fragment = this.#get16(at + IP4.fragment) & FRAGMENT_BITS;
    const message = at + header;
    const protocol = this.#u8[at + IP4.protocol];
    let answered: number;
    if (protocol === PROTOCOL.icmp && fragment !== 0) answered = this.#icmpFragment(message, end - header, fragment);
    else if (protocol === PROTOCOL.icmp) answered = this.#echo(message, end - header, 0, 8, 0, ANSWER.ICMP);
    else if (protocol === PROTOCOL.udp && fragment === 0) answered = this.#udp(at, bytes, message, end - header);
    else return ANSWER.NONE;
    if (answered === ANSWER.NONE || answered === ANSWER.BAD_CHECKSUM) return answered;
    this.#turnEthernet(at);
    this.#swap(at + IP4.source, at + IP4.destination, 4);
    this.#u8[at + IP4.ttl] = HOPS;
    this.#datapath.checksumFinish(at, bytes, PACKET_FLAG.TX_IP_CHECKSUM, 0);
    return answered;
  }

  #ip6(at: number, bytes: number): number {
    const length = this.#get16(at + IP6.payload);
    if (this.#u8[at + IP6.start]! >>> 4 !== 6 || IP6.end + length > bytes || length < ICMP.end) return ANSWER.NONE;
    const next = this.#u8[at + IP6.next]!;
    const message = at + IP6.end;
    if (next === PROTOCOL.icmp6 && this.#u8[message] === 135) return this.#solicitation(at, length);
    if (!this.#isForUs(at) || !this.#isOurs(at + IP6.destination, 16)) return ANSWER.NONE;
    if (this.#u8[at + IP6.destination] === 0xff || this.#isZero(at + IP6.source, 16)) return ANSWER.NONE;
    let answered: number = ANSWER.NONE;
    if (next === PROTOCOL.icmp6) {
      answered = this.#echo(message, length, this.#pseudo6(at, next, length), 128, 129, ANSWER.ICMP6);
    } else if (next === PROTOCOL.udp) answered = this.#udp(at, bytes, message, length);
    if (answered === ANSWER.NONE || answered === ANSWER.BAD_CHECKSUM) return answered;
    this.#turnEthernet(at);
    this.#swap(at + IP6.source, at + IP6.destination, 16);
    this.#u8[at + IP6.hops] = HOPS;
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
    if ((fragment & FRAGMENT_OFFSET_BITS) !== 0) return ANSWER.ICMP;
    if (bytes < ICMP.end || this.#u8[message] !== 8 || this.#u8[message + ICMP.code] !== 0) return ANSWER.NONE;
    this.#retype(message, 8, 0);
    return ANSWER.ICMP;
  }

  #udp(at: number, bytes: number, message: number, l4Bytes: number): number {
    if (!this.#options.udp || l4Bytes < UDP.end || this.#get16(message + UDP.destination) !== ECHO_PORT)
      return ANSWER.NONE;
    if (this.#get16(message + UDP.source) === ECHO_PORT) return ANSWER.NONE; // two echo ports would never end
    if (this.#datapath.checksumVerify(at, bytes) === 0) return ANSWER.BAD_CHECKSUM;
    this.#swap(message + UDP.source, message + UDP.destination, 2);
    return ANSWER.UDP;
  }

  #solicitation(at: number, length: number): number {
    const message = at + IP6.end;
    const target = message + SOLICITATION.target;
    const asker = at + IP6.source;
    const probe = this.#isZero(asker, 16); // duplicate address detection
    if (length < SOLICITATION.options || this.#u8[message + ICMP.code] !== 0) return ANSWER.NONE;
    if (this.#u8[at + IP6.hops] !== NEIGHBOUR_HOPS || this.#u8[target] === 0xff) return ANSWER.NONE;
    if (probe ? this.#options.addresses.length === 0 : this.#equal(asker, target, 16)) return ANSWER.NONE;
    if (!this.#isOurs(target, 16)) return ANSWER.NONE;
    if (this.#datapath.checksum(message, length, this.#pseudo6(at, PROTOCOL.icmp6, length)) !== 0xffff) {
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
    const bytes = SOLICITATION.options + 8;
    this.#put16(at + IP6.payload, bytes);
    u8[message + ICMP.type] = 136;
    u8.fill(0, message + ICMP.checksum, target);
    u8[message + 4] = probe ? OVERRIDE : SOLICITED | OVERRIDE;
    const option = message + SOLICITATION.options;
    u8[option] = 2; // target link-layer address, in units of 8 bytes
    u8[option + 1] = 1;
    u8.set(this.#options.mac, option + 2);
    const sum = this.#datapath.checksum(message, bytes, this.#pseudo6(at, PROTOCOL.icmp6, bytes));
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
