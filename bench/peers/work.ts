// What a guest of ours does for a task, whatever drives its device: the same work as guest.c.
import { createInterface } from 'node:readline';
import type { Datapath } from '../../src/datapath/datapath.js';
import type { Arena } from '../../src/memory/arena.js';
import { MBUF } from '../../src/memory/layout.js';
import { setAffinity } from '../../src/memory/os/process.js';
import { parseMac } from '../../src/wire/address-text.js';
import { median } from '../traffic.js';
import type { Baton } from './baton.js';
import { type GuestFigures, parseTask, say, type Task, WARM_UP_MS } from './task.js';
import { UPLINK_MAC } from './uplink.js';

/** Calls in a row that may move nothing while the host stands still. */
const ATTEMPTS = 1000;
/** A turn that took so many times the median was interrupted, by another process or the kernel. */
const INTERRUPTED = 8;
/** Cells of an mbuf, in words. */
const DATA = MBUF.at.data >>> 2;
const DATA_LENGTH = MBUF.at.dataLength >>> 2;
const PACKET_LENGTH = MBUF.at.packetLength >>> 2;

export interface GuestDriver {
  /** Receives up to `max` packets; their mbufs go to the u32 array at `handles`. */
  receive(handles: number, max: number): number;
  /** Sends; returns how many were taken. */
  send(handles: number, count: number): number;
  /** Only who receives hears that something was sent. */
  readonly completesInReceive: boolean;
}

export interface GuestSetup {
  readonly arena: Arena;
  readonly datapath: Datapath;
  readonly driver: GuestDriver;
  readonly baton: Baton;
  /** Address of the pool for packets to send. */
  readonly pool: number;
  /** Of the port. */
  readonly mac: string;
  /** Packets a call. */
  readonly burst: number;
}

/** Does tasks that come as lines on standard input, until it ends. */
export function work(setup: GuestSetup, ended: () => Promise<void>): void {
  const guest = new Work(setup);
  const input = createInterface({ input: process.stdin });
  input.on('line', (line) => {
    const task = parseTask(line);
    setAffinity([task.cpu]);
    say('done', task.how === 'step' ? guest.step(task) : guest.free(task));
  });
  input.on('close', ended);
  say('ready', {});
}

class Work {
  readonly #u16: Uint16Array;
  readonly #u32: Uint32Array;
  readonly #datapath: Datapath;
  readonly #driver: GuestDriver;
  readonly #baton: Baton;
  readonly #pool: number;
  readonly #burst: number;
  readonly #toSend: number;
  readonly #received: number;
  /** First bytes of a frame, which the work on each packet writes and reads. */
  readonly #head = new Uint32Array(4);
  #wrong = 0;
  /** Whether the driver's calls are timed, ms in them so far, and what looking at the clock takes of that. */
  #timing = false;
  #callMs = 0;
  readonly #clockMs = clockCost();

  constructor({ arena, datapath, driver, baton, pool, mac, burst }: GuestSetup) {
    this.#u16 = new Uint16Array(arena.u8.buffer, arena.u8.byteOffset, arena.u8.length >>> 1);
    this.#u32 = arena.u32;
    this.#datapath = datapath;
    this.#driver = driver;
    this.#baton = baton;
    this.#pool = pool;
    this.#burst = burst;
    this.#toSend = arena.reserve('packets to send', burst * 4);
    this.#received = arena.reserve('packets received', burst * 4);
    new Uint8Array(this.#head.buffer).set([...UPLINK_MAC, ...parseMac(mac)!, 8, 0, 0x45, 0]);
  }

  /** Host and guest in turn, a group of packets each. Every other turn times the driver's calls, which disturbs the rest. */
  step({ mode, bytes, group, count }: Task): GuestFigures {
    const workNs: number[] = [];
    const callNs: number[] = [];
    for (let turn = 0; turn < count; turn++) {
      this.#baton.pass();
      this.#baton.wait();
      this.#timing = turn % 2 === 1;
      this.#callMs = 0;
      const start = performance.now();
      if (mode === 'tx') this.#sendGroup(bytes, group);
      else this.#receiveGroup(bytes, group);
      if (this.#timing) callNs.push((this.#callMs * 1e6) / group);
      else workNs.push(((performance.now() - start) * 1e6) / group);
    }
    this.#baton.pass();
    this.#baton.wait();
    return { packets: count * group, ns: mean(callNs), workNs: mean(workNs), wrong: this.#wrong };
  }

  /** Both at once; only the slice behind the warm-up counts. */
  free({ mode, bytes, count }: Task): GuestFigures {
    const burst = this.#burst;
    let have = 0;
    let packets = 0;
    let busy = 0;
    let total = 0;
    this.#baton.pass();
    let last = performance.now();
    const begin = last + WARM_UP_MS;
    const end = begin + count;
    while (last < end) {
      let moved: number;
      if (mode === 'tx') {
        if (have === 0) {
          this.#make(bytes);
          have = burst;
        }
        this.#take(this.#complete(), bytes);
        moved = this.#driver.send(this.#toSend + (burst - have) * 4, have);
        have -= moved;
      } else {
        moved = this.#driver.receive(this.#received, burst);
        this.#take(moved, bytes);
      }
      const now = performance.now();
      if (last >= begin) {
        packets += moved;
        total += now - last;
        if (moved > 0) busy += now - last;
      }
      last = now;
    }
    this.#datapath.mbufFree(this.#toSend + (burst - have) * 4, have);
    this.#baton.wait();
    for (let moved = 1; mode === 'rx' && moved > 0; ) {
      moved = this.#driver.receive(this.#received, burst);
      this.#take(moved, bytes);
    }
    const ns = packets && (busy * 1e6) / packets;
    return { packets, ns, ms: total, busy: total && busy / total, wrong: this.#wrong };
  }

  #beforeCall(): number {
    return this.#timing ? performance.now() : 0;
  }
  #afterCall(before: number): void {
    if (this.#timing) this.#callMs += performance.now() - before - this.#clockMs;
  }

  /** A burst of packets to send: buffers, lengths, headers. */
  #make(bytes: number): void {
    const burst = this.#burst;
    if (this.#datapath.poolGet(this.#pool, this.#toSend, burst) !== burst) throw new Error('no buffers');
    const u32 = this.#u32;
    const list = this.#toSend >>> 2;
    const [h0, h1, h2, h3] = this.#head as unknown as [number, number, number, number];
    for (let i = 0; i < burst; i++) {
      const mbuf = u32[list + i]! >>> 2;
      const data = u32[mbuf + DATA]! >>> 2;
      u32[mbuf + DATA_LENGTH] = bytes;
      u32[mbuf + PACKET_LENGTH] = bytes;
      u32[data] = h0;
      u32[data + 1] = h1;
      u32[data + 2] = h2;
      u32[data + 3] = h3;
    }
  }

  /** Looks at the headers of what came and frees it. */
  #take(count: number, bytes: number): void {
    if (count === 0) return;
    const u16 = this.#u16;
    const u32 = this.#u32;
    const list = this.#received >>> 2;
    const last = this.#head[3]!;
    const type = last & 0xffff;
    const ip = last >>> 16;
    for (let i = 0; i < count; i++) {
      const mbuf = u32[list + i]! >>> 2;
      const data = u32[mbuf + DATA]! >>> 1; // the host's own bytes, where they are shown, begin at even addresses
      if (u16[data + 6] !== type || u16[data + 7] !== ip || u32[mbuf + DATA_LENGTH] !== bytes) this.#wrong++;
    }
    this.#datapath.mbufFree(this.#received, count);
  }

  /** What was sent earlier completes here, where the send call does not look for that; returns what came meanwhile. */
  #complete(): number {
    return this.#driver.completesInReceive ? this.#driver.receive(this.#received, this.#burst) : 0;
  }

  #sendGroup(bytes: number, group: number): void {
    const burst = this.#burst;
    for (let done = 0; done < group; done += burst) {
      this.#make(bytes);
      for (let attempt = 0, sent = 0; sent < burst; attempt++) {
        if (attempt === ATTEMPTS) throw new Error('the driver takes no more packets');
        const before = this.#beforeCall();
        const got = this.#complete();
        sent += this.#driver.send(this.#toSend + sent * 4, burst - sent);
        this.#afterCall(before);
        this.#take(got, bytes);
      }
    }
  }

  #receiveGroup(bytes: number, group: number): void {
    let idle = 0;
    for (let got = 0; got < group; ) {
      const before = this.#beforeCall();
      const count = this.#driver.receive(this.#received, this.#burst);
      this.#afterCall(before);
      idle = count === 0 ? idle + 1 : 0;
      if (idle === ATTEMPTS) throw new Error('packets are missing');
      this.#take(count, bytes);
      got += count;
    }
  }
}

/** Of the turns that nobody interrupted: what a driver puts off, such as completions, comes to some turns only. */
function mean(values: readonly number[]): number {
  const limit = INTERRUPTED * median(values);
  const counted = values.filter((value) => value <= limit);
  return counted.reduce((sum, value) => sum + value, 0) / counted.length;
}

function clockCost(): number {
  const took: number[] = [];
  for (let i = 0; i < 10_000; i++) {
    const before = performance.now();
    took.push(performance.now() - before);
  }
  return median(took.slice(5000)); // compiled
}
