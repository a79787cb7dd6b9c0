// Memory of an interface's queue pairs, which outlives the threads that poll them: the control thread's side of NETDEV_PAIR.
import type { Eal } from '../ethdev/eal.js';
import { read64 } from '../memory/cells64.js';
import { Gro, type GroCounters, reserveGro } from '../offload/gro.js';
import { TransmitSteering } from '../offload/steering.js';
import type { Buffers } from './buffers.js';
import { CUT_BYTES, NETDEV_PAIR, PAIR_BYTES, PAIR_LISTS, type PairSetup } from './pair-memory.js';
import { QUEUES_MAX } from './setup.js';

const NO_GRO: GroCounters = { packets: 0, merged: 0, coalesced: 0, evicted: 0, checksums: 0, badChecksums: 0 };

export class Pairs {
  /** Which queue a flow is sent on. */
  readonly steering: TransmitSteering;
  readonly #eal: Eal;
  readonly #name: string;
  readonly #memory: number;
  readonly #buffers: Buffers;
  /** GRO_STAGE of each queue that there ever was. */
  readonly #stages: number[] = [];
  /** CUT_BYTES of each. */
  readonly #cutting: number[] = [];
  #udp = false;

  constructor(eal: Eal, name: string, buffers: Buffers) {
    this.#eal = eal;
    this.#name = name;
    this.#buffers = buffers;
    this.steering = new TransmitSteering(eal.arena);
    this.#memory = eal.arena.reserve(`${name} pairs`, QUEUES_MAX * PAIR_BYTES);
  }

  /** The first `count` of them, for workers; `wakes`: the device has interrupts. */
  setups(count: number, wakes: boolean): PairSetup[] {
    return Array.from({ length: count }, (_, queue) => {
      this.#stages[queue] ??= this.#stage(queue);
      this.#cutting[queue] ??= this.#eal.arena.reserve(`${this.#name} ${queue} segments`, CUT_BYTES);
      const [memory, gro, cutting] = [this.#memory + queue * PAIR_BYTES, this.#stages[queue], this.#cutting[queue]];
      const { small, large } = this.#buffers;
      return {
        ...{ queue, memory, gro, cutting, steering: this.steering.address, wakes },
        ...{ small: small.address, large: large.address, smallBytes: small.room - small.headroom },
      };
    });
  }

  /** What is done to received packets: PAIR_OPTION, and whether datagrams are merged. */
  setOptions(options: number, udp: boolean): void {
    this.#udp = udp;
    for (let queue = 0; queue < QUEUES_MAX; queue++) this.#set(queue, 'options', options);
    for (const stage of this.#stages) this.#gro(stage).udp = udp;
  }

  /** What the device takes: the longest frame, and the longest packets that it cuts, 0 = none. */
  setLimits(frameBytes: number, tso: { readonly ipv4: number; readonly ipv6: number }): void {
    for (let queue = 0; queue < QUEUES_MAX; queue++) {
      this.#set(queue, 'frameBytes', frameBytes);
      this.#set(queue, 'tso4', tso.ipv4);
      this.#set(queue, 'tso6', tso.ipv6);
    }
  }

  /** For answer(): what pairs have asked because of packets that are longer than the device's frame. */
  questions(): number[] {
    return Array.from({ length: QUEUES_MAX }, (_, queue) =>
      Atomics.load(this.#eal.arena.u32, this.#at(queue, 'asked')),
    );
  }

  /** The device has the interface's MTU as it was after those questions: what is too long now the device may drop. */
  answer(questions: readonly number[]): void {
    for (const [queue, asked] of questions.entries())
      Atomics.store(this.#eal.arena.u32, this.#at(queue, 'answered'), asked);
  }

  /** Packets of the kernel wait for the device in a pair from that one on. */
  waits(first: number): boolean {
    for (let queue = first; queue < QUEUES_MAX; queue++)
      if (this.#get(queue, 'waiting') !== 0 || this.#get(queue, 'cutCount') !== 0) return true;
    return false;
  }

  /** Frees what waits, and says how many packets that were. No worker uses the pairs. */
  dropWaiting(): number {
    let packets = 0;
    for (let queue = 0; queue < QUEUES_MAX; queue++) {
      const pair = this.#memory + queue * PAIR_BYTES;
      const [waiting, cuts] = [this.#get(queue, 'waiting'), this.#get(queue, 'cutCount')];
      this.#eal.main.datapath.mbufFree(pair + PAIR_LISTS.down, waiting);
      this.#eal.main.datapath.mbufFree(pair + PAIR_LISTS.cuts + this.#get(queue, 'cutFrom') * 4, cuts);
      packets += waiting + cuts;
      this.#set(queue, 'waiting', 0);
      this.#set(queue, 'cutCount', 0);
    }
    return packets;
  }

  /** Received packets that the interface, down or gone, did not take. */
  get dropped(): number {
    return this.#sum('downDropped');
  }

  /** Large packets that were cut here, what became of them, and those that could not be cut. */
  get cut(): { readonly packets: number; readonly segments: number; readonly failed: number } {
    return {
      ...{ packets: this.#sum('cutPackets'), segments: this.#sum('cutSegments') },
      failed: this.#sum('cutFailed'),
    };
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

  #sum(cell: keyof typeof NETDEV_PAIR.at): number {
    let sum = 0;
    for (let queue = 0; queue < QUEUES_MAX; queue++) sum += read64(this.#eal.arena.u32, this.#at(queue, cell));
    return sum;
  }

  #get(queue: number, cell: keyof typeof NETDEV_PAIR.at): number {
    return this.#eal.arena.u32[this.#at(queue, cell)]!;
  }

  #set(queue: number, cell: keyof typeof NETDEV_PAIR.at, value: number): void {
    this.#eal.arena.u32[this.#at(queue, cell)] = value;
  }

  #at(queue: number, cell: keyof typeof NETDEV_PAIR.at): number {
    return (this.#memory + queue * PAIR_BYTES + NETDEV_PAIR.at[cell]) >>> 2;
  }
}
