// An uplink into the kernel's network stack: a TAP interface with virtio_net_hdr, so that TSO packets and unfinished
// checksums pass whole in both directions.
import { closeSync } from 'node:fs';
import type { Datapath } from '../../datapath/datapath.js';
import type { Arena } from '../../memory/arena.js';
import { FRAGMENT, FRAME } from '../../memory/layout.js';
import { ERRNO } from '../../memory/os/libc.js';
import { TapIo } from '../../memory/os/packet-io.js';
import { openTap, setTapOffload, TAP_OFFLOAD, TAP_PACKET_MAX } from '../../memory/os/tap.js';
import { DEFAULT_VLAN, type FrameSink, UPLINK_FILTER, type Uplink, type VlanMode } from '../ports.js';

const AT = FRAME.at;
const BURST = 32;
/** Header, tag, and alignment of what is written. */
const SLACK = 64;
const READ_STRIDE = (TAP_PACKET_MAX + 63) & ~63;
const WRITE_BYTES = BURST * READ_STRIDE;
/** UDP segmentation stays with the kernel: guests have no such offload, and it would have to be redone here. */
const OFFLOADS = TAP_OFFLOAD.CSUM | TAP_OFFLOAD.TSO4 | TAP_OFFLOAD.TSO6 | TAP_OFFLOAD.TSO_ECN;

export interface TapOptions {
  readonly arena: Arena;
  readonly datapath: Datapath;
  readonly sink: FrameSink;
  readonly number: number;
  /** Interface name; made in the calling thread's network namespace when it is not there. */
  readonly interfaceName: string;
  /** Default 9000: the interface's own MTU decides what its stack sends. */
  readonly mtu?: number;
}

export class TapUplink implements Uplink {
  readonly number: number;
  readonly name: string;
  readonly kind = 'tap' as const;
  /** The stack's own address is learned like any other: it may be a bridge. */
  macs: readonly Uint8Array[] = [];
  vlan: VlanMode = DEFAULT_VLAN;
  mtu: number;
  linkUp = true;
  filter: number = UPLINK_FILTER;
  readonly #arena: Arena;
  readonly #datapath: Datapath;
  readonly #sink: FrameSink;
  readonly #fd: number;
  readonly #io: TapIo;
  readonly #frames: number;
  readonly #fragments: number;
  readonly #reads: number;
  readonly #writes: number;
  readonly #readAddresses = new Int32Array(BURST);
  readonly #readLengths = new Int32Array(BURST).fill(TAP_PACKET_MAX);
  readonly #writeAddresses = new Int32Array(BURST);
  readonly #writeLengths = new Int32Array(BURST);
  #readPackets = 0;
  #badHeaders = 0;
  #written = 0;
  #refused = 0;
  #notWritten = 0;
  #closed = false;

  /** Opens the interface. Throws OsError (EPERM: no right to make interfaces; EBUSY: somebody has it). The user brings it
   *  up and gives it addresses; it goes away with close() unless it was made persistent elsewhere. */
  constructor(options: TapOptions) {
    const { arena, datapath, number } = options;
    this.number = number;
    this.mtu = options.mtu ?? 9000;
    this.#arena = arena;
    this.#datapath = datapath;
    this.#sink = options.sink;
    const tap = openTap(options.interfaceName);
    this.name = tap.name;
    this.#fd = tap.fd;
    try {
      setTapOffload(tap.fd, OFFLOADS);
      const tables = BURST * (FRAME.bytes + FRAGMENT.bytes);
      this.#frames = arena.reserve(`uplink ${tap.name}`, tables + BURST * READ_STRIDE + WRITE_BYTES);
      this.#fragments = this.#frames + BURST * FRAME.bytes;
      this.#reads = this.#fragments + BURST * FRAGMENT.bytes;
      this.#writes = this.#reads + BURST * READ_STRIDE;
      this.#io = new TapIo(arena, tap.fd, { batch: BURST });
    } catch (error) {
      closeSync(tap.fd);
      throw error;
    }
    for (let i = 0; i < BURST; i++) this.#readAddresses[i] = this.#reads + i * READ_STRIDE;
  }

  poll(): number {
    if (!this.linkUp) return 0;
    const got = this.#io.read(this.#readAddresses, this.#readLengths, BURST);
    if (got <= 0) return 0;
    const u32 = this.#arena.u32;
    let count = 0;
    for (let i = 0; i < got; i++) {
      const frame = this.#frames + count * FRAME.bytes;
      const fragment = this.#fragments + count * FRAGMENT.bytes;
      if (this.#datapath.vnetToFrame(frame, fragment, this.#readAddresses[i]!, this.#io.lengths[i]!) === 0) {
        this.#badHeaders++;
        continue;
      }
      u32[(frame + AT.source) >>> 2] = this.number;
      u32[(frame + AT.sourceBuffer) >>> 2] = 0;
      count++;
    }
    this.#readPackets += got;
    if (count > 0) this.#sink.forward(this.#frames, count);
    return count;
  }

  deliver(frames: number, count: number): void {
    const u32 = this.#arena.u32;
    let waiting = 0;
    let used = 0;
    for (let i = 0; i < count; i++) {
      const frame = u32[(frames >>> 2) + i]!;
      const length = u32[(frame + AT.length) >>> 2]!;
      if (length + SLACK > READ_STRIDE) {
        this.#refused++;
        continue;
      }
      if (waiting === BURST || used + length + SLACK > WRITE_BYTES) {
        this.#write(waiting);
        waiting = 0;
        used = 0;
      }
      const at = this.#writes + used;
      const bytes = this.#datapath.frameToVnet(frame, at);
      if (bytes === 0) {
        this.#refused++;
        continue;
      }
      this.#writeAddresses[waiting] = at;
      this.#writeLengths[waiting] = bytes;
      waiting++;
      used += (bytes + 63) & ~63;
    }
    if (waiting > 0) this.#write(waiting);
  }

  /** An interface that somebody deleted leaves a descriptor that is always ready and never good: the link is down then. */
  tick(_nowMs: number): void {
    if (this.#io.lastError === ERRNO.EBADFD) this.linkUp = false;
  }

  fds(): readonly number[] {
    return this.linkUp ? [this.#fd] : [];
  }

  /** The descriptor tells when something comes. */
  arm(): boolean {
    return true;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.linkUp = false;
    this.#io.close();
    closeSync(this.#fd);
    this.#arena.release(this.#frames);
  }

  stats(): Record<string, number> {
    return {
      read: this.#readPackets,
      badHeaders: this.#badHeaders,
      written: this.#written,
      refused: this.#refused, // not what their flags say, or too long for a TAP
      notWritten: this.#notWritten, // the kernel did not take them: interface down, or no memory
    };
  }

  #write(count: number): void {
    const errors = this.#io.writeErrors;
    const taken = this.#io.write(this.#writeAddresses, this.#writeLengths, count);
    const written = taken - (this.#io.writeErrors - errors);
    this.#written += written;
    this.#notWritten += count - written;
  }
}
