// What the conformance suite runs in lcores.
import type { LcoreThread } from '../../ethdev/lcore.js';
import type { RxQueue, TxQueue } from '../../ethdev/queues.js';
import { testFrame } from './frames.js';

const BURST = 32;

/** Plain data. */
export interface LcoreOrder {
  readonly port: number;
  readonly queue: number;
  /** Address of the pool. */
  readonly pool: number;
  /** To send, of `bytes` bytes each. */
  readonly packets: number;
  readonly bytes: number;
  /** Cell that counts the polls of pollForever(). */
  readonly polls?: number;
}

export interface LcoreReport {
  readonly sent: number;
  readonly received: number;
}

interface Queues {
  rxQueue(queue: number): RxQueue;
  txQueue(queue: number): TxQueue;
}

/** Sends its packets on one queue, and receives and frees what comes there. */
export class Trader {
  sent = 0;
  received = 0;
  readonly #lcore: LcoreThread;
  readonly #order: LcoreOrder;
  readonly #rx: RxQueue;
  readonly #tx: TxQueue;
  readonly #frame: Uint8Array;
  readonly #handles: number;
  readonly #received: number;
  /** Made and not taken yet, at the front of the list. */
  #made = 0;

  constructor(lcore: LcoreThread, port: Queues, order: LcoreOrder) {
    this.#lcore = lcore;
    this.#order = order;
    this.#rx = port.rxQueue(order.queue);
    this.#tx = port.txQueue(order.queue);
    this.#frame = testFrame(order.bytes, order.queue);
    this.#handles = lcore.reserve('trader', BURST * 4);
    this.#received = lcore.reserve('trader', BURST * 4);
  }

  /** Everything was sent. */
  get done(): boolean {
    return this.sent === this.#order.packets;
  }

  step(): void {
    const { datapath, arena, mbufs } = this.#lcore;
    const n = this.#rx.burst(this.#received, BURST);
    datapath.mbufFree(this.#received, n);
    this.received += n;
    const wanted = Math.min(BURST, this.#order.packets - this.sent);
    if (this.#made < wanted) {
      const got = datapath.poolGet(this.#order.pool, this.#handles + this.#made * 4, wanted - this.#made);
      for (let i = 0; i < got; i++) mbufs.write(arena.u32[(this.#handles >>> 2) + this.#made + i]!, this.#frame);
      this.#made += got;
    }
    const taken = this.#tx.burst(this.#handles, this.#made);
    arena.u32.copyWithin(this.#handles >>> 2, (this.#handles >>> 2) + taken, (this.#handles >>> 2) + this.#made);
    this.#made -= taken;
    this.sent += taken;
  }

  report(): LcoreReport {
    return { sent: this.sent, received: this.received };
  }
}

/** Sends everything, in any thread. */
export async function trade(lcore: LcoreThread, order: LcoreOrder): Promise<LcoreReport> {
  const trader = new Trader(lcore, lcore.port(order.port), order);
  while (!trader.done && lcore.running) trader.step();
  return trader.report();
}

/** Receives and sends what it received, until the lcore is to end. */
export async function pollForever(lcore: LcoreThread, order: LcoreOrder): Promise<LcoreReport> {
  const { datapath } = lcore;
  const port = lcore.port(order.port);
  const rx = port.rxQueue(order.queue);
  const tx = port.txQueue(order.queue);
  const handles = lcore.reserve('forward', BURST * 4);
  let received = 0;
  let sent = 0;
  const polls = order.polls! >>> 2;
  while (lcore.running) {
    Atomics.add(lcore.arena.u32, polls, 1);
    const n = rx.burst(handles, BURST);
    const taken = tx.burst(handles, n);
    datapath.mbufFree(handles + taken * 4, n - taken);
    received += n;
    sent += taken;
  }
  return { sent, received };
}
