// Commands that change something: refusals and exit codes. What is expected was printed by Debian's ethtool 6.1 for a device with the state of
// MemoryNetdev (its ioctls and netlink answers given by a preloaded library, since no kernel here has such a device).
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { NetdevError } from '../../netdev/control.js';
import { MemoryNetdev } from '../../netdev/control-testing.js';
import { asRemote, bad, failed, netlink, type Outcome, runEthtool, said, silent } from './ethtool-testing.js';

let device: MemoryNetdev;
const run = (...words: string[]): Promise<Outcome> => runEthtool(asRemote(device), ...words);

beforeEach(() => {
  device = new MemoryNetdev();
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
      await run('-K', 'hv0', 'tx-checksum-ipv4', 'off'),
      said('Actual changes:\ntx-checksum-ipv4: off\ntx-tcp-segmentation: off [not requested]\n'),
    );
    assert.deepEqual(device.calls, [['setFeatures', { 'tx-checksum-ipv4': false }]]);
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
