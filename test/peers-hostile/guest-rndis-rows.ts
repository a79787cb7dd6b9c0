// RNDIS packets, per-packet infos and page ranges that are wrong (facts/hyper-v-host.md 4.2, 4.3): status 2, and the
// channel goes on.
import assert from 'node:assert/strict';
import { concat, words } from '../../src/host/raw-guest-testing.js';
import type { FRAME_ERROR } from '../../src/memory/layout.js';
import type { GuestRow } from './guest-rows.js';
import { type Attacker, info, type MessageParts } from './two-nics.js';

type Reason = keyof typeof FRAME_ERROR;

/** A packet message with cells changed, in the send buffer. */
const packet = (name: string, refused: Reason, parts: MessageParts, behind?: Uint8Array): GuestRow => ({
  name,
  act: (guest) => guest.data(concat(guest.message(parts), behind ?? new Uint8Array(0))),
  outcome: { refused },
});

const taken = (name: string, act: (guest: Attacker) => bigint): GuestRow => ({ name, act, outcome: { taken: true } });

// Cells of an RNDIS packet message.
const LENGTH = 1;
const DATA_OFFSET = 2;
const DATA_LENGTH = 3;
const INFO_OFFSET = 7;
const INFO_LENGTH = 8;

const checksum4 = (offset: number) => info(0, 0x5 | (offset << 16));
const checksum6 = (offset: number) => info(0, 0x6 | (offset << 16));
const lso = (mss: number, offset: number, v6 = false) => info(2, (mss | (offset << 20) | (v6 ? 0x8000_0000 : 0)) >>> 0);

const MESSAGE_ROWS: readonly GuestRow[] = [
  ...[0, 7].map((bytes) => packet(`message length ${bytes}`, 'MESSAGE_LENGTH', { cells: { [LENGTH]: bytes } })),
  ...[8, 43].map((bytes) => packet(`message of ${bytes} bytes`, 'MESSAGE_LENGTH', { cells: { [LENGTH]: bytes } })),
  packet('message one byte too long', 'MESSAGE_LENGTH', { cells: { [LENGTH]: 44 + 200 + 1 } }),
  packet('message length of all ones', 'MESSAGE_LENGTH', { cells: { [LENGTH]: 0xffff_ffff } }),
  ...[1, 2, 3, 4, 5, 6, 7].map((bytes) =>
    packet(`${bytes} bytes behind the message`, 'MESSAGE_LENGTH', {}, new Uint8Array(bytes)),
  ),
  { name: 'no bytes', act: (guest) => guest.data(new Uint8Array(0)), outcome: { refused: 'MESSAGE_LENGTH' } },
  { name: '7 bytes', act: (guest) => guest.data(new Uint8Array(7)), outcome: { refused: 'MESSAGE_LENGTH' } },
  {
    name: 'neither section nor ranges',
    act: (guest) => {
      guest.put(6, 1, 0x33n, words(107, 0, 0xffff_ffff, 0));
      return 0x33n;
    },
    outcome: { refused: 'MESSAGE_LENGTH' },
  },
  packet('a control message behind a packet', 'MESSAGE_TYPE', {}, words(4, 28, 1, 0x10101, 0, 0, 0)),
  packet('an unknown message behind a packet', 'MESSAGE_TYPE', {}, words(0x77, 8)),
  packet('a bad packet behind a good one', 'DATA_RANGE', {}, words(1, 44, 36, 0, 0, 0, 0, 0, 0, 0, 0)),
  ...[4, 5, 6, 9].map((cell) => packet(`out-of-band cell ${cell}`, 'OUT_OF_BAND', { cells: { [cell]: 1 } })),
  packet('no data', 'DATA_RANGE', { cells: { [DATA_LENGTH]: 0 } }),
  packet('data one byte too long', 'DATA_RANGE', { cells: { [DATA_LENGTH]: 201 } }),
  packet('data offset past the end', 'DATA_RANGE', { cells: { [DATA_OFFSET]: 237 } }),
  packet('data offset that wraps', 'DATA_RANGE', { cells: { [DATA_OFFSET]: 0xffff_fff8 } }),
  packet('data length that wraps', 'DATA_RANGE', { cells: { [DATA_LENGTH]: 0xffff_ffff } }),
  packet('data offset and length that wrap together', 'DATA_RANGE', {
    cells: { [DATA_OFFSET]: 0xffff_ff00, [DATA_LENGTH]: 0x100 },
  }),
  packet('a frame of 13 bytes', 'FRAME_LENGTH', { data: new Uint8Array(13) }),
  packet('a frame beyond the MTU', 'FRAME_LENGTH', { data: new Uint8Array(1515) }),
  {
    name: '513 packets in a message',
    act: (guest) =>
      guest.data(concat(...Array.from({ length: 513 }, () => guest.message({ data: new Uint8Array(14) })))),
    outcome: { refused: 'TOO_MANY' },
  },
  taken('several packets in a message', (guest) =>
    guest.data(concat(guest.message(), guest.message(), guest.message())),
  ),
];

const INFO_ROWS: readonly GuestRow[] = [
  packet('infos past the end', 'PPI_RANGE', { cells: { [INFO_OFFSET]: 36, [INFO_LENGTH]: 220 } }),
  packet('info offset past the end', 'PPI_RANGE', { cells: { [INFO_OFFSET]: 500, [INFO_LENGTH]: 12 } }),
  packet('info offset that wraps', 'PPI_RANGE', { cells: { [INFO_OFFSET]: 0xffff_fff8, [INFO_LENGTH]: 16 } }),
  packet('info length that wraps', 'PPI_RANGE', { cells: { [INFO_OFFSET]: 36, [INFO_LENGTH]: 0xffff_ffff } }),
  packet('info of size 0', 'PPI_SIZE', { infos: words(0, 0, 12, 0) }),
  packet('info of size 11', 'PPI_SIZE', { infos: words(11, 0, 12, 0) }),
  packet('unknown info of size 0', 'PPI_SIZE', { infos: words(0, 99, 12, 0) }),
  packet('info past the infos', 'PPI_SIZE', { infos: words(17, 0, 12, 0) }),
  packet('info of all ones', 'PPI_SIZE', { infos: words(0xffff_ffff, 0, 12, 0) }),
  packet('second info past the infos', 'PPI_SIZE', { infos: concat(checksum4(34), words(16, 6, 12)) }),
  packet('less than a header behind an info', 'PPI_SIZE', { infos: concat(checksum4(34), words(0)) }),
  packet('infos of 4 bytes', 'PPI_SIZE', { infos: words(0) }),
  packet('info data in its header', 'PPI_SIZE', { infos: words(16, 0, 8, 0) }),
  packet('info data past its end', 'PPI_SIZE', { infos: words(16, 0, 16, 0) }),
  packet('info data that wraps', 'PPI_SIZE', { infos: words(16, 6, 0xffff_fffc, 0) }),
  packet('info without data', 'PPI_SIZE', { infos: words(12, 2, 12) }),
  packet('checksum inside the IPv4 header', 'HEADER_OFFSET', { infos: checksum4(33) }),
  packet('checksum inside the IPv6 header', 'HEADER_OFFSET', { infos: checksum6(53) }),
  packet('checksum past the frame', 'HEADER_OFFSET', { infos: checksum4(200) }),
  packet('checksum far past the frame', 'HEADER_OFFSET', { infos: checksum6(1023) }),
  packet('checksum of a frame that has no such header', 'HEADER_OFFSET', {
    data: new Uint8Array(30),
    infos: checksum4(0),
  }),
  packet('MSS 0', 'HEADER_OFFSET', { infos: lso(0, 34) }),
  packet('MSS beyond 64 KiB', 'HEADER_OFFSET', { infos: lso(0x10000, 34) }),
  packet('LSO header past the frame', 'HEADER_OFFSET', { infos: lso(1460, 181) }),
  packet('LSO header inside the IPv6 header', 'HEADER_OFFSET', { infos: lso(1440, 53, true) }),
  taken('unknown infos', (guest) =>
    guest.data(guest.message({ infos: concat(info(7), info(0x8000_0001, 1), info(99, 1, 2, 3)) })),
  ),
  taken('a checksum whose field is past the frame', (guest) => guest.data(guest.message({ infos: checksum4(199) }))),
  taken('LSO of what is no TCP packet', (guest) => guest.data(guest.message({ infos: lso(1, 34) }))),
  taken('LSO with a header full of ones', (guest) => {
    const data = new Uint8Array(1400).fill(0xff);
    return guest.data(guest.message({ data, infos: lso(1, 60) }));
  }),
];

const RANGE_ROWS: readonly GuestRow[] = [
  {
    name: 'a page that is nobody’s',
    act: (guest) => guest.direct([guest.message()], (header) => header.setBigUint64(16, 0xdead_beefn, true)),
    outcome: { refused: 'PAGE_MISSING' },
  },
  {
    name: 'a page number of all ones',
    act: (guest) => guest.direct([guest.message()], (header) => header.setBigUint64(16, 0xffff_ffff_ffff_ffffn, true)),
    outcome: { refused: 'PAGE_MISSING' },
  },
  {
    name: 'a header split over two ranges',
    act: (guest) => guest.direct([guest.message().slice(0, 40), guest.message().slice(40)]),
    outcome: { refused: 'HEADER_SPLIT' },
  },
  {
    name: 'the first eight bytes split over two ranges',
    act: (guest) => guest.direct([guest.message().slice(0, 4), guest.message().slice(4)]),
    outcome: { refused: 'HEADER_SPLIT' },
  },
  {
    name: 'infos split over two ranges',
    act: (guest) => {
      const message = guest.message({ infos: checksum4(34) });
      return guest.direct([message.slice(0, 50), message.slice(50)]);
    },
    outcome: { refused: 'HEADER_SPLIT' },
  },
  {
    name: 'more pieces than a message may have',
    act: (guest) => {
      const { memory } = guest.pair.device;
      const pages = [0, 2].map((page) => Number(memory.pfn(guest.allocate(3))) + page);
      const cells = Array.from({ length: 1100 }, (_, i) => [pages[i % 2]!, 0]).flat();
      guest.put(9, 1, 0x34n, words(107, 0, 0xffff_ffff, 0), words(0, 1, 1100 * 4096, 0, ...cells));
      return 0x34n;
    },
    outcome: { refused: 'TOO_MANY' },
  },
  taken('data in a range of its own', (guest) =>
    guest.direct([guest.message().slice(0, 44), guest.message().slice(44)]),
  ),
];

const CONTROL_ROWS: readonly GuestRow[] = [
  ...[
    ['reset', words(6, 12, 0), /RNDIS RESET/],
    ['indicate status', words(7, 20, 0, 0, 0), /RNDIS INDICATE_STATUS/],
    ['set-ex', words(9, 28, 1, 0, 0, 0, 0), /RNDIS SET_EX/],
    ['a completion', words(0x8000_0004, 24, 1, 0, 0, 0), /RNDIS QUERY_COMPLETE/],
    ['an unknown message', words(0x77, 12, 0), /RNDIS 0x77/],
    ['a second initialize', words(2, 24, 2, 1, 0, 0x4000), /INITIALIZE came twice/],
    ['a short query', words(4, 12, 1), /RNDIS_QUERY: expected 28 bytes/],
    ['a short set', words(5, 24, 1, 0x1010e, 4, 20), /RNDIS_SET: expected 28 bytes/],
    ['a keepalive without an id', words(8, 8), /RNDIS_KEEPALIVE: expected 12 bytes/],
  ].map(
    ([name, message, reason]): GuestRow => ({
      name: `RNDIS: ${name}`,
      act: (guest) => guest.putRndis(message as Uint8Array),
      outcome: { dead: reason as RegExp },
    }),
  ),
  ...[0, 7, 29, 0xffff_ffff].map(
    (length): GuestRow => ({
      name: `control message of length ${length}`,
      act: (guest) => guest.putRndis(words(4, length, 1, 0x10101, 0, 20, 0)),
      outcome: { refused: 'CONTROL_BUSY' },
    }),
  ),
  {
    name: 'unknown OIDs, sets of nothing, inputs past the end',
    act: (guest) => {
      assert.equal(guest.query(0xdead_beef).status, 0xc000_00bb);
      assert.equal(guest.set(0xdead_beef, words(1)), 0xc000_00bb);
      for (const oid of [0x1010e, 0xfc01_020c, 0x1021b]) assert.notEqual(guest.set(oid, new Uint8Array(0)), 0);
      const answer = guest.rndis(words(4, 28, 5, 0x10106, 0xffff_ffff, 0xffff_ffff, 0));
      assert.equal(answer.length, 28);
    },
    outcome: { alive: true },
  },
  {
    name: 'control messages without end',
    act: (guest, { nic, step }) => {
      const query = concat(words(4, 6000, 1, 0x10101, 0, 20, 0), new Uint8Array(6000 - 28));
      const { refused } = nic.state().control;
      const ids = Array.from({ length: 60 }, () => {
        const id = guest.putRndis(query);
        step();
        return id;
      });
      const packets = guest.all();
      const status = (id: bigint) => packets.find((packet) => packet.type === 11 && packet.id === id)?.payload[4];
      assert.equal(status(ids[0]!), 1);
      assert.equal(status(ids.at(-1)!), 2, 'the last one is refused');
      assert.ok(nic.state().control.refused > refused);
      assert.equal(nic.state().lastFrameError, 'CONTROL_BUSY');
      // 16 answers are out; each one given back lets a waiting request be served.
      let answers = packets.filter((packet) => packet.type === 7);
      for (let seen = answers.length; answers.length > 0; seen += answers.length) {
        assert.ok(seen <= 60);
        for (const { id } of answers) guest.put(11, 0, id, words(108, 1));
        step();
        answers = guest.all();
      }
      assert.equal(nic.state().control.waiting, 0);
    },
    outcome: { alive: true },
  },
];

export const RNDIS_ROWS: readonly GuestRow[] = [...MESSAGE_ROWS, ...INFO_ROWS, ...RANGE_ROWS, ...CONTROL_ROWS];
