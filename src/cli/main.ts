// Command line: parses, calls the app, prints, sets the exit code. Errors are one line on stderr and exit code 1.
import { Command, CommanderError, Help } from 'commander';
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

function makeProgram(): Command {
  const program = new Command('netvsc')
    .description('The Hyper-V network device in user space: guest driver, host and virtual switch')
    .version(packageVersion())
    .showSuggestionAfterError(true)
    // That a flag is off unless it is given says nothing.
    .configureHelp({
      optionDescription(option) {
        return option.defaultValue === false ? option.description : Help.prototype.optionDescription.call(this, option);
      },
    })
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
  const commands = program.commands.flatMap((command) => [command, ...command.commands]);
  for (const command of commands) command.copyInheritedSettings(program).exitOverride();
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
