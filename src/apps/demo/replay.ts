// Traffic without interfaces: the frames of a capture go out through one NIC and must arrive at another, byte for byte.
// Checksums and tags are left to the offloads, so that these are at work too.
import { readFileSync } from 'node:fs';
import type { Datapath } from '../../datapath/datapath.js';
import type { Pollable } from '../../ethdev/loop.js';
import type { Arena } from '../../memory/arena.js';
import { MBUF, PACKET_FLAG } from '../../memory/layout.js';
import { parseMac } from '../../wire/address-text.js';
import { readCapture } from '../../wire/pcap.js';
import type { GuestNic } from '../guest-nic.js';

const BURST = 32;
/** How long nothing may arrive before what is missing counts as lost. */
const PATIENCE_MS = 2000;

export interface ReplayResult {
  readonly sent: number;
  readonly received: number;
  /** Frames that arrived altered or out of order. */
  readonly wrong: number;
  readonly bytes: number;
  readonly seconds: number;
}

export interface ReplayOptions {
  readonly arena: Arena;
  readonly datapath: Datapath;
  readonly from: GuestNic;
  readonly to: GuestNic;
  /** A capture (pcap or pcapng) of Ethernet frames. */
  readonly file: string;
  readonly loops: number;
}

/** A frame as it is handed to the driver: tag taken out, offloads asked for. */
interface Template {
  readonly bytes: Uint8Array;
  readonly vlanTci: number | undefined;
  readonly flags: number;
  readonly l4Offset: number;
}

/** Addresses the frame to the receiving NIC; finished TCP and UDP checksums are left to the host again. */
function template(frame: Uint8Array, source: Uint8Array, destination: Uint8Array): Template {
  const tagged = frame.length >= 18 && frame[12] === 0x81 && frame[13] === 0;
  const bytes = new Uint8Array(frame.length - (tagged ? 4 : 0));
  bytes.set(destination, 0);
  bytes.set(source, 6);
  bytes.set(frame.subarray(tagged ? 16 : 12), 12);
  const vlanTci = tagged ? (frame[14]! << 8) | frame[15]! : undefined;
  return { bytes, vlanTci, flags: vlanTci === undefined ? 0 : PACKET_FLAG.VLAN, l4Offset: 0 };
}

export class Replay implements Pollable {
  readonly finished: Promise<ReplayResult>;
  readonly #options: ReplayOptions;
  readonly #templates: readonly Template[];
  readonly #handles: number;
  readonly #total: number;
  #finish!: (result: ReplayResult) => void;
  #made = 0;
  #waiting = 0;
  #received = 0;
  #wrong = 0;
  #bytes = 0;
  #startMs = 0;
  #lastMs = 0;
  #progressMs = 0;

  /** Reads the capture. Throws WireError when it is none, RangeError when nothing in it fits the MTU. */
  static load(options: ReplayOptions): Replay {
    const source = parseMac(options.from.device.info!.mac)!;
    const destination = parseMac(options.to.device.info!.mac)!;
    const longest = options.from.device.info!.mtu + 14;
    const templates = readCapture(readFileSync(options.file))
      .map(({ data }) => template(data, source, destination))
      .filter(({ bytes }) => bytes.length >= 14 && bytes.length <= longest);
    if (templates.length === 0) throw new RangeError(`${options.file}: no Ethernet frame of 14 to ${longest} bytes`);
    return new Replay(options, templates);
  }

  private constructor(options: ReplayOptions, templates: readonly Template[]) {
    this.#options = options;
    this.#templates = templates;
    this.#total = templates.length * options.loops;
    this.#handles = options.arena.reserve('replay handles', BURST * 8);
    this.finished = new Promise((resolve) => {
      this.#finish = resolve;
    });
  }

  step(): number {
    const { from, to, datapath } = this.#options;
    if (this.#waiting === 0) this.#waiting = this.#make();
    let work = 0;
    if (this.#waiting > 0) {
      const taken = from.device.send(this.#handles, this.#waiting);
      const list = this.#handles >>> 2;
      this.#options.arena.u32.copyWithin(list, list + taken, list + this.#waiting);
      this.#waiting -= taken;
      work += taken;
    }
    // A poll for nothing would not take the completions of what was sent.
    datapath.mbufFree(this.#handles + BURST * 4, from.device.poll(this.#handles + BURST * 4, BURST));
    const got = to.device.poll(this.#handles + BURST * 4, BURST);
    for (let i = 0; i < got; i++) this.#check(this.#options.arena.u32[((this.#handles + BURST * 4) >>> 2) + i]!);
    datapath.mbufFree(this.#handles + BURST * 4, got);
    if (got > 0) this.#lastMs = this.#progressMs;
    return work + got;
  }

  #make(): number {
    const { arena, datapath, from } = this.#options;
    // The receiver's buffers are the limit: a switch drops what finds none.
    const wanted = Math.min(BURST, this.#total - this.#made, 1024 - (this.#made - this.#received));
    if (wanted <= 0) return 0;
    const count = datapath.poolGet(from.smallPool, this.#handles, wanted);
    for (let i = 0; i < count; i++) {
      const mbuf = arena.u32[(this.#handles >>> 2) + i]!;
      const set = (offset: number, value: number) => {
        arena.u32[(mbuf + offset) >>> 2] = value;
      };
      const { bytes, vlanTci, flags, l4Offset } = this.#templates[this.#made++ % this.#templates.length]!;
      arena.u8.set(bytes, arena.u32[(mbuf + MBUF.at.data) >>> 2]!);
      set(MBUF.at.dataLength, bytes.length);
      set(MBUF.at.packetLength, bytes.length);
      set(MBUF.at.flags, flags);
      set(MBUF.at.l4Offset, l4Offset);
      set(MBUF.at.vlanTci, vlanTci ?? 0);
    }
    return count;
  }

  #check(mbuf: number): void {
    const { u32, u8 } = this.#options.arena;
    const expected = this.#templates[this.#received++ % this.#templates.length]!;
    const data = u32[(mbuf + MBUF.at.data) >>> 2]!;
    const length = u32[(mbuf + MBUF.at.dataLength) >>> 2]!;
    const tagged = (u32[(mbuf + MBUF.at.flags) >>> 2]! & PACKET_FLAG.VLAN) !== 0;
    const tci = tagged ? u32[(mbuf + MBUF.at.vlanTci) >>> 2] : undefined;
    this.#bytes += length;
    const same = length === expected.bytes.length && tci === expected.vlanTci;
    if (!same || Buffer.compare(u8.subarray(data, data + length), expected.bytes) !== 0) this.#wrong++;
  }

  tick(nowMs: number): void {
    this.#progressMs = nowMs;
    if (this.#startMs === 0) {
      this.#startMs = nowMs;
      this.#lastMs = nowMs;
    }
    this.#options.from.device.tick(nowMs);
    this.#options.to.device.tick(nowMs);
    if (this.#received < this.#total && nowMs - this.#lastMs < PATIENCE_MS) return;
    const seconds = (nowMs - this.#startMs) / 1000;
    this.#finish({ sent: this.#made, received: this.#received, wrong: this.#wrong, bytes: this.#bytes, seconds });
  }

  arm(): boolean {
    return this.#options.from.device.arm() && this.#options.to.device.arm() && this.#waiting === 0;
  }

  disarm(): void {
    this.#options.from.device.disarm();
    this.#options.to.device.disarm();
  }

  fds(): readonly number[] {
    return [...this.#options.from.device.fds(), ...this.#options.to.device.fds()];
  }

  close(): void {
    this.#options.datapath.mbufFree(this.#handles, this.#waiting);
    this.#options.arena.release(this.#handles);
  }
}
