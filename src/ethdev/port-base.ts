// What every call of a port stands on: its state, one control call after the other, and what is refused when.
import { EventEmitter } from 'node:events';
import type { Driver, DriverContext, PortDriver, TakenPort } from './driver.js';
import { PortError, type PortErrorCode } from './errors.js';
import type { HashLevels } from './flow-hash.js';
import type { FullConfig } from './limits.js';
import { PortQueues } from './port-queues.js';
import type { LinkStatus, PortEvent, PortEvents, PortInfo, PortState, ReceiveFilter } from './types.js';

export abstract class PortBase extends EventEmitter<PortEvents> {
  readonly id: number;
  readonly device: string;
  readonly driver: Driver;
  protected readonly impl: PortDriver;
  protected present: PortState = 'probed';
  protected settings: FullConfig | undefined;
  protected receive: ReceiveFilter = { promiscuous: false, allMulticast: false };
  /** Levels that were chosen. */
  protected levels: Partial<HashLevels> = {};
  protected readonly queues: PortQueues;
  protected addedMacs: readonly string[] = [];
  protected vlans: readonly number[] = [];
  protected takenBy: { readonly by: string; readonly port: TakenPort } | undefined;
  /** Control calls run one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(id: number, device: string, driver: Driver, impl: PortDriver, context: DriverContext) {
    super();
    this.id = id;
    this.device = device;
    this.driver = driver;
    this.impl = impl;
    this.queues = new PortQueues(id, driver, impl, context);
    impl.onEvent = (event) => this.#event(event);
  }

  get state(): PortState {
    return this.present;
  }
  get mac(): string {
    return this.impl.mac;
  }
  get mtu(): number {
    return this.impl.mtu;
  }
  get filter(): ReceiveFilter {
    return this.receive;
  }
  get config(): FullConfig | undefined {
    return this.settings;
  }
  info(): PortInfo {
    return this.impl.info();
  }
  /** The kernel's interface that the port is, if it is one. */
  get kernel(): PortDriver['kernel'] {
    return this.impl.kernel;
  }
  link(): LinkStatus {
    return this.impl.link();
  }

  /** transmitTable() or offloads() has something else to say. */
  protected abstract news(event: 'transmit-table' | 'offloads'): void;

  #event(event: PortEvent): void {
    this.takenBy?.port.onEvent?.(event);
    if (event.type === 'link') this.emit('link', event.link);
    else if (event.type === 'removed') {
      this.present = this.present === 'closed' ? 'closed' : 'removed';
      this.emit('removed', event.reason);
    } else if (event.type === 'transmit-table' || event.type === 'offloads') this.news(event.type);
    else this.emit(event.type);
  }

  protected serially<T>(what: () => Promise<T>): Promise<T> {
    const result = this.#last.then(what);
    this.#last = result.catch(() => {});
    return result;
  }

  protected need<K extends keyof PortDriver>(call: K, what: string): NonNullable<PortDriver[K]> {
    this.expectOpen(what);
    this.expectFree(what);
    const found = this.impl[call];
    if (found === undefined) throw this.error('ENOTSUP', `${this.driver.name} has no ${what}`);
    return found;
  }

  protected expect(what: string, ...states: PortState[]): void {
    if (states.includes(this.present)) return;
    this.expectFree(what);
    const code = this.present === 'removed' || this.present === 'closed' ? 'ENODEV' : 'EBUSY';
    throw this.error(code, `${what}: the port is ${this.present}, expected ${states.join(' or ')}`);
  }

  /** What a driver gave back at close is not looked at. */
  protected expectOpen(what: string): void {
    if (this.present === 'closed') throw this.error('ENODEV', `${what}: the port is closed`);
  }

  protected expectFree(what: string): void {
    if (this.takenBy) throw this.error('EBUSY', `${what}: ${this.takenBy.by} uses the device, use that port instead`);
  }

  protected inRange(what: string, value: number, count: number): void {
    if (Number.isInteger(value) && value >= 0 && value < count) return;
    throw this.error('EINVAL', `${what}: expected ${count === 0 ? 'none' : `0 to ${count - 1}`}, got ${value}`);
  }

  protected error(code: PortErrorCode, problem: string): PortError {
    return new PortError(code, this.where(), problem);
  }

  protected where(): string {
    return `port ${this.id} (${this.device})`;
  }
}
