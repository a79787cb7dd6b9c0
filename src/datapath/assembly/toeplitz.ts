// Toeplitz hash, as Microsoft's receive-side scaling defines it. A key that comes again and again gets a table of 256
// entries an input byte, which is some ten times faster than going bit by bit (facts/performance.md 3).
import * as L from './generated';
import { scratch } from './scratch';

const KEY_BYTES: u32 = 40;
const MAX_INPUT: u32 = 36;
/** Uses in a row after which a key is worth a table: building one costs as much as about 100 hashes. */
const WORTH_A_TABLE: u32 = 100;

let uses: u32 = 0;

function sameKey(key: u32): bool {
  const known = scratch + L.SCRATCH_TOEPLITZ_KEY;
  const first = v128.xor(v128.load(key), v128.load(known));
  const second = v128.xor(v128.load(key, 16), v128.load(known, 16));
  return !v128.any_true(v128.or(first, second)) && load<u64>(key, 32) == load<u64>(known, 32);
}

/** The 32 key bits that belong to bit 0 (the most significant) of input byte `i`, and 8 more for the bits behind it. */
@inline
function keyWindow(key: u32, i: u32): u64 {
  return (<u64>bswap<u32>(load<u32>(key + i)) << 8) | (i + 4 < KEY_BYTES ? <u64>load<u8>(key + i, 4) : 0);
}

function build(): void {
  for (let i: u32 = 0; i < MAX_INPUT; i++) {
    const row = scratch + L.SCRATCH_TOEPLITZ_TABLE + (i << 10);
    const bits = keyWindow(scratch + L.SCRATCH_TOEPLITZ_KEY, i);
    store<u32>(row, 0);
    for (let value: u32 = 1; value < 256; value++) {
      // The lowest set bit's window, and the entry of the other bits.
      const low = <u64>(bits >>> (ctz(value) + 1));
      store<u32>(row + (value << 2), load<u32>(row + ((value & (value - 1)) << 2)) ^ <u32>low);
    }
  }
}

function bitwise(key: u32, input: u32, bytes: u32): u32 {
  let hash: u32 = 0;
  for (let i: u32 = 0; i < bytes; i++) {
    const bits = keyWindow(key, i);
    const value = <u32>load<u8>(input + i);
    for (let bit: u32 = 0; bit < 8; bit++) {
      if (((value >>> bit) & 1) != 0) hash ^= <u32>(bits >>> (<u64>bit + 1));
    }
  }
  return hash;
}

export function toeplitz(key: u32, input: u32, bytes: u32): u32 {
  const n = bytes < MAX_INPUT ? bytes : MAX_INPUT;
  if (!sameKey(key)) {
    memory.copy(scratch + L.SCRATCH_TOEPLITZ_KEY, key, KEY_BYTES);
    uses = 0;
  }
  if (uses < WORTH_A_TABLE) {
    if (++uses < WORTH_A_TABLE) return bitwise(key, input, n);
    build();
  }
  const table = scratch + L.SCRATCH_TOEPLITZ_TABLE;
  let hash: u32 = 0;
  for (let i: u32 = 0; i < n; i++) hash ^= load<u32>(table + (i << 10) + ((<u32>load<u8>(input + i)) << 2));
  return hash;
}
