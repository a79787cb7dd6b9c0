// Guests on machines of their own, which one host process serves, in front of equal tasks. What counts is a guest's own time
// per packet, measured while host and guest take turns on one core; packets per second come from both running at once, a core
// each.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { onInterrupt } from '../../src/apps/interrupt.js';
import { runEnvironment } from '../../src/apps/run/run.js';
import { macText } from '../../src/host/identity.js';
import { machinePath, removeStaleMachines } from '../../src/memory/rundir.js';
import { buildPmd, EAL } from '../../test/peers/dpdk.js';
import { cores } from '../interfaces.js';
import { BURST } from '../traffic.js';
import { batonPaths, makeBaton } from './baton.js';
import { Child } from './child.js';
import { type GuestFigures, type HostFigures, type Task, taskLine } from './task.js';
import { UPLINK_MAC } from './uplink.js';

export interface Guest {
  readonly name: string;
  /** device: our driver alone; port: our net_netvsc behind the poll-mode API; dpdk: DPDK's. */
  readonly kind: 'device' | 'port' | 'dpdk';
  /** Of a port, ours or DPDK's. */
  readonly devargs?: string;
  /** Queues each way, of a port of ours: one thread polls them in turn (1). */
  readonly queues?: number;
  /** Packets a call (32). */
  readonly burst?: number;
}

/** A task, wherever it runs. */
export type Work = Omit<Task, 'cpu'>;

export interface Figures extends GuestFigures {
  readonly hostNs: number | undefined;
}

/** Figures of a work by guest, a round each. */
export type Results = ReadonlyMap<string, readonly Figures[]>;

interface Machine {
  readonly path: string;
  readonly uuid: string;
}

const script = (name: string) => fileURLToPath(new URL(`./${name}.js`, import.meta.url));
let benches = 0;

class Bench {
  readonly #folder = mkdtempSync(path.join(tmpdir(), 'netvsc-peers-'));
  readonly #guests: readonly Guest[];
  readonly #machines: readonly string[];
  readonly #all: Child[] = [];
  readonly #children = new Map<string, Child>();
  #host: Child | undefined;
  /** TSC cycles per second; 0 while no C guest has said it. */
  hz = 0;

  constructor(guests: readonly Guest[]) {
    const number = ++benches;
    this.#guests = guests;
    this.#machines = guests.map((_, index) => `peers-${process.pid}-${number}-${index}`);
  }

  async start(): Promise<void> {
    for (const machine of this.#machines) makeBaton(this.#folder, machine);
    this.#host = this.#spawn('host', [process.execPath, script('host'), this.#folder, ...this.#machines]);
    const { machines } = (await this.#host.line('ready')) as { machines: Machine[] };
    for (const [index, guest] of this.#guests.entries()) {
      const child = this.#open(guest, this.#machines[index]!, machines[index]!);
      this.#children.set(guest.name, child);
      const { hz } = (await child.line('ready')) as { hz?: number };
      if (hz !== undefined) this.hz = hz;
    }
  }

  /** One task of one guest; checks that host and guest count the same. */
  async measure({ name }: Guest, task: Work): Promise<Figures> {
    const { path: near, load: far } = cores();
    const guestCpu = near;
    const hostCpu = task.how === 'step' ? near : far;
    const index = this.#guests.findIndex((guest) => guest.name === name);
    const [host, guest] = (await Promise.all([
      this.#host!.ask(`${index} ${taskLine({ ...task, cpu: hostCpu })}`),
      this.#children.get(name)!.ask(taskLine({ ...task, cpu: guestCpu })),
    ])) as [HostFigures, GuestFigures];
    const what = `${name}, ${task.how} ${task.mode} ${task.bytes} B`;
    if (guest.wrong > 0) throw new Error(`${what}: ${guest.wrong} packets were not what the host sent`);
    if (task.how === 'step' && host.frames !== guest.packets) {
      throw new Error(`${what}: the guest counts ${guest.packets} packets, the host ${host.frames}`);
    }
    return { ...guest, hostNs: host.ns };
  }

  async stop(): Promise<void> {
    for (const child of this.#all.splice(0).reverse()) await child.stop();
    this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
    for (const machine of this.#machines) rmSync(machinePath(machine), { recursive: true, force: true });
  }

  kill(): void {
    for (const child of this.#all) child.kill();
  }

  #open({ name, kind, devargs = '', queues = 1, burst = BURST }: Guest, machine: string, at: Machine): Child {
    const { path: root, uuid } = at;
    const device = `vmbus:${uuid}${devargs === '' ? '' : `,${devargs}`}`;
    const words = [this.#folder, machine, root];
    if (kind === 'device') return this.#spawn(name, [process.execPath, script('guest'), ...words, uuid, `${burst}`]);
    if (kind === 'port')
      return this.#spawn(name, [process.execPath, script('port-guest'), ...words, device, `${queues}`, `${burst}`]);
    const { toGuest, toHost } = batonPaths(this.#folder, machine);
    const eal = [...EAL, '-l', String(cores().path), '-a', device];
    const command = [buildPmd('bench/peers/guest.c'), ...eal, '--', macText(UPLINK_MAC), toGuest, toHost, `${burst}`];
    return this.#spawn(name, command as [string, ...string[]], runEnvironment(root));
  }

  #spawn(name: string, command: [string, ...string[]], env?: NodeJS.ProcessEnv): Child {
    const child = new Child(name, command, env);
    this.#all.push(child);
    return child;
  }
}

/** Every guest does every work once a round, one after the other, and once before that, to compile and to warm. Everything
 *  that is started ends with it, also after Ctrl-C. */
export async function compare(
  guests: readonly Guest[],
  works: readonly Work[],
  rounds: number,
): Promise<{ readonly results: readonly Results[]; readonly hz: number }> {
  removeStaleMachines();
  const bench = new Bench(guests);
  const interrupt = onInterrupt(() => bench.kill());
  const results = works.map(() => new Map<string, Figures[]>(guests.map(({ name }) => [name, []])));
  const measure = async () => {
    await bench.start();
    for (let round = -1; round < rounds; round++) {
      for (const [index, work] of works.entries()) {
        for (const guest of guests) {
          const figures = await bench.measure(guest, work);
          if (round >= 0) results[index]!.get(guest.name)!.push(figures);
        }
      }
    }
  };
  try {
    await Promise.race([measure(), interrupt.happened]);
    return { results, hz: bench.hz };
  } catch (error) {
    bench.kill();
    throw error;
  } finally {
    await bench.stop();
    interrupt.over();
  }
}
