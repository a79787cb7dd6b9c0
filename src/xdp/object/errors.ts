// What is wrong with an object, and where.
import type { SourceLine } from '../isa/program.js';

export interface ObjectPlace {
  /** Section of the object. */
  readonly section?: string;
  /** Bytes from the start of the section, or of the file where no section is named. */
  readonly offset?: number;
  readonly program?: string;
  /** Slot in `program`, or in the section where no program is named. */
  readonly instruction?: number;
  readonly line?: SourceLine | undefined;
}

/** An object, or a part of it, that is refused. The message says what was expected, what came, and where. */
export class ObjectError extends Error {
  override name = 'ObjectError';
  readonly place: ObjectPlace;

  constructor(what: string, place: ObjectPlace = {}) {
    super(`${placeText(place)}${what}`);
    this.place = place;
  }
}

function placeText({ section, offset, program, instruction, line }: ObjectPlace): string {
  const parts: string[] = [];
  if (section !== undefined) parts.push(`section ${quoted(section)}`);
  if (program !== undefined) parts.push(`program ${quoted(program)}`);
  if (instruction !== undefined) parts.push(`instruction ${instruction}`);
  if (offset !== undefined) parts.push(`offset 0x${offset.toString(16)}`);
  if (line) parts.push(`${line.file}:${line.line}${line.text.trim() === '' ? '' : ` (${shorten(line.text.trim())})`}`);
  return parts.length === 0 ? '' : `${parts.join(', ')}: `;
}

const LONGEST_NAME = 80;

const shorten = (text: string): string => (text.length > LONGEST_NAME ? `${text.slice(0, LONGEST_NAME)}...` : text);

/** A name from an object, fit for one line of text. */
export function quoted(name: string): string {
  return JSON.stringify(shorten(name));
}
