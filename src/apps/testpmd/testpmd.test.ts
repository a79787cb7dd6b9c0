// testpmd in this process, on net_null: commands one after the other, and what is printed.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PortError } from '../../ethdev/errors.js';
import { affinity } from '../../memory/os/process.js';
import { Interrupted } from '../interrupt.js';
import { packageRoot } from '../package-info.js';
import { testpmd } from './testpmd.js';
import { ValueError } from './values.js';

const CPUS = affinity();
const skip = CPUS.length < 2 && 'one CPU';
const EAL = ['-l', CPUS.slice(0, 2).join(','), '-m', '16', '--vdev', 'net_null0', '--vdev', 'net_null1'];

interface Said {
  readonly out: string;
  readonly errors: string;
}

/** Only to end a test that would hang. */
const PATIENCE_MS = 60_000;

/** A testpmd that runs: types lines, waits for what it says, sends it a signal. */
class Conversation {
  out = '';
  errors = '';
  readonly ended: Promise<void>;
  readonly #input = new PassThrough();
  #interrupt!: (reason: Error) => void;

  constructor(words: readonly string[]) {
    const output = new PassThrough();
    output.on('data', (chunk) => {
      this.out += chunk;
    });
    const happened = new Promise<never>((_, reject) => {
      this.#interrupt = reject;
    });
    happened.catch(() => {});
    this.ended = testpmd(words, {
      out: {
        print: (text) => void output.write(`${text}\n`),
        complain: (text) => {
          this.errors += `${text}\n`;
        },
      },
      terminal: { input: this.#input, output },
      interrupt: { happened, over: () => {} },
    });
    this.ended.catch(() => {}); // whoever waits for it hears of it
  }

  type(...lines: string[]): void {
    for (const line of lines) this.#input.write(`${line}\n`);
  }

  endInput(): void {
    this.#input.end();
  }

  signal(): void {
    this.#interrupt(new Interrupted('SIGINT'));
  }

  /** Waits until it has said that, from offset `since` on. */
  async said(what: RegExp, since = 0): Promise<void> {
    const until = performance.now() + PATIENCE_MS;
    while (!what.test(this.out.slice(since))) {
      assert.ok(performance.now() < until, `it never said ${what}:\n${this.out}\n${this.errors}`);
      await sleep(2);
    }
  }

  /** Waits until a port has done that: "RX" or "TX". */
  async counted(direction: 'RX' | 'TX'): Promise<void> {
    for (;;) {
      const since = this.out.length;
      this.type('show port stats 0');
      await this.said(/Tx-pps.*\n.*\n/, since);
      if (packets(this.out.slice(since), `${direction}-packets`) > 0) return;
    }
  }
}

/** Runs testpmd on lines of commands. */
async function run(words: readonly string[], lines: readonly string[]): Promise<Said> {
  const conversation = new Conversation(words);
  conversation.type(...lines);
  conversation.endInput();
  await conversation.ended;
  await new Promise(setImmediate);
  return conversation;
}

const interactive = (...lines: string[]) => run([...EAL, '--', '-i', '--total-num-mbufs=2048'], lines);

test('a session: ports start, every command is echoed behind the prompt, everything is closed', { skip }, async () => {
  const { out, errors } = await interactive('show port summary all', 'bogus', 'set burst', '# a comment', '', 'quit');
  assert.match(out, /^Interactive-mode selected\nConfiguring Port 0 \(socket 0\)\nPort 0: 02:6E:[0-9A-F:]{11}\n/);
  assert.match(out, /Checking link statuses...\nDone\ntestpmd> show port summary all\nNumber of available ports: 2\n/);
  assert.match(out, /testpmd> bogus\nCommand not found\ntestpmd> set burst\nBad arguments\n/);
  assert.match(
    out,
    /\nStopping port 1...\nStopping ports...\nDone\n\nShutting down port 0...\nClosing ports...\nPort 0 is closed\nDone\n/,
  );
  assert.match(out, /\nBye...\n$/);
  assert.match(errors, /create a new mbuf pool <mb_pool_0>: n=2048, size=2176, socket=0/);
});

test('the end of input ends a session as quit does', { skip }, async () => {
  const { out } = await interactive('start');
  assert.match(out, /Telling cores to stop[\s\S]*Bye...\n$/);
});

/** Packets of a line of statistics. */
const packets = (text: string, line: string): number => Number(new RegExp(`${line}: *(\\d+)`).exec(text)?.[1]);
/** What comes behind the last line that matches. */
const behind = (text: string, line: string): string => text.slice(text.lastIndexOf(line));

for (const mode of ['io', 'mac', 'macswap', 'csum', '5tswap'] as const) {
  test(`mode ${mode} sends on what it receives, and counts it`, { skip }, async () => {
    const words = [...EAL, '--', '-i', '--total-num-mbufs=2048', `--forward-mode=${mode}`, '--no-flush-rx'];
    const conversation = new Conversation(words);
    conversation.type('start tx_first');
    await conversation.counted('RX');
    conversation.type('stop', 'quit');
    await conversation.ended;
    const { out, errors } = conversation;
    const all = behind(out, 'Accumulated forward statistics');
    const [rx, tx] = [packets(all, 'RX-packets'), packets(all, 'TX-packets')];
    assert.ok(rx > 0, out);
    // One burst more was sent, from each of two ports.
    assert.equal(tx, rx + 64);
    assert.match(out, new RegExp(`${mode} packet forwarding - ports=2 - cores=1 - streams=2 - NUMA support enabled`));
    assert.equal(/Bad-ipcsum/.test(out), mode === 'csum');
    assert.doesNotMatch(errors, /rror/);
  });
}

for (const [mode, receives, sends] of [
  ['rxonly', true, false],
  ['txonly', false, true],
  ['flowgen', true, true],
  ['icmpecho', true, false],
] as const) {
  test(`mode ${mode} ${receives ? 'receives' : 'does not receive'}, ${sends ? 'sends' : 'does not send'}`, {
    skip,
  }, async () => {
    const words = [...EAL, '--', '-i', '--total-num-mbufs=2048', `--forward-mode=${mode}`, '--txpkts=100,50'];
    const conversation = new Conversation(words);
    conversation.type('set flush_rx off', 'start');
    if (receives) await conversation.counted('RX');
    if (sends) await conversation.counted('TX');
    conversation.type('quit');
    await conversation.ended;
    const all = behind(conversation.out, 'Accumulated forward statistics');
    assert.equal(packets(all, 'RX-packets') > 0, receives, conversation.out);
    assert.equal(packets(all, 'TX-packets') > 0, sends, conversation.out);
  });
}

test('without -i it forwards until a signal or a key ends it', { skip }, async () => {
  for (const how of ['signal', 'key'] as const) {
    const conversation = new Conversation([...EAL, '--', '--total-num-mbufs=2048', '--tx-first']);
    await conversation.said(
      /No commandline core given, start packet forwarding\nio packet[\s\S]*Press enter to exit\n/,
    );
    if (how === 'signal') conversation.signal();
    else conversation.type('');
    await conversation.ended;
    assert.equal(/\nSignal received, preparing to exit...\n/.test(conversation.out), how === 'signal');
    assert.match(conversation.out, /Telling cores to stop...\n[\s\S]*Accumulated forward[\s\S]*Bye...\n$/);
  }
});

test('Ctrl-C ends the program with statistics, in order', { skip }, async (t) => {
  const main = path.join(packageRoot(), 'dist/src/cli/main.js');
  const child = spawn(process.execPath, [main, 'testpmd', ...EAL, '--', '--stats-period=1', '--total-num-mbufs=2048']);
  t.after(() => child.kill('SIGKILL'));
  let out = '';
  let asked = false;
  child.stdout.on('data', (chunk) => {
    out += chunk;
    // Once: a second signal ends it at once.
    if (asked || !/NIC statistics for port 1/.test(out)) return;
    asked = true;
    child.kill('SIGINT');
  });
  const [code] = await once(child, 'close');
  assert.equal(code, 0);
  assert.match(out, /Signal received, preparing to exit...\nTelling cores to stop...\n[\s\S]*Accumulated forward/);
  assert.match(out, /\nBye...\n$/);
});

test('streams over several queues, by queue, and the counters of each', { skip }, async () => {
  const conversation = new Conversation([...EAL, '--', '-i', '--rxq=2', '--txq=2', '--total-num-mbufs=4096']);
  conversation.type('set flush_rx off', 'start');
  await conversation.counted('RX');
  conversation.type('stop', 'show port xstats 0', 'port stop all', 'port config all rxq 1', 'port config all txq 1');
  conversation.type('port start all', 'show config fwd', 'quit');
  await conversation.ended;
  const { out } = conversation;
  assert.match(out, /ports=2 - cores=1 - streams=4/);
  assert.match(out, /RX P=1\/Q=1 \(socket 0\) -> TX P=0\/Q=1 \(socket 0\) peer=02:00:00:00:00:00/);
  assert.match(
    out,
    /------- Forward Stats for RX Port= 0\/Queue= 0 -> TX Port= 1\/Queue= 0 -------\n {2}RX-packets: [1-9]/,
  );
  assert.match(out, /rx_q1_errors: 0\ntx_q0_packets: \d+/);
  assert.match(behind(out, 'show config fwd'), /streams=2/);
});

test('statistics every second, with counters by name, until a signal comes', { skip }, async () => {
  const words = [...EAL, '--', '--stats-period=1', '--display-xstats=rx_good_packets', '--total-num-mbufs=2048'];
  const conversation = new Conversation(words);
  const period = 'Port statistics ====================================';
  await conversation.said(
    new RegExp(`${period}[\\s\\S]*${period}[\\s\\S]*${period}[\\s\\S]*port 1[\\s\\S]*Rate .*\\n.*\\n`),
  );
  conversation.signal();
  await conversation.ended;
  const { out } = conversation;
  assert.match(out, /\n {31}Value {12}Rate \(since last show\)\n {2}rx_good_packets {10} *\d+ +\d+\n/);
  assert.match(out.split('Port statistics')[3]!, /Rx-pps: +[1-9]\d*/);
  assert.match(out, /Accumulated forward/);
});

test('what is in use cannot be changed, and says so', { skip }, async () => {
  const { errors, out } = await interactive(
    ...[
      'start',
      'start',
      'port stop 0',
      'port close 0',
      'set nbcore 1',
      'port config all rxq 2',
      'csum show 0',
      'stop',
    ],
    ...[
      'stop',
      'port start 0',
      'port stop 0',
      'start',
      'port close 1',
      'port start 9',
      'port config mtu 1 1400',
      'show port info 7',
      'quit',
    ],
  );
  const expected = [
    'Packet forwarding already started',
    'Please remove port 0 from forwarding configuration.',
    'Please remove port 0 from forwarding configuration.',
    'Please stop forwarding first',
    'Please stop all ports first',
    'Please stop port 0 first',
    'Packet forwarding not started',
    'Port 0 is now not stopped',
    'Please stop the ports first',
    'Not all ports were started',
    'Cannot close started device (port 1)',
    'Invalid port 9',
  ];
  const lines = errors.trim().split('\n').slice(1);
  assert.deepEqual(lines.slice(0, expected.length), expected);
  assert.match(lines[expected.length]!, /MTU: the port has to be stopped first/);
  assert.match(out, /The valid ports array is \[ 0 1 \]/);
});

test('a closed port is gone, a reset one is configured anew', { skip }, async () => {
  const { out, errors } = await interactive(
    ...[
      'port stop all',
      'port config mtu 0 1400',
      'port close 1',
      'port reset 0',
      'show port info 1',
      'port start all',
    ],
    ...['show port info 0', 'start', 'stop', 'quit'],
  );
  assert.match(errors, /Invalid port 1\n/);
  assert.match(out, /Resetting ports...\nDone\n/);
  assert.match(behind(out, 'port start all'), /Configuring Port 0/);
  assert.match(out, /MTU: 1400\nMinimum MTU: 68\n/);
  assert.match(out, /ports=1 - cores=1 - streams=1/);
  assert.match(errors, /port-topology=paired and odd forward ports number/);
});

test('a port that another one is around of is not there by itself', { skip }, async () => {
  const words = [...EAL, '--vdev', 'net_impair0,port=net_null0', '--', '-i', '--total-num-mbufs=2048'];
  const { out, errors } = await run(words, ['show port summary all', 'show port info 0', 'start', 'stop', 'quit']);
  assert.match(out, /Number of available ports: 2\n.*\n1 .* net_null1 .*\n2 .* net_impair0 /);
  assert.match(errors, /Invalid port 0\n/);
  assert.match(out, /RX P=1\/Q=0 \(socket 0\) -> TX P=2\/Q=0/);
});

test('settings: burst, made packets, peers, cores, ports, modes', { skip }, async () => {
  const { out, errors } = await interactive(
    ...['set burst 64', 'set burst 600', 'set burst 0', 'set txpkts 64,128', 'show config txpkts', 'set txpkts 7'],
    ...['set eth-peer 0 00:11:22:33:44:55', 'set eth-peer 0 zz', 'set eth-peer 7 00:11:22:33:44:55', 'set fwd bogus'],
    ...['set corelist 999', 'set portlist 1', 'show config cores', 'set fwd mac retry', 'show config fwd'],
    ...['set burst tx delay 5 retry 3', 'set default', 'show config rxtx', 'set verbose 1', 'set verbose 0', 'quit'],
  );
  assert.match(out, /Number of packets per burst set to 64\n/);
  assert.match(out, /Number of segments: 2\nSegment sizes: 64,128\nSplit packet: off\n/);
  assert.match(out, /previous number of forwarding ports 2 - changed to number of configured ports 1\n/);
  assert.match(out, new RegExp(`List of forwarding lcores: ${String(CPUS[1]).padStart(2)}\n`));
  assert.match(out, /Set mac packet forwarding mode with retry\n/);
  assert.match(out, /TX retry num: 64, delay between TX retries: 1us\n/);
  assert.match(out, /Change verbose level from 0 to 1\n.*\nChange verbose level from 1 to 0\n/);
  assert.match(
    behind(out, 'set default'),
    /mac packet forwarding with retry packets\/burst=64\n {2}nb forwarding cores=1 - nb forwarding ports=2\n/,
  );
  const lines = errors.trim().split('\n');
  for (const expected of [
    'nb pkt per burst: 600 > 512 (maximum packet per burst)  ignored',
    'burst must be >= 1 && <= 512',
    'expected 42 to 65535 bytes in all, got "7"',
    'Error: Invalid ethernet address: zz',
    'Error: Invalid port number 7',
    'Bad arguments',
    'lcore 999 not enabled',
  ])
    assert.ok(lines.includes(expected), `${expected}\n${errors}`);
});

test('what net_null has not is refused with the words of testpmd', { skip }, async () => {
  const { errors } = await interactive(
    ...['show port 0 rss-hash', 'show port 0 rss reta 128 (0x1,0x1)', 'port config 0 rss reta (0,0)', 'tso show 0'],
    ...['show port 0 rxq 0 desc 0 status', 'show port 0 rxq 0 desc used count', 'show rxq info 0 9', 'port stop 0'],
    ...['csum set ip hw 0', 'port config all rss ip', 'port config 0 rx_offload vlan_strip on', 'port start 0', 'quit'],
  );
  const expected = [
    /dev_info did not provide a valid hash key size/,
    /Invalid redirection table size: 128 \(1-0\)/,
    /Redirection table size is 0 which is invalid for RSS/,
    /Error: TSO is not supported by port 0/,
    /Invalid input: queue id = 0, desc id = 0/,
    /Rx queue count get failed rc=-95 queue_id=0/,
    /Failed to retrieve information for port: 0, RX queue: 9/,
    /error desc: Invalid argument\(-22\)/,
    /IP checksum offload is not supported by port 0/,
    /Configuration of RSS hash at ethernet port 0 failed with error \(95\): Operation not supported\./,
    /Configuration of RSS hash at ethernet port 1 failed with error \(95\): Operation not supported\./,
    /rx offloads: unsupported 0x1 \(VLAN_STRIP\)/,
    /Fail to configure port 0/,
  ];
  const lines = errors.trim().split('\n').slice(1);
  assert.equal(lines.length, expected.length, errors);
  for (const [i, line] of lines.entries()) assert.match(line, expected[i]!);
});

test('help: sections, and every command in one of them', { skip }, async () => {
  const { out } = await interactive('help', 'help ports', 'quit');
  assert.match(out, /help control {20}: Start and stop forwarding\./);
  assert.match(out, /Port Operations:\n-{16}\n\nport start\|stop\|close\|reset <port\|all>\n {4}Let/);
});

for (const [words, expected] of [
  [['-l', String(CPUS[0]), '--vdev', 'net_null0'], /No cores defined for forwarding/],
  [[...EAL, '--', '--nb-cores=9'], /--nb-cores: expected 1 to 1 \(option -l\), got 9/],
  [[...EAL, '--', '--rxq=65'], /--rxq: expected at most 64, the limit of port 0 \(net_null0\), got 65/],
  [[...EAL, '--', '--portmask=8'], /--portmask: expected ports below 2, got 3/],
  [[...EAL, '--', '--nb-ports=3'], /--nb-ports: expected 1 to 2, got 3/],
  [[...EAL, '--', '--rx-interrupts'], /--rx-interrupts: port 0 \(net_null0\) has none/],
  [[...EAL, '--', '--cmdline-file=/no/such/file'], /--cmdline-file: ENOENT/],
  [
    [...EAL, '--', '--total-num-mbufs=100000'],
    /mempool mb_pool_0: expected .* MiB of packet memory, got 16 \(option -m\)/,
  ],
  [['--vdev', 'net_bogus0'], /no driver for it/],
  [[...EAL, '--', '--tx-offloads=0x8'], /port 0 \(net_null0\): tx offloads: unsupported 0x8 \(TCP_CKSUM\)/],
  [[...EAL, '--', '--rx-offloads=0x80000000'], /port 0 \(net_null0\): rx offloads: unsupported 0x80000000$/],
  [[...EAL, '--machine', 'no-such-machine'], /no machine at .*no-such-machine: is its host running/],
  [[...EAL, '--machine', 'no such'], /no such/],
  [[...EAL, '--root', '/nowhere'], /no machine at \/nowhere/],
] as const) {
  test(`${words.slice(-1)}: refused in one line, nothing is left`, { skip }, async () => {
    await assert.rejects(run(words, []), (error: Error) => {
      assert.ok(error instanceof ValueError || error instanceof PortError, String(error));
      assert.match(error.message, expected);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  });
}
