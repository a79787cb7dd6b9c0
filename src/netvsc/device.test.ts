import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OFFLOAD } from '../memory/layout.js';
import { type FakeHost, indication, packet, type Request, words } from './fake-host.js';
import { frame, type Rig, withRig } from './test-rig.js';

test('indications in the middle of attach are not lost, later ones are events', () =>
  withRig({}, async (rig) => {
    rig.host.answers.set('query 10114', (host, _request, usual) => {
      host.rndis(indication(0x4001000b));
      usual();
      host.rndis(indication(0x4001000c));
      host.rndis(indication(0x40010013, words(250_000_000)));
    });
    const info = await rig.run(rig.netvsc.attach());
    assert.deepEqual([info.linkUp, info.linkSpeedBps], [false, 25_000_000_000]);
    rig.host.rndis(indication(0x4001000b));
    rig.host.rndis(indication(0x40010018));
    rig.host.rndis(indication(0x12345678));
    rig.host.rndis(indication(0x40010013, words(1).subarray(0, 2)));
    rig.host.rndis(words(7, 20, 0x4001000b, 100, 12)); // buffer beyond the message
    rig.host.rndis(words(9, 12, 0));
    await rig.turn();
    assert.equal(info.linkUp, true);
    assert.deepEqual(
      rig.events.map(({ type }) => type),
      ['link', 'speed', 'indication', 'link', 'network-change'],
    );
    assert.deepEqual([rig.netvsc.stats().badIndications, rig.netvsc.stats().badHostMessages], [2, 1]);
  }));

test('the host takes offloads away and gives them back, never more than were asked for', () =>
  withRig({}, async (rig) => {
    const info = await rig.run(rig.netvsc.attach());
    const all = info.offloads;
    const fewer = rig.host.capabilities.slice();
    new DataView(fewer.buffer).setUint32(8, 0x100, true); // IPv4 transmit: IP header without options
    rig.host.rndis(indication(0x40020006, fewer));
    await rig.turn();
    const lost = OFFLOAD.IPV4_HEADER_TX | OFFLOAD.TCP4_TX | OFFLOAD.UDP4_TX | OFFLOAD.LSO4;
    assert.equal(info.offloads, all & ~lost);
    rig.host.rndis(indication(0x40020006, rig.host.capabilities));
    rig.host.rndis(indication(0x40020006, new Uint8Array(20)));
    await rig.turn();
    assert.equal(info.offloads, all);
    assert.deepEqual(
      rig.events.map(({ type }) => type),
      ['offloads', 'offloads'],
    );
    assert.equal(rig.netvsc.stats().badIndications, 1);
  }));

test('an offload that was not asked for is not used, whatever the host says', () =>
  withRig({ largePool: false }, async (rig) => {
    rig.host.capabilities.set([1, 1], 144); // RSC for both families
    const info = await rig.run(rig.netvsc.attach());
    assert.equal(info.offloads & OFFLOAD.RSC, 0, 'there is no large pool');
    rig.host.rndis(indication(0x40020006, rig.host.capabilities));
    await rig.turn();
    assert.equal(info.offloads & OFFLOAD.RSC, 0);
  }));

test('keepalive and reset are answered, VF and send table are events', () =>
  withRig({}, async (rig) => {
    await rig.run(rig.netvsc.attach());
    const answers: DataView[] = [];
    rig.host.onRequest = ({ name, bytes }) => {
      if (name.startsWith('rndis ')) answers.push(bytes);
    };
    rig.host.rndis(words(8, 12, 77));
    rig.host.rndis(words(6, 12, 0));
    rig.host.inBand(words(128, 1, 42), 5, 0x80000000, true);
    rig.host.inBand(words(134, 16, 12, ...Array.from({ length: 16 }, (_, i) => i % 4)));
    rig.host.inBand(words(134, 16, 20, ...Array.from({ length: 16 }, () => 0))); // beyond the message
    rig.host.inBand(words(134, 16, 8, ...Array.from({ length: 17 }, () => 0))); // over its own header
    rig.host.inBand(words(134, 15, 12, ...Array.from({ length: 16 }, () => 0)));
    rig.host.inBand(words(999, 0));
    for (let i = 0; i < 6; i++) await rig.turn();
    assert.deepEqual([answers[0]!.getUint32(0, true), answers[0]!.getUint32(8, true)], [0x80000008, 77]);
    assert.equal(answers[1]!.getUint32(0, true), 0x80000006);
    assert.equal(rig.host.log.at(-1), 'set 1010e', 'the packet filter is set again after a reset');
    assert.deepEqual(rig.host.acknowledged, [5]);
    assert.deepEqual(
      rig.events.map(({ type }) => type),
      ['reset', 'vf-association', 'send-table'],
    );
    assert.equal(rig.netvsc.stats().badHostMessages, 4);
    assert.equal(rig.netvsc.state, 'running');
  }));

test('frames go both ways, whole and in order', () =>
  withRig({}, async (rig) => {
    await rig.run(rig.netvsc.attach());
    const sizes = [60, 1514, 200, 999, 14, 64, 1500, 61, 700, 1000, 1200, 1300];
    const sent = sizes.map((size, i) => frame(size, i));
    assert.equal(rig.send(...sent), sent.length);
    for (const one of sent.slice(0, 10)) rig.host.frame(one);
    for (let i = 0; i < 4; i++) await rig.turn();
    assert.deepEqual(rig.host.frames, sent);
    assert.deepEqual(rig.received, sent.slice(0, 10));
    const stats = rig.netvsc.stats();
    assert.deepEqual([stats.txPackets, stats.txCompleted, stats.rxPackets, stats.txOutstanding], [12, 12, 10, 0]);
    assert.ok(stats.txMessages! < 12, 'small frames share a section');
    await rig.turn();
    const data = rig.host.completed.filter(({ id }) => id >= 16);
    assert.deepEqual(
      data.map(({ id, status }) => [id, status]),
      Array.from({ length: 10 }, (_, i) => [16 + i, 1]),
    );
    assert.equal(rig.freeSmall(), 512);
  }));

test('detach waits for sends in flight, and gives up at its deadline', async (t) => {
  await t.test('completed late', () =>
    withRig({}, async (rig) => {
      await rig.run(rig.netvsc.attach());
      rig.host.holdSends = true;
      rig.send(frame(1514, 1), frame(1514, 2));
      const detached = rig.netvsc.detach();
      for (let i = 0; i < 6; i++) await rig.turn();
      assert.equal(rig.netvsc.state, 'detaching');
      rig.host.releaseSends();
      await rig.run(detached);
      const stats = rig.netvsc.stats();
      assert.deepEqual([stats.txCompleted, stats.sendsAbandoned, stats.txPackets], [2, 0, 2]);
    }),
  );
  await t.test('never completed', () =>
    withRig({ copyLimit: 0 }, async (rig) => {
      await rig.run(rig.netvsc.attach());
      rig.host.holdSends = true;
      rig.send(frame(1514, 1), frame(1514, 2));
      assert.equal(rig.freeSmall(), 510, 'sent by page ranges: the host reads the buffers');
      await rig.turn();
      await rig.run(rig.netvsc.detach());
      assert.equal(rig.netvsc.state, 'detached');
      assert.equal(rig.netvsc.stats().sendsAbandoned, 2);
      assert.equal(rig.freeSmall(), 512);
    }),
  );
});

test('the host dies while packets are in flight: told at once, everything is given back', () =>
  withRig({ copyLimit: 0, requestTimeoutMs: 1e9 }, async (rig) => {
    const before = rig.arena.free().bytes;
    await rig.run(rig.netvsc.attach());
    rig.host.holdSends = true;
    rig.send(frame(1514, 1));
    const pending = rig.netvsc.setPacketFilter(1);
    rig.host.rescind();
    await assert.rejects(rig.run(pending), /RNDIS set packet filter: the host is gone/);
    assert.equal(rig.netvsc.state, 'failed');
    assert.match(rig.netvsc.failure!, /running: the host is gone/);
    assert.equal(rig.events.at(-1)?.type, 'failed');
    assert.equal(rig.send(frame(64, 1)), 0);
    assert.equal(rig.freeSmall(), 512);
    assert.equal(rig.arena.free().bytes, before);
  }));

test('a corrupt ring fails the device with the name of the fault', () =>
  withRig({}, async (rig) => {
    await rig.run(rig.netvsc.attach());
    rig.host.write(packet(6, 2, 0, 0, new Uint8Array(0), words(107))); // an unknown flag
    await rig.turn();
    assert.equal(rig.netvsc.state, 'failed');
    assert.match(rig.netvsc.failure!, /ring corrupt: FLAGS \(0x2\)/);
    await rig.turn();
    await rig.run(rig.netvsc.attach());
    assert.equal(rig.netvsc.state, 'running');
  }));

test('detach while attaching ends both', () =>
  withRig({ requestTimeoutMs: 1e9 }, async (rig) => {
    const before = rig.arena.free().bytes;
    rig.host.answers.set('rndis 2', () => {});
    const attached = rig.netvsc.attach();
    for (let i = 0; i < 10; i++) await rig.turn();
    const detached = rig.netvsc.detach();
    await assert.rejects(attached, /RNDIS initialize: the device is being detached/);
    await rig.run(detached);
    assert.equal(rig.netvsc.state, 'detached');
    assert.equal(rig.arena.free().bytes, before);
  }));

test('wrong use is refused with the state', () =>
  withRig({ mtu: 60 }, async (rig) => {
    await assert.rejects(rig.run(rig.netvsc.attach()), /options: mtu: expected 68\.\.65521, got 60/);
    await assert.rejects(rig.netvsc.reattach({}), /the device is failed, expected running/);
    assert.equal(rig.netvsc.poll(rig.handles, 8), 0);
  }));

test('attach without opening receives nothing until the filter is set', () =>
  withRig({}, async (rig) => {
    await rig.run(rig.netvsc.attach({ open: false }));
    assert.equal(rig.host.log.includes('set 1010e'), false);
    await rig.run(rig.netvsc.setPacketFilter(0x20));
    assert.equal(rig.host.log.at(-1), 'set 1010e');
  }));

test('200 cycles of attach, traffic and detach leave nothing behind', () =>
  withRig({}, async (rig) => {
    const before = rig.arena.free().bytes;
    for (let cycle = 0; cycle < 200; cycle++) {
      await rig.run(rig.netvsc.attach());
      assert.equal(rig.send(frame(100, cycle)), 1);
      rig.host.frame(frame(100, cycle));
      await rig.turn();
      await rig.turn();
      await rig.run(rig.netvsc.detach());
    }
    assert.equal(rig.arena.free().bytes, before);
    assert.equal(rig.freeSmall(), 512);
    const stats = rig.netvsc.stats();
    const seen = [stats.attaches, stats.detaches, stats.txCompleted, stats.rxPackets, stats.sendsAbandoned];
    assert.deepEqual(seen, [200, 200, 200, 200, 0], 'counters go on');
    assert.equal(rig.host.openings, 200);
  }));

test('sleep: arm says when something is pending, disarm takes the interrupt', () =>
  withRig({}, async (rig) => {
    const { host, netvsc } = rig;
    await rig.run(netvsc.attach());
    await settle(rig, host);
    assert.equal(netvsc.arm(), true);
    host.frame(frame(100, 1));
    netvsc.disarm();
    assert.equal(netvsc.arm(), false);
    await rig.turn();
    assert.equal(rig.received.length, 1);
    // Two frames in one packet, of which a small poll takes one: nothing is in the ring, yet one waits.
    host.frame(frame(100, 2));
    host.frame(frame(100, 3));
    await rig.turn();
    await settle(rig, host);
    const ranges = new Uint8Array(24);
    ranges.set(words(0xcafe, 2, 356, 17 * host.suballocationBytes, 356, 18 * host.suballocationBytes));
    host.write(packet(7, 1, 17, 0, ranges, words(107, 0, 0xffffffff, 0)));
    assert.equal(netvsc.poll(rig.handles, 1), 1);
    rig.datapath.mbufFree(rig.handles, 1);
    assert.equal(netvsc.arm(), false);
    assert.equal(netvsc.poll(rig.handles, 1), 1);
    rig.datapath.mbufFree(rig.handles, 1);
    assert.equal(netvsc.arm(), true);
    assert.ok(netvsc.stats().interrupts! > 0);
  }));

async function settle(rig: Rig, host: FakeHost): Promise<void> {
  for (let i = 0; i < 3; i++) await rig.turn();
  host.step();
}

test('a device that was left closed stays closed over a reattach', () =>
  withRig({}, async (rig) => {
    await rig.run(rig.netvsc.attach({ open: false }));
    await rig.run(rig.netvsc.reattach({ mtu: 1400 }));
    assert.equal(rig.host.log.includes('set 1010e'), false);
    await rig.run(rig.netvsc.setPacketFilter(0x21));
    await rig.run(rig.netvsc.reattach({ mtu: 1300 }));
    assert.deepEqual([rig.host.log.at(-1), rig.netvsc.packetFilter, rig.netvsc.info!.mtu], ['set 1010e', 0x21, 1300]);
  }));

test('a host that floods keepalives costs a bounded queue', () =>
  withRig({}, async (rig) => {
    await rig.run(rig.netvsc.attach());
    rig.host.answers.set('rndis 2147483656', () => {}); // never completes the answer, so its section stays taken
    for (let i = 0; i < 60; i++) {
      rig.host.rndis(words(8, 12, i));
      await rig.turn();
    }
    const stats = rig.netvsc.stats();
    assert.equal(stats.keepalives, 60);
    assert.ok(stats.answersDropped! >= 60 - 20, `${stats.answersDropped} dropped`);
    assert.equal(rig.netvsc.state, 'running');
    await rig.run(rig.netvsc.detach());
  }));

test('a full ring delays control messages and loses none', () =>
  withRig({ bytes: { ring: 16 << 10 } }, async (rig) => {
    await rig.run(rig.netvsc.attach());
    const frames = Array.from({ length: 64 }, (_, i) => frame(1200, i));
    let taken = 0;
    for (let burst = 0; burst < 40; burst++) taken += rig.send(...frames); // the host does not read meanwhile
    assert.ok(taken < 40 * 64, 'the ring was full');
    const filters = Array.from({ length: 12 }, (_, i) => rig.netvsc.setPacketFilter(i));
    await rig.run(Promise.all(filters));
    assert.equal(rig.host.log.filter((name) => name === 'set 1010e').length, 13);
    await rig.turn();
    assert.equal(rig.host.frames.length, taken);
    assert.equal(rig.netvsc.stats().txCompleted, taken);
    assert.equal(rig.freeSmall(), 512);
  }));

test('a control message whose deadline passed while it waited is not sent any more', () =>
  withRig({}, async (rig) => {
    await rig.run(rig.netvsc.attach());
    const heard = rig.host.log.length;
    let held: Request | undefined;
    rig.host.answers.set('rndis 2147483656', (_host, request) => {
      held = request;
    });
    rig.host.rndis(words(8, 12, 1)); // the answer to this keepalive keeps the control section
    for (let i = 0; i < 2; i++) await rig.turn();
    await assert.rejects(rig.run(rig.netvsc.setPacketFilter(1)), /RNDIS set packet filter: no .* from the host within/);
    rig.host.complete(held!, words(108, 1));
    await rig.run(rig.netvsc.setPacketFilter(2));
    assert.deepEqual(rig.host.log.slice(heard), ['rndis 2147483656', 'set 1010e']);
    assert.equal(rig.netvsc.packetFilter, 2);
  }));

test('a reattach that fails goes back to the old MTU', () =>
  withRig({ nvspVersions: [2] }, async (rig) => {
    await rig.run(rig.netvsc.attach());
    await assert.rejects(rig.run(rig.netvsc.reattach({ mtu: 4000 })), /MTU: expected at most 1500/);
    assert.equal(rig.netvsc.state, 'running');
    assert.equal(rig.netvsc.info!.mtu, 1500);
  }));

test('attach that fails half-way takes its buffers back before it closes the channel', () =>
  withRig({}, async (rig) => {
    const written = (): number => rig.arena.u32[rig.bus.pairs[0]!.offer.fromGuest.control >>> 2]!;
    let before = 0;
    rig.host.answers.set('rndis 2', (host, request) => {
      before = written();
      host.complete(request, words(108, 2));
    });
    await assert.rejects(rig.run(rig.netvsc.attach()));
    assert.equal(written() - before, 2 * 64, 'two revokes of 64 ring bytes');
  }));
