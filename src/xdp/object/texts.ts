// Texts of a string table: names, source lines. Texts may overlap, so what is made of a table can be much more than it:
// there is a limit.
import { ObjectError } from './errors.js';

/** Bytes of one text. */
const LONGEST = 1024;
/** Characters of all texts of a table. */
const MOST = 32 * 1024 * 1024;

const utf8 = new TextDecoder();

export class Texts {
  readonly #bytes: Uint8Array;
  readonly #known = new Map<number, string>();
  #left = MOST;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Length of the table. */
  get bytes(): number {
    return this.#bytes.length;
  }

  /** The text at `at`, up to the zero byte; undefined when there is none, or none that short. Throws ObjectError. */
  at(at: number): string | undefined {
    const known = this.#known.get(at);
    if (known !== undefined) return known;
    if (at >= this.#bytes.length) return undefined;
    const end = this.#bytes.subarray(at, at + LONGEST + 1).indexOf(0);
    if (end < 0) return undefined;
    const text = utf8.decode(this.#bytes.subarray(at, at + end));
    this.#left -= text.length;
    if (this.#left < 0) throw new ObjectError(`expected at most ${MOST} characters of names in a table of strings`);
    this.#known.set(at, text);
    return text;
  }
}
