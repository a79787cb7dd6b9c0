// An interface's counters beside those of the kernel, over changes that attach the device anew, and over the host's end.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { get } from 'node:http';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { packageRoot } from '../../src/apps/package-info.js';
import { noNetworkReason, TestNetwork } from '../../src/memory/os/packet-peer-testing.js';
import { findControl, type RemoteNetdev } from '../../src/netdev/control-client.js';
import { networkOf } from '../../src/netdev/control-path.js';
import { machineName, startHost } from '../lifecycle/processes.js';

const PATIENCE_MS = 30_000;
const IP_HEADERS = 14 + 20 + 8;

interface Up {
  readonly network: TestNetwork;
  readonly control: RemoteNetdev;
  /** ethtool -S. */
  counters(): Promise<Map<string, number>>;
  /** `ip -s link`. */
  kernel(): { rx: { packets: number; bytes: number }; tx: { packets: number; bytes: number; dropped: number } };
  metrics(): Promise<string>;
}

async function startUp(t: TestContext, machine: string): Promise<Up> {
  const network = new TestNetwork();
  t.after(() => network.close());
  const cli = path.join(packageRoot(), 'dist/src/cli/main.js');
  const words = ['up', 'hv0', '--machine', machine, '--netns', network.path, '--metrics', '0', '--wait', '--json'];
  const child = spawn(process.execPath, ['--enable-source-maps', cli, ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'exit');
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  t.after(async () => {
    child.kill('SIGTERM');
    await ended;
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const first = await Promise.race([lines.next(), ended]);
  assert.ok(!Array.isArray(first) && !first.done, `it ended: ${said}`);
  const ready = JSON.parse(first.value) as { readonly type: string; readonly metrics: number };
  assert.equal(ready.type, 'ready');
  network.run('ip address add 10.0.0.9/24 dev hv0');
  const client = await findControl('hv0', { network: networkOf(network.path) });
  t.after(() => client.close());
  return {
    network,
    control: client.remote(),
    counters: async () => new Map(await client.remote().statistics()),
    kernel: () => JSON.parse(network.run('ip -s -j link show hv0'))[0].stats64,
    async metrics() {
      const [response] = await once(get(`http://127.0.0.1:${ready.metrics}/metrics`), 'response');
      let text = '';
      for await (const part of response) text += part;
      return text;
    },
  };
}

async function until(what: string, done: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = performance.now() + PATIENCE_MS; !(await done()); ) {
    if (performance.now() > end) throw new Error(`not within ${PATIENCE_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Echo requests, all answered. */
const ping = (up: Up, count: number, bytes: number) =>
  up.network.run(`ping -q -n -c ${count} -i 0.005 -W 5 -s ${bytes - IP_HEADERS} 10.0.0.1`);

/** The two sides at rest: they say the same. */
async function compare(up: Up): Promise<Map<string, number>> {
  let found = new Map<string, number>();
  await until('both sides count the same', async () => {
    const before = up.kernel();
    found = await up.counters();
    return JSON.stringify(before) === JSON.stringify(up.kernel()) && agrees(found, before);
  });
  return found;
}

function agrees(counters: Map<string, number>, { rx, tx }: ReturnType<Up['kernel']>): boolean {
  const value = (name: string) => counters.get(name)!;
  const received = rx.packets + value('rx_gro_merged') + value('rx_down_dropped') + value('rx_kernel_refused');
  const lost = ['tx_too_big', 'tx_failed', 'tx_abandoned', 'tx_no_space'].reduce((all, name) => all + value(name), 0);
  return (
    value('kernel_rx_packets') === rx.packets &&
    value('kernel_tx_packets') === tx.packets &&
    value('kernel_rx_bytes') === rx.bytes &&
    value('kernel_tx_bytes') === tx.bytes &&
    value('tx_kernel_dropped') === tx.dropped &&
    value('rx_packets') === received &&
    value('tx_packets') + lost === tx.packets
  );
}

test('counters agree with ip -s link, and go on over another MTU, other channels, and another host', {
  skip: noNetworkReason(),
  timeout: 180_000,
}, async (t) => {
  const machine = machineName();
  const host = startHost(t, machine);
  await host.line('ready');
  const up = await startUp(t, machine);
  await until('there is a link', () => up.network.run('ip link show hv0').includes('LOWER_UP'));
  ping(up, 50, 600);
  const first = await compare(up);
  assert.ok(first.get('kernel_rx_packets')! >= 50 && first.get('kernel_tx_packets')! >= 50);
  // The same by the metrics.
  const text = await up.metrics();
  const { packets } = up.kernel().rx;
  assert.match(text, new RegExp(`^netvsc_kernel_rx_packets_total\\{interface="hv0"\\} ${packets}$`, 'm'));
  assert.match(text, /^netvsc_rx_queue_packets_total\{interface="hv0",queue="0"\} \d+$/m);

  const grows = async (what: string, change: () => void | Promise<void>): Promise<Map<string, number>> => {
    const before = await up.counters();
    await change();
    await until(`${what}: there is a link`, () => up.network.run('ip link show hv0').includes('LOWER_UP'));
    ping(up, 20, 400);
    const after = await compare(up);
    for (const [name, count] of before)
      if (name !== 'last_change_gap_us' && after.has(name))
        assert.ok(after.get(name)! >= count, `${what}: ${name} went down`);
    assert.ok(after.get('kernel_rx_packets')! >= before.get('kernel_rx_packets')! + 20, what);
    return after;
  };
  const mtu = (bytes: number) => async () => {
    const { attaches, gap } = await changes();
    up.network.run(`ip link set hv0 mtu ${bytes}`);
    await until('it is set', async () => {
      const now = await changes();
      return now.attaches !== attaches || now.gap !== gap;
    });
  };
  const changes = async () => {
    const now = await up.counters();
    return { attaches: now.get('device_attaches')!, gap: now.get('last_change_gap_us')! };
  };
  const attached = first.get('device_attaches')!;
  const small = await grows('a smaller MTU', mtu(1400));
  assert.equal(small.get('device_attaches'), attached, 'D6: no reattach');
  const large = await grows('a larger MTU', mtu(4000));
  assert.equal(large.get('device_attaches'), attached + 1);
  const { combined, maxCombined } = await up.control.channels();
  const other = combined === 1 ? Math.min(2, maxCombined) : 1;
  const fewer = await grows('other channels', () => up.control.setChannels(other));
  assert.equal(fewer.has(`rx_queue_${other}_packets`), false);
  await grows('another host', async () => {
    await host.kill();
    await until('it is noticed', () => !up.network.run('ip link show hv0').includes('LOWER_UP'));
    assert.equal((await up.counters()).get('kernel_rx_packets'), up.kernel().rx.packets, 'while there is none');
    const next = startHost(t, machine);
    await next.line('ready');
  });
});
