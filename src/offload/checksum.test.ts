import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FRAGMENT, FRAME, PACKET_FLAG } from '../memory/layout.js';
import {
  BASE,
  buildPacket,
  checksumField,
  fill,
  GUARD,
  get16,
  OUTPUT,
  packetSpec,
  put16,
  referencePseudo,
  referenceSum,
  testMemory,
} from './offload-testing.js';

const { u8, u32, datapath } = testMemory();
const { TX_IP_CHECKSUM, TX_TCP_CHECKSUM, TX_UDP_CHECKSUM } = PACKET_FLAG;
const l4Flag = (protocol: number) => (protocol === 6 ? TX_TCP_CHECKSUM : TX_UDP_CHECKSUM);

test('copy writes exactly the bytes asked for, from and to any alignment', () => {
  const source = new Uint8Array(2200);
  fill(source, 99);
  u8.set(source, BASE);
  const check = (n: number, from: number, to: number) => {
    u8.fill(GUARD, OUTPUT, OUTPUT + n + 128);
    datapath.copy(OUTPUT + 32 + to, BASE + from, n);
    const expected = new Uint8Array(n + 128).fill(GUARD);
    expected.set(source.subarray(from, from + n), 32 + to);
    assert.deepEqual(u8.slice(OUTPUT, OUTPUT + n + 128), expected, `copy of ${n} from ${from} to ${to}`);
  };
  for (let n = 0; n <= 150; n++) check(n, n % 7, n % 5);
  for (const n of [511, 512, 513, 1499, 1500, 2048]) for (let i = 0; i < 16; i++) check(n, i, 15 - i);
});

test('checksum equals RFC 1071 for any length, alignment and seed', () => {
  fc.assert(
    fc.property(fc.nat(3000), fc.nat(63), fc.nat(0xffff), fc.nat(), (n, offset, seed, content) => {
      const bytes = new Uint8Array(n);
      fill(bytes, content);
      u8.set(bytes, BASE + offset);
      assert.equal(datapath.checksum(BASE + offset, n, seed), referenceSum(bytes, 0, n, seed));
    }),
  );
});

test('checksum does not overflow on the largest sums', () => {
  u8.fill(0xff, BASE, BASE + (1 << 20));
  assert.equal(datapath.checksum(BASE, 1 << 20, 0), 0xffff);
  assert.equal(datapath.checksum(BASE + 1, (1 << 20) - 1, 0xffff), referenceSum(new Uint8Array([0xff, 0]), 0, 2));
  u8[BASE + (1 << 20) - 1] = 0;
  assert.equal(datapath.checksum(BASE, 1 << 20, 0), 0xff00);
});

test('checksumFinish restores the checksums of every packet, checksumVerify agrees', () => {
  fc.assert(
    fc.property(
      packetSpec(1600),
      fc.nat(63),
      fc.nat(0xffff),
      fc.boolean(),
      fc.nat(20),
      (spec, offset, junk, derive, pad) => {
        const packet = buildPacket(spec);
        const { bytes, l3, l4 } = packet;
        const at = BASE + offset;
        u8.set(bytes, at);
        u8.fill(GUARD, at + bytes.length, at + bytes.length + 64);
        put16(u8, at + checksumField(packet), junk);
        if (spec.family === 4) put16(u8, at + l3 + 10, junk ^ 0x5a5a);
        const wrong = referenceSum(new Uint8Array([junk >> 8, junk]), 0, 2) % 0xffff;
        const right = get16(bytes, checksumField(packet)) % 0xffff;
        if (spec.family === 4 || (wrong !== right && junk !== 0)) {
          assert.equal(datapath.checksumVerify(at, bytes.length) === 0, true, 'junk passes as right');
        }
        const flags = l4Flag(spec.protocol) | TX_IP_CHECKSUM;
        // Ethernet padding behind the IP packet is no part of it.
        assert.equal(datapath.checksumFinish(at, bytes.length + pad, flags, derive ? 0 : l4), 1);
        assert.deepEqual(u8.slice(at, at + bytes.length), bytes);
        assert.equal(u8[at + bytes.length], GUARD);
        assert.equal(datapath.checksumVerify(at, bytes.length + pad), 1);
        u8[at + l4 + 1]! ^= 0x40;
        assert.equal(datapath.checksumVerify(at, bytes.length + pad), 0);
      },
    ),
  );
});

test('a UDP checksum of 0 is sent as 0xffff, and means none in IPv4', () => {
  const packet = buildPacket({
    family: 4,
    protocol: 17,
    ipOptions: 0,
    tcpOptions: 0,
    payload: 10,
    tcpFlags: 0,
    seed: 5,
  });
  const { bytes, l3, l4 } = packet;
  put16(bytes, l4 + 6, 0);
  // The last payload word makes the sum 0xffff.
  put16(bytes, bytes.length - 2, 0);
  const pseudo = referencePseudo(bytes, l3, 4, 17, bytes.length - l4);
  put16(bytes, bytes.length - 2, 0xffff - referenceSum(bytes, l4, bytes.length, pseudo));
  u8.set(bytes, BASE);
  assert.equal(datapath.checksumVerify(BASE, bytes.length), 1);
  u8[BASE + l4]! ^= 1;
  assert.equal(datapath.checksumVerify(BASE, bytes.length), 1, 'no UDP checksum, nothing to be wrong');
  u8[BASE + l4]! ^= 1;
  assert.equal(datapath.checksumFinish(BASE, bytes.length, TX_UDP_CHECKSUM, l4), 1);
  assert.equal(get16(u8, BASE + l4 + 6), 0xffff);
});

test('a routing header with segments left names the final destination', () => {
  const spec = { family: 6, protocol: 17, ipOptions: 0, tcpOptions: 0, payload: 20, tcpFlags: 0, seed: 8 } as const;
  const { bytes, l3, l4 } = buildPacket(spec);
  // Two addresses: segment routing (4) lists the last stop first, types 0 and 2 list it last.
  for (const [type, last] of [
    [4, 8],
    [2, 24],
  ] as const) {
    const routed = new Uint8Array(bytes.length + 40);
    routed.set(bytes.subarray(0, l4));
    routed.set(bytes.subarray(l4), l4 + 40);
    routed[l3 + 6] = 43;
    put16(routed, l3 + 4, bytes.length - l3 - 40 + 40);
    routed.set([17, 4, type, 1, 0, 0, 0, 0], l4);
    routed.fill(0x22, l4 + 8, l4 + 40);
    routed.set(bytes.subarray(l3 + 24, l3 + 40), l4 + last);
    routed.fill(0x11, l3 + 24, l3 + 40); // next hop
    put16(routed, l4 + 40 + 6, 0x1234);
    u8.set(routed, BASE);
    assert.equal(datapath.checksumFinish(BASE, routed.length, TX_UDP_CHECKSUM, 0), 1);
    assert.equal(get16(u8, BASE + l4 + 40 + 6), get16(bytes, l4 + 6), 'the same pseudo header as without the detour');
  }
});

test('an extension header that reaches beyond the packet is no header', () => {
  const { bytes } = buildPacket({
    family: 6,
    protocol: 17,
    ipOptions: 1,
    tcpOptions: 0,
    payload: 80,
    tcpFlags: 0,
    seed: 2,
  });
  bytes[55] = 255;
  u8.set(bytes, BASE);
  assert.equal(datapath.checksumVerify(BASE, bytes.length), 2);
  assert.equal(datapath.checksumFinish(BASE, bytes.length, TX_UDP_CHECKSUM, 0), 0);
});

test('packets that cannot have the checksum are refused and left alone', () => {
  const tcp = { family: 4, protocol: 6, ipOptions: 2, tcpOptions: 0, payload: 8, tcpFlags: 0, seed: 3 } as const;
  const refused = (why: string, change: (b: Uint8Array) => void, flags: number, l4Offset = 0, length?: number) => {
    const { bytes } = buildPacket(tcp);
    change(bytes);
    u8.set(bytes, BASE);
    assert.equal(datapath.checksumFinish(BASE, length ?? bytes.length, flags, l4Offset), 0, why);
    assert.deepEqual(u8.slice(BASE, BASE + bytes.length), bytes, why);
  };
  const nothing = () => {};
  refused('UDP asked of TCP', nothing, TX_UDP_CHECKSUM);
  refused('wrong header offset', nothing, TX_TCP_CHECKSUM, 34);
  refused('header offset beyond the end', nothing, TX_TCP_CHECKSUM, 0xfffffff0);
  refused('fragment', (b) => put16(b, 20, 0x2000), TX_TCP_CHECKSUM);
  refused('TCP header cut off', nothing, TX_TCP_CHECKSUM, 0, 14 + 28 + 19);
  refused('IP header cut off', nothing, TX_IP_CHECKSUM, 0, 14 + 27);
  refused('IP total length within its header', (b) => put16(b, 16, 27), TX_IP_CHECKSUM);
  refused('IHL below 5', (b) => b.fill(0x44, 14, 15), TX_IP_CHECKSUM);
  refused('ARP', (b) => put16(b, 12, 0x0806), TX_IP_CHECKSUM);
  refused('empty', nothing, TX_TCP_CHECKSUM, 0, 0);
});

test('random bytes never make the kernels touch anything outside the packet', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 0, maxLength: 120 }), fc.nat(), fc.boolean(), (junk, flags, v6) => {
      const bytes = junk.slice();
      if (bytes.length > 20) {
        put16(bytes, 12, v6 ? 0x86dd : 0x0800);
        bytes[14] = v6 ? 0x60 : 0x45 + (bytes[14]! & 7);
      }
      u8.fill(GUARD, BASE, BASE + 512);
      u8.set(bytes, BASE + 128);
      datapath.checksumVerify(BASE + 128, bytes.length);
      datapath.checksumFinish(BASE + 128, bytes.length, flags & 0xffff, flags >>> 20);
      for (let i = 0; i < 128; i++) assert.equal(u8[BASE + i], GUARD);
      for (let i = 128 + bytes.length; i < 512; i++) assert.equal(u8[BASE + i], GUARD);
    }),
    { numRuns: 500 },
  );
});

test('frameGather puts fragments together and stops at the frame length', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(600), { maxLength: 8 }), fc.nat(200), (sizes, cut) => {
      const total = sizes.reduce((a, b) => a + b, 0);
      const length = Math.max(0, total - cut);
      const frame = OUTPUT + 0x10000;
      const entries = frame + FRAME.bytes;
      const expected = new Uint8Array(total + 64).fill(GUARD);
      let at = BASE + 3;
      let done = 0;
      sizes.forEach((size, i) => {
        const piece = new Uint8Array(size);
        fill(piece, i + 1);
        u8.set(piece, at);
        expected.set(piece, done);
        u32[(entries + i * FRAGMENT.bytes + FRAGMENT.at.address) >>> 2] = at;
        u32[(entries + i * FRAGMENT.bytes + FRAGMENT.at.bytes) >>> 2] = size;
        at += size + 5;
        done += size;
      });
      expected.fill(GUARD, length);
      u32[(frame + FRAME.at.fragments) >>> 2] = entries;
      u32[(frame + FRAME.at.fragmentCount) >>> 2] = sizes.length;
      u32[(frame + FRAME.at.length) >>> 2] = length;
      u8.fill(GUARD, OUTPUT, OUTPUT + total + 64);
      datapath.frameGather(frame, OUTPUT);
      assert.deepEqual(u8.slice(OUTPUT, OUTPUT + total + 64), expected);
    }),
  );
});
