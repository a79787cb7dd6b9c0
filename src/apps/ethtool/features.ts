// Features: -k and -K. The kernel has a bit for each, and a name; ethtool adds older names, some of which mean several.
import type { FeatureState } from '../../netdev/control.js';
import { ethtoolJson } from './json.js';
import { type Asked, byNetlink, type Command, KernelRefusal, UsageError } from './types.js';
import { attributeBytes, expectNoMore, firstAttribute, parseOnOff } from './words.js';

/** Names in the order of the kernel's bits (Linux 6.18); bits without a name left out. */
export const KERNEL_FEATURES: readonly string[] = [
  ...['tx-scatter-gather', 'tx-checksum-ipv4', 'tx-checksum-ip-generic', 'tx-checksum-ipv6', 'highdma'],
  ...['tx-scatter-gather-fraglist', 'tx-vlan-hw-insert', 'rx-vlan-hw-parse', 'rx-vlan-filter', 'vlan-challenged'],
  ...['tx-generic-segmentation', 'rx-gro', 'rx-lro', 'tx-tcp-segmentation', 'tx-gso-robust'],
  ...['tx-tcp-ecn-segmentation', 'tx-tcp-mangleid-segmentation', 'tx-tcp6-segmentation', 'tx-fcoe-segmentation'],
  ...['tx-gre-segmentation', 'tx-gre-csum-segmentation', 'tx-ipxip4-segmentation', 'tx-ipxip6-segmentation'],
  ...['tx-udp_tnl-segmentation', 'tx-udp_tnl-csum-segmentation', 'tx-gso-partial', 'tx-tunnel-remcsum-segmentation'],
  ...['tx-sctp-segmentation', 'tx-esp-segmentation', 'tx-udp-segmentation', 'tx-gso-list'],
  ...['tx-tcp-accecn-segmentation', 'tx-checksum-fcoe-crc', 'tx-checksum-sctp', 'rx-ntuple-filter', 'rx-hashing'],
  ...['rx-checksum', 'tx-nocache-copy', 'loopback', 'rx-fcs', 'rx-all', 'tx-vlan-stag-hw-insert'],
  ...['rx-vlan-stag-hw-parse', 'rx-vlan-stag-filter', 'l2-fwd-offload', 'hw-tc-offload', 'esp-hw-offload'],
  ...['esp-tx-csum-hw-offload', 'rx-udp_tunnel-port-offload', 'tls-hw-tx-offload', 'tls-hw-rx-offload', 'rx-gro-hw'],
  ...['tls-hw-record', 'rx-gro-list', 'macsec-hw-offload', 'rx-udp-gro-forwarding', 'hsr-tag-ins-offload'],
  ...['hsr-tag-rm-offload', 'hsr-fwd-offload', 'hsr-dup-offload'],
];

/** ethtool's own names: what -k prints, what -K takes beside it, and which features they mean. */
export const GROUPS: readonly { readonly long: string; readonly short: string; readonly means: RegExp }[] = [
  { long: 'rx-checksumming', short: 'rx', means: /^rx-checksum$/ },
  { long: 'tx-checksumming', short: 'tx', means: /^tx-checksum-/ },
  { long: 'scatter-gather', short: 'sg', means: /^tx-scatter-gather/ },
  { long: 'tcp-segmentation-offload', short: 'tso', means: /^tx-tcp.*-segmentation$/ },
  // Gone from the kernel, still known to ethtool.
  { long: 'udp-fragmentation-offload', short: 'ufo', means: /^tx-udp-fragmentation$/ },
  { long: 'generic-segmentation-offload', short: 'gso', means: /^tx-generic-segmentation$/ },
  { long: 'generic-receive-offload', short: 'gro', means: /^rx-gro$/ },
  { long: 'large-receive-offload', short: 'lro', means: /^rx-lro$/ },
  { long: 'rx-vlan-offload', short: 'rxvlan', means: /^rx-vlan-hw-parse$/ },
  { long: 'tx-vlan-offload', short: 'txvlan', means: /^tx-vlan-hw-insert$/ },
  { long: 'ntuple-filters', short: 'ntuple', means: /^rx-ntuple-filter$/ },
  { long: 'receive-hashing', short: 'rxhash', means: /^rx-hashing$/ },
];

const CHANGE_FAILED = 92;

/** All features in the kernel's order, then those that the interface has beyond; what it does not name is fixed off. */
export function completeFeatures(own: readonly FeatureState[]): FeatureState[] {
  const known = new Map(own.map((feature) => [feature.name, feature]));
  const absent = (name: string): FeatureState => ({ name, on: false, wanted: false, fixed: true });
  const all = KERNEL_FEATURES.map((name) => known.get(name) ?? absent(name));
  return [...all, ...own.filter(({ name }) => !KERNEL_FEATURES.includes(name))];
}

export const showFeatures: Command = (asked) => {
  expectNoMore(asked.words);
  return byNetlink(asked, 1, async (remote) => {
    const features = completeFeatures(await remote.features());
    asked.out(asked.json ? featuresJson(asked.name, features) : featuresText(asked.name, features));
    return 0;
  });
};

interface Line {
  readonly label: string;
  /** One of several behind a label of ethtool's. */
  readonly part: boolean;
  readonly on: boolean;
  /** Undefined: the sum of several. */
  readonly feature: FeatureState | undefined;
}

function lines(features: readonly FeatureState[]): Line[] {
  const result: Line[] = [];
  const shown = new Set<FeatureState>();
  for (const { long, means } of GROUPS) {
    const members = features.filter(({ name }) => means.test(name));
    for (const member of members) shown.add(member);
    const [only] = members;
    if (only === undefined) continue;
    if (members.length === 1) {
      result.push({ label: long, part: false, on: only.on, feature: only });
      continue;
    }
    result.push({ label: long, part: false, on: members.some(({ on }) => on), feature: undefined });
    for (const member of members) result.push({ label: member.name, part: true, on: member.on, feature: member });
  }
  for (const feature of features)
    if (!shown.has(feature)) result.push({ label: feature.name, part: false, on: feature.on, feature });
  return result;
}

const word = (on: boolean): string => (on ? 'on' : 'off');

export function featuresText(name: string, features: readonly FeatureState[]): string {
  const text = lines(features).map(({ label, part, on, feature }) => {
    const note = feature?.fixed
      ? ' [fixed]'
      : feature && feature.wanted !== on
        ? ` [requested ${word(feature.wanted)}]`
        : '';
    return `${part ? '\t' : ''}${label}: ${word(on)}${note}\n`;
  });
  return `Features for ${name}:\n${text.join('')}`;
}

function featuresJson(name: string, features: readonly FeatureState[]): string {
  const entries = lines(features).map(({ label, on, feature }) => {
    const { fixed, wanted } = feature ?? { fixed: null, wanted: null };
    // The kernel keeps no wish for what cannot be changed.
    return [label, { active: on, fixed, requested: fixed ? false : wanted }] as const;
  });
  return ethtoolJson({ ifname: name, ...Object.fromEntries(entries) });
}

/** A name of the command line with "on" or "off". */
interface Wish {
  readonly name: string;
  readonly on: boolean;
}

function parseWishes(words: readonly string[]): Wish[] {
  const wishes: Wish[] = [];
  for (let at = 0; at < words.length && words[at] !== '--'; at += 2) {
    const value = words[at + 1];
    const on = value === undefined ? undefined : parseOnOff(value);
    if (on === undefined)
      // ethtool 6.1 has lost the parameter's name by then.
      throw new UsageError(
        `ethtool (-K): flag '${value ?? '(null)'}' for parameter '(null)' is not followed by 'on' or 'off'\n`,
      );
    wishes.push({ name: words[at]!, on });
  }
  return wishes;
}

/** By kernel name; of several wishes for the same feature one for "on" counts. Throws KernelRefusal, as the kernel does,
 *  for the first name that is none. */
function resolve(device: string, wishes: readonly Wish[], features: readonly FeatureState[]): Map<string, boolean> {
  const resolved = new Map<string, boolean>();
  let offset = firstAttribute(device) + BIT_LIST_BYTES;
  for (const { name, on } of wishes) {
    const group = GROUPS.find(({ long, short }) => long === name || short === name);
    const members = group ? features.filter((feature) => group.means.test(feature.name)) : [{ name }];
    for (const member of members) {
      if (!features.some((feature) => feature.name === member.name))
        throw new KernelRefusal('EOPNOTSUPP', 'bit name not found', offset);
      resolved.set(member.name, on || resolved.get(member.name) === true);
      offset += 4 + attributeBytes(Buffer.byteLength(member.name) + 1) + (on ? 4 : 0);
    }
  }
  return resolved;
}

/** From the set of bits' own header to the name of the first: set, its size, list, bit. */
const BIT_LIST_BYTES = 20;

export const setFeatures: Command = (asked) => {
  const wishes = parseWishes(asked.words);
  return byNetlink(asked, CHANGE_FAILED, async (remote) => {
    const before = completeFeatures(await remote.features());
    const wanted = resolve(asked.name, wishes, before);
    const changeable = new Set(before.filter(({ fixed }) => !fixed).map(({ name }) => name));
    const request = [...wanted].filter(([name]) => changeable.has(name));
    if (request.length > 0) await remote.setFeatures(Object.fromEntries(request));
    return report(asked, wanted, before, completeFeatures(await remote.features()));
  });
};

/** What came of it, where it is not exactly what was asked for. */
function report(
  asked: Asked,
  wanted: ReadonlyMap<string, boolean>,
  before: readonly FeatureState[],
  after: readonly FeatureState[],
): number {
  const was = new Map(before.map(({ name, on }) => [name, on]));
  const changes = after.map((feature) => {
    const wish = wanted.get(feature.name);
    const changed = was.get(feature.name) !== feature.on;
    return { feature, wish, changed, failed: wish !== undefined && wish !== feature.on };
  });
  const failed = changes.filter((change) => change.failed);
  if (failed.length > 0 || changes.some(({ wish, changed }) => changed && wish === undefined)) {
    asked.out('Actual changes:\n');
    for (const { feature, wish, changed, failed } of changes)
      if (changed || failed) asked.out(`${feature.name}: ${word(feature.on)}${note(wish, failed)}\n`);
  }
  for (const { feature } of failed) {
    if (feature.reason !== undefined) asked.err(`netvsc: ${feature.name}: ${feature.reason}\n`);
  }
  if (failed.length < wanted.size) return 0;
  asked.err('Could not change any device features\n');
  return 1;
}

const note = (wish: boolean | undefined, failed: boolean): string =>
  failed ? ` [requested ${word(wish!)}]` : wish === undefined ? ' [not requested]' : '';
