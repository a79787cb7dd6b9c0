// An interface in memory for tests of those who ask one: limits, dependent features and refusals as hv_netvsc and the
// kernel around it have them (facts/linux-guest.md 5.1), and a host that does what the test says.
import { MICROSOFT_KEY } from '../offload/rss.js';
import {
  type ChannelCounts,
  type Coalescing,
  type DriverInfo,
  type FeatureState,
  type Flow,
  type FlowHash,
  type LinkInfo,
  type NetdevControl,
  NetdevError,
  type PauseState,
  type RegisterDump,
  type RingSizes,
  type RssChange,
  type RssState,
} from './control.js';

const RINGS_MIN = 10;

interface Feature {
  wanted: boolean;
  readonly fixed: boolean;
  readonly needs: readonly string[];
  readonly reason?: string;
}

const feature = (wanted: boolean, needs: readonly string[] = [], reason?: string): Feature => ({
  wanted,
  needs,
  fixed: false,
  ...(reason === undefined ? {} : { reason }),
});

export class MemoryNetdev implements NetdevControl {
  readonly name: string;
  /** What setters were called with, in order. */
  readonly calls: (readonly [name: string, value: unknown])[] = [];
  /** The next setter fails with it. */
  refusal: NetdevError | undefined;
  /** Setters wait for it. */
  delay: Promise<void> = Promise.resolve();
  readonly featureTable = new Map<string, Feature>([
    ['tx-scatter-gather', feature(true)],
    ['tx-checksum-ipv4', feature(true)],
    ['tx-checksum-ipv6', feature(true)],
    ['highdma', { wanted: true, fixed: true, needs: [] }],
    ['tx-vlan-hw-insert', { wanted: true, fixed: true, needs: [] }],
    ['rx-vlan-hw-parse', feature(true)],
    ['tx-generic-segmentation', feature(true, ['tx-scatter-gather'])],
    ['rx-gro', feature(true)],
    ['rx-lro', feature(true)],
    ['tx-tcp-segmentation', feature(true, ['tx-scatter-gather', 'tx-checksum-ipv4'])],
    ['tx-tcp6-segmentation', feature(true, ['tx-scatter-gather', 'tx-checksum-ipv6'])],
    ['rx-hashing', feature(true)],
    ['rx-checksum', feature(true)],
  ]);
  linkInfo: LinkInfo = { up: true, speedMbps: 10_000, fullDuplex: true, autonegotiated: false };
  channelCounts: ChannelCounts = { maxCombined: 8, combined: 4 };
  ringSizes: RingSizes = { maxRx: 18_811, maxTx: 2560, rx: 9709, tx: 170 };
  rssState: RssState | undefined = {
    rings: 4,
    table: Array.from({ length: 128 }, (_, index) => index % 4),
    key: [...MICROSOFT_KEY],
    hashFunction: 'toeplitz',
  };
  coalesce: Coalescing = { rxUsecs: 0, rxFrames: 0, txUsecs: 0, txFrames: 0 };
  counters: (readonly [string, number])[] = [
    ['tx_scattered', 0],
    ['tx_queue_0_packets', 12],
    ['rx_queue_0_bytes', 4096],
  ];
  readonly #levels = new Map<Flow, 'L3' | 'L4'>();

  constructor(name = 'hv0') {
    this.name = name;
  }

  driverInfo(): DriverInfo {
    return {
      driver: 'netvsc',
      version: '0.1.0',
      firmwareVersion: 'N/A',
      busInfo: '22222222-2222-2222-2222-222222222222',
    };
  }

  link(): LinkInfo {
    return this.linkInfo;
  }

  features(): readonly FeatureState[] {
    return [...this.featureTable].map(([name, { wanted, fixed, needs, reason }]) => ({
      name,
      on: wanted && reason === undefined && needs.every((need) => this.featureTable.get(need)?.wanted),
      wanted,
      fixed,
      ...(reason === undefined ? {} : { reason }),
    }));
  }

  async setFeatures(wanted: Readonly<Record<string, boolean>>): Promise<void> {
    await this.#called('setFeatures', { ...wanted });
    for (const [name, on] of Object.entries(wanted)) {
      const known = this.featureTable.get(name);
      if (!known) throw new NetdevError('EINVAL', this.name, `no feature ${name}`);
      if (known.fixed && known.wanted !== on) throw new NetdevError('EINVAL', this.name, `${name} is fixed`);
      known.wanted = on;
    }
  }

  channels(): ChannelCounts {
    return this.channelCounts;
  }

  async setChannels(combined: number): Promise<void> {
    await this.#called('setChannels', combined);
    const { maxCombined } = this.channelCounts;
    if (combined < 1 || combined > maxCombined)
      throw new NetdevError('EINVAL', this.name, `channels: expected 1 to ${maxCombined}, got ${combined}`);
    this.channelCounts = { maxCombined, combined };
    if (this.rssState) this.rssState = { ...this.rssState, rings: combined };
  }

  rings(): RingSizes {
    return this.ringSizes;
  }

  async setRings(sizes: { readonly rx?: number; readonly tx?: number }): Promise<void> {
    await this.#called('setRings', { ...sizes });
    const { maxRx, maxTx, rx, tx } = this.ringSizes;
    const clamp = (value: number, max: number) => Math.min(Math.max(value, RINGS_MIN), max);
    this.ringSizes = { maxRx, maxTx, rx: clamp(sizes.rx ?? rx, maxRx), tx: clamp(sizes.tx ?? tx, maxTx) };
  }

  rss(): RssState {
    return this.#rss();
  }

  async setRss(change: RssChange): Promise<void> {
    await this.#called('setRss', { ...change });
    const state = this.#rss();
    const { key = state.key } = change;
    const byDefault = change.table?.length === 0;
    const table = byDefault ? state.table.map((_, index) => index % state.rings) : (change.table ?? state.table);
    const wrong = change.table?.find((entry) => entry >= this.channelCounts.combined);
    if (wrong !== undefined) throw new NetdevError('EINVAL', this.name, `table: no channel ${wrong}`);
    if (table.length !== state.table.length || key.length !== state.key.length)
      throw new NetdevError('EINVAL', this.name, 'table or key of another size');
    this.rssState = { ...state, table, key };
  }

  flowHash(flow: Flow): FlowHash {
    const ip = flow === 'ip4' || flow === 'ip6';
    return { flow, level: ip ? 'L3' : (this.#levels.get(flow) ?? 'L4'), receive: !flow.startsWith('udp') };
  }

  async setFlowHash(flow: Flow, level: 'L3' | 'L4'): Promise<void> {
    await this.#called('setFlowHash', { flow, level });
    if (flow === 'ip4' || flow === 'ip6') throw new NetdevError('EOPNOTSUPP', this.name, `${flow} has one level`);
    this.#levels.set(flow, level);
  }

  coalescing(): Coalescing {
    return this.coalesce;
  }

  async setCoalescing(change: Partial<Coalescing>): Promise<void> {
    await this.#called('setCoalescing', { ...change });
    this.coalesce = { ...this.coalesce, ...change };
  }

  pause(): PauseState | undefined {
    return undefined;
  }

  registers(): RegisterDump {
    return { sendTable: Array.from({ length: 16 }, (_, index) => index % 4) };
  }

  permanentAddress(): string {
    return '00:15:5d:00:00:01';
  }

  statistics(): readonly (readonly [name: string, value: number])[] {
    return this.counters;
  }

  #rss(): RssState {
    if (!this.rssState) throw new NetdevError('EOPNOTSUPP', this.name, 'the host has one queue and no table');
    return this.rssState;
  }

  async #called(name: string, value: unknown): Promise<void> {
    this.calls.push([name, value]);
    await this.delay;
    const { refusal } = this;
    this.refusal = undefined;
    if (refusal) throw refusal;
  }
}
