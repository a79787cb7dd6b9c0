// The host that DPDK's driver meets, in the test's own process, with a port on its switch that the test looks through.
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { createDatapath } from '../../src/datapath/datapath.js';
import { PollLoop } from '../../src/ethdev/loop.js';
import { FrameWorkshop } from '../../src/host/frames.js';
import { type FrameSpec, layFrames, RecordingPort, readFrame, type SeenFrame } from '../../src/host/frames-testing.js';
import { Host, type HostNicOptions } from '../../src/host/host.js';
import type { Nic } from '../../src/host/nic.js';
import { UPLINK_FILTER, type Uplink } from '../../src/host/ports.js';
import { openUplink, parseUplink, type UplinkContext } from '../../src/host/uplinks/index.js';
import { Arena } from '../../src/memory/arena.js';
import { linuxSystem } from '../../src/memory/os/mman.js';
import { machineName } from '../lifecycle/processes.js';

export const ECHO_MAC = '02:00:00:ec:00:09';
export const ECHO_IP = '10.0.0.9';
export const STATION_MAC = Uint8Array.of(2, 0, 0, 0, 0, 0x51);

/** A station of the test's own: sends any frame, keeps what it gets, as a wire has it (finished checksums, segments). */
export class Station extends RecordingPort implements Uplink {
  readonly #context: UplinkContext;
  readonly #workshop: FrameWorkshop;

  constructor(context: UplinkContext, index: number) {
    super(context.arena, context.number, 'echo', UPLINK_FILTER);
    this.#context = context;
    this.#workshop = new FrameWorkshop(context.arena, context.datapath, `test station ${index}`);
    this.macs = [Uint8Array.of(...STATION_MAC.subarray(0, 5), STATION_MAC[5]! + index)];
    this.mtu = 9202;
  }

  /** Through the switch at once. */
  send(...frames: readonly Omit<FrameSpec, 'source'>[]): void {
    const table = layFrames(
      this.arena,
      frames.map((frame) => ({ ...frame, source: this.number })),
    );
    this.#context.sink.forward(table, frames.length);
    this.arena.release(table);
  }

  override deliver(frames: number, count: number): void {
    this.#workshop.begin(frames, count, 0);
    for (let n = this.#workshop.next(); n > 0; n = this.#workshop.next()) {
      for (let i = 0; i < n; i++) {
        this.seen.push(readFrame(this.arena, this.arena.u32[(this.#workshop.output >>> 2) + i]!));
      }
    }
  }

  /** What it got, once there are so many. */
  async got(count: number): Promise<SeenFrame[]> {
    await until(
      () => this.seen.length >= count,
      () => `${this.seen.length} of ${count} frames came`,
    );
    return this.take();
  }

  poll(): number {
    return 0;
  }
  tick(): void {}
  fds(): readonly number[] {
    return [];
  }
  arm(): boolean {
    return true;
  }
  stats(): Record<string, number> {
    return {};
  }
  close(): void {
    this.#workshop.release();
  }
}

export interface Rig {
  readonly machine: string;
  readonly arena: Arena;
  readonly host: Host;
  readonly nic: Nic;
  /** Only with `station` or `stations`: the first one, and all. */
  readonly station: Station;
  readonly stations: readonly Station[];
}

/** A host with an echo station at ECHO_IP, or with Stations. DPDK takes the devices in the order of their UUIDs. */
export function startRig(
  t: TestContext,
  options: { nics?: number; nic?: HostNicOptions; station?: boolean; stations?: number } = {},
): Rig {
  const { nics = 1, nic = {}, station = false, stations: count = station ? 1 : 0 } = options;
  const machine = machineName();
  const arena = Arena.create({ bytes: (320 + nics * 320) << 20, system: linuxSystem });
  const stations: Station[] = [];
  const echo = (context: UplinkContext) => openUplink(parseUplink(`echo:${ECHO_IP},${ECHO_MAC}`), context);
  const plug = (context: UplinkContext) => {
    const made = new Station(context, stations.length);
    stations.push(made);
    return made;
  };
  const host = Host.create({
    ...{ arena, datapath: createDatapath(arena.memory), machine, profile: 'ws2019' },
    nics: Array.from({ length: nics }, () => nic),
    uplinks: count === 0 ? [echo] : Array.from({ length: count }, () => plug),
  });
  const loop = new PollLoop();
  loop.add(host);
  loop.start();
  t.after(async () => {
    await loop.stop();
    loop.close();
    host.close();
  });
  return { machine, arena, host, nic: host.nics[0]!, station: stations[0]!, stations };
}

/** Waits for what the other side does. */
export async function until(done: () => boolean, state: () => string = () => 'it never came to that'): Promise<void> {
  const began = performance.now();
  while (!done()) {
    assert.ok(performance.now() - began < 30_000, state());
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** DPDK's RTE_ETH_TX_OFFLOAD_* and RTE_ETH_RX_OFFLOAD_* that net_netvsc knows. */
export const TX_OFFLOAD = {
  VLAN_INSERT: 1 << 0,
  IPV4_CKSUM: 1 << 1,
  UDP_CKSUM: 1 << 2,
  TCP_CKSUM: 1 << 3,
  TCP_TSO: 1 << 5,
  MULTI_SEGS: 1 << 15,
} as const;
export const RX_OFFLOAD = {
  VLAN_STRIP: 1 << 0,
  IPV4_CKSUM: 1 << 1,
  UDP_CKSUM: 1 << 2,
  TCP_CKSUM: 1 << 3,
  RSS_HASH: 1 << 19,
} as const;

/** A copy of the frame with these addresses. */
export function addressed(bytes: Uint8Array, to: Uint8Array, from: Uint8Array): Uint8Array {
  const frame = bytes.slice();
  frame.set(to, 0);
  frame.set(from, 6);
  return frame;
}

/** RTE_ETH_RSS_* of the driver's hash types. */
export const RSS = { IPV4: 1 << 2, IPV4_TCP: 1 << 4, IPV6: 1 << 8, IPV6_TCP: 1 << 10 } as const;

/** The NIC's address. */
export const macOf = (nic: Nic): Uint8Array => Uint8Array.from(Buffer.from(nic.state().mac.replaceAll(':', ''), 'hex'));
