// Checks of what came over a socket: a shape takes any JSON value and returns it typed, without what nobody asked for, or
// throws a ShapeError that says where what was expected and what came.

export class ShapeError extends Error {
  override readonly name = 'ShapeError';
}

/** `where` is the place in the message, for the error. */
export type Shape<T> = (value: unknown, where: string) => T;
export type Shaped<S> = S extends Shape<infer T> ? T : never;

const SHOWN_MAX = 40;

function refuse(where: string, expected: string, value: unknown): never {
  throw new ShapeError(`${where}: expected ${expected}, got ${shown(value)}`);
}

/** Lists and objects without what is in them: that may be nested deeper than any stack. */
function shown(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (isObject(value)) return 'an object';
  const text = JSON.stringify(value);
  return text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}...` : text;
}

export const nothing: Shape<undefined> = (value, where) =>
  value === undefined || value === null ? undefined : refuse(where, 'nothing', value);

export const flag: Shape<boolean> = (value, where) =>
  typeof value === 'boolean' ? value : refuse(where, 'true or false', value);

export const whole =
  (max: number, min = 0): Shape<number> =>
  (value, where) =>
    typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max
      ? value
      : refuse(where, `a whole number from ${min} to ${max}`, value);

/** `max`: UTF-16 units. */
export const text =
  (max: number): Shape<string> =>
  (value, where) =>
    typeof value === 'string' && value.length <= max
      ? value
      : refuse(where, `text of at most ${max} characters`, value);

export const oneOf =
  <const T extends string>(...words: readonly T[]): Shape<T> =>
  (value, where) =>
    words.includes(value as T) ? (value as T) : refuse(where, words.join(' or '), value);

export const list =
  <T>(of: Shape<T>, max: number): Shape<readonly T[]> =>
  (value, where) =>
    Array.isArray(value) && value.length <= max
      ? value.map((entry, index) => of(entry, `${where}[${index}]`))
      : refuse(where, `a list of at most ${max}`, value);

export const pair =
  <A, B>(a: Shape<A>, b: Shape<B>): Shape<readonly [A, B]> =>
  (value, where) =>
    Array.isArray(value) && value.length === 2
      ? [a(value[0], `${where}[0]`), b(value[1], `${where}[1]`)]
      : refuse(where, 'a pair', value);

type Fields = Readonly<Record<string, Shape<unknown>>>;
type Needed<F extends Fields> = { readonly [K in keyof F]: Shaped<F[K]> };

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** An object with these fields, and of `more` those that are there. Other fields are an error. */
export function fields<F extends Fields, M extends Fields = Record<never, never>>(
  needed: F,
  more?: M,
): Shape<Needed<F> & Partial<Needed<M>>> {
  const known = new Map<string, Shape<unknown>>(Object.entries({ ...needed, ...more }));
  return (value, where) => {
    if (!isObject(value)) refuse(where, 'an object', value);
    for (const name of Object.keys(value))
      if (!known.has(name)) refuse(where, `only the fields ${[...known.keys()].join(', ')}`, name);
    const result: Record<string, unknown> = {};
    for (const [name, shape] of known)
      if (name in needed || Object.hasOwn(value, name)) result[name] = shape(value[name], `${where}.${name}`);
    return result as Needed<F> & Partial<Needed<M>>;
  };
}

/** An object of any names. */
export const named =
  <T>(of: Shape<T>, max: number, nameMax: number): Shape<Readonly<Record<string, T>>> =>
  (value, where) => {
    if (!isObject(value)) refuse(where, 'an object', value);
    const entries = Object.entries(value);
    if (entries.length > max) refuse(where, `at most ${max} names`, entries.length);
    // Of its own making: a name such as "__proto__" is a name here.
    const result: Record<string, T> = Object.create(null) as Record<string, T>;
    for (const [name, entry] of entries) {
      if (name.length > nameMax) refuse(where, `names of at most ${nameMax} characters`, name);
      result[name] = of(entry, `${where}.${name}`);
    }
    return result;
  };

export const optional =
  <T>(of: Shape<T>): Shape<T | undefined> =>
  (value, where) =>
    value === undefined || value === null ? undefined : of(value, where);
