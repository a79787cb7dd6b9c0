// Our testpmd and DPDK's, side by side: the same ports and commands, and text that differs in values only.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { packageRoot } from '../../src/apps/package-info.js';
import { runEnvironment } from '../../src/apps/run/run.js';
import { affinity } from '../../src/memory/os/process.js';
import { DPDKS, type Dpdk, EAL, MISSING_DPDK } from './dpdk.js';
import { startRig } from './rig.js';

const CPUS = affinity().slice(0, 2);
const main = path.join(packageRoot(), 'dist/src/cli/main.js');
const TIMEOUT_MS = 120_000;

const NULL_COMMANDS = `show port info 0
show port summary all
show port summary 1
show port stats all
show port xstats all
show config fwd
show config rxtx
show config cores
show config txpkts
show fwd stats all
show port 0 rx_offload capabilities
show port 0 rx_offload configuration
show port 0 tx_offload capabilities
show port 0 tx_offload configuration
clear port stats 0
clear port stats all
clear port xstats 0
set verbose 1
set verbose 0
set burst 64
set txpkts 64,128
show config txpkts
set txpkts 64
set nbcore 1
set nbport 2
set corelist 0
set portlist 7
set burst 600
set eth-peer 0 00:11:22:33:44:55
show config fwd
set promisc 0 on
set allmulti 0 on
mac_addr set 0 02:00:00:00:00:01
start
show port stats 0
start
port stop 0
set nbcore 1
stop
stop
start tx_first 2
stop
set fwd csum
start
stop
set fwd txonly
start
stop
set fwd flowgen
start
stop
set fwd rxonly
start
stop
set fwd icmpecho
start
stop
set fwd macswap retry
start
stop
set fwd io
port stop 0
csum show 0
csum set ip sw 0
csum set tcp sw 0
csum set ip hw 0
tso set 800 0
port config mtu 0 1400
port start 0
csum show 0
port stop all
port config all rxq 2
port config all txq 2
port config all rxd 256
port config all txd 256
port start all
show config rxtx
start
show fwd stats all
stop
show port xstats 1
port start 1
port stop 1
port stop 1
port start 1
port close 1
port stop all
port close 1
show port info 1
show port stats 5
quit
`;

/** What needs scaling and offloads, which its net_null has not. */
const NETVSC_COMMANDS = `show port info 0
show port summary all
show port 0 rss-hash
show port 0 rss-hash key
show port 0 rss reta 128 (0x3,0x1)
show port 0 rss reta 64 (0x3)
show port 0 rss reta 128 (0x3)
show port 0 rss reta 500 (0x3)
show rxq info 0 0
show txq info 0 1
show rxq info 0 7
show rxq info 7 0
show port 0 rxq 0 desc 0 status
show port 0 txq 0 desc 0 status
show port 0 rx_offload configuration
port config 0 rss reta (0,0),(1,1)
port config 0 rss reta (200,0)
port config 0 rss-hash-key ipv4 2cc681d15bdbf4f7fca28319db1a3e946b9e38d92c9c03d1ad9944a7d9563d59063c25f3fc1fdc2a
port config 0 rss-hash-key ipv4 1234
port config 0 rss-hash-key ipv4 2cc681d15bdbf4f7fca28319db1a3e946b9e38d92c9c03d1ad9944a7d9563d59063c25f3fc1fdcxx
show port 0 rss-hash key
port config all rss ip
port config all rss tcp
port config all rss none
show port 0 rss-hash
port config all rss bogus
show config rxtx
start
show port 0 rss-hash
stop
port stop all
csum set ip hw 0
csum set tcp hw 0
csum set udp sw 0
tso set 800 0
tso show 0
tso set 0 0
port config 0 rx_offload ipv4_cksum on
port config 0 tx_offload vlan_insert on
show port 0 rx_offload configuration
show port 0 tx_offload configuration
quit
`;

/** Lines that one of them has and the other one has not, and why. */
const LEFT_OUT: readonly RegExp[] = [
  /^(Minimum|Maximum) MTU: |^Device private info:$|^ {2}none$/, // DPDK from 23.11 on
  /^Hash key size|^Redirection table size: |^Supported RSS |^ {2}(ipv4|ipv6|l2-payload|geneve)|^No RSS /, // its net_null has scaling
  /^testpmd: preferred mempool ops|^EAL: |^ETHDEV: |^(HN_DRIVER: )?hn_|^Invalid Rx queue_id=|^Invalid port_id=/, // its libraries
  /^ {2}software filters: |^Burst mode: /, // ours says more
  /^Cannot close started device/, // a log line of its library from 23.11 on
  /^\[commands\] /, // echo of the command file, DPDK from 25.07 on
];

/** The same of newer versions. */
const LEFT_OUT_24: readonly RegExp[] = [
  /^(Error: .*)?TSO |^Error: both TSO|^segment size for|^Warning: port \d+ doesn't support UFO/, // UDP segmentation, too
];

/**
 * Values become marks as wide as their columns: a number and the blanks that pad it are one column. Names of switches that its
 * net_null has set the other way are left out.
 */
function marked(line: string): string {
  return line
    .replace(/(?:[0-9A-F]{2}:){5}[0-9A-F]{2}/g, 'MAC')
    .replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, 'UUID')
    .replace(/^[0-9A-F]{80}$/, 'KEY')
    .replace(/^([RT]x queue state): .*/, '$1:') // 22.11 calls queues stopped that its driver started
    .replace(/^(Link status|Allmulticast mode|Autoneg status): .*/, '$1:')
    .replace(/(net_null\d +net_null +)(up |down)/, '$1up/down')
    .replace(/^([a-z_0-9]+): \d+$/, '$1: #')
    .replace(/((?:Rx|Tx)-(?:pps|bps):)( +\d+)/g, (_, name, value) => name + '#'.repeat(value.length))
    .replace(/0x[0-9a-f]+/g, 'HEX')
    .replace(/\d+ *(?=$|[A-Z])/g, (part) => (part.endsWith(' ') ? '#'.repeat(part.length) : '#'))
    .replace(/\d+/g, '#');
}

const text = (output: string, version: number): string[] =>
  output
    // Echo of the command file (24.11), written past the buffer of what is around it.
    .replace(/testpmd> [^\n]*\r\n/g, '')
    .replaceAll('testpmd> ', '')
    .replace(/\nPrimary: Sending .*\n/, '') // it has secondary processes
    .replace(/\n {2}-{7} Forward Stats for RX.*\n.*\n/g, '') // only of streams with traffic, which may have come or not
    .split('\n')
    .filter((line) => !LEFT_OUT.some((pattern) => pattern.test(line)))
    .filter((line) => version < 24 || !LEFT_OUT_24.some((pattern) => pattern.test(line)))
    .map(marked);

interface Said {
  readonly out: string;
  readonly errors: string;
}

interface Question {
  readonly commands: string;
  /** Of the environment. */
  readonly devices: readonly string[];
  readonly words: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
}

async function said(t: TestContext, command: readonly string[], question: Question): Promise<Said> {
  const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-testpmd-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = path.join(folder, 'commands');
  writeFileSync(file, question.commands);
  const all = [...command, '-l', CPUS.join(','), ...question.devices];
  const own = ['-i', `--cmdline-file=${file}`, ...question.words];
  const child = spawn(all[0]!, [...all.slice(1), '--', ...own], {
    ...{ stdio: ['ignore', 'pipe', 'pipe'], timeout: TIMEOUT_MS, env: question.env ?? process.env },
  });
  t.after(() => child.kill('SIGKILL'));
  const result = { out: '', errors: '' };
  child.stdout.on('data', (chunk) => {
    result.out += chunk;
  });
  child.stderr.on('data', (chunk) => {
    result.errors += chunk;
  });
  const [status] = await once(child, 'close');
  assert.equal(status, 0, result.errors);
  return { ...result, out: result.out.replaceAll(file, 'FILE') };
}

const theirs = (t: TestContext, { launcher, testpmd, drivers }: Dpdk, question: Question): Promise<Said> =>
  said(t, [...launcher, testpmd, ...EAL, ...drivers], question);
const ours = (t: TestContext, question: Question): Promise<Said> =>
  said(t, [process.execPath, main, 'testpmd', '-m', '64'], question);

for (const why of MISSING_DPDK) test("testpmd's texts beside DPDK's", { skip: why }, () => {});

const skip = CPUS.length < 2 && 'one CPU';

for (const dpdk of DPDKS) {
  test(`testpmd prints what DPDK ${dpdk.name}'s prints, on net_null`, { skip }, async (t) => {
    const devices = ['--vdev', 'net_null0', '--vdev', 'net_null1'];
    const question = { commands: NULL_COMMANDS, devices, words: ['--total-num-mbufs=8192'] };
    const mine = await ours(t, question);
    const its = await theirs(t, dpdk, question);
    assert.deepEqual(text(mine.out, dpdk.version), text(its.out, dpdk.version));
    assert.deepEqual(text(mine.errors, dpdk.version), text(its.errors, dpdk.version));
  });

  test(`testpmd prints what DPDK ${dpdk.name}'s prints, on net_netvsc`, { skip }, async (t) => {
    const { machine } = startRig(t, { nics: 2 });
    const question = { commands: NETVSC_COMMANDS, words: ['--total-num-mbufs=4096', '--rxq=2', '--txq=2'] };
    const mine = await ours(t, { ...question, devices: ['--machine', machine] });
    const its = await theirs(t, dpdk, { ...question, devices: [], env: runEnvironment(machine) });
    assert.deepEqual(text(mine.out, dpdk.version), text(its.out, dpdk.version));
    assert.deepEqual(text(mine.errors, dpdk.version), text(its.errors, dpdk.version));
  });
}
