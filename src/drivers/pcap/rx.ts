// Packets out of a capture file, read in pieces: any length of file, any of the formats.
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { Lcore, RxBurst } from '../../ethdev/driver.js';
import type { Arena } from '../../memory/arena.js';
import { add64, read64 } from '../../memory/cells64.js';
import { MBUF } from '../../memory/layout.js';
import { CAPTURE_FAILURE_BYTES, CAPTURE_READ } from '../../memory/layout-captures.js';
import { CaptureCursor } from '../../wire/capture-cursor.js';
import { LINK_TYPE } from '../../wire/pcap.js';
import { WireError } from '../../wire/struct.js';
import { QueueCounters } from '../virtual-port.js';

const { data, dataLength, packetLength, timestamp } = MBUF.at;
const { generation, position, owner, readers, ended, failureBytes, skipped, truncated, laps } = CAPTURE_READ.at;
const { ETHERNET } = LINK_TYPE;
const SHORTEST_BYTES = 14;
const HIGH = 2 ** 32;
/** Bytes that are read ahead, and the longest thing in a file that has to be seen in one piece. */
export const READ_BYTES = 1 << 20;

/** A capture file in pieces, in arena memory. */
export class CaptureFile {
  readonly cursor = new CaptureCursor();
  readonly #u8: Uint8Array;
  readonly #buffer: number;
  readonly #path: string;
  #fd: number;
  /** What was read and is not done with. */
  #at: number;
  #end: number;

  /** `buffer`: address of READ_BYTES. Throws an Error with a sentence that names the file. */
  constructor(arena: Arena, buffer: number, path: string) {
    this.#u8 = arena.u8;
    this.#buffer = buffer;
    this.#at = buffer;
    this.#end = buffer;
    this.#path = path;
    try {
      this.#fd = openSync(path, 'r');
    } catch (error) {
      throw new Error(`capture ${(error as Error).message}`);
    }
    if (fstatSync(this.#fd).isFile()) return;
    this.close();
    throw new Error(`capture ${path}: expected a regular file`);
  }

  /** Goes to the next packet. False: the file ends. Throws an Error that says where and what is wrong. */
  next(): boolean {
    for (;;) {
      if (this.#step() > 0) {
        if (this.cursor.isPacket) return true;
      } else if (!this.#fill()) return false;
    }
  }

  /** Goes to `position`, behind a packet that next() gave at another time. */
  resume(position: number): void {
    while (this.cursor.position < position) {
      if (this.cursor.seekable) {
        this.cursor.position = position;
        this.#at = this.#end;
      } else if (this.#step() === 0 && !this.#fill()) return;
    }
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  #step(): number {
    try {
      const used = this.cursor.next(this.#u8, this.#at, this.#end);
      this.#at += used;
      return used;
    } catch (error) {
      if (error instanceof WireError) throw this.#problem(error.message);
      throw error;
    }
  }

  /** Reads on. False at the end of the file. */
  #fill(): boolean {
    const { cursor } = this;
    if (cursor.needed > READ_BYTES) {
      if (!cursor.skippable)
        throw this.#problem(`expected a block of at most ${READ_BYTES} bytes, got ${cursor.needed}`);
      cursor.skip();
      this.#at = this.#end; // read() goes on behind it
    }
    const left = this.#end - this.#at;
    this.#u8.copyWithin(this.#buffer, this.#at, this.#end);
    this.#at = this.#buffer;
    this.#end = this.#buffer + left;
    const bytes = readSync(this.#fd, this.#u8, this.#end, READ_BYTES - left, cursor.position + left);
    this.#end += bytes;
    if (bytes > 0) return true;
    if (left > 0) throw this.#problem(`the file ends there, expected ${cursor.needed} bytes, got ${left}`);
    if (!cursor.started) throw this.#problem('expected a pcap or pcapng file, it is empty');
    return false;
  }

  #problem(what: string): Error {
    return new Error(`capture ${this.#path}, offset ${this.cursor.position}: ${what}`);
  }
}

export interface PcapRxDescription {
  /** CAPTURE_READ and room for a failure, or 0: nothing is received. */
  readonly cells: number;
  readonly buffer: number;
  readonly path: string;
  readonly pool: number;
  /** Bytes of a packet that one mbuf takes. */
  readonly fits: number;
  readonly scatter: boolean;
  readonly timestamps: boolean;
  /** Begins anew at the end. */
  readonly infinite: boolean;
  /** How many times as fast as recorded; 0 = as fast as can be. */
  readonly speed: number;
  readonly counters: number;
}

export class PcapRx implements RxBurst {
  readonly #lcore: Lcore;
  readonly #u32: Uint32Array;
  readonly #setup: PcapRxDescription;
  readonly #cells: number;
  readonly #counters: QueueCounters;
  #file: CaptureFile | undefined;
  #generation = 0;
  /** Among the threads that opened the queue. */
  readonly #number: number;
  /** The file stands at a packet that has not been handed out. */
  #ready = false;
  /** Whether the file has anything to receive, as far as it was read since its beginning. */
  #useful = false;
  /** Times, as two cells each, of the first packet and of the one that is ready; when they are due. */
  readonly #first = new Uint32Array(2);
  readonly #time = new Uint32Array(2);
  #paced = false;
  #startMs = 0;
  #dueMs = 0;
  #nowMs = 0;

  constructor(lcore: Lcore, setup: PcapRxDescription) {
    this.#lcore = lcore;
    this.#u32 = lcore.arena.u32;
    this.#setup = setup;
    this.#cells = setup.cells;
    this.#counters = new QueueCounters(lcore.arena, setup.counters);
    this.#number = setup.cells === 0 ? 0 : Atomics.add(this.#u32, (setup.cells + readers) >>> 2, 1) + 1;
  }

  burst(handles: number, max: number): number {
    const u32 = this.#u32;
    if (this.#cells === 0 || max === 0 || u32[(this.#cells + ended) >>> 2] !== 0) return 0;
    if (u32[(this.#cells + owner) >>> 2] !== this.#number || u32[(this.#cells + generation) >>> 2] !== this.#generation)
      this.close();
    if (this.#setup.speed > 0) this.#nowMs = performance.now();
    if (!this.#find()) return 0;
    const { datapath } = this.#lcore;
    const mbufs = datapath.poolGet(this.#setup.pool, handles, max);
    let count = 0;
    let bytes = 0;
    let starved = mbufs === 0;
    while (count < mbufs && this.#find()) {
      const mbuf = u32[(handles >>> 2) + count]!;
      const result = this.#copy(mbuf);
      starved = result === STARVED;
      if (starved) break;
      this.#ready = false;
      this.#note();
      if (result === TOO_LONG) continue;
      bytes += u32[(mbuf + packetLength) >>> 2]!;
      count++;
    }
    datapath.mbufFree(handles + count * 4, mbufs - count);
    this.#counters.add(count, bytes);
    if (starved) this.#counters.noMbuf(1);
    return count;
  }

  close(): void {
    this.#file?.close();
    this.#file = undefined;
    this.#ready = false;
  }

  /** Goes to the next packet, if there is none ready. False: none, or it is not due yet. */
  #find(): boolean {
    try {
      while (!this.#ready) {
        this.#file ??= this.#open();
        if (this.#file.next()) this.#look(this.#file.cursor);
        else if (!this.#turn()) return false;
      }
    } catch (error) {
      this.#fail((error as Error).message);
      return false;
    }
    return this.#setup.speed === 0 || this.#nowMs >= this.#dueMs;
  }

  /** Whether the packet that was found is one to receive. */
  #look(cursor: CaptureCursor): void {
    if (cursor.linkType !== ETHERNET || cursor.capturedLength < SHORTEST_BYTES) {
      add64(this.#u32, (this.#cells + skipped) >>> 2, 1);
      this.#note();
      return;
    }
    if (cursor.capturedLength < cursor.originalLength) add64(this.#u32, (this.#cells + truncated) >>> 2, 1);
    this.#ready = true;
    this.#useful = true;
    if (this.#setup.timestamps || this.#setup.speed > 0) cursor.writeTimestamp(this.#time, 0);
    if (this.#setup.speed > 0) this.#schedule(cursor.hasTime);
  }

  /** The first packet is due at once, the others as much later as they were recorded. */
  #schedule(hasTime: boolean): void {
    if (!hasTime) return;
    if (!this.#paced) {
      this.#paced = true;
      this.#startMs = this.#nowMs;
      this.#first.set(this.#time);
    }
    const ns = (this.#time[1]! - this.#first[1]!) * HIGH + (this.#time[0]! - this.#first[0]!);
    this.#dueMs = this.#startMs + ns / (1e6 * this.#setup.speed);
  }

  /** Copies the packet that is ready. */
  #copy(mbuf: number): number {
    const { dataAt, capturedLength } = this.#file!.cursor;
    const { pool, fits, scatter, timestamps } = this.#setup;
    const { datapath } = this.#lcore;
    const u32 = this.#u32;
    if (capturedLength <= fits) {
      datapath.copy(u32[(mbuf + data) >>> 2]!, dataAt, capturedLength);
      u32[(mbuf + dataLength) >>> 2] = capturedLength;
      u32[(mbuf + packetLength) >>> 2] = capturedLength;
    } else if (!scatter) {
      this.#counters.error(1);
      return TOO_LONG;
    } else if (datapath.appendChain(pool, mbuf, mbuf, dataAt, capturedLength) === 0) return STARVED;
    if (timestamps) {
      u32[(mbuf + timestamp) >>> 2] = this.#time[0]!;
      u32[(mbuf + timestamp + 4) >>> 2] = this.#time[1]!;
    }
    return COPIED;
  }

  /** Opens the file; goes on where another thread stopped. */
  #open(): CaptureFile {
    const { buffer, path } = this.#setup;
    const file = new CaptureFile(this.#lcore.arena, buffer, path);
    this.#generation = this.#u32[(this.#cells + generation) >>> 2]!;
    this.#u32[(this.#cells + owner) >>> 2] = this.#number;
    const done = read64(this.#u32, (this.#cells + position) >>> 2);
    this.#useful = done > 0;
    this.#paced = false;
    try {
      file.resume(done);
    } catch (error) {
      file.close();
      throw error;
    }
    return file;
  }

  /** At the end of the file: true when it begins anew. */
  #turn(): boolean {
    const u32 = this.#u32;
    this.close();
    add64(u32, (this.#cells + laps) >>> 2, 1);
    u32.fill(0, (this.#cells + position) >>> 2, (this.#cells + position + 8) >>> 2);
    if (this.#setup.infinite && this.#useful) return true;
    u32[(this.#cells + ended) >>> 2] = 1;
    return false;
  }

  /** Everything up to here is done with. */
  #note(): void {
    const at = (this.#cells + position) >>> 2;
    const done = this.#file!.cursor.position;
    this.#u32[at] = done % HIGH;
    this.#u32[at + 1] = done / HIGH;
  }

  /** Nothing comes any more; control code says why. */
  #fail(problem: string): void {
    this.close();
    const text = Buffer.from(problem).subarray(0, CAPTURE_FAILURE_BYTES);
    this.#lcore.arena.u8.set(text, this.#cells + CAPTURE_READ.bytes);
    this.#u32[(this.#cells + failureBytes) >>> 2] = text.length;
    this.#u32[(this.#cells + ended) >>> 2] = 1;
    this.#counters.error(1);
  }
}

const COPIED = 0;
const TOO_LONG = 1;
const STARVED = 2;
