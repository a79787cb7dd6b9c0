// Reading capture files of either format in pieces; the writers are in pcap-classic.ts and pcapng.ts.
import {
  type CapturedPacket,
  decodePcapHeader,
  decodePcapRecord,
  PcapFileHeader,
  type PcapFormat,
  PcapRecordHeader,
  pcapMagic,
  pcapTimestamp,
} from './pcap-classic.js';
import { blockLength, decodeBlock, PCAPNG_BLOCK, type Section, sectionSwapped } from './pcapng.js';
import { WireError } from './struct.js';

export * from './pcap-classic.js';
export * from './pcapng.js';

/** Bytes that tell what comes next in a pcapng file: block header and, for a section, its byte order. */
const PCAPNG_PEEK = 12;

/** Takes a capture file chunk by chunk. The first error is final: it is thrown again by every later call. */
export class CaptureReader {
  #pending: Uint8Array = new Uint8Array(0);
  #pcap: PcapFormat | undefined;
  #section: Section | undefined;
  #failed: WireError | undefined;

  /** Packets that are complete with this chunk, with copies of their bytes. Throws WireError. */
  push(chunk: Uint8Array): CapturedPacket[] {
    return this.#guarded(() => {
      const joined = new Uint8Array(this.#pending.length + chunk.length);
      joined.set(this.#pending);
      joined.set(chunk, this.#pending.length);
      this.#pending = joined;
      const packets: CapturedPacket[] = [];
      let at = 0;
      for (;;) {
        const used = this.#step(at, packets);
        if (used === 0) break;
        at += used;
      }
      if (at > 0) this.#pending = joined.slice(at);
      return packets;
    });
  }

  /** The file ends here. Throws WireError when it ends inside a header, record or block. */
  end(): void {
    this.#guarded(() => {
      if (this.#pending.length > 0 || !(this.#pcap || this.#section)) {
        throw new WireError(
          'CAPTURE_FILE',
          '',
          `the file ends in the middle of something, ${this.#pending.length} bytes in`,
        );
      }
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

  /** Reads one thing at `at`; returns its bytes, 0 when it is not there in full yet. */
  #step(at: number, packets: CapturedPacket[]): number {
    const left = this.#pending.length - at;
    if (!this.#pcap && !this.#section) return this.#start(left);
    if (this.#section) return this.#block(at, left, packets);
    if (left < PcapRecordHeader.size) return 0;
    const format = this.#pcap!;
    const { seconds, fraction, capturedLength, originalLength } = decodePcapRecord(this.#pending, at, format);
    const total = PcapRecordHeader.size + capturedLength;
    if (left < total) return 0;
    const data = this.#pending.slice(at + PcapRecordHeader.size, at + total);
    const timestampNs = pcapTimestamp(seconds, fraction, format.nanoseconds);
    packets.push({ interfaceId: 0, linkType: format.linkType, timestampNs, originalLength, data });
    return total;
  }

  /** The first bytes of the file. */
  #start(left: number): number {
    if (left < 4) return 0;
    const magic = new DataView(this.#pending.buffer, this.#pending.byteOffset).getUint32(0, true);
    if (magic === PCAPNG_BLOCK.SECTION_HEADER) return this.#block(0, left, []);
    const order = pcapMagic(magic);
    if (!order) {
      throw new WireError(PcapFileHeader.name, 'magic', `expected a pcap or pcapng file, got 0x${magic.toString(16)}`);
    }
    if (left < PcapFileHeader.size) return 0;
    this.#pcap = decodePcapHeader(this.#pending, order);
    return PcapFileHeader.size;
  }

  #block(at: number, left: number, packets: CapturedPacket[]): number {
    if (left < PCAPNG_PEEK) return 0;
    const view = new DataView(this.#pending.buffer, this.#pending.byteOffset + at);
    // The type of a section header reads the same in both byte orders.
    const starts = view.getUint32(0, true) === PCAPNG_BLOCK.SECTION_HEADER;
    const section = starts ? { swapped: sectionSwapped(this.#pending, at), interfaces: [] } : this.#section!;
    const total = blockLength(this.#pending, at, section.swapped);
    if (left < total) return 0;
    const packet = decodeBlock(this.#pending.subarray(at, at + total), section);
    this.#section = section;
    if (packet) packets.push(packet);
    return total;
  }
}

/** Every packet of a whole file. Throws WireError. */
export function readCapture(file: Uint8Array): CapturedPacket[] {
  const reader = new CaptureReader();
  const packets = reader.push(file);
  reader.end();
  return packets;
}
