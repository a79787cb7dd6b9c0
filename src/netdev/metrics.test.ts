import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:http';
import { connect } from 'node:net';
import { test } from 'node:test';
import type { NetdevControl } from './control.js';
import { MemoryNetdev } from './control-testing.js';
import { METRICS_TYPE, metricsText, parseMetricsAddress, serveMetrics } from './metrics.js';

/** A NetdevControl with these counters. */
function counting(counters: readonly (readonly [string, number])[], device = 'uuid'): NetdevControl {
  const info = { driver: 'net_netvsc', version: '0.1.0', firmwareVersion: 'N/A', busInfo: device };
  return Object.create(new MemoryNetdev('hv0'), {
    statistics: { value: () => counters },
    driverInfo: { value: () => info },
    link: { value: () => ({ up: true, speedMbps: 10_000, fullDuplex: true, autonegotiated: false }) },
  });
}

interface Parsed {
  readonly type: string;
  readonly help: string;
  readonly samples: { readonly labels: Record<string, string>; readonly value: number }[];
}

const NAME = '[a-zA-Z_:][a-zA-Z0-9_:]*';
const VALUE = '(?:[-+]?\\d+(?:\\.\\d+)?(?:e[-+]?\\d+)?|NaN|[-+]Inf)';
const LABEL = '[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\["\\\\n])*"';

/** Reads the text by the grammar of exposition format 0.0.4, as strict as promtool's check. */
function parse(text: string): Map<string, Parsed> {
  assert.ok(text.endsWith('\n'), 'the last line ends, too');
  const families = new Map<string, Parsed>();
  let current: string | undefined;
  let help: string | undefined;
  const seen = new Set<string>();
  for (const line of text.slice(0, -1).split('\n')) {
    const [, helped, words] = new RegExp(`^# HELP (${NAME}) ((?:[^\\\\]|\\\\[\\\\n])*)$`).exec(line) ?? [];
    const [, typed, type] = new RegExp(`^# TYPE (${NAME}) (counter|gauge|histogram|summary|untyped)$`).exec(line) ?? [];
    if (helped !== undefined) {
      assert.ok(!families.has(helped), `${helped}: told twice`);
      current = helped;
      help = words!;
    } else if (typed !== undefined) {
      assert.equal(typed, current, 'TYPE follows HELP');
      families.set(typed, { type: type!, help: help!, samples: [] });
    } else {
      const match = new RegExp(`^(${NAME})(?:\\{(${LABEL}(?:,${LABEL})*)\\})? (${VALUE})$`).exec(line);
      assert.ok(match, `no line of the format: ${line}`);
      const [, name, list = '', value] = match;
      assert.equal(name, current, 'all samples of a family are together');
      assert.ok(!seen.has(`${name}{${list}}`), `${line}: twice`);
      seen.add(`${name}{${list}}`);
      const labels = Object.fromEntries(
        [...list.matchAll(/([a-zA-Z0-9_]+)="((?:[^"\\]|\\.)*)"/g)].map(([, label, escaped]) => [
          label,
          escaped!.replace(/\\(.)/g, (_, letter) => (letter === 'n' ? '\n' : letter)),
        ]),
      );
      families.get(name!)!.samples.push({ labels, value: Number(value) });
    }
  }
  for (const [name, { type, help, samples }] of families) {
    assert.ok(samples.length > 0 && help.length > 0, name);
    assert.equal(name.endsWith('_total'), type === 'counter', `${name}: counters, and nothing else, end with _total`);
  }
  return families;
}

test('every counter is a family with help and type, queues are labels', () => {
  const families = parse(
    metricsText(
      'hv0',
      counting([
        ['tx_too_big', 7],
        ['tx_queue_0_packets', 1],
        ['rx_queue_0_packets', 2],
        ['tx_queue_1_packets', 3],
        ['tx_queue_12_packets', 4],
        ['last_change_gap_us', 1500],
        ['something new', 9],
      ]),
    ),
  );
  const of = (name: string) => families.get(`netvsc_${name}`);
  assert.deepEqual(of('tx_too_big_total')!.samples, [{ labels: { interface: 'hv0' }, value: 7 }]);
  assert.match(of('tx_too_big_total')!.help, /^Packets dropped/);
  assert.deepEqual(
    of('tx_queue_packets_total')!.samples.map(({ labels, value }) => [labels.interface, labels.queue, value]),
    [
      ['hv0', '0', 1],
      ['hv0', '1', 3],
      ['hv0', '12', 4],
    ],
  );
  assert.equal(of('rx_queue_packets_total')!.samples.length, 1);
  assert.deepEqual([of('last_change_gap_us')!.type, of('something_new_total')!.samples[0]!.value], ['gauge', 9]);
  assert.deepEqual([of('link_up')!.samples[0]!.value, of('link_speed_bits_per_second')!.samples[0]!.value], [1, 1e10]);
});

test('whatever is in a name is escaped', () => {
  const families = parse(metricsText('a"b\\c', counting([['tx_busy', 2 ** 53]], 'x\ny')));
  assert.equal(families.get('netvsc_tx_busy_total')!.samples[0]!.labels.interface, 'a"b\\c');
  assert.equal(families.get('netvsc_tx_busy_total')!.samples[0]!.value, 2 ** 53);
  assert.equal(families.get('netvsc_info')!.samples[0]!.labels.device, 'x\ny');
});

test('addresses: without one it is 127.0.0.1', () => {
  for (const [text, host, port] of [
    ['9100', '127.0.0.1', 9100],
    ['127.0.0.1:0', '127.0.0.1', 0],
    ['[::1]:65535', '::1', 65_535],
    ['0.0.0.0:80', '0.0.0.0', 80],
    ['localhost:1', 'localhost', 1],
  ] as const)
    assert.deepEqual(parseMetricsAddress(text), { host, port });
  for (const text of ['', 'x', ':1', '1:', '65536', '127.0.0.1', '::1:80', '[::1]', 'a b:1', '127.0.0.1:123456', '-1'])
    assert.equal(parseMetricsAddress(text), undefined, text);
});

/** A server on a port of its own, ended with the body. */
async function served(text: () => string, body: (port: number) => Promise<void>): Promise<void> {
  const server = await serveMetrics({ host: '127.0.0.1', port: 0 }, text);
  try {
    await body(server.port);
  } finally {
    await server.close();
  }
}

async function ask(port: number, method: string, path: string) {
  const asked = request({ host: '127.0.0.1', port, method, path, agent: false }).end();
  const [response] = await once(asked, 'response');
  let body = '';
  for await (const part of response) body += part;
  return { status: response.statusCode, headers: response.headers, body };
}

test('GET and HEAD of /metrics are answered, with type and length; everything else is refused', async () => {
  let calls = 0;
  await served(
    () => `n ${++calls}\n`,
    async (port) => {
      const first = await ask(port, 'GET', '/metrics');
      assert.deepEqual([first.status, first.body, first.headers['content-type']], [200, 'n 1\n', METRICS_TYPE]);
      assert.equal(first.headers['content-length'], '4');
      assert.equal((await ask(port, 'GET', '/metrics?name=x')).body, 'n 2\n');
      const head = await ask(port, 'HEAD', '/metrics');
      assert.deepEqual([head.status, head.body, head.headers['content-length']], [200, '', '4']);
      for (const path of ['/', '/metrics/', '/metrics/x', '/Metrics', '//metrics', '/..%2fmetrics'])
        assert.equal((await ask(port, 'GET', path)).status, 404, path);
      for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
        const { status, headers } = await ask(port, method, '/metrics');
        assert.deepEqual([status, headers.allow], [405, 'GET, HEAD'], method);
      }
      assert.equal(calls, 3, 'nothing was counted for those');
    },
  );
});

test('counters that cannot be had are an error of the server, which goes on', async () => {
  let good = false;
  const text = () => {
    if (good) return 'n 1\n';
    throw new Error('the port is closed');
  };
  await served(text, async (port) => {
    const { status, body } = await ask(port, 'GET', '/metrics');
    assert.deepEqual([status, body], [500, 'the port is closed\n']);
    good = true;
    assert.equal((await ask(port, 'GET', '/metrics')).status, 200);
  });
});

test('what is no HTTP, or too much of it, is refused and costs nothing', async () => {
  await served(
    () => 'n 1\n',
    async (port) => {
      for (const [what, expected] of [
        ['\x16\x03\x01 what\r\n\r\n', /^HTTP\/1\.1 400 /],
        ['GET /metrics HTTP/1.1\r\n\r\n', /^HTTP\/1\.1 400 /], // no Host
        [`GET /metrics HTTP/1.1\r\nHost: a\r\nX: ${'y'.repeat(20_000)}\r\n\r\n`, /^HTTP\/1\.1 431 /],
      ] as const) {
        const socket = connect(port, '127.0.0.1');
        socket.on('error', () => {}); // reset after the answer
        socket.write(what);
        let answer = '';
        socket.setEncoding('latin1').on('data', (part) => {
          answer += part;
        });
        await once(socket, 'close');
        assert.match(answer, expected);
      }
      assert.equal((await ask(port, 'GET', '/metrics')).status, 200);
    },
  );
});

test('an address that cannot be had is an error that names it', async () => {
  await served(
    () => '',
    async (port) => {
      await assert.rejects(
        serveMetrics({ host: '127.0.0.1', port }, () => ''),
        new RegExp(`--metrics 127.0.0.1:${port}: .*EADDRINUSE`),
      );
    },
  );
});
