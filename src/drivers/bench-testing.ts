// A program of few lines for tests of virtual ports: an environment, ports with one pool, packets that begin with a number.
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { Eal } from '../ethdev/eal.js';
import type { Mempool } from '../ethdev/mempool.js';
import type { Port } from '../ethdev/port.js';
import type { PortConfig } from '../ethdev/types.js';
import { initEal } from './platform.js';

const BURST_MAX = 256;

/** Bytes of packet `number`: 60 by default. */
export function numbered(number: number, bytes = 60): Uint8Array {
  const data = new Uint8Array(bytes).fill(number);
  new DataView(data.buffer).setUint32(0, number);
  return data;
}

export const numberOf = (data: Uint8Array): number => new DataView(data.buffer, data.byteOffset).getUint32(0);

export class TestBench {
  readonly eal: Eal;
  readonly pool: Mempool;
  readonly logged: string[];
  readonly #handles: number;

  private constructor(eal: Eal, logged: string[]) {
    this.eal = eal;
    this.logged = logged;
    this.pool = eal.createMempool('mbufs', { count: 4096, cache: 64 });
    this.#handles = eal.main.reserve('burst', BURST_MAX * 4);
  }

  /** Closed when the test ends. `words`: EAL options besides the devices. */
  static async open(context: TestContext, vdevs: readonly string[], words: readonly string[] = []): Promise<TestBench> {
    const logged: string[] = [];
    const all = ['-m', '32', ...words, ...vdevs.flatMap((vdev) => ['--vdev', vdev])];
    const eal = await initEal(all, { log: (line) => logged.push(line) });
    context.after(() => eal.close());
    return new TestBench(eal, logged);
  }

  port(which: string): Port {
    return this.eal.port(which);
  }

  /** Starts a port with so many queues of each kind. */
  async start(which: string, queues = 1, config: Partial<PortConfig> = {}, descriptors = 0): Promise<Port> {
    const port = this.port(which);
    await port.configure({ rxQueues: queues, txQueues: queues, ...config });
    for (let queue = 0; queue < queues; queue++) {
      port.setupRxQueue(queue, { descriptors, pool: this.pool });
      port.setupTxQueue(queue, { descriptors });
    }
    await port.start();
    return port;
  }

  mbuf(bytes: Uint8Array): number {
    const mbuf = this.eal.mbufs.allocate(this.pool);
    assert.ok(mbuf !== 0 && this.eal.mbufs.write(mbuf, bytes));
    return mbuf;
  }

  /** Sends mbufs in one burst; frees what is not taken. Returns how many were. */
  sendMbufs(port: Port, mbufs: readonly number[], queue = 0): number {
    const { u32 } = this.eal.arena;
    for (const [i, mbuf] of mbufs.entries()) u32[(this.#handles >>> 2) + i] = mbuf;
    const taken = port.txQueue(queue).burst(this.#handles, mbufs.length);
    this.eal.main.datapath.mbufFree(this.#handles + taken * 4, mbufs.length - taken);
    return taken;
  }

  send(port: Port, frames: readonly Uint8Array[], queue = 0): number {
    return this.sendMbufs(
      port,
      frames.map((frame) => this.mbuf(frame)),
      queue,
    );
  }

  /** One rx burst. */
  receive(port: Port, queue = 0, max = BURST_MAX): Uint8Array[] {
    const n = port.rxQueue(queue).burst(this.#handles, max);
    const { u32 } = this.eal.arena;
    const frames = Array.from({ length: n }, (_, i) => this.eal.mbufs.read(u32[(this.#handles >>> 2) + i]!));
    this.eal.main.datapath.mbufFree(this.#handles, n);
    return frames;
  }

  xstat(port: Port, name: string): number {
    const value = new Map(port.xstats()).get(name);
    assert.ok(value !== undefined, `no ${name}`);
    return value;
  }

  /** Waits at most some seconds. */
  async until(done: () => boolean, problem: () => string): Promise<void> {
    const end = performance.now() + 10_000;
    while (!done()) {
      if (performance.now() > end) assert.fail(problem());
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  /** Every mbuf is back. */
  expectAllBack(): void {
    assert.equal(this.pool.available, this.pool.count);
  }
}
