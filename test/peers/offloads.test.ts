// What DPDK's driver asks our host to do for its packets, and what our host tells it of those that come: checksums, large
// sends, VLAN tags, frames of all lengths in one buffer or many.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { PACKET_FLAG } from '../../src/memory/layout.js';
import { buildPacket, checksumField, type Packet, type PacketSpec } from '../../src/offload/offload-testing.js';
import { transportChecksum } from '../../src/wire/checksum.js';
import { DPDKS, type Dpdk, MISSING_DPDK, Pmd, type PmdFrame, type PmdWords } from './dpdk.js';
import { addressed, macOf, type Rig, RX_OFFLOAD, STATION_MAC, startRig, TX_OFFLOAD } from './rig.js';

const { TX_IP_CHECKSUM, TX_TCP_CHECKSUM, TX_UDP_CHECKSUM, RX_IP_GOOD, RX_L4_GOOD, RX_L4_BAD } = PACKET_FLAG;
const ALL_TX = TX_OFFLOAD.IPV4_CKSUM | TX_OFFLOAD.UDP_CKSUM | TX_OFFLOAD.TCP_CKSUM | TX_OFFLOAD.TCP_TSO;
const ALL_RX = RX_OFFLOAD.IPV4_CKSUM | RX_OFFLOAD.UDP_CKSUM | RX_OFFLOAD.TCP_CKSUM;
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

for (const why of MISSING_DPDK) test("Offloads of DPDK's driver on our host", { skip: why }, () => {});

const BASE: PacketSpec = {
  family: 4,
  protocol: 17,
  ipOptions: 0,
  tcpOptions: 0,
  payload: 100,
  tcpFlags: 0x10,
  seed: 1,
};
const UDP_HEADERS = 42;
/** Every kind that has a checksum: IPv4 and IPv6, TCP and UDP, without and with options. */
const KINDS: readonly PacketSpec[] = ([4, 6] as const).flatMap((family) =>
  ([6, 17] as const).flatMap((protocol) =>
    [0, 3].map((ipOptions, i) => ({ ...BASE, family, protocol, ipOptions, tcpOptions: ipOptions, payload: 77 + i })),
  ),
);
const kindName = ({ family, protocol, ipOptions }: PacketSpec) =>
  `IPv${family} ${protocol === 6 ? 'TCP' : 'UDP'}${ipOptions > 0 ? ' with options' : ''}`;

interface Bench extends Rig {
  readonly pmd: Pmd;
  /** A frame from the station to the driver, or the other way. */
  toDriver(bytes: Uint8Array): Uint8Array;
  toStation(bytes: Uint8Array): Uint8Array;
  /** Sends what lies in an mbuf like that. */
  transmit(bytes: Uint8Array, words?: PmdWords): Promise<void>;
}

async function startBench(t: TestContext, dpdk: Dpdk, words: PmdWords = {}): Promise<Bench> {
  const rig = startRig(t, { station: true });
  const pmd = new Pmd(t, rig.machine, dpdk);
  await pmd.ready();
  await pmd.do('configure', words);
  await pmd.do('start');
  const mac = macOf(rig.nic);
  return {
    ...rig,
    pmd,
    toDriver: (bytes) => addressed(bytes, mac, STATION_MAC),
    toStation: (bytes) => addressed(bytes, STATION_MAC, mac),
    transmit: async (bytes, how = {}) => {
      await pmd.do('transmit', { flags: '', ...how, hex: hex(bytes) });
    },
  };
}

/** Nothing was refused or lost on either side, and both counted the same; then the driver goes. */
async function finish({ pmd, nic }: Bench): Promise<void> {
  const { txPackets } = nic.state().counters;
  // What it sent it counts when it hears of its completion, which it does when it receives.
  let stats = await pmd.numbers('stats');
  for (let i = 0; i < 100 && stats.opackets !== txPackets; i++) {
    assert.equal((await pmd.numbers('collect', { count: 1, ms: 5 })).received, 0);
    stats = await pmd.numbers('stats');
  }
  const { counters, deaths, guestPages } = nic.state();
  assert.deepEqual([stats.oerrors, stats.ierrors, stats.imissed, stats.nombuf], [0, 0, 0, 0]);
  assert.deepEqual([deaths, counters.txFailed, guestPages.refused], [0, 0, 0], guestPages.lastRefusal);
  assert.deepEqual([stats.opackets, stats.ipackets], [counters.txPackets, counters.rxPackets]);
  await pmd.end();
}

/** The header lengths that an mbuf tells its driver. */
const lengths = ({ l3, l4, payloadAt }: Packet) => ({ l2: l3, l3: l4 - l3, l4: payloadAt - l4 });

function flagsOf({ family, protocol }: PacketSpec, more: readonly string[] = []): string {
  const ip = family === 4 ? ['ipv4', 'ipsum'] : ['ipv6'];
  return [...ip, protocol === 6 ? 'tcpsum' : 'udpsum', ...more].join(',');
}

/** The packet as a stack leaves it that has its checksums filled in. */
function unfinished(packet: Packet): Uint8Array {
  const bytes = packet.bytes.slice();
  bytes.set([0xde, 0xad], checksumField(packet));
  if (packet.spec.family === 4) bytes.set([0xbe, 0xef], packet.l3 + 10);
  return bytes;
}

/** Flags of the driver that speak of checksums. */
const verdicts = ({ flags }: PmdFrame) => flags.filter((flag) => /good|bad/.test(flag)).join(' ');

for (const dpdk of DPDKS) {
  test(`DPDK ${dpdk.name}: frames of 60 to 1514 bytes in one buffer and in many, both ways, byte for byte`, async (t) => {
    const bench = await startBench(t, dpdk, { txoffloads: TX_OFFLOAD.MULTI_SEGS });
    const { pmd, station, nic } = bench;
    const packets = [60, 64, 65, 127, 511, 512, 513, 619, 620, 621, 1024, 1513, 1514].map((length, i) =>
      buildPacket({ ...BASE, payload: length - UDP_HEADERS, seed: i + 1 }),
    );
    // Cuts of 1500 and below make up to 2 to 25 buffers of a frame.
    for (const cut of [0, 1500, 700, 61]) {
      const sent = packets.map(({ bytes }) => bench.toStation(bytes));
      for (const bytes of sent) await bench.transmit(bytes, { cut });
      const seen = await station.got(sent.length);
      assert.deepEqual(
        seen.map(({ bytes }) => hex(bytes)),
        sent.map(hex),
      );
      assert.ok(seen.every(({ tci }) => tci === undefined));
    }
    assert.ok(nic.state().counters.txDirect! > 0, 'long ones are read from its memory');
    const sent = packets.map(({ bytes }) => bench.toDriver(bytes));
    station.send(...sent.map((bytes) => ({ bytes })), ...sent.map((bytes) => ({ bytes, cuts: [14, 34, 50] })));
    const got = await pmd.receive(2 * sent.length);
    assert.deepEqual(
      got.map(({ bytes }) => hex(bytes)),
      [...sent, ...sent].map(hex),
    );
    await finish(bench);
  });

  test(`DPDK ${dpdk.name}: VLAN tags go beside the packet, both ways, with every bit`, async (t) => {
    const bench = await startBench(t, dpdk, { rxoffloads: RX_OFFLOAD.VLAN_STRIP, txoffloads: TX_OFFLOAD.VLAN_INSERT });
    const { pmd, station } = bench;
    // id, priority, CFI: lowest and highest ids, a tag that is a priority only, all bits.
    const tcis = [0x0001, 0x0ffe, 0x0064, 0xe000, 0x1005, 0x2005, 0x8005, 0xfffe];
    const packet = bench.toStation(buildPacket(BASE).bytes);
    for (const tci of tcis) await bench.transmit(packet, { flags: 'vlan', tci });
    const seen = await station.got(tcis.length);
    assert.deepEqual(
      seen.map(({ tci }) => tci),
      tcis,
    );
    for (const { bytes } of seen) assert.equal(hex(bytes), hex(packet), 'the tag is not in its bytes');
    // A tag in the bytes that the driver is given is one, too: host or driver lift it out.
    await bench.transmit(bench.toStation(buildPacket({ ...BASE, tag: 0x6123 }).bytes));
    assert.deepEqual(
      (await station.got(1)).map(({ tci, bytes }) => [tci, bytes.length]),
      [[0x6123, packet.length]],
    );

    const back = bench.toDriver(buildPacket({ ...BASE, seed: 2 }).bytes);
    station.send(...tcis.map((tci) => ({ bytes: back, tci })), { bytes: back });
    const got = await pmd.receive(tcis.length + 1);
    assert.deepEqual(
      got.map(({ tci, flags }) => (flags.includes('vlan') ? tci : undefined)),
      [...tcis, undefined],
    );
    for (const { bytes } of got) assert.equal(hex(bytes), hex(back));
    assert.ok(got.slice(0, tcis.length).every(({ flags }) => flags.includes('stripped')));
    await finish(bench);
  });

  test(`DPDK ${dpdk.name}: without stripping, the driver puts the tag back from what the host says of it`, async (t) => {
    const bench = await startBench(t, dpdk);
    const { pmd, station } = bench;
    const back = bench.toDriver(buildPacket(BASE).bytes);
    station.send({ bytes: back, tci: 0xb064 });
    const [got] = await pmd.receive(1);
    const tagged = Buffer.concat([back.subarray(0, 12), Uint8Array.of(0x81, 0, 0xb0, 0x64), back.subarray(12)]);
    assert.equal(hex(got!.bytes), hex(tagged));
    assert.ok(!got!.flags.includes('stripped'));
    await finish(bench);
  });

  test(`DPDK ${dpdk.name}: our host fills in the checksums that the driver leaves to it`, async (t) => {
    const bench = await startBench(t, dpdk, { txoffloads: ALL_TX | TX_OFFLOAD.MULTI_SEGS });
    const { station, nic } = bench;
    const { offloads } = nic.state();
    for (const name of ['IPV4_HEADER_TX', 'TCP4_TX', 'TCP6_TX', 'UDP4_TX', 'UDP6_TX', 'LSO4', 'LSO6']) {
      assert.ok(offloads.includes(name), `the driver did not ask for ${name}: ${offloads}`);
    }
    for (const spec of KINDS) {
      // Small ones are copied into a section, long ones are read from its memory, from one buffer or several.
      for (const [payload, cut] of [
        [90, 0],
        [1200, 0],
        [1200, 400],
      ] as const) {
        const packet = buildPacket({ ...spec, payload });
        await bench.transmit(bench.toStation(unfinished(packet)), { flags: flagsOf(spec), ...lengths(packet), cut });
        const [seen] = await station.got(1);
        assert.equal(hex(seen!.bytes), hex(bench.toStation(packet.bytes)), `${kindName(spec)}, ${payload} bytes`);
      }
    }
    // The IPv4 header alone.
    const packet = buildPacket(BASE);
    const bytes = packet.bytes.slice();
    bytes.set([0xbe, 0xef], packet.l3 + 10);
    await bench.transmit(bench.toStation(bytes), { flags: 'ipv4,ipsum', ...lengths(packet) });
    assert.equal(hex((await station.got(1))[0]!.bytes), hex(bench.toStation(packet.bytes)));
    assert.ok(nic.state().counters.txChecksum! >= 3 * KINDS.length);
    await finish(bench);
  });

  test(`DPDK ${dpdk.name}: large sends become segments with right headers and sums`, async (t) => {
    const bench = await startBench(t, dpdk, { txoffloads: ALL_TX | TX_OFFLOAD.MULTI_SEGS });
    const { station, nic } = bench;
    const FIN_PSH_ACK = 0x19;
    for (const spec of KINDS.filter(({ protocol, ipOptions }) => protocol === 6 && ipOptions === 0)) {
      for (const [payload, mss, cut] of [
        [30_000, 1400, 0],
        [60_000, 1460, 2000],
        [2801, 1400, 999],
      ] as const) {
        const packet = buildPacket({ ...spec, payload, tcpOptions: 3, tcpFlags: FIN_PSH_ACK });
        const flags = flagsOf(spec, ['tso']);
        await bench.transmit(bench.toStation(unfinished(packet)), { flags, ...lengths(packet), mss, cut });
        const count = Math.ceil(payload / mss);
        const segments = await station.got(count);
        const data = segments.map(({ bytes }) => checkSegment(bytes, packet));
        assert.deepEqual(
          data.map(({ at }) => at),
          Array.from({ length: count }, (_, i) => i * mss),
        );
        assert.deepEqual(
          data.map(({ flags }) => flags),
          [...Array(count - 1).fill(0x10), FIN_PSH_ACK],
        );
        assert.equal(
          hex(Buffer.concat(data.map(({ payload }) => payload))),
          hex(packet.bytes.subarray(packet.payloadAt)),
        );
      }
    }
    assert.equal(nic.state().counters.txLso, 6);
    await finish(bench);
  });

  test(`DPDK ${dpdk.name}: what our host knows of a packet's checksums, the mbuf says`, async (t) => {
    const bench = await startBench(t, dpdk, { rxoffloads: ALL_RX });
    const { pmd, station, nic } = bench;
    for (const name of ['IPV4_HEADER_RX', 'TCP4_RX', 'TCP6_RX', 'UDP4_RX', 'UDP6_RX']) {
      assert.ok(nic.state().offloads.includes(name), `the driver did not ask for ${name}`);
    }
    for (const spec of KINDS) {
      const packet = buildPacket(spec);
      const bytes = bench.toDriver(packet.bytes);
      const kind =
        (spec.family === 4 ? PACKET_FLAG.IPV4 : PACKET_FLAG.IPV6) |
        (spec.protocol === 6 ? PACKET_FLAG.TCP : PACKET_FLAG.UDP);
      const l4 = spec.protocol === 6 ? TX_TCP_CHECKSUM : TX_UDP_CHECKSUM;
      const ip = spec.family === 4 ? TX_IP_CHECKSUM : 0;
      const ipGood = spec.family === 4 ? 'ip-good ' : '';
      station.send(
        { bytes }, // nobody knows
        { bytes, flags: kind | RX_L4_GOOD | (spec.family === 4 ? RX_IP_GOOD : 0) },
        { bytes, flags: kind | RX_L4_BAD },
        // Another guest of the switch left them to us: nobody has to look at them, so they are not computed.
        { bytes: bench.toDriver(unfinished(packet)), flags: kind | l4 | ip, l4Offset: packet.l4 },
      );
      const got = await pmd.receive(4);
      const name = kindName(spec);
      assert.deepEqual(got.map(verdicts), ['', `${ipGood}l4-good`, 'l4-bad', `${ipGood}l4-good`], name);
      for (const frame of got.slice(0, 3)) assert.equal(hex(frame.bytes), hex(bytes), name);
    }
    await finish(bench);
  });

  test(`DPDK ${dpdk.name}: checksums of both directions at once`, async (t) => {
    const bench = await startBench(t, dpdk, { txoffloads: ALL_TX | TX_OFFLOAD.MULTI_SEGS, rxoffloads: ALL_RX });
    const { pmd, station, nic } = bench;
    // It asks for those of reception alone then, and uses both.
    assert.ok(nic.state().offloads.includes('TCP4_RX') && !nic.state().offloads.includes('TCP4_TX'));
    for (const spec of KINDS) {
      const packet = buildPacket(spec);
      await bench.transmit(bench.toStation(unfinished(packet)), { flags: flagsOf(spec), ...lengths(packet) });
      assert.equal(hex((await station.got(1))[0]!.bytes), hex(bench.toStation(packet.bytes)), kindName(spec));
      const kind = spec.protocol === 6 ? PACKET_FLAG.TCP : PACKET_FLAG.UDP;
      station.send({ bytes: bench.toDriver(packet.bytes), flags: kind | RX_L4_GOOD });
      assert.equal(verdicts((await pmd.receive(1))[0]!), 'l4-good', kindName(spec));
    }
    await finish(bench);
  });

  test(`DPDK ${dpdk.name}: a driver that asks for no offloads gets packets whose checksums are right`, async (t) => {
    const bench = await startBench(t, dpdk);
    const { pmd, station } = bench;
    for (const spec of KINDS) {
      const packet = buildPacket(spec);
      const kind =
        (spec.family === 4 ? PACKET_FLAG.IPV4 : PACKET_FLAG.IPV6) |
        (spec.protocol === 6 ? PACKET_FLAG.TCP : PACKET_FLAG.UDP);
      const todo = (spec.protocol === 6 ? TX_TCP_CHECKSUM : TX_UDP_CHECKSUM) | (spec.family === 4 ? TX_IP_CHECKSUM : 0);
      station.send({ bytes: bench.toDriver(unfinished(packet)), flags: kind | todo, l4Offset: packet.l4 });
      const [got] = await pmd.receive(1);
      assert.equal(hex(got!.bytes), hex(bench.toDriver(packet.bytes)), kindName(spec));
    }
    await finish(bench);
  });
}

/** A segment's place in the stream, its TCP flags and its data; all else in it must be right. */
function checkSegment(bytes: Uint8Array, whole: Packet): { at: number; flags: number; payload: Uint8Array } {
  const { l3, l4, payloadAt, spec } = whole;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const original = new DataView(whole.bytes.buffer);
  assert.equal(hex(bytes.subarray(12, l3)), hex(whole.bytes.subarray(12, l3)));
  if (spec.family === 4) {
    assert.equal(view.getUint16(l3 + 2), bytes.length - l3, 'total length');
    assert.equal(hex(bytes.subarray(l3 + 12, l4)), hex(whole.bytes.subarray(l3 + 12, l4)));
  } else assert.equal(view.getUint16(l3 + 4), bytes.length - l3 - 40, 'payload length');
  assert.equal(transportChecksum(bytes, l3, spec.protocol, l4), 0, 'TCP checksum');
  assert.equal(hex(bytes.subarray(l4 + 20, payloadAt)), hex(whole.bytes.subarray(l4 + 20, payloadAt)), 'TCP options');
  const at = (view.getUint32(l4 + 4) - original.getUint32(l4 + 4)) >>> 0;
  return { at, flags: bytes[l4 + 13]!, payload: bytes.subarray(payloadAt) };
}
