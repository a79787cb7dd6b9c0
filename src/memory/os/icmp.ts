// Echo requests (ping) by raw sockets of the calling thread's network namespace, answered by the other side's kernel. Needs
// CAP_NET_RAW. Blocks the thread while it waits: for processes that do nothing else meanwhile.
import { closeSync } from 'node:fs';
import { parseIpv4, parseIpv6 } from '../../wire/address-text.js';
import {
  allocateOffHeap,
  check,
  declare,
  ERRNO,
  errorName,
  freeOffHeap,
  type OffHeap,
  readTo,
  scratch,
  scratchBytes,
  scratchView,
  writeFrom,
} from './libc.js';
import { PollSet } from './poll.js';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
const ICMP6_FILTER = 1;
const RECEIVE_BUFFER_BYTES = 1 << 20;

const ECHO = { 4: { request: 8, reply: 0 }, 6: { request: 128, reply: 129 } } as const;
const HEADER_BYTES = 8;
const PACKET_MAX = 65_536;

/** Most payload bytes of an echo request: what one IP packet of 65,535 bytes holds. */
export const ECHO_PAYLOAD_MAX = { 4: 65_535 - 20 - HEADER_BYTES, 6: 65_535 - HEADER_BYTES } as const;

const socketCall = declare('int socket(int domain, int type, int protocol)');
const connectCall = declare('int connect(int fd, uint64 address, uint bytes)');
const setsockopt = declare('int setsockopt(int fd, int level, int name, uint64 value, uint bytes)');

/** What became of an echo request: `wrong` is a reply with other bytes than those sent, `failed` an error of the kernel
 *  (its name in `reason`). */
export type EchoResult =
  | { readonly outcome: 'reply'; readonly rttMs: number }
  | { readonly outcome: 'wrong' | 'lost' | 'failed'; readonly reason: string };

/** Asks one target. */
export class EchoSocket {
  readonly family: 4 | 6;
  readonly #fd: number;
  readonly #target: string;
  readonly #polls = new PollSet(1);
  readonly #out: OffHeap;
  readonly #in: OffHeap;
  readonly #request: Buffer;
  readonly #answer: Buffer;
  readonly #identifier = process.pid & 0xffff;
  #sequence = 0;
  #closed = false;

  /** `target` is an IPv4 or IPv6 address. Throws RangeError, or OsError (EPERM without CAP_NET_RAW, ENETUNREACH). */
  constructor(target: string) {
    const address4 = parseIpv4(target);
    const address = address4 ?? parseIpv6(target);
    if (!address) throw new RangeError(`ping: expected an IPv4 or IPv6 address, got ${JSON.stringify(target)}`);
    this.family = address4 ? 4 : 6;
    this.#target = target;
    const [domain, protocol] = this.family === 4 ? [AF_INET, IPPROTO_ICMP] : [AF_INET6, IPPROTO_ICMPV6];
    this.#fd = check(socketCall(domain, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol), 'socket', `to ${target}`);
    try {
      this.#prepare(address);
    } catch (error) {
      closeSync(this.#fd);
      this.#polls.close();
      throw error;
    }
    this.#polls.add(this.#fd);
    this.#out = allocateOffHeap(PACKET_MAX);
    this.#in = allocateOffHeap(PACKET_MAX);
    this.#request = Buffer.from(this.#out.buffer);
    this.#answer = Buffer.from(this.#in.buffer);
  }

  /** Options of the socket, and its target. The scratch memory is read before the calls return. */
  #prepare(address: Uint8Array): void {
    scratchView.setInt32(0, RECEIVE_BUFFER_BYTES, true);
    setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUF, scratch.address, 4); // as much as the kernel allows
    if (this.family === 6) {
      scratchBytes.fill(0xff, 0, 32); // a set bit blocks that type
      scratchBytes[ECHO[6].reply >> 3]! &= ~(1 << (ECHO[6].reply & 7));
      check(setsockopt(this.#fd, IPPROTO_ICMPV6, ICMP6_FILTER, scratch.address, 32), 'setsockopt', 'ICMP6_FILTER');
    }
    // struct sockaddr_in: family, port, address at 4; struct sockaddr_in6: family, port, flow, address at 8, scope.
    scratchBytes.fill(0, 0, 28);
    scratchView.setUint16(0, this.family === 4 ? AF_INET : AF_INET6, true);
    scratchBytes.set(address, this.family === 4 ? 4 : 8);
    check(connectCall(this.#fd, scratch.address, this.family === 4 ? 16 : 28), 'connect', this.#target);
  }

  /** Sends one request with `bytes` of payload and waits for its reply. Throws RangeError. */
  echo(bytes: number, timeoutMs: number): EchoResult {
    const max = ECHO_PAYLOAD_MAX[this.family];
    if (!(Number.isInteger(bytes) && bytes >= 0 && bytes <= max)) {
      throw new RangeError(`ping ${this.#target}: expected 0 to ${max} bytes of payload, got ${bytes}`);
    }
    this.#sequence = (this.#sequence + 1) & 0xffff;
    const length = HEADER_BYTES + bytes;
    this.#compose(length);
    const start = performance.now();
    const sent = writeFrom(this.#fd, this.#out.address, length);
    if (sent !== length) return { outcome: 'failed', reason: errorName(-sent) };
    for (;;) {
      const left = timeoutMs - (performance.now() - start);
      if (left <= 0) return { outcome: 'lost', reason: `no reply in ${timeoutMs} ms` };
      if (this.#polls.wait(Math.ceil(left)) === 0) continue;
      const got = readTo(this.#fd, this.#in.address, PACKET_MAX);
      const rttMs = performance.now() - start;
      if (got === -ERRNO.EAGAIN!) continue;
      if (got < 0) return { outcome: 'failed', reason: errorName(-got) };
      const at = this.#replyAt(got);
      if (at < 0) continue;
      const equal = this.#request.compare(this.#answer, at + HEADER_BYTES, got, HEADER_BYTES, length) === 0;
      if (equal) return { outcome: 'reply', rttMs };
      return { outcome: 'wrong', reason: `${got - at - HEADER_BYTES} bytes came back that differ from ${bytes} sent` };
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#polls.close();
    closeSync(this.#fd);
    freeOffHeap(this.#out);
    freeOffHeap(this.#in);
  }

  #compose(length: number): void {
    const packet = this.#request;
    packet.writeUInt16BE(ECHO[this.family].request << 8, 0);
    packet.writeUInt16BE(0, 2);
    packet.writeUInt16BE(this.#identifier, 4);
    packet.writeUInt16BE(this.#sequence, 6);
    for (let i = HEADER_BYTES; i < length; i++) packet[i] = i * 7 + this.#sequence;
    // The kernel fills in the checksum of ICMPv6, which covers addresses too.
    if (this.family === 4) packet.writeUInt16BE(internetChecksum(packet, length), 2);
  }

  /** Where in the answer buffer the ICMP header of the reply to the last request begins; -1: another packet. */
  #replyAt(got: number): number {
    const packet = this.#answer;
    const at = this.family === 4 ? (packet[0]! & 15) * 4 : 0; // raw IPv4 sockets give the IP header too
    if (got < at + HEADER_BYTES || packet[at] !== ECHO[this.family].reply) return -1;
    const mine = packet.readUInt16BE(at + 4) === this.#identifier && packet.readUInt16BE(at + 6) === this.#sequence;
    return mine ? at : -1;
  }
}

/** RFC 1071. */
function internetChecksum(packet: Buffer, length: number): number {
  let sum = 0;
  for (let i = 0; i + 1 < length; i += 2) sum += packet.readUInt16BE(i);
  if (length & 1) sum += packet[length - 1]! << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
