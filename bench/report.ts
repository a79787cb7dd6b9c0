// Rows of figures beside their goals, as text.

/** Units in which less is better; in all others more is. */
const LESS_IS_BETTER = new Set(['ns', 'us', 'ms', '%', 's/GB']);

export interface Row {
  readonly work: string;
  /** Of a packet, where there is one size. */
  readonly bytes?: number;
  readonly value: number;
  readonly unit: 'ns' | 'us' | 'ms' | '%' | 'Mpps' | 'kpps' | 'Gbit/s' | 'x' | 's/GB' | '1/s';
  readonly goal?: number | undefined;
  readonly note?: string | undefined;
  /** Figures that the value was made of, or that stand beside it, by name; for programs. */
  readonly figures?: Readonly<Record<string, number>> | undefined;
}

/** A suite, or a part of it, that cannot run here; the message says why. */
export class Skip extends Error {
  override readonly name = 'Skip';
}

export interface SuiteResult {
  readonly rows: readonly Row[];
  /** What was left out, and why. */
  readonly skipped?: readonly string[];
  /** What one has to know to read the rows. */
  readonly notes?: readonly string[];
  /** What is wrong, so that the whole run has failed. */
  readonly faults?: readonly string[];
}

export type Suite = (rounds: number) => Promise<SuiteResult>;

const WORK_WIDTH = 32;

/** One line of text. */
export function rowText({ work, bytes, value, unit, goal, note }: Row): string {
  const least = LESS_IS_BETTER.has(unit);
  const met = goal === undefined ? '' : (least ? value <= goal : value >= goal) ? 'met' : 'missed';
  const target = goal === undefined ? '' : `goal ${least ? '<=' : '>='} ${goal} ${met}`;
  const size = bytes === undefined ? '' : `${bytes} B`;
  const figure = value.toFixed(unit === '%' || unit === 'x' || unit === 's/GB' ? 2 : 1).padStart(8);
  return `  ${work.padEnd(WORK_WIDTH)} ${size.padStart(7)} ${figure} ${unit.padEnd(6)} ${target.padEnd(20)} ${note ?? ''}`.trimEnd();
}
