// Random traffic for both halves: well-formed TCP and UDP packets with offload requests, and shapeless frames.
import fc from 'fast-check';
import { PACKET_FLAG as F } from '../../src/memory/layout.js';
import type { ModelFrame } from './model-host.js';
import type { Outgoing } from './world.js';

export interface Shape {
  readonly kind: 'raw' | 'tcp4' | 'udp4' | 'tcp6' | 'udp6';
  readonly size: number;
  readonly offload: number;
  readonly vlan: number | null;
  readonly hash: number | null;
  readonly mss: number;
  readonly cuts: readonly number[];
  readonly shift: number;
  readonly seed: number;
  /** A header offset that the packet does not have. */
  readonly wrong: number | null;
}

const sizes = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 14, max: 200 }) },
  { weight: 4, arbitrary: fc.integer({ min: 14, max: 1514 }) },
  { weight: 1, arbitrary: fc.integer({ min: 1510, max: 1520 }) },
  { weight: 2, arbitrary: fc.integer({ min: 1515, max: 65_536 }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 14 }) },
);

export const shape: fc.Arbitrary<Shape> = fc.record({
  kind: fc.constantFrom('raw', 'tcp4', 'udp4', 'tcp6', 'udp6'),
  size: sizes,
  offload: fc.integer({ min: 0, max: 7 }),
  vlan: fc.option(fc.integer({ min: 0, max: 0xffff }), { freq: 3 }),
  hash: fc.option(fc.integer({ min: 0, max: 0xffffffff }), { freq: 3 }),
  mss: fc.oneof(fc.integer({ min: 1, max: 9000 }), fc.constantFrom(0, 1, 0xffff, 0x10000)),
  cuts: fc.oneof(
    { weight: 3, arbitrary: fc.constant([]) },
    { weight: 2, arbitrary: fc.uniqueArray(fc.integer({ min: 1, max: 1800 }), { maxLength: 4 }) },
  ),
  shift: fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: -20, max: 63 }) },
    { weight: 1, arbitrary: fc.constant(-100) },
  ),
  seed: fc.integer({ min: 1, max: 0x7fffffff }),
  wrong: fc.option(fc.constantFrom(0, 20, 35, 58, 300, 1023, 1024, 4000), { freq: 12, nil: null }),
});

function fill(bytes: Uint8Array, seed: number): void {
  let x = seed;
  for (let i = 0; i < bytes.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    bytes[i] = x;
  }
}

/** The packet of a shape: headers valid, checksums left to chance. */
function packetOf({ kind, size, seed }: Shape): { bytes: Uint8Array<ArrayBuffer>; l4: number } {
  const bytes = new Uint8Array(size);
  fill(bytes, seed);
  const view = new DataView(bytes.buffer);
  const v6 = kind.endsWith('6');
  const options = v6 || seed % 5 > 0 ? 0 : 8;
  const l4 = v6 ? 54 : 34 + options;
  if (kind === 'raw' || size < l4 + 20) {
    if (size >= 14) view.setUint16(12, 0x88b5);
    return { bytes, l4: 0 };
  }
  view.setUint16(12, v6 ? 0x86dd : 0x0800);
  const protocol = kind.startsWith('tcp') ? 6 : 17;
  if (v6) {
    bytes[14] = 0x60;
    view.setUint16(18, Math.min(size - 54, 0xffff));
    bytes[20] = protocol;
  } else {
    bytes[14] = 0x45 + options / 4;
    view.setUint16(16, Math.min(size - 14, 0xffff));
    view.setUint16(20, 0x4000);
    bytes[23] = protocol;
    bytes.fill(1, 34, 34 + options);
  }
  if (protocol === 6) bytes[l4 + 12] = 0x50;
  else view.setUint16(l4 + 4, Math.min(size - l4, 0xffff));
  return { bytes, l4 };
}

/** What a sender may ask for such a packet: bit 0 checksum, 1 IPv4 header checksum, 2 segmentation. */
function offloads(of: Shape, l4: number): number {
  if (l4 === 0) return 0;
  const v6 = of.kind.endsWith('6');
  const tcp = of.kind.startsWith('tcp');
  let flags: number = v6 ? F.IPV6 : F.IPV4;
  if (tcp && (of.offload & 4 || of.size > 1514)) return flags | F.TX_TSO;
  if (of.offload & 1) flags |= tcp ? F.TX_TCP_CHECKSUM : F.TX_UDP_CHECKSUM;
  if (of.offload & 2 && !v6) flags |= F.TX_IP_CHECKSUM;
  return flags;
}

export function outgoing(of: Shape): Outgoing {
  const { bytes, l4 } = packetOf(of);
  const flags = offloads(of, l4) | (of.vlan === null ? 0 : F.VLAN) | (of.hash === null ? 0 : F.HASH);
  const least = flags & F.TX_TSO && of.seed % 7 > 0 ? l4 + 20 : 1;
  const cuts = [...of.cuts].sort((a, b) => a - b).filter((cut) => cut >= least);
  const rest = { hash: of.hash ?? 0, vlanTci: of.vlan ?? 0, mss: of.mss, l4Offset: of.wrong ?? l4 };
  return { bytes, cuts: bytes.length === 0 ? [] : cuts, shift: of.shift, flags, ...rest };
}

/** A frame as an uplink or another NIC would bring it, with or without verified or unfinished checksums. */
export function incoming(of: Shape): ModelFrame {
  const size = Math.max(of.size, 14);
  const { bytes, l4 } = packetOf({ ...of, size });
  const tcp = of.kind.startsWith('tcp');
  let flags = offloads({ ...of, size }, l4) | (l4 ? (tcp ? F.TCP : F.UDP) : 0);
  if (flags & F.TX_TSO) flags |= F.TX_TCP_CHECKSUM | (of.kind === 'tcp4' ? F.TX_IP_CHECKSUM : 0);
  const verdicts = [0, F.RX_L4_GOOD, F.RX_L4_BAD, F.RX_IP_GOOD, F.RX_IP_BAD, F.RX_L4_GOOD | F.RX_IP_GOOD];
  flags |= verdicts[of.seed % verdicts.length]!;
  flags |= (of.vlan === null ? 0 : F.VLAN) | (of.hash === null ? 0 : F.HASH);
  return {
    bytes,
    flags,
    vlanTci: of.vlan ?? 0,
    mss: of.mss,
    l4Offset: of.wrong ?? l4,
    hash: of.hash ?? 0,
    hashInfo: of.hash === null ? 0 : 0x101,
  };
}
