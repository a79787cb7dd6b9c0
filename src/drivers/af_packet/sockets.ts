// The sockets and rings of one configuration of net_af_packet.
import { closeSync } from 'node:fs';
import type { Arena } from '../../memory/arena.js';
import { PACKET_RING } from '../../memory/layout-sockets.js';
import {
  bindPacketSocket,
  bypassQdisc,
  type FanoutMode,
  ignoreOutgoing,
  joinFanout,
  openPacketSocket,
  PACKET_PROTOCOL,
  type PacketRingSizes,
  packetStatistics,
  setDeaf,
  setReceiveRing,
  setSendBuffer,
  useVnetHeader,
} from '../../memory/os/packet-socket.js';

/** Memory for the segments of one large packet. */
const SEGMENTS_BYTES = 512 << 10;
const SEND_BUFFER_BYTES = 4 << 20;
// struct tpacket_block_desc.
const BLOCK_STATUS = 8;
const BLOCK_PACKETS = 12;
const STATUS_USER = 1;
const { ring: ringCell, blockBytes, blockCount, pool, options, segments, segmentsBytes } = PACKET_RING.at;
const { block: blockCell, left, segmentsLeft } = PACKET_RING.at;

export interface PacketSocketOptions {
  readonly name: string;
  /** Number of the interface. */
  readonly index: number;
  readonly ring: PacketRingSizes;
  readonly fanout: FanoutMode;
  readonly bypass: boolean;
}

/** A socket that receives through a ring in the arena. It is deaf at first. */
export class RingSocket {
  readonly fd: number;
  /** Address of the PACKET_RING. */
  readonly cells: number;
  readonly #arena: Arena;
  readonly #ring: number;
  readonly #sizes: PacketRingSizes;
  #dropped = 0;
  #full = 0;

  /** In the calling thread's namespace. Throws OsError or ArenaError. */
  constructor(arena: Arena, { name, index, ring }: PacketSocketOptions) {
    this.#arena = arena;
    this.#sizes = ring;
    this.fd = openPacketSocket();
    let mapped = 0;
    let cells = 0;
    try {
      setDeaf(this.fd, true);
      useVnetHeader(this.fd);
      setReceiveRing(this.fd, ring);
      ignoreOutgoing(this.fd);
      mapped = arena.mapFile(`${name} ring`, this.fd, 0, ring.blockBytes * ring.blockCount);
      cells = arena.reserve(`${name} rx`, PACKET_RING.bytes + SEGMENTS_BYTES);
      bindPacketSocket(this.fd, index, PACKET_PROTOCOL.ALL);
    } catch (error) {
      if (mapped !== 0) arena.release(mapped);
      if (cells !== 0) arena.release(cells);
      closeSync(this.fd);
      throw error;
    }
    this.cells = cells;
    this.#ring = mapped;
    this.#set(ringCell, mapped);
    this.#set(blockBytes, ring.blockBytes);
    this.#set(blockCount, ring.blockCount);
    this.#set(segments, this.cells + PACKET_RING.bytes);
    this.#set(segmentsBytes, SEGMENTS_BYTES);
  }

  /** Before packets come: where they go, and what is to be done to them (VNET_RX). */
  setUp(poolAddress: number, rxOptions: number): void {
    this.#set(pool, poolAddress);
    this.#set(options, rxOptions);
  }

  /** While no burst runs: forgets every packet that is handed over. False when the kernel still has some, which it hands over within
   *  its time-out. */
  flush(): boolean {
    const { u32 } = this.#arena;
    this.#set(segmentsLeft, 0);
    this.#set(left, 0);
    for (let i = 0; i <= this.#sizes.blockCount; i++) {
      const at = this.#get(blockCell);
      const block = (this.#ring + at * this.#sizes.blockBytes) >>> 2;
      if ((Atomics.load(u32, block + BLOCK_STATUS / 4) & STATUS_USER) === 0)
        return Atomics.load(u32, block + BLOCK_PACKETS / 4) === 0;
      u32[block + BLOCK_PACKETS / 4] = 0; // as the data path does: until it is opened again it has none
      Atomics.store(u32, block + BLOCK_STATUS / 4, 0);
      this.#set(blockCell, (at + 1) % this.#sizes.blockCount);
    }
    return false;
  }

  /** Packets that found the ring full, and how often it was. */
  missed(): { readonly dropped: number; readonly full: number } {
    const { dropped, full } = packetStatistics(this.fd);
    this.#dropped += dropped;
    this.#full += full;
    return { dropped: this.#dropped, full: this.#full };
  }

  /** No burst runs, nor will. */
  close(): void {
    this.#arena.release(this.#ring);
    this.#arena.release(this.cells);
    closeSync(this.fd);
  }

  #set(cell: number, value: number): void {
    this.#arena.u32[(this.cells + cell) >>> 2] = value;
  }
  #get(cell: number): number {
    return this.#arena.u32[(this.cells + cell) >>> 2]!;
  }
}

/** Sockets that share what the interface receives. In the calling thread's namespace. Throws OsError or ArenaError. */
export function openRings(arena: Arena, count: number, options: PacketSocketOptions): RingSocket[] {
  const sockets: RingSocket[] = [];
  let group: number | undefined;
  try {
    for (let queue = 0; queue < count; queue++) {
      const socket = new RingSocket(arena, { ...options, name: `${options.name} ${queue}` });
      sockets.push(socket);
      if (count > 1) group = joinFanout(socket.fd, options.fanout, group);
    }
    return sockets;
  } catch (error) {
    for (const socket of sockets) socket.close();
    throw error;
  }
}

/** A socket that sends and hears nothing. In the calling thread's namespace. Throws OsError. */
export function openSender({ index, bypass }: PacketSocketOptions): number {
  const fd = openPacketSocket();
  try {
    useVnetHeader(fd);
    if (bypass) bypassQdisc(fd);
    setSendBuffer(fd, SEND_BUFFER_BYTES);
    bindPacketSocket(fd, index, PACKET_PROTOCOL.NONE);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
