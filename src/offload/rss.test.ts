import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { NDIS_HASH_TYPE } from '../wire/ndis-rss.js';
import { BASE, buildPacket, fill, type PacketSpec, put16, testMemory } from './offload-testing.js';
import { MICROSOFT_KEY, ReceiveSideScaling } from './rss.js';

const { u8, datapath, arena } = testMemory();
const { IPV4, TCP_IPV4, IPV6, TCP_IPV6, UDP_IPV4 } = NDIS_HASH_TYPE;

// Microsoft, "Verifying the RSS Hash Calculation": source:port, destination:port, hash of addresses, hash with ports.
const VECTORS = [
  ['66.9.149.187', 2794, '161.142.100.80', 1766, 0x323e8fc2, 0x51ccc178],
  ['199.92.111.2', 14230, '65.69.140.83', 4739, 0xd718262a, 0xc626b0ea],
  ['24.19.198.95', 12898, '12.22.207.184', 38024, 0xd2d0a5de, 0x5c2b394a],
  ['38.27.205.30', 48228, '209.142.163.6', 2217, 0x82989176, 0xafc7327f],
  ['153.39.163.191', 44251, '202.188.127.2', 1303, 0x5d1809c5, 0x10e828a2],
  ['3ffe:2501:200:1fff::7', 2794, '3ffe:2501:200:3::1', 1766, 0x2cc18cd5, 0x40207d3d],
  ['3ffe:501:8::260:97ff:fe40:efab', 14230, 'ff02::1', 4739, 0x0f0c461c, 0xdde51bbf],
  ['3ffe:1900:4545:3:200:f8ff:fe21:67cf', 44251, 'fe80::200:f8ff:fe21:67cf', 38024, 0x4b61e985, 0x02d1feef],
] as const;

function addressBytes(text: string): number[] {
  if (!text.includes(':')) return text.split('.').map(Number);
  const [head = '', tail = ''] = text.split('::');
  const words = (part: string) => (part === '' ? [] : part.split(':').map((w) => Number.parseInt(w, 16)));
  const [left, right] = [words(head), words(tail)];
  const all = text.includes('::') ? [...left, ...Array(8 - left.length - right.length).fill(0), ...right] : left;
  return all.flatMap((w: number) => [w >> 8, w & 255]);
}

/** Bit by bit, with a BigInt for the key. */
function referenceToeplitz(key: Uint8Array, input: Uint8Array): number {
  let bits = 0n;
  for (const byte of key) bits = (bits << 8n) | BigInt(byte);
  let hash = 0n;
  for (let i = 0; i < input.length * 8; i++) {
    if (((input[i >> 3]! >> (7 - (i & 7))) & 1) === 1) hash ^= (bits >> BigInt(key.length * 8 - 32 - i)) & 0xffffffffn;
  }
  return Number(hash);
}

function packetOf(vector: (typeof VECTORS)[number], protocol: 6 | 17): { bytes: Uint8Array; l3: number; l4: number } {
  const v6 = vector[0].includes(':');
  const spec: PacketSpec = {
    family: v6 ? 6 : 4,
    protocol,
    ipOptions: 2,
    tcpOptions: 0,
    payload: 9,
    tcpFlags: 2,
    seed: 1,
  };
  const packet = buildPacket(spec);
  packet.bytes.set([...addressBytes(vector[0]), ...addressBytes(vector[2])], packet.l3 + (v6 ? 8 : 12));
  put16(packet.bytes, packet.l4, vector[1]);
  put16(packet.bytes, packet.l4 + 2, vector[3]);
  return packet;
}

test("toeplitz gives Microsoft's published hashes, before and after it has a table", () => {
  u8.set(MICROSOFT_KEY, BASE);
  for (let round = 0; round < 20; round++) {
    for (const [source, sourcePort, target, targetPort, plain, ports] of VECTORS) {
      const addresses = [...addressBytes(source), ...addressBytes(target)];
      u8.set([...addresses, sourcePort >> 8, sourcePort & 255, targetPort >> 8, targetPort & 255], BASE + 64);
      assert.equal(datapath.toeplitz(BASE, BASE + 64, addresses.length) >>> 0, plain, source);
      assert.equal(datapath.toeplitz(BASE, BASE + 64, addresses.length + 4) >>> 0, ports, source);
    }
  }
});

test('toeplitz equals the definition for any key and length, however keys alternate', () => {
  const key = new Uint8Array(40);
  const input = new Uint8Array(36);
  fc.assert(
    fc.property(fc.nat(), fc.nat(), fc.nat(36), fc.constantFrom(1, 2, 120), (keySeed, seed, n, times) => {
      fill(key, keySeed);
      fill(input, seed);
      u8.set(key, BASE + 1);
      u8.set(input, BASE + 67);
      const expected = referenceToeplitz(key, input.subarray(0, n));
      for (let i = 0; i < times; i++) assert.equal(datapath.toeplitz(BASE + 1, BASE + 67, n) >>> 0, expected);
    }),
  );
});

test('a packet is hashed over the fields that its type and the enabled types say', () => {
  const rss = new ReceiveSideScaling(arena, datapath);
  const hash = (packet: { bytes: Uint8Array }, types: number, bytes = packet.bytes.length) => {
    rss.configure(MICROSOFT_KEY, types, [0]);
    u8.set(packet.bytes, BASE);
    return [rss.hash(BASE, bytes), rss.type];
  };
  for (const vector of VECTORS) {
    const [, , , , plain, ports] = vector;
    const v6 = vector[0].includes(':');
    const [address, tcp] = v6 ? [IPV6, TCP_IPV6] : [IPV4, TCP_IPV4];
    const packet = packetOf(vector, 6);
    assert.deepEqual(hash(packet, address | tcp), [ports, tcp]);
    assert.deepEqual(hash(packet, tcp), [ports, tcp]);
    assert.deepEqual(hash(packet, address), [plain, address]);
    assert.deepEqual(hash(packet, address | tcp, packet.l4 + 3), [plain, address], 'ports cut off');
    assert.deepEqual(hash(packet, v6 ? IPV4 | TCP_IPV4 : IPV6 | TCP_IPV6), [0, 0]);
    assert.deepEqual(hash(packetOf(vector, 17), address | tcp), [plain, address], 'UDP without a UDP type');
  }
  const udp = packetOf(VECTORS[0], 17);
  assert.deepEqual(hash(udp, IPV4 | UDP_IPV4), [VECTORS[0][5], UDP_IPV4]);
  put16(udp.bytes, udp.l3 + 6, 0x2000);
  assert.deepEqual(hash(udp, IPV4 | UDP_IPV4), [VECTORS[0][4], IPV4], 'fragments of a datagram stay together');
  for (let n = 0; n < 34; n++) assert.deepEqual(hash(udp, IPV4, n), [0, 0]);
  rss.close();
});

test('the low bits of the hash choose the channel', () => {
  const rss = new ReceiveSideScaling(arena, datapath);
  rss.configure(MICROSOFT_KEY, IPV4, [3, 1, 0, 2]);
  assert.deepEqual(
    [0, 1, 2, 3, 0xfffffffd].map((h) => rss.channel(h)),
    [3, 1, 0, 2, 1],
  );
  assert.throws(() => rss.configure(new Uint8Array(39), IPV4, [0]), /expected 40 bytes, got 39/);
  assert.throws(() => rss.configure(MICROSOFT_KEY, IPV4, []), /at least 1 entry/);
  rss.close();
});
