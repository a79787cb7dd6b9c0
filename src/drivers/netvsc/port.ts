// The control half of net_netvsc. It runs in the thread that probed the device and shares the channels' rings with the bursts
// of other threads: what uses a ring here does so between bursts, by the queues' lock cells.
import { RX_OFFLOAD } from '../../ethdev/constants.js';
import type { Devargs } from '../../ethdev/devargs.js';
import type { DriverContext, PortDriver, RxQueueSetup, TxQueueSetup } from '../../ethdev/driver.js';
import { PortError } from '../../ethdev/errors.js';
import type { FullConfig } from '../../ethdev/limits.js';
import type {
  BasicStats,
  DescriptorStatus,
  LinkStatus,
  PortEvent,
  PortInfo,
  PortOffloads,
  QueueStats,
  ReceiveFilter,
  RingSizes,
} from '../../ethdev/types.js';
import { PACKET_FLAG, PORT_OPTION } from '../../memory/layout.js';
import { controlSections } from '../../netvsc/control.js';
import { type NetvscChange, NetvscDevice } from '../../netvsc/device.js';
import type { QueueMemory } from '../../netvsc/queue.js';
import { MAX_QUEUES, type RssSettings } from '../../netvsc/scaling.js';
import type { NetvscEvent, NetvscInfo } from '../../netvsc/types.js';
import { MICROSOFT_KEY } from '../../offload/rss.js';
import type { VmbusDevice } from '../../vmbus/device.js';
import { PACKET_FILTER } from '../../wire/oid.js';
import type { QueueDescription } from './bursts.js';
import { Channels } from './channels.js';
import { type NetvscArguments, readArguments } from './devargs.js';
import { Filters } from './filters.js';
import { hashTypes, hostOffloads, numaNode, offloadsOf, portInfo, USUAL_TYPES } from './info.js';
import { PortStatistics } from './statistics.js';

const { DIRECTED, ALL_MULTICAST, BROADCAST, PROMISCUOUS } = PACKET_FILTER;
/** RNDIS packet header, which tx_copybreak does not count. */
const HEADER_BYTES = 44;
/** How long stop() waits for packets that are on their way. */
const DRAIN_MS = 1000;
/** How long a reattach waits for received packets that show the receive buffer. */
const LOANS_MS = 1000;
/** Fewest sections of either buffer that may be asked for (facts/linux-guest.md 5.1). */
const MIN_SECTIONS = 10;

interface Rss {
  readonly types: number;
  readonly key: Uint8Array;
  readonly table: readonly number[];
}

export class NetvscPort implements PortDriver {
  mac = '';
  onEvent: ((event: PortEvent) => void) | undefined;
  readonly #context: DriverContext;
  readonly #name: string;
  readonly #arguments: NetvscArguments;
  readonly #socket: number;
  readonly #device: NetvscDevice;
  readonly #channels: Channels;
  readonly #filters: Filters;
  readonly #statistics: PortStatistics;
  #config: FullConfig | undefined;
  readonly #rx: (RxQueueSetup | undefined)[] = [];
  readonly #tx: (TxQueueSetup | undefined)[] = [];
  #started = false;
  #closed = false;
  /** Channels that the host was asked for, and that the configuration uses. */
  #asked = 1;
  #queues = 1;
  #rss: Rss = { types: 0, key: MICROSOFT_KEY, table: [] };
  #receive: ReceiveFilter = { promiscuous: false, allMulticast: false };
  #macs: readonly string[] = [];
  #groups: readonly string[] = [];
  #vlans: readonly number[] = [];
  /** The host delivers what is sent to `mac`. */
  #hostHasMac = true;

  /** Attaches to a device. Throws PortError; nothing is held then. */
  static async open(context: DriverContext, name: string, device: VmbusDevice, args: Devargs): Promise<NetvscPort> {
    const port = new NetvscPort(
      context,
      name,
      device,
      readArguments(args, (line) => context.log(`${name}: ${line}`)),
    );
    try {
      await port.#work(port.#device.attach({ open: false }));
      port.mac = port.#found.mac;
      return port;
    } catch (error) {
      await port.close();
      throw error;
    }
  }

  private constructor(context: DriverContext, name: string, device: VmbusDevice, args: NetvscArguments) {
    this.#context = context;
    this.#name = name;
    this.#arguments = args;
    this.#socket = args.numaAware ? numaNode(device.location) : -1;
    this.#channels = new Channels(context, name);
    this.#filters = new Filters(context.arena, name);
    const copyLimit = args.txCopybreak === 0 ? 0 : args.txCopybreak + HEADER_BYTES;
    this.#device = new NetvscDevice({
      ...{ device, datapath: context.datapath, packetMemory: context.packetMemory },
      pools: { small: 0, large: 0, chains: true },
      options: {
        copyLimit,
        offloads: hostOffloads(0, 0),
        ...(args.latency !== undefined && { latency: args.latency }),
      },
      sharing: this.#channels,
      onEvent: (event) => this.#event(event),
    });
    this.#channels.use(this.#device);
    this.#statistics = new PortStatistics(
      context.arena,
      MAX_QUEUES,
      (queue) => this.#channels.port(queue),
      (queue) => this.#device.queueTotals(queue),
      () => this.#device.stats(),
    );
  }

  get mtu(): number {
    return this.#found.mtu;
  }

  info(): PortInfo {
    return portInfo(this.#name, this.#found, this.#socket);
  }

  async configure(config: FullConfig): Promise<void> {
    const { rxQueues, txQueues, rxOffloads, txOffloads } = config;
    const offloadsBefore = this.#config ? hostOffloads(this.#config.rxOffloads, this.#config.txOffloads) : 0;
    const queues = Math.max(rxQueues, txQueues);
    const rss = this.#newRss(config);
    await this.#work(this.#device.setOffloads(hostOffloads(rxOffloads, txOffloads)));
    try {
      const settings = this.#settings(rss, rxQueues, queues);
      // Channels that are there already are used, and left alone, without a reattach (facts/linux-guest.md 10.1 D6).
      if (queues > this.#asked) await this.#reattach({ queues, rss: settings });
      else await this.#work(this.#device.setRss(settings));
      this.#device.useQueues(queues);
      this.#queues = queues;
    } catch (error) {
      await this.#work(this.#device.setOffloads(offloadsBefore)).catch(() => {});
      throw error;
    }
    const granted = this.#found.queues;
    if (granted < queues) {
      const share = `tx queues from ${granted} on share channels, rx queues from ${granted} on get nothing`;
      this.#log(`asked for ${queues} channels, the host gave ${granted}: ${share}`);
    }
    if (granted > 1 && rss.types !== 0 && !this.#found.receiveScaling)
      this.#log('the host refused receive-side scaling: everything comes on rx queue 0');
    this.#config = config;
    this.#rss = { ...rss, table: rss.table.map((queue) => queue % Math.min(rxQueues || 1, granted)) };
    this.#channels.configure(config, granted);
    this.#rx.length = 0;
    this.#tx.length = 0;
  }

  channel(queue: number): number {
    return queue % this.#found.queues;
  }

  useLocks(rx: readonly number[], tx: readonly number[]): void {
    this.#channels.useLocks(rx, tx);
  }

  setupRx(queue: number, setup: RxQueueSetup): void {
    this.#channels.setupRx(queue, setup);
    this.#rx[queue] = setup;
  }

  setupTx(queue: number, setup: TxQueueSetup): void {
    this.#tx[queue] = setup;
  }

  async start(): Promise<void> {
    const { rxOffloads } = this.#config!;
    const chains = takesChains(rxOffloads);
    for (let queue = 0; queue < this.#found.queues; queue++) {
      const memory = this.#device.queue(queue)!;
      memory.set('rxPool', this.#rx[queue]?.pool.address ?? 0);
      memory.set('rxLargePool', chains ? (this.#rx[queue]?.largePool?.address ?? 0) : 0);
      memory.set('rxChains', chains ? 1 : 0);
      if (this.#arguments.rxExternal) this.#lend(memory);
      memory.limitSends(this.#tx[queue]?.descriptors ?? 1);
    }
    await this.#applyRss();
    this.#started = true;
    this.#channels.started = true;
  }

  async drain(): Promise<void> {
    if (this.#device.state !== 'running') return;
    await this.#work(this.#device.setPacketFilter(0)).catch((error: Error) => this.#log(error.message));
    await this.#channels.drained(DRAIN_MS);
  }

  async stop(): Promise<void> {
    this.#started = false;
    this.#channels.started = false;
    this.#channels.wakeAll();
    await this.#work(this.#device.setPacketFilter(0)).catch((error: Error) => this.#log(error.message));
    await this.#channels.drained(DRAIN_MS);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#channels.run(this.#device.detach());
    this.#channels.release();
    this.#filters.release();
  }

  rxQueue(queue: number): QueueDescription {
    return this.#description(queue);
  }

  txQueue(queue: number): QueueDescription {
    return this.#description(queue);
  }

  link(): LinkStatus {
    const { linkUp, linkSpeedBps } = this.#found;
    return { up: linkUp, speedMbps: Math.round(linkSpeedBps / 1e6), fullDuplex: true, autonegotiated: false };
  }

  stats(): BasicStats {
    return this.#statistics.basic();
  }
  queueStats(queue: number): QueueStats {
    return this.#statistics.queue(queue);
  }
  xstats(): [name: string, value: number][] {
    return this.#statistics.extended(this.#config?.rxQueues ?? 0, this.#config?.txQueues ?? 0);
  }
  resetStats(): void {
    this.#statistics.reset();
  }

  async setMtu(mtu: number): Promise<void> {
    const before = this.mtu;
    if (this.#device.setMtu(mtu)) return;
    await this.#reattach({ mtu });
    const got = this.#found.mtu;
    if (got === mtu) return;
    await this.#reattach({ mtu: before });
    throw new PortError('EINVAL', this.#name, `MTU: the host refused ${mtu}, it gave ${got}`);
  }

  rings(): RingSizes {
    const { receiveSections: rx, sendSections: tx, maxReceiveSections: maxRx, maxSendSections: maxTx } = this.#found;
    return { rx, tx, minRx: Math.min(MIN_SECTIONS, rx), maxRx, minTx: Math.min(MIN_SECTIONS, tx), maxTx };
  }

  /** Asks for as much as so many sections of the present size take; the host divides it as it likes. */
  async setRings(sizes: { readonly rx?: number; readonly tx?: number }): Promise<void> {
    const { receiveSections, sendSections, receiveSectionBytes, sendSectionBytes } = this.#found;
    const { rx = receiveSections, tx = sendSections } = sizes;
    const change: NetvscChange = {
      ...(rx !== receiveSections && { receiveBufferBytes: rx * receiveSectionBytes }),
      ...(tx !== sendSections && { sendBufferBytes: (tx + controlSections(sendSectionBytes)) * sendSectionBytes }),
    };
    if (Object.keys(change).length > 0) await this.#reattach(change);
  }

  transmitTable(): readonly number[] {
    return this.#device.transmitTable();
  }

  offloads(): PortOffloads {
    return offloadsOf(this.#found.offloads);
  }

  async setOffloads(rxOffloads: number, txOffloads: number): Promise<void> {
    const before = this.#config!;
    const bits = hostOffloads(rxOffloads, txOffloads);
    const bitsBefore = hostOffloads(before.rxOffloads, before.txOffloads);
    this.#config = { ...before, rxOffloads, txOffloads };
    try {
      // Coalesced packets may come from the moment on that the host is asked.
      if (this.#started && takesChains(rxOffloads)) await this.#channels.setChains(this.#rx);
      if (bits !== bitsBefore) await this.#work(this.#device.setOffloads(bits));
      if (this.#started) await this.#applyFilter();
    } catch (error) {
      this.#config = before;
      if (this.#device.state === 'running') await this.#work(this.#device.setOffloads(bitsBefore)).catch(() => {});
      throw error;
    }
  }

  async setFilter(filter: ReceiveFilter): Promise<void> {
    const before = this.#receive;
    this.#receive = filter;
    await this.#applyFilter().catch((error) => {
      this.#receive = before;
      throw error;
    });
  }

  async setMac(mac: string): Promise<void> {
    const had = this.#hostHasMac;
    const taken = await this.#work(this.#device.setMacAddress(mac));
    const before = this.mac;
    this.#hostHasMac = taken || mac === this.#found.mac;
    this.mac = mac;
    await this.#changed(() => {
      this.mac = before;
      this.#hostHasMac = had;
    });
  }

  async setMacs(macs: readonly string[]): Promise<void> {
    const before = this.#macs;
    this.#macs = macs;
    await this.#changed(() => {
      this.#macs = before;
    });
  }

  async setGroups(macs: readonly string[]): Promise<void> {
    const before = this.#groups;
    this.#groups = macs;
    await this.#changed(() => {
      this.#groups = before;
    });
  }

  async setVlans(ids: readonly number[]): Promise<void> {
    const before = this.#vlans;
    this.#vlans = ids;
    await this.#changed(() => {
      this.#vlans = before;
    });
  }

  rss(): Rss {
    return this.#rss;
  }

  async setRss(change: Partial<Rss>): Promise<void> {
    const { rxQueues, txQueues } = this.#config!;
    const rss = { ...this.#rss, ...change };
    const wrong = rss.table.find((queue) => queue >= this.#found.queues);
    if (wrong !== undefined) {
      const problem = `redirection table: rx queue ${wrong}: the host gave ${this.#found.queues} channels`;
      throw new PortError('EINVAL', this.#name, problem);
    }
    await this.#work(this.#device.setRss(this.#settings(rss, rxQueues, Math.max(rxQueues, txQueues))));
    this.#rss = rss;
    await this.#applyRss();
  }

  rxDescriptorStatus(queue: number, offset: number): DescriptorStatus {
    return offset < this.rxQueueCount(queue) ? 'DONE' : 'AVAILABLE';
  }

  /** Descriptors from the next one on: those that could take a packet, then those in flight. */
  txDescriptorStatus(queue: number, offset: number): DescriptorStatus {
    const memory = this.#device.queue(this.channel(queue));
    if (memory === undefined) return 'UNAVAILABLE';
    return offset < memory.get('freeSlotCount') ? 'DONE' : 'FULL';
  }

  rxQueueCount(queue: number): number {
    return this.#channels.waiting(queue);
  }

  burstMode(): string {
    return 'WebAssembly';
  }

  tick(nowMs: number): void {
    this.#channels.turn(nowMs);
  }

  /** Like that of the host's: what attach found. */
  get #found(): NetvscInfo {
    return this.#device.info!;
  }

  #description(queue: number): QueueDescription {
    return {
      port: this.#channels.port(queue),
      ports: this.#channels.port(0),
      rxQueues: this.#config?.rxQueues ?? 0,
    };
  }

  /** Waits for a request to the host; its failure is a PortError. */
  async #work<T>(work: Promise<T>): Promise<T> {
    try {
      return await this.#channels.run(work);
    } catch (cause) {
      // A reattach that failed and could not go back either leaves nothing to work with.
      if (this.#device.state === 'failed') this.onEvent?.({ type: 'removed', reason: this.#device.failure! });
      throw new PortError('EIO', this.#name, (cause as Error).message, { cause });
    }
  }

  /** Frames that are longer than rx_copybreak are not copied; at most half of the host's sections may be out (facts/dpdk.md 2.11, 5). */
  #lend(memory: QueueMemory): void {
    const { receiveSections, queues } = this.#found;
    const tagged = this.#config!.rxOffloads & RX_OFFLOAD.VLAN_STRIP ? 0 : PACKET_FLAG.VLAN;
    memory.lend(this.#arguments.rxCopybreak + 1, Math.floor(receiveSections / 2 / queues), tagged);
  }

  /** The old opening is in force again when this fails. */
  async #reattach(change: NetvscChange): Promise<void> {
    await this.#channels.until(() => this.#channels.lent() === 0, LOANS_MS);
    const lent = this.#channels.lent();
    if (lent > 0) {
      const problem = `${lent} ranges of the receive buffer are still shown by received mbufs: free those first`;
      throw new PortError('EBUSY', this.#name, problem);
    }
    try {
      const { queues = this.#queues } = change;
      await this.#work(this.#device.reattach({ ...change, queues }));
      this.#asked = queues;
    } finally {
      // A new opening knows nothing of the address that the last one had.
      if (this.#device.state === 'running' && this.mac !== this.#found.mac)
        this.#hostHasMac = await this.#work(this.#device.setMacAddress(this.mac));
    }
  }

  #newRss(config: FullConfig): Rss {
    const { types, key = this.#rss.key } = config.rss;
    const entries = this.info().rssTableEntries;
    return { types, key, table: Array.from({ length: entries }, (_, i) => i % (config.rxQueues || 1)) };
  }

  /** For the host; without hash types, or with channels that only send, everything comes on queue 0. */
  #settings({ types, key, table }: Rss, rxQueues: number, queues: number): RssSettings {
    const bits = hashTypes(types);
    return bits === 0 || rxQueues < 2 || queues < 2 ? { off: true } : { key, table, hashTypes: bits };
  }

  async #applyRss(): Promise<void> {
    const types = hashTypes(this.#rss.types || USUAL_TYPES);
    await this.#channels.setHash(this.#rss.key, types);
  }

  /** After a change of addresses or lists. `undo` puts back what was. */
  async #changed(undo: () => void): Promise<void> {
    if (!this.#started) return;
    await this.#applyFilter().catch((error) => {
      undo();
      throw error;
    });
  }

  async #applyFilter(): Promise<void> {
    const { promiscuous, allMulticast } = this.#receive;
    const { rxOffloads = 0, packetTypes = true } = this.#config ?? {};
    let options = packetTypes ? PORT_OPTION.PACKET_TYPE : 0;
    if (rxOffloads & RX_OFFLOAD.RSS_HASH) options |= PORT_OPTION.HASH;
    if (!(rxOffloads & RX_OFFLOAD.VLAN_STRIP)) options |= PORT_OPTION.KEEP_TAG;
    if (rxOffloads & RX_OFFLOAD.VLAN_FILTER) options |= PORT_OPTION.VLAN_FILTER;
    // Hosts deliver more than they are asked for (facts/hyper-v-host.md 4.4), and know no lists.
    if (!promiscuous) options |= PORT_OPTION.MAC_FILTER;
    if (!promiscuous && !allMulticast) options |= PORT_OPTION.GROUP_FILTER;
    const everything = promiscuous || this.#macs.length > 0 || !this.#hostHasMac;
    const groups = allMulticast || this.#groups.length > 0 ? ALL_MULTICAST : 0;
    // First, since it can be refused.
    await this.#work(this.#device.setPacketFilter(everything ? PROMISCUOUS : DIRECTED | BROADCAST | groups));
    const lists = { macs: [this.mac, ...this.#macs], groups: this.#groups, vlans: this.#vlans };
    await this.#channels.setFilter(this.#filters.write(lists), options);
  }

  #event(event: NetvscEvent): void {
    if (event.type === 'link' || event.type === 'speed') this.onEvent?.({ type: 'link', link: this.link() });
    else if (event.type === 'send-table') this.onEvent?.({ type: 'transmit-table' });
    else if (event.type === 'offloads') this.onEvent?.({ type: 'offloads' });
    else if (event.type === 'failed') this.onEvent?.({ type: 'removed', reason: event.reason });
    else if (event.type === 'missing-queues') {
      this.#log(`${event.opened} of ${event.granted} subchannels that the host granted are there: ${event.reason}`);
    } else if (event.type === 'send-timeout') {
      const { queue, outstanding, ms } = event;
      this.#log(`tx channel ${queue}: the host has completed none of ${outstanding} sends for ${ms} ms`);
    }
  }

  #log(line: string): void {
    this.#context.log(`${this.#name}: ${line}`);
  }
}

/** Packets may be longer than a buffer of the pool. */
const takesChains = (rxOffloads: number): boolean => (rxOffloads & (RX_OFFLOAD.SCATTER | RX_OFFLOAD.TCP_LRO)) !== 0;
