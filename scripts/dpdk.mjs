// A newer DPDK than this Debian's, for test/peers: the binary packages of a later Debian, fetched by apt from this system's
// own mirror, checked against Debian's keys, and unpacked into a folder of the user's cache with the C library that they
// want. Nothing is installed and no right is needed.
//   node scripts/dpdk.mjs [SUITE]      default trixie; once there it is not fetched again
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const KEYS = '/usr/share/keyrings/debian-archive-keyring.gpg';
/** dpdk-dev wants them, dpdk-testpmd does not: taken as installed, which saves most of the download. */
const NOT_WANTED = ['libdpdk-dev', 'python3', 'rdma-core'];
const TIMEOUT_MS = 180_000;
/** Raised when what is in the folder changes. */
const FORMAT = 2;

/** Where that suite's DPDK is, or will be. `peer.json` in it says what is where, as paths from there. */
export function dpdkFolder(suite) {
  const { XDG_CACHE_HOME: cache } = process.env;
  const base = cache?.startsWith('/') ? cache : path.join(homedir(), '.cache');
  return path.join(base, 'netvsc', `dpdk-${suite}-${FORMAT}`);
}

function ran(command, words, options = {}) {
  const { status, stdout, stderr, error } = spawnSync(command, words, {
    ...{ encoding: 'utf8', timeout: TIMEOUT_MS, maxBuffer: 64 << 20 },
    ...options,
  });
  if (error) throw new Error(`${command}: ${error.message}`);
  if (status === 0) return stdout;
  throw new Error(`${command} ${words[0]}: ${stderr.trim().split('\n').at(-1) || `exit code ${status}`}`);
}

/** The mirror that this system has its main packages from. */
function mirror() {
  const format = '$(REPO_URI) $(COMPONENT) $(ORIGIN)/$(LABEL)';
  for (const line of ran('apt-get', ['indextargets', '--format', format, 'Created-By: Packages']).split('\n')) {
    const [uri, component, from] = line.split(' ');
    if (component === 'main' && from === 'Debian/Debian') return uri;
  }
  throw new Error('apt has no lists of a Debian mirror');
}

function fetch(suite, folder) {
  if (!existsSync(KEYS)) throw new Error(`no ${KEYS}`);
  const from = mirror();
  for (const name of ['state/lists/partial', 'cache/archives/partial', 'root']) {
    mkdirSync(path.join(folder, name), { recursive: true });
  }
  writeFileSync(path.join(folder, 'sources.list'), `deb [signed-by=${KEYS}] ${from} ${suite} main\n`);
  const installed = NOT_WANTED.map(
    (name) => `Package: ${name}\nStatus: install ok installed\nVersion: 9:9\nArchitecture: all\nMulti-Arch: foreign\n`,
  );
  writeFileSync(path.join(folder, 'status'), installed.join('\n'));
  const settings = {
    'Dir::Etc::sourcelist': 'sources.list',
    'Dir::Etc::sourceparts': '-',
    'Dir::State': 'state',
    'Dir::State::status': 'status',
    'Dir::Cache': 'cache',
  };
  const lines = Object.entries(settings).map(
    ([key, value]) => `${key} "${value === '-' ? '-' : path.join(folder, value)}";`,
  );
  writeFileSync(path.join(folder, 'apt.conf'), [...lines, 'APT::Sandbox::User "root";', ''].join('\n'));
  const archives = path.join(folder, 'cache/archives');
  const env = { ...process.env, APT_CONFIG: path.join(folder, 'apt.conf'), LC_ALL: 'C' };
  const apt = (command, ...words) => ran(command, words, { env, cwd: archives });
  apt('apt-get', 'update', '-qq', '--error-on=any');
  const version = /^ *dpdk-dev \| +(\S+) /m.exec(apt('apt-cache', 'madison', 'dpdk-dev'))?.[1];
  const driver = /^librte-net-netvsc(\d+)$/m.exec(apt('apt-cache', 'pkgnames', 'librte-net-netvsc'));
  if (!version || !driver) throw new Error(`${suite} has no DPDK with net_netvsc`);
  const more = ['mempool-ring', 'net-null', 'net-pcap', 'net-ring'].map((name) => `librte-${name}${driver[1]}`);
  const wanted = ['dpdk-dev', driver[0], ...more];
  apt('apt-get', 'install', '-y', '-qq', '--no-install-recommends', '--download-only', ...wanted);
  apt('apt-get', 'download', '-qq', `libdpdk-dev=${version}`);
  const root = path.join(folder, 'root');
  for (const name of readdirSync(archives)) {
    if (name.endsWith('.deb')) ran('dpkg-deb', ['-x', path.join(archives, name), root]);
  }
  const triplet = readdirSync(path.join(root, 'usr/lib')).find((name) =>
    existsSync(path.join(root, 'usr/lib', name, 'dpdk')),
  );
  const libraries = `root/usr/lib/${triplet}`;
  const found = (at, pattern) => {
    const name = readdirSync(path.join(folder, at)).find((entry) => pattern.test(entry));
    if (!name) throw new Error(`no ${pattern} in ${at} of ${suite}'s packages`);
    return `${at}/${name}`;
  };
  const [, flags] = /^Cflags:(.*)$/m.exec(
    readFileSync(path.join(folder, libraries, 'pkgconfig/libdpdk-libs.pc'), 'utf8'),
  );
  const peer = {
    version: version.split('-')[0],
    loader: found(libraries, /^ld-linux/),
    libraries,
    plugins: found(`${libraries}/dpdk`, /^pmds-/),
    testpmd: found('root/usr/bin', /^dpdk-testpmd$/),
    include: ['root/usr/include/dpdk', `root/usr/include/${triplet}/dpdk`],
    flags: flags.split(/\s+/).filter((word) => word !== '' && !word.startsWith('-I')),
  };
  writeFileSync(path.join(folder, 'peer.json'), `${JSON.stringify(peer, null, 2)}\n`);
  for (const name of ['state', 'cache']) rmSync(path.join(folder, name), { recursive: true });
}

/** Fetches that suite's DPDK unless it is there. Says in a line what it did, or why not: false then. */
export function prepareDpdk(suite) {
  const target = dpdkFolder(suite);
  if (existsSync(path.join(target, 'peer.json'))) return true;
  let draft;
  try {
    mkdirSync(path.dirname(target), { recursive: true });
    draft = mkdtempSync(`${target}-`);
    fetch(suite, draft);
    renameSync(draft, target);
    process.stdout.write(`dpdk: fetched ${suite}'s packages of DPDK into ${target}\n`);
    return true;
  } catch (error) {
    // Another run may have been faster.
    if (existsSync(path.join(target, 'peer.json'))) return true;
    process.stdout.write(`dpdk: cannot fetch ${suite}'s DPDK, its tests are skipped: ${error.message}\n`);
    return false;
  } finally {
    if (draft) rmSync(draft, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.exit(prepareDpdk(process.argv[2] ?? 'trixie') ? 0 : 1);
}
