// Command line: parses, calls the app, prints, sets the exit code. Errors are one line on stderr and exit code 1.
import { Command, CommanderError } from 'commander';
import { packageVersion } from '../apps/package-info.js';
import { addDemo } from './demo.js';
import { addDevbind } from './devbind.js';
import { addDown } from './down.js';
import { addEthtool } from './ethtool.js';
import { addExample } from './example.js';
import { addGuest } from './guest.js';
import { addHost } from './host.js';
import { addRun } from './run.js';
import { addTestpmd } from './testpmd.js';
import { addUp } from './up.js';
import { addXdp } from './xdp.js';

function makeProgram(): Command {
  const program = new Command('netvsc')
    .description('The Hyper-V network device in user space: guest driver, host and virtual switch')
    .version(packageVersion())
    .showSuggestionAfterError(true)
    .configureOutput({ outputError: (text, write) => write(`netvsc: ${text.replace(/^error: /, '')}`) });
  addDemo(program);
  addHost(program);
  addGuest(program);
  addDevbind(program);
  addRun(program);
  addExample(program);
  addTestpmd(program);
  addUp(program);
  addDown(program);
  addEthtool(program);
  addXdp(program);
  const below = (command: Command): Command[] => command.commands.flatMap((one) => [one, ...below(one)]);
  for (const command of below(program)) command.copyInheritedSettings(program).exitOverride();
  return program.exitOverride();
}

try {
  await makeProgram().parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode;
  else {
    process.stderr.write(`netvsc: ${(error as Error).message}\n`);
    process.exitCode = 1;
  }
}
