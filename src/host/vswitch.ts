// The virtual switch: learns where stations are, forwards frames between NICs and uplinks, keeps VLANs apart. It moves
// no packet bytes; a destination is handed addresses of FRAMEs, once per burst and in order.
import type { Datapath } from '../datapath/datapath.js';
import type { Arena } from '../memory/arena.js';
import { FRAME, PACKET_FLAG } from '../memory/layout.js';
import { ANY_VLAN, LEARNED, MacTable, macText, type Station } from './mac-table.js';
import { type FrameSink, MAX_PORTS, PORT_FILTER, type SwitchPort } from './ports.js';
import { COUNTER, type PortCounter, SwitchPorts } from './switch-ports.js';
import { TagScratch } from './tags.js';

const AT = FRAME.at;
/** Frames between two deliveries. */
const ROUND = 256;
/** Bit of a MAC's first byte that says "group", as MacTable's `high` has it. */
const GROUP_BIT = 0x100;
const VLAN_ID = 0xfff;
const ANY_MULTICAST = PORT_FILTER.MULTICAST | PORT_FILTER.ALL_MULTICAST;
const NO_TAG = -1;
const PASSED = -1;
const TCP_HEADER_BYTES = 20;

export interface SwitchOptions {
  readonly arena: Arena;
  readonly datapath: Datapath;
  /** Stations that it remembers. */
  readonly macCapacity?: number;
  /** Seconds after which a silent station is forgotten; default 300, as 802.1D has it. */
  readonly maxAgeSeconds?: number;
  /** Random 32 bits for the station table's hash. */
  readonly seed?: number;
}

/** What the switch as a whole counts. */
export interface SwitchCounters {
  readonly bursts: number;
  /** Frames with a source cell that names no port. */
  readonly unknownPort: number;
  readonly unicast: number;
  /** Broadcast, multicast and unknown unicast. */
  readonly flooded: number;
  readonly learned: number;
  readonly moved: number;
  readonly tableFull: number;
  readonly aged: number;
  /** Address changes that were refused: not 6 bytes, another port's, or no room. */
  readonly badAddresses: number;
  /** FRAMEs made because a port needs another tag than the one that came. */
  readonly retagged: number;
}

export class VirtualSwitch implements FrameSink {
  readonly #arena: Arena;
  readonly #u8: Uint8Array;
  readonly #u32: Uint32Array;
  readonly #table: MacTable;
  readonly #ports = new SwitchPorts();
  readonly #tags: TagScratch;
  readonly #maxAge: number;
  /** Per port ROUND u32: FRAMEs to deliver. */
  readonly #lists: number;
  readonly #listed = new Uint32Array(MAX_PORTS + 1);
  readonly #macs: (readonly Uint8Array[] | undefined)[] = new Array(MAX_PORTS + 1).fill(undefined);
  #agedAt = -1;
  #bursts = 0;
  #unknownPort = 0;
  #unicast = 0;
  #flooded = 0;
  #learned = 0;
  #moved = 0;
  #tableFull = 0;
  #aged = 0;
  #badMacs = 0;
  // The frame at hand: its other forms are made at most once.
  #plain = 0;
  #tagged = 0;

  constructor(options: SwitchOptions) {
    this.#arena = options.arena;
    this.#u8 = options.arena.u8;
    this.#u32 = options.arena.u32;
    this.#table = new MacTable(options.macCapacity ?? 4096, options.seed ?? 0);
    this.#maxAge = options.maxAgeSeconds ?? 300;
    this.#tags = new TagScratch(options.arena, options.datapath);
    this.#lists = options.arena.reserve('vswitch lists', (MAX_PORTS + 1) * ROUND * 4);
  }

  /** Plugs a port in. Throws when its number is taken or one of its addresses is another port's. */
  addPort(port: SwitchPort): void {
    this.#ports.add(port);
    const problem = this.#setMacs(port);
    if (problem === '') return;
    this.removePort(port);
    throw new Error(`switch port ${port.name}: ${problem}`);
  }

  /** Unplugs it; the stations behind it are forgotten. */
  removePort(port: SwitchPort): void {
    if (this.#ports.ports[port.number] !== port) return;
    this.#ports.remove(port.number);
    this.#macs[port.number] = undefined;
    this.#table.forget(port.number, 'all');
  }

  /** Smallest port number not in use. Throws when the switch is full. */
  freeNumber(): number {
    for (let number = 1; number <= MAX_PORTS; number++) if (!this.#ports.ports[number]) return number;
    throw new Error(`switch: all ${MAX_PORTS} ports are in use`);
  }

  /** Forgets learned stations behind a port, as when its link went down. */
  forgetStations(port: SwitchPort): void {
    this.#table.forget(port.number, 'all');
    this.#macs[port.number] = undefined;
    if (this.#ports.ports[port.number] === port) this.#setMacs(port);
  }

  /**
   * Forwards `count` FRAMEs that lie one behind the other at `frames`: each is at least an Ethernet header long, its
   * first bytes in one piece at `head`. Every destination has got its frames when the call returns.
   */
  forward(frames: number, count: number): void {
    this.#bursts++;
    this.#ports.refresh();
    for (let i = 0; i < this.#ports.numbers.length; i++) {
      const port = this.#ports.ports[this.#ports.numbers[i]!]!;
      if (this.#macs[port.number] !== port.macs && this.#setMacs(port) !== '') this.#badMacs++;
    }
    let round = 0;
    for (let i = 0; i < count; i++) {
      const frame = frames + i * FRAME.bytes;
      if (round === ROUND || !this.#tags.hasRoom(frame)) {
        this.#deliver();
        round = 0;
      }
      round++;
      const source = this.#u32[(frame + AT.source) >>> 2]!;
      if (source > MAX_PORTS || this.#ports.ports[source] === undefined) {
        this.#unknownPort++;
        continue;
      }
      const dropped = this.#forwardOne(frame, source);
      if (dropped !== PASSED) this.#ports.count(source, dropped);
    }
    this.#deliver();
  }

  /** Ages the station table about once a second. */
  tick(nowMs: number): void {
    const seconds = Math.floor(nowMs / 1000);
    if (seconds === this.#agedAt) return;
    this.#agedAt = seconds;
    this.#aged += this.#table.age(seconds, this.#maxAge);
  }

  /** Known stations, for display. */
  table(): (Station & { readonly portName: string })[] {
    return this.#table.stations().map((s) => ({ ...s, portName: this.#ports.ports[s.port]?.name ?? '?' }));
  }

  counters(): SwitchCounters {
    return {
      bursts: this.#bursts,
      unknownPort: this.#unknownPort,
      unicast: this.#unicast,
      flooded: this.#flooded,
      learned: this.#learned,
      moved: this.#moved,
      tableFull: this.#tableFull,
      aged: this.#aged,
      badAddresses: this.#badMacs,
      retagged: this.#tags.made,
    };
  }

  portCounters(port: SwitchPort): Record<PortCounter, number> {
    return this.#ports.stats(port.number);
  }

  /** Gives back the arena memory. */
  close(): void {
    this.#tags.release();
    this.#arena.release(this.#lists);
  }

  /** Returns PASSED, or which counter of the source to raise. */
  #forwardOne(frame: number, source: number): number {
    const u8 = this.#u8;
    const u32 = this.#u32;
    const ports = this.#ports;
    ports.countFrame(source, COUNTER.inFrames, u32[(frame + AT.length) >>> 2]!);
    if (ports.linkUp[source] === 0) return COUNTER.inDropLinkDown;

    // Addresses are read once: the bytes may lie in memory that a guest can write.
    const head = u32[(frame + AT.head) >>> 2]!;
    const toHigh = (u8[head]! << 8) | u8[head + 1]!;
    const toLow = (u8[head + 2]! << 24) | (u8[head + 3]! << 16) | (u8[head + 4]! << 8) | u8[head + 5]!;
    const fromHigh = (u8[head + 6]! << 8) | u8[head + 7]!;
    const fromLow = (u8[head + 8]! << 24) | (u8[head + 9]! << 16) | (u8[head + 10]! << 8) | u8[head + 11]!;

    let tag = NO_TAG;
    if ((u32[(frame + AT.flags) >>> 2]! & PACKET_FLAG.VLAN) !== 0) {
      tag = u32[(frame + AT.vlanTci) >>> 2]! & 0xffff;
    } else if (u8[head + 12] === 0x81 && u8[head + 13] === 0) {
      frame = this.#tags.lift(frame);
      if (frame === 0) return COUNTER.inDropShortTag;
      tag = u32[(frame + AT.vlanTci) >>> 2]!;
    }
    let vlan = ports.untaggedVlan[source]!;
    if (tag !== NO_TAG && (tag & VLAN_ID) !== 0) {
      vlan = tag & VLAN_ID;
      if (ports.takesTags[source] === 0) return COUNTER.inDropVlan;
    }
    if (!ports.carries(source, vlan)) return COUNTER.inDropVlan;
    if ((fromHigh & GROUP_BIT) === 0 && !this.#learn(source, vlan, fromHigh, fromLow)) return COUNTER.inDropSpoofed;

    this.#plain = tag === NO_TAG ? frame : 0;
    this.#tagged = tag !== NO_TAG && (tag & VLAN_ID) === vlan ? frame : 0;
    const priority = tag === NO_TAG ? 0 : tag & ~VLAN_ID;
    if ((toHigh & GROUP_BIT) !== 0) {
      const broadcast = toHigh === 0xffff && toLow === -1;
      return this.#flood(frame, source, vlan, priority, broadcast ? PORT_FILTER.BROADCAST : ANY_MULTICAST);
    }
    const to = this.#destination(vlan, toHigh, toLow);
    if (to === 0) return this.#flood(frame, source, vlan, priority, PORT_FILTER.UNKNOWN);
    this.#unicast++;
    if (ports.anyPromiscuous) this.#mirror(frame, source, to, vlan, priority);
    if (to === source) return COUNTER.inDropReturn;
    const dropped = this.#send(frame, to, vlan, priority);
    if (dropped !== PASSED) ports.count(to, dropped);
    return PASSED;
  }

  /** Notes the sender. False when the address is another port's own. */
  #learn(source: number, vlan: number, high: number, low: number): boolean {
    const owner = this.#table.find(ANY_VLAN, high, low);
    if (owner === source) return true;
    if (owner !== 0 && this.#ports.carries(owner, vlan)) return false;
    if ((high | low) === 0) return true; // no address at all: generators send that
    const learned = this.#table.learn(vlan, high, low, source);
    if (learned === LEARNED.NEW) this.#learned++;
    else if (learned === LEARNED.MOVED) this.#moved++;
    else if (learned === LEARNED.FULL) this.#tableFull++;
    return true;
  }

  /** Port of the station: one whose own address it is and that carries the VLAN, or where it was learned; 0 = unknown. */
  #destination(vlan: number, high: number, low: number): number {
    const owner = this.#table.find(ANY_VLAN, high, low);
    if (owner !== 0 && this.#ports.carries(owner, vlan)) return owner;
    return this.#table.find(vlan, high, low);
  }

  /** To every port of the VLAN whose filter asks for this kind of frame. */
  #flood(frame: number, source: number, vlan: number, priority: number, kind: number): number {
    const ports = this.#ports;
    const wanted = kind | PORT_FILTER.PROMISCUOUS;
    this.#flooded++;
    let receivers = 0;
    for (let i = 0; i < ports.numbers.length; i++) {
      const number = ports.numbers[i]!;
      if (number === source || (ports.filter[number]! & wanted) === 0) continue;
      if (ports.linkUp[number] === 0 || !ports.carries(number, vlan)) continue;
      this.#append(frame, number, vlan, priority);
      receivers++;
    }
    return receivers === 0 ? COUNTER.inDropNoReceiver : PASSED;
  }

  /** Unicast of others to those ports of the VLAN that ask for it. */
  #mirror(frame: number, source: number, to: number, vlan: number, priority: number): void {
    const ports = this.#ports;
    for (let i = 0; i < ports.numbers.length; i++) {
      const number = ports.numbers[i]!;
      if (number === source || number === to || (ports.filter[number]! & PORT_FILTER.PROMISCUOUS) === 0) continue;
      if (ports.linkUp[number] === 1 && ports.carries(number, vlan)) this.#append(frame, number, vlan, priority);
    }
  }

  /** Unicast to its port. Returns PASSED, or which of that port's counters to raise. */
  #send(frame: number, to: number, vlan: number, priority: number): number {
    const ports = this.#ports;
    if (ports.linkUp[to] === 0) return COUNTER.outDropLinkDown;
    if (!ports.carries(to, vlan)) return COUNTER.outDropVlan;
    if ((ports.filter[to]! & (PORT_FILTER.DIRECTED | PORT_FILTER.PROMISCUOUS)) === 0) return COUNTER.outDropFilter;
    this.#append(frame, to, vlan, priority);
    return PASSED;
  }

  /** Puts the frame, in the form that the port's VLAN mode asks for, on its list. */
  #append(frame: number, to: number, vlan: number, priority: number): void {
    const ports = this.#ports;
    const u32 = this.#u32;
    const length = u32[(frame + AT.length) >>> 2]!;
    if (this.#longest(frame, length) > ports.maxFrame[to]!) {
      ports.count(to, COUNTER.outDropTooLong);
      return;
    }
    let form: number;
    if (ports.untaggedVlan[to] !== vlan) {
      if (this.#tagged === 0) this.#tagged = this.#tags.retag(frame, priority | vlan);
      form = this.#tagged;
    } else if (vlan === 0 && this.#tagged !== 0) {
      form = this.#tagged; // a priority tag
    } else {
      if (this.#plain === 0) this.#plain = this.#tags.retag(frame, NO_TAG);
      form = this.#plain;
    }
    u32[((this.#lists + to * (ROUND * 4)) >>> 2) + this.#listed[to]!] = form;
    this.#listed[to]! += 1;
    ports.countFrame(to, COUNTER.outFrames, length);
  }

  /** Bytes of the longest frame that this one becomes: TSO packets count as the segments that they stand for. */
  #longest(frame: number, length: number): number {
    const u32 = this.#u32;
    if ((u32[(frame + AT.flags) >>> 2]! & PACKET_FLAG.TX_TSO) === 0) return length;
    const segment = u32[(frame + AT.l4Offset) >>> 2]! + TCP_HEADER_BYTES + u32[(frame + AT.mss) >>> 2]!;
    return Math.min(length, segment);
  }

  #deliver(): void {
    const ports = this.#ports;
    for (let i = 0; i < ports.numbers.length; i++) {
      const number = ports.numbers[i]!;
      const count = this.#listed[number]!;
      if (count === 0) continue;
      this.#listed[number] = 0;
      ports.ports[number]!.deliver(this.#lists + number * (ROUND * 4), count);
    }
    this.#tags.reset();
  }

  /** Enters a port's own addresses. Returns what is wrong with them: one that another port has stays that port's. */
  #setMacs(port: SwitchPort): string {
    let problem = '';
    this.#table.forget(port.number, 'static');
    this.#macs[port.number] = port.macs;
    for (const mac of port.macs) {
      if (mac.length !== 6) {
        problem = `expected 6 address bytes, got ${mac.length}`;
        continue;
      }
      const high = (mac[0]! << 8) | mac[1]!;
      const low = (mac[2]! << 24) | (mac[3]! << 16) | (mac[4]! << 8) | mac[5]!;
      if (this.#table.addStatic(high, low, port.number)) continue;
      const owner = this.#ports.ports[this.#table.find(ANY_VLAN, high, low)];
      problem = owner ? `address ${macText(high, low)} belongs to ${owner.name}` : 'the station table is full';
    }
    return problem;
  }
}
