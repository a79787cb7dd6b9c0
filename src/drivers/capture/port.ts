// The control half of net_capture: the file and the buffers of the queues.
import { closeSync, writeSync } from 'node:fs';
import type { Devargs } from '../../ethdev/devargs.js';
import type { DriverContext } from '../../ethdev/driver.js';
import { PortError } from '../../ethdev/errors.js';
import type { FullConfig } from '../../ethdev/limits.js';
import { betweenBursts } from '../../ethdev/queues.js';
import { read64 } from '../../memory/cells64.js';
import { CAPTURE_STREAM } from '../../memory/layout-captures.js';
import { MAX_CAPTURED_BYTES, pcapngInterface, pcapngSection, pcapngStatistics } from '../../wire/pcap.js';
import { CAPTURE_PACKET_MAX, createCaptureFile, SNAP_MIN } from '../capture-packet.js';
import { WrappedPort } from '../wrapped-port.js';
import type { CaptureDescription } from './bursts.js';

const { at: CELL } = CAPTURE_STREAM;
const BUFFER_KIB = 1024;
const BUFFER_KIB_MAX = 65_536;

/** The buffers of a queue and direction. */
interface Stream {
  readonly cells: number;
  /** The one that the bursts do not fill. */
  spare: number;
}

export class CapturePort extends WrappedPort {
  protected readonly driverName = 'net_capture';
  readonly #path: string;
  readonly #fd: number;
  readonly #snapLength: number;
  readonly #capacity: number;
  #rx: Stream[] = [];
  #tx: Stream[] = [];
  /** Of streams that are gone; and what the counters were when they were reset. */
  readonly #past = new Map<string, number>();
  readonly #reset = new Map<string, number>();
  #failed = false;

  /** Throws PortError. */
  constructor(context: DriverContext, device: string, args: Devargs) {
    super(context, device, args, false);
    try {
      const file = args.string('file');
      if (file === undefined) throw new PortError('EINVAL', device, 'file: expected the file to write');
      this.#snapLength = args.number('snaplen', MAX_CAPTURED_BYTES, SNAP_MIN, MAX_CAPTURED_BYTES);
      this.#capacity = args.number('buffer', BUFFER_KIB, Math.ceil(CAPTURE_PACKET_MAX / 1024), BUFFER_KIB_MAX) * 1024;
      const comment = args.string('comment') ?? '';
      args.done(['port', 'file', 'snaplen', 'comment', 'buffer']);
      this.#path = file;
      this.#fd = createCaptureFile(file);
      const { device: name, driver } = this.inner;
      this.#write(pcapngSection(comment));
      this.#write(pcapngInterface(name, undefined, `${driver.name}, seen by ${device}`));
    } catch (error) {
      this.inner.release();
      if (error instanceof PortError) throw error;
      throw new PortError('EIO', device, (error as Error).message, { cause: error });
    }
  }

  override async configure(config: FullConfig): Promise<void> {
    await super.configure(config);
    this.#releaseStreams();
    this.#rx = Array.from({ length: config.rxQueues }, () => this.#createStream());
    this.#tx = Array.from({ length: config.txQueues }, () => this.#createStream());
  }

  override async stop(): Promise<void> {
    await super.stop();
    this.#drain();
  }

  override async close(): Promise<void> {
    this.#releaseStreams();
    const now = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
    const dropped = this.#total('rx', 'dropped') + this.#total('tx', 'dropped');
    const received = dropped + this.#total('rx', 'packets') + this.#total('tx', 'packets');
    this.#write(pcapngStatistics(0, now, received, dropped));
    closeSync(this.#fd);
    await super.close();
  }

  rxQueue(queue: number): CaptureDescription {
    return { ...this.#description(queue), inner: this.innerRx(queue), stream: this.#rx[queue]!.cells };
  }

  txQueue(queue: number): CaptureDescription {
    return { ...this.#description(queue), inner: this.innerTx(queue), stream: this.#tx[queue]!.cells };
  }

  override resetStats(): void {
    super.resetStats();
    for (const direction of DIRECTIONS) {
      for (const what of COUNTED) this.#reset.set(`${direction} ${what}`, this.#total(direction, what));
    }
  }

  tick(): void {
    this.#drain();
  }

  protected ownXstats(): [name: string, value: number][] {
    return DIRECTIONS.flatMap((direction) =>
      COUNTED.map((what): [string, number] => [
        `${this.device}_${direction}_${what}`,
        this.#total(direction, what) - (this.#reset.get(`${direction} ${what}`) ?? 0),
      ]),
    );
  }

  #description(queue: number): Pick<CaptureDescription, 'queue' | 'snapLength'> {
    return { queue, snapLength: this.#snapLength };
  }

  #createStream(): Stream {
    const { arena } = this.context;
    const cells = arena.reserve(`${this.device} stream`, CAPTURE_STREAM.bytes + 2 * this.#capacity);
    const buffer = cells + CAPTURE_STREAM.bytes;
    arena.u32[(cells + CELL.buffer) >>> 2] = buffer;
    arena.u32[(cells + CELL.capacity) >>> 2] = this.#capacity;
    return { cells, spare: buffer + this.#capacity };
  }

  /** Stopped. */
  #releaseStreams(): void {
    this.#drain();
    const streams = { rx: this.#rx, tx: this.#tx };
    for (const direction of DIRECTIONS) {
      for (const what of COUNTED) this.#past.set(`${direction} ${what}`, this.#total(direction, what));
      for (const { cells } of streams[direction]) this.context.arena.release(cells);
    }
    this.#rx = [];
    this.#tx = [];
  }

  /** Writes what waits. A queue that is in use just now has its turn the next time. */
  #drain(): void {
    for (const [queue, stream] of this.#rx.entries()) this.#swap(stream, this.rxLocks[queue]);
    for (const [queue, stream] of this.#tx.entries()) this.#swap(stream, this.txLocks[queue]);
  }

  #swap(stream: Stream, lock: number | undefined): void {
    const { u32, u8 } = this.context.arena;
    const { cells } = stream;
    if (u32[(cells + CELL.used) >>> 2] === 0) return;
    let bytes = 0;
    const swap = () => {
      bytes = u32[(cells + CELL.used) >>> 2]!;
      const full = u32[(cells + CELL.buffer) >>> 2]!;
      u32[(cells + CELL.buffer) >>> 2] = stream.spare;
      u32[(cells + CELL.used) >>> 2] = 0;
      stream.spare = full;
    };
    if (lock === undefined) swap();
    else if (!betweenBursts(u32, lock, swap)) return;
    this.#write(u8.subarray(stream.spare, stream.spare + bytes));
  }

  /** A disk that is full ends the capture, not the port. */
  #write(bytes: Uint8Array): void {
    if (this.#failed) return;
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#fd, bytes, at);
    } catch (error) {
      this.#failed = true;
      this.context.log(`${this.device}: capture ${this.#path}: nothing more is written, ${(error as Error).message}`);
    }
  }

  #total(direction: Direction, what: Counted): number {
    const { u32 } = this.context.arena;
    const streams = direction === 'rx' ? this.#rx : this.#tx;
    const past = this.#past.get(`${direction} ${what}`) ?? 0;
    return streams.reduce((sum, { cells }) => sum + read64(u32, (cells + CELL[what]) >>> 2), past);
  }
}

const DIRECTIONS = ['rx', 'tx'] as const;
const COUNTED = ['packets', 'dropped'] as const;
type Direction = (typeof DIRECTIONS)[number];
type Counted = (typeof COUNTED)[number];
