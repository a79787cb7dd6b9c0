// Bits of little-endian values: bit 0 is the lowest of the first byte.

/** `bits` bits as a number without sign. Throws RangeError when they are not there. */
export function readBits(bytes: Uint8Array, at: number, bits: number): bigint {
  check(bytes, at, bits);
  const first = Math.floor(at / 8);
  const last = Math.ceil((at + bits) / 8);
  let value = 0n;
  for (let i = last - 1; i >= first; i--) value = (value << 8n) | BigInt(bytes[i]!);
  return BigInt.asUintN(bits, value >> BigInt(at % 8));
}

/** Writes the low `bits` bits of `value`; the bits around them stay. Throws RangeError when they are not there. */
export function writeBits(bytes: Uint8Array, at: number, bits: number, value: bigint): void {
  check(bytes, at, bits);
  const shift = BigInt(at % 8);
  let mask = ((1n << BigInt(bits)) - 1n) << shift;
  let rest = BigInt.asUintN(bits, value) << shift;
  for (let i = Math.floor(at / 8); mask !== 0n; i++) {
    bytes[i] = (bytes[i]! & ~Number(mask & 0xffn)) | Number(rest & 0xffn);
    mask >>= 8n;
    rest >>= 8n;
  }
}

function check(bytes: Uint8Array, at: number, bits: number): void {
  if (at >= 0 && bits >= 0 && at + bits <= bytes.length * 8) return;
  throw new RangeError(`bits ${at} to ${at + bits} of ${bytes.length} bytes`);
}
