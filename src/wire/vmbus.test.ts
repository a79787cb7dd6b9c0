import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { boundedDecode, digits, golden, hex } from './golden-testing.js';
import { WireError } from './struct.js';
import * as v from './vmbus.js';
import * as c from './vmbus-control.js';
import { decodePacket, encodePacket, pagesOf, type VmbusPacket } from './vmbus-packet.js';

golden(
  v.RingControl,
  { in: 8, out: 16, interruptMask: 1, pendingSendSize: 0x1000, featureBits: 1 },
  '08000000 10000000 01000000 00100000 00*48 01000000 00*60',
);
golden(
  v.PacketDescriptor,
  { type: 6, dataOffset8: 2, length8: 6, flags: 1, transactionId: 0x8000000000000001n },
  '0600 0200 0600 0100 0100000000000080',
);
golden(v.TransferPagesHeader, { transferPageSetId: 0xcafe, rangeCount: 2 }, '00*16 feca 0000 02000000');
golden(v.TransferPageRange, { byteCount: 1806, byteOffset: 3612 }, '0e070000 1c0e0000');
golden(v.GpaDirectHeader, { rangeCount: 1 }, '00*16 00000000 01000000');
golden(v.GpaRange, { byteCount: 0x1001, byteOffset: 0xfff }, '01100000 ff0f0000');
golden(v.PacketFooter, { startOffset: 0x40 }, '00000000 40000000');
golden(v.MonitorParameter, { connectionId: 0x2001, flagNumber: 1 }, '01200000 0100 0000');
const latency = new Uint8Array(256).fill(7);
const parameter = new Uint8Array(1024).fill(9);
golden(
  v.MonitorPage,
  {
    triggerState: 0xf,
    ...{ pending0: 1, armed0: 2, pending1: 3, armed1: 4, pending2: 5, armed2: 6, pending3: 7, armed3: 8 },
    ...{ latency, parameter },
  },
  '0f000000 00000000 01000000 02000000 03000000 04000000 05000000 06000000 07000000 08000000 ' +
    '00*24 00*512 07*256 00*256 09*1024',
);

const packets: [VmbusPacket, string][] = [
  [
    {
      kind: 'inBand',
      transactionId: 0x1122n,
      completionRequested: true,
      payload: hex('6b000000 01000000 00000000 2c'),
    },
    '0600 0200 0400 0100 2211000000000000 6b000000 01000000 00000000 2c000000',
  ],
  [
    { kind: 'completion', transactionId: 0x8000000000000000n, completionRequested: false, payload: new Uint8Array(0) },
    '0b00 0200 0200 0000 0000000000000080',
  ],
  [
    {
      kind: 'transferPages',
      transactionId: 16n,
      completionRequested: true,
      payload: hex('6b000000 00000000 ffffffff 00000000'),
      transferPageSetId: 0xcafe,
      ranges: [
        { byteCount: 1806, byteOffset: 28896 },
        { byteCount: 1806, byteOffset: 30702 },
      ],
    },
    '0700 0500 0700 0100 1000000000000000 feca 0000 02000000 0e070000 e0700000 0e070000 ee770000' +
      '6b000000 00000000 ffffffff 00000000',
  ],
  [
    {
      kind: 'gpaDirect',
      transactionId: 2n,
      completionRequested: true,
      payload: hex('6b000000 00000000'),
      ranges: [
        { byteCount: 0x80, byteOffset: 0x40, pfns: [0x12345n] },
        { byteCount: 0x1001, byteOffset: 0xfff, pfns: [0x100000000n, 0x7n] },
      ],
    },
    '0900 0800 0900 0100 0200000000000000 00000000 02000000 80000000 40000000 4523010000000000' +
      '01100000 ff0f0000 0000000001000000 0700000000000000 6b000000 00000000',
  ],
];

const padded = (packet: VmbusPacket): VmbusPacket => {
  const payload = new Uint8Array(Math.ceil(packet.payload.length / 8) * 8);
  payload.set(packet.payload);
  return { ...packet, payload };
};

for (const [packet, vector] of packets) {
  test(`whole packet ${packet.kind}: golden vector, both ways, anywhere`, () => {
    assert.equal(digits(encodePacket(packet)), digits(hex(vector)));
    assert.deepEqual(decodePacket(hex(vector)), padded(packet));
    assert.deepEqual(decodePacket(hex(`a5*8 ${vector} a5*8`), 8), padded(packet));
  });
}

test('what a host calls a corrupt ring is a WireError', () => {
  const bad: [string, string][] = [
    ['unknown type', '0800 0200 0200 0000 00*8'],
    ['data offset 1', '0600 0100 0200 0000 00*8'],
    ['data offset 2 of transfer pages', '0700 0200 0300 0000 00*16'],
    ['length below data offset', '0600 0300 0200 0000 00*16'],
    ['length past the end', '0600 0200 0400 0000 00*8 00*8'],
    ['unknown flag', '0600 0200 0200 0200 00*8'],
    ['more transfer ranges than room', '0700 0400 0400 0000 00*8 feca0000 02000000 00*8'],
    ['fewer transfer ranges than room', '0700 0400 0400 0000 00*8 feca0000 00000000 00*8'],
    ['2^32-1 transfer ranges', '0700 0400 0400 0000 00*8 feca0000 ffffffff 00*8'],
    ['no GPA range', '0900 0300 0300 0000 00*8 00000000 00000000'],
    ['2^32-1 GPA ranges', '0900 0500 0500 0000 00*8 00000000 ffffffff 01000000 00000000 00*8'],
    ['empty GPA range', '0900 0500 0500 0000 00*8 00000000 01000000 00000000 00000000 00*8'],
    ['GPA offset 0x1000', '0900 0500 0500 0000 00*8 00000000 01000000 01000000 00100000 00*8'],
    ['GPA range of 4 GiB', '0900 0500 0500 0000 00*8 00000000 01000000 ffffffff ff0f0000 00*8'],
    ['too few page frames', '0900 0500 0500 0000 00*8 00000000 01000000 01100000 ff0f0000 00*8'],
    ['left-over page frames', '0900 0600 0600 0000 00*8 00000000 01000000 01000000 00000000 00*16'],
  ];
  for (const [what, vector] of bad) assert.throws(() => decodePacket(hex(vector)), WireError, what);
});

test('illegal packets are not encoded', () => {
  const common = { transactionId: 0n, completionRequested: false, payload: new Uint8Array(0) };
  const gpa = (byteCount: number, byteOffset: number, pfns: bigint[]): VmbusPacket => {
    return { ...common, kind: 'gpaDirect', ranges: [{ byteCount, byteOffset, pfns }] };
  };
  const bad: VmbusPacket[] = [
    { ...common, kind: 'gpaDirect', ranges: [] },
    gpa(0, 0, []),
    gpa(1, 4096, [1n]),
    gpa(4097, 0, [1n]),
    gpa(1, 0, [-1n]),
    { ...common, kind: 'inBand', payload: new Uint8Array(65535 * 8) },
  ];
  for (const packet of bad) assert.throws(() => encodePacket(packet), WireError);
  assert.equal(pagesOf({ byteOffset: 0xfff, byteCount: 2 }), 2);
});

test('arbitrary and damaged packets: those bytes alone, or WireError', () => {
  const seed = fc.constantFrom(...packets.map(([, vector]) => hex(vector)));
  fc.assert(
    fc.property(seed, fc.nat(40), fc.constantFrom(0, 1, 2, 3, 7, 0x7f, 0xff), fc.nat(12), (packet, at, value, cut) => {
      const bytes = packet.slice(0, packet.length - cut);
      if (at < bytes.length) bytes[at] = value;
      boundedDecode((b) => decodePacket(b), bytes);
    }),
    { numRuns: 1000 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => boundedDecode((b) => decodePacket(b), bytes) !== 0),
  );
});

golden(c.VmbusHeader, { messageType: 14 }, '0e000000 00000000');
golden(
  c.OfferChannel,
  {
    interfaceId: c.NETWORK_INTERFACE_GUID,
    instanceId: '00112233-4455-6677-8899-aabbccddeeff',
    ...{ flags: 1, mmioMegabytes: 0, subchannelIndex: 2, mmioMegabytesOptional: 0, channelId: 14 },
    ...{ monitorId: 0xff, monitorAllocated: 0, isDedicated: 1, connectionId: 0x200e },
  },
  '01000000 00000000 635161f8 3edf c546 913f f2d2f965ed0e 33221100 5544 7766 8899 aabbccddeeff 00*16 ' +
    '0100 0000 00*120 0200 0000 0e000000 ff 00 0100 0e200000',
);
golden(c.RescindChannelOffer, { channelId: 14 }, '02000000 00000000 0e000000');
golden(c.RequestOffers, {}, '03000000 00000000');
golden(c.AllOffersDelivered, {}, '04000000 00000000');
golden(
  c.OpenChannel,
  { channelId: 14, openId: 3, ringBufferGpadl: 0xe1e10, targetVp: 0xffffffff, downstreamPageOffset: 128 },
  '05000000 00000000 0e000000 03000000 101e0e00 ffffffff 80000000 00*120',
);
golden(
  c.OpenChannelResult,
  { channelId: 14, openId: 3, status: 0x8000ffff },
  '06000000 00*4 0e000000 03000000 ffff0080',
);
golden(c.CloseChannel, { channelId: 14 }, '07000000 00000000 0e000000');
golden(
  c.GpadlHeader,
  { channelId: 14, gpadlId: 0xe1e10, rangeBufferLength: 16, rangeCount: 1 },
  '08000000 00000000 0e000000 101e0e00 1000 0100',
);
golden(c.GpadlBody, { gpadlId: 0xe1e10 }, '09000000 00000000 00000000 101e0e00');
golden(c.GpadlCreated, { channelId: 14, gpadlId: 0xe1e10, status: 0 }, '0a000000 00*4 0e000000 101e0e00 00000000');
golden(c.GpadlTeardown, { channelId: 14, gpadlId: 0xe1e10 }, '0b000000 00000000 0e000000 101e0e00');
golden(c.GpadlTorndown, { gpadlId: 0xe1e10 }, '0c000000 00000000 101e0e00');
golden(c.RelIdReleased, { channelId: 14 }, '0d000000 00000000 0e000000');
golden(
  c.InitiateContact,
  {
    ...{ version: 0x60000, targetMessageVp: 0, targetInfo: 0x700000002n },
    ...{ parentToChildMonitorPage: 0x1000n, childToParentMonitorPage: 0x2000n },
  },
  '0e000000 00000000 00000600 00000000 02000000 07000000 0010000000000000 0020000000000000',
);
golden(
  c.VersionResponse,
  { versionSupported: 1, connectionState: 0, versionOrConnectionId: 4 },
  '0f000000 00000000 01 00 0000 04000000',
);
golden(
  c.VersionResponse2,
  { versionSupported: 1, connectionState: 0, versionOrConnectionId: 4, supportedFeatures: 0x22 },
  '0f000000 00000000 01 00 0000 04000000 22000000',
);
golden(c.Unload, {}, '10000000 00000000');
golden(c.UnloadComplete, {}, '11000000 00000000');
golden(c.ModifyChannel, { channelId: 14, targetVp: 3 }, '16000000 00000000 0e000000 03000000');
golden(c.ModifyChannelResponse, { channelId: 14, status: 0 }, '18000000 00000000 0e000000 00000000');
