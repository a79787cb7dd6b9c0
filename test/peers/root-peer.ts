// A guest in a process of its own that sends numbered frames of many flows and hashes what comes back, or answers such
// frames, on whatever root it is given: `node root-peer.js ping|pong '{...options}'`, lines of JSON on standard output.
import { createHash, type Hash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { createGuestNic, type GuestNic } from '../../src/apps/guest-nic.js';
import { createDatapath } from '../../src/datapath/datapath.js';
import { Arena } from '../../src/memory/arena.js';
import { MBUF } from '../../src/memory/layout.js';
import { linuxSystem } from '../../src/memory/os/mman.js';
import { openUioDevice } from '../../src/vmbus/uio/device.js';

export interface Phase {
  readonly mtu: number;
  readonly queues: number;
  readonly frames: number;
}

export interface RootPeerOptions {
  readonly root: string;
  readonly uuid: string;
  /** MAC address of the other guest. */
  readonly to: string;
  /** The first one is attached with, the others are reattached with. */
  readonly phases: readonly Phase[];
  /** When the host is gone: attach to the next one and begin anew. */
  readonly again?: boolean;
}

const FLOWS = 32;
const WINDOW = 32;
const HANDLES = 64;
const MTU_MAX = 9000;
const SHORTEST = 74;
const PATIENCE_MS = 15_000;
/** Flow of the frame that ends a phase. */
const MARK = 0xfff;
const AT = { flow: 54, number: 58, payload: 62 } as const;

const [role, text] = process.argv.slice(2) as ['ping' | 'pong', string];
const options = JSON.parse(text) as RootPeerOptions;
const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);
process.stdin.resume().on('end', () => process.exit(0));
const mac = (text: string) => Uint8Array.from(text.split(':'), (byte) => Number.parseInt(byte, 16));

const arena = Arena.create({ bytes: 256 << 20, system: linuxSystem });
const datapath = createDatapath(arena.memory);
const handles = arena.reserve('peer handles', HANDLES * 4);
const noise = Buffer.alloc(MTU_MAX + 4096, 0);
for (let i = 0, x = 12345; i < noise.length; i++) {
  x = (x * 1103515245 + 12345) & 0x7fffffff;
  noise[i] = x >>> 16;
}

const cell = (mbuf: number, name: keyof typeof MBUF.at) => arena.u32[(mbuf + MBUF.at[name]) >>> 2]!;
const bytesOf = (mbuf: number) => Buffer.from(arena.u8.buffer, cell(mbuf, 'data'), cell(mbuf, 'dataLength'));

/** SHA-256 of each flow's payloads in order, and of all flows. */
class Digest {
  readonly #flows = new Map<number, Hash>();

  add(frame: Buffer): void {
    const flow = frame.readUInt32BE(AT.flow);
    const hash = this.#flows.get(flow) ?? createHash('sha256');
    this.#flows.set(flow, hash.update(frame.subarray(AT.number)));
  }

  take(): string {
    const all = createHash('sha256');
    for (const [, hash] of [...this.#flows].sort(([a], [b]) => a - b)) all.update(hash.digest());
    this.#flows.clear();
    return all.digest('hex');
  }
}

let own = new Uint8Array(6);
let failure: string | undefined;
const seen = new Digest();

function write(mbuf: number, flow: number, number: number, bytes: number): void {
  arena.u32[(mbuf + MBUF.at.dataLength) >>> 2] = bytes;
  arena.u32[(mbuf + MBUF.at.packetLength) >>> 2] = bytes;
  const frame = bytesOf(mbuf).fill(0, 0, AT.payload);
  frame.set(mac(options.to), 0);
  frame.set(own, 6);
  frame.writeUInt16BE(0x0800, 12);
  frame.set([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, flow >>> 8, flow & 255, 10, 1, 2, 3], 14);
  frame.writeUInt16BE(bytes - 14, 16);
  frame.writeUInt16BE(0x1000 + flow, 34);
  frame.writeUInt16BE(80, 36);
  frame[46] = 0x50;
  frame.writeUInt32BE(flow, AT.flow);
  frame.writeUInt32BE(number, AT.number);
  noise.copy(frame, AT.payload, (number * 61 + flow) & 4095, ((number * 61 + flow) & 4095) + bytes - AT.payload);
}

const isOurs = (frame: Buffer) => frame.length >= AT.payload && frame.readUInt16BE(12) === 0x0800 && frame[23] === 6;

/** One look at every queue. */
function poll(nic: GuestNic, each: (frame: Buffer, mbuf: number, queue: number) => boolean): void {
  const queues = nic.device.info?.queues ?? 1;
  for (let queue = 0; queue < queues; queue++) {
    const count = nic.device.poll(handles, WINDOW, queue);
    const list = Array.from(arena.u32.subarray(handles >>> 2, (handles >>> 2) + count));
    for (const mbuf of list) {
      if (each(bytesOf(mbuf), mbuf, queue)) continue;
      arena.u32[handles >>> 2] = mbuf;
      datapath.mbufFree(handles, 1);
    }
  }
  nic.device.tick(performance.now());
}

const drop = () => false;

function sendOne(nic: GuestNic, mbuf: number, queue: number): boolean {
  arena.u32[handles >>> 2] = mbuf;
  return nic.device.send(handles, 1, queue) === 1;
}

/** Turns until it holds; the host's death ends it, too. */
async function until(nic: GuestNic, each: Parameters<typeof poll>[1], done: () => boolean): Promise<void> {
  const began = performance.now();
  while (!done() && failure === undefined) {
    if (performance.now() - began > PATIENCE_MS) throw new Error('an answer did not come');
    poll(nic, each);
    await new Promise(setImmediate);
  }
}

async function settled<T>(nic: GuestNic, promise: Promise<T>): Promise<T> {
  let over = false;
  const mark = () => {
    over = true;
  };
  promise.then(mark, mark);
  while (!over) {
    poll(nic, drop);
    await new Promise(setImmediate);
  }
  return promise;
}

async function ping(nic: GuestNic, phase: Phase): Promise<void> {
  const sent = new Digest();
  const used = new Set<number>();
  const { queues } = nic.device.info!;
  const before = nic.device.stats().txDirect ?? 0;
  let back = 0;
  let marks = 0;
  const take = (frame: Buffer, _: number, queue: number) => {
    if (!isOurs(frame)) return false;
    if (frame.readUInt32BE(AT.flow) === MARK) marks++;
    else {
      seen.add(frame);
      used.add(queue);
      back++;
    }
    return false;
  };
  const send = async (flow: number, number: number, bytes: number) => {
    let mbuf = 0;
    await until(nic, take, () => {
      if (mbuf === 0 && datapath.poolGet(nic.smallPool, handles, 1) === 1) {
        mbuf = arena.u32[handles >>> 2]!;
        write(mbuf, flow, number, bytes);
        if (flow !== MARK) sent.add(bytesOf(mbuf));
      }
      return mbuf !== 0 && sendOne(nic, mbuf, flow % queues);
    });
  };
  for (let number = 0; number < phase.frames && failure === undefined; number++) {
    const longest = nic.device.info!.mtu + 14;
    await send(number % FLOWS, number, SHORTEST + ((number * 1009) % (longest - SHORTEST + 1)));
    await until(nic, take, () => number - back < WINDOW);
  }
  await until(nic, take, () => back >= phase.frames);
  await send(MARK, 0, SHORTEST);
  await until(nic, take, () => marks > 0);
  if (failure !== undefined) return;
  const direct = (nic.device.stats().txDirect ?? 0) - before;
  const facts = { mtu: nic.device.info!.mtu, queues, used: used.size, back, direct };
  say({ type: 'phase', ...facts, sent: sent.take(), returned: seen.take() });
}

/** Sends what comes back to where it came from. */
function answer(nic: GuestNic): Parameters<typeof poll>[1] {
  return (frame, mbuf, queue) => {
    if (!isOurs(frame)) return false;
    if (frame.readUInt32BE(AT.flow) === MARK) say({ type: 'mark', received: seen.take() });
    else seen.add(frame);
    for (const [a, b, bytes] of [
      [0, 6, 6],
      [26, 30, 4],
      [34, 36, 2],
    ] as const) {
      const first = Buffer.from(frame.subarray(a, a + bytes));
      frame.copyWithin(a, b, b + bytes);
      frame.set(first, b);
    }
    arena.u32[(mbuf + MBUF.at.flags) >>> 2] = 0;
    return sendOne(nic, mbuf, queue);
  };
}

async function life(): Promise<void> {
  failure = undefined;
  const [first, ...more] = options.phases;
  const device = openUioDevice(arena, options.root, options.uuid);
  const counts = { smallCount: 1024, largeCount: 4 };
  // Buffers for the largest MTU, since they stay.
  const nic = createGuestNic(arena, datapath, device, {
    ...{ ...counts, mtu: MTU_MAX, copyLimit: 512, queues: first!.queues },
    onEvent: (event) => {
      if (event.type === 'failed') failure = event.reason;
    },
  });
  try {
    let info = await settled(nic, nic.device.attach());
    own = mac(info.mac);
    say({ type: 'attached', ...info, monitorId: device.monitorId });
    if (role === 'ping') {
      for (const phase of [first!, ...more]) {
        if (failure !== undefined) break;
        if (phase.mtu !== info.mtu || phase.queues !== info.queues)
          info = await settled(nic, nic.device.reattach({ mtu: phase.mtu, queues: phase.queues }));
        await ping(nic, phase);
      }
      if (failure === undefined) say({ type: 'idle', stats: nic.device.stats() });
    }
    const each = role === 'ping' ? drop : answer(nic);
    while (failure === undefined) {
      poll(nic, each);
      await new Promise(setImmediate);
    }
  } finally {
    await settled(nic, nic.device.detach());
    nic.close();
    device.close();
    seen.take();
  }
  say({ type: 'failed', reason: failure, regions: arena.regions().length, files: readdirSync('/proc/self/fd').length });
}

for (let alone = false; !alone; alone = options.again !== true) {
  try {
    await life();
  } catch (error) {
    say({ type: 'error', message: (error as Error).message });
    if (options.again !== true) process.exit(1);
    await sleep(50);
  }
}
process.exit(0);
