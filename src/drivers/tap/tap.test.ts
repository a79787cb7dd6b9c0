// net_tap: what the conformance suite asks of every driver, and what is its own.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync } from 'node:fs';
import { test } from 'node:test';
import { PACKET_TYPE, RX_OFFLOAD, TX_OFFLOAD } from '../../ethdev/constants.js';
import { PortError } from '../../ethdev/errors.js';
import type { LinkStatus } from '../../ethdev/types.js';
import { PACKET_FLAG } from '../../memory/layout.js';
import { noNetworkReason, PacketPeer, TestNetwork } from '../../memory/os/packet-peer-testing.js';
import { openTap, setTapPersistent } from '../../memory/os/tap.js';
import { buildPacket, checksumField, put16, tagged } from '../../offload/offload-testing.js';
import { conformance } from '../conformance.js';
import { frameOf, KernelWire, numberOf, ours, PortRig, until } from '../interface-testing.js';
import { initEal } from '../platform.js';

const skip = noNetworkReason();
const { RX_L4_GOOD, RX_L4_BAD, RX_IP_GOOD, VLAN, TX_UDP_CHECKSUM } = PACKET_FLAG;
const VERDICTS = RX_OFFLOAD.IPV4_CKSUM | RX_OFFLOAD.UDP_CKSUM | RX_OFFLOAD.TCP_CKSUM;

conformance({
  name: 'net_tap',
  skip,
  async open(words) {
    const network = new TestNetwork();
    const eal = await initEal(words);
    let wire: KernelWire | undefined;
    const close = async () => {
      await eal.close();
      wire?.close();
      network.close();
    };
    try {
      const port = await network.in(() => eal.addVdev('net_tap0', 'iface=tap0'));
      wire = network.in(() => new KernelWire('tap0'));
      return { eal, port, wire, close };
    } catch (error) {
      await close();
      throw error;
    }
  },
});

async function withRig(work: (rig: PortRig) => Promise<void>, room?: number): Promise<void> {
  const rig = await PortRig.open(room);
  try {
    await work(rig);
    await until(
      () => rig.pool.available === rig.pool.count,
      () => `${rig.pool.count - rig.pool.available} mbufs are missing`,
    );
  } finally {
    await rig.close();
  }
}

const fails = (code: string, message: RegExp) => (error: Error) => {
  assert.ok(error instanceof PortError, String(error.stack));
  assert.equal(error.code, code);
  assert.match(error.message, message);
  assert.doesNotMatch(error.message, /\n/);
  return true;
};

for (const [args, message] of [
  ['iface=a/b', /net_tap0: iface=a\/b: expected 1 to 15 bytes without \/ : or blanks/],
  ['iface=a:b', /iface=a:b: expected/],
  ['iface=a b', /iface=a b: expected/],
  ['iface=abcdefghijklmnop', /iface=abcdefghijklmnop: expected 1 to 15 bytes/],
  ['iface=', /iface: expected a value/],
  ['iface=a,iface=b', /iface=a: expected it once/],
  ['mac=01:00:00:00:00:01', /mac=01:00:00:00:00:01: expected fixed, random, or a unicast address/],
  ['mac=02:00', /mac=02:00: expected/],
  ['persist=maybe', /persist=maybe: expected 0 or 1/],
  ['remote=eth0', /remote: unknown argument, expected iface, mac, persist/],
] as const) {
  test(`net_tap: ${args}: one clear line, and no interface`, { skip }, async () => {
    await withRig(async (rig) => {
      const network = rig.network();
      await assert.rejects(rig.add(network, 'net_tap0', args), fails('EINVAL', message));
      assert.doesNotMatch(network.run('ip -br link'), /tap/);
    });
  });
}

test('net_tap: names, addresses', { skip }, async () => {
  await withRig(async (rig) => {
    const network = rig.network();
    const given = await rig.add(network, 'net_tap0', 'mac=02:01:02:03:04:05');
    const fixed = await rig.add(network, 'net_tap1', 'iface=other,mac=fixed');
    const random = await rig.add(network, 'net_tap2', 'mac=random');
    assert.equal(given.mac, '02:01:02:03:04:05');
    assert.match(fixed.mac, /^02:64:74:61:70:3\d$/);
    assert.notEqual(random.mac, given.mac);
    const list = network.run('ip -br link');
    for (const [name, port] of Object.entries({ dtap0: given, other: fixed, dtap1: random }))
      assert.match(list, new RegExp(`^${name} .*${port.mac}`, 'm'));
  });
});

test('net_tap: an interface goes with its port, or stays', { skip }, async () => {
  await withRig(async (rig) => {
    const network = rig.network();
    const gone = await rig.add(network, 'net_tap0', 'iface=gone');
    const stays = await rig.add(network, 'net_tap1', 'iface=stays,persist,mac=02:00:00:00:00:77');
    for (const port of [gone, stays]) {
      await rig.start(port, { rxQueues: 2, txQueues: 2 });
      await port.close();
    }
    const list = network.run('ip -br link');
    assert.doesNotMatch(list, /gone/);
    assert.match(list, /stays .*02:00:00:00:00:77.*[<,]UP/);
    // And is taken again.
    const again = await rig.add(network, 'net_tap2', 'iface=stays,mac=02:00:00:00:00:78');
    await rig.start(again);
    assert.equal(again.mac, '02:00:00:00:00:78');
  });
});

test('net_tap: an interface that somebody has, one for a single queue', { skip }, async () => {
  await withRig(async (rig) => {
    const network = rig.network();
    const busy = network.in(() => openTap('busy'));
    rig.atEnd(() => closeSync(busy.fd));
    await assert.rejects(rig.add(network, 'net_tap0', 'iface=busy'), fails('EBUSY', /net_tap0: interface busy: /));
    const single = network.in(() => openTap('single'));
    setTapPersistent(single.fd, true);
    closeSync(single.fd);
    const port = await rig.add(network, 'net_tap1', 'iface=single');
    assert.equal(port.info().maxRxQueues, 1);
    await assert.rejects(port.configure({ rxQueues: 2, txQueues: 1 }), fails('EINVAL', /rx queues: expected 0 to 1/));
    const peer = rig.peer(network, 'single');
    await rig.start(port, { rxQueues: 1, txQueues: 3 });
    for (let queue = 0; queue < 3; queue++) assert.equal(rig.send(port, [rig.mbuf(frameOf(queue))], queue), 1);
    assert.deepEqual(peer.receive(3).map(numberOf), [0, 1, 2]);
  });
});

test('net_tap: the link follows the interface; down, nothing is taken and nothing goes wrong', { skip }, async () => {
  await withRig(async (rig) => {
    const network = rig.network();
    const port = await rig.add(network, 'net_tap0', 'iface=tap0');
    const events: LinkStatus[] = [];
    port.on('link', (link) => events.push(link));
    assert.equal(port.link().up, false);
    await rig.start(port);
    const peer = rig.peer(network, 'tap0');
    network.run('ip link set tap0 down');
    await until(
      () => !port.link().up,
      () => 'the link does not go down',
    );
    for (let i = 0; i < 100; i++) {
      assert.equal(rig.send(port, [rig.mbuf(frameOf(1)), rig.mbuf(frameOf(2))]), 0);
      assert.equal(rig.receive(port).length, 0);
    }
    const { oerrors, ierrors, opackets } = port.stats();
    assert.deepEqual({ oerrors, ierrors, opackets }, { oerrors: 0, ierrors: 0, opackets: 0 });
    network.run('ip link set tap0 up');
    network.waitFor('tap0');
    await until(
      () => port.link().up,
      () => 'the link does not come up',
    );
    assert.equal(rig.send(port, [rig.mbuf(frameOf(3))]), 1);
    assert.deepEqual(peer.receive(1).map(numberOf), [3]);
    await until(
      () => peer.send(frameOf(4)),
      () => 'the interface takes nothing',
    );
    assert.deepEqual(
      (await rig.expect(port, 1)).map(({ bytes }) => numberOf(bytes)),
      [4],
    );
    await port.stop();
    await until(
      () => events.length >= 4,
      () => `events: ${JSON.stringify(events)}`,
    );
    assert.deepEqual(
      events.map(({ up }) => up),
      [true, false, true, false],
    );
    assert.match(network.run('ip -br link show tap0'), /NO-CARRIER/);
  });
});

test('net_tap: an interface that is deleted ends its port', { skip }, async () => {
  await withRig(async (rig) => {
    const network = rig.network();
    const port = await rig.add(network, 'net_tap0', 'iface=tap0');
    let reason = '';
    port.on('removed', (why) => {
      reason = why;
    });
    await rig.start(port, { rxQueues: 2, txQueues: 2 });
    const rx = port.rxQueue(0);
    network.run('ip link del tap0');
    await until(
      () => reason !== '',
      () => 'nobody says that it was removed',
    );
    assert.equal(reason, 'interface tap0 was removed');
    assert.equal(port.state, 'removed');
    assert.equal(port.link().up, false);
    assert.equal(rig.send(port, [rig.mbuf(frameOf(1))]), 0);
    assert.equal(rig.receive(port).length, 0);
    // Who sleeps is not kept awake by it.
    assert.equal(rx.fds().length, 0);
    assert.ok(rx.arm());
    port.stats();
    await assert.rejects(port.setMtu(1400), fails('ENODEV', /removed/));
    await port.close();
  });
});

test('net_tap: an interface that is moved to another namespace stays its port’s', { skip }, async () => {
  await withRig(async (rig) => {
    const [here, there] = [rig.network(), rig.network()];
    const port = await rig.add(here, 'net_tap0', 'iface=tap0');
    const events: boolean[] = [];
    port.on('link', ({ up }) => events.push(up));
    await rig.start(port);
    here.run(`ip link set tap0 netns ${there.path}`);
    await until(
      () => !port.link().up,
      () => 'the link does not go down',
    );
    there.run('ip link set tap0 name moved');
    there.run('ip link set moved up');
    await until(
      () => port.link().up,
      () => 'the link does not come up again',
    );
    assert.deepEqual(events, [true, false, true]);
    const peer = rig.peer(there, 'moved');
    assert.equal(rig.send(port, [rig.mbuf(frameOf(1))]), 1);
    assert.deepEqual(peer.receive(1).map(numberOf), [1]);
    await port.stop();
    await port.setMtu(1400);
    assert.match(there.run('ip link show moved'), /mtu 1400/);
    await rig.start(port, { rxQueues: 3, txQueues: 3 });
    assert.equal(rig.send(port, [rig.mbuf(frameOf(2))], 2), 1);
    assert.deepEqual(peer.receive(1).map(numberOf), [2]);
  });
});

test('net_tap: what came before start is not received', { skip }, async () => {
  await withRig(async (rig) => {
    const network = rig.network();
    const port = await rig.add(network, 'net_tap0', 'iface=tap0');
    await rig.start(port);
    const peer = rig.peer(network, 'tap0');
    for (let n = 0; n < 10; n++) peer.send(frameOf(n));
    await port.stop();
    await port.start();
    await until(
      () => port.link().up && peer.send(frameOf(99)),
      () => 'the interface takes nothing',
    );
    assert.deepEqual(
      (await rig.expect(port, 1)).map(({ bytes }) => numberOf(bytes)),
      [99],
    );
  });
});

test('net_tap: frames beyond the MTU are counted, also when somebody else changes it', { skip }, async () => {
  await withRig(async (rig) => {
    const network = rig.network();
    const port = await rig.add(network, 'net_tap0', 'iface=tap0');
    await rig.start(port);
    const peer = rig.peer(network, 'tap0');
    assert.equal(
      rig.send(
        port,
        [1, 2, 3].map((n) => rig.mbuf(frameOf(n, n === 2 ? 1600 : 1514))),
      ),
      3,
    );
    assert.deepEqual(peer.receive(2).map(numberOf), [1, 3]);
    assert.deepEqual([port.stats().oerrors, port.stats().opackets], [1, 2]);
    network.run('ip link set tap0 mtu 1600');
    await until(
      () => port.mtu === 1600,
      () => `the port's MTU is ${port.mtu}`,
    );
    assert.equal(rig.send(port, [rig.mbuf(frameOf(4, 1614))]), 1);
    assert.deepEqual(peer.receive(1).map(numberOf), [4]);
  });
});

test('net_tap: buffers that are too small are refused at start', { skip }, async () => {
  await withRig(async (rig) => {
    const network = rig.network();
    const port = await rig.add(network, 'net_tap0', 'iface=tap0');
    await port.setMtu(3000);
    await rig.configure(port);
    await assert.rejects(
      port.start(),
      fails('EINVAL', /pool rig: MTU 3000 needs 3018 bytes behind the headroom, or the/),
    );
    await rig.configure(port, { rxOffloads: RX_OFFLOAD.TCP_LRO });
    await assert.rejects(port.start(), fails('EINVAL', /TCP_LRO needs 65553 bytes/));
    await rig.start(port, { rxOffloads: RX_OFFLOAD.SCATTER });
    const bare = rig.eal.createMempool('bare', { count: 8, room: 4096, headroom: 0 });
    await port.stop();
    await port.configure({ rxQueues: 1, txQueues: 1 });
    assert.throws(() => port.setupRxQueue(0, { descriptors: 0, pool: bare }), fails('EINVAL', /12 bytes of headroom/));
  });
});

test('net_tap: 802.1Q tags both ways', { skip }, async () => {
  await withRig(async (rig) => {
    const network = rig.network();
    const port = await rig.add(network, 'net_tap0', 'iface=tap0');
    for (const strip of [true, false]) {
      const rxOffloads = strip ? RX_OFFLOAD.VLAN_STRIP : 0;
      await rig.start(port, { rxOffloads, txOffloads: TX_OFFLOAD.VLAN_INSERT });
      const peer = network.in(() => new PacketPeer('tap0'));
      try {
        const mbuf = rig.mbuf(frameOf(7));
        rig.eal.mbufs.setFlags(mbuf, VLAN);
        rig.eal.mbufs.setVlanTci(mbuf, 0x2005);
        assert.equal(rig.send(port, [mbuf]), 1);
        assert.deepEqual(peer.receive(1), [tagged(frameOf(7), 0x2005)]);
        const sent = tagged(frameOf(8), 5);
        assert.ok(peer.send(sent));
        const [got] = await rig.expect(port, 1, strip ? ours : ({ bytes }) => bytes[12] === 0x81);
        assert.deepEqual(got!.bytes, strip ? frameOf(8) : sent);
        assert.deepEqual([got!.flags & VLAN, got!.vlanTci], strip ? [VLAN, 5] : [0, 0]);
      } finally {
        peer.close();
      }
      await port.stop();
    }
  });
});

test('net_tap: verdicts on checksums; what the kernel left out is left to the next one, or done', {
  skip,
}, async () => {
  await withRig(async (rig) => {
    const network = rig.network();
    const port = await rig.add(network, 'net_tap0', 'iface=tap0');
    const spec = { family: 4, protocol: 17, ipOptions: 0, tcpOptions: 0, payload: 100, tcpFlags: 0, seed: 9 } as const;
    const good = buildPacket(spec);
    const bad = buildPacket(spec);
    put16(bad.bytes, checksumField(bad), 0x1234);
    const isUdp = ({ bytes }: { bytes: Uint8Array }) => bytes[12] === 8 && bytes[13] === 0 && bytes[23] === 17;
    for (const rxOffloads of [VERDICTS, 0]) {
      await rig.start(port, { rxOffloads });
      network.run('ip address replace 10.99.0.1/24 dev tap0');
      network.run('ip neighbor replace 10.99.0.2 lladdr 02:00:00:00:00:02 dev tap0');
      const peer = network.in(() => new PacketPeer('tap0'));
      for (const { bytes } of [good, bad]) assert.ok(peer.send(bytes));
      peer.close();
      const raw = await rig.expect(port, 2, isUdp);
      const asked = rxOffloads !== 0;
      for (const { type } of raw) assert.equal(type, PACKET_TYPE.L2_ETHER | PACKET_TYPE.L3_IPV4 | PACKET_TYPE.L4_UDP);
      assert.deepEqual(
        raw.map(({ flags }) => flags & (RX_IP_GOOD | RX_L4_GOOD | RX_L4_BAD)),
        asked ? [RX_IP_GOOD | RX_L4_GOOD, RX_IP_GOOD | RX_L4_BAD] : [0, 0],
      );
      // The kernel's own datagrams come without a sum if that was offered.
      const bash = 'echo hello > /dev/udp/10.99.0.2/9';
      assert.equal(network.in(() => spawnSync('bash', ['-c', bash])).status, 0);
      const [own] = await rig.expect(port, 1, isUdp);
      assert.equal(own!.flags & TX_UDP_CHECKSUM, asked ? TX_UDP_CHECKSUM : 0);
      await port.stop();
      if (asked) assert.ok((own!.flags & RX_L4_GOOD) !== 0);
      else assert.equal(verify(rig, own!.bytes), 1);
    }
  });
});

function verify({ eal }: PortRig, bytes: Uint8Array): number {
  const at = eal.main.reserve('packet', bytes.length);
  eal.arena.u8.set(bytes, at);
  return eal.main.datapath.checksumVerify(at, bytes.length);
}

test('net_tap: flows keep their queue, and different ones take different queues', { skip }, async () => {
  await withRig(async (rig) => {
    const network = rig.network();
    const port = await rig.add(network, 'net_tap0', 'iface=tap0');
    await rig.start(port, { rxQueues: 4, txQueues: 4 });
    network.run('ip address add 10.99.0.1/24 dev tap0');
    network.run('ip neighbor add 10.99.0.2 lladdr 02:00:00:00:00:02 dev tap0');
    const bash = 'for p in {1000..1039}; do exec 3> /dev/udp/10.99.0.2/$p; for i in 1 2 3; do echo $i >&3; done; done';
    assert.equal(network.in(() => spawnSync('bash', ['-c', bash])).status, 0);
    const got = await rig.expect(port, 120, ({ bytes }) => bytes[12] === 8 && bytes[13] === 0 && bytes[23] === 17);
    const queues = new Set(got.map(({ queue }) => queue));
    assert.ok(queues.size > 1, 'all in one queue');
    for (let flow = 1000; flow < 1040; flow++) {
      const mine = got.filter(({ bytes }) => bytes[36]! * 256 + bytes[37]! === flow);
      assert.equal(new Set(mine.map(({ queue }) => queue)).size, 1, `flow ${flow} is in several queues`);
      assert.equal(mine.map(({ bytes }) => String.fromCharCode(bytes[42]!)).join(''), '123');
    }
    for (const queue of queues) assert.ok(port.queueStats(queue)!.rx.packets > 0);
  });
});
