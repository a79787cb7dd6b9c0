import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildPacket, checksumField } from '../offload/offload-testing.js';
import { nicMac } from './identity.js';
import { frame, info, packet, type Received, receive } from './raw-frames-testing.js';
import { concat, createRig, hexBytes, type Rig, words } from './raw-guest-testing.js';

const V61 = 0x60001;
const MAC = [nicMac('test', 0), nicMac('test', 1), nicMac('test', 2)] as const;
const BROADCAST = hexBytes('ffffffffffff');

function send(rig: Rig, index: number, message: Uint8Array): number {
  const guest = rig.guests[index]!;
  const id = guest.putRndis(message, 0);
  rig.step();
  return guest.completion(id);
}

test('frames go where their address is, as one VLAN-aware switch port each', (t) => {
  const rig = createRig(t, { nics: [{}, {}, {}] });
  for (const guest of rig.guests) guest.attach(V61);
  const [, second, third] = rig.guests;
  const unicast = frame(MAC[1], MAC[0], 60);
  assert.equal(send(rig, 0, packet(unicast)), 1);
  const seen = receive(second!);
  assert.deepEqual(
    seen.map(({ data }) => data),
    [unicast],
  );
  assert.deepEqual(seen[0]!.infos, { 0: 0 }, 'the checksum info is always there');
  assert.equal(third!.take(), undefined);

  const tagged = frame(BROADCAST, MAC[0], 1514);
  assert.equal(send(rig, 0, packet(tagged, info(6, (7 << 4) | 5))), 1);
  for (const guest of [second!, third!]) {
    const [got] = receive(guest);
    assert.deepEqual(got!.data, tagged);
    assert.deepEqual(got!.infos, { 0: 0, 6: (7 << 4) | 5 });
  }
  rig.step();
  const { counters, receiveBuffer } = rig.host.nics[1]!.state();
  assert.deepEqual([counters.rxPackets, counters.rxBytes, counters.rxVlan], [2, 60 + 1514, 1]);
  assert.equal(receiveBuffer.inUse, 0);
  const sender = rig.host.nics[0]!.state().counters;
  assert.deepEqual([sender.txPackets, sender.txBytes, sender.txVlan, sender.txFailed], [2, 60 + 1514, 1, 0]);
});

test('several packets in one message; one bad one and none goes, with status 2, and the channel lives', (t) => {
  const rig = createRig(t, { nics: [{}, {}] });
  for (const guest of rig.guests) guest.attach(V61);
  const some = [60, 61, 1514].map((bytes) => packet(frame(MAC[1], MAC[0], bytes)));
  assert.equal(send(rig, 0, concat(...some)), 1);
  assert.deepEqual(
    receive(rig.guests[1]!).map(({ data }) => data.length),
    [60, 61, 1514],
  );
  const bad: readonly [string, Uint8Array, string][] = [
    ['second length 0', concat(some[0]!, words(1, 0), new Uint8Array(36)), 'MESSAGE_LENGTH'],
    ['second is control', concat(some[0]!, words(8, 44), new Uint8Array(36)), 'MESSAGE_TYPE'],
    ['trailing junk', concat(some[0]!, new Uint8Array(5)), 'MESSAGE_LENGTH'],
    ['out of band data', concat(words(1, 104, 36, 60, 1, 0, 0, 0, 0, 0, 0), new Uint8Array(60)), 'OUT_OF_BAND'],
    ['no data', concat(words(1, 104, 36, 0, 0, 0, 0, 0, 0, 0, 0), new Uint8Array(60)), 'DATA_RANGE'],
    ['data past the end', concat(words(1, 104, 36, 61, 0, 0, 0, 0, 0, 0, 0), new Uint8Array(60)), 'DATA_RANGE'],
    ['info past the end', concat(words(1, 104, 36, 60, 0, 0, 0, 90, 16, 0, 0), new Uint8Array(60)), 'PPI_RANGE'],
    ['info of size 0', packet(frame(MAC[1], MAC[0], 60), words(0, 0, 12, 0)), 'PPI_SIZE'],
    ['TCP header in the Ethernet header', packet(frame(MAC[1], MAC[0], 60), info(0, 5 | (13 << 16))), 'HEADER_OFFSET'],
    ['frame beyond the MTU', packet(frame(MAC[1], MAC[0], 1515)), 'FRAME_LENGTH'],
  ];
  for (const [name, message, error] of bad) {
    assert.equal(send(rig, 0, message), 2, name);
    assert.equal(rig.host.nics[0]!.state().lastFrameError, error, name);
    assert.equal(rig.guests[1]!.take(), undefined, name);
  }
  assert.equal(rig.host.nics[0]!.phase, 'ready');
  assert.equal(send(rig, 0, some[0]!), 1);
  assert.equal(receive(rig.guests[1]!).length, 1);
});

test('a burst for a guest of NDIS 5 comes in packets of at most 64 ranges', (t) => {
  for (const [major, packets] of [
    [5, 2],
    [6, 1],
  ] as const) {
    const rig = createRig(t, { nics: [{}, {}] });
    const [first, second] = rig.guests;
    first!.attach(V61);
    second!.open();
    second!.init(V61);
    second!.config(1514);
    second!.ndisVersion(major, 0);
    second!.receiveBuffer();
    second!.sendBuffer();
    second!.initialize();
    second!.set(0x0001010e, words(1));
    const one = packet(frame(MAC[1], MAC[0], 60)); // a hundred of them, in one message
    assert.equal(send(rig, 0, concat(...Array.from({ length: 100 }, () => one))), 1);
    const came = second!.all();
    assert.deepEqual([came.length, came.reduce((n, { ranges }) => n + ranges.length, 0)], [packets, 100]);
    rig.close();
  }
});

test('nothing is delivered before a packet filter, without a link, or to a NIC without a guest', (t) => {
  const rig = createRig(t, { nics: [{}, {}] });
  const [first, second] = rig.guests;
  first!.attach(V61);
  const message = packet(frame(BROADCAST, MAC[0], 60));
  assert.equal(send(rig, 0, message), 1, 'nobody there');
  second!.attach(V61, { filter: 0 });
  assert.equal(send(rig, 0, message), 1);
  assert.equal(second!.take(), undefined);
  second!.set(0x0001010e, words(8));
  send(rig, 0, message);
  send(rig, 0, packet(frame(MAC[1], MAC[0], 60)));
  assert.deepEqual(
    receive(second!).map(({ data }) => data[0]),
    [0xff],
    'broadcast only, as the filter says',
  );
  rig.host.nics[1]!.setLink(false);
  send(rig, 0, message);
  assert.ok(second!.control());
  assert.equal(second!.take(), undefined);
  rig.host.nics[1]!.setLink(true);
  rig.step();
  second!.control();
  rig.host.nics[0]!.setLink(false);
  rig.step();
  first!.control();
  assert.equal(send(rig, 0, message), 1, 'accepted, and dropped by the switch');
  assert.equal(second!.take(), undefined);
});

/** Ethernet, IPv4, TCP with `bytes` of payload; lengths as LSO senders leave them. */
function tcp(bytes: number): Uint8Array {
  const ip = hexBytes('4500000000004000400600000a0000010a000002');
  const header = hexBytes('1111222200000001000000005018ffff00000000');
  const payload = Uint8Array.from({ length: bytes }, (_, i) => i * 7);
  return concat(MAC[1], MAC[0], hexBytes('0800'), ip, header, payload);
}
const LSO = (mss: number) => info(2, mss | (34 << 20));

/** Payloads behind 54 bytes of headers, put together. */
const payload = (frames: readonly Received[]) => Buffer.concat(frames.map(({ data }) => data.subarray(54)));

test('an LSO packet is cut for a guest without coalesced receives, and passes whole to one that has them', (t) => {
  const rig = createRig(t, { nics: [{}, {}], receiveBytes: 1 << 20 });
  const [first, second] = rig.guests;
  first!.attach(V61);
  second!.attach(V61, { capabilities: 0x88 });
  const whole = tcp(5000);
  assert.equal(send(rig, 0, packet(whole, LSO(1460))), 1);
  const cut = receive(second!);
  assert.deepEqual(
    cut.map(({ data }) => data.length),
    [1514, 1514, 1514, 54 + 620],
  );
  assert.deepEqual(payload(cut), Buffer.from(whole.subarray(54)));
  for (const { data, infos } of cut) {
    assert.equal((data[16]! << 8) | data[17]!, data.length - 14, 'IP length filled in');
    assert.equal(infos[0]! & 0x3f, 0x28, 'TCP and IP checksums good');
  }
  const on = Uint8Array.from([0x80, 3, 28, 0, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0]);
  assert.equal(second!.set(0xfc01020c, on), 0);
  second!.control();
  send(rig, 0, packet(whole, LSO(1460)));
  const pieces = receive(second!);
  assert.deepEqual(
    pieces.map(({ data }) => data.length),
    [1514, 1460, 1460, 620],
    'a segment each',
  );
  assert.equal(pieces[0]!.infos[22], 4, 'and how many they are');
  const again = Buffer.concat(pieces.map(({ data }) => data));
  assert.deepEqual(again.subarray(54), Buffer.from(whole.subarray(54)));
  assert.equal(again.readUInt16BE(16), 5040);
  assert.equal(rig.host.nics[1]!.state().counters.rxCoalesced, 1);
  assert.deepEqual(rig.host.nics[1]!.state().workshop, { segmented: 1, segments: 4, checksummed: 0, refused: 0 });
});

/** NDIS_OFFLOAD_PARAMETERS of revision 3: checksums both ways, LSO off, RSC as it says (1 off, 2 on). */
const offloads = (rsc: number) =>
  Uint8Array.from([0x80, 3, 28, 0, 4, 4, 4, 4, 4, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, rsc, rsc, 0, 0, 0, 0]);

/** `count` segments of a connection in one message, their checksums left to the NIC. */
function segments(count: number, bytes: number): Uint8Array {
  const one = (i: number) => {
    const frame = tcp(bytes);
    const view = new DataView(frame.buffer);
    view.setUint16(16, 40 + bytes);
    view.setUint32(38, 1 + i * bytes);
    frame.fill(i, 54);
    return packet(frame, info(0, 0x1 | 0x4 | 0x10 | (34 << 16)));
  };
  return concat(...Array.from({ length: count }, (_, i) => one(i)));
}

test('segments of a burst are one packet for a guest that has switched that on, until it switches it off', (t) => {
  const rig = createRig(t, { nics: [{}, {}], receiveBytes: 1 << 20 });
  const [first, second] = rig.guests;
  first!.attach(V61);
  second!.attach(V61, { capabilities: 0x88 });
  const message = segments(8, 1000);
  const deliver = () => {
    assert.equal(send(rig, 0, message), 1);
    return receive(second!);
  };
  const set = (rsc: number) => {
    assert.equal(second!.set(0xfc01020c, offloads(rsc)), 0);
    second!.control();
  };
  set(1);
  assert.deepEqual(
    deliver().map(({ data }) => data.length),
    new Array(8).fill(1054),
  );
  set(2);
  assert.equal(send(rig, 0, message), 1);
  const transfers = second!.all();
  assert.deepEqual(
    transfers.map(({ ranges }) => ranges.length),
    [8],
    'one transfer-page packet',
  );
  send(rig, 0, message);
  const pieces = receive(second!);
  assert.deepEqual(
    pieces.map(({ data }) => data.length),
    [1054, ...new Array(7).fill(1000)],
  );
  const ids = pieces.map(({ infos }) => infos[0x8000_0001]! >>> 8);
  assert.deepEqual(ids, [3, 1, 1, 1, 1, 1, 1, 5], 'first, in between, last');
  assert.deepEqual(
    pieces.map(({ infos }) => infos[22]),
    [8, ...new Array(7).fill(undefined)],
  );
  const whole = Buffer.concat(pieces.map(({ data }) => data));
  assert.equal(whole.readUInt16BE(16), 8040, 'IP length');
  assert.deepEqual([...new Set(whole.subarray(54))], [0, 1, 2, 3, 4, 5, 6, 7]);
  // Verified, the TCP checksum is not in it; the IP header's is.
  assert.equal(pieces[0]!.infos[0]! & 0x1ff, 0x8 | 0x80 | 0x20);
  const { counters, coalescing } = rig.host.nics[1]!.state();
  assert.deepEqual(coalescing, { coalescedPackets: 2, coalescedSegments: 16 });
  assert.deepEqual([counters.rxPackets, counters.rxCoalesced], [8 + 2, 2]);
  set(1);
  assert.equal(deliver().length, 8);
});

test('up to 562 pieces go in one transfer-page packet, as many as their segments; more than that have no segment each', (t) => {
  const rig = createRig(t, { nics: [{}, {}], receiveBytes: 4 << 20 });
  const [first, second] = rig.guests;
  first!.attach(V61);
  second!.attach(V61, { capabilities: 0x88 });
  assert.equal(second!.set(0xfc01020c, offloads(2)), 0);
  second!.control();
  const pieces = (message: Uint8Array) => {
    assert.equal(send(rig, 0, message), 1);
    const ranges = second!.all().map((transfer) => transfer.ranges.length);
    rig.step();
    return ranges;
  };
  assert.deepEqual(pieces(packet(tcp(56_200), LSO(100))), [562]);
  assert.deepEqual(pieces(packet(tcp(56_201), LSO(100))), [Math.ceil(56_255 / 1514)]);
  // The switch hands over 256 frames at once.
  assert.deepEqual(pieces(segments(500, 60)), [256, 244]);
});

test('nothing is coalesced for guests that did not negotiate it, by hosts that have none, or with too small a buffer', (t) => {
  for (const [profile, version, capabilities, receiveBytes] of [
    ['ws2019', V61, 0x08, 1 << 20],
    ['ws2019', 0x60000, 0x88, 1 << 20],
    ['ws2016', 0x50000, 0x88, 1 << 20],
    ['ws2019', V61, 0x88, 64 << 10],
  ] as const) {
    const rig = createRig(t, { nics: [{}, {}], profile, receiveBytes });
    const [first, second] = rig.guests;
    first!.attach(version);
    second!.attach(version, { capabilities });
    assert.equal(second!.set(0xfc01020c, offloads(2)), 0);
    second!.control();
    assert.equal(send(rig, 0, segments(3, 1000)), 1);
    assert.equal(receive(second!).length, 3, `${profile} ${version} ${receiveBytes}`);
    rig.close();
  }
});

test('checksums are finished for a guest that did not turn their offload on, and left to one that did', (t) => {
  const rig = createRig(t, { nics: [{}, {}] });
  for (const guest of rig.guests) guest.attach(V61);
  const unfinished = tcp(100);
  unfinished[17] = 140;
  const message = packet(unfinished, info(0, 0x1 | 0x4 | (34 << 16)));
  send(rig, 0, message);
  const [finished] = receive(rig.guests[1]!);
  assert.notDeepEqual(finished!.data.subarray(50, 52), unfinished.subarray(50, 52));
  assert.equal(finished!.infos[0], 0x8);
  const on = Uint8Array.from([0x80, 1, 20, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  rig.guests[1]!.set(0xfc01020c, on);
  rig.guests[1]!.control();
  send(rig, 0, message);
  const [left] = receive(rig.guests[1]!);
  assert.deepEqual(left!.data, unfinished);
  assert.equal(left!.infos[0], 0x8 | 0x80, 'good, but the value is not there');
});

test('a UDP checksum is finished for everyone, as no bit says that it is not there; it is known to be good then', (t) => {
  const rig = createRig(t, { nics: [{}, {}] });
  for (const guest of rig.guests) guest.attach(V61);
  const udp4 = { family: 4, protocol: 17, ipOptions: 0, tcpOptions: 0, payload: 40, tcpFlags: 0, seed: 1 } as const;
  const whole = buildPacket(udp4);
  const packetBytes = concat(MAC[1], MAC[0], whole.bytes.subarray(12));
  const open = packetBytes.slice();
  open.fill(0, checksumField(whole), checksumField(whole) + 2);
  const wanted = info(0, 1 | 8 | (whole.l4 << 16));
  assert.equal(send(rig, 0, packet(open, wanted)), 1);
  const [before] = receive(rig.guests[1]!);
  assert.deepEqual([before!.data, before!.infos[0]], [packetBytes, 0x10]);
  const on = Uint8Array.from([0x80, 1, 20, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  rig.guests[1]!.set(0xfc01020c, on);
  rig.guests[1]!.control();
  assert.equal(send(rig, 0, packet(open, wanted)), 1);
  const [after] = receive(rig.guests[1]!);
  assert.deepEqual([after!.data, after!.infos[0]], [packetBytes, 0x10]);
  // Said to be UDP, but it is not: passed on as it is, and nobody vouches for it.
  const other = concat(MAC[1], MAC[0], buildPacket({ ...udp4, protocol: 6 }).bytes.subarray(12));
  assert.equal(send(rig, 0, packet(other, wanted)), 1);
  const [unknown] = receive(rig.guests[1]!);
  assert.deepEqual([unknown!.data, unknown!.infos[0]], [other, 0]);
});

test('pages of the guest are mapped when they are first named; a page that cannot be seen is status 2', (t) => {
  const rig = createRig(t, { nics: [{}, {}] });
  for (const guest of rig.guests) guest.attach(V61);
  const [first, second] = rig.guests;
  const message = packet(frame(MAC[1], MAC[0], 1000));
  const id = first!.putRndisDirect(message);
  rig.step();
  assert.equal(first!.completion(id), 1);
  assert.equal(receive(second!).length, 1);
  assert.equal(rig.host.nics[0]!.state().guestPages.regions, 1);
  for (const pfn of [0n, 0xffff_ffffn, 0xffff_ffff_ffff_ffffn]) {
    const refused = first!.putRndisDirect(message, pfn);
    rig.step();
    assert.equal(first!.completion(refused), 2);
    assert.equal(rig.host.nics[0]!.state().lastFrameError, 'PAGE_MISSING');
  }
  const { refused, lastRefusal } = rig.host.nics[0]!.state().guestPages;
  assert.deepEqual(
    [refused, lastRefusal],
    [3, 'page ffffffffffffffff: not guest memory; nothing readable is there (pages are numbered by virtual address)'],
  );
  assert.equal(rig.host.nics[0]!.phase, 'ready');
});

test('when suballocations run out frames are dropped and counted; nothing is lost that was delivered', (t) => {
  const rig = createRig(t, { nics: [{}, {}], receiveBytes: 20 * 4096 });
  for (const guest of rig.guests) guest.attach(V61);
  const room = Math.floor((20 * 4096) / 1806) - 16;
  for (let i = 0; i < room + 5; i++) send(rig, 0, packet(frame(MAC[1], MAC[0], 60, i)));
  const { counters, receiveBuffer } = rig.host.nics[1]!.state();
  assert.deepEqual([counters.rxPackets, counters.rxNoSuballocation, receiveBuffer.inUse], [room, 5, room]);
  assert.deepEqual(
    receive(rig.guests[1]!).map(({ data }) => data[20]),
    Array.from({ length: room }, (_, i) => i),
  );
  rig.step();
  assert.equal(rig.host.nics[1]!.state().receiveBuffer.inUse, 0);
  send(rig, 0, packet(frame(MAC[1], MAC[0], 60)));
  assert.equal(receive(rig.guests[1]!).length, 1);
});

test('an error of the program in serving one guest kills that channel and says so', (t) => {
  const rig = createRig(t, { nics: [{}, {}] });
  for (const guest of rig.guests) guest.attach(V61);
  rig.host.switch.forward = () => {
    throw new TypeError('broken switch');
  };
  rig.guests[0]!.putRndis(packet(frame(MAC[1], MAC[0], 60)), 0);
  rig.step();
  const [broken, other] = rig.host.nics;
  assert.deepEqual([broken!.phase, broken!.state().reason], ['dead', 'internal error: broken switch']);
  assert.equal(other!.phase, 'ready');
  assert.equal(rig.guests[1]!.query(0x00010106).status, 0);
});
