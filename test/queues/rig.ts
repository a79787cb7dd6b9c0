// Two guests on one switch, the second one with several queues, on either backend; and flows of numbered TCP packets whose
// hash is computed here bit by bit, as Microsoft describes it.
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { createGuestNic, type GuestNic } from '../../src/apps/guest-nic.js';
import { createDatapath, type Datapath } from '../../src/datapath/datapath.js';
import { Host, type HostNicOptions } from '../../src/host/host.js';
import { nicMac, nicUuid } from '../../src/host/identity.js';
import type { ProfileName } from '../../src/host/profiles.js';
import { Arena } from '../../src/memory/arena.js';
import { MBUF, PACKET_FLAG } from '../../src/memory/layout.js';
import { linuxSystem } from '../../src/memory/os/mman.js';
import type { NetvscInfo, NetvscOptions } from '../../src/netvsc/types.js';
import { createMemoryBus } from '../../src/vmbus/memory/bus.js';
import { openUioDevice } from '../../src/vmbus/uio/device.js';
import { UioGuestMemory } from '../../src/vmbus/uio/guest-memory.js';
import { machineRoot } from '../../src/vmbus/uio/root.js';
import { testMachineName } from '../../src/vmbus/uio/testing.js';

export const BACKENDS = ['memory', 'uio'] as const;
export type Backend = (typeof BACKENDS)[number];

const HANDLES = 128;
const RING_BYTES = 64 << 10;
const FRAME_BYTES = 74;
export const KEY = Buffer.from(
  '6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa',
  'hex',
);

let hostSide: { arena: Arena; datapath: Datapath } | undefined;
let guestSide: { arena: Arena; datapath: Datapath } | undefined;

function side(mib: number): { arena: Arena; datapath: Datapath } {
  const arena = Arena.create({ bytes: mib << 20, system: linuxSystem });
  return { arena, datapath: createDatapath(arena.memory) };
}

export interface Received {
  readonly queue: number;
  readonly flow: number;
  readonly number: number;
  /** Undefined: the host sent none. */
  readonly hash: number | undefined;
}

export interface QueueRig {
  readonly host: Host;
  readonly sender: GuestNic;
  readonly receiver: GuestNic;
  readonly guestArena: Arena;
  readonly hostArena: Arena;
  /** What the receiver got, in the order of its polls. */
  readonly received: Received[];
  /** Packets that the sender got. */
  readonly returned: number[];
  /** One turn of everything. */
  turn(): Promise<void>;
  run<T>(promise: Promise<T>): Promise<T>;
  /** Turns until this holds. */
  until(done: () => boolean): Promise<void>;
  attach(): Promise<NetvscInfo>;
  /** Sends packet `number` of each of these flows; all are taken. */
  send(flows: readonly number[], number: number): Promise<void>;
  /** Sends one packet from the receiver, on this queue. */
  reply(queue: number, flow: number): void;
  close(): void;
}

export interface QueueRigOptions {
  readonly queues: number;
  readonly profile?: ProfileName;
  readonly monitor?: boolean;
  readonly options?: NetvscOptions;
}

export function createQueueRig(t: TestContext, backend: Backend, options: QueueRigOptions): QueueRig {
  hostSide ??= side(256);
  if (backend === 'uio') guestSide ??= side(128);
  const hosts = hostSide;
  const guests = backend === 'uio' ? guestSide! : hostSide;
  let nowMs = 0;
  const undo: (() => void)[] = [];
  const close = () => {
    for (const action of undo.splice(0).reverse()) action();
  };
  t.after(close);
  const machine = testMachineName();
  const more = options.monitor ? { monitor: true } : {};
  const nic: HostNicOptions = { ringBytes: 256 << 10, subchannelRingBytes: RING_BYTES, ...more };
  const profile = options.profile ?? 'ws2019';
  const common = { ...hosts, machine, profile, nics: [nic, nic] };
  const bus =
    backend === 'memory'
      ? createMemoryBus(hosts.arena, {
          devices: 2,
          ringBytes: RING_BYTES,
          receiveBytes: 8 << 20,
          sendBytes: 4 << 20,
          ...more,
        })
      : undefined;
  if (bus) undo.push(() => bus.close());
  const host = Host.create(bus ? { ...common, offers: bus.pairs.map(({ offer }) => offer) } : common);
  const memory = new UioGuestMemory(guests.arena);
  const nics = [0, 1].map((index) => {
    const device = bus
      ? bus.pairs[index]!.device
      : openUioDevice(guests.arena, host.path!, nicUuid(machine, index), {
          memory,
          access: machineRoot(host.path!, options.monitor),
        });
    const made = createGuestNic(guests.arena, guests.datapath, device, {
      smallCount: 2048,
      largeCount: 4,
      ...(index === 1 ? { queues: options.queues, ...options.options } : {}),
    });
    undo.push(() => made.close());
    return made;
  });
  undo.push(() => {
    // Without a host the drivers let go of everything at once.
    host.close();
    for (const { device } of nics) {
      device.tick(nowMs + 1e6);
      void device.detach();
    }
  });
  const [sender, receiver] = nics as [GuestNic, GuestNic];
  const { arena, datapath } = guests;
  const handles = arena.reserve('queue rig handles', HANDLES * 4);
  undo.push(() => arena.release(handles));
  const received: Received[] = [];
  const returned: number[] = [];
  const macs = [nicMac(machine, 0), nicMac(machine, 1)] as const;

  const cell = (mbuf: number, name: keyof typeof MBUF.at) => arena.u32[(mbuf + MBUF.at[name]) >>> 2]!;
  const fill = (mbuf: number, from: number, flow: number, number: number) => {
    const bytes = packetBytes(macs[from]!, macs[1 - from]!, flow, number);
    arena.u8.set(bytes, cell(mbuf, 'data'));
    arena.u32[(mbuf + MBUF.at.dataLength) >>> 2] = bytes.length;
    arena.u32[(mbuf + MBUF.at.packetLength) >>> 2] = bytes.length;
  };
  const drain = (nic: GuestNic, queue: number, each: (mbuf: number) => void) => {
    const count = nic.device.poll(handles, HANDLES, queue);
    for (let i = 0; i < count; i++) each(arena.u32[(handles >>> 2) + i]!);
    datapath.mbufFree(handles, count);
  };
  const word = (mbuf: number, at: number) => Buffer.from(arena.u8.buffer, cell(mbuf, 'data') + at, 4).readUInt32BE();
  const rig: QueueRig = {
    host,
    sender,
    receiver,
    guestArena: guests.arena,
    hostArena: hosts.arena,
    received,
    returned,
    async turn() {
      nowMs += 0.5;
      host.step();
      host.tick(nowMs);
      for (let queue = 0; queue < options.queues; queue++) {
        drain(receiver, queue, (mbuf) => {
          const hashed = (cell(mbuf, 'flags') & PACKET_FLAG.HASH) !== 0;
          const hash = hashed ? cell(mbuf, 'hash') : undefined;
          received.push({ queue, flow: word(mbuf, 54), number: word(mbuf, 58), hash });
        });
      }
      drain(sender, 0, (mbuf) => returned.push(word(mbuf, 54)));
      sender.device.tick(nowMs);
      receiver.device.tick(nowMs);
      await null;
    },
    async run<T>(promise: Promise<T>): Promise<T> {
      let settled = false;
      const mark = () => {
        settled = true;
      };
      promise.then(mark, mark);
      await rig.until(() => settled);
      return promise;
    },
    async until(done) {
      for (let turns = 0; !done(); turns++) {
        assert.ok(turns < 20_000, 'not done after 20000 turns');
        await rig.turn();
      }
    },
    async attach() {
      await rig.run(sender.device.attach());
      return rig.run(receiver.device.attach());
    },
    async send(flows, number) {
      for (let at = 0; at < flows.length; ) {
        const count = datapath.poolGet(sender.smallPool, handles, Math.min(32, flows.length - at));
        for (let i = 0; i < count; i++) fill(arena.u32[(handles >>> 2) + i]!, 0, flows[at + i]!, number);
        const taken = sender.device.send(handles, count);
        datapath.mbufFree(handles + 4 * taken, count - taken);
        at += taken;
        await rig.turn();
      }
    },
    reply(queue, flow) {
      assert.equal(datapath.poolGet(receiver.smallPool, handles, 1), 1);
      fill(arena.u32[handles >>> 2]!, 1, flow, 0);
      assert.equal(receiver.device.send(handles, 1, queue), 1);
    },
    close,
  };
  return rig;
}

const addresses = (flow: number) => [10, 0, flow >>> 8, flow & 255, 10, 1, 2, 3];
const ports = (flow: number) => [0x10 + (flow >>> 4), flow & 255, 0, 80];

/** TCP over IPv4, except that negative flows are of a type that nothing hashes. */
export function packetBytes(from: Uint8Array, to: Uint8Array, flow: number, number: number): Uint8Array {
  const bytes = Buffer.alloc(FRAME_BYTES);
  bytes.set(to, 0);
  bytes.set(from, 6);
  bytes.writeUInt16BE(flow < 0 ? 0x88b5 : 0x0800, 12);
  bytes.set([0x45, 0, 0, FRAME_BYTES - 14, 0, 0, 0, 0, 64, 6, 0, 0, ...addresses(flow), ...ports(flow)], 14);
  bytes[46] = 0x50;
  bytes.writeUInt32BE(flow >>> 0, 54);
  bytes.writeUInt32BE(number, 58);
  return bytes;
}

/** Toeplitz hash of a flow's addresses and ports, bit by bit. */
export function flowHash(flow: number, key: Uint8Array = KEY): number {
  const input = [...addresses(flow), ...ports(flow)];
  const bit = (bytes: ArrayLike<number>, i: number) => (bytes[i >>> 3]! >>> (7 - (i & 7))) & 1;
  let hash = 0;
  for (let i = 0; i < input.length * 8; i++) {
    if (!bit(input, i)) continue;
    for (let k = 0; k < 32; k++) hash ^= bit(key, i + k) << (31 - k);
  }
  return hash >>> 0;
}

/** Flows of which every queue of the default table gets at least one. */
export function flowsForAll(queues: number): number[] {
  const flows: number[] = [];
  const covered = new Set<number>();
  for (let flow = 0; covered.size < queues || flows.length < 24; flow++) {
    assert.ok(flow < 5000, 'flows for every queue');
    flows.push(flow);
    covered.add((flowHash(flow) % 128) % queues);
  }
  return flows;
}
