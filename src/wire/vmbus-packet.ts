// Whole VMBus packets, all four kinds: descriptor, range lists, payload padded to 8 (facts/hyper-v-host.md 1.2).
import { WireError } from './struct.js';
import {
  GpaDirectHeader,
  GpaRange,
  PACKET_FLAG,
  PACKET_TYPE,
  PAGE_BYTES,
  PacketDescriptor,
  TransferPageRange,
  TransferPagesHeader,
} from './vmbus.js';

export interface TransferRange {
  readonly byteCount: number;
  readonly byteOffset: number;
}

export interface GuestRange extends TransferRange {
  /** Page frame numbers (address / 4096). */
  readonly pfns: readonly bigint[];
}

interface Common {
  readonly transactionId: bigint;
  readonly completionRequested: boolean;
  /** Decoded payloads include the zeros that round them up to 8 bytes. */
  readonly payload: Uint8Array;
}

export type VmbusPacket = Common &
  (
    | { readonly kind: 'inBand' | 'completion' }
    | { readonly kind: 'transferPages'; readonly transferPageSetId: number; readonly ranges: readonly TransferRange[] }
    | { readonly kind: 'gpaDirect'; readonly ranges: readonly GuestRange[] }
  );

const TYPE_OF = {
  inBand: PACKET_TYPE.IN_BAND,
  transferPages: PACKET_TYPE.TRANSFER_PAGES,
  gpaDirect: PACKET_TYPE.GPA_DIRECT,
  completion: PACKET_TYPE.COMPLETION,
} as const;

const HEADER_END = 24;
const RANGE_BYTES = TransferPageRange.size;

const pad8 = (n: number): number => (n + 7) & ~7;

/** Pages that a range touches. */
export function pagesOf(range: TransferRange): number {
  return Math.ceil((range.byteOffset + range.byteCount) / PAGE_BYTES);
}

/** The packet's bytes without footer. Throws WireError when a range is illegal or the packet exceeds 65535 * 8 bytes. */
export function encodePacket(packet: VmbusPacket): Uint8Array<ArrayBuffer> {
  const { kind, payload } = packet;
  let head: number = PacketDescriptor.size;
  if (kind === 'transferPages') head = HEADER_END + packet.ranges.length * RANGE_BYTES;
  if (kind === 'gpaDirect') {
    if (packet.ranges.length === 0) throw new WireError(GpaDirectHeader.name, 'rangeCount', 'expected a range, got 0');
    head = HEADER_END;
    for (const range of packet.ranges) {
      checkGuestRange(range);
      if (range.pfns.length !== pagesOf(range)) {
        throw new WireError(GpaRange.name, 'pfns', `expected ${pagesOf(range)} page frames, got ${range.pfns.length}`);
      }
      head += RANGE_BYTES + range.pfns.length * 8;
    }
  }
  const total = head + pad8(payload.length);
  if (total / 8 > 0xffff) {
    throw new WireError(PacketDescriptor.name, 'length8', `expected at most ${0xffff * 8} bytes, got ${total}`);
  }
  const out = new Uint8Array(total);
  const { transactionId } = packet;
  const flags = packet.completionRequested ? PACKET_FLAG.COMPLETION_REQUESTED : 0;
  if (kind === 'transferPages' || kind === 'gpaDirect') encodeRanges(packet, out);
  PacketDescriptor.encodeInto(
    { type: TYPE_OF[kind], dataOffset8: head / 8, length8: total / 8, flags, transactionId },
    out,
  );
  out.set(payload, head);
  return out;
}

/** The extended headers' tables count from the descriptor, which is written after them. */
function encodeRanges(packet: VmbusPacket & { kind: 'transferPages' | 'gpaDirect' }, out: Uint8Array): void {
  const view = new DataView(out.buffer);
  const rangeCount = packet.ranges.length;
  let at = HEADER_END;
  if (packet.kind === 'transferPages') {
    TransferPagesHeader.encodeInto({ transferPageSetId: packet.transferPageSetId, rangeCount }, out);
    for (const range of packet.ranges) {
      TransferPageRange.encodeInto(range, out, at);
      at += RANGE_BYTES;
    }
  } else {
    GpaDirectHeader.encodeInto({ rangeCount }, out);
    for (const range of packet.ranges) {
      GpaRange.encodeInto(range, out, at);
      at += RANGE_BYTES;
      for (const pfn of range.pfns) {
        if (typeof pfn !== 'bigint' || pfn < 0n || pfn > 0xffffffffffffffffn) {
          throw new WireError(GpaRange.name, 'pfns', `expected a page frame number of 64 bits, got ${pfn}`);
        }
        view.setBigUint64(at, pfn, true);
        at += 8;
      }
    }
  }
}

function checkGuestRange({ byteCount, byteOffset }: TransferRange): void {
  if (!(byteCount > 0)) throw new WireError(GpaRange.name, 'byteCount', `expected more than 0, got ${byteCount}`);
  if (!(byteOffset >= 0 && byteOffset < PAGE_BYTES)) {
    throw new WireError(GpaRange.name, 'byteOffset', `expected less than ${PAGE_BYTES}, got ${byteOffset}`);
  }
  if (byteOffset + byteCount > 0xffffffff) {
    throw new WireError(GpaRange.name, 'byteCount', `expected an end below 2^32, got ${byteOffset + byteCount}`);
  }
}

/** Reads the packet at `at`. Throws WireError for whatever a Hyper-V host calls a corrupt ring. */
export function decodePacket(bytes: Uint8Array, at = 0): VmbusPacket {
  const descriptor = PacketDescriptor.decode(bytes, at);
  const { type, transactionId, flags } = descriptor;
  const head = descriptor.dataOffset8 * 8;
  const total = descriptor.length8 * 8;
  const fail = (field: string, what: string): never => {
    throw new WireError(PacketDescriptor.name, field, what);
  };
  const extended = type === PACKET_TYPE.TRANSFER_PAGES || type === PACKET_TYPE.GPA_DIRECT;
  const least = extended ? HEADER_END : PacketDescriptor.size;
  if ((flags & ~PACKET_FLAG.COMPLETION_REQUESTED) !== 0) fail('flags', `expected 0 or 1, got 0x${flags.toString(16)}`);
  if (head < least) fail('dataOffset8', `expected at least ${least / 8}, got ${head / 8}`);
  if (total < head) fail('length8', `expected at least dataOffset8 ${head / 8}, got ${total / 8}`);
  if (total > bytes.length - at) fail('length8', `expected at most ${bytes.length - at} bytes, got ${total}`);
  const packet = bytes.slice(at, at + total);
  const common: Common = {
    transactionId,
    completionRequested: flags !== 0,
    payload: packet.subarray(head),
  };
  switch (type) {
    case PACKET_TYPE.IN_BAND:
      return { ...common, kind: 'inBand' };
    case PACKET_TYPE.COMPLETION:
      return { ...common, kind: 'completion' };
    case PACKET_TYPE.TRANSFER_PAGES: {
      const { transferPageSetId, rangeCount } = TransferPagesHeader.decode(packet);
      return { ...common, kind: 'transferPages', transferPageSetId, ranges: transferRanges(packet, head, rangeCount) };
    }
    case PACKET_TYPE.GPA_DIRECT:
      return { ...common, kind: 'gpaDirect', ranges: guestRanges(packet, head) };
  }
  return fail('type', `expected 6, 7, 9 or 0xb, got 0x${type.toString(16)}`);
}

function transferRanges(packet: Uint8Array, head: number, rangeCount: number): TransferRange[] {
  // A Hyper-V host calls any other size of the extended header corrupt; so does this decoder.
  if (HEADER_END + rangeCount * RANGE_BYTES !== head) {
    const what = `expected the ranges to fill ${head - HEADER_END} bytes, got ${rangeCount} ranges`;
    throw new WireError(TransferPagesHeader.name, 'rangeCount', what);
  }
  return Array.from({ length: rangeCount }, (_, i) => TransferPageRange.decode(packet, HEADER_END + i * RANGE_BYTES));
}

function guestRanges(packet: Uint8Array, head: number): GuestRange[] {
  const { rangeCount } = GpaDirectHeader.decode(packet);
  const most = (head - HEADER_END) / (RANGE_BYTES + 8);
  if (rangeCount === 0 || rangeCount > most) {
    throw new WireError(GpaDirectHeader.name, 'rangeCount', `expected 1..${Math.floor(most)}, got ${rangeCount}`);
  }
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  const ranges: GuestRange[] = [];
  let at = HEADER_END;
  for (let i = 0; i < rangeCount; i++) {
    const range = GpaRange.decode(packet.subarray(0, head), at);
    checkGuestRange(range);
    at += RANGE_BYTES;
    const pages = pagesOf(range);
    if (pages * 8 > head - at) {
      throw new WireError(GpaRange.name, 'byteCount', `expected room for ${pages} page frames, got ${head - at} bytes`);
    }
    const pfns: bigint[] = [];
    for (let page = 0; page < pages; page++) pfns.push(view.getBigUint64(at + page * 8, true));
    at += pages * 8;
    ranges.push({ ...range, pfns });
  }
  if (at !== head) {
    throw new WireError(GpaDirectHeader.name, 'rangeCount', `expected the ranges to end at byte ${head}, got ${at}`);
  }
  return ranges;
}
