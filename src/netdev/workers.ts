// The threads of an interface as its control thread sees them.
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import type { Eal } from '../ethdev/eal.js';
import { PortError } from '../ethdev/errors.js';
import type { Port } from '../ethdev/port.js';
import type { PairSetup } from './pair-memory.js';
import { type Answer, NEWS, type Order, type WorkerSetup } from './worker.js';

const WORKER = new URL('./worker.js', import.meta.url);
/** How long a worker may take for an order. */
const ANSWER_MS = 5000;

interface Worker {
  readonly lcore: number;
  readonly orders: MessagePort;
  readonly over: Promise<unknown>;
}

type Wish = { readonly do: 'release' } | (Omit<Extract<Order, { do: 'take' }>, 'id'> & { readonly do: 'take' });

export class Workers {
  readonly #eal: Eal;
  readonly #name: string;
  readonly #failed: (reason: string) => void;
  readonly #news: () => void;
  readonly #list: Worker[] = [];
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #last = 0;

  /** `failed` hears of a thread that ends by an error; `news`: the interface is to be looked at. */
  constructor(eal: Eal, name: string, failed: (reason: string) => void, news: () => void) {
    this.#eal = eal;
    this.#name = name;
    this.#failed = failed;
    this.#news = news;
  }

  /** Starts threads for so many queues, one for each at most, as far as there are lcores. They take a while to be there. */
  launch(queues: number): void {
    for (const lcore of this.#eal.workers.slice(this.#list.length, queues)) {
      const { port1: orders, port2 } = new MessageChannel();
      orders.on('message', (answer: Answer) => {
        if (answer.id === NEWS) this.#news();
        else this.#waiting.get(answer.id)?.(answer);
      });
      orders.unref();
      const setup: WorkerSetup = { orders: port2 };
      const over = this.#eal.launch(lcore, WORKER, 'runPairs', setup, [port2]);
      over.catch((error: Error) => this.#failed(`${this.#name}: ${error.message}`));
      this.#list.push({ lcore, orders, over });
    }
  }

  /** Lets them poll the pairs of both ports: pair i belongs to worker i modulo their number. Throws PortError. */
  async take(device: Port, tap: Port, pairs: readonly PairSetup[]): Promise<void> {
    const handles = { device: device.handle(), tap: tap.handle() };
    const count = this.#list.length;
    const mine = (worker: number) => pairs.filter((_, pair) => pair % count === worker);
    await Promise.all(this.#list.map((to, i) => this.#order(to, { do: 'take', ...handles, pairs: mine(i) })));
  }

  /** Lets one of them watch a descriptor, once: when there is something to read, or it is closed, there are news. */
  watch(fd: number): void {
    const [first] = this.#list;
    if (first === undefined) return;
    first.orders.postMessage({ id: NEWS, do: 'watch', fd } satisfies Order);
    this.#eal.wake(first.lcore);
  }

  /** When it resolves they use nothing of the ports. Throws PortError. */
  async release(): Promise<void> {
    await Promise.all(this.#list.map((to) => this.#order(to, { do: 'release' })));
  }

  /** Ends the threads. */
  async close(): Promise<void> {
    await this.#eal.stopLcores();
    await Promise.allSettled(this.#list.map(({ over }) => over));
    for (const { orders } of this.#list.splice(0)) orders.close();
  }

  async #order({ lcore, orders }: Worker, wish: Wish): Promise<void> {
    const id = ++this.#last;
    let late: NodeJS.Timeout | undefined;
    const { error } = await new Promise<Answer>((resolve) => {
      this.#waiting.set(id, resolve);
      late = setTimeout(() => resolve({ id, error: `no answer within ${ANSWER_MS} ms` }), ANSWER_MS);
      orders.postMessage({ id, ...wish } satisfies Order);
      this.#eal.wake(lcore);
    });
    clearTimeout(late);
    this.#waiting.delete(id);
    if (error !== undefined) throw new PortError('EIO', this.#name, `lcore ${lcore}: ${error}`);
  }
}
