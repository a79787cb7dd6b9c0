// A guest without a kernel's stack behind it: one IPv4 and Ethernet station that answers (echo), sends (generate) or only
// counts (sink) what its NIC brings.
import type { Datapath } from '../../datapath/datapath.js';
import type { Pollable } from '../../ethdev/loop.js';
import { ANSWER, Answers } from '../../host/uplinks/answers.js';
import type { Arena } from '../../memory/arena.js';
import { MBUF, PACKET_FLAG } from '../../memory/layout.js';
import type { NetvscInfo } from '../../netvsc/types.js';
import { formatIpv4, formatMac, parseIpv4, parseMac } from '../../wire/address-text.js';
import { ARP_OPERATION, Arp, ETHER_TYPE, EthernetHeader, MAC_BROADCAST } from '../../wire/ethernet.js';
import { IP_PROTOCOL, Ipv4Header } from '../../wire/ip.js';
import { UdpHeader } from '../../wire/tcp-udp.js';
import type { GuestNic } from '../guest-nic.js';

const BURST = 32;
/** Packets that a paced sender may make up for after a pause. */
const CATCH_UP = 256;
const ASK_MS = 100;
const ECHO_PORT = 7;
const SOURCE_PORT = 0x8007;
const NO_MAC = '00:00:00:00:00:00';
const ARP_BYTES = EthernetHeader.size + Arp.size;
/** Where the low byte of the source port is. */
const SOURCE_PORT_LOW = EthernetHeader.size + Ipv4Header.size + UdpHeader.offset.sourcePort + 1;
const HEADERS = EthernetHeader.size + Ipv4Header.size + UdpHeader.size;

export interface StationOptions {
  readonly mode: 'echo' | 'generate' | 'sink';
  /** IPv4 address of this station. */
  readonly address: string;
  /** generate: IPv4 address of the station whose UDP port 7 is sent to. */
  readonly target?: string;
  /** generate: bytes of a frame, 60 to MTU + 14. */
  readonly frameBytes?: number;
  /** generate: packets a second; 0 = as many as the ring takes. */
  readonly rate?: number;
}

export interface StationStats {
  received: number;
  receivedBytes: number;
  sent: number;
  /** echo: what came and was no question. */
  ignored: number;
  /** Packets to send that found no buffer. */
  noBuffer: number;
}

export class Station implements Pollable {
  readonly stats: StationStats = { received: 0, receivedBytes: 0, sent: 0, ignored: 0, noBuffer: 0 };
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #nic: GuestNic;
  readonly #options: StationOptions;
  /** u32 arrays in the arena: packets to send, BURST for each queue; packets received. */
  readonly #toSend: number;
  readonly #received: number;
  /** The frame that generate sends, and the question for its target's address. */
  readonly #template: number;
  readonly #templateBytes: number;
  #answers: Answers | undefined;
  #mac = NO_MAC;
  #targetMac: string | undefined;
  #started = false;
  /** Packets to send, by queue. */
  readonly #waiting: Int32Array;
  #queues = 1;
  #due = 0;
  #lastMs = Number.NaN;
  #askedMs = Number.NEGATIVE_INFINITY;

  /** `queues`: at most so many are used. Throws a RangeError for an address that is none. */
  constructor(arena: Arena, datapath: Datapath, nic: GuestNic, options: StationOptions, queues = 1) {
    this.#arena = arena;
    this.#datapath = datapath;
    this.#nic = nic;
    this.#options = options;
    for (const text of [options.address, options.target ?? options.address]) this.#ip(text);
    this.#templateBytes = Math.max(options.frameBytes ?? 60, HEADERS);
    this.#waiting = new Int32Array(queues);
    this.#toSend = arena.reserve('station packets to send', queues * BURST * 4);
    this.#received = arena.reserve('station packets received', BURST * 4);
    this.#template = arena.reserve('station frame', Math.max(this.#templateBytes, ARP_BYTES));
  }

  /** The device is attached: from now on there is traffic. */
  start({ mac, queues }: Pick<NetvscInfo, 'mac' | 'queues'>): void {
    this.#mac = mac;
    this.#queues = Math.min(queues, this.#waiting.length);
    this.#started = true;
    const { mode, address } = this.#options;
    if (mode === 'echo') {
      const station = { mac: parseMac(mac)!, addresses: [this.#ip(address)], udp: true };
      this.#answers = new Answers(this.#arena, this.#datapath, station);
    } else if (mode === 'generate') this.#ask();
  }

  step(): number {
    let work = 0;
    for (let queue = 0; queue < this.#queues; queue++) work += this.#step(queue);
    return work;
  }

  #step(queue: number): number {
    const { device } = this.#nic;
    if (this.#waiting[queue] === 0 && this.#due >= 1 && this.#targetMac) this.#make(Math.min(BURST, this.#due), queue);
    let work = this.#send(queue);
    // What could not be sent stays in the list, so that no packet is taken that could not be answered.
    const room = this.#options.mode === 'echo' ? BURST - this.#waiting[queue]! : BURST;
    const count = device.poll(this.#received, room, queue);
    if (count > 0) {
      this.#take(count, queue);
      work += count + this.#send(queue);
    }
    return work;
  }

  tick(nowMs: number): void {
    this.#nic.device.tick(nowMs);
    const { mode, rate = 0 } = this.#options;
    if (mode !== 'generate' || !this.#started) return;
    if (!this.#targetMac) {
      if (nowMs - this.#askedMs < ASK_MS) return;
      this.#askedMs = nowMs;
      this.#ask();
      this.#make(1, 0);
      return;
    }
    if (rate === 0) this.#due = CATCH_UP;
    else if (!Number.isNaN(this.#lastMs)) {
      this.#due = Math.min(CATCH_UP, this.#due + ((nowMs - this.#lastMs) * rate) / 1000);
    }
    this.#lastMs = nowMs;
  }

  arm(): boolean {
    return this.#nic.device.arm() && this.#due < 1 && this.#waiting.every((count) => count === 0);
  }

  disarm(): void {
    this.#nic.device.disarm();
  }

  fds(): readonly number[] {
    return this.#nic.device.fds();
  }

  /** Gives its buffers back; detach the device first. */
  close(): void {
    for (const [queue, count] of this.#waiting.entries()) this.#datapath.mbufFree(this.#list(queue), count);
    this.#waiting.fill(0);
    for (const address of [this.#toSend, this.#received, this.#template]) this.#arena.release(address);
  }

  #list(queue: number): number {
    return this.#toSend + queue * BURST * 4;
  }

  #send(queue: number): number {
    const waiting = this.#waiting[queue]!;
    if (waiting === 0) return 0;
    const taken = this.#nic.device.send(this.#list(queue), waiting, queue);
    const list = this.#list(queue) >>> 2;
    this.#arena.u32.copyWithin(list, list + taken, list + waiting);
    this.#waiting[queue] = waiting - taken;
    this.stats.sent += taken;
    return taken;
  }

  /** Copies of the template to the list of packets to send. Each queue has a flow of its own: a source port. */
  #make(wanted: number, queue: number): void {
    const { u8, u32 } = this.#arena;
    const room = Math.min(Math.floor(wanted), BURST - this.#waiting[queue]!);
    const list = this.#list(queue) + this.#waiting[queue]! * 4;
    const count = this.#datapath.poolGet(this.#nic.smallPool, list, room);
    this.stats.noBuffer += room - count;
    const bytes = this.#targetMac ? this.#templateBytes : ARP_BYTES;
    for (let i = 0; i < count; i++) {
      const mbuf = u32[(list >>> 2) + i]!;
      const data = u32[(mbuf + MBUF.at.data) >>> 2]!;
      this.#datapath.copy(data, this.#template, bytes);
      if (queue > 0) u8[data + SOURCE_PORT_LOW] = SOURCE_PORT + queue;
      u32[(mbuf + MBUF.at.dataLength) >>> 2] = bytes;
      u32[(mbuf + MBUF.at.packetLength) >>> 2] = bytes;
    }
    this.#waiting[queue]! += count;
    if (this.#targetMac) this.#due -= count;
  }

  #take(count: number, queue: number): void {
    const { u32 } = this.#arena;
    const list = this.#received >>> 2;
    const answers = this.#list(queue) >>> 2;
    let done = 0; // the list's front is free for packets that are dealt with
    for (let i = 0; i < count; i++) {
      const mbuf = u32[list + i]!;
      const data = u32[(mbuf + MBUF.at.data) >>> 2]!;
      const bytes = u32[(mbuf + MBUF.at.dataLength) >>> 2]!;
      this.stats.received++;
      this.stats.receivedBytes += bytes;
      if (this.#answers && this.#answer(mbuf, data, bytes)) u32[answers + this.#waiting[queue]!++] = mbuf;
      else u32[list + done++] = mbuf;
      if (this.#options.mode === 'generate' && !this.#targetMac) this.#learn(data, bytes);
    }
    if (done > 0) this.#datapath.mbufFree(this.#received, done);
  }

  /** Turns a question into its answer; false = there is none. */
  #answer(mbuf: number, data: number, bytes: number): boolean {
    const { u32 } = this.#arena;
    const flags = u32[(mbuf + MBUF.at.flags) >>> 2]!;
    const answers = this.#answers!;
    const whole = (flags & PACKET_FLAG.RX_COALESCED) === 0;
    const kind = whole ? answers.answer(data, bytes) : ANSWER.NONE;
    if (kind === ANSWER.NONE || kind === ANSWER.BAD_CHECKSUM) {
      this.stats.ignored++;
      return false;
    }
    u32[(mbuf + MBUF.at.dataLength) >>> 2] = answers.bytes;
    u32[(mbuf + MBUF.at.packetLength) >>> 2] = answers.bytes;
    u32[(mbuf + MBUF.at.flags) >>> 2] = flags & PACKET_FLAG.VLAN;
    return true;
  }

  #ip(text: string): Uint8Array {
    const bytes = parseIpv4(text);
    if (!bytes || formatIpv4(bytes) !== text) throw new RangeError(`expected an IPv4 address, got ${text}`);
    return bytes;
  }

  #ask(): void {
    const { address, target = address } = this.#options;
    const { u8 } = this.#arena;
    const ethernet = { destination: MAC_BROADCAST, source: this.#mac, etherType: ETHER_TYPE.ARP };
    EthernetHeader.encodeInto(ethernet, u8, this.#template);
    const question = {
      ...{ operation: ARP_OPERATION.REQUEST, senderMac: this.#mac, senderIp: address },
      ...{ targetMac: NO_MAC, targetIp: target },
    };
    Arp.encodeInto(question, u8, this.#template + EthernetHeader.size);
  }

  /** The target's answer to our question: now the frame to send can be made. */
  #learn(data: number, bytes: number): void {
    const { address, target = address } = this.#options;
    const { u8 } = this.#arena;
    const at = data + EthernetHeader.size;
    const type = data + EthernetHeader.offset.etherType;
    if (bytes < ARP_BYTES || u8[type]! * 256 + u8[type + 1]! !== ETHER_TYPE.ARP) return;
    if (formatIpv4(u8, at + Arp.offset.senderIp) !== target) return;
    const mac = formatMac(u8, at + Arp.offset.senderMac);
    const size = this.#templateBytes;
    const ip = this.#template + EthernetHeader.size;
    u8.fill(0, this.#template, this.#template + size);
    const ethernet = { destination: mac, source: this.#mac, etherType: ETHER_TYPE.IPV4 };
    EthernetHeader.encodeInto(ethernet, u8, this.#template);
    const header = {
      ...{ versionHeaderLength: 0x45, totalLength: size - EthernetHeader.size, timeToLive: 64 },
      ...{ protocol: IP_PROTOCOL.UDP, source: address, destination: target },
    };
    Ipv4Header.encodeInto(header, u8, ip);
    const length = size - EthernetHeader.size - Ipv4Header.size;
    const ports = { sourcePort: SOURCE_PORT, destinationPort: ECHO_PORT, length };
    UdpHeader.encodeInto(ports, u8, ip + Ipv4Header.size);
    this.#datapath.checksumFinish(this.#template, size, PACKET_FLAG.TX_IP_CHECKSUM, 0);
    this.#targetMac = mac;
  }
}
