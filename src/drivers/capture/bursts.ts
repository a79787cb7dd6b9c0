// Bursts of a port that is captured: packets pass, and a copy of each goes to the queue's buffer if it fits.
import type { Lcore, RxBurst, TxBurst } from '../../ethdev/driver.js';
import { add64 } from '../../memory/cells64.js';
import { CAPTURE_STREAM } from '../../memory/layout-captures.js';
import { WallClock } from '../../memory/os/clock.js';
import { PACKET_DIRECTION } from '../../wire/pcap.js';
import { CapturePacket } from '../capture-packet.js';
import type { InnerQueue } from '../wrapped-port.js';

const { buffer, capacity, used, packets, dropped } = CAPTURE_STREAM.at;
/** Packets that are handed on at once to send. */
const BATCH = 256;

export interface CaptureDescription {
  readonly inner: InnerQueue;
  /** CAPTURE_STREAM. */
  readonly stream: number;
  readonly queue: number;
  readonly snapLength: number;
}

/** The buffer of a queue and direction. */
class Stream {
  readonly #u32: Uint32Array;
  readonly #cells: number;
  readonly #packet: CapturePacket;
  readonly #clock = new WallClock();
  #end = 0;

  constructor(lcore: Lcore, { stream, queue, snapLength }: CaptureDescription, direction: number) {
    this.#u32 = lcore.arena.u32;
    this.#cells = stream;
    this.#packet = new CapturePacket(lcore, 'pcapng', snapLength);
    this.#packet.direction = direction;
    this.#packet.queue = queue;
  }

  /** Packets that follow have the time of now. Returns where the first one goes. */
  begin(): number {
    this.#clock.read();
    this.#packet.setTime(this.#clock.seconds, this.#clock.nanoseconds);
    this.#end = this.#u32[(this.#cells + used) >>> 2]!;
    return this.#end;
  }

  /** Puts a packet behind those before. Returns where the next one goes: the same as before when it does not fit. */
  put(mbuf: number): number {
    const u32 = this.#u32;
    const at = u32[(this.#cells + buffer) >>> 2]! + this.#end;
    this.#end += this.#packet.put(at, u32[(this.#cells + capacity) >>> 2]! - this.#end, mbuf);
    return this.#end;
  }

  /** What is in front of `end` counts. */
  commit(end: number, recorded: number, lost: number): void {
    const u32 = this.#u32;
    u32[(this.#cells + used) >>> 2] = end;
    add64(u32, (this.#cells + packets) >>> 2, recorded);
    if (lost > 0) add64(u32, (this.#cells + dropped) >>> 2, lost);
  }
}

export class CaptureRx implements RxBurst {
  readonly arm?: () => boolean;
  readonly disarm?: (ready?: (fd: number) => boolean) => void;
  readonly fds?: () => readonly number[];
  readonly #inner: RxBurst;
  readonly #u32: Uint32Array;
  readonly #stream: Stream;

  constructor(lcore: Lcore, setup: CaptureDescription) {
    const inner = lcore.driver(setup.inner.driver).openRx(lcore, setup.inner.description);
    this.#inner = inner;
    this.#u32 = lcore.arena.u32;
    this.#stream = new Stream(lcore, setup, PACKET_DIRECTION.INBOUND);
    if (inner.arm) this.arm = () => inner.arm!();
    if (inner.disarm) this.disarm = (ready) => inner.disarm!(ready);
    if (inner.fds) this.fds = () => inner.fds!();
  }

  burst(handles: number, max: number): number {
    const count = this.#inner.burst(handles, max);
    if (count === 0) return 0;
    const stream = this.#stream;
    let end = stream.begin();
    let recorded = 0;
    for (let i = 0; i < count; i++) {
      const before = end;
      end = stream.put(this.#u32[(handles >>> 2) + i]!);
      if (end !== before) recorded++;
    }
    stream.commit(end, recorded, count - recorded);
    return count;
  }

  close(): void {
    this.#inner.close();
  }
}

export class CaptureTx implements TxBurst {
  readonly #inner: TxBurst;
  readonly #u32: Uint32Array;
  readonly #stream: Stream;
  /** Where the buffer ends with each packet of a batch. */
  readonly #ends = new Uint32Array(BATCH);

  constructor(lcore: Lcore, setup: CaptureDescription) {
    this.#inner = lcore.driver(setup.inner.driver).openTx(lcore, setup.inner.description);
    this.#u32 = lcore.arena.u32;
    this.#stream = new Stream(lcore, setup, PACKET_DIRECTION.OUTBOUND);
  }

  burst(handles: number, count: number): number {
    if (count === 0) return this.#inner.burst(handles, 0);
    let taken = 0;
    while (taken < count) {
      const wanted = Math.min(BATCH, count - taken);
      const n = this.#batch(handles + taken * 4, wanted);
      taken += n;
      if (n < wanted) break;
    }
    return taken;
  }

  close(): void {
    this.#inner.close();
  }

  /** Packets are the device's once it has them: they are copied before, and those that it does not take are forgotten. */
  #batch(handles: number, count: number): number {
    const ends = this.#ends;
    const stream = this.#stream;
    let before = stream.begin();
    for (let i = 0; i < count; i++) ends[i] = stream.put(this.#u32[(handles >>> 2) + i]!);
    const taken = this.#inner.burst(handles, count);
    let recorded = 0;
    for (let i = 0; i < taken; i++) {
      if (ends[i] !== before) recorded++;
      before = ends[i]!;
    }
    if (taken > 0) stream.commit(ends[taken - 1]!, recorded, taken - recorded);
    return taken;
  }
}
