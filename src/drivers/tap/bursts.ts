// Bursts of one TAP queue, in the thread that polls it. The descriptor is the process's; the io_uring is the thread's own.

import { VNET_HEADER_BYTES, VNET_RESULT } from '../../datapath/datapath.js';
import type { Lcore, RxBurst } from '../../ethdev/driver.js';
import { MBUF } from '../../memory/layout.js';
import { ERRNO } from '../../memory/os/libc.js';
import { TapIo } from '../../memory/os/packet-io.js';
import { PollSet } from '../../memory/os/poll.js';
import { TAP_PACKET_MAX } from '../../memory/os/tap.js';
import { QueueCounters } from '../virtual-port.js';
import { BATCH, VnetTx, type VnetTxDescription } from '../vnet-tx.js';

const { data, buffer, room, packetLength } = MBUF.at;
const { FILLED, NO_BUFFER } = VNET_RESULT;
const EBADFD = ERRNO.EBADFD!;
/** Packets that are read at once to where they do not stay. */
const LANDINGS = 32;
const LANDING_BYTES = (TAP_PACKET_MAX + 63) & ~63;
const NONE: readonly number[] = [];
/** Memory for them. */
export const LANDING_AREA_BYTES: number = LANDINGS * LANDING_BYTES;

/** Plain data. */
export interface TapRxDescription {
  readonly fd: number;
  readonly counters: number;
  readonly pool: number;
  /** VNET_RX. */
  readonly options: number;
  /** Address of LANDING_AREA_BYTES for packets that one mbuf does not hold; 0 = packets are read into the mbufs. */
  readonly landing: number;
}

export class TapRx implements RxBurst {
  readonly #lcore: Lcore;
  readonly #u32: Uint32Array;
  readonly #setup: TapRxDescription;
  readonly #counters: QueueCounters;
  readonly #io: TapIo;
  readonly #addresses = new Int32Array(BATCH);
  readonly #capacities = new Int32Array(BATCH);
  readonly #limit: number;
  readonly #polls = new PollSet(1);
  readonly #fds: readonly number[];
  /** What the last burst brought. */
  #last = 0;

  constructor(lcore: Lcore, setup: TapRxDescription) {
    this.#lcore = lcore;
    this.#u32 = lcore.arena.u32;
    this.#setup = setup;
    this.#counters = new QueueCounters(lcore.arena, setup.counters);
    this.#io = new TapIo(lcore.arena, setup.fd, { batch: BATCH });
    this.#limit = setup.landing === 0 ? BATCH : LANDINGS;
    this.#polls.add(setup.fd);
    this.#fds = [setup.fd];
    if (setup.landing === 0) return;
    for (let i = 0; i < LANDINGS; i++) this.#addresses[i] = setup.landing + i * LANDING_BYTES;
    this.#capacities.fill(TAP_PACKET_MAX);
  }

  burst(handles: number, max: number): number {
    const { datapath } = this.#lcore;
    const { pool, landing } = this.#setup;
    // Not many more than will be needed: the others go back.
    const wanted = Math.min(max, this.#limit, this.#last * 2 + 4);
    const mbufs = datapath.poolGet(pool, handles, wanted);
    if (mbufs < wanted) this.#counters.noMbuf(1);
    if (mbufs === 0) return 0;
    if (landing === 0) this.#aim(handles, mbufs);
    const got = this.#io.read(this.#addresses, this.#capacities, mbufs);
    const good = got === 0 ? 0 : this.#accept(handles, got);
    if (good < mbufs) datapath.mbufFree(handles + good * 4, mbufs - good);
    this.#last = got;
    return good;
  }

  arm(): boolean {
    return this.#gone || this.#polls.wait(0) === 0;
  }

  disarm(): void {}

  fds(): readonly number[] {
    return this.#gone ? NONE : this.#fds;
  }

  close(): void {
    this.#io.close();
    this.#polls.close();
  }

  /** A descriptor whose interface was removed is always ready and never good. */
  get #gone(): boolean {
    return this.#io.lastError === EBADFD;
  }

  /** Reads go to where the headers end up right in front of the data. */
  #aim(handles: number, count: number): void {
    const u32 = this.#u32;
    for (let i = 0; i < count; i++) {
      const mbuf = u32[(handles >>> 2) + i]!;
      const at = u32[(mbuf + data) >>> 2]! - VNET_HEADER_BYTES;
      this.#addresses[i] = at;
      this.#capacities[i] = u32[(mbuf + buffer) >>> 2]! + u32[(mbuf + room) >>> 2]! - at;
    }
  }

  /** Brings the good ones to the front; how many they are. */
  #accept(handles: number, got: number): number {
    const u32 = this.#u32;
    const { datapath } = this.#lcore;
    const { options, landing } = this.#setup;
    const { lengths } = this.#io;
    const list = handles >>> 2;
    let good = 0;
    let bytes = 0;
    let bad = 0;
    let without = 0;
    for (let i = 0; i < got; i++) {
      const mbuf = u32[list + i]!;
      const length = lengths[i]!;
      if (length >= this.#capacities[i]!) {
        bad++; // cut off
        continue;
      }
      if (landing !== 0) {
        const result = datapath.vnetScatter(mbuf, this.#addresses[i]!, length, options);
        if (result !== FILLED) {
          if (result === NO_BUFFER) without++;
          else bad++;
          continue;
        }
      } else if (datapath.vnetReceive(mbuf, length, options) === 0) {
        bad++;
        continue;
      }
      bytes += u32[(mbuf + packetLength) >>> 2]!;
      u32[list + i] = u32[list + good]!;
      u32[list + good++] = mbuf;
    }
    this.#counters.add(good, bytes);
    if (bad > 0) this.#counters.error(bad);
    if (without > 0) this.#counters.noMbuf(without);
    return good;
  }
}

export function openTapTx(lcore: Lcore, setup: VnetTxDescription): VnetTx {
  return new VnetTx(lcore, setup, new TapIo(lcore.arena, setup.fd, { batch: BATCH, keepWhenDown: true }));
}
