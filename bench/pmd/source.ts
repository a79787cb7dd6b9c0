// net_source: receives ICMP echo requests without end and frees what is sent, for forward modes that answer. A driver of the
// benchmarks' own, beside all others.
import { drivers as ours } from '../../src/drivers/index.js';
import { QueueCounters, usualInfo, VirtualPort } from '../../src/drivers/virtual-port.js';
import type { Driver, Lcore, PortDriver, RxBurst, TxBurst } from '../../src/ethdev/driver.js';
import { Eal } from '../../src/ethdev/eal.js';
import { PACKET_FLAG } from '../../src/memory/layout.js';
import { FORWARD_STREAM } from '../../src/memory/layout-forward.js';
import { UioGuestMemory } from '../../src/vmbus/uio/guest-memory.js';
import { internetChecksum } from '../../src/wire/checksum.js';
import { ETHER_TYPE, EthernetHeader } from '../../src/wire/ethernet.js';
import { IP_PROTOCOL, Ipv4Header } from '../../src/wire/ip.js';

const BYTES = 64;
const ICMP_ECHO_REQUEST = 8;

/** An ICMP echo request of 64 bytes. */
function echoRequest(): Uint8Array {
  const bytes = new Uint8Array(BYTES);
  const ip = EthernetHeader.size;
  const icmp = ip + Ipv4Header.size;
  const ends = { destination: '02:00:00:00:00:01', source: '02:00:00:00:00:02' };
  EthernetHeader.encodeInto({ ...ends, etherType: ETHER_TYPE.IPV4 }, bytes);
  const header = {
    ...{ versionHeaderLength: 0x45, totalLength: BYTES - ip, timeToLive: 64, protocol: IP_PROTOCOL.ICMP },
    ...{ source: '10.0.0.1', destination: '10.0.0.2' },
  };
  Ipv4Header.encodeInto(header, bytes, ip);
  const headerChecksum = internetChecksum(bytes, ip, Ipv4Header.size);
  Ipv4Header.encodeInto({ ...header, headerChecksum }, bytes, ip);
  bytes[icmp] = ICMP_ECHO_REQUEST;
  new DataView(bytes.buffer).setUint16(icmp + 2, internetChecksum(bytes, icmp, BYTES - icmp));
  return bytes;
}

interface RxDescription {
  /** FORWARD_STREAM with the template of the packets. */
  readonly cells: number;
  readonly counters: number;
}

class SourceRx implements RxBurst {
  readonly #datapath: Lcore['datapath'];
  readonly #cells: number;
  readonly #counters: QueueCounters;

  constructor({ arena, datapath }: Lcore, { cells, counters }: RxDescription) {
    this.#datapath = datapath;
    this.#cells = cells;
    this.#counters = new QueueCounters(arena, counters);
  }

  burst(handles: number, max: number): number {
    const count = this.#datapath.forwardMake(this.#cells, handles, max);
    this.#counters.add(count, count * BYTES);
    return count;
  }

  close(): void {}
}

class SourceTx implements TxBurst {
  readonly #datapath: Lcore['datapath'];
  readonly #counters: QueueCounters;

  constructor({ arena, datapath }: Lcore, counters: number) {
    this.#datapath = datapath;
    this.#counters = new QueueCounters(arena, counters);
  }

  burst(handles: number, count: number): number {
    this.#datapath.mbufFree(handles, count);
    this.#counters.add(count, count * BYTES);
    return count;
  }

  close(): void {}
}

class SourcePort extends VirtualPort implements PortDriver {
  readonly #taken: number[] = [];
  /** FORWARD_STREAM of each queue. */
  readonly #streams = new Map<number, number>();

  info() {
    return usualInfo('net_source', this.device);
  }

  rxQueue(queue: number): RxDescription {
    const cells = this.#streams.get(queue) ?? this.#stream();
    this.#streams.set(queue, cells);
    const { u32 } = this.context.arena;
    u32[(cells + FORWARD_STREAM.at.pool) >>> 2] = this.rxSetup(queue).pool.address;
    return { cells, counters: this.rxCounters(queue) };
  }

  #stream(): number {
    const { u8, u32 } = this.context.arena;
    const cells = this.#reserve('stream', FORWARD_STREAM.bytes);
    const template = this.#reserve('template', BYTES);
    const segments = this.#reserve('segments', 4);
    u8.set(echoRequest(), template);
    u32[segments >>> 2] = BYTES;
    const values = { template, templateFlags: PACKET_FLAG.IPV4, segmentBytes: segments, segmentCount: 1 };
    for (const [cell, value] of Object.entries(values))
      u32[(cells + FORWARD_STREAM.at[cell as keyof typeof values]) >>> 2] = value;
    return cells;
  }

  txQueue(queue: number): number {
    return this.txCounters(queue);
  }

  override async close(): Promise<void> {
    for (const address of this.#taken) this.context.arena.release(address);
    await super.close();
  }

  #reserve(name: string, bytes: number): number {
    const address = this.context.arena.reserve(`${this.device} ${name}`, bytes);
    this.#taken.push(address);
    return address;
  }
}

const sourceDriver: Driver = {
  name: 'net_source',
  pairedQueues: false,
  async probe(context, device, args) {
    args.done([]);
    return new SourcePort(context, device, args);
  },
  openRx: (lcore, description) => new SourceRx(lcore, description as RxDescription),
  openTx: (lcore, description) => new SourceTx(lcore, description as number),
};

/** For other threads, too. */
export const drivers: readonly Driver[] = [...ours, sourceDriver];

/** An environment with that driver, without a bus. */
export function initSourceEal(words: readonly string[], log: (line: string) => void): Promise<Eal> {
  const platform = {
    ...{ drivers, driversUrl: import.meta.url },
    openBus(): never {
      throw new Error('no bus here');
    },
    plainMemory: (arena: Eal['arena']) => new UioGuestMemory(arena),
  };
  return Eal.init(words, platform, { log });
}
