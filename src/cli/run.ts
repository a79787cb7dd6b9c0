// netvsc run
import type { Command } from 'commander';
import { type RunOptions, run } from '../apps/run/run.js';

export function addRun(program: Command): void {
  program
    .command('run')
    .description("any program on a machine's devices: /sys/bus/vmbus and /dev/uioN are the machine's")
    .usage('--machine <name> -- <command> [arguments...]')
    .requiredOption('--machine <name>', "whose devices, by the machine's name or the path of its directory")
    .argument('<command...>', 'the program and its arguments, behind "--"')
    .addHelpText(
      'after',
      `
A preload shim does it, so the program must be dynamically linked and not setuid.
DPDK (no root needed): dpdk-testpmd --no-huge --no-pci --no-shconf -m 160 ...`,
    )
    .action(async (command: string[], { machine }: Pick<RunOptions, 'machine'>) => {
      process.exitCode = await run({ machine, command });
    });
}
