// A port: what a program configures, starts and asks. Checks every request against the device's limits, so that drivers see
// only what they can do, and keeps what has to survive stop and start.
import { EventEmitter } from 'node:events';
import { PORT_QUEUE } from '../memory/layout.js';
import { formatMac, parseMac } from '../wire/address-text.js';
import type { Driver, DriverContext, PortDriver, RxQueueSetup, TakenPort, TxQueueSetup } from './driver.js';
import { PortError, type PortErrorCode } from './errors.js';
import { checkedConfig, checkedDescriptors, checkRss, type FullConfig } from './limits.js';
import { type PortHandle, type QueueHandle, RxQueue, startQueue, stopQueue, TxQueue } from './queues.js';
import type {
  BasicStats,
  DescriptorStatus,
  LinkStatus,
  PortConfig,
  PortEvent,
  PortEvents,
  PortInfo,
  PortState,
  QueueInfo,
  QueueStats,
  ReceiveFilter,
} from './types.js';
import { genericXstats } from './xstats.js';

export class Port extends EventEmitter<PortEvents> {
  readonly id: number;
  readonly device: string;
  readonly driver: Driver;
  readonly #context: DriverContext;
  readonly #impl: PortDriver;
  #state: PortState = 'probed';
  #config: FullConfig | undefined;
  #filter: ReceiveFilter = { promiscuous: false, allMulticast: false };
  #rx: (RxQueueSetup | undefined)[] = [];
  #tx: (TxQueueSetup | undefined)[] = [];
  #macs: readonly string[] = [];
  #vlans: readonly number[] = [];
  /** Addresses of PORT_QUEUE cells, by queue. */
  #rxCells: number[] = [];
  #txCells: number[] = [];
  #rxOpen: (RxQueue | undefined)[] = [];
  #txOpen: (TxQueue | undefined)[] = [];
  #taken: { readonly by: string; readonly port: TakenPort } | undefined;
  /** Control calls run one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(id: number, device: string, driver: Driver, impl: PortDriver, context: DriverContext) {
    super();
    this.id = id;
    this.device = device;
    this.driver = driver;
    this.#impl = impl;
    this.kernel = impl.kernel;
    this.#context = context;
    impl.onEvent = (event) => this.#event(event);
  }

  get state(): PortState {
    return this.#state;
  }
  get mac(): string {
    return this.#impl.mac;
  }
  get mtu(): number {
    return this.#impl.mtu;
  }
  get filter(): ReceiveFilter {
    return this.#filter;
  }
  get config(): FullConfig | undefined {
    return this.#config;
  }
  info(): PortInfo {
    return this.#impl.info();
  }
  /** The kernel's interface that the port is, if any. */
  readonly kernel: PortDriver['kernel'];
  link(): LinkStatus {
    return this.#impl.link();
  }

  /**
   * Sets numbers of queues, offloads and scaling; every queue has to be set up anew. Throws PortError: what the device does not
   * have, or the port is started. The old configuration stays then.
   */
  configure(config: PortConfig): Promise<void> {
    return this.#serially(async () => {
      this.#expect('configure', 'probed', 'configured');
      const full = checkedConfig(this.#where(), this.info(), config);
      if (config.mtu !== undefined) await this.#setMtu(config.mtu);
      await this.#impl.configure(full);
      this.#releaseQueues();
      this.#config = full;
      [this.#rx, this.#tx] = [new Array(full.rxQueues).fill(undefined), new Array(full.txQueues).fill(undefined)];
      this.#makeCells();
      this.#state = 'configured';
    });
  }

  /** Descriptors are brought into the device's limits, 0 = its usual number. Throws PortError. */
  setupRxQueue(queue: number, setup: RxQueueSetup): void {
    this.#expect(`rx queue ${queue}`, 'configured');
    this.#inRange(`rx queue`, queue, this.#rx.length);
    const { minRxBufferBytes, rxDescriptors } = this.info();
    const data = setup.pool.room - setup.pool.headroom;
    if (data < minRxBufferBytes) {
      const problem = `pool ${setup.pool.name}: expected at least ${minRxBufferBytes} bytes behind the headroom, got ${data}`;
      throw this.#error('EINVAL', problem);
    }
    const full = { ...setup, descriptors: checkedDescriptors(this.#where(), setup.descriptors, rxDescriptors) };
    this.#impl.setupRx(queue, full);
    this.#rx[queue] = full;
  }

  setupTxQueue(queue: number, setup: TxQueueSetup = { descriptors: 0 }): void {
    this.#expect(`tx queue ${queue}`, 'configured');
    this.#inRange(`tx queue`, queue, this.#tx.length);
    const { txDescriptors } = this.info();
    const full = { ...setup, descriptors: checkedDescriptors(this.#where(), setup.descriptors, txDescriptors) };
    this.#impl.setupTx(queue, full);
    this.#tx[queue] = full;
  }

  /** Lets packets flow. Throws PortError: a queue is not set up, or the device refuses. */
  start(): Promise<void> {
    return this.#serially(async () => {
      if (this.#state === 'started') return;
      this.#expect('start', 'configured');
      const missing = (list: readonly unknown[]) => list.indexOf(undefined);
      if (missing(this.#rx) >= 0) throw this.#error('EINVAL', `start: rx queue ${missing(this.#rx)} is not set up`);
      if (missing(this.#tx) >= 0) throw this.#error('EINVAL', `start: tx queue ${missing(this.#tx)} is not set up`);
      await this.#impl.start();
      // What a device forgets over a stop is set anew (facts/dpdk.md 2.13, 18).
      if (this.#impl.setFilter) await this.#impl.setFilter(this.#filter);
      for (const cells of this.#allCells()) startQueue(this.#context.arena.u32, cells);
      this.#state = 'started';
    });
  }

  /** Before a stop that shall lose nothing, while other threads poll: lets nothing new in and waits for what is on its way. */
  drain(): Promise<void> {
    return this.#serially(async () => this.#impl.drain?.());
  }

  /** Ends the bursts that run, in all threads, then stops the device. */
  stop(): Promise<void> {
    return this.#serially(() => this.#stop());
  }

  /** Gives the device back, for good. */
  close(): Promise<void> {
    return this.#serially(async () => {
      if (this.#state === 'closed') return;
      this.#expectFree('close');
      if (this.#state === 'started') await this.#stop();
      if (this.#state === 'removed') this.#stopQueues();
      this.#forget();
      await this.#impl.close();
      this.#state = 'closed';
      this.removeAllListeners();
    });
  }

  /** Stop, and back to what probe left: nothing is configured. Settings that a user made are at their defaults. */
  reset(): Promise<void> {
    return this.#serially(async () => {
      this.#expect('reset', 'probed', 'configured', 'started', 'removed');
      await this.#stop();
      this.#forget();
      this.#filter = { promiscuous: false, allMulticast: false };
      this.#macs = [];
      this.#vlans = [];
      await this.#impl.setMacs?.([]);
      await this.#impl.setGroups?.([]);
      await this.#impl.setVlans?.([]);
      if (this.#state !== 'removed') this.#state = 'probed';
    });
  }

  /** Hands the device to the port `by`, which alone uses it until it releases it. Throws PortError EBUSY: started, or taken already. */
  take(by: string): TakenPort {
    this.#expect('use by another port', 'probed', 'configured');
    this.#forget();
    this.#state = 'taken';
    const release = () => {
      this.#taken = undefined;
      if (this.#state === 'taken') this.#state = 'probed';
    };
    const { device, driver } = this;
    const port: TakenPort = { device, driver, impl: this.#impl, onEvent: undefined, release };
    this.#taken = { by, port };
    return port;
  }

  /** A queue in this thread. Its bursts return 0 while the port is not started. */
  rxQueue(queue: number): RxQueue {
    this.#inRange('rx queue', queue, this.#rx.length);
    this.#rxOpen[queue] ??= new RxQueue(this.#context, this.driver, this.#rxHandle(queue));
    return this.#rxOpen[queue];
  }

  txQueue(queue: number): TxQueue {
    this.#inRange('tx queue', queue, this.#tx.length);
    this.#txOpen[queue] ??= new TxQueue(this.#context, this.driver, this.#txHandle(queue));
    return this.#txOpen[queue];
  }

  /** For other threads (Eal.launch hands it to them). Configured. */
  handle(): PortHandle {
    this.#expect('handle', 'configured', 'started');
    return {
      ...{ id: this.id, device: this.device, mac: this.mac },
      rx: this.#rx.map((_, queue) => this.#rxHandle(queue)),
      tx: this.#tx.map((_, queue) => this.#txHandle(queue)),
    };
  }

  /** Stopped. Throws PortError EBUSY, or what the device says; the old MTU is in force then. */
  setMtu(mtu: number): Promise<void> {
    return this.#serially(() => this.#setMtu(mtu));
  }

  setPromiscuous(on: boolean): Promise<void> {
    return this.#setFilter({ ...this.#filter, promiscuous: on });
  }

  setAllMulticast(on: boolean): Promise<void> {
    return this.#setFilter({ ...this.#filter, allMulticast: on });
  }

  /** A unicast address. Throws PortError. */
  setMac(mac: string): Promise<void> {
    return this.#serially(async () => {
      const address = this.#address(mac, 'unicast');
      await this.#need('setMac', 'another MAC address').call(this.#impl, address);
    });
  }

  /** One more unicast address to receive for. Throws PortError: there is no room, or no such filter. */
  addMac(mac: string): Promise<void> {
    return this.#serially(async () => {
      this.#expectOpen('MAC');
      const added = this.#address(mac, 'unicast');
      const { maxMacAddresses } = this.info();
      if (added === this.mac || this.#macs.includes(added)) return;
      if (this.#macs.length + 1 >= maxMacAddresses)
        throw this.#error('ENOTSUP', `MAC: expected at most ${maxMacAddresses} addresses`);
      await this.#setMacs([...this.#macs, added]);
    });
  }

  /** Throws PortError EINVAL for an address that was not added. */
  removeMac(mac: string): Promise<void> {
    return this.#serially(async () => {
      const removed = this.#address(mac, 'unicast');
      if (!this.#macs.includes(removed)) throw this.#error('EINVAL', `MAC: ${mac} was not added`);
      await this.#setMacs(this.#macs.filter((other) => other !== removed));
    });
  }

  /** Addresses that addMac() added. */
  get macs(): readonly string[] {
    return this.#macs;
  }

  /** The multicast addresses to receive for, unless all are. Throws PortError. */
  setMulticast(macs: readonly string[]): Promise<void> {
    return this.#serially(() => {
      const groups = [...new Set(macs.map((mac) => this.#address(mac, 'multicast')))];
      return this.#need('setGroups', 'multicast filter').call(this.#impl, groups);
    });
  }

  /** Lets in packets with this VLAN tag, or keeps them out, where RX_OFFLOAD.VLAN_FILTER is configured. Throws PortError. */
  vlanFilter(id: number, on: boolean): Promise<void> {
    return this.#serially(async () => {
      this.#inRange('VLAN', id, 4096);
      const others = this.#vlans.filter((other) => other !== id);
      const vlans = on ? [...others, id] : others;
      await this.#need('setVlans', 'VLAN filter').call(this.#impl, vlans);
      this.#vlans = vlans;
    });
  }

  setLink(up: boolean): Promise<void> {
    return this.#serially(() => this.#need('setLink', 'setting the link').call(this.#impl, up));
  }

  /** Hash types, key and redirection table in force. Throws PortError ENOTSUP. */
  rss(): { readonly types: number; readonly key: Uint8Array; readonly table: readonly number[] } {
    return this.#need('rss', 'receive-side scaling').call(this.#impl);
  }

  /** Changes the parts that are given, also while traffic flows. Throws PortError; nothing is changed then. */
  setRss(change: { types?: number; key?: Uint8Array; table?: readonly number[] }): Promise<void> {
    return this.#serially(() => {
      const set = this.#need('setRss', 'receive-side scaling');
      this.#expect('RSS', 'configured', 'started');
      const info = this.info();
      const { types = 0, key, table } = change;
      checkRss(this.#where(), info, { types, ...(key && { key }) });
      if (table && table.length !== info.rssTableEntries) {
        const problem = `redirection table: expected ${info.rssTableEntries} entries, got ${table.length}`;
        throw this.#error('EINVAL', problem);
      }
      for (const queue of table ?? []) this.#inRange('redirection table: rx queue', queue, this.#rx.length);
      return set.call(this.#impl, change);
    });
  }

  /** Throws PortError ENODEV: the port is closed. */
  stats(): BasicStats {
    this.#expectOpen('statistics');
    return this.#impl.stats();
  }
  /** Undefined: there is no queue of that number, or the driver does not count by queue. */
  queueStats(queue: number): QueueStats | undefined {
    this.#expectOpen('statistics');
    const there = Number.isInteger(queue) && queue >= 0 && queue < Math.max(this.#rx.length, this.#tx.length);
    return there ? this.#impl.queueStats(queue) : undefined;
  }
  resetStats(): void {
    this.#expectOpen('statistics');
    this.#expectFree('statistics');
    this.#impl.resetStats();
  }

  /** All counters by name: the generic ones first, as DPDK orders them (facts/dpdk.md 6.3), then the driver's. */
  xstats(): [name: string, value: number][] {
    const queues = { rx: this.#rx.length, tx: this.#tx.length };
    const generic = genericXstats(this.stats(), queues, (queue) => this.queueStats(queue));
    return [...generic, ...this.#impl.xstats()];
  }

  rxQueueInfo(queue: number): QueueInfo {
    this.#inRange('rx queue', queue, this.#rx.length);
    const setup = this.#rx[queue];
    if (!setup) throw this.#error('EINVAL', `rx queue ${queue} is not set up`);
    return { descriptors: setup.descriptors, pool: setup.pool.name, offloads: this.#config!.rxOffloads };
  }

  txQueueInfo(queue: number): QueueInfo {
    this.#inRange('tx queue', queue, this.#tx.length);
    const setup = this.#tx[queue];
    if (!setup) throw this.#error('EINVAL', `tx queue ${queue} is not set up`);
    return { descriptors: setup.descriptors, offloads: this.#config!.txOffloads };
  }

  rxDescriptorStatus(queue: number, offset: number): DescriptorStatus {
    this.#inRange(`rx queue ${queue}: descriptor`, offset, this.rxQueueInfo(queue).descriptors);
    return this.#need('rxDescriptorStatus', 'descriptor status').call(this.#impl, queue, offset);
  }
  txDescriptorStatus(queue: number, offset: number): DescriptorStatus {
    this.#inRange(`tx queue ${queue}: descriptor`, offset, this.txQueueInfo(queue).descriptors);
    return this.#need('txDescriptorStatus', 'descriptor status').call(this.#impl, queue, offset);
  }
  rxQueueCount(queue: number): number {
    this.#inRange('rx queue', queue, this.#rx.length);
    return this.#need('rxQueueCount', 'counting descriptors').call(this.#impl, queue);
  }
  burstMode(): string {
    return this.#impl.burstMode?.() ?? 'Scalar';
  }

  /** About once a millisecond, by whoever runs the control thread. */
  tick(nowMs: number): void {
    this.#impl.tick?.(nowMs);
  }

  async #setMtu(mtu: number): Promise<void> {
    if (this.#state === 'started') throw this.#error('EBUSY', 'MTU: the port has to be stopped first');
    this.#expect('MTU', 'probed', 'configured');
    const { minMtu, maxMtu } = this.info();
    if (!(Number.isInteger(mtu) && mtu >= minMtu && mtu <= maxMtu))
      throw this.#error('EINVAL', `MTU: expected ${minMtu} to ${maxMtu}, got ${mtu}`);
    if (mtu !== this.mtu) await this.#need('setMtu', 'another MTU').call(this.#impl, mtu);
  }

  async #setMacs(macs: readonly string[]): Promise<void> {
    await this.#need('setMacs', 'further MAC addresses').call(this.#impl, macs);
    this.#macs = macs;
  }

  #address(mac: string, kind: 'unicast' | 'multicast'): string {
    const bytes = parseMac(mac);
    const group = bytes !== undefined && (bytes[0]! & 1) !== 0;
    if (bytes === undefined || group !== (kind === 'multicast') || bytes.every((byte) => byte === 0))
      throw this.#error('EINVAL', `MAC: expected a ${kind} address, got "${mac}"`);
    return formatMac(bytes);
  }

  #setFilter(filter: ReceiveFilter): Promise<void> {
    return this.#serially(async () => {
      const set = this.#need('setFilter', 'receive filters');
      if (this.#state === 'started') await set.call(this.#impl, filter);
      this.#filter = filter;
    });
  }

  async #stop(): Promise<void> {
    if (this.#state !== 'started') return;
    this.#stopQueues();
    this.#state = 'configured';
    await this.#impl.stop();
  }

  #stopQueues(): void {
    for (const cells of this.#allCells()) stopQueue(this.#context.arena.u32, cells, this.#where());
  }

  #allCells(): Set<number> {
    return new Set([...this.#rxCells, ...this.#txCells]);
  }

  #makeCells(): void {
    const reserve = () => this.#context.arena.reserve(`port ${this.id} queue`, PORT_QUEUE.bytes);
    const cells = (shared: Map<number, number>) => (_: unknown, queue: number) => {
      const channel = this.#impl.channel?.(queue) ?? queue;
      const made = shared.get(channel) ?? reserve();
      shared.set(channel, made);
      return made;
    };
    const rx = new Map<number, number>();
    this.#rxCells = this.#rx.map(cells(rx));
    this.#txCells = this.#tx.map(cells((this.#impl.paired ?? this.driver.pairedQueues) ? rx : new Map()));
    this.#impl.useLocks?.(this.#rxCells, this.#txCells);
  }

  #releaseQueues(): void {
    this.#impl.useLocks?.([], []);
    for (const queue of [...this.#rxOpen, ...this.#txOpen]) queue?.close();
    this.#rxOpen = [];
    this.#txOpen = [];
    for (const cells of this.#allCells()) this.#context.arena.release(cells);
    this.#rxCells = [];
    this.#txCells = [];
  }

  #rxHandle(queue: number): QueueHandle {
    return { driver: this.driver.name, cells: this.#rxCells[queue]!, description: this.#impl.rxQueue(queue) };
  }

  #txHandle(queue: number): QueueHandle {
    return { driver: this.driver.name, cells: this.#txCells[queue]!, description: this.#impl.txQueue(queue) };
  }

  /** Nothing is configured any more. Stopped. */
  #forget(): void {
    this.#releaseQueues();
    this.#config = undefined;
    this.#rx = [];
    this.#tx = [];
  }

  #event(event: PortEvent): void {
    this.#taken?.port.onEvent?.(event);
    if (event.type === 'link') this.emit('link', event.link);
    else if (event.type === 'removed') {
      this.#state = this.#state === 'closed' ? 'closed' : 'removed';
      this.emit('removed', event.reason);
    } else this.emit(event.type);
  }

  #serially<T>(what: () => Promise<T>): Promise<T> {
    const result = this.#last.then(what);
    this.#last = result.catch(() => {});
    return result;
  }

  #need<K extends keyof PortDriver>(call: K, what: string): NonNullable<PortDriver[K]> {
    this.#expectOpen(what);
    this.#expectFree(what);
    const found = this.#impl[call];
    if (found === undefined) throw this.#error('ENOTSUP', `${this.driver.name} has no ${what}`);
    return found;
  }

  #expect(what: string, ...states: PortState[]): void {
    if (states.includes(this.#state)) return;
    this.#expectFree(what);
    const code = this.#state === 'removed' || this.#state === 'closed' ? 'ENODEV' : 'EBUSY';
    throw this.#error(code, `${what}: the port is ${this.#state}, expected ${states.join(' or ')}`);
  }

  /** What a driver gave back at close is not looked at. */
  #expectOpen(what: string): void {
    if (this.#state === 'closed') throw this.#error('ENODEV', `${what}: the port is closed`);
  }

  #expectFree(what: string): void {
    if (this.#taken) throw this.#error('EBUSY', `${what}: ${this.#taken.by} uses the device, use that port instead`);
  }

  #inRange(what: string, value: number, count: number): void {
    if (Number.isInteger(value) && value >= 0 && value < count) return;
    throw this.#error('EINVAL', `${what}: expected ${count === 0 ? 'none' : `0 to ${count - 1}`}, got ${value}`);
  }

  #error(code: PortErrorCode, problem: string): PortError {
    return new PortError(code, this.#where(), problem);
  }

  #where(): string {
    return `port ${this.id} (${this.device})`;
  }
}
