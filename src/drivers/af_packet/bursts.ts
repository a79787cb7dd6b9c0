// Bursts of one packet socket, in the thread that polls it: the ring is in the arena, the descriptor the process's.

import type { Datapath } from '../../datapath/datapath.js';
import type { Lcore, RxBurst } from '../../ethdev/driver.js';
import { PACKET_RING } from '../../memory/layout-sockets.js';
import { PacketWriter, takeSocketError } from '../../memory/os/packet-socket.js';
import { QueueCounters } from '../virtual-port.js';
import { BATCH, VnetTx, type VnetTxDescription } from '../vnet-tx.js';

const { bytes, errors, noMbufs } = PACKET_RING.at;

/** Plain data. */
export interface PacketRxDescription {
  readonly fd: number;
  /** Address of the PACKET_RING. */
  readonly ring: number;
  readonly counters: number;
}

export class PacketRx implements RxBurst {
  readonly #datapath: Datapath;
  readonly #u32: Uint32Array;
  readonly #ring: number;
  readonly #fd: number;
  readonly #counters: QueueCounters;

  constructor(lcore: Lcore, { fd, ring, counters }: PacketRxDescription) {
    this.#datapath = lcore.datapath;
    this.#u32 = lcore.arena.u32;
    this.#ring = ring;
    this.#fd = fd;
    this.#counters = new QueueCounters(lcore.arena, counters);
  }

  burst(handles: number, max: number): number {
    const u32 = this.#u32;
    const ring = this.#ring;
    const count = this.#datapath.packetReceive(ring, handles, max);
    if (count > 0) this.#counters.add(count, u32[(ring + bytes) >>> 2]!);
    if (u32[(ring + errors) >>> 2]! > 0) this.#counters.error(u32[(ring + errors) >>> 2]!);
    if (u32[(ring + noMbufs) >>> 2]! > 0) this.#counters.noMbuf(u32[(ring + noMbufs) >>> 2]!);
    return count;
  }

  /** A socket whose interface went down is readable until its error is taken. */
  arm(): boolean {
    takeSocketError(this.#fd);
    return this.#datapath.packetWaiting(this.#ring) === 0;
  }

  disarm(): void {}

  fds(): readonly number[] {
    return [this.#fd];
  }

  close(): void {}
}

export function openPacketTx(lcore: Lcore, setup: VnetTxDescription): VnetTx {
  return new VnetTx(lcore, setup, new PacketWriter(lcore.arena, setup.fd, BATCH));
}
