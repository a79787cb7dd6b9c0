// netvsc host: the Hyper-V side of a machine as a process of its own. Guests find their devices in the machine directory.
import { randomInt } from 'node:crypto';
import { createDatapath } from '../../datapath/datapath.js';
import { loopEpochNs, PollLoop } from '../../ethdev/loop.js';
import { Host } from '../../host/host.js';
import type { ProfileName } from '../../host/profiles.js';
import type { HostState } from '../../host/state.js';
import { openUplink, type UplinkSpec } from '../../host/uplinks/index.js';
import { Arena } from '../../memory/arena.js';
import { linuxSystem } from '../../memory/os/mman.js';
import { removeStaleMachines } from '../../memory/rundir.js';
import { type Interrupted, onInterrupt } from '../interrupt.js';

/** Rings, receive and send buffers of a NIC, and the guest pages that the host maps. */
const BYTES_PER_NIC = 384 << 20;
const BYTES_SHARED = 128 << 20;

export interface HostAppOptions {
  readonly machine: string;
  readonly nics: number;
  readonly profile: ProfileName;
  readonly uplinks: readonly UplinkSpec[];
}

/** What there is to tell once guests may come. */
export interface HostReady {
  readonly machine: string;
  /** Root for guests. */
  readonly path: string;
  readonly profile: ProfileName;
  readonly nics: readonly { readonly uuid: string; readonly mac: string }[];
}

/** Serves until a signal comes; everything made is gone then. Resolves to the signal and the last state; rejects when the
 *  machine or an uplink cannot be made. */
export async function runHost(
  options: HostAppOptions,
  onReady: (ready: HostReady) => void,
): Promise<{ ended: Interrupted; state: HostState }> {
  removeStaleMachines();
  const interrupt = onInterrupt(() => {});
  try {
    const arena = Arena.create({ bytes: BYTES_SHARED + options.nics * BYTES_PER_NIC, system: linuxSystem });
    const datapath = createDatapath(arena.memory);
    const host = Host.create({
      ...{ arena, datapath, machine: options.machine, profile: options.profile },
      nics: Array.from({ length: options.nics }, () => ({})),
      ...{ seed: randomInt(2 ** 32), epochNs: loopEpochNs() },
      uplinks: options.uplinks.map((spec) => (context) => openUplink(spec, context)),
    });
    const loop = new PollLoop();
    try {
      loop.add(host);
      loop.start();
      const { nics } = host.state();
      onReady({
        ...{ machine: options.machine, path: host.path!, profile: options.profile },
        nics: nics.map(({ uuid, mac }) => ({ uuid, mac })),
      });
      const ended = await interrupt.happened.catch((reason: Interrupted) => reason);
      await loop.stop();
      return { ended, state: host.state() };
    } finally {
      host.close();
      loop.close();
    }
  } finally {
    interrupt.over();
  }
}
