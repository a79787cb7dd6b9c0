import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { boundedDecode, digits, golden, hex } from './golden-testing.js';
import * as n from './ndis.js';
import { WireError } from './struct.js';

golden(n.NdisObjectHeader, { type: 0xa7, revision: 3, size: 156 }, 'a7 03 9c00');
golden(
  n.NdisLinkState,
  {
    ...{ revision: 1, objectSize: 40, mediaConnectState: 1, mediaDuplexState: 0 },
    ...{ transmitLinkSpeed: 10_000_000_000n, receiveLinkSpeed: 10_000_000_000n },
    ...{ pauseFunctions: 0, autoNegotiationFlags: 0 },
  },
  '80 01 2800 01000000 00000000 00000000 00e40b5402000000 00e40b5402000000 00000000 00000000',
);
golden(
  n.NdisMaxLinkSpeed,
  { transmitLinkSpeed: 10_000_000_000n, receiveLinkSpeed: 1_000_000_000n },
  '00e40b5402000000 00ca9a3b00000000',
);
const NAME = '4e006500740077006f0072006b004100640064007200650073007300';
const VALUE = '300030003100350035004400300031003000320030003300';
golden(
  n.NdisConfigParameter,
  {
    ...{ parameterNameOffset: 20, parameterNameLength: 28, parameterType: 2 },
    ...{ parameterValueOffset: 48, parameterValueLength: 24 },
  },
  '14000000 1c000000 02000000 30000000 18000000',
);

// What openvmm's host answers with everything on (facts/hyper-v-host.md 4.5).
const OFFLOAD =
  'a7 03 9c00' +
  '02000000 55010000 02000000 55010000 02000000 55000000 02000000 55000000' +
  '00*16 00*28 ' +
  '02000000 3cf50000 02000000 02000000 3cf50000 02000000 05000000' +
  '00000000 00*32 01 01 0000 00*8';
const CAPABLE = {
  ...{ checksumIpv4TxEncapsulation: 2, checksumIpv4Tx: 0x155, checksumIpv4RxEncapsulation: 2, checksumIpv4Rx: 0x155 },
  ...{ checksumIpv6TxEncapsulation: 2, checksumIpv6Tx: 0x55, checksumIpv6RxEncapsulation: 2, checksumIpv6Rx: 0x55 },
  ...{ lsoV2Ipv4Encapsulation: 2, lsoV2Ipv4MaxOffloadSize: 62780, lsoV2Ipv4MinSegmentCount: 2 },
  ...{ lsoV2Ipv6Encapsulation: 2, lsoV2Ipv6MaxOffloadSize: 62780, lsoV2Ipv6MinSegmentCount: 2, lsoV2Ipv6Flags: 5 },
  ...{ rscIpv4: 1, rscIpv6: 1 },
};
golden(n.NdisOffload, { revision: 3, objectSize: 156, ...CAPABLE }, OFFLOAD);

const PARAMETERS = '80 03 1c00 01 04 04 04 04 00 00 02 02 00 00 00 00000000 00 00 02 02 00 00 0000';
const WANTED = {
  ...{ ipv4Checksum: 1, tcpIpv4Checksum: 4, udpIpv4Checksum: 4, tcpIpv6Checksum: 4, udpIpv6Checksum: 4 },
  ...{ lsoV2Ipv4: 2, lsoV2Ipv6: 2, rscIpv4: 2, rscIpv6: 2 },
};
golden(n.NdisOffloadParameters, { revision: 3, objectSize: 28, ...WANTED }, PARAMETERS);
golden(
  n.NdisOffloadEncapsulation,
  {
    ...{ revision: 1, objectSize: 28, ipv4Enabled: 1, ipv4EncapsulationType: 2, ipv4HeaderSize: 14 },
    ...{ ipv6Enabled: 1, ipv6EncapsulationType: 2, ipv6HeaderSize: 14 },
  },
  'a8 01 1c00 01000000 02000000 0e000000 01000000 02000000 0e000000',
);
golden(
  n.NdisRssCapabilities,
  {
    ...{ revision: 2, objectSize: 18, capabilitiesFlags: 0x301, numberOfInterruptMessages: 1 },
    ...{ numberOfReceiveQueues: 8, numberOfIndirectionTableEntries: 128 },
  },
  '88 02 1200 01030000 01000000 08000000 8000',
);
const RSS_FIXED = '89 02 2800 1000 0000 01170000 1000 0000 28000000 2800 0000 38000000 00*12';
golden(
  n.NdisRssParameters,
  {
    ...{ revision: 2, objectSize: 40, flags: 0x10, hashInformation: 0x1701 },
    ...{ indirectionTableSize: 16, indirectionTableOffset: 40, hashSecretKeySize: 40, hashSecretKeyOffset: 56 },
  },
  RSS_FIXED,
);

test('offload capabilities by revision: size, and what an old one lacks is zero', () => {
  for (const [revision, size] of [
    [1, 112],
    [2, 144],
    [3, 156],
  ] as const) {
    const bytes = n.encodeNdisOffload(CAPABLE, revision);
    const expected = hex(OFFLOAD).subarray(0, size);
    expected.set([0xa7, revision, size, 0]);
    assert.equal(digits(bytes), digits(expected), `revision ${revision}`);
    const decoded = n.decodeNdisOffload(bytes);
    assert.equal(decoded.lsoV2Ipv6Flags, 5);
    assert.equal(decoded.rscIpv4, revision === 3 ? 1 : 0);
    const query = n.encodeNdisOffloadQuery(revision);
    assert.equal(digits(query), digits(hex(`a7 0${revision} ${size.toString(16)} 00 00*${size - 4}`)));
    assert.throws(() => n.decodeNdisOffload(bytes.subarray(0, size - 1)), WireError);
  }
  const newer = hex(`${OFFLOAD} ff*4`);
  newer.set([4, 160], 1);
  assert.equal(n.decodeNdisOffload(newer).rscIpv6, 1);
});

test('offload parameters by revision', () => {
  for (const [revision, size] of [
    [1, 20],
    [2, 22],
    [3, 28],
  ] as const) {
    const bytes = n.encodeNdisOffloadParameters(WANTED, revision);
    assert.equal(bytes.length, size);
    assert.deepEqual([bytes[0], bytes[1], bytes[2], bytes[3]], [0x80, revision, size, 0]);
    const decoded = n.decodeNdisOffloadParameters(bytes);
    assert.equal(decoded.tcpIpv6Checksum, 4);
    assert.equal(decoded.rscIpv4, revision === 3 ? 2 : 0);
  }
  // Linux at NVSP 4: revision 3 cut to 22 bytes.
  const cut = n.decodeNdisOffloadParameters(hex('80 03 1600 01 02 00*16'));
  assert.deepEqual([cut.revision, cut.objectSize], [3, 22]);
  assert.throws(() => n.decodeNdisOffloadParameters(hex('80 00 1400 00*16')), /revision/);
  assert.throws(() => n.decodeNdisOffloadParameters(hex('80 01 1300 00*16')), /objectSize/);
  assert.throws(() => n.decodeNdisOffloadParameters(hex('a7 01 1400 00*16')), WireError);
});

test('RSS: golden vectors, both ways', () => {
  const key = Uint8Array.from({ length: 40 }, (_, i) => i + 1);
  const parameters = { flags: 0x10, hashInformation: 0x1701, table: [0, 1, 2, 3], key };
  const vector = hex(`${RSS_FIXED} 00000000 01000000 02000000 03000000 ${digits(key)}`);
  assert.equal(digits(n.encodeRssParameters(parameters)), digits(vector));
  assert.deepEqual(n.decodeRssParameters(vector), parameters);
  const full = n.encodeRssParameters({ ...parameters, table: new Array<number>(128).fill(1) });
  assert.equal(full.length, 592);
  const unheaded = vector.slice();
  unheaded[0] = 0; // hosts do not look at it
  assert.deepEqual(n.decodeRssParameters(unheaded), parameters);
  for (const [at, value] of [
    [12, 15], // table size is no multiple of 4
    [12, 0xffff],
    [16, 39], // table in the fixed part
    [16, 0xfffffffc],
    [24, 57], // key past the end
  ] as const) {
    const bad = vector.slice();
    new DataView(bad.buffer)[at === 12 ? 'setUint16' : 'setUint32'](at, value, true);
    assert.throws(() => n.decodeRssParameters(bad), WireError, `${value} at ${at}`);
  }
  assert.throws(() => n.encodeRssParameters({ ...parameters, table: [-1] }), WireError);
  const old = n.decodeRssCapabilities(hex('88 01 1000 01030000 01000000 08000000'));
  assert.deepEqual([old.numberOfReceiveQueues, old.numberOfIndirectionTableEntries], [8, 0]);
  assert.throws(() => n.decodeRssCapabilities(hex('88 01 1000 01030000 01000000 080000')), WireError);
});

test('configuration parameter: golden vector, both ways', () => {
  const vector = hex(`14000000 1c000000 02000000 30000000 18000000 ${NAME} ${VALUE}`);
  assert.equal(digits(n.encodeConfigParameter('NetworkAddress', '00155D010203')), digits(vector));
  assert.deepEqual(n.decodeConfigParameter(vector), { name: 'NetworkAddress', type: 2, value: '00155D010203' });
  const number = n.decodeConfigParameter(n.encodeConfigParameter('*LsoV2IPv4', 3));
  assert.deepEqual(number, { name: '*LsoV2IPv4', type: 0, value: 3 });
  assert.throws(() => n.encodeConfigParameter('x'.repeat(128), ''), WireError);
  assert.throws(() => n.decodeConfigParameter(vector.subarray(0, vector.length - 1)), WireError);
  assert.throws(() => n.decodeConfigParameter(hex('14000000 00000000 00000000 14000000 02000000 0000')), WireError);
});

test('arbitrary and damaged structures: those bytes alone, or WireError', () => {
  const key = new Uint8Array(40);
  const whole = [hex(OFFLOAD), hex(PARAMETERS), n.encodeConfigParameter('Name', '1')];
  const rss = n.encodeRssParameters({ flags: 0, hashInformation: 1, table: [0, 1], key });
  const word = fc.constantFrom(0, 1, 20, 40, 255, 0xffff, 0x7fffffff, 0xfffffff0, 0xffffffff);
  fc.assert(
    fc.property(fc.constantFrom(...whole, rss), fc.nat(10), word, fc.nat(30), (message, at, value, cut) => {
      const bytes = message.slice(0, Math.max(0, message.length - cut));
      if (at * 4 + 4 <= bytes.length) new DataView(bytes.buffer).setUint32(at * 4, value, true);
      boundedDecode((b) => n.decodeNdisOffload(b), bytes);
      boundedDecode((b) => n.decodeNdisOffloadParameters(b), bytes);
      boundedDecode((b) => n.decodeRssParameters(b), bytes);
      boundedDecode((b) => n.decodeRssCapabilities(b), bytes);
      boundedDecode((b) => n.decodeConfigParameter(b), bytes);
    }),
    { numRuns: 1000 },
  );
});
