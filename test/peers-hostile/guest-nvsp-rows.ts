// NVSP messages that are wrong, come at the wrong time or name what is not there (facts/hyper-v-host.md 3.2 to 3.4).
import assert from 'node:assert/strict';
import { type Packet, words } from '../../src/host/raw-guest-testing.js';
import { type GuestRow, padded } from './guest-rows.js';
import type { Attacker, TwoNics } from './two-nics.js';

const V1 = 2;
const V4 = 0x40000;
const V5 = 0x50000;
const dead = (reason: RegExp) => ({ dead: reason });

/** In-band, with a completion asked for. */
const say =
  (...cells: number[]) =>
  (guest: Attacker) =>
    guest.put(6, 1, 9n, padded(...cells));

/** Exactly these cells and nothing behind them. */
const exactly =
  (...cells: number[]) =>
  (guest: Attacker) =>
    guest.put(6, 1, 9n, words(...cells));

const complete =
  (id: bigint, ...cells: number[]) =>
  (guest: Attacker) =>
    guest.put(11, 0, id, words(...cells));

/** Two frames in one burst: their answers come as one chain of two suballocations. */
function chain(guest: Attacker, { step, nic }: TwoNics): { head: bigint; member: bigint } {
  const first = guest.data(guest.message());
  guest.put(6, 1, first + 1000n, words(107, 0, 0, guest.message().length));
  step();
  const chained = guest.all().find((packet: Packet) => packet.type === 7);
  assert.ok(chained && chained.ranges.length === 2, 'a chain of two');
  const bytes = nic.state().receiveBuffer.suballocationBytes;
  return { head: chained.id, member: BigInt(chained.ranges[1]!.offset / bytes) };
}

/** An RNDIS answer that the guest has not given back yet: its suballocation. */
function unreturned(guest: Attacker, { step }: TwoNics): bigint {
  guest.putRndis(words(8, 12, 1));
  step();
  const packet = guest.all().find((one: Packet) => one.type === 7);
  assert.ok(packet);
  return packet.id;
}

const SHORT: readonly [string, number[], GuestRow['from'] | undefined][] = [
  ['INIT', [1, V5], 'opened'],
  ['SEND_NDIS_CONFIG', [125, 1514], 'init'],
  ['SEND_NDIS_VERSION', [100, 6], 'init'],
  ['SEND_RECEIVE_BUFFER', [101], 'configured'],
  ['SEND_SEND_BUFFER', [104], 'configured'],
  ['SUBCHANNEL', [133], undefined],
  ['OID_QUERY_EX', [131], undefined],
];

export const NVSP_ROWS: readonly GuestRow[] = [
  ...[0, 3, 99, 200, 999, 0xffff_ffff].map(
    (id): GuestRow => ({
      name: `NVSP message ${id}`,
      act: say(id),
      outcome: dead(new RegExp(`got (0x${id.toString(16)}|${id})`)),
    }),
  ),
  { name: 'NVSP message of no bytes', act: (guest) => guest.put(6, 1, 9n, new Uint8Array(0)), outcome: dead(/NVSP/) },
  ...SHORT.map(
    ([name, cells, from]): GuestRow => ({
      name: `short ${name}`,
      ...(from ? { from } : {}),
      act: exactly(...cells),
      outcome: dead(new RegExp(`${name}.*expected \\d+ bytes`)),
    }),
  ),
  { name: 'short SEND_RNDIS_PACKET', act: exactly(107, 0), outcome: dead(/^ring: NVSP_SHORT, value 0x8/) },
  { name: 'OID query in version 4', version: V4, act: say(131, 0x80, 0x10101), outcome: dead(/OID_QUERY_EX/) },
  { name: 'subchannel in version 4', version: V4, act: say(133, 1, 1), outcome: dead(/SUBCHANNEL/) },
  { name: 'config in version 1', from: 'init', version: V1, act: say(125, 1514), outcome: dead(/SEND_NDIS_CONFIG/) },
  { name: 'INIT twice', from: 'init', act: say(1, V5, V5), outcome: dead(/INIT in the init phase/) },
  { name: 'INIT when attached', act: say(1, V5, V5), outcome: dead(/INIT in the ready phase/) },
  { name: 'config twice', from: 'configured', act: say(125, 1514), outcome: dead(/SEND_NDIS_CONFIG came twice/) },
  { name: 'config when attached', act: say(125, 1514), outcome: dead(/SEND_NDIS_CONFIG in the ready phase/) },
  {
    name: 'NDIS version twice',
    from: 'init',
    act: (guest) => [guest.ndisVersion(6, 30), guest.ndisVersion(6, 30)],
    outcome: dead(/SEND_NDIS_VERSION came twice/),
  },
  {
    name: 'receive buffer twice',
    from: 'configured',
    act: (guest) => [guest.receiveBuffer(), guest.receiveBuffer()],
    outcome: dead(/SEND_RECEIVE_BUFFER came twice/),
  },
  {
    name: 'send buffer twice',
    from: 'configured',
    act: (guest) => [guest.sendBuffer(), guest.sendBuffer()],
    outcome: dead(/SEND_SEND_BUFFER came twice/),
  },
  {
    name: 'receive buffer before config',
    from: 'init',
    act: (guest) => guest.receiveBuffer(),
    outcome: dead(/before SEND_NDIS_CONFIG/),
  },
  { name: 'version before INIT', from: 'opened', act: say(100, 6, 30), outcome: dead(/SEND_NDIS_VERSION/) },
  { name: 'data before INIT', from: 'opened', act: say(107, 0, 0xffff_ffff), outcome: dead(/SEND_RNDIS_PACKET/) },
  {
    name: 'data before the buffers',
    from: 'configured',
    act: say(107, 0, 0, 100),
    outcome: dead(/SEND_RNDIS_PACKET in the init phase/),
  },
  {
    name: 'unknown receive GPADL',
    from: 'configured',
    act: (guest) => guest.receiveBuffer(0xbad),
    outcome: dead(/receive buffer: GPADL 0xbad/),
  },
  {
    name: 'GPADL 0',
    from: 'configured',
    act: (guest) => guest.receiveBuffer(0),
    outcome: dead(/receive buffer: GPADL 0x0/),
  },
  {
    name: 'send GPADL as receive buffer',
    from: 'configured',
    act: (guest) => guest.receiveBuffer(guest.opened.sendBuffer.gpadl),
    outcome: dead(/receive buffer: GPADL/),
  },
  {
    name: 'GPADL of the other NIC',
    from: 'configured',
    act: (guest, { host }) => guest.sendBuffer(host.nics[1]!.offer.sendBuffer.gpadl),
    outcome: dead(/send buffer: GPADL/),
  },
  { name: 'revoked receive buffer', act: say(103, 0xcafe), outcome: { stopped: /REVOKE_RECEIVE_BUFFER/ } },
  { name: 'revoked send buffer', act: say(106, 0), outcome: { stopped: /REVOKE_SEND_BUFFER/ } },
  {
    name: 'revoke before there is a buffer',
    from: 'init',
    act: say(103, 0xcafe),
    outcome: dead(/REVOKE_RECEIVE_BUFFER in the init phase/),
  },
  {
    name: 'section beyond the send buffer',
    act: exactly(107, 0, 43, 64),
    outcome: dead(/^ring: BAD_SECTION, value 0x2b/),
  },
  { name: 'section number that wraps', act: exactly(107, 0, 0x0aaa_aaab, 64), outcome: dead(/BAD_SECTION/) },
  {
    name: 'section size beyond the send buffer',
    act: exactly(107, 0, 0, (256 << 10) + 1),
    outcome: dead(/BAD_SECTION/),
  },
  { name: 'section size that wraps', act: exactly(107, 0, 1, 0xffff_ffff), outcome: dead(/BAD_SECTION/) },
  { name: 'a message nobody describes', act: say(110), outcome: dead(/SEND_CHIMNEY_DELEGATED_BUFFER_COMPLETE/) },
  { name: 'an indirection table', act: say(134, 16, 12), outcome: dead(/SEND_INDIRECTION_TABLE/) },
  { name: 'a host’s message', act: say(102, 1), outcome: dead(/SEND_RECEIVE_BUFFER_COMPLETE/) },
  { name: 'VF association', act: say(128, 1, 7), outcome: dead(/SEND_VF_ASSOCIATION/) },
  {
    name: 'subchannels nobody can have',
    act: (guest, { step }) => {
      for (const count of [0xffff_ffff, 65, 0x8000_0000]) {
        const answer = guest.nvsp(padded(133, 1, count));
        assert.deepEqual([...answer!.slice(0, 12)], [...words(133, 2, 0)]);
      }
      step();
    },
    outcome: { alive: true },
  },
  {
    name: 'completion of nothing',
    act: complete(200n, 108, 1),
    outcome: dead(/^ring: UNKNOWN_TRANSACTION, value 0xc8/),
  },
  { name: 'completion far outside', act: complete(0xffff_ffffn, 108, 1), outcome: dead(/UNKNOWN_TRANSACTION/) },
  { name: 'completion with a high word', act: complete(1n << 32n, 108, 1), outcome: dead(/0x1:0: not in flight/) },
  {
    name: 'completion of a control suballocation that is free',
    act: complete(0n, 108, 1),
    outcome: dead(/UNKNOWN_TRANSACTION/),
  },
  { name: 'completion before INIT', from: 'opened', act: complete(0n, 108, 1), outcome: dead(/not in flight/) },
  {
    name: 'the same completion twice',
    act: (guest, rig) => {
      const id = unreturned(guest, rig);
      complete(id, 108, 1)(guest);
      rig.step();
      assert.equal(rig.nic.phase, 'ready');
      complete(id, 108, 1)(guest);
    },
    outcome: dead(/UNKNOWN_TRANSACTION/),
  },
  {
    name: 'completion with another message',
    act: (guest, rig) => complete(unreturned(guest, rig), 105, 1)(guest),
    outcome: dead(/^ring: NVSP_UNKNOWN, value 0x69/),
  },
  {
    name: 'empty completion',
    act: (guest, rig) => complete(unreturned(guest, rig))(guest),
    outcome: dead(/^ring: NVSP_SHORT, value 0x0/),
  },
  {
    name: 'completion of a chain’s second member',
    act: (guest, rig) => complete(chain(guest, rig).member, 108, 1)(guest),
    outcome: dead(/UNKNOWN_TRANSACTION/),
  },
  {
    name: 'completion of a chain, then of its member',
    act: (guest, rig) => {
      const { head, member } = chain(guest, rig);
      complete(head, 108, 1)(guest);
      rig.step();
      assert.equal(rig.nic.phase, 'ready');
      assert.equal(rig.nic.state().receiveBuffer.inUse, 0);
      complete(member, 108, 1)(guest);
    },
    outcome: dead(/UNKNOWN_TRANSACTION/),
  },
];
