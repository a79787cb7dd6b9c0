import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CaptureCursor } from './capture-cursor.js';
import { digits, golden, hex, onlyWireError } from './golden-testing.js';
import * as p from './pcap.js';
import { WireError } from './struct.js';

golden(
  p.PcapFileHeader,
  { magic: 0xa1b23c4d, versionMinor: 4, snapLength: 262144, linkType: 1 },
  '4d3cb2a1 0200 0400 00000000 00000000 00000400 01000000',
);
golden(
  p.PcapRecordHeader,
  { seconds: 1, fraction: 2, capturedLength: 3, originalLength: 4 },
  '01000000 02000000 03000000 04000000',
);
golden(p.PcapngBlockHeader, { blockType: 6, blockLength: 32 }, '06000000 20000000');
golden(
  p.PcapngSectionHeader,
  { blockLength: 28, versionMinor: 0, sectionLength: 2n ** 64n - 1n },
  '0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff',
);
golden(p.PcapngInterface, { blockLength: 20, linkType: 1, snapLength: 0 }, '01000000 14000000 0100 0000 00000000');
golden(
  p.PcapngEnhancedPacket,
  { blockLength: 36, interfaceId: 0, timestampHigh: 1, timestampLow: 2, capturedLength: 3, originalLength: 4 },
  '06000000 24000000 00000000 01000000 02000000 03000000 04000000',
);
golden(p.PcapngSimplePacket, { blockLength: 20, originalLength: 4 }, '03000000 14000000 04000000');
golden(
  p.PcapngStatistics,
  { blockLength: 64, interfaceId: 0, timestampHigh: 1, timestampLow: 2 },
  '05000000 40000000 00000000 01000000 02000000',
);
golden(p.PcapngOption, { code: 2, length: 4 }, '0200 0400');

const TIME = 1_700_000_000_123_456_789n;
const data = hex('aabbccddee');
const expected = { interfaceId: 0, linkType: 1, timestampNs: TIME, originalLength: 60, data };

const RECORD = '00f15365 15cd5b07 05000000 3c000000 aabbccddee';
const SECTION = '0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000';
const INTERFACE = '01000000 28000000 0100 0000 00000000 0200 0400 65746830 0900 0100 09000000 0000 0000 28000000'; // "eth0", ns
// 1700000000123456789 = 0x17979cfe3d85cd15
const ENHANCED = '06000000 28000000 00000000 fe9c9717 15cd853d 05000000 3c000000 aabbccddee 000000 28000000';

test('pcap: golden file, both ways', () => {
  const header = '4d3cb2a1 0200 0400 00000000 00000000 00000400 01000000';
  assert.equal(digits(p.pcapHeader()), digits(hex(header)));
  assert.equal(digits(p.pcapRecord(TIME, data, 60)), digits(hex(RECORD)));
  assert.deepEqual(p.readCapture(hex(header + RECORD)), [expected]);
});

test('pcap: microseconds, and the other byte order', () => {
  const micro = hex('d4c3b2a1 0200 0400 00*8 00000400 01000000 00f15365 40e20100 05000000 3c000000 aabbccddee');
  const swapped = hex('a1b2c3d4 0002 0004 00*8 00040000 00000001 6553f100 0001e240 00000005 0000003c aabbccddee');
  const nano = hex('a1b23c4d 0002 0004 00*8 00040000 00000001 6553f100 075bcd15 00000005 0000003c aabbccddee');
  const rounded = { ...expected, timestampNs: 1_700_000_000_123_456_000n };
  assert.deepEqual(p.readCapture(micro), [rounded]);
  assert.deepEqual(p.readCapture(swapped), [rounded]);
  assert.deepEqual(p.readCapture(nano), [expected]);
});

test('pcapng: golden file, both ways', () => {
  assert.equal(digits(p.pcapngSection()), digits(hex(SECTION)));
  assert.equal(digits(p.pcapngInterface('eth0')), digits(hex(INTERFACE)));
  assert.equal(digits(p.pcapngPacket(0, TIME, data, 60)), digits(hex(ENHANCED)));
  const commented = p.pcapngPacket(0, TIME, data, 60, 'hello');
  const unknown = '0b000000 10000000 deadbeef 10000000';
  const file = Uint8Array.from([...hex(SECTION + unknown + INTERFACE + ENHANCED), ...commented]);
  assert.deepEqual(p.readCapture(file), [expected, expected]);
});

test('pcapng: the other byte order, other time units, simple packets, a second section', () => {
  const big =
    '0a0d0d0a 0000001c 1a2b3c4d 0001 0000 ffffffffffffffff 0000001c' +
    '00000001 00000014 0001 0000 00000003 00000014' + // microseconds by default, snap length 3
    '00000006 00000028 00000000 00060a24 181e4000 00000005 0000003c aabbccddee 000000 00000028' +
    '00000003 00000014 0000003c aabbcc00 00000014';
  const packets = p.readCapture(hex(big + SECTION + INTERFACE + ENHANCED));
  assert.equal(packets.length, 3);
  const micros = (0x00060a24n << 32n) | 0x181e4000n;
  assert.deepEqual(packets[0], { ...expected, timestampNs: micros * 1000n });
  assert.deepEqual(packets[1], { ...expected, timestampNs: undefined, data: hex('aabbcc') });
  assert.deepEqual(packets[2], expected);
  // 2^-10 s and an offset of -1 s
  const binary =
    '01000000 2c000000 0100 0000 00000000 0900 0100 8a000000 0e00 0800 ffffffffffffffff 0000 0000 2c000000';
  const second = '06000000 20000000 00000000 00000000 00080000 00000000 00000000 20000000';
  assert.equal(p.readCapture(hex(SECTION + binary + second))[0]!.timestampNs, 1_000_000_000n);
});

test('malformed files are WireErrors, and the first error is final', () => {
  const pcap = '4d3cb2a1 0200 0400 00000000 00000000 00000400 01000000';
  const bad: [string, string][] = [
    ['empty', ''],
    ['no capture', '00000000 00000000'],
    ['pcap version 3', '4d3cb2a1 0300 0400 00*16'],
    ['cut pcap header', '4d3cb2a1 0200'],
    ['cut record', pcap + RECORD.slice(0, -2)],
    ['huge record', `${pcap} 00000000 00000000 01000400 01000400`],
    ['bad byte order', '0a0d0d0a 1c000000 00000000 0100 0000 ffffffffffffffff 1c000000'],
    ['section too short', '0a0d0d0a 0c000000 4d3c2b1a'],
    ['lengths differ', SECTION.replace(/1c000000$/, '20000000')],
    ['block of 8 bytes', `${SECTION} 06000000 08000000 08000000`],
    ['block of 13 bytes', `${SECTION} 06000000 0d000000 00000000`],
    ['block of 2 GiB', `${SECTION} 06000000 00000080 00000000`],
    ['no such interface', SECTION + ENHANCED],
    ['captured past the block', SECTION + INTERFACE + ENHANCED.replace('05000000', '09000000')],
    ['option past the block', SECTION + INTERFACE.replace('0200 0400', '0200 ff00')],
    ['time unit 10^-64', SECTION + INTERFACE.replace('0900 0100 09', '0900 0100 40')],
  ];
  for (const [what, vector] of bad) assert.throws(() => p.readCapture(hex(vector)), WireError, what);
  const reader = new p.CaptureReader();
  assert.throws(() => reader.push(hex('00000000')), WireError);
  assert.throws(() => reader.push(hex(pcap)), WireError);
  assert.throws(() => reader.end(), WireError);
  assert.throws(() => p.pcapRecord(-1n, data), WireError);
  assert.throws(() => p.pcapngPacket(0, 2n ** 64n, data), WireError);
});

test('the time in two cells is the time', () => {
  const unit = fc.oneof(
    fc.constantFrom(0, 3, 6, 9, 0x80 | 10, 12),
    fc.nat(63),
    fc.nat(63).map((n) => 0x80 | n),
  );
  const half = fc.nat(0xffff_ffff);
  fc.assert(
    fc.property(unit, fc.constantFrom(0, 1, 1_000_000), half, half, (exponent, offset, high, low) => {
      const options = [9, 0, 1, 0, exponent, 0, 0, 0, 14, 0, 8, 0, offset & 255, (offset >> 8) & 255, offset >> 16];
      const block = Uint8Array.from([1, 0, 0, 0, 48, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, ...options]);
      const file = new Uint8Array(28 + 48 + 32);
      file.set(p.pcapngSection());
      file.set(block, 28);
      file.set(p.pcapngPacket(0, (BigInt(high) << 32n) | BigInt(low), new Uint8Array(0)), 76);
      file[28 + 44] = 48;
      const cursor = new CaptureCursor();
      const cells = new Uint32Array(2);
      for (let at = 0; at < file.length; ) at += cursor.next(file, at, file.length);
      cursor.writeTimestamp(cells, 0);
      assert.equal((BigInt(cells[1]!) << 32n) | BigInt(cells[0]!), BigInt.asUintN(64, cursor.timestampNs()!));
    }),
  );
});

const packet = fc.record({
  time: fc.bigInt(0n, 2n ** 32n * 1_000_000_000n - 1n),
  data: fc.uint8Array({ maxLength: 50 }),
});

function write(ng: boolean, list: readonly { time: bigint; data: Uint8Array }[]): Uint8Array {
  const start = ng ? [p.pcapngSection(), p.pcapngInterface('a'), p.pcapngInterface('b', 113)] : [p.pcapHeader()];
  const rest = list.map(({ time, data: d }) => (ng ? p.pcapngPacket(1, time, d, 99, 'x') : p.pcapRecord(time, d, 99)));
  return Uint8Array.from([...start, ...rest].flatMap((b) => [...b]));
}

test('what was written is read back, whatever the chunks', () => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.array(packet, { maxLength: 6 }),
      fc.array(fc.nat(40), { maxLength: 12 }),
      (ng, list, cuts) => {
        const file = write(ng, list);
        const reader = new p.CaptureReader();
        const got: p.CapturedPacket[] = [];
        let at = 0;
        for (const cut of cuts) {
          got.push(...reader.push(file.subarray(at, at + cut)));
          at += cut;
        }
        got.push(...reader.push(file.subarray(at)));
        reader.end();
        const where = ng ? { interfaceId: 1, linkType: 113 } : { interfaceId: 0, linkType: 1 };
        const wanted = list.map(({ time, data: d }) => ({
          ...where,
          timestampNs: time,
          originalLength: 99,
          data: d.slice(),
        }));
        assert.deepEqual(got, wanted);
      },
    ),
  );
});

test('damaged files give packets or a WireError', () => {
  const word = fc.constantFrom(0, 1, 4, 12, 0xff, 0x7fffffff, 0xfffffffc, 0xffffffff);
  fc.assert(
    fc.property(fc.boolean(), fc.array(packet, { maxLength: 3 }), fc.nat(40), word, (ng, list, at, value) => {
      const file = write(ng, list);
      if (at * 4 + 4 <= file.length) new DataView(file.buffer).setUint32(at * 4, value, true);
      onlyWireError(() => p.readCapture(file));
    }),
    { numRuns: 500 },
  );
});
