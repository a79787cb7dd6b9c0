// net_null: receives packets without end and frees what is sent, to measure what is around it.
//   size=BYTES   length of received packets (64)
//   copy=0|1     received packets are zeroed, sent ones read (0)
//   no-rx        nothing is received; spelled no_rx=1

import type { Devargs } from '../../ethdev/devargs.js';
import type { Driver, Lcore, PortDriver, RxBurst, TxBurst } from '../../ethdev/driver.js';
import { MBUF } from '../../memory/layout.js';
import { QueueCounters, usualInfo, VirtualPort } from '../virtual-port.js';

const { data, dataLength, packetLength } = MBUF.at;
const MAX_BYTES = 65_536;

interface RxDescription {
  readonly counters: number;
  readonly pool: number;
  readonly bytes: number;
  readonly copy: boolean;
  readonly receives: boolean;
}

interface TxDescription {
  readonly counters: number;
  readonly copy: boolean;
  /** Four bytes that nobody reads. */
  readonly sink: number;
}

class NullRx implements RxBurst {
  readonly #lcore: Lcore;
  readonly #u32: Uint32Array;
  readonly #counters: QueueCounters;
  readonly #setup: RxDescription;

  constructor(lcore: Lcore, setup: RxDescription) {
    this.#lcore = lcore;
    this.#u32 = lcore.arena.u32;
    this.#counters = new QueueCounters(lcore.arena, setup.counters);
    this.#setup = setup;
  }

  burst(handles: number, max: number): number {
    const { pool, bytes, copy, receives } = this.#setup;
    if (!receives) return 0;
    const u32 = this.#u32;
    const count = this.#lcore.datapath.poolGet(pool, handles, max);
    for (let i = 0; i < count; i++) {
      const mbuf = u32[(handles >>> 2) + i]!;
      u32[(mbuf + dataLength) >>> 2] = bytes;
      u32[(mbuf + packetLength) >>> 2] = bytes;
      if (copy) {
        const at = u32[(mbuf + data) >>> 2]!;
        this.#lcore.arena.u8.fill(0, at, at + bytes);
      }
    }
    this.#counters.add(count, count * bytes);
    if (count < max) this.#counters.noMbuf(1);
    return count;
  }

  close(): void {}
}

class NullTx implements TxBurst {
  readonly #lcore: Lcore;
  readonly #u32: Uint32Array;
  readonly #counters: QueueCounters;
  readonly #setup: TxDescription;

  constructor(lcore: Lcore, setup: TxDescription) {
    this.#lcore = lcore;
    this.#u32 = lcore.arena.u32;
    this.#counters = new QueueCounters(lcore.arena, setup.counters);
    this.#setup = setup;
  }

  burst(handles: number, count: number): number {
    const u32 = this.#u32;
    const { copy, sink } = this.#setup;
    let bytes = 0;
    for (let i = 0; i < count; i++) {
      const mbuf = u32[(handles >>> 2) + i]!;
      bytes += u32[(mbuf + packetLength) >>> 2]!;
      if (copy) this.#lcore.datapath.checksum(u32[(mbuf + data) >>> 2]!, u32[(mbuf + dataLength) >>> 2]!, sink);
    }
    this.#lcore.datapath.mbufFree(handles, count);
    this.#counters.add(count, bytes);
    return count;
  }

  close(): void {}
}

class NullPort extends VirtualPort implements PortDriver {
  readonly #bytes: number;
  readonly #copy: boolean;
  readonly #receives: boolean;

  constructor(...[context, device, args]: ConstructorParameters<typeof VirtualPort>) {
    super(context, device, args);
    this.#bytes = args.number('size', 64, 14, MAX_BYTES);
    this.#copy = args.flag('copy');
    this.#receives = !args.flag('no_rx');
    args.done(['size', 'copy', 'no_rx']);
  }

  info() {
    return usualInfo('net_null', this.device, { minRxBufferBytes: this.#bytes, maxRxPacketBytes: MAX_BYTES });
  }

  rxQueue(queue: number): RxDescription {
    const { pool } = this.rxSetup(queue);
    const counters = this.rxCounters(queue);
    return { counters, pool: pool.address, bytes: this.#bytes, copy: this.#copy, receives: this.#receives };
  }

  txQueue(queue: number): TxDescription {
    return { counters: this.txCounters(queue), copy: this.#copy, sink: 0 };
  }
}

export const nullDriver: Driver = {
  name: 'net_null',
  pairedQueues: false,
  probe: async (context, device, args: Devargs) => new NullPort(context, device, args),
  openRx: (lcore, description) => new NullRx(lcore, description as RxDescription),
  openTx: (lcore, description) => new NullTx(lcore, description as TxDescription),
};
