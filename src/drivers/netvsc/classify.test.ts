// The pass over received bursts (classify.ts in datapath/assembly): against a plain model, against the hash of offload/rss.ts, and
// against what tshark sees in a capture.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { createDatapath } from '../../datapath/datapath.js';
import { PACKET_TYPE as P } from '../../ethdev/constants.js';
import { Arena } from '../../memory/arena.js';
import { GUEST_PORT, MBUF, PACKET_FLAG, PACKET_KINDS, PORT_OPTION } from '../../memory/layout.js';
import { createPool, HEADROOM, poolBytes, poolFree } from '../../memory/pool.js';
import { MICROSOFT_KEY, ReceiveSideScaling } from '../../offload/rss.js';
import { NDIS_HASH_TYPE } from '../../wire/ndis.js';
import { pcapHeader, pcapRecord, readCapture } from '../../wire/pcap.js';
import { Filters } from './filters.js';

const arena = Arena.create({ bytes: 24 << 20 });
const datapath = createDatapath(arena.memory);
const { u8, u32 } = arena;
const COUNT = 512;
const POOL = { name: 'classify', count: COUNT, room: HEADROOM + 9100, headroom: HEADROOM };
const pool = createPool(arena, arena.reserve('mbufs', poolBytes(POOL)), POOL);
const port = arena.reserve('port', GUEST_PORT.bytes);
const list = arena.reserve('list', COUNT * 4);
const handles = arena.reserve('handles', COUNT * 4);
const key = arena.reserve('key', 64);
const filters = new Filters(arena, 'test');
u8.set(MICROSOFT_KEY, key);

const set = (cell: keyof typeof GUEST_PORT.at, value: number) => {
  u32[(port + GUEST_PORT.at[cell]) >>> 2] = value;
};
const counter = (cell: keyof typeof GUEST_PORT.at) => u32[(port + GUEST_PORT.at[cell]) >>> 2]!;
const cellOf = (mbuf: number, cell: keyof typeof MBUF.at) => u32[(mbuf + MBUF.at[cell]) >>> 2]!;

interface Came {
  readonly index: number;
  readonly bytes: Uint8Array;
  readonly type: number;
  readonly flags: number;
  readonly hash: number;
}

/** Has a port receive frames, each with its tag beside it if it has one, and says what it hands out. */
function receive(frames: readonly { readonly bytes: Uint8Array; readonly tci?: number }[], options: number): Came[] {
  assert.equal(datapath.poolGet(pool, list, frames.length), frames.length);
  for (const [i, { bytes, tci }] of frames.entries()) {
    const mbuf = u32[(list >>> 2) + i]!;
    u8.set(bytes, cellOf(mbuf, 'data'));
    const cells = { dataLength: bytes.length, packetLength: bytes.length, user: i, vlanTci: tci ?? 0 };
    for (const [name, value] of Object.entries({ ...cells, flags: tci === undefined ? 0 : PACKET_FLAG.VLAN }))
      u32[(mbuf + MBUF.at[name as keyof typeof cells]) >>> 2] = value;
  }
  const all = { options, staged: list, stagedFirst: 0, stagedCount: frames.length, hashKey: key };
  for (const [name, value] of Object.entries(all)) set(name as keyof typeof all, value);
  const n = datapath.portReceive(port, handles, COUNT);
  const came = Array.from({ length: n }, (_, i) => {
    const mbuf = u32[(handles >>> 2) + i]!;
    const at = cellOf(mbuf, 'data');
    assert.equal(cellOf(mbuf, 'dataLength'), cellOf(mbuf, 'packetLength'));
    return {
      index: cellOf(mbuf, 'user'),
      bytes: u8.slice(at, at + cellOf(mbuf, 'dataLength')),
      ...{ type: cellOf(mbuf, 'packetType'), flags: cellOf(mbuf, 'flags'), hash: cellOf(mbuf, 'hash') },
    };
  });
  datapath.mbufFree(handles, n);
  assert.equal(poolFree(arena, pool), COUNT);
  return came;
}

interface Shape {
  readonly tags: readonly number[];
  readonly kind: 'ipv4' | 'ipv6' | 'arp' | 'other';
  readonly options: number;
  readonly extensions: readonly number[];
  readonly protocol: number;
  readonly fragment: 'no' | 'first' | 'later';
  readonly seed: number;
  readonly destination: number;
  readonly payload: number;
}

const MACS = ['02:00:00:00:00:01', '02:00:00:00:00:02', '01:00:5e:00:00:05', '33:33:00:00:00:01', 'ff:ff:ff:ff:ff:ff'];
const shape: fc.Arbitrary<Shape> = fc.record({
  tags: fc.constantFrom([], [], [], [0x8100], [0x88a8, 0x8100], [0x8100, 0x8100]),
  kind: fc.constantFrom('ipv4', 'ipv4', 'ipv6', 'ipv6', 'arp', 'other'),
  options: fc.constantFrom(0, 0, 1, 10),
  extensions: fc.constantFrom([], [], [0], [60], [43, 60], [0, 60]),
  protocol: fc.constantFrom(6, 17, 132, 1, 58, 2, 89),
  fragment: fc.constantFrom('no', 'no', 'no', 'first', 'later'),
  seed: fc.nat(1e6),
  destination: fc.nat(MACS.length - 1),
  payload: fc.nat(200),
});

/** A frame without faults. */
function build({ tags, kind, options, extensions, protocol, fragment, seed, destination, payload }: Shape): Buffer {
  const random = (bytes: number, salt: number) =>
    Buffer.from(Uint8Array.from({ length: bytes }, (_, i) => (seed * (i + 3) + salt * 17 + i) & 0xff));
  const etherType = { ipv4: 0x0800, ipv6: 0x86dd, arp: 0x0806, other: 0x88b5 }[kind];
  const types = [...tags, etherType];
  const ethernet = Buffer.concat([Buffer.from(MACS[destination]!.replaceAll(':', ''), 'hex'), random(6, 1)]);
  ethernet[6]! &= 0xfe;
  const tagged = types.flatMap((type, i) => [
    type >> 8,
    type & 255,
    ...(i < tags.length ? [(seed + i) & 0x0f, seed & 255] : []),
  ]);
  const transport = random(40, 2);
  if (protocol === 6) transport[12] = 0x50;
  if (protocol === 17) transport.writeUInt16BE(40 + payload, 4);
  const body = Buffer.concat([transport, random(payload, 3)]);
  const head = Buffer.concat([ethernet, Buffer.from(tagged)]);
  if (kind === 'arp')
    return Buffer.concat([head, Buffer.from([0, 1, 8, 0, 6, 4, 0, 1]), random(20, 4), Buffer.alloc(18)]);
  if (kind === 'other') return Buffer.concat([head, body]);
  if (kind === 'ipv4') {
    const ip = Buffer.concat([random(20, 5), Buffer.alloc(options * 4, 1)]);
    ip[0] = 0x45 + options;
    ip.writeUInt16BE(ip.length + body.length, 2);
    ip.writeUInt16BE({ no: 0x4000, first: 0x2000, later: 0x2005 }[fragment], 6);
    ip[9] = protocol;
    return Buffer.concat([head, ip, body]);
  }
  const chain = fragment === 'no' ? extensions : [...extensions, 44];
  const next = [...chain, protocol];
  const headers = chain.map((type, i) => {
    const header = Buffer.alloc(8);
    header[0] = next[i + 1]!;
    if (type === 44) header.writeUInt16BE(fragment === 'first' ? 1 : 0x0101, 2);
    else header[2] = 1; // PadN of 4 bytes
    if (type !== 44) header[3] = type === 43 ? 0 : 4;
    return header;
  });
  const ip = Buffer.concat([Buffer.from([0x60, 0, 0, 0]), Buffer.alloc(4), random(32, 6)]);
  ip.writeUInt16BE(headers.length * 8 + body.length, 4);
  ip[6] = next[0]!;
  ip[7] = 64;
  return Buffer.concat([head, ip, ...headers, body]);
}

/** PACKET_TYPE of a frame that may be cut anywhere. */
function typeOf(frame: Buffer): number {
  if (frame.length < 14) return 0;
  const outer = frame.readUInt16BE(12);
  const layer2 = outer === 0x8100 ? P.L2_VLAN : outer === 0x88a8 ? P.L2_QINQ : outer === 0x0806 ? P.L2_ARP : P.L2_ETHER;
  let at = 14;
  let type = outer;
  for (let tags = 0; tags < 2 && [0x8100, 0x88a8].includes(type); tags++) {
    if (frame.length < at + 4) return layer2;
    type = frame.readUInt16BE(at + 2);
    at += 4;
  }
  const layer4 = (protocol: number, icmp: number, fragment: boolean) => {
    if (fragment) return P.L4_FRAG;
    const known: Record<number, number> = { 6: P.L4_TCP, 17: P.L4_UDP, 132: P.L4_SCTP, [icmp]: P.L4_ICMP };
    return known[protocol] ?? P.L4_NONFRAG;
  };
  if (type === 0x0800) {
    const header = frame.length > at ? (frame[at]! & 15) * 4 : 0;
    if (frame.length < at + 20 || frame.length < at + header) return layer2;
    const fragment = (frame.readUInt16BE(at + 6) & 0x3fff) !== 0;
    return layer2 | (header > 20 ? P.L3_IPV4_EXT : P.L3_IPV4) | layer4(frame[at + 9]!, 1, fragment);
  }
  if (type !== 0x86dd || frame.length < at + 40) return layer2;
  let next = frame[at + 6]!;
  let offset = at + 40;
  let fragment = false;
  while ([0, 43, 44, 60].includes(next) && !fragment) {
    if (frame.length < offset + 8) return layer2;
    fragment = next === 44;
    next = frame[offset]!;
    offset += 8;
  }
  return layer2 | (offset > at + 40 ? P.L3_IPV6_EXT : P.L3_IPV6) | layer4(next, 58, fragment);
}

test('packet types are those of the model, of whole frames and of cut ones', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(shape, fc.double({ min: 0, max: 1, noNaN: true })), { minLength: 1, maxLength: 40 }),
      (shapes) => {
        const frames = shapes.map(([one, part], i) => {
          const whole = build(one);
          return { bytes: i % 3 === 0 ? whole.subarray(0, 14 + Math.floor((whole.length - 14) * part)) : whole };
        });
        for (const { index, type } of receive(frames, PORT_OPTION.PACKET_TYPE))
          assert.equal(type, typeOf(frames[index]!.bytes), frames[index]!.bytes.toString('hex'));
      },
    ),
    { numRuns: 200, seed: 7 },
  );
});

test('hashes are those of receive-side scaling, where the types cover the packet', () => {
  const scaling = new ReceiveSideScaling(arena, datapath);
  const all = Object.values(NDIS_HASH_TYPE).reduce((sum, bit) => sum | bit, 0);
  let hashed = 0;
  fc.assert(
    fc.property(fc.array(shape, { minLength: 30, maxLength: 40 }), fc.integer({ min: 0, max: all }), (shapes, bits) => {
      const types = bits & all;
      set('hashTypes', types);
      scaling.configure(MICROSOFT_KEY, types, [0]);
      const frames = shapes.map((one) => ({ bytes: build({ ...one, tags: [] }) }));
      for (const { index, bytes, flags, hash } of receive(frames, PORT_OPTION.HASH)) {
        u8.set(bytes, list);
        const expected = scaling.hash(list, bytes.length);
        const what = `${JSON.stringify(shapes[index])} types ${types.toString(16)}`;
        assert.equal((flags & PACKET_FLAG.HASH) !== 0, scaling.type !== 0, what);
        if (scaling.type !== 0) assert.equal(hash, expected, what);
        hashed += Number(scaling.type !== 0);
      }
    }),
    { numRuns: 200, seed: 7 },
  );
  assert.ok(hashed > 1000);
  scaling.close();
});

test('a hash that the host gave stays', () => {
  set('hashTypes', NDIS_HASH_TYPE.IPV4);
  const bytes = build({
    tags: [],
    kind: 'ipv4',
    options: 0,
    extensions: [],
    protocol: 6,
    fragment: 'no',
    seed: 1,
    destination: 0,
    payload: 9,
  });
  assert.equal(datapath.poolGet(pool, list, 1), 1);
  const mbuf = u32[list >>> 2]!;
  u8.set(bytes, cellOf(mbuf, 'data'));
  for (const cell of ['dataLength', 'packetLength'] as const) u32[(mbuf + MBUF.at[cell]) >>> 2] = bytes.length;
  u32[(mbuf + MBUF.at.flags) >>> 2] = PACKET_FLAG.HASH;
  u32[(mbuf + MBUF.at.hash) >>> 2] = 0x12345678;
  set('stagedCount', 1);
  set('options', PORT_OPTION.HASH);
  assert.equal(datapath.portReceive(port, handles, 4), 1);
  assert.equal(cellOf(mbuf, 'hash'), 0x12345678);
  datapath.mbufFree(handles, 1);
});

test('every packet is counted in one size, and by its kind', () => {
  const kinds = () => PACKET_KINDS.map((kind) => counter(`rx_${kind}`));
  const limits = [0, 64, 65, 128, 256, 512, 1024, 1519];
  for (const bytes of [14, 60, 63, 64, 65, 100, 127, 128, 255, 256, 511, 512, 1023, 1024, 1518, 1519, 9000]) {
    for (const [destination, kind] of [
      ['02', -1],
      ['01', 0],
      ['ff', 1],
    ] as const) {
      const before = kinds();
      const frame = Buffer.alloc(bytes, 0xff);
      frame[0] = Number.parseInt(destination, 16);
      receive([{ bytes: frame }], 0);
      const size = 2 + limits.findLastIndex((limit) => bytes >= limit);
      const grown = kinds().map((count, i) => count - before[i]!);
      assert.deepEqual(
        grown,
        PACKET_KINDS.map((_, i) => Number(i === size || i === kind)),
        `${bytes} bytes to ${destination}...`,
      );
    }
  }
});

test('tags go back into the data where they are to be kept', () => {
  const bytes = Buffer.from(Uint8Array.from({ length: 90 }, (_, i) => i));
  const [one] = receive([{ bytes, tci: 0xe123 }], PORT_OPTION.KEEP_TAG);
  assert.deepEqual(
    Buffer.from(one!.bytes),
    Buffer.concat([bytes.subarray(0, 12), Buffer.from([0x81, 0, 0xe1, 0x23]), bytes.subarray(12)]),
  );
  assert.equal(one!.flags & PACKET_FLAG.VLAN, 0);
  const [two] = receive([{ bytes, tci: 0xe123 }], 0);
  assert.equal(two!.flags & PACKET_FLAG.VLAN, PACKET_FLAG.VLAN);
});

/** A capture of every shape, and the demo's. */
function capture(): { frames: Buffer[]; file: string; remove: () => void } {
  const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-classify-'));
  const demo = readCapture(readFileSync(new URL('../../../../docs/captures/demo.pcap', import.meta.url)));
  const frames = [
    ...fc.sample(shape, { numRuns: 400, seed: 11 }).map(build),
    ...demo.slice(0, 400).map(({ data }) => Buffer.from(data)),
  ];
  const file = path.join(folder, 'frames.pcap');
  writeFileSync(file, Buffer.concat([pcapHeader(), ...frames.map((frame, i) => pcapRecord(BigInt(i) * 1000n, frame))]));
  return { frames, file, remove: () => rmSync(folder, { recursive: true }) };
}

/** Rows of these fields, the first occurrence of each. */
function tshark(file: string, filter: string, ...fields: string[]): string[][] {
  const options = ['ip.defragment', 'ipv6.defragment', 'tcp.desegment_tcp_streams'].flatMap((name) => [
    '-o',
    `${name}:FALSE`,
  ]);
  const args = ['-r', file, '-n', ...options, '-T', 'fields', '-E', 'occurrence=f'];
  if (filter) args.push('-Y', filter);
  const text = execFileSync('tshark', [...args, ...fields.flatMap((field) => ['-e', field])], {
    stdio: ['ignore', 'pipe', 'ignore'],
    maxBuffer: 1 << 26,
  }).toString();
  return text === ''
    ? []
    : text
        .trimEnd()
        .split('\n')
        .map((line) => line.split('\t'));
}

const noTshark = (() => {
  try {
    execFileSync('tshark', ['--version'], { stdio: 'ignore' });
    return false;
  } catch {
    return 'tshark is not installed';
  }
})();

/** In pieces that the rig has mbufs for. */
function inPieces(frames: readonly { bytes: Uint8Array; tci?: number }[], options: number): Came[] {
  const all: Came[] = [];
  for (let at = 0; at < frames.length; at += 256)
    all.push(...receive(frames.slice(at, at + 256), options).map((one) => ({ ...one, index: one.index + at })));
  return all;
}

test('packet types are what tshark sees', { skip: noTshark }, () => {
  const { frames, file, remove } = capture();
  try {
    const rows = tshark(
      file,
      '',
      'frame.protocols',
      'ip.hdr_len',
      'ip.flags.mf',
      'ip.frag_offset',
      'ipv6.fraghdr.offset',
      'ipv6.nxt',
    );
    assert.equal(rows.length, frames.length);
    const came = inPieces(
      frames.map((bytes) => ({ bytes })),
      PORT_OPTION.PACKET_TYPE,
    );
    const seen = new Set<number>();
    for (const { index, type } of came) {
      const [protocols = '', headerBytes, more, offset = '0', fragment = '', next = ''] = rows[index]!;
      const layers = protocols.split(':').slice(1);
      const ip = layers.find((layer) => layer === 'ip' || layer === 'ipv6');
      const where = `frame ${index + 1}: ${protocols}`;
      seen.add(type);
      if (layers.includes('arp')) assert.equal(type & P.L3_MASK, 0, where);
      if (ip === undefined) {
        assert.equal(type & ~P.L2_MASK, 0, where);
        continue;
      }
      const options = ip === 'ip' ? Number(headerBytes) > 20 : ![6, 17, 132, 1, 58, 2, 89].includes(Number(next));
      const expected = ip === 'ip' ? (options ? P.L3_IPV4_EXT : P.L3_IPV4) : options ? P.L3_IPV6_EXT : P.L3_IPV6;
      assert.equal(type & P.L3_MASK, expected, where);
      const cut = ip === 'ip' ? /^(1|True)$/i.test(more ?? '') || Number(offset) > 0 : fragment !== '';
      const after = layers.slice(layers.indexOf(ip) + 1);
      const names: Record<string, number> = {
        tcp: P.L4_TCP,
        udp: P.L4_UDP,
        sctp: P.L4_SCTP,
        [ip === 'ip' ? 'icmp' : 'icmpv6']: P.L4_ICMP,
      };
      const layer4 = cut ? P.L4_FRAG : (names[after.find((name) => names[name] !== undefined) ?? ''] ?? P.L4_NONFRAG);
      assert.equal(type & P.L4_MASK, layer4, where);
    }
    assert.ok(seen.size > 25, `${seen.size} types`);
  } finally {
    remove();
  }
});

for (const [what, options, lists, filter] of [
  ['unicast addresses', PORT_OPTION.MAC_FILTER, { macs: [MACS[0]!] }, `eth.dst.ig == 1 or eth.dst == ${MACS[0]}`],
  [
    'groups',
    PORT_OPTION.GROUP_FILTER,
    { groups: [MACS[3]!, '01:00:5e:00:00:fb'] },
    `eth.dst.ig == 0 or eth.dst == ${MACS[3]} or eth.dst == 01:00:5e:00:00:fb or eth.dst == ff:ff:ff:ff:ff:ff`,
  ],
  [
    'VLANs',
    PORT_OPTION.VLAN_FILTER,
    { vlans: [1, 4095, 0x123, 517] },
    'not vlan or vlan.id in {0, 1, 4095, 0x123, 517}',
  ],
  [
    'all of them',
    PORT_OPTION.MAC_FILTER | PORT_OPTION.GROUP_FILTER | PORT_OPTION.VLAN_FILTER,
    { macs: [MACS[1]!, '02:ff:00:00:00:00'], groups: [], vlans: Array.from({ length: 2048 }, (_, id) => 2 * id + 1) },
    `(eth.dst == ${MACS[1]} or eth.dst == ff:ff:ff:ff:ff:ff) and (not vlan or vlan.id == 0 or vlan.id & 1)`,
  ],
] as const) {
  test(`software filters let in what tshark's filter does: ${what}`, { skip: noTshark }, () => {
    const { frames, file, remove } = capture();
    try {
      set('filter', filters.write({ macs: [], groups: [], vlans: [], ...lists }));
      // The host takes the outer tag out of the data.
      const given = frames.map((frame) => {
        if (frame.length < 18 || frame.readUInt16BE(12) !== 0x8100) return { bytes: frame };
        return { bytes: Buffer.concat([frame.subarray(0, 12), frame.subarray(16)]), tci: frame.readUInt16BE(14) };
      });
      // tshark calls the tag of a provider's bridge another name.
      const came = inPieces(given, options).map(({ index }) => index + 1);
      const expected = tshark(file, filter, 'frame.number', 'eth.type').map(([number]) => Number(number));
      const outer = (number: number) => frames[number - 1]!.readUInt16BE(12);
      const plain = (list: number[]) => list.filter((number) => outer(number) !== 0x88a8);
      assert.deepEqual(plain(came), plain(expected));
      assert.ok(came.length > 20 && came.length < frames.length, `${came.length} of ${frames.length}`);
    } finally {
      remove();
    }
  });
}
