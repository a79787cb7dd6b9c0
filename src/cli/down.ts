// netvsc down
import type { Command } from 'commander';
import { takeDown } from '../apps/up/down.js';

export function addDown(program: Command): void {
  program
    .command('down')
    .description("takes an interface of 'netvsc up' away")
    .argument('<name>', 'the interface')
    .option('--netns <name>', 'network namespace that it is in, by name (ip netns) or path')
    .action((name: string, { netns }: { netns?: string }) => takeDown(name, netns));
}
