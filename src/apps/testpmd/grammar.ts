// Commands as patterns of words: matching, completion and help come from them.
import type { Session } from './session.js';
import { wholeNumber } from './values.js';

export type Section = 'control' | 'display' | 'config' | 'ports';

/** Words that a command's line gave for its placeholders and alternatives, in order. */
export class Words {
  readonly #list: readonly string[];

  constructor(list: readonly string[]) {
    this.#list = list;
  }

  text(i: number): string {
    return this.#list[i]!;
  }
  number(i: number): number {
    return wholeNumber(this.#list[i]!)!;
  }
  /** Of <port|all>. */
  which(i: number): number | 'all' {
    return this.#list[i] === 'all' ? 'all' : this.number(i);
  }
  /** Of on|off. */
  on(i: number): boolean {
    return this.#list[i] === 'on';
  }
}

export interface Command {
  /**
   * Words that have to come: literals, alternatives ("on|off"), and placeholders: <port>, <n> and such are whole numbers,
   * <port|all> also "all", anything else in brackets is any word.
   */
  readonly pattern: string;
  readonly section: Section;
  readonly text: string;
  readonly run: (session: Session, words: Words) => Promise<void> | void;
}

/** What one word of a pattern takes. */
interface Place {
  readonly takes: (word: string) => boolean;
  /** What a user could type. */
  readonly choices: readonly string[];
  readonly captures: boolean;
}

const NUMBERS = /^<(port|queue|n|id|desc|bytes|us|level|count)>$/;

function placeOf(part: string): Place {
  const number = (word: string) => wholeNumber(word) !== undefined;
  if (part === '<port|all>') {
    return { takes: (word) => word === 'all' || number(word), choices: ['all'], captures: true };
  }
  if (NUMBERS.test(part)) return { takes: number, choices: [], captures: true };
  if (part.startsWith('<')) return { takes: () => true, choices: [], captures: true };
  const choices = part.split('|');
  return { takes: (word) => choices.includes(word), choices, captures: choices.length > 1 };
}

export type Match =
  | { readonly kind: 'found'; readonly command: Command; readonly words: Words }
  | { readonly kind: 'bad arguments' }
  | { readonly kind: 'not found' };

export class Grammar {
  readonly commands: readonly Command[];
  readonly #places: readonly (readonly Place[])[];

  constructor(commands: readonly Command[]) {
    this.commands = commands;
    this.#places = commands.map(({ pattern }) => pattern.split(' ').map(placeOf));
  }

  /** Which command a line is. */
  match(line: string): Match {
    const given = line.trim().split(/\s+/);
    let begun = false;
    for (const [i, places] of this.#places.entries()) {
      const fitting = places.findIndex((place, at) => given[at] === undefined || !place.takes(given[at]));
      if (fitting !== 0) begun = true;
      if (fitting >= 0 || given.length !== places.length) continue;
      const words = given.filter((_, at) => places[at]!.captures);
      return { kind: 'found', command: this.commands[i]!, words: new Words(words) };
    }
    return { kind: begun ? 'bad arguments' : 'not found' };
  }

  /** What the last word of a line could become, and that word: as node:readline wants it. */
  complete(line: string): [string[], string] {
    const given = line.trimStart().split(/\s+/);
    const last = given.pop() ?? '';
    const found = new Set<string>();
    for (const places of this.#places) {
      const place = places[given.length];
      if (!place || !given.every((word, at) => places[at]!.takes(word))) continue;
      for (const choice of place.choices) if (choice.startsWith(last)) found.add(`${choice} `);
    }
    return [[...found].sort(), last];
  }
}
