// Cases about packets in one thread: what goes out and comes in, who owns which mbuf, what is counted.
import assert from 'node:assert/strict';
import { RX_OFFLOAD, TX_OFFLOAD } from '../../ethdev/constants.js';
import { PollSet } from '../../memory/os/poll.js';
import { ETHERNET_BYTES, parseFrame, SMALLEST, sequences } from './frames.js';
import { BURST_MAX, LARGEST_STANDARD, type Rig } from './rig.js';

const SIZES = [
  60,
  61,
  63,
  64,
  65,
  127,
  128,
  129,
  255,
  256,
  511,
  512,
  1024,
  1500,
  LARGEST_STANDARD - 1,
  LARGEST_STANDARD,
];
const range = (count: number) => Array.from({ length: count }, (_, i) => i);

/** Frames that came must be these, bit for bit. */
function same(got: readonly Uint8Array[], expected: readonly Uint8Array[]): void {
  assert.deepEqual(sequences(got), sequences(expected));
  got.forEach((frame, i) => {
    assert.equal(frame.length, expected[i]!.length, `length of frame ${i}`);
    assert.deepEqual(frame, expected[i], `bytes of frame ${i}`);
  });
}

const noSender = (rig: Rig) => rig.wire?.feed === undefined && 'nobody sends to this port';
const noWitness = (rig: Rig) => rig.wire?.sent === undefined && 'nobody sees what this port sends';

export const packetCases = {
  async 'bursts before start and after stop give nothing'(rig: Rig) {
    await rig.open();
    await rig.configure();
    const { port, handles } = rig;
    const rx = port.rxQueue(0);
    const tx = port.txQueue(0);
    const idle = () => {
      rig.setHandle(0, rig.mbuf(rig.frame(SMALLEST, 1)));
      assert.equal(rx.burst(handles + 64, 32), 0);
      assert.equal(tx.burst(handles, 1), 0);
      assert.equal(rig.mbufs.references(rig.handle(0)), 1);
      rig.mbufs.free(rig.handle(0));
    };
    idle();
    await port.start();
    await port.stop();
    idle();
    const { ipackets, opackets } = port.stats();
    assert.deepEqual({ ipackets, opackets }, { ipackets: 0, opackets: 0 });
  },

  async 'frames of every size go out as they are'(rig: Rig) {
    await rig.open();
    const no = noWitness(rig);
    if (no) return rig.skip(no);
    await rig.start();
    await rig.linkUp();
    const frames = SIZES.map((bytes, i) => rig.frame(bytes, i));
    await rig.send(frames);
    same(await rig.sent(frames.length), frames);
  },

  async 'frames of every size come in as they are'(rig: Rig) {
    await rig.open();
    const no = noSender(rig);
    if (no) return rig.skip(no);
    await rig.configure();
    const frames = SIZES.map((bytes, i) => rig.frame(bytes, i, true));
    await rig.startFed(frames);
    const got = await rig.receive(frames.length, [0], (mbuf) => {
      const { mbufs } = rig;
      assert.equal(mbufs.references(mbuf), 1);
      assert.ok(mbufs.headroom(mbuf) > 0, 'no headroom');
      let bytes = 0;
      let segments = 0;
      for (let at = mbuf; at !== 0; at = mbufs.next(at), segments++) bytes += mbufs.dataLength(at);
      assert.equal(bytes, mbufs.packetLength(mbuf));
      assert.equal(segments, mbufs.segments(mbuf));
    });
    same(got, frames);
  },

  async 'long frames, by another MTU'(rig: Rig) {
    await rig.open();
    const no = noSender(rig) || noWitness(rig);
    if (no) return rig.skip(no);
    const mtu = Math.min(9000, rig.port.info().maxMtu);
    if (mtu <= 1500) return rig.skip('the device has no MTU above 1500');
    const bytes = mtu + ETHERNET_BYTES;
    await rig.port.setMtu(mtu);
    await rig.wire!.setMtu?.(mtu);
    await rig.configure({ rxRoom: bytes + 64, rxQueues: 1, txQueues: 1 });
    const inbound = range(8).map((i) => rig.frame(bytes - i, i, true));
    await rig.startFed(inbound);
    same(await rig.receive(inbound.length), inbound);
    await rig.linkUp();
    const large = rig.createPool('large', bytes + 64, 64);
    const outbound = range(8).map((i) => rig.frame(bytes - i, 100 + i));
    await rig.sendMbufs(outbound.map((frame) => rig.mbuf(frame, 1, large)));
    same(await rig.sent(outbound.length), outbound);
  },

  async 'chains go out whole, or are refused'(rig: Rig) {
    await rig.open();
    const no = noWitness(rig);
    if (no) return rig.skip(no);
    const { txOffloads, maxTxSegments } = rig.port.info();
    const several = (txOffloads & TX_OFFLOAD.MULTI_SEGS) !== 0;
    await rig.start({ ...rig.chains() });
    await rig.linkUp();
    const counts = [1, 2, 3, 5, 8, 16].filter((segments) => segments <= Math.max(maxTxSegments, 2));
    const frames = counts.map((segments, i) => rig.frame(200 + 80 * segments, i));
    await rig.sendMbufs(frames.map((frame, i) => rig.mbuf(frame, counts[i])));
    if (several) return same(await rig.sent(frames.length), frames);
    // Without the offload a driver may still send them, but never a part of one.
    const got = await rig.sent(1);
    await rig.settle(0, rig.wire!.when === 'started' ? [rig.port.txQueue(0)] : []);
    for (const frame of got) assert.equal(frame.length, frames[parseFrame(frame)!.sequence]!.length);
    const whole = rig.port.stats();
    assert.equal(whole.opackets + whole.oerrors, frames.length);
  },

  async 'frames longer than an mbuf come as chains, or not at all'(rig: Rig) {
    await rig.open();
    const no = noSender(rig);
    if (no) return rig.skip(no);
    const { rxOffloads, minRxBufferBytes } = rig.port.info();
    if (minRxBufferBytes > 1024) return rig.skip('the device wants mbufs for its longest frames');
    const scatter = (rxOffloads & RX_OFFLOAD.SCATTER) !== 0;
    await rig.configure({ ...rig.chains(), rxRoom: Math.max(512, minRxBufferBytes) });
    const room = Math.max(512, minRxBufferBytes);
    const sizes = [64, room - 1, room, room + 1, Math.min(2 * room, 1514), Math.min(2 * room + 1, 1514), 1514, 64];
    const frames = sizes.map((bytes, i) => rig.frame(bytes, i, true));
    await rig.startFed(frames);
    const fitting = frames.filter(({ length }) => scatter || length <= room);
    const got = await rig.receive(fitting.length);
    // Who takes mbufs from a peer has those in whose size they were sent.
    if (got.length === frames.length) same(got, frames);
    else {
      same(got, fitting);
      const { ierrors, imissed } = rig.port.stats();
      assert.equal(ierrors + imissed, frames.length - fitting.length, 'dropped without being counted');
    }
  },

  async 'bursts of 0 to 256'(rig: Rig) {
    await rig.open();
    const no = noSender(rig) || noWitness(rig);
    if (no) return rig.skip(no);
    const bursts = [0, 1, 2, 3, 7, 8, 31, 32, 33, 64, 100, 128, 255, 256];
    const total = bursts.reduce((sum, count) => sum + count, 0);
    await rig.configure();
    const inbound = range(total).map((i) => rig.frame(SMALLEST, i, true));
    if (rig.wire!.when === 'stopped') await rig.wire!.feed!(inbound, 0);
    await rig.port.start();
    await rig.linkUp();
    const rx = rig.port.rxQueue(0);
    const tx = rig.port.txQueue(0);
    let sequence = 0;
    let expected = 0;
    for (const count of bursts) {
      for (let i = 0; i < count; i++) rig.setHandle(i, rig.mbuf(rig.frame(SMALLEST, sequence + i)));
      let taken = 0;
      await rig.until(
        () => {
          const n = tx.burst(rig.handles, count - taken);
          assert.ok(n >= 0 && n <= count - taken);
          for (let i = 0; i < count - taken - n; i++) rig.setHandle(i, rig.handle(i + n));
          taken += n;
          return taken === count;
        },
        () => `a burst of ${count}: ${taken} taken`,
      );
      if (rig.wire!.when === 'started') {
        const got = await rig.sent(count);
        assert.deepEqual(
          sequences(got),
          range(count).map((i) => sequence + i),
        );
        await rig.feed(inbound.slice(sequence, sequence + count));
      }
      sequence += count;
      assert.equal(rx.burst(rig.handles, 0), 0);
      if (count === 0) continue;
      const frames: Uint8Array[] = [];
      await rig.until(
        () => {
          const n = count - frames.length;
          const some = rig.take(rx, n);
          assert.ok(some.length <= n, 'more than asked for');
          frames.push(...some);
          return frames.length >= count;
        },
        () => `rx bursts of ${count}: ${frames.length} came`,
      );
      for (const got of sequences(frames)) assert.equal(got, expected++);
    }
    if (rig.wire!.when === 'stopped') assert.deepEqual(sequences(await rig.sent(total)), range(total));
  },

  async 'tx takes from the front, and what it does not take stays'(rig: Rig) {
    await rig.open();
    const { min, align } = rig.port.info().txDescriptors;
    const descriptors = Math.max(min, align * Math.ceil(32 / align));
    await rig.start({ descriptors });
    await rig.linkUp();
    const { mbufs } = rig;
    const tx = rig.port.txQueue(0);
    let refused = -1;
    let taken = 0;
    for (let burst = 0; burst < 32 && refused < 0; burst++) {
      const list = range(BURST_MAX / 2).map((i) => rig.mbuf(rig.frame(1000, burst * 1000 + i)));
      for (const [i, mbuf] of list.entries()) rig.setHandle(i, mbuf);
      const n = tx.burst(rig.handles, list.length);
      taken += n;
      if (n === list.length) continue;
      refused = list.length - n;
      for (let i = n; i < list.length; i++) {
        const mbuf = list[i]!;
        assert.equal(rig.handle(i), mbuf, 'the list was changed');
        assert.equal(mbufs.references(mbuf), 1);
        assert.deepEqual(mbufs.read(mbuf), rig.frame(1000, burst * 1000 + i));
        mbufs.free(mbuf);
      }
    }
    const stats = () => rig.port.stats();
    if (rig.wire?.when === 'started' && rig.wire.sent !== undefined) {
      await rig.until(
        async () => {
          await rig.wire!.sent!(0);
          tx.burst(rig.handles, 0);
          return stats().opackets + stats().oerrors >= taken;
        },
        () => `${taken} packets were taken, ${stats().opackets} counted`,
      );
    }
    if (refused < 0) rig.skip('the device takes packets as fast as they are given: it never refused one');
  },

  async 'counters agree with what went'(rig: Rig) {
    await rig.open();
    const no = noSender(rig) || noWitness(rig);
    if (no) return rig.skip(no);
    await rig.configure();
    const inbound = range(50).map((i) => rig.frame(60 + i, i, true));
    const outbound = range(70).map((i) => rig.frame(100 + i, i));
    const bytes = (frames: readonly Uint8Array[]) => frames.reduce((sum, { length }) => sum + length, 0);
    let foreign = 0;
    let foreignBytes = 0;
    await rig.startFed(inbound);
    await rig.linkUp();
    const rx = rig.port.rxQueue(0);
    let came = 0;
    await rig.until(
      () => {
        const n = rx.burst(rig.handles, 32);
        for (let i = 0; i < n; i++) {
          const mbuf = rig.handle(i);
          if (parseFrame(rig.mbufs.read(mbuf))) came++;
          else {
            foreign++;
            foreignBytes += rig.mbufs.packetLength(mbuf);
          }
          rig.mbufs.free(mbuf);
        }
        return came === inbound.length;
      },
      () => `${came} of ${inbound.length} frames came`,
    );
    await rig.send(outbound);
    await rig.sent(outbound.length);
    const { port } = rig;
    await rig.until(
      () => port.stats().opackets >= outbound.length,
      () => `opackets: ${port.stats().opackets}`,
    );
    const stats = port.stats();
    assert.deepEqual(
      { ...stats, imissed: 0 },
      {
        ...{ ipackets: inbound.length + foreign, ibytes: bytes(inbound) + foreignBytes },
        ...{ opackets: outbound.length, obytes: bytes(outbound), imissed: 0, ierrors: 0, oerrors: 0, rxNombuf: 0 },
      },
    );
    const queue = port.queueStats(0);
    if (queue) {
      assert.deepEqual([queue.rx.packets, queue.rx.bytes], [stats.ipackets, stats.ibytes]);
      assert.deepEqual([queue.tx.packets, queue.tx.bytes], [stats.opackets, stats.obytes]);
    }
    const named = new Map(port.xstats());
    assert.equal(named.get('rx_good_packets'), stats.ipackets);
    assert.equal(named.get('tx_good_bytes'), stats.obytes);
    port.resetStats();
    const zero = port.stats();
    for (const [name, value] of Object.entries(zero)) assert.equal(value, 0, `${name} after reset`);
    assert.equal(port.queueStats(0)?.tx.packets ?? 0, 0);
  },

  async 'an mbuf that somebody else holds comes back to them'(rig: Rig) {
    await rig.open();
    await rig.start();
    await rig.linkUp();
    const { mbufs } = rig;
    const frames = range(16).map((i) => rig.frame(100 + i, i));
    const list = frames.map((frame) => rig.mbuf(frame));
    for (const mbuf of list) mbufs.reference(mbuf);
    await rig.sendMbufs(list);
    if (rig.wire?.sent) await rig.sent(frames.length);
    await rig.until(
      () => {
        if (rig.port.state === 'started') rig.port.txQueue(0).burst(rig.handles, 0);
        return list.every((mbuf) => mbufs.references(mbuf) === 1);
      },
      () => 'a packet that was sent is still referenced',
    );
    list.forEach((mbuf, i) => {
      assert.deepEqual(mbufs.read(mbuf), frames[i]);
      mbufs.free(mbuf);
    });
  },

  async 'clones are sent, the original stays'(rig: Rig) {
    await rig.open();
    await rig.start();
    await rig.linkUp();
    const frame = rig.frame(300, 7);
    const original = rig.mbuf(frame);
    await rig.sendMbufs(range(8).map(() => rig.mbufs.clone(rig.pool, original)));
    if (rig.wire?.sent)
      same(
        await rig.sent(8),
        range(8).map(() => frame),
      );
    await rig.settle(1, rig.port.state === 'started' ? [rig.port.txQueue(0)] : []);
    assert.deepEqual(rig.mbufs.read(original), frame);
    rig.mbufs.free(original);
  },

  async 'external buffers are sent and given back'(rig: Rig) {
    await rig.open();
    await rig.start();
    await rig.linkUp();
    const { mbufs } = rig;
    const frames = range(8).map((i) => rig.frame(400 + i, i));
    let freed = 0;
    const carriers: number[] = [];
    const list = frames.map((frame) => {
      // The bytes are in packet memory, as a program's own buffers have to be.
      const memory = rig.mbuf(frame);
      const mbuf = mbufs.allocate(rig.pool);
      assert.ok(mbufs.attachExternal(mbuf, mbufs.data(memory), frame.length, () => freed++));
      carriers.push(memory);
      return mbuf;
    });
    await rig.sendMbufs(list);
    if (rig.wire?.sent) same(await rig.sent(frames.length), frames);
    await rig.until(
      () => {
        if (rig.port.state === 'started') rig.port.txQueue(0).burst(rig.handles, 0);
        mbufs.reap();
        return freed === frames.length;
      },
      () => `${freed} of ${frames.length} buffers came back`,
    );
    for (const memory of carriers) mbufs.free(memory);
  },

  async 'goes on after the pool was empty'(rig: Rig) {
    await rig.open();
    const no = noSender(rig);
    if (no) return rig.skip(no);
    const { pool } = rig;
    await rig.configure();
    const { mbufs } = rig;
    const hoard: number[] = [];
    for (let mbuf = mbufs.allocate(pool); mbuf !== 0; mbuf = mbufs.allocate(pool)) hoard.push(mbuf);
    const frames = range(40).map((i) => rig.frame(80, i, true));
    await rig.startFed(frames);
    const rx = rig.port.rxQueue(0);
    // Frames may wait, be lost, or come in somebody else's mbufs.
    let early = 0;
    for (let i = 0; i < 50; i++) {
      early += rig.take(rx, 32).length;
      await new Promise(setImmediate);
    }
    for (const mbuf of hoard) mbufs.free(mbuf);
    if (rig.wire!.when === 'stopped') return void (await rig.receive(1));
    await rig.until(
      async () => {
        await rig.feed([rig.frame(90, 1000, true)]);
        return rig.take(rx, 32).some((frame) => parseFrame(frame)!.sequence === 1000);
      },
      () => `nothing comes any more (${early} came before)`,
    );
  },

  async 'rx interrupts: sleeps until something comes'(rig: Rig) {
    await rig.open();
    const no = noSender(rig);
    if (no) return rig.skip(no);
    if (!rig.port.info().rxInterrupts) return rig.skip('the device has no rx interrupts');
    if (rig.wire!.when === 'stopped') return rig.skip('nobody sends while the port runs');
    await rig.start({ rxInterrupts: true });
    await rig.linkUp();
    const rx = rig.port.rxQueue(0);
    const polls = new PollSet();
    try {
      for (let round = 0; round < 5; round++) {
        await rig.until(
          () => {
            rig.take(rx, 32);
            return rx.arm();
          },
          () => 'arm() says that something waits, but nothing comes',
        );
        assert.ok(rx.fds().length > 0, 'no descriptor');
        for (const fd of rx.fds()) polls.add(fd);
        await rig.feed([rig.frame(64, round, true)]);
        await rig.until(
          () => polls.wait(10) > 0,
          () => 'a packet came, but nobody is woken',
        );
        rx.disarm();
        for (const fd of rx.fds()) polls.remove(fd);
        assert.deepEqual(sequences(await rig.receive(1)), [round]);
      }
      await rig.feed([rig.frame(64, 99, true)]);
      await rig.until(
        () => {
          const quiet = rx.arm();
          rx.disarm();
          return !quiet;
        },
        () => 'arm() does not see the packet that waits',
      );
      await rig.receive(1);
    } finally {
      polls.close();
    }
  },
};
