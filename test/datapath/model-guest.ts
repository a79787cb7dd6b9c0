// The guest half of the model: facts/linux-guest.md 3 (transmit) and 4 (receive).
import {
  EVENT_KIND,
  PACKET_FLAG as F,
  NO_SECTION,
  OFFLOAD,
  RING_ERROR,
  TX_TRANSACTION,
} from '../../src/memory/layout.js';
import {
  Events,
  finishChecksums,
  finishIpv4Header,
  type Info,
  infoToVlan,
  join,
  type Mbuf,
  type ModelMemory,
  type ModelPool,
  nvspRndis,
  PACKET_BYTES,
  readWord,
  release,
  rndisHead,
  seedLargeSend,
  segmentsOf,
  tailroomOf,
  vlanToInfo,
  words,
} from './model.js';
import { ModelEnd, type RingPacket } from './model-ring.js';

export interface GuestConfig {
  readonly guestRing: number;
  readonly hostRing: number;
  readonly ringSize: number;
  readonly spare: number;
  readonly eventBytes: number;
  readonly receiveBuffer: number;
  readonly receiveBytes: number;
  readonly receiveSectionBytes: number;
  readonly receiveBufferId: number;
  readonly sendBuffer: number;
  readonly sendSectionBytes: number;
  readonly sendSections: number;
  readonly slotCount: number;
  readonly nvspBytes: number;
  readonly maxPacketsPerMessage: number;
  readonly packetAlignment: number;
  readonly copyLimit: number;
  readonly maxFrameBytes: number;
  readonly offloads: number;
  readonly lsoMax4: number;
  readonly lsoMax6: number;
  readonly packets: number;
  readonly packetBytes: number;
  readonly completionCapacity: number;
  readonly rangeCapacity: number;
}

interface Slot {
  generation: number;
  send: { section: number; mbuf: Mbuf | undefined; packets: number; bytes: number } | undefined;
}

interface Transfer {
  readonly ranges: { bytes: number; offset: number }[];
  readonly idLow: number;
  readonly idHigh: number;
  done: number;
  status: number;
}

type Outcome = 'sent' | 'later' | 'refused';
const CHECKSUMS = F.TX_IP_CHECKSUM | F.TX_TCP_CHECKSUM | F.TX_UDP_CHECKSUM;
const SUCCESS = 1;
const FAIL = 2;

export class ModelGuest {
  readonly c: GuestConfig;
  readonly end: ModelEnd;
  readonly events: Events;
  readonly #memory: ModelMemory;
  readonly #small: ModelPool;
  readonly #large: ModelPool;
  readonly slots: Slot[];
  readonly freeSlots: number[];
  readonly freeSections: number[];
  open: { section: number; used: number; packets: number; bytes: number; last: number } | undefined;
  stopped = false;
  completions: { idLow: number; idHigh: number; status: number }[] = [];
  transfer: Transfer | undefined;
  coalescing: { mbuf: Mbuf; fragments: number; first: number; ipUnfinished: boolean } | undefined;

  constructor(memory: ModelMemory, config: GuestConfig, small: ModelPool, large: ModelPool) {
    this.c = config;
    this.#memory = memory;
    this.#small = small;
    this.#large = large;
    this.end = new ModelEnd(memory, config.guestRing, config.hostRing, config.ringSize);
    this.events = new Events(config.eventBytes);
    const descending = (count: number) => Array.from({ length: count }, (_, i) => count - 1 - i);
    this.slots = descending(config.slotCount).map(() => ({ generation: 0, send: undefined }));
    this.freeSlots = descending(config.slotCount);
    this.freeSections = descending(config.sendSections);
  }

  #count(name: string, by = 1): void {
    this.end.counters.add(name, by);
  }

  // Transmit.

  send(packets: readonly Mbuf[]): number {
    const { end, c } = this;
    if (end.error !== 0) return 0;
    if (this.stopped) {
      if (end.free * 5 < c.ringSize && this.freeSlots.length < c.slotCount) return 0;
      this.stopped = false;
      this.#count('txWakes');
    }
    end.blocked = 0;
    let taken = 0;
    for (const packet of packets) {
      if (!this.#sendOne(packet)) break;
      taken++;
    }
    this.#flush();
    end.publish();
    if (end.free * 10 < c.ringSize) {
      this.stopped = true;
      this.#count('txStops');
      end.blocked = Math.floor(c.ringSize / 5);
    }
    return taken;
  }

  #sendOne(packet: Mbuf): boolean {
    const { c } = this;
    const { flags, packetLength: bytes } = packet;
    const v6 = (flags & F.IPV6) !== 0;
    const lso = (flags & F.TX_TSO) !== 0;
    let allowed = bytes >= 14;
    let byHost = false;
    if (lso) {
      allowed &&= (c.offloads & (v6 ? OFFLOAD.LSO6 : OFFLOAD.LSO4)) !== 0 && bytes <= (v6 ? c.lsoMax6 : c.lsoMax4);
      allowed &&= packet.mss > 0 && packet.mss <= 0xffff && packet.l4Offset < 1024;
      allowed &&= packet.l4Offset >= (v6 ? 54 : 34) && packet.l4Offset + 20 <= packet.length;
    } else {
      allowed &&= bytes <= c.maxFrameBytes;
      let needed = flags & F.TX_IP_CHECKSUM ? OFFLOAD.IPV4_HEADER_TX : 0;
      if (flags & F.TX_TCP_CHECKSUM) needed |= v6 ? OFFLOAD.TCP6_TX : OFFLOAD.TCP4_TX;
      if (flags & F.TX_UDP_CHECKSUM) needed |= v6 ? OFFLOAD.UDP6_TX : OFFLOAD.UDP4_TX;
      byHost = (flags & CHECKSUMS) !== 0 && (c.offloads & needed) === needed && packet.l4Offset < 1024;
    }
    const inSoftware = !lso && (flags & CHECKSUMS) !== 0 && !byHost;
    const infos: Info[] = [];
    if (flags & F.HASH) infos.push({ type: 8, value: packet.hash });
    if (flags & F.VLAN) infos.push({ type: 6, value: vlanToInfo(packet.vlanTci) });
    if (lso) infos.push({ type: 2, value: packet.mss + packet.l4Offset * 2 ** 20 + 2 ** 30 + (v6 ? 2 ** 31 : 0) });
    else if (byHost) {
      const bits = (v6 ? 2 : 1) | (flags & F.TX_TCP_CHECKSUM ? 4 : 0) | (flags & F.TX_UDP_CHECKSUM ? 8 : 0);
      infos.push({ type: 0, value: bits | (flags & F.TX_IP_CHECKSUM ? 16 : 0) | (packet.l4Offset << 16) });
    }
    const message = PACKET_BYTES + infos.length * 16 + bytes;
    let outcome: Outcome | 'direct' = allowed ? 'direct' : 'refused';
    if (allowed && !lso && message <= c.copyLimit) outcome = this.#copy(packet, infos, message, inSoftware);
    if (outcome === 'direct') outcome = this.#direct(packet, infos, message, inSoftware);
    if (outcome === 'later') {
      this.#count('txBusy');
      return false;
    }
    if (outcome === 'refused') {
      this.#count('txTooBig');
      release(packet);
      return true;
    }
    this.#count('txPackets');
    this.#count('txBytes', bytes);
    if (lso) this.#count('txLso');
    if (byHost) this.#count('txChecksum');
    if (inSoftware) this.#count('txSoftwareChecksum');
    if (flags & F.VLAN) this.#count('txVlan');
    return true;
  }

  /** Several packets share a section; padding to the alignment belongs to the message before it. */
  #copy(packet: Mbuf, infos: Info[], message: number, inSoftware: boolean): Outcome | 'direct' {
    const { c } = this;
    const memory = this.#memory;
    const aligned = () => (this.open ? Math.ceil(this.open.used / c.packetAlignment) * c.packetAlignment : 0);
    if (this.open && (this.open.packets >= c.maxPacketsPerMessage || aligned() + message > c.sendSectionBytes)) {
      if (!this.#flush()) return 'later';
    }
    if (this.open) {
      const base = c.sendBuffer + this.open.section * c.sendSectionBytes;
      const gap = aligned() - this.open.used;
      memory.bytes.fill(0, base + this.open.used, base + this.open.used + gap);
      memory.set32(base + this.open.last + 4, memory.u32(base + this.open.last + 4) + gap);
      this.open.used += gap;
    } else {
      const section = this.freeSections.pop();
      if (section === undefined) {
        this.#count('txNoSection');
        return 'direct';
      }
      this.open = { section, used: 0, packets: 0, bytes: 0, last: 0 };
    }
    const frame = join(...segmentsOf(packet).map((s) => memory.take(s.data, s.length)));
    if (inSoftware) finishChecksums(frame, packet.flags, packet.l4Offset);
    const head = rndisHead(message, PACKET_BYTES + infos.length * 16, frame.length, infos);
    memory.bytes.set(join(head, frame), c.sendBuffer + this.open.section * c.sendSectionBytes + this.open.used);
    this.open.last = this.open.used;
    this.open.used += message;
    this.open.packets++;
    this.open.bytes += frame.length;
    this.#count('txCopied');
    release(packet);
    return 'sent';
  }

  /** Takes a slot; undefined = all in flight. Slot number low, its generation above, as the transaction id. */
  #slot(send: NonNullable<Slot['send']>): number | undefined {
    const number = this.freeSlots.pop();
    if (number === undefined) {
      this.#count('txNoSlot');
      return undefined;
    }
    const slot = this.slots[number]!;
    slot.send = send;
    return (number + slot.generation * 65536) >>> 0;
  }

  #wait(bytes: number): void {
    this.end.blocked = bytes;
    this.#count('ringFull');
  }

  #flush(): boolean {
    const { open, c, end } = this;
    if (!open) return true;
    const needed = ModelEnd.bytes(0, c.nvspBytes) + c.spare;
    if (end.free < needed) {
      this.#wait(needed);
      return false;
    }
    const id = this.#slot({ section: open.section, mbuf: undefined, packets: open.packets, bytes: open.bytes });
    if (id === undefined) return false;
    end.write(6, 1, id, TX_TRANSACTION, words(), nvspRndis(c.nvspBytes, 0, open.section, open.used));
    this.open = undefined;
    this.#count('txMessages');
    return true;
  }

  /** RNDIS header in the headroom, one range for each segment. */
  #direct(packet: Mbuf, infos: Info[], message: number, inSoftware: boolean): Outcome {
    const { c, end } = this;
    const memory = this.#memory;
    if (!this.#flush()) return 'later';
    const header = PACKET_BYTES + infos.length * 16;
    if (packet.data - header < packet.buffer) return 'refused';
    const parts = segmentsOf(packet)
      .map((s) => (s === packet ? { at: s.data - header, bytes: s.length + header } : { at: s.data, bytes: s.length }))
      .filter((part) => part.bytes > 0);
    if (parts.length > 64) return 'refused';
    if (parts.some((p) => p.at < c.packets || p.at + p.bytes > c.packets + c.packetBytes)) return 'refused';
    const ranges = parts.map(({ at, bytes }) => {
      const list = [bytes, at % 4096];
      for (let page = Math.floor(at / 4096); page * 4096 < at + bytes; page++) list.push(page, 0);
      return words(...list);
    });
    const extended = join(words(0, parts.length), ...ranges);
    const total = ModelEnd.bytes(extended.length, c.nvspBytes);
    if (total > 32768 || total + c.spare > c.ringSize - 8) return 'refused';
    if (end.free < total + c.spare) {
      this.#wait(total + c.spare);
      return 'later';
    }
    if (inSoftware) {
      // Checksums over a chain are only computed while copying: such a packet waits for a section if it fits one.
      if (packet.next) return message <= c.copyLimit ? 'later' : 'refused';
      finishChecksums(memory.bytes.subarray(packet.data, packet.data + packet.length), packet.flags, packet.l4Offset);
    }
    const id = this.#slot({ section: NO_SECTION, mbuf: packet, packets: 1, bytes: packet.packetLength });
    if (id === undefined) return 'later';
    if (packet.flags & F.TX_TSO) {
      seedLargeSend(memory.bytes.subarray(packet.data, packet.data + packet.length), packet.l4Offset);
    }
    memory.bytes.set(rndisHead(message, header, packet.packetLength, infos), packet.data - header);
    end.write(9, 1, id, TX_TRANSACTION, extended, nvspRndis(c.nvspBytes, 0, NO_SECTION, 0));
    this.#count('txMessages');
    this.#count('txDirect');
    return 'sent';
  }

  #freeSlot(number: number): void {
    const slot = this.slots[number]!;
    const send = slot.send!;
    slot.send = undefined;
    slot.generation = (slot.generation + 1) % 65536;
    if (send.section !== NO_SECTION) this.freeSections.push(send.section);
    if (send.mbuf) release(send.mbuf);
    this.freeSlots.push(number);
  }

  /** The channel is gone: all that sends, the open section and the packet under assembly hold comes back. */
  abandon(): void {
    this.slots.forEach((slot, number) => {
      if (slot.send) this.#freeSlot(number);
    });
    if (this.open) this.freeSections.push(this.open.section);
    this.open = undefined;
    if (this.coalescing) release(this.coalescing.mbuf);
    this.coalescing = undefined;
    this.transfer = undefined;
    this.completions = [];
  }

  #completion({ idLow, payload }: RingPacket): boolean {
    const slot = this.slots[idLow % 65536];
    const send = slot?.send;
    if (payload.length < 8 || readWord(payload, 0) !== 108 || !send) return false;
    if (slot.generation !== Math.floor(idLow / 65536)) return false;
    if (readWord(payload, 4) === SUCCESS) {
      this.#count('txCompleted', send.packets);
      this.#count('txCompletedBytes', send.bytes);
    } else this.#count('txFailed', send.packets);
    this.#freeSlot(idLow % 65536);
    return true;
  }

  // Receive.

  poll(max: number): Mbuf[] {
    const { end, c } = this;
    const out: Mbuf[] = [];
    this.#deliver(out, max);
    if (this.transfer || end.error !== 0) return out;
    const limit = end.limit();
    let read = end.readIndex;
    while (read !== limit && out.length < max && this.completions.length < c.completionCapacity && !this.transfer) {
      const packet = end.packet(read, limit);
      if (!packet || !this.#packet(packet, out, max)) break;
      read = packet.next;
      this.#count('ringPacketsIn');
    }
    end.release(read);
    this.flush();
    if (this.open) this.send([]);
    return out;
  }

  /** False = not now, or never: the packet stays. */
  #packet(packet: RingPacket, out: Mbuf[], max: number): boolean {
    const { type, flags, idLow, idHigh, payload } = packet;
    if (type === 7) {
      if (!this.#start(packet)) return false;
      this.#deliver(out, max);
    } else if (type === 11 && idHigh === TX_TRANSACTION) {
      if (!this.#completion(packet)) this.#count('txUnknownTransaction');
    } else if (type === 11) return this.events.put({ kind: EVENT_KIND.COMPLETION, idLow, idHigh, a: 0, b: 0, payload });
    else if (type === 6) return this.events.put({ kind: EVENT_KIND.NVSP, idLow, idHigh, a: flags, b: 6, payload });
    else this.#count('rxBadType');
    return true;
  }

  #start({ idLow, idHigh, head, payload }: RingPacket): boolean {
    if (head.length < 24) {
      this.end.fail(RING_ERROR.EXTENDED_HEADER, head.length);
      return false;
    }
    this.#count('rxMessages');
    const count = readWord(head, 20);
    let error = '';
    if (count === 0 || 24 + count * 8 > head.length || count > this.c.rangeCapacity) error = 'rxBadRange';
    else if ((readWord(head, 16) & 0xffff) !== this.c.receiveBufferId) error = 'rxBadSet';
    else if (payload.length < 8 || readWord(payload, 0) !== 107) error = 'rxBadNvsp';
    if (error) {
      this.#count(error);
      this.completions.push({ idLow, idHigh, status: FAIL });
      return true;
    }
    const ranges = Array.from({ length: count }, (_, i) => ({
      bytes: readWord(head, 24 + i * 8),
      offset: readWord(head, 28 + i * 8),
    }));
    this.transfer = { ranges, idLow, idHigh, done: 0, status: SUCCESS };
    return true;
  }

  #bad(counter: string): undefined {
    this.#count(counter);
    this.transfer!.status = FAIL;
    this.#dropCoalescing();
    return undefined;
  }

  #dropCoalescing(): void {
    if (!this.coalescing) return;
    release(this.coalescing.mbuf);
    this.coalescing = undefined;
    this.#count('rxBadCoalescing');
  }

  /** Messages of the transfer at hand, as far as `max` and the event buffer allow. */
  #deliver(out: Mbuf[], max: number): void {
    const { transfer, c } = this;
    if (!transfer) return;
    while (transfer.ranges.length > 0) {
      const { bytes, offset } = transfer.ranges[0]!;
      if (bytes > c.receiveSectionBytes || offset + bytes > c.receiveBytes) this.#bad('rxBadRange');
      else {
        while (bytes - transfer.done >= 8) {
          if (out.length >= max) return;
          const message = this.#memory.take(c.receiveBuffer + offset + transfer.done, bytes - transfer.done);
          const length = readWord(message, 4);
          if (length < 8 || length > message.length) {
            this.#bad('rxBadRndis');
            break;
          }
          const payload = message.slice(0, length);
          if (readWord(message, 0) === 1) {
            const mbuf = this.#frame(payload);
            if (mbuf) out.push(mbuf);
          } else if (!this.events.put({ kind: EVENT_KIND.RNDIS_CONTROL, idLow: 0, idHigh: 0, a: 0, b: 0, payload }))
            return;
          transfer.done += length;
        }
      }
      transfer.ranges.shift();
      transfer.done = 0;
    }
    this.#dropCoalescing();
    this.completions.push({ idLow: transfer.idLow, idHigh: transfer.idHigh, status: transfer.status });
    this.transfer = undefined;
  }

  #mbuf(pool: ModelPool): Mbuf | undefined {
    return pool.get() ?? this.#bad('rxNoMbuf');
  }

  #frame(message: Uint8Array): Mbuf | undefined {
    if (message.length < PACKET_BYTES) return this.#bad('rxBadRndis');
    const [dataAt, dataBytes] = [readWord(message, 8) + 8, readWord(message, 12)];
    if (dataBytes === 0 || dataAt < PACKET_BYTES || dataAt + dataBytes > message.length) return this.#bad('rxBadRndis');
    const [infoAt, size] = [readWord(message, 28) + 8, readWord(message, 32)];
    if (size > 0 && (infoAt < PACKET_BYTES || infoAt + size > message.length)) return this.#bad('rxBadPpi');
    const infos = readInfos(message.slice(infoAt, infoAt + size));
    if (!infos) return this.#bad('rxBadPpi');
    const data = message.slice(dataAt, dataAt + dataBytes);
    let mbuf: Mbuf | undefined;
    let { ipUnfinished } = infos;
    if (infos.fragment & 1) {
      const whole = this.#fragment(infos, data);
      if (!whole) return undefined;
      ({ mbuf, ipUnfinished } = whole);
    } else {
      this.#dropCoalescing();
      if (dataBytes < 14) return this.#bad('rxBadRndis');
      mbuf = this.#mbuf(this.#small);
      if (mbuf && dataBytes > tailroomOf(mbuf)) {
        release(mbuf);
        mbuf = this.#mbuf(this.#large);
        if (mbuf && dataBytes > tailroomOf(mbuf)) {
          release(mbuf);
          return this.#bad('rxTooBig');
        }
      }
      if (!mbuf) return undefined;
      this.#append(mbuf, data);
      this.#describe(mbuf, infos);
    }
    mbuf.packetLength = mbuf.length;
    if (ipUnfinished) finishIpv4Header(this.#memory.bytes.subarray(mbuf.data, mbuf.data + mbuf.length));
    if (mbuf.flags & F.RX_L4_GOOD) this.#count('rxChecksumGood');
    if (mbuf.flags & (F.RX_L4_BAD | F.RX_IP_BAD)) this.#count('rxChecksumBad');
    this.#count('rxPackets');
    this.#count('rxBytes', mbuf.length);
    return mbuf;
  }

  #append(mbuf: Mbuf, data: Uint8Array): void {
    this.#memory.bytes.set(data, mbuf.data + mbuf.length);
    mbuf.length += data.length;
  }

  #describe(mbuf: Mbuf, infos: ReceivedInfos): void {
    mbuf.flags = infos.flags;
    if (infos.flags & F.VLAN) {
      mbuf.vlanTci = infos.vlanTci;
      this.#count('rxVlan');
    }
    if (infos.flags & F.HASH) {
      mbuf.hash = infos.hash;
      this.#count('rxHash');
    }
  }

  /** One piece of a coalesced packet; what the first one's infos say holds for all. */
  #fragment(infos: ReceivedInfos, data: Uint8Array): { mbuf: Mbuf; ipUnfinished: boolean } | undefined {
    if (infos.fragment & 2) {
      this.#dropCoalescing();
      const mbuf = this.#mbuf(this.#large);
      if (!mbuf) return undefined;
      this.#describe(mbuf, infos);
      this.coalescing = { mbuf, fragments: 0, first: data.length, ipUnfinished: infos.ipUnfinished };
    }
    const state = this.coalescing;
    if (!state) return this.#bad('rxBadCoalescing');
    state.fragments++;
    if (state.fragments > 562 || data.length > tailroomOf(state.mbuf) - state.mbuf.length) return this.#bad('rxTooBig');
    this.#append(state.mbuf, data);
    if (!(infos.fragment & 4)) return undefined;
    if (state.mbuf.length < 14) return this.#bad('rxBadRndis');
    this.coalescing = undefined;
    this.#sizeSegments(state.mbuf, state.first);
    this.#count('rxCoalesced');
    this.#count('rxCoalescedFragments', state.fragments);
    return state;
  }

  /** mss of a coalesced TCP packet = first fragment less headers. */
  #sizeSegments(mbuf: Mbuf, first: number): void {
    const frame = this.#memory.take(mbuf.data, mbuf.length);
    if (frame.length < 54 || first === frame.length) return;
    const type = frame[12]! * 256 + frame[13]!;
    let l4 = 0;
    if (type === 0x0800 && frame[23] === 6) l4 = 14 + (frame[14]! & 15) * 4;
    if (type === 0x86dd && frame[20] === 6) l4 = 54;
    if (l4 < 34 || l4 + 20 > frame.length) return;
    const headers = l4 + (frame[l4 + 12]! >> 4) * 4;
    if (headers < l4 + 20 || first <= headers) return;
    mbuf.mss = first - headers;
    mbuf.l4Offset = l4;
    mbuf.flags |= F.RX_COALESCED | F.TCP | (type === 0x0800 ? F.IPV4 : F.IPV6);
  }

  /** Writes receive completions as far as there is room. */
  flush(): number {
    while (this.completions.length > 0) {
      if (this.end.free < 32) {
        this.#count('rxCompletionsDelayed');
        this.end.blocked = 32;
        break;
      }
      const { idLow, idHigh, status } = this.completions.shift()!;
      this.end.write(11, 0, idLow, idHigh, words(), words(108, status));
    }
    this.end.publish();
    return this.completions.length;
  }
}

interface ReceivedInfos {
  flags: number;
  vlanTci: number;
  hash: number;
  fragment: number;
  ipUnfinished: boolean;
}

/** Bits of a received checksum info: facts/hyper-v-host.md 4.3. */
function readInfos(bytes: Uint8Array): ReceivedInfos | undefined {
  const result: ReceivedInfos = { flags: 0, vlanTci: 0, hash: 0, fragment: 0, ipUnfinished: false };
  let at = 0;
  while (at < bytes.length) {
    if (bytes.length - at < 12) return undefined;
    const [size, type, offset] = [readWord(bytes, at), readWord(bytes, at + 4), readWord(bytes, at + 8)];
    if (size < 12 || at + size > bytes.length || offset < 12 || offset > size) return undefined;
    if ([0, 6, 8, 0x80000001].includes(type)) {
      if (size - offset < 4) return undefined;
      const value = readWord(bytes, at + offset);
      const bit = (n: number) => ((value >>> n) & 1) === 1;
      if (type === 6) {
        result.vlanTci = infoToVlan(value);
        result.flags |= F.VLAN;
      } else if (type === 8) {
        result.hash = value;
        result.flags |= F.HASH;
      } else if (type === 0x80000001) result.fragment = (value >>> 8) & 0xff;
      else {
        if (bit(5)) result.flags |= F.RX_IP_GOOD;
        if (bit(2)) result.flags |= F.RX_IP_BAD;
        if (bit(0) || bit(1)) result.flags |= F.RX_L4_BAD;
        else if (bit(3) || bit(4)) result.flags |= F.RX_L4_GOOD;
        if (bit(3) && bit(7)) result.flags |= F.TX_TCP_CHECKSUM;
        if (bit(5) && bit(8)) result.ipUnfinished = true;
      }
    }
    at += size;
  }
  return result;
}
