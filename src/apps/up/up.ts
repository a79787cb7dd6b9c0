// netvsc up: an interface of Linux on a device of a machine, as long as this process lives.
import { existsSync } from 'node:fs';
import { initEal } from '../../drivers/platform.js';
import type { Eal } from '../../ethdev/eal.js';
import { affinity } from '../../memory/os/process.js';
import { machinePath } from '../../memory/rundir.js';
import { packetMegabytes } from '../../netdev/buffers.js';
import { networkNumber, networkPath } from '../../netdev/control-path.js';
import { ControlServer, removeDeadSockets } from '../../netdev/control-server.js';
import { Coupling } from '../../netdev/coupling.js';
import { type MetricsAddress, type MetricsServer, metricsText, serveMetrics } from '../../netdev/metrics.js';
import { Netdev } from '../../netdev/netdev.js';
import { usualQueues } from '../../netdev/options.js';
import { scanBus } from '../../vmbus/uio/scan.js';
import { Interrupted, onInterrupt } from '../interrupt.js';
import { packageVersion } from '../package-info.js';

export interface UpOptions {
  readonly name: string;
  /** Name or path of a machine's directory, "/" for this system's own devices; undefined with `vdev`. */
  readonly machine?: string;
  /** Number of the device, or its UUID. */
  readonly device: number | string;
  /** A virtual device instead: "net_ring0,...". */
  readonly vdev?: string;
  /** Name of a network namespace of ip-netns, or a path. */
  readonly network?: string;
  readonly queues?: number;
  readonly mtu?: number;
  /** Keeps the interface when its host goes, until it is there again. */
  readonly wait?: boolean;
  /** Where Prometheus may ask. */
  readonly metrics?: MetricsAddress;
}

/** What there is to tell once packets can flow. */
export interface UpReady {
  readonly name: string;
  readonly device: string;
  readonly mac: string;
  readonly mtu: number;
  readonly queues: number;
  readonly link: boolean;
  readonly pid: number;
  /** Port of the metrics, if they were asked for. */
  readonly metrics?: number;
}

/** How often control code looks for news of the host and the interface, ms. */
const TICK_MS = 40;
/** Threads that move packets: on every other CPU, the kernel's stack and the programs that use the interface need the rest. */
const WORKERS_MAX = 16;
/** Packets up to here are copied to the send buffer, several to a message, as hv_netvsc does with all that fit a section: buffers of
 *  the kernel's packets, 64 KiB each, are free again at once. */
const COPY_BYTES = 6000;

/** Runs until a signal or `netvsc down` comes; resolves to the signal, or undefined. Rejects when the interface cannot be made,
 *  or its device is gone. */
export async function runUp(
  options: UpOptions,
  onReady: (ready: UpReady) => void,
  log: (line: string) => void,
): Promise<Interrupted | undefined> {
  const interrupt = onInterrupt(() => {});
  let eal: Eal | undefined;
  let coupling: Coupling | undefined;
  let serving: MetricsServer | undefined;
  let server: ControlServer | undefined;
  try {
    eal = await openEal(options, log);
    const device = eal.ports[0]!;
    const permanent = device.mac;
    const opened = await Coupling.open(eal, device, couplingOptions(options, log));
    coupling = opened;
    const control = new Netdev(opened, packageVersion(), permanent);
    const metrics = () => metricsText(opened.name, control);
    let down: () => void = () => {};
    const told = new Promise<undefined>((resolve) => {
      down = () => resolve(undefined);
    });
    const info = () => ({
      ...{ interface: opened.name, network: networkNumber(opened.kernel.network) },
      ...{ pid: process.pid, device: opened.device.device },
    });
    server = await ControlServer.start({ control, info, metrics, down });
    if (options.metrics) serving = await serveMetrics(options.metrics, metrics);
    onReady({
      ...{ name: opened.name, device: device.device, mac: device.mac, mtu: device.mtu, queues: opened.queues },
      ...{ link: device.link().up, pid: process.pid },
      ...(serving && { metrics: serving.port }),
    });
    removeDeadSockets().catch((error: Error) => log(error.message));
    const reason = await Promise.race([opened.ended, told, interrupt.happened]);
    if (reason !== undefined) throw new Error(reason);
    return undefined;
  } catch (error) {
    if (error instanceof Interrupted) return error;
    throw error;
  } finally {
    await serving?.close();
    await coupling?.close();
    await eal?.close();
    // Last of all: who asked for the end waits until this connection ends.
    await server?.close();
    interrupt.over();
  }
}

function openEal(options: UpOptions, log: (line: string) => void): Promise<Eal> {
  const cpus = affinity().length;
  const words = ['-m', String(packetMegabytes(options.queues ?? usualQueues(cpus))), ...deviceWords(options)];
  return initEal(words, { log, threads: Math.min(Math.ceil(cpus / 2), WORKERS_MAX), tickMs: TICK_MS });
}

function couplingOptions(options: UpOptions, log: (line: string) => void) {
  const { name, queues, mtu, wait = false } = options;
  const network = existingNetwork(options.network);
  return {
    ...{ name, log, wait, cpus: affinity().length },
    ...(network !== undefined && { network }),
    ...(queues !== undefined && { queues }),
    ...(mtu !== undefined && { mtu }),
  };
}

function deviceWords({ machine, device, vdev }: UpOptions): string[] {
  if (vdev !== undefined) return ['--vdev', vdev];
  if (machine === undefined) throw new Error('expected one of --machine, --root or --vdev');
  const root = machine.includes('/') ? machine : machinePath(machine);
  if (!existsSync(root)) throw new Error(`no machine at ${root}: is its host running (netvsc host --machine ...)?`);
  return ['--root', root, '-a', `${deviceUuid(root, device)},tx_copybreak=${COPY_BYTES}`];
}

function deviceUuid(root: string, device: number | string): string {
  if (typeof device === 'string') return device;
  const devices = [...scanBus(root).devices].filter(({ uio }) => uio).sort((a, b) => a.relid - b.relid);
  const found = devices[device];
  if (found) return found.uuid;
  throw new Error(`${root}: no device ${device}, there are ${devices.length}`);
}

/** A namespace of ip-netns by its name, or one by its path. */
export function existingNetwork(name: string | undefined): string | undefined {
  if (name === undefined) return undefined;
  const path = networkPath(name);
  if (!existsSync(path)) throw new Error(`--netns ${name}: there is no network namespace at ${path}`);
  return path;
}
