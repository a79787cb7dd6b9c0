// Which port a station was last seen behind: (VLAN, MAC) > port, in typed arrays with linear probing. Bounded in
// entries and in probes, since guests choose the addresses; the hash is seeded so that they cannot choose collisions.

import { formatMac } from '../wire/address-text.js';

/** VLAN of static entries: a NIC's own address is its own in every VLAN (4095 is no VLAN id). */
export const ANY_VLAN = 0xfff;

/** What `learn` found. */
export const LEARNED = {
  KNOWN: 0,
  NEW: 1,
  MOVED: 2, // was behind another port
  FULL: 3, // no room: the station stays unknown and its traffic is flooded
} as const;

const OCCUPIED = 0x1000;
const VLAN_MASK = 0xfff;
const MAX_PROBES = 64;

/** A station, for display. */
export interface Station {
  readonly mac: string;
  /** 0 = untagged; undefined for a port's own address. */
  readonly vlan: number | undefined;
  readonly port: number;
  readonly ageSeconds: number;
}

/** MACs are given as two integers, big-endian: `high` = bytes 0 and 1, `low` = bytes 2 to 5 as a signed 32-bit number
 *  (an unsigned one would not always fit a small integer, and cost an allocation per packet). */
export class MacTable {
  readonly capacity: number;
  #used = 0;
  readonly #mask: number;
  readonly #seed: number;
  readonly #high: Int32Array; // bytes 0 and 1 above, OCCUPIED and VLAN below; 0 = free
  readonly #low: Int32Array;
  readonly #port: Uint8Array;
  readonly #seen: Int32Array; // seconds
  #now = 0;

  /** Room for `capacity` stations; `seed` is any 32-bit number that guests do not know. */
  constructor(capacity = 4096, seed = 0) {
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > 1 << 20) {
      throw new RangeError(`MAC table: expected a capacity of 1 to 1048576 stations, got ${capacity}`);
    }
    this.capacity = capacity;
    let slots = 16;
    while (slots < capacity * 2) slots *= 2;
    this.#mask = slots - 1;
    this.#seed = seed | 1;
    this.#high = new Int32Array(slots);
    this.#low = new Int32Array(slots);
    this.#port = new Uint8Array(slots);
    this.#seen = new Int32Array(slots);
  }

  /** Stations in the table, static ones included. */
  get size(): number {
    return this.#used;
  }

  /** Port of the station, or 0 when it is not known. */
  find(vlan: number, high: number, low: number): number {
    const slot = this.#slot((high << 16) | OCCUPIED | vlan, low);
    return slot < 0 ? 0 : this.#port[slot]!;
  }

  /** Notes that the station was seen behind `port`. Returns one of LEARNED. */
  learn(vlan: number, high: number, low: number, port: number): number {
    const key = (high << 16) | OCCUPIED | vlan;
    const slot = this.#slot(key, low);
    if (slot >= 0) {
      this.#seen[slot] = this.#now;
      if (this.#port[slot] === port) return LEARNED.KNOWN;
      this.#port[slot] = port;
      return LEARNED.MOVED;
    }
    return this.#insert(key, low, port) ? LEARNED.NEW : LEARNED.FULL;
  }

  /** Gives a port's own address to it in all VLANs, for good. False when another port owns it or the table is full. */
  addStatic(high: number, low: number, port: number): boolean {
    const owner = this.find(ANY_VLAN, high, low);
    return owner === 0 ? this.#insert((high << 16) | OCCUPIED | ANY_VLAN, low, port) : owner === port;
  }

  /** Forgets the stations behind `port`: all, or only its own addresses. */
  forget(port: number, which: 'all' | 'static'): void {
    for (let slot = 0; slot <= this.#mask; ) {
      const key = this.#high[slot]!;
      if (key !== 0 && this.#port[slot] === port && (which === 'all' || (key & VLAN_MASK) === ANY_VLAN)) {
        this.#remove(slot); // another entry may have moved here: look again
      } else slot++;
    }
  }

  /** Sets the clock (whole seconds) and forgets learned stations not seen for more than `maxAgeSeconds`. Returns how many. */
  age(nowSeconds: number, maxAgeSeconds: number): number {
    this.#now = nowSeconds;
    const before = this.#used;
    for (let slot = 0; slot <= this.#mask; ) {
      const key = this.#high[slot]!;
      const old = key !== 0 && (key & VLAN_MASK) !== ANY_VLAN && nowSeconds - this.#seen[slot]! > maxAgeSeconds;
      if (old) this.#remove(slot);
      else slot++;
    }
    return before - this.#used;
  }

  /** All stations, in no particular order. */
  stations(): Station[] {
    const out: Station[] = [];
    for (let slot = 0; slot <= this.#mask; slot++) {
      const key = this.#high[slot]!;
      if (key === 0) continue;
      const vlan = key & VLAN_MASK;
      out.push({
        mac: macText(key >>> 16, this.#low[slot]!),
        vlan: vlan === ANY_VLAN ? undefined : vlan,
        port: this.#port[slot]!,
        ageSeconds: vlan === ANY_VLAN ? 0 : this.#now - this.#seen[slot]!,
      });
    }
    return out;
  }

  #home(key: number, low: number): number {
    let hash = Math.imul(key ^ this.#seed, 0x9e3779b1) ^ Math.imul((low ^ (this.#seed >>> 7)) | 0, 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 15), 0xc2b2ae35);
    return (hash ^ (hash >>> 13)) & this.#mask;
  }

  #slot(key: number, low: number): number {
    let slot = this.#home(key, low);
    for (let probe = 0; probe < MAX_PROBES; probe++) {
      const there = this.#high[slot]!;
      if (there === 0) return -1;
      if (there === key && this.#low[slot] === low) return slot;
      slot = (slot + 1) & this.#mask;
    }
    return -1;
  }

  #insert(key: number, low: number, port: number): boolean {
    if (this.#used >= this.capacity) return false;
    let slot = this.#home(key, low);
    for (let probe = 0; probe < MAX_PROBES; probe++) {
      if (this.#high[slot] === 0) {
        this.#high[slot] = key;
        this.#low[slot] = low;
        this.#port[slot] = port;
        this.#seen[slot] = this.#now;
        this.#used++;
        return true;
      }
      slot = (slot + 1) & this.#mask;
    }
    return false;
  }

  /** Empties a slot and moves later entries of the run up, so that no probe ends too early (Knuth 6.4, algorithm R). */
  #remove(slot: number): void {
    let hole = slot;
    let next = slot;
    for (;;) {
      next = (next + 1) & this.#mask;
      const key = this.#high[next]!;
      if (key === 0) break;
      const distance = (next - this.#home(key, this.#low[next]!)) & this.#mask;
      if (distance < ((next - hole) & this.#mask)) continue; // its home lies behind the hole
      this.#high[hole] = key;
      this.#low[hole] = this.#low[next]!;
      this.#port[hole] = this.#port[next]!;
      this.#seen[hole] = this.#seen[next]!;
      hole = next;
    }
    this.#high[hole] = 0;
    this.#used--;
  }
}

/** `aa:bb:cc:dd:ee:ff` of the two numbers. */
export function macText(high: number, low: number): string {
  return formatMac(Uint8Array.of(high >>> 8, high, low >>> 24, low >>> 16, low >>> 8, low));
}
