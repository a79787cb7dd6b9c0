// netvsc guest
import { type Command, InvalidArgumentError, Option } from 'commander';
import { parseWhole } from '../apps/demo/options.js';
import { type GuestAppEvent, type GuestAppOptions, runGuest } from '../apps/guest/guest.js';
import { exitCodeOf } from '../apps/interrupt.js';
import { MAX_QUEUES } from '../netvsc/scaling.js';
import { parseIpv4 } from '../wire/address-text.js';
import { jsonOption, mtuOption, parser, secondsOption } from './limits.js';

const QUEUES = { min: 1, max: MAX_QUEUES };

interface Given {
  readonly machine?: string;
  readonly root?: string;
  readonly nic: number | string;
  readonly tap?: string;
  readonly echo?: string;
  readonly generate?: string;
  readonly target?: string;
  readonly mtu: number;
  readonly queues: number;
  readonly seconds?: number;
  readonly wait: boolean;
  readonly json: boolean;
}

export function addGuest(program: Command): void {
  program
    .command('guest')
    .description("our driver on a machine of another process ('netvsc host'), with an interface or a station behind it")
    .option('--machine <name>', 'machine to attach to, by name or by the path of its directory')
    .addOption(
      new Option('--root <dir>', "the same by path; '/': a device of this system, on Hyper-V or Azure").conflicts(
        'machine',
      ),
    )
    .addOption(new Option('--nic <which>', "a NIC's number from 0 on, or its UUID").default(0).argParser(nic))
    .addOption(new Option('--tap <name>', 'give it a TAP interface of that name').conflicts(['echo', 'generate']))
    .addOption(new Option('--echo <address>', 'answer ARP, ping and UDP port 7 at this IPv4 address').argParser(ipv4))
    .addOption(
      new Option('--generate <address>', 'send UDP from this IPv4 address to port 7 of --target')
        .argParser(ipv4)
        .conflicts('echo'),
    )
    .addOption(new Option('--target <address>', 'who --generate sends to').argParser(ipv4))
    .addOption(mtuOption())
    .addOption(
      new Option('--queues <count>', `channels wanted, 1 to ${MAX_QUEUES}; the host may give fewer`)
        .default(1)
        .argParser(parser((text) => parseWhole(QUEUES, text))),
    )
    .addOption(secondsOption('end by itself after that time'))
    .option('--wait', 'wait for a host that is not there yet, and for the next one when it goes', false)
    .addOption(jsonOption())
    .action(guest);
}

function nic(text: string): number | string {
  if (/^\d{1,3}$/.test(text)) return Number(text);
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) return text.toLowerCase();
  throw new InvalidArgumentError('expected a number from 0 on, or a UUID');
}

function ipv4(text: string): string {
  if (parseIpv4(text)) return text;
  throw new InvalidArgumentError('expected an IPv4 address');
}

function traffic({ tap, echo, generate, target }: Given): GuestAppOptions['traffic'] {
  if (tap !== undefined) return { mode: 'tap', tap };
  if (echo !== undefined) return { mode: 'echo', address: echo };
  if (generate !== undefined && target !== undefined) return { mode: 'generate', address: generate, target };
  throw new Error('expected one of --tap, --echo, or --generate with --target');
}

async function guest(given: Given): Promise<void> {
  const { mtu, queues, seconds, wait, json } = given;
  const machine = given.machine ?? given.root;
  if (machine === undefined) throw new Error('expected one of --machine or --root');
  const options: GuestAppOptions = {
    ...{ machine, nic: given.nic, traffic: traffic(given), mtu, queues, reattach: wait },
    ...(seconds === undefined ? {} : { seconds }),
  };
  const report = (event: GuestAppEvent) => {
    if (json) process.stdout.write(`${JSON.stringify(event)}\n`);
    else process.stderr.write(`${eventText(event)}\n`);
  };
  const { ended, stats } = await runGuest(options, report);
  if (json) process.stdout.write(`${JSON.stringify({ type: 'ended', stats })}\n`);
  else process.stdout.write(statsText(stats));
  process.exitCode = ended ? exitCodeOf(ended) : 0;
}

function eventText(event: GuestAppEvent): string {
  if (event.type === 'attached') {
    const { mac, mtu, nvspVersion, linkUp, queues } = event.info;
    const channels = queues > 1 ? `, ${queues} queues` : '';
    return `attached to ${event.uuid} in ${event.path}: ${mac}, MTU ${mtu}, NVSP 0x${nvspVersion.toString(16)}, link ${linkUp ? 'up' : 'down'}${channels}`;
  }
  const { type, ...facts } = event;
  const text = Object.entries(facts).map(([name, value]) => `${name} ${value}`);
  return [`${type}:`, text.join(', ')].join(' ');
}

/** Counters that are not zero, a line each. */
function statsText(stats: Readonly<Record<string, number>>): string {
  const lines = Object.entries(stats).filter(([, value]) => value !== 0);
  const width = Math.max(0, ...lines.map(([name]) => name.length));
  return lines.map(([name, value]) => `  ${name.padEnd(width)}  ${value}\n`).join('');
}
