// What an interface's features are: the kernel's names in the kernel's order (ethtool -k), what each needs of device and other
// features, and what of the TAP interface and the device follows from them (facts/linux-guest.md 1.2).
import { RX_OFFLOAD, TX_OFFLOAD } from '../ethdev/constants.js';
import type { PortInfo } from '../ethdev/types.js';
import { TAP_OFFLOAD } from '../memory/os/tap.js';
import type { FeatureState } from './control.js';
import { PAIR_OPTION } from './pair-memory.js';

/** What of a device counts. */
export type FeatureDevice = Pick<PortInfo, 'rxOffloads' | 'txOffloads' | 'maxTsoBytes' | 'reasons'>;

interface Rule {
  readonly fixed?: boolean;
  /** What the user gets who asks for nothing. */
  readonly usual?: boolean;
  readonly needs?: readonly string[];
  /** Why this device cannot, or undefined. */
  readonly lacks?: (device: FeatureDevice) => string | undefined;
}

const fixedOff: Rule = { fixed: true, usual: false };
const fixedOn: Rule = { fixed: true, usual: true };
/** Switches that a TAP interface has for both families together. */
const BOTH = 'a TAP interface has one switch for both families';

/** TCP is enough, as for hv_netvsc: where the host fills in no UDP checksums (Windows Server 2012) its driver does. */
const sums = ({ txOffloads, reasons }: FeatureDevice) =>
  (txOffloads & TX_OFFLOAD.TCP_CKSUM) !== 0
    ? undefined
    : (reasons?.TCP_CKSUM ?? 'the device fills in no TCP checksums');
const cuts = (family: 'ipv4' | 'ipv6') => (device: FeatureDevice) => {
  const { txOffloads, maxTsoBytes, reasons } = device;
  const most = maxTsoBytes?.[family] ?? 1;
  if ((txOffloads & TX_OFFLOAD.TCP_TSO) !== 0 && most > 0) return undefined;
  return reasons?.TCP_TSO ?? 'the device cuts no large packets';
};
const receives = (bit: number, name: string, what: string) => (device: FeatureDevice) =>
  (device.rxOffloads & bit) !== 0 ? undefined : (device.reasons?.[name] ?? `the device does not ${what}`);

const RULES: Readonly<Record<string, Rule>> = {
  'tx-scatter-gather': { usual: true },
  'tx-checksum-ipv4': { usual: true, lacks: sums },
  'tx-checksum-ip-generic': fixedOff,
  'tx-checksum-ipv6': { usual: true, lacks: sums },
  highdma: fixedOn,
  'tx-scatter-gather-fraglist': fixedOff,
  'tx-vlan-hw-insert': fixedOn,
  'rx-vlan-hw-parse': fixedOn,
  'rx-vlan-filter': fixedOff,
  'tx-vlan-stag-hw-insert': fixedOff,
  'rx-vlan-stag-hw-parse': fixedOff,
  'rx-vlan-stag-filter': fixedOff,
  'vlan-challenged': fixedOff,
  'tx-generic-segmentation': { usual: true, needs: ['tx-scatter-gather'] },
  'rx-gro': { usual: true },
  'rx-lro': { usual: true, lacks: receives(RX_OFFLOAD.TCP_LRO, 'TCP_LRO', 'coalesce received packets') },
  'tx-tcp-segmentation': { usual: true, needs: ['tx-scatter-gather', 'tx-checksum-ipv4'], lacks: cuts('ipv4') },
  'tx-gso-robust': fixedOff,
  'tx-tcp-ecn-segmentation': fixedOff,
  'tx-tcp-mangleid-segmentation': fixedOff,
  'tx-tcp6-segmentation': { usual: true, needs: ['tx-scatter-gather', 'tx-checksum-ipv6'], lacks: cuts('ipv6') },
  'tx-fcoe-segmentation': fixedOff,
  'tx-gre-segmentation': fixedOff,
  'tx-gre-csum-segmentation': fixedOff,
  'tx-ipxip4-segmentation': fixedOff,
  'tx-ipxip6-segmentation': fixedOff,
  'tx-udp_tnl-segmentation': fixedOff,
  'tx-udp_tnl-csum-segmentation': fixedOff,
  'tx-gso-partial': fixedOff,
  'tx-tunnel-remcsum-segmentation': fixedOff,
  'tx-sctp-segmentation': fixedOff,
  'tx-esp-segmentation': fixedOff,
  'tx-udp-segmentation': fixedOff,
  'tx-gso-list': fixedOff,
  'tx-checksum-fcoe-crc': fixedOff,
  'tx-checksum-sctp': fixedOff,
  'rx-ntuple-filter': fixedOff,
  'rx-hashing': { usual: true, lacks: receives(RX_OFFLOAD.RSS_HASH, 'RSS_HASH', 'hash received packets') },
  'rx-checksum': {
    usual: true,
    lacks: receives(RX_OFFLOAD.TCP_CKSUM | RX_OFFLOAD.UDP_CKSUM, 'TCP_CKSUM', 'verify received checksums'),
  },
  'tx-nocache-copy': fixedOff,
  loopback: fixedOff,
  'rx-fcs': fixedOff,
  'rx-all': fixedOff,
  'l2-fwd-offload': fixedOff,
  'hw-tc-offload': fixedOff,
  'esp-hw-offload': fixedOff,
  'esp-tx-csum-hw-offload': fixedOff,
  'rx-udp_tunnel-port-offload': fixedOff,
  'tls-hw-tx-offload': fixedOff,
  'tls-hw-rx-offload': fixedOff,
  'rx-gro-hw': fixedOff,
  'tls-hw-record': fixedOff,
  'rx-gro-list': fixedOff,
  'macsec-hw-offload': fixedOff,
  'rx-udp-gro-forwarding': { usual: false, needs: ['rx-gro'] },
  'hsr-tag-ins-offload': fixedOff,
  'hsr-tag-rm-offload': fixedOff,
  'hsr-fwd-offload': fixedOff,
  'hsr-dup-offload': fixedOff,
};

/** Every feature's state, in the kernel's order. `wishes`: what was asked for, of those that are not as usual. */
export function featureStates(device: FeatureDevice, wishes: ReadonlyMap<string, boolean>): FeatureState[] {
  const wanted = (name: string) => wishes.get(name) ?? RULES[name]!.usual ?? false;
  const problem = (name: string): string | undefined => {
    const { lacks, needs = [] } = RULES[name]!;
    const missing = needs.find((other) => !wanted(other) || problem(other) !== undefined);
    return lacks?.(device) ?? (missing === undefined ? undefined : `it needs ${missing}`);
  };
  const halfSummed = wanted('tx-checksum-ipv4') !== wanted('tx-checksum-ipv6');
  return Object.entries(RULES).map(([name, { fixed = false }]) => {
    let reason = wanted(name) ? problem(name) : undefined;
    if (reason === undefined && halfSummed && wanted(name) && /^tx-(checksum-ipv|tcp6?-seg)/.test(name)) reason = BOTH;
    const state = { name, fixed, wanted: wanted(name), on: wanted(name) && reason === undefined };
    return reason === undefined ? state : { ...state, reason };
  });
}

/** Why a feature cannot be set to that, or undefined. */
export function featureFault(name: string, on: boolean): string | undefined {
  const rule = RULES[name];
  if (rule === undefined) return `feature ${name}: there is no such feature`;
  return rule.fixed === true && on !== rule.usual
    ? `feature ${name}: it is fixed ${rule.usual ? 'on' : 'off'}`
    : undefined;
}

/** What both ports and the stage between them are told. */
export interface FeatureSettings {
  /** Offloads that the device may do. */
  readonly rxOffloads: number;
  readonly txOffloads: number;
  /** TAP_OFFLOAD: what the kernel leaves undone. */
  readonly kernel: number;
  /** PAIR_OPTION. */
  readonly pair: number;
  /** Datagrams are merged, too. */
  readonly udp: boolean;
}

/** What follows from features; `device` are the bits that it has. */
export function featureSettings(device: FeatureDevice, states: readonly FeatureState[]): FeatureSettings {
  const on = new Set(states.flatMap((state) => (state.on ? [state.name] : [])));
  const { VLAN_STRIP, IPV4_CKSUM, UDP_CKSUM, TCP_CKSUM, TCP_LRO, SCATTER, RSS_HASH } = RX_OFFLOAD;
  const { VLAN_INSERT, TCP_TSO, MULTI_SEGS } = TX_OFFLOAD;
  const rx = VLAN_STRIP | IPV4_CKSUM | UDP_CKSUM | TCP_CKSUM | SCATTER;
  const { CSUM, TSO4, TSO6 } = TAP_OFFLOAD;
  return {
    rxOffloads: device.rxOffloads & (rx | (on.has('rx-lro') ? TCP_LRO : 0) | (on.has('rx-hashing') ? RSS_HASH : 0)),
    // What the kernel leaves undone follows `kernel`; the IPv4 header's checksum is always its own, as hv_netvsc has it.
    txOffloads: device.txOffloads & (VLAN_INSERT | TX_OFFLOAD.UDP_CKSUM | TX_OFFLOAD.TCP_CKSUM | TCP_TSO | MULTI_SEGS),
    kernel:
      (on.has('tx-checksum-ipv4') && on.has('tx-checksum-ipv6') ? CSUM : 0) |
      (on.has('tx-tcp-segmentation') ? TSO4 : 0) |
      (on.has('tx-tcp6-segmentation') ? TSO6 : 0),
    pair: (on.has('rx-gro') ? PAIR_OPTION.GRO : 0) | (on.has('rx-checksum') ? 0 : PAIR_OPTION.UNCHECKED),
    udp: on.has('rx-udp-gro-forwarding'),
  };
}
