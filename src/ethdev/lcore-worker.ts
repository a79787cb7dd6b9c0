// The thread of an lcore: runs one function of a user's module on its own view of ports and mbufs.
import { parentPort, workerData } from 'node:worker_threads';
import { Arena } from '../memory/arena.js';
import { linuxSystem } from '../memory/os/mman.js';
import { setAffinity } from '../memory/os/process.js';
import type { Driver } from './driver.js';
import { ANY_CPU, LcoreThread } from './lcore.js';
import type { PortHandle } from './queues.js';

/** What Eal.launch hands over. */
export interface LcoreData {
  readonly memory: WebAssembly.Memory;
  readonly lcore: number;
  /** Number, or ANY_CPU. */
  readonly cpu: number;
  readonly address: number;
  readonly stop: number;
  readonly wakeFd: number;
  readonly drivers: string;
  readonly ports: readonly PortHandle[];
  readonly module: string;
  readonly main: string;
  readonly data: unknown;
}

async function main(setup: LcoreData): Promise<unknown> {
  if (setup.cpu !== ANY_CPU) setAffinity([setup.cpu]);
  const arena = Arena.attach(setup.memory, linuxSystem);
  const { drivers } = (await import(setup.drivers)) as { drivers: readonly Driver[] };
  const { lcore, ports, stop, wakeFd } = setup;
  const thread = new LcoreThread({ arena, lcore, memory: setup.address, drivers, ports, stop, wakeFd });
  try {
    const found = ((await import(setup.module)) as Record<string, unknown>)[setup.main];
    if (typeof found !== 'function') throw new TypeError(`${setup.module} exports no function ${setup.main}`);
    return await found(thread, setup.data);
  } finally {
    thread.close();
  }
}

const result = await main(workerData as LcoreData);
parentPort!.postMessage(result);
