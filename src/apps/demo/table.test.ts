import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DemoResult, NicRow } from './result.js';
import { difference, findErrors, findProblems } from './result.js';
import { columns, renderTables, WIDTH, wrap } from './table.js';
import { byteText, countText } from './units.js';

const BIG = 123_456_789_012_345;

function nic(name: string): NicRow {
  const guest = { txPackets: BIG, txCopied: BIG, txDirect: 7, txMessages: BIG / 5, txBytes: BIG * 3, rxPackets: 3 };
  return {
    ...{ name, mac: '00:15:5d:00:00:01', mtu: 1500, nvspVersion: 'V6.1', ndisVersion: '6.30', linkSpeedBps: 1e10 },
    ...{ offloads: ['LSO4', 'LSO6'], hostState: 'ready', bitsPerSecondOut: 123.45e9, bitsPerSecondIn: 0 },
    ...{ guest, host: { ringFull: 4 } },
  };
}

function result(nics: number, more: Partial<DemoResult> = {}): DemoResult {
  const between = { phase: 'p', from: 'nic0', to: 'uplink', family: 6 } as const;
  return {
    ...{
      ok: true,
      verdict: 'passed: all',
      mode: 'root',
      notes: [],
      profile: 'ws2019',
      mtu: 1500,
      attachMs: 1,
      seconds: 2,
    },
    nics: Array.from({ length: nics }, (_, i) => nic(`nic${i}`)),
    neighbours: [],
    pings: [
      { ...between, payloadBytes: 56, sent: 20, received: 20, wrong: 0, minMs: 0.1, avgMs: 0.2, maxMs: 1999.9 },
      { ...between, payloadBytes: 65_527, sent: 2, received: 2, wrong: 0, minMs: 1, avgMs: 1, maxMs: 1 },
    ],
    tcp: [
      {
        ...between,
        ...{ bytesSent: BIG, bytesReceived: BIG, seconds: 3600, bitsPerSecond: 99e9, intact: true },
        ...{ hashSent: 'ab'.repeat(32), hashReceived: 'ab'.repeat(32) },
      },
    ],
    udp: [
      {
        ...between,
        ...{ datagrams: 9, datagramsSent: 9, bytes: 9, bytesSent: 9, seconds: 1, retries: 0, sizes: [1, 65_507] },
        ...{ lost: 0, wrong: 0, reordered: 0, duplicates: 0 },
      },
    ],
    ...{ replay: [], phases: [], switch: {}, uplink: {}, kernel: {}, errors: [], problems: [] },
    ...more,
  };
}

test('tables of eight NICs with large numbers fit the width', () => {
  const lines = renderTables(result(8, { notes: ['a note of many words '.repeat(20)] })).split('\n');
  for (const line of lines) assert.equal(line.length <= WIDTH, true, `${line.length}: ${line}`);
  assert.equal(lines.at(-2), 'passed: all');
});

test('the table shows what the counters say', () => {
  const text = renderTables(result(2));
  assert.match(text, /copied into sections +123\.5 T +123\.5 T/);
  assert.match(text, /direct, by page ranges +7 +7/);
  assert.match(text, /packets a message +5\.00 +5\.00/);
  assert.match(text, /host found ring full +4 +4/);
  assert.match(text, /best out +123\.45/);
  assert.match(text, /nic0 > uplink +IPv6 +22\/22 +65527 B +0\.100 +0\.200 +1999\.900/);
  assert.match(text, /equal abababab/);
});

test('errors and problems are listed, and counted at their NIC', () => {
  const errors = [{ where: 'nic1 guest', counter: 'rxBadRange', count: 3 }];
  const text = renderTables(result(2, { ok: false, errors, problems: ['something broke'], verdict: 'FAILED' }));
  assert.match(text, /^errors +0 +3$/m);
  assert.match(text, /^error: nic1 guest: rxBadRange 3$/m);
  assert.match(text, /^problem: something broke$/m);
});

test('only error counters are errors', () => {
  const host = { rxRingFull: 0, ringFull: 9, txPackets: 4 };
  const stats = {
    nics: [{ name: 'nic0', guest: { txNoSection: 5, rxBadPpi: 1, txBusy: 2 }, host, hostState: 'ready' }],
    ...{ switch: { flooded: 2 }, uplink: { notWritten: 6 } },
  };
  assert.deepEqual(findErrors(stats, { nic0: { TcpRetransSegs: 3, UdpInCsumErrors: 2 } }), [
    { where: 'nic0 guest', counter: 'rxBadPpi', count: 1 },
    { where: 'uplink', counter: 'notWritten', count: 6 },
    { where: 'nic0 kernel', counter: 'UdpInCsumErrors', count: 2 },
  ]);
  assert.deepEqual(difference({ a: 5, b: 1 }, { a: 2 }), { a: 3, b: 1 });
});

test('every kind of loss is a problem in words', () => {
  const good = result(2);
  assert.deepEqual(findProblems(good), []);
  const bad = result(2, {
    pings: [{ ...good.pings[0]!, received: 19, reason: 'no reply in 2000 ms' }],
    tcp: [{ ...good.tcp[0]!, intact: false, hashReceived: 'cd' }],
    udp: [{ ...good.udp[0]!, reordered: 1 }],
    replay: [
      {
        ...{ phase: 'replay', from: 'nic0', to: 'nic1', framesSent: 5, framesReceived: 4, framesWrong: 1 },
        ...{ bytes: 1, seconds: 1, bitsPerSecond: 8 },
      },
    ],
    nics: [{ ...nic('nic0'), hostState: 'ring corrupt: LENGTH' }],
  });
  const problems = findProblems(bad);
  assert.equal(problems.length, 5);
  assert.match(
    problems.join('\n'),
    /no reply in 2000 ms[\s\S]*hashes differ[\s\S]*1 reordered[\s\S]*4 of 5[\s\S]*LENGTH/,
  );
});

test('units', () => {
  const texts = [0, 999, 99_999, 100_000, 999_949, 999_960, 12_345_678, 9.87e14].map(countText);
  assert.deepEqual(texts, ['0', '999', '99,999', '100.0 k', '999.9 k', '1.00 M', '12.35 M', '987.0 T']);
  assert.deepEqual([5, 1000, 1_073_741_824, 999_900_000].map(byteText), ['5 B', '1.00 kB', '1.07 GB', '1.00 GB']);
  assert.deepEqual(wrap('aa bb cc', 5), ['aa bb', '  cc']);
  assert.deepEqual(columns(['x', 'n'], [['a', '10']]), ['x   n', '-----', 'a  10']);
});
