// The control half of net_pcap: files, buffers, and what is told of them.
import { closeSync } from 'node:fs';
import { RX_OFFLOAD, TX_OFFLOAD } from '../../ethdev/constants.js';
import type { Devargs } from '../../ethdev/devargs.js';
import type { PortDriver } from '../../ethdev/driver.js';
import { PortError } from '../../ethdev/errors.js';
import { betweenBursts } from '../../ethdev/queues.js';
import type { PortInfo } from '../../ethdev/types.js';
import { read64 } from '../../memory/cells64.js';
import { CAPTURE_FAILURE_BYTES, CAPTURE_READ, CAPTURE_WRITE } from '../../memory/layout-captures.js';
import { errorName } from '../../memory/os/libc.js';
import { MAX_CAPTURED_BYTES } from '../../wire/pcap.js';
import {
  CAPTURE_PACKET_MAX,
  type CaptureFormat,
  captureStart,
  createCaptureFile,
  SNAP_MIN,
} from '../capture-packet.js';
import { QUEUES_MAX, usualInfo, VirtualPort } from '../virtual-port.js';
import { CaptureFile, type PcapRxDescription, READ_BYTES } from './rx.js';
import { flushCapture, type PcapTxDescription } from './tx.js';

const ARGUMENTS = ['rx_pcap', 'tx_pcap', 'infinite_rx', 'pace', 'snaplen', 'keep_time'];
const WRITE_BYTES = 1 << 20;
const SPEED_MAX = 1_000_000;
const SEGMENTS_MAX = 65_535;
const FLUSH_MS = 1000;

interface Source {
  readonly path: string;
  readonly cells: number;
  readonly buffer: number;
  /** Its failure has been said. */
  said: boolean;
}

interface Sink {
  readonly path: string;
  readonly format: CaptureFormat;
  readonly fd: number;
  readonly cells: number;
  readonly buffer: number;
  said: boolean;
}

export class PcapPort extends VirtualPort implements PortDriver {
  readonly #sources: Source[] = [];
  readonly #sinks: Sink[] = [];
  readonly #infinite: boolean;
  readonly #speed: number;
  readonly #snapLength: number;
  readonly #keepTime: boolean;
  #txLocks: readonly number[] = [];
  #flushedMs = 0;

  constructor(...[context, device, args]: ConstructorParameters<typeof VirtualPort>) {
    super(context, device, args);
    try {
      this.#infinite = args.flag('infinite_rx');
      this.#speed = args.number('pace', 0, 0, SPEED_MAX);
      this.#snapLength = args.number('snaplen', MAX_CAPTURED_BYTES, SNAP_MIN, MAX_CAPTURED_BYTES);
      this.#keepTime = args.flag('keep_time');
      const sources = files(device, args, 'rx_pcap');
      const sinks = files(device, args, 'tx_pcap');
      args.done(ARGUMENTS);
      for (const path of sources) this.#addSource(path);
      for (const path of sinks) this.#addSink(path);
    } catch (error) {
      void this.close();
      if (error instanceof PortError) throw error;
      throw new PortError('EIO', device, (error as Error).message, { cause: error });
    }
  }

  info(): PortInfo {
    return usualInfo('net_pcap', this.device, {
      maxRxQueues: this.#sources.length || QUEUES_MAX,
      maxTxQueues: this.#sinks.length || QUEUES_MAX,
      maxRxPacketBytes: MAX_CAPTURED_BYTES,
      ...{ rxOffloads: RX_OFFLOAD.SCATTER | RX_OFFLOAD.TIMESTAMP, txOffloads: TX_OFFLOAD.MULTI_SEGS },
      maxTxSegments: SEGMENTS_MAX,
    });
  }

  useLocks(_rx: readonly number[], tx: readonly number[]): void {
    this.#txLocks = tx;
  }

  override async start(): Promise<void> {
    for (const source of this.#sources) this.#check(source);
    const { u32 } = this.context.arena;
    for (const { cells } of this.#sources) {
      const next = u32[(cells + CAPTURE_READ.at.generation) >>> 2]! + 1;
      u32.fill(0, cells >>> 2, (cells + CAPTURE_READ.at.skipped) >>> 2);
      u32[(cells + CAPTURE_READ.at.generation) >>> 2] = next;
    }
    for (const source of this.#sources) source.said = false;
  }

  override async stop(): Promise<void> {
    for (const { cells } of this.#sinks) flushCapture(this.context.arena, cells);
    this.#speak();
  }

  override async close(): Promise<void> {
    const { arena } = this.context;
    for (const { cells, buffer } of this.#sources) {
      arena.release(cells);
      arena.release(buffer);
    }
    for (const { cells, buffer, fd } of this.#sinks) {
      flushCapture(arena, cells);
      closeSync(fd);
      arena.release(cells);
      arena.release(buffer);
    }
    this.#sources.length = 0;
    this.#sinks.length = 0;
    await super.close();
  }

  rxQueue(queue: number): PcapRxDescription {
    const { pool } = this.rxSetup(queue);
    const { cells = 0, buffer = 0, path = '' } = this.#sources[queue] ?? {};
    const { rxOffloads } = this.config!;
    return {
      ...{ cells, buffer, path, pool: pool.address, fits: pool.room - pool.headroom },
      scatter: (rxOffloads & RX_OFFLOAD.SCATTER) !== 0,
      timestamps: (rxOffloads & RX_OFFLOAD.TIMESTAMP) !== 0,
      ...{ infinite: this.#infinite, speed: this.#speed, counters: this.rxCounters(queue) },
    };
  }

  txQueue(queue: number): PcapTxDescription {
    const { cells = 0, format = 'pcap' } = this.#sinks[queue] ?? {};
    return {
      ...{ cells, format, snapLength: this.#snapLength, keepTime: this.#keepTime },
      counters: this.txCounters(queue),
    };
  }

  override xstats(): [name: string, value: number][] {
    const { u32 } = this.context.arena;
    return this.#sources.flatMap(({ cells }, queue) => {
      const { ended, laps, skipped, truncated } = CAPTURE_READ.at;
      return [
        [`rx_q${queue}_file_ended`, u32[(cells + ended) >>> 2]!] as [string, number],
        [`rx_q${queue}_file_laps`, read64(u32, (cells + laps) >>> 2)] as [string, number],
        [`rx_q${queue}_skipped_packets`, read64(u32, (cells + skipped) >>> 2)] as [string, number],
        [`rx_q${queue}_truncated_packets`, read64(u32, (cells + truncated) >>> 2)] as [string, number],
      ];
    });
  }

  tick(nowMs: number): void {
    this.#speak();
    if (nowMs - this.#flushedMs < FLUSH_MS) return;
    this.#flushedMs = nowMs;
    const { arena } = this.context;
    for (const [queue, { cells }] of this.#sinks.entries()) {
      const lock = this.#txLocks[queue];
      if (lock !== undefined) betweenBursts(arena.u32, lock, () => flushCapture(arena, cells));
    }
  }

  #addSource(path: string): void {
    const { arena } = this.context;
    const cells = arena.reserve(`${this.device} rx`, CAPTURE_READ.bytes + CAPTURE_FAILURE_BYTES);
    const source = { path, cells, buffer: arena.reserve(`${this.device} rx file`, READ_BYTES), said: false };
    this.#sources.push(source);
    this.#check(source);
  }

  /** Throws PortError when the file is none to receive from, by its beginning. */
  #check({ path, buffer }: Source): void {
    let file: CaptureFile | undefined;
    try {
      file = new CaptureFile(this.context.arena, buffer, path);
      file.next();
    } catch (error) {
      throw new PortError('EIO', this.device, (error as Error).message);
    } finally {
      file?.close();
    }
  }

  #addSink(path: string): void {
    const { arena } = this.context;
    const format = path.endsWith('.pcapng') ? 'pcapng' : 'pcap';
    const fd = createCaptureFile(path);
    const cells = arena.reserve(`${this.device} tx`, CAPTURE_WRITE.bytes);
    const bytes = WRITE_BYTES + CAPTURE_PACKET_MAX;
    const sink = {
      path,
      format,
      fd,
      cells,
      buffer: arena.reserve(`${this.device} tx file`, bytes),
      said: false,
    } as const;
    this.#sinks.push({ ...sink });
    const start = captureStart(format, this.device);
    arena.u8.set(start, sink.buffer);
    const values = { fd, buffer: sink.buffer, capacity: bytes, used: start.length };
    for (const [cell, value] of Object.entries(values))
      arena.u32[(cells + CAPTURE_WRITE.at[cell as keyof typeof values]) >>> 2] = value;
    flushCapture(arena, cells);
  }

  /** Says why a file ended early. */
  #speak(): void {
    const { u32, u8 } = this.context.arena;
    for (const source of this.#sources) {
      const bytes = u32[(source.cells + CAPTURE_READ.at.failureBytes) >>> 2]!;
      if (bytes === 0 || source.said) continue;
      source.said = true;
      const from = source.cells + CAPTURE_READ.bytes;
      this.context.log(`${this.device}: ${Buffer.from(u8.slice(from, from + bytes)).toString()}`);
    }
    for (const sink of this.#sinks) {
      const errno = u32[(sink.cells + CAPTURE_WRITE.at.errno) >>> 2]!;
      if (errno === 0 || sink.said) continue;
      sink.said = true;
      this.context.log(`${this.device}: capture ${sink.path}: nothing more is written, ${errorName(errno)}`);
    }
  }
}

/** The files of a key. Throws PortError for one without a name. */
function files(device: string, args: Devargs, key: string): string[] {
  return args.all(key).map((path) => {
    if (path === undefined || path === '') throw new PortError('EINVAL', device, `${key}: expected a file`);
    return path;
  });
}
