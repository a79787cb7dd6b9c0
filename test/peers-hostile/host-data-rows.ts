// Ring packets, receive ranges, RNDIS packets and per-packet infos of a host that are wrong (facts/linux-guest.md 4.1, 10.1;
// facts/dpdk.md 2.13).
import { packet, words } from '../../src/netvsc/fake-host.js';
import { deliver, deliverAll, good, type HostRow, transfer } from './host-rows.js';
import { BUFFER_BYTES, frame, message, SECTION_BYTES, sectionAt, type TwoDevices } from './two-devices.js';

const corrupt = (name: string) => new RegExp(`ring corrupt: ${name} \\(0x`);
const bent =
  (cells: Readonly<Record<number, number>>) =>
  ({ host }: TwoDevices) => {
    host.place(sectionAt(0), good());
    host.bent(transfer([[good().length, sectionAt(0)]]), cells);
  };

const INDICES: readonly [string, (now: number, size: number) => number][] = [
  ['just past the data area', (_now, size) => size],
  ['of all ones', () => 0xffff_ffff],
  ['that is no multiple of 8', (now) => now + 4],
];

const RING: readonly HostRow[] = [
  ...INDICES.map(
    ([name, change]): HostRow => ({
      name: `write index ${name}`,
      act: ({ host }) => host.moveIndex(change),
      fails: corrupt('INVALID_POINTER'),
    }),
  ),
  {
    name: 'read index outside the ring, seen when room gets short',
    act: async ({ host, victim }) => {
      host.offer.arena.u32[(host.offer.fromGuest.control + 4) >>> 2] = 0xffff_fff0;
      for (let i = 0; i < 200 && victim.nic.device.state === 'running'; i++) victim.send(32);
    },
    fails: corrupt('INVALID_POINTER'),
  },
  { name: 'data offset 8', act: bent({ 1: 1 }), fails: corrupt('SHORT_DESCRIPTOR') },
  { name: 'data offset 0', act: bent({ 1: 0 }), fails: corrupt('SHORT_DESCRIPTOR') },
  { name: 'length 0', act: bent({ 2: 0 }), fails: corrupt('LENGTH') },
  { name: 'length past what is there', act: bent({ 2: 9 }), fails: corrupt('LENGTH') },
  { name: 'length of the largest kind', act: bent({ 2: 0xffff }), fails: corrupt('LENGTH') },
  { name: 'data offset past the packet', act: bent({ 1: 9 }), fails: corrupt('LENGTH') },
  {
    name: 'less than a descriptor',
    act: ({ host }) => host.moveIndex((now, size) => (now + 8) % size),
    fails: corrupt('LENGTH'),
  },
  ...[2, 0x8000].map(
    (flags): HostRow => ({ name: `flags ${flags}`, act: bent({ 3: flags }), fails: corrupt('FLAGS') }),
  ),
  ...[0, 5, 8, 12].map(
    (type): HostRow => ({ name: `packet type ${type}`, act: bent({ 0: type }), fails: corrupt('TYPE') }),
  ),
  { name: 'transfer pages without their header', act: bent({ 1: 2 }), fails: corrupt('EXTENDED_HEADER') },
  {
    name: 'GPA direct from a host',
    act: ({ host }) => host.write(packet(9, 1, 99, 0, words(0, 1, 100, 0, 1, 0), words(107, 0, 0, 0))),
    counts: { rxBadType: 1 },
  },
];

const wrongRange = (name: string, ...range: [bytes: number, offset: number]): HostRow => ({
  name,
  act: ({ host }) => host.write(transfer([range])),
  counts: { rxBadRange: 1 },
  completion: 2,
});

const RANGES: readonly HostRow[] = [
  {
    name: 'another set',
    act: ({ host }) => host.write(transfer([[200, 0]], { set: 0xcaff })),
    counts: { rxBadSet: 1 },
    completion: 2,
  },
  { name: 'no range', act: ({ host }) => host.write(transfer([])), counts: { rxBadRange: 1 }, completion: 2 },
  {
    name: 'count 0 with a range',
    act: ({ host }) => host.write(transfer([[200, 0]], { count: 0 })),
    counts: { rxBadRange: 1 },
    completion: 2,
  },
  {
    name: 'a range more than there is',
    act: ({ host }) => host.write(transfer([[200, 0]], { count: 2 })),
    counts: { rxBadRange: 1 },
    completion: 2,
  },
  {
    name: 'huge range count',
    act: ({ host }) => host.write(transfer([[200, 0]], { count: 0xffff_ffff })),
    counts: { rxBadRange: 1 },
    completion: 2,
  },
  {
    name: 'more ranges than any host sends',
    act: ({ host }) => host.write(transfer(Array.from({ length: 1025 }, () => [200, 0] as const))),
    counts: { rxBadRange: 1 },
    completion: 2,
  },
  wrongRange('offset past the buffer', 200, BUFFER_BYTES),
  wrongRange('end past the buffer', 200, BUFFER_BYTES - 100),
  wrongRange('offset that wraps', 200, 0xffff_ff80),
  wrongRange('length that wraps', 0xffff_ff00, 0x200),
  wrongRange('longer than a section', SECTION_BYTES + 1, 0),
  wrongRange('length of all ones', 0xffff_ffff, 0),
  {
    name: 'a bad range between good ones',
    act: ({ host }) => {
      host.place(sectionAt(0), good());
      host.write(
        transfer([
          [good().length, sectionAt(0)],
          [200, 0xffff_ff80],
          [good().length, sectionAt(0)],
        ]),
      );
    },
    counts: { rxBadRange: 1 },
    completion: 2,
    frames: 2,
  },
  {
    name: 'NVSP message of another kind',
    act: ({ host }) => host.write(transfer([[200, 0]], { payload: words(108, 1, 0, 0) })),
    counts: { rxBadNvsp: 1 },
    completion: 2,
  },
  {
    name: 'no NVSP message',
    act: ({ host }) => host.write(transfer([[200, 0]], { payload: new Uint8Array(0) })),
    counts: { rxBadNvsp: 1 },
    completion: 2,
  },
  { name: 'an empty range', act: ({ host }) => host.write(transfer([[0, 0]])), completion: 1 },
];

type Parts = Parameters<typeof message>[0];
const rndis = (name: string, parts: Parts): HostRow => ({
  name,
  act: deliver(message(parts)),
  counts: { rxBadRndis: 1 },
  completion: 2,
});

const RNDIS: readonly HostRow[] = [
  ...[0, 7, 245, 0xffff_ffff].map((length) => rndis(`message length ${length}`, { cells: { 1: length } })),
  { ...rndis('a message of 43 bytes', {}), act: deliver(message({ cells: { 1: 43 } }), 43) },
  rndis('data length 0', { cells: { 3: 0 } }),
  rndis('data one byte too long', { cells: { 3: 201 } }),
  rndis('data length of all ones', { cells: { 3: 0xffff_ffff } }),
  rndis('data in the header', { cells: { 2: 35 } }),
  rndis('data offset past the end', { cells: { 2: 237 } }),
  rndis('data offset that wraps', { cells: { 2: 0xffff_fff8 } }),
  rndis('data offset and length that wrap together', { cells: { 2: 0xffff_ff00, 3: 0x100 } }),
  rndis('a frame of 13 bytes', { data: new Uint8Array(13) }),
  {
    name: 'a bad message behind a good one in a range',
    act: deliver(Uint8Array.from([...good(), ...message({ cells: { 3: 0 } })])),
    counts: { rxBadRndis: 1 },
    completion: 2,
    frames: 1,
  },
];

const infos = (name: string, ...cells: number[]): HostRow => ({
  name,
  act: deliver(message({ infos: words(...cells) })),
  counts: { rxBadPpi: 1 },
  completion: 2,
});
const area = (name: string, offset: number, length: number): HostRow => ({
  name,
  act: deliver(message({ cells: { 7: offset, 8: length } })),
  counts: { rxBadPpi: 1 },
  completion: 2,
});

const INFOS: readonly HostRow[] = [
  area('infos in the header', 35, 12),
  area('infos past the end', 36, 201),
  area('info offset that wraps', 0xffff_fff8, 16),
  area('info length that wraps', 36, 0xffff_ffff),
  infos('info of size 0', 0, 0, 12, 0),
  infos('unknown info of size 0', 0, 99, 12, 0),
  infos('info of size 11', 11, 0, 12, 0),
  infos('info past the infos', 17, 0, 12, 0),
  infos('info of all ones', 0xffff_ffff, 0, 12, 0),
  infos('info data in its header', 16, 0, 8, 0),
  infos('info data past its end', 16, 0, 17, 0),
  infos('info data that wraps', 16, 6, 0xffff_fffc, 0),
  ...[0, 1, 6, 8].map((type) => infos(`info ${type} without data`, 12, type === 1 ? 0x8000_0001 : type, 12)),
  infos('half a header behind an info', 16, 6, 12, 0, 0),
  {
    name: 'unknown infos are skipped',
    act: deliver(message({ infos: words(16, 99, 12, 1, 12, 7, 12) })),
    completion: 1,
    frames: 1,
  },
];

// Packet id: version 1, flags 1 = part of one, 2 = first, 4 = last.
const part = (flags: number, bytes = 100) =>
  message({ data: frame(bytes, flags), infos: words(16, 0x8000_0001, 12, 1 | (flags << 8)) });
const FIRST = part(3);
const MIDDLE = part(1);
const LAST = part(5);

const coalescing = (name: string, bad: number, frames: number, ...parts: Uint8Array[]): HostRow => ({
  name,
  act: deliverAll(...parts),
  counts: bad > 0 ? { rxBadCoalescing: bad } : {},
  completion: bad > 0 ? 2 : 1,
  frames,
});

const COALESCING: readonly HostRow[] = [
  coalescing('first, middle, last', 0, 1, FIRST, MIDDLE, LAST),
  coalescing('a middle without a first', 1, 0, MIDDLE),
  coalescing('a last without a first', 1, 0, LAST),
  coalescing('two lasts', 1, 1, FIRST, LAST, LAST),
  { ...coalescing('a first that never ends', 1, 0, FIRST, MIDDLE), completion: 1 },
  { ...coalescing('a first after a first', 1, 1, FIRST, FIRST, LAST), completion: 1 },
  { ...coalescing('a frame between the parts', 2, 1, FIRST, good(), LAST) },
  {
    name: 'parts in two packets',
    act: (rig) => {
      deliverAll(FIRST)(rig);
      rig.host.write(packet(7, 1, 98, 0, words(0xcafe, 1, LAST.length, sectionAt(100)), words(107, 0, 0xffff_ffff, 0)));
      rig.host.place(sectionAt(100), LAST);
    },
    counts: { rxBadCoalescing: 2 },
    completion: 1,
  },
  {
    name: 'more parts than a packet can have',
    act: ({ host }) => {
      host.place(sectionAt(0), FIRST);
      host.place(sectionAt(1), MIDDLE);
      const ranges = [[FIRST.length, sectionAt(0)] as const];
      for (let i = 0; i < 562; i++) ranges.push([MIDDLE.length, sectionAt(1)]);
      host.write(transfer(ranges));
    },
    counts: { rxTooBig: 1, rxBadCoalescing: 1 },
    completion: 2,
  },
  {
    name: 'parts that are longer together than any packet',
    act: ({ host }) => {
      const first = part(3, 1500);
      const middle = part(1, 1500);
      host.place(sectionAt(0), first);
      host.place(sectionAt(1), middle);
      const ranges = [[first.length, sectionAt(0)] as const];
      for (let i = 0; i < 43; i++) ranges.push([middle.length, sectionAt(1)]);
      host.write(transfer(ranges));
    },
    counts: { rxTooBig: 1, rxBadCoalescing: 1 },
    completion: 2,
  },
];

export const HOST_DATA_ROWS: readonly HostRow[] = [...RING, ...RANGES, ...RNDIS, ...INFOS, ...COALESCING];
