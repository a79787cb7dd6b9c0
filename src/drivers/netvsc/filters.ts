// Lists of the software filters in shared memory (RX_FILTER). There are two images: what bursts use is never written to.
import type { Arena } from '../../memory/arena.js';
import { RX_FILTER } from '../../memory/layout.js';
import { parseMac } from '../../wire/address-text.js';
import { EXTRA_MACS, GROUPS } from './info.js';

const ENTRY_BYTES = 8;
const VLAN_BYTES = 4096 / 8;
const MACS_AT = RX_FILTER.bytes;
const GROUPS_AT = MACS_AT + (1 + EXTRA_MACS) * ENTRY_BYTES;
const VLANS_AT = GROUPS_AT + GROUPS * ENTRY_BYTES;
const IMAGE_BYTES = VLANS_AT + VLAN_BYTES;

export interface FilterLists {
  /** Unicast addresses, at most 1 + EXTRA_MACS. */
  readonly macs: readonly string[];
  /** At most GROUPS. */
  readonly groups: readonly string[];
  readonly vlans: readonly number[];
}

export class Filters {
  readonly #arena: Arena;
  readonly #memory: number;
  #turn = 0;

  constructor(arena: Arena, name: string) {
    this.#arena = arena;
    this.#memory = arena.reserve(`${name} filters`, 2 * IMAGE_BYTES);
  }

  /** Writes the lists; returns the address of their RX_FILTER. That of the last call stays as it is until the next one. */
  write({ macs, groups, vlans }: FilterLists): number {
    const { u8, u32 } = this.#arena;
    this.#turn = 1 - this.#turn;
    const image = this.#memory + this.#turn * IMAGE_BYTES;
    u8.fill(0, image, image + IMAGE_BYTES);
    const cells = {
      ...{ macs: image + MACS_AT, macCount: macs.length, groups: image + GROUPS_AT, groupCount: groups.length },
      vlans: image + VLANS_AT,
    };
    for (const [cell, value] of Object.entries(cells))
      u32[(image + RX_FILTER.at[cell as keyof typeof cells]) >>> 2] = value;
    for (const [i, mac] of macs.entries()) u8.set(parseMac(mac)!, cells.macs + i * ENTRY_BYTES);
    for (const [i, mac] of groups.entries()) u8.set(parseMac(mac)!, cells.groups + i * ENTRY_BYTES);
    for (const id of vlans) u8[cells.vlans + (id >>> 3)]! |= 1 << (id & 7);
    return image;
  }

  release(): void {
    this.#arena.release(this.#memory);
  }
}
