// netvsc up
import { type Command, InvalidArgumentError, Option } from 'commander';
import { parseWhole } from '../apps/demo/options.js';
import { exitCodeOf } from '../apps/interrupt.js';
import { isDaemon, startDaemon, tellStarter, writePid } from '../apps/up/daemon.js';
import { tellServiceManager } from '../apps/up/service.js';
import { runUp, type UpOptions, type UpReady } from '../apps/up/up.js';
import { isInterfaceName } from '../memory/os/netlink.js';
import { type MetricsAddress, parseMetricsAddress } from '../netdev/metrics.js';
import { MAX_QUEUES } from '../netvsc/scaling.js';
import { MAX_MTU, MIN_MTU } from '../netvsc/types.js';
import { jsonOption, parser } from './limits.js';

interface Given {
  readonly machine?: string;
  readonly root?: string;
  readonly vdev?: string;
  readonly device: number | string;
  readonly netns?: string;
  readonly queues?: number;
  readonly mtu?: number;
  readonly wait: boolean;
  readonly metrics?: MetricsAddress;
  readonly daemon: boolean;
  readonly json: boolean;
}

const whole = (min: number, max: number) => parser((text) => parseWhole({ min, max }, text));

export function addUp(program: Command): void {
  program
    .command('up')
    .description('a Linux interface whose driver is ours, on a device of a machine, until it is ended by a signal')
    .argument('<name>', 'what the interface is called', interfaceName)
    .option('--machine <name>', 'machine to attach to, by name or by the path of its directory')
    .addOption(
      new Option('--root <dir>', "the same by path; '/': a device of this system, on Hyper-V or Azure").conflicts(
        'machine',
      ),
    )
    .addOption(
      new Option('--vdev <spec>', 'any other port instead, as in net_ring0,...').conflicts(['machine', 'root']),
    )
    .addOption(new Option('--device <which>', "a device's number from 0 on, or its UUID").default(0).argParser(device))
    .option('--netns <name>', 'network namespace for the interface, by name (ip netns) or path')
    .addOption(
      new Option('--queues <count>', 'queue pairs (default: 16, or as many as there are CPUs or channels)').argParser(
        whole(1, MAX_QUEUES),
      ),
    )
    .addOption(new Option('--mtu <bytes>', "default: the host's").argParser(whole(MIN_MTU, MAX_MTU)))
    .option('--wait', 'keep the interface when the host goes, and go on when it is there again', false)
    .addOption(
      new Option('--metrics <address>', 'counters for Prometheus at http://ADDRESS:PORT/metrics').argParser(metrics),
    )
    .option('--daemon', "go on in the background, once the interface is there; 'netvsc down' ends it", false)
    .addOption(jsonOption())
    .action(up);
}

function interfaceName(text: string): string {
  if (isInterfaceName(text)) return text;
  throw new InvalidArgumentError('expected 1 to 15 bytes without / : or blanks');
}

export function device(text: string): number | string {
  if (/^\d{1,3}$/.test(text)) return Number(text);
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) return text.toLowerCase();
  throw new InvalidArgumentError('expected a number from 0 on, or a UUID');
}

function metrics(text: string): MetricsAddress {
  const found = parseMetricsAddress(text);
  if (found) return found;
  throw new InvalidArgumentError('expected PORT (of 127.0.0.1) or ADDRESS:PORT, as in 127.0.0.1:9100');
}

function optionsOf(name: string, given: Given): UpOptions {
  const { device, queues, mtu, vdev, netns, wait, metrics } = given;
  const machine = given.machine ?? given.root;
  return {
    ...{ name, device, wait },
    ...(machine !== undefined && { machine }),
    ...(vdev !== undefined && { vdev }),
    ...(netns !== undefined && { network: netns }),
    ...(queues !== undefined && { queues }),
    ...(mtu !== undefined && { mtu }),
    ...(metrics !== undefined && { metrics }),
  };
}

async function up(name: string, given: Given): Promise<void> {
  const options = optionsOf(name, given);
  const tell = (ready: UpReady) => {
    process.stdout.write(given.json ? `${JSON.stringify({ type: 'ready', ...ready })}\n` : readyText(ready));
  };
  if (!given.daemon) {
    const log = (line: string) => void process.stderr.write(`${line}\n`);
    const ready = (facts: UpReady) => {
      tell(facts);
      tellServiceManager(readyText(facts).trimEnd(), log);
    };
    const ended = await runUp(options, ready, log);
    process.exitCode = ended ? exitCodeOf(ended) : 0;
  } else if (isDaemon()) await daemon(options);
  else tell(await startDaemon(options, process.argv.slice(2)));
}

/** The background process: its output is the log. */
async function daemon(options: UpOptions): Promise<void> {
  const say = (line: string) => process.stderr.write(`${new Date().toISOString()} ${line}\n`);
  try {
    const ended = await runUp(
      options,
      (ready) => {
        writePid(options);
        say(readyText(ready).trimEnd());
        tellStarter({ ready });
      },
      say,
    );
    say(ended ? ended.message : 'taken down');
  } catch (error) {
    const { message } = error as Error;
    say(message);
    tellStarter({ error: message });
    process.exitCode = 1;
  }
}

function readyText({ name, device, mac, mtu, queues, link }: UpReady): string {
  const count = `${queues} queue${queues === 1 ? '' : 's'}`;
  return `${name}: ${device}, ${mac}, MTU ${mtu}, ${count}, link ${link ? 'up' : 'down'}\n`;
}
