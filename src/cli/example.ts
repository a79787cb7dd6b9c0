// netvsc example
import type { Command } from 'commander';
import { runExample } from '../apps/example/example.js';
import { SCENES } from '../apps/example/scenes.js';

export function addExample(program: Command): void {
  program
    .command('example')
    .description('a program of examples/ on a machine of the embedded host, with traffic')
    .argument('<name>', SCENES.map(({ name }) => name).join(', '))
    .addHelpText('after', `\nExamples:\n${SCENES.map(({ name, text }) => `  ${name.padEnd(12)} ${text}`).join('\n')}`)
    .action(async (name: string) => {
      process.exitCode = await runExample(name, (line) => process.stdout.write(`${line}\n`));
    });
}
