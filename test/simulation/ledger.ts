// Every packet of a run from the moment a sender gave it away: it arrives once, whole and in order, or a named counter
// says where it was dropped.
import { checksumAt, finishedFrame, headerBytes, label, type Packet, payloadBytes } from './packets.js';

/** Where a packet is to arrive: a station's name, or every station ("all"). */
export interface Sent {
  readonly packet: Packet;
  readonly from: string;
  readonly to: string;
}

interface Entry extends Sent {
  /** Per path: payload bytes that came, and where the last of them ended. */
  readonly got: Map<string, { bytes: number; end: number; pieces: number }>;
  /** Its sender or receiver went away without a word: it may be lost uncounted. */
  excused: boolean;
}

export class Ledger {
  /** Stations that see other stations' packets for now. */
  readonly promiscuous = new Set<string>();
  /** There is no host: what is sent may be lost uncounted. */
  hostDead = false;
  delivered = 0;
  dropped = 0;
  readonly #entries = new Map<number, Entry>();
  readonly #short = new Map<string, number>();
  /** Per sender and receiver: number of the last packet that came. */
  readonly #last = new Map<string, number>();
  #nextId = 1;
  #unbounded = false;

  nextId(): number {
    return this.#nextId++;
  }

  /** The sender no longer owns the packet. */
  sent(sent: Sent): void {
    this.#entries.set(sent.packet.id, { ...sent, got: new Map(), excused: this.hostDead });
    this.#short.set(`${sent.from} ${sent.packet.id & 0xfff}`, sent.packet.id);
    if (this.promiscuous.size > 0) this.#unbounded = true;
  }

  /** Whatever is on its way from or to this station (all stations when undefined) may be lost. */
  excuse(station?: string): void {
    for (const entry of this.#entries.values()) {
      if (station === undefined || [entry.from, entry.to].includes(station) || entry.to === 'all') entry.excused = true;
    }
  }

  /** A frame came. `tci` and `unfinishedTcp` as the receiver was told; `answered`: who is told, when it is the echo
   *  station's answer. */
  arrived(
    receiver: string,
    sender: string,
    frame: Uint8Array,
    tci: number | undefined,
    unfinishedTcp: boolean,
    answered: string | undefined,
  ): void {
    const name = label(frame);
    const fail = (why: string): never => {
      const id = name === undefined ? '?' : name.id;
      throw new Error(`packet ${id} from ${sender} at ${receiver} (${frame.length} bytes): ${why}`);
    };
    if (name === undefined)
      throw fail(`nobody sends such a frame: ${Buffer.from(frame.subarray(0, 64)).toString('hex')}`);
    const origin = answered ?? sender;
    const id = name.short ? (this.#short.get(`${origin} ${name.id}`) ?? -1) : name.id;
    const entry = this.#entries.get(id);
    if (entry === undefined) throw fail('never sent, or settled already');
    const { packet } = entry;
    if (entry.from !== origin) fail(`was sent by ${entry.from}`);
    const meant = answered === undefined ? entry.to : answered;
    if (answered !== undefined && entry.to !== 'echo') fail(`was meant for ${entry.to}`);
    if (meant !== receiver && meant !== 'all') {
      if (!this.promiscuous.has(receiver)) fail(`was meant for ${entry.to}`);
    }
    if (tci !== packet.tci) fail(`tag ${packet.tci} became ${tci}`);
    this.#compare(packet, frame, name.offset, unfinishedTcp, answered !== undefined, fail);
    const path = `${answered === undefined ? '' : 'echo '}${origin}>${receiver}`;
    const header = headerBytes(packet);
    const bytes = frame.length - header;
    let got = entry.got.get(path);
    if (got !== undefined && (packet.kind !== 'tso' || name.offset < got.end)) fail('came twice');
    got ??= { bytes: 0, end: 0, pieces: 0 };
    got.bytes += bytes;
    got.end = name.offset + bytes;
    got.pieces++;
    entry.got.set(path, got);
    const last = this.#last.get(path) ?? 0;
    if (packet.id < last) fail(`came after packet ${last}`);
    this.#last.set(path, packet.id);
    this.delivered++;
  }

  /** Nothing is on its way any more: what did not arrive must be among the `drops` that counters gained since last time. */
  settle(drops: number, receivers: number): void {
    let least = 0;
    let most = 0;
    const missing: string[] = [];
    for (const { packet, from, to, got, excused } of this.#entries.values()) {
      const pieces = packet.kind === 'tso' ? Math.max(1, Math.ceil(payloadBytes(packet) / packet.mss)) : 1;
      if (to === 'all') {
        most += receivers * pieces;
        continue;
      }
      const arrived = got.get(to === 'echo' ? `echo ${from}>${from}` : `${from}>${to}`);
      if (arrived !== undefined && arrived.bytes === payloadBytes(packet)) continue;
      const left = arrived === undefined ? pieces : Math.ceil((payloadBytes(packet) - arrived.bytes) / packet.mss);
      most += left;
      if (excused) continue;
      least += arrived === undefined ? 1 : left;
      missing.push(`${packet.id} (${packet.kind} of ${packet.bytes}, ${from} to ${to})`);
    }
    const unbounded = this.#unbounded;
    this.#entries.clear();
    this.#short.clear();
    this.#unbounded = this.promiscuous.size > 0;
    this.dropped += drops;
    if (drops < least) {
      throw new Error(`lost: counters name ${drops} drops, at least ${least} did not arrive: ${missing.join(', ')}`);
    }
    if (drops > most && !unbounded) throw new Error(`counters name ${drops} drops, at most ${most} did not arrive`);
  }

  #compare(
    packet: Packet,
    frame: Uint8Array,
    offset: number,
    unfinishedTcp: boolean,
    answered: boolean,
    fail: (why: string) => never,
  ): void {
    const header = headerBytes(packet);
    const bytes = frame.length - header;
    if (packet.kind === 'tso') {
      if (bytes < 0 || offset + bytes > payloadBytes(packet))
        fail(`payload ${offset} + ${bytes} is outside the packet`);
      const last = offset + bytes === payloadBytes(packet);
      if (!last && bytes !== packet.mss) fail(`a segment of ${bytes} bytes, mss is ${packet.mss}`);
    } else if (frame.length !== packet.bytes) fail(`was sent with ${packet.bytes} bytes`);
    if (answered) {
      // Addresses and ports change places; the checksum does not change by that.
      const right = finishedFrame(packet);
      if (!sameBytes(frame, right, header)) fail('answered with another payload');
      if (!sameBytes(frame.subarray(0, 6), packet.from, 0)) fail('answered to somebody else');
      return;
    }
    const right = finishedFrame(packet, offset, bytes);
    if (packet.kind === 'tso' && !packet.v6) {
      // Each segment has an identification of its own, and the header's checksum follows.
      const at = new DataView(frame.buffer, frame.byteOffset);
      let sum = 0;
      for (let i = 14; i < 34; i += 2) sum += at.getUint16(i);
      while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
      if (sum !== 0xffff) fail('IPv4 header checksum is wrong');
      right.set(frame.subarray(18, 20), 18);
      right.set(frame.subarray(24, 26), 24);
    }
    if (unfinishedTcp && packet.kind !== 'udp' && packet.kind !== 'raw') {
      const at = checksumAt(packet);
      right.set(frame.subarray(at, at + 2), at);
    }
    if (sameBytes(frame, right, 0)) return;
    const at = right.findIndex((byte, i) => byte !== frame[i]);
    fail(`${packet.kind}${packet.v6 ? ' over IPv6' : ''}: byte ${at} is ${frame[at]}, expected ${right[at]}`);
  }
}

const sameBytes = (a: Uint8Array, b: Uint8Array, from: number): boolean =>
  Buffer.compare(a.subarray(from), b.subarray(from)) === 0;
