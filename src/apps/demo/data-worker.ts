// The main thread's side of the data worker (worker.ts): host and guests in one thread.
import { Worker } from 'node:worker_threads';
import type { NicReady, Replayed, WorkerData, WorkerMessage, WorkerRequest, WorkerStats } from './protocol.js';

const READY_MS = 20_000;
const ANSWER_MS = 5000;
const STOP_MS = 3000;

type Answer = Extract<WorkerMessage, { id: number }>;
type Question = Exclude<WorkerRequest, { type: 'stop' }>;
type WithoutId<T> = T extends unknown ? Omit<T, 'id'> : never;

export class DataWorker {
  /** Rejects when the worker fails; never resolves. */
  readonly failed: Promise<never>;
  readonly #worker: Worker;
  readonly #answers = new Map<number, (answer: Answer) => void>();
  #ready: ((message: Extract<WorkerMessage, { type: 'ready' }>) => void) | undefined;
  #stopped: (() => void) | undefined;
  #nextId = 1;
  #over = false;

  /** `more` goes to the worker beside `data`; tests give faults by it. */
  constructor(data: WorkerData, url: URL = new URL('./worker.js', import.meta.url), more: object = {}) {
    this.#worker = new Worker(url, {
      workerData: { ...data, ...more },
      trackUnmanagedFds: false, // sockets and eventfds are not opened by Node, but closed by it
    });
    this.failed = new Promise((_, reject) => {
      const fail = (reason: string) => reject(new Error(`data worker: ${reason}`));
      this.#worker.on('error', (error) => fail(error.stack ?? error.message));
      this.#worker.on('exit', (code) => {
        this.#over = true;
        this.#stopped?.();
        fail(`ended with code ${code}`);
      });
      this.#worker.on('message', (message: WorkerMessage) => {
        if (message.type === 'failed') fail(message.reason);
        else if (message.type === 'ready') this.#ready?.(message);
        else if (message.type === 'stopped') this.#stopped?.();
        else this.#answers.get(message.id)?.(message);
      });
    });
    this.failed.catch(() => {}); // whoever waits for something else hears of it through race()
  }

  /** Resolves once every NIC is attached. */
  ready(): Promise<{ nics: readonly NicReady[]; attachMs: number }> {
    return this.#race(READY_MS, 'the NICs were not attached', (resolve) => {
      this.#ready = resolve;
    });
  }

  /** Counters of everything. */
  async stats(): Promise<WorkerStats> {
    return (await this.#ask({ type: 'stats' }, ANSWER_MS)) as Extract<Answer, { type: 'stats' }>;
  }

  /** Sends a capture's frames from one NIC to another, `loops` times. */
  async replay(file: string, from: number, to: number, loops: number, deadlineMs: number): Promise<Replayed> {
    return (await this.#ask({ type: 'replay', from, to, file, loops }, deadlineMs)) as Extract<
      Answer,
      { type: 'replayed' }
    >;
  }

  /** Detaches the NICs and closes the interfaces; a worker that does not answer is ended. */
  async stop(): Promise<void> {
    if (!this.#over) {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#stopped = resolve;
        timer = setTimeout(resolve, STOP_MS);
        this.#post({ type: 'stop' });
      });
      clearTimeout(timer);
    }
    await this.#worker.terminate();
  }

  #post(request: WorkerRequest): void {
    this.#worker.postMessage(request);
  }

  async #ask(question: WithoutId<Question>, deadlineMs: number): Promise<Answer> {
    const id = this.#nextId++;
    try {
      return await this.#race<Answer>(deadlineMs, `no answer to '${question.type}'`, (resolve) => {
        this.#answers.set(id, resolve);
        this.#post({ ...question, id } as WorkerRequest);
      });
    } finally {
      this.#answers.delete(id);
    }
  }

  async #race<T>(deadlineMs: number, what: string, begin: (resolve: (value: T) => void) => void): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const answer = new Promise<T>((resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`data worker: ${what} in ${deadlineMs} ms`)), deadlineMs);
      begin(resolve);
    });
    try {
      return await Promise.race([answer, this.failed]);
    } finally {
      clearTimeout(timer);
    }
  }
}
