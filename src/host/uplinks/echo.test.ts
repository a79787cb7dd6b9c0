import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PACKET_FLAG } from '../../memory/layout.js';
import { put16, referencePseudo, referenceSum } from '../../offload/offload-testing.js';
import { formatIpv4, formatIpv6, formatMac, parseIpv4, parseIpv6 } from '../../wire/address-text.js';
import { type FrameSpec, layFrames, macBytes, RecordingPort, testMemory } from '../frames-testing.js';
import { VirtualSwitch } from '../vswitch.js';
import { EchoUplink } from './echo.js';

const GUEST = '00:15:5d:00:00:0a';
const ECHO = '02:00:00:ec:00:02';
const BROADCAST = 'ff:ff:ff:ff:ff:ff';
const hex = (text: string) => Uint8Array.from(Buffer.from(text.replace(/\s/g, ''), 'hex'));
const join = (...parts: Uint8Array[]) => Uint8Array.from(Buffer.concat(parts));
const payload = (bytes: number) => Uint8Array.from({ length: bytes }, (_, i) => i * 31);
const get16 = (b: Uint8Array, at: number) => (b[at]! << 8) | b[at + 1]!;

/** A guest's port 1 and the echo uplink as port 2. */
function fixture(addresses: string[] = []) {
  const { arena, datapath } = testMemory(16 << 20);
  const vswitch = new VirtualSwitch({ arena, datapath });
  const guest = new RecordingPort(arena, 1, 'nic', 0xf);
  guest.macs = [macBytes(GUEST)];
  const echo = new EchoUplink({
    arena,
    datapath,
    sink: vswitch,
    number: 2,
    addresses: addresses.map((a) => parseIpv4(a) ?? parseIpv6(a)!),
  });
  vswitch.addPort(guest);
  vswitch.addPort(echo);
  const ask = (...frames: (Uint8Array | FrameSpec)[]) => {
    const specs = frames.map((f) => (f instanceof Uint8Array ? { source: 1, bytes: f } : f));
    const table = layFrames(arena, specs);
    vswitch.forward(table, specs.length);
    arena.release(table);
    echo.poll();
    return guest.take();
  };
  return { arena, echo, ask };
}

const ethernet = (to: string, type: number) => join(macBytes(to), macBytes(GUEST), Uint8Array.of(type >>> 8, type));

function arp(sender: string, target: string, to = BROADCAST): Uint8Array {
  return join(
    ethernet(to, 0x0806),
    hex('0001 0800 06 04 0001'),
    macBytes(GUEST),
    parseIpv4(sender)!,
    new Uint8Array(6),
    parseIpv4(target)!,
    new Uint8Array(18),
  );
}

function ip4(protocol: number, body: Uint8Array, target: string, change: { to?: string; fragment?: number } = {}) {
  const header = join(hex('4500 0000 1234 0000 01 00 0000'), parseIpv4('10.0.0.1')!, parseIpv4(target)!);
  put16(header, 2, 20 + body.length);
  put16(header, 6, change.fragment ?? 0);
  header[9] = protocol;
  put16(header, 10, ~referenceSum(header, 0, 20));
  return join(ethernet(change.to ?? ECHO, 0x0800), header, body);
}

function ping4(target: string, bytes = 56, change = {}): Uint8Array {
  const body = join(hex('0800 0000 0042 0007'), payload(bytes));
  put16(body, 2, ~referenceSum(body, 0, body.length));
  return ip4(1, body, target, change);
}

function ip6(next: number, body: Uint8Array, source: string, target: string, to = ECHO, checksumAt = 2): Uint8Array {
  const header = join(hex('60000000 0000 00 ff'), parseIpv6(source)!, parseIpv6(target)!);
  put16(header, 4, body.length);
  header[6] = next;
  const packet = join(ethernet(to, 0x86dd), header, body);
  const seed = referencePseudo(packet, 14, 6, next, body.length);
  put16(packet, 54 + checksumAt, ~referenceSum(packet, 54, packet.length, seed));
  return packet;
}

const solicit = (source: string, target: string, to = '33:33:ff:00:00:02') =>
  ip6(
    58,
    join(hex('8700 0000 00000000'), parseIpv6(target)!, hex('0101'), macBytes(GUEST)),
    source,
    'ff02::1:ff00:2',
    to,
  );

function checkEthernet(bytes: Uint8Array, to = GUEST): void {
  assert.deepEqual([formatMac(bytes, 0), formatMac(bytes, 6)], [to, ECHO]);
}

/** Sum of header, pseudo header and message of an answer: 0xffff when it is right. */
const messageSum = (b: Uint8Array, family: 4 | 6, protocol: number, pseudo: boolean) => {
  const at = family === 4 ? 34 : 54;
  return referenceSum(b, at, b.length, pseudo ? referencePseudo(b, 14, family, protocol, b.length - at) : 0);
};

describe('ARP', () => {
  test('is answered with its own MAC address', () => {
    const [reply] = fixture().ask(arp('10.0.0.1', '10.0.0.2'));
    const b = reply!.bytes;
    checkEthernet(b);
    assert.equal(get16(b, 20), 2);
    assert.deepEqual(
      [formatMac(b, 22), formatIpv4(b, 28), formatMac(b, 32), formatIpv4(b, 38)],
      [ECHO, '10.0.0.2', GUEST, '10.0.0.1'],
    );
  });
  const cases: [string, string[], Uint8Array, number][] = [
    ['an address that it has', ['10.0.0.2'], arp('10.0.0.1', '10.0.0.2'), 1],
    ['an address that it has not', ['10.0.0.2'], arp('10.0.0.1', '10.0.0.3'), 0],
    ['a probe for any address', [], arp('0.0.0.0', '10.0.0.2'), 0],
    ['a probe for an address that it has', ['10.0.0.2'], arp('0.0.0.0', '10.0.0.2'), 1],
    ['an announcement', [], arp('10.0.0.1', '10.0.0.1'), 0],
    ['cut off', [], arp('10.0.0.1', '10.0.0.2').subarray(0, 41), 0],
  ];
  for (const [name, addresses, question, answers] of cases) {
    test(name, () => assert.equal(fixture(addresses).ask(question).length, answers));
  }
});

describe('ICMP echo', () => {
  for (const bytes of [0, 1, 56, 1472]) {
    test(`${bytes} bytes come back`, () => {
      const question = ping4('10.0.0.2', bytes);
      const [reply] = fixture().ask(question);
      const b = reply!.bytes;
      checkEthernet(b);
      assert.deepEqual([formatIpv4(b, 26), formatIpv4(b, 30), b[22], b[34], b[35]], ['10.0.0.2', '10.0.0.1', 64, 0, 0]);
      assert.equal(referenceSum(b, 14, 34), 0xffff);
      assert.equal(messageSum(b, 4, 1, false), 0xffff);
      assert.deepEqual(b.subarray(38), question.subarray(38));
    });
  }
  test('fragments come back as fragments of one right reply', () => {
    const whole = ping4('10.0.0.2', 2000);
    const first = ip4(1, whole.slice(34, 34 + 1480), '10.0.0.2', { fragment: 0x2000 });
    const second = ip4(1, whole.slice(34 + 1480), '10.0.0.2', { fragment: 1480 / 8 });
    const replies = fixture().ask(first, second);
    assert.deepEqual(
      replies.map((r) => get16(r.bytes, 20)),
      [0x2000, 185],
    );
    const body = join(...replies.map((r) => r.bytes.subarray(34)));
    assert.equal(body[0], 0);
    assert.equal(referenceSum(body, 0, body.length), 0xffff);
    assert.deepEqual(body.subarray(4), whole.subarray(38));
  });
  test('wrong checksums are counted, not answered', () => {
    const f = fixture();
    const message = ping4('10.0.0.2');
    message[60]! ^= 1;
    const header = ping4('10.0.0.2');
    header[24]! ^= 1;
    assert.equal(f.ask(message, header).length, 0);
    assert.equal(f.echo.stats().badChecksum, 2);
  });
  const silent: [string, Uint8Array][] = [
    ['to a broadcast address', ping4('255.255.255.255', 8, { to: BROADCAST })],
    ['to a multicast address', ping4('224.0.0.1', 8, { to: ECHO })],
    ['to another station', ping4('10.0.0.2', 8, { to: '02:00:00:00:00:99' })],
    ['longer than the frame', ping4('10.0.0.2').subarray(0, 90)],
    ['another protocol', ip4(89, payload(40), '10.0.0.2')],
  ];
  for (const [name, question] of silent) {
    test(`no answer: ${name}`, () => {
      const f = fixture();
      assert.equal(f.ask(question).length, 0);
      assert.equal(f.echo.stats().ignored, 1);
    });
  }
  test('the tag of the question is the tag of the answer', () => {
    const [reply] = fixture().ask({ source: 1, bytes: ping4('10.0.0.2'), tci: 0x6064 });
    assert.equal(reply!.tci, 0x6064);
  });
});

describe('IPv6', () => {
  test('neighbour solicitation is answered with an advertisement', () => {
    const [reply] = fixture().ask(solicit('fe80::1', 'fe80::2'));
    const b = reply!.bytes;
    checkEthernet(b);
    assert.deepEqual([formatIpv6(b, 22), formatIpv6(b, 38), b[21]], ['fe80::2', 'fe80::1', 255]);
    assert.deepEqual(
      [b.length, b[54], b[58], formatIpv6(b, 62), b[78], b[79], formatMac(b, 80)],
      [86, 136, 0x60, 'fe80::2', 2, 1, ECHO],
    );
    assert.equal(messageSum(b, 6, 58, true), 0xffff);
  });
  test('a probe for an address that it has is answered to all nodes', () => {
    const f = fixture(['fd00::2']);
    const [reply] = f.ask(solicit('::', 'fd00::2'));
    const b = reply!.bytes;
    checkEthernet(b, '33:33:00:00:00:01');
    assert.deepEqual([formatIpv6(b, 38), b[58]], ['ff02::1', 0x20]);
    assert.equal(messageSum(b, 6, 58, true), 0xffff);
    assert.equal(f.ask(solicit('fd00::1', 'fd00::3')).length, 0);
  });
  test('a probe for any address finds none', () => {
    assert.equal(fixture().ask(solicit('::', 'fd00::2')).length, 0);
  });
  test('a solicitation from beyond a router, or with a wrong sum, is not answered', () => {
    const f = fixture();
    const far = solicit('fe80::1', 'fe80::2');
    far[21] = 254;
    const bad = solicit('fe80::1', 'fe80::2');
    bad[70]! ^= 1;
    assert.equal(f.ask(far, bad).length, 0);
    assert.equal(f.echo.stats().badChecksum, 1);
  });
  test('echo comes back', () => {
    const question = ip6(58, join(hex('8000 0000 0001 0002'), payload(101)), 'fd00::1', 'fd00::2');
    const [reply] = fixture().ask(question);
    const b = reply!.bytes;
    checkEthernet(b);
    assert.deepEqual([formatIpv6(b, 22), formatIpv6(b, 38), b[21], b[54]], ['fd00::2', 'fd00::1', 64, 129]);
    assert.equal(messageSum(b, 6, 58, true), 0xffff);
    assert.deepEqual(b.subarray(58), question.subarray(58));
  });
});

test('a checksum whose change carries twice stays right', () => {
  const body = join(hex('8000 0000 0000 0002'), payload(8));
  for (let id = 0, found = false; !found; id++) {
    put16(body, 4, id);
    const question = ip6(58, body, 'fd00::1', 'fd00::2');
    found = get16(question, 56) === 0x00ff;
    if (found) assert.equal(messageSum(fixture().ask(question)[0]!.bytes, 6, 58, true), 0xffff);
  }
});

describe('UDP echo', () => {
  const datagram = (from: number, to: number, bytes: number) => {
    const body = join(new Uint8Array(8), payload(bytes));
    put16(body, 0, from);
    put16(body, 2, to);
    put16(body, 4, body.length);
    return body;
  };
  test('port 7 sends it back, IPv6', () => {
    const question = ip6(17, datagram(5000, 7, 333), 'fd00::1', 'fd00::2', ECHO, 6);
    const [reply] = fixture().ask(question);
    const b = reply!.bytes;
    assert.deepEqual([get16(b, 54), get16(b, 56)], [7, 5000]);
    assert.equal(messageSum(b, 6, 17, true), 0xffff);
    assert.deepEqual(b.subarray(62), question.subarray(62));
  });
  test('a checksum left to the NIC is filled in first', () => {
    const bytes = ip4(17, datagram(5000, 7, 20), '10.0.0.2');
    put16(bytes, 40, 0x1111);
    const f = fixture();
    const flags = PACKET_FLAG.IPV4 | PACKET_FLAG.UDP | PACKET_FLAG.TX_UDP_CHECKSUM;
    const [reply] = f.ask({ source: 1, bytes, flags, l4Offset: 34 });
    assert.equal(messageSum(reply!.bytes, 4, 17, true), 0xffff);
    assert.equal(f.ask(bytes).length, 0);
    assert.equal(f.echo.stats().badChecksum, 1);
  });
  test('other ports, and echo to echo, are silent', () => {
    const ask = (from: number, to: number) =>
      fixture().ask(ip6(17, datagram(from, to, 9), 'fd00::1', 'fd00::2', ECHO, 6));
    assert.deepEqual([ask(5000, 8).length, ask(7, 7).length], [0, 0]);
  });
});

test('answers wait for the poll, are bounded, and dropped ones are counted', () => {
  const f = fixture();
  assert.equal(f.echo.arm(), true);
  const replies = f.ask(...Array.from({ length: 600 }, () => ping4('10.0.0.2')));
  assert.deepEqual([replies.length, f.echo.stats().dropped], [512, 88]);
  assert.equal(f.echo.poll(), 0);
  const regions = f.arena.regions().length;
  f.echo.close();
  f.echo.close();
  assert.equal(f.arena.regions().length, regions - 2);
});
