// Receive-side scaling: which fields of a packet are hashed, and which channel the hash selects
// (Microsoft, "RSS Hashing Functions" and "RSS Hashing Types").
import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import { NDIS_HASH_TYPE, NDIS_RSS_KEY_BYTES } from '../wire/ndis-rss.js';

/** The key of Microsoft's examples and verification suite; also the default of Linux hv_netvsc. */
export const MICROSOFT_KEY: Uint8Array = Uint8Array.from(
  '6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa'.match(/../g)!,
  (hex) => Number.parseInt(hex, 16),
);

const TCP = 6;
const UDP = 17;
const NONE = -1; // no ports to hash: a fragment, or cut off
const V6_TCP = NDIS_HASH_TYPE.TCP_IPV6 | NDIS_HASH_TYPE.TCP_IPV6_EX;
const V6_UDP = NDIS_HASH_TYPE.UDP_IPV6 | NDIS_HASH_TYPE.UDP_IPV6_EX;
const V6_ANY = NDIS_HASH_TYPE.IPV6 | NDIS_HASH_TYPE.IPV6_EX | V6_TCP | V6_UDP;

/** Hashes packets under one key and spreads them over an indirection table. */
export class ReceiveSideScaling {
  /** NDIS_HASH_TYPE of the last `hash` call, 0 when the packet was not hashed. */
  type = 0;
  readonly #datapath: Datapath;
  readonly #arena: Arena;
  readonly #key: number;
  readonly #input: number;
  #types = 0;
  #table: Uint16Array = new Uint16Array(1);
  #transport = 0; // offset of the transport header that #protocol6 found

  constructor(arena: Arena, datapath: Datapath) {
    this.#arena = arena;
    this.#datapath = datapath;
    this.#key = arena.reserve('rss', 128);
    this.#input = this.#key + 64;
  }

  /** `types`: NDIS_HASH_TYPE bits. `indirection`: channel numbers, any length but 0. Throws a RangeError otherwise. */
  configure(key: Uint8Array, types: number, indirection: ArrayLike<number>): void {
    if (key.length !== NDIS_RSS_KEY_BYTES)
      throw new RangeError(`RSS key: expected ${NDIS_RSS_KEY_BYTES} bytes, got ${key.length}`);
    if (indirection.length === 0) throw new RangeError('RSS indirection table: expected at least 1 entry, got 0');
    this.#arena.u8.set(key, this.#key);
    this.#types = types;
    this.#table = Uint16Array.from(indirection);
  }

  /** Channel number for a hash, signed or not: its low bits index the table (whose length is a power of two on every known guest). */
  channel(hash: number): number {
    return this.#table[(hash >>> 0) % this.#table.length]!;
  }

  /** Unsigned 32-bit hash of the packet whose first `bytes` bytes (headers suffice) lie at `address`; 0 when it has none. */
  hash(address: number, bytes: number): number {
    return this.signedHash(address, bytes) >>> 0;
  }

  /** The same as a signed number, which unlike an unsigned one of 32 bits takes no heap: for hot code. */
  signedHash(address: number, bytes: number): number {
    const { u8 } = this.#arena;
    this.type = 0;
    if (bytes < 34) return 0;
    const etherType = (u8[address + 12]! << 8) | u8[address + 13]!;
    if (etherType === 0x0800) return this.#hash4(address, bytes);
    if (etherType === 0x86dd && (this.#types & V6_ANY) !== 0) return this.#hash6(address, bytes);
    return 0;
  }

  #hash4(address: number, bytes: number): number {
    const { u8 } = this.#arena;
    const ip = address + 14;
    const header = (u8[ip]! & 15) * 4;
    if (u8[ip]! >> 4 !== 4 || header < 20) return 0;
    const fragmented = ((u8[ip + 6]! & 0x3f) | u8[ip + 7]!) !== 0;
    const protocol = fragmented || 14 + header + 4 > bytes ? NONE : u8[ip + 9]!;
    const type = protocol === TCP ? NDIS_HASH_TYPE.TCP_IPV4 : protocol === UDP ? NDIS_HASH_TYPE.UDP_IPV4 : 0;
    return this.#run(ip + 12, 8, ip + header, this.#types & type, this.#types & NDIS_HASH_TYPE.IPV4);
  }

  #hash6(address: number, bytes: number): number {
    const { u8 } = this.#arena;
    const ip = address + 14;
    if (bytes < 54 || u8[ip]! >> 4 !== 6) return 0;
    const protocol = this.#protocol6(ip, address + bytes);
    const type = protocol === TCP ? V6_TCP : protocol === UDP ? V6_UDP : 0;
    return this.#run(
      ip + 8,
      32,
      this.#transport,
      this.#types & type,
      this.#types & (NDIS_HASH_TYPE.IPV6 | NDIS_HASH_TYPE.IPV6_EX),
    );
  }

  /** Walks over extension headers. */
  #protocol6(ip: number, end: number): number {
    const { u8 } = this.#arena;
    let next = u8[ip + 6]!;
    let at = ip + 40;
    while (next === 0 || next === 43 || next === 60) {
      if (at + 8 > end) return NONE;
      next = u8[at]!;
      at += (u8[at + 1]! + 1) * 8;
    }
    this.#transport = at;
    if (next === 44) return NONE;
    return at + 4 > end ? NONE : next;
  }

  /** Addresses and ports when `withPorts` says so, else addresses alone when `withoutPorts` does. */
  #run(addresses: number, size: number, ports: number, withPorts: number, withoutPorts: number): number {
    const { u8 } = this.#arena;
    const type = withPorts !== 0 ? withPorts : withoutPorts;
    if (type === 0) return 0;
    const input = this.#input;
    for (let i = 0; i < size; i++) u8[input + i] = u8[addresses + i]!;
    let bytes = size;
    if (withPorts !== 0) {
      for (let i = 0; i < 4; i++) u8[input + size + i] = u8[ports + i]!;
      bytes += 4;
    }
    this.type = type & -type;
    return this.#datapath.toeplitz(this.#key, input, bytes) | 0;
  }

  close(): void {
    this.#arena.release(this.#key);
  }
}
