// What the ports on interfaces of the kernel have in common: settings act on the interface, its changes become events.
import { closeSync } from 'node:fs';
import { RX_OFFLOAD, TX_OFFLOAD } from '../ethdev/constants.js';
import type { Devargs } from '../ethdev/devargs.js';
import type { DriverContext } from '../ethdev/driver.js';
import { PortError, type PortErrorCode } from '../ethdev/errors.js';
import type { LinkStatus } from '../ethdev/types.js';
import { type Arena, ArenaError } from '../memory/arena.js';
import { VNET_RX } from '../memory/layout-sockets.js';
import { OsError } from '../memory/os/libc.js';
import { type InterfaceState, NetworkInterface } from '../memory/os/netlink.js';
import { inOpenNetwork, openNetwork } from '../memory/os/netns.js';
import { formatMac, parseMac } from '../wire/address-text.js';
import { VirtualPort } from './virtual-port.js';
import { setVnetMtu } from './vnet-tx.js';

const ETHERNET = 1; // ARPHRD_ETHER
/** Ethernet header and a tag. */
const FRAME_BYTES = 18;
/** The longest packet that the kernel hands over: 64 KiB of IP packet. */
export const LARGE_BYTES = 65_535 + FRAME_BYTES;

/** Offloads of interfaces that give and take a virtio_net_hdr with each packet. */
export const VNET_OFFLOADS = {
  rx:
    RX_OFFLOAD.VLAN_STRIP |
    RX_OFFLOAD.IPV4_CKSUM |
    RX_OFFLOAD.UDP_CKSUM |
    RX_OFFLOAD.TCP_CKSUM |
    RX_OFFLOAD.TCP_LRO |
    RX_OFFLOAD.SCATTER,
  tx:
    TX_OFFLOAD.VLAN_INSERT |
    TX_OFFLOAD.IPV4_CKSUM |
    TX_OFFLOAD.UDP_CKSUM |
    TX_OFFLOAD.TCP_CKSUM |
    TX_OFFLOAD.TCP_TSO |
    TX_OFFLOAD.MULTI_SEGS,
} as const;

/** VNET_RX bits for RX_OFFLOAD bits. */
export function vnetOptions(offloads: number): number {
  const { VLAN_STRIP, IPV4_CKSUM, TCP_CKSUM, UDP_CKSUM, TCP_LRO, SCATTER, TIMESTAMP } = RX_OFFLOAD;
  const bits: [asked: boolean, option: number][] = [
    [(offloads & VLAN_STRIP) === 0, VNET_RX.KEEP_TAG],
    [(offloads & IPV4_CKSUM) !== 0, VNET_RX.IP_CHECKSUM],
    [(offloads & TCP_CKSUM) !== 0, VNET_RX.TCP_CHECKSUM],
    [(offloads & UDP_CKSUM) !== 0, VNET_RX.UDP_CHECKSUM],
    [(offloads & TCP_LRO) !== 0, VNET_RX.COALESCED],
    [(offloads & SCATTER) !== 0, VNET_RX.SCATTER],
    [(offloads & TIMESTAMP) !== 0, VNET_RX.TIMESTAMP],
  ];
  return bits.reduce((options, [asked, option]) => (asked ? options | option : options), 0);
}

/** Gives regions back; 0 = none. */
export function releaseAll(arena: Arena, addresses: readonly number[]): void {
  for (const address of addresses) if (address !== 0) arena.release(address);
}

/** A system call's failure as the user should read it. `right`: what EPERM means. */
export function portError(device: string, what: string, error: unknown, right: string): PortError {
  if (error instanceof PortError) return error;
  const { code, message } = error as NodeJS.ErrnoException; // OsErrors have a code, too
  const made = (as: PortErrorCode, problem: string) =>
    new PortError(as, device, `${what}: ${problem}`, { cause: error });
  if (error instanceof ArenaError) return made('ENOMEM', message);
  if (error instanceof OsError && code === 'ENODEV') return made('ENODEV', 'there is none');
  if (code === 'EPERM' || code === 'EACCES')
    return made('EPERM', `not allowed, it needs ${right} (root, or a user namespace)`);
  const same: readonly PortErrorCode[] = ['EINVAL', 'EBUSY', 'ENOMEM', 'EEXIST'];
  return made(same.find((name) => name === code) ?? (code === 'EOPNOTSUPP' ? 'ENOTSUP' : 'EIO'), message);
}

export abstract class InterfacePort extends VirtualPort {
  #interface: NetworkInterface | undefined;
  #state: InterfaceState | undefined;
  /** Descriptor of the namespace in which the interface is. */
  #network: number;
  #removed = false;
  #speedMbps = 0;
  #fullDuplex = true;
  #autonegotiated = false;
  /** VNET_TX cells, which follow the MTU. */
  protected txCells: number[] = [];
  /** Called after every look at an interface that has changed. */
  protected onInterface: ((state: InterfaceState) => void) | undefined;

  constructor(context: DriverContext, device: string, args: Devargs) {
    super(context, device, args);
    this.#network = openNetwork('this thread');
  }

  /** Takes an interface of the port's namespace. Throws PortError. */
  protected attach(name: string): void {
    const found = this.#try(`interface ${name}`, () => this.inNetwork(() => new NetworkInterface(name)));
    try {
      const state = this.#try(`interface ${name}`, () => found.state());
      if (state.type !== ETHERNET)
        throw new PortError('EINVAL', this.device, `interface ${name}: expected Ethernet, it is of type ${state.type}`);
      this.#interface?.close();
      this.#interface = found;
      this.#see(state);
    } catch (error) {
      found.close();
      throw error;
    }
  }

  /** From now on the interface is in that namespace; the descriptor is the port's. */
  protected follow(network: number, name: string): void {
    closeSync(this.#network);
    this.#network = network;
    this.attach(name);
  }

  /** Descriptor of the interface's namespace. */
  protected get network(): number {
    return this.#network;
  }

  /** Calls `work` in the interface's namespace. */
  protected inNetwork<T>(work: () => T): T {
    return inOpenNetwork(this.#network, work);
  }

  protected get interface(): InterfaceState {
    return this.#state!;
  }

  /** A change of the interface, at any time; what it is then has been seen when this returns. Throws PortError. */
  protected change(what: string, change: (found: NetworkInterface) => void): void {
    this.#change(what, change);
  }

  override async setMtu(mtu: number): Promise<void> {
    this.#change('MTU', (found) => found.setMtu(mtu));
  }

  override async setMac(mac: string): Promise<void> {
    this.changeMac(parseMac(mac)!);
  }

  override async setLink(up: boolean): Promise<void> {
    this.#change('link', (found) => found.setUp(up));
  }

  override link(): LinkStatus {
    this.#look(); // the control thread may be busy
    return this.#link();
  }

  #link(): LinkStatus {
    return {
      up: !this.#removed && this.#state!.running,
      speedMbps: this.#speedMbps,
      fullDuplex: this.#fullDuplex,
      autonegotiated: this.#autonegotiated,
    };
  }

  override async close(): Promise<void> {
    this.#interface?.close();
    this.#interface = undefined;
    closeSync(this.#network);
    await super.close();
  }

  tick(_nowMs: number): void {
    this.#look();
  }

  /** Sees the interface as it is at this moment. */
  protected lookNow(): void {
    this.#look();
    if (!this.#removed) this.#refresh();
  }

  /** Readable when there are news of the interface; another one when it goes to another namespace. */
  protected get newsFd(): number {
    return this.#interface?.newsFd ?? -1;
  }

  #look(): void {
    const news = this.#removed ? undefined : this.#interface?.news();
    if (news === 'removed') this.left();
    else if (news === 'changed') this.#refresh();
  }

  /** The interface is not in its namespace any more. */
  protected left(): void {
    this.gone(`interface ${this.#state!.name} was removed`);
  }

  protected gone(reason: string): void {
    if (this.#removed) return;
    const wasUp = this.#link().up;
    this.#removed = true;
    if (wasUp) this.onEvent?.({ type: 'link', link: this.#link() });
    this.onEvent?.({ type: 'removed', reason });
  }

  /** Packets that the interface could not hand over, since it exists. */
  protected droppedByInterface(): number {
    try {
      return this.#removed ? this.#state!.txDropped : this.#interface!.state().txDropped;
    } catch {
      return this.#state!.txDropped; // it was removed just now
    }
  }

  /** Buffers have to hold what may come, and `more` bytes. */
  protected checkBuffers(queues: number, more = 0): void {
    const { rxOffloads } = this.config!;
    if ((rxOffloads & RX_OFFLOAD.SCATTER) !== 0) return;
    const large = (rxOffloads & RX_OFFLOAD.TCP_LRO) !== 0;
    const needed = (large ? LARGE_BYTES : this.mtu + FRAME_BYTES) + more;
    for (let queue = 0; queue < queues; queue++) {
      const { pool } = this.rxSetup(queue);
      const room = pool.room - pool.headroom;
      if (room >= needed) continue;
      const why = large ? 'TCP_LRO' : `MTU ${this.mtu}`;
      const problem = `pool ${pool.name}: ${why} needs ${needed} bytes behind the headroom, or the offload SCATTER; got ${room}`;
      throw new PortError('EINVAL', this.device, problem);
    }
  }

  protected changeMac(mac: Uint8Array): void {
    this.#change('MAC address', (found) => found.setMac(mac));
  }

  #change(what: string, change: (found: NetworkInterface) => void): void {
    this.#try(what, () => change(this.#interface!));
    this.#refresh();
  }

  #refresh(): void {
    let state: InterfaceState;
    try {
      state = this.#interface!.state();
    } catch {
      return; // removed, of which there is news
    }
    this.#see(state);
  }

  #see(state: InterfaceState): void {
    const before = this.#state;
    this.#state = state;
    this.mac = formatMac(state.mac);
    if (state.mtu !== this.mtu || before === undefined) {
      this.mtu = state.mtu;
      for (const cells of this.txCells) setVnetMtu(this.context.arena, cells, state.mtu);
    }
    const { mbps, fullDuplex, autonegotiated } = this.#interface!.speed();
    this.#speedMbps = mbps;
    this.#fullDuplex = fullDuplex;
    this.#autonegotiated = autonegotiated;
    if (before !== undefined && before.running !== state.running) this.onEvent?.({ type: 'link', link: this.#link() });
    if (before !== undefined) this.onInterface?.(state);
  }

  #try<T>(what: string, work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw portError(this.device, what, error, 'CAP_NET_ADMIN');
    }
  }
}
