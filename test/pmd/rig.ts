// Netvsc ports of the device API on our host: the host in a thread of its own, ports in this one and in lcores.
import { once } from 'node:events';
import type { TestContext } from 'node:test';
import { Worker } from 'node:worker_threads';
import { initEal } from '../../src/drivers/platform.js';
import type { Eal } from '../../src/ethdev/eal.js';
import type { Mempool } from '../../src/ethdev/mempool.js';
import type { Port } from '../../src/ethdev/port.js';
import type { PortConfig } from '../../src/ethdev/types.js';
import type { HostNicOptions } from '../../src/host/host.js';
import { nicUuid } from '../../src/host/identity.js';
import type { ProfileName } from '../../src/host/profiles.js';
import type { HostState } from '../../src/host/state.js';
import { testMachineName } from '../../src/vmbus/uio/testing.js';
import type { HostCommand, HostThreadData } from './host-thread.js';

export interface HostThread {
  readonly machine: string;
  readonly path: string;
  state(): Promise<HostState>;
  rescind(nic: number): Promise<void>;
  /** What is done before a test's host ends, the last one first. */
  readonly before: (() => Promise<void>)[];
  /** Ends the host, orderly. */
  end(): Promise<void>;
  /** Ends the thread where it is. */
  kill(): Promise<void>;
}

export interface HostThreadOptions {
  readonly nics?: readonly HostNicOptions[];
  readonly profile?: ProfileName;
  readonly megabytes?: number;
}

/** Ends with the test. */
export async function startHost(t: TestContext, options: HostThreadOptions = {}): Promise<HostThread> {
  const host = await hostThread(options);
  t.after(async () => {
    try {
      for (const action of host.before.reverse()) await action();
    } finally {
      await host.end();
    }
  });
  return host;
}

/** The caller ends it. */
export async function hostThread(options: HostThreadOptions = {}): Promise<HostThread> {
  const machine = testMachineName();
  const { nics = [{}, {}], profile = 'ws2019', megabytes = 512 } = options;
  const workerData: HostThreadData = { machine, profile, nics, megabytes };
  const worker = new Worker(new URL('./host-thread.js', import.meta.url), { workerData, trackUnmanagedFds: false });
  let running = true;
  const exit = once(worker, 'exit');
  const ask = async (command: HostCommand): Promise<unknown> => {
    const answer = once(worker, 'message');
    worker.postMessage(command);
    return (await answer)[0];
  };
  const [path] = await once(worker, 'message');
  return {
    machine,
    path,
    before: [],
    state: async () => (await ask({ do: 'state' })) as HostState,
    rescind: async (nic) => void (await ask({ do: 'rescind', nic })),
    async end() {
      if (!running) return;
      running = false;
      await ask({ do: 'end' });
      await exit; // its descriptors are closed then
    },
    async kill() {
      running = false;
      await worker.terminate();
    },
  };
}

/** An environment with that machine's devices. It is closed before the host ends. */
export async function startEal(host: HostThread, ...words: string[]): Promise<Eal & { lines: string[] }> {
  const lines: string[] = [];
  const eal = await initEal(['--machine', host.machine, ...words], { log: (line) => lines.push(line) });
  host.before.push(() => eal.close());
  return Object.assign(eal, { lines });
}

/** The port of that NIC. */
export const portOf = (eal: Eal, host: HostThread, nic: number): Port => eal.port(nicUuid(host.machine, nic));

/** Configures a port, sets all its queues up with one pool, and starts it. */
export async function startPort(
  port: Port,
  pool: Mempool,
  config: Partial<PortConfig> = {},
  descriptors = 0,
): Promise<void> {
  await port.configure({ rxQueues: 1, txQueues: 1, ...config });
  for (let queue = 0; queue < port.config!.rxQueues; queue++) port.setupRxQueue(queue, { descriptors, pool });
  for (let queue = 0; queue < port.config!.txQueues; queue++) port.setupTxQueue(queue, { descriptors });
  await port.start();
}

/** Turns of the event loop until this holds. */
export async function until(what: string, done: () => boolean, limitMs = 20_000): Promise<void> {
  for (const end = performance.now() + limitMs; !done(); ) {
    if (performance.now() > end) throw new Error(`not within ${limitMs} ms: ${what}`);
    await new Promise(setImmediate);
  }
}
