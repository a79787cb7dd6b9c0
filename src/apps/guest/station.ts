// A guest without a kernel's stack behind it: one IPv4 and Ethernet station that answers (echo), sends (generate) or only
// counts (sink) what its NIC brings.
import type { Datapath } from '../../datapath/datapath.js';
import type { Pollable } from '../../ethdev/loop.js';
import { ANSWER, Answers } from '../../host/uplinks/answers.js';
import type { Arena } from '../../memory/arena.js';
import { MBUF, PACKET_FLAG } from '../../memory/layout.js';
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
  /** u32 arrays in the arena: packets to send, packets received. */
  readonly #toSend: number;
  readonly #received: number;
  /** The frame that generate sends, and the question for its target's address. */
  readonly #template: number;
  readonly #templateBytes: number;
  #answers: Answers | undefined;
  #mac = NO_MAC;
  #targetMac: string | undefined;
  #started = false;
  #waiting = 0;
  #due = 0;
  #lastMs = Number.NaN;
  #askedMs = Number.NEGATIVE_INFINITY;

  /** Throws a RangeError for an address that is none. */
  constructor(arena: Arena, datapath: Datapath, nic: GuestNic, options: StationOptions) {
    this.#arena = arena;
    this.#datapath = datapath;
    this.#nic = nic;
    this.#options = options;
    for (const text of [options.address, options.target ?? options.address]) this.#ip(text);
    this.#templateBytes = Math.max(options.frameBytes ?? 60, HEADERS);
    this.#toSend = arena.reserve('station packets to send', BURST * 4);
    this.#received = arena.reserve('station packets received', BURST * 4);
    this.#template = arena.reserve('station frame', Math.max(this.#templateBytes, ARP_BYTES));
  }

  /** The device is attached: from now on there is traffic. */
  start(mac: string): void {
    this.#mac = mac;
    this.#started = true;
    const { mode, address } = this.#options;
    if (mode === 'echo') {
      const station = { mac: parseMac(mac)!, addresses: [this.#ip(address)], udp: true };
      this.#answers = new Answers(this.#arena, this.#datapath, station);
    } else if (mode === 'generate') this.#ask();
  }

  step(): number {
    const { device } = this.#nic;
    if (this.#waiting === 0 && this.#due > 0 && this.#targetMac) this.#make(Math.min(BURST, this.#due));
    let work = this.#send();
    // What could not be sent stays in the list, so that no packet is taken that could not be answered.
    const room = this.#options.mode === 'echo' ? BURST - this.#waiting : BURST;
    const count = device.poll(this.#received, room);
    if (count > 0) {
      this.#take(count);
      work += count + this.#send();
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
      this.#make(1);
      return;
    }
    if (rate === 0) this.#due = CATCH_UP;
    else if (!Number.isNaN(this.#lastMs)) {
      this.#due = Math.min(CATCH_UP, this.#due + ((nowMs - this.#lastMs) * rate) / 1000);
    }
    this.#lastMs = nowMs;
  }

  arm(): boolean {
    return this.#nic.device.arm() && this.#waiting === 0 && this.#due < 1;
  }

  disarm(): void {
    this.#nic.device.disarm();
  }

  fds(): readonly number[] {
    return this.#nic.device.fds();
  }

  /** Gives its buffers back; detach the device first. */
  close(): void {
    this.#datapath.mbufFree(this.#toSend, this.#waiting);
    this.#waiting = 0;
    for (const address of [this.#toSend, this.#received, this.#template]) this.#arena.release(address);
  }

  #send(): number {
    if (this.#waiting === 0) return 0;
    const taken = this.#nic.device.send(this.#toSend, this.#waiting);
    const list = this.#toSend >>> 2;
    this.#arena.u32.copyWithin(list, list + taken, list + this.#waiting);
    this.#waiting -= taken;
    this.stats.sent += taken;
    return taken;
  }

  /** Copies of the template to the list of packets to send. */
  #make(wanted: number): void {
    const { u32 } = this.#arena;
    const room = Math.min(Math.floor(wanted), BURST - this.#waiting);
    const list = this.#toSend + this.#waiting * 4;
    const count = this.#datapath.poolGet(this.#nic.smallPool, list, room);
    this.stats.noBuffer += room - count;
    const bytes = this.#targetMac ? this.#templateBytes : ARP_BYTES;
    for (let i = 0; i < count; i++) {
      const mbuf = u32[(list >>> 2) + i]!;
      this.#datapath.copy(u32[(mbuf + MBUF.at.data) >>> 2]!, this.#template, bytes);
      u32[(mbuf + MBUF.at.dataLength) >>> 2] = bytes;
      u32[(mbuf + MBUF.at.packetLength) >>> 2] = bytes;
    }
    this.#waiting += count;
    if (this.#targetMac) this.#due -= count;
  }

  #take(count: number): void {
    const { u32 } = this.#arena;
    const list = this.#received >>> 2;
    let done = 0; // the list's front is free for packets that are dealt with
    for (let i = 0; i < count; i++) {
      const mbuf = u32[list + i]!;
      const data = u32[(mbuf + MBUF.at.data) >>> 2]!;
      const bytes = u32[(mbuf + MBUF.at.dataLength) >>> 2]!;
      this.stats.received++;
      this.stats.receivedBytes += bytes;
      if (this.#answers && this.#answer(mbuf, data, bytes)) u32[(this.#toSend >>> 2) + this.#waiting++] = mbuf;
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
