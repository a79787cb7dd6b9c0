import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  BASE,
  buildPacket,
  GUARD,
  get16,
  get32,
  OUTPUT,
  type Packet,
  type PacketSpec,
  packetSpec,
  put16,
  testMemory,
} from './offload-testing.js';
import { Segmenter } from './segmentation.js';

const { u8, u32, datapath, arena } = testMemory();
const LENGTHS = OUTPUT - 0x10000;
const TCP4: PacketSpec = {
  family: 4,
  protocol: 6,
  ipOptions: 0,
  tcpOptions: 3,
  payload: 10_000,
  tcpFlags: 0x99,
  seed: 7,
};

/** Cuts the packet that lies at BASE; checks that nothing around the segments was written. */
function cut(bytes: Uint8Array, mss: number, stride: number, max: number, l4Offset = 0): Uint8Array[] {
  u8.set(bytes, BASE);
  u8.fill(GUARD, OUTPUT - 64, OUTPUT + stride * (max + 1));
  const count = datapath.segment(BASE, bytes.length, l4Offset, mss, OUTPUT, stride, LENGTHS, max);
  const segments: Uint8Array[] = [];
  for (let i = 0; i < count; i++) {
    const length = u32[(LENGTHS >>> 2) + i]!;
    const at = OUTPUT + i * stride;
    segments.push(u8.slice(at, at + length));
    assert.ok(length <= stride);
    assert.ok(
      u8.subarray(at + length, at + stride).every((b) => b === GUARD),
      'bytes behind a segment changed',
    );
  }
  const end = OUTPUT + count * stride;
  assert.ok(u8.subarray(end, end + stride).every((b) => b === GUARD));
  assert.ok(u8.subarray(OUTPUT - 64, OUTPUT).every((b) => b === GUARD));
  return segments;
}

function checkSegments(packet: Packet, segments: Uint8Array[], mss: number): void {
  const { bytes, l3, l4, payloadAt, spec } = packet;
  const payload: number[] = [];
  segments.forEach((segment, i) => {
    const last = i + 1 === segments.length;
    const part = segment.length - payloadAt;
    if (!last) assert.equal(part, mss);
    else assert.ok(part <= mss);
    const expected = segment.slice();
    // Everything that segmentation does not change is as in the original.
    expected.set(bytes.subarray(0, payloadAt));
    if (spec.family === 4) {
      put16(expected, l3 + 2, segment.length - l3);
      put16(expected, l3 + 4, get16(bytes, l3 + 4) + i);
      put16(expected, l3 + 10, get16(segment, l3 + 10));
    } else {
      put16(expected, l3 + 4, segment.length - l3 - 40);
    }
    if (spec.protocol === 6) {
      const sequence = (get32(bytes, l4 + 4) + i * mss) >>> 0;
      put16(expected, l4 + 4, sequence >>> 16);
      put16(expected, l4 + 6, sequence);
      expected[l4 + 13] = spec.tcpFlags & (i === 0 ? 0xff : 0x7f) & (last ? 0xff : 0xf6);
      put16(expected, l4 + 16, get16(segment, l4 + 16));
    } else {
      put16(expected, l4 + 4, segment.length - l4);
      put16(expected, l4 + 6, get16(segment, l4 + 6));
    }
    assert.deepEqual(segment, expected, `segment ${i}`);
    u8.set(segment, BASE);
    assert.equal(datapath.checksumVerify(BASE, segment.length), 1, `checksums of segment ${i}`);
    payload.push(...segment.subarray(payloadAt));
  });
  assert.deepEqual(Uint8Array.from(payload), bytes.subarray(payloadAt), 'payload put together again');
}

test('segments carry the payload once, in order, with right headers and checksums', () => {
  fc.assert(
    fc.property(packetSpec(9000), fc.integer({ min: 100, max: 2000 }), fc.boolean(), (spec, mss, ndis) => {
      const packet = buildPacket(spec);
      const sent = packet.bytes.slice();
      // NDIS guests leave the lengths and checksums of large sends at anything, often 0.
      if (ndis && spec.family === 4) {
        put16(sent, packet.l3 + 2, 0);
        put16(sent, packet.l3 + 10, 0);
      }
      const count = Math.max(1, Math.ceil(spec.payload / mss));
      const segments = cut(sent, mss, 2304, count, packet.l4);
      assert.equal(segments.length, count);
      checkSegments(packet, segments, mss);
      if (count > 1) assert.equal(cut(sent, mss, 2304, count - 1).length, 0, 'more than max');
    }),
  );
});

test('sequence numbers and IP ids wrap, a VLAN tag in the data stays', () => {
  const packet = buildPacket({ ...TCP4, tag: 0x6123 });
  const { bytes, l3, l4 } = packet;
  put16(bytes, l3 + 4, 0xfffe);
  put16(bytes, l4 + 4, 0xffff);
  put16(bytes, l4 + 6, 0xff00);
  const segments = cut(bytes, 1448, 1600, 16);
  assert.equal(segments.length, 7);
  checkSegments(packet, segments, 1448);
  assert.equal(get32(segments[1]!, l4 + 4), (0xffffff00 + 1448) >>> 0);
});

test('what cannot be cut is refused', () => {
  const refused = (
    why: string,
    change: (b: Uint8Array) => void,
    mss = 1448,
    stride = 1600,
    l4Offset = 0,
    length?: number,
  ) => {
    const { bytes } = buildPacket(TCP4);
    change(bytes);
    assert.equal(cut(bytes.subarray(0, length ?? bytes.length), mss, stride, 16, l4Offset).length, 0, why);
  };
  const nothing = () => {};
  refused('mss 0', nothing, 0);
  refused('huge mss', nothing, 0xffffffff);
  refused('stride too small', nothing, 1448, 1513);
  refused('wrong offset', nothing, 1448, 1600, 38);
  refused('ICMP', (b) => b.fill(1, 23, 24));
  refused('fragment', (b) => put16(b, 20, 0x2000));
  refused('data offset below 5', (b) => b.fill(0x40, 46, 47));
  refused('total length beyond the packet', (b) => put16(b, 16, 10_053));
  refused('total length within the TCP header', (b) => put16(b, 16, 45));
  for (const length of [0, 13, 33, 53, 65])
    refused(`cut off at ${length}`, (b) => put16(b, 16, 0), 1448, 1600, 0, length);
  // Extension headers without end.
  const v6 = buildPacket({ ...TCP4, family: 6 }).bytes;
  v6[20] = 60;
  v6.fill(0, 54);
  for (let at = 54; at < 700; at += 8) v6[at] = 60;
  assert.equal(cut(v6, 1000, 1600, 16).length, 0);
});

test('random headers never lead outside the output', () => {
  fc.assert(
    fc.property(
      packetSpec(500),
      fc.array(fc.tuple(fc.nat(90), fc.nat(255)), { maxLength: 4 }),
      fc.nat(600),
      (spec, pokes, mss) => {
        const { bytes } = buildPacket(spec);
        for (const [at, value] of pokes) if (at < bytes.length) bytes[at] = value;
        cut(bytes, mss, 640, 8);
      },
    ),
    { numRuns: 500 },
  );
});

test('Segmenter keeps headroom between segments', () => {
  const segmenter = new Segmenter(arena, datapath, { segments: 8, segmentBytes: 1514, headroom: 16 });
  const packet = buildPacket(TCP4);
  u8.set(packet.bytes, BASE);
  assert.equal(segmenter.cut(BASE, packet.bytes.length, 0, 1448), 7);
  const segments = [...Array(7).keys()].map((i) => {
    const at = segmenter.address(i);
    u8.fill(GUARD, at - 16, at);
    return at;
  });
  checkSegments(
    packet,
    segments.map((at, i) => u8.slice(at, at + segmenter.length(i))),
    1448,
  );
  u8.set(packet.bytes, BASE);
  assert.equal(segmenter.cut(BASE, packet.bytes.length, 0, 1449), 0, 'frame of 1515 bytes');
  u8.set(packet.bytes, BASE);
  assert.equal(segmenter.cut(BASE, packet.bytes.length, 0, 1000), 0, 'more than 8 segments');
  segmenter.close();
});

const SCAPY = `
import sys, logging
logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.utils import rdpcap
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
wrong = 0
packets = rdpcap(sys.argv[1])
for p in packets:
    raw = bytes(p)
    q = Ether(raw)
    for layer in (IP, TCP, UDP):
        if layer in q:
            del q[layer].chksum
    for layer, field in ((IP, "len"), (IPv6, "plen"), (UDP, "len")):
        if layer in q:
            q[layer].delfieldval(field)
    if bytes(Ether(bytes(q))) != raw or not (TCP in q or UDP in q):
        wrong += 1
print(len(packets), wrong)
`;

test('scapy computes the same lengths and checksums', (t) => {
  // Debian's package belongs to Debian's interpreter, which need not be the first one in PATH.
  const hasScapy = (name: string) => spawnSync(name, ['-c', 'import scapy.utils']).status === 0;
  const python = ['python3', '/usr/bin/python3'].find(hasScapy);
  if (python === undefined) return t.skip('no python3 with scapy (package python3-scapy)');
  const segments: Uint8Array[] = [];
  for (const family of [4, 6] as const) {
    for (const protocol of [6, 17] as const) {
      segments.push(
        ...cut(buildPacket({ ...TCP4, family, protocol, payload: 5003, tcpOptions: 0 }).bytes, 1401, 1600, 16),
      );
    }
  }
  assert.equal(segments.length, 16);
  const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-segments-'));
  try {
    const file = path.join(folder, 'segments.pcap');
    const parts: Uint8Array[] = [new Uint8Array(Uint32Array.of(0xa1b2c3d4, 0x00040002, 0, 0, 65535, 1).buffer)];
    for (const s of segments) parts.push(new Uint8Array(Uint32Array.of(0, 0, s.length, s.length).buffer), s);
    writeFileSync(file, Buffer.concat(parts));
    const run = spawnSync(python, ['-c', SCAPY, file], { encoding: 'utf8' });
    assert.equal(run.stdout.trim(), '16 0', run.stderr);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
