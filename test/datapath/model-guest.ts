// The guest half of the model, receive: facts/linux-guest.md 4.
import { EVENT_KIND, PACKET_FLAG as F, RING_ERROR, TX_TRANSACTION } from '../../src/memory/layout.js';
import {
  finishIpv4Header,
  infoToVlan,
  type Mbuf,
  type ModelMemory,
  type ModelPool,
  PACKET_BYTES,
  readWord,
  release,
  tailroomOf,
  words,
} from './model.js';
import { type GuestConfig, ModelGuestSend } from './model-guest-send.js';
import type { RingPacket } from './model-ring.js';

interface Transfer {
  readonly ranges: { bytes: number; offset: number }[];
  readonly idLow: number;
  readonly idHigh: number;
  done: number;
  status: number;
}

const SUCCESS = 1;
const FAIL = 2;

export class ModelGuest extends ModelGuestSend {
  readonly #small: ModelPool;
  readonly #large: ModelPool;
  completions: { idLow: number; idHigh: number; status: number }[] = [];
  transfer: Transfer | undefined;
  coalescing: { mbuf: Mbuf; fragments: number; first: number; ipUnfinished: boolean } | undefined;

  constructor(memory: ModelMemory, config: GuestConfig, small: ModelPool, large: ModelPool) {
    super(memory, config);
    this.#small = small;
    this.#large = large;
  }

  /** The channel is gone: all that sends, the open section and the packet under assembly hold comes back. */
  abandon(): void {
    this.slots.forEach((slot, number) => {
      if (slot.send) this.freeSlot(number);
    });
    if (this.open) this.freeSections.push(this.open.section);
    this.open = undefined;
    if (this.coalescing) release(this.coalescing.mbuf);
    this.coalescing = undefined;
    this.transfer = undefined;
    this.completions = [];
  }

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
      this.count('ringPacketsIn');
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
      if (!this.completion(packet)) this.count('txUnknownTransaction');
    } else if (type === 11) return this.events.put({ kind: EVENT_KIND.COMPLETION, idLow, idHigh, a: 0, b: 0, payload });
    else if (type === 6) return this.events.put({ kind: EVENT_KIND.NVSP, idLow, idHigh, a: flags, b: 6, payload });
    else this.count('rxBadType');
    return true;
  }

  #start({ idLow, idHigh, head, payload }: RingPacket): boolean {
    if (head.length < 24) {
      this.end.fail(RING_ERROR.EXTENDED_HEADER, head.length);
      return false;
    }
    this.count('rxMessages');
    const count = readWord(head, 20);
    let error = '';
    if (count === 0 || 24 + count * 8 > head.length || count > this.c.rangeCapacity) error = 'rxBadRange';
    else if ((readWord(head, 16) & 0xffff) !== this.c.receiveBufferId) error = 'rxBadSet';
    else if (payload.length < 8 || readWord(payload, 0) !== 107) error = 'rxBadNvsp';
    if (error) {
      this.count(error);
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
    this.count(counter);
    this.transfer!.status = FAIL;
    this.#dropCoalescing();
    return undefined;
  }

  #dropCoalescing(): void {
    if (!this.coalescing) return;
    release(this.coalescing.mbuf);
    this.coalescing = undefined;
    this.count('rxBadCoalescing');
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
          const message = this.memory.take(c.receiveBuffer + offset + transfer.done, bytes - transfer.done);
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
    if (ipUnfinished) finishIpv4Header(this.memory.bytes.subarray(mbuf.data, mbuf.data + mbuf.length));
    if (mbuf.flags & F.RX_L4_GOOD) this.count('rxChecksumGood');
    if (mbuf.flags & (F.RX_L4_BAD | F.RX_IP_BAD)) this.count('rxChecksumBad');
    this.count('rxPackets');
    this.count('rxBytes', mbuf.length);
    return mbuf;
  }

  #append(mbuf: Mbuf, data: Uint8Array): void {
    this.memory.bytes.set(data, mbuf.data + mbuf.length);
    mbuf.length += data.length;
  }

  #describe(mbuf: Mbuf, infos: ReceivedInfos): void {
    mbuf.flags = infos.flags;
    if (infos.flags & F.VLAN) {
      mbuf.vlanTci = infos.vlanTci;
      this.count('rxVlan');
    }
    if (infos.flags & F.HASH) {
      mbuf.hash = infos.hash;
      this.count('rxHash');
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
    this.count('rxCoalesced');
    this.count('rxCoalescedFragments', state.fragments);
    return state;
  }

  /** mss of a coalesced TCP packet = first fragment less headers. */
  #sizeSegments(mbuf: Mbuf, first: number): void {
    const frame = this.memory.take(mbuf.data, mbuf.length);
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
      if (!this.end.hasRoom(32)) {
        this.count('rxCompletionsDelayed');
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
