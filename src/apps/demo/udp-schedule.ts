// The UDP flow: every datagram has a number, and both sides know from it how large it is and what it holds. Datagrams of
// HEADER_BYTES and more carry number, size and a hash; smaller ones hold the number's low byte in every place.
import { createHash } from 'node:crypto';
import type { Payload } from './payload.js';

const HEADER_BYTES = 16;
const HASH_BYTES = 8;
const HASHED_FROM = 8;

/** First bytes of datagrams that are no data: ask for an account, and the account. Not the size of any data. */
export const CONTROL_BYTES = 24;
export const CONTROL_MAGIC = 0x6e767363;
export const CONTROL = { ASK: 1, ACCOUNT: 2, END: 3 } as const;

/** What may be under way at once, so that nothing need be lost to a full socket buffer (212,992 bytes by default, of which
 *  the kernel takes up to twice a packet's bytes, and BOOKKEEPING_BYTES a packet). */
export const WINDOW_BYTES = 180_000;
export const WINDOW_DATAGRAMS = 64;
export const datagramCost = (bytes: number): number => 2 * bytes + BOOKKEEPING_BYTES;
const BOOKKEEPING_BYTES = 2048;

export interface UdpSent {
  readonly datagrams: number;
  readonly bytes: number;
  readonly seconds: number;
  /** Times that the receiver had to be asked again how far it is. */
  readonly retries: number;
}

export interface UdpVerdict {
  /** Different datagrams that arrived whole. */
  readonly datagrams: number;
  readonly bytes: number;
  /** Of those the sender sent. */
  readonly lost: number;
  readonly wrong: number;
  readonly reordered: number;
  readonly duplicates: number;
}

/** Datagram number `sequence`: a fresh buffer. */
export function makeDatagram(payload: Payload, sizes: readonly number[], sequence: number): Buffer {
  const bytes = sizes[sequence % sizes.length]!;
  if (bytes < HEADER_BYTES) return Buffer.alloc(bytes, sequence & 0xff);
  const datagram = Buffer.from(payload.chunk(sequence, bytes));
  datagram.writeUInt32BE(sequence, 0);
  datagram.writeUInt32BE(bytes, 4);
  digest(datagram).copy(datagram, HASHED_FROM);
  return datagram;
}

function digest(datagram: Buffer): Buffer {
  const hash = createHash('sha256').update(datagram.subarray(0, HASHED_FROM));
  return hash.update(datagram.subarray(HEADER_BYTES)).digest().subarray(0, HASH_BYTES);
}

/** Checks what arrives against what was to be sent. */
export class UdpChecker {
  readonly #sizes: readonly number[];
  readonly #seen: Uint8Array[] = [];
  /** Next number that a datagram too small for a number can have, per place in `sizes`. */
  readonly #nextSmall: number[];
  #highest = -1;
  #datagrams = 0;
  #bytes = 0;
  #wrong = 0;
  #reordered = 0;
  #duplicates = 0;

  constructor(sizes: readonly number[]) {
    this.#sizes = sizes;
    this.#nextSmall = sizes.map((_, place) => place);
  }

  /** Datagrams that have arrived, right or wrong. */
  get arrived(): number {
    return this.#datagrams + this.#wrong + this.#duplicates;
  }

  take(datagram: Buffer): void {
    const sequence = datagram.length < HEADER_BYTES ? this.#small(datagram) : this.#numbered(datagram);
    if (sequence < 0) {
      this.#wrong++;
      return;
    }
    if (this.#mark(sequence)) {
      this.#duplicates++;
      return;
    }
    this.#datagrams++;
    this.#bytes += datagram.length;
    if (sequence < this.#highest) this.#reordered++;
    else this.#highest = sequence;
  }

  verdict(sent: number): UdpVerdict {
    return {
      datagrams: this.#datagrams,
      bytes: this.#bytes,
      lost: Math.max(sent - this.#datagrams, 0),
      wrong: this.#wrong,
      reordered: this.#reordered,
      duplicates: this.#duplicates,
    };
  }

  /** Number of a datagram with a header, or -1 when it is not as it was sent. */
  #numbered(datagram: Buffer): number {
    const sequence = datagram.readUInt32BE(0);
    if (datagram.readUInt32BE(4) !== datagram.length) return -1;
    if (this.#sizes[sequence % this.#sizes.length] !== datagram.length) return -1;
    return digest(datagram).equals(datagram.subarray(HASHED_FROM, HEADER_BYTES)) ? sequence : -1;
  }

  /** Number of a datagram without one: the first of its size and content that is still missing. */
  #small(datagram: Buffer): number {
    const step = this.#sizes.length;
    for (let place = 0; place < step; place++) {
      if (this.#sizes[place] !== datagram.length) continue;
      // Some may be lost before it. Not far beyond a window, since low bytes repeat.
      for (let n = this.#nextSmall[place]!, i = 0; i < WINDOW_DATAGRAMS; n += step, i++) {
        if (!datagram.every((byte) => byte === (n & 0xff))) continue;
        this.#nextSmall[place] = n + step;
        return n;
      }
    }
    return -1;
  }

  /** Notes that a number has come; true when it had before. */
  #mark(sequence: number): boolean {
    const page = sequence >>> 16;
    const bytes = this.#seen[page] ?? new Uint8Array(8192);
    this.#seen[page] = bytes;
    const bit = 1 << (sequence & 7);
    const at = (sequence & 0xffff) >>> 3;
    const before = (bytes[at]! & bit) !== 0;
    bytes[at]! |= bit;
    return before;
  }
}
