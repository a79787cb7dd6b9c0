// Packet memory of an interface: how many buffers it takes, and which pool serves what.
import type { Eal } from '../ethdev/eal.js';
import type { Mempool } from '../ethdev/mempool.js';
import { HEADROOM, LARGE_ROOM, smallRoom } from '../memory/pool.js';

const MIB = 1 << 20;
/** Ethernet header and a tag, in front of an MTU's worth of data. */
const FRAME_BYTES = 18;
const SMALL_ROOM = smallRoom(1500 + FRAME_BYTES);
/** Large buffers of all queues together: a host maps no more than some hundred MiB of a guest (docs/design.md). */
const LARGE_MOST = 1536;
/** What a thread keeps of each pool for itself. */
const SMALL_CACHE = 256;
const LARGE_CACHE = 64;

const smallOptions = (queues: number) => ({
  ...{ count: 2048 + 1024 * queues, room: SMALL_ROOM, headroom: HEADROOM, cache: SMALL_CACHE },
});
const largeOptions = (queues: number) => ({
  ...{ count: Math.min(LARGE_MOST, 256 + 128 * queues), room: LARGE_ROOM, headroom: HEADROOM, cache: LARGE_CACHE },
});

/** MiB of packet memory (EAL option -m) for an interface of so many queues. */
export function packetMegabytes(queues: number): number {
  const bytes = (options: { count: number; room: number }) => options.count * (options.room + 256);
  return Math.ceil((bytes(smallOptions(queues)) + bytes(largeOptions(queues))) / MIB) + 1;
}

/** The pools of an interface. */
export class Buffers {
  /** Packets of the kernel, up to 64 KiB each in one piece, so that the device can be given them as they lie. */
  readonly large: Mempool;
  readonly small: Mempool;

  /** Throws PortError ENOMEM. */
  constructor(eal: Eal, name: string, queues: number) {
    this.small = eal.createMempool(`${name} small`, smallOptions(queues));
    this.large = eal.createMempool(`${name} large`, largeOptions(queues));
  }

  /** Where the device puts what it receives: one buffer holds a frame, coalesced ones take several. */
  receive(mtu: number): Mempool {
    return mtu + FRAME_BYTES <= this.small.room - this.small.headroom ? this.small : this.large;
  }
}
