// The receive offload stage by itself: nanoseconds a packet for bursts of 32 within a poll of 256, as merged TCP comes and
// as packets come of which nothing can be made.
import { createDatapath } from '../src/datapath/datapath.js';
import { Arena } from '../src/memory/arena.js';
import { MBUF, PACKET_FLAG } from '../src/memory/layout.js';
import { linuxSystem } from '../src/memory/os/mman.js';
import { createPool, poolBytes } from '../src/memory/pool.js';
import { GRO_HELD_MAX, Gro, reserveGro } from '../src/offload/gro.js';
import { BURST, median } from './traffic.js';

const { TX_IP_CHECKSUM, TX_TCP_CHECKSUM, TX_UDP_CHECKSUM, RX_L4_GOOD, RX_L4_BAD } = PACKET_FLAG;
/** Packets of a poll. */
export const GRO_POLL = 256;
const PSH = 8;
const ACK = 16;

export interface GroWork {
  readonly name: string;
  /** Of a frame. */
  readonly bytes: number;
  readonly flows: number;
  readonly protocol: 6 | 17;
  /** Each packet says that it is to be handed over at once. */
  readonly push?: boolean;
  /** The device has not looked at the checksum. */
  readonly unverified?: boolean;
}

export const GRO_WORK: readonly GroWork[] = [
  { name: 'gro: TCP, 1 flow', bytes: 1514, flows: 1, protocol: 6 },
  { name: 'gro: TCP, 8 flows', bytes: 1514, flows: 8, protocol: 6 },
  { name: 'gro: TCP, 1 flow, own checksum', bytes: 1514, flows: 1, protocol: 6, unverified: true },
  { name: 'gro: TCP that nobody merges', bytes: 64, flows: 256, protocol: 6, push: true },
  { name: 'gro: UDP, passes by', bytes: 64, flows: 256, protocol: 17 },
];

/** Polls of one kind of packet. */
export class GroTraffic {
  readonly #arena: Arena;
  readonly #datapath: ReturnType<typeof createDatapath>;
  readonly #pool: number;
  readonly #handles: number;
  readonly #output: number;
  readonly #gro: Gro;
  readonly #work: GroWork;
  /** A frame of which the others differ in a few fields. */
  readonly #template: number;
  #out = 0;

  constructor(work: GroWork, arena: Arena, datapath = createDatapath(arena.memory)) {
    const sizes = { name: 'gro', count: GRO_POLL, room: 2048, headroom: 128 };
    const { bytes, protocol, push = false } = work;
    this.#work = work;
    this.#template = arena.reserve('gro template', 2048);
    const ip = [
      0x45,
      0,
      (bytes - 14) >> 8,
      (bytes - 14) & 255,
      0,
      0,
      0x40,
      0,
      64,
      protocol,
      0,
      0,
      10,
      0,
      0,
      1,
      10,
      0,
      0,
      2,
    ];
    const tcp = [4, 0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, ACK | (push ? PSH : 0), 1, 0, 0, 0, 0, 0];
    const udp = [4, 0, 0, 80, (bytes - 34) >> 8, (bytes - 34) & 255, 0, 0];
    const ethernet = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    arena.u8.set([...ethernet, ...ip, ...(protocol === 6 ? tcp : udp)], this.#template);
    this.#arena = arena;
    this.#datapath = datapath;
    this.#pool = createPool(arena, arena.reserve('gro buffers', poolBytes(sizes)), sizes);
    this.#handles = arena.reserve('gro handles', GRO_POLL * 4);
    this.#output = arena.reserve('gro output', (GRO_POLL + GRO_HELD_MAX) * 4);
    this.#gro = new Gro(arena, datapath, reserveGro(arena));
  }

  /** Fills a poll's buffers. Allocates nothing. */
  prepare(): void {
    const { u8, u32 } = this.#arena;
    const { bytes, flows, protocol } = this.#work;
    const flags = this.#work.unverified ? 0 : RX_L4_GOOD;
    const wanted = TX_IP_CHECKSUM | (protocol === 6 ? TX_TCP_CHECKSUM : TX_UDP_CHECKSUM);
    const payload = bytes - 54;
    this.#datapath.poolGet(this.#pool, this.#handles, GRO_POLL);
    for (let i = 0; i < GRO_POLL; i++) {
      const mbuf = u32[(this.#handles >>> 2) + i]!;
      const at = u32[(mbuf + MBUF.at.data) >>> 2]!;
      const number = Math.floor(i / flows);
      this.#datapath.copy(at, this.#template, bytes);
      u8[at + 19] = number; // identification
      u8[at + 35] = i % flows; // port
      if (protocol === 6) {
        const sequence = number * payload;
        u8[at + 39] = sequence >>> 16;
        u8[at + 40] = sequence >>> 8;
        u8[at + 41] = sequence;
      }
      this.#datapath.checksumFinish(at, bytes, wanted, 0);
      u32[(mbuf + MBUF.at.dataLength) >>> 2] = bytes;
      u32[(mbuf + MBUF.at.packetLength) >>> 2] = bytes;
      u32[(mbuf + MBUF.at.flags) >>> 2] = flags;
    }
  }

  /** One poll; returns packets that came out. */
  poll(): number {
    let out = 0;
    for (let i = 0; i < GRO_POLL; i += BURST) {
      out += this.#gro.receive(this.#handles + i * 4, BURST, this.#output + out * 4);
    }
    this.#out = out + this.#gro.flush(this.#output + out * 4);
    return this.#out;
  }

  /** Gives the buffers back. */
  free(): void {
    this.#datapath.mbufFree(this.#output, this.#out);
  }

  /** Has every checksum been right so far? */
  get good(): boolean {
    const first = this.#arena.u32[this.#output >>> 2]!;
    return (
      this.#gro.counters().badChecksums === 0 && (this.#arena.u32[(first + MBUF.at.flags) >>> 2]! & RX_L4_BAD) === 0
    );
  }
}

/** Median ns a packet, and packets in for one that comes out. */
export function measureGro(work: GroWork, polls: number): { readonly ns: number; readonly ratio: number } {
  const traffic = new GroTraffic(work, Arena.create({ bytes: 32 << 20, system: linuxSystem }));
  const times: number[] = [];
  let out = 0;
  for (let i = 0; i < polls; i++) {
    traffic.prepare();
    const start = performance.now();
    out = traffic.poll();
    times.push(((performance.now() - start) * 1e6) / GRO_POLL);
    traffic.free();
  }
  if (!traffic.good) throw new Error(`${work.name}: a checksum was wrong`);
  return { ns: median(times), ratio: GRO_POLL / out };
}
