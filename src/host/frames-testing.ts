// For tests of this room: builds FRAME tables, reads delivered FRAMEs back, and a port that records what it gets.
import { createDatapath, type Datapath } from '../datapath/datapath.js';
import { Arena } from '../memory/arena.js';
import { FRAGMENT, FRAME, HEAD_BYTES, PACKET_FLAG } from '../memory/layout.js';
import { parseMac } from '../wire/address-text.js';
import { DEFAULT_VLAN, type PortKind, type SwitchPort, type VlanMode } from './ports.js';

const AT = FRAME.at;

export interface FrameSpec {
  readonly source: number;
  readonly bytes: Uint8Array;
  /** 802.1Q TCI in the frame's cell. */
  readonly tci?: number;
  readonly flags?: number;
  readonly mss?: number;
  readonly l4Offset?: number;
  /** Byte offsets at which fragments end; the last fragment is what remains. */
  readonly cuts?: readonly number[];
}

/** Lays frames out in arena memory: table, fragments, bytes. Release the returned address afterwards. */
export function layFrames(arena: Arena, specs: readonly FrameSpec[]): number {
  const fragmentsOf = (s: FrameSpec) => (s.cuts ?? []).filter((c) => c > 0 && c < s.bytes.length).length + 1;
  const fragments = specs.reduce((n, s) => n + fragmentsOf(s), 0);
  const pad = (n: number) => (n + 15) & ~7;
  const room = specs.reduce((n, s) => n + pad(s.bytes.length) + fragmentsOf(s) * 16 + HEAD_BYTES, 0);
  const table = arena.reserve('test frames', specs.length * FRAME.bytes + fragments * FRAGMENT.bytes + room);
  const put = (address: number, value: number) => {
    arena.u32[address >>> 2] = value;
  };
  let fragment = table + specs.length * FRAME.bytes;
  let data = fragment + fragments * FRAGMENT.bytes;
  specs.forEach((spec, i) => {
    const frame = table + i * FRAME.bytes;
    for (let word = 0; word < FRAME.bytes; word += 4) put(frame + word, 0);
    put(frame + AT.fragments, fragment);
    put(frame + AT.length, spec.bytes.length);
    put(frame + AT.flags, (spec.flags ?? 0) | (spec.tci === undefined ? 0 : PACKET_FLAG.VLAN));
    put(frame + AT.vlanTci, spec.tci ?? 0);
    put(frame + AT.mss, spec.mss ?? 0);
    put(frame + AT.l4Offset, spec.l4Offset ?? 0);
    put(frame + AT.source, spec.source);
    put(frame + AT.head, data);
    arena.u8.set(spec.bytes.subarray(0, HEAD_BYTES), data);
    data += HEAD_BYTES;
    let start = 0;
    let count = 0;
    for (const end of [...(spec.cuts ?? []).filter((c) => c > 0 && c < spec.bytes.length), spec.bytes.length]) {
      arena.u8.set(spec.bytes.subarray(start, end), data);
      put(fragment, data);
      put(fragment + 4, end - start);
      fragment += FRAGMENT.bytes;
      data += pad(end - start);
      start = end;
      count++;
    }
    put(frame + AT.fragmentCount, count);
  });
  return table;
}

export interface SeenFrame {
  readonly bytes: Uint8Array;
  readonly tci: number | undefined;
  readonly flags: number;
  readonly source: number;
  readonly mss: number;
}

/** Reads a FRAME back; checks that its head and its length agree with its fragments. */
export function readFrame(arena: Arena, frame: number): SeenFrame {
  const get = (address: number) => arena.u32[address >>> 2]!;
  const parts: Uint8Array[] = [];
  for (let i = 0; i < get(frame + AT.fragmentCount); i++) {
    const at = get(frame + AT.fragments) + i * FRAGMENT.bytes;
    parts.push(arena.u8.slice(get(at), get(at) + get(at + 4)));
  }
  const bytes = new Uint8Array(Buffer.concat(parts));
  if (bytes.length !== get(frame + AT.length)) {
    throw new Error(`frame says ${get(frame + AT.length)} bytes, its fragments hold ${bytes.length}`);
  }
  const head = get(frame + AT.head);
  const headBytes = Math.min(bytes.length, HEAD_BYTES);
  if (Buffer.compare(arena.u8.slice(head, head + headBytes), bytes.subarray(0, headBytes)) !== 0) {
    throw new Error('frame head differs from its fragments');
  }
  const flags = get(frame + AT.flags);
  const tci = (flags & PACKET_FLAG.VLAN) === 0 ? undefined : get(frame + AT.vlanTci);
  return { bytes, tci, flags, source: get(frame + AT.source), mss: get(frame + AT.mss) };
}

/** A port that keeps copies of what it is given. */
export class RecordingPort implements SwitchPort {
  macs: readonly Uint8Array[] = [];
  vlan: VlanMode = DEFAULT_VLAN;
  mtu = 1500;
  linkUp = true;
  filter: number;
  seen: SeenFrame[] = [];
  deliveries = 0;
  readonly arena: Arena;
  readonly number: number;
  readonly name: string;
  readonly kind: PortKind;

  constructor(arena: Arena, number: number, kind: PortKind, filter: number) {
    this.arena = arena;
    this.number = number;
    this.name = `${kind}${number}`;
    this.kind = kind;
    this.filter = filter;
  }

  deliver(frames: number, count: number): void {
    this.deliveries++;
    for (let i = 0; i < count; i++) this.seen.push(readFrame(this.arena, this.arena.u32[(frames >>> 2) + i]!));
  }

  take(): SeenFrame[] {
    const seen = this.seen;
    this.seen = [];
    return seen;
  }
}

/** Bytes of `aa:bb:cc:dd:ee:ff`. */
export function macBytes(text: string): Uint8Array {
  const bytes = parseMac(text);
  if (!bytes) throw new Error(`expected a MAC address, got ${text}`);
  return bytes;
}

/** An arena with the compiled data path over it. */
export function testMemory(bytes = 8 << 20): { arena: Arena; datapath: Datapath } {
  const arena = Arena.create({ bytes });
  return { arena, datapath: createDatapath(arena.memory) };
}
