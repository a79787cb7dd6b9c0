// Mutations of byte strings: what finds holes in decoders of binary formats and of text alike.
const INTERESTING = [0, 1, 2, 7, 8, 15, 16, 28, 44, 127, 128, 255, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff];
const INTERESTING_HIGH = [0x80000000, 0xfffffff8, 0xffffffff];
const LONGEST = 65_536;

/** A changed copy of `input`; `others` lends pieces. */
export function mutate(input: Uint8Array, others: readonly Uint8Array[], random: () => number): Uint8Array {
  let bytes: Uint8Array = input.slice();
  const rounds = 1 + Math.floor(random() * random() * 8);
  for (let i = 0; i < rounds; i++) bytes = once(bytes, others, random);
  return bytes.length > LONGEST ? bytes.slice(0, LONGEST) : bytes;
}

function once(bytes: Uint8Array, others: readonly Uint8Array[], random: () => number): Uint8Array {
  const below = (limit: number) => Math.floor(random() * limit);
  const at = below(bytes.length + 1);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const number = () => {
    const list = random() < 0.7 ? INTERESTING : INTERESTING_HIGH;
    return random() < 0.2 ? below(bytes.length + 64) : list[below(list.length)]!;
  };
  switch (below(9)) {
    case 0:
      if (at < bytes.length) bytes[at]! ^= 1 << below(8);
      return bytes;
    case 1:
      if (at < bytes.length) bytes[at] = below(256);
      return bytes;
    case 2:
      if (at + 2 <= bytes.length) view.setUint16(at, number(), random() < 0.8);
      return bytes;
    case 3:
    case 4: {
      // Fields of the wire formats lie at multiples of 4.
      const aligned = at & ~3;
      if (aligned + 4 <= bytes.length) view.setUint32(aligned, number(), random() < 0.9);
      return bytes;
    }
    case 5: {
      const aligned = at & ~3;
      if (aligned + 4 <= bytes.length) view.setUint32(aligned, view.getUint32(aligned, true) + below(17) - 8, true);
      return bytes;
    }
    case 6:
      return bytes.slice(0, at);
    case 7: {
      const end = Math.min(bytes.length, at + below(64));
      return concat(bytes.subarray(0, random() < 0.5 ? at : end), bytes.subarray(random() < 0.5 ? at : end));
    }
    default: {
      const other = others[below(others.length)]!;
      const from = below(other.length + 1);
      const piece = other.subarray(from, from + below(128));
      return concat(
        bytes.subarray(0, at),
        piece,
        bytes.subarray(random() < 0.5 ? at : Math.min(bytes.length, at + piece.length)),
      );
    }
  }
}

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
