import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { concat, createRig, type RawGuest, type Rig, word, words } from './raw-guest-testing.js';

const V5 = 0x50000;
const nvsp = (guest: RawGuest, ...cells: number[]) => guest.nvsp(words(...cells, ...new Array(8).fill(0)));

/** Opened, INIT granted. */
function inInit(guest: RawGuest, version = V5): void {
  guest.open();
  guest.init(version);
}

interface Fault {
  readonly name: string;
  /** What is done, in this order; the values do not matter. */
  readonly act: (rig: Rig) => unknown;
  readonly reason: RegExp;
}

const attached = (act: (guest: RawGuest, rig: Rig) => void) => (rig: Rig) => {
  rig.guest.attach(V5);
  act(rig.guest, rig);
  rig.step();
};

const FAULTS: readonly Fault[] = [
  { name: 'not INIT first', act: ({ guest }) => [guest.open(), nvsp(guest, 100, 6, 30)], reason: /SEND_NDIS_VERSION/ },
  {
    name: 'RNDIS packet in the version phase',
    act: ({ guest }) => [guest.open(), nvsp(guest, 107)],
    reason: /SEND_RNDIS_PACKET/,
  },
  { name: 'unknown number', act: ({ guest }) => [inInit(guest), nvsp(guest, 999)], reason: /got 999/ },
  {
    name: 'short message',
    act: ({ guest }) => [inInit(guest), guest.nvsp(words(125, 1514))],
    reason: /SEND_NDIS_CONFIG.*20 bytes/,
  },
  { name: 'INIT again', act: ({ guest }) => [inInit(guest), guest.init(V5)], reason: /INIT in the init phase/ },
  { name: 'INIT when ready', act: attached((guest) => guest.init(V5)), reason: /INIT in the ready phase/ },
  {
    name: 'config twice',
    act: ({ guest }) => [inInit(guest), guest.config(1514), guest.config(1514)],
    reason: /SEND_NDIS_CONFIG came twice/,
  },
  {
    name: 'config in version 1',
    act: ({ guest }) => [inInit(guest, 2), guest.config(1514)],
    reason: /SEND_NDIS_CONFIG/,
  },
  {
    name: 'NDIS version twice',
    act: ({ guest }) => [inInit(guest), guest.ndisVersion(6, 1), guest.ndisVersion(6, 1)],
    reason: /SEND_NDIS_VERSION came twice/,
  },
  {
    name: 'receive buffer before config',
    act: ({ guest }) => [inInit(guest), guest.receiveBuffer()],
    reason: /before SEND_NDIS_CONFIG/,
  },
  {
    name: 'receive buffer twice',
    act: ({ guest }) => [inInit(guest), guest.config(1514), guest.receiveBuffer(), guest.receiveBuffer()],
    reason: /SEND_RECEIVE_BUFFER came twice/,
  },
  {
    name: 'unknown receive GPADL',
    act: ({ guest }) => [inInit(guest), guest.config(1514), guest.receiveBuffer(7)],
    reason: /GPADL 0x7 is not known, expected 0xe1e10/,
  },
  {
    name: 'receive GPADL as send buffer',
    act: ({ guest }) => [inInit(guest), guest.sendBuffer(0xe1e10)],
    reason: /send buffer: GPADL 0xe1e10/,
  },
  {
    name: 'send buffer twice',
    act: ({ guest }) => [inInit(guest), guest.sendBuffer(), guest.sendBuffer()],
    reason: /SEND_SEND_BUFFER came twice/,
  },
  {
    name: 'RNDIS before the receive buffer',
    act: ({ guest }) => [inInit(guest), guest.config(1514), nvsp(guest, 107, 1, 0xffffffff)],
    reason: /SEND_RNDIS_PACKET in the init phase: expected SEND_NDIS_VERSION, SEND_RECEIVE_BUFFER first/,
  },
  {
    name: 'send buffer after RNDIS',
    act: ({ guest, step }) => [
      inInit(guest),
      guest.config(1514),
      guest.ndisVersion(6, 30),
      guest.receiveBuffer(),
      guest.putRndisDirect(words(2, 24, 1, 1, 0, 0x4000)),
      step(),
      guest.all(),
      guest.sendBuffer(),
    ],
    reason: /SEND_SEND_BUFFER in the ready phase/,
  },
  {
    name: 'message newer than the version',
    act: ({ guest }) => [guest.attach(0x40000), nvsp(guest, 131, 0x80, 0x10101)],
    reason: /OID_QUERY_EX/,
  },
  { name: 'chimney message', act: attached((guest) => nvsp(guest, 109)), reason: /SEND_CHIMNEY_DELEGATED_BUFFER/ },
  { name: 'uplink state', act: attached((guest) => nvsp(guest, 130)), reason: /UPLINK_CONNECT_STATE/ },
  {
    name: 'a message of the host',
    act: attached((guest) => nvsp(guest, 105, 1, 6144)),
    reason: /SEND_SEND_BUFFER_COMPLETE/,
  },
  {
    name: 'VF association from the guest',
    act: attached((guest) => nvsp(guest, 128, 1, 1)),
    reason: /SEND_VF_ASSOCIATION/,
  },
  {
    name: 'section beyond the send buffer',
    act: attached((guest) => guest.put(6, 1, 1n, words(107, 0, 1000, 64))),
    reason: /BAD_SECTION, value 0x3e8/,
  },
  {
    name: 'section size beyond the send buffer',
    act: attached((guest) => guest.put(6, 1, 1n, words(107, 0, 0, 0xffffffff))),
    reason: /BAD_SECTION/,
  },
  {
    name: 'short RNDIS packet message',
    act: attached((guest) => guest.put(6, 1, 1n, words(107, 0))),
    reason: /NVSP_SHORT/,
  },
  {
    name: 'transfer pages from the guest',
    act: attached((guest) => guest.put(7, 1, 1n, words(107, 0, 0, 0), words(0xcafe, 0))),
    reason: /ring: TYPE/,
  },
  {
    name: 'completion of nothing',
    act: attached((guest) => guest.put(11, 0, 5n, words(108, 1))),
    reason: /UNKNOWN_TRANSACTION, value 0x5/,
  },
  {
    name: 'completion with a host transaction id',
    act: attached((guest) => guest.put(11, 0, 0x8000000000000000n, words(108, 1))),
    reason: /not in flight/,
  },
  {
    name: 'completion with another number',
    act: attached((guest) => guest.put(11, 0, 0n, words(105, 1))),
    reason: /NVSP_UNKNOWN, value 0x69/,
  },
  {
    name: 'completion before INIT',
    act: ({ guest, step }) => [guest.open(), guest.put(11, 0, 0n, words(108, 1)), step()],
    reason: /not in flight/,
  },
  {
    name: 'unknown packet type',
    act: attached((guest) => guest.put(8, 1, 1n, words(107, 0, 0, 0))),
    reason: /TYPE, value 0x8/,
  },
  { name: 'unknown flag', act: attached((guest) => guest.put(6, 3, 1n, words(107, 0, 0, 0))), reason: /FLAGS/ },
  {
    name: 'empty GPA range',
    act: attached((guest) => guest.put(9, 1, 1n, words(107, 0, 0xffffffff, 0), concat(words(0, 1, 0, 0), words(0, 0)))),
    reason: /GPA_RANGE/,
  },
  {
    name: 'no GPA range',
    act: attached((guest) => guest.put(9, 1, 1n, words(107, 0, 0xffffffff, 0), words(0, 0))),
    reason: /EXTENDED_HEADER/,
  },
  {
    name: 'write index out of the ring',
    act: attached((guest, rig) => {
      rig.arena.u32[guest.opened.transmit.control >>> 2] = 0x7fff0000;
    }),
    reason: /INVALID_POINTER/,
  },
  {
    name: 'RNDIS initialize twice',
    act: attached((guest) => guest.putRndis(words(2, 24, 2, 1, 0, 0x4000))),
    reason: /INITIALIZE came twice/,
  },
  { name: 'RNDIS reset', act: attached((guest) => guest.putRndis(words(6, 12, 0))), reason: /RNDIS RESET/ },
  {
    name: 'RNDIS indicate status',
    act: attached((guest) => guest.putRndis(words(7, 20, 0, 0, 0))),
    reason: /RNDIS INDICATE_STATUS/,
  },
  {
    name: 'RNDIS set-ex',
    act: attached((guest) => guest.putRndis(words(9, 28, 1, 0, 0, 0, 0))),
    reason: /RNDIS SET_EX/,
  },
  { name: 'unknown RNDIS message', act: attached((guest) => guest.putRndis(words(0x77, 12, 0))), reason: /RNDIS 0x77/ },
  {
    name: 'short RNDIS query',
    act: attached((guest) => guest.putRndis(words(4, 12, 1))),
    reason: /RNDIS_QUERY: expected 28 bytes/,
  },
];

/** After a fault: no answer to anything, the ring is not read, the other NIC works, and a new opening leads to Ready. */
function checkDead(t: TestContext, fault: Fault): void {
  const rig = createRig(t, { nics: [{}, {}] });
  const [nic, other] = rig.host.nics;
  const second = rig.guests[1]!;
  second.attach(V5);
  fault.act(rig);
  assert.equal(nic!.phase, 'dead', fault.name);
  assert.equal(nic!.filter, 0, fault.name);
  assert.match(nic!.state().reason!, fault.reason, fault.name);
  const { control } = rig.guest.opened.transmit;
  rig.guest.all();
  const out = rig.arena.u32[(control + 4) >>> 2]!;
  rig.guest.put(6, 1, 99n, words(1, V5, V5));
  rig.step();
  assert.equal(rig.arena.u32[(control + 4) >>> 2], out, `${fault.name}: the ring is not read`);
  assert.equal(rig.guest.take(), undefined);
  assert.equal(other!.phase, 'ready');
  assert.equal(second.query(0x00010106).status, 0);
  rig.guest.close();
  rig.guest.attach(V5);
  assert.equal(nic!.phase, 'ready', `${fault.name}: opened anew`);
  assert.equal(nic!.state().reason, undefined);
  rig.close();
}

test('every violation kills this channel only, with its name, until it is opened anew', (t) => {
  for (const fault of FAULTS) checkDead(t, fault);
});

test('without a send buffer RNDIS initialize ends the init phase, and any section is an error', (t) => {
  const { guest, host, step } = createRig(t);
  inInit(guest);
  guest.config(1514);
  guest.ndisVersion(6, 30);
  guest.receiveBuffer();
  assert.equal(host.nics[0]!.phase, 'init');
  const id = guest.putRndisDirect(words(2, 24, 3, 1, 0, 0x4000));
  step();
  assert.equal(guest.completion(id), 1);
  assert.equal(word(guest.control()!, 2), 3);
  assert.equal(host.nics[0]!.phase, 'ready');
  guest.putRndis(words(8, 12, 1));
  step();
  assert.match(host.nics[0]!.state().reason!, /BAD_SECTION, value 0x0/);
});

test('messages are taken in any order that is legal, completions only when asked for', (t) => {
  const { guest, host } = createRig(t);
  inInit(guest);
  guest.sendBuffer();
  guest.ndisVersion(6, 30);
  assert.equal(guest.config(9216, 8, 0), undefined);
  assert.equal(word(guest.receiveBuffer()!, 4), 256 + 9216 + 36);
  assert.equal(host.nics[0]!.phase, 'ready');
  assert.equal(host.nics[0]!.mtu, 9202);
});

test('an MTU out of bounds is taken as 1514', (t) => {
  for (const mtu of [0, 1513, 9217, 0xffffffff]) {
    const { guest, host, close } = createRig(t);
    inInit(guest);
    guest.config(mtu);
    assert.equal(host.nics[0]!.mtu, 1500);
    close();
  }
});

test('fewer than 10 suballocations are refused, 10 are enough; old guests get no more than 15 MiB', (t) => {
  const small = createRig(t, { receiveBytes: 16 * 4096 });
  inInit(small.guest);
  small.guest.config(9216);
  small.guest.receiveBuffer();
  assert.match(small.host.nics[0]!.state().reason!, /at least 10 suballocations of 9508 bytes, got 6/);
  small.close();
  const least = createRig(t, { receiveBytes: 10 * 9508 + 4095 });
  inInit(least.guest);
  least.guest.config(9216);
  assert.equal(word(least.guest.receiveBuffer()!, 5), 10);
  least.close();
  for (const [version, mib] of [
    [0x30002, 15],
    [V5, 16],
  ] as const) {
    const rig = createRig(t, { receiveBytes: 16 << 20 });
    inInit(rig.guest, version);
    rig.guest.config(1514);
    assert.equal(word(rig.guest.receiveBuffer()!, 5), Math.floor((mib << 20) / 1806));
    rig.close();
  }
});

test('messages in service: data path, OID query, subchannels; revoke ends it in order', (t) => {
  const { guest, host, step } = createRig(t);
  guest.attach(0x60001);
  assert.equal(nvsp(guest, 129, 1)!.length, 0);
  assert.deepEqual([...nvsp(guest, 131, 0, 0x10101)!.slice(0, 12)], [...words(132, 0xc00000bb, 0)]);
  assert.deepEqual([...nvsp(guest, 133, 1, 64)!.slice(0, 12)], [...words(133, 2, 0)]);
  assert.deepEqual([...nvsp(guest, 133, 1, 0xffffffff)!.slice(0, 12)], [...words(133, 2, 0)]);
  assert.deepEqual([...nvsp(guest, 133, 2, 0)!.slice(0, 12)], [...words(133, 2, 0)]);
  assert.deepEqual([...nvsp(guest, 133, 1, 0)!.slice(0, 12)], [...words(133, 1, 0)]);
  assert.equal(nvsp(guest, 103, 0xcafe), undefined);
  assert.equal(host.nics[0]!.phase, 'stopped');
  assert.match(host.nics[0]!.state().reason!, /REVOKE_RECEIVE_BUFFER/);
  guest.put(6, 1, 1n, words(106, 0, 0, 0, 0, 0, 0)); // is not read any more
  step();
  assert.equal(guest.take(), undefined);
  assert.equal(host.nics[0]!.state().deaths, 0);
  guest.close();
  guest.attach(V5);
  assert.equal(host.nics[0]!.phase, 'ready');
});

test('a guest that dies is forgotten; the next one finds a fresh NIC', (t) => {
  const { guest, host, bus, step } = createRig(t);
  guest.attach(0x60001, { mtu: 9014, filter: 0x20 });
  assert.equal(host.nics[0]!.filter, 0x20);
  bus.killGuest();
  step();
  assert.equal(host.nics[0]!.phase, 'closed');
  const { receiveBuffer, packetFilter, offloads, guestPages } = host.nics[0]!.state();
  assert.deepEqual([receiveBuffer.suballocations, packetFilter, offloads, guestPages.regions], [0, 0, ['VLAN'], 0]);
  for (let i = 0; i < 20; i++) {
    guest.attach(V5);
    assert.equal(host.nics[0]!.mtu, 1500);
    guest.close();
  }
  assert.equal(host.nics[0]!.state().opens, 21);
});
