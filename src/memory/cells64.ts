// 64-bit counters in an arena's 32-bit cells, as numbers: exact up to 2^53.
const HIGH = 2 ** 32;

/** Adds `by` (below 2^32) to the counter whose low half is u32[at]. */
export function add64(u32: Uint32Array, at: number, by: number): void {
  const sum = u32[at]! + by;
  u32[at] = sum;
  if (sum >= HIGH) u32[at + 1]! += 1;
}

/** Never mixes halves of two values that compiled code of another thread stored: it writes both at once. While another thread
 *  uses add64() the value may be off by 2^32 for a moment. */
export function read64(u32: Uint32Array, at: number): number {
  for (let high = Atomics.load(u32, at + 1); ; ) {
    const low = Atomics.load(u32, at);
    const again = Atomics.load(u32, at + 1);
    if (again === high) return low + high * HIGH;
    high = again;
  }
}
