// net_ring within a process: a port that gets back what it sends, or two ports that are each other's link partner.

import { RX_OFFLOAD, TX_OFFLOAD } from '../../ethdev/constants.js';
import type { Devargs } from '../../ethdev/devargs.js';
import type { DriverContext, PortDriver, TxQueueSetup } from '../../ethdev/driver.js';
import { PortError } from '../../ethdev/errors.js';
import type { DescriptorStatus, LinkStatus, PortConfig, PortInfo } from '../../ethdev/types.js';
import type { Arena } from '../../memory/arena.js';
import { EventFd } from '../../memory/os/eventfd.js';
import { usualInfo, VirtualPort } from '../virtual-port.js';
import {
  type HandleRxDescription,
  type HandleTxDescription,
  RING_ENTRIES_MAX,
  RING_QUEUES,
  RingSet,
} from './handle-queue.js';

/** Longest chain: as DPDK's, whose segment count has 16 bits. */
const SEGMENTS_MAX = 65_535;

/** What joins two ports, or one to itself. Lives until the last of them is closed, as each sends into the other's rings. */
class Link {
  readonly names: readonly string[];
  /** Rings towards each of the names. */
  readonly sets: readonly RingSet[];
  readonly ports: (LocalRingPort | undefined)[] = [];

  constructor(context: DriverContext, names: readonly string[]) {
    this.names = names;
    this.sets = names.map((name) => new RingSet(context, name));
  }
}

/** Links of each process, by the names of their ports. */
const linksOf = new WeakMap<Arena, Map<string, Link>>();

/** The link of `device`, new or made when its peer was probed. */
function linkOf(context: DriverContext, device: string, peer: string | undefined): Link {
  const links = linksOf.get(context.arena) ?? new Map<string, Link>();
  linksOf.set(context.arena, links);
  const fault = (problem: string) => new PortError('EINVAL', device, problem);
  const made = links.get(device);
  if (made) {
    const other = made.names.find((name) => name !== device)!;
    if (peer === undefined || peer === other) return made;
    throw fault(`peer=${peer}: expected ${other}, which has this one as its peer`);
  }
  if (peer !== undefined && !/^net_ring[a-z0-9_-]+$/i.test(peer))
    throw fault(`peer=${peer}: expected the name of another net_ring device`);
  if (peer !== undefined && links.has(peer))
    throw fault(
      `peer=${peer}: it is a loop, or has another peer; give it peer=${device} too, or make it after this one`,
    );
  const link = new Link(context, peer === undefined || peer === device ? [device] : [device, peer]);
  for (const name of link.names) links.set(name, link);
  return link;
}

export class LocalRingPort extends VirtualPort implements PortDriver {
  readonly #link: Link;
  /** Own place in the link, and the partner's: the same for a loop. */
  readonly #here: number;
  readonly #there: number;
  #events: EventFd[] = [];
  #started = false;
  #enabled = true;
  #wasUp = false;
  /** Packets that waited when the port was stopped. */
  #flushed = 0;

  constructor(context: DriverContext, device: string, args: Devargs, peer: string | undefined) {
    args.done(['peer', 'path']);
    const link = linkOf(context, device, peer);
    super(context, device, args);
    this.#link = link;
    this.#here = link.names.indexOf(device);
    this.#there = link.names.length - 1 - this.#here;
    link.ports[this.#here] = this;
    this.carrierChanged();
  }

  info(): PortInfo {
    const descriptors = { min: 1, max: RING_ENTRIES_MAX, align: 1, usual: 1024 };
    return usualInfo('net_ring', this.device, {
      ...{ maxRxQueues: RING_QUEUES, maxTxQueues: RING_QUEUES, rxDescriptors: descriptors, txDescriptors: descriptors },
      ...{ rxOffloads: RX_OFFLOAD.SCATTER, txOffloads: TX_OFFLOAD.MULTI_SEGS, maxTxSegments: SEGMENTS_MAX },
      ...{ rxInterrupts: true, linkEvents: true },
    });
  }

  override async configure(config: Required<Omit<PortConfig, 'mtu'>>): Promise<void> {
    await super.configure(config);
    this.#closeEvents();
    if (config.rxInterrupts) this.#events = Array.from({ length: config.rxQueues }, () => new EventFd());
    this.#inbound.setWakers(this.#events.map(({ fd }) => fd));
    this.#outbound.setSenders(config.txQueues);
  }

  override setupTx(queue: number, setup: TxQueueSetup): void {
    super.setupTx(queue, setup);
    this.#outbound.setLimit(queue, setup.descriptors);
  }

  override async start(): Promise<void> {
    this.#started = true;
    // A burst of the partner that ran while the rings were closed may have put in some more.
    this.#flushed += this.#inbound.drain();
    this.#partner?.carrierChanged();
    this.carrierChanged();
  }

  override async stop(): Promise<void> {
    this.#started = false;
    this.#partner?.carrierChanged();
    this.carrierChanged();
    this.#flushed += this.#inbound.drain();
  }

  override async close(): Promise<void> {
    await super.close();
    const link = this.#link;
    link.ports[this.#here] = undefined;
    this.#partner?.carrierChanged();
    this.#inbound.setOpen(false);
    this.#inbound.setWakers([]);
    this.#inbound.drain();
    this.#closeEvents();
    if (link.ports.some((port) => port !== undefined)) return;
    for (const set of link.sets) set.close();
    for (const name of link.names) linksOf.get(this.context.arena)?.delete(name);
  }

  override async setLink(up: boolean): Promise<void> {
    this.#enabled = up;
    this.#partner?.carrierChanged();
    this.carrierChanged();
  }

  override link(): LinkStatus {
    return { ...super.link(), up: this.#enabled && this.#partner?.reachable === true };
  }

  rxQueue(queue: number): HandleRxDescription {
    const wakeFd = this.#events[queue]?.fd ?? -1;
    const { rxQueues } = this.config!;
    return {
      kind: 'local',
      set: this.#inbound.address,
      queue,
      queues: rxQueues,
      counters: this.rxCounters(queue),
      wakeFd,
    };
  }

  txQueue(queue: number): HandleTxDescription {
    return { kind: 'local', set: this.#outbound.address, queue, counters: this.txCounters(queue) };
  }

  override xstats(): [name: string, value: number][] {
    return [['rx_flushed_packets', this.#flushed]];
  }

  override resetStats(): void {
    super.resetStats();
    this.#flushed = 0;
  }

  rxQueueCount(queue: number): number {
    let sum = 0;
    for (let from = queue; from < RING_QUEUES; from += this.config!.rxQueues) sum += this.#inbound.waiting(from);
    return sum;
  }
  rxDescriptorStatus(queue: number, offset: number): DescriptorStatus {
    return offset < this.rxQueueCount(queue) ? 'DONE' : 'AVAILABLE';
  }
  txDescriptorStatus(queue: number, offset: number): DescriptorStatus {
    return offset < this.#outbound.waiting(queue) ? 'FULL' : 'DONE';
  }
  burstMode(): string {
    return 'WebAssembly SIMD';
  }

  get #inbound(): RingSet {
    return this.#link.sets[this.#here]!;
  }
  get #outbound(): RingSet {
    return this.#link.sets[this.#there]!;
  }
  get #partner(): LocalRingPort | undefined {
    return this.#link.ports[this.#there];
  }
  /** A loop's link is up before it starts, as somebody waits for that. */
  get reachable(): boolean {
    return this.#enabled && (this.#started || this.#partner === this);
  }

  /** Tells of a link that went up or down; only while it is up packets go out. */
  carrierChanged(): void {
    const link = this.link();
    this.#outbound.setOpen(link.up && (this.#there !== this.#here || this.#started));
    if (link.up === this.#wasUp) return;
    this.#wasUp = link.up;
    this.onEvent?.({ type: 'link', link });
  }

  #closeEvents(): void {
    for (const event of this.#events) event.close();
    this.#events = [];
  }
}
