// Command line: parses, calls the app, prints, sets the exit code. Errors are one line on stderr and exit code 1.
import { Command, CommanderError, Help } from 'commander';
import { packageVersion } from '../apps/package-info.js';

/** Loads a command, in the order of the help. Only the one that was named is loaded: the others take longer than it runs. */
const COMMANDS: Readonly<Record<string, () => Promise<(program: Command) => void>>> = {
  demo: async () => (await import('./demo.js')).addDemo,
  host: async () => (await import('./host.js')).addHost,
  guest: async () => (await import('./guest.js')).addGuest,
  devbind: async () => (await import('./devbind.js')).addDevbind,
  run: async () => (await import('./run.js')).addRun,
  example: async () => (await import('./example.js')).addExample,
  testpmd: async () => (await import('./testpmd.js')).addTestpmd,
  up: async () => (await import('./up.js')).addUp,
  down: async () => (await import('./down.js')).addDown,
  ethtool: async () => (await import('./ethtool.js')).addEthtool,
  xdp: async () => (await import('./xdp.js')).addXdp,
};

async function makeProgram(named: string | undefined): Promise<Command> {
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
  const wanted = named !== undefined && Object.hasOwn(COMMANDS, named) ? [COMMANDS[named]!] : Object.values(COMMANDS);
  for (const load of wanted) (await load())(program);
  const below = (command: Command): Command[] => command.commands.flatMap((one) => [one, ...below(one)]);
  for (const command of below(program)) command.copyInheritedSettings(program).exitOverride();
  return program.exitOverride();
}

try {
  const program = await makeProgram(process.argv[2]);
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode;
  else {
    process.stderr.write(`netvsc: ${(error as Error).message}\n`);
    process.exitCode = 1;
  }
}
