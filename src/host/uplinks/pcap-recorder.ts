// Writes frames to a pcapng file, from arena memory and without allocation: blocks are put together in one buffer that
// is written when it is full, and about once a second.
import { closeSync, fchmodSync, fstatSync, openSync, writeSync } from 'node:fs';
import type { Datapath } from '../../datapath/datapath.js';
import type { Arena } from '../../memory/arena.js';
import { FRAME, PACKET_FLAG } from '../../memory/layout.js';
import { ETHER_TYPE, EthernetHeader, VlanTag } from '../../wire/ethernet.js';
import { PCAPNG_BLOCK, PcapngEnhancedPacket, pcapngInterface, pcapngSection } from '../../wire/pcap.js';

const AT = FRAME.at;
const PACKET = PcapngEnhancedPacket.offset;
const HEADER_BYTES = PcapngEnhancedPacket.size;
/** The block's length stands at its end once more. */
const TRAILER_BYTES = 4;
const TAG_AT = EthernetHeader.offset.etherType;
const TAG_BYTES = VlanTag.size;
const BUFFER_BYTES = 1 << 20;
const FLUSH_MS = 1000;

export class PcapRecorder {
  packets = 0;
  bytes = 0;
  /** Frames longer than the buffer, or that came after a failure. */
  dropped = 0;
  /** Why nothing is written any more. */
  failure: string | undefined;
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #buffer: number;
  readonly #epochNs: bigint;
  #fd: number;
  #used = 0;
  #timeHigh = 0;
  #timeLow = 0;
  #flushedMs = 0;

  /** Makes or empties the file, which only its owner may read. `epochNs` is the time since 1970 at the loop's time 0.
   *  Throws what the file system says. */
  constructor(arena: Arena, datapath: Datapath, path: string, interfaceName: string, epochNs: bigint) {
    this.#arena = arena;
    this.#datapath = datapath;
    this.#epochNs = epochNs;
    this.#fd = openSync(path, 'w', 0o600);
    try {
      if (fstatSync(this.#fd).isFile()) fchmodSync(this.#fd, 0o600); // it may have been there
      this.#buffer = arena.reserve(`capture ${path}`, BUFFER_BYTES);
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
    this.tick(0);
    for (const block of [pcapngSection(), pcapngInterface(interfaceName)]) {
      arena.u8.set(block, this.#buffer + this.#used);
      this.#used += block.length;
    }
    this.flush();
  }

  /** Records a FRAME whose checksums are finished; its tag goes back into its bytes. */
  record(frame: number): void {
    const { u8, u32 } = this.#arena;
    const tag = (u32[(frame + AT.flags) >>> 2]! & PACKET_FLAG.VLAN) !== 0 ? TAG_BYTES : 0;
    const length = u32[(frame + AT.length) >>> 2]! + tag;
    const block = HEADER_BYTES + ((length + 3) & ~3) + TRAILER_BYTES;
    if (this.#used + block > BUFFER_BYTES) this.flush();
    if (this.failure !== undefined || block > BUFFER_BYTES) {
      this.dropped++;
      return;
    }
    const at = this.#buffer + this.#used;
    const data = at + HEADER_BYTES;
    u32[(at + block - TRAILER_BYTES - 4) >>> 2] = 0; // padding
    this.#datapath.frameGather(frame, data + tag);
    if (tag !== 0) {
      const tci = u32[(frame + AT.vlanTci) >>> 2]!;
      u8.copyWithin(data, data + tag, data + tag + TAG_AT);
      u8[data + TAG_AT] = ETHER_TYPE.VLAN >>> 8;
      u8[data + TAG_AT + 1] = ETHER_TYPE.VLAN & 0xff;
      u8[data + TAG_AT + 2] = tci >>> 8;
      u8[data + TAG_AT + 3] = tci & 0xff;
    }
    u32[(at + PACKET.blockType) >>> 2] = PCAPNG_BLOCK.ENHANCED_PACKET;
    u32[(at + PACKET.blockLength) >>> 2] = block;
    u32[(at + PACKET.interfaceId) >>> 2] = 0;
    u32[(at + PACKET.timestampHigh) >>> 2] = this.#timeHigh;
    u32[(at + PACKET.timestampLow) >>> 2] = this.#timeLow;
    u32[(at + PACKET.capturedLength) >>> 2] = length;
    u32[(at + PACKET.originalLength) >>> 2] = length;
    u32[(at + block - TRAILER_BYTES) >>> 2] = block;
    this.#used += block;
    this.packets++;
    this.bytes += length;
  }

  /** Sets the time of the frames that follow, and writes what waits when it has waited for a second. */
  tick(nowMs: number): void {
    const now = this.#epochNs + BigInt(Math.round(nowMs * 1e6));
    this.#timeHigh = Number((now >> 32n) & 0xffff_ffffn);
    this.#timeLow = Number(now & 0xffff_ffffn);
    if (nowMs - this.#flushedMs < FLUSH_MS) return;
    this.#flushedMs = nowMs;
    this.flush();
  }

  /** Writes what waits. A disk that is full ends the recording, not the switch. */
  flush(): void {
    let at = this.#buffer;
    const end = at + this.#used;
    this.#used = 0;
    try {
      while (at < end && this.failure === undefined) at += writeSync(this.#fd, this.#arena.u8, at, end - at);
    } catch (error) {
      this.failure = (error as Error).message;
    }
  }

  close(): void {
    if (this.#fd < 0) return;
    this.flush();
    closeSync(this.#fd);
    this.#fd = -1;
    this.#arena.release(this.#buffer);
  }
}
