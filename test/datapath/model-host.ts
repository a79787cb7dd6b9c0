// The host half of the model: facts/hyper-v-host.md 4 (messages), 6 (offloads) and 8 (buffers).
import {
  FRAME_ERROR as E,
  EVENT_KIND,
  PACKET_FLAG as F,
  HEAD_BYTES,
  NO_SECTION,
  RING_ERROR,
} from '../../src/memory/layout.js';
import {
  Events,
  finishChecksums,
  type Info,
  infoToVlan,
  join,
  type ModelMemory,
  nvspRndis,
  readWord,
  restoreLength,
  rndisHead,
  vlanToInfo,
  words,
} from './model.js';
import { ModelEnd, type RingPacket } from './model-ring.js';

export interface HostConfig {
  readonly guestRing: number;
  readonly hostRing: number;
  readonly ringSize: number;
  readonly eventBytes: number;
  readonly receiveBuffer: number;
  readonly suballocationBytes: number;
  readonly suballocationCount: number;
  readonly firstDataSuballocation: number;
  readonly receiveBufferId: number;
  readonly sendBuffer: number;
  readonly sendBytes: number;
  readonly sendSectionBytes: number;
  readonly nvspBytes: number;
  readonly maxFrameBytes: number;
  readonly maxRanges: number;
  /** Mapped guest pages, at the same addresses. */
  readonly packets: number;
  readonly packetBytes: number;
  readonly transactionCapacity: number;
  readonly frameCapacity: number;
  readonly fragmentCapacity: number;
}

export interface ModelFrame {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly flags: number;
  readonly vlanTci: number;
  readonly mss: number;
  readonly l4Offset: number;
  readonly hash: number;
  readonly hashInfo: number;
}

export interface PolledFrame extends ModelFrame {
  readonly transaction: number;
  readonly fragments: number;
}

interface Piece {
  readonly address: number;
  bytes: number;
  readonly range: number;
}

class Refused extends Error {
  readonly reason: number;
  constructor(reason: number) {
    super(`frame error ${reason}`);
    this.reason = reason;
  }
}

const CONTROL_BYTES = 16384;
const FRAME_AT = 256;
const TAIL = 36;
const SPARE = 2048;
type Taken = 'taken' | 'later' | 'dead';

export class ModelHost {
  readonly c: HostConfig;
  readonly end: ModelEnd;
  readonly events: Events;
  readonly #memory: ModelMemory;
  readonly freeData: number[];
  readonly freeControl: number[];
  /** Chains in the guest's hands, by their head. */
  readonly chains = new Map<number, number[]>();
  transactions: { idLow: number; idHigh: number; status: number; wanted: boolean }[] = [];
  done = 0;
  frames: PolledFrame[] = [];
  frameError = 0;

  constructor(memory: ModelMemory, config: HostConfig) {
    this.c = config;
    this.#memory = memory;
    this.end = new ModelEnd(memory, config.hostRing, config.guestRing, config.ringSize);
    this.events = new Events(config.eventBytes);
    const { suballocationCount: all, firstDataSuballocation: control } = config;
    this.freeData = Array.from({ length: all - control }, (_, i) => all - 1 - i);
    this.freeControl = Array.from({ length: control }, (_, i) => control - 1 - i);
  }

  #count(name: string, by = 1): void {
    this.end.counters.add(name, by);
  }

  poll(max: number): PolledFrame[] | undefined {
    const { end, c } = this;
    if (end.error !== 0 || this.complete() > 0) return undefined;
    this.transactions = [];
    this.done = 0;
    this.frames = [];
    const limit = end.limit();
    let read = end.readIndex;
    while (read !== limit && this.frames.length < max && this.transactions.length < c.transactionCapacity) {
      const packet = end.packet(read, limit);
      const taken = packet ? this.#packet(packet) : 'later';
      if (!packet || taken === 'later') break;
      read = packet.next;
      this.#count('ringPacketsIn');
      if (taken === 'dead' || this.events.used > 0) break;
    }
    end.release(read);
    return this.frames;
  }

  #dead(error: number, detail: number): 'dead' {
    this.end.fail(error, detail);
    return 'dead';
  }

  #packet(packet: RingPacket): Taken {
    const { type, flags, idLow, idHigh, payload } = packet;
    if (type === 7) return this.#dead(RING_ERROR.TYPE, 7);
    if (type === 11) return this.#completion(packet);
    if (payload.length < 4 || readWord(payload, 0) !== 107) {
      return this.events.put({ kind: EVENT_KIND.NVSP, idLow, idHigh, a: flags, b: type, payload }) ? 'taken' : 'later';
    }
    if (payload.length < 16) return this.#dead(RING_ERROR.NVSP_SHORT, payload.length);
    return this.#data(packet);
  }

  #completion({ idLow, idHigh, payload }: RingPacket): Taken {
    if (idHigh !== 0) {
      return this.events.put({ kind: EVENT_KIND.COMPLETION, idLow, idHigh, a: 0, b: 0, payload }) ? 'taken' : 'later';
    }
    if (payload.length < 4) return this.#dead(RING_ERROR.NVSP_SHORT, payload.length);
    if (readWord(payload, 0) !== 108) return this.#dead(RING_ERROR.NVSP_UNKNOWN, readWord(payload, 0));
    const chain = this.chains.get(idLow);
    if (!chain) return this.#dead(RING_ERROR.UNKNOWN_TRANSACTION, idLow);
    this.chains.delete(idLow);
    for (const index of chain) {
      (index < this.c.firstDataSuballocation ? this.freeControl : this.freeData).push(index);
    }
    this.#count('rxCompletions');
    return 'taken';
  }

  /** External data: the section's bytes, then the GPA ranges'. */
  #data({ type, flags, idLow, idHigh, head, payload }: RingPacket): Taken {
    const { c } = this;
    const pieces: Piece[] = [];
    const [section, sectionBytes] = [readWord(payload, 8), readWord(payload, 12)];
    if (section !== NO_SECTION) {
      const offset = section * c.sendSectionBytes;
      if (offset + sectionBytes > c.sendBytes) return this.#dead(RING_ERROR.BAD_SECTION, section);
      if (sectionBytes > 0) pieces.push({ address: c.sendBuffer + offset, bytes: sectionBytes, range: 0 });
    }
    if (type === 9) {
      const result = this.#ranges(head, pieces);
      if (typeof result === 'string') return result;
      if (typeof result === 'object') {
        const miss = { idLow: result.low, idHigh: result.high, a: 0, b: 0, payload: words() };
        this.events.put({ kind: EVENT_KIND.GPA_MISS, ...miss });
        return 'later';
      }
    }
    const external = join(...pieces.map((p) => this.#memory.take(p.address, p.bytes)));
    const wanted = flags === 1;
    const added: PolledFrame[] = [];
    try {
      if (external.length < 8) throw new Refused(E.MESSAGE_LENGTH);
      if (new Set(owners(pieces, 0, 8)).size > 1) throw new Refused(E.HEADER_SPLIT);
      if (readWord(external, 0) !== 1) {
        const control = { kind: EVENT_KIND.RNDIS_CONTROL, idLow, idHigh, a: flags, b: 0 };
        return this.events.put({ ...control, payload: external.slice(0, CONTROL_BYTES) }) ? 'taken' : 'later';
      }
      this.#messages(external, pieces, added);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.reason === E.TOO_MANY && this.frames.length > 0) return 'later';
      this.frameError = error.reason;
      this.#count('txFailed');
      this.transactions.push({ idLow, idHigh, status: 2, wanted });
      return 'taken';
    }
    this.frames.push(...added);
    this.transactions.push({ idLow, idHigh, status: 1, wanted });
    this.#count('txMessages');
    if (type === 9) this.#count('txDirect');
    for (const frame of added) {
      this.#count('txPackets');
      this.#count('txBytes', frame.bytes.length);
      if (frame.flags & F.TX_TSO) this.#count('txLso');
      else if (frame.flags & (F.TX_TCP_CHECKSUM | F.TX_UDP_CHECKSUM)) this.#count('txChecksum');
      if (frame.flags & F.VLAN) this.#count('txVlan');
    }
    return 'taken';
  }

  #ranges(head: Uint8Array, pieces: Piece[]): 'dead' | { low: number; high: number } | undefined {
    const { c } = this;
    if (head.length < 24) return this.#dead(RING_ERROR.EXTENDED_HEADER, head.length);
    const count = readWord(head, 20);
    if (count === 0 || count > head.length / 8) return this.#dead(RING_ERROR.EXTENDED_HEADER, count);
    let miss: { low: number; high: number } | undefined;
    let at = 24;
    for (let range = 1; range <= count; range++) {
      if (at + 8 > head.length) return this.#dead(RING_ERROR.EXTENDED_HEADER, at);
      const [bytes, offset] = [readWord(head, at), readWord(head, at + 4)];
      at += 8;
      const pages = Math.ceil((offset + bytes) / 4096);
      if (bytes === 0 || offset > 4095 || pages * 8 > head.length - at) return this.#dead(RING_ERROR.GPA_RANGE, bytes);
      for (let page = 0; page < pages; page++, at += 8) {
        const [low, high] = [readWord(head, at), readWord(head, at + 4)];
        const begin = page === 0 ? offset : 0;
        const stop = page === pages - 1 ? offset + bytes - page * 4096 : 4096;
        const address = low * 4096;
        if (high !== 0 || address < c.packets || address >= c.packets + c.packetBytes) miss ??= { low, high };
        else addPiece(pieces, { address: address + begin, bytes: stop - begin, range });
      }
    }
    if (at !== head.length) return this.#dead(RING_ERROR.EXTENDED_HEADER, at);
    return miss;
  }

  /** Packet messages back to back until the data ends. Throws Refused. */
  #messages(external: Uint8Array<ArrayBuffer>, pieces: Piece[], added: PolledFrame[]): void {
    const { c } = this;
    const fragments = () => [...this.frames, ...added].reduce((sum, frame) => sum + frame.fragments, 0);
    let at = 0;
    while (at < external.length) {
      const left = external.length - at;
      if (left < 8) throw new Refused(E.MESSAGE_LENGTH);
      const whole = (bytes: number) => new Set(owners(pieces, at, Math.min(bytes, left))).size === 1;
      if (!whole(left < 44 ? 8 : 44)) throw new Refused(E.HEADER_SPLIT);
      const word = (offset: number) => readWord(external, at + offset);
      const length = word(4);
      if (length < 8 || length > left) throw new Refused(E.MESSAGE_LENGTH);
      if (word(0) !== 1) throw new Refused(E.MESSAGE_TYPE);
      if (length < 44) throw new Refused(E.MESSAGE_LENGTH);
      if (word(16) || word(20) || word(24) || word(36)) throw new Refused(E.OUT_OF_BAND);
      const [dataAt, dataBytes, infoAt, infoSize] = [word(8) + 8, word(12), word(28) + 8, word(32)];
      if (dataBytes === 0 || dataAt + dataBytes > left) throw new Refused(E.DATA_RANGE);
      let infos = { flags: 0, vlanTci: 0, mss: 0, l4Offset: 0 };
      if (infoSize > 0) {
        if (infoAt + infoSize > left || infoSize > 1024) throw new Refused(E.PPI_RANGE);
        const tooFar = pieces.length > 1 && infoAt + infoSize > CONTROL_BYTES;
        if (tooFar || !whole(infoAt + infoSize)) throw new Refused(E.HEADER_SPLIT);
        infos = readInfos(external.slice(at + infoAt, at + infoAt + infoSize), dataBytes);
      }
      const large = (infos.flags & F.TX_TSO) !== 0;
      if (dataBytes < 14 || (dataBytes > c.maxFrameBytes && !large)) throw new Refused(E.FRAME_LENGTH);
      const used = fragments();
      const count = fragmentsOf(pieces, at + dataAt, dataBytes);
      const full = this.frames.length + added.length >= c.frameCapacity;
      if (full || used + count > c.fragmentCapacity) throw new Refused(E.TOO_MANY);
      const bytes = external.slice(at + dataAt, at + dataAt + dataBytes);
      added.push({ ...infos, bytes, hash: 0, hashInfo: 0, transaction: this.transactions.length, fragments: count });
      at += length;
    }
  }

  /** Completions of the last poll; returns how many messages still wait. */
  complete(): number {
    const { end, c } = this;
    for (; this.done < this.transactions.length; this.done++) {
      const { idLow, idHigh, status, wanted } = this.transactions[this.done]!;
      if (!wanted) continue;
      const total = ModelEnd.bytes(0, c.nvspBytes);
      if (!end.hasRoom(total)) {
        end.blocked = total;
        this.#count('ringFull');
        break;
      }
      end.write(11, 0, idLow, idHigh, words(), join(words(108, status), new Uint8Array(c.nvspBytes - 8)));
    }
    end.publish();
    return this.transactions.length - this.done;
  }

  // To the guest.

  send(frames: readonly ModelFrame[]): number {
    const { c, end } = this;
    if (end.error !== 0) return 0;
    const room = c.suballocationBytes - FRAME_AT - TAIL;
    let batch: number[] = [];
    let sent = 0;
    const packetBytes = (ranges: number) => ModelEnd.bytes(8 + ranges * 8, c.nvspBytes);
    const flush = () => {
      if (batch.length === 0) return;
      const ranges = batch.map((index) => words(c.suballocationBytes, index * c.suballocationBytes));
      const head = words(c.receiveBufferId, batch.length);
      end.write(7, 1, batch[0]!, 0, join(head, ...ranges), nvspRndis(c.nvspBytes, 0, NO_SECTION, 0));
      this.chains.set(batch[0]!, batch);
      batch = [];
      this.#count('rxMessages');
    };
    for (const frame of frames) {
      const tso = (frame.flags & F.TX_TSO) !== 0;
      const { parts, first, step, segments } = tso ? divide(frame, room, c.maxRanges) : oneOf(frame, room);
      if (parts > 1 && (!tso || parts > c.maxRanges)) {
        this.#count('rxTooBig');
        continue;
      }
      if (this.freeData.length < parts) {
        this.#count('rxNoSuballocation');
        continue;
      }
      if (batch.length + parts > c.maxRanges) flush();
      if (!end.hasRoom(packetBytes(batch.length + parts) + SPARE)) {
        this.#count('rxRingFull');
        continue;
      }
      const bytes = frame.bytes.slice();
      // No bit says "UDP checksum not filled in": it is finished here, and right then.
      const udp = parts === 1 && (frame.flags & F.TX_UDP_CHECKSUM) !== 0;
      const right = udp && finishChecksums(bytes, F.TX_UDP_CHECKSUM, frame.l4Offset);
      const seen = right ? { ...frame, flags: (frame.flags & ~F.RX_L4_BAD) | F.UDP | F.RX_L4_GOOD } : frame;
      if (tso) restoreLength(bytes, bytes.length, (frame.flags & F.IPV6) !== 0);
      for (let part = 0; part < parts; part++) {
        const index = this.freeData.pop()!;
        const place = 1 | (part === 0 ? 2 : 0) | (part === parts - 1 ? 4 : 0);
        const from = part === 0 ? 0 : first + (part - 1) * step;
        const piece = bytes.subarray(from, part === 0 ? first : from + step);
        this.#fill(index, seen, piece, parts > 1 ? place : 0, part === 0 ? segments : 0);
        batch.push(index);
      }
      if (parts > 1) this.#count('rxCoalesced');
      if (frame.flags & F.VLAN) this.#count('rxVlan');
      this.#count('rxPackets');
      this.#count('rxBytes', bytes.length);
      sent++;
    }
    flush();
    end.publish();
    return sent;
  }

  #fill(index: number, frame: ModelFrame, bytes: Uint8Array, place: number, segments: number): void {
    const { c } = this;
    const infos: Info[] = [{ type: 0, value: receiveChecksum(frame.flags) }];
    if (frame.flags & F.VLAN) infos.push({ type: 6, value: vlanToInfo(frame.vlanTci) });
    if (frame.flags & F.HASH) infos.push({ type: 8, value: frame.hash }, { type: 9, value: frame.hashInfo });
    if (place && segments) infos.push({ type: 22, value: Math.min(segments, 0xffff) });
    if (place) infos.push({ type: 0x80000001, value: 1 | (place << 8) });
    const at = c.receiveBuffer + index * c.suballocationBytes;
    this.#memory.bytes.set(rndisHead(c.suballocationBytes, FRAME_AT, bytes.length, infos), at);
    this.#memory.bytes.set(bytes, at + FRAME_AT);
  }

  sendControl(message: Uint8Array): boolean {
    const { c, end } = this;
    if (end.error !== 0 || message.length > c.suballocationBytes || this.freeControl.length === 0) return false;
    if (!end.hasRoom(ModelEnd.bytes(16, c.nvspBytes))) return false;
    const index = this.freeControl.pop()!;
    this.chains.set(index, [index]);
    const offset = index * c.suballocationBytes;
    this.#memory.bytes.set(message, c.receiveBuffer + offset);
    const head = words(c.receiveBufferId, 1, message.length, offset);
    end.write(7, 1, index, 0, head, nvspRndis(c.nvspBytes, 1, NO_SECTION, 0));
    end.publish();
    return true;
  }
}

interface Division {
  readonly parts: number;
  readonly first: number;
  readonly step: number;
  readonly segments: number;
}

const oneOf = ({ bytes }: ModelFrame, room: number): Division => ({
  parts: Math.ceil(bytes.length / room),
  ...{ first: room, step: room, segments: 0 },
});

/** A segment a piece, headers with the first; where that does not go, all that there is room for. */
function divide(frame: ModelFrame, room: number, maxRanges: number): Division {
  const { bytes, mss, l4Offset: l4 } = frame;
  const full = oneOf(frame, room);
  if (mss === 0 || l4 < 34 || l4 + 20 > Math.min(HEAD_BYTES, bytes.length)) return full;
  const headers = l4 + (bytes[l4 + 12]! >> 4) * 4;
  if (headers < l4 + 20 || headers >= bytes.length) return full;
  const segments = Math.ceil((bytes.length - headers) / mss);
  if (segments > maxRanges || headers + mss > room) return { ...full, segments };
  return { parts: segments, first: headers + mss, step: mss, segments };
}

/** Pieces of one range that lie side by side are one. */
function addPiece(pieces: Piece[], piece: Piece): void {
  const last = pieces.at(-1);
  if (last?.range === piece.range && last.address + last.bytes === piece.address) last.bytes += piece.bytes;
  else pieces.push(piece);
}

/** Pieces that [at, at + bytes) touches, with the bytes of each. */
function touched(pieces: readonly Piece[], at: number, bytes: number): { piece: Piece; bytes: number }[] {
  const list: { piece: Piece; bytes: number }[] = [];
  let begin = 0;
  for (const piece of pieces) {
    const both = Math.min(at + bytes, begin + piece.bytes) - Math.max(at, begin);
    if (both > 0) list.push({ piece, bytes: both });
    begin += piece.bytes;
  }
  return list;
}

const owners = (pieces: readonly Piece[], at: number, bytes: number) =>
  touched(pieces, at, bytes).map(({ piece }) => piece.range);

/** The first HEAD_BYTES of a frame are in one piece, copied when they are not. */
function fragmentsOf(pieces: readonly Piece[], at: number, bytes: number): number {
  const head = Math.min(bytes, HEAD_BYTES);
  if (touched(pieces, at, head).length <= 1) return touched(pieces, at, bytes).length;
  return 1 + touched(pieces, at + head, bytes - head).length;
}

/** Infos from a guest: unknown ones are skipped. Throws Refused. */
function readInfos(bytes: Uint8Array, dataBytes: number) {
  const result = { flags: 0, vlanTci: 0, mss: 0, l4Offset: 0 };
  const header = (offset: number, v4: boolean) => {
    const shortest = v4 ? 34 : 54;
    if ((offset !== 0 && offset < shortest) || (offset || shortest) >= dataBytes) throw new Refused(E.HEADER_OFFSET);
    result.l4Offset = offset || shortest;
  };
  let at = 0;
  while (at < bytes.length) {
    if (bytes.length - at < 12) throw new Refused(E.PPI_SIZE);
    const [size, type, offset] = [readWord(bytes, at), readWord(bytes, at + 4), readWord(bytes, at + 8)];
    if (size < 12 || at + size > bytes.length) throw new Refused(E.PPI_SIZE);
    if (type === 0 || type === 2 || type === 6) {
      if (offset < 12 || offset > size || size - offset < 4) throw new Refused(E.PPI_SIZE);
      const value = readWord(bytes, at + offset);
      if (type === 6) {
        result.vlanTci = infoToVlan(value);
        result.flags |= F.VLAN;
      } else if (type === 2) {
        const v4 = value < 2 ** 31;
        result.flags |= F.TX_TSO | F.TX_TCP_CHECKSUM | F.TCP | (v4 ? F.IPV4 | F.TX_IP_CHECKSUM : F.IPV6);
        result.mss = value & 0xfffff;
        header((value >>> 20) & 0x3ff, v4);
        if (result.mss === 0 || result.mss > 65535 || result.l4Offset + 20 > dataBytes)
          throw new Refused(E.HEADER_OFFSET);
      } else if (value & 3) {
        const v4 = (value & 1) !== 0;
        result.flags |= v4 ? F.IPV4 : F.IPV6;
        if (v4 && value & 16) result.flags |= F.TX_IP_CHECKSUM;
        if (value & 4) result.flags |= F.TX_TCP_CHECKSUM | F.TCP;
        else if (value & 8) result.flags |= F.TX_UDP_CHECKSUM | F.UDP;
        if (value & 12) header((value >>> 16) & 0x3ff, v4);
      }
    }
    at += size;
  }
  return result;
}

/** A finished checksum was right when it came; one still to be filled in is "good, value invalid". */
function receiveChecksum(flags: number): number {
  const udp = (flags & F.UDP) !== 0;
  let value = 0;
  if (flags & F.TX_TCP_CHECKSUM) value |= 0x88;
  else if (flags & F.RX_L4_GOOD) value |= udp ? 0x10 : 8;
  else if (flags & F.RX_L4_BAD) value |= udp ? 2 : 1;
  if (flags & F.TX_IP_CHECKSUM) value |= 0x120;
  else if (flags & F.RX_IP_GOOD) value |= 0x20;
  else if (flags & F.RX_IP_BAD) value |= 4;
  return value;
}
