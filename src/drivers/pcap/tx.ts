// Packets into a capture file: put together in a buffer that is written when it is full, by control code now and then, and when the port
// stops. Whoever has the queue writes.
import { writeSync } from 'node:fs';
import type { Lcore, TxBurst } from '../../ethdev/driver.js';
import type { Arena } from '../../memory/arena.js';
import { MBUF } from '../../memory/layout.js';
import { CAPTURE_WRITE } from '../../memory/layout-captures.js';
import { WallClock } from '../../memory/os/clock.js';
import { ERRNO } from '../../memory/os/libc.js';
import { type CaptureFormat, CapturePacket } from '../capture-packet.js';
import { QueueCounters } from '../virtual-port.js';

const { packetLength, timestamp } = MBUF.at;
const { fd, buffer, capacity, used, errno } = CAPTURE_WRITE.at;

/** Writes what waits in the buffer. A disk that is full ends the writing, not the port. */
export function flushCapture(arena: Arena, cells: number): void {
  const { u32, u8 } = arena;
  const from = u32[(cells + buffer) >>> 2]!;
  const end = from + u32[(cells + used) >>> 2]!;
  u32[(cells + used) >>> 2] = 0;
  if (u32[(cells + errno) >>> 2] !== 0) return;
  try {
    for (let at = from; at < end; ) at += writeSync(u32[(cells + fd) >>> 2]!, u8, at, end - at);
  } catch (error) {
    u32[(cells + errno) >>> 2] = ERRNO[(error as NodeJS.ErrnoException).code ?? ''] ?? ERRNO.EIO!;
  }
}

export interface PcapTxDescription {
  /** CAPTURE_WRITE, or 0: packets are dropped. */
  readonly cells: number;
  readonly format: CaptureFormat;
  readonly snapLength: number;
  /** Time of a packet is that of the mbuf, where it has one. */
  readonly keepTime: boolean;
  readonly counters: number;
}

export class PcapTx implements TxBurst {
  readonly #lcore: Lcore;
  readonly #u32: Uint32Array;
  readonly #cells: number;
  readonly #keepTime: boolean;
  readonly #packet: CapturePacket;
  readonly #counters: QueueCounters;
  readonly #clock = new WallClock();

  constructor(lcore: Lcore, { cells, format, snapLength, keepTime, counters }: PcapTxDescription) {
    this.#lcore = lcore;
    this.#u32 = lcore.arena.u32;
    this.#cells = cells;
    this.#keepTime = keepTime;
    this.#packet = new CapturePacket(lcore, format, snapLength);
    this.#counters = new QueueCounters(lcore.arena, counters);
  }

  burst(handles: number, count: number): number {
    if (count === 0) return 0;
    const u32 = this.#u32;
    const failed = this.#cells !== 0 && u32[(this.#cells + errno) >>> 2] !== 0;
    let bytes = 0;
    if (this.#cells !== 0 && !failed) bytes = this.#write(handles, count);
    else for (let i = 0; i < count; i++) bytes += u32[(u32[(handles >>> 2) + i]! + packetLength) >>> 2]!;
    this.#lcore.datapath.mbufFree(handles, count);
    if (failed) this.#counters.error(count);
    else this.#counters.add(count, bytes);
    return count;
  }

  close(): void {}

  #write(handles: number, count: number): number {
    const u32 = this.#u32;
    const cells = this.#cells;
    const packet = this.#packet;
    const clock = this.#clock;
    const from = u32[(cells + buffer) >>> 2]!;
    const room = u32[(cells + capacity) >>> 2]!;
    clock.read();
    packet.setTime(clock.seconds, clock.nanoseconds);
    let bytes = 0;
    for (let i = 0; i < count; i++) {
      const mbuf = u32[(handles >>> 2) + i]!;
      bytes += u32[(mbuf + packetLength) >>> 2]!;
      if (this.#keepTime) this.#setTime(mbuf);
      let there = u32[(cells + used) >>> 2]!;
      let size = packet.put(from + there, room - there, mbuf);
      if (size === 0) {
        flushCapture(this.#lcore.arena, cells);
        there = 0;
        size = packet.put(from, room, mbuf); // the buffer holds the longest
      }
      u32[(cells + used) >>> 2] = there + size;
    }
    return bytes;
  }

  #setTime(mbuf: number): void {
    const low = this.#u32[(mbuf + timestamp) >>> 2]!;
    const high = this.#u32[(mbuf + timestamp + 4) >>> 2]!;
    if (low !== 0 || high !== 0) this.#packet.setTimestamp(low, high);
    else this.#packet.setTime(this.#clock.seconds, this.#clock.nanoseconds);
  }
}
