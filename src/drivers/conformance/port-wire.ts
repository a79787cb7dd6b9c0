// A wire whose other end is another port of the same process.
import type { Eal } from '../../ethdev/eal.js';
import type { Mempool } from '../../ethdev/mempool.js';
import type { Port } from '../../ethdev/port.js';
import type { Wire } from '../conformance.js';

const BURST = 64;
const PATIENCE_MS = 3000;

export class PortWire implements Wire {
  readonly when = 'started';
  readonly choosesQueue: boolean;
  readonly #eal: Eal;
  readonly #port: Port;
  readonly #handles: number;
  readonly #pool: Mempool;
  #queues = 0;

  /** `choosesQueue`: what is sent on the peer's queue N is received on the port's queue N. */
  constructor(eal: Eal, port: Port, choosesQueue = false) {
    this.#eal = eal;
    this.#port = port;
    this.choosesQueue = choosesQueue;
    this.#handles = eal.main.reserve('wire', BURST * 4);
    this.#pool = eal.createMempool('wire', { count: 512, room: 128 + 16_384, cache: 64 });
  }

  async prepare(queues: number): Promise<void> {
    const port = this.#port;
    await port.stop();
    const count = Math.min(queues, port.info().maxRxQueues, port.info().maxTxQueues);
    await port.configure({ rxQueues: count, txQueues: count });
    for (let queue = 0; queue < count; queue++) {
      port.setupRxQueue(queue, { descriptors: 0, pool: this.#pool });
      port.setupTxQueue(queue);
    }
    await port.start();
    this.#queues = count;
  }

  async setMtu(mtu: number): Promise<void> {
    await this.#port.stop();
    await this.#port.setMtu(mtu);
  }

  async feed(frames: readonly Uint8Array[], queue: number): Promise<void> {
    const { arena, mbufs } = this.#eal;
    const tx = this.#port.txQueue(queue % this.#queues);
    const end = performance.now() + PATIENCE_MS;
    for (const frame of frames) {
      const mbuf = mbufs.allocate(this.#pool);
      if (mbuf === 0 || !mbufs.write(mbuf, frame)) throw new Error('wire: no mbuf for a frame');
      arena.u32[this.#handles >>> 2] = mbuf;
      while (tx.burst(this.#handles, 1) === 0) {
        if (performance.now() > end) throw new Error('wire: the peer port takes no packets');
        await new Promise(setImmediate);
      }
    }
  }

  async sent(count: number): Promise<Uint8Array[]> {
    const { arena, mbufs } = this.#eal;
    const frames: Uint8Array[] = [];
    const end = performance.now() + PATIENCE_MS;
    do {
      for (let queue = 0; queue < this.#queues; queue++) {
        const n = this.#port.rxQueue(queue).burst(this.#handles, BURST);
        for (let i = 0; i < n; i++) {
          const mbuf = arena.u32[(this.#handles >>> 2) + i]!;
          frames.push(mbufs.read(mbuf));
          mbufs.free(mbuf);
        }
      }
      if (frames.length < count) await new Promise(setImmediate);
    } while (frames.length < count && performance.now() < end);
    return frames;
  }
}
