// Forms, refusals and exit codes. What is expected was printed by Debian's ethtool 6.1 for a device with the state of
// MemoryNetdev (its ioctls and netlink answers given by a preloaded library, since no kernel here has such a device).
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';
import { MemoryNetdev } from '../../netdev/control-testing.js';
import { asRemote, bad, failed, netlink, type Outcome, runEthtool, said } from './ethtool-testing.js';
import { parseU32 } from './words.js';

let device: MemoryNetdev;
const run = (...words: string[]): Promise<Outcome> => runEthtool(asRemote(device), ...words);

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
    assert.deepEqual(
      await run('-n', 'hv0', 'rx-flow-hash', 'tcp4'),
      failed(0, 'netvsc: hv0: sent and received packets are hashed so\n', `${head('TCP')}${ip}${ports}\n`),
    );
    await device.setFlowHash('udp4', 'L3');
    assert.deepEqual(
      await run('-u', 'hv0', 'rx-flow-hash', 'udp4'),
      failed(0, 'netvsc: hv0: sent packets are hashed so, received ones as the host likes\n', `${head('UDP')}${ip}\n`),
    );
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
