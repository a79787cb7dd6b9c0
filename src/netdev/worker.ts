// The thread of some of an interface's queue pairs: polls them, sleeps in poll(2) when nothing comes. The control thread gives it
// queues and takes them away by messages, which it hears between bursts.
import type { MessagePort } from 'node:worker_threads';
import { LcorePort, type LcoreThread } from '../ethdev/lcore.js';
import type { Pollable, Ready } from '../ethdev/loop.js';
import type { PortHandle } from '../ethdev/queues.js';
import { QueuePair } from './pair.js';
import type { PairSetup } from './pair-memory.js';

/** Nobody but the control thread needs a turn here, and it wakes the loop. */
const SLEEP_MS = 1000;
/** Number of a message that answers nothing: the control thread is to look at the interface. */
export const NEWS = 0;

/** Plain data: what a worker is launched with. */
export interface WorkerSetup {
  readonly orders: MessagePort;
}

/** What the control thread wants; each is answered by an Answer with its number. */
export type Order =
  | {
      readonly id: number;
      readonly do: 'take';
      readonly device: PortHandle;
      readonly tap: PortHandle;
      readonly pairs: readonly PairSetup[];
    }
  /** From the answer on nothing of the ports is used. */
  | { readonly id: number; readonly do: 'release' }
  /** Once: what is heard of that descriptor is NEWS. It is not answered. */
  | { readonly id: typeof NEWS; readonly do: 'watch'; readonly fd: number };

export interface Answer {
  readonly id: number;
  readonly error?: string;
}

/** A descriptor of which the control thread, which sleeps in the event loop, could not hear. */
class Watch implements Pollable {
  /** None after news, until the control thread has looked. */
  #fds: readonly number[] = [];
  readonly #news: () => void;

  constructor(news: () => void) {
    this.#news = news;
  }

  use(fd: number): void {
    this.#fds = fd < 0 ? [] : [fd];
  }

  step(): number {
    return 0;
  }

  tick(): void {}

  arm(): boolean {
    return true;
  }

  disarm(_signalled?: boolean, ready?: Ready): void {
    const [fd] = this.#fds;
    if (fd === undefined || ready === undefined || !ready(fd)) return;
    this.#fds = [];
    this.#news();
  }

  fds(): readonly number[] {
    return this.#fds;
  }
}

/** Runs until the lcore is to end. */
export async function runPairs(lcore: LcoreThread, { orders }: WorkerSetup): Promise<void> {
  const { loop } = lcore;
  let ports: LcorePort[] = [];
  let pairs: QueuePair[] = [];
  const release = () => {
    for (const pair of pairs) loop.remove(pair);
    for (const port of ports) port.close();
    pairs = [];
    ports = [];
  };
  const news = () => orders.postMessage({ id: NEWS } satisfies Answer);
  const watch = new Watch(news);
  loop.add(watch);
  const obey = (order: Exclude<Order, { do: 'watch' }>) => {
    release();
    if (order.do === 'release') return;
    const device = new LcorePort(lcore, order.device);
    const tap = new LcorePort(lcore, order.tap);
    ports = [device, tap];
    pairs = order.pairs.map((setup) => new QueuePair(lcore, device, tap, setup, news));
    for (const pair of pairs) loop.add(pair);
  };
  orders.on('message', (order: Order) => {
    if (order.do === 'watch') {
      watch.use(order.fd);
      return;
    }
    let answer: Answer = { id: order.id };
    try {
      obey(order);
    } catch (error) {
      answer = { ...answer, error: (error as Error).message };
    }
    orders.postMessage(answer);
  });
  loop.sleepMaxMs = SLEEP_MS;
  await lcore.run();
  release();
  orders.close();
}
