// The guest half of the model, transmit: facts/linux-guest.md 3.
import { PACKET_FLAG as F, NO_SECTION, OFFLOAD, TX_TRANSACTION } from '../../src/memory/layout.js';
import {
  Events,
  finishChecksums,
  type Info,
  join,
  type Mbuf,
  type ModelMemory,
  nvspRndis,
  PACKET_BYTES,
  readWord,
  release,
  rndisHead,
  seedLargeSend,
  segmentsOf,
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
  readonly sectionLimit: number;
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

type Outcome = 'sent' | 'later' | 'refused';
const CHECKSUMS = F.TX_IP_CHECKSUM | F.TX_TCP_CHECKSUM | F.TX_UDP_CHECKSUM;
const SUCCESS = 1;

export class ModelGuestSend {
  readonly c: GuestConfig;
  readonly end: ModelEnd;
  readonly events: Events;
  protected readonly memory: ModelMemory;
  readonly slots: Slot[];
  readonly freeSlots: number[];
  readonly freeSections: number[];
  open: { section: number; used: number; packets: number; bytes: number; last: number } | undefined;
  stopped = false;

  constructor(memory: ModelMemory, config: GuestConfig) {
    this.c = config;
    this.memory = memory;
    this.end = new ModelEnd(memory, config.guestRing, config.hostRing, config.ringSize);
    this.events = new Events(config.eventBytes);
    const descending = (count: number) => Array.from({ length: count }, (_, i) => count - 1 - i);
    this.slots = descending(config.slotCount).map(() => ({ generation: 0, send: undefined }));
    this.freeSlots = descending(config.slotCount);
    this.freeSections = descending(config.sendSections);
  }

  protected count(name: string, by = 1): void {
    this.end.counters.add(name, by);
  }

  // Transmit.

  send(packets: readonly Mbuf[]): number {
    const { end, c } = this;
    if (end.error !== 0) return 0;
    if (this.stopped) {
      if (end.free * 5 < c.ringSize && this.freeSlots.length < c.slotCount) return 0;
      this.stopped = false;
      this.count('txWakes');
    }
    end.blocked = 0;
    let taken = 0;
    for (const packet of packets) {
      if (!this.#sendOne(packet)) break;
      taken++;
    }
    this.#flush();
    end.publish();
    if (end.knownFree * 10 < c.ringSize && end.free * 10 < c.ringSize) {
      this.stopped = true;
      this.count('txStops');
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
      const at = packet.data + 12;
      allowed &&= this.memory.bytes[at]! * 256 + this.memory.bytes[at + 1]! === (v6 ? 0x86dd : 0x0800);
    } else {
      allowed &&= bytes <= c.maxFrameBytes;
      let needed = flags & F.TX_IP_CHECKSUM ? OFFLOAD.IPV4_HEADER_TX : 0;
      if (flags & F.TX_TCP_CHECKSUM) needed |= v6 ? OFFLOAD.TCP6_TX : OFFLOAD.TCP4_TX;
      if (flags & F.TX_UDP_CHECKSUM) needed |= v6 ? OFFLOAD.UDP6_TX : OFFLOAD.UDP4_TX;
      const least = v6 ? 54 : 34;
      const l4 = packet.l4Offset === 0 ? least : packet.l4Offset;
      const plausible = l4 >= least && l4 < Math.min(bytes, 1024);
      byHost = (flags & CHECKSUMS) !== 0 && (c.offloads & needed) === needed && plausible;
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
    allowed &&= segmentsOf(packet).reduce((sum, { length }) => sum + length, 0) === bytes;
    let outcome: Outcome | 'direct' = allowed ? 'direct' : 'refused';
    const fits = message <= (c.sectionLimit || c.copyLimit);
    const copy = () => this.#copy(packet, infos, message, inSoftware, lso);
    if (allowed && !lso && fits && PACKET_BYTES + bytes <= c.copyLimit) outcome = copy();
    if (outcome === 'direct') {
      outcome = this.#direct(packet, infos, message, inSoftware);
      // What cannot go directly is copied, and waits for a section.
      if (outcome === 'refused' && fits) outcome = copy() === 'sent' ? 'sent' : 'later';
    }
    if (outcome === 'later') {
      this.count('txBusy');
      return false;
    }
    if (outcome === 'refused') {
      this.count('txTooBig');
      release(packet);
      return true;
    }
    this.count('txPackets');
    this.count('txBytes', bytes);
    if (lso) this.count('txLso');
    if (byHost) this.count('txChecksum');
    if (inSoftware) this.count('txSoftwareChecksum');
    if (flags & F.VLAN) this.count('txVlan');
    return true;
  }

  /** Several packets share a section; padding to the alignment belongs to the message before it. */
  #copy(packet: Mbuf, infos: Info[], message: number, inSoftware: boolean, lso: boolean): Outcome | 'direct' {
    const { c } = this;
    const memory = this.memory;
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
        this.count('txNoSection');
        return 'direct';
      }
      this.open = { section, used: 0, packets: 0, bytes: 0, last: 0 };
    }
    const frame = join(...segmentsOf(packet).map((s) => memory.take(s.data, s.length)));
    if (inSoftware) finishChecksums(frame, packet.flags, packet.l4Offset);
    if (lso) seedLargeSend(frame, packet.l4Offset);
    const head = rndisHead(message, PACKET_BYTES + infos.length * 16, frame.length, infos);
    memory.bytes.set(join(head, frame), c.sendBuffer + this.open.section * c.sendSectionBytes + this.open.used);
    this.open.last = this.open.used;
    this.open.used += message;
    this.open.packets++;
    this.open.bytes += frame.length;
    this.count('txCopied');
    release(packet);
    return 'sent';
  }

  /** Takes a slot; undefined = all in flight. Slot number low, its generation above, as the transaction id. */
  #slot(send: NonNullable<Slot['send']>): number | undefined {
    const number = this.freeSlots.pop();
    if (number === undefined) {
      this.count('txNoSlot');
      return undefined;
    }
    const slot = this.slots[number]!;
    slot.send = send;
    return (number + slot.generation * 65536) >>> 0;
  }

  #wait(bytes: number): void {
    this.end.blocked = bytes;
    this.count('ringFull');
  }

  #flush(): boolean {
    const { open, c, end } = this;
    if (!open) return true;
    const needed = ModelEnd.bytes(0, c.nvspBytes) + c.spare;
    if (!end.hasRoom(needed)) {
      this.#wait(needed);
      return false;
    }
    const id = this.#slot({ section: open.section, mbuf: undefined, packets: open.packets, bytes: open.bytes });
    if (id === undefined) return false;
    end.write(6, 1, id, TX_TRANSACTION, words(), nvspRndis(c.nvspBytes, 0, open.section, open.used));
    this.open = undefined;
    this.count('txMessages');
    return true;
  }

  /** RNDIS header in the headroom, one range for each segment. Without room there the header has a buffer of its own, with what LSO
   *  changes behind it; room in the ring is then asked for as if it lay in two pages. */
  #direct(packet: Mbuf, infos: Info[], message: number, inSoftware: boolean): Outcome {
    const { c, end } = this;
    const memory = this.memory;
    if (!this.#flush()) return 'later';
    // Checksums over a chain are only computed while copying.
    if (inSoftware && packet.next) return 'refused';
    const header = PACKET_BYTES + infos.length * 16;
    const lso = (packet.flags & F.TX_TSO) !== 0;
    const apart = packet.data - header < packet.buffer;
    const tcp = packet.data + packet.l4Offset;
    const skip = apart && lso ? packet.l4Offset + Math.max(20, (memory.bytes[tcp + 12]! >> 4) * 4) : 0;
    if (skip > packet.length) return 'refused';
    const lead = apart ? -skip : header;
    const parts = segmentsOf(packet)
      .map((s) => (s === packet ? { at: s.data - lead, bytes: s.length + lead } : { at: s.data, bytes: s.length }))
      .filter((part) => part.bytes > 0);
    if (parts.length + Number(apart) > 64) return 'refused';
    if (parts.some((p) => p.at < c.packets || p.at + p.bytes > c.packets + c.packetBytes)) return 'refused';
    const range = ({ at, bytes }: { at: number; bytes: number }) => {
      const list = [bytes, at % 4096];
      for (let page = Math.floor(at / 4096); page * 4096 < at + bytes; page++) list.push(page, 0);
      return words(...list);
    };
    const least = join(words(0, 0), ...parts.map(range)).length + (apart ? 24 : 0);
    const most = ModelEnd.bytes(least, c.nvspBytes);
    if (most > 32768 || most + c.spare > c.ringSize - 8) return 'refused';
    if (!end.hasRoom(most + c.spare)) {
      this.#wait(most + c.spare);
      return 'later';
    }
    if (this.freeSlots.length === 0) {
      this.count('txNoSlot');
      return 'later';
    }
    const own = apart ? packet.pool.get() : undefined;
    if (apart && (!own || header + skip > own.pool.room)) {
      if (own) release(own);
      return 'refused';
    }
    if (own) own.next = packet;
    const id = this.#slot({ section: NO_SECTION, mbuf: own ?? packet, packets: 1, bytes: packet.packetLength })!;
    const start = own ? own.buffer : packet.data - header;
    if (own) memory.bytes.set(memory.take(packet.data, skip), start + header);
    if (lso) {
      const at = start + header;
      seedLargeSend(memory.bytes.subarray(at, at + (own ? skip : packet.length)), packet.l4Offset);
    }
    if (inSoftware) {
      finishChecksums(memory.bytes.subarray(packet.data, packet.data + packet.length), packet.flags, packet.l4Offset);
    }
    memory.bytes.set(rndisHead(message, header, packet.packetLength, infos), start);
    const all = own ? [{ at: start, bytes: header + skip }, ...parts] : parts;
    const extended = join(words(0, all.length), ...all.map(range));
    end.write(9, 1, id, TX_TRANSACTION, extended, nvspRndis(c.nvspBytes, 0, NO_SECTION, 0));
    this.count('txMessages');
    this.count('txDirect');
    return 'sent';
  }

  protected freeSlot(number: number): void {
    const slot = this.slots[number]!;
    const send = slot.send!;
    slot.send = undefined;
    slot.generation = (slot.generation + 1) % 65536;
    if (send.section !== NO_SECTION) this.freeSections.push(send.section);
    if (send.mbuf) release(send.mbuf);
    this.freeSlots.push(number);
  }

  protected completion({ idLow, payload }: RingPacket): boolean {
    const slot = this.slots[idLow % 65536];
    const send = slot?.send;
    if (payload.length < 8 || readWord(payload, 0) !== 108 || !send) return false;
    if (slot.generation !== Math.floor(idLow / 65536)) return false;
    if (readWord(payload, 4) === SUCCESS) {
      this.count('txCompleted', send.packets);
      this.count('txCompletedBytes', send.bytes);
    } else this.count('txFailed', send.packets);
    this.freeSlot(idLow % 65536);
    return true;
  }
}
