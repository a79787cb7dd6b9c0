// What the tests of several queues run in lcores: receivers that note what came where, in plain cells of the arena.
import type { LcoreThread } from '../../src/ethdev/lcore.js';
import { polling } from '../../src/ethdev/lcore.js';
import type { RxQueue } from '../../src/ethdev/queues.js';
import type { Arena } from '../../src/memory/arena.js';
import { MBUF, PACKET_FLAG } from '../../src/memory/layout.js';

const BURST = 32;
/** u32 cells of a note: queue, flow, number, hash, 1 when there is one. */
const NOTE_CELLS = 5;
const TEXT_AT = 54;

/** Plain data. */
export interface ReceiverOrder {
  readonly port: number;
  readonly queues: readonly number[];
  /** Address of a cell that counts, and of the notes behind it. */
  readonly notes: number;
  /** Sleeps when there is nothing to do, instead of polling. */
  readonly sleeps?: boolean;
  /** Forwards what it receives on that port's queue of the same number, instead of freeing it. */
  readonly forwardTo?: number;
}

export interface Note {
  readonly queue: number;
  readonly flow: number;
  readonly number: number;
  /** Undefined: there was none. */
  readonly hash: number | undefined;
}

export const notesBytes = (packets: number): number => 64 + packets * NOTE_CELLS * 4;

/** How many packets a receiver has noted. */
export const noted = (arena: Arena, notes: number): number => Atomics.load(arena.u32, notes >>> 2);

export function readNotes(arena: Arena, notes: number): Note[] {
  const { u32 } = arena;
  return Array.from({ length: noted(arena, notes) }, (_, i) => {
    const [queue, flow, number, hash, hashed] = u32.subarray(
      (notes >>> 2) + 16 + i * NOTE_CELLS,
    ) as unknown as number[];
    return { queue: queue!, flow: flow! | 0, number: number!, hash: hashed ? hash! : undefined };
  });
}

interface Queues {
  rxQueue(queue: number): RxQueue;
}

/** One round over its queues; returns how many packets came. */
export function receiver(lcore: LcoreThread, port: Queues, order: ReceiverOrder): () => number {
  const { u32, u8 } = lcore.arena;
  const { datapath } = lcore;
  const handles = lcore.reserve('receiver', BURST * 4);
  const queues = order.queues.map((queue) => port.rxQueue(queue));
  const forward =
    order.forwardTo === undefined ? [] : order.queues.map((queue) => lcore.port(order.forwardTo!).txQueue(queue));
  const word = (at: number) => new DataView(u8.buffer, at, 4).getUint32(0);
  return () => {
    let all = 0;
    for (const [i, rx] of queues.entries()) {
      const n = rx.burst(handles, BURST);
      for (let k = 0; k < n; k++) {
        const mbuf = u32[(handles >>> 2) + k]!;
        const at = u32[(mbuf + MBUF.at.data) >>> 2]! + TEXT_AT;
        const hashed = (u32[(mbuf + MBUF.at.flags) >>> 2]! & PACKET_FLAG.HASH) !== 0;
        const note = (order.notes >>> 2) + 16 + u32[order.notes >>> 2]! * NOTE_CELLS;
        u32.set([order.queues[i]!, word(at), word(at + 4), u32[(mbuf + MBUF.at.hash) >>> 2]!, Number(hashed)], note);
        Atomics.add(u32, order.notes >>> 2, 1);
      }
      const taken = forward[i]?.burst(handles, n) ?? 0;
      datapath.mbufFree(handles + taken * 4, n - taken);
      all += n;
    }
    return all;
  };
}

/** Receives until the lcore is to end. Resolves with the times that it slept. */
export async function receive(lcore: LcoreThread, order: ReceiverOrder): Promise<number> {
  const port = lcore.port(order.port);
  const step = receiver(lcore, port, order);
  if (order.sleeps) {
    await lcore.run(
      polling(
        step,
        order.queues.map((queue) => port.rxQueue(queue)),
      ),
    );
    return lcore.loop.sleeps;
  }
  while (lcore.running) step();
  return 0;
}
