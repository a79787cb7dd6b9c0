// The end of a host, and what lies between a port and a program that does not poll, or stops.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { PortError } from '../../ethdev/errors.js';
import { type FakeRig, fakeRig, frameTo } from './testing.js';

const PEER = '02:00:00:00:00:01';

async function removed(t: TestContext, rig: FakeRig, end: () => void, reason: RegExp): Promise<void> {
  let told = '';
  rig.port.on('removed', (why) => {
    told = why;
  });
  end();
  await rig.until('the port is told', () => told !== '');
  assert.match(told, reason);
  assert.equal(rig.port.state, 'removed');
  assert.deepEqual(rig.receive(), []);
  const mbuf = rig.mbuf(frameTo(PEER, 60, 1));
  assert.equal(rig.send([mbuf]), 0);
  rig.mbufs.free(mbuf);
  assert.equal(rig.pool.available, rig.pool.count, 'sends in flight came back');
  await assert.rejects(rig.run(rig.port.start()), (error: PortError) => error.code === 'ENODEV');
  t.diagnostic(told);
}

test('the host goes away: the port is told why, packets in flight come back as errors', async (t) => {
  const rig = await fakeRig(t, { devargs: 'tx_copybreak=0' });
  await rig.start();
  rig.host.holdSends = true;
  assert.equal(rig.send([rig.mbuf(frameTo(PEER, 60, 1)), rig.mbuf(frameTo(PEER, 60, 2))]), 2);
  await rig.turns(3);
  await removed(t, rig, () => rig.host.rescind(), /running: the host is gone/);
  assert.equal(rig.port.stats().oerrors, 2);
});

test('a burst finds the ring corrupt: the control thread tells of it', async (t) => {
  const rig = await fakeRig(t);
  await rig.start();
  const ring = rig.bus.pairs[0]!.offer.toGuest;
  await removed(
    t,
    rig,
    () => {
      rig.arena.u32[ring.control >>> 2] = 0xffff_fff8;
      assert.deepEqual(rig.receive(), []);
    },
    /ring corrupt: INVALID_POINTER/,
  );
});

test('nobody polls: requests are answered, packets wait up to the number of descriptors, more are counted as missed', async (t) => {
  const rig = await fakeRig(t);
  await rig.start({}, 16);
  for (let i = 0; i < 20; i++) rig.host.frame(frameTo(rig.port.mac, 60 + i, i));
  await rig.run(rig.port.setPromiscuous(true)); // reads the ring for its answer
  assert.equal(rig.port.rxQueueCount(0), 16);
  assert.equal(rig.port.stats().imissed, 4);
  rig.host.frame(frameTo(rig.port.mac, 100, 0));
  const got: number[] = [];
  await rig.until('all came', () => {
    got.push(...rig.frames(0, 5).map(({ length }) => length));
    return got.length === 17;
  });
  assert.deepEqual(got, [...Array.from({ length: 16 }, (_, i) => 60 + i), 100]);
  assert.equal(rig.port.stats().ipackets, 17);
});

test('somebody receives: what has no room to wait stays in the ring, and a request loses nothing', async (t) => {
  const rig = await fakeRig(t);
  await rig.start({}, 16);
  for (let i = 0; i < 60; i++) rig.host.frame(frameTo(rig.port.mac, 60 + i, i));
  let answered = false;
  const request = rig.port.setPromiscuous(true).then(() => {
    answered = true;
  });
  const got: number[] = [];
  await rig.until('the request is answered', () => {
    got.push(...rig.frames(0, 2).map(({ length }) => length));
    return answered;
  });
  await request;
  got.push(...rig.frames(0, 60).map(({ length }) => length));
  assert.deepEqual(
    got,
    Array.from({ length: 60 }, (_, i) => 60 + i),
  );
  assert.equal(rig.port.stats().imissed, 0);
});

test('a sender that never receives gets its completions; what comes meanwhile waits, then is missed', async (t) => {
  const rig = await fakeRig(t);
  await rig.start({}, 32);
  for (let i = 0; i < 40; i++) rig.host.frame(frameTo(rig.port.mac, 60, i));
  let sent = 0;
  await rig.until('a thousand are sent', () => {
    const mbuf = rig.mbuf(frameTo(PEER, 600, sent));
    if (rig.send([mbuf]) === 1) sent++;
    else rig.mbufs.free(mbuf);
    return sent === 1000;
  });
  assert.equal(rig.port.rxQueueCount(0), 32);
  assert.equal(rig.port.stats().imissed, 8);
});

test('a sender takes completions long before it is out of descriptors, and leaves what was received in the ring', async (t) => {
  const rig = await fakeRig(t, { devargs: 'tx_copybreak=0' });
  await rig.start({}, 1000);
  for (let sent = 0; sent < 500; sent++) {
    assert.equal(rig.send([rig.mbuf(frameTo(PEER, 60, sent))]), 1);
    rig.host.step(); // completes it
    assert.ok(rig.port.txDescriptorStatus(0, 1000 - 65) === 'DONE', `message ${sent}: more than 64 wait`);
  }
  // Behind a received packet nothing is looked at: that is for who receives.
  rig.host.frame(frameTo(rig.port.mac, 60, 7));
  for (let sent = 0; sent < 200; sent++) {
    assert.equal(rig.send([rig.mbuf(frameTo(PEER, 60, sent))]), 1);
    rig.host.step();
  }
  assert.equal(rig.port.txDescriptorStatus(0, 1000 - 200), 'FULL');
  assert.deepEqual(rig.frames(), [frameTo(rig.port.mac, 60, 7)]);
  rig.frames();
  assert.equal(rig.port.txDescriptorStatus(0, 999), 'DONE');
  assert.equal(rig.pool.available, rig.pool.count);
});

test('what came before a stop or another MTU is handed out after it, and nothing is sent twice or lost', async (t) => {
  const rig = await fakeRig(t);
  await rig.start();
  for (let i = 0; i < 10; i++) rig.host.frame(frameTo(rig.port.mac, 60 + i, i));
  for (let i = 0; i < 10; i++) assert.equal(rig.send([rig.mbuf(frameTo(PEER, 60 + 10 * i, i))]), 1);
  await rig.run(rig.port.stop());
  assert.equal(rig.port.stats().opackets, 10);
  rig.host.largestMtu = 9000;
  await rig.run(rig.port.setMtu(4000));
  await rig.run(rig.port.start());
  assert.deepEqual(
    rig.frames().map(({ length }) => length),
    Array.from({ length: 10 }, (_, i) => 60 + i),
  );
  assert.equal(rig.host.frames.length, 10);
  const { ipackets, opackets, imissed } = rig.port.stats();
  assert.deepEqual({ ipackets, opackets, imissed }, { ipackets: 10, opackets: 10, imissed: 0 });
});
