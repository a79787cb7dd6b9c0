// JSON in the layout of ethtool's own writer.

type Value = string | number | boolean | null | { readonly [name: string]: Value };

const INDENT = '    ';

/** One interface's object, in the list of one that ethtool prints. */
export function ethtoolJson(object: { readonly [name: string]: Value }): string {
  return `[ ${write(object, 1)} ]\n`;
}

function write(value: Value, depth: number): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const entries = Object.entries(value);
  if (entries.length === 0) return '{}';
  const lines = entries.map(
    ([name, entry]) => `${INDENT.repeat(depth + 1)}${JSON.stringify(name)}: ${write(entry, depth + 1)}`,
  );
  return `{\n${lines.join(',\n')}\n${INDENT.repeat(depth)}}`;
}
