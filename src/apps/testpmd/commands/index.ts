// All commands.
import { type Command, Grammar } from '../grammar.js';
import { failureOf } from '../output.js';
import type { Session } from '../session.js';
import { ValueError } from '../values.js';
import { controlCommands } from './control.js';
import { offloadCommands } from './offload.js';
import { portCommands } from './port.js';
import { setCommands } from './set.js';
import { showCommands } from './show.js';

const commands: readonly Command[] = [
  ...controlCommands(() => commands),
  ...showCommands,
  ...setCommands,
  ...offloadCommands,
  ...portCommands,
];

export const grammar = new Grammar(commands);

/** Runs a line. What is wrong with it is told on the session's output; nothing is thrown but programming errors. */
export async function execute(session: Session, line: string): Promise<void> {
  const text = line.trim();
  if (text === '' || text.startsWith('#')) return;
  const match = grammar.match(text);
  if (match.kind === 'not found') return session.out.print('Command not found');
  if (match.kind === 'bad arguments') return session.out.print('Bad arguments');
  try {
    await match.command.run(session, match.words);
  } catch (error) {
    if (error instanceof ValueError) session.out.complain(error.message);
    else session.out.complain(failureOf(error).message);
  }
}
