// What a testpmd knows: its ports, the configuration that commands change, who forwards.
import { RSS_TYPE } from '../../ethdev/constants.js';
import type { Eal } from '../../ethdev/eal.js';
import type { Mempool } from '../../ethdev/mempool.js';
import type { Port } from '../../ethdev/port.js';
import { formatMac } from '../../wire/address-text.js';
import type { Forwarder } from './forwarder.js';
import type { Mode } from './modes.js';
import type { TestpmdOptions } from './options.js';
import type { Output } from './output.js';
import { type Plan, pairsWithItself, planStreams } from './streams.js';

/** A port and what testpmd adds to it. */
export interface TestPort {
  readonly port: Port;
  /** Configuration and queues have to be made anew before it starts. */
  stale: boolean;
  rxOffloads: number;
  txOffloads: number;
  /** FORWARD_CHECKSUM bits that the device does. */
  checksums: number;
  /** Bytes of payload in a segment, 0 = no segmentation by the device. */
  tsoSegment: number;
  /** Checksum forwarding leaves Ethernet addresses alone. */
  keepAddresses: boolean;
  /** For rates: when its statistics were shown, and what they were. */
  shown: { atMs: number; values: ReadonlyMap<string, number> } | undefined;
}

export class Session {
  readonly eal: Eal;
  readonly out: Output;
  readonly options: TestpmdOptions;
  readonly pool: Mempool;
  readonly ports = new Map<number, TestPort>();
  forwarder!: Forwarder;

  mode: Mode;
  retry = false;
  /** Of a transmit queue without room: how often, and microseconds between. */
  retries = 64;
  retryDelayUs = 1;
  burst: number;
  segments: readonly number[];
  verbose = 0;
  rxQueues: number;
  txQueues: number;
  rxDescriptors: number;
  txDescriptors: number;
  /** RSS_TYPE bits, as wide as DPDK's. */
  rssTypes: number;
  mtu: number | undefined;
  linkCheck: boolean;
  flushRx: boolean;
  /** CPUs that forward, and how many of them. */
  cores: readonly number[];
  coreCount: number;
  /** Ports that forward, and how many of them. */
  forwardPorts: readonly number[];
  portCount: number;
  readonly peers: Map<number, Uint8Array>;
  /** A command said that this is the end. */
  ended = false;
  #warned = false;

  constructor(eal: Eal, pool: Mempool, options: TestpmdOptions, out: Output) {
    this.eal = eal;
    this.pool = pool;
    this.options = options;
    this.out = out;
    this.mode = options.mode;
    this.burst = options.burst;
    this.segments = options.segments;
    ({ rxQueues: this.rxQueues, txQueues: this.txQueues } = options);
    ({ rxDescriptors: this.rxDescriptors, txDescriptors: this.txDescriptors } = options);
    this.rssTypes = RSS_CHOICES[options.rss];
    this.mtu = options.maxPacketBytes === undefined ? undefined : options.maxPacketBytes - FRAME_OVERHEAD;
    this.linkCheck = options.linkCheck;
    this.flushRx = options.flushRx;
    this.cores = options.coreList ?? this.workers;
    this.coreCount = Math.min(options.cores ?? 1, this.cores.length);
    for (const port of eal.ports) {
      const { rxOffloads, txOffloads } = options;
      const rest = { checksums: 0, tsoSegment: 0, keepAddresses: false, shown: undefined };
      this.ports.set(port.id, { port, stale: true, rxOffloads, txOffloads, ...rest });
    }
    this.forwardPorts = options.portList ?? this.open.map(({ port }) => port.id);
    this.portCount = options.ports ?? this.forwardPorts.length;
    this.peers = new Map(options.peers);
  }

  /** CPUs of the threads that can forward: all lcores but the control thread's. */
  get workers(): number[] {
    return this.eal.workers.map((lcore) => this.eal.options.cpus[lcore]!);
  }

  /** Ports that are not closed, and not in the hands of a port around them. */
  get open(): TestPort[] {
    return [...this.ports.values()].filter(({ port }) => port.state !== 'closed' && port.state !== 'taken');
  }

  /** An open port; otherwise says so, as testpmd does. */
  find(id: number): TestPort | undefined {
    const found = this.open.find(({ port }) => port.id === id);
    if (found) return found;
    this.out.complain(`Invalid port ${id}`);
    return undefined;
  }

  /** One port, or all of them. */
  select(which: number | 'all'): TestPort[] {
    if (which === 'all') return this.open;
    const found = this.find(which);
    return found ? [found] : [];
  }

  /** The same for commands that show something: they also say which ports there are. */
  selectToShow(which: number | 'all'): TestPort[] {
    const found = this.select(which);
    if (found.length === 0 && which !== 'all') {
      const ids = this.open.map(({ port }) => `${port.id} `).join('');
      this.out.print(`The valid ports array is [ ${ids}]`);
    }
    return found;
  }

  /** All ports are stopped; otherwise says so. */
  allStopped(): boolean {
    if (this.open.every(({ port }) => port.state !== 'started')) return true;
    this.out.complain('Please stop all ports first');
    return false;
  }

  /** That port is stopped; otherwise says so. */
  stopped({ port }: TestPort): boolean {
    if (port.state !== 'started') return true;
    this.out.complain(`Please stop port ${port.id} first`);
    return false;
  }

  /** Where frames for what is behind a port's wire go. */
  peer(id: number): Uint8Array {
    return this.peers.get(id) ?? Uint8Array.of(0x02, 0, 0, 0, 0, id);
  }

  peerText = (id: number): string => formatMac(this.peer(id)).toUpperCase();

  /** Who would forward what now. */
  plan(): Plan {
    const open = new Set(this.open.map(({ port }) => port.id));
    const ports = this.forwardPorts.slice(0, this.portCount).filter((id) => open.has(id));
    const { topology } = this.options;
    if (this.mode !== 'icmpecho' && pairsWithItself(ports.length, topology)) this.#warnOdd();
    return planStreams({
      ...{ mode: this.mode, ports, rxQueues: this.rxQueues, txQueues: this.txQueues, topology },
      cores: this.cores.slice(0, this.coreCount),
    });
  }

  #warnOdd(): void {
    if (this.#warned) return;
    this.#warned = true;
    const text = 'port-topology=paired and odd forward ports number, the last port will pair with itself';
    this.out.complain(`\nWarning! ${text}.\n`);
  }
}

/** Ethernet header and FCS, which testpmd counts to a packet's length. */
export const FRAME_OVERHEAD = 18;

const { IPV4, IPV4_UDP, IPV6, IPV6_EX, IPV6_UDP, IPV6_UDP_EX } = RSS_TYPE;
/** Fragments and other protocols, which DPDK has bits for and no device of ours hashes differently. */
const IP_REST = (1 << 3) | (1 << 7) | (1 << 9) | (1 << 13);
/** What DPDK calls "ip" and "udp". */
export const RSS_IP = IPV4 | IPV6 | IPV6_EX | IP_REST;
export const RSS_UDP = IPV4_UDP | IPV6_UDP | IPV6_UDP_EX;

const RSS_CHOICES = { default: RSS_IP, ip: RSS_IP, udp: RSS_UDP, off: 0 } as const;
