// Loads the compiled burst loops over an arena's memory. One instance serves every queue and channel of a worker:
// all state lives in the structures of memory/layout.ts, whose addresses the calls take.
import { readFileSync } from 'node:fs';

/** The module's exports. Addresses and handles are byte offsets in the memory it was made with; counts are items. */
export interface Datapath {
  /** Takes the indices that the ring's control pages hold; interrupts from the peer are masked. */
  endInit(end: number): void;
  /** Writes one in-band (6) or completion (11) packet and publishes it. 0 = no room. */
  ringSend(
    end: number,
    type: number,
    flags: number,
    idLow: number,
    idHigh: number,
    payload: number,
    bytes: number,
  ): number;
  /** Masks the peer's interrupts while we poll. */
  ringMask(end: number): void;
  /** Unmasks; true when something arrived meanwhile, so that the caller must not sleep. */
  ringUnmask(end: number): number;
  /** Bytes that wait to be read, unchecked. */
  ringReadable(end: number): number;

  /** Takes up to `count` reset buffers; handles go to the u32 array at `handles`. Returns how many. */
  poolGet(pool: number, handles: number, count: number): number;
  /** Returns mbuf chains to their pools. */
  mbufFree(handles: number, count: number): void;
  /** Which stack of pools for several threads this instance uses (default 0). Each thread needs its own. */
  useLcore(lcore: number): void;
  /** Drops a reference to an EXTERNAL_BUFFER. */
  externalDrop(external: number): void;

  /** Copies `bytes` bytes behind the packet `head`, whose last segment is `last`, to further mbufs of `pool` (0: none) where it is full. Returns
   *  the last segment then; 0 = no mbuf is left, what was copied stays in the chain. */
  appendChain(pool: number, head: number, last: number, from: number, bytes: number): number;
  /** Puts up to `count` mbuf chains into a HANDLE_RING and counts them in PORT_COUNTERS; returns how many, from the front. */
  handlePut(ring: number, handles: number, count: number, counters: number): number;
  /** Takes up to `max` mbuf chains out of a HANDLE_RING and counts them. */
  handleTake(ring: number, handles: number, max: number, counters: number): number;
  /** Copies up to `count` mbuf chains into a queue to another process (SHARED_RING_END) and frees them; returns how many, from the front.
   *  What is longer than the peer takes is freed and counted as an error. */
  sharedPut(end: number, handles: number, count: number, counters: number): number;
  /** Copies up to `max` frames out of such a queue into mbufs of its pool. */
  sharedTake(end: number, handles: number, max: number, counters: number): number;

  /** Sends up to `count` mbuf chains; returns how many were taken (the driver owns those from then on). */
  guestSend(queue: number, handles: number, count: number): number;
  /** Handles up to about `max` received packets: their mbufs go to `handles`, which must hold `max` entries. */
  guestPoll(queue: number, handles: number, max: number): number;
  /** Writes waiting receive completions. Returns how many still wait. */
  guestFlush(queue: number): number;
  /** How many ranges of the receive buffer mbufs still show. `last`: ranges that are not delivered yet are given up. */
  guestLent(queue: number, last: 0 | 1): number;
  /** Frees every buffer that the queue holds (sends in flight, packet under assembly): the channel is closed. */
  guestAbandon(queue: number): void;

  /** A port's receive burst: packets that wait in the GUEST_PORT's list, then guestPoll, then what the port does to them (types, hash,
   *  tags, filters, counters). */
  portReceive(port: number, handles: number, max: number): number;
  /** guestSend for a port; looks for completions itself when it needs them. */
  portSend(port: number, handles: number, count: number): number;
  /** Reads the ring into the port's list of waiting packets. Returns how many came, those that found no room included. */
  portStage(port: number): number;

  /** Sorts up to STEER_BURST mbuf chains by the tx queue that STEERING chooses for each: those of queue 0 come first in the u32 array at
   *  `sorted`, those of a queue in the order that they had. How many each queue has goes to `counts`, STEER_QUEUES u32. */
  steer(steering: number, handles: number, count: number, sorted: number, counts: number): void;

  /** Makes every suballocation free. */
  hostReset(channel: number): void;
  /** Divides the data suballocations of a NIC's receive buffer among `count` channels (u32 array of addresses, which share the tables
   *  of `primary`: suballocations, owners, senders). `stacks`: u32 per data suballocation, for their free stacks. */
  hostDivide(primary: number, channels: number, count: number, stacks: number): void;
  /** Notes in STAGING what the next poll's packets, at most `max` messages, name of pages that are not mapped. Returns how many parts
   *  of pages that are. The poll that follows takes them from there, and reads no further than was looked. */
  hostStage(channel: number, staging: number, max: number): number;
  /** Reads the guest's ring: frames of data messages go to the channel's FRAME table, the rest to events. */
  hostPoll(channel: number, maxFrames: number): number;
  /** Completes the messages of the last poll. Returns how many completions still wait for room. */
  hostComplete(channel: number): number;
  /** Makes one FRAME of TCP segments that follow each other, of the families COALESCE_FAMILY and up to `most` of them, for a receiver that takes
   *  large packets. `frames`: u32 array of `count` FRAME addresses; what is to be delivered goes to the COALESCER's output and stays valid
   *  until the next call. Returns how many. */
  hostCoalesce(coalescer: number, frames: number, count: number, families: number, most: number): number;
  /** Delivers frames (u32 array of FRAME addresses) to the guest; returns how many went, the rest were dropped and counted. */
  hostSend(channel: number, frames: number, count: number): number;
  /** Sends an RNDIS control message (at `message`) through a control suballocation. 0 = none free or ring full. */
  hostSendControl(channel: number, message: number, bytes: number): number;

  copy(destination: number, source: number, bytes: number): void;
  /** Copies a FRAME's bytes to one place. */
  frameGather(frame: number, destination: number): void;
  /** Internet checksum: the one's-complement sum of the bytes plus `seed`, folded to 16 bits, not inverted. */
  checksum(address: number, bytes: number, seed: number): number;
  /** Fills in the checksums that `flags` (PACKET_FLAG TX_*) ask for in the packet at `address`. 1 = done, 0 = not a packet that has them. */
  checksumFinish(address: number, bytes: number, flags: number, l4Offset: number): number;
  /** 1 when every checksum of the packet that can be checked is right, 0 when one is wrong, 2 when there is none. */
  checksumVerify(address: number, bytes: number): number;
  /** Cuts a TSO packet into segments of `mss` payload bytes, checksums filled in. Segment i goes to output + i * stride, its length to
   *  the u32 array `lengths`. Returns how many, or 0 when the packet is malformed or more than `max` would be needed. */
  segment(
    address: number,
    bytes: number,
    l4Offset: number,
    mss: number,
    output: number,
    stride: number,
    lengths: number,
    max: number,
  ): number;
  /** Toeplitz hash of `bytes` input bytes (at most 36) under the 40-byte key at `key`. */
  toeplitz(key: number, input: number, bytes: number): number;
  /** Reads the virtio_net_hdr (VNET_HEADER_BYTES before `data`) of a packet from a TAP into the mbuf's cells; takes an 802.1Q tag out
   *  of the data. `bytes` counts header and packet. 0 = header and packet disagree; the mbuf is left for the caller to free. */
  vnetToMbuf(mbuf: number, bytes: number): number;
  /** Passes over a burst of mbufs (u32 array at `handles`), as testpmd's modes want them; `stream` is a FORWARD_STREAM. Headers
   *  are looked for in the first segment. */
  forwardMac(stream: number, handles: number, count: number): void;
  forwardMacSwap(handles: number, count: number): void;
  /** Ethernet and IP addresses and TCP or UDP ports change places. */
  forwardSwap5(handles: number, count: number): void;
  /** As forwardMac, with fresh checksums; counts wrong ones that the device told of. */
  forwardChecksum(stream: number, handles: number, count: number): void;
  /** Answers ARP and ICMP echo requests: the answers go to the front, everything else is freed. Returns how many answers. */
  forwardEcho(stream: number, handles: number, count: number): number;
  /** Makes up to `count` packets from the stream's template; returns how many. */
  forwardMake(stream: number, handles: number, count: number): number;
  /** Writes the virtio_net_hdr in front of a one-segment mbuf's data (tag put back into the data). Returns the address to write from. */
  mbufToVnet(mbuf: number): number;
  /** The same for a host FRAME of one fragment. */
  vnetToFrame(frame: number, fragment: number, address: number, bytes: number): number;
  /** Gathers a FRAME behind a virtio_net_hdr at `destination`. Returns bytes written. */
  frameToVnet(frame: number, destination: number): number;

  /** vnetToMbuf() for programs: `options` (VNET_RX) say what becomes of tag and checksums. */
  vnetReceive(mbuf: number, bytes: number, options: number): number;
  /** Puts a packet that lies elsewhere, behind its virtio_net_hdr at `header`, into an empty mbuf and, with SCATTER, more of its pool.
   *  VNET_RESULT; unless FILLED the mbuf is as it was. */
  vnetScatter(mbuf: number, header: number, bytes: number, options: number): number;
  /** Makes up to `count` mbuf chains ready to be written, as the VNET_TX at `tx` says; they stay the caller's. Returns how many; fewer
   *  than its capacity: the next one may find room in a call of its own, and if not even the first one did it is not fit to be sent. */
  vnetTransmit(tx: number, handles: number, count: number): number;
  /** Takes up to `max` packets out of a PACKET_RING: their mbufs go to `handles`. */
  packetReceive(ring: number, handles: number, max: number): number;
  /** 1 when the ring has packets. */
  packetWaiting(ring: number): number;

  /** Receive offload of `count` packets (GRO_STAGE at `stage`): what is to go on now is written to the u32 array at `output`, which must
   *  hold `count` + GRO_HELD_MAX entries; the rest is held. Returns how many went. */
  groReceive(stage: number, handles: number, count: number, output: number): number;
  /** Ends a poll: all that is held, or with `old` 1 what was held before this poll began, goes to `output`, at most GRO_HELD_MAX. Returns
   *  how many. */
  groFlush(stage: number, output: number, old: 0 | 1): number;
}

/** What vnetScatter() returns. BAD also: too long for one mbuf. */
export const VNET_RESULT = { FILLED: 0, BAD: 1, NO_BUFFER: 2 } as const;

/** Bytes of the virtio_net_hdr that TAP devices are set to (with num_buffers). */
export const VNET_HEADER_BYTES = 12;

let compiled: WebAssembly.Module | undefined;

/** An instance over `memory` (shared, initial = maximum). Compiles once per thread. The second instance over one memory
 *  (another thread's) needs working memory of its own: the address of SCRATCH.END zeroed bytes. */
export function createDatapath(memory: WebAssembly.Memory, scratch?: number): Datapath {
  compiled ??= new WebAssembly.Module(readFileSync(new URL('./datapath.wasm', import.meta.url)));
  const abort = (_message: number, _file: number, line: number, column: number) => {
    throw new Error(`datapath aborted at ${line}:${column}`);
  };
  const instance = new WebAssembly.Instance(compiled, { env: { memory, abort } });
  const datapath = instance.exports as unknown as Datapath & { useScratch(address: number): void };
  if (scratch !== undefined) datapath.useScratch(scratch);
  return datapath;
}
