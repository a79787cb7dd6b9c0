// The life of a port of DPDK's driver on our host: MTU, queues, link, filters, and what both sides count of it.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { buildPacket } from '../../src/offload/offload-testing.js';
import { DPDKS, type Dpdk, MISSING_DPDK, Pmd, type PmdWords } from './dpdk.js';
import { addressed, ECHO_IP, ECHO_MAC, macOf, type Rig, RSS, STATION_MAC, startRig, TX_OFFLOAD, until } from './rig.js';

for (const why of MISSING_DPDK) test("A port of DPDK's driver on our host", { skip: why }, () => {});

const ECHO = { mac: ECHO_MAC, source: '10.0.0.1', target: ECHO_IP };
const ETHERNET_HEADER = 14;
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
/** A frame of that many bytes; UDP over IPv4. */
const frameOf = (length: number, seed = length) =>
  buildPacket({ family: 4, protocol: 17, ipOptions: 0, tcpOptions: 0, tcpFlags: 0, payload: length - 42, seed }).bytes;

async function attach(t: TestContext, rig: Rig, dpdk: Dpdk, words: PmdWords = {}): Promise<Pmd> {
  const pmd = new Pmd(t, rig.machine, dpdk);
  await pmd.ready();
  await pmd.do('configure', words);
  await pmd.do('start');
  return pmd;
}

/** The link as the driver has it, once it has told its program of a change. */
async function linkAfter(pmd: Pmd, events: number) {
  const began = performance.now();
  for (;;) {
    const link = await pmd.do('link');
    if (Number(link.events) > events) return link;
    assert.ok(performance.now() - began < 10_000, 'no link event');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

for (const dpdk of DPDKS) {
  test(`DPDK ${dpdk.name}: basic and extended counters are ours, packet for packet, by size and kind`, async (t) => {
    const rig = startRig(t, { station: true });
    const { nic, station } = rig;
    const pmd = await attach(t, rig, dpdk);
    await pmd.do('allmulticast');
    const mac = macOf(nic);
    const group = Uint8Array.of(0x01, 0, 0x5e, 0, 0, 5);
    const broadcast = new Uint8Array(6).fill(0xff);
    const sizes = [60, 60, 64, 65, 127, 128, 255, 256, 511, 512, 1023, 1024, 1513, 1514];
    const kinds = (own: Uint8Array) => [own, own, own, group, broadcast];
    const to = (own: Uint8Array) => kinds(own).flatMap((target) => sizes.map((size) => ({ target, size })));
    const out = to(STATION_MAC).map(({ target, size }) => addressed(frameOf(size), target, mac));
    for (const bytes of out) await pmd.do('transmit', { flags: '', hex: hex(bytes) });
    await station.got(out.length);
    station.send(...to(mac).map(({ target, size }) => ({ bytes: addressed(frameOf(size), target, STATION_MAC) })));
    assert.equal((await pmd.numbers('collect', { count: out.length })).received, out.length);

    const bytes = out.reduce((sum, { length }) => sum + length, 0);
    const { counters } = nic.state();
    assert.deepEqual([counters.txPackets, counters.txBytes], [out.length, bytes]);
    assert.deepEqual([counters.rxPackets, counters.rxBytes], [out.length, bytes]);
    const stats = await pmd.numbers('stats');
    assert.deepEqual(
      [stats.opackets, stats.obytes, stats.ipackets, stats.ibytes],
      [out.length, bytes, out.length, bytes],
    );
    assert.deepEqual([stats.oerrors, stats.ierrors, stats.imissed, stats.nombuf], [0, 0, 0, 0]);
    const bins = {
      undersize: 2,
      size_64: 1,
      size_65_127: 2,
      size_128_255: 2,
      size_256_511: 2,
      size_512_1023: 2,
      size_1024_1518: 3,
    };
    const xstats = await pmd.numbers('xstats');
    for (const queue of ['tx_q0', 'rx_q0']) {
      for (const [name, count] of Object.entries(bins))
        assert.equal(xstats[`${queue}_${name}_packets`], 5 * count, `${queue} ${name}`);
      assert.equal(xstats[`${queue}_multicast_packets`], sizes.length);
      assert.equal(xstats[`${queue}_broadcast_packets`], sizes.length);
      assert.deepEqual([xstats[`${queue}_good_packets`], xstats[`${queue}_good_bytes`]], [out.length, bytes]);
    }
    await pmd.end();
  });

  test(`DPDK ${dpdk.name}: filters decide what it gets`, async (t) => {
    const rig = startRig(t, { station: true });
    const { nic, station } = rig;
    const pmd = await attach(t, rig, dpdk);
    const targets = {
      own: macOf(nic),
      broadcast: new Uint8Array(6).fill(0xff),
      multicast: Uint8Array.of(0x01, 0, 0x5e, 0, 0, 5),
      other: Uint8Array.of(2, 0, 0, 0, 0, 0x77),
    };
    const passing = async () => {
      const names = Object.keys(targets) as (keyof typeof targets)[];
      station.send(...names.map((name, i) => ({ bytes: addressed(frameOf(60 + i), targets[name], STATION_MAC) })));
      const got = await pmd.receive(names.length, 100);
      return got.map(({ bytes }) => names[bytes.length - 60]).join(' ');
    };
    assert.equal(await passing(), 'own broadcast');
    assert.equal(nic.state().packetFilter, 0x9);
    await pmd.do('allmulticast');
    assert.equal(await passing(), 'own broadcast multicast');
    assert.equal(nic.state().packetFilter, 0xd);
    await pmd.do('promiscuous');
    assert.equal(nic.state().packetFilter, 0x20);
    assert.equal(await passing(), 'own broadcast multicast other');
    await pmd.do('promiscuous', { on: false });
    assert.equal(await passing(), 'own broadcast multicast');
    await pmd.do('allmulticast', { on: false });
    assert.equal(await passing(), 'own broadcast');
    await pmd.do('stop');
    station.send({ bytes: addressed(frameOf(60), targets.own, STATION_MAC) });
    await pmd.do('start');
    assert.equal((await pmd.receive(1, 50)).length, 0, 'what came while it was stopped is not kept');
    assert.equal(await passing(), 'own broadcast');
    await pmd.end();
  });

  test(`DPDK ${dpdk.name}: the link goes down and up, at its speed; the driver is told, and nothing passes meanwhile`, async (t) => {
    const rig = startRig(t, { station: true, nic: { linkSpeedBps: 25e9 } });
    const { nic, station } = rig;
    const pmd = new Pmd(t, rig.machine, dpdk);
    await pmd.ready();
    for (const lsc of [true, false]) {
      await pmd.do('configure', { lsc });
      await pmd.do('start');
      const before = await pmd.do('link');
      assert.deepEqual([before.up, before.mbps, before.fullDuplex], [true, 25_000, true]);
      let events = Number(before.events);
      for (const up of [false, true, false, true]) {
        nic.setLink(up);
        const frame = { bytes: addressed(frameOf(100), macOf(nic), STATION_MAC) };
        station.send(frame);
        await pmd.do('transmit', { flags: '', hex: hex(addressed(frameOf(200), STATION_MAC, macOf(nic))) });
        const got = await pmd.receive(1, up ? 10_000 : 50);
        assert.equal(got.length, up ? 1 : 0);
        // With link interrupts on, DPDK says what it knew when it started; without, it asks.
        if (lsc) assert.equal((await linkAfter(pmd, events)).events, ++events);
        else {
          const link = await pmd.do('link');
          assert.deepEqual([link.up, link.mbps, link.events], [up, 25_000, events]);
        }
        if (up) assert.equal((await station.got(1))[0]!.bytes.length, 200);
        else assert.equal(station.take().length, 0);
      }
      await pmd.do('stop');
    }
    assert.equal(nic.state().deaths, 0);
    await pmd.end();
  });

  test(`DPDK ${dpdk.name}: MTU 1500, 9000, 1500: the driver attaches anew each time, frames pass up to it`, async (t) => {
    const rig = startRig(t, { station: true });
    const { nic, station } = rig;
    const pmd = new Pmd(t, rig.machine, dpdk);
    const words = { buffer: 9400, txoffloads: TX_OFFLOAD.MULTI_SEGS };
    await pmd.ready();
    await pmd.do('configure', words);
    const mtus = dpdk.version < 23 ? [1500] : [1500, 9000, 1500, 9000];
    for (const [i, mtu] of mtus.entries()) {
      if (i > 0) {
        await pmd.do('mtu', { bytes: mtu });
        assert.equal((await pmd.do('info')).mtu, mtu);
      }
      await pmd.do('start');
      assert.deepEqual([nic.mtu, nic.state().mtu], [mtu, mtu]);
      const longest = mtu + ETHERNET_HEADER;
      const sizes = [60, 1024, 1514, 4095, 4096, 4097, 8191, 9013, 9014].filter((size) => size <= longest);
      const out = sizes.map((size) => addressed(frameOf(size), STATION_MAC, macOf(nic)));
      for (const cut of [0, 2000]) {
        for (const bytes of out) await pmd.do('transmit', { flags: '', hex: hex(bytes), cut });
        assert.deepEqual(
          (await station.got(out.length)).map(({ bytes }) => hex(bytes)),
          out.map(hex),
        );
      }
      const back = sizes.map((size) => addressed(frameOf(size, size + 1), macOf(nic), STATION_MAC));
      station.send(...back.map((bytes) => ({ bytes })), {
        bytes: addressed(frameOf(longest + 1), macOf(nic), STATION_MAC),
      });
      const got = await pmd.receive(back.length + 1, 200);
      assert.deepEqual(
        got.map(({ bytes }) => hex(bytes)),
        back.map(hex),
      );
      // One byte more is refused by the host, and the driver counts it as its error.
      const errors = (await pmd.numbers('stats')).oerrors!;
      await pmd.do('transmit', { flags: '', hex: hex(addressed(frameOf(longest + 1), STATION_MAC, macOf(nic))) });
      let now = errors;
      for (let i = 0; i < 1000 && now === errors; i++) {
        assert.equal((await pmd.receive(1, 5)).length, 0);
        now = (await pmd.numbers('stats')).oerrors!;
      }
      assert.equal(now, errors + 1);
      assert.equal(nic.state().lastFrameError, 'FRAME_LENGTH');
      await pmd.do('stop');
    }
    if (dpdk.version < 23) assert.match((await pmd.try('mtu', { bytes: 9000 })).error!, /not supported/i);
    assert.equal(nic.state().deaths, 0);
    await pmd.end();
  });

  // These versions cannot widen again: they wait for as many new channels as they ask for, those that they have not counted.
  test(`DPDK ${dpdk.name}: 1, 4, and 1 queue in one opening`, async (t) => {
    const rig = startRig(t);
    const { nic } = rig;
    const pmd = await attach(t, rig, dpdk);
    for (const queues of [1, 4, 1]) {
      await pmd.do('stop');
      await pmd.do('configure', queues > 1 ? { rxq: queues, rss: RSS.IPV4 | RSS.IPV4_TCP } : {});
      await pmd.do('start');
      const { received, astray, queues: seen } = await pmd.do('flows', { ...ECHO, count: 1600, flows: 160 });
      assert.deepEqual([received, astray], [1600, 0]);
      assert.ok(
        (seen as number[]).every((n) => n > 0),
        `${seen}`,
      );
      // It leaves scaling on when it goes back to one queue.
      if (queues > 1) await pmd.do('reta', { queues: 0 });
    }
    const { subchannels, deaths, opens } = nic.state();
    assert.deepEqual([subchannels.length, deaths, opens], [3, 0, 1]);
    await pmd.end();
    await until(() => nic.phase === 'closed');
    assert.deepEqual(nic.state().subchannels, []);
  });

  test(`DPDK ${dpdk.name}: its device is withdrawn under load; it lives, the host too, and a new device is its next one`, async (t) => {
    const rig = startRig(t);
    const { host, nic } = rig;
    const pmd = await attach(t, rig, dpdk);
    const load = { ...ECHO, shortest: 64, longest: 1514 };
    const ending = pmd.try('ping', { ...load, ms: 300 });
    await until(() => nic.state().counters.txPackets! > 1000);
    host.removeNic('nic0');
    assert.deepEqual(host.state().nics, []);
    const { ok, lost, altered } = await ending;
    assert.deepEqual([ok, Number(lost) > 0, altered], [true, true, 0]);
    // It keeps its mappings, and can go on polling and sending. (To stop, it would ask the host, and wait for a minute.)
    assert.ok((await pmd.numbers('stats')).opackets! > 1000);
    assert.equal((await pmd.receive(1, 20)).length, 0);
    const next = host.addNic();
    const again = await attach(t, rig, dpdk);
    assert.deepEqual(
      await again.numbers('ping', { ...load, count: 1000 }).then((seen) => [seen.lost, seen.altered]),
      [0, 0],
    );
    assert.deepEqual([next.state().opens, next.state().deaths], [1, 0]);
    await again.end();
    assert.ok(pmd.program.alive);
    await pmd.kill();
  });

  test(`DPDK ${dpdk.name}: the latency that it asks for is how often our host looks at its monitors`, async (t) => {
    for (const [words, ms] of [
      ['', 0.05],
      [',latency=200', 0.2],
      // 0 stands for nothing; the driver itself refuses what does not fit, and leaves the host's own.
      [',latency=0', 0.1],
      [',latency=7000', 0.1],
    ] as const) {
      const rig = startRig(t);
      const { nic } = rig;
      const pmd = new Pmd(t, rig.machine, dpdk, ['-a', `vmbus:${nic.offer.uuid}${words}`]);
      await pmd.ready();
      await pmd.do('configure', { rxq: 4, rss: RSS.IPV4 });
      await pmd.do('start');
      assert.equal(nic.monitorMs, ms, words);
      assert.equal((await pmd.numbers('ping', { ...ECHO, count: 1000 })).lost, 0);
      await pmd.end();
    }
  });
}
