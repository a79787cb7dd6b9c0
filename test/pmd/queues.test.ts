// Several queues of net_netvsc on our host, polled by two lcores: every packet once, where the redirection table wants it, flows in
// order; also while the table changes.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { RX_OFFLOAD } from '../../src/ethdev/constants.js';
import type { Eal } from '../../src/ethdev/eal.js';
import type { Mempool } from '../../src/ethdev/mempool.js';
import type { Port } from '../../src/ethdev/port.js';
import { affinity } from '../../src/memory/os/process.js';
import { parseMac } from '../../src/wire/address-text.js';
import { flowHash, flowsForAll, packetBytes } from '../queues/rig.js';
import { type Note, noted, notesBytes, type ReceiverOrder, readNotes, receiver } from './lcore-work.js';
import { portOf, startEal, startHost, startPort, until } from './rig.js';

const two = affinity().length < 2 && 'one CPU';
const work = new URL('./lcore-work.js', import.meta.url);
const NICS = [
  { ringBytes: 512 << 10, subchannelRingBytes: 64 << 10 },
  { ringBytes: 512 << 10, subchannelRingBytes: 64 << 10 },
];
const usualTable = (queues: number) => Array.from({ length: 128 }, (_, i) => i % queues);

/** Port `a` sends, port `b` receives: even queues here, odd ones in the other lcore. */
class Flows {
  readonly eal: Eal;
  readonly a: Port;
  readonly b: Port;
  readonly pool: Mempool;
  sent = 0;
  readonly #handles: number;
  readonly #notes: readonly number[];
  readonly #step: () => number;
  readonly #sentOf = new Map<number, number>();

  constructor(eal: Eal, a: Port, b: Port, pool: Mempool, orders: readonly ReceiverOrder[]) {
    this.eal = eal;
    this.a = a;
    this.b = b;
    this.pool = pool;
    this.#handles = eal.main.reserve('flows', 32 * 4);
    this.#notes = orders.map(({ notes }) => notes);
    this.#step = receiver(eal.main, b, orders[0]!);
  }

  get came(): number {
    return this.#notes.reduce((sum, notes) => sum + noted(this.eal.arena, notes), 0);
  }

  /** Notes of both lcores since the `from`-th of each. */
  notes(from: readonly number[] = [0, 0]): Note[] {
    return this.#notes.flatMap((notes, i) => readNotes(this.eal.arena, notes).slice(from[i]));
  }

  counts(): number[] {
    return this.#notes.map((notes) => noted(this.eal.arena, notes));
  }

  /** The next packet of each of these flows, on the queue that is the flow's. */
  send(flows: readonly number[]): void {
    const { u32 } = this.eal.arena;
    const { mbufs } = this.eal;
    const queues = this.a.config!.txQueues;
    for (const flow of flows) {
      const mbuf = mbufs.allocate(this.pool);
      if (mbuf === 0) break;
      const number = this.#sentOf.get(flow) ?? 0;
      mbufs.write(mbuf, packetBytes(parseMac(this.a.mac)!, parseMac(this.b.mac)!, flow, number));
      u32[this.#handles >>> 2] = mbuf;
      if (this.a.txQueue(Math.abs(flow) % queues).burst(this.#handles, 1) === 1) {
        this.#sentOf.set(flow, number + 1);
        this.sent++;
      } else mbufs.free(mbuf);
    }
    this.receive();
  }

  receive(): void {
    while (this.#step() > 0) {}
    for (let queue = 0; queue < this.a.config!.rxQueues; queue++) this.a.rxQueue(queue).burst(this.#handles, 32);
  }

  /** Until everything that was sent has come. */
  async settle(): Promise<void> {
    await until(`${this.sent} packets come`, () => {
      this.receive();
      return this.came === this.sent;
    });
  }
}

async function flows(
  t: TestContext,
  queues: number,
  packets: number,
  more: Partial<ReceiverOrder> = {},
): Promise<Flows> {
  const host = await startHost(t, { nics: NICS });
  const eal = await startEal(host, '-m', '24', '-l', affinity().slice(0, 2).join(','));
  const [a, b] = [portOf(eal, host, 0), portOf(eal, host, 1)];
  const pool = eal.createMempool('mbufs', { count: 6000, cache: 64 });
  await startPort(a, pool, { rxQueues: 1, txQueues: Math.min(queues, 4) });
  const rxOffloads = RX_OFFLOAD.RSS_HASH | RX_OFFLOAD.VLAN_STRIP;
  await startPort(b, pool, { rxQueues: queues, txQueues: queues, rxOffloads }, 2048);
  const orders = [0, 1].map((odd): ReceiverOrder => {
    const notes = eal.arena.reserve('notes', notesBytes(packets));
    const mine = Array.from({ length: queues }, (_, queue) => queue).filter((queue) => queue % 2 === odd);
    return { port: b.id, queues: mine, notes, ...more };
  });
  const other = eal.launch(1, work, 'receive', orders[1]!);
  const made = new Flows(eal, a, b, pool, orders);
  host.before.push(async () => {
    await eal.stopLcores();
    await other;
    await eal.close();
    assert.equal(pool.available, pool.count, 'mbufs are missing');
    for (const { notes } of orders) eal.arena.release(notes);
  });
  return made;
}

/** Each packet once, in its place, with its hash; flows in order within a queue. */
function check(notes: readonly Note[], allowed: (note: Note) => readonly number[], key?: Uint8Array): void {
  const last = new Map<string, number>();
  const seen = new Set<string>();
  for (const note of notes) {
    const { queue, flow, number, hash } = note;
    assert.equal(hash, flow < 0 ? undefined : flowHash(flow, key), `hash of flow ${flow}`);
    assert.ok(
      allowed(note).includes(queue),
      `packet ${number} of flow ${flow} on queue ${queue}, not ${allowed(note)}`,
    );
    assert.ok(number > (last.get(`${flow} ${queue}`) ?? -1), `order of flow ${flow}`);
    last.set(`${flow} ${queue}`, number);
    assert.ok(!seen.has(`${flow} ${number}`), 'a packet twice');
    seen.add(`${flow} ${number}`);
  }
}

const placed = (table: readonly number[], key?: Uint8Array) => (note: Note) => [
  table[note.flow < 0 ? 0 : flowHash(note.flow, key) % table.length]!,
];

for (const queues of [1, 2, 4, 8, 64]) {
  test(`${queues} queues, two lcores: every packet once, in its queue, flows in order, counted for its queue`, {
    skip: two,
  }, async (t) => {
    const rig = await flows(t, queues, 6000);
    const list = [...flowsForAll(queues), -1, -2];
    for (let round = 0; round < 3000 / list.length; round++) {
      rig.send(list);
      if (round % 16 === 0) await new Promise(setImmediate);
    }
    await rig.settle();
    assert.ok(rig.sent > 1000);
    const notes = rig.notes();
    const { b } = rig;
    assert.deepEqual(b.rss().table, usualTable(queues));
    check(notes, placed(usualTable(queues)));
    for (let queue = 0; queue < queues; queue++) {
      const mine = notes.filter((note) => note.queue === queue);
      assert.ok(mine.length > 0, `queue ${queue} got nothing`);
      assert.equal(b.queueStats(queue)!.rx.packets, mine.length);
    }
    assert.equal(b.stats().ipackets, rig.sent);
    const { imissed, ierrors, rxNombuf } = b.stats();
    assert.deepEqual({ imissed, ierrors, rxNombuf }, { imissed: 0, ierrors: 0, rxNombuf: 0 });
    await until('sends are completed', () => {
      rig.receive();
      return rig.a.stats().opackets === rig.sent;
    });
    const { txQueues } = rig.a.config!;
    const perQueue = Array.from({ length: txQueues }, (_, queue) => rig.a.queueStats(queue)!.tx.packets);
    assert.ok(
      perQueue.every((count) => count > 0),
      `sent by queue: ${perQueue}`,
    );
    assert.equal(
      perQueue.reduce((sum, count) => sum + count),
      rig.sent,
    );
  });
}

test('table, key and types change while packets flow: none is lost or doubled, later ones are where the new table wants them', {
  skip: two,
}, async (t) => {
  const queues = 4;
  const rig = await flows(t, queues, 20_000);
  const list = flowsForAll(queues);
  const key = Uint8Array.from({ length: 40 }, (_, i) => i * 11 + 3);
  const changes = [
    { table: usualTable(queues).reverse() },
    { table: usualTable(2) },
    { key },
    { table: new Array<number>(128).fill(3) },
    { table: usualTable(queues), key: key.slice().reverse() },
  ];
  let table: readonly number[] = usualTable(queues);
  let inForce: Uint8Array | undefined;
  for (const change of changes) {
    // Between two changes: all of it in its place.
    const from = rig.counts();
    for (let round = 0; round < 40; round++) rig.send(list);
    await rig.settle();
    check(rig.notes(from), placed(table, inForce), inForce);
    // During the change: in the old place, in the new one, or (scaling is off for a moment) on queue 0.
    const during = rig.counts();
    let done = false;
    const changed = rig.b.setRss(change).then(() => {
      done = true;
    });
    while (!done) {
      rig.send(list);
      await new Promise(setImmediate);
    }
    await changed;
    await rig.settle();
    const before = placed(table, inForce);
    table = change.table ?? table;
    inForce = change.key ?? inForce;
    const after = placed(table, inForce);
    const notes = rig.notes(during);
    assert.equal(notes.length, rig.came - during.reduce((sum, count) => sum + count));
    const last = new Map<string, number>();
    for (const note of notes) {
      const { queue, flow, number } = note;
      assert.ok([0, ...before(note), ...after(note)].includes(queue), `flow ${flow} on queue ${queue}`);
      assert.ok(number > (last.get(`${flow} ${queue}`) ?? -1), `order of flow ${flow} on queue ${queue}`);
      last.set(`${flow} ${queue}`, number);
    }
    assert.deepEqual(rig.b.rss().table, table);
    if (inForce) assert.deepEqual(rig.b.rss().key, inForce);
  }
  const all = rig.notes().map(({ flow, number }) => `${flow} ${number}`);
  assert.equal(new Set(all).size, rig.sent);
  assert.equal(rig.b.stats().ipackets, rig.sent);
});

test('stop, other MTU and start under traffic: what was accepted arrives', { skip: two }, async (t) => {
  const rig = await flows(t, 4, 20_000);
  const list = flowsForAll(4);
  for (let cycle = 0; cycle < 5; cycle++) {
    for (let round = 0; round < 20; round++) rig.send(list);
    const stopped = rig.a.stop();
    for (let round = 0; round < 5; round++) rig.send(list); // refused once it is stopped
    await stopped;
    await rig.a.setMtu(1501 + cycle); // one more needs a reattach each time
    await rig.a.start();
  }
  await rig.settle();
  check(rig.notes(), placed(usualTable(4)));
  assert.equal(rig.a.stats().opackets, rig.sent);
});

test('lcores that sleep until something comes on one of their queues', { skip: two }, async (t) => {
  const rig = await flows(t, 4, 2000, { sleeps: true });
  const list = flowsForAll(4);
  for (let round = 0; round < 30; round++) {
    rig.send(list);
    await rig.settle();
    await new Promise((resolve) => setTimeout(resolve, 3)); // asleep again by then
  }
  check(rig.notes(), placed(usualTable(4)));
});
