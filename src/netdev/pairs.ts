// Memory of an interface's queue pairs, which outlives the threads that poll them: the control thread's side of NETDEV_PAIR.
import type { Eal } from '../ethdev/eal.js';
import { Gro, reserveGro } from '../offload/gro.js';
import { TransmitSteering } from '../offload/steering.js';
import { NETDEV_PAIR, PAIR_BYTES, type PairSetup } from './pair.js';
import { QUEUES_MAX } from './setup.js';

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

  /** The first `count` of them, for workers. */
  setups(count: number): PairSetup[] {
    return Array.from({ length: count }, (_, queue) => {
      this.#stages[queue] ??= this.#stage(queue);
      const steering = this.steering.address;
      return { queue, memory: this.#memory + queue * PAIR_BYTES, gro: this.#stages[queue], steering };
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

  /** Frees what waits. No worker uses the pairs. */
  dropWaiting(): void {
    for (let queue = 0; queue < QUEUES_MAX; queue++) {
      const list = this.#memory + queue * PAIR_BYTES + NETDEV_PAIR.bytes;
      this.#eal.main.datapath.mbufFree(list, this.#get(queue, 'waiting'));
      this.#set(queue, 'waiting', 0);
    }
  }

  /** Received packets that the interface, down or gone, did not take. */
  get dropped(): number {
    const { u32 } = this.#eal.arena;
    let sum = 0;
    for (let queue = 0; queue < QUEUES_MAX; queue++) {
      const at = (this.#memory + queue * PAIR_BYTES + NETDEV_PAIR.at.downDropped) >>> 2;
      sum += u32[at]! + u32[at + 1]! * 2 ** 32;
    }
    return sum;
  }

  /** Counters of receive offload, all queues together. */
  merged(): Record<string, number> {
    const sums: Record<string, number> = {};
    for (const stage of this.#stages)
      for (const [name, value] of Object.entries(this.#gro(stage).counters())) sums[name] = (sums[name] ?? 0) + value;
    return sums;
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
