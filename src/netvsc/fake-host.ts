// A host for tests: speaks NVSP and RNDIS from a table of answers written from the facts (hyper-v-host.md 3, 4, 8), by hand
// and not with our own encoders, over rings that it reads and writes itself. Each answer can be replaced.
import type { Arena } from '../memory/arena.js';
import type { RingRegion, VmbusOffer } from '../vmbus/device.js';

const PAGE = 4096;
const CONTROL_SUBALLOCATIONS = 16;
const SUCCESS = 1;

/** One message of the guest. */
export interface Request {
  /** "nvsp 101", "rndis 2", "query 10106", "set 1010e". */
  readonly name: string;
  /** Payload: the NVSP message, or the RNDIS message. */
  readonly bytes: DataView;
  /** NVSP transaction. */
  readonly idLow: number;
  readonly idHigh: number;
  /** RNDIS request id, or 0. */
  readonly requestId: number;
}

export type Answer = (host: FakeHost, request: Request, usual: () => void) => void;

export class FakeHost {
  /** Replaces the usual answer to a message. */
  readonly answers = new Map<string, Answer>();
  /** Called for every message with packets. */
  onMessage: ((message: DataView) => void) | undefined;
  /** Called for every message before it is answered. */
  onRequest: ((request: Request) => void) | undefined;
  /** Names of all messages since the channel was opened. */
  log: string[] = [];
  /** Transfer-page packets that the guest completed: id and status. */
  completed: { id: number; status: number }[] = [];
  /** RNDIS packet messages of the guest: data bytes of each. */
  frames: Uint8Array[] = [];
  /** Completions that the guest sent for NVSP messages of ours (empty ones). */
  acknowledged: number[] = [];
  newestVersion = 0x60001;
  suballocationBytes = 1806;
  sectionBytes = 6144;
  alignmentFactor = 3;
  maxPackets = 8;
  connected = true;
  /** Payload bytes of the largest frame. */
  largestMtu = 1500;
  holdSends = false;
  capabilities = offloadCapabilities();
  /** Changes what the host writes: ring packets, and messages in the receive buffer. */
  tamper: (bytes: Uint8Array) => void = () => {};
  readonly held: { low: number; high: number }[] = [];
  openings = 0;
  open = false;
  readonly #offer: VmbusOffer;
  readonly #arena: Arena;
  #version = 0;
  #next = 0;
  #nextData = CONTROL_SUBALLOCATIONS;

  constructor(offer: VmbusOffer) {
    this.#offer = offer;
    this.#arena = offer.arena;
  }

  /** Reads everything that the guest has sent and answers it. */
  step(): void {
    const { opened, closed } = this.#offer.poll();
    if (closed) this.open = false;
    if (opened) {
      this.open = true;
      this.openings++;
      this.log = [];
      this.completed = [];
      this.#next = 0;
      this.#nextData = CONTROL_SUBALLOCATIONS;
      this.held.length = 0;
    }
    if (!this.open) return;
    for (let packet = this.#read(); packet !== undefined && this.open; packet = this.#read()) this.#packet(packet);
  }

  /** Completes the guest's message. */
  complete(request: { readonly idLow: number; readonly idHigh: number }, message: Uint8Array): void {
    this.write(packet(11, 0, request.idLow, request.idHigh, new Uint8Array(0), this.#padded(message)));
  }

  /** Sends an NVSP message of the host's own. */
  inBand(message: Uint8Array, idLow = 0, idHigh = 0, completionRequested = false): void {
    this.write(packet(6, completionRequested ? 1 : 0, idLow, idHigh, new Uint8Array(0), message));
  }

  /** Sends an RNDIS control message through a control suballocation. */
  rndis(message: Uint8Array): void {
    const index = this.#next++ % CONTROL_SUBALLOCATIONS;
    this.transfer(index, message, 1);
  }

  /** Sends an Ethernet frame, framed as OpenVMM does it, in a suballocation of its own. */
  frame(bytes: Uint8Array, infos: Uint8Array = new Uint8Array(0)): void {
    this.transfer(this.#nextData++, rndisFrame(bytes, infos), 0);
    // From the first one again: by then the guest should be done with it.
    if (this.#nextData >= this.#receiveSections) this.#nextData = CONTROL_SUBALLOCATIONS;
  }

  /** A transfer-page packet of one range. */
  transfer(index: number, message: Uint8Array, channelType: number, length = message.length): void {
    this.fill(index, message);
    this.ranges(index, [[length, index * this.suballocationBytes]], channelType);
  }

  /** Puts a message into a suballocation. */
  fill(index: number, message: Uint8Array): void {
    this.tamper(message);
    this.#arena.u8.set(message, this.#offer.receiveBuffer.address + index * this.suballocationBytes);
  }

  /** A transfer-page packet of these ranges. */
  ranges(id: number, ranges: readonly (readonly [bytes: number, offset: number])[], channelType = 0): void {
    const header = words(0xcafe, ranges.length, ...ranges.flat());
    this.write(packet(7, 1, id, 0, header, this.#padded(words(107, channelType, 0xffffffff, 0))));
  }

  /** Bytes that fit into the guest's ring just now. */
  get room(): number {
    const { control, dataBytes } = this.#offer.toGuest;
    const write = this.#arena.u32[control >>> 2]!;
    const read = this.#arena.u32[(control >>> 2) + 1]!;
    return (read > write ? read - write : dataBytes - (write - read)) - 8;
  }

  /** Writes a packet, footer included, and interrupts the guest. */
  write(bytes: Uint8Array): void {
    this.tamper(bytes);
    const ring = this.#offer.toGuest;
    const at = ring.control >>> 2;
    const from = this.#arena.u32[at]!;
    for (let i = 0; i < bytes.length; i++) {
      this.#arena.u8[ring.control + PAGE + ((from + i) % ring.dataBytes)] = bytes[i]!;
    }
    Atomics.store(this.#arena.u32, at, (from + bytes.length) % ring.dataBytes);
    this.#offer.signal();
  }

  rescind(): void {
    this.#offer.rescind();
    this.open = false;
  }

  /** Completes the sends that were held back. */
  releaseSends(): void {
    for (const { low, high } of this.held.splice(0)) this.complete({ idLow: low, idHigh: high }, words(108, SUCCESS));
  }

  #read(): Uint8Array | undefined {
    const ring: RingRegion = this.#offer.fromGuest;
    const at = ring.control >>> 2;
    const write = Atomics.load(this.#arena.u32, at);
    const read = this.#arena.u32[at + 1]!;
    if (write === read) return undefined;
    const take = (bytes: number): Uint8Array =>
      Uint8Array.from(
        { length: bytes },
        (_, i) => this.#arena.u8[ring.control + PAGE + ((read + i) % ring.dataBytes)]!,
      );
    const bytes = new DataView(take(8).buffer).getUint16(4, true) * 8;
    const whole = take(bytes);
    Atomics.store(this.#arena.u32, at + 1, (read + bytes + 8) % ring.dataBytes);
    return whole;
  }

  #packet(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer);
    const type = view.getUint16(0, true);
    const dataAt = view.getUint16(2, true) * 8;
    const idLow = view.getUint32(8, true);
    const idHigh = view.getUint32(12, true);
    const payload = new DataView(bytes.buffer, dataAt);
    if (type === 11) {
      if (payload.byteLength >= 8) this.completed.push({ id: idLow, status: payload.getUint32(4, true) });
      else this.acknowledged.push(idLow);
      return;
    }
    const nvsp = payload.getUint32(0, true);
    if (nvsp !== 107) {
      this.#answer({ name: `nvsp ${nvsp}`, bytes: payload, idLow, idHigh, requestId: 0 });
      return;
    }
    const message = this.#external(payload, type === 9 ? bytes.subarray(16, dataAt) : undefined);
    const kind = message.getUint32(0, true);
    if (kind === 1) {
      this.#data(message);
      if (this.holdSends) this.held.push({ low: idLow, high: idHigh });
      else this.complete({ idLow, idHigh }, words(108, SUCCESS));
      return;
    }
    const oid = kind === 4 || kind === 5 ? message.getUint32(12, true).toString(16) : '';
    const name = kind === 4 ? `query ${oid}` : kind === 5 ? `set ${oid}` : `rndis ${kind}`;
    this.#answer({ name, bytes: message, idLow, idHigh, requestId: message.getUint32(8, true) });
  }

  /** What a message 107 carries: its send-buffer section, then its page ranges. */
  #external(nvsp: DataView, ranges: Uint8Array | undefined): DataView {
    const parts: number[] = [];
    const section = nvsp.getUint32(8, true);
    const { u8 } = this.#arena;
    if (section !== 0xffffffff) {
      const at = this.#offer.sendBuffer.address + section * this.sectionBytes;
      parts.push(...u8.subarray(at, at + nvsp.getUint32(12, true)));
    }
    if (ranges !== undefined) {
      const view = new DataView(ranges.buffer, ranges.byteOffset, ranges.byteLength);
      let at = 8;
      for (let n = view.getUint32(4, true); n > 0; n--) {
        const bytes = view.getUint32(at, true);
        const offset = view.getUint32(at + 4, true);
        at += 8;
        for (let done = 0; done < bytes; at += 8) {
          const page = this.#offer.mapGuestPage(view.getBigUint64(at, true));
          if (page === undefined) throw new Error(`fake host: ${this.#offer.lastRefusal}`);
          const within = Number(view.getBigUint64(at, true) - page.pfn) * PAGE + (done === 0 ? offset : 0);
          const part = Math.min(bytes - done, PAGE - (done === 0 ? offset : 0));
          parts.push(...u8.subarray(page.address + within, page.address + within + part));
          done += part;
        }
      }
    }
    return new DataView(Uint8Array.from(parts).buffer);
  }

  #data(message: DataView): void {
    this.onMessage?.(message);
    for (let at = 0; at < message.byteLength; at += message.getUint32(at + 4, true)) {
      const start = at + 8 + message.getUint32(at + 8, true);
      this.frames.push(new Uint8Array(message.buffer.slice(start, start + message.getUint32(at + 12, true))));
    }
  }

  #answer(request: Request): void {
    this.log.push(request.name);
    this.onRequest?.(request);
    if (!this.open) return;
    const usual = (): void => this.#usual(request);
    const own = this.answers.get(request.name);
    if (own) own(this, request, usual);
    else usual();
  }

  /** The answer of a host without faults. */
  #usual(request: Request): void {
    const { name, bytes, requestId } = request;
    const [kind, what] = name.split(' ') as [string, string];
    if (kind === 'nvsp') {
      if (what === '1') {
        const version = bytes.getUint32(4, true);
        const good = version <= this.newestVersion;
        if (good) this.#version = version;
        this.complete(request, words(2, 0xffffffff, 34, good ? 1 : 0));
      } else if (what === '101') {
        const count = this.#receiveSections;
        const end = count * this.suballocationBytes;
        this.complete(request, words(102, SUCCESS, 1, 0, this.suballocationBytes, count, end));
      } else if (what === '104') this.complete(request, words(105, SUCCESS, this.sectionBytes));
      return;
    }
    this.complete(request, words(108, SUCCESS));
    if (name === 'rndis 2') {
      this.rndis(
        words(0x80000002, 52, requestId, 0, 1, 0, 1, 0, this.maxPackets, 0xefffffff, this.alignmentFactor, 0, 0),
      );
    } else if (kind === 'set') this.rndis(words(0x80000005, 16, requestId, 0));
    else if (kind === 'query') {
      const data = this.#oid(what);
      this.rndis(data ? queryReply(requestId, data) : words(0x80000004, 24, requestId, 0xc00000bb, 0, 0));
    }
  }

  get #receiveSections(): number {
    return Math.floor(this.#offer.receiveBytes() / this.suballocationBytes);
  }

  #oid(oid: string): Uint8Array | undefined {
    switch (oid) {
      case '10106':
        return words(this.largestMtu);
      case '1010101':
        return Uint8Array.of(0x00, 0x15, 0x5d, 1, 2, 3);
      case '20216': {
        const name = new Uint8Array(512);
        name.set(Buffer.from('Network Device', 'utf16le'));
        return name;
      }
      case 'fc01020d':
        return this.capabilities;
      case '10114':
        return words(this.connected ? 0 : 1);
      case '10107':
        return words(100_000_000);
      case '10203': {
        const caps = new Uint8Array(18);
        caps.set(words(0x00120288, 0x301, 1, 8));
        caps[16] = 128;
        return caps;
      }
      default:
        return undefined;
    }
  }

  #padded(message: Uint8Array): Uint8Array {
    const padded = new Uint8Array(this.#version >= 0x60001 ? 40 : 32);
    padded.set(message.subarray(0, padded.length));
    return message.length === 0 ? message : padded;
  }
}

/** An RNDIS packet message with its data at 256, as OpenVMM lays it out; `infos` behind the header. */
export function rndisFrame(bytes: Uint8Array, infos: Uint8Array = new Uint8Array(0)): Uint8Array {
  const message = new Uint8Array(256 + bytes.length);
  message.set(words(1, message.length, 248, bytes.length, 0, 0, 0, infos.length ? 36 : 0, infos.length));
  message.set(infos, 44);
  message.set(bytes, 256);
  return message;
}

/** Little-endian u32 cells. */
export function words(...values: number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(values.length * 4));
  for (const [i, value] of values.entries()) view.setUint32(4 * i, value, true);
  return new Uint8Array(view.buffer);
}

export function queryReply(requestId: number, data: Uint8Array, status = 0): Uint8Array {
  const message = new Uint8Array(24 + data.length);
  message.set(words(0x80000004, message.length, requestId, status, data.length, 16));
  message.set(data, 24);
  return message;
}

export function indication(status: number, buffer: Uint8Array = new Uint8Array(0)): Uint8Array {
  const message = new Uint8Array(20 + buffer.length);
  message.set(words(7, message.length, status, buffer.length, buffer.length ? 12 : 0));
  message.set(buffer, 20);
  return message;
}

/** A ring packet with its footer; payload is padded to 8. */
export function packet(
  type: number,
  flags: number,
  idLow: number,
  idHigh: number,
  extended: Uint8Array,
  payload: Uint8Array,
): Uint8Array {
  const dataAt = 16 + extended.length;
  const bytes = dataAt + ((payload.length + 7) & ~7);
  const whole = new Uint8Array(bytes + 8);
  const view = new DataView(whole.buffer);
  view.setUint16(0, type, true);
  view.setUint16(2, dataAt / 8, true);
  view.setUint16(4, bytes / 8, true);
  view.setUint16(6, flags, true);
  view.setUint32(8, idLow, true);
  view.setUint32(12, idHigh, true);
  whole.set(extended, 16);
  whole.set(payload, dataAt);
  return whole;
}

/** NDIS_OFFLOAD revision 3 with everything a modern host does (facts/hyper-v-host.md 4.5). */
export function offloadCapabilities(): Uint8Array {
  const bytes = new Uint8Array(156);
  const view = new DataView(bytes.buffer);
  bytes.set([0xa7, 3, 156, 0]);
  const v4 = 0x155; // IP options, TCP options, TCP, UDP, IP
  const v6 = 0x55; // extension headers, TCP options, TCP, UDP
  for (const [i, value] of [2, v4, 2, v4, 2, v6, 2, v6].entries()) view.setUint32(4 + 4 * i, value, true);
  for (const [i, value] of [2, 62780, 2, 2, 62780, 2, 0x5].entries()) view.setUint32(80 + 4 * i, value, true);
  return bytes;
}
