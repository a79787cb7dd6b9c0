// Channels, rings, coalescing and pause: -l -L -g -G -c -C -a -A, with the checks that the kernel makes before a driver is
// asked (net/ethtool, as its answers show).
import type { ChannelCounts, Coalescing, PauseState, RingSizes } from '../../netdev/control.js';
import { ethtoolJson } from './json.js';
import { type Asked, byNetlink, type Command, KernelRefusal } from './types.js';
import { expectNoMore, type Given, kindsOf, parsePairs } from './words.js';

const NOT_THERE = 'n/a';
const RINGS_FAILED = 81;
const PAUSE_FAILED = 76;

const numberOf = (given: Given | undefined): number | undefined => given?.value as number | undefined;

export const showChannels: Command = (asked) => {
  expectNoMore(asked.words);
  return byNetlink(asked, 1, async (remote) => {
    const channels = await remote.channels();
    asked.out(asked.json ? channelsJson(asked.name, channels) : channelsText(asked.name, channels));
    return 0;
  });
};

export function channelsText(name: string, { maxCombined, combined }: ChannelCounts): string {
  const counts = (count: number) =>
    `RX:\t\t${NOT_THERE}\nTX:\t\t${NOT_THERE}\nOther:\t\t${NOT_THERE}\nCombined:\t${count}\n`;
  return `Channel parameters for ${name}:\nPre-set maximums:\n${counts(maxCombined)}Current hardware settings:\n${counts(combined)}`;
}

const channelsJson = (name: string, { maxCombined, combined }: ChannelCounts) =>
  ethtoolJson({ ifname: name, 'combined-max': maxCombined, combined });

export const setChannels: Command = (asked) => {
  const given = parsePairs('-L', asked.name, kindsOf({ u32: 'rx tx other combined' }), asked.words);
  return byNetlink(asked, 1, async (remote) => {
    const { maxCombined, combined: before, reason } = await remote.channels();
    const combined = given.get('combined');
    const others = ['rx', 'tx', 'other'].map((name) => given.get(name));
    const wanted = numberOf(combined) ?? before;
    if (wanted === before && others.every((other) => (other?.value ?? 0) === 0)) return 0;
    const tooMany = others.find((other) => other && other.value !== 0);
    const exceeds = 'requested channel count exceeds maximum';
    if (tooMany) throw new KernelRefusal('EINVAL', exceeds, tooMany.offset);
    if (wanted > maxCombined) throw new KernelRefusal('EINVAL', exceeds, combined!.offset, reason);
    if (wanted === 0) {
      const problem = 'requested channel counts would result in no RX or TX channel being configured';
      throw new KernelRefusal('EINVAL', problem, combined!.offset);
    }
    await remote.setChannels(wanted);
    return 0;
  });
};

export const showRings: Command = (asked) => {
  expectNoMore(asked.words);
  return byNetlink(asked, 1, async (remote) => {
    const rings = await remote.rings();
    asked.out(asked.json ? ringsJson(asked.name, rings) : ringsText(asked.name, rings));
    return 0;
  });
};

export function ringsText(name: string, { maxRx, maxTx, rx, tx }: RingSizes): string {
  const sizes = (receive: number, send: number) =>
    `RX:\t\t${receive}\nRX Mini:\t${NOT_THERE}\nRX Jumbo:\t${NOT_THERE}\nTX:\t\t${send}\n`;
  return (
    `Ring parameters for ${name}:\nPre-set maximums:\n${sizes(maxRx, maxTx)}Current hardware settings:\n${sizes(rx, tx)}` +
    `RX Buf Len:\t\t${NOT_THERE}\nCQE Size:\t\t${NOT_THERE}\nTX Push:\toff\nTCP data split:\t${NOT_THERE}\n`
  );
}

const ringsJson = (name: string, { maxRx, maxTx, rx, tx }: RingSizes) =>
  ethtoolJson({ ifname: name, 'rx-max': maxRx, 'tx-max': maxTx, rx, tx, 'tx-push': false });

const RING_KINDS = kindsOf({ u32: 'rx rx-mini rx-jumbo tx rx-buf-len cqe-size', 'on|off': 'tx-push' });

export const setRings: Command = (asked) => {
  const given = parsePairs('-G', asked.name, RING_KINDS, asked.words);
  return byNetlink(asked, RINGS_FAILED, async (remote) => {
    refuseRingKinds(given);
    const { maxRx, maxTx, ...before } = await remote.rings();
    const limits = { rx: maxRx, 'rx-mini': 0, 'rx-jumbo': 0, tx: maxTx };
    for (const [name, max] of Object.entries(limits)) {
      const size = given.get(name);
      if (size && (size.value as number) > max)
        throw new KernelRefusal('EINVAL', 'requested ring size exceeds maximum', size.offset);
    }
    const rx = numberOf(given.get('rx')) ?? before.rx;
    const tx = numberOf(given.get('tx')) ?? before.tx;
    if (rx === before.rx && tx === before.tx) return 0;
    await remote.setRings({ ...(rx === before.rx ? {} : { rx }), ...(tx === before.tx ? {} : { tx }) });
    return 0;
  });
};

/** What a driver must say that it has, and hv_netvsc does not. */
function refuseRingKinds(given: ReadonlyMap<string, Given>): void {
  for (const name of ['rx-buf-len', 'cqe-size']) {
    const zero = given.get(name);
    if (zero?.value === 0) throw new KernelRefusal('ERANGE', 'integer out of range', zero.offset);
  }
  for (const name of ['rx-buf-len', 'cqe-size', 'tx-push']) {
    const missing = given.get(name);
    if (missing)
      throw new KernelRefusal('EOPNOTSUPP', `setting ${name.replaceAll('-', ' ')} not supported`, missing.offset);
  }
}

export const showCoalescing: Command = (asked) => {
  expectNoMore(asked.words);
  return byNetlink(asked, 1, async (remote) => {
    const coalescing = await remote.coalescing();
    asked.out(asked.json ? coalescingJson(asked.name, coalescing) : coalescingText(asked.name, coalescing));
    return 0;
  });
};

export function coalescingText(name: string, { rxUsecs, rxFrames, txUsecs, txFrames }: Coalescing): string {
  const none = (...names: string[]) => names.map((entry) => `${entry}: ${NOT_THERE}\n`).join('');
  const levels = (level: string) =>
    `${none(`rx-usecs-${level}`, `rx-frame-${level}`, `tx-usecs-${level}`, `tx-frame-${level}`)}\n`;
  return [
    `Coalesce parameters for ${name}:\nAdaptive RX: ${NOT_THERE}  TX: ${NOT_THERE}\n`,
    `${none('stats-block-usecs', 'sample-interval', 'pkt-rate-low', 'pkt-rate-high')}\n`,
    `rx-usecs: ${rxUsecs}\nrx-frames: ${rxFrames}\n${none('rx-usecs-irq', 'rx-frames-irq')}\n`,
    `tx-usecs: ${txUsecs}\ntx-frames: ${txFrames}\n${none('tx-usecs-irq', 'tx-frames-irq')}\n`,
    `${levels('low')}${levels('high')}CQE mode RX: ${NOT_THERE}  TX: ${NOT_THERE}\n\n`,
  ].join('');
}

const coalescingJson = (name: string, { rxUsecs, rxFrames, txUsecs, txFrames }: Coalescing) =>
  ethtoolJson({ ifname: name, 'rx-usecs': rxUsecs, 'rx-frames': rxFrames, 'tx-usecs': txUsecs, 'tx-frames': txFrames });

const COALESCING: Readonly<Record<string, keyof Coalescing>> = {
  'rx-usecs': 'rxUsecs',
  'rx-frames': 'rxFrames',
  'tx-usecs': 'txUsecs',
  'tx-frames': 'txFrames',
};

const COALESCING_KINDS = kindsOf({
  u32:
    'rx-usecs rx-frames rx-usecs-irq rx-frames-irq tx-usecs tx-frames tx-usecs-irq tx-frames-irq stats-block-usecs ' +
    'pkt-rate-low rx-usecs-low rx-frames-low tx-usecs-low tx-frames-low pkt-rate-high rx-usecs-high rx-frames-high ' +
    'tx-usecs-high tx-frames-high sample-interval',
  'on|off': 'adaptive-rx adaptive-tx cqe-mode-rx cqe-mode-tx',
});

export const setCoalescing: Command = (asked) => {
  const given = parsePairs('-C', asked.name, COALESCING_KINDS, asked.words);
  return byNetlink(asked, 1, async (remote) => {
    for (const { name, offset } of given.values())
      if (!(name in COALESCING)) throw new KernelRefusal('EINVAL', 'cannot modify an unsupported parameter', offset);
    const before = await remote.coalescing();
    const change: Partial<Record<keyof Coalescing, number>> = {};
    for (const { name, value } of given.values()) {
      const field = COALESCING[name]!;
      if (before[field] !== value) change[field] = value as number;
    }
    if (Object.keys(change).length > 0) await remote.setCoalescing(change);
    return 0;
  });
};

export const showPause: Command = async (asked) => {
  expectNoMore(asked.words);
  return byNetlink(asked, 1, async (remote) => {
    const pause = await remote.pause();
    if (!pause) return notSupported(asked, 1);
    asked.out(asked.json ? pauseJson(asked.name, pause) : pauseText(asked.name, pause));
    return 0;
  });
};

export function pauseText(name: string, { autonegotiate, rx, tx }: PauseState): string {
  const on = (flag: boolean) => (flag ? 'on' : 'off');
  return `Pause parameters for ${name}:\nAutonegotiate:\t${on(autonegotiate)}\nRX:\t\t${on(rx)}\nTX:\t\t${on(tx)}\n\n`;
}

/** ethtool 6.1 itself prints true whatever the state; later ones do as here. */
const pauseJson = (name: string, { autonegotiate, rx, tx }: PauseState) =>
  ethtoolJson({ ifname: name, autonegotiate, rx, tx });

/** No device of ours has pause frames that could be set. */
export const setPause: Command = async (asked) => {
  parsePairs('-A', asked.name, kindsOf({ 'on|off': 'autoneg rx tx' }), asked.words);
  return byNetlink(asked, PAUSE_FAILED, async () => notSupported(asked, PAUSE_FAILED));
};

function notSupported(asked: Asked, exitCode: number): number {
  if (asked.json) asked.out('[ ]\n');
  asked.err('netlink error: Operation not supported\n');
  return exitCode;
}
