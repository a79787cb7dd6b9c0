import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nicMac } from './identity.js';
import { concat, createRig, hexBytes, type RawGuest, word, words } from './raw-guest-testing.js';

const NOT_SUPPORTED = 0xc00000bb;
const INVALID = 0xc0010015;
const FAILURE = 0xc0000001;
const V61 = 0x60001;
const V4 = 0x40000;

const OFFLOAD_CONFIG = 0xfc01020b;
const OFFLOAD_PARAMETERS = 0xfc01020c;
const OFFLOAD_CAPS = 0xfc01020d;

const u16 = (bytes: Uint8Array, offset: number) => bytes[offset]! | (bytes[offset + 1]! << 8);

test('every OID that answers with one number', (t) => {
  const { guest } = createRig(t);
  guest.attach(V61, { mtu: 9014 });
  const answers: readonly [number, number][] = [
    [0x00010102, 0],
    [0x00010103, 0],
    [0x00010104, 0],
    [0x00010105, 9000],
    [0x0001010f, 9000],
    [0x00010106, 9000],
    [0x00010111, 9014],
    [0x0001010a, 9014],
    [0x0001010b, 9014],
    [0x00010107, 100_000_000],
    [0x00010108, 262144],
    [0x00010109, 262144],
    [0x0001010c, 0x155d],
    [0x0001010e, 0x0d],
    [0x00010113, 0x24d],
    [0x00010114, 0],
    [0x00010115, 0xffffffff],
    [0x01010104, 0],
    [0x01020101, 0],
    [0x01020102, 0],
    [0x01020103, 0],
  ];
  for (const [oid, value] of answers) {
    assert.deepEqual(guest.query(oid), { status: 0, data: words(value) }, oid.toString(16));
  }
});

test('OIDs with other formats', (t) => {
  const { guest } = createRig(t, { nics: [{ friendlyName: 'front', linkSpeedBps: 25_000_000_000 }] });
  guest.attach(V61);
  const mac = nicMac('test', 0);
  assert.deepEqual(guest.query(0x01010101).data, mac);
  assert.deepEqual(guest.query(0x01010102).data, mac);
  assert.deepEqual([...mac.slice(0, 3)], [0, 0x15, 0x5d]);
  assert.equal(Buffer.from(guest.query(0x0001010d).data).toString('latin1'), 'Microsoft Corporation');
  assert.deepEqual(guest.query(0x00010110).data, hexBytes('00 01'));
  assert.deepEqual(guest.query(0x00010116).data, hexBytes('00 01'));
  const name = guest.query(0x00020216).data;
  assert.equal(name.length, 512);
  assert.equal(Buffer.from(name).toString('utf16le').replaceAll('\0', ''), 'front');
  const speed = words(25_000_000_000 % 2 ** 32, Math.floor(25_000_000_000 / 2 ** 32));
  assert.deepEqual(guest.query(0x00010206).data, concat(speed, speed));
  assert.deepEqual(
    guest.query(0x00010207).data,
    concat(hexBytes('80 01 28 00'), words(1, 0, 0), speed, speed, words(0, 0)),
  );
  assert.deepEqual(guest.query(0x0101010a).data, concat(hexBytes('a8 01 1c 00'), words(1, 2, 14, 1, 2, 14)));
  assert.deepEqual(guest.query(0x00010203).data, hexBytes('88 02 12 00 01 1b 00 00 01 00 00 00 40 00 00 00 80 00'));
});

test('only hosts from Windows Server 2019 on hash UDP by ports; the others leave the types out', (t) => {
  const types = (profile: 'ws2016' | 'ws2019', version: number) => {
    const { guest, host } = createRig(t, { profile });
    guest.attach(version);
    assert.equal(guest.set(0x00010204, rss(0, 0xc301, [0])), 0);
    return [word(guest.query(0x00010203).data, 1), host.state().nics[0]!.hashTypes];
  };
  assert.deepEqual(types('ws2016', 0x50000), [0x301, 0x300]);
  assert.deepEqual(types('ws2019', V61), [0x1b01, 0xc300]);
});

test('supported list by NDIS version; listed or unknown OIDs without an answer', (t) => {
  const { guest } = createRig(t);
  guest.attach(V61);
  assert.equal(guest.query(0x00010101).data.length, 4 * (32 + 9 + 2));
  const unanswered = [0x10112, 0x10118, 0x1010103, 0x1021b, 0x10208, 0x20219, 0x2021a, OFFLOAD_PARAMETERS, 0x10204];
  for (const oid of [...unanswered, 0x20101, 0x20201, 0x12345678]) {
    assert.deepEqual(guest.query(oid), { status: NOT_SUPPORTED, data: words() }, oid.toString(16));
  }
  guest.close();
  guest.attach(V4); // says NDIS 6.1
  assert.equal(guest.query(0x00010101).data.length, 4 * (32 + 9));
  assert.equal(guest.query(0x00010203).status, NOT_SUPPORTED);
  guest.close();
  guest.open();
  guest.init(V4);
  guest.config(1514);
  guest.ndisVersion(4, 0);
  guest.receiveBuffer();
  guest.sendBuffer();
  assert.equal(guest.query(0x00010101).status, 0xc0010004);
});

test('sets that fail change nothing', (t) => {
  const { guest, host } = createRig(t);
  guest.attach(V61);
  assert.equal(guest.set(0x0001010e, hexBytes('01 00 00')), FAILURE);
  assert.equal(host.nics[0]!.filter, 0x0d);
  for (const oid of [0x00010107, 0x01010101, 0x01010103, 0x20101, 0xfc01020d]) {
    assert.equal(guest.set(oid, words(1)), NOT_SUPPORTED, oid.toString(16));
  }
  assert.equal(guest.set(0x00010118, words()), 0);
  assert.equal(guest.set(0x0101010a, concat(hexBytes('a8 01 1c 00'), words(1, 2, 14, 1, 2, 14))), 0);
  assert.equal(guest.set(0x0101010a, concat(hexBytes('a8 01 1c 00'), words(1, 2, 18, 1, 2, 14))), NOT_SUPPORTED);
  assert.equal(guest.set(0x0101010a, concat(hexBytes('a8 01 1c 00'), words(1, 1, 14, 1, 2, 14))), NOT_SUPPORTED);
  assert.equal(guest.set(0x0101010a, concat(hexBytes('a7 01 1c 00'), words(1, 2, 14, 1, 2, 14))), INVALID);
  assert.equal(guest.set(0x0101010a, hexBytes('a8 01 1c 00')), FAILURE);
});

test('offload capabilities byte for byte, by revision and profile', (t) => {
  const { guest } = createRig(t, { profile: 'ws2019' });
  guest.attach(V61, { capabilities: 0x88 });
  const full = concat(
    hexBytes('a7 03 9c 00'),
    words(2, 0x155, 2, 0x155, 2, 0x55, 2, 0x55),
    new Uint8Array(44),
    words(2, 62780, 2, 2, 62780, 2, 5, 0),
    new Uint8Array(32),
    hexBytes('01 01 00 00'),
    new Uint8Array(8),
  );
  assert.equal(full.length, 156);
  assert.deepEqual(guest.query(OFFLOAD_CAPS).data, full);
  const asked = guest.query(OFFLOAD_CAPS, concat(hexBytes('a7 01 70 00'), new Uint8Array(108))).data;
  assert.deepEqual(asked, concat(hexBytes('a7 01 70 00'), full.slice(4, 112)));
  guest.close();
  guest.attach(V61); // does not ask for coalesced receives
  assert.deepEqual([...guest.query(OFFLOAD_CAPS).data.slice(144, 146)], [0, 0]);

  const old = createRig(t, { profile: 'ws2012' }).guest;
  old.attach(V4);
  const tcpOnly = old.query(OFFLOAD_CAPS).data;
  assert.deepEqual([tcpOnly.length, tcpOnly[1], u16(tcpOnly, 2)], [144, 2, 144]);
  assert.deepEqual([...tcpOnly.slice(4, 36)], [...words(2, 0x15, 2, 0x15, 2, 0x15, 2, 0x15)]);
  assert.equal(word(tcpOnly, 20), 2); // LSO for IPv4

  const oldest = createRig(t, { profile: 'ws2008r2' }).guest;
  oldest.attach(0x30002);
  const least = oldest.query(OFFLOAD_CAPS).data;
  assert.deepEqual([least.length, least[1]], [112, 1]);
  assert.deepEqual([...least.slice(4, 36)], [...words(2, 0x15, 2, 0x15, 2, 0, 2, 0)]);
  assert.deepEqual([word(least, 20), word(least, 23)], [0, 0]);
});

/** NDIS_OFFLOAD_PARAMETERS, 28 bytes: IPv4, TCP4, UDP4, TCP6, UDP6, LSO1, LSO4, LSO6, RSC4, RSC6. */
function parameters(...v: number[]): Uint8Array {
  const value = (i: number) => v[i] ?? 0;
  const head = [0x80, 3, 28, 0, value(0), value(1), value(2), value(3), value(4), value(5), 0, value(6), value(7)];
  return Uint8Array.from([...head, 0, 0, 0, 0, 0, 0, 0, 0, 0, value(8), value(9), 0, 0, 0, 0]);
}

/** Sets parameters, expects success, and returns the names of the offloads in force; checks the indication. */
function offloads(guest: RawGuest, data: Uint8Array, inForce: () => readonly string[]): readonly string[] {
  assert.equal(guest.set(OFFLOAD_PARAMETERS, data), 0);
  const indication = guest.control()!;
  assert.deepEqual([word(indication, 0), word(indication, 2), word(indication, 4)], [7, 0x40020006, 12]);
  assert.deepEqual(indication.slice(20), guest.query(OFFLOAD_CONFIG).data);
  return inForce();
}

test('offload parameters: keep, off, TX, RX, both; masked to what the host can; then the indication', (t) => {
  const { guest, host } = createRig(t);
  guest.attach(V61, { capabilities: 0x88 });
  const names = () => host.nics[0]!.state().offloads;
  assert.deepEqual(names(), ['VLAN']);
  assert.deepEqual(offloads(guest, parameters(2, 2, 2, 2, 2), names), [
    'IPV4_HEADER_TX',
    'TCP4_TX',
    'TCP6_TX',
    'UDP4_TX',
    'UDP6_TX',
    'VLAN',
  ]);
  assert.deepEqual(offloads(guest, parameters(1, 3, 0, 4, 0, 0, 2, 2, 2, 2), names), [
    'TCP6_TX',
    'UDP4_TX',
    'UDP6_TX',
    'LSO4',
    'LSO6',
    'VLAN',
    'TCP4_RX',
    'TCP6_RX',
    'RSC',
  ]);
  const before = names();
  for (const bad of [parameters(5), parameters(0, 0, 0, 0, 0, 0, 3), parameters(0, 0, 0, 0, 0, 0, 0, 0, 3)]) {
    assert.equal(guest.set(OFFLOAD_PARAMETERS, bad), INVALID);
  }
  assert.equal(guest.set(OFFLOAD_PARAMETERS, parameters(1, 1, 1, 1, 1, 2)), NOT_SUPPORTED);
  assert.equal(guest.set(OFFLOAD_PARAMETERS, hexBytes('80 03')), FAILURE);
  assert.equal(guest.set(OFFLOAD_PARAMETERS, parameters(1).slice(0, 27)), INVALID);
  assert.equal(guest.set(OFFLOAD_PARAMETERS, concat(hexBytes('80 00 1c 00'), new Uint8Array(24))), INVALID);
  assert.equal(guest.set(OFFLOAD_PARAMETERS, concat(hexBytes('81 03 1c 00'), new Uint8Array(24))), INVALID);
  assert.equal(guest.set(OFFLOAD_PARAMETERS, concat(hexBytes('80 01 13 00'), new Uint8Array(24))), INVALID);
  assert.equal(guest.take(), undefined, 'no indication after an error');
  assert.deepEqual(names(), before);
  assert.deepEqual(offloads(guest, parameters(1, 1, 1, 1, 1, 0, 1, 1, 1), names), ['VLAN']);
});

test('offload parameters as Linux sends them to old hosts: revision 3 in 22 bytes', (t) => {
  const { guest, host } = createRig(t, { profile: 'ws2012' });
  guest.attach(V4);
  const data = parameters(4, 4, 4, 4, 4, 0, 2, 2).slice(0, 22);
  data[2] = 22;
  const names = () => host.nics[0]!.state().offloads;
  assert.deepEqual(offloads(guest, data, names), ['TCP4_TX', 'TCP6_TX', 'LSO4', 'LSO6', 'VLAN', 'TCP4_RX', 'TCP6_RX']);
});

function parameter(name: string, type: number, value: Uint8Array): Uint8Array {
  const text = Uint8Array.from(Buffer.from(name, 'utf16le'));
  return concat(words(20, text.length, type, 20 + text.length, value.length), text, value);
}
const text = (value: string) => Uint8Array.from(Buffer.from(value, 'utf16le'));

test('configuration parameters', (t) => {
  const { guest, host } = createRig(t, { nics: [{}, {}] });
  guest.attach(V61);
  const names = () => host.nics[0]!.state().offloads;
  assert.equal(guest.set(0x1021b, parameter('*TCPChecksumOffloadIPv4', 2, text('3'))), 0);
  assert.deepEqual(names(), ['TCP4_TX', 'VLAN', 'TCP4_RX']);
  assert.equal(guest.set(0x1021b, parameter('*TCPChecksumOffloadIPv4', 2, text('1'))), 0);
  assert.equal(guest.set(0x1021b, parameter('*UDPChecksumOffloadIPv6', 2, text('2'))), 0);
  assert.equal(guest.set(0x1021b, parameter('*LsoV2IPv6', 2, text('1'))), 0);
  assert.deepEqual(names(), ['TCP4_TX', 'LSO6', 'VLAN', 'UDP6_RX']);
  assert.equal(guest.set(0x1021b, parameter('*SomethingElse', 2, text('7'))), 0);
  assert.equal(guest.set(0x1021b, parameter('*LsoV2IPv6', 0, words(0))), 0); // integers are only noted
  assert.equal(guest.set(0x1021b, parameter('*LsoV2IPv6', 2, text('/'))), INVALID);
  assert.equal(guest.set(0x1021b, parameter('*LsoV2IPv6', 2, text(''))), INVALID);
  assert.equal(guest.set(0x1021b, parameter('x'.repeat(128), 2, text('1'))), INVALID);
  assert.equal(guest.set(0x1021b, concat(words(20, 2, 2, 22, 200), text('a'))), FAILURE);
  assert.equal(guest.set(0x1021b, words(20, 0)), FAILURE);
  assert.deepEqual(names(), ['TCP4_TX', 'LSO6', 'VLAN', 'UDP6_RX']);

  assert.equal(guest.set(0x1021b, parameter('NetworkAddress', 2, text('02AbCd010203'))), 0);
  assert.equal(host.nics[0]!.state().mac, '02:ab:cd:01:02:03');
  assert.deepEqual(host.nics[0]!.macs, [hexBytes('02abcd010203')]);
  assert.deepEqual(guest.query(0x01010102).data, hexBytes('02abcd010203'));
  assert.deepEqual(guest.query(0x01010101).data, nicMac('test', 0));
  const taken = Buffer.from(nicMac('test', 1)).toString('hex');
  for (const bad of ['010203040506', '000000000000', '02', '02abcd01020304', 'xxabcd010203', taken]) {
    assert.equal(guest.set(0x1021b, parameter('NetworkAddress', 2, text(bad))), INVALID, bad);
  }
  assert.equal(host.nics[0]!.state().mac, '02:ab:cd:01:02:03');
  guest.close();
  assert.deepEqual(host.nics[0]!.macs, [nicMac('test', 0)]);
});

/** RSS parameters: flags, hash information, table bytes and offset, key bytes and offset, then both. */
function rss(flags: number, hash: number, table: readonly number[], keyBytes = 40): Uint8Array {
  const head = new Uint8Array(44);
  const view = new DataView(head.buffer);
  view.setUint16(4, flags, true);
  view.setUint32(8, hash, true);
  view.setUint16(12, table.length * 4, true);
  view.setUint32(16, 44, true);
  view.setUint16(20, keyBytes, true);
  view.setUint32(24, 44 + table.length * 4, true);
  return concat(head, words(...table), new Uint8Array(keyBytes));
}

test('receive-side scaling parameters', (t) => {
  const { guest } = createRig(t);
  guest.attach(V61);
  const cases: readonly [Uint8Array, number][] = [
    [rss(0, 0x301, [0]), 0],
    [rss(0, 0x301, new Array(128).fill(0)), 0],
    [rss(0, 0x301, new Array(130).fill(0)), 0],
    [rss(0x10, 0, [], 0), 0],
    [rss(0, 0x300, [], 0), 0],
    [rss(0, 0x301, []), INVALID],
    [rss(0, 0x301, [63]), 0],
    [rss(0, 0x301, [64]), INVALID],
    [rss(0, 0x301, [0], 39), INVALID],
    [rss(0, 0x301, [0]).slice(0, 60), FAILURE],
    [words(0), FAILURE],
  ];
  for (const [i, [data, status]] of cases.entries()) assert.equal(guest.set(0x10204, data), status, `case ${i}`);
});
