// Ports on interfaces of the kernel, with the kernel's own network stack behind them: what programs see of each other through two
// ports, and what is left when a process ends.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { until } from '../../src/drivers/interface-testing.js';
import { noNetworkReason, TestNetwork } from '../../src/memory/os/packet-peer-testing.js';
import { MODES, type Mode, Stations } from './stations.js';

const skip = noNetworkReason();
const has = (program: string) => spawnSync(program, ['--version']).error === undefined;
const without = (...programs: string[]) => {
  const missing = programs.find((program) => !has(program));
  return skip || (missing !== undefined && `needs ${missing}`);
};
const DRIVERS = ['net_tap', 'net_af_packet'] as const;
const talker = fileURLToPath(new URL('./talk.js', import.meta.url));
const portProcess = fileURLToPath(new URL('./port-process.js', import.meta.url));

async function withStations(
  driver: (typeof DRIVERS)[number],
  mode: Mode,
  work: (stations: Stations) => Promise<void>,
): Promise<void> {
  const stations = await Stations.open(driver, mode);
  try {
    await work(stations);
    for (const { port } of stations.list) {
      const { ierrors, oerrors, rxNombuf } = port.stats();
      assert.deepEqual({ ierrors, oerrors, rxNombuf }, { ierrors: 0, oerrors: 0, rxNombuf: 0 }, port.device);
    }
  } finally {
    await stations.close();
  }
}

/** One station talks to the other; what came of it. */
async function talk(stations: Stations, address: string, megabytes: number, datagrams: number): Promise<unknown> {
  const listener = stations.start(1, process.execPath, talker, 'listen');
  try {
    assert.match(await started(listener), /listens/);
    const words = ['send', address, String(megabytes), String(datagrams)];
    return JSON.parse(await stations.run(0, process.execPath, talker, ...words));
  } finally {
    await killed(listener);
  }
}

for (const driver of DRIVERS) {
  for (const mode of MODES) {
    test(`${driver}, ${mode}: ping of every size, both families`, { skip: without('ping') }, async () => {
      await withStations(driver, mode, async (stations) => {
        for (const target of ['10.77.0.2', 'fd00:77::2']) {
          for (const bytes of ['0', '56', '1472', '1473', '9000', '40000']) {
            // With -w it waits for three answers, however late they come.
            const words = ['-n', '-c', '3', '-i', '0.01', '-w', '10', '-s', bytes, target];
            const [, received] = /(\d+) received/.exec(await stations.run(0, 'ping', ...words))!;
            assert.ok(Number(received) >= 3, `${received} answers from ${target} to ${bytes} bytes`);
          }
        }
      });
    });

    test(`${driver}, ${mode}: TCP and UDP, both families`, { skip }, async () => {
      await withStations(driver, mode, async (stations) => {
        for (const address of ['10.77.0.2', 'fd00:77::2']) {
          assert.deepEqual(await talk(stations, address, 20, 500), { equal: true, answered: 500, damaged: 0 });
        }
        // Large packets go through whole where that was asked for, and only there.
        if (mode === 'large') assert.ok(stations.longest > 10_000, `the longest packet had ${stations.longest} bytes`);
        else assert.ok(stations.longest <= 1514, `a packet of ${stations.longest} bytes`);
      });
    });
  }

  test(`${driver}: tshark finds every checksum right where nothing is left to others`, {
    skip: without('tshark'),
  }, async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-ports-'));
    const file = path.join(folder, 'seen.pcapng');
    try {
      await withStations(driver, 'plain', async (stations) => {
        const [, there] = stations.list;
        const words = ['-i', there.ifname, '-f', 'inbound', '-w', file];
        const capture = there.network.in(() => spawn('dumpcap', words, { stdio: ['ignore', 'ignore', 'pipe'] }));
        const over = new Promise((resolve) => capture.once('close', resolve));
        try {
          let said = '';
          capture.stderr.setEncoding('utf8').on('data', (text: string) => {
            said += text;
          });
          await until(
            () => /File: /.test(said),
            () => `dumpcap does not start: ${said}`,
          );
          for (const address of ['10.77.0.2', 'fd00:77::2']) await talk(stations, address, 1, 50);
        } finally {
          capture.kill('SIGINT');
          await over;
        }
      });
      const check = ['-o', 'tcp.check_checksum:TRUE', '-o', 'udp.check_checksum:TRUE', '-o', 'ip.check_checksum:TRUE'];
      const fields = ['-e', 'tcp.checksum.status', '-e', 'udp.checksum.status', '-e', 'ip.checksum.status'];
      const { stdout } = spawnSync('tshark', ['-r', file, ...check, '-T', 'fields', ...fields], { encoding: 'utf8' });
      const lines = stdout.split('\n').filter((line) => line !== '');
      const wrong = lines.filter((line) => /(^|\t)0(\t|$)/.test(line));
      assert.ok(lines.filter((line) => /1/.test(line)).length > 500, `${lines.length} packets were seen`);
      assert.equal(wrong.length, 0, `${wrong.length} of ${lines.length} have a wrong checksum`);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
}

/** Starts the process; its first line. */
function started(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = '';
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      if (said.includes('\n')) resolve(said.split('\n')[0]!);
    });
    child.once('error', reject);
    child.once('close', () => reject(new Error(`it ended: ${said}`)));
  });
}

const killed = (child: ChildProcess) =>
  new Promise<void>((resolve) => {
    child.once('close', () => resolve());
    child.kill('SIGKILL');
  });

test('a killed process leaves nothing', { skip }, async () => {
  const network = new TestNetwork();
  const children: ChildProcess[] = [];
  try {
    network.veth('p0', 'w0');
    for (const device of ['net_tap0,iface=tap0', 'net_af_packet0,iface=p0']) {
      const child = network.in(() =>
        spawn(process.execPath, [portProcess, device], { stdio: ['ignore', 'pipe', 'inherit'] }),
      );
      children.push(child);
      assert.equal(await started(child), 'ready');
    }
    assert.match(network.run('ip -br link'), /tap0/);
    assert.match(network.run('ip -d link show p0'), /promiscuity 1/);
    for (const child of children.splice(0)) await killed(child);
    assert.doesNotMatch(network.run('ip -br link'), /tap0/);
    assert.match(network.run('ip -d link show p0'), /promiscuity 0/);
    assert.doesNotMatch(
      network.in(() => readFileSync('/proc/thread-self/net/packet', 'latin1')).split('\n')[1] ?? '',
      /\d/,
    );
  } finally {
    for (const child of children) child.kill('SIGKILL');
    network.close();
  }
});

const notRoot = ['--reuid=65534', '--regid=65534', '--clear-groups', '--inh-caps=-all'];
const noUser = () => without('setpriv') || (process.getuid?.() !== 0 && 'needs root to become somebody else');

for (const [device, message] of [
  ['net_tap0,iface=tap0', /^net_tap0: interface tap0: not allowed, it needs CAP_NET_ADMIN .*user namespace/],
  ['net_af_packet0,iface=lo0', /^net_af_packet0: interface lo0: not allowed, it needs CAP_NET_RAW .*user namespace/],
] as const) {
  test(`${device} without rights: one clear line`, { skip: noUser() }, () => {
    const network = new TestNetwork();
    try {
      network.veth('lo0', 'lo1');
      const { stdout, status } = network.in(() =>
        spawnSync('setpriv', [...notRoot, process.execPath, portProcess, device], { encoding: 'utf8' }),
      );
      assert.equal(status, 1, stdout);
      assert.match(stdout, message);
      assert.equal(stdout.trim().split('\n').length, 1);
    } finally {
      network.close();
    }
  });
}

for (const device of ['net_tap0,iface=tap0', 'net_af_packet0,iface=p0']) {
  test(`${device} in a user namespace: no rights are needed`, {
    skip: noUser() || without('unshare'),
  }, async (context) => {
    const inside = ['unshare', '--user', '--map-root-user', '--net'];
    const tried = spawnSync('setpriv', [...notRoot, ...inside, 'true'], { encoding: 'utf8' });
    if (tried.status !== 0) return context.skip(`no user namespaces: ${tried.stderr.trim()}`);
    const shell = `ip link add p0 type veth peer name w0 && exec ${process.execPath} ${portProcess} ${device}`;
    const child = spawn('setpriv', [...notRoot, ...inside, 'sh', '-c', shell], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      assert.equal(await started(child), 'ready');
    } finally {
      await killed(child);
    }
  });
}
