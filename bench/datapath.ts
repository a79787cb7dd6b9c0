// The burst loops: guest half and host half measured apart, both in one thread, and in two threads.
import { Worker } from 'node:worker_threads';
import { createDatapath } from '../src/datapath/datapath.js';
import { Arena } from '../src/memory/arena.js';
import { SCRATCH } from '../src/memory/layout.js';
import { linuxSystem } from '../src/memory/os/mman.js';
import { createRig, type Rig } from './rig.js';
import { BURST, createTraffic, median, type Traffic } from './traffic.js';

export const SIZES = [64, 1500] as const;
export const MODES = ['rx', 'tx', 'echo'] as const;
export type Mode = (typeof MODES)[number];

export interface Halves {
  /** ns per packet: send and take completions, 8 packets to a message. */
  readonly guestTransmit: number;
  /** ns per packet: poll, complete and free buffers. */
  readonly guestReceive: number;
  readonly hostReceive: number;
  readonly hostDeliver: number;
}

const GROUP = 256;

function makeRig(): Rig {
  const arena = Arena.create({ bytes: 256 << 20, system: linuxSystem });
  return createRig(arena, createDatapath(arena.memory));
}

/** ns that a fixed piece of work takes: figures of different machines and moments compare by their ratio to it. */
export function calibrate(): number {
  const words = new Uint32Array(4096);
  const times: number[] = [];
  let sum = 0;
  for (let round = 0; round < 60; round++) {
    const start = performance.now();
    for (let i = 0; i < 100_000; i++) {
      sum = (Math.imul(sum, 31) + words[i & 4095]!) | 0;
      words[(i * 7) & 4095] = sum;
    }
    times.push(((performance.now() - start) * 1e6) / 100_000);
  }
  return median(times);
}

/** Each half over groups of 256 packets, medians. */
export function measureHalves(bytes: number, groups: number): Halves {
  const rig = makeRig();
  const traffic = createTraffic(rig, bytes);
  const spent: Record<keyof Halves, number[]> = {
    guestTransmit: [],
    guestReceive: [],
    hostReceive: [],
    hostDeliver: [],
  };
  const add = (half: keyof Halves, ms: number) => spent[half].push((ms * 1e6) / GROUP);
  for (let group = 0; group < groups; group++) {
    traffic.prepare(GROUP);
    let start = performance.now();
    traffic.guestSend(GROUP);
    const sending = performance.now() - start;
    start = performance.now();
    for (let at = 0; at < GROUP; at += BURST) {
      traffic.hostPoll();
      traffic.hostComplete();
    }
    add('hostReceive', performance.now() - start);
    start = performance.now();
    traffic.guestPoll(BURST);
    add('guestTransmit', sending + performance.now() - start);
    start = performance.now();
    for (let at = 0; at < GROUP; at += BURST) traffic.hostSend(BURST);
    const delivering = performance.now() - start;
    start = performance.now();
    for (let got = 0; got < GROUP; ) {
      const n = traffic.guestPoll(BURST);
      traffic.guestFree(n);
      got += n;
    }
    add('guestReceive', performance.now() - start);
    start = performance.now();
    traffic.hostPoll();
    add('hostDeliver', delivering + performance.now() - start);
  }
  rig.close();
  return {
    guestTransmit: median(spent.guestTransmit),
    guestReceive: median(spent.guestReceive),
    hostReceive: median(spent.hostReceive),
    hostDeliver: median(spent.hostDeliver),
  };
}

/** One round of `packets` packets with both halves stepped in turn; returns the guest's packets. */
function stepBoth(traffic: Traffic, mode: Mode, packets: number): number {
  let done = 0;
  while (done < packets) {
    if (mode !== 'rx') {
      traffic.prepare(BURST);
      traffic.guestSend(BURST);
    }
    const frames = traffic.hostPoll();
    if (mode === 'rx') traffic.hostSend(BURST);
    else if (mode === 'echo') traffic.hostSend(frames);
    traffic.hostComplete();
    const got = traffic.guestPoll(BURST * 2);
    traffic.guestFree(got);
    done += mode === 'tx' ? BURST : got;
  }
  return done;
}

/** Both halves in one thread: millions of packets per second, best and median of `rounds`. */
export function measureOneThread(bytes: number, mode: Mode, rounds: number): number {
  const rig = makeRig();
  const traffic = createTraffic(rig, bytes);
  const rates: number[] = [];
  stepBoth(traffic, mode, 200_000);
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    const packets = stepBoth(traffic, mode, 200_000);
    rates.push(packets / (performance.now() - start) / 1000);
  }
  rig.close();
  return median(rates);
}

export interface TwoThreads {
  /** Millions of packets per second at the guest. */
  readonly mpps: number;
  /** Median round trip of a cache line between the two cores, ns: about 100 near, 480 far. */
  readonly roundTripNs: number;
}

/** What the two threads share besides the arena: u32 words at `control`. */
export const CONTROL = { PING: 0, PONG: 16, MODE: 32, READY: 48 } as const;
/** Values of the MODE word. */
export const COMMAND = { PING: 0, TX: 1, RX: 2, ECHO: 3, STOP: 4 } as const;

/** Guest here, host in a worker; slices of 80 ms, each after a measurement of the cores' distance. */
export async function measureTwoThreads(bytes: number, mode: Mode, slices: number): Promise<TwoThreads> {
  const rig = makeRig();
  const control = rig.arena.reserve('bench control', 256) >>> 2;
  const scratch = rig.arena.reserve('host scratch', SCRATCH.END);
  const words = new Int32Array(rig.arena.memory.buffer);
  const { arena, datapath, ...addresses } = rig;
  const setup = { memory: arena.memory, rig: { ...addresses, close: undefined }, control, scratch, bytes };
  const worker = new Worker(new URL('./host-thread.js', import.meta.url), { workerData: setup });
  const traffic = createTraffic(rig, bytes);
  while (Atomics.load(words, control + CONTROL.READY) === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  const rates: number[] = [];
  const trips: number[] = [];
  let sequence = 0;
  for (let slice = 0; slice < slices; slice++) {
    Atomics.store(words, control + CONTROL.MODE, COMMAND.PING);
    trips.push(roundTrip(words, control, sequence));
    sequence += 1_000_000;
    Atomics.store(
      words,
      control + CONTROL.MODE,
      mode === 'tx' ? COMMAND.TX : mode === 'rx' ? COMMAND.RX : COMMAND.ECHO,
    );
    rates.push(guestSlice(traffic, rig, mode, 80));
  }
  Atomics.store(words, control + CONTROL.MODE, COMMAND.STOP);
  await new Promise((resolve) => worker.once('exit', resolve));
  return { mpps: median(rates), roundTripNs: median(trips) };
}

/** Median ns of a word's way to the other thread and back, in groups of 100 for some milliseconds. */
function roundTrip(words: Int32Array, control: number, from: number): number {
  const groups: number[] = [];
  const begin = performance.now();
  for (let sequence = from; performance.now() - begin < 5; ) {
    const start = performance.now();
    for (let i = 0; i < 100; i++) {
      Atomics.store(words, control + CONTROL.PING, ++sequence);
      while (Atomics.load(words, control + CONTROL.PONG) !== sequence);
    }
    groups.push(((performance.now() - start) * 1e6) / 100);
  }
  return median(groups);
}

/** The guest's side of one slice. */
function guestSlice(traffic: Traffic, rig: Rig, mode: Mode, ms: number): number {
  const start = performance.now();
  let packets = 0;
  let prepared = false;
  for (let turn = 0; ; turn++) {
    if (mode !== 'rx') {
      if (!prepared) traffic.prepare(BURST);
      const taken = traffic.guestSend(BURST);
      // All or nothing at this burst size in practice; what was not taken goes back.
      if (taken > 0 && taken < BURST) rig.datapath.mbufFree(rig.handles + taken * 4, BURST - taken);
      prepared = taken === 0;
      if (mode === 'tx') packets += taken;
    }
    const spare = prepared ? 512 * 4 : 0;
    const got = rig.datapath.guestPoll(rig.queue, rig.handles + spare, BURST);
    rig.datapath.mbufFree(rig.handles + spare, got);
    if (mode !== 'tx') packets += got;
    if ((turn & 255) === 0 && performance.now() - start >= ms) break;
  }
  const seconds = (performance.now() - start) / 1000;
  if (prepared) rig.datapath.mbufFree(rig.handles, BURST);
  return packets / seconds / 1e6;
}
