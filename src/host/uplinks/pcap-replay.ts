// Reads a capture (pcap or pcapng, any byte order) piece by piece and hands out its Ethernet frames when they are due.
import { closeSync, openSync, readSync } from 'node:fs';
import { type CapturedPacket, CaptureReader, LINK_TYPE } from '../../wire/pcap.js';
import { WireError } from '../../wire/struct.js';

const CHUNK_BYTES = 1 << 18;
const SHORTEST_BYTES = 14;

export class PcapReplay {
  /** Packets that are no whole Ethernet frames: cut off by the capturer, another link type, too short or too long. */
  skipped = 0;
  /** Why the capture ended early. */
  failure: string | undefined;
  readonly #longest: number;
  readonly #paced: boolean;
  readonly #reader = new CaptureReader();
  readonly #chunk = new Uint8Array(CHUNK_BYTES);
  #fd: number;
  #packets: CapturedPacket[] = [];
  #next = 0;
  #nowMs: number | undefined;
  #startMs = 0;
  #firstNs: bigint | undefined;
  #dueMs = 0;

  /** Opens the file and reads its beginning. `longest` in bytes. Throws what the file system says, or WireError when it is
   *  no capture. */
  constructor(path: string, longest: number, paced: boolean) {
    this.#longest = longest;
    this.#paced = paced;
    this.#fd = openSync(path, 'r');
    try {
      this.#read();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** All frames have been handed out. */
  get done(): boolean {
    return this.#fd < 0 && this.#next === this.#packets.length;
  }

  /** True when take() has nothing at present. */
  get waiting(): boolean {
    return this.#peek() === undefined || !this.#isDue();
  }

  tick(nowMs: number): void {
    this.#nowMs = nowMs;
  }

  /** The next frame's bytes if it is due. */
  take(): Uint8Array | undefined {
    const packet = this.#peek();
    if (!packet || !this.#isDue()) return undefined;
    this.#next++;
    return packet.data;
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
    this.#packets = [];
    this.#next = 0;
  }

  #isDue(): boolean {
    return !this.#paced || (this.#nowMs !== undefined && this.#nowMs >= this.#dueMs);
  }

  /** The next usable packet; sets when it is due. */
  #peek(): CapturedPacket | undefined {
    for (;;) {
      while (this.#next === this.#packets.length) {
        if (this.#fd < 0) return undefined;
        this.#readOn();
      }
      const packet = this.#packets[this.#next]!;
      const { length } = packet.data;
      const whole = packet.linkType === LINK_TYPE.ETHERNET && length >= packet.originalLength;
      if (whole && length >= SHORTEST_BYTES && length <= this.#longest) {
        if (this.#paced) this.#setDue(packet.timestampNs);
        return packet;
      }
      this.skipped++;
      this.#next++;
    }
  }

  /** Time starts with the first frame that is looked at after the first tick. */
  #setDue(timestampNs: bigint | undefined): void {
    if (this.#nowMs === undefined || timestampNs === undefined) return;
    if (this.#firstNs === undefined) {
      this.#firstNs = timestampNs;
      this.#startMs = this.#nowMs;
    }
    this.#dueMs = this.#startMs + Number(timestampNs - this.#firstNs) / 1e6;
  }

  #readOn(): void {
    try {
      this.#read();
    } catch (error) {
      this.failure = (error as Error).message;
      this.close();
    }
  }

  #read(): void {
    const bytes = readSync(this.#fd, this.#chunk);
    if (bytes > 0) {
      this.#packets = this.#reader.push(this.#chunk.subarray(0, bytes));
    } else {
      closeSync(this.#fd);
      this.#fd = -1;
      this.#packets = [];
      this.#reader.end();
    }
    this.#next = 0;
  }
}

/** What went wrong with a capture file, in one line. */
export function captureProblem(path: string, error: unknown): string {
  const why =
    error instanceof WireError ? `not a capture that can be read: ${error.message}` : (error as Error).message;
  return `capture ${path}: ${why}`;
}
