import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { test } from 'node:test';
import { Arena } from '../arena.js';
import { linuxSystem } from './mman.js';
import { interfaceIndex } from './netlink.js';
import { noNetworkReason, PacketPeer, TestNetwork } from './packet-peer-testing.js';
import {
  bindPacketSocket,
  bypassQdisc,
  joinFanout,
  openPacketSocket,
  PACKET_HEADER_BYTES,
  PACKET_PROTOCOL,
  PacketWriter,
  packetStatistics,
  setDeaf,
  setMembership,
  setReceiveRing,
  takeSocketError,
  useVnetHeader,
} from './packet-socket.js';
import { POLL, PollSet } from './poll.js';

const skip = noNetworkReason();
const TYPE = 0x88b5;
const RING = { blockBytes: 16_384, blockCount: 4, frameBytes: 2048, timeoutMs: 1 };

const frame = (n: number, bytes = 60) => {
  const made = new Uint8Array(bytes);
  made.set([0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, TYPE >> 8, TYPE & 255, n >> 8, n & 255]);
  return made;
};

interface Rig {
  readonly network: TestNetwork;
  readonly fd: number;
  readonly index: number;
  readonly peer: PacketPeer;
}

function withSocket(work: (rig: Rig) => void): void {
  const network = new TestNetwork();
  const closing: (() => void)[] = [() => network.close()];
  try {
    network.veth('a0', 'b0');
    const peer = network.in(() => new PacketPeer('b0', TYPE));
    closing.push(() => peer.close());
    const fd = network.in(openPacketSocket);
    closing.push(() => closeSync(fd));
    work({ network, fd, index: network.in(() => interfaceIndex('a0')), peer });
  } finally {
    for (const close of closing.reverse()) close();
  }
}

/** Writes from an arena, header in front of every frame. */
function withWriter({ fd, index }: Rig, work: (writer: PacketWriter, put: (frames: Uint8Array[]) => number) => void) {
  useVnetHeader(fd);
  bindPacketSocket(fd, index, PACKET_PROTOCOL.NONE);
  const arena = Arena.create({ bytes: 4 << 20, system: linuxSystem });
  const at = arena.reserve('frames', 64 * 2048);
  const writer = new PacketWriter(arena, fd, 8);
  const put = (frames: Uint8Array[]) => {
    frames.forEach((bytes, i) => {
      arena.u8.fill(0, at + i * 2048, at + i * 2048 + PACKET_HEADER_BYTES);
      arena.u8.set(bytes, at + i * 2048 + PACKET_HEADER_BYTES);
    });
    return writer.write(
      Int32Array.from(frames, (_, i) => at + i * 2048),
      Int32Array.from(frames, ({ length }) => length + PACKET_HEADER_BYTES),
      frames.length,
    );
  };
  try {
    work(writer, put);
  } finally {
    writer.close();
  }
}

test('frames are sent in order, at most a batch at once', { skip }, () => {
  withSocket((rig) => {
    withWriter(rig, (writer, put) => {
      bypassQdisc(rig.fd);
      const frames = Array.from({ length: 20 }, (_, n) => frame(n, 60 + n));
      assert.equal(put(frames), 8);
      assert.equal(put(frames.slice(8, 15)), 7);
      assert.equal(put([]), 0);
      assert.equal(writer.writeErrors, 0);
      assert.deepEqual(rig.peer.receive(15), frames.slice(0, 15));
    });
  });
});

test('what can never be sent is skipped and counted, the rest goes', { skip }, () => {
  withSocket((rig) => {
    withWriter(rig, (writer, put) => {
      const list = [frame(1), frame(2, 1600), frame(3), frame(4).slice(0, 5), frame(5)];
      assert.equal(put(list), 5);
      assert.equal(writer.writeErrors, 2);
      assert.deepEqual(
        rig.peer.receive(3).map((bytes) => bytes[15]),
        [1, 3, 5],
      );
    });
  });
});

test('an interface that is down or gone takes nothing, and nothing is counted', { skip }, () => {
  withSocket((rig) => {
    withWriter(rig, (writer, put) => {
      rig.network.run('ip link set a0 down');
      takeSocketError(rig.fd);
      assert.equal(put([frame(1), frame(2)]), 0);
      rig.network.run('ip link set a0 up');
      takeSocketError(rig.fd);
      assert.equal(put([frame(3)]), 1);
      rig.network.run('ip link del a0');
      takeSocketError(rig.fd);
      assert.equal(put([frame(4)]), 0);
      assert.equal(writer.writeErrors, 0);
    });
  });
});

test('a ring: readable once a block is handed over, deaf when told so, counts what it missed', { skip }, () => {
  withSocket(({ fd, index, peer }) => {
    const polls = new PollSet(1);
    try {
      useVnetHeader(fd);
      setReceiveRing(fd, RING);
      setDeaf(fd, true);
      bindPacketSocket(fd, index, PACKET_PROTOCOL.ALL);
      polls.add(fd);
      assert.ok(peer.send(frame(1)));
      assert.equal(polls.wait(50), 0, 'it heard something');
      setDeaf(fd, false);
      setDeaf(fd, false);
      assert.ok(peer.send(frame(2)));
      assert.equal(polls.wait(2000), 1);
      assert.equal(polls.revents(fd), POLL.IN);
      assert.deepEqual(packetStatistics(fd), { dropped: 0, full: 0 });
      for (let n = 0; n < 2000; n++) peer.send(frame(n));
      const { dropped, full } = packetStatistics(fd);
      assert.ok(dropped > 0 && full > 0, `${dropped} dropped, ${full} times full`);
      assert.equal(packetStatistics(fd).dropped, 0, 'counted twice');
    } finally {
      polls.close();
    }
  });
});

test('the error of an interface that went down makes it readable until it is taken', { skip }, () => {
  withSocket(({ network, fd, index }) => {
    const polls = new PollSet(1);
    try {
      bindPacketSocket(fd, index, PACKET_PROTOCOL.ALL);
      polls.add(fd);
      network.run('ip link set a0 down');
      assert.equal(polls.wait(1000), 1);
      assert.equal(takeSocketError(fd), 100); // ENETDOWN
      assert.equal(takeSocketError(fd), 0);
      assert.equal(polls.wait(0), 0);
    } finally {
      polls.close();
    }
  });
});

test('groups have numbers of their own; a membership lasts as long as its socket', { skip }, () => {
  withSocket(({ network, fd, index }) => {
    const others = [1, 2, 3].map(() => network.in(openPacketSocket));
    try {
      for (const other of [fd, ...others]) bindPacketSocket(other, index, PACKET_PROTOCOL.ALL);
      const group = joinFanout(fd, 'hash');
      assert.equal(joinFanout(others[0]!, 'hash', group), group);
      assert.notEqual(joinFanout(others[1]!, 'lb'), group);
      assert.throws(() => joinFanout(others[2]!, 'cpu', group), { code: 'EINVAL' });
      const promiscuity = () => /promiscuity (\d+)/.exec(network.run('ip -d link show a0'))![1];
      setMembership(others[2]!, index, 1, true);
      assert.equal(promiscuity(), '1');
      setMembership(others[2]!, index, 1, false);
      assert.equal(promiscuity(), '0');
      setMembership(others[2]!, index, 1, true);
      closeSync(others.pop()!);
      assert.equal(promiscuity(), '0');
    } finally {
      for (const other of others) closeSync(other);
    }
  });
});
