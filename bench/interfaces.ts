// Linux interfaces in network namespaces of their own and the paths that join two of them: what the suites `tap`, `tcp`
// and `latency` measure. Everything made here is gone when withInterfaces() is over, however it ends.
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { Agent } from '../src/apps/demo/agents.js';
import { environmentObstacle } from '../src/apps/demo/environment.js';
import { onInterrupt } from '../src/apps/interrupt.js';
import { affinity, setAffinity } from '../src/memory/os/process.js';
import { machinePath, removeStaleMachines } from '../src/memory/rundir.js';
import { Skip } from './report.js';

/** One end of a path: the interface that a namespace's stack sees. */
export interface End {
  /** The process in whose namespace it is. */
  readonly agent: Agent;
  readonly ifname: string;
  readonly mac: string;
}

/** Two ports of the device API, or two of DPDK's, on interfaces of the kernel. */
export type PortPath = `${'ours' | 'testpmd'} ${'net_tap' | 'net_af_packet'}`;

/** Something that carries frames between two interfaces. */
export interface Path {
  readonly name: 'netvsc' | 'node' | 'testpmd' | 'netvsc up' | 'veth' | PortPath;
  readonly left: End;
  readonly right: End;
  /** Folders of its threads in /proc. */
  readonly threads: readonly string[];
  /** Works until pause(), when not in use, if it would otherwise take CPU time from the others. */
  resume(): void;
  pause(): void;
}

/** Where paths run, and where the load comes from: different cores if there are two. */
export function cores(): { readonly path: number; readonly load: number } {
  const all = affinity();
  return { path: all[0]!, load: all.at(-1)! };
}

/** Calls `work`, whose threads and processes start on that core and stay there. */
export function pinned<T>(cpu: number, work: () => T): T {
  const before = affinity();
  setAffinity([cpu]);
  try {
    return work();
  } finally {
    setAffinity(before);
  }
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Packets that an interface has received from whoever writes to it. */
export function receivedPackets({ agent, ifname }: End): number {
  const line = readFileSync(`/proc/${agent.pid}/net/dev`, 'latin1')
    .split('\n')
    .find((text) => text.trimStart().startsWith(`${ifname}:`));
  if (line === undefined) throw new Error(`no interface ${ifname} in the namespace of ${agent.name}`);
  return Number(
    line
      .slice(line.indexOf(':') + 1)
      .trim()
      .split(/\s+/)[1],
  );
}

/** Milliseconds for which threads have run on a CPU; NaN where the kernel does not count that. */
export function cpuMs({ threads }: Pick<Path, 'threads'>): number {
  let ns = 0;
  for (const thread of threads) {
    try {
      ns += Number(readFileSync(`${thread}/schedstat`, 'latin1').split(' ')[0]);
    } catch {
      return Number.NaN;
    }
  }
  return ns / 1e6;
}

/** Folders of a process's threads. */
export const threadsOf = (pid: number): string[] =>
  readdirSync(`/proc/${pid}/task`).map((id) => `/proc/${pid}/task/${id}`);

/** Namespaces and a list of what is to be undone. */
export class Interfaces {
  readonly left: Agent;
  readonly right: Agent;
  /** Behind the switch's uplink. */
  readonly uplink: Agent;
  readonly machine = `bench-${process.pid}`;
  readonly #undo: (() => void | Promise<void>)[] = [];

  constructor(left: Agent, right: Agent, uplink: Agent) {
    this.left = left;
    this.right = right;
    this.uplink = uplink;
  }

  /** Done at the end, last first. */
  atEnd(action: () => void | Promise<void>): void {
    this.#undo.push(action);
  }

  async close(): Promise<void> {
    for (const action of this.#undo.splice(0).reverse()) {
      try {
        await action();
      } catch (error) {
        process.stderr.write(`bench: cleaning up: ${(error as Error).message}\n`);
      }
    }
  }
}

/** Makes three namespaces, does the work and removes everything, also after Ctrl-C. Rejects with Skip where it cannot. */
export async function withInterfaces<T>(work: (interfaces: Interfaces) => Promise<T>): Promise<T> {
  const obstacle = environmentObstacle();
  if (obstacle !== undefined) throw new Skip(`needs network namespaces and TAP interfaces: ${obstacle}`);
  removeStaleMachines();
  const agents = ['left', 'right', 'uplink'].map((name) => Agent.spawn(name));
  const interrupt = onInterrupt(() => {
    for (const agent of agents) agent.kill();
  });
  const interfaces = new Interfaces(agents[0]!, agents[1]!, agents[2]!);
  interfaces.atEnd(async () => {
    await Promise.all(agents.map((agent) => agent.stop()));
    rmSync(machinePath(interfaces.machine), { recursive: true, force: true, maxRetries: 5, retryDelay: 20 });
  });
  try {
    const all = Promise.all(agents.map((agent) => agent.started)).then(() => work(interfaces));
    return await Promise.race([all, interrupt.happened]);
  } finally {
    await interfaces.close();
    interrupt.over();
  }
}
