// The data path under pressure: suspicions 12 to 16 of reading DPDK's driver (facts/dpdk.md 2.13), and that ours does better; and
// what the device arguments mean. Each test of a suspicion is named by its number there.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { ipVerdict, l4Verdict, RX_OFFLOAD, TX_OFFLOAD } from '../../ethdev/constants.js';
import { PACKET_FLAG } from '../../memory/layout.js';
import { words } from '../../netvsc/fake-host.js';
import { type FakeRig, type FakeRigOptions, fakeRig, frameTo } from './testing.js';

const PEER = '02:00:00:00:00:01';
const RING = { ringBytes: 16 << 10 };

async function started(t: TestContext, options: FakeRigOptions = {}, rxOffloads: number = RX_OFFLOAD.VLAN_STRIP) {
  const rig = await fakeRig(t, options);
  await rig.start({ rxOffloads, txOffloads: rig.port.info().txOffloads });
  return rig;
}

/** Sends until the port takes no more; returns what it took, and gives back what it did not. */
function fill(rig: FakeRig, next: () => Uint8Array, most = 5000): Uint8Array[] {
  const taken: Uint8Array[] = [];
  while (taken.length < most) {
    const burst = Array.from({ length: 8 }, next);
    const list = burst.map((frame) => rig.mbuf(frame));
    const count = rig.send(list);
    taken.push(...burst.slice(0, count));
    for (const [i, mbuf] of list.slice(count).entries()) {
      assert.equal(rig.mbufs.references(mbuf), 1, "what is not taken is the caller's");
      assert.deepEqual(rig.mbufs.read(mbuf), burst[count + i]);
      rig.mbufs.free(mbuf);
    }
    if (count < burst.length) break;
  }
  return taken;
}

for (const [what, devargs, options] of [
  ['a ring that is full', 'tx_copybreak=0', RING],
  ['no free send section', 'tx_copybreak=9000', { sendBytes: 64 << 10 }],
  ['copies and direct sends mixed', 'tx_copybreak=300', RING],
] as const) {
  test(`12. and 13. ${what}, again and again: no descriptor, section or mbuf is lost, none is used twice`, async (t) => {
    const rig = await started(t, { devargs, ...options });
    let seed = 0;
    const next = () => frameTo(PEER, 60 + ((seed * 131) % 1400), seed++);
    let expected: Uint8Array[] = [];
    let first = 0;
    for (let round = 0; round < 12; round++) {
      rig.host.holdSends = true;
      const taken = fill(rig, next);
      assert.ok(taken.length > 10, `round ${round}: ${taken.length} packets`);
      if (round === 0) first = taken.length;
      assert.ok(taken.length > first / 2, `round ${round}: ${taken.length} packets, ${first} in the first one`);
      expected.push(...taken);
      rig.host.holdSends = false;
      await rig.until('all are completed', () => {
        rig.host.releaseSends();
        rig.frames();
        return rig.port.stats().opackets === expected.length;
      });
      assert.equal(rig.pool.available, rig.pool.count);
      assert.deepEqual(rig.host.frames, expected);
      rig.host.frames = [];
      expected = [];
      rig.port.resetStats();
    }
  });
}

test('14. packets that show the receive buffer, dropped or kept, come back; half of it may be out, the rest is copied', async (t) => {
  const rig = await started(t, { devargs: 'rx_extmbuf_enable=1,rx_copybreak=100', receiveBytes: 64 * 1806 });
  const out: number[] = [];
  const feed = async (bytes: number) => {
    rig.host.frame(frameTo(rig.port.mac, bytes, bytes));
    let got: number[] = [];
    await rig.until('it comes', () => {
      got = rig.receive();
      return got.length > 0;
    });
    assert.equal(got.length, 1);
    assert.deepEqual(rig.mbufs.read(got[0]!), frameTo(rig.port.mac, bytes, bytes));
    return got[0]!;
  };
  const external = (mbuf: number) => (rig.mbufs.flags(mbuf) & PACKET_FLAG.EXTERNAL) !== 0;
  const short = await feed(100);
  assert.equal(external(short), false, 'rx_copybreak: up to 100 bytes are copied');
  rig.mbufs.free(short);
  for (let i = 0; i < 40; i++) out.push(await feed(101 + i));
  assert.deepEqual(
    out.map(external),
    Array.from({ length: 40 }, (_, i) => i < 32),
  );
  for (const mbuf of out.splice(0)) rig.mbufs.free(mbuf);
  // Ring full, filtered: dropped behind the driver's back as it were.
  for (let round = 0; round < 100; round++) rig.mbufs.free(await feed(200));
  await rig.until('all sections are back at the host', () => {
    rig.frames();
    return rig.host.completed.filter(({ id }) => id >= 16).length === 1 + 40 + 100;
  });
  assert.equal(rig.xstat('rx_q0_external_packets'), 132);
  // Another opening while one is out: refused with the reason, and done once it is free.
  const held = await feed(300);
  assert.equal(external(held), true);
  await rig.run(rig.port.stop());
  rig.host.largestMtu = 9000;
  await assert.rejects(rig.run(rig.port.setMtu(4000)), /receive buffer are still shown by received mbufs/);
  assert.deepEqual(rig.mbufs.read(held), frameTo(rig.port.mac, 300, 300));
  rig.mbufs.free(held);
  await rig.run(rig.port.setMtu(4000));
  assert.equal(rig.pool.available, rig.pool.count);
});

test('14. frames of one message: its section comes back with the last of them, however they are freed', async (t) => {
  const rig = await started(t, { devargs: 'rx_extmbuf_enable=1,rx_copybreak=0' });
  const frame = (seed: number) => frameTo(rig.port.mac, 100, seed);
  /** Three frames in one section. */
  const feed = async (section: number): Promise<number[]> => {
    const message = Uint8Array.from(
      [0, 1, 2].flatMap((i) => [...words(1, 144, 36, 100, 0, 0, 0, 0, 0, 0, 0), ...frame(i)]),
    );
    rig.host.transfer(section, message, 0);
    const got: number[] = [];
    await rig.until('all come', () => got.push(...rig.receive()) === 3);
    for (const [i, mbuf] of got.entries()) assert.deepEqual(rig.mbufs.read(mbuf), frame(i));
    return got;
  };
  const free = (list: readonly number[]) => {
    for (const [i, mbuf] of list.entries()) rig.arena.u32[(rig.handles >>> 2) + i] = mbuf;
    rig.datapath.mbufFree(rig.handles, list.length);
    rig.frames(); // which completes
    rig.host.step();
    return rig.host.completed
      .map(({ id }) => id)
      .filter((id) => id >= 16)
      .sort();
  };
  const [a, b, c] = [await feed(20), await feed(21), await feed(22)] as [number[], number[], number[]];
  assert.deepEqual(free([a[0]!, b[0]!, a[1]!, b[1]!]), []);
  assert.deepEqual(free([c[2]!, a[2]!]), [20]);
  assert.deepEqual(free([c[1]!, b[2]!, c[0]!]), [20, 21, 22]);
  // A packet that two hold is freed when the second one frees it.
  const d = await feed(23);
  assert.equal(rig.mbufs.references(d[1]!), 1);
  rig.mbufs.reference(d[1]!);
  assert.deepEqual(free(d), [20, 21, 22]);
  assert.deepEqual(free([d[1]!]), [20, 21, 22, 23]);
  assert.equal(rig.xstat('rx_q0_external_packets'), 12);
  assert.equal(rig.pool.available, rig.pool.count);
});

test('14. a tag goes back into a packet of any length where stripping is off, external buffers or not', async (t) => {
  const rig = await started(t, { devargs: 'rx_extmbuf_enable=1,rx_copybreak=0' }, 0);
  for (const bytes of [60, 300, 1514]) {
    const frame = frameTo(rig.port.mac, bytes, bytes);
    rig.host.frame(frame, words(16, 6, 12, 0x0640)); // VLAN 100
    let got: number[] = [];
    await rig.until('it comes', () => {
      got = rig.receive();
      return got.length > 0;
    });
    const tagged = Buffer.concat([frame.subarray(0, 12), Buffer.from([0x81, 0, 0, 100]), frame.subarray(12)]);
    assert.deepEqual(Buffer.from(rig.mbufs.read(got[0]!)), tagged);
    assert.equal(rig.mbufs.flags(got[0]!) & PACKET_FLAG.VLAN, 0);
    rig.mbufs.free(got[0]!);
  }
});

test('15. page frame numbers beyond 32 bits reach the host whole', async (t) => {
  const rig = await started(t, { devargs: 'tx_copybreak=0', pfnOffset: 0x123_4567_0000_0000n });
  const frames = [frameTo(PEER, 1514, 1), frameTo(PEER, 60, 2), frameTo(PEER, 800, 3)];
  assert.equal(rig.send(frames.map((frame) => rig.mbuf(frame))), 3);
  await rig.until('they came', () => rig.host.frames.length === 3);
  assert.deepEqual(rig.host.frames, frames);
  assert.equal(rig.xstat('tx_q0_direct_packets'), 3);
});

test('15. any number of segments: ranges up to what a message may name, then a copy', async (t) => {
  const rig = await started(t, { devargs: 'tx_copybreak=0' });
  const frame = frameTo(PEER, 1500, 9);
  for (const segment of [1500, 500, 30, 24, 7, 2]) {
    assert.equal(rig.send([rig.mbuf(frame, segment)]), 1);
    await rig.until('it came', () => rig.host.frames.length === 1);
    assert.deepEqual(rig.host.frames.pop(), frame);
  }
  assert.equal(rig.xstat('tx_q0_direct_packets'), 4, '64 segments at most');
  assert.equal(rig.xstat('tx_q0_copied_packets'), 2);
  await rig.until('mbufs are back', () => {
    rig.frames();
    return rig.pool.available === rig.pool.count;
  });
});

test('16. descriptor status and counts: rx looks at the ring, tx offsets go up to the number of descriptors', async (t) => {
  const rig = await fakeRig(t, { devargs: 'tx_copybreak=0' });
  await rig.start({}, 32);
  for (let i = 0; i < 5; i++) rig.host.frame(frameTo(rig.port.mac, 100 + i, i));
  assert.equal(rig.port.rxQueueCount(0), 5);
  assert.equal(rig.port.rxDescriptorStatus(0, 4), 'DONE');
  assert.equal(rig.port.rxDescriptorStatus(0, 5), 'AVAILABLE');
  assert.throws(() => rig.port.rxDescriptorStatus(0, 32), /expected 0 to 31, got 32/);
  assert.deepEqual(
    rig.frames().map(({ length }) => length),
    [100, 101, 102, 103, 104],
  );
  assert.equal(rig.port.rxQueueCount(0), 0);
  rig.host.holdSends = true;
  for (let i = 0; i < 30; i++) assert.equal(rig.send([rig.mbuf(frameTo(PEER, 100, i))]), 1);
  const tx = Array.from({ length: 32 }, (_, offset) => rig.port.txDescriptorStatus(0, offset));
  assert.deepEqual(tx, [...new Array(2).fill('DONE'), ...new Array(30).fill('FULL')]);
  assert.throws(() => rig.port.txDescriptorStatus(0, 32), /expected 0 to 31, got 32/);
  assert.equal(fill(rig, () => frameTo(PEER, 100, 1)).length, 2, 'as many in flight as there are descriptors');
  rig.host.holdSends = false;
  await rig.until('all are completed', () => {
    rig.host.releaseSends();
    rig.frames();
    return rig.port.stats().opackets === 32;
  });
  assert.equal(rig.port.txDescriptorStatus(0, 31), 'DONE');
});

for (const [devargs, copied] of [
  ['', [14, 60, 512]],
  ['tx_copybreak=0', []],
  ['tx_copybreak=100', [14, 60]],
  ['tx_copybreak=9000', [14, 60, 512, 513, 1514]],
] as const) {
  test(`device arguments "${devargs}": packets of ${copied.join(', ') || 'no'} bytes are copied`, async (t) => {
    const rig = await started(t, { devargs });
    const sizes = [14, 60, 512, 513, 1514];
    for (const [i, bytes] of sizes.entries()) {
      assert.equal(rig.send([rig.mbuf(frameTo(PEER, bytes, i))]), 1);
      await rig.until('it came', () => rig.host.frames.length === i + 1);
      const soFar = sizes.slice(0, i + 1);
      assert.equal(rig.xstat('tx_q0_copied_packets'), soFar.filter((size) => copied.includes(size as never)).length);
    }
    assert.deepEqual(
      rig.host.frames.map(({ length }) => length),
      sizes,
    );
  });
}

test('device arguments: what is wrong is refused with a line, what is out of range is ignored with one', async (t) => {
  for (const [devargs, message] of [
    ['latency=', /latency: expected a value/],
    ['latency=5x', /latency=5x: expected a number/],
    ['colour=red', /unknown argument, expected latency, rx_copybreak, tx_copybreak, rx_extmbuf_enable, numa_aware/],
    ['rx_copybreak=-1', /rx_copybreak=-1: expected a number/],
    ['numa_aware=yes', /numa_aware=yes: expected 0 or 1/],
  ] as const)
    await assert.rejects(fakeRig(t, { devargs }), message);
  const late = await fakeRig(t, { devargs: 'latency=7000,numa_aware=1' });
  assert.match(late.lines.join(), /latency=7000 is ignored: expected at most 6553 us/);
  assert.equal(late.port.info().socket, -1);
});

test('latency in microseconds is what the monitors of all channels get, in 100 ns', async (t) => {
  for (const [devargs, ms] of [
    ['', 0.05],
    ['latency=200', 0.2],
    ['latency=0', 0.1], // the host's usual one
    ['latency=99999', 0.1],
  ] as const) {
    const rig = await fakeRig(t, { devargs, monitor: true });
    assert.equal(rig.bus.pairs[0]!.offer.monitorMs, ms, devargs);
  }
});

test('data that the host cannot read is copied, or refused when no section takes it', async (t) => {
  const rig = await started(t, { devargs: 'tx_copybreak=0' });
  const outside = rig.arena.reserve('outside', 65_536);
  t.after(() => rig.arena.release(outside));
  let freed = 0;
  const show = (bytes: number) => {
    const frame = frameTo(PEER, bytes, bytes);
    rig.arena.u8.set(frame, outside);
    const mbuf = rig.mbufs.allocate(rig.pool);
    assert.ok(rig.mbufs.attachExternal(mbuf, outside, bytes, () => freed++));
    return { frame, mbuf };
  };
  const one = show(1000);
  assert.equal(rig.send([one.mbuf]), 1);
  await rig.until('it came', () => rig.host.frames.length === 1);
  assert.deepEqual(rig.host.frames[0], one.frame);
  const large = show(60_000);
  rig.mbufs.setFlags(large.mbuf, rig.mbufs.flags(large.mbuf) | PACKET_FLAG.TX_TSO | PACKET_FLAG.IPV4);
  rig.arena.u8.set([8, 0, 0x45], outside + 12);
  rig.arena.u8[outside + 46] = 0x50;
  rig.mbufs.setMss(large.mbuf, 1448);
  rig.mbufs.setL4Offset(large.mbuf, 34);
  assert.equal(rig.send([large.mbuf]), 1);
  assert.equal(rig.xstat('tx_q0_refused_packets'), 1);
  assert.equal(rig.port.stats().oerrors, 1);
  await rig.until('both buffers are back', () => {
    rig.frames();
    rig.mbufs.reap();
    return freed === 2 && rig.pool.available === rig.pool.count;
  });
});

test('what others hold is not changed: clones, references, tags in the data, checksums in software', async (t) => {
  const rig = await fakeRig(t, { devargs: 'tx_copybreak=0' });
  await rig.start(); // no offloads: checksums are computed here
  const frame = frameTo(PEER, 300, 5);
  frame.set([8, 0, 0x45, 0, 1, 30, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 7, 1, 10, 0, 0], 12);
  const original = rig.mbuf(frame);
  const flags = PACKET_FLAG.TX_IP_CHECKSUM | PACKET_FLAG.TX_UDP_CHECKSUM | PACKET_FLAG.IPV4;
  for (let i = 0; i < 4; i++) {
    const clone = rig.mbufs.clone(rig.pool, original);
    if (i > 1) rig.mbufs.setFlags(clone, rig.mbufs.flags(clone) | flags);
    if (i === 3) rig.mbufs.setVlanTci(clone, 5);
    assert.equal(rig.send([clone]), 1);
  }
  await rig.until('they came', () => rig.host.frames.length === 4);
  assert.deepEqual(rig.mbufs.read(original), frame);
  assert.deepEqual(rig.host.frames.slice(0, 2), [frame, frame]);
  const [, , summed] = rig.host.frames;
  assert.notDeepEqual(summed, frame);
  assert.deepEqual(rig.host.frames[3], summed);
  const sum = (bytes: Uint8Array) => bytes.reduce((total, byte, i) => total + (i & 1 ? byte : byte << 8), 0) % 0xffff;
  assert.equal(sum(summed!.subarray(14, 34)), 0, 'IPv4 header checksum');
  const pseudo = Buffer.concat([summed!.subarray(26, 34), Buffer.from([0, 17, 1, 10]), summed!.subarray(34)]);
  assert.equal(sum(pseudo), 0, 'UDP checksum');
  await rig.until('only the original is out', () => {
    rig.frames();
    return rig.pool.available === rig.pool.count - 1;
  });
  rig.mbufs.free(original);
});

test('a tag in the data goes beside the packet, where hosts want it', async (t) => {
  const rig = await started(t);
  const frame = frameTo(PEER, 200, 3);
  const tagged = Buffer.concat([frame.subarray(0, 12), Buffer.from([0x81, 0, 0x60, 7]), frame.subarray(12)]);
  const infos: number[] = [];
  rig.host.onMessage = (message) => infos.push(message.getUint32(44 + 4, true), message.getUint32(44 + 12, true));
  assert.equal(rig.send([rig.mbuf(tagged)]), 1);
  await rig.until('it came', () => rig.host.frames.length === 1);
  assert.deepEqual(rig.host.frames[0], frame);
  assert.deepEqual(infos, [6, 0x73]); // VLAN 7, priority 3
});

test('chains both ways: scatter off drops long frames and counts them', async (t) => {
  const rig = await fakeRig(t, {
    prepare: ({ host }) => {
      host.suballocationBytes = 8000;
      host.answers.set('query 10106', (made, request) => {
        made.complete(request, words(108, 1));
        made.rndis(words(0x80000004, 28, request.requestId, 0, 4, 16, 7000));
      });
    },
  });
  await rig.run(rig.port.setMtu(7000));
  rig.pool = rig.createPool({ room: 128 + 1024, headroom: 128 });
  for (const scatter of [0, RX_OFFLOAD.SCATTER]) {
    await rig.start({ rxOffloads: scatter, txOffloads: TX_OFFLOAD.MULTI_SEGS });
    const frame = frameTo(rig.port.mac, 7014, 1);
    rig.host.frame(frame);
    rig.host.frame(frameTo(rig.port.mac, 1024, 2));
    const got: number[] = [];
    await rig.until('they came', () => {
      got.push(...rig.receive());
      return got.length === (scatter ? 2 : 1);
    });
    assert.deepEqual(
      got.map((mbuf) => rig.mbufs.segments(mbuf)),
      scatter ? [7, 1] : [1],
    );
    if (scatter) {
      assert.deepEqual(rig.mbufs.read(got[0]!), frame);
      assert.equal(rig.send([got[0]!]), 1);
      await rig.until('it goes back whole', () => rig.host.frames.length === 1);
      assert.deepEqual(rig.host.frames[0], frame);
    }
    // What was sent is the driver's.
    for (const mbuf of scatter ? got.slice(1) : got) rig.mbufs.free(mbuf);
    assert.equal(rig.xstat('rx_q0_too_long_packets'), 1);
    await rig.run(rig.port.stop());
  }
});

test('packets of 64 to 65,536 bytes, both ways, in chains of 1 KiB; what is longer is refused and counted', async (t) => {
  const mtu = 65_521;
  const rig = await fakeRig(t, {
    receiveBytes: 2 << 20,
    prepare: ({ host }) => {
      host.suballocationBytes = 66_000;
      host.answers.set('query 10106', (made, request) => {
        made.complete(request, words(108, 1));
        made.rndis(words(0x80000004, 28, request.requestId, 0, 4, 16, mtu));
      });
    },
  });
  await rig.run(rig.port.setMtu(mtu));
  rig.pool = rig.createPool({ room: 128 + 1024, headroom: 128 });
  await rig.start({ rxOffloads: RX_OFFLOAD.SCATTER, txOffloads: TX_OFFLOAD.MULTI_SEGS });
  assert.equal(rig.port.info().maxRxPacketBytes, 65_536);
  for (const bytes of [64, 1024, 1025, 9014, 65_535, 65_536]) {
    const frame = frameTo(rig.port.mac, bytes, bytes & 0xff);
    rig.host.frame(frame);
    const got: number[] = [];
    await rig.until(`${bytes} bytes come`, () => {
      got.push(...rig.receive());
      return got.length > 0;
    });
    assert.equal(rig.mbufs.segments(got[0]!), Math.ceil(bytes / 1024));
    assert.deepEqual(rig.mbufs.read(got[0]!), frame);
    rig.host.frames.length = 0;
    assert.equal(rig.send(got), 1);
    // A byte more than the largest MTU allows.
    if (bytes === 65_536) break;
    await rig.until(`${bytes} bytes go back`, () => rig.host.frames.length === 1);
    assert.deepEqual(rig.host.frames[0], frame);
  }
  assert.equal(rig.send([rig.mbuf(frameTo(PEER, 64, 2))]), 1);
  await rig.until('the next one goes', () => rig.host.frames.length === 1);
  assert.equal(rig.host.frames[0]!.length, 64);
  assert.equal(rig.xstat('tx_q0_refused_packets'), 1);
  assert.equal(rig.port.stats().oerrors, 1);
});

test("checksum verdicts: good, bad, none and unknown, as the host's info says", async (t) => {
  const rig = await started(t);
  const [IP_BAD, TCP_BAD, UDP_BAD, TCP_GOOD, UDP_GOOD, IP_GOOD, NO_TCP] = [4, 1, 2, 8, 16, 32, 128];
  for (const [word, ip, l4] of [
    [undefined, 'UNKNOWN', 'UNKNOWN'],
    [0, 'UNKNOWN', 'UNKNOWN'],
    [IP_GOOD | TCP_GOOD, 'GOOD', 'GOOD'],
    [IP_GOOD | UDP_GOOD, 'GOOD', 'GOOD'],
    [IP_BAD, 'BAD', 'UNKNOWN'],
    [IP_GOOD | TCP_BAD, 'GOOD', 'BAD'],
    [IP_GOOD | UDP_BAD | UDP_GOOD, 'GOOD', 'BAD'],
    [IP_GOOD | TCP_GOOD | NO_TCP, 'GOOD', 'NONE'],
  ] as const) {
    rig.host.frame(frameTo(rig.port.mac, 80, 1), word === undefined ? new Uint8Array(0) : words(16, 0, 12, word));
    let got: number[] = [];
    await rig.until('it comes', () => {
      got = rig.receive();
      return got.length > 0;
    });
    const flags = rig.mbufs.flags(got[0]!);
    assert.deepEqual([ipVerdict(flags), l4Verdict(flags)], [ip, l4], `info ${word}`);
    rig.mbufs.free(got[0]!);
  }
});
