// Completions, NVSP messages and RNDIS control messages of a host that are wrong or that nobody asked for, and answers
// at attach that make no sense.
import { indication, packet, queryReply, words } from '../../src/netvsc/fake-host.js';
import { type AttachRow, CONTROL_TRANSACTION, deliver, type HostRow, TX_TRANSACTION } from './host-rows.js';
import { BUFFER_BYTES, type TwoDevices } from './two-devices.js';

const OK = words(108, 1, 0, 0, 0, 0, 0, 0);

/** Completes this transaction with this payload. */
const completion = (idLow: number, idHigh: number, payload: Uint8Array) =>
  packet(11, 0, idLow, idHigh, new Uint8Array(0), payload);

/** A data send whose completion the host holds back; `reply` then writes what it likes. */
const held =
  (reply: (rig: TwoDevices, id: { low: number; high: number }) => void) =>
  async (rig: TwoDevices): Promise<void> => {
    rig.host.holdSends = true;
    rig.victim.send();
    for (let i = 0; i < 10 && rig.host.held.length === 0; i++) await rig.turn();
    reply(rig, rig.host.held.shift()!);
    rig.host.holdSends = false;
  };

const wrongCompletion = (name: string, payload: Uint8Array): HostRow => ({
  name,
  act: held(({ host }, { low, high }) => {
    host.write(completion(low, high, payload));
    host.write(completion(low, high, OK)); // the right one still counts
  }),
  counts: { txUnknownTransaction: 1 },
});

const unexpected = (name: string, idLow: number, idHigh: number, payload: Uint8Array): HostRow => ({
  name,
  act: ({ host }) => host.write(completion(idLow, idHigh, payload)),
  counts: { unexpectedReplies: 1 },
});

const nvsp = (name: string, ...cells: number[]): HostRow => ({
  name,
  act: ({ host }) => host.inBand(words(...cells), 5, 0, true),
  counts: { badHostMessages: 1 },
});

const control = (name: string, counter: string, bytes: Uint8Array): HostRow => ({
  name,
  act: deliver(bytes),
  counts: { [counter]: 1 },
  completion: 1,
});

export const HOST_CONTROL_ROWS: readonly HostRow[] = [
  {
    name: 'completion of a slot that does not exist',
    act: ({ host }) => host.write(completion(0xffff, TX_TRANSACTION, OK)),
    counts: { txUnknownTransaction: 1 },
  },
  {
    name: 'completion of a send that is not in flight',
    act: ({ host }) => host.write(completion(0x8000_0000, TX_TRANSACTION, OK)),
    counts: { txUnknownTransaction: 1 },
  },
  {
    name: 'the same completion twice',
    act: held(({ host }, { low, high }) => {
      host.write(completion(low, high, OK));
      host.write(completion(low, high, OK));
    }),
    counts: { txUnknownTransaction: 1 },
  },
  wrongCompletion('a send completed with an init answer', words(2, 0xffff_ffff, 34, 1, 0, 0, 0, 0)),
  wrongCompletion('a send completed with a buffer answer', words(102, 1, 1, 0, 1806, 290, 0, 0)),
  wrongCompletion('a send completed with nothing', new Uint8Array(0)),
  {
    name: 'a send completed with a failure',
    act: held(({ host }, { low, high }) => host.write(completion(low, high, words(108, 2)))),
    counts: { txFailed: 1 },
  },
  {
    name: 'a send completed with another generation',
    act: held(({ host }, { low, high }) => {
      host.write(completion((low ^ 0x10000) >>> 0, high, OK));
      host.write(completion(low, high, OK));
    }),
    counts: { txUnknownTransaction: 1 },
  },
  unexpected('a control transaction that nobody waits for', 12_345, CONTROL_TRANSACTION, OK),
  unexpected('a control transaction 0', 0, CONTROL_TRANSACTION, OK),
  unexpected('a transaction of no kind', 1, 0, OK),
  unexpected('a transaction of no kind, empty', 1, 0x4e54_0003, new Uint8Array(0)),
  {
    name: 'data and control ids swapped',
    act: held(({ host }, { low, high }) => {
      host.write(completion(low, CONTROL_TRANSACTION, OK));
      host.write(completion(low, high, OK));
    }),
    counts: { unexpectedReplies: 1 },
  },
  nvsp('an NVSP message of no kind', 999),
  nvsp('an NVSP message of a guest', 107, 0, 0, 0),
  nvsp('an NVSP message without a number'),
  nvsp('a short VF association', 128),
  nvsp('a send table of 17 entries', 134, 17, 12, ...new Array<number>(17).fill(0)),
  nvsp('a send table past the message', 134, 16, 0xffff_fff0, ...new Array<number>(16).fill(0)),
  nvsp('a send table without entries', 134, 16, 12),
  control('a control message without an id', 'badHostMessages', words(8, 8)),
  control('a request that only guests make', 'badHostMessages', words(4, 28, 1, 0x10106, 0, 0, 0)),
  control('a message of no kind', 'badHostMessages', words(0x77, 12, 0)),
  control('an answer that nobody waits for', 'unexpectedReplies', queryReply(0xdead, words(1))),
  control('a short indication', 'badIndications', words(7, 16, 0x4001_000b, 0)),
  control('an indication with its data past the end', 'badIndications', words(7, 20, 0x4001_000b, 4, 12)),
  control('an indication with its data in the header', 'badIndications', words(7, 24, 0x4001_000b, 4, 4, 0)),
  control('an indication whose offset wraps', 'badIndications', words(7, 24, 0x4001_000b, 16, 0xffff_fff0, 0)),
  control('a link speed without a number', 'badIndications', indication(0x4001_0013)),
  control('an offload configuration of junk', 'badIndications', indication(0x4002_0006, words(1, 2, 3))),
  { name: 'a control message of length 7', act: deliver(words(7, 7, 0)), counts: { rxBadRndis: 1 }, completion: 2 },
  { name: 'a control message past its range', act: deliver(words(7, 13, 0)), counts: { rxBadRndis: 1 }, completion: 2 },
];

const answer =
  (what: string, ...cells: number[]) =>
  (host: Parameters<AttachRow['act']>[0]): void => {
    host.answers.set(what, (_, request) => host.complete(request, words(...cells)));
  };

/** The usual answer, with cells of the RNDIS message changed. */
const reply =
  (what: string, build: (requestId: number) => Uint8Array) =>
  (host: Parameters<AttachRow['act']>[0]): void => {
    host.answers.set(what, (_, request) => {
      host.complete(request, OK);
      host.rndis(build(request.requestId));
    });
  };

const initialized = (id: number, maxPackets: number, transfer: number, factor: number, status = 0) =>
  words(0x8000_0002, 52, id, status, 1, 0, 1, 0, maxPackets, transfer, factor, 0, 0);
const INIT = 'rndis 2';
const MAC = 'query 1010101';

export const ATTACH_ROWS: readonly AttachRow[] = [
  {
    name: 'init answered with a buffer answer',
    act: answer('nvsp 1', 102, 1, 1, 0, 1806, 1, 0),
    error: /NVSP init 0x60001: expected init complete/,
  },
  {
    name: 'init answered with a data completion',
    act: answer('nvsp 1', 108, 1),
    error: /NVSP init 0x60001: expected init complete/,
  },
  {
    name: 'init answered with eight bytes',
    act: (host) =>
      host.answers.set('nvsp 1', (_, { idLow, idHigh }) => host.write(completion(idLow, idHigh, words(2, 0)))),
    error: /NVSP init 0x60001: init complete has 8 bytes/,
  },
  {
    name: 'init answered with nothing',
    act: (host) =>
      host.answers.set('nvsp 1', (_, { idLow, idHigh }) => host.write(completion(idLow, idHigh, new Uint8Array(0)))),
    error: /NVSP init 0x60001: expected init complete/,
  },
  {
    name: 'init answered under another transaction',
    act: (host) =>
      host.answers.set('nvsp 1', (_, { idHigh }) => host.write(completion(0xbeef, idHigh, words(2, 0, 0, 1)))),
    error: /NVSP init 0x60001: no init complete/,
  },
  {
    name: 'init answered under a data transaction',
    act: (host) =>
      host.answers.set('nvsp 1', (_, { idLow }) => host.write(completion(idLow, TX_TRANSACTION, words(2, 0, 0, 1)))),
    error: /NVSP init 0x60001: no init complete/,
  },
  {
    name: 'receive buffer refused',
    act: answer('nvsp 101', 102, 2),
    error: /NVSP receive buffer: the host answered status 2/,
  },
  ...[0, 2, 0xffff_ffff].map(
    (sections): AttachRow => ({
      name: `${sections} section groups`,
      act: answer('nvsp 101', 102, 1, sections, 0, 1806, 200, 0),
      error: /expected 1 section group/,
    }),
  ),
  {
    name: 'sections that do not begin at 0',
    act: answer('nvsp 101', 102, 1, 1, 4096, 1806, 200, 0),
    error: /at offset 0, got 4096/,
  },
  ...(
    [
      [0, 290],
      [67, 290],
      [1806, 0],
      [1806, 291],
      [0xffff_ffff, 1],
      [0x10000, 0x10000],
      [0x8000_0000, 2],
      [BUFFER_BYTES + 1, 1],
    ] as const
  ).map(
    ([size, count]): AttachRow => ({
      name: `${count} receive sections of ${size} bytes`,
      act: answer('nvsp 101', 102, 1, 1, 0, size, count, 0),
      error: /NVSP receive buffer: expected sections/,
    }),
  ),
  ...[0, 67, BUFFER_BYTES + 1, 0xffff_ffff].map(
    (size): AttachRow => ({
      name: `send sections of ${size} bytes`,
      act: answer('nvsp 104', 105, 1, size),
      error: /NVSP send buffer: expected sections/,
    }),
  ),
  {
    name: 'one send section',
    act: answer('nvsp 104', 105, 1, BUFFER_BYTES),
    error: /NVSP send buffer: expected more than 1 sections/,
  },
  {
    name: 'RNDIS initialize refused',
    act: reply(INIT, (id) => initialized(id, 8, 0x4000, 3, 0xc000_0001)),
    error: /RNDIS status 0xc0000001/,
  },
  {
    name: 'RNDIS initialize answered to another id',
    act: reply(INIT, (id) => initialized(id + 1, 8, 0x4000, 3)),
    error: /RNDIS initialize: no initialize complete/,
  },
  {
    name: 'RNDIS initialize answered by another message',
    act: reply(INIT, (id) => queryReply(id, words(1))),
    error: /RNDIS initialize: expected initialize complete/,
  },
  {
    name: 'a short RNDIS initialize answer',
    act: reply(INIT, (id) => words(0x8000_0002, 16, id, 0)),
    error: /initialize complete has 16 bytes/,
  },
  ...[8, 31, 32, 0xffff_ffff].map(
    (factor): AttachRow => ({
      name: `alignment factor ${factor}`,
      act: reply(INIT, (id) => initialized(id, 8, 0x4000, factor)),
      error: /expected a packet alignment factor of 0..7/,
    }),
  ),
  {
    name: 'transfers of no bytes',
    act: reply(INIT, (id) => initialized(id, 8, 0, 3)),
    error: /expected transfers of at least/,
  },
  { name: 'no packets in a message', act: reply(INIT, (id) => initialized(id, 0, 0x4000, 3)) },
  { name: 'packets without end in a message', act: reply(INIT, (id) => initialized(id, 0xffff_ffff, 0xffff_ffff, 7)) },
  {
    name: 'a MAC address of 5 bytes',
    act: reply(MAC, (id) => queryReply(id, new Uint8Array(5))),
    error: /expected 6 bytes or more of OID 0x1010101, got 5/,
  },
  {
    name: 'a MAC address past the answer',
    act: reply(MAC, (id) => words(0x8000_0004, 24, id, 0, 6, 16)),
    error: /is not inside the answer/,
  },
  {
    name: 'a MAC address whose offset wraps',
    act: reply(MAC, (id) => words(0x8000_0004, 32, id, 0, 6, 0xffff_fffc, 0, 0)),
    error: /is not inside the answer/,
  },
  {
    name: 'a MAC address whose length wraps',
    act: reply(MAC, (id) => words(0x8000_0004, 32, id, 0, 0xffff_fff8, 16, 0, 0)),
    error: /is not inside the answer/,
  },
  {
    name: 'a MAC address in the header',
    act: reply(MAC, (id) => words(0x8000_0004, 32, id, 0, 6, 0, 0, 0)),
    error: /is not inside the answer/,
  },
  {
    name: 'a MAC address that is a set answer',
    act: reply(MAC, (id) => words(0x8000_0005, 16, id, 0)),
    error: /expected query complete/,
  },
  {
    name: 'a control message refused',
    act: (host) => host.answers.set(MAC, (_, request) => host.complete(request, words(108, 2))),
    error: /the host refused the RNDIS message: NVSP status 2/,
  },
  {
    name: 'a control message answered but never completed',
    act: (host) =>
      host.answers.set(MAC, (_, { requestId }) =>
        host.rndis(queryReply(requestId, Uint8Array.of(0, 0x15, 0x5d, 1, 2, 3))),
      ),
    error: /no /,
  },
  {
    name: 'offload capabilities of junk',
    act: reply('query fc01020d', (id) => queryReply(id, new Uint8Array(156))),
    error: /offload/i,
  },
  {
    name: 'offload parameters refused',
    act: reply('set fc01020c', (id) => words(0x8000_0005, 16, id, 0xc001_0015)),
    error: /RNDIS status 0xc0010015/,
  },
];
