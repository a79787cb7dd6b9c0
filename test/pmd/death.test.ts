// A host in a process of its own that is killed while two lcores poll its ports, and the next host of that name.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { after, type TestContext, test } from 'node:test';
import { initEal } from '../../src/drivers/platform.js';
import { affinity } from '../../src/memory/os/process.js';
import { parseMac } from '../../src/wire/address-text.js';
import { machineName, startHost } from '../lifecycle/processes.js';
import { packetBytes } from '../queues/rig.js';
import { notesBytes, type ReceiverOrder } from './lcore-work.js';
import { startPort, until } from './rig.js';

// A run directory of its own: any other host that starts would remove what ours leave.
const runtime = mkdtempSync(`${tmpdir()}/netvsc-pmd-`);
process.env.XDG_RUNTIME_DIR = runtime;
after(() => rmSync(runtime, { recursive: true, force: true }));

const PACKETS = 200_000;

/** Ports on the machine's host; packets from the first to the second, which the other lcore polls. */
async function traffic(t: TestContext, machine: string, which: string) {
  const eal = await initEal(['--machine', machine, '-m', '24', '-l', affinity().slice(0, 2).join(',')], {
    log: () => {},
  });
  t.after(() => eal.close());
  const [a, b] = eal.ports as [(typeof eal.ports)[0], (typeof eal.ports)[0]];
  assert.equal(eal.ports.length, 2, `${which} host`);
  const pool = eal.createMempool('mbufs', { count: 6000, cache: 64 });
  for (const port of [a, b]) await startPort(port, pool, { rxQueues: 2, txQueues: 2 });
  const notes = eal.arena.reserve('notes', notesBytes(PACKETS));
  const order: ReceiverOrder = { port: b.id, queues: [0, 1], notes };
  const other = eal.launch(1, new URL('./lcore-work.js', import.meta.url), 'receive', order);
  const handles = eal.main.reserve('burst', 32 * 4);
  let sent = 0;
  const send = () => {
    const { mbufs, arena } = eal;
    const count = eal.main.datapath.poolGet(pool.address, handles, 16);
    for (let i = 0; i < count; i++) {
      const bytes = packetBytes(parseMac(a.mac)!, parseMac(b.mac)!, sent + i, 0);
      mbufs.write(arena.u32[(handles >>> 2) + i]!, bytes);
    }
    const taken = a.txQueue(sent & 1).burst(handles, count);
    eal.main.datapath.mbufFree(handles + 4 * taken, count - taken);
    sent += taken;
    for (const queue of [0, 1]) {
      const n = a.rxQueue(queue).burst(handles, 32);
      eal.main.datapath.mbufFree(handles, n);
    }
    return sent;
  };
  const received = () => eal.arena.u32[notes >>> 2]!;
  return { eal, a, b, pool, other, send, received };
}

test('the host is killed under traffic: ports say so, sends in flight are errors, every mbuf is back; the next host serves', {
  skip: affinity().length < 2 && 'one CPU',
}, async (t) => {
  const machine = machineName();
  const first = startHost(t, machine);
  await first.line('ready');
  const rig = await traffic(t, machine, 'first');
  const reasons: string[] = [];
  for (const port of [rig.a, rig.b]) port.on('removed', (reason) => reasons.push(reason));
  await until('packets flow', () => rig.send() > 2000 && rig.received() > 500);
  await first.kill();
  await until('both ports are told', () => {
    rig.send();
    return reasons.length === 2;
  });
  for (const reason of reasons) assert.match(reason, /the host is gone/);
  const sent = rig.send();
  assert.equal(rig.send(), sent, 'nothing more is taken');
  const { opackets, oerrors } = rig.a.stats();
  assert.equal(opackets + oerrors, sent);
  assert.equal(rig.b.stats().ipackets, rig.received());
  for (const port of [rig.a, rig.b]) {
    assert.equal(port.state, 'removed');
    await assert.rejects(port.setMtu(1400), /the port is removed/);
  }
  await rig.eal.stopLcores();
  await rig.other;
  assert.equal(rig.pool.available, rig.pool.count);
  await rig.eal.close();

  const second = startHost(t, machine);
  await second.line('ready');
  const next = await traffic(t, machine, 'second');
  await until('packets flow', () => next.send() > 2000 && next.received() > 500);
  await next.eal.close();
  await next.other;
  await second.end();
});
