// A port around another one. It takes the other port's device over (ethdev Port.take): the other port cannot be used by itself until this
// one is closed. Control calls go to the device's own control half; bursts open the device's burst halves in the thread that polls,
// from descriptions that carry the device's own inside.
import type { Devargs } from '../ethdev/devargs.js';
import type { Driver, DriverContext, PortDriver, RxQueueSetup, TakenPort, TxQueueSetup } from '../ethdev/driver.js';
import { PortError } from '../ethdev/errors.js';
import type { FullConfig } from '../ethdev/limits.js';
import type { BasicStats, LinkStatus, PortEvent, PortInfo, QueueStats } from '../ethdev/types.js';

/** Calls that a device may have or not. */
const OPTIONAL = [
  ...(['setMtu', 'setFilter', 'setMac', 'setMacs', 'setGroups', 'setVlans', 'setLink', 'rss', 'setRss'] as const),
  ...(['rxDescriptorStatus', 'txDescriptorStatus', 'rxQueueCount', 'channel'] as const),
  ...(['transmitTable', 'offloads', 'setOffloads', 'rings', 'setRings'] as const),
] as const;
type Optional = Partial<Pick<PortDriver, (typeof OPTIONAL)[number]>>;

/** How a queue of the device is opened in any thread. Plain data. */
export interface InnerQueue {
  readonly driver: string;
  readonly description: unknown;
}

export abstract class WrappedPort implements PortDriver {
  onEvent: ((event: PortEvent) => void) | undefined;
  readonly paired: boolean;
  readonly device: string;
  protected readonly context: DriverContext;
  protected readonly inner: TakenPort;
  protected config: FullConfig | undefined;
  protected rxLocks: readonly number[] = [];
  protected txLocks: readonly number[] = [];

  /** Takes `port=`, a device name or the number of a port. Throws PortError. `paired`: rx and tx of a queue share state of this driver. */
  constructor(context: DriverContext, device: string, args: Devargs, paired: boolean) {
    const which = args.string('port');
    if (which === undefined) throw new PortError('EINVAL', device, 'port: expected the port around which it is');
    this.context = context;
    this.device = device;
    this.inner = context.takePort(which, device);
    this.inner.onEvent = (event) => this.onEvent?.(event);
    const { impl, driver } = this.inner;
    this.paired = paired || (impl.paired ?? driver.pairedQueues);
    const calls: Record<string, unknown> = {};
    for (const name of OPTIONAL) {
      const call = impl[name] as ((...values: unknown[]) => unknown) | undefined;
      if (call !== undefined) calls[name] = call.bind(impl);
    }
    Object.assign(this as Optional, calls);
  }

  get mac(): string {
    return this.inner.impl.mac;
  }
  get mtu(): number {
    return this.inner.impl.mtu;
  }
  /** The device's, but for its name. */
  info(): PortInfo {
    return { ...this.inner.impl.info(), driver: this.driverName, device: this.device };
  }
  async configure(config: FullConfig): Promise<void> {
    await this.inner.impl.configure(config);
    this.config = config;
  }
  setupRx(queue: number, setup: RxQueueSetup): void {
    this.inner.impl.setupRx(queue, setup);
  }
  setupTx(queue: number, setup: TxQueueSetup): void {
    this.inner.impl.setupTx(queue, setup);
  }
  start(): Promise<void> {
    return this.inner.impl.start();
  }
  stop(): Promise<void> {
    return this.inner.impl.stop();
  }
  /** The other port can be used again. */
  async close(): Promise<void> {
    this.inner.release();
  }
  useLocks(rx: readonly number[], tx: readonly number[]): void {
    this.rxLocks = rx;
    this.txLocks = tx;
    this.inner.impl.useLocks?.(rx, tx);
  }
  link(): LinkStatus {
    return this.inner.impl.link();
  }
  stats(): BasicStats {
    return this.inner.impl.stats();
  }
  queueStats(queue: number): QueueStats | undefined {
    return this.inner.impl.queueStats(queue);
  }
  /** The device's, then own ones. */
  xstats(): [name: string, value: number][] {
    return [...this.inner.impl.xstats(), ...this.ownXstats()];
  }
  resetStats(): void {
    this.inner.impl.resetStats();
  }
  burstMode(): string {
    return this.inner.impl.burstMode?.() ?? 'Scalar';
  }

  abstract rxQueue(queue: number): unknown;
  abstract txQueue(queue: number): unknown;
  protected abstract get driverName(): string;
  protected abstract ownXstats(): [name: string, value: number][];

  protected innerRx(queue: number): InnerQueue {
    return { driver: this.inner.driver.name, description: this.inner.impl.rxQueue(queue) };
  }
  protected innerTx(queue: number): InnerQueue {
    return { driver: this.inner.driver.name, description: this.inner.impl.txQueue(queue) };
  }
}

/** The Driver of a kind of port around others: what it has in common. */
export const wrapping = (driver: Omit<Driver, 'pairedQueues'>): Driver => ({ ...driver, pairedQueues: false });
