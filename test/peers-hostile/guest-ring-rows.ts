// Malformed ring packets from a guest (facts/hyper-v-host.md 1.1 to 1.3).
import { concat, words } from '../../src/host/raw-guest-testing.js';
import type { GuestRow } from './guest-rows.js';
import type { Attacker } from './two-nics.js';

const DATA = words(107, 0, 0xffffffff, 0);
const ring = (name: string) => ({ dead: new RegExp(`^ring: ${name}, value 0x`) });

/** A good data packet whose descriptor is changed. */
const bent = (cells: Readonly<Record<number, number>>) => (guest: Attacker) =>
  guest.descriptor(cells, () => guest.data(guest.message()));

/** A GPA-direct packet with these words between descriptor and payload. */
const ranges =
  (...cells: number[]) =>
  (guest: Attacker) =>
    guest.put(9, 1, 5n, DATA, words(...cells));

/** Moves the write position to 24 bytes before the ring's end, with messages of 32 and 40 bytes that change nothing. */
function toTheEnd(guest: Attacker, step: () => void): void {
  const { control, dataBytes } = guest.opened.transmit;
  const distance = () => dataBytes - 24 - guest.arena.u32[control >>> 2]!;
  for (let i = 0; distance() !== 0; i++) {
    guest.put(6, 0, 0n, distance() % 32 === 0 ? words(129, 0) : words(129, 0, 0, 0));
    if (i % 16 === 0) step();
  }
  step();
}

const INDICES: readonly [string, (now: number, dataBytes: number) => number][] = [
  ['just past the data area', (_now, dataBytes) => dataBytes],
  ['far outside', () => 0x7fff_0000],
  ['all ones', () => 0xffff_ffff],
  ['not a multiple of 8', (now) => now + 4],
  ['odd', (now) => now + 1],
];

const FLAGS = [2, 3, 0x8000, 0xffff];
const TYPES = [0, 1, 4, 8, 10, 12, 0xffff];

export const RING_ROWS: readonly GuestRow[] = [
  ...INDICES.map(
    ([name, change]): GuestRow => ({
      name: `write index ${name}`,
      act: (guest) => guest.writeIndex(change),
      outcome: ring('INVALID_POINTER'),
    }),
  ),
  {
    name: 'read index outside the ring, seen when room gets short',
    act: (guest, { step, nic }) => {
      guest.arena.u32[(guest.opened.receive.control + 4) >>> 2] = 0xffff_fff0;
      for (let i = 0; i < 2000 && nic.phase === 'ready'; i++) {
        guest.put(6, 1, 1n, words(131, 0, 0x10101, 0, 0, 0, 0, 0));
        step();
      }
    },
    outcome: ring('INVALID_POINTER'),
  },
  {
    name: 'interrupt mask of the ring that the host reads, while the host sleeps',
    act: (guest, { step, nic }) => {
      while (!nic.arm()) step();
      guest.arena.u32[(guest.opened.transmit.control + 8) >>> 2] = 1;
      nic.disarm();
    },
    outcome: ring('MASKED_EXTERNALLY'),
  },
  ...[0, 1].map(
    (units): GuestRow => ({
      name: `data offset ${units * 8}`,
      act: bent({ 1: units }),
      outcome: ring('SHORT_DESCRIPTOR'),
    }),
  ),
  { name: 'length 0', act: bent({ 2: 0 }), outcome: ring('LENGTH') },
  { name: 'length below the data offset', act: bent({ 1: 4, 2: 3 }), outcome: ring('LENGTH') },
  { name: 'length one word past what is there', act: bent({ 2: 5 }), outcome: ring('LENGTH') },
  { name: 'length of the largest kind', act: bent({ 2: 0xffff }), outcome: ring('LENGTH') },
  { name: 'data offset past the packet', act: bent({ 1: 0xffff }), outcome: ring('LENGTH') },
  {
    name: 'less than a descriptor',
    act: (guest) => guest.writeIndex((now, size) => (now + 8) % size),
    outcome: ring('LENGTH'),
  },
  ...FLAGS.map((flags): GuestRow => ({ name: `flags ${flags}`, act: bent({ 3: flags }), outcome: ring('FLAGS') })),
  ...TYPES.map((type): GuestRow => ({ name: `packet type ${type}`, act: bent({ 0: type }), outcome: ring('TYPE') })),
  {
    name: 'transfer pages from a guest',
    act: (guest) => guest.put(7, 1, 1n, words(107, 0, 0, 0), words(0xcafe, 1, 100, 0)),
    outcome: ring('TYPE'),
  },
  {
    name: 'GPA direct without its header',
    act: (guest) => guest.put(9, 1, 1n, DATA),
    outcome: ring('EXTENDED_HEADER'),
  },
  { name: 'no GPA range', act: ranges(0, 0), outcome: ring('EXTENDED_HEADER') },
  { name: 'no GPA range, and one', act: ranges(0, 0, 100, 0, 1, 0), outcome: ring('EXTENDED_HEADER') },
  { name: 'huge range count', act: ranges(0, 0xffff_ffff, 100, 0, 1, 0), outcome: ring('EXTENDED_HEADER') },
  { name: 'one range more than there is', act: ranges(0, 2, 100, 0, 1, 0), outcome: ring('EXTENDED_HEADER') },
  {
    name: 'one range less than there is',
    act: ranges(0, 1, 100, 0, 1, 0, 100, 0, 2, 0),
    outcome: ring('EXTENDED_HEADER'),
  },
  { name: 'a page more than the range needs', act: ranges(0, 1, 100, 0, 1, 0, 2, 0), outcome: ring('EXTENDED_HEADER') },
  { name: 'empty GPA range', act: ranges(0, 1, 0, 0, 1, 0), outcome: ring('GPA_RANGE') },
  { name: 'empty GPA range without pages', act: ranges(0, 1, 0, 0), outcome: ring('GPA_RANGE') },
  { name: 'offset of a whole page', act: ranges(0, 1, 100, 4096, 1, 0, 2, 0), outcome: ring('GPA_RANGE') },
  { name: 'offset that wraps', act: ranges(0, 1, 100, 0xffff_fff0, 1, 0), outcome: ring('GPA_RANGE') },
  { name: 'more pages than the descriptor holds', act: ranges(0, 1, 4097, 0, 1, 0), outcome: ring('GPA_RANGE') },
  { name: 'a second page by offset', act: ranges(0, 1, 4096, 1, 1, 0), outcome: ring('GPA_RANGE') },
  { name: 'range length that wraps', act: ranges(0, 1, 0xffff_ffff, 4095, 1, 0), outcome: ring('GPA_RANGE') },
  {
    name: 'a packet across the end of the ring is as good as another',
    act: (guest, { step }) => {
      toTheEnd(guest, step);
      return guest.data(guest.message());
    },
    outcome: { taken: true },
  },
  {
    name: 'bad flags across the end of the ring',
    act: (guest, { step }) => {
      toTheEnd(guest, step);
      bent({ 3: 2 })(guest);
    },
    outcome: ring('FLAGS'),
  },
  {
    name: 'bad range across the end of the ring',
    act: (guest, { step }) => {
      toTheEnd(guest, step);
      guest.put(9, 1, 5n, DATA, concat(words(0, 1), words(0x2000, 0, 1, 0)));
    },
    outcome: ring('GPA_RANGE'),
  },
  {
    name: 'junk in the cells of the ring that are the host’s or nobody’s',
    act: (guest) => {
      const cells = guest.opened.transmit.control >>> 2;
      guest.arena.u32[cells + 2] = 1;
      guest.arena.u32[cells + 3] = 0xffff_ffff;
      guest.arena.u32.fill(0xdead_beef, cells + 4, cells + 64);
      return guest.data(guest.message());
    },
    outcome: { taken: true },
  },
];
