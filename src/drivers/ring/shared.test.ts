// net_ring between processes: peers that come, go, are killed, and peers that break the rules.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Eal } from '../../ethdev/eal.js';
import type { Mempool } from '../../ethdev/mempool.js';
import type { Port } from '../../ethdev/port.js';
import { Arena } from '../../memory/arena.js';
import { SHARED_RING, SHARED_RING_DATA, SHARED_RING_READER, SHARED_SLOT_BYTES } from '../../memory/layout.js';
import { openShared } from '../../memory/os/memfd.js';
import { linuxSystem } from '../../memory/os/mman.js';
import { acceptUnix, connectUnix, listenUnix, receiveBytes, sendBytes, sendWord } from '../../memory/os/socket.js';
import { RING_ANSWER, RING_PURPOSE, RING_WORD, RingHello, RingWelcome } from '../../wire/ring-link.js';
import { initEal } from '../platform.js';

const PATIENCE_MS = 10_000;

// Who is killed leaves its socket behind.
const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-ring-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const socketName = () => path.join(folder, randomUUID());
const turn = () => new Promise((resolve) => setTimeout(resolve, 1));

async function until(done: () => boolean, problem: string): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!done()) {
    if (performance.now() > end) assert.fail(problem);
    await turn();
  }
}

class End {
  readonly logged: string[];
  readonly events: boolean[] = [];
  readonly eal: Eal;
  readonly port: Port;
  readonly pool: Mempool;
  readonly handles: number;
  #next = 0;

  private constructor(eal: Eal, logged: string[]) {
    this.eal = eal;
    this.logged = logged;
    this.port = eal.port(0);
    this.pool = eal.createMempool('mbufs', { count: 1024 });
    this.handles = eal.main.reserve('burst', 64 * 4);
    this.port.on('link', ({ up }) => this.events.push(up));
  }

  static async open(context: TestContext, socket: string, queues = 2): Promise<End> {
    const logged: string[] = [];
    const settings = { log: (line: string) => logged.push(line) };
    const eal = await initEal(['-m', '16', '--vdev', `net_ring0,path=${socket}`], settings);
    context.after(() => eal.close());
    const end = new End(eal, logged);
    await end.port.configure({ rxQueues: queues, txQueues: queues });
    for (let queue = 0; queue < queues; queue++) {
      end.port.setupRxQueue(queue, { descriptors: 0, pool: end.pool });
      end.port.setupTxQueue(queue);
    }
    await end.port.start();
    return end;
  }

  /** Sends numbered packets of 100 bytes; returns how many were taken. */
  send(count: number, queue = 0): number {
    for (let i = 0; i < count; i++) {
      const mbuf = this.eal.mbufs.allocate(this.pool);
      this.eal.mbufs.write(mbuf, new Uint8Array(100).fill(this.#next + i));
      this.eal.arena.u32[(this.handles >>> 2) + i] = mbuf;
    }
    const taken = this.port.txQueue(queue).burst(this.handles, count);
    this.eal.main.datapath.mbufFree(this.handles + taken * 4, count - taken);
    this.#next += taken;
    return taken;
  }

  receive(queue = 0): number {
    const n = this.port.rxQueue(queue).burst(this.handles, 64);
    this.eal.main.datapath.mbufFree(this.handles, n);
    return n;
  }

  linkIs(up: boolean): Promise<void> {
    return until(
      () => this.port.link().up === up,
      `the link does not go ${up ? 'up' : 'down'}: ${this.logged.join('; ')}`,
    );
  }

  /** Sends until so many packets came back. */
  async echo(count: number): Promise<void> {
    let back = 0;
    await until(() => {
      this.send(16, back % 2);
      for (const queue of [0, 1]) back += this.receive(queue);
      return back >= count;
    }, `only ${back} packets came back`);
  }
}

/** testing-peer.js on the other end. */
async function peer(context: TestContext, socket: string): Promise<ChildProcess> {
  const script = fileURLToPath(new URL('./testing-peer.js', import.meta.url));
  const child = spawn(process.execPath, [script, socket], { stdio: ['pipe', 'pipe', 'inherit'] });
  context.after(() => child.kill('SIGKILL'));
  await new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => resolve());
    child.once('exit', (code) => reject(new Error(`the peer ended with ${code}`)));
  });
  return child;
}

const gone = (child: ChildProcess) => new Promise<void>((resolve) => child.once('exit', () => resolve()));

test('a peer is killed under load, another one comes: links, memory and mbufs', async (context) => {
  const socket = socketName();
  const end = await End.open(context, socket);
  assert.equal(statSync(socket).mode & 0o777, 0o600);
  assert.equal(end.port.link().up, false);
  assert.equal(end.send(1), 0);
  const files = () => readdirSync('/proc/self/fd').length;
  const regions = () => end.eal.arena.regions().length;
  const before = [files(), regions()];
  for (let life = 0; life < 5; life++) {
    const child = await peer(context, socket);
    await end.linkIs(true);
    await end.echo(2000);
    end.send(32);
    child.kill('SIGKILL');
    await gone(child);
    await end.linkIs(false);
    assert.equal(end.send(4), 0);
    assert.equal(end.receive(), 0);
    assert.deepEqual([files(), regions()], before);
    assert.equal(end.pool.available, end.pool.count);
  }
  assert.deepEqual(
    end.events,
    Array.from({ length: 10 }, (_, i) => i % 2 === 0),
  );
  assert.equal(new Map(end.port.xstats()).get('link_sessions'), 5);
  assert.deepEqual(end.logged, []);
});

test('who listened is killed: who connected listens, and the next one connects', async (context) => {
  const socket = socketName();
  const first = await peer(context, socket);
  const end = await End.open(context, socket);
  await end.linkIs(true);
  await end.echo(500);
  first.kill('SIGKILL');
  await gone(first);
  await end.linkIs(false);
  await peer(context, socket);
  await end.linkIs(true);
  await end.echo(500);
});

test('a peer that ends in order leaves no socket behind when it was the last', async (context) => {
  const socket = socketName();
  const end = await End.open(context, socket);
  const child = await peer(context, socket);
  await end.linkIs(true);
  child.stdin!.end();
  await gone(child);
  await end.linkIs(false);
  assert.ok(existsSync(socket));
  await end.port.close();
  assert.ok(!existsSync(socket));
});

test('a third end is told that the link has two, and gets its turn later', async (context) => {
  const socket = socketName();
  const end = await End.open(context, socket);
  const child = await peer(context, socket);
  await end.linkIs(true);
  const third = await End.open(context, socket);
  await until(() => third.logged.length > 0, 'nothing was said');
  assert.match(third.logged.join(), /has two ends already/);
  await end.echo(100);
  child.kill('SIGKILL');
  await third.linkIs(true);
  assert.equal(third.logged.length, 1);
});

test('the peer stops and starts: what waited is gone, the link follows', async (context) => {
  const socket = socketName();
  const [a, b] = [await End.open(context, socket), await End.open(context, socket)];
  await a.linkIs(true);
  assert.equal(a.send(10), 10);
  await b.port.stop();
  await a.linkIs(false);
  assert.equal(a.send(1), 0);
  await b.port.start();
  await a.linkIs(true);
  assert.equal(b.receive(), 0);
  assert.equal(a.send(3), 3);
  assert.equal(b.receive(), 3);
});

/** Joins a link by hand, to break its rules. */
class Hostile {
  readonly arena = Arena.create({ bytes: 128 << 20, system: linuxSystem });
  readonly fds: number[] = [];
  readonly control: number;
  readonly base: number;
  readonly slots: number;

  private constructor(control: number, base: number, slots: number) {
    this.control = control;
    this.base = base;
    this.slots = slots;
    this.fds.push(control);
  }

  static async join(context: TestContext, socket: string): Promise<Hostile> {
    const control = connectUnix(socket);
    const hello = (purpose: number, session: number, queue: number) => RingHello.encode({ purpose, session, queue });
    sendBytes(control, hello(RING_PURPOSE.CONTROL, 0, 0), RingHello.size);
    const bytes = new Uint8Array(RingWelcome.size);
    await until(() => receiveBytes(control, bytes) === bytes.length, 'no welcome');
    const { answer, session, memory, queues, slots } = RingWelcome.decode(bytes);
    assert.equal(answer, RING_ANSWER.JOIN);
    const fd = openShared(`/proc/${process.pid}/fd/${memory}`, 4096);
    const hostile = new Hostile(control, 0, slots);
    const area = SHARED_RING_DATA + slots * SHARED_SLOT_BYTES;
    const base = hostile.arena.mapFile('peer', fd, 0, queues * 2 * area);
    closeSync(fd);
    const full = Object.assign(hostile, { base });
    for (let queue = 0; queue < queues; queue++) {
      const connection = connectUnix(socket);
      sendBytes(connection, hello(RING_PURPOSE.QUEUE, session, queue), RingHello.size);
      full.fds.push(connection);
    }
    context.after(() => full.close());
    sendWord(control, RING_WORD.READY);
    sendWord(control, RING_WORD.UP | (1 << 8));
    return full;
  }

  /** u32 index of the control cells of queue 0: 0 = what the victim writes, 1 = what it reads. */
  at(direction: 0 | 1): number {
    return (this.base + direction * (SHARED_RING_DATA + this.slots * SHARED_SLOT_BYTES)) >>> 2;
  }

  close(): void {
    for (const fd of this.fds.splice(0)) closeSync(fd);
  }
}

const READ = (SHARED_RING.bytes + SHARED_RING_READER.at.read) >>> 2;

for (const [name, message, attack] of [
  ['more slots than there are', /rx queue 0: INDEX 0x4001/, (u32, _tx, rx, slots) => (u32[rx] = slots + 1)],
  [
    'a frame of no bytes',
    /rx queue 0: LENGTH 0x0/,
    (u32, _tx, rx) => {
      u32[rx] = 4;
    },
  ],
  [
    'a frame longer than what was written',
    /rx queue 0: LENGTH 0x3e8/,
    (u32, _tx, rx) => {
      u32[rx + SHARED_RING_DATA / 4] = 1000;
      u32[rx] = 15;
    },
  ],
  [
    'a frame longer than any',
    /rx queue 0: LENGTH 0xfffffff0/,
    (u32, _tx, rx) => {
      u32[rx + SHARED_RING_DATA / 4] = 0xffff_fff0;
      u32[rx] = 4096;
    },
  ],
  [
    'more slots read than written',
    /tx queue 0: INDEX 0x9999/,
    (u32, tx) => {
      u32[tx + READ] = 0x9999;
    },
  ],
] as [string, RegExp, (u32: Uint32Array, tx: number, rx: number, slots: number) => void][]) {
  test(`a peer that breaks the rules, ${name}: it is dropped, the next one is served`, async (context) => {
    const socket = socketName();
    const end = await End.open(context, socket);
    const hostile = await Hostile.join(context, socket);
    await end.linkIs(true);
    attack(hostile.arena.u32, hostile.at(0), hostile.at(1), hostile.slots);
    await until(() => {
      end.send(32);
      end.receive();
      return end.logged.length > 0;
    }, 'nothing was noticed');
    assert.match(end.logged.join('\n'), message);
    await end.linkIs(false);
    assert.equal(end.pool.available, end.pool.count);
    assert.equal(new Map(end.port.xstats()).get('link_broken_sessions'), 1);
    const child = await peer(context, socket);
    await end.linkIs(true);
    await end.echo(200);
    child.kill('SIGKILL');
  });
}

test('connections that say nothing, or nonsense, disturb nobody', async (context) => {
  const socket = socketName();
  const end = await End.open(context, socket);
  const silent = Array.from({ length: 20 }, () => connectUnix(socket));
  context.after(() => {
    for (const fd of silent) closeSync(fd);
  });
  sendBytes(silent[0]!, new Uint8Array(20).fill(0xff), 20);
  sendBytes(silent[1]!, Uint8Array.of(1, 2, 3), 3);
  const stray = RingHello.encode({ purpose: RING_PURPOSE.QUEUE, session: 77, queue: 4_000_000 });
  sendBytes(silent[2]!, stray, stray.length);
  await peer(context, socket);
  await end.linkIs(true);
  await end.echo(200);
});

test('a listener that offers nonsense: said once, and no harm', async (context) => {
  const socket = socketName();
  const listener = listenUnix(socket);
  context.after(() => closeSync(listener));
  const end = await End.open(context, socket);
  const file = openSync(fileURLToPath(import.meta.url), 'r');
  context.after(() => closeSync(file));
  const offers = [
    { answer: RING_ANSWER.JOIN, session: 1, memory: 0, queues: 1000, slots: 3 },
    { answer: RING_ANSWER.JOIN, session: 1, memory: 999_999, queues: 4, slots: 4096 },
    { answer: RING_ANSWER.JOIN, session: 1, memory: file, queues: 4, slots: 4096 },
  ];
  for (const offer of offers) {
    const logged = end.logged.length;
    let fd = -1;
    await until(() => {
      fd = acceptUnix(listener);
      return fd >= 0;
    }, 'it does not connect again');
    sendBytes(fd, RingWelcome.encode(offer), RingWelcome.size);
    await until(() => end.logged.length > logged, 'nothing was said');
    closeSync(fd);
  }
  assert.match(end.logged[0]!, /expected 1 to 64 queues of 2048 to 65536 slots, the peer offers 1000 of 3/);
  assert.match(end.logged[1]!, /ENOENT/);
  assert.match(end.logged[2]!, /expected a file sealed against shrinking/);
  assert.equal(end.port.link().up, false);
});
