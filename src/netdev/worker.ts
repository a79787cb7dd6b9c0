// The thread of some of an interface's queue pairs: polls them, sleeps in poll(2) when nothing comes. The control thread gives it
// queues and takes them away by messages, which it hears between bursts.
import type { MessagePort } from 'node:worker_threads';
import { LcorePort, type LcoreThread } from '../ethdev/lcore.js';
import type { PortHandle } from '../ethdev/queues.js';
import { type PairSetup, QueuePair } from './pair.js';

/** Nobody but the control thread needs a turn here, and it wakes the loop. */
const SLEEP_MS = 1000;

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
  | { readonly id: number; readonly do: 'release' };

export interface Answer {
  readonly id: number;
  readonly error?: string;
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
  const obey = (order: Order) => {
    release();
    if (order.do === 'release') return;
    const device = new LcorePort(lcore, order.device);
    const tap = new LcorePort(lcore, order.tap);
    ports = [device, tap];
    pairs = order.pairs.map((setup) => new QueuePair(lcore, device, tap, setup));
    for (const pair of pairs) loop.add(pair);
  };
  orders.on('message', (order: Order) => {
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
