import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { boundedDecode, digits, golden, hex } from './golden-testing.js';
import * as n from './nvsp.js';
import { WireError } from './struct.js';

golden(n.NvspHeader, { messageType: 107 }, '6b000000');
golden(n.NvspInit, { protocolVersion: 0x60001, protocolVersion2: 0x60000 }, '01000000 01000600 00000600');
golden(
  n.NvspInitComplete,
  { negotiatedProtocolVersion: 0xffffffff, maximumMdlChainLength: 34, status: 1 },
  '02000000 ffffffff 22000000 01000000',
);
golden(n.NvspSendNdisVersion, { ndisMajorVersion: 6, ndisMinorVersion: 30 }, '64000000 06000000 1e000000');
golden(n.NvspSendReceiveBuffer, { gpadlHandle: 0xe1e10, id: 0xcafe }, '65000000 101e0e00 feca 0000');
golden(
  n.NvspSendReceiveBufferComplete,
  { status: 1, sectionCount: 1, offset: 0, suballocationSize: 1806, suballocationCount: 9289, endOffset: 0xfffae6 },
  '66000000 01000000 01000000 00000000 0e070000 49240000 e6faff00',
);
golden(n.NvspRevokeReceiveBuffer, { id: 0xcafe }, '67000000 feca');
golden(n.NvspSendSendBuffer, { gpadlHandle: 0xe1e11, id: 0 }, '68000000 111e0e00 0000 0000');
golden(n.NvspSendSendBufferComplete, { status: 1, sectionSize: 6144 }, '69000000 01000000 00180000');
golden(n.NvspRevokeSendBuffer, { id: 0xface }, '6a000000 cefa');
golden(
  n.NvspSendRndisPacket,
  { channelType: 1, sendBufferSectionIndex: 0xffffffff, sendBufferSectionSize: 0 },
  '6b000000 01000000 ffffffff 00000000',
);
golden(n.NvspSendRndisPacketComplete, { status: 2 }, '6c000000 02000000');
golden(n.NvspSendNdisConfig, { mtu: 1514, capabilities: 0xacn }, '7d000000 ea050000 00000000 ac00000000000000');
golden(n.NvspSendVfAssociation, { vfAllocated: 1, serialNumber: 0x1234 }, '80000000 01000000 34120000');
golden(n.NvspSwitchDataPath, { activeDataPath: 1 }, '81000000 01000000');
golden(n.NvspUplinkConnectState, {}, '82000000');
golden(
  n.NvspOidQueryEx,
  { objectType: 0x80, objectRevision: 1, objectSize: 4, oid: 0x10106 },
  '83000000 80 01 0400 06010100',
);
golden(n.NvspOidQueryExComplete, { status: 0xc00000bb, bytes: 0 }, '84000000 bb0000c0 00000000');
golden(n.NvspSubchannelRequest, { operation: 1, subchannelCount: 7 }, '85000000 01000000 07000000');
golden(n.NvspSubchannelComplete, { status: 1, subchannelCount: 3 }, '85000000 01000000 03000000');
golden(n.NvspSendIndirectionTable, { count: 16, offset: 12 }, '86000000 10000000 0c000000');

const TABLE = '86000000 10000000 0c000000 00000000 01000000 02000000 03000000'.concat(
  ' 00000000 01000000 02000000 03000000'.repeat(3),
);

test('indirection table: golden vector, both ways', () => {
  const table = Array.from({ length: 16 }, (_, i) => i % 4);
  assert.equal(digits(n.encodeIndirectionTable(table)), digits(hex(TABLE)));
  assert.deepEqual(n.decodeIndirectionTable(hex(TABLE)), table);
  // The caller may know better where the table is.
  const wrong = hex(TABLE);
  wrong[8] = 0;
  assert.deepEqual(n.decodeIndirectionTable(wrong, 12), table);
  assert.throws(() => n.decodeIndirectionTable(wrong, 16), WireError);
});

test('indirection table: offset and count are checked against the message', () => {
  for (const [offset, count] of [
    [0, 16],
    [8, 16],
    [16, 16],
    [0xffffffff, 1],
    [12, 17],
    [12, 0xffffffff],
    [0xfffffffc, 0x40000001],
  ] as const) {
    const bytes = hex(TABLE);
    const view = new DataView(bytes.buffer);
    view.setUint32(4, count, true);
    view.setUint32(8, offset, true);
    assert.throws(() => n.decodeIndirectionTable(bytes), WireError, `offset ${offset} count ${count}`);
  }
});

test('messages are found by number; a longer payload is legal', () => {
  const init = n.decodeNvsp(hex('01000000 01000600 01000600 00*28'), 0);
  assert.equal(init.kind, 'INIT');
  assert.equal(init.kind === 'INIT' && init.value.protocolVersion, n.NVSP_VERSION.V61);
  const request = n.decodeNvsp(hex('85000000 01000000 07000000'), n.NVSP_VERSION.V5);
  assert.equal(request.kind, 'SUBCHANNEL');
  const complete = n.decodeNvsp(hex('85000000 01000000 07000000'), n.NVSP_VERSION.V5, true);
  assert.equal(complete.kind, 'SUBCHANNEL_COMPLETE');
  const table = n.decodeNvsp(hex(TABLE), n.NVSP_VERSION.V5);
  assert.deepEqual(table.kind === 'SEND_INDIRECTION_TABLE' && table.table.length, 16);
});

test('every number: its first version, and unknown before it', () => {
  const first: [number, number][] = [
    [100, 0x2],
    [108, 0x2],
    [109, 0x30002],
    [127, 0x30002],
    [128, 0x40000],
    [130, 0x40000],
    [131, 0x50000],
    [134, 0x50000],
    [135, 0x60001],
    [136, 0x60001],
  ];
  for (const [number, version] of first) assert.equal(n.nvspSince(number), version, `message ${number}`);
  for (const number of [0, 3, 99, 137, 0xffffffff]) assert.equal(n.nvspSince(number), undefined, `message ${number}`);
  for (const number of Object.values(n.NVSP_MESSAGE)) assert.notEqual(n.nvspSince(number), undefined);
  const association = hex('80000000 01000000 34120000');
  assert.throws(() => n.decodeNvsp(association, n.NVSP_VERSION.V2), /SEND_VF_ASSOCIATION of version 0x40000/);
  assert.equal(n.decodeNvsp(association, n.NVSP_VERSION.V4).kind, 'SEND_VF_ASSOCIATION');
  assert.throws(() => n.decodeNvsp(hex('6d000000 00*24'), n.NVSP_VERSION.V61), /SEND_CHIMNEY_DELEGATED_BUFFER/);
  assert.throws(() => n.decodeNvsp(hex('89000000 00*24'), n.NVSP_VERSION.V61), WireError);
});

test('versions newest first, message sizes by version', () => {
  const sorted = Object.values(n.NVSP_VERSION).sort((a, b) => b - a);
  assert.deepEqual([...n.NVSP_VERSIONS_NEWEST_FIRST], sorted);
  assert.equal(n.nvspMessageBytes(n.NVSP_VERSION.V6), 28);
  assert.equal(n.nvspMessageBytes(n.NVSP_VERSION.V61), 40);
  assert.deepEqual(n.ndisVersionFields(n.NDIS_VERSION.NDIS_6_30), { ndisMajorVersion: 6, ndisMinorVersion: 30 });
});

test('text', () => {
  assert.equal(n.nvspText(hex('6b000000 01000000 ffffffff 00000000'), 2), TEXT_RNDIS);
  assert.match(n.nvspText(hex(TABLE), n.NVSP_VERSION.V5), /count=16 offset=12 bytes table=\[0 1 2 3 0 /);
  assert.match(n.nvspText(hex('85000000 02000000 00000000'), n.NVSP_VERSION.V5, true), /COMPLETE status=FAIL/);
});
const TEXT_RNDIS =
  'NVSP_SEND_RNDIS_PACKET channelType=CONTROL sendBufferSectionIndex=NONE sendBufferSectionSize=0 bytes';

test('arbitrary bytes: a message of those bytes alone, or WireError', () => {
  const number = fc.constantFrom(...Object.values(n.NVSP_MESSAGE), 0, 137);
  const version = fc.constantFrom(...Object.values(n.NVSP_VERSION));
  fc.assert(
    fc.property(
      number,
      version,
      fc.boolean(),
      fc.uint8Array({ maxLength: 96 }),
      (type, negotiated, completion, rest) => {
        const bytes = new Uint8Array(4 + rest.length);
        new DataView(bytes.buffer).setUint32(0, type, true);
        bytes.set(rest, 4);
        boundedDecode((b) => n.decodeNvsp(b, negotiated, completion), bytes);
        boundedDecode((b) => n.nvspText(b, negotiated, completion), bytes);
      },
    ),
    { numRuns: 500 },
  );
});
