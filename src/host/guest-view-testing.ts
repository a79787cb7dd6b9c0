// A host whose guests' memory cannot be mapped: in one arena, or in a machine directory with this process as the guests.
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { createDatapath, type Datapath } from '../datapath/datapath.js';
import { Arena } from '../memory/arena.js';
import { viewOf } from '../memory/os/libc.js';
import { linuxSystem, MAPPING, mmap, munmap, PROTECTION } from '../memory/os/mman.js';
import type { VmbusOffer } from '../vmbus/device.js';
import { createMemoryBus } from '../vmbus/memory/bus.js';
import { openUioDevice } from '../vmbus/uio/device.js';
import { testMachineName } from '../vmbus/uio/testing.js';
import { Host } from './host.js';
import { nicMac } from './identity.js';
import { packet, receive } from './raw-frames-testing.js';
import { concat, hexBytes, RawGuest, type RawRange } from './raw-guest-testing.js';

const V61 = 0x60001;
export const PAGE = 4096;
export const MTU = 9014;

/** Pages of a guest. */
export interface Memory {
  readonly buffer: Buffer;
  readonly pfn: bigint;
}

export interface World {
  readonly arena: Arena;
  readonly host: Host;
  readonly sender: RawGuest;
  readonly receiver: RawGuest;
  step(): void;
  /** Memory that the host cannot map. */
  allocate(bytes: number): Memory;
  message(bytes: number, seed: number): Uint8Array;
}

interface WorldOptions {
  /** Stands between the host and its data path, or its bus. */
  readonly datapath?: (datapath: Datapath) => Datapath;
  readonly offer?: (offer: VmbusOffer) => VmbusOffer;
}

/** An RNDIS packet message around a frame of bytes that `seed` decides. */
function message(machine: string, bytes: number, seed: number): Uint8Array {
  const body = Uint8Array.from({ length: bytes - 14 }, (_, i) => (i * 13 + seed * 31 + (i >> 8)) & 0xff);
  return packet(concat(nicMac(machine, 1), nicMac(machine, 0), hexBytes('88b5'), body));
}

function memoryWorld(t: TestContext, options: WorldOptions = {}): World {
  const arena = Arena.create({ bytes: 24 << 20 });
  const real = createDatapath(arena.memory);
  const datapath = options.datapath?.(real) ?? real;
  const free = arena.free().bytes;
  const sizes = { ringBytes: 512 << 10, receiveBytes: 1 << 20, sendBytes: 64 << 10 };
  const bus = createMemoryBus(arena, { devices: 2, unmappable: true, ...sizes });
  const offers = bus.pairs.map(({ offer }) => options.offer?.(offer) ?? offer);
  const host = Host.create({ arena, datapath, machine: 'test', profile: 'ws2019', nics: [{}, {}], offers });
  t.after(() => {
    host.close();
    bus.close();
    assert.equal(arena.free().bytes, free);
  });
  const step = () => {
    for (let i = 0; i < 8; i++) host.step();
  };
  const [sender, receiver] = bus.pairs.map((pair) => new RawGuest(arena, pair, step)) as [RawGuest, RawGuest];
  const allocate = (bytes: number) => {
    const address = bus.memory.allocate('guest pages', bytes);
    return { buffer: Buffer.from(arena.buffer, address, bytes), pfn: bus.memory.pfn(address) };
  };
  return { arena, host, sender, receiver, step, allocate, message: (bytes, seed) => message('test', bytes, seed) };
}

/** A machine directory. The guests are this process, their memory is anonymous. */
export function processWorld(t: TestContext, options: WorldOptions = {}): World {
  const arena = Arena.create({ bytes: 128 << 20, system: linuxSystem });
  const machine = testMachineName();
  const real = createDatapath(arena.memory);
  const nics = [{ ringBytes: 512 << 10 }, { ringBytes: 512 << 10 }];
  const host = Host.create({
    ...{ arena, machine, nics, datapath: options.datapath?.(real) ?? real, profile: 'ws2019' },
  });
  t.after(() => host.close());
  let nowMs = 0;
  const step = () => {
    host.tick(++nowMs);
    for (let i = 0; i < 8; i++) host.step();
  };
  const guestArena = Arena.create({ bytes: 128 << 20, system: linuxSystem });
  const guest = (index: number) => {
    const { offer } = host.nics[index]!;
    const device = openUioDevice(guestArena, host.path!, offer.uuid);
    t.after(() => device.close());
    return new RawGuest(guestArena, { device, offer }, step);
  };
  const allocate = (bytes: number) => anonymous(t, bytes);
  const [sender, receiver] = [guest(0), guest(1)];
  return { arena, host, sender, receiver, step, allocate, message: (bytes, seed) => message(machine, bytes, seed) };
}

export function anonymous(
  t: TestContext,
  bytes: number,
  protection: number = PROTECTION.READ | PROTECTION.WRITE,
): Memory {
  const address = mmap(0, bytes, protection, MAPPING.PRIVATE | MAPPING.ANONYMOUS, -1, 0);
  t.after(() => munmap(address, bytes));
  return { buffer: Buffer.from(viewOf(address, bytes)), pfn: BigInt(address / PAGE) };
}

export const WORLDS = { memory: memoryWorld, process: processWorld } as const;

export function attach({ sender, receiver }: World, mtu = MTU): void {
  for (const guest of [sender, receiver]) guest.attach(V61, { mtu });
}

/** The range of these bytes; `bytes` are put there. */
export function place({ buffer, pfn }: Memory, at: number, bytes: Uint8Array): RawRange {
  buffer.set(bytes, at);
  const first = Math.floor(at / PAGE);
  const count = Math.floor((at + bytes.length - 1) / PAGE) - first + 1;
  const pfns = Array.from({ length: count }, (_, i) => pfn + BigInt(first + i));
  return { offset: at % PAGE, bytes: bytes.length, pfns };
}

const frameOf = (bytes: Uint8Array) => Buffer.from(bytes.subarray(44));

/** Takes what came, which is to be the frames of these messages, in this order. */
export function arrived(guest: RawGuest, messages: readonly Uint8Array[], what = '', mtu = MTU): void {
  const got = receive(guest, mtu).map(({ data }) => Buffer.from(data));
  assert.equal(got.length, messages.length, `frames that arrived; ${what}`);
  for (const [i, bytes] of messages.entries()) assert.ok(got[i]!.equals(frameOf(bytes)), `frame ${i}; ${what}`);
}
