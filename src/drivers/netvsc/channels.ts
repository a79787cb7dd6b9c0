// What control code and bursts of a netvsc port share: the GUEST_PORT of each queue number, brought in line with the channels of
// the present opening; the queues' locks; and the control thread's turns on the rings.
import type { DriverContext, RxQueueSetup } from '../../ethdev/driver.js';
import { PortError } from '../../ethdev/errors.js';
import type { FullConfig } from '../../ethdev/limits.js';
import { betweenBursts, stopQueue } from '../../ethdev/queues.js';
import { GUEST_PORT } from '../../memory/layout.js';
import { EventFd } from '../../memory/os/eventfd.js';
import type { NetvscDevice } from '../../netvsc/device.js';
import { MAX_QUEUES } from '../../netvsc/scaling.js';
import type { NetvscSharing } from '../../netvsc/types.js';
import { wakeSleepers } from './bursts.js';

/** Tries to get a queue between two bursts, which are some microseconds long. */
const TRIES = 2000;
/** How long it may take when it has to be. */
const LOCK_MS = 1000;
/** A ring that has something which nobody took for so long is read by control code: messages of the host may be behind it. */
const STALLED_MS = 500;
/** Turns without a pause while a request waits for its answer. */
const EAGER_TURNS = 64;
const SPILL = 64;
const KEY_BYTES = 64;

type PortCell = keyof typeof GUEST_PORT.at;

export class Channels implements NetvscSharing {
  /** Bursts run. While they do not, the control thread reads the rings. */
  started = false;
  readonly #context: DriverContext;
  readonly #name: string;
  readonly #ports: number;
  readonly #key: number;
  /** Lists of packets that wait, and descriptors that wake, by queue number. */
  readonly #lists: (number | undefined)[] = [];
  readonly #events: EventFd[] = [];
  #device!: NetvscDevice;
  #rxQueues = 0;
  #rxLocks: readonly number[] = [];
  #txLocks: readonly number[] = [];
  /** Queue whose rings this thread may use just now. */
  #held: number | undefined;
  /** Requests to the host that wait for an answer. */
  #waiting = 0;
  /** Read index of each ring when it last moved, and when that was. */
  readonly #readAt = new Float64Array(MAX_QUEUES);
  readonly #readMs = new Float64Array(MAX_QUEUES);

  constructor(context: DriverContext, name: string) {
    this.#context = context;
    this.#name = name;
    this.#ports = context.arena.reserve(`${name} ports`, MAX_QUEUES * GUEST_PORT.bytes);
    this.#key = context.arena.reserve(`${name} hash key`, KEY_BYTES);
    for (let queue = 0; queue < MAX_QUEUES; queue++) {
      this.#set(queue, 'owner', this.port(queue));
      this.#set(queue, 'hashKey', this.#key);
    }
  }

  use(device: NetvscDevice): void {
    this.#device = device;
  }

  /** Address of a queue number's GUEST_PORT. */
  port(queue: number): number {
    return this.#ports + queue * GUEST_PORT.bytes;
  }

  /** `granted`: channels that there are; queue numbers beyond send on those. */
  configure(config: FullConfig, granted: number): void {
    for (let queue = 0; queue < MAX_QUEUES; queue++) this.#dropList(queue);
    for (const event of this.#events.splice(0)) event.close();
    this.#rxQueues = config.rxQueues;
    for (let queue = 0; queue < MAX_QUEUES; queue++) {
      this.#set(queue, 'owner', this.port(queue % granted));
      const event = config.rxInterrupts && queue < config.rxQueues ? new EventFd() : undefined;
      if (event) this.#events.push(event);
      this.#set(queue, 'eventFd', event ? event.fd + 1 : 0);
    }
  }

  useLocks(rx: readonly number[], tx: readonly number[]): void {
    this.#rxLocks = rx;
    this.#txLocks = tx;
  }

  setupRx(queue: number, { descriptors }: RxQueueSetup): void {
    this.#dropList(queue);
    const list = this.#context.arena.reserve(`${this.#name} rx queue ${queue}`, (descriptors + SPILL) * 4);
    this.#lists[queue] = list;
    this.#set(queue, 'staged', list);
    this.#set(queue, 'stagedCapacity', descriptors);
  }

  readonly exclusive = (queue: number, what: () => void): boolean => {
    const lock = this.#rxLocks[queue] ?? this.#txLocks[queue];
    if (this.#held === queue || lock === undefined) {
      this.#hold(queue, what);
      return true;
    }
    for (let i = 0; i < TRIES; i++) {
      if (betweenBursts(this.#context.arena.u32, lock, () => this.#hold(queue, what))) return true;
    }
    return false;
  };

  quiesce(queues: readonly number[]): boolean {
    try {
      for (const lock of [...this.#rxLocks, ...this.#txLocks]) stopQueue(this.#context.arena.u32, lock, this.#name);
    } catch (error) {
      this.#context.log((error as Error).message);
      return false;
    }
    const lent = queues.reduce((sum, queue) => sum + this.#context.datapath.guestLent(queue, 1), 0);
    if (lent > 0) {
      this.#context.log(`${this.#name}: ${lent} ranges of the receive buffer are still shown by mbufs, it stays`);
      return false;
    }
    for (let queue = 0; queue < MAX_QUEUES; queue++) {
      for (const cell of ['queue', 'doorbell', 'interruptFd'] as const) this.#set(queue, cell, 0);
    }
    this.wakeAll();
    return true;
  }

  /** Wakes every thread that sleeps on a queue, so that it sees what has become of the port. */
  wakeAll(): void {
    wakeSleepers(this.#context, this.#ports, this.#rxQueues, true);
  }

  /** Resolves as `work` does; meanwhile this thread does what the device needs to get an answer. */
  async run<T>(work: Promise<T>): Promise<T> {
    let done = false;
    const mark = () => {
      done = true;
    };
    work.then(mark, mark);
    this.#waiting++;
    try {
      for (let turns = 0; !done; turns++) {
        this.turn(performance.now());
        await (turns < EAGER_TURNS ? immediate() : pause(1));
      }
    } finally {
      this.#waiting--;
    }
    return work;
  }

  /** What control code does all the time. */
  turn(nowMs: number): void {
    const device = this.#device;
    device.tick(nowMs);
    this.#bind();
    for (let queue = 0; device.queue(queue) !== undefined; queue++) {
      const unread = !this.started || this.#stalled(queue, nowMs);
      const read = unread || (this.#waiting > 0 && queue === 0);
      if (read || device.needsAttention(queue)) this.exclusive(queue, () => this.#look(queue, read, unread));
    }
    device.check();
    if (this.started) wakeSleepers(this.#context, this.#ports, this.#rxQueues);
  }

  /** Waits for sends in flight, and for the bursts to have taken what has come; after a stop this thread reads it. */
  async drained(limitMs: number): Promise<void> {
    await this.until(() => {
      for (let queue = 0; ; queue++) {
        const memory = this.#device.queue(queue);
        if (memory === undefined) return true;
        if (memory.outstanding > 0 || memory.backlog || this.#readable(queue)) return false;
        if (this.started && this.#get(queue, 'stagedCount') > 0) return false;
      }
    }, limitMs);
  }

  /** Turns until this holds, or the time is over. */
  async until(done: () => boolean, limitMs: number): Promise<void> {
    for (const end = performance.now() + limitMs; ; ) {
      this.turn(performance.now());
      if (done() || performance.now() > end) return;
      await immediate();
    }
  }

  /** Ranges of the receive buffer that mbufs show. No burst runs. */
  lent(): number {
    let ranges = 0;
    for (let queue = 0; ; queue++) {
      const memory = this.#device.queue(queue);
      if (memory === undefined) return ranges;
      ranges += this.#context.datapath.guestLent(memory.address, 0);
    }
  }

  /** Packets that wait in a queue, the ring included. */
  waiting(queue: number): number {
    if (this.#get(queue, 'stagedCount') < this.#get(queue, 'stagedCapacity'))
      this.exclusive(queue, () => this.#context.datapath.portStage(this.port(queue)));
    return this.#get(queue, 'stagedCount');
  }

  /** Throws PortError when a burst does not end. */
  async setFilter(filter: number, options: number): Promise<void> {
    await this.#everywhere((queue) => {
      this.#set(queue, 'filter', filter);
      this.#set(queue, 'options', options);
    });
  }

  async setHash(key: Uint8Array, types: number): Promise<void> {
    await this.#everywhere((queue) => {
      if (queue === 0) this.#context.arena.u8.set(key, this.#key);
      this.#set(queue, 'hashTypes', types);
    });
  }

  /** Longer packets than a buffer come as chains from now on, coalesced ones in the large pools of `rx`, until the next opening:
   *  those that are on their way could not do without. */
  async setChains(rx: readonly (RxQueueSetup | undefined)[]): Promise<void> {
    await this.#everywhere((queue) => {
      const memory = this.#device.queue(queue);
      memory?.set('rxLargePool', rx[queue]?.largePool?.address ?? 0);
      memory?.set('rxChains', 1);
    });
  }

  release(): void {
    const { arena } = this.#context;
    for (let queue = 0; queue < MAX_QUEUES; queue++) this.#dropList(queue);
    for (const event of this.#events.splice(0)) event.close();
    arena.release(this.#ports);
    arena.release(this.#key);
  }

  /** The GUEST_PORTs of the present opening's channels. */
  #bind(): void {
    for (let queue = 0; ; queue++) {
      const memory = this.#device.queue(queue);
      if (memory === undefined) return;
      if (this.#get(queue, 'queue') === memory.address) continue;
      this.#set(queue, 'doorbell', memory.doorbell);
      this.#set(queue, 'interruptFd', this.#device.fds().length > 0 ? this.#device.fds()[0]! + 1 : 0);
      this.#set(queue, 'queue', memory.address);
    }
  }

  #look(queue: number, read: boolean, unread: boolean): void {
    if (unread) this.#set(queue, 'unread', 1);
    if (read) this.#context.datapath.portStage(this.port(queue));
    this.#device.attend(queue);
  }

  #readable(queue: number): boolean {
    const channel = this.#get(queue, 'queue');
    return channel !== 0 && this.#context.datapath.ringReadable(channel) !== 0;
  }

  #stalled(queue: number, nowMs: number): boolean {
    const at = this.#device.queue(queue)!.get('readIndex');
    if (at !== this.#readAt[queue] || !this.#readable(queue)) {
      this.#readAt[queue] = at;
      this.#readMs[queue] = nowMs;
    }
    return nowMs - this.#readMs[queue]! > STALLED_MS;
  }

  #hold(queue: number, what: () => void): void {
    const before = this.#held;
    this.#held = queue;
    try {
      what();
    } finally {
      this.#held = before;
    }
  }

  /** Changes the cells of every queue while no burst uses them. */
  async #everywhere(change: (queue: number) => void): Promise<void> {
    for (let queue = 0; queue < MAX_QUEUES; queue++) {
      const end = performance.now() + LOCK_MS;
      while (!this.exclusive(queue, () => change(queue))) {
        if (performance.now() > end)
          throw new PortError('ETIMEDOUT', this.#name, `queue ${queue}: a burst did not end within ${LOCK_MS} ms`);
        await immediate();
      }
    }
  }

  /** Frees the packets that wait, and their list. */
  #dropList(queue: number): void {
    const list = this.#lists[queue];
    if (list === undefined) return;
    const first = this.#get(queue, 'stagedFirst');
    this.#context.datapath.mbufFree(list + first * 4, this.#get(queue, 'stagedCount'));
    for (const cell of ['staged', 'stagedCapacity', 'stagedFirst', 'stagedCount'] as const) this.#set(queue, cell, 0);
    this.#context.arena.release(list);
    this.#lists[queue] = undefined;
  }

  #get(queue: number, cell: PortCell): number {
    return this.#context.arena.u32[(this.port(queue) + GUEST_PORT.at[cell]) >>> 2]!;
  }

  #set(queue: number, cell: PortCell, value: number): void {
    this.#context.arena.u32[(this.port(queue) + GUEST_PORT.at[cell]) >>> 2] = value;
  }
}

const immediate = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
