// Which queue is forwarded to which, and by whom: the order is DPDK's testpmd's, as measured (facts/dpdk.md 6).
import type { Mode } from './modes.js';

export type Topology = 'paired' | 'chained' | 'loop';
export const TOPOLOGIES: readonly Topology[] = ['paired', 'chained', 'loop'];

export interface Stream {
  readonly rxPort: number;
  readonly rxQueue: number;
  readonly txPort: number;
  readonly txQueue: number;
}

/** Streams of one thread. */
export interface Share {
  /** Number of the CPU: testpmd names threads by it. */
  readonly core: number;
  readonly streams: readonly Stream[];
}

export interface Plan {
  readonly mode: Mode;
  readonly ports: readonly number[];
  readonly shares: readonly Share[];
  readonly streams: readonly Stream[];
}

export interface PlanInput {
  readonly mode: Mode;
  readonly ports: readonly number[];
  readonly rxQueues: number;
  readonly txQueues: number;
  readonly topology: Topology;
  /** CPUs that may forward. */
  readonly cores: readonly number[];
}

/** Index of the port that receives from port `i` of `count`. */
function peerOf(i: number, count: number, topology: Topology): number {
  if (topology === 'loop') return i;
  if (topology === 'chained') return (i + 1) % count;
  if (i % 2 === 1) return i - 1;
  return i + 1 < count ? i + 1 : i;
}

/** Queue i of a port goes to queue i of its peer; with echoes, of the port itself. */
function allStreams({ mode, ports, rxQueues, txQueues, topology }: PlanInput): Stream[] {
  const queues = rxQueues > 1 && txQueues > 1 ? Math.min(rxQueues, txQueues) : 1;
  const numbers = Array.from({ length: queues }, (_, queue) => queue);
  if (mode === 'icmpecho') {
    return ports.flatMap((port) =>
      numbers.map((queue) => ({ rxPort: port, rxQueue: queue, txPort: port, txQueue: queue })),
    );
  }
  return numbers.flatMap((queue) =>
    ports.map((port, i) => ({
      ...{ rxPort: port, rxQueue: queue, txQueue: queue },
      txPort: ports[peerOf(i, ports.length, topology)]!,
    })),
  );
}

/** Each core gets as many streams as the others; of those left over the last ones get one more each. */
export function planStreams(input: PlanInput): Plan {
  const streams = allStreams(input);
  const cores = input.cores.slice(0, streams.length);
  const least = Math.floor(streams.length / cores.length);
  const more = streams.length % cores.length;
  let next = 0;
  const shares = cores.map((core, i) => {
    const count = i < cores.length - more ? least : least + 1;
    next += count;
    return { core, streams: streams.slice(next - count, next) };
  });
  return { mode: input.mode, ports: input.ports, shares, streams };
}

/** The last port of an odd number is its own peer. */
export const pairsWithItself = (ports: number, topology: Topology): boolean => topology === 'paired' && ports % 2 === 1;
