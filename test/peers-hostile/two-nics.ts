// A host with two NICs and an echo uplink: NIC 0 belongs to a guest that writes its own bytes, NIC 1 to the driver.
import assert from 'node:assert/strict';
import { createDatapath } from '../../src/datapath/datapath.js';
import { Host } from '../../src/host/host.js';
import { nicMac } from '../../src/host/identity.js';
import type { Nic } from '../../src/host/nic.js';
import { concat, RawGuest, words } from '../../src/host/raw-guest-testing.js';
import { openUplink, parseUplink } from '../../src/host/uplinks/index.js';
import { Arena } from '../../src/memory/arena.js';
import { createMemoryBus } from '../../src/vmbus/memory/bus.js';
import { Bystander, udpFrame } from './bystander.js';

export const V61 = 0x60001;
const ECHO_MAC = Uint8Array.of(2, 0, 0, 0xec, 0, 9);
const MACHINE = 'hostile-guest';
const PAGE = 4096;

/** Per-packet info: 12 bytes of header, then data. */
export const info = (type: number, ...data: number[]): Uint8Array => words(12 + data.length * 4, type, 12, ...data);

export interface MessageParts {
  readonly data?: Uint8Array;
  readonly infos?: Uint8Array;
  /** Cells of the message by index (0 = type), written over the right ones. */
  readonly cells?: Readonly<Record<number, number>>;
}

/** The guest that goes wrong, and what it can do wrong with. */
export class Attacker extends RawGuest {
  #pages: number[] = [];

  /** Zeroed guest memory, the attacker's until forgetPages(). */
  allocate(pages: number): number {
    const at = this.pair.device.memory.allocate('attacker', pages * PAGE);
    this.#pages.push(at);
    return at;
  }

  forgetPages(): void {
    for (const at of this.#pages.splice(0)) this.pair.device.memory.release(at);
  }

  /** A good frame for the echo station. */
  frame(bytes = 200, seed = 1): Uint8Array {
    return udpFrame(nicMac(MACHINE, 0), ECHO_MAC, 3, bytes, seed);
  }

  /** An RNDIS packet message: header, infos, data. */
  message(parts: MessageParts = {}): Uint8Array {
    const { data = this.frame(), infos = new Uint8Array(0), cells = {} } = parts;
    const header = words(1, 44 + infos.length + data.length, 36 + infos.length, data.length, 0, 0, 0, 0, 0, 0, 0);
    const view = new DataView(header.buffer);
    if (infos.length > 0) {
      view.setUint32(28, 36, true);
      view.setUint32(32, infos.length, true);
    }
    for (const [index, value] of Object.entries(cells)) view.setUint32(Number(index) * 4, value, true);
    return concat(header, infos, data);
  }

  /** Sends RNDIS bytes as data in the send buffer, from section 0 on. */
  data(bytes: Uint8Array): bigint {
    return this.putRndis(bytes, 0);
  }

  /** An NVSP data message with GPA ranges: one per part, each on pages of its own. */
  direct(parts: readonly Uint8Array[], change: (header: DataView) => void = () => {}): bigint {
    const { memory } = this.pair.device;
    const ranges = parts.map((bytes) => {
      const pages = Math.ceil(bytes.length / PAGE);
      const at = this.allocate(pages);
      this.arena.u8.set(bytes, at);
      const pfn = memory.pfn(at);
      const cells = Array.from({ length: pages }, (_, i) => [Number((pfn + BigInt(i)) & 0xffffffffn), 0]).flat();
      return words(bytes.length, 0, ...cells);
    });
    const header = concat(words(0, ranges.length), ...ranges);
    change(new DataView(header.buffer));
    this.put(9, 1, 0x77n, words(107, 0, 0xffffffff, 0), header);
    return 0x77n;
  }

  /** Changes 16-bit cells of the next packet's descriptor (0 type, 1 data offset, 2 length, 3 flags) after it is written. */
  descriptor(cells: Readonly<Record<number, number>>, write: () => void): void {
    const { control, dataBytes } = this.opened.transmit;
    const at = this.arena.u32[control >>> 2]!;
    write();
    for (const [index, value] of Object.entries(cells)) {
      const to = (control + PAGE + ((at + Number(index) * 2) % dataBytes)) >>> 1;
      this.arena.u16[to] = value;
    }
  }

  writeIndex(change: (now: number, dataBytes: number) => number): void {
    const { control, dataBytes } = this.opened.transmit;
    this.arena.u32[control >>> 2] = change(this.arena.u32[control >>> 2]!, dataBytes);
  }

  /** A frame goes to the echo station and its answer comes back. */
  echo(step: () => void): void {
    const frame = this.frame(300, 77);
    const id = this.data(this.message({ data: frame }));
    step();
    assert.equal(this.completion(id), 1);
    const packet = this.take();
    assert.ok(packet, 'no echo came');
    assert.equal(packet.type, 7);
    const { offset } = packet.ranges[0]!;
    const at = this.opened.receiveBuffer.address + offset;
    const start = at + 8 + this.arena.u32[(at + 8) >>> 2]!;
    assert.deepEqual(this.arena.u8.slice(start + 42, start + frame.length), frame.slice(42));
    this.put(11, 0, packet.id, words(108, 1));
    step();
  }
}

export interface TwoNics {
  readonly arena: Arena;
  readonly host: Host;
  readonly nic: Nic;
  readonly attacker: Attacker;
  readonly bystander: Bystander;
  step(): void;
  close(): Promise<void>;
}

export async function createTwoNics(): Promise<TwoNics> {
  const arena = Arena.create({ bytes: 64 << 20 });
  const datapath = createDatapath(arena.memory);
  const free = arena.free().bytes;
  const bus = createMemoryBus(arena, {
    devices: 2,
    ringBytes: 128 << 10,
    receiveBytes: 512 << 10,
    sendBytes: 256 << 10,
  });
  const host = Host.create({
    arena,
    datapath,
    machine: MACHINE,
    profile: 'ws2019',
    nics: [{}, {}],
    offers: bus.pairs.map((pair) => pair.offer),
    uplinks: [(context) => openUplink(parseUplink('echo:10.0.0.1,02:00:00:ec:00:09'), context)],
  });
  const step = () => {
    for (let i = 0; i < 8; i++) host.step();
  };
  const attacker = new Attacker(arena, bus.pairs[0]!, step);
  const bystander = new Bystander(arena, datapath, bus.pairs[1]!.device, ECHO_MAC, step);
  await bystander.attach();
  return {
    arena,
    host,
    nic: host.nics[0]!,
    attacker,
    bystander,
    step,
    async close() {
      try {
        await bystander.close();
      } finally {
        host.close();
        bus.close();
      }
      assert.equal(arena.free().bytes, free, 'all arena memory came back');
    },
  };
}
