// What the demo does, in order: phases of jobs; the jobs of a phase run side by side. Data only; demo.ts runs it.
import type { DemoOptions } from './options.js';
import type { Family } from './protocol.js';

/** A party of the demo: an interface in a namespace. */
export interface Station {
  readonly name: string;
  readonly ifname: string;
  readonly ipv4: string;
  readonly ipv6: string;
  readonly kind: 'nic' | 'uplink';
}

export type Job =
  | { readonly kind: 'resolve'; readonly from: number; readonly to: number; readonly family: Family }
  | {
      readonly kind: 'ping';
      readonly from: number;
      readonly to: number;
      readonly family: Family;
      readonly sizes: readonly { readonly bytes: number; readonly count: number }[];
    }
  | {
      readonly kind: 'tcp';
      readonly from: number;
      readonly to: number;
      readonly family: Family;
      readonly bytes: number;
      readonly seconds?: number;
    }
  | {
      readonly kind: 'udp';
      readonly from: number;
      readonly to: number;
      readonly family: Family;
      readonly sizes: readonly number[];
      readonly datagrams: number;
      readonly seconds?: number;
    };

export interface Phase {
  readonly title: string;
  /** One job after the other, so that they do not disturb each other's measurements. */
  readonly sequential?: boolean;
  readonly jobs: readonly Job[];
}

export interface Plan {
  readonly stations: readonly Station[];
  readonly phases: readonly Phase[];
  /** What is left out, and why. */
  readonly notes: readonly string[];
}

const MIB = 1 << 20;
/** The transfer that the demo is about: at least 1 GB. */
export const MAIN_BYTES = 1024 * MIB;
/** The way back, and the other family. */
const OTHER_BYTES = 256 * MIB;
/** Further pairs, and the uplink. */
const SIDE_BYTES = 64 * MIB;
const DATAGRAMS = 3000;
/** What every IPv4 host takes (RFC 791). Below, packets are mostly headers. */
const SMALL_MTU = 576;
const SMALL_MTU_SCALE = 16;
const IPV6_MIN_MTU = 1280; // RFC 8200
const IPV4_HEADER = 20;
const IPV6_HEADER = 40;
const UDP_HEADER = 8;
const ICMP_HEADER = 8;
const IP_MAX = 65_535;
/** The kernel keeps at most so many fragments and bytes for packets being put together: below this MTU a packet of
 *  IP_MAX bytes becomes thousands of them. */
const FRAGMENTS_MAX = 64;

export const cidr = { 4: 24, 6: 64 } as const;

export const addressOf = (station: Station, family: Family): string => (family === 4 ? station.ipv4 : station.ipv6);

/** The stations: one per NIC, the uplink last. */
function makeStations(nics: number): Station[] {
  const stations = Array.from(
    { length: nics },
    (_, i): Station => ({
      ...{ name: `nic${i}`, ifname: `nic${i}`, ipv4: `10.77.0.${i + 1}`, ipv6: `fd77::${i + 1}`, kind: 'nic' },
    }),
  );
  stations.push({ name: 'uplink', ifname: 'uplink0', ipv4: '10.77.0.254', ipv6: 'fd77::fe', kind: 'uplink' });
  return stations;
}

/** Largest payload of one IP packet of IP_MAX bytes that may reasonably be cut for this MTU. */
function largest(family: Family, mtu: number, header: number): number {
  const own = family === 4 ? IPV4_HEADER : IPV6_HEADER;
  const perFragment = (mtu - own) & ~7;
  const total = family === 4 ? IP_MAX - IPV4_HEADER : IP_MAX;
  return Math.min(total, perFragment * FRAGMENTS_MAX) - header;
}

/** Payload bytes of the UDP flow: a byte, small ones, exactly a packet, just over one, several fragments, the most. */
export function udpSizes(family: Family, mtu: number): number[] {
  const header = (family === 4 ? IPV4_HEADER : IPV6_HEADER) + UDP_HEADER;
  const most = largest(family, mtu, UDP_HEADER);
  const sizes = [1, 18, 64, 256, 512, 1000, mtu - header, mtu - header + 1, mtu, 3 * mtu, most];
  return [...new Set(sizes.filter((bytes) => bytes >= 1 && bytes <= most))];
}

function pingSizes(family: Family, mtu: number): { bytes: number; count: number }[] {
  const header = (family === 4 ? IPV4_HEADER : IPV6_HEADER) + ICMP_HEADER;
  const most = largest(family, mtu, ICMP_HEADER);
  const rest = [...new Set([0, mtu - header, mtu - header + 1, most])].filter((bytes) => bytes >= 0 && bytes <= most);
  return [{ bytes: Math.min(56, most), count: 20 }, ...rest.map((bytes) => ({ bytes, count: 2 }))];
}

/** Plans the demo. */
export function makePlan(options: Pick<DemoOptions, 'nics' | 'seconds'>, mtu: number): Plan {
  const stations = makeStations(options.nics);
  const uplink = options.nics;
  const families: Family[] = mtu >= IPV6_MIN_MTU ? [4, 6] : [4];
  const timed = options.seconds === undefined ? {} : { seconds: options.seconds };
  const scale = mtu < SMALL_MTU ? SMALL_MTU_SCALE : 1;
  const phases: Phase[] = [];

  const meetings: [number, number][] = [];
  for (let i = 1; i < options.nics; i++) meetings.push([0, i]);
  for (let i = 0; i < options.nics; i++) meetings.push([i, uplink]);
  const bothWays = meetings.flatMap(([a, b]) => [[a, b] as const, [b, a] as const]);
  for (const family of families) {
    const discovery = family === 4 ? 'ARP' : 'neighbour discovery';
    phases.push({
      title: `${discovery}, IPv${family}`,
      sequential: true,
      jobs: bothWays.map(([from, to]) => ({ kind: 'resolve', from, to, family })),
    });
    phases.push({
      title: `ping, IPv${family}`,
      sequential: true,
      jobs: bothWays.map(([from, to]) => ({ kind: 'ping', from, to, family, sizes: pingSizes(family, mtu) })),
    });
  }

  const pairs: [number, number][] = [];
  for (let i = 0; i + 1 < options.nics; i += 2) pairs.push([i, i + 1]);
  for (const family of families) {
    for (const back of [false, true]) {
      const main = family === 4 && !back ? MAIN_BYTES : OTHER_BYTES;
      const jobs = pairs.map(([a, b]): Job => {
        const bytes = (a === 0 ? main : SIDE_BYTES) / scale;
        return { kind: 'tcp', from: back ? b : a, to: back ? a : b, family, bytes, ...timed };
      });
      phases.push({ title: `TCP, IPv${family}${back ? ', back' : ''}`, jobs });
    }
  }
  if (options.nics > 2) {
    const others = Array.from({ length: options.nics - 1 }, (_, i) => i + 1);
    const jobs = others.map(
      (from): Job => ({ kind: 'tcp', from, to: 0, family: 4, bytes: SIDE_BYTES / scale, ...timed }),
    );
    phases.push({ title: 'TCP, IPv4, all to nic0', jobs });
  }
  const uplinkTcp = (from: number, to: number, family: Family): Job => ({
    ...{ kind: 'tcp', from, to, family, bytes: SIDE_BYTES / scale, ...timed },
  });
  const last = families.at(-1)!;
  phases.push({ title: 'TCP to the uplink', jobs: [uplinkTcp(0, uplink, 4)] });
  phases.push({ title: 'TCP from the uplink', jobs: [uplinkTcp(uplink, 0, last)] });
  for (const family of families) {
    const sizes = udpSizes(family, mtu);
    const jobs = pairs.map(
      ([from, to]): Job => ({ kind: 'udp', from, to, family, sizes, datagrams: DATAGRAMS, ...timed }),
    );
    phases.push({ title: `UDP, IPv${family}`, jobs });
  }
  const notes = families.length === 1 ? [`no IPv6: it needs an MTU of ${IPV6_MIN_MTU}, this is ${mtu}`] : [];
  if (scale > 1) notes.push(`transfers are ${scale} times smaller below an MTU of ${SMALL_MTU}`);
  return { stations, phases, notes };
}
