// Forms, refusals and exit codes. What is expected was printed by Debian's ethtool 6.1 for a device with the state of
// MemoryNetdev (its ioctls and netlink answers given by a preloaded library, since no kernel here has such a device).
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';
import { NetdevError } from '../../netdev/control.js';
import { MemoryNetdev } from '../../netdev/control-testing.js';
import { asRemote, type Outcome, runEthtool } from './ethtool-testing.js';
import { BAD_ARGUMENTS } from './types.js';
import { parseU32 } from './words.js';

let device: MemoryNetdev;
const run = (...words: string[]): Promise<Outcome> => runEthtool(asRemote(device), ...words);
const said = (out: string): Outcome => ({ out, err: '', code: 0 });
const failed = (code: number, err: string, out = ''): Outcome => ({ out, err, code });
const netlink = (code: number, ...lines: string[]): Outcome =>
  failed(code, lines.map((line) => `netlink error: ${line}\n`).join(''));
const silent = said('');
const bad = failed(1, BAD_ARGUMENTS);

beforeEach(() => {
  device = new MemoryNetdev();
});

describe('show', () => {
  test('-i', async () => {
    assert.deepEqual(
      await run('-i', 'hv0'),
      said(`driver: netvsc
version: 0.1.0
firmware-version: N/A
expansion-rom-version: 
bus-info: 22222222-2222-2222-2222-222222222222
supports-statistics: yes
supports-test: no
supports-eeprom-access: no
supports-register-dump: yes
supports-priv-flags: no
`),
    );
  });

  test('-l', async () => {
    assert.deepEqual(
      await run('-l', 'hv0'),
      said(`Channel parameters for hv0:
Pre-set maximums:
RX:		n/a
TX:		n/a
Other:		n/a
Combined:	8
Current hardware settings:
RX:		n/a
TX:		n/a
Other:		n/a
Combined:	4
`),
    );
  });

  test('-g', async () => {
    assert.deepEqual(
      await run('--show-ring', 'hv0'),
      said(`Ring parameters for hv0:
Pre-set maximums:
RX:		18811
RX Mini:	n/a
RX Jumbo:	n/a
TX:		2560
Current hardware settings:
RX:		9709
RX Mini:	n/a
RX Jumbo:	n/a
TX:		170
RX Buf Len:		n/a
CQE Size:		n/a
TX Push:	off
TCP data split:	n/a
`),
    );
  });

  test('-c', async () => {
    device.coalesce = { rxUsecs: 50, rxFrames: 64, txUsecs: 0, txFrames: 8 };
    assert.deepEqual(
      await run('-c', 'hv0'),
      said(`Coalesce parameters for hv0:
Adaptive RX: n/a  TX: n/a
stats-block-usecs: n/a
sample-interval: n/a
pkt-rate-low: n/a
pkt-rate-high: n/a

rx-usecs: 50
rx-frames: 64
rx-usecs-irq: n/a
rx-frames-irq: n/a

tx-usecs: 0
tx-frames: 8
tx-usecs-irq: n/a
tx-frames-irq: n/a

rx-usecs-low: n/a
rx-frame-low: n/a
tx-usecs-low: n/a
tx-frame-low: n/a

rx-usecs-high: n/a
rx-frame-high: n/a
tx-usecs-high: n/a
tx-frame-high: n/a

CQE mode RX: n/a  TX: n/a

`),
    );
  });

  test('-a of a device that has pause frames, and of ours', async () => {
    assert.deepEqual(await run('-a', 'hv0'), netlink(1, 'Operation not supported'));
    assert.deepEqual(await run('--json', '-a', 'hv0'), failed(1, 'netlink error: Operation not supported\n', '[ ]\n'));
    device.pause = () => ({ autonegotiate: false, rx: true, tx: false });
    assert.deepEqual(
      await run('-a', 'hv0'),
      said('Pause parameters for hv0:\nAutonegotiate:\toff\nRX:\t\ton\nTX:\t\toff\n\n'),
    );
  });

  test('-S, and a device without counters', async () => {
    assert.deepEqual(
      await run('-S', 'hv0'),
      said('NIC statistics:\n     tx_scattered: 0\n     tx_queue_0_packets: 12\n     rx_queue_0_bytes: 4096\n'),
    );
    device.counters = [];
    assert.deepEqual(await run('-S', 'hv0'), failed(94, 'no stats available\n'));
    assert.deepEqual(await run('-S', 'hv0', '--all-groups'), said('Standard stats for hv0:\n'));
  });

  test('-d: text, raw, and a device without a send table', async () => {
    const row = '00 00 00 00 01 00 00 00 02 00 00 00 03 00 00 00 ';
    assert.deepEqual(
      await run('-d', 'hv0'),
      said(
        `Offset\t\tValues\n------\t\t------\n0x0000:\t\t${row}\n0x0010:\t\t${row}\n0x0020:\t\t${row}\n0x0030:\t\t${row}\n`,
      ),
    );
    assert.deepEqual(await run('-d', 'hv0', 'raw', 'on'), said('\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0'.repeat(4)));
    device.registers = () => ({ sendTable: [] });
    assert.deepEqual(await run('-d', 'hv0'), failed(74, 'Cannot get register dump: Operation not supported\n'));
  });

  test('-x', async () => {
    const rows = Array.from(
      { length: 16 },
      (_, row) => `${`${row * 8}`.padStart(5)}:${' '.repeat(6)}0     1     2     3     0     1     2     3\n`,
    );
    assert.deepEqual(
      await run('-x', 'hv0'),
      said(`RX flow hash indirection table for hv0 with 4 RX ring(s):
${rows.join('')}RSS hash key:
6d:5a:56:da:25:5b:0e:c2:41:67:25:3d:43:a3:8f:b0:d0:ca:2b:cb:ae:7b:30:b4:77:cb:2d:a3:80:30:f2:0c:6a:42:b7:3b:be:ac:01:fa
RSS hash function:
    toeplitz: on
    xor: off
    crc32: off
`),
    );
    device.rssState = { ...device.rssState!, table: [0, 1, 2, 3, 0] };
    assert.match((await run('-x', 'hv0')).out, /ring\(s\):\n {4}0: {6}0 {5}1 {5}2 {5}3 {5}0\nRSS hash key:\n6d/);
    assert.match(
      (await run('-x', 'hv0', 'context', '1')).err,
      /^Cannot get RX flow hash indirection table size: Operation/,
    );
    device.rssState = undefined;
    const refused = await run('-x', 'hv0');
    assert.match(
      refused.err,
      /^Cannot get RX flow hash indirection table size: Operation not supported\nnetvsc: hv0: /,
    );
    assert.equal(refused.code, 1);
  });

  test('-n', async () => {
    assert.deepEqual(
      await run('-n', 'hv0'),
      failed(
        1,
        'rxclass: Cannot get RX class rule count: Operation not supported\nRX classification rule retrieval failed\n',
        '4 RX rings available\n',
      ),
    );
    const ip = 'IP SA\nIP DA\n';
    const ports = 'L4 bytes 0 & 1 [TCP/UDP src port]\nL4 bytes 2 & 3 [TCP/UDP dst port]\n';
    const head = (what: string) => `${what} over IPV4 flows use these fields for computing Hash flow key:\n`;
    assert.deepEqual(await run('-n', 'hv0', 'rx-flow-hash', 'tcp4'), said(`${head('TCP')}${ip}${ports}\n`));
    await device.setFlowHash('udp4', 'L3');
    assert.deepEqual(await run('-u', 'hv0', 'rx-flow-hash', 'udp4'), said(`${head('UDP')}${ip}\n`));
    assert.deepEqual(await run('-n', 'hv0', 'rx-flow-hash', 'ah4'), said(`${head('IPSEC AH/ESP')}\n`));
    // ethtool knows no such word.
    assert.deepEqual(await run('-n', 'hv0', 'rx-flow-hash', 'ip4'), bad);
    assert.deepEqual(await run('-n', 'hv0', 'rx-flow-hash'), bad);
    assert.deepEqual(await run('-n', 'hv0', 'rx-flow-hash', 'tcp4', 'x'), bad);
  });

  test('no option', async () => {
    const { out, code } = await run('hv0');
    assert.equal(code, 0);
    assert.match(out, /^Settings for hv0:\n\tSupported ports: \[ {2}\]\n/);
    assert.match(out, /\tSpeed: 10000Mb\/s\n\tDuplex: Full\n\tAuto-negotiation: off\n\tPort: Other\n/);
    assert.match(out, /\tLink detected: yes\n$/);
    device.linkInfo = { up: false, speedMbps: 0, fullDuplex: false, autonegotiated: true };
    assert.match((await run('hv0')).out, /\tSpeed: Unknown!\n\tDuplex: Half\n\tAuto-negotiation: on\n/);
  });

  test('-P, -T, -h, --version', async () => {
    assert.deepEqual(await run('-P', 'hv0'), said('Permanent address: 00:15:5d:00:00:01\n'));
    assert.match(
      (await run('-T', 'hv0')).out,
      /^Time stamping parameters for hv0:\nCapabilities:\n\tsoftware-transmit\n/,
    );
    assert.match((await run('--version')).out, /^ethtool version 6\.1 \(netvsc .*\)\n$/);
    const { out, code } = await run('-h');
    assert.equal(code, 0);
    assert.match(out, /--show-features/);
  });
});

describe('-L', () => {
  test('sets, and says nothing', async () => {
    assert.deepEqual(await run('-L', 'hv0', 'combined', '2'), silent);
    assert.deepEqual(device.calls, [['setChannels', 2]]);
  });

  test('what is so already is not asked for', async () => {
    assert.deepEqual(await run('-L', 'hv0', 'combined', '0x4', 'rx', '0'), silent);
    assert.deepEqual(await run('-L', 'hv0'), silent);
    assert.deepEqual(device.calls, []);
  });

  test('limits, with the place in the message', async () => {
    const exceeds = (offset: number) =>
      netlink(1, `requested channel count exceeds maximum (offset ${offset})`, 'Invalid argument');
    assert.deepEqual(await run('-L', 'hv0', 'combined', '9'), exceeds(32));
    assert.deepEqual(await run('-L', 'hv0', 'combined', '4', 'rx', '2'), exceeds(40));
    assert.deepEqual(await run('-L', 'hvlong12', 'rx', '2'), exceeds(40));
    assert.deepEqual(
      await run('-L', 'hv0', 'combined', '0'),
      netlink(
        1,
        'requested channel counts would result in no RX or TX channel being configured (offset 32)',
        'Invalid argument',
      ),
    );
    assert.deepEqual(device.calls, []);
  });

  test("the interface's refusal: its reason where the kernel's would stand", async () => {
    device.refusal = new NetdevError('EINVAL', 'hv0', 'channels: the host speaks NVSP 2, expected 5');
    assert.deepEqual(
      await run('-L', 'hv0', 'combined', '2'),
      netlink(1, 'hv0: channels: the host speaks NVSP 2, expected 5', 'Invalid argument'),
    );
    for (const [code, text] of [
      ['EBUSY', 'Device or resource busy'],
      ['ENOMEM', 'Cannot allocate memory'],
      ['EIO', 'Input/output error'],
      ['ETIMEDOUT', 'Connection timed out'],
      ['EPERM', 'Operation not permitted'],
      ['ERANGE', 'Numerical result out of range'],
    ] as const) {
      device.refusal = new NetdevError(code, 'hv0', 'because');
      assert.deepEqual(await run('-L', 'hv0', 'combined', '2'), netlink(1, 'hv0: because', text));
    }
  });

  test('words that make no sense', async () => {
    const refused = (problem: string) => failed(1, `ethtool (-L): ${problem}\n`);
    assert.deepEqual(await run('-L', 'hv0', 'foo', '3'), refused("unknown parameter 'foo'"));
    assert.deepEqual(await run('-L', 'hv0', 'toString', '3'), refused("unknown parameter 'toString'"));
    assert.deepEqual(await run('-L', 'hv0', 'combined'), refused("no value for parameter 'combined'"));
    assert.deepEqual(await run('-L', 'hv0', 'rx', '1', 'rx'), refused("duplicate parameter 'rx'"));
    for (const value of ['-1', 'abc', '3x', '1.5', '', '4294967296', '0x'])
      assert.deepEqual(
        await run('-L', 'hv0', 'combined', value),
        refused(`invalid value '${value}' for parameter 'combined'`),
      );
  });
});

describe('-G', () => {
  test('sets what differs; too small values are left to the driver, too large ones refused', async () => {
    assert.deepEqual(await run('-G', 'hv0', 'rx', '5000', 'tx', '170'), silent);
    assert.deepEqual(await run('-G', 'hv0', 'rx', '1'), silent);
    assert.deepEqual(await run('-G', 'hv0'), silent);
    assert.deepEqual(device.calls, [
      ['setRings', { rx: 5000 }],
      ['setRings', { rx: 1 }],
    ]);
    assert.equal(device.rings().rx, 10);
    assert.deepEqual(
      await run('-G', 'hv0', 'rx', '10', 'tx', '2561'),
      netlink(81, 'requested ring size exceeds maximum (offset 40)', 'Invalid argument'),
    );
    assert.deepEqual(
      await run('-G', 'hv0', 'rx-jumbo', '1'),
      netlink(81, 'requested ring size exceeds maximum (offset 32)', 'Invalid argument'),
    );
  });
});

describe('-C', () => {
  test('sets what differs', async () => {
    assert.deepEqual(await run('-C', 'hv0', 'rx-usecs', '50', 'tx-frames', '0'), silent);
    assert.deepEqual(device.calls, [['setCoalescing', { rxUsecs: 50 }]]);
  });
});

describe('-X', () => {
  const table = () => device.rss().table;
  const KEY = Array.from({ length: 40 }, (_, index) => (index * 7) & 255);
  const hex = (bytes: readonly number[]) => bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':');

  test('equal, with start; default', async () => {
    assert.deepEqual(await run('-X', 'hv0', 'equal', '2'), silent);
    assert.deepEqual(
      table(),
      Array.from({ length: 128 }, (_, index) => index % 2),
    );
    assert.deepEqual(await run('-X', 'hv0', 'equal', '3', 'start', '1'), silent);
    assert.deepEqual(
      table(),
      Array.from({ length: 128 }, (_, index) => 1 + (index % 3)),
    );
    assert.deepEqual(await run('-X', 'hv0', 'default'), silent);
    assert.deepEqual(
      table(),
      Array.from({ length: 128 }, (_, index) => index % 4),
    );
    assert.deepEqual(await run('-X', 'hv0', 'equal', '2', 'equal', '4'), silent);
    assert.deepEqual(
      table(),
      Array.from({ length: 128 }, (_, index) => index % 4),
    );
  });

  test('weights are spread as ethtool spreads them', async () => {
    const runs = () => {
      const lengths: [number, number][] = [];
      for (const entry of table()) {
        const last = lengths.at(-1);
        if (last?.[0] === entry) last[1]++;
        else lengths.push([entry, 1]);
      }
      return lengths;
    };
    assert.deepEqual(await run('-X', 'hv0', 'weight', '1', '2', '3'), silent);
    assert.deepEqual(runs(), [
      [0, 21],
      [1, 43],
      [2, 64],
    ]);
    assert.deepEqual(await run('-X', 'hv0', 'weight', '0', '1', '5', '1'), silent);
    assert.deepEqual(runs(), [
      [1, 18],
      [2, 91],
      [3, 19],
    ]);
    device.channelCounts = { maxCombined: 8, combined: 8 };
    device.rssState = { ...device.rssState!, rings: 8 };
    assert.deepEqual(await run('-X', 'hv0', 'weight', '10', '0', '3', 'start', '2'), silent);
    assert.deepEqual(runs(), [
      [2, 98],
      [4, 30],
    ]);
  });

  test('a key, alone and with a table', async () => {
    assert.deepEqual(await run('-X', 'hv0', 'hkey', hex(KEY)), silent);
    assert.deepEqual(device.calls, [['setRss', { key: KEY }]]);
    assert.deepEqual(await run('-X', 'hv0', 'hkey', hex(KEY).toUpperCase(), 'equal', '1', 'hfunc', 'toeplitz'), silent);
    assert.deepEqual(device.calls[1], ['setRss', { key: KEY, table: Array.from({ length: 128 }, () => 0) }]);
  });

  test('keys that are none', async () => {
    assert.deepEqual(await run('-X', 'hv0', 'hkey', '01:02'), failed(2, 'Key is too short for device (2 < 40)\n'));
    const long = hex([...KEY, 1]);
    assert.deepEqual(await run('-X', 'hv0', 'hkey', long), failed(2, 'Key is too long for device (41 > 40)\n'));
    for (const key of ['0102', 'zz', '1:2', '', `${hex(KEY)}:`])
      assert.deepEqual(await run('-X', 'hv0', 'hkey', key), failed(2, 'Invalid RSS hash key format\n'), key);
    device.rssState = { ...device.rssState!, key: [] };
    const none = 'Cannot set RX flow hash configuration:\n Hash key setting not supported\n';
    assert.deepEqual(await run('-X', 'hv0', 'hkey', '01:02'), failed(1, none));
    assert.deepEqual(device.calls, []);
  });

  test('tables that are none', async () => {
    const only = (text: string) => failed(1, `${text}\n`);
    assert.deepEqual(await run('-X', 'hv0', 'weight', '0', '0'), only('At least one weight must be non-zero'));
    assert.deepEqual(
      await run('-X', 'hv0', 'weight', '300', '1'),
      only('Total weight exceeds the size of the indirection table'),
    );
    const beyond = await run('-X', 'hv0', 'equal', '5');
    assert.equal(beyond.code, 1);
    assert.match(beyond.err, /^Cannot set RX flow hash configuration: Invalid argument\nnetvsc: hv0: .* got 4\n$/);
    assert.deepEqual(device.calls, []);
  });

  test('contradictions, and words that make no sense', async () => {
    const only = (text: string) => failed(1, `${text}\n`);
    const exclusive = (a: string, b: string) => only(`${a} and ${b} options are mutually exclusive`);
    assert.deepEqual(await run('-X', 'hv0', 'equal', '2', 'weight', '1'), exclusive('Equal', 'weight'));
    assert.deepEqual(await run('-X', 'hv0', 'equal', '2', 'default'), exclusive('Equal', 'default'));
    assert.deepEqual(await run('-X', 'hv0', 'start', '2'), only('Start must be used with equal or weight options'));
    assert.deepEqual(await run('-X', 'hv0', 'delete'), only('Delete option requires context option'));
    assert.deepEqual(await run('-X', 'hv0', 'hfunc', 'foo'), only('Unknown hash function: foo'));
    const refused = only('Cannot set RX flow hash configuration: Operation not supported');
    assert.deepEqual(await run('-X', 'hv0', 'hfunc', 'xor'), refused);
    assert.deepEqual(await run('-X', 'hv0', 'context', 'new', 'equal', '2'), refused);
    const wrong = [[], ['equal'], ['equal', '0'], ['equal', '-1'], ['weight'], ['weight', '1', 'x'], ['hkey'], ['foo']];
    for (const words of wrong) assert.deepEqual(await run('-X', 'hv0', ...words), bad, words.join(' '));
  });

  test("the host's refusal", async () => {
    device.refusal = new NetdevError('EIO', 'hv0', 'the host answered NDIS status 0xc0000001');
    assert.deepEqual(
      await run('-X', 'hv0', 'equal', '2'),
      failed(
        1,
        'Cannot set RX flow hash configuration: Input/output error\nnetvsc: hv0: the host answered NDIS status 0xc0000001\n',
      ),
    );
  });
});

describe('-N', () => {
  test('sd and sdfn, in any order', async () => {
    assert.deepEqual(await run('-N', 'hv0', 'rx-flow-hash', 'udp4', 'sd'), silent);
    assert.deepEqual(await run('-N', 'hv0', 'rx-flow-hash', 'tcp6', 'nfds'), silent);
    assert.deepEqual(device.calls, [
      ['setFlowHash', { flow: 'udp4', level: 'L3' }],
      ['setFlowHash', { flow: 'tcp6', level: 'L4' }],
    ]);
  });

  test('other fields and flows are refused, with the exit code of ethtool 6.1, which is 0', async () => {
    const refused = failed(0, 'Cannot change RX network flow hashing options: Operation not supported\n');
    for (const fields of ['sdf', 'fn', 's', '', 'sdfnv', 'r'])
      assert.deepEqual(await run('-N', 'hv0', 'rx-flow-hash', 'tcp4', fields), refused, fields);
    for (const flow of ['ah4', 'esp6', 'sctp4', 'ether'])
      assert.deepEqual(await run('-N', 'hv0', 'rx-flow-hash', flow, 'sd'), refused, flow);
    assert.deepEqual(device.calls, []);
    assert.deepEqual(await run('-N', 'hv0', 'rx-flow-hash', 'tcp4', 'sdx'), bad);
    assert.deepEqual(await run('-N', 'hv0', 'rx-flow-hash', 'ip4', 'sd'), bad);
    assert.deepEqual(await run('-N', 'hv0'), bad);
  });
});

describe('-k and -K', () => {
  test('what is not the device’s is fixed off', async () => {
    const { out } = await run('-k', 'hv0');
    assert.match(out, /^Features for hv0:\nrx-checksumming: on\ntx-checksumming: on\n\ttx-checksum-ipv4: on\n/);
    assert.match(out, /\n\ttx-checksum-ip-generic: off \[fixed\]\n/);
    assert.match(out, /\nlarge-receive-offload: on\n/);
    assert.match(out, /\nhighdma: on \[fixed\]\n/);
    assert.match(out, /\nhsr-dup-offload: off \[fixed\]\n$/);
  });

  test('a wish that the host does not grant', async () => {
    device.featureTable.set('rx-lro', { ...device.featureTable.get('rx-lro')!, reason: 'the host has no RSC' });
    assert.match((await run('-k', 'hv0')).out, /\nlarge-receive-offload: off \[requested on\]\n/);
    assert.deepEqual(
      await run('-K', 'hv0', 'lro', 'on'),
      failed(
        1,
        'netvsc: rx-lro: the host has no RSC\nCould not change any device features\n',
        'Actual changes:\nrx-lro: off [requested on]\n',
      ),
    );
  });

  test('what depends on it changes too, and is said', async () => {
    assert.deepEqual(
      await run('-K', 'hv0', 'rx', 'off'),
      said('Actual changes:\nrx-lro: off [not requested]\nrx-checksum: off\n'),
    );
    assert.deepEqual(device.calls, [['setFeatures', { 'rx-checksum': false }]]);
    assert.deepEqual(await run('-K', 'hv0', 'gro', 'off', 'rx-gro', 'on', 'rxhash', 'off'), silent);
    assert.deepEqual(device.calls[1], ['setFeatures', { 'rx-gro': true, 'rx-hashing': false }]);
  });

  test('names with several meanings ask for what the device does not have, too', async () => {
    assert.deepEqual(await run('-K', 'hv0', 'tso', 'off'), silent);
    assert.deepEqual(
      await run('-K', 'hv0', 'tso', 'on'),
      said(`Actual changes:
tx-tcp-segmentation: on
tx-tcp-ecn-segmentation: off [requested on]
tx-tcp-mangleid-segmentation: off [requested on]
tx-tcp6-segmentation: on
tx-tcp-accecn-segmentation: off [requested on]
`),
    );
  });

  test('the interface refuses', async () => {
    device.refusal = new NetdevError('EIO', 'hv0', 'the host went away');
    assert.deepEqual(
      await run('-K', 'hv0', 'gro', 'off'),
      netlink(92, 'hv0: the host went away', 'Input/output error'),
    );
  });
});

test('flags before the command; --json where there is a JSON form', async () => {
  assert.deepEqual(JSON.parse((await run('--json', '-l', 'hv0')).out), [
    { ifname: 'hv0', 'combined-max': 8, combined: 4 },
  ]);
  assert.equal(JSON.parse((await run('--json', '-g', 'hv0')).out)[0]['rx-max'], 18_811);
  assert.equal(JSON.parse((await run('--json', '-c', 'hv0')).out)[0]['rx-usecs'], 0);
  assert.equal(JSON.parse((await run('--json', '-k', 'hv0')).out)[0]['large-receive-offload'].active, true);
  for (const option of ['-i', '-S', '-x', '-n', '-T', '-P', '-L', '-K', '-h'])
    assert.deepEqual(await run('--json', option, 'hv0'), bad, option);
  assert.deepEqual(await run('--json', 'hv0'), bad);
  assert.equal((await run('--debug', '3', '-I', '-l', 'hv0')).code, 0);
  assert.deepEqual(await run('--debug', 'x', '-l', 'hv0'), bad);
});

test('numbers as strtoul takes them', () => {
  const cases: [string, number | undefined][] = [
    ['0', 0],
    ['08', 8],
    [' +3', 3],
    ['0X1f', 31],
    ['4294967295', 0xffff_ffff],
    ['4294967296', undefined],
    ['0x', undefined],
    ['-0', undefined],
    ['3 ', undefined],
    ['', undefined],
  ];
  for (const [word, value] of cases) assert.equal(parseU32(word), value, JSON.stringify(word));
});

test('no words crash it, and every failure says something', async () => {
  const word = fc.oneof(
    fc.constantFrom(
      ...[
        '-k',
        '-K',
        '-l',
        '-L',
        '-g',
        '-G',
        '-x',
        '-X',
        '-n',
        '-N',
        '-S',
        '-c',
        '-C',
        '-a',
        '-A',
        '-i',
        '-d',
        '-s',
        '-t',
      ],
      ...[
        'hv0',
        'on',
        'off',
        'rx',
        'tx',
        'combined',
        'equal',
        'weight',
        'hkey',
        'start',
        'rx-flow-hash',
        'tcp4',
        'sd',
        'lro',
      ],
      ...[
        '0',
        '1',
        '4294967295',
        '01:02',
        '--json',
        '--debug',
        'context',
        'default',
        'raw',
        'flow-type',
        'delete',
        '--',
      ],
    ),
    fc.string({ maxLength: 8 }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(word, { maxLength: 7 }), async (words) => {
      const { out, err, code } = await run(...words);
      assert.ok(Number.isInteger(code) && code >= 0 && code <= 255);
      if (code !== 0) assert.notEqual(err + out, '');
    }),
    { numRuns: 3000 },
  );
});
