// What can be changed of a port while it exists: MTU, addresses, filters, scaling, offloads, sizes of its buffers.
import { formatMac, parseMac } from '../wire/address-text.js';
import {
  DEFAULT_HASH_LEVELS,
  type HashFlow,
  type HashLevel,
  type HashLevels,
  hashesAt,
  typesFor,
} from './flow-hash.js';
import { checkOffloads, checkRss } from './limits.js';
import { PortBase } from './port-base.js';
import type { PortOffloads, ReceiveFilter, RingSizes } from './types.js';

/** Entries of the table for the choice of transmit queues, as hosts have it. */
const TRANSMIT_ENTRIES = 16;

export abstract class PortSettings extends PortBase {
  /** Stopped. Throws PortError EBUSY, or what the device says; the old MTU is in force then. */
  setMtu(mtu: number): Promise<void> {
    return this.serially(() => this.changeMtu(mtu));
  }

  setPromiscuous(on: boolean): Promise<void> {
    return this.#setFilter({ ...this.receive, promiscuous: on });
  }

  setAllMulticast(on: boolean): Promise<void> {
    return this.#setFilter({ ...this.receive, allMulticast: on });
  }

  /** A unicast address. Throws PortError. */
  setMac(mac: string): Promise<void> {
    return this.serially(async () => {
      const address = this.#address(mac, 'unicast');
      await this.need('setMac', 'another MAC address').call(this.impl, address);
    });
  }

  /** One more unicast address to receive for. Throws PortError: there is no room, or no such filter. */
  addMac(mac: string): Promise<void> {
    return this.serially(async () => {
      this.expectOpen('MAC');
      const added = this.#address(mac, 'unicast');
      const { maxMacAddresses } = this.info();
      if (added === this.mac || this.addedMacs.includes(added)) return;
      if (this.addedMacs.length + 1 >= maxMacAddresses)
        throw this.error('ENOTSUP', `MAC: expected at most ${maxMacAddresses} addresses`);
      await this.#setMacs([...this.addedMacs, added]);
    });
  }

  /** Throws PortError EINVAL for an address that was not added. */
  removeMac(mac: string): Promise<void> {
    return this.serially(async () => {
      const removed = this.#address(mac, 'unicast');
      if (!this.addedMacs.includes(removed)) throw this.error('EINVAL', `MAC: ${mac} was not added`);
      await this.#setMacs(this.addedMacs.filter((other) => other !== removed));
    });
  }

  /** Addresses that addMac() added. */
  get macs(): readonly string[] {
    return this.addedMacs;
  }

  /** The multicast addresses to receive for, unless all are. Throws PortError. */
  setMulticast(macs: readonly string[]): Promise<void> {
    return this.serially(() => {
      const groups = [...new Set(macs.map((mac) => this.#address(mac, 'multicast')))];
      return this.need('setGroups', 'multicast filter').call(this.impl, groups);
    });
  }

  /** Lets in packets with this VLAN tag, or keeps them out, where RX_OFFLOAD.VLAN_FILTER is configured. Throws PortError. */
  vlanFilter(id: number, on: boolean): Promise<void> {
    return this.serially(async () => {
      this.inRange('VLAN', id, 4096);
      const others = this.vlans.filter((other) => other !== id);
      const vlans = on ? [...others, id] : others;
      await this.need('setVlans', 'VLAN filter').call(this.impl, vlans);
      this.vlans = vlans;
    });
  }

  setLink(up: boolean): Promise<void> {
    return this.serially(() => this.need('setLink', 'setting the link').call(this.impl, up));
  }

  /** Hash types, key and redirection table in force. Throws PortError ENOTSUP. */
  rss(): { readonly types: number; readonly key: Uint8Array; readonly table: readonly number[] } {
    return this.need('rss', 'receive-side scaling').call(this.impl);
  }

  /** Changes the parts that are given, also while traffic flows. Throws PortError; nothing is changed then. */
  setRss(change: { types?: number; key?: Uint8Array; table?: readonly number[] }): Promise<void> {
    return this.serially(() => {
      const set = this.need('setRss', 'receive-side scaling');
      this.expect('RSS', 'configured', 'started');
      const info = this.info();
      const { types = 0, key, table } = change;
      if (info.rssTableEntries === 0)
        throw this.error('ENOTSUP', `receive-side scaling: ${info.reasons?.RSS ?? 'the device has none'}`);
      checkRss(this.where(), info, { types, ...(key && { key }) });
      if (table && table.length !== info.rssTableEntries) {
        const problem = `redirection table: expected ${info.rssTableEntries} entries, got ${table.length}`;
        throw this.error('EINVAL', problem);
      }
      for (const queue of table ?? []) this.inRange('redirection table: rx queue', queue, this.queues.rx.length);
      return set.call(this.impl, change);
    });
  }

  /**
   * How a flow is hashed: `level` for the choice of transmit queues; `receive`: the device hashes received packets of it at that level,
   * too. Fragments are always hashed by addresses. Stays through stop and start and another configuration.
   */
  flowHash(flow: HashFlow): { readonly level: HashLevel; readonly receive: boolean } {
    const level = this.levels[flow] ?? DEFAULT_HASH_LEVELS[flow];
    const types = this.#scaling ? this.rss().types : 0;
    return { level, receive: hashesAt(types, flow, level) };
  }

  /** All of them, for the choice of transmit queues. */
  get hashLevels(): HashLevels {
    return { ...DEFAULT_HASH_LEVELS, ...this.levels };
  }

  /** Throws PortError when the device refuses; the old level stays. A device without such hash types just does not follow. */
  setFlowHash(flow: HashFlow, level: HashLevel): Promise<void> {
    return this.serially(async () => {
      if (this.#scaling) {
        const { types } = this.rss();
        const changed = typesFor(types, this.info().rssTypes, flow, level);
        if (changed !== types) await this.impl.setRss!({ types: changed });
      }
      this.levels = { ...this.levels, [flow]: level };
    });
  }

  /** Tx queue of each transmit hash modulo the table's length (16): the host's choice, else the queues in turn. */
  transmitTable(): readonly number[] {
    const queues = Math.max(1, this.queues.tx.length);
    const table = this.impl.transmitTable?.() ?? Array.from({ length: TRANSMIT_ENTRIES }, (_, entry) => entry);
    return table.map((queue) => queue % queues);
  }

  /** Offloads in force: those of the configuration, without what the device has switched off since. */
  offloads(): PortOffloads {
    const { rxOffloads = 0, txOffloads = 0 } = this.settings ?? {};
    const now = this.impl.offloads?.();
    return now
      ? { rxOffloads: rxOffloads & now.rxOffloads, txOffloads: txOffloads & now.txOffloads }
      : { rxOffloads, txOffloads };
  }

  /** Switches offloads of a configured port, also while it runs; what is left out stays. Throws PortError; nothing is changed then. */
  setOffloads(change: Partial<PortOffloads>): Promise<void> {
    return this.serially(async () => {
      this.expect('offloads', 'configured', 'started');
      const config = { ...this.settings!, ...change };
      checkOffloads(this.where(), this.info(), config.rxOffloads, config.txOffloads);
      const set = this.need('setOffloads', 'change of offloads');
      await set.call(this.impl, config.rxOffloads, config.txOffloads);
      this.settings = config;
    });
  }

  /** Sections of the receive buffer and the send buffer, and how many there may be. Throws PortError ENOTSUP. */
  rings(): RingSizes {
    return this.need('rings', 'buffers in sections').call(this.impl);
  }

  /** Stopped. Sizes are brought into the limits; what is left out stays. Throws PortError; the old ones are in force then. */
  setRings(sizes: { readonly rx?: number; readonly tx?: number }): Promise<void> {
    return this.serially(async () => {
      const set = this.need('setRings', 'buffers in sections');
      if (this.present === 'started') throw this.error('EBUSY', 'rings: the port has to be stopped first');
      this.expect('rings', 'probed', 'configured');
      const { minRx, maxRx, minTx, maxTx } = this.rings();
      const within = (what: string, size: number, min: number, max: number) => {
        if (!Number.isInteger(size))
          throw this.error('EINVAL', `${what} ring: expected a number of sections, got ${size}`);
        return Math.max(min, Math.min(max, size));
      };
      const { rx, tx } = sizes;
      await set.call(this.impl, {
        ...(rx !== undefined && { rx: within('rx', rx, minRx, maxRx) }),
        ...(tx !== undefined && { tx: within('tx', tx, minTx, maxTx) }),
      });
    });
  }

  protected async changeMtu(mtu: number): Promise<void> {
    if (this.present === 'started') throw this.error('EBUSY', 'MTU: the port has to be stopped first');
    this.expect('MTU', 'probed', 'configured');
    const { minMtu, maxMtu, reasons } = this.info();
    if (!(Number.isInteger(mtu) && mtu >= minMtu && mtu <= maxMtu)) {
      const why = mtu > maxMtu && reasons?.MTU ? ` (${reasons.MTU})` : '';
      throw this.error('EINVAL', `MTU: expected ${minMtu} to ${maxMtu}, got ${mtu}${why}`);
    }
    if (mtu !== this.mtu) await this.need('setMtu', 'another MTU').call(this.impl, mtu);
  }

  async #setMacs(macs: readonly string[]): Promise<void> {
    await this.need('setMacs', 'further MAC addresses').call(this.impl, macs);
    this.addedMacs = macs;
  }

  #address(mac: string, kind: 'unicast' | 'multicast'): string {
    const bytes = parseMac(mac);
    const group = bytes !== undefined && (bytes[0]! & 1) !== 0;
    if (bytes === undefined || group !== (kind === 'multicast') || bytes.every((byte) => byte === 0))
      throw this.error('EINVAL', `MAC: expected a ${kind} address, got "${mac}"`);
    return formatMac(bytes);
  }

  #setFilter(filter: ReceiveFilter): Promise<void> {
    return this.serially(async () => {
      const set = this.need('setFilter', 'receive filters');
      if (this.present === 'started') await set.call(this.impl, filter);
      this.receive = filter;
    });
  }

  /** Received packets are spread over several queues by hash. */
  get #scaling(): boolean {
    const { rss, setRss } = this.impl;
    return (
      rss !== undefined &&
      setRss !== undefined &&
      this.settings !== undefined &&
      this.settings.rxQueues > 1 &&
      this.rss().types !== 0
    );
  }

  protected override news(event: 'transmit-table' | 'offloads'): void {
    if (event === 'offloads') this.emit('offloads', this.offloads());
    else this.emit('transmitTable', this.transmitTable());
  }
}
