// A running interface in ethtool's words: what `netvsc ethtool` asks and sets through the control socket.
import { RSS_TYPE } from '../ethdev/constants.js';
import type { PortError, PortErrorCode } from '../ethdev/errors.js';
import { HASH_FLOWS, type HashFlow } from '../ethdev/flow-hash.js';
import {
  type ChannelCounts,
  type Coalescing,
  type DriverInfo,
  type FeatureState,
  FLOWS,
  type Flow,
  type FlowHash,
  type LinkInfo,
  type NetdevControl,
  NetdevError,
  type NetdevErrorCode,
  type PauseState,
  type RegisterDump,
  type RingSizes,
  type RssChange,
  type RssState,
} from './control.js';
import type { Coupling } from './coupling.js';
import { featureFault } from './features.js';

const CODES: Readonly<Partial<Record<PortErrorCode, NetdevErrorCode>>> = { ENOTSUP: 'EOPNOTSUPP', EEXIST: 'EBUSY' };

const isHashFlow = (flow: string): flow is HashFlow => (HASH_FLOWS as readonly string[]).includes(flow);

export class Netdev implements NetdevControl {
  readonly #coupling: Coupling;
  readonly #version: string;
  readonly #permanent: string;

  constructor(coupling: Coupling, version: string, permanentAddress: string) {
    this.#coupling = coupling;
    this.#version = version;
    this.#permanent = permanentAddress;
  }

  driverInfo(): DriverInfo {
    const { driver, device } = this.#coupling.device.info();
    return { driver, version: this.#version, firmwareVersion: 'N/A', busInfo: device };
  }

  link(): LinkInfo {
    const { speedMbps, fullDuplex, autonegotiated } = this.#coupling.device.link();
    return { up: this.#coupling.kernel.state.running, speedMbps, fullDuplex, autonegotiated };
  }

  features(): readonly FeatureState[] {
    return this.#coupling.features();
  }

  async setFeatures(wanted: Readonly<Record<string, boolean>>): Promise<void> {
    for (const [name, on] of Object.entries(wanted)) {
      const fault = featureFault(name, on);
      if (fault !== undefined) throw this.#error('EOPNOTSUPP', fault);
    }
    await this.#try(() => this.#coupling.setFeatures(wanted));
  }

  channels(): ChannelCounts {
    const { maxQueues, queues, device } = this.#coupling;
    const reason = device.info().reasons?.queues;
    return { maxCombined: maxQueues, combined: queues, ...(reason !== undefined && { reason }) };
  }

  async setChannels(combined: number): Promise<void> {
    const most = this.#coupling.maxQueues;
    if (!(Number.isInteger(combined) && combined >= 1 && combined <= most))
      throw this.#error('EINVAL', `channels: expected 1 to ${most}, got ${combined}`);
    // As ethtool's core has it for every driver.
    const used = Math.max(...(this.#coupling.scaling.table ?? [0]));
    if (used >= combined)
      throw this.#error('EINVAL', `channels: the indirection table uses queue ${used}, expected more than ${used}`);
    await this.#try(() => this.#coupling.setQueues(combined));
  }

  rings(): RingSizes {
    const { rx, tx, maxRx, maxTx } = this.#asked(() => this.#coupling.device.rings());
    return { rx, tx, maxRx, maxTx };
  }

  async setRings(sizes: { readonly rx?: number; readonly tx?: number }): Promise<void> {
    const { rx, tx } = this.rings();
    if ((sizes.rx ?? rx) === rx && (sizes.tx ?? tx) === tx) return;
    await this.#try(() => this.#coupling.setRings(sizes));
  }

  rss(): RssState {
    const { device, queues } = this.#coupling;
    this.#expectTable();
    const { table, key } = device.rss();
    return { rings: queues, table, key: [...key], hashFunction: 'toeplitz' };
  }

  async setRss({ table, key }: RssChange): Promise<void> {
    const { queues } = this.#coupling;
    const entries = this.#expectTable();
    const wrong = table?.find((queue) => !(Number.isInteger(queue) && queue >= 0 && queue < queues));
    if (wrong !== undefined)
      throw this.#error('EINVAL', `indirection table: expected queues 0 to ${queues - 1}, got ${wrong}`);
    const byDefault = table?.length === 0;
    // A shorter list fills the table over and over, as ethtool's does.
    const entry = (i: number) => (byDefault ? i % queues : (table![i % table!.length] ?? 0));
    const whole = table && Array.from({ length: entries }, (_, i) => entry(i));
    await this.#try(() =>
      this.#coupling.setScaling(
        { ...(whole && { table: whole }), ...(key && { key: Uint8Array.from(key) }) },
        { byDefault },
      ),
    );
  }

  flowHash(flow: Flow): FlowHash {
    if (isHashFlow(flow)) return { flow, ...this.#coupling.device.flowHash(flow) };
    if (!FLOWS.includes(flow)) throw this.#error('EINVAL', `flow ${flow}: expected one of ${FLOWS.join(', ')}`);
    const name = flow === 'ip4' ? 'IPV4' : 'IPV6';
    const { device, queues } = this.#coupling;
    return { flow, level: 'L3', receive: queues > 1 && (device.rss().types & RSS_TYPE[name]) !== 0 };
  }

  async setFlowHash(flow: Flow, level: 'L3' | 'L4'): Promise<void> {
    if (!isHashFlow(flow)) throw this.#error('EOPNOTSUPP', `flow ${flow}: it is always hashed by addresses`);
    await this.#try(() => this.#coupling.setFlowHash(flow, level));
  }

  coalescing(): Coalescing {
    throw this.#error('EOPNOTSUPP', 'coalescing: the device has none');
  }

  async setCoalescing(): Promise<void> {
    this.coalescing();
  }

  pause(): PauseState | undefined {
    return undefined;
  }

  registers(): RegisterDump {
    return { sendTable: [...this.#coupling.device.transmitTable()] };
  }

  permanentAddress(): string {
    return this.#permanent;
  }

  statistics(): readonly (readonly [name: string, value: number])[] {
    return this.#coupling.statistics();
  }

  /** Entries of the device's table. */
  #expectTable(): number {
    const { rssTableEntries, reasons } = this.#coupling.device.info();
    if (rssTableEntries > 0) return rssTableEntries;
    throw this.#error('EOPNOTSUPP', `receive-side scaling: ${reasons?.RSS ?? 'the device has none'}`);
  }

  async #try(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (cause) {
      throw this.#translated(cause);
    }
  }

  #asked<T>(what: () => T): T {
    try {
      return what();
    } catch (cause) {
      throw this.#translated(cause);
    }
  }

  #translated(cause: unknown): NetdevError {
    const { code, message } = cause as PortError;
    const known = CODES[code] ?? (code as NetdevErrorCode | undefined) ?? 'EIO';
    return new NetdevError(known, this.#coupling.name, message, { cause });
  }

  #error(code: NetdevErrorCode, problem: string): NetdevError {
    return new NetdevError(code, this.#coupling.name, problem);
  }
}
