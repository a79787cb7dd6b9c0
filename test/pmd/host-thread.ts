// A machine's host in a thread of its own.
import { parentPort, workerData } from 'node:worker_threads';
import { createDatapath } from '../../src/datapath/datapath.js';
import { PollLoop } from '../../src/ethdev/loop.js';
import { Host, type HostNicOptions } from '../../src/host/host.js';
import type { ProfileName } from '../../src/host/profiles.js';
import { Arena } from '../../src/memory/arena.js';
import { linuxSystem } from '../../src/memory/os/mman.js';

/** What the test's thread hands over. */
export interface HostThreadData {
  readonly machine: string;
  readonly profile: ProfileName;
  readonly nics: readonly HostNicOptions[];
  readonly megabytes: number;
}

/** What it may ask for; each is answered. */
export type HostCommand =
  | { readonly do: 'state' }
  | { readonly do: 'rescind'; readonly nic: number }
  | { readonly do: 'end' };

const { machine, profile, nics, megabytes } = workerData as HostThreadData;
const arena = Arena.create({ bytes: megabytes << 20, system: linuxSystem });
const host = Host.create({ arena, datapath: createDatapath(arena.memory), machine, profile, nics });
const loop = new PollLoop();
loop.add(host);
loop.start();
parentPort!.on('message', async (command: HostCommand) => {
  if (command.do === 'state') parentPort!.postMessage(host.state());
  if (command.do === 'rescind') {
    host.nics[command.nic]!.offer.rescind();
    parentPort!.postMessage('rescinded');
  }
  if (command.do !== 'end') return;
  await loop.stop();
  host.close();
  loop.close();
  parentPort!.postMessage('ended');
  parentPort!.close();
});
parentPort!.postMessage(host.path);
