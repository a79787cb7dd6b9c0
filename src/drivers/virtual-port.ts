// What the drivers of virtual devices have in common: addresses, settings that are only kept, counters in shared memory.

import type { Devargs } from '../ethdev/devargs.js';
import type { DriverContext, PortDriver, RxQueueSetup, TxQueueSetup } from '../ethdev/driver.js';
import { PortError } from '../ethdev/errors.js';
import type { FullConfig } from '../ethdev/limits.js';
import type { BasicStats, LinkStatus, PortEvent, PortInfo, QueueStats, ReceiveFilter } from '../ethdev/types.js';
import type { Arena } from '../memory/arena.js';
import { PORT_COUNTERS } from '../memory/layout.js';
import { formatMac } from '../wire/address-text.js';

export const QUEUES_MAX = 64;
const { packets, bytes, errors, missed, noMbufs } = PORT_COUNTERS.at;
const HIGH = 2 ** 32;

/** Counters of one queue and direction, written by the thread that polls it. */
export class QueueCounters {
  readonly #u32: Uint32Array;
  readonly #at: number;

  constructor(arena: Arena, address: number) {
    this.#u32 = arena.u32;
    this.#at = address;
  }

  add(count: number, size: number): void {
    this.#grow(packets, count);
    this.#grow(bytes, size);
  }
  /** Packets that were refused or damaged. */
  error(count: number): void {
    this.#grow(errors, count);
  }
  /** Packets that nobody took in time. */
  miss(count: number): void {
    this.#grow(missed, count);
  }
  noMbuf(count: number): void {
    this.#grow(noMbufs, count);
  }

  read(cell: keyof typeof PORT_COUNTERS.at): number {
    const at = (this.#at + PORT_COUNTERS.at[cell]) >>> 2;
    return this.#u32[at]! + this.#u32[at + 1]! * HIGH;
  }

  #grow(cell: number, by: number): void {
    const u32 = this.#u32;
    const at = (this.#at + cell) >>> 2;
    const sum = u32[at]! + by;
    u32[at] = sum;
    if (sum >= HIGH) u32[at + 1]! += 1;
  }
}

/** PortInfo of a virtual device; `more` is what differs. */
export function usualInfo(driver: string, device: string, more: Partial<PortInfo> = {}): PortInfo {
  const descriptors = { min: 1, max: 65_535, align: 1, usual: 512 };
  return {
    ...{ driver, device, maxRxQueues: QUEUES_MAX, maxTxQueues: QUEUES_MAX, minMtu: 68, maxMtu: 65_535 },
    ...{ maxRxPacketBytes: 65_549, minRxBufferBytes: 64, maxMacAddresses: 1 },
    ...{ rxDescriptors: descriptors, txDescriptors: descriptors, rxOffloads: 0, txOffloads: 0 },
    ...{ rssTypes: 0, rssTableEntries: 0, rssKeyBytes: 0, maxTxSegments: 1, speedsMbps: [10_000] },
    ...{ rxInterrupts: false, linkEvents: false, softwareFilters: [], socket: -1 },
    ...more,
  };
}

/** The state that control calls keep. A driver adds info(), queues, and start() and stop() if it has something to do then. */
export abstract class VirtualPort implements Omit<PortDriver, 'info' | 'rxQueue' | 'txQueue'> {
  mac: string;
  mtu = 1500;
  onEvent: ((event: PortEvent) => void) | undefined;
  readonly device: string;
  protected readonly context: DriverContext;
  protected config: FullConfig | undefined;
  #rx: RxQueueSetup[] = [];
  #tx: TxQueueSetup[] = [];
  #filter: ReceiveFilter = { promiscuous: false, allMulticast: false };
  #up = true;
  /** Counters of rx queues, then of tx queues, and what they were at the last reset. */
  readonly #counters: number;
  readonly #before = new Map<string, number>();

  /** `args`: the driver's own are left for it to take. */
  constructor(context: DriverContext, device: string, _args: Devargs) {
    this.context = context;
    this.device = device;
    this.mac = deviceMac(device);
    this.#counters = context.arena.reserve(`${device} counters`, 2 * QUEUES_MAX * PORT_COUNTERS.bytes);
  }

  async configure(config: FullConfig): Promise<void> {
    this.config = config;
    this.#rx = [];
    this.#tx = [];
  }
  setupRx(queue: number, setup: RxQueueSetup): void {
    this.#rx[queue] = setup;
  }
  setupTx(queue: number, setup: TxQueueSetup): void {
    this.#tx[queue] = setup;
  }
  async start(): Promise<void> {}
  async stop(): Promise<void> {}
  async close(): Promise<void> {
    this.context.arena.release(this.#counters);
  }
  async setMtu(mtu: number): Promise<void> {
    this.mtu = mtu;
  }
  async setMac(mac: string): Promise<void> {
    this.mac = mac;
  }
  async setFilter(filter: ReceiveFilter): Promise<void> {
    this.#filter = filter;
  }
  async setLink(up: boolean): Promise<void> {
    if (up === this.#up) return;
    this.#up = up;
    this.onEvent?.({ type: 'link', link: this.link() });
  }
  link(): LinkStatus {
    return { up: this.#up, speedMbps: 10_000, fullDuplex: true, autonegotiated: false };
  }

  stats(): BasicStats {
    const sum = (cell: keyof typeof PORT_COUNTERS.at, tx: boolean) => {
      let total = 0;
      for (let queue = 0; queue < QUEUES_MAX; queue++) total += this.#read(queue, tx, cell);
      return total;
    };
    return {
      ...{ ipackets: sum('packets', false), ibytes: sum('bytes', false), ierrors: sum('errors', false) },
      ...{ opackets: sum('packets', true), obytes: sum('bytes', true), oerrors: sum('errors', true) },
      ...{ imissed: sum('missed', false), rxNombuf: sum('noMbufs', false) },
    };
  }

  queueStats(queue: number): QueueStats {
    const of = (tx: boolean) => ({
      packets: this.#read(queue, tx, 'packets'),
      bytes: this.#read(queue, tx, 'bytes'),
      errors: this.#read(queue, tx, 'errors'),
    });
    return { rx: of(false), tx: of(true) };
  }

  xstats(): [name: string, value: number][] {
    return [];
  }

  resetStats(): void {
    for (let queue = 0; queue < QUEUES_MAX; queue++) {
      for (const tx of [false, true]) {
        const counters = this.#at(queue, tx);
        for (const cell of Object.keys(PORT_COUNTERS.at) as (keyof typeof PORT_COUNTERS.at)[])
          this.#before.set(`${queue} ${tx} ${cell}`, counters.read(cell));
      }
    }
  }

  protected get filter(): ReceiveFilter {
    return this.#filter;
  }
  protected rxSetup(queue: number): RxQueueSetup {
    return this.#rx[queue] ?? this.#missing('rx', queue);
  }
  protected txSetup(queue: number): TxQueueSetup {
    return this.#tx[queue] ?? this.#missing('tx', queue);
  }
  /** Addresses of PORT_COUNTERS. */
  protected rxCounters(queue: number): number {
    return this.#counters + queue * PORT_COUNTERS.bytes;
  }
  protected txCounters(queue: number): number {
    return this.#counters + (QUEUES_MAX + queue) * PORT_COUNTERS.bytes;
  }

  #missing(what: string, queue: number): never {
    throw new PortError('EINVAL', this.device, `${what} queue ${queue} is not set up`);
  }
  #at(queue: number, tx: boolean): QueueCounters {
    return new QueueCounters(this.context.arena, tx ? this.txCounters(queue) : this.rxCounters(queue));
  }
  #read(queue: number, tx: boolean, cell: keyof typeof PORT_COUNTERS.at): number {
    return this.#at(queue, tx).read(cell) - (this.#before.get(`${queue} ${tx} ${cell}`) ?? 0);
  }
}

/** A locally administered address that a device's name always gives. */
export function deviceMac(device: string): string {
  let hash = 0x811c9dc5; // FNV-1a
  for (const letter of device) hash = Math.imul(hash ^ letter.codePointAt(0)!, 0x01000193) >>> 0;
  return formatMac(Uint8Array.of(0x02, 0x6e, hash >>> 24, (hash >>> 16) & 255, (hash >>> 8) & 255, hash & 255));
}
