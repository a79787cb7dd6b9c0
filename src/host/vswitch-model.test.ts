// Random ports, random bursts: the switch against a plain one that is written to be read, not to be fast.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type FrameSpec, layFrames, RecordingPort, testMemory } from './frames-testing.js';
import { PORT_FILTER, type SwitchPort, UPLINK_FILTER, type VlanMode } from './ports.js';
import { VirtualSwitch } from './vswitch.js';

interface Tagged {
  readonly tci: number | undefined;
  readonly bytes: Uint8Array;
}

const GROUP = (mac: number[]) => (mac[0]! & 1) === 1;
const key = (mac: number[] | Uint8Array) => Array.from(mac).join('.');

/** Sees the tag wherever it is; undefined = cut off within the tag. */
function normal(spec: FrameSpec): Tagged | undefined {
  if (spec.tci !== undefined) return { tci: spec.tci, bytes: spec.bytes };
  if (spec.bytes[12] !== 0x81 || spec.bytes[13] !== 0) return { tci: undefined, bytes: spec.bytes };
  if (spec.bytes.length < 18) return undefined;
  const bytes = Uint8Array.from([...spec.bytes.subarray(0, 12), ...spec.bytes.subarray(16)]);
  return { tci: (spec.bytes[14]! << 8) | spec.bytes[15]!, bytes };
}

const untaggedOf = (mode: VlanMode) => (mode.mode === 'access' ? mode.vlan : mode.native);
const carries = (mode: VlanMode, vlan: number) =>
  vlan === untaggedOf(mode) ||
  (mode.mode === 'trunk' && vlan > 0 && vlan < 4095 && (!mode.allowed || mode.allowed.has(vlan)));

class PlainSwitch {
  readonly stations = new Map<string, number>();
  readonly got = new Map<number, Tagged[]>();
  readonly ports: readonly SwitchPort[];

  constructor(ports: readonly SwitchPort[]) {
    this.ports = ports;
    for (const port of ports) this.got.set(port.number, []);
  }

  forward(spec: FrameSpec): void {
    const source = this.ports.find((p) => p.number === spec.source);
    if (!source?.linkUp) return;
    const frame = normal(spec);
    if (!frame) return;
    const to = [...frame.bytes.subarray(0, 6)];
    const from = [...frame.bytes.subarray(6, 12)];
    const id = (frame.tci ?? 0) & 0xfff;
    if (id !== 0 && source.vlan.mode === 'access') return;
    const vlan = id || untaggedOf(source.vlan);
    if (!carries(source.vlan, vlan)) return;
    const owner = (mac: number[]) =>
      this.ports.find((p) => carries(p.vlan, vlan) && p.macs.some((m) => key(m) === key(mac)));
    if (!GROUP(from)) {
      const own = owner(from);
      if (own && own !== source) return;
      if (!own && from.some((b) => b !== 0)) this.stations.set(`${vlan} ${key(from)}`, source.number);
    }
    const at = owner(to)?.number ?? this.stations.get(`${vlan} ${key(to)}`);
    for (const port of this.ports) {
      if (port === source || !port.linkUp || !carries(port.vlan, vlan)) continue;
      const filter = port.kind === 'nic' ? port.filter & 0xffff : port.filter;
      let kind: number;
      if (to.every((b) => b === 0xff)) kind = PORT_FILTER.BROADCAST;
      else if (GROUP(to)) kind = PORT_FILTER.MULTICAST | PORT_FILTER.ALL_MULTICAST;
      else if (at === undefined) kind = PORT_FILTER.UNKNOWN;
      else kind = at === port.number ? PORT_FILTER.DIRECTED : 0;
      if ((filter & (kind | PORT_FILTER.PROMISCUOUS)) === 0 || frame.bytes.length > port.mtu + 14) continue;
      const untagged = untaggedOf(port.vlan) === vlan;
      const priority = (frame.tci ?? 0) & 0xf000;
      const tci = !untagged ? priority | vlan : vlan === 0 ? frame.tci : undefined;
      this.got.get(port.number)!.push({ tci, bytes: frame.bytes });
    }
  }
}

const mac = fc.constantFrom(
  [0, 0x15, 0x5d, 0, 0, 1],
  [0, 0x15, 0x5d, 0, 0, 2],
  [2, 0, 0, 0, 0, 1],
  [2, 0, 0, 0, 0, 2],
  [2, 0, 0, 0, 0x80, 3],
  [1, 0, 0x5e, 0, 0, 1],
  [0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
  [0, 0, 0, 0, 0, 0],
);
const vlan = fc.constantFrom(0, 1, 2, 4094);
const mode: fc.Arbitrary<VlanMode> = fc.oneof(
  fc.record({ mode: fc.constant('access' as const), vlan }),
  fc.record({ mode: fc.constant('trunk' as const), native: vlan }),
  fc.record({
    mode: fc.constant('trunk' as const),
    native: vlan,
    allowed: fc.array(vlan, { maxLength: 3 }).map((v) => new Set(v)),
  }),
);
const port = fc.record({
  kind: fc.constantFrom('nic' as const, 'tap' as const),
  vlan: mode,
  filter: fc.constantFrom(0, 1, 4, 8, 0xd, 0xf, 0x20, 0x2f, UPLINK_FILTER, PORT_FILTER.UNKNOWN),
  mtu: fc.constantFrom(100, 1500),
  linkUp: fc.boolean().map((b) => b || undefined),
  own: fc.boolean(),
});
const tci = fc
  .tuple(fc.constantFrom(0, 0x1000, 0xe000), fc.constantFrom(0, 1, 2, 3, 4094, 4095))
  .map(([p, v]) => p | v);
const frame = fc.record({
  source: fc.integer({ min: 0, max: 5 }),
  to: mac,
  from: mac,
  tag: fc.option(tci, { nil: undefined }),
  inline: fc.boolean(),
  length: fc.constantFrom(14, 17, 18, 60, 114, 115, 300, 400),
  cuts: fc.array(fc.integer({ min: 1, max: 420 }), { maxLength: 4 }),
});

test('agrees with a plain switch', () => {
  const { arena, datapath } = testMemory();
  fc.assert(
    fc.property(
      fc.array(port, { minLength: 2, maxLength: 4 }),
      fc.array(fc.array(frame, { maxLength: 12 }), { maxLength: 6 }),
      (configs, bursts) => {
        const vswitch = new VirtualSwitch({ arena, datapath, seed: 99 });
        const ports = configs.map((config, i) => {
          const made = new RecordingPort(arena, i + 1, config.kind, config.filter);
          made.vlan = config.vlan;
          made.mtu = config.mtu;
          made.linkUp = config.linkUp ?? false;
          if (config.own) made.macs = [Uint8Array.of(0, 0x15, 0x5d, 0, 0, i + 1)];
          vswitch.addPort(made);
          return made;
        });
        const plain = new PlainSwitch(ports);
        let id = 0;
        for (const burst of bursts) {
          const specs = burst.map((f): FrameSpec => {
            const bytes = new Uint8Array(f.length);
            bytes.set(f.to, 0);
            bytes.set(f.from, 6);
            bytes.set([0x08, 0x00], 12);
            for (let i = 14; i < f.length; i++) bytes[i] = i + id;
            id++;
            const cuts = [...f.cuts].sort((a, b) => a - b);
            if (f.tag === undefined) return { source: f.source, bytes, cuts };
            if (!f.inline) return { source: f.source, bytes, cuts, tci: f.tag };
            bytes.set([0x81, 0x00], 12);
            if (f.length >= 16) bytes.set([f.tag >>> 8, f.tag & 0xff], 14);
            return { source: f.source, bytes, cuts };
          });
          for (const spec of specs) plain.forward(spec);
          if (specs.length > 0) {
            const table = layFrames(arena, specs);
            vswitch.forward(table, specs.length);
            arena.release(table);
          }
          for (const p of ports) {
            const got = p.take().map(({ tci, bytes }) => ({ tci, bytes: Buffer.from(bytes).toString('hex') }));
            const expected = plain.got
              .get(p.number)!
              .map(({ tci, bytes }) => ({ tci, bytes: Buffer.from(bytes).toString('hex') }));
            assert.deepEqual(got, expected);
            plain.got.set(p.number, []);
          }
        }
        vswitch.close();
      },
    ),
    { numRuns: 300 },
  );
});
