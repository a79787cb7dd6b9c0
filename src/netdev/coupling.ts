// Couples a device's port with a TAP interface of the kernel, whose driver it becomes: settings follow each other both ways, worker
// threads run the queue pairs between both ports, and the device may change while packets wait.
import { setTimeout as sleep } from 'node:timers/promises';
import { TX_OFFLOAD } from '../ethdev/constants.js';
import type { KernelInterface } from '../ethdev/driver.js';
import type { Eal } from '../ethdev/eal.js';
import { PortError } from '../ethdev/errors.js';
import type { HashFlow, HashLevel } from '../ethdev/flow-hash.js';
import type { Port } from '../ethdev/port.js';
import type { LinkStatus } from '../ethdev/types.js';
import type { InterfaceState } from '../memory/os/netlink.js';
import { inNetwork } from '../memory/os/netns.js';
import { TAP_OFFLOAD } from '../memory/os/tap.js';
import { formatMac } from '../wire/address-text.js';
import { Buffers } from './buffers.js';
import type { FeatureState } from './control.js';
import { Counting } from './counting.js';
import { type FeatureDevice, type FeatureSettings, featureSettings, featureStates } from './features.js';
import { type CouplingOptions, type Scaling, usualQueues } from './options.js';
import { Pairs } from './pairs.js';
import { configureDevice, configureTap, mostQueues, setupDevice } from './setup.js';
import { Workers } from './workers.js';

/** The largest IP packet with its Ethernet header. */
const LARGEST = 65_536;
/** Of packets that a device cuts which names no limit. */
const LONGEST = 0xffff_ffff;
const GSO_SEGMENTS = 65_535;
/** Of Ethernet, in front of an MTU's worth of data. */
const HEADER_BYTES = 14;
/** How long queues that go may take to be empty. */
const EMPTY_MS = 1000;
/** How often a device that went away is looked for. */
const RETRY_MS = 250;

export class Coupling {
  /** Resolves to the reason when the interface can do nothing any more: its device or its kernel side is gone. */
  readonly ended: Promise<string>;
  readonly pairs: Pairs;
  readonly #eal: Eal;
  readonly #options: CouplingOptions;
  readonly #tap: Port;
  readonly #kernel: KernelInterface;
  /** Its packet memory. */
  readonly buffers: Buffers;
  readonly #workers: Workers;
  readonly #counting: Counting;
  #wishes: ReadonlyMap<string, boolean> = new Map();
  #settings: FeatureSettings;
  #scaling: Scaling = {};
  /** Levels that a user set. */
  readonly #levels = new Map<HashFlow, HashLevel>();
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
  static async open(eal: Eal, device: Port, options: CouplingOptions): Promise<Coupling> {
    const { name, network } = options;
    const probe = () => eal.addVdev(`net_tap_${name}`, `iface=${name},mac=${device.mac}`);
    const tap = await (network === undefined ? probe() : inNetwork(network, probe));
    const coupling = new Coupling(eal, device, tap, options);
    await coupling.#begin();
    return coupling;
  }

  private constructor(eal: Eal, device: Port, tap: Port, options: CouplingOptions) {
    this.#eal = eal;
    this.#options = options;
    this.#device = device;
    this.#tap = tap;
    this.#kernel = tap.kernel!;
    this.#seen = this.#kernel.state;
    this.#queues = this.#wantedQueues(options.queues);
    this.buffers = new Buffers(eal, options.name, this.#queues);
    this.pairs = new Pairs(eal, options.name, this.buffers);
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    this.#counting = new Counting(tap, this.pairs);
    this.#counting.use(device);
    this.#workers = new Workers(eal, options.name, this.#end, () => this.#look());
    this.#settings = this.#wanted(this.#wishes);
  }

  /** Its name now. */
  get name(): string {
    return this.#kernel.state.name;
  }
  get queues(): number {
    return this.#queues;
  }
  /** Most that there can be. */
  get maxQueues(): number {
    return mostQueues(this.#device);
  }
  get device(): Port {
    return this.#device;
  }
  get kernel(): KernelInterface {
    return this.#kernel;
  }
  get tap(): Port {
    return this.#tap;
  }
  /** ethtool -S. */
  statistics(): (readonly [name: string, value: number])[] {
    return this.#counting.list(this.#queues, this.#gapMs);
  }

  /** Every feature, in the kernel's order. */
  features(): FeatureState[] {
    return featureStates(this.#offers(), this.#wishes);
  }

  /** Features by name; the others stay. Throws PortError; everything is as before then. */
  setFeatures(change: Readonly<Record<string, boolean>>): Promise<void> {
    return this.#serially(async () => {
      const wishes = new Map([...this.#wishes, ...Object.entries(change)]);
      const settings = this.#wanted(wishes);
      const { rxOffloads, txOffloads } = this.#settings;
      // What waits already is cut here from now on, where the device is not to do it any more.
      if ((settings.txOffloads & TX_OFFLOAD.TCP_TSO) === 0) this.#limit(0);
      if (!this.#gone && (settings.rxOffloads !== rxOffloads || settings.txOffloads !== txOffloads))
        await this.#device
          .setOffloads({ rxOffloads: settings.rxOffloads, txOffloads: settings.txOffloads })
          .finally(() => this.#limit());
      this.#wishes = wishes;
      this.#settings = settings;
      this.#applyFeatures();
    });
  }

  /** Table and key of receive-side scaling; `byDefault`: the table is nobody's wish, and need not be kept. Throws PortError;
   *  nothing is changed then. */
  setScaling(change: Scaling, { byDefault = false } = {}): Promise<void> {
    return this.#serially(async () => {
      const { table, key } = change;
      await this.#device.setRss({ ...(table && { table: [...table] }), ...(key && { key }) });
      const { table: kept, ...rest } = { ...this.#scaling, ...change };
      this.#scaling = byDefault || kept === undefined ? rest : { ...rest, table: kept };
    });
  }

  /** Sections of the device's buffers. Throws PortError; they are as before then. */
  setRings(sizes: { readonly rx?: number; readonly tx?: number }): Promise<void> {
    return this.#serially(() => this.#quietly(() => this.#device.setRings(sizes)));
  }

  /** How deep a flow is hashed. Throws PortError; it is as before then. */
  setFlowHash(flow: HashFlow, level: HashLevel): Promise<void> {
    return this.#serially(async () => {
      await this.#device.setFlowHash(flow, level);
      this.#levels.set(flow, level);
      this.#steer();
    });
  }

  /** What a user set of it. */
  get scaling(): Scaling {
    return this.#scaling;
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
    await configureTap(this.#tap, this.#device, this.#queues, this.buffers);
    if (this.#kernel.state.mtu !== this.#device.mtu) this.#kernel.setMtu(this.#device.mtu);
    await this.#device.setAllMulticast(true);
    await this.#device.start();
    this.#kernel.setCarrier(false); // until somebody polls: what IPv6 sends at once would be dropped
    await this.#tap.start();
    this.#applyFeatures();
    await this.#take();
    this.#listen();
    this.#tap.on('removed', (reason) => this.#end(reason));
    this.#seen = this.#kernel.state;
    this.#kernel.onChange = () => this.#notice(() => this.#follow());
    this.#workers.watch(this.#kernel.newsFd);
    this.#applyLink(this.#device.link());
  }

  #wantedQueues(queues = 0): number {
    const most = mostQueues(this.#device);
    if (queues > most)
      throw new PortError('EINVAL', this.#options.name, `queues: expected 1 to ${most}, got ${queues}`);
    return queues || Math.min(usualQueues(this.#options.cpus), most);
  }

  async #configureDevice(queues: number): Promise<void> {
    this.#settings = this.#wanted(this.#wishes);
    await configureDevice(this.#device, queues, this.#settings);
    this.#queues = queues;
    setupDevice(this.#device, this.buffers);
    await this.#restoreScaling();
  }

  /** The table and key that a user set, as far as there are queues for it. */
  async #restoreScaling(): Promise<void> {
    const { table, key } = this.#scaling;
    if (this.#queues < 2 || (table === undefined && key === undefined)) return;
    const { rssTableEntries } = this.#device.info();
    const fits = table !== undefined && table.length === rssTableEntries;
    await this.#device.setRss({
      ...(key && { key }),
      ...(fits && { table: table.map((queue) => queue % this.#queues) }),
    });
  }

  #wanted(wishes: ReadonlyMap<string, boolean>): FeatureSettings {
    const device = this.#offers();
    return featureSettings(device, featureStates(device, wishes));
  }

  /** What the device has, without what its host has switched off since. */
  #offers(): FeatureDevice {
    const info = this.#device.info();
    const { rxOffloads = 0, txOffloads = 0 } = this.#device.config ?? {};
    const now = this.#device.offloads();
    return {
      ...info,
      rxOffloads: info.rxOffloads & ~(rxOffloads & ~now.rxOffloads),
      txOffloads: info.txOffloads & ~(txOffloads & ~now.txOffloads),
    };
  }

  /** The kernel leaves undone what the device does, and does the rest. */
  #applyFeatures(): void {
    const { kernel, pair, udp } = this.#settings;
    this.#kernel.setOffloads(kernel);
    const { ipv4 = LARGEST, ipv6 = LARGEST } = this.#device.info().maxTsoBytes ?? {};
    const most = Math.min(LARGEST, ipv4 || LARGEST, ipv6 || LARGEST);
    if ((kernel & (TAP_OFFLOAD.TSO4 | TAP_OFFLOAD.TSO6)) !== 0) this.#kernel.setGsoLimit(most, GSO_SEGMENTS);
    this.pairs.setOptions(pair, udp);
    this.#limit();
  }

  /** Tells the pairs what the device takes; `tso`: what it cuts is none of its business any more. */
  #limit(tso = this.#device.offloads().txOffloads & TX_OFFLOAD.TCP_TSO): void {
    const { ipv4 = LONGEST, ipv6 = LONGEST } = this.#device.info().maxTsoBytes ?? {};
    this.pairs.setLimits(this.#device.mtu + HEADER_BYTES, tso === 0 ? { ipv4: 0, ipv6: 0 } : { ipv4, ipv6 });
  }

  /** A worker says that there are news of the interface, or that a packet is longer than the device's MTU lets it be: whoever
   *  has set a larger one did so before, and packets wait until the device has it, too. */
  #look(): void {
    if (this.#closed) return;
    const questions = this.pairs.questions();
    this.#attempt('news', () => this.#kernel.look());
    this.#workers.watch(this.#kernel.newsFd);
    this.#notice(() => this.#follow().finally(() => this.pairs.answer(questions)));
  }

  #applyLink({ up, speedMbps }: LinkStatus): void {
    this.#kernel.setCarrier(up);
    if (speedMbps > 0) this.#attempt('speed', () => this.#kernel.setSpeed(speedMbps));
  }

  #listen(): void {
    this.#device.on('link', (link) => this.#applyLink(link));
    this.#device.on('transmitTable', () => this.#steer());
    this.#device.on('offloads', () => {
      this.#settings = this.#wanted(this.#wishes);
      this.#attempt('offloads', () => this.#applyFeatures());
    });
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
        if (this.buffers.receive(mtu) !== this.buffers.receive(before)) setupDevice(this.#device, this.buffers);
        this.#limit();
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
      await this.#reconfigure(queues, this.#settings);
    } finally {
      if (queues < before) this.#kernel.gather(false);
    }
  }

  /** Configures the device anew. Throws PortError; it is as before then, or gone. */
  async #reconfigure(queues: number, settings: FeatureSettings): Promise<void> {
    const before = { queues: this.#queues, settings: this.#settings };
    const apply = async (count: number, features: FeatureSettings) => {
      await configureDevice(this.#device, count, features);
      this.#queues = count;
      setupDevice(this.#device, this.buffers);
      await this.#restoreScaling();
      this.#kernel.setQueues(count);
    };
    await this.#quietly(async () => {
      await this.#workers.release();
      try {
        await apply(queues, settings);
      } catch (error) {
        if (!this.#gone) await apply(before.queues, before.settings);
        throw error;
      } finally {
        if (!this.#gone) {
          this.#workers.launch(this.#queues);
          await this.#take();
        }
      }
    });
  }

  /** Waits until the queues from that one on hold nothing any more and get nothing more. Throws PortError when they do not. */
  async #emptyQueues(first: number): Promise<void> {
    this.#kernel.gather(true);
    // Twice: a packet may be on its way from the one to the other.
    const empty = () => !this.#kernel.holds(first) && !this.pairs.waits(first);
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
    this.#steer();
    const { rxInterrupts } = this.#device.config!;
    await this.#workers.take(this.#device, this.#tap, this.pairs.setups(this.#queues, rxInterrupts));
  }

  /** Flows go to the queues that the host's table names. */
  #steer(): void {
    this.pairs.steering.configure(this.#device.transmitTable(), this.#device.hashLevels);
  }

  /** The device is gone: waits for it to come back. */
  async #renew(reason: string): Promise<void> {
    this.#options.log(`${this.name}: ${reason}; waiting for the device to come back`);
    await this.#workers.release();
    this.#counting.dropped(this.pairs.dropWaiting());
    this.#counting.use(undefined);
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
    this.#counting.use(this.#device);
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
    const queues = Math.min(this.#queues, mostQueues(this.#device));
    await this.#configureDevice(queues);
    this.#kernel.setQueues(queues);
    for (const [flow, level] of this.#levels) await device.setFlowHash(flow, level);
    await device.setAllMulticast(true);
    await device.setPromiscuous(state.promiscuous);
    const mac = formatMac(state.mac);
    if (mac !== device.mac) await this.#changeMac(mac, state.mac);
    if (state.up) await device.start();
    this.#applyFeatures();
    await this.#take();
    this.#listen();
    this.#applyLink(device.link());
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
