// netvsc demo
import type { Command } from 'commander';
import { runDemo } from '../apps/demo/demo.js';
import { detectEnvironment, startInUserNamespace } from '../apps/demo/environment.js';
import { type DemoOptions, NICS } from '../apps/demo/options.js';
import { plainProgress, silent, terminalProgress } from '../apps/demo/progress.js';
import { renderTables } from '../apps/demo/table.js';
import { exitCodeOf, Interrupted } from '../apps/interrupt.js';
import { jsonOption, mtuOption, nicsOption, profileOption, secondsOption } from './limits.js';

export function addDemo(program: Command): void {
  program
    .command('demo')
    .description(
      'two or more NICs on one switch, real traffic of this machine between them, and a table of what happened',
    )
    .addOption(nicsOption(NICS.min))
    .addOption(profileOption())
    .addOption(mtuOption())
    .addOption(secondsOption('how long each transfer runs (without it: 1 GiB by TCP, and shorter ones)'))
    .addOption(jsonOption())
    .action(demo);
}

async function demo(options: DemoOptions): Promise<void> {
  const environment = detectEnvironment();
  if (environment.mode === 'user namespace') {
    process.exitCode = await startInUserNamespace();
    return;
  }
  const log = (line: string) => process.stderr.write(`${line}\n`);
  // A terminal of no size (script(1) makes such) cannot have lines that change in place.
  const { isTTY, rows, columns } = process.stderr;
  const changing = isTTY && rows > 0 && columns > 0;
  const progress = options.json ? silent : changing ? terminalProgress(process.stderr) : plainProgress(log);
  if (environment.mode === 'replay') {
    log(`netvsc: no interfaces: ${environment.missing}; replaying a capture file instead`);
  }
  try {
    const result = await runDemo(options, { environment, progress });
    process.stdout.write(options.json ? `${JSON.stringify(result, undefined, 2)}\n` : `\n${renderTables(result)}`);
    process.exitCode = result.ok ? 0 : 1;
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error;
    log(`netvsc: ${error.message}; everything that was made is removed`);
    process.exitCode = exitCodeOf(error);
  }
}
