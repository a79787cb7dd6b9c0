// The rules of the device API as tests that every driver runs. A driver's own test file says
//
//   conformance({
//     name: 'net_ring',
//     skips: { 'the link can be set': 'a capture file has no link' },   // what does not apply, with the reason
//     async open(words) {
//       const eal = await initEal([...words, '--vdev', 'net_ring0,peer=net_ring1', '--vdev', 'net_ring1']);
//       return { eal, port: eal.port('net_ring0'), wire: new PortWire(eal, eal.port('net_ring1')), close: () => eal.close() };
//     },
//   });
//
// and each case below becomes a node:test of the name "net_ring: case". open() is called anew for each case; close() must
// give back everything that open() took, also after a failure. What the device itself cannot do (info(): offloads, queues, interrupts)
// is skipped without being named.
import { test } from 'node:test';
import type { Eal } from '../ethdev/eal.js';
import type { Port } from '../ethdev/port.js';
import { controlCases } from './conformance/control.js';
import { packetCases } from './conformance/packets.js';
import { Rig } from './conformance/rig.js';
import { threadCases } from './conformance/threads.js';

export { PortWire } from './conformance/port-wire.js';

/** What is at the other end of the port under test. Frames are Ethernet frames without FCS; foreign ones do no harm. */
export interface Wire {
  /** When feed() and sent() can be used: while the port runs, or (files) only while it is stopped. */
  readonly when: 'started' | 'stopped';
  /** Called between configure and start, each time. */
  prepare?(queues: number): Promise<void>;
  /** The port is to receive these, in this order. Where it has several queues, `queue` is where they should arrive if that can be
   *  chosen. */
  feed?(frames: readonly Uint8Array[], queue: number): Promise<void>;
  /** Whether feed() chooses the queue. */
  readonly choosesQueue?: boolean;
  /** Frames that the port sent since the last call; waits some seconds at most until there are `count`. */
  sent?(count: number): Promise<Uint8Array[]>;
  /** Lets the other side do its part of the work, where nothing else drives it. */
  step?(): void;
  /** The port's MTU was changed; the other side is to take such frames too. */
  setMtu?(mtu: number): Promise<void>;
}

export interface Bench {
  readonly eal: Eal;
  /** Just probed. */
  readonly port: Port;
  /** Absent: nobody sees what is sent, and packets come by themselves if at all (net_null). */
  readonly wire?: Wire;
  /** Closes the environment and what was made for it. */
  close(): Promise<void>;
}

export interface ConformanceTarget {
  readonly name: string;
  /** Why nothing can be tested here (no root, ...). */
  readonly skip?: string | false;
  /** Why a case does not apply. */
  readonly skips?: Partial<Record<CaseName, string>>;
  /** `words`: EAL options for lcores and memory, to be followed by the device's. */
  open(words: readonly string[]): Promise<Bench>;
  /** The environment as open() makes it, without the port under test: what is left when it is closed. Default: no device. */
  empty?(words: readonly string[]): Promise<Eal>;
}

const CASES = { ...controlCases, ...packetCases, ...threadCases };
export type CaseName = keyof typeof CASES;

/** Makes a test of each case. */
export function conformance(target: ConformanceTarget): void {
  for (const [name, run] of Object.entries(CASES)) {
    const skip = target.skip || target.skips?.[name as CaseName] || false;
    test(`${target.name}: ${name}`, { skip, timeout: 60_000 }, async (context) => {
      const rig = new Rig(target, (reason) => context.skip(reason));
      try {
        await run(rig);
        await rig.finish();
      } finally {
        await rig.close();
      }
    });
  }
}
