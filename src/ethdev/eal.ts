// A process's environment, in DPDK's sense: memory, threads and ports, made from command-line options. One per program.
import { type Transferable, Worker } from 'node:worker_threads';
import { Arena } from '../memory/arena.js';
import { EventFd } from '../memory/os/eventfd.js';
import { linuxSystem } from '../memory/os/mman.js';
import { affinity, setAffinity } from '../memory/os/process.js';
import { Devargs } from './devargs.js';
import type { Driver, DriverContext } from './driver.js';
import { type EalOptions, parseEalArguments } from './eal-options.js';
import { PortError } from './errors.js';
import { ANY_CPU, LCORE_BYTES, LcoreThread } from './lcore.js';
import type { LcoreData } from './lcore-worker.js';
import type { Mbufs } from './mbuf.js';
import { Mempool, type MempoolOptions } from './mempool.js';
import { Port } from './port.js';

/** A device of a bus. */
export interface FoundDevice {
  readonly device: string;
  readonly driver: string;
}

export interface UnusableDevice {
  /** Undefined where not even that can be read. */
  readonly device: string | undefined;
  readonly reason: string;
  /** Worth a line though nobody asked for it. */
  readonly broken: boolean;
}

/** What the room above gives the environment: drivers, and where devices and packet memory come from. */
export interface EalPlatform {
  readonly drivers: readonly Driver[];
  /** URL of a module that exports the same `drivers`, for other threads. */
  readonly driversUrl: string;
  /** Opens the bus below `root`. Throws. */
  openBus(root: string): Bus;
  /** Packet memory of a process without a bus. */
  plainMemory(arena: Arena): PacketMemory;
}

export interface Bus {
  readonly devices: readonly FoundDevice[];
  /** What is on the bus and cannot be used, as it is. */
  readonly unusable: readonly UnusableDevice[];
  /** What DriverContext.services is. */
  readonly services: unknown;
  memory(arena: Arena): PacketMemory;
}

/** Memory for mbufs, that the other side of a device can read. */
export interface PacketMemory {
  allocate(name: string, bytes: number): number;
  release(address: number): void;
}

/** Beside packet memory and lcores: rings, buffers and structures of devices. Pages take memory when they are touched. */
const DEVICE_BYTES = 768 << 20;
const MIB = 1 << 20;
const GRAIN = 64;

export interface EalSettings {
  /** For lines that a user should see (default: stderr). */
  readonly log?: (line: string) => void;
  /** Without -l every allowed CPU gets an lcore, as in DPDK (default: the first one, the control thread's). */
  readonly allCpus?: boolean;
  /** So many lcores besides the control thread's, which run where the kernel lets them; -l names the control thread's CPU only. */
  readonly threads?: number;
  /** Time between looks at ports of the control thread, ms (default 1). What the host says on its own is seen so late. */
  readonly tickMs?: number;
}

export class Eal {
  readonly arena: Arena;
  readonly options: EalOptions;
  /** The control thread's own lcore: number 0. */
  readonly main: LcoreThread;
  readonly #ports: Port[] = [];
  readonly #platform: EalPlatform;
  /** Of the bus. */
  readonly #devices: readonly FoundDevice[];
  readonly #unusable: readonly UnusableDevice[];
  readonly #context: DriverContext;
  readonly #memory: PacketMemory;
  readonly #packets: { readonly address: number; readonly bytes: number };
  #packetsUsed = 0;
  readonly #stop: number;
  readonly #lcoreMemory: number[] = [];
  /** By lcore: what wakes its loop. */
  readonly #wakes: EventFd[] = [];
  readonly #workers = new Map<number, Promise<unknown>>();
  readonly #timer: NodeJS.Timeout;
  #ticked = 0;
  #closed: Promise<void> | undefined;

  private constructor(options: EalOptions, platform: EalPlatform, settings: EalSettings) {
    this.options = options;
    this.#platform = platform;
    const lcores = options.cpus.length;
    const bytes = options.memoryMb * MIB;
    this.arena = Arena.create({
      bytes: Math.min(2 ** 32, bytes + lcores * LCORE_BYTES + DEVICE_BYTES),
      system: linuxSystem,
    });
    const { arena } = this;
    const bus = options.root === undefined ? undefined : platform.openBus(options.root);
    this.#devices = bus?.devices ?? [];
    this.#unusable = bus?.unusable ?? [];
    this.#memory = bus === undefined ? platform.plainMemory(arena) : bus.memory(arena);
    this.#packets = { address: this.#memory.allocate('packets', bytes), bytes };
    this.#stop = arena.reserve('lcores stop', GRAIN);
    for (let lcore = 0; lcore < lcores; lcore++) {
      this.#lcoreMemory.push(arena.reserve(`lcore ${lcore}`, LCORE_BYTES));
      this.#wakes.push(new EventFd());
    }
    const { drivers } = platform;
    this.main = new LcoreThread({
      ...{
        arena,
        lcore: 0,
        memory: this.#lcoreMemory[0]!,
        drivers,
        ports: [],
        stop: this.#stop,
        wakeFd: this.#wakes[0]!.fd,
      },
    });
    const log = settings.log ?? ((line: string) => process.stderr.write(`${line}\n`));
    this.#context = {
      ...{ arena, datapath: this.main.datapath, lcore: 0, lcores, packetMemory: this.#packets },
      reserve: (name, size) => this.main.reserve(name, size),
      driver: (name) => this.main.driver(name),
      takePort: (which, by) => this.port(/^\d+$/.test(which) ? Number(which) : which).take(by),
      ...{ services: bus?.services, log },
    };
    this.main.loop.add({
      step: () => 0,
      tick: (nowMs) => this.#tick(nowMs),
      arm: () => true,
      disarm: () => {},
      fds: () => [],
    });
    // For programs that run no loop in this thread.
    this.#timer = setInterval(() => this.#tick(performance.now()), settings.tickMs ?? 1);
    this.#timer.unref();
  }

  /** Reads EAL options, probes bus devices, then virtual ones, in this order. Throws PortError; nothing is left then. */
  static async init(words: readonly string[], platform: EalPlatform, settings: EalSettings = {}): Promise<Eal> {
    const allowed = affinity();
    const given = parseEalArguments(words, settings.allCpus ? allowed : allowed.slice(0, 1));
    const anywhere = new Array<number>(settings.threads ?? 0).fill(ANY_CPU);
    const options = settings.threads === undefined ? given : { ...given, cpus: [given.cpus[0]!, ...anywhere] };
    const foreign = given.cpus.find((cpu) => !allowed.includes(cpu));
    if (foreign !== undefined)
      throw new PortError('EINVAL', 'EAL', `-l: CPU ${foreign} is none of those allowed (${allowed.join(', ')})`);
    const eal = new Eal(options, platform, settings);
    try {
      await eal.#probe();
    } catch (error) {
      await eal.close();
      throw error;
    }
    return eal;
  }

  /** The ports that a program can use: those whose device another port uses are left out, and keep their numbers. */
  get ports(): readonly Port[] {
    return this.#ports.filter(({ state }) => state !== 'taken');
  }

  /** The control thread's mbuf functions. */
  get mbufs(): Mbufs {
    return this.main.mbufs;
  }

  /** Numbers of the lcores besides the control thread's. */
  get workers(): readonly number[] {
    return this.options.cpus.map((_, lcore) => lcore).slice(1);
  }

  /** Throws PortError ENOMEM when the packet memory is used up (-m). */
  createMempool(name: string, options: MempoolOptions): Mempool {
    const bytes = Mempool.bytes(options);
    const left = this.#packets.bytes - this.#packetsUsed;
    if (bytes > left) {
      const problem = `expected ${Math.ceil(bytes / MIB)} MiB of packet memory, got ${Math.floor(left / MIB)} (option -m)`;
      throw new PortError('ENOMEM', `mempool ${name}`, problem);
    }
    const address = this.#packets.address + this.#packetsUsed;
    this.#packetsUsed += Math.ceil(bytes / GRAIN) * GRAIN;
    return new Mempool(this.arena, name, address, options, this.options.cpus.length);
  }

  /** Probes one more virtual device. Throws PortError. */
  async addVdev(device: string, args = ''): Promise<Port> {
    const driver = this.#platform.drivers.find(({ name }) => device.startsWith(name));
    if (driver === undefined) {
      const known = this.#platform.drivers.map(({ name }) => name).join(', ');
      throw new PortError('ENODEV', device, `no driver for it, expected a name that begins with ${known}`);
    }
    if (this.#ports.some((port) => port.device === device))
      throw new PortError('EEXIST', device, 'there is a device of that name');
    return this.#add(driver, device, args);
  }

  /** Probes the device of a port anew that is gone or closed; the new port has the number of the old one. Throws PortError. */
  async renew(port: Port): Promise<Port> {
    await port.close();
    const { driver, device, id } = port;
    const args = this.options.allow?.find((spec) => spec.device === device)?.args ?? '';
    const impl = await driver.probe(this.#context, device, new Devargs(args, device));
    this.#ports[id] = new Port(id, device, driver, impl, this.#context);
    return this.#ports[id];
  }

  /** The port of that number or device name. Throws PortError ENODEV. */
  port(which: number | string): Port {
    const found = this.#ports.find(({ id, device }) => id === which || device === which);
    if (found) return found;
    const known = this.#ports.map(({ id, device }) => `${id} (${device})`).join(', ') || 'none';
    throw new PortError('ENODEV', `port ${which}`, `there is none, but ${known}`);
  }

  /**
   * Runs `name` of the module at `url` in lcore `lcore`'s thread: (lcore: LcoreThread, data) => result. Ports that are configured now
   * can be polled there. Resolves with the result; rejects when the function throws. `transfer`: parts of the data (message ports)
   * that go over to the thread.
   */
  launch(
    lcore: number,
    url: string | URL,
    name: string,
    data?: unknown,
    transfer: readonly Transferable[] = [],
  ): Promise<unknown> {
    const cpu = this.options.cpus[lcore];
    if (cpu === undefined || lcore === 0)
      return Promise.reject(
        new PortError('EINVAL', `lcore ${lcore}`, `expected ${this.workers.join(', ') || 'none (option -l)'}`),
      );
    if (this.#workers.has(lcore)) return Promise.reject(new PortError('EBUSY', `lcore ${lcore}`, 'it runs already'));
    const ports = this.#ports.filter(({ state }) => state === 'configured' || state === 'started');
    const address = this.#lcoreMemory[lcore]!;
    this.arena.u8.fill(0, address, address + LCORE_BYTES);
    if (this.#workers.size === 0) Atomics.store(this.arena.u32, this.#stop >>> 2, 0);
    const workerData: LcoreData = {
      ...{ memory: this.arena.memory, lcore, cpu, address, stop: this.#stop, data },
      drivers: this.#platform.driversUrl,
      ports: ports.map((port) => port.handle()),
      ...{ module: String(url), main: name, wakeFd: this.#wakes[lcore]!.fd },
    };
    // Descriptors come from native calls, of which Node's bookkeeping does not know.
    const options = { workerData, transferList: [...transfer], trackUnmanagedFds: false };
    const worker = new Worker(new URL('./lcore-worker.js', import.meta.url), options);
    const done = new Promise<unknown>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
      worker.once('exit', (code) =>
        reject(new PortError('EIO', `lcore ${lcore}`, `its thread ended with code ${code}`)),
      );
    });
    const ended = done.finally(() => this.#workers.delete(lcore));
    this.#workers.set(lcore, ended);
    ended.catch(() => {}); // whoever launched it hears of it
    return ended;
  }

  /** Ends the sleep of an lcore's loop: control code of its thread gets a turn. */
  wake(lcore: number): void {
    this.#wakes[lcore]?.signal();
  }

  /** Tells all lcores to end, and waits for them. */
  async stopLcores(): Promise<void> {
    Atomics.store(this.arena.u32, this.#stop >>> 2, 1);
    for (const lcore of this.#workers.keys()) this.wake(lcore);
    await Promise.allSettled([...this.#workers.values()]);
  }

  /** Ends lcores, closes ports, gives memory back. May be called again. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    await this.stopLcores();
    // A port around another one was made after it, and gives it free.
    for (const port of [...this.#ports].reverse()) await port.close();
    clearInterval(this.#timer);
    this.main.close();
    for (const wake of this.#wakes) wake.close();
    this.#memory.release(this.#packets.address);
  }

  /** Binds the control thread to its CPU; other threads of the process that start later inherit it. */
  pin(): void {
    setAffinity([this.options.cpus[0]!]);
  }

  async #probe(): Promise<void> {
    const { allow, block, vdevs, root } = this.options;
    if (allow && root === undefined) throw new PortError('EINVAL', 'EAL', '-a: there is no bus (--machine or --root)');
    const devices = this.#devices;
    for (const { reason, broken } of this.#unusable) if (broken) this.#context.log(reason);
    for (const { device } of allow ?? []) {
      if (devices.some((found) => found.device === device)) continue;
      const unusable = this.#unusable.find((found) => found.device === device);
      if (unusable) throw new PortError('ENODEV', `-a ${device}`, unusable.reason);
      const known = devices.map((found) => found.device).join(', ') || 'none';
      throw new PortError('ENODEV', `-a ${device}`, `no such device, there is ${known}`);
    }
    for (const { device, driver: name } of devices) {
      const named = allow?.find((spec) => spec.device === device);
      if (allow ? named === undefined : block.includes(device)) continue;
      const driver = this.#platform.drivers.find((found) => found.name === name);
      if (driver) await this.#add(driver, device, named?.args ?? '');
    }
    for (const { device, args } of vdevs) await this.addVdev(device, args);
  }

  async #add(driver: Driver, device: string, text: string): Promise<Port> {
    const impl = await driver.probe(this.#context, device, new Devargs(text, device));
    const port = new Port(this.#ports.length, device, driver, impl, this.#context);
    this.#ports.push(port);
    return port;
  }

  #tick(nowMs: number): void {
    if (nowMs - this.#ticked < 0.5) return;
    this.#ticked = nowMs;
    for (const port of this.#ports) port.tick(nowMs);
  }
}
