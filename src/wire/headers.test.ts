import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatIpv4, formatIpv6, formatMac, parseIpv4, parseIpv6, parseMac } from './address-text.js';
import * as sum from './checksum.js';
import * as e from './ethernet.js';
import { boundedDecode, golden, hex } from './golden-testing.js';
import * as ip from './ip.js';
import { WireError } from './struct.js';
import * as t from './tcp-udp.js';

const A = '00:15:5d:01:02:03';
const B = 'ff:ff:ff:ff:ff:ff';
golden(e.EthernetHeader, { destination: B, source: A, etherType: 0x86dd }, 'ffffffffffff 00155d010203 86dd');
golden(e.VlanTag, { tci: 0xb064, etherType: 0x0800 }, 'b064 0800');
golden(
  e.Arp,
  { operation: 1, senderMac: A, senderIp: '10.0.0.1', targetMac: '00:00:00:00:00:00', targetIp: '10.0.0.2' },
  '0001 0800 06 04 0001 00155d010203 0a000001 000000000000 0a000002',
);
// The example header of RFC 1071 tools: checksum b861.
const IPV4 = '45 00 0073 0000 4000 40 11 b861 c0a80001 c0a800c7';
golden(
  ip.Ipv4Header,
  {
    ...{ versionHeaderLength: 0x45, dscpEcn: 0, totalLength: 115, identification: 0, flagsFragmentOffset: 0x4000 },
    ...{ timeToLive: 64, protocol: 17, headerChecksum: 0xb861, source: '192.168.0.1', destination: '192.168.0.199' },
  },
  IPV4,
);
golden(
  ip.Ipv6Header,
  {
    ...{ versionClassFlow: 0x60000000, payloadLength: 32, nextHeader: 58, hopLimit: 255 },
    ...{ source: 'fe80::1', destination: 'ff02::1:ff00:2' },
  },
  '60000000 0020 3a ff fe80 00*13 01 ff02 00*9 01 ff 00 00 02',
);
golden(
  ip.Ipv4PseudoHeader,
  { source: '10.0.0.1', destination: '10.0.0.2', protocol: 6, length: 20 },
  '0a000001 0a000002 00 06 0014',
);
golden(
  ip.Ipv6PseudoHeader,
  { source: '::1', destination: '2001:db8::1', length: 70000, nextHeader: 6 },
  '00*15 01 20010db8 00*11 01 00011170 0000 00 06',
);
golden(ip.IcmpEcho, { type: 8, checksum: 0xf7fc, identifier: 1, sequence: 2 }, '08 00 f7fc 0001 0002');
golden(ip.Icmpv6Echo, { type: 128, checksum: 0x1234, identifier: 1, sequence: 2 }, '80 00 1234 0001 0002');
golden(ip.RouterSolicitation, { checksum: 0x1234 }, '85 00 1234 00000000');
golden(
  ip.RouterAdvertisement,
  { checksum: 0x1234, hopLimit: 64, flags: 0x80, routerLifetime: 1800, reachableTime: 1, retransmitTimer: 2 },
  '86 00 1234 40 80 0708 00000001 00000002',
);
golden(ip.NeighborSolicitation, { checksum: 0x1234, target: 'fe80::2' }, '87 00 1234 00000000 fe80 00*13 02');
golden(
  ip.NeighborAdvertisement,
  { checksum: 0x1234, flags: 0x60000000, target: 'fe80::2' },
  '88 00 1234 60000000 fe80 00*13 02',
);
golden(ip.LinkLayerAddressOption, { type: 2, address: A }, '02 01 00155d010203');
golden(
  t.TcpHeader,
  {
    ...{ sourcePort: 49152, destinationPort: 443, sequence: 0xfffffffe, acknowledgment: 1, dataOffset: 0x50 },
    ...{ flags: 0x12, window: 65535, checksum: 0xabcd, urgentPointer: 0 },
  },
  'c000 01bb fffffffe 00000001 50 12 ffff abcd 0000',
);
golden(t.UdpHeader, { sourcePort: 53, destinationPort: 1024, length: 8, checksum: 0xabcd }, '0035 0400 0008 abcd');

test('flags above bit 30 print as names', () => {
  const text = ip.NeighborAdvertisement.text({ flags: 0xe0000001, target: '::' });
  assert.equal(text, 'NEIGHBOR_ADVERTISEMENT flags=ROUTER|SOLICITED|OVERRIDE|0x1 target=::');
});

test('IPv6 text follows RFC 5952', () => {
  const pairs = [
    ['00*16', '::'],
    ['00*15 01', '::1'],
    ['20010db8 00*8 00000001', '2001:db8::1'],
    ['2001 0000 0000 0001 0000 0000 0000 0001', '2001:0:0:1::1'],
    ['2001 0db8 0000 0001 0001 0001 0001 0001', '2001:db8:0:1:1:1:1:1'],
    ['2001 0db8 0000 0000 0001 0000 0000 0001', '2001:db8::1:0:0:1'],
    ['fe80 00*14', 'fe80::'],
  ] as const;
  for (const [bytes, text] of pairs) {
    assert.equal(formatIpv6(hex(bytes)), text);
    assert.deepEqual(parseIpv6(text), hex(bytes));
  }
  assert.deepEqual(parseIpv6('::FFFF:1.2.3.4'), hex('00*10 ffff 01020304'));
  const none = [
    '',
    ':',
    ':::',
    '1',
    '1:2:3:4:5:6:7:8:9',
    '1::2::3',
    '12345::',
    'g::',
    '1:2:3:4:5:6:7::8:9',
    '1.2.3.4::',
    '::1.2.3',
  ];
  for (const text of none) assert.equal(parseIpv6(text), undefined, text);
});

test('addresses: parse(format(x)) = x', () => {
  const raw = (n: number) => fc.uint8Array({ minLength: n, maxLength: n });
  fc.assert(
    fc.property(raw(16), (b) => {
      assert.deepEqual([...parseIpv6(formatIpv6(b))!], [...b]);
      assert.deepEqual([...parseIpv4(formatIpv4(b))!], [...b.subarray(0, 4)]);
      assert.deepEqual([...parseMac(formatMac(b))!], [...b.subarray(0, 6)]);
    }),
  );
  for (const text of ['', '1.2.3', '1.2.3.256', '1.2.3.4.5', '1.2.3.-4', ' 1.2.3.4'])
    assert.equal(parseIpv4(text), undefined);
  for (const text of ['', '00:11:22:33:44', '00:11:22:33:44:5g', '0:1:2:3:4:5'])
    assert.equal(parseMac(text), undefined);
});

test('checksum: known headers', () => {
  assert.equal(sum.internetChecksum(hex('0001 f203 f4f5 f6f7')), 0x220d); // RFC 1071, 3: sum ddf2
  assert.equal(sum.ipv4HeaderChecksum(hex(IPV4)), 0xb861);
  assert.equal(sum.ipv4HeaderChecksum(hex(IPV4.replace('b861', '0000'))), 0xb861);
  assert.equal(sum.internetChecksum(hex(IPV4)), 0);
  assert.equal(sum.internetChecksum(hex('0800 f7fc 0001 0002')), 0);
  assert.equal(sum.internetChecksum(hex('01')), 0xfeff); // odd: as if a zero followed
  assert.throws(() => sum.ipv4HeaderChecksum(hex(`44${IPV4.slice(2)}`)), WireError);
  assert.throws(() => sum.ipv4HeaderChecksum(hex(`46${IPV4.slice(2)}`)), WireError);
});

test('checksum: TCP, UDP and ICMPv6 equal the sum over an encoded pseudo header', () => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.constantFrom(6, 17, 58),
      fc.uint8Array({ minLength: 20, maxLength: 64 }),
      (v6, protocol, l4) => {
        const length = l4.length;
        const head = v6
          ? hex('60000000 0020 3a ff fe80 00*13 01 ff02 00*9 01 ff 00 00 02')
          : hex('45 00 0073 0000 4000 40 11 b861 c0a80001 c0a800c7');
        const pseudo = v6
          ? ip.Ipv6PseudoHeader.encode({
              source: 'fe80::1',
              destination: 'ff02::1:ff00:2',
              length,
              nextHeader: protocol,
            })
          : ip.Ipv4PseudoHeader.encode({ source: '192.168.0.1', destination: '192.168.0.199', length, protocol });
        const field = sum.checksumFieldOffset(protocol)!;
        l4.fill(0, field, field + 2);
        const packet = Uint8Array.from([...hex('a5*14'), ...head, ...l4]);
        const at = 14 + head.length;
        const checksum = sum.transportChecksum(packet, 14, protocol, at);
        assert.equal(checksum, sum.internetChecksum(Uint8Array.from([...pseudo, ...l4])));
        new DataView(packet.buffer).setUint16(at + field, checksum, false);
        assert.equal(sum.transportChecksum(packet, 14, protocol, at), 0);
      },
    ),
  );
});

test('checksum functions read nothing outside', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 60 }),
      fc.integer({ min: -2, max: 64 }),
      fc.integer({ min: -2, max: 64 }),
      (b, at, l4) => {
        boundedDecode((x) => sum.ipv4HeaderChecksum(x, at), b);
        boundedDecode((x) => sum.transportChecksum(x, at, 6, l4), b);
      },
    ),
  );
});
