// A device and a fake host in one arena, stepped in turn until a promise settles; time is a number that the rig counts.
import { createDatapath, type Datapath } from '../datapath/datapath.js';
import { Arena } from '../memory/arena.js';
import { MBUF } from '../memory/layout.js';
import { createPool, HEADROOM, LARGE_ROOM, poolBytes, poolFree } from '../memory/pool.js';
import type { Region, VmbusDevice } from '../vmbus/device.js';
import { createMemoryBus, type MemoryBus } from '../vmbus/memory/bus.js';
import { NetvscDevice } from './device.js';
import { FakeHost, words } from './fake-host.js';
import type { NetvscEvent, NetvscOptions } from './types.js';

export const TIMEOUT_MS = 200;
const STEP_MS = 5;
const SMALL = { name: 'small', count: 512, room: 2048, headroom: HEADROOM };
const LARGE = { name: 'large', count: 4, room: LARGE_ROOM, headroom: HEADROOM };

export interface Rig {
  readonly arena: Arena;
  readonly datapath: Datapath;
  readonly bus: MemoryBus;
  readonly device: VmbusDevice;
  readonly netvsc: NetvscDevice;
  readonly host: FakeHost;
  readonly events: NetvscEvent[];
  /** Packets that poll() handed up, copied out and freed. */
  readonly received: Uint8Array[];
  readonly small: number;
  readonly handles: number;
  /** Steps both sides until the promise settles. */
  run<T>(promise: Promise<T>): Promise<T>;
  /** One turn of host and device. */
  turn(): Promise<void>;
  /** Sends frames; returns how many were taken. */
  send(...frames: Uint8Array[]): number;
  /** The same on another queue. */
  sendOn(queue: number, ...frames: Uint8Array[]): number;
  freeSmall(): number;
  freeLarge(): number;
  close(): void;
}

export interface RigOptions extends NetvscOptions {
  readonly bytes?: { readonly ring?: number; readonly receive?: number; readonly send?: number };
  readonly largePool?: boolean;
}

/** Every rig of a test file shares one arena: compiled memory is dear, address space is not. */
let shared: { arena: Arena; datapath: Datapath } | undefined;

export function createRig(options: RigOptions = {}): Rig {
  const { bytes, largePool, ...own } = options;
  shared ??= createShared();
  const { arena, datapath } = shared;
  const bus = createMemoryBus(arena, {
    ringBytes: bytes?.ring ?? 64 << 10,
    receiveBytes: bytes?.receive ?? 256 << 10,
    sendBytes: bytes?.send ?? 256 << 10,
  });
  const { device, offer } = bus.pairs[0]!;
  const smallBytes = (poolBytes(SMALL) + 4095) & ~4095;
  const packetMemory: Region = {
    bytes: smallBytes + ((poolBytes(LARGE) + 4095) & ~4095),
    address: device.memory.allocate('packets', smallBytes + ((poolBytes(LARGE) + 4095) & ~4095)),
  };
  const small = createPool(arena, packetMemory.address, SMALL);
  const large = createPool(arena, packetMemory.address + smallBytes, LARGE);
  const handles = arena.reserve('rig handles', 1024);
  const events: NetvscEvent[] = [];
  const received: Uint8Array[] = [];
  const host = new FakeHost(offer);
  const netvsc = new NetvscDevice({
    device,
    datapath,
    pools: { small, large: largePool === false ? 0 : large },
    packetMemory,
    options: { requestTimeoutMs: TIMEOUT_MS, ...own },
    onEvent: (event) => events.push(event),
  });
  let nowMs = 0;
  const rig: Rig = {
    arena,
    datapath,
    bus,
    device,
    netvsc,
    host,
    events,
    received,
    small,
    handles,
    async turn() {
      host.step();
      const count = netvsc.poll(handles, 64);
      for (let i = 0; i < count; i++) received.push(mbufBytes(arena, arena.u32[(handles >>> 2) + i]!));
      datapath.mbufFree(handles, count);
      nowMs += STEP_MS;
      netvsc.tick(nowMs);
      for (let i = 0; i < 8; i++) await null;
    },
    async run<T>(promise: Promise<T>): Promise<T> {
      let settled = false;
      const mark = (): void => {
        settled = true;
      };
      promise.then(mark, mark);
      for (let turns = 0; !settled; turns++) {
        if (turns > 5000) throw new Error(`rig: not settled after ${turns} turns; host heard ${host.log.join(', ')}`);
        await rig.turn();
      }
      return promise;
    },
    send: (...frames) => rig.sendOn(0, ...frames),
    sendOn(queue, ...frames) {
      const count = datapath.poolGet(small, handles, frames.length);
      for (const [i, frame] of frames.slice(0, count).entries())
        fillMbuf(arena, arena.u32[(handles >>> 2) + i]!, frame);
      const taken = netvsc.send(handles, count, queue);
      datapath.mbufFree(handles + 4 * taken, count - taken);
      return taken;
    },
    freeSmall: () => poolFree(arena, small),
    freeLarge: () => poolFree(arena, large),
    close() {
      void netvsc.detach();
      arena.release(handles);
      arena.release(small);
      arena.release(large);
      bus.close();
    },
  };
  return rig;
}

function createShared(): { arena: Arena; datapath: Datapath } {
  const arena = Arena.create({ bytes: 64 << 20 });
  return { arena, datapath: createDatapath(arena.memory) };
}

/** Runs `body` with a rig and cleans up, whatever happens. */
export async function withRig(options: RigOptions, body: (rig: Rig) => Promise<void>): Promise<void> {
  const rig = createRig(options);
  try {
    await body(rig);
  } finally {
    rig.close();
  }
}

/** The host answers requests for subchannels with this status and count, and offers so many of them. Returns what it is asked for. */
export function grantQueues(rig: Rig, count: number, offers = count, status = 1): number[] {
  const asked: number[] = [];
  rig.host.answers.set('nvsp 133', (host, request) => {
    asked.push(request.bytes.getUint32(8, true));
    host.complete(request, words(133, status, count));
    for (let i = 0; i < offers; i++) rig.bus.pairs[0]!.offer.createSubchannel().publish();
  });
  return asked;
}

/** A frame that is neither IPv4 nor IPv6 and whose bytes depend on the seed. */
export function frame(bytes: number, seed: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => (i === 12 ? 0x88 : i === 13 ? 0xb5 : (i * 7 + seed) & 0xff));
}

/** Bytes of a packet, all segments. */
function mbufBytes(arena: Arena, mbuf: number): Uint8Array {
  const parts: number[] = [];
  for (let segment = mbuf; segment !== 0; segment = arena.u32[(segment + MBUF.at.next) >>> 2]!) {
    const data = arena.u32[(segment + MBUF.at.data) >>> 2]!;
    parts.push(...arena.u8.subarray(data, data + arena.u32[(segment + MBUF.at.dataLength) >>> 2]!));
  }
  return Uint8Array.from(parts);
}

function fillMbuf(arena: Arena, mbuf: number, bytes: Uint8Array): void {
  arena.u8.set(bytes, arena.u32[(mbuf + MBUF.at.data) >>> 2]!);
  arena.u32[(mbuf + MBUF.at.dataLength) >>> 2] = bytes.length;
  arena.u32[(mbuf + MBUF.at.packetLength) >>> 2] = bytes.length;
}
