// netvsc run: any program, on a machine's devices instead of the kernel's. The preload shim does it; no root is needed.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import path from 'node:path';
import { machinePath } from '../../memory/rundir.js';
import { VmbusError } from '../../vmbus/device.js';
import { shimPath } from './shim.js';

/** Passed on to the program; what cannot be caught, or is about us, is not. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH'] as const;
/** Those that a terminal sends to the program itself as well. */
const FROM_TERMINAL: readonly string[] = ['SIGINT', 'SIGQUIT', 'SIGWINCH'];
const NOT_EXECUTABLE = 126;
const NOT_FOUND = 127;

export interface RunOptions {
  /** Name of a machine, or the path of its directory. */
  readonly machine: string;
  readonly command: readonly string[];
}

/** What a program has to be started with to see that machine's devices. Throws VmbusError or ShimError. */
export function runEnvironment(machine: string, base: NodeJS.ProcessEnv = process.env): NodeJS.ProcessEnv {
  const root = machine.includes('/') ? path.resolve(machine) : machinePath(machine);
  if (!existsSync(`${root}/sys/bus/vmbus`)) {
    throw new VmbusError(`no machine at ${root}: is its host running (netvsc host --machine ...)?`);
  }
  const preload = [shimPath(base), base.LD_PRELOAD].filter(Boolean).join(':');
  return { ...base, LD_PRELOAD: preload, NETVSC_ROOT: root };
}

/** Runs the program to its end; resolves to its exit code, 128 + n when signal n ended it, 126 or 127 when it could not
 *  be started (the reason is on stderr then). Throws as runEnvironment. */
export function run({ machine, command }: RunOptions): Promise<number> {
  const [program, ...words] = command as [string, ...string[]];
  const env = runEnvironment(machine);
  return new Promise((resolve) => {
    const child = spawn(program, words, { stdio: 'inherit', env });
    const passOn = (signal: NodeJS.Signals) => {
      if (process.stdin.isTTY && FROM_TERMINAL.includes(signal)) return;
      child.kill(signal);
    };
    for (const signal of SIGNALS) process.on(signal, passOn);
    const end = (code: number) => {
      for (const signal of SIGNALS) process.off(signal, passOn);
      resolve(code);
    };
    child.once('error', ({ code, message }: NodeJS.ErrnoException) => {
      process.stderr.write(`netvsc run: ${program}: ${code === 'ENOENT' ? 'not found' : message}\n`);
      end(code === 'ENOENT' ? NOT_FOUND : NOT_EXECUTABLE);
    });
    child.once('exit', (code, signal) => end(signal ? 128 + constants.signals[signal] : code!));
  });
}
