// One opening of the channel: everything that is made at attach and gone after detach.
import type { Datapath } from '../datapath/datapath.js';
import { OFFLOAD } from '../memory/layout.js';
import type { OpenChannel, Subchannel, VmbusDevice } from '../vmbus/device.js';
import { ControlPath, controlSections } from './control.js';
import { HostMessages } from './indications.js';
import {
  configure,
  connectReceiveBuffer,
  connectSendBuffer,
  negotiateVersion,
  RECEIVE_BUFFER_ID,
  requestSubchannels,
  revokeReceiveBuffer,
  revokeSendBuffer,
} from './nvsp.js';
import { grantOffloads, offloadParameters } from './offloads.js';
import { checkOptions } from './options.js';
import { QueueMemory } from './queue.js';
import { hex, NetvscError } from './requests.js';
import { Rndis } from './rndis.js';
import { MAX_QUEUES, type RssInForce, type RssSettings, rssInForce, rssSteps } from './scaling.js';
import { divideSendSections, mostReceiveSections, sendSectionsIn } from './sections.js';
import {
  type DriverCounters,
  MAX_SEND_BUFFER_BYTES,
  MIN_MTU,
  maxMtu,
  type NetvscEvent,
  type NetvscInfo,
  type NetvscOptions,
  type NetvscSetup,
  type NetvscSharing,
} from './types.js';
import { Waiters } from './waiters.js';
import { SEND_TIMEOUT_MS, SendWatchdog } from './watchdog.js';

const DEFAULT_MTU = 1500;
const ETHERNET_HEADER_BYTES = 14;
const MIN_SECTIONS = 10;
const DEFAULT_TIMEOUT_MS = 5000;
/** How long the host may take to see that the buffers are revoked before the channel is closed under it. */
const LINGER_MS = 200;
/** Ring bytes of the last message of all, which a host need not read: descriptor, 40 bytes of NVSP, footer. */
const LAST_REVOKE_BYTES = 64;

export class Session {
  /** By number; 0 is the primary channel, the only one that carries control messages. */
  readonly queues: readonly QueueMemory[];
  readonly control: ControlPath;
  readonly #where: string;
  readonly #device: VmbusDevice;
  readonly #datapath: Datapath;
  readonly #options: NetvscOptions;
  readonly #takesCoalesced: boolean;
  readonly #exclusive: NetvscSharing['exclusive'];
  readonly #opened: OpenChannel;
  readonly #rndis: Rndis;
  readonly #host: HostMessages;
  readonly #timeoutMs: number;
  readonly #waiters = new Waiters();
  readonly #counters: DriverCounters;
  readonly #emit: (event: NetvscEvent) => void;
  readonly #watchdog: SendWatchdog;
  /** Queues as they are added. */
  readonly #queues: QueueMemory[] = [];
  /** Tells the host, by queue. */
  readonly #signals: (() => void)[] = [];
  #tableEntries = 0;
  #nvspVersion = 0;
  #rss: RssInForce | undefined;
  #receiveConnected = false;
  #sendConnected = false;
  #initialized = false;
  #aborted = false;

  /** Opens the channel. Throws VmbusError; nothing is held then. */
  constructor(
    where: string,
    setup: NetvscSetup,
    options: NetvscOptions,
    counters: DriverCounters,
    emit: (event: NetvscEvent) => void,
  ) {
    const { device, datapath, pools, packetMemory } = setup;
    this.#where = where;
    this.#device = device;
    this.#datapath = datapath;
    this.#options = options;
    this.#takesCoalesced = pools.large !== 0 || pools.chains === true;
    this.#exclusive = setup.sharing?.exclusive ?? alone;
    this.#timeoutMs = options.requestTimeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#counters = counters;
    this.#emit = emit;
    this.#watchdog = new SendWatchdog(options.sendTimeoutMs ?? SEND_TIMEOUT_MS);
    this.queues = this.#queues;
    checkOptions(where, options);
    this.#opened = device.open(options.receiveBufferBytes);
    try {
      const own = { memory: device.memory, packetMemory, pools };
      this.#queues.push(new QueueMemory(device.arena, datapath, this.#opened, own));
      this.#signals.push(() => device.signal());
    } catch (error) {
      device.close();
      throw error;
    }
    this.control = new ControlPath(
      where,
      this.#timeoutMs,
      this.#primary.channel,
      (message) => device.arena.u8.set(message, this.#opened.sendBuffer.address),
      () => this.#signal(0),
      (what) => this.#exclusive(0, what),
    );
    this.#rndis = new Rndis(where, this.control);
    this.#host = new HostMessages(this.#queues, this.control, this.#rndis, counters, emit);
  }

  /** Every step up to, and without, the packet filter. */
  async attach(rssSettings: RssSettings = {}): Promise<NetvscInfo> {
    const { control } = this;
    const queue = this.#primary;
    const rndis = this.#rndis;
    const nvspVersion = await negotiateVersion(control, this.#where, this.#options.nvspVersions);
    const nvspBytes = nvspVersion >= 0x60001 ? 40 : 28;
    control.setNvspBytes(nvspBytes);
    queue.set('nvspBytes', nvspBytes);
    const limit = maxMtu(nvspVersion);
    const wantedMtu = this.#options.mtu ?? DEFAULT_MTU;
    if (wantedMtu > limit) {
      throw new NetvscError(
        this.#where,
        'MTU',
        `expected at most ${limit} with NVSP ${hex(nvspVersion)}, got ${wantedMtu}`,
      );
    }
    const wantRsc = this.#takesCoalesced && this.#options.rsc !== false;
    const ndisVersion = configure(control, nvspVersion, wantedMtu + ETHERNET_HEADER_BYTES, wantRsc);

    const receive = await connectReceiveBuffer(control, this.#where, this.#opened.receiveBuffer);
    this.#receiveConnected = true;
    queue.set('receiveBuffer', this.#opened.receiveBuffer.address);
    queue.set('receiveBytes', receive.sections * receive.sectionBytes);
    queue.set('receiveSectionBytes', receive.sectionBytes);
    queue.set('receiveBufferId', RECEIVE_BUFFER_ID);

    const send = await connectSendBuffer(control, this.#where, this.#opened.sendBuffer);
    this.#sendConnected = true;
    const sendSections = this.#shareSections(send.sectionBytes);

    const init = await rndis.initialize();
    this.#initialized = true;
    queue.set('maxPacketsPerMessage', init.maxPackets);
    queue.set('packetAlignment', init.alignment);
    const copyMost = Math.max(0, Math.min(send.sectionBytes - init.alignment, init.maxTransferBytes));
    queue.set('sectionLimit', copyMost);
    queue.set('copyLimit', Math.min(copyMost, this.#options.copyLimit ?? copyMost));

    const hostMtu = await rndis.maxFrameBytes();
    const mtu = hostMtu !== undefined && hostMtu >= MIN_MTU ? Math.min(wantedMtu, hostMtu) : wantedMtu;
    this.setMtu(mtu);
    const mac = await rndis.macAddress();
    const friendlyName = await rndis.friendlyName();

    const capabilities = await rndis.offloadCapabilities(nvspVersion);
    const limits = { nvspVersion, rsc: wantRsc, maxTransferBytes: init.maxTransferBytes };
    const grant = grantOffloads(this.#where, capabilities, limits);
    this.#nvspVersion = nvspVersion;
    const offloads = grant.bits & (this.#options.offloads ?? ~0);
    await this.setOffloads(offloads);
    queue.set('lsoMax4', grant.lsoMax4);
    queue.set('lsoMax6', grant.lsoMax6);

    const linkUp = await rndis.linkUp();
    const linkSpeedBps = await rndis.linkSpeedBps();
    const rss = nvspVersion >= 0x50000 ? await rndis.rssCapabilities() : undefined;
    if (rss !== undefined) await this.#openSubchannels(rss.receiveQueues);
    this.divideSections();
    if (this.#options.latency !== undefined) this.#device.setLatency(this.#options.latency);
    this.#tableEntries = rss?.tableEntries ?? 0;
    const receiveScaling = this.#queues.length > 1 && (await this.setRss(rssSettings));
    this.#check('attach');
    const info: NetvscInfo = {
      mac,
      mtu,
      attachedMtu: mtu,
      linkUp,
      linkSpeedBps,
      friendlyName,
      nvspVersion,
      ndisVersion,
      offered: grant.bits,
      offloads,
      lsoMax4: grant.bits & OFFLOAD.LSO4 ? grant.lsoMax4 : 0,
      lsoMax6: grant.bits & OFFLOAD.LSO6 ? grant.lsoMax6 : 0,
      maxPacketsPerMessage: init.maxPackets,
      packetAlignment: init.alignment,
      maxTransferBytes: init.maxTransferBytes,
      receiveSections: receive.sections,
      receiveSectionBytes: receive.sectionBytes,
      sendSections,
      sendSectionBytes: send.sectionBytes,
      maxReceiveSections: mostReceiveSections(this.#opened, receive, nvspVersion, this.#device.sizesReceiveBuffer),
      maxSendSections:
        sendSectionsIn(this.#opened, MAX_SEND_BUFFER_BYTES, send.sectionBytes) - controlSections(send.sectionBytes),
      queues: this.#queues.length,
      receiveScaling,
      rss,
    };
    this.#host.apply(info);
    return info;
  }

  /** Sends no longer frames than this from now on. Hosts may go on to deliver what they were told at attach. */
  setMtu(mtu: number): void {
    for (const queue of this.#queues) {
      queue.set('maxFrameBytes', mtu + ETHERNET_HEADER_BYTES);
      queue.set('softwareMtu', mtu);
    }
  }

  async setPacketFilter(bits: number): Promise<void> {
    await this.#rndis.setPacketFilter(bits);
    this.#host.filter = bits;
  }

  /** Switches these OFFLOAD bits on, and all others off. Those in force stay when the host refuses. */
  async setOffloads(bits: number): Promise<void> {
    const before = this.#host.wantedOffloads;
    this.#host.wantedOffloads = bits;
    try {
      await this.#rndis.setOffloadParameters(offloadParameters(bits, this.#nvspVersion));
    } catch (error) {
      this.#host.wantedOffloads = before;
      throw error;
    }
    this.#host.useOffloads();
  }

  /** Asks the host for another address. False: it refused. */
  setMacAddress(mac: string): Promise<boolean> {
    return this.#rndis.setMacAddress(mac);
  }

  /** Has received packets spread as `settings` say. False: the host refused; they come on queue 0, or as before. */
  async setRss(settings: RssSettings): Promise<boolean> {
    if (settings.off) {
      const off = rssSteps(this.#rss ?? rssInForce({}, this.#queues.length, this.#tableEntries)).slice(0, 1);
      if (!(await this.#rndis.setReceiveScaling(off))) return false;
      this.#rss = undefined;
      return true;
    }
    const rss = rssInForce(settings, this.#queues.length, this.#tableEntries);
    const before = this.#rss;
    this.#rss = undefined; // the first step switches it off
    let taken = false;
    try {
      taken = await this.#rndis.setReceiveScaling(rssSteps(rss));
      if (taken) this.#rss = rss;
    } finally {
      // Also when there was no answer: what is in force is what was, or nothing (facts/linux-guest.md 10.1 D4).
      if (!taken && before && (await this.#rndis.setReceiveScaling(rssSteps(before)).catch(() => false)))
        this.#rss = before;
    }
    return taken;
  }

  /** What the host was told; undefined while scaling is off. */
  get rss(): RssInForce | undefined {
    return this.#rss;
  }

  /** The host's table for the choice of transmit queues. */
  get sendTable(): readonly number[] | undefined {
    return this.#host.sendTable;
  }

  poll(handles: number, max: number, number: number): number {
    const queue = this.#queues[number];
    if (queue === undefined) return 0;
    const received = this.#datapath.guestPoll(queue.address, handles, max);
    this.attend(number);
    return received;
  }

  /** What a burst leaves to control code: messages of the host, completions and requests without room, signals. */
  attend(number: number): void {
    const queue = this.#queues[number];
    if (queue === undefined) return;
    if (queue.channel.hasEvents) {
      queue.channel.drainEvents(number === 0 ? this.#host.onEvent : this.#stray);
      if (number === 0) this.#host.settle();
    }
    if (number === 0 && this.control.busy) this.control.pump();
    if (queue.owesCompletions) this.#datapath.guestFlush(queue.address);
    if (queue.channel.needsSignal) this.#signal(number);
    this.#waiters.wake();
  }

  /** Something waits for attend(). */
  needsAttention(number: number): boolean {
    const queue = this.#queues[number];
    return (number === 0 && this.control.busy) || queue?.channel.hasEvents === true;
  }

  send(handles: number, count: number, number: number): number {
    const queue = this.#queues[number];
    if (queue === undefined) return 0;
    const taken = this.#datapath.guestSend(queue.address, handles, count);
    if (queue.channel.needsSignal) this.#signal(number);
    return taken;
  }

  tick(nowMs: number): void {
    this.control.tick(nowMs);
    this.#waiters.tick(nowMs);
    this.#watchdog.tick(nowMs, this.#queues, this.#stuck);
  }

  /** A queue's ring is corrupt: the host wrote something that no host writes. */
  broken(number: number): boolean {
    const queue = this.#queues[number];
    return queue?.channel.broken === true;
  }

  /** What is wrong with the ring. */
  fault(number: number): string {
    const error = this.#queues[number]!.channel.error;
    const where = number === 0 ? '' : ` of queue ${number}`;
    return `ring${where} corrupt: ${error?.name ?? 'NONE'} (${hex(error?.detail ?? 0)})`;
  }

  arm(): boolean {
    if (this.control.busy) return false;
    const queues = this.#queues;
    let quiet = true;
    for (let i = 0; i < queues.length && quiet; i++) quiet = !queues[i]!.backlog && !queues[i]!.channel.unmask();
    if (!quiet) this.disarm();
    return quiet;
  }

  disarm(): void {
    for (let i = 0; i < this.#queues.length; i++) this.#queues[i]!.channel.mask();
  }

  /** Sends of all queues whose completion has not come. */
  get outstanding(): number {
    return this.#queues.reduce((sum, queue) => sum + queue.outstanding, 0);
  }

  /** The orderly end: each step is bounded in time and none of them is fatal. */
  async stop(): Promise<void> {
    if (this.#initialized) {
      await this.setPacketFilter(0).catch(() => {});
      await this.#until(() => this.outstanding === 0 && !this.#queues.some(({ backlog }) => backlog));
      await this.#rndis.halt().catch(() => {});
    }
    if (this.#aborted) return;
    this.#revoke();
    // A host stops reading at the first revoke, so the second one may stay in the ring for good.
    await this.#until(() => !this.control.busy && this.#primary.unread <= LAST_REVOKE_BYTES, LINGER_MS);
  }

  /** Fails everything that waits, at once. */
  abort(what: string): void {
    this.#aborted = true;
    this.control.abort(what);
    this.#waiters.abort();
  }

  /** The opening is over: nobody waits for anything any more. */
  abandon(): void {
    if (!this.#aborted) this.#revoke(); // attach failed half-way, and the host still listens
    this.abort('the channel is closed');
  }

  /** Closes the channel and gives back all memory and every mbuf. */
  close(): void {
    this.abandon();
    this.#device.close();
    for (const queue of [...this.#queues].reverse()) queue.release();
  }

  get #primary(): QueueMemory {
    return this.#queues[0]!;
  }

  readonly #stuck = (queue: number, outstanding: number, ms: number): void => {
    this.#counters.sendTimeouts++;
    this.#emit({ type: 'send-timeout', queue, outstanding, ms });
  };

  /** A subchannel carries no control messages. */
  readonly #stray = (): void => {
    this.#counters.badHostMessages++;
  };

  /** As many as are wanted and the host can have; each is queue number its subchannel id. What the host granted and does not
   *  offer, or cannot be opened, is done without (facts/linux-guest.md 10.1 D16). */
  async #openSubchannels(hostQueues: number): Promise<void> {
    const step = 'NVSP subchannels';
    const wanted = Math.min(this.#options.queues ?? 1, hostQueues, MAX_QUEUES);
    if (wanted < 2) return;
    const granted = await requestSubchannels(this.control, this.#where, wanted - 1);
    if (granted === 0) return;
    const found: Subchannel[] = [];
    let failure: string | undefined;
    // The offers come after the answer, and their files one by one.
    const look = (): boolean => {
      try {
        for (let next = this.#device.openSubchannel(); next; next = this.#device.openSubchannel()) found.push(next);
      } catch (error) {
        failure = (error as Error).message;
      }
      return failure !== undefined || found.length >= granted;
    };
    await this.#waiters.untilTick(look, this.#timeoutMs);
    this.#check(step);
    found.sort((a, b) => a.subchannelId - b.subchannelId);
    const ids = found.map(({ subchannelId }) => subchannelId);
    const what = `expected 1 to ${granted} within ${this.#timeoutMs} ms, found ${ids.join(', ') || 'none'}`;
    if (ids.length > granted || ids.some((id, i) => id < 1 || id > granted || id === ids[i - 1])) {
      throw new NetvscError(this.#where, step, what);
    }
    failure ??= ids.length < granted ? what : undefined;
    for (const subchannel of found) {
      if (subchannel.subchannelId !== this.#queues.length) break; // behind a gap: no table can name it
      try {
        this.#queues.push(new QueueMemory(this.#device.arena, this.#datapath, subchannel, this.#primary));
      } catch (error) {
        failure = (error as Error).message;
        break;
      }
      this.#signals.push(() => subchannel.signal());
    }
    const opened = this.#queues.length - 1;
    this.#counters.missingQueues += granted - opened;
    if (opened < granted) this.#emit({ type: 'missing-queues', granted, opened, reason: failure ?? what });
  }

  /** Gives the control section(s) to control messages. Returns the number of the others. */
  #shareSections(sectionBytes: number): number {
    const queue = this.#primary;
    const { address } = this.#opened.sendBuffer;
    const wanted = this.#options.sendBufferBytes ?? MAX_SEND_BUFFER_BYTES;
    const used = Math.min(MAX_SEND_BUFFER_BYTES, Math.max(wanted, MIN_SECTIONS * sectionBytes));
    const sections = sendSectionsIn(this.#opened, used, sectionBytes);
    const forControl = controlSections(sectionBytes);
    if (sections <= forControl) {
      throw new NetvscError(
        this.#where,
        'NVSP send buffer',
        `expected more than ${forControl} sections in ${used} bytes, got sections of ${sectionBytes} bytes`,
      );
    }
    queue.set('sendBuffer', address);
    queue.set('sendSectionBytes', sectionBytes);
    queue.set('sendSections', sections);
    this.control.setSection(forControl * sectionBytes);
    return sections - forControl;
  }

  /** Divides the sections that are not control's among the first `queues`; the last of them takes the remainder. Nobody sends
   *  meanwhile; nothing is done while sends are in flight, whose sections are not to be had. */
  divideSections(queues = this.#queues.length): void {
    if (this.outstanding > 0) return;
    const sections = this.#primary.get('sendSections');
    const first = controlSections(this.#primary.get('sendSectionBytes'));
    divideSendSections(this.#queues, queues, first, sections);
  }

  #revoke(): void {
    if (this.#receiveConnected) revokeReceiveBuffer(this.control);
    if (this.#sendConnected) revokeSendBuffer(this.control);
    this.#receiveConnected = false;
    this.#sendConnected = false;
  }

  #check(step: string): void {
    if (this.#aborted) throw new NetvscError(this.#where, step, 'the channel is closed');
  }

  #signal(number: number): void {
    if (this.#queues[number]!.channel.takeSignal()) this.#signals[number]!();
  }

  /** Resolves true once `done` holds, false at the deadline or when everything is aborted. */
  #until(done: () => boolean, timeoutMs = this.#timeoutMs): Promise<boolean> {
    if (this.#aborted) return Promise.resolve(false);
    return this.#waiters.until(done, timeoutMs);
  }
}

/** All queues are polled by the thread that controls them. */
const alone: NetvscSharing['exclusive'] = (_queue, what) => {
  what();
  return true;
};
