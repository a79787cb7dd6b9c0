// A port: what a program configures, starts and asks. Checks every request against the device's limits, so that drivers see
// only what they can do, and keeps what has to survive stop and start.
import type { RxQueueSetup, TakenPort, TxQueueSetup } from './driver.js';
import { checkedConfig, checkedDescriptors } from './limits.js';
import { PortSettings } from './port-settings.js';
import type { PortHandle, RxQueue, TxQueue } from './queues.js';
import type { BasicStats, DescriptorStatus, PortConfig, QueueInfo, QueueStats } from './types.js';
import { genericXstats } from './xstats.js';

export class Port extends PortSettings {
  /**
   * Sets numbers of queues, offloads and scaling; every queue has to be set up anew. Throws PortError: what the device does not
   * have, or the port is started. The old configuration stays then.
   */
  configure(config: PortConfig): Promise<void> {
    return this.serially(async () => {
      this.expect('configure', 'probed', 'configured');
      const full = checkedConfig(this.where(), this.info(), config, this.levels);
      if (config.mtu !== undefined) await this.changeMtu(config.mtu);
      await this.impl.configure(full);
      this.settings = full;
      this.queues.make(full.rxQueues, full.txQueues);
      this.present = 'configured';
    });
  }

  /** Descriptors are brought into the device's limits, 0 = its usual number. Throws PortError. */
  setupRxQueue(queue: number, setup: RxQueueSetup): void {
    this.expect(`rx queue ${queue}`, 'configured');
    this.inRange(`rx queue`, queue, this.queues.rx.length);
    const { minRxBufferBytes, rxDescriptors } = this.info();
    const data = setup.pool.room - setup.pool.headroom;
    if (data < minRxBufferBytes) {
      const problem = `pool ${setup.pool.name}: expected at least ${minRxBufferBytes} bytes behind the headroom, got ${data}`;
      throw this.error('EINVAL', problem);
    }
    const full = { ...setup, descriptors: checkedDescriptors(this.where(), setup.descriptors, rxDescriptors) };
    this.impl.setupRx(queue, full);
    this.queues.rx[queue] = full;
  }

  setupTxQueue(queue: number, setup: TxQueueSetup = { descriptors: 0 }): void {
    this.expect(`tx queue ${queue}`, 'configured');
    this.inRange(`tx queue`, queue, this.queues.tx.length);
    const full = {
      ...setup,
      descriptors: checkedDescriptors(this.where(), setup.descriptors, this.info().txDescriptors),
    };
    this.impl.setupTx(queue, full);
    this.queues.tx[queue] = full;
  }

  /** Lets packets flow. Throws PortError: a queue is not set up, or the device refuses. */
  start(): Promise<void> {
    return this.serially(async () => {
      if (this.present === 'started') return;
      this.expect('start', 'configured');
      for (const kind of ['rx', 'tx'] as const) {
        const missing = this.queues[kind].indexOf(undefined);
        if (missing >= 0) throw this.error('EINVAL', `start: ${kind} queue ${missing} is not set up`);
      }
      await this.impl.start();
      // What a device forgets over a stop is set anew (facts/dpdk.md 2.13, 18).
      if (this.impl.setFilter) await this.impl.setFilter(this.receive);
      this.queues.start();
      this.present = 'started';
    });
  }

  /** Before a stop that shall lose nothing, while other threads poll: lets nothing new in and waits for what is on its way. */
  drain(): Promise<void> {
    return this.serially(async () => this.impl.drain?.());
  }

  /** Ends the bursts that run, in all threads, then stops the device. */
  stop(): Promise<void> {
    return this.serially(() => this.#stop());
  }

  /** Gives the device back, for good. */
  close(): Promise<void> {
    return this.serially(async () => {
      if (this.present === 'closed') return;
      this.expectFree('close');
      if (this.present === 'started') await this.#stop();
      if (this.present === 'removed') this.queues.stop(this.where());
      this.#forget();
      await this.impl.close();
      this.present = 'closed';
      this.removeAllListeners();
    });
  }

  /** Stop, and back to what probe left: nothing is configured. Settings that a user made are at their defaults. */
  reset(): Promise<void> {
    return this.serially(async () => {
      this.expect('reset', 'probed', 'configured', 'started', 'removed');
      await this.#stop();
      this.#forget();
      this.receive = { promiscuous: false, allMulticast: false };
      this.addedMacs = [];
      this.vlans = [];
      this.levels = {};
      await this.impl.setMacs?.([]);
      await this.impl.setGroups?.([]);
      await this.impl.setVlans?.([]);
      if (this.present !== 'removed') this.present = 'probed';
    });
  }

  /** Hands the device to the port `by`, which alone uses it until it releases it. Throws PortError EBUSY: started, or taken already. */
  take(by: string): TakenPort {
    this.expect('use by another port', 'probed', 'configured');
    this.#forget();
    this.present = 'taken';
    const release = () => {
      this.takenBy = undefined;
      if (this.present === 'taken') this.present = 'probed';
    };
    const { device, driver } = this;
    this.takenBy = { by, port: { device, driver, impl: this.impl, onEvent: undefined, release } };
    return this.takenBy.port;
  }

  /** A queue in this thread. Its bursts return 0 while the port is not started. */
  rxQueue(queue: number): RxQueue {
    this.inRange('rx queue', queue, this.queues.rx.length);
    return this.queues.rxQueue(queue);
  }

  txQueue(queue: number): TxQueue {
    this.inRange('tx queue', queue, this.queues.tx.length);
    return this.queues.txQueue(queue);
  }

  /** For other threads (Eal.launch hands it to them). Configured. */
  handle(): PortHandle {
    this.expect('handle', 'configured', 'started');
    return {
      ...{ id: this.id, device: this.device, mac: this.mac },
      rx: this.queues.rx.map((_, queue) => this.queues.rxHandle(queue)),
      tx: this.queues.tx.map((_, queue) => this.queues.txHandle(queue)),
    };
  }

  /** Throws PortError ENODEV: the port is closed. */
  stats(): BasicStats {
    this.expectOpen('statistics');
    return this.impl.stats();
  }
  /** Undefined: there is no queue of that number, or the driver does not count by queue. */
  queueStats(queue: number): QueueStats | undefined {
    this.expectOpen('statistics');
    const there =
      Number.isInteger(queue) && queue >= 0 && queue < Math.max(this.queues.rx.length, this.queues.tx.length);
    return there ? this.impl.queueStats(queue) : undefined;
  }
  resetStats(): void {
    this.expectOpen('statistics');
    this.expectFree('statistics');
    this.impl.resetStats();
  }

  /** All counters by name: the generic ones first, as DPDK orders them (facts/dpdk.md 6.3), then the driver's. */
  xstats(): [name: string, value: number][] {
    const queues = { rx: this.queues.rx.length, tx: this.queues.tx.length };
    const generic = genericXstats(this.stats(), queues, (queue) => this.queueStats(queue));
    return [...generic, ...this.impl.xstats()];
  }

  rxQueueInfo(queue: number): QueueInfo {
    this.inRange('rx queue', queue, this.queues.rx.length);
    const setup = this.queues.rx[queue];
    if (!setup) throw this.error('EINVAL', `rx queue ${queue} is not set up`);
    return { descriptors: setup.descriptors, pool: setup.pool.name, offloads: this.settings!.rxOffloads };
  }

  txQueueInfo(queue: number): QueueInfo {
    this.inRange('tx queue', queue, this.queues.tx.length);
    const setup = this.queues.tx[queue];
    if (!setup) throw this.error('EINVAL', `tx queue ${queue} is not set up`);
    return { descriptors: setup.descriptors, offloads: this.settings!.txOffloads };
  }

  rxDescriptorStatus(queue: number, offset: number): DescriptorStatus {
    this.inRange(`rx queue ${queue}: descriptor`, offset, this.rxQueueInfo(queue).descriptors);
    return this.need('rxDescriptorStatus', 'descriptor status').call(this.impl, queue, offset);
  }
  txDescriptorStatus(queue: number, offset: number): DescriptorStatus {
    this.inRange(`tx queue ${queue}: descriptor`, offset, this.txQueueInfo(queue).descriptors);
    return this.need('txDescriptorStatus', 'descriptor status').call(this.impl, queue, offset);
  }
  rxQueueCount(queue: number): number {
    this.inRange('rx queue', queue, this.queues.rx.length);
    return this.need('rxQueueCount', 'counting descriptors').call(this.impl, queue);
  }
  burstMode(): string {
    return this.impl.burstMode?.() ?? 'Scalar';
  }

  /** About once a millisecond, by whoever runs the control thread. */
  tick(nowMs: number): void {
    this.impl.tick?.(nowMs);
  }

  async #stop(): Promise<void> {
    if (this.present !== 'started') return;
    this.queues.stop(this.where());
    this.present = 'configured';
    await this.impl.stop();
  }

  /** Nothing is configured any more. Stopped. */
  #forget(): void {
    this.queues.release();
    this.settings = undefined;
  }
}
