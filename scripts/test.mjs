// The test command: installs what the tests want from Debian's packages (root only, missing ones only), builds, lints,
// checks the layer arrows, and runs every test with Node's own runner.
//   npm test [-- FILE...]      only these test files (paths in src/ or test/)
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { prepareDpdk } from './dpdk.mjs';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
process.chdir(root);

/** Program or file that shows whether a package is there -> Debian package. */
const packages = {
  ip: 'iproute2',
  tshark: 'tshark',
  scapy: 'python3-scapy',
  setpriv: 'util-linux',
  ping: 'iputils-ping',
  curl: 'curl',
  iperf3: 'iperf3',
  ethtool: 'ethtool',
  tcpdump: 'tcpdump',
  cc: 'gcc',
  'pkg-config': 'pkg-config',
  'dpdk-testpmd': 'dpdk-dev',
  clang: 'clang',
  'llvm-objdump': 'llvm',
  '/usr/sbin/bpftool': 'bpftool',
  '/usr/include/dpdk/rte_ethdev.h': 'libdpdk-dev',
};
const has = (wanted) =>
  path.isAbsolute(wanted)
    ? existsSync(wanted)
    : (process.env.PATH ?? '').split(':').some((folder) => existsSync(path.join(folder, wanted)));

function run(label, command, args, env = {}) {
  const { status } = spawnSync(command, args, { stdio: 'inherit', env: { ...process.env, ...env } });
  if (status === 0) return;
  process.stderr.write(`test: ${label} failed\n`);
  process.exit(status ?? 1);
}

const missing = Object.entries(packages).filter(([program]) => !has(program));
if (missing.length > 0 && process.getuid?.() === 0 && has('apt-get')) {
  const names = missing.map(([, name]) => name);
  const quiet = { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } };
  process.stdout.write(`test: installing ${names.join(' ')}\n`);
  spawnSync('apt-get', ['update', '-qq'], quiet);
  if (spawnSync('apt-get', ['install', '-y', '-qq', ...names], quiet).status !== 0) {
    process.stderr.write(`test: apt-get could not install ${names.join(' ')}; tests that need them are skipped\n`);
  }
} else if (missing.length > 0) {
  process.stdout.write(
    `test: not installed, tests that need it are skipped: ${missing.map(([, name]) => name).join(' ')}\n`,
  );
}
// A second, newer DPDK for test/peers.
if (has('dpdk-testpmd') && has('apt-get')) prepareDpdk('trixie');

run('build', process.execPath, ['scripts/build.mjs']);
run('lint', process.execPath, ['node_modules/@biomejs/biome/bin/biome', 'check', '.']);
run('layer check', process.execPath, ['scripts/layers.mjs']);
run('API reference', process.execPath, ['node_modules/typedoc/bin/typedoc', '--logLevel', 'Warn']);

const wanted = process.argv.slice(2).map((file) => path.join('dist', file.replace(/\.ts$/, '.js')));
const all = readdirSync('dist', { recursive: true })
  .filter((file) => file.endsWith('.test.js') && existsSync(file.replace(/\.js$/, '.ts')))
  .map((file) => path.join('dist', file))
  .sort();
run('tests', process.execPath, [
  '--enable-source-maps',
  '--test',
  '--test-concurrency=2',
  ...(wanted.length > 0 ? wanted : all),
]);
