// netvsc testpmd
import type { Command } from 'commander';
import { onInterrupt } from '../apps/interrupt.js';
import { optionsUsage, parseTestpmdOptions } from '../apps/testpmd/options.js';
import { processOutput } from '../apps/testpmd/output.js';
import { splitWords, testpmd } from '../apps/testpmd/testpmd.js';
import { ealUsage } from '../ethdev/eal-options.js';

const NAME = 'testpmd';

const usage = (): string => `Usage: netvsc testpmd [EAL options] -- [testpmd options]

Forwards packets between ports; options, commands and texts are those of DPDK's testpmd.

${ealUsage('all allowed ones')}

testpmd options:
${optionsUsage()}

Example, two ports that discard what they are sent:
  netvsc testpmd -l 0,1 --vdev net_null0 --vdev net_null1 -- -i
`;

export function addTestpmd(program: Command): void {
  const command = program
    .command(NAME)
    .description("forwards packets between ports of the poll-mode API, as DPDK's testpmd")
    .allowUnknownOption()
    .argument('[words...]')
    .action(async () => {
      // The words as they were typed: commander would take "--" and options out.
      const words = process.argv.slice(process.argv.indexOf(NAME) + 1);
      if (parseTestpmdOptions(splitWords(words).own).help) process.stdout.write(usage());
      else await run(words);
    });
  command.helpInformation = usage;
}

async function run(words: readonly string[]): Promise<void> {
  const interrupt = onInterrupt(() => {});
  const terminal = { input: process.stdin, output: process.stdout };
  // Nobody reads any more (a pipe to head, a closed terminal): an end in order, in silence.
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', () => void process.emit('SIGHUP', 'SIGHUP'));
  try {
    await testpmd(words, { out: processOutput, terminal, interrupt });
  } finally {
    interrupt.over();
  }
}
