// For tests: receive offload as Linux's rules read, without a thought of speed. What the compiled stage is compared with.
import { PACKET_FLAG } from '../memory/layout.js';
import type { GroInput } from './gro-rig-testing.js';
import { TCP_FLAG } from './gro-traffic-testing.js';
import { get16, get32, put16, referencePseudo, referenceSum } from './offload-testing.js';

const { FIN, SYN, RST, PSH, URG, CWR } = TCP_FLAG;
const { VLAN, HASH, RX_L4_GOOD, RX_L4_BAD, RX_IP_BAD, TX_TSO, RX_COALESCED } = PACKET_FLAG;
const { TX_TCP_CHECKSUM, TX_UDP_CHECKSUM } = PACKET_FLAG;

/** A packet that the stage may do something with. */
interface Seen {
  readonly index: number;
  readonly bytes: Uint8Array;
  readonly hash: number;
  readonly protocol: number;
  readonly l3: number;
  readonly l4: number;
  readonly payloadAt: number;
  /** Equal for all packets of a flow. */
  readonly flow: string;
  /** Equal for packets that may follow each other. */
  readonly follows: string;
  readonly id: number | undefined;
  readonly sequence: number;
  readonly tcpFlags: number;
  /** Bytes of payload a segment, and how many segments there are. */
  readonly size: number;
  readonly segments: number;
  readonly alone: boolean;
}

interface Held {
  readonly parts: Seen[];
  segments: number;
  payload: number;
  fixedId: boolean;
  readonly poll: number;
}

/** A packet that goes on. */
export interface GroExpected {
  readonly bytes: Uint8Array;
  /** Of which packets it is made. */
  readonly parts: readonly number[];
  /** Bytes of payload a segment, 0 = as it came in. */
  readonly mss: number;
  readonly l4Offset: number;
  readonly protocol: number;
  /** What the stage found out about its checksum, if it had to. */
  readonly verdict: number;
}

const hex = (bytes: Uint8Array, from: number, to: number) => Buffer.from(bytes.subarray(from, to)).toString('hex');

export class GroModel {
  readonly #udp: boolean;
  readonly #buckets: Held[][] = Array.from({ length: 8 }, () => []);
  readonly #verdicts = new Map<number, number>();
  readonly #inputs: GroInput[] = [];
  #out: GroExpected[] = [];
  #poll = 0;

  constructor(udp: boolean) {
    this.#udp = udp;
  }

  receive(inputs: readonly GroInput[]): GroExpected[] {
    this.#out = [];
    for (const input of inputs) {
      const index = this.#inputs.push(input) - 1;
      const seen = this.#look(input, index);
      if (seen === undefined) this.#pass(index);
      else this.#take(seen);
    }
    return this.#out;
  }

  flush(old = false): GroExpected[] {
    this.#out = [];
    this.#buckets.forEach((bucket, i) => {
      const stays = bucket.filter((held) => old && held.poll === this.#poll);
      for (const held of bucket) if (!stays.includes(held)) this.#deliver(held);
      this.#buckets[i] = stays;
    });
    this.#poll++;
    return this.#out;
  }

  #pass(index: number): void {
    const { bytes } = this.#inputs[index]!;
    this.#out.push({
      bytes,
      parts: [index],
      mss: 0,
      l4Offset: 0,
      protocol: 0,
      verdict: this.#verdicts.get(index) ?? 0,
    });
  }

  #take(seen: Seen): void {
    const bucket = this.#buckets[seen.hash & 7]!;
    const at = bucket.findIndex((held) => held.parts[0]!.flow === seen.flow);
    const held = bucket[at];
    const udp = seen.protocol === 17;
    const payload = seen.bytes.length - seen.payloadAt;
    if (held !== undefined) {
      const first = held.parts[0]!;
      const merged = this.#fits(held, seen);
      if (merged) {
        held.parts.push(seen);
        held.segments += seen.segments;
        held.payload += payload;
      }
      const ends = udp ? held.segments >= 64 : (seen.tcpFlags & (URG | PSH | RST | SYN | FIN)) !== 0;
      const short = seen.segments === 1 ? payload < first.size : payload !== seen.segments * seen.size;
      if (!merged || ends || short) {
        bucket.splice(at, 1);
        this.#deliver(held);
      }
      if (merged) return;
    }
    const last = (seen.tcpFlags & (URG | PSH | RST | SYN | FIN)) !== 0 || payload !== seen.segments * seen.size;
    if (seen.alone || last || payload === 0) {
      this.#pass(seen.index);
      return;
    }
    if (bucket.length === 8) this.#deliver(bucket.shift()!);
    bucket.push({ parts: [seen], segments: seen.segments, payload, fixedId: false, poll: this.#poll });
  }

  #fits(held: Held, seen: Seen): boolean {
    const first = held.parts[0]!;
    const payload = seen.bytes.length - seen.payloadAt;
    if (seen.alone || seen.follows !== first.follows) return false;
    if (seen.segments === 1 ? payload === 0 || payload > first.size : seen.size !== first.size) return false;
    if (seen.protocol === 6) {
      if ((seen.tcpFlags & CWR) !== 0 || seen.sequence !== (first.sequence + held.payload) >>> 0) return false;
    }
    if (first.payloadAt - 14 + held.payload + payload >= 65536) return false;
    if (first.id !== undefined) {
      const step = (seen.id! - first.id) & 0xffff;
      if (held.segments === 1) held.fixedId = step === 0;
      if (step !== (held.fixedId ? 0 : held.segments & 0xffff)) return false;
    }
    return true;
  }

  #deliver({ parts, segments }: Held): void {
    const first = parts[0]!;
    if (segments === 1) {
      this.#pass(first.index);
      return;
    }
    const { l3, l4, protocol } = first;
    const bytes = Buffer.concat([first.bytes, ...parts.slice(1).map((part) => part.bytes.subarray(part.payloadAt))]);
    const four = bytes[l3]! >> 4 === 4;
    const l4Bytes = bytes.length - l4;
    if (four) {
      put16(bytes, l3 + 2, bytes.length - l3);
      put16(bytes, l3 + 10, 0);
      put16(bytes, l3 + 10, ~referenceSum(bytes, l3, l3 + 20));
    } else put16(bytes, l3 + 4, bytes.length - l3 - 40);
    const pseudo = referencePseudo(bytes, l3, four ? 4 : 6, protocol, l4Bytes);
    if (protocol === 6) {
      put16(bytes, l4 + 16, pseudo);
      for (const part of parts.slice(1)) bytes[l4 + 13]! |= part.tcpFlags & (FIN | PSH);
    } else {
      put16(bytes, l4 + 4, l4Bytes);
      put16(bytes, l4 + 6, pseudo);
    }
    const indices = parts.map((part) => part.index);
    this.#out.push({ bytes, parts: indices, mss: first.size, l4Offset: l4, protocol, verdict: 0 });
  }

  /** Undefined: no packet for the stage. */
  #look(input: GroInput, index: number): Seen | undefined {
    const { bytes, flags = 0, cuts = [], mss = 0 } = input;
    // What lies in the first segment: all headers have to.
    const head = Math.min(bytes.length, 2048, cuts.find((at) => at > 0) ?? Number.POSITIVE_INFINITY);
    let l3 = 14;
    while (l3 <= 18 && l3 <= head && [0x8100, 0x88a8].includes(get16(bytes, l3 - 2))) l3 += 4;
    const type = get16(bytes, l3 - 2);
    const ip =
      type === 0x0800 ? this.#ipv4(bytes, l3, head) : type === 0x86dd ? this.#ipv6(bytes, l3, head) : undefined;
    if (ip === undefined || head < 34) return undefined;
    const { protocol, l4 } = ip;
    if (l4 + 8 > head || (protocol !== 6 && !(protocol === 17 && this.#udp))) return undefined;
    if ((flags & (RX_L4_BAD | RX_IP_BAD)) !== 0) return undefined;
    const large = (flags & (TX_TSO | RX_COALESCED)) !== 0 && mss !== 0;
    const alone = ip.alone || input.shared !== undefined || (large && (protocol === 17 || (flags & TX_TSO) !== 0));
    const l4Bytes = bytes.length - l4;
    if (protocol === 17 && (get16(bytes, l4 + 6) === 0 || l4Bytes <= 8 || get16(bytes, l4 + 4) !== l4Bytes))
      return undefined;
    if (!alone && (flags & (RX_L4_GOOD | TX_TCP_CHECKSUM | TX_UDP_CHECKSUM)) === 0) {
      const pseudo = referencePseudo(bytes, l3, ip.family, protocol, l4Bytes);
      const good = referenceSum(bytes, l4, bytes.length, pseudo) === 0xffff;
      this.#verdicts.set(index, good ? RX_L4_GOOD : RX_L4_BAD);
      if (!good) return undefined;
    }
    const tcp = protocol === 6;
    if (tcp && l4 + 20 > head) return undefined;
    const header = tcp ? (bytes[l4 + 12]! >> 4) * 4 : 8;
    const payloadAt = l4 + header;
    if (tcp && (header < 20 || payloadAt > head)) return undefined;
    const payload = bytes.length - payloadAt;
    const size = tcp && large && payload > mss ? mss : payload;
    const hash = (flags & HASH) !== 0 ? (input.hash ?? 0) : 0;
    const tag = (flags & VLAN) !== 0 ? `tag ${input.vlanTci}` : '';
    // Flags but the last two, window, acknowledgement and options.
    const rest = tcp
      ? `${hex(bytes, l4 + 8, l4 + 13)} ${bytes[l4 + 13]! & ~(FIN | PSH)} ${hex(bytes, l4 + 14, l4 + 16)} ${hex(bytes, l4 + 20, payloadAt)}`
      : '';
    return {
      ...{ index, bytes, hash, protocol, l3, l4, payloadAt, id: ip.id, alone },
      flow: `${hash} ${tag} ${hex(bytes, 0, l3)} ${ip.flow} ${hex(bytes, l4, l4 + 4)}`,
      follows: `${ip.follows} ${rest}`,
      sequence: tcp ? get32(bytes, l4 + 4) : 0,
      tcpFlags: tcp ? bytes[l4 + 13]! : 0,
      size,
      segments: size === 0 ? 1 : Math.ceil(payload / size),
    };
  }

  #ipv4(bytes: Uint8Array, l3: number, head: number) {
    if (l3 + 20 > head || bytes[l3] !== 0x45 || referenceSum(bytes, l3, l3 + 20) !== 0xffff) return undefined;
    const fragment = get16(bytes, l3 + 6);
    if ((fragment & 0x3fff) !== 0) return undefined;
    return {
      family: 4,
      protocol: bytes[l3 + 9]!,
      l4: l3 + 20,
      flow: `4 ${bytes[l3 + 9]} ${hex(bytes, l3 + 12, l3 + 20)}`,
      follows: `${bytes[l3 + 1]} ${bytes[l3 + 8]} ${fragment & 0x4000}`,
      id: get16(bytes, l3 + 4) as number | undefined,
      alone: get16(bytes, l3 + 2) !== bytes.length - l3 || (fragment & 0x8000) !== 0,
    };
  }

  #ipv6(bytes: Uint8Array, l3: number, head: number) {
    if (l3 + 40 > head || bytes[l3]! >> 4 !== 6) return undefined;
    let protocol = bytes[l3 + 6]!;
    let l4 = l3 + 40;
    while ([0, 43, 60].includes(protocol)) {
      if (l4 + 8 > head || (protocol === 43 && bytes[l4 + 3] !== 0)) return undefined;
      protocol = bytes[l4]!;
      l4 += (bytes[l4 + 1]! + 1) * 8;
    }
    const label = get32(bytes, l3) & 0xfffff;
    return {
      family: 6,
      protocol,
      l4,
      flow: `6 ${label} ${bytes[l3 + 6]} ${hex(bytes, l3 + 8, Math.min(l4, bytes.length))} ${l4}`,
      follows: `${(get16(bytes, l3) >> 4) & 0xff} ${bytes[l3 + 7]}`,
      id: undefined,
      alone: get16(bytes, l3 + 4) !== bytes.length - l3 - 40,
    };
  }
}
