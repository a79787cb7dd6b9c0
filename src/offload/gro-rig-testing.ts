// For tests: a receive offload stage with a pool of its own, packets that go in and what comes out.
import { createDatapath, VNET_HEADER_BYTES } from '../datapath/datapath.js';
import { Arena } from '../memory/arena.js';
import { MBUF, PACKET_FLAG } from '../memory/layout.js';
import { VNET_GATHER_MIN, VNET_TX } from '../memory/layout-sockets.js';
import { createPool, poolBytes, poolFree } from '../memory/pool.js';
import { GRO_HELD_MAX, Gro, reserveGro } from './gro.js';

const BURST = 256;
const COUNT = 4096;
/** Bytes of a segment at most. */
const SEGMENT = 2048;

/** A packet as a driver hands it over. */
export interface GroInput {
  readonly bytes: Uint8Array;
  /** PACKET_FLAG bits; a tag (VLAN) and a hash (HASH) are in the next two. */
  readonly flags?: number;
  readonly vlanTci?: number;
  readonly hash?: number;
  /** Of a coalesced packet. */
  readonly mss?: number;
  /** Where the packet is cut into segments: offsets in ascending order. */
  readonly cuts?: readonly number[];
  /** Somebody else holds its segment of this number as well. */
  readonly shared?: number | undefined;
}

/** What came out. */
export interface GroOutput {
  readonly bytes: Uint8Array;
  readonly flags: number;
  readonly mss: number;
  readonly l4Offset: number;
  readonly vlanTci: number;
  readonly segments: number;
  /** Which of the packets that went in since the stage was made its first one is. */
  readonly first: number;
  /** virtio_net_hdr and frame, tag put back, as a TAP would be given them; undefined when refused. */
  readonly written: Uint8Array | undefined;
}

export class GroRig {
  readonly gro: Gro;
  readonly #arena = Arena.create({ bytes: 32 << 20 });
  readonly #datapath = createDatapath(this.#arena.memory);
  readonly #pool: number;
  readonly #handles: number;
  readonly #output: number;
  readonly #tx: number;
  readonly #shared: number[] = [];
  #packets = 0;

  /** `udp`: see Gro. */
  constructor(udp: boolean) {
    const sizes = { name: 'gro', count: COUNT, room: 128 + SEGMENT, headroom: 128 };
    const arena = this.#arena;
    this.#pool = createPool(arena, arena.reserve('buffers', poolBytes(sizes)), sizes);
    this.#handles = arena.reserve('handles', BURST * 4);
    this.#output = arena.reserve('output', (BURST + GRO_HELD_MAX) * 4);
    this.gro = new Gro(arena, this.#datapath, reserveGro(arena));
    this.gro.udp = udp;
    this.#tx = arena.reserve('vnet', VNET_TX.bytes + 8 + VNET_GATHER_MIN);
    const cells = { addresses: VNET_TX.bytes, lengths: VNET_TX.bytes + 4, gather: VNET_TX.bytes + 8 };
    for (const [name, offset] of Object.entries(cells))
      this.#u32[(this.#tx + VNET_TX.at[name as keyof typeof cells]) >>> 2] = this.#tx + offset;
    const values = { capacity: 1, gatherBytes: VNET_GATHER_MIN, maxFrameBytes: 9100, headerBytes: VNET_HEADER_BYTES };
    for (const [name, value] of Object.entries(values))
      this.#u32[(this.#tx + VNET_TX.at[name as keyof typeof values]) >>> 2] = value;
  }

  get #u32(): Uint32Array {
    return this.#arena.u32;
  }
  #cell(mbuf: number, name: keyof typeof MBUF.at): number {
    return this.#u32[(mbuf + MBUF.at[name]) >>> 2]!;
  }
  #set(mbuf: number, name: keyof typeof MBUF.at, value: number): void {
    this.#u32[(mbuf + MBUF.at[name]) >>> 2] = value;
  }

  /** Buffers that are out. */
  get used(): number {
    return COUNT - poolFree(this.#arena, this.#pool);
  }

  #take(): number {
    const cells = this.#handles + (BURST - 1) * 4;
    if (this.#datapath.poolGet(this.#pool, cells, 1) !== 1) throw new Error('no buffer left');
    return this.#u32[cells >>> 2]!;
  }

  #mbuf(input: GroInput): number {
    const { bytes, cuts = [] } = input;
    const ends: number[] = [];
    let start = 0;
    for (const end of [...cuts.filter((at) => at > 0 && at < bytes.length), bytes.length]) {
      for (; end - start > SEGMENT; start += SEGMENT) ends.push(start + SEGMENT);
      ends.push(end);
      start = end;
    }
    const list: number[] = [];
    ends.forEach((end, i) => {
      const mbuf = this.#take();
      const part = bytes.subarray(ends[i - 1] ?? 0, end);
      this.#arena.u8.set(part, this.#cell(mbuf, 'data'));
      this.#set(mbuf, 'dataLength', part.length);
      if (i > 0) this.#set(list[i - 1]!, 'next', mbuf);
      list.push(mbuf);
    });
    const head = list[0]!;
    this.#set(head, 'packetLength', bytes.length);
    this.#set(head, 'segments', list.length);
    for (const name of ['flags', 'vlanTci', 'hash', 'mss'] as const) this.#set(head, name, input[name] ?? 0);
    this.#set(head, 'user', this.#packets++);
    if (input.shared !== undefined) {
      const segment = list[input.shared % list.length]!;
      this.#set(segment, 'references', 2);
      this.#shared.push(segment);
    }
    return head;
  }

  /** One burst through the stage. */
  receive(inputs: readonly GroInput[]): GroOutput[] {
    inputs.forEach((input, i) => {
      this.#u32[(this.#handles >>> 2) + i] = this.#mbuf(input);
    });
    return this.#collect(this.gro.receive(this.#handles, inputs.length, this.#output));
  }

  /** The end of the poll. */
  flush(old = false): GroOutput[] {
    return this.#collect(old ? this.gro.flushOld(this.#output) : this.gro.flush(this.#output));
  }

  #bytes(head: number): Uint8Array {
    const bytes = new Uint8Array(this.#cell(head, 'packetLength'));
    let at = 0;
    let segments = 0;
    for (let mbuf = head; mbuf !== 0; mbuf = this.#cell(mbuf, 'next'), segments++) {
      const data = this.#cell(mbuf, 'data');
      const length = this.#cell(mbuf, 'dataLength');
      if (length === 0) throw new Error('an empty segment');
      bytes.set(this.#arena.u8.subarray(data, data + length), at);
      at += length;
    }
    if (at !== bytes.length || segments !== this.#cell(head, 'segments')) {
      throw new Error(`${at} bytes in ${segments} segments, ${bytes.length} in ${this.#cell(head, 'segments')} said`);
    }
    return bytes;
  }

  #collect(count: number): GroOutput[] {
    const outputs = Array.from({ length: count }, (_, i) => {
      const cells = this.#output + i * 4;
      const mbuf = this.#u32[cells >>> 2]!;
      const read = (name: keyof typeof MBUF.at) => this.#cell(mbuf, name);
      const [flags, mss, l4Offset, vlanTci] = [read('flags'), read('mss'), read('l4Offset'), read('vlanTci')];
      const [bytes, segments, first] = [this.#bytes(mbuf), read('segments'), read('user')];
      const written = this.#written(cells);
      // There is nobody whose data it would be.
      this.#set(mbuf, 'flags', 0);
      return { bytes, flags, mss, l4Offset, vlanTci, segments, first, written };
    });
    this.#datapath.mbufFree(this.#output, count);
    for (const segment of this.#shared.splice(0)) {
      // Whoever else held it lets it go, which frees it if the packet is gone already.
      this.#u32[this.#handles >>> 2] = segment;
      this.#set(segment, 'next', 0);
      this.#datapath.mbufFree(this.#handles, 1);
    }
    return outputs;
  }

  #written(cells: number): Uint8Array | undefined {
    if (this.#datapath.vnetTransmit(this.#tx, cells, 1) !== 1) return undefined;
    const at = this.#u32[(this.#tx + VNET_TX.bytes) >>> 2]!;
    return this.#arena.u8.slice(at, at + this.#u32[(this.#tx + VNET_TX.bytes + 4) >>> 2]!);
  }

  /** The packets that somebody makes of a large one who cuts it at `mss` bytes of payload. */
  cut(bytes: Uint8Array, l4Offset: number, mss: number): Uint8Array[] {
    const stride = 9216;
    const from = this.#arena.reserve('cut', 66_000 + 64 * stride + 256);
    const to = from + 66_000 + 256 - ((from + 66_000) & 255);
    const lengths = from + 66_000 + 64 * stride;
    this.#arena.u8.set(bytes, from);
    const count = this.#datapath.segment(from, bytes.length, l4Offset, mss, to, stride, lengths, 64);
    const segments = Array.from({ length: count }, (_, i) =>
      this.#arena.u8.slice(to + i * stride, to + i * stride + this.#u32[(lengths >>> 2) + i]!),
    );
    this.#arena.release(from);
    return segments;
  }
}

/** What a packet's flags say of its VLAN tag. */
export const { VLAN, HASH } = PACKET_FLAG;
