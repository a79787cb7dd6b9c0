// net_netvsc, one queue: two ports of one program on our host.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { portOf, startEal, startHost, startPort, until } from './rig.js';

test('packets from port to port, counters, stop and start', async (t) => {
  const host = await startHost(t);
  const eal = await startEal(host, '-m', '16');
  const [a, b] = [portOf(eal, host, 0), portOf(eal, host, 1)];
  const pool = eal.createMempool('mbufs', { count: 2048 });
  for (const port of [a, b]) await startPort(port, pool);
  const handles = eal.main.reserve('burst', 64 * 4);
  const { mbufs } = eal;
  const { u32, u8 } = eal.arena;
  let sent = 0;
  const send = () => {
    const mbuf = mbufs.allocate(pool);
    assert.notEqual(mbuf, 0);
    const bytes = Buffer.alloc(60 + (sent % 1400));
    bytes.write(b.mac.replaceAll(':', '') + a.mac.replaceAll(':', ''), 'hex');
    bytes.writeUInt16BE(0x88b5, 12);
    bytes.writeUInt32BE(sent, 14);
    assert.ok(mbufs.write(mbuf, bytes));
    u32[handles >>> 2] = mbuf;
    if (a.txQueue(0).burst(handles, 1) === 1) sent++;
    else mbufs.free(mbuf);
  };
  let next = 0;
  const receive = () => {
    const count = b.rxQueue(0).burst(handles, 64);
    for (let i = 0; i < count; i++) {
      const mbuf = u32[(handles >>> 2) + i]!;
      const at = mbufs.data(mbuf);
      assert.equal(Buffer.from(u8.subarray(at + 14, at + 18)).readUInt32BE(), next);
      assert.equal(mbufs.packetLength(mbuf), 60 + (next % 1400));
      next++;
      mbufs.free(mbuf);
    }
  };
  for (let i = 0; i < 3000; i++) {
    send();
    receive();
    if (i % 64 === 0) await new Promise(setImmediate);
  }
  await until('everything came', () => {
    receive();
    a.rxQueue(0).burst(handles, 64);
    return next === sent;
  });
  await until('sends are completed', () => a.rxQueue(0).burst(handles, 64) === 0 && a.stats().opackets === sent);
  assert.equal(b.stats().ipackets, sent);
  assert.equal(b.stats().ibytes, a.stats().obytes);
  assert.equal(pool.available, 2048);
  await b.stop();
  await b.start();
  send();
  await until('one more', () => {
    receive();
    return next === sent;
  });
});
