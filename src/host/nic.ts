// One NIC: a port of the switch on one side, a guest's channels on the other. Whatever a guest does wrong, or goes wrong in
// serving it, ends the channel where it happened and nothing else.
import type { Datapath } from '../datapath/datapath.js';
import { EVENT_KIND, FRAME_ERROR, OFFLOAD } from '../memory/layout.js';
import type { VmbusOffer } from '../vmbus/device.js';
import { NDIS_HASH_FUNCTION_MASK } from '../wire/ndis.js';
import { NVSP_STATUS, nvspVersionName } from '../wire/nvsp.js';
import { RNDIS_STATUS } from '../wire/rndis.js';
import { Adapter } from './adapter.js';
import { checkRing, faultText, notInFlight } from './channel-faults.js';
import { ChannelMemory } from './channel-memory.js';
import { Coalescer } from './coalescer.js';
import { FrameWorkshop } from './frames.js';
import { GuestView } from './guest-view.js';
import { macText } from './identity.js';
import { Netvsp } from './netvsp.js';
import { DEFAULT_VLAN, type FrameSink, type SwitchPort, type VlanMode } from './ports.js';
import type { Profile } from './profiles.js';
import { RndisControl } from './rndis.js';
import { ReceiveSpread } from './spread.js';
import type { NicState } from './state.js';
import { type SubchannelService, serveSubchannel } from './subchannel-service.js';
import { type HostSubchannel, Subchannels } from './subchannels.js';

/** Frames of one poll, and polls of one step: other NICs wait no longer than that. */
const BURST = 64;
const MAX_POLLS = 4;
const ETHERNET_HEADER = 14;
/** Ring bytes of a completion with its NVSP payload, and of a control message's transfer-page packet. */
const CONTROL_ROOM = 256;
const EMPTY = new Uint8Array(0);
/** Largest coalesced packet, and how many of them a channel must have room for. */
const LARGE_BYTES = 65_536;
const LARGE_PACKETS = 2;

export interface NicOptions {
  readonly offer: VmbusOffer;
  readonly datapath: Datapath;
  readonly profile: Profile;
  /** Switch port number. */
  readonly port: number;
  readonly name: string;
  /** 6 bytes. */
  readonly mac: Uint8Array;
  readonly friendlyName?: string;
  readonly linkSpeedBps?: number;
  readonly vlan?: VlanMode;
  /** Where the guest's frames go. */
  readonly sink: FrameSink;
  /** Whether the guest may take this MAC address; default yes. */
  readonly mayUseMac?: (mac: Uint8Array) => boolean;
}

export class Nic implements SwitchPort {
  readonly number: number;
  readonly name: string;
  readonly kind = 'nic';
  macs: readonly Uint8Array[];
  vlan: VlanMode;
  /** Link as the guest is told it; frames pass only while it is up. */
  linkUp = true;
  readonly offer: VmbusOffer;
  readonly #datapath: Datapath;
  readonly #sink: FrameSink;
  readonly #adapter: Adapter;
  readonly #memory: ChannelMemory;
  readonly #netvsp: Netvsp;
  readonly #rndis: RndisControl;
  readonly #workshop: FrameWorkshop;
  readonly #coalescer: Coalescer | undefined;
  readonly #subchannels: Subchannels;
  readonly #guest: GuestView;
  readonly #spread: ReceiveSpread;
  readonly #service: SubchannelService;
  /** HOST_CHANNEL by channel number, 0 where the channel is dead. */
  #receivers: readonly number[] = [];
  /** What the receivers follow from. */
  #appliedRss: unknown;
  #appliedSubchannels = 0;
  /** Frames of unfinished business that this guest takes as they are: its offloads in force. */
  #abilities = 0;
  /** Suballocations that one packet may take. */
  #mostPieces = 1;
  /** Looking for openings costs no system call (memory backend): done at every turn, else at a tick or wake-up. */
  readonly #cheapOffer: boolean;
  #lookAtOffer = true;
  /** Which of its descriptors have something, when that is known. */
  #ready: ((fd: number) => boolean) | undefined;
  #opens = 0;
  #deaths = 0;
  #events = 0;

  constructor(options: NicOptions) {
    const { offer, datapath, profile } = options;
    this.number = options.port;
    this.name = options.name;
    this.vlan = options.vlan ?? DEFAULT_VLAN;
    this.offer = offer;
    this.#cheapOffer = offer.fds.length === 0;
    this.#datapath = datapath;
    this.#sink = options.sink;
    this.#adapter = new Adapter({
      profile,
      mac: options.mac,
      ...(options.friendlyName === undefined ? {} : { friendlyName: options.friendlyName }),
      ...(options.linkSpeedBps === undefined ? {} : { linkSpeedBps: options.linkSpeedBps }),
      onMac: (mac) => this.#useMac(mac, options.mayUseMac),
    });
    this.macs = [this.#adapter.permanentMac];
    this.#memory = new ChannelMemory(offer.arena, datapath, offer, options.port);
    const undo: (() => void)[] = [() => this.#memory.release()];
    try {
      this.#workshop = new FrameWorkshop(offer.arena, datapath, `${options.name} frame workshop`);
      undo.push(() => this.#workshop.release());
      if (profile.rsc) {
        const coalescer = new Coalescer(offer.arena, datapath, `${options.name} coalescer`);
        this.#coalescer = coalescer;
        undo.push(() => coalescer.release());
      }
      this.#subchannels = new Subchannels(offer.arena, datapath, offer, this.#memory);
      undo.push(() => this.#subchannels.release());
      this.#guest = new GuestView(offer.arena, datapath, offer, this.#memory, this.#subchannels);
      this.#spread = new ReceiveSpread(offer.arena, datapath);
    } catch (error) {
      for (const action of undo.reverse()) action();
      throw error;
    }
    const gpadls = { receive: offer.receiveBuffer.gpadl, send: offer.sendBuffer.gpadl };
    this.#netvsp = new Netvsp(this.#memory, profile, gpadls, this.#subchannels);
    this.#rndis = new RndisControl(this.#memory, this.#adapter);
    this.#service = {
      datapath,
      sink: this.#sink,
      guest: this.#guest,
      count: () => this.#events++,
    };
    this.#memory.reset();
    this.#adapter.reset();
  }

  /** Largest payload that the guest negotiated, in bytes. */
  get mtu(): number {
    return this.#netvsp.frameBytes - ETHERNET_HEADER;
  }

  /** NDIS packet filter of the guest; nothing without a guest in service. */
  get filter(): number {
    return this.#receiving ? this.#adapter.filter : 0;
  }

  get phase(): Netvsp['phase'] {
    return this.#netvsp.phase;
  }

  /** Sees whether a guest came or went. Done for all NICs before one of them forwards: a frame that is delivered to an
   *  opening that has ended would be written into the rings of the one that followed. */
  look(): void {
    if (!this.#lookAtOffer && !this.#cheapOffer) return;
    this.#lookAtOffer = false;
    try {
      const { opened, closed } = this.offer.poll(this.#ready);
      if (closed) this.#close();
      if (opened) this.#open();
    } catch (error) {
      this.#kill(error);
    }
  }

  /** Reads the guest's ring, forwards what it sends and answers control messages. Returns how much there was to do. */
  poll(): number {
    this.look();
    let work = 0;
    if (this.#netvsp.serving) {
      try {
        work = this.#serve();
      } catch (error) {
        this.#kill(error);
        work = 1;
      }
    }
    const { list } = this.#subchannels;
    for (let i = 0; i < list.length; i++) {
      const subchannel = list[i]!;
      if (!this.#lives(subchannel)) continue;
      try {
        work += serveSubchannel(subchannel, this.#service);
      } catch (error) {
        this.#killSubchannel(subchannel, error);
        work++;
      }
    }
    return work;
  }

  deliver(frames: number, count: number): void {
    if (!this.#receiving) return;
    try {
      this.#workshop.begin(frames, count, this.#abilities);
      const coalescer = (this.#abilities & OFFLOAD.RSC) !== 0 ? this.#coalescer : undefined;
      for (let n = this.#workshop.next(); n > 0; n = this.#workshop.next()) {
        if (coalescer === undefined) this.#spread.send(this.#workshop.output, n, this.#receivers);
        else {
          const whole = coalescer.run(this.#workshop.output, n, this.#abilities, this.#mostPieces);
          this.#spread.send(coalescer.output, whole, this.#receivers);
        }
      }
    } catch (error) {
      this.#kill(error);
    }
  }

  /** Sends the interrupts that the last bursts asked for, if any. */
  signal(): void {
    if (this.#memory.channel.takeSignal() && this.#netvsp.serving) this.offer.signal();
    const { list } = this.#subchannels;
    for (let i = 0; i < list.length; i++) {
      const subchannel = list[i]!;
      if (subchannel.channel.takeSignal() && this.#lives(subchannel)) subchannel.offer.signal();
    }
  }

  /** Longest sleep that the guest's monitors allow, in ms; undefined when it interrupts. */
  get monitorMs(): number | undefined {
    return this.#netvsp.serving || this.#receiving ? this.offer.monitorMs : undefined;
  }

  /** Plugs the cable in or out and tells the guest. */
  setLink(up: boolean): void {
    if (this.linkUp === up) return;
    this.linkUp = up;
    this.#adapter.linkUp = up;
    this.#rndis.indicate(up ? RNDIS_STATUS.MEDIA_CONNECT : RNDIS_STATUS.MEDIA_DISCONNECT, EMPTY);
  }

  /** Takes offloads (OFFLOAD bits) that the guest has switched on back, as a host does whose own NIC loses them. */
  withdrawOffloads(bits: number): void {
    this.#rndis.withdrawOffloads(bits);
    this.#useAbilities();
  }

  /** The guest's next attaches fail, so many of them. */
  refuseAttaches(count: number): void {
    this.#adapter.refusals = count;
  }

  /** Unmasks interrupts; true when nothing waits, so that the loop may sleep. */
  arm(): boolean {
    let quiet = !this.#netvsp.serving || !this.#memory.channel.unmask();
    const { list } = this.#subchannels;
    for (let i = 0; i < list.length && quiet; i++) quiet = !this.#lives(list[i]!) || !list[i]!.channel.unmask();
    if (!quiet) this.#mask();
    return quiet;
  }

  /** The next poll looks whether a guest came or went. */
  tick(): void {
    this.#lookAtOffer = true;
    this.#ready = undefined;
  }

  disarm(signalled = true, ready?: (fd: number) => boolean): void {
    if (signalled && (ready === undefined || this.offer.fds.some(ready))) {
      this.#ready = this.#lookAtOffer ? undefined : ready;
      this.#lookAtOffer = true;
    }
    this.#mask();
  }

  state(): NicState {
    const { version, phase, reason, ndisMajor, ndisMinor } = this.#netvsp;
    const total = this.#memory.get('suballocationCount');
    const control = this.#memory.get('firstDataSuballocation');
    const frameError = this.#memory.get('frameError');
    const counters = this.#memory.channel.counters();
    this.#subchannels.addCounters(counters);
    const free = this.#memory.get('freeSuballocationCount') + this.#subchannels.free;
    return {
      name: this.name,
      port: this.number,
      uuid: this.offer.uuid,
      mac: macText(this.#adapter.currentMac),
      phase,
      guestPid: this.offer.guestPid,
      reason,
      nvspVersion: version === 0 ? undefined : nvspVersionName(version),
      ndisVersion: ndisMajor === 0 ? undefined : `${ndisMajor}.${ndisMinor}`,
      rndisOperational: this.#rndis.operational,
      mtu: this.mtu,
      linkUp: this.linkUp,
      linkSpeedBps: this.#adapter.linkSpeedBps,
      packetFilter: this.#adapter.filter,
      offloads: Object.entries(OFFLOAD)
        .filter(([, bit]) => (this.#adapter.offloads & bit) !== 0)
        .map(([name]) => name),
      opens: this.#opens,
      deaths: this.#deaths,
      receiveBuffer: {
        suballocationBytes: this.#memory.get('suballocationBytes'),
        suballocations: total,
        inUse: total === 0 ? 0 : total - control - free,
        controlInUse: control - this.#memory.get('freeControlCount'),
      },
      sendBuffer: { bytes: this.#memory.get('sendBytes'), sectionBytes: this.#memory.get('sendSectionBytes') },
      control: { events: this.#events, waiting: this.#rndis.waiting, refused: this.#rndis.refused },
      guestPages: this.#guest.state(),
      lastFrameError: Object.entries(FRAME_ERROR).find(([, code]) => code === frameError)?.[0] ?? `code ${frameError}`,
      subchannels: this.#subchannels.list.map(({ offer, reason, channel }) => ({
        relid: offer.relid,
        reason,
        counters: channel.counters(),
      })),
      receiveScaling: this.#spread.on,
      hashTypes: (this.#adapter.rss?.hashInformation ?? 0) & ~NDIS_HASH_FUNCTION_MASK,
      lostToDeadChannels: this.#spread.lost,
      counters,
      workshop: { ...this.#workshop.counters() },
      coalescing: this.#coalescer?.counters(),
    };
  }

  /** Takes the device off the bus and gives all memory back. */
  close(): void {
    this.offer.rescind();
    this.#close();
    this.#spread.release();
    this.#subchannels.release();
    this.#coalescer?.release();
    this.#workshop.release();
    this.#memory.release();
  }

  #open(): void {
    this.#close();
    this.#opens++;
    this.#memory.open();
    this.#netvsp.open();
  }

  /** Forgets the guest and whatever it had. */
  #close(): void {
    this.#netvsp.close();
    this.#subchannels.close();
    this.#rndis.reset();
    this.#adapter.reset();
    this.#memory.reset();
    this.#guest.reset();
    this.#applyReceivers();
    this.#abilities = 0;
    if (this.macs[0] !== this.#adapter.currentMac) this.macs = [this.#adapter.currentMac];
  }

  #kill(error: unknown): void {
    this.#deaths++;
    this.#netvsp.end('dead', faultText(error));
    this.#rndis.reset();
    this.#applyReceivers();
  }

  #killSubchannel(subchannel: HostSubchannel, error: unknown): void {
    this.#deaths++;
    subchannel.kill(faultText(error));
    this.#applyReceivers();
  }

  /** Frames are delivered: in service, or with subchannels that live on although the primary channel died. */
  get #receiving(): boolean {
    const { phase } = this.#netvsp;
    return phase === 'ready' || (phase === 'dead' && this.#subchannels.count > 0);
  }

  #lives(subchannel: HostSubchannel): boolean {
    return this.#receiving && subchannel.reason === undefined;
  }

  #mask(): void {
    if (this.#netvsp.serving) this.#memory.channel.mask();
    const { list } = this.#subchannels;
    for (let i = 0; i < list.length; i++) if (this.#lives(list[i]!)) list[i]!.channel.mask();
  }

  /** After a change of scaling or of the channels: who receives what, and from which suballocations. */
  #applyReceivers(): void {
    const { rss } = this.#adapter;
    const { count, list } = this.#subchannels;
    if (rss !== this.#appliedRss || count !== this.#appliedSubchannels) {
      this.#appliedRss = rss;
      this.#appliedSubchannels = count;
      this.#subchannels.divide(this.#spread.configure(rss, count + 1));
    }
    this.#useAbilities();
    this.#receivers = [
      this.#netvsp.phase === 'dead' ? 0 : this.#memory.address,
      ...list.map(({ address, reason }) => (reason === undefined ? address : 0)),
    ];
  }

  /** What the guest has switched on. Large packets only where a channel has suballocations for several of them: one that needs more than
   *  there ever are would be lost again and again. */
  #useAbilities(): void {
    const data = this.#memory.get('suballocationCount') - this.#memory.get('firstDataSuballocation');
    const share = Math.floor(data / (this.#appliedSubchannels + 1));
    this.#mostPieces = Math.min(this.#memory.get('maxRanges'), share >>> 1);
    const { offloads } = this.#adapter;
    const enough = share * this.#netvsp.frameBytes >= LARGE_PACKETS * LARGE_BYTES;
    this.#abilities = enough ? offloads : offloads & ~OFFLOAD.RSC;
  }

  #serve(): number {
    const { address, channel } = this.#memory;
    let work = 0;
    for (let polls = 0; polls < MAX_POLLS && this.#netvsp.serving; polls++) {
      // As a real host, it reads on only while what it owes the guest finds room.
      if (!this.#netvsp.flush()) {
        checkRing(channel);
        this.#memory.set('blocked', CONTROL_ROOM);
        break;
      }
      this.#guest.prepare(address);
      const frames = this.#datapath.hostPoll(address, BURST);
      const messages = this.#memory.get('transactionCount');
      if (messages > 0) this.#netvsp.onRndis();
      if (frames > 0) this.#sink.forward(this.#memory.get('frames'), frames);
      this.#datapath.hostComplete(address);
      checkRing(channel);
      const events = channel.hasEvents;
      if (events) channel.drainEvents(this.#onEvent);
      work += messages + (events ? 1 : 0);
      if (!events && frames < BURST) break;
    }
    if (this.#rndis.waiting > 0) {
      this.#rndis.pump();
      this.#useAbilities();
      if (this.#rndis.waiting > 0 && this.#memory.get('freeControlCount') > 0)
        this.#memory.set('blocked', CONTROL_ROOM);
    }
    if (this.#adapter.rss !== this.#appliedRss || this.#subchannels.count !== this.#appliedSubchannels) {
      this.#applyReceivers();
    }
    return work;
  }

  readonly #onEvent = (kind: number, low: number, high: number, a: number, _b: number, payload: Uint8Array): void => {
    this.#events++;
    if (!this.#netvsp.serving) return;
    switch (kind) {
      case EVENT_KIND.NVSP:
        this.#netvsp.onMessage(low, high, a === 1, payload);
        this.#tellAdapter();
        break;
      case EVENT_KIND.RNDIS_CONTROL: {
        this.#netvsp.onRndis();
        const taken = this.#rndis.accept(payload);
        if (!taken) this.#memory.set('frameError', FRAME_ERROR.CONTROL_BUSY);
        if (a === 1) this.#netvsp.completeRndis(low, high, taken ? NVSP_STATUS.SUCCESS : NVSP_STATUS.FAIL);
        break;
      }
      case EVENT_KIND.GPA_MISS:
        if (!this.#guest.miss(this.#memory.address, low, high)) this.#memory.set('regionMissFails', 1);
        break;
      default:
        throw notInFlight(low, high);
    }
  };

  #tellAdapter(): void {
    const adapter = this.#adapter;
    adapter.frameBytes = this.#netvsp.frameBytes;
    adapter.nvspVersion = this.#netvsp.version;
    adapter.ndisMajor = this.#netvsp.ndisMajor;
    adapter.ndisMinor = this.#netvsp.ndisMinor;
    adapter.rscNegotiated = this.#netvsp.rscNegotiated;
  }

  #useMac(mac: Uint8Array, mayUse: ((mac: Uint8Array) => boolean) | undefined): boolean {
    if (mayUse && !mayUse(mac)) return false;
    this.macs = [mac.slice()];
    return true;
  }
}
