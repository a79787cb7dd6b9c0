import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { boundedDecode, digits, golden, hex } from './golden-testing.js';
import { OID, oidName } from './oid.js';
import * as p from './ppi.js';
import * as r from './rndis.js';
import { WireError } from './struct.js';

golden(r.RndisHeader, { messageType: 0x80000004, messageLength: 24 }, '04000080 18000000');
golden(
  r.RndisPacket,
  { messageLength: 0x80, dataOffset: 52, dataLength: 60, perPacketInfoOffset: 36, perPacketInfoLength: 16 },
  '01000000 80000000 34000000 3c000000 00000000 00000000 00000000 24000000 10000000 00000000 00000000',
);
golden(
  r.RndisInitialize,
  { messageLength: 24, requestId: 2, majorVersion: 1, minorVersion: 0, maxTransferSize: 0x4000 },
  '02000000 18000000 02000000 01000000 00000000 00400000',
);
const INITIALIZE_COMPLETE =
  '02000080 34000000 02000000 00000000 01000000 00000000 01000000 00000000 08000000 ffffffef 03000000 00000000 00000000';
const LIMITS = { maxPacketsPerMessage: 8, maxTransferSize: 0xefffffff, packetAlignmentFactor: 3 };
golden(
  r.RndisInitializeComplete,
  {
    messageLength: 52,
    requestId: 2,
    status: 0,
    majorVersion: 1,
    minorVersion: 0,
    deviceFlags: 1,
    medium: 0,
    ...LIMITS,
  },
  INITIALIZE_COMPLETE,
);
golden(r.RndisHalt, { messageLength: 12, requestId: 9 }, '03000000 0c000000 09000000');
const REQUEST = { messageLength: 28, requestId: 5, informationBufferOffset: 20 };
golden(
  r.RndisQuery,
  { ...REQUEST, oid: OID.IEEE8023_PERMANENT_ADDRESS, informationBufferLength: 0 },
  '04000000 1c000000 05000000 01010101 00000000 14000000 00000000',
);
golden(
  r.RndisQueryComplete,
  { messageLength: 30, requestId: 5, status: 0, informationBufferLength: 6, informationBufferOffset: 16 },
  '04000080 1e000000 05000000 00000000 06000000 10000000',
);
golden(
  r.RndisSet,
  { ...REQUEST, messageLength: 32, oid: OID.GEN_CURRENT_PACKET_FILTER, informationBufferLength: 4 },
  '05000000 20000000 05000000 0e010100 04000000 14000000 00000000',
);
golden(
  r.RndisSetComplete,
  { messageLength: 16, requestId: 5, status: 0xc0010015 },
  '05000080 10000000 05000000 150001c0',
);
golden(r.RndisReset, { messageLength: 12 }, '06000000 0c000000 00000000');
golden(
  r.RndisResetComplete,
  { messageLength: 16, status: 0, addressingReset: 1 },
  '06000080 10000000 00000000 01000000',
);
golden(
  r.RndisIndicateStatus,
  { messageLength: 20, status: 0x4001000b, statusBufferLength: 0, statusBufferOffset: 0 },
  '07000000 14000000 0b000140 00000000 00000000',
);
golden(r.RndisKeepalive, { messageLength: 12, requestId: 6 }, '08000000 0c000000 06000000');
golden(r.RndisKeepaliveComplete, { messageLength: 16, requestId: 6, status: 0 }, '08000080 10000000 06000000 00000000');

golden(p.PerPacketInfo, { size: 16, type: 0x80000001, dataOffset: 12 }, '10000000 01000080 0c000000');
golden(p.ChecksumInfo, { value: 0x00220005 }, '05002200');
golden(p.LsoInfo, { value: 0x422005b4 }, 'b4052042');
golden(p.VlanInfo, { value: 0x0645 }, '45060000');
golden(p.HashValueInfo, { value: 0x51ccc178 }, '78c1cc51');
golden(p.HashInfo, { value: 0x201 }, '01020000');
golden(p.PacketIdInfo, { version: 1, flags: 3, packetId: 0x102 }, '01 03 0201');

const same = (got: Uint8Array, vector: string): void => assert.equal(digits(got), digits(hex(vector)));

test('whole messages: golden vectors', () => {
  same(r.encodeInitialize(2, 0x4000), '02000000 18000000 02000000 01000000 00000000 00400000');
  same(r.encodeInitializeComplete(2, 0, LIMITS), INITIALIZE_COMPLETE);
  same(r.encodeHalt(9), '03000000 0c000000 09000000');
  same(r.encodeQuery(5, 0x01010101), '04000000 1c000000 05000000 01010101 00000000 14000000 00000000');
  same(
    r.encodeQuery(5, 0x00010203, hex('88021200')),
    '04000000 20000000 05000000 03020100 04000000 14000000 00000000 88021200',
  );
  const address = '04000080 1e000000 05000000 00000000 06000000 10000000 00155d010203';
  same(r.encodeQueryComplete(5, 0, hex('00155d010203')), address);
  same(r.encodeQueryComplete(5, 0xc00000bb), '04000080 18000000 05000000 bb0000c0 00000000 10000000');
  same(
    r.encodeSet(5, 0x0001010e, hex('0d000000')),
    '05000000 20000000 05000000 0e010100 04000000 14000000 00000000 0d000000',
  );
  same(r.encodeSetComplete(5, 0), '05000080 10000000 05000000 00000000');
  same(r.encodeReset(), '06000000 0c000000 00000000');
  same(r.encodeResetComplete(0, 1), '06000080 10000000 00000000 01000000');
  same(r.encodeIndicateStatus(0x4001000c), '07000000 14000000 0c000140 00000000 00000000');
  same(r.encodeIndicateStatus(0x40010013, hex('40420f00')), '07000000 18000000 13000140 04000000 0c000000 40420f00');
  same(r.encodeKeepalive(6), '08000000 0c000000 06000000');
  same(r.encodeKeepaliveComplete(6, 0), '08000080 10000000 06000000 00000000');
});

const PACKET =
  '01000000 4f000000 44000000 03000000 00000000 00000000 00000000 24000000 20000000 00000000 00000000' +
  '10000000 06000000 0c000000 45060000 10000000 00000000 0c000000 05002200 aabbcc';

test('packet message: golden vector, both ways', () => {
  const infos = [p.ppi(p.PPI_TYPE.VLAN, 0x0645), p.ppi(p.PPI_TYPE.CHECKSUM, 0x00220005)];
  same(r.encodePacketMessage(hex('aabbcc'), p.encodePpis(infos)), PACKET);
  const decoded = r.decodeRndis(hex(`${PACKET} ffff`));
  assert.ok(decoded.kind === 'PACKET');
  assert.deepEqual(decoded.infos, infos);
  assert.deepEqual(decoded.data, hex('aabbcc'));
  assert.equal(p.ppiValue(decoded.infos[1]!), 0x00220005);
});

test('data of answers is found by offset, and only inside the message', () => {
  const decoded = r.decodeRndis(hex('04000080 22000000 05000000 00000000 06000000 14000000 a5*4 00155d010203'));
  assert.ok(decoded.kind === 'QUERY_COMPLETE');
  assert.deepEqual(decoded.data, hex('00155d010203'));
  const bad: [string, string, string][] = [
    ['offset in the header', '06000000', '08000000'],
    ['past the end', '06000000', '15000000'],
    ['offset wraps', '06000000', 'fcffffff'],
    ['length wraps', 'ffffffff', '14000000'],
  ];
  for (const [what, length, offset] of bad) {
    const message = hex(`04000080 22000000 05000000 00000000 ${length} ${offset} a5*4 00155d010203`);
    assert.throws(() => r.decodeRndis(message), WireError, what);
  }
  for (const length of ['00000000', '07000000', '17000000', '23000000', 'ffffffff']) {
    const message = hex(`04000080 ${length} 05000000 00000000 00000000 10000000 a5*10`);
    assert.throws(() => r.decodeRndis(message), WireError, `message length ${length}`);
  }
  assert.throws(() => r.decodeRndis(hex('09000000 0c000000 00000000')), /SET_EX/);
  assert.throws(() => r.decodeRndis(hex('0a000000 0c000000 00000000')), WireError);
});

test('per-packet infos: empty, cut and misplaced ones are refused', () => {
  const bad = [
    '00000000 06000000 0c000000 45060000', // size 0
    '08000000 06000000 0c000000 45060000', // smaller than its header
    '14000000 06000000 0c000000 45060000', // past the end
    '10000000 06000000 11000000 45060000', // data outside
    '10000000 06000000 08000000 45060000', // data in the header
    '10000000 06000000 0c000000 45060000 1000', // cut header
  ];
  for (const vector of bad) assert.throws(() => p.decodePpis(hex(vector)), WireError, vector);
  assert.deepEqual(p.decodePpis(new Uint8Array(0)), []);
  const padded = p.decodePpis(hex('14000000 09000000 10000000 ffffffff 01020000'));
  assert.deepEqual(padded, [{ type: 9, data: hex('01020000') }]);
  assert.throws(() => p.ppiValue({ type: 0, data: hex('0000') }), WireError);
});

test('bits of the infos', () => {
  const { PPI_TX_CHECKSUM_IPV4: v4, PPI_TX_CHECKSUM_IPV6: v6, PPI_TX_CHECKSUM_TCP: tcp, PPI_TX_CHECKSUM_UDP: udp } = p;
  assert.deepEqual([v4, v6, tcp, udp, p.PPI_TX_CHECKSUM_IP_HEADER], [1, 2, 4, 8, 16]);
  const failed = [p.PPI_RX_CHECKSUM_TCP_FAILED, p.PPI_RX_CHECKSUM_UDP_FAILED, p.PPI_RX_CHECKSUM_IP_FAILED];
  assert.deepEqual(failed, [1, 2, 4]);
  const good = [p.PPI_RX_CHECKSUM_TCP_SUCCEEDED, p.PPI_RX_CHECKSUM_UDP_SUCCEEDED, p.PPI_RX_CHECKSUM_IP_SUCCEEDED];
  assert.deepEqual(good, [8, 16, 32]);
  const odd = [p.PPI_RX_CHECKSUM_LOOPBACK, p.PPI_RX_CHECKSUM_TCP_VALUE_INVALID, p.PPI_RX_CHECKSUM_IP_VALUE_INVALID];
  assert.deepEqual(odd, [64, 128, 256]);
  assert.equal(p.vlanInfoOfTci(0xb064), 0x064d); // priority 5, DEI, VLAN 100
  assert.equal(p.tciOfVlanInfo(0x064d), 0xb064);
  for (let tci = 0; tci <= 0xffff; tci += 0x11) assert.equal(p.tciOfVlanInfo(p.vlanInfoOfTci(tci)), tci);
});

test('text', () => {
  assert.equal(r.rndisText(hex(PACKET)), TEXT);
  assert.match(r.rndisText(hex(PACKET), true), /CHECKSUM\(TCP_FAILED\|IP_FAILED\|0x220000\)/);
  assert.match(r.rndisText(r.encodeQueryComplete(5, 0xc00000bb)), /status=NOT_SUPPORTED/);
  assert.match(r.rndisText(r.encodeSet(1, 0x0001010e, hex('0d000000'))), /GEN_CURRENT_PACKET_FILTER .* data=0d000000$/);
  const texts = [
    [p.ppi(0, 0x28), true, 'CHECKSUM(TCP_SUCCEEDED|IP_SUCCEEDED)'],
    [p.ppi(2, 0xc36005b4), false, 'LSO(IPv6 mss=1460 headerOffset=54)'],
    [p.ppi(8, 0x1234), false, 'HASH_VALUE(0x1234)'],
    [
      { type: 0x80000001, data: hex('01030500') },
      false,
      'PACKET_ID_INFO version=1 flags=SUBALLOCATED|FIRST packetId=5',
    ],
  ] as const;
  for (const [info, toGuest, text] of texts) assert.equal(p.ppiText(info, toGuest), text);
  assert.equal(oidName(0xfc01020d), 'OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES');
  assert.equal(oidName(0x01010101), 'OID_802_3_PERMANENT_ADDRESS');
  assert.equal(oidName(0x42), '0x00000042');
});
const TEXT =
  'RNDIS_PACKET messageLength=79 bytes dataOffset=68 bytes dataLength=3 bytes perPacketInfoOffset=36 bytes ' +
  'perPacketInfoLength=32 bytes VLAN(id=100 priority=5 dei=0) CHECKSUM(IPV4|TCP headerOffset=34)';

const info = fc.record({
  type: fc.integer({ min: 0, max: 0xffffffff }),
  data: fc.uint8Array({ maxLength: 24 }).map((b) => b.subarray(0, b.length & ~3)),
});

test('infos: decode(encode(x)) = x', () => {
  fc.assert(
    fc.property(fc.array(info, { maxLength: 8 }), (infos) => {
      assert.deepEqual(
        p.decodePpis(p.encodePpis(infos)),
        infos.map((i) => ({ type: i.type, data: i.data.slice() })),
      );
    }),
  );
});

test('arbitrary and damaged messages: those bytes alone, or WireError', () => {
  const whole = [PACKET, INITIALIZE_COMPLETE, '04000080 1e000000 05000000 00000000 06000000 10000000 00155d010203'];
  const seed = fc.constantFrom(...whole, '07000000 18000000 13000140 04000000 0c000000 40420f00').map(hex);
  const word = fc.constantFrom(0, 1, 8, 12, 0x24, 0x7fffffff, 0xfffffff8, 0xffffffff);
  fc.assert(
    fc.property(seed, fc.nat(15), word, fc.nat(8), (message, at, value, cut) => {
      const bytes = message.slice(0, message.length - cut);
      if (at * 4 + 4 <= bytes.length) new DataView(bytes.buffer).setUint32(at * 4, value, true);
      boundedDecode((b) => r.decodeRndis(b), bytes);
      boundedDecode((b) => r.rndisText(b), bytes);
    }),
    { numRuns: 1000 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      boundedDecode((b) => p.decodePpis(b), bytes);
      boundedDecode((b) => r.decodeRndis(b), bytes);
    }),
  );
});
