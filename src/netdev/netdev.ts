// A port as an interface of Linux: a TAP interface whose driver is ours. The control half: settings follow each other both ways,
// worker threads run the queue pairs between both ports.
import { setTimeout as sleep } from 'node:timers/promises';
import { RX_OFFLOAD, TX_OFFLOAD } from '../ethdev/constants.js';
import type { KernelInterface } from '../ethdev/driver.js';
import type { Eal } from '../ethdev/eal.js';
import { PortError } from '../ethdev/errors.js';
import type { Port } from '../ethdev/port.js';
import type { LinkStatus, PortConfig } from '../ethdev/types.js';
import type { InterfaceState } from '../memory/os/netlink.js';
import { inNetwork } from '../memory/os/netns.js';
import { TAP_OFFLOAD } from '../memory/os/tap.js';
import { formatMac } from '../wire/address-text.js';
import { Buffers } from './buffers.js';
import { NETDEV_PAIR, PAIR_BYTES, type PairSetup } from './pair.js';
import { Workers } from './workers.js';

/** Channels that hv_netvsc wishes for at least, and has at most (facts/linux-guest.md 1.1). */
const USUAL_QUEUES = 16;
const QUEUES_MAX = 64;
/** The largest IP packet with its Ethernet header. */
const LARGEST = 65_536;
const GSO_SEGMENTS = 65_535;
/** How long queues that go may take to be empty. */
const EMPTY_MS = 1000;
/** How often a device that went away is looked for. */
const RETRY_MS = 250;

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
  /** When the device goes away the interface stays, without a carrier, until it is there again (default: it ends). */
  readonly wait?: boolean;
  readonly log: (line: string) => void;
}

/** How many queue pairs an interface would have if its device has enough. */
export const usualQueues = (cpus: number): number => Math.min(USUAL_QUEUES, cpus);

export class Netdev {
  /** Resolves to the reason when the interface can do nothing any more: its device or its kernel side is gone. */
  readonly ended: Promise<string>;
  readonly #eal: Eal;
  readonly #options: NetdevOptions;
  readonly #tap: Port;
  readonly #kernel: KernelInterface;
  readonly #buffers: Buffers;
  readonly #workers: Workers;
  /** PAIR_BYTES of each queue. */
  readonly #pairs: number;
  #device: Port;
  #queues: number;
  /** As the kernel's side was when the device was brought in line with it last. */
  #seen: InterfaceState;
  /** How long the last change kept packets waiting, ms. */
  #gapMs = 0;
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
    this.#eal = eal;
    this.#options = options;
    this.#device = device;
    this.#tap = tap;
    this.#kernel = tap.kernel!;
    this.#seen = this.#kernel.state;
    this.#queues = this.#wantedQueues(options.queues);
    this.#buffers = new Buffers(eal, options.name, this.#queues);
    this.#pairs = eal.arena.reserve(`${options.name} pairs`, QUEUES_MAX * PAIR_BYTES);
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    this.#workers = new Workers(eal, options.name, this.#end);
  }

  /** Its name now. */
  get name(): string {
    return this.#kernel.state.name;
  }
  get queues(): number {
    return this.#queues;
  }
  get device(): Port {
    return this.#device;
  }
  get kernel(): KernelInterface {
    return this.#kernel;
  }
  /** How long the last change of the device kept packets waiting, ms. */
  get gapMs(): number {
    return this.#gapMs;
  }

  /** Takes the interface away; the ports are closed with the environment. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#kernel.onChange = undefined;
    await this.#last.catch(() => {});
    await this.#workers.close();
  }

  /** Another number of queue pairs; settings stay. Throws PortError; everything is as before then. */
  setQueues(queues: number): Promise<void> {
    return this.#serially(() => this.#changeQueues(this.#wantedQueues(queues)));
  }

  async #begin(): Promise<void> {
    this.#workers.launch(this.#queues);
    const { mtu = this.#device.mtu } = this.#options;
    if (mtu !== this.#device.mtu) await this.#device.setMtu(mtu);
    await this.#configureDevice(this.#queues);
    await this.#configureTap();
    if (this.#kernel.state.mtu !== this.#device.mtu) this.#kernel.setMtu(this.#device.mtu);
    await this.#device.setAllMulticast(true);
    await this.#device.start();
    await this.#tap.start();
    this.#kernel.setCarrier(false); // until somebody polls
    this.#applyOffloads();
    await this.#take();
    this.#listen();
    this.#tap.on('removed', (reason) => this.#end(reason));
    this.#seen = this.#kernel.state;
    this.#kernel.onChange = () => this.#notice(() => this.#follow());
    this.#applyLink(this.#device.link());
  }

  #wantedQueues(queues = 0): number {
    const { maxRxQueues, maxTxQueues } = this.#device.info();
    const most = Math.min(maxRxQueues, maxTxQueues, QUEUES_MAX);
    if (queues > most)
      throw new PortError('EINVAL', this.#options.name, `queues: expected 1 to ${most}, got ${queues}`);
    return queues || Math.min(usualQueues(this.#options.cpus), most);
  }

  #deviceConfig(queues: number): PortConfig {
    const { rxOffloads, txOffloads } = this.#device.info();
    const { VLAN_STRIP, IPV4_CKSUM, UDP_CKSUM, TCP_CKSUM, TCP_LRO, SCATTER, RSS_HASH } = RX_OFFLOAD;
    const { VLAN_INSERT, TCP_TSO, MULTI_SEGS } = TX_OFFLOAD;
    const hash = queues > 1 ? RSS_HASH : 0;
    return {
      ...{ rxQueues: queues, txQueues: queues, packetTypes: false },
      rxOffloads: rxOffloads & (VLAN_STRIP | IPV4_CKSUM | UDP_CKSUM | TCP_CKSUM | TCP_LRO | SCATTER | hash),
      // IPv4 header checksums are the kernel's, as hv_netvsc has it.
      txOffloads: txOffloads & (VLAN_INSERT | TX_OFFLOAD.UDP_CKSUM | TX_OFFLOAD.TCP_CKSUM | TCP_TSO | MULTI_SEGS),
    };
  }

  async #configureDevice(queues: number): Promise<void> {
    await this.#device.configure(this.#deviceConfig(queues));
    this.#queues = queues;
    this.#setupDevice();
  }

  #setupDevice(): void {
    const pool = this.#buffers.receive(this.#device.mtu);
    for (let queue = 0; queue < this.#queues; queue++) {
      this.#device.setupRxQueue(queue, { descriptors: 0, pool });
      this.#device.setupTxQueue(queue);
    }
  }

  /** For as many queues as there may ever be, of which the kernel uses some: another number of them must not stop it. */
  async #configureTap(): Promise<void> {
    const { maxRxQueues } = this.#tap.info();
    const queues = Math.min(this.#wantedMost(), maxRxQueues);
    const tags = (this.#device.config!.txOffloads & TX_OFFLOAD.VLAN_INSERT) !== 0;
    const { VLAN_STRIP, UDP_CKSUM, TCP_CKSUM, TCP_LRO } = RX_OFFLOAD;
    const { VLAN_INSERT, TCP_TSO, MULTI_SEGS } = TX_OFFLOAD;
    this.#kernel.setQueues(this.#queues);
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

  #wantedMost(): number {
    const { maxRxQueues, maxTxQueues } = this.#device.info();
    return Math.min(maxRxQueues, maxTxQueues, QUEUES_MAX);
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
    this.#device.on('link', (link) => this.#applyLink(link));
    this.#device.on('removed', (reason) => {
      if (this.#closed) return;
      this.#attempt('carrier', () => this.#kernel.setCarrier(false));
      if (this.#options.wait !== true) this.#end(reason);
      else this.#notice(() => this.#renew(reason));
    });
  }

  /** Brings the device in line with what somebody set on the interface. */
  async #follow(): Promise<void> {
    const state = this.#kernel.state;
    const before = this.#seen;
    if (this.#gone) return;
    this.#seen = state;
    if (state.up !== before.up) {
      if (state.up) await this.#device.start();
      else await this.#device.stop();
    }
    if (formatMac(state.mac) !== formatMac(before.mac)) await this.#changeMac(formatMac(state.mac), before.mac);
    if (state.promiscuous !== before.promiscuous) await this.#device.setPromiscuous(state.promiscuous);
    if (state.mtu !== this.#device.mtu) await this.#changeMtu(state.mtu);
  }

  get #gone(): boolean {
    return this.#closed || this.#device.state === 'removed' || this.#device.state === 'closed';
  }

  get #stopped(): boolean {
    return this.#device.state === 'configured';
  }

  async #changeMac(mac: string, before: Uint8Array): Promise<void> {
    try {
      await this.#device.setMac(mac);
    } catch (error) {
      this.#options.log(`${this.name}: address ${mac}: ${(error as Error).message}; it stays ${formatMac(before)}`);
      this.#kernel.setMac(formatMac(before));
      this.#seen = this.#kernel.state;
    }
  }

  /** The interface has that MTU already; it gets the old one back when the device cannot have it. */
  async #changeMtu(mtu: number): Promise<void> {
    const before = this.#device.mtu;
    try {
      await this.#quietly(async () => {
        await this.#device.setMtu(mtu);
        if (this.#buffers.receive(mtu) !== this.#buffers.receive(before)) this.#setupDevice();
      });
    } catch (error) {
      if (this.#gone) return;
      this.#options.log(`${this.name}: MTU ${mtu}: ${(error as Error).message}; it stays ${before}`);
      this.#kernel.setMtu(before);
      this.#seen = this.#kernel.state;
    }
  }

  async #changeQueues(queues: number): Promise<void> {
    const before = this.#queues;
    if (queues === before) return;
    if (this.#gone) throw new PortError('ENODEV', this.name, 'the device is gone');
    // What the kernel has put into queues that go is sent on before they do.
    if (queues < before) await this.#emptyQueues(queues);
    try {
      await this.#quietly(async () => {
        await this.#workers.release();
        try {
          await this.#device.configure(this.#deviceConfig(queues));
          this.#queues = queues;
          this.#kernel.setQueues(queues);
        } catch (error) {
          if (this.#queues !== before) {
            await this.#device.configure(this.#deviceConfig(before));
            this.#queues = before;
          }
          throw error;
        } finally {
          if (!this.#gone) {
            this.#setupDevice();
            this.#workers.launch(this.#queues);
            await this.#take();
          }
        }
      });
    } finally {
      if (queues < before) this.#kernel.gather(false);
    }
  }

  /** Waits until the queues from that one on hold nothing any more and get nothing more. Throws PortError when they do not. */
  async #emptyQueues(first: number): Promise<void> {
    this.#kernel.gather(true);
    const { u32 } = this.#eal.arena;
    const waiting = (queue: number) => u32[(this.#pairs + queue * PAIR_BYTES + NETDEV_PAIR.at.waiting) >>> 2] !== 0;
    const numbers = Array.from({ length: this.#queues - first }, (_, i) => first + i);
    // Twice: a packet may be on its way from the one to the other.
    const empty = () => !this.#kernel.holds(first) && !numbers.some(waiting);
    for (let tries = 0, end = performance.now() + EMPTY_MS; tries < 2; tries = empty() ? tries + 1 : 0) {
      if (performance.now() > end) {
        this.#kernel.gather(false);
        throw new PortError('EBUSY', this.name, `packets still wait in queues from ${first} on after ${EMPTY_MS} ms`);
      }
      await sleep(1);
    }
  }

  /** Runs `work` while the device is stopped. What came goes up before, what the kernel sends meanwhile waits in its queues. */
  async #quietly(work: () => Promise<void>): Promise<void> {
    const device = this.#device;
    const runs = device.state === 'started';
    const began = performance.now();
    if (runs) await device.drain();
    await device.stop();
    try {
      await work();
    } finally {
      if (runs && this.#stopped) await device.start();
      this.#gapMs = performance.now() - began;
    }
  }

  async #take(): Promise<void> {
    const pairs: PairSetup[] = Array.from({ length: this.#queues }, (_, queue) => ({
      queue,
      memory: this.#pairs + queue * PAIR_BYTES,
    }));
    await this.#workers.take(this.#device, this.#tap, pairs);
  }

  /** The device is gone: waits for it to come back. */
  async #renew(reason: string): Promise<void> {
    this.#options.log(`${this.name}: ${reason}; waiting for the device to come back`);
    await this.#workers.release();
    this.#dropWaiting();
    const old = this.#device;
    while (!this.#closed && this.#tap.state !== 'removed') {
      try {
        this.#device = await this.#eal.renew(old);
        break;
      } catch {
        await sleep(RETRY_MS);
      }
    }
    if (this.#device === old) return;
    try {
      await this.#restore();
      this.#options.log(`${this.name}: the device is back`);
    } catch (error) {
      this.#end(`${this.name}: ${(error as Error).message}`);
    }
  }

  /** A new device gets the settings of the interface. */
  async #restore(): Promise<void> {
    const device = this.#device;
    const { state } = this.#kernel;
    this.#seen = state;
    if (state.mtu !== device.mtu)
      await device.setMtu(state.mtu).catch((error: Error) => {
        this.#options.log(`${this.name}: MTU ${state.mtu}: ${error.message}; it is ${device.mtu} now`);
        this.#kernel.setMtu(device.mtu);
      });
    const queues = Math.min(this.#queues, this.#wantedMost());
    await this.#configureDevice(queues);
    this.#kernel.setQueues(queues);
    await device.setAllMulticast(true);
    await device.setPromiscuous(state.promiscuous);
    const mac = formatMac(state.mac);
    if (mac !== device.mac) await this.#changeMac(mac, state.mac);
    if (state.up) await device.start();
    this.#applyOffloads();
    await this.#take();
    this.#listen();
    this.#applyLink(device.link());
  }

  /** Nobody sends any more what the device did not take. */
  #dropWaiting(): void {
    const { arena, main } = this.#eal;
    for (let queue = 0; queue < this.#queues; queue++) {
      const cells = this.#pairs + queue * PAIR_BYTES;
      const cell = (cells + NETDEV_PAIR.at.waiting) >>> 2;
      main.datapath.mbufFree(cells + NETDEV_PAIR.bytes, arena.u32[cell]!);
      arena.u32[cell] = 0;
    }
  }

  #attempt(what: string, work: () => void): void {
    try {
      work();
    } catch (error) {
      if (this.#tap.state !== 'removed') this.#options.log(`${this.name}: ${what}: ${(error as Error).message}`);
    }
  }

  #serially<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  /** The same for what nobody waits for. */
  #notice(work: () => Promise<void>): void {
    this.#serially(work).catch((error: Error) => this.#options.log(`${this.name}: ${error.message}`));
  }
}
