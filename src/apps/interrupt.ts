// Ctrl-C and its like: the first one ends the app in order, the second at once.
import { constants } from 'node:os';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** The app was ended by a signal. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
  readonly signal: NodeJS.Signals;
  constructor(signal: NodeJS.Signals) {
    super(`ended by ${signal}`);
    this.signal = signal;
  }
}

const exitCode = (signal: NodeJS.Signals): number => 128 + constants.signals[signal];

/** Exit code of a process that a signal ended, as shells have it. */
export const exitCodeOf = (interrupted: Interrupted): number => exitCode(interrupted.signal);

/** A Ctrl-C that comes from the terminal and again from the process that was started by it is one. */
const ECHO_MS = 300;

export interface Interrupt {
  /** Rejects with Interrupted at the first signal; never resolves. */
  readonly happened: Promise<never>;
  /** Signals are the process's own again. */
  over(): void;
}

/** `kill` is called at the second signal, right before the process ends. */
export function onInterrupt(kill: () => void): Interrupt {
  let reject: (reason: Interrupted) => void;
  let first: number | undefined;
  const happened = new Promise<never>((_, refuse) => {
    reject = refuse;
  });
  happened.catch(() => {}); // nobody may be waiting when it comes
  const hear = (signal: NodeJS.Signals) => {
    if (first === undefined) {
      first = performance.now();
      return reject(new Interrupted(signal));
    }
    if (performance.now() - first < ECHO_MS) return;
    kill();
    process.exit(exitCode(signal));
  };
  for (const signal of SIGNALS) process.on(signal, hear);
  return {
    happened,
    over() {
      for (const signal of SIGNALS) process.off(signal, hear);
    },
  };
}
