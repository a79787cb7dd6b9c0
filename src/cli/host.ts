// netvsc host
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type HostReady, runHost } from '../apps/host/host.js';
import { exitCodeOf } from '../apps/interrupt.js';
import type { ProfileName } from '../host/profiles.js';
import { parseUplink, UPLINK_FORMS, type UplinkSpec } from '../host/uplinks/index.js';
import { jsonOption, nicsOption, parser, profileOption } from './limits.js';

const MACHINE = /^[A-Za-z0-9_.-]{1,64}$/;

interface Given {
  readonly machine: string;
  readonly nics: number;
  readonly uplink: readonly UplinkSpec[];
  readonly profile: ProfileName;
  readonly json: boolean;
}

export function addHost(program: Command): void {
  const one = parser(parseUplink);
  program
    .command('host')
    .description('the Hyper-V side of a machine, for guests in other processes, until it is ended by a signal')
    .addOption(
      new Option('--machine <name>', 'name of the machine directory').makeOptionMandatory().argParser(machineName),
    )
    .addOption(nicsOption(1))
    .addOption(
      new Option('--uplink <spec>', 'what else is on the switch; may be given several times')
        .default([])
        .argParser((text: string, before: UplinkSpec[]) => [...before, one(text)]),
    )
    .addOption(profileOption())
    .addOption(jsonOption())
    .addHelpText('after', `\nUplinks:\n${UPLINK_FORMS.map((form) => `  ${form}`).join('\n')}`)
    .action(host);
}

function machineName(text: string): string {
  if (MACHINE.test(text) && text !== '.' && text !== '..') return text;
  throw new InvalidArgumentError('expected 1 to 64 letters, digits, "_", "." or "-"');
}

async function host({ uplink, json, ...options }: Given): Promise<void> {
  const print = (document: unknown) => process.stdout.write(`${JSON.stringify(document)}\n`);
  const ready = json ? print : (facts: HostReady) => process.stdout.write(readyText(facts));
  const { ended, state } = await runHost({ ...options, uplinks: uplink }, ready);
  if (json) print(state);
  else process.stderr.write(`netvsc: ${ended.message}; the machine is removed\n`);
  process.exitCode = exitCodeOf(ended);
}

function readyText({ machine, path, profile, nics }: HostReady): string {
  const lines = nics.map(({ uuid, mac }, i) => `  nic${i}  ${mac}  ${uuid}`);
  return `machine ${machine}, profile ${profile}, in ${path}\n${lines.join('\n')}\nend it with Ctrl-C\n`;
}
