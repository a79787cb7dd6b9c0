// net_tap: a TAP interface of the kernel as a port, with a queue for each descriptor.
//   iface=NAME   what it is called, made if it is not there (dtap%d: the kernel numbers it)
//   mac=fixed|random|ADDRESS   of the interface and the port; fixed: 02:64:74:61:70:30 and up (random)
//   persist      the interface stays when the port is closed
// Its packets pass with a virtio_net_hdr: checksums and large TCP packets that kernel or program leave to the other.

import { randomBytes } from 'node:crypto';
import { closeSync } from 'node:fs';
import { VNET_HEADER_BYTES } from '../../datapath/datapath.js';
import { RX_OFFLOAD } from '../../ethdev/constants.js';
import type { Devargs } from '../../ethdev/devargs.js';
import type { Driver, DriverContext, KernelInterface, PortDriver, RxQueueSetup } from '../../ethdev/driver.js';
import { PortError } from '../../ethdev/errors.js';
import type { FullConfig } from '../../ethdev/limits.js';
import type { BasicStats, PortInfo } from '../../ethdev/types.js';
import { OsError } from '../../memory/os/libc.js';
import { isInterfaceName } from '../../memory/os/netlink.js';
import {
  drainTap,
  loadFirstQueueProgram,
  openTap,
  openTapNetwork,
  setTapCarrier,
  setTapOffload,
  setTapPersistent,
  setTapSteering,
  TAP_OFFLOAD,
  type Tap,
  tapHolds,
  tapName,
} from '../../memory/os/tap.js';
import { parseMac } from '../../wire/address-text.js';
import { InterfacePort, LARGE_BYTES, portError, releaseAll, VNET_OFFLOADS, vnetOptions } from '../interface-port.js';
import { QUEUES_MAX, usualInfo } from '../virtual-port.js';
import { reserveVnetTx, type VnetTxDescription } from '../vnet-tx.js';
import { LANDING_AREA_BYTES, openTapTx, TapRx, type TapRxDescription } from './bursts.js';

const USUAL_NAME = 'dtap%d';
const RIGHT = 'CAP_NET_ADMIN and access to /dev/net/tun';
/** For mac=fixed. */
let fixedCount = 0;

class TapPort extends InterfacePort implements PortDriver {
  /** By queue. The first one holds the interface from probe to close. */
  readonly #fds: number[] = [];
  /** Queues that the kernel may use, if fewer than were configured. */
  #limit = QUEUES_MAX;
  /** What a start begins with. */
  #carrier = true;
  /** Program that gathers, -1 = none. */
  #gathering = -1;
  readonly #multiQueue: boolean;
  readonly #persistent: boolean;
  /** Of the rx queues, 0 = none. */
  #landings: number[] = [];
  /** Packets that the interface had dropped at the last reset. */
  #droppedBefore = 0;
  readonly kernel: KernelInterface;

  constructor(context: DriverContext, device: string, args: Devargs) {
    const iface = interfaceName(device, args);
    const mac = macAddress(device, args);
    const persistent = args.flag('persist');
    args.done(['iface', 'mac', 'persist']);
    super(context, device, args);
    this.#persistent = persistent;
    try {
      const { tap, multiQueue } = this.#open(iface);
      this.#fds.push(tap.fd);
      this.#multiQueue = multiQueue;
      this.attach(tap.name);
      if (this.interface.tapQueues > 1)
        throw new PortError('EBUSY', device, `interface ${tap.name}: somebody else has it open`);
      setCarrier(tap.fd, false);
      if (persistent) setTapPersistent(tap.fd, true);
      this.changeMac(mac);
    } catch (error) {
      for (const fd of this.#fds) closeSync(fd);
      void super.close();
      throw portError(device, `interface ${iface}`, error, RIGHT);
    }
    this.#droppedBefore = this.interface.txDropped;
    this.kernel = this.#kernel();
    if (iface !== this.interface.name) context.log(`${device}: interface ${this.interface.name}`);
  }

  info(): PortInfo {
    const { rx, tx } = VNET_OFFLOADS;
    const queues = this.#multiQueue ? {} : { maxRxQueues: 1 };
    return usualInfo('net_tap', this.device, {
      ...{ minMtu: this.interface.minMtu, maxMtu: this.interface.maxMtu || 65_521, maxRxPacketBytes: LARGE_BYTES },
      ...{ rxOffloads: rx, txOffloads: tx, maxTxSegments: 255, rxInterrupts: true, linkEvents: true },
      ...queues,
    });
  }

  override async configure(config: FullConfig): Promise<void> {
    const { rxQueues, txQueues, rxOffloads } = config;
    const { arena } = this.context;
    const wanted = Math.max(1, Math.min(this.#limit, rxQueues));
    const scattered = (rxOffloads & (RX_OFFLOAD.SCATTER | RX_OFFLOAD.TCP_LRO)) !== 0;
    const more: number[] = [];
    const landings: number[] = [];
    const txCells: number[] = [];
    try {
      while (this.#fds.length + more.length < wanted) more.push(this.#openMore());
      for (let queue = 0; queue < rxQueues; queue++)
        landings.push(scattered ? arena.reserve(`${this.device} ${queue} rx`, LANDING_AREA_BYTES) : 0);
      for (let queue = 0; queue < txQueues; queue++)
        txCells.push(reserveVnetTx(this.context, `${this.device} ${queue}`, VNET_HEADER_BYTES, this.mtu, true));
    } catch (error) {
      for (const fd of more) closeSync(fd);
      releaseAll(arena, [...landings, ...txCells]);
      throw portError(this.device, `${rxQueues} rx and ${txQueues} tx queues`, error, RIGHT);
    }
    this.#fds.push(...more);
    for (const fd of this.#fds.splice(wanted)) closeSync(fd);
    this.#release();
    this.#landings = landings;
    this.txCells = txCells;
    await super.configure(config);
  }

  override setupRx(queue: number, setup: RxQueueSetup): void {
    const { pool } = setup;
    if (this.#landings[queue] === 0 && pool.headroom < VNET_HEADER_BYTES) {
      const problem = `pool ${pool.name}: expected ${VNET_HEADER_BYTES} bytes of headroom, or the offload SCATTER; got ${pool.headroom}`;
      throw new PortError('EINVAL', this.device, problem);
    }
    super.setupRx(queue, setup);
  }

  override async start(): Promise<void> {
    const { rxQueues, rxOffloads } = this.config!;
    this.checkBuffers(rxQueues, 1); // a packet that fills the room counts as cut off
    try {
      for (const fd of this.#fds) drainTap(fd);
      setTapOffload(this.#fds[0]!, kernelOffloads(rxOffloads));
      setCarrier(this.#fds[0]!, this.#carrier);
    } catch (error) {
      throw portError(this.device, 'start', error, RIGHT);
    }
    await this.setLink(true);
  }

  /** The kernel sees that nobody is at the other end. */
  override async stop(): Promise<void> {
    setCarrier(this.#fds[0]!, false);
  }

  override async close(): Promise<void> {
    if (!this.#persistent) setCarrier(this.#fds[0]!, false);
    for (const fd of this.#fds.splice(0)) closeSync(fd);
    if (this.#gathering >= 0) closeSync(this.#gathering);
    this.#release();
    await super.close();
  }

  rxQueue(queue: number): TapRxDescription {
    const { pool } = this.rxSetup(queue);
    const room = pool.room - pool.headroom;
    const options = vnetOptions(this.config!.rxOffloads);
    const direct = room > LARGE_BYTES && pool.headroom >= VNET_HEADER_BYTES;
    return {
      ...{ fd: this.#fds[queue] ?? -1, counters: this.rxCounters(queue), pool: pool.address, options },
      landing: direct ? 0 : this.#landings[queue]!,
    };
  }

  txQueue(queue: number): VnetTxDescription {
    this.txSetup(queue);
    const fd = this.#fds[queue % this.#fds.length]!;
    return { fd, cells: this.txCells[queue]!, counters: this.txCounters(queue) };
  }

  override stats(): BasicStats {
    return { ...super.stats(), imissed: this.droppedByInterface() - this.#droppedBefore };
  }

  override resetStats(): void {
    super.resetStats();
    this.#droppedBefore = this.droppedByInterface();
  }

  /** Moved by somebody to another namespace, where it goes on, or removed. */
  protected override left(): void {
    const name = tapName(this.#fds[0]!);
    if (name === undefined) {
      super.left();
      return;
    }
    try {
      this.follow(openTapNetwork(this.#fds[0]!), name);
    } catch (error) {
      this.context.log(`${this.device}: interface ${name} was moved: ${(error as Error).message}`);
    }
  }

  #open(name: string): { tap: Tap; multiQueue: boolean } {
    const refused = (error: unknown) => error instanceof OsError && error.code === 'EINVAL';
    try {
      return { tap: openTap(name, { multiQueue: true }), multiQueue: true };
    } catch (error) {
      if (!refused(error)) throw error;
    }
    try {
      return { tap: openTap(name), multiQueue: false }; // one that is there already, made for a single queue
    } catch (error) {
      if (!refused(error)) throw error;
      throw new PortError(
        'EEXIST',
        this.device,
        `interface ${name}: expected a free name, there is one that is no TAP`,
      );
    }
  }

  #kernel(): KernelInterface {
    const port = this;
    const attempt = <T>(what: string, work: () => T): T => {
      try {
        return work();
      } catch (error) {
        throw portError(this.device, what, error, RIGHT);
      }
    };
    return {
      get state() {
        return port.interface;
      },
      get onChange() {
        return port.onInterface;
      },
      set onChange(call) {
        port.onInterface = call;
      },
      get network() {
        return port.network;
      },
      get newsFd() {
        return port.newsFd;
      },
      look: () => this.lookNow(),
      setQueues: (count) => attempt(`${count} queues`, () => this.#setQueues(count)),
      gather: (on) => this.#gather(on),
      holds: (first) => this.#fds.slice(first).some(tapHolds),
      setCarrier: (up) => {
        this.#carrier = up;
        setCarrier(this.#fds[0]!, up);
      },
      setOffloads: (bits) => attempt('offloads', () => setTapOffload(this.#fds[0]!, bits)),
      setGsoLimit: (bytes, segments) => this.change('GSO limit', (found) => found.setGsoLimit(bytes, segments)),
      setSpeed: (mbps) => this.change('speed', (found) => found.setSpeed(mbps)),
      setMtu: (mtu) => this.change('MTU', (found) => found.setMtu(mtu)),
      setMac: (mac) => this.changeMac(parseMac(mac)!),
    };
  }

  #openMore(): number {
    const { name } = this.interface;
    return this.inNetwork(() => openTap(name, { multiQueue: true })).fd;
  }

  #setQueues(count: number): void {
    this.#limit = Math.max(1, count);
    if (this.config === undefined) return;
    const wanted = Math.min(this.#limit, Math.max(1, this.config.rxQueues));
    while (this.#fds.length < wanted) this.#fds.push(this.#openMore());
    for (const fd of this.#fds.splice(wanted)) closeSync(fd);
  }

  #gather(on: boolean): boolean {
    try {
      if (on && this.#gathering < 0) this.#gathering = loadFirstQueueProgram();
      setTapSteering(this.#fds[0]!, on ? this.#gathering : -1);
      return true;
    } catch (error) {
      if (error instanceof OsError) return false; // no bpf(2), or not allowed
      throw error;
    }
  }

  #release(): void {
    releaseAll(this.context.arena, [...this.#landings, ...this.txCells]);
    this.#landings = [];
    this.txCells = [];
  }
}

function interfaceName(device: string, args: Devargs): string {
  const name = args.string('iface') ?? USUAL_NAME;
  if (isInterfaceName(name)) return name;
  throw new PortError('EINVAL', device, `iface=${name}: expected 1 to 15 bytes without / : or blanks`);
}

function macAddress(device: string, args: Devargs): Uint8Array {
  const text = args.string('mac') ?? 'random';
  if (text === 'random') return randomMac();
  if (text === 'fixed') {
    const number = fixedCount++; // "dtap0"
    return Uint8Array.of(0x02, 0x64, 0x74, 0x61, (0x70 + (number >>> 8)) & 0xff, (0x30 + number) & 0xff);
  }
  const mac = parseMac(text);
  if (mac && (mac[0]! & 1) === 0 && mac.some((byte) => byte !== 0)) return mac;
  throw new PortError('EINVAL', device, `mac=${text}: expected fixed, random, or a unicast address`);
}

function randomMac(): Uint8Array {
  const mac = new Uint8Array(randomBytes(6));
  mac[0] = (mac[0]! & 0xfc) | 2;
  return mac;
}

/** What the kernel may leave to us, as the program asked. Without TCP_LRO it cuts large packets, without checksums it sums. */
function kernelOffloads(offloads: number): number {
  const { CSUM, TSO4, TSO6, TSO_ECN } = TAP_OFFLOAD;
  if ((offloads & RX_OFFLOAD.TCP_LRO) !== 0) return CSUM | TSO4 | TSO6 | TSO_ECN;
  return (offloads & (RX_OFFLOAD.TCP_CKSUM | RX_OFFLOAD.UDP_CKSUM)) !== 0 ? CSUM : 0;
}

/** Kernels before 5.0 know no carrier of TAPs, and a removed one has none. */
function setCarrier(fd: number, up: boolean): void {
  try {
    setTapCarrier(fd, up);
  } catch (error) {
    if (!(error instanceof OsError)) throw error;
  }
}

export const tapDriver: Driver = {
  name: 'net_tap',
  pairedQueues: false,
  probe: async (context, device, args) => new TapPort(context, device, args),
  openRx: (lcore, description) => new TapRx(lcore, description as TapRxDescription),
  openTx: (lcore, description) => openTapTx(lcore, description as VnetTxDescription),
};
