// Offloads of net_netvsc between two ports on our host: checksums and their verdicts, large sends, coalesced receives, chains.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { ipVerdict, l4Verdict, PACKET_TYPE, RX_OFFLOAD, TX_OFFLOAD } from '../../src/ethdev/constants.js';
import type { Eal } from '../../src/ethdev/eal.js';
import type { Mempool } from '../../src/ethdev/mempool.js';
import type { Port } from '../../src/ethdev/port.js';
import type { PortConfig } from '../../src/ethdev/types.js';
import { PACKET_FLAG as F } from '../../src/memory/layout.js';
import { parseMac } from '../../src/wire/address-text.js';
import { portOf, startEal, startHost, startPort, until } from './rig.js';

const RX_CHECKSUMS = RX_OFFLOAD.IPV4_CKSUM | RX_OFFLOAD.TCP_CKSUM | RX_OFFLOAD.UDP_CKSUM;
const HEADERS = 54;

interface Pair {
  readonly eal: Eal;
  readonly a: Port;
  readonly b: Port;
  readonly pool: Mempool;
  readonly handles: number;
}

async function pair(t: TestContext, config: Partial<PortConfig>, devargs = ''): Promise<Pair> {
  const host = await startHost(t);
  const eal = await startEal(
    host,
    '-m',
    '24',
    ...(devargs ? ['-a', `${host.uuids[0]},${devargs}`, '-a', host.uuids[1]!] : []),
  );
  const [a, b] = [portOf(eal, host, 0), portOf(eal, host, 1)];
  const pool = eal.createMempool('mbufs', { count: 4000, room: 128 + 2048 });
  await startPort(a, pool, { txOffloads: a.info().txOffloads });
  await startPort(b, pool, config);
  const handles = eal.main.reserve('burst', 64 * 4);
  return { eal, a, b, pool, handles };
}

/** A TCP packet of IPv4 with right checksums, or only with a right pseudo header's sum where the host is to do the rest. */
function tcp(rig: Pair, payload: number, seed: number): Buffer {
  const frame = Buffer.alloc(HEADERS + payload);
  frame.set(parseMac(rig.b.mac)!, 0);
  frame.set(parseMac(rig.a.mac)!, 6);
  const ip = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
  frame.set([8, 0, ...ip, 0x12, 0x34, 0, 80, 0, 0, 0, seed, 0, 0, 0, 0, 0x50, 0x18, 1, 0], 12);
  frame.writeUInt16BE(Math.min(HEADERS - 14 + payload, 0xffff), 16);
  for (let i = 0; i < payload; i++) frame[HEADERS + i] = (i * 7 + seed) & 0xff;
  return frame;
}

/** Sends one packet, cut into segments of that many bytes. */
async function send(rig: Pair, frame: Uint8Array, flags: number, mss = 0, segment = 2000): Promise<void> {
  const { mbufs } = rig.eal;
  let head = 0;
  for (let at = 0; at < frame.length; at += segment) {
    const mbuf = mbufs.allocate(rig.pool);
    assert.ok(mbufs.write(mbuf, frame.subarray(at, at + segment)));
    if (head === 0) head = mbuf;
    else mbufs.chain(head, mbuf);
  }
  mbufs.setFlags(head, flags);
  mbufs.setMss(head, mss);
  mbufs.setL4Offset(head, 34);
  rig.eal.arena.u32[rig.handles >>> 2] = head;
  await until('it is taken', () => rig.a.txQueue(0).burst(rig.handles, 1) === 1);
}

interface Came {
  readonly bytes: Buffer;
  readonly flags: number;
  readonly mss: number;
  readonly segments: number;
  /** checksumVerify of the data path: 1 = all right. */
  readonly verified: number;
}

async function receive(rig: Pair, bytes: number): Promise<Came[]> {
  const { mbufs, arena, main } = rig.eal;
  const came: Came[] = [];
  const scratch = main.reserve('packet', 70_000);
  await until(`${bytes} bytes come`, () => {
    const n = rig.b.rxQueue(0).burst(rig.handles, 32);
    for (let i = 0; i < n; i++) {
      const mbuf = arena.u32[(rig.handles >>> 2) + i]!;
      const packet = Buffer.from(mbufs.read(mbuf));
      arena.u8.set(packet, scratch);
      const verified = main.datapath.checksumVerify(scratch, packet.length);
      came.push({
        bytes: packet,
        flags: mbufs.flags(mbuf),
        mss: mbufs.mss(mbuf),
        segments: mbufs.segments(mbuf),
        verified,
      });
      mbufs.free(mbuf);
    }
    rig.a.rxQueue(0).burst(rig.handles, 32);
    return came.reduce((sum, packet) => sum + packet.bytes.length - HEADERS, 0) >= bytes;
  });
  return came;
}

test('checksums that are left to the host: none in the packet where the receiver takes a verdict, else a right one', async (t) => {
  const rig = await pair(t, { rxOffloads: RX_CHECKSUMS });
  const { datapath } = rig.eal.main;
  const scratch = rig.eal.main.reserve('packet', 2048);
  const right = tcp(rig, 300, 1);
  rig.eal.arena.u8.set(right, scratch);
  assert.equal(datapath.checksumFinish(scratch, right.length, F.TX_IP_CHECKSUM | F.TX_TCP_CHECKSUM | F.IPV4, 34), 1);
  right.set(rig.eal.arena.u8.subarray(scratch, scratch + right.length));
  const arp = Buffer.concat([right.subarray(0, 12), Buffer.from([8, 6]), Buffer.alloc(HEADERS + 46 - 14)]);
  for (const [what, frame, flags, verdicts, verified] of [
    ['as they are', right, 0, ['UNKNOWN', 'UNKNOWN'], 1],
    ['left to the host', tcp(rig, 300, 2), F.TX_IP_CHECKSUM | F.TX_TCP_CHECKSUM | F.IPV4, ['GOOD', 'NONE'], 0],
    ['no IP at all', arp, 0, ['UNKNOWN', 'UNKNOWN'], 2],
  ] as const) {
    await send(rig, frame, flags);
    const [one] = await receive(rig, frame.length - HEADERS);
    assert.deepEqual([ipVerdict(one!.flags), l4Verdict(one!.flags)], verdicts, what);
    assert.equal(one!.verified, verified, what);
  }
  // A port that does not ask for verdicts gets whole packets.
  await rig.b.stop();
  await startPort(rig.b, rig.pool, { rxOffloads: 0 });
  for (const [frame, flags] of [
    [right, 0],
    [tcp(rig, 300, 2), F.TX_IP_CHECKSUM | F.TX_TCP_CHECKSUM | F.IPV4],
  ] as const) {
    await send(rig, frame, flags);
    const [one] = await receive(rig, 300);
    assert.equal(one!.verified, 1);
    assert.ok(!['BAD', 'NONE'].includes(l4Verdict(one!.flags)));
  }
});

for (const [lro, devargs] of [
  [false, ''],
  [true, ''],
  [true, 'tx_copybreak=0'],
] as const) {
  test(`large sends ${devargs}: ${lro ? 'one coalesced packet, as a chain' : 'segments of the MTU'}`, async (t) => {
    const rxOffloads = RX_CHECKSUMS | (lro ? RX_OFFLOAD.TCP_LRO : 0);
    const rig = await pair(t, { rxOffloads }, devargs);
    assert.ok(rig.a.config!.txOffloads & TX_OFFLOAD.TCP_TSO);
    const flags = F.TX_TSO | F.TX_IP_CHECKSUM | F.TX_TCP_CHECKSUM | F.IPV4 | F.TCP;
    for (const payload of [5000, 1461, 40_000, 62_000]) {
      const frame = tcp(rig, payload, payload & 0xff);
      await send(rig, frame, flags, 1460, 1900);
      const came = await receive(rig, payload);
      const data = Buffer.concat(came.map(({ bytes }) => bytes.subarray(HEADERS)));
      assert.deepEqual(data, frame.subarray(HEADERS));
      for (const { flags: got } of came) assert.notEqual(l4Verdict(got), 'BAD');
      if (lro) {
        assert.equal(came.length, 1);
        const [{ mss, segments, flags: got } = came[0]!] = came;
        assert.equal(mss, 1460);
        assert.equal(segments, Math.ceil((payload + HEADERS) / 2048));
        assert.ok(got & F.RX_COALESCED);
      } else {
        assert.equal(came.length, Math.ceil(payload / 1460));
        for (const { bytes, segments } of came) assert.ok(bytes.length <= 1514 && segments === 1);
      }
    }
    assert.equal(new Map(rig.a.xstats()).get('tx_q0_tso_packets'), 4);
    assert.equal(new Map(rig.b.xstats()).get('rx_q0_coalesced_packets'), lro ? 4 : 0);
    await until('all mbufs are back', () => {
      rig.a.rxQueue(0).burst(rig.handles, 32);
      return rig.pool.available === rig.pool.count;
    });
  });
}

test('segments of one burst come as one packet while LRO is on, and one by one once it is off', async (t) => {
  const rig = await pair(t, { rxOffloads: RX_CHECKSUMS | RX_OFFLOAD.TCP_LRO });
  const { mbufs } = rig.eal;
  const flags = F.TX_IP_CHECKSUM | F.TX_TCP_CHECKSUM | F.IPV4 | F.TCP;
  const burst = async (count: number) => {
    const list = Array.from({ length: count }, (_, i) => {
      const frame = tcp(rig, 1460, 1);
      frame.writeUInt32BE(5000 + i * 1460, 38);
      frame.fill(i, HEADERS);
      const mbuf = mbufs.allocate(rig.pool);
      assert.ok(mbufs.write(mbuf, frame));
      mbufs.setFlags(mbuf, flags);
      mbufs.setL4Offset(mbuf, 34);
      return mbuf;
    });
    rig.eal.arena.u32.set(list, rig.handles >>> 2);
    await until('they are taken', () => rig.a.txQueue(0).burst(rig.handles, count) === count);
    const came = await receive(rig, count * 1460);
    const data = Buffer.concat(came.map(({ bytes }) => bytes.subarray(HEADERS)));
    assert.deepEqual(data, Buffer.concat(list.map((_, i) => Buffer.alloc(1460, i))));
    return came;
  };
  // The host may see a burst in two parts.
  const large = await burst(20);
  assert.ok(large.length <= 3, `${large.length} packets`);
  for (const { mss, flags: got } of large) {
    assert.equal(mss, 1460);
    assert.ok(got & F.RX_COALESCED);
    assert.notEqual(l4Verdict(got), 'BAD');
  }
  await rig.b.setOffloads({ rxOffloads: RX_CHECKSUMS });
  assert.equal((await burst(20)).length, 20);
  await rig.b.setOffloads({ rxOffloads: RX_CHECKSUMS | RX_OFFLOAD.TCP_LRO });
  assert.ok((await burst(20)).length <= 3);
  await until('all mbufs are back', () => {
    rig.a.rxQueue(0).burst(rig.handles, 32);
    return rig.pool.available === rig.pool.count;
  });
});

test('packet types, unless a program does without them', async (t) => {
  const rig = await pair(t, {});
  const { mbufs, arena } = rig.eal;
  for (const packetTypes of [true, false]) {
    if (!packetTypes) {
      await rig.b.stop();
      await startPort(rig.b, rig.pool, { packetTypes });
    }
    await send(rig, tcp(rig, 100, 1), 0);
    await until('it comes', () => rig.b.rxQueue(0).burst(rig.handles, 1) === 1);
    const mbuf = arena.u32[rig.handles >>> 2]!;
    const { L2_ETHER, L3_IPV4, L4_TCP } = PACKET_TYPE;
    assert.equal(mbufs.packetType(mbuf), packetTypes ? L2_ETHER | L3_IPV4 | L4_TCP : 0);
    mbufs.free(mbuf);
  }
});

test('the largest frames: an MTU of 9202 both ways, in chains of 1 KiB', async (t) => {
  const rig = await pair(t, { rxOffloads: RX_OFFLOAD.SCATTER });
  for (const port of [rig.a, rig.b]) {
    await port.stop();
    await port.setMtu(9202);
    await port.start();
  }
  for (const bytes of [64, 1514, 2048, 2049, 9000, 9216]) {
    const frame = tcp(rig, bytes - HEADERS, bytes & 0xff);
    await send(rig, frame, 0, 0, 1024);
    const [one] = await receive(rig, bytes - HEADERS);
    assert.deepEqual(one!.bytes, frame);
    assert.equal(one!.segments, Math.ceil(bytes / 2048));
  }
});
