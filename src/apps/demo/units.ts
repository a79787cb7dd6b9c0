// Numbers as people read them, at most seven characters where columns depend on it.

/** 999, 1,234, 12,345, 123.5 k, 12.3 M */
export function countText(value: number): string {
  if (!Number.isInteger(value)) return value.toFixed(value < 100 ? 1 : 0);
  if (Math.abs(value) < 100_000) return value.toLocaleString('en-US');
  for (const [unit, name] of [
    [1e12, 'T'],
    [1e9, 'G'],
    [1e6, 'M'],
  ] as const) {
    if (Math.abs(value) >= unit * 0.99995) return `${digits(value / unit)} ${name}`;
  }
  return `${digits(value / 1000)} k`;
}

const digits = (value: number): string => value.toFixed(Math.abs(value) < 100 ? 2 : 1);

/** 1.07 GB: powers of ten. */
export function byteText(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const names = ['kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let name = '';
  for (name of names) {
    value /= 1000;
    if (value < 999.5) break;
  }
  return `${value.toPrecision(3)} ${name}`;
}

/** Bits per second in Gbit/s, "-" when nothing was measured. */
export function gigabitText(bitsPerSecond: number): string {
  return bitsPerSecond > 0 ? (bitsPerSecond / 1e9).toFixed(2) : '-';
}

/** Milliseconds to a microsecond. */
export const millisecondText = (ms: number): string => ms.toFixed(3);
