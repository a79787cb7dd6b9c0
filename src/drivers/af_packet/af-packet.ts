// net_af_packet: an interface of the kernel as a port, by packet sockets. The kernel's own stack goes on seeing what arrives.
//   iface=NAME        the interface (must be given)
//   qpairs=N          queues each way that may be configured (1)
//   blocksz=BYTES     of a block of the receive ring: whole pages (131072, so that large packets fit)
//   framesz=BYTES     nominal size of a packet in it, a multiple of 16 (2048)
//   framecnt=N        frames in a ring (2048)
//   qdisc_bypass=0|1  send past the queueing discipline (1)
//   fanout_mode=hash|lb|cpu|rollover|rnd|qm  how packets are shared among queues (hash: a flow keeps its queue)
// What arrives waits for its block to be full, at most about a millisecond: TPACKET_V3 trades latency for rate.

import { closeSync } from 'node:fs';
import { RX_OFFLOAD } from '../../ethdev/constants.js';
import type { Devargs } from '../../ethdev/devargs.js';
import type { Driver, DriverContext, PortDriver } from '../../ethdev/driver.js';
import { PortError } from '../../ethdev/errors.js';
import type { FullConfig } from '../../ethdev/limits.js';
import type { BasicStats, PortInfo, ReceiveFilter } from '../../ethdev/types.js';
import { PACKET_RING, VNET_RX } from '../../memory/layout-sockets.js';
import { pageBytes } from '../../memory/os/mman.js';
import { isInterfaceName } from '../../memory/os/netlink.js';
import {
  bindPacketSocket,
  FANOUT,
  type FanoutMode,
  MEMBERSHIP,
  openPacketSocket,
  PACKET_HEADER_BYTES,
  PACKET_PROTOCOL,
  type PacketRingSizes,
  setDeaf,
  setMembership,
} from '../../memory/os/packet-socket.js';
import { parseMac } from '../../wire/address-text.js';
import { InterfacePort, LARGE_BYTES, portError, VNET_OFFLOADS, vnetOptions } from '../interface-port.js';
import { usualInfo } from '../virtual-port.js';
import { reserveVnetTx, type VnetTxDescription } from '../vnet-tx.js';
import { openPacketTx, PacketRx, type PacketRxDescription } from './bursts.js';
import { openRings, openSender, type RingSocket } from './sockets.js';

const QUEUES_MAX = 64;
const BLOCK_BYTES = 131_072;
const BLOCK_MAX = 16 << 20;
const RING_MAX = 256 << 20;
const FRAME_BYTES = 2048;
const FRAMES = 2048;
const TIMEOUT_MS = 1;
/** After stop the kernel hands over what it has within its time-out; kernels before 6.18 count that in jiffies. */
const FLUSH_TRIES = 100;
const RIGHT = 'CAP_NET_RAW';
const KNOWN = ['iface', 'qpairs', 'blocksz', 'framesz', 'framecnt', 'qdisc_bypass', 'fanout_mode'];

interface Arguments {
  readonly iface: string;
  readonly qpairs: number;
  readonly ring: PacketRingSizes;
  readonly bypass: boolean;
  readonly fanout: FanoutMode;
}

class AfPacketPort extends InterfacePort implements PortDriver {
  readonly #args: Arguments;
  /** Holds the memberships. */
  readonly #control: number;
  #promiscuous = false;
  #allMulticast = false;
  #groups: readonly string[] = [];
  #rings: RingSocket[] = [];
  #senders: number[] = [];
  /** Of sockets that are closed, and at the last reset. */
  #missedBefore = 0;

  constructor(context: DriverContext, device: string, args: Devargs) {
    const read = readArguments(device, args);
    super(context, device, args);
    this.#args = read;
    try {
      this.attach(read.iface);
      this.#control = this.inNetwork(openPacketSocket);
      bindPacketSocket(this.#control, this.interface.index, PACKET_PROTOCOL.NONE);
    } catch (error) {
      void super.close();
      throw portError(device, `interface ${read.iface}`, error, RIGHT);
    }
  }

  info(): PortInfo {
    const { qpairs } = this.#args;
    const { minMtu, maxMtu } = this.interface;
    const { rx, tx } = VNET_OFFLOADS;
    return usualInfo('net_af_packet', this.device, {
      ...{ maxRxQueues: qpairs, maxTxQueues: qpairs, minMtu, maxMtu: maxMtu || 65_535, maxRxPacketBytes: LARGE_BYTES },
      ...{ rxOffloads: rx | RX_OFFLOAD.TIMESTAMP, txOffloads: tx, maxTxSegments: 255 },
      ...{
        speedsMbps: [this.link().speedMbps].filter((mbps) => mbps > 0),
        rxInterrupts: true,
        linkEvents: true,
        softwareFilters: ['mac'],
      },
    });
  }

  override async configure(config: FullConfig): Promise<void> {
    const { arena } = this.context;
    const { ring, bypass, fanout } = this.#args;
    const options = { name: this.device, index: this.interface.index, ring, bypass, fanout };
    let rings: RingSocket[] = [];
    const senders: number[] = [];
    try {
      this.inNetwork(() => {
        rings = openRings(arena, config.rxQueues, options);
        for (let queue = 0; queue < config.txQueues; queue++) senders.push(openSender(options));
      });
    } catch (error) {
      for (const socket of rings) socket.close();
      for (const fd of senders) closeSync(fd);
      throw portError(this.device, 'queues', error, RIGHT);
    }
    this.#release();
    await super.configure(config);
    this.#rings = rings;
    this.#senders = senders;
    this.txCells = senders.map((_, queue) =>
      reserveVnetTx(this.context, `${this.device} ${queue}`, PACKET_HEADER_BYTES, this.mtu),
    );
  }

  override async start(): Promise<void> {
    this.checkBuffers(this.#rings.length);
    this.#rings.forEach((socket, queue) => {
      socket.setUp(this.rxSetup(queue).pool.address, this.#options());
      setDeaf(socket.fd, false);
    });
  }

  /** What came before is not received after the next start. */
  override async stop(): Promise<void> {
    for (const { fd } of this.#rings) setDeaf(fd, true);
    for (let tries = 0; tries < FLUSH_TRIES; tries++) {
      if (this.#rings.filter((socket) => !socket.flush()).length === 0) return;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  override async close(): Promise<void> {
    this.#release();
    closeSync(this.#control); // and with it the memberships
    await super.close();
  }

  override async setFilter(filter: ReceiveFilter): Promise<void> {
    const { index } = this.interface;
    const { promiscuous, allMulticast } = filter;
    try {
      if (promiscuous !== this.#promiscuous) setMembership(this.#control, index, MEMBERSHIP.PROMISCUOUS, promiscuous);
      this.#promiscuous = promiscuous;
      if (allMulticast !== this.#allMulticast)
        setMembership(this.#control, index, MEMBERSHIP.ALL_MULTICAST, allMulticast);
      this.#allMulticast = allMulticast;
    } catch (error) {
      throw portError(this.device, 'receive filter', error, RIGHT);
    }
    await super.setFilter(filter);
    for (const { cells } of this.#rings)
      Atomics.store(this.context.arena.u32, (cells + PACKET_RING.at.options) >>> 2, this.#options());
  }

  async setGroups(macs: readonly string[]): Promise<void> {
    const { index } = this.interface;
    const set = (mac: string, on: boolean) =>
      setMembership(this.#control, index, MEMBERSHIP.MULTICAST, on, parseMac(mac)!);
    const added: string[] = [];
    try {
      for (const mac of macs.filter((one) => !this.#groups.includes(one))) {
        set(mac, true);
        added.push(mac);
      }
    } catch (error) {
      for (const mac of added) set(mac, false);
      throw portError(this.device, 'multicast address', error, RIGHT);
    }
    for (const mac of this.#groups) if (!macs.includes(mac)) set(mac, false);
    this.#groups = macs;
  }

  rxQueue(queue: number): PacketRxDescription {
    this.rxSetup(queue);
    const { fd, cells } = this.#rings[queue]!;
    return { fd, ring: cells, counters: this.rxCounters(queue) };
  }

  txQueue(queue: number): VnetTxDescription {
    this.txSetup(queue);
    return { fd: this.#senders[queue]!, cells: this.txCells[queue]!, counters: this.txCounters(queue) };
  }

  override stats(): BasicStats {
    return { ...super.stats(), imissed: this.#missed() - this.#missedBefore };
  }

  override xstats(): [name: string, value: number][] {
    return this.#rings.map((socket, queue) => [`rx_q${queue}_ring_full`, socket.missed().full]);
  }

  override resetStats(): void {
    super.resetStats();
    this.#missedBefore = this.#missed();
  }

  #missed(): number {
    return this.#rings.reduce((sum, socket) => sum + socket.missed().dropped, 0);
  }

  /** Many interfaces deliver what is addressed to others although nobody asked for it. */
  #options(): number {
    return vnetOptions(this.config!.rxOffloads) | (this.#promiscuous ? 0 : VNET_RX.OWN_ONLY);
  }

  #release(): void {
    this.#missedBefore -= this.#missed(); // those of the sockets that go now still count
    for (const socket of this.#rings) socket.close();
    for (const fd of this.#senders) closeSync(fd);
    for (const address of this.txCells) this.context.arena.release(address);
    this.#rings = [];
    this.#senders = [];
    this.txCells = [];
  }
}

function readArguments(device: string, args: Devargs): Arguments {
  const fault = (problem: string) => new PortError('EINVAL', device, problem);
  const iface = args.string('iface');
  if (iface === undefined) throw fault('iface: expected the name of an interface');
  if (!isInterfaceName(iface)) throw fault(`iface=${iface}: expected 1 to 15 bytes without / : or blanks`);
  const qpairs = args.number('qpairs', 1, 1, QUEUES_MAX);
  const blockBytes = args.number('blocksz', BLOCK_BYTES, pageBytes, BLOCK_MAX);
  const frameBytes = args.number('framesz', FRAME_BYTES, 128, BLOCK_MAX);
  const frames = args.number('framecnt', FRAMES, 1);
  const bypass = args.flag('qdisc_bypass', true);
  const fanout = args.string('fanout_mode') ?? 'hash';
  args.done(KNOWN);
  if (blockBytes % pageBytes !== 0) throw fault(`blocksz=${blockBytes}: expected whole pages of ${pageBytes} bytes`);
  if (frameBytes % 16 !== 0 || frameBytes > blockBytes)
    throw fault(`framesz=${frameBytes}: expected a multiple of 16 up to blocksz (${blockBytes})`);
  const framesInBlock = Math.floor(blockBytes / frameBytes);
  const blockCount = Math.floor(frames / framesInBlock);
  if (blockCount < 1) throw fault(`framecnt=${frames}: expected at least ${framesInBlock}, the frames of one block`);
  if (blockCount * blockBytes > RING_MAX)
    throw fault(`framecnt=${frames}: expected a ring of at most ${RING_MAX} bytes, got ${blockCount * blockBytes}`);
  if (!Object.hasOwn(FANOUT, fanout)) throw fault(`fanout_mode=${fanout}: expected ${Object.keys(FANOUT).join(', ')}`);
  const ring = { blockBytes, blockCount, frameBytes, timeoutMs: TIMEOUT_MS };
  return { iface, qpairs, ring, bypass, fanout: fanout as FanoutMode };
}

export const afPacketDriver: Driver = {
  name: 'net_af_packet',
  pairedQueues: false,
  probe: async (context, device, args) => new AfPacketPort(context, device, args),
  openRx: (lcore, description) => new PacketRx(lcore, description as PacketRxDescription),
  openTx: (lcore, description) => openPacketTx(lcore, description as VnetTxDescription),
};
