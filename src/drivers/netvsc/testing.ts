// A netvsc port of the device API on a fake host in the same arena, for tests: everything in one thread, in turns.
import type { TestContext } from 'node:test';
import { createDatapath, type Datapath } from '../../datapath/datapath.js';
import { Devargs } from '../../ethdev/devargs.js';
import type { DriverContext } from '../../ethdev/driver.js';
import { MBUFS_BYTES, Mbufs } from '../../ethdev/mbuf.js';
import { Mempool, type MempoolOptions } from '../../ethdev/mempool.js';
import { Port } from '../../ethdev/port.js';
import type { PortConfig } from '../../ethdev/types.js';
import { Arena } from '../../memory/arena.js';
import { linuxSystem } from '../../memory/os/mman.js';
import { FakeHost, words } from '../../netvsc/fake-host.js';
import type { GuestMemory, Region, VmbusDevice, VmbusOffer } from '../../vmbus/device.js';
import { createMemoryBus, type MemoryBus, type MemoryBusOptions, type MemoryPair } from '../../vmbus/memory/bus.js';
import { netvscDriver } from './netvsc.js';
import { NetvscPort } from './port.js';

const PACKETS_BYTES = 24 << 20;
const BURST = 64;
const PATIENCE_MS = 10_000;

let shared: { arena: Arena; datapath: Datapath } | undefined;

export interface FakeRigOptions extends MemoryBusOptions {
  readonly devargs?: string;
  /** Added to page frame numbers. */
  readonly pfnOffset?: bigint;
  /** Before the driver attaches. */
  readonly prepare?: (rig: FakeRig) => void;
}

/** Closed with the test. */
export class FakeRig {
  readonly arena: Arena;
  readonly datapath: Datapath;
  readonly bus: MemoryBus;
  readonly host: FakeHost;
  readonly mbufs: Mbufs;
  readonly handles: number;
  /** What the driver tells its user. */
  readonly lines: string[] = [];
  port!: Port;
  pool!: Mempool;
  readonly #device: VmbusDevice;
  readonly #context: DriverContext;
  readonly #pools: Mempool[] = [];
  readonly #packets: { address: number; bytes: number };
  #used = 0;
  readonly #taken: number[] = [];

  constructor(options: FakeRigOptions) {
    shared ??= side();
    const { arena, datapath } = shared;
    this.arena = arena;
    this.datapath = datapath;
    this.bus = createMemoryBus(arena, {
      ...{ ringBytes: 128 << 10, receiveBytes: 1 << 20, sendBytes: 512 << 10 },
      ...options,
    });
    const { device, offer } = moved(this.bus.pairs[0]!, options.pfnOffset ?? 0n);
    this.host = new FakeHost(offer);
    this.#device = device;
    this.#packets = { address: this.bus.memory.allocate('packets', PACKETS_BYTES), bytes: PACKETS_BYTES };
    this.mbufs = new Mbufs(arena, datapath, this.#reserve('mbufs', MBUFS_BYTES));
    this.handles = this.#reserve('handles', 4 * BURST);
    const reserve = (name: string, bytes: number) => this.#reserve(name, bytes);
    this.#context = testContext(arena, datapath, this.#packets, reserve, (line) => this.lines.push(line));
  }

  createPool(options: Partial<MempoolOptions> = {}): Mempool {
    const full = { count: 1024, ...options };
    const pool = new Mempool(this.arena, 'mbufs', this.#packets.address + this.#used, full, 1);
    this.#used += Math.ceil(Mempool.bytes(full) / 4096) * 4096;
    this.#pools.push(pool);
    return pool;
  }

  async probe(devargs = ''): Promise<Port> {
    const device = this.#device;
    const impl = await this.run(NetvscPort.open(this.#context, device.uuid, device, new Devargs(devargs, device.uuid)));
    this.port = new Port(0, device.uuid, netvscDriver, impl, this.#context);
    return this.port;
  }

  /** Configures and starts the port, with one pool for all queues, or two. */
  async start(config: Partial<PortConfig> = {}, descriptors = 0, largePool?: Mempool): Promise<void> {
    const { port } = this;
    await this.run(port.configure({ rxQueues: 1, txQueues: 1, ...config }));
    this.pool ??= this.createPool();
    for (let queue = 0; queue < port.config!.rxQueues; queue++)
      port.setupRxQueue(queue, { descriptors, pool: this.pool, ...(largePool && { largePool }) });
    for (let queue = 0; queue < port.config!.txQueues; queue++) port.setupTxQueue(queue, { descriptors });
    await this.run(port.start());
  }

  /** Steps the host until the promise settles. */
  async run<T>(work: Promise<T>): Promise<T> {
    let settled = false;
    const mark = () => {
      settled = true;
    };
    work.then(mark, mark);
    await this.until('a promise settles', () => settled);
    return work;
  }

  /** Steps the host and the port's control code until this holds. */
  async until(what: string, done: () => boolean): Promise<void> {
    for (const end = performance.now() + PATIENCE_MS; !done(); ) {
      if (performance.now() > end) throw new Error(`${what}: not within ${PATIENCE_MS} ms; heard ${this.host.log}`);
      this.host.step();
      this.port?.tick(performance.now());
      await new Promise(setImmediate);
    }
  }

  async turns(count: number): Promise<void> {
    let left = count;
    await this.until(`${count} turns`, () => left-- === 0);
  }

  /** One mbuf with these bytes, in segments of so many bytes. */
  mbuf(bytes: Uint8Array, segment: number = bytes.length, pool: Mempool = this.pool): number {
    let head = 0;
    for (let at = 0; at < bytes.length; at += segment) {
      const mbuf = this.mbufs.allocate(pool);
      if (mbuf === 0 || !this.mbufs.write(mbuf, bytes.subarray(at, at + segment))) throw new Error('rig: no mbuf');
      if (head === 0) head = mbuf;
      else this.mbufs.chain(head, mbuf);
    }
    return head;
  }

  /** Sends mbufs; returns how many were taken. */
  send(list: readonly number[], queue = 0): number {
    for (const [i, mbuf] of list.entries()) this.arena.u32[(this.handles >>> 2) + i] = mbuf;
    return this.port.txQueue(queue).burst(this.handles, list.length);
  }

  /** One rx burst: mbufs, the caller's. */
  receive(queue = 0, max = BURST): number[] {
    const count = this.port.rxQueue(queue).burst(this.handles, max);
    return [...this.arena.u32.subarray(this.handles >>> 2, (this.handles >>> 2) + count)];
  }

  /** The same as bytes; the mbufs are freed. */
  frames(queue = 0, max = BURST): Uint8Array[] {
    return this.receive(queue, max).map((mbuf) => {
      const bytes = this.mbufs.read(mbuf);
      this.mbufs.free(mbuf);
      return bytes;
    });
  }

  xstat(name: string): number {
    const found = this.port.xstats().find(([other]) => other === name);
    if (!found) throw new Error(`no statistic ${name}`);
    return found[1];
  }

  async close(): Promise<void> {
    const closed = this.port?.close();
    if (closed) await this.run(closed);
    for (const pool of this.#pools) pool.release();
    for (const address of this.#taken) this.arena.release(address);
    this.bus.close();
  }

  #reserve(name: string, bytes: number): number {
    const address = this.arena.reserve(name, bytes);
    this.#taken.push(address);
    return address;
  }
}

/** What a driver gets, without an environment around it. */
export function testContext(
  arena: Arena,
  datapath: Datapath,
  packetMemory: Region,
  reserve: DriverContext['reserve'],
  log: DriverContext['log'],
): DriverContext {
  const none = (): never => {
    throw new Error('not in this rig');
  };
  const lcore = { arena, datapath, lcore: 0, lcores: 1, reserve, driver: none };
  return { ...lcore, packetMemory, services: undefined, log, takePort: none };
}

/** The same device, whose pages have other numbers on both sides. */
function moved({ device, offer }: MemoryPair, by: bigint): MemoryPair {
  if (by === 0n) return { device, offer };
  const memory: GuestMemory = Object.create(device.memory, {
    pfn: { value: (address: number) => device.memory.pfn(address) + by },
  });
  const mapGuestPage: VmbusOffer['mapGuestPage'] = (pfn) => {
    const region = offer.mapGuestPage(pfn - by);
    return region && { ...region, pfn: region.pfn + by };
  };
  return {
    device: Object.create(device, { memory: { value: memory } }),
    offer: Object.create(offer, { mapGuestPage: { value: mapGuestPage } }),
  };
}

function side(): { arena: Arena; datapath: Datapath } {
  const arena = Arena.create({ bytes: 192 << 20, system: linuxSystem });
  return { arena, datapath: createDatapath(arena.memory) };
}

/** A port that is probed. */
export async function fakeRig(t: TestContext, options: FakeRigOptions = {}): Promise<FakeRig> {
  const { devargs, prepare, ...bus } = options;
  const rig = new FakeRig(bus);
  t.after(() => rig.close());
  prepare?.(rig);
  await rig.probe(devargs);
  return rig;
}

/** The host gives `granted` subchannels, whatever it is asked for. Returns what it was asked for. */
export function grantSubchannels(rig: FakeRig, granted: number): number[] {
  const asked: number[] = [];
  rig.host.answers.set('nvsp 133', (host, request) => {
    const wanted = request.bytes.getUint32(8, true);
    asked.push(wanted);
    const count = Math.min(wanted, granted);
    host.complete(request, words(133, 1, count));
    for (let i = 0; i < count; i++) rig.bus.pairs[0]!.offer.createSubchannel().publish();
  });
  return asked;
}

/** A frame to `destination` of that many bytes, whose bytes depend on the seed. */
export function frameTo(destination: string, bytes: number, seed: number): Uint8Array {
  const frame = Uint8Array.from({ length: bytes }, (_, i) => (i * 7 + seed) & 0xff);
  frame.set(Buffer.from(destination.replaceAll(':', ''), 'hex'));
  frame.set([0x02, 0, 0, 0, 0, 0x99, 0x88, 0xb5], 6);
  return frame;
}
