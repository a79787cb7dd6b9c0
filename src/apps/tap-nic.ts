// A NetVSC device behind a TAP interface: what the kernel's stack sends goes out through the driver, what the driver
// receives goes to the stack. Checksum and segmentation requests pass both ways in the virtio_net_hdr.
import type { Datapath } from '../datapath/datapath.js';
import { VNET_HEADER_BYTES } from '../datapath/datapath.js';
import type { Pollable, Ready } from '../ethdev/loop.js';
import type { Arena } from '../memory/arena.js';
import { MBUF, PACKET_FLAG } from '../memory/layout.js';
import { ERRNO } from '../memory/os/libc.js';
import { TapIo } from '../memory/os/packet-io.js';
import type { NetvscDevice } from '../netvsc/device.js';
import { Segmenter } from '../offload/segmentation.js';
import type { GuestNic } from './guest-nic.js';

const BURST = 32;
const EIO = ERRNO.EIO!;
/** Segments of the largest TSO packet at the smallest usual MSS. */
const SEGMENTS = 128;

/** What the bridge between TAP and driver counts itself. */
export interface TapNicStats {
  tapReads: number;
  tapWrites: number;
  /** Packets that the kernel refused, and those that came while the interface was down. */
  tapWriteErrors: number;
  tapDown: number;
  badVnetHeaders: number;
  /** Received packets that are not what their flags say. */
  badPackets: number;
  noBuffer: number;
  /** TSO packets beyond what the host takes, cut here, and what became of them. */
  softwareSegmented: number;
  softwareSegments: number;
}

export class TapNic implements Pollable {
  readonly device: NetvscDevice;
  readonly stats: TapNicStats = {
    tapReads: 0,
    tapWrites: 0,
    tapWriteErrors: 0,
    tapDown: 0,
    badVnetHeaders: 0,
    badPackets: 0,
    noBuffer: 0,
    softwareSegmented: 0,
    softwareSegments: 0,
  };
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #pool: number;
  readonly #smallPool: number;
  readonly #segmenter: Segmenter;
  readonly #tapFd: number;
  readonly #io: TapIo;
  readonly #u32: Uint32Array;
  // u32 arrays in the arena: buffers waiting for the TAP, packets for the driver, packets from the driver.
  readonly #spare: number;
  readonly #toSend: number;
  readonly #received: number;
  readonly #addresses = new Int32Array(BURST);
  readonly #lengths = new Int32Array(BURST);
  // Where the spare buffers take a packet, header included. Found when they come from the pool, not when a packet waits.
  readonly #spareAddresses = new Int32Array(BURST);
  readonly #spareBytes = new Int32Array(BURST);
  #spareCount = 0;
  #sendCount = 0;

  /** TAP packets are read into buffers of the large pool: there is room for any TSO packet. */
  constructor(arena: Arena, datapath: Datapath, nic: GuestNic, tapFd: number, mtu: number) {
    this.#arena = arena;
    this.#datapath = datapath;
    this.device = nic.device;
    this.#pool = nic.largePool;
    this.#smallPool = nic.smallPool;
    this.#segmenter = new Segmenter(arena, datapath, { segments: SEGMENTS, segmentBytes: mtu + 14 });
    this.#tapFd = tapFd;
    this.#io = new TapIo(arena, tapFd, { batch: BURST });
    this.#u32 = arena.u32;
    this.#spare = arena.reserve('TAP spare buffers', BURST * 4);
    this.#toSend = arena.reserve('TAP packets to send', BURST * SEGMENTS * 4);
    this.#received = arena.reserve('TAP packets received', BURST * 4);
  }

  step(): number {
    const queues = this.device.info?.queues ?? 1;
    let received = 0; // first, for what came already should not wait for a look at the TAP
    for (let queue = 0; queue < queues; queue++) received += this.#toTap(queue);
    return received + this.#fromTap();
  }

  /** Kernel to driver. While the driver has not taken everything the TAP is not read: the kernel's queue holds the rest. */
  #fromTap(): number {
    if (this.device.state !== 'running') return 0;
    if (this.#sendCount === 0) this.#readTap();
    if (this.#sendCount === 0) return 0;
    const taken = this.device.send(this.#toSend, this.#sendCount);
    const left = this.#sendCount - taken;
    if (taken > 0 && left > 0) {
      const from = this.#toSend >>> 2;
      this.#u32.copyWithin(from, from + taken, from + this.#sendCount);
    }
    this.#sendCount = left;
    return taken;
  }

  #readTap(): void {
    const u32 = this.#u32;
    const spare = this.#spare >>> 2;
    if (this.#spareCount < BURST / 2) this.#refill();
    if (this.#spareCount === 0) {
      this.stats.noBuffer++;
      return;
    }
    const got = this.#io.read(this.#spareAddresses, this.#spareBytes, this.#spareCount);
    if (got <= 0) return;
    const out = this.#toSend >>> 2;
    let done = 0; // the list's front is free for buffers that are not passed on
    let bad = 0;
    for (let i = 0; i < got; i++) {
      const mbuf = u32[spare + i]!;
      if (this.#datapath.vnetToMbuf(mbuf, this.#io.lengths[i]!) === 0) {
        bad++;
        u32[spare + done++] = mbuf;
      } else if (this.#tooLarge(mbuf)) {
        this.#segment(mbuf);
        u32[spare + done++] = mbuf;
      } else u32[out + this.#sendCount++] = mbuf;
    }
    this.stats.tapReads += got;
    this.stats.badVnetHeaders += bad;
    if (done > 0) this.#datapath.mbufFree(this.#spare, done);
    u32.copyWithin(spare, spare + got, spare + this.#spareCount);
    this.#spareAddresses.copyWithin(0, got, this.#spareCount);
    this.#spareBytes.copyWithin(0, got, this.#spareCount);
    this.#spareCount -= got;
  }

  #refill(): void {
    const u32 = this.#u32;
    const { data, buffer, room } = MBUF.at;
    const count = this.#spareCount;
    this.#spareCount += this.#datapath.poolGet(this.#pool, this.#spare + count * 4, BURST - count);
    for (let i = count; i < this.#spareCount; i++) {
      const mbuf = u32[(this.#spare >>> 2) + i]!;
      const at = u32[(mbuf + data) >>> 2]! - VNET_HEADER_BYTES;
      this.#spareAddresses[i] = at;
      this.#spareBytes[i] = u32[(mbuf + buffer) >>> 2]! + u32[(mbuf + room) >>> 2]! - at;
    }
  }

  /** A TSO packet that the host does not take: none of its family, or not of this size. */
  #tooLarge(mbuf: number): boolean {
    const flags = this.#u32[(mbuf + MBUF.at.flags) >>> 2]!;
    if ((flags & PACKET_FLAG.TX_TSO) === 0) return false;
    const info = this.device.info!;
    const most = (flags & PACKET_FLAG.IPV6) === 0 ? info.lsoMax4 : info.lsoMax6;
    return (flags & PACKET_FLAG.UDP) !== 0 || this.#u32[(mbuf + MBUF.at.packetLength) >>> 2]! > most;
  }

  /** Cuts it into packets of its own MSS. What finds no buffer is dropped, as on any full interface. */
  #segment(mbuf: number): void {
    const u32 = this.#u32;
    const get = (offset: number) => u32[(mbuf + offset) >>> 2]!;
    const { data, dataLength, l4Offset, mss } = MBUF.at;
    const count = this.#segmenter.cut(get(data), get(dataLength), get(l4Offset), get(mss));
    const out = this.#toSend + this.#sendCount * 4;
    const got = this.#datapath.poolGet(this.#smallPool, out, count);
    this.stats.softwareSegmented++;
    this.stats.softwareSegments += got;
    if (count === 0) this.stats.badPackets++;
    if (got < count) this.stats.noBuffer++;
    for (let i = 0; i < got; i++) {
      const segment = u32[(out >>> 2) + i]!;
      const bytes = this.#segmenter.length(i);
      this.#datapath.copy(u32[(segment + data) >>> 2]!, this.#segmenter.address(i), bytes);
      u32[(segment + dataLength) >>> 2] = bytes;
      u32[(segment + MBUF.at.packetLength) >>> 2] = bytes;
      u32[(segment + MBUF.at.flags) >>> 2] = get(MBUF.at.flags) & PACKET_FLAG.VLAN;
      u32[(segment + MBUF.at.vlanTci) >>> 2] = get(MBUF.at.vlanTci);
    }
    this.#sendCount += got;
  }

  /** Driver to kernel. */
  #toTap(queue: number): number {
    const count = this.device.poll(this.#received, BURST, queue);
    if (count === 0) return 0;
    const u32 = this.#u32;
    const list = this.#received >>> 2;
    let good = 0;
    for (let i = 0; i < count; i++) {
      const mbuf = u32[list + i]!;
      const from = this.#datapath.mbufToVnet(mbuf);
      if (from === 0) continue;
      this.#addresses[good] = from;
      this.#lengths[good++] = u32[(mbuf + MBUF.at.data) >>> 2]! + u32[(mbuf + MBUF.at.dataLength) >>> 2]! - from;
    }
    const before = this.#io.writeErrors;
    this.#io.lastError = 0;
    const written = this.#io.write(this.#addresses, this.#lengths, good);
    const refused = this.#io.writeErrors - before;
    this.stats.tapWrites += written - refused;
    if (this.#io.lastError === EIO) this.stats.tapDown += refused;
    else this.stats.tapWriteErrors += refused;
    this.stats.tapWriteErrors += good - written;
    this.stats.badPackets += count - good;
    this.#datapath.mbufFree(this.#received, count);
    return count;
  }

  tick(nowMs: number): void {
    this.device.tick(nowMs);
  }

  arm(): boolean {
    return this.device.arm() && this.#sendCount === 0;
  }

  disarm(signalled?: boolean, ready?: Ready): void {
    this.device.disarm(signalled, ready);
  }

  fds(): readonly number[] {
    return [this.#tapFd, ...this.device.fds()];
  }

  /** Frees buffers and descriptors; the device is the caller's. */
  close(): void {
    this.#datapath.mbufFree(this.#spare, this.#spareCount);
    this.#datapath.mbufFree(this.#toSend, this.#sendCount);
    this.#spareCount = 0;
    this.#sendCount = 0;
    this.#io.close();
    this.#segmenter.close();
    for (const address of [this.#spare, this.#toSend, this.#received]) this.#arena.release(address);
  }
}
