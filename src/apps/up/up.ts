// netvsc up: an interface of Linux on a device of a machine, as long as this process lives.
import { existsSync } from 'node:fs';
import { initEal } from '../../drivers/platform.js';
import type { Eal } from '../../ethdev/eal.js';
import { affinity } from '../../memory/os/process.js';
import { machinePath } from '../../memory/rundir.js';
import { packetMegabytes } from '../../netdev/buffers.js';
import { Netdev, usualQueues } from '../../netdev/netdev.js';
import { scanBus } from '../../vmbus/uio/scan.js';
import { type Interrupted, onInterrupt } from '../interrupt.js';

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
}

/** What there is to tell once packets can flow. */
export interface UpReady {
  readonly name: string;
  readonly device: string;
  readonly mac: string;
  readonly mtu: number;
  readonly queues: number;
  readonly link: boolean;
}

/** How often control code looks for news of the host and the interface, ms. */
const TICK_MS = 20;

/** Runs until a signal comes; resolves to it. Rejects when the interface cannot be made, or its device is gone. */
export async function runUp(options: UpOptions, onReady: (ready: UpReady) => void): Promise<Interrupted> {
  const interrupt = onInterrupt(() => {});
  let eal: Eal | undefined;
  let netdev: Netdev | undefined;
  try {
    const cpus = affinity().length;
    const words = ['-m', String(packetMegabytes(options.queues ?? usualQueues(cpus))), ...deviceWords(options)];
    const log = (line: string) => process.stderr.write(`${line}\n`);
    eal = await initEal(words, { log, threads: Math.min(cpus, 16), tickMs: TICK_MS });
    const device = eal.ports[0]!;
    const { name, queues, mtu } = options;
    const network = networkPath(options.network);
    netdev = await Netdev.open(eal, device, {
      ...{ name, cpus, log },
      ...(network !== undefined && { network }),
      ...(queues !== undefined && { queues }),
      ...(mtu !== undefined && { mtu }),
    });
    onReady({
      ...{
        name,
        device: device.device,
        mac: device.mac,
        mtu: device.mtu,
        queues: netdev.queues,
        link: device.link().up,
      },
    });
    const reason = await Promise.race([netdev.ended, interrupt.happened]);
    throw new Error(reason);
  } catch (error) {
    if ((error as Error).name === 'Interrupted') return error as Interrupted;
    throw error;
  } finally {
    await netdev?.close();
    await eal?.close();
    interrupt.over();
  }
}

function deviceWords({ machine, device, vdev }: UpOptions): string[] {
  if (vdev !== undefined) return ['--vdev', vdev];
  if (machine === undefined) throw new Error('expected one of --machine, --root or --vdev');
  const root = machine.includes('/') ? machine : machinePath(machine);
  if (!existsSync(root)) throw new Error(`no machine at ${root}: is its host running (netvsc host --machine ...)?`);
  return ['--root', root, '-a', deviceUuid(root, device)];
}

function deviceUuid(root: string, device: number | string): string {
  if (typeof device === 'string') return device;
  const devices = [...scanBus(root).devices].filter(({ uio }) => uio).sort((a, b) => a.relid - b.relid);
  const found = devices[device];
  if (found) return found.uuid;
  throw new Error(`${root}: no device ${device}, there are ${devices.length}`);
}

/** A namespace of ip-netns by its name, or one by its path. */
export function networkPath(name: string | undefined): string | undefined {
  if (name === undefined) return undefined;
  const path = name.includes('/') ? name : `/run/netns/${name}`;
  if (!existsSync(path)) throw new Error(`--netns ${name}: there is no network namespace at ${path}`);
  return path;
}
