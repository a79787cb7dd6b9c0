// Reading capture files of either format in pieces; the writers are in pcap-classic.ts and pcapng.ts.
import { CaptureCursor } from './capture-cursor.js';
import type { CapturedPacket } from './pcap-classic.js';
import { WireError } from './struct.js';

export * from './pcap-classic.js';
export * from './pcapng.js';

/** Takes a capture file chunk by chunk. The first error is final: it is thrown again by every later call. */
export class CaptureReader {
  #pending: Uint8Array = new Uint8Array(0);
  readonly #cursor = new CaptureCursor();
  #failed: WireError | undefined;

  /** Packets that are complete with this chunk, with copies of their bytes. Throws WireError. */
  push(chunk: Uint8Array): CapturedPacket[] {
    return this.#guarded(() => {
      const joined = new Uint8Array(this.#pending.length + chunk.length);
      joined.set(this.#pending);
      joined.set(chunk, this.#pending.length);
      this.#pending = joined;
      const cursor = this.#cursor;
      const packets: CapturedPacket[] = [];
      let at = 0;
      for (;;) {
        const used = cursor.next(joined, at, joined.length);
        if (used === 0) break;
        at += used;
        if (!cursor.isPacket) continue;
        const { interfaceId, linkType, originalLength, dataAt, capturedLength } = cursor;
        const data = joined.slice(dataAt, dataAt + capturedLength);
        packets.push({ interfaceId, linkType, timestampNs: cursor.timestampNs(), originalLength, data });
      }
      if (at > 0) this.#pending = joined.slice(at);
      return packets;
    });
  }

  /** The file ends here. Throws WireError when it ends inside a header, record or block. */
  end(): void {
    this.#guarded(() => {
      if (this.#pending.length === 0 && this.#cursor.started) return;
      const problem = `the file ends in the middle of something, ${this.#pending.length} bytes in`;
      throw new WireError('CAPTURE_FILE', '', problem);
    });
  }

  #guarded<T>(run: () => T): T {
    if (this.#failed) throw this.#failed;
    try {
      return run();
    } catch (error) {
      if (error instanceof WireError) this.#failed = error;
      throw error;
    }
  }
}

/** Every packet of a whole file. Throws WireError. */
export function readCapture(file: Uint8Array): CapturedPacket[] {
  const reader = new CaptureReader();
  const packets = reader.push(file);
  reader.end();
  return packets;
}
