// Two devices of one process: device 0 on a host that writes its own bytes, device 1 on one that echoes everything.
import assert from 'node:assert/strict';
import { createGuestNic, type GuestNic } from '../../src/apps/guest-nic.js';
import { createDatapath, type Datapath } from '../../src/datapath/datapath.js';
import { Arena } from '../../src/memory/arena.js';
import { MBUF } from '../../src/memory/layout.js';
import { poolFree } from '../../src/memory/pool.js';
import { FakeHost, words } from '../../src/netvsc/fake-host.js';
import type { NetvscEvent } from '../../src/netvsc/types.js';
import type { VmbusOffer } from '../../src/vmbus/device.js';
import { createMemoryBus } from '../../src/vmbus/memory/bus.js';
import { Bystander, udpFrame } from './bystander.js';

const MAC = Uint8Array.of(0x00, 0x15, 0x5d, 1, 2, 3);
const PEER = Uint8Array.of(2, 0, 0, 0, 0, 1);
const SMALL = 256;
const LARGE = 4;
const BURST = 32;
export const TIMEOUT_MS = 100;
/** Size of the buffers, and what FakeHost makes of the receive buffer. */
export const BUFFER_BYTES = 512 << 10;
export const SECTION_BYTES = 1806;

/** A host that does what it is told. */
export class BadHost extends FakeHost {
  readonly offer: VmbusOffer;

  constructor(offer: VmbusOffer) {
    super(offer);
    this.offer = offer;
  }

  /** Puts bytes into the receive buffer. */
  place(offset: number, bytes: Uint8Array): void {
    this.offer.arena.u8.set(bytes, this.offer.receiveBuffer.address + offset);
  }

  moveIndex(change: (now: number, dataBytes: number) => number): void {
    const { control, dataBytes } = this.offer.toGuest;
    const cells = this.offer.arena.u32;
    cells[control >>> 2] = change(cells[control >>> 2]!, dataBytes);
  }

  /** Writes a packet after changing 16-bit cells of its descriptor (0 type, 1 data offset, 2 length, 3 flags). */
  bent(packet: Uint8Array, cells: Readonly<Record<number, number>>): void {
    const view = new DataView(packet.buffer);
    for (const [index, value] of Object.entries(cells)) view.setUint16(Number(index) * 2, value, true);
    this.write(packet);
  }

  /** Forgets what was changed for one row. */
  behave(): void {
    this.answers.clear();
    this.onRequest = undefined;
    this.holdSends = false;
    this.held.length = 0;
  }
}

/** Gives back every frame as it came. */
class EchoHost extends FakeHost {
  #next = 0;

  override step(): void {
    super.step();
    for (const bytes of this.frames.splice(0)) {
      const message = new Uint8Array(256 + bytes.length);
      message.set(words(1, message.length, 248, bytes.length));
      message.set(bytes, 256);
      this.transfer(16 + (this.#next++ % 200), message, 0);
    }
  }
}

/** The device that the bad host serves. */
export class Victim {
  readonly nic: GuestNic;
  readonly events: NetvscEvent[] = [];
  readonly received: Uint8Array[] = [];
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #handles: number;
  #nowMs = 0;

  constructor(arena: Arena, datapath: Datapath, device: Parameters<typeof createGuestNic>[2]) {
    this.#arena = arena;
    this.#datapath = datapath;
    this.nic = createGuestNic(arena, datapath, device, {
      smallCount: SMALL,
      largeCount: LARGE,
      requestTimeoutMs: TIMEOUT_MS,
      onEvent: (event) => this.events.push(event),
    });
    this.#handles = arena.reserve('victim handles', BURST * 4);
  }

  poll(): void {
    const count = this.nic.device.poll(this.#handles, BURST);
    for (let i = 0; i < count; i++) {
      const mbuf = this.#arena.u32[(this.#handles >>> 2) + i]!;
      const data = this.#arena.u32[(mbuf + MBUF.at.data) >>> 2]!;
      this.received.push(this.#arena.u8.slice(data, data + this.#arena.u32[(mbuf + MBUF.at.dataLength) >>> 2]!));
    }
    this.#datapath.mbufFree(this.#handles, count);
    this.#nowMs += 5;
    this.nic.device.tick(this.#nowMs);
  }

  /** Sends frames of 100 bytes, at most 32; returns how many were taken. */
  send(count = 1): number {
    const got = this.#datapath.poolGet(this.nic.smallPool, this.#handles, count);
    for (let i = 0; i < got; i++) {
      const mbuf = this.#arena.u32[(this.#handles >>> 2) + i]!;
      this.#arena.u8.set(frame(100, i), this.#arena.u32[(mbuf + MBUF.at.data) >>> 2]!);
      this.#arena.u32[(mbuf + MBUF.at.dataLength) >>> 2] = 100;
      this.#arena.u32[(mbuf + MBUF.at.packetLength) >>> 2] = 100;
    }
    const taken = this.nic.device.send(this.#handles, got);
    this.#datapath.mbufFree(this.#handles + taken * 4, got - taken);
    return taken;
  }

  /** Detached, the device owes nobody a buffer. */
  checkBuffers(): void {
    const free = [poolFree(this.#arena, this.nic.smallPool), poolFree(this.#arena, this.nic.largePool)];
    assert.deepEqual(free, [SMALL, LARGE], 'packet buffers');
  }

  close(): void {
    this.#arena.release(this.#handles);
    this.nic.close();
  }
}

/** A frame that the peer's station sends to the guest. */
export function frame(bytes: number, seed: number): Uint8Array {
  return udpFrame(PEER, MAC, 7, bytes, seed);
}

export interface TwoDevices {
  readonly arena: Arena;
  readonly host: BadHost;
  readonly victim: Victim;
  readonly bystander: Bystander;
  turn(): Promise<void>;
  run<T>(promise: Promise<T>): Promise<T>;
  close(): Promise<void>;
}

export async function createTwoDevices(): Promise<TwoDevices> {
  const arena = Arena.create({ bytes: 64 << 20 });
  const datapath = createDatapath(arena.memory);
  const free = arena.free().bytes;
  const sizes = { ringBytes: 64 << 10, receiveBytes: BUFFER_BYTES, sendBytes: BUFFER_BYTES };
  const bus = createMemoryBus(arena, { devices: 2, ...sizes });
  const [bad, good] = [bus.pairs[0]!, bus.pairs[1]!];
  const host = new BadHost(bad.offer);
  const echo = new EchoHost(good.offer);
  const victim = new Victim(arena, datapath, bad.device);
  const bystander = new Bystander(arena, datapath, good.device, PEER, () => echo.step());
  const turn = async () => {
    host.step();
    victim.poll();
    await bystander.turn();
  };
  const run = async <T>(promise: Promise<T>): Promise<T> => {
    let settled = false;
    const mark = () => {
      settled = true;
    };
    promise.then(mark, mark);
    for (let turns = 0; !settled; turns++) {
      assert.ok(turns < 2000, `not settled; the host heard ${host.log.join(', ')}`);
      await turn();
    }
    return promise;
  };
  await bystander.attach();
  return {
    arena,
    host,
    victim,
    bystander,
    turn,
    run,
    async close() {
      try {
        await run(victim.nic.device.detach());
        victim.close();
        await bystander.close();
      } finally {
        bus.close();
      }
      assert.equal(arena.free().bytes, free, 'all arena memory came back');
    },
  };
}

/** An RNDIS packet message with per-packet infos in front of the data. */
export function message(
  parts: { data?: Uint8Array; infos?: Uint8Array; cells?: Readonly<Record<number, number>> } = {},
): Uint8Array {
  const { data = frame(200, 5), infos = new Uint8Array(0), cells = {} } = parts;
  const bytes = new Uint8Array(44 + infos.length + data.length);
  bytes.set(words(1, bytes.length, 36 + infos.length, data.length, 0, 0, 0, infos.length ? 36 : 0, infos.length));
  bytes.set(infos, 44);
  bytes.set(data, 44 + infos.length);
  const view = new DataView(bytes.buffer);
  for (const [index, value] of Object.entries(cells)) view.setUint32(Number(index) * 4, value, true);
  return bytes;
}

/** Byte offset of a section that no other message uses. */
export const sectionAt = (index: number): number => (16 + index) * SECTION_BYTES;
