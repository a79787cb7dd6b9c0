// One opening of the channel: everything that is made at attach and gone after detach.
import type { Datapath } from '../datapath/datapath.js';
import { OFFLOAD } from '../memory/layout.js';
import type { OpenChannel, VmbusDevice } from '../vmbus/device.js';
import { ControlPath } from './control.js';
import { HostMessages } from './indications.js';
import {
  configure,
  connectReceiveBuffer,
  connectSendBuffer,
  negotiateVersion,
  RECEIVE_BUFFER_ID,
  revokeReceiveBuffer,
  revokeSendBuffer,
} from './nvsp.js';
import { grantOffloads, offloadParameters } from './offloads.js';
import { QueueMemory } from './queue.js';
import { hex, NetvscError } from './requests.js';
import { Rndis } from './rndis.js';
import type { DriverCounters, NetvscEvent, NetvscInfo, NetvscOptions, NetvscSetup } from './types.js';

const MIN_MTU = 68;
const MAX_MTU = 65_521;
const MAX_MTU_NVSP1 = 1500;
const DEFAULT_MTU = 1500;
const ETHERNET_HEADER_BYTES = 14;
/** Longest control message: set of RSS parameters with key and table is 592 bytes (facts/dpdk.md 2.3). */
const CONTROL_BYTES = 1024;
const MIN_SECTIONS = 10;
const DEFAULT_TIMEOUT_MS = 5000;
/** How long the host may take to see that the buffers are revoked before the channel is closed under it. */
const LINGER_MS = 200;
/** Ring bytes of the last message of all, which a host need not read: descriptor, 40 bytes of NVSP, footer. */
const LAST_REVOKE_BYTES = 64;

interface Waiter {
  readonly done: () => boolean;
  readonly resolve: (done: boolean) => void;
  readonly timeoutMs: number;
  deadline: number; // NaN until the first tick
}

export class Session {
  readonly queue: QueueMemory;
  readonly control: ControlPath;
  readonly #where: string;
  readonly #device: VmbusDevice;
  readonly #datapath: Datapath;
  readonly #options: NetvscOptions;
  readonly #largePool: boolean;
  readonly #opened: OpenChannel;
  readonly #rndis: Rndis;
  readonly #host: HostMessages;
  readonly #timeoutMs: number;
  readonly #waiters: Waiter[] = [];
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
    this.#largePool = pools.large !== 0;
    this.#timeoutMs = options.requestTimeoutMs ?? DEFAULT_TIMEOUT_MS;
    checkOptions(where, options);
    this.#opened = device.open();
    try {
      this.queue = new QueueMemory(device.arena, datapath, this.#opened, device.memory, packetMemory, pools);
    } catch (error) {
      device.close();
      throw error;
    }
    this.control = new ControlPath(
      where,
      this.#timeoutMs,
      this.queue.channel,
      (message) => device.arena.u8.set(message, this.#opened.sendBuffer.address),
      () => this.#signal(),
    );
    this.#rndis = new Rndis(where, this.control);
    this.#host = new HostMessages(this.queue, this.control, this.#rndis, counters, emit);
  }

  /** Every step up to, and without, the packet filter. */
  async attach(): Promise<NetvscInfo> {
    const { queue, control } = this;
    const rndis = this.#rndis;
    const nvspVersion = await negotiateVersion(control, this.#where, this.#options.nvspVersions);
    const nvspBytes = nvspVersion >= 0x60001 ? 40 : 28;
    control.setNvspBytes(nvspBytes);
    queue.set('nvspBytes', nvspBytes);
    const limit = nvspVersion >= 0x30002 ? MAX_MTU : MAX_MTU_NVSP1;
    const wantedMtu = this.#options.mtu ?? DEFAULT_MTU;
    if (wantedMtu > limit) {
      throw new NetvscError(
        this.#where,
        'MTU',
        `expected at most ${limit} with NVSP ${hex(nvspVersion)}, got ${wantedMtu}`,
      );
    }
    const wantRsc = this.#largePool && this.#options.rsc !== false;
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
    queue.set('copyLimit', Math.min(copyMost, this.#options.copyLimit ?? copyMost));

    const hostMtu = await rndis.maxFrameBytes();
    const mtu = hostMtu !== undefined && hostMtu >= MIN_MTU ? Math.min(wantedMtu, hostMtu) : wantedMtu;
    queue.set('maxFrameBytes', mtu + ETHERNET_HEADER_BYTES);
    queue.set('softwareMtu', mtu);
    const mac = await rndis.macAddress();
    const friendlyName = await rndis.friendlyName();

    const capabilities = await rndis.offloadCapabilities(nvspVersion);
    const limits = { nvspVersion, rsc: wantRsc, maxTransferBytes: init.maxTransferBytes };
    const grant = grantOffloads(this.#where, capabilities, limits);
    this.#host.wantedOffloads = grant.bits;
    await rndis.setOffloadParameters(offloadParameters(grant.bits, nvspVersion));
    queue.set('lsoMax4', grant.lsoMax4);
    queue.set('lsoMax6', grant.lsoMax6);

    const linkUp = await rndis.linkUp();
    const linkSpeedBps = await rndis.linkSpeedBps();
    const rss = nvspVersion >= 0x50000 ? await rndis.rssCapabilities() : undefined;
    this.#check('attach');
    const info: NetvscInfo = {
      mac,
      mtu,
      linkUp,
      linkSpeedBps,
      friendlyName,
      nvspVersion,
      ndisVersion,
      offloads: grant.bits,
      lsoMax4: grant.bits & OFFLOAD.LSO4 ? grant.lsoMax4 : 0,
      lsoMax6: grant.bits & OFFLOAD.LSO6 ? grant.lsoMax6 : 0,
      maxPacketsPerMessage: init.maxPackets,
      packetAlignment: init.alignment,
      maxTransferBytes: init.maxTransferBytes,
      receiveSections: receive.sections,
      receiveSectionBytes: receive.sectionBytes,
      sendSections,
      sendSectionBytes: send.sectionBytes,
      rss,
    };
    this.#host.apply(info);
    return info;
  }

  async setPacketFilter(bits: number): Promise<void> {
    await this.#rndis.setPacketFilter(bits);
    this.#host.filter = bits;
  }

  poll(handles: number, max: number): number {
    const { queue } = this;
    const received = this.#datapath.guestPoll(queue.address, handles, max);
    if (queue.get('eventUsed') !== 0) queue.channel.drainEvents(this.#host.onEvent);
    if (this.control.busy) this.control.pump();
    if (queue.get('completionCount') !== 0) this.#datapath.guestFlush(queue.address);
    if (queue.get('needSignal') !== 0) this.#signal();
    if (this.#waiters.length > 0) this.#wake();
    return received;
  }

  send(handles: number, count: number): number {
    const taken = this.#datapath.guestSend(this.queue.address, handles, count);
    if (this.queue.get('needSignal') !== 0) this.#signal();
    return taken;
  }

  tick(nowMs: number): void {
    this.control.tick(nowMs);
    if (this.#waiters.length > 0) this.#wake(nowMs);
  }

  /** The ring is corrupt: the host wrote something that no host writes. */
  get broken(): boolean {
    return this.queue.get('ringError') !== 0;
  }

  /** What is wrong with the ring. */
  fault(): string {
    const error = this.queue.channel.error;
    return `ring corrupt: ${error?.name ?? 'NONE'} (${hex(error?.detail ?? 0)})`;
  }

  arm(): boolean {
    if (this.queue.backlog || this.control.busy) return false;
    if (!this.queue.channel.unmask()) return true;
    this.queue.channel.mask();
    return false;
  }

  disarm(): void {
    this.queue.channel.mask();
  }

  /** The orderly end: each step is bounded in time and none of them is fatal. */
  async stop(): Promise<void> {
    if (this.#initialized) {
      await this.setPacketFilter(0).catch(() => {});
      await this.#until(() => this.queue.outstanding === 0 && !this.queue.backlog);
      await this.#rndis.halt().catch(() => {});
    }
    if (this.#aborted) return;
    this.#revoke();
    // A host stops reading at the first revoke, so the second one may stay in the ring for good.
    await this.#until(() => !this.control.busy && this.queue.unread <= LAST_REVOKE_BYTES, LINGER_MS);
  }

  /** Fails everything that waits, at once. */
  abort(what: string): void {
    this.#aborted = true;
    this.control.abort(what);
    for (const waiter of this.#waiters) waiter.resolve(false);
    this.#waiters.length = 0;
  }

  /** Closes the channel and gives back all memory and every mbuf. */
  close(): void {
    if (!this.#aborted) this.#revoke(); // attach failed half-way, and the host still listens
    this.abort('the channel is closed');
    this.#device.close();
    this.queue.release();
  }

  /** Gives the control section(s) to control messages and the others to the queue. Returns the number of these. */
  #shareSections(sectionBytes: number): number {
    const { queue } = this;
    const { address, bytes } = this.#opened.sendBuffer;
    const used = Math.min(bytes, Math.max(this.#options.sendBufferBytes ?? bytes, MIN_SECTIONS * sectionBytes));
    const sections = Math.floor(used / sectionBytes);
    const forControl = Math.ceil(CONTROL_BYTES / sectionBytes);
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
    queue.ownSections(forControl, sections - forControl);
    this.control.setSection(forControl * sectionBytes);
    return sections - forControl;
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

  #signal(): void {
    if (this.queue.channel.takeSignal()) this.#device.signal();
  }

  /** Resolves true once `done` holds, false at the deadline or when everything is aborted. */
  #until(done: () => boolean, timeoutMs = this.#timeoutMs): Promise<boolean> {
    if (this.#aborted) return Promise.resolve(false);
    if (done()) return Promise.resolve(true);
    return new Promise((resolve) => this.#waiters.push({ done, resolve, timeoutMs, deadline: Number.NaN }));
  }

  #wake(nowMs?: number): void {
    for (let i = this.#waiters.length - 1; i >= 0; i--) {
      const waiter = this.#waiters[i]!;
      if (nowMs !== undefined && Number.isNaN(waiter.deadline)) waiter.deadline = nowMs + waiter.timeoutMs;
      const done = waiter.done();
      if (!done && !(nowMs !== undefined && nowMs >= waiter.deadline)) continue;
      this.#waiters.splice(i, 1);
      waiter.resolve(done);
    }
  }
}

function checkOptions(where: string, options: NetvscOptions): void {
  const { mtu, requestTimeoutMs, copyLimit } = options;
  if (mtu !== undefined && !(Number.isInteger(mtu) && mtu >= MIN_MTU && mtu <= MAX_MTU)) {
    throw new NetvscError(where, 'options', `mtu: expected ${MIN_MTU}..${MAX_MTU}, got ${mtu}`);
  }
  if (requestTimeoutMs !== undefined && !(requestTimeoutMs > 0)) {
    throw new NetvscError(where, 'options', `requestTimeoutMs: expected more than 0, got ${requestTimeoutMs}`);
  }
  if (copyLimit !== undefined && !(Number.isInteger(copyLimit) && copyLimit >= 0)) {
    throw new NetvscError(where, 'options', `copyLimit: expected a number of bytes, got ${copyLimit}`);
  }
}
