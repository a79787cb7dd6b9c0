// docs/linux.md: every command of it, in its order, does what the page shows; and both languages have the same ones.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { packageRoot } from '../../src/apps/package-info.js';
import { noTapReason } from '../../src/memory/os/tap-testing.js';

const root = packageRoot();
const read = (file: string) => readFileSync(path.join(root, 'docs', file), 'utf8');
const blocks = (text: string): string[] =>
  [...text.matchAll(/^```console\n([\s\S]*?)^```$/gm)].map(([, code]) => code!);
const guide = read('linux.md');

/** Only to end a test that would hang, or that waits in vain for a line of a process in the background. */
const LATE_MS = 90_000;
const LATE_LINE_MS = 20_000;
const NEEDED = ['ip', 'ping', 'iperf3', 'curl', 'unshare', 'perl', 'sed'];

function skipReason(): string | false {
  if (process.getuid!() !== 0) return 'needs root';
  const missing = NEEDED.find((program) => spawnSync(program, ['--version']).error !== undefined);
  return missing === undefined ? noTapReason() : `needs ${missing}`;
}

interface Step {
  readonly command: string;
  /** Lines that must come, in this order, others between them; none: nothing may come. */
  readonly shown: readonly string[];
  readonly background: boolean;
  readonly fails: boolean;
}

function stepsOf(block: string): Step[] {
  return block
    .split(/^\$ /m)
    .slice(1)
    .map((part) => {
      const [command, ...shown] = part.trimEnd().split('\n') as [string, ...string[]];
      const fails = /^(netlink error: |Could not |netvsc: (?!ended)|Device ".*" does not exist)/.test(
        shown.at(-1) ?? '',
      );
      return { command, shown, background: command.endsWith('&'), fails };
    });
}

/** What varies: times, rates, counts of packets, how many CPUs there are. */
const VARYING: readonly RegExp[] = [
  /\d{4}-\d\d-\d\dT[\d:.]+Z/,
  /\d+\.\d+(?=\s+(ms|sec|[KMG]?Bytes|[KMG]?bits\/sec))/,
  /\d+(?=ms\b| queues)/,
  /(?<=packets: )\d+/,
  /(?<=_packets_total\{interface="hv1"\} )\d+/,
  /(?<=bits\/sec +)\d+(?= +sender)/,
  /(?<=0\.00-)\d\.\d+/,
];
const varying = new RegExp(VARYING.map(({ source }) => source).join('|'), 'g');

function pattern(line: string): RegExp {
  let source = '';
  let at = 0;
  const literal = (text: string) => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&').replace(/[ \t]+/g, '\\s+');
  for (const found of line.matchAll(varying)) {
    source += `${literal(line.slice(at, found.index))}[\\d.:TZ-]+`;
    at = found.index + found[0].length;
  }
  // A rate's unit follows its number.
  source = (source + literal(line.slice(at))).replace(/\b[KMG](?=Bytes|bits)/g, '[KMG]?');
  return new RegExp(`^${source.replace('queues', 'queues?')}`);
}

/** The first line that did not come, or undefined. */
function missing(shown: readonly string[], output: string): string | undefined {
  const lines = output.split('\n').values();
  return shown.find((line) => {
    const wanted = pattern(line);
    for (const came of lines) if (wanted.test(came)) return false;
    return true;
  });
}

/** In place of systemd's: starts what the unit says, and waits until it says that it is ready. */
const SYSTEMCTL = `#!/bin/bash
set -e
unit=/etc/systemd/system/netvsc-up@.service
name=\${@: -1}; name=\${name#netvsc-up@}
value() { sed -n "s/^$1=//p" $unit | sed "s/%i/$name/g"; }
case "$1" in
daemon-reload) [ -f $unit ] ;;
enable)
  [ "$(value Type)" = notify ]
  . "$(value EnvironmentFile)"
  start=$(value ExecStart); start=\${start% \\$NETVSC_OPTIONS}
  perl -MSocket -e 'socket(S, PF_UNIX, SOCK_DGRAM, 0); bind(S, pack_sockaddr_un("/run/notify")) or die; alarm 60; recv(S, $t, 4096, 0); exit($t =~ /^READY=1/ ? 0 : 1)' &
  manager=$!
  while [ ! -S /run/notify ]; do sleep 0.05; done
  NOTIFY_SOCKET=/run/notify setsid $start $NETVSC_OPTIONS >/run/journal 2>&1 &
  echo $! >/run/service.pid
  wait $manager ;;
disable)
  kill "$(cat /run/service.pid)"
  while kill -0 "$(cat /run/service.pid)" 2>/dev/null; do sleep 0.05; done ;;
*) exit 2 ;;
esac
`;

/** A folder with what the commands expect in the current one. */
function workplace(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'netvsc-linux-doc-'));
  // After the tests' own ends: a shell has its /etc in there.
  after(() => rmSync(folder, { recursive: true, force: true }));
  const script = (file: string, text: string) => {
    writeFileSync(path.join(folder, file), text);
    chmodSync(path.join(folder, file), 0o755);
  };
  // Not ./netvsc itself: that would build when a source is newer, in the middle of other tests.
  script('netvsc', `#!/bin/sh\nexec '${process.execPath}' '${root}/dist/src/cli/main.js' "$@"\n`);
  mkdirSync(path.join(folder, 'bin'));
  script('bin/systemctl', SYSTEMCTL);
  symlinkSync(path.join(root, 'share'), path.join(folder, 'share'));
  return folder;
}

/** A shell as root of a machine of its own: network, processes, /run and /etc. What it leaves ends with it. */
class Shell {
  readonly #child;
  #output = '';
  #wake: () => void = () => {};

  constructor(t: TestContext, folder: string) {
    const words = '--mount --net --pid --fork --kill-child=KILL --mount-proc bash --norc --noprofile'.split(' ');
    const { XDG_RUNTIME_DIR: _, NOTIFY_SOCKET: __, ...env } = process.env;
    this.#child = spawn('unshare', words, {
      cwd: folder,
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...env, PATH: `${folder}/bin:${env.PATH}`, LC_ALL: 'C' },
    });
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#output += text;
        this.#wake();
      });
    const closed = once(this.#child, 'close');
    t.after(async () => {
      this.#child.kill('SIGKILL');
      await closed;
    });
  }

  /** Runs a command until it has ended and everything that is shown has come. Returns output and exit code. */
  async run(command: string, shown: readonly string[] = []): Promise<{ output: string; code: number }> {
    this.#output = '';
    this.#child.stdin.write(`{\n${command}\n} </dev/null\necho "@@@ $?"\n`);
    const end = /^@@@ (\d+)\n/m;
    let late = performance.now() + LATE_MS;
    for (let ended = false; ; ) {
      const code = end.exec(this.#output)?.[1];
      const output = this.#output.replace(end, '');
      if (code !== undefined && missing(shown, output) === undefined) return { output, code: Number(code) };
      if (code !== undefined && !ended) {
        ended = true;
        late = performance.now() + LATE_LINE_MS;
      }
      const over = performance.now() > late || this.#child.exitCode !== null;
      assert.ok(!over, `${command}\ndid not show ${JSON.stringify(missing(shown, output))}, but:\n${output}`);
      await Promise.race([
        new Promise<void>((resolve) => {
          this.#wake = resolve;
        }),
        new Promise((resolve) => setTimeout(resolve, 500)),
      ]);
    }
  }
}

test('every command of the guide does what the page shows', { skip: skipReason() }, async (t) => {
  const folder = workplace();
  const shell = new Shell(t, folder);
  const etc = path.join(folder, 'etc');
  const prepare = [
    'mount --make-rprivate /',
    'mount -t tmpfs none /run',
    `mkdir ${etc} && cp -a /etc/. ${etc}/ && mount --bind ${etc} /etc`,
    'mkdir -p /run/netns /etc/systemd/system',
    'ip link set lo up',
  ];
  assert.equal((await shell.run(prepare.join(' && '))).code, 0);
  const steps = blocks(guide).flatMap(stepsOf);
  assert.ok(steps.length > 50, `${steps.length} commands`);
  for (const { command, shown, background, fails } of steps) {
    const { output, code } = await shell.run(command, shown);
    if (!background) assert.equal(code !== 0, fails, `${command}\nended with ${code}:\n${output}`);
    if (shown.length === 0) assert.equal(output, '', command);
  }
  const left = await shell.run('ip -brief link; ls /run/netvsc');
  assert.doesNotMatch(left.output, /hv\d\b(?!.*\.log)|lab|attic/);
});

test('the unit is one that systemd understands', async (t) => {
  if (spawnSync('systemd-analyze', ['--version']).error) return t.skip('needs systemd-analyze');
  const folder = workplace();
  const unit = readFileSync(path.join(root, 'share/netvsc-up@.service'), 'utf8').replaceAll(
    '/usr/local/lib/netvsc',
    folder,
  );
  const file = path.join(folder, 'netvsc-up@hv0.service');
  writeFileSync(file, unit);
  mkdirSync(path.join(folder, 'docs'));
  const { status, stderr } = spawnSync('systemd-analyze', ['verify', file], { encoding: 'utf8', timeout: 60_000 });
  assert.equal(status, 0, stderr);
  assert.doesNotMatch(stderr, /netvsc-up@/);
});

test('both languages have the same commands, options and links', () => {
  const chinese = read('linux.zh-CN.md');
  assert.deepEqual(blocks(chinese), blocks(guide));
  const options = (text: string) => [...text.matchAll(/^\| (`--[^|]*`) \|/gm)].map(([, name]) => name);
  assert.deepEqual(options(chinese), options(guide));
  assert.equal(chinese.split('\n| ').length, guide.split('\n| ').length);
  assert.equal(chinese.split('\n## ').length, guide.split('\n## ').length);
  const links = (text: string) =>
    [...text.matchAll(/\]\(([a-z]+)(?:\.zh-CN)?\.md[)#]/g)].map(([, page]) => page).sort();
  assert.deepEqual(links(chinese), links(guide));
});

test('contents lead to headings, in both languages', () => {
  for (const file of ['linux.md', 'linux.zh-CN.md']) {
    const text = read(file);
    const anchors = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
      heading!
        .toLowerCase()
        .replace(/[^\p{L}\p{N}_ -]/gu, '')
        .replaceAll(' ', '-'),
    );
    const wanted = [...text.matchAll(/\]\(#([^)]*)\)/g)].map(([, anchor]) => anchor!);
    assert.ok(wanted.length >= 15, file);
    for (const anchor of wanted) assert.ok(anchors.includes(anchor), `${file}: #${anchor}`);
  }
});
