// Bytes to send: pseudo-random, the same for the same seed, and cheap: one block, of which every chunk is a rotation.

/** Bytes of a chunk. */
export const CHUNK = 1 << 20;
/** A prime, so that rotations repeat only after CHUNK chunks. */
const STEP = 4099;

export class Payload {
  /** The block twice, so that every rotation lies in one piece. */
  readonly #bytes: Buffer;

  constructor(seed: number) {
    const words = new Uint32Array(CHUNK / 4);
    let x = (seed ^ 0x9e3779b9) >>> 0 || 1;
    for (let i = 0; i < words.length; i++) {
      // xorshift32 (Marsaglia 2003)
      x ^= x << 13;
      x ^= x >>> 17;
      x ^= x << 5;
      words[i] = x;
    }
    const block = Buffer.from(words.buffer);
    this.#bytes = Buffer.concat([block, block]);
  }

  /** Chunk `index`, or the first `bytes` of it. A view: not to be written to. */
  chunk(index: number, bytes: number = CHUNK): Buffer {
    const from = (index * STEP) % CHUNK;
    return this.#bytes.subarray(from, from + bytes);
  }
}
