// Device arguments: "key=value" pairs behind a device's name, as DPDK writes them. Commas inside parentheses do not separate.
import { PortError } from './errors.js';

/** Splits at commas outside parentheses. Throws PortError on one that does not close. */
export function splitArguments(text: string, where: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let part = '';
  for (const letter of text) {
    if (letter === '(') depth++;
    if (letter === ')' && --depth < 0) break;
    if (letter === ',' && depth === 0) {
      parts.push(part);
      part = '';
    } else part += letter;
  }
  if (depth !== 0) throw new PortError('EINVAL', where, `parentheses do not match in "${text}"`);
  if (part !== '' || parts.length > 0) parts.push(part);
  return parts;
}

/** Arguments of one device, which its driver takes out one by one; what is left in the end is unknown. */
export class Devargs {
  readonly text: string;
  readonly #where: string;
  readonly #pairs: { key: string; value: string | undefined; taken: boolean }[];

  /** `text`: "a=1,b=2", may be empty. Throws PortError. */
  constructor(text: string, where: string) {
    this.text = text;
    this.#where = where;
    this.#pairs = splitArguments(text, where).map((part) => {
      const at = part.search(/[=(]/);
      const key = at < 0 ? part : part.slice(0, at);
      if (!/^[a-z_][a-z0-9_]*$/.test(key)) throw this.#error(part, 'expected key=value');
      const value = at < 0 ? undefined : part[at] === '(' ? part.slice(at + 1, -1) : part.slice(at + 1);
      return { key, value, taken: false };
    });
  }

  /** Every value of a key; undefined for a key without one. */
  all(key: string): (string | undefined)[] {
    const found = this.#pairs.filter((pair) => pair.key === key);
    for (const pair of found) pair.taken = true;
    return found.map(({ value }) => value);
  }

  /** Text of a key that may be there once. */
  string(key: string): string | undefined {
    const values = this.all(key);
    if (values.length === 0) return undefined;
    const [value] = values;
    if (values.length > 1) throw this.#error(`${key}=${value}`, 'expected it once');
    if (value === undefined || value === '') throw this.#error(key, 'expected a value');
    return value;
  }

  /** Whole number, decimal or 0x hexadecimal. */
  number(key: string, usual: number, min = 0, max = 0xffff_ffff): number {
    const text = this.string(key);
    if (text === undefined) return usual;
    const value = /^(0x[0-9a-f]+|[0-9]+)$/i.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) throw this.#error(`${key}=${text}`, `expected a number ${min} to ${max}`);
    return value;
  }

  /** Decimal fraction 0 to 1, as in 0.25. */
  fraction(key: string, usual: number): number {
    const text = this.string(key);
    if (text === undefined) return usual;
    const value = /^([0-9]+\.?[0-9]*|\.[0-9]+)(e-[0-9]+)?$/i.test(text) ? Number(text) : Number.NaN;
    if (!(value >= 0 && value <= 1)) throw this.#error(`${key}=${text}`, 'expected a number 0 to 1, as in 0.01');
    return value;
  }

  /** 0 or 1; a key without value is true. */
  flag(key: string, usual = false): boolean {
    const values = this.all(key);
    if (values.length === 0) return usual;
    if (values.length > 1) throw this.#error(key, 'expected it once');
    const [value = '1'] = values;
    if (!/^[0-9]+$/.test(value)) throw this.#error(`${key}=${value}`, 'expected 0 or 1');
    return Number(value) !== 0;
  }

  /** Throws PortError when an argument was not taken. `known`: names for the message. */
  done(known: readonly string[]): void {
    const left = this.#pairs.find(({ taken }) => !taken);
    if (left) throw this.#error(left.key, `unknown argument, expected ${known.join(', ') || 'none'}`);
  }

  #error(what: string, problem: string): PortError {
    return new PortError('EINVAL', this.#where, `${what}: ${problem}`);
  }
}
