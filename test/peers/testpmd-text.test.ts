// Our testpmd and DPDK's, side by side: the same ports and commands, and text that differs in values only.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { packageRoot } from '../../src/apps/package-info.js';
import { affinity } from '../../src/memory/os/process.js';
import { DPDKS, type Dpdk, EAL, MISSING_DPDK } from './dpdk.js';

const CPUS = affinity().slice(0, 2);
const main = path.join(packageRoot(), 'dist/src/cli/main.js');
const TIMEOUT_MS = 120_000;

const COMMANDS = `show port info 0
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

/** Lines that one of them has and the other one has not, and why. */
const LEFT_OUT: readonly RegExp[] = [
  /^(Minimum|Maximum) MTU: |^Device private info:$|^ {2}none$/, // DPDK from 23.11 on
  /^Hash key size|^Redirection table size: |^Supported RSS |^ {2}(ipv4|ipv6|l2-payload|geneve)|^No RSS /, // its net_null has scaling
  /^testpmd: preferred mempool ops|^EAL: |^ETHDEV: /, // its libraries
  /^Cannot close started device/, // a log line of its library from 23.11 on
  /^\[commands\] /, // echo of the command file, DPDK from 25.07 on
];

/**
 * Values become marks as wide as their columns: a number and the blanks that pad it are one column. Names of switches that its
 * net_null has set the other way are left out.
 */
function marked(line: string): string {
  return line
    .replace(/(?:[0-9A-F]{2}:){5}[0-9A-F]{2}/g, 'MAC')
    .replace(/^(Link status|Allmulticast mode|Autoneg status): .*/, '$1:')
    .replace(/(net_null\d +net_null +)(up |down)/, '$1up/down')
    .replace(/^([a-z_0-9]+): \d+$/, '$1: #')
    .replace(/((?:Rx|Tx)-(?:pps|bps):)( +\d+)/g, (_, name, value) => name + '#'.repeat(value.length))
    .replace('both TSO and UFO are not supported', 'TSO is not supported') // 24.11: it has both
    .replace(/0x[0-9a-f]+/g, 'HEX')
    .replace(/\d+ *(?=$|[A-Z])/g, (part) => (part.endsWith(' ') ? '#'.repeat(part.length) : '#'))
    .replace(/\d+/g, '#');
}

const text = (output: string): string[] =>
  output
    // Echo of the command file (24.11), written past the buffer of what is around it.
    .replace(/testpmd> [^\n]*\r\n/g, '')
    .replaceAll('testpmd> ', '')
    .replace(/\nPrimary: Sending .*\n/, '') // it has secondary processes
    .split('\n')
    .filter((line) => !LEFT_OUT.some((pattern) => pattern.test(line)))
    .map(marked);

interface Said {
  readonly out: string;
  readonly errors: string;
}

function said(t: TestContext, command: readonly string[], vdevs: readonly string[], words: readonly string[]): Said {
  const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-testpmd-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = path.join(folder, 'commands');
  writeFileSync(file, COMMANDS);
  const all = [...command, '-l', CPUS.join(','), ...vdevs.flatMap((name) => ['--vdev', name])];
  const own = ['-i', `--cmdline-file=${file}`, '--total-num-mbufs=8192', ...words];
  const { stdout, stderr, status, error } = spawnSync(all[0]!, [...all.slice(1), '--', ...own], {
    ...{ encoding: 'utf8', timeout: TIMEOUT_MS, input: '' },
  });
  if (error) throw error;
  assert.equal(status, 0, stderr);
  return { out: stdout.replaceAll(file, 'FILE'), errors: stderr };
}

const theirs = (t: TestContext, { launcher, testpmd, drivers }: Dpdk, vdevs: readonly string[]): Said =>
  said(t, [...launcher, testpmd, ...EAL, ...drivers], vdevs, []);
const ours = (t: TestContext, vdevs: readonly string[]): Said =>
  said(t, [process.execPath, main, 'testpmd', '-m', '64'], vdevs, []);

for (const why of MISSING_DPDK) test("testpmd's texts beside DPDK's", { skip: why }, () => {});

for (const dpdk of DPDKS) {
  const skip = CPUS.length < 2 && 'one CPU';
  test(`testpmd prints what DPDK ${dpdk.name}'s prints`, { skip }, (t) => {
    const vdevs = ['net_null0', 'net_null1'];
    const [mine, its] = [ours(t, vdevs), theirs(t, dpdk, vdevs)];
    assert.deepEqual(text(mine.out), text(its.out));
    assert.deepEqual(text(mine.errors), text(its.errors));
  });
}
