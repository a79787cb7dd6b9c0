// Copies packets, and turns bits of packets that are nobody else's.
import type { Lcore } from '../../ethdev/driver.js';
import { MBUF, PACKET_FLAG } from '../../memory/layout.js';

const { data, dataLength, packetLength, next, segments, references, flags, l4Offset, pool } = MBUF.at;
const { EXTERNAL, INDIRECT, TX_IP_CHECKSUM, TX_TCP_CHECKSUM, TX_UDP_CHECKSUM, TX_TSO } = PACKET_FLAG;
const { RX_IP_GOOD, RX_L4_GOOD } = PACKET_FLAG;
const BORROWED = EXTERNAL | INDIRECT;
const TO_FILL_IN = TX_IP_CHECKSUM | TX_TCP_CHECKSUM | TX_UDP_CHECKSUM;
const VERDICTS = RX_IP_GOOD | RX_L4_GOOD;

export class Spoiler {
  readonly #u32: Uint32Array;
  readonly #u8: Uint8Array;
  readonly #datapath: Lcore['datapath'];
  readonly #one: number;
  readonly #tx: boolean;

  /** `one`: address of a list of one mbuf; `tx`: of packets on their way to a device. */
  constructor(lcore: Lcore, one: number, tx: boolean) {
    this.#u32 = lcore.arena.u32;
    this.#u8 = lcore.arena.u8;
    this.#datapath = lcore.datapath;
    this.#one = one;
    this.#tx = tx;
  }

  /** A packet with the same bytes and cells, of the pool that the first one's first mbuf is of. 0 = the pool has too few. */
  copy(mbuf: number): number {
    const u32 = this.#u32;
    const from = u32[(mbuf + pool) >>> 2]!;
    if (this.#datapath.poolGet(from, this.#one, 1) === 0) return 0;
    const to = u32[this.#one >>> 2]!;
    let last = to;
    for (let segment = mbuf; segment !== 0; segment = u32[(segment + next) >>> 2]!) {
      const bytes = u32[(segment + dataLength) >>> 2]!;
      last = this.#datapath.appendChain(from, to, last, u32[(segment + data) >>> 2]!, bytes);
      if (last !== 0) continue;
      this.#free(to);
      return 0;
    }
    for (let cell: number = flags; cell <= l4Offset; cell += 4) u32[(to + cell) >>> 2] = u32[(mbuf + cell) >>> 2]!;
    u32[(to + flags) >>> 2]! &= ~BORROWED;
    return to;
  }

  /** Turns the bit that `random` chooses. Returns the packet, which is a copy where the bytes were also somebody else's (the caller's then); 0 = it
   *  stays as it is. */
  corrupt(mbuf: number, random: number): number {
    const u32 = this.#u32;
    const bytes = u32[(mbuf + packetLength) >>> 2]!;
    if (bytes === 0) return 0;
    let packet = mbuf;
    if (this.#isShared(mbuf)) {
      packet = this.copy(mbuf);
      if (packet === 0) return 0;
    }
    if (this.#tx && !this.#finish(packet)) {
      if (packet !== mbuf) this.#free(packet);
      return 0;
    }
    const bit = random % (bytes * 8);
    let left = bit >>> 3;
    let segment = packet;
    while (left >= u32[(segment + dataLength) >>> 2]!) {
      left -= u32[(segment + dataLength) >>> 2]!;
      segment = u32[(segment + next) >>> 2]!;
    }
    this.#u8[u32[(segment + data) >>> 2]! + left]! ^= 1 << (bit & 7);
    // Who said that its checksums are right did not see this.
    if (!this.#tx) u32[(packet + flags) >>> 2]! &= ~VERDICTS;
    if (packet !== mbuf) this.#free(mbuf);
    return packet;
  }

  /** Fills in the checksums that the device was to fill in: else it would do so after the corruption. False: it cannot be done here. */
  #finish(mbuf: number): boolean {
    const u32 = this.#u32;
    const bits = u32[(mbuf + flags) >>> 2]!;
    if ((bits & (TO_FILL_IN | TX_TSO)) === 0) return true;
    if ((bits & TX_TSO) !== 0 || u32[(mbuf + segments) >>> 2] !== 1) return false;
    const at = u32[(mbuf + data) >>> 2]!;
    const bytes = u32[(mbuf + dataLength) >>> 2]!;
    if (this.#datapath.checksumFinish(at, bytes, bits, u32[(mbuf + l4Offset) >>> 2]!) === 0) return false;
    u32[(mbuf + flags) >>> 2] = bits & ~TO_FILL_IN;
    return true;
  }

  #isShared(mbuf: number): boolean {
    const u32 = this.#u32;
    for (let segment = mbuf; segment !== 0; segment = u32[(segment + next) >>> 2]!) {
      if (u32[(segment + references) >>> 2] !== 1 || (u32[(segment + flags) >>> 2]! & BORROWED) !== 0) return true;
    }
    return false;
  }

  #free(mbuf: number): void {
    this.#u32[this.#one >>> 2] = mbuf;
    this.#datapath.mbufFree(this.#one, 1);
  }
}
