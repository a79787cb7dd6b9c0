// Transmit queues to interfaces of the kernel, which take a virtio_net_hdr with each packet.

import type { DriverContext, Lcore, TxBurst } from '../ethdev/driver.js';
import type { Arena } from '../memory/arena.js';
import { VNET_GATHER_MIN, VNET_TX } from '../memory/layout-sockets.js';
import { QueueCounters } from './virtual-port.js';

/** Packets in one system call. */
export const BATCH = 64;
/** Behind Ethernet's own header: two tags. */
const TAGS_BYTES = 8;
const ETHERNET_BYTES = 14;
const GATHER_BYTES = Math.max(4 * 65_600, VNET_GATHER_MIN);
const LISTS = VNET_TX.bytes;
const { addresses, lengths, pieces, capacity, gather, gatherBytes, maxFrameBytes, headerBytes } = VNET_TX.at;
const { vectors, vectorCount, base } = VNET_TX.at;
/** Pieces of the packets of a batch: some of its packets are large ones in chains. */
const VECTORS = 2048;
const VECTOR_BYTES = 16;

/** Writes packets that lie in the arena (TapIo, PacketWriter). */
export interface VnetWriter {
  /** `pieces[i]` other than 1: at addresses[i] is a list of so many struct iovec. */
  write(addresses: Int32Array, lengths: Int32Array, count: number, pieces: Int32Array): number;
  /** Packets that counted as taken but were refused. */
  writeErrors: number;
  close(): void;
}

/** Plain data. */
export interface VnetTxDescription {
  readonly fd: number;
  /** Address of the VNET_TX. */
  readonly cells: number;
  readonly counters: number;
}

/** Memory of one queue; `header`: bytes of the virtio_net_hdr; `inPieces`: its writer takes packets as lists of pieces. */
export function reserveVnetTx(
  { arena }: DriverContext,
  name: string,
  header: number,
  mtu: number,
  inPieces = false,
): number {
  const lists = LISTS + BATCH * 12;
  const vectorBytes = inPieces ? VECTORS * VECTOR_BYTES : 0;
  const cells = arena.reserve(`${name} tx`, lists + vectorBytes + GATHER_BYTES);
  const set = (cell: number, value: number) => {
    arena.u32[(cells + cell) >>> 2] = value;
  };
  set(addresses, cells + LISTS);
  set(lengths, cells + LISTS + BATCH * 4);
  set(pieces, cells + LISTS + BATCH * 8);
  set(capacity, BATCH);
  if (inPieces) {
    const address = arena.baseAddress();
    set(vectors, cells + lists);
    set(vectorCount, VECTORS);
    set(base, Number(address & 0xffff_ffffn));
    set(base + 4, Number(address >> 32n));
  }
  set(gather, cells + lists + vectorBytes);
  set(gatherBytes, GATHER_BYTES);
  set(headerBytes, header);
  setVnetMtu(arena, cells, mtu);
  return cells;
}

/** From now on packets of up to that MTU are sent. Any thread. */
export function setVnetMtu(arena: Arena, cells: number, mtu: number): void {
  Atomics.store(arena.u32, (cells + maxFrameBytes) >>> 2, mtu + ETHERNET_BYTES + TAGS_BYTES);
}

export class VnetTx implements TxBurst {
  readonly #lcore: Lcore;
  readonly #cells: number;
  readonly #counters: QueueCounters;
  readonly #writer: VnetWriter;
  readonly #addresses: Int32Array;
  readonly #lengths: Int32Array;
  readonly #pieces: Int32Array;
  readonly #header: number;

  constructor(lcore: Lcore, { cells, counters }: VnetTxDescription, writer: VnetWriter) {
    const { arena } = lcore;
    this.#lcore = lcore;
    this.#cells = cells;
    this.#counters = new QueueCounters(arena, counters);
    this.#writer = writer;
    const list = (cells + LISTS) >>> 2;
    this.#addresses = arena.i32.subarray(list, list + BATCH);
    this.#lengths = arena.i32.subarray(list + BATCH, list + 2 * BATCH);
    this.#pieces = arena.i32.subarray(list + 2 * BATCH, list + 3 * BATCH);
    this.#header = arena.u32[(cells + headerBytes) >>> 2]!;
  }

  burst(handles: number, count: number): number {
    const { datapath } = this.#lcore;
    const writer = this.#writer;
    let done = 0;
    while (done < count) {
      const at = handles + done * 4;
      const ready = datapath.vnetTransmit(this.#cells, at, count - done);
      if (ready === 0) {
        // What is too long or not what its flags say would be refused for ever.
        datapath.mbufFree(at, 1);
        this.#counters.error(1);
        done++;
        continue;
      }
      const before = writer.writeErrors;
      const taken = writer.write(this.#addresses, this.#lengths, ready, this.#pieces);
      const refused = writer.writeErrors - before;
      let bytes = -this.#header * (taken - refused);
      for (let i = 0; i < taken; i++) bytes += this.#lengths[i]!;
      if (refused > 0) this.#counters.error(refused);
      this.#counters.add(taken - refused, bytes);
      datapath.mbufFree(at, taken);
      done += taken;
      if (taken < ready) break;
    }
    return done;
  }

  close(): void {
    this.#writer.close();
  }
}
