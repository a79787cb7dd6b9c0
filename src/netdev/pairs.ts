// Memory of an interface's queue pairs, which outlives the threads that poll them: the control thread's side of NETDEV_PAIR.
import type { Eal } from '../ethdev/eal.js';
import { read64 } from '../memory/cells64.js';
import { Gro, type GroCounters, reserveGro } from '../offload/gro.js';
import { TransmitSteering } from '../offload/steering.js';
import { NETDEV_PAIR, PAIR_BYTES, type PairSetup } from './pair.js';
import { QUEUES_MAX } from './setup.js';

const NO_GRO: GroCounters = { packets: 0, merged: 0, coalesced: 0, evicted: 0, checksums: 0, badChecksums: 0 };

export class Pairs {
  /** Which queue a flow is sent on. */
  readonly steering: TransmitSteering;
  readonly #eal: Eal;
  readonly #name: string;
  readonly #memory: number;
  /** GRO_STAGE of each queue that there ever was. */
  readonly #stages: number[] = [];
  #udp = false;

  constructor(eal: Eal, name: string) {
    this.#eal = eal;
    this.#name = name;
    this.steering = new TransmitSteering(eal.arena);
    this.#memory = eal.arena.reserve(`${name} pairs`, QUEUES_MAX * PAIR_BYTES);
  }

  /** The first `count` of them, for workers; `wakes`: the device has interrupts. */
  setups(count: number, wakes: boolean): PairSetup[] {
    return Array.from({ length: count }, (_, queue) => {
      this.#stages[queue] ??= this.#stage(queue);
      const [memory, gro] = [this.#memory + queue * PAIR_BYTES, this.#stages[queue]];
      return { queue, memory, gro, steering: this.steering.address, wakes };
    });
  }

  /** What is done to received packets: PAIR_OPTION, and whether datagrams are merged. */
  setOptions(options: number, udp: boolean): void {
    this.#udp = udp;
    for (let queue = 0; queue < QUEUES_MAX; queue++) this.#set(queue, 'options', options);
    for (const stage of this.#stages) this.#gro(stage).udp = udp;
  }

  /** Packets of the kernel wait for the device in a pair from that one on. */
  waits(first: number): boolean {
    for (let queue = first; queue < QUEUES_MAX; queue++) if (this.#get(queue, 'waiting') !== 0) return true;
    return false;
  }

  /** Frees what waits, and says how many packets that were. No worker uses the pairs. */
  dropWaiting(): number {
    let packets = 0;
    for (let queue = 0; queue < QUEUES_MAX; queue++) {
      const list = this.#memory + queue * PAIR_BYTES + NETDEV_PAIR.bytes;
      const waiting = this.#get(queue, 'waiting');
      this.#eal.main.datapath.mbufFree(list, waiting);
      packets += waiting;
      this.#set(queue, 'waiting', 0);
    }
    return packets;
  }

  /** Received packets that the interface, down or gone, did not take. */
  get dropped(): number {
    const { u32 } = this.#eal.arena;
    let sum = 0;
    for (let queue = 0; queue < QUEUES_MAX; queue++)
      sum += read64(u32, (this.#memory + queue * PAIR_BYTES + NETDEV_PAIR.at.downDropped) >>> 2);
    return sum;
  }

  /** Counters of receive offload, all queues together. */
  merged(): GroCounters {
    const sums: Record<string, number> = { ...NO_GRO };
    for (const stage of this.#stages)
      for (const [name, value] of Object.entries(this.#gro(stage).counters())) sums[name]! += value;
    return sums as GroCounters;
  }

  #stage(queue: number): number {
    const stage = reserveGro(this.#eal.arena, `${this.#name} ${queue} receive offload`);
    this.#gro(stage).udp = this.#udp;
    return stage;
  }

  #gro(stage: number): Gro {
    return new Gro(this.#eal.arena, this.#eal.main.datapath, stage);
  }

  #get(queue: number, cell: keyof typeof NETDEV_PAIR.at): number {
    return this.#eal.arena.u32[(this.#memory + queue * PAIR_BYTES + NETDEV_PAIR.at[cell]) >>> 2]!;
  }

  #set(queue: number, cell: keyof typeof NETDEV_PAIR.at, value: number): void {
    this.#eal.arena.u32[(this.#memory + queue * PAIR_BYTES + NETDEV_PAIR.at[cell]) >>> 2] = value;
  }
}
