// What a program changes of a port while it exists (facts/linux-guest.md 5.1): offloads, sections of the buffers, hash levels, and the
// host's table for the choice of transmit queues. What the host refuses leaves everything as it was.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { RSS_TYPE, RX_OFFLOAD, TX_OFFLOAD } from '../../ethdev/constants.js';
import { PortError, type PortErrorCode } from '../../ethdev/errors.js';
import { type FakeHost, indication, offloadCapabilities, packet, words } from '../../netvsc/fake-host.js';
import { decodeRssParameters } from '../../wire/ndis.js';
import { type FakeRig, type FakeRigOptions, fakeRig, frameTo, grantSubchannels } from './testing.js';

const { TCP_LRO, TCP_CKSUM, UDP_CKSUM } = RX_OFFLOAD;
const PEER = '02:00:00:00:00:01';

/** A host from Windows Server 2019 on: it coalesces. */
function withRsc(host: FakeHost): void {
  host.capabilities = offloadCapabilities();
  host.capabilities.set([1, 1], 144);
}

const started = async (t: TestContext, options: FakeRigOptions = {}, config: Parameters<FakeRig['start']>[0] = {}) => {
  const rig = await fakeRig(t, { prepare: ({ host }) => withRsc(host), ...options });
  await rig.start(config);
  return rig;
};

/** OID offload parameters that the host gets: checksums (ip4 tcp4 udp4 tcp6 udp6), LSO of both families, RSC of both. */
function parameters(rig: FakeRig): string[] {
  const list: string[] = [];
  rig.host.onRequest = ({ name, bytes }) => {
    if (name === 'set fc01020c')
      list.push([4, 5, 6, 7, 8, 11, 12, 22, 23].map((at) => bytes.getUint8(28 + at)).join(''));
  };
  return list;
}

function refuse(rig: FakeRig, name: string): void {
  rig.host.answers.set(name, (host, request) => {
    host.complete(request, words(108, 1));
    host.rndis(words(0x80000005, 16, request.requestId, 0xc0000001));
  });
}

const refused = (code: PortErrorCode, text: RegExp) => (error: unknown) => {
  assert.ok(error instanceof PortError, String(error));
  assert.equal(error.code, code);
  assert.match(error.message, text);
  return true;
};

/** Packet infos of piece `flags` of a coalesced packet: packet id, internal type 1. */
const piece = (flags: number): Uint8Array => words(16, 0x8000_0001, 12, 1 | (flags << 8));
const [FIRST, MIDDLE, LAST] = [3, 1, 5];

test('coalescing is switched while packets flow, for both families at once; what comes meanwhile is taken', async (t) => {
  const rig = await started(t, {}, { rxOffloads: TCP_CKSUM });
  const list = parameters(rig);
  assert.ok(rig.port.info().rxOffloads & TCP_LRO, 'the host offers it');
  const switched = (rxOffloads: number) => rig.run(rig.port.setOffloads({ rxOffloads }));
  await switched(TCP_CKSUM | TCP_LRO);
  assert.deepEqual(rig.port.offloads(), { rxOffloads: TCP_CKSUM | TCP_LRO, txOffloads: 0 });
  // A packet that is longer than one buffer, on its way while coalescing goes off again.
  const long = frameTo(rig.port.mac, 3000, 1);
  const off = switched(TCP_CKSUM);
  transferAll(rig, [rndis(long.subarray(0, 1500), piece(FIRST)), rndis(long.subarray(1500), piece(LAST))]);
  await off;
  assert.deepEqual(list, ['131311122', '131311111']);
  assert.equal(rig.port.config!.rxOffloads, TCP_CKSUM);
  const got: Uint8Array[] = [];
  await rig.until('it comes', () => {
    got.push(...rig.frames());
    return got.length > 0;
  });
  assert.deepEqual(got, [long]);
  assert.equal(rig.xstat('rx_q0_too_long_packets'), 0);
});

test('a change that the host refuses leaves the offloads that were', async (t) => {
  const rig = await started(t, {}, { rxOffloads: TCP_LRO, txOffloads: TX_OFFLOAD.TCP_CKSUM });
  const before = rig.port.offloads();
  refuse(rig, 'set fc01020c');
  const change = { rxOffloads: 0, txOffloads: 0 };
  await assert.rejects(rig.run(rig.port.setOffloads(change)), refused('EIO', /offload parameters.*0xc0000001/));
  assert.deepEqual(rig.port.offloads(), before);
  assert.equal(rig.port.config!.rxOffloads, TCP_LRO);
  // An indication that follows finds the old ones wanted.
  const now = new Uint8Array(rig.host.capabilities);
  rig.host.rndis(indication(0x40020006, now));
  await rig.turns(3);
  assert.deepEqual(rig.port.offloads(), before);
});

test('what the host switches off by itself is no more in force, and the port says so', async (t) => {
  const rig = await started(t, {}, { rxOffloads: TCP_LRO | TCP_CKSUM });
  const events: unknown[] = [];
  rig.port.on('offloads', (offloads) => events.push(offloads));
  const now = new Uint8Array(rig.host.capabilities);
  now.set([0, 0], 144);
  rig.host.rndis(indication(0x40020006, now));
  await rig.until('it is heard', () => rig.frames().length === 0 && events.length > 0);
  assert.deepEqual(events, [{ rxOffloads: TCP_CKSUM, txOffloads: 0 }]);
  assert.equal(rig.port.config!.rxOffloads, TCP_LRO | TCP_CKSUM, 'still wanted');
});

test('tag stripping and hashes need nothing of the host: it is not asked', async (t) => {
  const rig = await started(t);
  const list = parameters(rig);
  const vlan = words(16, 6, 12, 5 << 4);
  const feed = async () => {
    rig.host.frame(frameTo(rig.port.mac, 100, 3), vlan);
    let got: Uint8Array[] = [];
    await rig.until('it comes', () => {
      got = rig.frames();
      return got.length > 0;
    });
    return got[0]!.length;
  };
  assert.equal(await feed(), 104);
  await rig.run(rig.port.setOffloads({ rxOffloads: RX_OFFLOAD.VLAN_STRIP }));
  assert.equal(await feed(), 100);
  assert.deepEqual(list, []);
});

test('old hosts: what they have not is refused with the reason', async (t) => {
  const caps = offloadCapabilities();
  // Windows Server 2012: no UDP checksums (facts/linux-guest.md 2.1).
  for (const at of [8, 16, 24, 32]) caps[at]! &= ~0x40;
  const prepare = ({ host }: FakeRig) => {
    host.newestVersion = 0x40000;
    host.capabilities = caps;
  };
  const rig = await fakeRig(t, { prepare });
  const configure = (change: object) => rig.run(rig.port.configure({ rxQueues: 1, txQueues: 1, ...change }));
  const lro =
    /unsupported 0x10 \(TCP_LRO\): receive coalescing came with Windows Server 2019 \(NVSP 6.1\), the host has NVSP 4$/;
  const udp = /UDP_CKSUM\): UDP checksums came with Windows Server 2012 R2 \(NVSP 5\), the host has NVSP 4$/;
  await assert.rejects(configure({ rxOffloads: TCP_LRO }), refused('EINVAL', lro));
  await assert.rejects(configure({ rxOffloads: UDP_CKSUM }), refused('EINVAL', udp));
  await assert.rejects(configure({ txOffloads: TX_OFFLOAD.UDP_CKSUM }), refused('EINVAL', udp));
  const channels = /rx queues: expected 0 to 1, got 2 \(channels came with Windows Server 2012 R2/;
  await assert.rejects(configure({ rxQueues: 2 }), refused('EINVAL', channels));
  await rig.start();
  await assert.rejects(rig.run(rig.port.setOffloads({ rxOffloads: TCP_LRO })), refused('EINVAL', lro));
  const key = new Uint8Array(40);
  const none = /receive-side scaling: channels came with Windows Server 2012 R2 \(NVSP 5\)/;
  await assert.rejects(rig.run(rig.port.setRss({ key })), refused('ENOTSUP', none));
});

test('a host of today that has no coalescing or no UDP hashing says only that', async (t) => {
  const rig = await fakeRig(t);
  grantSubchannels(rig, 3);
  const configure = (change: object) => rig.run(rig.port.configure({ rxQueues: 2, txQueues: 2, ...change }));
  await assert.rejects(configure({ rxOffloads: TCP_LRO }), /the host does not offer receive coalescing/);
  const types = RSS_TYPE.IPV4 | RSS_TYPE.IPV4_UDP;
  await assert.rejects(configure({ rss: { types } }), /IPV4_UDP\): the host does not hash UDP by ports/);
  await assert.rejects(configure({ rxQueues: 9 }), /expected 0 to 8, got 9 \(the host has 8 channels at most\)/);
  await assert.rejects(configure({ mtu: 65_522 }), /MTU: expected 68 to 65521, got 65522/);
  assert.deepEqual(rig.port.info().maxTsoBytes, { ipv4: 62_780, ipv6: 62_780 });
  assert.equal(rig.port.info().channels, 1);
});

test('sections: as many as are asked for, within the limits; MTU, address and counters stay', async (t) => {
  const rig = await started(t, {}, { mtu: 1400 });
  const { rx, tx, maxRx, maxTx, minRx, minTx } = rig.port.rings();
  assert.deepEqual([rx, maxRx, minRx], [Math.floor((1 << 20) / 1806), Math.floor((1 << 20) / 1806), 10]);
  assert.deepEqual([tx, maxTx, minTx], [84, 84, 10]);
  const setRings = (sizes: { rx?: number; tx?: number }) => rig.run(rig.port.setRings(sizes));
  await assert.rejects(setRings({ rx: 100 }), refused('EBUSY', /rings: the port has to be stopped first/));
  rig.host.frame(frameTo(rig.port.mac, 100, 1));
  await rig.until('it comes', () => rig.frames().length === 1);
  await rig.run(rig.port.setMac('02:aa:bb:cc:dd:ee'));
  await rig.run(rig.port.stop());
  await setRings({ rx: 100, tx: 20 });
  const now = rig.port.rings();
  // The buffer has whole pages.
  assert.ok(now.rx >= 100 && now.rx <= 102, `${now.rx} sections`);
  assert.deepEqual([now.tx, now.maxRx, now.maxTx], [20, maxRx, maxTx]);
  assert.deepEqual([rig.port.mtu, rig.port.mac, rig.port.stats().ipackets], [1400, '02:aa:bb:cc:dd:ee', 1]);
  const openings = rig.host.openings;
  await setRings({ rx: now.rx, tx: 20 });
  assert.equal(rig.host.openings, openings, 'nothing to change');
  await setRings({ tx: 1 });
  assert.deepEqual([rig.port.rings().tx, rig.port.rings().rx], [10, now.rx]);
  await setRings({ rx: 1e9, tx: 1e9 });
  assert.deepEqual(rig.port.rings(), { rx, tx, maxRx, maxTx, minRx, minTx });
  await assert.rejects(setRings({ rx: 1.5 }), refused('EINVAL', /rx ring: expected a number of sections, got 1.5/));
  // Larger frames: the same buffer has fewer sections.
  rig.host.suballocationBytes = 9014 + 292;
  await rig.run(rig.port.setMtu(9000).catch(() => rig.port.setMtu(1400)));
  assert.ok(rig.port.rings().rx < 120);
});

test('sections that the host refuses: the old ones are in force again, packets flow', async (t) => {
  const rig = await started(t);
  const before = rig.port.rings();
  await rig.run(rig.port.stop());
  let refusals = 1;
  rig.host.answers.set('nvsp 101', (host, request, usual) => {
    if (refusals-- > 0) host.complete(request, words(102, 2, 1, 0, 0, 0, 0));
    else usual();
  });
  await assert.rejects(rig.run(rig.port.setRings({ rx: 50, tx: 20 })), refused('EIO', /NVSP receive buffer/));
  assert.deepEqual(rig.port.rings(), before);
  await rig.run(rig.port.start());
  rig.host.frame(frameTo(rig.port.mac, 100, 1));
  await rig.until('it comes', () => rig.frames().length === 1);
});

test('when the sections run out packets go by pointers: none is lost, and it is counted', async (t) => {
  const rig = await started(t, { devargs: 'tx_copybreak=2000' });
  await rig.run(rig.port.stop());
  await rig.run(rig.port.setRings({ tx: 10 }));
  await rig.run(rig.port.start());
  rig.host.holdSends = true;
  const sent: Uint8Array[] = [];
  for (let i = 0; i < 40; i++) {
    const frame = frameTo(PEER, 1400, i);
    assert.equal(rig.send([rig.mbuf(frame)]), 1, `packet ${i}`);
    sent.push(frame);
  }
  await rig.turns(2);
  assert.deepEqual(rig.host.frames, sent, 'in their order');
  assert.equal(rig.xstat('tx_q0_copied_packets'), 10);
  assert.equal(rig.xstat('tx_q0_direct_packets'), 30);
  assert.equal(rig.xstat('tx_q0_no_section'), 30);
  rig.host.holdSends = false;
  rig.host.releaseSends();
  await rig.until('all are completed', () => {
    rig.frames();
    return rig.port.stats().opackets === 40;
  });
  assert.equal(rig.pool.available, rig.pool.count);
  rig.send([rig.mbuf(frameTo(PEER, 1400, 1))]);
  assert.equal(rig.xstat('tx_q0_copied_packets'), 11, 'sections are there again');
});

const table = (...entries: number[]) =>
  words(134, 16, 12, ...Array.from({ length: 16 }, (_, i) => entries[i % entries.length]!));
const repeated = (...entries: number[]) => Array.from({ length: 16 }, (_, i) => entries[i % entries.length]!);

test('transmit queues: in turn at first, then as the host says; tables that make no sense are not followed', async (t) => {
  const rig = await fakeRig(t);
  grantSubchannels(rig, 3);
  await rig.start({ rxQueues: 4, txQueues: 4 });
  const tables: (readonly number[])[] = [];
  rig.port.on('transmitTable', (entries) => tables.push(entries));
  assert.deepEqual(rig.port.transmitTable(), repeated(0, 1, 2, 3));
  const told = async (message: Uint8Array) => {
    const before = tables.length;
    rig.host.inBand(message);
    await rig.until('it is heard', () => rig.frames().length === 0 && tables.length > before);
    assert.deepEqual(rig.port.transmitTable(), tables.at(-1));
    return tables.at(-1);
  };
  assert.deepEqual(await told(table(3, 2, 1, 0)), repeated(3, 2, 1, 0));
  assert.deepEqual(await told(table(7, 6)), repeated(0, 1, 2, 3), 'half of it for one queue');
  assert.deepEqual(await told(table(1)), repeated(0, 1, 2, 3), 'everything for one queue');
  assert.deepEqual(await told(table(4, 5, 6, 7)), repeated(0, 1, 2, 3), 'wrapped round');
  assert.deepEqual(await told(table(2, 2, 0, 1)), repeated(0, 1, 2, 3));
  assert.deepEqual(await told(table(0, 1, 2, 3, 3, 2, 1)), repeated(0, 1, 2, 3, 3, 2, 1));
  rig.host.inBand(words(134, 16, 8, ...new Array<number>(16).fill(1)));
  rig.frames();
  await rig.turns(3);
  assert.equal(tables.length, 6, 'a malformed one is none');
  // Fewer tx queues than channels.
  await rig.run(rig.port.stop());
  await rig.run(rig.port.configure({ rxQueues: 4, txQueues: 3 }));
  assert.deepEqual(
    rig.port.transmitTable(),
    repeated(0, 1, 2, 3, 3, 2, 1).map((queue) => queue % 3),
  );
});

test('hash levels: by protocol; receive follows where the host has the hash type, transmit always', async (t) => {
  const rig = await fakeRig(t);
  grantSubchannels(rig, 1);
  const types: number[] = [];
  rig.host.onRequest = ({ name, bytes }) => {
    if (name !== 'set 10204') return;
    const { flags, hashInformation } = decodeRssParameters(new Uint8Array(bytes.buffer).slice(28));
    if (flags === 0) types.push(hashInformation);
  };
  await rig.start({ rxQueues: 2, txQueues: 2 });
  const [IP, TCP4, TCP6] = [0x501, 0x200, 0x1000];
  assert.equal(types.at(-1), IP | TCP4 | TCP6);
  const { port } = rig;
  assert.deepEqual(port.flowHash('tcp4'), { level: 'L4', receive: true });
  assert.deepEqual(port.flowHash('udp4'), { level: 'L4', receive: false }, 'the host has no such type');
  const set = (...change: Parameters<typeof port.setFlowHash>) => rig.run(port.setFlowHash(...change));
  await set('tcp4', 'L3');
  assert.equal(types.at(-1), IP | TCP6);
  assert.deepEqual(port.flowHash('tcp4'), { level: 'L3', receive: true });
  assert.deepEqual(port.flowHash('tcp6'), { level: 'L4', receive: true });
  await set('udp6', 'L3');
  assert.deepEqual(port.flowHash('udp6'), { level: 'L3', receive: true });
  assert.deepEqual(port.hashLevels, { tcp4: 'L3', udp4: 'L4', tcp6: 'L4', udp6: 'L3' });
  refuse(rig, 'set 10204');
  await assert.rejects(set('tcp4', 'L4'), refused('EIO', /RSS: the host refused/));
  assert.deepEqual(port.flowHash('tcp4'), { level: 'L3', receive: true });
  rig.host.answers.delete('set 10204');
  // Another configuration keeps what was chosen; a single queue is not hashed for.
  await rig.run(port.stop());
  await rig.run(port.configure({ rxQueues: 2, txQueues: 1 }));
  assert.equal(types.at(-1), IP | TCP6);
  await rig.run(port.configure({ rxQueues: 1, txQueues: 1 }));
  assert.deepEqual(port.flowHash('tcp4'), { level: 'L3', receive: false });
  const asked = types.length;
  await set('tcp4', 'L4');
  assert.equal(types.length, asked);
});

test('hash levels on a host that hashes UDP by ports: it is asked when that level is chosen, not before', async (t) => {
  const prepare = ({ host }: FakeRig) => {
    host.answers.set('query 10203', (fake, request) => {
      const caps = new Uint8Array(18);
      caps.set(words(0x00120288, 0x1b01, 1, 8));
      caps[16] = 128;
      fake.complete(request, words(108, 1));
      fake.rndis(concat(words(0x80000004, 24 + 18, request.requestId, 0, 18, 16), caps));
    });
  };
  const rig = await fakeRig(t, { prepare });
  grantSubchannels(rig, 1);
  await rig.start({ rxQueues: 2, txQueues: 2 });
  const { port } = rig;
  assert.ok(port.info().rssTypes & RSS_TYPE.IPV4_UDP);
  assert.deepEqual(port.flowHash('udp4'), { level: 'L4', receive: false });
  await rig.run(port.setFlowHash('udp4', 'L4'));
  assert.deepEqual(port.flowHash('udp4'), { level: 'L4', receive: true });
  assert.equal(port.rss().types & RSS_TYPE.IPV6_UDP, 0);
});

test('pieces of a coalesced packet: whole, or dropped and counted by what is wrong with them', async (t) => {
  const rig = await started(t, {}, { rxOffloads: TCP_LRO });
  const part = (flags: number, seed: number) => rndis(frameTo(rig.port.mac, 100, seed), piece(flags));
  const feed = async (...messages: Uint8Array[]): Promise<number[]> => {
    transferAll(rig, [concat(...messages)]);
    rig.host.frame(frameTo(rig.port.mac, 77, 0));
    const got: number[] = [];
    await rig.until('they came', () => {
      got.push(...rig.frames().map(({ length }) => length));
      return got.at(-1) === 77;
    });
    return got.slice(0, -1);
  };
  const counts = () => ['bad_coalescing', 'too_long_packets'].map((name) => rig.xstat(`rx_q0_${name}`));
  const plain = rndis(frameTo(rig.port.mac, 90, 9));
  assert.deepEqual(await feed(part(FIRST, 1), part(MIDDLE, 2), part(LAST, 3)), [300]);
  assert.deepEqual(counts(), [0, 0]);
  assert.deepEqual(await feed(part(MIDDLE, 2), part(LAST, 3)), [], 'the first is missing');
  assert.deepEqual(counts(), [2, 0]);
  assert.deepEqual(await feed(part(FIRST, 1), part(MIDDLE, 2)), [], 'the last is missing');
  assert.deepEqual(counts(), [3, 0]);
  assert.deepEqual(await feed(part(FIRST, 1), plain, part(LAST, 3)), [90], 'a plain one in between');
  assert.deepEqual(counts(), [5, 0]);
  assert.deepEqual(await feed(part(FIRST, 1), part(FIRST, 2), part(LAST, 3)), [200], 'a first one in between');
  assert.deepEqual(counts(), [6, 0]);
  assert.deepEqual(await feed(plain, part(FIRST, 1), part(LAST, 2), plain), [90, 200, 90]);
  assert.deepEqual(counts(), [6, 0]);
  assert.equal(rig.pool.available, rig.pool.count, 'no buffer is kept');
});

test('a coalesced packet is one large buffer; a chain where there is none, or it is too short; single frames take none', async (t) => {
  const rig = await fakeRig(t, { prepare: ({ host }) => withRsc(host) });
  const large = rig.createPool({ count: 1, room: 4096 + 128 });
  await rig.start({}, 0, large);
  assert.equal(rig.port.config!.rxOffloads, 0);
  await rig.run(rig.port.setOffloads({ rxOffloads: TCP_LRO }));
  const pieces = (bytes: Uint8Array) => {
    const count = Math.ceil(bytes.length / 1000);
    const flag = (i: number) => (i === 0 ? FIRST : i === count - 1 ? LAST : MIDDLE);
    return Array.from({ length: count }, (_, i) => rndis(bytes.subarray(i * 1000, (i + 1) * 1000), piece(flag(i))));
  };
  const feed = async (...sent: Uint8Array[]): Promise<number[]> => {
    transferAll(
      rig,
      sent.flatMap((frame) => (frame.length > 1514 ? pieces(frame) : [rndis(frame)])),
    );
    const got: number[] = [];
    await rig.until('they came', () => {
      got.push(...rig.receive());
      return got.length === sent.length;
    });
    assert.deepEqual(
      got.map((mbuf) => rig.mbufs.read(mbuf)),
      sent,
    );
    const segments = got.map((mbuf) => rig.mbufs.segments(mbuf));
    for (const mbuf of got) rig.mbufs.free(mbuf);
    return segments;
  };
  const frame = (bytes: number, seed: number) => frameTo(rig.port.mac, bytes, seed);
  assert.deepEqual(await feed(frame(100, 1), frame(3000, 2), frame(3000, 3)), [1, 1, 2], 'the second finds none');
  assert.deepEqual(await feed(frame(3000, 4)), [1]);
  assert.deepEqual(await feed(frame(5000, 5)), [2], 'more than its room');
  assert.equal(rig.xstat('rx_q0_too_long_packets'), 0);
  for (const pool of [large, rig.pool!]) assert.equal(pool.available, pool.count, 'no buffer is kept');
});

test('562 pieces are one packet, 563 are none', async (t) => {
  const rig = await started(t, {}, { rxOffloads: TCP_LRO });
  const short = (flags: number, i: number) => rndis(frameTo(rig.port.mac, 20, i), piece(flags), 64);
  for (const [count, expected] of [
    [562, [562 * 20]],
    [563, []],
  ] as const) {
    const pieces = Array.from({ length: count }, (_, i) => short(i === 0 ? FIRST : i === count - 1 ? LAST : MIDDLE, i));
    // 16 to a range of the receive buffer: hosts use one each, guests take what fits.
    const ranges = Array.from({ length: Math.ceil(count / 16) }, (_, i) =>
      concat(...pieces.slice(16 * i, 16 * i + 16)),
    );
    transferAll(rig, ranges);
    rig.host.frame(frameTo(rig.port.mac, 77, 0));
    const got: number[] = [];
    await rig.until('they came', () => {
      got.push(...rig.frames().map(({ length }) => length));
      return got.at(-1) === 77;
    });
    assert.deepEqual(got.slice(0, -1), expected, `${count} pieces`);
  }
  assert.equal(rig.xstat('rx_q0_too_long_packets'), 1);
  assert.equal(rig.xstat('rx_q0_coalesced_packets'), 1);
  assert.equal(rig.pool.available, rig.pool.count);
});

const concat = (...parts: Uint8Array[]) => Uint8Array.from(Buffer.concat(parts));

/** An RNDIS packet message; its data at offset `dataAt`. */
function rndis(frame: Uint8Array, infos: Uint8Array = new Uint8Array(0), dataAt = 128): Uint8Array {
  const message = new Uint8Array((dataAt + frame.length + 7) & ~7);
  message.set(words(1, message.length, dataAt - 8, frame.length, 0, 0, 0, infos.length ? 36 : 0, infos.length));
  message.set(infos, 44);
  message.set(frame, dataAt);
  return message;
}

/** One transfer-page packet with these ranges. */
function transferAll(rig: FakeRig, ranges: readonly Uint8Array[]): void {
  const { offer } = rig.bus.pairs[0]!;
  const size = rig.host.suballocationBytes;
  const cells: number[] = [];
  for (const [i, bytes] of ranges.entries()) {
    const offset = (100 + i) * size;
    rig.arena.u8.set(bytes, offer.receiveBuffer.address + offset);
    cells.push(bytes.length, offset);
  }
  const header = concat(words(0xcafe), words(ranges.length, ...cells));
  rig.host.write(packet(7, 1, 100, 0, header, concat(words(107, 0, 0xffffffff, 0), new Uint8Array(24))));
}
