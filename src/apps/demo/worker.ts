// The demo's data worker: the host and every guest in one thread, a queue's two halves stepped in turn. The guests find
// their devices in the machine directory, as guests in other processes would.
import { randomInt } from 'node:crypto';
import { closeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { createDatapath } from '../../datapath/datapath.js';
import { loopEpochNs, PollLoop } from '../../ethdev/loop.js';
import { Host } from '../../host/host.js';
import { openUplink, parseUplink } from '../../host/uplinks/index.js';
import { Arena } from '../../memory/arena.js';
import { linuxSystem } from '../../memory/os/mman.js';
import { inNetwork } from '../../memory/os/netns.js';
import { openTap, setTapOffload } from '../../memory/os/tap.js';
import type { NetvscInfo } from '../../netvsc/types.js';
import { offloadNames } from '../../offload/features.js';
import { openUioDevice } from '../../vmbus/uio/device.js';
import { createGuestNic, type GuestNic } from '../guest-nic.js';
import { TapNic } from '../tap-nic.js';
import { tapOffload } from '../tap-offload.js';
import type { WorkerData } from './protocol.js';
import { Replay } from './replay.js';

/** Pages of memory that a NIC needs at most: both sides' maps of rings and buffers, packet memory twice. */
const BYTES_PER_NIC = 256 << 20;
const BYTES_SHARED = 256 << 20;

interface Attached {
  readonly nic: GuestNic;
  readonly info: NetvscInfo;
  readonly tap: { readonly bridge: TapNic; readonly fd: number } | undefined;
}

async function main(setup: WorkerData): Promise<void> {
  const port = parentPort!;
  const arena = Arena.create({ bytes: BYTES_SHARED + setup.nics.length * BYTES_PER_NIC, system: linuxSystem });
  const datapath = createDatapath(arena.memory);
  const uplink = setup.uplink;
  const host = Host.create({
    arena,
    datapath,
    machine: setup.machine,
    profile: setup.profile,
    seed: randomInt(2 ** 32),
    epochNs: loopEpochNs(),
    nics: setup.nics.map(() => ({})),
    uplinks: [
      (context) =>
        uplink.kind === 'tap'
          ? inNetwork(uplink.netnsPid, () => openUplink(parseUplink(`tap:${uplink.ifname}`), context))
          : openUplink(parseUplink('echo'), context),
    ],
  });
  const loop = new PollLoop();
  loop.add(host);
  loop.start();
  const attached: Attached[] = [];
  const failures: string[] = [];

  const close = async () => {
    for (const { nic } of attached) await nic.device.detach();
    await loop.stop();
    for (const { nic, tap } of attached) {
      tap?.bridge.close();
      if (tap) closeSync(tap.fd);
      nic.close();
    }
    host.close();
    loop.close();
  };

  try {
    const begin = performance.now();
    for (const [index, { ifname, netnsPid }] of setup.nics.entries()) {
      const device = openUioDevice(arena, host.path!, host.nics[index]!.offer.uuid);
      const onEvent = (event: { type: string; reason?: string }) => {
        if (event.type === 'failed') failures.push(event.reason!);
      };
      // A replay looks for the very frames that were sent: the host is not to put segments together.
      const nic = createGuestNic(arena, datapath, device, { mtu: setup.mtu, rsc: setup.replay !== true, onEvent });
      const opened = setup.replay ? undefined : inNetwork(netnsPid, () => openTap(ifname));
      const bridge = opened && new TapNic(arena, datapath, nic, opened.fd, setup.mtu);
      if (bridge) loop.add(bridge);
      const polled = bridge ? undefined : pollOnly(nic, arena.reserve('control poll', 256));
      if (polled) loop.add(polled);
      const info = await nic.device.attach();
      if (polled) loop.remove(polled);
      if (opened) setTapOffload(opened.fd, tapOffload(info.offloads));
      attached.push({ nic, info, tap: bridge && { bridge, fd: opened!.fd } });
    }
    const nics = attached.map(({ info }, index) => ({
      name: setup.nics[index]!.ifname,
      mac: info.mac,
      mtu: info.mtu,
      nvspVersion: info.nvspVersion,
      ndisVersion: info.ndisVersion,
      offloads: offloadNames(info.offloads),
      linkSpeedBps: info.linkSpeedBps,
      /** What the interface's stack should keep TSO packets below (gso_max_size); 0 = no LSO. */
      gsoMaxBytes: Math.max(0, Math.min(info.lsoMax4, info.lsoMax6) - 14),
    }));
    port.postMessage({ type: 'ready', nics, attachMs: performance.now() - begin });
  } catch (error) {
    port.postMessage({ type: 'failed', reason: error instanceof Error ? error.message : String(error) });
    await close();
    return;
  }

  const report = (id: number) => {
    const state = host.state();
    const uplinkPort = state.ports.find((candidate) => candidate.kind !== 'nic');
    port.postMessage({
      type: 'stats',
      id,
      failures,
      nics: attached.map(({ nic, tap }, index) => ({
        name: setup.nics[index]!.ifname,
        guest: { ...nic.device.stats(), ...(tap ? { ...tap.bridge.stats } : {}) },
        host: state.nics[index]!.counters,
        hostState: state.nics[index]!.reason ?? state.nics[index]!.phase,
        receiveBuffer: state.nics[index]!.receiveBuffer,
      })),
      switch: state.switch,
      uplink: uplinkPort?.counters ?? {},
    });
  };

  port.on(
    'message',
    async (message: { type: string; id: number; from: number; to: number; file: string; loops: number }) => {
      if (message.type === 'stats') report(message.id);
      else if (message.type === 'replay') {
        const from = attached[message.from]!.nic;
        const to = attached[message.to]!.nic;
        const replay = Replay.load({ arena, datapath, from, to, file: message.file, loops: message.loops });
        loop.add(replay);
        const result = await replay.finished;
        loop.remove(replay);
        replay.close();
        port.postMessage({ type: 'replayed', id: message.id, ...result });
      } else if (message.type === 'stop') {
        await close();
        port.postMessage({ type: 'stopped' });
        port.close();
      }
    },
  );
}

/** Steps a device that has no interface yet, so that its control requests are answered. */
function pollOnly(nic: GuestNic, handles: number) {
  return {
    step: () => nic.device.poll(handles, 32),
    tick: (nowMs: number) => nic.device.tick(nowMs),
    arm: () => nic.device.arm(),
    disarm: () => nic.device.disarm(),
    fds: () => nic.device.fds(),
  };
}

await main(workerData as WorkerData);
