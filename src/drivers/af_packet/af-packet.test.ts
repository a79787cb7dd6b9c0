// net_af_packet: what the conformance suite asks of every driver, and what is its own.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RX_OFFLOAD, TX_OFFLOAD } from '../../ethdev/constants.js';
import { PortError } from '../../ethdev/errors.js';
import type { Port } from '../../ethdev/port.js';
import { PACKET_FLAG } from '../../memory/layout.js';
import { noNetworkReason, type PacketPeer, TestNetwork } from '../../memory/os/packet-peer-testing.js';
import { PollSet } from '../../memory/os/poll.js';
import { buildPacket, tagged } from '../../offload/offload-testing.js';
import { conformance } from '../conformance.js';
import { frameOf, KernelWire, numberOf, ours, PortRig, until } from '../interface-testing.js';
import { initEal } from '../platform.js';

const skip = noNetworkReason();

conformance({
  name: 'net_af_packet',
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
      network.veth('p0', 'w0');
      const port = await network.in(() => eal.addVdev('net_af_packet0', 'iface=p0,qpairs=4'));
      wire = network.in(() => new KernelWire('w0', (mtu) => network.run(`ip link set w0 mtu ${mtu}`)));
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

/** A namespace with two joined interfaces: the port's and a peer's. */
async function withPort(
  work: (rig: PortRig, port: Port, peer: PacketPeer, network: TestNetwork) => Promise<void>,
  args = '',
): Promise<void> {
  await withRig(async (rig) => {
    const network = rig.network();
    network.veth('p0', 'w0');
    const peer = rig.peer(network, 'w0');
    await work(rig, await rig.add(network, 'net_af_packet0', `iface=p0${args}`), peer, network);
  });
}

const fails = (code: string, message: RegExp) => (error: Error) => {
  assert.ok(error instanceof PortError, String(error.stack));
  assert.equal(error.code, code);
  assert.match(error.message, message);
  assert.doesNotMatch(error.message, /\n/);
  return true;
};
const numbers = (list: readonly { readonly bytes: Uint8Array }[]) => list.map(({ bytes }) => numberOf(bytes));

for (const [args, message] of [
  ['', /net_af_packet0: iface: expected the name of an interface/],
  ['iface=a/b', /iface=a\/b: expected 1 to 15 bytes/],
  ['iface=nowhere', /net_af_packet0: interface nowhere: there is none$/],
  ['iface=lo,qpairs=0', /qpairs=0: expected a number 1 to 64/],
  ['iface=lo,qpairs=65', /qpairs=65: expected a number 1 to 64/],
  ['iface=lo,blocksz=5000', /blocksz=5000: expected whole pages of 4096 bytes/],
  ['iface=lo,blocksz=1024', /blocksz=1024: expected a number 4096 to 16777216/],
  ['iface=lo,framesz=100', /framesz=100: expected a number 128/],
  ['iface=lo,framesz=2050', /framesz=2050: expected a multiple of 16 up to blocksz \(131072\)/],
  ['iface=lo,blocksz=4096,framesz=8192', /framesz=8192: expected a multiple of 16 up to blocksz \(4096\)/],
  ['iface=lo,framecnt=10', /framecnt=10: expected at least 64, the frames of one block/],
  ['iface=lo,framecnt=1000000', /framecnt=1000000: expected a ring of at most 268435456 bytes/],
  ['iface=lo,fanout_mode=fair', /fanout_mode=fair: expected hash, lb, cpu, rollover, rnd, qm/],
  ['iface=lo,qdisc_bypass=yes', /qdisc_bypass=yes: expected 0 or 1/],
  ['iface=lo,speed=5', /speed: unknown argument, expected iface, qpairs, blocksz, framesz, framecnt/],
  ['iface=lo', /interface lo: expected Ethernet, it is of type 772/],
] as const) {
  test(`net_af_packet: ${args || 'no arguments'}: one clear line`, { skip }, async () => {
    await withRig(async (rig) => {
      const code = /nowhere/.test(args) ? 'ENODEV' : 'EINVAL';
      await assert.rejects(rig.add(rig.network(), 'net_af_packet0', args), fails(code, message));
    });
  });
}

test('net_af_packet: only what is addressed to it, unless it is promiscuous', { skip }, async () => {
  await withPort(async (rig, port, peer, network) => {
    await rig.start(port);
    const promiscuity = () => /promiscuity (\d+)/.exec(network.run('ip -d link show p0'))![1];
    const feed = () => {
      peer.send(frameOf(1, 64, '02:00:00:00:00:99'));
      peer.send(frameOf(2, 64, '33:33:00:00:00:01'));
      peer.send(frameOf(3, 64, port.mac));
      peer.send(frameOf(4));
    };
    feed();
    assert.deepEqual(numbers(await rig.expect(port, 3)), [2, 3, 4]);
    assert.equal(promiscuity(), '0');
    await port.setPromiscuous(true);
    feed();
    assert.deepEqual(numbers(await rig.expect(port, 4)), [1, 2, 3, 4]);
    assert.equal(promiscuity(), '1');
    await port.setPromiscuous(false);
    await port.setAllMulticast(true);
    assert.match(network.run('ip -d link show p0'), /allmulti 1/);
    feed();
    assert.deepEqual(numbers(await rig.expect(port, 3)), [2, 3, 4]);
    await port.setPromiscuous(true);
    await port.close();
    assert.equal(promiscuity(), '0');
  });
});

test('net_af_packet: multicast addresses are the interface’s as long as the port is open', { skip }, async () => {
  await withPort(async (rig, port, _peer, network) => {
    await rig.start(port);
    const has = (mac: string) => network.run('ip maddress show dev p0').includes(mac);
    const [first, second] = ['01:00:5e:00:00:55', '01:00:5e:00:00:56'];
    await port.setMulticast([first]);
    assert.deepEqual([has(first), has(second)], [true, false]);
    await port.setMulticast([second]);
    assert.deepEqual([has(first), has(second)], [false, true]);
    await port.close();
    assert.deepEqual([has(first), has(second)], [false, false]);
  });
});

test('net_af_packet: what it sends it does not receive, and what came while it was stopped neither', {
  skip,
}, async () => {
  await withPort(async (rig, port, peer) => {
    await rig.start(port);
    for (let round = 0; round < 5; round++) {
      assert.equal(rig.send(port, [rig.mbuf(frameOf(1))]), 1);
      for (let n = 0; n < 20; n++) peer.send(frameOf(100 + n));
      await port.stop();
      for (let n = 0; n < 20; n++) peer.send(frameOf(200 + n));
      await port.start();
      peer.send(frameOf(300 + round));
      assert.deepEqual(numbers(await rig.expect(port, 1)), [300 + round]);
    }
    assert.deepEqual(peer.receive(5).map(numberOf), [1, 1, 1, 1, 1]);
  });
});

test('net_af_packet: a ring that is full counts what it missed', { skip }, async () => {
  await withPort(async (rig, port, peer) => {
    await rig.start(port);
    for (let n = 0; n < 3000; n++) peer.send(frameOf(n, 1000));
    const seen = new Set<number>();
    await until(
      () => {
        for (const { bytes } of rig.receive(port)) seen.add(numberOf(bytes));
        return seen.size + port.stats().imissed >= 3000;
      },
      () => `${seen.size} came, ${port.stats().imissed} were missed`,
    );
    assert.ok(port.stats().imissed > 0);
    assert.equal(port.stats().ipackets, seen.size);
    assert.equal(Object.fromEntries(port.xstats()).rx_q0_ring_full! > 0, true);
    port.resetStats();
    assert.equal(port.stats().imissed, 0);
    peer.send(frameOf(5000));
    assert.deepEqual(numbers(await rig.expect(port, 1)), [5000]);
  }, ',blocksz=16384,framecnt=64');
});

test('net_af_packet: the link follows the interface; down, nothing is taken and nothing goes wrong', {
  skip,
}, async () => {
  await withPort(async (rig, port, peer, network) => {
    const events: boolean[] = [];
    port.on('link', ({ up }) => events.push(up));
    await rig.start(port);
    const rx = port.rxQueue(0);
    const polls = new PollSet(1);
    polls.add(rx.fds()[0]!);
    network.run('ip link set p0 down');
    await until(
      () => !port.link().up,
      () => 'the link does not go down',
    );
    rx.arm();
    assert.equal(polls.wait(0), 0, 'who sleeps is kept awake');
    polls.close();
    for (let i = 0; i < 100; i++) {
      assert.equal(rig.send(port, [rig.mbuf(frameOf(1)), rig.mbuf(frameOf(2))]), 0);
      assert.equal(rig.receive(port).length, 0);
    }
    const { oerrors, ierrors, opackets } = port.stats();
    assert.deepEqual({ oerrors, ierrors, opackets }, { oerrors: 0, ierrors: 0, opackets: 0 });
    network.run('ip link set p0 up');
    network.waitFor('p0');
    network.waitFor('w0');
    await until(
      () => port.link().up && rig.send(port, [rig.mbuf(frameOf(3))]) === 1,
      () => 'nothing is taken',
    );
    assert.deepEqual(peer.receive(1).map(numberOf), [3]);
    await until(
      () => peer.send(frameOf(4)),
      () => 'the peer cannot send',
    );
    assert.deepEqual(numbers(await rig.expect(port, 1)), [4]);
    assert.deepEqual(events, [false, true]);
  });
});

test('net_af_packet: an interface that is down at first comes up later, with several queues too', {
  skip,
}, async () => {
  await withPort(async (rig, port, peer, network) => {
    network.run('ip link set p0 down');
    await rig.configure(port, { rxQueues: 2, txQueues: 2 });
    await port.start();
    network.run('ip link set p0 up');
    network.waitFor('p0');
    network.waitFor('w0');
    await until(
      () => port.link().up && peer.send(frameOf(4)),
      () => 'the link does not come up',
    );
    assert.deepEqual(numbers(await rig.expect(port, 1)), [4]);
  }, ',qpairs=2');
});

test('net_af_packet: an interface that is removed ends its port', { skip }, async () => {
  await withPort(async (rig, port, _peer, network) => {
    let reason = '';
    port.on('removed', (why) => {
      reason = why;
    });
    await rig.start(port);
    const rx = port.rxQueue(0);
    network.run('ip link del p0');
    await until(
      () => reason !== '',
      () => 'nobody says that it was removed',
    );
    assert.equal(reason, 'interface p0 was removed');
    assert.deepEqual([port.state, port.link().up], ['removed', false]);
    assert.equal(rig.send(port, [rig.mbuf(frameOf(1))]), 0);
    assert.equal(rig.receive(port).length, 0);
    assert.ok(rx.arm());
    port.stats();
    await port.close();
  });
});

test('net_af_packet: 802.1Q tags both ways', { skip }, async () => {
  await withPort(async (rig, port, peer) => {
    for (const strip of [true, false]) {
      await rig.start(port, { rxOffloads: strip ? RX_OFFLOAD.VLAN_STRIP : 0, txOffloads: TX_OFFLOAD.VLAN_INSERT });
      const mbuf = rig.mbuf(frameOf(7));
      rig.eal.mbufs.setFlags(mbuf, PACKET_FLAG.VLAN);
      rig.eal.mbufs.setVlanTci(mbuf, 0x2005);
      assert.equal(rig.send(port, [mbuf]), 1);
      assert.deepEqual(peer.receive(1), [tagged(frameOf(7), 0x2005)]);
      const sent = tagged(frameOf(8), 5);
      assert.ok(peer.send(sent));
      const [got] = await rig.expect(port, 1, strip ? ours : ({ bytes }) => bytes[12] === 0x81);
      assert.deepEqual(got!.bytes, strip ? frameOf(8) : sent);
      assert.deepEqual([got!.flags & PACKET_FLAG.VLAN, got!.vlanTci], strip ? [PACKET_FLAG.VLAN, 5] : [0, 0]);
      const service = tagged(frameOf(9), 6, 0x88a8);
      assert.ok(peer.send(service));
      const [outer] = await rig.expect(port, 1, ({ bytes }) => bytes[12] === 0x88);
      assert.deepEqual(outer!.bytes, service);
      await port.stop();
    }
  });
});

test('net_af_packet: arrival times', { skip }, async () => {
  await withPort(async (rig, port, peer) => {
    await rig.start(port, { rxOffloads: RX_OFFLOAD.TIMESTAMP });
    const before = Date.now();
    for (let n = 0; n < 10; n++) peer.send(frameOf(n));
    const times = (await rig.expect(port, 10)).map(({ timestamp }) => timestamp / 1e6);
    const after = Date.now();
    for (const [i, at] of times.entries()) {
      assert.ok(at >= before - 1 && at <= after + 1, `${at} is not between ${before} and ${after}`);
      assert.ok(i === 0 || at >= times[i - 1]!);
    }
  });
});

/** UDP packets of `flows` flows. */
const udp = (flow: number) =>
  buildPacket({ family: 4, protocol: 17, ipOptions: 0, tcpOptions: 0, payload: 40, tcpFlags: 0, seed: 1000 + flow });

for (const mode of ['hash', 'lb', 'cpu', 'rollover', 'rnd', 'qm'] as const) {
  test(`net_af_packet: fanout ${mode}`, { skip }, async () => {
    await withPort(async (rig, port, peer) => {
      await rig.start(port, { rxQueues: 4, txQueues: 1 });
      await port.setPromiscuous(true);
      const flows = Array.from({ length: 32 }, (_, flow) => udp(flow).bytes);
      for (let round = 0; round < 4; round++) for (const bytes of flows) peer.send(bytes);
      const got = await rig.expect(port, 128, ({ bytes }) => bytes[23] === 17 && bytes.length === flows[0]!.length);
      assert.equal(got.length, 128);
      const perQueue = [0, 1, 2, 3].map((queue) => got.filter((packet) => packet.queue === queue).length);
      if (mode === 'lb') assert.deepEqual(perQueue, [32, 32, 32, 32]);
      if (mode === 'hash' || mode === 'rnd') assert.ok(perQueue.filter((n) => n > 0).length > 1, `${perQueue}`);
      if (mode === 'rollover') assert.deepEqual(perQueue, [128, 0, 0, 0]);
      if (mode !== 'hash') return;
      for (const bytes of flows) {
        const mine = got.filter((packet) => Buffer.compare(packet.bytes, bytes) === 0);
        assert.equal(new Set(mine.map(({ queue }) => queue)).size, 1, 'a flow is in several queues');
      }
    }, `,qpairs=4,fanout_mode=${mode}`);
  });
}

test('net_af_packet: DPDK’s block and frame sizes, and the queueing discipline', { skip }, async () => {
  await withPort(async (rig, port, peer) => {
    await rig.start(port);
    const frames = Array.from({ length: 30 }, (_, n) => frameOf(n, 60 + n * 50));
    frames.forEach((frame) => {
      peer.send(frame);
    });
    assert.deepEqual(
      (await rig.expect(port, 30)).map(({ bytes }) => bytes),
      frames,
    );
    assert.equal(
      rig.send(
        port,
        frames.map((frame) => rig.mbuf(frame)),
      ),
      30,
    );
    assert.deepEqual(peer.receive(30), frames);
  }, ',blocksz=4096,framesz=2048,framecnt=512,qdisc_bypass=0');
});

test('net_af_packet: frames beyond the MTU are counted', { skip }, async () => {
  await withPort(async (rig, port, peer) => {
    await rig.start(port);
    assert.equal(
      rig.send(
        port,
        [1, 2, 3].map((n) => rig.mbuf(frameOf(n, n === 2 ? 1600 : 1514))),
      ),
      3,
    );
    assert.deepEqual(peer.receive(2).map(numberOf), [1, 3]);
    assert.deepEqual([port.stats().oerrors, port.stats().opackets], [1, 2]);
  });
});

test('net_af_packet: without memory for more queues the old ones go on', { skip }, async () => {
  await withPort(async (rig, port, peer) => {
    await rig.start(port);
    await port.stop();
    const { arena } = rig.eal;
    const hog = arena.reserve('hog', arena.free().largest - (1 << 20));
    await assert.rejects(
      port.configure({ rxQueues: 2, txQueues: 2 }),
      fails('ENOMEM', /net_af_packet0: 2 rx and 2 tx queues: .*no room/),
    );
    await port.start();
    peer.send(frameOf(1));
    assert.deepEqual(numbers(await rig.expect(port, 1)), [1]);
    arena.release(hog);
  }, ',qpairs=2');
});
