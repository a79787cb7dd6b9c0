// What each example is shown on: cards, a station, traffic.
import type { VlanMode } from '../../host/ports.js';

/** What the traffic program does (traffic.ts). */
export type Traffic = 'ask' | 'capture' | 'flows';

export interface Scene {
  readonly name: string;
  /** Of the program, below dist/examples. */
  readonly file: string;
  readonly text: string;
  /** VLANs of the machine's cards; undefined = none. The first `own` are the example's, the next one is the traffic's. */
  readonly cards: readonly (VlanMode | undefined)[];
  readonly own: number;
  /** An echo station at STATION_IP. */
  readonly station?: { readonly vlan?: VlanMode };
  readonly traffic?: Traffic;
  /** Threads, if there are so many CPUs. */
  readonly threads: number;
  /** Said before it starts. */
  readonly stage: string;
}

export const STATION_IP = '10.0.0.1';
export const ASKER_IP = '10.0.0.2';

const access = (vlan: number): VlanMode => ({ mode: 'access', vlan });

export const SCENES: readonly Scene[] = [
  {
    ...{ name: 'hello', file: '1-hello.js', text: 'bring a port up, send one packet, receive the answer' },
    ...{ cards: [undefined], own: 1, station: {}, threads: 1 },
    stage: `a machine with one card, and a station at ${STATION_IP}`,
  },
  {
    ...{ name: 'count', file: '2-count.js', text: 'count packets by protocol' },
    ...{ cards: [undefined, undefined], own: 1, traffic: 'capture', threads: 1 },
    stage: 'a machine with two cards; one sends the packets of a capture',
  },
  {
    ...{ name: 'l2-forward', file: '3-l2-forward.js', text: 'forward between two cards' },
    ...{
      cards: [access(10), access(20), access(10)],
      own: 2,
      station: { vlan: access(20) },
      traffic: 'ask',
      threads: 1,
    },
    stage: `a card on VLAN 10 and one on VLAN 20; ${ASKER_IP} on VLAN 10 asks ${STATION_IP} on VLAN 20`,
  },
  {
    ...{ name: 'udp-echo', file: '4-udp-echo.js', text: 'answer ARP and UDP' },
    ...{ cards: [undefined, undefined], own: 1, traffic: 'ask', threads: 1 },
    stage: `a machine with two cards; ${ASKER_IP} behind one asks ${STATION_IP}, which the program is`,
  },
  {
    ...{ name: 'balancer', file: '5-balancer.js', text: 'balance load over servers by RSS hash, in several threads' },
    ...{ cards: [undefined, undefined, undefined], own: 2, traffic: 'flows', threads: 2 },
    stage: 'a machine with three cards; one sends the packets of 64 TCP connections',
  },
];
