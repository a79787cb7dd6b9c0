// A port as an interface of Linux: a TAP interface whose driver is ours. The control half: settings follow each other both ways,
// worker threads run the queue pairs between both ports.
import { RX_OFFLOAD, TX_OFFLOAD } from '../ethdev/constants.js';
import type { KernelInterface } from '../ethdev/driver.js';
import type { Eal } from '../ethdev/eal.js';
import { PortError } from '../ethdev/errors.js';
import type { Port } from '../ethdev/port.js';
import type { LinkStatus } from '../ethdev/types.js';
import type { InterfaceState } from '../memory/os/netlink.js';
import { inNetwork } from '../memory/os/netns.js';
import { TAP_OFFLOAD } from '../memory/os/tap.js';
import { formatMac } from '../wire/address-text.js';
import { Buffers } from './buffers.js';
import { PAIR_BYTES, type PairSetup } from './pair.js';
import type { WorkerSetup } from './worker.js';

const WORKER = new URL('./worker.js', import.meta.url);
/** Channels that hv_netvsc wishes for at least (facts/linux-guest.md 1.1). */
const USUAL_QUEUES = 16;
/** The largest IP packet with its Ethernet header. */
const LARGEST = 65_536;
const GSO_SEGMENTS = 65_535;

export interface NetdevOptions {
  /** What the interface is called. */
  readonly name: string;
  /** Path of the network namespace in which it is made; undefined = this thread's. */
  readonly network?: string;
  /** Default: 16, or fewer if there are fewer CPUs or the device has fewer. */
  readonly queues?: number;
  /** Default: the device's. */
  readonly mtu?: number;
  /** CPUs that there are. */
  readonly cpus: number;
  readonly log: (line: string) => void;
}

/** How many queue pairs an interface would have if its device has enough. */
export const usualQueues = (cpus: number): number => Math.min(USUAL_QUEUES, cpus);

export class Netdev {
  readonly name: string;
  /** Resolves to the reason when the interface can do nothing any more: its device or its kernel side is gone. */
  readonly ended: Promise<string>;
  readonly #eal: Eal;
  readonly #options: NetdevOptions;
  readonly #tap: Port;
  readonly #kernel: KernelInterface;
  readonly #buffers: Buffers;
  /** PAIR_BYTES of each queue. */
  readonly #pairs: number;
  #device: Port;
  #queues: number;
  /** As the kernel's side was when the device was brought in line with it last. */
  #seen: InterfaceState;
  #workers: Promise<unknown>[] = [];
  #end: (reason: string) => void = () => {};
  #closed = false;
  /** Changes are made one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  /** Makes the interface of a device's port, up, with the device's link. Throws PortError; nothing is left of it then but what
   *  closing `eal` gives back. */
  static async open(eal: Eal, device: Port, options: NetdevOptions): Promise<Netdev> {
    const { name, network } = options;
    const probe = () => eal.addVdev(`net_tap_${name}`, `iface=${name},mac=${device.mac}`);
    const tap = await (network === undefined ? probe() : inNetwork(network, probe));
    const netdev = new Netdev(eal, device, tap, options);
    await netdev.#begin();
    return netdev;
  }

  private constructor(eal: Eal, device: Port, tap: Port, options: NetdevOptions) {
    this.name = options.name;
    this.#eal = eal;
    this.#options = options;
    this.#device = device;
    this.#tap = tap;
    this.#kernel = tap.kernel!;
    this.#seen = this.#kernel.state;
    this.#queues = this.#wantedQueues();
    this.#buffers = new Buffers(eal, options.name, this.#queues);
    this.#pairs = eal.arena.reserve(`${options.name} pairs`, this.#queues * PAIR_BYTES);
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  get queues(): number {
    return this.#queues;
  }
  get device(): Port {
    return this.#device;
  }

  /** Takes the interface away; the ports are closed with the environment. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#kernel.onChange = undefined;
    await this.#last.catch(() => {});
    await this.#eal.stopLcores();
    await Promise.allSettled(this.#workers);
  }

  async #begin(): Promise<void> {
    const { mtu = this.#device.mtu } = this.#options;
    if (mtu !== this.#device.mtu) await this.#device.setMtu(mtu);
    await this.#configureDevice();
    await this.#configureTap();
    if (this.#kernel.state.mtu !== this.#device.mtu) this.#kernel.setMtu(this.#device.mtu);
    await this.#device.setAllMulticast(true);
    await this.#device.start();
    await this.#tap.start();
    this.#applyOffloads();
    this.#applyLink(this.#device.link());
    this.#seen = this.#kernel.state;
    this.#listen();
    this.#launch();
  }

  #wantedQueues(): number {
    const { queues, cpus } = this.#options;
    const most = Math.min(this.#device.info().maxRxQueues, this.#device.info().maxTxQueues);
    if (queues !== undefined && queues > most)
      throw new PortError('EINVAL', this.name, `queues: expected 1 to ${most}, got ${queues}`);
    return queues ?? Math.min(usualQueues(cpus), most);
  }

  async #configureDevice(): Promise<void> {
    const device = this.#device;
    const queues = this.#queues;
    const { rxOffloads, txOffloads } = device.info();
    const { VLAN_STRIP, IPV4_CKSUM, UDP_CKSUM, TCP_CKSUM, TCP_LRO, SCATTER, RSS_HASH } = RX_OFFLOAD;
    const { VLAN_INSERT, TCP_TSO, MULTI_SEGS } = TX_OFFLOAD;
    await device.configure({
      ...{ rxQueues: queues, txQueues: queues, packetTypes: false },
      rxOffloads:
        rxOffloads &
        (VLAN_STRIP | IPV4_CKSUM | UDP_CKSUM | TCP_CKSUM | TCP_LRO | SCATTER | (queues > 1 ? RSS_HASH : 0)),
      txOffloads: txOffloads & (VLAN_INSERT | TX_OFFLOAD.UDP_CKSUM | TX_OFFLOAD.TCP_CKSUM | TCP_TSO | MULTI_SEGS),
    });
    this.#setupDevice();
  }

  #setupDevice(): void {
    const pool = this.#buffers.receive(this.#device.mtu);
    for (let queue = 0; queue < this.#queues; queue++) {
      this.#device.setupRxQueue(queue, { descriptors: 0, pool });
      this.#device.setupTxQueue(queue);
    }
  }

  async #configureTap(): Promise<void> {
    const queues = this.#queues;
    const tags = (this.#device.config!.txOffloads & TX_OFFLOAD.VLAN_INSERT) !== 0;
    const { VLAN_STRIP, UDP_CKSUM, TCP_CKSUM, TCP_LRO } = RX_OFFLOAD;
    const { VLAN_INSERT, TCP_TSO, MULTI_SEGS } = TX_OFFLOAD;
    await this.#tap.configure({
      ...{ rxQueues: queues, txQueues: queues },
      rxOffloads: TCP_CKSUM | UDP_CKSUM | TCP_LRO | (tags ? VLAN_STRIP : 0),
      txOffloads: VLAN_INSERT | TX_OFFLOAD.TCP_CKSUM | TX_OFFLOAD.UDP_CKSUM | TCP_TSO | MULTI_SEGS,
    });
    for (let queue = 0; queue < queues; queue++) {
      this.#tap.setupRxQueue(queue, { descriptors: 0, pool: this.#buffers.large });
      this.#tap.setupTxQueue(queue);
    }
  }

  /** The kernel leaves undone what the device does, and does the rest. */
  #applyOffloads(): void {
    const { CSUM, TSO4, TSO6, TSO_ECN } = TAP_OFFLOAD;
    const { TCP_CKSUM, UDP_CKSUM, TCP_TSO } = TX_OFFLOAD;
    const { txOffloads } = this.#device.config!;
    const has = (bits: number) => (txOffloads & bits) === bits;
    const sums = has(TCP_CKSUM | UDP_CKSUM);
    const cuts = sums && has(TCP_TSO);
    this.#kernel.setOffloads((sums ? CSUM : 0) | (cuts ? TSO4 | TSO6 | TSO_ECN : 0));
    const { ipv4 = LARGEST, ipv6 = LARGEST } = this.#device.info().maxTsoBytes ?? {};
    if (cuts) this.#kernel.setGsoLimit(Math.min(LARGEST, ipv4, ipv6), GSO_SEGMENTS);
  }

  #applyLink({ up, speedMbps }: LinkStatus): void {
    this.#kernel.setCarrier(up);
    if (speedMbps > 0) this.#attempt('speed', () => this.#kernel.setSpeed(speedMbps));
  }

  #listen(): void {
    const device = this.#device;
    device.on('link', (link) => this.#applyLink(link));
    device.on('removed', (reason) => {
      this.#attempt('carrier', () => this.#kernel.setCarrier(false));
      this.#end(reason);
    });
    this.#tap.on('removed', (reason) => this.#end(reason));
    this.#kernel.onChange = () => this.#serially(() => this.#follow());
  }

  /** Brings the device in line with what somebody set on the interface. */
  async #follow(): Promise<void> {
    const state = this.#kernel.state;
    const before = this.#seen;
    if (this.#closed || this.#device.state === 'removed') return;
    this.#seen = state;
    const mac = formatMac(state.mac);
    if (state.up !== before.up) {
      if (state.up) await this.#device.start();
      else await this.#device.stop();
    }
    if (mac !== formatMac(before.mac)) await this.#device.setMac(mac);
    if (state.promiscuous !== before.promiscuous) await this.#device.setPromiscuous(state.promiscuous);
    if (state.mtu !== this.#device.mtu) await this.#changeMtu(state.mtu);
  }

  /** The interface has that MTU already; it gets the old one back when the device cannot have it. */
  async #changeMtu(mtu: number): Promise<void> {
    const device = this.#device;
    const before = device.mtu;
    const runs = device.state === 'started';
    await device.stop();
    try {
      await device.setMtu(mtu);
    } catch (error) {
      this.#options.log(`${this.name}: MTU ${mtu}: ${(error as Error).message}; it stays ${before}`);
      this.#kernel.setMtu(before);
      this.#seen = this.#kernel.state;
    }
    if (device.state !== 'configured') return; // gone
    this.#setupDevice();
    if (runs) await device.start();
  }

  /** Threads for the queue pairs, at most one for each CPU. */
  #launch(): void {
    const lcores = this.#eal.workers.slice(0, this.#queues);
    this.#workers = lcores.map((lcore, worker) => {
      const pairs: PairSetup[] = [];
      for (let queue = worker; queue < this.#queues; queue += lcores.length)
        pairs.push({ queue, memory: this.#pairs + queue * PAIR_BYTES });
      const setup: WorkerSetup = { device: this.#device.id, tap: this.#tap.id, pairs };
      const work = this.#eal.launch(lcore, WORKER, 'runPairs', setup);
      work.catch((error: Error) => this.#end(`${this.name}: ${error.message}`));
      return work;
    });
  }

  #attempt(what: string, work: () => void): void {
    try {
      work();
    } catch (error) {
      if (this.#tap.state !== 'removed') this.#options.log(`${this.name}: ${what}: ${(error as Error).message}`);
    }
  }

  #serially(work: () => Promise<void>): void {
    this.#last = this.#last.then(work).catch((error: Error) => this.#options.log(`${this.name}: ${error.message}`));
  }
}
