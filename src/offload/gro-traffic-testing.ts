// For tests: bursts of several flows in which everything happens that receive offload has a rule for. The frames are made
// from small numbers, so that a failing burst shrinks.
import fc from 'fast-check';
import { fill, put16, referencePseudo, referenceSum } from './offload-testing.js';

export const TCP_FLAG = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16, URG: 32, ECE: 64, CWR: 128 } as const;
const { FIN, SYN, RST, PSH, ACK, URG, ECE, CWR } = TCP_FLAG;

interface FlowShape {
  readonly family: 4 | 6;
  readonly protocol: 6 | 17;
  readonly mss: number;
  /** How the IPv4 identification goes on. */
  readonly ids?: 'up' | 'fixed' | 'random';
  readonly df?: boolean;
  readonly timestamps?: boolean;
  readonly port: number;
  /** Tags in the data. */
  readonly tags?: readonly { readonly tpid: number; readonly tci: number }[];
  /** IPv6 extension headers of 8 or 16 bytes, by number. */
  readonly extensions?: readonly number[];
}

const TAG = { tpid: 0x8100, tci: 0x2005 };
const FLOWS: readonly FlowShape[] = [
  { family: 4, protocol: 6, mss: 1448, ids: 'up', timestamps: true, port: 1 },
  { family: 6, protocol: 6, mss: 1428, timestamps: true, port: 1 },
  { family: 4, protocol: 6, mss: 500, ids: 'fixed', port: 2 },
  { family: 4, protocol: 17, mss: 1200, ids: 'up', port: 1 },
  { family: 6, protocol: 17, mss: 700, port: 2 },
  { family: 4, protocol: 6, mss: 8900, ids: 'up', df: false, port: 3 },
  { family: 6, protocol: 6, mss: 1000, port: 3, extensions: [0, 60] },
  { family: 6, protocol: 6, mss: 8000, port: 4, extensions: [43], timestamps: true },
  { family: 4, protocol: 6, mss: 1448, ids: 'random', port: 6 },
  { family: 4, protocol: 6, mss: 1000, ids: 'up', port: 7 },
  { family: 6, protocol: 6, mss: 1200, port: 6 },
  { family: 4, protocol: 6, mss: 100, ids: 'up', port: 4, tags: [TAG] },
  { family: 4, protocol: 6, mss: 64, ids: 'fixed', df: false, port: 5, tags: [{ tpid: 0x88a8, tci: 7 }, TAG] },
  { family: 6, protocol: 17, mss: 1, port: 5, tags: [TAG], extensions: [60] },
];

interface FlowState {
  sequence: number;
  id: number;
  ack: number;
  window: number;
  clock: number;
  random: number;
}

/** Everything about a frame that can be made different. */
interface Draft {
  readonly shape: FlowShape;
  tags: { tpid: number; tci: number }[];
  mac: number;
  tos: number;
  ttl: number;
  df: boolean;
  reserved: boolean;
  fragment: number;
  ipOptions: number;
  version: number;
  extensions: number[];
  segmentsLeft: number;
  /** Last byte of a routing header. */
  routing: number;
  label: number;
  id: number;
  sequence: number;
  ack: number;
  flags: number;
  window: number;
  reservedBits: number;
  options: number[];
  dataOffset: number;
  payload: Uint8Array;
  protocol: number;
  ipLength: number;
  udpLength: number;
  pad: number;
  cut: number;
  badIp: boolean;
  badL4: boolean;
  noChecksum: boolean;
}

/** As long as timestamps, with another first word. */
const noTimestamps = [1, 0, 8, 10, 0, 0, 0, 5, 0, 0, 0, 77];

/** What may happen to a frame; those with a flow change it from then on. */
const CHANGES: readonly ((draft: Draft, amount: number, flow: FlowState) => void)[] = [
  (d, n, f) => {
    f.ack += 1 + (n & 0xfff);
    d.ack = f.ack;
  },
  (d, n, f) => {
    f.window = n;
    d.window = n;
  },
  (d, n, f) => {
    f.clock += 1 + (n & 3);
    d.options = d.options.length === 0 ? [] : timestamps(f.clock);
  },
  (_d, n, f) => {
    f.id += n;
  },
  (_d, _n, f) => {
    f.id--; // the next one has the same identification
  },
  (d, n) => {
    d.tos = n & 0xff;
  },
  (d, n) => {
    d.tos = 1 << (n & 1); // ECN
  },
  (d, n) => {
    d.ttl = n & 0xff;
  },
  (d) => {
    d.df = !d.df;
  },
  (d) => {
    d.reserved = true;
  },
  (d, n) => {
    d.fragment = n & 1 ? 0x2000 : n & 0x1fff || 1;
  },
  (d, n) => {
    d.ipOptions = 1 + (n % 10);
  },
  (d, n) => {
    // Linux looks at no IPv6 version; we do.
    if (d.shape.family === 4) d.version = n & 15;
  },
  (d, n) => {
    d.extensions = [[0], [60, 60], [43], [44], [51], [], [0, 43, 60]][n % 7]!;
  },
  (d, n) => {
    // The sum is that of the last destination, which Linux does not look for: wrong, as far as it goes.
    d.segmentsLeft = n & 1;
    d.badL4 = d.segmentsLeft !== 0;
    d.extensions = [43];
  },
  (d, n) => {
    d.routing = n & 0xff;
  },
  (d, n) => {
    d.label = n;
  },
  (d, n) => {
    d.sequence += n - 0x8000;
  },
  (d, n) => {
    d.reservedBits = n & 15;
  },
  (d, n) => {
    d.options = [[], [1, 1, 1, 1], [3, 3, 7, 0], timestamps(n), [1, 1, 5, 10, 0, 0, 0, 9, 0, 0, 0, 12], noTimestamps][
      n % 6
    ]!;
  },
  (d, n) => {
    d.dataOffset = n & 15;
  },
  (d, n) => {
    d.protocol = [1, 58, 17, 6, 132][n % 5]!;
  },
  (d, n) => {
    d.ipLength = (n & 15) - 8;
  },
  (d, n) => {
    d.udpLength = (n & 15) - 8;
  },
  (d, n) => {
    d.pad = 1 + (n & 31);
  },
  (d, n) => {
    d.cut = n;
  },
  (d) => {
    d.badIp = true;
  },
  (d) => {
    d.badL4 = true;
  },
  (d) => {
    d.noChecksum = true;
  },
  (d, n) => {
    d.mac = n & 0xff;
  },
  (d, n) => {
    d.tags = [[], [{ tpid: 0x8100, tci: n }], [TAG], [TAG, TAG, TAG]][n & 3]!;
  },
];

/** Flags of a TCP header, by a number; most are plain acknowledgements. */
const FLAGS = [
  ...[PSH | ACK, PSH | ACK, FIN | ACK, FIN | PSH | ACK, SYN, RST, RST | ACK, URG | ACK, ACK | CWR, ACK | ECE, 0, 0xff],
] as const;

export interface GroEvent {
  /** Which flow the frame is of. */
  readonly flow: number;
  /** Payload: up to 9 the flow's segment, else something else. */
  readonly size: number;
  readonly flags: number;
  /** What else is special, see CHANGES; most often nothing. */
  readonly change: number;
  readonly amount: number;
}

/** Flows without tags, which come first; the last change is one of tags. */
export const UNTAGGED_FLOWS: number = FLOWS.filter((flow) => flow.tags === undefined).length;

/** Mostly full segments of up to `flows` flows; in `special` of 100 frames a field is not what it would be. */
function mixture(flows: number, tags: boolean, special: number, most: number): fc.Arbitrary<GroEvent[]> {
  const rarely = <T>(often: T, seldom: fc.Arbitrary<T>) =>
    fc.oneof({ weight: 100 - special, arbitrary: fc.constant(often) }, { weight: special, arbitrary: seldom });
  return fc.array(
    fc.record({
      flow: fc.nat(flows - 1),
      size: rarely(0, fc.integer({ min: 10, max: 15 })),
      flags: rarely(FLAGS.length, fc.nat(FLAGS.length)),
      change: rarely(CHANGES.length, fc.nat(CHANGES.length - (tags ? 1 : 2))),
      amount: fc.nat(0xffff),
    }),
    { minLength: 1, maxLength: most, size: 'max' },
  );
}

/** What happens in a poll. `tags`: whether frames may have some; `most`: frames. */
export function groEvents(tags = true, most = 64): fc.Arbitrary<GroEvent[]> {
  const all = tags ? FLOWS.length : UNTAGGED_FLOWS;
  return fc.oneof(
    mixture(all, tags, 25, most),
    mixture(all, tags, 4, most),
    mixture(4, tags, 8, most),
    mixture(2, tags, 2, most),
  );
}

/** A full segment of a flow and nothing else. */
export const plainEvent = (flow: number): GroEvent => ({
  ...{ flow, size: 0, flags: FLAGS.length, change: CHANGES.length, amount: 0 },
});

/** Bursts in which everything happens once: long ones of one flow, of as many as there are, and each change, flag and size in the
 *  middle of each flow, several flows at a time. */
export function groSweep(tags = true): GroEvent[][] {
  const bursts: GroEvent[][] = [];
  const flows = tags ? FLOWS.length : UNTAGGED_FLOWS;
  const add = (length: number, event: (i: number) => GroEvent) =>
    bursts.push(Array.from({ length }, (_, i) => event(i)));
  for (let count = 2; count <= flows; count++) add(60, (i) => plainEvent(i % count));
  for (let flow = 0; flow < flows; flow++) {
    add(64, () => plainEvent(flow));
    add(64, (i) => ({ ...plainEvent(flow), size: i % 9 === 8 ? 11 : 0 }));
    add(64, () => ({ ...plainEvent(flow), size: 11 }));
  }
  // Up to the last byte that an IP packet may have, and one more: with full segments before.
  for (const [flow, full, left] of [
    [FLOWS.findIndex(({ mss }) => mss === 8900), 7, 65_535 - 40 - 7 * 8900],
    [FLOWS.findIndex(({ mss }) => mss === 8000), 8, 65_535 - 96 - 8 * 8000],
  ] as const) {
    for (const amount of [left - 1, left]) {
      add(full + 1, (i) => ({ ...plainEvent(flow), ...(i === full ? { size: 15, amount } : {}) }));
    }
  }
  /** `odd`: what is special about packet `i` of five of a flow. */
  const amid = (odd: (i: number, flow: number) => Partial<GroEvent>) => {
    for (let from = 0; from < flows; from += 7) {
      const together = Math.min(7, flows - from);
      add(5 * together, (i) => {
        const flow = from + (i % together);
        return { ...plainEvent(flow), ...odd(Math.floor(i / together), flow) };
      });
    }
  };
  for (let size = 10; size <= 15; size++) amid((i) => (i === 2 ? { size, amount: 5 } : {}));
  for (let flags = 0; flags < FLAGS.length; flags++) {
    for (const first of [0, 2, 5]) amid((i) => (i === first || first === 5 ? { flags } : {}));
  }
  for (let change = 0; change < CHANGES.length - (tags ? 0 : 1); change++) {
    // Each flow begins elsewhere.
    for (let n = 0; n < 4; n++) {
      amid((i, flow) => (i === 2 ? { change, amount: ((flow + 2 * n) & 7) * 0x1111 } : {}));
    }
  }
  return bursts;
}

function timestamps(clock: number): number[] {
  return [1, 1, 8, 10, (clock >> 24) & 255, (clock >> 16) & 255, (clock >> 8) & 255, clock & 255, 0, 0, 0, 77];
}

function payloadBytes(size: number, mss: number, amount: number): number {
  if (size <= 9) return mss;
  if (size === 10) return 0;
  if (size === 11) return 1;
  if (size === 12) return mss - 1;
  if (size === 13) return mss + 1;
  if (size === 14) return Math.min(mss * (2 + (amount & 3)), 8900);
  return 1 + (amount % mss);
}

/** The frames of a poll, in order. */
export function groFrames(events: readonly GroEvent[]): { readonly bytes: Uint8Array; readonly mss: number }[] {
  const states = FLOWS.map<FlowState>((_, i) => ({
    ...{ sequence: (0xffff0000 + i * 7919) >>> 0, id: 0xfffa + i, ack: 1000 * i, window: 500 + i, clock: 5, random: i },
  }));
  return events.map((event) => {
    const shape = FLOWS[event.flow]!;
    const state = states[event.flow]!;
    const bytes = payloadBytes(event.size, shape.mss, event.amount);
    state.random = (Math.imul(state.random, 1103515245) + 12345) & 0x7fffffff;
    const payload = new Uint8Array(bytes);
    fill(payload, state.random);
    const change = CHANGES[event.change];
    const draft: Draft = {
      ...{ shape, tags: [...(shape.tags ?? [])], mac: 2, tos: 0, ttl: 64, df: shape.df ?? true, reserved: false },
      ...{ fragment: 0, ipOptions: 0, version: shape.family, extensions: [...(shape.extensions ?? [])] },
      ...{ segmentsLeft: 0, routing: 0x33, label: 0x1234, id: shape.ids === 'random' ? state.random >> 8 : state.id },
      ...{ sequence: state.sequence, ack: state.ack, flags: FLAGS[event.flags] ?? ACK, window: state.window },
      ...{ reservedBits: 0, options: shape.timestamps ? timestamps(state.clock) : [], dataOffset: 0, payload },
      ...{ protocol: shape.protocol, ipLength: 0, udpLength: 0, pad: 0, cut: 0, badIp: false, badL4: false },
      noChecksum: false,
    };
    change?.(draft, event.amount, state);
    state.sequence = (state.sequence + bytes) >>> 0;
    if (shape.ids !== 'fixed') state.id++;
    return { bytes: build(draft), mss: shape.mss };
  });
}

/** Bytes of the extension headers, the last of which names the protocol. */
function extensionBytes({ extensions: list, protocol, segmentsLeft, routing }: Draft): number[] {
  return list.flatMap((number, i) => {
    const next = list[i + 1] ?? protocol;
    if (number === 43) return [next, 2, 2, segmentsLeft, 0, 0, 0, 0, ...new Array<number>(15).fill(0x33), routing];
    if (number === 44) return [next, 0, 0, 1, 0, 0, 0, 9];
    if (number === 51) return [next, 2, ...new Array<number>(14).fill(0)];
    return [next, 0, 1, 4, 0, 0, 0, 0]; // PadN
  });
}

function transport(d: Draft): number[] {
  const port = 1000 + d.shape.port;
  if (d.shape.protocol === 17) {
    const length = Math.max(0, 8 + d.payload.length + d.udpLength);
    return [port >> 8, port & 255, 0, 53, (length >> 8) & 255, length & 255, 0, 0];
  }
  const words = [d.sequence, d.ack].flatMap((n) => [(n >>> 24) & 255, (n >>> 16) & 255, (n >>> 8) & 255, n & 255]);
  const offset = d.dataOffset === 0 ? 5 + d.options.length / 4 : d.dataOffset;
  return [
    ...[port >> 8, port & 255, 0, 80, ...words, (offset << 4) | d.reservedBits, d.flags],
    ...[(d.window >> 8) & 255, d.window & 255, 0, 0, 0, 0, ...d.options],
  ];
}

function build(d: Draft): Uint8Array {
  const { shape } = d;
  const four = shape.family === 4;
  const extensions = four ? [] : extensionBytes(d);
  const l4 = transport(d);
  const tags = d.tags.flatMap(({ tpid, tci }) => [tpid >> 8, tpid & 255, tci >> 8, tci & 255]);
  const ipHeader = four ? 20 + d.ipOptions * 4 : 40;
  const l3 = 14 + tags.length;
  const l4At = l3 + ipHeader + extensions.length;
  const frame = new Uint8Array(l4At + l4.length + d.payload.length + d.pad);
  frame.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, d.mac, ...tags, ...(four ? [8, 0] : [0x86, 0xdd])]);
  frame.set(l4, l4At);
  frame.set(d.payload, l4At + l4.length);
  const end = frame.length - d.pad;
  if (four) {
    frame.set([(d.version << 4) | (ipHeader / 4), d.tos], l3);
    put16(frame, l3 + 2, end - l3 + d.ipLength);
    put16(frame, l3 + 4, d.id);
    put16(frame, l3 + 6, (d.df ? 0x4000 : 0) | (d.reserved ? 0x8000 : 0) | d.fragment);
    frame.set([d.ttl, d.protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], l3 + 8);
    frame.fill(1, l3 + 20, l3 + ipHeader);
    put16(frame, l3 + 10, ~referenceSum(frame, l3, l3 + ipHeader) ^ (d.badIp ? 0x0101 : 0));
  } else {
    put16(frame, l3, (d.version << 12) | (d.tos << 4));
    put16(frame, l3 + 2, d.label);
    put16(frame, l3 + 4, end - l3 - 40 + d.ipLength);
    frame.set([d.extensions[0] ?? d.protocol, d.ttl, 0xfd], l3 + 6);
    frame.set([1, 0xfd], l3 + 23);
    frame[l3 + 39] = 2;
    frame.set(extensions, l3 + 40);
  }
  const field = l4At + (shape.protocol === 6 ? 16 : 6);
  const pseudo = referencePseudo(frame, l3, shape.family, shape.protocol, end - l4At);
  const sum = ~referenceSum(frame, l4At, end, pseudo) & 0xffff;
  put16(frame, field, d.badL4 ? sum ^ 0x4242 : sum === 0 && shape.protocol === 17 ? 0xffff : sum);
  if (d.noChecksum && shape.protocol === 17) put16(frame, field, 0);
  return d.cut === 0 ? frame : frame.slice(0, 14 + (d.cut % (frame.length - 13)));
}
