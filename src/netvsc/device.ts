// The NetVSC guest driver: life of a device from attach to detach, and its data calls. The owner calls poll() and tick()
// all the time, also while attach() or another promise is pending: answers arrive there.

import type { QueueMemory } from './queue.js';
import { NetvscError } from './requests.js';
import { MAX_QUEUES, type RssInForce, type RssSettings, rssFault, transmitTable } from './scaling.js';
import { Session } from './session.js';
import { Totals } from './stats.js';
import {
  DEFAULT_FILTER,
  driverCounters,
  type NetvscEvent,
  type NetvscInfo,
  type NetvscOptions,
  type NetvscSetup,
  type NetvscState,
} from './types.js';

/** What a reattach changes. */
export interface NetvscChange {
  readonly mtu?: number;
  readonly queues?: number;
  readonly rss?: RssSettings;
  readonly receiveBufferBytes?: number;
  readonly sendBufferBytes?: number;
}

/** The host's death is looked for at least this often. */
const HOST_CHECK_MS = 10;

export class NetvscDevice {
  /** Receives link changes, indications and failures; called from within poll() and tick(). */
  onEvent: ((event: NetvscEvent) => void) | undefined;
  readonly #setup: NetvscSetup;
  readonly #where: string;
  readonly #totals = new Totals();
  readonly #counters = driverCounters();
  #options: NetvscOptions;
  #state: NetvscState = 'detached';
  #failure: string | undefined;
  #session: Session | undefined;
  /** Openings that are over, whose memory is in use. */
  readonly #ended: Session[] = [];
  #info: NetvscInfo | undefined;
  #filter = DEFAULT_FILTER;
  #rss: RssSettings = {};
  /** The table last made, and what from. */
  #transmit = { from: undefined as readonly number[] | undefined, queues: 1, table: transmitTable(undefined, 1) };
  #receiving = false; // the filter is set, or was when the device was detached for a reattach
  #ending: Promise<void> = Promise.resolve(); // the attach or detach under way
  #hostCheckedMs = Number.NEGATIVE_INFINITY;

  constructor(setup: NetvscSetup) {
    this.#setup = setup;
    this.#options = setup.options ?? {};
    this.#where = `netvsc ${setup.device.uuid} (${setup.device.location})`;
    this.onEvent = setup.onEvent;
  }

  get state(): NetvscState {
    return this.#state;
  }

  /** Why the state is 'failed', with device, step and message. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** What attach found; undefined before. Keeps its last values after detach. */
  get info(): NetvscInfo | undefined {
    return this.#info;
  }

  /** Packet filter that is set, or will be set at attach. */
  get packetFilter(): number {
    return this.#filter;
  }

  /** Readable when the host interrupts or is gone; call disarm() then. */
  fds(): number[] {
    const { interruptFd } = this.#setup.device;
    return interruptFd >= 0 ? [interruptFd] : [];
  }

  /**
   * Opens the channel and negotiates everything; `open: false` leaves the packet filter 0, so that nothing is received
   * before setPacketFilter(). Rejects with a NetvscError or VmbusError that names the step; everything is released then.
   */
  attach(how: { readonly open?: boolean } = {}): Promise<NetvscInfo> {
    if (this.#state !== 'detached' && this.#state !== 'failed') {
      return Promise.reject(new NetvscError(this.#where, 'attach', `the device is ${this.#state}`));
    }
    this.#state = 'attaching';
    this.#failure = undefined;
    const attached = this.#attach(how.open ?? true);
    this.#ending = attached.then(
      () => {},
      () => {},
    );
    return attached;
  }

  /**
   * Stops receiving, waits (at most the request timeout) for sends in flight, tells the host, closes and releases
   * everything. Never rejects: whatever the host does, the device ends 'detached'.
   */
  async detach(): Promise<void> {
    if (this.#state === 'attaching') {
      this.#session?.abort('the device is being detached');
      await this.#ending;
    }
    if (this.#state === 'running') {
      this.#state = 'detaching';
      this.#ending = this.#detach(this.#session!);
    }
    await this.#ending;
    this.#release();
    if (this.#state === 'failed') this.#state = 'detached';
    this.#failure = undefined;
  }

  /**
   * Detaches and attaches with another MTU, other numbers of queues or sizes of buffers, or other scaling; filter, options and counters stay. When
   * that fails, attaches as before and rejects with the reason.
   */
  async reattach(change: NetvscChange): Promise<NetvscInfo> {
    if (this.#state !== 'running') {
      throw new NetvscError(this.#where, 'reattach', `the device is ${this.#state}, expected running`);
    }
    const before = this.#options;
    const rssBefore = this.#rss;
    const open = this.#receiving;
    const { rss, ...options } = change;
    // Settings that were right stay: with fewer queues their table is wrapped round.
    const fault = rss && rssFault(rss, options.queues ?? before.queues ?? 1);
    if (fault !== undefined) throw new NetvscError(this.#where, 'RSS', fault);
    await this.detach();
    this.#options = { ...before, ...options };
    try {
      this.#rss = rss ?? rssBefore;
      return await this.attach({ open });
    } catch (error) {
      this.#options = before;
      this.#rss = rssBefore;
      await this.attach({ open });
      throw error;
    }
  }

  /** Another MTU without a reattach, if the host was told of one at least as large: false = it was not, nothing is changed. */
  setMtu(mtu: number): boolean {
    if (this.#state !== 'running' || mtu > this.#info!.attachedMtu) return false;
    this.#session!.setMtu(mtu);
    this.#info!.mtu = mtu;
    this.#options = { ...this.#options, mtu };
    return true;
  }

  /** Has the first `count` queues share all send sections, while nothing is sent and no send is in flight. */
  useQueues(count: number): void {
    this.#session?.divideSections(Math.min(count, this.#session.queues.length));
  }

  /** Sets packet filter bits (PACKET_FILTER of wire/oid.ts), now or with the next attach; 0 = receive nothing. */
  async setPacketFilter(bits: number): Promise<void> {
    if (this.#state === 'running') {
      await this.#session!.setPacketFilter(bits);
      this.#receiving = true;
    }
    this.#filter = bits;
  }

  /** Switches these OFFLOAD bits on and all others off, now and with the next attach. */
  async setOffloads(bits: number): Promise<void> {
    if (this.#state === 'running') await this.#session!.setOffloads(bits & this.#info!.offered);
    this.#options = { ...this.#options, offloads: bits };
  }

  /** Asks the host for another address, until detach. False: it refused, or there is none now. */
  async setMacAddress(mac: string): Promise<boolean> {
    return this.#state === 'running' && this.#session!.setMacAddress(mac);
  }

  /**
   * Handles what the host sent: received packets go to the u32 array at `handles` (the caller owns them), answers to
   * whoever waits, link changes to onEvent. Returns the number of packets, about `max` at most. Every queue is to be polled
   * (until detach() is done, too); control messages come on queue 0.
   */
  poll(handles: number, max: number, queue = 0): number {
    const session = this.#session;
    if (session === undefined) return 0;
    const received = session.poll(handles, max, queue);
    if (session.broken(queue)) this.#fail(session.fault(queue));
    return received;
  }

  /** Memory of a queue of the present opening, for threads that run bursts themselves. */
  queue(number: number): QueueMemory | undefined {
    return this.#session?.queues[number];
  }

  /** The queue has news for control code: call attend() while no burst uses it. */
  needsAttention(queue: number): boolean {
    return this.#session?.needsAttention(queue) ?? false;
  }

  /** What another thread's burst on a queue leaves to control code; poll() does this, too. */
  attend(queue: number): void {
    this.#session?.attend(queue);
  }

  /** Fails the device when a ring is corrupt, as poll() does. */
  check(): void {
    const session = this.#session;
    for (let queue = 0; queue < (session?.queues.length ?? 0); queue++) {
      if (session!.broken(queue)) this.#fail(session!.fault(queue));
    }
  }

  /** Sends mbuf chains on a queue; returns how many were taken. The others stay the caller's: try again after a poll. */
  send(handles: number, count: number, queue = 0): number {
    if (this.#state !== 'running') return 0;
    const session = this.#session!;
    const taken = session.send(handles, count, queue);
    if (session.broken(queue)) this.#fail(session.fault(queue));
    return taken;
  }

  /** The queue on which a flow with this hash is to be sent. */
  transmitQueue(hash: number): number {
    const table = this.transmitTable();
    return table[(hash >>> 0) % table.length]!;
  }

  /** Queue of each hash modulo its length: as the host says, if that makes sense (scaling.ts), else the queues in turn. */
  transmitTable(): readonly number[] {
    const queues = this.#session?.queues.length ?? 1;
    const from = this.#session?.sendTable;
    const last = this.#transmit;
    if (last.from !== from || last.queues !== queues)
      this.#transmit = { from, queues, table: transmitTable(from, queues) };
    return this.#transmit.table;
  }

  /**
   * Sets how received packets are spread, now and with the next attach; a setting that is left out is the default. Rejects
   * with a NetvscError when it makes no sense for the present queues, or the host refuses it; the old one stays then.
   */
  async setRss(settings: RssSettings): Promise<void> {
    const running = this.#state === 'running';
    const fault = rssFault(settings, running ? this.#session!.queues.length : MAX_QUEUES);
    if (fault !== undefined) throw new NetvscError(this.#where, 'RSS', fault);
    if (running && this.#session!.queues.length > 1 && !(await this.#session!.setRss(settings))) {
      throw new NetvscError(this.#where, 'RSS', 'the host refused the parameters');
    }
    this.#rss = settings;
  }

  /** What the host was told about spreading; undefined while it is off. */
  get rss(): RssInForce | undefined {
    return this.#session?.rss;
  }

  /** Deadlines, and whether the host still lives. Call about once a millisecond. */
  tick(nowMs: number): void {
    const session = this.#session;
    if (session === undefined) return;
    if (nowMs - this.#hostCheckedMs >= HOST_CHECK_MS || nowMs < this.#hostCheckedMs) {
      this.#hostCheckedMs = nowMs;
      this.#takeInterrupts();
    }
    if (this.#session === session) session.tick(nowMs);
  }

  /** Lets the host interrupt. True: nothing is pending, the caller may sleep on fds(). */
  arm(): boolean {
    return this.#session?.arm() ?? true;
  }

  /** Back to polling. `signalled` false: the caller knows that fds() have nothing, so they are not looked at. */
  disarm(signalled = true, ready?: (fd: number) => boolean): void {
    if (this.#session === undefined) return;
    this.#session.disarm();
    if (signalled && (ready?.(this.#setup.device.interruptFd) ?? true)) this.#takeInterrupts();
  }

  /** Counters of one queue of the present opening. */
  queueStats(queue: number): Record<string, number> {
    return this.#session?.queues[queue]?.channel.counters() ?? {};
  }

  /** The same over all openings. */
  queueTotals(queue: number): Record<string, number> {
    return this.#totals.queue(queue, this.queueStats(queue));
  }

  /** All counters since the device object was made, all queues together. */
  stats(): Record<string, number> {
    return this.#totals.report(this.#counters, this.#session);
  }

  async #attach(open: boolean): Promise<NetvscInfo> {
    let session: Session | undefined;
    try {
      session = new Session(this.#where, this.#setup, this.#options, this.#counters, (event) => this.onEvent?.(event));
      this.#session = session;
      const info = await session.attach(this.#rss);
      if (open) await session.setPacketFilter(this.#filter);
      this.#receiving = open;
      this.#info = info;
      this.#state = 'running';
      this.#counters.attaches++;
      return info;
    } catch (error) {
      if (session !== undefined) this.#close(session);
      this.#state = 'failed';
      this.#failure ??= error instanceof Error ? error.message : String(error);
      this.#counters.failures++;
      throw error;
    }
  }

  async #detach(session: Session): Promise<void> {
    await session.stop();
    this.#close(session);
    if (this.#state === 'detaching') this.#state = 'detached';
    this.#counters.detaches++;
  }

  #close(session: Session): void {
    if (this.#session !== session) return;
    const free = this.#isFree(session);
    this.#session = undefined;
    for (const queue of session.queues) queue.countAbandoned();
    this.#totals.absorb(session.queues, session.control);
    this.#counters.sendsAbandoned += session.outstanding;
    session.abandon();
    if (free) session.close();
    else this.#ended.push(session);
  }

  /** Gives back what ended openings held, as soon as nobody uses it. */
  #release(): void {
    for (const session of this.#ended.splice(0)) {
      if (this.#isFree(session)) session.close();
      else this.#ended.push(session);
    }
  }

  /** Nobody else uses its memory, and nobody will. */
  #isFree(session: Session): boolean {
    return this.#setup.sharing?.quiesce(session.queues.map(({ address }) => address)) ?? true;
  }

  /** The device cannot go on: everything that waits is told, everything is released. */
  #fail(reason: string): void {
    const session = this.#session;
    if (session === undefined) return;
    const before = this.#state;
    const failure = `${this.#where}: ${before}: ${reason}`;
    session.abort(reason);
    this.#close(session);
    // An attach or a detach under way sees the abort and sets the state itself.
    if (before === 'running') {
      this.#state = 'failed';
      this.#failure = failure;
      this.#counters.failures++;
      this.onEvent?.({ type: 'failed', reason: failure });
    }
  }

  #takeInterrupts(): void {
    const count = this.#setup.device.takeInterrupts();
    if (count < 0) this.#fail('the host is gone (device rescinded or host process ended)');
    else this.#counters.interrupts += count;
  }
}
