// Control calls: suspicions 17 to 24 of reading DPDK's driver (facts/dpdk.md 2.13), and that ours does better; grants, filters,
// events. Each test of a suspicion is named by its number there; what they say about VFs is for their driver.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RSS_TYPE, RX_OFFLOAD, TX_OFFLOAD } from '../../ethdev/constants.js';
import { PortError } from '../../ethdev/errors.js';
import type { LinkStatus } from '../../ethdev/types.js';
import { PACKET_FLAG } from '../../memory/layout.js';
import { indication, queryReply, words } from '../../netvsc/fake-host.js';
import { decodeRssParameters } from '../../wire/ndis.js';
import { type FakeRig, fakeRig, frameTo, grantSubchannels } from './testing.js';

const PEER = '02:00:00:00:00:01';
const GROUP = '01:00:5e:00:00:07';
const BROADCAST = 'ff:ff:ff:ff:ff:ff';

/** Packet filters that the host was told, in their order. */
function filters(rig: FakeRig): number[] {
  const list: number[] = [];
  rig.host.onRequest = ({ name, bytes }) => {
    if (name === 'set 1010e') list.push(bytes.getUint32(28, true));
  };
  return list;
}

function refuse(rig: FakeRig, name: string): void {
  rig.host.answers.set(name, (host, request) => {
    host.complete(request, words(108, 1));
    host.rndis(words(0x80000005, 16, request.requestId, 0xc0000001));
  });
}

/** What of these frames the port hands out. */
async function heard(rig: FakeRig, ...destinations: string[]): Promise<string[]> {
  for (const [i, destination] of destinations.entries()) rig.host.frame(frameTo(destination, 60 + i, i));
  rig.host.frame(frameTo(BROADCAST, 500, 0));
  const got: Uint8Array[] = [];
  await rig.until('they came', () => {
    got.push(...rig.frames());
    return got.at(-1)?.length === 500;
  });
  return got.slice(0, -1).map((frame) => destinations[frame.length - 60]!);
}

test('17. offloads of both directions are switched on in both, and off again', async (t) => {
  const rig = await fakeRig(t);
  const sent: number[][] = [];
  rig.host.onRequest = ({ name, bytes }) => {
    // ip4, tcp4, udp4, tcp6, udp6; large sends
    if (name === 'set fc01020c') sent.push([4, 5, 6, 7, 8, 11, 12].map((at) => bytes.getUint8(28 + at)));
  };
  const { rxOffloads, txOffloads } = rig.port.info();
  const checksums = RX_OFFLOAD.IPV4_CKSUM | RX_OFFLOAD.TCP_CKSUM | RX_OFFLOAD.UDP_CKSUM;
  assert.equal(rxOffloads & checksums, checksums);
  const configure = (rx: number, tx: number) =>
    rig.run(rig.port.configure({ rxQueues: 1, txQueues: 1, rxOffloads: rx, txOffloads: tx }));
  await configure(checksums, txOffloads);
  await configure(0, TX_OFFLOAD.TCP_CKSUM);
  await configure(RX_OFFLOAD.UDP_CKSUM, 0);
  await configure(0, 0);
  assert.deepEqual(sent, [
    [4, 4, 4, 4, 4, 2, 2],
    [1, 2, 1, 2, 1, 1, 1],
    [1, 1, 3, 1, 3, 1, 1],
    [1, 1, 1, 1, 1, 1, 1],
  ]);
});

test('18. promiscuous is in force after every start, and while all-multicast changes; what the host refuses is an error', async (t) => {
  const rig = await fakeRig(t);
  const list = filters(rig);
  await rig.run(rig.port.setPromiscuous(true));
  await rig.start();
  assert.deepEqual(list, [0x20]);
  await rig.run(rig.port.setAllMulticast(true));
  await rig.run(rig.port.setAllMulticast(false));
  assert.deepEqual(list, [0x20, 0x20, 0x20]);
  await rig.run(rig.port.stop());
  await rig.run(rig.port.start());
  assert.deepEqual(list.slice(3), [0, 0x20]);
  refuse(rig, 'set 1010e');
  await assert.rejects(rig.run(rig.port.setPromiscuous(false)), (error: PortError) => {
    assert.ok(error instanceof PortError);
    assert.equal(error.code, 'EIO');
    assert.match(error.message, /RNDIS set packet filter: the host answered RNDIS status 0xc0000001/);
    return true;
  });
  assert.equal(rig.port.filter.promiscuous, true);
  assert.deepEqual(await heard(rig, PEER), [PEER], 'what was in force is');
  rig.host.answers.clear();
  await rig.run(rig.port.setPromiscuous(false));
  assert.equal(list.at(-1), 0x9);
});

test('19. link events are in force the moment they are told of, a change of speed alone too', async (t) => {
  const rig = await fakeRig(t);
  await rig.start();
  const events: LinkStatus[] = [];
  rig.port.on('link', (link) => {
    assert.deepEqual(link, rig.port.link());
    events.push(link);
  });
  const said = [indication(0x40010013, words(250_000_000)), indication(0x4001000c), indication(0x4001000b)];
  for (const [i, message] of said.entries()) {
    rig.host.rndis(message);
    await rig.until('it is heard', () => {
      rig.frames();
      return events.length === i + 1;
    });
  }
  assert.deepEqual(
    events.map(({ up, speedMbps }) => [up, speedMbps]),
    [
      [true, 25_000],
      [false, 25_000],
      [true, 25_000],
    ],
  );
  // Also when nobody polls, and while the port is stopped.
  await rig.run(rig.port.stop());
  rig.host.rndis(indication(0x4001000c));
  await rig.until('it is heard', () => !rig.port.link().up);
});

test('20. an MTU that the host does not give is an error, the old one stays; redirection table, address and filter stay over a change', async (t) => {
  const rig = await fakeRig(t);
  grantSubchannels(rig, 1);
  await rig.start({ rxQueues: 2, txQueues: 2 });
  const table = Array.from({ length: 128 }, (_, i) => Number(i % 5 === 0));
  await rig.run(rig.port.setRss({ table }));
  await rig.run(rig.port.stop());
  await assert.rejects(rig.run(rig.port.setMtu(9000)), /MTU: the host refused 9000, it gave 1500/);
  assert.equal(rig.port.mtu, 1500);
  rig.host.answers.set('nvsp 101', (host, request) => host.complete(request, words(102, 2, 1, 0, 0, 0, 0)));
  await assert.rejects(rig.run(rig.port.setMtu(1600)), /NVSP receive buffer: the host answered status/);
  rig.host.answers.delete('nvsp 101');
  assert.equal(rig.port.state, 'removed', 'nor was there a way back');
});

test('20. and over a change that works', async (t) => {
  const rig = await fakeRig(t);
  grantSubchannels(rig, 1);
  const macs: string[] = [];
  const tables: number[][] = [];
  rig.host.onRequest = ({ name, bytes }) => {
    if (name === 'set 10204') tables.push([...decodeRssParameters(new Uint8Array(bytes.buffer).slice(28)).table]);
    if (name === 'set 1021b') macs.push(Buffer.from(new Uint8Array(bytes.buffer).slice(-24)).toString('utf16le'));
  };
  await rig.start({ rxQueues: 2, txQueues: 2 });
  await rig.run(rig.port.setMac('02:aa:bb:cc:dd:ee'));
  const table = Array.from({ length: 128 }, (_, i) => Number(i % 5 === 0));
  await rig.run(rig.port.setRss({ table }));
  await rig.run(rig.port.stop());
  rig.host.largestMtu = 9000;
  await rig.run(rig.port.setMtu(4000));
  assert.equal(rig.port.mtu, 4000);
  assert.deepEqual(tables.at(-1), table);
  assert.deepEqual(rig.port.rss().table, table);
  assert.deepEqual(macs, ['02AABBCCDDEE', '02AABBCCDDEE']);
  await rig.run(rig.port.start());
  assert.deepEqual(await heard(rig, '02:aa:bb:cc:dd:ee', '00:15:5d:01:02:03'), ['02:aa:bb:cc:dd:ee']);
});

test('21. extended statistics: as many values as names, all zero after a reset, whatever the device is doing', async (t) => {
  const rig = await fakeRig(t);
  assert.ok(rig.port.xstats().length >= 8);
  await rig.start();
  rig.host.frame(frameTo(rig.port.mac, 200, 1));
  rig.send([rig.mbuf(frameTo(GROUP, 64, 1)), rig.mbuf(frameTo(BROADCAST, 1514, 1))]);
  await rig.until('there is something to count', () => {
    rig.frames();
    const { ipackets, opackets } = rig.port.stats();
    return ipackets === 1 && opackets === 2;
  });
  const counted = new Map(rig.port.xstats());
  assert.equal(counted.get('rx_q0_size_128_255_packets'), 1);
  assert.equal(counted.get('tx_q0_multicast_packets'), 1);
  assert.equal(counted.get('tx_q0_broadcast_packets'), 1);
  assert.equal(counted.get('tx_q0_size_64_packets'), 1);
  assert.equal(counted.get('tx_q0_size_1024_1518_packets'), 1);
  rig.port.resetStats();
  assert.deepEqual(
    rig.port.xstats().filter(([, value]) => value !== 0),
    [],
  );
  const names = rig.port.xstats().map(([name]) => name);
  const own = names.slice(names.indexOf('tx_q0_good_packets'));
  assert.deepEqual(
    own.slice(0, 15),
    [
      ...[
        'good_packets',
        'good_bytes',
        'errors',
        'ring full',
        'channel full',
        'multicast_packets',
        'broadcast_packets',
      ],
      ...[
        'undersize_packets',
        'size_64_packets',
        'size_65_127_packets',
        'size_128_255_packets',
        'size_256_511_packets',
      ],
      ...['size_512_1023_packets', 'size_1024_1518_packets', 'size_1519_max_packets'],
    ].map((name) => `tx_q0_${name}`),
  );
  await rig.run(rig.port.stop());
  rig.host.largestMtu = 9000;
  await rig.run(rig.port.setMtu(4000)); // another opening: nothing is counted twice
  assert.equal(rig.port.stats().opackets, 0);
});

test('22. a refused request is an error with its reason; a bad table leaves the old one whole', async (t) => {
  const rig = await fakeRig(t);
  grantSubchannels(rig, 3);
  await rig.start({ rxQueues: 3, txQueues: 4 });
  const before = rig.port.rss();
  const bad = [...before.table];
  bad[77] = 3; // tx only
  await assert.rejects(rig.run(rig.port.setRss({ table: bad })), /redirection table: rx queue: expected 0 to 2, got 3/);
  await assert.rejects(rig.run(rig.port.setRss({ table: [0, 1] })), /redirection table: expected 128 entries, got 2/);
  refuse(rig, 'set 10204');
  await assert.rejects(rig.run(rig.port.setRss({ types: RSS_TYPE.IPV4 })), (error: PortError) => {
    assert.equal(error.code, 'EIO');
    assert.match(error.message, /RSS: the host refused the parameters/);
    return true;
  });
  assert.deepEqual(rig.port.rss(), before);
  // A queue that cannot be set up leaves the others, and the control channel, as they are.
  await rig.run(rig.port.stop());
  rig.host.answers.clear();
  grantSubchannels(rig, 3);
  await rig.run(rig.port.configure({ rxQueues: 1, txQueues: 1 }));
  const tiny = rig.createPool({ count: 8, room: 128 + 512 });
  assert.throws(() => rig.port.setupRxQueue(0, { descriptors: 0, pool: tiny }), /expected at least 1024 bytes/);
  rig.port.setupRxQueue(0, { descriptors: 0, pool: rig.pool });
  rig.port.setupTxQueue(0);
  await rig.run(rig.port.start());
  assert.deepEqual(await heard(rig, rig.port.mac), [rig.port.mac]);
});

test('23. bursts do no control work: what the host says is dealt with by the control thread, between them', async (t) => {
  const rig = await fakeRig(t);
  await rig.start();
  let inBurst = false;
  const seen: boolean[] = [];
  rig.port.on('link', () => seen.push(inBurst));
  for (let i = 0; i < 5; i++) {
    rig.host.rndis(indication(0x4001000c));
    rig.host.rndis(words(8, 12, i)); // keepalive
    rig.host.inBand(words(128, 1, i), 5, 0x80000000, true); // a VF
    inBurst = true;
    assert.deepEqual(rig.frames(), []);
    assert.equal(seen.length, i, 'nothing happened in the burst');
    inBurst = false;
    await rig.until('it happens later', () => seen.length === i + 1);
  }
  assert.deepEqual(seen, new Array(5).fill(false));
  await rig.until('all are answered', () => rig.host.acknowledged.length === 5);
});

test('24. limits of segments are what info says; a host that talks of another data path stops nothing', async (t) => {
  const rig = await fakeRig(t, { devargs: 'tx_copybreak=0' });
  await rig.start({ txOffloads: TX_OFFLOAD.MULTI_SEGS });
  const { maxTxSegments } = rig.port.info();
  rig.host.inBand(words(129, 1), 1, 0x80000000, true);
  const frame = frameTo(PEER, maxTxSegments * 8, 1);
  assert.equal(rig.send([rig.mbuf(frame, 8)]), 1);
  await rig.until('it came', () => rig.host.frames.length === 1);
  assert.deepEqual(rig.host.frames[0], frame);
  assert.equal(rig.xstat('tx_q0_direct_packets'), 1);
  assert.deepEqual(await heard(rig, rig.port.mac), [rig.port.mac]);
});

for (const [granted, rxQueues, txQueues] of [
  [0, 4, 4],
  [1, 4, 4],
  [2, 4, 8],
  [62, 64, 64],
  [3, 1, 4],
  [7, 2, 8],
] as const) {
  test(`the host gives ${granted} of ${Math.max(rxQueues, txQueues) - 1} subchannels: ${rxQueues} rx and ${txQueues} tx queues work`, async (t) => {
    const rig = await fakeRig(t, {
      ringBytes: 32 << 10,
      prepare: ({ host }) => {
        host.answers.set('query 10203', (made, request) => {
          made.complete(request, words(108, 1));
          const caps = new Uint8Array(18);
          caps.set(words(0x00120288, 0x301, 1, 64));
          caps[16] = 128;
          made.rndis(queryReply(request.requestId, caps));
        });
      },
    });
    const asked = grantSubchannels(rig, granted);
    const tables: number[][] = [];
    let off = 0;
    rig.host.onRequest = ({ name, bytes }) => {
      if (name !== 'set 10204') return;
      const { flags, table } = decodeRssParameters(new Uint8Array(bytes.buffer).slice(28));
      if (flags & 0x10) off++;
      else tables.push([...table]);
    };
    await rig.start({ rxQueues, txQueues });
    assert.deepEqual(asked, [Math.max(rxQueues, txQueues) - 1]);
    const channels = granted + 1;
    const expected = channels < Math.max(rxQueues, txQueues) ? 1 : 0;
    assert.equal(rig.lines.filter((line) => line.includes(`the host gave ${channels}`)).length, expected);
    const receiving = Math.min(rxQueues, channels);
    if (rxQueues > 1 && channels > 1) {
      assert.deepEqual(
        tables.at(-1),
        Array.from({ length: 128 }, (_, i) => (i % rxQueues) % channels),
      );
      assert.ok(Math.max(...rig.port.rss().table) < receiving);
    } else assert.deepEqual(tables, [], `off ${off} times`);
    if (receiving < rxQueues) {
      const table = new Array<number>(128).fill(rxQueues - 1);
      await assert.rejects(rig.run(rig.port.setRss({ table })), new RegExp(`the host gave ${channels} channels`));
    }
    // Queue numbers that fall on the primary channel: this host hears no other.
    let sent = 0;
    for (let queue = 0; queue < txQueues; queue += channels, sent++)
      assert.equal(rig.send([rig.mbuf(frameTo(PEER, 60 + queue, queue))], queue), 1);
    await rig.until('they came', () => rig.host.frames.length === sent);
    assert.deepEqual(await heard(rig, rig.port.mac), [rig.port.mac]);
    for (let queue = 1; queue < rxQueues; queue++) assert.deepEqual(rig.frames(queue), []);
  });
}

test('software filters: addresses, groups and VLANs, alone and together, at once and after a start', async (t) => {
  const rig = await fakeRig(t);
  const list = filters(rig);
  const { softwareFilters, maxMacAddresses } = rig.port.info();
  assert.deepEqual(softwareFilters, ['mac', 'multicast', 'vlan']);
  await rig.start();
  const own = rig.port.mac;
  const other = '02:00:00:00:00:22';
  const all = [own, other, PEER, GROUP, '33:33:00:00:00:01'];
  assert.deepEqual(await heard(rig, ...all), [own]);
  await rig.run(rig.port.addMac(other));
  assert.equal(list.at(-1), 0x20, 'the host knows of one address only');
  assert.deepEqual(await heard(rig, ...all), [own, other]);
  await rig.run(rig.port.setMulticast([GROUP]));
  assert.deepEqual(await heard(rig, ...all), [own, other, GROUP]);
  await rig.run(rig.port.removeMac(other));
  assert.equal(list.at(-1), 0xd);
  assert.deepEqual(await heard(rig, ...all), [own, GROUP]);
  await rig.run(rig.port.setAllMulticast(true));
  assert.deepEqual(await heard(rig, ...all), [own, GROUP, '33:33:00:00:00:01']);
  await rig.run(rig.port.setAllMulticast(false));
  await rig.run(rig.port.stop());
  await rig.run(rig.port.start());
  assert.deepEqual(await heard(rig, ...all), [own, GROUP]);
  await rig.run(rig.port.setPromiscuous(true));
  assert.deepEqual(await heard(rig, ...all), all);
  await rig.run(rig.port.setPromiscuous(false));
  const filtered = rig.xstat('rx_q0_filtered_packets');
  await heard(rig, PEER, PEER);
  assert.equal(rig.xstat('rx_q0_filtered_packets') - filtered, 2);
  assert.equal(rig.port.stats().ierrors, 0);
  // The host takes a new address itself, or it is filtered here.
  refuse(rig, 'set 1021b');
  await rig.run(rig.port.setMac(other));
  assert.equal(rig.port.mac, other);
  assert.equal(list.at(-1), 0x20);
  assert.deepEqual(await heard(rig, ...all), [other, GROUP]);
  rig.host.answers.clear();
  await rig.run(rig.port.setMac(own));
  assert.deepEqual(await heard(rig, ...all), [own, GROUP]);
  for (let i = 1; i < maxMacAddresses; i++)
    await rig.run(rig.port.addMac(`02:00:00:00:01:${i.toString(16).padStart(2, '0')}`));
  await assert.rejects(rig.run(rig.port.addMac(other)), /MAC: expected at most 64 addresses/);
  assert.deepEqual(await heard(rig, '02:00:00:00:01:3f', '02:00:00:00:01:40'), ['02:00:00:00:01:3f']);
});

test('VLAN filter and tags: only with the offload, untagged and priority tags pass', async (t) => {
  const rig = await fakeRig(t);
  await rig.start({ rxOffloads: RX_OFFLOAD.VLAN_FILTER | RX_OFFLOAD.VLAN_STRIP });
  await rig.run(rig.port.vlanFilter(100, true));
  await rig.run(rig.port.vlanFilter(4095, true));
  const tagged = (tci: number) => {
    const info = ((tci >> 13) & 7) | ((tci >> 9) & 8) | ((tci & 0xfff) << 4);
    rig.host.frame(frameTo(rig.port.mac, 60, tci), words(16, 6, 12, info));
  };
  const tags = async () => {
    const list: number[] = [];
    for (const tci of [100, 101, 0xf064, 4095, 0, 0x6000, 228]) tagged(tci);
    rig.host.frame(frameTo(rig.port.mac, 500, 0));
    await rig.until('they came', () => {
      for (const mbuf of rig.receive()) {
        const flags = rig.mbufs.flags(mbuf);
        list.push(flags & PACKET_FLAG.VLAN ? rig.mbufs.vlanTci(mbuf) : -1);
        rig.mbufs.free(mbuf);
      }
      return list.includes(-1);
    });
    return list;
  };
  assert.deepEqual(await tags(), [100, 0xf064, 4095, 0, 0x6000, -1]);
  await rig.run(rig.port.vlanFilter(100, false));
  assert.deepEqual(await tags(), [4095, 0, 0x6000, -1]);
  await assert.rejects(rig.run(rig.port.vlanFilter(4096, true)), /VLAN: expected 0 to 4095, got 4096/);
});
