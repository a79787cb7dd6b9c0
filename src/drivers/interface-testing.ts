// For tests of drivers on interfaces of the kernel: the kernel's side of such an interface as the wire, and ports to play with.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Eal } from '../ethdev/eal.js';
import type { Mempool } from '../ethdev/mempool.js';
import type { Port } from '../ethdev/port.js';
import type { PortConfig } from '../ethdev/types.js';
import { PacketPeer, TestNetwork } from '../memory/os/packet-peer-testing.js';
import type { Wire } from './conformance.js';
import { initEal } from './platform.js';

const PATIENCE_MS = 5000;
const BURST = 64;

export class KernelWire implements Wire {
  readonly when = 'started';
  readonly #peer: PacketPeer;
  readonly #setMtu: (mtu: number) => void;

  /** In the namespace of the interface. */
  constructor(name: string, setMtu: (mtu: number) => void = () => {}) {
    this.#peer = new PacketPeer(name);
    this.#setMtu = setMtu;
  }

  async setMtu(mtu: number): Promise<void> {
    this.#setMtu(mtu);
  }

  async feed(frames: readonly Uint8Array[]): Promise<void> {
    const end = performance.now() + PATIENCE_MS;
    for (const frame of frames) {
      while (!this.#peer.send(frame)) {
        if (performance.now() > end) throw new Error('wire: the interface takes no packets');
        await sleep(1);
      }
    }
  }

  async sent(count: number): Promise<Uint8Array[]> {
    const frames = this.#peer.receive();
    const end = performance.now() + PATIENCE_MS;
    while (frames.length < count && performance.now() < end) {
      await sleep(1);
      frames.push(...this.#peer.receive());
    }
    return frames;
  }

  close(): void {
    this.#peer.close();
  }
}

/** Waits until it is true, giving everybody their turn. */
export async function until(done: () => boolean, problem: () => string): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!done()) {
    if (performance.now() > end) throw new Error(problem());
    await sleep(1);
  }
}

export interface Received {
  readonly bytes: Uint8Array;
  readonly flags: number;
  readonly vlanTci: number;
  readonly mss: number;
  /** PACKET_TYPE. */
  readonly type: number;
  readonly segments: number;
  readonly queue: number;
  /** Nanoseconds since 1970, 0 = none. */
  readonly timestamp: number;
}

/** Ports in an environment, with a pool and handles, all of which go with close(). */
export class PortRig {
  readonly eal: Eal;
  readonly pool: Mempool;
  readonly #handles: number;
  readonly #closing: (() => void | Promise<void>)[] = [];

  private constructor(eal: Eal, room: number) {
    this.eal = eal;
    this.pool = eal.createMempool('rig', { count: Math.floor(30e6 / (room + 256)), room: 128 + room, cache: 64 });
    this.#handles = eal.main.reserve('rig', BURST * 4);
  }

  /** `room`: bytes of an mbuf behind the headroom. */
  static async open(room = 2048, words: readonly string[] = []): Promise<PortRig> {
    return new PortRig(await initEal(['-m', '32', ...words]), room);
  }

  atEnd(what: () => void | Promise<void>): void {
    this.#closing.push(what);
  }

  network(): TestNetwork {
    const network = new TestNetwork();
    this.atEnd(() => network.close());
    return network;
  }

  peer(network: TestNetwork, name: string): PacketPeer {
    const peer = network.in(() => new PacketPeer(name));
    this.atEnd(() => peer.close());
    return peer;
  }

  add(network: TestNetwork, device: string, args: string): Promise<Port> {
    return network.in(() => this.eal.addVdev(device, args));
  }

  async configure(port: Port, config: Partial<PortConfig> = {}): Promise<void> {
    const { rxQueues = 1, txQueues = 1, ...more } = config;
    await port.configure({ rxQueues, txQueues, ...more });
    for (let queue = 0; queue < rxQueues; queue++) port.setupRxQueue(queue, { descriptors: 0, pool: this.pool });
    for (let queue = 0; queue < txQueues; queue++) port.setupTxQueue(queue);
  }

  /** Configured, started, and the link is up. */
  async start(port: Port, config: Partial<PortConfig> = {}): Promise<void> {
    await this.configure(port, config);
    await port.start();
    await until(
      () => port.link().up,
      () => 'the link does not come up',
    );
  }

  /** What an rx burst on each queue brings. */
  receive(port: Port): Received[] {
    const { arena, mbufs } = this.eal;
    const list: Received[] = [];
    for (let queue = 0; queue < port.config!.rxQueues; queue++) {
      const n = port.rxQueue(queue).burst(this.#handles, BURST);
      for (let i = 0; i < n; i++) {
        const mbuf = arena.u32[(this.#handles >>> 2) + i]!;
        list.push({
          ...{ bytes: mbufs.read(mbuf), flags: mbufs.flags(mbuf), vlanTci: mbufs.vlanTci(mbuf), mss: mbufs.mss(mbuf) },
          ...{ type: mbufs.packetType(mbuf), segments: mbufs.segments(mbuf), queue },
          timestamp: mbufs.timestampHigh(mbuf) * 2 ** 32 + mbufs.timestampLow(mbuf),
        });
      }
      this.eal.main.datapath.mbufFree(this.#handles, n);
    }
    return list;
  }

  /** The first `count` packets that `wanted` says yes to. */
  async expect(port: Port, count: number, wanted: (packet: Received) => boolean = ours): Promise<Received[]> {
    const list: Received[] = [];
    await until(
      () => {
        list.push(...this.receive(port).filter(wanted));
        return list.length >= count;
      },
      () => `${list.length} of ${count} packets came`,
    );
    return list;
  }

  /** An mbuf with these bytes, not yet sent. */
  mbuf(bytes: Uint8Array): number {
    const { mbufs } = this.eal;
    let head = 0;
    for (let at = 0; at === 0 || at < bytes.length; ) {
      const mbuf = mbufs.allocate(this.pool);
      const part = bytes.subarray(at, at + mbufs.tailroom(mbuf));
      if (!mbufs.write(mbuf, part)) throw new Error('the mbuf is too small');
      if (head === 0) head = mbuf;
      else mbufs.chain(head, mbuf);
      at += part.length;
    }
    return head;
  }

  /** One tx burst; mbufs that were not taken are freed. Returns how many were. */
  send(port: Port, list: readonly number[], queue = 0): number {
    list.forEach((mbuf, i) => {
      this.eal.arena.u32[(this.#handles >>> 2) + i] = mbuf;
    });
    const taken = port.txQueue(queue).burst(this.#handles, list.length);
    this.eal.main.datapath.mbufFree(this.#handles + taken * 4, list.length - taken);
    return taken;
  }

  async close(): Promise<void> {
    await this.eal.close();
    for (const what of this.#closing.reverse()) await what();
  }
}

/** Ethernet type of the tests' own frames. */
export const TYPE = 0x88b5;

/** A frame with a number. */
export function frameOf(n: number, bytes = 64, destination = 'ff:ff:ff:ff:ff:ff'): Uint8Array {
  const frame = new Uint8Array(bytes).map((_, i) => (i * 7 + n) & 255);
  frame.set(destination.split(':').map((part) => Number.parseInt(part, 16)));
  frame.set([0x02, 0, 0, 0, 0, 2, TYPE >> 8, TYPE & 255, n >> 8, n & 255], 6);
  return frame;
}

/** Whether it is one of those, and its number. */
export const ours = ({ bytes }: { readonly bytes: Uint8Array }): boolean =>
  bytes[12] === TYPE >> 8 && bytes[13] === (TYPE & 255);
export const numberOf = (bytes: Uint8Array): number => bytes[14]! * 256 + bytes[15]!;
