// netvsc ethtool
import type { Command } from 'commander';
import { ethtool, Interfaces } from '../apps/ethtool/ethtool.js';
import { helpText } from '../apps/ethtool/help.js';

const NAME = 'ethtool';
const NETNS = '--netns';

export function addEthtool(program: Command): void {
  // Options behind the name are ethtool's, --version as well.
  program.enablePositionalOptions(process.argv[2] === NAME);
  const command = program
    .command(NAME)
    .description('the words of ethtool, for interfaces of `netvsc up`')
    .helpOption(false)
    .allowUnknownOption()
    .argument('[words...]')
    .action(async () => {
      // The words as they were typed: commander would take "--" and options out.
      process.exitCode = await run(process.argv.slice(process.argv.indexOf(NAME) + 1));
    });
  command.helpInformation = helpText;
}

/** Returns the exit code. */
async function run(words: readonly string[]): Promise<number> {
  const given = words[0] === NETNS;
  if (given && words[1] === undefined) throw new Error(`${NETNS}: expected a name of ip netns, or a path`);
  // Nobody reads any more (a pipe to head): what is left to say is for nobody.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  const interfaces = new Interfaces(given ? words[1] : undefined);
  try {
    return await ethtool(given ? words.slice(2) : words, {
      open: (name) => interfaces.open(name),
      out: (data) => void process.stdout.write(data),
      err: (text) => void process.stderr.write(text),
    });
  } finally {
    interfaces.close();
  }
}
