// Lines of commands: from a terminal with history and completion, or from a pipe, where they are echoed as DPDK's testpmd does.
import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { execute, grammar } from './commands/index.js';
import type { Session } from './session.js';

export const PROMPT = 'testpmd> ';
const HISTORY = 500;

export interface Terminal {
  readonly input: Readable & { readonly isTTY?: boolean };
  readonly output: Writable;
}

/** Reads and runs commands until one ends the session, input ends, or `interrupted` rejects: that is thrown. */
export async function prompt(session: Session, terminal: Terminal, interrupted: Promise<never>): Promise<void> {
  const { input, output } = terminal;
  const tty = input.isTTY === true;
  const lines = createInterface({
    ...{ input, output: tty ? output : undefined, terminal: tty, prompt: PROMPT, historySize: HISTORY },
    completer: (line: string) => grammar.complete(line),
  });
  const ctrlC = new Promise<'end'>((resolve) => lines.once('SIGINT', () => resolve('end')));
  const iterator = lines[Symbol.asyncIterator]();
  const ask = () => (tty ? lines.prompt() : output.write(PROMPT));
  try {
    while (!session.ended) {
      ask();
      const next = await Promise.race([iterator.next(), ctrlC, interrupted]);
      if (next === 'end' || next.done) break;
      if (!tty) output.write(`${next.value}\n`);
      await execute(session, next.value);
    }
    if (!session.ended) output.write('\n');
  } finally {
    finish(lines, input);
  }
}

function finish(lines: Interface, input: Readable): void {
  lines.close();
  input.pause();
  // A pipe that stays open must not keep the process.
  if ('unref' in input && typeof input.unref === 'function') input.unref();
}

/** Resolves when a key is pressed or input ends. */
export async function anyKey({ input }: Terminal, interrupted: Promise<never>): Promise<void> {
  const pressed = new Promise<void>((resolve) => {
    input.once('data', () => resolve());
    input.once('end', resolve);
    input.once('error', () => resolve());
    input.resume();
  });
  try {
    await Promise.race([pressed, interrupted]);
  } finally {
    input.pause();
    if ('unref' in input && typeof input.unref === 'function') input.unref();
  }
}
