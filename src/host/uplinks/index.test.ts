import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIpv4, parseIpv6 } from '../../wire/address-text.js';
import { macBytes, testMemory } from '../frames-testing.js';
import { VirtualSwitch } from '../vswitch.js';
import { openUplink, parseUplink, UplinkError } from './index.js';

test('what an uplink may be called', () => {
  assert.deepEqual(parseUplink('tap:vs0'), { kind: 'tap', interfaceName: 'vs0' });
  assert.deepEqual(parseUplink('pcap:/tmp/a:b.pcapng'), { kind: 'pcap', write: '/tmp/a:b.pcapng', paced: false });
  assert.deepEqual(parseUplink('pcap-write:x'), { kind: 'pcap', write: 'x', paced: false });
  assert.deepEqual(parseUplink('pcap-read:x'), { kind: 'pcap', read: 'x', paced: false });
  assert.deepEqual(parseUplink('pcap-read:a,b,paced'), { kind: 'pcap', read: 'a,b', paced: true });
  assert.deepEqual(parseUplink('echo'), { kind: 'echo', addresses: [] });
  assert.deepEqual(parseUplink('echo:10.0.0.2,fd00::2,02:00:00:00:00:07'), {
    kind: 'echo',
    addresses: [parseIpv4('10.0.0.2'), parseIpv6('fd00::2')],
    mac: macBytes('02:00:00:00:00:07'),
  });
});

const refused: [string, RegExp][] = [
  ['', /expected one of\n {2}tap:NAME/],
  ['eth0', /uplink "eth0": expected one of/],
  ['tap', /interface name of 1 to 15/],
  ['tap:', /interface name/],
  ['tap:an-interface-name', /interface name/],
  ['tap:a/b', /interface name/],
  ['tap:..', /interface name/],
  ['pcap:', /expected pcap:FILE/],
  ['pcap-read:,paced', /expected pcap-read:FILE/],
  ['echo:10.0.0', /IPv4, IPv6 or MAC addresses, got "10.0.0"/],
  ['echo:01:00:00:00:00:07', /group address/],
];
for (const [text, message] of refused) {
  test(`not an uplink: ${JSON.stringify(text)}`, () => {
    assert.throws(
      () => parseUplink(text),
      (error) => error instanceof UplinkError && message.test(error.message),
    );
  });
}

test('an echo uplink opens by its text', () => {
  const { arena, datapath } = testMemory();
  const sink = new VirtualSwitch({ arena, datapath });
  const uplink = openUplink(parseUplink('echo:02:00:00:00:00:07'), {
    arena,
    datapath,
    sink,
    number: sink.freeNumber(),
  });
  sink.addPort(uplink);
  assert.deepEqual([uplink.kind, uplink.number, uplink.macs], ['echo', 1, [macBytes('02:00:00:00:00:07')]]);
  uplink.close();
});
